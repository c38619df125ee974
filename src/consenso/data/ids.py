"""The ids that a source brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_OTHERWISE = 'or set data.columns.text_id = ""'


def need_ids(mapped: pd.DataFrame, column: str) -> None:
    """Raise `DataError` for texts without an id."""
    if (missing := mapped["text_id"].isna()).any():
        first = int(mapped["row"][missing].iloc[0]) + 1
        raise DataError(
            f"{int(missing.sum())} text(s) without an id in {column!r} (data row {first}); fill them, {_OTHERWISE}"
        )


def own_ids(mapped: pd.DataFrame, column: str) -> pd.Series:
    """The user's ids: text stays text, whole numbers are integers; null or repeated ones raise `DataError`."""
    need_ids(mapped, column)
    ids = mapped["text_id"].map(plain_id)
    words = ids.map(str)
    if (repeated := words.duplicated(keep=False)).any():
        example = min(words[repeated])
        raise DataError(
            f"duplicate id: {words[repeated].nunique()} id(s) of {column!r} stand more than once, for example "
            f"{example!r} ({int((words == example).sum())} rows); make them distinct, {_OTHERWISE}"
        )
    if all(isinstance(value, int) for value in ids):
        return ids.astype("int64")
    return words.astype(object)


def plain_id(value: Any, text: bool = False) -> Any:
    """Return an id as an integer or, where it is none or `text` is asked for, as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if hasattr(value, "item"):
        value = value.item()
    return str(value) if text or isinstance(value, bool) or not isinstance(value, int) else value
