"""Ask every annotator for every text → the votes table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.annotate.embedding import Encode, vote_by_embedding
from consenso.annotate.settings import EmbeddingAnnotator
from consenso.annotate.values import ValueReader, is_blank
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from consenso.tables import TEXTS, VOTES, check

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Ask = Callable[[list[str]], Sequence[Any]]
"""A user's own annotator: texts in, one label (name or id) or None each, in the same order."""


def annotate_texts(
    texts: pd.DataFrame,
    annotators: EmbeddingAnnotator | Mapping[str, Ask] | Sequence[EmbeddingAnnotator | Mapping[str, Ask]],
    labels: LabelSchema | None = None,
    *,
    encode: Encode | None = None,
) -> pd.DataFrame:
    """Ask every annotator for every text (columns text_id, text) and return the votes, repetition 0.

    `annotators`: embedding annotators, and mappings of a name to a callable that takes the list of texts and returns as
    many labels (None: abstained). `labels` defaults to those `load_dataset` left in `texts.attrs`.
    `encode(texts, encoder)` returns unit vectors (default `consenso.encoders.embed`).
    Raises `ConfigError` for repeated names or missing labels, `DataError` for a callable that returns another number.
    """
    import pandas as pd

    schema = labels or _labels_of(texts)
    texts = check(texts, TEXTS)
    listed = [annotators] if isinstance(annotators, (EmbeddingAnnotator, Mapping)) else list(annotators)
    embedding = [one for one in listed if isinstance(one, EmbeddingAnnotator)]
    asked = [pair for one in listed if isinstance(one, Mapping) for pair in one.items()]
    names = [one.name for one in embedding] + [name for name, _ in asked]
    if not names:
        raise ConfigError("no annotator given; name at least one, for example EmbeddingAnnotator(name='codebook')")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two annotators are called {repeated[0]!r}; give each its own name")
    logger.info("asking %d annotators for %d texts", len(names), len(texts))
    words = [str(text) for text in texts["text"]]
    parts = vote_by_embedding(words, embedding, schema, encode or _embed) if embedding else {}
    parts |= {name: _ask(name, ask, words, schema) for name, ask in asked}
    keys = [
        part.assign(text_id=texts["text_id"].to_numpy(), annotator=name, repetition=0) for name, part in parts.items()
    ]
    votes = check(pd.concat(keys, ignore_index=True), VOTES)
    votes.attrs = {"notes": []}
    logger.info("%d votes, %d valid", len(votes), int(votes["label"].notna().sum()))
    return votes


def _ask(name: str, ask: Ask, texts: list[str], schema: LabelSchema) -> pd.DataFrame:
    import pandas as pd

    answers = list(ask(texts))
    if len(answers) != len(texts):
        raise DataError(
            f"annotator {name!r} returned {len(answers)} labels for {len(texts)} texts; give one each, None to abstain"
        )
    values = pd.Series(answers, dtype=object)
    labels, statuses = ValueReader(schema).read_column(values)
    statuses[values.isna()] = "abstained"
    reply = values.map(str, na_action="ignore").mask(is_blank(values), None)
    return pd.DataFrame({"label": labels, "status": statuses, "reply": reply})


def _labels_of(texts: pd.DataFrame) -> LabelSchema:
    if "labels" not in texts.attrs:
        raise ConfigError(
            "the labels are not known; give labels=LabelSchema.from_names([…]), or texts from load_dataset"
        )
    return LabelSchema.from_records(texts.attrs["labels"])


def _embed(texts: list[str], encoder: str) -> Any:
    from consenso.encoders import embed

    return embed(texts, encoder)
