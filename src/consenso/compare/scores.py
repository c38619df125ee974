"""score_runs: accuracy, macro-F1 and per-class recall of every training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from consenso.compare.metrics import DEFAULT_METRICS, per_item, recalls
from consenso.compare.runs import gold_labels
from consenso.errors import DataError
from consenso.labels import LabelSchema
from consenso.tables import PREDICTIONS, SCORES, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

_RUN = ["student", "arm", "fold", "seed", "attempt", "part"]


def score_runs(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    schema: LabelSchema | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> pd.DataFrame:
    """Return the SCORES table: every metric and `recall:<label>` of every training, for dev and test.

    Predictions for texts without gold are left out. Macro-F1 is over the classes with gold in that part (of the fold),
    with 0 for a class never predicted. Raises `DataError` for a wrong table or an unknown gold label.
    """
    import pandas as pd

    frame = check(predictions, PREDICTIONS)
    truth = gold_labels(gold, schema)
    frame = frame.assign(gold=frame["text_id"].map(str).map(truth).astype(object))
    frame = frame[frame["gold"].notna()]
    if not len(frame):
        raise DataError("scores: no predicted text has gold; the ids of predictions and gold do not meet")
    known = list(schema.names) if schema is not None else sorted(set(frame["gold"]))
    names = [*known, *sorted(set(frame["predicted"].map(str)) - set(known))]
    codes = {name: code for code, name in enumerate(names)}
    frame = frame.assign(gold=frame["gold"].map(codes), predicted=frame["predicted"].map(str).map(codes))
    rows: list[dict[str, Any]] = []
    for key, run in frame.groupby(_RUN, sort=True):
        pairs = _score(run["predicted"].to_numpy()[None], run["gold"].to_numpy(), known, metrics)
        rows += [{**dict(zip(_RUN, key)), "metric": metric, "value": value} for metric, value in pairs]
    scores = check(pd.DataFrame(rows), SCORES)
    logger.info("scored %d runs", frame[_RUN].drop_duplicates().shape[0])
    return scores


def _score(
    predicted: np.ndarray, gold: np.ndarray, known: list[str], metrics: Sequence[str]
) -> Iterator[tuple[str, float]]:
    for name in sorted(metrics):
        yield name, float(per_item(predicted, gold, name).mean())
    for name, recall in zip(known, recalls(predicted, gold)[0]):
        if not math.isnan(recall):
            yield f"recall:{name}", float(recall)
