"""What one arm gains over another, for the tables that ask what something is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consenso.compare.contrasts import FLOORS, Contrast
from consenso.compare.estimates import estimate
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.paired import TwoWay
from consenso.compare.runs import Runs, pair_arms
from consenso.compare.verdict import Replication, counted, signed


@dataclass(frozen=True)
class Gain:
    """Metric of an arm and of its control on common seeds and items, and the difference with its interval."""

    mean: float
    """Metric of the arm."""
    control: float
    """Metric of the control."""
    result: TwoWay
    """The difference, as a share."""
    replication: Replication = "seed"
    """What the interval is over."""

    def in_words(self, metric: str) -> str:
        """Return `macro-F1 by +1.2 pp (95 % interval −0.3 to +2.7 pp; 10 seeds, 2,000 test texts)`."""
        found = self.result
        size = f"{counted(found.S, self.replication, found.k)}, {found.n:,} test texts"
        interval = f"95 % interval {signed(found.low)} to {signed(found.high)} pp"
        if math.isnan(found.low):
            interval = "no interval"
        return f"{METRIC_NAMES.get(metric, metric)} by {signed(found.difference)} pp ({interval}; {size})"


def gain(
    runs: Runs,
    board: dict[str, dict[Any, int]],
    arm: str,
    control: str,
    metric: str,
    *,
    train_sizes: Mapping[int, float] | None = None,
) -> Gain | None:
    """Return what `arm` gains over `control`, None where they share no seed or no test text.

    The interval is that of the comparison; `train_sizes`: fold → training texts, where known.
    """
    pair = pair_arms(runs, board, Contrast(arm, control))
    if not pair.seeds or not len(pair.gold):
        return None
    found = estimate(pair, metric, train_sizes=train_sizes)
    return Gain(found.arm_mean, found.control_mean, found.result, found.replication)


def floor_gain(runs: Runs, board: dict[str, dict[Any, int]], arm: str, metric: str) -> Gain | None:
    """Return what `arm` gains over the better floor; None without a floor or without `arm`."""
    found = [gain(runs, board, arm, floor, metric) for floor in FLOORS if arm in board and floor in board]
    return max((one for one in found if one), key=lambda one: one.control, default=None)
