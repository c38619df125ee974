"""multiverse: the primary contrast under every combination of votes, aggregator, threshold and student."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from consenso.annotate import read_votes
from consenso.compare import compare_arms
from consenso.compare.verdict import INVALID, NO_VERDICT, UNSTABLE_RECIPE
from consenso.consensus import METHODS, ConsensusSettings, code_votes
from consenso.errors import ConfigError, ConsensoError, nearest
from consenso.files import fingerprint_source
from consenso.finetune import StudySettings, run_arms
from consenso.finetune.study import arm_sizes
from consenso.finetune.tracking import Tracking
from consenso.multiverse import (
    DECLARED,
    KEY_DIGITS,
    TRAININGS,
    MultiverseSettings,
    Specification,
    specifications,
    summarise,
)
from consenso.steps.consensus import gold_for_consensus, make_labels
from consenso.steps.finetune import VOTES, arms_of, recipe_of, without_gold_used
from consenso.steps.running import Run
from consenso.store import RunFolder
from consenso.tables import MULTIVERSE

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NOT_RUN = "NOT RUN"
"""The verdict of a specification whose arms cannot be trained."""


def multiverse(this: Run) -> None:
    """Run every specification of [multiverse]; without that section the table is empty."""
    import pandas as pd

    settings, folder = this.experiment.multiverse, this.folder
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    if settings is not None:
        sources = _vote_sources(this, settings)
        declared = _declared(this, settings)
        chosen = specifications(settings, declared, [name for name in sources if name != DECLARED], _students(this))
        if len(chosen) > settings.most:
            raise ConfigError(
                f"multiverse: {len(chosen)} specifications, more than multiverse.most = {settings.most}; vary less, or raise it"
            )
        bench = _Bench(this, settings, sources, keys)
        for number, specification in enumerate(chosen):
            this.progress(
                {
                    "stage": "multiverse",
                    "event": "advance",
                    "step": "specifications",
                    "done": number,
                    "total": len(chosen),
                }
            )
            rows.append({"specification": number, **bench.row(specification), "is_main": specification == declared})
    frame = pd.DataFrame(rows, columns=list(MULTIVERSE.columns))
    folder.write("multiverse", frame)
    folder.note(TRAININGS, sorted(key[:KEY_DIGITS] for key in keys))
    stands = len(frame) and _main_verdict(folder) not in {INVALID, UNSTABLE_RECIPE, NO_VERDICT, ""}
    folder.note("multiverse", summarise(frame, this.experiment.compare.margin) if stands else "")


def _main_verdict(folder: RunFolder) -> str:
    """The verdict of the first student's primary contrast: where it does not stand, no other choice makes it stand."""
    comparison = folder.read("comparison")
    primary = comparison[comparison["is_primary"]]
    first = primary[primary["student"] == folder.record()["settings"]["finetune"]["students"][0]]
    return str(first["verdict"].iloc[0]) if len(first) else ""


def multiverse_depends(this: Run) -> Any:
    """Return what else decides the multiverse: its settings, those of the stages it repeats, imported files."""
    experiment, settings = this.experiment, this.experiment.multiverse
    if settings is None:
        return None
    chosen = experiment.model_dump(mode="json", include={"multiverse", "consensus", "compare", "finetune"})
    for name in ("workers", "checkpoint_minutes", "report_to"):
        del chosen["finetune"][name]
    files = [fingerprint_source(one.source, this.base) for votes in settings.votes.values() for one in votes.imports]
    prints = this.folder.fingerprints()
    main = {name: prints.get(name) for name in ("consensus_gold", "arms", "comparison")}
    return [chosen, files, main, this.folder.record().get("labels")]


def _students(this: Run) -> list[str]:
    return [base for name, base, _ in this.experiment.finetune.studies() if name == base]


def _declared(this: Run, settings: MultiverseSettings) -> Specification:
    """What the experiment itself does: always run, and marked."""
    consensus, students = this.experiment.consensus, settings.students or tuple(_students(this))
    first = _students(this)[0]
    return Specification(
        first if first in students else students[0], DECLARED, consensus.method, consensus.threshold or 0.0
    )


