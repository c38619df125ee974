"""report.md: the answer and the main tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from consenso.report.blocks import Answer, Block, Case, Grid, Section

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#])")


def escape(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("://", ":&#47;&#47;")


def as_markdown(title: str, answer: Answer, sections: Sequence[Section]) -> str:
    """Return the report as Markdown."""
    lines = [f"# {escape(title)}", "", f"**{escape(answer.word)}** – {escape(answer.sentence)}", ""]
    if answer.reason:
        lines += [f"Why: {escape(answer.reason)}", ""]
    lines += [f"{escape(answer.meaning)} {escape(answer.advice)}".strip(), ""]
    for limit in answer.limits:
        lines += [f"Keep in mind: {escape(limit)}", ""]
    lines += [f"- {escape(name)}: **{escape(value)}** ({escape(detail)})" for name, value, detail in answer.figures]
    for name, word, sentence in answer.others:
        lines.append(f"- {escape(name)}: " + (f"**{escape(word)}** – " if word else "") + escape(sentence))
    if answer.guards:
        lines.append(f"- Guards: {', '.join(words for _, words in answer.guards)}")
    for section in sections:
        lines += ["", f"## {escape(section.title)}"]
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    if block.kind == "grid":
        return _grid(block) if block.in_markdown else []
    if block.kind == "cases":
        return ["", escape(block.caption), "", *(_case(item) for item in block.items)]
    if block.kind == "note":
        return ["", escape(block.text)]
    if block.kind == "heading":
        return ["", f"### {escape(block.text)}"]
    return []


def _grid(grid: Grid) -> list[str]:
    head = "| " + " | ".join(escape(column.name) for column in grid.columns) + " |"
    rule = "|" + "|".join("---:" if column.number else "---" for column in grid.columns) + "|"
    rows = []
    for place, row in enumerate(grid.rows):
        if place in grid.groups:
            rows.append(f"| **{escape(grid.groups[place])}** |" + " |" * (len(grid.columns) - 1))
        shown = [escape(cell.text) + (f" ({escape(cell.small)})" if cell.small else "") for cell in row]
        rows.append("| " + " | ".join(shown) + " |")
    return ["", f"{escape(grid.caption)}:", "", head, rule, *rows]


def _case(case: Case) -> str:
    votes = "; ".join(f"{label} ({who})" if who else label for label, who in case.votes)
    facts = ", ".join(f"{name} {value}" for name, value in case.facts)
    return f"- `{case.text_id.replace('`', '')}` {escape(case.text)} – votes: {escape(votes)}; {escape(facts)}"
