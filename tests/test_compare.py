"""compare_arms: what is paired with what, which word is said, and how the sentence reads."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pandas as pd
import pytest

from consenso import LabelSchema
from consenso.compare import (
    CONTRASTS,
    VERDICTS,
    CompareSettings,
    Contrast,
    compare_arms,
    exit_code,
    score_runs,
    two_way,
)
from consenso.compare.metrics import differences
from consenso.compare.verdict import Failure, judge, sentence
from consenso.errors import ConfigError, DataError, JoinError
from consenso.tables import COMPARISON
from making import shared

NAMES = np.array(["no", "yes", "maybe"])


def gold_of(n=300, seed=0):
    codes = np.random.default_rng([seed, n]).choice(3, n, p=[0.5, 0.3, 0.2])
    return pd.Series(NAMES[codes], index=[f"t{i:04d}" for i in range(n)], name="gold")


def run(gold, skill, rng, *, luck=0.0):
    """One training's predictions: right with probability `skill`, else another label."""
    right = rng.random(len(gold)) < skill + luck * rng.normal()
    codes = pd.Index(NAMES).get_indexer(gold)
    return NAMES[np.where(right, codes, (codes + rng.integers(1, 3, len(gold))) % 3)]


def predict(gold, skills, *, seeds=5, seed=0, luck=0.0, student="frozen"):
    """Predictions of several arms: {arm: skill}."""
    blocks = []
    for arm, skill in skills.items():
        for s in range(1, seeds + 1):
            rng = np.random.default_rng([seed, s, *arm.encode()])
            frame = {"student": student, "arm": arm, "seed": s, "text_id": gold.index}
            blocks.append(pd.DataFrame({**frame, "predicted": run(gold, skill, rng, luck=luck)}))
    return pd.concat(blocks, ignore_index=True)


def headline(comparison):
    primary = comparison[comparison["is_primary"]]
    assert len(primary) == 1
    return primary.iloc[0]


def test_the_numbers_are_those_of_the_two_way_interval():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    row = headline(compare_arms(predictions, gold))
    table = predictions.pivot(index=["arm", "seed"], columns="text_id", values="predicted")
    expected = two_way(differences(table.loc["consensus"], table.loc["gold-aligned"], gold[table.columns], "macro_f1"))
    for name in ("difference", "se", "df", "low", "high", "low90", "high90", "p", "S", "n", "sd_seed", "sd_item"):
        assert row[name] == pytest.approx(getattr(expected, name))
    assert row["arm_mean"] - row["control_mean"] == pytest.approx(row["difference"])


def with_errors(gold, wrong):
    """Predictions with the given number of errors per (arm, seed), at places that differ from seed to seed."""
    blocks = []
    for (arm, s), k in wrong.items():
        predicted = np.roll(["?"] * k + list(gold[: len(gold) - k]), s)
        predicted = np.where(predicted == "?", "maybe", gold)
        blocks.append(pd.DataFrame({"arm": arm, "seed": s, "text_id": gold.index, "predicted": predicted}))
    return pd.concat(blocks)


def test_seeds_better_is_the_share_of_seeds_in_which_the_arm_wins():
    gold = pd.Series(["no", "yes"] * 10, index=[f"t{i:02d}" for i in range(20)])
    errors = {"consensus": [2, 5, 3, 1], "gold-aligned": [3, 3, 3, 3]}
    wrong = {(arm, s): k for arm, counts in errors.items() for s, k in enumerate(counts)}
    row = headline(compare_arms(with_errors(gold, wrong), gold, metric="accuracy"))
    assert row["seeds_better"] == (1 + 0 + 0.5 + 1) / 4
    assert row["difference"] == pytest.approx((12 - 11) / 4 / 20)


