"""The learning rate chosen among several before the arms are trained: one for all arms, by their own dev labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from consenso.errors import ConfigError, IncompleteError
from consenso.finetune.planning import Planned, plan_arms
from consenso.finetune.recipe import Recipe
from consenso.finetune.rescue import is_exempt
from consenso.finetune.running import run_arms
from consenso.finetune.students import STUDENTS
from consenso.finetune.tracking import Tracking
from consenso.finetune.training import base_student
from consenso.labels import LabelSchema
from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NOTE = "learning_rates"
"""The entry of run.json: student → what `chosen_among` returned."""
SEED = 1_000_000
"""The probe's seed: a constant, so that seeds added later change no choice."""


def probe_seed(seeds: Collection[int]) -> int:
    """Return a seed that the list does not hold: the same one, however long the list grows."""
    seed = SEED
    while seed in seeds:
        seed += 1
    return seed


def probe_rates(
    arms: pd.DataFrame,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    rates: Sequence[float],
    student: str,
    recipe: Recipe,
    schema: LabelSchema | None = None,
    counted: Collection[str] | None = None,
    folder: RunFolder | None = None,
    budget: Mapping[int, int] | None = None,
    workers: int | Literal["auto"] = 1,
    checkpoint_minutes: float = 10,
    progress: Callable[[dict[str, Any]], None] | None = None,
    report_to: Sequence[str] | str | Tracking = (),
) -> pd.DataFrame:
    """Train the arms that count once per rate in the first fold; return rate, arm, dev_macro_f1, status, reason and key.

    `arms`: what `make_arms` returned for one seed, `probe_seed`; `counted`: the arms of reported contrasts (None: all but
    floors, `permuted` and `gold@n`); the rest as for `run_arms`. Each row is scored on the arm's own dev labels; gold of
    test texts has no part in it. Trainings are saved and read like all others.
    Raises `ConfigError` for a student without a learning rate or arms of which none counts, `IncompleteError` where a
    training failed: a choice among what is left would be another one.
    """
    import pandas as pd

    asked: dict[str, Any] = {
        "schema": schema,
        "folder": folder,
        "budget": budget,
        "checkpoint_minutes": checkpoint_minutes,
    }
    tried = []
    for rate, chosen, name, changed in _studies(arms, rates, student, recipe, counted):
        logger.info("learning-rate probe: %s, rate %g", student, rate)
        found = run_arms(
            chosen, texts, folds,
            student=name, recipe=changed, workers=workers, progress=progress, report_to=report_to, **asked,
        )  # fmt: skip
        tried.append(found.trainings.assign(rate=rate)[["rate", "arm", "dev_macro_f1", "status", "reason", "key"]])
    table = pd.concat(tried, ignore_index=True)
    if len(failed := table[table["status"] == "failed"]):
        raise IncompleteError(
            f"learning-rate probe of {student}: {len(failed)} of {len(table)} trainings failed ({failed['reason'].iloc[0]}); no "
            "rate is chosen before all are done: mend this and run again, finished ones are kept"
        )
    return table


def plan_rates(
    arms: pd.DataFrame,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    rates: Sequence[float],
    student: str,
    recipe: Recipe,
    schema: LabelSchema | None = None,
    counted: Collection[str] | None = None,
    folder: RunFolder | None = None,
    budget: Mapping[int, int] | None = None,
) -> list[Planned]:
    """Return the trainings that `probe_rates` with the same arguments would do, without doing them."""
    planned = [
        plan_arms(chosen, texts, folds, student=name, recipe=changed, schema=schema, folder=folder, budget=budget)
        for _, chosen, name, changed in _studies(arms, rates, student, recipe, counted)
    ]
    return [piece for pieces in planned for piece in pieces if piece.what == "train"]


def _studies(
    arms: pd.DataFrame, rates: Sequence[float], student: str, recipe: Recipe, counted: Collection[str] | None
) -> Iterator[tuple[float, pd.DataFrame, str, Recipe]]:
    """Per rate, in ascending order: the arms that count in the first fold, the student's name, its recipe."""
    if "learning_rate" not in STUDENTS[base_student(student)].RECIPE_FIELDS:
        raise ConfigError(f"learning_rates: student {student!r} has no learning rate; leave it out of the probe")
    wanted = {name for name in arms["arm"].unique() if not is_exempt(name) and (counted is None or name in counted)}
    if not wanted:
        raise ConfigError(
            f"learning_rates: no arm of student {student!r} stands in a reported contrast, so none can choose a rate; found "
            f"{sorted(arms['arm'].unique())}; train the arms of a contrast, or leave learning_rates out"
        )
    chosen = arms[arms["arm"].isin(wanted) & (arms["fold"] == arms["fold"].min())]
    for rate in sorted(rates):
        yield rate, chosen, f"{student} (learning rate {rate:g})", recipe.model_copy(update={"learning_rate": rate})


def chosen_among(table: pd.DataFrame) -> dict[str, Any]:
    """Return what run.json keeps of a probe: the rate of the highest mean dev macro-F1 over the arms, and all that was tried.

    Of rates that are equal the smaller one. A collapsed training counts as it scores.
    """
    means = table.groupby("rate")["dev_macro_f1"].mean().sort_index()
    rows = table.drop(columns="reason").to_dict("records")
    return {
        "chosen": float(means.idxmax()),
        "means": {f"{rate:g}": float(mean) for rate, mean in means.items()},
        "tried": rows,
    }


def with_chosen_rate(recipe: Recipe, student: str, probed: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe with the rate that was chosen for a student (a key of STUDENTS); `probed`: the entry of run.json."""
    found = (probed or {}).get(student)
    return recipe if found is None else recipe.model_copy(update={"learning_rate": float(found["chosen"])})
