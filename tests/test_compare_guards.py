"""Guards: each is made to fail on an experiment that is otherwise sound, and the verdict follows."""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from consenso import LabelSchema
from consenso.compare import CONSEQUENCES, GUARDS, VERDICTS, Contrast, check_guards, compare_arms, exit_code, explain
from consenso.compare.evidence import Evidence
from consenso.compare.guard_of_control import _excess, _one_sided, negative_control, score_of
from consenso.compare.guard_pages import PAGES
from consenso.compare.guards import failures
from consenso.compare.guards_of_runs import enough, predicts_one_class
from consenso.compare.paired import two_way
from consenso.compare.runs import Runs
from consenso.errors import ConfigError
from consenso.tables import ARMS, FOLDS, LEAKS, TEXTS, TRAININGS, check
from consenso.tables import GUARDS as GUARDS_TABLE

NAMES = np.array(["no", "yes", "maybe"])
SKILLS = {
    "gold": 0.80, "gold-aligned": 0.79, "consensus": 0.78, "consensus-kept": 0.77, "consensus-random": 0.77,
    "gold-kept": 0.78, "floor": 0.0,
}  # fmt: skip
SEEDS = range(1, 7)


@functools.cache
def sound(skills, n_test):
    """The frames of a sound experiment, built once; `World` hands out copies."""
    world = World.__new__(World)
    world.build(dict(skills), n_test)
    return world


class World:
    """A sound little experiment: 240 train, 60 dev, 300 test texts, six seeds, seven arms. Tests break one thing."""

    def __init__(self, skills=SKILLS, n_test=300):
        made = vars(sound(tuple(skills.items()), n_test))
        vars(self).update({name: getattr(value, "copy", lambda value=value: value)() for name, value in made.items()})

    def build(self, skills, n_test):
        rng = np.random.default_rng(0)
        parts = ["train"] * 240 + ["dev"] * 60 + ["test"] * n_test
        ids = [f"t{i:04d}" for i in range(len(parts))]
        gold = NAMES[rng.choice(3, len(ids), p=[0.5, 0.3, 0.2])]
        self.texts = pd.DataFrame({"text_id": ids, "text": [f"Text number {i}." for i in ids], "gold": gold})
        self.folds = pd.DataFrame({"fold": 0, "text_id": ids, "part": parts})
        self.gold = self.texts.set_index("text_id")["gold"]
        wrong = rng.random(len(ids)) < 0.15
        voted = np.where(wrong, NAMES[rng.integers(0, 3, len(ids))], gold).astype(object)
        voted[rng.random(len(ids)) < 0.05] = None
        self.labels = pd.DataFrame({"text_id": ids, "label": voted})
        self.labels["status"] = np.where(self.labels["label"].isna(), "tied", "decided")
        self.skills = skills
        self.arms = self._arms()
        self.predictions = self._predictions()
        runs = self.predictions[["student", "arm", "seed"]].drop_duplicates()
        self.trainings = runs.assign(fold=0, attempt="as_run", status="ok")
        self.leaks = None
        self.remaining = pd.DataFrame(columns=list(LEAKS.columns))

    def _arms(self):
        blocks = []
        for arm in self.skills:
            for seed in SEEDS:
                source, target = self._given(arm, seed)
                rows = self.folds.assign(target=target, arm=arm, seed=seed, source=source)[self._chosen(arm, seed)]
                rows = rows[rows["part"] != "test"]
                blocks.append(rows.assign(row=rows.groupby("part").cumcount()))
        return pd.concat(blocks, ignore_index=True)

    def _chosen(self, arm, seed):
        """Which texts an arm holds: all, the aligned ones, those kept, or as many random ones of the same labels."""
        aligned = self.labels["label"].notna().to_numpy()
        kept = aligned & (np.arange(len(aligned)) % 10 != 0)
        if arm in {"gold", "floor"}:
            return np.ones(len(aligned), bool)
        if arm == "consensus-random":
            rng = np.random.default_rng(seed)
            groups = self.folds["part"] + self.labels["label"].fillna("")
            places = [rng.choice(np.flatnonzero(aligned & (groups == g)), (kept & (groups == g)).sum(), replace=False)
                      for g in groups[kept].unique()]  # fmt: skip
            return np.isin(np.arange(len(aligned)), np.concatenate(places))
        return kept if arm.endswith("-kept") else aligned

    def _given(self, arm, seed):
        """Source and labels of an arm."""
        gold, voted = self.texts["gold"].to_numpy(), self.labels["label"].to_numpy()
        rng = np.random.default_rng([seed, 7])
        if arm == "permuted":
            mixed, there = voted.copy(), self.labels["label"].notna().to_numpy()
            mixed[there] = rng.permutation(voted[there])
            return "permuted", mixed
        if arm == "gold-noised":
            others = NAMES[rng.integers(0, 3, len(gold))]
            return "noised", np.where(rng.random(len(gold)) < 0.15, others, gold)
        return ("gold", gold) if arm.startswith(("gold", "floor")) else ("consensus", voted)

    def _predictions(self):
        test = self.folds.loc[self.folds["part"] == "test", "text_id"]
        truth = self.gold[test].to_numpy()
        codes = pd.Index(NAMES).get_indexer(truth)
        blocks = []
        for arm, skill in self.skills.items():
            for seed in SEEDS:
                rng = np.random.default_rng([seed, *arm.encode()])
                right = rng.random(len(truth)) < skill
                guess = NAMES[np.where(right, codes, (codes + rng.integers(1, 3, len(truth))) % 3)]
                guess = np.full(len(truth), "no", dtype=object) if arm == "floor" else guess
                blocks.append(pd.DataFrame({"arm": arm, "seed": seed, "text_id": test, "predicted": guess}))
        return pd.concat(blocks, ignore_index=True).assign(student="frozen")

    def guards(self, **more):
        given = {
            "predictions": self.predictions, "gold": self.gold, "arms": self.arms, "folds": self.folds,
            "leaks": self.leaks, "remaining": self.remaining, "texts": self.texts, "trainings": self.trainings, "labels": self.labels,
            "schema": LabelSchema.from_names(NAMES), "margin": 0.05, **more,
        }  # fmt: skip
        return check_guards(**given)

    def guard(self, name, **more):
        with mock.patch.dict(GUARDS, {name: GUARDS[name]}, clear=True):
            found = self.guards(**more).iloc[0]
        return found["outcome"], found["reason"], json.loads(found["figures"])

    def compare(self, **more):
        found = compare_arms(
            self.predictions, self.gold, guards=self.guards(), trainings=self.trainings, margin=0.05,
            schema=LabelSchema.from_names(NAMES), **more,
        )  # fmt: skip
        return found[found["metric"] == "macro_f1"].set_index("contrast")

    def primary(self):
        return self.compare().loc["consensus − gold-aligned"]


def test_a_sound_experiment_passes_and_gets_a_verdict():
    world = World()
    found = world.guards()
    pd.testing.assert_frame_equal(check(found, GUARDS_TABLE), found)
    outcomes = found.set_index("guard")["outcome"]
    assert set(outcomes.index) == set(GUARDS)
    passed = ["leakage", "alignment", "collapse", "gold beats the floor", "margin", "seeds differ", "low power"]
    assert outcomes[[*passed, "failed runs", "test texts", "classes"]].eq("passed").all()
    assert outcomes[["negative control", "contamination", "fixed before scoring", "rescue"]].eq("not_checked").all()
    assert world.primary()["verdict"] in {"EQUIVALENT", "NON-INFERIOR", "INCONCLUSIVE", "WORSE"}


def test_the_tables_of_the_sound_experiment_are_tables():
    world = World()
    for frame, table in ((world.texts, TEXTS), (world.folds, FOLDS), (world.arms, ARMS), (world.trainings, TRAININGS)):
        check(frame, table)


PAGE = (Path(__file__).parents[1] / "docs" / "verdict.md").read_text(encoding="utf-8")


