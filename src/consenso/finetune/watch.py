"""The collapse watch: find a training whose encoder has broken, by the end of its first epoch.

An encoder that breaks gives every text the same representation: what the classification head reads no longer differs
between texts. A run that goes well widens those differences, and one that is slow to begin keeps them: so they are held
against those before the first step. Loss, probabilities and gradients tell the two apart late or never
(measured: docs/training.md, docs/decisions/0019-the-watch-reads-the-representation.md).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from consenso import encoders

if TYPE_CHECKING:
    import numpy as np

LOST = 0.001
"""A run is lost while its texts differ by less than this share of what they did before the first step."""
LOOKS = 2
"""The first look that finds it lost flags a run, the second in a row ends it: some runs recover as the learning rate falls."""


class HeadInput:
    """What the classification head is given: sums over texts, and from them how much the texts differ."""

    def __init__(self) -> None:
        self.texts = 0
        self._total: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, vectors: np.ndarray) -> None:
        """Take in one vector per text, (texts, width); of several vectors per text, (texts, tokens, width), the mean."""
        vectors = vectors.reshape(len(vectors), -1, vectors.shape[-1]).mean(axis=1, dtype="float64")
        self.texts += len(vectors)
        self._total = self._total + vectors.sum(axis=0)
        self._squares = self._squares + (vectors**2).sum(axis=0)

    def difference(self) -> float:
        """Return the variance between texts as a share of the mean square: 0, all are the same, to 1.

        NaN where nothing was given, or numbers that are not finite.
        """
        import numpy as np

        if self.texts == 0:
            return math.nan
        size = float(np.sum(self._squares)) / self.texts
        between = size - float(np.sum((self._total / self.texts) ** 2))
        return max(between, 0.0) / size if size else math.nan


@contextlib.contextmanager
def head_input(model: Any) -> Iterator[HeadInput]:
    """Collect, inside the block, what the last linear layer of a model with one output per class is given.

    A model whose head has no such layer collects nothing.
    """
    torch, seen = encoders.import_torch(), HeadInput()
    heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels]

    def take(_module: Any, given: tuple[Any, ...]) -> None:
        seen.add(given[0].detach().float().cpu().numpy())

    hooks = [head.register_forward_pre_hook(take) for head in heads[-1:]]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class CollapseWatch:
    """Holds how much texts differ in a training against how much they did before it.

    `start`: their difference (`HeadInput.difference`) before the first step.
    """

    def __init__(self, start: float) -> None:
        self.start = start

    def see(self, difference: float) -> str | None:
        """Take in the difference at the end of the first epoch or later; return why the run is doomed, or None."""
        if not difference < LOST * self.start:
            return None
        return (
            f"the encoder gives every text nearly the same representation (variance {difference:.1e} of its mean square; "
            f"{self.start:.1e} before training)"
        )
