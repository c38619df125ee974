from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.data import (
    ColumnMap,
    DataSettings,
    LabelEntry,
    catalog_entry,
    catalog_names,
    list_catalog,
    load_dataset,
    make_folds,
    read_dataset,
    schema_of,
)
from consenso.data.splitting import pick_groups, stratified_counts
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from consenso.tables import DUPLICATES, FOLDS, LEAKS, TEXTS, check
from consenso.text import text_hash
from making import shared


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


ROWS = [("007", "NA", "0"), ("08", "null", "1"), ("9", 'a "quoted", text', "1")]


def frame(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(
        {"text_id": ["007", "08", "9"], "text": [t for _, t, _ in ROWS], "gold": ["0", "1", "1"], **columns}
    )


def many(n: int = 100, classes: str = "ab", **columns: list) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) for _ in range(6 * n)]
    texts = [" ".join(words[6 * i : 6 * i + 6]) for i in range(n)]
    gold = [classes[i % len(classes)] for i in range(n)]
    return pd.DataFrame({"text_id": [f"t{i}" for i in range(n)], "text": texts, "gold": gold, **columns})


# files


def as_jsonl(rows: pd.DataFrame) -> str:
    return "\n".join(json.dumps(row) for row in rows.to_dict("records"))


def as_xlsx(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.to_excel(buffer, index=False)
    return buffer.getvalue()


WRITERS = {
    "d.csv": lambda f, p: f.to_csv(p, index=False),
    "semicolon.csv": lambda f, p: f.to_csv(p, index=False, sep=";"),
    "tab.csv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "utf16.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16"),
    "d.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "d.csv.gz": lambda f, p: f.to_csv(p, index=False),
    "d.jsonl": lambda f, p: p.write_text(as_jsonl(f)),
    "d.jsonl.gz": lambda f, p: p.write_bytes(gzip.compress(as_jsonl(f).encode())),
    "list.json": lambda f, p: p.write_text(json.dumps(f.to_dict("records"))),
    "data.json": lambda f, p: p.write_text(json.dumps({"data": f.to_dict("records")})),
    "d.parquet": lambda f, p: f.to_parquet(p),
    "d.xlsx": lambda f, p: f.to_excel(p, index=False),
    "d.XLSX.gz": lambda f, p: p.write_bytes(gzip.compress(as_xlsx(f))),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_texts(name: str, tmp_path: Path) -> None:
    WRITERS[name](frame(), tmp_path / name)
    texts = load_dataset(tmp_path / name)
    assert texts["text_id"].tolist() == ["007", "08", "9"]
    assert texts["text"].tolist() == ["NA", "null", 'a "quoted", text']
    assert texts["gold"].tolist() == ["0", "1", "1"]
    assert len(texts.attrs["record"]["sha256"]) == 64


def test_empty_gold_is_null_but_the_word_na_is_a_label(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", "text,gold\nx,NA\ny,\nz,other\n")
    assert load_dataset(path)["gold"].tolist() == ["NA", None, "other"]


def test_a_tsv_with_stray_quotes_loses_no_row(tmp_path: Path) -> None:
    path = write(tmp_path, "d.tsv", 'text\tgold\n"so it goes\t0\nhe said "no" twice\t1\n"the end" is near\t1\n')
    texts = load_dataset(path)
    assert texts["text"].tolist() == ['"so it goes', 'he said "no" twice', '"the end" is near']
    assert "quote marks" in texts.attrs["record"]["notes"][0]


def test_a_line_break_inside_a_quoted_text_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,gold\n"two\nlines",0\nb,1\n')
    assert load_dataset(path)["text"].tolist() == ["two\nlines", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.csv", b"", "is empty"),
        ("d.csv", b"text,gold\n", "has no rows"),
        ("d.csv", b"text,gold\na,b,c\nd,e,f\n", "cannot be read as CSV"),
        ("d.csv", b"text,gold\na,0\nb,1,2\n", "quote texts that hold the separator"),
        ("d.csv", b"text,text\na,0\n", "stand more than once"),
        ("d.csv", b"text,gold\n\xff\xfa,0\n", "not UTF-8"),
        ("d.csv.gz", b"no gzip", "cannot be read"),
        ("d.csv.gz", gzip.compress(b"text\na", mtime=0)[:-9], "cannot be read"),
        ("d.parquet", b"PAR1 no", "cannot be read as Parquet"),
        ("d.xlsx", b"PK no", "cannot be read as xlsx"),
        ("d.json", b'{"text": 1}', 'list of records or {"data"'),
        ("d.json", b'{"text": "a"}\n{"text": "b"}', "is .jsonl"),
        ("d.json", b'["a", "b"]', "record 1 is str"),
        ("d.jsonl", b'{"text": "a"}\n\n{"text": ', "line 3"),
        ("d.xls", b"x", "unknown kind of file '.xls'"),
        ("d.csv", b"Text,gold\na,0\nb,1\n", "missing column 'text'; found ['Text', 'gold']. Did you mean 'Text'?"),
        ("d.csv", b"gold\n0\n1\n", "missing column 'text'; found ['gold']. Set data.columns.text"),
        ("d.csv", b"id,text\n1,a\n1,b\n2,c\n", "duplicate id: 1 id(s) of 'id'"),
        ("d.csv", b"id,text\n1,a\n,b\n", "without an id in 'id' (data row 2)"),
        ("d.csv", b"text,split\na,trian\n", "Did you mean 'train'?"),
    ],
)  # fmt: skip
def test_a_bad_file_gives_one_line_that_says_what_is_wrong(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path / name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, "items.csv", "text\na\n")
    with pytest.raises(DataError, match=r"no file .*itmes\.csv.*Did you mean 'items\.csv'\?"):
        load_dataset(tmp_path / "itmes.csv")


def test_relative_paths_start_from_base_then_cwd_then_consenso_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "cwd", "data"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "d.csv", f"text,gold\n{name},0\nx,1\n")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("CONSENSO_DATA", str(tmp_path / "data"))

    def first(base: Path | None = None) -> str:
        return str(read_dataset(DataSettings(source="d.csv"), base).texts["text"][0])

    assert first(tmp_path / "base") == "base"
    assert first() == "cwd"
    (tmp_path / "cwd" / "d.csv").unlink()
    assert first() == "data"


def test_an_asked_for_column_that_is_missing_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing column 'labl' \(for gold\).*Did you mean 'label'\?"):
        load_dataset(frame(label=[0, 1, 1]), columns={"gold": "labl"})


def test_own_columns_are_kept_and_never_collide_with_ours() -> None:
    given = pd.DataFrame(
        {"body": ["a", "b"], "y": [0, 1], "gold": ["p", "q"], "copies": [5, 6], "self": [1, 2], "text": ["?", "!"]}
    )
    texts = load_dataset(given, columns={"text": "body", "gold": "y"})
    assert list(texts.columns) == [
        "text_id",
        "text",
        "gold",
        "split",
        "group",
        "copies",
        "source_gold",
        "source_copies",
        "self",
        "source_text",
    ]
    assert texts["gold"].tolist() == ["0", "1"]
    assert texts["copies"].tolist() == [1, 1]
    assert list(given.columns) == ["body", "y", "gold", "copies", "self", "text"]


def test_other_columns_of_a_csv_become_numbers_only_where_nothing_is_lost(tmp_path: Path) -> None:
    texts = load_dataset(write(tmp_path, "d.csv", "text,n,zip,x\na,1.5,01234,1\nb,,99,two\n"))
    assert texts["n"].tolist()[0] == 1.5
    assert texts["zip"].tolist() == ["01234", "99"]
    assert texts["x"].tolist() == ["1", "two"]


@pytest.mark.parametrize("dtype", ["Int64", "float64", "string", "int64"])
def test_gold_of_any_type_reads_the_same(dtype: str) -> None:
    gold = pd.Series([0, 1, 1] if dtype == "int64" else ["0", "1", None], dtype=None if dtype == "int64" else "object")
    gold = gold.astype("Int64").astype(dtype) if dtype != "string" else gold.astype("string")
    found = load_dataset(frame().assign(gold=gold))["gold"].tolist()
    assert found == ["0", "1", "1" if dtype == "int64" else None]


# ids and duplicates


def test_integer_ids_stay_integers_and_floats_of_whole_numbers_become_them() -> None:
    assert load_dataset(frame(id=[1, 2, 3]), columns={"text_id": "id"})["text_id"].tolist() == [1, 2, 3]
    assert load_dataset(frame(id=[1.0, 2.0, 3.0]), columns={"text_id": "id"})["text_id"].tolist() == [1, 2, 3]


def test_an_id_that_is_once_a_number_and_once_text_is_a_duplicate() -> None:
    with pytest.raises(DataError, match="duplicate id: 1 id"):
        load_dataset(frame(id=[1, "1", 2]), columns={"text_id": "id"})


def test_own_ids_keep_repeated_texts_and_report_them() -> None:
    given = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "text": ["Same.", " Same.\n", "same", "else"], "gold": [0, 0, 1, 1]}
    )
    loaded = read_frame(given)
    assert len(loaded.texts) == 4
    assert loaded.duplicates[["row", "level", "kept", "conflicting_gold"]].to_numpy().tolist() == [
        [0, "exact", True, True], [1, "exact", True, True], [2, "normalised", True, True],
    ]  # fmt: skip
    assert loaded.record["duplicates"]["groups"] == 1


