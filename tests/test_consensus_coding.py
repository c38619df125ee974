"""Votes as arrays: whatever they lie in, the coding is the same, and so is what is said of bad votes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consenso.consensus import coding
from consenso.consensus.coding import code_columns
from consenso.consensus.framing import labels_frame, rows_column, text_column, top_two
from consenso.consensus.votematrix import code_votes, label_shares, vote_numbers
from consenso.errors import DataError, JoinError
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import LABELS, VOTES, check

SCHEMA = LabelSchema.from_names(["日本", "neg", "Ärger"])
NEEDED = ["text_id", "annotator", "repetition", "label", "status"]


def some_votes(n=30, annotators=3, repetitions=1, ids=str, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(t, a, r) for t in range(n) for a in range(annotators) for r in range(repetitions)]
    frame = pd.DataFrame(rows, columns=["text_id", "annotator", "repetition"])
    frame["text_id"] = [f"text {t} é" for t in frame["text_id"]] if ids is str else frame["text_id"] * 7 - 50
    frame["annotator"] = [f"ann{a}" for a in frame["annotator"]]
    frame["label"] = np.array([*SCHEMA.names, None], dtype=object)[rng.integers(0, 4, len(frame))]
    frame["status"] = np.where(frame["label"].isna(), "refused", np.where(rng.random(len(frame)) < 0.1, "failed", "ok"))
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def in_parts(frame, folder, parts):
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for number, at in enumerate(np.array_split(np.arange(len(frame)), parts)):
        pq.write_table(table.take(at), folder / f"part-{number:04d}.parquet")
    return folder


def every_way(frame, folder, parts=4):
    """The same votes in everything they may lie in."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    text = [name for name in ("text_id", "annotator", "label", "status") if frame[name].dtype.kind not in "iu"]
    pq.write_table(table, folder / "votes.parquet", row_group_size=7)
    path = in_parts(frame, folder / "parts", parts)
    return {
        "file": str(folder / "votes.parquet"),
        "folder": path,
        "pattern": path / "part-*.parquet",
        "list": sorted(path.glob("*.parquet"))[::-1],
        "table": table,
        "slice": table.slice(0, 5) if len(frame) == 5 else pa.concat_tables([table.slice(5), table.slice(0, 5)]),
        "dataset": ds.dataset(path),
        "reader": table.to_reader(max_chunksize=11),
        "object": frame.astype(dict.fromkeys(text, object)),
        "categorical": frame.astype(dict.fromkeys(text, "category")),
        "turned": frame.iloc[::-1, ::-1],
    }


def by_hand(frame, labels=None, texts=None, count="annotator"):
    """The coding, one vote at a time."""
    frame = check(frame, VOTES)
    valid = frame[frame["label"].notna() & frame["status"].eq("ok")]
    names = list(labels.names) if labels else sorted(set(valid["label"]))
    ids = list(texts) if texts is not None else sorted(set(frame["text_id"]))
    annotators = sorted(set(frame["annotator"]))
    valid = valid[valid["text_id"].isin(ids)]
    rows = sorted(
        (ids.index(t), annotators.index(a), names.index(k))
        for t, a, k in zip(valid["text_id"], valid["annotator"], valid["label"])
    )
    cells = [row[:2] for row in rows]
    return ids, annotators, names, rows, [1.0 if count == "vote" else 1 / cells.count(cell) for cell in cells]


def assert_coded(coded, expected):
    ids, annotators, names, rows, weight = expected
    assert list(coded.text_ids) == ids
    assert (coded.annotators, coded.labels) == (tuple(annotators), tuple(names))
    assert list(zip(coded.text, coded.annotator, coded.label)) == rows
    assert coded.weight == pytest.approx(weight)
    assert {coded.text.dtype, coded.annotator.dtype, coded.label.dtype} == {np.dtype("int64")}