def test_rows_are_paired_by_text_and_seed_never_by_order():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75, "gold": 0.8})
    plain = compare_arms(predictions, gold)
    shuffled = compare_arms(predictions.sample(frac=1, random_state=1), gold.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(plain, shuffled)


def test_gold_may_be_a_frame_and_ids_may_be_integers():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    number = {text_id: i for i, text_id in enumerate(gold.index)}
    frame = pd.DataFrame({"text_id": [str(number[i]) for i in gold.index], "gold": gold.to_numpy()})
    one = headline(compare_arms(predictions, gold))
    other = headline(compare_arms(predictions.assign(text_id=predictions["text_id"].map(number)), frame))
    assert other["difference"] == pytest.approx(one["difference"])


def test_swapping_the_arms_flips_the_signs_exactly():
    gold = gold_of()
    predictions = predict(gold, {"a": 0.7, "b": 0.75})
    one = headline(compare_arms(predictions, gold, contrasts=[("a", "b")]))
    other = headline(compare_arms(predictions, gold, contrasts=["b − a"]))
    assert (one["difference"], one["low"], one["high90"]) == (-other["difference"], -other["high"], -other["low90"])
    assert (one["p"], one["se"]) == (other["p"], other["se"])


def test_names_of_seeds_texts_and_labels_change_no_bit():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    other = dict(zip(NAMES, ["z", "a", "m"], strict=True))
    renamed = predictions.assign(
        seed=predictions["seed"].map({1: 77, 2: 5, 3: 8, 4: 1, 5: 0}), predicted=predictions["predicted"].map(other)
    )
    ids = dict(zip(gold.index, np.random.default_rng(5).permutation(gold.index), strict=True))
    renamed["text_id"] = renamed["text_id"].map(ids)
    one, two = compare_arms(predictions, gold), compare_arms(renamed, gold.map(other).rename(ids))
    numbers = one.select_dtypes("number").columns
    pd.testing.assert_frame_equal(one[numbers], two[numbers], check_exact=True)


def test_only_contrasts_whose_arms_exist_are_reported_in_both_metrics():
    gold = gold_of()
    arms = {"consensus": 0.7, "gold-aligned": 0.75, "gold": 0.8, "consensus-kept": 0.7}
    found = compare_arms(predict(gold, arms), gold)
    expected = {
        "consensus − gold-aligned", "gold-aligned − gold", "consensus − gold", "consensus-kept − gold-aligned",
    }  # fmt: skip
    assert set(found["contrast"]) == expected
    assert found.groupby("contrast")["metric"].apply(set).map(lambda m: m == {"accuracy", "macro_f1"}).all()
    assert headline(found)["contrast"] == "consensus − gold-aligned"
    assert headline(found)["metric"] == "macro_f1"
    assert headline(compare_arms(predict(gold, arms), gold, metric="accuracy"))["metric"] == "accuracy"


def test_arms_with_a_number_or_a_name_in_them_have_their_contrasts():
    gold = gold_of()
    arms = (
        "consensus",
        "single:qwen",
        "consensus+50",
        "consensus+50:random",
        "gold@250",
        "gold-noised",
        "consensus-soft",
    )
    found = compare_arms(predict(gold, dict.fromkeys(arms, 0.7)), gold)
    effects = {
        "consensus − single:qwen": "panel effect", "consensus+50 − consensus": "review effect",
        "consensus+50 − consensus+50:random": "review order effect", "consensus-soft − consensus": "soft-label effect",
        "gold-noised − consensus": "cost of the error's structure",
    }  # fmt: skip
    assert found.set_index("contrast")["effect"].to_dict() == effects
    assert found["sentence"].str.contains("instead of those of qwen alone").any()
    asked = compare_arms(
        predict(gold, {"consensus": 0.7, "gold": 0.7}), gold, contrasts=[("consensus", "gold"), ("gold@99", "gold")]
    )
    assert set(asked["contrast"]) == {"consensus − gold"}


def test_every_student_has_its_own_headline_and_its_own_family():
    gold = gold_of()
    arms = {"consensus": 0.7, "gold-aligned": 0.75, "gold": 0.8}
    both = pd.concat([predict(gold, arms, student=name, seed=i) for i, name in enumerate(["frozen", "linear"])])
    found = compare_arms(both, gold)
    assert found.groupby("student")["is_primary"].sum().tolist() == [1, 1]
    alone = compare_arms(predict(gold, arms, student="linear", seed=1), gold)
    mine = found[found["student"] == "linear"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone.reset_index(drop=True))


def test_holm_covers_the_secondary_contrasts_of_each_metric():
    gold = gold_of(800)
    arms = {"consensus": 0.7, "gold-aligned": 0.74, "gold": 0.75, "floor": 0.3}
    found = compare_arms(predict(gold, arms), gold).set_index(["contrast", "metric"])
    first, second = found.loc[("consensus − gold", "macro_f1")], found.loc[("gold-aligned − gold", "macro_f1")]
    assert first["p"] < second["p"]
    assert first["p_holm"] == pytest.approx(2 * first["p"])
    assert second["p_holm"] == pytest.approx(max(second["p"], first["p_holm"]))
    family = ("consensus − gold-aligned", "consensus − gold", "gold-aligned − gold")  # in the metric not declared
    rows = sorted((found.loc[(name, "accuracy")] for name in family), key=lambda row: row["p"])
    expected = np.maximum.accumulate([min(1, times * row["p"]) for times, row in zip((3, 2, 1), rows)])
    assert [row["p_holm"] for row in rows] == pytest.approx(expected.tolist())
    assert math.isnan(found.loc[("consensus − gold-aligned", "macro_f1"), "p_holm"])
    assert found.loc["gold − floor", "p_holm"].isna().all()


def test_the_primary_contrast_is_one_of_the_family_in_a_second_analysis():
    gold = gold_of()
    arms = {"consensus": 0.7, "gold-aligned": 0.75, "gold": 0.8}
    rescued = predict(gold, arms, seed=9).assign(attempt="rescue")
    found = compare_arms(pd.concat([predict(gold, arms).assign(attempt="as_run"), rescued[rescued["seed"] == 3]]), gold)
    rows = found[found["metric"] == "macro_f1"].set_index(["attempt", "contrast"])
    assert math.isnan(rows.loc[("as_run", "consensus − gold-aligned"), "p_holm"])
    again = rows.loc["rescue"].sort_values("p")
    assert len(again) == 3
    expected = np.maximum.accumulate([min(1, times * p) for times, p in zip((3, 2, 1), again["p"])])
    assert again["p_holm"].tolist() == pytest.approx(expected.tolist())


def test_an_effect_in_the_other_metric_needs_holm_too():
    # several contrasts; p of one lies between .01 and .05 in accuracy: unadjusted it would be a word
    gold = gold_of(600)
    arms = {"consensus": 0.70, "gold-aligned": 0.7, "gold": 0.725, "consensus-kept": 0.7, "consensus-random": 0.7}
    found = compare_arms(predict(gold, arms), gold, margin=0.05)
    other = found[found["metric"] == "accuracy"]
    tempting = other[(other["p"] < 0.05) & (other["p_holm"] >= 0.05)]
    assert len(tempting)
    assert not tempting["verdict"].isin(["BETTER", "WORSE"]).any()
    assert tempting["reason"].str.contains("not after Holm's adjustment").all()


def test_a_primary_contrast_without_its_arms_gives_no_headline():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold": 0.75})
    found = compare_arms(predictions, gold, primary=("consensus", "gold-aligned"))
    assert set(found["contrast"]) == {"consensus − gold"}
    assert not found["is_primary"].any()


def test_arms_that_are_not_there_are_named_with_the_nearest():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold": 0.75})
    with pytest.raises(ConfigError, match=r"no predictions of arm 'consenus'.*Did you mean 'consensus'"):
        compare_arms(predictions, gold, contrasts=[("consenus", "gold")])
    with pytest.raises(ConfigError, match="no contrast to compute"):
        compare_arms(predictions.replace({"arm": {"consensus": "llm", "gold": "human"}}), gold)


def test_a_standard_arm_that_was_not_trained_leaves_its_contrast_out_and_says_so(caplog):
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold": 0.75})
    asked = [("consensus", "gold-aligned"), ("consensus", "gold")]
    found = compare_arms(predictions, gold, contrasts=asked)
    assert set(found["contrast"]) == {"consensus − gold"}
    assert not found["is_primary"].any()
    assert (
        "frozen: consensus − gold-aligned is left out, because there are no predictions of gold-aligned" in caplog.text
    )
    with pytest.raises(ConfigError, match="no predictions of arm 'my arm'"):
        compare_arms(predictions, gold, contrasts=[("my arm", "gold")])


def test_an_arm_of_another_student_is_a_known_name():
    gold = gold_of()
    one, other = predict(gold, {"llm": 0.7, "gold": 0.75}), predict(gold, {"gold": 0.7}, student="linear")
    found = compare_arms(pd.concat([one, other]), gold, contrasts=[("llm", "gold")])
    assert set(found["student"]) == {"frozen"}


def test_a_student_without_a_contrast_has_an_empty_table_with_all_columns():
    gold = gold_of()
    full = compare_arms(predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}), gold)
    empty = compare_arms(predict(gold, {"gold": 0.75}), gold, primary=("consensus", "gold-aligned"))
    assert not len(empty)
    assert list(empty.columns) == list(COMPARISON.columns)
    both = pd.concat([full, empty], ignore_index=True)
    pd.testing.assert_frame_equal(both, full, check_dtype=True)


