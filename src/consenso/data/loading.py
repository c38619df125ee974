"""A source → the texts table: columns, labels, empty texts, ids, duplicates, sample, and a record of all of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.data.catalog import CatalogEntry, catalog_names, find_entry
from consenso.data.columns import FOLD, choose_splits, map_columns, name_splits
from consenso.data.duplicates import collapse, find_duplicates
from consenso.data.fold_files import (
    FoldSource,
    folds_of_column,
    has_fold_files,
    join_given,
    merge_files,
    need_columns,
    read_fold_folder,
)
from consenso.data.gold import Gold, read_gold
from consenso.data.hub import is_datasets_object, read_datasets_object, read_folder, read_hub
from consenso.data.ids import own_ids, plain_id
from consenso.data.settings import ColumnMap, DataSettings, Sampling
from consenso.data.splitting import sample_texts
from consenso.errors import ConfigError, DataError, nearest
from consenso.files import candidates, find_path
from consenso.labels import LabelSchema
from consenso.readers import RawSource, from_frame, is_data_file_name, read_file
from consenso.tables import DUPLICATES, TEXTS, check
from consenso.text import clean, text_hash

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Loaded:
    """What a source gave."""

    texts: pd.DataFrame
    """TEXTS, then the source's other columns; `attrs` holds "labels" (schema records) and "record"."""
    labels: LabelSchema | None
    """The labels in order; None where there is no gold and nothing states them."""
    duplicates: pd.DataFrame
    """DUPLICATES: rows of the source that repeat another."""
    record: dict[str, Any]
    """JSON-able: source, kind, path, sha256 (of a file), files (of a folder of folds), columns, rows_read, rows_kept,
    with_gold, dropped (by reason), ids, labels_from, ids_given, noun, licence, unverified, duplicates (counts), sampling, folds, notes
    (lines for the report)."""
    folds: pd.DataFrame | None = None
    """FOLDS as the source gives them (a folder of folds, a column of fold numbers), for `make_folds(given=…)`; else None."""


def load_dataset(
    source: str | Path | pd.DataFrame | Any,
    *,
    columns: ColumnMap | Mapping[str, str] | None = None,
    labels: LabelSchema | Sequence[str] | Mapping[str, str] | None = None,
    split: str | None = None,
    combine_splits: Sequence[str] = (),
    hf_file: str | None = None,
    revision: str | None = None,
    sample_size: int | None = None,
    sampling: Sampling = "stratified",
    seed: int = 42,
    empty_texts: str = "error",
    base: Path | None = None,
) -> pd.DataFrame:
    """Return TEXTS (text_id, text, gold, split, group, copies, then the source's other columns).

    `source`: a file (csv, tsv, jsonl, json, parquet, xlsx, each also .gz), a folder saved by `datasets`, one of
    train_fold_0, test_fold_0, … (`read_dataset` also returns its folds), a Hub id "owner/name" or "owner/name:config", a
    name of `list_catalog()`, a pandas frame, a `datasets.Dataset` or a DatasetDict; `trec` is the catalog's, `./trec` a
    folder. Relative paths start from `base`, the working directory, then `$CONSENSO_DATA`. `labels`: a schema, names in
    order, or name → definition. `attrs["labels"]` are the schema's records (see `schema_of`), `attrs["record"]` says what
    was read, dropped, collapsed and sampled. A source that is wrong raises `DataError`.
    """
    if isinstance(columns, ColumnMap):
        columns = columns.model_dump()
    if isinstance(source, Path) and find_entry(str(source)):
        source = f"./{source}"  # a Path is never a name of the catalog
    settings = DataSettings.read(
        {
            "source": str(source) if isinstance(source, (str, Path)) else type(source).__name__,
            "columns": dict(columns or {}), "split": split, "combine_splits": list(combine_splits), "hf_file": hf_file,
            "revision": revision, "sample_size": sample_size, "sampling": sampling, "seed": seed,
            "empty_texts": empty_texts,
            "labels": _as_entries(labels),
        },
        "load_dataset",
    )  # fmt: skip
    given = None if isinstance(source, (str, Path)) else source
    return _load(settings, base, given).texts


def read_dataset(settings: DataSettings, base: Path | None = None) -> Loaded:
    """Read the source that the settings name: texts, labels, duplicates and the record of what was done."""
    return _load(settings, base, None)


def _as_entries(labels: LabelSchema | Sequence[str] | Mapping[str, str] | None) -> list[dict[str, Any]]:
    if labels is None:
        return []
    if isinstance(labels, LabelSchema):
        return labels.as_records()
    if isinstance(labels, str):
        raise ConfigError(f"labels: found the text {labels!r}; give a list of names")
    if isinstance(labels, Mapping):
        return [{"name": str(name), "description": str(text or "")} for name, text in labels.items()]
    return [{"name": str(name)} for name in labels]


