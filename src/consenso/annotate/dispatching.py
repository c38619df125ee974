"""Asking an endpoint: claim, send, read, try again, give up. One dispatcher per endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence

from consenso.annotate.clients.protocol import CallError, Reply
from consenso.annotate.clients.transport import Transport
from consenso.annotate.endpoints import Endpoint
from consenso.annotate.explaining import explain
from consenso.annotate.hosts import Host
from consenso.annotate.lanes import Job, Lane, LLMLane
from consenso.annotate.limiting import backoff_s
from consenso.annotate.outcomes import cut_by_server, of_failure, of_reply, total
from consenso.annotate.reading import Answer
from consenso.annotate.running import Loop
from consenso.annotate.votelog import Outcome

logger = logging.getLogger(__name__)

RETRIES = {"server": 6, "connection": 6, "timeout": 3, "body": 3, "rate": 200}
"""Kind of failure → how often a question is sent again before it counts as failed."""
TOLERATED = {"connection": 2, "timeout": 0, "body": 1, "missing": 0, "server": 5}
"""Kind of failure → how many an endpoint that never answered may have before it counts as down."""


class Dispatcher(Host):
    """Sends an endpoint's questions, as fast as it takes them."""

    loop: Loop

    def __init__(self, endpoint: Endpoint, transport: Transport, lanes: Sequence[LLMLane]) -> None:
        super().__init__(endpoint, transport, lanes)
        self._asks: dict[asyncio.Task[None], Job] = {}
        self._rng = random.Random()

    async def serve(self, loop: Loop) -> None:
        """Send the endpoint's questions until none is left."""
        self.loop = loop
        while not loop.stopping:
            self.changed.clear()
            self._feed()
            while (job := self._next()) is not None:
                job.started = 0.0  # of an earlier request
                self._asks[loop.start(self._ask(job))] = job
            if self.done:
                return
            seconds = self.next_in(self.loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), None if seconds == float("inf") else max(0.001, seconds))

    def _next(self) -> Job | None:
        """Return a question that may be sent now, its slot taken, or None."""
        while not self.loop.stopping and not self.full:
            job = self.due(self.loop.time())
            if job is None:
                return None
            if job.lane.down is not None:
                self.loop.give_back(self, job)
            elif self.limiter.ready_in(job.tokens):
                self.put_back(job)
                return None
            else:
                self.limiter.take(job.tokens)
                return job
        return None

    def _feed(self) -> None:
        """Load batches, and claim the next questions, so that the endpoint never waits for the disk."""
        for lane in self.lanes:
            self.loop.load_next(lane)
        if (wanted := self.wanted) and (jobs := self._affordable(self.take(wanted))):
            self.claiming += len(jobs)
            started = self.loop.time()

            def told(kept: bool) -> None:
                self.claim_s += 0.2 * (self.loop.time() - started - self.claim_s)
                self._claimed(jobs, kept)

            self.loop.claim(jobs, told)

    def _claimed(self, jobs: list[Job], kept: bool) -> None:
        self.claiming -= len(jobs)
        if not kept:
            self.loop.stop("storage", self.loop.log.failure)
        elif self.loop.stopping:
            for job in jobs:
                self.loop.give_back(self, job)
        else:
            self.ready.extend(jobs)
        self.changed.set()

    def _affordable(self, jobs: list[Job]) -> list[Job]:
        """Prepare jobs and reserve their cost; what cannot be sent is answered, what cannot be paid goes back."""
        kept: list[Job] = []
        for place, job in enumerate(jobs):
            assert isinstance(job.lane, LLMLane)
            if (why := job.lane.prepare(job)) is not None:
                self.loop.keep(self, job, Outcome(job.key, "truncated", error=why, requests=0))
                continue
            if not self.loop.purse.reserve(job.reserved):
                for unpaid in reversed(jobs[place:]):
                    unpaid.lane.open -= 1
                    unpaid.lane.jobs.appendleft(unpaid)
                if not kept and self.loop.purse.reserved <= 1e-9:
                    self.loop.stop("budget")
                break
            job.sent, job.reserved_in_all = 1, job.reserved
            kept.append(job)
        return kept

    # one question

    async def _ask(self, job: Job | None) -> None:
        """Ask a question, and as long as there is one, the next in the same slot."""
        task = asyncio.current_task()
        assert task is not None
        while job is not None:
            job.started = time.perf_counter()
            self._asks[task] = job
            job.requests += 1
            job.lane.tally.requests += 1
            try:
                reply = await self.transport.ask(job.body)
            except CallError as error:
                self.limiter.leave()
                self._failed(job, error)
            except asyncio.CancelledError:
                self.limiter.leave()
                if not job.late or self.loop.stopping:
                    self._asks.pop(task, None)
                    raise  # its claim or intent stays: it may have been paid
                task.uncancel()
                job.late = False
                said = f"no answer within {self.transport.timeout_s:g} s"
                self._failed(job, CallError("timeout", said, maybe_paid=True))
            else:
                self.limiter.leave()
                self._answered(job, reply, time.perf_counter() - job.started)
            job = self._next()
            if job is None or self.wanted:
                self.changed.set()
        self._asks.pop(task, None)

    def _answered(self, job: Job, reply: Reply, latency_s: float) -> None:
        lane = job.lane
        assert isinstance(lane, LLMLane)
        self.limiter.succeeded(latency_s)
        self._proved(lane)
        if reply.limits:
            self.limiter.read_limits(reply.limits)
        cost = (
            lane.asker.cost(reply.tokens_in, reply.tokens_out, reply.cached)
            if reply.tokens_in is not None
            else job.reserved
        )
        self.loop.purse.settle(job.reserved, cost or 0.0)
        job.tokens_in, job.tokens_out = total(job.tokens_in, reply.tokens_in), total(job.tokens_out, reply.tokens_out)
        job.cost = total(job.cost, cost)
        cut = cut_by_server(lane, job, reply)
        if cut is not None:
            answer = Answer(None, "truncated")
        else:
            answer = (
                Answer(None, "refused") if reply.refusal else lane.reader(job.offered).read(reply.text, reply.finish)
            )
        if (
            answer.status in {"unparsable", "invalid_label"}
            and job.reasked < lane.asker.reask
            and not self.loop.stopping
        ):
            self._correct(job, lane, reply)
            return
        self.loop.keep(self, job, of_reply(job, lane, reply, answer, latency_s=latency_s, error=cut))
        lane.tally.latency_sum += latency_s

    def _correct(self, job: Job, lane: LLMLane, reply: Reply) -> None:
        """Ask once more, with a correction; both requests are paid, and the log knows before the second leaves."""
        job.reserved *= 2
        self.loop.purse.reserve(job.reserved, anyway=True)
        job.reasked += 1
        lane.tally.reasked += 1
        lane.correct(job, reply.text)
        self._again(job, 0.0)

    def _again(self, job: Job, pause: float) -> None:
        """Send a question once more, although an earlier request of it was or may have been paid: first to the ledger."""
        self.claiming += 1
        job.sent += 1
        job.reserved_in_all += job.reserved

        def told(kept: bool) -> None:
            self.claiming -= 1
            if not kept:
                self.loop.stop("storage", self.loop.log.failure)
            if not self.loop.stopping:  # else its intent stays: what was sent may have been paid
                self.postpone(job, self.loop.time() + pause)

        noted = (1, job.reserved) if job.counted else (job.sent, job.reserved_in_all)
        self.loop.log.intend([(job.key, noted[1])], told, sent=noted[0])
        job.counted = True

    # failures

    def _failed(self, job: Job, error: CallError) -> None:
        """Decide what becomes of a question whose request failed: an end, another try, or the end of its annotator."""
        lane, kind = job.lane, error.kind
        lane.tally.last_error = str(error)
        if kind in {"too_long", "filtered"}:
            self._proved(lane)
            self._end(job, error, "truncated" if kind == "too_long" else "refused")
        elif kind in {"auth", "quota"} or (kind in {"missing", "request"} and not lane.proven):
            self._give_up(job, error, self.lanes if kind in {"auth", "quota"} else [lane], misconfigured=True)
        elif kind == "request":
            self._end(job, error, "failed")
        else:
            self._retry(job, error)

    def _retry(self, job: Job, error: CallError) -> None:
        tally, kind = job.lane.tally, error.kind
        tally.rate_limited += kind == "rate"
        tally.errors += kind != "rate"
        if kind in {"rate", "timeout"} or error.retry_after is not None:
            self.limiter.overloaded(error.retry_after)
        if error.maybe_paid:
            job.unsure += 1
            job.lost += job.reserved
            self.loop.purse.spent += job.reserved
        job.tries[kind] = job.tries.get(kind, 0) + 1
        if self._is_down(error):
            wrong = not self.breaker.answered and kind in {"missing", "body"}
            self._give_up(job, error, self.lanes, misconfigured=wrong)
        elif job.tries[kind] > RETRIES.get(kind, 3) or self.loop.stopping:
            self._end(job, error, "failed")
        else:
            pause = 0.0 if error.retry_after else backoff_s(min(job.tries[kind], 6), self._rng)
            if error.maybe_paid:
                self._again(job, pause)
            else:
                self.postpone(job, self.loop.time() + pause)

    def _proved(self, lane: Lane) -> None:
        lane.proven = True
        self.breaker.succeeded()

    def _is_down(self, error: CallError) -> bool:
        """Whether to give the endpoint up: nobody there from the start, or nothing but failures for too long."""
        too_long = self.breaker.failed()
        if not self.breaker.answered:
            loading = str(error).startswith("HTTP 503")
            return too_long or (not loading and self.breaker.failures > TOLERATED.get(error.kind, 10_000))
        if error.kind == "connection" and self.limiter.gated_for <= 0:
            self.limiter.close_gate(backoff_s(min(self.breaker.failures, 6), self._rng))
        return too_long

    def _give_up(self, job: Job, error: CallError, lanes: Sequence[Lane], *, misconfigured: bool) -> None:
        for lane in lanes:
            if isinstance(lane, LLMLane):
                self.loop.give_up(lane, explain(self.endpoint, lane.asker.model, error), misconfigured=misconfigured)
        self.loop.give_back(self, job)
        for waiting in self.withdraw(lambda waiting: waiting.lane.down is not None):
            self.loop.give_back(self, waiting)
        self.loop.tell()

    def _end(self, job: Job, error: CallError, status: str) -> None:
        self.loop.purse.settle(job.reserved, 0.0)
        self.loop.keep(self, job, of_failure(job, error, status))

    # the end

    def end_late(self) -> None:
        """Give up requests that have waited too long for their reply."""
        now = time.perf_counter()
        for task, job in self._asks.items():
            if job.started and now - job.started > self.transport.timeout_s and not job.late:
                job.late = True
                task.cancel()

    def cancel(self) -> None:
        """Give up on what is under way."""
        for task in self._asks:
            task.cancel()

    async def drain(self, loop: Loop, seconds: float) -> None:
        """Take back what was not sent, and wait for what was."""
        for job in self.withdraw(lambda job: True):
            loop.give_back(self, job)
        if self._asks:
            _, left = await asyncio.wait(list(self._asks), timeout=seconds)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=5)
