"""Agreement and quality against gold: by hand, and against scikit-learn, statsmodels and krippendorff."""

from __future__ import annotations

from itertools import combinations

import krippendorff
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from consenso.consensus import (
    UNDECIDED,
    annotator_quality,
    decide,
    measure_agreement,
    pair_agreement,
    resampling,
    score_against_gold,
)
from consenso.consensus.agreement import alpha_of, annotators_per_text, collapse_repetitions, landis_koch
from consenso.consensus.panel_agreement import MEASURES, effective_votes, ordinal_draws, panel_draws, panel_of
from consenso.consensus.resampling import find_alike, percentile_interval, resample
from consenso.consensus.votematrix import code_votes
from consenso.errors import ConfigError, DataError, JoinError
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from making import shared

# Krippendorff (2011), four observers and twelve units, with missing values
PUBLISHED = {
    "a": "1 2 3 3 2 1 4 1 2 . . .",
    "b": "1 2 3 3 2 2 4 1 2 5 . 3",
    "c": ". 3 3 3 2 3 4 2 2 5 1 .",
    "d": "1 2 3 3 2 4 4 1 2 5 1 .",
}


def votes(columns):
    """{annotator: labels of the texts, "." or blank-separated}; "." is a missing vote."""
    rows = [
        (text, name, label)
        for name, labels in columns.items()
        for text, label in enumerate(labels.split() if isinstance(labels, str) else labels)
        if label != "."
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "label"])


def panel(seed=0, *, n=200, annotators=4, K=3, missing=0.0):
    """Return (votes, codes): labels of each annotator, −1 where missing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(K, n, p=np.arange(1, K + 1) / np.arange(1, K + 1).sum())
    codes = np.where(rng.random((n, annotators)) < 0.6, truth[:, None], rng.integers(0, K, (n, annotators)))
    codes[rng.random(codes.shape) < missing] = -1
    text, annotator = np.nonzero(codes >= 0)
    frame = pd.DataFrame(
        {
            "text_id": text,
            "annotator": np.char.add("m", annotator.astype(str)),
            "label": np.char.add("class ", codes[text, annotator].astype(str)),
        }
    )
    return frame, codes


def value(frame, measure, scope="all"):
    found = frame[(frame["measure"] == measure) & (frame["scope"] == scope)]
    assert len(found) == 1
    return found.iloc[0]


def point(frame, measure, scope="all"):
    return value(frame, measure, scope)["value"]


# against other libraries


@pytest.mark.parametrize("seed", range(4))
def test_complete_votes_agree_with_the_libraries(seed):
    frame, codes = panel(seed, annotators=3 + seed, K=2 + seed)
    found = measure_agreement(frame, bootstrap=0)
    assert point(found, "fleiss") == pytest.approx(fleiss_kappa(aggregate_raters(codes)[0]), abs=1e-12)
    theirs = krippendorff.alpha(codes.T.astype(float), level_of_measurement="nominal")
    assert point(found, "alpha") == pytest.approx(theirs, abs=1e-12)
    kappas = []
    for a in range(codes.shape[1]):
        for b in range(a + 1, codes.shape[1]):
            kappas.append(cohen_kappa_score(codes[:, a], codes[:, b]))
            assert point(found, "cohen", f"m{a} × m{b}") == pytest.approx(kappas[-1], abs=1e-12)
            assert point(found, "raw", f"m{a} × m{b}") == pytest.approx((codes[:, a] == codes[:, b]).mean(), abs=1e-12)
    assert point(found, "cohen") == pytest.approx(np.mean(kappas), abs=1e-12)


@pytest.mark.parametrize("missing", [0.1, 0.5, 0.8])
def test_missing_votes_agree_with_the_libraries(missing):
    frame, codes = panel(7, missing=missing)
    found = measure_agreement(frame, bootstrap=0)
    theirs = krippendorff.alpha(np.where(codes < 0, np.nan, codes).T, level_of_measurement="nominal")
    assert point(found, "alpha") == pytest.approx(theirs, abs=1e-12)
    both = (codes[:, 0] >= 0) & (codes[:, 1] >= 0)
    row = value(found, "cohen", "m0 × m1")
    assert row["value"] == pytest.approx(cohen_kappa_score(codes[both, 0], codes[both, 1]), abs=1e-12)
    assert row["n"] == both.sum()
    assert value(found, "alpha")["n"] == ((codes >= 0).sum(axis=1) > 1).sum()


def test_a_crowd_where_each_tweet_has_other_workers_agrees_with_krippendorff():
    frame = pd.read_csv(shared("weather_crowd", "annotations.csv.gz"), dtype={"label": str})
    counts = pd.crosstab(frame["text_id"], frame["label"]).to_numpy()
    found = measure_agreement(frame, bootstrap=20)
    theirs = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert point(found, "alpha") == pytest.approx(theirs, abs=1e-12)
    assert point(found, "fleiss") == pytest.approx(fleiss_kappa(counts), abs=1e-12)  # exactly 20 votes each


def by_the_definition(codes, K):
    """AC1 and Brennan–Prediger, pair of votes by pair of votes; −1 is missing."""
    agreeing, shares = [], []
    for row in codes:
        given = row[row >= 0]
        if len(given):
            shares.append([(given == k).mean() for k in range(K)])
        if len(given) > 1:
            agreeing.append(np.mean([a == b for a, b in combinations(given, 2)]))
    observed, pi = np.mean(agreeing), np.mean(shares, axis=0)
    chance = sum(p * (1 - p) for p in pi) / (K - 1)
    return (observed - chance) / (1 - chance), (observed - 1 / K) / (1 - 1 / K)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(3, 60),
    annotators=st.integers(2, 7),
    K=st.integers(2, 9),
    missing=st.sampled_from([0, 0.2, 0.6]),
)
def test_random_panels_agree_with_the_libraries_and_the_definitions(seed, n, annotators, K, missing):
    frame, codes = panel(seed, n=n, annotators=annotators, K=K, missing=missing)
    names = [f"class {k}" for k in range(K)]
    found = measure_agreement(frame, labels=LabelSchema.from_names(names), bootstrap=0, ordered=True)
    counts = np.stack([(codes == k).sum(axis=1) for k in range(K)], axis=1)
    pairable = counts[counts.sum(axis=1) > 1]
    if not len(pairable) or (pairable.sum(axis=0) > 0).sum() < 2:
        assert np.isnan(point(found, "alpha"))
        return
    for level in ("nominal", "ordinal", "interval"):
        theirs = krippendorff.alpha(value_counts=counts, level_of_measurement=level)
        assert point(found, "alpha" if level == "nominal" else f"alpha_{level}") == pytest.approx(theirs, abs=1e-12)
    assert (point(found, "ac1"), point(found, "brennan_prediger")) == pytest.approx(
        by_the_definition(codes, K), abs=1e-12
    )
    if not missing:
        assert point(found, "fleiss") == pytest.approx(fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
def test_labels_that_are_numbers_are_ordered_and_spaced_by_them(metric):
    numbers = np.array([1, 2, 5, 10])  # as text 10 comes before 2
    _, codes = panel(4, K=4, missing=0.3)
    columns = {f"m{a}": [str(numbers[c]) if c >= 0 else "." for c in codes[:, a]] for a in range(4)}
    theirs = krippendorff.alpha(np.where(codes < 0, np.nan, numbers[codes]).T, level_of_measurement=metric)
    assert alpha_of(code_votes(votes(columns)), metric) == pytest.approx(theirs, abs=1e-12)


# published and worked out by hand


def test_the_published_example_with_missing_votes():
    found = measure_agreement(votes(PUBLISHED), bootstrap=0, ordered=True)
    assert point(found, "alpha") == pytest.approx(0.743, abs=5e-4)  # Krippendorff (2011), section C
    assert point(found, "alpha_ordinal") == pytest.approx(0.815, abs=5e-4)  # the same, section D
    assert point(found, "alpha_interval") == pytest.approx(0.849, abs=5e-4)
    # overview of irrCAC (Gwet), *.raw(cac.raw4raters)
    assert point(found, "fleiss") == pytest.approx(0.76117, abs=5e-6)
    assert point(found, "ac1") == pytest.approx(0.77544, abs=5e-6)
    assert point(found, "brennan_prediger") == pytest.approx(0.77273, abs=5e-6)


# Fleiss (1971): how many of six psychiatrists gave 15 patients each of five diagnoses
DIAGNOSES = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031"""


