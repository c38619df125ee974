"""The Alternative Annotator Test: by hand, against its authors' procedure, and on crowds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from consenso.consensus.alternative import _wilcoxon, alternative_annotator_test, benjamini_yekutieli
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from making import shared


def votes(columns):
    """{annotator: one label per text}; "." is a missing vote."""
    rows = [
        (text, name, label) for name, labels in columns.items() for text, label in enumerate(labels) if label != "."
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "label"])


def crowd(seed, *, n=120, humans=4, K=4, noise=0.3, missing=0.2, candidate_noise=0.2):
    """Humans h0 … and the candidates `good` and `poor`; each misses some texts."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    wrong = dict.fromkeys([f"h{i}" for i in range(humans)], noise) | {"good": candidate_noise, "poor": 0.7}
    columns = {}
    for name, share in wrong.items():
        label = np.where(rng.random(n) < share, rng.integers(0, K, n), truth).astype(str)
        label[rng.random(n) < missing] = "."
        columns[name] = label.tolist()
    return votes(columns)


def reference(frame, humans, candidate, *, epsilon, score, q=0.05, least=30):
    """Follow the authors' alt_test (github.com/nitaytech/AltTest, alt_test_example.ipynb), text by text."""
    answer = {name: dict(zip(mine["text_id"], mine["label"])) for name, mine in frame.groupby("annotator")}
    voters = {text: [h for h in humans if text in answer[h]] for text in frame["text_id"].unique()}
    kept = {text for text, who in voters.items() if len(who) >= 2 and text in answer[candidate]}
    p, rho_f, rho_h = {}, {}, {}
    for h in humans:
        mine = [text for text in answer[h] if text in kept]
        if len(mine) < least:
            continue
        wins_f, wins_h = [], []
        for text in mine:
            others = [answer[x][text] for x in voters[text] if x != h]
            s_f, s_h = score(answer[candidate][text], others), score(answer[h][text], others)
            wins_f.append(int(s_f >= s_h))
            wins_h.append(int(s_h >= s_f))
        difference = [b - a for a, b in zip(wins_f, wins_h)]
        p[h] = ttest_1samp(difference, epsilon, alternative="less").pvalue
        rho_f[h], rho_h[h] = np.mean(wins_f), np.mean(wins_h)
    rejected = multipletests(list(p.values()), alpha=q, method="fdr_by")[0]
    return np.mean(rejected), np.mean(list(rho_f.values())), p, rho_f, rho_h, dict(zip(p, rejected))


def accuracy(label, others):
    return np.mean([label == other for other in others])


