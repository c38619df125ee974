"""Batch files of OpenAI-style endpoints: half the price, answers within a day, the same keys and the same log.

A batch's questions are intents that name it, written before it is submitted; the batch carries our own name in its
metadata, so that one whose submission was cut off is found again. What a batch leaves unanswered is asked online, or in
the next batch.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from consenso.annotate.clients.protocol import CallError
from consenso.annotate.clients.transport import Transport, failure
from consenso.annotate.endpoints import Endpoint, batch_factor
from consenso.annotate.explaining import explain
from consenso.annotate.hosts import Place
from consenso.annotate.lanes import Job, LLMLane, OpenBatch
from consenso.annotate.limiting import patiently
from consenso.annotate.logreading import Key
from consenso.annotate.outcomes import of_reply
from consenso.annotate.reading import Answer
from consenso.annotate.running import Loop
from consenso.annotate.votelog import Outcome, VoteLog
from consenso.errors import ConsensoError

logger = logging.getLogger(__name__)

MOST_REQUESTS = 50_000
MOST_BYTES = 150_000_000
"""What one batch file may hold (OpenAI: 50,000 requests, 200 MB)."""
POLL_S = (2.0, 60.0)
"""Pause between two looks at a batch: at first, and at most."""
ENDED = ("completed", "failed", "expired", "cancelled", "gone")
"""States in which a batch is done."""


OPEN = ("submitting", "submitted")
"""States, in the log, of a batch that may hold answers."""
REFUSED = ("auth", "quota", "missing", "request", "too_long", "filtered")
"""Kinds of failures that certainly came before any work."""


class _UnsureError(Exception):
    """Nobody knows whether a batch was made."""

    def __init__(self, error: CallError) -> None:
        super().__init__(str(error))
        self.error = error


def line_id(key: Key) -> str:
    """Return the custom_id of a question: found again from the log alone."""
    return hashlib.sha256(f"{key.asker}\0{key.text_id}\0{key.digest.hex()}\0{key.repetition}".encode()).hexdigest()[:40]


class BatchDesk(Place):
    """An endpoint's batch files in this run: submits, waits, collects."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        lanes: Sequence[LLMLane],
        log: VoteLog,
        *,
        online: Sequence[LLMLane] = (),
        wait: bool = True,
        poll_s: float | None = None,
    ) -> None:
        """`wait`: stay until all batches are done; else submit, collect what is there, and leave.

        `online`: lanes that another desk asks, whose batches of earlier runs are to be collected.
        """
        super().__init__(lanes)
        self.endpoint, self.transport, self._log = endpoint, transport, log
        self._wait = wait and bool(lanes)
        self._asked, self._online = list(lanes), list(online)
        self._poll_s = POLL_S[0] if poll_s is None else poll_s
        rows = {lane.row for lane in self._all}
        self._batches = [batch for batch in log.batches() if batch["asker"] in rows and batch["status"] in OPEN]
        self._held = {
            batch["batch"]: sum(reserved for _, reserved in log.in_batch(batch["batch"])) for batch in self._batches
        }
        """Batch → USD reserved for what it has not answered."""
        self._failing: dict[str, float] = {}
        """Batch → since when every look at it has failed."""
        self._left: set[str] = set()
        """Batches of lanes asked online that are left to the next run."""
        self._refused: set[int] = set()
        """Rows of lanes given up because a file of theirs was refused: their other batches are collected."""
        self._posting = False
        self._work: asyncio.Task[None] | None = None
        self._loading: asyncio.Future[None] | None = None

    @property
    def _all(self) -> list[LLMLane]:
        return [*self._asked, *self._online]

    @property
    def held(self) -> float:
        """USD reserved in its batches."""
        return sum(self._held.values())

    async def close(self) -> None:
        """Close the session."""
        await self.transport.close()

    async def serve(self, loop: Loop) -> None:
        """Submit what is to be asked, and collect what comes back; what can be broken off ends when the run is to stop."""
        self._work = loop.start(self._serve(loop))
        try:
            while not self._work.done() and not loop.stopping:
                self.changed.clear()
                change = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait({self._work, change}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            if not self._posting:
                self.cancel()

    def cancel(self) -> None:
        """Give up on what is under way; a submission is found again by the next run."""
        if self._work is not None:
            self._work.cancel()

    async def drain(self, loop: Loop, seconds: float) -> None:
        """Wait for a submission under way, and for what reads texts in a thread."""
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work], timeout=seconds if self._posting else 5)
            self.cancel()
            await asyncio.wait([self._work], timeout=5)
        if self._loading is not None and not self._loading.done():
            await asyncio.wait([self._loading])

    async def _load(self, lane: LLMLane, loop: Loop) -> None:
        self._loading = asyncio.ensure_future(loop.load(lane))
        await asyncio.shield(self._loading)

    async def _serve(self, loop: Loop) -> None:
        for lane in self._asked:
            await self._guarded(lane, self._adopt(lane, loop), loop)
        pause = self._poll_s
        while not loop.stopping:
            for lane in self._asked:
                await self._guarded(lane, self._submit(lane, loop), loop)
            done = [await self._look(batch, loop) for batch in self._open(self._all)]
            if not any(done) and (not self._wait or not (self._open(self._asked) or self._short())):
                break
            if not any(done):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, POLL_S[1])
        for batch in list(self._held):
            self._settle(batch, loop, None, paid=True)
        loop.wake()

    async def _guarded(self, lane: LLMLane, work: Coroutine[Any, Any, None], loop: Loop) -> None:
        """Do something for a lane, and give the lane up where it fails."""
        if lane.down is not None:
            work.close()
            return
        try:
            await work
        except CallError as error:
            self._give_up(lane, error, loop)
        except ConsensoError as error:
            loop.stop("error", error)

    def _give_up(self, lane: LLMLane, error: CallError, loop: Loop) -> None:
        wrong = error.kind in {"auth", "missing", "request", "quota"}
        loop.give_up(lane, explain(self.endpoint, lane.asker.model, error), misconfigured=wrong)

    def _is_up(self, lane: LLMLane) -> bool:
        return lane.down is None or lane.row in self._refused

    def _open(self, lanes: Sequence[LLMLane]) -> list[dict[str, Any]]:
        up = {lane.row for lane in lanes if self._is_up(lane)}
        return [
            batch
            for batch in self._batches
            if batch["status"] == "submitted" and batch["asker"] in up and batch["batch"] not in self._left
        ]

    def _short(self) -> bool:
        """Whether something waits for money."""
        return any(lane.jobs and lane.down is None for lane in self._asked)

    def _settle(self, batch: str, loop: Loop, reserved: float | None, *, paid: bool = False) -> None:
        """Free what is reserved for some of a batch's questions, or for all that are left; `paid`: count it as spent."""
        left = self._held.get(batch, 0.0)
        freed = left if reserved is None else min(reserved, left)
        if reserved is None:
            self._held.pop(batch, None)
        else:
            self._held[batch] = left - freed
        loop.purse.settle(freed, freed if paid else 0.0)

    # submitting

    async def adopt(self, lane: LLMLane) -> float:
        """Find batches again whose submission was cut off; free their questions if they never came to be.

        Returns the USD that were reserved for these.
        """
        freed = 0.0
        for batch in self._batches:
            if batch["status"] != "submitting" or batch["asker"] != lane.row:
                continue
            found = await self._by_name(batch["batch"])
            if found is not None:
                self._note(batch, "submitted", {"id": found["id"]})
            else:
                self._log.end_batch(batch["batch"], paid=False)
                self._note(batch, "never submitted", {})
                freed += self._held.pop(batch["batch"], 0.0)
        await self._log.written()
        return freed

    async def _adopt(self, lane: LLMLane, loop: Loop) -> None:
        loop.purse.settle(await self.adopt(lane), 0.0)

    async def _by_name(self, name: str) -> dict[str, Any] | None:
        after = ""
        while True:
            page = _object(await self._get(f"/batches?limit=100{after}"))
            listed = [batch for batch in page.get("data") or () if isinstance(batch, dict)]
            for batch in listed:
                metadata = batch.get("metadata")
                if isinstance(metadata, dict) and metadata.get("consenso") == name:
                    return batch
            before, after = after, f"&after={listed[-1].get('id')}" if listed else ""
            if not page.get("has_more") or not listed or after == before:
                return None

    def _get(self, path: str) -> Awaitable[Any]:
        return patiently(partial(self.transport.get, path), self.endpoint.patience_s)

    async def _submit(self, lane: LLMLane, loop: Loop) -> None:
        while not loop.stopping and lane.down is None:
            while len(lane.jobs) < MOST_REQUESTS and not lane.loaded:
                await self._load(lane, loop)
            if not lane.jobs:
                return
            with tempfile.TemporaryDirectory(prefix="consenso-") as folder:
                path = Path(folder) / "requests.jsonl"
                jobs = self._write(lane, path, loop)
                if jobs:
                    await self._send(lane, path, jobs, loop)
                elif lane.jobs:  # there is no money for them now; before answers are collected, all texts are counted
                    while not lane.loaded:
                        await self._load(lane, loop)
                    return

    def _write(self, lane: LLMLane, path: Path, loop: Loop) -> list[Job]:
        """Write the next jobs that fit into one file and into the budget, and return them."""
        jobs: list[Job] = []
        size = 0
        url = "/v1" + lane.client.path
        with path.open("wb") as file:
            while lane.jobs and len(jobs) < MOST_REQUESTS and size < MOST_BYTES:
                job = lane.jobs.popleft()
                lane.open += 1
                if (why := lane.prepare(job)) is not None:
                    loop.keep(self, job, Outcome(job.key, "truncated", error=why, requests=0))
                    continue
                job.reserved *= batch_factor()
                if not loop.purse.reserve(job.reserved):
                    lane.open -= 1
                    lane.jobs.appendleft(job)
                    if not jobs and loop.purse.reserved <= 1e-9:
                        loop.stop("budget")
                    break
                head = json.dumps({"custom_id": line_id(job.key), "method": "POST", "url": url})[:-1]
                line = head.encode() + b', "body": ' + job.body + b"}\n"
                size += len(line)
                file.write(line)
                jobs.append(job)
        return jobs

    async def _send(self, lane: LLMLane, path: Path, jobs: list[Job], loop: Loop) -> None:
        name = f"consenso-{secrets.token_hex(8)}"
        batch = {"batch": name, "asker": lane.row, "endpoint": self.endpoint.name, "record": {"requests": len(jobs)}}
        self._batches.append(batch)
        self._held[name] = sum(job.reserved for job in jobs)
        lane.open -= len(jobs)
        self._log.intend([(job.key, job.reserved) for job in jobs], batch=name)
        self._note(batch, "submitting", {})
        if not await self._log.written():
            loop.stop("storage", self._log.failure)
            return
        try:
            upload = partial(self.transport.upload, "/files", path, {"purpose": "batch"})
            uploaded = _made(await patiently(upload, self.endpoint.patience_s))
            made = await self._create(lane, batch, uploaded["id"])
            self._note(batch, "submitted", {"id": made["id"], "input_file_id": uploaded["id"]})
        except _UnsureError as unsure:
            raise unsure.error from None
        except BaseException as error:
            if not batch.get("posted"):  # nothing can have come of it
                self._log.end_batch(name, paid=False)
                self._note(batch, "never submitted", {"error": str(error)})
                self._settle(name, loop, None)
            raise
        await self._log.written()
        lane.tally.waiting += len(jobs)
        logger.info("%s: batch %s with %d requests submitted", lane.tally.name, made["id"], len(jobs))

    async def _create(self, lane: LLMLane, batch: dict[str, Any], file: str) -> dict[str, Any]:
        """Make a batch; where it is not sure whether it was made, it is looked for, and never made a second time."""
        body = {
            "input_file_id": file,
            "endpoint": "/v1" + lane.client.path,
            "completion_window": "24h",
            "metadata": {"consenso": batch["batch"]},
        }

        async def create() -> dict[str, Any]:
            self._posting = batch["posted"] = True
            try:
                return _made(await self.transport.post("/batches", body))
            except CallError as error:
                if error.kind in REFUSED or (error.kind == "connection" and not error.maybe_paid):
                    batch["posted"] = False
                    raise
                try:
                    found = await self._by_name(batch["batch"])
                except CallError:
                    raise _UnsureError(error) from None
                if found is None and error.kind == "rate":
                    raise
                if found is None:
                    raise _UnsureError(error) from None
                return found
            finally:
                self._posting = False

        try:
            return await patiently(create, self.endpoint.patience_s)
        except CallError as error:
            if batch["posted"]:
                raise _UnsureError(error) from None
            raise

    def _note(self, batch: dict[str, Any], status: str, more: dict[str, Any]) -> None:
        batch["record"], batch["status"] = {**batch["record"], **more}, status
        self._log.note_batch(batch["batch"], batch["asker"], batch["endpoint"], status, batch["record"])

    # collecting

    async def _look(self, batch: dict[str, Any], loop: Loop) -> bool:
        """Look at a batch, and collect it if it is done; returns whether it was."""
        lane = next(lane for lane in self._all if lane.row == batch["asker"])
        name = batch["batch"]
        if not self._is_up(lane):
            return False
        try:
            state = await self._state(batch)
            if state["status"] not in ENDED:
                self._failing.pop(name, None)
                return False
            while not lane.loaded and self._is_up(lane):  # what waits must be counted before it is answered
                if lane in self._asked or loop.purse.budget is not None:
                    await self._load(lane, loop)
                else:
                    await asyncio.sleep(0.1)
            await self._collect(batch, state, lane, loop)
        except ConsensoError as error:
            loop.stop("error", error)
            return False
        except CallError as error:
            lane.tally.errors += 1
            lane.tally.last_error = str(error)
            since = self._failing.setdefault(name, loop.time())
            if error.kind not in REFUSED and loop.time() - since < self.endpoint.patience_s:
                return False
            if lane in self._asked:
                self._give_up(lane, error, loop)
            else:
                self._left.add(name)
                logger.warning("%s: batch %s cannot be collected (%s)", lane.tally.name, batch["record"]["id"], error)
            return False
        self._failing.pop(name, None)
        return True

    async def _state(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            state = _object(await self.transport.get(f"/batches/{batch['record']['id']}"))
        except CallError as error:
            if error.kind != "missing" or await self._by_name(batch["batch"]) is not None:
                raise
            return {"id": batch["record"]["id"], "status": "gone"}
        if not isinstance(state.get("status"), str):
            raise CallError("body", "the answer tells no batch's status")
        return state

    async def _collect(self, batch: dict[str, Any], state: dict[str, Any], lane: LLMLane, loop: Loop) -> None:
        await self._log.written()
        keys = {line_id(key): (key, reserved) for key, reserved in self._log.in_batch(batch["batch"])}
        if state["status"] == "failed" and not state.get("output_file_id") and lane in self._asked:
            self._refused.add(lane.row)
            loop.give_up(lane, f"{self.endpoint.name} refuses the batch file ({_words(state)})", misconfigured=True)
        offered = await asyncio.to_thread(self._offered, lane, {key.text_id for key, _ in keys.values()})
        opened = OpenBatch(-1, [])
        gone = state["status"] == "gone"
        for name in ("output_file_id", "error_file_id"):
            try:
                async for line in self._lines(state.get(name)):
                    if (found := keys.pop(str(line.get("custom_id")), None)) is not None:
                        key, reserved = found
                        lane.open += 1
                        lane.tally.waiting -= 1
                        opened.open += 1
                        job = Job(
                            lane, key, key.text_id, "", offered.get(key.text_id), opened, counted=True, sent=1, requests=1,
                            reserved_in_all=reserved,
                        )  # fmt: skip
                        self._settle(batch["batch"], loop, reserved)
                        self._read(job, line, loop)
            except CallError as error:
                if error.kind != "missing":
                    raise
                gone = True
        lane.tally.waiting -= len(keys)
        self._log.end_batch(batch["batch"], paid=gone)
        self._note(
            batch,
            state["status"],
            {"counts": state.get("request_counts"), "left": len(keys), "errors": state.get("errors")},
        )
        self._settle(batch["batch"], loop, None, paid=gone)
        if not await self._log.written():
            loop.stop("storage", self._log.failure)
        loop.wake()
        if keys:
            logger.warning(
                "%s: batch %s left %d requests unanswered (%s); the next run asks them",
                lane.tally.name,
                state.get("id"),
                len(keys),
                state["status"],
            )

    async def _lines(self, file: str | None) -> AsyncIterator[dict[str, Any]]:
        """The results in an output or error file."""
        if file:
            async for line in self.transport.lines(f"/files/{file}/content"):
                if line.strip():
                    yield _read_line(line)

    def _read(self, job: Job, line: dict[str, Any], loop: Loop) -> None:
        """One line of an output or error file → an answer."""
        lane = job.lane
        assert isinstance(lane, LLMLane)
        response, error = line.get("response"), line.get("error")
        response = response if isinstance(response, dict) else {}
        if (code := response.get("status_code")) != 200:
            code = code if isinstance(code, int) else 500
            what = failure(code, json.dumps(response.get("body") or error or {}).encode(), {})
            status = {"too_long": "truncated", "filtered": "refused"}.get(what.kind, "failed")
            lane.tally.last_error = str(what)
            loop.keep(
                self, job, Outcome(job.key, status, error=f"batch: {what}", known=1, reserved=job.reserved_in_all)
            )
            return
        try:
            reply = lane.client.read(response.get("body"))
        except CallError as broken:
            loop.keep(
                self, job, Outcome(job.key, "failed", error=f"batch: {broken}", known=1, reserved=job.reserved_in_all)
            )
            return
        cost = lane.asker.cost(reply.tokens_in, reply.tokens_out, reply.cached)
        cost = None if cost is None else cost * batch_factor()
        loop.purse.settle(0.0, job.reserved_in_all if reply.tokens_in is None else cost or 0.0)
        job.tokens_in, job.tokens_out, job.cost = reply.tokens_in, reply.tokens_out, cost
        answer = Answer(None, "refused") if reply.refusal else lane.reader(job.offered).read(reply.text, reply.finish)
        loop.keep(self, job, of_reply(job, lane, reply, answer))

    def _offered(self, lane: LLMLane, ids: set[str]) -> dict[str, tuple[str, ...] | None]:
        """The labels that each of these texts was narrowed to; empty where none was."""
        found: dict[str, tuple[str, ...] | None] = {}
        for text_id, labels in _narrowed(lane):
            if text_id in ids:
                found[text_id] = labels
        return found


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CallError("body", f"the answer is no JSON object: {str(value)[:80]}", maybe_paid=True)
    return value


def _made(value: Any) -> dict[str, Any]:
    made = _object(value)
    if not isinstance(made.get("id"), str):
        raise CallError("body", "the answer has no id", maybe_paid=True)
    return made


def _read_line(line: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(line))
    except ValueError:
        raise CallError("body", f"a batch's results are no JSON lines: {line[:80].decode(errors='replace')}") from None


def _words(state: dict[str, Any]) -> str:
    """What the provider says of a batch that failed."""
    errors = state.get("errors")
    errors = [one for one in (errors.get("data") or () if isinstance(errors, dict) else ()) if isinstance(one, dict)]
    return (
        "; ".join(dict.fromkeys(str(error.get("message") or error.get("code")) for error in errors[:3]))
        or "no reason given"
    )


def _narrowed(lane: LLMLane) -> Iterator[tuple[str, tuple[str, ...]]]:
    for batch in lane.source.batches():
        if batch.offered is None:
            return
        filed, _ = lane.filed(batch)
        yield from zip(filed, batch.offered)
