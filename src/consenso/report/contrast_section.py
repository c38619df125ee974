"""The section about differences: a forest plot and a table of every contrast, per student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    P90,
    P95,
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Heading,
    Note,
    Section,
    absent,
    interval,
    number,
    percent,
    plural,
    points,
    probability,
    words,
)
from consenso.report.facts import METRICS, Facts
from consenso.report.plots import Contrast, forest

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = ("means", "difference, pp", P90, "p", "seeds better")


def contrasts(facts: Facts) -> Section:
    """Return the forest plot and the table of every contrast."""
    section = ("contrasts", "Contrasts between arms")
    if facts.contrasts() is None:
        return Section(*section, [Note(facts.why_absent("comparison"), "absent")], group="The classifiers")
    blocks: list[Block] = []
    for student in facts.students:
        blocks += _of_student(facts, student)
    return Section(*section, blocks, group="The classifiers")


def _of_student(facts: Facts, student: str) -> list[Block]:
    frame = facts.contrasts(student)
    if frame is None:
        return [Note(f"The arms of student “{student}” form no contrast.", "absent")]
    blocks: list[Block] = heading(facts, student)
    drawn = frame[frame["difference"].notna()]
    if len(drawn) and frame["margin"].notna().any():
        blocks.append(_forest(facts, student, drawn))
    name = METRICS.get(facts.metric, facts.metric)
    blocks.append(_grid(frame, f"Contrasts in {name}{of_student(facts, student)}"))
    for metric in sorted(set(METRICS) - {facts.metric}):
        if (other := facts.contrasts(student, metric)) is not None:
            title = f"The same in {METRICS[metric]}"
            blocks.append(_grid(other, f"Contrasts in {METRICS[metric]}{of_student(facts, student)}", title))
    if (rescue := facts.contrasts(student, attempt="rescue")) is not None:
        caption = f"Contrasts in {name} with collapsed seeds replaced in all arms{of_student(facts, student)}"
        blocks.append(_grid(rescue, caption, "Second analysis: collapsed seeds replaced"))
    if (strata := facts.contrasts(student, scope=None)) is not None:
        caption = f"Contrasts in {name} on groups of test texts{of_student(facts, student)}"
        blocks.append(_grid(strata, caption, "On groups of test texts"))
    return blocks


def heading(facts: Facts, student: str) -> list[Block]:
    """Return a heading per student, where there are several."""
    return [Heading(f"Student “{student}”")] if len(facts.students) > 1 else []


def of_student(facts: Facts, student: str) -> str:
    """Return which student a caption is about, where there are several."""
    return f" (student “{student}”)" if len(facts.students) > 1 else ""


def as_contrast(row: pd.Series) -> Contrast:
    """Return a row of the comparison as a line of the forest plot."""
    names = ("difference", "low", "high", "low90", "high90")
    numbers = {name: float("nan") if absent(row[name]) else float(row[name]) for name in names}
    effect = "" if absent(row["effect"]) else str(row["effect"])
    return Contrast(str(row["contrast"]), effect, verdict=verdict_of(row), primary=bool(row["is_primary"]), **numbers)


def verdict_of(row: pd.Series) -> str:
    """Return the verdict word, with “but within the margin” where a difference is real and too small to matter."""
    word = words(row["verdict"])
    inside = row["low90"] > -row["margin"] and row["high90"] < row["margin"]
    return f"{word} but within the margin" if word in {"BETTER", "WORSE"} and inside else word


def _forest(facts: Facts, student: str, frame: pd.DataFrame) -> Figure:
    margin = float(frame["margin"].dropna().iloc[0])
    rows = [as_contrast(row) for _, row in frame.iterrows()]
    name = f"forest-{facts.students.index(student)}"
    wide, narrow = forest(name, rows, margin)
    metric = METRICS.get(facts.metric, facts.metric)
    caption = (
        f"Difference in {metric} between two arms{of_student(facts, student)}, in percentage points, with {P95} (thin) "
        f"and {P90} (thick) intervals; shaded: the declared ±{points(margin).lstrip('+')}. The primary contrast is the "
        "diamond; an arrow points at a difference beyond the scale."
    )
    lines = [f"{row.name}: {points(row.difference)} {interval(row.low, row.high)}, {row.verdict}" for row in rows]
    return Figure(name, caption, f"{caption} {'; '.join(lines)}", wide, narrow)


def _grid(frame: pd.DataFrame, title: str, folded: str = "") -> Grid:
    """A table of contrasts; under the mean of the arm that of its control, under the difference its interval."""
    scopes = frame["scope"].nunique() > 1 or frame["scope"].iloc[0] != "all"
    rows = []
    for _, row in frame.iterrows():
        reason = "" if absent(row["reason"]) else str(row["reason"])
        small = f"{row['scope']}" if scopes else words(row["effect"])
        holm = "" if absent(row["p_holm"]) else f"Holm {probability(row['p_holm'])}"
        rows.append(
            [
                Cell(str(row["contrast"]), small=small, tone="primary" if row["is_primary"] else ""),
                Cell(verdict_of(row), small=reason, tone="long" if reason else ""),
                Cell(number(row["arm_mean"]), small=number(row["control_mean"])),
                Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"])),
                Cell(interval(row["low90"], row["high90"])),
                Cell(probability(row["p"]), small=holm),
                Cell(percent(row["seeds_better"], 0)),
            ]
        )
    first = frame.iloc[0]
    texts = "" if scopes else f", {plural(first['n'], 'test text')}"
    caption = f"{title}: {plural(first['S'], 'paired run')}{texts}; below the difference its {P95} interval"
    columns = [Column("contrast"), Column("verdict"), *(Column(name, True) for name in HEADINGS)]
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded)
