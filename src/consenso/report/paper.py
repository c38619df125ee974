"""For the paper: the verdict as a sentence, a table, a methods paragraph and the citations, from a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import MISSING, THIN, absent, count, interval, number, points, probability
from consenso.report.contrast_section import verdict_of
from consenso.report.export import open_folder
from consenso.report.facts import Facts
from consenso.report.latex import booktabs, cite_latex, cite_plain, cited
from consenso.report.markdown import escape
from consenso.report.paper_methods import methods_sentences
from consenso.report.paper_sentence import data_set, sentence_for_paper
from consenso.report.paper_statistics import statistics_sentences
from consenso.report.paper_words import level, metric_words, replicates
from consenso.report.references import NAMES, bibliography
from consenso.report.settings import ReportSettings
from consenso.report.until import alpha_of
from consenso.store import RunFolder, write_text

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PaperTexts:
    """What a run folder gives for a paper."""

    sentence: str
    """The one sentence per student that the verdict allows; without a current verdict, why there is none."""
    columns: tuple[tuple[str, bool], ...]
    """Headings of the table, and whether they head numbers."""
    rows: tuple[tuple[str, ...], ...]
    """Cells of the table as plain text, a contrast each; empty without a current comparison."""
    caption: str
    """What the table shows."""
    methods: str
    """The methods paragraph; `[@key]` marks a citation."""
    citation: str
    """BibTeX of consenso and of everything that `methods` cites."""

    @property
    def methods_paragraph(self) -> str:
        """The methods paragraph as plain text, citations by author and year."""
        return cite_plain(self.methods, NAMES)

    @property
    def markdown_table(self) -> str:
        """The table in Markdown; '' without rows."""
        if not self.rows:
            return ""
        head = "| " + " | ".join(escape(name) for name, _ in self.columns) + " |"
        rule = "|" + "|".join("---:" if is_number else "---" for _, is_number in self.columns) + "|"
        lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join([head, rule, *lines])

    @property
    def latex_table(self) -> str:
        """The table in LaTeX (package booktabs); '' without rows."""
        return booktabs(self.columns, self.rows, caption=self.caption, label="tab:consenso") if self.rows else ""

    def as_markdown(self) -> str:
        """Return paper.md."""
        table = f"{escape(self.caption)}\n\n{self.markdown_table}" if self.rows else "No contrast to show."
        parts = [
            "# For the paper", "## The verdict in a sentence", escape(self.sentence), "## Table", table, "## Methods",
            escape(self.methods_paragraph), "## References", f"```bibtex\n{self.citation.rstrip()}\n```",
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def as_latex(self) -> str:
        """Return paper.tex: parts to copy or to \\input; the references are in paper.bib."""
        parts = [
            "% Written by consenso; needs \\usepackage{booktabs,graphicx}; the references are in paper.bib (UTF-8).",
            "% The verdict in a sentence",
            cite_latex(self.sentence),
            self.latex_table,
            "% Methods",
            cite_latex(self.methods),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def paper_texts(facts: Facts) -> PaperTexts:
    """Return the texts of a run folder, whatever it holds; what is not known is left out."""
    methods = " ".join([*methods_sentences(facts), *statistics_sentences(facts)])
    frame = facts.contrasts() if facts.state("compare") == "current" else None
    columns = _columns(facts, frame)
    version = ((facts.record.get("environment") or {}).get("versions") or {}).get("consenso", "")
    return PaperTexts(
        sentence=_sentence(facts),
        columns=columns,
        rows=() if frame is None else tuple(_row(facts, row) for _, row in frame.iterrows()),
        caption="" if frame is None else _caption(facts, frame),
        methods=methods,
        citation=bibliography(cited(methods), str(version)),
    )


def write_paper(folder: RunFolder | str | Path, *, settings: ReportSettings | None = None) -> dict[str, Path]:
    """Write paper.md, paper.tex and paper.bib into a run folder; return name → path.

    The same tables and record give the same bytes. Raises `DataError` for a folder that does not exist.
    """
    place = open_folder(folder)
    texts = paper_texts(Facts(place, settings or ReportSettings()))
    files = {"paper.md": texts.as_markdown(), "paper.tex": texts.as_latex(), "paper.bib": texts.citation}
    for name, text in files.items():
        write_text(place.path / name, text)
    logger.info("paper: %s", ", ".join(str(place.path / name) for name in files))
    return {name: place.path / name for name in files}


def _sentence(facts: Facts) -> str:
    if facts.table("comparison") is None:
        return f"There is no sentence to write yet. {facts.why_absent('comparison')}"
    if facts.state("compare") != "current":
        return (
            "There is no sentence to write: the comparison is out of date or did not finish; run “consenso run” again."
        )
    # variations stand in the table, not here
    rows = [row for student in facts.main_students if (row := facts.primary(student)) is not None]
    if not rows:
        return "There is no sentence to write: the two arms of the primary contrast were not both trained."
    return " ".join(sentence_for_paper(facts, row) for row in rows)


def _columns(facts: Facts, frame: pd.DataFrame | None) -> tuple[tuple[str, bool], ...]:
    alpha = 0.05 if frame is None else alpha_of(frame.iloc[0])
    student = (("Student", False),) if len(facts.students) > 1 else ()
    return (
        *student, ("Contrast", False), ("Arm", True), ("Control", True), ("Difference, pp", True),
        (f"{level(1 - alpha)} CI", True), (f"{level(1 - 2 * alpha)} CI", True), ("p", True), ("p (Holm)", True),
        ("S", True), ("n", True), ("Verdict", False),
    )  # fmt: skip


def _row(facts: Facts, row: pd.Series) -> tuple[str, ...]:
    """One contrast; no number of an invalid one belongs into a paper."""
    verdict = verdict_of(row)
    student = (str(row["student"]),) if len(facts.students) > 1 else ()
    if verdict.startswith("INVALID"):
        numbers: tuple[str, ...] = (MISSING,) * 7
    else:
        numbers = (
            number(row["arm_mean"]), number(row["control_mean"]), points(row["difference"], unit=False),
            interval(row["low"], row["high"]), interval(row["low90"], row["high90"]), probability(row["p"]),
            probability(row["p_holm"]),
        )  # fmt: skip
    return (*student, str(row["contrast"]), *numbers, count(row["S"]), count(row["n"]), verdict)


def _caption(facts: Facts, frame: pd.DataFrame) -> str:
    row: Any = frame.iloc[0]
    metric = metric_words(row)
    margin = "" if absent(row["margin"]) else f"; margin ±{100 * row['margin']:g}{THIN}pp"
    return (
        f"{metric[:1].upper()}{metric[1:]} on {data_set(facts, row)}: contrasts between training labels, paired over "
        f"{replicates(row)}{margin}. The first contrast is the primary one."
    )
