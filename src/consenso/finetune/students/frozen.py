"""frozen: the encoder's embeddings, computed once, and a linear head per arm and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consenso import encoders
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.recipe import Recipe
from consenso.finetune.students.heads import distinct_rows, fit_head
from consenso.finetune.training import Outcome, Prepared, Progress, Training
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np

DETERMINISTIC = True
LIBRARIES = ("torch", "transformers", "scikit-learn")
USES_ENCODER = True
RECIPE_FIELDS = {"max_length", "c_grid"}


def prepare(
    texts: Sequence[str], recipe: Recipe, cache: Path | None = None, progress: Progress | None = None
) -> Prepared:
    """Return the embeddings of all texts, (n, d)."""
    found = encoders.embed(texts, recipe.encoder, max_length=recipe.max_length, cache=cache, progress=progress)
    return {"embeddings": found}


def train(
    training: Training, prepared: Prepared, recipe: Recipe, schema: LabelSchema, checkpoint: Checkpoint | None = None
) -> Outcome:
    """Fit the head on the arm's rows and predict the asked texts. Too short for a checkpoint."""
    # float64: in float32 lbfgs stops early, at coefficients that depend on where the search began
    features, classes = prepared["embeddings"], len(schema)
    positions, codes, weights = distinct_rows(training, classes)
    train, dev, asked = (features[rows].astype("float64") for rows in (positions, training.dev_rows, training.asked))
    return fit_head(training, recipe, classes, train=train, codes=codes, weights=weights, dev=dev, asked=asked)


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for embedding all texts and for the heads."""
    embedding = float(tokens.sum()) / encoders.tokens_per_second(recipe.encoder)
    return embedding, sum(_head_seconds(training, recipe) for training in trainings)


def _head_seconds(training: Training, recipe: Recipe) -> float:
    # measured on 2,000 SST-5 texts (5 classes) and 3,000 BABE texts (2 classes), 384 dimensions, one Zen 4 core
    classes = len(set(training.codes.tolist()))
    return 0.05 + 5e-6 * len(training.rows) * (classes if classes > 2 else 0.4) * len(recipe.c_grid)
