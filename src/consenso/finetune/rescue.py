"""The pre-declared rescue: a collapsed seed is replaced, in all arms, by the next seed that the list does not hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from consenso.errors import DataError
from consenso.finetune.arm_names import FLOOR_ARMS
from consenso.finetune.study import Study, make_study
from consenso.finetune.training import Outcome

if TYPE_CHECKING:
    import pandas as pd

Rescue = Callable[[Sequence[int]], "pd.DataFrame"]
"""Seeds → the table `arms` for them, made as it was for the seeds that collapsed."""
Stand = tuple[int, int]
"""Fold and seed."""


def is_exempt(arm: str) -> bool:
    """Return whether a collapse of this arm counts for nothing: floors, `permuted` and `gold@n` may learn nothing."""
    return arm in {*FLOOR_ARMS, "permuted"} or arm.startswith("gold@")


def replaced_seeds(
    study: Study, outcomes: Mapping[str, Outcome], counted: Collection[str] | None = None
) -> dict[Stand, int]:
    """Return (fold, seed) → the seed that replaces it, for each in which a run of an arm that counts has collapsed.

    `counted`: the arms of reported contrasts; None: all. Arms that may learn nothing (`is_exempt`) never count.

    The seeds that collapsed in any fold, in ascending order, get the seeds after the largest of the list, each once and
    the same in every fold. A failed run is not rescued: the next call tries it again.
    """
    collapsed = {
        (run.fold, run.seed)
        for runs in study.served().values()
        for run in runs
        if not is_exempt(run.arm)
        and (counted is None or run.arm in counted)
        and run.training.key in outcomes
        and outcomes[run.training.key].status == "collapsed"
    }
    last = max(run.seed for run in study.runs)
    stand_in = {seed: last + i for i, seed in enumerate(sorted({seed for _, seed in collapsed}), start=1)}
    return {(fold, seed): stand_in[seed] for fold, seed in sorted(collapsed)}


def rescue_study(
    study: Study, replaced: Mapping[Stand, int], rescue: Rescue, texts: pd.DataFrame, folds: pd.DataFrame
) -> Study:
    """Return the study of the replacing seeds: every arm of the folds and seeds that they stand in for, no other.

    Raises `DataError` where `rescue` lacks an arm.
    """
    arms = rescue(sorted(set(replaced.values())))
    found = make_study(
        arms, texts, folds, student=study.student, recipe=study.recipe, schema=study.schema, budget=study.budget
    )
    wanted = {(fold, seed) for (fold, _), seed in replaced.items()}
    runs = [run for run in found.runs if (run.fold, run.seed) in wanted]
    needed = {
        (run.arm, run.fold, replaced[run.fold, run.seed]) for run in study.runs if (run.fold, run.seed) in replaced
    }
    if missing := sorted(needed - {(run.arm, run.fold, run.seed) for run in runs}):
        arm, fold, seed = missing[0]
        raise DataError(
            f"rescue: no rows for arm {arm!r} (fold {fold}, seed {seed}); make all arms again, for the seeds asked for"
        )
    return replace(found, runs=[run for run in runs if (run.arm, run.fold, run.seed) in needed])