def read_frame(given: pd.DataFrame, tmp: Path | None = None, **settings: object):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.parquet"
        given.to_parquet(path)
        return read_dataset(DataSettings(source=str(path), **settings))


def test_without_ids_exact_duplicates_collapse_into_the_evaluation_side_with_majority_gold() -> None:
    given = pd.DataFrame(
        {
            "text": ["x y", "x y ", "x y", "tie", "tie\n", "X Y!", "e\u0301", "\u00e9"],
            "gold": ["p", "q", "q", "p", "q", "p", "q", None],
            "split": ["train", "test", "dev", "train", "train", "train", None, "pool"],
        }
    )
    loaded = read_frame(given)
    texts = loaded.texts.set_index("text_id")
    assert texts.loc[text_hash("x y"), ["gold", "split", "copies"]].tolist() == ["q", "test", 3]
    assert texts.loc[text_hash("tie"), ["gold", "split", "copies"]].tolist() == [None, "train", 2]
    assert texts.loc[text_hash("\u00e9"), ["gold", "split", "copies"]].tolist() == ["q", "pool", 2]
    assert texts.loc[text_hash("X Y!"), "copies"] == 1
    facts = loaded.record["duplicates"]
    assert (facts["collapsed_rows"], facts["split_conflicts"], facts["gold_conflicts"], facts["gold_ties"]) == (
        4,
        2,
        2,
        1,
    )
    assert loaded.duplicates.set_index("row")["kept"].to_dict() == {
        0: False, 1: True, 2: False, 3: True, 4: False, 5: True, 6: False, 7: True,
    }  # fmt: skip
    assert loaded.duplicates.set_index("row").loc[5, "level"] == "normalised"


