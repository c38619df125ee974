"""Bootstrap over texts for measures that are functions of sums over texts (Efron and Tibshirani 1993, ch. 13).

Texts with the same votes are one pattern. A draw of n texts is then a count per pattern, the sums of all draws are one
matrix product (draws × patterns) · (patterns × columns), and 1,000 draws of 100,000 texts take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.consensus.votematrix import run_starts

if TYPE_CHECKING:
    import numpy as np

CELLS = 4_000_000
"""Numbers held at a time in a matrix product (32 MB)."""
TABLE = 1 << 22
"""The largest table of possible patterns that is counted in one pass."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Resampled texts, as counts per pattern; the patterns in the order of the first text that shows each."""

    sizes: np.ndarray
    """Texts per pattern, (U,)."""
    counts: np.ndarray
    """Texts per draw and pattern, (draws, U), in the smallest integer type that holds them."""


def find_alike(group: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the groups (texts) that hold the same cells, each as often; `group` is sorted, cells are small integers.

    Returns (first, sizes): for each pattern the position of its first group among the groups that occur, and how many
    groups show it. Where few patterns are possible they are counted in a table. Otherwise groups are compared by the
    sum of 64-bit random numbers, one per cell: U patterns collide with probability U²/2⁶⁵ (10⁻⁹ for 200,000 patterns).
    """
    import numpy as np

    if not len(group):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    start = run_starts(group)
    cells, base = int(cell.max()) + 1, int(np.diff(np.r_[start, len(group)]).max()) + 1
    if cells * math.log(base) <= math.log(min(TABLE, 8 * len(start))):
        key = np.add.reduceat((base ** np.arange(cells))[cell], start)
        sizes, first = np.bincount(key), np.zeros(key.max() + 1, dtype=np.int64)
        first[key[::-1]] = np.arange(len(key))[::-1]
        first, sizes = first[sizes > 0], sizes[sizes > 0]
    else:
        ticket = np.random.default_rng(0).integers(0, 2**64, size=cells, dtype=np.uint64)
        _, first, sizes = np.unique(np.add.reduceat(ticket[cell], start), return_index=True, return_counts=True)
    order = first.argsort()
    return first[order], sizes[order]


def resample(sizes: np.ndarray, draws: int, seed: list[int]) -> Resamples:
    """Draw `draws` times as many texts as there are, with replacement."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n, U = int(sizes.sum()), len(sizes)
    found = [np.empty((0, U), dtype=np.uint8)]
    for some in blocks(np.empty(draws if n else 0), U):
        if n >= 4 * U:
            drawn = rng.multinomial(n, sizes / n, size=len(some))
        else:  # hardly two texts alike: drawing texts is faster than drawing a count per pattern
            pattern = np.repeat(np.arange(U), sizes)
            drawn = np.stack([np.bincount(pattern[rng.integers(0, n, n)], minlength=U) for _ in some])
        found.append(drawn.astype(np.min_scalar_type(int(drawn.max()))))
    return Resamples(sizes, np.concatenate(found))


def apply_measure(
    resamples: Resamples, columns: Any, formula: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (values (R,), draws (draws, R)) of `formula`: sums (…, C) → measures (…, R); columns: (U, C)."""
    import numpy as np

    value = formula(np.asarray(resamples.sizes[None, :].astype(float) @ columns))[0]
    draws = [np.empty((0, len(value)))]
    for counts in blocks(resamples.counts, max(columns.shape)):
        draws.append(formula(np.asarray(counts.astype(float) @ columns)))
    return value, np.concatenate(draws)


def percentile_interval(draws: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5 and 97.5 percentiles of each column of draws.

    Null (NaN) without draws, with fewer than two texts, or where the measure is undefined in over 5 % of the draws.
    """
    import numpy as np

    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    defined = np.isfinite(draws)
    usable = (n > 1) & (defined.sum(axis=0) >= max(1, 0.95 * len(draws)))
    whole = usable & defined.all(axis=0)
    if whole.any():
        low[whole], high[whole] = np.percentile(draws[:, whole], [2.5, 97.5], axis=0)
    for column in np.flatnonzero(usable & ~whole):
        low[column], high[column] = np.percentile(draws[defined[:, column], column], [2.5, 97.5])
    return low, high


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0 (the measure is undefined there)."""
    import numpy as np

    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Yield the rows in blocks that make `CELLS` numbers when each row makes `width`."""
    size = max(1, CELLS // max(width, 1))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
