"""Run folders of the earlier system, as they lie on users' disks → votes and texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from consenso.annotate.layouts import VoteColumn, some, stack, text_ids
from consenso.annotate.settings import VoteColumns, VoteImport
from consenso.annotate.values import ValueReader, is_blank, words_of
from consenso.annotate.vote_files import find_source, read_votes_file
from consenso.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from consenso.labels import LabelSchema

VOTE_FILES = (
    "annotations.csv",
    "consensus/dataset_consenso.csv",
    "dataset_consenso.csv",
    "summary/dataset_anotado_completo.csv",
    "dataset_anotado_completo.csv",
)
"""Where a run's votes stand, best first: only annotations.csv is never filtered."""

_PROBLEMATIC = ("consensus/problematic_cases.csv", "problematic_cases.csv")
_PARTIAL = {
    "dataset_consenso.csv": "some versions left the problematic texts out of this file; annotations.csv has all",
    "dataset_anotado_completo.csv": "some versions left texts out of this file; annotations.csv has all",
    "alta_confianca.csv": "this file holds the texts of high consensus only",
    "necessita_revisao.csv": "this file holds the texts of low consensus only",
}
_VOTE = re.compile(r"(?P<model>.+)_rep(?P<repetition>\d+)")
_CONSENSUS = "_consensus"


def is_earlier(frame: pd.DataFrame) -> bool:
    """Return whether a table has the columns that only the earlier system writes."""
    ends = ("_consensus_score", "_annotation_time_sec")
    return any(str(name).endswith(ends) for name in frame.columns) or "most_common_annotation" in frame.columns


def find_vote_file(place: Path) -> Path:
    """Return the vote file of a run: the file itself, the run folder's best one, or that of the only run of a data set.

    Raises `DataError` for a folder with several runs (lists them) and for one without votes.
    """
    if place.is_file():
        return place
    if (found := _votes_in(place)) is not None:
        return found
    # Runs are told by what they hold: intermediate.csv, two_phase_*, _checkpoints* stand beside them and are none.
    runs = {folder: file for folder in sorted(place.iterdir()) if folder.is_dir() and (file := _votes_in(folder))}
    if len(runs) == 1:
        return next(iter(runs.values()))
    if runs:
        names = ", ".join(folder.name for folder in runs)
        raise DataError(f"{place} holds {len(runs)} runs: {names}; choose one, for example {max(runs)}")
    hint = ""
    if (place / "intermediate.csv").exists():
        hint = "; intermediate.csv is a checkpoint that all runs share: name the file itself to read it"
    raise DataError(f"{place} is no run folder of the earlier system; looked for {', '.join(VOTE_FILES)}{hint}")


def partial_note(path: Path) -> str:
    """Return why a file of the earlier system may lack texts, or ''."""
    return _PARTIAL.get(path.name, "")


def earlier_votes(frame: pd.DataFrame, settings: VoteImport, reader: ValueReader, where: str) -> pd.DataFrame:
    """Return the raw votes of a table of the earlier system: per repetition where it has them, else per `m_consensus`.

    `m_consensus_score` is a share of repetitions, not a confidence, and is not read as one.
    """
    cells = _vote_columns([str(name) for name in frame.columns])
    if not cells:
        raise DataError(
            f"{where}: no votes of single annotators (<model>_rep<r>, <model>_consensus); found {some(frame.columns)}. "
            "A file with the consensus alone cannot be imported: use annotations.csv of the same run"
        )
    return stack(frame, cells, text_ids(frame, settings.columns, where))


def read_earlier_texts(
    folder: str | Path, labels: LabelSchema | None = None, *, base: Path | None = None
) -> pd.DataFrame:
    """Read the texts of a run of the earlier system.

    Returns text_id (text), text, gold (label name where `labels` is given, else the value as it stands; null where the
    run had no gold) and earlier_problematic (listed in the run's problematic_cases.csv, which may stem from an older
    consensus). Raises `DataError` as `read_votes` does, and for a text id that stands twice.
    """
    import pandas as pd

    path = find_vote_file(find_source(folder, base))
    frame = read_votes_file(path)
    if "text" not in frame.columns:
        raise DataError(f"{path}: no column text; found {some(frame.columns)}")
    ids = text_ids(frame, VoteColumns(), str(path)).map(str)
    if (repeated := ids[ids.duplicated()]).size:
        raise DataError(
            f"{path}: {repeated.size} repeated text id(s), for example {repeated.iloc[0]!r}; keep one row each"
        )
    gold = pd.Series(None, index=frame.index, dtype=object)
    if "ground_truth" in frame.columns:
        values = frame["ground_truth"]
        words = words_of(values)
        gold = (words if labels is None else labels.read_column(words)).mask(is_blank(values), None)
    problematic = ids.isin(_problematic_ids(path))
    return pd.DataFrame({"text_id": ids, "text": frame["text"], "gold": gold, "earlier_problematic": problematic})


def _votes_in(folder: Path) -> Path | None:
    return next((folder / name for name in VOTE_FILES if (folder / name).is_file()), None)


def _vote_columns(names: list[str]) -> list[VoteColumn]:
    present = set(names)
    cells = []
    for name in names:
        if match := _VOTE.fullmatch(name):
            model, repetition = match["model"], int(match["repetition"])
            confidence = f"{name}_conf" if f"{name}_conf" in present else None
            cells.append(VoteColumn(model, repetition, name, confidence))
    repeated = [cell.annotator for cell in cells]
    for name in names:
        model = name.removesuffix(_CONSENSUS)
        if name.endswith(_CONSENSUS) and model and model not in repeated:
            cells.append(VoteColumn(model, 0, name))
    return [_with_seconds(cell, present, repeated.count(cell.annotator)) for cell in cells]


def _with_seconds(cell: VoteColumn, present: set[str], repetitions: int) -> VoteColumn:
    """The seconds of a text's annotation are those of one vote only where the model was asked once."""
    seconds = f"{cell.annotator}_annotation_time_sec"
    if repetitions > 1 or seconds not in present:
        return cell
    return VoteColumn(cell.annotator, cell.repetition, cell.column, cell.confidence, seconds)


def _problematic_ids(votes: Path) -> set[str]:
    """The ids of the run's problematic_cases.csv, which stands beside the votes or in consensus/."""
    run = votes.parent.parent if votes.parent.name in {"consensus", "summary"} else votes.parent
    path = next((run / name for name in _PROBLEMATIC if (run / name).is_file()), None)
    return set(text_ids(read_votes_file(path), VoteColumns(), str(path)).map(str)) if path else set()
