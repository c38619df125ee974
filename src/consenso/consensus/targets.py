"""threshold_for: the lowest threshold on a score above which the labels reach a target accuracy, with confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

STEPS = 50
"""Thresholds tested at most."""


@dataclass(frozen=True)
class Target:
    """A threshold and what is known about the labels with a value of at least that."""

    threshold: float | None
    """Keep labels with value ≥ threshold; None: no threshold reaches the target."""
    target: float
    """The accuracy wanted of the labels kept."""
    confidence: float
    """With this probability (over samples of gold) the accuracy above a threshold so found is at least the target."""
    n: int
    """Gold texts, those without a value included."""
    n_kept: int
    """Gold texts with value ≥ threshold; 0 without a threshold."""
    accuracy_kept: float
    """Their accuracy; null (NaN) without a threshold. Optimistic: the threshold was chosen on them."""
    low: float
    """Clopper–Pearson lower bound of it; in spite of the search only `target` is certain, not `low`."""
    coverage: float
    """n_kept / n."""
    reason: str = ""
    """Without a threshold: why."""

    @property
    def sentence(self) -> str:
        """One line for a report."""
        sure, wanted = f"{self.confidence:.0%} confidence", f"{self.target:.1%}"
        if self.threshold is None:
            return f"No threshold reaches an accuracy of {wanted} with {sure}: {self.reason}."
        return (
            f"Keep labels with a value of at least {self.threshold:.4g}: {self.n_kept:,} of {self.n:,} gold texts "
            f"({self.coverage:.1%}), {self.accuracy_kept:.1%} of them right; with {sure} at least {wanted} of such "
            "labels are."
        )


def threshold_for(values: Any, right: Any, target: float, confidence: float = 0.95) -> Target:
    """Choose on gold the lowest threshold such that labels with value ≥ threshold have accuracy ≥ `target`.

    `values`: the score, posterior or margin of each gold text (array or series; null: no label, never kept). `right`:
    whether its label is that of gold (bool; an undecided text is False). Both in the same order.

    Thresholds are tested from the strictest down; each passes if the exact binomial lower bound (Clopper–Pearson, one-
    sided, at `confidence`) of the accuracy of the texts it keeps reaches the target, and the first that fails ends the
    search. Such a fixed sequence needs no correction for its many tests: the chance that a threshold is returned above
    which the true accuracy is below the target is at most 1 − confidence, if the gold texts are a random sample of
    those the threshold is for and neither thresholds nor votes were tuned on them.

    Order and start depend on values and sizes only, never on `right`. The strictest threshold tested keeps so many
    texts that the bound reaches the target even with a third of the tolerated errors (76 texts for .90 and 153 for .95,
    at 95 % confidence): started earlier, one wrong label would end the search at once. With fewer gold texts than that
    only the threshold that keeps all is tested. At most 50 thresholds are tested, with about equally many texts from
    one to the next; they are values that occur, so equal values stay together.

    Returns a `Target`; its threshold is None where nothing passes. Raises `ConfigError` for a target or confidence
    outside (0, 1), `DataError` for unequal lengths, no text, or a null in `right`.

    Source: Angelopoulos, Bates, Candès, Jordan and Lei (2021, Learn then Test, arXiv 2110.01052, the
    part on fixed-sequence testing); Clopper and Pearson (1934).
    """
    import numpy as np

    if not 0 < target < 1:
        raise ConfigError(f"target must lie between 0 and 1 (an accuracy); found {target}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, such as 0.95; found {confidence}")
    value, correct = _arrays(values, right)
    n = len(value)
    known = ~np.isnan(value)
    value, correct = value[known], correct[known]
    order = np.argsort(-value, kind="stable")
    value, correct = value[order], np.cumsum(correct[order])
    ends = np.flatnonzero(np.r_[value[1:] != value[:-1], True]) + 1 if len(value) else np.empty(0, dtype=np.int64)
    least = texts_needed(target, confidence)
    if not len(value) or len(value) < least:
        reason = f"it takes at least {least} gold texts with a value, all right; found {len(value)}"
        return Target(None, target, confidence, n, 0, math.nan, math.nan, 0.0, reason)
    found, reason = None, ""
    for kept in _sequence(ends, target, confidence):
        low = lower_bound(int(correct[kept - 1]), int(kept), confidence)
        if low < target:
            share = correct[kept - 1] / kept
            reason = f"the strictest threshold tested, {value[kept - 1]:.4g}, keeps {kept} gold texts, "
            reason += f"{share:.1%} of them right (lower bound {low:.1%})"
            break
        found = (float(value[kept - 1]), int(kept), float(correct[kept - 1] / kept), low)
    if found is None:
        return Target(None, target, confidence, n, 0, math.nan, math.nan, 0.0, reason)
    threshold, kept, accuracy, low = found
    return Target(threshold, target, confidence, n, kept, accuracy, low, kept / n)


def lower_bound(right: int, n: int, confidence: float) -> float:
    """Return the one-sided Clopper–Pearson lower bound of an accuracy: the 1 − confidence quantile of Beta(x, n−x+1)."""
    from scipy.special import betaincinv

    return float(betaincinv(right, n - right + 1, 1 - confidence)) if right > 0 else 0.0


def texts_needed(target: float, confidence: float, errors: float = 0.0) -> int:
    """Return how many texts it takes for the bound to reach the target if a share `errors` (rounded up) is wrong.

    Without errors it is the smallest number, with errors one near it.
    """
    n = max(1, math.ceil(math.log(1 - confidence) / math.log(target) - 1e-9))
    while lower_bound(n - math.ceil(n * errors - 1e-9), n, confidence) < target:
        n += max(1, n // 50)
    return n


def _sequence(ends: np.ndarray, target: float, confidence: float) -> np.ndarray:
    """Return how many texts each threshold keeps, the strictest first; `ends` are the possible numbers."""
    import numpy as np

    total = int(ends[-1])
    start = min(texts_needed(target, confidence, (1 - target) / 3), total)
    wanted = np.linspace(start, total, STEPS)
    chosen: np.ndarray = np.unique(ends[np.searchsorted(ends, wanted - 1e-9)])
    return chosen


def _arrays(values: Any, right: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return values (float, null where missing) and right (bool), one per gold text."""
    import numpy as np
    import pandas as pd

    value, correct = pd.Series(values), pd.Series(right)
    if len(value) != len(correct):
        raise DataError(f"values and right must be equally long; found {len(value)} and {len(correct)}")
    if isinstance(values, pd.Series) and isinstance(right, pd.Series) and not value.index.equals(correct.index):
        raise DataError("values and right have different indexes; align them by text_id first")
    if not len(value):
        raise DataError("threshold: no gold text is given; pass the score of each, and whether its label is right")
    if correct.isna().any():
        raise DataError(f"right: {int(correct.isna().sum())} null value(s); leave texts without gold out")
    try:
        number = pd.to_numeric(value).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"values must be numbers; found {value.dropna().iloc[0]!r}") from error
    if np.isinf(number).any():
        raise DataError("values must be finite numbers; found an infinite one")
    return number, correct.to_numpy(dtype=bool)
