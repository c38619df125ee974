"""How the folds of the predictions share out the test texts."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from consenso.errors import DataError
from consenso.fold_tests import uneven_test_texts

if TYPE_CHECKING:
    import numpy as np


def texts_of_folds(fold: np.ndarray, run: np.ndarray, column: np.ndarray, n: int) -> tuple[np.ndarray | None, bool]:
    """Return the fold of each of n test texts, None where folds do not part them, and whether folds share their texts.

    `fold`: (trainings,); `run`, `column`: training and text of each prediction. Raises `DataError` where the test texts
    of two folds overlap in part: neither seeds × texts nor folds would be the replication. A fold that merely lacks some
    of the others' texts is left to the pairing and its guard.
    """
    import numpy as np

    names, number = np.unique(fold, return_inverse=True)
    if len(names) < 2:
        return None, False
    there = np.zeros((len(names), n), dtype=bool)
    there[number[run], column] = True
    used = there.any(axis=1)
    names, there = names[used], there[used]
    if len(names) < 2:
        return None, False
    if not (there.sum(axis=0) > 1).any():
        return names[there.argmax(axis=0)], False
    tests = {int(name): set(np.flatnonzero(mine).tolist()) for name, mine in zip(names, there)}
    nested = all(one <= other or other <= one for one, other in combinations(tests.values(), 2))
    if not nested and (found := uneven_test_texts(tests)):
        raise DataError(
            f"predictions: {found}; folds must all test the same texts, or each its own; compare them one at a time"
        )
    return None, True
