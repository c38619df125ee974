"""The charts that take one contrast apart: per seed, and per class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from consenso.report.blocks import interval, points
from consenso.report.drawing import INK, Canvas, draw, font
from consenso.report.forest_plot import difference_axis
from consenso.report.plots import Drawing, name_rows, row_at


@dataclass(frozen=True)
class Strip:
    """One row of the chart of seeds: its name, and a difference per run."""

    name: str
    differences: Sequence[float]
    collapsed: Sequence[bool]
    """Per run: whether a training behind it collapsed or failed."""


def strips(name: str, rows: Sequence[Strip], margin: float) -> Drawing:
    """Draw one mark per run and a tick at the mean, over the declared margin."""
    ends = [abs(x) for row in rows for x in row.differences if math.isfinite(x)]
    reach = max([1.1 * x for x in ends] + [1.4 * margin, 0.01])

    def paint(canvas: Canvas) -> None:
        ax = name_rows(canvas, [row.name for row in rows], right=66, bottom=48)
        whole = [(-0.5, len(rows) - 0.5)]
        clear = [(k - 0.16, k + 0.48) for k in range(len(rows))]
        difference_axis(ax, reach, margin, clear if canvas.narrow else whole)
        ax.set_xlabel("arm − control, percentage points")
        spread = 0.14 if canvas.narrow else 0.26
        for k, row in enumerate(rows):
            last = max(len(row.differences) - 1, 1)
            for place, (value, bad) in enumerate(zip(row.differences, row.collapsed, strict=True)):
                y = row_at(k, canvas) + spread * (2 * place / last - 1)
                colour = INK["ink" if bad else "consensus"]
                ax.plot(
                    value, y, "x" if bad else "o", ms=6, color=colour, alpha=1 if bad else 0.8, mew=1.8 if bad else 0
                )
            found = [value for value in row.differences if math.isfinite(value)]
            if found:
                mean, y = sum(found) / len(found), row_at(k, canvas)
                ax.plot([mean, mean], [y - spread - 0.1, y + spread + 0.1], color=INK["ink"], lw=2)
                words = points(mean, unit=False)
                ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), va="center", color=INK["ink"])

    return draw(name, paint, lambda narrow: 62 + len(rows) * (66 if narrow else 54))


@dataclass(frozen=True)
class ClassRow:
    """One row of the chart of classes: a difference of recalls in shares."""

    name: str
    difference: float
    low: float
    high: float
    clear: bool
    """Its Holm-adjusted p is below alpha: a filled mark."""


FIGURES = 132
"""Room for `−12.3 [−24.3, +10.1]`, px."""


def class_differences(name: str, rows: Sequence[ClassRow]) -> Drawing:
    """Draw the recall difference of each class with its interval; filled where it is clear after Holm."""
    ends = [abs(x) for row in rows for x in (row.low, row.high, row.difference) if math.isfinite(x)]
    reach = max([1.1 * x for x in ends] + [0.01])

    def paint(canvas: Canvas) -> None:
        narrow = canvas.narrow
        ax = name_rows(
            canvas, [row.name for row in rows], right=8 if narrow else FIGURES, bottom=48, narrow_most=26
        )  # fmt: skip
        stripes = [(k - 0.12, k + 0.44) for k in range(len(rows))] if narrow else [(-0.5, len(rows) - 0.5)]
        difference_axis(ax, reach, 0, stripes)
        ax.set_xlabel("difference in recall, percentage points")
        for k, row in enumerate(rows):
            y = row_at(k, canvas)
            ax.plot([row.low, row.high], [y, y], color=INK["ink"], lw=1.6)
            face = INK["ink"] if row.clear else INK["paper"]
            ax.plot(row.difference, y, "o", ms=8 if row.clear else 7, mfc=face, mec=INK["ink"], mew=1.6)
            words = f"{points(row.difference, unit=False)} {interval(row.low, row.high)}"
            ax.text(
                1 if narrow else 1.03,
                k - 0.2 if narrow else y,
                words,
                transform=ax.get_yaxis_transform(),
                ha="right" if narrow else "left",
                va="bottom" if narrow else "center",
                color=INK["muted"],
                **font(size=11),
            )

    return draw(name, paint, lambda narrow: 62 + len(rows) * (46 if narrow else 28))
