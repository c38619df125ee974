"""What happens to a request of the mock LLM server: refusals, rate limits, faults, delays."""

from __future__ import annotations

import math
import random
import time
from dataclasses import fields
from email.utils import formatdate
from typing import Any

from mock_answers import Wanted
from mock_http import Reply, error
from mock_options import FAULTS, Options

_KNOWN = {"ok", *FAULTS}


class Bucket:
    """So much per minute, of which `burst_s` seconds' worth may be taken at once."""

    def __init__(self, name: str, limit: int, burst_s: float) -> None:
        self.name = name
        self.limit = limit
        self.rate = limit / 60
        self.capacity = self.level = max(1.0, self.rate * burst_s)
        self.filled = time.monotonic()

    def fill(self) -> None:
        """Add what has come since the last time."""
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate)
        self.filled = now

    def wait(self, amount: float) -> float:
        """Return the seconds until `amount` can be taken."""
        return max(0.0, (min(amount, self.capacity) - self.level) / self.rate)

    def take(self, amount: float) -> None:
        """Take an amount that `wait` found to be there."""
        self.level -= min(amount, self.capacity)

    def headers(self) -> bytes:
        """Return the three x-ratelimit headers, as they are now."""
        self.fill()
        reset = duration((self.capacity - self.level) / self.rate)
        values = (("limit", self.limit), ("remaining", int(self.level)), ("reset", reset))
        return "".join(f"x-ratelimit-{word}-{self.name}: {value}\r\n" for word, value in values).encode()


def duration(seconds: float) -> str:
    """Write seconds as OpenAI's headers do: 120ms, 1.5s, 6m0s."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds / 1000, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


def retry_after(seconds: float, style: str) -> bytes:
    """Return the header that asks a client to wait."""
    if style == "none":
        return b""
    if style == "ms":
        return b"retry-after-ms: %d\r\n" % math.ceil(seconds * 1000)
    if style == "date":
        return f"retry-after: {formatdate(math.ceil(time.time() + seconds), usegmt=True)}\r\n".encode()
    return f"retry-after: {math.ceil(seconds) if seconds >= 1 else round(seconds, 3):g}\r\n".encode()


class Rules:
    """The options, with the state they need: random streams, faults to come, buckets, counts."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.renew({field.name for field in fields(options)})

    def change(self, changes: dict[str, Any]) -> None:
        """Change options; only the state of the changed ones begins anew."""
        self.options.change(changes)
        self.renew(set(changes))

    def renew(self, names: set[str]) -> None:
        """Begin the state of these options anew."""
        options = self.options
        self.rates = options.rates()
        if "seed" in names:
            self.rng = random.Random(options.seed)
        if "faults" in names:
            self.faults = iter(options.faults)
        if "quota" in names:
            self.asked = 0
        if names & {"rpm", "tpm", "burst_s"}:
            limits = {"requests": options.rpm, "tokens": options.tpm}
            self.buckets = [Bucket(name, limit, options.burst_s) for name, limit in limits.items() if limit]

    def draw_fault(self) -> str:
        """Return what happens to this request: the next of `faults`, else one by chance, mostly ok."""
        fault = next(self.faults, None)
        if fault is None and self.rates:
            point = self.rng.random()
            fault = next((name for end, name in self.rates if point < end), None)
        return fault or "ok"

    def delay(self) -> float:
        """Return the seconds this request takes."""
        jitter = self.options.jitter
        return self.options.latency + (jitter * self.rng.random() if jitter else 0.0)

    def refuse_key(self, headers: dict[str, str]) -> Reply | None:
        """Return the 401 of a wrong key."""
        given = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("api-key", "")
        if self.options.auth_key in (None, given):
            return None
        message = f"Incorrect API key provided: {given[:3]}***. Please check your API key."
        return error(401, message, "invalid_request_error", "invalid_api_key")

    def refuse_body(self, body: dict[str, Any], wanted: Wanted, *, ollama: bool) -> Reply | None:
        """Return the 4xx of a request the server will never answer."""
        options = self.options
        if options.models is not None and wanted.model not in options.models:
            return no_model(wanted.model, ollama=ollama)
        if body.get("stream", ollama):
            return error(400, "The mock server does not stream: send stream=false.", "invalid_request_error")
        for name in options.unsupported:
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return error(400, message, "invalid_request_error", "unsupported_parameter", name)
        if options.context and wanted.prompt_tokens > options.context and not (ollama or options.silent_truncation):
            message = (
                f"This model's maximum context length is {options.context} tokens. However, your messages resulted in "
                f"{wanted.prompt_tokens} tokens. Please reduce the length of the messages."
            )
            return error(400, message, "invalid_request_error", "context_length_exceeded", "messages")
        return None

    def refuse_now(self, wanted: Wanted) -> Reply | None:
        """Return the 429 of a quota or a limit; else count the request."""
        options = self.options
        if options.quota is not None and self.asked >= options.quota:
            message = "You exceeded your current quota, please check your plan and billing details."
            return error(429, message, "insufficient_quota", "insufficient_quota")
        amounts = {"requests": 1, "tokens": wanted.prompt_tokens + (wanted.max_tokens or 0)}
        for bucket in self.buckets:
            bucket.fill()
            if wait := bucket.wait(amounts[bucket.name]):
                return self.too_many(wait, bucket)
        for bucket in self.buckets:
            bucket.take(amounts[bucket.name])
        self.asked += 1
        return None

    def too_many(self, wait: float, bucket: Bucket | None = None) -> Reply:
        """Return OpenAI's 429."""
        name, limit = (bucket.name, bucket.limit) if bucket else ("requests", 0)
        message = (
            f"Rate limit reached in organization org-mock on {name} per min: Limit {limit}. "
            f"Please try again in {duration(wait)}."
        )
        header = retry_after(wait, self.options.retry_after_style)
        return error(429, message, name, "rate_limit_exceeded", headers=header)

    def fault_reply(self, fault: str) -> Reply | None:
        """Return the error of a fault that is one."""
        if fault == "429":
            return self.too_many(self.options.retry_after)
        if fault == "500":
            return error(500, "The server had an error while processing your request. Sorry!", "server_error")
        if fault == "503":
            return error(503, "The engine is currently overloaded, please try again later.", "server_error")
        if fault not in _KNOWN:
            raise ValueError(f"unknown fault {fault!r}; choose from {sorted(_KNOWN)}")
        return None

    def limit_headers(self) -> bytes:
        """Return the x-ratelimit headers of every reply."""
        return b"".join(bucket.headers() for bucket in self.buckets) if self.buckets else b""


def no_model(name: str, *, ollama: bool = False) -> Reply:
    """Return the 404 of an unknown model."""
    if ollama:
        return error(404, f"model '{name}' not found", "not_found")
    message = f"The model `{name}` does not exist or you do not have access to it."
    return error(404, message, "invalid_request_error", "model_not_found")
