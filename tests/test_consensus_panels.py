"""The map of a panel: by hand, against brute force, and what its intervals promise."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from consenso.consensus import panels
from consenso.consensus.panel_search import VoteGrid
from consenso.consensus.panels import _smallest, map_panel
from consenso.errors import ConfigError, DataError, JoinError
from consenso.labels import LabelSchema
from making import shared

NAMES = np.array(list("abcdefghij"), dtype=object)


def votes(columns):
    """{annotator: one label per text}; "." is a missing vote."""
    rows = [
        (text, name, label) for name, labels in columns.items() for text, label in enumerate(labels) if label != "."
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "label"])


def crowd(seed, *, n=300, accuracy=(0.9, 0.8, 0.7, 0.6, 0.5), K=3, missing=0.1):
    """Independent annotators m0, m1, …, and gold."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    columns = {}
    for i, right in enumerate(accuracy):
        label = NAMES[np.where(rng.random(n) < right, truth, rng.integers(0, K, n))]
        columns[f"m{i}"] = np.where(rng.random(n) < missing, ".", label)
    return votes(columns), pd.Series(NAMES[truth], dtype=object)


def accuracy_of(frame, gold, subset):
    """Majority accuracy of some annotators, text by text; a tie among k labels counts 1/k."""
    total = 0.0
    given = frame[frame["annotator"].isin(subset)].groupby("text_id")["label"].agg(list)
    for text, true in gold.items():
        number = pd.Series(given.get(text, [])).value_counts()
        best = number.index[number == number.max()] if len(number) else []
        total += (true in best) / max(len(best), 1)
    return total / len(gold)


def test_the_best_subset_of_each_size_is_that_of_brute_force():
    frame, gold = crowd(0, n=40)
    found = map_panel(frame, gold, draws=10).sizes
    for row in found.itertuples():
        tried = {s: accuracy_of(frame, gold, s) for s in combinations([f"m{i}" for i in range(5)], row.size)}
        assert row.accuracy_selected == pytest.approx(max(tried.values()), abs=1e-9)
        assert tried[row.annotators] == pytest.approx(max(tried.values()), abs=1e-9)


def test_added_is_what_is_lost_without_an_annotator():
    frame, gold = crowd(1, n=60)
    everyone = [f"m{i}" for i in range(5)]
    found = map_panel(frame, gold, draws=200).annotators.set_index("annotator")
    for name in everyone:
        rest = [other for other in everyone if other != name]
        expected = accuracy_of(frame, gold, everyone) - accuracy_of(frame, gold, rest)
        assert found.loc[name, "added"] == pytest.approx(expected, abs=1e-9)
        mine = frame[frame["annotator"].eq(name)]
        right = mine["label"].to_numpy() == gold.loc[mine["text_id"]].to_numpy()
        assert found.loc[name, "accuracy_alone"] == pytest.approx(right.mean())
    assert (found["low"] <= found["added"]).all()
    assert (found["added"] <= found["high"]).all()


def test_agreement_with_the_others_by_hand():
    frame = votes({"one": "xxyx", "two": "xxyy", "three": "xyxy"})
    found = map_panel(frame, draws=10).annotators.set_index("annotator")
    # the others of one: xx, x tied, tied, yy; it says x x y x
    assert found.loc["one", "agreement_with_others"] == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)


def test_credit_after_a_step_is_that_of_the_changed_panel():
    rng = np.random.default_rng(0)
    for K in (2, 4):
        grid = rng.integers(-1, K, (60, 7)).astype(np.int16)
        panel = VoteGrid(grid, rng.integers(0, K, 60), np.arange(60) % 2, K)
        for inside in [(), (2,), (0, 3), (1, 2, 4, 6), (0, 1, 2, 3, 4, 5)]:
            rest = [a for a in range(7) if a not in inside]
            joined = panel.credit_changed(panel.counts(inside), np.array(rest), 1)
            np.testing.assert_allclose(joined, [panel.credit((*inside, a)) for a in rest])
            if inside:
                left = panel.credit_changed(panel.counts(inside), np.array(inside), -1)
                np.testing.assert_allclose(left, [panel.credit(tuple(b for b in inside if b != a)) for a in inside])


def test_greedy_comes_close_to_trying_all(monkeypatch):
    frame, gold = crowd(2, accuracy=(0.8, 0.75, 0.7, 0.65, 0.6, 0.6, 0.55, 0.5, 0.4))
    whole = map_panel(frame, gold, draws=10)
    monkeypatch.setattr(panels, "LIMIT", 10)
    greedy = map_panel(frame, gold, draws=10)
    assert whole.exhaustive
    assert not greedy.exhaustive
    short = whole.sizes["accuracy_selected"] - greedy.sizes["accuracy_selected"]
    assert (short > -1e-9).all()
    assert short.max() < 0.015


