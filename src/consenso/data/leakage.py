"""Texts that stand in two parts: exact, normalised and near repeats, and shared groups."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from consenso.data.duplicates import normalised_key
from consenso.errors import ConfigError, DataError
from consenso.tables import LEAKS, PARTS, TEXTS, check
from consenso.text import clean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from consenso.data.settings import Leakage

logger = logging.getLogger(__name__)

EXACT_PAIRS = 20_000**2
"""Up to so many pairs of distinct texts candidates come from a sparse product, above it from MinHash."""
_LISTED = 100
"""So many of the texts that one removed text repeats are listed; all are counted."""
_SHORTEST = 5
"""Shorter normalised texts have no 5-gram of their own and are compared as wholes."""
_PERMUTATIONS, _BANDS = 128, 32
_PRIME = 2**31 - 1

Search = Literal["auto", "product", "minhash"]
Pair = tuple["np.ndarray", "np.ndarray", "np.ndarray"]
"""Positions left, positions right, similarities."""


def find_leaks(
    texts: pd.DataFrame,
    parts: Mapping[Any, str] | pd.Series | pd.DataFrame,
    level: Leakage = "near",
    threshold: float = 0.8,
    *,
    search: Search = "auto",
) -> pd.DataFrame:
    """Return LEAKS: each text to remove with the texts of another part that it repeats and that stay.

    `parts` says train, dev or test by text_id (a mapping, a Series indexed by text_id, or FOLDS); other texts take no
    part. Dev texts that repeat a test text go first; then train texts that repeat a test or a remaining dev text. A
    level includes the stricter ones: exact (NFC, stripped), normalised (see `consenso.text`), near (Jaccard of the sets
    of scikit-learn char_wb 5-grams of the normalised texts ≥ `threshold`); texts that share a `group` leak at every
    level. `similarity` is null for a shared group. `attrs["pairs"]` counts all pairs; at most 100 per text are listed.
    """
    if level not in {"exact", "normalised", "near", "off"}:
        raise ConfigError(f"leakage: unknown level {level!r}; choose exact, normalised, near or off")
    texts = check(texts, TEXTS)
    sides = _by_part(texts, parts)
    rows: list[dict[str, Any]] = []
    pairs = 0
    removed: set[Any] = set()
    for left, right in (("dev", ("test",)), ("train", ("test", "dev"))) if level != "off" else ():
        others = [side for name in right for side in sides[name] if side.text_id not in removed]
        found, counted = _compare(sides[left], others, level, threshold, search)
        removed.update(row["text_id"] for row in found)
        rows += found
        pairs += counted
    leaks = _as_leaks(rows)
    leaks.attrs.update(pairs=pairs, level=level, threshold=threshold)
    logger.info("leakage (%s): %d pair(s), %d text(s) to remove", level, pairs, len(removed))
    return leaks


@dataclass(frozen=True)
class _Text:
    text_id: Any
    part: str
    exact: str
    key: str
    gold: str | None
    group: str | None


def _by_part(texts: pd.DataFrame, parts: Any) -> dict[str, list[_Text]]:
    import pandas as pd

    if isinstance(parts, pd.DataFrame):
        parts = dict(zip(parts["text_id"], parts["part"]))
    given = {str(text_id): part for text_id, part in dict(parts).items()}
    if strange := sorted({str(part) for part in given.values() if not pd.isna(part)} - set(PARTS)):
        raise DataError(f"leakage: unknown part(s) {strange}; parts are train, dev and test")
    sides: dict[str, list[_Text]] = {part: [] for part in PARTS}
    gold = texts["gold"].astype(object).where(texts["gold"].notna(), None)
    group = texts["group"].astype(object).where(texts["group"].notna(), None)
    for text_id, text, label, source in zip(texts["text_id"], texts["text"], gold, group):
        if (part := given.get(str(text_id))) in sides:
            sides[part].append(_Text(text_id, part, clean(text), normalised_key(text), label, source))
    for side in sides.values():
        side.sort(key=lambda text: str(text.text_id))
    return sides


def _compare(
    left: list[_Text], right: list[_Text], level: str, threshold: float, search: Search
) -> tuple[list[dict[str, Any]], int]:
    """Leaks of `left` into `right`, and the number of pairs."""

    def key_of(text: _Text) -> str:
        return text.exact if level == "exact" else text.key

    there: dict[str, list[_Text]] = {}
    groups: dict[str | None, list[_Text]] = {}
    for text in right:
        there.setdefault(key_of(text), []).append(text)
        if text.group is not None:
            groups.setdefault(text.group, []).append(text)
    sizes = {key: len(found) for key, found in there.items()}
    near = _near_keys(sorted({key_of(text) for text in left}), sizes, threshold, search) if level == "near" else {}
    rows: list[dict[str, Any]] = []
    pairs = 0
    for text in left:
        same = sorted(there.get(key_of(text), []), key=lambda other: other.exact != text.exact)
        alike = near.get(key_of(text), _Near())
        like = itertools.chain(
            (_leak(text, other, "exact" if other.exact == text.exact else "normalised", 1.0) for other in same),
            (_leak(text, other, "near", similarity) for key, similarity in alike.keys for other in there[key]),
        )
        listed = list(itertools.islice(like, _LISTED))
        known = {row["other_id"] for row in listed}
        mates = [other for other in groups.get(text.group, []) if other.text_id not in known]
        rows += listed + [_leak(text, other, "group", None) for other in mates[: _LISTED - len(listed)]]
        pairs += len(same) + alike.pairs + len(mates)
    return rows, pairs


def _leak(text: _Text, other: _Text, level: str, similarity: float | None) -> dict[str, Any]:
    same = None if text.gold is None or other.gold is None else text.gold == other.gold
    return {
        "fold": 0, "text_id": text.text_id, "part": text.part, "other_id": other.text_id, "other_part": other.part,
        "level": level, "similarity": similarity, "same_gold": same,
    }  # fmt: skip


def _as_leaks(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    leaks = pd.DataFrame(rows, columns=list(LEAKS.columns))
    leaks["similarity"] = leaks["similarity"].astype(float)
    leaks["same_gold"] = leaks["same_gold"].astype(object)
    return leaks.astype({"fold": "int64"})


@dataclass
class _Near:
    """What one text is near to on the other side."""

    keys: list[tuple[str, float]] = field(default_factory=list)
    """Normalised texts and similarities; cut to the nearest, so that a corpus of boilerplate fits in memory."""
    pairs: int = 0
    """How many texts, before any cut."""

    def add(self, key: str, similarity: float, texts: int) -> None:
        self.keys.append((key, similarity))
        self.pairs += texts
        if len(self.keys) > 4 * _LISTED:
            self.cut()

    def cut(self) -> None:
        self.keys = sorted(self.keys, key=lambda pair: (-pair[1], pair[0]))[:_LISTED]


def _near_keys(left: list[str], right: Mapping[str, int], threshold: float, search: Search) -> dict[str, _Near]:
    """Normalised text → the other normalised texts of the right side (given with their counts) that are near it."""
    left = [key for key in left if _has_grams(key)]
    there = sorted(key for key in right if _has_grams(key))
    found: dict[str, _Near] = {}
    if not left or not there:
        return found
    grams = _grams(left + there)
    # 4 rows a band miss 1 pair in 6,500 at Jaccard .7, ever more below
    many = threshold >= 0.7 and len(left) * len(there) > EXACT_PAIRS
    minhash = search == "minhash" or (search == "auto" and many)
    candidates = _hashed(grams, len(left)) if minhash else _product(grams, len(left), threshold)
    for i, j, similarity in _verified(grams, len(left), candidates, threshold):
        for a, b, s in zip(i.tolist(), j.tolist(), similarity.tolist()):
            if left[a] != there[b]:
                found.setdefault(left[a], _Near()).add(there[b], s, right[there[b]])
    for near in found.values():
        near.cut()
    return found


def _has_grams(key: str) -> bool:
    return len(key) >= _SHORTEST and not key.startswith("\0")


def _grams(texts: list[str]) -> Any:
    """Texts × 5-grams, 0/1, the rarest gram first; the order does not depend on the order of the texts."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(5, 5), binary=True, lowercase=False, dtype=np.int32)
    grams = vectorizer.fit_transform(texts).tocsr()
    rank = np.argsort(np.argsort(np.bincount(grams.indices, minlength=grams.shape[1]), kind="stable"), kind="stable")
    grams.indices = rank[grams.indices].astype(grams.indices.dtype)
    grams.has_sorted_indices = False
    grams.sort_indices()
    return grams


