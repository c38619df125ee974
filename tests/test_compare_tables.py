"""Recalls by class, description by seed, metrics of one's own, and a comparison from what was read once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.compare import (
    METRIC_NAMES,
    METRICS,
    CompareSettings,
    add_metric,
    compare_arms,
    compare_classes,
    compare_seeds,
    crossed_bootstrap,
    read_runs,
    score_runs,
)
from consenso.compare.metrics import differences
from consenso.errors import ConfigError, DataError

NAMES = np.array(["no", "yes", "maybe"])


def example(n=300, seeds=6, skills=(("consensus", 0.68), ("gold-aligned", 0.75), ("gold", 0.78)), seed=0):
    rng = np.random.default_rng([seed, n, seeds])
    codes = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    ids = [f"t{i:04d}" for i in range(n)]
    blocks = []
    for arm, skill in skills:
        for s in range(1, seeds + 1):
            right = rng.random(n) < skill + 0.01 * rng.normal()
            predicted = NAMES[np.where(right, codes, (codes + rng.integers(1, 3, n)) % 3)]
            blocks.append(pd.DataFrame({"arm": arm, "seed": s, "text_id": ids, "predicted": predicted}))
    return pd.concat(blocks, ignore_index=True), pd.Series(NAMES[codes], index=ids)


def test_class_differences_agree_with_statsmodels_and_scikit_learn():
    from scipy.stats import t
    from sklearn.metrics import recall_score
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm
    from statsmodels.stats.multitest import multipletests

    predictions, gold = example(n=100, seeds=4)
    found = compare_classes(predictions, gold, contrasts=[("consensus", "gold-aligned")]).set_index("label")
    table = predictions.pivot(index=["arm", "seed"], columns="text_id", values="predicted")
    for label, row in found.iterrows():
        places = gold.index[gold == label]
        D = (table.loc["consensus"][places] == label).astype(float) - (table.loc["gold-aligned"][places] == label)
        each = D.stack().rename("d").reset_index()
        ms = anova_lm(ols("d ~ C(seed) + C(text_id)", each).fit())["mean_sq"]
        S, n = D.shape
        total = ms.iloc[0] + ms.iloc[1] - ms.iloc[2]
        variance = ms.iloc[1] if ms.iloc[0] <= ms.iloc[2] else max(total, ms.iloc[0], ms.iloc[1])
        spread = ms.iloc[0] ** 2 / (S - 1) + ms.iloc[1] ** 2 / (n - 1) + ms.iloc[2] ** 2 / ((S - 1) * (n - 1))
        df = n - 1 if ms.iloc[0] <= ms.iloc[2] else max(total**2 / spread, S - 1)
        half = t.ppf(0.975, df) * (variance / (S * n)) ** 0.5
        assert (row["n"], row["S"]) == (n, S)
        assert (row["low"], row["high"]) == pytest.approx((D.to_numpy().mean() - half, D.to_numpy().mean() + half))
        recalls = [
            recall_score(gold[table.columns], run, labels=[label], average=None)[0]
            for _, run in table.loc["consensus"].iterrows()
        ]
        assert row["arm_recall"] == pytest.approx(np.mean(recalls))
        assert row["arm_recall"] - row["control_recall"] == pytest.approx(row["difference"])
    np.testing.assert_allclose(found["p_holm"], multipletests(found["p"], method="holm")[1])


def test_holm_of_classes_counts_each_contrast_on_its_own():
    predictions, gold = example()
    both = compare_classes(predictions, gold)
    alone = compare_classes(predictions, gold, contrasts=["consensus − gold"])
    mine = both[both["contrast"] == "consensus − gold"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone)


def test_seed_differences_agree_with_statsmodels():
    from sklearn.metrics import f1_score
    from statsmodels.stats.contingency_tables import mcnemar

    predictions, gold = example()
    found = compare_seeds(predictions, gold, contrasts=[("consensus", "gold-aligned")])
    assert found["seed"].tolist() == [1, 2, 3, 4, 5, 6]
    table = predictions.pivot(index=["arm", "seed"], columns="text_id", values="predicted")
    truth = gold[table.columns].to_numpy()
    for row in found.itertuples():
        B, A = table.loc["consensus", row.seed].to_numpy(), table.loc["gold-aligned", row.seed].to_numpy()
        b, c = int(((truth == B) & (truth != A)).sum()), int(((truth != B) & (truth == A)).sum())
        assert (row.only_arm, row.only_control) == (b, c)
        assert row.p_mcnemar == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue)
        assert row.accuracy == pytest.approx((b - c) / len(truth))
        expected = f1_score(truth, B, average="macro") - f1_score(truth, A, average="macro")
        assert row.macro_f1 == pytest.approx(expected)


def test_seeds_that_never_disagree_have_a_p_of_one():
    predictions, gold = example(skills=(("a", 1.0), ("b", 1.0)), seeds=2)
    predictions["predicted"] = predictions["text_id"].map(gold)
    found = compare_seeds(predictions.assign(arm=predictions["arm"]), gold, contrasts=["a − b"])
    assert (found[["only_arm", "only_control"]] == 0).all(axis=None)
    assert (found["p_mcnemar"] == 1).all()


def test_what_was_read_once_serves_every_table():
    predictions, gold = example()
    runs = read_runs(predictions, gold)
    pd.testing.assert_frame_equal(compare_arms(runs), compare_arms(predictions, gold))
    pd.testing.assert_frame_equal(compare_classes(runs), compare_classes(predictions, gold))
    pd.testing.assert_frame_equal(compare_seeds(runs), compare_seeds(predictions, gold))
    with pytest.raises(DataError, match="gold is missing"):
        compare_arms(predictions)


def test_swapping_arms_flips_the_bootstrap_and_class_and_seed_tables_exactly():
    predictions, gold = example()
    one, other = ([("consensus", "gold")], [("gold", "consensus")])
    for verb, names in (
        (compare_classes, (("difference", "difference"), ("low", "high"))),
        (compare_seeds, (("macro_f1", "macro_f1"), ("accuracy", "accuracy"))),
        (lambda *given, **more: compare_arms(*given, bootstrap=500, **more), (("boot_low", "boot_high"),)),
    ):
        first, second = verb(predictions, gold, contrasts=one), verb(predictions, gold, contrasts=other)
        for name, mirrored in names:
            assert (first[name] == -second[mirrored]).all(), name


def test_the_bootstrap_is_asked_for_and_stands_beside_the_interval():
    predictions, gold = example(seeds=10)
    plain, drawn = compare_arms(predictions, gold), compare_arms(predictions, gold, bootstrap=2000)
    assert plain[["boot_low", "boot_high"]].isna().all(axis=None)
    table = predictions.pivot(index=["arm", "seed"], columns="text_id", values="predicted")
    D = differences(table.loc["consensus"], table.loc["gold"], gold[table.columns], "accuracy")
    row = drawn.set_index(["contrast", "metric"]).loc[("consensus − gold", "accuracy")]
    assert (row["boot_low"], row["boot_high"]) == pytest.approx(crossed_bootstrap(D), abs=1e-7)
    assert row["boot_low"] < row["low"] < row["high"] < row["boot_high"]  # conservative
    pd.testing.assert_frame_equal(
        drawn.drop(columns=["boot_low", "boot_high"]), plain.drop(columns=["boot_low", "boot_high"])
    )
    shuffled = compare_arms(predictions.sample(frac=1, random_state=3), gold, bootstrap=2000)
    pd.testing.assert_frame_equal(shuffled, drawn)


@pytest.fixture
def registry():
    """Metrics added in a test are gone after it."""
    before = [(known, dict(known)) for known in (METRICS, METRIC_NAMES)]
    yield
    for known, kept in before:
        known.clear()
        known.update(kept)


def missing_yes(predicted, gold):
    """Cost of a missed yes is three times that of any other error; codes are sorted names: maybe, no, yes."""
    return 1.0 - np.where(gold == 2, 3.0, 1.0) * (predicted != gold)


def test_a_metric_of_ones_own_is_computed_and_named_in_the_sentence(registry):
    add_metric("costs", missing_yes, "weighted correctness")
    predictions, gold = example()
    found = compare_arms(predictions, gold, metric="costs", contrasts=[("consensus", "gold")])
    assert set(found["metric"]) == {"costs", "macro_f1", "accuracy"}
    row = found[found["is_primary"]].iloc[0]
    assert "weighted correctness changes by" in row["sentence"]
    table = predictions.pivot(index=["arm", "seed"], columns="text_id", values="predicted")
    truth = gold[table.columns].to_numpy()
    scores = 1 - ((table != truth).astype(float) * np.where(truth == "yes", 3, 1)).mean(axis=1)
    assert row["arm_mean"] == pytest.approx(scores["consensus"].mean())
    assert row["difference"] == pytest.approx(scores["consensus"].mean() - scores["gold"].mean())


def test_a_metric_is_found_by_module_and_function(registry):
    predictions, gold = example()
    name = "consenso.compare.metrics:hits"
    found = compare_arms(predictions, gold, metrics=[name]).set_index(["contrast", "metric"])
    plain = compare_arms(predictions, gold, metrics=["accuracy"]).set_index(["contrast", "metric"])
    contrast = "consensus − gold"
    assert found.loc[(contrast, name), "low"] == plain.loc[(contrast, "accuracy"), "low"]
    assert "hits changes by" in found.loc[(contrast, name), "sentence"]
    assert score_runs(predictions, gold, metrics=["accuracy", name]).groupby("metric")["value"].mean()[name] > 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracies", r"unknown metric 'accuracies'.*Did you mean 'accuracy'"),
        ("nowhere.at_all:f", r"metric 'nowhere.at_all:f' cannot be imported.*module:function"),
        ("math:nothing", r"metric 'math:nothing' cannot be imported"),
        ("math:pi", r"metric 'math:pi' is no function but float"),
    ],
)
def test_a_metric_that_is_not_there_is_one_line(registry, name, message):
    predictions, gold = example(n=30, seeds=2)
    with pytest.raises(ConfigError, match=message) as raised:
        compare_arms(predictions, gold, metric=name)
    assert "\n" not in str(raised.value)


def test_a_metric_that_gives_no_value_per_item_is_refused(registry):
    predictions, gold = example(n=30, seeds=2)
    add_metric("mean_only", lambda predicted, gold: (predicted == gold).mean(axis=1))
    with pytest.raises(ConfigError, match=r"one finite value per seed and item, shape \(2, 30\); found shape \(2,\)"):
        compare_arms(predictions, gold, metrics=["mean_only"])


def test_settings_take_metrics_level_and_bootstrap():
    settings = CompareSettings.read({"metrics": ["balanced_accuracy"], "alpha": 0.01, "bootstrap": 2000})
    assert (settings.metrics, settings.alpha, settings.bootstrap) == (("balanced_accuracy",), 0.01, 2000)
    assert CompareSettings.read({"metric": "mine.module:score"}).metric == "mine.module:score"
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'"):
        CompareSettings.read({"metric": "acuracy"})
    with pytest.raises(ConfigError, match="at least twice the pilot's 12 seeds"):
        CompareSettings.read({"until": {"pilot": 12, "most": 20}})
