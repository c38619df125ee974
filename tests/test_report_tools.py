"""Exports to annotation tools: the JSON that Label Studio imports, and the folder that Argilla reads."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from consenso.errors import DataError
from consenso.labels import LabelSchema
from consenso.report import ReportSettings, export_argilla, export_label_studio
from consenso.report.argilla import question_names, records
from consenso.report.facts import Facts
from consenso.report.label_studio import interface
from consenso.report.opinions import Opinions, opinions, write_json_list
from consenso.store import RunFolder
from report_folder import NAMES, SCRIPT, make_run

PANEL = {"llama3.1-8b": 0.8, "Qwen 3 (8B)": 0.75, "注释者": 0.7}
NAME = re.compile(r"(?=.*[a-z0-9])[a-z0-9_-]{1,200}")
AGENT = re.compile(r"(?=.*[a-zA-Z0-9])[a-zA-Z0-9-_:\./\s]{1,200}")
"""What Argilla's server takes as names of questions and metadata, and as agents."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), n=40, n_test=20, seeds=2, annotators=PANEL)


@pytest.fixture(scope="module")
def tasks(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = export_label_studio(folder, tmp_path_factory.mktemp("label_studio"))
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def dataset(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_argilla(folder, tmp_path_factory.mktemp("argilla"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="ascii"))  # Argilla reads with the platform's own encoding


def votes_of(folder: RunFolder, text_id: str) -> dict[str, str]:
    votes = folder.read("votes")
    mine = votes[votes["text_id"].eq(text_id) & votes["label"].notna()]
    return dict(zip(mine["annotator"], mine["label"], strict=True))


def with_votes(path: Path, *rows: tuple[str, int, str | None, float | None]) -> Opinions:
    """What is known of the first text, whose votes are these: (annotator, repetition, label, confidence)."""
    folder = make_run(path, n=30, n_test=20, seeds=1, asked=False)
    votes = pd.DataFrame(rows, columns=["annotator", "repetition", "label", "confidence"])
    folder.write("votes", votes.assign(text_id="t00000", status="ok"))
    (one,) = opinions(Facts(folder, ReportSettings()))
    return one


# what is known of each text


def test_repetitions_of_an_annotator_are_one_opinion(tmp_path: Path) -> None:
    one = with_votes(tmp_path, ("a", 0, "billing", 0.9), ("a", 1, "account", 0.2), ("a", 2, "billing", 0.7))
    (vote,) = one.votes
    assert (vote.who, vote.label, vote.score) == ("a", "billing", pytest.approx(0.8))


def test_repetitions_that_tie_are_no_opinion(tmp_path: Path) -> None:
    one = with_votes(tmp_path, ("a", 0, "billing", None), ("a", 1, "account", None), ("b", 0, "account", None))
    assert [(vote.who, vote.label) for vote in one.votes] == [("b", "account")]


def test_a_confidence_on_another_scale_is_no_score(tmp_path: Path) -> None:
    one = with_votes(tmp_path, ("a", 0, "billing", 4.0), ("b", 0, "billing", 1.0))
    assert [vote.score for vote in one.votes] == [None, 1.0]


def test_texts_nobody_was_asked_about_are_left_out_and_silent_ones_are_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=30, n_test=20, seeds=1)
    votes = folder.read("votes")
    settled = votes["text_id"] == "t00003"
    status = votes["status"].mask(settled, "settled")
    folder.write(
        "votes", votes.assign(label=votes["label"].mask(settled, None), status=status)[votes["text_id"] != "t00007"]
    )
    found = {one.text_id: one for one in opinions(Facts(folder, ReportSettings()))}
    assert set(folder.read("texts")["text_id"]) - set(found) == {"t00003", "t00007"}
    assert found["t00005"].votes == []  # the maker's text for which every call failed


def test_votes_for_unknown_texts_do_not_shift_the_others(tmp_path: Path, folder: RunFolder) -> None:
    copy = make_run(tmp_path, n=40, n_test=20, seeds=1, annotators=PANEL)
    votes = copy.read("votes")
    stray = votes.head(2).assign(text_id=["a-stray", "t00010x"])
    copy.write("votes", pd.concat([votes, stray]))
    found = {
        one.text_id: {vote.who: vote.label for vote in one.votes} for one in opinions(Facts(copy, ReportSettings()))
    }
    assert found == {text_id: votes_of(folder, text_id) for text_id in folder.read("texts")["text_id"]}


def test_reading_in_small_batches_changes_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(opinions(Facts(folder, ReportSettings())))
    monkeypatch.setattr("consenso.report.opinions.BATCH", 7)
    assert list(opinions(Facts(folder, ReportSettings()))) == whole


def test_a_list_is_written_item_by_item(tmp_path: Path) -> None:
    assert json.loads(write_json_list(tmp_path / "none.json", []).read_text()) == []
    path = write_json_list(tmp_path / "some.json", ({"é": k} for k in range(3)))
    assert json.loads(path.read_text(encoding="ascii")) == [{"é": 0}, {"é": 1}, {"é": 2}]
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize("export", [export_label_studio, export_argilla])
def test_gold_is_not_handed_to_whoever_labels(export: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, seeds=1)
    texts = folder.read("texts")
    folder.write("texts", texts.assign(gold="SECRET"))
    export(folder, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "SECRET" in path.read_text()]


@pytest.mark.parametrize("export", [export_label_studio, export_argilla])
def test_without_votes_nothing_is_written(export: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, seeds=1, without=["votes"])
    with pytest.raises(DataError, match="no table 'votes' yet"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [export_label_studio, export_argilla])
def test_the_same_tables_give_the_same_files(export: Callable[..., Path], folder: RunFolder, tmp_path: Path) -> None:
    for place in ("one", "two"):
        export(folder, tmp_path / place)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


# Label Studio


def test_a_task_has_a_prediction_per_annotator_with_a_label(folder: RunFolder, tasks: list[dict[str, Any]]) -> None:
    assert [task["data"]["text_id"] for task in tasks] == folder.read("texts")["text_id"].tolist()
    for task in tasks:
        given = {
            one["model_version"]: one["result"][0]["value"]["choices"]
            for one in task["predictions"]
            if one["model_version"] in PANEL
        }
        assert given == {who: [label] for who, label in votes_of(folder, task["data"]["text_id"]).items()}


def test_a_prediction_is_a_choice_of_the_interface(tasks: list[dict[str, Any]]) -> None:
    for prediction in tasks[0]["predictions"]:
        (chosen,) = prediction["result"]
        assert {key: chosen[key] for key in ("from_name", "to_name", "type")} == {
            "from_name": "label",
            "to_name": "text",
            "type": "choices",
        }
        assert set(chosen["value"]) == {"choices"}
        assert chosen["value"]["choices"][0] in NAMES


def test_the_consensus_is_a_prediction_where_there_is_one(folder: RunFolder, tasks: list[dict[str, Any]]) -> None:
    labels = folder.read("labels").set_index("text_id")
    for task in tasks:
        first = next(iter(task["predictions"]), {"model_version": ""})
        mine = labels.loc[task["data"]["text_id"]]
        if pd.isna(mine["label"]):
            assert first["model_version"] != "consensus"
        else:
            assert first["model_version"] == "consensus"
            assert first["score"] == pytest.approx(mine["score"])
            assert first["result"][0]["value"]["choices"] == [mine["label"]]


def test_a_prediction_without_confidence_has_no_score(folder: RunFolder, tasks: list[dict[str, Any]]) -> None:
    votes = folder.read("votes").set_index(["text_id", "annotator"])["confidence"]
    assert votes.notna().any()
    for task in tasks:
        for one in task["predictions"]:
            if one["model_version"] in PANEL:
                known = votes[task["data"]["text_id"], one["model_version"]]
                assert one.get("score") == (None if pd.isna(known) else pytest.approx(known))


def test_a_label_that_a_human_gave_is_named_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, seeds=1)
    final = folder.read("final_labels")
    folder.write("final_labels", final.assign(label="billing", source="human"))
    tasks = read(export_label_studio(folder, tmp_path))
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"human"}
    assert not [task for task in tasks if "score" in task["predictions"][0]]