def _product(grams: Any, n_left: int, threshold: float, chunk: int = 512) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs by an exact sparse product, chunk by chunk.

    Two sets with Jaccard ≥ t share an element among the first |x| − ⌈t·|x|⌉ + 1 of each, in any fixed order of the
    elements (prefix filter: Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007). Rarest first keeps the
    product sparse; no pair is lost.
    """
    import numpy as np

    sizes = np.diff(grams.indptr)
    wanted = sizes - np.ceil(threshold * sizes - 1e-9).astype(sizes.dtype) + 1
    place = np.arange(grams.nnz) - np.repeat(grams.indptr[:-1], sizes)
    prefix = grams.copy()
    prefix.data = (place < np.repeat(wanted, sizes)).astype(np.int32)
    prefix.eliminate_zeros()
    right = prefix[n_left:].T.tocsr()
    for start in range(0, n_left, chunk):
        shared = (prefix[start : min(start + chunk, n_left)] @ right).tocoo()
        yield shared.row.astype(np.int64) + start, shared.col.astype(np.int64)


def _hashed(grams: Any, n_left: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs that share a band of 4 of 128 MinHashes; at Jaccard .8 a pair is missed once in 20 million."""
    import numpy as np

    bands = _bands(grams)
    n_right = grams.shape[0] - n_left
    chunk = max(1, min(256, 50_000_000 // n_right))
    orders = [np.argsort(band[n_left:], kind="stable") for band in bands]
    keys = [band[n_left:][order] for band, order in zip(bands, orders)]
    for start in range(0, n_left, chunk):
        rows = np.arange(start, min(start + chunk, n_left))
        found = [np.empty(0, dtype=np.int64)]
        seen = None
        for band, order, key in zip(bands, orders, keys):
            low = np.searchsorted(key, band[rows], side="left")
            count = np.searchsorted(key, band[rows], side="right") - low
            first = np.repeat(low - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
            found.append(np.repeat(rows - start, count) * n_right + order[first + np.arange(count.sum())])
            if seen is not None or sum(map(len, found)) > len(rows) * n_right // 8:  # boilerplate: a bitmap is smaller
                seen = np.zeros(len(rows) * n_right, dtype=bool) if seen is None else seen
                seen[np.concatenate(found)] = True
                found.clear()
        codes = np.unique(np.concatenate(found)) if seen is None else np.flatnonzero(seen)
        yield codes // n_right + start, codes % n_right


def _bands(grams: Any) -> list[np.ndarray]:
    """One 64-bit key per text and band (MinHash: Broder 1997; banding: Leskovec, Rajaraman & Ullman, ch. 3)."""
    import numpy as np

    rng = np.random.default_rng(0)
    slope = rng.integers(1, _PRIME, _PERMUTATIONS, dtype=np.uint64)
    shift = rng.integers(0, _PRIME, _PERMUTATIONS, dtype=np.uint64)
    mixed = _mix(np.arange(grams.shape[1], dtype=np.uint64)) % np.uint64(_PRIME)
    rows = _PERMUTATIONS // _BANDS
    bands = []
    for band in range(_BANDS):
        key = np.zeros(grams.shape[0], dtype=np.uint64)
        for permutation in range(band * rows, (band + 1) * rows):
            hashes = (slope[permutation] * mixed + shift[permutation]) % np.uint64(_PRIME)
            key = _mix(key ^ np.minimum.reduceat(hashes[grams.indices], grams.indptr[:-1]))
        bands.append(key)
    return bands


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection of 64-bit integers without visible pattern."""
    import numpy as np

    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = values ^ (values >> np.uint64(31))
    return result


def _verified(
    grams: Any, n_left: int, candidates: Iterator[tuple[np.ndarray, np.ndarray]], threshold: float
) -> Iterator[Pair]:
    """Keep the candidates whose exact Jaccard reaches the threshold."""
    import numpy as np

    sizes = np.diff(grams.indptr).astype(np.int64)
    for rows, columns in candidates:
        a, b = sizes[rows], sizes[n_left + columns]
        possible = np.minimum(a, b) >= threshold * np.maximum(a, b) - 1e-9
        i, j = rows[possible], columns[possible]
        for start in range(0, len(i), 20_000):
            left, right = i[start : start + 20_000], j[start : start + 20_000]
            shared = np.asarray(grams[left].multiply(grams[n_left + right]).sum(axis=1)).ravel().astype(np.int64)
            union = sizes[left] + sizes[n_left + right] - shared
            near = shared >= threshold * union - 1e-9
            yield left[near], right[near], shared[near] / union[near]
