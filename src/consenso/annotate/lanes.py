"""Each annotator's way through the texts: what is still to be asked, batch by batch, in the order of the ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from consenso.annotate.askers import Asker, text_digest
from consenso.annotate.clients import CLIENTS, Question
from consenso.annotate.confidence import TOP_LOGPROBS
from consenso.annotate.local.askers import LocalAsker
from consenso.annotate.logreading import Key
from consenso.annotate.prompting import Compiled, sanitise, shorten
from consenso.annotate.reading import ReplyReader
from consenso.annotate.sources import TextBatch, TextSource
from consenso.annotate.tallies import Tally
from consenso.annotate.votelog import Outcome, VoteLog

BYTES_PER_TOKEN = 3
"""Of UTF-8; English has about 4.3, Chinese 3, so that this tells more tokens than there are."""
MOST_BYTES_PER_TOKEN = 8
"""What hardly any text exceeds: by it a text is certainly too long."""


@dataclass(slots=True)
class Job:
    """One question under way."""

    lane: Lane
    key: Key
    text_id: str
    text: str
    offered: tuple[str, ...] | None
    batch: OpenBatch
    cut: bool = False
    body: bytes = b""
    tokens: float = 0.0
    """Estimate of the prompt's and the reply's tokens, rather too high."""
    reserved: float = 0.0
    """USD reserved for the request under way."""
    started: float = 0.0
    """When its request left (perf_counter)."""
    late: bool = False
    """Given up for want of a reply."""
    claim: Claim | None = None
    """The claim that lists it; None: it has an intent of its own from the start."""
    counted: bool = False
    """Whether it has an intent of its own: earlier requests of it may have been paid, or were answered in vain."""
    requests: int = 0
    """Requests sent."""
    sent: int = 0
    """Requests that the ledger was told of: all but those that repeat a request which was certainly not processed."""
    unsure: int = 0
    """Of these, how many may have been paid without an answer."""
    reserved_in_all: float = 0.0
    """USD told to the ledger."""
    lost: float = 0.0
    """Of these, what the unsure ones may have cost."""
    tries: dict[str, int] = field(default_factory=dict)
    """Kind of failure → how often."""
    reasked: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None


@dataclass(slots=True)
class Claim:
    """Questions noted together before they were sent."""

    number: int
    open: dict[Key, float]
    """Those without an answer on its way to the disk, with the USD reserved."""


@dataclass(slots=True)
class OpenBatch:
    """A batch of texts in a lane, until its last answer is on disk."""

    number: int
    ids: list[str]
    open: int = 0


Settled = Callable[[TextBatch], set[str]]
"""Text ids of a batch → those whose consensus further votes of this lane cannot change."""


class Votes(Protocol):
    """Whoever votes, as far as a lane needs to know."""

    @property
    def name(self) -> str:
        """The annotator's name in the votes."""
        ...

    @property
    def repetitions(self) -> int:
        """How often each text is asked."""
        ...

    @property
    def digest(self) -> str:
        """Of everything that can change an answer, but for the text and the repetition."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What the digest is made of."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The annotator's settings."""
        ...