def _vote_sources(this: Run, settings: MultiverseSettings) -> dict[str, Callable[[], pd.DataFrame]]:
    """Name of the votes → how to get them."""
    folder = this.folder
    own = _Votes(this)
    sources: dict[str, Callable[[], pd.DataFrame]] = {DECLARED: lambda: own.declared}
    if settings.each_variant:
        sources |= {name: partial(own.with_variant, name) for name in own.variant_names}
    if settings.leave_one_out:
        sources |= {f"without {name}": partial(own.without, name) for name in own.annotators}
    for name, votes in settings.votes.items():
        if votes.variant is not None and votes.variant not in own.variant_names:
            raise ConfigError(
                f"multiverse.votes.{name}: no variant {votes.variant!r}; there are {', '.join(own.variant_names) or 'none'}."
                f"{nearest(votes.variant, own.variant_names)}"
            )
        if strange := sorted(set(votes.annotators) - set(own.annotators)):
            raise ConfigError(
                f"multiverse.votes.{name}: no annotator {strange[0]!r}; there are {', '.join(own.annotators)}."
                f"{nearest(strange[0], own.annotators)}"
            )
        if votes.annotators:
            sources[name] = partial(own.only, votes.annotators)
        elif votes.variant is not None:
            sources[name] = partial(own.with_variant, votes.variant)
        else:
            sources[name] = partial(own.imported, votes.imports)
    logger.info("multiverse: votes %s of %s", ", ".join(sources), folder.path)
    return sources


@dataclass
class _Votes:
    """The votes of a run, and what else could have been them."""

    this: Run

    @cached_property
    def declared(self) -> pd.DataFrame:
        import pandas as pd

        votes = self.this.folder.read("votes", VOTES)
        if not self.this.experiment.consensus.variants:
            return votes
        return pd.concat([votes, self.of_variants], ignore_index=True)

    @cached_property
    def of_variants(self) -> pd.DataFrame:
        return self.this.folder.read("variant_votes", VOTES)

    @cached_property
    def annotators(self) -> list[str]:
        return sorted(self.declared["annotator"].unique())

    @cached_property
    def variant_names(self) -> list[str]:
        """What stands after the ~ of a variant's name."""
        return sorted({str(name).partition("~")[2] for name in self.of_variants["annotator"].unique()})

    def with_variant(self, name: str) -> pd.DataFrame:
        """The votes with each annotator's variant of this name in its place."""
        import pandas as pd

        variants = self.of_variants[self.of_variants["annotator"].str.endswith(f"~{name}")]
        variants = variants.assign(annotator=variants["annotator"].str.removesuffix(f"~{name}"))
        rest = self.declared[~self.declared["annotator"].isin(variants["annotator"].unique())]
        return pd.concat([rest, variants], ignore_index=True)

    def without(self, name: str) -> pd.DataFrame:
        return self.declared[self.declared["annotator"] != name]

    def only(self, names: tuple[str, ...]) -> pd.DataFrame:
        return self.declared[self.declared["annotator"].isin(names)]

    def imported(self, imports: Any) -> pd.DataFrame:
        import pandas as pd

        texts = self.this.folder.read("texts")[["text_id", "text"]]
        parts = [
            read_votes(one.source, self.this.schema, settings=one, texts=texts, base=self.this.base) for one in imports
        ]
        return pd.concat(parts, ignore_index=True)[VOTES]


