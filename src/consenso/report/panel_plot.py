"""The chart of how good the best panel of each size is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.report.blocks import percent
from consenso.report.drawing import INK, Canvas, draw, font

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_COSTS = 12
"""Above this many panels their sizes are not written beside them on an axis of costs."""


@dataclass(frozen=True)
class Panel:
    """The best panel of one size: a dot with its interval."""

    x: float
    """Where it stands: its size, or its cost."""
    size: int
    value: float
    low: float
    high: float
    chosen: bool
    """The smallest that can stand for all: a larger mark."""


def panel_curve(name: str, panels: Sequence[Panel], across: str, *, costs: bool = False) -> tuple[str, str]:
    """Draw share over size, or over cost (with `costs`): dots with 95 % intervals, and a line at all annotators.

    `across`: what the horizontal axis is.
    """
    low, high = _reach(panels)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6), 0.5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(46, 14, 10, 48)
        ax.set_ylim(max(0.0, low), min(1.0, high))
        first = math.ceil(max(0.0, low) / step - 1e-9)
        ticks = [k * step for k in range(first, math.floor(min(1.0, high) / step + 1e-9) + 1)]
        ax.set_yticks(ticks, [percent(tick, 0) for tick in ticks])
        ax.tick_params(axis="y", labelcolor=INK["muted"])
        ax.grid(axis="y")
        everyone = max(panels, key=lambda panel: panel.size).value
        ax.axhline(everyone, color=INK["muted"], lw=1, ls=(0, (4, 3)))
        _dots(ax, panels, canvas.narrow)
        ax.set_xlabel(across)
        if costs:
            _name_sizes(ax, panels)
            ax.set_xlim(0, 1.06 * max(panel.x for panel in panels))
            ax.locator_params(axis="x", nbins=4 if canvas.narrow else 7)
        else:
            last = max(panel.size for panel in panels)
            every = math.ceil(last / (8 if canvas.narrow else 20))
            ax.set_xticks(range(1, last + 1, every))
            ax.set_xlim(0.6, last + 0.4)

    return draw(name, paint, lambda narrow: 230 if narrow else 260)


def _reach(panels: Sequence[Panel]) -> tuple[float, float]:
    ends = [x for panel in panels for x in (panel.low, panel.value, panel.high) if math.isfinite(x)]
    pad = max(0.01, 0.06 * (max(ends) - min(ends)))
    return min(ends) - pad, max(ends) + pad


def _dots(ax: Axes, panels: Sequence[Panel], narrow: bool) -> None:
    small = 5 if narrow or len(panels) > 25 else 7
    for panel in panels:
        colour = INK["tone"] if panel.chosen else INK["consensus"]
        if math.isfinite(panel.low):
            ax.plot([panel.x, panel.x], [panel.low, panel.high], color=colour, lw=1.6)
        look = ("D", small + 3.5) if panel.chosen else ("o", small)
        ax.plot(panel.x, panel.value, look[0], ms=look[1], color=colour, mec=INK["paper"], mew=1)


def _name_sizes(ax: Axes, panels: Sequence[Panel]) -> None:
    if len(panels) > NAMED_COSTS:
        return
    for panel in panels:
        ax.annotate(
            str(panel.size),
            (panel.x, panel.value),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=INK["ink"],
            **font(size=11),
        )
