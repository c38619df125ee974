"""linear: TF-IDF of the arm's own training texts and a linear head; no encoder, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.recipe import Recipe
from consenso.finetune.students.heads import distinct_rows, fit_head
from consenso.finetune.training import Outcome, Prepared, Progress, Training
from consenso.labels import LabelSchema
from consenso.light_model import count_terms, tfidf_features

if TYPE_CHECKING:
    import numpy as np

DETERMINISTIC = True
LIBRARIES = ("scikit-learn",)
USES_ENCODER = False
RECIPE_FIELDS = {"c_grid"}


def prepare(
    texts: Sequence[str], recipe: Recipe, cache: Path | None = None, progress: Progress | None = None
) -> Prepared:
    """Return the term counts of all texts as the arrays of a sparse matrix; each arm reads only its own rows of it."""
    import numpy as np

    counts = count_terms(texts)
    shape = np.array(counts.shape, dtype="int64")
    return {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr, "shape": shape}


def train(
    training: Training, prepared: Prepared, recipe: Recipe, schema: LabelSchema, checkpoint: Checkpoint | None = None
) -> Outcome:
    """Fit TF-IDF and head on the arm's rows and predict the asked texts. Too short for a checkpoint."""
    from scipy.sparse import csr_matrix

    parts = (prepared["data"], prepared["indices"], prepared["indptr"])
    counts = csr_matrix(parts, shape=tuple(prepared["shape"]))
    positions, codes, weights = distinct_rows(training, len(schema))
    # fitted with the copies, as on the drawn texts themselves; then one row per distinct text
    wanted = (counts[rows] for rows in (training.rows, positions, training.dev_rows, training.asked))
    _, train, dev, asked = tfidf_features(*wanted)
    return fit_head(training, recipe, len(schema), train=train, codes=codes, weights=weights, dev=dev, asked=asked)


def seconds(tokens: np.ndarray, recipe: Recipe, trainings: Sequence[Training]) -> tuple[float, float]:
    """Return estimated seconds for counting all texts and for the heads."""
    # measured on 2,000 SST-5 and 3,000 BABE texts, one Zen 4 core
    mean = float(tokens.mean()) if len(tokens) else 0.0
    classes = [len(set(training.codes.tolist())) for training in trainings]
    heads = sum(
        0.05 + 2.5e-7 * len(t.rows) * mean * (k if k > 2 else 0.7) * len(recipe.c_grid)
        for t, k in zip(trainings, classes)
    )
    return 4e-6 * float(tokens.sum()), heads