def test_the_published_example_of_six_psychiatrists():
    rows = [
        (text, f"psychiatrist {annotator}", str(label))
        for text, counts in enumerate(DIAGNOSES.split())
        for annotator, label in enumerate(np.repeat(range(5), [int(number) for number in counts]))
    ]
    frame = pd.DataFrame(rows, columns=["text_id", "annotator", "label"])
    found = measure_agreement(frame)
    # overview of irrCAC (Gwet), *.dist(distrib.6raters): value and standard error (linearised, not the jackknife's)
    published = {
        "ac1": (0.4448007, 0.08418757),
        "fleiss": (0.4139265, 0.08119291),
        "alpha": (0.4204384, 0.08243228),
        "brennan_prediger": (0.4388889, 0.08312142),
    }
    for measure, (expected, error) in published.items():
        row = value(found, measure)
        assert row["value"] == pytest.approx(expected, abs=5e-8)
        half = np.log((1 - row["low"]) / (1 - row["value"]))
        assert half * (1 - expected) / 2.1448 == pytest.approx(error, rel=0.1)  # t with 14 degrees of freedom


def test_two_annotators_by_hand():
    found = measure_agreement(votes({"a": "x x x y y", "b": "x x y y x"}), bootstrap=0)
    assert point(found, "raw", "a × b") == pytest.approx(3 / 5)
    # p_e = .6·.6 + .4·.4 = .52 → (.6 − .52) / .48
    assert point(found, "cohen", "a × b") == pytest.approx(1 / 6)
    # pooled shares .6, .4: the same chance
    assert point(found, "fleiss") == pytest.approx(1 / 6)
    # n = 10, D_o = 4, n² − Σ n_k² = 100 − 36 − 16 = 48: 1 − 9·4/48
    assert point(found, "alpha") == pytest.approx(1 / 4)
    # of 6 votes for x, 4 meet x; of 4 for y, 2 meet y
    assert point(found, "specific", "x") == pytest.approx(2 / 3)
    assert point(found, "specific", "y") == pytest.approx(1 / 2)


def test_kappa_of_two_constant_annotators_is_missing_not_one():
    found = measure_agreement(votes({"a": "x x x", "b": "x x x", "c": "x y x"}), bootstrap=50)
    row = value(found, "cohen", "a × b")
    assert row[["value", "low", "high"]].isna().all()
    assert row["n"] == 3
    assert point(found, "raw", "a × b") == 1
    assert point(found, "cohen") == pytest.approx(0)  # the mean of the two pairs that have one


def test_chance_corrected_agreement_on_one_label_is_missing():
    found = measure_agreement(votes({"a": "x x", "b": "x x"}), bootstrap=10)
    for measure in ("cohen", "fleiss", "alpha"):
        assert np.isnan(point(found, measure))
    assert point(found, "raw") == 1


def test_one_annotator_has_no_agreement_but_rows_that_say_so():
    found = measure_agreement(votes({"a": "x y x"}), bootstrap=10)
    panel_measures = {"fleiss", "alpha", "ac1", "brennan_prediger", "effective_votes"}
    assert set(found["measure"]) == {"raw", "cohen", "specific"} | panel_measures
    assert found["value"].isna().all()
    assert (found["n"] == 0).all()


def test_all_votes_invalid_is_a_table_of_nulls():
    found = measure_agreement(pd.DataFrame({"text_id": [1, 1], "annotator": ["a", "b"], "label": [None, None]}))
    assert found["value"].isna().all()


def test_one_text_has_a_value_and_no_interval():
    row = value(measure_agreement(votes({"a": "x", "b": "x", "c": "y"}), bootstrap=100), "raw")
    assert row["value"] == pytest.approx(1 / 3)
    assert row[["low", "high"]].isna().all()


@pytest.mark.parametrize(
    "columns",
    [
        {"a": "x y x y", "b": "x x x x"},  # b is constant
        {"a": "x y x y", "b": "x y x y", "c": "x y y y"},  # a and b are the same
        {"a": "x", "b": "y"},
        {"a": "x . y", "b": ". y ."},  # never the same text
        {"ä": "да нет да нет", "ж × 1": "да да нет нет"},
        {f"a{i:03d}": "." * i + "xy"[i % 2] * 2 for i in range(300)},
    ],
)
@pytest.mark.parametrize("intervals", ["jackknife", "bootstrap"])
def test_odd_panels_give_rows_with_null_or_bounded_values(columns, intervals):
    columns = {name: labels if " " in labels else list(labels) for name, labels in columns.items()}
    found = measure_agreement(votes(columns), ordered=True, intervals=intervals, bootstrap=50)
    assert not found.duplicated(["measure", "scope"]).any()
    known = found[found["value"].notna() & found["measure"].ne("effective_votes")]
    assert known["value"].between(-1 - 1e-12, 1).all()
    known = known[known["low"].notna()]
    assert (known["low"] <= known["high"]).all()


