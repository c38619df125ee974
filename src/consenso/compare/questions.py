"""The questions of a comparison: each contrast of each student on each set of test texts, its arms lined up."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import FLOORS, Contrast, choose_contrasts, left_out
from consenso.compare.evidence import failed_trainings
from consenso.compare.folds import train_rows_of_folds
from consenso.compare.runs import Pair, Runs, Seed, pair_arms, read_runs
from consenso.errors import DataError
from consenso.labels import LabelSchema
from consenso.tables import TRAININGS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

Contrasts = Sequence[Contrast | tuple[str, str] | str] | None
"""The contrasts asked for; None: those whose arms exist."""


@dataclass(frozen=True)
class Question:
    """One contrast of one student on one set of test texts, its arms lined up."""

    student: str
    """The student."""
    attempt: str
    """as_run, or rescue: the second analysis with collapsed seeds replaced."""
    contrast: Contrast
    """Which arms."""
    scope: str
    """all, or the stratum of test texts."""
    is_first: bool
    """Whether the contrast is the primary one."""
    pair: Pair
    """Both arms on the seeds and items they share."""
    train_sizes: Mapping[int, float]
    """Fold → number of training texts, where known."""
    replaced: frozenset[Seed] | None = None
    """The seeds that a rescue replaced in arm or control; None: as run."""
    replaced_in_one: str = ""
    """The arm whose rescue is not that of the other: the pairing is broken."""


def runs_of(
    predictions: pd.DataFrame | Runs, gold: pd.Series | pd.DataFrame | None, schema: LabelSchema | None
) -> Runs:
    """Return predictions joined with gold; what `read_runs` returned is taken as it is. Raises `DataError`."""
    if isinstance(predictions, Runs):
        return predictions
    if gold is None:
        raise DataError("gold is missing; give a Series of labels by text_id, or a frame with text_id and gold")
    return read_runs(predictions, gold, schema)


def ask(
    runs: Runs,
    *,
    contrasts: Contrasts = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    trainings: pd.DataFrame | None = None,
    scopes: Sequence[tuple[str, np.ndarray | None]] = (("all", None),),
    train_sizes: Mapping[int, float] | None = None,
) -> Iterator[Question]:
    """Yield every question, students in order, as run before rescue, the primary contrast first.

    A rescue is asked about only where it replaced a seed of the contrast. Failed trainings are left out of both arms.
    """
    if trainings is not None:
        trainings = check(trainings, TRAININGS)
    failed = failed_trainings(trainings)
    everywhere = {name for there in runs.rows.values() for name in there}
    for student, attempt in sorted(runs.rows):
        arms = runs.arms(student, attempt)
        chosen, first = choose_contrasts(arms, contrasts, primary, everywhere)
        _say_what_is_left_out(student, arms, contrasts, primary)
        swaps = runs.replaced.get(student, {}) if attempt == "rescue" else {}
        bad = {(arm, seed) for arm, seed in failed.get(student, ()) if seed not in swaps.get(arm, ())}
        for contrast in chosen:
            sides = [swaps.get(name, frozenset()) for name in contrast.arms if name not in FLOORS]
            replaced = frozenset[Seed]().union(*sides)
            if attempt == "rescue" and not replaced:
                continue
            uneven = [name for name in contrast.arms if name not in FLOORS and swaps.get(name, frozenset()) != replaced]
            sizes = train_sizes or train_rows_of_folds(trainings, student, contrast.arms)
            for scope, mask in scopes:
                pair = pair_arms(runs, arms, contrast, failed=bad, items=mask)
                yield Question(
                    student, attempt, contrast, scope, contrast == first, pair, sizes,
                    replaced if attempt == "rescue" else None,
                    uneven[0] if uneven and attempt == "rescue" else "",
                )  # fmt: skip


def scopes_of(runs: Runs, strata: pd.Series | None) -> list[tuple[str, np.ndarray | None]]:
    """Return (name, mask of the test texts): all of them, then each value of `strata` (a Series by text_id)."""
    if strata is None:
        return [("all", None)]
    strata = strata.dropna()
    values = strata.set_axis(strata.index.map(str)).reindex(runs.items)
    named = [(f"{strata.name or 'stratum'} {value}", (values == value).to_numpy()) for value in sorted(strata.unique())]
    return [("all", None), *((name, mask) for name, mask in named if mask.any())]


def _say_what_is_left_out(student: str, arms: Collection[str], contrasts: Any, primary: Any) -> None:
    for contrast in left_out(arms, contrasts, primary):
        lacking = ", ".join(name for name in contrast.arms if name not in arms)
        logger.warning("%s: %s is left out, because there are no predictions of %s", student, contrast.name, lacking)
