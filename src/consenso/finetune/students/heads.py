"""The linear head that `frozen` and `linear` share: logistic regression, C chosen on the arm's own dev."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.finetune.collapse import find_collapse
from consenso.finetune.metrics import cross_entropy, dev_scores
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Outcome, Training
from consenso.light_model import class_probabilities, linear_model

if TYPE_CHECKING:
    import numpy as np


def distinct_rows(training: Training, n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return text positions, class positions and weights of the distinct training rows.

    A weight is a row's multiplicity. A row with soft targets becomes one row per class that weighs its share: the sum
    of weighted log losses is then the soft cross-entropy itself, so the head is exact.
    """
    import numpy as np

    if training.targets is None:
        pairs, copies = np.unique(training.rows * n_classes + training.codes, return_counts=True)
        return pairs // n_classes, pairs % n_classes, copies.astype("float64")
    row, code = np.nonzero(training.targets)
    pairs, place = np.unique(training.rows[row] * n_classes + code, return_inverse=True)
    return pairs // n_classes, pairs % n_classes, np.bincount(place, weights=training.targets[row, code])


def fit_head(
    training: Training,
    recipe: Recipe,
    n_classes: int,
    *,
    train: Any,
    codes: np.ndarray,
    weights: np.ndarray,
    dev: Any,
    asked: Any,
) -> Outcome:
    """Fit one logistic regression per C of the recipe and keep the best by dev macro-F1, the smallest C if equal.

    `train`, `dev`, `asked` are feature rows; `weights`: one per training row.
    """
    import numpy as np

    model, best, kept = None, -1.0, {}
    for C in sorted(recipe.c_grid):
        model = linear_model(train, codes, C=C, weights=weights, start=model)
        on_dev = class_probabilities(model, dev, n_classes)
        scores = dev_scores(training.dev_codes, on_dev, training.dev_targets)
        if scores["dev_macro_f1"] > best:
            best = scores["dev_macro_f1"]
            on_train = class_probabilities(model, train, n_classes)
            loss = cross_entropy(codes, on_train, weights)
            steps = int(model.n_iter_[0])
            kept = {"C": C, "steps": steps, "best_step": steps, "train_loss": loss, **scores}
            chosen, found = on_dev, class_probabilities(model, asked, n_classes)
    texts, first = np.unique(distinct_rows(training, n_classes)[0], return_index=True)
    reason = find_collapse(
        _logits(chosen, codes),
        training.dev_codes,
        training.codes,
        seed=training.seed,
        targets=training.targets,
        dev_targets=training.dev_targets,
        looks=len(recipe.c_grid),
        on_train=_logits(on_train[first][np.searchsorted(texts, training.rows)], codes),
    )
    scores = {name: kept[name] for name in scores}
    point = {"step": kept["steps"], "train_loss": kept["train_loss"], **scores}
    status = "collapsed" if reason else "ok"
    return Outcome(status, reason, found, found.argmax(axis=1), kept, [point])


def _logits(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Log probabilities; −inf for a class that does not occur in training."""
    import numpy as np

    logits, seen = np.full_like(probabilities, -np.inf), np.unique(codes)
    logits[:, seen] = np.log(np.clip(probabilities[:, seen], 1e-300, None))
    return logits
