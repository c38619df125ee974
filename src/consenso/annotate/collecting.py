"""All annotators, all texts: set up the lanes, run the loop, say what is missing, read the votes off the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from consenso.annotate.askers import Asker
from consenso.annotate.batches import OPEN, BatchDesk
from consenso.annotate.budget import Purse
from consenso.annotate.clients import CLIENTS, CallError
from consenso.annotate.clients.transport import Transport
from consenso.annotate.dispatching import Dispatcher
from consenso.annotate.endpoints import Endpoint
from consenso.annotate.explaining import explain
from consenso.annotate.hosts import Place
from consenso.annotate.lanes import Lane, LLMLane, LocalLane
from consenso.annotate.local.askers import LocalAsker
from consenso.annotate.local.desk import LocalDesk
from consenso.annotate.logreading import ANSWER_COLUMNS, Ledger, unpack
from consenso.annotate.probing import pin
from consenso.annotate.running import Ended, Loop
from consenso.annotate.settings import AnnotateSettings
from consenso.annotate.settling import Settling
from consenso.annotate.sources import TextSource
from consenso.annotate.tallies import Panel, Tally
from consenso.annotate.votelog import VoteLog
from consenso.errors import BudgetError, ConfigError, EndpointError, IncompleteError, StoppedError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]


@dataclass
class Voters:
    """Who is asked through the vote log."""

    askers: list[Asker]
    """LLM annotators and their variants."""
    local: list[LocalAsker]
    """Annotators in this process."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where API keys are."""

    @property
    def any(self) -> bool:
        """Whether anybody is asked."""
        return bool(self.askers or self.local)


@dataclass
class Asked:
    """What a run over all annotators came to."""

    lanes: list[Lane]
    """The annotators, variants among them, in order."""
    ended: Ended
    """How the loop ended."""
    ledger: Ledger
    """What the log can say."""
    failed_limit: float = 0.05
    """Share of an annotator's answers that may have failed."""
    notes: list[str] = field(default_factory=list)
    """Alarms, and who was given up, in one line each."""

    @property
    def tallies(self) -> list[Tally]:
        """The annotators' counts."""
        return [lane.tally for lane in self.lanes]

    @property
    def voters(self) -> Voters:
        """Who was asked, with what was found out about them (digests, what endpoints honour)."""
        askers = [lane.asker for lane in self.lanes if isinstance(lane, LLMLane)]
        return Voters(askers, [lane.asker for lane in self.lanes if isinstance(lane, LocalLane)])

    @property
    def variant_lanes(self) -> list[Lane]:
        """Variants."""
        return [lane for lane in self.lanes if isinstance(lane, LLMLane) and lane.asker.variant_of]

    @property
    def failed(self) -> int:
        """Answers of this run that failed; the next run asks them again."""
        return sum(tally.statuses["failed"] for tally in self.tallies)

    @property
    def missing(self) -> int:
        """Questions without an answer."""
        return sum(max(0, tally.total - tally.done) for tally in self.tallies)

    def raise_incomplete(self) -> None:
        """Raise what keeps the votes from being complete; nothing where they are."""
        done, total = sum(t.done for t in self.tallies), sum(t.total for t in self.tallies)
        so_far = f"{done:,} of {total:,} answers are in the log"
        reason = self.ended.reason
        if reason in {"storage", "error"} and self.ended.error is not None:
            raise self.ended.error
        if reason in {"interrupted", "terminated"}:
            raise StoppedError(
                f"{reason}: {so_far}; the same command goes on, nothing is asked twice",
                terminated=reason == "terminated",
            )
        if reason == "budget":
            spent = self.ledger.cost + self.ledger.lost_cost
            raise BudgetError(
                f"the budget is reached: {so_far}, {spent:.4f} USD spent; raise annotate.budget and run the same command again"
            )
        given_up = [lane for lane in self.lanes if lane.down is not None]
        if given_up:
            why = "; ".join(dict.fromkeys(f"{lane.tally.name}: {lane.down}" for lane in given_up))
            if len(given_up) == len(self.lanes) and not any(tally.answered for tally in self.tallies):
                raise EndpointError(why, misconfigured=all(lane.misconfigured for lane in given_up))
            raise IncompleteError(f"{why} ({so_far}; the same command goes on)")
        waiting = sum(tally.waiting for tally in self.tallies)
        if waiting:
            raise IncompleteError(
                f"{waiting:,} questions wait in batch files ({so_far}); the same command collects them"
            )
        if self.missing:
            raise IncompleteError(
                f"{self.missing:,} questions have no answer yet ({so_far}); the same command asks them"
            )
        over = [t for t in self.tallies if t.answered and t.statuses["failed"] > self.failed_limit * t.total]
        if over:
            worst = max(over, key=lambda t: t.statuses["failed"])
            raise IncompleteError(
                f"{worst.name}: {worst.statuses['failed']:,} of {worst.total:,} questions failed (last: {worst.last_error}), more than "
                f"annotate.failed_limit = {self.failed_limit:g}; {so_far}, the same command asks the failed ones again"
            )


