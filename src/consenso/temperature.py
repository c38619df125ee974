"""Temperature scaling: one number that makes a classifier's probabilities less (or more) sure of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_SMALLEST = 1e-45
"""A probability below this, about the smallest of a float32, counts as this much in a logarithm."""
_LOG_T = 8.0
"""Temperatures from e^−8 to e^8 are tried."""


def fit_temperature(probabilities: Any, labels: Any) -> float:
    """Return the T whose scaled probabilities (rows, K) give the labels (codes) the smallest mean log loss.

    Guo et al. (2017), section 4.2: softmax(z / T), with log probabilities for z, which differ from logits by a constant
    per row only. The loss is convex in 1/T. NaN where the labels fix no temperature: no row; one class only; every row
    right (T → 0); or label and probability unrelated (T → ∞).
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    labels = np.asarray(labels)
    if not len(labels) or (labels == labels[0]).all():
        return float("nan")
    logits = _log(probabilities)
    logits -= logits[np.arange(len(labels)), labels][:, None]  # 0 for the label: the loss is the logsumexp
    if logits.max() <= 0 or logits.mean() >= 0:  # the slope of the loss in 1/T at ∞, and at 0
        return float("nan")

    def loss(log_t: float) -> float:
        return float(_logsumexp(logits * np.exp(-log_t)).mean())

    found = minimize_scalar(loss, bounds=(-_LOG_T, _LOG_T), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def scale(probabilities: Any, temperature: Any) -> np.ndarray:
    """Return softmax(log p / T) of every row (rows, K); T is one number, or one per row. The order of labels stays."""
    import numpy as np

    logits = _log(probabilities) / np.atleast_1d(temperature)[:, None]
    scaled: np.ndarray = np.exp(logits - _logsumexp(logits)[:, None])
    return scaled


def _log(probabilities: Any) -> np.ndarray:
    import numpy as np

    found: np.ndarray = np.log(np.maximum(np.asarray(probabilities, dtype=float), _SMALLEST))
    return found


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    import numpy as np

    top = logits.max(axis=1)
    found: np.ndarray = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found
