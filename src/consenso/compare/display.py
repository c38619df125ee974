"""show_verdict: a comparison as it should look in a notebook, a terminal and a Markdown file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.verdict import counted, percent, signed
from consenso.errors import DataError
from consenso.tables import COMPARISON, check

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """The headline of one student."""

    student: str
    """The student."""
    word: str
    """The verdict word."""
    sentence: str
    """The answer with its numbers."""


@dataclass(frozen=True)
class Shown:
    """A comparison that shows itself: `str()` for a terminal, HTML and Markdown for notebooks."""

    answers: tuple[Answer, ...]
    """One per student; empty where there is no primary contrast."""
    header: tuple[str, ...]
    """Names of the table's columns."""
    rows: tuple[tuple[str, ...], ...]
    """The contrasts over all test texts in the primary metric, the primary one first."""

    def __str__(self) -> str:
        """Return the sentences and the table with aligned columns."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in self._table()]
        return "\n".join([*self._sentences(), "", *lines])

    def _repr_markdown_(self) -> str:
        rule = ["---", *["---:"] * 4, *["---"] * (len(self.header) - 5)]
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self._table()]
        lines.insert(1, f"|{'|'.join(rule)}|")
        bold = [f"**{answer.word}** {_after(answer)}" for answer in self.answers] or self._sentences()
        return "\n\n".join([*bold, "\n".join(lines)])

    def _repr_html_(self) -> str:
        cells = ["".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) for row in self.rows]
        head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in self.header)
        said = [
            f"<p><b>{html.escape(answer.word)}</b> {html.escape(_after(answer))}</p>" for answer in self.answers
        ] or [f"<p>{html.escape(line)}</p>" for line in self._sentences()]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<div>{''.join(said)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"

    def _table(self) -> list[tuple[str, ...]]:
        return [self.header, *self.rows]

    def _sentences(self) -> list[str]:
        if not self.answers:
            return ["No primary contrast: one of its arms has no predictions."]
        many = len(self.answers) > 1
        return [f"{answer.student}: {answer.sentence}" if many else answer.sentence for answer in self.answers]


def show_verdict(comparison: pd.DataFrame) -> Shown:
    """Return a view of a COMPARISON table: each student's answer, and its contrasts with intervals in points.

    The table keeps to the primary metric, all test texts, and runs as they were; rows of a second analysis say rescue.
    Raises `DataError` for anything but such a table.
    """
    import pandas as pd

    if not isinstance(comparison, pd.DataFrame):
        raise DataError(
            "show_verdict takes the table that compare_arms returns (or a run folder's table comparison); found "
            f"{type(comparison).__name__}"
        )
    frame = check(comparison, COMPARISON)
    first = frame[frame["is_primary"].astype(bool)]
    answers = tuple(
        Answer(str(row["student"]), str(row["verdict"]), str(row["sentence"])) for row in first.to_dict("records")
    )
    metric = str(first["metric"].iloc[0] if len(first) else frame["metric"].iloc[0]) if len(frame) else "macro_f1"
    alpha = float(frame["alpha"].iloc[0]) if len(frame) else 0.05
    rows = frame[(frame["scope"] == "all") & (frame["metric"] == metric)]
    main = set(zip(first["student"], first["contrast"]))
    rows = rows.assign(later=[pair not in main for pair in zip(rows["student"], rows["contrast"])])
    rows = rows.sort_values(["student", "later"], kind="stable")  # as stored, rows stand in the order of their key
    many, rescued = frame["student"].nunique() > 1, (rows["attempt"] == "rescue").any()
    header = ("contrast", f"Δ {METRIC_NAMES.get(metric, metric)} (pp)", percent(1 - alpha), percent(1 - 2 * alpha), "p",
              "verdict", "from", *(["student"] if many else []), *(["attempt"] if rescued else []))  # fmt: skip
    keep: Sequence[str] = [*(["student"] if many else []), *(["attempt"] if rescued else [])]
    cells = [(*_cells(row), *(str(row[name]) for name in keep)) for _, row in rows.iterrows()]
    return Shown(answers, header, tuple(cells))


def _cells(row: pd.Series) -> tuple[str, ...]:
    p = row["p"] if _missing(row["p_holm"]) else row["p_holm"]
    seen = "" if _missing(p) else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
    k = None if _missing(row["k"]) else int(row["k"])
    size = f"{counted(int(row['S']), row['replication'], k)}, {int(row['n']):,} texts"
    return (
        str(row["contrast"]), "" if _missing(row["difference"]) else signed(row["difference"]),
        _interval(row["low"], row["high"]), _interval(row["low90"], row["high90"]), seen, str(row["verdict"]),
        size.replace(" of the training texts", ""),
    )  # fmt: skip


def _interval(low: float, high: float) -> str:
    return "" if _missing(low) else f"{signed(low)} to {signed(high)}"


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _after(answer: Answer) -> str:
    """The sentence without the word it begins with."""
    return answer.sentence.removeprefix(answer.word).lstrip(": ")
