"""annotations.csv and model_metrics.csv of the earlier system: each model's answers per text, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from consenso.labels import LabelSchema
from consenso.report.numbers import accuracy, confusion, macro_f1, macro_precision_recall

if TYPE_CHECKING:
    import pandas as pd

METRICS = (
    "model", "accuracy", "f1_macro", "precision_macro", "recall_macro", "coverage", "error_rate",
    "invalid_predictions_rate",
)  # fmt: skip
"""The columns of model_metrics.csv."""


def annotation_frame(
    texts: pd.DataFrame, votes: pd.DataFrame, schema: LabelSchema
) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    """Return annotations.csv (a row per text, columns per model and repetition, gold), and each model's own labels.

    The own label of a model is that of most of its repetitions, null where it has none or they tie.
    """
    import pandas as pd

    ids = texts["text_id"].reset_index(drop=True)
    base = {"text_id": ids, "text": texts["text"].to_numpy(), "text_len": texts["text"].map(len).to_numpy()}
    parts, own = [pd.DataFrame(base)], {}
    for annotator, mine in votes.groupby("annotator", sort=True):
        columns, own[str(annotator)] = _of_annotator(str(annotator), mine, ids, schema, nothing_of(schema))
        parts.append(columns)
    gold = texts["gold"].reset_index(drop=True)
    known = as_ids(gold.where(gold.isin(list(schema.names)), None), schema)
    return pd.concat([*parts, known.rename("ground_truth")], axis=1), own


def nothing_of(schema: LabelSchema) -> int | None:
    """Return what stands for no valid label: −1, or an empty cell where −1 is a label."""
    return None if -1 in schema.id2label else -1


def metrics_frame(
    own: Mapping[str, pd.Series], votes: pd.DataFrame, ids: pd.Series, gold: pd.Series | None, names: Sequence[str]
) -> pd.DataFrame:
    """Return model_metrics.csv, the best macro-F1 first.

    `own`: labels of each model, in the order of `ids`; `gold`: by text_id, of texts that may be looked at (train and dev).
    A text for which the model was asked and has no label is an error of the model, a miss of its class; precision, recall
    and F1 are means over the classes with gold. coverage (texts with a label) and invalid_predictions_rate (answers, each
    repetition by itself, without one) need no gold and are over all texts that the model was asked about.
    """
    import pandas as pd

    rows = []
    for model, labels in own.items():
        mine = votes[votes["annotator"] == model]
        label = pd.Series(labels.to_numpy(), index=ids).reindex(mine["text_id"].unique())
        row = {
            "model": model,
            "coverage": label.notna().mean(),
            "invalid_predictions_rate": mine["label"].isna().mean(),
        }
        if gold is not None:
            table = confusion(gold[gold.index.isin(label.index)], label, names)
            right, (precision, recall) = accuracy(table), macro_precision_recall(table)
            row |= {"accuracy": right, "error_rate": 1 - right, "f1_macro": macro_f1(table)}
            row |= {"precision_macro": precision, "recall_macro": recall}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(METRICS))
    return frame.astype(dict.fromkeys(METRICS[1:], "float64")).sort_values(
        ["f1_macro", "model"], ascending=[False, True]
    )


def as_ids(names: pd.Series, schema: LabelSchema, nothing: int | None = None) -> pd.Series:
    """Return label names as whole-number ids; a null stays one unless `nothing` is given."""
    numbers = names.map(schema.label2id).astype("Int64")
    return numbers if nothing is None else numbers.fillna(nothing)


def _of_annotator(
    name: str, votes: pd.DataFrame, ids: pd.Series, schema: LabelSchema, nothing: int | None
) -> tuple[pd.DataFrame, pd.Series]:
    """An annotator's columns, and its own label per text (null where it has none or its repetitions tie)."""
    import pandas as pd

    columns: dict[str, pd.Series] = {}
    for repetition, asked_once in votes.groupby("repetition", sort=True):
        mine = asked_once.set_index("text_id").reindex(ids)
        asked = mine["annotator"].notna()
        given = as_ids(mine["label"], schema, nothing).where(asked)
        columns[f"{name}_rep{repetition}"] = given.reset_index(drop=True)
        columns[f"{name}_rep{repetition}_conf"] = mine["confidence"].astype(float).reset_index(drop=True)
    own, best = leader(_count(votes, ids, schema.names))
    asked = votes.groupby("text_id").size().reindex(ids)
    columns[f"{name}_consensus"] = as_ids(own, schema, nothing).where(asked.notna()).reset_index(drop=True)
    columns[f"{name}_consensus_score"] = (best / asked).reset_index(drop=True)
    seconds = votes.groupby("text_id")["latency_s"].sum(min_count=1) if "latency_s" in votes else pd.Series(dtype=float)
    columns[f"{name}_annotation_time_sec"] = seconds.reindex(ids).astype(float).reset_index(drop=True)
    return pd.DataFrame(columns), own.reset_index(drop=True)


def _count(votes: pd.DataFrame, ids: pd.Series, names: Sequence[str]) -> pd.DataFrame:
    """How many votes each label (columns) has for each text (rows)."""
    import numpy as np
    import pandas as pd

    rows, columns = pd.Index(ids), pd.Index(names)
    table = np.zeros((len(rows), len(columns)), dtype="int64")
    valid = votes[votes["label"].isin(columns)]
    np.add.at(table, (rows.get_indexer(valid["text_id"]), columns.get_indexer(valid["label"])), 1)
    return pd.DataFrame(table, rows, columns)


def leader(counts: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the label with most votes per row (null for none or a tie), and its votes."""
    import numpy as np
    import pandas as pd

    table = counts.to_numpy()
    most = table.max(axis=1)
    single = (table == most[:, None]).sum(axis=1) == 1
    names = np.array(counts.columns, dtype=object)[table.argmax(axis=1)]
    return pd.Series(np.where(single & (most > 0), names, None), index=counts.index, dtype=object), pd.Series(
        most, index=counts.index
    )
