"""The section about calibration: how far a classifier's probabilities can be taken at their word."""

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
    count,
    number,
    percent,
    plural,
)
from consenso.report.calibration_plot import Bins, reliability
from consenso.report.contrast_section import heading, of_student
from consenso.report.facts import Facts, in_arm_order

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = ("ECE", "Brier", "log loss", "accuracy", "confidence", "temperature")
MOST_OPEN = 6
"""With more arms than this, those outside the primary contrast are folded."""


def calibration(facts: Facts) -> Section:
    """Return a reliability diagram of the primary arms, and calibration of every arm overall and by agreement."""
    section = ("calibration", "Calibration")
    table = facts.table("calibration")
    if table is None:
        return Section(*section, [Note(facts.why_absent("calibration"), "absent")])
    blocks: list[Block] = []
    for student in facts.main_students:
        mine = table[table["student"] == student]
        if len(mine):
            blocks += [*heading(facts, student), *_of_student(facts, student, mine)]
    return Section(*section, blocks or [Note("No student of this run gives probabilities.", "absent")])


def _of_student(facts: Facts, student: str, frame: pd.DataFrame) -> list[Block]:
    arms = in_arm_order(frame["arm"].unique())
    primary = facts.primary(student)
    pair = [] if primary is None else [str(primary["control"]), str(primary["arm"])]
    first = [arm for arm in pair if arm in arms] or arms[:2]
    overall, strata = frame[frame["scope"] == "all"], frame[frame["scope"] != "all"]
    blocks: list[Block] = []
    if (figure := _figure(facts, student, first)) is not None:
        blocks.append(figure)
    if len(overall):
        of = of_student(facts, student)
        shown = arms if len(arms) <= MOST_OPEN else first
        blocks.append(_grid(overall, shown, f"Calibration on the test texts{of}"))
        if others := [arm for arm in arms if arm not in shown]:
            folded = f"Calibration of {plural(len(others), 'further arm')}"
            blocks.append(_grid(overall, others, f"Calibration on the test texts{of}", folded))
    if len(strata):
        folded = "By agreement of the annotators"
        title = f"Calibration by the agreement of the annotators on the test texts{of_student(facts, student)}"
        blocks.append(_grid(strata, arms, title, folded))
    return blocks


def _bins(facts: Facts, student: str, arm: str, scaled: bool) -> Bins | None:
    table = facts.table("calibration_bins")
    if table is None:
        return None
    chosen = (table["student"] == student) & (table["arm"] == arm) & (table["scope"] == "all")
    mine = table[chosen & (table["scaled"].astype(bool) == scaled) & table["accuracy"].notna()].sort_values("bin")
    if mine.empty:
        return None
    return Bins(arm, *(tuple(map(float, mine[name])) for name in ("confidence", "accuracy", "share")))


def _figure(facts: Facts, student: str, arms: list[str]) -> Figure | None:
    panels, said = [], []
    for scaled, title in ((False, "as trained"), (True, "after temperature scaling")):
        found = [bins for arm in arms if (bins := _bins(facts, student, arm, scaled)) is not None]
        if found:
            panels.append((title, found))
        for bins in found:
            pairs = ", ".join(
                f"{percent(c, 0)} sure {percent(a, 0)} right"
                for c, a in zip(bins.confidence, bins.accuracy, strict=True)
            )
            said.append(f"{bins.arm} {title}: {pairs}")
    if not panels:
        return None
    name = f"calibration-{facts.students.index(student)}"
    caption = (
        f"How often the classifier is right where it is that sure{of_student(facts, student)}; the larger a mark, the more "
        "predictions. On the diagonal, its probabilities can be taken at their word; below it, it is too sure. The temperature is "
        "fitted on dev texts with the arm’s own labels."
    )
    return Figure(name, caption, f"{caption} {'; '.join(said)}", *reliability(name, panels))


def _grid(frame: pd.DataFrame, arms: list[str], title: str, folded: str = "") -> Grid:
    scopes = frame["scope"].nunique() > 1 or frame["scope"].iloc[0] != "all"
    order = {arm: k for k, arm in enumerate(arms)}
    mine = frame[frame["arm"].isin(arms)]
    mine = mine.sort_values(
        ["scope", "arm", "scaled"], key=lambda c: c.map(order) if c.name == "arm" else c, kind="stable"
    )  # fmt: skip
    rows = []
    for _, row in mine.iterrows():
        scaled = "scaled" if row["scaled"] else "as trained"
        small = f"{row['scope']}; {scaled}" if scopes else scaled
        spread = "" if absent(row["ece_low"]) else f"{number(row['ece_low'])} to {number(row['ece_high'])}"
        cells = [Cell(number(row[name])) for name in ("brier", "log_loss")]
        cells += [Cell(percent(row[name])) for name in ("accuracy", "confidence")]
        temperature = Cell(number(row["temperature"], 2) if row["scaled"] else MISSING)
        tail = [Cell(plural(row["n"], "text"))] if scopes else []
        rows.append(
            [Cell(str(row["arm"]), small=small), Cell(number(row["ece"]), small=spread), *cells, temperature, *tail]
        )
    columns = [Column("arm"), *(Column(name, True) for name in (*HEADINGS, *(["test texts"] if scopes else [])))]
    size = "" if scopes or mine.empty else f" ({plural(mine['S'].iloc[0], 'run')}, {count(mine['n'].iloc[0])} texts)"
    caption = (
        f"{title}{size}: ECE is the expected calibration error, below it its {P95} interval; Brier score and log loss: lower "
        "is better; confidence: mean of the largest probability"
    )
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded)
