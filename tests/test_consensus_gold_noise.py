"""Where consensus contradicts gold: by hand, on planted noise, and against a transcription of confident learning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.consensus import decide
from consenso.consensus.gold_noise import confident_labels, find_gold_noise, gold_noise_bound
from consenso.errors import ConfigError, DataError, JoinError
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from making import shared

NAMES = np.array(list("abcd"), dtype=object)


def votes(columns):
    """{annotator: one label per text}; "." is a missing vote."""
    rows = [
        (text, name, label) for name, labels in columns.items() for text, label in enumerate(labels) if label != "."
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "label"])


def planted(seed, *, n=800, K=4, annotators=9, right=0.7, noise=0.1):
    """Votes of independent annotators, gold with noise, and which gold is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(K, n, p=np.arange(1, K + 1) / np.arange(1, K + 1).sum())
    gold = np.where(rng.random(n) < noise, rng.integers(0, K, n), truth)
    label = np.where(rng.random((n, annotators)) < right, truth[:, None], rng.integers(0, K, (n, annotators)))
    frame = votes({f"m{i}": NAMES[label[:, i]] for i in range(annotators)})
    return frame, pd.Series(NAMES[gold], dtype=object), gold != truth


def confident_joint(gold, shares):
    """The loop of Northcutt et al. (2021, section 3.1) as cleanlab documents it, text by text."""
    K = shares.shape[1]
    threshold = [shares[gold == k, k].mean() for k in range(K)]
    joint = np.zeros((K, K), dtype=int)
    for y, row in zip(gold, shares):
        bins = [k for k in range(K) if row[k] >= threshold[k] - 1e-6]
        if bins:
            joint[y, max(bins, key=lambda k: (row[k], -k))] += 1
    return joint


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_planted_noise_comes_first(method):
    frame, gold, wrong = planted(0)
    labels = decide(frame, method)
    found = find_gold_noise(labels, gold)
    first = found.head(int(wrong.sum() * 0.6))
    assert wrong[first["text_id"]].mean() > 0.95
    # self-confidence of gold is the share of the gold label (cleanlab: get_label_quality_scores, "self_confidence")
    shares = np.array(labels["shares"].tolist())
    quality = shares[np.arange(len(gold)), LabelSchema.from_names("abcd").codes(gold)]
    np.testing.assert_array_equal(found["self_confidence"], quality[found["text_id"]])
    assert found["self_confidence"].is_monotonic_increasing
    assert list(found["rank"]) == list(range(1, len(found) + 1))
    disagree = labels["label"].notna() & labels["label"].ne(gold)
    assert set(found["text_id"]) == set(labels.loc[disagree, "text_id"])


def test_the_list_by_hand():
    labels = pd.DataFrame(
        {
            "text_id": ["p", "q", "r", "s", "t"],
            "label": ["x", "x", "y", None, "x"],
            "status": ["decided", "decided", "decided", "tied", "decided"],
            "n_votes": [10, 10, 10, 10, 5],
            "shares": [[0.6, 0.3, 0.1], [0.9, 0.0, 0.1], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0], [0.9, 0.0, 0.1]],
        }
    )
    gold = pd.Series({"p": "y", "q": "y", "r": "y", "s": "z", "t": "y", "other": "z"})
    found = find_gold_noise(labels, gold)
    assert list(found["text_id"]) == ["q", "t", "p"]  # q has more votes than t
    p = found.set_index("text_id").loc["p"]
    assert (p["gold"], p["label"], p["score"], p["self_confidence"]) == ("y", "x", 0.6, 0.3)
    assert p["margin"] == pytest.approx(0.3)
    assert list(find_gold_noise(labels, gold, least=0.7)["text_id"]) == ["q", "t"]


@pytest.mark.parametrize("seed", range(4))
def test_the_count_is_that_of_confident_learning(seed):
    frame, gold, _ = planted(seed, n=400, right=0.55)
    labels = decide(frame, "majority")
    shares, codes = np.array(labels["shares"].tolist()), LabelSchema.from_names("abcd").codes(gold)
    joint = confident_joint(codes, shares)
    chosen = confident_labels(shares, codes)
    mine = np.bincount(codes[chosen >= 0] * 4 + chosen[chosen >= 0], minlength=16).reshape(4, 4)
    np.testing.assert_array_equal(mine, joint)
    bound = gold_noise_bound(frame, gold).set_index("gold")
    np.testing.assert_array_equal(bound.loc[list("abcd"), "n_confident"], joint.sum(axis=1) - np.diag(joint))
    assert bound.loc["all", "n_confident"] == joint.sum() - np.trace(joint)


