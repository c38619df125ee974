"""The flow in order: data → annotate → consensus → finetune → compare → report. Read this first.

A stage is a function below: it reads tables of the run folder, calls its verb, writes tables. A stage whose settings,
input tables and outside files are unchanged is not run again; inside `finetune` the unit is one training.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate import (
    EmbeddingAnnotator,
    calibrate_confidence,
    check_annotators,
    describe_annotators,
    read_votes,
)
from consenso.annotate.annotators import CausalAnnotator, NliAnnotator, prompts_of
from consenso.annotate.asking import embedding_votes, make_voters, merge_votes
from consenso.annotate.collecting import Voters, ask_all, votes_from_log
from consenso.annotate.counting import VoteCount
from consenso.annotate.endpoints import read_environment
from consenso.annotate.exemplars import draw_examples, needs_gold
from consenso.annotate.narrowing import narrow_labels
from consenso.annotate.prompting import Example, read_prompt
from consenso.annotate.sources import FolderSource
from consenso.annotate.variants import VariantCount
from consenso.annotate.votelog import VoteLog
from consenso.compare import check_guards, compare_arms, exit_code, score_runs
from consenso.consensus import (
    METHODS,
    CodedVotes,
    ConsensusSettings,
    agreement_of,
    check_consensus,
    code_votes,
    decide,
    describe_gold,
    describe_panel,
    estimate_reliability,
)
from consenso.data import Loaded, find_leaks, make_folds, read_dataset
from consenso.encoders import embed, encoder_fingerprint
from consenso.errors import ConfigError, nearest
from consenso.experiment_file import Experiment, read_experiment
from consenso.files import fingerprint_source
from consenso.finetune import STUDENTS, FinetuneSettings, Results, make_arms, run_arms
from consenso.labels import LabelSchema
from consenso.light_model import out_of_fold, text_classifier
from consenso.preconditions import has_test_gold, need_extras, need_gold, need_labels, need_valid_votes
from consenso.report import write_report
from consenso.store import RunFolder, digest, environment
from consenso.tables import LEAKS, RECALL, TABLES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

OUT_OF_DATE = "out of date: settings or data have changed since; `consenso run` brings it up to date"
"""Said instead of a verdict that an earlier stage has overtaken."""
FOLDS = 5
"""Of the light classifier whose probabilities a consensus method reads."""
MAPPED = 5_000
"""Texts on which a panel is mapped where there is no gold."""
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
    wait: bool = True
    """Whether to wait for batch files."""

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
    wait: bool = True,
) -> Outcome:
    """Do what is not yet done of an experiment, up to and with the stage `until`, and return its outcome.

    `experiment` is an experiment.toml, its content as a mapping, or an `Experiment`; `folder` defaults to runs/<name>;
    relative paths start from the file's folder (`base` overrides it); without `wait`, batch files are submitted, and
    collected by the next call.
    Raises `ConsensoError`s with one line each; a killed run resumes when called again.
    """
    if until not in (names := [stage.name for stage in STAGES]):
        raise ConfigError(f"unknown stage {until!r}; choose one of {', '.join(names)}.{nearest(until, names)}")
    read, beside = read_experiment(experiment)
    place = RunFolder(folder if folder is not None else Path("runs") / read.name)
    need_extras(read, names[: names.index(until) + 1])
    with place.locked():
        this = Run(read, place, base or beside, progress or (lambda event: None), wait)
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


def _annotate(this: Run) -> dict[str, Any]:
    settings, folder, schema = this.experiment.annotate, this.folder, this.schema
    if not settings.annotators and not settings.imports:
        raise ConfigError(
            "nobody votes: add to the experiment file [[annotate.annotators]] (LLMs, embedded zero-shot) or "
            "[[annotate.imports]] (votes you have)"
        )
    drawn = _prepare_prompts(this)
    voters = make_voters(settings, schema, read_environment(this.base), base=this.base, drawn=drawn)
    at_hand, notes = _votes_at_hand(this)
    if not voters.any:
        _write_votes(this, [at_hand], [], voters, notes)
        return {}
    source = FolderSource(folder, only=asked_ids(this), narrowed=settings.candidates is not None)
    with VoteLog(vote_log_path(this)) as log:
        asked = ask_all(
            voters.askers, voters.local, source, log, settings=settings, environment=voters.environment,
            progress=lambda state: this.progress({"stage": "annotate", "event": "advance", "step": "answers", **state}),
            wait=this.wait,
        )  # fmt: skip
        folder.note("vote_log", {"path": str(log.path), **asdict(asked.ledger), "statement": asked.ledger.statement})
        if not settings.accept_incomplete:
            asked.raise_incomplete()
        votes = merge_votes(votes_from_log(log, asked.lanes, source), source, at_hand)
        of_variants = votes_from_log(log, asked.variant_lanes, source)
        _write_votes(this, votes, of_variants, asked.voters, notes + asked.notes)
    return {"failed": asked.failed + asked.missing}


def vote_log_path(this: Run) -> Path:
    """Where the vote log stands: in the run folder, or where several runs share one (relative to the experiment file)."""
    shared = this.experiment.annotate.log
    return this.folder.path / "votelog.sqlite" if shared is None else this.base / shared


def examples_of(this: Run) -> dict[str, list[Example]]:
    """Annotator → the examples that it draws from train gold."""
    settings, folder = this.experiment.annotate, this.folder
    if not needs_gold(settings):
        return {}
    folds = folder.read("folds")
    train = set(folds.loc[folds["part"] == "train", "text_id"])
    return draw_examples(settings, folder.read("texts")[["text_id", "text", "gold"]], train, this.schema)


def _prepare_prompts(this: Run) -> dict[str, list[Example]]:
    """Examples drawn from train gold, and the candidates of two-phase annotation; the texts whose gold this takes are noted."""
    import pandas as pd

    settings, folder, used = this.experiment.annotate, this.folder, []
    drawn = examples_of(this)
    if needs_gold(settings):
        texts, folds = folder.read("texts")[["text_id", "text", "gold"]], folder.read("folds")
        train = set(folds.loc[folds["part"] == "train", "text_id"])
        shown = {example.text_id for examples in drawn.values() for example in examples}
        used += [{"text_id": text_id, "purpose": "examples"} for text_id in shown]
        if settings.candidates is not None:
            narrowed = narrow_labels(texts, train - shown, this.schema, settings.candidates)
            folder.write("candidates", narrowed.candidates)
            folder.write("recall", narrowed.recall)
            used += [{"text_id": text_id, "purpose": "candidates"} for text_id in narrowed.used]
    if settings.candidates is None:
        folder.write("candidates", pd.DataFrame(columns=["text_id", "offered"]))
        folder.write("recall", pd.DataFrame(columns=list(RECALL.columns)))
    folder.write("gold_used", pd.DataFrame(used, columns=["text_id", "purpose"]))
    return drawn


def _votes_at_hand(this: Run) -> tuple[pd.DataFrame, list[str]]:
    """The votes of embedded annotators and those that are imported, and the notes of reading them."""
    import pandas as pd

    settings, notes = this.experiment.annotate, []
    if all(not isinstance(one, EmbeddingAnnotator) for one in settings.annotators) and not settings.imports:
        return pd.DataFrame(), []
    texts = this.folder.read("texts")[["text_id", "text"]]
    encode = partial(embed, cache=this.folder.path / "cache")
    parts = [embedding_votes(texts, settings, this.schema, encode)]
    for source in settings.imports:
        parts.append(read_votes(source.source, this.schema, settings=source, texts=texts, base=this.base))
        notes += parts[-1].attrs.get("notes", [])
    return pd.concat([part.assign() for part in parts if len(part)], ignore_index=True), notes


def asked_ids(this: Run) -> set[str] | None:
    """The texts that are put to the annotators; None: all."""
    parts = set(this.experiment.annotate.parts)
    if parts == {"train", "dev", "test"}:
        return None
    folds = this.folder.read("folds")
    return set(folds.loc[folds["part"].isin(parts), "text_id"])


def _write_votes(
    this: Run, votes: Iterable[pd.DataFrame], of_variants: Iterable[pd.DataFrame], voters: Voters, notes: list[str]
) -> None:
    """Write the votes, and apart from them those of variants; one part at a time is held."""
    folder, counted = this.folder, VoteCount()
    variant_of = {asker.name: asker.variant_of for asker in voters.askers if asker.variant_of}
    compared = VariantCount(variant_of)

    def own() -> Iterator[pd.DataFrame]:
        for part in votes:
            compared.add(part)
            mine = part[~part["annotator"].isin(list(variant_of))]
            counted.add(mine)
            yield mine

    folder.write_parts("votes", own())
    if not counted.valid:
        need_valid_votes(folder.read("votes"), asked=not this.experiment.annotate.imports)
    folder.write_parts("variant_votes", of_variants)
    folder.write("variants", compared.table())
    folder.note("annotate_notes", notes)
    folder.write("annotators", describe_annotators(this.experiment.annotate, counted.annotators, voters))


def _consensus(this: Run) -> None:
    settings, folder, schema = this.experiment.consensus, this.folder, this.schema
    texts, annotators = folder.read("texts"), folder.read("annotators")
    sources = [folder.table_path("votes"), *([folder.table_path("variant_votes")] if settings.variants else [])]
    votes = code_votes(sources, schema, texts=texts["text_id"], count=settings.count)
    used = _gold_for_consensus(this, texts)
    labels = decide(
        votes,
        settings.method,
        threshold=settings.threshold,
        ties=settings.ties,
        weights=settings.weights or None,
        families=_families(settings, annotators, votes.annotators),
        gold=None if used.empty else used,
        probabilities=_probabilities(this, texts, votes),
        iterations=settings.iterations,
        seed=settings.seed,
        problematic=settings.problematic,
    )
    folder.write("consensus_gold", used.rename_axis("text_id").reset_index()[["text_id"]].assign(purpose="consensus"))
    asked = folder.count("votes") + (folder.count("variant_votes") if settings.variants else 0)
    folder.note("consensus", {**labels.attrs["consensus"], "votes": asked, "invalid_votes": asked - len(votes.text)})
    folder.write("labels", labels)
    folder.write(
        "agreement",
        agreement_of(
            votes,
            bootstrap=settings.bootstrap,
            seed=settings.seed,
            scale="interval" if settings.ordered else "nominal",
        ),
    )
    folder.write("reliability", estimate_reliability(votes, draws=min(settings.bootstrap, 200), seed=settings.seed))
    folder.write("final_labels", labels.assign(source="consensus")[["text_id", "label", "source", "is_problematic"]])
    _hold_against_gold(this, labels, texts)


def _gold_for_consensus(this: Run, texts: pd.DataFrame) -> pd.Series:
    """Gold by text id that consensus may learn from: of `gold_texts` training texts, drawn at random."""
    settings, folds = this.experiment.consensus, this.folder.read("folds")
    gold = _open_gold(this.folder, texts)
    if not settings.gold_texts:
        return gold.iloc[:0]
    dev = set(folds.loc[folds["part"] == "dev", "text_id"])
    train = gold[~gold.index.isin(dev)].sort_index()
    if len(train) < settings.gold_texts:
        raise ConfigError(
            f"consensus.gold_texts = {settings.gold_texts}: only {len(train)} training texts have gold; ask for fewer, "
            "or choose a method that needs none"
        )
    return train.sample(settings.gold_texts, random_state=settings.seed)


def _families(settings: ConsensusSettings, annotators: pd.DataFrame, voted: Sequence[str]) -> dict[str, str] | None:
    """Annotator → model family, as the settings or the annotators table have it, where the method reads it."""
    if "families" not in METHODS[settings.method].reads:
        return None
    known = annotators.dropna(subset=["family"]).set_index("annotator")["family"].astype(str).to_dict()
    return {
        name: family for name, family in (known | settings.families).items() if name in {*voted, *settings.families}
    }


def _probabilities(this: Run, texts: pd.DataFrame, votes: CodedVotes) -> np.ndarray | None:
    """What a light classifier, trained on the majority's labels of other texts, says of each text, where that is read."""
    if "probabilities" not in METHODS[this.experiment.consensus.method].reads:
        return None
    import numpy as np

    codes = this.schema.codes(decide(votes, "majority")["label"])
    learned, words = codes >= 0, texts["text"].astype(str).to_numpy(dtype=object)
    if learned.sum() < FOLDS:
        raise ConfigError(
            f"consensus.method = 'crowdlab': only {int(learned.sum())} texts have a majority label to train its classifier "
            f"on, and it needs {FOLDS}; choose 'dawid_skene_map'"
        )
    found = np.full((len(codes), len(this.schema)), np.nan)
    rng = np.random.default_rng(this.experiment.consensus.seed)
    found[learned] = out_of_fold(words[learned], codes[learned], len(this.schema), FOLDS, rng)
    if not learned.all():  # tied texts: no fold has learned from them
        classify = text_classifier(list(words[learned]), codes[learned], len(this.schema))
        found[~learned] = classify(words[~learned])
    return found


