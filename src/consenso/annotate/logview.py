"""`consenso log`: looking into a vote log, and taking answers out of it as a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate.logreading import LogReader, unpack
from consenso.errors import ConfigError, DataError, nearest
from consenso.store import write_atomically
from consenso.tables import VOTE_STATUSES

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "text_id", "annotator", "repetition", "status", "label", "confidence", "reply", "tokens_in", "tokens_out", "cost",
    "latency_s", "requests", "reasked", "unanswered", "finish", "fingerprint", "probabilities", "error", "cut", "at", "asker",
)  # fmt: skip
"""Of an exported answer; asker: a short form of the digest of everything that can change an answer."""
CHUNK = 50_000


class Query:
    """Which answers to look at."""

    def __init__(
        self,
        log: LogReader,
        *,
        annotators: Sequence[str] = (),
        statuses: Sequence[str] = (),
        labels: Sequence[str] = (),
        texts: Sequence[str] = (),
    ) -> None:
        """Empty: all. Raises `ConfigError` for an annotator or status that does not exist."""
        self._log = log
        self._askers = log.askers()
        known = sorted({name for name, _ in self._askers.values()})
        for name in annotators:
            if name not in known:
                raise ConfigError(f"no annotator {name!r} in {log.path}.{nearest(name, known) or _listed(known)}")
        for status in statuses:
            if status not in VOTE_STATUSES:
                raise ConfigError(f"no status {status!r}.{nearest(status, VOTE_STATUSES) or _listed(VOTE_STATUSES)}")
        rows = [row for row, (name, _) in self._askers.items() if not annotators or name in annotators]
        conditions = [f"asker IN ({','.join('?' * len(rows))})"]
        self._values: list[Any] = list(rows)
        for column, chosen in (("status", statuses), ("label", labels), ("text_id", texts)):
            if chosen:
                conditions.append(f"{column} IN ({','.join('?' * len(chosen))})")
                self._values += list(chosen)
        self._where = " AND ".join(conditions)

    def count(self) -> int:
        """Return the number of answers."""
        return int(self._log.read(f"SELECT count(*) FROM answers WHERE {self._where}", self._values)[0][0])

    def rows(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield answers, the latest settings of an annotator and earlier ones alike, by annotator and text."""
        columns = [name for name in COLUMNS if name not in {"annotator", "asker"}]
        statement = (
            f"SELECT asker, {', '.join(columns)} FROM answers WHERE {self._where} ORDER BY asker, text_id, repetition"
        )
        if limit is not None:
            statement += f" LIMIT {int(limit)}"
        for asker, *values in self._log.stream(statement, self._values):
            row = dict(zip(columns, values))
            name, record = self._askers[asker]
            at = dt.datetime.fromtimestamp(row["at"], dt.UTC).isoformat(timespec="seconds")
            row |= {
                "annotator": name,
                "reply": unpack(row["reply"]),
                "cut": bool(row["cut"]),
                "at": at,
                "asker": record["digest_of"][:12],
            }
            yield {name: row[name] for name in COLUMNS}

    def export(self, path: Path) -> int:
        """Write the answers to a .csv or .parquet file and return how many."""
        if path.suffix not in {".csv", ".parquet"}:
            raise DataError(f"{path}: write to .csv or .parquet")
        written = 0

        def write(to: Path) -> None:
            nonlocal written
            written = (_write_csv if path.suffix == ".csv" else _write_parquet)(self._frames(), to)

        write_atomically(path, write)
        return written

    def _frames(self) -> Iterator[pd.DataFrame]:
        import pandas as pd

        chunk: list[dict[str, Any]] = []
        for row in self.rows():
            chunk.append(row)
            if len(chunk) >= CHUNK:
                yield pd.DataFrame(chunk, columns=list(COLUMNS))
                chunk = []
        yield pd.DataFrame(chunk, columns=list(COLUMNS))


def _listed(names: Sequence[str]) -> str:
    return f" There are: {', '.join(names)}."


def _write_csv(frames: Iterator[pd.DataFrame], to: Path) -> int:
    written = 0
    with to.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(frames):
            frame.to_csv(file, index=False, header=number == 0, lineterminator="\n")
            written += len(frame)
    return written


def _write_parquet(frames: Iterator[pd.DataFrame], to: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    kinds = {
        "repetition": whole, "tokens_in": whole, "tokens_out": whole, "requests": whole, "reasked": whole, "unanswered": whole,
        "confidence": real, "cost": real, "latency_s": real, "cut": pa.bool_(),
    }  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, text)) for name in COLUMNS])
    written = 0
    with pq.ParquetWriter(to, schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            written += len(frame)
    return written


def describe_log(log: LogReader) -> list[dict[str, Any]]:
    """Return one row per annotator and way of asking: annotator, asker, model, answers, each status, tokens, USD, last answer."""
    sums = {
        row[0]: row[1:]
        for row in log.read(
            "SELECT asker, count(*), sum(tokens_in), sum(tokens_out), sum(cost), max(at), avg(latency_s) FROM answers GROUP BY asker"
        )
    }
    counts = log.counts()
    rows = []
    for asker, (name, record) in log.askers().items():
        answers, tokens_in, tokens_out, cost, last, latency = sums.get(asker, (0, 0, 0, 0.0, None, None))
        rows.append(
            {
                "annotator": name, "asker": record["digest_of"][:12], "model": record.get("model") or record.get("function"),
                "answers": answers, **{status: counts.get(asker, {}).get(status, 0) for status in VOTE_STATUSES},
                "tokens_in": tokens_in or 0, "tokens_out": tokens_out or 0, "cost": cost or 0.0, "latency_s": latency,
                "last": None if last is None else dt.datetime.fromtimestamp(last, dt.UTC).isoformat(timespec="seconds"),
            }
        )  # fmt: skip
    return rows