def test_the_bound_by_hand():
    columns = {
        #     gold  x x x x x x x x | y y y y
        "one": "xxxxxxyy" + "yyyx",
        "two": "xxxxxyyy" + "yyyy",
    }
    bound = gold_noise_bound(votes(columns), pd.Series(list("xxxxxxxxyyyy"))).set_index("gold")
    assert bound["n"].to_dict() == {"all": 12, "x": 8, "y": 4}
    assert bound["unanimous"].to_dict() == {"all": 2, "x": 2, "y": 0}
    assert (bound.loc["x", "low"], bound.loc["x", "high"]) == pytest.approx(wilson(2, 8))
    # one errs on 2/8 of x and 1/4 of y, two on 3/8 and 0
    assert bound.loc["x", "expected_independent"] == pytest.approx(2 / 8 * 3 / 8)
    assert bound.loc["x", "expected_together"] == pytest.approx(2 / 8)
    assert bound.loc["y", "expected_together"] == 0.0
    assert bound.loc["all", "expected_independent"] == pytest.approx(2 / 8 * 3 / 8 * 8 / 12)


def test_families_stand_between_independence_and_one_family():
    frame, gold, _ = planted(1, annotators=4, right=0.5)
    one = gold_noise_bound(frame, gold, families={"m0": "llama", "m1": "llama"}).set_index("gold")
    free = gold_noise_bound(frame, gold).set_index("gold")
    whole = gold_noise_bound(frame, gold, families=dict.fromkeys(["m0", "m1", "m2", "m3"], "llama")).set_index("gold")
    assert (free["expected_independent"] < one["expected_independent"]).all()
    assert (one["expected_independent"] < one["expected_together"]).all()
    pd.testing.assert_series_equal(whole["expected_independent"], free["expected_together"], check_names=False)


def test_what_independence_expects_is_what_independent_annotators_do():
    frame, gold, _ = planted(2, n=20_000, annotators=3, right=0.4, noise=0.0)
    row = gold_noise_bound(frame, gold).iloc[0]
    assert row["low"] <= row["expected_independent"] <= row["high"]


def test_errors_made_together_look_like_noise_in_gold():
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.1  # all annotators fall for the same trap; gold is right everywhere
    label = np.where(hard, "b", "a")
    gold = pd.Series(["a"] * 900 + ["b"] * 100)
    row = gold_noise_bound(votes(dict.fromkeys("xyz", label)), gold).set_index("gold").loc["a"]
    assert row["low"] > row["expected_independent"]
    assert row["share"] == pytest.approx(row["expected_together"])


def test_only_valid_votes_and_enough_of_them_count():
    frame = votes({"one": "yyx", "two": "y.x", "three": "xyx"}).assign(status="ok")
    frame.loc[frame["annotator"].eq("three") & frame["text_id"].eq(0), ["label", "status"]] = [None, "refused"]
    gold = pd.Series(["x", "x", "x"])
    assert gold_noise_bound(frame, gold).iloc[0][["n", "unanimous"]].tolist() == [3, 2]
    with pytest.raises(DataError, match="has 3 annotators"):
        gold_noise_bound(frame.query("text_id < 2"), gold, min_votes=3, labels=LabelSchema.from_names("xy"))


FRAME, GOLD = votes({"one": "xy", "two": "xx"}), pd.Series(["x", "y"])


@pytest.mark.parametrize(
    ("frame", "gold", "options", "error", "message"),
    [
        (FRAME, GOLD.set_axis(["p", "q"]), {}, JoinError, "none of the 2 texts has gold"),
        (FRAME, GOLD, {"min_votes": 1}, ConfigError, "min_votes"),
        (FRAME, GOLD, {"level": 2}, ConfigError, "level"),
        (FRAME, GOLD, {"families": {"on": "f"}}, ConfigError, "Did you mean 'one'"),
        (FRAME[FRAME["annotator"].eq("one")], GOLD, {}, DataError, "none of the 2 texts"),
        (FRAME.assign(label=None), GOLD, {}, DataError, "none of the 2 texts"),
        (FRAME, GOLD, {"labels": LabelSchema.from_names("ab")}, DataError, "unknown label"),
    ],
)
def test_wrong_input_is_one_clear_line(frame, gold, options, error, message):
    with pytest.raises(error, match=message):
        gold_noise_bound(frame, gold, **options)


def test_a_schema_must_fit_the_shares():
    frame, gold, _ = planted(0, n=50)
    labels = decide(frame, "majority")
    with pytest.raises(ConfigError, match="largest share"):
        find_gold_noise(labels, gold, schema=LabelSchema.from_names("dcba"))
    with pytest.raises(ConfigError, match="5 labels"):
        find_gold_noise(labels, gold, schema=LabelSchema.from_names("abcde"))
    with pytest.raises(DataError, match="shares"):
        find_gold_noise(labels.drop(columns="shares"), gold)
    with pytest.raises(ConfigError, match="least"):
        find_gold_noise(labels, gold, least=80)
    assert find_gold_noise(labels, labels.set_index("text_id")["label"]).empty


def test_weather_gold_in_doubt_is_found_more_often():
    frame = pd.read_csv(shared("weather_crowd", "annotations.csv.gz"), dtype={"label": str})
    items = pd.read_csv(shared("weather_crowd", "items.csv.gz"), dtype={"gold": str}).set_index("text_id")
    found = find_gold_noise(decide(frame, "majority"), items["gold"])
    unsure = items["gold_confirmed"].ne("Yes") | items["gold_confidence"].lt(1)
    assert unsure[found["text_id"]].mean() > 1.3 * unsure.mean()
