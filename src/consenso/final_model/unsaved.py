"""Finished trainings whose model is not saved yet: what a kill or a full disk leaves of them in the run folder."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import StorageError
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.pieces import read_piece, write_piece
from consenso.finetune.recipe import Recipe
from consenso.finetune.training import Outcome
from consenso.labels import LabelSchema
from consenso.store import RunFolder, remove, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

_UNREADABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError, ValueError, TypeError)


class Unsaved:
    """The trainings of a `train` command in a run folder: outcomes, the weights of the best, the state of the one in progress."""

    def __init__(self, folder: RunFolder) -> None:
        self.place = folder.path / "pieces" / "unfinished"

    def checkpoint(self, key: str, minutes: float) -> Checkpoint:
        """Return where the training of this key saves its state while it runs."""
        return Checkpoint(self.place / f"final-{key}.pt", minutes=minutes)

    def outcome(self, key: str) -> Outcome | None:
        """Return what came out of a training that ended, or None."""
        return read_piece(self._outcome(key))

    def keep(self, key: str, outcome: Outcome, model: Any | None) -> bool:
        """Write an outcome, and the weights of a model that may be the best; return whether the disk had room for it."""
        torch = encoders.import_torch()
        try:
            if model is not None:
                write_atomically(self._weights(key), lambda temporary: torch.save(model.state_dict(), temporary))
            write_piece(self._outcome(key), outcome)
        except (StorageError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
            logger.warning("%s cannot be written (%s); a kill would cost this training", self.place, error)
            return False
        return True

    def model(self, key: str, recipe: Recipe, schema: LabelSchema) -> Any | None:
        """Return a kept model, on the CPU, ready to predict; None where there is none (or the file is damaged, with a warning)."""
        path = self._weights(key)
        if not path.exists():
            return None
        torch = encoders.import_torch()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            with torch.random.fork_rng():
                model = encoders.load_classifier(recipe.encoder, schema)
            model.load_state_dict(state)
        except _UNREADABLE as error:
            logger.warning(
                "%s cannot be read (%s); this training starts again", path, str(error).strip().split("\n")[0]
            )
            return None
        return model.eval()

    def drop_weights(self, key: str) -> None:
        """Delete the weights of a training that another one beats."""
        remove(self._weights(key))

    def remove(self, keys: Iterable[str]) -> None:
        """Delete all that is kept of these trainings: the model is saved, or none of them gave one."""
        for key in keys:
            for path in (self._outcome(key), self._weights(key), self.place / f"final-{key}.pt"):
                remove(path)

    def _outcome(self, key: str) -> Path:
        return self.place / f"final-{key}.parquet"

    def _weights(self, key: str) -> Path:
        return self.place / f"final-{key}.model.pt"