@dataclass
class _Bench:
    """Runs specifications; labels are made once per votes, aggregator and threshold."""

    this: Run
    settings: MultiverseSettings
    sources: dict[str, Callable[[], pd.DataFrame]]
    keys: set[str]
    """Of the trainings behind the rows; they are added."""
    labels: dict[Specification, pd.DataFrame] = field(default_factory=dict)
    tracking: Tracking = field(init=False)
    _at_hand: tuple[str, Any] = ("", None)

    def __post_init__(self) -> None:
        self.tracking = Tracking.of_run(self.this.experiment.finetune.report_to, self.this.folder)

    def row(self, specification: Specification) -> dict[str, Any]:
        """Return the row of a specification, without its number."""
        chosen = {
            "student": specification.student,
            "votes": specification.votes,
            "aggregator": specification.aggregator,
            "threshold": f"{specification.threshold:g}" if specification.threshold else "none",
        }
        self._votes(specification.votes)  # votes that cannot be read are an error, not a specification that fails
        try:
            return chosen | self._measure(specification)
        except ConsensoError as error:
            logger.warning("multiverse: %s is not run: %s", chosen, error)
            return {**chosen, "verdict": NOT_RUN}

    def _measure(self, specification: Specification) -> dict[str, Any]:
        folder, experiment, schema = self.this.folder, self.this.experiment, self.this.schema
        texts, folds = folder.read("texts"), folder.read("folds")
        choice, primary = self._choice(specification.student), (experiment.compare.arm, experiment.compare.control)
        arms = arms_of(specification.student, choice, schema, texts=texts, folds=folds, labels=self._labels(specification, texts),
                       votes=self._votes(specification.votes), only=primary)  # fmt: skip
        results = run_arms(
            arms, texts[["text_id", "text"]], folds, student=specification.student, schema=schema, folder=folder,
            recipe=recipe_of(folder, specification.student, choice), workers=choice.workers,
            checkpoint_minutes=choice.checkpoint_minutes,
            budget=self._budget(specification.student), report_to=self.tracking,
        )  # fmt: skip
        self.keys |= set(results.trainings["key"].dropna())
        found = compare_arms(
            results.predictions, texts.set_index("text_id")["gold"], trainings=results.trainings, schema=schema,
            metric=experiment.compare.metric, margin=experiment.compare.margin, alpha=experiment.compare.alpha,
            contrasts=[primary],
            replication="bootstrap" if choice.resamples(specification.student) else "seed",
        )  # fmt: skip
        row = found[found["is_primary"]].iloc[0]
        train = arms[(arms["arm"] == primary[0]) & (arms["part"] == "train")]["text_id"].nunique()
        names = ("difference", "low", "high", "low90", "high90", "verdict", "S", "n")
        return {name: row[name] for name in names} | {"train_texts": train}

    def _budget(self, student: str) -> dict[int, int] | None:
        """The rows that the steps of the main analysis follow from; None for a student that it lacks."""
        arms = self.this.folder.read("arms")
        arms = arms[arms["student"].isin([student, "all"])]
        return arm_sizes(arms) if len(arms) else None

    def _choice(self, student: str) -> StudySettings:
        choice = self.this.experiment.finetune.for_student(student)
        return choice if self.settings.seeds is None else choice.model_copy(update={"seeds": self.settings.seeds})

    def _votes(self, name: str) -> pd.DataFrame:
        """The votes of this name; one set at a time is held."""
        if self._at_hand[0] != name:
            self._at_hand = (name, self.sources[name]())
        votes: pd.DataFrame = self._at_hand[1]
        return votes

    def _labels(self, specification: Specification, texts: pd.DataFrame) -> pd.DataFrame:
        """The labels of a specification, whatever the student."""
        key = replace(specification, student="")
        if key not in self.labels:
            settings = self._consensus_settings(specification)
            votes = code_votes(
                self._votes(specification.votes), self.this.schema, texts=texts["text_id"], count=settings.count
            )
            made = make_labels(self.this, votes, settings, texts, gold_for_consensus(self.this, texts))
            self.labels[key] = without_gold_used(self.this.folder, made.assign(source="consensus"))
        return self.labels[key]

    def _consensus_settings(self, specification: Specification) -> ConsensusSettings:
        """The declared settings with another method and threshold; options that the method does not read are left out."""
        declared = self.this.experiment.consensus
        if (specification.aggregator, specification.threshold) == (declared.method, declared.threshold or 0.0):
            return declared
        reads = METHODS[specification.aggregator].reads
        chosen = declared.model_dump(exclude_unset=True) | {
            "method": specification.aggregator,
            "threshold": specification.threshold or None,
        }
        kept = {name: value for name, value in chosen.items() if name not in {"weights", "families"} or name in reads}
        return ConsensusSettings(**kept)
