"""The run folder: the only reader and writer of tables.

runs/<name>/
  run.json            what was run: settings, versions, hashes, seeds, counts, times
  tables/<name>.parquet
  pieces/<kind>/<key> finished pieces (one training each): what a killed run keeps
  cache/              can be deleted: embeddings, tokens
  report.html, report.md
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import BusyError, DataError, StorageError
from consenso.tables import TABLES, Table, check

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROW_GROUP = 16_384
"""Rows that a reader of parts holds at once."""


def digest(value: Any) -> str:
    """Return a sha256 (hex) of a JSON-able value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str, allow_nan=True)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that a reader sees the old one or the whole new one, whatever kills the process."""
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}")


def half_written(place: Path) -> list[Path]:
    """Return the files below a folder that `write_atomically` began and a killed process left; nobody else's.

    Those of another process that is alive on this machine are not among them: `predict` may write into a run folder.
    """
    found = [(path, _TEMPORARY.fullmatch(path.name)) for path in place.glob("**/.*.*-????????")]
    return [path for path, name in found if name and path.is_file() and not _is_at_work(int(name[1]))]


def _is_at_work(process: int) -> bool:
    """Whether a process other than this one is alive; unknown on Windows, where it counts as dead."""
    if process == os.getpid() or os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def remove(path: Path) -> None:
    """Delete a file that nobody is writing, and what killed processes left of it beside it."""
    path.unlink(missing_ok=True)
    for left in half_written(path.parent):
        if left.name.rpartition(".")[0] == f".{path.name}":
            left.unlink(missing_ok=True)


def _storage_error(path: Path, error: OSError) -> StorageError:
    if _is_full(path, error):
        return StorageError(
            f"cannot write {path}: the disk is full; finished work is kept, make room and run the same command again"
        )
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; finished work is kept, mend this (or choose another folder) and run again"
    )


def _is_full(path: Path, error: OSError) -> bool:
    """Whether a write failed for want of room; numpy reports a short write without an error number."""
    if error.errno is None:
        return path.parent.exists() and shutil.disk_usage(path.parent).free < 1_000_000
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


class RunFolder:
    """A folder that holds one run's tables, finished pieces and record."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path} is a file, not a run folder; choose another folder")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; a second raises `BusyError`. The lock dies with the process."""
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"another process works in {self.path}; wait for it, or choose another folder with --out"
            ) from None
        except OSError as error:
            raise _storage_error(self.path, error) from error
        try:
            for leftover in half_written(self.path):
                leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    # tables

    def table_path(self, name: str) -> Path:
        """Return where a table's file stands."""
        return self.path / "tables" / f"{name}.parquet"

    def has(self, name: str) -> bool:
        """Return whether the table has been written."""
        return self.table_path(name).exists()

    def read(
        self, name: str, columns: Sequence[str] | None = None, *, texts: Iterable[Any] | None = None
    ) -> pd.DataFrame:
        """Read a table, or some columns and texts of it; one that was never written raises `DataError`."""
        import pandas as pd

        path = self.table_path(name)
        if not path.exists():
            raise DataError(
                f"{self.path}: no table {name!r} yet; `consenso run` (or the stage that writes it) makes it"
            )
        try:
            chosen = None if texts is None else [("text_id", "in", list(texts))]
            return pd.read_parquet(path, columns=None if columns is None else list(columns), filters=chosen)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete it and run again") from error

    def write(self, name: str, frame: pd.DataFrame) -> str:
        """Check, sort by key and write a table atomically; return its fingerprint."""
        import pyarrow.parquet as pq

        table = TABLES[name]
        arrow = as_arrow(frame, table)
        print_ = fingerprint(arrow, table)
        if self.has(name) and self.fingerprints().get(name) == print_ and not table.volatile:
            return print_
        self._forget(name)
        write_atomically(
            self.table_path(name),
            lambda path: pq.write_table(arrow, path, compression="zstd", row_group_size=ROW_GROUP),
        )
        self.note("tables", {**self.fingerprints(), name: print_})
        return print_

    def write_parts(self, name: str, parts: Iterable[pd.DataFrame]) -> str:
        """Write a table from frames that follow each other in the order of its key; return its fingerprint.

        Only one frame at a time is held. Raises `DataError` where a frame does not follow the one before.
        """
        import pyarrow.parquet as pq

        table, previous = TABLES[name], None
        hashed = _Hashed(table)

        def write(path: Path) -> None:
            nonlocal previous
            writer = None
            try:
                for frame in parts:
                    arrow = as_arrow(frame, table)
                    if not arrow.num_rows:
                        continue
                    first, last = (tuple(arrow[key][place].as_py() for key in table.key) for place in (0, -1))
                    if previous is not None and first <= previous:
                        raise DataError(
                            f"{name}: the row {first} stands after {previous}; each {list(table.key)} may stand once"
                        )
                    previous = last
                    if writer is None:
                        writer = pq.ParquetWriter(path, arrow.schema, compression="zstd")
                    writer.write_table(arrow)
                    hashed.add(arrow)
            finally:
                if writer is not None:
                    writer.close()
            if writer is None:
                import pandas as pd

                arrow = as_arrow(pd.DataFrame(columns=list(table.columns)), table)
                pq.write_table(arrow, path, compression="zstd")
                hashed.add(arrow)

        self._forget(name)
        write_atomically(self.table_path(name), write)
        print_ = hashed.hexdigest()
        self.note("tables", {**self.fingerprints(), name: print_})
        return print_

    def _forget(self, name: str) -> None:
        """No longer vouch for a table that is about to be replaced: a kill may come before its new fingerprint is noted."""
        if name in (prints := self.fingerprints()):
            self.note("tables", {table: print_ for table, print_ in prints.items() if table != name})

    def read_parts(self, name: str, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a table in batches of at most so many rows, in the order of its key.

        Tables with as many rows come in equal batches where `size` divides `ROW_GROUP`.
        """
        import pyarrow.parquet as pq

        path = self.table_path(name)
        if not path.exists():
            raise DataError(
                f"{self.path}: no table {name!r} yet; `consenso run` (or the stage that writes it) makes it"
            )
        with pq.ParquetFile(path) as file:
            # not iter_batches, which holds the compressed columns of the whole file
            for number in range(file.num_row_groups):
                yield from file.read_row_group(number, columns=list(columns), use_threads=False).to_batches(size)

    def count(self, name: str) -> int:
        """Return the number of rows of a table."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.table_path(name)).num_rows)

    def fingerprints(self) -> dict[str, str]:
        """Return table → hash of its content without the volatile columns."""
        found: dict[str, str] = self.record().get("tables", {})
        return found

    # finished pieces

    def piece_path(self, kind: str, key: str) -> Path:
        """Return where a finished piece stands: pieces/<kind>/<key>.parquet."""
        return self.path / "pieces" / kind / f"{key}.parquet"

    # the record

    def record(self) -> dict[str, Any]:
        """Return run.json, or {} for a fresh folder."""
        path = self.path / "run.json"
        if not path.exists():
            return {}
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"{path} is not JSON ({error}); delete it: finished trainings stay in {self.path / 'pieces'}"
            ) from error
        return found

    def note(self, name: str, value: Any) -> None:
        """Set one entry of run.json, atomically."""
        record = {**self.record(), name: value}
        text = json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
        write_atomically(self.path / "run.json", lambda path: _write_text(path, text))

    def is_done(self, stage: str, key: str) -> bool:
        """Return whether the stage finished with these inputs and its tables are still there unchanged."""
        done = self.record().get("stages", {}).get(stage, {})
        prints = self.fingerprints()
        return done.get("key") == key and all(
            self.has(t) and prints.get(t) == p for t, p in done.get("tables", {}).items()
        )

    def flag_stages(self, stale: dict[str, bool]) -> None:
        """Flag finished stages as stale (out of date) or current; stages that never finished are passed over."""
        stages = self.record().get("stages", {})
        changed = {
            name: flag for name, flag in stale.items() if name in stages and flag != stages[name].get("stale", False)
        }
        if changed:
            flagged = {
                name: {**entry, "stale": changed.get(name, entry.get("stale", False))} for name, entry in stages.items()
            }
            self.note("stages", flagged)

    def finish(self, stage: str, key: str, tables: list[str], **facts: Any) -> None:
        """Record that a stage is done: its key, the tables it wrote and whatever else is worth keeping."""
        prints = self.fingerprints()
        entry = {"key": key, "tables": {name: prints[name] for name in tables}, **facts}
        self.note("stages", {**self.record().get("stages", {}), stage: entry})


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def environment() -> dict[str, Any]:
    """Return Python, platform, threads and the versions of the libraries that can change a number."""
    import platform
    from importlib import metadata

    packages = (
        "consenso",
        "numpy",
        "pandas",
        "pyarrow",
        "scikit-learn",
        "scipy",
        "torch",
        "transformers",
        "tokenizers",
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def as_arrow(frame: pd.DataFrame, table: Table) -> pa.Table:
    """Return the checked frame as an Arrow table with the table's own types, in the order of its key."""
    import pyarrow as pa

    kinds = {
        "text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_(), "list": pa.list_(pa.float64()),
    }  # fmt: skip
    frame = check(frame, table)
    columns, fields = [], []
    for name in frame.columns:
        column = table.columns.get(name)
        kind = "text" if name in {"text_id", "other_id"} else (column.kind if column else "any")
        values = frame[name].map(str).astype(object) if name in {"text_id", "other_id"} else frame[name]
        array = _array(values, kinds.get(kind), f"{table.name}.{name}")
        columns.append(array)
        fields.append(pa.field(name, array.type))
    arrow = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    return arrow.sort_by([(name, "ascending") for name in table.key])


def _array(values: pd.Series, kind: pa.DataType | None, name: str) -> pa.Array:
    import pyarrow as pa

    try:
        array = pa.Array.from_pandas(values, type=kind) if kind is not None else pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        if kind is None:  # a source column of mixed types is kept as text
            array = pa.array(
                [None if missing else str(value) for value, missing in zip(values, values.isna())], type=pa.string()
            )
        else:
            raise DataError(
                f"{name}: cannot be stored as {kind}; found {type(next(iter(values.dropna()), None)).__name__} values"
            ) from None
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_large_string(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.string())
    return array


def fingerprint(arrow: pa.Table, table: Table) -> str:
    """Return a sha256 (hex) of a table's content without its volatile columns; how it is cut into parts does not count."""
    hashed = _Hashed(table)
    hashed.add(arrow)
    return hashed.hexdigest()


class _Hashed:
    """The fingerprint of a table that comes in parts: of its rows in blocks of 65,536, as an Arrow stream."""

    BLOCK = 65_536

    def __init__(self, table: Table) -> None:
        self._volatile, self._sink = set(table.volatile), hashlib.sha256()
        self._stream: Any = None
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, arrow: pa.Table) -> None:
        """Add the next rows."""
        import pyarrow as pa

        stable = arrow.drop_columns([name for name in arrow.column_names if name in self._volatile])
        stable = stable.replace_schema_metadata()
        if self._stream is None:
            self._stream = pa.ipc.new_stream(pa.PythonFile(_Sink(self._sink), mode="w"), stable.schema)
        self._waiting.append(stable)
        self._rows += stable.num_rows
        while self._rows >= self.BLOCK:
            whole = pa.concat_tables(self._waiting)
            self._write(whole.slice(0, self.BLOCK))
            self._waiting, self._rows = [whole.slice(self.BLOCK)], self._rows - self.BLOCK

    def _write(self, block: pa.Table) -> None:
        import numpy as np

        # taken, not sliced: a slice of a text column is written with the offsets of the whole
        self._stream.write_table(block.take(np.arange(block.num_rows)).combine_chunks())

    def hexdigest(self) -> str:
        """Return the hash of all rows."""
        import pyarrow as pa

        if self._stream is not None:
            whole = pa.concat_tables(self._waiting)
            if whole.num_rows:
                self._write(whole)
            self._stream.close()
        return self._sink.hexdigest()


class _Sink:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write(self, data: Any) -> int:
        self._sink.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def major_version(distribution: str) -> str | None:
    """Return the major version of an installed library (before 1 the minor one too, which may change anything), or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        major, _, rest = version(distribution).partition(".")
        return f"0.{rest.partition('.')[0]}" if major == "0" else major
    except PackageNotFoundError:
        return None
