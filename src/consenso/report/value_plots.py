"""The charts of what labels are worth: learning over human labels, corrections, cost against quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.report.blocks import count
from consenso.report.drawing import INK, Canvas, draw, font
from consenso.report.plots import Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Level:
    """A horizontal line with a band around it: the score of an arm."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Worth:
    """How many human labels the consensus is worth, with its interval."""

    value: float
    low: float
    high: float
    beyond: bool
    """True: more than `value`; the mark is an arrow."""


Step = tuple[int, float, float, float, float]
"""Human labels, mean score, the ends of its interval, the isotonic fit."""


def gold_curve(name: str, steps: Sequence[Step], level: Level | None, worth: Worth | None) -> Drawing:
    """Draw score over the number of human labels (log scale), the consensus across, and where they meet."""
    values = [x for step in steps for x in step[1:] if math.isfinite(x)]
    values += [level.value] if level else []
    ns = [step[0] for step in steps]
    last = 1.25 * max(ns)

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(54, 16, 22, 48)
        ax.set_xscale("log")
        ax.set_xlim(0.8 * min(ns), last)
        _score_axis(ax, values, canvas)
        ax.set_xlabel("human labels (dev labels among them)" if not canvas.narrow else "human labels")
        _count_ticks(ax, ns, canvas)
        if level:
            _level(ax, level, last)
        ax.fill_between(ns, [s[2] for s in steps], [s[3] for s in steps], color=INK["gold"], alpha=0.2, lw=0)
        ax.plot(ns, [s[4] for s in steps], color=INK["gold"], lw=2)
        ax.plot(ns, [s[1] for s in steps], "o", ms=6.5, color=INK["gold"], mec=INK["paper"], mew=1)
        if worth and math.isfinite(worth.value):
            _worth(ax, worth, 0.8 * min(ns), last)

    return draw(name, paint, lambda narrow: 260 if narrow else 300)


def _score_axis(ax: Axes, values: Sequence[float], canvas: Canvas) -> None:
    low, high = min(values), max(values)
    pad = max(0.005, 0.08 * (high - low))
    ax.set_ylim(low - 1.8 * pad, high + pad)
    ax.locator_params(axis="y", nbins=4 if canvas.narrow else 5)
    ax.tick_params(axis="y", labelcolor=INK["muted"])
    ax.grid(axis="y")


def _count_ticks(ax: Axes, ns: Sequence[int], canvas: Canvas) -> None:
    """Name the tried numbers, leaving out those that would touch on a log scale."""
    width = canvas.width - 70
    span = math.log(max(ns) / min(ns)) + 0.45
    shown: list[int] = []
    for n in sorted(ns):
        room = 8 * len(count(n)) + 6
        if not shown or width * math.log(n / shown[-1]) / span >= room:
            shown.append(n)
    ax.set_xticks(shown, [count(n) for n in shown])
    ax.set_xticks([], minor=True)


def _level(ax: Axes, level: Level, last: float) -> None:
    if math.isfinite(level.low):
        ax.axhspan(level.low, level.high, color=INK["consensus"], alpha=0.14, lw=0)
    ax.axhline(level.value, color=INK["consensus"], lw=2, ls=(0, (5, 2)))
    ax.annotate(
        level.name, (0, level.value), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
        color=INK["consensus"], va="bottom", **font("bold", 11.5),
    )  # fmt: skip


def _worth(ax: Axes, worth: Worth, first: float, last: float) -> None:
    """The number on a bar of its own below the curve: a diamond, or an arrow to the right."""
    y = 0.045
    across = ax.get_xaxis_transform()
    place = min(max(worth.value, first), last)
    low = min(max(worth.low, first), last)
    high = min(max(worth.high, first), last) if math.isfinite(worth.high) else last
    if math.isfinite(worth.low):
        ax.plot([low, high], [y, y], transform=across, color=INK["ink"], lw=2)
    ax.plot([place, place], [y, 1], transform=across, color=INK["ink"], lw=1, ls=(0, (2, 3)))
    mark = ">" if worth.beyond else "D"
    ax.plot(place, y, mark, ms=9, transform=across, color=INK["ink"], mec=INK["paper"], mew=1, clip_on=False)
    words = f"n* {'> ' if worth.beyond else '= '}{count(worth.value)}"
    right = math.log(place / first) > 0.6 * math.log(last / first)
    ax.text(
        place, 1.02, words, transform=across, ha="right" if right else "left", va="bottom", **font("bold", 11.5)
    )  # fmt: skip


Corrected = tuple[str, Sequence[tuple[int, float, float, float]]]
"""A way of choosing the corrected texts; per k corrections: mean, lowest and highest score of its runs."""


def corrections_curve(name: str, series: Sequence[Corrected], levels: Sequence[Level]) -> Drawing:
    """Draw score over the number of human corrections, one line per way of choosing them, arms as levels."""
    values = [x for _, points in series for point in points for x in point[1:]] + [level.value for level in levels]
    ks = sorted({point[0] for _, points in series for point in points})
    looks = (("consensus", "D", "-"), ("other", "o", (0, (4, 2))), ("ink", "s", (0, (1, 1.5))))

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(54, 16, 10, 48)
        _score_axis(ax, values, canvas)
        ax.set_xlabel("human corrections")
        apart = 0.012 * (max(ks) or 1)
        for level in levels:
            ax.axhline(level.value, color=INK["gold"], lw=1.6, ls=(0, (5, 2)))
            ax.annotate(
                level.name, (1, level.value), xycoords=("axes fraction", "data"), xytext=(-4, -4),
                textcoords="offset points", ha="right", va="top", color=INK["gold"], **font("bold", 11),
            )  # fmt: skip
        for place, (_, points) in enumerate(series):
            colour, marker, style = looks[place % len(looks)]
            xs = [point[0] + apart * (place - (len(series) - 1) / 2) for point in points]
            ax.plot(xs, [point[1] for point in points], color=INK[colour], lw=1.6, ls=style)
            for x, (_, mean, low, high) in zip(xs, points, strict=True):
                ax.plot([x, x], [low, high], color=INK[colour], lw=1.2)
                ax.plot(x, mean, marker, ms=7, color=INK[colour], mec=INK["paper"], mew=1)
        ax.set_xticks(_sparse(ks, canvas), [count(k) for k in _sparse(ks, canvas)])
        ax.set_xlim(-0.05 * max(ks), 1.06 * max(ks))

    return draw(name, paint, lambda narrow: 240 if narrow else 270)


def _sparse(ks: Sequence[int], canvas: Canvas) -> list[int]:
    shown: list[int] = []
    for k in ks:
        if not shown or (k - shown[-1]) / max(ks) * (canvas.width - 70) >= 8 * len(count(k)) + 6:
            shown.append(k)
    return shown