def sections():
    """Guard → the text of its section in docs/verdict.md."""
    guards = PAGE.partition("\n## Guards\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.+)$", guards, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def test_every_guard_and_every_word_is_documented():
    assert set(sections()) == set(GUARDS) == set(PAGES)
    assert set(re.findall(r"^\| \*\*([A-Z -]+)\*\*", PAGE, re.MULTILINE)) == set(VERDICTS)


@pytest.mark.parametrize("guard", GUARDS)
def test_the_docs_say_what_a_failure_of_the_guard_does(guard):
    said = re.match(r"\s*\*([A-Za-z ]+?)( for [a-z ]+)?\.\*", sections()[guard])
    assert said, guard
    assert said[1] == CONSEQUENCES.get(guard, "Warns")
    assert "**Do:**" in sections()[guard]


@pytest.mark.parametrize("guard", GUARDS)
def test_every_guard_explains_itself(guard):
    lines = explain(guard).splitlines()
    assert [line.partition(":")[0] for line in lines] == [guard, "Looks at", "A failure", "Do", "More"]
    assert (CONSEQUENCES.get(guard, "only warns")) in lines[2]
    heading = lines[-1].partition("#")[2].replace("-", " ")
    assert f"### {heading}\n" in PAGE
    assert set(CONSEQUENCES) < set(GUARDS)


def test_an_unknown_guard_is_a_mistake_with_a_hint():
    with pytest.raises(ConfigError, match=r"unknown guard 'leakag'; .*Did you mean 'leakage'\?"):
        explain("leakag")


# leakage


@pytest.mark.parametrize("copy", ["Text number t0005.", "  TEXT  number: “t0005” "])
def test_a_test_text_that_stands_in_train_makes_the_verdict_invalid(copy):
    world = World()
    world.texts.loc[world.texts["text_id"] == "t0400", "text"] = copy
    outcome, reason, figures = world.guard("leakage")
    assert outcome == "failed"
    assert reason.startswith("1 test text(s) also in train, for example t0400 = t0005")
    assert figures["remaining"] == 1
    assert set(world.compare()["verdict"]) == {"INVALID"}
    assert "leakage: 1 test text(s) also in train" in world.primary()["sentence"]
    assert exit_code(world.primary()["verdict"]) == 4


def test_texts_of_punctuation_alone_are_not_repeats_of_each_other():
    world = World()
    world.texts.loc[world.texts["text_id"] == "t0400", "text"] = "!!!"
    world.texts.loc[world.texts["text_id"] == "t0005", "text"] = "?"
    assert world.guard("leakage")[0] == "passed"


def test_training_on_a_test_text_is_leakage_whatever_the_folds_say():
    world = World()
    extra = world.arms[world.arms["part"] == "train"].iloc[[0]].assign(text_id="t0450", row=10_000)
    extra["target"] = world.gold["t0450"] if extra["source"].item() == "gold" else extra["target"]
    world.arms = pd.concat([world.arms, extra])
    assert world.guard("leakage")[1].startswith("1 test text(s) also in what arms were trained on")


def test_dev_texts_may_not_stand_in_train_or_test():
    world = World()
    world.texts.loc[world.texts["text_id"] == "t0250", "text"] = "text number t0005"
    assert "1 dev text(s) also in train" in world.guard("leakage")[1]
    world.texts.loc[world.texts["text_id"] == "t0250", "text"] = "text number t0405"
    assert "1 test text(s) also in dev" in world.guard("leakage")[1]


def test_a_group_may_not_stand_on_both_sides():
    world = World()
    world.texts["group"] = None
    world.texts.loc[world.texts["text_id"].isin(["t0003", "t0444"]), "group"] = "document 7"
    assert "1 test group(s) also in train" in world.guard("leakage")[1]


def test_what_was_removed_is_counted_once_per_text():
    world = World()
    rows = [("t9", "t0400", "near"), ("t9", "t0401", "normalised"), ("t8", "t0402", "near")]
    world.leaks = pd.DataFrame(
        [
            {"fold": 0, "text_id": a, "part": "train", "other_id": b, "other_part": "test", "level": level,
             "similarity": 1.0, "same_gold": True} for a, b, level in rows
        ]
    )  # fmt: skip
    outcome, reason, figures = world.guard("leakage")
    assert (outcome, figures["removed"]) == ("passed", {"near": 1, "normalised": 1})
    assert "removed before: 1 near, 1 normalised" in reason


def test_leakage_without_texts_is_not_checked_but_shared_ids_are_found():
    world = World()
    world.remaining = None
    assert world.guard("leakage", texts=None)[0] == "not_checked"
    assert world.guard("leakage", texts=None, folds=None, arms=None)[0] == "not_checked"
    world.folds = pd.concat([world.folds, pd.DataFrame({"fold": [1], "text_id": ["t0005"], "part": ["test"]})])
    world.folds = pd.concat([world.folds, pd.DataFrame({"fold": [1], "text_id": ["t0006"], "part": ["train"]})])
    assert world.guard("leakage", texts=None)[0] == "not_checked"  # another fold's test text may train this one
    world.arms.loc[0, "text_id"] = "t0500"
    assert world.guard("leakage", texts=None)[0] == "failed"


def leak(text_id, part, other_id, other_part, level):
    return {"fold": 0, "text_id": text_id, "part": part, "other_id": other_id, "other_part": other_part,
            "level": level, "similarity": 0.9, "same_gold": True}  # fmt: skip


def test_a_near_repeat_that_remains_makes_the_verdict_invalid():
    world = World()
    world.remaining = pd.DataFrame(
        [leak("t0005", "train", "t0400", "test", "near"), leak("t0005", "train", "t0401", "test", "near"),
         leak("t0250", "dev", "t0402", "test", "near")]
    )  # fmt: skip
    outcome, reason, figures = world.guard("leakage")
    assert (outcome, figures["remaining_by_level"]) == ("failed", {"near": 2})
    assert "2 near, for example t0005 (train) and t0400 (test)" in reason
    assert world.primary()["verdict"] == "INVALID"


def test_the_leakage_guard_says_how_far_it_looked():
    world = World()
    assert world.guard("leakage")[:2] == (
        "passed", "no exact, normalised or near repeat of a dev or test text stands in train; removed before: none",
    )  # fmt: skip
    world.remaining = None
    assert world.guard("leakage")[:2] == (
        "warned",
        "no exact or normalised repeat of a dev or test text stands in train; near repeats were not looked for; "
        "removed before: none",
    )


# alignment


def test_arms_that_differ_in_labels_only_must_hold_the_same_texts():
    world = World()
    victim = (world.arms["arm"] == "gold-aligned") & (world.arms["seed"] == 2) & (world.arms["part"] == "train")
    world.arms = world.arms.drop(world.arms.index[victim][:3])
    outcome, reason, figures = world.guard("alignment")
    assert outcome == "failed"
    assert "consensus and gold-aligned differ in 3 train row(s)" in reason
    assert figures["contrasts"] == ["consensus − gold-aligned", "consensus-kept − gold-aligned"]
    assert "consensus-kept holds 3 train text(s) that gold-aligned lacks" in reason
    found = world.compare()
    assert found.loc["consensus − gold-aligned", "verdict"] == "INVALID"
    assert found.loc["consensus-kept − gold-kept", "verdict"] != "INVALID"


def test_dev_texts_of_aligned_arms_must_be_the_same():
    world = World()
    victim = (world.arms["arm"] == "gold-kept") & (world.arms["part"] == "dev")
    world.arms = world.arms.drop(world.arms.index[victim][:1])
    assert "consensus-kept and gold-kept differ in 1 dev row(s)" in world.guard("alignment")[1]


def test_labels_joined_by_row_order_are_found():
    world = World()
    rows = (world.arms["arm"] == "consensus") & (world.arms["part"] == "train")
    world.arms.loc[rows, "target"] = np.roll(world.arms.loc[rows, "target"].to_numpy(), 1)
    assert "training row(s) of consensus carry another label than their text id has" in world.guard("alignment")[1]
    assert world.primary()["verdict"] == "INVALID"


def test_an_arm_trained_on_the_labels_of_another_source_is_invalid_even_when_it_says_so():
    world = World()
    rows = (world.arms["arm"] == "consensus") & (world.arms["part"] == "dev")
    world.arms.loc[rows, "source"] = "gold"
    world.arms.loc[rows, "target"] = world.arms.loc[rows, "text_id"].map(world.gold)
    reason = world.guard("alignment")[1]
    assert re.search(
        r"consensus was given \d+ dev label\(s\) of source gold; its name promises consensus labels", reason
    )
    assert world.primary()["verdict"] == "INVALID"
    world = World()
    world.arms.loc[(world.arms["arm"] == "gold-aligned"), "source"] = "consensus"
    assert "of source consensus; its name promises gold labels" in world.guard("alignment")[1]


def test_a_human_correction_is_a_consensus_label():
    world = World()
    row = world.arms.index[(world.arms["arm"] == "consensus") & (world.arms["part"] == "dev")][0]
    same = (world.arms["arm"] == "consensus") & (world.arms["text_id"] == world.arms.loc[row, "text_id"])
    world.arms.loc[same, ["source", "target"]] = ["human", "maybe"]
    assert world.guard("alignment")[0] == "passed"


def test_a_consensus_target_for_an_undecided_text_is_invalid():
    world = World()
    undecided = world.labels.loc[world.labels["label"].isna(), "text_id"].iloc[0]
    for arm in ("consensus", "gold-aligned"):  # in both, so that their texts agree
        rows = world.arms.index[(world.arms["arm"] == arm) & (world.arms["part"] == "train") & (world.arms["row"] == 7)]
        target = world.gold[undecided]
        world.arms.loc[rows, ["text_id", "target"]] = [undecided, target]
    reason = world.guard("alignment")[1]
    assert "1 training row(s) of consensus carry a consensus label, but their text id has none" in reason
    assert "gold-aligned" not in reason


def with_dev(world):
    """Add dev predictions, right for 80 %, with the dev macro-F1 of scikit-learn on each arm's own dev labels."""
    from sklearn.metrics import f1_score

    blocks, scores = [], []
    for (arm, seed), rows in world.arms[world.arms["part"] == "dev"].groupby(["arm", "seed"]):
        rng = np.random.default_rng([seed, *arm.encode()])
        codes = pd.Index(NAMES).get_indexer(rows["target"])
        assert rows["text_id"].is_unique
        guess = np.where(rng.random(len(rows)) < 0.8, codes, (codes + 1) % 3)
        sure = np.full((len(rows), 3), 0.1) + 0.7 * np.eye(3)[guess]
        value = f1_score(codes, guess, labels=np.unique(codes), average="macro", zero_division=0)
        blocks.append(rows[["arm", "seed", "text_id"]].assign(predicted=NAMES[guess], probabilities=list(sure)))
        scores.append({"arm": arm, "seed": seed, "dev_macro_f1": value})
    dev = pd.concat(blocks).assign(student="frozen", part="dev")
    world.predictions = pd.concat([world.predictions.assign(part="test"), dev], ignore_index=True)
    world.trainings = world.trainings.merge(pd.DataFrame(scores), on=["arm", "seed"])
    return world


def test_dev_predictions_that_do_not_give_the_recorded_score_are_invalid():
    world = with_dev(World())
    assert world.guard("alignment")[0] == "passed"
    swapped = {"no": "yes", "yes": "no", "maybe": "maybe"}
    rows = world.predictions["arm"] == "consensus"
    world.predictions.loc[rows, "predicted"] = world.predictions.loc[rows, "predicted"].map(swapped)
    outcome, reason, figures = world.guard("alignment")
    assert outcome == "failed"
    assert (
        "the dev predictions of consensus do not give the dev macro-F1 that was recorded for 6 of its seeds" in reason
    )
    assert figures["contrasts"] == ["consensus − gold", "consensus − gold-aligned"]


def test_one_changed_dev_prediction_is_noticed():
    world = with_dev(World())
    row = world.predictions.index[(world.predictions["part"] == "dev") & (world.predictions["arm"] == "gold")][0]
    old = world.predictions.loc[row, "predicted"]
    new = "no" if old != "no" else "yes"
    world.predictions.loc[row, "predicted"] = new
    assert "recorded for 1 of its seeds (1)" in world.guard("alignment")[1]


def test_test_texts_that_no_arm_predicts_make_the_verdict_invalid():
    world = World()
    world.predictions = world.predictions[world.predictions["text_id"] >= "t0410"]
    assert "110 of 300 test texts with gold are not predicted by any run" in world.guard("alignment")[1]
    assert world.primary()["verdict"] == "INVALID"
    world = World()
    pair = world.predictions["arm"].isin(["consensus", "gold-aligned"])
    world.predictions = world.predictions[~pair | (world.predictions["text_id"] != "t0310")]
    assert "1 of 300 test texts with gold are not predicted by consensus or gold-aligned" in world.guard("alignment")[1]


def test_an_arm_that_lacks_test_texts_makes_its_contrasts_invalid():
    world = World()
    world.predictions = world.predictions.drop(
        world.predictions.index[(world.predictions["arm"] == "consensus") & (world.predictions["text_id"] == "t0310")]
    )
    found = world.compare()
    expected = "1 test text(s) are not predicted by every run of consensus and gold-aligned"
    assert expected in found.loc["consensus − gold-aligned", "reason"]
    assert found.loc["gold-aligned − gold", "verdict"] != "INVALID"


def test_unequal_test_texts_are_found_even_when_the_guards_were_made_elsewhere():
    world = World()
    guards = world.guards()
    fewer = world.predictions[(world.predictions["arm"] != "consensus") | (world.predictions["text_id"] > "t0310")]
    row = compare_arms(fewer, world.gold, guards=guards, margin=0.05)
    assert set(row.loc[row["arm"] == "consensus", "verdict"]) == {"INVALID"}


def test_a_seed_that_is_missing_without_a_record_makes_the_verdict_invalid():
    world = World()
    world.predictions = world.predictions[(world.predictions["arm"] != "consensus") | (world.predictions["seed"] != 3)]
    found = compare_arms(world.predictions, world.gold, margin=0.05)
    row = found[found["is_primary"]].iloc[0]
    assert row["verdict"] == "INVALID"
    assert "consensus has no predictions for seed(s) 3, and no record of why" in row["reason"]


def test_arms_that_share_no_seed_cannot_be_paired():
    world = World()
    shifted = world.predictions.assign(seed=world.predictions["seed"] + 10 * (world.predictions["arm"] == "consensus"))
    found = compare_arms(shifted, world.gold, guards=world.guards().iloc[:0], margin=0.05)
    assert "consensus and gold-aligned share no seed" in found[found["is_primary"]].iloc[0]["reason"]


def test_predictions_in_another_label_language_are_found():
    world = World()
    swapped = world.predictions["predicted"].where(world.predictions["arm"] != "consensus", "LABEL_1")
    world.predictions = world.predictions.assign(predicted=swapped)
    assert "consensus gives label(s) ['LABEL_1'] that are not among" in world.guard("alignment")[1]
    assert "consensus gives label(s) ['LABEL_1']" in world.guard("alignment", schema=None)[1]


def test_without_a_schema_a_label_that_gold_lacks_may_be_a_class_without_test_gold():
    world = World()
    world.predictions.loc[world.predictions.index[:3], "predicted"] = "perhaps"
    assert world.guard("alignment", schema=None)[0] == "passed"
    assert world.guard("alignment")[0] == "failed"


@pytest.mark.parametrize(("pair", "effect"), [(("consensus", "gold"), "total"), (("gold-aligned", "gold"), "coverage")])
def test_a_primary_contrast_that_mixes_in_coverage_is_a_warning_with_both_numbers(pair, effect):
    world = World()
    outcome, reason, figures = world.guard("alignment", primary=pair)
    held = world.arms[world.arms["part"] == "train"].groupby("arm")["text_id"].nunique()
    assert outcome == "warned"
    assert figures["train_texts"] == {arm: held[arm] for arm in pair}
    assert f"the primary contrast is the {effect} effect, which" in reason
    assert f"{held[pair[0]]} ({pair[0]}) and 240 (gold) train texts" in reason
    lost = (world.predictions["arm"] == "gold") & (world.predictions["text_id"] == "t0310")
    world.predictions = world.predictions[~lost]
    assert world.guard("alignment", primary=pair)[0] == "failed"


def test_a_total_effect_with_full_coverage_is_that_of_labels():
    world = World()
    voted = world.labels.loc[world.labels["label"].notna(), "text_id"]
    world.arms = world.arms[world.arms["text_id"].isin(voted)]
    assert world.guard("alignment", primary=("consensus", "gold"))[0] == "passed"


def with_steps(world, arm, seed, **facts):
    """All runs took 100 steps; one of them differs."""
    world.trainings = world.trainings.assign(
        steps=100, real_tokens=5000, stopped_at=pd.array([None] * len(world.trainings), "Int64")
    )
    one = (world.trainings["arm"] == arm) & (world.trainings["seed"] == seed)
    for name, value in facts.items():
        world.trainings.loc[one, name] = value
    return world


def test_arms_that_took_unlike_numbers_of_steps_are_not_aligned():
    assert with_steps(World(), "consensus", 2).guard("alignment")[0] == "passed"
    outcome, reason, figures = with_steps(World(), "consensus", 2, steps=80).guard("alignment")
    assert outcome == "failed"
    assert (
        "consensus and gold-aligned took unlike numbers of optimiser steps in 1 fold(s) and seed(s), for example 80 and 100 "
        "in fold 0, seed 2"
    ) in reason
    assert figures["contrasts"] == ["consensus − gold", "consensus − gold-aligned"]
    assert with_steps(World(), "consensus", 2, steps=80).primary()["verdict"] == "INVALID"


@pytest.mark.parametrize("facts", [{"stopped_at": 80}, {"status": "collapsed"}])
def test_runs_that_ended_early_need_not_have_taken_all_steps(facts):
    assert with_steps(World(), "consensus", 2, steps=80, **facts).guard("alignment")[0] == "passed"


def test_steps_of_solvers_and_of_declared_variations_may_differ():
    world = with_steps(World(), "consensus", 2, steps=80)
    world.trainings["real_tokens"] = pd.array([None] * len(world.trainings), "Int64")
    assert world.guard("alignment")[0] == "passed"
    world = with_steps(World(), "consensus", 2, steps=80)
    for name in ("predictions", "trainings"):
        setattr(world, name, getattr(world, name).assign(student="frozen (epochs)"))
    assert world.guard("alignment")[0] == "passed"


def test_without_the_arms_table_the_training_texts_are_not_checked():
    assert World().guard("alignment", arms=None)[0] == "not_checked"


# collapse


def collapsed(world, arm, seeds):
    rows = (world.trainings["arm"] == arm) & world.trainings["seed"].isin(seeds)
    world.trainings.loc[rows, "status"] = "collapsed"
    return world


def test_one_collapse_in_six_is_counted_and_allowed():
    world = collapsed(World(), "consensus", [1])
    outcome, reason, figures = world.guard("collapse")
    assert (outcome, figures["arms"]["consensus"]["collapsed"]) == ("warned", 1)
    assert "consensus 1 of 6" in reason
    assert world.primary()["verdict"] not in {"UNSTABLE RECIPE", "INVALID"}


def test_two_collapses_in_six_make_the_recipe_unstable():
    world = collapsed(World(), "gold-aligned", [1, 4])
    found = world.compare()
    assert found.loc["consensus − gold-aligned", "verdict"] == "UNSTABLE RECIPE"
    assert found.loc["consensus − gold", "verdict"] != "UNSTABLE RECIPE"
    assert "gold-aligned 2 of 6" in found.loc["consensus − gold-aligned", "sentence"]
    assert exit_code("UNSTABLE RECIPE") == 0


def test_collapses_in_a_secondary_arm_leave_the_primary_verdict_alone():
    found = collapsed(World(), "gold", [1, 2, 3]).compare()
    assert found.loc["consensus − gold-aligned", "verdict"] != "UNSTABLE RECIPE"
    assert found.loc["consensus − gold", "verdict"] == "UNSTABLE RECIPE"


def test_failed_runs_count_as_bad_as_collapsed_ones():
    world = World()
    lost = (world.trainings["arm"] == "consensus") & world.trainings["seed"].isin([2, 5])
    world.trainings.loc[lost, "status"] = "failed"
    world.predictions = world.predictions[
        (world.predictions["arm"] != "consensus") | ~world.predictions["seed"].isin([2, 5])
    ]
    outcome, reason, figures = world.guard("collapse")
    assert (outcome, figures["arms"]["consensus"]["failed"]) == ("failed", 2)
    assert reason.startswith("collapsed or failed runs: consensus 2 of 6 (2 failed)")
    assert world.primary()["verdict"] == "UNSTABLE RECIPE"


def test_unlike_collapse_rates_are_unstable_below_a_fifth():
    # 0 of 40 against 7 of 40: 17.5 %, Fisher p = .012
    runs = [("gold-aligned", s, "ok") for s in range(40)]
    runs += [("consensus", s, "collapsed" if s < 7 else "ok") for s in range(40)]
    world = World()
    world.trainings = pd.DataFrame(runs, columns=["arm", "seed", "status"]).assign(
        student="frozen", fold=0, attempt="as_run"
    )
    assert world.guard("collapse")[0] == "failed"


def test_a_floor_may_collapse():
    assert collapsed(World(), "floor", SEEDS).guard("collapse")[0] == "passed"


def test_with_few_seeds_one_collapse_ends_it_and_the_reason_says_so():
    world = World()
    world.predictions = world.predictions[world.predictions["seed"] <= 4]
    world.trainings = world.trainings[world.trainings["seed"] <= 4]
    outcome, reason, _ = collapsed(world, "consensus", [2]).guard("collapse")
    assert outcome == "failed"
    assert "with S = 4 one bad run already ends it" in reason


def test_without_a_trainings_table_predictions_of_one_class_count_as_collapsed():
    world = World()
    rows = (world.predictions["arm"] == "consensus") & world.predictions["seed"].isin([1, 2])
    world.predictions.loc[rows, "predicted"] = "no"
    outcome, reason, _ = world.guard("collapse", trainings=None)
    assert outcome == "failed"
    assert "judged by test predictions alone" in reason


def test_one_class_means_more_than_its_prior_explains():
    gold = np.array([0] * 97 + [1] * 3)
    runs = np.array([[0] * 100, [0] * 99 + [1], gold])
    assert predicts_one_class(runs, gold).tolist() == [True, False, False]
    assert predicts_one_class(runs[1:], np.array([0] * 50 + [1] * 50)).tolist() == [True, True]


# gold beats the floor, margin, negative control


def test_a_recipe_that_learns_nothing_reports_no_contrast():
    world = World()
    rows = world.predictions.index[world.predictions["arm"] == "gold"]
    world.predictions.loc[rows[np.random.default_rng(0).random(len(rows)) < 0.99], "predicted"] = "no"
    outcome, reason, figures = world.guard("gold beats the floor")
    assert outcome == "failed"
    assert figures["difference"] < 5 * figures["se"]
    assert "the recipe learns too little" in reason
    assert set(world.compare()["verdict"]) == {"INVALID"}


def test_a_gain_that_is_clear_but_under_five_standard_errors_asks_for_test_texts_and_not_for_another_recipe():
    world = World(n_test=20)
    rows = world.predictions.index[world.predictions["arm"] == "gold"]
    world.predictions.loc[rows[np.random.default_rng(0).random(len(rows)) < 0.6], "predicted"] = "no"
    world.predictions = world.predictions[world.predictions["seed"] == 1]
    outcome, reason, figures = world.guard("gold beats the floor")
    assert outcome == "failed"
    assert 3 * figures["se"] < figures["difference"] < 5 * figures["se"]
    needed = 20 * (5 * figures["se"] / figures["difference"]) ** 2
    assert f"with 20 test texts and 1 seed the standard error is {100 * figures['se']:.1f} pp" in reason
    assert f"about {math.ceil(needed)} test texts would do" in reason
    assert "learns too little" not in reason


def test_the_test_texts_that_would_do_by_hand():
    """16 of 100 texts gained under both seeds: s² = .13576, se = √(s²/100) = .036845, 100·(5·.036845/.16)² = 132.6."""
    found = two_way(np.tile([1.0] * 16 + [0.0] * 84, (2, 1)))
    assert found.se == pytest.approx(0.036845, abs=1e-6)
    assert enough(found, found.se).startswith("with this difference about 140 test texts would do")


def test_the_seeds_that_would_do_by_hand_where_they_make_the_error():
    """Gains of .3 and .1 on every text: Var = .02/2 = .01, (.2/5)² = .0016, 2·.01/.0016 = 12.5."""
    found = two_way(np.array([[0.3] * 50, [0.1] * 50]))
    assert found.se == pytest.approx(0.1)
    assert enough(found, found.se).startswith("with this difference about 13 seeds would do")


def test_neither_seeds_nor_test_texts_alone_do_where_each_part_is_too_large():
    """Seeds' part .01 of .0184; the texts' .0084 alone is above (.2/5)² = .0016."""
    spread = np.where(np.arange(50) % 2 == 0, 0.64, -0.64)
    found = two_way(np.array([[0.3] * 50, [0.1] * 50]) + spread)
    assert enough(found, found.se) == "with this difference it takes more test texts and more seeds"


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("frozen", "try another encoder (finetune.recipe.encoder), more training texts"),
        ("frozen (gold dev)", "try another encoder"),
        ("linear", "try more training texts or another student"),
        ("encoder", "try a lower learning rate, warm-up, more steps"),
        ("of my own", "try more training texts or another student"),
    ],
)
def test_a_recipe_that_learns_too_little_is_mended_as_its_student_allows(student, said):
    world = World()
    rows = world.predictions.index[world.predictions["arm"] == "gold"]
    world.predictions.loc[rows[np.random.default_rng(0).random(len(rows)) < 0.99], "predicted"] = "no"
    reason = world.guard(
        "gold beats the floor", predictions=world.predictions.assign(student=student), trainings=None, arms=None
    )[1]
    assert f"the recipe learns too little to compare labels with it; {said}" in reason
    assert ("learning rate" in reason) == (student == "encoder")


