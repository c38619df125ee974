"""The flow in order: data → annotate → consensus → finetune → compare → report. Read this first.

A stage (`STAGES`, below) reads tables of the run folder, calls its verb, writes tables; its deed is a function in
`steps/`. A stage whose settings, input tables and outside files are unchanged is not run again; inside `finetune` the
unit is one training.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from consenso.compare import exit_code
from consenso.compare.freezing import FILE, Frozen, freeze, read_frozen, write_frozen
from consenso.compare.untilverdict import level_of, look_plan, next_seeds
from consenso.errors import ConfigError, nearest
from consenso.experiment_file import Experiment, read_experiment
from consenso.files import fingerprint_source
from consenso.preconditions import need_annotators, need_encoders, need_extras
from consenso.report import write_report
from consenso.report.paper import write_paper
from consenso.steps.annotate import annotate, annotate_depends
from consenso.steps.compare import compare, declared_of
from consenso.steps.consensus import consensus
from consenso.steps.data import data
from consenso.steps.finetune import finetune, finetune_depends
from consenso.steps.multiverse import multiverse, multiverse_depends
from consenso.steps.running import Progress, Run
from consenso.store import RunFolder, digest
from consenso.tables import TABLES

logger = logging.getLogger(__name__)

OUT_OF_DATE = "out of date: settings or data have changed since; `consenso run` brings it up to date"
"""Said instead of a verdict that an earlier stage has overtaken."""


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
        main = [sentence for student, sentence in self.others.items() if " (" not in student]  # variants decide nothing
        words = [self.verdict, *(sentence.partition(":")[0] for sentence in main)]
        return max(map(exit_code, words)) or (3 if self.failed else 0)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p><strong>{escape(self.sentence)}</strong><br>{escape(str(self.report or self.folder))}</p>"


def run(
    experiment: Experiment | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    until: str = "report",
    progress: Progress | None = None,
    base: Path | None = None,
    wait: bool = True,
    declared: Experiment | None = None,
    file: Path | None = None,
) -> Outcome:
    """Do what is not yet done of an experiment, up to and with the stage `until`, and return its outcome.

    `experiment` is an experiment.toml, its content as a mapping, or an `Experiment`; `folder` defaults to runs/<name>;
    relative paths start from the file's folder (`base` overrides it); without `wait`, batch files are submitted, and
    collected by the next call. `declared`: the experiment before seeds were added (`run_until_verdict`). `file`: the
    experiment.toml, where `experiment` was read from one before; the folder notes it.
    Raises `ConsensoError`s with one line each; a killed run resumes when called again.
    """
    if until not in (names := [stage.name for stage in STAGES]):
        raise ConfigError(f"unknown stage {until!r}; choose one of {', '.join(names)}.{nearest(until, names)}")
    read, beside = read_experiment(experiment)
    place = RunFolder(folder if folder is not None else Path("runs") / read.name)
    if declared is None:
        read, declared = under_the_rule(read, place)
    for need in (need_extras, need_encoders, need_annotators):
        need(read, names[: names.index(until) + 1])
    with place.locked():
        this = Run(read, place, base or beside, progress or (lambda event: None), wait, declared)
        _note_file(place, Path(experiment) if isinstance(experiment, (str, Path)) else file)
        place.note("name", read.name)
        place.note("settings", read.model_dump(mode="json"))
        for stage in STAGES:
            _do(stage, this)
            if stage.name == until:
                break
        _mark_stale(this)
        return outcome(place)


def _note_file(place: RunFolder, file: Path | None) -> None:
    """Note whose folder it is, and say so where another experiment file used it last."""
    if file is None:
        return
    before, now = place.record().get("experiment_file"), str(file.resolve())
    if before not in {None, now} and Path(before).exists():
        logger.warning(
            "%s was last used by %s; this run of %s overwrites its results (give one of them another `name`, or use --out)",
            place.path, before, file,
        )  # fmt: skip
    place.note("experiment_file", now)


def under_the_rule(experiment: Experiment, folder: RunFolder) -> tuple[Experiment, Experiment | None]:
    """Return the experiment with the seeds and level that `run_until_verdict` came to in this folder, and the declared one.

    Where no seeds were added here: the experiment as it is, and None.
    """
    decisions = folder.record().get("until_verdict")
    if not decisions:
        return experiment, None
    level = level_of(experiment.compare.until, experiment.compare.alpha)
    return experiment.with_seeds(int(decisions[-1]["seeds"]), level), experiment


def run_until_verdict(
    experiment: Experiment | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    progress: Progress | None = None,
    base: Path | None = None,
    file: Path | None = None,
) -> Outcome:
    """Run with a pilot of seeds, add seeds as `compare.until` declares, stop at a verdict or where seeds cannot help.

    Each decision is noted in run.json under `until_verdict`: seeds, action, reason. A killed run goes on when called
    again: finished trainings are read and the same decisions are taken. Raises as `run` does.
    """
    read, beside = read_experiment(experiment)
    place, base = RunFolder(folder if folder is not None else Path("runs") / read.name), base or beside
    file = Path(experiment) if isinstance(experiment, (str, Path)) else file
    rule, planned, decisions = read.compare.until, None, []
    seeds, level = look_plan(rule)[0] if rule.rule == "looks" else rule.pilot, level_of(rule, read.compare.alpha)
    while True:
        chosen = read.with_seeds(seeds, level)
        found = run(chosen, place.path, until="compare", progress=progress, base=base, declared=read, file=file)
        if not found.verdict:
            break
        decision = next_seeds(
            place.read("comparison"),
            rule,
            margin=read.compare.margin,
            alpha=read.compare.alpha,
            planned=planned,
            trained=seeds,
        )
        decisions.append({**asdict(decision), "seeds": seeds, "next": decision.seeds})
        place.note("until_verdict", decisions)
        logger.info("until a verdict: %s at %d seeds: %s", decision.action, seeds, decision.reason)
        if decision.action == "stop" or decision.seeds <= seeds:
            break
        seeds, planned = decision.seeds, decision.seeds
    return run(chosen, place.path, progress=progress, base=base, declared=read, file=file)


def freeze_experiment(
    experiment: Experiment | str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    progress: Progress | None = None,
    base: Path | None = None,
) -> Frozen:
    """Write frozen.json into the run folder: what is declared before the first scoring, its hash and the time.

    The data stage runs first, so that texts and split are part of it; votes are too where they exist. Raises
    `ConfigError` where another declaration was frozen in this folder.
    """
    read, beside = read_experiment(experiment)
    run(read, folder, until="data", progress=progress, base=base or beside)
    place = RunFolder(folder if folder is not None else Path("runs") / read.name)
    with place.locked():
        this = Run(read, place, base or beside, progress or (lambda event: None))
        frozen = freeze(declared_of(this), scorings=place.record().get("scorings", []))
        kept = read_frozen(write_frozen(frozen, place.path))
        place.note("frozen", {"at": kept.at, "hash": kept.hash, "after_scoring": kept.scores_seen})
    return kept


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


def _report(this: Run) -> None:
    write_report(this.folder, settings=this.experiment.report)
    write_paper(this.folder, settings=this.experiment.report)


STAGES = (
    Stage(
        "data", (), ("texts", "duplicates", "folds", "leaks"),
        lambda this: [this.experiment.data.model_dump(mode="json"), fingerprint_source(this.experiment.data.source, this.base)],
        data,
    ),
    Stage(
        "annotate", ("texts", "folds"), ("candidates", "recall", "gold_used", "annotators", "votes", "variant_votes", "variants"),
        annotate_depends, annotate,
    ),
    Stage(
        "consensus", ("texts", "folds", "annotators", "votes", "variant_votes"),
        (
            "consensus_gold", "labels", "agreement", "reliability", "confidence", "missed", "panels", "gold_noise",
            "gold_bound", "final_labels",
        ),
        lambda this: [this.experiment.consensus.model_dump(mode="json"), this.folder.record().get("labels")],
        consensus,
    ),
    Stage(
        "finetune", ("texts", "folds", "votes", "labels", "panels", "final_labels", "gold_used", "consensus_gold"),
        ("arms", "trainings", "curves", "predictions"),
        finetune_depends,
        finetune,
    ),
    Stage(
        "compare",
        (
            "texts", "folds", "leaks", "votes", "labels", "arms", "trainings", "predictions", "panels", "gold_used",
            "consensus_gold",
        ),
        (
            "guards", "scores", "comparison", "class_differences", "seed_differences", "calibration", "calibration_bins",
            "learning_curve", "value", "frontier",
        ),
        lambda this: [
            this.experiment.compare.model_dump(mode="json"), this.experiment.name,
            {name: this.folder.record().get(name) for name in ("labels", "annotate_notes", "panel_arms")},
            fingerprint_source(str(this.folder.path / FILE), Path()) if (this.folder.path / FILE).exists() else None,
        ],
        compare,
    ),
    Stage(
        "multiverse",
        ("texts", "folds", "votes", "variant_votes", "annotators", "gold_used"),
        ("multiverse",), multiverse_depends, multiverse,
    ),
    Stage(
        "report", tuple(TABLES), (),
        lambda this: this.experiment.model_dump(mode="json"),
        _report,
        ("report.html", "report.md", "paper.md", "paper.tex", "paper.bib"),
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
    listed: list[str] = folder.record()["settings"]["finetune"]["students"]
    found = map(str, comparison["student"].unique())
    first, *others = list(dict.fromkeys([*listed, *found]))  # variants last
    said = {student: str(primary.loc[student, "sentence"]) for student in others if student in primary.index}
    if first not in primary.index:
        return Outcome(folder.path, "", "no primary contrast: its arms were not both trained", place, said, failed)
    verdict, sentence = primary.loc[first]
    return Outcome(folder.path, str(verdict), str(sentence), place, said, failed)
