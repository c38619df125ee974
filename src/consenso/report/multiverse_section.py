"""The section about the multiverse: does the verdict hold under other reasonable choices?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    MISSING,
    P95,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    absent,
    cells,
    count,
    interval,
    plural,
    points,
)
from consenso.report.contrast_section import levels_of, verdict_of
from consenso.report.facts import METRICS, Facts
from consenso.report.further_answers import UNUSABLE, head_of
from consenso.report.multiverse_plot import LOOKS, Specification, specification_curve

if TYPE_CHECKING:
    import pandas as pd

CHOICES = {"student": "student", "votes": "asked how", "aggregator": "aggregator", "threshold": "threshold"}
"""Column of the table → what was chosen."""
MOST_DRAWN = 100
"""With more specifications than this every n-th is drawn; the table has all."""
MOST_OPTIONS = 12
"""A choice with more options than this is left to the table."""
MOST_OPEN = 12
MOST_IN_MARKDOWN = 20
"""With more specifications than this report.md counts them by verdict."""
NONE = "none"
NOT_RUN = "NOT RUN"
"""In place of a verdict: the specification could not be run, and has no numbers."""


def multiverse(facts: Facts) -> Section:
    """Return the specification curve of the primary contrast, its sentence and its table."""
    section = ("multiverse", "Multiverse: would other choices change the verdict?")
    table = facts.table("multiverse")
    if table is None:
        return Section(*section, [Note(_why_absent(facts), "absent")])
    table = table.sort_values(["difference", "specification"], na_position="last")
    if why := _not_judged(facts):
        return Section(*section, [Note(why, "absent"), *_grids(facts, table)])
    said = facts.record.get("multiverse")
    notes = [Note(said if isinstance(said, str) and said.strip() else _in_words(table))]
    drawn = table[table["difference"].notna()]
    figure = [_figure(facts, drawn)] if len(drawn) else []
    return Section(*section, [*notes, *figure, *_grids(facts, table)])


def _not_judged(facts: Facts) -> str:
    """Why there is no verdict that other choices could change; '' where there is one."""
    row = facts.primary(facts.students[0]) if facts.students else None
    word = "" if row is None else head_of(verdict_of(row))
    if row is not None and word not in UNUSABLE:
        return ""
    if row is None:
        return "The primary contrast was not compared, so there is no verdict that other choices could change."
    reason = "" if absent(row["reason"]) else f" ({row['reason']})"
    return f"The verdict of this run is {word}{reason}, so there is none that other choices could change."


def _why_absent(facts: Facts) -> str:
    if not facts.folder.has("comparison"):
        return facts.why_absent("comparison")
    return "No multiverse was run: nothing tells whether other prompts, aggregators, thresholds or students change the verdict."


def _in_words(table: pd.DataFrame) -> str:
    """The sentence where the record has none: how often which verdict."""
    words = table["verdict"].map(_word)
    main = words[table["is_main"].fillna(False).astype(bool)]
    counts = ", ".join(f"{word} {count((words == word).sum())}" for word in LOOKS if (words == word).any())
    if left := int((words == NOT_RUN).sum()):
        counts += f"{', ' if counts else ''}not run {count(left)}"
    same = ""
    if len(main) and main.iloc[0] != NOT_RUN:
        same = f"{count((words == main.iloc[0]).sum())} of {plural(len(table), 'specification')} give "
        same += f"the declared verdict, {main.iloc[0]}; "
    low, high = table["difference"].min(), table["difference"].max()
    spread = "" if absent(low) else f"; differences from {points(low)} to {points(high)}"
    return f"{same}verdicts: {counts}{spread}."


def _word(verdict: object) -> str:
    upper = str(verdict).strip().upper()
    if upper.startswith(NOT_RUN):
        return NOT_RUN
    return next((word for word in LOOKS if upper.startswith(word)), "NO VERDICT")


def _option(value: object) -> str:
    return NONE if absent(value) or value == "" else str(value)


def _choices(table: pd.DataFrame) -> dict[str, list[str]]:
    """What was chosen → its options, for choices with at least two."""
    found = {}
    for column, name in CHOICES.items():
        options = list(dict.fromkeys(sorted(_option(value) for value in table[column])))
        if 1 < len(options) <= MOST_OPTIONS:
            found[name] = options
    return found


def _figure(facts: Facts, table: pd.DataFrame) -> Figure:
    primary = facts.primary(facts.students[0]) if facts.students else None
    margin = 0.0 if primary is None or absent(primary["margin"]) else float(primary["margin"])
    level = P95 if primary is None else levels_of(primary)[0]
    some = _drawn(table)
    rows = [
        Specification(
            difference=float(row["difference"]),
            low=float(row["low"]),
            high=float(row["high"]),
            verdict=_word(row["verdict"]),
            main=bool(row["is_main"]),
            choices={name: _option(row[column]) for column, name in CHOICES.items()},
        )
        for _, row in some.iterrows()
    ]
    drawings = specification_curve(rows, margin, _choices(table))
    metric = METRICS.get(facts.metric, facts.metric)
    left_out = f" Of {plural(len(table), 'specification')} {len(rows)} are drawn." if len(rows) < len(table) else ""
    caption = (
        f"Difference in {metric} under every combination of choices, sorted, with {level} intervals"
        + (f"; shaded: the declared ±{points(margin).lstrip('+')}" if margin else "")
        + ". Below: what each specification chose (choices with one option are left out). The ring marks the declared one."
        + left_out
    )
    label = f"{caption} {_in_words(table)}"
    return Figure("multiverse", caption, label, *drawings)


def _drawn(table: pd.DataFrame) -> pd.DataFrame:
    if len(table) <= MOST_DRAWN:
        return table
    import numpy as np

    places = np.unique(np.linspace(0, len(table) - 1, MOST_DRAWN - 1).round().astype(int))
    main = np.flatnonzero(table["is_main"].fillna(False).astype(bool))
    return table.iloc[np.union1d(places, main)]


def _grids(facts: Facts, table: pd.DataFrame) -> list[Grid]:
    """Every specification; where they are too many for report.md, their number by verdict first."""
    if len(table) <= MOST_IN_MARKDOWN:
        return [_grid(facts, table)]
    found = table["verdict"].map(_word)
    rows = [cells(word, count((found == word).sum())) for word in (*LOOKS, NOT_RUN) if (found == word).any()]
    caption = f"{plural(len(table), 'specification')} by verdict"
    return [Grid(caption, [Column("verdict"), Column("specifications", True)], rows), _grid(facts, table)]


def _grid(facts: Facts, table: pd.DataFrame) -> Grid:
    primary = facts.primary(facts.students[0]) if facts.students else None
    margin = None if primary is None else primary["margin"]
    rows = []
    for _, row in table.iterrows():
        ran = not absent(row["difference"])
        rows.append(
            [
                Cell(count(row["specification"]), small="declared" if row["is_main"] else "",
                     tone="primary" if row["is_main"] else ""),
                *(Cell(MISSING if absent(row[name]) else str(row[name])) for name in CHOICES),
                Cell(_verdict(row, margin)),
                Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"]) if ran else ""),
                Cell(count(row["train_texts"]) if ran else MISSING),
                Cell(count(row["S"]) if ran else MISSING, small=plural(row["n"], "text") if ran else ""),
            ]
        )  # fmt: skip
    names = (*CHOICES.values(), "verdict")
    numbers = ("difference, pp", "training texts", "seeds")
    columns = [Column("no."), *(Column(name) for name in names), *(Column(name, True) for name in numbers)]
    caption = "Every specification, from the lowest difference to the highest; below the difference its interval"
    folded = f"{plural(len(rows), 'specification')} as a table" if len(rows) > MOST_OPEN else ""
    return Grid(caption, columns, rows, folded=folded, in_markdown=len(rows) <= MOST_IN_MARKDOWN)


def _verdict(row: pd.Series, margin: object) -> str:
    """The verdict word; within the margin where that can be told."""
    import pandas as pd

    return str(row["verdict"]) if absent(margin) else verdict_of(pd.Series({**row.to_dict(), "margin": margin}))
