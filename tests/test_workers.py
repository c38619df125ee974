"""How many trainings run at the same time under `workers = "auto"`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from consenso import encoders
from consenso.finetune import Recipe, workers

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
