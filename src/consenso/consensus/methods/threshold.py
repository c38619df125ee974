"""Threshold: majority, decided only where the winner's share is high enough (.8 unless told otherwise)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.majority import majority

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes, Options


def threshold(votes: CodedVotes, options: Options) -> np.ndarray:
    """Return majority's shares, (n, K); the threshold itself is `decide`'s."""
    return majority(votes, options)
