"""Which labels exist (stated, or read from the whole source, never from a sample), and what each gold value means."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError, nearest
from consenso.labels import LabelSchema
from consenso.readers import StatedLabels

if TYPE_CHECKING:
    import pandas as pd

_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_SEPARATORS = re.compile(r"[|;,]")


@dataclass(frozen=True)
class Gold:
    """Gold label names and the schema they belong to."""

    names: pd.Series
    """Label names, object dtype, None where there is no gold."""
    schema: LabelSchema | None
    """None: the source has no gold, and nothing states the labels."""
    labels_from: str
    """settings, catalog, the file's schema, read from the data, unknown."""


def read_gold(values: pd.Series, stated: StatedLabels | None, given: LabelSchema | None, given_by: str) -> Gold:
    """Return gold by name. `given` are the labels of the settings or the catalog, `stated` those of the file's schema.

    Raises `DataError` for an unknown label (with counts and the nearest label) and for cells that hold several labels.
    """
    _refuse_lists(values)
    cells = values.map(gold_text).astype(object)
    cells = cells.where(cells.notna(), None)
    own = _stated_schema(stated)
    if stated is not None and stated.coded:
        cells = _decode_positions(values, stated, keep_codes=own is None)
    if given is not None:
        return _read_given(cells, values, given, given_by)
    if own is not None:
        return Gold(_read(cells, own), own, "the file's schema")
    if cells.isna().all():
        return Gold(cells, None, "unknown")
    found = infer_schema(cells)
    return Gold(_read(cells, found), found, "read from the data")


def gold_text(value: Any) -> str | None:
    """Return a gold cell as text: 1.0 → '1', blanks and nulls → None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def infer_schema(cells: pd.Series) -> LabelSchema:
    """Return the distinct gold values as labels, numbers in numeric order; whole numbers keep themselves as ids."""
    names = sorted(set(cells.dropna()))
    if len(names) > 200 and len(names) > 0.5 * cells.notna().sum():
        raise DataError(
            f"gold: {len(names)} distinct values in {int(cells.notna().sum())} rows do not look like labels; "
            "choose another gold column, or name the labels"
        )
    _refuse_combinations(names)
    folded: dict[str, str] = {}
    for name in names:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise DataError(
                f"gold: {other!r} and {name!r} differ only in case; write them alike, or name both in [[data.labels]] if they "
                "are two labels"
            )
    if all(_WHOLE.fullmatch(name) for name in names):
        ids = sorted({int(_whole(name)) for name in names})
        return LabelSchema({i: str(i) for i in ids})
    if all(_NUMBER.fullmatch(name) for name in names):
        names = sorted(names, key=float)
    return LabelSchema.from_names(names, ids_given=False)


def _whole(name: str) -> str:
    match = _WHOLE.fullmatch(name)
    assert match
    return match[1]


def _stated_schema(stated: StatedLabels | None) -> LabelSchema | None:
    """The labels of a ClassLabel, Categorical or dictionary column; ids: positions, or whole-number categories."""
    if stated is None or len(stated.names) < 2:
        return None
    names = [gold_text(name) for name in stated.names]
    if None in names or len(set(names)) < len(names):
        return None
    texts = [str(name) for name in names]
    _refuse_combinations(texts)
    if not stated.coded and all(_WHOLE.fullmatch(name) for name in texts):
        return LabelSchema({int(name): name for name in texts})
    return LabelSchema.from_names(texts, ids_given=stated.coded)


def _decode_positions(values: pd.Series, stated: StatedLabels, keep_codes: bool) -> pd.Series:
    """ClassLabel positions → names; −1 is how `datasets` writes "no label"."""
    import pandas as pd

    names = [str(i) if keep_codes else str(gold_text(name)) for i, name in enumerate(stated.names)]

    def decode(value: Any) -> str | None:
        code = gold_text(value)
        if code is None or int(code) < 0:
            return None
        return names[int(code)] if int(code) < len(names) else code

    read = [decode(value) for value in values]
    return pd.Series(read, index=values.index, dtype=object)


def _read_given(cells: pd.Series, values: pd.Series, given: LabelSchema, given_by: str) -> Gold:
    """Read by name; where the file's own names are not those of the settings, its numbers decide.

    Numbers among gold give the labels their ids, also where the settings name none.
    """
    codes = values.map(gold_text).where(cells.notna(), None)
    read = cells if _all_known(cells, given) or not _all_known(codes, given) else codes
    names = _read(read, given)
    numbered = given.ids_given or any(given.read_by_id(value) for value in read.dropna().unique())
    return Gold(names, given.with_ids_given(numbered), given_by)


def _all_known(cells: pd.Series, schema: LabelSchema) -> bool:
    return bool((schema.read_column(cells).notna() | cells.isna()).all())


def _read(cells: pd.Series, schema: LabelSchema) -> pd.Series:
    names = schema.read_column(cells)
    if (unknown := names.isna() & cells.notna()).any():
        raise DataError(_unknown(Counter(cells[unknown]), schema))
    return names


def _unknown(counts: Counter[str], schema: LabelSchema) -> str:
    for value in counts:
        parts = [part.strip() for part in re.split(r"[|;,/+\t\n]", value.strip("[](){} ")) if part.strip()]
        if len(parts) > 1 and all(schema.read(part.strip("'\"")) for part in parts):
            return _several(value)
    found = ", ".join(f"{value!r} ({n} row{'s' if n > 1 else ''})" for value, n in counts.most_common(5))
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    hint = next((hint for value, _ in counts.most_common() if (hint := nearest(value, schema.names))), "")
    labels = ", ".join(schema.names[:25]) + (", …" if len(schema) > 25 else "")
    return f"gold: unknown label(s) {found}{more}; the labels are {labels}.{hint} Mend the data or the labels of [data]"


def _several(example: object) -> str:
    return (
        f"gold: {example!r} holds several labels; consenso does single-label classification, so keep one label per text"
    )


def _refuse_lists(values: pd.Series) -> None:
    for value in values:
        if isinstance(value, (list, tuple, set, dict)) or type(value).__name__ == "ndarray":
            shown = list(value)
            raise DataError(_several(shown))


def _refuse_combinations(names: list[str]) -> None:
    """Values such as 'a|b' beside 'a' and 'b', or 'a;b' beside 'a;c', are several labels in one cell."""
    split = {name: [part.strip() for part in _SEPARATORS.split(name)] for name in names if _SEPARATORS.search(name)}
    uses = Counter(part for parts in split.values() for part in set(parts))
    for name, parts in split.items():
        lists = name.startswith("[") and name.endswith("]")
        all_labels = all(part in names for part in parts)
        all_reused = "," not in name and all(uses[part] + (part in names) > 1 for part in parts)
        if len(parts) > 1 and (lists or all_labels or all_reused):
            raise DataError(_several(name))
