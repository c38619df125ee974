"""next_seeds: whether to train more seeds or to stop, by a rule that keeps the level of the test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from consenso.compare.needs import Needs, components, fewest_seeds, needed
from consenso.compare.paired import TwoWay, t_interval, unknown_result
from consenso.compare.promises import base_student
from consenso.compare.settings import UntilVerdict
from consenso.compare.verdict import BETTER, EQUIVALENT, INVALID, UNSTABLE_RECIPE, WORSE, judge, percent
from consenso.errors import DataError
from consenso.tables import COMPARISON, check

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Decision:
    """What to do next."""

    action: Literal["stop", "train"]
    """train: until there are `seeds` in every arm; stop: the verdict is that of the seeds there are."""
    seeds: int
    """Seeds in total."""
    reason: str
    """Why, in one line."""
    low: int | None = None
    """Needed seeds if the seed variance is at its 10 % limit; None: not known, or no number is enough."""
    high: int | None = None
    """Needed seeds if it is at its 90 % limit."""


def look_plan(settings: UntilVerdict) -> tuple[int, ...]:
    """Return the seeds at which rule `looks` looks: from the pilot to the most, in equal steps."""
    if settings.looks == 1:
        return (settings.most,)
    step = (settings.most - settings.pilot) / (settings.looks - 1)
    return tuple(dict.fromkeys(round(settings.pilot + step * place) for place in range(settings.looks)))


def level_of(settings: UntilVerdict, alpha: float = 0.05) -> float:
    """Return the level that the final comparison must be made at: α/L with L looks, else α."""
    return alpha / len(look_plan(settings)) if settings.rule == "looks" else alpha


def next_seeds(
    found: TwoWay | pd.DataFrame,
    settings: UntilVerdict | None = None,
    *,
    margin: float = 0.02,
    alpha: float = 0.05,
    planned: int | None = None,
    student: str | None = None,
    trained: int | None = None,
) -> Decision:
    """Return whether to train more seeds, and how many in total.

    `found`: a two-way result, or COMPARISON (its primary rows; its margin counts, and the student that needs most
    decides, declared variations left aside; `student`: this one alone, which may be a variation). `planned`: the total
    that an earlier call decided on; keep it, for the seeds are worked out once. `trained`: the seeds that were trained, where
    copies among them leave fewer in the result.

    Rule `reestimate`: after the pilot the needed seeds are worked out once, from the variances alone; the difference
    does not enter. As many fresh seeds as the pilot has are trained at least: a verdict on a pilot whose variance
    happens to be small would be wrong in 7 of 100 cases (internal pilots: Wittes & Brittain 1990). Rule `looks`: up to
    L looks at the difference, each at α/L (Bonferroni: looks share the items' error, so boundaries for independent
    increments do not hold); BETTER, WORSE and EQUIVALENT stop. Both stop where the test texts alone are too few: more
    seeds cannot help. `alpha` is the overall level. Raises `DataError` for a comparison without a primary row.
    """
    settings = settings or UntilVerdict()
    if isinstance(found, TwoWay):
        return _decide(found, settings, margin, alpha, planned, trained or found.S)
    rows = check(found, COMPARISON)
    rows = rows[rows["is_primary"].astype(bool)]
    asked = rows["student"].map(base_student) if student is None else student
    rows = rows[rows["student"] == asked]
    if not len(rows):
        of = "" if student is None else f" of {student}"
        raise DataError(f"the comparison has no primary row{of} to decide by; train both arms of the primary contrast")
    decisions = [_decide_row(row, settings, alpha, planned, trained) for row in rows.to_dict("records")]
    return max(decisions, key=lambda decision: (decision.action == "train", decision.seeds))


def _decide_row(
    row: dict[str, object], settings: UntilVerdict, alpha: float, planned: int | None, trained: int | None
) -> Decision:
    number = {name: math.nan if row[name] is None else float(str(row[name])) for name in
              ("difference", "se", "df", "sd_seed", "sd_item", "sd_error", "margin", "S", "n", "k")}  # fmt: skip
    S, n = int(number["S"]), int(number["n"])
    if row["verdict"] in {INVALID, UNSTABLE_RECIPE}:
        return Decision("stop", S, f"{row['verdict']}: more seeds do not mend it")
    if not math.isnan(number["k"]):
        return Decision("stop", S, "the interval is over folds, which more seeds hardly narrow")
    if row["replication"] == "training set":
        return Decision("stop", S, "the interval is over training sets, which more seeds in each hardly narrow")
    error = number["sd_error"] ** 2
    squares = {"ms_seed": n * number["sd_seed"] ** 2 + error, "ms_item": S * number["sd_item"] ** 2 + error}
    known = {name: number[name] for name in ("difference", "se", "df")}
    result = TwoWay(**{**vars(unknown_result(S, n)), **known, **squares, "ms_error": error})
    return _decide(result, settings, number["margin"], alpha, planned, trained or S)


def _decide(  # noqa: PLR0917
    result: TwoWay, settings: UntilVerdict, margin: float, alpha: float, planned: int | None, trained: int
) -> Decision:
    if settings.pilot > trained:
        return Decision("train", settings.pilot, f"a pilot of {settings.pilot} seeds comes first; there are {trained}")
    if math.isnan(result.se):
        return Decision("stop", trained, "the seeds there are give no interval; more of the same will not")
    if settings.rule == "looks":
        return _look(result, settings, margin, alpha, trained)
    if planned is not None and planned > trained:
        return Decision("train", planned, f"{planned} seeds were decided on; there are {trained}")
    return _reestimate(result, settings, margin, alpha, planned, trained)


def _reestimate(  # noqa: PLR0917
    result: TwoWay, settings: UntilVerdict, margin: float, alpha: float, planned: int | None, trained: int
) -> Decision:
    needs = needed(result, margin, settings.power, alpha)
    if needs.items_first:
        return _futile(result, needs)
    if planned is not None:
        reason = f"{planned} seeds were decided on, once, and are there"
        return Decision("stop", trained, reason, needs.seeds_low, needs.seeds_high)
    wanted = fewest_seeds(components(result), result.n, margin, settings.power, alpha)
    total = max(trained, min(max(wanted or settings.most, trained + settings.pilot), settings.most))
    span = f"{needs.seeds_low or 'far more'} to {needs.seeds_high or 'far more'}"
    short = f", the most allowed is {settings.most}" if wanted is None or wanted > settings.most else ""
    fresh = f", and {settings.pilot} fresh ones at least" if wanted and wanted < total else ""
    reason = f"the variances of {result.S} seeds ask for {wanted or 'far more'} seeds ({span}){short}{fresh}"
    action: Literal["stop", "train"] = "train" if total > trained else "stop"
    return Decision(action, total, reason, needs.seeds_low, needs.seeds_high)


def _look(result: TwoWay, settings: UntilVerdict, margin: float, alpha: float, S: int) -> Decision:
    """`S`: the seeds that were trained; copies among them leave fewer in the result."""
    plan, level = look_plan(settings), level_of(settings, alpha)
    if plan[-1] < S:
        return Decision("stop", S, f"more seeds than the last look ({plan[-1]}) has")
    if S not in plan:
        total = next(total for total in plan if total > S)
        return Decision("train", total, f"looks are at {', '.join(map(str, plan))} seeds; there are {S}")
    number = f"look {plan.index(S) + 1} of {len(plan)} at α = {level:.3g}"
    numbers = t_interval(result.difference, result.se, result.df, level)
    seen = TwoWay(**{**vars(result), **{name: float(value[0]) for name, value in numbers.items()}})
    word = judge(seen, margin, alpha=level).word
    if word in {BETTER, WORSE, EQUIVALENT}:
        return Decision("stop", S, f"{word} at {number} ({percent(1 - level)} interval)")
    needs = needed(result, margin, settings.power, level)
    if needs.items_first:
        return _futile(result, needs)
    if plan[-1] == S:
        return Decision("stop", S, f"{word} at the last look, {number}", needs.seeds_low, needs.seeds_high)
    total = plan[plan.index(S) + 1]
    return Decision(
        "train", total, f"{word} at {number}; the next look is at {total}", needs.seeds_low, needs.seeds_high
    )


def _futile(result: TwoWay, needs: Needs) -> Decision:
    texts = needs.items or needs.items_any
    about = f", about {texts:,} of them" if texts else ""
    return Decision("stop", result.S, f"needs items, not seeds: more test texts{about}; {result.n:,} are too few")
