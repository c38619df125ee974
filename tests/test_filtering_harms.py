"""Filtering may clean the labels and harm the student: the report must be able to say so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso import run
from consenso.store import RunFolder

CLASSES = ("sport", "money")
FILLER = ["the", "a", "today", "said", "new", "after", "people", "year", "city", "report"]


def write_world(folder, n=900):
    """Half of the texts speak in rare words, on which the third annotator guesses: where all agree, few of these are left."""
    rng = np.random.default_rng(4)
    gold = rng.choice(CLASSES, n)
    hard = rng.random(n) < 0.5
    texts = [
        " ".join([*(f"{'rare' if h else 'plain'}{g}{word}" for word in rng.integers(150 if h else 12, size=2)),
                  *rng.choice(FILLER, 4), f"no{i}"])
        for i, (g, h) in enumerate(zip(gold, hard))
    ]  # fmt: skip
    split = rng.choice(["train", "dev", "test"], n, p=[0.4, 0.15, 0.45])
    frame = pd.DataFrame({"id": range(n), "text": texts, "gold": gold, "split": split})
    frame.to_csv(folder / "texts.csv", index=False)
    other = np.where(gold == "sport", "money", "sport")
    votes = [
        pd.DataFrame({"text_id": range(n), "annotator": f"llm{k}",
                      "label": np.where(rng.random(n) < np.where(hard, 0.5 if k == 2 else 0.1, 0.03), other, gold)})
        for k in range(3)
    ]  # fmt: skip
    pd.concat(votes).to_csv(folder / "votes.csv", index=False)
    return frame.assign(hard=hard)


@pytest.mark.slow
def test_filtering_that_cleans_labels_and_harms_the_student_is_not_sold_as_help(tmp_path):
    world = write_world(tmp_path)
    outcome = run(
        {
            "name": "filtering",
            "data": {"source": str(tmp_path / "texts.csv")},
            "annotate": {"imports": [{"source": str(tmp_path / "votes.csv")}]},
            "consensus": {"method": "majority", "problematic": {"measure": "score", "below": 1.0}},
            "finetune": {"students": ["linear"], "arms": "standard", "seeds": 6},
            "compare": {"metric": "accuracy"},
        },
        tmp_path / "run",
    )
    assert outcome.exit_code == 0, outcome.sentence
    folder = RunFolder(tmp_path / "run")
    labels = (
        folder.read("final_labels")
        .merge(world.assign(text_id=world["id"].astype(str)), on="text_id")
        .query("split == 'train'")
    )
    right = labels["label"] == labels["gold"]
    kept = ~labels["is_problematic"].astype(bool)
    assert right[kept].mean() > right.mean() + 0.03, "filtering does clean the labels"
    filtering = folder.read("comparison").query(
        "effect == 'filtering effect' and metric == 'accuracy' and scope == 'all'"
    )
    assert filtering["difference"].item() < -0.02, "and harms the student"
    assert "filtering not shown to help" in filtering["sentence"].item()
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "Filtering: not shown to help" in page or "Filtering: it harms" in page
