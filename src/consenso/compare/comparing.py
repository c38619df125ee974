"""compare_arms: predictions and gold in, a verdict per contrast out."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import Contrast, choose_contrasts, left_out
from consenso.compare.evidence import Evidence, failed_trainings
from consenso.compare.guards import failures, judge_guards
from consenso.compare.metrics import METRICS, per_item
from consenso.compare.paired import TwoWay, holm, two_way, unknown_result
from consenso.compare.runs import Pair, Runs, pair_arms, read_runs
from consenso.compare.verdict import INVALID, NO_VERDICT, Failure, Replication, judge, sentence
from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema
from consenso.tables import COMPARISON, GUARDS, TRAININGS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

UNADJUSTED = ("sanity",)
"""Effects that are description, not part of the Holm family."""


@dataclass(frozen=True)
class _Terms:
    """What holds for every row of a comparison."""

    metric: str
    margin: float
    level: float
    dataset: str
    replication: Replication
    guards: pd.DataFrame


@dataclass(frozen=True)
class _Question:
    """One contrast of one student on one set of test texts, its arms lined up."""

    student: str
    attempt: str
    contrast: Contrast
    scope: str
    is_first: bool
    pair: Pair


@dataclass(frozen=True)
class _Measured:
    """The answer to a question in one metric, before its verdict."""

    question: _Question
    metric: str
    result: TwoWay
    arm_mean: float = math.nan
    control_mean: float = math.nan
    seeds_better: float = math.nan


def compare_arms(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    metric: str = "macro_f1",
    margin: float = 0.02,
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    schema: LabelSchema | None = None,
    trainings: pd.DataFrame | None = None,
    guards: pd.DataFrame | None = None,
    dataset: str = "data",
    replication: Replication = "seed",
    strata: pd.Series | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare arms on human-labelled test texts and return the COMPARISON table, one verdict and sentence per row.

    `predictions`: PREDICTIONS (at least arm, seed, text_id, predicted; only part test is read). `gold`: a Series by
    text_id, or a frame with text_id and gold. `contrasts`: pairs (arm, control), the first one primary; by default
    every decomposition whose arms exist, with consensus − gold-aligned primary. `margin` and all figures are shares
    (0.02 is 2 pp). `guards`: what `check_guards` returned; without it the guards run on predictions and trainings
    alone, and `attrs["guards"]` keeps what they found. `replication`: "bootstrap" where a seed stands for a resample of
    the training texts. `strata`: a Series by text_id; each of its values becomes a further scope.

    Every contrast is computed in both metrics, paired by seed and text id; copies of a seed are left out. Holm's
    adjustment covers the secondary contrasts, per student and metric. A contrast that was asked for and whose arms a
    student lacks is left out with a warning; without any contrast the table is empty. Raises `ConfigError` for an
    unknown metric, or an arm that no student has and that is no standard one, `DataError` for a wrong table.
    """
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; choose one of {sorted(METRICS)}.{nearest(metric, METRICS)}")
    if not 0 < margin < 1:
        raise ConfigError(
            f"the margin is a share between 0 and 1, so that 0.02 means 2 percentage points; found {margin!r}"
        )
    runs = read_runs(predictions, gold, schema)
    trainings = None if trainings is None else check(trainings, TRAININGS)
    if guards is None:
        asked = None if contrasts is None else tuple(contrasts)
        guards = judge_guards(Evidence(runs, schema, None, trainings=trainings, metric=metric, margin=margin,
                                       contrasts=asked, primary=primary))  # fmt: skip
    terms = _Terms(metric, margin, level, dataset, replication, check(guards, GUARDS))
    failed, scopes = failed_trainings(trainings), _scopes(runs, strata)
    everywhere = {name for there in runs.rows.values() for name in there}
    rows: list[dict[str, Any]] = []
    for student, attempt in sorted(runs.rows):
        arms = runs.arms(student, attempt)
        chosen, first = choose_contrasts(arms, contrasts, primary, everywhere)
        _say_what_is_left_out(student, arms, contrasts, primary)
        questions = [
            _Question(student, attempt, contrast, scope, contrast == first,
                      pair_arms(runs, arms, contrast, failed=failed.get(student, ()), items=mask))
            for contrast in chosen for scope, mask in scopes
        ]  # fmt: skip
        measured = [_measure(question, name, level) for question in questions for name in sorted(METRICS)]
        rows += [_judge(row, p_holm, terms) for row, p_holm in zip(measured, _adjust(measured))]
    return _as_table(rows, guards)


def _say_what_is_left_out(student: str, arms: Collection[str], contrasts: Any, primary: Any) -> None:
    for contrast in left_out(arms, contrasts, primary):
        lacking = ", ".join(name for name in contrast.arms if name not in arms)
        logger.warning("%s: %s is left out, because there are no predictions of %s", student, contrast.name, lacking)


