"""Arm minus control in one metric: the difference, its interval and what each arm scored; one way for every table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from consenso.compare.folds import over_folds, ratio_of_folds
from consenso.compare.metrics import per_item
from consenso.compare.paired import TwoWay, exact_mean, two_way, unknown_result
from consenso.compare.runs import Pair, Seed, training_sets
from consenso.compare.verdict import Replication

if TYPE_CHECKING:
    import numpy as np

Values = dict[tuple[str, tuple[int, ...]], Any]
"""(metric, rows of the runs) → per-item values and their mean, kept because an arm stands in several contrasts."""


@dataclass(frozen=True)
class Estimate:
    """The difference of two arms in one metric."""

    result: TwoWay
    """The difference and its interval."""
    arm_mean: float = math.nan
    """The arm's metric, mean over seeds (and folds)."""
    control_mean: float = math.nan
    """The control's."""
    seeds_better: float = math.nan
    """Share of the replications in which the arm was better (with folds of their own texts, of the trainings); equal
    ones count half."""
    replication: Replication = "seed"
    """What the interval is over: seeds, folds with test texts of their own, or training sets (folds that share them)."""


def estimate(
    pair: Pair,
    metric: str,
    *,
    alpha: float = 0.05,
    train_sizes: Mapping[int, float] | None = None,
    kept: Values | None = None,
) -> Estimate:
    """Return the two-way interval over seeds and items, or the one over folds where each has test texts of its own.

    Where all folds test the same texts, the seeds of a fold share a training set: they are averaged, and the folds are
    the replication. `train_sizes`: fold → training texts, where known. `kept`: values of arms, used again.
    """
    if not pair.seeds or not len(pair.gold):
        return Estimate(unknown_result(pair.replications, len(pair.gold)), replication=_replication(pair))
    if parts := pair.parts():
        return _over_folds(pair, metric, alpha, train_sizes or {}, parts)
    B, A = values_of(pair, metric, {} if kept is None else kept)
    if training_sets(pair.seeds):
        B, A = (per_training_set(values, pair.seeds) for values in (B, A))
        means = _mean(B), _mean(A)
    else:
        stored = {} if kept is None else kept
        means_of = (
            _kept_mean(metric, rows, v, pair.places is None, stored) for rows, v in zip(pair.rows, (B, A), strict=True)
        )
        means = next(means_of), next(means_of)
    D = B - A
    rows = exact_mean(D, axis=0)[None] if pair.same_in_all_seeds else D  # copies of a seed are no replication
    return Estimate(two_way(rows, alpha), *means, _better(exact_mean(D, axis=1)), _replication(pair))


def _replication(pair: Pair) -> Replication:
    if pair.parts():
        return "fold"
    return "training set" if training_sets(pair.seeds) else "seed"


def values_of(pair: Pair, metric: str, kept: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the per-item values (S, n) of arm and control; those over all test texts are kept for other contrasts."""
    found = []
    for codes, rows in zip((pair.arm, pair.control), pair.rows):
        if pair.places is not None:
            found.append(per_item(codes, pair.gold, metric))
            continue
        if (metric, rows) not in kept:
            kept[metric, rows] = per_item(codes, pair.gold, metric)
        found.append(kept[metric, rows])
    return found[0], found[1]


def per_training_set(values: np.ndarray, seeds: Sequence[Seed]) -> np.ndarray:
    """Return values (S, n) averaged over the seeds of each fold, (folds, n), where seeds are (fold, seed); else as is."""
    import numpy as np

    sets = training_sets(seeds)
    return np.array([exact_mean(values[places], axis=0) for places in sets.values()]) if sets else values


def _over_folds(
    pair: Pair, metric: str, alpha: float, train_sizes: Mapping[int, float], parts: dict[int, np.ndarray]
) -> Estimate:
    """Per fold the mean over its seeds; the metric is that of the fold's own test texts."""
    import numpy as np

    means, runs, items = [], [], []
    for part in parts.values():
        B, A = (per_item(codes[:, part], pair.gold[part], metric) for codes in (pair.arm, pair.control))
        D = B - A
        means.append((float(exact_mean(D)), _mean(B), _mean(A)))
        runs.append(exact_mean(D, axis=1))
        items.append(exact_mean(D, axis=0))
    d, B_means, A_means = np.array(means).T
    S = 1 if pair.same_in_all_seeds else len(pair.seeds)
    ratio = ratio_of_folds({fold: len(part) for fold, part in parts.items()}, train_sizes)
    result = over_folds(d, ratio, S=S, n=len(pair.gold), alpha=alpha)
    if math.isnan(result.se):  # the texts' own error is still known
        result = replace(two_way(np.concatenate(items), alpha), difference=result.difference)
    return Estimate(result, _mean(B_means), _mean(A_means), _better(np.concatenate(runs)), "fold")


def _kept_mean(metric: str, rows: tuple[int, ...], values: np.ndarray, whole: bool, kept: Values) -> float:
    name = (f"mean of {metric}", rows)
    if not whole:
        return _mean(values)
    if name not in kept:
        kept[name] = _mean(values)
    return float(kept[name])


def _mean(values: Any) -> float:
    return float(exact_mean(values))


def _better(differences: np.ndarray) -> float:
    import numpy as np

    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))
