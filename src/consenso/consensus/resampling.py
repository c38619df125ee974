"""Bootstrap over texts for measures that are functions of sums over texts.

Texts with the same votes are one pattern. A draw of n texts is then a count per pattern, the sums of all draws are one
matrix product (draws × patterns) · (patterns × columns), and 1,000 draws of 100,000 texts take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CELLS = 4_000_000
"""Numbers held at a time in a matrix product (32 MB)."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Resampled texts, as counts per pattern; the patterns in the order of the first text that shows each."""

    sizes: np.ndarray
    """Texts per pattern, (U,)."""
    counts: np.ndarray
    """Texts per draw and pattern, (draws, U), in the smallest integer type that holds them."""


def find_patterns(group: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the groups (texts) that hold the same set of cells; `group` is sorted, cells are small integers.

    Returns (first, sizes): for each pattern the position of its first group among the groups that occur, and how many
    groups show it. Sets are compared by the sum of 64-bit random numbers, one per cell: U patterns collide with
    probability U²/2⁶⁵ (10⁻⁹ for 200,000 patterns).
    """
    import numpy as np

    from consenso.consensus.votematrix import run_starts

    if not len(group):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ticket = np.random.default_rng(0).integers(0, 2**64, size=int(cell.max()) + 1, dtype=np.uint64)
    signature = np.add.reduceat(ticket[cell], run_starts(group))
    _, first, sizes = np.unique(signature, return_index=True, return_counts=True)
    order = first.argsort()
    return first[order], sizes[order]


def resample(sizes: np.ndarray, draws: int, seed: list[int]) -> Resamples:
    """Draw `draws` times as many texts as there are, with replacement."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n, U = int(sizes.sum()), len(sizes)
    blocks = []
    for size in _blocks(draws if n else 0, U):
        if n >= 4 * U:
            drawn = rng.multinomial(n, sizes / n, size=size)
        else:  # hardly two texts alike: drawing texts is faster than drawing a count per pattern
            pattern = np.repeat(np.arange(U), sizes)
            drawn = np.stack([np.bincount(pattern[rng.integers(0, n, n)], minlength=U) for _ in range(size)])
        blocks.append(drawn.astype(np.min_scalar_type(int(drawn.max()))))
    return Resamples(sizes, np.concatenate(blocks) if blocks else np.empty((0, U), dtype=np.uint8))


def apply_measure(
    resamples: Resamples, columns: Any, formula: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (values (R,), draws (draws, R)) of `formula`: sums (…, C) → measures (…, R); columns: (U, C)."""
    import numpy as np

    value = formula(np.asarray(resamples.sizes[None, :].astype(float) @ columns))[0]
    draws, start = [], 0
    for size in _blocks(len(resamples.counts), max(columns.shape)):
        counts = resamples.counts[start : start + size].astype(float)
        draws.append(formula(np.asarray(counts @ columns)))
        start += size
    return value, np.concatenate(draws) if draws else np.empty((0, len(value)))


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


def _blocks(draws: int, width: int) -> list[int]:
    size = max(1, CELLS // max(width, 1))
    return [min(size, draws - start) for start in range(0, draws, size)]
