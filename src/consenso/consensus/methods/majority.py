"""Majority: the share of the valid votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.votematrix import label_shares

if TYPE_CHECKING:
    from consenso.consensus.votematrix import CodedVotes


def majority(votes: CodedVotes, options: Options) -> Shares:
    """Return each label's share of the valid votes."""
    return Shares(label_shares(votes, votes.weight))
