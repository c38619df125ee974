"""What a vote log says: read without a lock, also while another process writes to it."""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from consenso.errors import DataError

VERSION = 1
"""Of the file's layout (PRAGMA user_version)."""


class Key(NamedTuple):
    """What one answer is filed under; with the asker's digest everything that can change the answer."""

    asker: int
    """The row of `askers`: model, prompt, labels as shown, parameters, format of the reply."""
    text_id: str
    """The text's id; "" where equal texts share their answers."""
    digest: bytes
    """Of text id, text, and the labels offered for it: 16 bytes of a sha256."""
    repetition: int
    """From 0."""


@dataclass(frozen=True)
class Ledger:
    """What the log can say about money and requests."""

    answers: int
    """Answers kept, whatever their status."""
    open: int
    """Questions intended and not answered."""
    unanswered: int
    """At most so many requests may have been paid without an answer: those open, and those that broke off."""
    in_batches: int
    """Questions that wait in batch files."""
    tokens_in: int
    """Tokens of prompts, of all answers."""
    tokens_out: int
    """Tokens of replies."""
    cost: float
    """USD of all answers."""
    lost_cost: float
    """USD that requests without an answer may have cost."""

    @property
    def statement(self) -> str:
        """The log's one sentence."""
        said = f"{self.answers:,} answers kept"
        if self.in_batches:
            said += f"; {self.in_batches:,} wait in batch files"
        if not self.unanswered:
            return f"{said}; no request was paid without an answer"
        said += f"; at most {self.unanswered:,} request{'s' if self.unanswered > 1 else ''} may have been paid without an answer"
        return said + (f" (at most {self.lost_cost:.4f} USD)" if self.lost_cost > 0 else "")