def test_five_hundred_labels():
    frame, codes = panel(6, n=120, K=500, missing=0.2)
    found = measure_agreement(frame, ordered=True)
    theirs = krippendorff.alpha(np.where(codes < 0, np.nan, codes).T, level_of_measurement="nominal")
    assert point(found, "alpha") == pytest.approx(theirs, abs=1e-12)
    assert found.loc[found["scope"] == "all", ["low", "high"]].notna().all(axis=None)


def test_of_very_many_pairs_those_with_the_most_texts_have_rows_and_all_count_in_the_mean():
    columns = {f"a{i:03d}": ["x", "y", "." if i % 2 else "x"] for i in range(120)}  # 7,140 pairs; 1,770 share 3 texts
    found = measure_agreement(votes(columns))
    rows = found[(found["measure"] == "raw") & (found["scope"] != "all")]
    assert len(rows) == 5000
    assert (rows["n"] == 3).sum() == 1770
    assert value(found, "raw")["value"] == 1


def test_a_label_that_nobody_gave_counts_in_ac1_and_brennan_prediger():
    frame = votes({"a": "x x x y", "b": "x x y y"})
    seen, three = (
        measure_agreement(frame, labels=LabelSchema.from_names(names), bootstrap=0) for names in ("xy", "xyz")
    )
    assert point(seen, "brennan_prediger") == pytest.approx((0.75 - 1 / 2) / (1 / 2))
    assert point(three, "brennan_prediger") == pytest.approx((0.75 - 1 / 3) / (2 / 3))
    # π = 5/8, 3/8: Σ π (1 − π) = 30/64
    assert point(three, "ac1") == pytest.approx((0.75 - 15 / 64) / (1 - 15 / 64))
    assert point(three, "alpha") == point(seen, "alpha")


def test_effective_votes_follow_from_alpha_and_the_votes_per_text():
    found = measure_agreement(votes(PUBLISHED))
    alpha = value(found, "alpha")
    n = 41 / 12
    row = value(found, "effective_votes")
    for end, other in (("value", "value"), ("low", "high"), ("high", "low")):
        assert row[end] == pytest.approx(n / (1 + (n - 1) * alpha[other]))
    assert effective_votes(3, -0.4) == 3
    assert effective_votes(3, 1.0) == 1
    tied = pd.concat([repeated(), repeated().assign(text_id=lambda f: f["text_id"] + 3)])
    assert annotators_per_text(code_votes(tied)) == 2  # a tie of an annotator with itself is a valid vote of it


@pytest.mark.parametrize(
    ("kappa", "word"),
    [(-0.01, "poor"), (0, "slight"), (0.2, "slight"), (0.21, "fair"), (0.4, "fair"), (0.6, "moderate"),
     (0.8, "substantial"), (0.81, "almost perfect"), (1, "almost perfect"), (float("nan"), "undefined")],
)  # fmt: skip
def test_the_words_of_landis_and_koch(kappa, word):
    assert landis_koch(kappa) == word


def test_pairs_without_a_common_text_have_no_row():
    found = measure_agreement(votes({"a": "x y . .", "b": "x x x y", "c": ". . x x"}), bootstrap=0)
    assert set(found.loc[found["measure"] == "raw", "scope"]) == {"all", "a × b", "b × c"}


def test_invalid_votes_are_missing_votes():
    frame = votes(PUBLISHED)
    invalid = pd.DataFrame({"text_id": 0, "annotator": ["e"], "label": [None], "status": ["refused"]})
    with_invalid = pd.concat([frame.assign(status="ok"), invalid])
    pd.testing.assert_frame_equal(measure_agreement(frame, bootstrap=9), measure_agreement(with_invalid, bootstrap=9))


@pytest.mark.parametrize("intervals", ["jackknife", "bootstrap"])
def test_names_and_orders_do_not_matter_not_even_for_the_intervals(intervals):
    frame, _ = panel(1, missing=0.2)
    before = measure_agreement(frame, bootstrap=200, intervals=intervals)
    renamed = frame.sample(frac=1, random_state=0).assign(
        annotator=lambda f: f["annotator"].map({"m0": "z", "m1": "y", "m2": "x", "m3": "w"}),
        label=lambda f: f["label"].map({"class 0": "r", "class 1": "q", "class 2": "p"}),
    )
    after = measure_agreement(renamed, bootstrap=200, intervals=intervals)
    numbers = ["value", "low", "high", "n"]
    scopes = {"class 0": "r", "m0 × m2": "x × z"}
    for measure, scope in zip(before["measure"], before["scope"]):
        if scope in ("all", *scopes):
            mine, theirs = value(before, measure, scope), value(after, measure, scopes.get(scope, scope))
            assert mine[numbers].tolist() == pytest.approx(theirs[numbers].tolist(), abs=1e-12)


