"""cost_frontier: which LLMs, and how many, are worth their price for the student."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.compare.costs import money, spent
from consenso.compare.folds import train_rows_of_folds
from consenso.compare.gains import gain
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.rows import arms_in, as_table
from consenso.compare.runs import read_runs
from consenso.labels import LabelSchema
from consenso.tables import FRONTIER

if TYPE_CHECKING:
    import pandas as pd

JOINED = " + "
"""Stands between the annotators of a panel."""


def cost_frontier(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    votes: pd.DataFrame,
    annotators_of: Mapping[str, Sequence[str]],
    *,
    control: str = "gold-aligned",
    metric: str = "macro_f1",
    schema: LabelSchema | None = None,
    folds: pd.DataFrame | None = None,
    trainings: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the FRONTIER table: cost per text and score of every arm of `annotators_of`, per student.

    `annotators_of`: arm → its annotators, such as `single:a`, `panel:3`, `consensus`; arms that were not trained are
    left out. `cost`: mean over texts (with `folds`: FOLDS, train and dev texts) of the summed costs of these
    annotators' VOTES; null where one is unknown. `difference`: to `control`, with the 95 % interval of `compare_arms`
    (`trainings`: TRAININGS, for the folds' training texts); null without that arm. `is_on_frontier`: no arm of the
    student is as cheap and as good, and cheaper or better; False where the cost is unknown. Raises `DataError` for a
    wrong table.
    """
    known = [name for name in arms_in(predictions) if name in annotators_of]
    if not known:
        return as_table([], FRONTIER)
    runs = read_runs(predictions[predictions["arm"].isin([*known, control])], gold, schema)
    costs = {name: spent(votes, folds=folds, annotators=annotators_of[name]).per_text for name in known}
    rows: list[dict[str, Any]] = []
    for student in runs.students():
        board, mine = runs.arms(student), []
        for name in sorted(set(known) & set(board)):
            against = control if control in board else name
            sizes = train_rows_of_folds(trainings, student, [name, against])
            if (found := gain(runs, board, name, against, metric, train_sizes=sizes)) is None:
                continue
            differs = against == control
            result = found.result
            mine.append({
                "student": student, "arm": name, "annotators": JOINED.join(annotators_of[name]), "cost": costs[name],
                "mean": found.mean, "difference": result.difference if differs else None,
                "low": result.low if differs else None, "high": result.high if differs else None,
            })  # fmt: skip
        rows += [{**row, "is_on_frontier": _is_on_frontier(row, mine)} for row in mine]
    return as_table(rows, FRONTIER)


def _is_on_frontier(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    if row["cost"] is None:
        return False
    mine = row["cost"], -row["mean"]
    others = [(other["cost"], -other["mean"]) for other in rows if other["cost"] is not None]
    return not any(cost <= mine[0] and mean <= mine[1] and (cost, mean) != mine for cost, mean in others)


def frontier_sentence(frontier: pd.DataFrame, *, metric: str = "macro_f1", currency: str = "USD") -> str:
    """Say of one student's FRONTIER rows which choices of LLMs are worth their price, and which annotators never are."""
    unknown = sorted(frontier.loc[frontier["cost"].isna(), "arm"])
    note = f" The cost of {', '.join(unknown)} is not known." if unknown else ""
    best = frontier[frontier["is_on_frontier"]].sort_values("cost")
    if not len(best):
        return f"Nothing can be said about prices.{note}"
    choices = "; ".join(
        f"{row.annotators} ({money(row.cost, currency)} per text, {METRIC_NAMES.get(metric, metric)} {row.mean:.3f}"
        f"{_interval(row)})"
        for row in best.itertuples()
    )
    used = set(JOINED.join(best["annotators"]).split(JOINED))
    priced = frontier.loc[frontier["cost"].notna(), "annotators"]
    idle = sorted(set(JOINED.join(priced).split(JOINED)) - used)
    never = f" In none of these: {', '.join(idle)}." if idle else ""
    return f"No choice is both cheaper and better, in mean, than these: {choices}.{never}{note}"


def _interval(row: Any) -> str:
    if math.isnan(row.low):
        return ""
    low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (row.low, row.high))
    return f", {low} to {high} pp against the control"
