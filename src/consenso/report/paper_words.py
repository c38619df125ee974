"""How arms, students and sizes are called in the texts for a paper."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import absent, count, plural
from consenso.report.facts import METRICS, Facts

if TYPE_CHECKING:
    import pandas as pd

ARMS = {
    "consensus": "the consensus labels",
    "consensus-kept": "the consensus labels without the problematic texts",
    "consensus-random": "the consensus labels of a random subset of the same size and class counts",
    "consensus-soft": "the vote shares as soft targets",
    "consensus-repeated": "the consensus labels, each repeated as often as there are annotators",
    "consensus-selected": "the consensus labels of the texts that instance selection leaves",
    "consensus-selected-random": "the consensus labels of a random subset as large as the selected one",
    "perspectivist": "one label per annotator",
    "gold": "all human labels",
    "gold-aligned": "the human labels of the texts that have a consensus label",
    "gold-kept": "the human labels of the texts that are not problematic",
    "gold-noised": "human labels with random errors at the rates of the consensus",
    "permuted": "permuted consensus labels",
    "floor": "the majority class",
    "floor-prior": "draws from the label shares",
}
_FAMILIES = (
    (r"gold@(\d+)", "{} human labels"),
    (r"consensus\+(\d+)", "the consensus labels with {} human corrections, problematic texts first"),
    (r"consensus\+(\d+):random", "the consensus labels with {} human corrections at random"),
    (r"single:(.+)", "the labels of {} alone"),
    (r"panel:(\d+)", "the labels of a panel of {}"),
)


def arm_words(arm: str, control: str = "") -> str:
    """Return what an arm was trained on; consensus against gold-aligned, the human labels are those of the same texts."""
    if arm == "gold-aligned" and control == "consensus":
        return "the human labels of the same texts"
    if arm == "gold-kept" and control == "consensus-kept":
        return "the human labels of the same texts"
    for pattern, words in _FAMILIES:
        if found := re.fullmatch(pattern, arm):
            return words.format(found[1])
    return ARMS.get(arm, f"“{arm}”")


def student_words(facts: Facts, student: str) -> str:
    """Return what kind of classifier a student is, with its encoder and its declared variation."""
    base, _, variation = student.partition(" (")
    encoder = recipe_of(facts, student).get("encoder")
    named = "MiniLM" if encoder == "embedded" else encoder
    words = {
        "encoder": f"a fine-tuned {named} encoder" if named else "a fine-tuned encoder",
        "frozen": f"a linear classifier on frozen {named} embeddings"
        if named
        else "a linear classifier on frozen embeddings",
        "linear": "a linear classifier on TF-IDF features",
        "contrastive": f"a linear classifier on {named or 'encoder'} embeddings tuned on pairs of texts",
    }.get(base, f"the classifier “{base}”")
    return f"{words} ({variation.rstrip(')')})" if variation else words


def recipe_of(facts: Facts, student: str) -> dict[str, Any]:
    """Return the recipe that a student was trained with, a chosen learning rate in it; {} where the record has none."""
    found = _declared_recipe(facts, student)
    if (probe := rate_probe(facts, student)) is not None:
        found["learning_rate"] = probe["chosen"]
    return found


def rate_probe(facts: Facts, student: str) -> dict[str, Any] | None:
    """Return how the learning rate of a student was chosen (the record's `learning_rates`); None where it was declared."""
    base, _, variation = student.partition(" (")
    sections = [(facts.setting("finetune", "overrides", {}) or {}).get(base)]
    sections.append((facts.setting("finetune", "variants", {}) or {}).get(variation.rstrip(")")))
    fixed = any("learning_rate" in (given.get("recipe") or {}) for given in sections if isinstance(given, dict))
    if fixed or not facts.setting("finetune", "learning_rates"):
        return None
    found: dict[str, Any] | None = (facts.record.get("learning_rates") or {}).get(base)
    return found


def _declared_recipe(facts: Facts, student: str) -> dict[str, Any]:
    """The recipe of the settings, its overrides and those of its variation applied."""
    base, _, variation = student.partition(" (")
    found: dict[str, Any] = {}
    for given in (
        {"recipe": facts.setting("finetune", "recipe", {})},
        (facts.setting("finetune", "overrides", {}) or {}).get(base),
        (facts.setting("finetune", "variants", {}) or {}).get(variation.rstrip(")")),
    ):
        recipe = given.get("recipe") if isinstance(given, dict) else None
        found |= recipe if isinstance(recipe, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def metric_words(row: pd.Series) -> str:
    """Return the metric's name in words."""
    name = str(row["metric"])
    return METRICS.get(name, name.rpartition(":")[2].replace("_", " "))


def level(share: float) -> str:
    """Return `95 %`, without needless zeros."""
    return f"{100 * share:.4g}\u202f%"


def replicates(row: pd.Series) -> str:
    """Return `10 seeds`, `10 bootstrap resamples of the training texts` or `5 folds × 3 seeds`."""
    kind, S = row.get("replication"), row["S"]
    if kind == "fold" and not absent(row.get("k")):
        return plural(row["k"], "fold") + ("" if absent(S) or S < 2 else f" × {plural(S, 'seed')}")
    if kind == "bootstrap":
        return plural(S, "bootstrap resample") + " of the training texts"
    return plural(S, "seed")


def size(row: pd.Series) -> str:
    """Return `10 seeds, 2,210 test texts`."""
    return f"{replicates(row)}, {plural(row['n'], 'test text')}"


def listed(names: list[str], most: int = 12) -> str:
    """Return `a, b and c`; of very many the first ones and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {count(len(names) - most)} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
