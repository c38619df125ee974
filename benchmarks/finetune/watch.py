"""Does the collapse watch flag every collapsed training by the end of its first epoch, and no healthy one?

`python benchmarks/finetune/watch.py ENCODER runs.csv [--runs 1000] [--first N] [--workers 1]`. Run i, and everything in it, hangs
on the number i alone; runs that the file holds are not repeated. ENCODER is one of

- `tiny`: a BERT of one layer of 32 that has learned to know a text again when its words are shuffled (contrastive, as MiniLM
  was trained), fine-tuned on the small sets of `benchmarks/verdict/collapse.py`, with and without warm-up;
- `scratch`: the same with random weights, which tells no texts apart when it begins, so that it has nothing to lose;
- `minilm`: the embedded MiniLM on short texts of SST-5 (even numbers) and BABE (odd ones), learning rates 2e-5 to 1e-3.

The watch reads along and ends nothing, so that the outcome is known: *collapsed* is a Matthews correlation (MCC) with the truth
below .05 on texts that nothing in training sees, *healthy* is .20 or more, what lies between belongs to neither and is
listed. A run counts as flagged at its first lost look, as ended at the second in a row, had it not gone on. Runs numbered below
the default `--first` shaped the watch; those from there on judge it.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.append(str(Path(__file__).parents[1] / "verdict"))

import numpy as np
from collapse import (
    CLS,
    COLLAPSED,
    DEV,
    FILLERS,
    HEALTHY,
    SEP,
    SPECIAL,
    TRAIN,
    WORDS_PER_CLASS,
    draw,
    finished_runs,
    make_texts,
    rate,
    tiny_encoder,
)

from consenso import encoders
from consenso.finetune import Recipe
from consenso.finetune.fitting import Fitting
from consenso.finetune.students import encoder
from consenso.finetune.training import Prepared, Training
from consenso.labels import LabelSchema

FIRST = {"tiny": 200_240, "scratch": 200_240, "minilm": 2_012}
"""Numbers of the first runs that judge."""
DATA = Path(os.environ.get("CONSENSO_DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = (("sst5", 10), ("babe_llm", 16))
"""Data sets of MiniLM, and the most words that a text may have."""
SHORT_TRAIN, SHORT_DEV, SHORT_TEST = 200, 60, 120
COLUMNS = (
    "run", "encoder", "data", "classes", "learning_rate", "warmup", "epoch", "steps", "start", "difference", "flagged", "later",
    "ended", "mcc", "status", "reason", "best_step", "seconds",
)  # fmt: skip


class ReadingAlong(Fitting):
    """A training that notes what the watch says and goes on."""

    notes: dict[str, Any]
    """start and difference: how much texts differ before training and after an epoch; flagged or later: step of the first
    lost look; ended: the step at which a second one in a row would have ended the run."""

    def _watched(self, rows: np.ndarray, grid: set[int]) -> None:
        notes, is_first = ReadingAlong.notes, self.seen - len(rows) < len(self.training.rows)
        if self.watch is not None:
            notes["start"] = self.watch.start
        ended = super()._watched(rows, grid)
        if is_first and self.seen >= len(self.training.rows):
            notes["difference"] = self.difference
        if self.flagged_at and not {"flagged", "later"} & notes.keys():
            notes["flagged" if is_first else "later"] = self.flagged_at
        if ended:
            notes.setdefault("ended", self.steps)


def trained_encoder(folder: Path, seed: int, steps: int = 400, batch: int = 64) -> str:
    """The tiny BERT after `steps` steps of telling each text of a batch from the others by its words in another order."""
    from safetensors.torch import save_file
    from transformers import BertModel

    torch = encoders.import_torch()
    model = BertModel.from_pretrained(tiny_encoder(folder)).train()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.ndim > 1):
            weight.mul_(5)  # BERT's initial weights are made for a width of 768
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1, (step + 1) / 40) * (1 - step / steps))
    for _ in range(steps):
        left, right = (
            torch.nn.functional.normalize(model(input_ids=torch.from_numpy(ids)).pooler_output, dim=1)
            for ids in shuffled_twins(rng, batch)
        )
        loss = torch.nn.functional.cross_entropy(left @ right.T / 0.1, torch.arange(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return str(folder)


def shuffled_twins(rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of `batch` texts of 2 to 5 pairs of a telling word and a filler, and of the same with words shuffled."""
    pairs = int(rng.integers(2, 6))
    telling = SPECIAL + rng.integers(0, 5 * WORDS_PER_CLASS, (batch, pairs))
    fillers = SPECIAL + 5 * WORDS_PER_CLASS + rng.integers(0, FILLERS, (batch, pairs))
    words = np.stack([telling, fillers], axis=2).reshape(batch, 2 * pairs)
    ends = np.full((batch, 1), CLS), np.full((batch, 1), SEP)
    return np.hstack([ends[0], words, ends[1]]), np.hstack([ends[0], rng.permuted(words, axis=1), ends[1]])


def tiny_run(run: int, kind: str, folder: str) -> dict[str, Any]:
    """Run `run` of a tiny encoder: the small set that collapse.py draws under this number."""
    drawn = draw(run)
    rng = np.random.default_rng([run, 3])
    learning_rate, warmup = drawn["learning_rate"], float(rng.choice([0, 0.1]))
    if kind == "tiny":  # a trained encoder learns from 5e-4 on
        learning_rate = float(10 ** rng.uniform(-3.3, -0.8))
    prepared, truth, labels = make_texts(drawn, run)
    training = make_training(run, labels, (TRAIN, DEV), drawn["steps"])
    recipe = Recipe(encoder=folder, learning_rate=learning_rate, warmup=warmup)
    row = judged(training, prepared, recipe, truth)
    return {"run": run, "encoder": kind, "data": f"skew {drawn['skew']:.2f}, errors {drawn['errors']:.2f}"} | row


