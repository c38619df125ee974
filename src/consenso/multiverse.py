"""The multiverse: the same question under every other defensible choice (Steegen et al. 2016; Simonsohn et al. 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from consenso.annotate import VoteImport
from consenso.compare.verdict import signed
from consenso.consensus import METHODS
from consenso.errors import nearest
from consenso.finetune import STUDENTS
from consenso.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

DECLARED = "as declared"
"""The name of the votes that the experiment itself uses."""
TRAININGS = "multiverse_trainings"
"""The entry of run.json: the first KEY_DIGITS digits of the keys of the trainings behind the table."""
KEY_DIGITS = 16
DECISIVE = ("BETTER", "WORSE", "EQUIVALENT", "NON-INFERIOR")


class VoteSet(Settings):
    """Other votes that could have been used: fewer annotators, their variants, or other files."""

    annotators: tuple[str, ...] = ()
    """Only these annotators of the run."""
    variant: str | None = None
    """Each annotator's variant of this name takes its place, where it has one."""
    imports: tuple[VoteImport, ...] = ()
    """Votes read from files instead, another prompt's for example."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("annotators", "variant", "imports") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of annotators, variant and imports; found {' and '.join(given) or 'none'}")
        return self


class MultiverseSettings(Settings):
    """Which choices are varied: all their combinations are run beside the declared one."""

    aggregators: tuple[str, ...] = ("majority", "dawid_skene_map")
    """Consensus methods; the declared one is always among them."""
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0, 0.8)
    """The smallest shares that a winner needs; 0: none. Texts below it train no arm of that specification."""
    votes: dict[str, VoteSet] = Field(default_factory=dict)
    """Name → other votes; the declared ones are always among them."""
    each_variant: bool = True
    """Every prompt and decoding variant that annotators list is a choice of votes."""
    leave_one_out: bool = False
    """The panel without each of its annotators is a choice of votes."""
    students: tuple[str, ...] = ()
    """Keys of STUDENTS; empty: those of the experiment."""
    seeds: Annotated[int, Field(ge=2)] | tuple[int, ...] | None = None
    """The paired seeds; default: those of the experiment."""
    most: Annotated[int, Field(ge=1)] = 200
    """More specifications than this are an error: they take time."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for names, registry, kind in (
            (self.aggregators, METHODS, "consensus method"),
            (self.students, STUDENTS, "student"),
        ):
            for name in names:
                if name not in registry:
                    raise ValueError(
                        f"unknown {kind} {name!r}; choose from {', '.join(sorted(registry))}.{nearest(name, sorted(registry))}"
                    )
        if DECLARED in self.votes:
            raise ValueError(f"votes: {DECLARED!r} is the name of the experiment's own votes; choose another")
        return self


@dataclass(frozen=True)
class Specification:
    """One way to ask the question."""

    student: str
    """Key of STUDENTS."""
    votes: str
    """Name of the votes."""
    aggregator: str
    """Consensus method."""
    threshold: float
    """Smallest share that a winner needs; 0: none."""


def specifications(
    settings: MultiverseSettings, declared: Specification, votes: Sequence[str], students: Sequence[str]
) -> list[Specification]:
    """Return every combination, the declared one first; `votes` names what there is beside the declared votes."""

    def among(values: Sequence[object], first: object) -> list[object]:
        return [first, *(value for value in values if value != first)]

    def all_of() -> Iterator[Specification]:
        for student, votes_name, aggregator, threshold in itertools.product(
            among(settings.students or students, declared.student),
            among([DECLARED, *votes], declared.votes),
            among(settings.aggregators, declared.aggregator),
            among(settings.thresholds, declared.threshold),
        ):
            yield Specification(str(student), str(votes_name), str(aggregator), float(threshold))  # type: ignore[arg-type]

    return list(dict.fromkeys(all_of()))


def summarise(table: pd.DataFrame, margin: float) -> str:
    """Return one sentence on MULTIVERSE: in how many specifications the verdict holds, and how far the difference goes."""
    if not table["is_main"].any():
        return ""
    main, judged = table[table["is_main"]].iloc[0], table[table["difference"].notna()]
    word, total = str(main["verdict"]), len(table)
    if total == 1:
        return ""
    same = int((table["verdict"] == word).sum())
    low, high, middle = (judged["difference"].min(), judged["difference"].max(), judged["difference"].median())
    span = (
        f"the difference goes from {signed(low)} to {signed(high)} pp (median {signed(middle)})" if len(judged) else ""
    )
    against = _against(table, word, margin)
    left = int(table["difference"].isna().sum())
    parts = [
        f"The verdict {word} holds in {same} of {total} specifications",
        span,
        *(["none of the others says the opposite"] if not against and same < total and word in DECISIVE else []),
        *([f"{against} say{'s' if against == 1 else ''} the opposite"] if against else []),
        *([f"{left} could not be run"] if left else []),
    ]
    return "; ".join(part for part in parts if part) + "."


def _against(table: pd.DataFrame, word: str, margin: float) -> int:
    """Specifications whose verdict contradicts the word; a difference within the margin contradicts no equivalence."""
    opposite = {"BETTER": ["WORSE"], "WORSE": ["BETTER"], "EQUIVALENT": ["WORSE", "BETTER"], "NON-INFERIOR": ["WORSE"]}
    found = table["verdict"].isin(opposite.get(word, []))
    if word in {"EQUIVALENT", "NON-INFERIOR"}:
        found &= ~((table["low90"] > -margin) & (table["high90"] < margin))
    return int(found.sum())