def test_the_order_of_the_rows_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    given = many(60, "abc").drop(columns="text_id")
    given = pd.concat(
        [given, given.head(20).assign(gold="b", note="copy"), given.head(5).assign(text=lambda f: f["text"] + " ")]
    )
    tables = []
    for _ in range(3):
        loaded = read_frame(given.sample(frac=1, random_state=rng.integers(99)).reset_index(drop=True), sample_size=40)
        folds, leaks = make_folds(loaded.texts)
        texts = loaded.texts.sort_values("text_id").reset_index(drop=True)
        tables.append(
            (
                texts,
                folds,
                leaks,
                loaded.duplicates.drop(columns=["row", "kept"]).sort_values(["text_id", "gold"], ignore_index=True),
            )
        )
    for other in tables[1:]:
        for one, two in zip(tables[0], other):
            pd.testing.assert_frame_equal(one, two)


def test_texts_without_words_are_no_normalised_duplicates() -> None:
    loaded = read_frame(pd.DataFrame({"text": ["!!!", "???", "!!! ", "a", "b"]}))
    assert loaded.duplicates["text_id"].tolist() == [text_hash("!!!")] * 2


def test_tables_pass_their_checks(tmp_path: Path) -> None:
    loaded = read_frame(many(40))
    folds, leaks = make_folds(loaded.texts)
    for table, schema in ((loaded.texts, TEXTS), (loaded.duplicates, DUPLICATES), (folds, FOLDS), (leaks, LEAKS)):
        assert list(check(table, schema).columns)[: len(schema.columns)] == list(schema.columns)
    json.dumps(loaded.texts.attrs)
    json.dumps(folds.attrs)


def test_tables_can_be_stored(tmp_path: Path) -> None:
    from consenso.store import RunFolder

    loaded = read_frame(pd.concat([many(40), many(3).assign(text_id=["x", "y", "z"])]))
    folds, leaks = make_folds(loaded.texts)
    assert len(leaks)
    folder = RunFolder(tmp_path / "run")
    for name, table in (("texts", loaded.texts), ("duplicates", loaded.duplicates), ("folds", folds), ("leaks", leaks)):
        folder.write(name, table)
        assert len(folder.read(name)) == len(table)


# empty texts


def test_an_empty_text_is_an_error_unless_asked_to_be_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,gold\na,0\n"  ",1\nb,1\n"",0\n')
    with pytest.raises(DataError, match=r'2 of 4 texts are empty \(the first in data row 2\).*empty_texts = "drop"'):
        load_dataset(path)
    texts = load_dataset(path, empty_texts="drop")
    assert texts["text"].tolist() == ["a", "b"]
    assert texts.attrs["record"]["dropped"] == {"empty text": 2}
    with pytest.raises(DataError, match="all 2 texts are empty"):
        load_dataset(pd.DataFrame({"text": ["", None]}), empty_texts="drop")


def test_duplicates_name_rows_of_the_source_even_after_dropped_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,gold\na,0\n" ",1\nsame,1\nsame,0\n')
    assert read_dataset(DataSettings(source=str(path), empty_texts="drop")).duplicates["row"].tolist() == [2, 3]


# labels