@pytest.mark.parametrize("ids", [str, int])
@pytest.mark.parametrize("repetitions", [1, 3])
def test_everything_votes_lie_in_is_coded_alike(tmp_path, ids, repetitions):
    frame = some_votes(repetitions=repetitions, ids=ids)
    wanted = sorted(set(frame["text_id"]))[3:20:2]
    for more in ({}, {"labels": SCHEMA}, {"texts": wanted[::-1]}, {"count": "vote"}):
        expected = by_hand(frame, **more)
        assert_coded(code_votes(frame, **more), expected)
        for votes in every_way(frame, tmp_path).values():
            assert_coded(code_votes(votes, **more), expected)


@st.composite
def frames(draw):
    key = st.tuples(st.integers(0, 4), st.sampled_from("zya"), st.integers(0, 2))
    keys = draw(st.lists(key, min_size=1, max_size=25, unique=True))
    ids = draw(
        st.lists(st.one_of(st.text(max_size=3)), min_size=5, max_size=5, unique=True) | st.just([9, 10, -1, 0, 3])
    )
    label = st.sampled_from([None, "", "a", "é", "日", "😀", "Z"])
    rows = [(ids[t], a, r, draw(label), draw(st.sampled_from(["ok", "ok", "failed", None]))) for t, a, r in keys]
    return pd.DataFrame(rows, columns=NEEDED)


@settings(max_examples=40, deadline=None)
@given(frame=frames())
def test_any_votes_are_coded_alike(tmp_path_factory, frame):
    expected = by_hand(frame)
    for votes in (frame, *every_way(frame, tmp_path_factory.mktemp("any"), parts=3).values()):
        if not isinstance(votes, pa.Table) or votes.num_rows == len(frame):
            assert_coded(code_votes(votes), expected)


def test_a_thousand_parts_are_one_table(tmp_path):
    frame = some_votes(n=700, annotators=4)
    coded = code_votes(in_parts(frame, tmp_path / "parts", 1000))
    assert_coded(coded, by_hand(frame))
    assert coded.text_ids.equals(code_votes(frame).text_ids)


def test_parts_merged_now_and_then_are_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(coding, "WAITING", 100)
    frame = some_votes(n=200)
    assert_coded(code_votes(in_parts(frame, tmp_path / "parts", 20)), by_hand(frame))


def test_a_run_folder_is_read_where_its_votes_stand(tmp_path):
    frame = some_votes()
    folder = RunFolder(tmp_path)
    folder.write("votes", frame)
    for path in (tmp_path, folder.table_path("votes")):
        assert_coded(code_votes(path), by_hand(frame))


def test_absent_optional_columns_are_filled(tmp_path):
    frame = some_votes()[["text_id", "annotator", "label"]]
    first, second = frame.iloc[:40].assign(status="ok"), frame.iloc[40:]
    for number, part in enumerate((first, second)):
        part.to_parquet(tmp_path / f"{number}.parquet")
    assert_coded(code_votes(frame), by_hand(frame))
    assert_coded(code_votes(tmp_path), by_hand(frame))
    assert_coded(code_votes(pa.Table.from_pandas(frame)), by_hand(frame))


def test_a_part_without_any_label_has_no_type_of_its_own(tmp_path):
    frame = some_votes(n=4)
    for number, part in enumerate((frame.iloc[:5].assign(label=None), frame.iloc[5:])):
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), tmp_path / f"{number}.parquet")
    assert pq.read_schema(tmp_path / "0.parquet").field("label").type in {pa.null(), pa.large_string(), pa.string()}
    nulled = frame.assign(label=frame["label"].where(frame.index >= 5, None))
    assert_coded(code_votes(tmp_path), by_hand(nulled))
    table = pa.Table.from_pandas(frame.assign(status="ok"), preserve_index=False)
    nothing = code_votes(table.set_column(3, "label", pa.nulls(len(frame))))
    assert (len(nothing.text), nothing.labels) == (0, ())


def test_unused_values_of_a_dictionary_do_not_count():
    frame = some_votes(n=4, annotators=2)
    status = pd.Categorical(["ok"] * len(frame), categories=["no such status", "ok"])
    label = pd.Categorical(["neg"] * len(frame), categories=["pos", "neg", "aaa"])
    frame = frame.assign(status=status, label=label)
    for votes in (frame, pa.Table.from_pandas(frame)):
        assert code_votes(votes).labels == ("neg",)


