"""The [finetune] section of experiment.toml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from consenso.errors import nearest
from consenso.finetune.arm_names import DEFAULT_ARMS, OPEN_NAMES, PRESETS, expand_presets
from consenso.finetune.arms import ARMS, known_arm
from consenso.finetune.recipe import Recipe
from consenso.finetune.selection import InstanceSelection
from consenso.finetune.students import STUDENTS
from consenso.finetune.tracking import TRACKERS
from consenso.settings import Settings

Names = Annotated[tuple[str, ...], Field(min_length=1)]
Seeds = Annotated[int, Field(ge=1)] | Annotated[tuple[int, ...], Field(min_length=1)]
LARGEST_SEED = 2**31 - 1
DECLARED_ONLY = {"steps": "equal", "patience": 0}
"""Keys of the recipe that only a variant may change, and what they are otherwise."""


class _Choice(Settings):
    """Arms and seeds, checked alike wherever they may be chosen."""

    @field_validator("arms", mode="before", check_fields=False)
    @classmethod
    def _without_presets(cls, names: Any) -> Any:
        listed = isinstance(names, str) or (isinstance(names, list | tuple) and all(isinstance(n, str) for n in names))
        return expand_presets(names) if listed else names

    @field_validator("arms", check_fields=False)
    @classmethod
    def _known_arms(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name != "full" and not known_arm(name):
                choice = [*ARMS, *OPEN_NAMES, *PRESETS]
                raise ValueError(f"unknown arm {name!r}; choose from {', '.join(choice)}.{nearest(name, choice)}")
        return names

    @field_validator("seeds", check_fields=False)
    @classmethod
    def _distinct_seeds(cls, seeds: int | tuple[int, ...] | None) -> int | tuple[int, ...] | None:
        if isinstance(seeds, tuple) and (len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > LARGEST_SEED):
            raise ValueError(f"seeds must be distinct, and 0 to {LARGEST_SEED}; found {list(seeds)}")
        return seeds


class StudentOverride(_Choice):
    """What differs for one student: [finetune.overrides.<student>]. Keys left out are as in [finetune]."""

    arms: Names | None = None
    """Train this student on these arms only."""
    seeds: Seeds | None = None
    """Another list or number of seeds."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe that differ."""


class Variant(StudentOverride):
    """A declared sensitivity variant, [finetune.variants.<name>]: reported beside the main analysis, never instead."""

    students: Names | None = None
    """The students to vary; default: all."""
    dev: Literal["own", "gold"] = "own"
    """Whose labels choose the best state: the arm's own source, or gold for every arm."""
    steps: Literal["equal", "epochs"] = "equal"
    """epochs: each arm takes the recipe's epochs over its own rows instead of as many steps as the others."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without a better dev score after which a training ends; 0: never. For all arms."""

    @model_validator(mode="after")
    def _varies(self) -> Self:
        if not self.model_fields_set - {"students", "arms", "seeds"}:
            raise ValueError("a variant must differ in dev, steps, patience or recipe")
        return self

    def changes(self, student: str, recipe: Recipe) -> bool:
        """Return whether this varies anything that the student reads: linear heads have no steps, say."""
        read = STUDENTS[student].RECIPE_FIELDS | ({"encoder"} if STUDENTS[student].USES_ENCODER else set())
        plain = {"steps": "equal", "patience": 0, **recipe.model_dump()}
        given = {**plain, "steps": self.steps, "patience": self.patience, **self.recipe}
        return self.dev == "gold" or any(given[name] != plain[name] for name in given if name in read)


