"""The answer to a question in one metric: the difference, its interval, and what each arm scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.folds import FOLDS_FOR_ONE_SEED, nadeau_bengio, ratio_of_folds
from consenso.compare.metrics import per_item
from consenso.compare.paired import TwoWay, exact_mean, two_way, unknown_result
from consenso.compare.questions import Question

if TYPE_CHECKING:
    import numpy as np

Values = dict[tuple[str, tuple[int, ...]], Any]
"""(metric, rows of the runs) → per-item values and their mean, kept because an arm stands in several contrasts."""


@dataclass(frozen=True)
class Measured:
    """The answer to a question in one metric, before its verdict."""

    question: Question
    """What was asked."""
    metric: str
    """In which metric."""
    result: TwoWay
    """The difference and its interval."""
    arm_mean: float = math.nan
    """The arm's metric, mean over seeds (and folds)."""
    control_mean: float = math.nan
    """The control's."""
    seeds_better: float = math.nan
    """Share of the trainings in which the arm was better; equal ones count half."""


def measure(question: Question, metric: str, alpha: float, kept: Values) -> Measured:
    """Return the two-way interval over seeds and items, or the one over folds where test texts differ between folds."""
    pair = question.pair
    if not pair.seeds or not len(pair.gold):
        return Measured(question, metric, unknown_result(len(pair.seeds), len(pair.gold)))
    if parts := pair.parts():
        return _measure_folds(question, metric, alpha, parts)
    B, A = values_of(question, metric, kept)
    D = B - A
    seeds = exact_mean(D, axis=1)
    rows = exact_mean(D, axis=0)[None] if pair.same_in_all_seeds else D  # copies of a seed are no replication
    B_mean, A_mean = (
        _kept_mean(metric, side, values, pair.places is None, kept) for side, values in zip(pair.rows, (B, A))
    )
    return Measured(question, metric, two_way(rows, alpha), B_mean, A_mean, _better(seeds))


def values_of(question: Question, metric: str, kept: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the per-item values (S, n) of arm and control; those over all test texts are kept for other contrasts."""
    pair, found = question.pair, []
    for codes, rows in zip((pair.arm, pair.control), pair.rows):
        if pair.places is not None:
            found.append(per_item(codes, pair.gold, metric))
            continue
        if (metric, rows) not in kept:
            kept[metric, rows] = per_item(codes, pair.gold, metric)
        found.append(kept[metric, rows])
    return found[0], found[1]


def _measure_folds(question: Question, metric: str, alpha: float, parts: dict[int, np.ndarray]) -> Measured:
    """Per fold the mean over its seeds; the metric is that of the fold's own test texts."""
    import numpy as np

    pair = question.pair
    means, runs = [], []
    for part in parts.values():
        B, A = (per_item(codes[:, part], pair.gold[part], metric) for codes in (pair.arm, pair.control))
        D = B - A
        means.append((float(exact_mean(D)), _mean(B), _mean(A)))
        runs.append(exact_mean(D, axis=1))
    d, B_means, A_means = np.array(means).T
    S = 1 if pair.same_in_all_seeds else len(pair.seeds)
    ratio = ratio_of_folds({fold: len(part) for fold, part in parts.items()}, question.train_sizes)
    result = nadeau_bengio(d, ratio, S=S, n=len(pair.gold), alpha=alpha)
    if S == 1 and len(d) < FOLDS_FOR_ONE_SEED:
        result = unknown_result(S, len(pair.gold), result.difference)
    return Measured(question, metric, result, _mean(B_means), _mean(A_means), _better(np.concatenate(runs)))


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