def test_gold_must_beat_the_better_floor():
    world = World()
    prior = world.predictions[world.predictions["arm"] == "gold"].assign(arm="floor-prior")
    world.predictions = pd.concat([world.predictions, prior])
    assert world.guard("gold beats the floor")[2]["floor"] == "floor-prior"
    assert world.guard("gold beats the floor")[0] == "failed"


def test_gold_aligned_stands_in_where_gold_was_not_trained():
    world = World()
    world.predictions = world.predictions[world.predictions["arm"] != "gold"]
    outcome, reason, figures = world.guard("gold beats the floor")
    assert (outcome, figures["arm"]) == ("passed", "gold-aligned")
    assert reason.startswith("gold-aligned beats floor by")
    rows = world.predictions["arm"] == "gold-aligned"
    world.predictions.loc[rows, "predicted"] = "no"
    assert world.guard("gold beats the floor")[0] == "failed"


def test_the_margin_is_held_against_gold_where_there_is_no_primary_contrast():
    world = World()
    world.predictions = world.predictions[~world.predictions["arm"].isin(["gold-aligned"])]
    assert world.guard("margin")[2]["control"] == "gold"
    assert world.guard("margin", margin=0.45)[0] == "failed"


def test_a_student_without_a_contrast_passes_through_every_guard():
    world = World()
    world.predictions = world.predictions[world.predictions["arm"] == "gold"]
    found = world.guards().set_index("guard")["outcome"]
    names = ["alignment", "collapse", "margin", "seeds differ", "low power", "failed runs"]
    assert found[names].eq("not_checked").all()
    assert not found.eq("failed").any()
    assert not len(world.compare())