def test_without_consensus_there_are_the_votes_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, seeds=1, without=["labels", "final_labels"])
    tasks = read(export_label_studio(folder, tmp_path))
    assert "consensus" not in {one["model_version"] for task in tasks for one in task["predictions"]}
    assert {task["data"]["consensus_level"] for task in tasks} == {"none"}


def test_the_interface_offers_every_label_as_it_is_spelled() -> None:
    names = ("a & b", 'say "x" <now>', "it's")
    root = ET.fromstring(interface(LabelSchema.from_names(names, {"a & b": 'a "and" b'})))
    (text,), (choices,) = root.findall("Text"), root.findall("Choices")
    assert text.attrib == {"name": "text", "value": "$text"}
    assert choices.attrib == {"name": "label", "toName": "text", "choice": "single", "required": "true"}
    assert [choice.attrib for choice in choices] == [
        {"value": "a & b", "hint": 'a "and" b'},
        {"value": 'say "x" <now>'},
        {"value": "it's"},
    ]


# Argilla


def test_argilla_has_its_three_files(dataset: Path) -> None:
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {"records.json", ".argilla/settings.json", ".argilla/dataset.json"}
    assert read(dataset / ".argilla" / "dataset.json") == {"name": "support", "allow_extra_metadata": False}


def test_the_label_question_has_the_schema_and_is_the_only_one_required(dataset: Path) -> None:
    settings = read(dataset / ".argilla" / "settings.json")
    label, *votes = settings["questions"]
    assert label["name"] == "label"
    assert label["settings"]["type"] == "label_selection"
    assert [option["value"] for option in label["settings"]["options"]] == list(NAMES)
    assert label["required"] is True
    assert [question["title"] for question in votes] == sorted(PANEL)
    assert {question["required"] for question in votes} == {False}
    assert [field["name"] for field in settings["fields"]] == ["text"]