def test_integer_and_string_ids_join(tmp_path):
    frame = some_votes(ids=int)
    texts = [str(text_id) for text_id in sorted(set(frame["text_id"]))]
    frame.to_parquet(tmp_path / "votes.parquet")
    coded = code_votes(tmp_path / "votes.parquet", texts=texts)
    assert list(coded.text_ids) == texts
    assert len(coded.text) == len(by_hand(frame)[3])


def test_mixed_ids_are_sorted_as_text():
    frame = pd.DataFrame({"text_id": [10, "b", 9, "a"], "annotator": "x", "label": "pos"})
    assert list(code_votes(frame).text_ids) == [10, 9, "a", "b"]


def test_half_a_surrogate_pair_is_a_label_like_any_other():
    frame = pd.DataFrame({"text_id": ["a", "b"], "annotator": "x"})
    frame["label"] = pd.Series(["\ud800", "pos"], dtype=object)
    assert code_votes(frame).labels == ("pos", "\ud800")


def test_many_distinct_repetitions_do_not_overflow(monkeypatch):
    frame = some_votes(repetitions=3).assign(repetition=lambda f: f["repetition"] * 10**12)
    expected = by_hand(frame)
    monkeypatch.setattr("consenso.consensus.votematrix.MOST", 1)
    assert_coded(code_votes(frame), expected)
    with pytest.raises(DataError, match="1 repeated"):
        code_votes(pd.concat([frame, frame.tail(1)]))


# the same sentence, whatever the votes lie in


def broken():
    frame = some_votes()
    stringly = frame.assign(repetition=frame["repetition"].astype(str))
    return {
        "no label column": frame.drop(columns=["label", "annotator"]),
        "null id": frame.assign(text_id=frame["text_id"].where(frame.index != 7, None)),
        "null annotator": frame.assign(annotator=frame["annotator"].where(frame.index > 7, None)),
        "unknown status": frame.assign(status=frame["status"].where(frame.index % 9 != 7, "odd")),
        "labels are numbers": frame.assign(label=3),
        "annotators are numbers": frame.assign(annotator=range(len(frame))),
        "repetition is text": stringly.assign(repetition=stringly["repetition"].where(frame.index != 4, "x")),
        "repeated": pd.concat([frame, frame.iloc[[11, 4]]], ignore_index=True),
        "repeated repetition": pd.concat([frame.assign(repetition=2), frame.iloc[[8]].assign(repetition=2)]),
        "no rows": frame.head(0),
    }


@pytest.mark.parametrize("mistake", sorted(broken()))
def test_bad_votes_are_one_line_that_check_would_say(tmp_path, mistake):
    frame = broken()[mistake]
    with pytest.raises(DataError) as by_frame:
        code_votes(frame)
    if mistake != "no rows":
        with pytest.raises(DataError) as by_check:
            check(frame, VOTES)
        assert str(by_frame.value) == str(by_check.value)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "votes.parquet")
    for votes in (tmp_path / "votes.parquet", tmp_path, pa.Table.from_pandas(frame)):
        with pytest.raises(DataError) as by_parquet:
            code_votes(votes)
        assert str(by_parquet.value) == str(by_frame.value)


def test_an_unknown_label_names_a_vote(tmp_path):
    frame = some_votes().assign(status="ok")
    frame.loc[5, "label"] = "negg"
    frame.to_parquet(tmp_path / "votes.parquet")
    vote = rf"'negg' \(annotator '{frame['annotator'][5]}', text '{frame['text_id'][5]}'\).*Did you mean 'neg'"
    for votes in (frame, tmp_path):
        with pytest.raises(DataError, match=vote):
            code_votes(votes, SCHEMA)


def test_a_column_that_consensus_does_not_read_is_still_checked_in_a_frame():
    with pytest.raises(DataError, match="'confidence' must hold numbers; found 'high'"):
        code_votes(some_votes().assign(confidence="high"))
    assert len(code_votes(some_votes().assign(confidence=None, reply="x", tokens_in=3)).text)


