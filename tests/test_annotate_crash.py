"""Killed, interrupted, out of disk: what was answered is never lost and never asked again, and the ledger says the rest."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mock_server import MockServer

from asking import mock, sent, texts
from consenso.annotate.logreading import LogReader

IN_FLIGHT = 16
MOST_OPEN = IN_FLIGHT + IN_FLIGHT // 2
"""Requests under way, and answers on their way to the disk."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


def experiment(folder: Path, server: MockServer, count: int = 400, **more: str) -> Path:
    """An experiment file whose texts are in a CSV beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    texts(count).to_csv(folder / "texts.csv", index=False)
    (folder / "experiment.toml").write_text(
        f"""
name = "crash"
[data]
source = "texts.csv"
[[data.labels]]
name = "negative"
[[data.labels]]
name = "neutral"
[[data.labels]]
name = "positive"
[annotate]
drain_s = {more.get("drain_s", "10")}
[annotate.endpoints.lab]
base_url = "{server.url}/v1"
structured = "off"
max_in_flight = {IN_FLIGHT}
[[annotate.annotators]]
name = "gpt"
model = "lab/gpt"
repetitions = 2
""",
        encoding="utf-8",
    )
    return folder / "experiment.toml"


def start(file: Path, out: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "consenso", "annotate", str(file), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **more},
    )  # fmt: skip


def finish(file: Path, out: Path) -> str:
    """Run to the end, and return what was printed."""
    process = start(file, out)
    said, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    return said


def answers(out: Path) -> dict[tuple[str, int], str]:
    """What the log holds: (text, repetition) → label."""
    with LogReader(out / "votelog.sqlite") as log:
        return {
            (i, r): label
            for i, r, label in log.read("SELECT text_id, repetition, label FROM answers WHERE label IS NOT NULL")
        }


@pytest.fixture
def server() -> Iterator[MockServer]:
    with mock(process=True, latency=0.02, count_keys=True, record=False) as server:
        yield server


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


def kill_at(file: Path, out: Path, server: MockServer, received: int) -> None:
    process = start(file, out)
    wait_until(lambda: sent(server) >= received or process.poll() is not None)
    process.kill()
    process.communicate()


def killed_again_and_again(tmp_path: Path, server: MockServer, kills: int) -> None:
    count, rng = 400, random.Random(kills)
    file, out = experiment(tmp_path, server, count), tmp_path / "run"
    kept: dict[tuple[str, int], str] = {}
    lost = 0
    for _ in range(kills):
        kill_at(file, out, server, sent(server) + rng.randint(1, 2 * count // kills))
        if not (out / "votelog.sqlite").exists():
            continue
        with LogReader(out / "votelog.sqlite") as log:
            assert log.ledger().open <= MOST_OPEN + 40 * kills  # claims ahead of the slots among them
        now = answers(out)
        assert kept.items() <= now.items()  # what was committed is still there, unchanged
        kept = now
    said = finish(file, out)
    assert len(answers(out)) == 2 * count
    twice = sum(number - 2 for number in server.asked.values() if number > 2)
    with LogReader(out / "votelog.sqlite") as log:
        lost = log.ledger().unanswered
    assert twice <= lost  # the ledger's statement is true …
    assert twice <= kills * MOST_OPEN  # … and what was paid twice is what was under way
    assert "answers kept; at most" in said or not twice
    votes = pd.read_parquet(out / "tables" / "votes.parquet")
    assert len(votes) == 2 * count
    before = sent(server)
    finish(file, out)
    assert sent(server) == before  # and nothing is asked twice


def test_kill_9_at_random_moments(tmp_path: Path, server: MockServer) -> None:
    killed_again_and_again(tmp_path, server, kills=4)


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(tmp_path: Path, server: MockServer) -> None:
    killed_again_and_again(tmp_path, server, kills=20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 3)])
def test_a_signal_drains_commits_and_exits(
    number: signal.Signals, code: int, tmp_path: Path, server: MockServer
) -> None:
    file, out = experiment(tmp_path, server), tmp_path / "run"
    process = start(file, out)
    wait_until(lambda: sent(server) >= 60)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    line = errors.strip().splitlines()[-1]
    assert "answers are in the log; the same command goes on, nothing is asked twice" in line
    assert "Traceback" not in errors
    received = sent(server)
    assert len(answers(out)) == received < 800  # everything under way was waited for and kept
    with LogReader(out / "votelog.sqlite") as log:
        assert log.ledger().unanswered == 0
    finish(file, out)
    assert sent(server) == 800


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    with mock(process=True, rate_hang=1.0, faults=["ok"] * 5, count_keys=True, record=False) as server:
        file, out = experiment(tmp_path, server, drain_s="60"), tmp_path / "run"
        process = start(file, out)
        wait_until(lambda: sent(server) >= 8)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130
        with LogReader(out / "votelog.sqlite") as log:
            ledger = log.ledger()
        assert ledger.answers == 5
        assert ledger.unanswered == sent(server) - 5  # those under way, and no others


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_stops_in_one_line_and_the_run_goes_on_elsewhere(
    tmp_path: Path, tiny_disk: Path, server: MockServer
) -> None:
    file = experiment(tmp_path, server, count=3000)
    process = start(file, tiny_disk / "run")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    line = errors.strip().splitlines()[-1]
    assert "disk is full" in line or "MB left" in line, errors
    assert "Traceback" not in errors
    out = tmp_path / "copy"
    shutil.copytree(tiny_disk / "run", out)
    kept = len(answers(out))
    received = sent(server)
    finish(file, out)
    assert sent(server) <= 6000 + (received - kept)
    assert received - kept <= MOST_OPEN


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path, server: MockServer) -> None:
    file, out = experiment(tmp_path, server), tmp_path / "run"
    first = start(file, out)
    wait_until(lambda: sent(server) >= 20)
    first.send_signal(signal.SIGSTOP)  # else it may end before the second has started
    second = start(file, out)
    _, errors = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert (second.returncode, "another process works in" in errors) == (1, True)
    first.communicate(timeout=60)
    assert first.returncode == 0
