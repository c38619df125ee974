"""The collapse rule and the watch on a real encoder: trainings of MiniLM from healthy to destructive learning rates."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.finetune import Recipe, make_arms, run_arms
from making import shared

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "finetune"))

HEALTHY, DESTRUCTIVE = (5e-5, 1e-4, 2e-4), (2e-3, 3e-3, 5e-3)
TRAIN, DEV, TEST = 800, 160, 400


def short_reviews():
    """Reviews of at most 14 words that are positive or negative, split at random."""
    items = pd.read_csv(shared("sst5", "items.csv.gz"))
    items = items[(items["text"].str.split().str.len() <= 14) & (items["gold"] != 2)]
    items = items.sample(TRAIN + DEV + TEST, random_state=0)[["text_id", "text", "gold"]]
    items["gold"] = np.where(items["gold"] < 2, "negative", "positive")
    parts = ["train"] * TRAIN + ["dev"] * DEV + ["test"] * TEST
    return items, pd.DataFrame({"fold": 0, "text_id": items["text_id"], "part": parts})


def trainings(learning_rates, seeds):
    """One row per training: its status, and the Matthews correlation with the truth on texts that the rule never sees."""
    from sklearn.metrics import matthews_corrcoef

    texts, folds = short_reviews()
    labels = texts[["text_id"]].assign(label=texts["gold"])
    gold = texts.set_index("text_id")["gold"]
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=seeds)
    rows = []
    for learning_rate in learning_rates:
        recipe = Recipe(learning_rate=learning_rate, epochs=1.5, precision="bf16", evaluations=2)
        found = run_arms(arms, texts[["text_id", "text"]], folds, student="encoder", recipe=recipe, workers=2)
        status = found.trainings.set_index("seed")["status"]
        tested = found.predictions[found.predictions["part"] == "test"]
        rows += [
            {"learning_rate": learning_rate, "seed": seed, "status": status[seed],
             "mcc": matthews_corrcoef(gold[run["text_id"]], run["predicted"])}
            for seed, run in tested.groupby("seed")
        ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_every_collapsed_training_is_called_so_and_no_healthy_one():
    found = pd.concat([trainings(HEALTHY, 7), trainings(DESTRUCTIVE, 8)], ignore_index=True)
    healthy, collapsed = found[found["mcc"] >= 0.20], found[found["mcc"] < 0.05]
    assert len(healthy) >= 20
    assert len(collapsed) >= 20
    assert (healthy["status"] == "ok").all()
    assert (collapsed["status"] == "collapsed").all()


WATCHED = 60
"""Trainings of `benchmarks/finetune/watch.py`; its results file holds more of them."""


@pytest.fixture(scope="module")
def watched() -> pd.DataFrame:
    """SST-5 and BABE, learning rates from 2e-5 to 1e-3; the watch reads along, so that every run takes all its steps."""
    import watch

    for name, _ in watch.SETS:
        shared(name, "items.csv.gz")
    first = watch.FIRST["minilm"]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        one_run = partial(watch.minilm_run, kind="minilm", folder="embedded")
        found = pd.DataFrame(pool.map(one_run, range(first, first + WATCHED))).reindex(columns=watch.COLUMNS)
    return found.assign(outcome=found["mcc"].map(lambda mcc: watch.kind_of({"mcc": mcc})))


@pytest.mark.slow
def test_the_watch_flags_collapsed_trainings_when_their_first_epoch_ends_and_hardly_a_healthy_one(watched):
    """Not all, and not none: near the rate that breaks the encoder a run may break later, or recover (docs/training.md)."""
    collapsed, healthy = (watched[watched["outcome"] == kind] for kind in ("collapsed", "healthy"))
    assert min(len(collapsed), len(healthy)) >= 20
    assert (collapsed["flagged"] == collapsed["epoch"]).mean() >= 0.6
    assert healthy["flagged"].notna().mean() <= 0.15


@pytest.mark.slow
def test_the_watch_is_sure_away_from_the_rate_that_breaks_the_encoder(watched):
    gentle, harsh = watched[watched["learning_rate"] <= 3e-4], watched[watched["learning_rate"] >= 8.5e-4]
    assert len(gentle) >= 10
    assert gentle[["flagged", "later"]].isna().all(axis=None)
    collapsed = harsh[harsh["outcome"] == "collapsed"]
    assert len(collapsed) >= 10
    assert collapsed["flagged"].notna().all()