def _load(settings: DataSettings, base: Path | None, given: Any) -> Loaded:
    logger.info("reading %s", settings.source)
    entry = find_entry(settings.source) if given is None else None
    raw = _open(settings, base, given, entry)
    mapped, found = map_columns(raw.frame, settings, entry)
    files = raw.files if isinstance(raw, FoldSource) else ()
    if files:
        need_columns(found, files)
        mapped = mapped.assign(split=None)
        found.pop("split", None)
    record: dict[str, Any] = {
        "source": settings.source,
        **raw.facts,
        "columns": found,
        "rows_read": len(mapped),
        "dropped": {},
    }
    notes = record["notes"] = list(raw.facts.get("notes", []))
    mapped = choose_splits(mapped.assign(row=range(len(mapped))), settings, record)
    gold = _labels(mapped, raw, settings, entry, found.get("gold"))
    mapped = mapped.assign(gold=gold.names, split=name_splits(mapped["split"], raw.facts, notes))
    mapped = _without_empty(mapped, settings.empty_texts, record)
    members = None
    if files:
        mapped, members = merge_files(mapped, files, found.get("text_id"), record)
    texts, duplicates = _identify(mapped, record)
    texts, duplicates = _sample(texts, duplicates, settings, record)
    folds = None
    if members is not None:
        folds = join_given(texts, members, record)
    elif "fold" in found:
        folds = folds_of_column(texts, found["fold"], record)
    _describe(record, texts, duplicates, gold, entry)
    texts = check(texts.drop(columns=["row", FOLD], errors="ignore"), TEXTS)
    texts.attrs = {"labels": gold.schema.as_records() if gold.schema else None, "record": record}
    logger.info("texts: %d of %d rows, %d with gold", len(texts), record["rows_read"], int(texts["gold"].notna().sum()))
    return Loaded(texts, gold.schema, check(duplicates, DUPLICATES), record, folds)


# where the source is


def _open(settings: DataSettings, base: Path | None, given: Any, entry: CatalogEntry | None) -> RawSource:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        return from_frame(given)
    if given is not None:
        if is_datasets_object(given):
            return read_datasets_object(given)
        raise DataError(f"source: found a {type(given).__name__}; give a path, a Hub id, a frame or a datasets.Dataset")
    if entry is not None:
        chosen = settings.split or settings.combine_splits
        return read_hub(entry.path, settings.hf_file or (None if chosen else entry.file), settings.revision)
    path = find_path(settings.source, base)
    if path is None:
        if _HUB_ID.fullmatch(settings.source) and not is_data_file_name(settings.source):
            return read_hub(settings.source, settings.hf_file, settings.revision)
        raise DataError(_not_found(settings.source, base))
    if path.is_dir():
        folds = settings.hf_file is None and has_fold_files(path)
        return read_fold_folder(path) if folds else read_folder(path, settings.hf_file)
    if settings.hf_file:
        raise ConfigError(f"hf_file names one file of a repository or folder, but {path} is a file; drop hf_file")
    return read_file(path)


def _not_found(source: str, base: Path | None) -> str:
    path = Path(source).expanduser()
    folders = [place.parent for place in candidates(source, base)]
    for folder in folders:
        if folder.is_dir() and (hint := nearest(path.name, [child.name for child in sorted(folder.iterdir())])):
            return f"no file {source!r}.{hint} (in {folder})"
    if hint := nearest(source, catalog_names()):
        return f"{source!r} is no file and no dataset of the catalog.{hint}"
    tried = ", ".join(sorted({str(folder.absolute()) for folder in folders}))
    return f"no file {source!r} in {tried}; check the path or set CONSENSO_DATA to the folder of your data"


# what the labels are


def _labels(
    mapped: pd.DataFrame, raw: RawSource, settings: DataSettings, entry: CatalogEntry | None, column: str | None
) -> Gold:
    stated = raw.stated.get(column or "")
    given, given_by = settings.label_schema(), "settings"
    if given is None and entry is not None and not (entry.unverified and stated is not None):
        given, given_by = entry.schema(), "catalog"
    return read_gold(mapped["gold"], stated, given, given_by)


# which rows stay


