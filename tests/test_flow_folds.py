"""Folds through the whole flow: every text with gold is tested once, and the interval is the one over folds."""

from __future__ import annotations

import math

import pytest

from consenso import run
from consenso.errors import ConfigError
from consenso.store import RunFolder
from making import write_experiment

ARMS = 'students = ["linear"]\nseeds = 2\narms = ["gold", "gold-aligned", "consensus", "floor"]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("folds")
    path = write_experiment(place, data='source = "texts.csv"\nfolds = 5\ncolumns = { split = "" }', finetune=ARMS)
    run(path, place / "run")
    return RunFolder(place / "run")


def test_every_text_is_tested_once(folder):
    folds, texts = folder.read("folds"), folder.read("texts")
    tested = folds[folds["part"] == "test"]
    assert sorted(tested["text_id"]) == sorted(texts["text_id"])
    predicted = folder.read("predictions").query("part == 'test' and arm == 'consensus' and seed == 1")
    assert sorted(predicted["text_id"]) == sorted(texts["text_id"])


def test_the_interval_is_that_of_nadeau_and_bengio(folder):
    row = folder.read("comparison").query("is_primary").iloc[0]
    predictions = folder.read("predictions").query("part == 'test'")
    gold = folder.read("texts").set_index("text_id")["gold"]
    train = folder.read("trainings").query("arm == 'consensus'").groupby("fold")["train_rows"].mean()
    merged = predictions.assign(hit=predictions["predicted"] == predictions["text_id"].map(gold))
    means = merged.groupby(["arm", "fold"])["hit"].mean()
    differences = means["consensus"] - means["gold-aligned"]
    tested = merged.query("arm == 'consensus' and seed == 1").groupby("fold").size()
    ratio = float((tested / train).mean())
    se = differences.std(ddof=1) * math.sqrt(1 / 5 + ratio)
    assert row["replication"] == "fold"
    assert row["k"] == 5
    assert row["difference"] == pytest.approx(differences.mean(), abs=1e-12)
    assert row["se"] == pytest.approx(se, rel=1e-2)
    assert "5 folds" in row["sentence"]


def test_no_guard_fails_because_of_folds(folder):
    guards = folder.read("guards")
    assert guards.query("outcome == 'failed'")[["guard", "reason"]].to_numpy().tolist() == []


def test_gold_of_texts_that_are_tested_somewhere_is_never_opened(folder):
    assert folder.read("gold_noise").empty
    assert folder.read("gold_bound").empty
    assert "agreement with the full panel" in folder.record()["panel"]  # and not accuracy


def test_prompts_show_no_gold_that_is_tested_somewhere(tmp_path):
    path = write_experiment(tmp_path, data='source = "texts.csv"\nfolds = 5\ncolumns = { split = "" }', finetune=ARMS)
    text = path.read_text()
    start, end = text.index("[[annotate.imports]]"), text.index("[data]")
    asked = '[[annotate.annotators]]\nname = "llm"\nmodel = "ollama/x"\nexamples = 2\n'
    path.write_text(text[:start] + asked + text[end:])
    with pytest.raises(ConfigError, match="tested in some fold"):
        run(path, tmp_path / "run", until="annotate")


def test_folds_replicate_a_student_whose_seeds_are_all_alike(tmp_path):
    arms = ARMS + "\nresample = false"
    path = write_experiment(tmp_path, data='source = "texts.csv"\nfolds = 5\ncolumns = { split = "" }', finetune=arms)
    run(path, tmp_path / "run", until="compare")
    folder = RunFolder(tmp_path / "run")
    guard = folder.read("guards").query("guard == 'seeds differ'").iloc[0]
    assert guard["outcome"] == "passed"
    assert "the folds are the replication" in guard["reason"]
    assert folder.read("comparison").query("is_primary")["verdict"].item() != "NO VERDICT"
