"""The columns of a votes table as codes: each distinct value is one object, however many votes there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.consensus.voteparts import NEEDED, tables_of
from consenso.errors import DataError
from consenso.tables import VOTES, Table, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

WAITING = 1 << 27
"""Bytes of values that parts may bring before those of all parts so far are merged."""


@dataclass(frozen=True, eq=False)
class Coded:
    """One column."""

    codes: np.ndarray
    """Positions in `values`, one per row, in the smallest signed integers that hold them; −1 where the row is null."""
    values: pd.Index
    """The distinct values, sorted (mixed types: as text)."""

    def first(self, strange: np.ndarray) -> tuple[int, Any]:
        """Return row and value of the first row whose value is marked as strange."""
        import numpy as np

        row = int(np.append(strange, False)[self.codes].argmax())
        return row, self.values[self.codes[row]]


def code_columns(votes: Any) -> dict[str, Coded]:
    """Return text_id, annotator, repetition, label and status of a frame or of `tables_of` as codes.

    Raises `DataError` like `check(votes, VOTES)`, but for repeated keys: see `repeated_votes`.
    """
    import pandas as pd

    framed = isinstance(votes, pd.DataFrame)
    columns = _of_frame(votes) if framed else _of_parts(votes)
    for name, column in columns.items():
        if mistake := _mistake(name, column):
            if framed:
                check(votes, VOTES)
            raise DataError(mistake)
    if framed:
        _check_others(votes)
    return columns


def repeated_votes(columns: dict[str, Coded], key: np.ndarray) -> DataError:
    """Return the error for votes whose keys are equal numbers in `key`."""
    import pandas as pd

    again = pd.Series(key).duplicated().to_numpy()
    row = int(again.argmax())
    example = {name: plain(columns[name].values[columns[name].codes[row]]) for name in VOTES.key}
    return DataError(
        f"votes: {int(again.sum())} repeated row(s), for example {example}; each {list(VOTES.key)} may stand once"
    )


def plain(value: Any) -> Any:
    """Return a value without numpy's wrapping, as a message shows it."""
    return value.item() if hasattr(value, "item") else value


def _mistake(name: str, column: Coded) -> str | None:
    import numpy as np
    import pandas as pd

    rule, values, codes = VOTES.columns[name], column.values, column.codes
    if not rule.nullable and len(codes) and codes.min() < 0:
        return f"votes: {int((codes < 0).sum())} empty value(s) in {name!r}; fill them or drop the rows"
    if rule.values and (strange := ~values.isin(rule.values)).any():
        return f"votes: {name!r} holds {column.first(strange)[1]!r}; allowed: {', '.join(rule.values)}"
    numeric = pd.api.types.is_numeric_dtype(values.dtype)
    if rule.kind == "text" and numeric and len(values):
        found = column.first(np.ones(len(values), dtype=bool))[1]
        return f"votes: {name!r} must hold text; found {values.dtype} ({found!r}); use .astype(str)"
    if rule.kind == "integer" and not numeric and len(values):
        strange = np.asarray(pd.isna(pd.to_numeric(pd.Series(values), errors="coerce")))
        if strange.any():
            return f"votes: {name!r} must hold numbers; found {column.first(strange)[1]!r}"
    return None


def sort_values(codes: np.ndarray, values: Any) -> Coded:
    """Sort distinct values (an Index, or an Arrow array of text); those that no row has, and NaN, are dropped."""
    import numpy as np
    import pyarrow as pa

    seen = np.zeros(len(values) + 1, dtype=bool)
    seen[codes] = True
    used = seen[:-1]
    if not isinstance(values, pa.Array):
        used = used & ~np.asarray(values.isna())
    order = _order(values)
    narrow = np.min_scalar_type(-len(values) - 1)  # signed: −1 is null
    if order is None and used.all():
        return Coded(codes.astype(narrow, copy=False), _as_index(values))
    order = np.flatnonzero(used) if order is None else order[used[order]]
    rank = np.full(len(values) + 1, -1, dtype=narrow)
    rank[order] = np.arange(len(order))
    return Coded(rank[codes], _as_index(values.take(order)))


def _order(values: Any) -> np.ndarray | None:
    """Return the order of the values, None if they are sorted."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.Array):  # bytes of UTF-8 sort like Python's strings
        if pc.all(pc.less_equal(values[:-1], values[1:])).as_py() is not False:
            return None
        return np.asarray(pc.array_sort_indices(values))
    try:
        return None if values.is_monotonic_increasing else np.asarray(values.argsort())
    except TypeError:
        return np.asarray(values.map(str).argsort())


def _as_index(values: Any) -> pd.Index:
    import pandas as pd
    import pyarrow as pa

    return pd.Index(values.to_pandas()) if isinstance(values, pa.Array) else values


# frames


def _of_frame(votes: pd.DataFrame) -> dict[str, Coded]:
    if any(column.required and name not in votes.columns for name, column in VOTES.columns.items()):
        check(votes, VOTES)
    return {
        name: code_series(votes[name]) if name in votes.columns else _constant(VOTES.columns[name].default, len(votes))
        for name in NEEDED
    }


def _check_others(votes: pd.DataFrame) -> None:
    """Check what consensus does not read; only columns of an unexpected type cost time."""
    import pandas as pd

    others = {
        name: column
        for name, column in VOTES.columns.items()
        if name not in NEEDED
        and name in votes.columns
        and (column.kind == "text") == pd.api.types.is_numeric_dtype(votes[name].dtype)
    }
    if others:
        rows = Table("votes", ("row",), {"row": VOTES.columns["repetition"], **others})
        check(votes[list(others)].assign(row=range(len(votes))), rows)


def code_series(values: pd.Series) -> Coded:
    """Code a column of a frame."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return sort_values(values.cat.codes.to_numpy(), values.cat.categories)
    text = _as_text(values)
    if text is None:
        codes, distinct = pd.factorize(values)
        return sort_values(codes, pd.Index(distinct))
    column = _sorted_column(_unified(_dictionaries(text), str(values.name)))
    return Coded(column.codes, column.values.astype(values.dtype))


