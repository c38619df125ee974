"""What an arm's name promises: whose labels it carries, on which texts, and whether it may collapse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from consenso.compare.contrasts import FLOORS

Texts = Literal["all", "aligned", "kept", "part", "spread", "any"]


@dataclass(frozen=True)
class Promise:
    """What must hold for every arm of one kind."""

    train: tuple[str, ...]
    """Sources that its training labels may have; empty: a name of the user's own, which promises nothing."""
    dev: tuple[str, ...]
    """Sources that its dev labels may have: those of the arm, since its user has no others."""
    texts: Texts
    """all: whatever has gold; aligned, kept: row by row those of the other arms of this kind; part: some of the aligned
    ones; spread: the aligned ones, a text perhaps in several rows; any: no promise."""
    label: str
    """How its labels are called."""


_GOLD, _CONSENSUS = ("gold",), ("consensus", "human")
_OF_CONSENSUS: dict[str, Texts] = {
    "consensus": "aligned", "consensus-soft": "aligned", "consensus+k": "aligned", "consensus-kept": "kept",
    "consensus-random": "part", "consensus-selected": "part", "consensus-selected-random": "part",
    "consensus-repeated": "spread",
}  # fmt: skip
PROMISES: dict[str, Promise] = {
    **{name: Promise(_GOLD, _GOLD, "all", "gold") for name in (*FLOORS, "gold", "gold@n")},
    "gold-aligned": Promise(_GOLD, _GOLD, "aligned", "gold"),
    "gold-kept": Promise(_GOLD, _GOLD, "kept", "gold"),
    "gold-noised": Promise(("noised",), ("noised",), "aligned", "noised gold"),
    **{name: Promise(_CONSENSUS, _CONSENSUS, texts, "consensus") for name, texts in _OF_CONSENSUS.items()},
    "perspectivist": Promise(("vote",), ("vote", *_CONSENSUS), "spread", "annotators'"),
    "permuted": Promise(("permuted",), ("permuted",), "aligned", "permuted consensus"),
    "single": Promise(("vote",), ("vote",), "part", "one annotator's"),
    "panel": Promise(("panel",), ("panel",), "part", "a sub-panel's"),
}
"""Kind of arm → what its name promises; humans may have corrected a consensus label."""
SAME_SIZE = (("consensus-kept", "consensus-random"), ("consensus-selected", "consensus-selected-random"))
"""Arms of the same size and class counts in every fold and seed."""
_PATTERNS = (
    (re.compile(r"gold@(\d+)"), "gold@n"),
    (re.compile(r"consensus\+(\d+)(:random)?"), "consensus+k"),
    (re.compile(r"single:(.+)"), "single"),
    (re.compile(r"panel:(\d+)"), "panel"),
)


def kind_of(arm: str) -> str:
    """Return the kind of an arm: `gold@250` is gold@n, `single:qwen` is single; other names are their own kind."""
    return next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(arm)), arm)


def given_in(arm: str) -> str:
    """Return what the name carries: the number of gold@n, consensus+k and panel, the annotator of single; else ''."""
    return next((found[1] for pattern, _ in _PATTERNS if (found := pattern.fullmatch(arm))), "")


def promise_of(arm: str) -> Promise:
    """Return what a name promises; one that begins with gold or consensus as a word of its own promises such labels."""
    if (known := PROMISES.get(kind_of(arm))) is not None:
        return known
    named = re.match(r"(gold|consensus)(?![a-z])", arm)
    sources = {"gold": _GOLD, "consensus": _CONSENSUS}[named[1]] if named else ()
    return Promise(sources, sources, "any", named[1] if named else "")


def may_collapse(arm: str) -> bool:
    """Return whether collapsing is no flaw of this arm: floors, permuted labels, and the small arms gold@n."""
    return kind_of(arm) in {*FLOORS, "permuted", "gold@n"}


def base_student(student: str) -> str:
    """Return the student that a declared variation is one of: `frozen` of `frozen (gold dev)`."""
    return student.partition(" (")[0]
