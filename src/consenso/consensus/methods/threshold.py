"""Threshold: majority, decided only where the winner's share is high enough (.8 unless told otherwise)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.majority import majority
from consenso.consensus.methods.shape import Options, Shares

if TYPE_CHECKING:
    from consenso.consensus.votematrix import CodedVotes


def threshold(votes: CodedVotes, options: Options) -> Shares:
    """Return majority's shares; the threshold itself is `decide`'s."""
    return majority(votes, options)