def ask_all(
    askers: Sequence[Asker],
    local: Sequence[LocalAsker],
    source: TextSource,
    log: VoteLog,
    *,
    settings: AnnotateSettings | None = None,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    wait: bool = True,
) -> Asked:
    """Put every text to every annotator that has not answered it yet; returns when all is done or something stops it.

    `wait`: stay until batch files are done, however long that takes.
    Raises `ConfigError` for a missing API key, a model that is not the one of before, or a budget without prices; what
    happens on the way is in what is returned (`raise_incomplete`).
    """
    chosen = settings or AnnotateSettings()
    batched = next((asker for asker in askers if asker.batch), None)
    if chosen.settle is not None and batched is not None:
        raise ConfigError(
            f"annotator {batched.name!r}: settle asks annotators one after the other, a batch file all texts at once; "
            "choose one of the two"
        )
    work = _Round(askers, local, source, log, chosen, dict(environment or {}), progress, wait)
    asking = work.ask(_purse(askers, chosen, log))
    if not _in_a_loop():
        return asyncio.run(asking)
    with ThreadPoolExecutor(1, "annotate") as pool:  # in Jupyter a loop runs already
        running = pool.submit(asyncio.run, asking)
        while True:
            try:
                return running.result()
            except KeyboardInterrupt:
                if running.done():
                    raise
                work.interrupt()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _purse(askers: Sequence[Asker], settings: AnnotateSettings, log: VoteLog) -> Purse:
    ledger = log.ledger()
    if settings.budget is not None:
        for asker in askers:
            if asker.price is None:
                raise ConfigError(
                    f"annotate.budget needs prices, and that of {asker.name!r} ({asker.endpoint.name}/{asker.model}) is not known; "
                    "give price = { input = …, output = … } in USD per million tokens"
                )
    return Purse(settings.budget, spent=ledger.cost + ledger.lost_cost)


def open_transport(endpoint: Endpoint, environment: Mapping[str, str]) -> Transport:
    """Return the session with an endpoint, its key and headers taken from the environment."""
    return Transport(
        endpoint.base_url, CLIENTS[endpoint.protocol](), key=endpoint.key(environment),
        headers=endpoint.filled_headers(environment), timeout_s=endpoint.timeout_s,
    )  # fmt: skip


