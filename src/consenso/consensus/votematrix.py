"""Votes as arrays: text, annotator and label codes and a weight per valid vote. Methods and measures work on these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from consenso.errors import DataError, JoinError, nearest
from consenso.labels import LabelSchema
from consenso.tables import VOTES, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Count = Literal["annotator", "vote"]


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


@dataclass(frozen=True)
class Options:
    """What a method may read besides the votes; `Method.reads` says which of it a method does read."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight per annotator; an absent one weighs 1."""
    probabilities: Any = None
    """A classifier's out-of-sample probabilities."""
    seed: int = 0
    """For methods that draw."""


def code_votes(
    votes: pd.DataFrame, labels: LabelSchema | None = None, *, texts: Any = None, count: Count = "annotator"
) -> CodedVotes:
    """Check and code a votes frame; a vote is valid if it has a label and its status is ok.

    `labels` None: the distinct labels of the valid votes, sorted. `texts` (a TEXTS frame or ids) names the texts to
    cover; votes for others are left out. Raises `DataError` for an unknown label, `JoinError` if no text has a vote.
    """
    import numpy as np
    import pandas as pd

    votes = check(votes, VOTES)
    if votes.empty:
        raise DataError("votes: the table has no rows; annotate the texts or import votes first")
    text, ids = _sorted_codes(votes["text_id"])
    annotator, annotators = _sorted_codes(votes["annotator"])
    valid = (votes["label"].notna() & votes["status"].eq("ok")).to_numpy(dtype=bool)
    label, names = _label_codes(votes[valid], labels)
    if texts is not None:
        wanted = text_ids_of(texts)
        position = positions(ids, wanted)
        if (position < 0).all():
            raise JoinError(
                f"votes: none of the {len(ids)} voted texts is among the {len(wanted)} texts "
                f"(votes have {shown(ids[0])}, texts have {shown(wanted[0])}); use the same text_id in both"
            )
        text, ids = position[text], wanted
    text, annotator = text[valid], annotator[valid]
    kept = text >= 0
    key = (text[kept] * len(annotators) + annotator[kept]) * max(len(names), 1) + label[kept]
    key.sort()
    cell, label = np.divmod(key, max(len(names), 1))
    text, annotator = np.divmod(cell, len(annotators))
    weight = np.ones(len(cell)) if count == "vote" else 1 / sizes_within(cell)
    return CodedVotes(pd.Index(ids), tuple(map(str, annotators)), names, text, annotator, label, weight)


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
    same = ids.inferred_type == among.inferred_type and not ids.inferred_type.startswith("mixed")
    found: np.ndarray = among.get_indexer(ids) if same else among.map(str).get_indexer(ids.map(str))
    return found


def shown(text_id: Any) -> str:
    """Return an id as a message shows it: 3 or 'a', not np.int64(3)."""
    return repr(text_id.item() if hasattr(text_id, "item") else text_id)


def _sorted_codes(values: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Code a column by its sorted distinct values (mixed types: sorted as text)."""
    import numpy as np
    import pandas as pd

    codes, distinct = pd.factorize(values)
    distinct = pd.Index(distinct)
    try:
        order = np.asarray(distinct.argsort())
    except TypeError:
        order = np.asarray(distinct.map(str).argsort())
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], distinct[order]


def _label_codes(valid: pd.DataFrame, labels: LabelSchema | None) -> tuple[np.ndarray, tuple[str, ...]]:
    import numpy as np

    codes, distinct = _sorted_codes(valid["label"])
    found = tuple(map(str, distinct))
    if labels is None:
        return codes, found
    if strange := [name for name in found if name not in labels]:
        row = valid[codes == found.index(strange[0])].iloc[0]
        raise DataError(
            f"votes: unknown label {strange[0]!r} (annotator {row['annotator']!r}, text {shown(row['text_id'])}); "
            f"the labels are {list(labels.names)}.{nearest(strange[0], labels.names)} "
            "Add it to the labels, or import with read_votes, which counts it as invalid"
        )
    place = np.array([labels.index(name) for name in found], dtype=np.int64)
    return place[codes] if found else codes, labels.names


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
    sums = np.bincount(votes.text * K + votes.label, weights=weight, minlength=n * K)
    return sums.astype(float).reshape(n, K)  # without any vote bincount counts in integers


def label_shares(votes: CodedVotes, weight: np.ndarray) -> np.ndarray:
    """Return the share of the weight per text and label: (n, K), rows sum to 1; all zero without a valid vote."""
    import numpy as np

    sums = label_sums(votes, weight)
    total = sums.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return shares


def vote_numbers(votes: CodedVotes) -> np.ndarray:
    """Return per text how many annotators gave a valid vote (or how many votes there are, where votes are pooled)."""
    import numpy as np

    # the weights of one annotator on one text sum to 1, but for rounding
    return np.rint(np.bincount(votes.text, weights=votes.weight, minlength=len(votes.text_ids)))
