"""The state of a training in progress on disk: what a kill leaves, for trainings that take longer than some minutes."""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consenso import encoders
from consenso.errors import StorageError
from consenso.store import remove, write_atomically

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raise it when what a training saves changes: earlier states then mean starting again."""
_UNREADABLE = (
    OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError, ValueError, TypeError, AttributeError, ImportError,
)  # fmt: skip


@dataclass
class Checkpoint:
    """Where and how often a training saves its state; one file, replaced each time and removed at the end."""

    path: Path
    minutes: float = 10
    """Time between two savings: what a kill can cost."""
    earlier: float = 0.0
    """Seconds that the loaded state was trained for."""
    _began: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Return whether so much time has passed since the training began or was last saved."""
        return time.monotonic() - self._last >= 60 * self.minutes

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, whole or not at all; a full disk costs the checkpoint, not the training."""
        torch = encoders.import_torch()
        kept = {**state, "seconds": self.earlier + time.monotonic() - self._began, "format": FORMAT}
        try:
            write_atomically(self.path, lambda temporary: torch.save(kept, temporary))
        except (StorageError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
            logger.warning("%s cannot be written (%s); the training goes on without it", self.path, error)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none (or the file is damaged, with a warning)."""
        if not self.path.exists():
            return None
        torch = encoders.import_torch()
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=False)
            if (found := state.get("format")) != FORMAT:
                raise ValueError(f"it has format {found}, this version writes {FORMAT}")
        except _UNREADABLE as error:
            reason = str(error).strip().split("\n")[0]
            logger.warning("%s cannot be read (%s); this training starts again", self.path, reason)
            return None
        self.earlier = float(state["seconds"])
        logger.info("%s: going on from step %d", self.path, state["steps"])
        return state

    def remove(self) -> None:
        """Delete the file, and what a kill left while it was written: the training is over."""
        remove(self.path)
