"""Cells of a label column as ids and names."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from consenso.labels import LabelSchema
from consenso.text import clean


def plain(value: Any) -> Any:
    """A cell as a whole number or as cleaned text; None for nulls and blanks."""
    import pandas as pd

    is_number = isinstance(value, numbers.Real)
    if is_number and float(value).is_integer():
        return int(value)
    word = "" if pd.api.types.is_scalar(value) and pd.isna(value) else clean(str(value))
    return int(word) if word.removeprefix("-").isdecimal() and str(int(word)) == word else word or None


def label_name(value: Any, schema: LabelSchema) -> str | None:
    """The label a value means; a number is an id, never a name that happens to look like one."""
    return schema.id2label.get(plain(value)) if isinstance(value, numbers.Real) else schema.read(plain(value))


def unknown_labels(values: Any, names: Sequence[str | None]) -> str:
    """Say how many values mean no label, and which; '' where all do."""
    strange = [str(value) for value, name in zip(values, names) if name is None]
    return f"{len(strange)} of {len(names)} labels ({', '.join(sorted(set(strange))[:5])})" if strange else ""
