"""The options of the mock LLM server, and the names of what can go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

FAULTS = (
    *("429", "500", "503", "drop", "drop_mid", "truncated_json", "slow", "hang"),  # of the transport
    *("invalid", "refusal", "length", "filter", "empty"),  # of the answer
)


@dataclass
class Options:
    """How the server behaves; every field is a keyword of `MockServer`, a key of /_configure and a flag."""

    latency: float = 0.0
    """Seconds between a chat request and its reply."""
    jitter: float = 0.0
    """Up to so many seconds more, uniformly."""
    seed: int = 0
    """Of the random streams of faults, jitter and batches."""
    answer: str | Callable[[dict[str, Any], int], str] = "hash"
    """hash, sample (draws from the same probabilities; a seed repeats the draw), fixed:TEXT, or a callable."""
    labels: tuple[str, ...] = ("negative", "neutral", "positive")
    """What to choose from when the request holds no schema with an enum."""
    honour_schema: bool = True
    """Reply with the JSON object that fits the request's schema."""
    faults: Iterable[str] = ()
    """What happens to the next requests, one each (names of FAULTS, or ok); after them the rates count."""
    fault_everywhere: bool = False
    """Files, batches and model lists have faults too."""
    rate_429: float = 0.0
    """Share of requests answered by 429."""
    rate_500: float = 0.0
    """Share answered by 500."""
    rate_503: float = 0.0
    """Share answered by 503."""
    rate_drop: float = 0.0
    """Share whose connection is closed without an answer."""
    rate_drop_mid: float = 0.0
    """Share whose connection is closed in the middle of the body."""
    rate_truncated_json: float = 0.0
    """Share whose JSON ends early (the content-length agrees)."""
    rate_slow: float = 0.0
    """Share whose body trickles over `slow_s`."""
    rate_hang: float = 0.0
    """Share never answered."""
    rate_invalid: float = 0.0
    """Share whose reply names no label."""
    rate_refusal: float = 0.0
    """Share refused, as `refusal` says."""
    rate_length: float = 0.0
    """Share cut, with finish_reason length."""
    rate_filter: float = 0.0
    """Share without text, with finish_reason content_filter."""
    rate_empty: float = 0.0
    """Share with an empty text."""
    retry_after: float = 1.0
    """Seconds a 429 of `rate_429` or `max_concurrent` asks to wait."""
    retry_after_style: str = "seconds"
    """seconds, ms (retry-after-ms), date (HTTP-date) or none."""
    slow_s: float = 1.0
    """Seconds a slow body takes."""
    refusal: str = "field"
    """field (message.refusal is set) or text."""
    auth_key: str | None = None
    """Any other bearer (or api-key) gets 401."""
    models: tuple[str, ...] | None = None
    """Any other model gets 404; None: every model is there, and `mock` is listed."""
    rpm: int | None = None
    """Requests per minute, enforced."""
    tpm: int | None = None
    """Tokens per minute (prompt and max_tokens), enforced."""
    burst_s: float = 60.0
    """Seconds' worth of requests or tokens that may come at once."""
    max_concurrent: int | None = None
    """Requests worked on at once."""
    overload: str = "queue"
    """What those above `max_concurrent` get: queue or 429."""
    context: int | None = None
    """Longer prompts (tokens) get 400 context_length_exceeded."""
    silent_truncation: bool = False
    """Longer prompts are cut without a word; prompt_tokens is capped. Ollama's /api/chat always does."""
    unsupported: tuple[str, ...] = ()
    """Parameters that get 400 unsupported_parameter."""
    ignore: tuple[str, ...] = ()
    """Features silently dropped: response_format, logprobs, seed, n."""
    quota: int | None = None
    """After so many requests 429 insufficient_quota."""
    cached_tokens: int = 0
    """Prompt tokens reported as cached."""
    digest_salt: str = ""
    """Another salt gives the models other digests and fingerprints."""
    quantization: str = "Q4_K_M"
    """As Ollama reports it."""
    batch_delay: float = 0.0
    """Seconds until a batch has ended."""
    batch_failed_share: float = 0.0
    """Share of a batch's lines that go to its error file."""
    batch_end: str = "completed"
    """completed, expired (half of the lines answered) or failed (none)."""
    record: bool = True
    """Keep every request."""
    count_keys: bool = False
    """Count keys even when requests are not kept."""

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set some options; an unknown name is an error."""
        known = {field.name for field in fields(self)}
        if unknown := sorted(set(changes) - known):
            raise TypeError(f"unknown option(s) {unknown}; choose from {sorted(known)}")
        for name, value in changes.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)

    def rates(self) -> list[tuple[float, str]]:
        """Return the faults that can happen by chance, each with the upper end of its share of [0, 1)."""
        shares = [(getattr(self, f"rate_{fault}"), fault) for fault in FAULTS]
        ends = itertools.accumulate(share for share, _ in shares)
        return [(end, fault) for end, (share, fault) in zip(ends, shares) if share]
