"""`consenso annotate --plan`: what would be asked, of whom, for how much; nothing is sent and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from consenso.annotate.askers import Asker, text_digest
from consenso.annotate.endpoints import batch_factor
from consenso.annotate.lanes import BYTES_PER_TOKEN, MOST_BYTES_PER_TOKEN
from consenso.annotate.logreading import LogReader
from consenso.annotate.settings import AnnotateSettings
from consenso.annotate.sources import TextSource
from consenso.errors import ConfigError

USUAL_BYTES_PER_TOKEN = 4.3
"""Of English text with common tokenizers: for estimates, where nothing was answered yet."""
USUAL_LATENCY_S = 1.0
"""Seconds for a short reply, where nothing was answered yet."""


@dataclass
class Planned:
    """One annotator's or variant's share of a plan."""

    annotator: str
    endpoint: str
    model: str
    questions: int = 0
    """Texts × repetitions."""
    kept: int = 0
    """Answers in the log already."""
    to_ask: int = 0
    """Requests to be sent."""
    waiting: int = 0
    """Questions in batch files."""
    too_long: int = 0
    """Questions whose text does not fit and is flagged instead of asked."""
    duplicates: int = 0
    """Questions whose text is equal to an earlier one's: `share_duplicates` would spare them."""
    tokens_in: float = 0.0
    """Estimated tokens of the prompts to be sent."""
    tokens_out: float = 0.0
    """Estimated tokens of the replies."""
    cost: float | None = None
    """Estimated USD; None: no price is known."""
    spent: float = 0.0
    """USD that this vote log's answers, and requests without an answer, have cost or may have; the same for all."""
    most: float | None = None
    """USD at most, with every reply as long as it may be."""
    seconds: float = 0.0
    """Estimated seconds, by the requests that may be under way and the minute limits."""
    basis: str = ""
    """What the estimates rest on."""
    note: str = ""
    """What is worth knowing before it starts."""

    def row(self) -> dict[str, Any]:
        """Return the plan as a mapping."""
        return dict(self.__dict__)


def plan_questions(
    askers: Sequence[Asker],
    source: TextSource,
    log: LogReader | None,
    settings: AnnotateSettings,
    environment: Mapping[str, str],
) -> list[Planned]:
    """Return one row per annotator and variant: requests, tokens, USD, seconds, duplicates; reads the log if there is one."""
    ledger = None if log is None else log.ledger()
    rows = [_plan(_as_pinned(asker, log), source, log, settings, environment) for asker in askers]
    for row in rows:
        row.spent = 0.0 if ledger is None else ledger.cost + ledger.lost_cost
    return rows


def _as_pinned(asker: Asker, log: LogReader | None) -> Asker:
    """The asker as it would be asked, as far as the log knows: its model's digest, whether replies can be bound."""
    if log is None:
        return asker
    if asker.endpoint.protocol == "ollama" and (kept := log.pinned(f"digest {asker.endpoint.name} {asker.model}")):
        asker = replace(asker, model_digest=kept["digest"])
    if asker.structured == "ask" and (found := log.pinned(f"schema {asker.endpoint.name} {asker.model}")):
        asker = replace(asker, structured="json_schema" if found == "honoured" else "off")
    return asker