def test_labels_read_from_the_data_are_sorted_numbers_in_numeric_order() -> None:
    texts = load_dataset(many(33).assign(gold=[str(i % 11) for i in range(33)]))
    assert schema_of(texts).names == tuple(str(i) for i in range(11))
    assert texts.attrs["record"]["labels_from"] == "read from the data"
    assert schema_of(load_dataset(frame(gold=[-1, 1, 1]))).id2label == {-1: "-1", 1: "1"}
    assert schema_of(load_dataset(frame(gold=["z", "b", "b"]))).id2label == {0: "b", 1: "z"}
    assert schema_of(load_dataset(frame(gold=["2.0", "1", "10.0"]))).id2label == {1: "1", 2: "2", 10: "10"}


def test_labels_come_from_the_whole_source_not_from_the_sample() -> None:
    texts = load_dataset(many(100).assign(gold=["rare"] + ["a", "b", "c"] * 33), sample_size=6)
    assert schema_of(texts).names == ("a", "b", "c", "rare")
    assert "rare" not in set(texts["gold"])
    assert "no text of the sample has the gold label rare" in texts.attrs["record"]["notes"]


def test_settings_decide_the_labels_and_gold_is_read_by_id_or_name() -> None:
    labels = {"no": "not biased", "yes": "biased"}
    assert load_dataset(frame(), labels=labels)["gold"].tolist() == ["no", "yes", "yes"]
    assert load_dataset(frame(gold=["YES", "no", "no"]), labels=["no", "yes"])["gold"].tolist() == ["yes", "no", "no"]
    texts = load_dataset(frame(gold=[-1, 1, 1]), labels=LabelSchema({1: "up", -1: "down"}))
    assert texts["gold"].tolist() == ["down", "up", "up"]
    assert schema_of(texts).names == ("up", "down")
    assert schema_of(load_dataset(frame(), labels=labels)).descriptions == labels


def test_a_class_without_any_row_stays_in_the_schema() -> None:
    given = frame().assign(gold=pd.Categorical(["hi", "lo", "lo"], categories=["lo", "mid", "hi"], ordered=True))
    texts = load_dataset(given)
    assert schema_of(texts).names == ("lo", "mid", "hi")
    assert texts.attrs["record"]["labels_from"] == "the file's schema"


def test_an_arrow_dictionary_in_parquet_states_the_labels() -> None:
    given = frame().assign(gold=pd.Categorical(["b", "b", "c"], categories=["c", "a", "b"]))
    loaded = read_frame(given)
    assert loaded.labels == LabelSchema.from_names(["c", "a", "b"])
    assert loaded.texts["gold"].tolist() == ["b", "b", "c"]


def test_an_unknown_gold_label_is_listed_with_its_count_and_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"unknown label\(s\) 'postive' \(2 rows\), 'x' \(1 row\); .*Did you mean 'positive'\?"
    ):
        load_dataset(frame(gold=["postive", "x", "postive"]), labels=["negative", "positive"])


@pytest.mark.parametrize(
    "gold",
    [
        [["a", "b"], ["a"], ["b"]], [np.array([0, 1]), np.array([1]), np.array([0])],
        ["a|b", "a", "b"], ["a;b", "b;c", "c;a"], ["['a', 'b']", "a", "b"], ["a, b", "a", "b"],
    ],
)  # fmt: skip
def test_several_labels_in_one_cell_are_refused(gold: list) -> None:
    with pytest.raises(DataError, match="single-label"):
        load_dataset(frame().assign(gold=pd.Series(gold, dtype=object)))


def test_several_known_labels_in_one_cell_are_refused_too() -> None:
    with pytest.raises(DataError, match="single-label"):
        load_dataset(frame(gold=["world/sports", "world", "sports"]), labels=["world", "sports"])


def test_separators_inside_a_label_are_fine() -> None:
    gold = ["Sci/Tech", "Animals|Dog", "Animals|Cat"]
    assert sorted(schema_of(load_dataset(frame(gold=gold))).names) == sorted(gold)


def test_a_column_of_measurements_is_no_label_column() -> None:
    with pytest.raises(DataError, match="do not look like labels"):
        load_dataset(many(300).assign(gold=[str(i) + "x" for i in range(300)]))


def test_no_gold_is_fine_until_labels_are_needed() -> None:
    texts = load_dataset(frame().drop(columns="gold"))
    assert texts["gold"].isna().all()
    assert texts.attrs["record"]["labels_from"] == "unknown"
    with pytest.raises(DataError, match="name the labels"):
        schema_of(texts)
    with pytest.raises(DataError, match="no text has gold"):
        make_folds(texts)
    assert schema_of(load_dataset(frame().drop(columns="gold"), labels=["a", "b"])).names == ("a", "b")


def test_columns_can_be_switched_off() -> None:
    texts = load_dataset(frame(split=["train", "x!", "?"]), columns=ColumnMap(text_id="", split=""))
    assert texts["text_id"].tolist() == [text_hash(text) for text in texts["text"]]
    assert texts["split"].isna().all()