def negative_rmse(label, others):
    return -np.sqrt(np.mean([(int(label) - int(other)) ** 2 for other in others]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("name", "score"), [("accuracy", accuracy), ("negative_rmse", negative_rmse)])
def test_it_follows_its_authors(seed, name, score):
    frame, humans = crowd(seed, humans=3 + seed), [f"h{i}" for i in range(3 + seed)]
    result = alternative_annotator_test(frame, humans, epsilon=0.15, score=name)
    assert list(result.loc[result["human"].eq("all"), "candidate"]) == ["good", "poor"]
    for candidate, rows in result.groupby("candidate"):
        omega, rho, p, rho_f, rho_h, rejected = reference(frame, humans, candidate, epsilon=0.15, score=score)
        overall, each = rows.iloc[0], rows.iloc[1:].set_index("human")
        assert overall["winning_rate"] == pytest.approx(omega, abs=1e-9)
        assert overall["rho_f"] == pytest.approx(rho, abs=1e-9)
        assert overall["passed"] == (omega >= 0.5)
        assert list(each.index) == list(p) == humans
        for column, expected in {"p": p, "rho_f": rho_f, "rho_h": rho_h}.items():
            np.testing.assert_allclose(each[column].astype(float), list(expected.values()), rtol=0, atol=1e-9)
        assert each["rejected"].to_dict() == rejected


def test_a_tie_is_a_win_for_both():
    frame = votes({"a": "xxy" * 20, "b": "xxy" * 20, "c": "xyy" * 20, "f": "xxx" * 20})
    rows = alternative_annotator_test(frame, ["a", "b", "c"], ["f"]).set_index("human")
    # against b and c: text 1 is a tie, text 2 a tie (1 of 2 each), text 3 lost
    assert (rows.loc["a", "rho_f"], rows.loc["a", "rho_h"]) == (pytest.approx(2 / 3), 1.0)
    # against a and b: text 2 is won, text 3 lost
    assert (rows.loc["c", "rho_f"], rows.loc["c", "rho_h"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_perfect_candidate_passes_and_an_opposite_one_fails():
    frame = votes(dict.fromkeys("abc", "xy" * 30) | {"f": "xy" * 30, "g": "yx" * 30})
    overall = alternative_annotator_test(frame, list("abc")).query("human == 'all'").set_index("candidate")
    assert overall["winning_rate"].to_dict() == {"f": 1.0, "g": 0.0}
    assert overall["passed"].to_dict() == {"f": True, "g": False}


def test_ordered_labels_have_a_distance():
    schema = LabelSchema.from_names(["low", "middle", "high"])
    labels = {"a": ["low"] * 40, "b": ["low"] * 40, "c": ["high"] * 40, "f": ["middle"] * 40}
    nominal = alternative_annotator_test(votes(labels), list("abc"), labels=schema).set_index("human")
    ordered = alternative_annotator_test(votes(labels), list("abc"), labels=schema, score="negative_rmse").set_index(
        "human"
    )
    assert nominal.loc["c", "rho_h"] == 1.0  # neither agrees with a and b
    assert ordered.loc["c", "rho_h"] == 0.0  # middle is nearer to low than high is
    moved = alternative_annotator_test(
        votes(labels), list("abc"), labels=schema, score="negative_rmse", values={"low": 0, "middle": 9, "high": 5}
    ).set_index("human")
    assert moved.loc["c", "rho_h"] == 1.0


def test_a_human_with_few_texts_is_named_but_stays_among_the_others(caplog):
    full = dict.fromkeys("abc", "xyz" * 20)
    frame = votes(full | {"d": "z" * 10 + "." * 50, "f": "xyz" * 20})
    with caplog.at_level("WARNING"):
        rows = alternative_annotator_test(frame, list("abcd"), ["f"]).set_index("human")
    assert "d" in caplog.text
    assert rows.loc["all", "n_humans"] == 3
    assert rows.loc["d", "n"] == 10
    assert rows.loc["d", ["p", "rho_f", "rejected"]].isna().all()


def test_texts_the_candidate_skips_are_counted():
    frame = votes(dict.fromkeys("abc", "xy" * 30) | {"f": "xy" * 20 + "." * 20})
    overall = alternative_annotator_test(frame, list("abc")).iloc[0]
    assert (overall["n"], overall["n_missing"]) == (40, 20)


def test_invalid_votes_and_repetitions_count_once():
    frame = votes(dict.fromkeys("abc", "xy" * 30) | {"f": "xy" * 30})
    frame = frame.assign(repetition=0, status="ok")
    again = frame.assign(repetition=1)
    broken = frame.query("annotator == 'f'").assign(repetition=2, status="refused", label=None)
    more = pd.concat([frame, again, broken], ignore_index=True)
    pd.testing.assert_frame_equal(
        alternative_annotator_test(frame, list("abc")), alternative_annotator_test(more, list("abc"))
    )


def test_below_thirty_texts_the_signed_rank_test_is_exact():
    frame = crowd(3, n=24, missing=0.0)
    rows = alternative_annotator_test(frame, [f"h{i}" for i in range(4)], ["good"], min_items=10)
    assert set(rows["test"].dropna()) == {"wilcoxon"}
    difference = np.array([0, 0, 1, -1, 0, -1, -1, 0, 0], dtype=float)
    moved = difference - 0.1
    ranks = pd.Series(np.round(abs(moved), 9)).rank().to_numpy()
    sums = [ranks[np.array(signs, dtype=bool)].sum() for signs in product([0, 1], repeat=9)]
    assert _wilcoxon(difference, 0.1) == pytest.approx(np.mean(np.array(sums) <= ranks[moved > 0].sum()), abs=1e-12)


def test_benjamini_yekutieli_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 30):
        p = rng.random(m) ** 6
        np.testing.assert_array_equal(benjamini_yekutieli(p, 0.05), multipletests(p, alpha=0.05, method="fdr_by")[0])


FINE = dict.fromkeys("abc", "xy" * 30) | {"f": "xy" * 30}


@pytest.mark.parametrize(
    ("columns", "humans", "options", "error", "message"),
    [
        (FINE, "ab", {}, ConfigError, "at least three humans"),
        (FINE, ["a", "b", "C"], {}, ConfigError, "annotator 'C'"),
        (FINE, "abc", {"candidates": ["g"]}, ConfigError, "annotator 'g'"),
        (FINE, "abc", {"candidates": ["a"]}, ConfigError, "as a human and as a candidate"),
        (FINE, "abcf", {}, ConfigError, "no candidate"),
        (FINE, "abc", {"epsilon": -1}, ConfigError, "epsilon"),
        (FINE, "abc", {"q": 0}, ConfigError, "q must"),
        (FINE, "abc", {"min_items": 1}, ConfigError, "min_items"),
        (FINE, "abc", {"score": "f1"}, ConfigError, "unknown score"),
        (FINE, "abc", {"score": "negative_rmse", "values": {"x": 1}}, ConfigError, "no number for label"),
        (FINE, "abc", {"min_items": 61}, DataError, "the most any has is 60"),
        (FINE | {"f": ["."] * 59 + ["x"]}, "abc", {}, DataError, "the most any has is 1"),
    ],
)
def test_what_cannot_be_tested_is_one_clear_line(columns, humans, options, error, message):
    with pytest.raises(error, match=message) as caught:
        alternative_annotator_test(votes(columns), list(humans), **options)
    assert "\n" not in str(caught.value)


def test_without_valid_votes_there_is_nothing_to_test():
    frame = votes(FINE).assign(label=None, status="unparsable")
    with pytest.raises(DataError, match="the most any has is 0"):
        alternative_annotator_test(frame, list("abc"))


def weather():
    """Twenty workers per tweet: the first half of the workers are the humans, the others form a consensus."""
    frame = pd.read_csv(shared("weather_crowd", "annotations.csv.gz"), dtype={"label": str})
    names = sorted(frame["annotator"].unique())
    other = frame[frame["annotator"].isin(names[51:])]
    top = other.groupby("text_id")["label"].agg(lambda given: given.mode().iloc[0])
    consensus = pd.DataFrame({"text_id": top.index, "annotator": "consensus", "repetition": 0, "label": top.to_numpy()})
    return pd.concat([frame[frame["annotator"].isin(names[:51])], consensus, other]), names


def test_weather_follows_its_authors():
    frame, names = weather()
    humans, candidates = names[:51], ["consensus", *names[51:54]]
    result = alternative_annotator_test(frame, humans, candidates)
    for candidate in candidates:
        omega, rho, p, *_ = reference(frame, humans, candidate, epsilon=0.1, score=accuracy)
        rows = result[result["candidate"].eq(candidate)].set_index("human")
        assert rows.loc["all", "winning_rate"] == pytest.approx(omega, abs=1e-9)
        assert rows.loc["all", "rho_f"] == pytest.approx(rho, abs=1e-9)
        np.testing.assert_allclose(rows.loc[list(p), "p"].astype(float), list(p.values()), rtol=0, atol=1e-9)
    assert result.query("candidate == 'consensus' and human == 'all'")["passed"].item()
