"""The vote log: every request intended before it is sent, every answer kept before it counts, in one SQLite file.

What is to be written waits in memory and is committed in groups; only then does it count. Before requests leave, a
*claim* that lists their keys is on disk; it goes when the last of them is answered. What a claim lists without an
answer after a crash becomes an *intent* when the log is opened again: a question that may have been paid without an
answer. A question that is sent again although an earlier request of it may have been paid has an intent of its own,
which counts the requests. Nothing that was answered is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import shutil
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from consenso.annotate.logreading import OPEN_CLAIMS, VERSION, Key, LogReader
from consenso.errors import BusyError, ConsensoError, DataError, StorageError

logger = logging.getLogger(__name__)

LONG_REPLY = 160
"""Characters above which a reply is stored compressed."""
_MOST_INT = 2**63 - 1

_LAYOUT = """
CREATE TABLE askers (asker INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, record TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE sessions (session INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL);
CREATE TABLE pins (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE batches (
    batch TEXT PRIMARY KEY, asker INTEGER NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL, record TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE TABLE claims (claim INTEGER PRIMARY KEY, session INTEGER NOT NULL, keys TEXT NOT NULL);
CREATE TABLE intents (
  asker INTEGER NOT NULL, text_id TEXT NOT NULL, digest BLOB NOT NULL, repetition INTEGER NOT NULL,
  session INTEGER NOT NULL, sent INTEGER NOT NULL, reserved REAL NOT NULL, batch TEXT,
  PRIMARY KEY (asker, text_id, digest, repetition)
) WITHOUT ROWID;
CREATE TABLE answers (
  asker INTEGER NOT NULL, text_id TEXT NOT NULL, digest BLOB NOT NULL, repetition INTEGER NOT NULL,
  status TEXT NOT NULL, label TEXT, confidence REAL, reply BLOB, tokens_in INTEGER, tokens_out INTEGER, cost REAL,
  latency_s REAL, requests INTEGER NOT NULL, reasked INTEGER NOT NULL, unanswered INTEGER NOT NULL, lost_cost REAL NOT NULL,
  finish TEXT, fingerprint TEXT, probabilities TEXT, error TEXT, cut INTEGER NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (asker, text_id, digest, repetition)
) WITHOUT ROWID;
"""


_Deed = Callable[[sqlite3.Connection | None], Callable[[], None] | None]
"""Something to do in the writer's transaction (None: it cannot be written); returns what to call once it is on disk."""


class _Kept(NamedTuple):
    """An answer to be stored."""

    row: tuple[Any, ...]
    mark: Any
    counted: bool


@dataclass(slots=True)
class Outcome:
    """What became of one question: a row of `answers`."""

    key: Key
    status: str
    label: str | None = None
    confidence: float | None = None
    reply: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    latency_s: float | None = None
    requests: int = 1
    """Requests that were sent, those that failed included."""
    reasked: int = 0
    """Corrections asked for."""
    known: int | None = None
    """Of the requests its intent counts, those whose fate is known: answered, or certainly not processed; None: no intent."""
    reserved: float = 0.0
    """USD reserved for these."""
    finish: str | None = None
    fingerprint: str | None = None
    probabilities: str | None = None
    error: str | None = None
    cut: bool = False
    """The text was shortened before it was sent."""


class VoteLog(LogReader):
    """A vote log file, open for reading and writing by this process alone."""

    def __init__(self, path: str | Path, *, durable: bool = True) -> None:
        """Open or create the file. `durable`: a commit survives a power cut (synchronous=FULL), not only a kill.

        Raises `BusyError` where another process has it, `DataError` where it is no vote log, `StorageError` on a full disk.
        """
        self.path = Path(path)
        self._pending: deque[_Deed | _Kept] = deque()
        self._writing = threading.Lock()
        self._group: list[_Deed | _Kept] = []
        self.failure: ConsensoError | None = None
        """Set when a commit failed: nothing more is written, and every wait ends with it."""
        self.on_kept: Callable[[list[Any], bool], None] | None = None
        """Called once per group with the marks given to `keep`, and whether they are on disk."""
        self.on_pending: Callable[[], None] | None = None
        """Called when something waits to be written."""
        self._lock = _locked(self.path)
        try:
            self._connection = self._open(durable)
        except BaseException:
            self._lock.release()
            raise
        self._readers: dict[int, sqlite3.Connection] = {}

    def _open(self, durable: bool) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, cached_statements=64)
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if found != VERSION and (found or tables):
                connection.close()
                raise DataError(
                    f"{self.path} is no vote log of this version of consenso (layout {found}); choose another file"
                )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("PRAGMA wal_autocheckpoint=4000")
            connection.execute("PRAGMA cache_size=-16000")
            if not found:
                connection.executescript(f"BEGIN; {_LAYOUT} PRAGMA user_version={VERSION}; COMMIT;")
            self.session = int(
                connection.execute(
                    "INSERT INTO sessions(started) VALUES (?) RETURNING session", (time.time(),)
                ).fetchone()[0]
            )
            _recover(connection, self.session)
            self._next_claim: int = 1 + connection.execute("SELECT coalesce(max(claim), 0) FROM claims").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise _storage(self.path, error) from error
        return connection

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        with contextlib.suppress(ConsensoError):
            self.flush()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("UPDATE sessions SET ended=? WHERE session=?", (time.time(), self.session))
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        super().close()
        self._lock.release()

    # writing

    def flush(self) -> None:
        """Write and commit everything that waits; raises `StorageError` where it cannot be written."""
        while self.begin():
            self.commit()
            self.tell()
        if self.failure is not None:
            raise self.failure

    def begin(self) -> bool:
        """Take what waits and write it, not committed yet; False where nothing waits. Then `commit`, then `tell`.

        A loop calls the three apart so that the disk is waited for in another thread.
        """
        self._writing.acquire()
        self._group = []
        with contextlib.suppress(IndexError):
            while True:
                self._group.append(self._pending.popleft())
        if not self._group:
            self._writing.release()
            return False
        self._told: list[Callable[[], None] | None] = []
        if self.failure is None:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._told = self._do(self._group)
            except Exception as error:  # noqa: BLE001 - whatever it is, `tell` must release the lock and say so
                self._fail(error)
            except BaseException:
                self._roll_back()
                self._pending.extendleft(reversed(self._group))
                self._group = []
                self._writing.release()
                raise
        return True

    def commit(self) -> None:
        """Wait until what `begin` wrote is on disk."""
        if self.failure is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._fail(error)

    def tell(self) -> None:
        """Tell those who wait whether it is on disk."""
        group, told, self._group = self._group, self._told, []
        self._writing.release()
        if self.failure is not None:
            told = [deed(None) for deed in group if not isinstance(deed, _Kept)]
        kept = [deed.mark for deed in group if isinstance(deed, _Kept) and deed.mark is not None]
        if kept and self.on_kept is not None:
            self.on_kept(kept, self.failure is None)
        for call in told:
            if call is not None:
                call()

    @property
    def waiting(self) -> bool:
        """Whether something is not on disk yet."""
        return bool(self._pending or self._group)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, sqlite3.Error):
            logger.error("%s: what was to be written cannot be", self.path, exc_info=error)
        self.failure = _storage(self.path, error)
        self._roll_back()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def _put(self, deed: _Deed | _Kept) -> None:
        self._pending.append(deed)
        if self.on_pending is not None:
            self.on_pending()

    def _do(self, group: list[_Deed | _Kept]) -> list[Callable[[], None] | None]:
        """Carry out a group in its order; answers that follow each other go in together."""
        told: list[Callable[[], None] | None] = []
        for kind, deeds in itertools.groupby(group, key=_kind):
            if kind == "kept":
                self._connection.executemany(_KEEP, [deed.row for deed in deeds])  # type: ignore[union-attr]
            elif kind == "counted":
                rows = [deed.row for deed in deeds]  # type: ignore[union-attr]
                self._connection.executemany(_KEEP_COUNTED, rows)
                self._connection.executemany(_DONE, [row[:4] for row in rows])
            else:
                told += [deed(self._connection) for deed in deeds]  # type: ignore[operator]
        return told

    def claim(self, keys: Sequence[tuple[Key, float]], tell: Callable[[bool], None]) -> int:
        """Note that these questions, never asked before, are about to be sent, with the USD reserved for each.

        Returns the claim's number; `tell` is called once it is on disk (False: it cannot be).
        """
        number, session = self._next_claim, self.session
        self._next_claim += 1
        text = _claim_text(keys)

        def deed(connection: sqlite3.Connection | None) -> Callable[[], None]:
            if connection is not None:
                connection.execute("INSERT INTO claims(claim, session, keys) VALUES (?,?,?)", (number, session, text))
            return lambda: tell(connection is not None)

        self._put(deed)
        return number

    def unclaim(self, number: int, left: Sequence[tuple[Key, float]] = ()) -> None:
        """Take a claim back, but for the keys whose requests were sent and not answered."""
        text = _claim_text(left)

        def deed(connection: sqlite3.Connection | None) -> None:
            if connection is not None and left:
                connection.execute("UPDATE claims SET keys=? WHERE claim=?", (text, number))
            elif connection is not None:
                connection.execute("DELETE FROM claims WHERE claim=?", (number,))

        self._put(deed)

    def intend(
        self,
        keys: Sequence[tuple[Key, float]],
        tell: Callable[[bool], None] | None = None,
        *,
        batch: str | None = None,
        sent: int = 1,
    ) -> None:
        """Note one request more for each of these questions, in intents of their own, with the USD reserved for it.

        `sent`: requests that a new intent starts with (2: one that is claimed, and one more).
        """
        rows = [(*key, self.session, sent, reserved, batch, sent) for key, reserved in keys]

        def deed(connection: sqlite3.Connection | None) -> Callable[[], None] | None:
            if connection is not None:
                connection.executemany(_INTEND, rows)
            return None if tell is None else (lambda: tell(connection is not None))

        self._put(deed)

    def keep(self, outcome: Outcome, mark: Any = None) -> None:
        """Store an answer, and remove its intent where it has one; a label that is there already is never overwritten.

        `mark` comes back through `on_kept` once the answer is on disk.
        """
        self._put(_Kept(_row(outcome), mark, outcome.known is not None))

    def release(self, keys: Iterable[tuple[Key, float]]) -> None:
        """Take back one request of each of these intents, with the USD reserved for it: it was certainly never processed."""
        listed = [(reserved, *key) for key, reserved in keys]

        def deed(connection: sqlite3.Connection | None) -> None:
            if connection is not None:
                connection.executemany(_UNDO, listed)
                connection.executemany(_DONE + " AND sent<=0", [row[1:] for row in listed])

        self._put(deed)

    async def written(self) -> bool:
        """Wait until all that was put so far is on disk; False where it cannot be written.

        For whoever shares the thread with a loop that writes the log: to `flush` there would block that loop.
        """
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def deed(connection: sqlite3.Connection | None) -> Callable[[], None]:
            return lambda: None if told.done() else told.set_result(connection is not None)

        self._put(deed)
        if self.on_pending is None:
            with contextlib.suppress(ConsensoError):
                self.flush()
        return await told

    def _do_later(self, statement: str, values: Sequence[Any] = ()) -> None:
        def deed(connection: sqlite3.Connection | None) -> None:
            if connection is not None:
                connection.execute(statement, values)

        self._put(deed)

    def _now(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and return its rows, once it is on disk; not while a loop writes the log."""
        found: list[Any] = []

        def deed(connection: sqlite3.Connection | None) -> None:
            if connection is not None:
                found.extend(connection.execute(statement, values).fetchall())

        self._put(deed)
        self.flush()
        return found

    # askers, pins, batches

    def asker(self, digest: str, name: str, record: Mapping[str, Any]) -> int:
        """Return the row of an annotator as it asks now (model, prompt, labels, parameters …), made where it is new."""
        self._now(
            "INSERT INTO askers(digest, name, record, at) VALUES (?,?,?,?) ON CONFLICT(digest) DO UPDATE SET name=excluded.name",
            (digest, _text(name), _json({**record, "digest_of": digest}), time.time()),
        )
        return int(self._now("SELECT asker FROM askers WHERE digest=?", (digest,))[0][0])

    def pin(self, name: str, value: Any) -> None:
        """Keep a value under a name."""
        self._now(
            "INSERT INTO pins(name, value) VALUES (?,?) ON CONFLICT(name) DO UPDATE SET value=excluded.value",
            (name, _json(value)),
        )

    def note_batch(self, batch: str, asker: int, endpoint: str, status: str, record: Any) -> None:
        """Record a batch file's state; on disk with what is written next (`written`)."""
        self._do_later(
            "INSERT INTO batches(batch, asker, endpoint, status, record, at) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT(batch) DO UPDATE SET status=excluded.status, record=excluded.record",
            (batch, asker, endpoint, status, _json(record), time.time()),
        )

    def end_batch(self, batch: str, *, paid: bool) -> None:
        """Free the questions a batch left unanswered; `paid`: they may have been processed (expired, cancelled)."""
        change = "batch=NULL, session=-1" if paid else "batch=NULL, session=-1, sent=sent-1"
        self._do_later(f"UPDATE intents SET {change} WHERE batch=?", (batch,))
        self._do_later("DELETE FROM intents WHERE session=-1 AND sent<=0")

    def held_in_batches(self) -> dict[int, float]:
        """Return asker → USD reserved for questions that wait in its batch files."""
        return dict(self.read("SELECT asker, sum(reserved) FROM intents WHERE batch IS NOT NULL GROUP BY asker"))

    def free_bytes(self) -> int:
        """Return the room left on the log's disk."""
        return shutil.disk_usage(self.path.parent).free


_MATCH = "asker=? AND text_id=? AND digest=? AND repetition=?"
_DONE = f"DELETE FROM intents WHERE {_MATCH}"
_UNDO = f"UPDATE intents SET sent=sent-1, reserved=max(0, reserved-?) WHERE {_MATCH}"
_INTEND = """
INSERT INTO intents(asker, text_id, digest, repetition, session, sent, reserved, batch) VALUES (?,?,?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET sent=sent+iif(session=excluded.session OR ?=1, 1, excluded.sent), session=excluded.session,
  reserved=reserved+excluded.reserved, batch=excluded.batch
"""
_COLUMNS = """asker, text_id, digest, repetition, status, label, confidence, reply, tokens_in, tokens_out, cost, latency_s,
  requests, reasked, finish, fingerprint, probabilities, error, cut, at, unanswered, lost_cost"""
_REPLACE = """
ON CONFLICT DO UPDATE SET status=excluded.status, label=excluded.label, confidence=excluded.confidence,
  reply=excluded.reply, tokens_in=coalesce(answers.tokens_in,0)+coalesce(excluded.tokens_in,0),
  tokens_out=coalesce(answers.tokens_out,0)+coalesce(excluded.tokens_out,0),
  cost=coalesce(answers.cost,0)+coalesce(excluded.cost,0), latency_s=excluded.latency_s,
  requests=answers.requests+excluded.requests, reasked=answers.reasked+excluded.reasked,
  unanswered=answers.unanswered+excluded.unanswered, lost_cost=answers.lost_cost+excluded.lost_cost,
  finish=excluded.finish, fingerprint=excluded.fingerprint, probabilities=excluded.probabilities, error=excluded.error,
  cut=excluded.cut, at=excluded.at
WHERE answers.label IS NULL AND answers.status <> 'abstained'
"""
_KEEP = f"INSERT INTO answers ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) {_REPLACE}"
_KEEP_COUNTED = f"""
INSERT INTO answers ({_COLUMNS})
SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,
  max(0, coalesce(i.sent, ?21) - ?21), max(0, coalesce(i.reserved, ?22) - ?22)
FROM (SELECT 1) LEFT JOIN intents i ON i.asker=?1 AND i.text_id=?2 AND i.digest=?3 AND i.repetition=?4
WHERE true {_REPLACE}
"""


def _kind(deed: _Deed | _Kept) -> str:
    if not isinstance(deed, _Kept):
        return "deed"
    return "counted" if deed.counted else "kept"


def _claim_text(keys: Sequence[tuple[Key, float]]) -> str:
    return json.dumps([(k.asker, k.text_id, k.digest.hex().upper(), k.repetition, reserved) for k, reserved in keys])


def _recover(connection: sqlite3.Connection, session: int) -> None:
    """Turn what claims of ended sessions list without an answer into intents: requests that may have been paid."""
    connection.execute("BEGIN IMMEDIATE")
    left = connection.execute(
        f"SELECT k.value->>0, k.value->>1, k.value->>2, k.value->>3, c.session, k.value->>4 {OPEN_CLAIMS}"
    ).fetchall()
    connection.executemany(
        _INTEND,
        [
            (asker, text_id, bytes.fromhex(digest), repetition, old, 1, reserved, None, 1)
            for asker, text_id, digest, repetition, old, reserved in left
        ],
    )
    connection.execute("DELETE FROM claims WHERE session<>?", (session,))
    connection.execute("COMMIT")


def _row(o: Outcome) -> tuple[Any, ...]:
    return (
        *o.key, o.status, _text(o.label), o.confidence, pack(o.reply), _count(o.tokens_in), _count(o.tokens_out), o.cost,
        o.latency_s, o.requests, o.reasked, _text(o.finish), _text(o.fingerprint), _text(o.probabilities), _text(o.error),
        o.cut, time.time(), *((0, 0.0) if o.known is None else (o.known, o.reserved)),
    )  # fmt: skip


def _text(said: Any) -> str | None:
    """What can be stored of a string from anywhere: lone surrogates replaced."""
    if said is None:
        return None
    text = said if isinstance(said, str) else str(said)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _count(said: Any) -> int | None:
    """A server's count, as far as SQLite's integers go; None where it is no number."""
    try:
        return None if said is None else max(-_MOST_INT, min(_MOST_INT, int(said)))
    except (TypeError, ValueError, OverflowError):
        return None


def _json(value: Any) -> str | None:
    return _text(json.dumps(value, ensure_ascii=False, default=str))


def pack(reply: str | None) -> str | bytes | None:
    """Return a reply as it is stored: long ones compressed (zlib)."""
    if reply is None or len(reply) <= LONG_REPLY:
        return reply if reply is None or reply.isascii() else reply.encode("utf-8", "replace").decode()
    return zlib.compress(reply.encode("utf-8", "replace"), 6)


def _locked(path: Path) -> Any:
    """Hold the log for this process; the lock dies with it."""
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"another process writes to the vote log {path}; wait for it, or choose another with annotate.log"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    return lock


def _storage(path: Path, error: Exception) -> ConsensoError:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return DataError(f"{path} is no vote log ({text}); choose another file, or restore it from a copy")
    what = "the disk is full" if "full" in text else text
    return StorageError(
        f"cannot write {path}: {what}; answers kept so far stay, make room and run the same command again: they are not asked again"
    )
