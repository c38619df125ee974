"""What is known about the worth of an arm's labels, and how a number made of n* becomes a row of VALUE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from consenso.compare.curves import Curve

Row = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """One student, one arm: n* with its interval, and the human labels that the arm needs all the same."""

    arm: str
    """The arm whose labels are valued."""
    metric: str
    """By which score."""
    curve: Curve
    """The learning curve of human labels, drawn together with the arm."""
    star: tuple[float, float, float]
    """n* and its 95 % interval; 0: fewer than were tried; inf: more than were tried."""
    used: int
    """Human labels that the arm uses, those of the audit among them."""

    @property
    def least(self) -> int:
        """The fewest human labels that were tried."""
        return int(self.curve.n[0])

    @property
    def most(self) -> int:
        """The most human labels that were tried."""
        return int(self.curve.n[-1])

    @property
    def is_below(self) -> bool:
        """Whether n* is below the curve."""
        return self.star[0] == 0

    @property
    def is_beyond(self) -> bool:
        """Whether n* is beyond the curve."""
        return self.star[0] == math.inf

    def row(self, quantity: str, unit: str, sentence: str, rising: Callable[[float], float]) -> Row:
        """Make a row of a quantity that rises with n*: where n* leaves the curve, the curve's end is the bound."""
        star, low, high = self.star
        return {
            "quantity": quantity, "unit": unit, "beyond": self.is_beyond, "sentence": sentence,
            "value": None if self.is_below else rising(min(star, self.most)),
            "low": rising(min(low, self.most)),
            "high": None if high == math.inf else rising(max(high, self.least)),
        }  # fmt: skip


def plain_row(
    quantity: str,
    value: float | None,
    unit: str,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
) -> Row:
    """Make a row of a quantity that does not follow from n*."""
    return {"quantity": quantity, "value": value, "low": low, "high": high, "unit": unit, "sentence": sentence}


def finite(value: float) -> float | None:
    """Return the number, None for one that is not finite."""
    return value if math.isfinite(value) else None
