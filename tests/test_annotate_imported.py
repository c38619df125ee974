"""Votes that exist already: long and wide tables, the earlier system's run folders, bad input, real data."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pandas as pd
import pytest

from consenso.annotate import VoteImport, check_annotators, read_earlier_texts, read_votes
from consenso.annotate.values import ValueReader
from consenso.errors import ConfigError, DataError, JoinError
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import VOTES, check
from making import shared

SCHEMA = LabelSchema({1: "neg", 2: "pos"})
LONG = "text_id,annotator,repetition,label\n1,x,0,pos\n1,y,0,1\n2,x,0,2.0\n2,y,0,?\n"


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def read(folder, content, schema=SCHEMA, **options):
    return read_votes(write(folder, "votes.csv", content), schema, **options)


def answers(votes):
    """{(text_id, annotator, repetition): label or status}"""
    given = votes["label"].where(votes["label"].notna(), votes["status"])
    return dict(zip(zip(votes["text_id"], votes["annotator"], votes["repetition"]), given))


def texts(*ids):
    return pd.DataFrame({"text_id": list(ids), "text": [f"text {i}" for i in ids]})


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("value", "label", "status"),
    [
        ("pos", "pos", "ok"),
        (" POS ", "pos", "ok"),
        ("1", "neg", "ok"),
        (" 2.0", "pos", "ok"),
        (2.0, "pos", "ok"),
        ("2.00", "pos", "ok"),
        ("-1", None, "invalid_label"),
        ("-1.0", None, "invalid_label"),
        ("3", None, "invalid_label"),
        ("positive!", None, "invalid_label"),
        ("None", None, "invalid_label"),
        ("", None, "unparsable"),
        ("  ", None, "unparsable"),
        ("nan", None, "unparsable"),
        ("?", None, "unparsable"),
        ("--", None, "unparsable"),
        ("ERROR", None, "failed"),
        ("yes", "pos", "ok"),
        ("n/a", None, "abstained"),
    ],
)
def test_a_stored_value_is_a_label_or_says_why_not(value, label, status):
    assert ValueReader(SCHEMA, {"yes": "pos"}, ["n/a"]).read(value) == (label, status)


def test_minus_one_is_a_label_where_the_schema_has_it():
    assert ValueReader(LabelSchema({-1: "against", 1: "for"})).read("-1.0") == ("against", "ok")


def test_the_files_own_meaning_and_abstentions_come_before_the_schema():
    reader = ValueReader(SCHEMA, {"1": "pos"}, ["2"])
    assert reader.read("1") == ("pos", "ok")
    assert reader.read(2) == (None, "abstained")


def test_a_class_called_error_is_a_class():
    assert ValueReader(LabelSchema.from_names(["error", "ok"])).read("ERROR") == ("error", "ok")


def test_an_empty_cell_is_unparsable_an_abstention_or_no_vote_at_all(tmp_path):
    content = "text_id,x,y\n1,pos,\n2,neg,pos\n"
    assert answers(read(tmp_path, content))["1", "y", 0] == "unparsable"
    assert answers(read(tmp_path, content, abstain=[""]))["1", "y", 0] == "abstained"
    assert ("1", "y", 0) not in answers(read(tmp_path, content, blank="absent"))


def test_a_map_to_an_unknown_label_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"maps to 'poss', which is no label. Did you mean 'pos'"):
        read(tmp_path, LONG, settings=VoteImport(source="votes.csv", labels={"yes": "poss"}))


# ------------------------------------------------------------------ layouts


def test_a_long_table_is_read_by_name_and_by_id(tmp_path):
    votes = read(tmp_path, LONG)
    assert answers(votes) == {
        ("1", "x", 0): "pos", ("1", "y", 0): "neg", ("2", "x", 0): "pos", ("2", "y", 0): "unparsable",
    }  # fmt: skip
    assert list(votes["reply"]) == ["pos", "1", "2.0", "?"]
    check(votes, VOTES)


def test_columns_can_be_named(tmp_path):
    content = "doc,who,run,code,p\n1,x,3,1,0.25\n1,y,3,pos,\n"
    columns = {"text_id": "doc", "annotator": "who", "repetition": "run", "label": "code", "confidence": "p"}
    votes = read(tmp_path, content, columns=columns)
    assert answers(votes) == {("1", "x", 3): "neg", ("1", "y", 3): "pos"}
    assert votes["confidence"].iloc[0] == 0.25
    assert pd.isna(votes["confidence"].iloc[1])


def test_a_named_column_that_is_absent_says_which_was_meant(tmp_path):
    with pytest.raises(DataError, match=r"no column 'anotator' \(columns.annotator\). Did you mean 'annotator'"):
        read(tmp_path, LONG, columns={"annotator": "anotator"})


def test_a_wide_table_has_a_column_per_annotator(tmp_path):
    content = "text_id,text,gold,gpt,llama,llama_conf\n1,good,pos,pos,1,0.9\n2,bad,neg,-1,pos,x\n"
    votes = read(tmp_path, content)
    assert answers(votes) == {
        ("1", "gpt", 0): "pos", ("2", "gpt", 0): "invalid_label", ("1", "llama", 0): "neg", ("2", "llama", 0): "pos",
    }  # fmt: skip
    assert votes.set_index(["annotator", "text_id"])["confidence"]["llama", "1"] == 0.9
    (note,) = votes.attrs["notes"]
    assert note.endswith("1 confidence value(s) are no numbers, for example 'x'")


def test_a_wide_table_may_hold_repetitions(tmp_path):
    content = "id,m-1_rep1,m-1_rep2,m-1_rep2_conf,m-1\n7,pos,neg,.5,pos\n"
    votes = read(tmp_path, content)
    assert answers(votes) == {("7", "m-1", 1): "pos", ("7", "m-1", 2): "neg"}  # m-1 is their summary, not a third vote
    assert answers(read(tmp_path, content, repetitions=[2])) == {("7", "m-1", 2): "neg"}


def test_a_wide_table_with_other_columns_asks_for_the_annotators(tmp_path):
    content = "text_id,gpt,llama,price\n1,pos,neg,12.50\n2,pos,neg,3.99\n"
    with pytest.raises(DataError, match=r"no labels in price \(such as '12.50'\).*annotators = \['gpt', 'llama'\]"):
        read(tmp_path, content)
    assert set(read(tmp_path, content, annotators=["gpt"])["annotator"]) == {"gpt"}


def test_question_marks_do_not_make_a_column_strange(tmp_path):
    votes = read(tmp_path, "text_id,gpt,falcon\n1,pos,?\n2,neg,?\n3,neg,1\n4,pos,\n")
    assert votes.loc[votes["annotator"] == "falcon", "status"].tolist() == [
        "unparsable",
        "unparsable",
        "ok",
        "unparsable",
    ]


def test_an_annotator_that_never_answers_well_is_read_when_named(tmp_path):
    votes = read(tmp_path, "text_id,gpt,bad\n1,pos,ERROR\n2,neg,??\n3,neg,\n", annotators=["gpt", "bad"])
    assert votes.loc[votes["annotator"] == "bad", "status"].tolist() == ["failed", "unparsable", "unparsable"]


def test_a_layout_that_cannot_be_told_is_said(tmp_path):
    with pytest.raises(DataError, match=r"cannot tell the layout; found columns text_id, label. A long table needs"):
        read(tmp_path, "text_id,label\n1,pos\n")
    assert answers(read(tmp_path, "text_id,label\n1,pos\n", layout="wide", annotators=["label"])) == {
        ("1", "label", 0): "pos"
    }


def test_rows_and_columns_may_stand_in_any_order():
    frame = pd.DataFrame(
        {"text_id": [1, 2, 3], "b": ["pos", "1", "?"], "a": ["2", None, "ERROR"], "b_conf": [0.1, 0.2, 0.3]}
    )
    shuffled = frame.iloc[[2, 0, 1], [3, 2, 0, 1]]
    key = ["text_id", "annotator", "repetition"]
    one, other = (read_votes(f, SCHEMA).sort_values(key).reset_index(drop=True) for f in (frame, shuffled))
    pd.testing.assert_frame_equal(one, other)


def test_a_frame_keeps_integer_ids_and_is_not_changed():
    frame = pd.DataFrame({"text_id": [1.0, 2.0], "annotator": [7, 7], "label": [1, float("nan")]})
    before = frame.copy()
    assert answers(read_votes(frame, SCHEMA)) == {(1, "7", 0): "neg", (2, "7", 0): "unparsable"}
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("name", ["v.tsv", "v.csv.gz", "v.jsonl", "v.json", "v.parquet", "v.xlsx"])
def test_every_kind_of_file_gives_the_same_votes(tmp_path, name):
    frame = pd.DataFrame({"text_id": ["007", "008"], "annotator": ["x", "x"], "label": ["pos", None]})
    path = tmp_path / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".xlsx"):
        frame.to_excel(path, index=False)
    elif ".json" in name:
        frame.to_json(path, orient="records", lines=name.endswith("l"))
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    assert answers(read_votes(path, SCHEMA)) == {("007", "x", 0): "pos", ("008", "x", 0): "unparsable"}


def test_semicolons_and_a_byte_order_mark_are_understood(tmp_path):
    assert answers(read(tmp_path, "\ufefftext_id;annotator;label\n1;x;pos\n")) == {("1", "x", 0): "pos"}


def test_a_file_without_ids_is_joined_by_its_texts(tmp_path):
    from consenso.text import text_hash

    known = pd.DataFrame({"text_id": [text_hash("Good."), text_hash("Bad.")], "text": ["Good.", "Bad."]})
    votes = read(tmp_path, 'text,gpt\n"Good.\n",pos\nBad.,neg\n', texts=known)
    assert dict(zip(votes["text_id"], votes["label"])) == {text_hash("Good."): "pos", text_hash("Bad."): "neg"}


def test_votes_of_another_run_keep_why_they_have_no_label(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = pd.DataFrame(
        {
            "text_id": ["1", "2", "3"],
            "annotator": "x",
            "label": ["pos", None, None],
            "status": ["ok", "refused", "abstained"],
            "reply": ["Positive.", "I cannot", None],
            "tokens_in": [5, 6, 7],
        }
    )
    folder.write("votes", first)
    again = read_votes(folder.path, SCHEMA).set_index("text_id")
    assert again["status"].to_dict() == {"1": "ok", "2": "refused", "3": "abstained"}
    assert again.loc["2", "reply"] == "I cannot"
    assert again["tokens_in"].tolist() == [5, 6, 7]


# ------------------------------------------------------------------ choosing


def test_where_keeps_the_rows_that_are_asked_for(tmp_path):
    content = "text_id,annotator,prompt,k,label\n1,x,short,1,pos\n1,x,long,2.0,neg\n1,x,odd,3,neg\n"
    with pytest.raises(DataError, match=r"where = {k = '1'}"):
        read(tmp_path, content)
    assert answers(read(tmp_path, content, where={"prompt": "short"})) == {("1", "x", 0): "pos"}
    assert answers(read(tmp_path, content, where={"k": 2})) == {("1", "x", 0): "neg"}
    with pytest.raises(DataError, match=r"2 repeated vote|1 repeated vote"):
        read(tmp_path, content, where={"prompt": ["short", "long"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": {"promt": "short"}}, "no column 'promt' (where). Did you mean 'prompt'"),
        ({"where": {"prompt": "shor"}}, "no row where prompt = 'shor'. Did you mean 'short'"),
        ({"annotators": ["gtp-4"]}, "no annotator 'gtp-4'. Did you mean 'gpt-4'"),
        (
            {"annotators": ["gpt-4", "llama"], "where": {"prompt": "short"}},
            "where prompt = 'short': no annotator 'llama'",
        ),
        ({"repetitions": [4]}, "no repetition 4; found 0"),
        ({"layout": "tall"}, "layout"),
        ({"panel": ["x"]}, "unknown key 'panel'"),
    ],
)
def test_asking_for_what_is_not_there_is_an_error(tmp_path, options, message):
    content = "text_id,annotator,prompt,label\n1,gpt-4,short,pos\n1,llama,long,neg\n"
    with pytest.raises((DataError, ConfigError)) as error:
        read(tmp_path, content, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_panel_limits_the_annotators(tmp_path):
    assert set(read(tmp_path, LONG, annotators=["y"])["annotator"]) == {"y"}


def test_options_may_come_as_settings(tmp_path):
    path = write(tmp_path, "votes.csv", LONG)
    settings = VoteImport(source="votes.csv", annotators=["y"], abstain=["?"])
    assert answers(read_votes("votes.csv", SCHEMA, settings=settings, base=tmp_path)) == {
        ("1", "y", 0): "neg", ("2", "y", 0): "abstained",
    }  # fmt: skip
    assert set(read_votes(path, SCHEMA, settings=settings, annotators=["x"])["annotator"]) == {"x"}


def test_a_repeated_vote_is_an_error_with_an_example(tmp_path):
    with pytest.raises(DataError, match=r"1 repeated vote\(s\), for example .*'1'.*add a column `repetition`"):
        read(tmp_path, "text_id,annotator,label\n1,x,pos\n1,x,pos\n")


def test_relative_paths_start_from_the_base_then_from_the_data_folder(tmp_path, monkeypatch):
    write(tmp_path / "a", "votes.csv", LONG)
    write(tmp_path / "b", "votes.csv", LONG.replace(",x,", ",z,"))
    monkeypatch.setenv("CONSENSO_DATA", str(tmp_path / "b"))
    assert set(read_votes("votes.csv", SCHEMA, base=tmp_path / "a")["annotator"]) == {"x", "y"}
    assert set(read_votes("votes.csv", SCHEMA)["annotator"]) == {"z", "y"}
    with pytest.raises(DataError, match=r"no file or folder vots.csv; looked for .* Did you mean 'votes.csv'"):
        read_votes("vots.csv", SCHEMA)


# ------------------------------------------------------------------ joining


def test_votes_for_unknown_texts_are_left_out_and_counted(tmp_path):
    votes = read(tmp_path, LONG + "9,x,0,pos\n9,y,0,pos\n8,y,0,pos\n", texts=texts("1", "2"))
    assert set(votes["text_id"]) == {"1", "2"}
    (note,) = votes.attrs["notes"]
    assert note.startswith("votes for unknown texts: 3 votes for 2 texts were left out, for example '9'")
    outcome = check_annotators(votes).set_index("guard")["outcome"]
    assert outcome["votes for unknown texts"] == "warned"


def test_votes_take_the_texts_own_ids(tmp_path):
    assert set(read(tmp_path, LONG, texts=texts(1, 2, 3))["text_id"]) == {1, 2}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["001", "002"], "look like '1', of the texts like '001'. They differ in zeros in front"),
        (["1.0", "2.0"], "a decimal part"),
        (["babe-1", "babe-2"], "what stands before the number"),
        (["0123456789abcdef"], "made from the texts"),
        (["x"], "Check that both files belong together"),
    ],
)
def test_votes_that_join_no_text_say_how_the_ids_look(tmp_path, ids, message):
    with pytest.raises(JoinError) as error:
        read(tmp_path, LONG, texts=texts(*ids))
    assert message in str(error.value)


# ------------------------------------------------------------------ bad files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.csv", "", "is empty"),
        ("v.csv", "text_id,annotator,label\n1,x,pos,more\n", "cannot be read as CSV"),
        ("v.csv", "text_id,gpt,gpt\n1,pos,neg\n", "column(s) ['gpt'] stand more than once"),
        ("v.csv.gz", "text_id,annotator,label\n1,x,pos\n", "Not a gzipped file"),
        ("v.parquet", "text_id,annotator,label\n", "cannot be read as Parquet"),
        ("v.xlsx", "text_id,annotator,label\n", "cannot be read as xlsx"),
        ("v.jsonl", "{]", "not JSON"),
        ("v.docx", "text", "unknown kind of file"),
        ("v.csv", "text_id,annotator,label\n", "has no rows"),
        ("v.csv", "text_id,annotator,label\n1,,pos\n", "1 row(s) without an annotator"),
        ("v.csv", "text_id,annotator,label\n,x,pos\n", "1 row(s) without a text id"),
        ("v.csv", "annotator,label\nx,pos\n", "no column text_id"),
        (
            "v.csv",
            "text_id,annotator,repetition,label\n1,x,zero-shot,pos\n",
            "must be whole numbers; found 'zero-shot'",
        ),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, name, content, message):
    with pytest.raises(DataError) as error:
        read_votes(write(tmp_path, name, content), SCHEMA)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_said(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes("text_id,annotator,label\n1,José,pos\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"utf-8"):
        read_votes(path, SCHEMA)


def test_a_cut_gzip_file_is_said(tmp_path):
    path = tmp_path / "v.csv.gz"
    path.write_bytes(gzip.compress(LONG.encode() * 50)[:-20])
    with pytest.raises(DataError, match=r"cannot be read"):
        read_votes(path, SCHEMA)


# ------------------------------------------------------------------ the earlier system

EARLIER = (
    "text_id,text,text_len,"
    "qwen3-8b_rep1,qwen3-8b_rep1_conf,qwen3-8b_rep2,qwen3-8b_rep2_conf,"
    "qwen3-8b_consensus,qwen3-8b_consensus_score,qwen3-8b_annotation_time_sec,"
    "gemma_rep1,gemma_rep1_conf,gemma_consensus,gemma_consensus_score,gemma_annotation_time_sec,ground_truth\n"
    '0,"good, very",10,2,0.9,1.0,,2,0.5,3.5,-1,,-1,1.0,0.7,2\n'
    "1,bad,3,1,0.8,ERROR,,1,0.5,3.5,,,-1,1.0,0.8,\n"
)
PROBLEMATIC = 'text_id,text,consensus_score,annotations,entropy\n1,bad,0.5,"{1: 1, -1: 1}",1.0\n'


def earlier_run(folder):
    write(folder, "annotations.csv", EARLIER)
    write(folder, "model_metrics.csv", "model,accuracy\ngemma,0.5\n")
    write(folder, "consensus/problematic_cases.csv", PROBLEMATIC)
    return folder


def test_an_earlier_run_folder_is_read_repetition_by_repetition(tmp_path):
    votes = read_votes(earlier_run(tmp_path / "2026-06-01_10-00-00"), SCHEMA)
    assert answers(votes) == {
        ("0", "qwen3-8b", 1): "pos",
        ("0", "qwen3-8b", 2): "neg",
        ("1", "qwen3-8b", 1): "neg",
        ("1", "qwen3-8b", 2): "failed",
        ("0", "gemma", 1): "invalid_label",
        ("1", "gemma", 1): "unparsable",
    }
    by = votes.set_index(["text_id", "annotator", "repetition"])
    assert by["confidence"]["0", "qwen3-8b", 1] == 0.9
    assert by["latency_s"]["0", "gemma", 1] == 0.7
    assert pd.isna(by["latency_s"]["0", "qwen3-8b", 1])  # 3.5 s belong to both repetitions


def test_a_model_without_repetition_columns_votes_by_its_consensus(tmp_path):
    content = "text_id,text,m_consensus,m_consensus_score,ground_truth\n0,a,2.0,1.0,2\n1,b,-1.0,1.0,1\n"
    votes = read_votes(write(tmp_path, "any name.csv", content), SCHEMA)
    assert answers(votes) == {("0", "m", 0): "pos", ("1", "m", 0): "invalid_label"}
    assert votes["confidence"].isna().all()  # a share of repetitions is no confidence


@pytest.mark.parametrize("name", ["consensus/dataset_consenso.csv", "summary/dataset_anotado_completo.csv"])
def test_a_run_without_annotations_csv_is_read_from_its_other_files(tmp_path, name):
    header, *rows = EARLIER.splitlines()
    extra = (
        ",all_annotations,unique_annotations,most_common_annotation,most_common_count,consensus_score,consensus_level"
    )
    lines = [header + extra, *(row + ',"[2, -1]",2,2,1,0.5,low' for row in rows)]
    write(tmp_path, name, "\n".join(lines) + "\n")
    votes = read_votes(tmp_path, SCHEMA)
    assert set(votes["annotator"]) == {"qwen3-8b", "gemma"}
    (note,) = votes.attrs["notes"]
    assert "annotations.csv has all" in note


def test_a_data_set_folder_stands_for_its_only_run(tmp_path):
    earlier_run(tmp_path / "2026-06-01_10-00-00")
    write(tmp_path, "intermediate.csv", EARLIER)
    write(tmp_path, "two_phase_2026-07-01/fold_0/filtered/annotations.csv", EARLIER)
    write(tmp_path, "_checkpoints_two_phase/k3_abc/checkpoint_config.json", "{}")
    assert len(read_votes(tmp_path, SCHEMA)) == 6
    earlier_run(tmp_path / "2026-06-02_09-30-00")
    with pytest.raises(DataError, match=r"holds 2 runs: 2026-06-01_10-00-00, 2026-06-02_09-30-00; choose one"):
        read_votes(tmp_path, SCHEMA)


def test_a_folder_without_a_run_is_said(tmp_path):
    write(tmp_path, "intermediate.csv", EARLIER)
    with pytest.raises(
        DataError, match=r"no run folder of the earlier system; looked for annotations.csv.*intermediate.csv"
    ):
        read_votes(tmp_path, SCHEMA)
    assert len(read_votes(tmp_path / "intermediate.csv", SCHEMA)) == 6


def test_a_file_with_the_consensus_alone_has_no_votes(tmp_path):
    content = "text_id,text,ground_truth,most_common_annotation\n0,a,1,1\n"
    with pytest.raises(DataError, match=r"no votes of single annotators.*use annotations.csv of the same run"):
        read_votes(write(tmp_path, "dataset_anotado_completo.csv", content), SCHEMA)


def test_the_long_file_of_the_perspectivist_mode_is_a_long_table(tmp_path):
    content = "text_id,text,label,llm,label_description\n0,a,2,gemma,pos\n0,a,1,qwen,neg\n"
    votes = read_votes(write(tmp_path, "dataset_perspectivismo.csv", content), SCHEMA)
    assert answers(votes) == {("0", "gemma", 0): "pos", ("0", "qwen", 0): "neg"}


def test_earlier_texts_come_with_gold_and_what_was_problematic(tmp_path):
    run = earlier_run(tmp_path / "2026-06-01_10-00-00")
    found = read_earlier_texts(tmp_path, SCHEMA)
    assert found["text_id"].tolist() == ["0", "1"]
    assert found["text"].tolist() == ["good, very", "bad"]
    assert found["gold"].where(found["gold"].notna(), None).tolist() == ["pos", None]
    assert found["earlier_problematic"].tolist() == [False, True]
    bare = read_earlier_texts(run / "annotations.csv")["gold"]  # without labels the value as it stands
    assert bare.iloc[0] == "2"
    assert pd.isna(bare.iloc[1])


def test_earlier_votes_and_texts_join(tmp_path):
    run = earlier_run(tmp_path)
    votes = read_votes(run, SCHEMA, texts=read_earlier_texts(run, SCHEMA))
    assert votes.attrs["notes"] == []
    assert len(votes) == 6


def test_the_panel_and_repetitions_choose_among_earlier_votes(tmp_path):
    run = earlier_run(tmp_path)
    assert len(read_votes(run, SCHEMA, annotators=["qwen3-8b"], repetitions=[1])) == 2
    with pytest.raises(DataError, match=r"Did you mean 'qwen3-8b'"):
        read_votes(run, SCHEMA, annotators=["qwen-8b"])


# ------------------------------------------------------------------ the page in docs


def test_the_examples_in_the_docs_read_to_the_same_votes(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "votes.md").read_text(encoding="utf-8")
    long, wide, earlier = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    schema = LabelSchema.from_names(["negative", "positive"])
    expected = {
        ("a1", "gpt", 0): "positive",
        ("a1", "llama", 0): "negative",
        ("a2", "gpt", 0): "negative",
        ("a2", "llama", 0): "unparsable",
    }
    assert answers(read(tmp_path, long, schema)) == expected
    assert answers(read(tmp_path, wide, schema)) == expected
    assert answers(read(tmp_path, earlier, schema)) == {(t, a, 1): label for (t, a, _), label in expected.items()}


# ------------------------------------------------------------------ real data


def items(name):
    return pd.read_csv(shared(name, "items.csv.gz"))


def test_babe_is_read_by_prompt_condition():
    pool = items("babe_llm").query("split == 'pool'")
    schema = LabelSchema({0: "non-biased", 1: "biased"})
    path = shared("babe_llm", "annotations.csv.gz")
    votes = read_votes(path, schema, texts=pool, where={"condition": "zero-shot"})
    assert votes.groupby("annotator").size().eq(3021).all()
    assert votes["annotator"].nunique() == 13
    assert votes["status"].value_counts().to_dict() == {"ok": 39_255, "unparsable": 18}
    assert votes["reply"][votes["label"].isna()].unique().tolist() == ["?"]


def test_babe_test_votes_are_unknown_to_the_pool():
    pool = items("babe_llm").query("split == 'pool'")
    votes = read_votes(shared("babe_llm", "annotations.csv.gz"), LabelSchema.from_names(["no", "yes"]), texts=pool)
    (note,) = votes.attrs["notes"]
    assert note.startswith("votes for unknown texts: 3000 votes for 1000 texts were left out")
    assert len(votes) == 317_184 - 3000


def test_the_minus_ones_of_imdb_are_invalid():
    votes = read_votes(
        shared("imdb_llm3", "annotations.csv.gz"), LabelSchema.from_names(["neg", "pos"]), texts=items("imdb_llm3")
    )
    wrong = votes[votes["label"].isna()]
    assert wrong["status"].unique().tolist() == ["invalid_label"]
    assert wrong["annotator"].value_counts().to_dict()["gpt-4o-mini"] == 19
    assert (len(votes), len(wrong)) == (4320, 21)


def test_policy_codes_are_stripped_and_unknown_ones_counted():
    texts = items("textclass_policy_en")
    schema = LabelSchema({int(code): f"topic {code}" for code in sorted(texts["gold"].unique())})
    votes = read_votes(
        shared("textclass_policy_en", "annotations.csv.gz"), schema, texts=texts, where={"kind": ["llm", "supervised"]}
    )
    assert len(votes) == 84_266
    assert votes["status"].value_counts().to_dict() == {"ok": 84_140, "invalid_label": 126}
    assert votes["reply"].str.startswith(" ").sum() == 926
    llms = read_votes(shared("textclass_policy_en", "annotations.csv.gz"), schema, where={"kind": "llm"})
    assert llms["annotator"].nunique() == 88


def test_weather_can_turn_a_class_into_an_abstention():
    schema = LabelSchema({0: "negative", 1: "neutral", 2: "positive", 3: "not related"})
    votes = read_votes(
        shared("weather_crowd", "annotations.csv.gz"), schema, texts=items("weather_crowd"), abstain=["4"]
    )
    assert votes["status"].value_counts().to_dict() == {"ok": 18_863, "abstained": 1137}
    assert votes.groupby("text_id").size().eq(20).all()


# ------------------------------------------------------------------ ids that nobody gave

NAMES_ALONE = LabelSchema.from_names(["biased", "fair"], ids_given=False)
CODED = "text_id,annotator,label\n1,x,0\n1,y,1\n2,x,fair\n2,y,?\n"


def test_numbers_are_no_votes_where_the_labels_are_names_and_nobody_gave_ids(tmp_path):
    with pytest.raises(
        DataError, match=r"the votes are numbers \(0, 1\), the labels are names \(biased, fair\), and nothing says"
    ):
        read(tmp_path, CODED, schema=NAMES_ALONE)


def test_the_files_own_map_says_what_numbers_mean_and_a_number_it_lacks_is_refused(tmp_path):
    both, one = (
        VoteImport(source="votes.csv", labels=meant) for meant in ({"0": "fair", "1": "biased"}, {"0": "fair"})
    )
    assert answers(read(tmp_path, CODED, schema=NAMES_ALONE, settings=both)) == {
        ("1", "x", 0): "fair", ("1", "y", 0): "biased", ("2", "x", 0): "fair", ("2", "y", 0): "unparsable",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"the votes of y are numbers \(1\)"):
        read(tmp_path, CODED, schema=NAMES_ALONE, settings=one)
    votes = read(tmp_path, CODED, schema=NAMES_ALONE, settings=one, abstain=["1"])
    assert answers(votes)["1", "y", 0] == "abstained"


def test_only_numbers_that_would_have_been_read_as_ids_are_refused(tmp_path):
    content = "text_id,annotator,label\n1,x,7\n1,y,fair\n"
    assert answers(read(tmp_path, content, schema=NAMES_ALONE))["1", "x", 0] == "invalid_label"


def test_labels_that_are_numbers_themselves_are_names():
    grades = LabelSchema.from_names(["0.5", "1", "1.5"], ids_given=False)
    frame = pd.DataFrame({"text_id": [1, 2, 3], "annotator": "x", "label": [0.5, 1.0, 1.5]})
    assert read_votes(frame, grades)["label"].tolist() == ["0.5", "1", "1.5"]


def test_a_column_of_numbers_in_a_wide_table_is_named_and_not_taken_for_an_annotator(tmp_path):
    with pytest.raises(DataError, match=r"the votes of n_links are numbers \(0, 1, 3\)"):
        read(tmp_path, "text_id,gpt,n_links\n1,fair,0\n2,biased,1\n3,fair,3\n", schema=NAMES_ALONE)


def test_an_empty_column_of_votes_is_an_error_unless_the_file_says_why_votes_are_missing(tmp_path):
    with pytest.raises(DataError, match="column 'label' is empty in all 2 rows"):
        read(tmp_path, "text_id,annotator,label\n1,x,\n2,x,\n")
    votes = read(tmp_path, "text_id,annotator,label,status\n1,x,,failed\n2,x,,failed\n")
    assert votes["status"].tolist() == ["failed", "failed"]


def test_ids_made_from_the_texts_are_said_to_be_so_with_the_columns_that_could_be_ids(tmp_path):
    frame = texts("0123456789abcdef").assign(**{"Doc ID": "1"})
    with pytest.raises(JoinError, match=r"No id column was found.*set data.columns.text_id; columns: 'Doc ID'"):
        read(tmp_path, LONG, texts=frame)


def test_ids_of_sixteen_digits_are_not_taken_for_hashes(tmp_path):
    with pytest.raises(JoinError, match="Check that both files belong together"):
        read(tmp_path, LONG, texts=texts("1234567890123456"))
