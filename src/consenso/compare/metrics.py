"""Metrics as per-item values whose mean is the metric: what the paired statistics work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


def hits(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return 1.0 where the prediction equals gold: (S, n), mean over items = accuracy."""
    found: np.ndarray = (predicted == gold).astype(float)
    return found


def linearised_macro_f1(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return F + IF_i per seed and item: (S, n), mean over items = macro-F1 of the seed.

    IF_i = (1/K) Σ_k [2·tp_ik − F_k·(p_ik + g_ik)] / (p̄_k + ḡ_k), the influence function of macro-F1 over the K classes
    with gold (zero_division = 0; docs/verdict.md). p_ik, g_ik and tp_ik are 0 except for the predicted
    and the gold class, hence the look-up tables.
    """
    import numpy as np

    f1, both, either = _f1_parts(predicted, gold)
    row = np.arange(len(predicted))[:, None]
    values = np.repeat(f1.mean(axis=1, where=_present(gold, f1.shape[1]))[:, None], predicted.shape[1], axis=1)
    values -= either[row, predicted]
    values -= either[:, gold]
    values += np.where(predicted == gold, both[:, gold], 0.0)
    return values


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "macro_f1": linearised_macro_f1,
    "accuracy": hits,
}
METRIC_NAMES = {"macro_f1": "macro-F1", "accuracy": "accuracy"}


def per_item(predicted: np.ndarray, gold: np.ndarray, metric: str) -> np.ndarray:
    """Return the per-item values (S, n) of a metric from label codes 0 … C−1; the mean over items is the metric.

    Raises `ConfigError` for an unknown metric.
    """
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; choose one of {sorted(METRICS)}.{nearest(metric, METRICS)}")
    return METRICS[metric](predicted, gold)


def differences(pred_B: Any, pred_A: Any, gold: Any, metric: str = "macro_f1") -> np.ndarray:
    """Return D (S, n): per seed and item, metric of B minus metric of A; the mean over items is the seed's difference.

    `pred_B`, `pred_A` (S, n) and `gold` (n,) hold label names or integers; a label that gold lacks counts as wrong.
    """
    import numpy as np

    B, A, truth = np.atleast_2d(np.asarray(pred_B)), np.atleast_2d(np.asarray(pred_A)), np.asarray(gold)
    _, codes = np.unique(np.concatenate([truth.ravel(), B.ravel(), A.ravel()]), return_inverse=True)
    truth, B, A = (part.reshape(shape) for part, shape in zip(
        np.split(codes, [truth.size, truth.size + B.size]), [truth.shape, B.shape, A.shape]
    ))  # fmt: skip
    found: np.ndarray = per_item(B, truth, metric) - per_item(A, truth, metric)
    return found


def recalls(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return the recall of every class per seed, (S, C), NaN for a class without gold."""
    import numpy as np

    classes = _classes(predicted, gold)
    right = _count(np.where(predicted == gold, gold, classes), classes + 1)[:, :classes]
    there = np.bincount(gold, minlength=classes).astype(float)
    found: np.ndarray = right / np.where(there > 0, there, np.nan)
    return found


def _f1_parts(predicted: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F_k, 2/(K·(p̄_k + ḡ_k)) and F_k/(K·(p̄_k + ḡ_k)), each (S, C) and 0 for classes without gold."""
    import numpy as np

    n, classes = len(gold), _classes(predicted, gold)
    present = _present(gold, classes)
    right = _count(np.where(predicted == gold, gold, classes), classes + 1)[:, :classes] / n
    either = (_count(predicted, classes) + np.bincount(gold, minlength=classes)) / n
    f1 = np.divide(2 * right, either, out=np.zeros_like(right), where=present)
    scale = np.divide(1 / present.sum(), either, out=np.zeros_like(right), where=present)
    return f1, 2 * scale, f1 * scale


def _classes(predicted: np.ndarray, gold: np.ndarray) -> int:
    return int(max(predicted.max(), gold.max())) + 1


def _present(gold: np.ndarray, classes: int) -> np.ndarray:
    import numpy as np

    found: np.ndarray = np.bincount(gold, minlength=classes) > 0
    return found


def _count(codes: np.ndarray, classes: int) -> np.ndarray:
    """How often each class stands in each row: (S, n) → (S, classes)."""
    import numpy as np

    rows = len(codes)
    flat = (np.arange(rows)[:, None] * classes + codes).ravel()
    found: np.ndarray = np.bincount(flat, minlength=rows * classes).reshape(rows, classes)
    return found
