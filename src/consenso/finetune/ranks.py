"""Several processes that train one model together (torchrun, accelerate launch): who they are and what each takes."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso import encoders

if TYPE_CHECKING:
    import numpy as np


_PATIENCE = timedelta(days=2)
"""How long processes wait for the first one, which does what comes before the training."""


class Ranks(NamedTuple):
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's part of a batch; where the batch is too small for all, one row that counts for nothing."""
        return rows[self.rank :: self.size] if self.rank < len(rows) else rows[:1]

    def counts(self, rows: np.ndarray) -> bool:
        """Return whether this process's part of the batch counts."""
        return self.rank < len(rows)

    def wrap(self, model: Any) -> Any:
        """Return the model that averages its gradients over the processes."""
        if self.size == 1:
            return model
        torch = encoders.import_torch()
        return torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            encoders.import_torch().distributed.barrier()

    def mean(self, values: Any) -> Any:
        """Return the mean of a tensor over the processes."""
        if self.size == 1:
            return values
        torch = encoders.import_torch()
        torch.distributed.all_reduce(values)
        return values / self.size


def find_ranks() -> Ranks:
    """Return this process's place; alone unless a launcher (torchrun, accelerate launch) has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks()
    from accelerate import PartialState

    state = PartialState(cpu=encoders.best_device() == "cpu", timeout=_PATIENCE)
    return Ranks(state.process_index, state.num_processes)
