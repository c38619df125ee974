"""How fast an endpoint is asked: slots that find their own number, minute limits, a gate, a circuit breaker.

One Limiter per endpoint, shared by its annotators. The number of slots grows while answers come (doubling at first, then
by one per round) and shrinks by a third when the server says "too fast" or breaks down. Servers that queue instead of
refusing (vLLM, Ollama) show nothing but latency: so now and then fewer slots are tried for a while, and kept where as
many answers come as before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from consenso.annotate.clients.protocol import CallError
from consenso.annotate.clients.transport import duration_s

T = TypeVar("T")
TRIES = 5
"""How often a single call is repeated where the endpoint is busy."""
SHRINK = 0.67
"""Slots left after a sign of overload."""
SHRINK_TOLD = 0.85
"""The same where the server says how long to wait: then waiting is the cure."""
FEWER, MORE = 0.75, 1.25
"""Slots tried, relative to now."""
AS_MANY, GAIN = 0.95, 1.05
"""Answers a second, relative to before, that make fewer slots, or more, worth keeping."""
HOLD = 20
"""Windows between two trials that changed nothing."""
BACKOFF_S, BACKOFF_CAP_S = 0.5, 30.0
"""Pause after the first failure, and at most; each further failure doubles it."""


class Bucket:
    """So many units a minute: they refill steadily, five seconds' worth at most are saved up."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.set_rate(per_minute)
        self._level, self._at = self._capacity, clock()

    def set_rate(self, per_minute: float) -> None:
        """Change the units a minute."""
        self._rate = per_minute / 60
        self._capacity = max(1.0, self._rate * 5)

    def wait_s(self, units: float) -> float:
        """Return the seconds until so many units may be taken (a larger demand than fits waits for a full bucket)."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        lacking = min(units, self._capacity) - self._level
        return max(0.0, lacking / self._rate)

    def take(self, units: float) -> None:
        """Take units; the level may fall below zero."""
        self._level -= units

    def drained(self) -> None:
        """The server says that nothing is left."""
        self._level = min(self._level, 0.0)


class Limiter:
    """How many requests may be under way, and when the next may start."""

    def __init__(
        self,
        max_in_flight: int,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.max_in_flight = max_in_flight
        self.slots = float(min(max_in_flight, 8))
        """Requests that may be under way now."""
        self.in_flight = 0
        """Requests that are."""
        self._requests = Bucket(rpm, clock) if rpm else None
        self._tokens = Bucket(tpm, clock) if tpm else None
        self._own_limits = (rpm is not None, tpm is not None)
        self._gate = 0.0
        self._growing = True
        self._shrunk_at = 0.0
        self._window = _Window(clock())
        self._ceiling = float(max_in_flight)
        self._trial: tuple[float, float] | None = None
        self._upward = False
        self._hold = 2

    def ready_in(self, tokens: float = 0.0) -> float:
        """Return the seconds until a request may start: 0 now, infinity when a slot must become free first."""
        if self.in_flight >= int(self.slots):
            return float("inf")
        wait = self._gate - self._clock() if self._gate else 0.0
        if self._requests is not None:
            wait = max(wait, self._requests.wait_s(1))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait_s(tokens))
        return max(0.0, wait)

    def take(self, tokens: float = 0.0) -> None:
        """Take a slot that `ready_in` said is there."""
        self.in_flight += 1
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def leave(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1

    def succeeded(self, latency_s: float) -> None:
        """Learn from an answer."""
        if self.slots < self._ceiling:
            self.slots = min(self._ceiling, self.slots + (1.0 if self._growing else 1.0 / self.slots))
        if self._window.add(latency_s, self._clock(), self.slots):
            self._judge()

    def overloaded(self, retry_after: float | None = None) -> None:
        """Learn from a 429, a 503 or a time-out: fewer slots, and none before the server's time."""
        now = self._clock()
        if retry_after:
            self._gate = max(self._gate, now + retry_after)
        if now - self._shrunk_at > max(self._window.typical_s, 0.05):  # once per round trip, not once per request of it
            self.slots = max(1.0, self.slots * (SHRINK_TOLD if retry_after else SHRINK))
            self._growing, self._shrunk_at = False, now
            self._trial, self._hold = None, HOLD

    def close_gate(self, seconds: float) -> None:
        """Let nothing start for so long."""
        self._gate = max(self._gate, self._clock() + seconds)

    @property
    def gated_for(self) -> float:
        """Seconds until the gate opens."""
        return max(0.0, self._gate - self._clock())

    @property
    def latency_s(self) -> float:
        """How long answers take, of late."""
        return self._window.typical_s

    def _judge(self) -> None:
        """Try fewer slots for a window, now and then more, and keep what does not cost answers."""
        rate = self._window.close(self._clock())
        if self._trial is None:
            if self.slots < self._ceiling:
                return  # still on its way up
            self._hold -= 1
            if self._hold <= 0:
                self._trial = (self._ceiling, rate)
                wider = self._upward and self._ceiling < self.max_in_flight
                self._move(self._ceiling * (MORE if wider else FEWER))
            return
        before, usual = self._trial
        wider = self._ceiling > before
        if rate >= usual * (GAIN if wider else AS_MANY):
            self._trial = (self._ceiling, max(rate, usual))  # kept; and one step further
            self._move(self._ceiling * (MORE if wider else FEWER))
            if self._ceiling != self._trial[0]:
                return
        else:
            self._move(before)
        self._trial, self._upward, self._hold = None, not self._upward, HOLD

    def _move(self, ceiling: float) -> None:
        self._ceiling = min(float(self.max_in_flight), max(1.0, ceiling))
        self.slots = self._ceiling

    def read_limits(self, limits: Mapping[str, str]) -> None:
        """Learn minute limits from x-ratelimit-* headers, where the settings do not state them."""
        for place, (of, bucket) in enumerate((("requests", self._requests), ("tokens", self._tokens))):
            if self._own_limits[place]:
                continue
            limit, left, reset = (
                _number(limits.get(f"x-ratelimit-{what}-{of}")) for what in ("limit", "remaining", "reset")
            )
            if limit is None or left is None or not reset:
                continue
            if left > 0.2 * limit:
                continue
            refill = max((limit - left) / reset, 1 / max(reset, 1.0)) * 60  # what comes back in a minute
            learned = bucket or Bucket(refill, self._clock)
            learned.set_rate(refill)
            if left <= 0:
                learned.drained()
            if of == "requests":
                self._requests = learned
            else:
                self._tokens = learned


