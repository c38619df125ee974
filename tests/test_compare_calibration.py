"""Calibration: against independent code, and on students whose overconfidence is known."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest

from consenso.compare.calibration import measure_calibration
from consenso.errors import DataError, JoinError
from consenso.labels import LabelSchema
from consenso.tables import CALIBRATION, CALIBRATION_BINS, check
from consenso.temperature import fit_temperature, scale

NAMES = ("low", "middle", "high")
SCHEMA = LabelSchema.from_names(NAMES)  # not in alphabetical order


def honest(rng: np.random.Generator, n: int, K: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them: calibrated by construction."""
    p = scale(rng.dirichlet(np.ones(K), size=n), 1.0)
    return p, (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=K - 1)


def run(p: np.ndarray, *, seed: int = 1, part: str = "test", arm: str = "consensus", fold: int = 0, first: int = 0):
    """PREDICTIONS of one run; text ids tell parts and folds apart."""
    return pd.DataFrame(
        {
            "student": "given", "arm": arm, "fold": fold, "seed": seed, "attempt": "as_run", "part": part,
            "text_id": [f"{part}{i}" for i in range(first, first + len(p))],
            "predicted": np.array(NAMES)[p.argmax(axis=1)], "probabilities": list(p),
        }
    )  # fmt: skip


def labelled(codes: np.ndarray, part: str = "test") -> pd.Series:
    return pd.Series(np.array(NAMES)[codes], index=[f"{part}{i}" for i in range(len(codes))])


def dev_rows(codes: np.ndarray, *, seed: int = 1, arm: str = "consensus") -> pd.DataFrame:
    """ARMS with the arm's own dev labels."""
    return pd.DataFrame(
        {
            "student": "all", "arm": arm, "fold": 0, "seed": seed, "part": "dev", "row": range(len(codes)),
            "text_id": [f"dev{i}" for i in range(len(codes))], "target": np.array(NAMES)[codes], "source": "consensus",
        }
    )  # fmt: skip


def ece_by_hand(p: np.ndarray, gold: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for b in range(bins):
        chosen = [i for i in range(len(p)) if b / bins < max(p[i]) <= (b + 1) / bins]
        if chosen:
            accuracy = np.mean([np.argmax(p[i]) == gold[i] for i in chosen])
            total += len(chosen) / len(p) * abs(accuracy - np.mean([max(p[i]) for i in chosen]))
    return float(total)


def test_measures_agree_with_independent_code():
    from sklearn.metrics import accuracy_score, log_loss

    p, gold = honest(np.random.default_rng(1), 700)
    p = scale(p, 0.5)
    found = measure_calibration(run(p), labelled(gold), schema=SCHEMA)
    check(found.calibration, CALIBRATION)
    check(found.bins, CALIBRATION_BINS)
    row = found.calibration.iloc[0]
    assert row["ece"] == pytest.approx(ece_by_hand(p, gold))
    assert row["brier"] == pytest.approx(np.mean([((p[i] - np.eye(3)[gold[i]]) ** 2).sum() for i in range(700)]))
    assert row["log_loss"] == pytest.approx(log_loss(gold, p, labels=[0, 1, 2]))
    assert row["accuracy"] == pytest.approx(accuracy_score(gold, p.argmax(axis=1)))
    assert row["confidence"] == pytest.approx(p.max(axis=1).mean())
    assert (row["temperature"], row["S"], row["n"], row["scope"], row["scaled"]) == (1, 1, 700, "all", False)


def test_reliability_bins_agree_with_scikit_learn():
    from sklearn.calibration import calibration_curve

    p, gold = honest(np.random.default_rng(2), 900)
    bins = measure_calibration(run(p), labelled(gold), schema=SCHEMA).bins
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == gold, p.max(axis=1), n_bins=15)
    np.testing.assert_allclose(bins["accuracy"], accuracy)
    np.testing.assert_allclose(bins["confidence"], confidence)
    assert bins["share"].sum() == pytest.approx(1)
    assert bins["bin"].min() >= 4  # with three labels the largest probability is at least 1/3


