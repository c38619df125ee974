"""The few numbers that the report computes itself; everything else it reads from tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consenso.intervals import wilson as share_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


INVALID = ("unparsable", "invalid_label", "refused", "truncated", "failed")
"""Statuses of an answer that should have been a label; an abstention is allowed."""


def asked(votes: pd.DataFrame) -> pd.DataFrame:
    """Return the votes that were asked for: an annotator is not put to a text that is settled before its turn."""
    return votes[votes["status"].ne("settled")]


def confusion(gold: pd.Series, given: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Return counts, rows gold and columns given in the order of `names`, one more column where `given` is null."""
    import numpy as np

    place = {name: k for k, name in enumerate(names)}
    rows = gold.map(place)
    columns = given.reindex(gold.index).map(place).fillna(len(names))
    table = np.zeros((len(names), len(names) + 1), dtype="int64")
    kept = rows.notna().to_numpy()
    np.add.at(table, (rows[kept].to_numpy(dtype="int64"), columns[kept].to_numpy(dtype="int64")), 1)
    return table


def accuracy(table: np.ndarray, *, decided: bool = False) -> float:
    """Return the share of texts with the right label; one without a label is wrong, or left out with `decided`."""
    total = table[:, :-1].sum() if decided else table.sum()
    return float(table[:, :-1].trace() / total) if total else math.nan


def macro_f1(table: np.ndarray) -> float:
    """Return the mean F1 over the classes with gold; a text without a label is a miss of its class."""
    import numpy as np

    hits, given, gold = table[:, :-1].diagonal(), table[:, :-1].sum(axis=0), table.sum(axis=1)
    present = gold > 0
    if not present.any():
        return math.nan
    return float(np.mean(2 * hits[present] / (given + gold)[present]))


def macro_precision_recall(table: np.ndarray) -> tuple[float, float]:
    """Return the means of precision and recall over the classes with gold; a class that is never given has precision 0."""
    import numpy as np

    hits, given, gold = table[:, :-1].diagonal(), table[:, :-1].sum(axis=0), table.sum(axis=1)
    present = gold > 0
    if not present.any():
        return math.nan, math.nan
    return float(np.mean(hits[present] / np.maximum(given[present], 1))), float(np.mean(hits[present] / gold[present]))


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share; NaN of nothing."""
    return share_interval(right, n) if n else (math.nan, math.nan)


def vote_counts(votes: pd.DataFrame) -> pd.DataFrame:
    """Return valid votes per text_id and label with who gave them: text_id, label, n, who; commonest first."""
    valid = votes[votes["label"].notna()].sort_values(["text_id", "label", "annotator", "repetition"])
    groups = valid.groupby(["text_id", "label"], sort=True)["annotator"]
    found = groups.agg(n="size", who=lambda names: ", ".join(_who(list(names)))).reset_index()
    return found.sort_values(["text_id", "n", "label"], ascending=[True, False, True])


def _who(names: list[str]) -> list[str]:
    return [name if (k := names.count(name)) == 1 else f"{name} ×{k}" for name in dict.fromkeys(names)]
