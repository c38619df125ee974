"""The sections of the report, in order."""

from __future__ import annotations

from collections.abc import Callable

from consenso.report.blocks import Section
from consenso.report.classifier_sections import arm_scores, confusions, learning_curves
from consenso.report.contrast_section import contrasts
from consenso.report.facts import Facts
from consenso.report.label_sections import (
    accuracy_levels,
    agreement,
    annotators,
    consensus_levels,
    label_distribution,
    problematic_cases,
)
from consenso.report.run_sections import guards, leakage, what_was_run

SECTIONS: tuple[Callable[[Facts], Section], ...] = (
    label_distribution,
    agreement,
    consensus_levels,
    problematic_cases,
    annotators,
    accuracy_levels,
    contrasts,
    arm_scores,
    learning_curves,
    confusions,
    guards,
    leakage,
    what_was_run,
)


def make_sections(facts: Facts) -> list[Section]:
    """Return all sections; one whose tables are missing says why."""
    return [section(facts) for section in SECTIONS]