def test_an_arm_whose_runs_all_failed_is_named():
    world = World()
    world.predictions = world.predictions[world.predictions["arm"] != "consensus"]
    world.trainings.loc[world.trainings["arm"] == "consensus", "status"] = "failed"
    assert "no run of consensus finished" in world.guard("failed runs")[1]


def test_a_floor_with_one_row_stands_beside_every_seed():
    world = World()
    world.predictions = world.predictions[(world.predictions["arm"] != "floor") | (world.predictions["seed"] == 1)]
    assert world.guard("gold beats the floor")[0] == "passed"
    assert world.guard("alignment")[0] == "passed"
    assert world.compare().loc["gold − floor", "S"] == 6


def test_one_seed_is_held_against_the_item_error_alone():
    world = World()
    world.predictions = world.predictions[world.predictions["seed"] == 1]
    outcome, reason, _ = world.guard("gold beats the floor")
    assert outcome == "passed"
    assert "one seed" in reason
    assert world.guard("margin")[0] == "not_checked"


def test_a_margin_of_more_than_half_of_what_labels_bring_is_invalid():
    world = World()
    limit = world.guard("margin")[2]["low"] / 2
    assert world.guard("margin", margin=limit)[0] == "passed"
    outcome, reason, _ = world.guard("margin", margin=limit + 1e-6)
    assert outcome == "failed"
    assert "gold-aligned − floor" in reason


@pytest.mark.parametrize(("skill", "outcome"), [(1 / 3, "passed"), (0.6, "failed")])
def test_permuted_labels_may_not_teach_anything(skill, outcome):
    world = World({**SKILLS, "permuted": skill})
    assert world.guard("negative control")[0] == outcome
    assert (world.primary()["verdict"] == "INVALID") == (outcome == "failed")


