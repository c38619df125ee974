"""Who goes wrong: how often six ways to test a difference find one where there is none (Delta = 0).

`python benchmarks/verdict/naive.py [--replications 2000] [--bootstraps 500] [--to FILE]`: accuracy, K = 5, n = 2,210, seed sd
1.3 pp (the setting of section 7 of the specification), S = 3, 5, 10. Writes a CSV file and prints it as a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from grid import RESULTS, Cell, blocks
from scipy import stats

from consenso.compare import crossed_bootstrap
from consenso.compare.paired import two_way_stack


def mcnemar(D: np.ndarray) -> np.ndarray:
    """McNemar's exact test on the first seed alone."""
    better, worse = (D[:, 0] > 0).sum(axis=1), (D[:, 0] < 0).sum(axis=1)
    return np.minimum(1, 2 * stats.binom.cdf(np.minimum(better, worse), better + worse, 0.5))


def pooled(D: np.ndarray) -> np.ndarray:
    """Every seed of every item counted as an item of its own."""
    return stats.ttest_1samp(D.reshape(len(D), -1), 0, axis=1).pvalue


def items_only(D: np.ndarray) -> np.ndarray:
    """The items' standard error on means over seeds."""
    return stats.ttest_1samp(D.mean(axis=1), 0, axis=1).pvalue


def seeds_only(D: np.ndarray) -> np.ndarray:
    """The paired t test over seeds."""
    return stats.ttest_1samp(D.mean(axis=2), 0, axis=1).pvalue


def two_way(D: np.ndarray) -> np.ndarray:
    """What consenso reports."""
    return two_way_stack(D)["p"]


TESTS = {
    "McNemar, one seed": mcnemar,
    "pooled seed × item": pooled,
    "item error of means over seeds": items_only,
    "paired t over seeds": seeds_only,
    "two-way": two_way,
}


def false_positives(cell: Cell, replications: int, bootstraps: int) -> dict[str, float]:
    """Return for each test the share of replications that it calls a difference at .05."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in TESTS}
    left_out: list[bool] = []
    for D, _ in blocks(cell, replications):
        for name, test in TESTS.items():
            found[name].append(test(D) < 0.05)
        for one in D[: bootstraps - len(left_out)]:
            low, high = crossed_bootstrap(one, seed=len(left_out))
            left_out.append(low > 0 or high < 0)
    return {name: float(np.concatenate(hits).mean()) for name, hits in found.items()} | {
        "crossed bootstrap": float(np.mean(left_out))
    }


def main() -> None:
    """Write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--bootstraps", type=int, default=500)
    parser.add_argument("--to", type=Path, default=RESULTS / "naive.csv")
    args = parser.parse_args()
    cells = [Cell("accuracy", 5, S, 2210, 1.3, 0.0) for S in (3, 5, 10)]
    table = pd.DataFrame({f"S = {c.S}": false_positives(c, args.replications, args.bootstraps) for c in cells})
    table.rename_axis("test").to_csv(args.to)
    print("| test | " + " | ".join(table.columns) + " |\n|---|" + "---|" * table.shape[1])
    for name, row in table.iterrows():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


if __name__ == "__main__":
    main()
