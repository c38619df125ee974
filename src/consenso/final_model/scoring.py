"""What is known of how well a final model does: its arm in the comparison, and its own answers on texts it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.compare.calibration import measure_calibration
from consenso.compare.standing import arm_standing, texts_standing
from consenso.final_model.choosing import STUDENT, Chosen, compared_settings
from consenso.finetune import Recipe
from consenso.finetune.pieces import read_piece
from consenso.finetune.training import Outcome
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from consenso.steps.finetune import recipe_of
from consenso.steps.running import Run
from consenso.store import RunFolder
from consenso.temperature import scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""How sure a classifier may be asked to be before its answer is used."""
ALIKE = 1e-4
"""How far a probability may lie from that of the same training in the comparison."""
_PREDICTED = ["student", "arm", "fold", "seed", "attempt", "part", "text_id", "predicted"]


def is_compared(folder: RunFolder) -> bool:
    """Return whether the run holds a comparison that belongs to its present settings: test gold has been looked at then."""
    stages = folder.record().get("stages", {})
    return "compare" in stages and not stages["compare"].get("stale") and folder.has("comparison")


def in_comparison(this: Run, chosen: Chosen, outcome: Outcome | None) -> dict[str, Any] | None:
    """Return how an encoder trained on these labels scored in the comparison; None where none was, or it is out of date.

    Keys: metrics (name → value, low, high, S, n, k; the interval is over S seeds and n test
    test texts, or over k folds), runs, collapsed,
    same_recipe, same_training (the seed of the run that is this very training, or None: what came out, `outcome`, must be
    what the run folder holds; several processes, another device or processor may give another model).
    """
    folder, settings = this.folder, this.experiment.compare
    if not is_compared(folder):
        return None
    trainings = folder.read("trainings")
    mine = trainings[
        (trainings["student"] == STUDENT) & (trainings["arm"] == chosen.arm) & (trainings["attempt"] == "as_run")
    ]
    if mine.empty:
        return None
    gold, predictions = folder.read("texts").set_index("text_id")["gold"], folder.read("predictions", _PREDICTED)
    how: dict[str, Any] = {"student": STUDENT, "arm": chosen.arm, "schema": this.schema}
    metrics = {}
    for metric in _metrics(this):
        if (found := arm_standing(predictions, gold, metric=metric, **how)) is not None:
            metrics[metric] = found
    same = mine.loc[mine["key"] == chosen.training.key, "seed"]
    return {
        "metrics": metrics, "primary_metric": settings.metric, "runs": len(mine),
        "collapsed": int(mine["status"].ne("ok").sum()), "same_recipe": _recipe_of(folder) == chosen.study.recipe,
        "same_training": int(same.iloc[0]) if len(same) and _came_out_alike(folder, chosen, outcome) else None,
    }  # fmt: skip


def _came_out_alike(folder: RunFolder, chosen: Chosen, outcome: Outcome | None) -> bool:
    import numpy as np

    stored = read_piece(folder.piece_path("trainings", chosen.training.key))
    if stored is None or outcome is None or stored.probabilities is None or outcome.probabilities is None:
        return False
    return bool(np.allclose(stored.probabilities, outcome.probabilities, rtol=0, atol=ALIKE))


def _metrics(this: Run) -> list[str]:
    settings = this.experiment.compare
    return list(dict.fromkeys([settings.metric, "macro_f1", "accuracy"]))


def _recipe_of(folder: RunFolder) -> Recipe | None:
    settings = compared_settings(folder)
    return None if settings is None else recipe_of(folder, STUDENT, settings.for_student(STUDENT))


def on_test_texts(this: Run, chosen: Chosen, asked: np.ndarray, temperature: float) -> dict[str, Any] | None:
    """Return the model's own scores on the test texts of its fold; None unless the comparison has looked at them before.

    `asked`: its probabilities of the asked texts before temperature scaling. Keys: texts, metrics (name → value, low,
    high over the texts), classes (label → n, predicted, precision, recall, f1; None where it is not defined), calibration
    (before, and after where there is a temperature: ece, ece_low, ece_high), sure (rows of `how_sure`).
    """
    import numpy as np

    training = chosen.training
    test = np.flatnonzero(chosen.study.in_test[int(chosen.rows["fold"].iloc[0])][training.asked])
    if not is_compared(this.folder) or not len(test):
        return None
    gold = this.folder.read("texts").set_index("text_id")["gold"].rename(index=str)
    codes = this.schema.codes(gold.reindex(chosen.study.ids[training.asked[test]].map(str)))
    probabilities, codes = asked[test[codes >= 0]], codes[codes >= 0]
    if not len(codes):
        return None
    predicted, scaled = probabilities.argmax(axis=1), scale(probabilities, temperature)
    metrics = {metric: texts_standing(predicted, codes, metric) for metric in _metrics(this)}
    metrics["accuracy"] |= dict(zip(("low", "high"), wilson(int((predicted == codes).sum()), len(codes))))
    calibration = {"before": _ece(this.schema, probabilities, codes)}
    if temperature != 1:
        calibration["after"] = _ece(this.schema, scaled, codes)
    classes = by_class(predicted, codes, this.schema.names)
    sure = how_sure(scaled, codes)
    return {"texts": len(codes), "metrics": metrics, "classes": classes, "calibration": calibration, "sure": sure}


def by_class(predicted: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return label → n (texts of this gold label), predicted (texts given it), precision, recall, f1; None for 0/0."""
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    labels = range(len(names))
    scores = precision_recall_fscore_support(codes, predicted, labels=labels, zero_division=np.nan)[:3]
    given = np.bincount(predicted, minlength=len(names))
    return {
        name: {
            "n": int((codes == code).sum()),
            "predicted": int(given[code]),
            **{score: float(values[code]) for score, values in zip(("precision", "recall", "f1"), scores)},
        }
        for code, name in enumerate(names)
    }


def _ece(schema: LabelSchema, probabilities: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """ECE with its interval, as the comparison measures it."""
    import pandas as pd

    ids, names = [str(row) for row in range(len(codes))], pd.Index(list(schema.names))
    frame = pd.DataFrame({"arm": "own", "seed": 0, "text_id": ids, "probabilities": list(probabilities)})
    row = measure_calibration(frame, pd.Series(names.take(codes), index=ids), schema=schema).calibration.iloc[0]
    return {name: float(row[name]) for name in ("ece", "ece_low", "ece_high")}


def how_sure(probabilities: np.ndarray, codes: np.ndarray) -> list[dict[str, Any]]:
    """Return for each of LEVELS how many texts (n) the model is at least that sure of, their share, and how many are right."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    return [
        {"at_least": level, "n": int(chosen.sum()), "share": float(chosen.mean()), "right": int(right[chosen].sum())}
        for level in LEVELS
        if (chosen := top >= level).any()
    ]