def _scopes(runs: Runs, strata: pd.Series | None) -> list[tuple[str, np.ndarray | None]]:
    """(name, mask of the test texts): all of them, then each stratum."""
    if strata is None:
        return [("all", None)]
    strata = strata.dropna()
    values = strata.set_axis(strata.index.map(str)).reindex(runs.items)
    named = [(f"{strata.name or 'stratum'} {value}", (values == value).to_numpy()) for value in sorted(strata.unique())]
    return [("all", None), *((name, mask) for name, mask in named if mask.any())]


def _measure(question: _Question, metric: str, level: float) -> _Measured:
    import numpy as np

    pair = question.pair
    if not pair.seeds or not len(pair.gold):
        return _Measured(question, metric, unknown_result(len(pair.seeds), len(pair.gold)))
    B, A = per_item(pair.arm, pair.gold, metric), per_item(pair.control, pair.gold, metric)
    D = B - A
    seeds = D.mean(axis=1)
    result = two_way(D.mean(axis=0) if pair.same_in_all_seeds else D, level)  # copies of a seed are no replication
    better = float(np.mean((seeds > 0) + 0.5 * (seeds == 0)))
    return _Measured(question, metric, result, float(B.mean()), float(A.mean()), better)


def _adjust(rows: list[_Measured]) -> list[float]:
    """Holm's p of the secondary contrasts over all test texts, one family per metric; NaN outside the families."""
    adjusted = [math.nan] * len(rows)
    for metric in METRICS:
        family = [
            place for place, row in enumerate(rows)
            if row.metric == metric and row.question.scope == "all" and not row.question.is_first
            and row.question.contrast.effect not in UNADJUSTED
        ]  # fmt: skip
        for place, p in zip(family, holm([rows[place].result.p for place in family])):
            adjusted[place] = p
    return adjusted


def _judge(row: _Measured, p_holm: float, terms: _Terms) -> dict[str, Any]:
    question, result, contrast = row.question, row.result, row.question.contrast
    flaws = [*failures(terms.guards, question.student, contrast), *_own_failures(question)]
    flaws = list({flaw.guard: flaw for flaw in reversed(flaws)}.values())[::-1]
    verdict = judge(result, terms.margin, flaws, p_holm=p_holm, replication=terms.replication)
    said = sentence(
        verdict, result, contrast,
        metric=row.metric, margin=terms.margin, scope=question.scope, replication=terms.replication,
    )  # fmt: skip
    headline = question.is_first and question.scope == "all" and question.attempt == "as_run"
    return {
        "dataset": terms.dataset, "student": question.student, "contrast": contrast.name, "metric": row.metric,
        "scope": question.scope, "attempt": question.attempt, "arm": contrast.arm, "control": contrast.control,
        "effect": contrast.effect or None, "is_primary": headline and row.metric == terms.metric,
        "arm_mean": row.arm_mean, "control_mean": row.control_mean, "difference": result.difference,
        "se": result.se, "df": result.df, "low": result.low, "high": result.high, "low90": result.low90,
        "high90": result.high90, "p": result.p, "p_holm": p_holm, "margin": terms.margin, "verdict": verdict.word,
        "reason": verdict.reason, "sentence": said, "seeds_better": row.seeds_better, "S": result.S, "n": result.n,
        "sd_seed": result.sd_seed, "sd_item": result.sd_item, "sd_error": result.sd_error,
    }  # fmt: skip


def _own_failures(question: _Question) -> Iterator[Failure]:
    """What pairing itself found, so that no table of guards can hide it."""
    both = f"{question.contrast.arm} and {question.contrast.control}"
    if unequal := question.pair.unequal_items:
        yield Failure("alignment", f"{unequal} test text(s) are not predicted by every run of {both}", INVALID)
    elif not question.pair.seeds:
        yield Failure("alignment", f"{both} share no seed", INVALID)
    elif question.contrast.effect == "filtering effect" and bool((question.pair.arm == question.pair.control).all()):
        yield Failure("", "no text was filtered out, so the two arms are the same", NO_VERDICT)
    if same := question.pair.same_in_all_seeds:
        yield Failure("seeds differ", f"all seeds of {', '.join(same)} give the same predictions", NO_VERDICT)


def _as_table(rows: list[dict[str, Any]], guards: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows).astype({"effect": object}) if rows else _empty()
    frame = check(frame, COMPARISON).sort_values("is_primary", ascending=False, kind="stable", ignore_index=True)
    frame.attrs["guards"] = guards.astype(object).where(guards.notna(), None).to_dict("records")
    words = frame.loc[frame["is_primary"], "verdict"].tolist()
    logger.info("compared %d contrasts; primary: %s", frame["contrast"].nunique(), ", ".join(words) or "none")
    return frame


def _empty() -> pd.DataFrame:
    """A table without rows whose columns have the types that rows would give them."""
    import pandas as pd

    kinds = {"text": "str", "integer": "int64", "number": "float64", "flag": "bool"}
    types = {name: kinds[column.kind] for name, column in COMPARISON.columns.items()} | {"effect": "object"}
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})
