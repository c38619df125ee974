"""The [finetune] section of experiment.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from consenso.errors import nearest
from consenso.finetune.arms import ARMS, DEFAULT_ARMS
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import STUDENTS
from consenso.settings import Settings


class StudentOverride(Settings):
    """What differs for one student: [finetune.overrides.<student>]. Keys left out are as in [finetune]."""

    arms: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Train this student on these arms only."""
    seeds: Annotated[int, Field(ge=1)] | Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Another list or number of seeds."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe that differ."""


class FinetuneSettings(Settings):
    """Which students are trained on which labels, how often and how."""

    students: Annotated[tuple[str, ...], Field(min_length=1)] = ("frozen",)
    """Keys of STUDENTS: encoder (fine-tuned), frozen (embeddings + linear head), linear (TF-IDF + linear head)."""
    arms: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_ARMS
    """Keys of ARMS: the sets of training labels that are compared."""
    seeds: Annotated[int, Field(ge=1)] | Annotated[tuple[int, ...], Field(min_length=1)] = 10
    """The paired seeds: a list, or a number S that means 1 … S."""
    recipe: Recipe = Recipe()
    """Every training choice, shared by all arms."""
    resample: bool | None = None
    """Draw the training texts anew (bootstrap) for each seed; default: for students that train deterministically."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Trainings at the same time, each in a process with one thread."""
    overrides: dict[str, StudentOverride] = Field(default_factory=dict)
    """Student → what differs for it: a costly student on fewer arms and seeds, for example."""

    @field_validator("students")
    @classmethod
    def _known_students(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, STUDENTS, "student")

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, ARMS, "arm")

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if not isinstance(seeds, int) and (len(set(seeds)) < len(seeds) or min(seeds) < 0):
            raise ValueError("seeds must be distinct and not negative")
        return seeds

    @field_validator("overrides")
    @classmethod
    def _known_overrides(cls, overrides: dict[str, StudentOverride]) -> dict[str, StudentOverride]:
        _known(tuple(overrides), STUDENTS, "student")
        return overrides

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        for student in self.overrides:
            self.for_student(student)
        return self

    def for_student(self, student: str) -> FinetuneSettings:
        """Return the settings of one student, its overrides applied."""
        override = self.overrides.get(student, StudentOverride())
        given = {name: value for name, value in override if name != "recipe" and value is not None}
        recipe = {**self.recipe.model_dump(), **override.recipe}
        return FinetuneSettings(**{**self.model_dump(exclude={"overrides"}), **given, "recipe": recipe})

    def resamples(self, student: str) -> bool:
        """Return whether the training texts of this student are drawn anew for each seed."""
        return STUDENTS[student].DETERMINISTIC if self.resample is None else self.resample


def _known(names: tuple[str, ...], registry: Mapping[str, object], kind: str) -> tuple[str, ...]:
    for name in names:
        if name not in registry:
            raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(registry)}.{nearest(name, registry)}")
    if len(set(names)) < len(names):
        raise ValueError(f"each {kind} may stand once")
    return names
