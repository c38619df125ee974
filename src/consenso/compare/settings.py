"""Settings of the comparison: the [compare] section of experiment.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from consenso.compare.metrics import DEFAULT_METRICS, METRICS
from consenso.compare.value import ValueSettings
from consenso.settings import Settings


class ContrastSettings(Settings):
    """One secondary contrast: arm minus control."""

    arm: str
    """The arm whose labels are on trial."""
    control: str
    """The arm it is compared with."""


class UntilVerdict(Settings):
    """How `run --until-verdict` adds seeds: by a rule that is declared beforehand and keeps the level of the test."""

    rule: Literal["reestimate", "looks"] = "reestimate"
    """reestimate: the number of seeds is worked out once, after the pilot, from variances alone, as many fresh ones as
    the pilot has at least; looks: at most `looks` looks at the difference, each at α divided by their number."""
    pilot: int = Field(default=5, ge=5)
    """Seeds before the first decision."""
    most: int = Field(default=30, ge=5, le=1000)
    """Never more seeds than this."""
    looks: int = Field(default=3, ge=1, le=20)
    """Looks from the pilot to the most, in equal steps; rule `looks` only."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """The power with which equivalence is to be shown if there is no difference."""

    @field_validator("most")
    @classmethod
    def _most_holds_the_pilot(cls, most: int, info: ValidationInfo) -> int:
        pilot = info.data.get("pilot", 5)  # absent where it was wrong itself
        if most < 2 * pilot:
            raise ValueError(f"at least twice the pilot's {pilot} seeds; found {most}")
        return most


class CompareSettings(Settings):
    """What is decided before the first test score is seen."""

    metric: str = "macro_f1"
    """The primary metric: macro_f1, accuracy, balanced_accuracy, weighted_f1, or your own as `module:function`."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """The metrics that are computed, the primary one besides."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Level of the two-sided test; equivalence is tested at this level on each side."""
    bootstrap: int = Field(default=0, ge=0, le=100_000)
    """Draws of the crossed bootstrap over seeds and texts, a cross-check of the interval; 0: none."""
    margin: float = Field(default=0.02, gt=0)
    """The largest difference that does not matter, as a share: 0.02 is 2 percentage points."""
    arm: str = "consensus"
    """The arm of the primary contrast."""
    control: str = "gold-aligned"
    """The control of the primary contrast: human labels of the same texts."""
    contrasts: tuple[ContrastSettings, ...] = ()
    """Secondary contrasts; empty: the decompositions whose arms were trained."""
    low_power_below: int = Field(default=5, ge=2)
    """Fewer seeds than this are reported as low power."""
    few_texts_below: int = Field(default=100, ge=1)
    """Fewer test texts than this are reported as few."""
    gold_public: bool | None = None
    """Whether texts and gold labels are public, so that an LLM may have seen them in its training; null: not known."""
    until: UntilVerdict = UntilVerdict()
    """How `run --until-verdict` adds seeds."""
    value: ValueSettings = ValueSettings()
    """What human labels cost, and how the worth of the labels is estimated."""

    @field_validator("metric")
    @classmethod
    def _metric_has_a_name(cls, metric: str) -> str:
        return _known_metric(metric)

    @field_validator("metrics")
    @classmethod
    def _metrics_have_names(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_known_metric, metrics))

    @field_validator("margin")
    @classmethod
    def _margin_is_a_share(cls, margin: float) -> float:
        if margin >= 0.5:
            raise ValueError(f"the margin is a share of 1, so that 0.02 means 2 percentage points; found {margin:g}")
        return margin


def _known_metric(name: str) -> str:
    """A name of METRICS, or `module:function`, which is imported only when it is needed."""
    if name not in METRICS and not all(name.partition(":")):
        raise ValueError(
            f"unknown metric {name!r}; choose one of {sorted(METRICS)} or name your own as 'module:function'"
        )
    return name
