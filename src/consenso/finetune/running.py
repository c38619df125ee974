"""Train every arm under every seed, save each training when it ends, and never repeat a finished one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.finetune.arms import FLOOR_ARMS
from consenso.finetune.floors import floor_outcome
from consenso.finetune.pieces import read_piece
from consenso.finetune.pool import in_processes, in_this_process
from consenso.finetune.recipe import Recipe
from consenso.finetune.study import Run, Study, make_study
from consenso.finetune.training import Outcome
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
    workers: int = 1,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Results:
    """Train the student once per arm, fold and seed; return the tables `trainings`, `curves` and `predictions`.

    `arms`: what `make_arms` returned; `texts`: text_id, text; `folds` says which texts are predicted (dev and test).
    With `folder` each training is saved as it ends and one that is saved is read, whatever arm or run it came from.
    `workers` above 1: that many processes; each training uses one thread, so results do not depend on `workers`.
    A training that fails is a row with status `failed` and a reason; the others go on. `progress` gets
    {stage, student, done, total, arm, seed, seconds} after each training; no arm and seed while texts are prepared.

    Raises `ConfigError`, `DataError`, `JoinError` for bad input, `ModelError` for an unusable encoder, `StorageError`
    when the disk is full (what is finished stays).
    """
    study = make_study(arms, texts, folds, student=student, recipe=recipe, schema=schema)
    started, tell = time.monotonic(), progress or (lambda event: None)
    outcomes = _finished(study, folder)
    todo = {key: training for key, training in study.trainings().items() if key not in outcomes}
    served = study.served()
    total = len(served)
    logger.info("%s: %d training(s), %d of them finished before", student, total, total - len(todo))

    def say(**event: Any) -> None:
        tell({"stage": "finetune", "student": student, "seconds": time.monotonic() - started, **event})

    def prepared(done: int, of: int) -> None:
        say(stage="prepare", done=done, total=of, arm=None, seed=None)

    say(done=total - len(todo), total=total, arm=None, seed=None)
    if todo:
        run_all = in_processes if workers > 1 else in_this_process
        for key, outcome in run_all(study, list(todo.values()), folder, workers, prepared):
            outcomes[key], run = outcome, served[key][0]
            if outcome.status != "ok":
                logger.warning("%s, seed %d: %s (%s)", run.arm, run.seed, outcome.status, outcome.reason)
            say(done=len(outcomes), total=total, arm=run.arm, seed=run.seed, fold=run.fold)
    results = _tables(study, outcomes)
    logger.info("%s: %d training(s) in %.1f s", student, total, time.monotonic() - started)
    return results


def _finished(study: Study, folder: RunFolder | None) -> dict[str, Outcome]:
    if folder is None:
        return {}
    found = {key: read_piece(folder.piece_path("trainings", key)) for key in study.trainings()}
    return {key: outcome for key, outcome in found.items() if outcome is not None}


def _tables(study: Study, outcomes: dict[str, Outcome]) -> Results:
    import pandas as pd

    trainings, curves, predictions = [], [], []
    for run in study.runs:
        floor = run.arm in FLOOR_ARMS
        outcome = floor_outcome(run.arm, run.training, len(study.schema)) if floor else outcomes[run.training.key]
        name = {"student": study.student, "arm": run.arm, "fold": run.fold, "seed": run.seed, "attempt": "as_run"}
        trainings.append(
            {**name, "status": outcome.status, "reason": outcome.reason, "train_rows": len(run.training.rows)}
            | outcome.facts
            | {"key": None if floor else run.training.key}
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