class LogReader:
    """A vote log, open for reading."""

    def __init__(self, path: str | Path) -> None:
        """Raises `DataError` where there is no such file, or it is no vote log."""
        self.path = Path(path)
        self._readers: dict[int, sqlite3.Connection] = {}
        self._check()

    def _check(self) -> None:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no vote log there yet; `consenso annotate` makes it")
        try:
            found = self.read("PRAGMA user_version")[0][0]
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} is no vote log ({error})") from None
        if found != VERSION:
            raise DataError(f"{self.path} is no vote log of this version of consenso (layout {found})")

    def close(self) -> None:
        """Close the file."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a query on this thread's own reading connection."""
        return self._reader().execute(statement, values).fetchall()

    def stream(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Run a query and yield its rows one by one."""
        yield from self._reader().execute(statement, values)

    def _open_reader(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA user_version")
        except sqlite3.OperationalError:  # a folder that cannot be written: nobody can be writing to the log either
            uri = f"{self.path.resolve().as_uri()}?immutable=1"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        return connection

    def _reader(self) -> sqlite3.Connection:
        connection = self._readers.get(thread := threading.get_ident())
        if connection is None:
            connection = self._open_reader()
            self._readers[thread] = connection
            connection.execute("PRAGMA query_only=1")
            connection.execute("PRAGMA cache_size=-4000")
        return connection

    def statuses(self, asker: int, ids: Sequence[str], *, ranged: bool = True) -> list[tuple[str, bytes, int, str]]:
        """Return (text_id, digest, repetition, status) of an asker's answers to these texts; `ids` sorted.

        A question that waits in a batch file has the status "batch"; one whose request was lost, "lost"; one whose text was
        too long to be sent, "flagged".
        `ranged`: the ids stand close together, so that everything between the first and the last is read.
        """
        if not ids:
            return []
        columns, (where, values) = "text_id, digest, repetition", _within(asker, ids, ranged)
        found = self.read(f"SELECT {columns}, {_STATUS} FROM answers WHERE {where}", values)
        return found + self.read(
            f"SELECT {columns}, iif(batch IS NULL, 'lost', 'batch') FROM intents WHERE {where}", values
        )

    def summary(self, asker: int, ids: Sequence[str]) -> tuple[str, dict[str, int]] | None:
        """Return digests and repetitions of the answers from the first to the last of these texts as one string, and status → count.

        None where a question among them is under way. One row leaves SQLite instead of thousands: each would hand the
        interpreter's lock around once.
        """
        where, values = _within(asker, ids, True)
        digests, counts, under_way = self.read(
            f"SELECT (SELECT group_concat(hex(digest) || repetition, '') FROM answers WHERE {where}), "
            f"(SELECT json_group_object(s, n) FROM (SELECT {_STATUS} s, count(*) n FROM answers WHERE {where} GROUP BY s)), "
            f"EXISTS (SELECT 1 FROM intents WHERE {where})",
            values * 3,
        )[0]
        return None if under_way else (digests or "", json.loads(counts))

    def answers(self, asker: int, ids: Sequence[str], *, ranged: bool = True) -> list[tuple[Any, ...]]:
        """Return an asker's answers to these texts (`ids` sorted), in the columns of ANSWER_COLUMNS."""
        if not ids:
            return []
        where, values = _within(asker, ids, ranged)
        return self.read(f"SELECT {', '.join(ANSWER_COLUMNS)} FROM answers WHERE {where}", values)

    def counts(self) -> dict[int, dict[str, int]]:
        """Return asker → status → number of answers."""
        found: dict[int, dict[str, int]] = {}
        for asker, status, count in self.read("SELECT asker, status, count(*) FROM answers GROUP BY asker, status"):
            found.setdefault(asker, {})[status] = count
        return found

    def ledger(self) -> Ledger:
        """Return the sums; questions that this session has under way count as open."""
        a = self.read(
            "SELECT count(*), coalesce(sum(unanswered),0), coalesce(sum(tokens_in),0), coalesce(sum(tokens_out),0), "
            "coalesce(sum(cost),0), coalesce(sum(lost_cost),0) FROM answers"
        )[0]
        i = self.read(
            "SELECT count(*), coalesce(sum(sent),0), coalesce(sum(reserved),0) FROM intents WHERE batch IS NULL"
        )[0]
        c = self.read(f"SELECT count(*), count(*), coalesce(sum(k.value->>4),0) {OPEN_CLAIMS}")[0]
        b = self.read("SELECT count(*), coalesce(sum(sent-1),0) FROM intents WHERE batch IS NOT NULL")[0]
        return Ledger(
            answers=a[0], open=i[0] + c[0], unanswered=a[1] + i[1] + c[1] + b[1], in_batches=b[0], tokens_in=a[2],
            tokens_out=a[3], cost=a[4], lost_cost=a[5] + i[2] + c[2],
        )  # fmt: skip

    def askers(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """Return asker → (annotator's last name, record)."""
        return {
            row[0]: (row[1], json.loads(row[2]))
            for row in self.read("SELECT asker, name, record FROM askers ORDER BY asker")
        }

    def pinned(self, name: str) -> Any:
        """Return a value found out once and kept ever since (a model's digest, what an endpoint honours), or None."""
        rows = self.read("SELECT value FROM pins WHERE name=?", (name,))
        return json.loads(rows[0][0]) if rows else None

    def batches(self) -> list[dict[str, Any]]:
        """Return every batch: batch, asker, endpoint, status, record."""
        rows = self.read("SELECT batch, asker, endpoint, status, record FROM batches ORDER BY at")
        return [{"batch": b, "asker": a, "endpoint": e, "status": s, "record": json.loads(r)} for b, a, e, s, r in rows]

    def in_batch(self, batch: str) -> list[tuple[Key, float]]:
        """Return the questions of a batch that have no answer yet, with the USD reserved for each."""
        columns = "asker, text_id, digest, repetition"
        rows = self.read(f"SELECT {columns}, reserved FROM intents WHERE batch=? ORDER BY {columns}", (batch,))
        return [(Key(*row[:4]), row[4]) for row in rows]


ANSWER_COLUMNS = (
    "text_id", "digest", "repetition", "status", "label", "confidence", "reply", "tokens_in", "tokens_out", "cost",
    "latency_s", "requests", "reasked", "unanswered", "finish", "fingerprint", "probabilities", "error", "cut", "at",
)  # fmt: skip
"""What can be read of an answer."""

OPEN_CLAIMS = """
FROM claims c, json_each(c.keys) k WHERE NOT EXISTS (
  SELECT 1 FROM answers a WHERE a.asker=k.value->>0 AND a.text_id=k.value->>1 AND hex(a.digest)=k.value->>2 AND a.repetition=k.value->>3)
AND NOT EXISTS (
  SELECT 1 FROM intents i WHERE i.asker=k.value->>0 AND i.text_id=k.value->>1 AND hex(i.digest)=k.value->>2 AND i.repetition=k.value->>3
  AND i.session=c.session)
"""
"""Questions that a claim lists and that have neither an answer nor an intent of the same session."""


_STATUS = "iif(status='truncated' AND requests=0, 'flagged', status)"


def _within(asker: int, ids: Sequence[str], ranged: bool) -> tuple[str, tuple[Any, ...]]:
    if ranged:
        return "asker=? AND text_id BETWEEN ? AND ?", (asker, ids[0], ids[-1])
    return "asker=? AND text_id IN (SELECT value FROM json_each(?))", (asker, json.dumps(list(ids)))


def unpack(stored: str | bytes | None) -> str | None:
    """Return a stored reply."""
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored
