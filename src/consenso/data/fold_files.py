"""Folds that a source brings: a column of fold numbers, or a folder of train_fold_0, test_fold_0, train_fold_1, …"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.data.columns import FOLD
from consenso.data.duplicates import EVALUATION_FIRST
from consenso.data.folding import number_folds
from consenso.data.gold import gold_text
from consenso.data.hub import read_folder
from consenso.data.ids import need_ids, plain_id
from consenso.data.settings import MOST_FOLDS
from consenso.data.splitting import read_split
from consenso.errors import ConfigError, DataError
from consenso.readers import RawSource, StatedLabels, data_suffix, is_data_file_name, read_file
from consenso.tables import FOLDS
from consenso.text import clean, text_hash

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_NAME = re.compile(r"(train|test|dev|val|valid|validation)_fold_(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class FoldFile:
    """One part of one fold."""

    name: str
    """The file's name, with its suffix."""
    fold: int
    part: str
    columns: tuple[str, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class FoldSource(RawSource):
    """A folder of folds: the rows of all files, one after the other."""

    files: tuple[FoldFile, ...] = ()
    """The files in the order of their rows."""


# a folder of files


def has_fold_files(folder: Path) -> bool:
    """Return whether a folder holds a train_fold_k, test_fold_k or dev_fold_k, as a file or as a `datasets` folder."""
    return any(_fold_file(path) for path in folder.iterdir())


def read_fold_folder(folder: Path) -> FoldSource:
    """Read all train_fold_k, test_fold_k and dev_fold_k of a folder; a missing or doubled one raises `DataError`."""
    import pandas as pd

    files = _complete(folder)
    sources = [_read_one(folder / file.name) for file in files]
    columns = list(dict.fromkeys(name for source in sources for name in source.frame.columns))
    files = [
        replace(file, columns=tuple(map(str, source.frame.columns)), rows=len(source.frame))
        for file, source in zip(files, sources)
    ]
    frames = [_with_columns(source.frame, columns) for source in sources]
    ignored = sorted({path.name for path in folder.iterdir() if is_data_file_name(path.name)} - {f.name for f in files})
    notes = [f"{file.name}: {note}" for file, source in zip(files, sources) for note in source.facts.get("notes", [])]
    notes += [f"not read, for it is no fold: {', '.join(ignored)}"] if ignored else []
    facts = {
        "kind": "folds", "path": str(folder), "notes": notes,
        "files": {f.name: {"rows": f.rows, "sha256": s.facts.get("sha256")} for f, s in zip(files, sources)},
    }  # fmt: skip
    logger.info("folds: %d files in %s", len(files), folder)
    return FoldSource(pd.concat(frames, ignore_index=True), _stated(files, sources), facts, tuple(files))


def _with_columns(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    absent = [name for name in columns if name not in frame.columns]
    return frame.assign(**{name: pd.Series(None, index=frame.index, dtype=object) for name in absent})[columns]


def _fold_file(path: Path) -> FoldFile | None:
    is_data = path.is_dir() or is_data_file_name(path.name)
    stem = path.name if path.is_dir() else path.name[: len(path.name.removesuffix(".gz")) - len(data_suffix(path))]
    match = _NAME.fullmatch(stem) if is_data else None
    return FoldFile(path.name, int(match[2]), str(read_split(match[1]))) if match else None


def _complete(folder: Path) -> list[FoldFile]:
    """The files in order of fold and part, after checking that none is missing."""
    found: dict[tuple[int, str], FoldFile] = {}
    for file in filter(None, map(_fold_file, sorted(folder.iterdir()))):
        if other := found.get((file.fold, file.part)):
            raise DataError(
                f"{folder}: {other.name} and {file.name} are both {file.part} of fold {file.fold}; keep one"
            )
        found[file.fold, file.part] = file
    last = max(fold for fold, _ in found)
    if last >= MOST_FOLDS:
        raise DataError(f"{folder}: found fold {last}; folds are numbered from 0, and at most {MOST_FOLDS}")
    parts = ("train", "test", *(["dev"] if any(part == "dev" for _, part in found) else []))
    for fold in range(last + 1):
        for part in parts:
            if (fold, part) not in found:
                example = min(found.values(), key=lambda file: (file.part != part, file.fold)).name
                raise DataError(
                    f"{folder}: {part}_fold_{fold} is missing; the last fold is {last}, and every fold from 0 on needs "
                    f"{', '.join(parts)} (found {example}, for example); add the file"
                )
    return [found[fold, part] for fold in range(last + 1) for part in ("train", "dev", "test") if (fold, part) in found]


def _read_one(path: Path) -> RawSource:
    return read_folder(path) if path.is_dir() else read_file(path)


def _stated(files: Sequence[FoldFile], sources: Sequence[RawSource]) -> dict[str, StatedLabels]:
    """The labels that all files state alike; codes of different labels raise `DataError`."""
    stated: dict[str, StatedLabels] = {}
    for column in sources[0].stated:
        first = sources[0].stated[column]
        other = next((f for f, source in zip(files, sources) if source.stated.get(column) != first), None)
        if other is None:
            stated[column] = first
        elif first.coded:
            raise DataError(
                f"{files[0].name} and {other.name} state different labels for {column!r}; save both with the same labels"
            )
    return stated


def need_columns(found: Mapping[str, str], files: Sequence[FoldFile]) -> None:
    """Raise `DataError` where a file lacks a column that stands for something in another file."""
    for meaning, column in found.items():
        for file in files:
            if meaning != "split" and column not in file.columns:
                raise DataError(
                    f"{file.name}: missing column {column!r} (for {meaning}), which other folds have; found {list(file.columns)}"
                )


def merge_files(
    mapped: pd.DataFrame, files: Sequence[FoldFile], own: str | None, record: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows as if the texts had come in one file, and who stands where (fold, text_id as text, part).

    A text has as many rows as in the file that has most of it; its gold is that of any file. `own` is the column of ids,
    None where the text is the id. A text whose gold, or an id whose text, differs between files raises `DataError`.
    """
    import numpy as np

    if own:
        need_ids(mapped, own)
    ids = mapped["text_id"].map(lambda value: plain_id(value, text=True)) if own else mapped["text"].map(text_hash)
    ends = np.cumsum([file.rows for file in files])
    place = np.searchsorted(ends, mapped["row"].to_numpy(), side="right")
    rows = mapped.assign(_id=ids, _file=place)
    _refuse_other_texts(rows, files, own)
    _refuse_other_gold(rows, files, own)
    members = rows[["_id"]].assign(fold=[files[i].fold for i in place], part=[files[i].part for i in place])
    rows["_copy"] = rows.groupby(["_file", "_id"]).cumcount()
    rows["gold"] = rows.groupby(["_id", "_copy"])["gold"].transform("first").astype(object)
    rows["gold"] = rows["gold"].where(rows["gold"].notna(), None)
    merged = rows.drop_duplicates(["_id", "_copy"]).drop(columns=["_id", "_file", "_copy"]).reset_index(drop=True)
    if repeated := len(mapped) - len(merged):
        record["dropped"]["also in another fold file"] = repeated
    return merged, _membership(members, record)


def _membership(members: pd.DataFrame, record: dict[str, Any]) -> pd.DataFrame:
    members = members.rename(columns={"_id": "text_id"}).drop_duplicates()
    members = members.sort_values(["fold", "text_id", "part"], key=_evaluation_first)
    twice = members.duplicated(["fold", "text_id"])
    if twice.any():
        folds = members.loc[twice, "fold"].nunique()
        record["notes"].append(
            f"{int(twice.sum())} text(s) stand in two parts of one fold ({folds} fold(s)) and were kept on the evaluation side"
        )
    return members.loc[~twice, list(FOLDS.columns)].reset_index(drop=True)


def _evaluation_first(values: pd.Series) -> pd.Series:
    return values.map(EVALUATION_FIRST) if values.name == "part" else values


def _refuse_other_texts(rows: pd.DataFrame, files: Sequence[FoldFile], own: str | None) -> None:
    if own is None:
        return
    texts = rows["text"].map(clean)
    if (two := texts.groupby(rows["_id"]).transform("nunique") > 1).any():
        example = min(rows.loc[two, "_id"])
        places = rows.loc[rows["_id"] == example].assign(text=texts).drop_duplicates("text")["_file"].tolist()
        raise DataError(
            f"id {example!r} of {own!r} stands for different texts, in {_named(places[:2], files)} "
            f"({rows.loc[two, '_id'].nunique()} such id(s)); give each text an id of its own"
        )


def _refuse_other_gold(rows: pd.DataFrame, files: Sequence[FoldFile], own: str | None) -> None:
    labelled = rows[rows["gold"].notna()]
    doubtful = labelled[labelled.groupby("_id")["gold"].transform("nunique") > 1]
    sets = doubtful.groupby(["_id", "_file"])["gold"].agg(lambda gold: tuple(sorted(set(gold))))
    different: dict[str, list[tuple[int, str]]] = {}
    for text_id, mine in sets.groupby(level=0):
        if mine.nunique() > 1:
            one = mine.drop_duplicates().iloc[:2]
            different[str(text_id)] = [(file, "/".join(gold)) for (_, file), gold in one.items()]
    if different:
        example = min(different)
        shown = rows.loc[rows["_id"] == example, "text"].iloc[0]
        where = " but ".join(f"{gold!r} in {files[file].name}" for file, gold in different[example])
        todo = "mend the files" if own else "mend the files, or give the texts ids of their own"
        raise DataError(
            f"gold differs between fold files for {len(different)} text(s): {clean(shown)[:60]!r} (id {example!r}) is "
            f"{where}; {todo}"
        )


def _named(places: Sequence[int], files: Sequence[FoldFile]) -> str:
    return " and ".join(dict.fromkeys(files[place].name for place in places))


# a column of fold numbers


def folds_of_column(texts: pd.DataFrame, column: str, record: dict[str, Any]) -> pd.DataFrame:
    """Return FOLDS: a text is tested in the fold of its number and trains in the others; without a number it only trains.

    Texts of a given dev split are dev in every fold. A given test split raises `ConfigError`; other values than whole
    numbers, a gap in them, or a number for a dev text raise `DataError`.
    """
    import pandas as pd

    if (tests := texts["split"] == "test").any():
        raise ConfigError(
            f"columns.fold names the test folds, but the data give a test split ({int(tests.sum())} texts): either fold "
            'numbers or the given test split; drop columns.fold, or the split with columns = { split = "" }'
        )
    numbers = texts[FOLD].map(lambda value: _fold_number(value, column))
    numbered = numbers.dropna()
    if (texts.loc[numbered.index, "split"] == "dev").any():
        raise DataError(
            f"column {column!r}: a text of the dev split has a fold number; leave it empty, or drop the split"
        )
    k = number_folds(numbered, f"column {column!r}")
    base = texts["split"].map(lambda split: "dev" if split == "dev" else "train")
    record["folds"] = {"column": column, "number": k}
    return pd.concat(
        [
            pd.DataFrame({"fold": fold, "text_id": texts["text_id"], "part": base.where(numbers != fold, "test")})
            for fold in range(k)
        ],
        ignore_index=True,
    )


def _fold_number(value: Any, column: str) -> float:
    """The number; NaN where there is none."""
    cell = gold_text(value)
    if cell is None:
        return float("nan")
    if not re.fullmatch(r"\d{1,4}(\.0*)?", cell):
        raise DataError(f"column {column!r}: found {cell!r}; fold numbers are whole numbers from 0")
    return float(cell)


def join_given(texts: pd.DataFrame, members: pd.DataFrame, record: dict[str, Any]) -> pd.DataFrame:
    """Return FOLDS of the texts that were kept, under their own ids."""
    own = {str(text_id): text_id for text_id in texts["text_id"]}
    members = members[members["text_id"].isin(own)].reset_index(drop=True)
    record["folds"] = {"files": len(record["files"]), "number": int(members["fold"].nunique())}
    return members.assign(text_id=members["text_id"].map(own))
