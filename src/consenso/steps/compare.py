"""compare: guards, statistics, verdict; calibration; what the labels are worth."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from consenso.annotate import check_annotators
from consenso.compare import check_guards, compare_arms, score_runs
from consenso.compare.calibration import measure_calibration
from consenso.compare.classes import compare_classes
from consenso.compare.corrections import corrections_value
from consenso.compare.curves import learning_curve
from consenso.compare.freezing import FILE, declare, digest_declared
from consenso.compare.frontier import cost_frontier
from consenso.compare.runs import Runs, read_runs
from consenso.compare.seeds import compare_seeds
from consenso.compare.value import labels_worth
from consenso.consensus import check_consensus, check_swapped
from consenso.data import find_leaks
from consenso.experiment_file import Experiment
from consenso.finetune.settings import StudyOf
from consenso.steps.finetune import panels_of
from consenso.steps.running import Run
from consenso.store import RunFolder, environment

if TYPE_CHECKING:
    import pandas as pd

VOTES = ["text_id", "annotator", "repetition", "label", "status", "cost"]


def compare(this: Run) -> None:
    """Check the guards, score every training on test gold and judge every contrast; then value and calibration."""
    import pandas as pd

    bench = _Bench(this)
    this.folder.note("scorings", bench.scorings)  # before any score: a kill from here on leaves the record of it
    judged = [bench.judge(study) for study in this.experiment.finetune.studies() if bench.has(study)]
    for name in judged[0] if judged else ():
        frames = [tables[name] for tables in judged]
        if name == "guards":
            frames = [*bench.guards_of_earlier_stages(), *frames]
        this.folder.write(name, pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True))
    this.folder.write("scores", score_runs(bench.tables["predictions"], bench.gold, this.schema, metrics=bench.metrics))
    bench.worth()


@dataclass
class _Bench:
    """The tables that every student is compared with."""

    this: Run

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        names = ("texts", "folds", "predictions", "trainings", "arms", "labels", "leaks")
        return {name: self.this.folder.read(name) for name in names}

    @cached_property
    def votes(self) -> pd.DataFrame:
        return self.this.folder.read("votes")

    @cached_property
    def gold(self) -> pd.Series:
        return self.tables["texts"].set_index("text_id")["gold"]

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The primary metric and the others that are computed."""
        settings = self.this.experiment.compare
        return tuple(dict.fromkeys([settings.metric, *settings.metrics]))

    @property
    def replication(self) -> Literal["seed", "bootstrap"]:
        """What a seed of the first student stands for."""
        study = next(self.this.experiment.finetune.studies())
        return "bootstrap" if study.settings.resamples(study.base) else "seed"

    @cached_property
    def remaining(self) -> pd.DataFrame:
        """Near repeats that still stand in two parts of a fold."""
        return find_leaks(self.tables["texts"], self.tables["folds"])

    @cached_property
    def strata(self) -> pd.Series | None:
        """How far the annotators agree on each test text, where they were asked."""
        folds, labels = self.tables["folds"], self.tables["labels"]
        levels = labels.set_index("text_id")["level"].rename("agreement")
        levels = levels[levels.index.isin(folds.loc[folds["part"] == "test", "text_id"])].dropna()
        return levels if len(levels) else None

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What is asked of every student."""
        settings = self.this.experiment.compare
        contrasts = [(c.arm, c.control) for c in settings.contrasts] or None
        return {"primary": (settings.arm, settings.control), "contrasts": contrasts, "schema": self.this.schema}

    @cached_property
    def gold_dev(self) -> list[str]:
        """The declared variants whose dev labels are gold."""
        return [study.student for study in self.this.experiment.finetune.studies() if study.settings.dev == "gold"]

    @cached_property
    def declared(self) -> dict[str, Any]:
        return declared_of(self.this)

    @cached_property
    def scorings(self) -> list[dict[str, Any]]:
        """The distinct declarations, this one among them, under which test texts were scored, oldest first."""
        now = _fingerprint(self.declared)
        history: list[dict[str, Any]] = self.this.folder.record().get("scorings", [])
        if now not in {entry["hash"] for entry in history}:
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            history = [*history, {"hash": now, "at": at, "declared": self.declared}]
        return history

    def has(self, study: StudyOf) -> bool:
        """Return whether the student made any prediction."""
        return bool(self.tables["predictions"]["student"].eq(study.student).any())

    def judge(self, study: StudyOf) -> dict[str, pd.DataFrame]:
        """Return the tables of one student: guards, comparison, differences by class and seed, calibration."""
        settings, student, dataset = self.this.experiment.compare, study.student, self.this.experiment.name
        mine = {name: self._of(student, name) for name in ("predictions", "trainings", "arms")}
        guards = self._guards(student, mine)
        runs: Runs = read_runs(mine["predictions"], self.gold, self.this.schema)
        asked = {**self.asked, "trainings": mine["trainings"], "dataset": dataset}
        comparison = compare_arms(
            runs, metric=settings.metric, margin=settings.margin, alpha=settings.alpha, metrics=settings.metrics,
            bootstrap=settings.bootstrap, guards=guards, strata=self.strata,
            replication="bootstrap" if study.settings.resamples(study.base) else "seed", **asked,
        )  # fmt: skip
        calibration = measure_calibration(
            mine["predictions"], self.gold, arms=mine["arms"], schema=self.this.schema, strata=self.strata
        )
        return {
            "guards": guards.assign(scope=guards["scope"].replace("all", student)),
            "comparison": comparison,
            "class_differences": compare_classes(runs, alpha=settings.alpha, **asked),
            "seed_differences": compare_seeds(runs, **asked),
            "calibration": calibration.calibration,
            "calibration_bins": calibration.bins,
        }

    def _of(self, student: str, name: str) -> pd.DataFrame:
        frame = self.tables[name]
        return frame[frame["student"] == student]

    def _guards(self, student: str, mine: dict[str, pd.DataFrame]) -> pd.DataFrame:
        settings, folder = self.this.experiment.compare, self.this.folder
        first, now = self.scorings[0], _fingerprint(self.declared)
        frozen = folder.path / FILE
        return check_guards(
            gold=self.gold, folds=self.tables["folds"], leaks=self.tables["leaks"], remaining=self.remaining,
            texts=self.tables["texts"], labels=self.tables["labels"], votes=self.votes, gold_used=_gold_used(folder),
            metric=settings.metric, margin=settings.margin, low_power_below=settings.low_power_below,
            few_texts_below=settings.few_texts_below, gold_public=settings.gold_public,
            first_hash=first["hash"], hash=now, first_declared=first.get("declared"), declared=self.declared,
            frozen=json.loads(frozen.read_text(encoding="utf-8")) if frozen.exists() else None, gold_dev=self.gold_dev,
            **mine, **self.asked,
        )  # fmt: skip

    def guards_of_earlier_stages(self) -> list[pd.DataFrame]:
        """Return the warnings about annotators and consensus."""
        folds, folder, labels = self.tables["folds"], self.this.folder, self.tables["labels"]
        seen = folds.loc[folds["part"] != "test", "text_id"]
        own = labels[labels["text_id"].isin(seen)]
        gold = self.tables["texts"].set_index("text_id")["gold"].dropna()
        return [
            check_annotators(self.votes, folder.record().get("annotate_notes")),
            check_consensus(self.votes[self.votes["text_id"].isin(seen)], own, folder.record().get("consensus")),
            check_swapped(self.votes, labels, gold, self.this.schema),
        ]

    def worth(self) -> None:
        """Write the learning curve, what the labels are worth, and cost against quality."""
        import pandas as pd

        folder, settings = self.this.folder, self.this.experiment.compare
        predictions, arms, folds = (self.tables[name] for name in ("predictions", "arms", "folds"))
        how: dict[str, Any] = {"metric": settings.metric, "schema": self.this.schema}
        everyone = sorted(self.votes["annotator"].unique())
        annotators = {"consensus": everyone, **{f"single:{name}": [name] for name in everyone}, **panels_of(folder)}
        folder.write("learning_curve", learning_curve(predictions, self.gold, arms=arms, **how))
        value = labels_worth(
            predictions, self.gold, arms=arms, arm=settings.arm, votes=self.votes, folds=folds,
            human_labels_used=len(_gold_used(folder)), settings=settings.value, annotators=annotators.get(settings.arm),
            replication=self.replication, **how,
        )  # fmt: skip
        corrected = corrections_value(
            predictions, self.gold, arm=settings.arm, trainings=self.tables["trainings"], **how
        )
        parts = [frame for frame in (value, corrected) if len(frame)]
        folder.write("value", pd.concat(parts, ignore_index=True) if parts else value)
        frontier = cost_frontier(
            predictions,
            self.gold,
            self.votes,
            annotators,
            control=settings.control,
            folds=folds,
            trainings=self.tables["trainings"],
            **how,
        )
        folder.write("frontier", frontier)


def _fingerprint(declared: dict[str, Any]) -> str:
    """The hash of what may not change after the first scoring; a newer release is no such change.

    Seeds are part of it: adding some after a look is a change, unless the declared rule adds them (`Run.declared`).
    """
    return digest_declared({**declared, "software": None})


def _gold_used(folder: RunFolder) -> set[str]:
    """Ids of the texts whose gold helped to make labels."""
    names = [name for name in ("gold_used", "consensus_gold") if folder.has(name)]
    return {str(text_id) for name in names for text_id in folder.read(name)["text_id"]}


def declared_of(this: Run) -> dict[str, Any]:
    """Return what must be fixed before the first scoring: as the experiment file says it, and the data as they are."""
    experiment: Experiment = this.declared or this.experiment
    folder, prints = this.folder, this.folder.fingerprints()
    panel = {one.name: one.model_dump(mode="json") for one in experiment.annotate.annotators}
    panel |= {
        f"import {number}": one.model_dump(mode="json") for number, one in enumerate(experiment.annotate.imports, 1)
    }
    folds = folder.read("folds")
    return declare(
        compare=experiment.compare.model_dump(mode="json"),
        consensus=experiment.consensus.model_dump(mode="json"),
        students={study.student: study.settings.model_dump(mode="json") for study in experiment.finetune.studies()},
        panel=panel,
        data={
            **{name: prints.get(name) for name in ("texts", "folds", "votes")},
            "test texts": int(folds.loc[folds["part"] == "test", "text_id"].nunique()),
            "number of folds": int(folds["fold"].nunique()),
        },
        labels=list(this.schema.names),
        name=experiment.name,
        version=environment()["versions"].get("consenso", ""),
    )
