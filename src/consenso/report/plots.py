"""Charts of labels, annotators and runs: numbers in, SVG for wide and narrow pages out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import number, percent
from consenso.report.drawing import INK, Canvas, draw, font, shorten, squeeze

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

Drawing = tuple[str, str]
"""SVG for wide and for narrow pages."""

MARKERS = {
    "gold": "o",
    "gold-aligned": "s",
    "consensus": "D",
    "consensus-kept": "^",
    "consensus-random": "v",
    "gold-kept": "P",
}


def arm_look(arm: str) -> tuple[str, str]:
    """Return colour and marker of an arm: human labels gold, consensus labels blue, the rest grey."""
    family = "gold" if arm.startswith("gold") else "consensus" if arm.startswith("consensus") else "other"
    return INK[family], MARKERS.get(arm, "X" if family == "other" else "h")


def name_rows(
    canvas: Canvas, labels: Sequence[str], *, right: float, bottom: float = 34, narrow_most: int = 44
) -> Axes:
    """Return axes with one row per label, the first on top; wide: names at the left, narrow: above their row."""
    most = 34
    gutter = 8 if canvas.narrow else 24 + 6.6 * max(len(squeeze(label, most)) for label in labels)
    ax = canvas.axes(gutter, right, 6, bottom)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks([])
    ax.grid(axis="x")
    side = ax.get_yaxis_transform()
    for row, label in enumerate(labels):
        if canvas.narrow:
            ax.text(0, row - 0.2, squeeze(label, narrow_most), transform=side, va="bottom", **font())
        else:
            width = canvas.width - gutter - right
            ax.text(-gutter / width, row, squeeze(label, most), transform=side, va="center", **font())
    return ax


def row_at(row: int, canvas: Canvas) -> float:
    """Return where a row's marks stand: lower in the narrow drawing, below the name."""
    return row + 0.16 if canvas.narrow else float(row)


def distribution(
    names: Sequence[str],
    gold: np.ndarray | None,
    consensus: np.ndarray | None,
    annotators: Sequence[np.ndarray],
    rings: bool = True,
) -> Drawing:
    """Draw the share of each label: gold a bar, consensus a diamond, each annotator a ring (or all of them a line)."""

    def paint(canvas: Canvas) -> None:
        ax = name_rows(canvas, names, right=16)
        size = 0.34 if canvas.narrow else 0.5
        for row in range(len(names)):
            y = row_at(row, canvas)
            if gold is not None:
                ax.barh(y, gold[row], height=size, color=INK["gold"], alpha=0.45, linewidth=0)
            given = [shares[row] for shares in annotators]
            if rings:
                ax.plot(given, [y] * len(given), "o", ms=6, mfc="none", mec=INK["muted"], mew=1.1)
            else:
                ax.plot([min(given), max(given)], [y, y], color=INK["muted"], lw=1.4)
            if consensus is not None:
                ax.plot(consensus[row], y, "D", ms=7.5, color=INK["consensus"], mec=INK["paper"], mew=1)
        found = [share for shares in (gold, consensus, *annotators) if shares is not None for share in shares]
        high = max(found, default=1.0)
        _share_axis(ax, high)

    return draw("distribution", paint, lambda narrow: 48 + len(names) * (44 if narrow else 32))


def _share_axis(ax: Axes, high: float, low: float = 0) -> None:
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 5), 0.25)
    last = min(1.0, math.ceil(high * 1.02 / step) * step)
    ticks = [low + k * step for k in range(round((last - low) / step) + 1)]
    ax.set_xlim(low, last + 0.02 * (last - low))
    ax.set_xticks(ticks, [percent(tick, 0) for tick in ticks])


def levels(values: Sequence[tuple[float, int, str]], total: int) -> Drawing:
    """Draw how many texts have which consensus score; `values` are (score, texts, level), scores ascending."""

    def paint(canvas: Canvas) -> None:
        ax = canvas.axes(8, 8, 24, 46)
        strength = {"high": 1.0, "medium": 0.62, "low": 0.32}
        for place, (_, n, level) in enumerate(values):
            ax.bar(place, n, width=0.72, color=INK["consensus"], alpha=strength.get(level, 0.2), linewidth=0)
            if not canvas.narrow or len(values) <= 8:
                ax.text(place, n, f"{n:,}", ha="center", va="bottom", color=INK["muted"], **font(size=11))
        ax.set_yticks([])
        ax.set_ylim(0, max(n for _, n, _ in values) * 1.08)
        every = 2 if canvas.narrow and len(values) > 8 else 1
        ax.set_xticks(range(0, len(values), every), [number(score, 2) for score, _, _ in values[::every]])
        ax.set_xlim(-0.7, len(values) - 0.3)
        ax.set_xlabel(
            "consensus score (share of annotators with the winning label)" if not canvas.narrow else "consensus score"
        )
        _brackets(ax, [level for _, _, level in values])

    return draw("levels", paint, lambda narrow: 220 if narrow else 240)


def _brackets(ax: Axes, found: Sequence[str]) -> None:
    """Name the levels above the bars: colour alone tells nothing."""
    for level in dict.fromkeys(found):
        places = [k for k, name in enumerate(found) if name == level]
        first, last = min(places) - 0.36, max(places) + 0.36
        ax.plot([first, last], [1.02, 1.02], transform=ax.get_xaxis_transform(), color=INK["edge"], lw=1, clip_on=False)
        ax.text(
            (first + last) / 2,
            1.045,
            level or "no votes",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=INK["ink"],
        )


