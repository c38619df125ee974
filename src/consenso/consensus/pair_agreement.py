"""Agreement of two annotators, pair by pair and on the average: raw agreement and Cohen's kappa.

Both depend only on the table of the two annotators' labels over the texts both voted on. The tables of all pairs are
counted in one pass and kept sparse; texts with the same votes are one pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from consenso.consensus.intervals_of_sums import (
    agreement_interval,
    binomial_interval,
    change,
    jackknife_error,
    jackknife_error_within,
    left_out_means,
    share_interval,
)  # fmt: skip
from consenso.consensus.panel_agreement import beyond_chance
from consenso.consensus.patterns import find_patterns
from consenso.consensus.resampling import CELLS, Resamples, apply_measure, blocks, ratio
from consenso.consensus.votematrix import CodedVotes, run_starts

if TYPE_CHECKING:
    import numpy as np

TABLE = 1 << 22
"""Cells of the table of all pairs and labels that may be counted in one array (32 MB); larger ones are sorted."""


@dataclass(frozen=True, eq=False)
class DistinctVotes:
    """The votes of one text of each pattern."""

    votes: CodedVotes
    """One vote per annotator and pattern; `text` is the pattern, 0 … U − 1, in the order of the first text of each."""
    sizes: np.ndarray
    """Texts of each pattern, (U,) int64."""

    @cached_property
    def several(self) -> int:
        """Texts with two votes or more."""
        import numpy as np

        return int(self.sizes[np.bincount(self.votes.text, minlength=len(self.sizes)) > 1].sum())


def distinct_votes(single: CodedVotes) -> DistinctVotes:
    """Group the texts by who gave which label; `single` has one vote per annotator and text."""
    import numpy as np

    patterns, K = find_patterns(single).in_text_order(), max(len(single.labels), 1)
    cells = patterns.votes
    annotator, label = np.divmod(cells.indices.astype(np.int64), K)
    votes = replace(
        single,
        text=np.repeat(np.arange(len(patterns.number)), np.diff(cells.indptr)),
        annotator=annotator,
        label=label,
        weight=cells.data,
    )
    return DistinctVotes(votes, patterns.number.astype(np.int64))


@dataclass(frozen=True, eq=False)
class PairTables:
    """The cells of the tables of all pairs that share a text, sorted by pair and labels."""

    shape: tuple[int, int]
    """A annotators, K labels."""
    key: np.ndarray
    """((left · A + right) · K + label of left) · K + label of right, (C,), for cells that hold a text."""
    number: np.ndarray
    """Texts of each cell, (C,) float64."""

    @cached_property
    def pairs(self) -> np.ndarray:
        """left · A + right of the P pairs, sorted."""
        pair = self.key // self.shape[1] ** 2
        pairs: np.ndarray = pair[run_starts(pair)]
        return pairs

    @cached_property
    def pair(self) -> np.ndarray:
        """Each cell's position in `pairs`, (C,)."""
        import numpy as np

        start = run_starts(self.key // self.shape[1] ** 2)
        return np.repeat(np.arange(len(start)), np.diff(np.r_[start, len(self.key)]))

    @cached_property
    def n(self) -> np.ndarray:
        """Texts that both annotators voted on, (P,)."""
        import numpy as np

        return np.bincount(self.pair, weights=self.number, minlength=len(self.pairs))

    @cached_property
    def place(self) -> Any:
        """The function from keys to positions in `key`."""
        import numpy as np

        A, K = self.shape
        if (A * K) ** 2 <= TABLE:
            position = np.zeros((A * K) ** 2, dtype=np.int64)
            position[self.key] = np.arange(len(self.key))
            return position.__getitem__

        def search(wanted: np.ndarray) -> np.ndarray:
            order = wanted.argsort()  # neighbours in memory: several times faster
            found = np.empty(len(wanted), dtype=np.int64)
            found[order] = np.searchsorted(self.key, wanted[order])
            return found

        return search


def pair_tables(distinct: DistinctVotes) -> PairTables:
    """Count the tables of all pairs."""
    import numpy as np

    A, K = len(distinct.votes.annotators), max(len(distinct.votes.labels), 1)
    if (A * K) ** 2 <= TABLE:
        table = np.zeros((A * K) ** 2)
        for text, key in _votes_in_common(distinct.votes):
            table += np.bincount(key, weights=distinct.sizes[text], minlength=len(table))
        return PairTables((A, K), np.flatnonzero(table), table[table > 0])
    keys, numbers = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for text, key in _votes_in_common(distinct.votes):
        _added(key, distinct.sizes[text].astype(float), keys, numbers)
    every, number = np.concatenate(keys), np.concatenate(numbers)
    keys, numbers = [], []
    _added(every, number, keys, numbers)
    return PairTables((A, K), keys[0], numbers[0])


def _added(key: np.ndarray, number: np.ndarray, keys: list[np.ndarray], numbers: list[np.ndarray]) -> None:
    """Append the sorted distinct keys and the sums of their numbers."""
    import numpy as np

    order = key.argsort()
    key = key[order]
    start = run_starts(key)
    keys.append(key[start])
    numbers.append(np.add.reduceat(number[order], start) if len(start) else np.empty(0))


def _votes_in_common(votes: CodedVotes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (text, key of the cell) of every two votes on one text: first neighbours, then those two apart, …"""
    import numpy as np

    A, K = len(votes.annotators), max(len(votes.labels), 1)
    size = np.diff(np.r_[run_starts(votes.text), len(votes.text)])
    for step in range(1, int(size.max()) if len(size) else 0):
        at = np.flatnonzero(votes.text[step:] == votes.text[:-step])
        other = at + step
        pair = votes.annotator[at] * A + votes.annotator[other]
        yield votes.text[at], (pair * K + votes.label[at]) * K + votes.label[other]


@dataclass(frozen=True, eq=False)
class PairMeasure:
    """Raw agreement or Cohen's kappa of the P pairs."""

    values: np.ndarray
    """(P,); NaN where undefined."""
    left_out: np.ndarray
    """Without a text of each cell, (C,)."""
    worst: np.ndarray
    """If the two never agreed, their shares of labels as they are, (P,)."""


def raw_and_cohen(tables: PairTables) -> dict[str, PairMeasure]:
    """Measure each pair, and each pair without a text of each of its cells.

    κ = (p_o − p_e) / (1 − p_e), p_e = Σ_k p_k q_k (Cohen 1960); undefined where both always give the same label.
    """
    import numpy as np

    K = tables.shape[1]
    one, other = np.divmod(tables.key % K**2, K)
    same = (one == other).astype(float)
    pairs = len(tables.pairs)
    agreed = np.bincount(tables.pair, weights=tables.number * same, minlength=pairs)
    chance, less = np.empty(pairs), np.empty(len(tables.key))
    for some in blocks(np.arange(pairs), K):
        cells = slice(*np.searchsorted(tables.pair, [some[0], some[-1] + 1]))
        row = (tables.pair[cells] - some[0]) * K
        rows, columns = (
            np.bincount(row + label[cells], weights=tables.number[cells], minlength=len(some) * K)
            for label in (one, other)
        )
        chance[some] = (rows * columns).reshape(-1, K).sum(axis=1)
        less[cells] = columns[row + one[cells]] + rows[row + other[cells]] - same[cells]
    n, in_cell = tables.n, tables.pair
    agreed_left, n_left, chance_left = agreed[in_cell] - same, n[in_cell] - 1, chance[in_cell] - less
    expected = ratio(chance, n * n)
    return {
        "raw": PairMeasure(ratio(agreed, n), ratio(agreed_left, n_left), np.zeros(pairs)),
        "cohen": PairMeasure(
            _cohen(agreed, n, chance),
            _cohen(agreed_left, n_left, chance_left),
            beyond_chance(np.zeros(pairs), expected),
        ),
    }


def _cohen(agreed: np.ndarray, n: np.ndarray, chance: np.ndarray) -> np.ndarray:
    return ratio(n * agreed - chance, n * n - chance)


def pair_intervals(name: str, measure: PairMeasure, tables: PairTables) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % intervals of each pair: Wilson's for raw agreement, the jackknife's for kappa."""
    if name == "raw":
        return binomial_interval(measure.values, tables.n)
    error = jackknife_error_within(measure.left_out, tables.number, tables.pair, len(tables.n))
    return agreement_interval(measure.values, error, tables.n, measure.worst)


def means_over_pairs(
    measures: dict[str, PairMeasure], tables: PairTables, distinct: DistinctVotes
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the mean over the pairs where it is defined, and its 95 % interval: (1,) each."""
    import numpy as np

    U = len(distinct.sizes)
    changes = {
        name: [np.column_stack(change(m.left_out, m.values[tables.pair])), np.zeros((U, 2))]
        for name, m in measures.items()
    }
    for text, key in _votes_in_common(distinct.votes):
        at = tables.place(key)
        for cell, of_text in changes.values():
            for column in (0, 1):
                of_text[:, column] += np.bincount(text, weights=cell[at, column], minlength=U)
    found = {}
    for name, measure in measures.items():
        mean, left_out = left_out_means(measure.values, *changes[name][1].T)
        value, n = np.array([mean]), np.array([distinct.several])
        error = jackknife_error(left_out[:, None], distinct.sizes)
        defined = measure.worst[np.isfinite(measure.values)]
        worst = np.array([defined.mean() if len(defined) else np.nan])
        interval = share_interval(value, error, n) if name == "raw" else agreement_interval(value, error, n, worst)
        found[name] = (value, *interval)
    return found


# resampled texts


def pair_draws(
    distinct: DistinctVotes, tables: PairTables, resamples: Resamples
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield positions in `tables.pairs` and raw agreement and kappa of resampled texts, (draws, pairs), by blocks."""
    import numpy as np
    from scipy.sparse import csr_array

    K, U = tables.shape[1], len(distinct.sizes)
    common = list(_votes_in_common(distinct.votes)) or [(np.empty(0, dtype=np.int64),) * 2]
    text, key = (np.concatenate(column) for column in zip(*common, strict=True))
    order = key.argsort(kind="stable")
    text, key = text[order], key[order]
    every = np.searchsorted(tables.pairs, key // K**2)
    one, other = np.divmod(key % K**2, K)
    size = max(1, CELLS // max(1000, len(resamples.counts)) // (1 + 2 * K))
    for at in range(0, len(tables.pairs), size):
        P = len(tables.pairs[at : at + size])
        part = slice(*np.searchsorted(every, [at, at + P]))
        pair, agreed = every[part] - at, one[part] == other[part]
        row = np.concatenate([text[part][agreed], text[part], text[part]])
        column = np.concatenate([pair[agreed], P + pair * K + one[part], P + P * K + pair * K + other[part]])
        columns = csr_array((np.ones(len(row)), (row, column)), shape=(U, P * (1 + 2 * K)))
        draws = apply_measure(resamples, columns, partial(_from_sums, P=P, K=K))[1]
        yield np.arange(at, at + P), {"raw": draws[:, :P], "cohen": draws[:, P:]}


def _from_sums(sums: np.ndarray, P: int, K: int) -> np.ndarray:
    import numpy as np

    agreed = sums[:, :P]
    first = sums[:, P : P + P * K].reshape(-1, P, K)
    second = sums[:, P + P * K :].reshape(-1, P, K)
    n = first.sum(axis=2)
    return np.concatenate([ratio(agreed, n), _cohen(agreed, n, (first * second).sum(axis=2))], axis=1)
