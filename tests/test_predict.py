"""predict_file and predict_texts: what is written, that a kill changes no byte, and that plain transformers agrees."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consenso import encoders
from consenso.errors import (
    BusyError,
    ConfigError,
    ConsensoError,
    DataError,
    MissingExtraError,
    ModelError,
    StorageError,
)
from consenso.predict import Predicted, PredictSettings, classifying, forward, predict_file, predict_texts
from consenso.predict.classifier import open_classifier
from consenso.predict.parts import Parts
from consenso.predict.sources import open_source
from consenso.readers import read_file
from making_models import TEXTS, train_words

LABELS = ["bad", "middling", "very good"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def save_classifier(folder: Path, kind: str = "BertForSequenceClassification", seed: int = 0, **config: Any) -> Path:
    """A tiny classifier with random weights that tells texts apart."""
    import transformers

    torch = encoders.import_torch()
    words = train_words()
    words.add_special_tokens(["<pad>"])
    named = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "model_max_length": 64}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    size = {**SIZE, "vocab_size": words.get_vocab_size(), "initializer_range": 0.5, "max_position_embeddings": 600}
    read = getattr(transformers, kind).config_class(
        **size, pad_token_id=words.token_to_id("<pad>"), **({"id2label": dict(enumerate(LABELS))} | config)
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(read)
    with encoders.quiet_transformers(transformers):
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


def some_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 30 words, some of them equal."""
    rng = np.random.default_rng(seed)
    words = " ".join(TEXTS).split()
    return [" ".join(rng.choice(words, min(int(rng.exponential(6)) + 1, 30))) for _ in range(n)]


def write_rows(path: Path, texts: list[str | None], **columns: list[Any]) -> Path:
    frame = pd.DataFrame({"id": [f"t{i}" for i in range(len(texts))], "text": texts, **columns})
    if path.suffix == ".parquet":
        frame.to_parquet(path, row_group_size=50)
    elif path.suffix == ".jsonl":
        records = frame.astype(object).where(frame.notna(), None).to_dict("records")
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def read_rows(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if ".jsonl" in path.name:
        return pd.read_json(path, lines=True, dtype={"text_id": str})
    return pd.read_csv(path, sep="\t" if ".tsv" in path.name else ",")


# what comes out


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "DebertaV2"])
def test_each_text_gets_what_transformers_pipeline_says(tmp_path: Path, kind: str) -> None:
    from transformers import pipeline

    texts, model = some_texts(40), save_classifier(tmp_path / "m", f"{kind}ForSequenceClassification")
    found = predict_texts(texts, model)
    expected = pipeline("text-classification", str(model), device="cpu", truncation=True)(texts, top_k=None)
    for i, scores in enumerate(expected):
        assert found["predicted"][i] == scores[0]["label"]
        for score in scores:
            assert found[f"p_{score['label']}"][i] == pytest.approx(score["score"], abs=1e-5)
    assert found["predicted"].nunique() > 1


def test_a_model_that_pads_left_gets_its_texts_so(tmp_path: Path) -> None:
    """XLNet's head reads the last position: padded right, it would read padding."""
    import transformers

    torch = encoders.import_torch()
    folder = save_classifier(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    size = {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "initializer_range": 0.5,
    }
    config = transformers.XLNetConfig(**size, pad_token_id=tokenizer.pad_token_id, id2label=dict(enumerate(LABELS)))
    with torch.random.fork_rng(), encoders.quiet_transformers(transformers):
        torch.manual_seed(0)
        transformers.XLNetForSequenceClassification(config).save_pretrained(folder)
    texts = [text + " and more of it" * (i % 5) for i, text in enumerate(some_texts(40))]
    alone = pd.concat([predict_texts([text], folder) for text in texts], ignore_index=True)
    together = predict_texts(texts, folder)
    assert together["predicted"].tolist() == alone["predicted"].tolist()
    np.testing.assert_allclose(together["confidence"], alone["confidence"], atol=1e-5)
    assert together["predicted"].nunique() > 1


def test_the_confidence_is_the_probability_of_the_predicted_label(model: Path) -> None:
    found = predict_texts(some_texts(30), model)
    p = found[[f"p_{label}" for label in LABELS]].to_numpy()
    assert list(found["predicted"]) == [LABELS[i] for i in p.argmax(axis=1)]
    assert list(found["confidence"]) == list(p.max(axis=1))
    assert p.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-5)


