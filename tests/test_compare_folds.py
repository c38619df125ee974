"""k-fold comparisons: the Nadeau–Bengio interval by hand, and what a fold's test texts and training size do to it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from consenso.compare import compare_arms, compare_classes, compare_seeds, read_runs
from consenso.compare.bootstrap import crossed_bootstrap
from consenso.compare.corrections import corrections_value
from consenso.compare.curves import Curve, drawn_over_folds, learning_curve
from consenso.compare.estimates import per_training_set
from consenso.compare.evidence import Evidence
from consenso.compare.folds import nadeau_bengio
from consenso.compare.frontier import cost_frontier
from consenso.compare.paired import TwoWay, two_way, unknown_result
from consenso.errors import DataError


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
    whole = predictions.assign(fold=0)
    twice = read_runs(pd.concat([whole, whole.assign(fold=1)]), gold)
    assert twice.folds is None
    assert set(twice.arms("frozen")["consensus"]) == {(0, 1), (1, 1)}


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


# one interval in every table


def several(k=5, seeds=2, n=400):
    """Gold and the predictions of several arms in k folds with test texts of their own and of unequal size."""
    skills = {
        "consensus": 0.7,
        "gold-aligned": 0.75,
        "floor": 0.35,
        "consensus+40": 0.72,
        "gold@100": 0.6,
        "gold@200": 0.7,
    }
    rng = np.random.default_rng([k, seeds, n])
    ids, gold = [f"t{i:04d}" for i in range(n)], rng.choice(3, n, p=[0.6, 0.3, 0.1])
    fold = np.minimum(rng.permutation(n) % (k + 1), k - 1)  # the last fold is twice as large
    blocks = []
    for arm, skill in skills.items():
        for s in range(1, seeds + 1):
            predicted = np.where(rng.random(n) > skill, (gold + rng.integers(1, 3, n)) % 3, gold)
            blocks.append(
                pd.DataFrame({"arm": arm, "fold": fold, "seed": s, "text_id": ids, "predicted": predicted.astype(str)})
            )
    return pd.concat(blocks, ignore_index=True), pd.Series(gold.astype(str), index=ids)


def trained(predictions):
    runs = predictions[["arm", "fold", "seed"]].drop_duplicates()
    rows = 200 + 20 * runs["fold"] + 5 * runs["arm"].str.len()
    student = compare_arms(predictions, pd.Series("0", predictions["text_id"].unique())).loc[0, "student"]
    return runs.assign(student=student, attempt="as_run", status="ok", train_rows=rows)


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
def test_frontier_corrections_and_guards_have_the_interval_of_the_comparison(metric):
    predictions, gold = several()
    trainings = trained(predictions)
    asked = [("consensus", "gold-aligned"), ("consensus+40", "consensus"), ("consensus", "floor")]
    rows = compare_arms(predictions, gold, metric=metric, contrasts=asked, trainings=trainings)
    expected = rows[rows["metric"] == metric].set_index("contrast")
    assert expected["k"].eq(5).all()
    votes = pd.DataFrame({"text_id": gold.index, "annotator": "a", "label": "0", "cost": 0.01})
    frontier = cost_frontier(predictions, gold, votes, {"consensus": ["a"]}, metric=metric, trainings=trainings).iloc[0]
    value = corrections_value(predictions, gold, metric=metric, trainings=trainings).iloc[0]
    guard = Evidence(read_runs(predictions, gold), metric=metric, trainings=trainings)
    floor = guard.difference(guard.runs.students()[0], "consensus", "floor")
    for name in ("low", "high"):
        assert frontier[name] == expected.loc["consensus − gold-aligned", name]
        assert value[name] == expected.loc["consensus+40 − consensus", name]
        assert getattr(floor, name) == expected.loc["consensus − floor", name]
    assert frontier["difference"] == expected.loc["consensus − gold-aligned", "difference"]
    assert frontier["mean"] == expected.loc["consensus − gold-aligned", "arm_mean"]
    assert value["value"] == expected.loc["consensus+40 − consensus", "difference"]
    assert "5 folds × 2 seeds, 400 test texts" in value["sentence"]


def test_a_learning_curve_of_folds_is_the_mean_of_folds_with_their_interval():
    from scipy.stats import t
    from sklearn.metrics import f1_score

    predictions, gold = several()
    curve = learning_curve(predictions, gold).set_index("arm")
    for arm in ("gold@100", "gold@200"):
        mine = predictions[predictions["arm"] == arm].assign(gold=lambda rows: rows["text_id"].map(gold))
        scores = mine.groupby(["fold", "seed"])[["gold", "predicted"]].apply(
            lambda run: f1_score(
                run["gold"], run["predicted"], average="macro", labels=sorted(set(run["gold"])), zero_division=0
            )
        )
        d = scores.groupby("fold").mean()
        half = t.ppf(0.975, 4) * d.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4)
        assert curve.loc[arm, "mean"] == pytest.approx(d.mean())
        assert curve.loc[arm, "low"] == pytest.approx(d.mean() - half)
        assert curve.loc[arm, "high"] == pytest.approx(d.mean() + half)
        assert curve.loc[arm, "S"] == 2


def test_drawn_means_over_folds_give_nadeau_and_bengios_interval_for_a_difference():
    means = np.random.default_rng(4).normal([[0.6], [0.7]], 0.03, (2, 6))
    drawn = drawn_over_folds(means, 200_000, 0)
    expected = nadeau_bengio((means[1] - means[0]).tolist(), 1 / 5)
    found = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    assert found == pytest.approx([expected.low, expected.high], abs=0.02 * (expected.high - expected.low))
    curve = Curve(("gold@100",), np.array([100]), np.zeros((2, 2, 60)), means)
    assert curve.means.tolist() == pytest.approx([means[0].mean()])
    assert curve.score == pytest.approx(means[1].mean())
    assert curve.counted == "6 folds × 2 seeds"


def test_one_seed_in_few_folds_still_tells_the_guards_the_error_of_the_texts():
    predictions, gold = several(k=3, seeds=1)
    evidence = Evidence(read_runs(predictions, gold))
    found = evidence.difference(evidence.runs.students()[0], "consensus", "floor")
    assert math.isnan(found.se)
    assert found.ms_item > 0


# folds that share their test texts


def sharing(folds=4, seeds=3, *, n=300, arms=("consensus", "gold-aligned")):
    """Predictions of training sets (folds) on the same test texts; a fold's seeds move together."""
    rng = np.random.default_rng([folds, seeds, n])
    ids, gold = [f"t{i:04d}" for i in range(n)], rng.choice(2, n)
    blocks = []
    for arm in arms:
        for fold in range(folds):
            skill = 0.75 + 0.05 * rng.standard_normal()
            for s in range(1, seeds + 1):
                predicted = np.where(rng.random(n) > skill, 1 - gold, gold).astype(str)
                blocks.append(
                    pd.DataFrame({"arm": arm, "fold": fold, "seed": s, "text_id": ids, "predicted": predicted})
                )
    return pd.concat(blocks, ignore_index=True), pd.Series(gold.astype(str), index=ids)