class _Window:
    """Answers of a while: how many a second, how long each took."""

    def __init__(self, now: float) -> None:
        self._start, self._count, self._sum = now, 0, 0.0
        self.typical_s = 0.0
        """Latency of the last closed window, or so far."""

    def add(self, latency_s: float, now: float, slots: float) -> bool:
        """Count an answer; True when there are enough to judge by."""
        self._count += 1
        self._sum += latency_s
        if not self.typical_s:
            self.typical_s = latency_s
        return self._count >= max(20, 2 * slots) and now - self._start >= 0.5

    def close(self, now: float) -> float:
        """Return the answers a second of this window, and begin the next."""
        rate = self._count / max(now - self._start, 1e-9)
        self.typical_s = self._sum / self._count
        self._start, self._count, self._sum = now, 0, 0.0
        return rate


def _number(said: str | None) -> float | None:
    return None if said is None else duration_s(said)


def backoff_s(failures: int, rng: random.Random) -> float:
    """Return a pause with full jitter: between 0 and a bound that doubles with every failure (Brooker, AWS 2015)."""
    return rng.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** max(0, failures - 1)))


class Breaker:
    """Whether an endpoint still answers: after `patience_s` of nothing but failures it counts as down."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s, self._clock = patience_s, clock
        self.answered = False
        """Whether it has ever answered."""
        self.failures = 0
        """Failures since the last answer."""
        self._since: float | None = None

    def succeeded(self) -> None:
        """An answer came."""
        self.answered, self.failures, self._since = True, 0, None

    def failed(self) -> bool:
        """A failure that is not the text's fault came; True when it is time to give up."""
        now = self._clock()
        self.failures += 1
        if self._since is None:
            self._since = now
        return self.failures >= 8 and now - self._since >= self._patience_s


async def patiently(call: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Call again, after a pause, where the endpoint may only be busy; raises the last `CallError`."""
    tries, deadline = 0, time.monotonic() + patience_s
    while True:
        try:
            return await call()
        except CallError as error:
            tries += 1
            pause = error.retry_after or 0.25 * 2.0**tries
            if error.kind not in {"rate", "server", "timeout"} or tries > TRIES or time.monotonic() + pause > deadline:
                raise
            await asyncio.sleep(pause)