def test_copies_of_a_seed_are_left_out_of_both_arms():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}, seeds=6)
    plain = headline(compare_arms(predictions[predictions["seed"] <= 4], gold))
    mine = predictions["arm"] == "consensus"
    copy = predictions[mine & (predictions["seed"] == 2)]
    copied = pd.concat([
        predictions[~(mine & (predictions["seed"] > 4))], copy.assign(seed=5), copy.assign(seed=6)
    ])  # fmt: skip
    row = headline(compare_arms(copied, gold))
    assert row["S"] == 4
    for name in ("difference", "se", "low", "high"):
        assert row[name] == pytest.approx(plain[name])


def test_collapsed_seeds_are_alike_but_no_copies():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}, seeds=10)
    predictions.loc[(predictions["arm"] == "consensus") & (predictions["seed"] <= 2), "predicted"] = "no"
    assert headline(compare_arms(predictions, gold))["S"] == 10


def test_strata_become_scopes_of_their_own():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    level = pd.Series(np.where(np.arange(300) < 200, "high", "low"), index=gold.index, name="level")
    found = compare_arms(predictions, gold, strata=level).set_index(["scope", "metric"])
    assert found.loc[("level high", "accuracy"), "n"] == 200
    assert found.loc[("level low", "accuracy"), "n"] == 100
    parts = [found.loc[(scope, "accuracy"), "difference"] for scope in ("level high", "level low")]
    assert found.loc[("all", "accuracy"), "difference"] == pytest.approx((2 * parts[0] + parts[1]) / 3)
    assert found["is_primary"].sum() == 1


