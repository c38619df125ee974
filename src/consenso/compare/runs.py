"""The test predictions as arrays: one row per finished training, one column per test text, joined by text id."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import FLOORS, Contrast
from consenso.compare.fold_texts import texts_of_folds
from consenso.errors import DataError, JoinError
from consenso.labels import LabelSchema
from consenso.tables import PREDICTIONS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_RUN = ("student", "arm", "fold", "seed", "attempt", "part")
Seed = Any
"""A seed, or (fold, seed) where all folds test the same texts."""


@dataclass(frozen=True)
class Runs:
    """Predicted label codes of one part. Texts and seeds stand in sorted order, whatever the order of the table."""

    items: np.ndarray
    """Ids (strings) of the texts that have gold and at least one prediction, sorted."""
    gold: np.ndarray
    """Code of each item's gold label."""
    names: tuple[str, ...]
    """Label name of each code."""
    known: int
    """The first `known` names are labels of the schema (of gold, where there is no schema)."""
    codes: np.ndarray
    """(trainings, items): code of the predicted label, −1 where there is no prediction."""
    rows: dict[tuple[str, str], dict[str, dict[Seed, int]]]
    """(student, attempt) → arm → seed → row of `codes`."""
    without_gold: int
    """Predicted texts without gold: left out."""
    folds: np.ndarray | None = None
    """(items,): the fold whose test part holds the item; None where there is one fold, or folds share test texts."""
    replaced: dict[str, dict[str, frozenset[Seed]]] = field(default_factory=dict)
    """Student → arm → the collapsed seeds that its rescue replaced."""

    def students(self) -> list[str]:
        """Return the students, sorted."""
        return sorted({student for student, _ in self.rows})

    def arms(self, student: str, attempt: str = "as_run") -> dict[str, dict[Seed, int]]:
        """Return arm → seed → row of `codes`."""
        return self.rows.get((student, attempt), {})


@dataclass(frozen=True)
class Pair:
    """Two arms on the same seeds and items."""

    seeds: tuple[Seed, ...]
    """The seeds both arms finished, sorted, without copies of another seed."""
    arm: np.ndarray
    """(S, n) codes of the arm."""
    control: np.ndarray
    """(S, n) codes of the control."""
    gold: np.ndarray
    """(n,) codes of gold."""
    unequal_items: int
    """Items that some but not all of these trainings predicted: left out, and the pairing is broken."""
    same_in_all_seeds: tuple[str, ...] = ()
    """Arms that predict the same in every seed: their seeds are no replication."""
    folds: np.ndarray | None = None
    """(n,) fold of each item, where the folds have test texts of their own."""
    places: np.ndarray | None = None
    """Which of the runs' items these are; None: all of them."""
    rows: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """The rows of the runs' codes that arm and control are."""

    def parts(self) -> dict[int, np.ndarray]:
        """Return fold → places of its items; empty where the items are not those of several folds."""
        import numpy as np

        names = [] if self.folds is None else np.unique(self.folds).tolist()
        return {name: np.flatnonzero(self.folds == name) for name in names} if len(names) > 1 else {}

    @property
    def replications(self) -> int:
        """How many seeds there are or, where all folds test the same texts, how many folds: sets of training texts."""
        return len(training_sets(self.seeds) or self.seeds)


def training_sets(seeds: Sequence[Seed]) -> dict[int, list[int]]:
    """Return fold → places of its seeds where seeds are (fold, seed): they share a training set; else nothing."""
    found: dict[int, list[int]] = {}
    for place, seed in enumerate(seeds):
        if isinstance(seed, tuple):
            found.setdefault(seed[0], []).append(place)
    return found


