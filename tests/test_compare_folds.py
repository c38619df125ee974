"""k-fold comparisons: the Nadeau–Bengio interval by hand, and what a fold's test texts and training size do to it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from consenso.compare import compare_arms, compare_classes, compare_seeds, read_runs
from consenso.compare.folds import nadeau_bengio


def test_the_interval_worked_out_by_hand():
    # k = 4, mean 2.5, s² = 5/3, n_test/n_train = 1/3: SE² = 5/3 · (1/4 + 1/3)
    result = nadeau_bengio([1.0, 2.0, 3.0, 4.0], 1 / 3)
    assert (result.difference, result.df, result.k) == (2.5, 3, 4)
    assert result.se == pytest.approx(math.sqrt(5 / 3 * (1 / 4 + 1 / 3)))
    t = 3.182446305284263  # t.975 with 3 degrees of freedom
    assert (result.low, result.high) == pytest.approx((2.5 - t * result.se, 2.5 + t * result.se))


def test_ten_folds_are_145_times_as_wide_as_the_naive_interval():
    from scipy.stats import t

    d = np.random.default_rng(1).normal(0.01, 0.02, 10)
    found = nadeau_bengio(d, 1 / 9)
    naive = 2 * t.ppf(0.975, 9) * d.std(ddof=1) / math.sqrt(10)
    assert (found.high - found.low) / naive == pytest.approx(1.4530, abs=1e-4)


def test_swapping_and_reordering_folds_changes_no_bit():
    d = np.random.default_rng(2).normal(0.01, 0.02, 10)
    one, other, moved = nadeau_bengio(d, 1 / 9), nadeau_bengio(-d, 1 / 9), nadeau_bengio(d[::-1].copy(), 1 / 9)
    assert (one.low, one.high, one.se, one.p) == (-other.high, -other.low, other.se, other.p)
    assert (one.difference, one.low, one.high90, one.p) == (moved.difference, moved.low, moved.high90, moved.p)


def folded(k=10, seeds=1, *, n=400, skill=(0.70, 0.75)):
    """Gold, and predictions of k folds with test texts of their own."""
    arms, rng = ("consensus", "gold-aligned"), np.random.default_rng([k, seeds])
    ids, gold = [f"t{i:04d}" for i in range(n)], rng.choice(3, n, p=[0.5, 0.3, 0.2])
    fold = rng.permutation(n) % k
    blocks = []
    for arm, chance in zip(arms, skill, strict=True):
        for s in range(1, seeds + 1):
            wrong = rng.random(n) > chance
            predicted = np.where(wrong, (gold + rng.integers(1, 3, n)) % 3, gold)
            blocks.append(pd.DataFrame(
                {"student": "frozen", "arm": arm, "fold": fold, "seed": s, "text_id": ids, "predicted": predicted.astype(str)}
            ))  # fmt: skip
    return pd.concat(blocks, ignore_index=True), pd.Series(gold.astype(str), index=ids)


def headline(comparison):
    return comparison[comparison["is_primary"]].iloc[0]


def fold_differences(predictions, gold, score):
    scored = predictions.assign(gold=predictions["text_id"].map(gold))
    each = scored.groupby(["arm", "fold", "seed"]).apply(lambda run: score(run["gold"], run["predicted"]))
    means = each.groupby(["arm", "fold"]).mean()
    return means["consensus"] - means["gold-aligned"]


def test_a_comparison_of_folds_agrees_with_scikit_learn_per_fold():
    from sklearn.metrics import accuracy_score, f1_score

    predictions, gold = folded(seeds=3)
    found = compare_arms(predictions, gold).set_index("metric")
    scores = {"accuracy": accuracy_score, "macro_f1": lambda g, p: f1_score(g, p, average="macro", zero_division=0)}
    for metric, score in scores.items():
        d = fold_differences(predictions, gold, score)
        row = found.loc[metric]
        assert row["difference"] == pytest.approx(d.mean())
        assert row["se"] == pytest.approx(d.std(ddof=1) * math.sqrt(1 / 10 + 1 / 9))
        assert (row["df"], row["k"], row["S"], row["n"], row["replication"]) == (9, 10, 3, 400, "fold")
    assert found["sentence"].str.contains("10 folds × 3 seeds, 400 test texts").all()
    assert found["sd_seed"].isna().all()


def test_one_seed_is_enough_with_five_folds_and_not_with_four():
    predictions, gold = folded(k=5)
    row = headline(compare_arms(predictions, gold))
    assert row["verdict"] != "NO VERDICT"
    assert "5 folds × 1 seed" in row["sentence"]
    predictions, gold = folded(k=4)
    row = headline(compare_arms(predictions, gold))
    assert (row["verdict"], row["S"]) == ("NO VERDICT", 1)
    assert "one seed in fewer than 5 folds" in row["reason"]
    assert math.isnan(row["low"])
    predictions, gold = folded(k=4, seeds=2)
    assert headline(compare_arms(predictions, gold))["verdict"] != "NO VERDICT"


def test_training_sizes_come_from_the_trainings_or_the_caller():
    predictions, gold = folded()
    trainings = predictions[["student", "arm", "fold", "seed"]].drop_duplicates().assign(attempt="as_run", status="ok")
    trainings["train_rows"] = np.where(trainings["arm"] == "consensus", 180, 360)
    d = fold_differences(predictions, gold, lambda g, p: (g == p).mean())
    sizes = predictions[predictions["arm"] == "consensus"].groupby("fold")["text_id"].count()
    found = compare_arms(predictions, gold, trainings=trainings).set_index("metric").loc["accuracy", "se"]
    assert found == pytest.approx(d.std(ddof=1) * math.sqrt(1 / 10 + (sizes / 180).mean()))
    given = compare_arms(predictions, gold, train_sizes=dict.fromkeys(range(10), 1000)).set_index("metric")
    assert given.loc["accuracy", "se"] == pytest.approx(d.std(ddof=1) * math.sqrt(1 / 10 + (sizes / 1000).mean()))


def test_the_fold_of_each_text_is_known_only_where_it_is_one():
    predictions, gold = folded(k=5)
    runs = read_runs(predictions, gold)
    fold = predictions.drop_duplicates("text_id").set_index("text_id")["fold"]
    assert runs.folds.tolist() == fold[runs.items].tolist()
    assert read_runs(predictions.assign(fold=0), gold).folds is None
    twice = pd.concat([predictions, predictions.assign(fold=predictions["fold"] + 5)])
    assert read_runs(twice, gold).folds is None


def test_order_and_names_change_no_bit_of_a_fold_interval():
    predictions, gold = folded(seeds=2)
    one = headline(compare_arms(predictions, gold))
    moved = predictions.sample(frac=1, random_state=1).assign(
        fold=lambda frame: 17 - frame["fold"], predicted=lambda frame: frame["predicted"].map(dict(zip("012", "cab"))),
        seed=lambda frame: 9 - frame["seed"],
    )  # fmt: skip
    other = headline(compare_arms(moved, gold.map(dict(zip("012", "cab", strict=True)))))
    for name in ("difference", "se", "low", "high", "low90", "high90", "p", "arm_mean", "control_mean", "seeds_better"):
        assert one[name] == other[name], name


def test_a_rescue_in_one_fold_leaves_the_other_folds_as_run():
    predictions, gold = folded(k=5, seeds=2)
    other, _ = folded(k=5, seeds=2, skill=(0.9, 0.9))
    chosen = (predictions["fold"] == 3) & (predictions["seed"] == 1)
    both = pd.concat([predictions.assign(attempt="as_run"), other[chosen].assign(attempt="rescue")])
    swapped = pd.concat([predictions[~chosen], other[chosen]])
    found = compare_arms(both, gold).set_index(["attempt", "metric"])
    expected = compare_arms(swapped, gold).set_index("metric")
    for name in ("difference", "se", "low", "p"):
        assert found.loc[("rescue", "macro_f1"), name] == expected.loc["macro_f1", name]
    assert found.loc[("as_run", "macro_f1"), "low"] != found.loc[("rescue", "macro_f1"), "low"]
    assert "1 collapsed seed replaced in all arms" in found.loc[("rescue", "macro_f1"), "sentence"]


def test_strata_of_folds_are_over_folds_too():
    predictions, gold = folded(k=5, seeds=2)
    level = pd.Series(np.where(gold.index < "t0200", "high", "low"), index=gold.index, name="level")
    found = compare_arms(predictions, gold, strata=level, bootstrap=50).set_index(["scope", "metric"])
    part = predictions[predictions["text_id"] < "t0200"]
    d = fold_differences(part, gold, lambda g, p: (g == p).mean())
    assert found.loc[("level high", "accuracy"), "difference"] == pytest.approx(d.mean())
    assert found["k"].eq(5).all()
    assert found["boot_low"].isna().all()


def test_classes_and_seeds_follow_the_folds():
    predictions, gold = folded(k=5, seeds=2)
    classes = compare_classes(predictions, gold).set_index("label")
    for label in "012":
        part = predictions[predictions["text_id"].map(gold) == label]
        d = fold_differences(part, gold, lambda g, p: (g == p).mean())
        assert classes.loc[label, "difference"] == pytest.approx(d.mean())
        half = (classes.loc[label, "high"] - classes.loc[label, "low"]) / 2
        assert half == pytest.approx(2.7764451051977987 * d.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4))
    seeds = compare_seeds(predictions, gold)
    assert seeds[["fold", "seed"]].drop_duplicates().shape[0] == len(seeds) == 10
    by_fold = seeds.groupby("fold")["accuracy"].mean()
    d = fold_differences(predictions, gold, lambda g, p: (g == p).mean())
    np.testing.assert_allclose(by_fold[d.index], d, atol=1e-12)


def test_an_inconclusive_fold_interval_says_that_it_needs_texts():
    predictions, gold = folded(skill=(0.7, 0.7))
    row = headline(compare_arms(predictions, gold))
    assert row["verdict"] == "INCONCLUSIVE"
    assert "texts in 10 folds" in row["sentence"]
