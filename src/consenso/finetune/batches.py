"""Batches of texts in an order that the data seed alone fixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

JITTER = 0.1
"""Lengths are sorted after a random change by up to this share (docs/decisions/0020)."""


def training_batches(
    lengths: np.ndarray, batch_size: int, steps: int, seed: int, batching: str = "sorted"
) -> Iterator[np.ndarray]:
    """Yield `steps` arrays of row positions; each pass holds every row once, in as many batches whatever the batching.

    `sorted`: rows are sorted by their length times a random factor in 1 ± .1, cut into batches and the batches shuffled:
    little padding, other batches in every pass, and the short last batch is not always the one with the longest texts.
    `tokens`: the same, cut so that each batch holds about as many tokens. `random`: rows in random order.
    Equal lengths and equal seed give equal batches, whatever the labels.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    n = len(lengths)
    sizes = np.array([batch_size] * (n // batch_size) + ([n % batch_size] if n % batch_size else []))
    taken = 0
    while taken < steps:
        if batching == "random":
            batches = np.split(rng.permutation(n), np.cumsum(sizes)[:-1])
        else:
            order = np.argsort(lengths * rng.uniform(1 - JITTER, 1 + JITTER, n), kind="stable")
            cuts = np.cumsum(rng.permutation(sizes))[:-1]
            batches = np.split(order, cuts if batching == "sorted" else _even_cuts(lengths[order], len(sizes)))
        for i in rng.permutation(len(batches))[: steps - taken]:
            yield batches[i]
        taken += len(batches)


def _even_cuts(lengths: np.ndarray, parts: int) -> np.ndarray:
    """Where to cut rows so that each part holds about as many tokens, and one row at least."""
    import numpy as np

    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts, side="left") + 1
    places = np.arange(1, parts)
    cuts = np.maximum.accumulate(cuts - places) + places  # no part is empty: cuts rise by one at least
    even: np.ndarray = np.minimum(cuts, len(lengths) - parts + places)
    return even


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Return the steps after which dev is evaluated: evenly spaced, the last step always among them."""
    return sorted({-(-steps * i // evaluations) for i in range(1, evaluations + 1)})
