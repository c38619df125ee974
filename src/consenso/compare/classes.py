"""compare_classes: the difference in recall of every class, Holm-adjusted over the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import Contrast
from consenso.compare.measuring import Measured, measure
from consenso.compare.paired import holm
from consenso.compare.questions import Contrasts, Question, ask, runs_of
from consenso.compare.rows import as_table
from consenso.compare.runs import Runs
from consenso.labels import LabelSchema
from consenso.tables import CLASS_DIFFERENCES

if TYPE_CHECKING:
    import pandas as pd


def compare_classes(
    predictions: pd.DataFrame | Runs,
    gold: pd.Series | pd.DataFrame | None = None,
    *,
    contrasts: Contrasts = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    schema: LabelSchema | None = None,
    trainings: pd.DataFrame | None = None,
    dataset: str = "data",
    alpha: float = 0.05,
    train_sizes: Mapping[int, float] | None = None,
) -> pd.DataFrame:
    """Return CLASS_DIFFERENCES: per contrast and gold label, the recall of arm and control and their difference.

    A recall is the accuracy on the test texts with that gold label, so the interval is the one of `compare_arms` on
    these texts. `p_holm` adjusts over the classes of a contrast. Arguments and errors as in `compare_arms`.
    """
    runs = runs_of(predictions, gold, schema)
    asked = ask(runs, contrasts=contrasts, primary=primary, trainings=trainings, train_sizes=train_sizes)
    rows: list[dict[str, Any]] = []
    for question in asked:
        measured = [(label, measure(part, "accuracy", alpha, {})) for label, part in _classes(question, runs.names)]
        adjusted = holm([found.result.p for _, found in measured])
        rows += [_row(dataset, label, found, p) for (label, found), p in zip(measured, adjusted)]
    return as_table(rows, CLASS_DIFFERENCES)


def _classes(question: Question, names: tuple[str, ...]) -> Iterator[tuple[str, Question]]:
    """(label, the question on the test texts with that gold label)."""
    import numpy as np

    pair = question.pair
    for code in np.unique(pair.gold):
        places = np.flatnonzero(pair.gold == code)
        part = replace(
            pair, arm=pair.arm[:, places], control=pair.control[:, places], gold=pair.gold[places], places=places,
            folds=None if pair.folds is None else pair.folds[places],
        )  # fmt: skip
        yield names[code], replace(question, pair=part)


def _row(dataset: str, label: str, found: Measured, p_holm: float) -> dict[str, Any]:
    question, result = found.question, found.result
    return {
        "dataset": dataset, "student": question.student, "contrast": question.contrast.name, "label": label,
        "attempt": question.attempt, "arm_recall": found.estimate.arm_mean,
        "control_recall": found.estimate.control_mean,
        "difference": result.difference, "low": result.low, "high": result.high, "p": result.p, "p_holm": p_holm,
        "n": result.n, "S": result.S,
    }  # fmt: skip