def gold_labels(gold: pd.Series | pd.DataFrame, schema: LabelSchema | None = None) -> pd.Series:
    """Return gold label names by text id (string), without the texts that have none.

    `gold`: a Series by text_id, or a frame with text_id and gold. Raises `DataError` for a repeated id, a missing
    column or a label that the schema lacks.
    """
    import pandas as pd

    if isinstance(gold, pd.DataFrame):
        if missing := [name for name in ("text_id", "gold") if name not in gold.columns]:
            raise DataError(f"gold: missing column(s) {missing}; found {list(gold.columns)}")
        gold = gold.set_index("text_id")["gold"]
    gold = gold.dropna()
    names = read_labels(gold.unique(), schema)
    if schema is not None and (strange := sorted(set(names.values()) - set(schema.names))):
        raise DataError(f"gold: unknown label(s) {strange[:5]}; the labels are {list(schema.names)}")
    found = pd.Series(gold.map(names).to_numpy(dtype=object), index=gold.index.map(str))
    if (repeated := found.index[found.index.duplicated()]).size:
        raise DataError(
            f"gold: {len(repeated)} repeated text_id(s), for example {repeated[0]!r}; each text has one gold label"
        )
    return found


def read_labels(values: Any, schema: LabelSchema | None) -> dict[Any, str]:
    """Return stored value → label name: the schema's reading of it, else the value as text."""
    names = {}
    for value in values:
        read = schema.read(value) if schema is not None else None
        whole = isinstance(value, float) and value.is_integer()  # integer labels beside missing ones became floats
        names[value] = read if read is not None else str(int(value) if whole else value)
    return names


def read_runs(
    predictions: pd.DataFrame, gold: pd.Series | pd.DataFrame, schema: LabelSchema | None = None, part: str = "test"
) -> Runs:
    """Join predictions (PREDICTIONS) of one part with gold by text id.

    Raises `DataError` for a wrong table, a repeated prediction or folds whose test texts overlap in part, `JoinError`
    where the two share no text.
    """
    import numpy as np
    import pandas as pd

    truth = gold_labels(gold, schema)
    run, trainings = _trainings(predictions)
    chosen = (trainings["part"] == part).to_numpy()
    if not chosen.any():
        raise DataError(f"predictions: no row of part {part!r}; found {sorted(set(trainings['part']))}")
    text, ids = _factorise(predictions, "text_id")
    label, predicted = _factorise(predictions, "predicted")
    if not chosen.all():
        run, text, label = (codes[chosen[run]] for codes in (run, text, label))
    used = np.flatnonzero(np.bincount(text, minlength=len(ids)))
    names_of_texts = np.array([str(text_id) for text_id in ids], dtype=object)
    items = np.array(sorted(set(names_of_texts[used]) & set(truth.index)), dtype=object)
    if not len(items):
        found = repr(truth.index[0]) if len(truth) else "no labelled text"
        raise JoinError(f"predictions and gold share no text_id: {names_of_texts[used[0]]!r} here, {found} there")
    column = pd.Index(items).get_indexer(names_of_texts)
    if (column[used] < 0).any():
        scored = column[text] >= 0
        run, text, label = run[scored], text[scored], label[scored]
    names, known, reading = _label_names(truth.loc[items], predicted, schema)
    folds, shared = texts_of_folds(trainings["fold"].to_numpy(), run, column[text], len(items))
    groups, codes = _scatter(trainings, run, column[text], reading[label], len(items), by_fold=shared)
    rows, replaced = _rows(groups)
    if folds is not None:
        _fill_other_folds(codes, folds, rows, replaced)
    return Runs(
        items=items,
        gold=pd.Index(names).get_indexer(truth.loc[items]),
        names=names,
        known=known,
        codes=codes,
        rows=rows,
        without_gold=len(used) - len(items),
        folds=folds,
        replaced=replaced,
    )


def _factorise(predictions: pd.DataFrame, name: str) -> tuple[np.ndarray, Any]:
    """(codes, distinct values) of a column without empty values."""
    import numpy as np
    import pandas as pd

    codes, values = pd.factorize(predictions[name])
    if missing := int(np.count_nonzero(codes < 0)):
        raise DataError(f"predictions: {missing} empty value(s) in {name!r}; fill them or drop the rows")
    return codes, values


