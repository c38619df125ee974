"""Votes → labels: the suite every method passes, the decision, the settings, and what happens to bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consenso.consensus import (
    METHODS,
    ConsensusSettings,
    Method,
    ProblematicRule,
    check_consensus,
    code_votes,
    estimate_label_shares,
    estimate_reliability,
    map_panel,
    measure_agreement,
    score_against_gold,
)
from consenso.consensus import decide as decide_as_asked
from consenso.consensus.methods import Shares
from consenso.errors import ConfigError, DataError, JoinError
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from making import shared

WIDER = LabelSchema.from_names(["neg", "never", "neu", "pos"])
SCHEMA = LabelSchema.from_names(["neg", "neu", "pos"])


def decide(frame, method="dawid_skene_map", **options):
    """`decide`, with the order of labels where a method must be told it."""
    if method in METHODS and METHODS[method].ordered:
        options.setdefault("labels", SCHEMA)
    return decide_as_asked(frame, method, **options)


METHOD_NAMES = sorted(set(METHODS) - {"crowdlab"})  # needs a classifier: tests/test_consensus_models.py
COUNTING = {"majority", "weighted", "unanimous", "threshold", "outliers"}
"""Methods that read each text alone; the others learn from all texts."""


def votes(*labels, **more):
    """One text; one annotator per label; None is an unparsable vote."""
    return table({"t": labels}, **more)


def table(texts, **more):
    """{text: labels}; the position in the list is the annotator."""
    rows = [(text, f"ann{i}", label) for text, labels in texts.items() for i, label in enumerate(labels)]
    frame = pd.DataFrame(rows, columns=["text_id", "annotator", "label"])
    frame["status"] = np.where(frame["label"].isna(), "unparsable", "ok")
    return frame.assign(**more)


def repeated(texts):
    """{text: {annotator: labels of its repetitions}}."""
    rows = [
        (text, name, repetition, label)
        for text, annotators in texts.items()
        for name, labels in annotators.items()
        for repetition, label in enumerate(labels)
    ]
    return pd.DataFrame(rows, columns=["text_id", "annotator", "repetition", "label"])


def random_votes(seed=0, n=60, annotators=5, invalid=0.15):
    rng = np.random.default_rng(seed)
    labels = np.where(
        rng.random((n, annotators)) < invalid, None, np.array(SCHEMA.names)[rng.integers(0, 3, (n, annotators))]
    )
    return table({f"text {i}": list(row) for i, row in enumerate(labels)})


def one(frame):
    assert len(frame) == 1
    return frame.iloc[0]


def same(one_frame, other, **more):
    pd.testing.assert_frame_equal(one_frame.reset_index(drop=True), other.reset_index(drop=True), atol=1e-12, **more)


# the suite every method passes


@pytest.mark.parametrize("method", METHOD_NAMES)
class TestEveryMethod:
    def test_the_order_of_rows_does_not_matter(self, method):
        frame = random_votes()
        for ties in ("undecided", "random"):
            shuffled = frame.sample(frac=1, random_state=1)
            same(decide(frame, method, ties=ties), decide(shuffled, method, ties=ties))

    def test_the_order_of_columns_does_not_matter(self, method):
        frame = random_votes()
        same(decide(frame, method), decide(frame[frame.columns[::-1]], method))

    def test_the_names_of_annotators_do_not_matter(self, method):
        frame = random_votes()
        names = {f"ann{i}": name for i, name in enumerate("zyxwv")}
        for ties in ("undecided", "random"):
            renamed = frame.assign(annotator=frame["annotator"].map(names))
            same(decide(frame, method, ties=ties), decide(renamed, method, ties=ties))

    def test_the_names_of_labels_do_not_matter(self, method):
        frame = random_votes()
        names = {"neg": "zzz", "neu": "日本", "pos": "aaa"}
        schema = LabelSchema.from_names([names[name] for name in SCHEMA])
        before = decide(frame, method, labels=SCHEMA)
        after = decide(frame.assign(label=frame["label"].map(names)), method, labels=schema)
        same(before.assign(label=before["label"].map(names)), after)

    def test_the_order_of_classes_does_not_matter(self, method):
        if METHODS[method].ordered:
            return
        frame = random_votes()
        turned = LabelSchema.from_names(["pos", "neg", "neu"])
        for ties in ("undecided", "random"):
            before = decide(frame, method, labels=SCHEMA, ties=ties)
            after = decide(frame, method, labels=turned, ties=ties)
            same(before.drop(columns="shares"), after.drop(columns="shares"))
            for mine, theirs in zip(before["shares"].dropna(), after["shares"].dropna(), strict=True):
                assert mine[[2, 0, 1]] == pytest.approx(theirs, abs=1e-12)

    def test_invalid_votes_never_help_a_label(self, method):
        frame = random_votes()
        texts = sorted(frame["text_id"].unique())
        valid = frame[frame["status"].eq("ok")]
        same(decide(frame, method, texts=texts), decide(valid, method, texts=texts))

    def test_shares_sum_to_one(self, method):
        for shares in decide(random_votes(), method)["shares"].dropna():
            assert sum(shares) == pytest.approx(1, abs=1e-12)

    def test_unanimous_is_unanimous(self, method):
        found = one(decide(votes("pos", "pos", None, "pos"), method, labels=SCHEMA))
        assert (found["label"], found["status"], found["level"]) == ("pos", "decided", "high")
        assert (found["score"], found["n_votes"], found["is_problematic"]) == (1, 3, False)
        if method in COUNTING:
            assert (found["entropy_bits"], found["margin"], list(found["shares"])) == (0, 1, [0, 0, 1])
        assert found["shares"][2] > 0.9

    def test_a_class_nobody_votes_for_keeps_its_column(self, method):
        schema = LabelSchema.from_names(["pos", "never", "neg"])
        shares = one(decide(votes("neg", "neg"), method, labels=schema))["shares"]
        assert len(shares) == 3
        assert max(shares[0], shares[1]) < 0.1
        never = np.array([row[1] for row in decide(random_votes(), method, labels=WIDER)["shares"].dropna()])
        assert len(never)
        assert never.max() < 0.34

    def test_a_text_without_a_valid_vote_is_null_not_a_class(self, method):
        found = one(decide(votes(None, None, None), method, labels=SCHEMA))
        assert found["status"] == "no_votes"
        assert found["n_votes"] == 0
        assert found["is_problematic"]
        assert found[["label", "score", "posterior", "entropy_bits", "margin", "level", "shares"]].isna().all()

    def test_other_texts_matter_to_models_alone(self, method):
        if method not in COUNTING:
            return
        frame = random_votes()
        half = frame[frame["text_id"].isin(frame["text_id"].unique()[:30])]
        everything = decide(frame, method, labels=SCHEMA, ties="random")
        kept = everything[everything["text_id"].isin(half["text_id"])]
        same(kept, decide(half, method, labels=SCHEMA, ties="random"))

    def test_one_annotator_is_its_own_consensus(self, method):
        assert list(decide(table({"a": ["pos"], "b": ["neg"]}), method)["label"]) == ["pos", "neg"]

    @settings(derandomize=True, deadline=None, max_examples=25, database=None)
    @given(
        st.lists(
            st.lists(st.sampled_from(["neg", "neu", "pos", None]), min_size=1, max_size=7), min_size=1, max_size=6
        ),
        st.randoms(use_true_random=False),
    )
    def test_any_votes_give_a_consistent_table(self, method, texts, random):
        frame = table(dict(enumerate(texts)))
        labels = decide(frame, method, labels=SCHEMA)
        for row, given_labels in zip(labels.itertuples(), texts, strict=True):
            valid = [label for label in given_labels if label]
            assert row.n_votes == len(valid)
            assert (row.status == "no_votes") == (not valid)
            assert pd.notna(row.label) == (row.status == "decided")
            if valid and method in COUNTING - {"outliers"}:
                most = max(valid.count(name) for name in SCHEMA)
                assert row.score == pytest.approx(most / len(valid))
                assert row.status != "decided" or valid.count(row.label) == most
            if valid:
                assert 0 <= row.entropy_bits <= math.log2(3) + 1e-12
                assert sum(row.shares) == pytest.approx(1)
                assert pd.isna(row.posterior) or row.posterior == pytest.approx(max(row.shares))
        order = list(range(len(frame)))
        random.shuffle(order)
        same(labels, decide(frame.iloc[order], method, labels=SCHEMA))

    def test_how_it_went_is_told(self, method):
        how = decide(random_votes(), method).attrs["consensus"]
        assert (how["method"], how["uses_gold"]) == (method, 0)
        if METHODS[method].posterior:
            assert how["iterations"] > 0
            short = decide(random_votes(), method, iterations=1).attrs["consensus"]
            assert not short["converged"]
            assert "not converged after 1 iteration" in short["note"]
        else:
            assert how["converged"]

    def test_duplicates_and_constant_annotators_are_borne(self, method):
        frame = random_votes()
        twin = frame[frame["annotator"].eq("ann0")].assign(annotator="twin")
        constant = frame.drop_duplicates("text_id").assign(annotator="constant", label="pos", status="ok")
        found = decide(pd.concat([frame, twin, constant]), method)
        assert found["shares"].notna().all()


# worked out by hand


@pytest.mark.parametrize("method", sorted(set(METHOD_NAMES) - COUNTING))
def test_the_votes_of_the_only_annotator_are_the_labels_whatever_model_was_asked_for(method, caplog):
    """Also the one rare label, which a model would take for a slip."""
    frame = votes_of_one(["neg"] * 40 + ["pos"])
    labels = decide(frame, method, labels=SCHEMA, problematic=ProblematicRule(measure="posterior", below=0.9))
    assert labels["label"].tolist() == ["neg"] * 40 + ["pos"]
    assert labels["score"].eq(1).all()
    assert labels["posterior"].isna().all()
    assert not labels["is_problematic"].any()
    how = labels.attrs["consensus"]
    assert (how["converged"], how["iterations"]) == (True, 0)
    assert how["note"] == "one annotator: there is nothing to aggregate; its votes are the labels"
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


def votes_of_one(given):
    return pd.DataFrame({"text_id": [f"t{i:03}" for i in range(len(given))], "annotator": "one", "label": given})


def test_majority_by_hand():
    found = one(decide(votes("pos", "pos", "neg"), "majority", labels=SCHEMA))
    assert found["label"] == "pos"
    assert list(found["shares"]) == pytest.approx([1 / 3, 0, 2 / 3])
    assert found["score"] == pytest.approx(2 / 3)
    assert found["margin"] == pytest.approx(1 / 3)
    assert found["entropy_bits"] == pytest.approx(math.log2(3) - 2 / 3)  # ⅓ log 3 + ⅔ (log 3 − 1)
    assert (found["level"], found["n_votes"], found["is_problematic"]) == ("medium", 3, False)
    assert math.isnan(found["posterior"])


def test_a_plurality_wins_and_is_problematic_by_its_score():
    found = one(decide(votes("pos", "pos", "neg", "neu"), "majority"))
    assert (found["label"], found["score"], found["level"], found["is_problematic"]) == ("pos", 0.5, "low", True)


@pytest.mark.parametrize(("agreeing", "level"), [(5, "high"), (4, "high"), (3, "medium"), (2, "low")])
def test_levels_of_five_votes(agreeing, level):
    assert one(decide(votes(*["pos"] * agreeing, *["neg", "neu", "x"][: 5 - agreeing]), "majority"))["level"] == level


def test_repetitions_of_an_annotator_are_averaged():
    # a: pos ⅔, neg ⅓; b: neg 1 → neg (⅓ + 1) / 2
    found = one(decide(repeated({"t": {"a": ["pos", "pos", "neg"], "b": ["neg"]}}), "majority", labels=SCHEMA))
    assert (found["label"], found["n_votes"]) == ("neg", 2)
    assert list(found["shares"]) == pytest.approx([2 / 3, 0, 1 / 3])


def test_pooled_repetitions_count_as_votes():
    frame = repeated({"t": {"a": ["pos", "pos", "neg"], "b": ["neg"]}})
    found = one(decide(frame, "majority", labels=SCHEMA, count="vote"))
    assert (found["status"], found["n_votes"], found["score"]) == ("tied", 4, 0.5)


def test_invalid_repetitions_are_left_out_of_the_average():
    frame = repeated({"t": {"a": ["pos", None, "pos"], "b": ["neg", "pos", None]}})
    assert list(one(decide(frame, "majority", labels=SCHEMA))["shares"]) == pytest.approx([0.25, 0, 0.75])


def test_a_vote_whose_status_is_not_ok_does_not_count_even_with_a_label():
    frame = votes("pos", "neg", "neg").assign(status=["ok", "truncated", "invalid_label"])
    assert one(decide(frame, "majority"))["label"] == "pos"


def test_weights_decide_and_absent_ones_weigh_one():
    found = one(decide(votes("pos", "neg", "neg"), "weighted", labels=SCHEMA, weights={"ann0": 3}))
    assert found["label"] == "pos"
    assert list(found["shares"]) == pytest.approx([0.4, 0, 0.6])
    assert found["n_votes"] == 3


def test_weighted_without_weights_is_majority():
    frame = random_votes()
    same(decide(frame, "weighted").drop(columns="method"), decide(frame, "majority").drop(columns="method"))


def test_unanimous_needs_all_valid_votes():
    found = decide(table({"a": ["pos", "pos", None], "b": ["pos", "pos", "neg"], "c": ["pos", "neg"]}), "unanimous")
    assert list(found["status"]) == ["decided", "below_threshold", "below_threshold"]
    assert list(found["label"].isna()) == [False, True, True]
    assert found["score"].tolist() == pytest.approx([1, 2 / 3, 0.5])


def test_unanimous_cannot_be_loosened():
    assert one(decide(votes("pos", "pos", "neg"), "unanimous", threshold=0.5))["status"] == "below_threshold"


def test_the_threshold_method_asks_for_four_fifths():
    found = decide(table({"a": ["pos"] * 4 + ["neg"], "b": ["pos"] * 3 + ["neg"]}), "threshold")
    assert list(found["status"]) == ["decided", "below_threshold"]
    assert list(decide(table({"b": ["pos"] * 3 + ["neg"]}), "threshold", threshold=0.75)["status"]) == ["decided"]


def test_a_threshold_applies_to_every_method():
    for method in ("majority", "weighted"):
        assert one(decide(votes("pos", "pos", "neg"), method, threshold=0.7))["status"] == "below_threshold"
        assert one(decide(votes("pos", "pos", "neg"), method, threshold=2 / 3))["label"] == "pos"


def test_a_threshold_that_is_met_but_for_rounding_is_met():
    weights = {"ann0": 0.1, "ann1": 0.7, "ann2": 0.2}
    found = one(decide(votes("pos", "pos", "neg"), "weighted", weights=weights, threshold=0.8))
    assert found["score"] < 0.8  # .1 + .7 is .7999999999999999 in floating point
    assert (found["status"], found["level"]) == ("decided", "high")


def test_weights_learned_from_gold_are_log_odds_with_pseudo_votes():
    frame = table({i: ["pos", "pos", "neg"] for i in range(10)})
    found = decide(frame, "weighted", labels=SCHEMA, weights="gold", gold=dict.fromkeys(range(10), "pos"))
    right, wrong = 14 / 15, 4 / 15  # (right + 4) / (n + 5)
    weight, other = math.log(right * 2 / (1 - right)), max(0.0, math.log(wrong * 2 / (1 - wrong)))
    assert list(found["shares"][0]) == pytest.approx(
        [other / (2 * weight + other), 0, 2 * weight / (2 * weight + other)]
    )
    assert found.attrs["consensus"]["uses_gold"] == 10
    assert "learned from the gold of 10 texts" in found.attrs["consensus"]["note"]


def test_weights_learned_from_votes_leave_out_one_who_guesses():
    rng = np.random.default_rng(0)
    names = np.array(SCHEMA.names)
    true = rng.integers(0, 3, 300)
    good = np.where(rng.random((300, 3)) < 0.9, true[:, None], rng.integers(0, 3, (300, 3)))
    given = np.hstack([good, rng.integers(0, 3, (300, 2))])
    frame = table({i: list(names[row]) for i, row in enumerate(given)})
    plain, learned = (decide(frame, m, **o) for m, o in (("majority", {}), ("weighted", {"weights": "votes"})))
    right = [(labels["label"] == names[true]).mean() for labels in (plain, learned)]
    assert right[1] > right[0] + 0.01


# the posterior of the models


def simulated(n=400, seed=0):
    """Three good annotators, one that confuses neg and neu, one that is always pos; returns votes and truth."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    good = np.where(rng.random((n, 3)) < 0.75, true[:, None], rng.integers(0, 3, (n, 3)))
    confuser = np.where(true == 2, 2, 1 - true)
    given = np.column_stack([good, confuser, np.full(n, 2)])
    names = np.array(SCHEMA.names)
    return table({f"t{i:03}": list(names[row]) for i, row in enumerate(given)}), pd.Series(
        names[true], index=[f"t{i:03}" for i in range(n)]
    )