def control_of(codes, gold):
    """What the negative control says of predictions (S, n) of `permuted`."""
    runs = Runs(
        items=np.arange(len(gold)), gold=gold, names=("a", "b"), known=2, codes=codes, without_gold=0,
        rows={("frozen", "as_run"): {"permuted": {seed: seed for seed in range(len(codes))}}},
    )  # fmt: skip
    return negative_control(Evidence(runs=runs))[0]


def study(rng, S, leak, n=400):
    """S students, each the direction between two class means of 600 texts with permuted labels, a share of them leaked."""
    y = rng.integers(2, size=600 + n)
    X = rng.normal(size=(len(y), 20)) + np.outer(2 * y - 1, rng.dirichlet(np.ones(20)) ** 0.5)
    centred, truth = X - X[:600].mean(axis=0), y[:600]
    given = np.array([np.where(rng.random(600) < leak, truth, rng.permutation(truth)) for _ in range(S)])
    return ((centred[600:] @ (centred[:600].T @ (given - 0.5).T)).T > 0).astype(int), y[600:]


@mock.patch("consenso.compare.guard_of_control.DRAWS", (200, 200))
def test_an_accidental_direction_is_no_leak_and_a_leak_is():
    rng = np.random.default_rng(18)
    sound = [control_of(*study(rng, 5, 0.0)) for _ in range(40)]
    above = [found.figures["value"] > found.figures["limit"] for found in sound]
    assert np.mean(above) > 0.2  # what the percentile alone would call a leak
    failed = [found.outcome == "failed" for found in sound]
    assert failed == [high and found.figures["p"] < 0.025 for high, found in zip(above, sound)]
    assert np.mean([_one_sided(_excess(*study(rng, 5, 0.0), "macro_f1"))[1] < 0.025 for _ in range(1000)]) <= 0.035
    for leak in (0.1, 0.2):
        assert np.mean([control_of(*study(rng, 10, leak)).outcome == "failed" for _ in range(10)]) >= 0.9


def test_the_excess_over_permutations_is_that_of_a_t_test():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(3)
    codes, gold = study(rng, 6, 0.1)
    figures = control_of(codes, gold).figures
    excess = [
        score_of(run[None], gold, "macro_f1")
        - np.mean([score_of(run[None], rng.permutation(gold), "macro_f1") for _ in range(2000)])
        for run in codes
    ]
    assert figures["excess"] == pytest.approx(np.mean(excess), abs=2e-3)
    assert np.log(figures["p"]) == pytest.approx(np.log(ttest_1samp(excess, 0, alternative="greater").pvalue), rel=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "balanced_accuracy"])
def test_the_expectation_under_permuted_gold_is_the_mean_over_all_permutations(metric):
    from itertools import permutations

    gold = np.array([0, 0, 1, 2, 1, 0])
    codes = np.array([[0, 1, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0]])
    every = [[score_of(codes[[run]], np.array(mixed), metric) for mixed in permutations(gold)] for run in (0, 1)]
    expected = [score_of(codes[[run]], gold, metric) - np.mean(every[run]) for run in (0, 1)]
    assert _excess(codes, gold, metric) == pytest.approx(expected, abs=0.05 if metric == "balanced_accuracy" else 1e-12)


@pytest.mark.parametrize(("seeds", "outcome"), [((0, 1), "warned"), ((0, 0, 1, 1), "warned"), ((0, 1, 2, 3), "failed")])
def test_fewer_than_three_permutations_only_warn_and_copies_count_once(seeds, outcome):
    codes, gold = study(np.random.default_rng(5), 4, 0.5)
    found = control_of(codes[list(seeds)], gold)
    assert found.outcome == outcome
    assert found.figures["trainings"] == len(set(seeds))


@pytest.mark.parametrize(("seeds", "outcome", "trainings"), [((1,), "failed", 5), (tuple(SEEDS), "failed", 6)])
def test_folds_of_one_seed_are_permutations_of_their_own(seeds, outcome, trainings):
    world = with_folds(World({**FOLDED, "permuted": 0.6}), k=5)
    world.predictions = world.predictions[world.predictions["seed"].isin(seeds)]
    found = world.guard("negative control")
    assert (found[0], found[2]["trainings"]) == (outcome, trainings)


def test_the_control_of_a_student_with_declared_gold_dev_labels_is_not_checked():
    world = World({**SKILLS, "permuted": 0.6})
    outcome, reason, _ = world.guard("negative control", gold_dev=["frozen"])
    assert outcome == "not_checked"
    assert "the dev labels of this student are gold by declaration" in reason


# seeds and runs


def test_an_arm_whose_seeds_are_copies_gives_no_verdict():
    world = World()
    copy = world.predictions[(world.predictions["arm"] == "consensus") & (world.predictions["seed"] == 1)]
    rest = world.predictions[world.predictions["arm"] != "consensus"]
    world.predictions = pd.concat([rest, *(copy.assign(seed=seed) for seed in SEEDS)])
    outcome, reason, figures = world.guard("seeds differ")
    assert outcome == "failed"
    assert figures["distinct"]["consensus"] == 1
    assert "consensus − gold-aligned" in figures["contrasts"]
    assert "gold-aligned − gold" not in figures["contrasts"]
    row = world.primary()
    assert (row["verdict"], row["S"]) == ("NO VERDICT", 1)
    assert reason in row["reason"]


def test_two_seeds_that_are_copies_are_a_warning():
    world = World()
    first = world.predictions[(world.predictions["arm"] == "gold") & (world.predictions["seed"] == 1)]
    others = world.predictions[(world.predictions["arm"] != "gold") | (world.predictions["seed"] != 2)]
    world.predictions = pd.concat([others, first.assign(seed=2)])
    assert world.guard("seeds differ")[:2] == (
        "warned", "some seeds give the same predictions; distinct ones: gold 5 of 6; contrasts use these alone",
    )  # fmt: skip


def test_few_seeds_are_low_power():
    world = World()
    world.predictions = world.predictions[world.predictions["seed"] <= 3]
    assert world.guard("low power")[:2] == ("warned", "3 seed(s) in consensus − gold-aligned, fewer than 5: low power")
    assert world.guard("low power", low_power_below=3)[0] == "passed"


def test_a_failed_run_is_counted_and_its_seed_is_left_out_of_both_arms():
    world = World()
    lost = (world.predictions["arm"] == "consensus") & (world.predictions["seed"] == 3)
    world.predictions = world.predictions[~lost]
    failed = (world.trainings["arm"] == "consensus") & (world.trainings["seed"] == 3)
    world.trainings.loc[failed, "status"] = "failed"
    outcome, reason, figures = world.guard("failed runs")
    assert (outcome, figures["missing"]) == ("warned", [["consensus", "3"]])
    assert "consensus 1" in reason
    assert world.guard("alignment")[0] == "passed"
    found = world.compare()
    assert found.loc["consensus − gold-aligned", "S"] == 5
    assert found.loc["gold-aligned − gold", "S"] == 6


def test_a_planned_run_that_is_not_there_yet_is_counted():
    world = World()
    world.predictions = world.predictions[(world.predictions["arm"] != "consensus") | (world.predictions["seed"] != 6)]
    assert world.guard("failed runs", trainings=None)[2]["missing"] == [["consensus", "6"]]
    assert world.guard("alignment", trainings=None)[0] == "passed"
    assert world.primary()["S"] == 5


def test_a_plan_is_no_record_of_a_run_that_the_trainings_table_does_not_call_failed():
    world = World()
    lost = (world.predictions["arm"] == "consensus") & world.predictions["seed"].isin([2, 5])
    world.predictions = world.predictions[~lost]
    said = "consensus has no predictions for seed(s) 2, 5, and no record of why"
    assert said in world.guard("alignment")[1]  # trainings says ok
    world.trainings = world.trainings[(world.trainings["arm"] != "consensus") | ~world.trainings["seed"].isin([2, 5])]
    assert said in world.primary()["reason"]


# every arm of the grammar


MANY = {
    **SKILLS, "consensus-soft": 0.78, "gold-noised": 0.75, "permuted": 1 / 3, "consensus+20": 0.78,
    "consensus+20:random": 0.78, "consensus-repeated": 0.78, "perspectivist": 0.77, "single:a": 0.76, "panel:2": 0.77,
    "consensus-selected": 0.77, "consensus-selected-random": 0.77, "gold@60": 0.7,
}  # fmt: skip
PAIRS = [
    *(("consensus", other) for other in MANY if other not in {"consensus", "floor"}),
    ("consensus-selected", "consensus-selected-random"), ("single:a", "gold-aligned"), ("panel:2", "gold-aligned"),
    ("consensus-kept", "consensus-random"), ("consensus-kept", "gold-kept"), ("gold-aligned", "gold"),
]  # fmt: skip


