"""Texts → tokens, labels → class positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from consenso import encoders
from consenso.compat.cells import label_name, unknown_labels
from consenso.errors import DataError
from consenso.labels import LabelSchema


class HFTokenizer:
    """Turns texts into token ids, as the student `encoder` does."""

    def __init__(self, model_name: str, max_length: int = 256) -> None:
        self.model_name, self.max_length = model_name, max_length
        self.tokenizer = encoders.load_tokenizer(model_name)

    def encode(self, dataset: Any) -> Any:
        """Return the dataset (`datasets.Dataset` or pandas frame) with the columns input_ids and attention_mask.

        Texts are cut at `max_length` and never padded: a batch is padded to its own longest text.
        """
        import pandas as pd

        texts = column_of(dataset, "text", "dataset")
        if empty := int(pd.isna(pd.Series(texts, dtype=object)).sum()):
            raise DataError(f"dataset: {empty} of {len(texts)} texts are empty; drop these rows, or fill them")
        ids = encoders.tokenize(self.tokenizer, list(map(str, texts)), self.max_length)
        columns = {"input_ids": ids, "attention_mask": [[1] * len(found) for found in ids]}
        if hasattr(dataset, "iloc"):
            return dataset.assign(**{name: pd.Series(c, dataset.index, dtype=object) for name, c in columns.items()})
        if getattr(dataset, "_indices", None) is not None:  # else add_column would write the chosen rows to disk
            dataset = dataset.flatten_indices(keep_in_memory=True)
        dataset = dataset.remove_columns([name for name in columns if name in dataset.column_names])
        for name, values in columns.items():
            dataset = dataset.add_column(name, values)
        return dataset


def names_of(dataset: Any) -> list[str]:
    """Return the column names of a `datasets.Dataset` or a pandas frame; anything else raises `DataError`."""
    if hasattr(dataset, "iloc"):
        return [str(name) for name in dataset.columns]
    if hasattr(dataset, "with_format") and not isinstance(dataset, dict):
        return list(dataset.column_names)
    raise DataError(f"dataset: found a {type(dataset).__name__}; give a datasets.Dataset (one split) or a pandas frame")


def column_of(dataset: Any, name: str, where: str) -> list[Any]:
    """Return the values of a column; a missing one raises `DataError`."""
    if name not in names_of(dataset):
        raise DataError(f"{where}: missing column {name!r}; found {names_of(dataset)}")
    return dataset[name].tolist() if hasattr(dataset, "iloc") else list(dataset.with_format(None)[name])


def codes_of(dataset: Any, schema: LabelSchema, where: str) -> list[int]:
    """Class positions: `labels` holds them already (as in transformers), `label` the user's ids or names."""
    if "labels" not in names_of(dataset):
        return positions(column_of(dataset, "label", where), schema, where)
    codes = [int(value) for value in column_of(dataset, "labels", where)]
    if strange := sorted({code for code in codes if not 0 <= code < len(schema)}):
        found = f"'labels' holds {strange[:5]}, positions are 0 … {len(schema) - 1}"
        raise DataError(f"{where}: {found}; put your own ids into the column 'label'")
    return codes


def positions(values: Sequence[Any], schema: LabelSchema, where: str) -> list[int]:
    """Return the class positions of label ids or names; one that is not in the schema raises `DataError`."""
    names = [label_name(value, schema) for value in values]
    if unknown := unknown_labels(values, names):
        raise DataError(f"{where}: {unknown} are not in the schema {schema.id2label}; drop these rows")
    return [schema.index(name) for name in names if name is not None]


def features(dataset: Any, schema: LabelSchema, where: str) -> list[dict[str, Any]]:
    """One {input_ids, labels} per row; padding that another tokeniser added is taken off."""
    import numpy as np

    rows = [np.asarray(ids, dtype="int32") for ids in column_of(dataset, "input_ids", where)]
    if "attention_mask" in names_of(dataset):
        masks = column_of(dataset, "attention_mask", where)
        rows = [ids[np.asarray(mask) == 1] for ids, mask in zip(rows, masks)]
    return [{"input_ids": ids, "labels": code} for ids, code in zip(rows, codes_of(dataset, schema, where))]


def length(row: Mapping[str, Any]) -> int:
    """Return the tokens of a row."""
    return len(row["input_ids"])
