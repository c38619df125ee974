"""Votes as arrays: text, annotator and label codes and a weight per valid vote. Methods and measures work on these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from consenso.consensus.coding import Coded, code_columns, repeated_votes, sort_values
from consenso.errors import DataError, JoinError, nearest
from consenso.labels import LabelSchema
from consenso.tables import VOTES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Count = Literal["annotator", "vote"]
MOST = 2**62
"""The largest product that is taken in 64-bit integers."""


@dataclass(frozen=True, eq=False)
class CodedVotes:
    """The valid votes, one entry each, in the order of (text, annotator, label): nothing depends on the rows' order."""

    text_ids: pd.Index
    """The n texts; a text without a valid vote keeps its place."""
    annotators: tuple[str, ...]
    """The A annotators, sorted; one without a valid vote keeps its place."""
    labels: tuple[str, ...]
    """The K label names, in schema order."""
    text: np.ndarray
    """Positions in `text_ids` (int64), one per valid vote."""
    annotator: np.ndarray
    """Positions in `annotators` (int64)."""
    label: np.ndarray
    """Positions in `labels` (int64)."""
    weight: np.ndarray
    """What the vote counts (float64): 1, or 1/r where its annotator gave r valid votes to the text."""

    @property
    def shape(self) -> tuple[int, int]:
        """n texts × K labels."""
        return len(self.text_ids), len(self.labels)


def code_votes(
    votes: Any, labels: LabelSchema | Sequence[str] | None = None, *, texts: Any = None, count: Count = "annotator"
) -> CodedVotes:
    """Check and code votes; a vote is valid if it has a label and its status is ok.

    `votes`: a VOTES frame; or, never held as a frame, an Arrow table or dataset, or the path of a Parquet file, of a
    folder of Parquet parts or of a run folder, a pattern (votes/*.parquet), or a list of paths. Of these only text_id,
    annotator, repetition, label and status are read. `labels` None: the distinct labels of the valid votes, sorted.
    `texts` (a TEXTS frame or ids) names the texts to cover; votes for others are left out. Raises `DataError` for what
    `check` finds and for an unknown label, `JoinError` if no text has a vote.
    """
    import numpy as np

    columns, labels = code_columns(votes), LabelSchema.of(labels)
    text, annotator = columns["text_id"].codes, columns["annotator"].codes
    ids, annotators = columns["text_id"].values, columns["annotator"].values
    _check_repeated(columns)
    if not len(text):
        raise DataError("votes: the table has no rows; annotate the texts or import votes first")
    label, names = _label_codes(columns, labels)
    del columns
    if texts is not None:
        position, ids = _joined(ids, text_ids_of(texts))
        text = position[text]
        label = np.where(text < 0, -1, label)
    if not (valid := label >= 0).all():
        text, annotator, label = text[valid], annotator[valid], label[valid]
    del valid
    text, annotator, label = _in_order(text, annotator, label, (len(annotators), max(len(names), 1)))
    weight = np.ones(len(text)) if count == "vote" else _weights(text, annotator)
    return CodedVotes(ids, tuple(map(str, annotators)), names, text, annotator, label, weight)