@dataclass
class _Round:
    """Who is asked about what, and how; sets up the lanes and desks, and runs the loop."""

    askers: Sequence[Asker]
    local: Sequence[LocalAsker]
    source: TextSource
    log: VoteLog
    settings: AnnotateSettings
    environment: Mapping[str, str]
    progress: Progress | None
    wait: bool
    _interrupt: Callable[[], object] | None = None

    def interrupt(self) -> None:
        """Stop a run in another thread, as a signal would stop it here."""
        if self._interrupt is not None:
            self._interrupt()

    async def ask(self, purse: Purse) -> Asked:
        settings = self.settings
        settling = Settling(settings.settle, self.log) if settings.settle is not None else None
        desks: list[Place] = []
        try:
            lanes = await self._set_up(desks, settling)
        except BaseException:
            for desk in desks:
                await desk.close()
            raise
        if settling is not None:
            settling.follow([lane for lane in lanes if not (isinstance(lane, LLMLane) and lane.asker.variant_of)])
        self._count_batches(purse, desks)
        panel = Panel(self.source.count, apart=[asker.name for asker in self.askers if asker.variant_of])
        loop = Loop(
            self.log, desks, purse, panel, drain_s=settings.drain_s, progress=self.progress,
            wait_for=settling.before if settling else None,
        )  # fmt: skip
        self._interrupt = partial(asyncio.get_running_loop().call_soon_threadsafe, loop.interrupt, "interrupted")
        ended = await loop.run()
        notes = [f"{name} {kind}: {message}" for name, kind, message in ended.alarms]
        notes += [f"{lane.tally.name} was given up: {lane.down}" for lane in lanes if lane.down is not None]
        return Asked(lanes, ended, self.log.ledger(), settings.failed_limit, notes)

    async def _set_up(self, desks: list[Place], settling: Settling | None) -> list[Lane]:
        """Open the endpoints and return the lanes in order; `desks` is filled on the way, so that all can be closed."""
        by_name: dict[str, Lane] = {}
        for endpoint, mine in _by_endpoint(self.askers).items():
            host = Dispatcher(endpoint, await self._open(endpoint), [])
            desks.append(host)
            lanes = [await self._lane(asker, host, settling) for asker in mine]
            by_name |= {lane.tally.name: lane for lane in lanes}
            host.lanes = [lane for lane in lanes if not lane.asker.batch]
            await self._add_batches(endpoint, lanes, desks)
        here = [LocalLane(one, self.log, self.source, **self._options(settling, one.name)) for one in self.local]
        desks.append(LocalDesk(here))
        by_name |= {lane.tally.name: lane for lane in here}
        listed = {one.name: place for place, one in enumerate(self.settings.annotators)}
        names = [*(one.name for one in self.askers), *(one.name for one in self.local)]
        names.sort(key=lambda name: listed.get(name.partition("~")[0], len(listed)))  # stable: variants behind theirs
        return [by_name[name] for name in names]

    async def _add_batches(self, endpoint: Endpoint, lanes: Sequence[LLMLane], desks: list[Place]) -> None:
        """Add the desk for batch files, also for lanes that are asked online now and have batches of earlier runs."""
        open_ = {batch["asker"] for batch in self.log.batches() if batch["status"] in OPEN}
        batched = [lane for lane in lanes if lane.asker.batch]
        online = [lane for lane in lanes if not lane.asker.batch and lane.row in open_]
        if not batched and not online:
            return
        desk = BatchDesk(endpoint, await self._open(endpoint), batched, self.log, online=online, wait=self.wait)
        desks.append(desk)
        for lane in online:  # before its texts are looked at
            try:
                await desk.adopt(lane)
            except CallError as error:
                logger.warning("%s: its batch files cannot be looked for (%s)", lane.tally.name, error)

    def _count_batches(self, purse: Purse, desks: Sequence[Place]) -> None:
        """Put into the purse what is reserved in batch files; as spent where nobody of this run collects it."""
        held = sum(self.log.held_in_batches().values())
        awaited = sum(desk.held for desk in desks if isinstance(desk, BatchDesk))
        purse.reserve(awaited, anyway=True)
        purse.spent += max(0.0, held - awaited)

    async def _open(self, endpoint: Endpoint) -> Transport:
        transport = open_transport(endpoint, self.environment)
        await transport.open()
        return transport

    def _options(self, settling: Settling | None, name: str | None) -> dict[str, Any]:
        return {
            "retry": self.settings.retry,
            "share_duplicates": self.settings.share_duplicates,
            "settled": settling.for_lane(name) if settling is not None and name is not None else None,
        }

    async def _lane(self, asker: Asker, host: Dispatcher, settling: Settling | None) -> LLMLane:
        down = None
        try:
            asker = await pin(asker, host.transport, host.transport.client, self.log, self.settings.model_changed)
        except CallError as error:
            down = error
        options = self._options(settling, None if asker.variant_of else asker.name)
        lane = LLMLane(asker, self.log, self.source, **options)
        if down is not None:
            lane.down = explain(host.endpoint, asker.model, down)
            lane.misconfigured = down.kind in {"auth", "missing", "request", "quota"}
            logger.info("%s: %s", asker.name, lane.down)
        return lane


def _by_endpoint(askers: Sequence[Asker]) -> dict[Endpoint, list[Asker]]:
    found: dict[Endpoint, list[Asker]] = {}
    for asker in askers:
        found.setdefault(asker.endpoint, []).append(asker)
    return found


VOTE_COLUMNS = (
    "text_id",
    "annotator",
    "repetition",
    "label",
    "status",
    "confidence",
    "reply",
    "tokens_in",
    "tokens_out",
    "cost",
    "latency_s",
)
"""What a vote takes from its answer."""
_TAKEN = ("label", "status", "confidence", "reply", "tokens_in", "tokens_out", "cost", "latency_s")


def votes_from_log(log: VoteLog, lanes: Sequence[Lane], source: TextSource) -> Iterator[pd.DataFrame]:
    """Yield the votes of all lanes, batch by batch of texts, sorted by text, annotator and repetition."""
    import pandas as pd

    places = [ANSWER_COLUMNS.index(name) for name in _TAKEN]
    reply_at = _TAKEN.index("reply")
    for batch in source.batches():
        rows: list[tuple[Any, ...]] = []
        for lane in lanes:
            filed, digests = lane.filed(batch)
            shared = filed is not batch.ids
            wanted: dict[tuple[str, bytes], list[str]] = {}
            for text_id, file, digest in zip(batch.ids, filed, digests):
                wanted.setdefault((file, digest), []).append(text_id)
            for answer in log.answers(lane.row, sorted(filed), ranged=not shared):
                for text_id in wanted.get((answer[0], answer[1]), ()):
                    taken = [answer[place] for place in places]
                    taken[reply_at] = unpack(taken[reply_at])
                    rows.append((text_id, lane.tally.name, answer[2], *taken))
        rows.sort(key=lambda row: row[:3])
        yield pd.DataFrame(rows, columns=list(VOTE_COLUMNS)).astype({"reply": object, "label": object})
