"""What the guards look at, and what a guard finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from consenso.compare.arm_rows import ArmRows, read_rows
from consenso.compare.contrasts import FLOORS, Contrast, choose_contrasts
from consenso.compare.estimates import estimate
from consenso.compare.folds import train_rows_of_folds
from consenso.compare.paired import TwoWay
from consenso.compare.promises import base_student
from consenso.compare.runs import Pair, Runs, Seed, pair_arms
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["passed", "failed", "warned", "not_checked"]
NO_CONTRAST = "no contrast has both of its arms"
"""Why the guards of contrasts have nothing to look at."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one guard, for everything or for one student."""

    outcome: Outcome
    """passed, failed, warned or not_checked."""
    reason: str
    """What was found, in words; for not_checked: what was missing."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The numbers. `contrasts` lists the contrasts a failure concerns, `attempt` the analysis; without them, all."""
    scope: str = "all"
    """`all`, or the student it concerns."""


@dataclass(frozen=True)
class Evidence:
    """All that guards may look at; a guard whose evidence is missing answers not_checked."""

    runs: Runs
    """Test predictions joined with gold."""
    schema: LabelSchema | None = None
    """The labels."""
    arms: pd.DataFrame | None = None
    """ARMS: what each training was given."""
    folds: pd.DataFrame | None = None
    """FOLDS: which text stands in which part."""
    leaks: pd.DataFrame | None = None
    """LEAKS: what the leakage guard of `data` removed."""
    remaining: pd.DataFrame | None = None
    """LEAKS: what a search for near repeats still finds in the folds."""
    texts: pd.DataFrame | None = None
    """TEXTS."""
    trainings: pd.DataFrame | None = None
    """TRAININGS: how each run ended."""
    dev: pd.DataFrame | None = None
    """PREDICTIONS of part dev."""
    expected: Mapping[int, frozenset[str]] | None = None
    """Fold → ids of its test texts that have gold, all of which are to be predicted; None: not known."""
    labels: pd.DataFrame | None = None
    """LABELS."""
    votes: pd.DataFrame | None = None
    """VOTES: what arms of single votes are held against."""
    gold_used: frozenset[str] | None = None
    """Ids of the texts whose gold helped to make labels; they may train no aligned arm."""
    gold_dev: frozenset[str] = frozenset()
    """Students whose declared variation chooses states with gold dev labels, in every arm."""
    metric: str = "macro_f1"
    """The primary metric."""
    margin: float = 0.02
    """The declared margin, as a share."""
    contrasts: tuple[Any, ...] | None = None
    """The contrasts asked for; None: all whose arms exist."""
    primary: Any = None
    """The primary contrast asked for."""
    low_power_below: int = 5
    """Fewer seeds than this are low power."""
    few_texts_below: int = 100
    """Fewer test texts than this are few."""
    gold_public: bool | None = None
    """Whether texts and gold are public."""
    first_hash: str | None = None
    """Hash of what was declared when the first test score was seen."""
    hash: str | None = None
    """Hash of what is declared now."""
    first_declared: Mapping[str, Any] | None = None
    """What was declared when the first test score was seen (`declare`)."""
    declared: Mapping[str, Any] | None = None
    """What is declared now."""
    frozen: Mapping[str, Any] | None = None
    """The record of a freeze, as `frozen.json` holds it."""

    def chosen(self, student: str) -> tuple[list[Contrast], Contrast | None]:
        """Return the student's reported contrasts and its primary one."""
        return choose_contrasts(self.runs.arms(student), self.contrasts, self.primary, self.everywhere)

    @cached_property
    def everywhere(self) -> frozenset[str]:
        """The arms of all students."""
        return frozenset(name for arms in self.runs.rows.values() for name in arms)

    def reported(self, student: str) -> list[str]:
        """Return the trained arms of the student's reported contrasts, the primary contrast's first."""
        names = [name for contrast in self.chosen(student)[0] for name in (contrast.arm, contrast.control)]
        return [name for name in dict.fromkeys(names) if name not in FLOORS]

    def concerned(self, student: str, arms: Collection[str]) -> list[str]:
        """Return the names of the student's reported contrasts that use one of the arms."""
        return [contrast.name for contrast in self.chosen(student)[0] if set(contrast.arms) & set(arms)]

    @cached_property
    def failed(self) -> dict[str, set[tuple[str, Seed]]]:
        """Student → (arm, seed) of the as-run trainings that are recorded as failed."""
        return failed_trainings(self.trainings)

    @cached_property
    def rows(self) -> ArmRows | None:
        """The arms table as numbers."""
        return None if self.arms is None else read_rows(self.arms)

    def arms_of(self, student: str) -> ArmRows | None:
        """Return the rows of the arms table that hold for a student: its own or its base student's, and those of all."""
        if self.rows is None:
            return None
        if student not in self._rows_of:
            known = set(self.rows.students)
            name = student if student in known else base_student(student)
            self._rows_of[student] = self.rows.of_student(name)
        return self._rows_of[student]

    @cached_property
    def _rows_of(self) -> dict[str, ArmRows]:
        return {}

    def planned(self, student: str) -> set[tuple[str, Seed]]:
        """Return (arm, seed) of every training that the arms table asks for, under both forms of a seed."""
        rows = self.arms_of(student)
        return set() if rows is None else _both_forms([(arm, *piece) for arm, piece in rows.planned()])

    def pair(self, student: str, arm: str, control: str) -> Pair:
        """Return two arms of a student on the seeds and items they share."""
        return pair_arms(
            self.runs, self.runs.arms(student), Contrast(arm, control), failed=self.failed.get(student, set())
        )

    def difference(self, student: str, arm: str, control: str) -> TwoWay | None:
        """Return arm minus control in the primary metric, with the comparison's interval; None where they share no seed."""
        pair = self.pair(student, arm, control)
        if not pair.seeds or not len(pair.gold):
            return None
        sizes = train_rows_of_folds(self.trainings, student, [arm, control])
        return estimate(pair, self.metric, train_sizes=sizes).result

    def better_floor(self, student: str, arm: str) -> tuple[str, TwoWay] | None:
        """Return the floor that comes closest to the arm, and arm minus that floor; None where there is no floor."""
        found = [
            (floor, result) for floor in FLOORS
            if floor in self.runs.arms(student) and (result := self.difference(student, arm, floor)) is not None
        ]  # fmt: skip
        return min(found, key=lambda pair: pair[1].difference) if found else None

    def students(self) -> Iterator[str]:
        """Yield the students in order."""
        yield from self.runs.students()


def failed_trainings(trainings: pd.DataFrame | None) -> dict[str, set[tuple[str, Seed]]]:
    """Return student → (arm, seed) of the as-run trainings whose status is failed, under both forms of a seed."""
    if trainings is None:
        return {}
    rows = trainings[(trainings["status"] == "failed") & (trainings["attempt"] == "as_run")]
    return {
        str(student): _both_forms(list(zip(given["arm"].map(str), given["fold"], given["seed"])))
        for student, given in rows.groupby("student")
    }


def _both_forms(runs: Collection[tuple[str, int, int]]) -> set[tuple[str, Seed]]:
    """(arm, seed) and (arm, (fold, seed)) of each (arm, fold, seed)."""
    return {(arm, int(seed)) for arm, _, seed in runs} | {(arm, (int(fold), int(seed))) for arm, fold, seed in runs}
