"""The sections about value: human labels that the consensus is worth, corrections, cost against quality."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from consenso.report.blocks import (
    MISSING,
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
    capital,
    count,
    dollars,
    number,
    percent,
)
from consenso.report.contrast_section import contrast_grid, heading, of_student
from consenso.report.facts import METRICS, Facts
from consenso.report.value_plots import (
    Corrected,
    Level,
    Worth,
    corrections_curve,
    gold_curve,
)

if TYPE_CHECKING:
    import pandas as pd

NO_CURVE = (
    "How many human labels the consensus is worth needs gold@curve: no arms gold@n were trained. Add “gold@curve” to "
    "finetune.arms."
)
NO_CORRECTIONS = (
    "No arms with human corrections were trained: add “consensus+200” and “consensus+200:random” to finetune.arms to see what "
    "200 corrections would add."
)
WORTH = "human_labels_worth"
"""The quantity of the table value that the learning curve shows."""
OF_CURVE = (WORTH, "human_labels_saved", "break_even_price", "money_saved")
"""Quantities that follow from the learning curve."""


def label_value(facts: Facts) -> Section:
    """Return the learning curve over human labels, and what the consensus is worth in them."""
    section = ("value", "What the labels are worth")
    curve, value = facts.table("learning_curve"), facts.table("value")
    if curve is None and value is None:
        return Section(*section, [Note(why_none(facts, "learning_curve", NO_CURVE), "absent")], group="What it costs")
    blocks: list[Block] = []
    for student in facts.main_students:
        steps, rows = (None if t is None else t[t["student"] == student] for t in (curve, value))
        if not has_curve(facts, student):
            steps, rows = None, None if rows is None else rows[~rows["quantity"].isin(OF_CURVE)]
        found: list[Block] = []
        if rows is not None and len(rows):
            found.append(_value_grid(facts, student, rows))
        if steps is not None and len(steps):
            found += [
                Heading("Learning curve over human labels"),
                *_curve(facts, student, steps.sort_values("n"), rows),
            ]
        if found:
            blocks += [*heading(facts, student), *found]
    if not any(has_curve(facts, student) for student in facts.main_students):
        blocks.append(Note(NO_CURVE, "absent"))
    return Section(*section, blocks or [Note(facts.why_absent("value"), "absent")], group="What it costs")


def has_curve(facts: Facts, student: str) -> bool:
    """Return whether a student's learning curve over human labels has two points: one alone gives no n*."""
    curve = facts.table("learning_curve")
    return curve is not None and bool(curve.loc[curve["student"] == student, "mean"].notna().sum() > 1)


def why_none(facts: Facts, table: str, otherwise: str) -> str:
    """Return why an optional table is missing: an earlier stage has not run, or nobody asked for it (`otherwise`)."""
    return otherwise if facts.folder.has("comparison") else facts.why_absent(table)


def _value_grid(facts: Facts, student: str, frame: pd.DataFrame) -> Grid:
    rows = []
    order = {name: k for k, name in enumerate(QUANTITIES)}
    frame = frame.sort_values("quantity", key=lambda names: names.map(order).fillna(len(order)), kind="stable")
    for _, row in frame.iterrows():
        beyond = "> " if row["beyond"] else ""
        name = str(row["quantity"]).replace("_", " ").replace("llm", "LLM")
        rows.append(
            [
                Cell(name[:1].upper() + name[1:], small="" if absent(row["unit"]) else str(row["unit"])),
                Cell(beyond + _amount(row["value"], row["unit"]), small=_spread(row)),
                Cell(MISSING if absent(row["sentence"]) else capital(str(row["sentence"]))),
            ]
        )
    caption = f"What the consensus labels are worth{of_student(facts, student)}; below a value its {P95} interval, where it has one"
    return Grid(caption, [Column("quantity"), Column("value", True), Column("in words")], rows)


QUANTITIES = (WORTH, "human_labels_used", "human_labels_saved", "break_even_price", "money_saved", "cost_per_point")
"""Quantities in the order that a reader wants them; others follow by name."""
COUNTED = ("human labels", "tokens")
"""Units that are counted."""