def test_dev_predictions_are_not_read():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}).assign(part="test")
    dev = predictions.assign(part="dev", predicted="no", text_id="d" + predictions["text_id"])
    with_dev = compare_arms(pd.concat([dev, predictions]), pd.concat([gold, gold.rename(lambda i: "d" + i)]))
    pd.testing.assert_frame_equal(with_dev, compare_arms(predictions, gold))


def test_folds_that_share_test_texts_with_one_seed_each_are_replications():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}, seeds=6)
    folded = predictions.assign(fold=predictions["seed"] - 1, seed=1)
    one, other = headline(compare_arms(predictions, gold)), headline(compare_arms(folded, gold))
    assert (other["S"], other["n"]) == (6, 300)
    assert other["low"] == pytest.approx(one["low"])
    assert "6 training sets, 300 test texts" in other["sentence"]


def test_a_rescue_is_a_second_analysis_beside_the_first():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}).assign(attempt="as_run")
    rescued = predict(gold, {"consensus": 0.72, "gold-aligned": 0.75}, seed=9).assign(attempt="rescue")
    found = compare_arms(pd.concat([predictions, rescued[rescued["seed"] == 3]]), gold)
    as_run = found[found["attempt"] == "as_run"].reset_index(drop=True)
    pd.testing.assert_frame_equal(as_run, compare_arms(predictions, gold))
    swapped = pd.concat([predictions[predictions["seed"] != 3], rescued[rescued["seed"] == 3]]).assign(attempt="as_run")
    rescue = found[(found["attempt"] == "rescue") & (found["metric"] == "macro_f1")].iloc[0]
    assert rescue["difference"] == pytest.approx(headline(compare_arms(swapped, gold))["difference"])
    assert not rescue["is_primary"]
    assert "(second analysis: 1 collapsed seed replaced in all arms)" in rescue["sentence"]
    assert not as_run["sentence"].str.contains("second analysis").any()


