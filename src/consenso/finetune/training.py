"""What is trained, what comes out, and what a student must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.recipe import Recipe
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np

Prepared = dict[str, "np.ndarray"]
"""What a student computes once for all texts of a study: tokens, embeddings or term counts."""
Progress = Callable[[int, int], None]
"""Called with how many texts are prepared, and out of how many."""


def base_student(name: str) -> str:
    """Return the key of STUDENTS behind a student's name: `frozen (gold dev)` is `frozen` under a declared variation."""
    return name.partition(" (")[0]


@dataclass(frozen=True)
class Training:
    """One piece of work: labels under one fold and seed. The arm's name is not part of it: equal labels, equal work."""

    key: str
    """Hash of everything that decides the result."""
    seed: int
    """Fixes initialisation, dropout and the order of the texts, each by its own stream."""
    rows: np.ndarray
    """Training texts as positions in the study's texts, in the order of their ids; a copy is a repeat."""
    codes: np.ndarray
    """Class positions of the training rows."""
    dev_rows: np.ndarray
    """Dev texts of the arm's own source."""
    dev_codes: np.ndarray
    """Class positions of the dev rows."""
    asked: np.ndarray
    """Texts to predict: the fold's dev and test texts."""
    steps: int
    """Optimiser steps, the same for all arms of this fold and seed."""
    targets: np.ndarray | None = None
    """Soft targets of the training rows, (rows, K) shares that sum to 1; None: `codes` are the targets."""
    dev_targets: np.ndarray | None = None
    """Soft targets of the dev rows; None: `dev_codes` are the labels."""
    patience: int = 0
    """Evaluations without a better dev score after which the run ends; 0: never (the default for every arm)."""

    def shares(self, n_classes: int) -> np.ndarray:
        """Return the shares of the classes among the training labels; with soft targets the mean target."""
        import numpy as np

        counts = np.bincount(self.codes, minlength=n_classes) / len(self.codes)
        shares: np.ndarray = counts if self.targets is None else self.targets.mean(axis=0)
        return shares


@dataclass(frozen=True)
class Outcome:
    """What a training gives."""

    status: str
    """ok, collapsed or failed."""
    reason: str | None = None
    """Why it is not ok."""
    probabilities: np.ndarray | None = None
    """One row per asked text, float64, in schema order; None where the training failed."""
    predicted: np.ndarray | None = None
    """Class position per asked text."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further columns of the trainings table."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the curves table: step, epoch, train_loss and the dev scores."""


class Student(Protocol):
    """A module in `students/`: prepare once, train often, say beforehand how long it takes."""

    DETERMINISTIC: bool
    """True: the seed changes nothing but a resample of the texts, so that is where replication comes from."""
    LIBRARIES: tuple[str, ...]
    """Distributions whose major version decides the result."""
    USES_ENCODER: bool
    """True: the recipe's encoder takes part."""
    RECIPE_FIELDS: set[str]
    """The other fields of the recipe that change this student; a change elsewhere repeats no training."""

    def prepare(
        self, texts: Sequence[str], recipe: Recipe, cache: Path | None = None, progress: Progress | None = None
    ) -> Prepared:
        """Compute what all trainings share."""

    def train(
        self,
        training: Training,
        prepared: Prepared,
        recipe: Recipe,
        schema: LabelSchema,
        checkpoint: Checkpoint | None = None,
    ) -> Outcome:
        """Train once and predict the asked texts; with `checkpoint`, save the state by time and go on from it."""

    def seconds(self, tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
        """Return estimated seconds on one core: preparing all texts, and the trainings; `tokens` per text."""
