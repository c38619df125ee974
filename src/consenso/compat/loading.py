"""Data as the earlier system loaded them: a frame with text, label (id) and label_description."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.compat.cells import label_name, unknown_labels
from consenso.compat.warned import warn
from consenso.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class DatasetConfig:
    """Which rows of a dataset are read."""

    split: str | None = None
    """One split."""
    combine_splits: Sequence[str] | None = None
    """Several splits, together; `split` is then ignored."""
    sample_size: int | None = None
    """At most so many texts, drawn at random."""
    random_state: int | None = 42
    """Seed of the draw and of the order of the rows; 0 or None keeps the source's order."""
    hf_file: str | None = None
    """One file of the repository; goes before the splits."""
    remove_texts: bool = False
    """Has no effect any more: a run of consenso resumes by itself."""


def load_hf_dataset_as_dataframe(
    dataset_name: str,
    cache_dir: str | Path | None,
    dataset_global_config: DatasetConfig,
    dataset_specific_config: DatasetConfig | Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, list[int]]:
    """Return a frame (text, label: id, label_description: name) in random order, and all label ids.

    `dataset_name`: a name of the catalog, a Hub id, a file or a folder; `cache_dir`: where Hub files are kept. What the
    specific configuration sets wins over the global one. Copies of a text become one row; a warning counts them.
    """
    import pandas as pd

    from consenso.data import load_dataset

    config = _merged(dataset_global_config, dataset_specific_config)
    if config.remove_texts:
        warn("remove_texts has no effect: a run of consenso resumes by itself; drop texts from the frame if you like")
    with _hub_cache(cache_dir):
        texts = load_dataset(
            dataset_name,
            split=None if config.hf_file or config.combine_splits else config.split,
            combine_splits=[] if config.hf_file else list(config.combine_splits or ()),
            hf_file=config.hf_file,
            sample_size=config.sample_size,
            sampling="simple",
            seed=config.random_state or 0,
            empty_texts="drop",
        )
    record, ids = texts.attrs["record"], {label["name"]: label["id"] for label in texts.attrs["labels"] or []}
    if dropped := [f"{n} {why}" for why, n in record["dropped"].items() if why not in {"not sampled", "other split"}]:
        warn(f"{dataset_name}: of {record['rows_read']} rows were left out: {', '.join(dropped)}")
    label = texts["gold"].map(ids).astype("Int64")
    label = label if label.isna().any() else label.astype("int64")
    frame = pd.DataFrame({"text": texts["text"], "label": label, "label_description": texts["gold"]})
    if config.random_state:
        frame = frame.sample(frac=1, random_state=config.random_state)
    return frame.reset_index(drop=True), list(ids.values())


def _merged(general: DatasetConfig, specific: DatasetConfig | Mapping[str, Any] | None) -> DatasetConfig:
    """The general configuration with what the specific one sets; a mapping may say more about the dataset."""
    if isinstance(specific, DatasetConfig):
        plain = vars(DatasetConfig())
        specific = {name: value for name, value in vars(specific).items() if value != plain[name]}
    known = {each.name for each in dataclasses.fields(DatasetConfig)}
    given = {name: value for name, value in (specific or {}).items() if name in known and value is not None}
    return dataclasses.replace(general, **given)


@contextlib.contextmanager
def _hub_cache(folder: str | Path | None) -> Iterator[None]:
    """Let the Hugging Face libraries keep what they fetch in `folder` while the block runs."""
    import importlib.util

    if folder is None or not all(map(importlib.util.find_spec, ("datasets", "huggingface_hub"))):
        yield  # a local file needs neither; for a Hub id, load_dataset says which extra is missing
        return
    import datasets
    import huggingface_hub

    places = [(datasets.config, "HF_DATASETS_CACHE"), (huggingface_hub.constants, "HF_HUB_CACHE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, str(folder))
        yield
    finally:
        for (module, name), value in zip(places, before):
            setattr(module, name, value)


def add_label_description(df: pd.DataFrame, dataset_name: str, label_column: str = "label") -> pd.DataFrame:
    """Return a copy with the column label_description: the name of each label id in that dataset of the catalog.

    Values that are no label of the dataset (−1, "ERROR", blanks) get a null, and a warning counts them. An unknown
    dataset raises `ConfigError`, a missing label column `DataError`.
    """
    from consenso.data import catalog_entry

    schema = catalog_entry(dataset_name).schema()
    if label_column not in df.columns:
        found = f"missing column {label_column!r}; found {list(df.columns)}"
        raise DataError(f"{found}; rename your label column, or say label_column=…")
    names = [label_name(value, schema) for value in df[label_column]]
    if unknown := unknown_labels(df[label_column], names):
        warn(f"{unknown} are none of {dataset_name}'s; their label_description is empty")
    return df.assign(label_description=names)
