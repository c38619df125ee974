"""The shapes that vote files come in → one frame of raw votes: text_id, annotator, repetition, value, confidence, …"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.annotate.settings import VoteColumns, VoteImport
from consenso.annotate.values import ValueReader, is_blank, word_of, words_of
from consenso.errors import DataError, nearest
from consenso.text import text_hash

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "text_id": ("text_id", "id"),
    "annotator": ("annotator", "llm", "model", "worker"),
    "repetition": ("repetition", "rep"),
    "label": ("label", "annotation", "vote"),
    "confidence": ("confidence", "conf"),
}
"""The conventional names of each column, the first that a file has wins."""

CARRIED = ("reply", "status", "tokens_in", "tokens_out", "cost", "latency_s")
"""Columns of the votes table that a long file may bring under exactly these names."""

_NO_ANNOTATOR = frozenset(
    (
        *(
            "text_id",
            "id",
            "text",
            "sentence",
            "text_len",
            "split",
            "group",
            "fold",
            "copies",
            "kind",
            "repetition",
            "rep",
        ),
        *("gold", "gold_name", "ground_truth", "label", "label_name", "label_description"),
    )
)
"""Columns that a wide table may hold beside its annotators."""

_REPETITION = re.compile(r"(?P<annotator>.+)_rep(?P<repetition>\d+)")


@dataclass(frozen=True)
class VoteColumn:
    """One column of a wide table that holds votes."""

    annotator: str
    """Whose votes."""
    repetition: int
    """Which repetition."""
    column: str
    """The column's own name."""
    confidence: str | None = None
    """The column with its confidence."""
    seconds: str | None = None
    """The column with the seconds a vote took."""


def find_column(frame: pd.DataFrame, role: str, columns: VoteColumns, where: str) -> str | None:
    """Return the column that plays a role, or None; a column that was named and is absent raises `DataError`."""
    named: str | None = getattr(columns, role)
    if named is None:
        return next((name for name in NAMES[role] if name in frame.columns), None)
    if named not in frame.columns:
        hint = nearest(named, frame.columns) or f" Found {some(frame.columns)}."
        raise DataError(f"{where}: no column {named!r} (columns.{role}).{hint}")
    return named


def long_votes(frame: pd.DataFrame, settings: VoteImport, reader: ValueReader, where: str) -> pd.DataFrame:
    """Return the raw votes of a table with one row per vote."""
    import pandas as pd

    found = {role: find_column(frame, role, settings.columns, where) for role in NAMES}
    missing = [role for role in ("annotator", "label") if found[role] is None]
    if missing:
        raise DataError(
            f"{where}: a long table needs {' and '.join(missing)}; found columns {some(frame.columns)}. "
            f"Name them: columns = {{{', '.join(f'{role} = …' for role in missing)}}}"
        )
    if len(frame) and "status" not in frame.columns and is_blank(frame[found["label"]]).all():
        raise DataError(
            f"{where}: column {found['label']!r} is empty in all {len(frame):,} rows; name the column that holds the votes: "
            "columns = {label = …}"
        )
    annotator = frame[found["annotator"]]
    votes = pd.DataFrame(
        {
            "text_id": text_ids(frame, settings.columns, where),
            "annotator": words_of(annotator).mask(is_blank(annotator)),
            "repetition": _repetitions(frame, found["repetition"], where),
            "value": frame[found["label"]],
        },
        index=frame.index,
    )
    if (nobody := votes["annotator"].isna()).any():
        raise DataError(
            f"{where}: {int(nobody.sum())} row(s) without an annotator; fill {found['annotator']!r} or drop the rows"
        )
    if found["confidence"]:
        votes["confidence"] = frame[found["confidence"]]
    for name in CARRIED:
        if name in frame.columns and name not in found.values():
            votes[name] = frame[name]
    return votes


def wide_votes(frame: pd.DataFrame, settings: VoteImport, reader: ValueReader, where: str) -> pd.DataFrame:
    """Return the raw votes of a table with one column per annotator, or one per annotator and repetition."""
    cells = wide_columns(frame, settings)
    if settings.annotators:
        known = {cell.annotator for cell in cells}
        cells += [
            VoteColumn(name, 0, name) for name in settings.annotators if name in frame.columns and name not in known
        ]
    if not cells:
        raise DataError(f"{where}: no column of an annotator; found {some(frame.columns)}. Name them: annotators = […]")
    if not settings.annotators:
        _refuse_strange(frame, cells, reader, where)
    return stack(frame, cells, text_ids(frame, settings.columns, where))


