"""A million texts, three annotators, one `consenso annotate`: memory, and how soon a resumed run sends.

`python benchmarks/annotate/million.py [--texts 1000000] [--send 200000] [--folder DIR]`. The texts are loaded by `consenso
data`. The vote log is then filled with the answers that an earlier part of the night would have left, under the very keys
that the run looks for, so that `consenso annotate` has `--send` questions left and must look through all the others; the
mock server counts what is really sent. `--finished 1000000 --stop` measures only the time until the first request.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mock_server import MockServer

LABELS = ("negative", "neutral", "positive")
CONSENSO = [sys.executable, "-m", "consenso"]
EXPERIMENT = """\
name = "million"
[data]
source = "texts.parquet"
leakage = "exact"
columns = {{ text_id = "id", text = "text", gold = "gold", split = "split" }}
{annotators}
[annotate.endpoints.lab]
base_url = "{url}/v1"
structured = "off"
max_in_flight = 128
"""
IMPORTS = (
    "import consenso.cli, consenso.experiment, consenso.overview, consenso.progress, consenso.experiment_file, "
    "consenso.preconditions, consenso.annotate.collecting, consenso.annotate.clients.transport, pandas, pyarrow.parquet, "
    "pyarrow.compute, pyarrow.dataset"
)
"""What the job imports: the baseline of memory."""


def write_texts(path: Path, count: int) -> None:
    """Write distinct texts of some ten to thirty words."""
    import pandas as pd

    draw = random.Random(0)
    syllables = ("ka", "lo", "mi", "ner", "pus", "tal", "vor", "zen", "ri", "do", "ma", "xu", "nu", "sel", "ba", "tir")
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    rows = [f"number {n} " + " ".join(draw.choices(words, k=draw.randint(8, 28))) for n in range(count)]
    frame = pd.DataFrame({"id": [f"t{n:07d}" for n in range(count)], "text": rows})
    frame["gold"] = [LABELS[n % 3] for n in range(count)]
    frame["split"] = ["test" if n % 10 == 0 else "train" for n in range(count)]
    frame.to_parquet(path)


def fill(folder: Path, experiment: Path, finished: int) -> int:
    """Write `finished` answers into the vote log, the first texts of every annotator first; return how many are left."""
    from consenso.annotate.asking import make_voters
    from consenso.annotate.lanes import LLMLane
    from consenso.annotate.logreading import Key
    from consenso.annotate.sources import FolderSource
    from consenso.annotate.votelog import Outcome, VoteLog
    from consenso.experiment_file import read_experiment
    from consenso.labels import LabelSchema
    from consenso.store import RunFolder

    settings = read_experiment(experiment, ())[0].annotate
    voters = make_voters(settings, LabelSchema.from_names(list(LABELS)), {})
    source, written = FolderSource(RunFolder(folder)), 0
    with VoteLog(folder / "votelog.sqlite", durable=False) as log:
        lanes = [LLMLane(asker, log, source) for asker in voters.askers]
        for batch in source.batches():
            for lane in lanes:
                ids, digests = lane.filed(batch)
                for text_id, digest in zip(ids, digests):
                    if written == finished:
                        return source.count * len(lanes) - written
                    label = LABELS[digest[0] % 3]
                    log.keep(
                        Outcome(
                            Key(lane.row, text_id, digest, 0), "ok", label, None, label, tokens_in=120, tokens_out=3,
                            latency_s=0.02, cost=0.0, finish="stop",
                        )
                    )  # fmt: skip
                    written += 1
            log.flush()
        return source.count * len(lanes) - written


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """Return the peak resident memory of a running process, MB; 0 once it is gone."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0


def import_peak() -> float:
    """Return the peak memory of a process that only imports what the job imports, MB."""
    code = f"{IMPORTS}; print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) / 1024


def annotate(folder: Path, experiment: Path, server: MockServer, *, stop: bool) -> dict[str, float]:
    """Run `consenso annotate`; return seconds to the first request, seconds, peak MB and requests."""
    began, first, peak = time.perf_counter(), 0.0, 0.0
    with (folder.parent / "stderr.txt").open("wb") as log:
        process = subprocess.Popen(
            [*CONSENSO, "annotate", str(experiment), "--out", str(folder)], stdout=log, stderr=log
        )
        while process.poll() is None:
            time.sleep(0.05 if not first else 1.0)
            peak = max(peak, peak_of(process))
            if not first and server.stats["received"]:
                first = time.perf_counter() - began
                if stop:
                    process.send_signal(signal.SIGINT)
    took = time.perf_counter() - began
    if process.returncode != (130 if stop else 0):
        raise SystemExit((folder.parent / "stderr.txt").read_text(encoding="utf-8")[-2000:])
    return {"first_s": first, "seconds": took, "peak_mb": peak, "sent": float(server.stats["received"])}


def main() -> None:
    """Make the data, fill the log, run the job, print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--annotators", type=int, default=3)
    parser.add_argument("--send", type=int, default=200_000, help="questions left to ask")
    parser.add_argument("--finished", type=int, help="answers in the log, instead of all but --send")
    parser.add_argument("--stop", action="store_true", help="interrupt the run at its first request")
    parser.add_argument(
        "--folder", type=Path, help="where the data are kept from run to run (default: a temporary folder)"
    )
    said = parser.parse_args()
    home = said.folder or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    with MockServer(process=True, latency=0.002, record=False, count_keys=False, labels=LABELS) as server:
        names = ("llama", "qwen", "gemma", "mistral", "phi")[: said.annotators]
        listed = "\n".join(f'[[annotate.annotators]]\nname = "{name}"\nmodel = "lab/{name}"' for name in names)
        experiment, folder = home / "experiment.toml", home / "run"
        experiment.write_text(EXPERIMENT.format(annotators=listed, url=server.url), encoding="utf-8")
        loaded = home / f"loaded-{said.texts}"
        if not loaded.exists():
            shutil.rmtree(folder, ignore_errors=True)
            write_texts(home / "texts.parquet", said.texts)
            subprocess.run(
                [*CONSENSO, "data", str(experiment), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL
            )
            shutil.copytree(folder, loaded)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(loaded, folder)
        total = said.texts * said.annotators
        finished = total - said.send if said.finished is None else said.finished
        began = time.perf_counter()
        left = fill(folder, experiment, finished)
        print(
            f"{finished:,} answers written in {time.perf_counter() - began:.0f} s; {left:,} questions left", flush=True
        )
        server.reset()
        found = annotate(folder, experiment, server, stop=said.stop)
    base = import_peak()
    size = sum(path.stat().st_size for path in folder.glob("votelog.sqlite*")) / 2**20
    print(
        f"{said.texts:,} texts × {said.annotators} annotators: first request after {found['first_s']:.1f} s, "
        f"{found['sent']:,.0f} requests sent of {left:,} left, {found['seconds']:.0f} s in all, peak {found['peak_mb']:.0f} MB, "
        f"{found['peak_mb'] - base:.0f} MB above the imports ({base:.0f} MB); vote log {size:.0f} MB"
    )
    print(json.dumps(found))
    if said.folder is None:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
