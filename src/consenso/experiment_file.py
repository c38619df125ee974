"""What experiment.toml may say, and reading it: one section per stage, each class beside its verb."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from consenso.annotate import AnnotateSettings, LLMAnnotator
from consenso.annotate.endpoints import takes_batches
from consenso.compare import CompareSettings
from consenso.consensus import ConsensusSettings
from consenso.data import DataSettings
from consenso.errors import ConfigError, nearest
from consenso.finetune import ARMS, FinetuneSettings, is_listed, known_arm
from consenso.multiverse import MultiverseSettings
from consenso.report import ReportSettings
from consenso.settings import Settings


class Experiment(Settings):
    """What experiment.toml may say: a name, and one section per stage."""

    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")] = "experiment"
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
    multiverse: MultiverseSettings | None = None
    """Which choices are varied, to see whether the verdict hangs on one of them; none by default."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """What the report shows."""

    @model_validator(mode="after")
    def _compared_arms_are_trained(self) -> Self:
        """A misspelt arm must be found before hours of training, not after."""
        trained = [arm for study in self.finetune.studies() for arm in study.settings.arms]
        asked = [
            self.compare.arm,
            self.compare.control,
            *(a for c in self.compare.contrasts for a in (c.arm, c.control)),
        ]
        for arm in asked:
            if not known_arm(arm):
                raise ValueError(f"compare: unknown arm {arm!r}; choose from {', '.join(ARMS)}.{nearest(arm, ARMS)}")
            if not is_listed(arm, trained) and (arm in asked[2:] or {"consensus", "gold-aligned"} != set(asked[:2])):
                raise ValueError(f"compare: arm {arm!r} is compared but not trained; add it to finetune.arms")
        return self

    @model_validator(mode="after")
    def _probed_rates_serve_the_multiverse(self) -> Self:
        """A student that only the multiverse trains would run at a rate that nobody chose."""
        for student in () if self.multiverse is None else self.multiverse.students:
            if student not in self.finetune.students and self.finetune.for_student(student).probes(student):
                raise ValueError(
                    f"multiverse.students: finetune.learning_rates chooses rates for finetune.students alone, and {student!r} is not "
                    "among them; add it there, or set a rate in [finetune.overrides]"
                )
        return self

    def with_seeds(self, seeds: int, alpha: float | None = None) -> Self:
        """Return the experiment with S seeds, 1 … S or the first S of its list, and perhaps another level of the test."""
        listed = self.finetune.seeds
        chosen = (
            seeds
            if isinstance(listed, int)
            else (*listed, *(s for s in range(1, seeds + 1 + len(listed)) if s not in listed))[:seeds]
        )
        changes: dict[str, Any] = {"finetune": self.finetune.model_copy(update={"seeds": chosen})}
        if alpha is not None:
            changes["compare"] = self.compare.model_copy(update={"alpha": alpha})
        return self.model_copy(update=changes)

    def by_batch(self) -> Self:
        """Return the experiment with its LLM annotators asked by batch files, where their endpoints take them."""
        chosen = [
            one.model_copy(update={"batch": True})
            if isinstance(one, LLMAnnotator) and takes_batches(one, self.annotate.endpoints)
            else one
            for one in self.annotate.annotators
        ]
        if not any(isinstance(one, LLMAnnotator) and one.batch for one in chosen):
            raise ConfigError(
                "--batch: no annotator's endpoint takes batch files as far as known; set batch = true in [annotate.endpoints.NAME]"
            )
        return self.model_copy(update={"annotate": self.annotate.model_copy(update={"annotators": chosen})})


def read_experiment(
    source: Experiment | str | Path | Mapping[str, Any], changes: Sequence[str] = ()
) -> tuple[Experiment, Path]:
    """Return the experiment and the folder its relative paths start from; `changes` are `section.key=value`."""
    if isinstance(source, Experiment):
        return source, Path.cwd()
    if isinstance(source, Mapping):
        return Experiment.read(with_changes(dict(source), changes), "experiment"), Path.cwd()
    path = Path(source)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `consenso init DATA` writes one") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the experiment.toml itself") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    values.setdefault("name", run_name(path.stem if path.stem != "experiment" else path.resolve().parent.name))
    return Experiment.read(with_changes(values, changes), str(path)), path.resolve().parent


def run_name(stem: str) -> str:
    """Return the name of a run that a file's stem gives: without characters that no name may have."""
    return re.sub(r"[^\w .+-]", "-", stem).lstrip(" .+-") or "experiment"


def with_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return the sections with `section.key=value` changes; a value that is no TOML is text."""
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
