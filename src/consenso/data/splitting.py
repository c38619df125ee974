"""Drawing of samples, parts and folds: stratified by gold, grouped by source, seeded, independent of the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError, nearest
from consenso.labels import LabelSchema
from consenso.tables import SPLITS

if TYPE_CHECKING:
    import pandas as pd

SAMPLE, TEST, DEV = 0, 1, 2
"""Separate streams of one seed."""
NO_GOLD = "\0no gold"
"""The stratum of texts without gold."""
_SPLIT_WORDS = {
    "training": "train",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "development": "dev",
    "testing": "test",
}


def schema_of(texts: pd.DataFrame) -> LabelSchema:
    """Return the labels that `load_dataset` noted, else the distinct gold names; without either, raise `DataError`."""
    from consenso.data.gold import gold_text, infer_schema

    if records := texts.attrs.get("labels"):
        given = (texts.attrs.get("record") or {}).get("ids_given", True)
        return LabelSchema.from_records(records).with_ids_given(given)
    if "gold" not in texts or texts["gold"].isna().all():
        raise DataError("texts: no gold and no labels; name the labels (load_dataset(…, labels=[…]) or [data] labels)")
    return infer_schema(texts["gold"].dropna().map(gold_text))


def read_split(value: str | None) -> str | None:
    """Return train, dev, test or pool for a split's usual names; None for null; an unknown name raises `DataError`."""
    if value is None:
        return None
    word = str(value).strip().casefold()
    word = _SPLIT_WORDS.get(word, word)
    if word not in SPLITS:
        hint = nearest(word, [*SPLITS, *_SPLIT_WORDS])
        raise DataError(f"split: found {value!r}; the splits are {', '.join(SPLITS)} (validation means dev).{hint}")
    return word


def stratified_counts(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` in proportion to `sizes` by largest remainder; exact, ties go to the earlier stratum."""
    whole = sum(sizes)
    floors = [size * total // whole for size in sizes]
    remainders = [size * total % whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: total - sum(floors)]:
        floors[i] += 1
    return floors


def pick(ids: Sequence[Any], strata: Sequence[Any], total: int, seed: Sequence[int]) -> set[Any]:
    """Draw `total` ids, each stratum in proportion to its size; the same set for any order of the ids."""
    import numpy as np

    members: dict[str, list[Any]] = {}
    for text_id, stratum in sorted(zip(ids, strata), key=lambda pair: str(pair[0])):
        members.setdefault(str(stratum), []).append(text_id)
    names = sorted(members)
    counts = stratified_counts([len(members[name]) for name in names], total)
    rng = np.random.default_rng(list(seed))
    return {members[name][i] for name, n in zip(names, counts) for i in rng.permutation(len(members[name]))[:n]}


def sample_texts(texts: pd.DataFrame, size: int, sampling: str, seed: int) -> pd.DataFrame:
    """Return `size` of the texts in their order: strata are (split, gold), or one stratum for sampling = "simple"."""
    if size >= len(texts):
        return texts
    strata = [(s, g) if sampling == "stratified" else () for s, g in zip(words(texts["split"]), words(texts["gold"]))]
    chosen = pick(texts["text_id"].tolist(), strata, size, (seed, SAMPLE))
    return texts[texts["text_id"].isin(chosen)].reset_index(drop=True)


def words(values: pd.Series) -> list[str]:
    """Return the values as text; null is a stratum of its own."""
    return [NO_GOLD if missing else str(value) for value, missing in zip(values, values.isna())]


def pick_groups(
    ids: Sequence[Any], strata: Sequence[str], groups: Sequence[str], share: float, seed: Sequence[int]
) -> set[Any]:
    """Draw whole groups so that each stratum comes near `share`; never all groups.

    Groups are visited in a seeded random order; one joins if it brings the counts by stratum nearer (least squares) to
    the wanted ones. scikit-learn's StratifiedGroupKFold serves only shares of 1/k and stops at classes rarer than k.
    """
    import numpy as np

    columns = {name: i for i, name in enumerate(sorted(set(strata)))}
    rows = {name: i for i, name in enumerate(sorted(set(groups)))}
    counts = np.zeros((len(rows), len(columns)))
    np.add.at(counts, ([rows[g] for g in groups], [columns[s] for s in strata]), 1)
    missing = share * counts.sum(axis=0)
    chosen: set[int] = set()
    order = np.random.default_rng(list(seed)).permutation(len(rows))
    for group in order:
        rest = missing - counts[group]
        if rest @ rest < missing @ missing and len(chosen) < len(rows) - 1:
            missing = rest
            chosen.add(int(group))
    if not chosen and len(rows) > 1:  # every group is larger than the share: take the one nearest to it
        chosen.add(int(min(order, key=lambda group: float(((missing - counts[group]) ** 2).sum()))))
    return {text_id for text_id, group in zip(ids, groups) if rows[group] in chosen}


def deal(ids: Sequence[Any], strata: Sequence[str], k: int, seed: Sequence[int]) -> dict[Any, int]:
    """Return id → fold 0..k−1: of each stratum, and of all, every fold gets as many as any other, give or take one.

    The same for any order of the ids.
    """
    import numpy as np

    members: dict[str, list[Any]] = {}
    for text_id, stratum in sorted(zip(ids, strata), key=lambda pair: str(pair[0])):
        members.setdefault(stratum, []).append(text_id)
    rng = np.random.default_rng(list(seed))
    dealt = [members[name][i] for name in sorted(members) for i in rng.permutation(len(members[name]))]
    return {text_id: place % k for place, text_id in enumerate(dealt)}


def deal_groups(
    ids: Sequence[Any], strata: Sequence[str], groups: Sequence[str], k: int, seed: Sequence[int]
) -> dict[Any, int]:
    """Return id → fold 0..k−1, groups whole, each fold near 1/k of every stratum; at least k groups fill every fold.

    Groups go from the largest to the smallest (equals in a seeded random order) to the fold that has least of the
    group's strata so far: the one where Σ n²/N over strata (n in the fold, N in all) grows least.
    """
    import numpy as np

    columns = {name: i for i, name in enumerate(sorted(set(strata)))}
    rows = {name: i for i, name in enumerate(sorted(set(groups)))}
    counts = np.zeros((len(rows), len(columns)))
    np.add.at(counts, ([rows[g] for g in groups], [columns[s] for s in strata]), 1)
    weights = 1 / counts.sum(axis=0)
    order = np.random.default_rng(list(seed)).permutation(len(rows))
    dealt = np.zeros((k, len(columns)))
    fold_of = np.zeros(len(rows), dtype=np.int64)
    for group in order[np.argsort(-counts[order].sum(axis=1), kind="stable")]:
        held = dealt @ (weights * counts[group])
        fold_of[group] = fold = np.lexsort((dealt.sum(axis=1), held.round(9)))[0]
        dealt[fold] += counts[group]
    return {text_id: int(fold_of[rows[group]]) for text_id, group in zip(ids, groups)}
