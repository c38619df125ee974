"""SST-5 as one training: what the fine-tuning benchmarks share."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd

from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder
from consenso.finetune.training import Prepared, Training
from consenso.labels import LabelSchema

DATA = Path(os.environ.get("CONSENSO_DATA", Path(__file__).parents[3] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results"
SCHEMA = LabelSchema.from_names(["very negative", "negative", "neutral", "positive", "very positive"])
DEV = 500


def processor() -> str:
    """Return the name of the processor and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores"


def items() -> pd.DataFrame:
    """text_id, text, gold (class position), split of the 11,855 sentences."""
    return pd.read_csv(DATA / "sst5" / "items.csv.gz")


def sst5(texts: int, epochs: float, seed: int, recipe: Recipe) -> tuple[Training, Prepared, np.ndarray]:
    """The first `texts` of a fixed draw of the training sentences, 500 of dev, all 2,210 of test; gold of the test texts.

    The seed decides the head, dropout and the order, not the texts.
    """
    found = items()
    rng, gold = np.random.default_rng(0), found["gold"].to_numpy()
    train, dev, test = (np.flatnonzero(found["split"] == part) for part in ("train", "dev", "test"))
    rows, dev = np.sort(rng.permutation(train)[:texts]), np.sort(rng.permutation(dev)[:DEV])
    used = np.concatenate([rows, dev, test])
    prepared = encoder.prepare(found["text"].iloc[used].tolist(), recipe)
    places = np.split(np.arange(len(used)), np.cumsum([len(rows), len(dev)]))
    training = Training(
        key=f"{seed}", seed=seed, rows=places[0], codes=gold[rows], dev_rows=places[1], dev_codes=gold[dev],
        asked=np.concatenate(places[1:]), steps=round(epochs * -(-texts // recipe.batch_size)),
    )  # fmt: skip
    return training, prepared, gold[test]
