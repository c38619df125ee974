"""The compact table of `consenso consensus`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from consenso.overview import describe_consensus
from consenso.store import RunFolder
from report_folder import ANNOTATORS, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = make_run(tmp_path_factory.mktemp("run"), n=40, n_test=20, seeds=1)
    names = ["raw", "consistency", "effective_votes", "brennan_prediger", "ac1", "fleiss", "cohen", "alpha"]
    values = pd.DataFrame({"measure": names, "scope": "all", "value": 0.5, "low": 0.4, "high": None, "n": 60})
    folder.write("agreement", values)
    folder.note("consensus", {"method": "weighted", "converged": False, "note": "stopped", "uses_gold": 40})
    folder.note("panel", "2 of 5 annotators can stand for all.")
    return folder


def test_consensus_annotators_and_agreement_follow_each_other(folder: RunFolder) -> None:
    table = describe_consensus(folder)
    assert list(table.columns) == ["what", "measure", "value", "low", "high", "n"]
    assert list(table["what"].drop_duplicates()) == ["consensus", *sorted(ANNOTATORS), "agreement"]
    measures = list(table.loc[table["what"] == "agreement", "measure"])
    assert measures == [
        "alpha", "fleiss", "cohen", "ac1", "brennan_prediger", "raw", "effective_votes", "consistency",
    ]  # fmt: skip


def test_an_annotator_has_its_accuracy_with_and_without_gold(folder: RunFolder) -> None:
    table = describe_consensus(folder)
    mine = table[table["what"] == min(ANNOTATORS)].set_index("measure")
    assert list(mine.index) == ["accuracy", "accuracy_estimated"]
    assert mine.loc["accuracy_estimated", ["value", "low", "high"]].tolist() == pytest.approx([0.9, 0.87, 0.92])


def test_notes_are_sentences(folder: RunFolder) -> None:
    assert describe_consensus(folder).attrs["notes"] == [
        "method weighted (not converged); gold of 40 texts used: stopped",
        "panel: 2 of 5 annotators can stand for all.",
        "accuracy_estimated: from the votes alone, on all texts (accuracy: train and dev texts with gold). Its interval covers "
        "only which texts were drawn, and holds if errors are independent given the true label; LLMs err together, so it "
        "tends to be too high. Trust gold.",
    ]


def test_an_estimate_that_votes_cannot_give_is_empty_and_a_note_says_why(folder: RunFolder, tmp_path: Path) -> None:
    other = make_run(tmp_path, n=40, n_test=20, seeds=1)
    one = folder.read("reliability").iloc[:1]
    other.write("reliability", one.assign(accuracy=None, low=None, high=None, weakest=None, reason="one is too few"))
    table = describe_consensus(other)
    assert table.loc[table["measure"] == "accuracy_estimated", ["value", "low", "high"]].isna().all(axis=None)
    assert table.attrs["notes"][-1] == "accuracy_estimated is empty: one is too few"


def test_the_table_is_valid_json(folder: RunFolder) -> None:
    found = json.loads(describe_consensus(folder).to_json(orient="records", force_ascii=False))
    assert found[0]["what"] == "consensus"
    assert found[-1]["high"] is None


def test_without_gold_and_in_earlier_folders_there_is_a_table(tmp_path: Path) -> None:
    without = ("reliability", "panels", "missed")
    folder = make_run(tmp_path, n=40, n_test=20, seeds=1, gold=False, without=without)
    table = describe_consensus(folder)
    assert set(table["what"]) == {"agreement"}
    assert table.attrs["notes"] == []
