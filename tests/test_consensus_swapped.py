"""Labels that stand for each other are found; weak, biased or few votes are not taken for it."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from consenso.consensus import check_swapped, find_swap, find_swaps, swap_sentence
from consenso.labels import LabelSchema

TWO = LabelSchema.from_names(["neg", "pos"])
THREE = LabelSchema.from_names(["neg", "neu", "pos"])


def pairs(counts: dict[tuple[str, str], int]) -> tuple[pd.Series, pd.Series]:
    """{(gold, label): how many} → labels, gold"""
    rows = [pair for pair, n in counts.items() for _ in range(n)]
    return pd.Series([label for _, label in rows]), pd.Series([gold for gold, _ in rows])


def test_two_labels_the_wrong_way_round_are_found_with_both_accuracies() -> None:
    swap = find_swap(*pairs({("neg", "pos"): 45, ("neg", "neg"): 5, ("pos", "neg"): 40, ("pos", "pos"): 10}), TWO)
    assert swap is not None
    assert (swap.n, swap.accuracy, swap.renamed) == (100, 0.15, 0.85)
    assert dict(swap.reading) == {"pos": "neg", "neg": "pos"}


def test_two_of_three_labels_swapped_are_found_although_accuracy_is_above_chance() -> None:
    counts = {("neg", "neu"): 30, ("neu", "neg"): 30, ("pos", "pos"): 60}  # accuracy 1/2, chance 3/8
    swap = find_swap(*pairs(counts), THREE)
    assert swap is not None
    assert swap.accuracy == 0.5
    assert swap.renamed == 1
    assert dict(swap.reading) == {"neu": "neg", "neg": "neu"}


@pytest.mark.parametrize(
    "counts",
    [
        {("neg", "neg"): 80, ("pos", "pos"): 80, ("neg", "pos"): 20, ("pos", "neg"): 20},  # good
        {("neg", "neg"): 50, ("pos", "pos"): 50, ("neg", "pos"): 50, ("pos", "neg"): 50},  # chance
        # says pos to nearly everything where 90 % are neg: accuracy 29 %, but above chance for these margins
        {("neg", "neg"): 200, ("neg", "pos"): 700, ("pos", "pos"): 95, ("pos", "neg"): 5},
        {("neg", "pos"): 9, ("pos", "neg"): 9},  # wrong throughout, and too few to tell: p = .5^18 > 1e-6
        {("neg", "pos"): 110, ("neg", "neg"): 90, ("pos", "neg"): 110, ("pos", "pos"): 90},  # weak: kappa −.1
        {},
    ],
)
def test_good_weak_lopsided_or_few_votes_are_not_taken_for_a_swap(counts) -> None:
    assert find_swap(*pairs(counts), TWO) is None


def test_a_very_large_sample_below_chance_is_told_although_the_gain_is_small() -> None:
    counts = {("neg", "pos"): 11_000, ("neg", "neg"): 9_000, ("pos", "neg"): 11_000, ("pos", "pos"): 9_000}
    assert find_swap(*pairs(counts), TWO) is not None


def test_rows_without_label_or_gold_do_not_count() -> None:
    labels, gold = pairs({("neg", "pos"): 30, ("pos", "neg"): 30})
    labels, gold = pd.concat([labels, pd.Series([None, "neg"])]), pd.concat([gold, pd.Series(["neg", None])])
    swap = find_swap(labels.reset_index(drop=True), gold.reset_index(drop=True), TWO)
    assert swap is not None
    assert swap.n == 60


def turned(gold: pd.Series) -> pd.Series:
    return gold.map({"neg": "pos", "pos": "neg"})


def test_annotators_are_told_apart_and_the_guard_only_warns() -> None:
    ids = [f"t{i}" for i in range(100)]
    gold = pd.Series(["neg", "pos"] * 50, index=ids)
    labels = pd.DataFrame({"text_id": ids, "label": gold.to_numpy()})
    votes = pd.concat(
        [labels.assign(annotator="right"), labels.assign(annotator="wrong", label=turned(labels["label"]))],
        ignore_index=True,
    )
    swaps = find_swaps(votes, labels, gold, TWO)
    assert list(swaps) == ["wrong"]
    assert swap_sentence(swaps).startswith(
        "labels may be swapped: wrong agrees with gold on 0.0% of 100 texts, and on 100.0%"
    )
    (row,) = check_swapped(votes, labels, gold, TWO).itertuples()
    assert (row.guard, row.outcome, row.invalidates) == ("labels swapped", "warned", False)
    assert json.loads(row.figures)["wrong"]["reading"] == {"pos": "neg", "neg": "pos"}
    right = votes[votes["annotator"] == "right"]
    assert check_swapped(right, labels, gold, TWO)["outcome"].tolist() == ["passed"]
    assert check_swapped(right, labels, gold.iloc[:0], TWO)["outcome"].tolist() == ["not_checked"]
