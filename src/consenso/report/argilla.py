"""A run as a dataset with suggestions, as Argilla 2 reads it from disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from consenso.labels import LabelSchema
from consenso.report.export import open_folder
from consenso.report.facts import Facts
from consenso.report.opinions import Opinion, Opinions, opinions, schema_of, who_voted, write_json_list
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder, write_text

LABEL = "label"
"""The question that humans answer."""
LONGEST = 200
"""Characters that Argilla allows a name."""


def export_argilla(folder: RunFolder | str | Path, out: str | Path) -> Path:
    """Write the folder <out>/argilla, which `rg.Dataset.from_disk` reads, and return its path.

    It holds records.json (texts that anyone was asked about, each with suggestions and metadata), .argilla/settings.json
    and .argilla/dataset.json. Argilla keeps one suggestion per question. The question `label`, which humans answer, has the
    final label (agent: consensus, human or gold; score: the consensus score); each annotator's vote is the suggestion
    (agent: its name; score: its confidence, where it has one) of an optional question of its own, `vote_<name>`. Metadata
    to filter and sort by: consensus_level, consensus_score, is_problematic, votes. Gold is not written: whoever labels
    should not see it.
    Raises `DataError` where there are no votes yet.
    """
    place, target = open_folder(folder), Path(out) / "argilla"
    facts = Facts(place, ReportSettings())
    questions = question_names(who_voted(place))
    settings = settings_of(schema_of(facts), questions)
    write_json_list(target / "records.json", records(facts, questions))
    _write(target / ".argilla" / "settings.json", settings)
    name = re.sub(r"[^\w-]+", "-", facts.name, flags=re.ASCII).strip("-_")[:LONGEST] or "consenso"
    _write(target / ".argilla" / "dataset.json", {"name": name, "allow_extra_metadata": False})
    return target


def question_names(annotators: list[str]) -> dict[str, str]:
    """Return annotator → the name of its question: distinct, of the characters that Argilla allows."""
    found: dict[str, str] = {}
    for number, annotator in enumerate(annotators, 1):
        name = "vote_" + re.sub(r"[^a-z0-9_-]+", "-", annotator.lower())[: LONGEST - 20].strip("-")
        found[annotator] = name if name not in {"vote_", *found.values()} else f"{name}-{number}"
    return found


def settings_of(schema: LabelSchema, questions: Mapping[str, str]) -> dict[str, Any]:
    """Return settings.json: the field text, the questions, the metadata."""
    label = _question(LABEL, "Label", schema, required=True)
    votes = [
        _question(name, annotator, schema, required=False, description=f"What {annotator} said; leave it as it stands.")
        for annotator, name in questions.items()
    ]
    meanings = [f"{name}: {text}" for name, text in schema.descriptions.items() if text]
    return {
        "guidelines": "\n\n".join(["Choose the label that fits the text best.", *meanings])[:10_000],
        "fields": [_named("text", "Text", "text", {"use_markdown": False}, required=True)],
        "questions": [label, *votes],
        "vectors": [],
        "metadata": [
            _metadata("consensus_level", "Consensus level", "terms", values=["high", "medium", "low", "none"]),
            _metadata("consensus_score", "Consensus score", "float", min=0.0, max=1.0),
            _metadata("is_problematic", "Problematic", "terms", values=["yes", "no"]),
            _metadata("votes", "Annotators with a label", "integer", min=None, max=None),
        ],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


def _question(
    name: str, title: str, schema: LabelSchema, *, required: bool, description: str | None = None
) -> dict[str, Any]:
    options = [{"value": label, "text": label, "description": None} for label in schema.names]
    settings = {"options": options, "visible_options": None}
    return {**_named(name, title, "label_selection", settings, required=required), "description": description}


def _named(name: str, title: str, kind: str, settings: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "title": title[:500],
        "required": required,
        "type": kind,
        "settings": {"type": kind, **settings},
    }


def _metadata(name: str, title: str, kind: str, **bounds: Any) -> dict[str, Any]:
    shown = {"visible_for_annotators": True}
    return {"name": name, "title": title, **shown, "settings": {"type": kind, **shown, **bounds}}


def records(facts: Facts, questions: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the records, in the nested form that Argilla itself writes."""
    for one in opinions(facts):
        suggestions = {questions[vote.who]: _suggestion(vote) for vote in one.votes}
        if one.final is not None:
            suggestions = {LABEL: _suggestion(one.final), **suggestions}
        yield {
            "id": one.text_id,
            "fields": {"text": one.text},
            "metadata": _metadata_of(one),
            "suggestions": suggestions,
            "responses": {},
            "vectors": {},
            "status": "pending",
        }


def _metadata_of(one: Opinions) -> dict[str, Any]:
    score = {} if one.score is None else {"consensus_score": one.score}
    return {**one.state, **score, "votes": len(one.votes)}


def _suggestion(given: Opinion) -> dict[str, Any]:
    agent = re.sub(r"[^\w:./\s-]+", "-", given.who, flags=re.ASCII)[:LONGEST]
    named = {"agent": agent} if re.search(r"[A-Za-z0-9]", agent) else {}
    kind = "human" if given.who in {"human", "gold"} else "model"
    return {"value": given.label, "score": given.score, "type": kind, **named}


def _write(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
