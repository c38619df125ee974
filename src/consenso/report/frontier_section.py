"""The section about cost and quality: which panels and single annotators are worth their price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    MISSING,
    P95,
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    absent,
    cut,
    dollars,
    interval,
    number,
    plural,
    points,
)
from consenso.report.contrast_section import heading, levels_of, of_student
from consenso.report.facts import METRICS, Facts
from consenso.report.frontier_plot import Priced, frontier_plot
from consenso.report.value_section import why_none

if TYPE_CHECKING:
    import pandas as pd

NO_FRONTIER = (
    "No arms of single annotators or of smaller panels were trained with known costs, so nothing tells which annotators are "
    "worth their price: add “single:each” or “panel:2” to finetune.arms."
)
NAMES = 70
"""Letters of a panel's names that are shown at once."""


def frontier(facts: Facts) -> Section:
    """Return cost against quality of panels and single annotators, and which of them no other beats."""
    section = ("frontier", "Cost and quality")
    table = facts.table("frontier")
    if table is None:
        return Section(*section, [Note(why_none(facts, "frontier", NO_FRONTIER), "absent")])
    blocks: list[Block] = []
    for student in facts.main_students:
        mine = table[table["student"] == student]
        if mine.empty:
            continue
        mine = mine.sort_values(["cost", "difference", "arm"], ascending=[True, False, True], na_position="last")
        mine = mine.assign(number=range(1, len(mine) + 1))
        blocks += heading(facts, student)
        drawn = mine[mine["cost"].notna() & mine["difference"].notna()]
        if len(drawn) > 1:
            blocks.append(_frontier_figure(facts, student, drawn))
        blocks.append(_frontier_grid(facts, student, mine))
    return Section(*section, blocks or [Note("The table frontier has no arm of these students.", "absent")])


def _frontier_figure(facts: Facts, student: str, frame: pd.DataFrame) -> Figure:
    primary = facts.primary(student)
    margin = 0.0 if primary is None or absent(primary["margin"]) else float(primary["margin"])
    rows = [
        Priced(
            number=int(row["number"]),
            name=str(row["arm"]),
            cost=1000 * float(row["cost"]),
            difference=float(row["difference"]),
            low=float(row["low"]),
            high=float(row["high"]),
            frontier=bool(row["is_on_frontier"]),
        )
        for _, row in frame.iterrows()
    ]
    name = f"frontier-{facts.students.index(student)}"
    metric = METRICS.get(facts.metric, facts.metric)
    wide = P95 if primary is None else levels_of(primary)[0]
    control = "the control" if primary is None else str(primary["control"])
    caption = (
        f"Difference in {metric} to {control} over what the labels cost{of_student(facts, student)}, with {wide} intervals. "
        "Diamonds on the line: no other arm is both cheaper and better; the numbers are those of the table."
        + (f" Shaded: the declared ±{points(margin).lstrip('+')}." if margin else "")
    )
    said = "; ".join(
        f"{row.number} {row.name}: USD {dollars(row.cost)}, {points(row.difference)} {interval(row.low, row.high)}"
        for row in rows
    )
    return Figure(name, caption, f"{caption} {said}", *frontier_plot(name, rows, margin))


def _frontier_grid(facts: Facts, student: str, frame: pd.DataFrame) -> Grid:
    rows = []
    for _, row in frame.iterrows():
        who, full = cut("" if absent(row["annotators"]) else str(row["annotators"]), NAMES)
        best = bool(row["is_on_frontier"])
        rows.append(
            [
                Cell(
                    f"{row['number']} {row['arm']}",
                    small="on the frontier" if best else "",
                    tone="primary" if best else "",
                ),
                Cell(who or MISSING, full=full),
                Cell(MISSING if absent(row["cost"]) else dollars(1000 * row["cost"])),
                Cell(number(row["mean"])),
                Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"])),
            ]
        )
    metric = METRICS.get(facts.metric, facts.metric)
    caption = (
        f"Arms by the cost of their labels, cheapest first{of_student(facts, student)}: {plural(len(rows), 'arm')}; the difference "
        "is to the control of the primary contrast"
    )
    names = ("USD per 1,000 texts", metric, "difference, pp")
    return Grid(caption, [Column("arm"), Column("annotators"), *(Column(name, True) for name in names)], rows)