def test_every_name_is_one_that_argilla_takes(dataset: Path) -> None:
    settings = read(dataset / ".argilla" / "settings.json")
    names = [one["name"] for part in ("fields", "questions", "metadata") for one in settings[part]]
    assert len(set(names)) == len(names)
    assert all(NAME.fullmatch(name) for name in names)


def test_names_of_questions_are_distinct_and_short() -> None:
    names = question_names(["GPT-4", "gpt 4", "gpt-4", "…", "!", "x" * 400])
    assert len(set(names.values())) == len(names)
    assert all(NAME.fullmatch(name) for name in names.values())


def test_a_record_has_a_suggestion_per_annotator_and_the_consensus(folder: RunFolder, dataset: Path) -> None:
    questions = question_names(sorted(PANEL))
    labels = folder.read("final_labels").set_index("text_id")["label"]
    for record in read(dataset / "records.json"):
        given = {questions[who]: label for who, label in votes_of(folder, record["id"]).items()}
        if pd.notna(labels[record["id"]]):
            given["label"] = labels[record["id"]]
        assert {name: one["value"] for name, one in record["suggestions"].items()} == given


def test_suggestions_say_who_and_how_sure(dataset: Path) -> None:
    found = read(dataset / "records.json")
    suggestions = [(name, one) for record in found for name, one in record["suggestions"].items()]
    assert {one["agent"] for name, one in suggestions if name == "label"} == {"consensus"}
    assert {one.get("agent") for _, one in suggestions} == {"consensus", "llama3.1-8b", "Qwen 3 -8B-", None}
    assert all(one.get("agent") is None or AGENT.fullmatch(one["agent"]) for _, one in suggestions)
    assert all(one["score"] is None or 0 <= one["score"] <= 1 for _, one in suggestions)
    assert {one["type"] for _, one in suggestions} == {"model"}


def test_records_carry_what_they_can_be_filtered_by(folder: RunFolder, dataset: Path) -> None:
    settings = read(dataset / ".argilla" / "settings.json")
    known = {one["name"]: one["settings"] for one in settings["metadata"]}
    labels = folder.read("labels").set_index("text_id")
    for record in read(dataset / "records.json"):
        metadata, mine = record["metadata"], labels.loc[record["id"]]
        assert set(metadata) <= set(known)
        assert metadata["consensus_level"] in known["consensus_level"]["values"]
        assert metadata["is_problematic"] == ("yes" if mine["is_problematic"] else "no")
        assert metadata.get("consensus_score") == (
            None if mine["score"] != mine["score"] else pytest.approx(mine["score"])
        )
        assert metadata["votes"] == len(votes_of(folder, record["id"]))


def test_texts_stand_as_they_are(tasks: list[dict[str, Any]], dataset: Path, folder: RunFolder) -> None:
    assert tasks[0]["data"]["text"] == SCRIPT
    texts = folder.read("texts").set_index("text_id")["text"].to_dict()
    assert {record["id"]: record["fields"]["text"] for record in read(dataset / "records.json")} == texts


def test_a_human_label_is_no_suggestion_of_a_model(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, seeds=1)
    folder.write("final_labels", folder.read("final_labels").assign(label="billing", source="human"))
    facts = Facts(folder, ReportSettings())
    first = next(iter(records(facts, question_names(sorted(set(folder.read("votes")["annotator"]))))))
    assert first["suggestions"]["label"] == {"value": "billing", "score": None, "type": "human", "agent": "human"}
