"""The whole flow on small data: what is repeated, what is not, and what a kill leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import consenso
from consenso.errors import ConfigError
from consenso.final_model import train_model
from consenso.store import RunFolder
from consenso.tables import TABLES
from making import write_experiment, write_texts


def run(path: Path, out: Path, **options):
    events: list[dict] = []
    result = consenso.run(path, out, progress=events.append, **options)
    return result, events


def trained(events: list[dict]) -> int:
    return sum(event["event"] == "advance" and event["seed"] is not None for event in events)


def worked(events: list[dict]) -> list[str]:
    return [event["stage"] for event in events if event["event"] == "start"]


def stable_tables(folder: Path) -> dict[str, pd.DataFrame]:
    place = RunFolder(folder)
    names = [name for name in TABLES if place.has(name)]
    return {name: place.read(name).drop(columns=list(TABLES[name].volatile), errors="ignore") for name in names}


def assert_same_tables(one: Path, other: Path) -> None:
    left, right = stable_tables(one), stable_tables(other)
    assert left.keys() == right.keys()
    for name, frame in left.items():
        pd.testing.assert_frame_equal(frame, right[name], obj=name)
    assert RunFolder(one).fingerprints() == RunFolder(other).fingerprints()


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """A folder with an experiment and its run, and the events of that run."""
    place = tmp_path_factory.mktemp("once")
    return place, run(write_experiment(place), place / "run")[1]


@pytest.fixture
def finished(once: tuple[Path, list[dict]], tmp_path: Path) -> Path:
    """An experiment that ran, moved to tmp_path with its run folder `run`."""
    shutil.copytree(once[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "experiment.toml"


def test_a_run_ends_with_a_verdict_and_a_report(experiment: Path, tmp_path: Path) -> None:
    result, _ = run(experiment, tmp_path / "run")
    assert result.verdict
    assert result.sentence.startswith(result.verdict)
    assert result.report is not None
    assert result.report.read_text(encoding="utf-8").count(result.verdict) >= 1


def test_two_runs_with_the_same_settings_give_identical_tables(
    once: tuple[Path, list[dict]], experiment: Path, tmp_path: Path
) -> None:
    run(experiment, tmp_path / "two")
    assert_same_tables(once[0] / "run", tmp_path / "two")


def test_an_unchanged_experiment_does_nothing_again(finished: Path, tmp_path: Path) -> None:
    _, events = run(finished, tmp_path / "run")
    assert worked(events) == []


def test_more_seeds_train_only_the_new_ones(finished: Path, once: tuple[Path, list[dict]], tmp_path: Path) -> None:
    text = finished.read_text(encoding="utf-8").replace("seeds = 3", "seeds = 5")
    finished.write_text(text, encoding="utf-8")
    _, second = run(finished, tmp_path / "run")
    assert trained(second) == trained(once[1]) / 3 * 2
    assert worked(second) == ["finetune", "compare", "report"]


def test_a_changed_consensus_setting_runs_what_follows_and_nothing_before(
    finished: Path, once: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    text = finished.read_text(encoding="utf-8").replace('method = "majority"', 'method = "unanimous"')
    finished.write_text(text, encoding="utf-8")
    _, second = run(finished, tmp_path / "run")
    assert worked(second) == ["consensus", "finetune", "compare", "report"]
    assert 0 < trained(second) < trained(once[1])  # the gold arm and the floor do not depend on the consensus


def test_a_changed_data_file_is_noticed(finished: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text(texts.read_text(encoding="utf-8") + "t999,a new match of the team,sport,train\n", encoding="utf-8")
    _, events = run(finished, tmp_path / "run", until="annotate")
    assert worked(events)[0] == "data"
    assert "t999" in set(RunFolder(tmp_path / "run").read("texts")["text_id"])


def test_failed_trainings_are_tried_again(experiment: Path, tmp_path: Path, monkeypatch) -> None:
    from consenso.finetune.students import linear

    real, calls = linear.train, []

    def short_of_memory(*arguments, **options):
        calls.append(1)
        if len(calls) <= 2:
            raise MemoryError("not enough")
        return real(*arguments, **options)

    monkeypatch.setattr(linear, "train", short_of_memory)
    result, _ = run(experiment, tmp_path / "run")
    assert result.failed > 0
    assert result.exit_code in {3, 4}
    again, events = run(experiment, tmp_path / "run")
    assert again.failed == 0
    assert trained(events) == 2


def test_a_changed_name_reaches_the_comparison(finished: Path, tmp_path: Path) -> None:
    finished.write_text(finished.read_text(encoding="utf-8").replace('"small"', '"other"', 1), encoding="utf-8")
    run(finished, tmp_path / "run", until="compare")
    assert set(RunFolder(tmp_path / "run").read("comparison")["dataset"]) == {"other"}


def test_a_recipe_field_that_a_student_does_not_read_repeats_no_training(finished: Path, tmp_path: Path) -> None:
    finished.write_text(finished.read_text(encoding="utf-8") + "[finetune.recipe]\nepochs = 9\n", encoding="utf-8")
    _, events = run(finished, tmp_path / "run", until="finetune")
    assert trained(events) == 0


def test_an_unknown_stage_is_refused(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(consenso.ConsensoError, match="Did you mean 'annotate'"):
        run(experiment, tmp_path / "run", until="anotate")


@pytest.mark.parametrize("encoder", ["./nowhere", "generative"])
def test_an_encoder_that_cannot_be_used_is_refused_before_votes_are_asked_for(tmp_path: Path, encoder: str) -> None:
    if encoder == "generative":
        encoder = str(tmp_path / "gpt2")
        (tmp_path / "gpt2").mkdir()
        (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
        (tmp_path / "gpt2" / "model.safetensors").touch()
    path = write_experiment(tmp_path, finetune=f'students = ["encoder"]\n[finetune.recipe]\nencoder = "{encoder}"')
    with pytest.raises(consenso.ConsensoError, match=r"no such folder|is a generative model"):
        run(path, tmp_path / "run")
    assert not (tmp_path / "run" / "tables").exists()


def test_one_seed_yields_no_verdict(experiment: Path, tmp_path: Path) -> None:
    experiment.write_text(experiment.read_text(encoding="utf-8").replace("seeds = 3", "seeds = 1"), encoding="utf-8")
    result, _ = run(experiment, tmp_path / "run")
    assert result.verdict == "NO VERDICT"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_run_resumes_with_what_is_missing_and_ends_the_same(
    once: tuple[Path, list[dict]], experiment: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    kills = 0
    for wanted in (1, 6):  # kill at the first finished training, and again in the middle
        process = subprocess.Popen(
            [sys.executable, "-m", "consenso", "run", str(experiment), "--out", str(killed)],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((killed / "pieces").rglob("*.parquet"))) >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (killed / "pieces").rglob("*.parquet")}
    run(experiment, killed)
    assert kills >= 1
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert_same_tables(once[0] / "run", killed)


def test_a_second_process_on_the_same_folder_is_refused(experiment: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked(), pytest.raises(consenso.ConsensoError, match="another process"):
        run(experiment, tmp_path / "run")


def test_an_arm_of_an_annotator_that_nobody_is_costs_no_vote(tmp_path: Path) -> None:
    write_texts(tmp_path)
    one = {"kind": "embedding", "name": "codebook"}
    asked = {
        "name": "x", "data": {"source": "texts.csv"}, "annotate": {"annotators": [one]},
        "finetune": {"students": ["linear"], "arms": ["gold", "single:codebok"]},
    }  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"no annotator is called 'codebok'; found codebook\. Did you mean 'codebook'"
    ):
        consenso.run(asked, tmp_path / "run", base=tmp_path)
    assert not (tmp_path / "run" / "tables").exists()
    with pytest.raises(ConfigError, match="'single:codebok'"):
        train_model(asked, tmp_path / "run", to=tmp_path / "model", labels="single:codebok")
    assert not (tmp_path / "run" / "tables").exists()


def test_half_written_files_of_a_killed_run_are_cleared(experiment: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "run" / "tables" / ".votes.parquet.4194305-0a1b2c3d"  # no process has this number
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    at_work = leftover.with_name(f".labels.csv.{os.getppid()}-0a1b2c3d")
    at_work.write_bytes(b"of a process that is alive")
    run(experiment, tmp_path / "run", until="data")
    assert not leftover.exists()
    assert at_work.exists()


def test_a_kill_after_a_table_was_replaced_leaves_its_stage_undone(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment, tmp_path / "run", until="consensus")
    place = RunFolder(tmp_path / "run")
    before, entry = place.read("labels"), place.record()["stages"]["consensus"]

    class Killed(BaseException):
        pass

    note = RunFolder.note

    def killed(self: RunFolder, name: str, value: object) -> None:
        if name == "tables" and "labels" in value:
            raise Killed
        note(self, name, value)

    monkeypatch.setattr(RunFolder, "note", killed)
    with pytest.raises(Killed):
        place.write("labels", before.iloc[:10])
    monkeypatch.undo()
    assert len(place.read("labels")) == 10
    assert not place.is_done("consensus", entry["key"])
    _, events = run(experiment, tmp_path / "run", until="consensus")
    assert "consensus" in worked(events)
    pd.testing.assert_frame_equal(place.read("labels"), before)
