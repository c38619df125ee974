"""The report's section with what may be copied into a paper."""

from __future__ import annotations

from consenso.report.blocks import Block, Cell, Column, Grid, Heading, Note, Section
from consenso.report.facts import Facts
from consenso.report.paper import paper_texts


def paper_section(facts: Facts) -> Section:
    """Return the sentence, the methods paragraph and the table; paper.md, paper.tex and paper.bib hold them to copy."""
    texts = paper_texts(facts)
    blocks: list[Block] = [Heading("The verdict in a sentence"), Note(texts.sentence)]
    if texts.methods:
        blocks += [Heading("Methods"), Note(texts.methods_paragraph)]
    if texts.rows:
        columns = [Column(name, is_number) for name, is_number in texts.columns]
        rows = [[Cell(cell) for cell in row] for row in texts.rows]
        blocks.append(Grid(texts.caption, columns, rows, folded="The table for the paper", in_markdown=False))
    if not facts.is_own_predictions:  # their folder has a report and no more
        beside = "paper.md, paper.tex (booktabs) and paper.bib beside this report hold all of this, ready to copy."
        blocks.append(Note(beside))
    return Section("paper", "For the paper", blocks, group="For the paper")