Share = tuple[str, float, float, float]
"""A row of a chart: its name, a share, and the ends of its interval."""


def accuracy_by_level(rows: Sequence[tuple[str, float, float, float, int]]) -> Drawing:
    """Draw accuracy with its 95 % interval; rows are (level, accuracy, low, high, texts)."""
    shares = [(f"{level} ({n:,})", value, low, high) for level, value, low, high, n in rows]

    def paint(canvas: Canvas) -> None:
        _share_axis(_dots(canvas, shares, INK["consensus"], "D"), 1.0)

    return draw("by-level", paint, lambda narrow: 48 + len(rows) * (44 if narrow else 34))


def flip_rates(rows: Sequence[Share]) -> Drawing:
    """Draw the share of labels that each variant flips, with its 95 % interval."""

    def paint(canvas: Canvas) -> None:
        _share_axis(_dots(canvas, rows, INK["ink"], "o"), max(high for *_, high in rows))

    return draw("flip-rates", paint, lambda narrow: 48 + len(rows) * (44 if narrow else 34))


def _dots(canvas: Canvas, rows: Sequence[Share], colour: str, marker: str) -> Axes:
    """A dot on its interval per row, and the share in figures at the right."""
    ax = name_rows(canvas, [name for name, *_ in rows], right=66)
    for row, (_, value, low, high) in enumerate(rows):
        y = row_at(row, canvas)
        ax.plot([low, high], [y, y], color=colour, lw=2)
        ax.plot(value, y, marker, ms=8, color=colour, mec=INK["paper"], mew=1)
        ax.text(1.02, y, percent(value), transform=ax.get_yaxis_transform(), va="center", color=INK["ink"])
    return ax


def scores(
    name: str, rows: Sequence[tuple[str, Sequence[float], Sequence[bool]]], floor: float | None = None
) -> Drawing:
    """Draw one dot per seed and a tick at the mean; rows are (arm, values, collapsed)."""
    values = [value for _, found, _ in rows for value in found if math.isfinite(value)]
    low, high = min(values), max(values)
    pad = max(0.005, 0.06 * (high - low))

    def paint(canvas: Canvas) -> None:
        ax = name_rows(canvas, [arm for arm, *_ in rows], right=66)
        for row, (arm, found, collapsed) in enumerate(rows):
            colour, marker = arm_look(arm)
            spread = 0.16 if canvas.narrow else 0.24
            for k, (value, bad) in enumerate(zip(found, collapsed, strict=True)):
                y = row_at(row, canvas) + (spread * (2 * k / (len(found) - 1) - 1) if len(found) > 1 else 0)
                ax.plot(
                    value,
                    y,
                    "x" if bad else marker,
                    ms=5.5,
                    color=INK["ink"] if bad else colour,
                    alpha=1 if bad else 0.75,
                    mew=1.6 if bad else 0,
                )
            mean = sum(found) / len(found)
            y = row_at(row, canvas)
            ax.plot([mean, mean], [y - spread - 0.1, y + spread + 0.1], color=INK["ink"], lw=1.6)
            ax.text(1.02, y, number(mean), transform=ax.get_yaxis_transform(), va="center", color=INK["ink"])
        ax.set_xlim(low - pad, high + pad)
        ax.locator_params(axis="x", nbins=4 if canvas.narrow else 6)

    return draw(name, paint, lambda narrow: 48 + len(rows) * (52 if narrow else 42))


def curves(name: str, panels: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Drawing:
    """Draw one panel per arm with one line per run; a run is {steps, values, best, collapsed}."""
    ends = [value for _, runs in panels for run in runs for value in run["values"] if math.isfinite(value)]
    last = max(step for _, runs in panels for run in runs for step in run["steps"])
    pad = 0.06 * (max(ends) - min(ends)) or 0.02

    def paint(canvas: Canvas) -> None:
        across = 2 if canvas.narrow else 3
        width, height = (canvas.width - 44) / across, 150
        for k, (arm, runs) in enumerate(panels):
            column, line = k % across, k // across
            left, top = 44 + column * width, 24 + line * (height + 44)
            ax = canvas.axes(left, canvas.width - left - width + 26, top, canvas.height - top - height)
            _panel(ax, arm, runs)
            ax.set_xlim(0, last * 1.03)
            ax.set_ylim(min(ends) - pad, max(ends) + pad)
            ax.locator_params(axis="x", nbins=3)
            ax.locator_params(axis="y", nbins=4)
            if column:
                ax.set_yticklabels([])

    def height(narrow: bool) -> float:
        return 12 + math.ceil(len(panels) / (2 if narrow else 3)) * 194

    return draw(name, paint, height)


def _panel(ax: Axes, arm: str, runs: Sequence[Mapping[str, Any]]) -> None:
    colour, _ = arm_look(arm)
    ax.set_title(shorten(arm, 22), loc="left", color=INK["ink"], pad=6, **font("bold"))
    ax.grid(axis="y")
    ax.tick_params(axis="y", labelcolor=INK["muted"], labelsize=11)
    ax.tick_params(axis="x", labelsize=11)
    for run in runs:
        style = (0, (2, 2)) if run["collapsed"] else "-"
        ax.plot(run["steps"], run["values"], color=colour, lw=1.2, alpha=0.8, ls=style)
        if run["best"] in list(run["steps"]):
            best = list(run["steps"]).index(run["best"])
            ax.plot(
                run["best"],
                run["values"][best],
                "x" if run["collapsed"] else "o",
                ms=4.5,
                color=INK["ink"],
                mfc=colour,
                mew=1,
            )
