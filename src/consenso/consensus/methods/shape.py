"""The shape of every method: coded votes and options in, shares out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes


@dataclass(frozen=True, eq=False)
class Options:
    """What a method may read besides the votes; `Method.reads` says which of it a method does read."""

    weights: Mapping[str, float] | str = field(default_factory=dict)
    """Weight per annotator (an absent one weighs 1), or where they are learned from: "gold" or "votes"."""
    gold: np.ndarray | None = None
    """Positions of the gold labels in `CodedVotes.labels`, (n,) int64; −1 where there is none that may be used."""
    probabilities: np.ndarray | None = None
    """A classifier's out-of-sample probabilities, (n, K) float64; a row of NaN where there are none."""
    families: Mapping[str, str] = field(default_factory=dict)
    """Annotator → its model family; an absent one is a family of its own."""
    iterations: int = 500
    """The most iterations of a method that iterates."""
    seed: int = 0
    """For methods that draw."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What a method found."""

    values: np.ndarray
    """Shares, (n, K) float64: rows sum to 1, or are all zero for a text without a valid vote."""
    converged: bool = True
    """False: the iterations ended before the estimates stood still."""
    iterations: int = 0
    """How many iterations were made."""
    note: str = ""
    """One line for the reader: what was not reached, what was learned from what."""
    confusion: np.ndarray | None = None
    """(A, K, K) float64: the chance that annotator a gives label j to a text whose true label is k, at [a, j, k]."""
    prevalence: np.ndarray | None = None
    """(K,) float64: the share of each true label, where the method estimates it."""
    weights: np.ndarray | None = None
    """(A,) float64: what each annotator's vote counts, where the method learns it."""


@dataclass(frozen=True)
class Method:
    """A method and what `decide` must know of it."""

    shares: Callable[[CodedVotes, Options], Shares]
    """Votes → shares."""
    threshold: float | None = None
    """The winner's smallest share where the user names none."""
    at_least: float = 0.0
    """The winner's smallest share, whatever the user names."""
    reads: frozenset[str] = frozenset()
    """Options that the method reads (weights, gold, probabilities, families); giving it others is a mistake."""
    needs: frozenset[str] = frozenset()
    """Options without which the method cannot work."""
    posterior: bool = False
    """True: the shares are a model's probabilities; the score is then the winner's share of the votes."""
    iterates: bool = False
    """True: it estimates what the annotators are worth from how their votes agree."""
    ordered: bool = False
    """True: the labels are taken as ordered, from the first of the schema to the last."""