def minilm_run(run: int, kind: str, folder: str) -> dict[str, Any]:
    """Run `run` of MiniLM: 200 short texts in batches of 4; two thirds of the learning rates lie above 6e-4."""
    rng = np.random.default_rng([run, 4])
    name, longest = SETS[run % 2]
    low, high = (6e-4, 1e-3) if run // 2 % 5 < 3 else (2e-5, 6e-4)
    learning_rate, warmup = float(np.exp(rng.uniform(np.log(low), np.log(high)))), float(rng.choice([0, 0.1]))
    texts, codes = short_texts(name, longest, run)
    epochs = 3 if learning_rate < 8e-5 else 2
    training = make_training(run, codes, (SHORT_TRAIN, SHORT_DEV), epochs * SHORT_TRAIN // 4)
    recipe = Recipe(
        encoder=folder, learning_rate=learning_rate, warmup=warmup, batch_size=4, epochs=epochs, evaluations=epochs
    )
    return {"run": run, "encoder": kind, "data": name} | judged(training, encoder.prepare(texts, recipe), recipe, codes)


def short_texts(name: str, longest: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of a data set with at most `longest` words, drawn at random, and their gold codes."""
    import pandas as pd

    items = pd.read_csv(DATA / name / "items.csv.gz")
    items = items[items["text"].str.split().str.len() <= longest]
    items = items.sample(SHORT_TRAIN + SHORT_DEV + SHORT_TEST, random_state=seed)
    return items["text"].tolist(), items["gold"].to_numpy()


def make_training(seed: int, codes: np.ndarray, parts: tuple[int, int], steps: int) -> Training:
    """A training on the first texts; the next ones are dev, the others are asked for."""
    train, dev = parts
    rows, dev_rows = np.arange(train), np.arange(train, train + dev)
    return Training(
        key="", seed=seed, rows=rows, codes=codes[rows], dev_rows=dev_rows, dev_codes=codes[dev_rows],
        asked=np.arange(train, len(codes)), steps=steps,
    )  # fmt: skip


def judged(training: Training, prepared: Prepared, recipe: Recipe, truth: np.ndarray) -> dict[str, Any]:
    """Train to the end while the watch reads along, and compare with the truth; columns of the file."""
    from sklearn.metrics import matthews_corrcoef

    started, classes = time.process_time(), int(truth.max()) + 1
    encoder.Fitting, ReadingAlong.notes = ReadingAlong, {}
    schema = LabelSchema.from_names([f"class {i}" for i in range(classes)])
    outcome = encoder.train(training, prepared, recipe, schema)
    dev = len(training.dev_rows)
    return {
        "classes": classes, "learning_rate": recipe.learning_rate, "warmup": recipe.warmup, "steps": training.steps,
        "epoch": -(-len(training.rows) // recipe.batch_size), **ReadingAlong.notes, "status": outcome.status,
        "mcc": float(matthews_corrcoef(truth[training.asked[dev:]], outcome.predicted[dev:])),
        "reason": outcome.reason or "", "best_step": outcome.facts["best_step"] or "",
        "seconds": round(time.process_time() - started, 2),
    }  # fmt: skip


def kind_of(row: dict[str, Any]) -> str:
    """What a run is by its outcome."""
    mcc = float(row["mcc"])
    return "collapsed" if mcc < COLLAPSED else "healthy" if mcc >= HEALTHY else "between"


def print_figures(rows: list[dict[str, Any]]) -> None:
    """Print the table, then every wrong call and every run in between."""
    kinds = {kind: [row for row in rows if kind_of(row) == kind] for kind in ("collapsed", "healthy", "between")}
    print("| outcome | flagged by the end of the first epoch, Wilson 95 % | and later | ended |\n|---|---|---|---|")
    for kind, found in kinds.items():
        flagged, later, ended = (
            sum(row[column] not in ("", None) for row in found) for column in ("flagged", "later", "ended")
        )
        print(f"| {kind} | {rate(flagged, len(found))} | {later} | {rate(ended, len(found))} |")
    missed = [row for row in kinds["collapsed"] if not row["flagged"]]
    alarms = [row for row in kinds["healthy"] if row["flagged"] or row["later"]]
    for name, listed in (("missed", missed), ("false alarm", alarms), ("between", kinds["between"])):
        for row in listed:
            print(f"{name}: " + ", ".join(f"{column} {row[column]}" for column in COLUMNS if row[column] != ""))
    print(f"{len(rows)} runs, {sum(float(row['seconds']) for row in rows):.0f} CPU seconds")


def encoder_of(kind: str, folder: Path) -> str:
    """The encoder of a kind: a name, or the folder that it was made in."""
    if kind == "minilm":
        return encoders.EMBEDDED
    return tiny_encoder(folder) if kind == "scratch" else trained_encoder(folder, seed=200_000)


def main() -> None:
    """Train the runs that the file lacks and print the figures of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", choices=FIRST)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--first", type=int, help="number of the first run; those below the default shaped the watch")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    first = FIRST[options.encoder] if options.first is None else options.first
    rows = finished_runs(options.csv)
    todo = sorted(set(range(first, first + options.runs)) - {int(row["run"]) for row in rows})
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(options.workers) as pool:
        folder = encoder_of(options.encoder, Path(place))
        one_run = minilm_run if options.encoder == "minilm" else tiny_run
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
            for row in pool.map(partial(one_run, kind=options.encoder, folder=folder), todo):
                writer.writerow(row)
                file.flush()
    print_figures(finished_runs(options.csv))


if __name__ == "__main__":
    main()
