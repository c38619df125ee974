"""How votes become shares: one function per file, one line per method here.

A method takes the coded votes and the options and returns shares, (n, K) float64: rows sum to 1, or are all zero for a
text without a valid vote. It decides nothing: labels, thresholds, ties and abstention are `decide`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.methods.majority import majority
from consenso.consensus.methods.threshold import threshold
from consenso.consensus.methods.unanimous import unanimous
from consenso.consensus.methods.weighted import weighted

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes, Options


@dataclass(frozen=True)
class Method:
    """A method and what `decide` must know of it."""

    shares: Callable[[CodedVotes, Options], np.ndarray]
    """Votes → shares."""
    threshold: float | None = None
    """The winner's smallest share where the user names none."""
    at_least: float = 0.0
    """The winner's smallest share, whatever the user names."""
    reads: frozenset[str] = frozenset()
    """Options that the method reads; giving it others is a mistake."""
    posterior: bool = False
    """True: the shares are a model's probabilities; the score is then the winner's share of the votes."""


METHODS = {
    "majority": Method(majority),
    "weighted": Method(weighted, reads=frozenset({"weights"})),
    "unanimous": Method(unanimous, at_least=1.0),
    "threshold": Method(threshold, threshold=0.8),
}

__all__ = ["METHODS", "Method"]
