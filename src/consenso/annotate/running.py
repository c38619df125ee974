"""The loop: questions out, replies in, every answer on disk.

A question goes: taken from its lane → claim on disk → a slot of the endpoint → request → reply read → answer on disk.
Desks do the asking (endpoints, batch files, this process); the loop keeps claims and answers, tells progress, and ends
it all in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from consenso.annotate.budget import Purse
from consenso.annotate.hosts import Place
from consenso.annotate.lanes import Claim, Job, Lane
from consenso.annotate.tallies import Panel, find_alarms
from consenso.annotate.votelog import Outcome, VoteLog
from consenso.errors import ConsensoError, StorageError

logger = logging.getLogger(__name__)

FREE_BYTES = 32_000_000
"""Room on the log's disk below which nothing more is sent: what is under way must still find a place."""
GROUP_S = 0.003
"""How long what is to be written waits for company after a commit."""
TICK_S = 0.5
"""How often progress is told and alarms are looked for."""


@dataclass
class Ended:
    """How a run of the loop ended."""

    reason: str = "done"
    """done, interrupted, terminated, budget, storage, error; done also where lanes were given up."""
    error: ConsensoError | None = None
    """What stopped it, where something did."""
    alarms: list[tuple[str, str, str]] = field(default_factory=list)
    """(annotator, kind, message), each kind once per annotator."""


