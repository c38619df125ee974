"""plan_comparison: before anyone labels, what S seeds and n test texts can show, and what cannot be seen with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from consenso.compare.needs import MOST_ITEMS, MOST_SEEDS, Components, smallest
from consenso.compare.paired import variance_and_df
from consenso.compare.verdict import percent, points
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DISAGREEMENT = 0.31
"""Share of test texts on which two trainings of different arms are not both right or both wrong (5 classes, .53)."""
AGREEMENT_KEPT = 0.62
"""Disagreement over 2·a·(1 − a), its value for unrelated trainings of accuracy a: .31 / (2·.53·.47)."""
PERSISTENCE = 0.16
"""Share of the variance of D that a test text keeps in every seed."""
SD_SEED = 0.0125
"""Standard deviation over seeds of the difference between two arms: 1.3 pp in each arm, seeds paired (ρ about .54)."""
DRAWS = 20_000
Goal = Literal["equivalence", "difference"]
"""equivalence: shown within ±margin if there is no difference; difference: one as large as the margin is seen."""


@dataclass(frozen=True)
class _Outcomes:
    """What many studies with the same components would find, up to the true difference."""

    noise: np.ndarray
    """Estimated minus true difference."""
    half: np.ndarray
    """Half the width of the interval at 1 − α."""
    half90: np.ndarray
    """Half the width of the interval at 1 − 2α."""

    def seen(self, difference: float) -> float:
        """Return the share of studies whose interval leaves out 0."""
        import numpy as np

        return float(np.mean(np.abs(self.noise + difference) > self.half))

    def equivalent(self, difference: float, margin: float) -> float:
        """Return the share of studies whose 90 % interval lies inside ±margin."""
        import numpy as np

        return float(np.mean(np.abs(self.noise + difference) + self.half90 < margin))


def assumed_components(
    accuracy: float | None = None,
    disagreement: float | None = None,
    persistence: float = PERSISTENCE,
    sd_seed: float = SD_SEED,
) -> Components:
    """Return the variance components of D (differences of 0, 1 and −1 per seed and text) before anything is measured.

    Where the arms are equally good, D's variance is the share of texts on which they disagree; `persistence` of it is
    the text's own, the rest is new in every seed. Without `disagreement` it follows from the expected accuracy of the
    students, .62·2a(1 − a), and is .31 without that either. `sd_seed` (as a share) is that of the difference.
    Macro-F1 behaves alike where classes are balanced; rare classes make its components larger.
    Raises `ConfigError` for a share outside 0 to 1, and for `accuracy` beside `disagreement`.
    """
    if accuracy is not None and disagreement is not None:
        raise ConfigError(
            f"accuracy ({accuracy:g}) and disagreement ({disagreement:g}) both say how often two arms differ; give one of them"
        )
    given = {"accuracy": accuracy, "disagreement": disagreement, "persistence": persistence, "sd_seed": sd_seed}
    for name, value in given.items():
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(
                f"{name} is a share between 0 and 1, so that 0.013 is 1.3 percentage points; found {value!r}"
            )
    if disagreement is None:
        disagreement = DISAGREEMENT if accuracy is None else AGREEMENT_KEPT * 2 * accuracy * (1 - accuracy)
    return Components(sd_seed**2, persistence * disagreement, (1 - persistence) * disagreement)


def basis_of(
    accuracy: float | None = None,
    disagreement: float | None = None,
    persistence: float | None = None,
    sd_seed: float | None = None,
) -> str:
    """Return which figures the components of `assumed_components` rest on: those given, and those assumed (None)."""
    values = assumed_components(
        accuracy,
        disagreement,
        PERSISTENCE if persistence is None else persistence,
        SD_SEED if sd_seed is None else sd_seed,
    )
    differ, every = values.item + values.error, f" from accuracy {_share(accuracy)}" if accuracy is not None else ""
    parts = [
        (f"{100 * differ:.0f} % disagreement{every}", accuracy is not None or disagreement is not None),
        (f"{100 * (PERSISTENCE if persistence is None else persistence):.0f} % of it lasting", persistence is not None),
        (f"{100 * math.sqrt(values.seed):.2f} pp between seeds", sd_seed is not None),
    ]
    given, assumed = (", ".join(text for text, is_given in parts if is_given is wanted) for wanted in (True, False))
    return "; ".join(f"{word} components: {text}" for word, text in (("given", given), ("assumed", assumed)) if text)


def plan_comparison(
    n: int | Sequence[int],
    seeds: int | Sequence[int] = 10,
    *,
    margin: float = 0.02,
    accuracy: float | None = None,
    disagreement: float | None = None,
    persistence: float = PERSISTENCE,
    sd_seed: float = SD_SEED,
    components: Components | None = None,
    alpha: float = 0.05,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row per number of seeds S (two or more) and of test texts n: what such a comparison can show.

    Columns: S, n, se, width (mean, of the interval at 1 − alpha), detectable (true difference seen with power .8),
    power_1pp, power_2pp, power_3pp (two-sided at alpha), tost_power (equivalence within ±margin said if there is no
    difference), false_tost (said at a difference of margin), margin, alpha, and the components as sd_seed, sd_item and
    sd_error. Shares throughout: .02 is 2 pp. `components`: those of a pilot (`needs.components` of its two-way result)
    in place of `assumed_components`. The mean squares of `draws` studies are drawn (χ²), so figures are right to about
    .005. `attrs["measured"]`: whether there were `components`. Raises `ConfigError` for fewer than two seeds or test texts,
    numbers of them that are not whole, and a margin or alpha outside 0 to .5.
    """
    import pandas as pd

    parts = components or assumed_components(accuracy, disagreement, persistence, sd_seed)
    _check_shares(margin, alpha)
    many_n, many_S = _numbers("test texts", n), _numbers("seeds", seeds)
    rows = []
    for S in many_S:
        for items in many_n:
            found = _studies(parts, S, items, alpha=alpha, draws=draws, seed=seed)
            rows.append({
                "S": S, "n": items, "se": math.sqrt(_variance(parts, S, items)), "width": 2 * float(found.half.mean()),
                "detectable": _detectable(found), "power_1pp": found.seen(0.01), "power_2pp": found.seen(0.02),
                "power_3pp": found.seen(0.03), "tost_power": found.equivalent(0.0, margin),
                "false_tost": found.equivalent(margin, margin), "margin": margin, "alpha": alpha,
                "sd_seed": math.sqrt(parts.seed), "sd_item": math.sqrt(parts.item), "sd_error": math.sqrt(parts.error),
            })  # fmt: skip
    plan = pd.DataFrame(rows)
    plan.attrs["measured"] = components is not None
    return plan


