"""Several data sets: against statsmodels, and what does not enter the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.compare import combine_datasets, compare_arms
from consenso.compare.datasets import ALL, random_effects
from consenso.errors import ConfigError, DataError

EFFECTS = [(-0.021, 0.006), (0.004, 0.005), (-0.012, 0.009), (-0.035, 0.011), (-0.001, 0.004)]


def test_the_mean_agrees_with_statsmodels():
    from statsmodels.stats.meta_analysis import combine_effects

    y, se = map(np.array, zip(*EFFECTS, strict=True))
    expected = combine_effects(y, se**2, method_re="iterated", use_t=True)
    found = random_effects(y, se)
    assert found.mean == pytest.approx(expected.mean_effect_re)
    assert found.tau**2 == pytest.approx(expected.tau2, rel=1e-5)
    assert found.se == pytest.approx(expected.sd_eff_w_re_hksj, rel=1e-5)


def test_data_sets_that_happen_to_agree_do_not_shrink_the_interval_to_nothing():
    from statsmodels.stats.meta_analysis import combine_effects

    y, se = np.array([-0.0101, -0.01, -0.0102]), np.array([0.006, 0.005, 0.007])
    expected = combine_effects(y, se**2, method_re="iterated", use_t=True)
    found = random_effects(y, se)
    assert found.tau == 0
    assert found.se == pytest.approx(1 / np.sqrt((1 / se**2).sum()))
    assert found.se > 10 * expected.sd_eff_w_re_hksj


def comparison(skill, seed, n=400, seeds=6, **more):
    rng = np.random.default_rng(seed)
    codes, ids = rng.integers(0, 2, n), [f"t{i}" for i in range(n)]
    blocks = []
    for arm, chance in (("consensus", skill), ("gold-aligned", 0.8), ("gold", 0.81)):
        for s in range(seeds):
            predicted = np.where(rng.random(n) < chance, codes, 1 - codes).astype(str)
            blocks.append(pd.DataFrame({"arm": arm, "seed": s, "text_id": ids, "predicted": predicted}))
    gold = pd.Series(codes.astype(str), index=ids)
    return compare_arms(pd.concat(blocks), gold, **more)


def test_each_data_set_has_its_row_and_holm_counts_the_data_sets():
    from statsmodels.stats.multitest import multipletests

    tables = {
        name: comparison(skill, place) for place, (name, skill) in enumerate([("a", 0.74), ("b", 0.78), ("c", 0.8)])
    }
    found = combine_datasets(tables)
    assert found["dataset"].tolist() == ["a", "b", "c", ALL]
    each = found.iloc[:3]
    np.testing.assert_allclose(each["p_holm"], multipletests(each["p"], method="holm")[1])
    mean = found.iloc[3]
    expected = random_effects(each["difference"], each["se"])
    assert (mean["difference"], mean["se"], mean["df"], mean["k"]) == pytest.approx((expected.mean, expected.se, 2, 3))
    assert mean["predict_low"] < mean["low"] < mean["high"] < mean["predict_high"]
    assert (
        "over 3 data sets, trained on consensus labels instead of human ones, macro-F1 changes by" in mean["sentence"]
    )
    order = combine_datasets({name: tables[name] for name in "cab"}).set_index("dataset")
    assert order.loc[ALL, "difference"] == pytest.approx(mean["difference"])


def test_a_word_that_holm_takes_back_is_taken_back():
    tables = {name: comparison(0.8, 10 + place) for place, name in enumerate("bcdefg")}
    tables["a"] = comparison(0.8, 3)
    tempted = tables["a"]
    tempted.loc[tempted["is_primary"], ["difference", "se", "low", "high", "p", "verdict"]] = [
        -0.03,
        0.013,
        -0.056,
        -0.004,
        0.02,
        "WORSE",
    ]
    found = combine_datasets(tables).set_index("dataset")
    assert found.loc["a", "p_holm"] > 0.05
    assert found.loc["a", "verdict"] not in {"WORSE", "BETTER"}


def test_two_data_sets_and_those_without_a_verdict_have_no_mean():
    assert len(combine_datasets({"a": comparison(0.8, 1), "b": comparison(0.8, 2)})) == 2
    one_seed = comparison(0.8, 3, seeds=1)
    found = combine_datasets({"a": comparison(0.8, 1), "b": comparison(0.8, 2), "c": one_seed})
    assert found["dataset"].tolist() == ["a", "b", "c"]
    assert found.loc[2, "verdict"] == "NO VERDICT"
    assert np.isnan(found.loc[2, "p_holm"])


def test_a_list_is_named_by_its_tables_and_another_contrast_may_be_asked_for():
    tables = [comparison(0.8, place, dataset=name) for place, name in enumerate("abc")]
    found = combine_datasets(tables, "gold-aligned − gold", "accuracy")
    assert set(found["contrast"]) == {"gold-aligned − gold"}
    assert set(found["metric"]) == {"accuracy"}
    assert found["dataset"].tolist() == ["a", "b", "c", ALL]


def test_bad_input_is_one_line():
    a, b = comparison(0.8, 1), comparison(0.8, 2)
    with pytest.raises(DataError, match="data set 'data' stands twice"):
        combine_datasets([a, b])
    with pytest.raises(DataError, match="data set 'b' has no row for the contrast perspectivist − consensus"):
        combine_datasets({"b": b}, ("perspectivist", "consensus"))
    with pytest.raises(ConfigError, match="the data sets differ in margin"):
        combine_datasets({"a": a, "b": comparison(0.8, 2, margin=0.01)})
    with pytest.raises(DataError, match="no data set to combine"):
        combine_datasets({})


def with_variation(table):
    """The table, and the same rows under a declared variation of its student, much worse."""
    table = table.assign(student="frozen")
    varied = table.assign(student="frozen (gold dev)", difference=table["difference"] - 0.5)
    return pd.concat([table, varied], ignore_index=True)


def test_declared_variations_are_combined_only_where_they_are_asked_for():
    tables = {
        name: comparison(skill, place) for place, (name, skill) in enumerate([("a", 0.74), ("b", 0.78), ("c", 0.8)])
    }
    both = {name: with_variation(table) for name, table in tables.items()}
    found = combine_datasets(both)
    assert set(found["student"]) == {"frozen"}
    pd.testing.assert_frame_equal(found, combine_datasets({n: t.assign(student="frozen") for n, t in tables.items()}))
    varied = combine_datasets(both, student="frozen (gold dev)")
    assert set(varied["student"]) == {"frozen (gold dev)"}
    assert (varied["difference"].iloc[:3] < found["difference"].iloc[:3] - 0.4).all()
