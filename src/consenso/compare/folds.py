"""k-fold: the interval over folds, whose trainings share most of their texts (Nadeau & Bengio 2003)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from consenso.compare.paired import TwoWay, exact_mean, t_interval, unknown_result

if TYPE_CHECKING:
    import pandas as pd

FOLDS_FOR_ONE_SEED = 5
"""With at least so many folds one seed each is enough: every fold is a training of its own."""


def nadeau_bengio(differences: Sequence[float], ratio: float, *, S: int = 1, n: int = 0, alpha: float = 0.05) -> TwoWay:
    """Return the mean of k fold differences with its corrected interval: SE = s·√(1/k + ratio), df = k − 1.

    `ratio` is n_test/n_train, 1/(k − 1) for plain k-fold: at k = 10 the interval is 1.45 times as wide as the naive
    one. Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52. One fold has no interval.
    """
    import numpy as np

    d = np.asarray(differences, dtype=float)
    k, mean = len(d), float(exact_mean(d))
    if k < 2:
        return unknown_result(S, n, mean)
    variance = float(exact_mean((d - mean) ** 2)) * k / (k - 1)
    found = t_interval(mean, math.sqrt(variance * (1 / k + ratio)), k - 1, alpha)
    unknown = dict.fromkeys(("ms_seed", "ms_item", "ms_error"), math.nan)
    return TwoWay(**{name: float(values[0]) for name, values in found.items()}, **unknown, S=S, n=n, k=k)


def over_folds(differences: Sequence[float], ratio: float, *, S: int, n: int, alpha: float = 0.05) -> TwoWay:
    """Return the interval over folds of S seeds each; unknown where one seed stands in fewer than five folds."""
    found = nadeau_bengio(differences, ratio, S=S, n=n, alpha=alpha)
    few = S == 1 and len(differences) < FOLDS_FOR_ONE_SEED
    return unknown_result(S, n, found.difference) if few else found


def train_rows_of_folds(trainings: pd.DataFrame | None, student: str, arms: Sequence[str]) -> dict[int, float]:
    """Return fold → training rows: of the arm that had fewest, which makes the interval the widest."""
    if trainings is None:
        return {}
    chosen = trainings["arm"].isin(arms) & (trainings["student"] == student) & (trainings["attempt"] == "as_run")
    sizes = trainings[chosen & (trainings["train_rows"] > 0)].groupby("fold")["train_rows"].min()
    return {int(str(fold)): float(size) for fold, size in sizes.items()}


def ratio_of_folds(tested: Mapping[int, int], train_sizes: Mapping[int, float]) -> float:
    """Return the mean of n_test/n_train over folds (fold → test texts); 1/(k − 1) where a training size is not known."""
    if len(tested) < 2:
        return math.nan
    if not all(train_sizes.get(fold, 0) > 0 for fold in tested):
        return 1 / (len(tested) - 1)
    return math.fsum(count / train_sizes[fold] for fold, count in tested.items()) / len(tested)
