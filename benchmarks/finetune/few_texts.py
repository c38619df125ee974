"""Eight to 32 texts per class: `frozen`, `encoder` and `contrastive` beside SetFit, accuracy and CPU seconds.

`python benchmarks/finetune/few_texts.py [--per-class 8 16 32] [--seeds 3] [--epochs 20]`. SST-5 sentences without the neutral ones,
two classes, MiniLM, 400 test sentences, dev of half as many texts as train. `contrastive` and `encoder` take the same steps; SetFit
(Tunstall et al. 2022) takes as many pairs as `contrastive`, in its own Trainer, and needs `pip install setfit` (left out where it is
not installed). One thread. CPU seconds are those of training and prediction, without loading.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
import warnings
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
from sst5 import RESULTS, items

from consenso import encoders
from consenso.finetune import STUDENTS
from consenso.finetune.pool import one_thread
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Training
from consenso.labels import LabelSchema

SCHEMA = LabelSchema.from_names(["negative", "positive"])
TEST = 400


def draw(per_class: int, seed: int) -> tuple[list[str], np.ndarray, list[np.ndarray]]:
    """Texts, class positions, and where train, dev and test stand among them."""
    found = items()
    found = found[found["gold"] != 2].reset_index(drop=True)
    codes = (found["gold"] > 2).astype(int).to_numpy()
    order = np.random.default_rng(0).permutation(len(found))
    test, pool, rng = order[:TEST], order[TEST:], np.random.default_rng(seed)
    of_class = [rng.permutation(pool[codes[pool] == k]) for k in (0, 1)]
    train = np.concatenate([own[:per_class] for own in of_class])
    dev = np.concatenate([own[per_class : per_class + max(4, per_class // 2)] for own in of_class])
    rows = np.concatenate([train, dev, test])
    places = np.split(np.arange(len(rows)), np.cumsum([len(train), len(dev)]))
    return found["text"].iloc[rows].tolist(), codes[rows], places


def by_student(name: str, per_class: int, seed: int, epochs: float) -> dict[str, Any]:
    """One training of a student of consenso."""
    texts, codes, (train, dev, test) = draw(per_class, seed)
    recipe = Recipe(epochs=epochs)
    steps = 0 if name == "frozen" else round(epochs * -(-len(train) // recipe.batch_size))
    training = Training(
        key="", seed=seed, rows=train, codes=codes[train], dev_rows=dev, dev_codes=codes[dev],
        asked=np.concatenate([dev, test]), steps=steps,
    )  # fmt: skip
    started = time.process_time()
    prepared = STUDENTS[name].prepare(texts, recipe)
    outcome = STUDENTS[name].train(training, prepared, recipe, SCHEMA)
    right = outcome.predicted[len(dev) :] == codes[test]
    return {"accuracy": right.mean(), "cpu_seconds": time.process_time() - started, "status": outcome.status}


def by_setfit(per_class: int, seed: int, epochs: float) -> dict[str, Any]:
    """SetFit's own Trainer with as many pairs, batches of 16, learning rate and head as it sets them."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    texts, codes, (train, _, test) = draw(per_class, seed)
    steps = round(epochs * -(-len(train) // 16))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = SentenceTransformer(encoders.resolve_encoder("embedded"), device="cpu")
        model = SetFitModel(body, model_head=LogisticRegression())
        arguments = TrainingArguments(
            folder, batch_size=16, max_steps=steps, num_epochs=100, seed=seed, save_strategy="no", report_to="none"
        )
        rows = Dataset.from_dict({"text": [texts[i] for i in train], "label": codes[train].tolist()})
        trainer = Trainer(model, arguments, train_dataset=rows)
        started = time.process_time()
        trainer.train()
        predicted = np.asarray(model.predict([texts[i] for i in test]))
        spent = time.process_time() - started
    return {"accuracy": (predicted == codes[test]).mean(), "cpu_seconds": spent, "status": "ok"}


def main() -> None:
    """Run all, print the table and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=20)
    asked = parser.parse_args()
    contenders = ["frozen", "encoder", "contrastive", *(["setfit"] if importlib.util.find_spec("setfit") else [])]
    rows = []
    for per_class in asked.per_class:
        for seed in range(1, asked.seeds + 1):
            for name in contenders:
                with one_thread():
                    found = (
                        by_setfit(per_class, seed, asked.epochs)
                        if name == "setfit"
                        else by_student(name, per_class, seed, 1 if name == "frozen" else asked.epochs)
                    )
                rows.append({"per_class": per_class, "seed": seed, "student": name, **found})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.round(4).to_csv(RESULTS / "few_texts.csv", index=False)
    print(table.groupby(["per_class", "student"])[["accuracy", "cpu_seconds"]].agg(["mean", "min", "max"]).round(3))


if __name__ == "__main__":
    main()