def accuracy(labels, truth):
    return (labels.set_index("text_id")["label"] == truth).mean()


def test_dawid_skene_learns_a_confusion_and_a_constant_annotator():
    frame, truth = simulated()
    by = {method: accuracy(decide(frame, method), truth) for method in ("majority", "dawid_skene", "dawid_skene_map")}
    assert by["dawid_skene_map"] > by["majority"] + 0.2
    assert by["dawid_skene"] > by["majority"] + 0.2


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of crowd-kit
def test_dawid_skene_is_that_of_crowd_kit():
    from crowdkit.aggregation import DawidSkene

    frame, _ = simulated()
    frame = frame.drop(frame.sample(frac=0.2, random_state=0).index)
    theirs = DawidSkene(n_iter=30, tol=-np.inf).fit_predict_proba(
        frame.rename(columns={"text_id": "task", "annotator": "worker"})[["task", "worker", "label"]]
    )
    ours = decide(frame, "dawid_skene", labels=SCHEMA, iterations=30)
    np.testing.assert_allclose(np.stack(ours["shares"]), theirs.loc[ours["text_id"], list(SCHEMA.names)], atol=1e-8)


def test_copies_count_less_where_families_are_told():
    """Four copies of a model that is right in .6 against three good ones: told, the copies no longer outvote them."""
    rng = np.random.default_rng(1)
    names, n = np.array(SCHEMA.names), 600
    true = rng.integers(0, 3, n)
    good = np.where(rng.random((n, 3)) < 0.75, true[:, None], rng.integers(0, 3, (n, 3)))
    parrot = np.where(rng.random(n) < 0.4, true, rng.integers(0, 3, n))
    given = np.column_stack([good, *[parrot] * 4])
    frame, truth = table({i: list(names[row]) for i, row in enumerate(given)}), pd.Series(names[true])
    families = {f"ann{k}": "parrot" for k in range(3, 7)}
    gold = truth[:100]
    plain = decide(frame, "dawid_skene_map")
    told = decide(frame, "dawid_skene_families", families=families)
    learned = decide(frame, "dawid_skene_families", families=families, gold=gold)

    def surprise(labels):
        code = truth.map({name: k for k, name in enumerate(SCHEMA)}).to_numpy()
        chance = np.stack(labels["shares"])[np.arange(n), code]
        return -np.log(np.maximum(chance, 1e-12)).mean()

    assert surprise(told) < 0.7 * surprise(plain)
    assert surprise(learned) <= surprise(told) + 0.05
    assert learned.attrs["consensus"]["uses_gold"] == 100