def test_a_rescue_has_rows_only_where_it_replaced_a_seed():
    gold = gold_of()
    arms = {"consensus": 0.7, "gold-aligned": 0.75, "gold": 0.8}
    as_run = predict(gold, arms).assign(attempt="as_run")
    rescued = predict(gold, arms, seed=9).assign(attempt="rescue")
    rescued = rescued[(rescued["seed"] == 3) & (rescued["arm"] != "gold")]
    found = compare_arms(pd.concat([as_run, rescued]), gold)
    rescue = found[(found["attempt"] == "rescue") & (found["metric"] == "macro_f1")].set_index("contrast")["verdict"]
    assert rescue["consensus − gold-aligned"] != "INVALID"
    assert set(rescue[["consensus − gold", "gold-aligned − gold"]]) == {"INVALID"}  # gold kept its collapsed seed
    only = compare_arms(pd.concat([as_run, rescued[rescued["arm"] == "consensus"]]), gold)
    assert "gold-aligned − gold" not in set(only.loc[only["attempt"] == "rescue", "contrast"])


def test_a_seed_that_failed_as_run_counts_in_its_rescue():
    gold = gold_of()
    arms = {"consensus": 0.7, "gold-aligned": 0.75}
    as_run = predict(gold, arms, seeds=6).assign(attempt="as_run")
    rescued = predict(gold, arms, seeds=6, seed=9).assign(attempt="rescue")
    rows = [
        {"student": "frozen", "arm": arm, "fold": 0, "seed": s, "attempt": "as_run", "status": "ok"}
        for arm in arms for s in range(1, 7)
    ]  # fmt: skip
    rows[2]["status"] = "failed"
    found = compare_arms(
        pd.concat([as_run, rescued[rescued["seed"] == 3]]), gold, trainings=pd.DataFrame(rows)
    ).set_index(["attempt", "metric"])
    assert (found.loc[("as_run", "accuracy"), "S"], found.loc[("rescue", "accuracy"), "S"]) == (5, 6)


def test_repeated_predictions_are_an_error():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    with pytest.raises(DataError, match=r"1 repeated row\(s\)"):
        compare_arms(pd.concat([predictions, predictions.iloc[[7]]]), gold)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, g: (p.drop(columns="seed"), g), DataError, r"missing column\(s\) \['seed'\]"),
        (lambda p, g: (p.assign(predicted=None), g), DataError, "empty value"),
        (lambda p, g: (p.mask(p["text_id"] == "t0001"), g), DataError, "empty value"),
        (lambda p, g: (p.iloc[:0], g), DataError, "the table is empty"),
        (lambda p, g: (p.assign(part="dev"), g), DataError, "no row of part 'test'"),
        (lambda p, g: (p.assign(attempt="again"), g), DataError, "'attempt' holds 'again'"),
        (lambda p, g: (p, g.rename(lambda i: "x" + i)), JoinError, "share no text_id: 't0000' here, 'xt0000' there"),
        (lambda p, g: (p, g.astype(object).where(g == "x")), JoinError, "no labelled text"),
        (lambda p, g: (p, pd.concat([g, g.iloc[:1]])), DataError, "1 repeated text_id"),
        (lambda p, g: (p, g.to_frame().reset_index(names="id")), DataError, r"missing column\(s\) \['text_id'\]"),
    ],
)
def test_bad_input_is_one_line(change, error, message):
    gold = gold_of()
    predictions, gold = change(predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}), gold)
    with pytest.raises(error, match=message) as raised:
        compare_arms(predictions, gold)
    assert "\n" not in str(raised.value)


def test_a_margin_in_points_is_refused():
    with pytest.raises(ConfigError, match=r"0.02 means 2 percentage points; found 2"):
        compare_arms(pd.DataFrame(), pd.Series(), margin=2)
    with pytest.raises(ConfigError, match=r"margin: .*0.02 means 2 percentage points"):
        CompareSettings.read({"margin": 2})


def test_an_unknown_gold_label_is_named():
    gold = gold_of()
    with pytest.raises(DataError, match=r"unknown label\(s\) \['maybe'\]"):
        compare_arms(
            predict(gold, {"consensus": 0.7, "gold-aligned": 0.7}), gold, schema=LabelSchema.from_names(["no", "yes"])
        )


