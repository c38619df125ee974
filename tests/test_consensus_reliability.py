"""What each annotator is worth by the votes alone, and what the stage writes of panels and gold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.consensus import code_votes, decide, describe_gold, describe_panel, estimate_reliability
from consenso.consensus.methods.dawid_skene import dawid_skene_map
from consenso.consensus.methods.shape import Options
from consenso.consensus.reliability import NOT_IDENTIFIED
from consenso.errors import ConfigError
from consenso.labels import LabelSchema

SCHEMA = LabelSchema.from_names(["a", "b", "c"])
RIGHT = {"good": 0.9, "fair": 0.75, "poor": 0.6, "other": 0.75}


def simulated(n=600, seed=0):
    """Votes of four independent annotators, and the truth."""
    rng = np.random.default_rng(seed)
    names, true = np.array(SCHEMA.names), rng.integers(0, 3, n)
    rows = [
        pd.DataFrame(
            {
                "text_id": np.arange(n),
                "annotator": who,
                "label": names[np.where(rng.random(n) < p, true, (true + rng.integers(1, 3, n)) % 3)],
            }
        )
        for who, p in RIGHT.items()
    ]
    return pd.concat(rows, ignore_index=True), pd.Series(names[true])


def test_the_estimated_accuracy_is_near_the_true_one_and_its_interval_covers():
    covered = []
    for seed in range(30):
        frame, truth = simulated(seed=seed)
        found = estimate_reliability(frame, labels=SCHEMA, draws=100).set_index("annotator")
        for who, p in RIGHT.items():
            true = (frame.loc[frame["annotator"] == who, "label"].to_numpy() == truth.to_numpy()).mean()
            assert found.loc[who, "accuracy"] == pytest.approx(true, abs=0.12)
            covered.append(found.loc[who, "low"] <= p <= found.loc[who, "high"])
    assert 0.88 <= np.mean(covered) <= 0.99  # 120 intervals of 95 %: ± 3 standard errors, and draws are few


def test_the_diagonal_is_that_of_the_whole_matrices():
    """Also for labels that an annotator never gave."""
    frame, _ = simulated(80)
    frame = frame[~((frame["annotator"] == "poor") & (frame["label"] == "b"))]
    coded = code_votes(frame, SCHEMA)
    model = dawid_skene_map(coded, Options())
    expected = np.diagonal(model.confusion, axis1=1, axis2=2) @ model.prevalence
    assert model.confusion.sum(axis=1) == pytest.approx(1, abs=1e-9)
    assert estimate_reliability(coded, draws=0)["accuracy"].to_numpy() == pytest.approx(expected, abs=1e-9)


def test_the_names_of_annotators_do_not_matter():
    frame, _ = simulated(200)
    names = dict(zip(RIGHT, ("z", "y", "x", "w")))
    renamed = frame.assign(annotator=frame["annotator"].map(names))
    one, other = (estimate_reliability(f, labels=SCHEMA, draws=50).set_index("annotator") for f in (frame, renamed))
    for column in ("accuracy", "low", "high"):
        assert one.rename(index=names)[column].sort_index().to_numpy() == pytest.approx(
            other[column].sort_index().to_numpy(), abs=1e-6
        )


def test_a_constant_annotator_recognises_one_label_only():
    frame, _ = simulated()
    constant = pd.DataFrame({"text_id": range(600), "annotator": "constant", "label": "a"})
    found = estimate_reliability(pd.concat([frame, constant]), labels=SCHEMA, draws=0).set_index("annotator")
    assert found.loc["constant", "accuracy"] < 0.4
    assert found.loc["constant", "taken_for"] == "a"
    assert found.loc["constant", "weakest"] in {"b", "c"}
    assert found["low"].isna().all()


def test_no_valid_vote_is_a_row_without_an_estimate():
    frame = pd.DataFrame({"text_id": [1, 2], "annotator": "x", "label": None, "status": "unparsable"})
    assert estimate_reliability(frame)["accuracy"].isna().all()
    with pytest.raises(ConfigError, match="found -1"):
        estimate_reliability(frame, draws=-1)


def test_many_classes_and_annotators_take_the_memory_of_their_votes():
    rng = np.random.default_rng(0)
    text = np.repeat(np.arange(300), 3)
    frame = pd.DataFrame({"text_id": text, "annotator": [f"w{i % 300:03}" for i in range(900)]})
    frame["label"] = [f"class {k:03}" for k in rng.integers(0, 500, 900)]
    found = estimate_reliability(frame, draws=0)
    assert len(found) == 300
    assert found["accuracy"].between(0, 1).all()


# where the votes do not tell


EMPTY = ["accuracy", "low", "high", "weakest", "weakest_accuracy", "taken_for"]


@pytest.mark.parametrize("who", [["good"], ["good", "fair"]])
def test_one_or_two_annotators_have_no_estimate_and_the_reason_says_why(who):
    frame, _ = simulated()
    found = estimate_reliability(frame[frame["annotator"].isin(who)], labels=SCHEMA)
    assert found["annotator"].tolist() == sorted(who)
    assert found["n"].tolist() == [600] * len(who)
    assert found[EMPTY].isna().all(axis=None)
    assert found["reason"].eq(NOT_IDENTIFIED).all()


def test_with_three_annotators_every_one_has_an_estimate_and_no_reason():
    frame, _ = simulated()
    found = estimate_reliability(frame[frame["annotator"].ne("other")], labels=SCHEMA, draws=0)
    assert found[["accuracy", "weakest"]].notna().all(axis=None)
    assert found["reason"].isna().all()


def test_two_and_one_that_always_gives_the_same_label_are_no_three():
    frame, _ = simulated()
    two = frame[frame["annotator"].isin(["good", "fair"])]
    constant = pd.DataFrame({"text_id": range(600), "annotator": "constant", "label": "a"})
    assert estimate_reliability(pd.concat([two, constant]), labels=SCHEMA)[EMPTY].isna().all(axis=None)


def test_a_third_annotator_of_a_few_texts_does_not_make_an_estimate_of_the_other_two():
    """49 texts of 600 are shared by three, and 50 are asked for."""
    frame, _ = simulated()
    third = frame["annotator"].eq("poor")
    for shared, known in ((49, False), (50, True)):
        kept = frame[frame["annotator"].isin(["good", "fair"]) | (third & frame["text_id"].lt(shared))]
        assert estimate_reliability(kept, labels=SCHEMA, draws=0)["accuracy"].notna().tolist() == [known] * 3


def test_who_shares_texts_with_a_known_one_is_known_and_who_shares_none_is_not():
    frame, _ = simulated()
    three = frame["annotator"].isin(["good", "fair", "poor"]) & frame["text_id"].lt(400)
    with_one = frame["annotator"].eq("other") & frame["text_id"].lt(100)
    apart = frame[frame["annotator"].eq("good") & frame["text_id"].ge(400)].assign(annotator="apart")
    only_one = frame["annotator"].isin(["fair", "poor"]) & frame["text_id"].lt(100)
    found = estimate_reliability(pd.concat([frame[(three & ~only_one) | with_one], apart]), labels=SCHEMA, draws=0)
    known = found.set_index("annotator")["accuracy"].notna()
    assert known.to_dict() == {"apart": False, "fair": True, "good": True, "other": True, "poor": True}


# what the stage writes


def test_a_panel_is_described_against_gold():
    frame, truth = simulated()
    missed, panels, sentence = describe_panel(check_votes(frame), truth, labels=SCHEMA)
    assert missed.set_index("annotator")["added"].idxmax() == "good"
    assert panels["size"].tolist() == [1, 2, 3, 4]
    assert panels["is_chosen"].sum() == 1
    assert "accuracy" in sentence


def test_a_crowd_and_a_single_annotator_are_no_panel():
    rng = np.random.default_rng(0)
    crowd = pd.DataFrame({"text_id": np.repeat(range(100), 3), "label": "a"})
    crowd["annotator"] = [f"w{k}" for k in rng.integers(0, 40, 300)]
    crowd = check_votes(crowd.drop_duplicates(["text_id", "annotator"]))
    for frame, words in ((crowd, "are a crowd"), (crowd.assign(annotator="one").drop_duplicates("text_id"), "two")):
        missed, panels, sentence = describe_panel(frame, None, labels=SCHEMA)
        assert (len(missed), len(panels)) == (0, 0)
        assert words in sentence


def test_gold_that_all_contradict_ranks_first():
    frame, truth = simulated()
    labels = decide(frame, labels=SCHEMA)
    right = labels["label"].to_numpy() == truth.to_numpy()
    sure = int(labels["posterior"].where(right).idxmax())
    gold = truth.copy()
    gold[sure] = next(name for name in SCHEMA if name != truth[sure])
    noise, bound = describe_gold(labels, check_votes(frame), gold, SCHEMA)
    assert sure in noise.sort_values("rank")["text_id"].tolist()[:5]
    assert set(bound["gold"]) == {"all", "a", "b", "c"}
    nothing, none = describe_gold(labels, check_votes(frame), gold.iloc[:0], SCHEMA)
    assert (len(nothing), len(none)) == (0, 0)


def check_votes(frame):
    from consenso.tables import VOTES, check

    return check(frame, VOTES)
