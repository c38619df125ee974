"""How many seeds and test texts a verdict would need, from the variance components of what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.compare.paired import TwoWay, variance_and_df

if TYPE_CHECKING:
    import numpy as np

MOST_SEEDS = 1000
MOST_ITEMS = 10_000_000


@dataclass(frozen=True)
class Components:
    """Variance components of D[s, i], as variances."""

    seed: float
    """Of the difference over seeds."""
    item: float
    """Of the difference over items."""
    error: float
    """Of seed × item."""


@dataclass(frozen=True)
class Needs:
    """What showing equivalence needs, if there is no difference. None: no number of this alone is enough."""

    seeds_low: int | None
    """Seeds with these test texts, if the seed variance is at its 10 % limit."""
    seeds_high: int | None
    """Seeds with these test texts, if the seed variance is at its 90 % limit."""
    items: int | None
    """Test texts with these seeds."""
    items_any: int | None
    """Test texts with as many seeds as make the seeds' share half of the allowed variance."""
    items_first: bool
    """True: the items' share alone exceeds the allowed variance; no number of seeds is enough."""


def components(result: TwoWay) -> Components:
    """Return the variance components of a two-way result (S ≥ 2)."""
    return Components(result.sd_seed**2, result.sd_item**2, result.sd_error**2)


def tost_power(parts: Components, S: np.ndarray, n: np.ndarray, margin: float) -> np.ndarray:
    """Return the power of TOST (α = .05 per side) at a true difference of 0, 2·T_df(δ/SE − t.95) − 1, for S × n."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    ms_seed, ms_item = n * parts.seed + parts.error, S * parts.item + parts.error
    variance, df = variance_and_df(ms_seed, ms_item, np.full(np.shape(ms_seed + ms_item), parts.error), S, n)
    se = np.sqrt(np.maximum(variance, 1e-300))
    power: np.ndarray = np.maximum(0.0, 2 * stdtr(df, margin / se - stdtrit(df, 0.95)) - 1)
    return power


def needed(result: TwoWay, margin: float, power: float = 0.8) -> Needs:
    """Return the seeds and the test texts that show equivalence with the given power if there is no difference.

    The seed variance of few seeds is rough, hence a range of seeds: MSs at the limits of its 80 % χ² interval.
    """
    import numpy as np
    from scipy.special import chdtri, ndtri

    parts, freedom = components(result), result.S - 1
    seeds = []
    for tail in (0.1, 0.9):
        limit = result.ms_seed * freedom / float(chdtri(freedom, tail))
        rough = Components(max(0.0, (limit - result.ms_error) / result.n), parts.item, parts.error)
        seeds.append(_fewest_seeds(rough, result.n, margin, power))
    allowed = (margin / float(ndtri(0.95) + ndtri(0.5 + power / 2))) ** 2
    enough = max(2, result.S, math.ceil(2 * parts.seed / allowed)) if np.isfinite(allowed) else result.S
    return Needs(
        seeds_low=seeds[0],
        seeds_high=seeds[1],
        items=_fewest_items(parts, result.S, margin, power),
        items_any=_fewest_items(parts, enough, margin, power),
        items_first=parts.item / result.n > allowed,
    )


def _fewest_seeds(parts: Components, n: int, margin: float, power: float) -> int | None:
    import numpy as np

    S = np.arange(2, MOST_SEEDS + 1)
    reached = tost_power(parts, S, np.full(S.shape, n), margin) >= power
    return int(S[reached.argmax()]) if reached.any() else None


def _fewest_items(parts: Components, S: int, margin: float, power: float) -> int | None:
    import numpy as np

    n = np.unique(np.geomspace(2, MOST_ITEMS, 2000).astype(int))  # steps of 0.8 %: the answer is "about"
    reached = tost_power(parts, np.full(n.shape, S), n, margin) >= power
    return int(n[reached.argmax()]) if reached.any() else None
