"""Outliers: labels that few annotators gave are left out; what remains is shared out anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.votematrix import label_shares

if TYPE_CHECKING:
    from consenso.consensus.votematrix import CodedVotes

LIMIT = 0.3
"""The smallest share of a label that stays."""


def outliers(votes: CodedVotes, options: Options) -> Shares:
    """Return the shares of the labels with at least LIMIT of the valid votes; without any such label, all shares.

    With `at_least=1` a text gets a label only where exactly one label stays.
    """
    import numpy as np

    shares = label_shares(votes, votes.weight)
    stays = shares >= LIMIT - 1e-9  # 3 of 10 is .3, however it is rounded
    kept = np.where(stays | ~stays.any(axis=1, keepdims=True), shares, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    return Shares(np.divide(kept, total, out=np.zeros_like(kept), where=total > 0))