def _plan(
    asker: Asker,
    source: TextSource,
    log: LogReader | None,
    settings: AnnotateSettings,
    environment: Mapping[str, str],
) -> Planned:
    planned = Planned(asker.name, asker.endpoint.name, asker.model, questions=source.count * asker.repetitions)
    row = next(
        (r for r, (_, record) in (log.askers() if log else {}).items() if record["digest_of"] == asker.digest), None
    )
    means = _means(log, row)
    again = {*settings.retry, *([] if settings.settle else ["settled"]), "lost", "flagged"}
    fixed = sum(len(m["content"].encode()) for m in asker.messages())
    sizes, seen = 0, set[bytes]()
    limit = None if asker.context is None else max(64, asker.context - min(asker.max_tokens, asker.context // 2))
    for batch in source.batches():
        known: dict[tuple[str, bytes], dict[int, str]] = {}
        digests = [
            text_digest("" if settings.share_duplicates else i, t, None if batch.offered is None else batch.offered[n])
            for n, (i, t) in enumerate(zip(batch.ids, batch.texts))
        ]
        filed = [f"={d.hex()}" for d in digests] if settings.share_duplicates else batch.ids
        if log is not None and row is not None:
            for text_id, digest, repetition, status in log.statuses(
                row, sorted(filed), ranged=not settings.share_duplicates
            ):
                known.setdefault((text_id, digest), {})[repetition] = status
        for place, text in enumerate(batch.texts):
            repeated = (content := text_digest("", text, None)) in seen
            seen.add(content)
            size = len(text.encode("utf-8", "replace"))
            strict = asker.endpoint.protocol == "ollama"
            fits = limit is None or asker.long_texts == "truncate" or (
                (size + fixed) / BYTES_PER_TOKEN if strict else size / MOST_BYTES_PER_TOKEN
            ) <= limit  # fmt: skip
            of_text = known.get((filed[place], digests[place]), {})
            for repetition in range(asker.repetitions):
                stands = of_text.get(repetition)
                if stands == "batch":
                    planned.waiting += 1
                elif stands is not None and stands not in again:
                    planned.kept += 1
                elif repeated and settings.share_duplicates:
                    planned.duplicates += 1
                elif not fits:
                    planned.too_long += 1
                else:
                    planned.duplicates += repeated
                    planned.to_ask += 1
                    sizes += size
    _estimate(planned, asker, means, sizes, fixed)
    try:
        asker.endpoint.key(environment)
    except ConfigError:
        planned.note += f"; {' or '.join(asker.endpoint.key_env)} is not set yet"
    return planned


def _means(log: LogReader | None, row: int | None) -> dict[str, float]:
    if log is None or row is None:
        return {}
    found = log.read(
        "SELECT count(*), avg(tokens_out), avg(latency_s), avg(tokens_in) FROM "
        "(SELECT * FROM answers WHERE asker=? AND tokens_in>0 LIMIT 20000)",
        (row,),
    )[0]
    return {} if not found[0] else {"n": found[0], "out": found[1], "latency": found[2] or 0.0, "in": found[3]}


def _estimate(planned: Planned, asker: Asker, means: dict[str, float], sizes: int, fixed: int) -> None:
    n = planned.to_ask
    planned.tokens_in = n * means["in"] if means else (n * (fixed + 20) + sizes) / USUAL_BYTES_PER_TOKEN
    thinks = asker.max_tokens > 256
    usual = (
        asker.max_tokens / 2
        if thinks
        else 4 + max(len(name.encode()) for name in asker.schema.names) / 3 + (8 if asker.form == "json" else 0)
    )
    planned.tokens_out = n * (means["out"] if means else usual)
    factor = batch_factor() if asker.batch else 1.0
    cost = asker.cost(int(planned.tokens_in), int(planned.tokens_out))
    planned.cost = None if cost is None else cost * factor
    most = asker.cost(int(planned.tokens_in), n * asker.max_tokens)
    planned.most = None if most is None else most * factor
    latency = means.get("latency") or USUAL_LATENCY_S * (10 if thinks else 1)
    seconds = [n * latency / asker.endpoint.max_in_flight]
    if asker.endpoint.rpm:
        seconds.append(n * 60 / asker.endpoint.rpm)
    if asker.endpoint.tpm:
        seconds.append((planned.tokens_in + planned.tokens_out) * 60 / asker.endpoint.tpm)
    planned.seconds = 0.0 if asker.batch else max(seconds)
    planned.basis = (
        f"the means of {int(means['n']):,} answers"
        if means
        else f"{USUAL_BYTES_PER_TOKEN} bytes per token, {latency:g} s per reply"
    )
    notes = [
        f"price: {asker.price_source}"
        if asker.price is not None
        else "no price is known: give price = { input = …, output = … }"
    ]
    if asker.repetitions > 1 and asker.parameters.get("temperature") == 0:
        notes.append("temperature is 0: repetitions will mostly repeat themselves")
    if asker.structured == "ask":
        notes.append("one request finds out whether replies can be bound to the labels")
    if asker.batch:
        notes.append("by batch files, within a day")
    planned.note = "; ".join(notes)
