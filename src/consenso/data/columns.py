"""The columns of a source → text_id, text, gold, split, group, and the source's own others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from consenso.data.catalog import CatalogEntry
from consenso.data.settings import DataSettings
from consenso.data.splitting import read_split
from consenso.errors import ConfigError, DataError, nearest
from consenso.tables import TEXTS

if TYPE_CHECKING:
    import pandas as pd

_CONVENTIONS = {
    "text_id": ("text_id", "id"),
    "text": ("text",),
    "gold": ("gold", "label"),
    "split": ("split",),
    "group": ("group",),
    "fold": (),
}
FOLD = "\0fold"
"""The fold numbers while a source is read; no source has a column of this name."""


def map_columns(
    frame: pd.DataFrame, settings: DataSettings, entry: CatalogEntry | None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the columns by meaning (None where absent) with the source's others; and meaning → the source's column.

    Fold numbers, where a column of them was named, are in the column `FOLD`.

    A column that was asked for and is not there raises `DataError`, as does a source without texts.
    """
    import pandas as pd

    found: dict[str, str] = {}
    have = [str(name) for name in frame.columns]
    wanted = {"text": entry.text, "gold": entry.gold} if entry else {}
    wanted |= {meaning: name for meaning, name in settings.columns.model_dump().items() if name is not None}
    for meaning, conventional in _CONVENTIONS.items():
        name = wanted.get(meaning)
        if name == "" and meaning != "text":
            continue
        if name and name not in have:
            raise DataError(
                f"missing column {name!r} (for {meaning}); found {have}.{nearest(name, have)}"
                f" Set data.columns.{meaning}"
            )
        name = name or next((name for name in conventional if name in have), None)
        if name:
            found[meaning] = name
    if "text" not in found:
        raise DataError(f"missing column 'text'; found {have}.{nearest('text', have)} Set data.columns.text")
    if len(set(found.values())) < len(found):
        raise ConfigError(f"data.columns: one column stands for two things: {found}")
    columns: dict[str, Any] = {
        meaning: _nullable(frame[found[meaning]]) if meaning in found else None
        for meaning in _CONVENTIONS
        if meaning != "fold"
    }
    if "fold" in found:
        columns[FOLD] = _nullable(frame[found["fold"]])
    for name in have:
        if name not in found.values():
            columns[f"source_{name}" if name in TEXTS.columns or name == "row" else name] = _plain(frame[name])
    return pd.DataFrame(columns, index=frame.index), found


def _nullable(values: pd.Series) -> pd.Series:
    """Object values with None for every kind of null and for blanks."""
    values = values.astype(object)
    blank = values.map(lambda value: isinstance(value, str) and value == "").astype(bool)
    return values.where(values.notna() & ~blank, None)


def _plain(values: pd.Series) -> pd.Series:
    """A column of number words as numbers, unless that would lose something (leading zeros, more than 15 digits)."""
    import pandas as pd

    texts = values.dropna()
    if not len(texts) or values.dtype != object or not all(isinstance(value, str) for value in texts):
        return values
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?", value) for value in texts):
        return pd.to_numeric(values)
    return values


def choose_splits(mapped: pd.DataFrame, settings: DataSettings, record: dict[str, Any]) -> pd.DataFrame:
    """Keep the rows of the splits that were asked for; one alone is the whole data, to be split anew."""
    wanted = [settings.split] if settings.split else list(settings.combine_splits)
    if not wanted:
        return mapped
    splits = mapped["split"]
    available = [str(name) for name in splits.dropna().unique()] or list(record.get("splits", {}))
    if not available:
        raise DataError(
            f"split {wanted[0]!r} was asked for, but the source has no splits; drop split and combine_splits"
        )
    if missing := [name for name in wanted if name not in available]:
        raise DataError(f"no split {missing[0]!r}; available: {', '.join(available)}.{nearest(missing[0], available)}")
    record["splits_read"] = wanted
    if splits.notna().any():
        mapped = mapped[splits.map(str).isin(wanted)].reset_index(drop=True)
        record["dropped"]["other split"] = record["rows_read"] - len(mapped)
    return mapped.assign(split=None) if len(wanted) == 1 else mapped


def name_splits(values: pd.Series, facts: dict[str, Any], notes: list[str]) -> pd.Series:
    """Return train, dev, test, pool or None; a `datasets` split of another name is no given split (and a note)."""
    import pandas as pd

    meaning: dict[Any, str | None] = {}
    for value in values.dropna().unique():
        try:
            meaning[value] = read_split(value)
        except DataError:
            if value not in facts.get("splits", {}):
                raise
            meaning[value] = None
            notes.append(f"split {value!r} is neither train, dev nor test; its texts are split anew")
    return pd.Series([meaning.get(value) for value in values], index=values.index, dtype=object)