def test_a_target_accuracy_is_kept():
    frame, truth = simulated(2000)
    rule = ProblematicRule(measure="posterior", target=0.97)
    labels = decide(frame, gold=truth[:800], problematic=rule)
    kept = labels[~labels["is_problematic"]].set_index("text_id")["label"]
    assert (kept == truth[kept.index]).mean() > 0.97
    assert 0.2 < len(kept) / len(labels) <= 1
    assert "right; with 95% confidence at least 97.0%" in labels.attrs["consensus"]["note"]


def test_a_target_out_of_reach_leaves_everything_problematic_and_says_so():
    frame, truth = simulated(200)
    labels = decide(frame, "majority", gold=truth, problematic=ProblematicRule(target=0.999))
    assert labels["is_problematic"].all()
    assert "No threshold reaches" in labels.attrs["consensus"]["note"]


def test_a_target_is_found_on_gold_that_nothing_was_learned_from():
    """40 weak annotators and little gold: a bound found on the gold that made the weights would promise too much."""
    names, broken, found = np.array(["x", "y"]), 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true = rng.integers(0, 2, 1500)
        given = np.where(rng.random((1500, 40)) < 0.53, true[:, None], 1 - true[:, None])
        frame = table({i: list(names[row]) for i, row in enumerate(given)})
        gold = pd.Series(names[true[:150]])
        rule = ProblematicRule(target=0.66)
        labels = decide(frame, "weighted", weights="gold", gold=gold, problematic=rule).iloc[150:]
        kept = labels[~labels["is_problematic"]]
        found += len(kept) > 0
        broken += len(kept) > 0 and (kept["label"] == names[true[kept["text_id"]]]).mean() < 0.66
    assert found > 0
    assert broken <= 6  # 5 % of 40, plus binomial error

    frame, truth = simulated()
    rule = ProblematicRule(target=0.6)
    told = decide(frame, "weighted", weights="gold", gold=truth[:100], problematic=rule).attrs["consensus"]
    assert told["uses_gold"] == 100
    assert "gold of 50 texts; Keep labels" in told["note"]
    assert "of 50 gold texts" in told["note"]


