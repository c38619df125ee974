"""Repeated texts: which rows repeat which, and how rows without ids of their own collapse into one."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from consenso.tables import DUPLICATES
from consenso.text import clean, normalise

if TYPE_CHECKING:
    import pandas as pd

EVALUATION_FIRST = {"test": 0, "dev": 1, "train": 2, "pool": 3}


def normalised_key(text: str) -> str:
    """Return what two normalised duplicates share; a text without any word character is compared as it stands."""
    words = normalise(text)
    return words if words else "\0" + clean(text)


def find_duplicates(texts: pd.DataFrame) -> pd.DataFrame:
    """Return DUPLICATES for a frame with text_id, text and (if there) gold: one row per text that repeats another.

    `level` is exact where another row has the same text in NFC without surrounding space, else normalised. All rows of
    one `duplicate_group` have the same normalised text; `conflicting_gold` is said of the whole group. `row` is the
    position in the frame.
    """
    import numpy as np
    import pandas as pd

    exact = texts["text"].map(clean)
    groups = texts["text"].map(normalised_key)
    shared = groups.duplicated(keep=False).to_numpy()
    gold = texts["gold"] if "gold" in texts else pd.Series(None, index=texts.index, dtype=object)
    found = pd.DataFrame(
        {
            "row": np.arange(len(texts), dtype="int64"),
            "text_id": texts["text_id"].to_numpy(),
            "kept": True,
            "level": np.where(exact.duplicated(keep=False), "exact", "normalised"),
            "duplicate_group": [_group_name(group) if mine else "" for group, mine in zip(groups, shared)],
            "gold": gold.to_numpy(),
        }
    )[shared].reset_index(drop=True)
    kinds = found.groupby("duplicate_group")["gold"].transform("nunique")
    found["conflicting_gold"] = (kinds > 1).astype(bool)
    return found[list(DUPLICATES.columns)]


def _group_name(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def collapse(texts: pd.DataFrame) -> tuple[pd.DataFrame, list[int], dict[str, int]]:
    """Collapse rows with one text_id into one row with `copies`; return the frame, the positions kept, and counts.

    Gold is the majority of the copies (a tie: null); the split is the first of test, dev, train, pool.
    Which copy lends its other columns does not depend on the order of the rows.
    """
    import numpy as np
    import pandas as pd

    repeated = np.flatnonzero(texts["text_id"].duplicated(keep=False).to_numpy()).tolist()
    cells = dict(zip(repeated, texts.iloc[repeated].to_dict("records")))
    copies: dict[Any, list[int]] = {}
    for row in repeated:
        copies.setdefault(cells[row]["text_id"], []).append(row)
    gold, split = texts["gold"].tolist(), texts["split"].tolist()
    counts = np.ones(len(texts), dtype="int64")
    dropped: set[int] = set()
    facts = {"collapsed_rows": 0, "split_conflicts": 0, "gold_conflicts": 0, "gold_ties": 0}
    for rows in copies.values():
        kept = min(rows, key=lambda row: _rank(cells[row]))
        dropped.update(set(rows) - {kept})
        counts[kept] = len(rows)
        facts["split_conflicts"] += len({split[row] for row in rows}) > 1
        facts["gold_conflicts"] += len({gold[row] for row in rows} - {None}) > 1
        gold[kept] = _majority([gold[row] for row in rows])
        facts["gold_ties"] += gold[kept] is None and any(gold[row] is not None for row in rows if row != kept)
    facts["collapsed_rows"] = len(dropped)
    texts = texts.assign(gold=pd.Series(gold, index=texts.index, dtype=object), copies=counts)
    positions = [row for row in range(len(texts)) if row not in dropped]
    return texts.iloc[positions].reset_index(drop=True), positions, facts


def _rank(cells: dict[str, Any]) -> tuple[int, list[str]]:
    """The most evaluation-side copy first; between equals, the one whose cells come first as text."""
    side = EVALUATION_FIRST.get(cells["split"], len(EVALUATION_FIRST))
    return side, [f"{name}\0{cells[name]}" for name in sorted(cells) if name != "row"]


def _majority(gold: list[str | None]) -> str | None:
    votes = Counter(label for label in gold if label is not None).most_common()
    if not votes or (len(votes) > 1 and votes[0][1] == votes[1][1]):
        return None
    return votes[0][0]