# repetitions


def repeated():
    rows = [
        *[(0, "a", r, label) for r, label in enumerate(["x", "x", "y"])],  # modal x, ⅔
        *[(1, "a", r, label) for r, label in enumerate(["y", "y", "y"])],  # y, 1
        *[(2, "a", r, label) for r, label in enumerate(["x", "y"])],  # a tie: ½, no vote
        *[(text, "b", 0, label) for text, label in enumerate(["x", "x", "x"])],
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "repetition", "label"])


def test_repetitions_become_their_majority_and_a_tie_is_missing():
    row = value(measure_agreement(repeated(), bootstrap=0), "raw", "a × b")
    assert (row["value"], row["n"]) == (0.5, 2)


def test_consistency_is_the_mean_share_of_the_modal_label():
    found = measure_agreement(repeated(), bootstrap=200)
    row = value(found, "consistency", "a")
    assert row["value"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert row["n"] == 3
    assert row["low"] < row["value"] < row["high"]
    assert point(found, "consistency") == row["value"]
    assert "b" not in set(found["scope"])


def test_collapsing_repetitions_equals_doing_it_by_hand():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            (t, f"a{a}", r, "xyz"[rng.integers(3)])
            for t in range(40)
            for a in range(3)
            for r in range(rng.integers(1, 5))
        ],
        columns=["text_id", "annotator", "repetition", "label"],
    )
    single, _ = collapse_repetitions(code_votes(frame))
    found = dict(zip(zip(single.text, single.annotator), np.array(single.labels)[single.label]))
    expected = {}
    for (text, annotator), group in frame.groupby(["text_id", "annotator"]):
        modes = group["label"].mode()
        if len(modes) == 1:
            expected[text, int(annotator[1:])] = modes.iloc[0]
    assert found == expected


# intervals


def test_each_draw_is_the_measure_of_the_drawn_texts():
    frame, _ = panel(3, n=50, missing=0.3, K=3)
    panels = panel_of(code_votes(frame))
    drawn = resample(panels.sizes.astype(int), 5, [0, 1])
    assert (drawn.counts.sum(axis=1) == len(set(frame["text_id"]))).all()
    draws, ordinal = panel_draws(panels, drawn.counts), ordinal_draws(panels, drawn.counts)
    for row, rank, weights in zip(draws, ordinal, drawn.counts, strict=True):
        counts = np.repeat(panels.counts.toarray(), weights, axis=0)
        for found, level in (
            (row[1], "nominal"),
            (rank[0], "ordinal"),
            (row[MEASURES.index("alpha_interval")], "interval"),
        ):
            theirs = krippendorff.alpha(value_counts=counts, level_of_measurement=level)
            assert found == pytest.approx(theirs, abs=1e-12)


def test_jackknife_intervals_are_those_of_measuring_again_without_each_text():
    frame, _ = panel(8, n=25, K=3, missing=0.3)
    again = frame[frame["text_id"] < 12].sample(frac=0.7, random_state=0).assign(repetition=1)
    again["label"] = np.where(np.arange(len(again)) % 3 == 0, "class 0", again["label"])
    frame = pd.concat([frame.assign(repetition=0), again])
    schema = LabelSchema.from_names(["class 0", "class 1", "class 2"])
    rows = ["measure", "scope"]
    found = measure_agreement(frame, labels=schema, ordered=True).set_index(rows)
    left_out = pd.concat(
        [
            measure_agreement(frame[frame["text_id"] != text], labels=schema, ordered=True, bootstrap=0)
            for text in frame["text_id"].unique()
        ]
    )
    left_out = left_out.pivot_table(index=rows, values="value", aggfunc=list, dropna=False)["value"]
    for key, row in found.iterrows():
        x, n = row["value"], row["n"]
        if key[0] == "effective_votes" or (key[0] == "raw" and key[1] != "all") or x == 1:
            continue  # of alpha; Wilson's; without an error
        values = np.array(left_out[key])
        # texts that a pair, a label or an annotator lacks do not move it, nor do they count
        number = n if key[1] != "all" or key[0] == "consistency" else len(values)
        centre = (values.sum() - (len(values) - number) * x) / number
        squares = ((values - x) ** 2).sum() - number * (centre - x) ** 2
        error = np.sqrt((number - 1) / number * squares)
        share = key[0] in ("raw", "specific", "consistency")
        slope = x * (1 - x) if share else 1 - x
        half = t.ppf(0.975, n - 1) * error / slope
        expected = expit(logit(x) + np.array([-half, half])) if share else 1 - (1 - x) * np.exp([half, -half])
        assert [row["low"], row["high"]] == pytest.approx(np.maximum(expected, -1), abs=1e-9), key


