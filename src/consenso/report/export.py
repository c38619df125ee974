"""Tables of a run folder as CSV files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, DataError, nearest
from consenso.report.blocks import absent
from consenso.store import RunFolder, write_atomically
from consenso.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet program would run as a formula."""


def export_tables(
    folder: RunFolder | str | Path,
    out: str | Path,
    names: Iterable[str] | None = None,
    *,
    spreadsheet_safe: bool = False,
) -> list[Path]:
    """Write tables as <out>/<name>.csv (UTF-8) and return the paths; without `names`, every table that was written.

    Lists are JSON, nulls are empty cells, whole numbers have no decimal point. `spreadsheet_safe` puts an apostrophe
    before texts that a spreadsheet would run as a formula; such a file no longer reads back as the same texts.
    Raises `ConfigError` for a table that does not exist and `DataError` for one that was not written yet.
    """
    place = open_folder(folder)
    chosen = list(TABLES) if names is None else list(names)
    for name in chosen:
        if name not in TABLES:
            hint = nearest(name, TABLES) or f" Tables: {', '.join(TABLES)}."
            raise ConfigError(f"no table {name!r}.{hint}")
    written = []
    for name in chosen:
        if names is None and not place.has(name):
            continue
        frame = _plain(place.read(name), name)
        written.append(write_csv(frame, Path(out) / f"{name}.csv", spreadsheet_safe=spreadsheet_safe))
    if not written:
        raise DataError(f"{place.path} holds no tables yet; `consenso run` makes them")
    return written


def open_folder(folder: RunFolder | str | Path) -> RunFolder:
    """Return a run folder that exists."""
    place = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    if not place.path.is_dir():
        raise DataError(
            f"{place.path}: no such run folder; `consenso run` makes one, under runs/ unless told otherwise"
        )
    return place


def write_csv(frame: pd.DataFrame, path: Path, *, spreadsheet_safe: bool = False) -> Path:
    """Write a frame without its index; missing values are empty cells."""
    texts = [name for name in frame.columns if _holds_text(frame[name])]
    if spreadsheet_safe:
        frame = frame.assign(**{name: frame[name].map(_disarmed, na_action="ignore") for name in texts})
    # A lone carriage return ends a line for most readers unless it is quoted, and Python before 3.13 does not quote it.
    returns = any(frame[name].dropna().map(lambda value: "\r" in str(value)).any() for name in texts)
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    write_atomically(
        path, lambda to: frame.to_csv(to, index=False, encoding="utf-8", lineterminator="\n", quoting=quoting)
    )
    return path


def _plain(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Lists as JSON, whole numbers whole although a column has nulls."""
    kinds = {column: spec.kind for column, spec in TABLES[name].columns.items()}
    changed: dict[str, Any] = {}
    for column in frame.columns:
        if kinds.get(column) == "list":
            changed[column] = frame[column].map(_json, na_action="ignore")
        elif kinds.get(column) == "integer":
            changed[column] = frame[column].astype("Int64")
    return frame.assign(**changed)


def _json(values: Any) -> str:
    return json.dumps([None if absent(value) else float(value) for value in values])


def _holds_text(values: pd.Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_string_dtype(values.dtype) or pd.api.types.is_object_dtype(values.dtype))


def _disarmed(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
