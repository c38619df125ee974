"""The collapse watch: what it is told, when it speaks, and what becomes of the run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.finetune.watch import LOST, CollapseWatch, HeadInput, head_input


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
