"""The negative control: labels without information must teach nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.compare.evidence import Evidence, Finding
from consenso.compare.metrics import per_item

if TYPE_CHECKING:
    import numpy as np


def negative_control(evidence: Evidence) -> list[Finding]:
    """Require `permuted` (labels without information) to score no better than chance, one-sided at 97.5 %."""
    return [_negative_control(evidence, student) for student in evidence.students()]


def _negative_control(evidence: Evidence, student: str) -> Finding:
    rows = evidence.runs.arms(student).get("permuted")
    blocks = _complete_blocks(evidence, rows) if rows else []
    if not blocks:
        return Finding("not_checked", "needs complete predictions of the arm permuted", scope=student)
    value, limit, draws = _against_permuted_gold(blocks, evidence)
    figures = {"value": value, "limit": limit, "draws": draws}
    said = f"permuted scores {100 * value:.1f} %, chance reaches {100 * limit:.1f} %"
    if value <= limit + 1e-12:
        return Finding("passed", said, figures, student)
    return Finding("failed", f"{said}: something leaks into labels that carry no information", figures, student)


def _complete_blocks(evidence: Evidence, rows: dict[Any, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(codes, gold) of all runs, or of each fold's runs where folds share test texts; none where predictions are missing."""
    groups: dict[Any, list[int]] = {}
    for seed, row in rows.items():
        groups.setdefault(seed[0] if isinstance(seed, tuple) else None, []).append(row)
    blocks = []
    for fold, taken in sorted(groups.items(), key=str):
        codes = evidence.runs.codes[taken]
        there = codes >= 0
        if fold is not None:
            asked = there.any(axis=0)
            codes, there = codes[:, asked], there[:, asked]
            gold = evidence.runs.gold[asked]
        else:
            gold = evidence.runs.gold
        if not there.all() or not codes.size:
            return []
        blocks.append((codes, gold))
    return blocks


def _against_permuted_gold(blocks: list[tuple[np.ndarray, np.ndarray]], evidence: Evidence) -> tuple[float, float, int]:
    """The metric (mean over seeds), the 97.5 % point of the same against permuted gold, and the number of draws.

    Gold is permuted within a fold: a fold's share of a class is no information that labels could leak.
    """
    import numpy as np

    size = sum(codes.size for codes, _ in blocks)
    rng = np.random.default_rng([0, *blocks[0][0].shape])
    draws = int(np.clip(20_000_000 // size, 200, 1000))
    parts = _test_folds(evidence) if len(blocks) == 1 else []

    def score(golds: list[np.ndarray]) -> float:
        return float(np.mean([score_of(codes, gold, evidence.metric) for (codes, _), gold in zip(blocks, golds)]))

    def permuted(gold: np.ndarray) -> np.ndarray:
        if len(parts) < 2:
            return rng.permutation(gold)
        mixed = gold.copy()
        for part in parts:
            mixed[part] = rng.permutation(gold[part])
        return mixed

    golds = [gold for _, gold in blocks]
    chance = [score([permuted(gold) for gold in golds]) for _ in range(draws)]
    return score(golds), float(np.quantile(chance, 0.975)), draws


def _test_folds(evidence: Evidence) -> list[np.ndarray]:
    """The places of each fold's test texts among the items; [] where there is one fold, or folds share test texts."""
    import numpy as np

    folds = evidence.runs.folds
    return [] if folds is None else [np.flatnonzero(folds == fold) for fold in np.unique(folds)]


def score_of(codes: np.ndarray, gold: np.ndarray, metric: str) -> float:
    """Return the metric's mean over runs (S, n): accuracy and macro-F1 by counting, any other by its per-item values.

    Two hundred permutations of gold against a million predictions are too many for per-item values.
    """
    import numpy as np

    if metric not in {"accuracy", "macro_f1"}:
        return float(per_item(codes, gold, metric).mean())
    right = codes == gold
    if metric == "accuracy":
        return float(right.mean())
    classes = int(max(codes.max(), gold.max())) + 1
    there = np.bincount(gold, minlength=classes)
    found = []
    for run, hit in zip(codes, right):
        either = np.bincount(run, minlength=classes) + there
        hits = np.bincount(gold[hit], minlength=classes)
        found.append((2 * hits[there > 0] / either[there > 0]).mean())
    return float(np.mean(found))
