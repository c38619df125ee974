"""What stands below the answer, one line each: other students, variants, the second analysis, filtering, what was fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from consenso.report.blocks import absent, capital, interval, plural, points
from consenso.report.contrast_section import levels_of, verdict_of
from consenso.report.facts import METRICS, Facts
from consenso.report.until import seeds_line
from consenso.report.value_section import WORTH, has_curve
from consenso.tables import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd

Tone = Literal["good", "bad", "open", "stop"]

LOOKS: dict[str, tuple[Tone, str]] = {
    "INVALID": ("stop", "✕"),
    "UNSTABLE RECIPE": ("stop", "!"),
    "NO VERDICT": ("open", "…"),
    "BETTER": ("good", "↑"),
    "WORSE": ("bad", "↓"),
    "EQUIVALENT": ("good", "="),
    "NON-INFERIOR": ("good", "≥"),
    "INCONCLUSIVE": ("open", "?"),
}
"""Verdict word → tone and glyph of its badge; a verdict may go on after the word."""

UNUSABLE = ("INVALID", "UNSTABLE RECIPE", "NO VERDICT")
"""Verdicts whose numbers answer nothing: what rests on them is not said either."""
FIXED = "fixed before scoring"
"""The guard that knows what was declared, and when."""
FILTERING = {"BETTER": "helps", "WORSE": "not shown to help, it harms"}
"""Verdict on the filtering contrast → in words; any other: not shown to help."""
Line = tuple[str, str, str]
"""Name, verdict word (may be empty), sentence."""


def head_of(verdict: str) -> str:
    """Return the verdict word that a verdict begins with, or '' for one that is not known."""
    upper = verdict.strip().upper()
    return next((word for word in LOOKS if upper.startswith(word)), "")


def sentence_of(row: pd.Series) -> str:
    """Return the comparison's own sentence, or one with the same numbers where the table has none."""
    given = row.get("sentence")
    if not absent(given) and str(given).strip():
        said = str(given).strip()
        word, colon, rest = said.partition(": ")
        # The badge has the word already.
        return capital(rest) if colon and head_of(word) else said
    metric = METRICS.get(row["metric"], row["metric"])
    if absent(row["difference"]):
        return f"{row['contrast']}: {row['verdict']}."
    counts = f"{plural(row['S'], 'seed')}, {plural(row['n'], 'test text')}"
    return (
        f"Trained on {row['arm']}, the classifier's {metric} differs by {points(row['difference'])} from training on "
        f"{row['control']} ({levels_of(row)[0]} interval {interval(row['low'], row['high'])}, {counts})."
    )


def further_answers(facts: Facts, first: str, rows: list[tuple[str, pd.Series | None]]) -> list[Line]:
    """Return the lines below the answer of student `first`; `rows`: each student's primary contrast."""
    lines = [*_students(facts, first, rows), *_rescue(facts, first), *_variants(facts, rows), *_filtering(facts, first)]
    row = facts.primary(first)
    if row is None or head_of(verdict_of(row)) in UNUSABLE:
        return [*lines, *_seeds(facts), *_fixed(facts)]
    if (
        isinstance(said := facts.record.get("multiverse"), str)
        and said.strip()
        and facts.table("multiverse") is not None
    ):
        lines.append(("Other choices", "", capital(said.strip())))
    return [*lines, *_worth(facts, first), *_detectable(facts, first), *_seeds(facts), *_fixed(facts)]


def _students(facts: Facts, first: str, rows: list[tuple[str, pd.Series | None]]) -> list[Line]:
    none = f"Its arms do not form the primary contrast; the answer above is that of student “{first}”."
    return [
        (f"Student “{student}”", *(("NO VERDICT", none) if row is None else (verdict_of(row), sentence_of(row))))
        for student, row in rows
        if student != first and facts.variation(student) is None
    ]


def _rescue(facts: Facts, first: str) -> list[Line]:
    row = facts.primary(first, "rescue")
    name = "With collapsed seeds replaced (second analysis)"
    return [] if row is None else [(name, verdict_of(row), sentence_of(row))]