def _hold_against_gold(this: Run, labels: pd.DataFrame, texts: pd.DataFrame) -> None:
    """Write what train and dev gold says of the votes: calibration, who is missed, and of gold itself."""
    folder, gold, settings = this.folder, _open_gold(this.folder, texts), this.experiment.consensus
    sample = texts["text_id"].sample(min(len(texts), MAPPED), random_state=settings.seed)
    columns = ["text_id", "annotator", "repetition", "label", "status", "confidence", "cost"]
    seen = folder.read("votes", columns, texts=gold.index if len(gold) else sample)
    folder.write("confidence", calibrate_confidence(seen, gold))
    missed, panels, sentence = describe_panel(seen, gold if len(gold) else None, labels=this.schema, seed=settings.seed)
    folder.write("missed", missed)
    folder.write("panels", panels)
    folder.note("panel", sentence)
    noise, bound = describe_gold(labels, seen, gold, this.schema)
    folder.write("gold_noise", noise)
    folder.write("gold_bound", bound)


def _open_gold(folder: RunFolder, texts: pd.DataFrame) -> pd.Series:
    """Gold by text id that may be looked at before the verdict: of train and dev texts."""
    folds = folder.read("folds")
    tested = set(folds.loc[folds["part"] == "test", "text_id"])
    seen = set(folds.loc[folds["part"] != "test", "text_id"]) - tested
    return texts[texts["text_id"].isin(seen)].set_index("text_id")["gold"].dropna()


