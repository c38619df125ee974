"""The sections of the report, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from consenso.report.agreement_section import agreement
from consenso.report.annotator_sections import annotators, candidates, confidence, cost
from consenso.report.blocks import Note, Section
from consenso.report.calibration_section import calibration
from consenso.report.classifier_sections import arm_scores, confusions, learning_curves
from consenso.report.collapse_section import collapsed
from consenso.report.contradiction_section import contradictions
from consenso.report.contrast_section import contrasts
from consenso.report.facts import TABLES_OF, Facts
from consenso.report.frontier_section import frontier
from consenso.report.label_sections import (
    accuracy_levels,
    consensus_levels,
    label_distribution,
    problematic_cases,
)
from consenso.report.method_section import labels_made
from consenso.report.multiverse_section import multiverse
from consenso.report.paper_section import paper_section
from consenso.report.run_sections import guards, leakage, what_was_run
from consenso.report.seed_section import classes, seed_by_seed
from consenso.report.value_section import corrections, label_value
from consenso.report.variant_section import variants
from consenso.report.worth_section import worth

SECTIONS: tuple[Callable[[Facts], Section], ...] = (
    label_distribution,
    agreement,
    labels_made,
    consensus_levels,
    problematic_cases,
    accuracy_levels,
    contradictions,
    annotators,
    worth,
    variants,
    confidence,
    candidates,
    cost,
    contrasts,
    seed_by_seed,
    classes,
    multiverse,
    arm_scores,
    collapsed,
    learning_curves,
    confusions,
    calibration,
    label_value,
    corrections,
    frontier,
    guards,
    leakage,
    what_was_run,
    paper_section,
)


def make_sections(facts: Facts) -> list[Section]:
    """Return all sections; one whose tables are missing says why, one whose tables are out of date says so.

    Of predictions of one's own there are those that predictions can fill.
    """
    made = [section(facts) for section in SECTIONS]
    return [_dated(facts, section) for section in (_filled(made) if facts.is_own_predictions else made)]


def _filled(sections: list[Section]) -> list[Section]:
    """The sections that show something; the first of a chapter opens it, where its own opening one is left out."""
    kept, chapter = [], ""
    for section in sections:
        chapter = section.group or chapter
        if all(isinstance(block, Note) and block.tone == "absent" for block in section.blocks):
            continue
        kept.append(replace(section, group=chapter))
        chapter = ""
    return kept


LABELS = ("data", "annotate", "consensus")
STAGES_OF = {
    "labels": LABELS,
    "agreement": ("annotate", "consensus"),
    "made": LABELS,
    "levels": ("annotate", "consensus"),
    "problematic": LABELS,
    "by-level": LABELS,
    "contradictions": LABELS,
    "annotators": ("data", "annotate"),
    "worth": LABELS,
    "variants": ("annotate",),
    "confidence": LABELS,
    "candidates": ("data", "annotate"),
    "cost": ("annotate",),
    "contrasts": ("compare",),
    "seeds": ("compare",),
    "classes": ("compare",),
    "multiverse": ("compare",),
    "scores": ("finetune", "compare"),
    "collapsed": ("finetune",),
    "curves": ("finetune",),
    "calibration": ("compare",),
    "value": ("compare",),
    "corrections": ("compare",),
    "frontier": ("compare",),
    "confusion": tuple(TABLES_OF),
    "guards": ("compare",),
    "leakage": ("data",),
    "run": tuple(TABLES_OF),
    "paper": tuple(TABLES_OF),
}
"""Section → the stages whose tables it is built from."""


def _dated(facts: Facts, section: Section) -> Section:
    """The section, opened by a note where its tables are there but do not belong to the present settings."""
    written = [stage for stage in STAGES_OF[section.id] if any(map(facts.folder.has, TABLES_OF[stage]))]
    old = [stage for stage in written if facts.state(stage) != "current"]
    if not old:
        return section
    word = "Out of date" if any(facts.state(stage) == "stale" for stage in old) else "Unfinished"
    stages = f"the stage{'s' if len(old) > 1 else ''} {', '.join(f'“{stage}”' for stage in old)}"
    note = Note(f"{word}: this rests on {stages}, still to be done with the present settings.", "warned")
    return replace(section, blocks=[note, *section.blocks])
