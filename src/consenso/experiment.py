"""The flow in order: data → annotate → consensus → finetune → compare → report. Read this first.

A stage is a function below: it reads tables of the run folder, calls its verb, writes tables. A stage whose settings,
input tables and outside files are unchanged is not run again; inside `finetune` the unit is one training.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from consenso.annotate import AnnotateSettings, annotate_texts, check_annotators, describe_annotators, read_votes
from consenso.compare import CompareSettings, check_guards, compare_arms, exit_code, score_runs
from consenso.consensus import ConsensusSettings, check_consensus, decide, measure_agreement
from consenso.data import DataSettings, make_folds, read_dataset
from consenso.encoders import embed, encoder_fingerprint
from consenso.errors import ConfigError, DataError
from consenso.files import fingerprint_source
from consenso.finetune import FinetuneSettings, Results, make_arms, plan_arms, run_arms
from consenso.labels import LabelSchema
from consenso.report import ReportSettings, write_report
from consenso.settings import Settings
from consenso.store import RunFolder, digest

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]
"""Called with events: {"stage": …, "event": "start" | "reuse" | "advance" | "end", …}."""


class Experiment(Settings):
    """What experiment.toml may say: a name, and one section per stage."""

    name: str = "experiment"
    """Names the run folder (runs/<name>) and the data set in the comparison."""
    data: DataSettings
    """Where the texts, their gold and the labels come from, and how they are split."""
    annotate: AnnotateSettings = Field(default_factory=AnnotateSettings)
    """Who votes: embedded annotators and votes that exist already."""
    consensus: ConsensusSettings = Field(default_factory=ConsensusSettings)
    """How votes become labels."""
    finetune: FinetuneSettings = Field(default_factory=FinetuneSettings)
    """Which students are trained on which labels, and how often."""
    compare: CompareSettings = Field(default_factory=CompareSettings)
    """Metric, margin and primary contrast: declared before anything is scored."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """What the report shows."""


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    folder: Path
    """The run folder."""
    verdict: str
    """The verdict word of the primary contrast; '' where nothing was compared."""
    sentence: str
    """The verdict with its numbers."""
    report: Path | None
    """The report's path."""

    @property
    def exit_code(self) -> int:
        """4 if a guard failed, else 0."""
        return exit_code(self.verdict)

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
    read, beside = read_experiment(experiment)
    place = RunFolder(folder if folder is not None else Path("runs") / read.name)
    with place.locked():
        this = Run(read, place, base or beside, progress or (lambda event: None))
        place.note("name", read.name)
        place.note("settings", read.model_dump(mode="json"))
        place.note("environment", environment())
        for stage in STAGES:
            _do(stage, this)
            if stage.name == until:
                break
        return outcome(place)


def read_experiment(
    source: Experiment | str | Path | Mapping[str, Any], changes: Sequence[str] = ()
) -> tuple[Experiment, Path]:
    """Return the experiment and the folder its relative paths start from; `changes` are `section.key=value`."""
    if isinstance(source, Experiment):
        return source, Path.cwd()
    if isinstance(source, Mapping):
        return Experiment.read(_changed(dict(source), changes), "experiment"), Path.cwd()
    path = Path(source)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `consenso init DATA` writes one") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the experiment.toml itself") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    values.setdefault("name", path.stem if path.stem != "experiment" else path.resolve().parent.name)
    return Experiment.read(_changed(values, changes), str(path)), path.resolve().parent


def _changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: write it as section.key=value, for example consensus.method=weighted")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        inner = values
        *sections, last = name.strip().split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {change}: {section!r} is not a section")
        inner[last] = value
    return values


