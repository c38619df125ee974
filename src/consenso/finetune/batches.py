"""Batches of texts of similar length, in an order that the data seed alone fixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

JITTER = 0.2


def training_batches(lengths: np.ndarray, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `steps` arrays of row positions; each pass holds every row once.

    Rows are sorted by their length times a random factor in 1 ± .2, cut into batches and the batches shuffled: little
    padding, other batches in every pass, and the short last batch is not always the one with the longest texts.
    Equal lengths and equal seed give equal batches, whatever the labels.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    n = len(lengths)
    sizes = np.array([batch_size] * (n // batch_size) + ([n % batch_size] if n % batch_size else []))
    taken = 0
    while taken < steps:
        order = np.argsort(lengths * rng.uniform(1 - JITTER, 1 + JITTER, n), kind="stable")
        batches = np.split(order, np.cumsum(rng.permutation(sizes))[:-1])
        for i in rng.permutation(len(batches))[: steps - taken]:
            yield batches[i]
        taken += len(batches)


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Return the steps after which dev is evaluated: evenly spaced, the last step always among them."""
    return sorted({-(-steps * i // evaluations) for i in range(1, evaluations + 1)})