def _numbers(name: str, given: Any) -> list[int]:
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if odd := [value for value in values if not isinstance(value, Integral) or isinstance(value, bool)]:
        raise ConfigError(f"the number of {name} must be a whole number, like 10; found {odd[0]!r}")
    if not values or min(values) < 2:
        raise ConfigError(f"a plan needs at least 2 {name}: one alone gives no verdict; found {values}")
    return [int(value) for value in values]


def _check_shares(margin: float, alpha: float) -> None:
    for name, value, like in (("margin", margin, "0.02 is 2 percentage points"), ("alpha", alpha, "0.05 is 5 %")):
        if not isinstance(value, Real) or not 0 < value < 0.5:
            raise ConfigError(f"{name} is a share between 0 and 0.5, so that {like}; found {value!r}")


def seeds_for(
    n: int,
    parts: Components,
    *,
    margin: float = 0.02,
    power: float = 0.8,
    goal: Goal = "equivalence",
    alpha: float = 0.05,
) -> int | None:
    """Return the smallest S that reaches the goal with the power on n test texts; None: not even 1,000 seeds do."""
    _check_shares(margin, alpha)
    return smallest(lambda S: _power(parts, S, n, margin=margin, goal=goal, alpha=alpha) >= power, MOST_SEEDS)


def texts_for(
    seeds: int,
    parts: Components,
    *,
    margin: float = 0.02,
    power: float = 0.8,
    goal: Goal = "equivalence",
    alpha: float = 0.05,
) -> int | None:
    """Return the smallest n that reaches the goal with the power and these seeds; None: not even ten million do."""
    _check_shares(margin, alpha)
    return smallest(lambda n: _power(parts, seeds, n, margin=margin, goal=goal, alpha=alpha) >= power, MOST_ITEMS)


