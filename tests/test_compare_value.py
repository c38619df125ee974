"""What labels are worth: n* and its interval, prices, corrections and the frontier, on data whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import norm

from consenso.compare.corrections import corrections_value
from consenso.compare.costs import money, spent
from consenso.compare.curves import Curve, drawn_means, isotonic, labels_at, learning_curve
from consenso.compare.frontier import cost_frontier, frontier_sentence
from consenso.compare.paired import two_way
from consenso.compare.value import ValueSettings, labels_worth
from consenso.errors import ConfigError, DataError
from consenso.intervals import wilson
from consenso.tables import FRONTIER, LEARNING_CURVE, VALUE, check

GRID = (250, 500, 1000, 2000, 4000)


def accuracy_at(n: float) -> float:
    return float(0.80 - 2 / math.sqrt(n))


def table(hits: dict[str, np.ndarray], gold: np.ndarray, student: str = "given") -> pd.DataFrame:
    """PREDICTIONS of arms from hits (S, n): a hit gives gold, a miss the other label."""
    other = np.where(gold == "yes", "no", "yes")
    blocks = [
        pd.DataFrame(
            {
                "student": student, "arm": arm, "fold": 0, "seed": seed, "attempt": "as_run", "part": "test",
                "text_id": [f"t{i:05d}" for i in range(len(gold))], "predicted": np.where(row, gold, other),
            }
        )
        for arm, rows in hits.items() for seed, row in enumerate(rows)
    ]  # fmt: skip
    return pd.concat(blocks, ignore_index=True)


def labels(n: int) -> np.ndarray:
    return np.where(np.arange(n) % 2 == 0, "yes", "no")


def series(gold: np.ndarray) -> pd.Series:
    return pd.Series(gold, index=[f"t{i:05d}" for i in range(len(gold))])


def exactly(shares: dict[str, float], n: int = 1000, S: int = 3) -> dict[str, np.ndarray]:
    """Hits with these accuracies in every seed: the first texts are right, so all arms agree on what is hard."""
    return {
        arm: np.tile(np.arange(n) < round(share * n), (S, 1)) ^ _swaps(S, n, round(share * n))
        for arm, share in shares.items()
    }


def _swaps(S: int, n: int, edge: int) -> np.ndarray:
    """One right and one wrong text change places, others in each seed, so that no seed copies another."""
    swapped = np.zeros((S, n), dtype=bool)
    if 0 < edge < n:
        seeds = np.arange(S)
        swapped[seeds, (edge - 1 - seeds) % edge] = True
        swapped[seeds, edge + seeds % (n - edge)] = True
    return swapped


def drawn(rng: np.random.Generator, shares: dict[str, float], n: int, S: int, sd_seed: float) -> dict[str, np.ndarray]:
    """Hits with these expected accuracies: texts that are hard for every arm, and seeds with luck of their own."""
    hard = rng.normal(size=n) * math.sqrt(0.7)
    return {
        arm: hard + rng.normal(size=(S, n)) * math.sqrt(0.3) < ndtri(share + rng.normal(size=(S, 1)) * sd_seed)
        for arm, share in shares.items()
    }


def arms_table(n_gold: int, targets: dict[str, str] | None = None, source: str = "consensus") -> pd.DataFrame:
    """ARMS with `n_gold` human-labelled texts (a fifth of them dev) and, for `consensus`, the given targets."""
    rows = [
        {"arm": "gold", "text_id": f"g{i}", "target": "yes", "source": "gold", "part": "dev" if i % 5 == 0 else "train"}
        for i in range(n_gold)
    ]
    rows += [
        {"arm": "consensus", "text_id": text_id, "target": target, "source": source, "part": "train"}
        for text_id, target in (targets or {}).items()
    ]
    return pd.DataFrame(rows).assign(student="all", fold=0, seed=1, row=range(len(rows)))


def row(values: pd.DataFrame, quantity: str) -> pd.Series:
    return values.set_index("quantity").loc[quantity]


def test_isotonic_agrees_with_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    values = np.random.default_rng(0).normal(size=(50, 7)) + np.linspace(0, 2, 7)
    expected = [IsotonicRegression().fit_transform(np.arange(7), one) for one in values]
    np.testing.assert_allclose(isotonic(values), expected, atol=1e-12)


def test_labels_are_read_off_a_line_in_log_n():
    curve, n = np.array([[0.5, 0.6, 0.6, 0.7]]), np.array([100, 200, 400, 800])

    def at(score: float) -> float:
        return float(labels_at(curve, n, np.array([score]))[0])

    assert at(0.55) == pytest.approx(100 * math.sqrt(2), rel=1e-6)  # half way in log n
    assert at(0.6) == pytest.approx(200, rel=1e-6)  # where a flat stretch begins
    assert at(0.65) == pytest.approx(400 * math.sqrt(2), rel=1e-6)
    assert at(0.5) == 100
    assert at(0.7) == pytest.approx(800, rel=1e-6)
    assert at(0.49) == 0
    assert at(0.71) == math.inf


def test_one_point_is_a_bound_and_no_curve():
    one = labels_at(np.full((3, 1), 0.6), np.array([500]), np.array([0.5, 0.6, 0.7]))
    assert one.tolist() == [0, 500, math.inf]


def test_drawn_means_have_the_variance_of_the_two_way_interval():
    # seeds matter, S = 30: the t distribution of the seeds' part has (S − 1)/(S − 3) times its variance
    values = np.random.default_rng(3).normal(size=(1, 30, 60)) + np.random.default_rng(4).normal(size=(1, 30, 1))
    drawn = drawn_means(values, 20_000, 1)
    result = two_way(values[0])
    of_items = values.mean(axis=1).var(ddof=1) / 60
    expected = of_items + (result.ms_seed - result.ms_error) / (30 * 60) * 29 / 27
    assert result.ms_seed > result.ms_error
    assert drawn.var() == pytest.approx(expected, rel=0.05)
    assert drawn.mean() == pytest.approx(values.mean(), abs=4 * math.sqrt(expected / 20_000))
    assert (drawn_means(values, 50, 1) == drawn_means(values, 50, 1)).all()


def test_drawn_means_of_quiet_seeds_have_the_variance_of_items_alone():
    values = np.random.default_rng(5).normal(size=(1, 6, 60))
    values -= values.mean(axis=2, keepdims=True)  # every seed has the same mean: MSs = 0
    drawn = drawn_means(values, 20_000, 2)
    assert drawn.var() == pytest.approx(values.mean(axis=1).var(ddof=1) / 60, rel=0.05)
    one_seed = drawn_means(values[:, :1], 20_000, 2)
    assert one_seed.var() == pytest.approx(values[:, 0].var(ddof=1) / 60, rel=0.05)


def test_arms_that_share_their_luck_are_drawn_together():
    rng = np.random.default_rng(6)
    common = rng.normal(size=(1, 8, 200)) + rng.normal(size=(1, 8, 1))
    values = np.concatenate([common, common + 1, rng.normal(size=(1, 8, 200))])
    drawn = drawn_means(values, 5000, 3)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 1, atol=1e-6)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.8


def test_interval_of_a_curves_point_is_the_two_way_interval_and_needs_two_seeds():
    gold = labels(300)
    hits = drawn(np.random.default_rng(9), {"gold@100": 0.6, "gold@200": 0.7}, 300, 4, 0.02)
    curve = learning_curve(table(hits, gold), series(gold), metric="accuracy")
    result = two_way(hits["gold@200"].astype(float))
    assert curve.loc[1, ["low", "high"]].tolist() == pytest.approx([result.low, result.high])
    alike = {name: rows[[0, 0, 0]] for name, rows in hits.items()}
    curve = learning_curve(table(alike, gold), series(gold), metric="accuracy")
    assert curve["S"].tolist() == [1, 1]
    assert curve["low"].isna().all()


def test_curve_counts_human_labels_and_never_falls():
    gold = labels(1000)
    shares = {"gold@250": 0.60, "gold@500": 0.66, "gold@1000": 0.64, "gold": 0.70, "consensus": 0.65}
    curve = learning_curve(table(exactly(shares), gold), series(gold), arms=arms_table(2000), metric="accuracy")
    check(curve, LEARNING_CURVE)
    assert curve["n"].tolist() == [250, 500, 1000, 2000]
    assert curve["arm"].tolist() == ["gold@250", "gold@500", "gold@1000", "gold"]
    np.testing.assert_allclose(curve["mean"], [0.60, 0.66, 0.64, 0.70])
    np.testing.assert_allclose(curve["fitted"], [0.60, 0.65, 0.65, 0.70])
    assert (curve["low"] < curve["mean"]).all()
    assert (curve["mean"] < curve["high"]).all()


def test_gold_counts_distinct_texts_of_a_fold_and_only_with_the_arms_table():
    gold = labels(200)
    predictions = table(exactly({"gold@100": 0.6, "gold": 0.7}, n=200), gold)
    arms = pd.concat([arms_table(300).assign(fold=fold) for fold in (0, 1)])
    arms = pd.concat([arms, arms.assign(seed=2)])  # the same texts under another seed are no further labels
    with_arms = learning_curve(predictions, series(gold), arms=arms, metric="accuracy")
    assert with_arms["n"].tolist() == [100, 300]
    assert learning_curve(predictions, series(gold), metric="accuracy")["n"].tolist() == [100]


def test_worth_of_exact_accuracies_is_read_off_the_curve():
    gold = labels(1000)
    shares = {f"gold@{n}": share for n, share in zip(GRID, (0.60, 0.64, 0.68, 0.70, 0.71))} | {"consensus": 0.66}
    found = labels_worth(table(exactly(shares), gold), series(gold), metric="accuracy")
    check(found, VALUE)
    worth = row(found, "human_labels_worth")
    assert worth["value"] == pytest.approx(500 * math.sqrt(2), rel=1e-6)
    assert worth["low"] <= worth["value"] <= worth["high"]
    assert not worth["beyond"]
    assert "707 human labels" in worth["sentence"]
    assert row(found, "human_labels_saved")["value"] == pytest.approx(500 * math.sqrt(2) - 200, rel=1e-6)
    assert row(found, "human_labels_used")["value"] == 200


def test_beyond_the_curve_is_a_lower_bound_and_below_it_an_upper_one():
    gold = labels(2000)
    curve = {"gold@250": 0.5, "gold@500": 0.6}
    above = labels_worth(table(exactly(curve | {"consensus": 0.9}, 2000), gold), series(gold), metric="accuracy")
    worth, saved = row(above, "human_labels_worth"), row(above, "human_labels_saved")
    assert (worth["value"], worth["low"], worth["beyond"]) == (500, 500, True)
    assert math.isnan(worth["high"])
    assert "more than 500 human labels" in worth["sentence"]
    assert (saved["value"], saved["beyond"]) == (300, True)

    below = labels_worth(table(exactly(curve | {"consensus": 0.2}, 2000), gold), series(gold), metric="accuracy")
    worth, saved = row(below, "human_labels_worth"), row(below, "human_labels_saved")
    assert math.isnan(worth["value"])
    assert (worth["low"], worth["high"], worth["beyond"]) == (0, 250, False)
    assert "fewer than 250 human labels" in worth["sentence"]
    assert (saved["low"], saved["high"]) == (-200, 50)


def test_a_source_as_good_as_all_gold_is_worth_all_gold():
    gold = labels(500)
    hits = exactly({"gold@100": 0.5, "gold@400": 0.7}, n=500)
    hits["consensus"] = hits["gold@400"]
    worth = row(labels_worth(table(hits, gold), series(gold), metric="accuracy"), "human_labels_worth")
    assert worth["value"] == pytest.approx(400, rel=1e-6)
    assert not worth["beyond"]


def test_curve_and_source_share_their_draws():
    # the source is a copy of one point of a steep curve: whatever is drawn, it is worth exactly that point
    rng, gold = np.random.default_rng(5), labels(600)
    hits = drawn(rng, {"gold@100": 0.3, "gold@200": 0.6, "gold@400": 0.9}, 600, 5, 0.01)
    hits["consensus"] = hits["gold@200"]
    worth = row(labels_worth(table(hits, gold), series(gold), metric="accuracy"), "human_labels_worth")
    np.testing.assert_allclose([worth["low"], worth["value"], worth["high"]], 200, rtol=1e-6)


def test_known_n_star_is_inside_its_interval_nearly_always():
    low, value, high = simulated_worth(5, 500, 0.01, 1400, repetitions=60).T[[1, 0, 2]]
    assert np.mean((low <= 1400) & (high >= 1400)) >= 0.88  # .95 minus 2.5 standard errors; seeded
    assert 1100 < np.median(value) < 1800
    assert np.median(low) > 500  # the interval says something


def test_predictions_without_arms_are_an_error_that_says_so():
    predictions, gold = pd.DataFrame({"seed": [1], "text_id": ["a"], "predicted": ["yes"]}), pd.Series({"a": "yes"})
    for verb in (learning_curve, labels_worth, corrections_value):
        with pytest.raises(DataError, match=r"missing column\(s\) \['arm'\]"):
            verb(predictions, gold)


CELLS = [(S, n, sd, star) for S, n in ((5, 500), (10, 500), (10, 2000)) for sd in (0.0, 0.02) for star in (350, 1400)]


@pytest.mark.slow
@pytest.mark.parametrize(("S", "n", "sd_seed", "star"), CELLS)
def test_interval_of_n_star_covers_it(S, n, sd_seed, star):
    assert coverage(S, n, sd_seed, star, repetitions=300) >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)


def coverage(S: int, n: int, sd_seed: float, star: float, repetitions: int) -> float:
    """Share of simulated experiments whose 95 % interval holds the true n* (the table in docs/value.md)."""
    _, low, high = simulated_worth(S, n, sd_seed, star, repetitions).T
    return float(np.mean((low <= star) & (star <= high)))


def simulated_worth(S: int, n: int, sd_seed: float, star: float, repetitions: int) -> np.ndarray:
    """n*, low and high of experiments whose consensus is worth `star` human labels."""
    shares = {f"gold@{size}": accuracy_at(size) for size in GRID} | {"consensus": accuracy_at(star)}
    found = []
    for repetition in range(repetitions):
        rng = np.random.default_rng([S, n, round(sd_seed * 1000), star, repetition])
        values = np.stack(list(drawn(rng, shares, n, S, sd_seed).values())).astype(float)
        found.append(Curve(tuple(shares)[:-1], np.array(GRID), values).worth(draws=500, seed=repetition))
    return np.array(found)


def test_macro_f1_is_read_off_macro_f1():
    rng = np.random.default_rng(2)
    gold = np.where(rng.random(800) < 0.2, "yes", "no")
    hits = drawn(rng, {"gold@100": 0.6, "gold@1000": 0.8, "consensus": 0.7}, 800, 4, 0.0)
    curve = learning_curve(table(hits, gold), series(gold))
    from sklearn.metrics import f1_score

    predictions = table(hits, gold)
    scores = [
        f1_score(gold, run["predicted"], average="macro")
        for _, run in predictions[predictions["arm"] == "gold@100"].groupby("seed")
    ]
    assert curve["mean"].iloc[0] == pytest.approx(np.mean(scores), abs=1e-9)
    with pytest.raises(ConfigError, match="unknown metric"):
        learning_curve(table(hits, gold), series(gold), metric="f1")


def votes(costs: dict[str, float | None], texts: int = 100) -> pd.DataFrame:
    rows = [
        {"text_id": f"g{i}", "annotator": name, "repetition": 0, "label": "yes", "cost": cost, "tokens_in": 50,
         "tokens_out": 2}
        for name, cost in costs.items() for i in range(texts)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"cost": float})


def test_break_even_price_by_hand():
    gold = labels(1000)
    shares = {"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65, "floor": 0.5, "gold": 0.72}
    settings = ValueSettings(price_of_human_label=0.10, audit=100)
    found = labels_worth(
        table(exactly(shares), gold), series(gold), metric="accuracy", votes=votes({"a": 0.2, "b": 0.3}),
        arms=arms_table(4000), human_labels_used=50, settings=settings,
    )  # fmt: skip
    # n* = √(500 · 2000) = 1000; 150 are used; 100 texts at .5 each cost 50
    assert row(found, "llm_cost")["value"] == pytest.approx(50)
    assert row(found, "llm_cost_per_text")["value"] == pytest.approx(0.5)
    assert row(found, "llm_tokens_in")["value"] == 100 * 2 * 50
    assert row(found, "break_even_price")["value"] == pytest.approx(50 / 850, rel=1e-6)
    assert row(found, "money_saved")["value"] == pytest.approx(850 * 0.10 - 50, rel=1e-6)
    price, saved = row(found, "break_even_price"), row(found, "human_labels_saved")
    assert price["low"] == pytest.approx(50 / saved["high"])
    assert price["high"] == pytest.approx(50 / saved["low"])
    assert row(found, "cost_per_point")["value"] == pytest.approx(50 / 15)
    assert row(found, "human_cost_per_point")["value"] == pytest.approx(4000 * 0.10 / 22)
    assert "0.059 USD" in price["sentence"]


def test_at_the_break_even_price_nothing_is_saved_or_lost():
    gold = labels(1000)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}), gold)

    def at(price: float | None) -> pd.DataFrame:
        settings = ValueSettings(price_of_human_label=price)
        return labels_worth(predictions, series(gold), metric="accuracy", votes=votes({"a": 0.2}), settings=settings)

    price = float(row(at(None), "break_even_price")["value"])
    assert "money_saved" not in at(None)["quantity"].tolist()
    assert row(at(price), "money_saved")["value"] == pytest.approx(0, abs=1e-9)


def test_what_uses_more_human_labels_than_it_is_worth_pays_at_no_price():
    gold = labels(1000)
    found = labels_worth(
        table(exactly({"gold@50": 0.60, "gold@200": 0.70, "consensus": 0.65}), gold), series(gold), metric="accuracy",
        votes=votes({"a": 0.2}),
    )  # fmt: skip
    price = row(found, "break_even_price")
    assert math.isnan(price["value"])
    assert math.isnan(price["high"])
    assert "not shown to pay at any price" in price["sentence"]
    assert row(found, "human_labels_saved")["value"] == pytest.approx(-100, rel=1e-6)


def test_an_unknown_cost_is_missing_and_named():
    gold = labels(400)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}, n=400), gold)
    found = labels_worth(predictions, series(gold), metric="accuracy", votes=votes({"a": 0.2, "local": None}))
    assert math.isnan(row(found, "llm_cost")["value"])
    assert "local" in row(found, "llm_cost")["sentence"]
    assert "break_even_price" not in found["quantity"].tolist()


def test_votes_on_test_texts_cost_nothing():
    given = votes({"a": 0.5}, texts=10)
    folds = pd.DataFrame(
        [(fold, f"g{i}", "test" if i % 2 == fold else "train") for fold in (0, 1) for i in range(10)],
        columns=["fold", "text_id", "part"],
    )
    assert spent(given).cost == pytest.approx(5.0)
    found = spent(given, folds=folds)
    assert (found.cost, found.texts, found.per_text) == (pytest.approx(2.5), 5, pytest.approx(0.5))


def test_one_missing_cost_of_a_priced_annotator_counts_as_nothing():
    given = votes({"a": 0.5}, texts=4)
    given.loc[0, "cost"] = None
    assert spent(given).cost == pytest.approx(1.5)
    assert spent(given, annotators=["a", "absent"]).unknown == ("absent",)


def test_audit_is_a_random_sample_with_wilsons_interval():
    gold = labels(1000)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}), gold)
    texts = [f"g{i}" for i in range(5000)]
    truth = pd.concat([series(gold), pd.Series("yes", index=texts)])
    targets = {text: "yes" if i % 4 else "no" for i, text in enumerate(texts)}  # 75 % right
    found = labels_worth(predictions, truth, arms=arms_table(10, targets), metric="accuracy")
    audit = row(found, "audit_accuracy")
    correct = round(audit["value"] * 200)
    assert audit["value"] == correct / 200
    assert (audit["low"], audit["high"]) == pytest.approx(wilson(correct, 200))
    assert abs(audit["value"] - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 200)
    given = labels_worth(predictions, truth, arms=arms_table(10, targets), metric="accuracy", audited=(45, 50))
    assert row(given, "audit_accuracy")["value"] == 0.9
    assert row(given, "human_labels_used")["value"] == 50


def test_reviewed_labels_count_as_used():
    gold = labels(400)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}, n=400), gold)
    arms = arms_table(10, {f"g{i}": "yes" for i in range(30)}, source="human")
    found = labels_worth(predictions, series(gold), arms=arms, metric="accuracy")
    assert row(found, "human_labels_used")["value"] == 200 + 30


def test_students_have_rows_of_their_own_and_those_without_the_arms_have_none():
    gold = labels(300)
    shares = {"gold@100": 0.5, "gold@400": 0.7, "consensus": 0.6}
    one, two = table(exactly(shares, n=300), gold, "one"), table(exactly(shares, n=300), gold, "two")
    both = pd.concat([one, two[two["arm"] != "consensus"]])
    assert set(labels_worth(both, series(gold), metric="accuracy")["student"]) == {"one"}
    assert set(learning_curve(both, series(gold), metric="accuracy")["student"]) == {"one", "two"}
    no_arm = one[one["arm"] != "consensus"]
    assert check(labels_worth(no_arm, series(gold)), VALUE).empty
    no_curve = one[one["arm"] == "consensus"]
    assert check(learning_curve(no_curve, series(gold)), LEARNING_CURVE).empty


@pytest.mark.parametrize("human", [{}, {"gold": 0.7}, {"gold@100": 0.7}])
def test_without_two_points_on_the_curve_there_is_no_n_star_and_nothing_of_it(human):
    gold = labels(300)
    predictions = table(exactly(human | {"consensus": 0.6, "floor": 0.5}, n=300), gold)
    arms = arms_table(400, {f"t{i:05d}": "yes" for i in range(100)})
    found = labels_worth(
        predictions, series(gold), arms=arms, metric="accuracy", votes=votes({"a": 0.2}),
        settings=ValueSettings(price_of_human_label=0.1, audit=50),
    )  # fmt: skip
    check(found, VALUE)
    lasting = {
        "human_labels_used", "audit_accuracy", "llm_cost", "llm_cost_per_text", "llm_tokens_in", "llm_tokens_out",
        "cost_per_point",
    }  # fmt: skip
    assert set(found["quantity"]) == lasting | ({"human_cost_per_point"} if "gold" in human else set())
    assert row(found, "llm_cost")["value"] == pytest.approx(20)
    assert row(found, "cost_per_point")["value"] == pytest.approx(2)


def test_reviewed_dev_labels_count_and_a_fold_counts_once():
    gold = labels(400)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}, n=400), gold)
    arms = arms_table(10, {f"g{i}": "yes" for i in range(30)}, source="human")
    arms.loc[arms["text_id"].isin(["g0", "g1"]) & (arms["arm"] == "consensus"), "part"] = "dev"
    arms.loc[arms["text_id"].eq("g2") & (arms["arm"] == "consensus"), "source"] = "consensus"
    twice = pd.concat([arms, arms.assign(seed=2), arms.assign(fold=1)])
    for given in (arms, twice):
        found = labels_worth(predictions, series(gold), arms=given, metric="accuracy")
        assert row(found, "human_labels_used")["value"] == 200 + 29


def test_an_arm_costs_what_its_own_annotators_cost():
    gold = labels(400)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "single:a": 0.65}, n=400), gold)
    how = {"metric": "accuracy", "votes": votes({"a": 0.2, "b": 0.3, "human": None}), "arm": "single:a"}
    own = labels_worth(predictions, series(gold), annotators=["a"], **how)
    assert row(own, "llm_cost")["value"] == pytest.approx(100 * 0.2)
    assert row(own, "llm_tokens_in")["value"] == 100 * 50
    assert row(own, "break_even_price")["value"] == pytest.approx(20 / 800, rel=1e-6)
    everyone = labels_worth(predictions, series(gold), **how)
    assert math.isnan(row(everyone, "llm_cost")["value"])  # that of `human` is not known


def test_the_sentence_says_what_a_seed_draws():
    gold = labels(400)
    predictions = table(exactly({"gold@500": 0.60, "gold@2000": 0.70, "consensus": 0.65}, n=400), gold)
    how = {"metric": "accuracy"}
    assert "; 3 seeds)" in row(labels_worth(predictions, series(gold), **how), "human_labels_worth")["sentence"]
    found = labels_worth(predictions, series(gold), replication="bootstrap", **how)
    said = row(found, "human_labels_worth")["sentence"]
    assert "; 3 bootstrap resamples of the training texts)" in said
    assert "seed" not in said


def test_corrections_are_the_paired_differences():
    gold = labels(1000)
    shares = {"consensus": 0.70, "consensus+200": 0.76, "consensus+200:random": 0.72, "consensus+50": 0.71}
    found = corrections_value(table(exactly(shares), gold), series(gold), metric="accuracy")
    check(found, VALUE)
    values = found.set_index("quantity")["value"]
    assert values["corrections 50"] == pytest.approx(0.01)
    assert values["corrections 200"] == pytest.approx(0.06)
    assert values["corrections 200 random"] == pytest.approx(0.02)
    assert values["corrections 200 first − random"] == pytest.approx(0.04)
    assert "+6.0 pp" in row(found, "corrections 200")["sentence"]
    assert (found["low"] <= found["value"]).all()


def test_corrections_interval_is_a_t_interval_when_seeds_do_not_matter():
    # every seed has the same difference on every text but for one swap, so MSs ≤ MSe: item means decide
    gold = labels(400)
    hits = drawn(np.random.default_rng(1), {"consensus": 0.7, "consensus+100": 0.75}, 400, 6, 0.0)
    found = row(corrections_value(table(hits, gold), series(gold), metric="accuracy"), "corrections 100")
    D = hits["consensus+100"].astype(float) - hits["consensus"]
    seed, item = D.mean(axis=1), D.mean(axis=0)
    rest = D - seed[:, None] - item + D.mean()
    ms_seed, ms_item = 400 * seed.var(ddof=1), 6 * item.var(ddof=1)
    assert ms_seed <= (rest**2).sum() / (5 * 399)
    half = norm.ppf(0.975) * math.sqrt(ms_item / 2400)
    assert found["high"] - found["value"] == pytest.approx(half, rel=0.01)  # t with 399 degrees of freedom


def test_without_corrections_the_table_is_empty():
    gold = labels(100)
    found = corrections_value(table(exactly({"consensus": 0.6}, n=100), gold), series(gold))
    assert check(found, VALUE).empty


PANELS = {"single:a": ["a"], "single:b": ["b"], "single:c": ["c"], "panel:2": ["a", "b"], "consensus": ["a", "b", "c"]}


def test_frontier_by_hand():
    gold = labels(1000)
    shares = {"single:a": 0.70, "single:b": 0.72, "single:c": 0.65, "panel:2": 0.74, "consensus": 0.74,
              "gold-aligned": 0.75}  # fmt: skip
    found = cost_frontier(
        table(exactly(shares), gold), series(gold), votes({"a": 0.1, "b": 0.2, "c": 0.4}), PANELS, metric="accuracy"
    )
    check(found, FRONTIER)
    by_arm = found.set_index("arm")
    assert by_arm["cost"].round(9).to_dict() == {
        "single:a": 0.1, "single:b": 0.2, "single:c": 0.4, "panel:2": 0.3, "consensus": 0.7
    }  # fmt: skip
    # c is dearer and worse than a; consensus costs more than the panel of two and is no better
    assert set(by_arm.index[by_arm["is_on_frontier"]]) == {"single:a", "single:b", "panel:2"}
    assert by_arm.loc["panel:2", "difference"] == pytest.approx(-0.01)
    assert by_arm.loc["panel:2", "annotators"] == "a + b"
    said = frontier_sentence(found, metric="accuracy")
    assert "In none of these: c." in said
    assert "0.30 USD per text" in said


def test_an_arm_of_unknown_cost_is_not_judged():
    gold = labels(300)
    shares = {"single:a": 0.70, "single:b": 0.80, "gold-aligned": 0.8}
    found = cost_frontier(
        table(exactly(shares, n=300), gold), series(gold), votes({"a": 0.1, "b": None}), PANELS, metric="accuracy"
    ).set_index("arm")
    assert math.isnan(found.loc["single:b", "cost"])
    assert found["is_on_frontier"].to_dict() == {"single:a": True, "single:b": False}
    assert "The cost of single:b is not known." in frontier_sentence(found.reset_index())


def test_frontier_without_the_control_has_scores_and_no_difference():
    gold = labels(300)
    found = cost_frontier(
        table(exactly({"single:a": 0.7}, n=300), gold), series(gold), votes({"a": 0.1}), PANELS, metric="accuracy"
    )
    assert found["mean"].item() == pytest.approx(0.7)
    assert found[["difference", "low", "high"]].isna().all(axis=None)
    assert found["is_on_frontier"].item()


def test_small_amounts_of_money_keep_two_digits():
    assert [money(amount, "EUR") for amount in (1234.5, 0, 0.0123456, 1.2e-7)] == [
        "1,234.50 EUR", "0.00 EUR", "0.012 EUR", "0.00000012 EUR"
    ]  # fmt: skip
