"""How fast `consenso predict` labels short texts, beside transformers' pipeline; and its memory from 20,000 rows to a million.

    python benchmarks/finetune/predict.py speed [--texts 2000] [--rounds 3] [--contenders pipeline,predict,…]
    python benchmarks/finetune/predict.py memory [--rows 20000 1000000] [--model tiny|minilm]

Speed: MiniLM-L6 with a head of 5 labels drawn at random, sentences of SST-5, two threads each, one contender after the
other in every round, in one process. `pipeline` is transformers.pipeline("text-classification", model, tokenizer)(texts)
as it comes (batch size 1), `pipeline-32` the same with batch_size=32. `predict` is predict_file from a CSV file to a CSV
file, its loading of the model included; that of the pipeline is not. Labels must agree, probabilities within 1e-4.
Memory: peak RSS (VmHWM, Linux) of a process of its own that predicts so many rows of a CSV file; `tiny` is a BERT of 2
layers of 32.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sst5 import DATA, RESULTS, processor

LABELS = dict(enumerate(["very negative", "negative", "neutral", "positive", "very positive"]))


def sentences(n: int) -> list[str]:
    """Return n distinct texts: those of SST-5, then the same with their words backwards, then with a number."""
    import pandas as pd

    own = pd.read_csv(DATA / "sst5" / "items.csv.gz", dtype=str)["text"].drop_duplicates().tolist()
    texts = list(dict.fromkeys(own + [" ".join(reversed(text.split())) for text in own]))
    turn = 0
    while len(texts) < n:
        texts += [f"{text} {turn}" for text in own]
        turn += 1
    return texts[:n]


def save_model(folder: Path, model: str) -> None:
    """Save MiniLM with a head drawn at random, or a tiny BERT with MiniLM's tokenizer."""
    import torch
    import transformers

    from consenso.encoders import load_tokenizer, resolve_encoder

    torch.manual_seed(0)
    where = resolve_encoder("embedded")
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    if model == "minilm":
        classifier = transformers.AutoModelForSequenceClassification.from_pretrained(where, **names)
        torch.nn.init.normal_(classifier.classifier.weight, std=1.0)  # so that texts get different labels
    else:
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        classifier = transformers.BertForSequenceClassification(transformers.BertConfig(**size, **names))
    classifier.save_pretrained(folder)
    load_tokenizer("embedded").save_pretrained(folder)


def write_texts(path: Path, texts: list[str]) -> Path:
    """Write a CSV file of the texts."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text_id", "text"])
        writer.writerows([f"t{i}", text] for i, text in enumerate(texts))
    return path


def contenders(place: Path, texts: list[str], threads: int) -> dict[str, Callable[[], list[tuple[str, float]]]]:
    """Return name → what gives (label, confidence) of each text."""
    import torch
    import transformers

    from consenso.predict import predict_file

    model, data = str(place / "model"), write_texts(place / "texts.csv", texts)
    pipe = transformers.pipeline(
        "text-classification",
        model=transformers.AutoModelForSequenceClassification.from_pretrained(model),
        tokenizer=transformers.AutoTokenizer.from_pretrained(model),
    )

    def pipeline(**options: int) -> list[tuple[str, float]]:
        torch.set_num_threads(threads)
        return [(found["label"], found["score"]) for found in pipe(texts, **options)]

    def predict(**options: object) -> list[tuple[str, float]]:
        predict_file(data, model, place / "out.csv", threads=threads, force=True, **options)
        with (place / "out.csv").open(encoding="utf-8", newline="") as file:
            return [(row["predicted"], float(row["confidence"])) for row in csv.DictReader(file)]

    return {
        "pipeline": pipeline,
        "pipeline-32": lambda: pipeline(batch_size=32),
        "predict": predict,
        "predict-onnx": lambda: predict(onnx=True),
        "predict-bf16": lambda: predict(precision="bf16"),
    }


def speed(n: int, rounds: int, names: list[str], threads: int) -> list[dict[str, object]]:
    """Return one row per contender and round: wall and CPU seconds, texts per second."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        place, texts = Path(folder), sentences(n)
        save_model(place / "model", "minilm")
        those = contenders(place, texts, threads)
        for turn in range(rounds):
            for name in names:
                wall, cpu = time.perf_counter(), time.process_time()
                found = those[name]()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                first = first or found
                same, apart = agreement(first, found)
                rows.append({
                    "contender": name, "round": turn, "texts": n, "threads": threads, "wall_s": round(wall, 2),
                    "cpu_s": round(cpu, 2), "texts_per_s": round(n / wall, 1), "load": round(os.getloadavg()[0], 1),
                    "same_labels": same, "largest_difference": apart,
                })  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
    return rows


def agreement(first: list[tuple[str, float]], found: list[tuple[str, float]]) -> tuple[float, float]:
    """Return the share of equal labels and the largest difference of a confidence."""
    equal = sum(a[0] == b[0] for a, b in zip(first, found, strict=True))
    return equal / len(first), round(max(abs(a[1] - b[1]) for a, b in zip(first, found)), 7)


def memory(sizes: list[int], model: str, threads: int) -> list[dict[str, object]]:
    """Return one row per size: peak RSS in MB of a process that predicts so many rows, and its seconds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_model(place / "model", model)
        for n in sizes:
            data = write_texts(place / f"{n}.csv", sentences(n))
            script = (
                "import json; from consenso.predict import predict_file\n"
                f"p = predict_file({str(data)!r}, {str(place / 'model')!r}, {str(place / f'{n}.out.csv')!r}, threads={threads})\n"
                "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
                "print(json.dumps([p.rows, p.seconds, int(status['VmHWM'].split()[0]) / 1024]))"  # ru_maxrss starts from the parent's
            )
            out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
            done, seconds, peak = json.loads(out.splitlines()[-1])
            rows.append({
                "model": model, "rows": done, "seconds": round(seconds, 1), "rows_per_s": round(done / seconds),
                "peak_rss_mb": round(peak, 1),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


def summary(rows: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Return the median wall and CPU seconds of each contender, and how many times faster than the default pipeline."""
    names = list(dict.fromkeys(str(row["contender"]) for row in rows))
    medians = {
        name: {
            key: statistics.median(row[key] for row in rows if row["contender"] == name) for key in ("wall_s", "cpu_s")
        }
        for name in names
    }
    if "pipeline" in medians:
        base = medians["pipeline"]
        for name in names:
            medians[name] |= {
                "times_pipeline": round(base["wall_s"] / medians[name]["wall_s"], 2),
                "times_pipeline_cpu": round(base["cpu_s"] / medians[name]["cpu_s"], 2),
            }
    return medians


def main() -> None:
    """Measure and write results/predict_<what>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contenders", default="pipeline,pipeline-32,predict,predict-onnx")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--model", choices=["tiny", "minilm"], default="tiny")
    parser.add_argument("--out", type=Path, help="File of results (default: results/predict_<what>.json).")
    options = parser.parse_args()
    if options.what == "speed":
        rows = speed(options.texts, options.rounds, options.contenders.split(","), options.threads)
        found: dict[str, object] = {"medians": summary(rows), "rounds": rows}
    else:
        found = {"rounds": memory(options.rows, options.model, options.threads)}
    out = options.out or RESULTS / f"predict_{options.what}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"on": processor(), **found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found.get("medians", {}), indent=1))


if __name__ == "__main__":
    main()
