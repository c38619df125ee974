"""The section about trainings that learned nothing or broke off: how many, why, and what stands in for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    MISSING,
    P95,
    Block,
    Cell,
    Column,
    Grid,
    Note,
    Section,
    absent,
    count,
    percent,
    plural,
    words,
)
from consenso.report.contrast_section import heading, of_student
from consenso.report.facts import Facts, in_arm_order
from consenso.report.numbers import wilson

if TYPE_CHECKING:
    import pandas as pd

EXEMPT = ("floor", "permuted", "gold@")
"""Arms that are meant to learn little or nothing begin like these."""
MOST_RUNS = 12
"""With more bad runs than this their table is folded."""


def collapsed(facts: Facts) -> Section:
    """Return how many runs of each arm collapsed or failed, with intervals, reasons and replacements."""
    section = ("collapsed", "Collapsed and failed runs")
    table = facts.table("trainings")
    if table is None:
        return Section(*section, [Note(facts.why_absent("trainings"), "absent")])
    blocks: list[Block] = []
    for student in facts.students:
        mine = table[table["student"] == student]
        if len(mine):
            blocks += heading(facts, student)
            blocks += _of_student(facts, student, mine)
    return Section(*section, blocks or [Note("No student was trained.", "absent")])


def is_exempt(arm: str) -> bool:
    """Return whether an arm is meant to learn little or nothing, so that its collapse counts for nothing."""
    return arm.startswith(EXEMPT)


def _of_student(facts: Facts, student: str, trainings: pd.DataFrame) -> list[Block]:
    as_run = trainings[trainings["attempt"] == "as_run"]
    rescue = trainings[trainings["attempt"] == "rescue"]
    bad = as_run[as_run["status"] != "ok"]
    if bad.empty:
        return [Note(_none(as_run))]
    blocks: list[Block] = [
        Note(_in_words(facts, student, as_run, bad, rescue), "warned" if _counts(facts, student, bad) else "")
    ]
    return [*blocks, _rates(facts, student, as_run, rescue), _runs(facts, student, bad, rescue)]


def _none(as_run: pd.DataFrame) -> str:
    """That nothing collapsed, and how much that says of a single arm."""
    most = int(as_run.groupby("arm").size().max()) if len(as_run) else 0
    at_most = percent(wilson(0, most)[1])
    return (
        f"None of {plural(len(as_run), 'run')} collapsed or failed. For an arm of {plural(most, 'run')} that leaves a rate "
        f"of up to {at_most} possible ({P95} interval, Wilson)."
    )


def _counts(facts: Facts, student: str, bad: pd.DataFrame) -> bool:
    """Whether an arm of the primary contrast is among those with bad runs."""
    primary = facts.primary(student)
    return primary is not None and bool(bad["arm"].isin([primary["arm"], primary["control"]]).any())


def _in_words(facts: Facts, student: str, as_run: pd.DataFrame, bad: pd.DataFrame, rescue: pd.DataFrame) -> str:
    said = f"{count(len(bad))} of {plural(len(as_run), 'run')} collapsed or failed"
    where = in_arm_order(bad["arm"].unique())
    said += f", in {', '.join(where[:4])}" + (f" and {plural(len(where) - 4, 'more arm')}" if len(where) > 4 else "")
    said += ". They count in the verdict as they are"
    if len(rescue):
        seeds = ", ".join(count(seed) for seed in sorted(set(rescue["seed"])))
        said += (
            f"; a second analysis puts the next seed of the list in the place of seed {seeds}, in every arm alike, and stands "
            "beside the first"
        )
    if _counts(facts, student, bad):
        said += ". Arms of the primary contrast are among them: the guards say whether the recipe still holds"
    return said + "."


def _rates(facts: Facts, student: str, as_run: pd.DataFrame, rescue: pd.DataFrame) -> Grid:
    primary, rows = facts.primary(student), []
    pair = [] if primary is None else [primary["arm"], primary["control"]]
    shown = set(as_run.loc[as_run["status"] != "ok", "arm"]) | set(rescue.loc[rescue["status"] != "ok", "arm"])
    shown |= set(pair) & set(as_run["arm"])
    for arm in in_arm_order(shown):
        mine = as_run[as_run["arm"] == arm]
        bad = int((mine["status"] != "ok").sum())
        low, high = wilson(bad, len(mine))
        again = rescue[(rescue["arm"] == arm) & (rescue["status"] != "ok")]
        rows.append(
            [
                Cell(arm, small="does not count" if is_exempt(arm) else ""),
                Cell(count(len(mine))),
                *(_bad_cell(mine, status) for status in ("collapsed", "failed")),
                Cell(percent(bad / len(mine)), small=f"{percent(low)} to {percent(high)}"),
                Cell(count(mine["stopped_at"].notna().sum())),
                *([Cell(count(len(again)))] if len(rescue) else []),
            ]
        )
    names = ["runs", "collapsed", "failed", "rate", "stopped early", *(["bad when replaced"] if len(rescue) else [])]
    caption = (
        f"Runs of each arm, as run{of_student(facts, student)}: below the rate its {P95} interval (Wilson); stopped early: by "
        "the watch, which ends a run that is past help"
    )
    if others := as_run["arm"].nunique() - len(shown):
        caption += f"; the other {plural(others, 'arm')} had none"
    return Grid(caption, [Column("arm"), *(Column(name, True) for name in names)], rows)


def _bad_cell(runs: pd.DataFrame, status: str) -> Cell:
    n = int((runs["status"] == status).sum())
    return Cell(count(n), tone="warned" if n else "")


def _runs(facts: Facts, student: str, bad: pd.DataFrame, rescue: pd.DataFrame) -> Grid:
    stand_in = {
        (row["arm"], row["fold"], row["seed"]): row["trained_seed"]
        for _, row in rescue.iterrows()
        if not absent(row["trained_seed"])
    }
    order = {arm: k for k, arm in enumerate(in_arm_order(bad["arm"].unique()))}
    folds = bad["fold"].nunique() > 1
    rows = []
    for _, row in bad.sort_values(
        ["arm", "fold", "seed"], key=lambda c: c.map(order) if c.name == "arm" else c
    ).iterrows():
        seed = stand_in.get((row["arm"], row["fold"], row["seed"]))
        run = f"fold {count(row['fold'])}, seed {count(row['seed'])}" if folds else f"seed {count(row['seed'])}"
        rows.append(
            [
                Cell(str(row["arm"]), small=run),
                Cell(str(row["status"]), tone="failed" if row["status"] == "failed" else "warned"),
                Cell(words(row["reason"])),
                Cell(count(row["stopped_at"])),
                Cell(MISSING if seed is None else count(seed)),
            ]
        )
    caption = f"Every run that collapsed or failed{of_student(facts, student)}, why, and which seed stands in for it"
    columns = [
        Column("arm"),
        Column("ended"),
        Column("why"),
        Column("stopped at step", True),
        Column("replaced by seed", True),
    ]
    folded = f"{plural(len(rows), 'run')} that collapsed or failed" if len(rows) > MOST_RUNS else ""
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded)
