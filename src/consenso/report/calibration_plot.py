"""The reliability diagram: accuracy over confidence, before and after temperature scaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from consenso.report.blocks import percent
from consenso.report.drawing import INK, Canvas, draw, font, squeeze
from consenso.report.plots import Drawing, arm_look


@dataclass(frozen=True)
class Bins:
    """One arm's line: per bin of confidence its mean confidence, its accuracy and its share of the predictions."""

    arm: str
    confidence: Sequence[float]
    accuracy: Sequence[float]
    share: Sequence[float]


Panel = tuple[str, Sequence[Bins]]
"""A title, and a line per arm."""


def reliability(name: str, panels: Sequence[Panel]) -> Drawing:
    """Draw one square panel per title, a line per arm; the area of a mark is its share of the predictions."""
    arms = list(dict.fromkeys(bins.arm for _, found in panels for bins in found))
    low = min(x for _, found in panels for bins in found for x in (*bins.confidence, *bins.accuracy))
    low = max(0.0, math.floor(5 * low) / 5)

    def paint(canvas: Canvas) -> None:
        side = _side(canvas.narrow)
        _legend(canvas, arms)
        for k, (title, found) in enumerate(panels):
            left = 52 + (0 if canvas.narrow else k * (side + 52))
            top = KEY * len(arms) + 26 + (k * (side + 72) if canvas.narrow else 0)
            ax = canvas.axes(left, canvas.width - left - side, top, canvas.height - top - side)
            ax.set_title(title, loc="left", color=INK["ink"], pad=6, **font("bold"))
            ticks = [x / 5 for x in range(6) if x / 5 >= low - 1e-9]
            for axis in ("x", "y"):
                getattr(ax, f"set_{axis}ticks")(ticks, [percent(tick, 0) for tick in ticks])
                getattr(ax, f"set_{axis}lim")(low - 0.02, 1.02)
            ax.tick_params(axis="y", labelcolor=INK["muted"])
            ax.grid()
            ax.plot([low, 1], [low, 1], color=INK["edge"], lw=1, ls=(0, (4, 3)))
            ax.set_xlabel("confidence")
            if canvas.narrow or k == 0:
                ax.set_ylabel("right")
            for place, bins in enumerate(found):
                colour, marker = arm_look(bins.arm)
                ax.plot(bins.confidence, bins.accuracy, color=colour, lw=1.6, ls=(0, (5, 2)) if place % 2 else "-")
                for x, y, share in zip(bins.confidence, bins.accuracy, bins.share, strict=True):
                    ax.plot(x, y, marker, ms=4 + 11 * math.sqrt(share), color=colour, mec=INK["paper"], mew=1)

    def height(narrow: bool) -> float:
        return KEY * len(arms) + 26 + (len(panels) if narrow else 1) * (_side(narrow) + 72) - 22

    return draw(name, paint, height)


KEY = 20
"""Height of a line of the legend."""


def _side(narrow: bool) -> int:
    return 250 if narrow else 270


def _legend(canvas: Canvas, arms: Sequence[str]) -> None:
    height = KEY * len(arms)
    ax = canvas.axes(0, 0, 0, canvas.height - height)
    ax.axis("off")
    ax.set_xlim(0, canvas.width)
    ax.set_ylim(height, 0)
    for k, arm in enumerate(arms):
        colour, marker = arm_look(arm)
        y = KEY * (k + 0.5)
        ax.plot([52, 76], [y, y], color=colour, lw=1.6, ls=(0, (5, 2)) if k % 2 else "-")
        ax.plot(64, y, marker, ms=8, color=colour, mec=INK["paper"], mew=1)
        ax.text(84, y, squeeze(arm, 40), va="center", **font())
