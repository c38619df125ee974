"""Which question a contrast answers, read off its two arms."""

from __future__ import annotations

from collections.abc import Callable

GOLD = ("gold", "gold-aligned", "gold-kept")
TARGETS = ("consensus-soft", "perspectivist", "consensus-repeated")


def _is_check(arm: str, control: str) -> bool:
    return any(side.startswith(("floor", "permuted")) for side in (arm, control))


def _mentions(*beginnings: str) -> Callable[[str, str], bool]:
    return lambda arm, control: any(side.startswith(beginnings) for side in (arm, control))


def _same_labels(arm: str, control: str) -> bool:
    gold = [side in GOLD for side in (arm, control)]
    return all(gold) or (not any(gold) and arm.startswith("consensus") and control.startswith("consensus"))


def _labels(arm: str, control: str) -> bool:
    return any(side in GOLD for side in (arm, control)) and any(side.startswith("consensus") for side in (arm, control))


QUESTIONS: dict[str, Callable[[str, str], bool]] = {
    "Checks": _is_check,
    "Are patterned errors worse than random ones?": _mentions("gold-noised"),
    "What do corrections by humans add?": _mentions("consensus+"),
    "How do fewer human labels compare?": _mentions("gold@"),
    "Is the panel worth its price?": _mentions("single:", "panel:"),
    "How should votes become targets?": _mentions(*TARGETS),
    "What does leaving texts out do?": _same_labels,
    "Consensus labels instead of human ones?": _labels,
}
"""Question → whether two arms answer it; the first that fits counts."""
OTHERS, CHECKS = "Other contrasts", "Checks"
ORDER = (*(question for question in reversed(QUESTIONS) if question != CHECKS), OTHERS, CHECKS)


def question_of(arm: str, control: str) -> str:
    """Return the question that a contrast of these two arms answers."""
    return next((question for question, fits in QUESTIONS.items() if fits(arm, control)), OTHERS)
