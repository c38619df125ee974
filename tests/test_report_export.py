"""Exports: tables as CSV, and the earlier system's files, which read back as the same votes."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.annotate import read_votes
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from consenso.report import export_earlier, export_tables
from consenso.store import RunFolder
from consenso.tables import TABLES
from report_folder import NAMES, make_run

PANEL = {"llama3.1-8b": 0.8, "qwen3-8b": 0.75, "gemma3-4b": 0.7}
MODEL_COLUMNS = ["_rep0", "_rep0_conf", "_consensus", "_consensus_score", "_annotation_time_sec"]
CONSENSUS_COLUMNS = [
    "all_annotations", "unique_annotations", "most_common_annotation", "most_common_count", "consensus_score", "consensus_level",
    "is_problematic", "resolved_annotation", "needs_review",
]  # fmt: skip
RESULT_COLUMNS = [
    "eval_loss", "eval_accuracy", "eval_f1_macro", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch", "source",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), n=60, n_test=30, annotators=PANEL, students=["frozen", "encoder"])


@pytest.fixture(scope="module")
def out(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("earlier")
    export_earlier(folder, place)
    return place


def valid(votes: pd.DataFrame) -> list[tuple[object, ...]]:
    votes = votes[votes["label"].notna()]
    return sorted(zip(votes["text_id"], votes["annotator"], votes["repetition"], votes["label"], strict=True))


# tables


def test_every_table_is_exported(folder: RunFolder, tmp_path: Path) -> None:
    written = export_tables(folder, tmp_path / "csv")
    assert [path.name for path in written] == [f"{name}.csv" for name in TABLES]


def test_a_table_reads_back_as_it_was(folder: RunFolder, tmp_path: Path) -> None:
    (path,) = export_tables(folder, tmp_path, ["labels"])
    read, labels = pd.read_csv(path, keep_default_na=True), folder.read("labels")
    assert read["label"].fillna("").tolist() == labels["label"].fillna("").tolist()
    assert np.allclose(read["score"], labels["score"], equal_nan=True)
    shares = [None if not isinstance(x, str) else json.loads(x) for x in read["shares"]]
    assert [s if s is None else list(s) for s in labels["shares"]] == shares


def test_whole_numbers_stay_whole_beside_nulls(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20)
    votes = folder.read("votes")
    folder.write("votes", votes.assign(tokens_in=[12, *[None] * (len(votes) - 1)]))
    (path,) = export_tables(folder, tmp_path, ["votes"])
    assert set(pd.read_csv(path, dtype=str)["tokens_in"].dropna()) == {"12"}


def test_texts_survive_line_ends_quotes_and_other_scripts(tmp_path: Path) -> None:
    strange = ['a "quoted", line\nand another', "carriage\rreturn", "=1+1", "слово 词 😀", "-5 degrees", "plain"]
    folder = make_run(tmp_path / "run", n=30, n_test=20)
    texts = folder.read("texts")
    folder.write("texts", texts.assign(text=[*strange, *texts["text"].iloc[len(strange) :]]))
    (path,) = export_tables(folder, tmp_path, ["texts"])
    assert pd.read_csv(path)["text"].iloc[: len(strange)].tolist() == strange
    (path,) = export_tables(folder, tmp_path / "safe", ["texts"], spreadsheet_safe=True)
    safe = pd.read_csv(path)["text"].tolist()
    assert safe[2] == "'=1+1"
    assert safe[4] == "'-5 degrees"
    assert safe[5] == "plain"
    assert not [text for text in safe if text.startswith(("=", "+", "-", "@"))]


def test_an_unknown_table_is_refused_with_a_hint(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'votes'"):
        export_tables(folder, tmp_path, ["vote"])


def test_a_table_that_was_not_written_is_an_error_only_when_asked_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, without=["scores"])
    with pytest.raises(DataError, match="no table 'scores' yet"):
        export_tables(folder, tmp_path, ["scores"])
    assert "scores.csv" not in {path.name for path in export_tables(folder, tmp_path)}


def test_an_empty_folder_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        export_tables(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tables yet"):
        export_tables(tmp_path / "empty", tmp_path)


# the earlier system's files


def test_all_its_files_are_written(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {
        "annotations.csv",
        "model_metrics.csv",
        "dataset_consenso.csv",
        "dataset_anotado_completo.csv",
        "problematic_cases.csv",
        "sumario_experimento.json",
        "frozen_fine_tuning_results.csv",
        "frozen_fine_tuning_results.json",
        "embedded_fine_tuning_results.csv",
        "embedded_fine_tuning_results.json",
    }


def test_the_columns_are_its_own(out: Path) -> None:
    models = [f"{model}{end}" for model in sorted(PANEL) for end in MODEL_COLUMNS]
    columns = ["text_id", "text", "text_len", *models, "ground_truth", *CONSENSUS_COLUMNS]
    assert list(pd.read_csv(out / "dataset_consenso.csv")) == columns
    assert (out / "dataset_anotado_completo.csv").read_bytes() == (out / "dataset_consenso.csv").read_bytes()


def test_annotations_are_the_answers_without_the_consensus(out: Path) -> None:
    annotations, whole = pd.read_csv(out / "annotations.csv"), pd.read_csv(out / "dataset_consenso.csv")
    assert list(annotations) == [name for name in whole if name not in CONSENSUS_COLUMNS]
    pd.testing.assert_frame_equal(annotations, whole[list(annotations)])


@pytest.mark.parametrize("name", ["annotations.csv", "dataset_consenso.csv", "dataset_anotado_completo.csv"])
def test_the_votes_read_back(folder: RunFolder, out: Path, name: str) -> None:
    schema = LabelSchema.from_records(folder.record()["labels"])
    read, votes = read_votes(out / name, schema), folder.read("votes")
    assert valid(read) == valid(votes)
    assert len(read) == len(votes)
    key = ["text_id", "annotator", "repetition"]
    both = read.merge(votes, on=key, suffixes=("", "_was"))
    assert np.allclose(both["confidence"], both["confidence_was"], equal_nan=True)


def test_its_folder_reads_back_too(folder: RunFolder, out: Path) -> None:
    schema = LabelSchema.from_records(folder.record()["labels"])
    assert valid(read_votes(out, schema)) == valid(folder.read("votes"))


def test_repetitions_and_texts_nobody_was_asked_about_read_back(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, annotators=PANEL, repetitions=3)
    votes = folder.read("votes")
    asked = (votes["annotator"] != "qwen3-8b") | (votes["text_id"] > "t00010")
    folder.write("votes", votes[asked])
    export_earlier(folder, tmp_path)
    schema = LabelSchema.from_records(folder.record()["labels"])
    read = read_votes(tmp_path / "dataset_consenso.csv", schema, blank="absent")
    assert valid(read) == valid(votes[asked])
    assert len(read) == asked.sum()


def test_annotations_of_several_repetitions_read_back_as_the_same_votes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, annotators=PANEL, repetitions=3)
    export_earlier(folder, tmp_path)
    frame = pd.read_csv(tmp_path / "annotations.csv")
    models = [f"{model}_rep{r}{end}" for model in sorted(PANEL) for r in range(3) for end in ("", "_conf")]
    assert [name for name in frame if "_rep" in name] == models
    schema = LabelSchema.from_records(folder.record()["labels"])
    read, votes = read_votes(tmp_path / "annotations.csv", schema), folder.read("votes")
    assert valid(read) == valid(votes)
    both = read.merge(votes, on=["text_id", "annotator", "repetition"], suffixes=("", "_was"))
    assert len(both) == len(votes)
    assert np.allclose(both["confidence"], both["confidence_was"], equal_nan=True)


def test_votes_that_were_not_asked_for_are_empty_cells(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, annotators=PANEL)
    votes = folder.read("votes")
    settled = votes["annotator"].eq("qwen3-8b") & votes["text_id"].gt("t00010")
    folder.write(
        "votes",
        votes.assign(label=votes["label"].mask(settled, None), status=votes["status"].mask(settled, "settled")),
    )
    export_earlier(folder, tmp_path)
    frame = pd.read_csv(tmp_path / "annotations.csv").set_index("text_id")
    assert frame.loc["t00011", ["qwen3-8b_rep0", "qwen3-8b_consensus", "qwen3-8b_consensus_score"]].isna().all()
    schema = LabelSchema.from_records(folder.record()["labels"])
    read = read_votes(tmp_path / "annotations.csv", schema, blank="absent")
    assert len(read) == (~settled).sum()
    metrics = pd.read_csv(tmp_path / "model_metrics.csv").set_index("model")
    left = votes[votes["annotator"].eq("qwen3-8b") & ~settled]
    assert metrics.loc["qwen3-8b", "coverage"] == pytest.approx(left["label"].notna().mean())


def test_texts_are_disarmed_for_spreadsheets_on_request(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20)
    texts = folder.read("texts")
    folder.write("texts", texts.assign(text="=1+1"))
    export_earlier(folder, tmp_path / "as_it_is")
    export_earlier(folder, tmp_path / "safe", spreadsheet_safe=True)
    for name in ("annotations.csv", "dataset_consenso.csv", "problematic_cases.csv"):
        assert set(pd.read_csv(tmp_path / "as_it_is" / name)["text"]) == {"=1+1"}
        assert set(pd.read_csv(tmp_path / "safe" / name)["text"]) == {"'=1+1"}


# model_metrics.csv


def metrics_of(folder: RunFolder, path: Path) -> pd.DataFrame:
    export_earlier(folder, path)
    return pd.read_csv(path / "model_metrics.csv").set_index("model")


def test_model_metrics_have_its_columns_and_the_best_first(out: Path) -> None:
    frame = pd.read_csv(out / "model_metrics.csv")
    assert list(frame) == [
        "model", "accuracy", "f1_macro", "precision_macro", "recall_macro", "coverage", "error_rate", "invalid_predictions_rate",
    ]  # fmt: skip
    assert set(frame["model"]) == set(PANEL)
    assert frame["f1_macro"].is_monotonic_decreasing


def test_an_invalid_answer_is_an_error_of_the_model(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "model_metrics.csv").set_index("model")
    votes, folds, texts = folder.read("votes"), folder.read("folds"), folder.read("texts").set_index("text_id")
    seen = set(folds.loc[folds["part"] != "test", "text_id"])
    for model, mine in votes.groupby("annotator"):
        judged = mine[mine["text_id"].isin(seen)]
        right = judged["label"].eq(judged["text_id"].map(texts["gold"])).mean()
        assert judged["label"].isna().any()
        assert frame.loc[model, "accuracy"] == pytest.approx(right)
        assert frame.loc[model, "error_rate"] == pytest.approx(1 - right)
        assert frame.loc[model, "coverage"] == pytest.approx(mine["label"].notna().mean())
        assert frame.loc[model, "invalid_predictions_rate"] == pytest.approx(mine["label"].isna().mean())


def test_model_metrics_agree_with_scikit_learn(folder: RunFolder, out: Path) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    frame = pd.read_csv(out / "model_metrics.csv").set_index("model")
    votes, folds, texts = folder.read("votes"), folder.read("folds"), folder.read("texts").set_index("text_id")
    seen = set(folds.loc[folds["part"] != "test", "text_id"])
    for model, mine in votes[votes["text_id"].isin(seen)].groupby("annotator"):
        expected = precision_recall_fscore_support(
            mine["text_id"].map(texts["gold"]),
            mine["label"].fillna("none"),
            labels=list(NAMES),
            average="macro",
            zero_division=0,
        )
        found = frame.loc[model, ["precision_macro", "recall_macro", "f1_macro"]].astype(float)
        assert np.allclose(found, expected[:3])


def test_gold_of_test_texts_does_not_move_the_metrics(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=60, n_test=30, annotators=PANEL)
    before = metrics_of(folder, tmp_path / "before")
    folds, texts = folder.read("folds"), folder.read("texts")
    test = texts["text_id"].isin(folds.loc[folds["part"] == "test", "text_id"])
    folder.write("texts", texts.assign(gold=texts["gold"].mask(test, "complaint")))
    pd.testing.assert_frame_equal(metrics_of(folder, tmp_path / "after"), before)


def test_without_gold_the_metrics_that_need_it_are_empty(tmp_path: Path) -> None:
    frame = metrics_of(make_run(tmp_path / "run", n=30, n_test=20, gold=False, annotators=PANEL), tmp_path / "out")
    assert frame[["accuracy", "f1_macro", "precision_macro", "recall_macro", "error_rate"]].isna().all(axis=None)
    assert frame[["coverage", "invalid_predictions_rate"]].notna().all(axis=None)
    assert frame.index.tolist() == sorted(PANEL)


def test_texts_that_nobody_was_asked_about_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, annotators=PANEL)
    votes = folder.read("votes")
    asked = votes["text_id"] > "t00010"
    folder.write("votes", votes[asked])
    export_earlier(folder, tmp_path)
    for name in ("dataset_consenso.csv", "problematic_cases.csv"):
        assert set(pd.read_csv(tmp_path / name)["text_id"]) <= set(votes.loc[asked, "text_id"])
    schema = LabelSchema.from_records(folder.record()["labels"])
    assert len(read_votes(tmp_path / "dataset_consenso.csv", schema)) == asked.sum()


def test_labels_are_ids_of_the_schema_and_minus_one_without(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "dataset_consenso.csv")
    schema = LabelSchema.from_records(folder.record()["labels"])
    assert set(frame["llama3.1-8b_rep0"]) <= {-1, *schema.id2label}
    assert set(frame["most_common_annotation"]) <= {-1, *schema.id2label}
    silent = frame[frame["text_id"] == "t00005"].iloc[0]
    assert (silent["llama3.1-8b_rep0"], silent["most_common_annotation"], silent["most_common_count"]) == (-1, -1, 0)
    gold = folder.read("texts").set_index("text_id")["gold"].map(schema.label2id)
    assert frame["ground_truth"].tolist() == gold[frame["text_id"]].tolist()


def test_a_schema_with_minus_one_leaves_cells_empty_instead(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, names=("negative", "positive"), annotators=PANEL)
    folder.note("labels", LabelSchema({-1: "negative", 1: "positive"}).as_records())
    export_earlier(folder, tmp_path)
    frame = pd.read_csv(tmp_path / "dataset_consenso.csv")
    votes = folder.read("votes")
    mine = (
        votes[votes["annotator"] == "qwen3-8b"].set_index("text_id")["label"].map({"negative": -1.0, "positive": 1.0})
    )
    assert frame["qwen3-8b_rep0"].equals(mine[frame["text_id"]].reset_index(drop=True).rename("qwen3-8b_rep0"))
    schema = LabelSchema({-1: "negative", 1: "positive"})
    assert valid(read_votes(tmp_path / "dataset_consenso.csv", schema)) == valid(votes)


def test_the_consensus_columns_say_what_the_votes_say(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "dataset_consenso.csv")
    labels = folder.read("labels").set_index("text_id").loc[frame["text_id"]].reset_index()
    for _, row in frame.iterrows():
        votes = ast.literal_eval(row["all_annotations"])
        cast = [vote for vote in votes if vote != -1]
        assert votes == [row[f"{model}_consensus"] for model in sorted(PANEL)]
        assert row["unique_annotations"] == len(set(cast))
        most = max((cast.count(vote) for vote in cast), default=0)
        leaders = {vote for vote in cast if cast.count(vote) == most}
        assert row["most_common_count"] == most
        assert row["most_common_annotation"] == (leaders.pop() if len(leaders) == 1 else -1)
    assert (
        frame["needs_review"].tolist()
        == labels["label"].isna().tolist()
        == frame["resolved_annotation"].isna().tolist()
    )
    assert frame["is_problematic"].tolist() == labels["is_problematic"].tolist()
    assert np.allclose(frame["consensus_score"], labels["score"], equal_nan=True)


def test_a_tie_has_no_label_whatever_the_order_of_annotators(tmp_path: Path) -> None:
    ties = []
    for place, names in enumerate((("a", "b"), ("b", "a"))):
        folder = make_run(tmp_path / f"run{place}", n=30, n_test=20, annotators=dict.fromkeys(names, 0.5))
        votes = folder.read("votes")
        split = votes["text_id"].eq("t00002")
        label = votes["label"].where(~split, votes["annotator"].map({names[0]: "billing", names[1]: "delivery"}))
        folder.write("votes", votes.assign(label=label, status=votes["status"].where(~split, "ok")))
        labels = folder.read("labels")
        tied = labels["text_id"].eq("t00002")
        folder.write("labels", labels.assign(label=labels["label"].where(~tied, None)))
        export_earlier(folder, tmp_path / f"out{place}")
        frame = pd.read_csv(tmp_path / f"out{place}" / "dataset_consenso.csv").set_index("text_id")
        ties.append(
            (frame.loc["t00002", "most_common_annotation"], math.isnan(frame.loc["t00002", "resolved_annotation"]))
        )
    assert ties == [(-1, True), (-1, True)]


def test_problematic_cases_hold_votes_per_label_and_entropy(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "problematic_cases.csv")
    assert list(frame) == ["text_id", "text", "consensus_score", "annotations", "entropy"]
    labels, votes = folder.read("labels").set_index("text_id"), folder.read("votes")
    assert set(frame["text_id"]) == set(labels.index[labels["is_problematic"]])
    assert frame["text"].str.len().max() <= 100
    schema = LabelSchema.from_records(folder.record()["labels"])
    for _, row in frame.iterrows():
        mine = votes.loc[votes["text_id"] == row["text_id"], "label"].dropna().map(schema.label2id)
        assert ast.literal_eval(row["annotations"]) == mine.value_counts().to_dict()
    assert np.allclose(frame["entropy"], labels.loc[frame["text_id"], "entropy_bits"], equal_nan=True)


def test_problematic_cases_are_written_even_if_there_are_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20)
    folder.write("labels", folder.read("labels").assign(is_problematic=False))
    (tmp_path / "problematic_cases.csv").write_text("a stale file of an earlier export")
    export_earlier(folder, tmp_path)
    assert (tmp_path / "problematic_cases.csv").read_text() == "text_id,text,consensus_score,annotations,entropy\n"


def test_the_summary_has_its_keys(folder: RunFolder, out: Path) -> None:
    found = json.loads((out / "sumario_experimento.json").read_text(encoding="utf-8"))
    assert list(found) == ["dataset", "config", "results", "metrics", "validation"]
    assert found["dataset"]["total_texts"] == 90
    assert found["dataset"]["has_ground_truth"] is True
    assert found["config"] == {
        "models": sorted(PANEL),
        "total_models": 3,
        "consensus_threshold": None,
        "consensus_strategy": "majority_vote",
    }
    assert list(found["results"]) == [
        "consensus_mean", "consensus_median", "high_consensus", "medium_consensus", "low_consensus",
    ]  # fmt: skip
    levels = folder.read("labels")["level"]
    assert found["results"]["high_consensus"] == (levels == "high").sum()
    assert found["metrics"] == {"fleiss_kappa": 0.581, "fleiss_interpretation": "Moderate"}
    assert "accuracy" in found["validation"]["classification_report"]


def test_the_classification_report_is_over_train_and_dev_texts(folder: RunFolder, out: Path) -> None:
    found = json.loads((out / "sumario_experimento.json").read_text(encoding="utf-8"))
    folds, labels = folder.read("folds"), folder.read("labels").set_index("text_id")["label"]
    seen = folds.loc[folds["part"].isin(["train", "dev"]), "text_id"]  # t00002 was removed: it is in no part
    assert labels.notna()["t00002"]
    total = sum(found["validation"]["classification_report"][name]["support"] for name in NAMES)
    assert total == labels[seen].notna().sum()


def test_without_gold_there_is_no_validation(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, gold=False)
    export_earlier(folder, tmp_path)
    found = json.loads((tmp_path / "sumario_experimento.json").read_text(encoding="utf-8"))
    assert "validation" not in found
    assert found["dataset"]["has_ground_truth"] is False
    assert pd.read_csv(tmp_path / "dataset_consenso.csv")["ground_truth"].isna().all()


def test_results_are_means_over_seeds_of_test_scores(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "embedded_fine_tuning_results.csv")
    assert list(frame) == RESULT_COLUMNS
    assert frame["source"].tolist() == ["consensus_llm", "ground_truth"]
    scores = folder.read("scores")
    for source, arm in (("consensus_llm", "consensus"), ("ground_truth", "gold-aligned")):
        row = frame[frame["source"] == source].iloc[0]
        mine = scores[(scores["student"] == "encoder") & (scores["arm"] == arm)]
        assert row["eval_accuracy"] == pytest.approx(mine.loc[mine["metric"] == "accuracy", "value"].mean())
        assert row["eval_f1_macro"] == pytest.approx(mine.loc[mine["metric"] == "macro_f1", "value"].mean())
    assert frame["eval_runtime"].isna().all()
    assert frame["epoch"].tolist() == [2.0, 2.0]


def test_the_loss_is_the_cross_entropy_of_the_gold_label(folder: RunFolder, out: Path) -> None:
    frame = pd.read_csv(out / "frozen_fine_tuning_results.csv").set_index("source")
    scores = folder.read("scores")
    mine = scores[(scores["student"] == "frozen") & (scores["arm"] == "consensus") & (scores["metric"] == "accuracy")]
    right = mine["value"].mean()  # the maker gives .9 + .1/6 to the predicted label and .1/6 to each other one
    assert frame.loc["consensus_llm", "eval_loss"] == pytest.approx(
        -(right * math.log(0.9 + 0.1 / 6) + (1 - right) * math.log(0.1 / 6))
    )


def test_the_results_file_has_folds_and_their_mean(folder: RunFolder, tmp_path: Path) -> None:
    copy = make_run(tmp_path / "run", n=40, n_test=20)
    for name in ("predictions", "scores", "curves", "trainings"):
        frame = copy.read(name)
        shifted = frame.assign(fold=1)
        if name == "scores":
            shifted = shifted.assign(value=shifted["value"] - 0.1)
        copy.write(name, pd.concat([frame, shifted]))
    export_earlier(copy, tmp_path)
    found = json.loads((tmp_path / "frozen_fine_tuning_results.json").read_text(encoding="utf-8"))
    assert list(found) == ["folds", "cv"]
    assert list(found["folds"]) == ["0", "1"]
    first, second = (found["folds"][fold]["eval_accuracy"] for fold in ("0", "1"))
    assert first - second == pytest.approx(0.1)
    assert found["cv"]["eval_accuracy"] == {"mean": pytest.approx((first + second) / 2), "std": pytest.approx(0.05)}
    assert found["cv"]["eval_runtime"] == {"mean": None, "std": None}


def test_without_training_there_are_no_results(tmp_path: Path) -> None:
    without = ("trainings", "curves", "predictions", "scores", "guards", "comparison")
    written = export_earlier(make_run(tmp_path / "run", n=30, n_test=20, without=without), tmp_path)
    assert [path.name for path in written] == [
        "annotations.csv",
        "model_metrics.csv",
        "dataset_consenso.csv",
        "dataset_anotado_completo.csv",
        "problematic_cases.csv",
        "sumario_experimento.json",
    ]


def test_without_votes_there_is_nothing_to_export(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, without=["votes"])
    with pytest.raises(DataError, match="no table 'votes' yet"):
        export_earlier(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_encoder_names_its_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=30, n_test=20, students=["encoder"], seeds=2)
    settings = folder.record()["settings"]
    settings["finetune"]["recipe"]["encoder"] = "FacebookAI/roberta-base"
    folder.note("settings", settings)
    assert (tmp_path / "roberta-base_fine_tuning_results.csv") in export_earlier(folder, tmp_path)