def _spread(row: pd.Series) -> str:
    """The interval of a value; open at the top where it leaves the learning curve."""
    low, high = (_amount(row[name], row["unit"]) for name in ("low", "high"))
    if absent(row["low"]):
        return ""
    return f"{low} or more" if absent(row["high"]) else f"{low} to {high}"


def _amount(value: object, unit: object) -> str:
    """A value with as many digits as its unit wants; a unit in capitals is a currency."""
    said = "" if absent(unit) else str(unit)
    if absent(value):
        return MISSING
    assert isinstance(value, int | float)
    if said.isupper():
        return dollars(float(value))
    if said == "share":
        return percent(value)
    return count(round(value)) if said in COUNTED or abs(value) >= 1000 else number(value, 2)


def _curve(facts: Facts, student: str, steps: pd.DataFrame, value: pd.DataFrame | None) -> list[Block]:
    drawn = steps[steps["mean"].notna()]
    blocks: list[Block] = []
    if len(drawn) > 1:
        blocks.append(_curve_figure(facts, student, drawn, value))
    rows = [
        [
            Cell(count(row["n"]), small="" if absent(row["arm"]) else str(row["arm"])),
            Cell(number(row["mean"]), small=_between(row["low"], row["high"])),
            Cell(number(row["fitted"])),
            Cell(count(row["S"])),
        ]
        for _, row in steps.iterrows()
    ]
    metric = METRICS.get(facts.metric, facts.metric)
    caption = f"{metric[:1].upper()}{metric[1:]} of classifiers trained on n human labels{of_student(facts, student)}"
    columns = [Column("human labels"), *(Column(name, True) for name in (f"mean, {P95}", "isotonic fit", "runs"))]
    return [*blocks, Grid(caption, columns, rows)]


def _between(low: object, high: object) -> str:
    return "" if absent(low) or absent(high) else f"{number(low)} to {number(high)}"


def _level(facts: Facts, student: str, arm: str) -> Level | None:
    """An arm's mean score as the comparison has it, with its lowest and highest run."""
    means, runs = _means(facts, student), runs_of(facts, student)
    if arm not in means:
        return None
    ends = runs.get(arm, (float("nan"),) * 3)
    return Level(arm, means[arm], ends[1], ends[2])


def _means(facts: Facts, student: str) -> dict[str, float]:
    """Arm → mean score: of the comparison, the primary contrast first, else of the scores."""
    found: dict[str, float] = {}
    frame = facts.contrasts(student)
    if frame is not None:
        for side in ("arm", "control"):
            means = zip(frame[side], frame[f"{side}_mean"])
            found = {str(arm): float(mean) for arm, mean in means if not absent(mean)} | found
    return {arm: mean for arm, (mean, _, _) in runs_of(facts, student).items()} | found


def runs_of(facts: Facts, student: str) -> dict[str, tuple[float, float, float]]:
    """Return arm → mean, lowest and highest test score of a student's runs, as run."""
    scores = facts.table("scores")
    if scores is None:
        return {}
    mine = (scores["student"] == student) & (scores["part"] == "test") & (scores["attempt"] == "as_run")
    found = scores[mine & (scores["metric"] == facts.metric) & scores["value"].notna()].groupby("arm")["value"]
    return {str(arm): (float(v.mean()), float(v.min()), float(v.max())) for arm, v in found}