class FinetuneSettings(_Choice):
    """Which students are trained on which labels, how often and how."""

    students: Names = ("frozen",)
    """Keys of STUDENTS: encoder (fine-tuned), frozen (embeddings + linear head), linear (TF-IDF + linear head), contrastive."""
    arms: Names = DEFAULT_ARMS
    """The sets of training labels that are compared: names of arms, or a preset (quick, standard, full) for several."""
    seeds: Seeds = 10
    """The paired seeds: a list, or a number S that means 1 … S."""
    recipe: Recipe = Recipe()
    """Every training choice, shared by all arms."""
    soft: Literal["shares", "votes"] = "shares"
    """Targets of `consensus-soft`: the shares of the consensus method, or the shares of the valid votes."""
    selection: InstanceSelection = InstanceSelection()
    """How `consensus-selected` leaves texts out."""
    resample: bool | None = None
    """Draw the training texts anew (bootstrap) for each seed; default: for students that train deterministically."""
    rescue: bool = True
    """Train all arms of a seed again under the next seed where an arm collapsed: a second analysis beside the first."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Trainings at the same time, each in a process with one thread; auto: one per GPU, or one per core and enough memory."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10
    """A training of the encoder that takes longer saves its state each time: a kill costs no more than this."""
    report_to: tuple[str, ...] = ()
    """Trackers that each training is reported to: tensorboard, mlflow, wandb; they write to trackers/ of the run folder."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Try these before the arms are trained, on dev and under a seed of its own, and train all arms with the best one."""
    overrides: dict[str, StudentOverride] = Field(default_factory=dict)
    """Student → what differs for it: a costly student on fewer arms and seeds, for example."""
    variants: dict[str, Variant] = Field(default_factory=dict)
    """Name → a declared sensitivity variant: the same arms trained otherwise, reported beside the main analysis."""

    @field_validator("students")
    @classmethod
    def _known_students(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, STUDENTS, "student")

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_several(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @field_validator("report_to")
    @classmethod
    def _known_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, TRACKERS, "tracker")

    @field_validator("learning_rates")
    @classmethod
    def _several_rates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if rates and len(set(rates)) < max(2, len(rates)):
            raise ValueError(f"name two or more different rates to choose from, or none; found {list(rates)}")
        return rates

    @field_validator("overrides")
    @classmethod
    def _known_overrides(cls, overrides: dict[str, StudentOverride]) -> dict[str, StudentOverride]:
        _known(tuple(overrides), STUDENTS, "student")
        return overrides

    @field_validator("variants")
    @classmethod
    def _plain_names(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            if not re.fullmatch(r"\w[\w .+-]*", name):
                raise ValueError(f"a variant's name has letters, digits, spaces and . + - _ only; found {name!r}")
        return variants

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for name, variant in self.variants.items():
            if strange := sorted(set(variant.students or ()) - set(self.students)):
                raise ValueError(f"variants.{name}: student {strange[0]!r} is not among finetune.students")
        for student in self.overrides:
            self.for_student(student)
        if self.learning_rates and not any(self.for_student(student).probes(student) for student in self.students):
            raise ValueError(
                f"learning_rates: none of the students {', '.join(self.students)} takes one of them (linear heads have none, and "
                "[finetune.overrides] may fix one); add the student encoder, or leave learning_rates out"
            )
        for _ in self.studies():
            pass
        for name, variant in self.variants.items():
            for student in variant.students or self.students:
                main = self.for_student(student)
                fixes_rate = main.probes(student) and "learning_rate" in variant.recipe
                if not (fixes_rate or variant.changes(student, main.recipe)):
                    raise ValueError(
                        f"variants.{name}: nothing that student {student!r} reads differs from the main settings; name the students "
                        "that it is for, or change something they read"
                    )
        return self

    @model_validator(mode="after")
    def _variants_declare(self) -> Self:
        recipes = [self.recipe.model_dump(), *(override.recipe for override in self.overrides.values())]
        for key, plain in DECLARED_ONLY.items():
            if any(recipe.get(key, plain) != plain for recipe in recipes) and not isinstance(self, StudySettings):
                raise ValueError(f"recipe.{key} may differ in a declared variant only: [finetune.variants.NAME]")
        return self

    def for_student(self, student: str) -> StudySettings:
        """Return the settings of one student, its overrides applied."""
        return self._with(self.overrides.get(student, StudentOverride()))

    def studies(self) -> Iterator[StudyOf]:
        """Yield what is trained: every student, then every student of every variant."""
        for student in self.students:
            yield StudyOf(student, student, self.for_student(student))
        for name, variant in self.variants.items():
            for student in variant.students or self.students:
                yield StudyOf(f"{student} ({name})", student, self.for_student(student)._varied(variant))

    def _varied(self, variant: Variant) -> StudySettings:
        of_recipe = {"steps": variant.steps, "patience": variant.patience, **variant.recipe}
        return self._with(variant.model_copy(update={"recipe": of_recipe}), dev=variant.dev)

    def _with(self, override: StudentOverride, dev: Literal["own", "gold"] = "own") -> StudySettings:
        changes = {name: value for name in ("arms", "seeds") if (value := getattr(override, name)) is not None}
        recipe = {**self.recipe.model_dump(), **override.recipe}
        kept = self.model_dump(exclude={"overrides", "variants", "dev"})
        if "learning_rate" in override.recipe:  # who names a rate of its own has chosen
            kept["learning_rates"] = ()
        return StudySettings(**{**kept, **changes, "recipe": recipe}, dev=dev)

    def probes(self, student: str) -> bool:
        """Return whether the learning rate of this student (a key of STUDENTS) is chosen among `learning_rates`."""
        return bool(self.learning_rates) and "learning_rate" in STUDENTS[student].RECIPE_FIELDS

    def resamples(self, student: str) -> bool:
        """Return whether the training texts of this student are drawn anew for each seed."""
        return STUDENTS[student].DETERMINISTIC if self.resample is None else self.resample


class StudySettings(FinetuneSettings):
    """The settings of one student in one study, its overrides and those of its variant applied."""

    dev: Literal["own", "gold"] = "own"
    """Whose labels choose the best state."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        return self


class StudyOf(NamedTuple):
    """One student under one set of choices."""

    student: str
    """As in the tables: `frozen`, or `frozen (gold dev)` for a variant."""
    base: str
    """The key of STUDENTS."""
    settings: StudySettings


def _known(names: tuple[str, ...], registry: Mapping[str, object], kind: str) -> tuple[str, ...]:
    for name in names:
        if name not in registry:
            raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(registry)}.{nearest(name, registry)}")
    if len(set(names)) < len(names):
        raise ValueError(f"each {kind} may stand once")
    return names
