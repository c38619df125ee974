"""Confidence from token probabilities: worked out by hand, and calibrated on gold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from consenso.annotate import calibrate_confidence
from consenso.annotate.confidence import calibration_error, label_probabilities
from consenso.labels import LabelSchema

THREE = LabelSchema.from_names(["negative", "positive", "very positive"])


def tokens(*steps: dict[str, float]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Each step: token → probability, the written one first."""
    return [(next(iter(step)), [(token, math.log(p)) for token, p in step.items()]) for step in steps]


def test_one_token_labels_are_normalised_over_the_labels() -> None:
    found = label_probabilities(
        tokens({"positive": 0.6, "negative": 0.2, "hello": 0.2}), "positive", THREE.names, THREE, "name"
    )
    assert found == pytest.approx({"positive": 0.75, "negative": 0.25, "very positive": 0.0})


def test_all_beginnings_of_a_label_count_for_it() -> None:
    found = label_probabilities(
        tokens({"pos": 0.5, "positive": 0.2, " Positive": 0.1, "neg": 0.2}, {"itive": 1.0}),
        "positive",
        THREE.names,
        THREE,
        "name",
    )
    assert found == pytest.approx({"positive": 0.8, "negative": 0.2, "very positive": 0.0})


def test_a_shared_beginning_is_followed() -> None:
    schema = LabelSchema.from_names(["very bad", "very good", "fine"])
    found = label_probabilities(
        tokens({"very": 0.8, "fine": 0.2}, {" good": 0.75, " bad": 0.25}), "very good", schema.names, schema, "name"
    )
    assert found == pytest.approx({"very good": 0.6, "very bad": 0.2, "fine": 0.2})


def test_ids_of_two_digits() -> None:
    schema = LabelSchema({1: "a", 12: "b", 3: "c"})
    found = label_probabilities(tokens({"1": 0.9, "3": 0.1}, {"2": 0.7, "<end>": 0.3}), "b", schema.names, schema, "id")
    assert found == pytest.approx({"a": 0.0, "b": 0.63, "c": 0.1}, abs=1e-9) or found == pytest.approx(
        {"a": 0.27, "b": 0.63, "c": 0.1}, abs=1e-9
    )
    ended = label_probabilities(tokens({"1": 0.9, "3": 0.1}, {"<end>": 0.3, "2": 0.7}), "a", schema.names, schema, "id")
    assert ended is not None
    assert ended["a"] == pytest.approx(0.27)
    assert ended["b"] == pytest.approx(0.63)


def test_the_label_in_json_is_found_behind_what_was_thought_before() -> None:
    steps = [
        {"{": 1.0},
        {'"why"': 1.0},
        {': "not ': 1.0},
        {"negative": 1.0},
        {'", ': 1.0},
        {'"label"': 1.0},
        {': "': 1.0},
    ]
    found = label_probabilities(
        tokens(*steps, {"positive": 0.7, "negative": 0.3}, {'"}': 1.0}), "positive", THREE.names, THREE, "json"
    )
    assert found == pytest.approx({"positive": 0.7, "negative": 0.3, "very positive": 0.0})


def test_without_the_label_in_the_tokens_there_is_no_confidence() -> None:
    assert label_probabilities(tokens({"hello": 1.0}), "positive", THREE.names, THREE, "name") is None


def test_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.9, 0.9, 0.1, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_an_overconfident_annotator_is_calibrated_on_gold(method: str) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    confidence = rng.uniform(0.8, 1.0, n)
    correct = rng.random(n) < 0.6
    gold = pd.Series(["a"] * n, index=[f"t{i}" for i in range(n)])
    votes = pd.DataFrame(
        {
            "text_id": gold.index,
            "annotator": "llm",
            "repetition": 0,
            "label": np.where(correct, "a", "b"),
            "confidence": confidence,
        }
    )
    (row,) = calibrate_confidence(votes, gold, method=method).to_dict("records")
    assert (row["n"], row["accuracy"]) == (n, pytest.approx(correct.mean()))
    assert row["ece"] > 0.25
    assert row["ece_calibrated"] < 0.05
    assert row["brier_calibrated"] < row["brier"]


def test_too_few_votes_are_not_judged() -> None:
    votes = pd.DataFrame({"text_id": ["t"], "annotator": ["a"], "label": ["x"], "confidence": [0.5]})
    assert calibrate_confidence(votes, pd.Series({"t": "x"})).empty
