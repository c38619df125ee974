"""Folds: who trains, who chooses the state, who is tested; drawn once, k times, or as given; cleared of leaks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.data.leakage import find_leaks
from consenso.data.settings import MOST_FOLDS
from consenso.data.splitting import DEV, NO_GOLD, TEST, deal, deal_groups, pick, pick_groups, words
from consenso.errors import ConfigError, DataError
from consenso.fold_tests import uneven_test_texts
from consenso.tables import FOLDS, TEXTS, check

if TYPE_CHECKING:
    import pandas as pd

    from consenso.data.settings import Leakage

logger = logging.getLogger(__name__)

_LEVELS = ("exact", "normalised", "near", "group")


class Folds(NamedTuple):
    """What `make_folds` returns."""

    folds: pd.DataFrame
    """FOLDS: the truth for training and test."""
    leaks: pd.DataFrame
    """LEAKS: the texts that were removed, and what they repeat."""


@dataclass
class _Plan:
    """One fold in the making."""

    parts: dict[Any, str]
    where: str = ""
    """How an error names the fold: nothing where there is but one."""
    notes: list[str] = field(default_factory=list)

    def of(self, part: str) -> set[Any]:
        return {text_id for text_id, mine in self.parts.items() if mine == part}


def make_folds(
    texts: pd.DataFrame,
    *,
    test_size: float = 0.2,
    dev_size: float = 0.15,
    seed: int = 42,
    leakage: Leakage = "near",
    folds: int = 1,
    given: pd.DataFrame | None = None,
) -> Folds:
    """Return (FOLDS, LEAKS): who trains, who chooses the state, who is tested, and who was removed.

    One fold: a given test or dev split is kept; all other texts train. A missing test split is drawn from those that
    have gold (`test_size` of them). `folds` = k ≥ 2: folds 0 to k−1, every text with gold is tested in exactly one of
    them (a given dev split stays dev in all, a given test split raises `ConfigError`). `given`: FOLDS that stand; a
    text in no part of a fold is not used there. A fold without dev then gets one from its other texts (`dev_size` of
    them). All draws are stratified by gold and keep groups whole; texts without gold are never tested.

    Of two texts in different parts of a fold that repeat each other, the train text goes, else the dev text; a test
    text never does. A fold without a test text with gold raises `DataError`, and so do given folds whose test texts
    are neither all the same nor all apart. Both frames say more in `attrs`:
    folds["notes"], leaks["pairs"].
    """
    for name, share in (("test_size", test_size), ("dev_size", dev_size)):
        if not 0 < share < 1:
            raise ConfigError(f"{name} must lie between 0 and 1; found {share}")
    if not 1 <= folds <= MOST_FOLDS:
        raise ConfigError(f"folds must lie between 1 and {MOST_FOLDS}; found {folds}")
    if folds > 1 and given is not None:
        raise ConfigError(
            f"folds = {folds}, but the folds are given: either draw folds or give them; drop one of the two"
        )
    texts = check(texts, TEXTS).sort_values("text_id", key=lambda ids: ids.map(str)).reset_index(drop=True)
    notes: list[str] = []
    if given is not None:
        plans = _given(texts, given, notes)
    elif folds > 1:
        plans = _dealt(texts, folds, seed, notes)
    else:
        plans = [_single(texts, test_size, seed)]
    for number, plan in enumerate(plans):
        if "dev" not in plan.parts.values():
            _draw(texts, plan, "dev", share=dev_size, seed=(seed, DEV, number) if len(plans) > 1 else (seed, DEV))
    leaks = find_leaks(texts, _as_folds(plans), level=leakage)
    for fold, text_id in set(zip(leaks["fold"], leaks["text_id"])):
        del plans[fold].parts[text_id]
    notes += _gather(plans, lambda plan: plan.notes)
    _note_leaks(leaks, leakage, notes)
    notes += _gather(plans, lambda plan: _check_parts(texts, plan))
    made = _as_folds(plans)
    made.attrs["notes"] = notes
    logger.info(
        "folds: %d, %s, %d text(s) removed as leaks",
        len(plans), made["part"].value_counts().to_dict(), leaks["text_id"].nunique(),
    )  # fmt: skip
    return Folds(made, leaks)


# who is tested


def _single(texts: pd.DataFrame, test_size: float, seed: int) -> _Plan:
    """One fold as the source's splits say; a missing test part is drawn."""
    plan = _Plan(_split_parts(texts))
    _leave_out_bare(texts, plan, "the test split, or drop the split column")
    if "test" not in plan.parts.values():
        _draw(texts[texts["gold"].notna()], plan, "test", share=test_size, seed=(seed, TEST))
    return plan


