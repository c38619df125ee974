"""Samples and splits: stratified by gold, grouped by source, seeded, independent of the order of the rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.data.leakage import find_leaks
from consenso.errors import ConfigError, DataError, nearest
from consenso.labels import LabelSchema
from consenso.tables import FOLDS, SPLITS, TEXTS, check

if TYPE_CHECKING:
    import pandas as pd

    from consenso.data.settings import Leakage

logger = logging.getLogger(__name__)

_SAMPLE, _TEST, _DEV = 0, 1, 2  # separate streams of one seed
_LEVELS = ("exact", "normalised", "near", "group")
_NO_GOLD = "\0no gold"
_SPLIT_WORDS = {
    "training": "train",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "development": "dev",
    "testing": "test",
}


class Folds(NamedTuple):
    """What `make_folds` returns."""

    folds: pd.DataFrame
    """FOLDS: the truth for training and test."""
    leaks: pd.DataFrame
    """LEAKS: the texts that were removed, and what they repeat."""


def schema_of(texts: pd.DataFrame) -> LabelSchema:
    """Return the labels that `load_dataset` noted, else the distinct gold names; without either, raise `DataError`."""
    from consenso.data.gold import gold_text, infer_schema

    if records := texts.attrs.get("labels"):
        return LabelSchema.from_records(records)
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
    strata = [(s, g) if sampling == "stratified" else () for s, g in zip(_words(texts["split"]), _words(texts["gold"]))]
    chosen = pick(texts["text_id"].tolist(), strata, size, (seed, _SAMPLE))
    return texts[texts["text_id"].isin(chosen)].reset_index(drop=True)


def make_folds(
    texts: pd.DataFrame,
    *,
    test_size: float = 0.2,
    dev_size: float = 0.15,
    seed: int = 42,
    leakage: Leakage = "near",
) -> Folds:
    """Return (FOLDS with fold 0, LEAKS): who trains, who chooses the state, who is tested, and who was removed.

    A given test or dev split is kept; all other texts train. A missing test split is drawn from those that have gold
    (`test_size` of them), then a missing dev split from the rest (`dev_size` of it), both stratified by gold; texts of
    one group stay together. Of two texts in different parts that repeat each other, the train text goes, else the dev
    text; a test text never does. Test texts without gold are left out; a test part without any gold raises `DataError`.
    Both frames say more in `attrs`: folds["notes"], leaks["pairs"].
    """
    for name, share in (("test_size", test_size), ("dev_size", dev_size)):
        if not 0 < share < 1:
            raise ConfigError(f"{name} must lie between 0 and 1; found {share}")
    texts = check(texts, TEXTS).sort_values("text_id", key=lambda ids: ids.map(str)).reset_index(drop=True)
    notes: list[str] = []
    parts = _given_parts(texts, notes)
    if "test" not in parts.values():
        _draw(texts[texts["gold"].notna()], parts, "test", share=test_size, seed=(seed, _TEST), notes=notes)
    if "dev" not in parts.values():
        _draw(texts, parts, "dev", share=dev_size, seed=(seed, _DEV), notes=notes)
    leaks = find_leaks(texts, parts, level=leakage)
    for text_id in set(leaks["text_id"]):
        del parts[text_id]
    _note_leaks(leaks, leakage, notes)
    _check_parts(texts, parts, notes)
    folds = _as_folds(parts)
    folds.attrs["notes"] = notes
    logger.info(
        "folds: %s, %d text(s) removed as leaks", folds["part"].value_counts().to_dict(), leaks["text_id"].nunique()
    )
    return Folds(folds, leaks)


def _words(values: pd.Series) -> list[str]:
    return [_NO_GOLD if missing else str(value) for value, missing in zip(values, values.isna())]


def _given_parts(texts: pd.DataFrame, notes: list[str]) -> dict[Any, str]:
    """text_id → part as the source gives it; what is neither test nor dev trains."""
    parts = {
        text_id: split if split in {"test", "dev"} else "train"
        for text_id, split in zip(texts["text_id"], texts["split"].astype(object))
    }
    if texts["gold"].isna().all():
        raise DataError(
            "no text has gold: the test part needs human labels; give a gold column, at least for the test texts"
        )
    bare = [
        text_id
        for text_id, missing in zip(texts["text_id"], texts["gold"].isna())
        if missing and parts[text_id] == "test"
    ]
    tests = sum(part == "test" for part in parts.values())
    if tests and len(bare) == tests:
        raise DataError(
            f"none of the {tests} test texts has gold; give human labels for the test split, or drop the split column"
        )
    if bare:
        notes.append(f"{len(bare)} of {tests} test texts have no gold and were left out")
        for text_id in bare:
            del parts[text_id]
    return parts


def _draw(
    texts: pd.DataFrame, parts: dict[Any, str], part: str, *, share: float, seed: tuple[int, ...], notes: list[str]
) -> None:
    """Move a share of the training texts of this frame into `part`."""
    pool = texts[texts["text_id"].map(parts.get) == "train"]
    if len(pool) < 2:
        raise DataError(f"{len(pool)} text(s) to draw {part} texts from; give more texts or a {part} split")
    ids, gold = pool["text_id"].tolist(), _words(pool["gold"])
    grouped = bool(pool["group"].notna().any())
    if grouped:
        groups = [f"g\0{g}" if has else f"t\0{i}" for g, has, i in zip(pool["group"], pool["group"].notna(), ids)]
        chosen = pick_groups(ids, gold, groups, share, seed)
    else:
        chosen = pick(ids, gold, min(max(round(share * len(pool)), 1), len(pool) - 1), seed)
    if not 0 < len(chosen) < len(pool):
        raise DataError(f"the groups are too large to draw {part} texts; give a {part} split, or smaller groups")
    absent = sorted(set(gold) - {label for text_id, label in zip(ids, gold) if text_id in chosen} - {_NO_GOLD})
    if absent:
        notes.append(f"too rare for the drawn {part} part: {', '.join(absent)}")
    how = "stratified by gold" + (", whole groups" if grouped else "")
    notes.append(f"{part}: {len(chosen)} of {len(pool)} texts drawn, {how}")
    parts.update(dict.fromkeys(chosen, part))


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


def _note_leaks(leaks: pd.DataFrame, leakage: str, notes: list[str]) -> None:
    if leakage == "off":
        notes.append("the leakage guard is off")
        return
    for part, removed in leaks.groupby("part"):
        levels = removed.groupby("text_id")["level"].agg(_strictest).value_counts()
        shown = ", ".join(f"{levels[level]} {level}" for level in _LEVELS if level in levels)
        notes.append(f"leakage guard ({leakage}): {removed['text_id'].nunique()} {part} text(s) removed: {shown}")


def _strictest(levels: pd.Series) -> str:
    return min((str(level) for level in levels), key=_LEVELS.index)


def _check_parts(texts: pd.DataFrame, parts: dict[Any, str], notes: list[str]) -> None:
    for part in ("train", "dev", "test"):
        if part not in parts.values():
            raise DataError(
                f"no {part} texts are left; give more texts, another split, or a narrower level of data.leakage"
            )
    kinds = texts["text_id"].map(parts.get)
    trained = set(texts.loc[kinds == "train", "gold"].dropna())
    tested = set(texts.loc[kinds == "test", "gold"].dropna())
    if trained and (absent := sorted(tested - trained)):
        notes.append(f"tested but without training text: {', '.join(absent)}")


def _as_folds(parts: dict[Any, str]) -> pd.DataFrame:
    import pandas as pd

    ids = sorted(parts, key=str)
    return pd.DataFrame({"fold": 0, "text_id": ids, "part": [parts[text_id] for text_id in ids]})[list(FOLDS.columns)]
