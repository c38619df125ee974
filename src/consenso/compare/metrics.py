"""Metrics as per-item values whose mean is the metric: what the paired statistics work on. `add_metric` adds one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, ConsensoError, nearest

if TYPE_CHECKING:
    import numpy as np

Metric = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]
"""(predicted codes (S, n), gold codes (n,)) → values (S, n) whose mean over items is the metric of the seed."""


def hits(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return 1.0 where the prediction equals gold: (S, n), mean over items = accuracy."""
    found: np.ndarray = (predicted == gold).astype(float)
    return found


def linearised_macro_f1(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return F + J_i per seed and item: (S, n), mean over items = macro-F1 of the seed, over the K classes with gold.

    J_i = (n − 1)·(F − F without item i), centred: jackknife influence values (Efron 1982). The infinitesimal ones,
    (1/K) Σ_k [2·tp_ik − F_k·(p_ik + g_ik)] / (p̄_k + ḡ_k), lack variance where classes are rare (docs/verdict-proof.md).
    """
    present = _present(gold, _classes(predicted, gold))
    return _linearised_f1(predicted, gold, present / present.sum())


def linearised_weighted_f1(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return per-item values (S, n) with the mean Σ_k ḡ_k·F_k, F1 weighted by the gold share ḡ_k of each class.

    To macro-F1's influence function with weights ḡ_k come the weights' own, Σ_k F_k·(g_ik − ḡ_k).
    """
    import numpy as np

    shares = np.bincount(gold, minlength=_classes(predicted, gold)) / len(gold)
    f1 = _f1(predicted, gold)[0]
    values: np.ndarray = _linearised_f1(predicted, gold, shares) + f1[:, gold] - _total(f1 * shares)[:, None]
    return values


def linearised_balanced_accuracy(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return per-item values (S, n) with the mean (1/K) Σ_k R_k, the mean recall of the K classes with gold.

    R̄ + (1/K)·(hit_i − R_g)/ḡ_g with g the gold class of item i and ḡ_g its share.
    """
    import numpy as np

    recall = np.nan_to_num(recalls(predicted, gold))
    there = np.bincount(gold, minlength=recall.shape[1])
    K = np.count_nonzero(there)
    scale = np.divide(len(gold) / K, there, out=np.zeros(len(there)), where=there > 0)
    values: np.ndarray = (_total(recall) / K)[:, None] + (hits(predicted, gold) - recall[:, gold]) * scale[gold]
    return values


METRICS: dict[str, Metric] = {
    "macro_f1": linearised_macro_f1,
    "accuracy": hits,
    "balanced_accuracy": linearised_balanced_accuracy,
    "weighted_f1": linearised_weighted_f1,
}
METRIC_NAMES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
}
"""What a metric is called in a sentence."""
DEFAULT_METRICS = ("macro_f1", "accuracy")
"""The metrics that are computed unless others are asked for; the primary one always is."""


def add_metric(name: str, function: Metric, title: str = "") -> None:
    """Add a metric: `function` (predicted codes (S, n), gold codes (n,)) → values (S, n) whose mean is the metric.

    Codes are integers from 0; a predicted code above all gold codes is a label that gold lacks. Larger must mean
    better, and the values must not depend on which code a class has. `title` is what sentences call it.
    """
    METRICS[name] = function
    METRIC_NAMES[name] = title or name.replace("_", " ")


def read_metric(name: str) -> Metric:
    """Return the metric of that name; `module:function` is imported and added under this very name.

    Raises `ConfigError` for an unknown name, or a module or function that is not there.
    """
    if name not in METRICS and ":" in name:
        add_metric(name, _imported(name), name.partition(":")[2].replace("_", " "))
    if name not in METRICS:
        raise ConfigError(
            f"unknown metric {name!r}; choose one of {sorted(METRICS)} or name your own as 'module:function'."
            f"{nearest(name, METRICS)}"
        )
    return METRICS[name]


def choose_metrics(metric: str, metrics: Sequence[str] | None = None) -> list[str]:
    """Return the metrics to compute, sorted: the primary one and those asked for. Raises `ConfigError` as above."""
    chosen = sorted({metric, *(DEFAULT_METRICS if metrics is None else metrics)})
    for name in chosen:
        read_metric(name)
    return chosen


def _imported(name: str) -> Metric:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # noqa: BLE001 - a module of the user's may raise anything
        raise ConfigError(
            f"metric {name!r} cannot be imported ({_said(error)}); give 'module:function' of a module on the Python path"
        ) from None
    if not callable(found):
        raise ConfigError(f"metric {name!r} is no function but {type(found).__name__}; name a function")
    return found  # type: ignore[no-any-return]


def _said(error: Exception) -> str:
    """An error of the user's code on one line: its type and message."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")


def per_item(predicted: np.ndarray, gold: np.ndarray, metric: str) -> np.ndarray:
    """Return the per-item values (S, n) of a metric from label codes 0 … C−1; the mean over items is the metric.

    Raises `ConfigError` for an unknown metric, or one of the user's own that raises or whose values do not fit.
    """
    import numpy as np

    function = read_metric(metric)
    if function in _BUILTIN:
        return function(predicted, gold)
    try:
        values = np.asarray(function(predicted, gold), dtype=float)
    except ConsensoError:
        raise
    except Exception as error:
        raise ConfigError(
            f"metric {metric!r} failed with {_said(error)}; it is called with predicted codes (S, n) and gold codes "
            "(n,), and returns values (S, n)"
        ) from error
    if values.shape != predicted.shape or not np.isfinite(values).all():
        raise ConfigError(
            f"metric {metric!r} must give one finite value per seed and item, shape {predicted.shape}; "
            f"found shape {values.shape}, {int(np.count_nonzero(~np.isfinite(values)))} value(s) not finite"
        )
    return values


_BUILTIN = tuple(METRICS.values())


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


def _linearised_f1(predicted: np.ndarray, gold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ_k w_k·F_k plus its jackknife influence per item, the weights taken as fixed: (S, n).

    With c_k items predicted or gold (both: counted twice), F_k loses 2·(1 − F_k)/(c_k − 2) with an item that is both and
    gains F_k/(c_k − 1) with one that is either. A class whose only item is both stays as it is: without it, F_k is unknown.
    """
    import numpy as np

    f1, either = _f1(predicted, gold)
    n, count = len(gold), np.rint(either * len(gold))
    used = (weights > 0) & np.ones_like(count, dtype=bool)
    hit = np.divide(2 * (n - 1) * weights * (1 - f1), count - 2, out=np.zeros_like(f1), where=used & (count > 2))
    loss = np.divide((n - 1) * weights * f1, count - 1, out=np.zeros_like(f1), where=used & (count > 1))
    right = f1 * count / 2
    mean = _total(f1 * weights) - _total(hit * right - loss * (count - 2 * right)) / n
    values: np.ndarray = np.where(
        predicted == gold, hit[:, gold], -loss[:, gold] - np.take_along_axis(loss, predicted, axis=1)
    )
    values += mean[:, None]
    return values


def _f1(predicted: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_k (0 for classes without gold) and p̄_k + ḡ_k, each (S, C)."""
    import numpy as np

    n, classes = len(gold), _classes(predicted, gold)
    right = _count(np.where(predicted == gold, gold, classes), classes + 1)[:, :classes] / n
    either = (_count(predicted, classes) + np.bincount(gold, minlength=classes)) / n
    return np.divide(2 * right, either, out=np.zeros_like(right), where=_present(gold, classes)), either


def _total(values: np.ndarray) -> np.ndarray:
    """Sums over classes (S, C) → (S,) that do not depend on the order of the classes."""
    import numpy as np

    found: np.ndarray = np.sort(values, axis=1).sum(axis=1)
    return found


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
