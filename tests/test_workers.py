"""How many trainings run at the same time under `workers = "auto"`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.finetune import Recipe, pool, workers
from consenso.finetune.pieces import write_piece
from consenso.finetune.training import Outcome, Training
from consenso.labels import LabelSchema
from consenso.steps.finetune import members
from consenso.store import RunFolder

SCHEMA = LabelSchema.from_names(["no", "yes"])
ROWS = np.arange(2)
TRAINING = Training(key="", seed=1, rows=ROWS, codes=ROWS, dev_rows=ROWS, dev_codes=ROWS, asked=ROWS, steps=1)
LONG, SHORT = 1_000.0, 5.0


def count(student: str = "encoder", *, trainings: int = 50, seconds: float = LONG, wanted: Any = "auto") -> int:
    return workers.count_workers(wanted, student, Recipe(), trainings=trainings, seconds=seconds)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores with plenty of memory, started from the command line."""
    monkeypatch.setattr(workers, "can_start_processes", lambda: True)
    monkeypatch.setattr(workers, "_cores", lambda: 8)
    monkeypatch.setattr(workers, "_available_memory", lambda: 10**12)
    return monkeypatch


@pytest.mark.usefixtures("machine")
def test_every_core_trains_where_there_is_enough_to_do() -> None:
    assert count() == 8
    assert count(trainings=3) == 3
    assert count(seconds=SHORT) == 1, "starting processes would take longer"


@pytest.mark.usefixtures("machine")
def test_a_number_that_was_asked_for_is_taken() -> None:
    assert count(wanted=3, seconds=SHORT) == 3


def test_memory_limits_the_processes(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(workers, "_available_memory", lambda: int(3.2e9))
    assert count() == 2, "MiniLM: 1 GB and six times its weights of 91 MB each"
    machine.setattr(workers, "_available_memory", lambda: 10**6)
    assert count() == 1
    machine.setattr(workers, "_available_memory", lambda: None)
    assert count() == 8


def test_there_is_one_process_per_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(encoders.import_torch().cuda, "device_count", lambda: 4)
    assert count() == 4
    assert count("frozen") == 8, "linear heads are fitted by the processor"


def test_a_script_of_the_user_is_not_run_again(tmp_path: Any) -> None:
    asks = "from consenso.finetune.workers import can_start_processes; print(can_start_processes())"
    (tmp_path / "mine.py").write_text(asks, encoding="utf-8")
    in_shell, in_script = (
        subprocess.run([sys.executable, *how], capture_output=True, text=True, check=True).stdout.strip()
        for how in (["-c", asks], [str(tmp_path / "mine.py")])
    )
    assert (in_shell, in_script) == ("True", "False")


def test_what_ended_before_a_worker_died_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three trainings the first is told, the second ended untold, the third took its process along."""
    bench = pool.Bench("linear", Recipe(), SCHEMA, RunFolder(tmp_path))
    told, untold, lost = (dataclasses.replace(TRAINING, key=key) for key in ("told", "untold", "lost"))
    outcome = Outcome("ok", None, np.array([[0.2, 0.8]]), np.array([1]), {"steps": 1}, [])
    tries: list[list[str]] = []

    def broken(bench: pool.Bench, path: Path, trainings: list[Training], workers: int) -> Iterator[tuple[str, Outcome]]:
        tries.append([training.key for training in trainings])
        if len(trainings) > 1:
            yield "told", outcome
            write_piece(tmp_path / "pieces" / "trainings" / "untold.parquet", outcome)
        raise BrokenProcessPool

    monkeypatch.setattr(pool, "_pool", broken)
    found = dict(pool.in_processes(bench, {"rows": np.zeros(1)}, [told, untold, lost], 2))
    assert tries == [["told", "untold", "lost"], ["lost"]]
    assert {key: each.status for key, each in found.items()} == {"told": "ok", "untold": "ok", "lost": "failed"}


@pytest.mark.parametrize(
    ("joined", "expected"),
    [
        ("a + b", ["a", "b"]),
        ("gpt + rag + a", ["gpt + rag", "a"]),
        ("a + gpt + rag", ["a", "gpt + rag"]),
        ("gpt + a", ["gpt", "a"]),
        ("a + unknown", []),
    ],
)
def test_names_of_a_panel_may_hold_what_joins_them(joined: str, expected: list[str]) -> None:
    assert members(joined, {"a", "b", "gpt", "gpt + rag"}) == expected
