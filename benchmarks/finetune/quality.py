"""Do batches of similar length cost quality? Paired seeds against random order, MiniLM on SST-5, at equal steps.

`python benchmarks/finetune/quality.py [--texts 2500] [--seeds 10] [--epochs 2] [--kinds sorted bf16 random]`.
Kinds: a batching of the Recipe, or bf16 (sorted, under bf16 autocast); each is held against the last one.
Every run is kept in the folder (--folder), so that a killed benchmark goes on. Prints accuracy and macro-F1 on the 2,210 test
sentences, per batching, and the paired difference with consenso's own two-way interval (seeds and texts). The target:
95 % interval inside ±3 pp. One thread per run; the result does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score
from sst5 import DEV, RESULTS, SCHEMA, sst5

from consenso import compare_arms
from consenso.finetune.pool import one_thread
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder


def one_run(kind: str, texts: int, epochs: float, seed: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Test gold and predictions (class positions) of one training; read where it is done already."""
    path = folder / f"{kind}-{texts}-{epochs:g}-{seed}.npz"
    if not path.exists():
        how = {"precision": "bf16"} if kind == "bf16" else {"batching": kind}
        recipe = Recipe(learning_rate=5e-5, evaluations=2, **how)
        training, prepared, gold = sst5(texts, epochs, seed, recipe)
        outcome = encoder.train(training, prepared, recipe, SCHEMA)
        if outcome.status != "ok":
            raise SystemExit(f"{path.stem}: {outcome.status} ({outcome.reason})")
        np.savez(path, gold=gold, predicted=outcome.predicted[DEV:])
        print(f"{path.stem}: accuracy {np.mean(outcome.predicted[DEV:] == gold):.3f}", flush=True)
    found = np.load(path)
    return found["gold"], found["predicted"]


def main() -> None:
    """Run what is missing and print the table and the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=2500)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["sorted", "bf16", "random"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/consenso-quality"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    frames, names = [], np.array(SCHEMA.names)
    scores: dict[str, list[tuple[float, float]]] = {kind: [] for kind in asked.kinds}
    for seed in range(1, asked.seeds + 1):
        for kind in asked.kinds:
            with one_thread():
                gold, predicted = one_run(kind, asked.texts, asked.epochs, seed, asked.folder)
            ids = [f"test{i}" for i in range(len(gold))]
            frames.append(pd.DataFrame({"arm": kind, "seed": seed, "text_id": ids, "predicted": names[predicted]}))
        for kind in asked.kinds:
            gold, predicted = one_run(kind, asked.texts, asked.epochs, seed, asked.folder)
            scores[kind].append((np.mean(gold == predicted), f1_score(gold, predicted, average="macro")))
    for kind, rows in scores.items():
        accuracy, macro = np.mean(rows, axis=0)
        print(f"{kind}: mean accuracy {accuracy:.3f}, macro-F1 {macro:.3f} over {len(rows)} seeds")
    if len(asked.kinds) < 2:
        return
    predictions, truth = pd.concat(frames, ignore_index=True), pd.Series(names[gold], index=ids)
    contrasts = [(kind, asked.kinds[-1]) for kind in asked.kinds[:-1]]
    compared = compare_arms(
        predictions.assign(part="test"), truth, contrasts=contrasts, schema=SCHEMA, metric="accuracy", margin=0.03
    )
    figures = ["metric", "contrast", "score_arm", "score_control", "difference", "low", "high", "verdict"]
    print(compared[[name for name in figures if name in compared]].to_string(index=False))
    compared.to_csv(RESULTS / f"quality-{asked.texts}.csv", index=False)


if __name__ == "__main__":
    main()
