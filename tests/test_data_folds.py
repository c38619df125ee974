"""Folds: drawn k times, read from a column, read from a folder, given as a table."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.data import DataSettings, Folds, Loaded, find_leaks, load_dataset, make_folds, read_dataset
from consenso.data import leakage as leakage_module
from consenso.data.splitting import deal, deal_groups
from consenso.errors import ConfigError, DataError
from consenso.tables import FOLDS, LEAKS, check
from making import shared


def many(n: int = 100, classes: str = "ab", **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) for _ in range(6 * n)]
    texts = [" ".join(words[6 * i : 6 * i + 6]) for i in range(n)]
    gold = [classes[i % len(classes)] for i in range(n)]
    return pd.DataFrame({"text_id": [f"t{i}" for i in range(n)], "text": texts, "gold": gold} | columns)


def members(folds: pd.DataFrame, part: str) -> dict[int, set]:
    return {fold: set(mine.loc[mine["part"] == part, "text_id"]) for fold, mine in folds.groupby("fold")}


def part_of(folds: pd.DataFrame, fold: int, text_id: object) -> str | None:
    found = folds.loc[(folds["fold"] == fold) & (folds["text_id"] == text_id), "part"].tolist()
    return found[0] if found else None


# k-fold


def test_test_folds_are_disjoint_and_together_all_texts_with_gold() -> None:
    texts = many(103, "aab").assign(gold=lambda t: t["gold"].where(t.index % 10 > 0, None))
    folds, leaks = make_folds(texts, folds=5)
    tested = members(folds, "test")
    assert sorted(tested) == [0, 1, 2, 3, 4]
    assert sum(map(len, tested.values())) == len(set.union(*tested.values()))
    assert set.union(*tested.values()) == set(texts.loc[texts["gold"].notna(), "text_id"])
    assert max(map(len, tested.values())) - min(map(len, tested.values())) <= 1
    for _, mine in folds.groupby("fold"):
        assert set(mine["text_id"]) == set(texts["text_id"])  # whoever is not tested trains or chooses the state
    assert "11 texts have no gold and are never tested" in folds.attrs["notes"]
    assert len(leaks) == 0
    check(folds, FOLDS)


def test_test_and_dev_folds_are_stratified_by_gold() -> None:
    texts = many(211).assign(gold=["a"] * 131 + ["b"] * 57 + ["c"] * 23)
    gold = dict(zip(texts["text_id"], texts["gold"]))
    folds, _ = make_folds(texts, folds=4, dev_size=0.2)
    counts = [Counter(gold[i] for i in ids) for ids in members(folds, "test").values()]
    for label, total in Counter(gold.values()).items():
        assert all(abs(count[label] - total / 4) < 1 for count in counts)
    for fold, ids in members(folds, "dev").items():
        rest = Counter(gold[i] for i in ids | members(folds, "train")[fold])
        found = Counter(gold[i] for i in ids)
        assert all(abs(found[label] - 0.2 * rest[label]) <= 1 for label in rest)


def test_every_fold_draws_its_own_dev_texts_from_those_it_does_not_test() -> None:
    folds, _ = make_folds(many(200), folds=5)
    dev, test = members(folds, "dev"), members(folds, "test")
    assert [len(ids) for ids in dev.values()] == [24] * 5  # .15 of 160
    assert all(not dev[fold] & test[fold] for fold in dev)
    assert len({frozenset(ids) for ids in dev.values()}) == 5


def grouped(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    group = [f"g{g}" if g < 25 else None for g in rng.integers(0, 40, n)]
    return many(n, "aabc").assign(group=group)


def test_groups_stay_whole_in_every_fold() -> None:
    texts = grouped()
    folds, leaks = make_folds(texts, folds=4)
    joined = folds.merge(texts[["text_id", "group"]], on="text_id").dropna(subset=["group"])
    assert (joined.groupby(["fold", "group"])["part"].nunique() == 1).all()
    tested = members(folds, "test")
    assert sum(map(len, tested.values())) == len(texts) == len(set.union(*tested.values()))
    assert len(leaks) == 0
    gold = dict(zip(texts["text_id"], texts["gold"]))
    for label, total in Counter(gold.values()).items():  # groups of 3 on average
        assert all(abs(sum(gold[i] == label for i in ids) - total / 4) <= 2 for ids in tested.values())


def test_an_odd_text_without_gold_does_not_train_where_its_group_is_tested() -> None:
    texts = grouped().assign(gold=lambda t: t["gold"].where(t.index % 7 > 0, None))
    folds, leaks = make_folds(texts, folds=4)
    joined = folds.merge(texts[["text_id", "group"]], on="text_id").dropna(subset=["group"])
    assert (joined.groupby(["fold", "group"])["part"].agg(lambda parts: set(parts) >= {"test", "train"}) == 0).all()
    assert set(leaks["level"]) == {"group"}


@pytest.mark.parametrize("ids", [lambda n: [f"t{i}" for i in range(n)], lambda n: list(range(1000, 1000 + n))])
@pytest.mark.parametrize("make", [many, grouped])
def test_the_order_of_the_rows_does_not_matter(ids: object, make: object) -> None:
    texts = make(120)
    texts = texts.assign(text_id=ids(120))
    one = make_folds(texts, folds=5, seed=3)
    for other in (texts[::-1], texts.sample(frac=1, random_state=1)):
        pd.testing.assert_frame_equal(one.folds, make_folds(other, folds=5, seed=3).folds)
    assert one.folds["text_id"].map(type).eq(type(ids(1)[0])).all()
    assert members(one.folds, "test") != members(make_folds(texts, folds=5, seed=4).folds, "test")


def test_one_fold_is_what_it_was_before_there_were_several() -> None:
    texts = many(50)
    pd.testing.assert_frame_equal(make_folds(texts).folds, make_folds(texts, folds=1).folds)
    assert set(make_folds(texts).folds["fold"]) == {0}


def test_a_class_too_rare_for_k_folds_is_noted() -> None:
    texts = many(60).assign(gold=["a"] * 57 + ["b", "b", "c"])
    folds, _ = make_folds(texts, folds=5)
    notes = folds.attrs["notes"]
    assert "too rare for every test fold: b (in 2 of 5), c (in 1 of 5)" in notes
    alone = next(fold for fold, ids in members(folds, "test").items() if "t59" in ids)
    assert f"fold {alone}: tested but without training text: c" in notes


def test_folds_and_a_given_test_split_exclude_each_other() -> None:
    texts = many(40, split=["test"] * 10 + ["train"] * 30)
    with pytest.raises(ConfigError, match=r"folds = 5.*test split \(10 texts\): either k-fold or"):
        make_folds(texts, folds=5)


def test_a_given_dev_split_is_dev_in_every_fold() -> None:
    folds, _ = make_folds(many(60, split=["dev"] * 12 + ["pool"] * 48), folds=4)
    dev = {f"t{i}" for i in range(12)}
    assert all(ids == dev for ids in members(folds, "dev").values())
    assert set.union(*members(folds, "test").values()) == {f"t{i}" for i in range(12, 60)}
    assert any("12 texts of the given dev split" in note for note in folds.attrs["notes"])


@pytest.mark.parametrize(
    ("texts", "options", "error", "said"),
    [
        (many(6), {"folds": 7}, DataError, "6 text(s) with gold to test"),
        (many(9).assign(group=list("aaabbbccc")), {"folds": 4}, DataError, "3 group(s) to test"),
        (many(9), {"folds": 51}, ConfigError, "between 1 and 50; found 51"),
        (many(9), {"folds": 0}, ConfigError, "between 1 and 50; found 0"),
        (many(9).assign(gold=None), {"folds": 3}, DataError, "no text has gold"),
        (many(2), {"folds": 2}, DataError, "fold 0: 1 text(s) to draw dev texts from"),
    ],
)
def test_what_cannot_be_folded_is_refused(texts: pd.DataFrame, options: dict, error: type, said: str) -> None:
    with pytest.raises(error) as raised:
        make_folds(texts, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_dealing_differs_by_at_most_one_per_stratum_and_fills_every_fold() -> None:
    rng = np.random.default_rng(0)
    for n, k in ((10, 10), (57, 4), (500, 7)):
        strata = rng.choice(list("abcde"), n, p=[0.5, 0.25, 0.15, 0.08, 0.02]).tolist()
        ids = [f"i{i}" for i in range(n)]
        fold_of = deal(ids, strata, k, (1,))
        table = pd.crosstab(pd.Series(strata), pd.Series([fold_of[i] for i in ids])).reindex(columns=range(k)).fillna(0)
        assert (table.max(axis=1) - table.min(axis=1)).max() <= 1
        assert table.sum().max() - table.sum().min() <= 1
        alone = deal_groups(ids, strata, ids, k, (1,))  # groups of one text
        assert set(alone.values()) == set(range(k))


# leaks, fold by fold


def test_a_train_text_is_removed_only_in_the_fold_that_tests_its_twin() -> None:
    texts = many(40)
    texts.loc[20, "text"] = texts.loc[0, "text"].upper() + " !"  # t20 repeats t0
    texts.loc[21, "text"] = texts.loc[1, "text"] + " indeed"  # t21 is near t1
    fold_of = pd.Series([i % 4 for i in range(40)])
    fold_of[20], fold_of[21] = 3, 2
    given = pd.concat(
        [
            pd.DataFrame({"fold": k, "text_id": texts["text_id"], "part": np.where(fold_of == k, "test", "train")})
            for k in range(4)
        ]
    )
    folds, leaks = make_folds(texts, given=given)
    assert [part_of(folds, k, "t20") for k in (0, 3)] == [None, "test"]
    assert [part_of(folds, k, "t0") for k in (0, 3)] == ["test", None]
    assert [part_of(folds, k, "t21") for k in (1, 2)] == [None, "test"]
    for k in (1, 2):  # where neither is tested, dev gives way to nobody but train to dev
        assert {part_of(folds, k, "t0"), part_of(folds, k, "t20")} <= {"train", "dev", None}
    tested = leaks[leaks["other_part"] == "test"].sort_values("fold")
    assert tested[["fold", "text_id", "other_id", "level"]].to_numpy().tolist() == [
        [0, "t20", "t0", "normalised"], [1, "t21", "t1", "near"], [2, "t1", "t21", "near"], [3, "t0", "t20", "normalised"],
    ]  # fmt: skip
    assert find_leaks(texts, folds).empty
    check(leaks, LEAKS)


def twins(n: int = 150) -> pd.DataFrame:
    """Texts of which a third repeats another exactly, in other letters or in all words but one."""
    texts = many(n)
    rng = np.random.default_rng(8)
    for i in range(0, n, 3):
        other = texts.loc[int(rng.integers(n)), "text"]
        texts.loc[i, "text"] = (other, other.title() + "?", other + " extra")[i % 9 // 3]
    return texts


@pytest.mark.parametrize("level", ["exact", "normalised", "near", "off"])
def test_one_search_for_all_folds_finds_what_a_search_per_fold_finds(level: str) -> None:
    texts = twins()
    unguarded = make_folds(texts, folds=5, leakage="off").folds
    together = find_leaks(texts, unguarded, level=level)
    apart = [
        find_leaks(texts, mine[["text_id", "part"]], level=level).assign(fold=fold)
        for fold, mine in unguarded.groupby("fold")
    ]
    pd.testing.assert_frame_equal(together, pd.concat(apart, ignore_index=True), check_dtype=False)
    assert together.attrs["pairs"] == sum(leaks.attrs["pairs"] for leaks in apart)
    assert together["fold"].nunique() == (0 if level == "off" else 5)


def test_too_many_near_pairs_are_searched_fold_by_fold_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from consenso.data import near

    texts = many(60).assign(text=[f"the very same sentence again and again, number {i}" for i in range(60)])
    unguarded = make_folds(texts, folds=3, leakage="off").folds
    whole = find_leaks(texts, unguarded)
    monkeypatch.setattr(near, "GRAPH_PAIRS", 10)
    assert near.near_graph(["the very same sentence one", "the very same sentence two"], 0.5, "auto") is not None
    calls = []
    search = leakage_module.near_keys
    monkeypatch.setattr(leakage_module, "near_keys", lambda *args: calls.append(1) or search(*args))
    pd.testing.assert_frame_equal(whole, find_leaks(texts, unguarded))
    assert len(calls) == 6  # 3 folds, dev and train
    assert len(whole) > 100


@pytest.mark.parametrize("search", ["product", "minhash"])
def test_both_searches_serve_all_folds(search: str) -> None:
    texts = twins()
    unguarded = make_folds(texts, folds=3, leakage="off").folds
    pd.testing.assert_frame_equal(find_leaks(texts, unguarded, search=search), find_leaks(texts, unguarded))


def test_the_guard_leaves_every_test_fold_whole_and_nothing_leaking() -> None:
    texts = twins(200)
    folds, leaks = make_folds(texts, folds=5)
    assert sum(map(len, members(folds, "test").values())) == 200
    assert find_leaks(texts, folds).empty
    assert len(leaks) > 20
    assert not set(zip(leaks["fold"], leaks["text_id"])) & set(zip(folds["fold"], folds["text_id"]))
    assert any("train text(s) removed, in 5 folds together" in note for note in folds.attrs["notes"])


# a column of fold numbers


def read(folder: Path, frame: pd.DataFrame, **settings: object) -> Loaded:
    frame.to_csv(folder / "d.csv", index=False)
    return read_dataset(DataSettings.read({"source": str(folder / "d.csv"), **settings}, "data"))


def folds_of(loaded: Loaded, **options: object) -> Folds:
    return make_folds(loaded.texts, given=loaded.folds, **options)


def test_a_column_of_fold_numbers_says_where_a_text_is_tested(tmp_path: Path) -> None:
    number = [str(i % 3) if i < 45 else "" for i in range(50)]
    loaded = read(tmp_path, many(50).assign(test_in=number), columns={"fold": "test_in"})
    folds, _ = folds_of(loaded)
    assert members(folds, "test") == {k: {f"t{i}" for i in range(k, 45, 3)} for k in range(3)}
    assert all(part_of(folds, k, "t47") in {"train", "dev"} for k in range(3))
    assert part_of(folds, 1, "t0") in {"train", "dev"}
    assert "test_in" not in loaded.texts
    assert loaded.record["folds"] == {"column": "test_in", "number": 3}
    json.dumps(loaded.record)
    check(loaded.folds, FOLDS)


def test_a_column_called_fold_means_nothing_unless_it_is_named(tmp_path: Path) -> None:
    frame = many(30).assign(fold=[i % 3 for i in range(30)])
    assert read(tmp_path, frame).folds is None
    named = read(tmp_path, frame, columns={"fold": "fold"})
    assert set(named.folds["fold"]) == {0, 1, 2}
    pd.testing.assert_frame_equal(
        named.folds, read(tmp_path, frame.astype({"fold": float}), columns={"fold": "fold"}).folds
    )


def test_dev_texts_of_the_source_are_dev_in_every_given_fold(tmp_path: Path) -> None:
    frame = many(40).assign(fold=[""] * 10 + [i % 3 for i in range(30)], split=["dev"] * 10 + ["train"] * 30)
    folds, _ = folds_of(read(tmp_path, frame, columns={"fold": "fold"}))
    assert all(ids == {f"t{i}" for i in range(10)} for ids in members(folds, "dev").values())


@pytest.mark.parametrize(
    ("columns", "error", "said"),
    [
        ({"fold": [0, 1, 3] * 10}, DataError, "column 'fold': fold 2 is missing; found 0, 1, 3"),
        ({"fold": [1, 2, 3] * 10}, DataError, "fold 0 is missing; found 1, 2, 3"),
        ({"fold": ["a", "b", "c"] * 10}, DataError, "found 'a'; fold numbers are whole numbers from 0"),
        ({"fold": [0.5, 1, 2] * 10}, DataError, "found '0.5'"),
        ({"fold": [-1, 1, 0] * 10}, DataError, "found '-1'"),
        ({"fold": [""] * 30}, DataError, "no fold is given"),
        ({"fold": [0, 1, 2] * 10, "split": ["test", "train", "train"] * 10}, ConfigError, "either fold numbers or"),
        ({"fold": [0, 1, 2] * 10, "split": ["dev", "train", "train"] * 10}, DataError, "dev split has a fold number"),
    ],
)
def test_fold_numbers_that_make_no_folds_are_refused(tmp_path: Path, columns: dict, error: type, said: str) -> None:
    with pytest.raises(error) as raised:
        read(tmp_path, many(30).assign(**columns), columns={"fold": "fold"})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_fold_numbers_and_drawn_folds_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either one or the other"):
        read(tmp_path, many(30).assign(fold=[0, 1] * 15), columns={"fold": "fold"}, folds=5)
    loaded = read(tmp_path, many(30).assign(fold=[0, 1] * 15), columns={"fold": "fold"})
    with pytest.raises(ConfigError, match="either draw folds or give them"):
        folds_of(loaded, folds=2)


# a folder of folds


WRITERS = {
    "csv": lambda f, p: f.to_csv(p, index=False),
    "csv.gz": lambda f, p: f.to_csv(p, index=False),
    "jsonl": lambda f, p: p.write_text("\n".join(json.dumps(row) for row in f.to_dict("records"))),
    "jsonl.gz": lambda f, p: p.write_bytes(
        gzip.compress("\n".join(json.dumps(row) for row in f.to_dict("records")).encode())
    ),
    "parquet": lambda f, p: f.to_parquet(p, index=False),
}


def write_folds(folder: Path, texts: pd.DataFrame, k: int = 3, suffix: str = "csv", **more: pd.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    for fold in range(k):
        tested = texts.index % k == fold
        WRITERS[suffix](texts[tested], folder / f"test_fold_{fold}.{suffix}")
        WRITERS[suffix](texts[~tested], folder / f"train_fold_{fold}.{suffix}")
    for name, frame in more.items():
        WRITERS[suffix](frame, folder / f"{name}.{suffix}")
    return folder


def loaded_from(folder: Path, **settings: object) -> Loaded:
    return read_dataset(DataSettings.read({"source": str(folder), **settings}, "data"))


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_a_folder_of_folds_is_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    texts = many(60)
    loaded = loaded_from(write_folds(tmp_path / "d", texts, suffix=suffix))
    assert set(loaded.texts["text_id"]) == set(texts["text_id"])
    folds, leaks = folds_of(loaded)
    assert members(folds, "test") == {k: {f"t{i}" for i in range(k, 60, 3)} for k in range(3)}
    assert all(len(ids) == 6 for ids in members(folds, "dev").values())  # .15 of 40
    assert len(leaks) == 0
    assert loaded.record["kind"] == "folds"
    assert loaded.record["folds"] == {"files": 6, "number": 3}
    assert loaded.record["files"][f"train_fold_0.{suffix}"]["rows"] == 40
    assert len(loaded.duplicates) == 0
    json.dumps(loaded.record)


def test_folders_that_datasets_saved_are_read_as_folds(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    texts = many(30).assign(gold=[i % 2 for i in range(30)])
    features = datasets.Features(
        {"text_id": datasets.Value("string"), "text": datasets.Value("string"),
         "gold": datasets.ClassLabel(names=["no", "yes"])}
    )  # fmt: skip
    for fold in range(2):
        for part, mine in (("test", texts.index % 2 == fold), ("train", texts.index % 2 != fold)):
            frame = datasets.Dataset.from_pandas(texts[mine].reset_index(drop=True), features=features)
            frame.save_to_disk(str(tmp_path / f"{part}_fold_{fold}"))
    loaded = loaded_from(tmp_path)
    assert loaded.labels.names == ("no", "yes")
    assert dict(zip(loaded.texts["text_id"], loaded.texts["gold"]))["t1"] == "yes"
    assert members(loaded.folds, "test") == {k: {f"t{i}" for i in range(k, 30, 2)} for k in range(2)}


@pytest.mark.parametrize("ids", ["text", "integer", "hash"])
def test_texts_of_several_files_are_one_text(tmp_path: Path, ids: str) -> None:
    texts = many(30)
    if ids == "integer":
        texts["text_id"] = range(100, 130)
    if ids == "hash":
        texts = texts.drop(columns="text_id")
    loaded = loaded_from(write_folds(tmp_path / "d", texts, suffix="parquet"))
    assert len(loaded.texts) == 30
    assert loaded.texts["copies"].tolist() == [1] * 30
    assert loaded.record["dropped"] == {"also in another fold file": 60}
    folds, _ = folds_of(loaded)
    assert set(folds["text_id"]) == set(loaded.texts["text_id"])
    assert folds["text_id"].map(type).eq(int if ids == "integer" else str).all()
    assert sorted(loaded.texts["text"]) == sorted(texts["text"])


def test_copies_within_a_file_count_as_copies(tmp_path: Path) -> None:
    texts = many(30).drop(columns="text_id")
    texts.loc[9, "text"] = texts.loc[3, "text"]  # both tested in fold 0, and both of class b
    loaded = loaded_from(write_folds(tmp_path / "d", texts))
    assert len(loaded.texts) == 29
    assert loaded.texts.set_index("text")["copies"][texts.loc[3, "text"]] == 2
    assert len(loaded.duplicates) == 2


def test_a_text_that_a_fold_leaves_out_is_not_used_there(tmp_path: Path) -> None:
    texts = many(40)
    folder = write_folds(tmp_path / "d", texts)
    train = pd.read_csv(folder / "train_fold_1.csv")
    train[train["text_id"] != "t0"].to_csv(folder / "train_fold_1.csv", index=False)
    folds, _ = folds_of(loaded_from(folder))
    assert [part_of(folds, k, "t0") is None for k in range(3)] == [False, True, False]


def test_dev_files_are_the_dev_texts(tmp_path: Path) -> None:
    texts = many(60)
    extra = {f"dev_fold_{k}": texts[(texts.index % 3 != k) & (texts.index < 12)] for k in range(3)}
    folder = write_folds(tmp_path / "d", texts, **extra)
    for k in range(3):
        train = pd.read_csv(folder / f"train_fold_{k}.csv")
        train[~train["text_id"].isin(extra[f"dev_fold_{k}"]["text_id"])].to_csv(
            folder / f"train_fold_{k}.csv", index=False
        )
    folds, _ = folds_of(loaded_from(folder))
    assert members(folds, "dev") == {k: set(extra[f"dev_fold_{k}"]["text_id"]) for k in range(3)}
    (folder / "dev_fold_1.csv").unlink()
    with pytest.raises(DataError, match="dev_fold_1 is missing"):
        loaded_from(folder)


def test_a_text_in_train_and_test_of_one_fold_stays_in_test(tmp_path: Path) -> None:
    texts = many(30)
    folder = write_folds(tmp_path / "d", texts)
    texts.to_csv(folder / "train_fold_1.csv", index=False)
    loaded = loaded_from(folder)
    assert any("10 text(s) stand in two parts of one fold (1 fold(s))" in note for note in loaded.record["notes"])
    folds, _ = folds_of(loaded)
    assert members(folds, "test")[1] == {f"t{i}" for i in range(1, 30, 3)}
    assert not members(folds, "test")[1] & members(folds, "train")[1]


@pytest.mark.parametrize("name", ["train_fold_2", "test_fold_1", "train_fold_0"])
def test_a_missing_fold_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_folds(tmp_path / "d", many(40), k=4)
    (folder / f"{name}.csv").unlink()
    with pytest.raises(DataError) as raised:
        loaded_from(folder)
    assert f"{name} is missing" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_gap_in_the_numbers_is_named(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "d", many(40), k=4)
    for part in ("train", "test"):
        (folder / f"{part}_fold_2.csv").unlink()
    with pytest.raises(DataError, match="train_fold_2 is missing; the last fold is 3"):
        loaded_from(folder)


def test_two_files_for_one_part_are_refused(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "d", many(30), train_fold_1=many(3))
    (folder / "train_fold_01.csv").write_bytes((folder / "train_fold_1.csv").read_bytes())
    with pytest.raises(DataError, match=r"train_fold_01.csv and train_fold_1.csv are both train of fold 1"):
        loaded_from(folder)


@pytest.mark.parametrize("ids", [True, False])
def test_gold_that_differs_between_files_is_refused_and_the_text_named(tmp_path: Path, ids: bool) -> None:
    texts = many(30)
    folder = write_folds(tmp_path / "d", texts if ids else texts.drop(columns="text_id"))
    test = pd.read_csv(folder / "test_fold_1.csv")
    test.loc[0, "gold"] = "a"  # t1 is b elsewhere
    test.to_csv(folder / "test_fold_1.csv", index=False)
    with pytest.raises(DataError) as raised:
        loaded_from(folder)
    said = str(raised.value)
    assert said.startswith("gold differs between fold files for 1 text(s): ")
    assert texts.loc[1, "text"][:60] in said
    assert "'b' in train_fold_0.csv but 'a' in test_fold_1.csv" in said
    assert "\n" not in said


def test_gold_may_be_missing_from_some_files(tmp_path: Path) -> None:
    texts = many(30)
    folder = write_folds(tmp_path / "d", texts)
    pd.read_csv(folder / "train_fold_0.csv").assign(gold="").to_csv(folder / "train_fold_0.csv", index=False)
    loaded = loaded_from(folder)
    assert dict(zip(loaded.texts["text_id"], loaded.texts["gold"])) == dict(zip(texts["text_id"], texts["gold"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(text="other words " + f["text"]), "of 'text_id' stands for different texts, in "),
        (lambda f: f.drop(columns="gold"), "test_fold_1.csv: missing column 'gold' (for gold), which other folds have"),
        (lambda f: pd.concat([f, f]), "duplicate id: 10 id(s) of 'text_id' stand more than once"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path: Path, change: object, said: str) -> None:
    folder = write_folds(tmp_path / "d", many(30))
    change(pd.read_csv(folder / "test_fold_1.csv")).to_csv(folder / "test_fold_1.csv", index=False)
    with pytest.raises(DataError) as raised:
        loaded_from(folder)
    assert said in str(raised.value)


def test_the_whole_set_beside_the_folds_is_left_alone(tmp_path: Path) -> None:
    texts = many(30)
    folder = write_folds(tmp_path / "d", texts, data=many(50))
    loaded = loaded_from(folder)
    assert len(loaded.texts) == 30
    assert "not read, for it is no fold: data.csv" in loaded.record["notes"]
    assert len(load_dataset(folder, hf_file="data.csv")) == 50
    with pytest.raises(DataError, match="has no splits"):
        loaded_from(folder, split="train")


def test_a_sample_of_given_folds_keeps_their_parts(tmp_path: Path) -> None:
    loaded = loaded_from(write_folds(tmp_path / "d", many(90)), sample_size=60)
    assert len(loaded.texts) == 60
    assert set(loaded.folds["text_id"]) == set(loaded.texts["text_id"])
    folds, _ = folds_of(loaded)
    assert all(int(i[1:]) % 3 == k for k, ids in members(folds, "test").items() for i in ids)


# folds as a table


def given_of(texts: pd.DataFrame, k: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (fold, text_id, "test" if i % k == fold else "train")
            for fold in range(k)
            for i, text_id in enumerate(texts["text_id"])
        ],
        columns=["fold", "text_id", "part"],
    )


@pytest.mark.parametrize("as_text", [True, False])
def test_given_folds_join_integer_and_text_ids(as_text: bool) -> None:
    texts = many(20).assign(text_id=range(20))
    given = given_of(texts)
    folds, _ = make_folds(texts, given=given.astype({"text_id": str}) if as_text else given)
    assert members(folds, "test") == {0: set(range(0, 20, 2)), 1: set(range(1, 20, 2))}
    assert folds["text_id"].dtype == "int64"


def test_test_texts_without_gold_are_left_out_of_given_folds() -> None:
    texts = many(20)
    texts.loc[[0, 2], "gold"] = None
    folds, _ = make_folds(texts, given=given_of(texts))
    assert part_of(folds, 0, "t0") is None
    assert part_of(folds, 1, "t0") in {"train", "dev"}
    assert "fold 0: 2 of 10 test texts have no gold and were left out" in folds.attrs["notes"]


def test_folds_with_the_same_test_texts_and_unused_texts_are_noted() -> None:
    texts = many(20)
    given = given_of(texts)
    given = given[given["text_id"] != "t7"]
    assert "1 texts are in no fold" in make_folds(texts, given=given).folds.attrs["notes"]
    first = given[given["fold"] == 0]
    train = first["part"].eq("train").to_numpy().nonzero()[0]
    other = first.drop(index=first.index[train[:3]]).assign(fold=1)  # other training texts, the same test texts
    notes = make_folds(texts, given=pd.concat([first, other])).folds.attrs["notes"]
    assert "every fold tests the same texts: a fold is one set of training texts" in notes


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([range(10), range(9, 20)], "folds: folds 0 and 1 share 1 of their 10 and 11 test texts"),
        ([range(10), range(8)], "folds 0 and 1 share 8 of their 10 and 8 test texts"),
        ([range(10), range(10, 20), range(5, 15)], "folds 0 and 2 share 5 of their 10 and 10 test texts"),
        ([range(10), range(10), range(10, 20)], "folds 0 and 1 test the same texts, folds 0 and 2 other ones"),
    ],
)
def test_given_folds_whose_test_texts_overlap_in_part_are_refused(tests: list[range], said: str) -> None:
    texts = many(30)
    given = pd.concat([
        pd.DataFrame({"fold": fold, "text_id": texts["text_id"], "part": ["test" if i in mine else "train" for i in range(30)]})
        for fold, mine in enumerate(tests)
    ])  # fmt: skip
    with pytest.raises(DataError) as raised:
        make_folds(texts, given=given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "give folds that all test the same texts, or each its own" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.assign(text_id="x" + g["text_id"]), "20 text id(s) are not among the texts, for example 'xt0'"),
        (lambda g: g.assign(fold=g["fold"] * 2), "fold 1 is missing; found 0, 2"),
        (lambda g: g[(g["fold"] == 0) | (g["part"] == "test")], "fold 1 has no train texts"),
        (lambda g: g[(g["fold"] == 1) | (g["part"] == "train")], "fold 0 has no test texts"),
        (lambda g: g[:0], "no fold is given"),
        (lambda g: pd.concat([g, g]), "folds: "),
        (lambda g: g.assign(part="valid"), "folds: "),
        (lambda g: g.drop(columns="part"), "missing column(s) ['part']"),
    ],
)
def test_given_folds_that_cannot_stand_are_refused(change: object, said: str) -> None:
    texts = many(20)
    with pytest.raises(DataError) as raised:
        make_folds(texts, given=change(given_of(texts)))
    assert said in str(raised.value)


# the shared data


def test_ten_folds_of_sst5(capsys: pytest.CaptureFixture[str]) -> None:
    texts = load_dataset(shared("sst5", "items.csv.gz")).assign(split=None)
    started = time.perf_counter()
    folds, leaks = make_folds(texts, folds=10)
    seconds = time.perf_counter() - started
    with capsys.disabled():
        sys.stderr.write(f"\n10 folds of {len(texts)} sst5 texts: {seconds:.1f} s, {len(leaks)} leaks\n")
    tested = members(folds, "test")
    assert sum(map(len, tested.values())) == len(set.union(*tested.values())) == len(texts)
    assert set(leaks["fold"]) == set(range(10))
    gold = dict(zip(texts["text_id"], texts["gold"]))
    counts = [Counter(gold[i] for i in ids) for ids in tested.values()]
    assert all(max(c[label] for c in counts) - min(c[label] for c in counts) <= 1 for label in set(gold.values()))
    fold = folds[folds["fold"] == 4]
    assert find_leaks(texts, fold[["text_id", "part"]]).empty
