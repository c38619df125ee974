"""Thresholds for a target accuracy: by hand, against scipy's exact interval, and the promise in simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from consenso.consensus import decide
from consenso.consensus.targets import lower_bound, texts_needed, threshold_for
from consenso.errors import ConfigError, DataError
from making import shared


def test_the_bound_is_clopper_and_pearsons():
    for right, n in ((0, 10), (3, 10), (10, 10), (95, 100), (930, 1000)):
        exact = binomtest(right, n, alternative="greater").proportion_ci(0.95, method="exact").low
        assert lower_bound(right, n, 0.95) == pytest.approx(exact, abs=1e-9)


def test_the_number_needed_is_the_smallest():
    assert texts_needed(0.9, 0.95) == 29  # .9 ** 29 < .05 < .9 ** 28
    assert lower_bound(29, 29, 0.95) >= 0.9 > lower_bound(28, 28, 0.95)


def test_the_lowest_passing_threshold_is_chosen():
    values = np.repeat([1.0, 0.8, 0.6], [200, 100, 100])
    right = np.ones(400, dtype=bool)
    right[[0, 1, 200, 201, 202]] = False  # 198 of 200, 97 of 100
    right[300:350] = False  # half of the last
    found = threshold_for(values, right, 0.9)
    assert (found.threshold, found.n_kept, found.n, found.coverage) == (0.8, 300, 400, 0.75)
    assert found.accuracy_kept == pytest.approx(295 / 300)
    assert found.low == pytest.approx(lower_bound(295, 300, 0.95))
    assert found.sentence == (
        "Keep labels with a value of at least 0.8: 300 of 400 gold texts (75.0%), 98.3% of them right; "
        "with 95% confidence at least 90.0% of such labels are."
    )


def test_the_first_failure_ends_the_search():
    values = np.repeat([3.0, 2.0, 1.0], [100, 100, 2000])
    right = np.ones(2200, dtype=bool)
    right[100:200] = False  # the second step fails; with all texts the bound would reach .9 again
    assert lower_bound(2100, 2200, 0.95) > 0.9
    assert threshold_for(values, right, 0.9).threshold == 3.0


def test_rows_may_stand_in_any_order_and_nulls_are_never_kept():
    rng = np.random.default_rng(0)
    values, right = np.round(rng.random(500), 1), rng.random(500) < 0.97
    values[:50], right[:50] = np.nan, False
    found = threshold_for(values, right, 0.9)
    assert found.threshold == 0.0
    assert (found.n, found.n_kept) == (500, 450)
    assert found == threshold_for(values[::-1], right[::-1], 0.9)


def test_no_threshold_is_a_result_with_a_reason():
    none = threshold_for(np.linspace(0, 1, 300), np.arange(300) % 2 == 0, 0.9)
    assert none.threshold is None
    assert none.n_kept == 0
    assert np.isnan(none.low)
    assert "lower bound" in none.sentence
    few = threshold_for([0.9] * 20, [True] * 20, 0.9)
    assert few.threshold is None
    assert "at least 29 gold texts with a value, all right; found 20" in few.sentence
    assert threshold_for([np.nan] * 40, [False] * 40, 0.9).threshold is None
    assert threshold_for([0.9] * 29, [True] * 29, 0.9).threshold == 0.9


@pytest.mark.parametrize("target", [0.8, 0.9])
@pytest.mark.parametrize("steps", [None, 10])
def test_the_promise_holds_in_spite_of_the_search(target, steps):
    """Accuracy .6 + .4 v at the value v ~ U(0, 1): above t it is .8 + .2 t; with ten levels, the mean of the levels."""
    rng = np.random.default_rng(5)
    draws, broken, found = 600, 0, 0
    for _ in range(draws):
        value = rng.random(800)
        if steps:
            value = np.ceil(value * steps) / steps
        result = threshold_for(value, rng.random(800) < 0.6 + 0.4 * value, target)
        if result.threshold is not None:
            levels = np.arange(round(result.threshold * steps), steps + 1) / steps if steps else [result.threshold, 1]
            broken += 0.6 + 0.4 * np.mean(levels) < target - 1e-9
            found += 1
    assert found > 0.9 * draws
    assert broken / draws <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(
    ("values", "right", "options", "error", "message"),
    [
        ([1], [True], {"target": 1.0}, ConfigError, "target"),
        ([1], [True], {"target": 0.9, "confidence": 0}, ConfigError, "confidence"),
        ([1, 2], [True], {"target": 0.9}, DataError, "equally long; found 2 and 1"),
        ([], [], {"target": 0.9}, DataError, "no gold text"),
        ([1, 2], [True, None], {"target": 0.9}, DataError, "1 null"),
        (["a", "b"], [True, True], {"target": 0.9}, DataError, "must be numbers"),
        ([1, np.inf], [True, True], {"target": 0.9}, DataError, "finite"),
        (pd.Series([1, 2]), pd.Series([True, True], index=[1, 2]), {"target": 0.9}, DataError, "align"),
    ],
)
def test_wrong_input_is_one_clear_line(values, right, options, error, message):
    with pytest.raises(error, match=message):
        threshold_for(values, right, **options)


def test_weather_tweets_can_be_kept_at_ninety_percent():
    votes = pd.read_csv(shared("weather_crowd", "annotations.csv.gz"), dtype={"label": str})
    gold = pd.read_csv(shared("weather_crowd", "items.csv.gz"), dtype={"gold": str}).set_index("text_id")["gold"]
    labels = decide(votes, "majority").set_index("text_id")
    right = labels["label"].eq(gold.reindex(labels.index))
    found = threshold_for(labels["score"], right, 0.95)
    assert found.threshold is not None
    assert 0 < found.threshold < 1
    assert found.low >= 0.95
    assert right[labels["score"] >= found.threshold].mean() == pytest.approx(found.accuracy_kept)
