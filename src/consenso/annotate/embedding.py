"""Zero-shot annotation by embeddings: the label whose wording lies nearest to the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from consenso.annotate.annotators import EmbeddingAnnotator
from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Encode = Callable[[list[str], str], Any]
"""(texts, encoder) → one unit vector per text, shape (n, d): `consenso.encoders.embed`."""

TEMPERATURE = 0.05
"""Confidence = softmax(similarity / 0.05): sentence encoders of MiniLM's kind are trained on softmax(20 × cosine)."""
_TIE = 1e-6
"""Similarities that differ by less are equal: float32 cosines carry about seven digits."""


def vote_by_embedding(
    texts: Sequence[str], annotators: Sequence[EmbeddingAnnotator], schema: LabelSchema, encode: Encode
) -> dict[str, pd.DataFrame]:
    """Return name → frame of label, status, confidence, one row per text.

    A label's similarity is the mean cosine over its wordings, which is the cosine with their mean vector up to its
    length: with the maximum a label would gain by being described more often. The vote is the label of the largest
    similarity; a tie is an abstention. `confidence` is softmax(similarity / 0.05) of that label, uncalibrated.
    The texts are embedded once per encoder. Raises `ConfigError` for a wording of an unknown label.
    """
    wordings = {annotator.name: label_wordings(annotator, schema) for annotator in annotators}
    votes = {}
    for encoder in dict.fromkeys(annotator.encoder for annotator in annotators):
        mine = [annotator for annotator in annotators if annotator.encoder == encoder]
        phrases = list(dict.fromkeys(p for a in mine for per_label in wordings[a.name] for p in per_label))
        similarity = encode(list(texts), encoder) @ encode(phrases, encoder).T
        column = {phrase: position for position, phrase in enumerate(phrases)}
        for annotator in mine:
            columns = [[column[phrase] for phrase in per_label] for per_label in wordings[annotator.name]]
            votes[annotator.name] = nearest_label(similarity, columns, schema, annotator.abstain_below)
    return votes


def label_wordings(annotator: EmbeddingAnnotator, schema: LabelSchema) -> list[list[str]]:
    """Return what is embedded for each label, in schema order: its wordings, else its description, else its name."""
    for name in annotator.descriptions:
        if name not in schema:
            hint = nearest(name, schema) or f" The labels are {list(schema)}."
            raise ConfigError(f"annotator {annotator.name!r} describes {name!r}, which is no label.{hint}")
    wordings = []
    for name in schema:
        given = annotator.descriptions.get(name) or schema.descriptions[name] or name
        listed = [given] if isinstance(given, str) else given
        wordings.append([annotator.template.replace("{}", wording) for wording in listed])
    return wordings


def nearest_label(
    similarity: np.ndarray, columns: Sequence[Sequence[int]], schema: LabelSchema, abstain_below: float | None = None
) -> pd.DataFrame:
    """Return label, status and confidence from similarities (texts × wordings) and each label's columns of them."""
    import numpy as np
    import pandas as pd

    per_label = np.stack([similarity[:, list(mine)].mean(axis=1, dtype="float64") for mine in columns], axis=1)
    ordered = np.sort(per_label, axis=1)
    scaled = np.exp((per_label - ordered[:, -1:]) / TEMPERATURE)
    confidence = 1 / scaled.sum(axis=1)  # the best label's own term is exp(0)
    abstains = ordered[:, -1] - ordered[:, -2] < _TIE
    if abstain_below is not None:
        abstains |= confidence < abstain_below
    labels = np.array(schema.names, dtype=object)[per_label.argmax(axis=1)]
    labels[abstains] = None
    return pd.DataFrame({"label": labels, "status": np.where(abstains, "abstained", "ok"), "confidence": confidence})