def test_posteriors_that_differ_only_near_one_are_still_ranked_by_a_target():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 2000)
    given = np.where(rng.random((2000, 9)) < 0.8, true[:, None], rng.integers(0, 3, (2000, 9)))
    names = np.array(SCHEMA.names)
    frame, truth = table({i: list(names[row]) for i, row in enumerate(given)}), pd.Series(names[true])
    labels = decide(frame, gold=truth, problematic=ProblematicRule(measure="posterior", target=0.9999))
    told = labels.attrs["consensus"]["note"]
    kept = int((~labels["is_problematic"]).sum())
    assert kept == 0 or f"{kept:,} of 2,000 gold texts" in told


def test_a_label_that_nobody_gives_never_wins_however_many_vote():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"text_id": np.repeat(range(600), 120), "annotator": np.tile([f"a{k:03}" for k in range(120)], 600)}
    )
    true = np.repeat(rng.integers(0, 2, 600), 120)
    frame["label"] = np.array(["x", "y"])[np.where(rng.random(len(frame)) < 0.999, true, 1 - true)]
    half = frame["text_id"].eq(0)
    frame.loc[half, "label"] = np.array(["x", "y"])[np.arange(120) % 2]
    schema = LabelSchema.from_names(["x", "y", "dead"])
    for method in ("dawid_skene", "dawid_skene_map", "dawid_skene_families"):
        assert set(decide(frame, method, labels=schema)["label"].dropna()) <= {"x", "y"}


