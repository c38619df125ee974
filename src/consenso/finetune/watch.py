"""The collapse watch: end a training that has lost what it had learned, and more, long before its last step.

Such a run stays at the entropy of its training shares, gives every text the same probabilities where it told them apart
before, and its gradients fade. A healthy run may show some of these signs for a while, not all of them; a slow one, whose
probabilities never differed much, least of all (measured: docs/training.md).
"""

from __future__ import annotations

from collections import deque

FIRST_STEP = 150
"""The watch decides from this step on; in a run of fewer than 300 steps from its half, never before a whole window has
followed the warm-up."""
WINDOW = 50
"""All signs are means over this many steps, so over 800 texts at the default batch size."""
FEWEST_STEPS = 100
"""Shorter runs are not watched: too few steps follow the first window, and there is little to save."""
LOSS_BELOW_ENTROPY, LARGEST_SPREAD, LARGEST_GRADIENT = 0.005, 0.02, 0.75
FALLEN = 0.5
"""The spread has fallen below this share of the largest that it was over a window: this tells a run that broke from one
that is slow to begin."""


class CollapseWatch:
    """Reads three numbers after each step and says when a run is doomed.

    `entropy`: that of the training shares (with soft targets of the mean target), in nats; `steps`: the planned length
    of the run; `warm_up`: steps during which the learning rate rises.
    """

    def __init__(self, entropy: float, steps: int, warm_up: int = 0) -> None:
        self.first_step = max(min(FIRST_STEP, -(-steps // 2)), warm_up + WINDOW)
        self.last_step = steps - 1 if steps >= FEWEST_STEPS else 0
        self.step = 0
        self._entropy, self._largest = entropy, 0.0
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)

    def see(self, loss: float, spread: float, gradient: float) -> str | None:
        """Take in one step; return why the run is doomed, or None.

        `loss`: plain cross-entropy of the batch; `spread`: standard deviation over the batch of the probabilities, of
        the class where it is largest; `gradient`: norm before clipping.
        """
        self.step += 1
        self._seen.append((loss, spread, gradient))
        if self.step < WINDOW:
            return None
        loss, spread, gradient = (sum(sign) / WINDOW for sign in zip(*self._seen))
        self._largest = max(self._largest, spread)
        is_doomed = (
            self.first_step <= self.step <= self.last_step
            and loss >= self._entropy - LOSS_BELOW_ENTROPY
            and spread < min(LARGEST_SPREAD, FALLEN * self._largest)
            and gradient < LARGEST_GRADIENT
        )
        if not is_doomed:
            return None
        return (
            f"over {WINDOW} steps loss {loss:.3f} (entropy of the labels {self._entropy:.3f}), spread of the "
            f"probabilities {spread:.4f} (it was {self._largest:.4f}), gradient norm {gradient:.2f}"
        )
