"""How often the two-way interval holds the truth, and how often the verdict's word is wrong: validity in 648 cells.

`python benchmarks/verdict/grid.py [--replications 2000] [--workers 1] [--cells S=3,5 n=300 metric=macro_f1] [--to FILE]`
Every cell draws predictions of two arms whose true difference is known (`simulating.py`), makes the interval and the word
with consenso's own code, and counts. A finished cell is a row of the CSV file; a second run does the missing cells only.
`summary.py` makes the tables of docs/verdict-proof.md. Seeds are fixed per cell, so a cell gives the same row alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from simulating import calibrated, moments, predictions, world

from consenso.compare.metrics import per_item
from consenso.compare.paired import two_way_stack
from consenso.compare.verdict import BETTER, EQUIVALENT, INCONCLUSIVE, NON_INFERIOR, WORSE

SEED = 20261127
MARGIN = 0.02
AT_ONCE = 500_000
"""Predictions of one arm that are drawn at once."""
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Cell:
    """One setting of the grid; differences and standard deviations in percentage points."""

    metric: str
    K: int
    S: int
    n: int
    seed_sd: float
    delta: float

    @property
    def rng(self) -> np.random.Generator:
        """The cell's own stream of random numbers."""
        metric = ("accuracy", "macro_f1").index(self.metric)
        key = (SEED, metric, self.K, self.S, self.n, round(10 * self.seed_sd), round(10 * self.delta))
        return np.random.Generator(np.random.SFC64(key))


CELLS = [
    Cell(metric, K, S, n, seed_sd, delta)
    for n, S, metric, K, seed_sd, delta in product(
        (300, 1000, 2210), (3, 5, 10), ("accuracy", "macro_f1"), (2, 5, 21), (0.0, 1.3, 2.2), (0.0, 1.0, 2.0, 3.0)
    )
]


def words(found: dict[str, np.ndarray], margin: float = MARGIN) -> np.ndarray:
    """Return the word of every result of `two_way_stack`, as `consenso.compare.verdict.judge` would."""
    inside = (found["low90"] > -margin) & (found["high90"] < margin)
    conditions = [found["low"] > 0, found["high"] < 0, inside, found["low90"] > -margin]
    return np.select(conditions, [BETTER, WORSE, EQUIVALENT, NON_INFERIOR], INCONCLUSIVE)


def blocks(cell: Cell, replications: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield D (R, S, n) and the disagreement (R,) of the cell's replications, block by block."""
    rng, of = cell.rng, world(cell.K)
    effect = calibrated(cell.K, cell.metric, cell.delta / 100, cell.seed_sd / 100)
    step = max(1, AT_ONCE // (cell.S * cell.n))
    for start in range(0, replications, step):
        gold, predicted = predictions(of, effect, (min(step, replications - start), cell.S, cell.n), rng)
        D = np.empty((len(gold), cell.S, cell.n))
        for place, truth in enumerate(gold):
            values = per_item(predicted[:, place].reshape(2 * cell.S, cell.n), truth, cell.metric)
            np.subtract(values[cell.S :], values[: cell.S], out=D[place])
        right = predicted == gold[:, None, :]
        yield D, (right[0] != right[1]).mean(axis=(1, 2))


def simulate(cell: Cell, replications: int) -> dict[str, np.ndarray]:
    """Return the two-way results of all replications, (replications,) each, and `disagreement`: exactly one arm is right."""
    found = [two_way_stack(D) | {"disagreement": disagreement} for D, disagreement in blocks(cell, replications)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def row(cell: Cell, replications: int) -> dict[str, object]:
    """Return the cell's row: rates are shares of the replications, widths and differences in percentage points."""
    began = time.process_time()
    found = simulate(cell, replications)
    truth, _ = moments(
        world(cell.K), calibrated(cell.K, cell.metric, cell.delta / 100, cell.seed_sd / 100), cell.metric
    )
    said = words(found)
    variance_error, n, S = found["ms_error"].mean(), cell.n, cell.S
    counted = {
        "coverage": (found["low"] <= truth) & (truth <= found["high"]),
        "truth_below": truth < found["low"],
        "truth_above": found["high"] < truth,
        "better": said == BETTER,
        "worse": said == WORSE,
        "equivalent": said == EQUIVALENT,
        "non_inferior": said == NON_INFERIOR,
        "inconclusive": said == INCONCLUSIVE,
        "tost": (found["low90"] > -MARGIN) & (found["high90"] < MARGIN),
        "one_sided": found["high90"] < MARGIN,
    }
    numbers = {
        "difference": 100 * found["difference"].mean(),
        "sd_difference": 100 * found["difference"].std(ddof=1),
        "rms_se": 100 * np.sqrt((found["se"] ** 2).mean()),
        "width": 100 * (found["high"] - found["low"]).mean(),
        "sd_seed": 100 * np.sqrt(max(0.0, (found["ms_seed"].mean() - variance_error) / n)),
        "sd_item": np.sqrt(max(0.0, (found["ms_item"].mean() - variance_error) / S)),
        "sd_error": np.sqrt(variance_error),
        "disagreement": found["disagreement"].mean(),
    }
    return {
        **asdict(cell),
        "replications": replications,
        **{name: round(float(hit.mean()), 5) for name, hit in counted.items()},
        **{name: round(float(number), 5) for name, number in numbers.items()},
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def chosen(filters: Sequence[str]) -> list[Cell]:
    """Return the cells that fit every `name=value,value` filter."""
    cells = CELLS
    for text in filters:
        name, _, values = text.partition("=")
        cells = [
            cell for cell in cells if f"{getattr(cell, name):{'g' if name in NUMBERS else ''}}" in values.split(",")
        ]
    return cells


NUMBERS = {"K", "S", "n", "seed_sd", "delta"}


def finished(path: Path, replications: int) -> set[Cell]:
    """Return the cells that the CSV file already holds with at least this many replications."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {
            Cell(r["metric"], int(r["K"]), int(r["S"]), int(r["n"]), float(r["seed_sd"]), float(r["delta"]))
            for r in csv.DictReader(file)
            if int(r["replications"]) >= replications
        }


def main() -> None:
    """Run the missing cells and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cells", nargs="*", default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("--to", type=Path, default=RESULTS / "grid.csv")
    args = parser.parse_args()
    done = finished(args.to, args.replications)
    cells = [cell for cell in chosen(args.cells) if cell not in done]
    print(f"{len(done)} cells done, {len(cells)} to do", flush=True)
    args.to.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        for future in as_completed([pool.submit(row, cell, args.replications) for cell in cells]):
            made = future.result()
            fresh = not args.to.exists()
            with args.to.open("a", newline="") as file:
                writer = csv.DictWriter(file, made, lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerow(made)


if __name__ == "__main__":
    main()
