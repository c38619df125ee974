from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.data import find_leaks, load_dataset, make_folds
from consenso.errors import ConfigError, DataError
from consenso.tables import LEAKS, check
from consenso.text import normalise
from making import shared

SEARCHES = ("product", "minhash")


def two_sides(train: list[str], test: list[str], **columns: list) -> tuple[pd.DataFrame, dict[str, str]]:
    ids = [f"a{i}" for i in range(len(train))] + [f"b{i}" for i in range(len(test))]
    texts = pd.DataFrame({"text_id": ids, "text": train + test, **columns})
    return texts, {text_id: "train" if text_id[0] == "a" else "test" for text_id in ids}


def leaks_between(train: list[str], test: list[str], **options: object) -> list[tuple]:
    leaks = find_leaks(*two_sides(train, test), **options)
    return leaks[["text_id", "other_id", "level"]].to_records(index=False).tolist()


SENTENCE = "The ministry of finance published a long report about regional budgets"


def test_levels_name_the_strictest_way_in_which_two_texts_repeat() -> None:
    same = [
        SENTENCE + "\n",
        SENTENCE.upper() + "!",
        SENTENCE.replace("long", "short"),
        "Something else entirely, no relation",
    ]
    assert leaks_between(same, [SENTENCE]) == [
        ("a0", "b0", "exact"), ("a1", "b0", "normalised"), ("a2", "b0", "near"),
    ]  # fmt: skip
    assert leaks_between(same, [SENTENCE], level="normalised") == [("a0", "b0", "exact"), ("a1", "b0", "normalised")]
    assert leaks_between(same, [SENTENCE], level="exact") == [("a0", "b0", "exact")]
    assert leaks_between(same, [SENTENCE], level="off") == []


@pytest.mark.parametrize("search", SEARCHES)
def test_similarity_is_the_jaccard_of_the_sets_of_char_wb_5_grams(search: str) -> None:
    # " abcdef " has the grams " abcd", "abcde", "bcdef", "cdef "; " abcdeg " shares two of them: 2 / 6
    if search == "product":  # 4 of 128 equal hashes in a row are too much to ask of so unlike a pair
        leaks = find_leaks(*two_sides(["abcdef abcdef"], ["abcdeg"]), threshold=0.3, search=search)
        assert leaks["similarity"].tolist() == [2 / 6]
    assert find_leaks(*two_sides(["abcdef"], ["abcdeg"]), threshold=0.34, search=search).empty
    # 4 of 5 grams shared: exactly the threshold counts (" uvw " is one gram)
    leaks = find_leaks(*two_sides(["abcdef"], ["abcdef uvw"]), threshold=0.8, search=search)
    assert leaks["similarity"].tolist() == [0.8]


@pytest.mark.parametrize("search", SEARCHES)
def test_the_search_finds_what_comparing_all_pairs_finds(search: str) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    rng = np.random.default_rng(2)
    words = ["".join(rng.choice(list("abcde"), rng.integers(2, 6))) for _ in range(40)]
    texts = [" ".join(rng.choice(words, rng.integers(3, 12))) for _ in range(400)]
    for i in range(0, 400, 4):  # every fourth text is an edited copy of another
        copy = texts[int(rng.integers(400))].split()
        copy[int(rng.integers(len(copy)))] = str(rng.choice(words))
        texts[i] = " ".join(copy)
    left, right = texts[:250], texts[250:]
    grams = CountVectorizer(analyzer="char_wb", ngram_range=(5, 5), binary=True).fit([normalise(t) for t in texts])
    a, b = (grams.transform([normalise(t) for t in side]).toarray() for side in (left, right))
    shared_grams = a @ b.T
    jaccard = shared_grams / (a.sum(1)[:, None] + b.sum(1)[None, :] - shared_grams)
    for threshold in (0.6, 0.8):
        expected = {(f"a{i}", f"b{j}") for i, j in zip(*np.nonzero(jaccard >= threshold))}
        found = {(one, two) for one, two, _ in leaks_between(left, right, threshold=threshold, search=search)}
        assert len(expected) > 20
        missed = len(expected - found) / len(expected)
        assert found <= expected
        assert missed == 0 if search == "product" or threshold == 0.8 else missed < 0.05