class Many(World):
    """The sound experiment with every kind of arm; annotators a, b and c vote."""

    def build(self, skills, n_test):
        rng = np.random.default_rng(5)
        super().build(skills, n_test)
        truth = self.texts["gold"].to_numpy()
        votes = [np.where(rng.random(len(truth)) < 0.2, NAMES[rng.integers(0, 3, len(truth))], truth) for _ in "abc"]
        self.votes = pd.concat(
            [pd.DataFrame({"text_id": self.texts["text_id"], "annotator": a, "label": v}) for a, v in zip("abc", votes)],
            ignore_index=True,
        )  # fmt: skip
        for arm in ("single:a", "perspectivist", "consensus-repeated", "consensus-soft", "panel:2", "gold@60", *(
            name for name in skills if name.startswith(("consensus+", "consensus-selected")))):  # fmt: skip
            if arm in skills:
                self._rework(arm)

    def _rework(self, arm):
        mine = self.arms["arm"] == arm
        self.arms = pd.concat([self.arms[~mine], self._reworked(arm, self.arms[mine])], ignore_index=True)

    def _reworked(self, arm, rows):
        if arm in {"perspectivist", "consensus-repeated"}:
            return self._repeated(arm, rows)
        if arm == "single:a":
            voted = self.votes[self.votes["annotator"] == "a"].set_index("text_id")["label"]
            rows = rows.assign(source="vote", target=rows["text_id"].map(voted))
        elif arm == "panel:2":
            rows = rows[rows["row"] != 3].assign(source="panel")
        elif arm == "consensus-soft":
            shares = np.full((len(rows), 3), 0.1) + 0.7 * np.eye(3)[pd.Index(NAMES).get_indexer(rows["target"])]
            rows = rows.assign(shares=list(shares))
        elif arm.startswith("consensus+"):
            first = rows["text_id"].isin(sorted(rows["text_id"].unique())[:20])
            target = rows["target"].mask(first, rows["text_id"].map(self.gold))
            rows = rows.assign(target=target, source=rows["source"].mask(first, "human"))
        elif arm == "gold@60":
            rows = rows[(rows["row"] < 48) & (rows["part"] == "train") | (rows["row"] < 12) & (rows["part"] == "dev")]
        else:  # consensus-selected: every second row of a class; consensus-selected-random: the others
            place = rows.groupby(["seed", "part", "target"]).cumcount()
            size = rows.groupby(["seed", "part", "target"])["row"].transform("size")
            mine = place % 2 == (0 if arm == "consensus-selected" else 1)
            rows = rows[mine & (place < size // 2 * 2) | (rows["part"] == "dev")]
        return rows

    def _repeated(self, arm, rows):
        train = rows["part"] == "train"
        several = pd.concat([rows[train].assign(annotator=a) for a in "abc"], ignore_index=True)
        if arm == "perspectivist":
            said = self.votes.set_index(["text_id", "annotator"])["label"]
            keys = pd.MultiIndex.from_frame(several[["text_id", "annotator"]])
            several = several.assign(source="vote", target=said[keys].to_numpy())
        several = several.assign(row=several.groupby(["seed", "part"]).cumcount()).drop(columns="annotator")
        return pd.concat([several, rows[~train]], ignore_index=True)

    def guards(self, **more):
        return super().guards(
            **{"votes": self.votes, "contrasts": PAIRS, "primary": ("consensus", "gold-aligned"), **more}
        )


@functools.cache
def many():
    made = Many.__new__(Many)
    made.build(dict(MANY), 300)
    return made


@pytest.fixture
def world():
    made = Many.__new__(Many)
    vars(made).update(
        {name: getattr(value, "copy", lambda value=value: value)() for name, value in vars(many()).items()}
    )
    return made


def test_every_arm_of_the_grammar_may_be_sound(world):
    assert set(world.arms["source"]) == {"gold", "consensus", "human", "permuted", "noised", "vote", "panel"}
    check(world.arms, ARMS)
    outcome, reason, _ = world.guard("alignment")
    assert (outcome, reason[:10]) == ("passed", "arms share")
    assert not world.guards()["outcome"].eq("failed").any()


@pytest.mark.parametrize(
    ("arm", "source"),
    [
        ("gold-noised", "gold"), ("permuted", "consensus"), ("single:a", "consensus"), ("panel:2", "vote"),
        ("perspectivist", "consensus"), ("consensus-soft", "vote"), ("consensus+20", "gold"), ("gold@60", "consensus"),
        ("consensus-selected", "gold"), ("consensus-repeated", "panel"),
    ],
)  # fmt: skip
def test_every_name_promises_a_source(world, arm, source):
    world.arms.loc[(world.arms["arm"] == arm) & (world.arms["part"] == "train"), "source"] = source
    outcome, reason, figures = world.guard("alignment")
    assert outcome == "failed"
    assert re.search(rf"{re.escape(arm)} was given \d+ label\(s\) of source {source}; its name promises", reason)
    assert all(arm in contrast for contrast in figures["contrasts"])


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("consensus-soft", "consensus and consensus-soft differ in 2 train row(s)"),
        ("permuted", "consensus and permuted differ in 2 train row(s)"),
        ("gold-noised", "consensus and gold-noised differ in 2 train row(s)"),
        ("consensus+20", "consensus and consensus+20 differ in 2 train row(s)"),
        ("consensus-selected", "differ in size or class counts in 1 fold(s) and seed(s)"),
        ("consensus-random", "differ in size or class counts in 1 fold(s) and seed(s)"),
    ],
)
def test_lost_rows_are_found_in_every_arm_that_promises_texts(world, arm, said):
    mine = (world.arms["arm"] == arm) & (world.arms["seed"] == 2) & (world.arms["part"] == "train")
    world.arms = world.arms.drop(world.arms.index[mine][-2:])
    assert said in world.guard("alignment")[1]


@pytest.mark.parametrize("arm", ["perspectivist", "consensus-repeated"])
def test_arms_with_several_rows_per_text_are_compared_by_their_texts(world, arm):
    lost = world.arms[world.arms["arm"] == arm]["text_id"].iloc[0]
    fewer = world.arms[(world.arms["arm"] != arm) | (world.arms["text_id"] != lost)]
    one_row = world.arms.drop(world.arms.index[(world.arms["arm"] == arm) & (world.arms["text_id"] == lost)][:1])
    world.arms = one_row
    assert world.guard("alignment")[0] == "passed"
    world.arms = fewer
    assert f"consensus and {arm} differ in 6 train text(s)" in world.guard("alignment")[1]


@pytest.mark.parametrize("arm", ["single:a", "panel:2", "consensus-kept"])
def test_an_arm_on_part_of_the_texts_may_hold_no_others(world, arm):
    aligned = set(world.arms.loc[world.arms["arm"] == "consensus", "text_id"])
    other = sorted(set(world.folds.loc[world.folds["part"] == "train", "text_id"]) - aligned)[0]
    row = world.arms.index[(world.arms["arm"] == arm) & (world.arms["part"] == "train")][0]
    world.arms.loc[row, "text_id"] = other
    assert f"{arm} holds 1 train text(s) that consensus lacks" in world.guard("alignment")[1]


def test_dev_scores_of_soft_targets_are_those_of_the_largest_share(world):
    world = with_dev(world)
    assert world.guard("alignment")[0] == "passed"
    mine = (world.predictions["arm"] == "consensus-soft") & (world.predictions["part"] == "dev")
    world.predictions.loc[mine, "predicted"] = "no"
    assert "the dev predictions of consensus-soft do not give the dev macro-F1" in world.guard("alignment")[1]


def test_permuted_labels_that_know_their_text_are_no_negative_control(world):
    mine = world.arms["arm"] == "permuted"
    voted = world.labels.set_index("text_id")["label"]
    world.arms.loc[mine, "target"] = world.arms.loc[mine, "text_id"].map(voted)
    assert "permuted carries the consensus label of its text in 100.0% of its rows" in world.guard("alignment")[1]


def test_noise_must_be_as_large_as_the_consensus_errors(world):
    mine = world.arms["arm"] == "gold-noised"
    world.arms.loc[mine, "target"] = world.arms.loc[mine, "target"].to_numpy()[::-1]  # a join by row order
    assert re.search(
        r"gold-noised is wrong in 6\d\.\d% of its rows, the consensus in \d+\.\d%", world.guard("alignment")[1]
    )


def test_soft_targets_joined_by_row_order_are_found(world):
    mine = world.arms.index[world.arms["arm"] == "consensus-soft"]
    rolled = world.arms.loc[mine, ["target", "shares"]]
    world.arms.loc[mine, ["target", "shares"]] = pd.concat([rolled.iloc[17:], rolled.iloc[:17]]).to_numpy()
    assert (
        "the soft targets of consensus-soft meet the consensus label of their text id no oftener"
        in world.guard("alignment")[1]
    )


@pytest.mark.parametrize(("arm", "by"), [("single:a", "a"), ("perspectivist", "any annotator")])
def test_a_vote_that_nobody_gave_is_found(world, arm, by):
    said = world.votes.groupby("text_id")["label"].agg(set)
    text = said.index[(said.map(len) < 3) & said.index.isin(world.arms.loc[world.arms["arm"] == arm, "text_id"])][0]
    strange = next(name for name in NAMES if name not in said[text])
    row = world.arms.index[(world.arms["arm"] == arm) & (world.arms["text_id"] == text)][0]
    world.arms.loc[row, "target"] = strange
    assert f"1 training row(s) of {arm} carry a label that {by} never gave to their text" in world.guard("alignment")[1]
    assert world.guard("alignment", votes=None)[0] == "passed"