class Lane:
    """An annotator on its way: loads batches, leaves out what is answered, hands out jobs."""

    def __init__(
        self,
        voter: Votes,
        log: VoteLog,
        source: TextSource,
        *,
        retry: Iterable[str] = ("failed",),
        share_duplicates: bool = False,
        settled: Settled | None = None,
    ) -> None:
        self.voter, self._log, self.source = voter, log, source
        self.row = log.asker(voter.digest, voter.name, voter.record | {"settings": dict(voter.settings)})
        self.tally = Tally(voter.name, total=source.count * voter.repetitions)
        self.jobs: deque[Job] = deque()
        self.proven = False
        """Whether it ever got an answer: until then one request at a time is sent."""
        self.down: str | None = None
        """Why it was given up."""
        self.misconfigured = False
        """True: given up for a reason that only a change of the settings mends."""
        self.loaded = False
        """True: no batch is left to load."""
        self.open = 0
        """Jobs handed out and not on disk yet."""
        self.finished = 0
        """Batches, from the first, whose answers are all on disk."""
        self._unfinished: deque[OpenBatch] = deque()
        self._again = frozenset([*retry, "settled", "flagged", "lost"])
        self._share, self._settled = share_duplicates, settled
        self.under_way: set[Key] = set()
        """Keys handed out and not on disk, where equal texts share them."""
        self._batches: Iterator[TextBatch] | None = None
        self._number = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to hand out."""
        return self.down is not None or (self.loaded and not self.jobs)

    def has_passed(self, batch: int) -> bool:
        """Whether this lane's answers to a batch are all on disk, or never will be."""
        return self.down is not None or self.finished > batch or (self.loaded and self._number <= batch)

    @property
    def next_batch(self) -> int:
        """The number of the batch that `load` would load."""
        return self._number

    def load(self) -> None:
        """Load the next batch that has something to ask; blocking, for a thread of its own."""
        if self._batches is None:
            self._batches = self.source.batches()
        batch = next(self._batches, None)
        if batch is None:
            self.loaded = True
            return
        opened = OpenBatch(self._number, batch.ids)
        self._number += 1
        jobs = self._todo(batch, opened)
        self._unfinished.append(opened)
        self.jobs.extend(jobs)
        self.finish_batches()

    def _todo(self, batch: TextBatch, opened: OpenBatch) -> list[Job]:
        filed, digests = self.filed(batch)
        if self._is_done(batch.ids, digests):
            return []
        known = {
            (i, d, r): status for i, d, r, status in self._log.statuses(self.row, sorted(filed), ranged=not self._share)
        }
        settled = self._settled(batch) if self._settled is not None else set()
        jobs: list[Job] = []
        for place, (text_id, text) in enumerate(zip(batch.ids, batch.texts)):
            for repetition in range(self.voter.repetitions):
                key = Key(self.row, filed[place], digests[place], repetition)
                status = known.get(key[1:])
                if status == "batch" and not (self._share and key in self.under_way):
                    self.tally.waiting += 1
                    if self._share:
                        self.under_way.add(key)
                elif status == "batch":
                    self.tally.total -= 1  # an equal text shares its answer
                elif text_id in settled and status in {None, "settled"}:
                    self.tally.found("settled")
                    if status is None:
                        self._log.keep(Outcome(key, "settled", requests=0))
                elif status is not None and status not in self._again:
                    self.tally.found(status)
                elif self._share and key in self.under_way:
                    self.tally.total -= 1  # an equal text shares its answer
                else:
                    if self._share:
                        self.under_way.add(key)
                    offered = None if batch.offered is None else batch.offered[place]
                    jobs.append(Job(self, key, text_id, text, offered, opened, counted=status is not None))
        opened.open = len(jobs)
        return jobs

    def _is_done(self, ids: Sequence[str], digests: Sequence[bytes]) -> bool:
        """Whether all these texts, and nothing else, are answered for good; then they are counted. Quick: most batches are."""
        if self._share or self._settled is not None or not ids:
            return False
        found = self._log.summary(self.row, ids)
        repetitions = range(self.voter.repetitions)
        if found is None or self._again & set(found[1]):
            return False
        if found[0] != "".join(
            f"{digest.hex().upper()}{repetition}" for digest in digests for repetition in repetitions
        ):
            return False
        for status, count in found[1].items():
            self.tally.found(status, count)
        return True

    def finish_batches(self) -> None:
        """Count the batches that are done."""
        while self._unfinished and not self._unfinished[0].open:
            self.finished = self._unfinished.popleft().number + 1

    def filed(self, batch: TextBatch) -> tuple[list[str], list[bytes]]:
        """Return under which ids and digests the answers to these texts are filed."""
        digests = [
            text_digest("" if self._share else text_id, text, None if batch.offered is None else batch.offered[place])
            for place, (text_id, text) in enumerate(zip(batch.ids, batch.texts))
        ]
        return ([f"={digest.hex()}" for digest in digests] if self._share else batch.ids), digests


