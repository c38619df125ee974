"""The floors: what a classifier scores that has learned nothing but the label shares. Nothing is trained."""

from __future__ import annotations

from consenso.finetune.metrics import cross_entropy, macro_f1
from consenso.finetune.training import Outcome, Training

_DRAWS = 4  # random stream of a seed


def floor_outcome(arm: str, training: Training, n_classes: int) -> Outcome:
    """Return a floor's predictions: the majority class of its training rows, or (`floor-prior`) draws of their shares.

    A tie for the majority goes to the class that stands first in the schema; probabilities are the shares in both; with
    soft targets the shares are their mean.
    """
    import numpy as np

    shares = training.shares(n_classes)
    probabilities = np.tile(shares, (len(training.asked), 1))
    if arm == "floor":
        predicted = np.full(len(training.asked), int(shares.argmax()))
    else:
        rng = np.random.default_rng([training.seed, _DRAWS])
        predicted = rng.choice(n_classes, size=len(training.asked), p=shares)
    at = np.searchsorted(training.asked, training.dev_rows)
    facts = {
        "steps": 0,
        "train_loss": cross_entropy(training.codes, np.tile(shares, (len(training.codes), 1))),
        "dev_loss": cross_entropy(training.dev_codes, probabilities[at]),
        "dev_accuracy": float((predicted[at] == training.dev_codes).mean()),
        "dev_macro_f1": macro_f1(training.dev_codes, predicted[at]),
    }
    return Outcome("ok", None, probabilities, predicted, facts)
