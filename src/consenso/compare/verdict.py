"""From an interval to a word and a sentence. The words stand in order of precedence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from consenso.compare.contrasts import Contrast
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.needs import allowed_variance, needed
from consenso.compare.paired import TwoWay

Replication = Literal["seed", "bootstrap", "fold", "training set"]
"""What is repeated: a seed, a bootstrap resample of the training texts, a fold with its own test texts (and a seed), or
a training set: a fold that shares its test texts with the others, all its seeds together."""
_UNITS: dict[Replication, str] = {"bootstrap": "resample", "training set": "training set"}

INVALID = "INVALID"
UNSTABLE_RECIPE = "UNSTABLE RECIPE"
NO_VERDICT = "NO VERDICT"
BETTER = "BETTER"
WORSE = "WORSE"
EQUIVALENT = "EQUIVALENT"
NON_INFERIOR = "NON-INFERIOR"
INCONCLUSIVE = "INCONCLUSIVE"

VERDICTS = {
    INVALID: "A guard failed: the numbers do not answer the question.",
    UNSTABLE_RECIPE: "Training collapses too often, or more often in one arm: the recipe is on trial, not the labels.",
    NO_VERDICT: "One seed: luck and labels cannot be told apart.",
    BETTER: "The 95 % interval lies above 0.",
    WORSE: "The 95 % interval lies below 0.",
    EQUIVALENT: "The 90 % interval lies inside ±margin (TOST).",
    NON_INFERIOR: "The 90 % interval lies above −margin.",
    INCONCLUSIVE: "The interval is too wide for any of these.",
}
"""Word → meaning, in order of precedence (BETTER and WORSE share a rank)."""


FILTERS = {"filtering effect": "filtering", "selection effect": "selection"}
"""Effects of leaving texts out, each against as many random ones → what is said to help or not."""


@dataclass(frozen=True)
class Failure:
    """A failed guard and what it makes of the verdict."""

    guard: str
    """Name of the guard."""
    reason: str
    """What was found, in words."""
    verdict: str = INVALID
    """INVALID, UNSTABLE RECIPE or NO VERDICT."""


@dataclass(frozen=True)
class Verdict:
    """A word and why."""

    word: str
    """A key of VERDICTS."""
    reason: str
    """Why, in words."""
    within_margin: bool = False
    """BETTER or WORSE, but the 90 % interval lies inside ±margin."""


def exit_code(verdict: str) -> int:
    """Return the exit code of a primary verdict: 4 for INVALID, 0 for every other word."""
    return 4 if verdict == INVALID else 0


def judge(
    result: TwoWay,
    margin: float,
    failures: Sequence[Failure] = (),
    *,
    p_holm: float = math.nan,
    replication: Replication = "seed",
    alpha: float = 0.05,
) -> Verdict:
    """Return the verdict on a difference, every flaw named in its reason (precedence: docs/verdict.md).

    `p_holm`: Holm's p of a secondary contrast; BETTER and WORSE then also need p_holm < α. NaN: not adjusted. `alpha`
    is the level the intervals of `result` were made at.
    """
    flaws = [*failures]
    if math.isnan(result.se):
        flaws.append(Failure("", _why_no_interval(result, replication), NO_VERDICT))
    for word in (INVALID, UNSTABLE_RECIPE, NO_VERDICT):
        if any(flaw.verdict == word for flaw in flaws):
            flaws.sort(key=lambda flaw: (INVALID, UNSTABLE_RECIPE, NO_VERDICT).index(flaw.verdict))
            said = [f"{flaw.guard}: {flaw.reason}" if flaw.guard else flaw.reason for flaw in flaws]
            return Verdict(word, "; ".join(said))
    return _judge_interval(result, margin, p_holm, replication, alpha)


def _why_no_interval(result: TwoWay, replication: Replication) -> str:
    if replication == "fold":
        return "one seed in fewer than 5 folds cannot tell luck from labels; run at least 5 seeds, or 5 folds"
    if result.S > 1:
        return f"{result.n:,} test text(s) give no interval; test on more texts"
    found = counted(result.S, replication) if result.S != 1 else f"one {_UNITS.get(replication, 'seed')}"
    return f"{found} cannot tell luck from labels; run at least 5"


def _judge_interval(result: TwoWay, margin: float, p_holm: float, replication: Replication, alpha: float) -> Verdict:
    inside = result.low90 > -margin and result.high90 < margin
    tost = f"{percent(1 - 2 * alpha)} interval {signed(result.low90)} to {signed(result.high90)} pp"
    beyond = result.low > 0 or result.high < 0
    wide = f"{percent(1 - alpha)} interval"
    adjusted_away = beyond and p_holm >= alpha
    note = f"; the {wide} leaves out 0, but not after Holm's adjustment (p = {p_holm:.2g})" if adjusted_away else ""
    if beyond and not adjusted_away:
        side = "above" if result.low > 0 else "below"
        but = f", but within the margin ({tost})" if inside else ""
        return Verdict(BETTER if result.low > 0 else WORSE, f"{wide} {side} 0{but}", inside)
    if inside:
        return Verdict(EQUIVALENT, f"{tost} inside ±{points(margin)} pp{note}")
    if result.low90 > -margin:
        return Verdict(NON_INFERIOR, f"{tost} above −{points(margin)} pp{note}")
    needs = needs_in_words(result, margin, replication, alpha)
    return Verdict(INCONCLUSIVE, f"{tost} reaches beyond −{points(margin)} pp{note}{needs and '; ' + needs}")


def needs_in_words(result: TwoWay, margin: float, replication: Replication = "seed", alpha: float = 0.05) -> str:
    """Return how many seeds or test texts would show equivalence with power .8 if there is no difference; '' unknown."""
    opening = "to show equivalence if there is no difference (power .8) it needs"
    if result.k is not None:
        times = result.se**2 / allowed_variance(margin, alpha=alpha)
        if times <= 1:
            return f"{opening} more than {result.k} folds"
        return f"{opening} {_about(math.ceil(times * result.n))} texts in {result.k} folds"
    if math.isnan(result.ms_seed):
        return ""
    needs = needed(result, margin, alpha=alpha)
    unit = f"{_UNITS.get(replication, 'seed')}s"
    if needs.items_first:
        return f"{opening} {_about(needs.items or needs.items_any)} test texts, not {unit}"
    low, high = needs.seeds_low, needs.seeds_high
    enough = f"{low}" if low == high else f"{low} to {high}" if high else f"{low} or many more" if low else "far more"
    more = f", or {_about(needs.items)} test texts with {counted(result.S, replication)}" if needs.items else ""
    return f"{opening} about {enough} {unit} with {result.n:,} test texts{more}"


def _about(number: int | None) -> str:
    """`about 4,300`: two figures, rounded up."""
    if number is None:
        return "far more"
    step = 10 ** max(0, len(str(number)) - 2)
    return f"about {-(-number // step) * step:,}"


def sentence(
    verdict: Verdict,
    result: TwoWay,
    contrast: Contrast,
    *,
    metric: str = "macro_f1",
    margin: float = 0.02,
    scope: str = "all",
    replication: Replication = "seed",
    alpha: float = 0.05,
    replaced: int | None = None,
) -> str:
    """Return the answer in one sentence, with its numbers in percentage points.

    `replaced`: in a second analysis, how many collapsed seeds stand replaced in all arms.
    """
    again = "" if replaced is None else f" (second analysis: {replaced} collapsed seed{'' if replaced == 1 else 's'} "
    again += "" if replaced is None else "replaced in all arms)"
    if verdict.word == INVALID:
        return f"{INVALID}: {verdict.reason}. No conclusion about {contrast.name} may be drawn{again}."
    where = "" if scope == "all" else f" on test texts with {scope}"
    change = f"{contrast.does}, {METRIC_NAMES.get(metric, metric)} changes by {signed(result.difference)} pp{where}"
    size = f"{counted(result.S, replication, result.k)}, {result.n:,} test texts"
    if verdict.word in {UNSTABLE_RECIPE, NO_VERDICT}:
        return f"{verdict.word}: {change} ({size}){again}, which says nothing about the labels: {verdict.reason}."
    interval = f"{percent(1 - alpha)} interval {signed(result.low)} to {signed(result.high)}"
    word = f"{verdict.word} but within the margin" if verdict.within_margin else verdict.word
    ending = _filtering(verdict, contrast)
    if verdict.word == INCONCLUSIVE and (needs := needs_in_words(result, margin, replication, alpha)):
        ending += "; " + needs
    return f"{word}: {change} ({interval}; margin ±{points(margin)} pp; {size}){again}{ending}."


def _filtering(verdict: Verdict, contrast: Contrast) -> str:
    if contrast.effect not in FILTERS:
        return ""
    what = FILTERS[contrast.effect]
    ending = {BETTER: f": {what} helps", WORSE: f": {what} not shown to help, it harms"}
    return ending.get(verdict.word, f": {what} not shown to help")


def counted(S: int, replication: Replication = "seed", k: int | None = None) -> str:
    """Return `10 seeds`, `10 bootstrap resamples of the training texts`, `5 training sets` or `10 folds × 1 seed`."""
    many = "" if S == 1 else "s"
    if replication == "bootstrap":
        return f"{S} bootstrap resample{many} of the training texts"
    if replication == "training set":
        return f"{S} training set{many}"
    folds = "" if k is None else f"{k} fold{'' if k == 1 else 's'} × "
    return f"{folds}{S} seed{many}"


def percent(share: float) -> str:
    """Return a share as a percentage: `95 %`, `98.3 %`."""
    return f"{round(100 * share, 1):g} %"


def signed(share: float) -> str:
    """Return a share in percentage points with its sign: `−0.3`, `+0.8`, `0.0`."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def points(share: float) -> str:
    """Return a margin in percentage points: `2.0`, `0.25`."""
    rough = f"{100 * share:.1f}"
    return rough if math.isclose(float(rough), 100 * share) else f"{100 * share:g}"
