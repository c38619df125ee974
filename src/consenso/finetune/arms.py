"""Arms: which texts train a student, with whose labels. All come from one call, and no test text enters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from consenso.errors import ConfigError, DataError, JoinError, nearest
from consenso.labels import LabelSchema
from consenso.tables import ARMS as ARMS_TABLE
from consenso.tables import FOLDS, check, with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldTexts:
    """The train and dev texts of one fold, in the order of their ids; test texts are not in it."""

    fold: int
    """Which fold."""
    ids: pd.Index
    """Text ids, sorted."""
    is_train: np.ndarray
    """True: part train; False: part dev."""
    gold: np.ndarray
    """Positions of the gold labels in the schema, −1 where there is none."""
    consensus: np.ndarray
    """Positions of the consensus labels, −1 where there is none."""
    source: np.ndarray
    """Whose label the consensus label is: position in SOURCES."""
    aligned: np.ndarray
    """True: with a consensus label, and with gold where an aligned gold arm takes part; the same texts for all arms."""
    kept: np.ndarray
    """True: aligned and not problematic."""

    def rows(self, chosen: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """Return the positions of the chosen train texts, each as often as it was drawn."""
        import numpy as np

        positions = np.flatnonzero(chosen & self.is_train)
        return np.repeat(positions, copies[positions])


@dataclass(frozen=True)
class Drawn:
    """What an arm trains on: positions of texts (with repeats, ascending), whose labels they carry, its dev texts."""

    rows: np.ndarray
    labels: Literal["gold", "consensus"]
    dev: np.ndarray


ArmRule = Callable[[FoldTexts, "np.ndarray", "np.random.Generator"], Drawn]
"""texts of a fold, copies of each text under this seed, random draws of this seed → the arm's rows."""


