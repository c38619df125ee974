"""What became of a question: a reply, read and priced → a row of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from consenso.annotate.clients.protocol import CallError, Reply
from consenso.annotate.confidence import label_probabilities
from consenso.annotate.lanes import Job, LLMLane
from consenso.annotate.local.askers import Reading
from consenso.annotate.reading import Answer
from consenso.annotate.votelog import Outcome


def of_reply(
    job: Job, lane: LLMLane, reply: Reply, answer: Answer, *, latency_s: float | None = None, error: str | None = None
) -> Outcome:
    """Return what a reply came to: its label, how sure the model was, what it cost."""
    asker, probabilities = lane.asker, None
    if answer.label is not None and reply.logprobs:
        offered = job.offered or asker.schema.names
        probabilities = label_probabilities(reply.logprobs, answer.label, offered, asker.schema, asker.form)
    return Outcome(
        job.key, answer.status, answer.label,
        None if probabilities is None or answer.label is None else probabilities[answer.label],
        reply.refusal or reply.text, job.tokens_in, job.tokens_out, job.cost, latency_s, requests=job.requests,
        reasked=job.reasked, finish=reply.finish, fingerprint=reply.fingerprint, error=error, cut=job.cut,
        probabilities=as_json(probabilities), **counted(job),
    )  # fmt: skip


def of_failure(job: Job, error: CallError, status: str) -> Outcome:
    """Return what a question came to whose requests all failed."""
    return Outcome(
        job.key, status, error=str(error), requests=job.requests, reasked=job.reasked, tokens_in=job.tokens_in,
        tokens_out=job.tokens_out, cost=job.cost, cut=job.cut, **counted(job),
    )  # fmt: skip


def of_reading(job: Job, reading: Reading, seconds: float) -> Outcome:
    """Return what an annotator of this process said."""
    return Outcome(
        job.key, reading.status, reading.label, reading.confidence, reading.reply, latency_s=seconds, cost=0.0,
        probabilities=as_json(reading.probabilities), error=reading.error, **counted(job),
    )  # fmt: skip


def counted(job: Job) -> dict[str, Any]:
    """Return what the ledger learns of a job that has an intent of its own."""
    return {"known": job.sent - job.unsure, "reserved": job.reserved_in_all - job.lost} if job.counted else {}


def as_json(probabilities: Mapping[str, float] | None) -> str | None:
    """Return label → probability as it is stored."""
    if probabilities is None:
        return None
    return json.dumps({label: round(value, 6) for label, value in probabilities.items()}, ensure_ascii=False)


def cut_by_server(lane: LLMLane, job: Job, reply: Reply) -> str | None:
    """Return how it shows that the server has cut the prompt without a word: it counted far fewer tokens than were sent."""
    if not reply.tokens_in or job.reasked:
        return None
    size = len(job.body)
    lane.bytes_seen += size
    lane.tokens_seen += reply.tokens_in
    if size < 4000:
        return None
    usual = min(lane.bytes_seen / max(1, lane.tokens_seen), 6.0)
    # Ollama does not count what it had cached: there only a prompt as long as the context shows it
    at_limit = lane.asker.endpoint.protocol != "ollama" or reply.tokens_in >= 0.8 * (lane.asker.context or 0)
    if not at_limit or size / reply.tokens_in <= max(12.0, 2.5 * usual):
        return None
    return f"the server counted {reply.tokens_in:,} tokens in a request of {size:,} bytes: it seems to have cut the text; raise its context"


def total(old: Any, new: Any) -> Any:
    """Return the sum of two numbers that may be missing."""
    return new if old is None else old if new is None else old + new