def test_pairs_are_those_of_scikit_learn():
    frame, gold = crowd(3, missing=0.2)
    wide = frame.pivot(index="text_id", columns="annotator", values="label")
    found = map_panel(frame, gold, draws=10).pairs
    assert len(found) == 10
    for row in found.itertuples():
        both = wide[[row.first, row.second]].dropna()
        one, other, true = both[row.first], both[row.second], gold.loc[both.index]
        assert row.n == len(both)
        assert row.agreement == pytest.approx((one == other).mean())
        assert row.kappa == pytest.approx(cohen_kappa_score(one, other))
        assert row.error_correlation == pytest.approx(matthews_corrcoef(one != true, other != true))
        wrong = (one != true) & (other != true)
        assert row.both_wrong == pytest.approx(wrong.mean())
        assert row.same_wrong == pytest.approx((one[wrong] == other[wrong]).mean())


def test_a_copy_adds_nothing_and_is_seen_as_one():
    frame, gold = crowd(4, n=600, accuracy=(0.8, 0.7, 0.7), missing=0.0)
    copies = [frame.query("annotator == 'm0'").assign(annotator=f"copy{i}") for i in range(2)]
    found = map_panel(pd.concat([frame, *copies]), gold, draws=200)
    pairs = found.pairs.set_index(["first", "second"])
    assert pairs.loc[("copy0", "copy1"), "error_correlation"] == pytest.approx(1.0)
    assert pairs.loc[("copy0", "copy1"), "same_wrong"] == 1.0
    assert abs(pairs.loc[("m1", "m2"), "error_correlation"]) < 0.15
    assert (found.annotators.set_index("annotator").loc[["copy0", "copy1", "m0"], "added"] <= 0).all()


def test_selecting_on_the_texts_it_is_scored_on_is_optimistic():
    """Twelve annotators alike: the best of many subsets looks better than it is; cross-fitted it does not."""
    selected, crossed = [], []
    for seed in range(40):
        frame, gold = crowd(seed, n=150, accuracy=(0.4,) * 12, K=2, missing=0.0)
        row = map_panel(frame, gold, sizes=[1], draws=1).sizes.iloc[0]
        selected.append(row["accuracy_selected"])
        crossed.append(row["accuracy"])
    assert np.mean(selected) > 0.73  # each one is right on .4 + .6 / 2 = .7 of the texts
    assert np.mean(crossed) == pytest.approx(0.7, abs=0.02)


def test_a_panel_within_the_tolerance_is_rarely_one_that_is_not():
    """Five annotators right on .8 of the texts: three lose more than a point, so choosing fewer is an error."""
    wrong = 0
    for seed in range(100):
        frame, gold = crowd(100 + seed, n=400, accuracy=(0.7,) * 5, K=2, missing=0.0)
        found = map_panel(frame, gold, draws=300, tolerance=0.01)
        wrong += found.chosen["size"] < 5
    assert wrong / 100 <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 100)


def test_a_failed_test_does_not_end_the_search():
    rows = [{"size": 1, "p": 0.001}, {"size": 3, "p": 0.2}, {"size": 5, "p": 0.01}, {"size": 7, "p": 0.02}]
    assert _smallest(rows)["size"] == 1
    assert _smallest(rows[1:])["size"] == 5  # .05 / 3 does not suffice for size 7, for size 5 it does
    assert _smallest([{"size": 3, "p": 0.04}, {"size": 5, "p": 0.02}])["size"] == 3  # .05 / 2 and what size 5 had
    assert _smallest([{"size": 3, "p": 0.04}, {"size": 5, "p": 0.03}]) is None