def test_the_inputs_are_not_changed():
    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    before = predictions.copy(deep=True), gold.copy(deep=True)
    compare_arms(predictions, gold)
    pd.testing.assert_frame_equal(predictions, before[0])
    pd.testing.assert_series_equal(gold, before[1])


# the words


def result(difference, se, df=1000, S=10, n=1000):
    """A two-way result with the given difference and standard error, in points."""
    from scipy.stats import t

    from consenso.compare import TwoWay

    difference, se = difference / 100, se / 100
    half, half90 = t.ppf(0.975, df) * se, t.ppf(0.95, df) * se
    ends = (difference - half, difference + half, difference - half90, difference + half90)
    return TwoWay(difference, se, df, *ends, p=2 * t.sf(abs(difference) / se, df), ms_seed=n * (se**2) * S / 2 + 0.1,
                  ms_item=se**2 * S * n / 2 + 0.1, ms_error=0.1, S=S, n=n)  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "se", "word", "within"),
    [
        (3.0, 1.0, "BETTER", False),
        (1.0, 0.4, "BETTER", True),
        (-3.0, 1.0, "WORSE", False),
        (-1.0, 0.4, "WORSE", True),
        (-0.3, 0.5, "EQUIVALENT", False),
        (1.5, 0.9, "NON-INFERIOR", False),
        (-0.5, 1.2, "INCONCLUSIVE", False),
    ],
)
def test_the_word_follows_from_the_intervals(difference, se, word, within):
    verdict = judge(result(difference, se), 0.02)
    assert (verdict.word, verdict.within_margin) == (word, within)
    assert set(VERDICTS) >= {word}


def test_a_failed_guard_comes_before_every_number_and_every_flaw_is_named():
    flaws = [
        Failure("collapse", "4 of 10", "UNSTABLE RECIPE"),
        Failure("leakage", "2 texts"),
        Failure("seeds differ", "all alike", "NO VERDICT"),
    ]
    verdict = judge(result(3.0, 1.0), 0.02, flaws)
    assert verdict.word == "INVALID"
    assert verdict.reason == "leakage: 2 texts; collapse: 4 of 10; seeds differ: all alike"
    assert judge(result(3.0, 1.0), 0.02, flaws[:1]).word == "UNSTABLE RECIPE"
    assert judge(result(3.0, 1.0), 0.02, flaws[2:]).word == "NO VERDICT"
    assert judge(two_way([[1, 0, 1]]), 0.02, flaws[:1]).word == "UNSTABLE RECIPE"


def test_better_needs_holm_where_a_contrast_is_secondary():
    assert judge(result(2.5, 1.2), 0.02, p_holm=0.04).word == "BETTER"
    adjusted = judge(result(2.5, 1.2), 0.02, p_holm=0.11)
    assert adjusted.word == "NON-INFERIOR"
    assert "not after Holm's adjustment (p = 0.11)" in adjusted.reason


def test_the_exit_code_is_4_for_invalid_alone():
    assert {word: exit_code(word) for word in VERDICTS if exit_code(word)} == {"INVALID": 4}


LABEL_EFFECT, FILTERING = CONTRASTS[0], CONTRASTS[3]


def said(difference, se, contrast=LABEL_EFFECT, **more):
    found = result(difference, se)
    return sentence(judge(found, 0.02), found, contrast, **more)


def test_the_sentence_of_an_equivalence():
    assert said(-0.3, 0.5) == (
        "EQUIVALENT: trained on consensus labels instead of human ones, macro-F1 changes by −0.3 pp "
        "(95 % interval −1.3 to +0.7; margin ±2.0 pp; 10 seeds, 1,000 test texts)."
    )


def test_the_sentence_says_but_within_the_margin():
    assert said(1.0, 0.4).startswith("BETTER but within the margin: trained on consensus labels")


def test_the_sentence_says_when_seeds_are_resamples():
    assert "10 bootstrap resamples of the training texts, 1,000 test texts" in said(-0.3, 0.5, replication="bootstrap")