def test_texts_that_nobody_voted_on_are_one_line(tmp_path):
    frame = some_votes()
    frame.to_parquet(tmp_path / "votes.parquet")
    for votes in (frame, tmp_path):
        with pytest.raises(JoinError, match="none of the 30 voted texts is among the 1 texts"):
            code_votes(votes, texts=["elsewhere"])


def test_parts_that_do_not_fit_are_one_line(tmp_path):
    frame = some_votes()
    in_parts(frame, tmp_path, 2)
    frame.assign(text_id=range(len(frame))).to_parquet(tmp_path / "part-0002.parquet")
    with pytest.raises(DataError, match="'text_id' is large_string in one part and int64 in another"):
        code_votes(tmp_path)
    frame.drop(columns="label").to_parquet(tmp_path / "part-0002.parquet")
    with pytest.raises(DataError, match=r"missing column\(s\) \['label'\] in part-0002.parquet; found"):
        code_votes(tmp_path)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere.parquet", "no such file"),
        ("", "no .parquet file lies in this folder"),
        ("votes.csv", "cannot be read as Parquet .*read_votes"),
    ],
)
def test_a_path_without_votes_is_one_line(tmp_path, source, sentence):
    (tmp_path / "votes.csv").write_text("text_id,annotator,label\n")
    with pytest.raises(DataError, match=sentence) as caught:
        code_votes(tmp_path / source)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read from int"):
        code_votes(3)


def test_codes_are_narrow_and_values_are_one_each():
    columns = code_columns(some_votes(n=300))
    assert [columns[name].codes.dtype.itemsize for name in NEEDED] == [2, 1, 1, 1, 1]
    assert list(columns["annotator"].values) == ["ann0", "ann1", "ann2"]


# shares


def test_shares_are_worked_out_by_hand():
    rows = [("a", "x", 0, "p"), ("a", "x", 1, "q"), ("a", "y", 0, "p"), ("b", "x", 0, None), ("c", "y", 0, "q")]
    coded = code_votes(pd.DataFrame(rows, columns=NEEDED[:4]))
    assert label_shares(coded, coded.weight).tolist() == [[0.75, 0.25], [0, 0], [0, 1]]
    assert vote_numbers(coded).tolist() == [2, 0, 1]


# back to a frame


def test_a_frame_of_arrays_is_what_check_returns():
    rows, known = np.array([[0.25, 0.75], [0.0, 0.0], [0.5, 0.5]]), np.array([True, False, True])
    columns = {
        "label": text_column(np.array([1, -1, -1]), ["p", "日"]),
        "score": [0.75, np.nan, 0.5],
        "shares": rows_column(rows, known),
    }
    frame = labels_frame(pd.Index(["a", "b", "c"]), {"method": "majority", **columns})
    pd.testing.assert_frame_equal(frame, check(frame, LABELS))
    assert frame["label"].eq("日").tolist() == [True, False, False]
    assert frame["shares"].isna().tolist() == [False, True, False]
    assert frame["shares"].iloc[0].tolist() == [0.25, 0.75]
    assert set(frame["status"]) == {"decided"}


def test_names_come_in_the_type_pandas_gives_text():
    codes = np.array([0, -1, 1])
    column = text_column(codes, ["p", "q"])
    expected = pd.DataFrame({"label": np.array(["p", None, "q"], dtype=object)})["label"]
    pd.testing.assert_series_equal(column, expected, check_names=False)
    assert list(text_column(np.array([1, 0]), ["p", "\ud800"])) == ["\ud800", "p"]


def test_the_two_largest_shares_of_each_row():
    rows = np.random.default_rng(0).random((50, 4))
    first, second = top_two(rows)
    ordered = np.sort(rows, axis=1)
    assert (first == ordered[:, -1]).all()
    assert (second == ordered[:, -2]).all()
    assert [column.tolist() for column in top_two(np.ones((1, 1)))] == [[1], [0]]
