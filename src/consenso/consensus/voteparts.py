"""Where votes may lie: Parquet files, folders of parts, Arrow tables and datasets, read part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError
from consenso.tables import VOTES

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = ("text_id", "annotator", "repetition", "label", "status")
"""The columns that consensus reads."""
ROWS = 131_072
"""Small row groups are read together up to so many rows."""


def tables_of(source: Any) -> Iterator[pa.Table]:
    """Yield the needed columns, as far as they are there, in parts.

    `source`: a Parquet file, a folder of them, a run folder, a pattern with *, a list of these; or an Arrow table, batch,
    reader or dataset. Raises `DataError` where nothing lies there, a file is not Parquet or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if isinstance(source, ds.Dataset):
        names = present(source.schema.names)
        yield from map(_as_table, source.to_batches(columns=names, batch_readahead=1, fragment_readahead=1))
    elif isinstance(source, (pa.Table, pa.RecordBatch)):
        yield _as_table(source).select(present(source.schema.names))
    elif isinstance(source, pa.RecordBatchReader):
        names = present(source.schema.names)
        yield from (_as_table(batch).select(names) for batch in source)
    else:
        files = _files(source)
        for file in files:
            yield from _read(file, several=len(files) > 1)


def present(names: Iterable[str], where: str = "") -> list[str]:
    """Return the needed columns among the names; a missing required one is an error."""
    names = [name for name in names if not name.startswith("__index_level_")]
    if missing := [name for name, column in VOTES.columns.items() if column.required and name not in names]:
        raise DataError(f"votes: missing column(s) {missing}{where}; found {names}")
    return [name for name in NEEDED if name in names]


def _as_table(part: Any) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part


def _files(source: Any) -> list[Path]:
    if isinstance(source, (list, tuple)):
        return [file for one in source for file in _files(one)]
    if not isinstance(source, (str, Path)):
        raise DataError(
            f"votes: cannot be read from {type(source).__name__}; pass a frame, an Arrow table or the path of Parquet files"
        )
    path = Path(source).expanduser()
    stored = path / "tables" / f"{VOTES.name}.parquet"
    if path.is_file() or stored.is_file():
        return [path if path.is_file() else stored]
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    found = sorted(file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith((".", "_")))
    if not found:
        wanted = "no .parquet file lies in this folder" if path.is_dir() else "no such file"
        raise DataError(f"votes: {wanted}: {path}; pass the Parquet file of the votes, or the folder of its parts")
    return found


def _read(path: Path, *, several: bool) -> Iterator[pa.Table]:
    """Yield groups of rows; text columns come as dictionaries, so that repeated values are decoded once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        names = present(footer.schema.to_arrow_schema().names, f" in {path.name}" if several else "")
        text = [name for name in names if name != "repetition"]
        with pq.ParquetFile(path, read_dictionary=text, metadata=footer) as file:
            for groups in _groups([footer.row_group(g).num_rows for g in range(footer.num_row_groups)]):
                yield file.read_row_groups(groups, columns=names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"votes: {path} cannot be read as Parquet ({line}); other kinds of files are imported with read_votes"
        ) from error


def _groups(rows: list[int]) -> Iterator[list[int]]:
    """Yield the numbers of row groups to be read together."""
    waiting: list[int] = []
    for number, size in enumerate(rows):
        if waiting and sum(rows[g] for g in waiting) + size > ROWS:
            yield waiting
            waiting = []
        waiting.append(number)
    if waiting:
        yield waiting
