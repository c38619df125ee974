"""The sections about trained classifiers: scores, learning curves, confusion matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.report.blocks import (
    MISSING,
    THIN,
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    count,
    number,
    percent,
    plural,
)
from consenso.report.contrast_section import heading, of_student
from consenso.report.facts import METRICS, Facts, in_arm_order
from consenso.report.numbers import accuracy, confusion
from consenso.report.plots import curves, scores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def arm_scores(facts: Facts) -> Section:
    """Return one dot per run and arm, and the means."""
    section = ("scores", "Scores of each arm")
    table = facts.table("scores")
    if table is None:
        return Section(*section, [Note(facts.why_absent("scores"), "absent")])
    table = table[(table["part"] == "test") & (table["attempt"] == "as_run")]
    blocks: list[Block] = []
    for student in facts.students:
        mine = table[(table["student"] == student) & table["value"].notna()]
        if mine.empty:
            blocks.append(Note(f"No test scores of student “{student}”.", "absent"))
            continue
        blocks += heading(facts, student)
        collapsed = bad_runs(facts, student)
        blocks.append(_dots(facts, student, mine[mine["metric"] == facts.metric], collapsed))
        blocks.append(_score_grid(facts, student, mine, collapsed))
    return Section(*section, blocks)


def bad_runs(facts: Facts, student: str) -> dict[tuple[str, int, int], str]:
    """Return (arm, fold, seed) → status of a student's runs that collapsed or failed, as run."""
    trainings = facts.table("trainings")
    if trainings is None:
        return {}
    bad = trainings[
        (trainings["student"] == student) & (trainings["attempt"] == "as_run") & (trainings["status"] != "ok")
    ]
    return dict(zip(zip(bad["arm"], bad["fold"], bad["seed"]), bad["status"]))


def _dots(facts: Facts, student: str, frame: pd.DataFrame, collapsed: dict[tuple[str, int, int], str]) -> Figure | Note:
    metric = METRICS.get(facts.metric, facts.metric)
    if frame.empty:
        return Note(f"No {metric} of student “{student}”.", "absent")
    arms = in_arm_order(frame["arm"].unique())
    # Arms that learn nothing sit so far below that they would squeeze everything else: the table has them.
    shown = [arm for arm in arms if not arm.startswith(("floor", "permuted"))] or arms
    rows = []
    for arm in shown:
        mine = frame[frame["arm"] == arm].sort_values(["fold", "seed"])
        bad = [(arm, fold, seed) in collapsed for fold, seed in zip(mine["fold"], mine["seed"])]
        rows.append((arm, [float(value) for value in mine["value"]], bad))
    name = f"scores-{facts.students.index(student)}"
    wide, narrow = scores(name, rows)
    cross = " A cross is a run that collapsed; it counts." if any(any(bad) for *_, bad in rows) else ""
    low = [arm for arm in arms if arm not in shown]
    floor = f" In the table only: {', '.join(low)}." if low else ""
    marks = f"one mark per run, the line and the figure are the mean.{cross}{floor}"
    caption = f"{metric[:1].upper()}{metric[1:]} on the test texts{of_student(facts, student)}: {marks}"
    said = (
        caption
        + " "
        + "; ".join(
            f"{arm}: mean {number(sum(v) / len(v))}, {number(min(v))} to {number(max(v))}" for arm, v, _ in rows
        )
    )
    return Figure(name, caption, said, wide, narrow)


def _score_grid(facts: Facts, student: str, frame: pd.DataFrame, collapsed: dict[tuple[str, int, int], str]) -> Grid:
    metrics = [facts.metric, *sorted(set(METRICS) - {facts.metric})]
    metrics = [m for m in metrics if (frame["metric"] == m).any()]
    trainings = facts.table("trainings")
    rows = []
    for arm in in_arm_order(frame["arm"].unique()):
        mine = frame[frame["arm"] == arm]
        runs = mine[["fold", "seed"]].drop_duplicates()
        row = [Cell(arm), Cell(_train_rows(trainings, student, arm)), Cell(count(len(runs)))]
        for metric in metrics:
            values = mine.loc[mine["metric"] == metric, "value"]
            spread = f"sd {number(values.std(ddof=1))}" if len(values) > 1 else ""
            row.append(Cell(number(values.mean()), small=spread))
        bad = sum(1 for key in collapsed if key[0] == arm)
        rows.append([*row, Cell(count(bad), tone="warned" if bad else "")])
    columns = [Column("arm"), Column("training rows", True), Column("runs", True)]
    columns += [*(Column(METRICS.get(m, m), True) for m in metrics), Column("collapsed or failed", True)]
    return Grid(f"Test scores of each arm{of_student(facts, student)}: means over runs, sd between runs", columns, rows)


def _train_rows(trainings: pd.DataFrame | None, student: str, arm: str) -> str:
    if trainings is None:
        return MISSING
    rows = trainings.loc[(trainings["student"] == student) & (trainings["arm"] == arm), "train_rows"].dropna()
    if rows.empty:
        return MISSING
    low, high = count(rows.min()), count(rows.max())
    return low if low == high else f"{low} to {high}"


def learning_curves(facts: Facts) -> Section:
    """Return dev scores along training, one line per seed, one panel per arm."""
    section = ("curves", "Learning curves")
    table = facts.table("curves")
    if table is None:
        return Section(*section, [Note(facts.why_absent("curves"), "absent")])
    table = table[(table["attempt"] == "as_run") & table["dev_macro_f1"].notna()]
    blocks: list[Block] = []
    for student in sorted(
        table["student"].unique(), key=lambda s: facts.students.index(s) if s in facts.students else 99
    ):
        mine = table[table["student"] == student]
        lengths = mine.groupby(["arm", "fold", "seed"])["step"].nunique()
        if lengths.max() <= 1:
            blocks.append(Note(f"Student “{student}” is fitted in one step: there is no curve to draw.", "absent"))
        else:
            blocks.append(_curve_figure(facts, student, mine))
    return Section(*section, blocks or [Note("No dev scores were recorded along the trainings.", "absent")])


