"""A study: arms, texts and folds turned into trainings, each with the key that decides whether it is already done."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import ConfigError, DataError, JoinError, nearest
from consenso.finetune.arguments import recipe_from_arguments
from consenso.finetune.arm_names import FLOOR_ARMS
from consenso.finetune.arms import SEVERAL_ROWS
from consenso.finetune.pieces import FORMAT
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import STUDENTS
from consenso.finetune.training import Training, base_student
from consenso.labels import LabelSchema
from consenso.store import digest, major_version
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
    """As in the tables: `frozen`, or `frozen (gold dev)` for a declared variant."""
    recipe: Recipe
    budget: Mapping[int, int] | None = None
    """Fold → rows that the steps follow from; None: those of the largest arm."""

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
    budget: Mapping[int, int] | None = None,
    tested: bool = True,
) -> Study:
    """Check the tables and join them by text id; gold is not looked at, the arms' targets are.

    `recipe`: a Recipe, or transformers' TrainingArguments (for the embedded encoder).
    `student`: a key of STUDENTS, or one under a declared variation such as `frozen (gold dev)`. `budget`: fold → training
    rows whose epochs give the steps, where they are not those of the largest arm here (`arm_sizes` of another study).
    `tested`: each fold must have test texts.
    """
    if (base := base_student(student)) not in STUDENTS:
        raise ConfigError(f"unknown student {base!r}; choose from {', '.join(STUDENTS)}.{nearest(base, STUDENTS)}")
    schema = schema or _schema(arms, texts)
    arms, folds = with_text_ids(check(arms, ARMS)), with_text_ids(check(folds, FOLDS))
    arms = arms[arms["student"].isin(["all", student])]
    if arms.empty:
        raise DataError(f"arms: no rows for student {student!r}; make_arms makes them")
    named = _texts(texts)
    parts = _parts(folds, named, sorted(arms["fold"].unique()), tested)
    recipe = _as_recipe(recipe)
    rows, shares = _rows(arms, named, parts, schema), _shares(arms, schema)
    header, steps = _header(base, recipe, schema), None if STUDENTS[base].DETERMINISTIC else recipe
    runs = list(_runs(rows, shares, parts, _Keys(header, _prints(named)), steps, budget=budget))
    in_test = {fold: part == _TEST for fold, part in parts.items()}
    return Study(named.index, named.tolist(), in_test, runs, schema, student, recipe, budget)


_DEV, _TEST, _TRAIN, _ELSEWHERE = 0, 1, 2, -1


def arm_sizes(arms: pd.DataFrame) -> dict[int, int]:
    """Return fold → training rows of the largest arm (ARMS), over all seeds: what the steps of all arms follow from."""
    rows = arms[(arms["part"] == "train") & ~arms["arm"].isin(FLOOR_ARMS)]
    several = rows["arm"].isin(SEVERAL_ROWS)
    piece = ["fold", "arm", "seed"]
    sizes = [rows[~several].groupby(piece).size(), rows[several].groupby(piece)["text_id"].nunique()]
    found: dict[int, int] = {}
    for counted in sizes:
        for fold, size in counted.groupby("fold").max().items():
            found[int(fold)] = max(found.get(int(fold), 0), int(size))
    return found


def _as_recipe(given: Any) -> Recipe:
    return recipe_from_arguments(given) if hasattr(given, "per_device_train_batch_size") else given or Recipe()


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


def _parts(folds: pd.DataFrame, texts: pd.Series, wanted: list[int], tested: bool) -> dict[int, np.ndarray]:
    """Fold → the part of each text, as a code."""
    import numpy as np

    codes = {"dev": _DEV, "test": _TEST, "train": _TRAIN}
    parts = {}
    for fold in wanted:
        rows = folds[folds["fold"] == fold]
        positions = _positions(rows["text_id"], texts.index, "folds")
        parts[int(fold)] = np.full(len(texts), _ELSEWHERE)
        parts[int(fold)][positions] = rows["part"].map(codes).to_numpy(dtype="int64")
        if tested and not (parts[int(fold)] == _TEST).any():
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
    """The arms' rows as numbers, sorted: neither the order of the table nor its row numbers decide anything.

    `given`: the place of the row in `arms`.
    """
    import numpy as np
    import pandas as pd

    rows = pd.DataFrame(
        {
            "arm": pd.Categorical(arms["arm"]),
            "fold": arms["fold"].to_numpy(dtype="int64"),
            "seed": arms["seed"].to_numpy(dtype="int64"),
            "is_train": (arms["part"] == "train").to_numpy(),
            "position": _positions(arms["text_id"], texts.index, "arms"),
            "code": schema.codes(arms["target"]),
            "given": np.arange(len(arms)),
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


def _shares(arms: pd.DataFrame, schema: LabelSchema) -> np.ndarray:
    """The soft targets of the rows, object array; raises `DataError` where they are no shares."""
    import numpy as np

    shares: np.ndarray = arms["shares"].to_numpy(dtype=object, copy=True)
    soft = arms["shares"].notna().to_numpy()
    shares[~soft] = None
    for row in shares[soft]:
        values = np.asarray(row, dtype="float64")
        if values.shape != (len(schema),) or not abs(values.sum() - 1) < 1e-6 or (values < 0).any():
            raise DataError(
                f"arms: shares {values.tolist()} are not {len(schema)} numbers that sum to 1; make the arms again"
            )
    return shares


def _runs(
    rows: pd.DataFrame,
    shares: np.ndarray,
    parts: dict[int, np.ndarray],
    keys: _Keys,
    recipe: Recipe | None,
    *,
    budget: Mapping[int, int] | None,
) -> Iterator[Run]:
    """The arms of `rows`; `recipe` says how many steps they take, None for a student that has no steps of its own."""
    import numpy as np

    groups = {name: group for name, group in rows.groupby(["arm", "fold", "seed"], observed=True)}  # noqa: C416
    largest: dict[tuple[int, int], int] = {}
    for (arm, fold, seed), group in groups.items():
        n = int(group["is_train"].sum())
        if n in {0, len(group)}:
            raise DataError(f"arms: arm {arm!r} (fold {fold}, seed {seed}) has no {'dev' if n else 'training'} rows")
        if arm not in FLOOR_ARMS and (budget is None or fold not in budget):
            size = group.loc[group["is_train"], "position"].nunique() if arm in SEVERAL_ROWS else n
            largest[fold, seed] = max(largest.get((fold, seed), 0), size)
    asked = {fold: np.flatnonzero((part == _DEV) | (part == _TEST)) for fold, part in parts.items()}
    for (arm, fold, seed), group in groups.items():
        is_train, position, code, given = (group[name].to_numpy() for name in ("is_train", "position", "code", "given"))
        targets, dev_targets = (_targets(shares[given[side]], str(arm)) for side in (is_train, ~is_train))
        size = (
            int(is_train.sum())
            if recipe and recipe.steps == "epochs"
            else (budget or {}).get(fold, largest.get((fold, seed), 0))
        )
        training = Training(
            key="",
            seed=int(seed),
            rows=position[is_train],
            codes=code[is_train],
            dev_rows=position[~is_train],
            dev_codes=code[~is_train],
            asked=asked[fold],
            steps=_steps(size, recipe) if recipe else 0,
            targets=targets,
            dev_targets=dev_targets,
            patience=recipe.patience if recipe else 0,
        )
        yield Run(str(arm), int(fold), int(seed), keys.give(training, parts[fold]))


def _targets(shares: np.ndarray, arm: str) -> np.ndarray | None:
    """The soft targets of some rows, (rows, K), or None where they have none."""
    import numpy as np

    lacking = sum(row is None for row in shares)
    if lacking == len(shares):
        return None
    if lacking:
        raise DataError(
            f"arms: {lacking} of {len(shares)} rows of arm {arm!r} have no shares; a part has them in all rows or none"
        )
    return np.array([np.asarray(row, dtype="float64") for row in shares])


def _steps(size: int, recipe: Recipe) -> int:
    """The steps of the recipe's epochs over `size` rows: those of the largest arm of the fold and seed, or of the arm."""
    return max(1, round(recipe.epochs * math.ceil(size / recipe.batch_size)))


