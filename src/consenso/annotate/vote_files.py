"""Vote files as they lie on disk → a frame with the values as they stand."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from consenso.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

KINDS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".xlsx")


_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def find_source(source: str | Path, base: Path | None = None) -> Path:
    """Return the path of a source: as it is, else below `base`, the working folder or CONSENSO_DATA."""
    given = Path(source).expanduser()
    starts = [Path(start) for start in (base, Path.cwd(), os.environ.get("CONSENSO_DATA")) if start]
    tried = [given] if given.is_absolute() else [start / given for start in starts]
    for path in tried:
        if path.exists():
            return path
    beside = [path.name for folder in {path.parent for path in tried} if folder.is_dir() for path in folder.iterdir()]
    hint = nearest(given.name, beside)
    raise DataError(f"votes: no file or folder {given}; looked for {', '.join(map(str, tried))}.{hint}")


def read_file(path: Path) -> pd.DataFrame:
    """Read one table; the cells of text files stay text, so that ids such as 007 keep their form.

    Raises `DataError` for a kind that is not known and for a file that cannot be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    if not kind or kind[0] not in KINDS:
        raise DataError(
            f"{path}: cannot read this kind of file; found {path.name!r}, expected one of {', '.join(KINDS)} (also .gz)"
        )
    import pandas as pd
    import pyarrow as pa

    try:
        frame = _read(path, kind[0], zipped)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty; it needs a header line and votes") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path}: rows do not fit the header ({_first_line(error)}); mend or delete those lines"
        ) from None
    except (*_UNREADABLE, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as {kind[0]}: {_first_line(error)}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    _refuse_repeated_columns(list(frame.columns), path)
    return frame


def _read(path: Path, kind: str, zipped: bool) -> Any:
    import pandas as pd

    if kind == ".parquet":
        return pd.read_parquet(gzip.open(path) if zipped else path)
    if kind == ".xlsx":
        return pd.read_excel(gzip.open(path) if zipped else path, dtype=object)
    if kind in {".json", ".jsonl"}:
        with _text(path, zipped) as file:
            text = file.read()
        lines = (
            [json.loads(line) for line in text.splitlines() if line.strip()] if kind == ".jsonl" else json.loads(text)
        )
        return pd.DataFrame(lines)
    separator, header = _header(path, zipped)
    _refuse_repeated_columns(header, path)  # pandas would call the second one name.1: one more annotator
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header would lose its end
        return pd.read_csv(
            path,
            sep=separator,
            compression="gzip" if zipped else None,
            encoding="utf-8-sig",
            dtype=str,
            na_filter=False,
            index_col=False,
        )


@contextlib.contextmanager
def _text(path: Path, zipped: bool) -> Iterator[TextIO]:
    with gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig") as file:
        yield cast(TextIO, file)


def _header(path: Path, zipped: bool) -> tuple[str, list[str]]:
    """The separator that stands most often in the first line, and the names between."""
    with _text(path, zipped) as file:
        line = file.readline()
    separator = max(",\t;", key=line.count)
    return separator, next(csv.reader([line], delimiter=separator), [])


def _refuse_repeated_columns(names: list[str], path: Path) -> None:
    names = [name.strip() for name in names]
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{path}: column(s) {repeated} stand more than once; rename them")


def _first_line(error: Exception | Warning) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