def test_short_texts_and_texts_without_words_are_compared_as_wholes() -> None:
    assert leaks_between(["no .", "yes", "!!!", "ab"], ["No", "?!", "!!! ", "abc"]) == [
        ("a0", "b0", "normalised"), ("a2", "b2", "exact"),
    ]  # fmt: skip


def test_dev_gives_way_to_test_and_train_to_what_remains() -> None:
    texts = pd.DataFrame(
        {"text_id": list("abcde"), "text": ["one two", "one two", "one two", "three four", "three four"]}
    )
    leaks = find_leaks(texts, dict(zip("abcde", ["train", "dev", "test", "train", "dev"])))
    assert leaks[["text_id", "part", "other_id", "other_part"]].to_numpy().tolist() == [
        ["b", "dev", "c", "test"], ["a", "train", "c", "test"], ["d", "train", "e", "dev"],
    ]  # fmt: skip


def test_a_train_text_that_only_repeats_a_removed_dev_text_stays() -> None:
    # dev "b" leaks into test "c" as a near copy; train "a" is near "b" but not near "c"
    words = [letter * 4 + str(i) for i, letter in enumerate("abcdefghijklmnop")]
    c = " ".join(words)
    b = " ".join([*words[:-1], "quebec"])
    a = " ".join([*words[:-2], "romeo", "quebec"])
    texts = pd.DataFrame({"text_id": list("abc"), "text": [a, b, c]})
    assert set(find_leaks(texts, {"a": "train", "b": "dev", "c": "test"}, threshold=0.86)["text_id"]) == {"b"}
    assert set(find_leaks(texts, {"a": "train", "b": "dev"}, threshold=0.86)["text_id"]) == {"a"}


def test_same_gold_is_unknown_where_gold_is_missing() -> None:
    texts, parts = two_sides(["x y z", "x y z"], ["x y z"], gold=["p", None, "p"])
    assert find_leaks(texts, parts)["same_gold"].tolist() == [True, None]


def test_texts_of_one_group_leak_at_every_level() -> None:
    texts, parts = two_sides(["one thing", "two thing"], ["three", "two thing"], group=["g", "g", "g", "g"])
    leaks = find_leaks(texts, parts, level="exact")
    assert sorted(leaks[["text_id", "other_id", "level"]].to_records(index=False).tolist()) == [
        ("a0", "b0", "group"), ("a0", "b1", "group"), ("a1", "b0", "group"), ("a1", "b1", "exact"),
    ]  # fmt: skip
    assert leaks.set_index(["text_id", "other_id"])["similarity"].isna().sum() == 3
    check(leaks, LEAKS)


@pytest.mark.parametrize("search", SEARCHES)
def test_neither_order_nor_kind_of_parts_matters(search: str) -> None:
    texts, parts = two_sides([SENTENCE + f" in {i}" for i in range(30)], [SENTENCE + f" of {i}" for i in range(20)])
    one = find_leaks(texts, parts, search=search)
    folds = pd.DataFrame({"text_id": list(parts), "part": list(parts.values())}).sample(frac=1, random_state=1)
    assert len(one) > 100
    pd.testing.assert_frame_equal(one, find_leaks(texts.sample(frac=1, random_state=2), folds, search=search))
    pd.testing.assert_frame_equal(one, find_leaks(texts[::-1], pd.Series(parts), search=search))


def test_boilerplate_lists_at_most_100_texts_per_text_but_counts_all() -> None:
    texts, parts = two_sides(
        [f"{SENTENCE} {SENTENCE[::-1]} {i}" for i in range(130)],
        [f"{SENTENCE} {SENTENCE[::-1]} no {i}" for i in range(120)],
    )
    leaks = find_leaks(texts, parts)
    assert leaks["text_id"].nunique() == 130
    assert leaks.groupby("text_id").size().eq(100).all()
    assert leaks.attrs["pairs"] == 130 * 120
    pd.testing.assert_frame_equal(leaks, find_leaks(texts, parts, search="minhash"))
    same, parts = two_sides(["x y"] * 3, ["x y"] * 150)
    leaks = find_leaks(same, parts)
    assert (len(leaks), leaks.attrs["pairs"]) == (300, 450)


