"""Do the dev predictions give the dev macro-F1 that each training recorded? Swapped label names do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.compare.evidence import Evidence
from consenso.compare.metrics import linearised_macro_f1
from consenso.compare.runs import read_labels
from consenso.tables import with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


TOLERANCE = 1e-6
_RUN = ["arm", "fold", "seed"]


def unlike_dev_scores(evidence: Evidence, student: str) -> dict[str, list[int]]:
    """Return arm → seeds whose dev predictions do not give the recorded dev macro-F1 on the arm's own dev labels.

    Macro-F1 is over the classes that the dev labels hold, as `finetune` takes it. Only runs with all three (recorded
    score, dev predictions, dev rows in the arms table) are looked at.
    """
    rows = _dev_rows(evidence, student)
    unlike: dict[str, set[int]] = {}
    if rows is None:
        return {}
    for (arm, _, seed), run in rows.groupby(_RUN):
        if run["predicted"].isna().all():
            continue
        if run["predicted"].isna().any() or not _is_as_recorded(run):
            unlike.setdefault(str(arm), set()).add(int(seed))
    return {arm: sorted(seeds) for arm, seeds in unlike.items()}


def _dev_rows(evidence: Evidence, student: str) -> pd.DataFrame | None:
    """One row per dev text of a training: target, predicted (null: none), recorded dev_macro_f1."""
    arms, dev, trainings = evidence.arms_of(student), evidence.dev, evidence.trainings
    if arms is None or dev is None or trainings is None:
        return None
    as_run = (trainings["student"] == student) & (trainings["attempt"] == "as_run")
    scored = trainings[as_run & (trainings["status"] != "failed") & trainings["dev_macro_f1"].notna()]
    given = dev[(dev["student"] == student) & (dev["attempt"] == "as_run")]
    targets = with_text_ids(arms.loc[arms["part"] == "dev", [*_RUN, "text_id", "target"]])
    given = with_text_ids(given[[*_RUN, "text_id", "predicted"]])
    if not len(scored) or not len(given):
        return None
    given = given.assign(predicted=given["predicted"].map(read_labels(given["predicted"].unique(), evidence.schema)))
    found = targets.merge(scored[[*_RUN, "dev_macro_f1"]], on=_RUN).merge(given, on=[*_RUN, "text_id"], how="left")
    return found


def _is_as_recorded(run: pd.DataFrame) -> bool:
    target, predicted = (run[name].to_numpy(dtype=object) for name in ("target", "predicted"))
    return abs(_macro_f1(target, predicted) - float(run["dev_macro_f1"].iloc[0])) <= TOLERANCE


def _macro_f1(target: np.ndarray, predicted: np.ndarray) -> float:
    import numpy as np

    _, codes = np.unique(np.concatenate([target, predicted]).astype(str), return_inverse=True)
    gold, guess = codes[: len(target)], codes[len(target) :]
    return float(linearised_macro_f1(guess[None], gold).mean())
