"""The section about agreement: over all annotators, of each pair, per label and per annotator."""

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
    cells,
    count,
    number,
    percent,
    plural,
)
from consenso.report.facts import Facts
from consenso.report.numbers import landis_koch, votes_per_text

if TYPE_CHECKING:
    import pandas as pd

CORRECTED = {
    "alpha": ("Krippendorff’s alpha", "each vote weighs the same; the one to quote where votes are missing"),
    "alpha_ordinal": ("Krippendorff’s alpha, by rank", "labels that are far apart in rank disagree more"),
    "alpha_interval": (
        "Krippendorff’s alpha, by distance",
        "the squared distance of two labels is how much they disagree",
    ),
    "fleiss": ("Fleiss’ kappa", "chance: the labels’ shares among all votes"),
    "cohen": ("Cohen’s kappa", "mean over pairs; chance: each one’s own label shares"),
    "ac1": ("Gwet’s AC1", "hardly falls where one label is common"),
    "brennan_prediger": ("Brennan–Prediger", "chance: every label equally likely"),
}
"""Measure corrected for chance → its name, and what sets it apart."""
UNCORRECTED = {
    "raw": ("raw agreement", "mean over pairs; high by chance where one label is common"),
    "consistency": ("agreement of an annotator with itself", "mean over annotators with repeated votes"),
}
NO_PAIRS = "There are no pairs to compare: agreement needs at least two annotators who labelled the same texts."
OPEN_HEAT, MOST_HEAT = 30, 60
"""With more annotators than this the table of pairs is folded, or left out."""
MOST_ROWS = 100
"""A table of annotators has at most so many rows."""
MEASURED = (Column("value", True), Column(f"{P95} interval", True), Column("texts", True))


def agreement(facts: Facts) -> Section:
    """Return the measures over all annotators, the pairwise heat table, and the measures per label and annotator."""
    section = ("agreement", "Agreement between annotators")
    table = facts.table("agreement")
    if table is None:
        return Section(*section, [Note(facts.why_absent("agreement"), "absent")])
    overall = table[table["scope"].isin(["all", "mean"])].drop_duplicates("measure").set_index("measure")
    blocks: list[Block] = []
    if facts.voted_ids is not None:
        everything = f"all texts with votes ({count(len(facts.voted_ids))})"
        blocks.append(Note(f"Over {everything}, whatever their part: agreement needs no gold."))
    caption = (
        "Agreement beyond chance: 1 means that they always agree, 0 what chance would give. The word below a value is that "
        "of Landis and Koch (1977): a convention, not a test"
    )
    if rows := _overall(overall, CORRECTED, gloss=True):
        blocks.append(Grid(caption, [Column("measure"), *MEASURED], rows))
    if rows := _overall(overall, UNCORRECTED, gloss=False):
        blocks.append(Grid("Not corrected for chance: share of equal labels", [Column("measure"), *MEASURED], rows))
    if "effective_votes" in overall.index and not absent(overall.loc["effective_votes", "value"]):
        blocks.append(Note(_effective(facts, overall.loc["effective_votes"])))
    return Section(*section, [*blocks, *_pairs(table), *_special(table)])


def _overall(overall: pd.DataFrame, measures: dict[str, tuple[str, str]], *, gloss: bool) -> list[list[Cell]]:
    rows = []
    for measure, (name, meaning) in measures.items():
        if measure in overall.index:
            value, *others = _measured(row := overall.loc[measure])
            word = landis_koch(row["value"]) if gloss else ""
            rows.append([Cell(name, small=meaning), Cell(value.text, small=word), *others])
    return rows


def _measured(row: pd.Series) -> list[Cell]:
    spread = MISSING if absent(row["low"]) else f"{number(row['low'])} to {number(row['high'])}"
    return cells(number(row["value"]), spread, count(row["n"]))


def _effective(facts: Facts, row: pd.Series) -> str:
    votes = facts.table("votes")
    each = None if votes is None else votes_per_text(votes)
    many = "The votes on a text are" if each is None else f"{number(each, 1)} votes per text are"
    spread = "" if absent(row["low"]) else f" ({P95} interval {number(row['low'], 1)} to {number(row['high'], 1)})"
    return (
        f"{many} worth {number(row['value'], 1)} independent ones{spread}: annotators who agree repeat each other. "
        "Agreeing because they are right counts as repeating too, so this is rather too low (Kish’s design effect, from "
        "alpha)."
    )


def _pairs(table: pd.DataFrame) -> list[Block]:
    between = table["measure"].isin(["cohen", "raw"])
    pairs = table[between & table["scope"].str.contains(" × ", regex=False)]
    if pairs.empty:
        return [Note(NO_PAIRS, "absent")]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for measure, scope, value in zip(pairs["measure"], pairs["scope"], pairs["value"]):
        a, b = scope.split(" × ", 1)
        for pair in ((a, b), (b, a)):
            found.setdefault(pair, {})[measure] = value
    people = sorted({a for a, _ in found})
    return [_heat(people, found)] if len(people) <= MOST_HEAT else [Note(_spread(pairs, len(people)))]


def _spread(pairs: pd.DataFrame, people: int) -> str:
    """What the pairs of a crowd say together."""
    kappa = pairs.loc[pairs["measure"] == "cohen", "value"].dropna()
    said = (
        f"A table of the pairs of {count(people)} annotators would be too large for a page (from {MOST_HEAT + 1} on); "
        "the table agreement has them."
    )
    if kappa.empty:
        return said
    low, middle, high = (number(kappa.quantile(q), 2) for q in (0.1, 0.5, 0.9))
    return (
        f"{said} Cohen’s kappa of {plural(len(kappa), 'pair')}: median {middle}; from {low} to {high} without the tenth at "
        "each end."
    )


def _heat(people: list[str], found: dict[tuple[str, str], dict[str, float]]) -> Grid:
    rows = []
    for a in people:
        row = [Cell(a)]
        for b in people:
            values = found.get((a, b))
            if values is None:
                row.append(Cell("·" if a == b else MISSING))
                continue
            kappa, raw = values.get("cohen"), values.get("raw")
            shade = max(0.0, float(kappa)) if kappa is not None and not absent(kappa) else None
            row.append(Cell(number(kappa, 2), small="" if raw is None else percent(raw, 0), heat=shade))
        rows.append(row)
    caption = (
        "Cohen’s kappa of each pair (stronger colour: closer agreement); the small figure is the share of texts with "
        "the same label"
    )
    folded = f"Each pair of the {len(people)} annotators" if len(people) > OPEN_HEAT else ""
    columns = [Column("annotator"), *(Column(name, True) for name in people)]
    return Grid(caption, columns, rows, heat=True, folded=folded, in_markdown=len(people) <= 12)


SPECIAL = (
    ("specific", "label", "The chance that a second annotator gives the label that a first one gave", "By label"),
    ("consistency", "annotator", "Share of an annotator’s commonest answer over its repetitions", "By annotator"),
)


def _special(table: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = []
    for measure, what, caption, folded in SPECIAL:
        rows = table[(table["measure"] == measure) & ((measure == "specific") | (table["scope"] != "all"))]
        more = ""
        if len(rows) > MOST_ROWS:
            more = f"; the {MOST_ROWS} lowest of {count(len(rows))}"
            rows = rows.sort_values(["value", "scope"]).head(MOST_ROWS)
        if len(rows):
            body = [[Cell(str(row["scope"])), *_measured(row)] for _, row in rows.iterrows()]
            blocks.append(Grid(caption + more, [Column(what), *MEASURED], body, folded=folded, in_markdown=False))
    return blocks
