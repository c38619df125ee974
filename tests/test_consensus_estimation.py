"""Shares of labels from consensus and a gold sample: by hand, against a transcription, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from consenso.consensus.estimation import _plain, _weighted, estimate_label_shares
from consenso.errors import ConfigError, DataError, JoinError
from consenso.intervals import wilson
from consenso.labels import LabelSchema


def drawn(seed, *, n=200, N=1800, right=0.85, shares=(0.2, 0.3, 0.5), undecided=0.05):
    """Consensus of n + N texts (null: undecided) and gold of the first n: two series by text id."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), n + N, p=shares)
    said = np.where(rng.random(n + N) < right, truth, 0)
    names = np.array(list("abcdef"), dtype=object)
    given = pd.Series(np.where(rng.random(n + N) < undecided, None, names[said]), dtype=object)
    gold = pd.Series(np.where(np.arange(n + N) < n, names[truth], None), dtype=object)
    return given, gold


def transcribed(y, f, f_without, level):
    """PPI++ for a mean (Angelopoulos, Duchi and Zrnic 2023), written apart from ours."""
    n, N = len(y), len(f_without)
    everything = np.concatenate([f, f_without])
    lam = np.cov(y, f, ddof=0)[0, 1] / ((1 + n / N) * np.var(everything, ddof=1))
    lam = min(max(lam, 0.0), 1.0)
    estimate = lam * f_without.mean() + (y - lam * f).mean()
    error = np.sqrt(np.var(lam * f_without) / N + np.var(y - lam * f) / n)
    return estimate, *norm.interval(level, estimate, error), lam


@pytest.mark.parametrize("seed", range(5))
def test_it_is_ppi_plus_plus(seed):
    given, gold = drawn(seed, n=120 + 40 * seed)
    result = estimate_label_shares(given, gold, level=0.9).set_index("label")
    has = gold.notna()
    for name in "abc":
        y, f = gold[has].eq(name).to_numpy(float), given.eq(name).to_numpy(float)
        expected = transcribed(y, f[has], f[~has], 0.9)
        np.testing.assert_allclose(
            result.loc[name, ["share", "low", "high", "weight"]].astype(float), expected, rtol=0, atol=1e-9
        )
        assert result.loc[name, "consensus_share"] == pytest.approx(f.mean())
        assert tuple(result.loc[name, ["gold_low", "gold_high"]]) == pytest.approx(wilson(int(y.sum()), len(y), 0.9))


def test_plain_ppi_by_hand():
    given = pd.Series(["a", "a", "b", "b", "a", "a", "a", "b"])
    gold = pd.Series(["a", "b", "b", "b", None, None, None, None])
    row = estimate_label_shares(given, gold, method="ppi", level=0.5).set_index("label").loc["a"]
    # .75 of the others are called a; of the four with gold .5 are called a, .25 are
    assert row["share"] == pytest.approx(0.75 + (0.25 - 0.5))
    variance = 0.75 * 0.25 / 4 + np.var([0, -1, 0, 0]) / 4
    assert row["high"] == pytest.approx(0.5 + norm.ppf(0.75) * np.sqrt(variance))


