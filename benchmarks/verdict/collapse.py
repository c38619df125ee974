"""How often the collapse rule is right, on thousands of runs of a tiny encoder.

`python benchmarks/verdict/collapse.py runs.csv [--runs 2400] [--first 10000] [--workers 1]`. Run i, and everything in it, hangs on the
number i alone; runs that the file holds are not repeated. A run draws its number of classes, their skew, the strength of
the words that betray the class, the share of wrong labels, its length and its learning rate (log-uniform, from healthy to
destructive), trains a BERT of one layer of 32 with random weights by consenso's `encoder`, and is judged twice:

- by the rule under test, which sees the dev texts with the labels of the arm's source;
- by its outcome, which the rule never sees: the Matthews correlation (MCC) with the truth on 1,000 other texts.

Two populations, fixed before the first run: *collapsed* is MCC < .05, *healthy* is MCC >= .20. What lies between learned a
little; it belongs to neither, is healthy by the definition, and is listed. Targets: recall >= .99, false alarms <= .01,
with 1,000 runs of each kind or more. Every run takes all its steps; the watch is judged by `benchmarks/finetune/watch.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from consenso import encoders
from consenso.finetune import Recipe
from consenso.finetune.students import encoder
from consenso.finetune.training import Prepared, Training
from consenso.intervals import wilson
from consenso.labels import LabelSchema

COLLAPSED, HEALTHY = 0.05, 0.20
TRAIN, DEV, TEST = 320, 120, 1_000
SPECIAL, CLS, SEP = 5, 2, 3
WORDS_PER_CLASS, FILLERS = 6, 12
COLUMNS = (
    "run", "classes", "skew", "strength", "errors", "steps", "learning_rate", "mcc", "status", "reason",
    "best_step", "seconds",
)  # fmt: skip


def tiny_encoder(folder: Path) -> str:
    """A BERT with random weights whose words are w0, w1, …"""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5 * WORDS_PER_CLASS + FILLERS))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch = encoders.import_torch()
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **size))
    (folder / "config.json").write_text(json.dumps({**model.config.to_dict(), "architectures": ["BertModel"]}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return str(folder)


def draw(run: int) -> dict[str, Any]:
    """What run `run` is made of."""
    rng = np.random.default_rng([run, 1])
    return {
        "classes": int(rng.choice([2, 3, 5])),
        "skew": float(rng.uniform(0, 1.2)),
        "strength": float(rng.uniform(0.5, 1.0)),
        "errors": float(rng.uniform(0, 0.4)),
        "steps": int(rng.choice([40, 200], p=[0.8, 0.2])),
        "learning_rate": float(10 ** rng.uniform(-2.8, -0.8)),
    }


def make_texts(drawn: dict[str, Any], run: int) -> tuple[Prepared, np.ndarray, np.ndarray]:
    """Token ids as `encoder.prepare` gives them, true classes, and labels with errors.

    A class's share is proportional to exp(−skew · position); a text is 2 to 5 pairs of a telling word and a filler.
    """
    rng, n, k = np.random.default_rng([run, 2]), TRAIN + DEV + TEST, drawn["classes"]
    shares = np.exp(-drawn["skew"] * np.arange(k))
    truth = rng.choice(k, n, p=shares / shares.sum())
    source = np.where(rng.random((n, 5)) < drawn["strength"], truth[:, None], rng.integers(0, k, (n, 5)))
    words = SPECIAL + source * WORDS_PER_CLASS + rng.integers(0, WORDS_PER_CLASS, (n, 5))
    fillers = SPECIAL + 5 * WORDS_PER_CLASS + rng.integers(0, FILLERS, (n, 5))
    pairs, lengths = np.stack([words, fillers], axis=2).reshape(n, 10), rng.integers(2, 6, n)
    tokens = np.concatenate([[CLS, *pairs[i, : 2 * lengths[i]], SEP] for i in range(n)])
    labels = np.where(rng.random(n) < drawn["errors"], rng.integers(0, k, n), truth)
    labels[:k] = np.arange(k)  # every class occurs in training
    starts = np.cumsum([0, *(2 * lengths + 2)])
    return {"tokens": tokens.astype("int32"), "starts": starts, "padding": np.array([0, 0])}, truth, labels


def one_run(run: int, folder: str) -> dict[str, Any]:
    """Train run `run` and judge it twice; one row of the file."""
    from sklearn.metrics import matthews_corrcoef

    started, drawn = time.process_time(), draw(run)
    prepared, truth, labels = make_texts(drawn, run)
    recipe = Recipe(encoder=folder, learning_rate=drawn["learning_rate"], watch=False)
    rows, dev = np.arange(TRAIN), np.arange(TRAIN, TRAIN + DEV)
    training = Training(
        key="", seed=run, rows=rows, codes=labels[rows], dev_rows=dev, dev_codes=labels[dev],
        asked=np.arange(TRAIN, len(truth)), steps=drawn["steps"],
    )  # fmt: skip
    schema = LabelSchema.from_names([f"class {i}" for i in range(drawn["classes"])])
    outcome = encoder.train(training, prepared, recipe, schema)
    mcc = matthews_corrcoef(truth[TRAIN + DEV :], outcome.predicted[DEV:])
    return {
        "run": run, **drawn, "mcc": float(mcc), "status": outcome.status, "reason": outcome.reason or "",
        "best_step": outcome.facts["best_step"] or "",
        "seconds": round(time.process_time() - started, 2),
    }  # fmt: skip


def finished_runs(path: Path) -> list[dict[str, str]]:
    """The rows of the file; a last line that a kill cut short is left out (and its run repeated)."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def rate(count: int, total: int) -> str:
    """A count as a share with Wilson's interval."""
    low, high = wilson(count, total)
    return f"{count} of {total}: {count / max(total, 1):.4f} [{low:.4f}, {high:.4f}]"