def _header(student: str, recipe: Recipe, schema: LabelSchema) -> dict[str, Any]:
    module = STUDENTS[student]
    libraries = (*module.LIBRARIES, *(("peft",) if recipe.lora_rank and "lora_rank" in module.RECIPE_FIELDS else ()))
    return {
        "format": FORMAT,
        "student": student,
        "recipe": recipe.model_dump(mode="json", include=module.RECIPE_FIELDS - {"steps", "patience"}),
        "encoder": encoders.encoder_fingerprint(recipe.encoder) if module.USES_ENCODER else None,
        "labels": list(schema.names),
        "libraries": {name: major_version(name) for name in libraries},
    }


def _prints(texts: pd.Series) -> np.ndarray:
    """16 bytes per text that cover its id and its content."""
    import numpy as np

    hashes = (hashlib.sha256(f"{i}\0{t}".encode("utf-8", "surrogatepass")).digest()[:16] for i, t in texts.items())
    return np.frombuffer(b"".join(hashes), dtype="uint8").reshape(len(texts), 16)


@dataclass(frozen=True)
class _Keys:
    """Gives trainings their keys."""

    header: dict[str, Any]
    """What all trainings of a study share: student, recipe, encoder, labels, versions."""
    prints: np.ndarray
    """16 bytes per text."""

    def give(self, training: Training, part: np.ndarray) -> Training:
        """Return the training with its key: all that decides the result, neither the arm's name nor other seeds."""
        chosen = {**self.header, "seed": training.seed, "steps": training.steps, "patience": training.patience}
        sink = hashlib.sha256(digest(chosen).encode())
        for rows, codes, targets in (
            (training.rows, training.codes, training.targets),
            (training.dev_rows, training.dev_codes, training.dev_targets),
            (training.asked, part[training.asked], None),
        ):
            sink.update(len(rows).to_bytes(8, "little"))
            sink.update(self.prints[rows].tobytes())
            sink.update(codes.astype("<i8").tobytes())
            if targets is not None:
                sink.update(b"soft" + targets.astype("<f8").tobytes())
        return replace(training, key=sink.hexdigest())
