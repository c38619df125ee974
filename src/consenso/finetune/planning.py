"""What `run --dry-run` tells: which trainings are done, how many are left, for how long and for how many bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.finetune.pieces import finished_outcomes
from consenso.finetune.recipe import Recipe
from consenso.finetune.rescue import Rescue, replaced_seeds, rescue_study
from consenso.finetune.students import STUDENTS
from consenso.finetune.study import Run, make_study
from consenso.finetune.training import base_student
from consenso.finetune.words import estimated_tokens
from consenso.labels import LabelSchema
from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

BASIS = "one Zen 4 core, torch 2.13; tokens estimated from the words; other processors differ, a GPU is far faster"


@dataclass(frozen=True)
class Planned:
    """One piece of work of a study: the shared preparation, or one training."""

    what: str
    """prepare (tokens, embeddings, term counts; shared) or train."""
    arms: tuple[str, ...]
    """The arms that this training serves; empty for prepare."""
    fold: int | None
    seed: int | None
    key: str | None
    done: bool
    """Saved already, so that it costs nothing."""
    seconds: float
    """Estimate for one core."""
    bytes: int
    """Estimate of what is written."""
    basis: str = BASIS
    """Where the estimate comes from."""


def plan_arms(
    arms: pd.DataFrame,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    student: str = "frozen",
    recipe: Recipe | None = None,
    schema: LabelSchema | None = None,
    folder: RunFolder | None = None,
    rescue: Rescue | None = None,
    counted: Collection[str] | None = None,
    budget: Mapping[int, int] | None = None,
) -> list[Planned]:
    """Return what `run_arms` with the same arguments would do, piece by piece, without doing it.

    With `rescue` that of the runs known to have collapsed is planned too; how many more will, nobody knows.
    """
    study = make_study(arms, texts, folds, student=student, recipe=recipe, schema=schema, budget=budget)
    module, tokens = STUDENTS[base_student(student)], estimated_tokens(study.texts, study.recipe)
    studies = [study]
    if rescue is not None and (
        replaced := replaced_seeds(study, finished_outcomes(study.trainings(), folder), counted)
    ):
        studies.append(rescue_study(study, replaced, rescue, texts, folds))

    def planned(key: str, runs: list[Run]) -> Planned:
        training, arms = runs[0].training, tuple(run.arm for run in runs)
        done = folder is not None and folder.piece_path("trainings", key).exists()
        spent = 0.0 if done else module.seconds(tokens, study.recipe, [training])[1]
        size = 0 if done else 8_000 + 8 * len(training.asked) * len(study.schema)
        return Planned("train", arms, runs[0].fold, runs[0].seed, key, done, spent, size)

    pieces = [planned(key, runs) for each in studies for key, runs in each.served().items()]
    left = any(not piece.done for piece in pieces)
    spent = module.seconds(tokens, study.recipe, [])[0] if left else 0.0
    is_cached = module is STUDENTS["frozen"] and folder is not None
    size = 4 * 384 * len(study.texts) if left and is_cached else 0
    return [Planned("prepare", (), None, None, None, not left, spent, size), *pieces]