def averaged(predictions, gold):
    """(folds, n): right answers of consensus less those of gold-aligned, mean over the seeds of a fold."""
    right = predictions.assign(right=predictions["predicted"].eq(predictions["text_id"].map(gold)).astype(float))
    table = right.groupby(["arm", "fold", "text_id"])["right"].mean().unstack()
    return (table.loc["consensus"] - table.loc["gold-aligned"]).to_numpy()


def test_seeds_of_a_fold_share_its_training_set_and_are_averaged():
    predictions, gold = sharing()
    D = averaged(predictions, gold)
    expected = two_way(D)
    row = headline(compare_arms(predictions, gold, metric="accuracy", bootstrap=200))
    assert (row["S"], row["n"], row["replication"]) == (4, 300, "training set")
    assert math.isnan(row["k"])
    for name in ("difference", "se", "df", "low", "high", "low90", "high90", "p", "sd_seed", "sd_item", "sd_error"):
        assert row[name] == pytest.approx(getattr(expected, name), abs=1e-12), name
    assert row["seeds_better"] == np.mean(D.mean(axis=1) > 0)
    assert row["arm_mean"] - row["control_mean"] == pytest.approx(row["difference"])
    assert (row["boot_low"], row["boot_high"]) == pytest.approx(crossed_bootstrap(D, 200), abs=1e-6)
    assert "4 training sets, 300 test texts" in row["sentence"]
    assert "seeds" not in row["sentence"]