def test_one_expert_among_guessers_is_the_smallest_panel():
    frame, gold = crowd(5, n=800, accuracy=(0.95, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    found = map_panel(frame, gold, draws=200)
    assert found.chosen["annotators"] == ("m0",)
    assert found.chosen["stable"]
    assert found.sentence.startswith("1 of 7 annotators (m0) can stand for all: accuracy ")
    assert found.annotators.set_index("annotator")["added"].idxmax() == "m0"


def test_the_cheapest_panel_is_chosen_where_costs_are_given():
    frame, gold = crowd(6, n=800, accuracy=(0.8,) * 6, missing=0.0)
    costs = {"m0": 10.0, "m1": 10.0, "m2": 10.0, "m3": 1.0, "m4": 1.0, "m5": 1.0}
    found = map_panel(frame, gold, costs=costs, draws=200, tolerance=0.05)
    assert found.chosen["cost"] < 0.5 * sum(costs.values())
    assert found.chosen["loss_high"] <= 0.05
    assert (found.budgets["cost"] <= found.budgets["budget"] * (1 + 1e-9)).all()
    assert found.budgets["accuracy_selected"].is_monotonic_increasing
    assert found.sizes["cost"].iloc[-1] == pytest.approx(33.0)


def test_without_gold_the_consensus_is_the_measure():
    frame, _ = crowd(7, missing=0.0)
    found = map_panel(frame, draws=100)
    assert found.against == "consensus"
    assert found.sizes["accuracy"].iloc[-1] == 1.0
    assert found.n + found.n_left_out == 300
    assert found.n_left_out > 0  # five votes for three labels may tie
    assert found.annotators["accuracy_alone"].isna().all()
    assert found.pairs["error_correlation"].isna().all()
    assert found.pairs["kappa"].notna().all()


def test_the_order_of_rows_changes_nothing_and_the_seed_only_the_halves():
    frame, gold = crowd(8)
    one, other = map_panel(frame, gold, draws=50), map_panel(frame.sample(frac=1, random_state=0), gold, draws=50)
    pd.testing.assert_frame_equal(one.sizes, other.sizes)
    pd.testing.assert_frame_equal(one.annotators, other.annotators)
    moved = map_panel(frame, gold, draws=50, seed=1)
    pd.testing.assert_series_equal(one.sizes["accuracy_selected"], moved.sizes["accuracy_selected"])


def test_one_annotator_and_one_text_are_a_panel():
    found = map_panel(votes({"one": "xyxy"}), pd.Series(list("xxyy")), draws=50)
    assert found.chosen["size"] == 1
    assert found.pairs.empty
    assert found.annotators["added"].item() == 0.5  # without it there is no label at all
    assert "No smaller panel than all 1" in found.sentence
    assert map_panel(votes({"one": "x", "two": "y", "three": "x"}), pd.Series(["x"]), draws=50).n == 1


def test_an_annotator_that_always_says_the_same_has_no_kappa():
    frame = votes({"one": "xxxx", "two": "xxxx", "three": "xyxy"})
    pairs = map_panel(frame, pd.Series(list("xyxy")), draws=10).pairs.set_index(["first", "second"])
    assert np.isnan(pairs.loc[("one", "two"), "kappa"])
    assert np.isnan(pairs.loc[("one", "three"), "error_correlation"])


FRAME, GOLD = votes({"one": "xyx", "two": "xyy", "three": "yyx"}), pd.Series(list("xyx"))


@pytest.mark.parametrize(
    ("frame", "gold", "options", "error", "message"),
    [
        (FRAME, GOLD, {"method": "dawid_skene"}, ConfigError, "unknown method"),
        (FRAME, GOLD, {"sizes": [0, 1]}, ConfigError, "sizes must lie"),
        (FRAME, GOLD, {"sizes": []}, ConfigError, "sizes must lie"),
        (FRAME, GOLD, {"sizes": [4]}, ConfigError, "sizes must lie"),
        (FRAME, GOLD, {"costs": {"one": 1}}, ConfigError, "no cost for"),
        (FRAME, GOLD, {"costs": {"one": 1, "two": 1, "tree": 1}}, ConfigError, "Did you mean 'three'"),
        (FRAME, GOLD, {"costs": {"one": 1, "two": 1, "three": -1}}, ConfigError, "at least 0"),
        (FRAME, GOLD, {"tolerance": 1.0}, ConfigError, "tolerance"),
        (FRAME, GOLD, {"draws": 0}, ConfigError, "draws"),
        (FRAME, GOLD.set_axis(["p", "q", "r"]), {}, JoinError, "none of the 3 voted texts has gold"),
        (FRAME.assign(label=None), GOLD, {}, DataError, "no annotator has a valid vote"),
        (FRAME, GOLD, {"labels": LabelSchema.from_names("ab")}, DataError, "unknown label"),
        (votes({"one": "xy", "two": "yx"}), None, {}, DataError, "ties on all of the 2 texts"),
    ],
)
def test_wrong_input_is_one_clear_line(frame, gold, options, error, message):
    with pytest.raises(error, match=message):
        map_panel(frame, gold, **options)


def test_thirteen_llms_on_babe_are_mapped_in_seconds():
    frame = pd.read_csv(shared("babe_llm", "annotations.csv.gz"), dtype={"label": str}).query(
        "condition == 'zero-shot'"
    )
    frame = frame.assign(label=frame["label"].where(frame["label"].ne("?"), None))
    gold = pd.read_csv(shared("babe_llm", "items.csv.gz"), dtype={"gold": str}).set_index("text_id")["gold"]
    start = time.perf_counter()
    found = map_panel(frame, gold)
    assert time.perf_counter() - start < 10
    assert found.exhaustive
    assert len(found.annotators) == 13
    assert found.chosen["annotators"] == ("gpt_4",)  # the one strong model is better than the panel's majority
    assert found.chosen["loss_high"] < 0
