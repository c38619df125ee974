"""Rows of numbers and sentences as a table, and the arms of a table of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.errors import DataError
from consenso.tables import Table, check

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_KINDS = {"text": "object", "integer": "int64", "number": "float64", "flag": "bool"}


def as_table(rows: Sequence[dict[str, Any]], table: Table) -> pd.DataFrame:
    """Return the rows as a frame that passes `check`, in the order of the key; a frame without rows has its types too.

    None in a column of numbers becomes NaN. Absent optional columns are filled with their default.
    """
    import pandas as pd

    filled = [{name: row.get(name, column.default) for name, column in table.columns.items()} for row in rows]
    frame = pd.DataFrame(filled, columns=list(table.columns))
    frame = frame.astype({name: _KINDS[column.kind] for name, column in table.columns.items() if column.kind in _KINDS})
    return check(frame, table)


def arms_in(predictions: pd.DataFrame) -> list[Any]:
    """Return the distinct arms of PREDICTIONS; raises `DataError` where the column is missing."""
    if "arm" not in predictions:
        raise DataError(f"predictions: missing column(s) ['arm']; found {list(predictions.columns)}")
    return list(predictions["arm"].unique())
