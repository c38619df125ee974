"""Trainings reported to trackers: once each, with curve, facts and status, and never at the cost of a training."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.errors import ConfigError, MissingExtraError
from consenso.experiment import run
from consenso.experiment_file import read_experiment
from consenso.finetune import FinetuneSettings, Recipe, Results, make_arms, run_arms
from consenso.finetune import tracking as trackers
from consenso.finetune.tracking import Tracking
from consenso.finetune.training import Outcome
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import TABLES
from making import write_experiment

SCHEMA = LabelSchema.from_names(["good", "bad"])
CURVE = [
    {"step": 5, "epoch": 0.5, "train_loss": 0.9, "dev_loss": 0.8, "dev_accuracy": 0.5, "dev_macro_f1": 0.4},
    {"step": 10, "epoch": 1.0, "train_loss": 0.7, "dev_loss": 0.6, "dev_accuracy": 0.7, "dev_macro_f1": 0.6},
]
OUTCOME = Outcome("ok", None, facts={"dev_macro_f1": 0.6, "steps": 10, "stopped_at": None}, curve=CURVE)


def study(folder: RunFolder | None = None, seeds: int = 1, **options: object) -> Results:
    """Two arms of the student `linear` on 100 texts."""
    rng = np.random.default_rng(0)
    gold = rng.choice(SCHEMA.names, 100)
    ids = [f"t{i:03d}" for i in range(100)]
    words = {"good": ["fine", "nice", "kind"], "bad": ["dull", "poor", "cold"]}
    drawn = [" ".join(rng.choice(words[label], 4)) + f" no{i}" for i, label in enumerate(gold)]
    texts = pd.DataFrame({"text_id": ids, "text": drawn, "gold": gold})
    folds = pd.DataFrame({"fold": 0, "text_id": ids, "part": ["train", "train", "train", "dev", "test"] * 20})
    label = np.where(rng.random(100) < 0.2, rng.choice(SCHEMA.names, 100), gold)
    labels = pd.DataFrame({"text_id": ids, "label": label, "is_problematic": False})
    arms = make_arms(texts, folds, labels, arms=["gold", "consensus"], seeds=seeds, schema=SCHEMA)
    recipe = Recipe(c_grid=(1.0,))
    return run_arms(arms, texts, folds, student="linear", recipe=recipe, schema=SCHEMA, folder=folder, **options)  # type: ignore[arg-type]


def events(place: Path) -> dict[str, object]:
    """Run → what TensorBoard reads from its event files."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for folder in sorted({path.parent for path in place.rglob("events.out.*")}):
        found[folder.relative_to(place).as_posix()] = reader.EventAccumulator(str(folder)).Reload()
    return found


def test_a_training_stands_in_tensorboard_with_its_curve_facts_and_status(tmp_path: Path) -> None:
    Tracking("tensorboard", tmp_path).log_training("encoder/gold/fold0/seed1", {"learning_rate": 2e-5}, OUTCOME)
    read = events(tmp_path / "tensorboard")["encoder/gold/fold0/seed1"]
    curve = [(point.step, round(point.value, 6)) for point in read.Scalars("dev_macro_f1")]  # type: ignore[attr-defined]
    assert curve == [(5, 0.4), (10, 0.6)]
    tags = set(read.Tags()["scalars"])  # type: ignore[attr-defined]
    assert tags == {"dev_macro_f1", "dev_loss", "dev_accuracy", "train_loss", "final/dev_macro_f1", "final/steps"}
    status = read.Tensors("status/text_summary")[0].tensor_proto.string_val  # type: ignore[attr-defined]
    assert status == [b"ok"]


def test_points_can_be_logged_as_they_come(tmp_path: Path) -> None:
    tracked = Tracking(["tensorboard"], tmp_path).start("final", {})
    tracked.log_point(3, {"dev_loss": 1.5, "epoch": 0.25})
    read = events(tmp_path / "tensorboard")["final"]
    assert [(point.step, point.value) for point in read.Scalars("dev_loss")] == [(3, 1.5)]  # type: ignore[attr-defined]
    tracked.end("collapsed", {"steps": 3}, "one class")


def test_each_training_is_reported_once_and_those_read_from_disk_are_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    study(folder, seeds=1, report_to="tensorboard")
    study(folder, seeds=1, report_to="tensorboard")
    place = folder.path / "trackers" / "tensorboard"
    assert sorted(events(place)) == ["linear/consensus/fold0/seed1", "linear/gold/fold0/seed1"]


