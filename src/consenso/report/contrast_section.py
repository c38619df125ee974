"""The section about differences: a forest plot and a table of every contrast, per student and by question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
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
    level,
    number,
    percent,
    plural,
    points,
    probability,
    words,
)
from consenso.report.facts import METRICS, Facts
from consenso.report.forest_plot import Contrast, forest
from consenso.report.questions import ORDER, question_of

if TYPE_CHECKING:
    import pandas as pd


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
    frame = None if frame is None else by_question(frame)
    if frame is None:
        return [Note(f"The arms of student “{student}” form no contrast.", "absent")]
    blocks: list[Block] = heading(facts, student)
    drawn = frame[frame["difference"].notna()]
    if len(drawn) and frame["margin"].notna().any():
        blocks.append(_forest(facts, student, drawn))
    name = METRICS.get(facts.metric, facts.metric)
    blocks.append(contrast_grid(frame, f"Contrasts in {name}{of_student(facts, student)}"))
    if said := _how_replicated(frame):
        blocks.append(Note(said))
    for metric in sorted(set(METRICS) - {facts.metric}):
        if (other := facts.contrasts(student, metric)) is not None:
            title = f"The same in {METRICS[metric]}"
            blocks.append(contrast_grid(other, f"Contrasts in {METRICS[metric]}{of_student(facts, student)}", title))
    if (rescue := facts.contrasts(student, attempt="rescue")) is not None:
        caption = f"Contrasts in {name} with collapsed seeds replaced in all arms{of_student(facts, student)}"
        blocks.append(contrast_grid(rescue, caption, "Second analysis: collapsed seeds replaced"))
    if (strata := facts.contrasts(student, scope=None)) is not None:
        caption = f"Contrasts in {name} on groups of test texts{of_student(facts, student)}"
        blocks.append(contrast_grid(strata, caption, "On groups of test texts"))
    return blocks


def by_question(frame: pd.DataFrame) -> pd.DataFrame:
    """Return contrasts with the column `question`, those of one question together, the primary's question first."""
    questions = [question_of(str(arm), str(control)) for arm, control in zip(frame["arm"], frame["control"])]
    frame = frame.assign(question=questions)
    first = set(frame.loc[frame["is_primary"], "question"])
    place = {question: (question not in first, k) for k, question in enumerate(ORDER)}
    return frame.sort_values("question", key=lambda found: found.map(place), kind="stable")


def _how_replicated(frame: pd.DataFrame) -> str:
    """What stands behind the intervals, where that is not seeds alone."""
    row = frame.iloc[0]
    said = []
    if row["replication"] == "fold":
        said.append(
            f"The intervals are over {plural(row['k'], 'fold')}, whose trainings share texts: their standard error is that of "
            "Nadeau and Bengio (2003), and they generalise over training texts."
        )
    if row["replication"] == "bootstrap":
        said.append("Each seed draws its own bootstrap resample of the training texts, the same in every arm.")
    if frame["boot_low"].notna().any():
        said.append(
            "The cross-check, below the narrower interval, is the wider one again from a crossed bootstrap over seeds and test "
            "texts; it is somewhat too wide by design."
        )
    if frame["detectable"].notna().any():
        said.append("“Sees” is the smallest true difference that this run would show in 8 of 10 repetitions.")
    return " ".join(said)


def heading(facts: Facts, student: str) -> list[Block]:
    """Return a heading per student, where there are several."""
    if len(facts.students) == 1:
        return []
    varied = facts.variation(student)
    return [Heading(f"Declared variant “{varied[1]}” of student “{varied[0]}”" if varied else f"Student “{student}”")]


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


def levels_of(row: pd.Series) -> tuple[str, str]:
    """Return the levels of a row's wide and its narrow interval: 95 % and 90 % unless several looks share alpha."""
    alpha = 0.05 if absent(row["alpha"]) else float(row["alpha"])
    return level(1 - alpha), level(1 - 2 * alpha)


def _forest(facts: Facts, student: str, frame: pd.DataFrame) -> Figure:
    margin = float(frame["margin"].dropna().iloc[0])
    rows = [as_contrast(row) for _, row in frame.iterrows()]
    name = f"forest-{facts.students.index(student)}"
    wide, narrow = forest(name, rows, margin, groups_of(frame))
    wider, narrower = levels_of(frame.iloc[0])
    metric = METRICS.get(facts.metric, facts.metric)
    caption = (
        f"Difference in {metric} between two arms{of_student(facts, student)}, in percentage points, with {wider} (thin) "
        f"and {narrower} (thick) intervals; shaded: the declared ±{points(margin).lstrip('+')}. The primary contrast is the "
        "diamond; an arrow points at a difference beyond the scale."
    )
    lines = [f"{row.name}: {points(row.difference)} {interval(row.low, row.high)}, {row.verdict}" for row in rows]
    return Figure(name, caption, f"{caption} {'; '.join(lines)}", wide, narrow)


def groups_of(frame: pd.DataFrame) -> dict[int, str]:
    """Return the place of the first row of each question → the question; {} where there is one only."""
    if "question" not in frame or frame["question"].nunique() < 2:
        return {}
    found = list(frame["question"])
    return {k: question for k, question in enumerate(found) if k == 0 or found[k - 1] != question}


def contrast_grid(frame: pd.DataFrame, title: str, folded: str = "") -> Grid:
    """Return a table of contrasts; under the mean of the arm that of its control, under the difference its interval."""
    scopes = frame["scope"].nunique() > 1 or frame["scope"].iloc[0] != "all"
    checked = bool(frame["boot_low"].notna().any())
    rows = []
    for _, row in frame.iterrows():
        reason = "" if absent(row["reason"]) else str(row["reason"])
        small = f"{row['scope']}" if scopes else "" if absent(row["effect"]) else str(row["effect"])
        holm = "" if absent(row["p_holm"]) else f"Holm {probability(row['p_holm'])}"
        sees = "" if absent(row["detectable"]) else f"sees {points(row['detectable'], unit=False).lstrip('+')}"
        cells = [
            Cell(str(row["contrast"]), small=small, tone="primary" if row["is_primary"] else ""),
            Cell(verdict_of(row), small=reason, tone="long" if reason else ""),
            Cell(number(row["arm_mean"]), small=number(row["control_mean"])),
            Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"])),
            Cell(
                interval(row["low90"], row["high90"]),
                small=interval(row["boot_low"], row["boot_high"]) if checked else "",
            ),
            Cell(probability(row["p"]), small=holm),
            Cell(percent(row["seeds_better"], 0), small=sees),
        ]
        rows.append(cells)
    first = frame.iloc[0]
    wide, narrow = levels_of(first)
    texts = "" if scopes else f", {plural(first['n'], 'test text')}"
    runs = plural(first["k"], "fold") if first["replication"] == "fold" else plural(first["S"], "paired run")
    better = "folds better" if first["replication"] == "fold" else "seeds better"
    caption = f"{title}: {runs}{texts}; below the difference its {wide} interval"
    names = ("means", "difference, pp", f"{narrow}; cross-check" if checked else narrow, "p", better)
    columns = [Column("contrast"), Column("verdict"), *(Column(name, True) for name in names)]
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded, groups=groups_of(frame))