def test_settings_refuse_what_cannot_be_meant() -> None:
    for wrong, says in (
        ({"source": "x", "splt": "train"}, "Did you mean 'split'?"),
        ({"source": "x", "labels": [{"name": "a", "id": 1}, {"name": "b"}]}, "every label an id, or none"),
        ({"source": "x", "labels": [{"name": "a", "id": 1}, {"name": "b", "id": 1}]}, "share an id"),
        ({"source": "x", "split": "a", "combine_splits": ["b"]}, "exclude each other"),
        ({"source": "x", "test_size": 1.0}, "test_size"),
    ):
        with pytest.raises(ConfigError, match=re.escape(says)):
            DataSettings.read(wrong)
    assert DataSettings(
        source="x", labels=[LabelEntry(name="a"), LabelEntry(name="b")]
    ).label_schema() == LabelSchema.from_names("ab")


# samples


def test_largest_remainder_is_exact() -> None:
    assert stratified_counts([50, 30, 20], 10) == [5, 3, 2]
    assert stratified_counts([3, 3, 3], 4) == [2, 1, 1]
    assert stratified_counts([97, 2, 1], 10) == [10, 0, 0]
    assert sum(stratified_counts([7, 11, 13, 1], 17)) == 17


def test_a_stratified_sample_keeps_the_shares_of_split_and_gold() -> None:
    given = many(200).assign(gold=["a"] * 120 + ["b"] * 80, split=(["train"] * 3 + ["test"]) * 50)
    texts = load_dataset(given, sample_size=40)
    assert texts.groupby(["split", "gold"]).size().to_dict() == {
        ("test", "a"): 6, ("test", "b"): 4, ("train", "a"): 18, ("train", "b"): 12,
    }  # fmt: skip
    sampling = texts.attrs["record"]["sampling"]
    assert sampling == {"size": 40, "of": 200, "sampling": "stratified", "seed": 42, "strata": "split × gold"}


def test_samples_depend_on_the_seed_and_on_nothing_else() -> None:
    def ids(given: pd.DataFrame, seed: int, how: str) -> set[str]:
        return set(load_dataset(given, sample_size=30, sampling=how, seed=seed)["text_id"])

    given = many(100)
    for how in ("stratified", "simple"):
        assert ids(given, 1, how) == ids(given[::-1], 1, how)
        assert ids(given, 1, how) != ids(given, 2, how)
        assert len(ids(given, 1, how)) == 30


def test_a_sample_larger_than_the_source_keeps_all_and_says_so() -> None:
    texts = load_dataset(many(10), sample_size=50)
    assert len(texts) == 10
    assert "all were kept" in texts.attrs["record"]["notes"][0]


# splits


def parts(folds: pd.DataFrame) -> dict[str, str]:
    return dict(zip(folds["text_id"], folds["part"]))


def test_folds_are_drawn_stratified_by_gold() -> None:
    folds, leaks = make_folds(many(200).assign(gold=["a"] * 160 + ["b"] * 40))
    assert folds["part"].value_counts().to_dict() == {"train": 136, "test": 40, "dev": 24}
    found = parts(folds)
    rare = [f"t{i}" for i in range(160, 200)]
    assert sum(found[i] == "test" for i in rare) == 8
    assert sum(found[i] == "dev" for i in rare) in {4, 5}
    assert leaks.empty
    assert list(leaks.columns) == list(LEAKS.columns)


def test_given_splits_are_kept_and_pool_and_null_train() -> None:
    split = ["test"] * 20 + ["dev"] * 10 + ["pool"] * 30 + [None] * 20 + ["train"] * 20
    folds, _ = make_folds(many(100).assign(split=split))
    wanted = {f"t{i}": s if s in {"test", "dev"} else "train" for i, s in enumerate(split)}
    assert parts(folds) == wanted
    folds, _ = make_folds(many(100).assign(split=["test"] * 20 + ["pool"] * 80))
    assert folds["part"].value_counts().to_dict() == {"train": 68, "test": 20, "dev": 12}
    assert {i for i, part in parts(folds).items() if part == "test"} == {f"t{i}" for i in range(20)}


@pytest.mark.parametrize("word", ["validation", "VAL", "dev"])
def test_the_usual_words_for_dev_are_known(word: str) -> None:
    assert load_dataset(frame(split=["train", word, "Test"]))["split"].tolist() == ["train", "dev", "test"]


def test_a_group_is_never_divided() -> None:
    rng = np.random.default_rng(1)
    group = [f"doc{rng.integers(30)}" if i < 180 else None for i in range(200)]
    texts = many(200, "abc").assign(group=group)
    folds, leaks = make_folds(texts)
    joined = folds.merge(texts[["text_id", "group", "gold"]], on="text_id").dropna()
    assert (joined.groupby("group")["part"].nunique() == 1).all()
    assert leaks.empty
    counts = folds["part"].value_counts()
    assert 32 <= counts["test"] <= 48
    assert 16 <= counts["dev"] <= 32