def test_trackers_change_no_number(tmp_path: Path) -> None:
    plain, tracked = study(), study(report_to=Tracking("tensorboard", tmp_path))
    for name in Results._fields:
        columns = list(TABLES[name].volatile)
        ours, theirs = (getattr(found, name).drop(columns=columns) for found in (plain, tracked))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_a_training_repeated_under_its_name_keeps_the_earlier_one_apart(tmp_path: Path) -> None:
    tracking = Tracking("tensorboard", tmp_path)
    for _ in range(2):
        tracking.log_training("linear/gold/fold0/seed1", {}, OUTCOME)
    assert sorted(events(tmp_path / "tensorboard")) == ["linear/gold/fold0/seed1", "linear/gold/fold0/seed1 again 2"]


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    Tracking("tensorboard", tmp_path / "here").log_training("linear/single:../../x/fold0", {}, OUTCOME)
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]


def test_a_tracker_that_fails_is_one_warning_and_no_training_less(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(place: Path, project: str) -> trackers.Tracker:
        raise PermissionError("no place to write")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", broken)
    with caplog.at_level(logging.WARNING):
        found = study(RunFolder(tmp_path), seeds=3, report_to="tensorboard")
    assert found.trainings["status"].eq("ok").all()
    assert [r.message for r in caplog.records if "tracker" in r.message] == [
        "tracker tensorboard is off from here on (PermissionError: no place to write); trainings go on"
    ]


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in {"tensorboard", "mlflow"} else object()
    )
    with pytest.raises(MissingExtraError, match=r'pip install "consenso\[trackers\]"'):
        study(RunFolder(tmp_path), report_to="tensorboard")
    with pytest.raises(MissingExtraError, match="pip install mlflow-skinny sqlalchemy alembic"):
        Tracking("mlflow", tmp_path)
    assert not (tmp_path / "pieces").exists()


def test_an_unknown_tracker_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord'.*Did you mean 'tensorboard'"):
        Tracking("tensorbord", tmp_path)
    with pytest.raises(ConfigError, match="unknown tracker 'clearml'; choose from tensorboard, mlflow, wandb"):
        FinetuneSettings.read({"report_to": ["clearml"]})


def test_report_to_repeats_no_stage_and_no_training(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    run(path, tmp_path / "run", until="finetune")
    again: list[dict[str, object]] = []
    changed, base = read_experiment(path, ['finetune.report_to="tensorboard"'])
    run(changed, tmp_path / "run", until="finetune", progress=again.append, base=base)
    assert {"stage": "finetune", "event": "reuse"} in again
    assert not (tmp_path / "run" / "trackers").exists()


def test_an_experiment_reports_to_its_run_folder(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path, finetune='students = ["linear"]\nseeds = 1\narms = ["gold", "floor"]\nreport_to = "tensorboard"',
        compare='arm = "gold"\ncontrol = "floor"\nmetric = "accuracy"\nmargin = 0.05',
    )  # fmt: skip
    run(path, tmp_path / "run", until="finetune")
    assert list(events(tmp_path / "run" / "trackers" / "tensorboard")) == ["linear/gold/fold0/seed1"]


def test_a_tracker_that_fails_is_off_for_the_whole_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(place: Path, project: str) -> trackers.Tracker:
        raise PermissionError("no place to write")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", broken)
    more = '[finetune.variants."gold dev"]\ndev = "gold"\n'
    path = write_experiment(tmp_path, more=more, finetune='students = ["linear"]\nseeds = 1\nreport_to = "tensorboard"')
    run(path, tmp_path / "run", until="finetune")
    assert RunFolder(tmp_path / "run").read("trainings")["student"].nunique() == 2
    assert caplog.text.count("tracker tensorboard is off") == 1


@pytest.mark.filterwarnings("ignore")
def test_a_training_stands_in_mlflow_in_a_sqlite_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking("mlflow", tmp_path, "my run")
    tracking.log_training("encoder/gold/fold0/seed1", {"learning_rate": 2e-5}, OUTCOME)
    tracking.log_training("encoder/gold/fold0/seed2", {}, Outcome("failed", "out of memory"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    failed, ok = client.search_runs([client.get_experiment_by_name("my run").experiment_id])
    history = [(m.step, m.value) for m in client.get_metric_history(ok.info.run_id, "dev_macro_f1")]
    assert (ok.info.run_name, ok.data.tags["status"]) == ("encoder/gold/fold0/seed1", "ok")
    assert ok.data.params == {"learning_rate": "2e-05"}
    assert (history, ok.data.metrics["final/steps"]) == ([(5, 0.4), (10, 0.6)], 10)
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "out of memory")


@pytest.mark.filterwarnings("ignore")
def test_a_training_stands_in_wandb_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    Tracking("wandb", tmp_path, "my run").log_training("encoder/gold/fold0/seed1", {"learning_rate": 2e-5}, OUTCOME)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    assert wandb.run is None
