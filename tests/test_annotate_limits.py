"""How fast an endpoint is asked: slots, minute limits, gates, breakers; on a clock of the test's own."""

from __future__ import annotations

import random

import pytest

from consenso.annotate.clients.transport import duration_s, failure, retry_after
from consenso.annotate.limiting import BACKOFF_CAP_S, Breaker, Bucket, Limiter, backoff_s


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def busy(limiter: Limiter, clock: Clock, rounds: int, latency_s: float = 0.1) -> None:
    """Answers come in rounds, every slot taken."""
    for _ in range(rounds):
        taken = 0
        while limiter.ready_in() == 0:
            limiter.take()
            taken += 1
        clock.now += latency_s
        for _ in range(taken):
            limiter.leave()
            limiter.succeeded(latency_s)


def test_slots_double_while_answers_come() -> None:
    clock = Clock()
    limiter = Limiter(256, clock=clock)
    busy(limiter, clock, 6)
    assert limiter.slots == 256


def test_an_overload_shrinks_the_slots_once_per_round_trip() -> None:
    clock = Clock()
    limiter = Limiter(64, clock=clock)
    busy(limiter, clock, 5)
    before = limiter.slots
    for _ in range(10):
        limiter.overloaded()
    assert limiter.slots == pytest.approx(before * 0.67)
    clock.now += 1
    limiter.overloaded()
    assert limiter.slots == pytest.approx(before * 0.67**2)


def test_after_an_overload_slots_grow_by_one_per_round() -> None:
    clock = Clock()
    limiter = Limiter(64, clock=clock)
    busy(limiter, clock, 5)
    limiter.overloaded()
    before = limiter.slots
    busy(limiter, clock, 3)
    assert before + 2 < limiter.slots < before + 4


def test_retry_after_closes_the_gate_for_everyone() -> None:
    clock = Clock()
    limiter = Limiter(8, clock=clock)
    limiter.overloaded(retry_after=7)
    assert limiter.ready_in() == pytest.approx(7)
    clock.now += 7.1
    assert limiter.ready_in() == 0


def test_a_server_that_only_queues_gets_no_more_than_it_works_on() -> None:
    """vLLM and Ollama never send 429: ten are worked on at once, the others wait."""
    clock = Clock()
    limiter = Limiter(256, clock=clock)
    for _ in range(200):
        taken = 0
        while limiter.ready_in() == 0:
            limiter.take()
            taken += 1
        latency = 0.1 * max(1.0, taken / 10)
        clock.now += latency
        for _ in range(taken):
            limiter.leave()
            limiter.succeeded(latency)
    assert limiter.slots < 80


def test_no_more_requests_a_minute_than_allowed() -> None:
    clock = Clock()
    limiter = Limiter(1000, rpm=60, clock=clock)
    limiter.slots = 1000
    sent = 0
    for _ in range(600):
        while limiter.ready_in() == 0:
            limiter.take()
            sent += 1
        clock.now += 0.1
    assert 60 <= sent <= 66  # a minute's worth, and the five seconds that were saved up


def test_tokens_a_minute_count_prompt_and_reply() -> None:
    clock = Clock()
    limiter = Limiter(10, tpm=6000, clock=clock)
    limiter.take(500)
    assert limiter.ready_in(500) == pytest.approx(5)


def test_minute_limits_are_learned_from_headers() -> None:
    clock = Clock()
    limiter = Limiter(100, clock=clock)
    limiter.read_limits(
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m0s",
        }
    )
    assert limiter.ready_in() > 0
    clock.now += 5
    assert limiter.ready_in() == 0


def test_settings_go_before_headers() -> None:
    limiter = Limiter(100, rpm=6000, clock=Clock())
    limiter.read_limits(
        {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s"}
    )
    assert limiter.ready_in() == 0


def test_a_bucket_saves_up_five_seconds() -> None:
    clock = Clock()
    bucket = Bucket(120, clock)
    clock.now += 1000
    assert bucket.wait_s(10) == 0
    bucket.take(10)
    assert bucket.wait_s(2) == pytest.approx(1)


def test_pauses_have_full_jitter_and_a_cap() -> None:
    rng = random.Random(0)
    pauses = [backoff_s(n, rng) for n in range(1, 40)]
    assert all(0 <= pause <= BACKOFF_CAP_S for pause in pauses)
    assert min(pauses[20:]) < 5 < max(pauses[20:])


def test_only_failures_for_long_enough_count_as_down() -> None:
    clock = Clock()
    breaker = Breaker(60, clock)
    assert not any(breaker.failed() for _ in range(50))
    clock.now += 61
    assert breaker.failed()
    breaker.succeeded()
    assert not breaker.failed()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3), ({"Retry-After": "0.5"}, 0.5), ({"retry-after-ms": "250"}, 0.25), ({}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40), ({"Retry-After": "soon"}, None),
    ],
)  # fmt: skip
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=60.0) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"), [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("7", 7), ("soon", None)]
)
def test_durations_in_headers(said: str, seconds: float | None) -> None:
    assert duration_s(said) == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind", "maybe_paid"),
    [
        (429, '{"error": {"message": "Rate limit reached"}}', "rate", False),
        (
            429,
            '{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}',
            "quota",
            False,
        ),
        (401, '{"error": {"message": "Incorrect API key provided: sk-123"}}', "auth", False),
        (404, '{"error": {"message": "The model does not exist", "code": "model_not_found"}}', "missing", False),
        (400, '{"error": {"message": "maximum context length is 8192 tokens"}}', "too_long", False),
        (400, '{"error": {"code": "content_filter", "message": "filtered"}}', "filtered", False),
        (400, '{"error": {"message": "Unsupported parameter"}}', "request", False),
        (500, "oops", "server", False),
        (502, "<html><body>Bad gateway</body></html>", "server", True),
        (504, "", "server", True),
    ],
)
def test_http_errors_are_told_apart_by_what_to_do(status: int, body: str, kind: str, maybe_paid: bool) -> None:
    error = failure(status, body.encode(), {}, key="sk-123")
    assert (error.kind, error.maybe_paid) == (kind, maybe_paid)
    assert "sk-123" not in str(error)
    assert "<" not in str(error)