def test_a_text_whose_gold_made_labels_trains_no_aligned_arm(world):
    used = world.arms.loc[(world.arms["arm"] == "consensus-kept") & (world.arms["part"] == "train"), "text_id"].iloc[0]
    outcome, reason, _ = world.guard("alignment", gold_used=[used, "t0999"])
    assert outcome == "failed"
    for arm in ("gold-aligned", "consensus", "consensus-kept", "permuted", "perspectivist"):
        assert f"{arm} holds 1 text(s) whose gold helped to make labels, for example {used}" in reason
    assert not re.search(r"(^|; )gold holds", reason)
    assert world.guard("alignment", gold_used=[])[0] == "passed"


def test_small_arms_hold_no_more_labels_than_their_name_says(world):
    more = world.arms[(world.arms["arm"] == "gold") & (world.arms["row"] >= 230) & (world.arms["part"] == "train")]
    world.arms = pd.concat([world.arms, more.assign(arm="gold@60")])
    assert "gold@60 holds 70 human labels (train and dev together); its name promises 60" in world.guard("alignment")[1]


def test_corrections_beyond_k_are_found(world):
    mine = world.arms.index[(world.arms["arm"] == "consensus+20") & (world.arms["source"] == "consensus")]
    world.arms.loc[mine[:6], "source"] = "human"
    reason = world.guard("alignment")[1]
    assert "consensus+20 holds 26 corrections by humans beyond those of consensus; its name promises 20" in reason


def test_a_text_in_train_and_dev_of_an_arm_is_found(world):
    dev = world.arms.index[
        (world.arms["arm"] == "consensus") & (world.arms["part"] == "dev") & (world.arms["seed"] == 1)
    ]
    train = (world.arms["arm"] == "consensus") & (world.arms["part"] == "train") & (world.arms["seed"] == 1)
    world.arms.loc[dev[0], ["text_id", "target"]] = world.arms.loc[train, ["text_id", "target"]].iloc[0]
    assert "1 text(s) of consensus stand in its train and its dev part" in world.guard("alignment")[1]


@pytest.mark.parametrize(("student", "outcome"), [("frozen (gold dev)", "passed"), ("frozen (more steps)", "failed")])
def test_gold_dev_labels_are_no_failure_where_they_are_declared(world, student, outcome):
    dev = (world.arms["part"] == "dev") & ~world.arms["arm"].isin(["perspectivist", "consensus-repeated"])
    world.arms.loc[dev, "source"] = "gold"
    world.arms.loc[dev, "target"] = world.arms.loc[dev, "text_id"].map(world.gold)
    world.arms.loc[dev, "shares"] = None
    for name in ("arms", "predictions", "trainings"):
        setattr(world, name, getattr(world, name).assign(student=student))
    assert world.guard("alignment", gold_dev=["frozen (gold dev)"])[0] == outcome


def test_a_variation_without_arms_of_its_own_has_those_of_its_student(world):
    world.arms = world.arms.assign(student="frozen")
    for name in ("predictions", "trainings"):
        setattr(world, name, getattr(world, name).assign(student="frozen (more steps)"))
    assert world.guard("alignment")[0] == "passed"
    world.arms.loc[world.arms["arm"] == "single:a", "source"] = "gold"
    assert world.guard("alignment")[0] == "failed"


def test_only_the_arms_of_reported_contrasts_make_a_recipe_unstable(world):
    for arm in ("permuted", "gold@60", "floor", "consensus-kept"):
        collapsed(world, arm, SEEDS)
    found = world.guard("collapse", contrasts=[("consensus", "permuted"), ("consensus", "gold@60")])
    assert found[0] == "passed"
    assert world.guard("collapse", contrasts=[("consensus", "consensus-kept")])[0] == "failed"


def test_collapse_rates_come_with_wilson_intervals():
    from statsmodels.stats.proportion import proportion_confint

    arm = collapsed(World(), "consensus", [1]).guard("collapse")[2]["arms"]["consensus"]
    assert (arm["low"], arm["high"]) == pytest.approx(proportion_confint(1, 6, method="wilson"))


# folds


def with_folds(world, k=3):
    """The same experiment in k folds: each has its own test texts, and what is test in one fold may train another."""
    ids = world.folds["text_id"].to_numpy()
    tests = np.arange(len(ids)) % k
    parts, arms, predictions = [], [], []
    given = {arm: rows.drop_duplicates("text_id") for arm, rows in world.arms.groupby("arm")}
    for fold in range(k):
        part = np.where(tests == fold, "test", np.where(np.arange(len(ids)) % 7 == 0, "dev", "train"))
        parts.append(pd.DataFrame({"fold": fold, "text_id": ids, "part": part}))
        for arm in given:
            for seed in SEEDS:
                source, target = world._given(arm, seed)
                rows = parts[-1].assign(target=target, source=source, arm=arm, seed=seed)[world._chosen(arm, 1)]
                rows = rows[rows["part"] != "test"]
                arms.append(rows.assign(row=rows.groupby("part").cumcount()))
                rng = np.random.default_rng([fold, seed, *arm.encode()])
                test = ids[tests == fold]
                right = rng.random(len(test)) < world.skills[arm]
                guess = np.where(right, world.gold[test], NAMES[rng.integers(0, 3, len(test))])
                guess = np.full(len(test), "no") if arm == "floor" else guess
                predictions.append(
                    pd.DataFrame({"arm": arm, "fold": fold, "seed": seed, "text_id": test, "predicted": guess})
                )
    world.folds, world.arms = pd.concat(parts, ignore_index=True), pd.concat(arms, ignore_index=True)
    world.predictions = pd.concat(predictions, ignore_index=True).assign(student="frozen")
    runs = world.predictions[["student", "arm", "fold", "seed"]].drop_duplicates()
    world.trainings = runs.assign(attempt="as_run", status="ok")
    return world


FOLDED = {"gold": 0.8, "gold-aligned": 0.8, "consensus": 0.78, "permuted": 0.0, "floor": 0.0}


def test_folds_may_train_on_each_others_test_texts():
    guards = with_folds(World(FOLDED)).guards().set_index("guard")
    assert guards.loc[["leakage", "alignment", "collapse", "failed runs"], "outcome"].eq("passed").all()
    assert json.loads(guards.loc["alignment", "figures"])["n"] == 600


def test_a_text_in_train_and_test_of_one_fold_is_leakage():
    world = with_folds(World(FOLDED))
    rows = world.folds.index[(world.folds["fold"] == 1) & (world.folds["part"] == "train")]
    test = world.folds.loc[(world.folds["fold"] == 1) & (world.folds["part"] == "test"), "text_id"].iloc[4]
    train = world.folds.loc[rows[3], "text_id"]
    world.texts.loc[world.texts["text_id"] == train, "text"] = (
        world.texts.set_index("text_id").loc[test, "text"].upper()
    )
    outcome, reason, figures = world.guard("leakage")
    assert outcome == "failed"
    # the two texts meet in fold 1, and in the fold that tests on the other one
    assert {example["fold"] for example in figures["examples"]} >= {"1"}
    assert "test text(s) also in train" in reason


def test_without_a_table_of_folds_the_predictions_say_what_each_fold_tests():
    world = with_folds(World(FOLDED))
    guards = functools.partial(world.guard, "leakage", folds=None)
    assert guards()[0] == "passed"
    test = world.predictions.loc[world.predictions["fold"] == 1, "text_id"].iloc[0]
    row = world.arms.index[(world.arms["fold"] == 1) & (world.arms["part"] == "train") & (world.arms["arm"] == "gold")][
        0
    ]
    world.arms.loc[row, ["text_id", "target"]] = [test, world.gold[test]]
    assert guards()[1].startswith("1 test text(s) also in what arms were trained on, for example")


def test_one_seed_in_five_folds_is_replication():
    world = with_folds(World(FOLDED), k=6)
    for name in ("arms", "predictions", "trainings"):
        setattr(world, name, getattr(world, name).query("seed == 1"))
    found = world.guards().set_index("guard")
    assert found.loc[["gold beats the floor", "margin", "low power", "alignment"], "outcome"].eq("passed").all()
    assert found.loc["low power", "reason"] == "1 seed(s) in consensus − gold-aligned, in each of 6 folds"
    assert "one seed" not in found.loc["gold beats the floor", "reason"]


def test_a_fold_without_predictions_is_found():
    world = with_folds(World(FOLDED))
    world.predictions = world.predictions[world.predictions["fold"] != 2]
    assert "200 of 600 test texts with gold are not predicted by any run" in world.guard("alignment")[1]


def test_a_seed_that_is_planned_in_one_fold_only_is_found():
    world = with_folds(World(FOLDED))
    lost = (world.arms["arm"] == "consensus") & (world.arms["fold"] == 2) & (world.arms["seed"] == 4)
    world.arms = world.arms[~lost]
    assert "consensus and gold-aligned are planned with different folds or seeds" in world.guard("alignment")[1]


def test_folds_that_share_test_texts_are_each_held_to_their_own():
    world = World(FOLDED)
    test = world.folds["part"] == "test"
    ids = world.folds.loc[test, "text_id"].to_numpy()
    other = world.folds[~test | world.folds["text_id"].isin(ids[100:])].assign(fold=1)
    world.folds = pd.concat([world.folds, other])
    world.arms = pd.concat([world.arms.assign(fold=0), world.arms.assign(fold=1)])
    rng = np.random.default_rng(3)
    again = world.predictions.assign(fold=1)
    again = again[again["text_id"].isin(ids[100:250])]  # fold 1 lacks 50 of its test texts
    flipped = rng.random(len(again)) < 0.1
    again.loc[flipped, "predicted"] = "no"
    world.predictions = pd.concat([world.predictions.assign(fold=0), again])
    runs = world.predictions[["student", "arm", "fold", "seed"]].drop_duplicates()
    world.trainings = runs.assign(attempt="as_run", status="ok")
    assert "50 of 500 test texts with gold are not predicted by any run" in world.guard("alignment")[1]


