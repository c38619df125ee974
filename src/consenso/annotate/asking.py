"""Ask every annotator for every text → the votes table."""

from __future__ import annotations

import bisect
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate.annotators import (
    AnyAnnotator,
    CausalAnnotator,
    EmbeddingAnnotator,
    LLMAnnotator,
    NliAnnotator,
    PythonAnnotator,
)
from consenso.annotate.askers import make_askers
from consenso.annotate.collecting import Progress, Voters, ask_all, votes_from_log
from consenso.annotate.embedding import Encode, vote_by_embedding
from consenso.annotate.endpoints import read_environment
from consenso.annotate.local.askers import causal_asker, nli_asker, python_asker
from consenso.annotate.prompting import Example
from consenso.annotate.settings import AnnotateSettings
from consenso.annotate.sources import FrameSource, TextSource
from consenso.annotate.values import RETURN_NAMES, ValueReader, is_blank
from consenso.annotate.votelog import VoteLog
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from consenso.tables import TEXTS, VOTES, check

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Ask = Callable[[list[str]], Sequence[Any]]
"""A user's own annotator: texts in, one label (name or id) or None each, in the same order."""
Listed = AnyAnnotator | Mapping[str, Ask]


def annotate_texts(
    texts: pd.DataFrame,
    annotators: Listed | Sequence[Listed],
    labels: LabelSchema | Sequence[str] | None = None,
    *,
    encode: Encode | None = None,
    log: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Ask every annotator for every text (columns text_id, text) and return the votes.

    `annotators`: annotators of any kind (`LLMAnnotator`, `EmbeddingAnnotator`, …), and mappings of a name to a callable
    that takes the list of texts and returns as many labels (None: abstained). `labels` (a schema, or names) defaults to those
    `load_dataset` left in `texts.attrs`. `log`: the vote log, a file in which every answer is kept: the same call goes on where it was cut
    off and pays for nothing twice (default: votelog.sqlite here where LLMs are asked, else none). `encode(texts, encoder)`
    returns unit vectors (default `consenso.encoders.embed`). `progress` is called with what a display shows. `settings`:
    further keys of [annotate], such as endpoints, budget, settle.
    Votes of variants are left out; `votes.attrs["variant_votes"]` holds them.
    Raises `ConfigError` for repeated names or missing labels, `DataError` for a callable that returns another number,
    `IncompleteError`, `BudgetError`, `EndpointError`, `StoppedError` where answers are missing.
    """
    import pandas as pd

    if not isinstance(texts, pd.DataFrame):
        raise DataError(f"texts: a frame with the columns text_id and text is needed; found {type(texts).__name__}")
    schema = _labels_of(texts) if labels is None else labels
    if not isinstance(schema, LabelSchema):
        schema = LabelSchema.from_names([str(name) for name in schema])
    texts = check(texts, TEXTS)
    if texts.empty:
        raise DataError("texts: the frame has no rows; give at least one text")
    if blank := int((texts["text"].astype(str).str.strip() == "").sum()):
        raise DataError(
            f"texts: {blank} of {len(texts)} texts are empty; leave them out, nothing can be said about them"
        )
    listed = [annotators] if isinstance(annotators, (*_KINDS, Mapping)) else list(annotators)
    named = [one for one in listed if isinstance(one, _KINDS)]
    asked = [pair for one in listed if isinstance(one, Mapping) for pair in one.items()]
    names = [one.name for one in named] + [name for name, _ in asked]
    if not names:
        raise ConfigError("no annotator given; name at least one, for example EmbeddingAnnotator(name='codebook')")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two annotators are called {repeated[0]!r}; give each its own name")
    chosen = AnnotateSettings.read({**settings, "annotators": named}, "annotate_texts")
    logger.info("asking %d annotators for %d texts", len(names), len(texts))
    parts = [embedding_votes(texts, chosen, schema, encode)]
    parts += [_ask(name, ask, texts, schema) for name, ask in asked]
    voters = make_voters(chosen, schema, read_environment())
    variants = None
    if voters.any:
        with _log_at(log, voters) as place, VoteLog(place) as votelog:
            source = FrameSource(texts)
            found = ask_all(
                voters.askers,
                voters.local,
                source,
                votelog,
                settings=chosen,
                environment=voters.environment,
                progress=progress,
            )
            if not chosen.accept_incomplete:
                found.raise_incomplete()
            frame = pd.concat(votes_from_log(votelog, found.lanes, source), ignore_index=True)
            own = pd.Series(texts["text_id"].to_numpy(), index=texts["text_id"].map(str))
            frame["text_id"] = own.reindex(frame["text_id"]).to_numpy()
            apart = frame["annotator"].isin([asker.name for asker in voters.askers if asker.variant_of])
            parts, variants = [*parts, frame[~apart]], frame[apart]
    votes = check(pd.concat([part for part in parts if len(part)], ignore_index=True), VOTES)
    votes.attrs = {"notes": []} if variants is None or variants.empty else {"notes": [], "variant_votes": variants}
    logger.info("%d votes, %d valid", len(votes), int(votes["label"].notna().sum()))
    return votes


_KINDS = (EmbeddingAnnotator, LLMAnnotator, NliAnnotator, CausalAnnotator, PythonAnnotator)


class _log_at:  # noqa: N801 - used like a function
    """The log's path: the one given; else a file here where money may be spent; else one that is thrown away."""

    def __init__(self, log: str | Path | None, voters: Voters) -> None:
        self._given = Path(log) if log is not None else Path("votelog.sqlite") if voters.askers else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._given is not None:
            return self._given
        self._temporary = tempfile.TemporaryDirectory(prefix="consenso-")
        return Path(self._temporary.name) / "votelog.sqlite"

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def make_voters(
    settings: AnnotateSettings,
    schema: LabelSchema,
    environment: Mapping[str, str],
    *,
    base: Path | None = None,
    drawn: Mapping[str, Sequence[Example]] | None = None,
) -> Voters:
    """Return the annotators of [annotate] that are asked through the vote log: all but the embedded ones."""
    local = []
    for one in settings.annotators:
        if isinstance(one, NliAnnotator):
            local.append(nli_asker(one, schema))
        elif isinstance(one, CausalAnnotator):
            local.append(causal_asker(one, schema, base, (drawn or {}).get(one.name, ())))
        elif isinstance(one, PythonAnnotator):
            local.append(python_asker(one, schema, base))
    seen: dict[str, str] = {}
    for asker in local:
        if (other := seen.setdefault(asker.digest, asker.name)) != asker.name:
            raise ConfigError(
                f"annotators {other!r} and {asker.name!r} are the same: one answer would count twice; leave one out, or give a "
                "function another version"
            )
    return Voters(make_askers(settings, schema, environment, base=base, drawn=drawn), local, environment)


def embedding_votes(
    texts: pd.DataFrame, settings: AnnotateSettings, schema: LabelSchema, encode: Encode | None = None
) -> pd.DataFrame:
    """Return the votes of the embedded annotators (columns text_id, annotator, repetition, label, status, confidence)."""
    import pandas as pd

    listed = [one for one in settings.annotators if isinstance(one, EmbeddingAnnotator)]
    if not listed:
        return pd.DataFrame()
    found = vote_by_embedding([str(text) for text in texts["text"]], listed, schema, encode or _embed)
    keys = [
        part.assign(text_id=texts["text_id"].to_numpy(), annotator=name, repetition=0) for name, part in found.items()
    ]
    return pd.concat(keys, ignore_index=True)


def _ask(name: str, ask: Ask, texts: pd.DataFrame, schema: LabelSchema) -> pd.DataFrame:
    import pandas as pd

    words = [str(text) for text in texts["text"]]
    answers = list(ask(words))
    if len(answers) != len(words):
        raise DataError(
            f"annotator {name!r} returned {len(answers)} labels for {len(words)} texts; give one each, None to abstain"
        )
    values = pd.Series(answers, dtype=object)
    reader = ValueReader(schema)
    reader.refuse_undeclared(values, f"annotator {name!r}: its answers", RETURN_NAMES)
    labels, statuses = reader.read_column(values)
    statuses[values.isna()] = "abstained"
    reply = values.map(str, na_action="ignore").mask(is_blank(values), None)
    return pd.DataFrame(
        {
            "text_id": texts["text_id"].to_numpy(),
            "annotator": name,
            "repetition": 0,
            "label": labels,
            "status": statuses,
            "reply": reply,
        }
    )


def merge_votes(streamed: Iterator[pd.DataFrame], source: TextSource, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the streamed votes batch by batch, with the votes of `frame` for the same texts, sorted by key."""
    import pandas as pd

    if frame.empty:
        yield from streamed
        return
    key = ["text_id", "annotator", "repetition"]
    frame = frame.assign(text_id=frame["text_id"].map(str).astype(object)).sort_values(key)
    ids, place = frame["text_id"].tolist(), 0
    for batch, votes in zip(source.batches(), streamed):
        end = bisect.bisect_right(ids, batch.ids[-1], lo=place)
        both = [part for part in (votes, frame.iloc[place:end]) if len(part)]
        place = end
        if both:
            yield pd.concat(both, ignore_index=True).sort_values(key)
    if place < len(frame):
        yield frame.iloc[place:]


def _labels_of(texts: pd.DataFrame) -> LabelSchema:
    if "labels" not in texts.attrs:
        raise ConfigError(
            "the labels are not known; give labels=LabelSchema.from_names([…]), or texts from load_dataset"
        )
    given = (texts.attrs.get("record") or {}).get("ids_given", True)
    return LabelSchema.from_records(texts.attrs["labels"]).with_ids_given(given)


def _embed(texts: list[str], encoder: str) -> Any:
    from consenso.encoders import embed

    return embed(texts, encoder)
