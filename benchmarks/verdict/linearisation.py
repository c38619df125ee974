"""Two linearisations of macro-F1 where classes are rare: the influence function against the jackknife.

`python benchmarks/verdict/linearisation.py [--replications 2000] [--classes 21] [--n 300 1000] [--to FILE]`. Both give values per
item whose mean is macro-F1. The influence function takes items away in infinitely small parts, the jackknife one whole
item at a time (Efron 1982, closed form below). Prints a Markdown table: coverage of the 95 % two-way interval, and the root
mean squared SE over the true standard deviation of the difference; the same predictions for both.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from grid import AT_ONCE, RESULTS, Cell
from simulating import calibrated, predictions, world

from consenso.compare.paired import two_way_stack


def values_per_item(predicted: np.ndarray, gold: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Return macro-F1 plus each item's influence, (S, n), by both linearisations.

    A class with c items predicted or gold (both: counted twice) and score F loses 2(1 − F)/c with an item that is both and
    gains F/c with one that is either; the jackknife has c − 2 and c − 1 there.
    """
    n, present = len(gold), np.bincount(gold, minlength=classes) > 0
    one_hot = predicted[:, :, None] == np.arange(classes)
    both = (one_hot & (predicted == gold)[:, :, None]).sum(axis=1)
    count = one_hot.sum(axis=1) + np.bincount(gold, minlength=classes)
    f1 = np.where(present, 2 * both / np.maximum(count, 1), 0.0)
    row, hit = np.arange(len(predicted))[:, None], predicted == gold
    found = {}
    for name, scale, right, wrong in (("influence function", n, 0, 0), ("jackknife", n - 1, 2, 1)):
        gain = np.where(present & (count > right), scale * 2 * (1 - f1) / np.maximum(count - right, 1), 0.0)
        loss = np.where(present & (count > wrong), scale * f1 / np.maximum(count - wrong, 1), 0.0)
        moved = np.where(hit, gain[row, predicted], -loss[row, predicted] - loss[:, gold]) / present.sum()
        found[name] = f1.sum(axis=1, keepdims=True) / present.sum() + moved - moved.mean(axis=1, keepdims=True)
    return found


def compare(cell: Cell, replications: int) -> dict[str, float]:
    """Return coverage and SE ratio of both linearisations on the cell's predictions."""
    rng, of = cell.rng, world(cell.K)
    effect = calibrated(cell.K, cell.metric, cell.delta / 100, cell.seed_sd / 100)
    D: dict[str, list[np.ndarray]] = {}
    step = max(1, AT_ONCE // (cell.S * cell.n))
    for start in range(0, replications, step):
        gold, predicted = predictions(of, effect, (min(step, replications - start), cell.S, cell.n), rng)
        for place, truth in enumerate(gold):
            both_arms = values_per_item(predicted[:, place].reshape(2 * cell.S, cell.n), truth, cell.K)
            for name, values in both_arms.items():
                found = two_way_stack((values[cell.S :] - values[: cell.S])[None])
                D.setdefault(name, []).append(
                    np.concatenate([found[key] for key in ("difference", "se", "low", "high")])
                )
    made = {}
    for name, rows in D.items():
        difference, se, low, high = np.array(rows).T
        made[f"coverage, {name}"] = float(((low <= cell.delta / 100) & (cell.delta / 100 <= high)).mean())
        made[f"SE / sd, {name}"] = float(np.sqrt((se**2).mean()) / difference.std(ddof=1))
    return made


def main() -> None:
    """Write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--classes", type=int, nargs="+", default=[21])
    parser.add_argument("--n", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--to", type=Path, default=RESULTS / "linearisation.csv")
    args = parser.parse_args()
    rows = []
    for K, n, S, (seed_sd, delta) in product(args.classes, args.n, (3, 5, 10), ((0.0, 0.0), (1.3, 2.0))):
        cell = Cell("macro_f1", K, S, n, seed_sd, delta)
        rows.append({"K": K, "n": n, "S": S, "seed sd": seed_sd, "Delta": delta} | compare(cell, args.replications))
    table = pd.DataFrame(rows).round(4)
    args.to.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.to, index=False)
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * table.shape[1])
    for row in table.itertuples(index=False):
        print("| " + " | ".join(f"{value:g}" for value in row) + " |")


if __name__ == "__main__":
    main()
