"""data: texts, folds, and what the leakage guard removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.data import Loaded, make_folds, read_dataset
from consenso.preconditions import has_test_gold, need_labels
from consenso.steps.running import Run
from consenso.tables import LEAKS

if TYPE_CHECKING:
    import pandas as pd


def data(this: Run) -> None:
    """Read the texts, split them and remove what leaks."""
    settings = this.experiment.data
    loaded = read_dataset(settings, this.base)
    if not has_test_gold(loaded.texts, loaded.folds):
        _write_texts(
            this,
            loaded,
            *_unsplit(loaded.texts),
            notes=["no test text has gold: labels and agreement only, no verdict"],
        )
        return
    folds, leaks = make_folds(
        loaded.texts,
        test_size=settings.test_size,
        dev_size=settings.dev_size,
        seed=settings.seed,
        leakage=settings.leakage,
        folds=settings.folds,
        given=loaded.folds,
    )
    _write_texts(this, loaded, folds, leaks, notes=folds.attrs.get("notes", []))


def _write_texts(this: Run, loaded: Loaded, folds: pd.DataFrame, leaks: pd.DataFrame, notes: list[str]) -> None:
    this.folder.note("labels", need_labels(loaded.labels, loaded.texts).as_records())
    this.folder.note("data", {**loaded.record, "notes": [*loaded.record.get("notes", []), *notes]})
    this.folder.write("texts", loaded.texts)
    this.folder.write("duplicates", loaded.duplicates)
    this.folder.write("folds", folds)
    this.folder.write("leaks", leaks)


def _unsplit(texts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Folds and leaks where nothing can be tested: every text may be labelled, none is compared."""
    import pandas as pd

    folds = pd.DataFrame({"fold": 0, "text_id": texts["text_id"], "part": "train"})
    return folds, pd.DataFrame(columns=list(LEAKS.columns))
