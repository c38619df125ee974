"""compare_arms: predictions and gold in, a verdict per contrast out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.bootstrap import bootstrap_rows
from consenso.compare.contrasts import Contrast
from consenso.compare.estimates import Values, per_training_set, values_of
from consenso.compare.evidence import Evidence
from consenso.compare.folds import FOLDS_FOR_ONE_SEED
from consenso.compare.guards import failures, judge_guards
from consenso.compare.measuring import Measured, measure
from consenso.compare.metrics import choose_metrics
from consenso.compare.needs import detectable_difference
from consenso.compare.paired import holm
from consenso.compare.questions import Contrasts, Question, ask, runs_of, scopes_of
from consenso.compare.runs import Runs
from consenso.compare.verdict import FILTERS, INVALID, NO_VERDICT, Failure, Replication, judge, sentence
from consenso.errors import ConfigError
from consenso.labels import LabelSchema
from consenso.tables import COMPARISON, GUARDS, TRAININGS, check

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

UNADJUSTED = ("sanity",)
"""Effects that are description, not part of the Holm family."""


@dataclass(frozen=True)
class _Terms:
    """What holds for every row of a comparison."""

    metric: str
    margin: float
    alpha: float
    dataset: str
    replication: Replication
    guards: pd.DataFrame


def compare_arms(
    predictions: pd.DataFrame | Runs,
    gold: pd.Series | pd.DataFrame | None = None,
    *,
    metric: str = "macro_f1",
    margin: float = 0.02,
    contrasts: Contrasts = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    schema: LabelSchema | None = None,
    trainings: pd.DataFrame | None = None,
    guards: pd.DataFrame | None = None,
    dataset: str = "data",
    replication: Replication = "seed",
    strata: pd.Series | None = None,
    alpha: float = 0.05,
    metrics: Sequence[str] | None = None,
    bootstrap: int = 0,
    train_sizes: Mapping[int, float] | None = None,
) -> pd.DataFrame:
    """Compare arms on human-labelled test texts and return the COMPARISON table, one verdict and sentence per row.

    `predictions`: PREDICTIONS (at least arm, seed, text_id, predicted; only part test is read), or what `read_runs`
    returned. `gold`: a Series by text_id, or a frame with text_id and gold. `contrasts`: pairs (arm, control), the
    first one primary; by default every decomposition whose arms exist, with consensus − gold-aligned primary. `margin`
    and all figures are shares (0.02 is 2 pp). `guards`: what `check_guards` returned; without it the guards run on
    predictions and trainings alone, and `attrs["guards"]` keeps what they found. `replication`: "bootstrap" where a
    seed stands for a resample of the training texts. `strata`: a Series by text_id; each value is a further scope.
    `alpha`: low and high are the ends of the interval at 1 − alpha, low90 and high90 those at 1 − 2·alpha.
    `metrics`: further metrics (METRICS, or 'module:function') in place of macro-F1 and accuracy. `bootstrap`: draws of
    the crossed bootstrap for all contrasts and metrics over all test texts; 0: none. `train_sizes`: fold → number of
    training texts, where `trainings` does not say.

    Where folds have test texts of their own the interval is over folds (Nadeau–Bengio), else over seeds × texts, paired
    by seed and text id; copies of a seed are left out. Where all folds test the same texts, the seeds of a fold are
    averaged: S counts the folds. Holm's adjustment covers all contrasts, per student, metric and attempt, but the
    primary one in the primary metric as run. A contrast that was asked for and whose arms a student lacks is left out
    with a warning; without any contrast the table is empty. Raises `ConfigError` for an unknown metric, or an arm that
    no student has and that is no standard one, `DataError` for a wrong table.
    """
    names = choose_metrics(metric, metrics)
    _check_shares(margin, alpha)
    runs = runs_of(predictions, gold, schema)
    trainings = None if trainings is None else check(trainings, TRAININGS)
    if guards is None:
        asked = None if contrasts is None else tuple(contrasts)
        guards = judge_guards(Evidence(runs, schema, None, trainings=trainings, metric=metric, margin=margin,
                                       contrasts=asked, primary=primary))  # fmt: skip
    terms = _Terms(metric, margin, alpha, dataset, replication, check(guards, GUARDS))
    questions = ask(
        runs, contrasts=contrasts, primary=primary, trainings=trainings, scopes=scopes_of(runs, strata),
        train_sizes=train_sizes,
    )  # fmt: skip
    kept: Values = {}
    measured = [measure(question, name, alpha, kept) for question in questions for name in names]
    drawn = _bootstrapped(measured, len(runs.items), bootstrap, alpha, kept)
    rows = [
        {**_judged(row, p_holm, terms), "boot_low": low, "boot_high": high}
        for row, p_holm, (low, high) in zip(measured, _adjust(measured, metric), drawn)
    ]
    return _as_table(rows, guards)


def _check_shares(margin: float, alpha: float) -> None:
    if not 0 < margin < 1:
        raise ConfigError(
            f"the margin is a share between 0 and 1, so that 0.02 means 2 percentage points; found {margin!r}"
        )
    if not 0 < alpha < 0.5:
        raise ConfigError(f"alpha is the level of the test, between 0 and .5, 0.05 unless you say so; found {alpha!r}")


def _bootstrapped(
    measured: list[Measured], items: int, draws: int, alpha: float, kept: Values
) -> list[tuple[float, float]]:
    """The bootstrap interval of each row over all test texts with seeds to draw from; NaN for the others."""
    found = [(math.nan, math.nan)] * len(measured)
    places = [
        place for place, row in enumerate(measured)
        if draws and row.question.scope == "all" and not math.isnan(row.result.se) and row.result.k is None
    ]  # fmt: skip
    if places:
        rows = []
        for place in places:
            pair = measured[place].question.pair
            B, A = values_of(pair, measured[place].metric, kept)
            rows.append((per_training_set(B - A, pair.seeds), pair.places))
        for place, ends in zip(places, bootstrap_rows(rows, items, draws=draws, alpha=alpha)):
            found[place] = ends
    return found


def _adjust(rows: list[Measured], primary: str) -> list[float]:
    """Holm's p over all test texts; NaN outside the families.

    One family per student, attempt and metric. The primary contrast stands outside in the primary metric as run, where
    it is the one declared test, and belongs to the family everywhere else.
    """
    adjusted = [math.nan] * len(rows)
    families: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(rows):
        question = row.question
        is_declared = question.is_first and row.metric == primary and question.attempt == "as_run"
        if question.scope == "all" and not is_declared and question.contrast.effect not in UNADJUSTED:
            families.setdefault((question.student, question.attempt, row.metric), []).append(place)
    for family in families.values():
        for place, p in zip(family, holm([rows[place].result.p for place in family])):
            adjusted[place] = p
    return adjusted


def _judged(row: Measured, p_holm: float, terms: _Terms) -> dict[str, Any]:
    question, result, contrast = row.question, row.result, row.question.contrast
    flaws = [*failures(terms.guards, question.student, contrast, question.attempt), *own_failures(question)]
    flaws = list({flaw.guard: flaw for flaw in reversed(flaws)}.values())[::-1]
    found = row.estimate
    replication = terms.replication if found.replication == "seed" else found.replication
    verdict = judge(result, terms.margin, flaws, p_holm=p_holm, replication=replication, alpha=terms.alpha)
    said = sentence(
        verdict, result, contrast, metric=row.metric, margin=terms.margin, scope=question.scope,
        replication=replication, alpha=terms.alpha,
        replaced=None if question.replaced is None else len(question.replaced),
    )  # fmt: skip
    headline = question.is_first and question.scope == "all" and question.attempt == "as_run"
    return {
        "dataset": terms.dataset, "student": question.student, "contrast": contrast.name, "metric": row.metric,
        "scope": question.scope, "attempt": question.attempt, "arm": contrast.arm, "control": contrast.control,
        "effect": contrast.effect or None, "is_primary": headline and row.metric == terms.metric,
        "arm_mean": found.arm_mean, "control_mean": found.control_mean, "difference": result.difference,
        "se": result.se, "df": result.df, "low": result.low, "high": result.high, "low90": result.low90,
        "high90": result.high90, "p": result.p, "p_holm": p_holm, "margin": terms.margin, "verdict": verdict.word,
        "reason": verdict.reason, "sentence": said, "seeds_better": found.seeds_better, "S": result.S, "n": result.n,
        "sd_seed": result.sd_seed, "sd_item": result.sd_item, "sd_error": result.sd_error, "alpha": terms.alpha,
        "replication": replication, "k": result.k,
        "detectable": detectable_difference(result.se, result.df, terms.alpha),
    }  # fmt: skip


def own_failures(question: Question) -> Iterator[Failure]:
    """Yield what pairing itself found, so that no table of guards can hide it."""
    both, pair = f"{question.contrast.arm} and {question.contrast.control}", question.pair
    if unequal := pair.unequal_items:
        yield Failure("alignment", f"{unequal} test text(s) are not predicted by every run of {both}", INVALID)
    elif not pair.seeds:
        yield Failure("alignment", f"{both} share no seed", INVALID)
    elif question.replaced_in_one:
        yield Failure("alignment", f"the rescue of {both} replaces other seeds in {question.replaced_in_one}", INVALID)
    elif question.contrast.effect in FILTERS and bool((pair.arm == pair.control).all()):
        yield Failure("", "no text was filtered out, so the two arms are the same", NO_VERDICT)
    if (same := pair.same_in_all_seeds) and len(pair.parts()) < FOLDS_FOR_ONE_SEED:
        yield Failure("seeds differ", f"all seeds of {', '.join(same)} give the same predictions", NO_VERDICT)


def _as_table(rows: list[dict[str, Any]], guards: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    frame = check(pd.DataFrame(rows).astype({"effect": object, "k": "float64"}) if rows else _empty(), COMPARISON)
    frame = frame.sort_values("is_primary", ascending=False, kind="stable", ignore_index=True)
    frame.attrs["guards"] = guards.astype(object).where(guards.notna(), None).to_dict("records")
    words = frame.loc[frame["is_primary"], "verdict"].tolist()
    logger.info("compared %d contrasts; primary: %s", frame["contrast"].nunique(), ", ".join(words) or "none")
    return frame


def _empty() -> pd.DataFrame:
    """A table without rows whose columns have the types that rows would give them."""
    import pandas as pd

    kinds = {"text": "str", "integer": "int64", "number": "float64", "flag": "bool"}
    types = {name: kinds[column.kind] for name, column in COMPARISON.columns.items()}
    types |= {"effect": "object", "k": "float64"}
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})