def _without_empty(mapped: pd.DataFrame, empty_texts: str, record: dict[str, Any]) -> pd.DataFrame:
    strange = [type(value).__name__ for value in mapped["text"] if isinstance(value, (list, dict, tuple, bytes))]
    if strange:
        raise DataError(
            f"text: {len(strange)} cell(s) of type {strange[0]}; column {record['columns']['text']!r} must hold text"
        )
    texts = mapped["text"].map(lambda value: "" if value is None else str(value)).astype(object)
    empty = ~texts.map(clean).astype(bool)
    mapped = mapped.assign(text=texts)
    if empty.all():
        raise DataError(f"all {len(mapped)} texts are empty; check column {record['columns']['text']!r}")
    if empty.any():
        first = int(mapped["row"][empty].iloc[0]) + 1
        found = f"{int(empty.sum())} of {len(mapped)} texts are empty (the first in data row {first})"
        if empty_texts == "error":
            raise DataError(f'{found}; mend the source, or set data.empty_texts = "drop"')
        record["dropped"]["empty text"] = int(empty.sum())
        record["notes"].append(f"{found}; they were dropped")
        logger.warning("%s; they were dropped", found)
    return mapped[~empty].reset_index(drop=True)


def _identify(mapped: pd.DataFrame, record: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give every text its id; rows without own ids collapse into one per text."""
    mapped = mapped.assign(
        group=mapped["group"].map(lambda value: None if value is None else plain_id(value, text=True)).astype(object)
    )
    facts: dict[str, int] = {}
    if own := record["columns"].get("text_id"):
        record["ids"] = f"column {own!r}"
        mapped = mapped.assign(text_id=own_ids(mapped, own), copies=1)
        duplicates = find_duplicates(mapped)
        kept = mapped
    else:
        record["ids"] = "hash of the text"
        mapped = mapped.assign(text_id=mapped["text"].map(text_hash).astype(object), copies=1)
        duplicates = find_duplicates(mapped)
        kept, positions, facts = collapse(mapped)
        duplicates["kept"] = duplicates["row"].isin(positions)
        record["dropped"] |= {"exact duplicate": facts["collapsed_rows"]} if facts["collapsed_rows"] else {}
    duplicates["row"] = mapped["row"].to_numpy()[duplicates["row"]]
    record["duplicates"] = facts
    return kept, duplicates


def _sample(
    texts: pd.DataFrame, duplicates: pd.DataFrame, settings: DataSettings, record: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    size = settings.sample_size
    if size is None:
        return texts, duplicates
    record["sampling"] = {"size": size, "of": len(texts), "sampling": settings.sampling, "seed": settings.seed}
    if settings.sampling == "stratified":
        record["sampling"]["strata"] = "split × gold"
    if size >= len(texts):
        record["notes"].append(f"sample_size = {size}, but there are {len(texts)} texts: all were kept")
        return texts, duplicates
    before = set(texts["gold"].dropna())
    texts = sample_texts(texts, size, settings.sampling, settings.seed)
    if lost := sorted(before - set(texts["gold"].dropna())):
        record["notes"].append(f"no text of the sample has the gold label {', '.join(lost)}")
    record["dropped"]["not sampled"] = record["sampling"]["of"] - len(texts)
    duplicates = duplicates[duplicates["text_id"].isin(texts["text_id"])]
    together = duplicates["duplicate_group"].map(duplicates["duplicate_group"].value_counts()) > 1
    return texts, duplicates[together].reset_index(drop=True)


def _describe(
    record: dict[str, Any], texts: pd.DataFrame, duplicates: pd.DataFrame, gold: Gold, entry: CatalogEntry | None
) -> None:
    """Complete the record with counts, where the labels come from, and what a reader should know."""
    notes, facts = record["notes"], record["duplicates"]
    groups = duplicates.groupby("duplicate_group")["conflicting_gold"].first()
    counts = duplicates["level"].value_counts()
    facts |= {
        "groups": len(groups),
        "groups_with_conflicting_gold": int(groups.sum()),
        **{f"{level}_rows": int(counts.get(level, 0)) for level in ("exact", "normalised")},
    }
    unverified = entry is not None and entry.unverified and gold.labels_from == "catalog"
    record |= {
        "rows_kept": len(texts),
        "with_gold": int(texts["gold"].notna().sum()),
        "labels_from": gold.labels_from,
        "ids_given": gold.schema is not None and gold.schema.ids_given,
        "catalog": entry.name if entry else None,
        "noun": entry.noun if entry else None,
        "licence": None,
        "unverified": unverified,
    }
    if unverified:
        notes.append("catalog: some label names of this dataset are unknown; such labels go by their id")
    if n := facts.get("gold_conflicts"):
        notes.append(
            f"{n} text(s) have copies of different gold: the majority counts; {facts['gold_ties']} tied, gold lost"
        )
    if n := facts.get("split_conflicts"):
        notes.append(f"{n} text(s) with copies in several splits were kept on the evaluation side")
    if n := facts["groups_with_conflicting_gold"]:
        notes.append(f"{n} group(s) of repeated texts have conflicting gold (see the duplicates table)")