def gold(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Human labels on all train texts: the ceiling."""
    return Drawn(texts.rows(texts.gold >= 0, copies), "gold", texts.gold >= 0)


def gold_aligned(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Human labels on the texts that have a consensus label: the control of `consensus`."""
    return Drawn(texts.rows(texts.aligned, copies), "gold", texts.aligned)


def consensus(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Consensus labels on the texts that have one."""
    return Drawn(texts.rows(texts.aligned, copies), "consensus", texts.aligned)


def consensus_kept(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Consensus labels without the problematic texts."""
    return Drawn(texts.rows(texts.kept, copies), "consensus", texts.aligned)


def gold_kept(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Human labels on the texts of `consensus-kept`."""
    return Drawn(texts.rows(texts.kept, copies), "gold", texts.aligned)


def consensus_random(texts: FoldTexts, copies: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Consensus labels on a random subset with the size and the class counts of `consensus-kept`: mere size."""
    rows, wanted = texts.rows(texts.aligned, copies), texts.rows(texts.kept, copies)
    return Drawn(_subset_like(rows, wanted, texts.consensus, rng), "consensus", texts.aligned)


def _subset_like(rows: np.ndarray, wanted: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random subset of `rows`, without replacement, that has the class counts of `wanted`."""
    import numpy as np

    classes = codes[rows]
    counts = np.bincount(codes[wanted], minlength=int(codes.max(initial=0)) + 1)
    order = np.lexsort((rng.random(len(rows)), classes))
    grouped = classes[order]
    rank = np.arange(len(rows)) - np.searchsorted(grouped, grouped)
    subset: np.ndarray = np.sort(rows[order[rank < counts[grouped]]])
    return subset


ARMS: dict[str, ArmRule] = {
    "gold": gold,
    "gold-aligned": gold_aligned,
    "consensus": consensus,
    "consensus-kept": consensus_kept,
    "consensus-random": consensus_random,
    "gold-kept": gold_kept,
    "floor": gold,
    "floor-prior": gold,
}
"""Name → rule. The floors hold the gold arm's rows: the prior is read from them, nothing is trained."""

FLOOR_ARMS = ("floor", "floor-prior")
DEFAULT_ARMS = ("gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "floor")
SOURCES = ("gold", "consensus", "human")
_NEED_GOLD = {"gold", "gold-aligned", "gold-kept", *FLOOR_ARMS}
_ALIGNED_GOLD = {"gold-aligned", "gold-kept"}
_NO_LABELS_NEEDED = {"gold", *FLOOR_ARMS}
_RESAMPLE, _SUBSET = 1, 2  # random streams of a seed


def make_arms(
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    arms: Sequence[str] = DEFAULT_ARMS,
    seeds: int | Sequence[int] = 10,
    resample: bool = False,
    schema: LabelSchema | None = None,
) -> pd.DataFrame:
    """Return the training and dev rows of every arm, fold and seed (table `arms`: text ids as strings, labels by name).

    `texts`: text_id, gold (that of test texts is never read); `folds`: fold, text_id, part; `labels`: text_id, label,
    is_problematic (`labels` of one method, or `final_labels`). `seeds`: a list, or S for 1 … S; `floor` brings
    `floor-prior`. `resample`: draw the train texts anew, with replacement, once per seed for all arms; the copies of a
    text differ in `row`. An arm's dev texts carry labels of the arm's own source.

    Raises `ConfigError` for an unknown arm, `JoinError` for ids that do not meet, `DataError` for an arm without
    training rows, dev rows or a second class.
    """
    import numpy as np

    names, seed_list = _arm_names(arms), _seed_list(seeds)
    folds = with_text_ids(check(folds, FOLDS))
    schema = schema or _schema(texts, folds, labels)
    blocks = []
    for fold in sorted(folds["fold"].unique()):
        found = _fold_texts(folds[folds["fold"] == fold], texts, labels, names, schema)
        for seed in seed_list:
            copies = _copies(found, seed) if resample else np.ones(len(found.ids), dtype="int64")
            for name in names:
                drawn = ARMS[name](found, copies, np.random.default_rng([seed, found.fold, _SUBSET]))
                _check_arm(name, drawn, found, seed, schema)
                blocks.append((names.index(name), seed, found, drawn))
    frame = _frame(blocks, names, schema)
    logger.info("arms: %s over %d seed(s), %d rows", ", ".join(names), len(seed_list), len(frame))
    return frame


def _arm_names(arms: Sequence[str]) -> list[str]:
    if isinstance(arms, str) or not len(arms):
        raise ConfigError(f"arms must be a list of names; found {arms!r}; choose from {', '.join(ARMS)}")
    for name in arms:
        if name not in ARMS:
            raise ConfigError(f"unknown arm {name!r}; choose from {', '.join(ARMS)}.{nearest(name, ARMS)}")
    return sorted({*arms, *(FLOOR_ARMS if "floor" in arms else ())})


def _seed_list(seeds: int | Sequence[int]) -> list[int]:
    found = list(range(1, seeds + 1)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise ConfigError(f"seeds must be a number from 1, or distinct integers that are not negative; found {seeds!r}")
    return sorted(found)


def _schema(texts: pd.DataFrame, folds: pd.DataFrame, labels: pd.DataFrame) -> LabelSchema:
    """The schema that came with the texts, else the distinct names among the labels and the gold of train and dev."""
    if texts.attrs.get("labels"):
        return LabelSchema.from_records(texts.attrs["labels"])
    learnable = set(folds.loc[folds["part"] != "test", "text_id"])
    names = set(labels["label"].dropna()) if "label" in labels else set()
    if "gold" in texts:
        names |= set(texts.loc[texts["text_id"].map(str).isin(learnable), "gold"].dropna())
    return LabelSchema.from_names(sorted(map(str, names)))


def _fold_texts(
    fold: pd.DataFrame, texts: pd.DataFrame, labels: pd.DataFrame, names: list[str], schema: LabelSchema
) -> FoldTexts:
    import pandas as pd

    wants_gold = bool(_NEED_GOLD & set(names))
    parts = fold.set_index("text_id")["part"].sort_index()
    parts = parts[parts != "test"]  # from here on nothing knows of the test texts
    known = _by_id(texts, ["gold"] if wants_gold else [], "texts")
    if (unknown := ~parts.index.isin(known.index)).any():
        raise JoinError(f"folds: {unknown.sum()} text id(s) are not in texts, {parts.index[unknown][0]!r} among them")
    voted = _by_id(labels, ["label"], "labels")
    if not set(names) <= _NO_LABELS_NEEDED and not parts.index.isin(voted.index).any():
        example = repr(voted.index[0]) if len(voted) else "none"
        raise JoinError(
            f"labels: none of the {len(voted)} labelled text ids ({example}, …) is in train or dev, whose ids look "
            f"like {parts.index[0]!r}; check that both tables use the same ids"
        )
    voted = voted.reindex(parts.index)
    codes = schema.codes(voted["label"])
    human = schema.codes(known.loc[parts.index, "gold"]) if wants_gold else codes * 0 - 1
    problematic = voted.get("is_problematic", pd.Series(False, index=voted.index)).eq(True).to_numpy(dtype=bool)
    source = voted["source"] if "source" in voted else pd.Series("consensus", index=voted.index)
    aligned = (codes >= 0) & ((human >= 0) if _ALIGNED_GOLD & set(names) else True)
    return FoldTexts(
        fold=int(fold["fold"].iloc[0]),
        ids=parts.index,
        is_train=(parts == "train").to_numpy(),
        gold=human,
        consensus=codes,
        source=source.map({name: i for i, name in enumerate(SOURCES)}).fillna(1).to_numpy(dtype="int64"),
        aligned=aligned,
        kept=aligned & ~problematic,
    )


def _by_id(frame: pd.DataFrame, needed: list[str], name: str) -> pd.DataFrame:
    import pandas as pd

    if missing := [column for column in ("text_id", *needed) if column not in frame.columns]:
        raise DataError(f"{name}: missing column(s) {missing}; found {list(frame.columns)}")
    columns = [c for c in ("text_id", "gold", "label", "is_problematic", "source", "method") if c in frame.columns]
    found = with_text_ids(frame[columns])
    if (again := found["text_id"].duplicated()).any():
        methods = sorted(found["method"].unique()) if "method" in found else []
        hint = f"choose one of the methods {methods}" if len(methods) > 1 else "each text may stand once"
        raise DataError(
            f"{name}: {again.sum()} repeated text id(s), {found['text_id'][again].iloc[0]!r} for one; {hint}"
        )
    for column in [c for c in ("gold", "label") if c in found]:
        if pd.api.types.is_numeric_dtype(found[column]) and found[column].notna().any():
            raise DataError(f"{name}: {column!r} must hold label names; found {found[column].dtype} values")
    return found.set_index("text_id")


def _copies(texts: FoldTexts, seed: int) -> np.ndarray:
    """How often a bootstrap draw over all train texts holds each text; one draw per fold and seed, for every arm."""
    import numpy as np

    train = np.flatnonzero(texts.is_train)
    rng = np.random.default_rng([seed, texts.fold, _RESAMPLE])
    drawn = train[rng.integers(0, max(len(train), 1), len(train))]
    copies: np.ndarray = np.bincount(drawn, minlength=len(texts.ids))
    return copies


def _check_arm(name: str, drawn: Drawn, texts: FoldTexts, seed: int, schema: LabelSchema) -> None:
    import numpy as np

    codes = getattr(texts, drawn.labels)[drawn.rows]
    counts = np.bincount(codes, minlength=len(schema)) if len(codes) else np.zeros(len(schema), dtype=int)
    where = f"arm {name!r} (fold {texts.fold}, seed {seed})"
    if (counts > 0).sum() < (1 if name in FLOOR_ARMS else 2):
        found = ", ".join(f"{label} {count}" for label, count in zip(schema, counts) if count) or "none"
        raise DataError(
            f"{where}: {len(codes)} training rows of {(counts > 0).sum()} class(es) ({found}), and a classifier needs "
            "two; label more train texts, or leave the arm out"
        )
    if not (drawn.dev & ~texts.is_train).any():
        raise DataError(
            f"{where}: no dev text has a {drawn.labels} label; the votes must cover dev too, or leave it out"
        )


def _frame(blocks: list[tuple[int, int, FoldTexts, Drawn]], names: list[str], schema: LabelSchema) -> pd.DataFrame:
    """One frame out of positions: strings are taken from their lists once, at the end."""
    import numpy as np
    import pandas as pd

    blocks = sorted(blocks, key=lambda block: (block[0], block[2].fold, block[1]))
    parts = [part for block in blocks for part in _parts(*block)]
    columns = [np.concatenate(column) for column in zip(*(part[:-1] for part in parts))]
    arm, fold, seed, part, row, target, source = columns
    ids = {texts.fold: texts.ids for _, _, texts, _ in blocks}
    start = dict(zip(ids, np.cumsum([0, *map(len, ids.values())])))
    position = np.concatenate([rows + start[found_fold] for *_, (found_fold, rows) in parts])
    every_id = pd.Index(np.concatenate([np.asarray(index, dtype=object) for index in ids.values()]))
    return pd.DataFrame(
        {
            "student": "all",
            "arm": pd.Index(names).take(arm),
            "fold": fold,
            "seed": seed,
            "part": pd.Index(["dev", "train"]).take(part),
            "row": row,
            "text_id": every_id.take(position),
            "target": pd.Index(list(schema.names)).take(target),
            "source": pd.Index(list(SOURCES)).take(source),
            "shares": None,
        }
    )[list(ARMS_TABLE.columns)]


def _parts(arm: int, seed: int, texts: FoldTexts, drawn: Drawn) -> Iterator[tuple[Any, ...]]:
    import numpy as np

    codes = getattr(texts, drawn.labels)
    source = texts.source if drawn.labels == "consensus" else np.zeros_like(texts.source)
    for part, rows in enumerate((np.flatnonzero(drawn.dev & ~texts.is_train), drawn.rows)):
        fixed = [np.full(len(rows), value, dtype="int64") for value in (arm, texts.fold, seed, part)]
        yield (*fixed, np.arange(len(rows)), codes[rows], source[rows], (texts.fold, rows))