def test_groups_are_balanced_by_class() -> None:
    rng = np.random.default_rng(5)
    group = [str(g) for g in rng.integers(0, 60, 600)]
    gold = [("a", "b", "c")[i] for i in rng.choice(3, 600, p=[0.6, 0.3, 0.1])]
    chosen = pick_groups([str(i) for i in range(600)], gold, group, 0.25, (1,))
    shares = pd.Series([str(i) in chosen for i in range(600)]).groupby(gold).mean()
    assert shares.between(0.18, 0.32).all()


def test_one_giant_group_cannot_be_split() -> None:
    with pytest.raises(DataError, match="groups are too large"):
        make_folds(many(20).assign(group="all"))


def test_a_group_across_given_splits_is_a_leak_of_the_train_side() -> None:
    texts = many(30).assign(split=["test"] * 10 + ["dev"] * 5 + ["train"] * 15, group=None)
    texts["group"] = ["g"] * 2 + [None] * 8 + ["g"] + [None] * 4 + ["g"] * 3 + ["h"] * 12
    folds, leaks = make_folds(texts)
    assert set(leaks["text_id"]) == {"t10", "t15", "t16", "t17"}
    assert set(leaks["level"]) == {"group"}
    assert set(leaks["other_part"]) == {"test"}
    assert "t10" not in parts(folds)


def test_rare_classes_are_noted_not_fatal() -> None:
    folds, _ = make_folds(many(50).assign(gold=["a"] * 48 + ["b", "c"]))
    assert any("too rare for the drawn test part: b, c" in note for note in folds.attrs["notes"])
    folds, _ = make_folds(many(40).assign(gold=["a"] * 20 + ["b"] * 20, split=["train"] * 20 + ["test"] * 20))
    assert "tested but without training text: b" in folds.attrs["notes"]


def test_test_texts_need_gold() -> None:
    texts = many(40).assign(split=["test"] * 10 + ["train"] * 30)
    texts.loc[:3, "gold"] = None
    folds, _ = make_folds(texts)
    assert folds["part"].value_counts()["test"] == 6
    assert "4 of 10 test texts have no gold and were left out" in folds.attrs["notes"]
    texts.loc[:9, "gold"] = None
    with pytest.raises(DataError, match="none of the 10 test texts has gold"):
        make_folds(texts)


def test_a_drawn_test_part_has_gold_and_texts_without_gold_train() -> None:
    texts = many(60)
    texts.loc[:29, "gold"] = None
    folds, _ = make_folds(texts)
    tested = {i for i, part in parts(folds).items() if part == "test"}
    assert len(tested) == 6
    assert tested <= {f"t{i}" for i in range(30, 60)}
    assert len(folds) == 60


def test_folds_of_two_texts_say_what_is_missing() -> None:
    with pytest.raises(DataError, match="to draw dev texts from"):
        make_folds(many(2))


# the catalog


def test_the_catalog_knows_all_22_datasets() -> None:
    sizes = dict(zip(list_catalog()["name"], list_catalog()["n_classes"]))
    assert sizes == {
        "agnews": 4, "mpqa": 2, "webkb": 7, "ohsumed": 23, "acm": 11, "yelp_2013": 5, "dblp": 10, "books": 8,
        "reut90": 90, "wos11967": 33, "twitter": 6, "trec": 6, "wos5736": 11, "sst1": 5, "sst2": 2, "pang_movie": 2,
        "movie_review": 2, "vader_movie": 2, "subj": 2, "yelp_reviews": 2, "20ng": 20, "medline": 7,
    }  # fmt: skip
    for name in catalog_names():
        entry = catalog_entry(name)
        assert entry.path.startswith("waashk/")
        assert entry.noun
        assert len(entry.schema()) == entry.n_classes
        assert entry.unverified == (len(entry.labels) < entry.n_classes)


def test_names_that_our_source_does_not_spell_out_stay_absent() -> None:
    unverified = set(list_catalog().query("unverified")["name"])
    assert unverified == {"twitter", "medline", "reut90", "ohsumed", "wos11967", "20ng"}
    assert catalog_entry("twitter").labels == {}
    assert catalog_entry("twitter").schema().id2label == {i: str(i) for i in range(6)}
    assert catalog_entry("ohsumed").schema().id2label[22] == "Pathological Conditions, Signs and Symptoms"
    assert catalog_entry("ohsumed").schema().id2label[1] == "1"


def test_catalog_spellings() -> None:
    assert catalog_entry("agnews").labels == {0: "world", 1: "sports", 2: "business", 3: "Sci/Tech"}
    assert catalog_entry("books").labels[4] == "crime & mystery thriller"
    assert catalog_entry("sst1").schema().names == ("very negative", "negative", "neutral", "positive", "very positive")
    assert catalog_entry("waashk/pang_movie_2L").name == "pang_movie"
    with pytest.raises(ConfigError, match=r"Did you mean 'agnews'\?"):
        catalog_entry("ag_news")
    with pytest.raises(DataError, match=r"no dataset of the catalog\. Did you mean 'agnews'\?"):
        load_dataset("agnewz")