def _trainings(predictions: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Which training (and part) each row belongs to, and what these are: `check` looks at one row of each.

    A table may have 10⁷ rows, mostly in blocks of one training; its repeated rows are found by `_scatter`.
    """
    import numpy as np
    import pandas as pd

    check(predictions.iloc[:1], PREDICTIONS)
    if not len(predictions):
        raise DataError("predictions: the table is empty; train arms first, or give text_id, arm, seed, predicted")
    given = [name for name in _RUN if name in predictions.columns]
    begins = np.zeros(len(predictions), dtype=bool)
    begins[0] = True
    for name in given:
        values = predictions[name].array
        begins[1:] |= pd.Series(values[1:] != values[:-1]).fillna(True).to_numpy(dtype=bool)
    starts = np.flatnonzero(begins)
    blocks = predictions[given].iloc[starts]
    number = blocks.groupby(given, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    first = starts[np.unique(number, return_index=True)[1]]
    trainings = check(predictions.iloc[first], PREDICTIONS)[list(_RUN)].reset_index(drop=True)
    return np.repeat(number, np.diff(starts, append=len(predictions))), trainings


def _label_names(
    truth: pd.Series, predicted: Any, schema: LabelSchema | None
) -> tuple[tuple[str, ...], int, np.ndarray]:
    """All label names in one order, how many are known, and distinct prediction → code of its name."""
    import numpy as np

    known = list(schema.names) if schema is not None else sorted(set(truth))
    read = read_labels(predicted, schema)
    names = (*known, *sorted(set(read.values()) - set(known)))
    place = {name: code for code, name in enumerate(names)}
    return names, len(known), np.array([place[read[value]] for value in predicted], dtype=np.int64)


def _scatter(
    trainings: pd.DataFrame, run: np.ndarray, column: np.ndarray, label: np.ndarray, n: int, *, by_fold: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """What each row of the table of codes is (student, attempt, arm, seed and perhaps fold), and the table.

    Folds with different test texts fill one row; `by_fold`: they share their test texts, and each has its own row.
    """
    import numpy as np

    names = ["student", "attempt", "arm", "seed", *(["fold"] if by_fold else [])]
    numbered = trainings.groupby(names, sort=True).ngroup().to_numpy()
    groups = trainings[names].assign(row=numbered).drop_duplicates("row")
    codes = np.full((len(groups), n), -1, dtype=np.int32)
    codes[numbered[run], column] = label
    if repeated := len(run) - np.count_nonzero(codes >= 0):
        raise DataError(
            f"predictions: {repeated} repeated row(s); each student, arm, fold, seed and attempt predicts a text once"
        )
    return groups, codes


def _rows(
    groups: pd.DataFrame,
) -> tuple[dict[tuple[str, str], dict[str, dict[Seed, int]]], dict[str, dict[str, frozenset[Seed]]]]:
    """(student, attempt) → arm → seed → row, and student → arm → seeds that a rescue replaced."""
    rows: dict[tuple[str, str], dict[str, dict[Seed, int]]] = {}
    replaced: dict[str, dict[str, frozenset[Seed]]] = {}
    for found in groups.to_dict("records"):
        board = rows.setdefault((str(found["student"]), str(found["attempt"])), {})
        seed = (int(found["fold"]), int(found["seed"])) if "fold" in found else int(found["seed"])
        board.setdefault(str(found["arm"]), {})[seed] = found["row"]
    for (student, attempt), board in list(rows.items()):
        if attempt == "rescue":  # a rescue replaces the collapsed seeds; all other seeds are as run
            as_run = rows.get((student, "as_run"), {})
            replaced[student] = {arm: frozenset(seeds) for arm, seeds in board.items()}
            rows[student, attempt] = {
                arm: as_run.get(arm, {}) | board.get(arm, {}) for arm in sorted({*as_run, *board})
            }
    return rows, replaced


def _fill_other_folds(
    codes: np.ndarray,
    folds: np.ndarray,
    rows: dict[tuple[str, str], dict[str, dict[Seed, int]]],
    replaced: dict[str, dict[str, frozenset[Seed]]],
) -> None:
    """Where a rescue replaced a seed in some folds, its other folds are as run."""
    import numpy as np

    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    for student, arms in replaced.items():
        as_run, rescue = rows.get((student, "as_run"), {}), rows[student, "rescue"]
        for arm, seed in ((arm, seed) for arm, seeds in arms.items() for seed in seeds):
            before = as_run.get(arm, {}).get(seed)
            for part in parts if before is not None else []:
                if (codes[rescue[arm][seed], part] < 0).all():
                    codes[rescue[arm][seed], part] = codes[before, part]


def pair_arms(
    runs: Runs,
    arms: dict[str, dict[Seed, int]],
    contrast: Contrast,
    *,
    failed: Collection[tuple[str, Seed]] = (),
    items: np.ndarray | None = None,
) -> Pair:
    """Line up two arms on the seeds and items that both have; `failed` (arm, seed) pairs count as not finished.

    A seed whose predictions copy those of an earlier seed, in either arm, is left out of both: a copy is no replication.
    `items`: a mask (n,) of the test texts to look at. A floor without seeds of its own stands beside every seed.
    """
    import numpy as np

    sides = {
        name: {s: row for s, row in arms[name].items() if (name, s) not in failed}
        for name in (contrast.arm, contrast.control)
    }
    seeds = _common_seeds(sides)
    taught = [[rows[seed] for seed in seeds] for name, rows in sides.items() if name not in FLOORS]
    seeds = [seeds[place] for place in without_copies(runs.codes[rows] for rows in taught)] if taught else seeds
    chosen = {name: [rows.get(seed, next(iter(rows.values()), -1)) for seed in seeds] for name, rows in sides.items()}
    there = runs.codes[[row for rows in chosen.values() for row in rows]] >= 0
    every = there.all(axis=0) if items is None else there.all(axis=0) & items
    some = there.any(axis=0) if items is None else there.any(axis=0) & items
    codes = {name: runs.codes[rows] if every.all() else runs.codes[rows][:, every] for name, rows in chosen.items()}
    same = tuple(n for n, c in codes.items() if n not in FLOORS and len(c) > 1 and bool((c == c[0]).all()))
    whole = bool(every.all())
    return Pair(
        seeds=tuple(seeds),
        arm=codes[contrast.arm],
        control=codes[contrast.control],
        gold=runs.gold[every],
        unequal_items=int(np.count_nonzero(some & ~every)),
        same_in_all_seeds=same,
        folds=None if runs.folds is None else runs.folds[every],
        places=None if whole else np.flatnonzero(every),
        rows=(tuple(chosen[contrast.arm]), tuple(chosen[contrast.control])),
    )


def _common_seeds(sides: dict[str, dict[Seed, int]]) -> list[Seed]:
    """The seeds both sides have; a floor with one row stands beside every seed of the other side."""
    single = [name for name, rows in sides.items() if name in FLOORS and len(rows) == 1]
    seeded = [set(rows) for name, rows in sides.items() if name not in single] or [set(rows) for rows in sides.values()]
    return sorted(set.intersection(*seeded))


def without_copies(sides: Iterable[np.ndarray]) -> list[int]:
    """Return the places of the runs to keep among arms (S, n) lined up by seed: none copies a kept run of its arm.

    Runs that predict one class only are alike because they collapsed, not because they are copies, and stay. An arm
    whose runs are all alike has nothing to drop: its S is 1.
    """
    every = list(sides)
    varied = [side for side in every if len(side) and not (side == side[0]).all()]
    seen: list[set[bytes]] = [set() for _ in varied]
    kept = []
    for place in range(len(every[0])):
        prints = [side[place].tobytes() if (side[place] != side[place][0]).any() else b"" for side in varied]
        if not any(mark and mark in known for mark, known in zip(prints, seen)):
            kept.append(place)
            for mark, known in zip(prints, seen):
                known.add(mark)
    return kept