def test_large_crowds_are_counted_as_small_ones(monkeypatch):
    """Tables of pairs too large for one array are sorted: the same rows."""
    frame, _ = panel(9, annotators=6, missing=0.5)
    before = measure_agreement(frame)
    monkeypatch.setattr(pair_agreement, "TABLE", 0)
    pd.testing.assert_frame_equal(before, measure_agreement(frame))


def test_both_ways_of_finding_patterns_agree(monkeypatch):
    frame, _ = panel(10, n=300, missing=0.3)
    coded = code_votes(frame)
    first, sizes = find_alike(coded.text, coded.label)
    monkeypatch.setattr(resampling, "TABLE", 1)
    other_first, other_sizes = find_alike(coded.text, coded.label)
    assert first.tolist() == other_first.tolist()
    assert sizes.tolist() == other_sizes.tolist()
    assert len(first) < 50


def test_perfect_agreement_is_not_certain():
    few, many = (measure_agreement(votes({"a": "x y " * n, "b": "x y " * n})) for n in (5, 500))
    for measure, chance in (("cohen", 0.5), ("fleiss", 0.5), ("ac1", 0.5), ("raw", 0)):
        for frame, n in ((few, 10), (many, 1000)):
            row = value(frame, measure)
            assert (row["value"], row["high"]) == (pytest.approx(1), 1)
            assert row["low"] == pytest.approx(1 - (1 - wilson(n, n)[0]) / (1 - chance))


@pytest.mark.parametrize("intervals", ["jackknife", "bootstrap"])
def test_a_measure_that_hangs_on_one_text_has_no_interval(intervals):
    found = measure_agreement(votes({"a": "x " * 50 + "y", "b": "x " * 50 + "y"}), intervals=intervals)
    for measure in ("cohen", "fleiss", "alpha"):
        assert value(found, measure)["value"] == 1
        assert value(found, measure)[["low", "high"]].isna().all()


def test_texts_that_are_all_alike_do_not_make_a_measure_certain():
    found = measure_agreement(votes({"a": "x " * 30, "b": "x " * 30, "c": "y " * 30}))
    row = value(found, "raw")
    assert (row["low"], row["high"]) == pytest.approx(wilson(10, 30), abs=1e-12)
    row = value(found, "fleiss")
    assert row["value"] == pytest.approx((1 / 3 - 5 / 9) / (4 / 9))
    assert (row["low"], row["high"]) == pytest.approx([(end - 5 / 9) / (4 / 9) for end in wilson(10, 30)], abs=1e-12)


def test_bootstrap_and_jackknife_intervals_are_alike_with_many_texts():
    frame, _ = panel(11, n=3000, missing=0.2)
    one, other = (
        measure_agreement(frame, ordered=True, intervals=i, bootstrap=2000) for i in ("jackknife", "bootstrap")
    )
    assert one["value"].tolist() == pytest.approx(other["value"].tolist(), abs=1e-12)
    width = one["high"] - one["low"]
    assert ((other["high"] - other["low"]) / width).between(0.9, 1.1).all()
    assert ((one["low"] - other["low"]).abs() < 0.1 * width).all()


def test_the_interval_of_raw_agreement_is_the_binomial_one():
    frame = votes({"a": ["x"] * 400, "b": ["x"] * 320 + ["y"] * 80})
    row = value(measure_agreement(frame, bootstrap=4000), "raw", "a × b")
    assert row["value"] == 0.8
    assert row["low"] == pytest.approx(0.8 - 1.96 * 0.02, abs=0.004)
    assert row["high"] == pytest.approx(0.8 + 1.96 * 0.02, abs=0.004)


