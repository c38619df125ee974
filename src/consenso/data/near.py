"""Texts whose character 5-grams overlap: all pairs above a Jaccard similarity, by sparse product or MinHash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

EXACT_PAIRS = 20_000**2
"""Up to so many pairs of distinct texts candidates come from a sparse product, above it from MinHash."""
GRAPH_PAIRS = 2_000_000
"""So many near pairs are kept in memory at once; a corpus of boilerplate has more."""
LISTED = 100
"""So many of the texts that one removed text repeats are listed; all are counted."""
_SHORTEST = 5
"""Shorter normalised texts have no 5-gram of their own and are compared as wholes."""
_PERMUTATIONS, _BANDS = 128, 32
_PRIME = 2**31 - 1

Search = Literal["auto", "product", "minhash"]
Pair = tuple["np.ndarray", "np.ndarray", "np.ndarray"]
"""Positions left, positions right, similarities."""


@dataclass
class Near:
    """What one text is near to on the other side."""

    keys: list[tuple[str, float]] = field(default_factory=list)
    """Normalised texts and similarities; cut to the nearest, so that a corpus of boilerplate fits in memory."""
    pairs: int = 0
    """How many texts, before any cut."""

    def add(self, key: str, similarity: float, texts: int) -> None:
        """Add a normalised text of the other side that stands for so many texts."""
        self.keys.append((key, similarity))
        self.pairs += texts
        if len(self.keys) > 4 * LISTED:
            self.cut()

    def cut(self) -> None:
        """Keep the nearest."""
        self.keys = sorted(self.keys, key=lambda pair: (-pair[1], pair[0]))[:LISTED]


def near_keys(left: list[str], right: Mapping[str, int], threshold: float, search: Search) -> dict[str, Near]:
    """Normalised text → the other normalised texts of the right side (given with their counts) that are near it."""
    left = [key for key in left if _has_grams(key)]
    there = sorted(key for key in right if _has_grams(key))
    found: dict[str, Near] = {}
    if not left or not there:
        return found
    grams = _grams(left + there)
    candidates = _candidates(grams, len(left), threshold, search)
    for i, j, similarity in _verified(grams, len(left), candidates, threshold):
        for a, b, s in zip(i.tolist(), j.tolist(), similarity.tolist()):
            if left[a] != there[b]:
                found.setdefault(left[a], Near()).add(there[b], s, right[there[b]])
    for near in found.values():
        near.cut()
    return found


@dataclass(frozen=True)
class NearGraph:
    """All near pairs among some normalised texts, so that several divisions of them need one search."""

    keys: list[str]
    places: Mapping[str, int]
    """Normalised text → its position in `keys`."""
    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray
    """Every pair twice, once in each direction, ordered by (i, j)."""

    def between(self, left: Iterable[str], right: Mapping[str, int]) -> dict[str, Near]:
        """Return what `near_keys` returns for two sides of the graph's texts."""
        chosen = self._mask(left)[self.i] & self._mask(right)[self.j]
        found: dict[str, Near] = {}
        for a, b, s in zip(self.i[chosen].tolist(), self.j[chosen].tolist(), self.similarity[chosen].tolist()):
            found.setdefault(self.keys[a], Near()).add(self.keys[b], s, right[self.keys[b]])
        for near in found.values():
            near.cut()
        return found

    def _mask(self, keys: Iterable[str]) -> np.ndarray:
        import numpy as np

        mask = np.zeros(len(self.keys), dtype=bool)
        mask[[self.places[key] for key in keys if key in self.places]] = True
        return mask


def near_graph(texts: Iterable[str], threshold: float, search: Search) -> NearGraph | None:
    """Return all near pairs among normalised texts; None if there are more than GRAPH_PAIRS."""
    import numpy as np
    from scipy import sparse

    keys = sorted({key for key in texts if _has_grams(key)})
    found: list[Pair] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    if keys:
        once = _grams(keys)
        grams = sparse.vstack([once, once], format="csr")
        ordered = ((i[i < j], j[i < j]) for i, j in _candidates(grams, len(keys), threshold, search))
        pairs = 0
        for pair in _verified(grams, len(keys), ordered, threshold):
            found.append(pair)
            pairs += len(pair[0])
            if pairs > GRAPH_PAIRS:
                return None
    i, j, similarity = (np.concatenate(column) for column in zip(*found))
    i, j, similarity = np.concatenate([i, j]), np.concatenate([j, i]), np.tile(similarity, 2)
    order = np.lexsort((j, i))
    return NearGraph(keys, {key: at for at, key in enumerate(keys)}, i[order], j[order], similarity[order])


def _candidates(grams: Any, n_left: int, threshold: float, search: Search) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # 4 rows a band miss 1 pair in 6,500 at Jaccard .7, ever more below
    many = threshold >= 0.7 and n_left * (grams.shape[0] - n_left) > EXACT_PAIRS
    minhash = search == "minhash" or (search == "auto" and many)
    return _hashed(grams, n_left) if minhash else _product(grams, n_left, threshold)


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
