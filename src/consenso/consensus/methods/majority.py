"""Majority: the share of the valid votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.votematrix import label_shares

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes, Options


def majority(votes: CodedVotes, options: Options) -> np.ndarray:
    """Return each label's share of the valid votes, (n, K)."""
    return label_shares(votes, votes.weight)
