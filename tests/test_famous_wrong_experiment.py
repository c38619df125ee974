"""The experiment that started consenso, rebuilt: it must be refused with every flaw named, and its right twin judged.

A gold arm that collapses, one seed, arms on unequal texts, evaluation texts among the training texts. Read carelessly,
"consensus beats ground truth".
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso import LabelSchema, compare_arms, run
from consenso.compare import check_guards, exit_code
from consenso.store import RunFolder
from consenso.tables import LEAKS
from making import shared

NAMES = ("very negative", "negative", "neutral", "positive", "very positive")
FLAWS = ("leakage", "alignment", "collapse", "one seed")


def recorded():
    """Tables of the wrong experiment: 500 texts, of which 150 are tested on; `consensus-kept` drops its 100 hardest."""
    rng = np.random.default_rng(3)
    ids = [f"s{i:03d}" for i in range(500)]
    gold = rng.choice(NAMES, 500, p=[0.13, 0.26, 0.19, 0.27, 0.15])
    texts = pd.DataFrame({"text_id": ids, "text": [f"review number {i}" for i in range(500)], "gold": gold})
    tested = ids[:150]
    twins = texts.iloc[:150].assign(text_id=[f"e{i:03d}" for i in range(150)])
    parts = ["train"] * 400 + ["dev"] * 100 + ["test"] * 150
    every = pd.concat([texts, twins], ignore_index=True)
    folds = pd.DataFrame({"fold": 0, "text_id": every["text_id"], "part": parts})
    kept = set(rng.choice(ids[:400], 300, replace=False))
    rows = [
        {"student": "encoder", "arm": arm, "fold": 0, "seed": 42, "part": part, "row": number, "text_id": text_id,
         "target": target, "source": source}
        for arm, source in (("gold", "gold"), ("consensus-kept", "consensus"))
        for part, chosen in (("train", ids[:400]), ("dev", ids[400:]))
        for number, (text_id, target) in enumerate(zip(chosen, gold[:400] if part == "train" else gold[400:]))
        if arm == "gold" or part == "dev" or text_id in kept
    ]  # fmt: skip
    right = rng.random(150) < 0.46
    guesses = {
        "gold": np.repeat("positive", 150),  # learned nothing but the prior
        "consensus-kept": np.where(right, gold[:150], rng.choice(NAMES, 150)),
        "floor": np.repeat("positive", 150),
    }
    predictions = pd.concat(
        [
            pd.DataFrame(
                {"student": "encoder", "arm": arm, "seed": 42, "text_id": twins["text_id"], "predicted": found}
            )
            for arm, found in guesses.items()
        ],
        ignore_index=True,
    )
    trainings = pd.DataFrame(
        {"student": "encoder", "arm": ["gold", "consensus-kept"], "fold": 0, "seed": 42, "attempt": "as_run",
         "status": ["collapsed", "ok"], "reason": ["one class is predicted for every dev text", None]}
    )  # fmt: skip
    assert set(tested) < set(ids)
    return every, folds, pd.DataFrame(rows), predictions, trainings


def test_the_wrong_experiment_is_refused_and_every_flaw_is_named():
    texts, folds, arms, predictions, trainings = recorded()
    gold = texts.set_index("text_id")["gold"]
    schema = LabelSchema.from_names(NAMES)
    asked = {"contrasts": [("consensus-kept", "gold")], "schema": schema}
    careless = (predictions.merge(gold.rename("gold"), left_on="text_id", right_index=True)
                .assign(hit=lambda rows: rows["predicted"] == rows["gold"]).groupby("arm")["hit"].mean())  # fmt: skip
    assert careless["consensus-kept"] > careless["gold"] + 0.2, "what the careless reader saw"
    guards = check_guards(
        predictions=predictions, gold=gold, arms=arms, folds=folds, texts=texts, trainings=trainings,
        leaks=pd.DataFrame(columns=list(LEAKS.columns)), remaining=pd.DataFrame(columns=list(LEAKS.columns)), **asked,
    )  # fmt: skip
    found = compare_arms(predictions, gold, trainings=trainings, guards=guards, **asked)
    row = found[found["is_primary"]].iloc[0]
    assert row["verdict"] == "INVALID"
    assert exit_code(row["verdict"]) == 4
    assert [flaw for flaw in FLAWS if flaw not in row["sentence"]] == []
    assert "No conclusion" in row["sentence"]
    assert "100 only in gold" in row["sentence"]


def sst5(folder, *, train, test, tested_on_train):
    """SST-5 texts and the votes of five simulated annotators, who err more on texts that are hard."""
    rng = np.random.default_rng(5)
    items = pd.read_csv(shared("sst5", "items.csv.gz"), dtype={"gold": "int64"})
    learn = items[items["split"] == "train"].sample(train, random_state=1)
    if tested_on_train:
        tested = learn.sample(test, random_state=2).assign(text_id=lambda rows: "twin-" + rows["text_id"])
    else:
        tested = items[items["split"] == "test"].sample(test, random_state=2)
    dev = items[items["split"] == "dev"].sample(300, random_state=3)
    every = pd.concat([learn.assign(split="train"), dev.assign(split="dev"), tested.assign(split="test")])
    every[["text_id", "text", "gold", "split"]].to_csv(folder / "texts.csv", index=False)
    hard = rng.beta(1.2, 2.2, len(every))
    shift = {who: rng.choice([-1, 1], len(every)) for who in "abcde"}
    votes = [
        pd.DataFrame({
            "text_id": every["text_id"], "annotator": f"llm-{who}",
            "label": np.clip(every["gold"] + shift[who] * (rng.random(len(every)) < hard), 0, 4),
        })
        for who in "abcde"
    ]  # fmt: skip
    pd.concat(votes).to_csv(folder / "votes.csv", index=False)
    return {
        "name": "sst5",
        "data": {
            "source": str(folder / "texts.csv"),
            "labels": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
            **({"leakage": "off"} if tested_on_train else {}),
        },
        "annotate": {"imports": [{"source": str(folder / "votes.csv")}]},
        "consensus": {"method": "majority", "problematic": {"measure": "score", "below": 0.7}},
    }


@pytest.mark.slow
def test_the_wrong_experiment_with_a_real_encoder(tmp_path):
    wrong = sst5(tmp_path, train=5000, test=1000, tested_on_train=True) | {
        "finetune": {
            "students": ["encoder"], "arms": ["gold", "consensus-kept"], "seeds": [42], "workers": 2, "rescue": False,
            "recipe": {"learning_rate": 5e-4, "warmup": 0.0, "epochs": 2, "precision": "bf16", "evaluations": 4},
        },
        "compare": {"arm": "consensus-kept", "control": "gold"},
    }  # fmt: skip
    outcome = run(wrong, tmp_path / "run")
    assert outcome.verdict == "INVALID"
    assert outcome.exit_code == 4
    assert [flaw for flaw in FLAWS if flaw not in outcome.sentence] == []
    trainings = RunFolder(tmp_path / "run").read("trainings").set_index("arm")
    assert trainings.loc["gold", "status"] == "collapsed"


@pytest.mark.slow
def test_its_right_twin_gets_a_verdict(tmp_path):
    right = sst5(tmp_path, train=1500, test=1105, tested_on_train=False) | {
        "finetune": {
            "students": ["encoder"], "arms": ["gold-aligned", "consensus"], "seeds": 5, "workers": 2,
            "recipe": {"learning_rate": 1e-4, "epochs": 1.5, "precision": "bf16", "evaluations": 3},
        }
    }  # fmt: skip
    outcome = run(right, tmp_path / "run")
    assert outcome.verdict in {"BETTER", "WORSE", "EQUIVALENT", "NON-INFERIOR", "INCONCLUSIVE"}, outcome.sentence
    assert outcome.exit_code == 0
    guards = RunFolder(tmp_path / "run").read("guards")
    assert "failed" not in set(guards["outcome"])
