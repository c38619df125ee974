"""compare: guards, statistics, verdict."""

from __future__ import annotations

import datetime as dt
from typing import Any

from consenso.annotate import check_annotators
from consenso.compare import check_guards, compare_arms, score_runs
from consenso.consensus import check_consensus
from consenso.data import find_leaks
from consenso.steps.running import Run
from consenso.store import digest


def compare(this: Run) -> None:
    """Check the guards, score every training on test gold and judge every contrast."""
    import pandas as pd

    folder, settings, schema = this.folder, this.experiment.compare, this.schema
    texts, folds, predictions = folder.read("texts"), folder.read("folds"), folder.read("predictions")
    votes, labels, trainings, arms = (folder.read(name) for name in ("votes", "labels", "trainings", "arms"))
    gold = texts.set_index("text_id")["gold"]
    chosen: dict[str, Any] = {
        "metric": settings.metric,
        "margin": settings.margin,
        "primary": (settings.arm, settings.control),
        "contrasts": [(c.arm, c.control) for c in settings.contrasts] or None,
        "schema": schema,
    }
    scorings = _scorings(this)
    now = scorings[0]["hash"] if len(scorings) == 1 else f"one of {len(scorings)} scorings"
    remaining = find_leaks(texts, folds)
    seen = folds.loc[folds["part"] != "test", "text_id"]
    guards = [
        check_annotators(votes, folder.record().get("annotate_notes")),
        check_consensus(
            votes[votes["text_id"].isin(seen)], labels[labels["text_id"].isin(seen)], folder.record().get("consensus")
        ),
    ]
    comparisons = []
    for student in this.experiment.finetune.students:
        predicted, trained = (frame[frame["student"] == student] for frame in (predictions, trainings))
        checked = check_guards(
            predictions=predicted, gold=gold, arms=arms[arms["student"] == student], folds=folds,
            leaks=folder.read("leaks"), remaining=remaining, texts=texts, trainings=trained, labels=labels,
            low_power_below=settings.low_power_below, few_texts_below=settings.few_texts_below,
            gold_public=settings.gold_public, first_hash=scorings[0]["hash"], hash=now, **chosen,
        )  # fmt: skip
        guards.append(checked.assign(scope=checked["scope"].replace("all", student)))
        resampled = this.experiment.finetune.resamples(student)
        comparisons.append(
            compare_arms(
                predicted, gold, trainings=trained, guards=checked, dataset=this.experiment.name,
                replication="bootstrap" if resampled else "seed", **chosen,
            )
        )  # fmt: skip
    folder.write("guards", pd.concat(guards, ignore_index=True))
    folder.write("scores", score_runs(predictions, gold, schema))
    folder.write("comparison", pd.concat(comparisons, ignore_index=True))
    folder.note("scorings", scorings)


def _scorings(this: Run) -> list[dict[str, str]]:
    """The distinct hashes, this one among them, of what must be fixed before the first scoring, oldest first."""
    chosen, prints = this.experiment.model_dump(mode="json"), this.folder.fingerprints()
    now = digest(
        [
            {name: chosen["compare"][name] for name in ("metric", "margin", "arm", "control", "contrasts")},
            {name: value for name, value in chosen["consensus"].items() if name != "bootstrap"},
            {name: chosen["finetune"][name] for name in ("recipe", "resample")},
            {name: prints[name] for name in ("texts", "folds", "votes")},
            this.folder.record()["labels"],
        ]
    )
    history: list[dict[str, str]] = this.folder.record().get("scorings", [])
    if now not in {entry["hash"] for entry in history}:
        history = [*history, {"hash": now, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}]
    return history
