"""How many seeds and test texts a verdict would need, from the variance components of what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from consenso.compare.paired import TwoWay, variance_and_df

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


def tost_power(parts: Components, S: Any, n: Any, margin: float, alpha: float = 0.05) -> Any:
    """Return the power of TOST (α per side) at a true difference of 0, 2·T_df(δ/SE − t_1−α) − 1 (S, n: numbers or arrays)."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    ms_seed, ms_item = n * parts.seed + parts.error, S * parts.item + parts.error
    variance, df = variance_and_df(ms_seed, ms_item, parts.error, S, n)
    se = np.sqrt(np.maximum(variance, 1e-300))
    return np.maximum(0.0, 2 * stdtr(df, margin / se - stdtrit(df, 1 - alpha)) - 1)


def allowed_variance(margin: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the variance of the mean at which TOST at a difference of 0 has the given power, df without limit."""
    from scipy.special import ndtri

    return (margin / float(ndtri(1 - alpha) + ndtri(0.5 + power / 2))) ** 2


def detectable_difference(se: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference whose two-sided test at α has the given power at this SE and df.

    The non-centrality δ/SE of the t distribution that leaves 1 − power below t_1−α/2; NaN where SE or df is unknown.
    """
    from scipy.special import nctdtrinc, stdtrit

    if math.isnan(se) or math.isnan(df):
        return math.nan
    edge = float(stdtrit(df, 1 - alpha / 2))
    shift = float(nctdtrinc(df, 1 - power, edge)) if df < 1e6 else edge + float(stdtrit(df, power))
    return se * shift


def needed(result: TwoWay, margin: float, power: float = 0.8, alpha: float = 0.05) -> Needs:
    """Return the seeds and the test texts that show equivalence with the given power if there is no difference.

    The seed variance of few seeds is rough, hence a range of seeds: MSs at the limits of its 80 % χ² interval. Uses
    the mean squares alone, never the difference.
    """
    import numpy as np
    from scipy.special import chdtri

    parts, freedom = components(result), result.S - 1
    seeds = []
    for tail in (0.1, 0.9):
        limit = result.ms_seed * freedom / float(chdtri(freedom, tail))
        rough = Components(max(0.0, (limit - result.ms_error) / result.n), parts.item, parts.error)
        seeds.append(fewest_seeds(rough, result.n, margin, power, alpha))
    allowed = allowed_variance(margin, power, alpha)
    enough = max(2, result.S, math.ceil(2 * parts.seed / allowed)) if np.isfinite(allowed) else result.S
    return Needs(
        seeds_low=seeds[0],
        seeds_high=seeds[1],
        items=fewest_items(parts, result.S, margin, power, alpha),
        items_any=fewest_items(parts, enough, margin, power, alpha),
        items_first=parts.item / result.n > allowed,
    )


def fewest_seeds(parts: Components, n: int, margin: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the smallest S whose TOST at a difference of 0 has the power; None: not even 1,000 seeds."""
    return smallest(lambda S: tost_power(parts, S, n, margin, alpha) >= power, MOST_SEEDS)


def fewest_items(parts: Components, S: int, margin: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the smallest n whose TOST at a difference of 0 has the power; None: not even ten million."""
    return smallest(lambda n: tost_power(parts, S, n, margin, alpha) >= power, MOST_ITEMS)


def smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 2 to `most` that is enough, by halving; None: not even `most`."""
    if not enough(most):
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
