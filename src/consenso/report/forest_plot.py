"""The charts of contrasts: differences with intervals over the equivalence band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.report.blocks import interval, number, points
from consenso.report.drawing import INK, Canvas, draw, font, shorten, squeeze
from consenso.report.plots import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Contrast:
    """One line of the forest plot; differences in shares."""

    name: str
    effect: str
    difference: float
    low: float
    high: float
    low90: float
    high90: float
    verdict: str
    primary: bool


def _reach(rows: Sequence[Contrast], margin: float) -> float:
    """How far the axis goes: the sanity contrast (against the floor) is off the scale and gets an arrow."""
    near = [row for row in rows if row.effect != "sanity"] or rows
    ends = [abs(x) for row in near for x in (row.low, row.high, row.difference) if math.isfinite(x)]
    return max([1.15 * x for x in ends] + [1.6 * margin, 0.01])


def difference_axis(ax: Axes, reach: float, margin: float, stripes: Sequence[tuple[float, float]]) -> None:
    """Set up axis, equivalence band (none with margin 0) and zero.

    The band goes from top to bottom of each of `stripes`: the words of the narrow drawing stand in its gaps.
    """
    ax.set_xlim(-reach, reach)
    ax.set_xticks(*difference_steps(reach))
    for top, bottom in stripes:
        if margin > 0:
            ax.fill_between([-margin, margin], top, bottom, color=INK["band"], lw=0)
            for edge in (-margin, margin):
                ax.plot([edge, edge], [top, bottom], color=INK["edge"], lw=1, ls=(0, (4, 3)))
        ax.plot([0, 0], [top, bottom], color=INK["ink"], lw=1)


def difference_steps(reach: float) -> tuple[list[float], list[str]]:
    """Return ticks of an axis of differences and their names in percentage points, 0 among them."""
    step = next((s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if reach / s <= 3.6), 0.5)
    most = math.floor(reach / step + 1e-9)
    ticks = [k * step for k in range(-most, most + 1)]
    return ticks, [("+" if t > 0 else "") + number(100 * t, 1 if step < 0.01 else 0) for t in ticks]


def whisker(ax: Axes, row: Contrast, y: float, reach: float) -> None:
    """Draw a difference with its wide (thin) and narrow (thick) interval, or an arrow where it is off the scale."""
    colour = INK["tone"] if row.primary else INK["ink"]
    if abs(row.difference) > reach:
        side = math.copysign(1, row.difference)
        ax.plot(side * 0.97 * reach, y, ">" if side > 0 else "<", ms=8, color=colour)
        return
    ax.plot([row.low, row.high], [y, y], color=colour, lw=1.4)
    ax.plot([row.low90, row.high90], [y, y], color=colour, lw=4.2)
    size = 11 if row.primary else 8
    ax.plot(row.difference, y, "D" if row.primary else "o", ms=size, color=colour, mec=INK["paper"], mew=1.4)


def forest(name: str, rows: Sequence[Contrast], margin: float, groups: Mapping[int, str] | None = None) -> Drawing:
    """Draw each contrast with its 95 % (thin) and 90 % (thick) interval over the equivalence band.

    `groups`: place of a row → the heading above it and the rows after it.
    """
    reach, groups = _reach(rows, margin), dict(groups or {})
    at = [k + GROUP * sum(first <= k for first in groups) for k in range(len(rows))]
    end = at[-1] + 0.5

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(8 if canvas.narrow else 222, 8 if canvas.narrow else 232, 8, 48)
        ax.set_ylim(end, -0.5)
        ax.set_yticks([])
        stripes = [(y + 0.1, y + 0.46) for y in at] if canvas.narrow else _stripes(at, groups, end)
        difference_axis(ax, reach, margin, stripes)
        ax.set_xlabel("difference in percentage points")
        for k, title in groups.items():
            x = 0.0 if canvas.narrow else -222 / 266
            y = at[k] - 0.5 - GROUP / 2
            words = shorten(title, 52 if canvas.narrow else 90)
            ax.text(
                x, y, words, transform=ax.get_yaxis_transform(), va="center", color=INK["muted"], **font("bold", 11)
            )
        for y, row in zip(at, rows, strict=True):
            _line_of_forest(canvas, ax, row, y, reach)

    height = len(rows) + GROUP * len(groups)
    return draw(name, paint, lambda narrow: 56 + height * (66 if narrow else 48))


GROUP = 0.62
"""Height of a heading in the forest plot, in rows."""


def _stripes(at: Sequence[float], groups: Mapping[int, str], end: float) -> list[tuple[float, float]]:
    """From where to where the equivalence band goes: it leaves the headings free."""
    firsts = sorted(groups) or [0]
    tops = [at[k] - 0.5 for k in firsts]
    bottoms = [*(at[k - 1] + 0.5 for k in firsts[1:]), end]
    return list(zip(tops, bottoms, strict=True))


MOST_LETTERS = 30
"""Letters of a name on one line of the wide drawing."""
NARROW_LETTERS = 46
"""The same for the narrow one, which has a single line."""


def _two_lines(name: str) -> list[str]:
    """A contrast's arm, and its control below."""
    arm, minus, control = name.partition(" − ")
    below = [f"− {squeeze(control, MOST_LETTERS - 2)}"] if minus else []
    return [squeeze(arm, MOST_LETTERS), *below]


