"""A study: arms, texts and folds turned into trainings, each with the key that decides whether it is already done."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import ConfigError, DataError, JoinError, nearest
from consenso.finetune.arms import FLOOR_ARMS
from consenso.finetune.pieces import FORMAT
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import STUDENTS
from consenso.finetune.training import Training
from consenso.labels import LabelSchema
from consenso.store import digest
from consenso.tables import ARMS, FOLDS, check, with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """One arm under one fold and seed, and the training that serves it (several runs may share one)."""

    arm: str
    fold: int
    seed: int
    training: Training


@dataclass(frozen=True)
class Study:
    """Everything `run_arms` and `plan_arms` work from."""

    ids: pd.Index
    """All text ids, sorted: positions everywhere refer to this order."""
    texts: list[str]
    """The texts, in the same order."""
    in_test: dict[int, np.ndarray]
    """Fold → for each text whether it is in part test."""
    runs: list[Run]
    """Sorted by arm, fold and seed."""
    schema: LabelSchema
    student: str
    recipe: Recipe

    def served(self) -> dict[str, list[Run]]:
        """Return key → the runs that share this training, without the floors (nothing is trained for them)."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.arm not in FLOOR_ARMS:
                found.setdefault(run.training.key, []).append(run)
        return found

    def trainings(self) -> dict[str, Training]:
        """Return key → training, each once."""
        return {key: runs[0].training for key, runs in self.served().items()}


def make_study(
    arms: pd.DataFrame,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    student: str,
    recipe: Recipe | None,
    schema: LabelSchema | None,
) -> Study:
    """Check the tables and join them by text id; gold is not looked at, the arms' targets are."""
    if student not in STUDENTS:
        raise ConfigError(
            f"unknown student {student!r}; choose from {', '.join(STUDENTS)}.{nearest(student, STUDENTS)}"
        )
    schema = schema or _schema(arms, texts)
    arms, folds = with_text_ids(check(arms, ARMS)), with_text_ids(check(folds, FOLDS))
    arms = arms[arms["student"].isin(["all", student])]
    if arms.empty:
        raise DataError(f"arms: no rows for student {student!r}; make_arms makes them")
    named = _texts(texts)
    parts = _parts(folds, named, sorted(arms["fold"].unique()))
    recipe = recipe or Recipe()
    rows = _rows(arms, named, parts, schema)
    header, steps = _header(student, recipe, schema), None if STUDENTS[student].DETERMINISTIC else recipe
    runs = list(_runs(rows, parts, _prints(named), header, steps))
    in_test = {fold: part == _TEST for fold, part in parts.items()}
    return Study(named.index, named.tolist(), in_test, runs, schema, student, recipe)


_DEV, _TEST, _TRAIN, _ELSEWHERE = 0, 1, 2, -1


def _schema(arms: pd.DataFrame, texts: pd.DataFrame) -> LabelSchema:
    if texts.attrs.get("labels"):
        return LabelSchema.from_records(texts.attrs["labels"])
    return LabelSchema.from_names(sorted(map(str, arms["target"].unique())))


def _texts(texts: pd.DataFrame) -> pd.Series:
    if missing := [name for name in ("text_id", "text") if name not in texts.columns]:
        raise DataError(f"texts: missing column(s) {missing}; found {list(texts.columns)}")
    found = with_text_ids(texts[["text_id", "text"]]).set_index("text_id")["text"].sort_index()
    if (again := found.index.duplicated()).any():
        raise DataError(
            f"texts: {again.sum()} repeated text id(s), {found.index[again][0]!r} for one; each may stand once"
        )
    if found.isna().any():
        raise DataError(
            f"texts: {found.isna().sum()} empty text(s), id {found.index[found.isna()][0]!r} for one; drop them"
        )
    return found


def _parts(folds: pd.DataFrame, texts: pd.Series, wanted: list[int]) -> dict[int, np.ndarray]:
    """Fold → the part of each text, as a code."""
    import numpy as np

    codes = {"dev": _DEV, "test": _TEST, "train": _TRAIN}
    parts = {}
    for fold in wanted:
        rows = folds[folds["fold"] == fold]
        positions = _positions(rows["text_id"], texts.index, "folds")
        parts[int(fold)] = np.full(len(texts), _ELSEWHERE)
        parts[int(fold)][positions] = rows["part"].map(codes).to_numpy(dtype="int64")
        if not (parts[int(fold)] == _TEST).any():
            raise DataError(
                f"folds: fold {fold} has no test texts, so nothing could be compared; make_folds draws them"
            )
    return parts


def _positions(ids: pd.Series, known: pd.Index, table: str) -> np.ndarray:
    positions: np.ndarray = known.get_indexer(ids)
    if (unknown := positions < 0).any():
        raise JoinError(f"{table}: {unknown.sum()} text id(s) are not in texts, {ids[unknown].iloc[0]!r} among them")
    return positions


