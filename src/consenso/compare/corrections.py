"""corrections_value: what k human corrections add to the consensus, and whether it matters which texts are corrected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from consenso.compare.accounts import Row, finite, plain_row
from consenso.compare.folds import train_rows_of_folds
from consenso.compare.gains import Gain, gain
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.rows import arms_in, as_table
from consenso.compare.runs import Runs, read_runs
from consenso.labels import LabelSchema
from consenso.tables import VALUE

if TYPE_CHECKING:
    import pandas as pd


def corrections_value(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    arm: str = "consensus",
    metric: str = "macro_f1",
    schema: LabelSchema | None = None,
    trainings: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return VALUE rows of the arms `<arm>+k` (problematic texts first) and `<arm>+k:random`, per student and k.

    `corrections k` and `corrections k random`: gain over `arm`; `corrections k first − random`: what choosing the
    problematic texts adds. Values are shares of 1 with the 95 % interval of `compare_arms` (`trainings`: TRAININGS,
    for the folds' training texts). Without such arms the table is empty. Raises `DataError` for a wrong table.
    """
    corrected = re.compile(rf"{re.escape(arm)}\+(\d+)(:random)?")
    found = {str(name): match for name in arms_in(predictions) if (match := corrected.fullmatch(str(name)))}
    if not found:
        return as_table([], VALUE)
    runs = read_runs(predictions[predictions["arm"].isin([arm, *found])], gold, schema)
    sizes = sorted({int(match[1]) for match in found.values()})
    rows = [
        {"student": student, **row}
        for student in runs.students() for k in sizes for row in _rows(runs, student, (arm, k), metric, trainings)
    ]  # fmt: skip
    return as_table(rows, VALUE)


def _rows(
    runs: Runs, student: str, corrected: tuple[str, int], metric: str, trainings: pd.DataFrame | None
) -> Iterator[Row]:
    board, (arm, k) = runs.arms(student), corrected
    first, at_random = f"{arm}+{k}", f"{arm}+{k}:random"
    asked = (
        (f"corrections {k}", first, arm, f"Correcting {k:,} labels, problematic texts first, changes"),
        (f"corrections {k} random", at_random, arm, f"Correcting the labels of {k:,} random texts changes"),
        (f"corrections {k} first − random", first, at_random,
         f"Choosing the problematic texts for {k:,} corrections, instead of random ones, changes"),
    )  # fmt: skip
    for quantity, name, control, does in asked:
        if name not in board or control not in board:
            continue
        sizes = train_rows_of_folds(trainings, student, [name, control])
        if (found := gain(runs, board, name, control, metric, train_sizes=sizes)) is not None:
            yield _row(quantity, f"{does} {found.in_words(metric)}", found, metric)


def _row(quantity: str, said: str, found: Gain, metric: str) -> Row:
    result = found.result
    low, high = finite(result.low), finite(result.high)
    return plain_row(quantity, result.difference, METRIC_NAMES.get(metric, metric), f"{said}.", low=low, high=high)
