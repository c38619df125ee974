"""The negative control: labels without information must teach nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.evidence import Evidence, Finding
from consenso.compare.metrics import per_item
from consenso.compare.runs import without_copies
from consenso.compare.verdict import signed

if TYPE_CHECKING:
    import numpy as np


ALPHA = 0.025
"""One-sided level of both comparisons."""
DRAWS = (200, 1000)
"""Fewest and most permutations of test gold; large tables get fewer."""
FEWEST_TRAININGS = 3
"""With fewer permutations an accidental direction cannot be told from a leak: the guard warns."""


@dataclass(frozen=True)
class _Block:
    """Trainings that predict the same texts."""

    seeds: tuple[int, ...]
    codes: np.ndarray
    """(S, n) predicted codes."""
    gold: np.ndarray
    """(n,) codes of gold."""


def negative_control(evidence: Evidence) -> list[Finding]:
    """Require `permuted` (labels without information) to score no better than chance, over test texts and permutations."""
    return [_negative_control(evidence, student) for student in evidence.students()]


def _negative_control(evidence: Evidence, student: str) -> Finding:
    if student in evidence.gold_dev:
        said = "the dev labels of this student are gold by declaration, and a state that gold chose has learned from it"
        return Finding("not_checked", said, scope=student)
    rows = evidence.runs.arms(student).get("permuted")
    blocks = _complete_blocks(evidence, rows) if rows else []
    if not blocks:
        return Finding("not_checked", "needs complete predictions of the arm permuted", scope=student)
    value, limit, draws = _against_permuted_gold(blocks, evidence)
    excess = _excess_of_trainings(_pieces(blocks, evidence), evidence.metric)
    t, p = _one_sided(excess)
    figures = {"value": value, "limit": limit, "draws": draws, "excess": float(excess.mean()), "trainings": len(excess)}
    figures |= {} if math.isnan(p) else {"p": p}
    said = f"permuted scores {100 * value:.1f} %, chance reaches {100 * limit:.1f} %"
    if value <= limit + 1e-12:
        return Finding("passed", said, figures, student)
    if math.isnan(p):
        why = f"{len(excess)} permutation(s) cannot tell a leak from an accident; train permuted with at least 3 seeds"
        return Finding("warned", f"{said}: {why}", figures, student)
    over = (
        f"over {len(excess)} permutations the excess is {signed(excess.mean())} pp (t = {t:.1f}, one-sided p = {p:.3f})"
    )
    if p >= ALPHA:
        return Finding("passed", f"{said}, but {over}: an accident of single permutations", figures, student)
    return Finding("failed", f"{said}; {over}: something leaks into labels that carry no information", figures, student)


def _complete_blocks(evidence: Evidence, rows: dict[Any, int]) -> list[_Block]:
    """All runs, or each fold's runs where folds share test texts; none where predictions are missing."""
    groups: dict[Any, list[Any]] = {}
    for seed in rows:
        groups.setdefault(seed[0] if isinstance(seed, tuple) else None, []).append(seed)
    blocks = []
    for fold, seeds in sorted(groups.items(), key=str):
        codes, gold = evidence.runs.codes[[rows[seed] for seed in seeds]], evidence.runs.gold
        there = codes >= 0
        if fold is not None:
            asked = there.any(axis=0)
            codes, there, gold = codes[:, asked], there[:, asked], gold[asked]
        if not there.all() or not codes.size:
            return []
        blocks.append(_Block(tuple(seed if fold is None else seed[1] for seed in seeds), codes, gold))
    return blocks


def _pieces(blocks: list[_Block], evidence: Evidence) -> list[_Block]:
    """The blocks of single trainings: a run over folds with test texts of their own is one training in each."""
    parts = _test_folds(evidence) if len(blocks) == 1 else []
    if len(parts) < 2:
        return blocks
    return [_Block(blocks[0].seeds, blocks[0].codes[:, part], blocks[0].gold[part]) for part in parts]


