"""The flow in order: data → annotate → consensus → finetune → compare → report. Read this first.

A stage is a function below: it reads tables of the run folder, calls its verb, writes tables. A stage whose settings,
input tables and outside files are unchanged is not run again; inside `finetune` the unit is one training.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate import annotate_texts, check_annotators, describe_annotators, read_votes
from consenso.compare import check_guards, compare_arms, exit_code, score_runs
from consenso.consensus import check_consensus, decide, measure_agreement
from consenso.data import Loaded, find_leaks, make_folds, read_dataset
from consenso.encoders import embed, encoder_fingerprint
from consenso.errors import ConfigError, nearest
from consenso.experiment_file import Experiment, read_experiment
from consenso.files import fingerprint_source
from consenso.finetune import STUDENTS, FinetuneSettings, Results, make_arms, run_arms
from consenso.labels import LabelSchema
from consenso.preconditions import has_test_gold, need_extras, need_gold, need_labels, need_valid_votes
from consenso.report import write_report
from consenso.store import RunFolder, digest, environment
from consenso.tables import LEAKS, TABLES

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

OUT_OF_DATE = "out of date: settings or data have changed since; `consenso run` brings it up to date"
"""Said instead of a verdict that an earlier stage has overtaken."""
Progress = Callable[[dict[str, Any]], None]
"""Called with events: {"stage": …, "event": "start" | "reuse" | "advance" | "end", …}."""


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    folder: Path
    """The run folder."""
    verdict: str
    """The verdict word of the primary contrast of the first student; '' where nothing is compared yet."""
    sentence: str
    """The verdict with its numbers, or why there is none yet."""
    report: Path | None
    """The report's path."""
    others: dict[str, str] = field(default_factory=dict)
    """Further students → the sentence of their primary contrast."""
    failed: int = 0
    """Trainings that failed; the next run tries them again."""

    @property
    def exit_code(self) -> int:
        """4 if a guard failed for any student, 3 if trainings failed, else 0."""
        words = [self.verdict, *(sentence.partition(":")[0] for sentence in self.others.values())]
        return max(map(exit_code, words)) or (3 if self.failed else 0)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p><strong>{escape(self.sentence)}</strong><br>{escape(str(self.report or self.folder))}</p>"


@dataclass(frozen=True)
class Run:
    """One run in progress: what the stages share."""

    experiment: Experiment
    folder: RunFolder
    base: Path
    """Where relative paths of the experiment file start."""
    progress: Progress

    @property
    def schema(self) -> LabelSchema:
        """The labels, as the data stage recorded them."""
        return LabelSchema.from_records(self.folder.record()["labels"])


def run(
    experiment: Experiment | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    until: str = "report",
    progress: Progress | None = None,
    base: Path | None = None,
) -> Outcome:
    """Do what is not yet done of an experiment, up to and with the stage `until`, and return its outcome.

    `experiment` is an experiment.toml, its content as a mapping, or an `Experiment`; `folder` defaults to runs/<name>;
    relative paths start from the file's folder (`base` overrides it).
    Raises `ConsensoError`s with one line each; a killed run resumes when called again.
    """
    if until not in (names := [stage.name for stage in STAGES]):
        raise ConfigError(f"unknown stage {until!r}; choose one of {', '.join(names)}.{nearest(until, names)}")
    read, beside = read_experiment(experiment)
    place = RunFolder(folder if folder is not None else Path("runs") / read.name)
    need_extras(read, names[: names.index(until) + 1])
    with place.locked():
        this = Run(read, place, base or beside, progress or (lambda event: None))
        place.note("name", read.name)
        place.note("settings", read.model_dump(mode="json"))
        for stage in STAGES:
            _do(stage, this)
            if stage.name == until:
                break
        _mark_stale(this)
        return outcome(place)