def _curve_figure(facts: Facts, student: str, frame: pd.DataFrame) -> Figure:
    trainings, collapsed = facts.table("trainings"), bad_runs(facts, student)
    best: dict[Any, Any] = {}
    if trainings is not None:
        mine = trainings[(trainings["student"] == student) & (trainings["attempt"] == "as_run")]
        best = dict(zip(zip(mine["arm"], mine["fold"], mine["seed"]), mine["best_step"]))
    panels = []
    for arm in in_arm_order(frame["arm"].unique()):
        runs: list[dict[str, Any]] = []
        for (fold, seed), run in frame[frame["arm"] == arm].sort_values("step").groupby(["fold", "seed"]):
            key = (arm, fold, seed)
            runs.append(
                {
                    "steps": list(run["step"]),
                    "values": list(run["dev_macro_f1"]),
                    "best": best.get(key),
                    "collapsed": key in collapsed,
                }
            )
        panels.append((arm, runs))
    name = f"curves-{facts.students.index(student) if student in facts.students else 99}"
    wide, narrow = curves(name, panels)
    dashed = " Dashed, with a cross: collapsed runs." if collapsed else ""
    caption = (
        f"Dev macro-F1 by optimiser step{of_student(facts, student)}, one line per seed; the dot marks the state "
        f"that was kept.{dashed} Dev texts are labelled by the arm’s own source, so levels of different arms are not "
        "comparable; shapes are."
    )
    ends = []
    for arm, found in panels:
        last = [run["values"][-1] for run in found]
        ends.append(f"{arm}: {number(min(last))} to {number(max(last))} at the end")
    return Figure(name, caption, f"{caption} {'; '.join(ends)}", wide, narrow)


def confusions(facts: Facts) -> Section:
    """Return where the consensus, and the classifiers of the primary contrast, depart from gold."""
    section = ("confusion", "Confusion matrices")
    blocks: list[Block] = []
    names = facts.label_names
    if facts.consensus is not None and facts.open_gold is not None:
        table = confusion(facts.open_gold, facts.consensus.set_index("text_id")["label"], names)
        right = f"{percent(accuracy(table))} of {plural(int(table.sum()), 'text')} right"
        caption = f"Consensus labels against gold, on {facts.open_words}: {right}"
        blocks.append(_confusion_grid(caption, table, names, "consensus"))
    elif facts.consensus is not None:
        blocks.append(Note(f"No matrix of the consensus labels: {facts.no_gold}.", "absent"))
    predictions = facts.table("predictions")
    if predictions is None:
        blocks.append(Note(facts.why_absent("predictions"), "absent"))
    elif facts.gold is None:
        blocks.append(Note("There is no gold: no matrix of the classifiers.", "absent"))
    else:
        chosen = (predictions["part"] == "test") & (predictions["attempt"] == "as_run")
        blocks += _student_matrices(facts, predictions[chosen], facts.gold)
    return Section(*section, blocks, columns=len(names) <= 4)


def _student_matrices(facts: Facts, predictions: pd.DataFrame, gold: pd.Series) -> list[Block]:
    blocks: list[Block] = []
    for place, student in enumerate(facts.students):
        primary = facts.primary(student)
        arms = ["gold-aligned", "consensus"] if primary is None else [str(primary["control"]), str(primary["arm"])]
        for arm in arms:
            mine = predictions[(predictions["student"] == student) & (predictions["arm"] == arm)].reset_index(drop=True)
            truth = mine["text_id"].map(gold).dropna()
            if truth.empty:
                continue
            table = confusion(truth, mine["predicted"], facts.label_names)
            runs = len(mine[["fold", "seed"]].drop_duplicates())
            caption = (
                f"Classifier trained on “{arm}”{of_student(facts, student)} against gold, on the test texts, "
                f"{plural(runs, 'run')} together: {percent(accuracy(table))} right"
            )
            folded = "" if place == 0 else f"Student “{student}”, trained on “{arm}”"
            blocks.append(_confusion_grid(caption, table, facts.label_names, "predicted", folded))
    return blocks or [Note("No predictions of the primary arms on test texts with gold.", "absent")]


def _confusion_grid(caption: str, table: np.ndarray, names: list[str], given: str, folded: str = "") -> Grid:
    with_none = bool(table[:, -1].any())
    width = len(names) + (1 if with_none else 0)
    totals = table.sum(axis=1)
    rows = []
    for k, name in enumerate(names):
        row = [Cell(name, small=count(totals[k]))]
        for j in range(width):
            tone = "diagonal" if j == k else ""
            if not table[k, j]:
                row.append(Cell("0" if totals[k] else MISSING, heat=0.0, tone=tone or "zero"))
                continue
            share = float(table[k, j] / totals[k])
            row.append(Cell(percent(share, 0), small=count(table[k, j]), heat=share, tone=tone))
        rows.append(row)
    heads = [*names, *(["no label"] if with_none else [])]
    columns = [Column(f"gold ↓  {given} →"), *(Column(name, True) for name in heads)]
    return Grid(
        f"{caption}. Each row adds up to 100{THIN}%.",
        columns,
        rows,
        heat=True,
        folded=folded,
        in_markdown=len(names) <= 8,
    )
