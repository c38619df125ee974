"""matplotlib → inline SVG whose colours are CSS variables, whose text stays text and whose bytes repeat.

Charts are painted with stand-in colours (`INK["gold"]`, …) that become `var(--gold)`, so that one drawing serves light,
dark and print. Every chart is drawn twice, 720 and 360 px wide: scaled-down text would be unreadable on a phone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consenso.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 720, 360

_NAMES = (
    "ink",
    "muted",
    "rule",
    "band",
    "edge",
    "gold",
    "consensus",
    "other",
    "paper",
    "tone",
    "good",
    "bad",
    "open",
    "stop",
)
INK = {name: f"#0a0b{number:02x}" for number, name in enumerate(_NAMES, 1)}
"""Stand-in colours; style.css defines the variables of the same names."""

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold dollar signs
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK["ink"],
    "axes.edgecolor": INK["rule"],
    "axes.labelcolor": INK["muted"],
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.facecolor": "none",
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": INK["rule"],
    "grid.linewidth": 1,
    "xtick.color": INK["rule"],
    "ytick.color": INK["rule"],
    "xtick.labelcolor": INK["muted"],
    "ytick.labelcolor": INK["ink"],
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "butt",
    "path.simplify": False,
    "hatch.color": INK["rule"],
    "hatch.linewidth": 1,
}


class Canvas:
    """A chart in progress: its figure, and whether it is the narrow drawing."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self.figure = figure
        self.width = width
        self.height = height

    @property
    def narrow(self) -> bool:
        """Whether this is the drawing for phones."""
        return self.width == NARROW

    def axes(self, left: float, right: float, top: float, bottom: float) -> Axes:
        """Return axes with these margins in px."""
        width, height = self.width, self.height
        return self.figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )


def draw(name: str, paint: Callable[[Canvas], None], height: Callable[[bool], float]) -> tuple[str, str]:
    """Return a chart as SVG for wide and for narrow pages; `height(narrow)` gives its height in px."""
    return _draw(f"{name}-w", paint, WIDE, height(False)), _draw(f"{name}-n", paint, NARROW, height(True))


def _draw(name: str, paint: Callable[[Canvas], None], width: int, height: float) -> str:
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the report", "report") from None
    file = io.StringIO()
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib's own font lacks are set by the browser's
        figure = Figure(figsize=(width / 72, round(height) / 72), dpi=72)
        FigureCanvasSVG(figure)
        paint(Canvas(figure, width, round(height)))
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _inline(file.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """Return the SVG as part of a page: no prolog, no page-wide style, ids of its own, colours as variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(
        r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>",
        r'<svg viewBox="\1" aria-hidden="true" focusable="false">',
        svg,
        count=1,
    )
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = re.sub(r"(font(?:-family)?: (?:[^;'\"]*?))'DejaVu Sans'[^;\"]*", r"\1inherit", svg)
    for colour, stand_in in INK.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r"<g/>|<defs>\s*</defs>", "", svg)
    return re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").strip()


def font(weight: str = "normal", size: float = 12) -> dict[str, Any]:
    """Return text options."""
    return {"fontsize": size, "fontweight": weight}


def shorten(text: str, most: int) -> str:
    """Return a name that fits a chart."""
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def squeeze(text: str, most: int) -> str:
    """Return a name that fits a chart, cut in the middle: names of models often differ at their ends."""
    text = " ".join(str(text).split())
    tail = most * 2 // 5
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"
