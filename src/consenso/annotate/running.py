"""The loop: questions out, replies in, every answer on disk. One asyncio loop, one dispatcher per endpoint.

A question goes: taken from its lane → intent on disk → a slot of the endpoint → request → reply read → answer on disk.
What fails comes back to the endpoint's queue with a time before which it may not go again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import json
import logging
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from consenso.annotate.budget import Purse
from consenso.annotate.clients.protocol import CallError, Reply
from consenso.annotate.clients.transport import Transport
from consenso.annotate.confidence import label_probabilities
from consenso.annotate.endpoints import Endpoint
from consenso.annotate.lanes import Claim, Job, Lane, LLMLane, LocalLane
from consenso.annotate.limiting import Breaker, Limiter, backoff_s
from consenso.annotate.reading import Answer
from consenso.annotate.tallies import Panel, find_alarms
from consenso.annotate.votelog import Outcome, VoteLog
from consenso.errors import ConsensoError

logger = logging.getLogger(__name__)

RETRIES = {"server": 6, "connection": 6, "timeout": 3, "body": 3, "rate": 200}
"""Kind of failure → how often a question is sent again before it counts as failed."""
FREE_BYTES = 32_000_000
"""Room on the log's disk below which nothing more is sent: what is under way must still find a place."""
AHEAD = 8
"""Questions whose intents are on disk before a slot is free for them, at least: the disk is slower than the slots."""
GROUP_S = 0.003
"""How long what is to be written waits for company after a commit."""
TICK_S = 0.5
"""How often progress is told and alarms are looked for."""


@dataclass
class Ended:
    """How a run of the loop ended."""

    reason: str = "done"
    """done, interrupted, terminated, budget, storage; done also where lanes were given up."""
    error: ConsensoError | None = None
    """What stopped it, where something did."""
    alarms: list[tuple[str, str, str]] = field(default_factory=list)
    """(annotator, kind, message), each kind once per annotator."""