def _as_text(values: pd.Series) -> pa.Array | pa.ChunkedArray | None:
    """Return a column that holds nothing but text and nulls as Arrow text."""
    import pandas as pd
    import pyarrow as pa

    if not (pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype)):
        return None
    try:
        text = pa.array(values, from_pandas=True)
    except (pa.ArrowException, UnicodeError):
        return None
    return text if pa.types.is_string(text.type) or pa.types.is_large_string(text.type) else None


def _constant(value: Any, rows: int) -> Coded:
    import numpy as np
    import pandas as pd

    return Coded(np.broadcast_to(np.int8(0), rows), pd.Index([value] if rows else [], dtype=type(value)))


# Arrow


def _of_parts(votes: Any) -> dict[str, Coded]:
    columns = {name: _Parts(name) for name in NEEDED}
    for table in tables_of(votes):
        for name, column in columns.items():
            column.add(table[name] if name in table.column_names else None, table.num_rows)
    return {name: column.coded() for name, column in columns.items()}


class _Parts:
    """The parts of a column, merged whenever their values take too much room."""

    def __init__(self, name: str) -> None:
        self.name, self.default = name, VOTES.columns[name].default
        self.chunks: list[pa.DictionaryArray] = []
        self.rows = self.size = 0
        self.limit, self.absent = WAITING, True

    def add(self, column: pa.ChunkedArray | None, rows: int) -> None:
        """Add the next part; None: it lacks the column, and the default stands in."""
        import pyarrow as pa

        self.rows += rows
        self.absent = self.absent and column is None
        for chunk in _dictionaries(pa.repeat(self.default, rows) if column is None else column):
            self.chunks.append(chunk)
            self.size += chunk.dictionary.nbytes
        if self.size > self.limit:
            self.chunks = [_unified(self.chunks, self.name)]
            self.size = self.chunks[0].dictionary.nbytes
            self.limit = max(WAITING, 2 * self.size)

    def coded(self) -> Coded:
        """Return the column; the parts are let go."""
        if self.absent:
            return _constant(self.default, self.rows)
        joined, self.chunks = _unified(self.chunks, self.name), []
        return _sorted_column(joined)


def _dictionaries(column: Any) -> list[pa.DictionaryArray]:
    """Return the chunks of an Arrow column as dictionaries of few types: large text, int64, or what the column has."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [_dictionary(chunk) for chunk in chunks if len(chunk)]


def _dictionary(chunk: pa.Array) -> pa.DictionaryArray:
    import pyarrow as pa

    if pa.types.is_dictionary(chunk.type) and (chunk.dictionary.null_count or len(chunk.dictionary) > len(chunk)):
        chunk = chunk.cast(chunk.type.value_type)  # else each part of a table would bring the values of all
    if pa.types.is_null(chunk.type):
        chunk = chunk.cast(pa.large_string())
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    codes, values = chunk.indices, chunk.dictionary
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        kind = pa.large_string()
    elif pa.types.is_integer(kind) and kind != pa.uint64():
        kind = pa.int64()
    if kind == values.type and codes.type == pa.int32():
        return chunk
    return pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), values.cast(kind))


def _unified(chunks: list[pa.DictionaryArray], name: str) -> pa.DictionaryArray:
    """Join the chunks; the values stand in the order of their first appearance."""
    import pyarrow as pa

    types = list(dict.fromkeys(chunk.dictionary.type for chunk in chunks if len(chunk.dictionary)))
    if len(types) > 1:
        raise DataError(f"votes: {name!r} is {types[0]} in one part and {types[1]} in another; store it as one type")
    empty = pa.array([], type=types[0] if types else pa.large_string())
    alike = [
        chunk if len(chunk.dictionary) else pa.DictionaryArray.from_arrays(chunk.indices, empty) for chunk in chunks
    ]
    if not alike:
        return pa.DictionaryArray.from_arrays(pa.array([], type=pa.int32()), empty)
    found = pa.chunked_array(alike).unify_dictionaries().chunks
    return pa.DictionaryArray.from_arrays(pa.concat_arrays([chunk.indices for chunk in found]), found[0].dictionary)


def _sorted_column(column: pa.DictionaryArray) -> Coded:
    import pandas as pd
    import pyarrow as pa

    indices = column.indices.fill_null(-1) if column.indices.null_count else column.indices
    values = column.dictionary
    text = pa.types.is_large_string(values.type)
    return sort_values(indices.to_numpy(zero_copy_only=False), values if text else pd.Index(values.to_pandas()))