def _curve_figure(facts: Facts, student: str, steps: pd.DataFrame, value: pd.DataFrame | None) -> Figure:
    numbers = [
        (int(row["n"]), float(row["mean"]), float(row["low"]), float(row["high"]), float(row["fitted"]))
        for _, row in steps.iterrows()
    ]
    primary = facts.primary(student)
    level = _level(facts, student, "consensus" if primary is None else str(primary["arm"]))
    worth = _worth(value)
    name = f"learning-{facts.students.index(student)}"
    drawings = gold_curve(name, numbers, level, worth)
    metric = METRICS.get(facts.metric, facts.metric)
    caption = (
        f"{metric[:1].upper()}{metric[1:]} over the number of human labels{of_student(facts, student)}: dots are means, the band "
        f"their {P95} interval, the line rises with n (isotonic)."
    )
    if level:
        caption += f" Dashed: {level.name}, the band from its lowest to its highest run (cut at the edge of the scale)."
    if worth:
        caption += " n*: the number of human labels that gives the same score, with its interval on the bar below."
    said = "; ".join(f"{count(n)}: {number(mean)}, {_between(low, high)}" for n, mean, low, high, _ in numbers)
    across = f" {level.name}: {number(level.value)}." if level else ""
    meets = f" n* {'more than ' if worth.beyond else ''}{count(worth.value)}." if worth else ""
    return Figure(name, caption, f"{caption} {said}.{across}{meets}", *drawings)


def _worth(value: pd.DataFrame | None) -> Worth | None:
    rows = None if value is None else value[value["quantity"] == WORTH]
    if rows is None or rows.empty or absent(rows.iloc[0]["value"]):
        return None
    row = rows.iloc[0]
    low, high = (float("nan") if absent(row[name]) else float(row[name]) for name in ("low", "high"))
    return Worth(float(row["value"]), low, high, bool(row["beyond"]))


def corrections(facts: Facts) -> Section:
    """Return what k corrections by humans add, chosen by the problem or at random."""
    section = ("corrections", "Corrections by humans")
    blocks: list[Block] = []
    for student in facts.main_students:
        frame, series = facts.contrasts(student), _corrected(facts, student)
        rows = None if frame is None else frame[frame["arm"].map(_is_corrected) | frame["control"].map(_is_corrected)]
        found: list[Block] = [_corrections_figure(facts, student, series)] if series else []
        if rows is not None and len(rows):
            name = METRICS.get(facts.metric, facts.metric)
            found.append(contrast_grid(rows, f"Contrasts with corrected labels in {name}{of_student(facts, student)}"))
        if found:
            blocks += [*heading(facts, student), *found]
    return Section(*section, blocks or [Note(why_none(facts, "comparison", NO_CORRECTIONS), "absent")])


CORRECTED = re.compile(r"consensus\+(\d+)(?::(.+))?")


def _is_corrected(arm: object) -> bool:
    return CORRECTED.fullmatch(str(arm)) is not None


def _corrected(facts: Facts, student: str) -> list[Corrected]:
    """Per way of choosing the corrected texts: k, mean, lowest and highest run; k = 0 is the consensus itself."""
    runs = runs_of(facts, student)
    ways: dict[str, list[tuple[int, float, float, float]]] = {}
    for arm, ends in runs.items():
        if match := CORRECTED.fullmatch(arm):
            ways.setdefault(match[2] or "problematic first", []).append((int(match[1]), *ends))
    start = [(0, *runs["consensus"])] if "consensus" in runs else []
    return [
        (way, start + sorted(found))
        for way, found in sorted(ways.items(), key=lambda item: (item[0] == "random", item))
    ]


def _corrections_figure(facts: Facts, student: str, series: list[Corrected]) -> Figure:
    level = _level(facts, student, "gold-aligned")
    name = f"corrections-{facts.students.index(student)}"
    drawings = corrections_curve(name, series, [level] if level else [])
    metric = METRICS.get(facts.metric, facts.metric)
    caption = (
        f"{metric[:1].upper()}{metric[1:]} over the number of consensus labels that a human corrected"
        f"{of_student(facts, student)}; whiskers from the lowest to the highest run."
        + (" Dashed across: human labels on all of these texts." if level else "")
    )
    looks = ("diamond-consensus", "dot-other", "dot-ink")
    legend = [(looks[k % 3], way if way != "random" else "at random") for k, (way, _) in enumerate(series)]
    said = "; ".join(
        f"{way}: " + ", ".join(f"{count(k)} {number(mean)}" for k, mean, *_ in found) for way, found in series
    )
    return Figure(name, caption, f"{caption} {said}", *drawings, legend=legend)
