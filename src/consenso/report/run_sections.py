"""The sections about trust and record: guards, leakage and duplicates, what was run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import (
    MISSING,
    Block,
    Cell,
    Column,
    Grid,
    Note,
    Section,
    absent,
    cells,
    count,
    cut,
    number,
    plural,
    words,
)
from consenso.report.facts import Facts

if TYPE_CHECKING:
    import pandas as pd

OUTCOME_WORDS = {"failed": "✕ failed", "warned": "! warned", "not_checked": "○ not checked", "passed": "✓ passed"}


def guards(facts: Facts) -> Section:
    """Return every guard with its outcome and reason, the failed first."""
    section = ("guards", "Guards")
    table = facts.table("guards")
    if table is None:
        return Section(*section, [Note(facts.why_absent("guards"), "absent")], group="Can it be trusted?")
    order = {outcome: k for k, outcome in enumerate(OUTCOME_WORDS)}
    several = table["scope"].nunique() > 1
    rows = []
    table = table.assign(_o=table["outcome"].map(order), _i=~table["invalidates"].fillna(False).astype(bool))
    table = table.assign(reason=table["reason"].map(words), figures=table["figures"].map(_figures))
    same = ["_o", "_i", "guard", "outcome", "reason", "figures"]
    for (_, free, guard, outcome, reason, figures), found in table.groupby(same, sort=True)["scope"]:
        scopes = sorted(set(found) - {"all"})
        name = f"{guard} ({', '.join(scopes)})" if several and scopes else str(guard)
        small = "makes the verdict invalid" if outcome == "failed" and not free else ""
        first = Cell(OUTCOME_WORDS[outcome], small=small, tone=outcome)
        rows.append([first, Cell(name.replace("_", " ")), Cell(reason, small=figures)])
    caption = "What was checked before the verdict was given; a guard that failed decides it"
    return Section(
        *section,
        [Grid(caption, [Column("outcome"), Column("guard"), Column("reason")], rows)],
        group="Can it be trusted?",
    )


def _figures(text: Any) -> str:
    if absent(text):
        return ""
    try:
        found = json.loads(text)
    except ValueError:
        return str(text)
    if not isinstance(found, dict):
        return str(found)
    said = "; ".join(
        f"{key}: {_plain(value)}"
        for key, value in found.items()
        if key != "contrasts" and not isinstance(value, dict) and value not in (None, "", [])
    )
    said = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b", r"\1…", said)
    return said if len(said) <= 160 else said[:159] + "…"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 4).rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return words(value)


def leakage(facts: Facts) -> Section:
    """Return which texts were removed because they stand in another part, and which rows repeat each other."""
    section = ("leakage", "Leakage and duplicates")
    if facts.table("folds") is None:
        return Section(*section, [Note(facts.why_absent("folds"), "absent")])
    blocks: list[Block] = []
    leaks = facts.table("leaks")
    if leaks is None:
        level = facts.setting("data", "leakage", "near")
        reason = "was switched off" if level == "off" else "found no text of one part in another"
        blocks.append(Note(f"The leakage guard {reason} (level: {level})."))
    else:
        blocks += _leaks(facts, leaks)
    duplicates = facts.table("duplicates")
    if duplicates is None:
        blocks.append(Note("No text stands twice in the data."))
    else:
        kept = duplicates["kept"].fillna(False).astype(bool)
        clash = duplicates[duplicates["conflicting_gold"].fillna(False).astype(bool)]
        groups = duplicates["duplicate_group"].nunique()
        size = f"{plural(groups, 'group')} of repeated texts with {plural(len(duplicates), 'row')}"
        text = f"{size}; {plural(int((~kept).sum()), 'row')} collapsed into the first."
        clashing = clash["duplicate_group"].nunique()
        warning = (
            f" {plural(clashing, 'group')} with different gold labels for the same text."
            if clashing
            else " Their gold labels agree."
        )
        blocks.append(Note(text + warning, "warned" if clashing else ""))
    return Section(*section, blocks)


def _leaks(facts: Facts, leaks: pd.DataFrame) -> list[Block]:
    def pairs(level: str) -> pd.DataFrame:
        return leaks[leaks["level"] == level]

    keys = leaks[["level", "part", "other_part"]].fillna("–").drop_duplicates()
    body = []
    for _, key in keys.sort_values(["level", "part", "other_part"]).iterrows():
        mine = pairs(key["level"])
        mine = mine[(mine["part"].fillna("–") == key["part"]) & (mine["other_part"].fillna("–") == key["other_part"])]
        body.append(
            cells(key["level"], key["part"], key["other_part"], count(mine["text_id"].nunique()), count(len(mine)))
        )
    columns = [
        Column("level"),
        Column("removed from"),
        Column("because of"),
        Column("texts", True),
        Column("pairs", True),
    ]
    removed = leaks["text_id"].nunique()
    why = "because it repeats a text" if removed == 1 else "because they repeat texts"
    caption = f"{plural(removed, 'text')} removed, from every arm alike, {why} of another part"
    blocks: list[Block] = [Grid(caption, columns, body)]
    texts, most = facts.table("texts"), facts.settings.leaks
    if texts is None or not most:
        return blocks
    said = texts.set_index("text_id")["text"].astype(object)
    listed = leaks.sort_values(["similarity", "text_id", "other_id"], ascending=[False, True, True]).head(most)
    rows = []
    for _, row in listed.iterrows():
        one, other = (
            cut(words(said.get(row[name])), facts.settings.text_length // 2) for name in ("text_id", "other_id")
        )
        gold = MISSING if absent(row["same_gold"]) else ("same gold" if bool(row["same_gold"]) else "other gold")
        rows.append(
            [
                Cell(f"{row['level']}, {number(row['similarity'], 2)}", small=gold),
                Cell(one[0], small=f"{row['text_id']} ({words(row['part'])})", full=one[1]),
                Cell(other[0], small=f"{row['other_id']} ({words(row['other_part'])})", full=other[1]),
            ]
        )
    title = (
        "The removed texts" if len(listed) == len(leaks) else f"The first {len(listed)} of {count(len(leaks))} pairs"
    )
    heads = [Column("likeness"), Column("removed"), Column("stays")]
    return [*blocks, Grid("Removed texts beside the texts they repeat", heads, rows, folded=title, in_markdown=False)]


def what_was_run(facts: Facts) -> Section:
    """Return settings, data, versions, seeds, hashes and seconds."""
    section = ("run", "What was run")
    if not facts.record:
        return Section(
            *section,
            [Note("There is no run.json: settings and versions of this run are not known.", "absent")],
            group="The record",
        )
    blocks: list[Block] = []
    for grid in (_counts(facts), _seconds(facts), _data(facts), _settings(facts), _versions(facts), _hashes(facts)):
        if grid is not None:
            blocks.append(grid)
    empty = Note("The record of this run names neither settings nor counts.", "absent")
    return Section(*section, blocks or [empty], group="The record")


PAIR = (Column("what"), Column("value"))


def _trainings(runs: pd.DataFrame) -> str:
    """Return how many different trainings stand behind the runs of the table trainings (without a key: floors)."""
    n = runs["key"].nunique()
    return f"{count(n)} different ones: arms with equal labels share a training, floors need none" if n else MISSING


def _counts(facts: Facts) -> Grid | None:
    rows = []
    texts, folds, votes, trainings = (facts.table(name) for name in ("texts", "folds", "votes", "trainings"))
    if texts is not None:
        rows.append(cells("texts", count(len(texts))))
    if folds is not None:
        sizes = folds.groupby("part")["text_id"].nunique()
        rows += [cells(f"{part} texts", count(sizes[part])) for part in ("train", "dev", "test") if part in sizes]
    if facts.label_names:
        rows.append(cells("labels", f"{len(facts.label_names)}: {', '.join(facts.label_names)}"))
    if votes is not None:
        rows.append(cells("votes", f"{count(len(votes))} of {plural(votes['annotator'].nunique(), 'annotator')}"))
    if trainings is not None:
        seeds = sorted(set(trainings["seed"]))
        students = f"{plural(trainings['student'].nunique(), 'student')}: {', '.join(facts.students)}"
        rows.append(cells("runs", f"{count(len(trainings))} of {students}"))
        rows.append(cells("trainings", _trainings(trainings)))
        rows.append(cells("seeds", ", ".join(str(int(seed)) for seed in seeds)))
    first = facts.record.get("first_scoring")
    if isinstance(first, Mapping):
        rows.append(cells("first scored at", words(first.get("at"))))
    for name in ("started_at", "finished_at"):
        if facts.record.get(name):
            rows.append(cells(name.replace("_", " "), str(facts.record[name])))
    return Grid("Counts", PAIR, rows) if rows else None


def _seconds(facts: Facts) -> Grid | None:
    stages = facts.record.get("stages") or {}
    seconds = {name: entry.get("seconds") for name, entry in stages.items()} or dict(facts.record.get("seconds") or {})
    seconds.pop("report", None)  # known only once the report is written: a second report would differ from the first
    if not seconds:
        return None
    rows = [cells(str(name), number(value, 1)) for name, value in seconds.items()]
    return Grid("Seconds per stage", [Column("stage"), Column("seconds", True)], rows)


def _data(facts: Facts) -> Grid | None:
    rows = _flat(facts.record.get("data"))
    return (
        Grid("The data", PAIR, rows, folded="The data: source, counts, fingerprint", in_markdown=False)
        if rows
        else None
    )


def _settings(facts: Facts) -> Grid | None:
    rows = _flat(facts.record.get("settings"))
    return (
        Grid("Effective settings", PAIR, rows, folded=f"All {len(rows)} settings", in_markdown=False) if rows else None
    )


def _versions(facts: Facts) -> Grid | None:
    environment = dict(facts.record.get("environment") or {})
    versions = {**(environment.pop("versions", None) or {}), **(facts.record.get("versions") or {})}
    rows = _flat({**environment, **versions})
    return Grid("Versions and machine", PAIR, rows) if rows else None


def _hashes(facts: Facts) -> Grid | None:
    prints = facts.record.get("tables") or {}
    rows = [[Cell(str(name)), Cell(str(value)[:16])] for name, value in sorted(prints.items())]
    if not rows:
        return None
    caption = "The first 16 digits of the sha256 of each table, without volatile columns"
    columns = (Column("table"), Column("sha256"))
    return Grid(caption, columns, rows, folded="Fingerprints of the tables", in_markdown=False)


def _flat(values: Any, path: str = "") -> list[list[Cell]]:
    """Nested settings as lines `section.key`, in their own order."""
    if isinstance(values, Mapping) and values:
        return [row for key, value in values.items() for row in _flat(value, f"{path}.{key}" if path else str(key))]
    if isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        return [row for k, value in enumerate(values, 1) for row in _flat(value, f"{path}[{k}]")]
    if not path:
        return []
    return [[Cell(path), Cell(_plain(values) if values not in ({}, []) else MISSING)]]