def test_a_text_that_is_missing_or_blank_gets_no_label(model: Path) -> None:
    found = predict_texts(["goal", None, "", " \n", float("nan"), "goal"], model)  # type: ignore[list-item]
    assert list(found["status"]) == ["ok", "empty", "empty", "empty", "empty", "ok"]
    assert list(found["predicted"].isna()) == [False, True, True, True, True, False]
    assert found["p_bad"].isna().sum() == 4


def test_a_series_keeps_its_index_and_no_texts_give_an_empty_frame(model: Path) -> None:
    found = predict_texts(pd.Series(["goal", "very bad"], index=["x", "y"]), model)  # type: ignore[arg-type]
    assert list(found.index) == ["x", "y"]
    assert list(predict_texts([], model, probabilities=False).columns) == ["predicted", "confidence", "status"]
    with pytest.raises(DataError, match="give a list"):
        predict_texts("goal", model)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"])
@pytest.mark.parametrize("to", [".csv", ".tsv.gz", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows_in_the_order_of_the_source(
    model: Path, tmp_path: Path, suffix: str, to: str
) -> None:
    texts: list[str | None] = [*some_texts(120), None, 'with "quotes", and\na line', "é 中 ✓"]
    data = write_rows(tmp_path / f"texts{suffix}", texts, stars=list(range(123)))
    predicted = predict_file(data, model, tmp_path / f"out{to}", chunk=50, keep=("stars",))
    found, expected = read_rows(predicted.path), predict_texts(texts, model)
    assert list(found["text_id"]) == [f"t{i}" for i in range(123)]
    assert list(map(int, found["stars"])) == list(range(123))
    for name in ("predicted", "confidence", "status", "p_bad"):
        pd.testing.assert_series_equal(found[name], expected[name], check_dtype=False, atol=1e-5, rtol=0)
    assert (predicted.rows, predicted.empty) == (123, 1)
    assert predicted.labels == {label: (expected["predicted"] == label).sum() for label in LABELS}


def test_neither_threads_nor_chunks_nor_budgets_change_a_number(model: Path) -> None:
    texts = some_texts(200)
    plain = predict_texts(texts, model, threads=1)
    pd.testing.assert_frame_equal(predict_texts(texts, model, threads=3), plain)
    for changed in (predict_texts(texts, model, chunk=7), predict_texts(texts, model, batch_tokens=64)):
        pd.testing.assert_frame_equal(changed, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("library", ["glibc", "another"])
def test_memory_is_given_back_after_some_batches_and_each_chunk(
    model: Path, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def load(name: str) -> Any:
        if library == "another":
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(malloc_trim=asked.append)

    monkeypatch.setattr(classifying, "ctypes", SimpleNamespace(CDLL=load))
    texts = write_rows(tmp_path / "in.csv", some_texts(30))
    assert predict_file(texts, model, tmp_path / "out.csv", chunk=10).rows == 30
    assert asked == ([0] * 6 if library == "glibc" else []), "after the first batch of each chunk, and at its end"
    asked.clear()
    predict_file(texts, model, tmp_path / "small.csv", chunk=30, batch_tokens=16)
    assert len(asked) > 4 or library == "another", "every few batches within one chunk"


def test_equal_texts_are_classified_once(model: Path) -> None:
    with classifying.classifying(open_classifier(model), PredictSettings()) as classification:
        prepared = classification.prepare(["goal", "very bad", "goal", None, "goal"])
    assert prepared.rows == [0, 1, 0, -1, 0]
    assert len(prepared.ids) == 2


def test_long_texts_are_cut_and_counted(model: Path, tmp_path: Path) -> None:
    texts: list[str | None] = ["goal " * 200, "goal", "goal " * 300]
    predicted = predict_file(write_rows(tmp_path / "t.csv", texts), model, tmp_path / "o.csv")
    assert (predicted.cut, predicted.max_length) == (2, 64)
    assert predict_file(tmp_path / "t.csv", model, tmp_path / "p.csv", max_length=8).max_length == 8


def test_columns_are_chosen_kept_and_renamed_where_they_clash(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "t.csv"
    data.write_text("nr;body;predicted;status\n07;goal;old;1\n08;very bad;old;2\n", encoding="utf-8")
    predict_file(data, model, tmp_path / "o.csv", text="body", id="nr", keep="all", probabilities=False)
    with (tmp_path / "o.csv").open(encoding="utf-8") as file:
        first, *_ = csv.DictReader(file)
    assert first["text_id"] == "07"
    assert list(first) == [
        "text_id", "predicted", "confidence", "status", "nr", "body", "source_predicted", "source_status",
    ]  # fmt: skip
    assert (first["source_predicted"], first["source_status"]) == ("old", "1")


def test_a_kept_column_that_is_called_like_a_probability_keeps_its_values(model: Path, tmp_path: Path) -> None:
    label = json.loads((model / "config.json").read_text())["id2label"]["0"]
    (tmp_path / "t.csv").write_text(f"text,p_{label}\ngoal,OLD1\nvery bad,OLD2\n", encoding="utf-8")
    for suffix in (".csv", ".parquet"):
        plain = predict_file(tmp_path / "t.csv", model, tmp_path / f"o{suffix}", keep="all", probabilities=False)
        assert list(read_rows(plain.path)[f"p_{label}"]) == ["OLD1", "OLD2"]
        both = predict_file(tmp_path / "t.csv", model, tmp_path / f"p{suffix}", keep="all")
        assert list(read_rows(both.path)[f"source_p_{label}"]) == ["OLD1", "OLD2"]
        assert set(map(float, read_rows(both.path)[f"p_{label}"])).isdisjoint({float("nan")})


def test_dates_of_a_spreadsheet_stand_in_parquet_without_quotes(model: Path, tmp_path: Path) -> None:
    dates = pd.to_datetime(["2024-01-02", "2024-01-03"])
    pd.DataFrame({"text": ["goal", "bad"], "day": dates}).to_excel(tmp_path / "t.xlsx", index=False)
    done = predict_file(tmp_path / "t.xlsx", model, tmp_path / "o.parquet", keep="all")
    assert [str(day)[:10] for day in read_rows(done.path)["day"]] == ["2024-01-02", "2024-01-03"]


def test_a_tsv_of_one_column_keeps_rows_between_stray_quotes(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('text\n"good film\nbad" film\nfine\n', encoding="utf-8")
    assert predict_file(tmp_path / "t.tsv", model, tmp_path / "o.csv").rows == 3
    (tmp_path / "q.tsv").write_text('text\n"good film\nof two lines"\nfine\n', encoding="utf-8")
    assert predict_file(tmp_path / "q.tsv", model, tmp_path / "p.csv").rows == 2


def test_json_lines_whose_records_have_a_list_called_data_are_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"data": [1], "text": "good"}\n{"data": [2], "text": "bad"}\n', encoding="utf-8")
    assert predict_file(tmp_path / "t.json", model, tmp_path / "o.csv").rows == 2
    (tmp_path / "one.json").write_text(
        '{"data": [{"text": "good"}, {"text": "bad"}, {"text": "so"}]}', encoding="utf-8"
    )
    assert predict_file(tmp_path / "one.json", model, tmp_path / "p.csv").rows == 3


def test_json_lines_of_a_result_are_json_also_where_a_number_is_infinite(model: Path, tmp_path: Path) -> None:
    pd.DataFrame({"text": ["goal", "bad"], "d": [float("inf"), 1.5]}).to_parquet(tmp_path / "t.parquet")
    done = predict_file(tmp_path / "t.parquet", model, tmp_path / "o.jsonl", keep="all")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    rows = [json.loads(line, parse_constant=refuse) for line in done.path.read_text(encoding="utf-8").splitlines()]
    assert [row["d"] for row in rows] == [None, 1.5]


def test_a_broken_table_says_which_line_in_plain_words(model: Path, tmp_path: Path) -> None:
    for content, wanted in (
        ("text,b\na,b\nc, d, e, f\n", r"line 3 has 4 cells, the header 2"),
        ('text,b\na,b\nc,d\n"e,f\n', r"the quote that opens in data row 3 is never closed"),
    ):
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=wanted):
            predict_file(tmp_path / "t.csv", model, tmp_path / "o.csv")
        with pytest.raises(DataError, match=wanted):
            read_file(tmp_path / "t.csv")


def test_a_column_is_guessed_only_for_one_that_was_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("body,outlet\ngood,x\n", encoding="utf-8")
    with pytest.raises(DataError, match="missing column 'text'") as caught:
        predict_file(tmp_path / "t.csv", model, tmp_path / "o.csv")
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(DataError, match="Did you mean 'body'"):
        predict_file(tmp_path / "t.csv", model, tmp_path / "o.csv", text="bodi")


def test_rows_without_an_id_are_numbered_and_limit_ends_early(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "t.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in some_texts(30)), encoding="utf-8")
    predicted = predict_file(data, model, tmp_path / "o.parquet", limit=20, chunk=8)
    assert list(read_rows(predicted.path)["text_id"]) == list(range(20))


def test_kept_parquet_columns_keep_their_types(model: Path, tmp_path: Path) -> None:
    table = pa.table({"text": ["goal", "very bad"], "score": pa.array([0.123456789, None]), "tags": [["a"], []]})
    pq.write_table(table, tmp_path / "t.parquet")
    predict_file(tmp_path / "t.parquet", model, tmp_path / "o.parquet", keep=("score", "tags"))
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.select(["score", "tags"]).equals(table.select(["score", "tags"]))


def test_a_parquet_file_of_one_large_row_group_is_not_held_as_a_whole(tmp_path: Path) -> None:
    texts = [f"{i} {'words of a long text ' * 4}" for i in range(100_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet", row_group_size=100_000)
    before, held, rows = pa.total_allocated_bytes(), [], 0
    for chunk in open_source(tmp_path / "t.parquet").read(["text"], 1000):
        held.append(pa.total_allocated_bytes() - before)
        rows += len(chunk["text"])
    assert rows == 100_000
    assert max(held) < 4e6 < sum(map(len, texts))


def test_tsv_without_quoting_and_lone_surrogates_are_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('text\tgold\n"goal\tx\nvery "bad"\ty\n', encoding="utf-8")
    assert predict_file(tmp_path / "t.tsv", model, tmp_path / "o.csv").rows == 2
    (tmp_path / "t.jsonl").write_text('{"text": "goal \\ud800"}\n', encoding="utf-8")
    assert predict_file(tmp_path / "t.jsonl", model, tmp_path / "o.jsonl", keep=("text",)).rows == 1


# going on


@pytest.mark.parametrize("name", ["o.csv", "o.tsv"])
def test_a_carriage_return_in_a_cell_tears_no_row(model: Path, tmp_path: Path, name: str) -> None:
    texts: list[str | None] = ["a\rgoal", "bad\r\nend", "two\nlines", "plain\r", "plain"]
    data = write_rows(tmp_path / "t.jsonl", texts, **{"odd\rname": texts})
    predict_file(data, model, tmp_path / name, keep="all", probabilities=False, chunk=2)
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if name == "o.tsv" else ","))
    assert rows[0][-2:] == ["text", "odd\rname"]
    assert [row[-2:] for row in rows[1:]] == [[text, text] for text in texts]
    content = (tmp_path / name).read_bytes()
    assert content.endswith(b"plain\n")
    assert content.count(b"\r\n") == 2


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("blank", ["", "\n", " \r\n\r\n"])
def test_an_unnamed_column_and_blank_lines_above_the_header_are_read(
    model: Path, tmp_path: Path, separator: str, blank: str
) -> None:
    path = tmp_path / ("t.csv" if separator == "," else "t.tsv")
    rows = [["", "text", "odd\u2028name"], ["0", "goal", "x"], ["1", "bad", "y"], ["2", "dull", "z"]]
    path.write_text(blank + "".join(separator.join(row) + "\n" for row in rows), encoding="utf-8", newline="")
    predict_file(path, model, tmp_path / "o.csv", keep="all", probabilities=False, chunk=2)
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        assert [row[-3:] for row in csv.reader(file)] == rows


def test_nan_in_json_lines_is_missing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "goal", "n": NaN}\n{"text": NaN, "n": 1}\n')
    done = predict_file(tmp_path / "t.jsonl", model, tmp_path / "o.parquet", keep=("n",))
    found = pd.read_parquet(tmp_path / "o.parquet")
    assert (done.empty, list(found["status"]), list(found["n"].isna())) == (1, ["ok", "empty"], [True, False])


class Stop(BaseException):
    """Stands for Ctrl-C."""


def stop_after(rows: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= rows:
            raise Stop

    return progress


@pytest.mark.parametrize("to", ["out.csv", "out.csv.gz", "out.jsonl", "out.parquet"])
def test_an_interrupted_prediction_goes_on_and_gives_the_same_bytes(model: Path, tmp_path: Path, to: str) -> None:
    data = write_rows(tmp_path / "t.parquet", [*some_texts(150)])
    predict_file(data, model, tmp_path / f"whole-{to}", chunk=16)
    with pytest.raises(Stop):
        predict_file(data, model, tmp_path / to, chunk=16, progress=stop_after(64))
    assert not (tmp_path / to).exists()
    again = predict_file(data, model, tmp_path / to, chunk=16, threads=1)
    assert again.resumed == 64
    assert (tmp_path / to).read_bytes() == (tmp_path / f"whole-{to}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["t.parquet", to, f"whole-{to}"])


def test_progress_is_told_within_a_chunk_too(model: Path, tmp_path: Path) -> None:
    data, seen = write_rows(tmp_path / "t.csv", [*some_texts(40)]), list[int]()
    predict_file(data, model, tmp_path / "o.csv", chunk=30, batch_tokens=16, progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert {30, 40} <= set(seen)
    assert len([done for done in seen if 0 < done < 30]) > 3
    assert (
        predict_texts([*some_texts(40)], model, chunk=30, progress=lambda done, total: seen.append(total)) is not None
    )
    assert seen[-1] == 40


KILLED = """
import os, signal, sys
from consenso.predict import predict_file

def progress(done, total):
    if done >= 48:
        os.kill(os.getpid(), signal.SIGKILL)

predict_file(sys.argv[1], sys.argv[2], sys.argv[3], chunk=16, keep="all", progress=progress)
"""


def test_kill_9_loses_nothing_that_was_saved_and_changes_no_byte(model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.csv", [*some_texts(150)])
    command = [sys.executable, "-c", KILLED, str(data), str(model), str(tmp_path / "out.csv")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / ".out.csv.parts").glob("*.csv"))) == 3
    assert predict_file(data, model, tmp_path / "out.csv", chunk=16, keep="all").resumed == 48
    predict_file(data, model, tmp_path / "whole.csv", chunk=16, keep="all")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


SLOWLY = """
import sys, time
from consenso.predict import predict_file

predict_file(sys.argv[1], sys.argv[2], sys.argv[3], chunk=8, progress=lambda done, total: time.sleep(0.05))
"""


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_no_byte(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, out = write_rows(tmp_path / "t.csv", [*some_texts(600)]), tmp_path / "out.csv"
    command = [sys.executable, "-c", SLOWLY, str(data), str(model), str(out)]
    for _ in range(10):
        before = len(list(Parts(out).folder.glob("*.csv")))
        process = subprocess.Popen(command)
        while len(list(Parts(out).folder.glob("*.csv"))) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
    assert subprocess.run(command, check=True).returncode == 0
    predict_file(data, model, tmp_path / "whole.csv", chunk=8)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_kill_between_joining_and_tidying_up_is_mended_by_the_same_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_rows(tmp_path / "t.csv", [*some_texts(40)]), tmp_path / "o.csv"

    def killed(*_: Any, **__: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("consenso.predict.parts.shutil.rmtree", killed)
        with pytest.raises(Stop):
            predict_file(data, model, out, chunk=16)
    whole = out.read_bytes()
    assert predict_file(data, model, out, chunk=16).resumed == 40
    assert out.read_bytes() == whole
    assert not Parts(out).folder.exists()


@pytest.mark.parametrize("what", ["data", "options", "model"])
def test_what_has_changed_is_predicted_anew(
    model: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, out = write_rows(tmp_path / "t.csv", [*some_texts(60)]), tmp_path / "o.csv"
    with pytest.raises(Stop):
        predict_file(data, model, out, chunk=16, progress=stop_after(32))
    options: dict[str, Any] = {"chunk": 16}
    if what == "data":
        write_rows(data, [*some_texts(60, seed=1)])
    elif what == "options":
        options["max_length"] = 8
    else:
        model = save_classifier(tmp_path / "other", seed=1)
    with caplog.at_level(logging.WARNING):
        assert predict_file(data, model, out, **options).resumed == 0
    assert "starting anew" in caplog.text
    predict_file(data, model, tmp_path / "whole.csv", **options)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_file_that_exists_is_replaced_with_force_only(model: Path, tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "t.csv", ["goal"]), tmp_path / "o.csv"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"exists; .* --force"):
        predict_file(data, model, out)
    assert out.read_text() == "precious"
    predict_file(data, model, out, force=True)
    assert out.read_text().startswith("text_id,")
    with pytest.raises(ConfigError, match="the data itself"):
        predict_file(data, model, data, force=True)


def test_two_processes_cannot_write_one_file(model: Path, tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "t.csv", ["goal"]), tmp_path / "o.csv"
    with Parts(out).locked(), pytest.raises(BusyError, match="another process writes"):
        predict_file(data, model, out)
    assert not Parts(out).folder.exists()


def test_a_full_disk_is_one_line_and_loses_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    data, out = write_rows(tmp_path / "t.csv", [*some_texts(60)]), tmp_path / "o.csv"
    write, count = Parts.write, [0]

    def full(*arguments: Any) -> None:
        count[0] += 1
        if count[0] > 2:
            monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", full)
        with pytest.raises(StorageError, match="the disk is full; finished work is kept"):
            predict_file(data, model, out, chunk=16)
    monkeypatch.undo()
    assert predict_file(data, model, out, chunk=16).resumed == 32


# precision and ONNX Runtime


def test_bf16_is_close_to_fp32_and_a_processor_without_it_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(40)
    plain, rough = predict_texts(texts, model), predict_texts(texts, model, precision="bf16")
    difference = (rough["p_bad"] - plain["p_bad"]).abs().max()
    assert 0 < difference < 0.1
    for has, said in ((False, 1), (True, 0)):
        monkeypatch.setattr(encoders, "has_bf16", lambda device, has=has: has)
        with classifying.classifying(open_classifier(model), PredictSettings(precision="bf16")) as found:
            assert len(found.notes) == said


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the model has been exported to ONNX."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        predict_texts(["goal"], model, onnx=True)
    return cache


@pytest.mark.slow
def test_onnx_runtime_gives_the_numbers_of_torch_and_exports_once(
    model: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(exported))
    monkeypatch.setattr("consenso.predict.onnx_forward._export", lambda *_: pytest.fail("exported again"))
    texts = some_texts(60)
    found = predict_texts(texts, model, onnx=True, threads=2)
    pd.testing.assert_frame_equal(found, predict_texts(texts, model), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_an_exported_model_that_differs_from_torch_is_not_used(
    model: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(exported))
    monkeypatch.setattr(
        "consenso.predict.onnx_forward.torch_forwards", lambda *_: [lambda tokens, mask: np.zeros((3, 3), "float32")]
    )
    with pytest.raises(ModelError, match=r"differ from torch's by .* leave out --onnx"):
        predict_texts(["goal"], model, onnx=True)


def test_onnx_needs_its_packages_and_no_bf16(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--onnx computes in fp32"):
        predict_texts(["goal"], model, onnx=True, precision="bf16")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"consenso\[onnx\]"):
        predict_texts(["goal"], model, onnx=True)


# what is refused


def refused_models(folder: Path, case: str) -> Path:
    if case == "generates text":
        save_classifier(folder, "BertLMHeadModel", is_decoder=True)
    elif case == "no classification head":
        save_classifier(folder, "BertModel")
    elif case == "regression head":
        save_classifier(folder, id2label={0: "score"})
    elif case == "several labels":
        save_classifier(folder, problem_type="multi_label_classification")
    elif case == "stands twice":
        save_classifier(folder, id2label={0: "a", 1: "a", 2: "b"})
    elif case == "found 0, 1, 5":
        save_classifier(folder)
        change_labels(folder, {"0": "a", "1": "b", "5": "c"})
    elif case == "no config.json":
        folder.mkdir()
    elif case == "is a file":
        folder.write_text("")
    else:
        save_classifier(folder)
        if case == "no model.safetensors":
            (folder / "model.safetensors").unlink()
        elif case == "names 4 labels, the weights have 3":
            change_labels(folder, {"0": "a", "1": "b", "2": "c", "3": "d"})
        elif case == "cannot be loaded":
            (folder / "model.safetensors").write_bytes(b"no weights")
    return folder


def change_labels(folder: Path, names: dict[str, str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    places = {name: int(place) for place, name in names.items()}
    (folder / "config.json").write_text(json.dumps({**config, "id2label": names, "label2id": places}))


@pytest.mark.parametrize(
    "case",
    ["generates text", "no classification head", "regression head", "several labels", "stands twice", "no config.json",
     "is a file", "no model.safetensors", "names 4 labels, the weights have 3", "found 0, 1, 5", "cannot be loaded"],
)  # fmt: skip
def test_what_is_no_classifier_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    with pytest.raises(ModelError, match=case) as caught:
        predict_texts(["goal"], refused_models(tmp_path / "m", case))
    assert "\n" not in str(caught.value)


def test_a_hub_model_that_is_not_cached_names_the_command_that_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf download someone/no-such-model"):
        predict_texts(["goal"], "someone/no-such-model")


def test_labels_without_names_are_taken_as_they_are(tmp_path: Path) -> None:
    found = predict_texts(["goal"], save_classifier(tmp_path / "m", id2label={0: "LABEL_0", 1: "LABEL_1"}))
    assert list(found.columns) == ["predicted", "confidence", "status", "p_LABEL_0", "p_LABEL_1"]


@pytest.mark.parametrize(
    ("content", "said", "options"),
    [
        ("text,n\n1,2\n3.5,4\n", r"'text' holds numbers \(1, 3.5\), not texts; .*--text; others: \['n'\]", {}),
        ("body\ngoal\n", r"missing column 'text'; found \['body'\]. Name it with --text", {}),
        ("text\ngoal\n", "missing column 'nr'; .* Name it with --id", {"id": "nr"}),
        ("text,gold\ngoal,1\n", "missing column 'glod'; .* Did you mean 'gold'.*--keep", {"keep": ("glod",)}),
        ("text\n", "has no rows", {}),
        ("", "is empty", {}),
        ("text,gold\ngoal,1\ngoal,1,2,3\n", "cannot be read", {}),
        ("text,text\ngoal,1\n", "stand more than once", {}),
    ],
)
def test_a_source_that_is_wrong_is_refused_in_one_line(
    model: Path, tmp_path: Path, content: str, said: str, options: dict[str, Any]
) -> None:
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        predict_file(tmp_path / "t.csv", model, tmp_path / "o.csv", **options)
    assert "\n" not in str(caught.value)
    assert not Parts(tmp_path / "o.csv").folder.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b'{"text": "goal"}\n{"text": \n', "line 2: not JSON"),
        ("t.jsonl", b'{"text": "goal"}\n[1]\n', "line 2: list, not an object"),
        ("t.jsonl", b'{"text": "goal"}\n{"text": ["a"]}\n', "data row 2: list in 'text'"),
        ("t.jsonl", b'{"text": 3}\n{"text": 4}\n', "holds numbers"),
        ("t.jsonl", b'{"text": "a"}\n{"text": ' + b"[" * 100_000, "line 2: nested too deeply"),
        ("t.json", b'{"data": ' + b"[" * 100_000, "nested too deeply"),
        ("t.csv", b"text\ngoal \xff\xff\n", "is not UTF-8"),
        ("t.csv.gz", gzip.compress(b"text\n" + b"goal of the match\n" * 99)[:-20], "cannot be read"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.docx", b"goal", "unknown kind of file '.docx'"),
    ],
)
def test_a_broken_file_is_refused_before_anything_is_classified(
    model: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        predict_file(tmp_path / name, "no model is needed", tmp_path / "o.csv")
    assert "\n" not in str(caught.value)


def test_a_parquet_column_that_stands_twice_is_refused(model: Path, tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["goal"]), pa.array([1]), pa.array([2])], names=["text", "n", "n"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"\['n'\] stand more than once"):
        predict_file(tmp_path / "t.parquet", model, tmp_path / "o.csv")


def test_parquet_columns_that_hold_no_text_are_refused(model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2], "tags": [["a"], ["b"]]}), tmp_path / "t.parquet")
    for column, said in (("n", r"holds numbers \(int64\)"), ("tags", "it must hold texts")):
        with pytest.raises(DataError, match=said):
            predict_file(tmp_path / "t.parquet", model, tmp_path / "o.csv", text=column)


def test_places_that_cannot_be_written_are_refused(model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.csv", ["goal"])
    (tmp_path / "file").write_text("")
    cases = {
        "o.docx": "unknown kind",
        "o.parquet.gz": "compressed already",
        ".": "is a folder",
        "file/o.csv": "cannot write",
        "/proc/o.csv": "cannot write",
    }
    for name, said in cases.items():
        with pytest.raises(ConfigError, match=said):
            predict_file(data, model, tmp_path / name)


def test_out_of_memory_says_which_option_to_lower(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> np.ndarray:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(classifying, "torch_forwards", lambda *_: [full])
    with pytest.raises(ConsensoError, match=r"out of memory .* lower --batch-tokens \(now 1024\)"):
        predict_texts(["goal"], model)


def test_scores_that_are_not_finite_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.full((len(tokens), 3), np.nan, "float32")

    monkeypatch.setattr(classifying, "torch_forwards", lambda *_: [broken])
    with pytest.raises(ModelError, match="not finite"):
        predict_texts(["goal"], model)


def test_every_gpu_gets_a_copy_and_a_cpu_shares_its_weights(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, torch = open_classifier(model), encoders.import_torch()
    assert len(set(forward.torch_forwards(classifier, "cpu", 3, "fp32"))) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(forward, "_copy", lambda model, device: device)
    assert len(set(forward.torch_forwards(classifier, "cuda", 3, "fp32"))) == 2


def test_a_prediction_tells_what_it_came_to(model: Path, tmp_path: Path) -> None:
    predicted = predict_file(write_rows(tmp_path / "t.csv", ["goal", "goal"]), model, tmp_path / "o.csv")
    assert isinstance(predicted, Predicted)
    assert sum(predicted.labels.values()) == predicted.rows == 2


# the command


@pytest.fixture
def predict(say: Any) -> Any:
    return lambda *arguments: say("predict", *arguments)


def test_the_command_writes_a_file_and_says_what_it_came_to(predict: Any, model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.csv", ["goal", "", "goal " * 99])
    said = predict(model, data, "--to", "o.csv", "--keep", "id, text", "--no-probabilities", "--threads", 1)
    assert (said.code, said.err) == (0, "")
    assert "1 row(s) without a text" in said.out
    assert "1 text(s) reached 64 tokens" in said.out
    assert "wrote o.csv: 3 rows" in said.out
    assert (tmp_path / "o.csv").read_text().startswith("text_id,predicted,confidence,status,id,text\nt0,")


def test_the_command_prints_json(predict: Any, model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.csv", ["goal", None])
    said = predict(model, data, "--to", "o.jsonl", "--keep", "all", "--limit", 2, "--json")
    facts = json.loads(said.out)
    assert (facts["path"], facts["rows"], facts["empty"], sum(facts["labels"].values())) == ("o.jsonl", 2, 1, 1)


def test_a_mistake_is_one_line_and_exit_code_2(predict: Any, model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "t.csv", ["goal"])
    for arguments, wrong in {
        (model, "t.csv", "--to", "o.docx"): "unknown kind of file",
        (model, "t.csv", "--to", "o.csv", "--text", "body"): "missing column 'body'",
        (model, "nowhere.csv", "--to", "o.csv"): "there is no such file",
        ("./nowhere", "t.csv", "--to", "o.csv"): "there is no such folder; give one that `consenso train` wrote",
        (model, "t.csv", "--to", "o.csv", "--chunk", "0"): "chunk: must be greater than or equal to 1",
        ("embedded", "t.csv", "--to", "o.csv"): "train a classifier with `consenso train`",
    }.items():
        said = predict(*arguments)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith("consenso: ")
        assert wrong in said.err


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    predict: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from consenso.cli import predicting

    def interrupt(self: Any, done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    write_rows(tmp_path / "t.csv", [*some_texts(40)])
    with monkeypatch.context() as patch:
        patch.setattr(predicting._Progress, "__call__", interrupt)
        said = predict(model, "t.csv", "--to", "o.csv", "--chunk", 8)
    assert (said.code, said.err.strip()) == (
        130,
        "consenso: interrupted; finished work is kept, the same command goes on",
    )
    assert "40 rows, 16 of them earlier" in predict(model, "t.csv", "--to", "o.csv", "--chunk", 8).out


def test_progress_tells_rows_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    from consenso.cli import predicting

    progress = predicting._Progress()
    progress(100, 1000)
    progress._started -= 10
    progress._last -= 20
    progress(200, 1000)
    progress(300, 1000)
    progress(1000, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop(0) == "predict    100 of 1,000 texts are there from an earlier run"
    assert lines == ["predict    200/1,000 texts, 10/s, 80 s left", "predict    1,000/1,000 texts"]
