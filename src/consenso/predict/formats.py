"""How rows are written: CSV, TSV, JSON lines and Parquet; a part per chunk, and parts joined without holding them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from consenso.predict.sources import Rows
from consenso.readers import data_suffix

ROW_GROUP = 65_536
"""Rows of a Parquet result that are held at once."""


@dataclass(frozen=True)
class Layout:
    """The columns of a result in order, with their Arrow types."""

    types: dict[str, Any]
    """Column → Arrow type; None: text, written as it stands (objects as JSON)."""
    kept: dict[str, str] = field(default_factory=dict)
    """Column of the source that is copied → its name in the result."""

    def schema(self) -> Any:
        """Return the Arrow schema of a Parquet result."""
        import pyarrow as pa

        return pa.schema([(name, kind or pa.string()) for name, kind in self.types.items()])


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    write_part: Callable[[Path, Rows, Layout], None]
    join: Callable[..., None]
    """join(path, parts, layout, zipped=…)"""


def output_suffix(path: Path) -> str:
    """Return '.csv' for predicted.CSV.gz."""
    return data_suffix(path)


# CSV and TSV


def _delimited(delimiter: str) -> Format:
    def write_part(path: Path, rows: Rows, layout: Layout) -> None:
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            columns = [[_cell(value) for value in rows[name]] for name in layout.types]
            _row_writer(file, delimiter).writerows(zip(*columns))

    def join(path: Path, parts: Sequence[Path], layout: Layout, *, zipped: bool) -> None:
        head = io.StringIO()
        _row_writer(head, delimiter).writerow(layout.types)
        _chain(path, head.getvalue().encode(), parts, zipped)

    return Format(write_part, join)


@dataclass(frozen=True)
class _PlainEnds:
    """A file whose rows end with \\n though they are given with \\r\\n."""

    file: TextIO

    def write(self, row: str) -> int:
        """Write one row."""
        return self.file.write(row.removesuffix("\r\n") + "\n")


def _row_writer(file: TextIO, delimiter: str) -> Any:
    """A csv.writer; up to Python 3.12 it quotes a cell that holds \\r only where \\r is part of its row end."""
    return csv.writer(_PlainEnds(file), delimiter=delimiter, lineterminator="\r\n")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _chain(path: Path, head: bytes, parts: Sequence[Path], zipped: bool) -> None:
    with path.open("wb") as file:
        # no time and no name inside: equal content gives equal bytes
        target = gzip.GzipFile("", "wb", 6, file, mtime=0) if zipped else file
        target.write(head)
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
        if zipped:
            target.close()


# JSON lines


def _write_json_lines(path: Path, rows: Rows, layout: Layout) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        for values in zip(*(rows[name] for name in layout.types)):
            cells = (None if isinstance(value, float) and not math.isfinite(value) else value for value in values)
            record = json.dumps(dict(zip(layout.types, cells)), ensure_ascii=False, default=str)
            file.write(record + "\n")


def _join_json_lines(path: Path, parts: Sequence[Path], layout: Layout, *, zipped: bool) -> None:
    _chain(path, b"", parts, zipped)


# Parquet


def _write_parquet(path: Path, rows: Rows, layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [
        pa.array([_as_text(value) for value in rows[name]] if layout.types[name] is None else rows[name], field.type)
        for name, field in zip(layout.types, layout.schema())
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=layout.schema()), path, compression="zstd")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else value.encode("utf-8", "replace").decode()
    is_json = isinstance(value, list | dict | bool | int | float)
    return json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)


def _join_parquet(path: Path, parts: Sequence[Path], layout: Layout, *, zipped: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[Any] = []
    with pq.ParquetWriter(path, layout.schema(), compression="zstd") as writer:
        for number, part in enumerate(parts, 1):
            waiting.append(pq.read_table(part))
            if sum(table.num_rows for table in waiting) >= ROW_GROUP or number == len(parts):
                writer.write_table(pa.concat_tables(waiting))
                waiting = []


FORMATS: dict[str, Format] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": Format(_write_json_lines, _join_json_lines),
    ".ndjson": Format(_write_json_lines, _join_json_lines),
    ".parquet": Format(_write_parquet, _join_parquet),
}
