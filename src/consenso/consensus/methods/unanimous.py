"""Unanimous: majority, decided only where all valid votes agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.majority import majority

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes, Options


def unanimous(votes: CodedVotes, options: Options) -> np.ndarray:
    """Return majority's shares, (n, K); that the winner needs all of them is `decide`'s."""
    return majority(votes, options)