@dataclass(frozen=True)
class Stage:
    """A step of the flow: its name, the tables it reads and writes, what else its result depends on, its deed, its files."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    depends: Callable[[Run], Any]
    deed: Callable[[Run], None]
    files: tuple[str, ...] = ()


def _do(stage: Stage, this: Run) -> None:
    prints = this.folder.fingerprints()
    key = digest([stage.name, {name: prints.get(name) for name in stage.reads}, stage.depends(this)])
    if this.folder.is_done(stage.name, key) and all((this.folder.path / file).exists() for file in stage.files):
        this.progress({"stage": stage.name, "event": "reuse"})
        return
    this.progress({"stage": stage.name, "event": "start"})
    started = time.perf_counter()
    stage.deed(this)
    seconds = round(time.perf_counter() - started, 2)
    finished = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    this.folder.finish(stage.name, key, list(stage.writes), seconds=seconds, finished_at=finished)
    this.progress({"stage": stage.name, "event": "end", "seconds": seconds})


def _data(this: Run) -> None:
    settings = this.experiment.data
    loaded = read_dataset(settings, this.base)
    if loaded.labels is None:
        raise ConfigError("experiment.toml: the data have no gold and state no labels; name them in [[data.labels]]")
    folds, leaks = make_folds(
        loaded.texts,
        test_size=settings.test_size,
        dev_size=settings.dev_size,
        seed=settings.seed,
        leakage=settings.leakage,
    )
    this.folder.note("labels", loaded.labels.as_records())
    this.folder.note("data", {**loaded.record, "notes": folds.attrs.get("notes", [])})
    this.folder.write("texts", loaded.texts)
    this.folder.write("duplicates", loaded.duplicates)
    this.folder.write("folds", folds)
    this.folder.write("leaks", leaks)


def _annotate(this: Run) -> None:
    import pandas as pd

    settings, texts, schema = this.experiment.annotate, this.folder.read("texts"), this.schema
    if not settings.annotators and not settings.imports:
        raise ConfigError(
            "experiment.toml: nobody votes; add [[annotate.annotators]] (embedded zero-shot) or [[annotate.imports]] (votes that exist)"
        )
    encode = partial(embed, cache=this.folder.path / "cache")
    parts, notes = [], []
    if settings.annotators:
        parts.append(annotate_texts(texts[["text_id", "text"]], settings.annotators, schema, encode=encode))
    for source in settings.imports:
        parts.append(read_votes(source.source, schema, settings=source, texts=texts, base=this.base))
        notes += parts[-1].attrs.get("notes", [])
    votes = pd.concat([part.assign() for part in parts], ignore_index=True)
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


def _finetune(this: Run) -> None:
    import pandas as pd

    settings, folder, schema = this.experiment.finetune, this.folder, this.schema
    texts, folds, labels = folder.read("texts"), folder.read("folds"), folder.read("final_labels")
    _need_gold(texts, folds)
    all_arms, results = [], []
    for student in settings.students:
        choice = settings.for_student(student)
        arms = _arms_of(student, choice, schema, texts=texts, folds=folds, labels=labels)
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


def _arms_of(student: str, settings: FinetuneSettings, schema: LabelSchema, **tables: pd.DataFrame) -> pd.DataFrame:
    return make_arms(
        **tables, arms=settings.arms, seeds=settings.seeds, resample=settings.resamples(student), schema=schema
    )


def _need_gold(texts: pd.DataFrame, folds: pd.DataFrame) -> None:
    test = set(folds.loc[folds["part"] == "test", "text_id"])
    if not texts.loc[texts["text_id"].isin(test), "gold"].notna().any():
        raise DataError(
            "no test text has a gold label: a verdict needs human labels on the test texts; label some (300 or more), "
            "or stop at the labels with `consenso consensus`"
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
    first = _first_scoring(this)
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
            leaks=folder.read("leaks"), texts=texts, trainings=trained, labels=labels,
            low_power_below=settings.low_power_below, few_texts_below=settings.few_texts_below,
            gold_public=settings.gold_public, **first, **chosen,
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


def _first_scoring(this: Run) -> dict[str, Any]:
    """The hash of every choice that must stand before the first scoring, now and at the first scoring."""
    chosen = this.experiment.model_dump(mode="json")
    now = digest({name: chosen[name] for name in ("compare", "consensus", "annotate")})
    first = this.folder.record().get("first_scoring")
    if first is None:
        first = {"hash": now, "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        this.folder.note("first_scoring", first)
    return {"hash": now, "first_hash": first["hash"]}


def _report(this: Run) -> None:
    write_report(this.folder, settings=this.experiment.report)


def _annotate_depends(this: Run) -> Any:
    settings = this.experiment.annotate
    encoders = {a.encoder: encoder_fingerprint(a.encoder) for a in settings.annotators}
    files = [fingerprint_source(source.source, this.base) for source in settings.imports]
    return [settings.model_dump(mode="json"), encoders, files, this.folder.record().get("labels")]


STAGES = (
    Stage(
        "data", (), ("texts", "duplicates", "folds", "leaks"),
        lambda this: [this.experiment.data.model_dump(mode="json"), fingerprint_source(this.experiment.data.source, this.base)],
        _data,
    ),
    Stage("annotate", ("texts",), ("annotators", "votes"), _annotate_depends, _annotate),
    Stage(
        "consensus", ("texts", "votes"), ("labels", "agreement", "final_labels"),
        lambda this: this.experiment.consensus.model_dump(mode="json"),
        _consensus,
    ),
    Stage(
        "finetune", ("texts", "folds", "final_labels"), ("arms", "trainings", "curves", "predictions"),
        lambda this: [this.experiment.finetune.model_dump(mode="json", exclude={"workers"}), this.folder.record().get("labels")],
        _finetune,
    ),
    Stage(
        "compare", ("texts", "folds", "leaks", "votes", "labels", "arms", "trainings", "predictions"),
        ("guards", "scores", "comparison"),
        lambda this: this.experiment.compare.model_dump(mode="json"),
        _compare,
    ),
    Stage(
        "report", ("comparison", "guards", "agreement", "curves", "scores", "duplicates"), (),
        lambda this: this.experiment.report.model_dump(mode="json"),
        _report,
        ("report.html", "report.md"),
    ),
)  # fmt: skip


def outcome(folder: RunFolder) -> Outcome:
    """Read the verdict of the primary contrast of the first student from a run folder."""
    report = folder.path / "report.html"
    place = report if report.exists() else None
    if not folder.has("comparison"):
        return Outcome(folder.path, "", "", place)
    comparison = folder.read("comparison")
    settings = folder.record()["settings"]
    chosen = comparison[
        comparison["is_primary"]
        & (comparison["student"] == settings["finetune"]["students"][0])
        & (comparison["metric"] == settings["compare"]["metric"])
        & (comparison["scope"] == "all")
    ]
    if chosen.empty:
        return Outcome(folder.path, "", "no primary contrast: its two arms were not both trained", place)
    row = chosen.iloc[0]
    return Outcome(folder.path, str(row["verdict"]), str(row["sentence"]), place)


def environment() -> dict[str, Any]:
    """Return Python, platform, threads and the versions of the libraries that can change a number."""
    import platform
    from importlib import metadata

    packages = (
        "consenso",
        "numpy",
        "pandas",
        "pyarrow",
        "scikit-learn",
        "scipy",
        "torch",
        "transformers",
        "tokenizers",
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def plan(experiment: Experiment, folder: RunFolder, base: Path) -> list[dict[str, Any]]:
    """Return one row per student: trainings to do and done, estimated seconds and disk bytes; writes nothing.

    Before the votes exist the consensus is unknown, so every text is taken as decided: an upper bound.
    """
    key = STAGES[0].depends(Run(experiment, folder, base, lambda event: None))
    known = folder.is_done("data", digest(["data", {}, key])) and folder.has("final_labels")
    if known:
        texts, folds, labels = (folder.read(name) for name in ("texts", "folds", "final_labels"))
        schema = LabelSchema.from_records(folder.record()["labels"])
    else:
        loaded = read_dataset(experiment.data, base)
        if loaded.labels is None:
            raise ConfigError(
                "experiment.toml: the data have no gold and state no labels; name them in [[data.labels]]"
            )
        texts, schema = loaded.texts, loaded.labels
        settings = experiment.data
        folds, _ = make_folds(
            texts, test_size=settings.test_size, dev_size=settings.dev_size, seed=settings.seed, leakage="off"
        )
        labels = (
            texts[["text_id", "gold"]]
            .rename(columns={"gold": "label"})
            .assign(source="consensus", is_problematic=False)
        )
    rows = []
    for student in experiment.finetune.students:
        choice = experiment.finetune.for_student(student)
        arms = _arms_of(student, choice, schema, texts=texts, folds=folds, labels=labels)
        pieces = plan_arms(
            arms, texts[["text_id", "text"]], folds,
            student=student, recipe=choice.recipe, schema=schema, folder=folder,
        )  # fmt: skip
        training = [piece for piece in pieces if piece.what == "train"]
        rows.append(
            {
                "student": student,
                "known": known,
                "to_do": sum(not piece.done for piece in training),
                "done": sum(piece.done for piece in training),
                "seconds": sum(piece.seconds for piece in pieces)
                / min(experiment.finetune.workers, os.cpu_count() or 1),
                "disk_bytes": sum(piece.bytes for piece in pieces),
                "basis": pieces[0].basis,
            }
        )
    return rows