def _against_permuted_gold(blocks: list[_Block], evidence: Evidence) -> tuple[float, float, int]:
    """The metric (mean over seeds), the 97.5 % point of the same against permuted gold, and the number of draws.

    Gold is permuted within a fold: a fold's share of a class is no information that labels could leak.
    """
    import numpy as np

    size = sum(block.codes.size for block in blocks)
    rng = np.random.default_rng([0, *blocks[0].codes.shape])
    draws = int(np.clip(20_000_000 // size, *DRAWS))
    parts = _test_folds(evidence) if len(blocks) == 1 else []

    def score(golds: list[np.ndarray]) -> float:
        return float(np.mean([score_of(block.codes, gold, evidence.metric) for block, gold in zip(blocks, golds)]))

    def permuted(gold: np.ndarray) -> np.ndarray:
        if len(parts) < 2:
            return rng.permutation(gold)
        mixed = gold.copy()
        for part in parts:
            mixed[part] = rng.permutation(gold[part])
        return mixed

    golds = [block.gold for block in blocks]
    chance = [score([permuted(gold) for gold in golds]) for _ in range(draws)]
    return score(golds), float(np.quantile(chance, 1 - ALPHA)), draws


def _test_folds(evidence: Evidence) -> list[np.ndarray]:
    """The places of each fold's test texts among the items; [] where there is one fold, or folds share test texts."""
    import numpy as np

    folds = evidence.runs.folds
    return [] if folds is None else [np.flatnonzero(folds == fold) for fold in np.unique(folds)]


def _excess_of_trainings(pieces: list[_Block], metric: str) -> np.ndarray:
    """Metric minus its mean under permuted gold: of each seed (mean over folds), or of each fold and seed if seeds are few.

    Copies of another run count once: they share its permutation.
    """
    import numpy as np

    by_seed: dict[int, list[float]] = {}
    for piece in pieces:
        codes = piece.codes
        kept = [0] if (codes == codes[0]).all() else without_copies([codes])
        for place, excess in zip(kept, _excess(codes[kept], piece.gold, metric)):
            by_seed.setdefault(piece.seeds[place], []).append(float(excess))
    if len(by_seed) >= FEWEST_TRAININGS:
        return np.array([np.mean(found) for found in by_seed.values()])
    return np.concatenate([np.array(found) for found in by_seed.values()])


def _excess(codes: np.ndarray, gold: np.ndarray, metric: str) -> np.ndarray:
    """Score of each run minus its expectation under permuted gold; exact where the metric is linear in the hits."""
    import numpy as np

    if metric not in {"accuracy", "macro_f1"}:
        rng = np.random.default_rng([1, *codes.shape])
        chance = np.mean([per_item(codes, rng.permutation(gold), metric).mean(axis=1) for _ in range(200)], axis=0)
        return np.asarray(per_item(codes, gold, metric).mean(axis=1) - chance)
    classes = int(max(codes.max(), gold.max())) + 1
    there = np.bincount(gold, minlength=classes)
    guessed = np.array([np.bincount(run, minlength=classes) for run in codes])
    expected = guessed * there / len(gold)  # hits of each class if gold is dealt out at random
    if metric == "accuracy":
        chance = expected.sum(axis=1) / len(gold)
    else:
        chance = (2 * expected[:, there > 0] / (guessed + there)[:, there > 0]).mean(axis=1)
    scores = np.array([score_of(codes[[run]], gold, metric) for run in range(len(codes))])
    return np.asarray(scores - chance)


def _one_sided(excess: np.ndarray) -> tuple[float, float]:
    """t and one-sided p of a mean excess above 0; nan with too few trainings."""
    import numpy as np
    from scipy.stats import t as student_t

    if (n := len(excess)) < FEWEST_TRAININGS:
        return math.nan, math.nan
    mean, spread = float(excess.mean()), float(excess.std(ddof=1))
    t = mean / (spread / math.sqrt(n)) if spread > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return t, float(student_t.sf(t, n - 1)) if np.isfinite(t) else float(t < 0)


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