def print_figures(rows: list[dict[str, str]]) -> None:
    """Print the table, then every wrong call and every run in between."""
    kinds: dict[str, list[dict[str, str]]] = {"collapsed": [], "healthy": [], "between": []}
    for row in rows:
        mcc = float(row["mcc"])
        kinds["collapsed" if mcc < COLLAPSED else "healthy" if mcc >= HEALTHY else "between"].append(row)
    flagged = {kind: [row for row in found if row["status"] == "collapsed"] for kind, found in kinds.items()}
    print("| | share, Wilson 95 % |\n|---|---|")
    print(f"| recall of the rule (target >= .99) | {rate(len(flagged['collapsed']), len(kinds['collapsed']))} |")
    print(f"| false alarms of the rule (target <= .01) | {rate(len(flagged['healthy']), len(kinds['healthy']))} |")
    print(f"| in between, called collapsed | {rate(len(flagged['between']), len(kinds['between']))} |")
    wrong = [row for row in kinds["collapsed"] if row["status"] != "collapsed"] + flagged["healthy"]
    for name, listed in (("wrong", wrong), ("between", kinds["between"])):
        for row in listed:
            print(f"{name}: " + ", ".join(f"{column} {row[column]}" for column in COLUMNS if row[column]))
    print(f"{len(rows)} runs, {sum(float(row['seconds']) for row in rows):.0f} CPU seconds")


def main() -> None:
    """Train the runs that the file lacks and print the figures of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--runs", type=int, default=2_400)
    parser.add_argument(
        "--first", type=int, default=10_000, help="number of the first run; runs below 10,000 shaped the rule"
    )
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rows = finished_runs(options.csv)
    todo = sorted(set(range(options.first, options.first + options.runs)) - {int(row["run"]) for row in rows})
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(options.workers) as pool:
        folder = tiny_encoder(Path(place))
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
            for row in pool.map(one_run, todo, [folder] * len(todo)):
                writer.writerow(row)
                file.flush()
    print_figures(finished_runs(options.csv))


if __name__ == "__main__":
    main()