@pytest.mark.parametrize(
    ("difference", "ending"),
    [(-0.3, "filtering not shown to help."), (2.0, "filtering helps."), (-2.0, "not shown to help, it harms.")],
)
def test_the_sentence_on_filtering_says_whether_it_helps(difference, ending):
    assert FILTERING.effect == "filtering effect"
    assert said(difference, 0.5, FILTERING).endswith(ending)


def test_an_inconclusive_sentence_says_what_is_needed():
    assert "INCONCLUSIVE: " in said(-0.5, 1.2)
    assert "if there is no difference (power .8) it needs about" in said(-0.5, 1.2)
    gold = gold_of(150)
    row = headline(compare_arms(predict(gold, {"consensus": 0.7, "gold-aligned": 0.71}, luck=0.0), gold))
    assert row["verdict"] == "INCONCLUSIVE"
    assert "seeds with 150 test texts" in row["sentence"] or "test texts, not seeds" in row["sentence"]


def test_another_level_changes_the_percentages_and_the_words():
    found = two_way(np.random.default_rng(4).normal(0.02, 0.1, (5, 60)), alpha=0.05 / 3)
    text = sentence(judge(found, 0.02, alpha=0.05 / 3), found, LABEL_EFFECT, alpha=0.05 / 3)
    assert "98.3 % interval" in text
    assert "95 %" not in text
    assert "96.7 % interval" in judge(found, 0.5, alpha=0.05 / 3).reason


def test_an_interval_at_another_level_is_the_textbook_one():
    from scipy.stats import t

    gold = gold_of()
    predictions = predict(gold, {"consensus": 0.7, "gold-aligned": 0.75})
    row, usual = headline(compare_arms(predictions, gold, alpha=0.01)), headline(compare_arms(predictions, gold))
    assert (row["alpha"], usual["alpha"]) == (0.01, 0.05)
    assert row["high"] - row["difference"] == pytest.approx(t.ppf(0.995, row["df"]) * row["se"])
    assert row["high90"] - row["difference"] == pytest.approx(t.ppf(0.99, row["df"]) * row["se"])
    assert (row["se"], row["df"], row["p"]) == (usual["se"], usual["df"], usual["p"])
    with pytest.raises(ConfigError, match="alpha is the level of the test"):
        compare_arms(predictions, gold, alpha=0.95)


def test_the_detectable_difference_has_power_of_eight_in_ten():
    from scipy.stats import nct, t

    gold = gold_of()
    row = headline(compare_arms(predict(gold, {"consensus": 0.7, "gold-aligned": 0.75}, luck=0.03), gold))
    edge, shift = t.ppf(0.975, row["df"]), row["detectable"] / row["se"]
    assert nct.sf(edge, row["df"], shift) == pytest.approx(0.8, abs=1e-6)


def test_holm_counts_at_the_level_of_the_test():
    found = two_way(np.random.default_rng(5).normal(0.05, 0.1, (5, 60)), alpha=0.01)
    assert judge(found, 0.02, p_holm=0.02, alpha=0.01).word != "BETTER"
    assert judge(found, 0.02, p_holm=0.009, alpha=0.01).word == "BETTER"


def test_the_smallest_numbers_have_no_sign():
    assert "changes by 0.0 pp" in said(-0.004, 0.5)


# one seed


def test_one_seed_gives_no_verdict():
    gold = gold_of(2000)
    row = headline(compare_arms(predict(gold, {"consensus": 0.5, "gold-aligned": 0.9}, seeds=1), gold))
    assert (row["verdict"], row["S"]) == ("NO VERDICT", 1)
    assert math.isnan(row["low"])
    assert math.isnan(row["p"])
    assert "one seed cannot tell luck from labels" in row["sentence"]


def test_one_arm_without_replication_is_one_seed_and_the_difference_is_over_all():
    gold = pd.Series(["no", "yes"] * 10, index=[f"t{i:02d}" for i in range(20)])
    varied = with_errors(gold, {("consensus", 0): 2, ("consensus", 1): 4})
    fixed = with_errors(gold, {("gold-aligned", 0): 1})
    row = headline(compare_arms(pd.concat([varied, fixed, fixed.assign(seed=1)]), gold, metric="accuracy"))
    assert (row["verdict"], row["S"]) == ("NO VERDICT", 1)
    assert row["difference"] == pytest.approx(-(1 + 3) / 2 / 20)