def _one_line(name: str) -> str:
    """A contrast's arm and control, each cut where both together are too long."""
    arm, minus, control = name.partition(" − ")
    if not minus:
        return squeeze(name, NARROW_LETTERS)
    room = max(NARROW_LETTERS // 2 - 2, NARROW_LETTERS - 3 - min(len(arm), len(control)))
    return f"{squeeze(arm, room)} − {squeeze(control, room)}"


def _line_of_forest(canvas: Canvas, ax: Axes, row: Contrast, y: float, reach: float) -> None:
    """A row of the forest plot: wide: name and effect at the left, figures at the right; narrow: above the whisker."""
    side = ax.get_yaxis_transform()
    weight = "bold" if row.primary else "normal"
    figures = f"{points(row.difference, unit=False)} {interval(row.low, row.high)}"
    muted = {"va": "center", "color": INK["muted"], **font(size=11)}
    if canvas.narrow:
        whisker(ax, row, y + 0.28, reach)
        ax.text(0, y - 0.28, _one_line(row.name), transform=side, va="center", **font(weight, 11.5))
        ax.text(0, y - 0.02, f"{figures} · {shorten(row.verdict, 30)}", transform=side, **muted)
        return
    whisker(ax, row, y, reach)
    names = [row.name] if len(row.name) <= MOST_LETTERS else _two_lines(row.name)
    lines = [*names, *([shorten(row.effect, 36)] if row.effect else [])]
    for k, words in enumerate(lines):
        at = y + 0.02 + (0.27 if len(lines) > 2 else 0.36) * (k - (len(lines) - 1) / 2)
        if k < len(names):
            ax.text(-222 / 266, at, words, transform=side, va="center", **font(weight))
        else:
            ax.text(-222 / 266, at, words, transform=side, **muted)
    ax.text(1.04, y - 0.17, figures, transform=side, va="center", **font(weight))
    ax.text(1.04, y + 0.22, shorten(row.verdict, 34), transform=side, **muted)


def headline(row: Contrast, margin: float, arm: str, control: str) -> Drawing:
    """Draw the primary contrast alone, with the sides and the band named; `arm` and `control` in words."""
    reach = _reach([row], margin)

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(8, 8, 24, 52)
        ax.set_ylim(0.6, -0.6)
        ax.set_yticks([])
        difference_axis(ax, reach, margin, [(-0.6, 0.6)])
        whisker(ax, row, 0, reach)
        words = f"±{points(margin).lstrip('+')}: too small to matter"
        ax.text(
            0,
            1.05,
            words,
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=INK["muted"],
            **font(size=11),
        )
        ends = ((0, "left", f"← {shorten(control, 22)} better"), (1, "right", f"{shorten(arm, 22)} better →"))
        for x, side, words in ends:
            ax.text(x, -0.52, words, transform=ax.transAxes, ha=side, va="top", color=INK["muted"], **font(size=11.5))

    return draw("headline", paint, lambda narrow: 132)
