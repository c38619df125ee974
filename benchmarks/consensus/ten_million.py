"""Ten million votes, from Parquet to labels and agreement, in one process: wall and CPU time and memory per step.

`python benchmarks/consensus/ten_million.py [--texts 2000000] [--kinds file parts shuffled] [--bootstrap 1000]`. The votes of
five annotators with five labels, 2 % of them unparsable, are made beforehand: in one file in the order of its key, as a
run folder has it; in 1,000 such parts; in 1,000 parts in random order. Each is worked through by a process of its own, which
imports everything before it starts to count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS = ("negative", "neutral", "positive", "mixed", "other")
A = 5
GOALS = {"wall": 10.0, "megabytes": 2000}


def write_votes(folder: Path, texts: int, kinds: list[str], parts: int = 1000) -> None:
    """Write the votes once per kind, as the folder or file that has its name."""
    import numpy as np
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    label = rng.integers(0, len(LABELS), (texts, A), dtype=np.int8)
    truth = rng.integers(0, len(LABELS), texts, dtype=np.int8)
    label = np.where(rng.random((texts, A)) < [0.9, 0.8, 0.75, 0.7, 0.6], truth[:, None], label).ravel()
    label[rng.random(texts * A) < 0.02] = -1
    for kind in kinds:
        order = rng.permutation(texts * A) if kind == "shuffled" else np.arange(texts * A)
        table = votes_table(order, label[order])
        if kind == "file":
            pq.write_table(table, folder / kind, compression="zstd", row_group_size=16_384)
            continue
        (folder / kind).mkdir()
        size = -(-len(order) // parts)
        for at in range(0, len(order), size):
            part = table.slice(at, size)
            pq.write_table(part, folder / kind / f"part-{at // size:04d}.parquet", compression="zstd")


def votes_table(order: Any, label: Any) -> Any:
    """Return the votes of the rows `order` (text · A + annotator) as an Arrow table."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, annotators = np.divmod(order, A)
    number = pc.utf8_lpad(pa.array(texts).cast(pa.string()), 7, padding="0")
    invalid = label < 0
    return pa.table(
        {
            "text_id": pc.binary_join_element_wise("text", number, "-"),
            "annotator": pa.array([f"annotator {a}" for a in range(A)]).take(pa.array(annotators)),
            "repetition": pa.array(np.zeros(len(order), dtype=np.int64)),
            "label": pa.array(LABELS).take(pa.array(label, mask=invalid)),
            "status": pa.array(["ok", "unparsable"]).take(pa.array(invalid.astype(np.int8))),
        }
    )


def work(path: str, method: str, bootstrap: int) -> list[dict[str, Any]]:
    """Return what each step took; runs in a process of its own."""
    import pyarrow.compute
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401
    import scipy.sparse  # noqa: F401

    from consenso.consensus.agreement import agreement_of
    from consenso.consensus.decision import decide
    from consenso.consensus.votematrix import code_votes

    steps: list[dict[str, Any]] = [{"step": "imports", "wall": 0.0, "cpu": 0.0, "megabytes": peak()}]
    coded = timed(steps, "votes from Parquet, as codes", lambda: code_votes(path))
    labels = timed(steps, f"labels ({method})", lambda: decide(coded, method))
    agreement = timed(steps, f"agreement ({bootstrap} draws)", lambda: agreement_of(coded, bootstrap=bootstrap))
    alpha = agreement.loc[agreement["measure"].eq("alpha") & agreement["scope"].eq("all"), "value"].item()
    steps[0]["result"] = f"{len(labels):,} labels, {len(coded.text):,} valid votes, alpha {alpha:.4f}"
    return steps


def timed(steps: list[dict[str, Any]], name: str, deed: Callable[[], Any]) -> Any:
    """Do it and note what it took."""
    import time

    wall, cpu = time.perf_counter(), time.process_time()
    result = deed()
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    steps.append({"step": name, **took, "megabytes": peak()})
    return result


def peak() -> float:
    """Return the largest memory that the process has held, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(kind: str, steps: list[dict[str, Any]]) -> None:
    """Print the steps of one process as rows of a Markdown table."""
    for step in steps:
        print(f"| {kind} | {step['step']} | {step['wall']:.2f} | {step['cpu']:.2f} | {step['megabytes']:.0f} |")
    wall, cpu = (sum(step[name] for step in steps) for name in ("wall", "cpu"))
    most = max(step["megabytes"] for step in steps)
    met = wall < GOALS["wall"] and most < GOALS["megabytes"]
    print(f"| {kind} | **all**, goal {'met' if met else 'missed'} | {wall:.2f} | {cpu:.2f} | {most:.0f} |", flush=True)


def main() -> None:
    """Make the votes and measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2_000_000)
    parser.add_argument(
        "--kinds", nargs="+", default=["file", "parts", "shuffled"], choices=["file", "parts", "shuffled"]
    )
    parser.add_argument("--method", default="majority")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        write_votes(Path(asked.write), asked.texts, asked.kinds)
        return
    if asked.work:
        print(json.dumps(work(asked.work, asked.method, asked.bootstrap)))
        return
    with tempfile.TemporaryDirectory() as folder:
        # the peak of a process counts in those that it starts, so this one stays small
        myself = [sys.executable, __file__, "--method", asked.method, "--bootstrap", str(asked.bootstrap)]
        subprocess.run([*myself, "--write", folder, "--texts", str(asked.texts), "--kinds", *asked.kinds], check=True)
        print("| votes | step | wall s | CPU s | peak MB |\n|---|---|---|---|---|")
        results = {}
        for kind in asked.kinds:
            done = subprocess.run(
                [*myself, "--work", str(Path(folder, kind))], check=True, stdout=subprocess.PIPE, text=True
            )
            steps = json.loads(done.stdout.splitlines()[-1])
            results[kind] = steps[0]["result"]
            report(kind, steps)
    for kind, result in results.items():
        print(f"\n{kind}: {result}")


if __name__ == "__main__":
    main()