def test_coded_votes_are_not_coded_again():
    coded = code_votes(random_votes(), SCHEMA)
    same(decide(coded), decide(random_votes(), labels=SCHEMA))
    for options in ({"labels": SCHEMA}, {"texts": ["text 1"]}, {"count": "vote"}):
        with pytest.raises(ConfigError, match="give these to code_votes"):
            decide(coded, **options)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_no_valid_vote_at_all_is_no_label(method):
    frame = table({"a": [None, None], "b": [None]})
    options = {"weights": "votes"} if method == "weighted" else {}
    assert decide_as_asked(frame, method, labels=SCHEMA, **options)["status"].tolist() == ["no_votes", "no_votes"]
    if not METHODS[method].ordered:
        assert decide_as_asked(frame, method, **options)["status"].tolist() == ["no_votes", "no_votes"]


def test_gold_may_be_numbers_and_must_be_of_these_texts_and_labels():
    frame = table({i: ["1", "1", "0"] if i % 2 else ["0", "0", "0"] for i in range(40)})
    for gold in (pd.Series([i % 2 for i in range(40)]), pd.Series([float(i % 2) for i in range(40)])):
        told = decide(frame, "weighted", weights="gold", gold=gold).attrs["consensus"]
        assert told["uses_gold"] == 40
        assert score_against_gold(decide(frame, labels=["0", "1"]), gold, ["0", "1"])["accuracy"] == 1
        assert map_panel(frame, gold).against == "gold"
    with pytest.raises(JoinError, match="gold: none of its 2 texts is among the 40 voted ones"):
        decide(frame, "dawid_skene_families", gold={"a": "1", "b": "0"})
    words = pd.Series(["neg", "pos"] * 20)
    for verb in (score_against_gold, estimate_label_shares):
        with pytest.raises(DataError, match="none in common"):
            verb(decide(frame), words)
    with pytest.raises(DataError, match="none in common"):
        map_panel(frame, words)


def test_half_a_surrogate_pair_in_a_name_is_borne():
    bad = "x\ud800"
    frame = pd.DataFrame(
        {"text_id": [1, 1, 2, 2], "annotator": ["a", bad] * 2, "label": ["p", bad, bad, bad]}, dtype=object
    )
    assert decide(frame)["label"].iloc[1] == bad
    assert bad in set(measure_agreement(frame)["scope"])
    assert estimate_reliability(frame)["annotator"].tolist() == ["a", bad]


def test_an_annotator_with_few_votes_has_no_interval():
    frame, _ = simulated(200)
    few = frame[frame["text_id"].isin(["t000", "t001"])].assign(annotator="few").drop_duplicates("text_id")
    found = estimate_reliability(pd.concat([frame, few]), draws=50).set_index("annotator")
    assert found.loc["few", ["low", "high"]].isna().all()
    assert found.loc["ann0", ["low", "high"]].notna().all()


# ties


def test_a_tie_is_left_undecided():
    found = one(decide(votes("pos", "neg"), "majority"))
    assert found["status"] == "tied"
    assert pd.isna(found["label"])
    assert (found["score"], found["margin"], found["entropy_bits"]) == (0.5, 0, 1)
    assert found["is_problematic"]


