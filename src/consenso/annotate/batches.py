"""Batch files of OpenAI-style endpoints: half the price, answers within a day, the same keys and the same log.

A batch's questions are intents that name it, written before it is submitted; the batch carries our own name in its
metadata, so that one whose submission was cut off is found again. What a batch leaves unanswered is asked online, or in
the next batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from consenso.annotate.clients.protocol import CallError
from consenso.annotate.clients.transport import Transport, failure
from consenso.annotate.endpoints import Endpoint, batch_factor
from consenso.annotate.explaining import explain
from consenso.annotate.hosts import Place
from consenso.annotate.lanes import Job, LLMLane, OpenBatch
from consenso.annotate.logreading import Key
from consenso.annotate.outcomes import of_reply
from consenso.annotate.reading import Answer
from consenso.annotate.running import Loop
from consenso.annotate.votelog import Outcome, VoteLog

logger = logging.getLogger(__name__)

MOST_REQUESTS = 50_000
MOST_BYTES = 150_000_000
"""What one batch file may hold (OpenAI: 50,000 requests, 200 MB)."""
POLL_S = (2.0, 60.0)
"""Pause between two looks at a batch: at first, and at most."""
PENDING = ("validating", "in_progress", "finalizing", "cancelling")
"""States in which a batch is not done."""


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
        wait: bool = True,
        poll_s: float | None = None,
    ) -> None:
        """`wait`: stay until all batches are done; else submit, collect what is there, and leave."""
        super().__init__(lanes)
        self.endpoint, self.transport, self._log, self._wait = endpoint, transport, log, wait
        self._poll_s = POLL_S[0] if poll_s is None else poll_s

    async def close(self) -> None:
        """Close the session."""
        await self.transport.close()

    async def serve(self, loop: Loop) -> None:
        """Submit what is to be asked, and collect what comes back."""
        for lane in self.lanes:
            if lane.down is None and isinstance(lane, LLMLane):
                try:
                    await self._adopt(lane)
                    await self._submit(lane, loop)
                except CallError as error:
                    lane.down = explain(self.endpoint, lane.asker.model, error)
                    logger.warning("%s: %s", lane.tally.name, lane.down)
        pause = self._poll_s
        while not loop.stopping and (open_ := self._open()):
            done = [await self._look(batch, loop) for batch in open_]
            if not self._wait and not any(done):
                return
            if not all(done):
                with contextlib.suppress(TimeoutError):
                    self.changed.clear()
                    await asyncio.wait_for(self.changed.wait(), pause)
                pause = min(pause * 1.5, POLL_S[1])

    def _mine(self) -> list[dict[str, Any]]:
        rows = {lane.row for lane in self.lanes}
        return [batch for batch in self._log.batches() if batch["asker"] in rows]

    def _open(self) -> list[dict[str, Any]]:
        return [batch for batch in self._mine() if batch["status"] in {*PENDING, "submitted"}]

    # submitting

    async def _adopt(self, lane: LLMLane) -> None:
        """Find a batch again whose submission was cut off; free its questions if it never came to be."""
        for batch in self._mine():
            if batch["status"] != "submitting" or batch["asker"] != lane.row:
                continue
            found = await self._by_name(batch["batch"])
            if found is not None:
                self._note(batch, "submitted", {"id": found["id"]})
            else:
                self._log.end_batch(batch["batch"], paid=False)
                self._note(batch, "never submitted", {})

    async def _by_name(self, name: str) -> dict[str, Any] | None:
        after = ""
        while True:
            page = json.loads(await self.transport.call("GET", f"/batches?limit=100{after}"))
            for batch in page.get("data") or ():
                if (batch.get("metadata") or {}).get("consenso") == name:
                    return dict(batch)
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after={page['data'][-1]['id']}"

    async def _submit(self, lane: LLMLane, loop: Loop) -> None:
        while not loop.stopping:
            while len(lane.jobs) < MOST_REQUESTS and not lane.loaded:
                await loop.load(lane)
            if not lane.jobs:
                return
            with tempfile.TemporaryDirectory(prefix="consenso-") as folder:
                path = Path(folder) / "requests.jsonl"
                jobs = self._write(lane, path, loop)
                if jobs:
                    await self._send(lane, path, jobs, loop)

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
        self._log.intend([(job.key, job.reserved) for job in jobs], batch=name)
        await asyncio.to_thread(self._note, batch, "submitting", {})
        try:
            uploaded = await self.transport.upload("/files", path, {"purpose": "batch"})
            body = {
                "input_file_id": uploaded["id"],
                "endpoint": "/v1" + lane.client.path,
                "completion_window": "24h",
                "metadata": {"consenso": name},
            }
            made = json.loads(await self.transport.call("POST", "/batches", data=json.dumps(body).encode()))
        except CallError as error:
            if not error.maybe_paid and error.kind != "timeout":
                self._log.end_batch(name, paid=False)
                self._note(batch, "never submitted", {"error": str(error)})
            raise
        self._note(batch, "submitted", {"id": made["id"], "input_file_id": uploaded["id"]})
        lane.tally.waiting += len(jobs)
        lane.open -= len(jobs)
        logger.info("%s: batch %s with %d requests submitted", lane.tally.name, made["id"], len(jobs))

    def _note(self, batch: dict[str, Any], status: str, more: dict[str, Any]) -> None:
        batch["record"] = {**batch["record"], **more}
        self._log.note_batch(batch["batch"], batch["asker"], batch["endpoint"], status, batch["record"])

    # collecting

    async def _look(self, batch: dict[str, Any], loop: Loop) -> bool:
        """Look at a batch, and collect it if it is done; returns whether it was."""
        lane = next(lane for lane in self.lanes if lane.row == batch["asker"])
        assert isinstance(lane, LLMLane)
        try:
            state = json.loads(await self.transport.call("GET", f"/batches/{batch['record']['id']}"))
        except CallError as error:
            lane.tally.errors += 1
            lane.tally.last_error = str(error)
            if error.kind in {"auth", "missing", "quota"}:
                lane.down = explain(self.endpoint, lane.asker.model, error)
                self._note(batch, "submitted", {})
                return True
            return False
        status = state.get("status", "")
        if status in PENDING:
            return False
        await self._collect(batch, state, lane, loop)
        return True

    async def _collect(self, batch: dict[str, Any], state: dict[str, Any], lane: LLMLane, loop: Loop) -> None:
        keys = {line_id(key): (key, reserved) for key, reserved in self._log.in_batch(batch["batch"])}
        if state.get("status") == "failed" and not state.get("output_file_id"):
            lane.down, lane.misconfigured = f"{self.endpoint.name} refuses the batch file ({_words(state)})", True
            logger.warning("%s: %s", lane.tally.name, lane.down)
        offered = await asyncio.to_thread(self._offered, lane, {key.text_id for key, _ in keys.values()})
        opened = OpenBatch(-1, [])
        for name in ("output_file_id", "error_file_id"):
            if state.get(name):
                async for line in self.transport.lines(f"/files/{state[name]}/content"):
                    if line.strip() and (found := self._take(line, keys)) is not None:
                        key, reserved = found
                        lane.open += 1
                        lane.tally.waiting -= 1
                        opened.open += 1
                        job = Job(
                            lane, key, key.text_id, "", offered.get(key.text_id), opened, counted=True, sent=1, requests=1,
                            reserved_in_all=reserved,
                        )  # fmt: skip
                        self._read(job, json.loads(line), loop)
        lane.tally.waiting -= len(keys)
        while self.uncommitted and not loop.stopping:
            await asyncio.sleep(0.01)
        self._log.end_batch(batch["batch"], paid=False)
        self._note(
            batch,
            state.get("status", "gone"),
            {"counts": state.get("request_counts"), "left": len(keys), "errors": state.get("errors")},
        )
        if keys:
            logger.warning(
                "%s: batch %s left %d requests unanswered (%s); the next run asks them",
                lane.tally.name,
                state.get("id"),
                len(keys),
                state.get("status"),
            )

    def _take(self, line: bytes, keys: dict[str, tuple[Key, float]]) -> tuple[Key, float] | None:
        try:
            return keys.pop(json.loads(line)["custom_id"], None)
        except (ValueError, KeyError, TypeError):
            return None

    def _read(self, job: Job, line: dict[str, Any], loop: Loop) -> None:
        """One line of an output or error file → an answer."""
        lane = job.lane
        assert isinstance(lane, LLMLane)
        response, error = line.get("response") or {}, line.get("error")
        if response.get("status_code") != 200:
            what = failure(
                int(response.get("status_code") or 500), json.dumps(response.get("body") or error or {}).encode(), {}
            )
            status = {"too_long": "truncated", "filtered": "refused"}.get(what.kind, "failed")
            lane.tally.last_error = str(what)
            loop.keep(
                self, job, Outcome(job.key, status, error=f"batch: {what}", known=1, reserved=job.reserved_in_all)
            )
            return
        try:
            reply = lane.client.read(response["body"])
        except CallError as broken:
            loop.keep(
                self, job, Outcome(job.key, "failed", error=f"batch: {broken}", known=1, reserved=job.reserved_in_all)
            )
            return
        cost = lane.asker.cost(reply.tokens_in, reply.tokens_out, reply.cached)
        cost = None if cost is None else cost * batch_factor()
        loop.purse.settle(0.0, cost or 0.0)
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


def _words(state: dict[str, Any]) -> str:
    """What the provider says of a batch that failed."""
    errors = (state.get("errors") or {}).get("data") or []
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
