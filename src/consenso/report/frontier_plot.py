"""The chart of cost against quality, with names only where there is room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from consenso.report.blocks import dollars, number
from consenso.report.drawing import INK, Canvas, draw, font, squeeze
from consenso.report.forest_plot import difference_steps
from consenso.report.plots import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Priced:
    """An arm in the chart of cost and quality; cost in USD per 1,000 texts, differences in shares."""

    number: int
    name: str
    cost: float
    difference: float
    low: float
    high: float
    frontier: bool


def frontier_plot(name: str, rows: Sequence[Priced], margin: float) -> Drawing:
    """Draw difference over cost with intervals; the line joins the arms that no other beats in both."""
    low = min([row.low for row in rows if math.isfinite(row.low)] + [row.difference for row in rows] + [-margin])
    high = max([row.high for row in rows if math.isfinite(row.high)] + [row.difference for row in rows] + [margin])
    pad = max(0.005, 0.07 * (high - low))
    last = max(row.cost for row in rows) or 1.0

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(54, 14, 10, 48)
        ax.set_ylim(low - pad, high + pad)
        ticks, names = difference_steps(max(abs(low), abs(high)) + pad)
        kept = [(t, n) for t, n in zip(ticks, names, strict=True) if low - pad <= t <= high + pad]
        ax.set_yticks([t for t, _ in kept], [n for _, n in kept])
        ax.tick_params(axis="y", labelcolor=INK["muted"])
        ax.set_xlim(-0.05 * last, 1.1 * last)
        ax.locator_params(axis="x", nbins=4 if canvas.narrow else 7)
        ax.set_xticks(ticks := [t for t in ax.get_xticks() if 0 <= t <= 1.1 * last], [_money(t) for t in ticks])
        ax.set_xlabel("USD per 1,000 texts")
        ax.set_ylabel("difference, pp")
        if margin > 0:
            ax.axhspan(-margin, margin, color=INK["band"], lw=0)
        ax.axhline(0, color=INK["ink"], lw=1)
        best = frontier_of(rows)
        ax.plot(
            [row.cost for row in best], [row.difference for row in best], color=INK["consensus"], lw=2,
            drawstyle="steps-post",
        )  # fmt: skip
        for row in rows:
            colour = INK["consensus"] if row.frontier else INK["other"]
            ax.plot([row.cost] * 2, [row.low, row.high], color=colour, lw=1.4, alpha=0.9)
            mark = "D" if row.frontier else "o"
            face = colour if row.frontier else INK["paper"]
            ax.plot(row.cost, row.difference, mark, ms=7.5, mfc=face, mec=colour, mew=1.6)
        _name_points(canvas, ax, rows)

    return draw(name, paint, lambda narrow: 300 if narrow else 340)


def frontier_of(rows: Sequence[Priced]) -> list[Priced]:
    """Return the arms on the frontier, cheapest first."""
    return sorted((row for row in rows if row.frontier), key=lambda row: (row.cost, row.difference))


def _money(value: float) -> str:
    return "0" if abs(value) < 1e-12 else number(value, 2).rstrip("0").rstrip(".") if value >= 0.01 else dollars(value)


LETTER, LINE = 7.0, 14.0
"""Room of a letter and a line of 11 px text."""
NAMED = 8
"""With more arms than this only those on the frontier are named; the others have their numbers."""

Box = tuple[float, float, float, float]
"""Left, lower, right and upper edge in px."""


def _name_points(canvas: Canvas, ax: Axes, rows: Sequence[Priced]) -> None:
    """Name the points where there is room, the frontier first; where there is none, give the number or nothing."""
    box = ax.get_window_extent()
    edges = (box.x0 + 2, box.y0 + 2, box.x1 + 12, box.y1 - 2)
    taken = _obstacles(ax, rows)
    for row in sorted(rows, key=lambda row: (not row.frontier, row.number)):
        named = row.frontier or (len(rows) <= NAMED and not canvas.narrow)
        full = f"{row.number} {squeeze(row.name.rpartition('/')[2], 18 if canvas.narrow else 26)}"
        for words in (full, str(row.number)) if named else (str(row.number),):
            spot = _free_spot(_spots(ax, row, LETTER * len(words)), taken, edges)
            if spot is None:
                continue
            taken.append(spot)
            x, y = ax.transData.inverted().transform((spot[0], (spot[1] + spot[3]) / 2))
            weight = "bold" if row.frontier else "normal"
            ax.text(x, y, words, va="center", color=INK["ink" if row.frontier else "muted"], **font(weight, 11))
            break


def _px(ax: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = ax.transData.transform((x, y))
    return float(across), float(up)


def _obstacles(ax: Axes, rows: Sequence[Priced]) -> list[Box]:
    """What no name may cover: marks, their intervals, and the line of the frontier."""
    boxes: list[Box] = []
    for row in rows:
        x, y = _px(ax, row.cost, row.difference)
        boxes.append((x - 6, y - 6, x + 6, y + 6))
        if math.isfinite(row.low):
            boxes.append((x - 2, _px(ax, row.cost, row.low)[1], x + 2, _px(ax, row.cost, row.high)[1]))
    best = [_px(ax, row.cost, row.difference) for row in frontier_of(rows)]
    for (x0, y0), (x1, y1) in pairwise(best):
        boxes += [(x0, y0 - 2, x1, y0 + 2), (x1 - 2, min(y0, y1), x1 + 2, max(y0, y1))]
    return boxes


def _spots(ax: Axes, row: Priced, width: float) -> list[Box]:
    """Where a name may stand: beside the mark, else above or below its interval; the best place first."""
    x, y = _px(ax, row.cost, row.difference)
    ends = [_px(ax, row.cost, end)[1] if math.isfinite(end) else y for end in (row.high, row.low)]
    beside = [(side, y + up) for up in (0, 11, -11) for side in (x + 9, x - 9 - width)]
    beyond = [(x - width / 2, ends[0] + 9), (x - width / 2, ends[1] - 9), (x - width, ends[0] + 9), (x, ends[1] - 9)]
    return [(left, up - LINE / 2, left + width, up + LINE / 2) for left, up in (*beside, *beyond)]


def _free_spot(spots: Sequence[Box], taken: Sequence[Box], edges: Box) -> Box | None:
    """The first place that touches nothing, or None."""
    for spot in spots:
        inside = spot[0] >= edges[0] and spot[2] <= edges[2] and spot[1] >= edges[1] and spot[3] <= edges[3]
        if inside and not any(_touch(spot, other) for other in taken):
            return spot
    return None


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