def stack(frame: pd.DataFrame, cells: list[VoteColumn], ids: pd.Series) -> pd.DataFrame:
    """Return the votes of several columns below each other; the index tells the row of the file."""
    import pandas as pd

    parts = []
    for cell in cells:
        part = {"text_id": ids, "annotator": cell.annotator, "repetition": cell.repetition, "value": frame[cell.column]}
        for name, column in (("confidence", cell.confidence), ("latency_s", cell.seconds)):
            if column:
                part[name] = frame[column]
        parts.append(pd.DataFrame(part, index=frame.index))
    return pd.concat(parts)


def text_ids(frame: pd.DataFrame, columns: VoteColumns, where: str) -> pd.Series:
    """Return the texts' ids as they stand (whole floats as integers), or the hash of `text` where a file has no id."""
    import pandas as pd

    name = find_column(frame, "text_id", columns, where)
    if name is None:
        if "text" not in frame.columns:
            raise DataError(
                f"{where}: no column text_id; found {some(frame.columns)}. Name it: columns = {{text_id = …}}"
            )
        return frame["text"].map(lambda text: text_hash(str(text)), na_action="ignore")
    ids = frame[name]
    if (empty := int(is_blank(ids).sum())) > 0:
        raise DataError(f"{where}: {empty} row(s) without a text id; fill {name!r} or drop the rows")
    if pd.api.types.is_float_dtype(ids.dtype) and (ids % 1 == 0).all():
        return ids.astype("int64")
    return ids


def wide_columns(frame: pd.DataFrame, settings: VoteImport) -> list[VoteColumn]:
    """Return every column that may hold votes; where an annotator has `_rep<r>` columns, only these are its votes."""
    taken = {settings.columns.text_id, *settings.where}
    names = [name for name in frame.columns if name not in taken and _may_hold_votes(name)]
    companions = {f"{name}_conf" for name in names}
    names = [name for name in names if name not in companions]
    cells = []
    for name in names:
        match = _REPETITION.fullmatch(name)
        annotator, repetition = (match["annotator"], int(match["repetition"])) if match else (name, 0)
        confidence = f"{name}_conf" if f"{name}_conf" in frame.columns else None
        cells.append(VoteColumn(annotator, repetition, name, confidence))
    repeated = {cell.annotator for cell in cells if cell.annotator != cell.column}
    return [cell for cell in cells if cell.column not in repeated]


def _may_hold_votes(name: str) -> bool:
    # "Unnamed: 0" and "" are the index that pandas writes when it is not told otherwise.
    return name.casefold() not in _NO_ANNOTATOR and not name.startswith("Unnamed:") and bool(name)


def _refuse_strange(frame: pd.DataFrame, cells: list[VoteColumn], reader: ValueReader, where: str) -> None:
    """Refuse a column that holds no labels: to take a column of prices for an annotator would be a silent mistake."""
    good = [cell for cell in cells if reader.share_read(frame[cell.column]) >= 0.5]
    strange = [cell.column for cell in cells if cell not in good]
    if strange:
        example = next((value for value in frame[strange[0]] if word_of(value)), "")
        panel = list(dict.fromkeys(cell.annotator for cell in good))
        raise DataError(
            f"{where}: cannot tell which columns are annotators: no labels in {some(strange)} (such as {example!r}); "
            f"name the annotators, for example annotators = {panel[:12] or ['…']}"
        )


def _repetitions(frame: pd.DataFrame, name: str | None, where: str) -> pd.Series:
    import pandas as pd

    if name is None:
        return pd.Series(0, index=frame.index)
    numbers = pd.to_numeric(frame[name], errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0)
    if wrong.any():
        found = frame[name][wrong].iloc[0]
        raise DataError(
            f"{where}: {name!r} (repetition) must be whole numbers; found {found!r}, {int(wrong.sum())} row(s)"
        )
    return numbers.astype("int64")


def some(names: Iterable[object], most: int = 15) -> str:
    """Return the first names, and how many there are where that is not all."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
