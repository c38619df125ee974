"""One run in progress: what the steps share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consenso.experiment_file import Experiment
from consenso.labels import LabelSchema
from consenso.store import RunFolder

Progress = Callable[[dict[str, Any]], None]
"""Called with events: {"stage": …, "event": "start" | "reuse" | "advance" | "end", …}."""


@dataclass(frozen=True)
class Run:
    """One run in progress: what the stages share."""

    experiment: Experiment
    folder: RunFolder
    base: Path
    """Where relative paths of the experiment file start."""
    progress: Progress
    wait: bool = True
    """Whether to wait for batch files."""
    declared: Experiment | None = None
    """The experiment as it was declared, where seeds have been added since by the declared rule."""

    @property
    def schema(self) -> LabelSchema:
        """The labels, as the data stage recorded them."""
        record = self.folder.record()
        return LabelSchema.from_records(record["labels"]).with_ids_given(record.get("data", {}).get("ids_given", True))
