"""The desk at which annotators of this process answer, one after the other: each has the machine to itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from consenso.annotate.hosts import Place
from consenso.annotate.lanes import Job, LocalLane
from consenso.annotate.outcomes import of_reading
from consenso.annotate.running import Loop
from consenso.errors import ConsensoError

logger = logging.getLogger(__name__)


class LocalDesk(Place):
    """Lets models and functions answer in a thread, batch by batch of texts."""

    def __init__(self, lanes: Sequence[LocalLane]) -> None:
        super().__init__(lanes)
        self._lanes = list(lanes)

    async def serve(self, loop: Loop) -> None:
        """Ask until nothing is left."""
        for lane in self._lanes:
            while not loop.stopping and not lane.exhausted:
                self.changed.clear()
                loop.load_next(lane)
                if not lane.jobs:
                    await self.changed.wait()
                    continue
                jobs = [lane.jobs.popleft() for _ in range(min(lane.asker.batch_size, len(lane.jobs)))]
                lane.open += len(jobs)
                if await loop.note(jobs):
                    await self._answer(lane, jobs, loop)

    async def _answer(self, lane: LocalLane, jobs: list[Job], loop: Loop) -> None:
        started = time.perf_counter()
        try:
            readings = await asyncio.to_thread(
                lane.asker.answer, [job.text for job in jobs], [job.offered for job in jobs]
            )
        except ConsensoError as error:
            loop.give_up(lane, str(error), misconfigured=True)
        except Exception as error:
            logger.info("%s", lane.tally.name, exc_info=True)
            loop.give_up(lane, f"raised {type(error).__name__}: {error}", misconfigured=True)
        if lane.down is not None:
            for job in jobs:
                loop.give_back(self, job)
            return
        lane.proven = True
        seconds = (time.perf_counter() - started) / len(jobs)
        for job, reading in zip(jobs, readings):
            job.requests = 1
            lane.tally.latency_sum += seconds
            loop.keep(self, job, of_reading(job, reading, seconds))