def _variants(facts: Facts, rows: list[tuple[str, pd.Series | None]]) -> list[Line]:
    """All declared variants on one line."""
    several = len({base for student, _ in rows for base, _ in [facts.variation(student) or (student, "")]}) > 1
    parts = []
    for student, row in rows:
        if (varied := facts.variation(student)) is None:
            continue
        name = f"{varied[1]} ({varied[0]})" if several else varied[1]
        parts.append(f"{name} {'NO VERDICT' if row is None else f'{verdict_of(row)} {_numbers(row)}'}")
    return [("Declared variants", "", "; ".join(parts) + ".")] if parts else []


def _numbers(row: pd.Series) -> str:
    return f"{points(row['difference'])} {interval(row['low'], row['high'])}"


def _filtering(facts: Facts, first: str) -> list[Line]:
    frame = facts.contrasts(first)
    rows = None if frame is None else frame[frame["effect"] == "filtering effect"]
    if rows is None or rows.empty or absent(rows.iloc[0]["difference"]):
        return []
    row = rows.iloc[0]
    word = head_of(verdict_of(row))
    if word in UNUSABLE:
        return []
    said = FILTERING.get(word, "not shown to help")
    return [("Filtering", said, f"{row['arm']} against {row['control']}: {_numbers(row)}.")]


def _worth(facts: Facts, first: str) -> list[Line]:
    value = facts.table("value")
    rows = None if value is None else value[(value["student"] == first) & (value["quantity"] == WORTH)]
    if rows is None or rows.empty or absent(rows.iloc[0]["sentence"]) or not has_curve(facts, first):
        return []
    return [("Worth in human labels", "", capital(str(rows.iloc[0]["sentence"])))]


def _detectable(facts: Facts, first: str) -> list[Line]:
    row = facts.primary(first)
    if row is None or absent(row["detectable"]):
        return []
    metric = METRICS.get(row["metric"], row["metric"])
    runs = plural(row["k"], "fold") if row["replication"] == "fold" else plural(row["S"], "seed")
    said = (
        f"With {runs} and {plural(row['n'], 'test text')}, a true difference in {metric} of "
        f"{points(row['detectable']).lstrip('+')} would show in 8 of 10 repetitions; smaller ones may go unseen."
    )
    return [("What this run can see", "", said)]


def _seeds(facts: Facts) -> list[Line]:
    """How the number of seeds came about, where a rule decided on it."""
    said = seeds_line(facts)
    return [("Seeds", "", said)] if said else []


def _fixed(facts: Facts) -> list[Line]:
    """What was declared beforehand, in the words of the guard, else of the freeze."""
    guards, frozen = facts.table("guards"), facts.record.get("frozen")
    found = None if guards is None else guards[(guards["guard"] == FIXED) & (guards["outcome"] != "not_checked")]
    if found is not None and len(found) and not absent(found.iloc[0]["reason"]):
        return [("Fixed beforehand", "", capital(str(found.iloc[0]["reason"]).rstrip(".")) + ".")]
    if not isinstance(frozen, Mapping) or not frozen.get("at"):
        return []
    late = frozen.get("after_scoring")
    when = (
        "after test scores had been seen, so this is no pre-registration" if late else "before any test score was seen"
    )
    hashed = f", hash {str(frozen['hash'])[:12]}" if frozen.get("hash") else ""
    return [("Fixed beforehand", "", f"As frozen on {frozen['at']}{hashed}, {when}.")]


def guard_counts(facts: Facts) -> list[tuple[str, str]]:
    """Return how many guards have which outcome, the failed first."""
    guards = facts.table("guards")
    if guards is None:
        return []
    # A guard that is checked for each student counts once per outcome.
    counts = guards.drop_duplicates(["guard", "outcome"])["outcome"].value_counts()
    words = {"passed": "passed", "failed": "failed", "warned": "warned", "not_checked": "not checked"}
    order = ("failed", "warned", "passed", "not_checked")
    assert set(order) == set(OUTCOMES)
    return [
        (outcome, f"{int(counts.get(outcome, 0))} {words[outcome]}")
        for outcome in order
        if counts.get(outcome, 0) or outcome == "failed"
    ]