def test_the_negative_control_of_folds_is_permuted_within_them():
    world = with_folds(World({**FOLDED, "permuted": 1 / 3}))
    # one fold has one class, and its students guess it: all they know is which fold they are in
    mine = (world.predictions["arm"] == "permuted") & (world.predictions["fold"] == 0)
    fold = world.folds.loc[(world.folds["fold"] == 0) & (world.folds["part"] == "test"), "text_id"]
    world.gold[fold] = "maybe"
    world.texts["gold"] = world.texts["text_id"].map(world.gold)
    world.predictions.loc[mine, "predicted"] = "maybe"
    rest = (world.predictions["arm"] == "permuted") & (world.predictions["fold"] != 0)
    rng = np.random.default_rng(1)
    world.predictions.loc[rest, "predicted"] = NAMES[rng.integers(0, 3, int(rest.sum()))]
    assert world.guard("negative control")[0] == "passed"
    assert world.guard("negative control", predictions=world.predictions.assign(fold=0))[0] == "failed"


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_counting_gives_the_metric_of_the_per_item_values(metric):
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(4)
    codes, gold = rng.integers(0, 5, (3, 400)), rng.integers(0, 4, 400)
    each = [
        accuracy_score(gold, run) if metric == "accuracy"
        else f1_score(gold, run, labels=range(4), average="macro", zero_division=0) for run in codes
    ]  # fmt: skip
    assert score_of(codes, gold, metric) == pytest.approx(np.mean(each), abs=1e-12)


# the second analysis


def with_rescue(world, arms=None, replaced=3, by=7):
    """Seed `replaced` collapsed in consensus, and was replaced in all arms."""
    collapsed(world, "consensus", [replaced])
    again = world.trainings[world.trainings["seed"] == replaced].assign(attempt="rescue", status="ok", trained_seed=by)
    again = again[again["arm"].isin(arms or world.skills)]
    world.trainings = pd.concat([world.trainings, again], ignore_index=True)
    rng = np.random.default_rng(0)
    more = world.predictions[world.predictions["seed"] == replaced].assign(attempt="rescue")
    more = more[more["arm"].isin(arms or world.skills)]
    more.loc[rng.random(len(more)) < 0.05, "predicted"] = "no"
    world.predictions = pd.concat([world.predictions.assign(attempt="as_run"), more], ignore_index=True)
    return world


def test_a_rescue_of_all_arms_is_sound_and_hides_no_collapse():
    world = with_rescue(World())
    assert world.guard("rescue")[:2] == (
        "passed", "seed(s) 3 were replaced in every arm; the first analysis is as run",
    )  # fmt: skip
    outcome, _, figures = world.guard("collapse")
    assert (outcome, figures["arms"]["consensus"]["collapsed"], figures["arms"]["consensus"]["runs"]) == (
        "warned",
        1,
        6,
    )
    assert world.guard("alignment")[0] == "passed"


def test_replacements_that_collapsed_too_are_counted():
    world = with_rescue(World())
    again = world.trainings["attempt"] == "rescue"
    world.trainings.loc[again & world.trainings["arm"].isin(["consensus", "gold-aligned", "floor"]), "status"] = (
        "collapsed"
    )
    outcome, reason, figures = world.guard("rescue")
    assert (outcome, figures["collapsed"], figures["runs"]) == ("warned", 2, 6)
    assert reason.startswith("2 of 6 replacement runs collapsed too; seed(s) 3 were replaced in every arm")
    world.trainings = world.trainings[(world.trainings["arm"] != "consensus-kept") | ~again]
    assert world.guard("rescue")[0] == "failed"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ["consensus", "gold"]}, "seed(s) 3 were replaced in other arms, but not in gold-aligned"),
        ({"by": 5}, "consensus was rescued by seed(s) 5, which stand in the list already"),
    ],
)
def test_a_rescue_that_is_not_one_leaves_the_first_analysis_alone(changes, said):
    world = with_rescue(World(), **changes)
    outcome, reason, figures = world.guard("rescue")
    assert (outcome, figures["attempt"]) == ("failed", "rescue")
    assert said in reason
    assert world.primary().query("attempt == 'as_run'")["verdict"].ne("INVALID").all()
    primary = Contrast("consensus", "gold-aligned")
    assert not [flaw for flaw in failures(world.guards(), "frozen", primary) if flaw.guard == "rescue"]
    assert [flaw.guard for flaw in failures(world.guards(), "frozen", primary, "rescue")] == ["rescue"]


def test_a_replaced_run_without_the_run_as_it_was_hides_it():
    world = with_rescue(World())
    lost = (
        (world.trainings["arm"] == "consensus")
        & (world.trainings["seed"] == 3)
        & (world.trainings["attempt"] == "as_run")
    )
    world.trainings = world.trainings[~lost]
    assert "1 replaced run(s) of consensus have no record of the run as it was" in world.guard("rescue")[1]
    counted = world.guard("collapse")[2]["arms"]["consensus"]
    assert (counted["collapsed"], counted["runs"]) == (1, 6)


# texts, classes, declarations


def test_few_test_texts_and_texts_without_gold_are_reported():
    assert World(n_test=80).guard("test texts")[1] == "only 80 test texts with gold: expect a wide interval"
    world = World()
    world.gold = world.gold.drop(["t0400", "t0401"])
    assert world.guard("test texts")[:2] == (
        "warned", "298 test texts with gold; 2 more have no gold and are left out",
    )  # fmt: skip


def test_a_class_without_test_gold_or_training_rows_is_reported():
    world = World()
    four = LabelSchema.from_names([*NAMES, "never"])
    assert "without test gold, so not in macro-F1: never" in world.guard("classes", schema=four)[1]
    lost = (world.arms["arm"] == "consensus") & (world.arms["seed"] == 2) & (world.arms["target"] == "maybe")
    world.arms = world.arms[~lost]
    outcome, reason, figures = world.guard("classes")
    assert outcome == "warned"
    assert figures["without_training_rows"] == {"consensus": {"maybe": 1}}
    assert "without training rows in consensus: maybe (1 runs)" in reason


def test_public_gold_is_noted():
    world = World()
    assert [world.guard("contamination", gold_public=public)[0] for public in (None, True, False)] == [
        "not_checked", "warned", "passed",
    ]  # fmt: skip


def test_a_declaration_that_changed_after_the_first_scoring_is_reported():
    world = World()
    assert world.guard("fixed before scoring", first_hash="a", hash="a")[0] == "passed"
    assert world.guard("fixed before scoring", first_hash="a", hash="b")[:2] == (
        "warned", "changed after seeing test scores",
    )  # fmt: skip


def test_two_students_are_guarded_each_for_itself():
    world = World()
    world.trainings = pd.concat([world.trainings, world.trainings.assign(student="linear")])
    world.predictions = pd.concat([world.predictions, world.predictions.assign(student="linear")])
    rows = (world.trainings["student"] == "linear") & (world.trainings["arm"] == "consensus")
    world.trainings.loc[rows, "status"] = "collapsed"
    guards = world.guards().set_index(["guard", "scope"])["outcome"]
    assert (guards["collapse", "frozen"], guards["collapse", "linear"]) == ("passed", "failed")
    verdicts = world.compare().loc["consensus − gold-aligned"].set_index("student")["verdict"]
    assert verdicts["linear"] == "UNSTABLE RECIPE"
    assert verdicts["frozen"] != "UNSTABLE RECIPE"


def test_the_order_of_the_rows_of_every_table_does_not_matter():
    world = World()
    plain = world.guards()
    for name in ("texts", "folds", "arms", "trainings", "predictions", "labels"):
        setattr(world, name, getattr(world, name).sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(world.guards(), plain)


# the famous wrong experiment


def test_the_famous_wrong_experiment_is_refused_and_every_flaw_is_named():
    """One seed, a gold arm that learned nothing, unequal texts, evaluation texts among the training texts."""
    world = World()
    world.predictions = world.predictions[world.predictions["seed"] == 1]
    world.trainings = world.trainings[world.trainings["seed"] == 1]
    for arm in ("gold", "gold-aligned"):
        world.predictions.loc[world.predictions["arm"] == arm, "predicted"] = "no"
        collapsed(world, arm, [1])
    world.arms = world.arms[world.arms["seed"] == 1]
    victim = (world.arms["arm"] == "consensus") & (world.arms["part"] == "train")
    world.arms = world.arms.drop(world.arms.index[victim][:40])
    world.arms.loc[world.arms.index[world.arms["arm"] == "gold-aligned"][:20], "text_id"] = world.folds["text_id"][
        400:420
    ].to_numpy()
    row = world.primary()
    assert row["difference"] > 0.3  # "consensus beats ground truth"
    assert row["verdict"] == "INVALID"
    for flaw in (
        r"leakage: 20 test text\(s\) also in",
        r"alignment: .*differ in \d+ train row",
        r"gold beats the floor: gold labels bring only 0\.0 pp",
        r"collapse: collapsed runs: gold-aligned 1 of 1",
        r"one seed cannot tell luck from labels",
    ):
        assert re.search(flaw, row["sentence"]), flaw
    assert exit_code(row["verdict"]) == 4
