"""Money: reserved before a request leaves, settled when its answer comes, never beyond the budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Purse:
    """What may be spent, has been, and is reserved for requests under way (USD)."""

    budget: float | None
    """None: no limit."""
    spent: float = 0.0
    """By all answers of the log, and what requests without an answer may have cost."""
    reserved: float = 0.0
    """For requests under way: the most that they can cost, as far as can be told."""

    def reserve(self, cost: float, *, anyway: bool = False) -> bool:
        """Reserve the cost of a request; False where it does not fit any more. `anyway`: a question under way goes on."""
        if not anyway and self.budget is not None and self.spent + self.reserved + cost > self.budget + 1e-12:
            return False
        self.reserved += cost
        return True

    def settle(self, reserved: float, cost: float) -> None:
        """Turn a reservation into what it did cost."""
        left = self.reserved - reserved
        self.reserved = left if left > 1e-9 else 0.0  # many sums leave a rest behind that nobody would ever free
        self.spent += cost
