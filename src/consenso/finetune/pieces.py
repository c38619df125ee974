"""Finished trainings on disk: one file each, so that a killed run keeps every one that ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.finetune.training import Outcome
from consenso.store import RunFolder, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

FORMAT = 6
"""Part of every key: raise it when a change here or in a student makes earlier pieces wrong."""


def write_piece(path: Path, outcome: Outcome) -> None:
    """Write an outcome as one Parquet file, whole or not at all: predictions as rows, the rest in its metadata."""
    import pyarrow.parquet as pq

    write_atomically(path, lambda temporary: pq.write_table(_as_arrow(outcome), temporary, compression="zstd"))


def _as_arrow(outcome: Outcome) -> pa.Table:
    import pyarrow as pa

    assert outcome.probabilities is not None
    facts = {"status": outcome.status, "reason": outcome.reason, "facts": outcome.facts, "curve": outcome.curve}
    columns: dict[str, Any] = {"predicted": outcome.predicted}
    columns |= {str(k): outcome.probabilities[:, k] for k in range(outcome.probabilities.shape[1])}
    return pa.table(columns).replace_schema_metadata({"outcome": json.dumps(facts)})


def read_piece(path: Path) -> Outcome | None:
    """Return a finished outcome, or None where there is none (or the file is damaged, with a warning)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        found = json.loads(table.schema.metadata[b"outcome"])
        columns = [column.to_numpy() for column in table.columns]
        return Outcome(
            found["status"], found["reason"], np.column_stack(columns[1:]), columns[0], found["facts"], found["curve"]
        )
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        logger.warning("%s cannot be read (%s); this training is repeated", path, error)
        return None


def finished_outcomes(keys: Iterable[str], folder: RunFolder | None) -> dict[str, Outcome]:
    """Return key → outcome for the trainings that a run folder holds; none without a folder."""
    if folder is None:
        return {}
    found = {key: read_piece(folder.piece_path("trainings", key)) for key in keys}
    return {key: outcome for key, outcome in found.items() if outcome is not None}
