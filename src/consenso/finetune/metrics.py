"""Scores of a state on dev: what chooses the best state and what the learning curves show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_TINY = 1e-12


def macro_f1(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `codes`; 0 where a class is never predicted."""
    import numpy as np
    from sklearn.metrics import f1_score

    return float(f1_score(codes, predicted, labels=np.unique(codes), average="macro", zero_division=0))


def cross_entropy(codes: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean negative log probability of the true classes, in nats; probabilities are at least 1e-12."""
    import numpy as np

    true = np.clip(probabilities[np.arange(len(codes)), codes], _TINY, None)
    return float(-np.average(np.log(true), weights=weights))


def soft_cross_entropy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean over rows of −Σ_k target_k log probability_k, in nats; probabilities are at least 1e-12."""
    import numpy as np

    return float(-(targets * np.log(np.clip(probabilities, _TINY, None))).sum(axis=1).mean())


def dev_scores(codes: np.ndarray, probabilities: np.ndarray, targets: np.ndarray | None = None) -> dict[str, float]:
    """Return dev_loss (nats), dev_accuracy and dev_macro_f1; with soft `targets` the loss is theirs."""
    predicted = probabilities.argmax(axis=1)
    return {
        "dev_loss": cross_entropy(codes, probabilities)
        if targets is None
        else soft_cross_entropy(targets, probabilities),
        "dev_accuracy": float((predicted == codes).mean()),
        "dev_macro_f1": macro_f1(codes, predicted),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the rows of `logits`, in float64."""
    import numpy as np

    powers = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found