def test_the_interval_of_kappa_is_that_of_a_plain_bootstrap():
    frame, codes = panel(5, n=150, annotators=2)
    row = value(measure_agreement(frame, bootstrap=3000, intervals="bootstrap"), "cohen")
    rng = np.random.default_rng(99)
    plain = []
    for _ in range(3000):
        at = rng.integers(0, 150, 150)
        table = np.bincount(codes[at, 0] * 3 + codes[at, 1], minlength=9).reshape(3, 3) / 150
        chance = table.sum(axis=0) @ table.sum(axis=1)
        plain.append((np.trace(table) - chance) / (1 - chance))
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.01)


def test_both_ways_of_drawing_texts_agree():
    """A count per pattern (few patterns) and text by text (many): the same distribution."""
    few = resample(np.array([60, 30, 10]), 4000, [0]).counts / 100
    many = resample(np.ones(100, dtype=int), 4000, [0]).counts
    grouped = np.column_stack([many[:, :60].sum(axis=1), many[:, 60:90].sum(axis=1), many[:, 90:].sum(axis=1)]) / 100
    assert few.mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.003)
    assert grouped.mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.003)
    assert few.std(axis=0) == pytest.approx(grouped.std(axis=0), rel=0.05)


def test_an_interval_is_missing_where_the_measure_often_is():
    draws = np.array([[1.0, 1.0, 1.0]] * 90 + [[np.nan, 2.0, np.nan]] * 4 + [[np.nan, 3.0, 1.0]] * 6)
    low, high = percentile_interval(draws, np.array([9, 9, 9]))
    assert np.isnan(low[0])
    assert (low[1], high[1]) == (1, 3)
    assert (low[2], high[2]) == (1, 1)
    assert np.isnan(percentile_interval(draws, np.array([1, 1, 1]))[0]).all()


