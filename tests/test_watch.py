"""The collapse watch: what it is told, when it speaks, and what becomes of the run."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.finetune import make_arms
from consenso.finetune.fitting import Fitting
from consenso.finetune.pool import one_thread
from consenso.finetune.students import encoder
from consenso.finetune.study import make_study
from consenso.finetune.training import Outcome, Training
from consenso.finetune.watch import LOST, CollapseWatch, HeadInput, head_input
from test_finetune_students import SCHEMA, recipe_for, run_study, save_tiny, tables


def given(vectors: np.ndarray, parts: int = 1) -> HeadInput:
    seen = HeadInput()
    for part in np.array_split(vectors, parts):
        seen.add(part)
    return seen


def test_the_difference_is_the_variance_between_texts_as_a_share_of_the_mean_square() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 2.0]])
    assert given(vectors).difference() == pytest.approx(1 / 3)  # variance 0 + 1, mean square (1 + 5) / 2
    rng = np.random.default_rng(0)
    vectors = rng.normal(3, 1, (50, 8)).astype("float32")
    assert given(vectors, parts=7).difference() == pytest.approx(vectors.var(0).sum() / (vectors**2).sum(1).mean())


def test_the_difference_knows_no_unit() -> None:
    vectors = np.random.default_rng(1).normal(1, 0.2, (30, 4))
    assert given(1000 * vectors).difference() == pytest.approx(given(vectors).difference())


@pytest.mark.parametrize("size", [1e-6, 1e-4])
def test_small_differences_are_not_lost_in_rounding(size: float) -> None:
    rng = np.random.default_rng(2)
    vectors = 0.99 + size * rng.choice([-1.0, 1.0], (2000, 16))
    assert given(vectors.astype("float64"), parts=40).difference() == pytest.approx((size / 0.99) ** 2, rel=0.01)


def test_several_vectors_of_a_text_count_as_their_mean() -> None:
    tokens = np.random.default_rng(3).normal(size=(10, 5, 4))
    assert given(tokens).difference() == pytest.approx(given(tokens.mean(axis=1)).difference())


def test_without_texts_or_with_broken_numbers_the_difference_is_unknown() -> None:
    assert math.isnan(HeadInput().difference())
    assert math.isnan(given(np.full((3, 2), np.nan)).difference())
    assert math.isnan(given(np.zeros((3, 2))).difference())
    assert math.isnan(given(np.full((3, 2), np.inf)).difference())


def test_texts_that_are_all_the_same_do_not_differ() -> None:
    assert given(np.full((9, 3), 0.7)).difference() == pytest.approx(0, abs=1e-15)


# what the head is given


class Classifier:
    """A torch model with one linear layer before its head, and the head after dropout."""

    def __new__(cls, labels: int = 3) -> Any:
        torch = encoders.import_torch()
        model = torch.nn.Sequential(torch.nn.Linear(4, labels), torch.nn.Dropout(0.5), torch.nn.Linear(labels, labels))
        model.config = type("Config", (), {"num_labels": labels})
        return model


def test_the_last_linear_layer_is_read_and_left_as_it_was() -> None:
    torch, model = encoders.import_torch(), Classifier()
    texts = torch.randn(20, 4)
    model.eval()
    with head_input(model) as seen:
        model(texts[:8])
        model(texts[8:])
    model(texts)
    assert seen.texts == 20
    hidden = model[0](texts).detach().numpy()
    assert seen.difference() == pytest.approx(hidden.var(0).sum() / (hidden**2).sum(1).mean(), rel=1e-5)


def test_a_model_without_such_a_layer_tells_nothing_and_is_never_ended() -> None:
    torch = encoders.import_torch()
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    model.config = type("Config", (), {"num_labels": 3})
    with head_input(model) as seen:
        model(torch.randn(5, 4))
    assert seen.texts == 0
    assert CollapseWatch(seen.difference()).see(seen.difference()) is None


# when it speaks


@pytest.mark.parametrize("start", [0.9, 0.004])
def test_a_run_is_doomed_when_its_texts_have_lost_their_difference(start: float) -> None:
    watch = CollapseWatch(start)
    assert watch.see(start) is None
    assert watch.see(1.01 * LOST * start) is None
    assert "nearly the same representation" in str(watch.see(0.99 * LOST * start))


def test_what_is_unknown_ends_no_run() -> None:
    assert CollapseWatch(0.4).see(math.nan) is None
    assert CollapseWatch(math.nan).see(0.4) is None


def test_an_encoder_that_told_no_texts_apart_has_nothing_to_lose() -> None:
    assert CollapseWatch(0.0).see(0.0) is None


# the encoder


@pytest.fixture(scope="module")
def awake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny encoder with weights large enough that texts differ from the start, as they do for a trained one."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("awake")
    save_tiny(folder)
    weights = load_file(folder / "model.safetensors")
    large = {name: 5 * weight if weight.ndim > 1 else weight for name, weight in weights.items()}
    save_file(large, folder / "model.safetensors")
    return str(folder)


@functools.cache
def trained(folder: str, **recipe: Any) -> tuple[Training, Outcome]:
    """Train once on the gold of 150 texts: 10 steps an epoch, 80 steps."""
    texts, folds, labels = tables(250)
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=[1], schema=SCHEMA)
    chosen = recipe_for(folder, **{"epochs": 8, "evaluations": 4, **recipe})
    study = make_study(arms, texts, folds, student="encoder", recipe=chosen, schema=SCHEMA)
    training = study.runs[0].training
    with one_thread():
        return training, encoder.train(training, encoder.prepare(study.texts, chosen), chosen, SCHEMA)


def without_numbers(outcome: Outcome) -> dict[str, Any]:
    return {**dataclasses.asdict(outcome), "probabilities": None, "predicted": None}


def test_a_rate_that_is_too_high_is_flagged_when_the_first_epoch_ends_and_stopped_at_the_next_look(awake: str) -> None:
    training, found = trained(awake, learning_rate=0.2, warmup=0.0)
    assert (len(training.rows), training.steps) == (150, 80)
    assert found.facts["flagged_at"] == 10
    assert found.facts["stopped_at"] == found.facts["steps"] == found.curve[-1]["step"] == 20
    assert found.status == "collapsed"
    said = "the watch flagged it at step 10 and ended it at step 20: the encoder gives every text nearly the same"
    assert found.reason.startswith(said)
    assert found.probabilities.shape == (len(training.asked), 3)
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    _, whole = trained(awake, learning_rate=0.2, warmup=0.0, watch=False)
    assert whole.status == "collapsed", "the definition says so too"
    assert whole.facts["steps"] == 80


def test_a_run_that_breaks_late_is_stopped(awake: str) -> None:
    """Whatever the processor: six seeds of this rate break between the first epoch and step 40."""
    _, found = trained(awake, learning_rate=0.2, warmup=0.5)
    assert found.status == "collapsed"
    assert 10 <= found.facts["flagged_at"] < found.facts["stopped_at"] == found.facts["steps"] < 80


def test_a_run_that_breaks_after_its_first_epoch_is_stopped_at_an_evaluation(
    awake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([None, "lost", "lost"])
    monkeypatch.setattr(CollapseWatch, "see", lambda _, now: next(looks))
    monkeypatch.setattr(Fitting, "_has_learned", lambda _: False)
    _, found = trained.__wrapped__(awake)
    assert (found.facts["flagged_at"], found.facts["stopped_at"], found.facts["steps"]) == (20, 40, 40)
    assert found.status == "collapsed"


def test_a_run_that_recovers_is_flagged_and_goes_on(awake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, free = trained(awake, watch=False)
    looks = iter(["lost", None, "lost", None])
    monkeypatch.setattr(CollapseWatch, "see", lambda _, now: next(looks))
    monkeypatch.setattr(Fitting, "_has_learned", lambda _: False)
    _, found = trained.__wrapped__(awake)
    assert (found.facts["flagged_at"], found.facts["stopped_at"]) == (10, None)
    assert np.array_equal(found.probabilities, free.probabilities)


@pytest.mark.parametrize(("learning_rate", "learns"), [(3e-3, True), (1e-6, False)])
def test_the_watch_never_ends_a_run_that_goes_well_or_slowly_nor_changes_it(
    awake: str, learning_rate: float, learns: bool
) -> None:
    (_, free), (_, seen) = (trained(awake, learning_rate=learning_rate, watch=watch) for watch in (False, True))
    assert (free.status == "ok") is learns
    assert seen.facts["stopped_at"] is None
    assert np.array_equal(free.probabilities, seen.probabilities)
    assert without_numbers(free) == without_numbers(seen)


def test_a_run_of_one_epoch_is_left_to_the_definition(awake: str) -> None:
    _, found = trained(awake, learning_rate=0.2, warmup=0.0, epochs=1)
    assert found.facts["stopped_at"] is None
    assert found.status == "collapsed"


def test_a_run_that_broke_after_it_had_learned_goes_on(awake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best state is the one that predicts: while it is healthy, so is the run."""
    _, free = trained(awake, watch=False)
    looks: list[float] = []
    monkeypatch.setattr(CollapseWatch, "see", lambda _, now: looks.append(now) or ("doom" if len(looks) == 3 else None))
    _, late = trained.__wrapped__(awake)
    assert late.facts["stopped_at"] is None
    assert len(looks) == 3, "the watch is off from then on; it would have looked a fourth time at step 60"
    assert np.array_equal(late.probabilities, free.probabilities)


def test_a_stopped_run_is_a_row_with_its_step(awake: str) -> None:
    recipe = recipe_for(awake, learning_rate=0.2, warmup=0.0, epochs=8)
    found, _ = run_study("encoder", awake, seeds=1, arms=["gold"], recipe=recipe, tables=tables(250))
    row = found.trainings.iloc[0]
    assert row["status"] == "collapsed"
    assert (row["flagged_at"], row["stopped_at"], row["steps"]) == (10, 27, 27)
    assert len(found.predictions) == 100
    kept, _ = run_study("encoder", awake, seeds=1, arms=["gold"], recipe=recipe.model_copy(update={"watch": False}))
    assert kept.trainings["stopped_at"].isna().all()
    assert kept.trainings["key"].tolist() != found.trainings["key"].tolist()
