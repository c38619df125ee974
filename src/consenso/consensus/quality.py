"""Quality against gold: of the consensus, and of each annotator. An undecided label or an invalid vote is an error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from consenso.consensus.votematrix import positions, shown
from consenso.errors import DataError, JoinError
from consenso.labels import LabelSchema
from consenso.tables import VOTES, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

UNDECIDED = "undecided/invalid"
"""The column of the confusion matrix for texts without a label."""


def score_against_gold(given: Any, gold: Any, labels: LabelSchema | None = None) -> dict[str, Any]:
    """Score labels against gold, over the texts that have gold and a row in `given`.

    `given`: a LABELS frame, or a series of label names (null: undecided) with the text ids as index. `gold`: a TEXTS
    frame, or such a series; texts without gold are left out and counted. `labels` None: all names that occur, sorted.

    Returns a dict:

    - n (texts scored), n_decided, n_without_gold (rows of `given` that cannot be scored), coverage (n_decided / n);
    - accuracy (undecided counts as wrong), accuracy_decided (null if nothing is decided);
    - macro_f1: mean F1 over the labels with gold, F1 = 2·tp / (predicted + gold), 0 where both are 0 but gold is not
      (scikit-learn's zero_division = 0); an undecided text is predicted nothing;
    - confusion: frame, gold label × given label, last column `undecided/invalid`; counts;
    - by_label: frame label, gold, given (counts), gold_share, given_share, precision, recall, f1;
    - by_level: frame level, n, accuracy, where `given` has a column level; else None.

    Raises `JoinError` if no text has both, `DataError` for an unknown label.
    """
    import numpy as np

    answers, truth = by_text(given, "label", "given"), by_text(gold, "gold", "gold")
    schema = LabelSchema.of(labels) or schema_of(answers, truth)
    place = positions(answers.index, truth.index)
    codes = np.append(schema.codes(truth), -1)[place]  # −1: no gold, or no such text
    scored = codes >= 0
    if not scored.any():
        raise JoinError(
            f"none of the {len(answers)} given texts has gold ({int(truth.notna().sum())} other texts have); "
            "use the same text_id in both"
        )
    true, predicted = codes[scored], schema.codes(answers)[scored]
    K = len(schema)
    confusion = np.bincount(true * (K + 1) + np.where(predicted < 0, K, predicted), minlength=K * (K + 1)).reshape(
        K, K + 1
    )
    n, n_decided, right = int(confusion.sum()), int(confusion[:, :K].sum()), int(np.trace(confusion))
    by_label = _by_label(confusion, schema)
    return {
        "n": n,
        "n_decided": n_decided,
        "n_without_gold": int(len(answers) - n),
        "coverage": n_decided / n,
        "accuracy": right / n,
        "accuracy_decided": right / n_decided if n_decided else float("nan"),
        "macro_f1": float(by_label.loc[by_label["gold"] > 0, "f1"].mean()),
        "confusion": _named(confusion, schema),
        "by_label": by_label,
        "by_level": _by_level(given, scored, true == predicted),
    }


def annotator_quality(votes: pd.DataFrame, gold: Any, labels: LabelSchema | None = None) -> pd.DataFrame:
    """Score each annotator's votes against gold; each vote counts, repetitions too; "settled" ones were never asked.

    Returns annotator, n (votes on texts with gold), valid (share with a label), accuracy (invalid votes count as
    errors), accuracy_valid (of the valid ones), macro_f1 (over the labels with gold; an invalid vote is predicted
    nothing), constant (all valid votes are one label; needs two). Raises as `score_against_gold`.
    """
    import pandas as pd

    votes = check(votes, VOTES)
    votes = votes[votes["status"].ne("settled")]
    truth = by_text(gold, "gold", "gold")
    answer = votes["label"].where(votes["status"].eq("ok"))
    schema = LabelSchema.of(labels) or schema_of(answer, truth)
    place = positions(pd.Index(votes["text_id"]), truth.index)
    true = pd.Series(place, index=votes.index).map(dict(enumerate(truth.to_numpy(dtype=object))))
    rows = []
    for name, mine in votes.groupby("annotator", sort=True).groups.items():
        known = true[mine].notna().to_numpy()
        if not known.any():
            continue
        at = pd.RangeIndex(int(known.sum()))
        result = score_against_gold(answer[mine][known].set_axis(at), true[mine][known].set_axis(at), schema)
        rows.append(
            {
                "annotator": str(name),
                "n": result["n"],
                "valid": result["coverage"],
                "accuracy": result["accuracy"],
                "accuracy_valid": result["accuracy_decided"],
                "macro_f1": result["macro_f1"],
                "constant": bool(answer[mine].nunique() == 1 and answer[mine].count() > 1),
            }
        )
    if not rows:
        raise JoinError("none of the votes is for a text with gold; use the same text_id in both")
    return pd.DataFrame(rows)


def by_text(values: Any, column: str, what: str) -> pd.Series:
    """Return a series of label names by text id; a repeated id is an error."""
    import pandas as pd

    if isinstance(values, pd.DataFrame):
        if missing := [name for name in ("text_id", column) if name not in values.columns]:
            raise DataError(f"{what}: missing column(s) {missing}; found {list(values.columns)}")
        values = values.set_index("text_id")[column]
    series = pd.Series(values)
    if series.dtype.kind in "iufb" or series.map(type).isin([int, float]).any():
        series = series.map(name_of).astype(object)
    if not series.index.is_unique:
        twice = series.index[series.index.duplicated()][0]
        raise DataError(f"{what}: text_id {shown(twice)} stands twice; keep one row per text (and one method)")
    return series


def schema_of(*columns: pd.Series) -> LabelSchema:
    """Return the schema of the names that occur, sorted."""
    each = [{str(name) for name in column.dropna().unique()} for column in columns]
    return common_schema(*each)


def common_schema(*names: set[str]) -> LabelSchema:
    """Return the schema of all names, sorted; names of votes and of gold that share none are an error."""
    if len(names) == 2 and all(names) and not names[0] & names[1]:
        given, gold = (sorted(each)[:5] for each in names)
        raise DataError(
            f"gold has the labels {gold} and the votes have {given}: none in common; bring them to the same names "
            "(or pass the labels, if all of the votes are wrong)"
        )
    return LabelSchema.from_names(sorted(set().union(*names)))


def name_of(value: Any) -> str | None:
    """Return a label as text: 1 and 1.0 are '1', null is None."""
    import pandas as pd

    if pd.isna(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _named(confusion: np.ndarray, schema: LabelSchema) -> pd.DataFrame:
    import pandas as pd

    rows = pd.Index(list(schema.names), name="gold")
    return pd.DataFrame(confusion, index=rows, columns=pd.Index([*schema.names, UNDECIDED], name="given"))


def _by_label(confusion: np.ndarray, schema: LabelSchema) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    K = len(schema)
    right, gold, given = np.diag(confusion[:, :K]), confusion.sum(axis=1), confusion[:, :K].sum(axis=0)
    return pd.DataFrame(
        {
            "label": schema.names,
            "gold": gold,
            "given": given,
            "gold_share": gold / gold.sum(),
            "given_share": given / max(given.sum(), 1),
            "precision": right / np.maximum(given, 1),
            "recall": right / np.maximum(gold, 1),
            "f1": 2 * right / np.maximum(gold + given, 1),
        }
    )


def _by_level(given: Any, scored: np.ndarray, right: np.ndarray) -> pd.DataFrame | None:
    """Accuracy per level of consensus; texts without a vote have none and stand as "none"."""
    import pandas as pd

    if not isinstance(given, pd.DataFrame) or "level" not in given.columns:
        return None
    level = given["level"].astype(object).to_numpy()[scored]
    frame = pd.DataFrame({"level": pd.Series(level, dtype=object).fillna("none"), "right": right})
    grouped = frame.groupby("level")["right"].agg(n="size", accuracy="mean")
    return grouped.reindex([name for name in ("high", "medium", "low", "none") if name in grouped.index]).reset_index()
