"""Planning and adding seeds: the specification's table, what may not enter a decision, and the level that is kept."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from consenso.compare import (
    Components,
    UntilVerdict,
    assumed_components,
    level_of,
    look_plan,
    next_seeds,
    plan_comparison,
    plan_in_words,
    seeds_for,
    texts_for,
    two_way,
)
from consenso.compare.needs import components, needed
from consenso.compare.paired import two_way_stack
from consenso.errors import ConfigError, DataError

SECTION_7 = pd.DataFrame(
    {
        "width": [0.062, 0.039, 0.028], "power_1pp": [0.13, 0.19, 0.31], "power_2pp": [0.32, 0.51, 0.80],
        "power_3pp": [0.54, 0.83, 0.99], "tost_power": [0.17, 0.39, 0.73], "false_tost": [0.04, 0.05, 0.04],
    }, index=[3, 5, 10],
)  # fmt: skip


def test_the_plan_is_the_table_of_the_specification():
    plan = plan_comparison(2210, [3, 5, 10]).set_index("S")
    assert np.allclose(plan["width"], SECTION_7["width"], atol=0.001)
    for name in SECTION_7.columns[1:]:
        assert np.allclose(plan[name], SECTION_7[name], atol=0.035), name
    assert (plan[["sd_seed", "sd_item", "sd_error"]] ** 2).iloc[0].tolist() == pytest.approx(
        [0.0125**2, 0.0496, 0.2604]
    )


def test_a_plan_agrees_with_simulated_studies():
    parts, S, n = Components(0.015**2, 0.05, 0.2), 6, 500
    rng = np.random.default_rng(1)
    noise = [rng.normal(0, math.sqrt(parts.seed), (1500, S, 1)), rng.normal(0, math.sqrt(parts.item), (1500, 1, n))]
    D = noise[0] + noise[1] + math.sqrt(parts.error) * rng.standard_normal((1500, S, n))
    row = plan_comparison(n, S, components=parts, margin=0.05).iloc[0]
    null, shifted = two_way_stack(D), two_way_stack(D + 0.03)
    assert row["width"] == pytest.approx(np.mean(null["high"] - null["low"]), rel=0.03)
    assert row["power_3pp"] == pytest.approx(np.mean((shifted["low"] > 0) | (shifted["high"] < 0)), abs=0.04)
    assert row["tost_power"] == pytest.approx(np.mean((null["low90"] > -0.05) & (null["high90"] < 0.05)), abs=0.04)
    assert row["se"] == pytest.approx(np.std(null["difference"]), rel=0.06)
    found = two_way_stack(D + row["detectable"])
    assert np.mean((found["low"] > 0) | (found["high"] < 0)) == pytest.approx(0.8, abs=0.04)


def test_the_inverse_reaches_the_power_and_one_less_does_not():
    parts = assumed_components(accuracy=0.8, sd_seed=0.01)
    S = seeds_for(2000, parts)
    power = plan_comparison(2000, [S - 1, S], components=parts)["tost_power"]
    assert power[0] < 0.81
    assert power[1] > 0.79
    n = texts_for(10, parts, goal="difference")
    seen = plan_comparison([round(0.95 * n), n], 10, components=parts)["power_2pp"]
    assert seen[0] < 0.8
    assert seen[1] > 0.79
    assert seeds_for(200, parts) is None
    assert texts_for(2, Components(0.03**2, 0.01, 0.1)) is None


def test_assumptions_follow_the_accuracy_and_what_is_given():
    assert assumed_components(accuracy=0.53).item == pytest.approx(0.16 * 0.31, rel=0.01)
    assert assumed_components(disagreement=0.2, persistence=0.5) == pytest.approx(Components(0.0125**2, 0.1, 0.1))
    easy, hard = plan_comparison(1000, accuracy=0.95), plan_comparison(1000, accuracy=0.6)
    assert easy["width"].item() < hard["width"].item()
    with pytest.raises(ConfigError, match="sd_seed is a share between 0 and 1"):
        plan_comparison(1000, sd_seed=1.3)
    with pytest.raises(ConfigError, match="at least 2 seeds"):
        plan_comparison(1000, [1, 5])


def test_the_sentence_says_what_can_be_seen_and_what_would_be_needed():
    text = plan_in_words(plan_comparison(2210, 10))
    assert text.startswith(
        "With 10 seeds and 2,210 test texts the 95 % interval is about 2.9 pp wide: a true difference of"
    )
    assert "(power .80 would take 1" in text
    assert "the difference varies by 1.25 pp over seeds" in text
    assert "out of reach" in plan_in_words(plan_comparison(3, 2, components=Components(1.0, 1.0, 1.0)))
    assert "(enough)" in plan_in_words(plan_comparison(20_000, 30))


def D_of(S, n, seed, *, sd_seed=0.02, sd_item=0.2, sd_error=0.4):
    rng = np.random.default_rng(seed)
    return rng.normal(0, sd_seed, (S, 1)) + rng.normal(0, sd_item, (1, n)) + rng.normal(0, sd_error, (S, n))


def test_the_difference_does_not_enter_the_number_of_seeds():
    D = D_of(5, 3000, 2)
    decisions = [next_seeds(two_way(D + shift)) for shift in (-0.5, -0.02, 0.0, 0.0123, 0.3, 4.0)]
    assert len(set(decisions)) == 1
    assert decisions[0].action == "train"
    assert 5 < decisions[0].seeds <= 30
    assert decisions[0].low <= decisions[0].seeds
    assert "the variances of 5 seeds ask for" in decisions[0].reason


def test_seeds_are_worked_out_once_and_an_interrupted_training_goes_on():
    first = next_seeds(two_way(D_of(5, 3000, 2)))
    on = next_seeds(two_way(D_of(first.seeds - 1, 3000, 2)), planned=first.seeds)
    assert (on.action, on.seeds) == ("train", first.seeds)
    done = next_seeds(two_way(D_of(first.seeds, 3000, 2)), planned=first.seeds)
    assert (done.action, done.seeds) == ("stop", first.seeds)
    noisier = two_way(D_of(first.seeds, 3000, 3, sd_seed=0.1))
    assert next_seeds(noisier, planned=first.seeds).action == "stop"


def test_a_pilot_comes_first_and_the_most_is_kept_to():
    assert next_seeds(two_way(D_of(2, 300, 3))).seeds == 5
    noisy = next_seeds(two_way(D_of(5, 3000, 3, sd_seed=0.08)), UntilVerdict(most=12))
    assert (noisy.action, noisy.seeds) == ("train", 12)
    assert "the most allowed is 12" in noisy.reason
    calm = next_seeds(two_way(D_of(5, 50_000, 3, sd_seed=0.0)))
    assert (calm.action, calm.seeds) == ("train", 10)
    assert "and 5 fresh ones at least" in calm.reason
    assert next_seeds(two_way(D_of(12, 3000, 3, sd_seed=0.08)), UntilVerdict(most=12)).action == "stop"


@pytest.mark.parametrize("rule", ["reestimate", "looks"])
def test_too_few_texts_stop_both_rules(rule):
    found = two_way(D_of(5, 200, 4, sd_item=0.6, sd_seed=0.0))
    assert needed(found, 0.02).items_first
    decision = next_seeds(found, UntilVerdict(rule=rule))
    assert decision.action == "stop"
    assert decision.reason.startswith("needs items, not seeds")


def test_looks_are_equally_spaced_and_share_the_level():
    settings = UntilVerdict(rule="looks", pilot=5, most=25, looks=3)
    assert look_plan(settings) == (5, 15, 25)
    assert level_of(settings) == pytest.approx(0.05 / 3)
    assert level_of(UntilVerdict()) == 0.05
    assert look_plan(UntilVerdict(rule="looks", looks=1, most=20)) == (20,)


def test_a_look_stops_at_a_word_and_goes_on_without_one():
    settings = UntilVerdict(rule="looks", most=25)
    D = D_of(25, 4000, 5)
    D -= D.mean(axis=1, keepdims=True) - np.random.default_rng(6).normal(0, 0.015, (25, 1))
    assert next_seeds(two_way(D[:5] + 0.5), settings).reason.startswith(
        "BETTER at look 1 of 3 at α = 0.0167 (98.3 % interval)"
    )
    on = next_seeds(two_way(D[:5] + 0.015), settings)
    assert (on.action, on.seeds) == ("train", 15)
    between = next_seeds(two_way(D[:9] + 0.015), settings)
    assert (between.action, between.seeds) == ("train", 15)
    assert next_seeds(two_way(D + 0.02), settings).action == "stop"


def test_a_comparison_decides_as_its_two_way_result_does():
    row = {
        "dataset": "d", "student": "frozen", "contrast": "consensus − gold-aligned", "metric": "accuracy",
        "scope": "all", "attempt": "as_run", "arm": "consensus", "control": "gold-aligned", "effect": "label effect",
        "is_primary": True, "arm_mean": 0.7, "control_mean": 0.7, "p_holm": math.nan, "margin": 0.02,
        "verdict": "INCONCLUSIVE", "k": math.nan,
    }  # fmt: skip
    found = two_way(D_of(5, 3000, 2))
    numbers = (
        "difference",
        "se",
        "df",
        "low",
        "high",
        "low90",
        "high90",
        "p",
        "S",
        "n",
        "sd_seed",
        "sd_item",
        "sd_error",
    )
    frame = pd.DataFrame([{**row, **{name: getattr(found, name) for name in numbers}}])
    assert next_seeds(frame) == next_seeds(found)
    assert next_seeds(frame.assign(verdict="INVALID")).action == "stop"
    assert "over folds" in next_seeds(frame.assign(k=10)).reason
    calm = two_way(D_of(5, 50_000, 3, sd_seed=0.0))
    other = pd.DataFrame([{**row, "student": "linear", **{name: getattr(calm, name) for name in numbers}}])
    assert next_seeds(pd.concat([other, frame], ignore_index=True)) == next_seeds(found)
    with pytest.raises(DataError, match="no primary row"):
        next_seeds(frame.assign(is_primary=False))


def false_alarms(settings, replications, *, sd_seed, n=300, margin=0.02, seed=0):
    """Share of studies without a difference that end in BETTER or WORSE (the true margin is never near)."""
    rng, wrong = np.random.default_rng(seed), 0
    item, error = math.sqrt(0.05), math.sqrt(0.26)
    for _ in range(replications):
        D = rng.normal(0, sd_seed, (settings.most, 1)) + rng.normal(0, item, (1, n))
        D = D + error * rng.standard_normal((settings.most, n), dtype="float32")
        S, planned = settings.pilot, None
        while True:
            found = two_way(D[:S], level_of(settings))
            decision = next_seeds(found, settings, margin=margin, planned=planned)
            if decision.action == "stop":
                break
            S = planned = decision.seeds
        wrong += found.low > 0 or found.high < 0
    return wrong / replications


@pytest.mark.parametrize("rule", ["reestimate", "looks"])
def test_adding_seeds_keeps_the_level(rule):
    # a margin that 5 to 15 seeds of 100 texts can show, so that neither rule stops at once for want of texts
    settings = UntilVerdict(rule=rule, most=15)
    rate = false_alarms(settings, 400, sd_seed=0.05, margin=0.15, n=100)
    assert rate <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_components_of_a_pilot_may_stand_in_for_the_assumed_ones():
    found = two_way(D_of(10, 2000, 8))
    plan = plan_comparison(2000, 10, components=components(found))
    assert plan["se"].item() == pytest.approx(found.se, rel=0.02)


def test_declared_variations_ask_for_no_seeds_of_their_own():
    def row(student, found, **more):
        numbers = (
            "difference",
            "se",
            "df",
            "low",
            "high",
            "low90",
            "high90",
            "p",
            "S",
            "n",
            "sd_seed",
            "sd_item",
            "sd_error",
        )
        return {
            "dataset": "d", "student": student, "contrast": "consensus − gold-aligned", "metric": "accuracy",
            "scope": "all", "attempt": "as_run", "arm": "consensus", "control": "gold-aligned", "effect": "label effect",
            "is_primary": True, "arm_mean": 0.7, "control_mean": 0.7, "p_holm": math.nan, "margin": 0.02,
            "verdict": "INCONCLUSIVE", "k": math.nan, **{name: getattr(found, name) for name in numbers}, **more,
        }  # fmt: skip

    base, varied = two_way(D_of(5, 3000, 2)), two_way(D_of(5, 3000, 3, sd_seed=0.08))
    alone = next_seeds(pd.DataFrame([row("frozen", base)]))
    both = pd.DataFrame([row("frozen", base), row("frozen (gold dev)", varied)])
    assert next_seeds(both) == alone
    asked = next_seeds(both, student="frozen (gold dev)")
    assert asked.seeds > alone.seeds
    with pytest.raises(DataError, match="no primary row of mini"):
        next_seeds(both, student="mini")
    sets = next_seeds(pd.DataFrame([row("frozen", base, replication="training set")]))
    assert (sets.action, sets.seeds) == ("stop", 5)
    assert "training sets, which more seeds in each hardly narrow" in sets.reason
