"""How long the verdict's statistics take: S = 10 seeds × n = 100,000 test texts × 12 arms, each part in a process of its own.

    python benchmarks/verdict/speed.py [--items 100000] [--seeds 10]

`tables` is compare_arms (all contrasts, macro-F1 and accuracy), compare_classes and compare_seeds from one reading of
the predictions; `bootstrap` is the same with 2,000 draws of the crossed bootstrap for every contrast and metric. The
predictions (a frame of 12 million rows, categorical as Parquet gives them) are made before the clock starts; guards are
run before, on their own, and given. CPU seconds are those of the whole process less the making; peak RSS holds both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

ARMS = (
    "floor", "gold", "gold-aligned", "gold-kept", "gold-noised", "consensus", "consensus-kept", "consensus-random",
    "consensus-soft", "consensus-repeated", "perspectivist", "permuted",
)  # fmt: skip


def predictions_of(items: int, seeds: int, classes: int = 5):
    """Return predictions of all arms and seeds, right in 60 to 66 % of the items, and gold."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    names = [f"label{k}" for k in range(classes)]
    ids = pd.Index([f"t{i:07d}" for i in range(items)])
    gold = rng.integers(0, classes, items, dtype=np.int8)
    codes = []
    for place in range(len(ARMS) * seeds):
        right = rng.random(items, dtype=np.float32) < 0.6 + 0.01 * (place % 7)
        codes.append(np.where(right, gold, rng.integers(0, classes, items, dtype=np.int8)))
    runs = len(codes)
    return pd.DataFrame({
        "student": pd.Categorical.from_codes(np.zeros(runs * items, np.int8), ["frozen"]),
        "arm": pd.Categorical.from_codes(np.repeat(np.arange(runs, dtype=np.int8) // seeds, items), list(ARMS)),
        "seed": np.tile(np.repeat(np.arange(1, seeds + 1), items), len(ARMS)),
        "text_id": pd.Categorical.from_codes(np.tile(np.arange(items, dtype=np.int32), runs), ids),
        "predicted": pd.Categorical.from_codes(np.concatenate(codes), names),
    }), pd.Series(np.array(names)[gold], index=ids)  # fmt: skip


def measure(part: str, items: int, seeds: int) -> dict[str, float]:
    """Return rows, CPU seconds of each step and peak memory of one part; run in a process of its own."""
    import pandas as pd

    from consenso.compare import compare_arms, compare_classes, compare_seeds, read_runs
    from consenso.tables import GUARDS

    predictions, gold = predictions_of(items, seeds)
    guards = pd.DataFrame({name: pd.Series([], dtype=object) for name in GUARDS.columns})
    before, started = time.process_time(), time.perf_counter()
    steps = {}

    def done(step: str) -> None:
        steps[f"{step} CPU s"] = round(time.process_time() - before - sum(steps.values()), 2)

    runs = read_runs(predictions, gold)
    done("reading")
    found = compare_arms(runs, guards=guards, bootstrap=2000 if part == "bootstrap" else 0)
    done("contrasts")
    classes = compare_classes(runs)
    done("classes")
    by_seed = compare_seeds(runs)
    done("seeds")
    return {
        "rows": len(found), "class rows": len(classes), "seed rows": len(by_seed),
        "bootstrapped rows": int(found["boot_low"].notna().sum()), **steps,
        "CPU s": round(time.process_time() - before, 2), "wall s": round(time.perf_counter() - started, 2),
        "peak RSS GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }  # fmt: skip


def main() -> None:
    """Measure both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--part", choices=("tables", "bootstrap"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(given.part, given.items, given.seeds)))
        return
    for part in ("tables", "bootstrap"):
        command = [sys.executable, __file__, "--part", part, "--items", str(given.items), "--seeds", str(given.seeds)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(part, said.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
