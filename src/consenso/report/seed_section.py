"""The sections that take the primary contrast apart: seed by seed, and class by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from consenso.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    absent,
    count,
    interval,
    percent,
    plural,
    points,
    probability,
)
from consenso.report.classifier_sections import bad_runs
from consenso.report.contrast_section import heading, levels_of, of_student
from consenso.report.effect_plots import ClassRow, Strip, class_differences, strips
from consenso.report.facts import METRICS, Facts

if TYPE_CHECKING:
    import pandas as pd

MOST_CLASSES = 25
"""With more classes than this, those with the most test texts are drawn; the table has all."""

Key = tuple[str, int, int]
"""Arm, fold, seed."""


def seed_by_seed(facts: Facts) -> Section:
    """Return the difference of the primary contrast in each run, drawn and as a table."""
    section = ("seeds", "Seed by seed")
    table = facts.table("seed_differences")
    if table is None:
        return Section(*section, [Note(facts.why_absent("seed_differences"), "absent")])
    return Section(*section, _per_student(facts, table, _seeds_of))


def classes(facts: Facts) -> Section:
    """Return what the primary contrast does to the recall of each class."""
    section = ("classes", "Classes")
    table = facts.table("class_differences")
    if table is None:
        return Section(*section, [Note(facts.why_absent("class_differences"), "absent")])
    return Section(*section, _per_student(facts, table[table["attempt"] == "as_run"], _classes_of))


def _per_student(facts: Facts, table: pd.DataFrame, blocks_of: Callable[..., list[Block]]) -> list[Block]:
    blocks: list[Block] = []
    for student in facts.main_students:
        primary = facts.primary(student)
        if primary is None:
            blocks.append(Note(f"Student “{student}” has no primary contrast.", "absent"))
            continue
        mine = table[(table["student"] == student) & (table["contrast"] == primary["contrast"])]
        blocks += heading(facts, student)
        if mine.empty:
            blocks.append(Note(f"Nothing of {primary['contrast']} in the table{of_student(facts, student)}.", "absent"))
        else:
            blocks += blocks_of(facts, student, primary, mine)
    if varied := [student for student in facts.students if student not in facts.main_students]:
        blocks.append(
            Note(f"Of the declared variants ({', '.join(varied)}) the contrasts above tell; the table has the rest.")
        )
    return blocks or [Note("No arms form the primary contrast.", "absent")]


def _seeds_of(facts: Facts, student: str, primary: pd.Series, frame: pd.DataFrame) -> list[Block]:
    bad = bad_runs(facts, student)
    as_run = frame[frame["attempt"] == "as_run"].sort_values(["fold", "seed"])
    rescue = frame[frame["attempt"] == "rescue"].sort_values(["fold", "seed"])
    rows = [
        _strip(as_run, metric, METRICS[metric], primary, bad)
        for metric in [facts.metric, *sorted(set(METRICS) - {facts.metric})]
        if metric in METRICS
    ]
    if len(rescue) and facts.metric in METRICS:
        replaced = _with_replaced(as_run, rescue)
        rows.append(_strip(replaced, facts.metric, "collapsed seeds replaced", primary, {}))
    place = facts.students.index(student)
    blocks: list[Block] = [Note(_spread(facts, primary, as_run))] if facts.metric in METRICS and len(as_run) else []
    if rows and any(row.differences for row in rows):
        blocks.append(_seed_figure(facts, student, primary, rows, f"seeds-{place}"))
    blocks.append(_seed_grid(facts, student, primary, frame, bad))
    return blocks


def _of_pair(primary: pd.Series, bad: dict[Key, str], fold: int, seed: int) -> str:
    """Which side of the contrast did not end well in this run, in words."""
    sides = [(arm, bad.get((arm, fold, seed))) for arm in (str(primary["arm"]), str(primary["control"]))]
    return ", ".join(f"{arm} {status}" for arm, status in sides if status)


def _strip(frame: pd.DataFrame, metric: str, name: str, primary: pd.Series, bad: dict[Key, str]) -> Strip:
    frame = frame[frame[metric].notna()]
    marked = [bool(_of_pair(primary, bad, fold, seed)) for fold, seed in zip(frame["fold"], frame["seed"])]
    return Strip(name, [float(value) for value in frame[metric]], marked)


def _with_replaced(as_run: pd.DataFrame, rescue: pd.DataFrame) -> pd.DataFrame:
    """The second analysis: replaced seeds from the rescue, all others as run."""
    import pandas as pd

    both = pd.concat([as_run, rescue]).drop_duplicates(["fold", "seed"], keep="last")
    return both.sort_values(["fold", "seed"])


def _spread(facts: Facts, primary: pd.Series, frame: pd.DataFrame) -> str:
    values = frame[facts.metric].dropna()
    if values.empty:
        return "No run has a difference."
    runs, name = len(values), METRICS[facts.metric]
    above = int((values > 0).sum())
    many = f", with standard deviation {points(values.std(ddof=1)).lstrip('+')}" if runs > 1 else ""
    return (
        f"Trained on {primary['arm']}, the classifier scores higher than on {primary['control']} in {above} of "
        f"{plural(runs, 'run')}. The difference in {name} goes from {points(values.min())} to {points(values.max())}{many}: a "
        "single run could have ended anywhere in between."
    )


def _seed_figure(facts: Facts, student: str, primary: pd.Series, rows: list[Strip], name: str) -> Figure:
    margin = 0.0 if absent(primary["margin"]) else float(primary["margin"])
    wide, narrow = strips(name, rows, margin)
    cross = " A cross is a run with a training that collapsed or failed." if any(any(r.collapsed) for r in rows) else ""
    caption = (
        f"{primary['contrast']} in each run{of_student(facts, student)}, the same seed in both arms; the tick and the figure are "
        f"the mean.{cross}" + (f" Shaded: the declared ±{points(margin).lstrip('+')}." if margin else "")
    )
    lines = [f"{row.name}: {', '.join(points(value, unit=False) for value in row.differences)}" for row in rows]
    return Figure(name, caption, f"{caption} {'; '.join(lines)}", wide, narrow)


def _seed_grid(facts: Facts, student: str, primary: pd.Series, frame: pd.DataFrame, bad: dict[Key, str]) -> Grid:
    folds = frame["fold"].nunique() > 1
    rows = []
    for _, row in frame.sort_values(["attempt", "fold", "seed"]).iterrows():
        as_run = row["attempt"] == "as_run"
        small = _of_pair(primary, bad, row["fold"], row["seed"]) if as_run else "replaced"
        name = f"fold {count(row['fold'])}, seed {count(row['seed'])}" if folds else f"seed {count(row['seed'])}"
        rows.append(
            [
                Cell(name, small=small),
                Cell(points(row["macro_f1"], unit=False)),
                Cell(points(row["accuracy"], unit=False)),
                Cell(count(row["only_arm"])),
                Cell(count(row["only_control"])),
                Cell(probability(row["p_mcnemar"])),
            ]
        )
    names = ("macro-F1, pp", "accuracy, pp", f"only {primary['arm']} right", f"only {primary['control']} right")
    caption = (
        f"{primary['contrast']} in each run{of_student(facts, student)}. McNemar’s p is description only: it holds for one pair "
        "of trainings and says nothing about the labels, however small it is"
    )
    folded = f"{plural(len(rows), 'run')} as a table, with McNemar’s p (description only)"
    columns = [Column("run"), *(Column(name, True) for name in (*names, "McNemar p"))]
    return Grid(caption, columns, rows, folded=folded, in_markdown=len(rows) <= MOST_CLASSES)


def _classes_of(facts: Facts, student: str, primary: pd.Series, frame: pd.DataFrame) -> list[Block]:
    order = {name: k for k, name in enumerate(facts.label_names)}
    frame = frame.sort_values("label", key=lambda names: names.map(order).fillna(len(order)), kind="stable")
    drawn = frame[frame["difference"].notna()]
    if len(drawn) > MOST_CLASSES:
        most = drawn.nlargest(MOST_CLASSES, "n", keep="first").index
        drawn = drawn[drawn.index.isin(most)]
    blocks: list[Block] = [Note(_who_loses(primary, frame))]
    if len(drawn):
        blocks.append(_class_figure(facts, student, primary, drawn, len(frame)))
    return [*blocks, _class_grid(facts, student, primary, frame)]


def _is_clear(row: pd.Series, alpha: float) -> bool:
    return not absent(row["p_holm"]) and bool(row["p_holm"] < alpha)


def _alpha(primary: pd.Series) -> float:
    return 0.05 if absent(primary["alpha"]) else float(primary["alpha"])


def _who_loses(primary: pd.Series, frame: pd.DataFrame) -> str:
    clear = frame[[_is_clear(row, _alpha(primary)) for _, row in frame.iterrows()]]
    if clear.empty:
        return (
            f"No class is shown to gain or lose recall with {primary['arm']} (Holm over {plural(len(frame), 'class', 'classes')}); "
            "that is no proof that none does: look at the widths of the intervals."
        )
    parts = [f"“{row['label']}” {points(row['difference'])}" for _, row in clear.sort_values("difference").iterrows()]
    return f"With {primary['arm']}, recall changes in {len(clear)} of {plural(len(frame), 'class', 'classes')}: {', '.join(parts)}."


def _class_figure(facts: Facts, student: str, primary: pd.Series, frame: pd.DataFrame, total: int) -> Figure:
    rows = [
        ClassRow(
            name=str(row["label"]),
            difference=float(row["difference"]),
            low=float(row["low"]),
            high=float(row["high"]),
            clear=_is_clear(row, _alpha(primary)),
        )
        for _, row in frame.iterrows()
    ]
    name = f"classes-{facts.students.index(student)}"
    wide, narrow = class_differences(name, rows)
    some = f"; the {len(rows)} of {total} classes with the most test texts" if len(rows) < total else ""
    caption = (
        f"Recall of each class, {primary['contrast']}{of_student(facts, student)}, with {levels_of(primary)[0]} intervals{some}. "
        "Filled: clear after Holm’s adjustment over the classes; open: not shown."
    )
    lines = [f"{row.name}: {points(row.difference)} {interval(row.low, row.high)}" for row in rows]
    return Figure(name, caption, f"{caption} {'; '.join(lines)}", wide, narrow)


def _class_grid(facts: Facts, student: str, primary: pd.Series, frame: pd.DataFrame) -> Grid:
    rows = [
        [
            Cell(str(row["label"]), small=plural(row["n"], "test text")),
            Cell(percent(row["arm_recall"])),
            Cell(percent(row["control_recall"])),
            Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"])),
            Cell(probability(row["p"])),
            Cell(probability(row["p_holm"]), tone="primary" if _is_clear(row, _alpha(primary)) else ""),
        ]
        for _, row in frame.iterrows()
    ]
    names = (str(primary["arm"]), str(primary["control"]), "difference, pp", "p", "Holm p")
    caption = (
        f"Recall per class, {primary['contrast']}{of_student(facts, student)}: means over {plural(frame['S'].iloc[0], 'run')}; "
        f"below the difference its {levels_of(primary)[0]} interval"
    )
    folded = f"{plural(len(rows), 'class', 'classes')} as a table" if len(rows) > MOST_CLASSES else ""
    columns = [Column("class"), *(Column(name, True) for name in names)]
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded)