def test_ece_worked_out_by_hand():
    # two texts at .9, one right: gap .4; two at .6, both right: gap .4
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    gold = pd.Series(["a", "b", "a", "b"], index=[f"test{i}" for i in range(4)])
    predictions = run(np.hstack([p, np.zeros((4, 1))])).assign(probabilities=list(p))
    row = measure_calibration(predictions, gold).calibration.iloc[0]
    assert row["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert row["brier"] == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.16 + 2 * 0.16) / 4)


def test_seeds_are_averaged_and_not_pooled():
    rng = np.random.default_rng(3)
    p, gold = honest(rng, 400)
    sure, unsure = scale(p, 0.4), scale(p, 3.0)
    row = measure_calibration(
        pd.concat([run(sure, seed=1), run(unsure, seed=2)]), labelled(gold), schema=SCHEMA
    ).calibration.iloc[0]
    assert row["S"] == 2
    assert row["ece"] == pytest.approx((ece_by_hand(sure, gold) + ece_by_hand(unsure, gold)) / 2)


def test_folds_of_a_seed_are_one_run_where_their_texts_differ():
    p, gold = honest(np.random.default_rng(4), 300)
    folds = pd.concat([run(p[:100], fold=0), run(p[100:], fold=1, first=100)])
    row = measure_calibration(folds, labelled(gold), schema=SCHEMA).calibration.iloc[0]
    assert (row["S"], row["n"]) == (1, 300)
    assert row["ece"] == pytest.approx(ece_by_hand(p, gold))
    repeated = pd.concat([run(p, fold=0), run(p, fold=1)])
    assert measure_calibration(repeated, labelled(gold), schema=SCHEMA).calibration["S"].item() == 2


@pytest.mark.parametrize("T", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_given_back(T):
    p, gold = honest(np.random.default_rng(5), 4000)
    assert fit_temperature(scale(p, 1 / T), gold) == pytest.approx(T, rel=0.08)


def test_fitted_temperature_is_the_best_of_a_fine_grid():
    p, gold = honest(np.random.default_rng(6), 200)
    p = scale(p, 0.6)
    grid = np.exp(np.linspace(-1, 2, 1501))
    powers = [p ** (1 / T) for T in grid]
    losses = [-np.log(power[np.arange(200), gold] / power.sum(axis=1)).mean() for power in powers]
    assert fit_temperature(p, gold) == pytest.approx(grid[np.argmin(losses)], rel=0.003)


def test_scaling_changes_no_label_and_undoes_itself():
    p, _ = honest(np.random.default_rng(7), 500)
    for T in (0.3, 1.0, 4.0):
        scaled = scale(p, T)
        assert (scaled.argmax(axis=1) == p.argmax(axis=1)).all()
        np.testing.assert_allclose(scaled.sum(axis=1), 1)
        np.testing.assert_allclose(scale(scaled, 1 / T), p, atol=1e-9)
    each = scale(p[:2], np.array([0.5, 2.0]))
    np.testing.assert_allclose(each, [scale(p[:1], 0.5)[0], scale(p[1:2], 2.0)[0]])


def test_a_probability_of_0_is_no_infinity():
    p = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert np.isfinite(scale(p, 2.0)).all()
    assert fit_temperature(p, np.array([0, 1, 1])) == pytest.approx(math.log(1e45) / math.log(2), rel=1e-3)


def test_the_temperature_of_a_very_sure_classifier_is_that_of_its_logits() -> None:
    """Gaps of up to 90 nats, more than a clip at 1e-12 leaves: T from the logits themselves, by a grid."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3)) * 15
    codes = np.where(rng.random(500) < 0.15, rng.integers(0, 3, 500), logits.argmax(axis=1))

    def loss(T: float) -> float:
        z = logits / T
        return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(500), codes]).mean())

    grid = np.linspace(1, 30, 5801)
    best = grid[np.argmin([loss(T) for T in grid])]
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    assert (p < 1e-12).any()
    assert fit_temperature(p, codes) == pytest.approx(best, rel=0.002)
    found = scale(p, best)
    assert -np.log(found[np.arange(500), codes]).mean() == pytest.approx(loss(best), rel=1e-6)


def test_an_overconfident_student_is_mended_by_its_own_dev_labels():
    rng = np.random.default_rng(8)
    blocks, gold, arms = [], None, []
    gold_p, gold = honest(rng, 3000)
    for seed, T in ((1, 2.0), (2, 3.0)):
        dev_p, dev_codes = honest(rng, 3000)
        blocks += [run(scale(gold_p, 1 / T), seed=seed), run(scale(dev_p, 1 / T), seed=seed, part="dev")]
        arms.append(dev_rows(dev_codes, seed=seed))
    found = measure_calibration(pd.concat(blocks), labelled(gold), arms=pd.concat(arms), schema=SCHEMA).calibration
    before, after = (found[found["scaled"] == scaled].iloc[0] for scaled in (False, True))
    assert after["temperature"] == pytest.approx(math.sqrt(6), rel=0.08)
    assert before["ece"] > 0.15
    assert after["ece"] < 0.04
    assert after["log_loss"] < before["log_loss"]
    assert after["brier"] < before["brier"]
    assert after["accuracy"] == before["accuracy"]
    assert found.attrs["notes"] == []


def test_temperature_is_fitted_on_dev_and_never_on_test():
    p, gold = honest(np.random.default_rng(9), 1500)
    dev_p, dev_codes = honest(np.random.default_rng(10), 1500)
    predictions = pd.concat([run(scale(p, 0.5)), run(scale(dev_p, 0.5), part="dev")])
    arms = dev_rows(dev_codes)
    one, other = (
        measure_calibration(predictions, labelled(codes), arms=arms, schema=SCHEMA).calibration
        for codes in (gold, np.roll(gold, 1))
    )
    assert one["temperature"].tolist() == other["temperature"].tolist()
    assert one.loc[1, "temperature"] == pytest.approx(fit_temperature(scale(dev_p, 0.5), dev_codes))


def test_a_run_whose_dev_fixes_no_temperature_keeps_1_and_is_named():
    p, gold = honest(np.random.default_rng(11), 300)
    sure = scale(p, 0.2)
    dev = run(sure[:50], part="dev")
    arms = dev_rows(sure[:50].argmax(axis=1))  # every dev row right: the best temperature is 0
    found = measure_calibration(pd.concat([run(p), dev]), labelled(gold), arms=arms, schema=SCHEMA).calibration
    assert found["temperature"].tolist() == [1, 1]
    assert found.loc[1, "ece"] == pytest.approx(found.loc[0, "ece"])
    assert found.attrs["notes"] == ["given, consensus: fold 0, seed 1 keeps temperature 1"]
    assert math.isnan(fit_temperature(p[:5], np.zeros(5, dtype=int)))
    assert math.isnan(fit_temperature(sure, (sure.argmax(axis=1) + 1) % 3))  # every row wrong: the best is infinite
    assert math.isnan(fit_temperature(p[:0], np.zeros(0, dtype=int)))


def test_strata_are_scopes_of_their_own():
    p, gold = honest(np.random.default_rng(12), 400)
    strata = pd.Series(np.where(np.arange(400) < 100, "low", "high"), index=labelled(gold).index, name="agreement")
    strata.iloc[-50:] = None
    found = measure_calibration(run(p), labelled(gold), schema=SCHEMA, strata=strata).calibration.set_index("scope")
    assert found["n"].to_dict() == {"all": 400, "agreement high": 250, "agreement low": 100}
    assert found.loc["agreement low", "ece"] == pytest.approx(ece_by_hand(p[:100], gold[:100]))


def test_floors_rescues_and_rows_without_probabilities_are_left_out():
    p, gold = honest(np.random.default_rng(13), 100)
    rescue = run(scale(p, 0.1)).assign(attempt="rescue")
    bare = run(p, arm="bare").assign(probabilities=None)
    predictions = pd.concat([run(p), run(p, arm="floor"), rescue, bare])
    found = measure_calibration(predictions, labelled(gold), schema=SCHEMA).calibration
    assert found["arm"].tolist() == ["consensus"]
    assert found["ece"].item() == pytest.approx(ece_by_hand(p, gold))
    nothing = measure_calibration(bare, labelled(gold), schema=SCHEMA)
    assert check(nothing.calibration, CALIBRATION).empty
    assert check(nothing.bins, CALIBRATION_BINS).empty


def test_what_are_no_probabilities_is_an_error():
    p, gold = honest(np.random.default_rng(14), 10)
    with pytest.raises(DataError, match="apply softmax"):
        measure_calibration(run(np.log(p)), labelled(gold), schema=SCHEMA)
    two = LabelSchema.from_names(NAMES[:2])
    with pytest.raises(DataError, match="3 probabilities in a row, but 2 labels"):
        measure_calibration(run(p), labelled(gold * 0), schema=two)
    with pytest.raises(JoinError, match="no predicted test text has gold"):
        measure_calibration(run(p), labelled(gold, "other"), schema=SCHEMA)


def test_interval_of_the_ece_holds_its_estimate_and_shrinks_with_texts():
    widths = []
    for n in (200, 3200):
        p, gold = honest(np.random.default_rng(15), n)
        row = measure_calibration(run(scale(p, 0.5)), labelled(gold), schema=SCHEMA).calibration.iloc[0]
        assert 0 <= row["ece_low"] <= row["ece"] <= row["ece_high"]
        widths.append(row["ece_high"] - row["ece_low"])
    assert widths[1] < widths[0] / 3  # a quarter, as √n says


def test_interval_of_the_ece_begins_at_0_for_a_calibrated_student_only():
    p, gold = honest(np.random.default_rng(17), 2000)
    runs = pd.concat([run(p, seed=seed) for seed in (1, 2)])
    sure = pd.concat([run(scale(p, 0.5), seed=seed) for seed in (1, 2)])
    low, estimate = measure_calibration(runs, labelled(gold), schema=SCHEMA).calibration.iloc[0][["ece_low", "ece"]]
    assert low == 0
    assert estimate > 0.01  # the bias of the estimate
    assert measure_calibration(sure, labelled(gold), schema=SCHEMA).calibration["ece_low"].item() > 0.05


def test_four_arms_of_ten_seeds_take_seconds():
    rng = np.random.default_rng(16)
    p, gold = honest(rng, 2000)
    dev_p, dev_codes = honest(rng, 500)
    blocks, arms = [], []
    for arm in (f"arm{i}" for i in range(4)):
        for seed in range(10):
            T = rng.uniform(0.3, 0.8)
            blocks += [run(scale(p, T), arm=arm, seed=seed), run(scale(dev_p, T), arm=arm, seed=seed, part="dev")]
            arms.append(dev_rows(dev_codes, arm=arm, seed=seed))
    predictions, rows = pd.concat(blocks), pd.concat(arms)
    start = time.process_time()
    found = measure_calibration(predictions, labelled(gold), arms=rows, schema=SCHEMA)
    assert time.process_time() - start < 4
    assert len(found.calibration) == 8
