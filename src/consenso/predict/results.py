"""The rows of a result: the label of each text, how probable it is, and columns of the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.predict.chosen import Chosen
from consenso.predict.classifying import Batches
from consenso.predict.formats import Layout
from consenso.predict.settings import PredictSettings
from consenso.predict.sources import Rows

if TYPE_CHECKING:
    import numpy as np

OWN = ("text_id", "predicted", "confidence", "status")


def layout_of(
    labels: Sequence[str], chosen: Chosen | None, types: Mapping[str, Any], settings: PredictSettings
) -> Layout:
    """Return the columns of a result: its own ones, p_<label>, then the kept ones as `kept_names` calls them."""
    import pyarrow as pa

    by_row = chosen is None or chosen.text_id is None
    own = {
        "text_id": pa.int64() if by_row else types.get(str(chosen and chosen.text_id)),
        "predicted": pa.string(),
        "confidence": pa.float64(),
        "status": pa.string(),
    }
    if settings.probabilities:
        own |= {f"p_{label}": pa.float64() for label in labels}
    kept = {} if chosen is None else kept_names(chosen, own)
    return Layout({**own, **{new: types.get(name) for name, new in kept.items()}}, kept)


def kept_names(chosen: Chosen, own: Mapping[str, Any]) -> dict[str, str]:
    """Return kept column → its name in the result: source_<name> where the result has such a column itself."""
    names: dict[str, str] = {}
    for name in chosen.kept:
        if name == chosen.text_id == "text_id":
            continue
        new = name
        while new in own or new in names.values() or (new != name and new in chosen.kept):
            new = f"source_{new}"
        names[name] = new
    return names


def result_rows(
    rows: Rows,
    prepared: Batches,
    probabilities: np.ndarray,
    labels: Sequence[str],
    layout: Layout,
    *,
    start: int,
    chosen: Chosen | None = None,
) -> Rows:
    """Return the result of one chunk by column; `start`: the number of its first row in the source.

    Probabilities have six significant digits. A text without a label has None in place of label and probabilities.
    """
    best = probabilities.argmax(axis=1).tolist()
    rounded = [[float(f"{value:.6g}") for value in row] for row in probabilities.tolist()]
    by_row = chosen is None or chosen.text_id is None
    result: Rows = {
        "text_id": list(range(start, start + len(prepared.rows))) if by_row else rows[str(chosen and chosen.text_id)],
        "predicted": [None if row < 0 else labels[best[row]] for row in prepared.rows],
        "confidence": [None if row < 0 else rounded[row][best[row]] for row in prepared.rows],
        "status": ["empty" if row < 0 else "ok" for row in prepared.rows],
    }
    own = layout.types.keys() - set(layout.kept.values())
    for position, label in enumerate(labels):
        if f"p_{label}" in own:
            result[f"p_{label}"] = [None if row < 0 else rounded[row][position] for row in prepared.rows]
    return result | {new: rows[name] for name, new in layout.kept.items()}


def count_rows(result: Rows, prepared: Batches) -> dict[str, Any]:
    """Return what a chunk came to: rows without a text, texts that were cut, rows per label."""
    return {
        "empty": result["status"].count("empty"),
        "cut": prepared.cut,
        "labels": dict(Counter(name for name in result["predicted"] if name is not None)),
    }
