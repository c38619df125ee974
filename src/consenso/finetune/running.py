"""Train every arm under every seed, save each training when it ends, and never repeat a finished one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from consenso.finetune.arm_names import FLOOR_ARMS
from consenso.finetune.floors import floor_outcome
from consenso.finetune.pieces import finished_outcomes
from consenso.finetune.pool import Bench, in_processes, in_this_process
from consenso.finetune.recipe import Recipe
from consenso.finetune.rescue import Rescue, is_exempt, replaced_seeds, rescue_study
from consenso.finetune.students import STUDENTS
from consenso.finetune.study import Run, Study, make_study
from consenso.finetune.tracking import Tracking, run_name
from consenso.finetune.training import Outcome, Prepared, Training, base_student
from consenso.finetune.words import estimated_tokens
from consenso.finetune.workers import count_workers
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import CURVES, PREDICTIONS, TRAININGS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class Results(NamedTuple):
    """What the trainings gave: three tables."""

    trainings: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame


def run_arms(
    arms: pd.DataFrame,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    student: str = "frozen",
    recipe: Recipe | None = None,
    schema: LabelSchema | None = None,
    folder: RunFolder | None = None,
    workers: int | Literal["auto"] = 1,
    checkpoint_minutes: float = 10,
    progress: Callable[[dict[str, Any]], None] | None = None,
    rescue: Rescue | None = None,
    counted: Collection[str] | None = None,
    budget: Mapping[int, int] | None = None,
    report_to: Sequence[str] | str | Tracking = (),
) -> Results:
    """Train the student once per arm, fold and seed; return the tables `trainings`, `curves` and `predictions`.

    `arms`: what `make_arms` returned; `texts`: text_id, text; `folds` says which texts are predicted (dev and test).
    With `folder` each training is saved as it ends and one that is saved is read, whatever arm or run it came from.
    `workers` above 1: that many processes; each training uses one thread, so results do not depend on `workers`; `auto`: one
    per GPU or core. A training of the encoder that takes longer than `checkpoint_minutes` saves its state each time they have
    passed, in `folder`, and goes on from there after a kill with the same result.
    A training that fails is a row with status `failed` and a reason; the others go on. `progress` gets
    {stage, student, done, total, arm, seed, seconds} after each training; no arm and seed while texts are prepared.
    `rescue`: seeds → the table `arms` for them; with it each fold and seed in which a run of an arm that counts has
    collapsed is trained once more in all arms, under the next seed that the list does not hold. These are rows of
    attempt `rescue`: `seed` is the one that they replace, `trained_seed` the one that was used. `counted`: the arms whose
    collapse counts (those of reported contrasts); default: all but floors, `permuted` and `gold@n`. `budget`: fold →
    training rows that the steps follow from, in place of the largest arm here. `report_to`: trackers (tensorboard, mlflow,
    wandb) that each training done now is reported to as it ends; they write to `trackers/` of the folder, else to ./trackers.

    Raises `ConfigError`, `DataError`, `JoinError` for bad input, `ModelError` for an unusable encoder, `MissingExtraError`
    for a tracker that is not installed, `StorageError` when the disk is full (what is finished stays).
    """
    study = make_study(arms, texts, folds, student=student, recipe=recipe, schema=schema, budget=budget)
    started, tell = time.monotonic(), progress or (lambda event: None)

    def say(**event: Any) -> None:
        tell({"stage": "finetune", "student": student, "seconds": time.monotonic() - started, **event})

    bench = Bench(base_student(student), study.recipe, study.schema, folder, checkpoint_minutes)
    series = _Series(bench, workers, say, Tracking.of_run(report_to, folder))
    outcomes = series.train(study)
    rows = [_Row(run, outcomes, "as_run", run.seed) for run in study.runs]
    if rescue is not None and (replaced := replaced_seeds(study, outcomes, counted)):
        logger.warning("%s: seed(s) %s collapsed; rescued", student, sorted({seed for _, seed in replaced}))
        second = rescue_study(study, replaced, rescue, texts, folds)
        outcomes = series.train(second)
        stands_for = {(fold, new): seed for (fold, seed), new in replaced.items()}
        rows += [_Row(run, outcomes, "rescue", stands_for[run.fold, run.seed]) for run in second.runs]
    results = _tables(study, rows)
    logger.info("%s: %d training(s) in %.1f s", student, series.total, time.monotonic() - started)
    return results


@dataclass
class _Series:
    """The trainings of one call: what is saved is read, the rest is trained, and both are counted."""

    bench: Bench
    workers: int | Literal["auto"]
    say: Callable[..., None]
    tracking: Tracking
    done: int = 0
    total: int = 0
    prepared: Prepared | None = None
    """Made when the first training needs it, for all of them."""

    def train(self, study: Study) -> dict[str, Outcome]:
        """Return key → outcome for every training of a study."""
        trainings, served = study.trainings(), study.served()
        outcomes = finished_outcomes(trainings, self.bench.folder)
        todo = [training for key, training in trainings.items() if key not in outcomes]
        self.done, self.total = self.done + len(outcomes), self.total + len(trainings)
        logger.info("%s: %d training(s), %d of them finished before", study.student, len(trainings), len(outcomes))
        self.say(done=self.done, total=self.total, arm=None, seed=None)
        for key, outcome in self._outcomes(study, todo):
            outcomes[key], run = outcome, served[key][0]
            self.done += 1
            if outcome.status != "ok":
                level = logging.INFO if is_exempt(run.arm) and outcome.status == "collapsed" else logging.WARNING
                named = (study.student, run.arm, run.seed, outcome.status, outcome.reason)
                logger.log(level, "%s: %s, seed %d: %s (%s)", *named)
            self.tracking.log_training(*_described(study, served[key]), outcome)
            self.say(done=self.done, total=self.total, arm=run.arm, seed=run.seed, fold=run.fold)
        return outcomes

    def _outcomes(self, study: Study, todo: list[Training]) -> Iterator[tuple[str, Outcome]]:
        if not todo:
            return
        if self.prepared is None:
            self.prepared = self.bench.prepare(study.texts, self._say_prepared)
        student, recipe = self.bench.student, study.recipe
        spent = STUDENTS[student].seconds(estimated_tokens(study.texts, recipe), recipe, todo)[1]
        workers = count_workers(self.workers, student, recipe, trainings=len(todo), seconds=spent)
        run_all = in_processes if workers > 1 else in_this_process
        yield from run_all(self.bench, self.prepared, todo, workers)

    def _say_prepared(self, done: int, of: int) -> None:
        self.say(stage="prepare", done=done, total=of, arm=None, seed=None)


def _described(study: Study, runs: list[Run]) -> tuple[str, dict[str, Any]]:
    """The name of a training and what was chosen for it, as trackers show them; it is called by its first arm."""
    run, module = runs[0], STUDENTS[base_student(study.student)]
    fields = module.RECIPE_FIELDS | ({"encoder"} if module.USES_ENCODER else set())
    recipe = study.recipe.model_dump(mode="json", include=fields)
    chosen = {"student": study.student, "arm": run.arm, "fold": run.fold, "seed": run.seed, "key": run.training.key}
    shared = {"arms": ", ".join(run.arm for run in runs), "train_rows": len(run.training.rows)}
    return run_name(study.student, run.arm, run.fold, run.seed), {**chosen, **shared, **recipe}


class _Row(NamedTuple):
    """One row of the trainings table before it is one."""

    run: Run
    outcomes: dict[str, Outcome]
    attempt: str
    seed: int
    """The seed that the row stands for; a rescue was trained under another one, `run.seed`."""


def _tables(study: Study, rows: list[_Row]) -> Results:
    import pandas as pd

    trainings, curves, predictions = [], [], []
    for run, outcomes, attempt, seed in rows:
        floor = run.arm in FLOOR_ARMS
        outcome = floor_outcome(run.arm, run.training, len(study.schema)) if floor else outcomes[run.training.key]
        name = {"student": study.student, "arm": run.arm, "fold": run.fold, "seed": seed, "attempt": attempt}
        trainings.append(
            {**name, "status": outcome.status, "reason": outcome.reason, "train_rows": len(run.training.rows)}
            | outcome.facts
            | {"trained_seed": run.seed, "key": None if floor else run.training.key}
        )
        curves += [{**name, **point} for point in outcome.curve]
        if outcome.probabilities is not None:
            predictions.append(_predictions(study, run, outcome).assign(**name))
    return Results(
        pd.DataFrame(trainings).reindex(columns=list(TRAININGS.columns)),
        pd.DataFrame(curves).reindex(columns=list(CURVES.columns)),
        pd.concat(predictions, ignore_index=True)[list(PREDICTIONS.columns)]
        if predictions
        else pd.DataFrame(columns=list(PREDICTIONS.columns)),
    )


def _predictions(study: Study, run: Run, outcome: Outcome) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    assert outcome.probabilities is not None
    assert outcome.predicted is not None
    is_test = study.in_test[run.fold][run.training.asked]
    order = np.argsort(is_test, kind="stable")
    return pd.DataFrame(
        {
            "part": pd.Index(["dev", "test"]).take(is_test[order].astype("int64")),
            "text_id": study.ids.take(run.training.asked[order]),
            "predicted": pd.Index(list(study.schema.names)).take(outcome.predicted[order]),
            "probabilities": list(outcome.probabilities[order]),
        }
    )