def test_copies_of_one_seed_are_one_seed():
    gold = gold_of(500)
    once = predict(gold, {"consensus": 0.5, "gold-aligned": 0.9}, seeds=1)
    row = headline(compare_arms(pd.concat([once.assign(seed=s) for s in range(10)]), gold))
    assert (row["verdict"], row["S"]) == ("NO VERDICT", 1)
    assert "all seeds of consensus, gold-aligned give the same predictions" in row["reason"]


def test_published_predictions_of_one_run_each_give_no_verdict():
    with gzip.open(shared("babe_llm", "test_predictions.csv.gz"), "rt") as file:
        table = pd.read_csv(file, dtype=str)
    columns = {"consensus": "pred_trained_on_llm_consensus", "gold-aligned": "pred_trained_on_human"}
    predictions = pd.concat(
        pd.DataFrame({"arm": arm, "seed": 42, "text_id": table["text_id"], "predicted": table[column]})
        for arm, column in columns.items()
    )
    found = compare_arms(predictions, table[["text_id", "gold"]], metric="accuracy", dataset="babe")
    row = headline(found)
    assert (row["arm_mean"], row["control_mean"]) == pytest.approx((0.831, 0.833))
    assert set(found["verdict"]) == {"NO VERDICT"}
    assert exit_code(row["verdict"]) == 0


# scores


def test_scores_agree_with_scikit_learn_for_dev_and_test():
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    gold = gold_of(120)
    predictions = predict(gold, {"gold": 0.7}, seeds=2)
    predictions["part"] = np.where(predictions["text_id"] < "t0040", "dev", "test")
    scores = score_runs(predictions, gold).set_index(["seed", "part", "metric"])["value"]
    assert len(scores) == 2 * 2 * 5
    for (seed, part), run_ in predictions.groupby(["seed", "part"]):
        truth, guess = gold[run_["text_id"]], run_["predicted"]
        assert scores[seed, part, "accuracy"] == pytest.approx(accuracy_score(truth, guess))
        assert scores[seed, part, "macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
        recall = dict(zip(sorted(NAMES), recall_score(truth, guess, average=None), strict=True))
        assert {name: scores[seed, part, f"recall:{name}"] for name in NAMES} == pytest.approx(recall)


def test_scores_leave_out_texts_without_gold():
    gold = gold_of(50)
    predictions = predict(gold, {"gold": 0.7}, seeds=1)
    part = score_runs(predictions, gold.iloc[:30])
    assert part.loc[part["metric"] == "accuracy", "value"].item() == pytest.approx(
        (predictions["predicted"].to_numpy()[:30] == gold.to_numpy()[:30]).mean()
    )
    with pytest.raises(DataError, match="no predicted text has gold"):
        score_runs(predictions, gold.rename(lambda i: "x" + i))


def test_settings_give_the_arguments_of_compare_arms():
    settings = CompareSettings.read({"metric": "accuracy", "margin": 0.03, "contrasts": [{"arm": "a", "control": "b"}]})
    assert (settings.arm, settings.control) == ("consensus", "gold-aligned")
    assert [Contrast(c.arm, c.control).name for c in settings.contrasts] == ["a − b"]
    with pytest.raises(ConfigError, match=r"unknown key 'marign'.*Did you mean 'margin'"):
        CompareSettings.read({"marign": 0.02})


def test_a_filter_that_filters_nothing_yields_no_verdict():
    rng = np.random.default_rng(3)
    ids = [f"t{i}" for i in range(60)]
    gold = pd.Series(rng.choice(["a", "b"], 60), index=ids)
    runs = [
        pd.DataFrame(
            {"arm": arm, "seed": seed, "text_id": ids, "predicted": np.random.default_rng(seed).choice(["a", "b"], 60)}
        )
        for arm in ("consensus-kept", "consensus-random")
        for seed in range(5)
    ]
    table = compare_arms(pd.concat(runs), gold, metric="accuracy", primary=("consensus-kept", "consensus-random"))
    row = table[table["metric"] == "accuracy"].iloc[0]
    assert row["verdict"] == "NO VERDICT"
    assert "no text was filtered out" in row["sentence"]