def test_a_tie_is_seen_through_rounding():
    weights = {"ann0": 0.1, "ann1": 0.2, "ann2": 0.3}  # .1 + .2 is .30000000000000004
    assert one(decide(votes("pos", "pos", "neg"), "weighted", weights=weights))["status"] == "tied"
    thirds = repeated({"t": {"a": ["x", "y", "z"], "b": ["y", "z", "x"], "c": ["z", "x", "y"]}})
    assert one(decide(thirds, "majority"))["status"] == "tied"


def test_a_tie_below_the_threshold_is_below_the_threshold():
    for ties in ("undecided", "random"):
        assert one(decide(votes("pos", "neg"), "majority", threshold=0.6, ties=ties))["status"] == "below_threshold"


def test_a_random_tie_goes_to_one_of_the_tied_labels():
    found = decide(
        table({i: ["pos", "pos", "neg", "neg", "neu"] for i in range(400)}), "majority", ties="random", labels=SCHEMA
    )
    assert (found["status"] == "decided").all()
    assert (found["margin"] == 0).all()
    assert found["label"].value_counts().to_dict().keys() == {"pos", "neg"}
    assert 160 < (found["label"] == "pos").sum() < 240  # 200 ± 4 sd


def test_a_random_tie_depends_on_the_seed_and_the_text_alone():
    many = table({i: ["pos", "neg"] for i in range(100)})
    found = decide(many, "majority", ties="random", seed=3).set_index("text_id")["label"]
    for i in (0, 41, 99):
        alone = decide(many[many["text_id"] == i].iloc[::-1], ties="random", seed=3, labels=SCHEMA)
        assert one(alone)["label"] == found[i]
    assert (decide(many, "majority", ties="random", seed=4)["label"].to_numpy() != found.to_numpy()).mean() > 0.3


def test_a_random_tie_is_the_same_for_integer_ids_and_their_text():
    many = table({i: ["pos", "neg"] for i in range(50)})
    as_text = many.assign(text_id=many["text_id"].astype(str))
    found = decide(as_text, "majority", ties="random").set_index("text_id")["label"]
    assert found[[str(i) for i in range(50)]].tolist() == decide(many, "majority", ties="random")["label"].tolist()


# problematic


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ProblematicRule(), [False, False, True]),
        (ProblematicRule(below=0.7), [False, True, True]),
        (ProblematicRule(above=0.9), [True, False, False]),
        (ProblematicRule(measure="entropy_bits", above=0.95), [False, True, True]),
    ],
)
def test_the_rule_says_what_is_problematic(rule, expected):
    frame = table({"a": ["pos"] * 5, "b": ["pos"] * 3 + ["neg"] * 2, "c": ["pos"] * 2 + ["neg"] * 2 + ["neu"]})
    assert decide(frame, "majority", problematic=rule)["is_problematic"].tolist() == expected


def test_a_score_on_the_bound_is_not_problematic():
    weights = {"ann0": 0.1, "ann1": 0.7, "ann2": 0.2}  # .1 + .7 is .7999999999999999
    found = decide(votes("pos", "pos", "neg"), "weighted", weights=weights, problematic=ProblematicRule(below=0.8))
    assert one(found)["score"] < 0.8
    assert not one(found)["is_problematic"]
    assert not one(decide(votes("pos", "pos", "pos", "neg", "neg"), "majority"))["is_problematic"]


def test_the_rule_can_be_read():
    assert str(ProblematicRule()) == "score < 0.6"
    assert str(ProblematicRule(measure="entropy_bits", above=1)) == "entropy_bits > 1"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"measure": "entropy_bits"}, "give one of below, above and target for 'entropy_bits'; found none"),
        ({"below": 0.5, "above": 0.9}, "found below and above"),
    ],
)
def test_a_rule_needs_exactly_one_bound(values, words):
    with pytest.raises(ConfigError, match=words):
        ProblematicRule.read(values)


# texts and ids


def test_every_text_asked_for_gets_a_row_in_its_order():
    found = decide(table({3: ["pos"], 1: ["neg"], 7: ["pos"]}), "majority", texts=[7, 2, 1])
    assert found["text_id"].tolist() == [7, 2, 1]
    assert found["status"].tolist() == ["decided", "no_votes", "decided"]
    assert found["is_problematic"].tolist() == [False, True, False]


def test_texts_may_be_a_texts_table():
    texts = pd.DataFrame({"text_id": ["b", "a"], "text": ["…", "…"]})
    assert decide(table({"a": ["pos"], "b": ["neg"]}), "majority", texts=texts)["label"].tolist() == ["neg", "pos"]


def test_ids_keep_their_type():
    assert decide(table({10: ["pos"], 9: ["neg"]}), "majority")["text_id"].tolist() == [9, 10]
    assert decide(table({"10": ["pos"], "9": ["neg"]}), "majority")["text_id"].tolist() == ["10", "9"]
    assert decide(table({"10": ["pos"]}), "majority", texts=[10])["text_id"].tolist() == [10]


def test_integer_and_text_ids_join():
    assert decide(table({"1": ["pos"], "2": ["neg"]}), "majority", texts=[2, 1])["label"].tolist() == ["neg", "pos"]


def test_the_votes_are_not_changed():
    frame = random_votes()
    before = frame.copy()
    decide(frame, "majority")
    pd.testing.assert_frame_equal(frame, before)