def _rows(arms: pd.DataFrame, texts: pd.Series, parts: dict[int, np.ndarray], schema: LabelSchema) -> pd.DataFrame:
    """The arms' rows as numbers, sorted: neither the order of the table nor its row numbers decide anything."""
    import pandas as pd

    rows = pd.DataFrame(
        {
            "arm": pd.Categorical(arms["arm"]),
            "fold": arms["fold"].to_numpy(dtype="int64"),
            "seed": arms["seed"].to_numpy(dtype="int64"),
            "is_train": (arms["part"] == "train").to_numpy(),
            "position": _positions(arms["text_id"], texts.index, "arms"),
            "code": schema.codes(arms["target"]),
        }
    )
    for fold, part in parts.items():
        of_fold = rows[rows["fold"] == fold]
        wrong = part[of_fold["position"]] != of_fold["is_train"].map({True: _TRAIN, False: _DEV}).to_numpy()
        if wrong.any():
            raise DataError(
                f"arms: {wrong.sum()} row(s) stand in another part than folds says, text "
                f"{texts.index[of_fold['position'][wrong].iloc[0]]!r} for one; make the arms again from these folds"
            )
    return rows.sort_values(["arm", "fold", "seed", "is_train", "position", "code"], kind="stable", ignore_index=True)


def _runs(
    rows: pd.DataFrame, parts: dict[int, np.ndarray], prints: np.ndarray, header: dict[str, Any], recipe: Recipe | None
) -> Iterator[Run]:
    """The arms of `rows`; `recipe` says how many steps they take, None for a student that has no steps of its own."""
    import numpy as np

    groups = {name: group for name, group in rows.groupby(["arm", "fold", "seed"], observed=True)}  # noqa: C416
    largest: dict[tuple[int, int], int] = {}
    for (arm, fold, seed), group in groups.items():
        n = int(group["is_train"].sum())
        if n in {0, len(group)}:
            raise DataError(f"arms: arm {arm!r} (fold {fold}, seed {seed}) has no {'dev' if n else 'training'} rows")
        if arm not in FLOOR_ARMS:
            largest[fold, seed] = max(largest.get((fold, seed), 0), n)
    asked = {fold: np.flatnonzero((part == _DEV) | (part == _TEST)) for fold, part in parts.items()}
    for (arm, fold, seed), group in groups.items():
        is_train, position, code = (group[name].to_numpy() for name in ("is_train", "position", "code"))
        training = Training(
            key="",
            seed=int(seed),
            rows=position[is_train],
            codes=code[is_train],
            dev_rows=position[~is_train],
            dev_codes=code[~is_train],
            asked=asked[fold],
            steps=_steps(largest.get((fold, seed), 0), recipe) if recipe else 0,
        )
        yield Run(str(arm), int(fold), int(seed), _keyed(training, header, prints, parts[fold]))


def _steps(largest: int, recipe: Recipe) -> int:
    """Equal steps for all arms of a fold and seed: those of the largest arm; other seeds do not count."""
    return max(1, round(recipe.epochs * math.ceil(largest / recipe.batch_size)))


def _header(student: str, recipe: Recipe, schema: LabelSchema) -> dict[str, Any]:
    module = STUDENTS[student]
    return {
        "format": FORMAT,
        "student": student,
        "recipe": recipe.model_dump(mode="json", include=module.RECIPE_FIELDS),
        "encoder": encoders.encoder_fingerprint(recipe.encoder) if module.USES_ENCODER else None,
        "labels": list(schema.names),
        "libraries": {name: _major(name) for name in module.LIBRARIES},
    }


def _major(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution).split(".")[0]
    except PackageNotFoundError:
        return None


def _prints(texts: pd.Series) -> np.ndarray:
    """16 bytes per text that cover its id and its content."""
    import numpy as np

    hashes = (hashlib.sha256(f"{i}\0{t}".encode("utf-8", "surrogatepass")).digest()[:16] for i, t in texts.items())
    return np.frombuffer(b"".join(hashes), dtype="uint8").reshape(len(texts), 16)


def _keyed(training: Training, header: dict[str, Any], prints: np.ndarray, part: np.ndarray) -> Training:
    """The training with its key: everything that decides the result, and neither the arm's name nor the other seeds."""
    from dataclasses import replace

    sink = hashlib.sha256(digest({**header, "seed": training.seed, "steps": training.steps}).encode())
    for rows, codes in (
        (training.rows, training.codes),
        (training.dev_rows, training.dev_codes),
        (training.asked, part[training.asked]),
    ):
        sink.update(len(rows).to_bytes(8, "little"))
        sink.update(prints[rows].tobytes())
        sink.update(codes.astype("<i8").tobytes())
    return replace(training, key=sink.hexdigest())
