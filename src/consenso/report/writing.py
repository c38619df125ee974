"""write_report: a run folder's tables → report.html and report.md."""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path
from typing import Any

from consenso.errors import MissingExtraError
from consenso.report.answer import make_answer
from consenso.report.blocks import THIN, Answer, Section
from consenso.report.export import open_folder
from consenso.report.facts import Facts
from consenso.report.markdown import as_markdown
from consenso.report.sections import make_sections
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder, write_text

logger = logging.getLogger(__name__)


def write_report(folder: RunFolder | str | Path, *, settings: ReportSettings | None = None) -> Path:
    """Write report.html and report.md of a run folder and return the path of the former.

    Reads nothing but the folder's tables and run.json; a section whose tables are missing says so. The same tables and
    record give the same bytes. Without `settings`, those of the run's own record count.
    Raises `DataError` for a folder that does not exist, `MissingExtraError` where jinja2 or matplotlib is missing.
    """
    place = open_folder(folder)
    facts = Facts(place, settings or _settings_of(place))
    logger.info("report: %s", place.path)
    answer, sections = make_answer(facts), make_sections(facts)
    page = as_html(facts.name, answer, sections)
    path = place.path / "report.html"
    write_text(path, page)
    write_text(
        place.path / "report.md",
        as_markdown(f"May consensus labels replace human ones? {facts.name}", answer, sections),
    )
    logger.info("report: %s, %d bytes", answer.word, len(page.encode()))
    return path


def as_html(name: str, answer: Answer, sections: list[Section], source: str = "this run") -> str:
    """Return the report as one HTML page that needs nothing from anywhere; `source`: what its tables are of."""
    try:
        import jinja2
        import markupsafe
    except ImportError:
        raise MissingExtraError("the report", "report") from None
    here = resources.files("consenso.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    whole = markupsafe.Markup('<span class="nb">macro-F1</span>')

    def unbroken(text: str) -> markupsafe.Markup:
        return markupsafe.escape(text).replace("macro-F1", whole).replace(" %", f"{THIN}%")

    environment.filters["unbroken"] = unbroken
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    style = (here / "style.css").read_text(encoding="utf-8")
    return str(template.render(name=name, answer=answer, sections=sections, style=style, source=source))


def _settings_of(folder: RunFolder) -> ReportSettings:
    chosen: Any = (folder.record().get("settings") or {}).get("report") or {}
    return ReportSettings.read(chosen, str(folder.path / "run.json"))