class LLMLane(Lane):
    """An LLM on its way: makes requests of jobs, and reads their replies."""

    def __init__(self, asker: Asker, log: VoteLog, source: TextSource, **options: Any) -> None:
        super().__init__(asker, log, source, **options)
        self.asker = asker
        self.client = CLIENTS[asker.endpoint.protocol]()
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._readers: dict[tuple[str, ...] | None, ReplyReader] = {}
        self.bytes_seen, self.tokens_seen = 0, 0
        """Of requests whose tokens the server counted: how long its tokens are."""

    def prepare(self, job: Job) -> str | None:
        """Fill the job's body and estimates; returns why it cannot be sent, or None."""
        text = sanitise(job.text)
        size = len(text.encode())
        compiled = self._body_for(job)
        fixed = compiled.characters / BYTES_PER_TOKEN
        room = self.room
        if room is not None:
            surely = self.asker.endpoint.protocol == "ollama" or self.asker.long_texts == "truncate"
            if (size / (BYTES_PER_TOKEN if surely else MOST_BYTES_PER_TOKEN)) + (fixed if surely else 0) > room:
                if self.asker.long_texts == "flag":
                    about = int(size / BYTES_PER_TOKEN)
                    return f"text of about {about:,} tokens does not fit into the context of {self.asker.context:,} tokens; not sent"
                text, job.cut = _cut_to(text, int((room - fixed) * BYTES_PER_TOKEN)), True
                size = len(text.encode())
        job.body = compiled.fill(text)
        job.tokens = fixed + size / BYTES_PER_TOKEN + self.asker.max_tokens
        job.reserved = self.asker.cost(int(fixed + size / BYTES_PER_TOKEN), self.asker.max_tokens) or 0.0
        return None

    @property
    def room(self) -> int | None:
        """Tokens that prompt and text may have beside the reply; None where no context is known."""
        if self.asker.context is None:
            return None
        return max(64, self.asker.context - min(self.asker.max_tokens, self.asker.context // 2))

    def _body_for(self, job: Job) -> Compiled:
        offered = job.offered if job.offered is not None else self.asker.schema.names
        turn = job.key.repetition
        place = (job.offered, turn % len(offered) if self.asker.order == "rotated" else 0, turn)
        compiled = self._compiled.get(place)
        if compiled is None:
            question = self.question(self.asker.messages(offered, turn), offered, turn)
            compiled = Compiled(self.client.body(question, self.asker.endpoint.max_tokens))
            if len(self._compiled) > 5000:
                self._compiled.clear()
            self._compiled[place] = compiled
        return compiled

    def question(self, messages: Sequence[Mapping[str, str]], offered: Sequence[str], repetition: int) -> Question:
        """Return the question for messages; each repetition has a seed of its own."""
        parameters = dict(self.asker.parameters)
        if isinstance(parameters.get("seed"), int):
            parameters["seed"] += repetition
        return Question(
            model=self.asker.model, messages=messages, parameters=parameters, schema=self.asker.response_schema(offered),
            top_logprobs=TOP_LOGPROBS if self.asker.logprobs else None, extra=self.asker.extra_body,
        )  # fmt: skip

    def correct(self, job: Job, reply: str | None) -> None:
        """Turn the job into a request that shows the model its own reply and asks for one of the labels."""
        offered = job.offered if job.offered is not None else self.asker.schema.names
        turn = job.key.repetition
        again = _CORRECTION.format(", ".join([*offered, *([self.asker.abstain] if self.asker.abstain else [])]))
        if self.asker.form == "id":
            again = _CORRECTION_ID.format(", ".join(str(self.asker.schema.label2id[name]) for name in offered))
        messages = [
            *self.asker.messages(offered, turn),
            {"role": "assistant", "content": sanitise((reply or "")[:2000]) or "…"},
            {"role": "user", "content": again},
        ]
        compiled = Compiled(self.client.body(self.question(messages, offered, turn), self.asker.endpoint.max_tokens))
        text = sanitise(job.text)
        if job.cut and self.room is not None:
            text = _cut_to(text, int((self.room - compiled.characters / BYTES_PER_TOKEN) * BYTES_PER_TOKEN))
        job.body = compiled.fill(text)

    def reader(self, offered: tuple[str, ...] | None) -> ReplyReader:
        """Return the reader for replies to questions that offered these labels."""
        reader = self._readers.get(offered)
        if reader is None:
            if len(self._readers) > 500:
                self._readers.clear()
            reader = self._readers[offered] = ReplyReader(
                self.asker.schema, form=self.asker.form, abstain=self.asker.abstain, shown=offered
            )
        return reader


class LocalLane(Lane):
    """An annotator in this process on its way."""

    def __init__(self, asker: LocalAsker, log: VoteLog, source: TextSource, **options: Any) -> None:
        super().__init__(asker, log, source, **options)
        self.asker = asker


_CORRECTION = "That is not one of the labels. Answer with exactly one of these, and nothing else: {}"
_CORRECTION_ID = "That is not one of the numbers. Answer with exactly one of these, and nothing else: {}"


def _cut_to(text: str, size: int) -> str:
    """Head and tail of a text, together at most `size` bytes of UTF-8."""
    size = max(32, size)
    if len(text.encode()) <= size:
        return text
    ratio = len(text.encode()) / len(text)
    limit = max(8, int(size / ratio))
    while len(shorten(text, limit).encode()) > size and limit > 8:
        limit = int(limit * 0.9)
    return shorten(text, limit)
