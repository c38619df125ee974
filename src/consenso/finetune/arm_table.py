"""make_arms: the training and dev rows of every arm, fold and seed, all from one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from consenso.errors import ConfigError, DataError
from consenso.finetune.arm_names import DEFAULT_ARMS, FLOOR_ARMS
from consenso.finetune.arm_texts import GOLD, SOURCES, FoldTexts, Soft, read_tables, valid_votes
from consenso.finetune.arms import RESAMPLE, Draw, Drawn, Given, arm_called
from consenso.finetune.expanding import expand_arms, needs_of
from consenso.finetune.selection import InstanceSelection
from consenso.labels import LabelSchema
from consenso.tables import ARMS as ARMS_TABLE
from consenso.tables import FOLDS, check, with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

Dev = Literal["own", "gold"]


class _Block(NamedTuple):
    """The rows of one arm under one fold and seed."""

    arm: int
    seed: int
    texts: FoldTexts
    drawn: Drawn
    dev: Given
    """The labels of the dev texts."""


def make_arms(
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    arms: str | Sequence[str] = DEFAULT_ARMS,
    seeds: int | Sequence[int] = 10,
    resample: bool = False,
    schema: LabelSchema | None = None,
    votes: pd.DataFrame | None = None,
    panel_labels: Mapping[str, pd.DataFrame] | None = None,
    dev: Dev = "own",
    soft: Soft = "shares",
    selection: InstanceSelection | None = None,
) -> pd.DataFrame:
    """Return the training and dev rows of every arm, fold and seed (table `arms`: text ids as strings, labels by name).

    `texts`: text_id, gold (that of test texts is never read), text for `consensus-selected`; `folds`: fold, text_id, part;
    `labels`: text_id, label, is_problematic, for some arms shares and score (`labels` of one method, or `final_labels`).
    `arms`: names, presets and open names, see `expand_arms`. `seeds`: a list, or S for 1 … S. `resample`: draw the train
    texts anew, with replacement, once per seed for all arms; the copies of a text differ in `row`. `votes`: VOTES, for
    the arms made of votes; `panel_labels`: arm name (`panel:2`) → text_id, label. An arm's dev texts carry labels of the
    arm's own source; `dev = "gold"`: gold, for all arms. `soft`: the targets of `consensus-soft` are the column `shares`
    of `labels`, or the shares of the valid votes.

    Raises `ConfigError` for an unknown arm or one that asks for more labels than there are, `JoinError` for ids that do
    not meet, `DataError` for an arm without training rows, dev rows or a second class.
    """
    import numpy as np

    folds = with_text_ids(check(folds, FOLDS))
    given = {"texts": texts, "folds": folds, "labels": labels}
    names = expand_arms(arms, **given, votes=votes, panel_labels=panel_labels, soft=soft)
    seed_list, panels = _seed_list(seeds), _panels(names, panel_labels or {})
    needs = needs_of(names, soft) | ({"gold"} if dev == "gold" else set())
    if "votes" in needs and votes is None:
        raise ConfigError(
            f"arm {next(n for n in names if 'votes' in needs_of([n], soft))!r} needs the votes; give votes="
        )
    tables = read_tables(
        texts, labels,
        schema=schema or _schema(texts, folds, labels, votes, panels), needs=needs, votes=votes, panel_labels=panels,
        soft=soft, selection=selection or InstanceSelection(),
    )  # fmt: skip
    blocks = []
    for fold in sorted(folds["fold"].unique()):
        found = tables.of_fold(folds[folds["fold"] == fold])
        for seed in seed_list:
            copies = _copies(found, seed) if resample else np.ones(len(found.ids), dtype="int64")
            for place, name in enumerate(names):
                drawn = arm_called(name).draw(found, Draw(name, found.fold, seed, copies, resample))
                block = _Block(place, seed, found, *_with_dev(found, drawn, "own" if name == "permuted" else dev))
                _check_block(name, block, tables.schema)
                blocks.append(block)
    frame = _frame(blocks, names, tables.schema)
    logger.info("arms: %s over %d seed(s), %d rows", ", ".join(names), len(seed_list), len(frame))
    return frame


def _seed_list(seeds: int | Sequence[int]) -> list[int]:
    found = list(range(1, seeds + 1)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise ConfigError(f"seeds must be a number from 1, or distinct integers that are not negative; found {seeds!r}")
    return sorted(found)


def _panels(names: list[str], panel_labels: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    asked = [name for name in names if name.startswith("panel:")]
    if missing := [name for name in asked if name not in panel_labels]:
        raise ConfigError(
            f"arm {missing[0]!r} needs the labels of that panel; found panel labels for {sorted(panel_labels) or 'none'}; ask for "
            "one of these, or give panel_labels="
        )
    return {name: panel_labels[name] for name in asked}


def _schema(
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    votes: pd.DataFrame | None,
    panels: dict[str, pd.DataFrame],
) -> LabelSchema:
    """The schema that came with the texts, else the distinct names among labels, votes and the gold of train and dev."""
    if texts.attrs.get("labels"):
        return LabelSchema.from_records(texts.attrs["labels"])
    learnable = set(folds.loc[folds["part"] != "test", "text_id"])
    names = {name for frame in (labels, *panels.values()) if "label" in frame for name in frame["label"].dropna()}
    if votes is not None:
        names |= set(valid_votes(votes)["label"])
    if "gold" in texts:
        names |= set(texts.loc[texts["text_id"].map(str).isin(learnable), "gold"].dropna())
    return LabelSchema.from_names(sorted(map(str, names)))


def _copies(texts: FoldTexts, seed: int) -> np.ndarray:
    """How often a bootstrap draw over all train texts holds each text; one draw per fold and seed, for every arm."""
    import numpy as np

    train = np.flatnonzero(texts.is_train)
    rng = np.random.default_rng([seed, texts.fold, RESAMPLE])
    drawn = train[rng.integers(0, max(len(train), 1), len(train))]
    copies: np.ndarray = np.bincount(drawn, minlength=len(texts.ids))
    return copies


def _with_dev(texts: FoldTexts, drawn: Drawn, dev: Dev) -> tuple[Drawn, Given]:
    """The arm and the labels of its dev texts: its own, or gold on those of its dev texts that have it.

    `permuted` keeps its own in every variant: a state that gold chose has learned something of it.
    """
    if dev == "own":
        return drawn, drawn.labels
    return drawn._replace(dev=drawn.dev & (texts.gold >= 0)), Given(texts.gold, GOLD)


def _check_block(name: str, block: _Block, schema: LabelSchema) -> None:
    import numpy as np

    codes = block.drawn.codes
    counts = np.bincount(codes, minlength=len(schema)) if len(codes) else np.zeros(len(schema), dtype=int)
    where = f"arm {name!r} (fold {block.texts.fold}, seed {block.seed})"
    if (counts > 0).sum() < (1 if name in FLOOR_ARMS else 2):
        found = ", ".join(f"{label} {count}" for label, count in zip(schema, counts) if count) or "none"
        raise DataError(
            f"{where}: {len(codes)} training rows of {(counts > 0).sum()} class(es) ({found}), and a classifier needs "
            "two; label more train texts, or leave the arm out"
        )
    if not (block.drawn.dev & ~block.texts.is_train).any():
        whose = SOURCES[int(np.max(block.dev.source))] if np.ndim(block.dev.source) == 0 else "consensus"
        raise DataError(f"{where}: no dev text has a {whose} label; the votes must cover dev too, or leave it out")


def _frame(blocks: list[_Block], names: list[str], schema: LabelSchema) -> pd.DataFrame:
    """One frame out of positions: strings and shares are taken from their lists once, at the end."""
    import numpy as np
    import pandas as pd

    blocks = sorted(blocks, key=lambda block: (block.arm, block.texts.fold, block.seed))
    folds = {block.texts.fold: block.texts for block in blocks}
    start = dict(zip(folds, np.cumsum([0, *(len(texts.ids) for texts in folds.values())]).tolist()))
    parts = [part for block in blocks for part in _parts(block, start[block.texts.fold])]
    arm, fold, seed, part, row, position, target, source, is_soft = (np.concatenate(column) for column in zip(*parts))
    every_id = pd.Index(np.concatenate([np.asarray(texts.ids, dtype=object) for texts in folds.values()]))
    columns: dict[str, Any] = {
        "student": "all",
        "arm": pd.Index(names).take(arm),
        "fold": fold,
        "seed": seed,
        "part": pd.Index(["dev", "train"]).take(part),
        "row": row,
        "text_id": every_id.take(position),
        "target": pd.Index(list(schema.names)).take(target),
        "source": pd.Index(list(SOURCES)).take(source),
        "shares": _shares(list(folds.values()), position, is_soft) if is_soft.any() else None,
    }
    return pd.DataFrame(columns)[list(ARMS_TABLE.columns)]


def _parts(block: _Block, start: int) -> Iterator[tuple[Any, ...]]:
    """For dev and train: arm, fold, seed, part, row, text (position among all folds' texts), class, source, is soft."""
    import numpy as np

    drawn, texts = block.drawn, block.texts
    dev = np.flatnonzero(drawn.dev & ~texts.is_train)
    sides = ((dev, block.dev.codes[dev], block.dev), (drawn.rows, drawn.codes, drawn.labels))
    for part, (rows, codes, labels) in enumerate(sides):
        fixed = [np.full(len(rows), value, dtype="int64") for value in (block.arm, texts.fold, block.seed, part)]
        whose = drawn.row_source if part and drawn.row_source is not None else labels.source
        source = np.broadcast_to(whose, len(texts.ids))[rows]
        yield (*fixed, np.arange(len(rows)), rows + start, codes, source, np.full(len(rows), labels.shares is not None))


def _shares(folds: list[FoldTexts], position: np.ndarray, is_soft: np.ndarray) -> np.ndarray:
    """The soft targets of each row, one array per text that its rows share; None for rows with one label."""
    import numpy as np

    per_text = np.empty(sum(len(texts.ids) for texts in folds) + 1, dtype=object)
    rows = (row for texts in folds for row in (texts.shares if texts.shares is not None else texts.ids))
    for place, row in enumerate(rows):
        per_text[place] = row
    return per_text[np.where(is_soft, position, -1)]