class Loop:
    """One run over all lanes."""

    def __init__(
        self,
        log: VoteLog,
        desks: Sequence[Place],
        purse: Purse,
        panel: Panel,
        *,
        drain_s: float = 60.0,
        progress: Callable[[dict[str, Any]], None] | None = None,
        wait_for: Callable[[Lane], Sequence[Lane]] | None = None,
        free_bytes: int = FREE_BYTES,
    ) -> None:
        """`wait_for`: the lanes that must have answered a batch of texts before a lane may load it."""
        self.log, self._desks, self.purse, self._panel = log, list(desks), purse, panel
        self._drain_s, self._progress, self._free_bytes = drain_s, progress, free_bytes
        self._wait_for = wait_for or (lambda lane: ())
        self._stopping, self._interrupts = "", 0
        self._bug: BaseException | None = None
        self._loads: dict[Lane, asyncio.Task[None]] = {}
        self._loader = ThreadPoolExecutor(1, "texts")
        """One thread for all lanes: several would wait for each other, and each keep memory of its own."""
        self._claims: dict[int, Claim] = {}
        self._told: set[tuple[str, str]] = set()
        self.ended = Ended()

    # the run

    async def run(self) -> Ended:
        """Ask until nothing is left, or something stops it; what is under way is then drained."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._waiting = asyncio.Event()
        self.log.on_kept, self.log.on_pending = self._kept, self._pending
        ticking, self._writer = self.start(self._tick()), self.start(self._write())
        with self._signals(), _rare_collections():
            try:
                await asyncio.gather(*(desk.serve(self) for desk in self._desks))
            except asyncio.CancelledError:
                self.stop("interrupted")
            except BaseException:
                self.stop("error")
                raise
            finally:
                try:
                    await self._drain()
                    self.tell()
                finally:
                    ticking.cancel()
                    self._writer.cancel()
                    self.log.on_kept = self.log.on_pending = None
                    self._loader.shutdown(wait=False)
                    for desk in self._desks:
                        await desk.close()
        if self._bug is not None:
            raise self._bug
        if self.log.failure is not None:
            self.ended.reason, self.ended.error = "storage", self.log.failure
        return self.ended

    def time(self) -> float:
        """Return the loop's clock."""
        return self._loop.time()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be sent."""
        return bool(self._stopping)

    def stop(self, reason: str, error: ConsensoError | None = None) -> None:
        """Send nothing more; what is under way ends."""
        if not self._stopping:
            self._stopping = self.ended.reason = reason
            self.ended.error = error
        self.wake()

    def interrupt(self, reason: str) -> None:
        """Stop for a signal; the second one gives up on what is under way too."""
        self._interrupts += 1
        if self._interrupts > 1:
            for desk in self._desks:
                desk.cancel()
        self.stop(reason)

    def wake(self) -> None:
        """Let every desk look again at what it may do."""
        for desk in self._desks:
            desk.changed.set()

    def give_up(self, lane: Lane, why: str, *, misconfigured: bool = False) -> None:
        """Ask a lane nothing more; whoever waits for its answers goes on."""
        if lane.down is None:
            lane.down, lane.misconfigured = why, misconfigured
            others = any(other.down is None for desk in self._desks for other in desk.lanes)
            logger.log(logging.WARNING if others else logging.INFO, "%s: %s", lane.tally.name, why)
        self.wake()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task whose bugs end the run instead of being lost."""
        task = self._loop.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bug = self._bug or bug
            self.stop("error")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain, where this is the main thread."""
        caught: list[signal.Signals] = []
        if threading.current_thread() is threading.main_thread():
            for number, reason in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    self._loop.add_signal_handler(number, self.interrupt, reason)
                    caught.append(number)
        try:
            yield
        finally:
            for number in caught:
                self._loop.remove_signal_handler(number)

    async def _drain(self) -> None:
        """Take back what was not sent, wait for what was, and for the disk."""
        await asyncio.gather(*(desk.drain(self, self._drain_s) for desk in self._desks))
        for task in list(self._loads.values()):
            await asyncio.wait([task])
        for claim in list(self._claims.values()):  # what is left was sent and never answered
            self.log.unclaim(claim.number, list(claim.open.items()))
        while self.log.waiting and self.log.failure is None and not self._writer.done():
            await asyncio.sleep(0.001)

    # the disk

    async def _write(self) -> None:
        """Commit what waits, group by group; the disk is waited for in a thread of its own."""
        with ThreadPoolExecutor(1, "vote log") as disk:
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                while self.log.begin():
                    commit = disk.submit(self.log.commit)
                    try:
                        await asyncio.shield(asyncio.wrap_future(commit))
                    finally:  # also when the run ends: what has begun is committed before it counts
                        commit.result()
                        self.log.tell()
                    await asyncio.sleep(GROUP_S)

    def _pending(self) -> None:
        if threading.get_ident() == self._thread:
            self._waiting.set()
        else:
            self._loop.call_soon_threadsafe(self._waiting.set)

    def keep(self, desk: Place, job: Job, outcome: Outcome) -> None:
        """Store an answer."""
        tally = job.lane.tally
        tally.add(outcome.status, outcome.label)
        tally.tokens_in += outcome.tokens_in or 0
        tally.tokens_out += outcome.tokens_out or 0
        tally.cost += outcome.cost or 0.0
        self._panel.add(job.text_id, tally.name, outcome.label)
        desk.uncommitted += 1
        self.log.keep(outcome, (desk, job))
        self._strike(job)

    def _kept(self, marks: list[tuple[Place, Job]], kept: bool) -> None:
        for desk, job in marks:
            desk.uncommitted -= 1
            if kept:
                self._close(job)
        for desk in {desk for desk, _ in marks}:
            desk.changed.set()
        if not kept:
            self.stop("storage", self.log.failure)
        if self.purse.budget is not None:
            self.wake()  # what was reserved and not spent is free again

    def _close(self, job: Job) -> None:
        lane, before = job.lane, job.lane.finished
        lane.open -= 1
        lane.under_way.discard(job.key)
        job.batch.open -= 1
        if not job.batch.open:
            lane.finish_batches()
            if lane.finished != before:
                self.wake()

    def claim(self, jobs: list[Job], told: Callable[[bool], None]) -> None:
        """Write that jobs are about to be sent: those sent for the first time together, the others one by one."""
        first = [(job.key, job.reserved) for job in jobs if not job.counted]
        if again := [(job.key, job.reserved) for job in jobs if job.counted]:
            self.log.intend(again, None if first else told)
        if first:
            claim = Claim(self.log.claim(first, told), dict(first))
            self._claims[claim.number] = claim
            for job in jobs:
                job.claim = None if job.counted else claim

    def _strike(self, job: Job) -> None:
        """Strike a job off its claim; the claim goes with its last."""
        if (claim := job.claim) is not None:
            claim.open.pop(job.key, None)
            if not claim.open and self._claims.pop(claim.number, None) is not None:
                self.log.unclaim(claim.number)

    async def note(self, jobs: list[Job]) -> bool:
        """Wait until a claim for jobs is on disk; False where it cannot be written."""
        told: asyncio.Future[bool] = self._loop.create_future()
        for job in jobs:
            job.sent = 1
        self.claim(jobs, told.set_result)
        return await told

    def give_back(self, desk: Place, job: Job) -> None:
        """Return a question that is not sent after all, or not again; the ledger keeps what may have been paid."""
        if job.counted and max(job.sent, 1) > job.unsure + job.reasked:  # the last that was noted was not processed
            self.log.release([(job.key, job.reserved)])
        if not job.unsure:
            self._strike(job)
        self.purse.settle(job.reserved, 0.0)
        job.lane.open -= 1
        self.wake()

    # batches of texts

    def load_next(self, lane: Lane) -> None:
        """Begin to load a lane's next batch, if it needs one and may have it."""
        if lane.down is not None or lane.loaded or len(lane.jobs) >= 1024 or lane in self._loads:
            return
        if all(other.has_passed(lane.next_batch) for other in self._wait_for(lane)):
            self._loads[lane] = self.start(self._load(lane))

    async def load(self, lane: Lane) -> None:
        """Load a lane's next batch in the thread that is there for it."""
        await self._loop.run_in_executor(self._loader, lane.load)

    async def _load(self, lane: Lane) -> None:
        try:
            await self.load(lane)
        except ConsensoError as error:
            self.stop("error", error)
        finally:
            del self._loads[lane]
            self.wake()

    # telling

    async def _tick(self) -> None:
        told = 0.0
        pause = min([TICK_S, *(desk.patience_s / 4 for desk in self._desks)])
        while True:
            await asyncio.sleep(pause)
            for desk in self._desks:
                desk.end_late()
            if self._loop.time() - told >= TICK_S:
                told = self._loop.time()
                self.tell()
                self._look_for_room()

    def _look_for_room(self) -> None:
        if not self._stopping and (free := self.log.free_bytes()) < self._free_bytes:
            self.stop(
                "storage",
                StorageError(
                    f"only {free / 1e6:.0f} MB left where {self.log.path} lies; nothing more was sent, make room and run "
                    "the same command again"
                ),
            )

    def tell(self) -> None:
        """Look for alarms, and tell progress."""
        lanes = [lane for desk in self._desks for lane in desk.lanes]
        for alarm in find_alarms([lane.tally for lane in lanes], self._panel):
            if alarm[:2] not in self._told:
                self._told.add(alarm[:2])
                self.ended.alarms.append(alarm)
                logger.warning("%s %s: %s", *alarm)
        if self._progress is None:
            return
        rows = [
            lane.tally.snapshot(self._panel.agreement(lane.tally.name)[0]) | {"down": lane.down} | desk.pace
            for desk in self._desks
            for lane in desk.lanes
        ]
        state = {"annotators": rows, "spent": self.purse.spent, "budget": self.purse.budget}
        self._progress({**state, "stopping": self._stopping, "alarms": self.ended.alarms})


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage cycles less often meanwhile: a request makes hundreds of objects and hardly a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 20_000), 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