def _in_order(
    text: np.ndarray, annotator: np.ndarray, label: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the votes by text, annotator and label; `shape`: A annotators × K labels."""
    import numpy as np

    A, K = shape
    key = _numbered(_numbered(text, A, annotator), K, label)
    if (key[1:] >= key[:-1]).all():
        del key
        return text.astype(np.int64), annotator.astype(np.int64), label.astype(np.int64)
    key.sort()
    cell, label = _divmod(key, K)
    return *_divmod(cell, A), label


def _numbered(first: np.ndarray, size: int, second: np.ndarray) -> np.ndarray:
    """Return one int64 per pair of codes, in the order of the pairs; there are `size` second ones."""
    import numpy as np

    key: np.ndarray = first.astype(np.int64)
    key *= size
    key += second
    return key


def _check_repeated(columns: dict[str, Coded]) -> None:
    """Raise if a text has two votes of one annotator with the same repetition."""
    import numpy as np

    text, annotator, repetition = (columns[name] for name in VOTES.key)
    key = _numbered(text.codes, len(annotator.values), annotator.codes)
    if (R := len(repetition.values)) > 1:
        if int(key.max()) * R > MOST:
            key = np.unique(key, return_inverse=True)[1]
        key = _numbered(key, R, repetition.codes)
    ordered = key if (key[1:] >= key[:-1]).all() else np.sort(key)
    if (ordered[1:] == ordered[:-1]).any():
        raise repeated_votes(columns, key)


def _divmod(numbers: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Return quotient and remainder; the numbers are used up."""
    quotient = numbers // by
    numbers -= quotient * by
    return quotient, numbers


def _weights(text: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Return 1/r where an annotator gave r votes to a text."""
    import numpy as np

    if not ((text[1:] == text[:-1]) & (annotator[1:] == annotator[:-1])).any():
        return np.ones(len(text))
    return 1 / sizes_within(_numbered(text, int(annotator.max()) + 1, annotator))


def _joined(ids: pd.Index, wanted: pd.Index) -> tuple[np.ndarray, pd.Index]:
    """Return where each voted text stands among the wanted ones, and these."""
    position = positions(ids, wanted)
    if (position < 0).all():
        raise JoinError(
            f"votes: none of the {len(ids)} voted texts is among the {len(wanted)} texts "
            f"(votes have {shown(ids[0])}, texts have {shown(wanted[0])}); use the same text_id in both"
        )
    return position, wanted


def text_ids_of(texts: Any) -> pd.Index:
    """Return the ids of a TEXTS frame, or of a series, index or list of ids; a repeated or null id is an error."""
    import pandas as pd

    values = texts["text_id"] if isinstance(texts, pd.DataFrame) else texts
    ids = pd.Index(values if isinstance(values, (pd.Series, pd.Index)) else list(values))
    if ids.empty:
        raise DataError(
            "texts: no text is given; pass the ids of the texts that should get a label, or leave `texts` out"
        )
    if ids.hasnans or not ids.is_unique:
        found = "a null id" if ids.hasnans else f"{shown(ids[ids.duplicated()][0])} twice"
        raise DataError(f"texts: each text_id may stand once; found {found}")
    return ids.rename(None)


def positions(ids: pd.Index, among: pd.Index) -> np.ndarray:
    """Return where each id stands in `among`, −1 if nowhere; integer and string ids join as text."""
    import numpy as np

    if ids.equals(among):
        return np.arange(len(ids))
    same = ids.inferred_type == among.inferred_type and not ids.inferred_type.startswith("mixed")
    wanted, known = (ids, among) if same else (ids.map(str), among.map(str))
    if not known.is_unique:
        twice = known[known.duplicated()][0]
        raise DataError(f"text_id {shown(twice)} stands twice; keep one row per text (1 and '1' are the same id)")
    found: np.ndarray = known.get_indexer(wanted)
    return found


def shown(text_id: Any) -> str:
    """Return an id as a message shows it: 3 or 'a', not np.int64(3)."""
    return repr(text_id.item() if hasattr(text_id, "item") else text_id)


def _label_codes(columns: dict[str, Coded], labels: LabelSchema | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the label of each vote as a position among the names, −1 where the vote is not valid; and the names."""
    import numpy as np

    status, label = columns["status"], columns["label"]
    valid = np.append(status.values == "ok", False)
    if not valid[:-1].all() or status.codes.min() < 0:
        label = sort_values(np.where(valid[status.codes], label.codes, -1), label.values)
    found = tuple(map(str, label.values))
    if labels is None:
        return label.codes, found
    if strange := [name for name in found if name not in labels]:
        row, _ = label.first(np.array(found) == strange[0])
        text, annotator = columns["text_id"], columns["annotator"]
        raise DataError(
            f"votes: unknown label {strange[0]!r} (annotator {annotator.values[annotator.codes[row]]!r}, "
            f"text {shown(text.values[text.codes[row]])}); "
            f"the labels are {list(labels.names)}.{nearest(strange[0], labels.names)} "
            "Add it to the labels, or import with read_votes, which counts it as invalid"
        )
    return np.array([*map(labels.index, found), -1])[label.codes], labels.names


def run_starts(ordered: np.ndarray) -> np.ndarray:
    """Return where each run of equal values starts in a sorted array."""
    import numpy as np

    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, dtype=np.int64)


def sizes_within(ordered: np.ndarray) -> np.ndarray:
    """Return, for each entry of a sorted array, how many entries equal it."""
    import numpy as np

    sizes = np.diff(np.r_[run_starts(ordered), len(ordered)])
    return np.repeat(sizes, sizes)


def label_sums(votes: CodedVotes, weight: np.ndarray) -> np.ndarray:
    """Return the weight per text and label: (n, K) float64."""
    import numpy as np

    n, K = votes.shape
    sums = np.bincount(_numbered(votes.text, K, votes.label), weights=weight, minlength=n * K)
    return sums.astype(float, copy=False).reshape(n, K)  # without any vote bincount counts in integers


def label_shares(votes: CodedVotes, weight: np.ndarray) -> np.ndarray:
    """Return the share of the weight per text and label: (n, K), rows sum to 1; all zero without a valid vote."""
    import numpy as np

    shares = label_sums(votes, weight)
    total = np.einsum("ik->i", shares)
    total[total <= 0] = np.inf
    shares /= total[:, None]
    return shares


def vote_numbers(votes: CodedVotes) -> np.ndarray:
    """Return per text how many annotators gave a valid vote (or how many votes there are, where votes are pooled)."""
    import numpy as np

    # the weights of one annotator on one text sum to 1, but for rounding
    return np.rint(np.bincount(votes.text, weights=votes.weight, minlength=len(votes.text_ids)))