def test_a_good_consensus_is_worth_more_gold():
    gains = [estimate_label_shares(*drawn(1, right=right, N=9800))["gain"].iloc[2] for right in (0.0, 0.7, 0.95)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(1.0, abs=0.02)  # a useless consensus does no harm
    assert gains[2] > 3


@pytest.mark.parametrize("unequal", [False, True])
def test_intervals_cover_the_share_as_often_as_they_say(unequal):
    rng = np.random.default_rng(11)
    n, share, draws = 1500, 0.15, 2000
    covered = alone = 0
    for _ in range(draws):
        truth = rng.random(n) < share
        f = (rng.random(n) < np.where(truth, 0.75, 0.05)).astype(float)
        p = np.where(f == 1, 0.4, 0.1) if unequal else np.full(n, 0.15)  # gold favours what consensus gives the label
        has = rng.random(n) < p
        Y = np.where(has, truth.astype(float), np.nan)
        row = _weighted(Y, f, has / p, 0.95, "ppi++") if unequal else _plain(Y, f, 0.95, "ppi++")
        covered += row["low"] <= share <= row["high"]
        alone += row["gold_low"] <= share <= row["gold_high"]
    assert 0.93 <= covered / draws <= 0.97
    assert 0.93 <= alone / draws <= 0.97


def test_gold_of_picked_texts_is_wrong_without_their_probabilities():
    rng = np.random.default_rng(2)
    truth = rng.random(20_000) < 0.2
    said = np.where(rng.random(20_000) < 0.7, truth, ~truth)
    p = np.where(said, 0.5, 0.05)
    given = pd.Series(np.where(said, "yes", "no"), dtype=object)
    gold = pd.Series(np.where(rng.random(20_000) < p, np.where(truth, "yes", "no"), None), dtype=object)
    weighed = estimate_label_shares(given, gold, selection=pd.Series(p)).set_index("label").loc["yes"]
    plain = estimate_label_shares(given, gold).set_index("label").loc["yes"]
    assert weighed["low"] < 0.2 < weighed["high"]
    assert weighed["gold_low"] < 0.2 < weighed["gold_high"]
    assert not plain["low"] < 0.2 < plain["high"]


def test_equal_probabilities_change_next_to_nothing():
    given, gold = drawn(4)
    plain = estimate_label_shares(given, gold)
    weighed = estimate_label_shares(given, gold, selection=dict.fromkeys(given.index, 0.1))
    np.testing.assert_allclose(plain["share"], weighed["share"], atol=2e-3)
    np.testing.assert_allclose(plain["high"], weighed["high"], atol=3e-3)


def test_gold_for_every_text_leaves_nothing_to_the_consensus():
    given, gold = drawn(0, n=300, N=0)
    result = estimate_label_shares(given, gold)
    np.testing.assert_allclose(result["share"], result["gold_share"])
    assert (result["weight"] == 0).all()


def test_a_label_without_variance_gets_the_interval_of_gold_alone():
    names = LabelSchema.from_names("ab")
    row = estimate_label_shares(pd.Series(["b"] * 100), pd.Series(["b"] * 20 + [None] * 80), schema=names).iloc[0]
    assert (row["share"], row["low"]) == (0.0, 0.0)
    assert row["high"] == pytest.approx(wilson(0, 20)[1])
    assert row["few"]


def test_frames_and_string_ids_join():
    given, gold = drawn(3)
    labels = pd.DataFrame({"text_id": given.index, "label": given.to_numpy()})
    texts = pd.DataFrame({"text_id": gold.index.map(str)[::-1], "gold": gold.to_numpy()[::-1]})
    pd.testing.assert_frame_equal(estimate_label_shares(labels, texts), estimate_label_shares(given, gold))


SAID, GOLD = pd.Series(list("abab")), pd.Series(["a", "b", None, None])


@pytest.mark.parametrize(
    ("given", "gold", "options", "error", "message"),
    [
        (SAID, GOLD, {"level": 95}, ConfigError, "level"),
        (SAID, GOLD, {"method": "magic"}, ConfigError, "unknown method"),
        (SAID, GOLD.set_axis(list("wxyz")), {}, JoinError, "none of the 4"),
        (SAID, pd.Series([None] * 4, dtype=object), {}, JoinError, "none of the 4"),
        (SAID, GOLD.iloc[:1], {}, DataError, "at least two"),
        (SAID, GOLD, {"schema": LabelSchema.from_names("ac")}, DataError, "unknown label"),
        (SAID, GOLD, {"selection": {0: 0.5}}, DataError, "1 gold text"),
        (SAID, GOLD, {"selection": {0: 0.5, 1: 0.0}}, DataError, "1 gold text"),
        (SAID, GOLD, {"selection": pd.Series([0.5, 0.5], index=[0, 0])}, DataError, "twice"),
        (SAID.set_axis([0, 0, 1, 2]), GOLD, {}, DataError, "twice"),
    ],
)
def test_wrong_input_is_one_clear_line(given, gold, options, error, message):
    with pytest.raises(error, match=message):
        estimate_label_shares(given, gold, **options)