class Place:
    """Where questions are answered: an endpoint, or this process."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = list(lanes)
        self.uncommitted = 0
        """Answers on their way to the disk."""
        self.changed = asyncio.Event()


class Host(Place):
    """An endpoint in this run: its session, its limits, its lanes, and the questions on their way to it."""

    def __init__(self, endpoint: Endpoint, transport: Transport, lanes: Sequence[LLMLane]) -> None:
        super().__init__(lanes)
        self.endpoint, self.transport = endpoint, transport
        self.limiter = Limiter(endpoint.max_in_flight, rpm=endpoint.rpm, tpm=endpoint.tpm)
        self.breaker = Breaker(endpoint.patience_s)
        self.ready: deque[Job] = deque()
        self.later: list[tuple[float, int, Job]] = []
        self.claiming = 0
        """Questions whose intents are being written."""
        self.claim_s = 0.01
        """How long a claim takes to be on disk, smoothed."""
        self.most = endpoint.max_in_flight + max(8, endpoint.max_in_flight // 2)
        """Requests under way and answers on their way to the disk, at most together."""
        self._turn = 0

    @property
    def down(self) -> bool:
        """Whether every lane has been given up."""
        return all(lane.down is not None for lane in self.lanes)

    @property
    def low(self) -> int:
        """Questions that should be ready, their claims on disk: as many as are sent while a claim is written, and some."""
        sent = self.limiter.in_flight * self.claim_s / max(self.limiter.latency_s, 1e-3)
        return AHEAD + min(2 * self.endpoint.max_in_flight, int(1.5 * sent))

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self.ready or self.later or self.claiming or self.limiter.in_flight or self.uncommitted)

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

    def put_back(self, job: Job) -> None:
        """Return a job that cannot go yet."""
        self.ready.appendleft(job)

    def due(self, now: float) -> Job | None:
        """Return a job that may go now: retries whose time has come before new ones."""
        if self.later and self.later[0][0] <= now:
            return heapq.heappop(self.later)[2]
        return self.ready.popleft() if self.ready else None


def _jobs(lane: Lane, count: int) -> Iterator[Job]:
    """At most so many jobs of a lane; one at a time until it has proved that it works."""
    if lane.down is not None:
        return
    if not lane.proven:
        count = min(count, 1 - lane.open)
    for _ in range(min(count, len(lane.jobs))):
        lane.open += 1
        yield lane.jobs.popleft()


class Loop:
    """One run over all lanes."""

    def __init__(
        self,
        log: VoteLog,
        hosts: Sequence[Host],
        purse: Purse,
        panel: Panel,
        *,
        drain_s: float = 60.0,
        progress: Callable[[dict[str, Any]], None] | None = None,
        here: Place | None = None,
        free_bytes: int = FREE_BYTES,
        wait_for: Callable[[Lane], Sequence[Lane]] | None = None,
    ) -> None:
        """`here`: the annotators of this process; `wait_for`: the lanes that must have finished a batch before a lane may load it (early settling)."""
        self._log, self._hosts, self._purse, self._panel = log, hosts, purse, panel
        self._here = here or Place([])
        self._drain_s, self._progress, self._free_bytes = drain_s, progress, free_bytes
        self._wait_for = wait_for or (lambda lane: ())
        self._rng = random.Random()
        self._order = 0
        self._stopping = ""
        self._loads: dict[int, asyncio.Task[None]] = {}
        self._asks: dict[asyncio.Task[None], tuple[Host, Job]] = {}
        self._claims: dict[int, Claim] = {}
        self._told: set[tuple[str, str]] = set()
        self.ended = Ended()

    # the run

    async def run(self) -> Ended:
        """Ask until nothing is left, or something stops it; what is under way is then drained."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._log.on_kept, self._log.on_pending = self._kept, self._pending
        self._waiting = asyncio.Event()
        ticking, writing = asyncio.create_task(self._tick()), asyncio.create_task(self._write())
        with self._signals(), _rare_collections():
            try:
                await asyncio.gather(*(self._serve(host) for host in self._hosts), self._serve_here())
            except asyncio.CancelledError:
                self.stop("interrupted")
            finally:
                try:
                    await self._drain()
                    self._tell()
                finally:
                    ticking.cancel()
                    writing.cancel()
                    self._log.on_kept = self._log.on_pending = None
                    for host in self._hosts:
                        await host.transport.close()
        if self._log.failure is not None:
            self.ended.reason, self.ended.error = "storage", self._log.failure
        return self.ended

    async def _write(self) -> None:
        """Commit what waits, group by group; the disk is waited for in a thread of its own."""
        with ThreadPoolExecutor(1, "vote log") as disk:
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                while self._log.begin():
                    try:
                        await self._loop.run_in_executor(disk, self._log.commit)
                    finally:
                        self._log.tell()
                    await asyncio.sleep(GROUP_S)

    def _pending(self) -> None:
        if threading.get_ident() == self._thread:
            self._waiting.set()
        else:
            self._loop.call_soon_threadsafe(self._waiting.set)

    def stop(self, reason: str, error: ConsensoError | None = None) -> None:
        """Send nothing more; what is under way ends. The second call gives up on that too."""
        if self._stopping:
            for task in self._asks:
                task.cancel()
        else:
            self._stopping = self.ended.reason = reason
            self.ended.error = error
        self._wake()

    def _wake(self) -> None:
        for place in (*self._hosts, self._here):
            place.changed.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain, where this is the main thread."""
        caught: dict[signal.Signals, str] = {}
        if threading.current_thread() is threading.main_thread():
            for number, reason in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    self._loop.add_signal_handler(number, self.stop, reason)
                    caught[number] = reason
        try:
            yield
        finally:
            for number in caught:
                self._loop.remove_signal_handler(number)

    async def _drain(self) -> None:
        """Take back what was not sent, wait for what was, and for the disk."""
        for host in self._hosts:
            waiting = [*host.ready, *(job for _, _, job in host.later)]
            host.ready.clear()
            host.later.clear()
            for job in waiting:
                self._give_back(host, job)
        if self._asks:
            _, left = await asyncio.wait(list(self._asks), timeout=self._drain_s)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=5)
        for claim in self._claims.values():  # what is left was sent and never answered
            self._log.unclaim(claim.number, list(claim.open.items()))
        for task in self._loads.values():
            with contextlib.suppress(asyncio.CancelledError, ConsensoError):
                await task
        while self._log.waiting and self._log.failure is None:
            await asyncio.sleep(0.001)

    # one endpoint

    async def _serve(self, host: Host) -> None:
        """Send an endpoint's questions until none is left."""
        while not self._stopping:
            host.changed.clear()
            self._feed(host)
            job = self._next(host)
            while job is not None:
                task = self._loop.create_task(self._ask(host, job))
                self._asks[task] = (host, job)
                task.add_done_callback(self._asks.pop)
                job = self._next(host)
            if host.idle and (host.down or all(lane.exhausted for lane in host.lanes)):
                return
            await self._changed(host)

    async def _changed(self, host: Host) -> None:
        """Wait for something to happen, or for the time of a retry or of the limiter's gate."""
        waits = []
        if host.limiter.in_flight + host.uncommitted < host.most:
            if host.ready:
                waits.append(host.limiter.ready_in(host.ready[0].tokens))
            if host.later:
                waits.append(max(host.later[0][0] - self._loop.time(), host.limiter.ready_in(host.later[0][2].tokens)))
        soonest = min(waits, default=float("inf"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(host.changed.wait(), None if soonest == float("inf") else max(0.001, soonest))

    def _next(self, host: Host) -> Job | None:
        """Return a question that may be sent now, its slot taken, or None."""
        while not self._stopping and host.limiter.in_flight + host.uncommitted < host.most:
            job = host.due(self._loop.time())
            if job is None:
                return None
            if job.lane.down is not None:
                self._give_back(host, job)
            elif host.limiter.ready_in(job.tokens):
                host.put_back(job)
                return None
            else:
                host.limiter.take(job.tokens)
                return job
        return None

    def _feed(self, host: Host) -> None:
        """Load batches, and claim the next questions, so that the endpoint never waits for the disk."""
        for lane in host.lanes:
            self._load_next(lane)
        free = max(0, int(host.limiter.slots) - host.limiter.in_flight)
        if len(host.ready) + host.claiming >= host.low + free:
            return
        jobs = self._affordable(host, host.take(min(host.low * 3 // 2 + free - len(host.ready) - host.claiming, 512)))
        if jobs:
            host.claiming += len(jobs)
            self._claim(host, [job for job in jobs if not job.counted])
            self._intend(host, [job for job in jobs if job.counted])

    def _claim(self, host: Host, jobs: list[Job]) -> None:
        """Write that jobs are about to be sent, and hand them out once it is on disk."""
        if not jobs:
            return
        keys = [(job.key, job.reserved) for job in jobs]
        started = self._loop.time()

        def told(kept: bool) -> None:
            host.claim_s += 0.2 * (self._loop.time() - started - host.claim_s)
            self._claimed(host, jobs, kept)

        number = self._log.claim(keys, told)
        claim = Claim(number, dict(keys))
        self._claims[number] = claim
        for job in jobs:
            job.claim = claim

    def _intend(self, host: Host, jobs: list[Job]) -> None:
        """The same for jobs that were sent before, or failed."""
        if jobs:
            keys = [(job.key, job.reserved) for job in jobs]
            self._log.intend(keys, lambda kept: self._claimed(host, jobs, kept))

    def _claimed(self, host: Host, jobs: list[Job], kept: bool) -> None:
        host.claiming -= len(jobs)
        if not kept:
            self.stop("storage", self._log.failure)
        elif self._stopping:
            for job in jobs:
                self._give_back(host, job)
        else:
            host.ready.extend(jobs)
        host.changed.set()

    def _load_next(self, lane: Lane) -> None:
        """Begin to load a lane's next batch, if it needs one and may have it."""
        if lane.down is not None or lane.loaded or len(lane.jobs) >= 1024 or id(lane) in self._loads:
            return
        if all(other.has_passed(lane.next_batch) for other in self._wait_for(lane)):
            self._loads[id(lane)] = self._loop.create_task(self._load(lane))

    async def _load(self, lane: Lane) -> None:
        try:
            await asyncio.to_thread(lane.load)
        except ConsensoError as error:
            self.stop("error", error)
        finally:
            del self._loads[id(lane)]
            self._wake()

    def _affordable(self, host: Host, jobs: list[Job]) -> list[Job]:
        """Prepare jobs and reserve their cost; what cannot be sent is answered, what cannot be paid goes back."""
        kept: list[Job] = []
        for place, job in enumerate(jobs):
            if (why := job.lane.prepare(job)) is not None:
                self._keep(host, job, Outcome(job.key, "truncated", error=why, requests=0))
                continue
            if not self._purse.reserve(job.reserved):
                for unpaid in reversed(jobs[place:]):
                    unpaid.lane.open -= 1
                    unpaid.lane.jobs.appendleft(unpaid)
                if not kept and self._purse.reserved <= 1e-12:
                    self.stop("budget")
                break
            job.sent, job.reserved_in_all = 1, job.reserved
            kept.append(job)
        return kept

    def _give_back(self, host: Host, job: Job) -> None:
        """Return a question that is not sent after all."""
        if job.counted and not job.unsure:
            self._log.release([job.key])
        if not job.unsure:
            self._unclaim(job)
        self._purse.settle(job.reserved, 0.0)
        job.lane.open -= 1
        host.changed.set()

    def _unclaim(self, job: Job) -> None:
        """Strike a job off its claim; the claim goes with its last."""
        if (claim := job.claim) is not None:
            claim.open.pop(job.key, None)
            if not claim.open and self._claims.pop(claim.number, None) is not None:
                self._log.unclaim(claim.number)

    # this process

    async def _serve_here(self) -> None:
        """Let the annotators of this process answer, one after the other: each has the machine to itself."""
        for lane in self._here.lanes:
            assert isinstance(lane, LocalLane)
            while not self._stopping and not lane.exhausted:
                self._here.changed.clear()
                self._load_next(lane)
                if not lane.jobs:
                    await self._here.changed.wait()
                    continue
                jobs = [lane.jobs.popleft() for _ in range(min(lane.asker.batch_size, len(lane.jobs)))]
                lane.open += len(jobs)
                if await self._noted(jobs):
                    await self._answer_here(lane, jobs)

    async def _noted(self, jobs: list[Job]) -> bool:
        """Wait until a claim for jobs is on disk."""
        told: asyncio.Future[bool] = self._loop.create_future()
        claim = Claim(0, {job.key: 0.0 for job in jobs if not job.counted})
        claim.number = self._log.claim(list(claim.open.items()), told.set_result)
        self._claims[claim.number] = claim
        for job in jobs:
            job.claim, job.sent = claim, 1
        if counted := [(job.key, 0.0) for job in jobs if job.counted]:
            self._log.intend(counted)
        return await told

    async def _answer_here(self, lane: LocalLane, jobs: list[Job]) -> None:
        started = time.perf_counter()
        try:
            readings = await asyncio.to_thread(lane.asker.answer, [job.text for job in jobs], [job.offered for job in jobs])
        except ConsensoError as error:
            lane.down, lane.misconfigured = str(error), True
        except Exception as error:
            logger.exception("%s", lane.tally.name)
            lane.down, lane.misconfigured = f"raised {type(error).__name__}: {error}", True
        else:
            lane.proven = True
            seconds = (time.perf_counter() - started) / len(jobs)
            for job, reading in zip(jobs, readings):
                job.requests = 1
                said = None if reading.probabilities is None else _as_json(reading.probabilities)
                self._keep(
                    self._here, job,
                    Outcome(
                        job.key, reading.status, reading.label, reading.confidence, reading.reply, latency_s=seconds, cost=0.0,
                        probabilities=said, error=reading.error, **_counted(job),
                    ),
                )  # fmt: skip
                lane.tally.latency_sum += seconds
            return
        logger.warning("%s: %s", lane.tally.name, lane.down)
        self._log.release(job.key for job in jobs if job.counted)
        for job in jobs:
            self._unclaim(job)
            lane.open -= 1

    # one question

    async def _ask(self, host: Host, job: Job | None) -> None:
        """Ask a question, and as long as there is one, the next in the same slot."""
        task = asyncio.current_task()
        assert task is not None
        while job is not None:
            started = job.started = time.perf_counter()
            self._asks[task] = (host, job)
            job.requests += 1
            job.lane.tally.requests += 1
            try:
                reply = await host.transport.ask(job.body)
            except CallError as error:
                host.limiter.leave()
                self._failed(host, job, error)
            except asyncio.CancelledError:
                host.limiter.leave()
                if not job.late or self._stopping:
                    raise  # its claim or intent stays: it may have been paid
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
                job.late = False
                self._failed(host, job, CallError("timeout", f"no answer within {host.transport.timeout_s:g} s", maybe_paid=True))
            else:
                latency = time.perf_counter() - started
                host.limiter.leave()
                host.limiter.succeeded(latency)
                host.breaker.succeeded()
                if reply.limits:
                    host.limiter.read_limits(reply.limits)
                self._answered(host, job, reply, latency)
            job = self._next(host)
            if job is None or len(host.ready) + host.claiming < host.low or host.limiter.in_flight < int(host.limiter.slots):
                host.changed.set()

    def _answered(self, host: Host, job: Job, reply: Reply, latency: float) -> None:
        lane, asker = job.lane, job.lane.asker
        lane.proven = True
        cost = asker.cost(reply.tokens_in, reply.tokens_out, reply.cached) if reply.tokens_in is not None else job.reserved
        self._purse.settle(job.reserved, cost or 0.0)
        job.tokens_in = _sum(job.tokens_in, reply.tokens_in)
        job.tokens_out = _sum(job.tokens_out, reply.tokens_out)
        job.cost = _sum(job.cost, cost)
        answer = Answer(None, "refused") if reply.refusal else lane.reader(job.offered).read(reply.text, reply.finish)
        error = self._cut_by_server(lane, job, reply)
        if error is not None:
            answer = Answer(None, "truncated")
        if answer.status in {"unparsable", "invalid_label"} and job.reasked < asker.reask and not self._stopping:
            self._correct(host, job, reply)
            return
        probabilities = None
        if answer.label is not None and reply.logprobs:
            probabilities = label_probabilities(
                reply.logprobs, answer.label, job.offered or asker.schema.names, asker.schema, asker.form
            )
        self._keep(
            host,
            job,
            Outcome(
                job.key, answer.status, answer.label, None if probabilities is None or answer.label is None else probabilities[answer.label],
                reply.refusal or reply.text, job.tokens_in, job.tokens_out, job.cost, latency,
                requests=job.requests, reasked=job.reasked, **_counted(job),
                finish=reply.finish, fingerprint=reply.fingerprint, error=error, cut=job.cut,
                probabilities=None if probabilities is None else _as_json(probabilities),
            ),
        )  # fmt: skip
        lane.tally.latency_sum += latency

    def _cut_by_server(self, lane: Lane, job: Job, reply: Reply) -> str | None:
        """Whether the server has cut the prompt without a word: it counted far fewer tokens than the request has."""
        if not reply.tokens_in or job.reasked:
            return None
        size = len(job.body)
        lane.bytes_seen += size
        lane.tokens_seen += reply.tokens_in
        if size < 4000:
            return None
        usual = lane.bytes_seen / max(1, lane.tokens_seen)
        at_limit = lane.asker.endpoint.protocol != "ollama" or reply.tokens_in >= 0.8 * (lane.asker.context or 0)
        if size / reply.tokens_in > max(12.0, 2.5 * min(usual, 6.0)) and at_limit:
            return f"the server counted {reply.tokens_in:,} tokens in a request of {size:,} bytes: it seems to have cut the text; raise its context size"
        return None

    def _correct(self, host: Host, job: Job, reply: Reply) -> None:
        """Ask once more, with a correction; both requests are paid, and the log knows before the second leaves."""
        job.reserved *= 2
        self._purse.reserve(job.reserved, anyway=True)
        job.reasked += 1
        job.lane.tally.reasked += 1
        job.lane.correct(job, reply.text)
        self._again(host, job, 0.0)

    def _again(self, host: Host, job: Job, pause: float) -> None:
        """Send a question once more, although an earlier request of it was or may have been paid: first to the ledger."""
        host.claiming += 1
        job.sent += 1
        job.reserved_in_all += job.reserved

        def told(kept: bool) -> None:
            self._later(host, job, pause, kept)

        self._log.intend([(job.key, job.reserved)], told, sent=1 if job.counted else 2)
        job.counted = True

    def _later(self, host: Host, job: Job, pause: float, kept: bool = True) -> None:
        host.claiming -= 1
        if not kept:
            self.stop("storage", self._log.failure)
        if self._stopping:
            return  # its intent stays: what was sent may have been paid
        self._queue(host, job, pause)

    def _queue(self, host: Host, job: Job, pause: float) -> None:
        self._order += 1
        heapq.heappush(host.later, (self._loop.time() + pause, self._order, job))
        host.changed.set()

    # failures

    def _failed(self, host: Host, job: Job, error: CallError) -> None:
        lane, kind = job.lane, error.kind
        lane.tally.last_error = str(error)
        if kind in {"too_long", "filtered"}:
            status = "truncated" if kind == "too_long" else "refused"
            self._proved(host, lane)
            self._end(host, job, error, status)
            return
        if kind in {"auth", "quota"} or (kind in {"missing", "request"} and not lane.proven):
            self._give_up(host, error, lanes=host.lanes if kind in {"auth", "quota"} else [lane], misconfigured=True)
            self._give_back(host, job)
            return
        if kind == "request":
            self._end(host, job, error, "failed")
            return
        if kind == "rate":
            lane.tally.rate_limited += 1
            host.limiter.overloaded(error.retry_after)
        else:
            lane.tally.errors += 1
            if kind == "timeout" or "503" in str(error):
                host.limiter.overloaded(error.retry_after)
        if error.maybe_paid:
            job.unsure += 1
            job.lost += job.reserved
            self._purse.spent += job.reserved
        job.tries[kind] = job.tries.get(kind, 0) + 1
        if self._is_down(host, error):
            self._give_up(host, error, lanes=host.lanes, misconfigured=not host.breaker.answered and kind in {"missing", "body"})
            self._give_back(host, job)
            return
        if job.tries[kind] > RETRIES.get(kind, 3) or self._stopping:
            self._end(host, job, error, "failed")
            return
        pause = 0.0 if error.retry_after else backoff_s(min(job.tries[kind], 6), self._rng)
        if error.maybe_paid:
            self._again(host, job, pause)
        else:
            self._queue(host, job, pause)

    def _proved(self, host: Host, lane: Lane) -> None:
        lane.proven = True
        host.breaker.succeeded()

    def _is_down(self, host: Host, error: CallError) -> bool:
        """Whether to give the endpoint up: nobody there from the start, or nothing but failures for too long."""
        failed_long = host.breaker.failed()
        if host.breaker.answered:
            if error.kind == "connection" and host.limiter.gated_for <= 0:
                host.limiter.close_gate(backoff_s(min(host.breaker.failures, 6), self._rng))
            return failed_long
        tolerated = {"connection": 2, "timeout": 0, "body": 1, "missing": 0}.get(error.kind, 5 if error.kind == "server" else 10_000)
        return failed_long or host.breaker.failures > tolerated

    def _give_up(self, host: Host, error: CallError, *, lanes: Sequence[Lane], misconfigured: bool) -> None:
        for lane in lanes:
            if lane.down is None:
                lane.down, lane.misconfigured = explain(host.endpoint, lane, error), misconfigured
                logger.warning("%s: %s", lane.tally.name, lane.down)
        self._tell()

    def _end(self, host: Host, job: Job, error: CallError, status: str) -> None:
        self._purse.settle(job.reserved, 0.0)
        self._keep(
            host,
            job,
            Outcome(
                job.key, status, error=str(error), requests=job.requests, reasked=job.reasked, **_counted(job),
                tokens_in=job.tokens_in, tokens_out=job.tokens_out, cost=job.cost, cut=job.cut,
            ),
        )  # fmt: skip

    # answers

    def _keep(self, host: Place, job: Job, outcome: Outcome) -> None:
        tally = job.lane.tally
        tally.add(outcome.status, outcome.label)
        tally.tokens_in += outcome.tokens_in or 0
        tally.tokens_out += outcome.tokens_out or 0
        tally.cost += outcome.cost or 0.0
        self._panel.add(job.text_id, tally.name, outcome.label)
        host.uncommitted += 1
        self._log.keep(outcome, (host, job))
        self._unclaim(job)

    def _kept(self, marks: list[tuple[Place, Job]], kept: bool) -> None:
        for host, job in marks:
            host.uncommitted -= 1
            if kept:
                self._close(job)
        for host in {host for host, _ in marks}:
            host.changed.set()
        if not kept:
            self.stop("storage", self._log.failure)

    def _close(self, job: Job) -> None:
        job.lane.open -= 1
        job.lane.under_way.discard(job.key)
        job.batch.open -= 1
        if not job.batch.open:
            before = job.lane.finished
            job.lane.finish_batches()
            if job.lane.finished != before:
                self._wake()

    # telling

    async def _tick(self) -> None:
        told = 0.0
        pause = min([TICK_S, *(host.transport.timeout_s / 4 for host in self._hosts)])
        while True:
            await asyncio.sleep(pause)
            self._end_late()
            if self._loop.time() - told < TICK_S:
                continue
            told = self._loop.time()
            self._tell()
            if self._log.free_bytes() < self._free_bytes and not self._stopping:
                from consenso.errors import StorageError

                free = self._log.free_bytes() / 1e6
                self.stop("storage", StorageError(f"only {free:.0f} MB left where {self._log.path} lies; nothing more was sent, make room and run the same command again"))
            if self._log.failure is not None and not self._stopping:
                self.stop("storage", self._log.failure)

    def _end_late(self) -> None:
        """Give up requests that have waited too long for their reply."""
        now = time.perf_counter()
        for task, (host, job) in self._asks.items():
            if job.started and now - job.started > host.transport.timeout_s and not job.late:
                job.late = True
                task.cancel()

    def _tell(self) -> None:
        lanes = [lane for place in (*self._hosts, self._here) for lane in place.lanes]
        for alarm in find_alarms([lane.tally for lane in lanes], self._panel):
            if alarm[:2] not in self._told:
                self._told.add(alarm[:2])
                self.ended.alarms.append(alarm)
                logger.warning("%s %s: %s", *alarm)
        if self._progress is None:
            return
        rows = []
        for lane in lanes:
            host = next((host for host in self._hosts if lane in host.lanes), None)
            more = {} if host is None else {"in_flight": host.limiter.in_flight, "slots": int(host.limiter.slots), "waits_s": host.limiter.gated_for}
            rows.append(lane.tally.snapshot(self._panel.agreement(lane.tally.name)[0]) | {"down": lane.down} | more)
        self._progress(
            {"annotators": rows, "spent": self._purse.spent, "budget": self._purse.budget, "stopping": self._stopping, "alarms": self.ended.alarms}
        )  # fmt: skip


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage cycles less often meanwhile: a request makes hundreds of objects and hardly a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 20_000), 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def explain(endpoint: Endpoint, lane: Lane, error: CallError) -> str:
    """Return one line that says why an annotator cannot be asked, and what to do."""
    model, said = lane.asker.model, str(error)
    if error.kind == "auth":
        where = " or ".join(endpoint.key_env) or "key_env"
        return f"{endpoint.base_url} refuses the API key ({said}); check {where}"
    if error.kind == "quota":
        return f"{endpoint.name} has no credit left ({said}); add some, then run the same command again"
    if error.kind == "missing":
        start = f"; {endpoint.start.format(model=model)}" if endpoint.start else ""
        return f"{endpoint.base_url} knows no model {model!r} or no such address ({said}); check the model's name and base_url{start}"
    if error.kind == "request":
        return f"{endpoint.base_url} does not take the request ({said}); check parameters, structured and logprobs, or try `consenso annotate --probe`"
    if error.kind == "connection":
        start = f"; {endpoint.start.format(model=model)}" if endpoint.start else "; check base_url and that the server runs"
        return f"nobody answers at {endpoint.base_url} ({said}){start}"
    if error.kind == "timeout":
        return f"{endpoint.base_url} accepts requests but never answered ({said}); is it loading the model? A longer wait: timeout_s in [annotate.endpoints]"
    if error.kind == "body":
        return f"{endpoint.base_url} answers, but not as a chat API does ({said}); base_url usually ends in /v1"
    return f"{endpoint.base_url} only fails ({said}); run the same command again once it works"


def _as_json(probabilities: Mapping[str, float]) -> str:
    return json.dumps({label: round(value, 6) for label, value in probabilities.items()}, ensure_ascii=False)


def _counted(job: Job) -> dict[str, Any]:
    """What the ledger learns of a job that has an intent of its own."""
    return {"known": job.sent - job.unsure, "reserved": job.reserved_in_all - job.lost} if job.counted else {}


def _sum(old: Any, new: Any) -> Any:
    return new if old is None else old if new is None else old + new
