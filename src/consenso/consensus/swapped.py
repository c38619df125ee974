"""Labels that stand for each other: votes that meet gold far better once their labels are renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.labels import LabelSchema
from consenso.tables import GUARDS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SURE = 1e-6
"""Level of the tests: so rare by chance that the coding of the labels is the likelier cause."""
GAIN = 0.2
"""Gain in Cohen's kappa from which another reading of the labels is far better."""
GUARD = "labels swapped"
WHAT_TO_DO = "look how the votes are coded: labels = {…} of [[annotate.imports]], ids of [[data.labels]]"


@dataclass(frozen=True)
class Swap:
    """Labels that seem to stand for each other."""

    n: int
    """Texts (or votes) with a label and gold."""
    accuracy: float
    """Share that agrees with gold."""
    renamed: float
    """The share, were the labels read as `reading` says."""
    reading: Mapping[str, str]
    """Label → the label it seems to mean, for those that differ."""

    def __str__(self) -> str:
        read = " and ".join(f"{one!r} meant {other!r}" for one, other in self.reading.items())
        return f"agrees with gold on {self.accuracy:.1%} of {self.n:,} texts, and on {self.renamed:.1%} if {read}"


def find_swap(labels: pd.Series, gold: pd.Series, schema: LabelSchema) -> Swap | None:
    """Return how labels seem to be swapped, or None. Both sides by name, row by row; rows that lack one are left out.

    The one-to-one renaming that agrees best with gold is held against the labels as they are. They count as swapped where
    they agree less than chance (binomial, expected from both margins), or where the renaming gains `GAIN` of kappa and the
    rows that the two readings judge differently favour it (sign test); each at the level `SURE`.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import binomtest

    given, truth = schema.codes(labels), schema.codes(gold)
    both = (given >= 0) & (truth >= 0)
    table = np.zeros((len(schema), len(schema)), dtype=int)
    np.add.at(table, (truth[both], given[both]), 1)
    n, own = int(table.sum()), np.arange(len(schema))
    best = linear_sum_assignment(-table)[1] if n else own
    right, renamed = int(table[own, own].sum()), int(table[own, best].sum())
    if renamed <= right:
        return None
    moved = best != own
    for_it, against = int(table[own, best][moved].sum()), int(table[own, own][moved].sum())
    under_chance = binomtest(right, n, _chance(table, own), alternative="less").pvalue < SURE
    far_better = _kappa(table, best) - _kappa(table, own) >= GAIN
    if not under_chance and not (
        far_better and binomtest(for_it, for_it + against, alternative="greater").pvalue < SURE
    ):
        return None
    names = schema.names
    reading = {names[best[i]]: names[i] for i in own if moved[i] and table[i, best[i]]}
    return Swap(n, right / n, renamed / n, reading)


def _chance(table: np.ndarray, columns: np.ndarray) -> float:
    """The agreement that independent labels with these margins would have."""
    share = float((table.sum(axis=1) * table.sum(axis=0)[columns]).sum() / table.sum() ** 2)
    return min(share, 1.0)


def _kappa(table: np.ndarray, columns: np.ndarray) -> float:
    import numpy as np

    agreed, chance = table[np.arange(len(table)), columns].sum() / table.sum(), _chance(table, columns)
    return float((agreed - chance) / (1 - chance)) if chance < 1 else 0.0


def find_swaps(votes: pd.DataFrame, labels: pd.DataFrame, gold: pd.Series, schema: LabelSchema) -> dict[str, Swap]:
    """Return who (`consensus`, then annotators by name) seems to have labels swapped; `gold`: label by text id."""
    votes = votes[votes["text_id"].isin(gold.index)]
    sides = {"consensus": labels, **{str(name): mine for name, mine in votes.groupby("annotator", sort=True)}}
    found = {
        who: find_swap(rows["label"].reset_index(drop=True), rows["text_id"].map(gold).reset_index(drop=True), schema)
        for who, rows in sides.items()
    }
    return {who: swap for who, swap in found.items() if swap is not None}


def swap_sentence(swaps: Mapping[str, Swap]) -> str:
    """Return one line about swapped labels, '' where there are none."""
    if not swaps:
        return ""
    who, first = next(iter(swaps.items()))
    others = [name for name in swaps if name != who]
    also = f"; so it is with {', '.join(others[:5])}{', …' if len(others) > 5 else ''}" if others else ""
    return f"labels may be swapped: {who} {first}{also}; {WHAT_TO_DO}"


def check_swapped(votes: pd.DataFrame, labels: pd.DataFrame, gold: pd.Series, schema: LabelSchema) -> pd.DataFrame:
    """Return the GUARDS row "labels swapped": warned where labels meet gold far better once they are renamed."""
    import pandas as pd

    swaps = find_swaps(votes, labels, gold, schema)
    figures: dict[str, Any] = {
        who: {"n": s.n, "accuracy": s.accuracy, "renamed": s.renamed, "reading": dict(s.reading)}
        for who, s in swaps.items()
    }
    outcome, reason = "passed", "no other reading of the labels agrees far better with gold"
    if swaps:
        outcome, reason = "warned", swap_sentence(swaps)
    elif gold.empty:
        outcome, reason = "not_checked", "there is no gold"
    row = {
        "guard": GUARD, "scope": "all", "outcome": outcome, "invalidates": False, "reason": reason,
        "figures": json.dumps(figures, ensure_ascii=False),
    }  # fmt: skip
    return check(pd.DataFrame([row]), GUARDS)