def _dealt(texts: pd.DataFrame, k: int, seed: int, notes: list[str]) -> list[_Plan]:
    """K folds with disjoint test parts, together all texts with gold that are not in a given dev split."""
    parts = _split_parts(texts)
    if tests := sum(part == "test" for part in parts.values()):
        raise ConfigError(
            f"folds = {k}, but the data give a test split ({tests} texts): either k-fold or the given test split; drop "
            'folds, or the split with columns = { split = "" }'
        )
    pool = texts[texts["gold"].notna() & (texts["text_id"].map(parts.get) == "train")]
    ids, gold = pool["text_id"].tolist(), words(pool["gold"])
    groups = _groups(pool)
    units = len(set(groups)) if groups else len(ids)
    if units < k:
        found = f"{units} group(s)" if groups else f"{units} text(s) with gold"
        raise DataError(f"folds = {k}, but there are {found} to test; give more, or fewer folds")
    fold_of = deal_groups(ids, gold, groups, k, (seed, TEST)) if groups else deal(ids, gold, k, (seed, TEST))
    plans = [_Plan(parts.copy(), f"fold {fold}: ") for fold in range(k)]
    for text_id, fold in fold_of.items():
        plans[fold].parts[text_id] = "test"
    sizes = sorted(len(plan.of("test")) for plan in plans)
    how = "stratified by gold" + (", whole groups" if groups else "")
    notes.append(f"{k} folds: each of {len(ids)} texts is tested in one of them, {_span(sizes)} per fold, {how}")
    tested_in: dict[str, set[int]] = {}
    for text_id, label in zip(ids, gold):
        tested_in.setdefault(label, set()).add(fold_of[text_id])
    if rare := [f"{label} (in {len(found)} of {k})" for label, found in sorted(tested_in.items()) if len(found) < k]:
        notes.append(f"too rare for every test fold: {', '.join(rare)}")
    if dev := sum(part == "dev" for part in parts.values()):
        notes.append(f"the {dev} texts of the given dev split are dev in every fold and never tested")
    if bare := int(texts["gold"].isna().sum()):
        notes.append(f"{bare} texts have no gold and are never tested")
    return plans


def _given(texts: pd.DataFrame, given: pd.DataFrame, notes: list[str]) -> list[_Plan]:
    """The folds as given, after checking that none is missing or lacks a part."""
    given = check(given, FOLDS)
    own = {str(text_id): text_id for text_id in texts["text_id"]}
    names = given["text_id"].map(str)
    if strange := sorted(set(names) - set(own)):
        raise DataError(
            f"folds: {len(strange)} text id(s) are not among the texts, for example {strange[0]!r}; give the ids of the texts"
        )
    number_folds(given["fold"], "folds")
    _need_gold(texts)
    plans = []
    for fold, mine in given.assign(text_id=names.map(own)).groupby("fold"):
        plan = _Plan(dict(zip(mine["text_id"], mine["part"])), f"fold {fold}: ")
        for part in ("train", "test"):
            if part not in plan.parts.values():
                raise DataError(f"fold {fold} has no {part} texts; every given fold needs train and test")
        _leave_out_bare(texts, plan, "its test texts")
        plans.append(plan)
    if found := uneven_test_texts({fold: plan.of("test") for fold, plan in enumerate(plans)}):
        raise DataError(
            f"folds: {found}; give folds that all test the same texts, or each its own, or run them one at a time"
        )
    tested = [text_id for plan in plans for text_id in plan.of("test")]
    sizes = sorted(len(plan.of("test")) for plan in plans)
    notes.append(f"{len(plans)} given fold(s): {len(set(tested))} texts are tested, {_span(sizes)} per fold")
    if len(tested) > len(set(tested)):
        notes.append("every fold tests the same texts: a fold is one set of training texts")
    if unused := len(texts) - len({text_id for plan in plans for text_id in plan.parts}):
        notes.append(f"{unused} texts are in no fold")
    return plans


def number_folds(values: pd.Series, where: str) -> int:
    """Return the number of folds 0 to k−1; a gap, another start or too many raise `DataError`, which names `where`."""
    found = sorted({int(value) for value in values})
    if not found:
        raise DataError(f"{where}: no fold is given; number the folds from 0")
    if missing := sorted(set(range(found[-1] + 1)) - set(found)):
        shown = ", ".join(map(str, found[:10])) + (", …" if len(found) > 10 else "")
        raise DataError(f"{where}: fold {missing[0]} is missing; found {shown}; number the folds from 0 without a gap")
    if found[0] < 0 or len(found) > MOST_FOLDS:
        raise DataError(f"{where}: found folds {found[0]} to {found[-1]}; they start at 0 and are at most {MOST_FOLDS}")
    return len(found)


def _split_parts(texts: pd.DataFrame) -> dict[Any, str]:
    """text_id → part as the source's splits say; what is neither test nor dev trains."""
    _need_gold(texts)
    return {
        text_id: split if split in {"test", "dev"} else "train"
        for text_id, split in zip(texts["text_id"], texts["split"].astype(object))
    }