def plan_in_words(plan: pd.DataFrame, power: float = 0.8) -> str:
    """Return one sentence on the first row of a plan: what can be seen, what cannot, and what would be needed."""
    row = plan.iloc[0]
    parts = Components(row["sd_seed"] ** 2, row["sd_item"] ** 2, row["sd_error"] ** 2)
    S, n, margin, alpha = int(row["S"]), int(row["n"]), float(row["margin"]), float(row["alpha"])
    seen = "is out of reach" if math.isnan(row["detectable"]) else f"of {100 * row['detectable']:.1f} pp is seen"
    more = seeds_for(n, parts, margin=margin, power=power, alpha=alpha)
    texts = texts_for(S, parts, margin=margin, power=power, alpha=alpha)
    source = "Measured" if plan.attrs.get("measured") else "Assumed"
    if row["tost_power"] >= power:
        needs = "enough"
    else:
        ways = [f"{more} seeds" if more else "", f"about {_rounded(texts)} test texts with {S} seeds" if texts else ""]
        needs = f"power {_share(power)} would take " + (
            " or ".join(filter(None, ways)) or "more seeds and more test texts"
        )
    return (
        f"With {S} seeds and {n:,} test texts the {percent(1 - alpha)} interval is about {100 * row['width']:.1f} pp wide: "
        f"a true difference {seen} with power .8, one of 1 pp with power {_share(row['power_1pp'])}; if there is none, "
        f"equivalence within ±{points(margin)} pp is shown with power {_share(row['tost_power'])} ({needs}). {source}: "
        f"the difference varies by {100 * row['sd_seed']:.2f} pp over seeds, its variance is {parts.item:.3f} over texts "
        f"and {parts.error:.2f} from seed to seed on one text."
    )


def _power(parts: Components, S: int, n: int, *, margin: float, goal: Goal, alpha: float) -> float:
    found = _studies(parts, S, n, alpha=alpha, draws=DRAWS // 4)
    return found.equivalent(0.0, margin) if goal == "equivalence" else found.seen(margin)


def _studies(parts: Components, S: int, n: int, *, alpha: float, draws: int, seed: int = 0) -> _Outcomes:
    """Draw mean squares (independent, χ²) and the estimate's noise; intervals as `two_way` makes them."""
    import numpy as np
    from scipy.special import stdtrit

    rng = np.random.default_rng([seed, draws])
    freedom = (S - 1, n - 1, (S - 1) * (n - 1))
    expected = (n * parts.seed + parts.error, S * parts.item + parts.error, parts.error)
    noise = rng.standard_normal(draws) * math.sqrt(_variance(parts, S, n))
    ms_seed, ms_item, ms_error = (ms * rng.chisquare(df, draws) / df for ms, df in zip(expected, freedom))
    variance, df = variance_and_df(ms_seed, ms_item, ms_error, S, n)
    se = np.sqrt(variance)
    return _Outcomes(noise, stdtrit(df, 1 - alpha / 2) * se, stdtrit(df, 1 - alpha) * se)


def _variance(parts: Components, S: Any, n: Any) -> float:
    return float(parts.seed / S + parts.item / n + parts.error / (S * n))


def _detectable(found: _Outcomes) -> float:
    """The true difference that is seen with power .8; NaN where not even one of 1 is."""
    if found.seen(1.0) < 0.8:
        return math.nan
    low, high = 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if found.seen(middle) >= 0.8 else (middle, high)
    return high


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _rounded(number: int) -> str:
    """Two figures, rounded up: `4,300`."""
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // step) * step:,}"
