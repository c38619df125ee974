"""Makers of small, realistic inputs that several test files share."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

WORDS = {
    "sport": [
        "match",
        "goal",
        "team",
        "coach",
        "league",
        "player",
        "score",
        "win",
        "season",
        "stadium",
        "referee",
        "cup",
        "striker",
    ],
    "money": [
        "bank",
        "price",
        "market",
        "shares",
        "profit",
        "tax",
        "loan",
        "budget",
        "trade",
        "investor",
        "debt",
        "bond",
        "dividend",
    ],
    "health": [
        "doctor",
        "clinic",
        "patient",
        "vaccine",
        "drug",
        "hospital",
        "virus",
        "nurse",
        "therapy",
        "diet",
        "surgery",
        "blood",
        "heart",
    ],
}
FILLER = [
    "the",
    "a",
    "today",
    "said",
    "new",
    "after",
    "before",
    "people",
    "year",
    "city",
    "report",
    "week",
    "many",
    "under",
    "between",
    "early",
    "strong",
]


def shared(*parts: str) -> Path:
    """Return a file of the shared real data, or skip the test with the reason."""
    root = Path(os.environ.get("CONSENSO_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {path} (real data, not in the repository; see docs/data.md)")
    return path


def write_texts(folder: Path, n: int = 240, seed: int = 7, noise: float = 0.35) -> Path:
    """Write texts.csv: id, text, gold, split; about `noise` of each text's content words come from another class."""
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    path = folder / "texts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "gold", "split"])
        for i in range(n):
            gold = names[i % len(names)]
            words = []
            for _ in range(6):
                source = gold if rng.random() > noise else names[rng.integers(len(names))]
                words += [str(rng.choice(WORDS[source])), str(rng.choice(FILLER))]
            part = ("train", "train", "train", "dev", "test")[(i // len(names)) % 5]
            writer.writerow([f"t{i:03d}", " ".join(words) + f" no{i}", gold, part])
    return path


def write_votes(folder: Path, texts: Path, annotators: int = 3, error: float = 0.25, seed: int = 11) -> Path:
    """Write votes.csv, long: each annotator errs independently at the rate `error`; a few replies are unusable."""
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    path = folder / "votes.csv"
    with texts.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text_id", "annotator", "label"])
        for row in rows:
            for k in range(annotators):
                label = row["gold"] if rng.random() > error else names[rng.integers(len(names))]
                writer.writerow([row["id"], f"llm{k}", label if rng.random() > 0.02 else "ERROR"])
    return path


def write_experiment(folder: Path, more: str = "", **sections: str) -> Path:
    """Write texts, votes and an experiment.toml with the `linear` student; `sections` replace whole section bodies."""
    texts = write_texts(folder)
    write_votes(folder, texts)
    parts = {
        "data": 'source = "texts.csv"',
        "consensus": 'method = "majority"\nbootstrap = 50',
        "finetune": 'students = ["linear"]\nseeds = 3\narms = ["gold", "gold-aligned", "consensus", "consensus-kept", "floor"]',
        "compare": 'metric = "accuracy"\nmargin = 0.05',
        **sections,
    }
    body = 'name = "small"\n[[annotate.imports]]\nsource = "votes.csv"\n'
    body += "".join(f"[{name}]\n{text}\n" for name, text in parts.items())
    path = folder / "experiment.toml"
    path.write_text(body + more, encoding="utf-8")
    return path
