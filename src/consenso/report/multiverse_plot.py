"""The specification curve: every specification's difference, sorted, over a matrix of its choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.report.drawing import INK, Canvas, draw, font, squeeze
from consenso.report.forest_plot import difference_steps
from consenso.report.plots import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {
    "BETTER": ("^", "good", True),
    "EQUIVALENT": ("s", "good", True),
    "NON-INFERIOR": ("D", "good", False),
    "INCONCLUSIVE": ("o", "open", False),
    "WORSE": ("v", "bad", True),
    "NO VERDICT": ("P", "open", False),
    "UNSTABLE RECIPE": ("x", "stop", True),
    "INVALID": ("X", "stop", True),
}
"""Verdict word → marker, colour, whether it is filled: shapes tell verdicts apart where colours do not."""


@dataclass(frozen=True)
class Specification:
    """One way of doing the experiment: its difference, and what was chosen."""

    difference: float
    low: float
    high: float
    verdict: str
    """A key of LOOKS."""
    main: bool
    """The one that was declared: ringed."""
    choices: Mapping[str, str]
    """What was chosen (aggregator, …) → which."""


CURVE, LINE, LEGEND, NAME = 190, 17, 20, 19
"""Heights in px: the curve, a line of the matrix, a line of the legend, the name of a choice."""


def specification_curve(rows: Sequence[Specification], margin: float, choices: Mapping[str, Sequence[str]]) -> Drawing:
    """Draw the specifications in the order given; `choices`: what was chosen → its options, in order."""
    found = [word for word in LOOKS if any(row.verdict == word for row in rows)]
    matrix = sum(NAME + LINE * len(options) for options in choices.values())

    def paint(canvas: Canvas) -> None:
        left = 118 if canvas.narrow else 190
        legend = LEGEND * _lines(found, canvas.narrow)
        bottom = 12 + matrix
        ax = canvas.axes(left, 10, 8 + legend, bottom + 6)
        _legend(canvas, found)
        _curve(ax, rows, margin, canvas.narrow)
        if choices:
            _matrix(canvas.axes(left, 10, canvas.height - bottom, 6), rows, choices, left, canvas)

    return draw("multiverse", paint, lambda narrow: 26 + LEGEND * _lines(found, narrow) + CURVE + matrix)


def _across(narrow: bool) -> int:
    return 2 if narrow else 4


def _lines(found: Sequence[str], narrow: bool) -> int:
    return math.ceil(len(found) / _across(narrow))


def _legend(canvas: Canvas, found: Sequence[str]) -> None:
    height = LEGEND * _lines(found, canvas.narrow)
    ax = canvas.axes(0, 0, 0, canvas.height - height)
    ax.axis("off")
    ax.set_xlim(0, canvas.width)
    ax.set_ylim(height, 0)
    step = (canvas.width - 8) / _across(canvas.narrow)
    for k, word in enumerate(found):
        x, y = 12 + step * (k % _across(canvas.narrow)), LEGEND * (k // _across(canvas.narrow) + 0.5)
        _mark(ax, x, y, word, 7)
        ax.text(x + 12, y, word.capitalize() if word != "NO VERDICT" else "No verdict", va="center", **font(size=11.5))


def _mark(ax: Axes, x: float, y: float, word: str, size: float) -> None:
    marker, colour, filled = LOOKS[word]
    ink = INK[colour]
    ax.plot(x, y, marker, ms=size, color=ink, mfc=ink if filled else INK["paper"], mec=ink, mew=1.4)


def _curve(ax: Axes, rows: Sequence[Specification], margin: float, narrow: bool) -> None:
    ends = [abs(x) for row in rows for x in (row.low, row.high, row.difference) if math.isfinite(x)]
    reach = max([1.08 * x for x in ends] + [1.4 * margin, 0.01])
    low = min([1.08 * row.low for row in rows if math.isfinite(row.low)] + [-1.4 * margin])
    high = max([1.08 * row.high for row in rows if math.isfinite(row.high)] + [1.4 * margin])
    _frame(ax, len(rows))
    ax.set_ylim(max(low, -reach), min(high, reach))
    ticks, names = difference_steps(max(abs(low), abs(high)))
    inside = [(tick, name) for tick, name in zip(ticks, names, strict=True) if low <= tick <= high]
    ax.set_yticks([tick for tick, _ in inside], [name for _, name in inside])
    ax.tick_params(axis="y", labelcolor=INK["muted"])
    ax.set_ylabel("difference, pp")
    if margin > 0:
        ax.axhspan(-margin, margin, color=INK["band"], lw=0)
        for edge in (-margin, margin):
            ax.axhline(edge, color=INK["edge"], lw=1, ls=(0, (4, 3)))
    ax.axhline(0, color=INK["ink"], lw=1)
    room = (230 if narrow else 500) / len(rows)
    size = min(7.0, max(2.6, 0.62 * room))
    for k, row in enumerate(rows):
        if not math.isfinite(row.difference):
            continue
        colour = INK[LOOKS[row.verdict][1]]
        ax.plot([k, k], [row.low, row.high], color=colour, lw=min(2.0, max(0.7, room / 5)))
        _mark(ax, k, row.difference, row.verdict, size)
        if row.main:
            ax.plot(k, row.difference, "o", ms=size + 7, mfc="none", mec=INK["ink"], mew=1.6)


def _frame(ax: Axes, n: int) -> None:
    ax.set_xlim(-0.7, n - 0.3)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)


def _matrix(
    ax: Axes, rows: Sequence[Specification], choices: Mapping[str, Sequence[str]], left: float, canvas: Canvas
) -> None:
    """A dot where a specification made a choice; the name of the choice above its options."""
    _frame(ax, len(rows))
    total = sum(NAME + LINE * len(options) for options in choices.values())
    ax.set_ylim(total, 0)
    ax.set_yticks([])
    side = ax.get_yaxis_transform()
    edge = -left / (canvas.width - left - 10)
    room = (230 if canvas.narrow else 500) / len(rows)
    size = min(5.0, max(1.6, 0.5 * room))
    y = 0.0
    for name, options in choices.items():
        ax.text(edge, y + NAME / 2 + 2, name, transform=side, va="center", color=INK["muted"], **font("bold", 11))
        y += NAME
        for option in options:
            words = squeeze(option, 17 if canvas.narrow else 27)
            ax.text(edge, y + LINE / 2, words, transform=side, va="center", **font(size=11))
            ax.plot([-0.7, len(rows) - 0.3], [y + LINE / 2] * 2, color=INK["rule"], lw=0.8)
            for main in (False, True):
                at = [k for k, row in enumerate(rows) if row.choices.get(name) == option and row.main is main]
                colour = INK["ink"] if main else INK["muted"]
                ax.plot(at, [y + LINE / 2] * len(at), "o", ms=size + (1 if main else 0), color=colour, mew=0)
            y += LINE
