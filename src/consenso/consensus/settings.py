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
DEFAULT = "dawid_skene_map"
"""The method where none is named: the smallest worst regret on real votes (docs/consensus.md)."""


class ProblematicRule(Settings):
    """Which labels are problematic: those whose measure lies below, or above, a bound, or misses a target. No votes: always."""

    measure: Measure = "score"
    """score (the winner's share), entropy_bits (of the shares), or posterior (of methods that give one)."""
    below: float | None = None
    """Problematic under this value; 0.6 where the measure is the score and no bound is given."""
    above: float | None = None
    """Problematic over this value; give either `below` or `above`."""
    target: float | None = Field(default=None, gt=0, lt=1)
    """Instead of a bound: the accuracy that the labels kept must have, with 95 % confidence; the bound is found on gold."""

    @model_validator(mode="before")
    @classmethod
    def _default_bound(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("measure", "score") != "score":
            return values
        bare = all(values.get(bound) is None for bound in ("below", "above", "target"))
        return {**values, "below": 0.6} if bare else values

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [name for name in ("below", "above", "target") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give one of below, above and target for {self.measure!r}; found {found}")
        return self

    def __str__(self) -> str:
        if self.target is not None:
            return f"{self.measure} too low for {self.target:.0%} right labels"
        return f"{self.measure} < {self.below:g}" if self.below is not None else f"{self.measure} > {self.above:g}"


class ConsensusSettings(Settings):
    """How votes become labels."""

    method: str = DEFAULT
    """How votes become shares: majority, weighted, unanimous, threshold, outliers, dawid_skene_map, dawid_skene_families, …"""
    ties: Ties = "undecided"
    """What becomes of a tie: undecided (no label), or random (drawn per text from the seed and its id)."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """The smallest share a winner needs; none by default (0.8 for method threshold)."""
    weights: dict[str, float] | str = Field(default_factory=dict)
    """For method weighted: annotator = weight (others weigh 1), or learned: "gold" or "votes"."""
    families: dict[str, str] = Field(default_factory=dict)
    """For method dawid_skene_families: annotator = model family; default: what the annotators table says."""
    ordered: bool = False
    """The labels are ordered, as they are listed: agreement also measures by rank and by distance."""
    gold_texts: int = Field(default=0, ge=0)
    """Training texts whose gold consensus may use (weights = "gold", problematic.target, …); they train no aligned arm."""
    count: Literal["annotator", "vote"] = "annotator"
    """annotator: each counts once, its repetitions averaged; vote: all votes are pooled."""
    variants: bool = False
    """Variants of annotators vote too, as if they were annotators of their own: one model then counts several times."""
    iterations: int = Field(default=500, ge=1)
    """The most iterations of a method that iterates; one that stops before it converged says so."""
    seed: int = Field(default=0, ge=0)
    """For random ties, the draw of gold texts, methods that draw, and the bootstrap of agreement."""
    problematic: ProblematicRule = Field(default_factory=ProblematicRule)
    """Which labels are problematic; score < 0.6 by default."""
    bootstrap: int = Field(default=1000, ge=0)
    """0: no intervals of agreement (they are jackknife intervals and need no draws); bootstrap draws, at most 200, for annotators."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(unknown_method(name))
        return name

    @model_validator(mode="after")
    def _used(self) -> Self:
        given = {"weights": self.weights, "families": self.families}
        if mistake := wrong_choice(self.method, self.problematic, has_gold=self.gold_texts > 0, **given):
            raise ValueError(mistake.replace("pass gold", "set gold_texts"))
        if METHODS[self.method].ordered and not self.ordered:
            raise ValueError(
                f"method {self.method!r} takes labels as ordered: list them in order, and set ordered = true"
            )
        return self


def unknown_method(name: str) -> str:
    """Return the message for a method that does not exist."""
    return f"unknown consensus method {name!r}; choose one of {sorted(METHODS)}.{nearest(name, METHODS)}"


def wrong_choice(method: str, rule: ProblematicRule, *, has_gold: bool = False, **options: object) -> str:
    """Return what is wrong with an option that the method does not read, or a rule on what it does not give, or ''."""
    reads = METHODS[method].reads
    for name, value in options.items():
        empty = value is None or (isinstance(value, (dict, str)) and not value)
        if not empty and name not in reads:
            readers = sorted(other for other, entry in METHODS.items() if name in entry.reads)
            return f"method {method!r} reads no {name}; " + (
                f"leave {name} out, or choose {' or '.join(readers)}" if readers else f"leave {name} out"
            )
    if mistake := _wrong_weights(options.get("weights"), has_gold):
        return mistake
    if rule.measure == "posterior" and not METHODS[method].posterior:
        return f"method {method!r} gives no posterior; let problematic measure score or entropy_bits"
    if rule.target is not None and not has_gold:
        return f"problematic.target = {rule.target:g} is found on gold: pass gold, or give below instead"
    if (
        has_gold
        and rule.target is None
        and ("gold" not in reads or (method == "weighted" and options.get("weights") != "gold"))
    ):
        return f"nothing here uses gold: method {method!r} learns nothing from it, and problematic has no target; leave it out"
    return ""


def _wrong_weights(weights: object, has_gold: bool) -> str:
    if isinstance(weights, str) and weights:
        if weights not in {"gold", "votes"}:
            return f"weights are learned from 'gold' or 'votes', or a number per annotator; found {weights!r}"
        return (
            "weights = 'gold' are learned from gold: pass gold, or choose 'votes'"
            if weights == "gold" and not has_gold
            else ""
        )
    for annotator, weight in weights.items() if isinstance(weights, dict) else ():
        if not (math.isfinite(weight) and weight > 0):
            return f"the weight of {annotator!r} must be positive; found {weight} (to leave one out, drop its votes)"
    return ""
