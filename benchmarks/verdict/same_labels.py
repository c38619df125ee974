"""A/A: a real student trained twice on the same labels, with disjoint seeds. How often is the difference significant?

`python benchmarks/verdict/same_labels.py [--runs 240] [--pairs 4000] [--to FILE]`: trains `--runs` runs of the `linear`
student on BABE's human labels, each on its own bootstrap resample of the training texts, then draws pairs of disjoint
sets of S runs and compares them on BABE's test texts. Writes a CSV file and prints it as a Markdown table. The target is
at most 7 % significant at .05. Data: CONSENSO_SHARED_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from grid import RESULTS, SEED, words

from consenso.compare.metrics import per_item
from consenso.compare.paired import two_way_stack
from consenso.compare.verdict import BETTER, WORSE
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import linear
from consenso.finetune.training import Training
from consenso.labels import LabelSchema

DATA = Path(os.environ.get("CONSENSO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEV = 300
"""Texts of BABE's pool that choose C; the rest train."""


def train_pool(items: pd.DataFrame, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return test gold (n,) and the test predictions (runs, n) of runs that differ in their resample alone."""
    names, codes = np.unique(items["gold"].astype(str), return_inverse=True)
    schema, recipe = LabelSchema(dict(enumerate(names))), Recipe()
    prepared = linear.prepare(items["text"].tolist(), recipe)
    pool, test = (np.flatnonzero(items["split"] == part) for part in ("pool", "test"))
    dev, train = map(np.sort, np.split(np.random.default_rng(SEED).permutation(pool), [DEV]))
    predicted = []
    for seed in range(runs):
        rows = np.sort(np.random.default_rng([SEED, seed]).choice(train, len(train)))
        training = Training(
            key=str(seed), seed=seed, rows=rows, codes=codes[rows], dev_rows=dev, dev_codes=codes[dev], asked=test, steps=1
        )  # fmt: skip
        outcome = linear.train(training, prepared, recipe, schema)
        if outcome.status != "ok" or outcome.predicted is None:
            raise SystemExit(f"run {seed} is {outcome.status}: {outcome.reason}")
        predicted.append(outcome.predicted)
    return codes[test], np.array(predicted)


def significant(values: np.ndarray, S: int, pairs: int, rng: np.random.Generator) -> dict[str, float]:
    """Draw pairs of disjoint sets of S runs from per-item values (runs, n) and count what the two-way interval says."""
    found = []
    for _ in range(pairs):
        drawn = rng.choice(len(values), 2 * S, replace=False)
        found.append(two_way_stack((values[drawn[:S]] - values[drawn[S:]])[None]))
    stacked = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return {
        "significant": float((stacked["p"] < 0.05).mean()),
        "better_or_worse": float(np.isin(words(stacked), [BETTER, WORSE]).mean()),
        "width": float(100 * (stacked["high"] - stacked["low"]).mean()),
        "sd_seed": float(100 * np.sqrt(max(0.0, (stacked["ms_seed"] - stacked["ms_error"]).mean() / values.shape[1]))),
    }


def main() -> None:
    """Train the pool, draw the pairs, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--to", type=Path, default=RESULTS / "same_labels.csv")
    args = parser.parse_args()
    began = time.perf_counter()
    gold, predicted = train_pool(pd.read_csv(DATA / "babe_llm" / "items.csv.gz", dtype=str), args.runs)
    rows = []
    for metric in ("macro_f1", "accuracy"):
        values = per_item(predicted, gold, metric)
        for S in (3, 5, 10):
            rng = np.random.default_rng([SEED, S])
            rows.append({"metric": metric, "S": S, "n": len(gold), "runs": args.runs, "pairs": args.pairs}
                        | {"mean": float(values.mean())} | significant(values, S, args.pairs, rng))  # fmt: skip
    table = pd.DataFrame(rows).round(4)
    args.to.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.to, index=False)
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * table.shape[1])
    for row in table.itertuples(index=False):
        print("| " + " | ".join(map(str, row)) + " |")
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