def _need_gold(texts: pd.DataFrame) -> None:
    if texts["gold"].isna().all():
        raise DataError(
            "no text has gold: the test part needs human labels; give a gold column, at least for the test texts"
        )


def _leave_out_bare(texts: pd.DataFrame, plan: _Plan, what: str) -> None:
    """Take the test texts without gold out of the fold."""
    tests = plan.of("test")
    bare = tests & set(texts.loc[texts["gold"].isna(), "text_id"])
    if tests and len(bare) == len(tests):
        raise DataError(f"{plan.where}none of the {len(tests)} test texts has gold; give human labels for {what}")
    if bare:
        plan.notes.append(f"{len(bare)} of {len(tests)} test texts have no gold and were left out")
        for text_id in bare:
            del plan.parts[text_id]


# draws


def _groups(texts: pd.DataFrame) -> list[str]:
    """What stays together: the group, or the text itself; empty where no text has a group."""
    if not texts["group"].notna().any():
        return []
    return [
        f"g\0{group}" if has else f"t\0{text_id}"
        for group, has, text_id in zip(texts["group"], texts["group"].notna(), texts["text_id"])
    ]


def _draw(texts: pd.DataFrame, plan: _Plan, part: str, *, share: float, seed: tuple[int, ...]) -> None:
    """Move a share of the training texts of this frame into `part`."""
    pool = texts[texts["text_id"].map(plan.parts.get) == "train"]
    if len(pool) < 2:
        raise DataError(f"{plan.where}{len(pool)} text(s) to draw {part} texts from; give more texts or a {part} split")
    ids, gold = pool["text_id"].tolist(), words(pool["gold"])
    groups = _groups(pool)
    if groups:
        chosen = pick_groups(ids, gold, groups, share, seed)
    else:
        chosen = pick(ids, gold, min(max(round(share * len(pool)), 1), len(pool) - 1), seed)
    if not 0 < len(chosen) < len(pool):
        raise DataError(
            f"{plan.where}the groups are too large to draw {part} texts; give a {part} split, or smaller groups"
        )
    absent = sorted(set(gold) - {label for text_id, label in zip(ids, gold) if text_id in chosen} - {NO_GOLD})
    if absent:
        plan.notes.append(f"too rare for the drawn {part} part: {', '.join(absent)}")
    how = "stratified by gold" + (", whole groups" if groups else "")
    plan.notes.append(f"{part}: {len(chosen)} of {len(pool)} texts drawn, {how}")
    plan.parts.update(dict.fromkeys(chosen, part))


# what is said about them


def _span(sizes: list[int]) -> str:
    return str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"


def _gather(plans: list[_Plan], notes_of: Callable[[_Plan], list[str]]) -> list[str]:
    """The notes of all folds, each with the folds it is said of."""
    folds: dict[str, list[str]] = {}
    for number, plan in enumerate(plans):
        for note in notes_of(plan):
            folds.setdefault(note, []).append(str(number))
    if len(plans) == 1:
        return list(folds)
    return [
        f"every fold: {note}" if len(found) == len(plans) else f"fold {', '.join(found)}: {note}"
        for note, found in folds.items()
    ]


def _note_leaks(leaks: pd.DataFrame, leakage: str, notes: list[str]) -> None:
    if leakage == "off":
        notes.append("the leakage guard is off")
        return
    for part, removed in leaks.groupby("part"):
        levels = removed.groupby(["fold", "text_id"])["level"].agg(_strictest)
        shown = ", ".join(f"{count} {level}" for level in _LEVELS if (count := int((levels == level).sum())))
        folds = removed["fold"].nunique()
        where = f", in {folds} folds together" if folds > 1 else ""
        notes.append(f"leakage guard ({leakage}): {len(levels)} {part} text(s) removed{where}: {shown}")


def _strictest(levels: pd.Series) -> str:
    return min((str(level) for level in levels), key=_LEVELS.index)


def _check_parts(texts: pd.DataFrame, plan: _Plan) -> list[str]:
    """Raise `DataError` where a part is empty; return what is worth a note."""
    for part in ("train", "dev", "test"):
        if part not in plan.parts.values():
            raise DataError(
                f"{plan.where}no {part} texts are left; give more texts, another split, or a narrower level of data.leakage"
            )
    kinds = texts["text_id"].map(plan.parts.get)
    trained = set(texts.loc[kinds == "train", "gold"].dropna())
    tested = set(texts.loc[kinds == "test", "gold"].dropna())
    absent = sorted(tested - trained) if trained else []
    return [f"tested but without training text: {', '.join(absent)}"] if absent else []


def _as_folds(plans: list[_Plan]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (fold, text_id, plan.parts[text_id])
        for fold, plan in enumerate(plans)
        for text_id in sorted(plan.parts, key=str)
    ]
    return pd.DataFrame(rows, columns=list(FOLDS.columns))
