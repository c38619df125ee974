"""The numbers behind the verdict: by hand, against statsmodels and scikit-learn, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from consenso.compare import crossed_bootstrap, two_way, wilson
from consenso.compare.bootstrap import bootstrap_rows
from consenso.compare.metrics import differences, linearised_macro_f1, per_item, recalls
from consenso.compare.needs import Components, needed, tost_power
from consenso.compare.paired import exact_mean, holm, two_way_stack
from consenso.compare.verdict import BETTER, EQUIVALENT, WORSE, judge
from consenso.errors import ConfigError


def test_two_way_worked_out_by_hand_when_seeds_matter():
    # seed means 2, 4; item means 1.5, 4.5; residuals ±.5: MSs = 4, MSi = 9, MSe = 1
    result = two_way([[1, 3], [2, 6]])
    assert (result.difference, result.ms_seed, result.ms_item, result.ms_error) == (3, 4, 9, 1)
    assert result.se == pytest.approx(math.sqrt((4 + 9 - 1) / 4))
    assert result.df == pytest.approx(12**2 / (16 + 81 + 1))
    assert (result.sd_seed, result.sd_item, result.sd_error) == pytest.approx((math.sqrt(1.5), 2, 1))


def test_two_way_worked_out_by_hand_when_seeds_do_not_matter():
    # both seed means are 1; item means 2.5, .5, 0; residuals ±.5, ±.5, 0: MSs = 0, MSi = 3.5, MSe = .5
    result = two_way([[3, 0, 0], [2, 1, 0]])
    assert (result.ms_seed, result.ms_item, result.ms_error) == pytest.approx((0, 3.5, 0.5))
    assert result.se == pytest.approx(math.sqrt(3.5 / 6))
    assert result.df == 2
    t = 4.302652729749464  # t.975 with 2 degrees of freedom
    assert (result.low, result.high) == pytest.approx((1 - t * result.se, 1 + t * result.se))
    t90 = 2.919985580355516
    assert (result.low90, result.high90) == pytest.approx((1 - t90 * result.se, 1 + t90 * result.se))


def test_degrees_of_freedom_are_at_least_those_of_the_seeds():
    # MSs = 101² / 2 dominates, MSi and MSe are small: Satterthwaite is near S − 1 = 1 and may not fall below it
    D = np.array([[0.0, 1, 0, 1], [101, 100, 101, 100]])
    assert two_way(D).df >= 1


def test_mean_squares_agree_with_statsmodels():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    D = np.random.default_rng(1).normal(size=(4, 7)) + np.arange(4)[:, None] * 0.3
    seed, item = np.indices(D.shape)
    frame = pd.DataFrame({"d": D.ravel(), "seed": seed.ravel(), "item": item.ravel()})
    table = anova_lm(ols("d ~ C(seed) + C(item)", frame).fit())
    result = two_way(D)
    found = [result.ms_seed, result.ms_item, result.ms_error]
    np.testing.assert_allclose(found, table["mean_sq"].to_numpy(), rtol=1e-9)


def test_one_seed_has_a_difference_and_no_interval():
    result = two_way([[1.0, 0.0, 0.0, 1.0]])
    assert (result.difference, result.S, result.n) == (0.5, 1, 4)
    assert all(math.isnan(x) for x in (result.se, result.low, result.high, result.low90, result.high90, result.p))


def test_one_item_has_no_interval():
    assert math.isnan(two_way([[1.0], [0.0]]).se)


def test_arms_that_never_differ_have_a_difference_of_exactly_zero():
    result = two_way(np.zeros((5, 20)))
    assert (result.low, result.high, result.p) == (0, 0, 1)


def test_the_p_value_and_the_interval_say_the_same():
    rng = np.random.default_rng(2)
    results = [two_way(rng.normal(shift, 1, size=(5, 30))) for shift in np.linspace(0, 0.6, 40)]
    assert 5 < sum(result.p < 0.05 for result in results) < 35
    assert all((result.p < 0.05) == (result.low > 0 or result.high < 0) for result in results)


def test_a_stack_gives_what_each_gives_alone():
    D = np.random.default_rng(3).normal(size=(6, 4, 9))
    stacked = two_way_stack(D)
    for place, alone in enumerate(map(two_way, D)):
        assert stacked["low"][place] == pytest.approx(alone.low)
        assert stacked["df"][place] == pytest.approx(alone.df)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_f1_agrees_with_scikit_learn(classes):
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    rng = np.random.default_rng(classes)
    gold = rng.integers(0, classes, 200)
    predicted = np.where(rng.random((3, 200)) < 0.6, gold, rng.integers(0, classes, (3, 200)))
    predicted[0][predicted[0] == 1] = 0  # one class is never predicted by the first seed
    for run, values, hit, recall in zip(
        predicted,
        linearised_macro_f1(predicted, gold),
        per_item(predicted, gold, "accuracy"),
        recalls(predicted, gold),
        strict=True,
    ):
        assert values.mean() == pytest.approx(f1_score(gold, run, average="macro", zero_division=0), abs=1e-12)
        assert hit.mean() == pytest.approx(accuracy_score(gold, run))
        np.testing.assert_allclose(recall, recall_score(gold, run, average=None))


def test_a_class_without_gold_is_wrong_when_predicted_and_has_no_f1_of_its_own():
    from sklearn.metrics import f1_score

    gold, predicted = np.array([0, 0, 1, 1]), np.array([[0, 2, 1, 1]])
    expected = f1_score(gold, predicted[0], labels=[0, 1], average="macro", zero_division=0)
    assert expected == pytest.approx((2 / 3 + 1) / 2)
    assert linearised_macro_f1(predicted, gold).mean() == pytest.approx(expected)


def test_the_mean_of_the_linearised_difference_is_the_mean_macro_f1_difference_over_seeds():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(5)
    gold = rng.choice(["a", "b", "c"], 150, p=[0.6, 0.3, 0.1])
    B = np.where(rng.random((4, 150)) < 0.7, gold, "a")
    A = np.where(rng.random((4, 150)) < 0.6, gold, "b")
    expected = [
        f1_score(gold, b, average="macro") - f1_score(gold, a, average="macro") for b, a in zip(B, A, strict=True)
    ]
    D = differences(B, A, gold, "macro_f1")
    np.testing.assert_allclose(D.mean(axis=1), expected, atol=1e-12)
    assert two_way(D).difference == pytest.approx(np.mean(expected))


def test_the_linearised_values_have_the_standard_error_of_macro_f1():
    # the delta method against a bootstrap of the items themselves
    rng = np.random.default_rng(6)
    gold = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
    predicted = np.where(rng.random(400) < 0.7, gold, rng.integers(0, 3, 400))[None]
    drawn = rng.integers(0, 400, (2000, 400))
    bootstrapped = [linearised_macro_f1(predicted[:, i], gold[i]).mean() for i in drawn]
    linear = linearised_macro_f1(predicted, gold)[0].std(ddof=1) / math.sqrt(400)
    assert linear == pytest.approx(np.std(bootstrapped), rel=0.06)


def test_swapping_the_arms_flips_every_sign_exactly():
    rng = np.random.default_rng(7)
    gold, B, A = rng.integers(0, 3, 90), rng.integers(0, 3, (4, 90)), rng.integers(0, 3, (4, 90))
    for metric in ("macro_f1", "accuracy"):
        one, other = two_way(differences(B, A, gold, metric)), two_way(differences(A, B, gold, metric))
        assert (one.difference, one.low, one.high90) == (-other.difference, -other.high, -other.low90)
        assert (one.se, one.df, one.p) == (other.se, other.df, other.p)


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "balanced_accuracy", "weighted_f1"])
def test_order_of_items_and_seeds_and_names_of_labels_change_no_bit(metric):
    rng = np.random.default_rng(8)
    gold, B, A = rng.integers(0, 5, 997), rng.integers(0, 5, (7, 997)), rng.integers(0, 5, (7, 997))
    plain = two_way(differences(B, A, gold, metric))
    for _ in range(5):
        items, seeds, names = rng.permutation(997), rng.permutation(7), rng.permutation(list("zebra"))
        moved = (names[B][seeds][:, items], names[A][seeds][:, items], names[gold][items])
        assert two_way(differences(*moved, metric)) == plain


def test_turning_the_difference_turns_the_signs_and_no_more():
    rng = np.random.default_rng(17)
    for scale in (1e-9, 1.0, 1e6):
        D = rng.normal(0.1, scale, (6, 500))
        one, other = two_way(D), two_way(-D)
        assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
        assert (one.low90, one.high90) == (-other.high90, -other.low90)
        assert (one.se, one.df, one.p, one.ms_seed, one.ms_item, one.ms_error) == (
            other.se, other.df, other.p, other.ms_seed, other.ms_item, other.ms_error,
        )  # fmt: skip
        assert crossed_bootstrap(D) == tuple(-end for end in reversed(crossed_bootstrap(-D)))


def test_order_free_sums_are_as_right_as_exact_ones():
    x = np.random.default_rng(18).normal(0, 1, 100_001) * 10.0 ** np.random.default_rng(19).integers(-8, 8, 100_001)
    assert exact_mean(x) == pytest.approx(math.fsum(x) / len(x), rel=1e-15)
    assert exact_mean(x) == exact_mean(x[::-1].copy()) == exact_mean(np.sort(x))


@pytest.mark.parametrize("name", ["balanced_accuracy", "weighted_f1"])
def test_further_metrics_agree_with_scikit_learn(name):
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = np.random.default_rng(20)
    gold = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    predicted = np.where(rng.random((3, 300)) < 0.6, gold, rng.integers(0, 4, (3, 300)))
    predicted[0][predicted[0] == 3] = 0
    for run, values in zip(predicted, per_item(predicted, gold, name), strict=True):
        if name == "balanced_accuracy":
            expected = balanced_accuracy_score(gold, run)
        else:
            expected = f1_score(gold, run, average="weighted", zero_division=0)
        assert values.mean() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["balanced_accuracy", "weighted_f1"])
def test_their_linearised_values_have_the_standard_error_of_the_metric(name):
    rng = np.random.default_rng(21)
    gold = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
    predicted = np.where(rng.random(400) < 0.7, gold, rng.integers(0, 3, 400))[None]
    drawn = rng.integers(0, 400, (2000, 400))
    bootstrapped = [per_item(predicted[:, i], gold[i], name).mean() for i in drawn]
    assert per_item(predicted, gold, name)[0].std(ddof=1) / 20 == pytest.approx(np.std(bootstrapped), rel=0.06)


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown metric 'macro_fl'.*accuracy.*Did you mean 'macro_f1'"):
        per_item(np.zeros((1, 2), int), np.zeros(2, int), "macro_fl")


def test_the_crossed_bootstrap_agrees_with_the_two_way_interval():
    rng = np.random.default_rng(9)
    D = 0.01 + rng.normal(0, 0.01, (10, 1)) + rng.normal(0, 0.3, (1, 400)) + rng.normal(0, 0.4, (10, 400))
    low, high = crossed_bootstrap(D)
    result = two_way(D)
    assert (high - low) / (result.high - result.low) == pytest.approx(1.05, abs=0.15)
    assert (low + high) / 2 == pytest.approx(result.difference, abs=0.1 * result.se)
    assert crossed_bootstrap(D) == (low, high)
    assert crossed_bootstrap(D, seed=1) != (low, high)


@pytest.mark.parametrize("items", [40, 400])
def test_the_bootstrap_agrees_with_drawing_seeds_and_items_one_by_one(items):
    rng = np.random.default_rng([22, items])
    D = rng.normal(0, 0.02, (5, 1)) + rng.normal(0.01, 0.4, (5, items))
    drawn = []
    for _ in range(4000):
        rows, columns = rng.integers(0, 5, 5), rng.integers(0, items, items)
        drawn.append(D[rows][:, columns].mean())
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(crossed_bootstrap(D, draws=4000), expected, atol=0.08 * np.ptp(expected))


def test_rows_of_a_bootstrap_share_their_weights_and_keep_to_their_items():
    rng = np.random.default_rng(23)
    D, few = rng.normal(0, 0.3, (4, 500)), np.arange(0, 500, 2)
    alone = bootstrap_rows([(D, None)], 500)[0]
    both = bootstrap_rows([(D, None), (2 * D, None), (D[:, few], few)], 500)
    assert both[0] == pytest.approx(alone, abs=1e-7)
    assert both[1] == pytest.approx((2 * alone[0], 2 * alone[1]), abs=1e-6)
    assert both[2] == pytest.approx(crossed_bootstrap(D[:, few]), abs=0.01)


def test_holm_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)


def test_holm_agrees_with_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = [0.001, 0.2, 0.03, 0.04, 0.9]
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_wilson_agrees_with_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for count, total in ((0, 10), (3, 10), (10, 10), (17, 200)):
        np.testing.assert_allclose(wilson(count, total), proportion_confint(count, total, method="wilson"), atol=1e-12)


def simulate(rng, shifts, *, replications=3000, seeds=5, items=300, seed_sd=0.013, accuracy=0.7):
    """D (R, S, n) of two arms with a shared item difficulty, and its true mean.

    Correct if difficulty + arm's own item effect + noise < threshold + the seed's luck; all normal, so that expected
    accuracies are known exactly. `seed_sd` is the standard deviation of an arm's accuracy over seeds.
    """
    from scipy.stats import norm

    threshold = norm.ppf(accuracy)
    luck = seed_sd / norm.pdf(threshold)
    shared = rng.normal(0, math.sqrt(0.5), (replications, 1, items)).astype("float32")
    correct, expected = [], []
    for shift in shifts:
        own = rng.normal(0, math.sqrt(0.2), (replications, 1, items)).astype("float32")
        noise = rng.standard_normal((replications, seeds, items), dtype="float32") * math.sqrt(0.3)
        centre = norm.ppf(accuracy + shift) * math.sqrt(1 + luck**2)
        edge = centre + luck * rng.standard_normal((replications, seeds, 1), dtype="float32")
        correct.append(shared + own + noise < edge)
        expected.append(accuracy + shift)
    return correct[0].astype("float32") - correct[1].astype("float32"), expected[0] - expected[1]


@pytest.mark.parametrize("shift", [0.0, 0.02])
def test_the_interval_covers_the_truth_as_often_as_it_says(shift):
    D, truth = simulate(np.random.default_rng([10, int(1000 * shift)]), (shift, 0.0))
    found = two_way_stack(D)
    coverage = np.mean((found["low"] <= truth) & (truth <= found["high"]))
    assert 0.93 <= coverage <= 0.97


def rates(D, margin):
    """How often BETTER or WORSE, and how often EQUIVALENT is said; that `judge` says just this is checked on a few."""
    found = two_way_stack(D)
    differs = (found["low"] > 0) | (found["high"] < 0)
    equivalent = (found["low90"] > -margin) & (found["high90"] < margin) & ~differs
    few = [judge(result, margin).word for result in map(two_way, D[:50])]
    assert [word in {BETTER, WORSE} for word in few] == differs[:50].tolist()
    assert [word == EQUIVALENT for word in few] == equivalent[:50].tolist()
    return differs.mean(), equivalent.mean()


def test_no_difference_is_rarely_called_one():
    D, truth = simulate(np.random.default_rng(11), (0.0, 0.0))
    assert truth == 0
    assert 0.03 <= rates(D, 0.02)[0] <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / 3000)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent(sign):
    # at n = 300 a margin of 2 pp is never shown; 6 pp is the margin at which the test can fail
    D, truth = simulate(np.random.default_rng([12, sign + 1]), (0.06 * sign, 0.0))
    wrong = rates(D, abs(truth))[1]
    assert 0.01 <= wrong <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / 3000)
    assert rates(D, 0.02)[1] == 0


def test_the_macro_f1_interval_covers_zero_when_both_arms_learn_the_same():
    rng = np.random.default_rng(13)
    covered, replications = 0, 2000
    for _ in range(replications):
        gold = rng.choice(3, 300, p=[0.5, 0.3, 0.2])
        hard = rng.random(300) < 0.4
        arms = []
        for _arm in range(2):
            own = rng.random(300) < 0.15
            skill = 0.6 + rng.normal(0, 0.03, (5, 1))
            right = np.where(hard | own, rng.random((5, 300)) < skill - 0.2, rng.random((5, 300)) < skill + 0.3)
            arms.append(np.where(right, gold, (gold + 1 + rng.integers(0, 2, (5, 300))) % 3))
        D = linearised_macro_f1(arms[0], gold) - linearised_macro_f1(arms[1], gold)
        result = two_way(D)
        covered += result.low <= 0 <= result.high
    assert 0.93 <= covered / replications <= 0.97


def test_power_of_equivalence_agrees_with_simulation():
    # components chosen so that the power is neither 0 nor 1
    parts, S, n, margin = Components(seed=0.013**2, item=0.05, error=0.2), 8, 1000, 0.03
    rng = np.random.default_rng(14)
    seed = rng.normal(0, math.sqrt(parts.seed), (1500, S, 1)).astype("float32")
    item = rng.normal(0, math.sqrt(parts.item), (1500, 1, n)).astype("float32")
    D = seed + item + math.sqrt(parts.error) * rng.standard_normal((1500, S, n), dtype="float32")
    found = two_way_stack(D)
    shown = np.mean((found["low90"] > -margin) & (found["high90"] < margin))
    assert tost_power(parts, np.array([S]), np.array([n]), margin)[0] == pytest.approx(shown, abs=0.05)


def test_more_seeds_do_not_help_where_the_items_alone_are_too_noisy():
    rng = np.random.default_rng(15)
    D = rng.normal(0, 0.6, (1, 200)) + rng.normal(0, 0.01, (5, 200))
    needs = needed(two_way(D), margin=0.02)
    assert needs.items_first
    assert needs.seeds_high is None
    # √(.36/n) ≤ .02/2.926: n ≥ 7,700
    assert needs.items == pytest.approx(7700, rel=0.25)


def test_more_seeds_are_asked_for_where_the_seeds_are_noisy():
    rng = np.random.default_rng(16)
    D = rng.normal(0, 0.03, (5, 1)) + rng.normal(0, 0.02, (5, 2000))
    needs = needed(two_way(D), margin=0.02)
    assert not needs.items_first
    assert needs.items is None  # no number of texts makes up for five noisy seeds
    assert 5 < needs.seeds_low < needs.seeds_high
