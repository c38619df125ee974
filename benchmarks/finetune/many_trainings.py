"""A whole grid: 6 arms × 10 seeds on BABE with the student `frozen`; and the memory of trainings of MiniLM.

`python benchmarks/finetune/many_trainings.py [grid] [memory]`.
`grid` runs `examples/babe.toml` up to the labels, embeds all texts, and then
times the stage finetune. `memory` trains MiniLM on 5,000 SST-5 sentences for some steps, in one process, and prints the
largest resident memory that it had.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sst5 import SCHEMA, sst5

from consenso import RunFolder, encoders, run
from consenso.experiment_file import read_experiment
from consenso.finetune.pool import one_thread
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder

BABE = Path(__file__).parents[2] / "examples" / "babe.toml"
ARMS = ["gold-aligned", "consensus", "consensus-kept", "consensus-random", "gold-kept", "permuted"]


def peak_gb() -> float:
    """The largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def grid() -> None:
    """Seconds of embedding, then of the trainings."""
    listed = ", ".join(f'"{arm}"' for arm in ARMS)
    changes = [f"finetune.arms=[{listed}]", "finetune.seeds=10", 'finetune.students=["frozen"]', "finetune.variants={}"]
    experiment, base = read_experiment(BABE, changes)
    with tempfile.TemporaryDirectory() as place:
        run(experiment, place, until="consensus", base=base)
        folder, recipe = RunFolder(place), experiment.finetune.recipe
        texts = folder.read("texts", ["text_id", "text"]).sort_values("text_id")["text"].tolist()
        started = time.monotonic()
        encoders.embed(texts, recipe.encoder, max_length=recipe.max_length, cache=Path(place) / "cache")
        embedded = time.monotonic()
        run(experiment, place, until="finetune", base=base)
        ended = time.monotonic()
        trained = folder.read("trainings")
    counts = f"{trained['arm'].nunique()} arms, {trained['key'].nunique()} trainings, {len(texts)} texts"
    print(f"{counts}: embedding {embedded - started:.1f} s, finetune {ended - embedded:.1f} s, peak {peak_gb():.2f} GB")


def memory() -> None:
    """GB of one training of MiniLM, 100 steps of batches of 16 and an evaluation."""
    recipe = Recipe(evaluations=1)
    training, prepared, _ = sst5(5000, 0.3, 1, recipe)
    with one_thread():
        encoder.train(training, prepared, recipe, SCHEMA)
    print(f"MiniLM, {training.steps} steps on SST-5: peak {peak_gb():.2f} GB in one process")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["grid", "memory"]:
        {"grid": grid, "memory": memory}[name]()
