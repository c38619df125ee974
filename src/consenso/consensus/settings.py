"""What experiment.toml may say under [consensus]."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from consenso.consensus.methods import METHODS
from consenso.errors import nearest
from consenso.settings import Settings

Ties = Literal["undecided", "random"]
Measure = Literal["score", "entropy_bits", "posterior"]


class ProblematicRule(Settings):
    """Which labels are problematic: those whose measure lies below, or above, a bound. No votes: always."""

    measure: Measure = "score"
    """score (the winner's share), entropy_bits (of the shares), or posterior (of methods that give one)."""
    below: float | None = None
    """Problematic under this value; 0.6 where the measure is the score and no bound is given."""
    above: float | None = None
    """Problematic over this value; give either `below` or `above`."""

    @model_validator(mode="before")
    @classmethod
    def _default_bound(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("measure", "score") != "score":
            return values
        bare = values.get("below") is None and values.get("above") is None
        return {**values, "below": 0.6} if bare else values

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.below is None) == (self.above is None):
            found = "neither" if self.below is None else "both"
            raise ValueError(f"give either below or above for {self.measure!r}; found {found}")
        return self

    def __str__(self) -> str:
        return f"{self.measure} < {self.below:g}" if self.below is not None else f"{self.measure} > {self.above:g}"


class ConsensusSettings(Settings):
    """How votes become labels."""

    method: str = "majority"
    """How votes become shares: majority, weighted, unanimous or threshold."""
    ties: Ties = "undecided"
    """What becomes of a tie: undecided (no label), or random (drawn per text from the seed and its id)."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """The smallest share a winner needs; none by default (0.8 for method threshold)."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Annotator = weight, for method weighted; others weigh 1."""
    count: Literal["annotator", "vote"] = "annotator"
    """annotator: each counts once, its repetitions averaged; vote: all votes are pooled."""
    variants: bool = False
    """Variants of annotators vote too, as if they were annotators of their own: one model then counts several times."""
    seed: int = Field(default=0, ge=0)
    """For random ties and the bootstrap of agreement."""
    problematic: ProblematicRule = Field(default_factory=ProblematicRule)
    """Which labels are problematic; score < 0.6 by default."""
    bootstrap: int = Field(default=1000, ge=0)
    """Bootstrap draws for the intervals of agreement; 0: no intervals."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(unknown_method(name))
        return name

    @model_validator(mode="after")
    def _used(self) -> Self:
        if mistake := wrong_choice(self.method, self.problematic, weights=self.weights):
            raise ValueError(mistake)
        return self


def unknown_method(name: str) -> str:
    """Return the message for a method that does not exist."""
    return f"unknown consensus method {name!r}; choose one of {sorted(METHODS)}.{nearest(name, METHODS)}"


def wrong_choice(method: str, rule: ProblematicRule, **options: object) -> str:
    """Return what is wrong with an option that the method does not read, or a rule on what it does not give, or ''."""
    for name, value in options.items():
        empty = value is None or (isinstance(value, dict) and not value)
        if not empty and name not in METHODS[method].reads:
            readers = sorted(other for other, entry in METHODS.items() if name in entry.reads)
            return f"method {method!r} reads no {name}; " + (
                f"leave {name} out, or choose {' or '.join(readers)}" if readers else f"leave {name} out"
            )
    weights = options.get("weights")
    for annotator, weight in weights.items() if isinstance(weights, dict) else ():
        if not (math.isfinite(weight) and weight > 0):
            return f"the weight of {annotator!r} must be positive; found {weight} (to leave one out, drop its votes)"
    if rule.measure == "posterior" and not METHODS[method].posterior:
        return f"method {method!r} gives no posterior; let problematic measure score or entropy_bits"
    return ""
