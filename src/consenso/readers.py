"""Files, frames and `datasets` objects → one raw frame, with what the source itself states about its labels."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class StatedLabels:
    """The labels that a file's schema states for one column."""

    names: tuple[Any, ...]
    """The values in the order of the schema: names, or numbers where the categories are numbers."""
    coded: bool
    """True: the column holds positions (ClassLabel), −1 for none; False: it holds the values themselves."""


@dataclass(frozen=True)
class RawSource:
    """What a source holds before any column has a meaning."""

    frame: pd.DataFrame
    """The source's own columns, object or numeric; null where missing."""
    stated: dict[str, StatedLabels] = field(default_factory=dict)
    """Column → the labels its schema states."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the record says about the source: kind, path, sha256, notes."""


def read_file(path: Path) -> RawSource:
    """Read a data file by its suffix (also with .gz); a broken, empty or unknown one raises `DataError`."""
    import hashlib

    suffix = data_suffix(path)
    if suffix not in _READERS:
        raise DataError(
            f"{path}: unknown kind of file {suffix or path.name!r}; known: {', '.join(_READERS)}, each also .gz"
        )
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({_brief(error)}); check the file") from None
    if not content.strip():
        raise DataError(f"{path} is empty; it needs a header and at least one row")
    source = _READERS[suffix](content, path)
    _check_shape(source.frame, path)
    facts = {"kind": suffix.removeprefix("."), "path": str(path), "sha256": hashlib.sha256(raw).hexdigest()}
    return RawSource(source.frame, source.stated, {**facts, **source.facts})


def data_suffix(path: Path) -> str:
    """Return the suffix that tells the kind of a file, in lower case and without .gz: '.csv' for items.CSV.gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_data_file_name(name: str) -> bool:
    """Return whether a name ends like a data file."""
    return data_suffix(Path(name)) in _READERS or name.lower().endswith((".gz", ".xls", ".txt"))


def _check_shape(frame: pd.DataFrame, where: object) -> None:
    columns = [str(column) for column in frame.columns]
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise DataError(f"{where}: column(s) {repeated} stand more than once; rename them")
    if not len(frame):
        raise DataError(f"{where} has no rows; found the columns {columns}")


def _brief(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


_LONG_ROW = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
_OPEN_QUOTE = re.compile(r"EOF inside string starting at row (\d+)")


def table_fault(error: BaseException) -> str:
    """Return what pandas says about a broken CSV or TSV file, in plain words."""
    said = _brief(error)
    if found := _LONG_ROW.search(said):
        return f"line {found[2]} has {found[3]} cells, the header {found[1]}"
    if found := _OPEN_QUOTE.search(said):
        return f"the quote that opens in data row {found[1]} is never closed"
    return said


def _decode(content: bytes, path: Path) -> str:
    encoding = "utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}: {_brief(error)}); save it as UTF-8") from None


def _read_csv(content: bytes, path: Path) -> RawSource:
    text = _decode(content, path)
    separator = "\t" if data_suffix(path) == ".tsv" else find_separator(text)
    header = _header(text, separator)
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path}: column(s) {repeated} stand more than once; rename them")
    facts: dict[str, Any] = {"separator": separator}
    try:
        frame = _parse_csv(text, separator, csv.QUOTE_MINIMAL)
        if separator == "\t" and any(frame[name].str.contains("\t", regex=False).any() for name in frame):
            raise ValueError("a quote at the start of a text swallowed the lines after it")
    except (ValueError, Warning) as error:
        if separator != "\t":
            raise DataError(
                f"{path} cannot be read as CSV ({table_fault(error)}); quote texts that hold the separator"
            ) from None
        # tab-separated files are often written without any quoting
        try:
            frame = _parse_csv(text, separator, csv.QUOTE_NONE)
        except (ValueError, Warning) as again:
            raise DataError(
                f"{path} cannot be read as TSV ({table_fault(again)}); every row needs the header's number of tabs"
            ) from None
        facts["notes"] = ["quote marks were read as characters, for the file is not valid TSV with quoting"]
    return RawSource(frame, facts=facts)


def find_separator(text: str) -> str:
    """Return the separator that cuts the header into most columns; a comma in doubt."""
    return max(",;\t", key=lambda separator: len(_header(text, separator)))


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text[:100_000]), delimiter=separator), [])
    except csv.Error:
        return []


def _parse_csv(text: str, separator: str, quoting: int) -> pd.DataFrame:
    """Every cell as it stands ('007', 'NA'); an empty one is null."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas only warns when it is about to drop the end of long rows
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            quoting=quoting,
            dtype=str,
            na_filter=False,
            index_col=False,
            skip_blank_lines=True,
        )
    return frame.astype(object).where(frame != "", None)


