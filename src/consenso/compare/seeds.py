"""compare_seeds: what each single training says, as description; one seed is no test of the labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import Contrast
from consenso.compare.estimates import Values, values_of
from consenso.compare.metrics import per_item
from consenso.compare.paired import exact_mean
from consenso.compare.questions import Contrasts, Question, ask, runs_of
from consenso.compare.rows import as_table
from consenso.compare.runs import Runs
from consenso.labels import LabelSchema
from consenso.tables import SEED_DIFFERENCES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def compare_seeds(
    predictions: pd.DataFrame | Runs,
    gold: pd.Series | pd.DataFrame | None = None,
    *,
    contrasts: Contrasts = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    schema: LabelSchema | None = None,
    trainings: pd.DataFrame | None = None,
    dataset: str = "data",
) -> pd.DataFrame:
    """Return SEED_DIFFERENCES: per contrast, fold and seed, arm minus control in macro-F1 and accuracy, and McNemar's p.

    `only_arm` and `only_control` count the test texts that one side alone gets right; `p_mcnemar` is exact (binomial).
    It calls a difference in one of six comparisons where there is none: it knows nothing of other seeds.
    """
    runs = runs_of(predictions, gold, schema)
    rows: list[dict[str, Any]] = []
    kept: Values = {}
    for question in ask(runs, contrasts=contrasts, primary=primary, trainings=trainings):
        if question.pair.seeds and len(question.pair.gold):
            rows += [{"dataset": dataset, **row} for row in _rows(question, kept)]
    return as_table(rows, SEED_DIFFERENCES)


def _rows(question: Question, kept: Values) -> Iterator[dict[str, Any]]:
    pair = question.pair
    right_arm, right_control = pair.arm == pair.gold, pair.control == pair.gold
    for fold, part, (f1, accuracy) in _parts(question, kept):
        only_arm = (right_arm & ~right_control)[:, part].sum(axis=1)
        only_control = (right_control & ~right_arm)[:, part].sum(axis=1)
        p = mcnemar(only_arm, only_control)
        for place, seed in enumerate(pair.seeds):
            in_fold, number = seed if isinstance(seed, tuple) else (fold, seed)
            yield {
                "student": question.student, "contrast": question.contrast.name, "fold": in_fold, "seed": number,
                "attempt": question.attempt, "macro_f1": float(f1[place]), "accuracy": float(accuracy[place]),
                "only_arm": int(only_arm[place]), "only_control": int(only_control[place]), "p_mcnemar": float(p[place]),
            }  # fmt: skip


def _parts(question: Question, kept: Values) -> Iterator[tuple[int, Any, list[Any]]]:
    """(fold, its places, the differences (S,) in macro-F1 and accuracy); one part where folds are not apart."""
    pair, names = question.pair, ("macro_f1", "accuracy")
    parts = pair.parts()
    for fold, part in parts.items():
        sides = [
            [per_item(codes[:, part], pair.gold[part], name) for codes in (pair.arm, pair.control)] for name in names
        ]
        yield fold, part, [exact_mean(B - A, axis=1) for B, A in sides]
    if not parts:
        both = [values_of(pair, name, kept) for name in names]
        yield 0, slice(None), [exact_mean(B - A, axis=1) for B, A in both]


def mcnemar(only_arm: Any, only_control: Any) -> np.ndarray:
    """Return McNemar's exact two-sided p: both sides of the binomial with ½, at most 1 (McNemar 1947)."""
    import numpy as np
    from scipy.special import bdtr

    b, c = np.asarray(only_arm), np.asarray(only_control)
    p: np.ndarray = np.minimum(1.0, 2 * bdtr(np.minimum(b, c).astype(float), (b + c).astype(np.int64), 0.5))
    return p
