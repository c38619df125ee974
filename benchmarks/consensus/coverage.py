"""How often the 95 % intervals of agreement and accuracy hold the truth.

`python benchmarks/consensus/coverage.py [--replications 2000] [--intervals jackknife bootstrap] [--n 100 300 1000]`. Panels
are drawn from a known model, their intervals made as a user gets them, and counted against the measures of a very large
panel of the same model. Prints a Markdown table of coverage, then CPU seconds. With 2,000 replications a coverage of .95
has a standard error of .005.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from consenso.consensus.agreement import agreement_of
from consenso.consensus.votematrix import CodedVotes
from consenso.intervals import wilson

TRUTH = 2_000_000
"""Texts of the panel whose measures are taken as true; their standard errors are under .0006."""


@dataclass(frozen=True)
class Model:
    """Each annotator gives the text's true label with chance `skill`, else one drawn by the labels' shares."""

    name: str
    shares: tuple[float, ...]
    annotators: int
    skill: float
    missing: float = 0.0


MODELS = (
    Model("2 labels, 3 annotators", (0.5, 0.5), 3, 0.7),
    Model("2 labels 80:20, 5 annotators, 20 % missing", (0.8, 0.2), 5, 0.85, 0.2),
    Model("5 labels, 3 annotators, 20 % missing", (0.4, 0.3, 0.15, 0.1, 0.05), 3, 0.8, 0.2),
    Model("5 labels, 5 annotators", (0.4, 0.3, 0.15, 0.1, 0.05), 5, 0.6),
    Model("5 labels, 5 annotators, 60 % missing", (0.4, 0.3, 0.15, 0.1, 0.05), 5, 0.6, 0.6),
    Model("5 labels, 3 annotators, chance only", (0.2,) * 5, 3, 0.0),
    Model("2 labels 90:10, 3 annotators, rare errors", (0.9, 0.1), 3, 0.97),
)
MEASURES = (
    "raw",
    "cohen",
    "fleiss",
    "alpha",
    "ac1",
    "brennan_prediger",
    "alpha_ordinal",
    "alpha_interval",
    "effective_votes",
)
COLUMNS = (*MEASURES, "specific", "accuracy")


def draw(model: Model, n: int, rng: np.random.Generator) -> tuple[CodedVotes, int]:
    """Return a panel, and how many of the first annotator's labels are right (as if it had missed none)."""
    K, A = len(model.shares), model.annotators
    truth = rng.choice(K, n, p=model.shares)
    label = np.where(rng.random((n, A)) < model.skill, truth[:, None], rng.choice(K, (n, A), p=model.shares))
    text, annotator = np.nonzero(rng.random((n, A)) >= model.missing)
    names = tuple("abcdefgh"[:A]), tuple(f"label {k}" for k in range(K))
    coded = CodedVotes(pd.RangeIndex(n), *names, text, annotator, label[text, annotator], np.ones(len(text)))
    return coded, int((label[:, 0] == truth).sum())


def rows(coded: CodedVotes, **options: object) -> pd.DataFrame:
    """Return the rows over all annotators and that of the last label, by measure."""
    table = agreement_of(coded, scale="interval", **options)
    last = (table["measure"] == "specific") & (table["scope"] == coded.labels[-1])
    return table[(table["scope"] == "all") | last].set_index("measure")


def covered(
    model: Model, n: int, intervals: str, *, replications: int, truth: dict[str, float], seed: int
) -> dict[str, int]:
    """Count the replications whose interval holds the truth; a null interval does not."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(COLUMNS, 0)
    for _ in range(replications):
        coded, right = draw(model, n, rng)
        found = rows(coded, intervals=intervals, seed=int(rng.integers(2**31)))
        for name in COLUMNS[:-1]:
            hits[name] += bool(found.at[name, "low"] <= truth[name] <= found.at[name, "high"])
        low, high = wilson(right, n)
        hits["accuracy"] += low <= truth["accuracy"] <= high
    return hits


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--intervals", nargs="+", default=["jackknife"], choices=["jackknife", "bootstrap"])
    parser.add_argument("--n", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--models", type=int, nargs="+", default=list(range(len(MODELS))))
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    print("| panel | n | intervals | " + " | ".join(COLUMNS) + " |")
    print("|---" * (3 + len(COLUMNS)) + "|")
    each = -(-chosen.replications // chosen.processes)
    with ProcessPoolExecutor(chosen.processes) as pool:
        for model in (MODELS[k] for k in chosen.models):
            coded, right = draw(model, TRUTH, np.random.default_rng(1))
            truth = {**rows(coded, bootstrap=0)["value"].to_dict(), "accuracy": right / TRUTH}
            print(f"| {model.name} | true value | | " + " | ".join(f"{truth[name]:.3f}" for name in COLUMNS) + " |")
            for n in chosen.n:
                for intervals in chosen.intervals:
                    work = [
                        pool.submit(covered, model, n, intervals, replications=each, truth=truth, seed=1000 * n + part)
                        for part in range(chosen.processes)
                    ]
                    parts = [part.result() for part in work]
                    share = [sum(part[name] for part in parts) / (each * chosen.processes) for name in COLUMNS]
                    cells = " | ".join(f"{value:.3f}" for value in share)
                    print(f"| {model.name} | {n} | {intervals} | {cells} |", flush=True)
        print(f"\nCPU {time.process_time():.0f} s besides the processes'")


if __name__ == "__main__":
    main()
