"""From the CSV files of results/ to the tables of docs/verdict-proof.md.

`python benchmarks/verdict/summary.py [--grid FILE] [--into docs/verdict-proof.md]`: prints the tables in Markdown, or puts each
between its markers `<!-- name -->` and `<!-- /name -->` in a document. Works on an unfinished grid: it counts its cells.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results"
NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
ERRORS = 2
"""A cell misses a target if it lies beyond it by more than this many standard errors of the simulation."""
HIGHEST_FALSE = 0.06


def coverage(grid: pd.DataFrame) -> str:
    """Coverage by metric, S, K and n: lowest, median and highest of its cells."""
    return _spread(grid, "coverage", ["metric", "K", "S"], "n")


def false_verdicts(grid: pd.DataFrame) -> str:
    """BETTER or WORSE at Delta 0, EQUIVALENT and a passed one-sided test at Delta = margin, by metric, K and S."""
    columns = {
        "BETTER or WORSE at 0": grid[grid["delta"] == 0].assign(rate=lambda frame: frame["better"] + frame["worse"]),
        "EQUIVALENT at 2 pp": grid[grid["delta"] == 2].assign(rate=lambda frame: frame["equivalent"]),
        "TOST at 2 pp": grid[grid["delta"] == 2].assign(rate=lambda frame: frame["tost"]),
        "not inferior at −2 pp": grid[grid["delta"] == 2].assign(rate=lambda frame: frame["one_sided"]),
    }
    groups = grid.groupby(["metric", "K", "S"]).groups
    rows = [["metric", "K", "S", *(f"{name}: median, highest" for name in columns)]]
    for metric, K, S in groups:
        found = [
            part[(part["metric"] == metric) & (part["K"] == K) & (part["S"] == S)]["rate"] for part in columns.values()
        ]
        rows.append([NAMES[metric], K, S, *(f"{rate.median():.3f}, {rate.max():.3f}" for rate in found)])
    return _markdown(rows)


def power(grid: pd.DataFrame) -> str:
    """What one can see at seed sd 1.3 pp, with the variance components."""
    rows = [
        [
            "metric",
            "K",
            "n",
            "S",
            "95 % width, pp",
            "BETTER at 1, 2, 3 pp",
            "EQUIVALENT at 0",
            "σ seed, pp",
            "σ item",
            "σ error",
        ]
    ]
    chosen = grid[grid["seed_sd"] == 1.3].sort_values(["metric", "K", "n", "S"])
    for (metric, K, n, S), cells in chosen.groupby(["metric", "K", "n", "S"]):
        at = cells.set_index("delta")
        if len(at) < 4:
            continue
        better = ", ".join(f"{at.loc[delta, 'better']:.2f}" for delta in (1, 2, 3))
        parts = [f"{at[name].mean():.2f}" for name in ("sd_seed", "sd_item", "sd_error")]
        rows.append(
            [NAMES[metric], K, n, S, f"{at['width'].mean():.1f}", better, f"{at.loc[0, 'equivalent']:.2f}", *parts]
        )
    return _markdown(rows)


def missed(grid: pd.DataFrame) -> str:
    """Every cell beyond a target by more than the simulation error, with what its interval lacks."""
    rows = [["metric", "K", "S", "n", "seed sd", "Delta", "rate", "target", "found", "true sd, pp", "√mean SE², pp"]]
    for kind, target, found, cell in _misses(grid):
        rows.append([NAMES[cell["metric"]], cell["K"], cell["S"], cell["n"], cell["seed_sd"], f"{cell['delta']:g}", kind, target,
                     f"{found:.3f}", f"{cell['sd_difference']:.2f}", f"{cell['rms_se']:.2f}"])  # fmt: skip
    return _markdown(rows) if len(rows) > 1 else "No cell misses a target."


def count(grid: pd.DataFrame) -> str:
    """How many cells there are, with how many replications, and how many miss a target."""
    said = []
    for metric, part in grid.groupby("metric"):
        replications = " or ".join(f"{value:,}" for value in sorted(part["replications"].unique()))
        said.append(f"{NAMES[metric]}: {len(part)} of 324 cells, {replications} replications each")
    misses = _misses(grid)
    cells = {tuple(cell[["metric", "K", "S", "n", "seed_sd", "delta"]]) for _, _, _, cell in misses}
    return (
        f"{'; '.join(said)}; {grid['cpu_seconds'].sum() / 60:.0f} minutes of one core. Beyond a target by more than "
        f"{ERRORS} standard errors of the simulation: {len(cells)} cells."
    )


def _misses(grid: pd.DataFrame) -> list[tuple[str, str, float, pd.Series]]:
    found = []
    for _, cell in grid.sort_values(["metric", "K", "S", "n", "seed_sd", "delta"]).iterrows():
        low, high = (0.92, 0.98) if cell["S"] == 3 else (0.93, 0.97)
        if not low - _error(low, cell) <= cell["coverage"] <= high + _error(high, cell):
            found.append(("coverage", f"{low} to {high}", cell["coverage"], cell))
        rates = {"BETTER or WORSE": cell["better"] + cell["worse"]} if cell["delta"] == 0 else {}
        if cell["delta"] == 2:
            rates = {"EQUIVALENT": cell["equivalent"], "not inferior": cell["one_sided"]}
        found += [
            (name, f"≤ {HIGHEST_FALSE}", rate, cell)
            for name, rate in rates.items() if rate > HIGHEST_FALSE + _error(HIGHEST_FALSE, cell)
        ]  # fmt: skip
    return found


def _error(rate: float, cell: pd.Series) -> float:
    return ERRORS * float(np.sqrt(rate * (1 - rate) / cell["replications"]))


def _spread(grid: pd.DataFrame, column: str, by: list[str], across: str) -> str:
    values = sorted(grid[across].unique())
    rows = [[*by, *(f"{across} = {value:,}: lowest, median, highest" for value in values)]]
    for key, cells in grid.groupby(by):
        rates = [cells.loc[cells[across] == value, column] for value in values]
        said = [f"{r.min():.3f}, {r.median():.3f}, {r.max():.3f}" if len(r) else "–" for r in rates]
        rows.append([NAMES.get(key[0], key[0]), *key[1:], *said])
    return _markdown(rows)


def _markdown(rows: list[list[object]]) -> str:
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def beside(path: Path) -> dict[str, str]:
    """Return the tables of linearisation.py, naive.py and same_labels.py, as far as they were made."""
    made = {}
    for name in ("linearisation", "naive", "same_labels"):
        if (path / f"{name}.csv").exists():
            table = pd.read_csv(path / f"{name}.csv")
            body = [
                [f"{value:.3g}" if isinstance(value, float) else value for value in row]
                for row in table.to_numpy(object)
            ]
            made[name] = _markdown([[column.replace("_", " ") for column in table.columns], *body])
    return made


TABLES = {"count": count, "coverage": coverage, "false": false_verdicts, "missed": missed, "power": power}


def main() -> None:
    """Print the tables, or write them into a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, default=RESULTS / "grid.csv")
    parser.add_argument("--into", type=Path)
    args = parser.parse_args()
    grid = (
        pd.read_csv(args.grid)
        .sort_values("replications")
        .drop_duplicates(["metric", "K", "S", "n", "seed_sd", "delta"], keep="last")
    )
    made = {name: table(grid) for name, table in TABLES.items()} | beside(args.grid.parent)
    if args.into is None:
        print("\n\n".join(f"{name}\n{table}" for name, table in made.items()))
        return
    text = args.into.read_text(encoding="utf-8")
    for name, table in made.items():
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda m, table=table: f"{m[1]}{table}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )
        print(f"{name}: {'written' if found else 'no markers in ' + str(args.into)}")
    args.into.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
