"""Settings of the comparison: the [compare] section of experiment.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from consenso.settings import Settings


class ContrastSettings(Settings):
    """One secondary contrast: arm minus control."""

    arm: str
    """The arm whose labels are on trial."""
    control: str
    """The arm it is compared with."""


class CompareSettings(Settings):
    """What is decided before the first test score is seen."""

    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    """The primary metric; the other one is reported beside it."""
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

    @field_validator("margin")
    @classmethod
    def _margin_is_a_share(cls, margin: float) -> float:
        if margin >= 0.5:
            raise ValueError(f"the margin is a share of 1, so that 0.02 means 2 percentage points; found {margin:g}")
        return margin