@dataclass(frozen=True)
class Stage:
    """A step of the flow: its name, the tables it reads and writes, what else its result depends on, its deed, its files."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    depends: Callable[[Run], Any]
    deed: Callable[[Run], dict[str, Any] | None]
    files: tuple[str, ...] = ()


def _key(stage: Stage, this: Run) -> str:
    prints = this.folder.fingerprints()
    return digest([stage.name, {name: prints.get(name) for name in stage.reads}, stage.depends(this)])


def is_current(stage: Stage, this: Run) -> bool:
    """Return whether a stage finished with these settings, inputs and files, and left nothing failed."""
    entry = this.folder.record().get("stages", {}).get(stage.name, {})
    return (
        this.folder.is_done(stage.name, _key(stage, this))
        and not entry.get("failed")
        and all((this.folder.path / file).exists() for file in stage.files)
    )


def _do(stage: Stage, this: Run) -> None:
    if is_current(stage, this):
        this.folder.flag_stages({stage.name: False})
        this.progress({"stage": stage.name, "event": "reuse"})
        return
    this.progress({"stage": stage.name, "event": "start"})
    later = [other.name for other in STAGES[STAGES.index(stage) + 1 :]]
    this.folder.flag_stages(dict.fromkeys(later, True))  # a kill from here on leaves no old verdict standing as current
    key, started = _key(stage, this), time.perf_counter()
    facts = stage.deed(this) or {}
    seconds = round(time.perf_counter() - started, 2)
    finished = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    this.folder.finish(stage.name, key, list(stage.writes), seconds=seconds, finished_at=finished, **facts)
    this.progress({"stage": stage.name, "event": "end", "seconds": seconds})


def _mark_stale(this: Run) -> None:
    """Flag every finished stage whose settings or inputs have changed, and all that follow it."""
    stale = False
    for stage in STAGES:
        done = stage.name in this.folder.record().get("stages", {})
        stale = stale or (done and not this.folder.is_done(stage.name, _key(stage, this)))
        if done:
            this.folder.flag_stages({stage.name: stale})


def _data(this: Run) -> None:
    settings = this.experiment.data
    loaded = read_dataset(settings, this.base)
    if not has_test_gold(loaded.texts):
        _write_texts(
            this,
            loaded,
            *_unsplit(loaded.texts),
            notes=["no test text has gold: labels and agreement only, no verdict"],
        )
        return
    folds, leaks = make_folds(
        loaded.texts,
        test_size=settings.test_size,
        dev_size=settings.dev_size,
        seed=settings.seed,
        leakage=settings.leakage,
    )
    _write_texts(this, loaded, folds, leaks, notes=folds.attrs.get("notes", []))


def _write_texts(this: Run, loaded: Loaded, folds: pd.DataFrame, leaks: pd.DataFrame, notes: list[str]) -> None:
    this.folder.note("labels", need_labels(loaded.labels).as_records())
    this.folder.note("data", {**loaded.record, "notes": [*loaded.record.get("notes", []), *notes]})
    this.folder.write("texts", loaded.texts)
    this.folder.write("duplicates", loaded.duplicates)
    this.folder.write("folds", folds)
    this.folder.write("leaks", leaks)


def _unsplit(texts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Folds and leaks where nothing can be tested: every text may be labelled, none is compared."""
    import pandas as pd

    folds = pd.DataFrame({"fold": 0, "text_id": texts["text_id"], "part": "train"})
    return folds, pd.DataFrame(columns=list(LEAKS.columns))


def _annotate(this: Run) -> None:
    import pandas as pd

    settings, texts, schema = this.experiment.annotate, this.folder.read("texts"), this.schema
    if not settings.annotators and not settings.imports:
        raise ConfigError(
            "nobody votes: add to the experiment file [[annotate.annotators]] (embedded zero-shot) or [[annotate.imports]] (votes you have)"
        )
    encode = partial(embed, cache=this.folder.path / "cache")
    parts, notes = [], []
    if settings.annotators:
        parts.append(annotate_texts(texts[["text_id", "text"]], settings.annotators, schema, encode=encode))
    for source in settings.imports:
        parts.append(read_votes(source.source, schema, settings=source, texts=texts, base=this.base))
        notes += parts[-1].attrs.get("notes", [])
    votes = pd.concat([part.assign() for part in parts], ignore_index=True)
    need_valid_votes(votes)
    this.folder.note("annotate_notes", notes)
    this.folder.write("annotators", describe_annotators(settings, votes))
    this.folder.write("votes", votes)


def _consensus(this: Run) -> None:
    settings, texts, votes, schema = (
        this.experiment.consensus, this.folder.read("texts"), this.folder.read("votes"), this.schema,
    )  # fmt: skip
    labels = decide(
        votes,
        settings.method,
        labels=schema,
        texts=texts["text_id"],
        threshold=settings.threshold,
        ties=settings.ties,
        weights=settings.weights,
        count=settings.count,
        seed=settings.seed,
        problematic=settings.problematic,
    )
    this.folder.write("labels", labels)
    this.folder.write(
        "agreement", measure_agreement(votes, labels=schema, bootstrap=settings.bootstrap, seed=settings.seed)
    )
    this.folder.write(
        "final_labels", labels.assign(source="consensus")[["text_id", "label", "source", "is_problematic"]]
    )


