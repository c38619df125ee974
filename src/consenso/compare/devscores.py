"""Do the dev predictions give the dev macro-F1 that each training recorded? Swapped label names do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.compare.arm_rows import ArmRows
from consenso.compare.evidence import Evidence
from consenso.compare.metrics import linearised_macro_f1
from consenso.compare.runs import read_labels

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


TOLERANCE = 1e-6


def unlike_dev_scores(evidence: Evidence, student: str) -> dict[str, list[int]]:
    """Return arm → seeds whose dev predictions do not give the recorded dev macro-F1 on the arm's own dev labels.

    Macro-F1 is over the classes that the dev labels hold, as `finetune` takes it; a soft target counts as its largest
    share. Only runs with all three (recorded score, dev predictions, dev rows in the arms table) are looked at.
    """
    rows = evidence.arms_of(student)
    if rows is None or evidence.dev is None or evidence.trainings is None:
        return {}
    recorded, given = _recorded(evidence.trainings, student), _given(evidence, rows, student)
    if not recorded or given is None:
        return {}
    unlike: dict[str, set[int]] = {}
    for arm in rows.held:
        dev = rows.of_arm(arm, train=False)
        for piece in set(dev.piece.tolist()):
            key = (arm, *rows.pieces[piece])
            if key not in recorded or key not in given:
                continue
            run = dev.where(dev.piece == piece)
            guess = given[key][run.text]
            if (guess == -1).all():
                continue
            if (guess == -1).any() or abs(_macro_f1(run.target, guess) - recorded[key]) > TOLERANCE:
                unlike.setdefault(arm, set()).add(key[2])
    return {arm: sorted(seeds) for arm, seeds in unlike.items()}


def _recorded(trainings: pd.DataFrame, student: str) -> dict[tuple[str, int, int], float]:
    """(arm, fold, seed) → the dev macro-F1 that the as-run training recorded."""
    as_run = (trainings["student"] == student) & (trainings["attempt"] == "as_run")
    scored = trainings[as_run & (trainings["status"] != "failed") & trainings["dev_macro_f1"].notna()]
    return {
        (str(arm), int(fold), int(seed)): float(score)
        for arm, fold, seed, score in zip(scored["arm"], scored["fold"], scored["seed"], scored["dev_macro_f1"])
    }


def _given(evidence: Evidence, rows: ArmRows, student: str) -> dict[tuple[str, int, int], np.ndarray] | None:
    """(arm, fold, seed) → the predicted label of every text of `rows`, −1 where there is none.

    A label that no arm was trained on has a code of its own beyond the targets.
    """
    import numpy as np
    import pandas as pd

    assert evidence.dev is not None
    dev = evidence.dev
    dev = dev[(dev["student"] == student) & (dev["attempt"] == "as_run")]
    if not len(dev):
        return None
    codes, labels = pd.factorize(dev["predicted"])
    read = read_labels(labels, evidence.schema)
    names = [*rows.targets, *sorted({read[label] for label in labels} - set(rows.targets))]
    label = np.array([names.index(read[value]) for value in labels], dtype=np.int64)[codes]
    known, ids = pd.factorize(dev["text_id"])
    text = pd.Index(rows.ids).get_indexer([str(text_id) for text_id in ids])[known]
    found = {}
    for (arm, fold, seed), places in dev.groupby(["arm", "fold", "seed"]).indices.items():
        guess = np.full(len(rows.ids), -1, dtype=np.int64)
        there = places[text[places] >= 0]
        guess[text[there]] = label[there]
        found[str(arm), int(fold), int(seed)] = guess
    return found


def _macro_f1(target: np.ndarray, predicted: np.ndarray) -> float:
    import numpy as np

    _, codes = np.unique(np.concatenate([target, predicted]), return_inverse=True)
    gold, guess = codes[: len(target)], codes[len(target) :]
    return float(linearised_macro_f1(guess[None], gold).mean())
