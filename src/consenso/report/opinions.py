"""What is known of each text, one text at a time: what the exports to annotation tools are made of."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consenso.labels import LabelSchema
from consenso.report.blocks import absent
from consenso.report.facts import Facts
from consenso.store import RunFolder, write_atomically
from consenso.tables import with_text_ids

BATCH = 20_000
"""Rows of a table held at once."""


@dataclass(frozen=True)
class Opinion:
    """A label that somebody gives a text."""

    who: str
    """An annotator; or the source of a final label: consensus, human or gold."""
    label: str
    """The label's name."""
    score: float | None
    """How sure it is, 0 to 1; None where that is not known."""


@dataclass(frozen=True)
class Opinions:
    """A text with all that was said of it."""

    text_id: str
    text: str
    votes: list[Opinion]
    """One per annotator with a label, by name; its repetitions count as one."""
    final: Opinion | None
    """The final label, or None where there is none."""
    score: float | None
    """The consensus score."""
    level: str | None
    """The consensus level: high, medium or low."""
    is_problematic: bool
    """Whether the consensus marks the text."""

    @property
    def state(self) -> dict[str, str]:
        """What a list of texts can be filtered by."""
        return {"consensus_level": self.level or "none", "is_problematic": "yes" if self.is_problematic else "no"}


def opinions(facts: Facts) -> Iterator[Opinions]:
    """Yield every text that anyone was asked about, in the order of ids; texts and votes are read batch by batch.

    An annotator's label is that of most of its repetitions (none where they tie), its score their mean confidence; a
    confidence outside 0 to 1 is on a scale of its own and left out.
    """
    place, consensus = facts.folder, _by_id(facts, "consensus")
    votes_of = _taker(place, "votes", ("text_id", "annotator", "label", "status", "confidence"))
    final_of = _by_id(facts, "final_labels")
    for text_id, text in _rows(place, "texts", ("text_id", "text")):
        votes = [vote for vote in votes_of(text_id) if vote[3] != "settled"]
        if not votes:
            continue
        of_consensus, final = consensus.get(text_id, {}), final_of.get(text_id, {})
        score, level = _share(of_consensus.get("score")), of_consensus.get("level")
        given = None
        if not absent(final.get("label")):
            source = str(final["source"])
            given = Opinion(source, str(final["label"]), score if source == "consensus" else None)
        problematic = bool(of_consensus.get("is_problematic"))
        yield Opinions(
            text_id, text, list(_own(votes)), given, score, None if absent(level) else str(level), problematic
        )


def who_voted(place: RunFolder) -> list[str]:
    """Return the annotators in the votes, by name; `DataError` where there are no votes yet."""
    return sorted({str(name) for (name,) in _rows(place, "votes", ("annotator",))})


def schema_of(facts: Facts) -> LabelSchema:
    """Return the run's labels; those found where the record has none."""
    return facts.schema or LabelSchema.from_names(facts.label_names)


def write_json_list(path: Path, items: Iterable[Any]) -> Path:
    """Write a JSON list, an item a line, without holding it whole; ASCII, so that no reader's encoding matters."""

    def write(to: Path) -> None:
        with to.open("w", encoding="ascii", newline="\n") as file:
            file.write("[")
            for place, item in enumerate(items):
                file.write((",\n" if place else "\n") + json.dumps(item, allow_nan=False))
            file.write("\n]\n")

    write_atomically(path, write)
    return path


def _own(votes: list[tuple[Any, ...]]) -> Iterator[Opinion]:
    """One opinion per annotator that has a label."""
    for annotator, mine in itertools.groupby(votes, key=lambda vote: str(vote[1])):
        said = [(str(label), confidence) for _, _, label, _, confidence in mine if label is not None]
        top = Counter(label for label, _ in said).most_common(2)
        if not top or (len(top) == 2 and top[0][1] == top[1][1]):
            continue
        sure = [share for label, value in said if label == top[0][0] and (share := _share(value)) is not None]
        yield Opinion(annotator, top[0][0], sum(sure) / len(sure) if sure else None)


def _share(value: Any) -> float | None:
    return None if absent(value) or not 0 <= value <= 1 else float(value)


def _rows(place: RunFolder, name: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    for batch in place.read_parts(name, columns, BATCH):
        yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)


def _taker(place: RunFolder, name: str, columns: tuple[str, ...]) -> Callable[[str], list[tuple[Any, ...]]]:
    """Return text id → its rows, for ids that are asked for in the tables' own order."""
    groups = itertools.groupby(_rows(place, name, columns), key=lambda row: str(row[0]))
    waiting: list[tuple[str, list[tuple[Any, ...]]]] = []

    def take(text_id: str) -> list[tuple[Any, ...]]:
        while not waiting or waiting[0][0] < text_id:
            waiting.clear()
            if (group := next(groups, None)) is None:
                return []
            waiting.append((group[0], list(group[1])))
        return waiting[0][1] if waiting[0][0] == text_id else []

    return take


def _by_id(facts: Facts, name: str) -> dict[str, dict[str, Any]]:
    """Rows of the labels in use, or of the final labels, by text id."""
    table = facts.consensus if name == "consensus" else facts.table(name)
    if table is None:
        return {}
    columns = ["text_id", *(["score", "level", "is_problematic"] if name == "consensus" else ["label", "source"])]
    found: dict[str, dict[str, Any]] = with_text_ids(table[columns]).set_index("text_id").to_dict("index")
    return found
