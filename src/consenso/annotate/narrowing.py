"""Two phases: a light classifier narrows the labels to k candidates per text before the LLMs are asked."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from consenso.annotate.settings import CandidateSettings
from consenso.errors import DataError
from consenso.labels import LabelSchema
from consenso.light_model import out_of_fold, text_classifier

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

CHUNK = 20_000
"""Texts classified at once."""


class Narrowed(NamedTuple):
    """What the first phase gives."""

    candidates: pd.DataFrame
    """Table candidates: text_id, offered (JSON list of labels in schema order)."""
    recall: pd.DataFrame
    """Table recall: for several k, how often gold is among the candidates, out of fold; k = 1 is the classifier alone."""
    used: list[str]
    """Ids of the texts whose gold the classifier learned from."""


def narrow_labels(
    texts: pd.DataFrame, train_ids: set[str], schema: LabelSchema, settings: CandidateSettings
) -> Narrowed:
    """Return each text's k most probable labels by a classifier that has learned from some train texts with gold.

    `texts`: text_id (as strings), text, gold. The texts it learned from get their candidates out of fold. Candidates stand
    in schema order, never by probability, so that the prompt does not give the classifier's opinion away.
    Raises `DataError` where fewer than 10 train texts have gold.
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(settings.seed)
    known = np.flatnonzero(texts["gold"].notna().to_numpy() & texts["text_id"].isin(train_ids).to_numpy())
    if len(known) < 10:
        raise DataError(
            f"annotate.candidates: {len(known)} training texts have gold, and the light classifier needs 10 at least; "
            "leave [annotate.candidates] out"
        )
    wanted = settings.train or int(np.clip(len(known) // 10, 100, 1000))
    sample = np.sort(rng.permutation(known)[:wanted])
    words, codes = texts["text"].astype(str).to_numpy(dtype=object), schema.codes(texts["gold"].iloc[sample])
    found = out_of_fold(words[sample], codes, len(schema), min(settings.folds, len(sample)), rng)
    classify = text_classifier(list(words[sample]), codes, len(schema))
    k = min(settings.k, len(schema))
    names = np.array(schema.names, dtype=object)
    offered: list[str] = []
    place = {int(row): i for i, row in enumerate(sample)}
    for start in range(0, len(texts), CHUNK):
        probabilities = classify(words[start : start + CHUNK])
        for row in range(start, min(start + CHUNK, len(texts))):
            if row in place:
                probabilities[row - start] = found[place[row]]
        best = np.sort(np.argsort(-probabilities, axis=1, kind="stable")[:, :k], axis=1)
        offered += [json.dumps(names[chosen].tolist(), ensure_ascii=False) for chosen in best]
    recall = recall_at(found, codes, sorted({*settings.report_k, k} & set(range(1, len(schema) + 1))))
    logger.info("candidates: %d of %d labels per text, from %d texts with gold", k, len(schema), len(sample))
    return Narrowed(
        pd.DataFrame({"text_id": texts["text_id"].to_numpy(), "offered": offered}),
        recall,
        [str(i) for i in texts["text_id"].iloc[sample]],
    )


def recall_at(probabilities: np.ndarray, codes: np.ndarray, ks: list[int]) -> pd.DataFrame:
    """Return k, recall (share of texts whose class is among the k most probable), recall_macro (mean over classes), n."""
    import numpy as np
    import pandas as pd

    rank = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)[np.arange(len(codes)), codes]
    rows = []
    for k in ks:
        hit = rank < k
        per_class = [hit[codes == code].mean() for code in np.unique(codes)]
        rows.append({"k": k, "recall": float(hit.mean()), "recall_macro": float(np.mean(per_class)), "n": len(codes)})
    return pd.DataFrame(rows)
