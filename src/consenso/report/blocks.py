"""What a section is made of; the HTML page and the Markdown file are two drawings of the same blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

MISSING = "–"
THIN = "\u202f"
"""The narrow no-break space before a unit."""
P95, P90 = f"95{THIN}%", f"90{THIN}%"


@dataclass(frozen=True)
class Cell:
    """One table cell."""

    text: str
    """What is read."""
    small: str = ""
    """A second, smaller line."""
    heat: float | None = None
    """Shade of the background, 0 to 1; the text says the same, so that nothing is told by shade alone."""
    tone: str = ""
    """passed, failed, warned, not_checked, primary: a class that style.css knows."""
    full: str = ""
    """The whole text where `text` is cut; opens on request."""
    link: str = ""
    """A relative address that the text leads to."""


@dataclass(frozen=True)
class Column:
    """One table column."""

    name: str
    """The heading."""
    number: bool = False
    """True: set to the right, digits below digits."""


@dataclass(frozen=True)
class Grid:
    """A table."""

    caption: str
    """What it shows, and for which texts."""
    columns: Sequence[Column]
    """Its headings; the first column names the row."""
    rows: Sequence[Sequence[Cell]]
    """Its cells."""
    heat: bool = False
    """True: a matrix; the first column and the head stay in sight when it scrolls."""
    folded: str = ""
    """A line to click on, behind which the table waits; empty: open."""
    in_markdown: bool = True
    """False: left out of report.md, where it would drown the answer."""
    groups: Mapping[int, str] = field(default_factory=dict)
    """Place of a row → the heading above it and the rows after it."""
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Figure:
    """A chart, drawn once for wide and once for narrow pages."""

    name: str
    """Unique on the page: the prefix of every id inside."""
    caption: str
    """What it shows and how to read it."""
    label: str
    """What a reader who cannot see it should know: the alternative text."""
    wide: str
    """SVG for 720 px."""
    narrow: str
    """SVG for 360 px."""
    legend: Sequence[tuple[str, str]] = ()
    """Pairs (class of a mark in style.css, meaning)."""
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    """Plain text."""
    tone: Literal["", "absent", "warned"] = ""
    """absent: why the section shows nothing; warned: something a person should act on."""
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section: one student's part of it."""

    text: str
    kind: Literal["heading"] = "heading"


@dataclass(frozen=True)
class Case:
    """One text that the annotators disagree about."""

    text_id: str
    text: str
    """The text, cut to the length that is shown at once."""
    full: str
    """The whole text where it was cut, else ''."""
    votes: Sequence[tuple[str, str]]
    """Pairs (label and how many votes, who gave it), commonest first."""
    facts: Sequence[tuple[str, str]]
    """Pairs (name, value): score, entropy, consensus, gold."""


@dataclass(frozen=True)
class Cases:
    """A list of texts."""

    caption: str
    items: Sequence[Case]
    open: int = 6
    """How many are shown at once; the rest opens on request."""
    kind: Literal["cases"] = "cases"


Block = Grid | Figure | Note | Cases | Heading


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    id: str
    """Its anchor."""
    title: str
    """Its heading."""
    blocks: Sequence[Block]
    """Its content, never empty: a section without data says why."""
    group: str = ""
    """The chapter it opens, for the table of contents."""
    columns: bool = False
    """True: its tables stand side by side where there is room."""


@dataclass(frozen=True)
class Answer:
    """What the report opens with."""

    word: str
    """The verdict word, or what stands in for it."""
    tone: Literal["good", "bad", "open", "stop"]
    """How the badge is coloured; the glyph and the word say the same."""
    glyph: str
    """A sign before the word."""
    sentence: str
    """The answer with its numbers."""
    meaning: str
    """What this means."""
    advice: str
    """What to do next."""
    reason: str = ""
    """Why the verdict is what it is, in the words of the comparison."""
    figures: Sequence[tuple[str, str, str]] = ()
    """Key figures: (name, value, detail)."""
    chart: Figure | None = None
    """The primary contrast, drawn."""
    limits: Sequence[str] = ()
    """What a reader must keep in mind whatever the verdict, one sentence each."""
    others: Sequence[tuple[str, str, str]] = ()
    """Further answers: (student, attempt or topic; verdict word, may be ''; sentence)."""
    guards: Sequence[tuple[str, str]] = field(default_factory=list)
    """Pairs (outcome, how many and which)."""


def absent(value: Any) -> bool:
    """Return whether a scalar is missing: None, NaN or NaT."""
    return value is None or value != value  # noqa: PLR0124 - NaN and NaT alone differ from themselves


def number(value: Any, digits: int = 3) -> str:
    """Return a number with a true minus sign, or a dash where it is missing."""
    if absent(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−") if round(value, digits) != 0 else f"{0:.{digits}f}"


def count(value: Any) -> str:
    """Return a whole number in groups of three."""
    return MISSING if absent(value) else f"{int(value):,}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """Return a share as a percentage; one that is not whole is never rounded to 0 or to 100."""
    if absent(value):
        return MISSING
    step = 10.0**-digits
    if 1e-9 < value < 1 - 1e-9 and not step / 2 <= 100 * value < 100 - step / 2:
        return f"< {number(step, digits)}{THIN}%" if value < 0.5 else f"> {number(100 - step, digits)}{THIN}%"
    return f"{number(100 * value, digits)}{THIN}%"


def points(value: Any, *, unit: bool = True) -> str:
    """Return a signed difference of shares in percentage points."""
    if absent(value):
        return MISSING
    sign = "+" if round(100 * value, 1) > 0 else ""
    return f"{sign}{number(100 * value, 1)}" + (f"{THIN}pp" if unit else "")


def interval(low: Any, high: Any) -> str:
    """Return an interval in percentage points."""
    return MISSING if absent(low) or absent(high) else f"[{points(low, unit=False)}, {points(high, unit=False)}]"


def probability(value: Any) -> str:
    """Return a p-value."""
    return MISSING if absent(value) else ("< 0.001" if value < 0.001 else number(value, 3))


def dollars(value: Any) -> str:
    """Return USD: cents from one dollar on, four decimals below; what is not nothing is never rounded to 0."""
    if absent(value):
        return MISSING
    if 0 < value < 0.00005:
        return "< 0.0001"
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.4f}"


def plural(n: Any, one: str, many: str = "") -> str:
    """Return `3 texts` or `1 text`."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def level(share: float) -> str:
    """Return the level of an interval: `95 %`, `97.5 %`."""
    return f"{round(100 * share, 2):g}{THIN}%"


def words(value: Any) -> str:
    """Return text for a cell: '–' where it is missing, else str."""
    return MISSING if absent(value) or value == "" else str(value)


def capital(text: str) -> str:
    """Return text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def cut(text: str, length: int) -> tuple[str, str]:
    """Return the text cut at a space near `length`, and the whole where it was cut (else '')."""
    if len(text) <= length:
        return text, ""
    head = text[:length]
    return (head[: head.rfind(" ")] if " " in head[length // 2 :] else head) + " …", text


def cells(*values: str) -> list[Cell]:
    """Return plain cells."""
    return [Cell(value) for value in values]
