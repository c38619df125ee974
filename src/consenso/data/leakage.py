"""Texts that stand in two parts of a fold: exact, normalised and near repeats, and shared groups."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.data.duplicates import normalised_key
from consenso.data.near import LISTED, Near, Search, near_graph, near_keys
from consenso.errors import ConfigError, DataError
from consenso.tables import LEAKS, PARTS, TEXTS, check
from consenso.text import clean

if TYPE_CHECKING:
    import pandas as pd

    from consenso.data.settings import Leakage

logger = logging.getLogger(__name__)

NearSearch = Callable[[list[str], Mapping[str, int]], dict[str, Near]]
"""Normalised texts of the left side, those of the right with their counts → what each left one is near to."""


def find_leaks(
    texts: pd.DataFrame,
    parts: Mapping[Any, str] | pd.Series | pd.DataFrame,
    level: Leakage = "near",
    threshold: float = 0.8,
    *,
    search: Search = "auto",
) -> pd.DataFrame:
    """Return LEAKS: each text to remove with the texts of another part that it repeats and that stay.

    `parts` says train, dev or test by text_id (a mapping, a Series indexed by text_id: fold 0; or FOLDS, each fold for
    itself); other texts take no part. Dev texts that repeat a test text go first; then train texts that repeat a test
    or a remaining dev text. A level includes the stricter ones: exact (NFC, stripped), normalised (see
    `consenso.text`), near (Jaccard of the sets of scikit-learn char_wb 5-grams of the normalised texts ≥ `threshold`);
    texts that share a `group` leak at every level. `similarity` is null for a shared group. `attrs["pairs"]` counts all
    pairs; at most 100 per text and fold are listed.
    """
    if level not in {"exact", "normalised", "near", "off"}:
        raise ConfigError(f"leakage: unknown level {level!r}; choose exact, normalised, near or off")
    texts = check(texts, TEXTS)
    assigned = _by_fold(parts)
    known = _read(texts, set().union(*assigned.values()))
    near = _near_search(known, level, threshold, search, n_folds=len(assigned))
    rows: list[dict[str, Any]] = []
    pairs = 0
    for fold in sorted(assigned) if level != "off" else ():
        found, counted = _leaks_of_fold(fold, _sides(known, assigned[fold]), level, near)
        rows += found
        pairs += counted
    leaks = _as_leaks(rows)
    leaks.attrs.update(pairs=pairs, level=level, threshold=threshold)
    logger.info("leakage (%s): %d pair(s), %d text(s) to remove", level, pairs, leaks["text_id"].nunique())
    return leaks


class _Text(NamedTuple):
    text_id: Any
    part: str
    exact: str
    key: str
    gold: str | None
    group: str | None


def _by_fold(parts: Any) -> dict[int, dict[str, str]]:
    """Fold → text_id as text → part."""
    import pandas as pd

    if isinstance(parts, pd.DataFrame):
        numbers = parts["fold"] if "fold" in parts else pd.Series(0, index=parts.index)
        given = {int(fold): dict(zip(mine["text_id"].map(str), mine["part"])) for fold, mine in parts.groupby(numbers)}
    else:
        given = {0: {str(text_id): part for text_id, part in dict(parts).items()}}
    found = {str(part) for fold in given.values() for part in fold.values() if not pd.isna(part)}
    if strange := sorted(found - set(PARTS)):
        raise DataError(f"leakage: unknown part(s) {strange}; parts are train, dev and test")
    return given


def _read(texts: pd.DataFrame, wanted: set[str]) -> dict[str, _Text]:
    """Text_id as text → what is compared of the text, in the order of the ids; the part is still open."""
    gold = texts["gold"].astype(object).where(texts["gold"].notna(), None)
    group = texts["group"].astype(object).where(texts["group"].notna(), None)
    known = {
        str(text_id): _Text(text_id, "", clean(text), normalised_key(text), label, source)
        for text_id, text, label, source in zip(texts["text_id"], texts["text"], gold, group)
        if str(text_id) in wanted
    }
    return dict(sorted(known.items()))


def _sides(known: Mapping[str, _Text], parts: Mapping[str, str]) -> dict[str, list[_Text]]:
    sides: dict[str, list[_Text]] = {part: [] for part in PARTS}
    for name, text in known.items():
        if (part := parts.get(name)) in sides:
            sides[part].append(text._replace(part=part))
    return sides


def _near_search(
    known: Mapping[str, _Text], level: str, threshold: float, search: Search, *, n_folds: int
) -> NearSearch:
    """How near texts are found: for several folds one search among all texts serves them all, unless it finds too many."""
    if level != "near":
        return lambda left, right: {}
    graph = near_graph((text.key for text in known.values()), threshold, search) if n_folds > 1 else None
    if graph is not None:
        return graph.between
    return lambda left, right: near_keys(left, right, threshold, search)


def _leaks_of_fold(
    fold: int, sides: Mapping[str, list[_Text]], level: str, near: NearSearch
) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    pairs = 0
    removed: set[Any] = set()
    for left, right in (("dev", ("test",)), ("train", ("test", "dev"))):
        others = [side for name in right for side in sides[name] if side.text_id not in removed]
        found, counted = _compare(sides[left], others, level, near)
        removed.update(row["text_id"] for row in found)
        rows += [{"fold": fold, **row} for row in found]
        pairs += counted
    return rows, pairs


def _compare(left: list[_Text], right: list[_Text], level: str, search: NearSearch) -> tuple[list[dict[str, Any]], int]:
    """Leaks of `left` into `right`, and the number of pairs."""

    def key_of(text: _Text) -> str:
        return text.exact if level == "exact" else text.key

    there: dict[str, list[_Text]] = {}
    groups: dict[str | None, list[_Text]] = {}
    for text in right:
        there.setdefault(key_of(text), []).append(text)
        if text.group is not None:
            groups.setdefault(text.group, []).append(text)
    near = search(sorted({key_of(text) for text in left}), {key: len(found) for key, found in there.items()})
    rows: list[dict[str, Any]] = []
    pairs = 0
    for text in left:
        same = sorted(there.get(key_of(text), []), key=lambda other: other.exact != text.exact)
        alike = near.get(key_of(text), Near())
        like = itertools.chain(
            (_leak(text, other, "exact" if other.exact == text.exact else "normalised", 1.0) for other in same),
            (_leak(text, other, "near", similarity) for key, similarity in alike.keys for other in there[key]),
        )
        listed = list(itertools.islice(like, LISTED))
        known = {row["other_id"] for row in listed}
        mates = [other for other in groups.get(text.group, []) if other.text_id not in known]
        rows += listed + [_leak(text, other, "group", None) for other in mates[: LISTED - len(listed)]]
        pairs += len(same) + alike.pairs + len(mates)
    return rows, pairs


def _leak(text: _Text, other: _Text, level: str, similarity: float | None) -> dict[str, Any]:
    same = None if text.gold is None or other.gold is None else text.gold == other.gold
    return {
        "text_id": text.text_id, "part": text.part, "other_id": other.text_id, "other_part": other.part,
        "level": level, "similarity": similarity, "same_gold": same,
    }  # fmt: skip


def _as_leaks(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    leaks = pd.DataFrame(rows, columns=list(LEAKS.columns))
    leaks["similarity"] = leaks["similarity"].astype(float)
    leaks["same_gold"] = leaks["same_gold"].astype(object)
    return leaks.astype({"fold": "int64"})
