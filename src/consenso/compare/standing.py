"""arm_standing: how one arm scores on the test texts, with the interval that a comparison has on these runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from consenso.compare.estimates import per_training_set
from consenso.compare.folds import over_folds, ratio_of_folds
from consenso.compare.metrics import per_item
from consenso.compare.paired import TwoWay, t_interval, two_way
from consenso.compare.runs import Runs, read_runs, without_copies
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def arm_standing(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    student: str,
    arm: str,
    metric: str = "macro_f1",
    schema: LabelSchema | None = None,
) -> dict[str, Any] | None:
    """Return value, low, high, S, n and k of one arm of one student on the test texts; None where it has no runs there.

    `predictions`: PREDICTIONS. The interval (95 %, cut at 0 and 1) is over S seeds and n texts, or over k folds with test
    texts of their own; None with one seed. Runs as they were; copies of a seed count once. Raises `ConfigError` for an
    unknown metric, `DataError` for a wrong table.
    """
    import numpy as np

    mine = predictions[(predictions["student"] == student) & (predictions["arm"] == arm)]
    mine = mine[(mine["attempt"] == "as_run") & (mine["part"] == "test")]
    if mine.empty:
        return None
    runs = read_runs(mine, gold, schema)
    board = runs.arms(student)[arm]
    seeds = sorted(board)
    kept = without_copies([runs.codes[[board[seed] for seed in seeds]]])
    codes, seeds = runs.codes[[board[seeds[place]] for place in kept]], [seeds[place] for place in kept]
    items: np.ndarray = np.asarray((codes >= 0).all(axis=0))
    if not items.any():
        return None
    if (parts := _parts(runs, items)) is not None:
        means = [float(per_item(codes[:, part], runs.gold[part], metric).mean()) for part in parts]
        ratio = ratio_of_folds(dict.fromkeys(range(len(means)), 1), {})
        return _facts(over_folds(means, ratio, S=len(codes), n=int(items.sum())))
    return _facts(two_way(per_training_set(per_item(codes[:, items], runs.gold[items], metric), seeds)))


def _facts(found: TwoWay) -> dict[str, Any]:
    low, high = (None if math.isnan(end) else min(max(end, 0.0), 1.0) for end in (found.low, found.high))
    return {"value": found.difference, "low": low, "high": high, "S": found.S, "n": found.n, "k": found.k}


def _parts(runs: Runs, items: np.ndarray) -> list[np.ndarray] | None:
    """The items of each fold, where the folds part the texts."""
    import numpy as np

    if runs.folds is None:
        return None
    parts = [np.flatnonzero(items & np.equal(runs.folds, fold)) for fold in np.unique(runs.folds[items])]
    return parts if len(parts) > 1 else None


def texts_standing(predicted: np.ndarray, gold: np.ndarray, metric: str = "macro_f1") -> dict[str, Any]:
    """Return value, low, high (95 %, over texts alone) and n of one classifier's codes (n,) against gold codes (n,).

    The interval is Student's t on per-item values (macro-F1: jackknife), cut at 0 and 1; with one text it is None. It
    says nothing of how another training would have come out.
    """
    import numpy as np

    values = per_item(np.asarray(predicted)[None], np.asarray(gold), metric)[0]
    n = len(values)
    found: dict[str, Any] = {"value": float(values.mean()), "low": None, "high": None, "n": n}
    if n > 1:
        ends = t_interval(values.mean(), values.std(ddof=1) / np.sqrt(n), n - 1)
        found |= {"low": max(0.0, float(ends["low"][0])), "high": min(1.0, float(ends["high"][0]))}
    return found
