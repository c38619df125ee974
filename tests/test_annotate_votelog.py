"""The vote log: nothing answered is lost, nothing is asked twice, and the ledger tells the truth."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from consenso.annotate.askers import text_digest
from consenso.annotate.logreading import Key, LogReader, unpack
from consenso.annotate.logview import Query, describe_log
from consenso.annotate.votelog import Outcome, VoteLog
from consenso.errors import BusyError, ConfigError, DataError, StorageError


def key(number: int, asker: int = 1, repetition: int = 0) -> Key:
    return Key(asker, f"t{number:03d}", text_digest(f"t{number:03d}", "text", None), repetition)


def claimed(log: VoteLog, *numbers: int) -> int:
    told: list[bool] = []
    claim = log.claim([(key(n), 0.5) for n in numbers], told.append)
    log.flush()
    assert told == [True]
    return claim


def answered(log: VoteLog, *numbers: int, status: str = "ok", **more: object) -> None:
    for number in numbers:
        log.keep(Outcome(key(number), status, "positive" if status == "ok" else None, **more))  # type: ignore[arg-type]
    log.flush()


def test_an_answer_is_there_after_closing(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        asker = log.asker("digest", "gpt", {"model": "gpt"})
        claim = claimed(log, 1)
        log.keep(Outcome(key(1, asker), "ok", "positive", 0.9, "Positive.", 100, 2, 0.01, 0.3))
        log.unclaim(claim)
    with LogReader(tmp_path / "log.sqlite") as log:
        (row,) = log.answers(asker, ["t001"])
        assert row[3:7] == ("ok", "positive", 0.9, "Positive.")
        assert log.ledger().unanswered == 0
        assert log.ledger().statement == "1 answers kept; no request was paid without an answer"


def test_claimed_and_not_answered_may_have_been_paid(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with VoteLog(path) as log:
        log.asker("digest", "gpt", {})
        claimed(log, 1, 2, 3)
        answered(log, 2)
        assert log.ledger().unanswered == 2
    with VoteLog(path) as log:  # the session ended without answers to 1 and 3
        ledger = log.ledger()
        assert (ledger.answers, ledger.open, ledger.unanswered) == (1, 2, 2)
        assert ledger.lost_cost == pytest.approx(1.0)
        assert "at most 2 requests may have been paid without an answer" in ledger.statement
        assert {(row[0], row[3]) for row in log.statuses(1, ["t001", "t002", "t003"])} == {
            ("t001", "lost"), ("t002", "ok"), ("t003", "lost"),
        }  # fmt: skip


def test_a_lost_question_stays_in_the_ledger_when_it_is_answered_later(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with VoteLog(path) as log:
        log.asker("digest", "gpt", {})
        claimed(log, 1)
    with VoteLog(path) as log:
        log.intend([(key(1), 0.5)])
        answered(log, 1, known=1, reserved=0.5)
        ledger = log.ledger()
        assert (ledger.open, ledger.unanswered) == (0, 1)
        assert ledger.lost_cost == pytest.approx(0.5)


def test_a_request_sent_again_counts_once_more(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        claim = claimed(log, 1)
        log.intend([(key(1), 0.5)], sent=2)  # the first was perhaps paid
        log.intend([(key(1), 0.5)], sent=1)
        answered(log, 1, known=1, reserved=0.5)
        log.unclaim(claim)
        log.flush()
        assert log.ledger().unanswered == 2


def test_what_was_never_sent_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with VoteLog(path) as log:
        log.asker("digest", "gpt", {})
        claim = claimed(log, 1, 2)
        log.unclaim(claim, [(key(2), 0.5)])
        log.intend([(key(3), 0.1)])
        log.release([(key(3), 0.0)])
    with VoteLog(path) as log:
        assert [row[0] for row in log.statuses(1, ["t001", "t002", "t003"])] == ["t002"]


def test_a_label_is_never_overwritten(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        answered(log, 1)
        log.keep(Outcome(key(1), "failed", error="later"))
        log.flush()
        assert log.answers(1, ["t001"])[0][3:5] == ("ok", "positive")


def test_a_failed_answer_gives_way_and_its_costs_add_up(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        answered(log, 1, status="failed", cost=0.25, requests=7, error="HTTP 500")
        answered(log, 1, cost=0.5)
        (row,) = log.answers(1, ["t001"])
        assert row[3:5] == ("ok", "positive")
        assert log.ledger().cost == pytest.approx(0.75)


def test_long_replies_are_kept_whole(tmp_path: Path) -> None:
    reply = "I think, therefore… 🤔 " * 500
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        log.keep(Outcome(key(1), "ok", "positive", reply=reply))
        log.flush()
        stored = log.answers(1, ["t001"])[0][6]
        assert isinstance(stored, bytes)
        assert len(stored) < len(reply) / 10
        assert unpack(stored) == reply


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    code = f"from consenso.annotate.votelog import VoteLog\nVoteLog({str(path)!r})"
    with VoteLog(path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process writes to the vote log" in done.stderr
        with pytest.raises(BusyError):
            VoteLog(path)
    VoteLog(path).close()


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        claimed(log, 1, 2)
        answered(log, 1)
        with LogReader(tmp_path / "log.sqlite") as reader:
            assert reader.ledger().answers == 1
            assert reader.ledger().unanswered == 1


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text(
        "this is no database, but it is long enough to look like a file of some kind" * 20
    )
    with pytest.raises(DataError, match="no vote log"):
        VoteLog(tmp_path / "text.sqlite")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE x(y)")
    other.commit()
    other.close()
    with pytest.raises(DataError, match="no vote log"):
        VoteLog(tmp_path / "other.sqlite")
    with pytest.raises(DataError, match="consenso annotate"):
        LogReader(tmp_path / "none.sqlite")


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 3 MB; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_loses_nothing_that_was_committed(tiny_disk: Path) -> None:
    committed = 0
    log = VoteLog(tiny_disk / "log.sqlite")
    log.asker("digest", "gpt", {})

    def fill() -> None:
        nonlocal committed
        for number in range(20_000):
            log.keep(Outcome(key(number), "ok", "positive", reply="x" * 150))
            log.flush()
            committed = number + 1

    with pytest.raises(StorageError, match="disk is full"):
        fill()
    log.close()
    (tiny_disk / "log.sqlite-shm").unlink(missing_ok=True)
    shutil.copytree(tiny_disk, tiny_disk.parent / "copy")
    with LogReader(tiny_disk.parent / "copy" / "log.sqlite") as reader:
        assert reader.ledger().answers == committed > 100


def test_resuming_looks_at_ids_in_ranges(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        answered(log, *range(50))
        assert len(log.statuses(1, [f"t{n:03d}" for n in range(10, 20)])) == 10
        assert len(log.statuses(1, ["t003", "t040"], ranged=False)) == 2


def test_every_answer_is_found_again_by_ranges_of_ids(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite", durable=False) as log:
        log.asker("digest", "gpt", {})
        for start in range(0, 50_000, 5_000):
            for number in range(start, start + 5_000):
                text_id = f"t{number:07d}"
                log.keep(Outcome(Key(1, text_id, text_digest(text_id, "x", None), 0), "ok", "positive"))
            log.flush()
        found = 0
        for start in range(0, 50_000, 2_048):
            ids = [f"t{number:07d}" for number in range(start, min(start + 2_048, 50_000))]
            known = {(i, d) for i, d, _, _ in log.statuses(1, ids)}
            found += sum((i, text_digest(i, "x", None)) in known for i in ids)
        assert found == 50_000


def test_pins_keep_what_was_found_out(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        assert log.pinned("digest x") is None
        log.pin("digest x", {"digest": None})
    with LogReader(tmp_path / "log.sqlite") as log:
        assert log.pinned("digest x") == {"digest": None}


def test_queries_choose_and_export(tmp_path: Path) -> None:
    import pandas as pd

    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest-a", "gpt", {"model": "m"})
        answered(log, 1, 2)
        answered(log, 3, status="unparsable", reply="hm")
    with LogReader(tmp_path / "log.sqlite") as log:
        assert Query(log, statuses=["unparsable"]).count() == 1
        assert [row["text_id"] for row in Query(log, labels=["positive"]).rows()] == ["t001", "t002"]
        for name, read in (("x.csv", pd.read_csv), ("x.parquet", pd.read_parquet)):
            assert Query(log).export(tmp_path / name) == 3
            assert read(tmp_path / name)["text_id"].tolist() == ["t001", "t002", "t003"]
        with pytest.raises(ConfigError, match="Did you mean 'gpt'"):
            Query(log, annotators=["gtp"])
        with pytest.raises(ConfigError, match="no status"):
            Query(log, statuses=["invalid"])
        with pytest.raises(DataError, match=r"csv or \.parquet"):
            Query(log).export(tmp_path / "x.txt")
        (row,) = describe_log(log)
        assert (row["annotator"], row["answers"], row["ok"], row["unparsable"]) == ("gpt", 3, 2, 1)


def test_what_a_server_says_can_always_be_stored(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {"prompt": "\ud83d"})
        log.pin("said", "refused (\ud83d)")
        log.note_batch("b", 1, "lab", "failed", {"errors": "\ud83d"})
        log.keep(
            Outcome(key(1), "failed", error="\ud83d policy", finish="\ud83d", fingerprint="\ud83d", tokens_in=2**70)
        )
        log.flush()
        (row,) = log.answers(1, ["t001"])
        assert (row[7], row[17]) == (2**63 - 1, "? policy")
        assert log.batches()[0]["record"] == {"errors": "?"}
        assert log.pinned("said") == "refused (?)"


def test_what_cannot_be_stored_fails_and_blocks_nothing(tmp_path: Path) -> None:
    def broken(connection: object) -> None:
        if connection is not None:
            raise ValueError("a bug")

    told: list[bool] = []
    with VoteLog(tmp_path / "log.sqlite") as log:
        log.asker("digest", "gpt", {})
        log._put(broken)
        log.claim([(key(1), 0.5)], told.append)
        with pytest.raises(StorageError, match="a bug"):
            log.flush()
        assert told == [False]
    VoteLog(tmp_path / "log.sqlite").close()


def test_written_waits_for_the_disk(tmp_path: Path) -> None:
    async def note(log: VoteLog) -> bool:
        log.note_batch("b", 1, "lab", "submitted", {})
        return await log.written()

    with VoteLog(tmp_path / "log.sqlite") as log:
        assert asyncio.run(note(log))
        assert [batch["status"] for batch in log.batches()] == ["submitted"]
