"""Settings of the report: the [report] section of experiment.toml."""

from __future__ import annotations

from pydantic import Field

from consenso.settings import Settings


class ReportSettings(Settings):
    """What the report shows. Nothing here changes a number."""

    title: str = ""
    """The report's name; empty: the experiment's name."""
    problematic_cases: int = Field(default=20, ge=0)
    """How many of the hardest texts are listed; 0 lists none (for data that may not leave the machine)."""
    text_length: int = Field(default=280, ge=40)
    """Characters of a text shown at once; the rest opens on request."""
    leaks: int = Field(default=20, ge=0)
    """How many removed texts are listed beside the text they repeat."""
