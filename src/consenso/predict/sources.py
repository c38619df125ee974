"""A data file as chunks of rows: CSV, TSV, JSON lines and Parquet are streamed; .json lists and .xlsx are read whole."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from consenso.errors import DataError
from consenso.readers import data_suffix, find_separator, read_file, table_fault

Rows = dict[str, list[Any]]
"""Column → its values in some consecutive rows; None where missing."""
Quoting = Literal[0, 3]
"""csv.QUOTE_MINIMAL or csv.QUOTE_NONE."""
SCAN = 16_384
"""Rows that are looked at together before anything is classified."""


@dataclass(frozen=True)
class Source:
    """A data file that can be read again and again, some rows at a time."""

    path: Path
    columns: tuple[str, ...]
    read: Callable[[Sequence[str], int], Iterator[Rows]]
    """read(columns, size) yields those columns in chunks of `size` rows, the last one shorter."""
    types: dict[str, Any] = field(default_factory=dict)
    """Column → its Arrow type, where the file states types (Parquet)."""


def open_source(path: Path) -> Source:
    """Open a .csv, .tsv, .jsonl, .ndjson, .json, .parquet or .xlsx file, also with .gz, by its name.

    Raises `DataError` for an unknown kind of file, one that cannot be read, repeated column names and an empty file.
    """
    kind = data_suffix(path)
    if kind not in _OPENERS:
        raise DataError(
            f"{path}: unknown kind of file {kind or path.name!r}; known: {', '.join(_OPENERS)}, each also .gz"
        )
    with _named_faults(path):
        source = _OPENERS[kind](path)
    if repeated := sorted({name for name in source.columns if source.columns.count(name) > 1}):
        raise DataError(f"{path}: column(s) {repeated} stand more than once; rename them")
    if not source.columns:
        raise DataError(f"{path} is empty; it needs a header and at least one row")
    return source


def scan(source: Source, column: str, limit: int | None = None) -> int:
    """Return the number of rows, at most `limit`, having seen that all of them can be read and `column` holds texts.

    Raises `DataError` for the first row that is broken, a cell that is a list or an object, a column of numbers, and a
    file without rows.
    """
    _refuse_typed(source, column)
    rows, words, numbers = 0, 0, list[str]()
    with _named_faults(source.path), warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas only warns when it is about to drop the end of long rows
        for chunk in first_rows(source.read([column], SCAN), limit):
            for place, value in enumerate(chunk[column]):
                if isinstance(value, list | dict | tuple | bytes):
                    raise DataError(
                        f"{source.path}, data row {rows + place + 1}: {type(value).__name__} in {column!r}; it must hold texts"
                    )
                if not words and value is not None:
                    words += not _is_number(value)
                    numbers += [str(value)] if len(numbers) < 3 else []
            rows += len(chunk[column])
    if not rows:
        raise DataError(f"{source.path} has no rows; found the columns {list(source.columns)}")
    if numbers and not words:
        _refuse_numbers(source, column, ", ".join(numbers))
    return rows


def first_rows(chunks: Iterator[Rows], limit: int | None) -> Iterator[Rows]:
    """Yield chunks up to so many rows in all."""
    left = limit
    for chunk in chunks:
        size = len(next(iter(chunk.values())))
        if left is not None and size >= left:
            yield {name: values[:left] for name, values in chunk.items()}
            return
        yield chunk
        left = None if left is None else left - size


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value.strip() or "0")
        except ValueError:
            return False
    return True


def _refuse_numbers(source: Source, column: str, found: str) -> None:
    others = [name for name in source.columns if name != column]
    raise DataError(
        f"{source.path}: column {column!r} holds numbers ({found}), not texts; name the column of the texts "
        f"with --text; others: {others}"
    )


def _refuse_typed(source: Source, column: str) -> None:
    import pyarrow as pa

    kind = source.types.get(column)
    if kind is None or pa.types.is_null(kind):
        return
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"):
        _refuse_numbers(source, column, str(kind)) if pa.types.is_primitive(kind) else _refuse_kind(
            source, column, kind
        )


def _refuse_kind(source: Source, column: str, kind: object) -> None:
    raise DataError(f"{source.path}: column {column!r} holds {kind}; it must hold texts; name their column with --text")


@contextlib.contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    """What readers raise about a broken file, as one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({_brief(error)}); save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path} cannot be read (nested too deeply); check the file") from None
    except (ValueError, Warning, csv.Error, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read ({table_fault(error)}); check the file") from None


def _brief(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _open_text(path: Path) -> IO[str]:
    zipped = path.name.lower().endswith(".gz")
    with gzip.open(path, "rb") if zipped else path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    if zipped:
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


# CSV and TSV


def _open_delimited(path: Path) -> Source:
    with _open_text(path) as file:
        head = file.read(100_000)
    if not head.strip():
        return Source(path, (), lambda columns, size: iter(()))
    lines = list(io.StringIO(head, newline=""))
    blank = next(number for number, line in enumerate(lines) if line.strip())
    first = "".join(lines[blank:])
    separator = "\t" if data_suffix(path) == ".tsv" else find_separator(first)
    quoting: Quoting = csv.QUOTE_MINIMAL
    if separator == "\t" and not _quoted_well(path, blank):
        quoting = csv.QUOTE_NONE
    header = tuple(next(csv.reader(lines[blank:], delimiter=separator, quoting=quoting), ()))

    def read(columns: Sequence[str], size: int) -> Iterator[Rows]:
        for frame in _frames(path, size, sep=separator, quoting=quoting, skiprows=blank, names=header):
            yield {name: [value or None for value in frame[name].tolist()] for name in columns}

    return Source(path, header, read)


def _frames(path: Path, size: int, **options: Any) -> Iterator[Any]:
    """Every cell as it stands ('007', 'NA'), as text; `options`: more of pandas.read_csv."""
    import pandas as pd

    with _open_text(path) as file:
        yield from pd.read_csv(
            file,
            header=0,
            dtype=str,
            na_filter=False,
            index_col=False,
            skip_blank_lines=True,
            chunksize=size,
            **options,
        )


def _quoted_well(path: Path, blank: int) -> bool:
    """Whether a tab-separated file can be read with quoting; many are written without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            frames = _frames(path, SCAN, sep="\t", quoting=csv.QUOTE_MINIMAL, skiprows=blank)
            for frame in frames:
                if len(frame.columns) == 1:
                    return _strictly_quoted(path)
                if any(frame[name].str.contains("\t", regex=False).any() for name in frame):
                    return False
        except (ValueError, Warning):
            return False
    return True


def _strictly_quoted(path: Path) -> bool:
    """Whether no quoted cell goes on after its closing quote: where there is one column, no swallowed tab can tell."""
    with _open_text(path) as file:
        try:
            return all(len(row) < 2 for row in csv.reader(file, delimiter="\t", strict=True))
        except csv.Error:
            return False


# JSON


def _open_json_lines(path: Path) -> Source:
    columns: dict[str, None] = {}
    for record in _records(path):
        columns.update(dict.fromkeys(record))

    def read(wanted: Sequence[str], size: int) -> Iterator[Rows]:
        records = _records(path)
        while part := list(itertools.islice(records, size)):
            yield {name: [record.get(name) for record in part] for name in wanted}

    return Source(path, tuple(columns), read)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, parse_constant=_constant)
            except RecursionError:
                raise DataError(f"{path}, line {number}: nested too deeply; each line must be one object") from None
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({_brief(error)}); each line must be one object"
                ) from None
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number}: {type(record).__name__}, not an object with named fields")
            yield record


def _constant(name: str) -> float | None:
    """NaN, as pandas writes what is missing, is missing."""
    return None if name == "NaN" else float(name)


def _open_json(path: Path) -> Source:
    """JSON lines under the name .json are streamed; a list of records, or {"data": records}, is read whole."""
    with _open_text(path) as file:
        lines = [line for line in itertools.islice(file, 2) if line.strip()]
    try:
        found = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return _open_whole(path)
    is_line = all(isinstance(record, dict) for record in found) and (
        len(found) > 1 or not any(isinstance(record.get("data"), list) for record in found)
    )
    return _open_json_lines(path) if is_line else _open_whole(path)


# Parquet, and files that are read whole


def _open_parquet(path: Path) -> Source:
    import pyarrow.parquet as pq

    if path.name.lower().endswith(".gz"):
        return _open_whole(path)
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow

    def read(columns: Sequence[str], size: int) -> Iterator[Rows]:
        return _cut(_batches(path, columns, size), columns, size)

    return Source(path, tuple(schema.names), read, dict(zip(schema.names, schema.types)))


def _batches(path: Path, columns: Sequence[str], size: int) -> Iterator[Rows]:
    """The pages of one row group at a time: with a buffer, a row group of a million rows is not held as a whole."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(size, row_groups=[group], columns=list(columns), use_threads=False):
                yield {name: batch.column(name).to_pylist() for name in columns}


def _cut(parts: Iterator[Rows], columns: Sequence[str], size: int) -> Iterator[Rows]:
    """The same rows in chunks of `size`, however the parts are cut."""
    held: Rows = {name: [] for name in columns}
    for part in parts:
        for name in columns:
            held[name] += part[name]
        while len(held[columns[0]]) >= size:
            yield {name: values[:size] for name, values in held.items()}
            held = {name: values[size:] for name, values in held.items()}
    if held[columns[0]]:
        yield held


def _open_whole(path: Path) -> Source:
    frame = read_file(path).frame
    columns = {str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}

    def read(wanted: Sequence[str], size: int) -> Iterator[Rows]:
        for start in range(0, len(frame), size):
            yield {name: columns[name][start : start + size] for name in wanted}

    return Source(path, tuple(columns), read)


_OPENERS: dict[str, Callable[[Path], Source]] = {
    ".csv": _open_delimited,
    ".tsv": _open_delimited,
    ".jsonl": _open_json_lines,
    ".ndjson": _open_json_lines,
    ".json": _open_json,
    ".parquet": _open_parquet,
    ".xlsx": _open_whole,
}