def test_the_seed_decides_the_bootstrap_and_nothing_else():
    frame, _ = panel(2)
    one, again, other = (measure_agreement(frame, bootstrap=100, seed=s, intervals="bootstrap") for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert (one["low"] != other["low"]).any()
    assert one["value"].equals(other["value"])
    pd.testing.assert_frame_equal(measure_agreement(frame, seed=1), measure_agreement(frame, seed=2, bootstrap=9))


def test_no_draws_no_intervals():
    found = measure_agreement(votes(PUBLISHED), bootstrap=0)
    assert found[["low", "high"]].isna().all(axis=None)


def test_wrong_input_is_one_clear_line():
    with pytest.raises(ConfigError, match="bootstrap must be 0"):
        measure_agreement(votes(PUBLISHED), bootstrap=-1)
    with pytest.raises(ConfigError, match="intervals must be one of auto, jackknife, bootstrap; found 'bca'"):
        measure_agreement(votes(PUBLISHED), intervals="bca")
    with pytest.raises(DataError, match="unknown label '3'"):
        measure_agreement(votes(PUBLISHED), labels=LabelSchema.from_names(["1", "2"]))


# quality against gold

SCHEMA = LabelSchema.from_names(["neg", "neu", "pos", "never"])


def series(*labels, start=0):
    return pd.Series(labels, index=range(start, start + len(labels)), dtype=object)


def random_answers(seed=0, n=300):
    rng = np.random.default_rng(seed)
    gold = np.array(["neg", "neu", "pos"], dtype=object)[rng.integers(0, 3, n)]
    answer = np.where(
        rng.random(n) < 0.6, gold, np.array(["neg", "neu", "pos", "never"], dtype=object)[rng.integers(0, 4, n)]
    )
    answer[rng.random(n) < 0.1] = None
    return pd.Series(answer, dtype=object), pd.Series(gold, dtype=object)


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed):
    answer, gold = random_answers(seed)
    found = score_against_gold(answer, gold, SCHEMA)
    told = answer.fillna(UNDECIDED)
    classes = ["neg", "neu", "pos"]
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, told), abs=1e-12)
    macro = f1_score(gold, told, labels=classes, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(macro, abs=1e-12)
    decided = answer.notna()
    assert found["accuracy_decided"] == pytest.approx(accuracy_score(gold[decided], answer[decided]), abs=1e-12)
    assert found["coverage"] == decided.mean()
    names = [*SCHEMA.names, UNDECIDED]
    theirs = confusion_matrix(gold, told, labels=names)[:4]
    assert found["confusion"].to_numpy().tolist() == theirs.tolist()
    assert list(found["confusion"].columns) == names
    each = precision_recall_fscore_support(gold, told, labels=SCHEMA.names, zero_division=0)
    for column, expected in zip(("precision", "recall", "f1", "gold"), each, strict=True):
        assert found["by_label"][column].tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_an_undecided_text_is_wrong_and_counted_apart():
    found = score_against_gold(series("pos", None, "neg", "neg"), series("pos", "pos", "neg", "pos"), SCHEMA)
    assert (found["n"], found["n_decided"], found["coverage"]) == (4, 3, 0.75)
    assert found["accuracy"] == 0.5
    assert found["accuracy_decided"] == pytest.approx(2 / 3)
    # pos: tp 1, gold 3, given 1 → ½; neg: tp 1, gold 1, given 2 → ⅔; never has no gold
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["confusion"].loc["pos", UNDECIDED] == 1


def test_texts_without_gold_are_left_out_and_counted():
    found = score_against_gold(series("pos", "neg", "pos"), series("pos", None, None), SCHEMA)
    assert (found["n"], found["n_without_gold"], found["accuracy"]) == (1, 2, 1)


def test_gold_of_texts_that_were_not_labelled_is_left_out():
    assert score_against_gold(series("pos"), series("pos", "neg", "neg"), SCHEMA)["n"] == 1


def test_texts_are_joined_by_id_not_by_row():
    given, gold = series("pos", "neg", "neu"), series("pos", "neg", "neu")
    assert score_against_gold(given.iloc[::-1], gold, SCHEMA)["accuracy"] == 1
    assert score_against_gold(given.set_axis(["0", "1", "2"]), gold, SCHEMA)["accuracy"] == 1


def test_nothing_decided_has_no_accuracy_of_decided():
    found = score_against_gold(series(None, None), series("pos", "neg"), SCHEMA)
    assert (found["accuracy"], found["macro_f1"], found["coverage"]) == (0, 0, 0)
    assert np.isnan(found["accuracy_decided"])


def test_accuracy_by_level_of_a_labels_table():
    frame = votes({"a": "x x y x", "b": "x y y y", "c": "x x y ."})
    gold = pd.DataFrame({"text_id": [0, 1, 2, 3], "gold": ["x", "y", "y", "x"]})
    found = score_against_gold(decide(frame, "majority"), gold)["by_level"]
    assert found.to_dict("records") == [
        {"level": "high", "n": 2, "accuracy": 1.0},
        {"level": "medium", "n": 1, "accuracy": 0.0},
        {"level": "low", "n": 1, "accuracy": 0.0},
    ]


def test_wrong_gold_is_one_clear_line():
    with pytest.raises(JoinError, match="none of the 1 given texts has gold"):
        score_against_gold(series("pos"), series("pos", start=5), SCHEMA)
    with pytest.raises(DataError, match=r"unknown label\(s\) \['maybe'\]"):
        score_against_gold(series("pos"), series("maybe"), SCHEMA)
    with pytest.raises(DataError, match="text_id 0 stands twice"):
        score_against_gold(series("pos", "neg").set_axis([0, 0]), series("pos"), SCHEMA)


def test_invalid_votes_are_errors_of_their_annotator():
    frame = pd.DataFrame(
        {
            "text_id": [0, 1, 2, 3, 0, 1, 2, 3, 0],
            "annotator": ["b"] * 4 + ["a"] * 4 + ["c"],
            "label": ["pos", "neg", None, "pos", "pos", "pos", "pos", "pos", None],
            "status": ["ok", "ok", "unparsable", "ok", "ok", "ok", "ok", "ok", "settled"],
        }
    )
    found = annotator_quality(frame, series("pos", "neg", "neg", None), SCHEMA).set_index("annotator")
    assert list(found.index) == ["a", "b"]  # c was never asked
    assert found.loc["b", ["n", "valid", "accuracy", "accuracy_valid"]].tolist() == pytest.approx([3, 2 / 3, 2 / 3, 1])
    assert found.loc["a", ["n", "valid", "accuracy"]].tolist() == pytest.approx([3, 1, 1 / 3])
    assert found["constant"].tolist() == [True, False]
    assert found.loc["a", "macro_f1"] == pytest.approx((2 / 4 + 0) / 2)


def test_annotators_without_gold_are_an_error():
    with pytest.raises(JoinError, match="none of the votes"):
        annotator_quality(votes({"a": "pos neg"}), series("pos", start=9), SCHEMA)