def test_one_distinct_label_needs_no_schema():
    found = one(decide(votes("pos", "pos"), "majority"))
    assert (found["label"], found["margin"], list(found["shares"])) == ("pos", 1, [1])


def test_all_votes_invalid_without_a_schema_is_a_table_of_no_votes():
    found = decide(table({"a": [None, None], "b": [None]}), "majority")
    assert found["status"].tolist() == ["no_votes", "no_votes"]


def test_three_hundred_classes_and_annotators():
    rng = np.random.default_rng(0)
    rows = [
        (text, f"w{w}", f"class {rng.integers(300)}") for text in range(300) for w in rng.choice(300, 2, replace=False)
    ]
    found = decide(pd.DataFrame(rows, columns=["text_id", "annotator", "label"]))
    assert (found["n_votes"] == 2).all()
    assert set(found["status"]) <= {"decided", "tied"}


# mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "majorty"}, "unknown consensus method 'majorty'.*Did you mean 'majority'"),
        ({"ties": "first"}, "unknown tie policy 'first'"),
        ({"count": "votes"}, "unknown count 'votes'"),
        ({"threshold": 80}, "threshold must lie between 0 and 1.*found 80"),
        (
            {"method": "majority", "weights": {"ann0": 2}},
            "method 'majority' reads no weights; leave weights out, or choose weighted",
        ),
        ({"method": "weighted", "weights": {"anm0": 2}}, "unknown annotator 'anm0'. Did you mean 'ann0'"),
        ({"method": "weighted", "weights": {"ann0": 0}}, "weight of 'ann0' must be positive; found 0"),
        ({"method": "weighted", "weights": {"ann0": math.nan}}, "weight of 'ann0' must be positive"),
        ({"probabilities": np.ones((1, 2))}, "reads no probabilities; leave probabilities out"),
        ({"families": {"ann0": "a"}}, "reads no families; leave families out, or choose dawid_skene_families"),
        ({"method": "dawid_skene_families", "families": {"ann9": "a"}}, "families: unknown annotator 'ann9'"),
        ({"gold": {"t": "pos"}}, "nothing here uses gold"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1; found 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"problematic": {"below": 0.5}}, "must be a ProblematicRule"),
        ({"method": "weighted", "weights": {"ann0": None}}, "weights must be a number per annotator"),
        ({"method": "crowdlab"}, "needs probabilities"),
        ({"problematic": ProblematicRule(target=0.9)}, "target = 0.9 is found on gold: pass gold"),
        (
            {"method": "majority", "problematic": ProblematicRule(measure="posterior", below=0.5)},
            "'majority' gives no posterior",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, words):
    with pytest.raises(ConfigError, match=words) as error:
        decide_as_asked(votes("pos", "neg"), **options)
    assert "\n" not in str(error.value)


def test_an_unknown_vote_label_is_named():
    with pytest.raises(DataError, match=r"unknown label 'poss' \(annotator 'ann1', text 't'\).*Did you mean 'pos'"):
        decide(votes("pos", "poss"), "majority", labels=SCHEMA)


def test_votes_for_other_texts_are_an_error():
    with pytest.raises(JoinError, match=r"none of the 1 voted texts is among the 2 texts"):
        decide(votes("pos"), "majority", texts=["x", "y"])


@pytest.mark.parametrize(
    ("texts", "words"), [(["t", "t"], "'t' twice"), ([], "no text is given"), ([None, "t"], "a null id")]
)
def test_wrong_texts_are_an_error(texts, words):
    with pytest.raises(DataError, match=words):
        decide(votes("pos"), "majority", texts=texts)


def test_no_votes_at_all_is_an_error():
    with pytest.raises(DataError, match="the table has no rows"):
        decide(votes("pos").iloc[:0])


def test_a_missing_column_is_an_error():
    with pytest.raises(DataError, match=r"missing column\(s\) \['annotator'\]"):
        decide(votes("pos").drop(columns="annotator"))


def test_labels_are_stored_and_read_back(tmp_path):
    labels = decide(table({"a": ["pos", "pos"], "b": [None], "c": ["pos", "neg"]}), "majority", labels=SCHEMA)
    folder = RunFolder(tmp_path)
    folder.write("labels", labels)
    stored = folder.read("labels")
    assert stored["status"].tolist() == ["decided", "no_votes", "tied"]
    assert stored["shares"].isna().tolist() == [False, True, False]
    assert list(stored["shares"][2]) == [0.5, 0, 0.5]
    assert stored["label"].isna().tolist() == [False, True, True]


# the room for further methods, and settings


def test_a_method_with_a_posterior_keeps_the_votes_share_as_score(monkeypatch):
    def sure(coded, options):
        shares = np.zeros(coded.shape)
        shares[:, coded.labels.index("neg")] = 0.9
        shares[:, coded.labels.index("pos")] = 0.1
        return Shares(shares)

    monkeypatch.setitem(METHODS, "sure", Method(sure, posterior=True))
    rule = ProblematicRule(measure="posterior", below=0.95)
    found = one(decide(votes("pos", "pos", "pos", "neg"), "sure", problematic=rule))
    assert (found["label"], found["posterior"], found["score"]) == ("neg", 0.9, 0.25)
    assert found["is_problematic"]


def test_settings_have_the_documented_defaults():
    chosen = ConsensusSettings()
    assert (chosen.method, chosen.ties, chosen.threshold, chosen.count) == (
        "dawid_skene_map",
        "undecided",
        None,
        "annotator",
    )
    assert (chosen.problematic.measure, chosen.problematic.below, chosen.bootstrap) == ("score", 0.6, 1000)


