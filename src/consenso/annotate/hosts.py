"""Where questions are answered: endpoints, this process, batch files."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from consenso.annotate.clients.transport import Transport
from consenso.annotate.endpoints import Endpoint
from consenso.annotate.lanes import Job, Lane, LLMLane
from consenso.annotate.limiting import Breaker, Limiter

if TYPE_CHECKING:
    from consenso.annotate.running import Loop

AHEAD = 8
"""Questions that are claimed before a slot is free for them, at least: the disk is slower than the slots."""


class Place:
    """Where some lanes' questions are answered: an endpoint, this process, batch files."""

    patience_s = float("inf")
    """Seconds that a request may take."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = list(lanes)
        self.uncommitted = 0
        """Answers on their way to the disk."""
        self.changed = asyncio.Event()
        """Set when something has happened that may let it go on."""

    async def serve(self, loop: Loop) -> None:
        """Ask until nothing is left."""
        raise NotImplementedError

    @property
    def pace(self) -> dict[str, Any]:
        """How fast it may ask: in_flight, slots, waits_s, where that makes sense."""
        return {}

    def end_late(self) -> None:
        """Give up requests that have waited too long for their reply."""

    def cancel(self) -> None:
        """Give up on what is under way."""

    async def drain(self, loop: Loop, seconds: float) -> None:
        """Take back what was not sent, and wait for what was."""

    async def close(self) -> None:
        """Give back what it holds."""


class Host(Place):
    """An endpoint in this run: its session, its limits, its lanes, and the questions on their way to it."""

    def __init__(self, endpoint: Endpoint, transport: Transport, lanes: Sequence[LLMLane]) -> None:
        super().__init__(lanes)
        self.endpoint, self.transport = endpoint, transport
        self.limiter = Limiter(endpoint.max_in_flight, rpm=endpoint.rpm, tpm=endpoint.tpm)
        self.breaker = Breaker(endpoint.patience_s)
        self.ready: deque[Job] = deque()
        """Questions that are claimed and wait for a slot."""
        self.later: list[tuple[float, int, Job]] = []
        """Questions that are sent again, by the time from which they may be (a heap)."""
        self.claiming = 0
        """Questions whose claims are being written."""
        self.claim_s = 0.01
        """How long a claim takes to be on disk, smoothed."""
        self.most = endpoint.max_in_flight + max(8, endpoint.max_in_flight // 2)
        """Requests under way and answers on their way to the disk, at most together."""
        self.patience_s = endpoint.timeout_s
        self._turn, self._order = 0, 0

    @property
    def pace(self) -> dict[str, Any]:
        """In flight, slots, and the seconds until the gate opens."""
        return {
            "in_flight": self.limiter.in_flight,
            "slots": int(self.limiter.slots),
            "waits_s": self.limiter.gated_for,
        }

    async def close(self) -> None:
        """Close the session."""
        await self.transport.close()

    @property
    def done(self) -> bool:
        """Whether nothing is on its way and nothing is left."""
        on_its_way = self.ready or self.later or self.claiming or self.limiter.in_flight or self.uncommitted
        return not on_its_way and all(lane.exhausted for lane in self.lanes)

    @property
    def full(self) -> bool:
        """Whether answers must reach the disk before more is sent."""
        return self.limiter.in_flight + self.uncommitted >= self.most

    @property
    def low(self) -> int:
        """Questions that should be ready: as many as are sent while a claim is written, and some."""
        sent = self.limiter.in_flight * self.claim_s / max(self.limiter.latency_s, 1e-3)
        return AHEAD + min(2 * self.endpoint.max_in_flight, int(1.5 * sent))

    @property
    def wanted(self) -> int:
        """How many more questions should be claimed now; 0 while there are enough."""
        free = max(0, int(self.limiter.slots) - self.limiter.in_flight)
        coming = len(self.ready) + self.claiming
        return 0 if coming >= self.low + free else min(self.low * 3 // 2 + free - coming, 512)

    def take(self, count: int) -> list[Job]:
        """Take jobs from the lanes: a local server's one after the other (one model in memory), others' in turn."""
        if self.endpoint.local:
            for lane in self.lanes:
                if not lane.exhausted:
                    return list(_jobs(lane, count))
            return []
        taken: list[Job] = []
        for _ in self.lanes:
            lane = self.lanes[self._turn % len(self.lanes)]
            self._turn += 1
            taken += _jobs(lane, max(1, count // len(self.lanes)))
            if len(taken) >= count:
                break
        return taken

    def due(self, now: float) -> Job | None:
        """Return a job that may go now: retries whose time has come before new ones."""
        if self.later and self.later[0][0] <= now:
            return heapq.heappop(self.later)[2]
        return self.ready.popleft() if self.ready else None

    def put_back(self, job: Job) -> None:
        """Return a job that cannot go yet."""
        self.ready.appendleft(job)

    def postpone(self, job: Job, until: float) -> None:
        """Put a job where it waits for its time."""
        self._order += 1
        heapq.heappush(self.later, (until, self._order, job))
        self.changed.set()

    def withdraw(self, gone: Callable[[Job], bool]) -> list[Job]:
        """Take out the jobs that wait and are not to be sent any more."""
        taken = [job for job in self.ready if gone(job)] + [job for _, _, job in self.later if gone(job)]
        self.ready = deque(job for job in self.ready if not gone(job))
        self.later = [entry for entry in self.later if not gone(entry[2])]
        heapq.heapify(self.later)
        return taken

    def next_in(self, now: float) -> float:
        """Return the seconds until a job that waits may be sent; infinity where something else must happen first."""
        if self.full:
            return float("inf")
        waits = [self.limiter.ready_in(self.ready[0].tokens)] if self.ready else []
        if self.later:
            waits.append(max(self.later[0][0] - now, self.limiter.ready_in(self.later[0][2].tokens)))
        return min(waits, default=float("inf"))


def _jobs(lane: Lane, count: int) -> Iterator[Job]:
    """At most so many jobs of a lane; one at a time until it has proved that it works."""
    if lane.down is not None:
        return
    if not lane.proven:
        count = min(count, 1 - lane.open)
    for _ in range(min(count, len(lane.jobs))):
        lane.open += 1
        yield lane.jobs.popleft()