def test_wrong_levels_and_parts_are_refused() -> None:
    texts, parts = two_sides(["x"], ["y"])
    with pytest.raises(ConfigError, match="unknown level 'fuzzy'"):
        find_leaks(texts, parts, level="fuzzy")
    with pytest.raises(DataError, match=r"unknown part\(s\) \['valid'\]"):
        find_leaks(texts, {"a0": "valid"})


# planted leaks


def sources() -> list[str]:
    names = ("textclass_policy_en", "babe_llm", "sst5")
    return [text for name in names for text in load_dataset(shared(name, "items.csv.gz"))["text"][:2500]]


def planted(texts: list[str], edit: object, search: str) -> float:
    """Share of edited copies that are found beside their original."""
    leaks = find_leaks(*two_sides(texts, [edit(text) for text in texts]), search=search)
    found = set(zip(leaks["text_id"].str[1:], leaks["other_id"].str[1:]))
    return sum((str(i), str(i)) in found for i in range(len(texts))) / len(texts)


def punctuate(text: str) -> str:
    return "“" + text.replace(" ", "  ").replace(",", ";") + "” …"


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("edit", [str, str.upper, str.title, punctuate, lambda text: f"\n {text}\t"])
def test_exact_case_and_punctuation_copies_are_all_found(search: str, edit: object) -> None:
    assert planted(sources()[::15], edit, search) == 1.0


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("shortest", "longest", "recall"), [(0, 149, 0.75), (150, 10**6, 0.95)])
def test_one_word_edits_are_found(search: str, shortest: int, longest: int, recall: float) -> None:
    rng = np.random.default_rng(7)
    texts = [text for text in sources() if shortest <= len(text) <= longest][::4]
    words = [word for text in texts for word in text.split()]

    def edit(text: str) -> str:
        edited = text.split()
        edited[int(rng.integers(len(edited)))] = words[int(rng.integers(len(words)))]
        return " ".join(edited)

    assert len(texts) > 500
    assert planted(texts, edit, search) >= recall


# the shared data


def leaks_of(name: str, train: str, search: str = "auto") -> pd.DataFrame:
    texts = load_dataset(shared(name, "items.csv.gz"))
    parts = {i: {train: "train", "test": "test"}.get(s) for i, s in zip(texts["text_id"], texts["split"])}
    return find_leaks(texts, {i: part for i, part in parts.items() if part}, search=search)


@pytest.mark.parametrize("search", SEARCHES)
def test_sst5_leaks_two_test_texts_exactly(search: str) -> None:
    leaks = leaks_of("sst5", "train", search)
    assert leaks.loc[leaks["level"] == "exact", "other_id"].nunique() == 2
    assert leaks["other_id"].nunique() == 2
    assert len(leaks) == 3


@pytest.mark.parametrize("search", SEARCHES)
def test_policy_has_near_copies_of_139_test_texts(search: str) -> None:
    leaks = leaks_of("textclass_policy_en", "train", search)
    assert (leaks["other_id"].nunique(), len(leaks), leaks.attrs["pairs"]) == (139, 2302, 2302)
    assert set(leaks["level"]) == {"near"}
    assert (~leaks["same_gold"].astype(bool)).sum() == 77


def test_babe_leaks_two_test_texts_in_normalised_form() -> None:
    leaks = leaks_of("babe_llm", "pool")
    assert leaks["level"].tolist() == ["normalised", "normalised"]
    assert leaks["other_id"].nunique() == 2


def test_after_the_guard_nothing_leaks_and_the_test_part_is_whole() -> None:
    texts = load_dataset(shared("textclass_policy_en", "items.csv.gz"))
    folds, leaks = make_folds(texts)
    assert folds["part"].value_counts()["test"] == 926
    assert not set(leaks["text_id"]) & set(folds["text_id"])
    assert find_leaks(texts, folds).empty
    unguarded, none = make_folds(texts, leakage="off")
    assert len(unguarded) == 6169
    assert none.empty