# folders and the Hub


@pytest.fixture
def hf():
    return pytest.importorskip("datasets")


def hf_dataset(hf, n: int = 4):
    features = hf.Features({"text": hf.Value("string"), "label": hf.ClassLabel(names=["neg", "pos", "odd"])})
    return hf.Dataset.from_dict(
        {"text": [f"text {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}, features=features
    )


def test_a_dataset_object_states_its_labels(hf) -> None:
    texts = load_dataset(hf_dataset(hf))
    assert schema_of(texts).names == ("neg", "pos", "odd")
    assert texts["gold"].tolist() == ["neg", "pos", "neg", "pos"]
    assert texts.attrs["record"]["labels_from"] == "the file's schema"


def test_given_names_win_over_class_label_names_but_never_swap_them(hf) -> None:
    assert load_dataset(hf_dataset(hf), labels=["pos", "neg"])["gold"].tolist() == ["neg", "pos", "neg", "pos"]
    assert load_dataset(hf_dataset(hf), labels=["bad", "good"])["gold"].tolist() == ["bad", "good", "bad", "good"]


def test_minus_one_of_a_class_label_is_no_gold(hf) -> None:
    features = hf.Features({"text": hf.Value("string"), "label": hf.ClassLabel(names=["neg", "pos"])})
    dataset = hf.Dataset.from_dict({"text": ["a", "b"], "label": [-1, 1]}, features=features)
    assert load_dataset(dataset)["gold"].tolist() == [None, "pos"]


def test_a_saved_folder_and_a_parquet_file_of_datasets_read_alike(hf, tmp_path: Path) -> None:
    dataset = hf_dataset(hf)
    dataset.save_to_disk(str(tmp_path / "saved"))
    dataset.to_parquet(str(tmp_path / "d.parquet"))
    for source in (tmp_path / "saved", tmp_path / "d.parquet"):
        texts = load_dataset(source)
        assert texts["gold"].tolist() == ["neg", "pos", "neg", "pos"]
        assert schema_of(texts).names == ("neg", "pos", "odd")


def splits(hf):
    whole = hf_dataset(hf, 10)
    return hf.DatasetDict(
        {
            "train": whole.select(range(4)), "validation": whole.select(range(4, 6)),
            "test": whole.select(range(6, 9)), "unsupervised": whole.select([9]),
        }
    )  # fmt: skip


def test_all_splits_of_a_dataset_dict_are_read_with_their_names(hf, tmp_path: Path) -> None:
    splits(hf).save_to_disk(str(tmp_path / "saved"))
    texts = load_dataset(tmp_path / "saved")
    assert texts["split"].fillna("-").value_counts().to_dict() == {"train": 4, "test": 3, "dev": 2, "-": 1}
    assert "split 'unsupervised' is neither" in texts.attrs["record"]["notes"][0]
    assert len(load_dataset(splits(hf), combine_splits=["train", "test"])) == 7


def test_one_chosen_split_is_split_anew(hf) -> None:
    texts = load_dataset(splits(hf), split="test")
    assert len(texts) == 3
    assert texts["split"].isna().all()
    assert texts.attrs["record"]["dropped"] == {"other split": 7}


def test_an_unavailable_split_names_the_available_ones(hf) -> None:
    with pytest.raises(DataError, match=r"no split 'dev'; available: train, validation, test, unsupervised"):
        load_dataset(splits(hf), split="dev")
    with pytest.raises(DataError, match="available: train, validation"):
        load_dataset(splits(hf), combine_splits=["train", "tset"])
    with pytest.raises(DataError, match="has no splits"):
        load_dataset(frame(), split="train")


def test_a_local_copy_of_a_hub_repository_is_read_by_its_splits(
    hf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo").mkdir()
    for name, dataset in splits(hf).items():
        if name != "unsupervised":
            dataset.to_parquet(str(tmp_path / "repo" / f"{name}-00000-of-00001.parquet"))
    texts = load_dataset(tmp_path / "repo")
    assert texts["split"].value_counts().to_dict() == {"train": 4, "test": 3, "dev": 2}
    one = load_dataset(tmp_path / "repo", hf_file="test-00000-of-00001.parquet")
    assert len(one) == 3
    with pytest.raises(DataError, match=r"has no file 'test\.parquet'"):
        load_dataset(tmp_path / "repo", hf_file="test.parquet")


def test_a_folder_without_a_dataset_lists_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "text\na\n")
    with pytest.raises(DataError, match=r"name one file of it\. Found: train\.csv"):
        load_dataset(tmp_path)


def test_a_catalog_dataset_reads_its_one_file_and_knows_its_labels(
    hf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"text": ["a", "b", "c"], "label": [3, 0, 0]}).to_parquet(tmp_path / "data.parquet")
    asked = []

    def download(path: str, file: str, revision: str | None) -> str:
        asked.append((path, file, revision))
        return str(tmp_path / "data.parquet")

    monkeypatch.setattr("consenso.data.hub._download", download)
    loaded = read_dataset(DataSettings(source="agnews", revision="v1"))
    assert asked == [("waashk/agnews", "data.parquet", "v1")]
    assert loaded.texts["gold"].tolist() == ["Sci/Tech", "world", "world"]
    assert loaded.labels == catalog_entry("agnews").schema()
    assert (loaded.record["noun"], loaded.record["labels_from"]) == ("News Article", "catalog")
    loaded = read_dataset(DataSettings(source="twitter", hf_file="train_fold_0.parquet"))
    assert asked[-1] == ("waashk/twitter", "train_fold_0.parquet", None)
    assert loaded.labels is not None
    assert loaded.labels.names == ("0", "1", "2", "3", "4", "5")
    assert loaded.record["unverified"]


def test_a_path_is_never_a_name_of_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trec").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in (Path("trec"), "./trec"):
        with pytest.raises(DataError, match="is a folder, not a dataset"):
            load_dataset(source)


def test_a_hub_id_asks_for_all_splits(hf, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("consenso.data.hub._load", lambda *arguments: asked.append(arguments) or splits(hf))
    assert len(load_dataset("owner/name:plain", combine_splits=["train", "validation"], revision="abc")) == 6
    assert asked == [("owner/name", "plain", "abc")]


def test_hub_failures_are_one_line(hf, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    for raised, says in (
        (ConnectionError("Couldn't reach\nanything"), "cannot reach the Hugging Face Hub"),
        (DatasetNotFoundError("no"), "no Hub dataset 'owner/name'"),
        (ValueError("Config name is missing"), "cannot be read (Config name is missing)"),
    ):

        def fail(*_: object, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr("consenso.data.hub._load", fail)
        with pytest.raises(DataError, match=re.escape(says)) as caught:
            load_dataset("owner/name")
        assert "\n" not in str(caught.value)


# the shared data


def test_babe_reads_with_names_and_reports_its_duplicates() -> None:
    labels = [LabelEntry(id=0, name="non-biased"), LabelEntry(id=1, name="biased")]
    loaded = read_dataset(DataSettings(source=str(shared("babe_llm", "items.csv.gz")), labels=labels))
    assert loaded.texts.groupby("split")["gold"].value_counts().to_dict() == {
        ("pool", "biased"): 1687, ("pool", "non-biased"): 1334, ("test", "biased"): 559, ("test", "non-biased"): 441,
    }  # fmt: skip
    folds, leaks = make_folds(loaded.texts)
    assert folds["part"].value_counts()["test"] == 1000
    assert leaks["other_id"].nunique() == 2
    assert set(leaks["other_part"]) == {"test"}


def test_weather_has_one_group_with_conflicting_gold() -> None:
    loaded = read_dataset(DataSettings(source=str(shared("weather_crowd", "items.csv.gz"))))
    assert loaded.record["duplicates"]["groups_with_conflicting_gold"] == 1
    assert loaded.duplicates["level"].value_counts().to_dict() == {"exact": 2, "normalised": 2}


def test_labels_that_differ_only_in_case_are_not_guessed_to_be_two(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "text,gold\none,Good\ntwo,good\nthree,bad\n")
    with pytest.raises(DataError, match="'Good' and 'good' differ only in case"):
        load_dataset(path)
    assert load_dataset(path, labels=["Good", "good", "bad"])["gold"].tolist().count("Good") == 1


# ids that somebody gave


@pytest.mark.parametrize(
    ("gold", "labels", "given"),
    [
        (["yes", "no"], None, False),  # names alone: their order is ours
        (["yes", "no"], [{"name": "no"}, {"name": "yes"}], False),
        (["yes", "no"], [{"name": "no", "id": 0}, {"name": "yes", "id": 1}], True),
        ([0, 1], None, True),  # the numbers are the labels
        ([0, 1], [{"name": "no"}, {"name": "yes"}], True),  # gold is numbered, so votes may be
    ],
)
def test_labels_know_whether_the_data_or_the_user_gave_their_ids(gold, labels, given, tmp_path):
    pd.DataFrame({"text": ["one", "two"], "gold": gold}).to_csv(tmp_path / "t.csv", index=False)
    loaded = read_dataset(DataSettings.read({"source": str(tmp_path / "t.csv"), "labels": labels or []}))
    assert loaded.labels.ids_given is given
    assert loaded.record["ids_given"] is given
    assert schema_of(loaded.texts).ids_given is given
