"""Texts with the same votes are one pattern: a model fitted to patterns does its work once for all texts that share one.

A panel of 5 annotators and 5 labels has at most 6⁵ = 7,776 patterns, whatever the number of texts. Crowds, where each
text has its own few annotators, hardly compress; there a pattern is a text, and nothing is lost but the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.votematrix import run_starts

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

    from consenso.consensus.votematrix import CodedVotes

TABLE = 1 << 22
"""The largest table of possible patterns that is counted in one pass."""


@dataclass(frozen=True, eq=False)
class Patterns:
    """The P distinct sets of valid votes, in no particular order."""

    of_text: np.ndarray
    """The pattern of each text, (n,) int64; −1 for a text without a valid vote."""
    number: np.ndarray
    """How many texts show the pattern, (P,) float64."""
    votes: csr_array
    """What the pattern's votes weigh, (P, A·K): label k of annotator a stands at a·K + k."""

    def spread(self, rows: np.ndarray) -> np.ndarray:
        """Return a row per text from a row per pattern; zero for texts without a valid vote."""
        import numpy as np

        if not (self.of_text >= 0).all():
            rows = np.concatenate([rows, np.zeros((1, *rows.shape[1:]))])
        spread: np.ndarray = rows[self.of_text]
        return spread

    def in_text_order(self) -> Patterns:
        """Return them in the order of the first text that shows each: draws then do not depend on names."""
        import numpy as np

        voted = np.flatnonzero(self.of_text >= 0)[::-1]
        first = np.empty(len(self.number), dtype=np.int64)
        first[self.of_text[voted]] = voted  # the last one written stays: the first text
        order = first.argsort()
        place = np.full(len(order) + 1, -1)
        place[order] = np.arange(len(order))
        return Patterns(place[self.of_text], self.number[order], self.votes[order])


def find_patterns(votes: CodedVotes) -> Patterns:
    """Group the texts by their valid votes and what these weigh."""
    import numpy as np
    from scipy.sparse import csr_array

    n, K = votes.shape
    A = len(votes.annotators)
    start = np.arange(0, len(votes.text), A) if _is_complete(votes) else run_starts(votes.text)
    voted = votes.text[start]
    key = _keys(votes, start)
    first, pattern, number = _distinct(key, (K + 1) ** min(A, 64) if key.dtype == np.int64 else 0)
    size = np.diff(np.r_[start, len(votes.text)])[first]
    row = np.r_[0, np.cumsum(size)]
    at = np.arange(row[-1]) + np.repeat(start[first] - row[:-1], size)
    of_text = np.full(n, -1, dtype=np.int64)
    of_text[voted] = pattern
    cell = votes.annotator[at] * K + votes.label[at]
    return Patterns(of_text, number, csr_array((votes.weight[at], cell, row), shape=(len(number), A * K)))


def _keys(votes: CodedVotes, start: np.ndarray) -> np.ndarray:
    """Return one number per voted text, the same where the votes are the same.

    Where it fits in 62 bits and each annotator has one vote per text: the votes as digits in base K + 1 (int64).
    Otherwise a sum of 64-bit random numbers, one per (annotator, label), times the weight (uint64): U patterns collide
    with probability below U²/2⁶⁴.
    """
    import numpy as np

    K, A = len(votes.labels), len(votes.annotators)
    if A * np.log2(K + 1) < 62 and bool((votes.weight == 1).all()):
        digit = (K + 1) ** np.arange(A, dtype=np.int64)
        if _is_complete(votes):
            given = votes.label.reshape(-1, A)
            key: np.ndarray = (given[:, 0] + 1) * digit[0]
            for a in range(1, A):
                key += (given[:, a] + 1) * digit[a]
            return key
        if bool((np.diff(votes.text * A + votes.annotator) > 0).all()) and len(start):
            return np.add.reduceat((votes.label + 1) * digit[votes.annotator], start)
    if not len(start):
        return np.empty(0, dtype=np.uint64)
    ticket = np.random.default_rng(0).integers(0, 2**64, size=A * K, dtype=np.uint64)
    cell = votes.annotator * K + votes.label
    return np.add.reduceat(ticket[cell] * (votes.weight.view(np.uint64) | np.uint64(1)), start)


def _is_complete(votes: CodedVotes) -> bool:
    """Return whether every text that has votes has exactly one of each annotator."""
    import numpy as np

    A = len(votes.annotators)
    if not len(votes.text) or len(votes.text) % A:
        return False
    text, annotator = votes.text.reshape(-1, A), votes.annotator.reshape(-1, A)
    return bool((text[:, 0] == text[:, -1]).all()) and bool((annotator == np.arange(A)).all())


def _distinct(key: np.ndarray, table: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each distinct key stands first, which of them each entry is, and how often each stands."""
    import numpy as np

    if 0 < table <= min(TABLE, 8 * len(key)):  # few possible keys: count instead of sorting
        number = np.bincount(key, minlength=table)
        found = np.flatnonzero(number)
        place = np.empty(table, dtype=np.int64)
        place[found] = np.arange(len(found))
        pattern = place[key]
        first = np.empty(len(found), dtype=np.int64)
        first[pattern[::-1]] = np.arange(len(key))[::-1]
        return first, pattern, number[found].astype(float)
    order = key.argsort(kind="stable")
    start = run_starts(key[order])
    number = np.diff(np.r_[start, len(order)])
    pattern = np.empty(len(key), dtype=np.int64)
    pattern[order] = np.repeat(np.arange(len(start)), number)
    return order[start], pattern, number.astype(float)