def test_seed_numbers_of_their_own_do_not_make_a_fold_more_replications():
    predictions, gold = sharing()
    numbered = predictions.assign(seed=10 * predictions["fold"] + predictions["seed"])
    one, other = (headline(compare_arms(table, gold)) for table in (predictions, numbered))
    assert (one["S"], one["low"], one["high"]) == (other["S"], other["low"], other["high"])


def test_one_training_set_is_one_replication():
    predictions, gold = sharing(folds=2)
    one = predictions[(predictions["fold"] == 0) | (predictions["arm"] == "consensus")]
    row = headline(compare_arms(one, gold))
    assert (row["verdict"], row["S"]) == ("INVALID", 1)  # the control has one fold less, and its pairing is broken
    assert math.isnan(row["low"])


def test_training_sets_that_differ_raise_no_false_alarm():
    rng, wrong = np.random.default_rng(5), 0
    seeds = [(fold, seed) for fold in range(5) for seed in range(10)]
    for _ in range(300):
        fold, seed = rng.normal(0, 0.02, (5, 1, 1)), rng.normal(0, 0.013, (5, 10, 1))
        D = fold + seed + rng.normal(0, 0.2, 200) + rng.normal(0, 0.5, (5, 10, 200))
        found = two_way(per_training_set(D.reshape(50, 200), seeds))
        wrong += found.low > 0 or found.high < 0
    assert wrong / 300 < 0.08


def test_value_tables_count_training_sets_too():
    predictions, gold = sharing(arms=("consensus", "consensus+40", "gold@50", "gold@100"))
    value = corrections_value(predictions, gold, metric="accuracy").iloc[0]
    assert "4 training sets, 300 test texts" in value["sentence"]
    D = averaged(predictions.replace({"arm": {"consensus": "gold-aligned", "consensus+40": "consensus"}}), gold)
    assert (value["low"], value["high"]) == pytest.approx((two_way(D).low, two_way(D).high))
    curve = learning_curve(predictions, gold, metric="accuracy")
    assert curve["S"].eq(4).all()
    assert curve["low"].notna().all()


@pytest.mark.parametrize("moved", [1, 30])
def test_folds_whose_test_texts_overlap_in_part_are_refused(moved):
    predictions, gold = folded(k=5, seeds=2)
    first = predictions[predictions["fold"] == 0]
    again = first[first["text_id"].isin(first["text_id"].unique()[:moved])].assign(fold=1)
    with pytest.raises(
        DataError, match=f"folds 0 and 1 share {moved} of their 80 and {80 + moved} test texts"
    ) as raised:
        compare_arms(pd.concat([predictions, again]), gold)
    assert "\n" not in str(raised.value)


def test_repeated_k_fold_is_refused():
    predictions, gold = folded(k=5)
    turned = predictions.assign(fold=5 + np.arange(len(predictions)) % 400 // 80)
    with pytest.raises(DataError, match="compare them one at a time"):
        compare_arms(pd.concat([predictions, turned]), gold)


def test_without_a_common_text_there_is_no_standard_deviation_and_no_error():
    numbers = {**vars(unknown_result(3, 0)), "ms_seed": 1.0, "ms_error": 0.5}
    assert math.isnan(TwoWay(**numbers).sd_seed)
    predictions, gold = sharing(folds=2, n=60)
    ids = sorted(gold.index)
    low, high = set(ids[:30]), set(ids[30:])
    half = predictions["text_id"].isin(low) & (predictions["arm"] == "consensus")
    other = predictions["text_id"].isin(high) & (predictions["arm"] == "gold-aligned")
    row = headline(compare_arms(predictions[half | other], gold))
    assert (row["verdict"], row["n"]) == ("INVALID", 0)
    assert math.isnan(row["sd_seed"])
