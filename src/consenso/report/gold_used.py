"""Which gold went into the labels themselves, and how that is said."""

from __future__ import annotations

from consenso.report.blocks import count
from consenso.report.facts import Facts

PURPOSES = {
    "examples": "shown as examples in prompts",
    "candidates": "for the classifier that narrows the labels",
    "consensus": "for learned weights and thresholds of the consensus",
}
"""What gold was used for → in words."""
INTO = {"gold_used": "the votes themselves", "consensus_gold": "the consensus"}
"""Table of gold that was used → what it went into."""


def purposes(facts: Facts, *tables: str) -> dict[str, int]:
    """Return purpose → how many texts' gold served it; empty where none did. `tables`: of INTO; none: all."""
    found = [table["purpose"] for name in tables or INTO if (table := facts.table(name)) is not None]
    return {purpose: n for purpose in PURPOSES if (n := sum(int(each.eq(purpose).sum()) for each in found))}


def gold_words(facts: Facts, *tables: str) -> str:
    """Return the sentence that says that gold was used and what for; '' where none was. `tables`: as in `purposes`."""
    used = {name: table for name in tables or INTO if (table := facts.table(name)) is not None}
    if not used:
        return ""
    n = len(set().union(*(table["text_id"] for table in used.values())))
    into = " and ".join(INTO[name] for name in used)
    parts = ", ".join(f"{count(n)} {PURPOSES[purpose]}" for purpose, n in purposes(facts, *used).items())
    went = "human label of a training text" if n == 1 else "human labels of training texts"
    trains = "This text trains" if n == 1 else "These texts train"
    return f"Uses gold: {count(n)} {went} went into {into} ({parts}). {trains} no aligned arm."