def test_settings_survive_being_written_and_read():
    chosen = ConsensusSettings(problematic=ProblematicRule(measure="entropy_bits", above=0.9), threshold=0.7)
    assert ConsensusSettings.read(chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "unanimus"}, "unknown consensus method 'unanimus'.*Did you mean 'unanimous'"),
        ({"treshold": 0.5}, "unknown key 'treshold'. Did you mean 'threshold'"),
        ({"threshold": 1.5}, "threshold.*less than or equal to 1.*found 1.5"),
        ({"weights": {"a": 2.0}}, "method 'dawid_skene_map' reads no weights"),
        ({"method": "weighted", "weights": "gold"}, "learned from gold: set gold_texts"),
        ({"method": "weighted", "weights": "entropy"}, "'gold' or 'votes'"),
        ({"method": "ordinal_dawid_skene"}, "set ordered = true"),
        ({"gold_texts": 100}, "nothing here uses gold"),
        ({"problematic": {"target": 0.9}}, "found on gold: set gold_texts"),
        ({"method": "weighted", "weights": {"a": -1}}, "weight of 'a' must be positive"),
        ({"method": "majority", "problematic": {"measure": "posterior", "below": 0.5}}, "gives no posterior"),
    ],
)
def test_wrong_settings_are_one_clear_line(values, words):
    with pytest.raises(ConfigError, match=words):
        ConsensusSettings.read(values)


# guards


def test_guards_tell_coverage_ties_and_effective_votes():
    frame = table({"a": ["pos", "pos"], "b": ["neg", "pos"], "c": ["neg", "neg"], "d": [None, None]})
    guards = check_consensus(frame, decide(frame, "majority")).set_index("guard")
    assert guards.loc["coverage", ["outcome", "reason"]].tolist() == [
        "warned",
        "2 of 4 texts got a label (1 no_votes, 1 tied)",
    ]
    assert guards.loc["ties", "reason"] == "1 of 3 voted texts are tied (33.3%); left without a label"
    # alpha by hand: labels pos pos | neg pos | neg neg: D_o = 2, n² − Σ n_k² = 36 − 18; 1 − 5·2/18 = 4/9; 2 / (1 + 4/9)
    assert guards.loc["effective votes", "reason"].startswith("2.0 votes per text are worth 1.4 independent ones")
    assert not guards["invalidates"].any()


def test_a_method_that_did_not_converge_is_warned_of():
    frame, _ = simulated()
    for iterations, outcome in ((2, "warned"), (500, "passed")):
        labels = decide(frame, iterations=iterations)
        guards = check_consensus(frame, labels, labels.attrs["consensus"]).set_index("guard")
        assert guards.loc["convergence", "outcome"] == outcome
    assert "convergence" not in set(check_consensus(frame, decide(frame, "majority"))["guard"])


def test_guards_name_the_tie_rule():
    frame = table({i: ["pos", "neg"] for i in range(4)})
    guards = check_consensus(frame, decide(frame, "majority", ties="random")).set_index("guard")
    assert "drawn at random" in guards.loc["ties", "reason"]
    assert guards.loc["coverage", "outcome"] == "passed"


def test_disagreement_beyond_chance_makes_no_more_votes_than_there_are():
    frame = table({"a": ["pos", "neg"], "b": ["neg", "pos"]})  # alpha = 1 − 3·4/8 = −½
    guards = check_consensus(frame, decide(frame, "majority")).set_index("guard")
    assert guards.loc["effective votes", "reason"].startswith("2.0 votes per text are worth 2.0 independent ones")


def test_effective_votes_of_one_annotator_are_not_checked():
    frame = table({"a": ["pos"], "b": ["neg"]})
    guards = check_consensus(frame, decide(frame, "majority")).set_index("guard")
    assert guards["outcome"].tolist() == ["passed", "passed", "not_checked"]


# real votes


def babe():
    frame = pd.read_csv(shared("babe_llm", "annotations.csv.gz"), dtype={"label": str})
    items = pd.read_csv(shared("babe_llm", "items.csv.gz"), dtype={"gold": str})
    frame["status"] = np.where(frame["label"].eq("?"), "unparsable", "ok")
    frame["label"] = frame["label"].where(frame["status"].eq("ok"))
    return frame, items[items["split"] == "pool"]


@pytest.mark.parametrize(("count", "accuracy"), [("annotator", 0.849), ("vote", 0.850)])
def test_babe_majority_over_all_conditions_has_the_known_accuracy(count, accuracy):
    frame, pool = babe()
    labels = decide(frame, "majority", texts=pool, count=count)
    right = labels["label"].to_numpy() == pool["gold"].to_numpy()
    tied = labels["status"].eq("tied")  # credited ½
    assert (right.sum() + tied.sum() / 2) / len(pool) == pytest.approx(accuracy, abs=5e-4)


def test_babe_zero_shot_majority_has_the_known_accuracy():
    frame, pool = babe()
    labels = decide(frame[frame["condition"] == "zero-shot"], "majority", texts=pool)
    right = labels["label"].to_numpy() == pool["gold"].to_numpy()
    assert (right.sum() + labels["status"].eq("tied").sum() / 2) / len(pool) == pytest.approx(0.772, abs=5e-4)
