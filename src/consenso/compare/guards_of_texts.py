"""Guards that look at test texts, classes, contamination, and at what was declared when."""

from __future__ import annotations

from collections import Counter
from typing import Any

from consenso.compare.arm_rows import ArmRows
from consenso.compare.evidence import Evidence, Finding
from consenso.compare.freezing import changes_since, read_record, spoken_changes
from consenso.errors import DataError


def enough_test_texts(evidence: Evidence) -> list[Finding]:
    """Warn where the test part is small, or texts were left out of it for want of gold."""
    n, lost = len(evidence.runs.items), evidence.runs.without_gold
    figures = {"n": n, "without_gold": lost}
    without = f"; {lost:,} more have no gold and are left out" if lost else ""
    if n < evidence.few_texts_below:
        return [Finding("warned", f"only {n:,} test texts with gold: expect a wide interval{without}", figures)]
    return [Finding("warned" if lost else "passed", f"{n:,} test texts with gold{without}", figures)]


def classes(evidence: Evidence) -> list[Finding]:
    """Warn where a class has no test gold (macro-F1 leaves it out) or no training rows in an arm (it scores 0)."""
    runs = evidence.runs
    with_gold = {runs.names[code] for code in set(runs.gold.tolist())}
    no_gold = [name for name in runs.names[: runs.known] if name not in with_gold]
    untrained = _untrained(evidence, with_gold)
    figures = {"classes": len(with_gold), "without_test_gold": no_gold, "without_training_rows": untrained}
    said = [f"without test gold, so not in macro-F1: {', '.join(no_gold)}"] if no_gold else []
    said += [
        f"without training rows in {arm}: {', '.join(f'{k} ({v} runs)' for k, v in lost.items())}"
        for arm, lost in untrained.items()
    ]
    if said:
        return [Finding("warned", "class(es) " + "; class(es) ".join(said), figures)]
    unknown = " (training rows not known: no arms table)" if evidence.arms is None else ""
    return [Finding("passed", f"all {len(with_gold)} classes have test gold and training rows{unknown}", figures)]


def _untrained(evidence: Evidence, with_gold: set[str]) -> dict[str, dict[str, int]]:
    """Arm → class → in how many (fold, seed) the class has no training row (nor a share of a soft target)."""
    found: dict[str, dict[str, int]] = {}
    for student in evidence.students():
        if (rows := evidence.arms_of(student)) is None:
            continue
        for arm in evidence.reported(student):
            have, pieces = _taught(rows.of_arm(arm, train=True), evidence)
            if lost := {name: pieces - have.get(name, 0) for name in sorted(with_gold) if have.get(name, 0) < pieces}:
                found[arm] = lost
    return found


def _taught(given: ArmRows, evidence: Evidence) -> tuple[dict[str, int], int]:
    """Class → in how many (fold, seed) an arm teaches it; and how many (fold, seed) there are."""
    import numpy as np

    pairs = set(zip(given.piece.tolist(), (given.targets[code] for code in given.target)))
    if len(given.shares) and evidence.schema is not None:
        soft = [place for place, share in enumerate(given.shares) if share is not None and np.size(share) > 1]
        if soft:
            mass = np.stack([np.asarray(given.shares[place], dtype=float) for place in soft])
            rows, columns = np.nonzero(mass)
            names = list(evidence.schema.names)
            pairs |= set(zip(given.piece[soft][rows].tolist(), (names[column] for column in columns)))
    return dict(Counter(name for _, name in pairs)), len(set(given.piece.tolist()))


def contamination(evidence: Evidence) -> list[Finding]:
    """Note that an LLM may have seen public texts and gold labels in its own training."""
    if evidence.gold_public is None:
        return [Finding("not_checked", "not stated whether texts and gold are public; set compare.gold_public")]
    if evidence.gold_public:
        said = (
            "texts and gold are public: LLMs may have seen them, so their labels may be better here than on new texts"
        )
        return [Finding("warned", said)]
    return [Finding("passed", "texts and gold are stated not to be public")]


def fixed_before_scoring(evidence: Evidence) -> list[Finding]:
    """Compare what is declared now (metric, margin, contrast, aggregator, panel) with the freeze, or the first scoring."""
    if evidence.frozen is not None:
        return [_as_frozen(evidence)]
    if evidence.hash is None or evidence.first_hash is None:
        return [Finding("not_checked", "no record of what was declared at the first scoring")]
    figures: dict[str, Any] = {"first": evidence.first_hash, "now": evidence.hash}
    if evidence.hash == evidence.first_hash:
        return [Finding("passed", "unchanged since the first scoring", figures)]
    changes = changes_since(evidence.first_declared, evidence.declared)
    said = "changed after seeing test scores" + spoken_changes(changes)
    return [Finding("warned", said, {**figures, "changes": changes})]


def _as_frozen(evidence: Evidence) -> Finding:
    assert evidence.frozen is not None
    try:
        frozen = read_record(evidence.frozen)
    except DataError as error:
        return Finding("warned", f"the frozen record cannot be relied on: {error}", {"frozen": True})
    figures: dict[str, Any] = {"frozen_at": frozen.at, "hash": frozen.hash, "scores_seen": frozen.scores_seen}
    what = f"as frozen on {frozen.at}, hash {frozen.hash[:12]}"
    late = "; test scores had been seen before the freeze, so this is no pre-registration"
    if evidence.declared is None:
        return Finding("not_checked", f"what is declared now is not known; frozen on {frozen.at}", figures)
    if changes := changes_since(frozen.declared, evidence.declared):
        said = f"changed since it was frozen on {frozen.at}{spoken_changes(changes)}"
        return Finding("warned", said + (late if frozen.scores_seen else ""), {**figures, "changes": changes})
    if frozen.scores_seen:
        return Finding("warned", what + late, figures)
    return Finding("passed", f"{what}, before any test score was seen", figures)