def _finetune(this: Run) -> dict[str, Any]:
    import pandas as pd

    settings, folder, schema = this.experiment.finetune, this.folder, this.schema
    texts, folds, labels = folder.read("texts"), folder.read("folds"), folder.read("final_labels")
    need_gold(texts, folds, labels, settings)
    folder.note("environment", environment())
    all_arms, results = [], []
    for student in settings.students:
        choice = settings.for_student(student)
        arms = arms_of(student, choice, schema, texts=texts, folds=folds, labels=labels)
        results.append(
            run_arms(
                arms, texts[["text_id", "text"]], folds,
                student=student, recipe=choice.recipe, schema=schema, folder=folder, workers=choice.workers,
                progress=lambda event: this.progress({**event, "event": "advance", "step": event["stage"], "stage": "finetune"}),
            )
        )  # fmt: skip
        all_arms.append(arms.assign(student=student))
    folder.write("arms", pd.concat(all_arms, ignore_index=True))
    for name in Results._fields:
        folder.write(name, pd.concat([getattr(result, name) for result in results], ignore_index=True))
    return {"failed": sum(int(result.trainings["status"].eq("failed").sum()) for result in results)}


def arms_of(student: str, settings: FinetuneSettings, schema: LabelSchema, **tables: pd.DataFrame) -> pd.DataFrame:
    """Return the ARMS of one student; `tables`: texts, folds, labels. The dry run asks for them too."""
    asks_gold = any(arm.startswith("gold") for arm in settings.arms)
    floor = ("floor",) if asks_gold and "floor" not in settings.arms else ()  # costs nothing, and two guards need it
    return make_arms(
        **tables,
        arms=(*settings.arms, *floor),
        seeds=settings.seeds,
        resample=settings.resamples(student),
        schema=schema,
    )


def _compare(this: Run) -> None:
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
        check_consensus(votes[votes["text_id"].isin(seen)], labels[labels["text_id"].isin(seen)]),
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


def _report(this: Run) -> None:
    write_report(this.folder, settings=this.experiment.report)


def _annotate_depends(this: Run) -> Any:
    settings = this.experiment.annotate
    encoders = {a.encoder: encoder_fingerprint(a.encoder) for a in settings.annotators}
    files = [fingerprint_source(source.source, this.base) for source in settings.imports]
    return [settings.model_dump(mode="json"), encoders, files, this.folder.record().get("labels")]


def _finetune_depends(this: Run) -> Any:
    settings = this.experiment.finetune
    used = {settings.for_student(s).recipe.encoder for s in settings.students if STUDENTS[s].USES_ENCODER}
    encoders = {encoder: encoder_fingerprint(encoder) for encoder in sorted(used)}
    return [settings.model_dump(mode="json", exclude={"workers"}), encoders, this.folder.record().get("labels")]


STAGES = (
    Stage(
        "data", (), ("texts", "duplicates", "folds", "leaks"),
        lambda this: [this.experiment.data.model_dump(mode="json"), fingerprint_source(this.experiment.data.source, this.base)],
        _data,
    ),
    Stage("annotate", ("texts",), ("annotators", "votes"), _annotate_depends, _annotate),
    Stage(
        "consensus", ("texts", "votes"), ("labels", "agreement", "final_labels"),
        lambda this: [this.experiment.consensus.model_dump(mode="json"), this.folder.record().get("labels")],
        _consensus,
    ),
    Stage(
        "finetune", ("texts", "folds", "final_labels"), ("arms", "trainings", "curves", "predictions"),
        _finetune_depends,
        _finetune,
    ),
    Stage(
        "compare", ("texts", "folds", "leaks", "votes", "labels", "arms", "trainings", "predictions"),
        ("guards", "scores", "comparison"),
        lambda this: [
            this.experiment.compare.model_dump(mode="json"), this.experiment.name,
            {name: this.folder.record().get(name) for name in ("labels", "annotate_notes")},
        ],
        _compare,
    ),
    Stage(
        "report", tuple(TABLES), (),
        lambda this: this.experiment.model_dump(mode="json"),
        _report,
        ("report.html", "report.md"),
    ),
)  # fmt: skip


def outcome(folder: RunFolder) -> Outcome:
    """Read the verdicts of the students' primary contrasts from a run folder."""
    report = folder.path / "report.html"
    place = report if report.exists() else None
    stages = folder.record().get("stages", {})
    failed = int(stages.get("finetune", {}).get("failed", 0))
    if "compare" not in stages or stages["compare"].get("stale"):
        return Outcome(folder.path, "", OUT_OF_DATE if "compare" in stages else "", place, failed=failed)
    comparison = folder.read("comparison")
    primary = comparison[comparison["is_primary"]].set_index("student")[["verdict", "sentence"]]
    first, *others = folder.record()["settings"]["finetune"]["students"]
    said = {student: str(primary.loc[student, "sentence"]) for student in others if student in primary.index}
    if first not in primary.index:
        return Outcome(folder.path, "", "no primary contrast: its arms were not both trained", place, said, failed)
    verdict, sentence = primary.loc[first]
    return Outcome(folder.path, str(verdict), str(sentence), place, said, failed)
