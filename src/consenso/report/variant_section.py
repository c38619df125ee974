"""The section about variants: how far another way of asking the same models would have moved the labels."""

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
    points,
)
from consenso.report.facts import Facts
from consenso.report.plots import flip_rates

if TYPE_CHECKING:
    import pandas as pd

NO_VARIANTS = (
    "No annotator has a variant, so this run does not tell how far another prompt, or another decoding, could have moved the "
    "labels. [annotate.annotators.variants.NAME] below an annotator (prompt = …, parameters = …, order = …) has the same model "
    "asked once more in another way, apart from the votes."
)


def variants(facts: Facts) -> Section:
    """Return what each variant flips: labels of its annotator, and the consensus when it stands in for it."""
    section = ("variants", "Variants: another way of asking")
    table = facts.table("variants")
    if table is None:
        why = NO_VARIANTS if facts.folder.has("votes") else facts.why_absent("variants")
        return Section(*section, [Note(why, "absent")])
    table = table.sort_values(["flip_rate", "annotator", "variant"], ascending=[False, True, True], na_position="last")
    blocks: list[Block] = [Note(_most_moved(table))]
    drawn = table[table["flip_rate"].notna()]
    if len(drawn) > 1:
        blocks.append(_figure(drawn))
    blocks.append(_grid(table))
    return Section(*section, blocks)


def name_of(row: pd.Series) -> str:
    """Return a variant's name as it stands among the votes."""
    return f"{row['annotator']}~{row['variant']}"


def _most_moved(table: pd.DataFrame) -> str:
    """How much the choice of a prompt could have moved: labels of one annotator, and the consensus."""
    if table["flip_rate"].isna().all():
        return "The variants and their annotators have no text in common with a label from both, so nothing can be compared."
    row = table.loc[table["flip_rate"].idxmax()]
    said = (
        f"Asked in another way, an annotator changed up to {percent(row['flip_rate'])} of its labels "
        f"({name_of(row)}: {count(row['flipped'])} of {count(row['n'])})"
    )
    if not row["flipped"]:
        said = f"Asked in another way, no annotator changed any of its labels ({count(table['n'].sum())} compared)"
    if table["consensus_flip_rate"].max() > 0:
        row = table.loc[table["consensus_flip_rate"].idxmax()]
        said += (
            f", and with one variant in its annotator’s place up to {percent(row['consensus_flip_rate'])} of the majorities "
            f"changed ({name_of(row)}: {count(row['consensus_flipped'])} of {count(row['n_consensus'])})"
        )
    elif table["consensus_flip_rate"].notna().any():
        said += ", and no majority changed with a variant in its annotator’s place"
    return f"{said}: that much the choice among these ways of asking could have moved the labels (“prompt hacking”)."


def _figure(table: pd.DataFrame) -> Figure:
    rows = [(name_of(row), row["flip_rate"], row["low"], row["high"]) for _, row in table.iterrows()]
    wide, narrow = flip_rates(rows)
    caption = f"Share of labels that a variant flips, with {P95} intervals (Wilson), on texts with a label from both."
    lines = [f"{name}: {percent(rate)}, {percent(low)} to {percent(high)}" for name, rate, low, high in rows]
    return Figure("flip-rates", caption, f"{caption} {'; '.join(lines)}", wide, narrow)


HEADINGS = ("texts", "flipped", f"{P95} interval", "kappa", "largest shift", "invalid", "consensus flipped")


def _grid(table: pd.DataFrame) -> Grid:
    rows = []
    for _, row in table.iterrows():
        spread = MISSING if absent(row["low"]) else f"{percent(row['low'])} to {percent(row['high'])}"
        moved = not absent(row["shifted_label"]) and row["largest_shift"] != 0
        shifted = str(row["shifted_label"]) if moved else ""
        majorities = f"{count(row['consensus_flipped'])} of {count(row['n_consensus'])}"
        rows.append(
            [
                Cell(str(row["variant"]), small=f"of {row['annotator']}"),
                Cell(count(row["n"])),
                Cell(percent(row["flip_rate"]), small=count(row["flipped"])),
                Cell(spread),
                Cell(number(row["kappa"], 2)),
                Cell(points(row["largest_shift"]), small=shifted),
                Cell(percent(row["invalid_rate"])),
                Cell(percent(row["consensus_flip_rate"]), small=majorities),
            ]
        )
    caption = (
        "Each variant beside its annotator, on the texts that both labelled; the largest shift is of one label’s share; the "
        "consensus (majority, undecided where labels tie) is taken anew with the variant in its annotator’s place"
    )
    return Grid(caption, [Column("variant"), *(Column(name, True) for name in HEADINGS)], rows)
