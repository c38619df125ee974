"""The collapse definition clause by clause, and what the encoder does with soft targets and patience."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from consenso.finetune import STUDENTS, make_arms
from consenso.finetune.collapse import FEW_DEV, entropy, find_collapse
from consenso.finetune.pool import one_thread
from consenso.finetune.rescue import is_exempt
from consenso.finetune.students import encoder
from consenso.finetune.study import make_study
from consenso.finetune.training import Outcome, Training
from test_finetune_students import SCHEMA, recipe_for, save_tiny, tables

# the definition

N = 400
CODES = np.random.default_rng(3).integers(0, 3, N)


def logits_for(codes: np.ndarray, strength: float, noise: float, classes: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return strength * np.eye(classes)[codes] + noise * rng.normal(size=(len(codes), classes))


def test_the_entropy_is_that_of_scipy() -> None:
    from scipy.stats import entropy as scipys

    shares = np.array([0.5, 0.3, 0.2, 0.0])
    assert entropy(shares) == pytest.approx(scipys(shares))
    assert entropy(np.array([1.0, 0.0])) == 0


@pytest.mark.parametrize(("others", "collapsed"), [(0, True), (19, True), (20, False)])
def test_a_share_of_exactly_95_percent_is_healthy(others: int, collapsed: bool) -> None:
    codes = np.r_[np.ones(others, int), np.zeros(N - others, int)]
    logits = logits_for(codes, 4.0, 0.3)
    assert (find_collapse(logits, codes, CODES) is not None) is collapsed


@pytest.mark.parametrize("level", [0.0, 5.0])
@pytest.mark.parametrize(("noise", "collapsed"), [(0.04, True), (0.08, False)])
def test_the_spread_is_that_of_the_logits_whatever_the_level_of_a_row(
    noise: float, collapsed: bool, level: float
) -> None:
    logits = logits_for(CODES, 0.03, noise) + level * np.random.default_rng(1).normal(size=(N, 1))
    by_chance = np.random.default_rng(2).permutation(logits.argmax(axis=1))
    centred = logits - logits.mean(axis=1, keepdims=True)
    assert bool(centred.std(axis=0).mean() < 0.05) is collapsed
    assert ("hardly differ" in str(find_collapse(logits, by_chance, CODES))) is collapsed
    assert find_collapse(logits, logits.argmax(axis=1), CODES) is None, "small logits in the right order have learned"


def test_a_class_that_the_arm_lacks_does_not_thin_the_spread_of_the_others() -> None:
    codes = CODES % 2
    logits = np.c_[logits_for(codes, 0.05, 0.09, classes=2), np.full(N, -20.0)]
    assert find_collapse(logits, logits.argmax(axis=1), codes) is None
    logits[:, 2] = -np.inf
    assert find_collapse(logits, logits.argmax(axis=1), codes) is None
    by_chance = np.random.default_rng(2).permutation(codes)
    assert "hardly differ" not in str(find_collapse(logits, by_chance, codes))
    logits[:, :2] *= 0.3
    assert "hardly differ" in str(find_collapse(logits, by_chance, codes))


def test_only_both_chance_and_a_loss_at_the_entropy_are_a_collapse() -> None:
    by_chance = logits_for(np.random.default_rng(8).permutation(CODES), 0.2, 0.4, seed=9)
    assert "by chance" in str(find_collapse(by_chance, CODES, CODES))
    agreeing = logits_for(CODES, 0.5, 0.4, seed=9)
    assert find_collapse(20 * agreeing, CODES, CODES) is None, "overconfident, so a high loss, yet it agrees"
    lopsided = np.r_[np.zeros(360, int), np.ones(40, int)]
    rng = np.random.default_rng(2)
    chance = np.c_[np.full(N, 1.2), rng.normal(0, 0.8, N)]
    assert find_collapse(chance, lopsided, CODES % 2) is None, (
        "by chance, but the loss is well under the entropy of 1:1"
    )
    assert "by chance" in str(find_collapse(chance, lopsided, lopsided)), "that of 9:1 it does not reach"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_logit_that_is_not_finite_is_a_collapse(value: float) -> None:
    logits = logits_for(CODES, 2.0, 1.0)
    logits[3, 0] = value
    assert find_collapse(logits, CODES, CODES) == "a logit is not finite"
    assert find_collapse(np.full((N, 3), -np.inf), CODES, CODES) == "a logit is not finite"


def test_soft_targets_compare_with_the_entropy_of_the_mean_target() -> None:
    """Hard labels 9:1, soft ones .55:.45 on average: the same losses lie above the one entropy and below the other."""
    rng = np.random.default_rng(4)
    train = np.r_[np.zeros(360, int), np.ones(40, int)]
    targets = np.tile([0.56, 0.44], (N, 1))
    targets[360:] = [0.45, 0.55]
    logits = np.c_[np.full(N, 0.9), rng.normal(0, 0.8, N)]
    assert "by chance" in str(find_collapse(logits, train, train))
    assert find_collapse(logits, train, train, targets=targets) is None
    near_even = np.c_[np.full(N, 0.3), rng.normal(0, 0.4, N)]
    assert find_collapse(near_even, train, train, targets=targets) is None, "hard dev labels, loss .60"
    found = find_collapse(near_even, train, train, targets=targets, dev_targets=targets)
    assert "by chance" in str(found), "soft dev labels, loss .70 of an entropy of .69"


@pytest.mark.parametrize(("n_dev", "collapsed"), [(8, False), (FEW_DEV - 1, False), (FEW_DEV, True)])
def test_few_dev_texts_of_one_predicted_class_are_no_collapse_where_training_texts_tell_more(
    n_dev: int, collapsed: bool
) -> None:
    dev, on_train = CODES[:n_dev], logits_for(CODES, 2.0, 0.3)
    of_one_class = logits_for(np.zeros(n_dev, int), 4.0, 0.3)
    assert "one class" in str(find_collapse(of_one_class, dev, CODES))
    assert (find_collapse(of_one_class, dev, CODES, on_train=on_train) is not None) is collapsed
    broken = logits_for(np.zeros(N, int), 4.0, 0.3)
    assert "one class" in str(find_collapse(of_one_class, dev, CODES, on_train=broken))


def test_few_dev_texts_with_soft_targets_are_judged_with_those_of_training() -> None:
    targets = 0.9 * np.eye(3)[CODES] + 0.1 / 3
    on_train, dev = logits_for(CODES, 2.0, 0.3), logits_for(CODES[:8], 0.01, 0.001, seed=5)
    how = {"targets": targets, "dev_targets": targets[:8]}
    wrong = (CODES[:8] + 1) % 3
    assert "by chance" in str(find_collapse(dev, wrong, CODES, **how))
    assert find_collapse(dev, wrong, CODES, **how, on_train=on_train) is None


def test_exempt_arms() -> None:
    exempt = ["floor", "floor-prior", "permuted", "gold@250"]
    count = ["gold", "gold-aligned", "consensus", "consensus+200", "perspectivist", "single:a"]
    assert [arm for arm in exempt + count if is_exempt(arm)] == exempt


# the encoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny-bert"))


def trained(tiny: str, change: dict[str, Any] | None = None, **recipe: Any) -> tuple[Training, Outcome]:
    """Train the encoder once on the gold of 150 texts; `change` replaces fields of the training."""
    return train_once(tiny, **recipe) if change is None else train(tiny, change, **recipe)


def train(tiny: str, change: dict[str, Any], *, seed: int = 1, **recipe: Any) -> tuple[Training, Outcome]:
    texts, folds, labels = tables(250)
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=[seed], schema=SCHEMA)
    chosen = recipe_for(tiny, **recipe)
    study = make_study(arms, texts, folds, student="encoder", recipe=chosen, schema=SCHEMA)
    training = dataclasses.replace(study.runs[0].training, **change)
    with one_thread():
        return training, encoder.train(training, encoder.prepare(study.texts, chosen), chosen, SCHEMA)


@functools.cache
def train_once(tiny: str, **recipe: Any) -> tuple[Training, Outcome]:
    return train(tiny, {}, **recipe)


def test_one_hot_soft_targets_train_as_the_labels_do(tiny: str) -> None:
    training, hard = trained(tiny)
    one_hot = {"targets": np.eye(3)[training.codes], "dev_targets": np.eye(3)[training.dev_codes]}
    _, soft = trained(tiny, change=one_hot)
    assert np.abs(hard.probabilities - soft.probabilities).max() < 1e-6
    assert soft.facts == pytest.approx(hard.facts, abs=1e-6)
    assert soft.status == hard.status


def test_soft_targets_are_what_is_learned(tiny: str) -> None:
    # the last state, not the best: 11 of 12 seeds learn all three classes so, this one by far
    recipe: dict[str, Any] = {"seed": 10, "epochs": 20, "learning_rate": 2e-3, "warmup": 0.3, "evaluations": 1}
    training, hard = trained(tiny, **recipe)
    blurred = 0.6 * np.eye(3)[training.codes] + 0.4 / 3
    _, soft = trained(tiny, change={"targets": blurred}, **recipe)
    assert hard.status == soft.status == "ok"
    sure, unsure = (outcome.probabilities.max(axis=1) for outcome in (hard, soft))
    assert sure.mean() > 0.8
    assert unsure.mean() < sure.mean() - 0.1
    assert unsure.max() < 0.6 + 0.4 / 3 + 0.07, "no text gets more than its target, but for the noise"
    assert (soft.predicted == hard.predicted).mean() > 0.85


def test_targets_that_say_nothing_are_a_collapse(tiny: str) -> None:
    training, _ = trained(tiny)
    _, found = trained(tiny, epochs=8, change={"targets": np.full((len(training.rows), 3), 1 / 3)})
    assert found.status == "collapsed"
    assert found.probabilities == pytest.approx(np.full((100, 3), 1 / 3), abs=0.1)


def test_the_best_state_is_chosen_on_the_hard_dev_labels(tiny: str) -> None:
    training, plain = trained(tiny, evaluations=6)
    wrong = np.eye(3)[(training.dev_codes + 1) % 3]
    _, found = trained(tiny, evaluations=6, change={"dev_targets": wrong})
    assert found.facts["best_step"] == plain.facts["best_step"]
    assert [p["dev_macro_f1"] for p in found.curve] == [p["dev_macro_f1"] for p in plain.curve]


def test_patience_ends_a_run_after_evaluations_without_a_better_score(tiny: str) -> None:
    recipe = {"epochs": 12, "evaluations": 12}
    training, whole = trained(tiny, **recipe)
    _, patient = trained(tiny, change={"patience": 2}, **recipe)
    scores, best, in_vain, last = [p["dev_macro_f1"] for p in whole.curve], -1.0, 0, len(whole.curve)
    for i, score in enumerate(scores, start=1):
        in_vain, best = (0, score) if score > best else (in_vain + 1, best)
        if in_vain == 2:
            last = i
            break
    assert last < len(scores)
    assert patient.curve == whole.curve[:last]
    assert patient.facts["steps"] == whole.curve[last - 1]["step"] < training.steps
    assert patient.facts["stopped_at"] is None
    assert patient.status == "ok"


@pytest.mark.parametrize("student", ["frozen", "linear", "encoder"])
def test_a_student_with_four_dev_texts_is_judged_by_what_it_learned(student: str, tiny: str) -> None:
    """Wrong dev labels, that none can predict: alone they would say that nothing was learned."""
    texts, folds, labels = tables(250)
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=[10], schema=SCHEMA)
    recipe = recipe_for(tiny, epochs=20, learning_rate=2e-3, warmup=0.3, evaluations=1, c_grid=(1.0,))
    study = make_study(arms, texts, folds, student=student, recipe=recipe, schema=SCHEMA)
    training = study.runs[0].training
    few = dataclasses.replace(training, dev_rows=training.dev_rows[:4], dev_codes=(training.dev_codes[:4] + 1) % 3)
    prepared = STUDENTS[student].prepare(study.texts, recipe)
    with one_thread():
        outcome = STUDENTS[student].train(few, prepared, recipe, SCHEMA)
    assert outcome.facts["dev_accuracy"] <= 0.5
    assert (outcome.status, outcome.reason) == ("ok", None)
