"""What one arm gains over another, for the tables that ask what something is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from consenso.compare.contrasts import FLOORS, Contrast
from consenso.compare.metrics import METRIC_NAMES, per_item
from consenso.compare.paired import TwoWay, two_way
from consenso.compare.runs import Runs, pair_arms
from consenso.compare.verdict import signed


@dataclass(frozen=True)
class Gain:
    """Metric of an arm and of its control on common seeds and items, and the difference with its interval."""

    mean: float
    """Metric of the arm."""
    control: float
    """Metric of the control."""
    result: TwoWay
    """The difference, as a share."""

    def in_words(self, metric: str) -> str:
        """Return `macro-F1 by +1.2 pp (95 % interval −0.3 to +2.7 pp; 10 seeds, 2,000 test texts)`."""
        found = self.result
        seeds = "1 seed" if found.S == 1 else f"{found.S} seeds"
        size = f"{seeds}, {found.n:,} test texts"
        interval = f"95 % interval {signed(found.low)} to {signed(found.high)} pp"
        if math.isnan(found.low):
            interval = "no interval"
        return f"{METRIC_NAMES.get(metric, metric)} by {signed(found.difference)} pp ({interval}; {size})"


def gain(runs: Runs, board: dict[str, dict[Any, int]], arm: str, control: str, metric: str) -> Gain | None:
    """Return what `arm` gains over `control`, None where they share no seed or no test text."""
    pair = pair_arms(runs, board, Contrast(arm, control))
    if not pair.seeds or not len(pair.gold):
        return None
    B, A = per_item(pair.arm, pair.gold, metric), per_item(pair.control, pair.gold, metric)
    D = B - A
    result = two_way(D.mean(axis=0) if pair.same_in_all_seeds else D)  # copies of a seed are no replication
    return Gain(float(B.mean()), float(A.mean()), result)


def floor_gain(runs: Runs, board: dict[str, dict[Any, int]], arm: str, metric: str) -> Gain | None:
    """Return what `arm` gains over the better floor; None without a floor or without `arm`."""
    found = [gain(runs, board, arm, floor, metric) for floor in FLOORS if arm in board and floor in board]
    return max((one for one in found if one), key=lambda one: one.control, default=None)