def _read_excel(content: bytes, path: Path) -> RawSource:
    import zipfile

    import pandas as pd

    try:
        frame = pd.read_excel(io.BytesIO(content), dtype=object, keep_default_na=False, engine="openpyxl")
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as xlsx ({_brief(error)}); check the file") from None
    frame.columns = [str(name) for name in frame.columns]
    frame = frame.astype(object).where(frame.map(lambda value: value != ""), None)
    return RawSource(frame[~frame.isna().all(axis=1)].reset_index(drop=True))


def _read_json(content: bytes, path: Path) -> RawSource:
    try:
        found = json.loads(_decode(content, path))
    except ValueError as error:
        hint = "; one object per line is .jsonl" if "Extra data" in str(error) else ""
        raise DataError(f"{path} is not JSON ({_brief(error)}){hint}") from None
    records = found.get("data") if isinstance(found, dict) else found
    if not isinstance(records, list):
        shape = f"an object with the keys {list(found)[:8]}" if isinstance(found, dict) else type(found).__name__
        raise DataError(f'{path}: found {shape}; JSON must be a list of records or {{"data": [records]}}')
    return RawSource(_from_records(records, path))


def _read_jsonl(content: bytes, path: Path) -> RawSource:
    records = []
    for number, line in enumerate(_decode(content, path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not JSON ({_brief(error)}); each line must be one object"
            ) from None
    return RawSource(_from_records(records, path))


def _from_records(records: Iterable[Any], path: Path) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, None] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(f"{path}: record {number} is {type(record).__name__}, not an object with named fields")
        columns.update(dict.fromkeys(record))
    values = {name: [record.get(name) for record in records] for name in columns}
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in values.items()})


def _read_parquet(content: bytes, path: Path) -> RawSource:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({_brief(error)}); check the file") from None
    return from_arrow(table)


_READERS: dict[str, Callable[[bytes, Path], RawSource]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".xlsx": _read_excel,
}


def from_arrow(table: pa.Table, names: dict[str, list[str]] | None = None) -> RawSource:
    """Return an Arrow table as a source; `names` are ClassLabel names by column, else those in its metadata."""
    import pyarrow as pa

    names = _class_names(table.schema.metadata) if names is None else names
    table = table.unify_dictionaries()
    frame = table.to_pandas(integer_object_nulls=True, strings_to_categorical=False)
    frame = frame.reset_index() if any(frame.index.names) else frame.reset_index(drop=True)
    stated = {}
    for column in table.schema:
        if column.name in names:
            stated[column.name] = StatedLabels(tuple(names[column.name]), coded=True)
        elif pa.types.is_dictionary(column.type) and column.name in frame:
            stated[column.name] = StatedLabels(tuple(frame[column.name].cat.categories), coded=False)
            frame[column.name] = frame[column.name].astype(object)
    return RawSource(frame, stated)


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the ClassLabel features in a Parquet file that `datasets` wrote."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except ValueError:
        return {}
    return {
        name: list(feature["names"])
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def from_frame(frame: pd.DataFrame) -> RawSource:
    """Return a pandas frame as a source; a Categorical column states its labels. The input is not changed."""
    import pandas as pd

    frame = frame.copy(deep=False)
    frame.attrs = {}
    frame.columns = [str(name) for name in frame.columns]
    _check_shape(frame, "the frame")
    frame = frame.reset_index() if any(frame.index.names) else frame.reset_index(drop=True)
    stated = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            stated[name] = StatedLabels(tuple(frame[name].cat.categories), coded=False)
            frame[name] = frame[name].astype(object)
    return RawSource(frame, stated, {"kind": "frame"})


def from_splits(splits: dict[str, Any]) -> RawSource:
    """Return `datasets` splits (name → Dataset) as one source; the column `split` tells several apart."""
    import pandas as pd

    parts, stated = [], {}
    for name, dataset in splits.items():
        names = {column: list(f.names) for column, f in dataset.features.items() if type(f).__name__ == "ClassLabel"}
        part = from_arrow(dataset.with_format("arrow")[:], names)
        stated.update(part.stated)
        own = "split" in part.frame.columns
        parts.append(part.frame if own or len(splits) == 1 else part.frame.assign(split=name))
    frame = pd.concat(parts, ignore_index=True)
    _check_shape(frame, "the dataset")
    return RawSource(
        frame, stated, {"kind": "dataset", "splits": {name: len(dataset) for name, dataset in splits.items()}}
    )