def _finetune(this: Run) -> dict[str, Any]:
    import pandas as pd

    settings, folder, schema = this.experiment.finetune, this.folder, this.schema
    texts, folds, labels = folder.read("texts"), folder.read("folds"), _without_gold_used(folder)
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


def _without_gold_used(folder: RunFolder) -> pd.DataFrame:
    """The final labels; none for texts whose gold made labels (examples, candidates, learned weights): they train no aligned arm."""
    labels = folder.read("final_labels")
    for name in ("gold_used", "consensus_gold"):
        if folder.has(name):
            used = labels["text_id"].isin(folder.read(name)["text_id"])
            labels = labels.assign(label=labels["label"].mask(used, None))
    return labels


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


HOW_NOT_WHAT: dict[str, Any] = {
    **dict.fromkeys(("endpoints", "log", "budget", "drain_s", "failed_limit", "accept_incomplete"), True),
    "annotators": {"__all__": {"batch", "price", "batch_tokens", "batch_size"}},
}
"""Settings of [annotate] that change how answers are got, and no answer."""


def _report(this: Run) -> None:
    write_report(this.folder, settings=this.experiment.report)


def _annotate_depends(this: Run) -> Any:
    settings = this.experiment.annotate
    embedded = [one for one in settings.annotators if isinstance(one, EmbeddingAnnotator)]
    encoders = {one.encoder: encoder_fingerprint(one.encoder) for one in embedded}
    files = [fingerprint_source(source.source, this.base) for source in settings.imports]
    named = {prompt for one in settings.annotators for prompt in prompts_of(one)}
    prompts = {prompt: read_prompt(prompt, this.base).text for prompt in named}
    here = [one for one in settings.annotators if isinstance(one, (NliAnnotator, CausalAnnotator))]
    encoders |= {one.model: encoder_fingerprint(one.model) for one in here if Path(one.model).expanduser().is_dir()}
    answers = settings.model_dump(mode="json", exclude=HOW_NOT_WHAT)
    return [answers, encoders, files, prompts, this.folder.record().get("labels")]


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
    Stage(
        "annotate", ("texts", "folds"), ("candidates", "recall", "gold_used", "annotators", "votes", "variant_votes", "variants"),
        _annotate_depends, _annotate,
    ),
    Stage(
        "consensus", ("texts", "folds", "annotators", "votes", "variant_votes"),
        (
            "consensus_gold", "labels", "agreement", "reliability", "confidence", "missed", "panels", "gold_noise",
            "gold_bound", "final_labels",
        ),
        lambda this: [this.experiment.consensus.model_dump(mode="json"), this.folder.record().get("labels")],
        _consensus,
    ),
    Stage(
        "finetune", ("texts", "folds", "final_labels", "gold_used", "consensus_gold"), ("arms", "trainings", "curves", "predictions"),
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
