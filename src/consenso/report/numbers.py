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


def votes_per_text(votes: pd.DataFrame) -> float | None:
    """Return the mean number of annotators with a valid vote, over the texts with one; None without valid votes."""
    valid = votes.loc[votes["label"].notna(), ["text_id", "annotator"]].drop_duplicates()
    return len(valid) / valid["text_id"].nunique() if len(valid) else None


def outvoted(votes: pd.DataFrame, labels: pd.DataFrame, *, pooled: bool = False) -> int:
    """Return for how many texts another label than that of `labels` has more votes.

    An annotator's repetitions share one vote; with `pooled` each is a vote.
    """
    valid = votes.loc[votes["label"].notna(), ["text_id", "annotator", "label"]]
    weight = 1.0 if pooled else 1 / valid.groupby(["text_id", "annotator"])["label"].transform("size")
    sums = valid.assign(weight=weight).groupby(["text_id", "label"])["weight"].sum()
    most = sums.groupby(level="text_id").max()
    chosen = labels.loc[labels["label"].notna(), ["text_id", "label"]].set_index(["text_id", "label"]).index
    own = sums.reindex(chosen, fill_value=0.0)
    return int((own.to_numpy() < most.reindex(own.index.get_level_values("text_id")).to_numpy() - 1e-9).sum())


def landis_koch(kappa: float) -> str:
    """Return the word of Landis and Koch (1977, Biometrics 33) for a kappa; '' where it is missing."""
    if math.isnan(kappa):
        return ""
    bounds = {"slight": 0.2, "fair": 0.4, "moderate": 0.6, "substantial": 0.8}
    return "poor" if kappa < 0 else next((w for w, bound in bounds.items() if kappa <= bound), "almost perfect")
