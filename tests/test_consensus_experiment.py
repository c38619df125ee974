"""The consensus stage of an experiment: gold it may use, what it writes, and what each method needs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from consenso import run
from consenso.consensus import METHODS
from consenso.errors import ConfigError
from consenso.store import RunFolder
from making import write_experiment


def consensus(tmp_path: Path, settings: str, until: str = "consensus") -> RunFolder:
    run(write_experiment(tmp_path, consensus=settings), tmp_path / "run", until=until)
    return RunFolder(tmp_path / "run")


def gold_of(folder: RunFolder, *parts: str) -> set[str]:
    folds = folder.read("folds")
    return set(folds.loc[folds["part"].isin(parts), "text_id"])


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"unanimous", "threshold", "outliers", "majority"}))
def test_every_method_runs_in_an_experiment(tmp_path: Path, method: str) -> None:
    folder = consensus(tmp_path, f'method = "{method}"' + ("\nordered = true" if METHODS[method].ordered else ""))
    texts, labels = (
        folder.read("texts").set_index("text_id")["gold"],
        folder.read("labels").set_index("text_id")["label"],
    )
    assert (labels == texts[labels.index]).mean() > 0.8
    assert folder.record()["consensus"]["method"] == method


@pytest.mark.parametrize(
    "settings",
    [
        'method = "weighted"\nweights = "gold"\ngold_texts = 40',
        'method = "dawid_skene_families"\ngold_texts = 40\nfamilies = { llm0 = "x", llm1 = "x" }',
        "gold_texts = 40\nproblematic = { target = 0.8 }",
    ],
)
def test_texts_whose_gold_is_used_are_training_texts_and_train_no_aligned_arm(tmp_path: Path, settings: str) -> None:
    folder = consensus(tmp_path, settings, until="finetune")
    used = set(folder.read("consensus_gold")["text_id"])
    assert len(used) == 40
    assert used <= gold_of(folder, "train")
    assert not used & gold_of(folder, "dev", "test")
    assert folder.record()["consensus"]["uses_gold"] == 40
    arms = folder.read("arms")
    aligned = arms[arms["arm"].isin(["gold-aligned", "consensus", "consensus-kept"])]
    assert len(aligned)
    assert not used & set(aligned["text_id"])
    assert used & set(arms.loc[arms["arm"].eq("gold"), "text_id"])


def test_test_gold_is_never_read(tmp_path: Path) -> None:
    """Other gold of test texts changes no table of the stage."""
    settings = 'gold_texts = 40\nmethod = "weighted"\nweights = "gold"\nproblematic = { target = 0.8 }'
    experiment = write_experiment(tmp_path, consensus=settings)
    run(experiment, tmp_path / "one", until="consensus")
    texts = pd.read_csv(tmp_path / "texts.csv")
    tested = texts["split"].eq("test")
    texts.loc[tested, "gold"] = texts.loc[tested, "gold"].iloc[::-1].to_numpy()
    texts.to_csv(tmp_path / "texts.csv", index=False)
    run(experiment, tmp_path / "two", until="consensus")
    one, two = (RunFolder(tmp_path / name) for name in ("one", "two"))
    for table in (
        "labels",
        "consensus_gold",
        "missed",
        "panels",
        "gold_noise",
        "gold_bound",
        "confidence",
        "reliability",
    ):
        pd.testing.assert_frame_equal(one.read(table), two.read(table))


def test_the_stage_writes_what_annotators_are_worth_and_where_gold_is_contradicted(tmp_path: Path) -> None:
    folder = consensus(tmp_path, 'method = "dawid_skene_map"')
    assert folder.read("reliability")["annotator"].tolist() == ["llm0", "llm1", "llm2"]
    assert folder.read("panels")["size"].tolist() == [1, 2, 3]
    noise = folder.read("gold_noise")
    assert set(noise["text_id"]) <= gold_of(folder, "train", "dev")
    assert (noise["gold"] != noise["label"]).all()
    assert set(folder.read("gold_bound")["gold"]) == {"all", *folder.read("texts")["gold"].unique()}
    assert "annotators" in folder.record()["panel"]


def test_ordered_labels_are_measured_by_rank_and_distance(tmp_path: Path) -> None:
    measures = set(consensus(tmp_path, "ordered = true").read("agreement")["measure"])
    assert {"alpha", "alpha_ordinal", "alpha_interval", "ac1", "brennan_prediger", "effective_votes"} <= measures


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('method = "weighted"\nweights = "gold"\ngold_texts = 100000', "gold_texts = 100000: only .* have gold"),
        ('method = "dawid_skene_families"\nfamilies = { lm0 = "x" }', "unknown annotator 'lm0'. Did you mean 'llm0'"),
        ("gold_texts = 40", "nothing here uses gold"),
        ('method = "weighted"\nweights = "gold"', "set gold_texts"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, settings: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        consensus(tmp_path, settings)
    assert "\n" not in str(error.value)
