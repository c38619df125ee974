"""read_predictions: a user's own test predictions, however they lie on disk, as PREDICTIONS and gold."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError, JoinError
from consenso.files import find_path
from consenso.readers import is_data_file_name, read_file
from consenso.tables import PREDICTIONS, check

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NOT_ARMS = frozenset({"text_id", "gold", "text", "fold", "split", "group", "seed", "student", "part", "label"})
"""Columns of a wide file that are no arm."""
_NAMED = re.compile(r"(?P<arm>.+?)[ _.\-]*seed[ _.\-]*(?P<seed>\d+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<arm>.+?)[ _\-](?P<seed>\d+)")
_WHOLE = re.compile(r"(-?\d+)\.0+")
_SEED = re.compile(r"(?:seed)?[ _.\-]*(?P<seed>\d+)", re.IGNORECASE)


def read_predictions(
    source: str | Path | pd.DataFrame,
    gold: str | Path | pd.Series | pd.DataFrame | None = None,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    arms: Collection[str] = (),
    base: Path | None = None,
) -> tuple[pd.DataFrame, pd.Series]:
    """Return predictions (PREDICTIONS) and gold (a Series by text_id), ready for `compare_arms`.

    `source` is one of: a table (CSV, TSV, Parquet, JSON, also .gz, or a frame) with arm, seed, text_id and predicted,
    perhaps fold and student; a wide table with text_id and one column per arm or per arm and seed (`consensus_seed1`,
    `consensus-1` beside `consensus-2`, `consensus`), or those that `columns` names ({arm: column}, or {arm: [one column
    per seed]}); a folder with a file per arm and seed (`consensus_seed1.csv`, `consensus-1.csv`, `consensus/seed1.csv`)
    that holds text_id and predicted. `arms`: columns of a wide table that are arms as they stand, so that `gpt-4` is no
    seed 4. `gold`: a column of the predictions, a file or frame with text_id and gold, or a Series; without it the
    column `gold` of the predictions, or `gold.csv` of the folder. Rows are joined by text_id, never by their order.
    Labels `1.0` and `1` are the same where all predicted labels have gold then.

    Raises `DataError` for a missing column, an empty or repeated prediction, an arm without the seeds or texts of the
    others; `JoinError` where predictions and gold share no text.
    """
    import pandas as pd

    folder = None if isinstance(source, pd.DataFrame) else find_path(source, base)
    if folder is not None and folder.is_dir():
        where, frame = str(source), _read_folder(folder)
        inside = sorted(path for path in folder.iterdir() if path.stem.split(".")[0] == "gold")
        gold = inside[0] if gold is None and inside and "gold" not in frame.columns else gold
    else:
        frame, where = _table(source, base, "predictions")
    if isinstance(gold, str) and gold in frame.columns:
        frame = frame.drop(columns=[] if gold == "gold" else "gold", errors="ignore").rename(columns={gold: "gold"})
        gold = None
    truth = _gold(frame, gold, base, where)
    if folder is None or not folder.is_dir():
        frame = _long(frame, columns, where, labels=frozenset(truth.map(_bare)), arms=arms)
    predictions, truth = _alike(_checked(frame, where), truth)
    _refuse_strangers(predictions, truth, where)
    runs = predictions[["arm", "fold", "seed"]].drop_duplicates()
    logger.info("read %d trainings of %d arms from %s", len(runs), runs["arm"].nunique(), where)
    return predictions, truth


def _table(source: Any, base: Path | None, what: str) -> tuple[pd.DataFrame, str]:
    """A frame with text columns stripped of blanks in their names, and what to call it in a message."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source.copy(deep=False), what
    path = find_path(source, base)
    if path is None or path.is_dir():
        no_column = "no such column in the predictions, and " if what == "gold" else ""
        raise DataError(f"{what}: {no_column}there is no file {str(source)!r}; give the path of a CSV or Parquet file")
    frame = read_file(path).frame
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame, str(source)


def _read_folder(folder: Path) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for path in sorted(folder.rglob("*")):
        name = path.name.split(".")[0]
        if not path.is_file() or not is_data_file_name(path.name) or name == "gold":
            continue
        arm, seed = _arm_and_seed(path.relative_to(folder), name)
        frame, where = _table(path, None, "predictions")
        _need(frame, ("text_id", "predicted"), where)
        _refuse_repeated(frame, ["fold", "text_id"] if "fold" in frame.columns else ["text_id"], where)
        parts.append(frame.assign(arm=arm, seed=seed))
    if not parts:
        raise DataError(f"{folder}: no file of predictions; expected one per arm and seed, like consensus_seed1.csv")
    return pd.concat(parts, ignore_index=True)


def _arm_and_seed(path: Path, name: str) -> tuple[str, int]:
    """Arm and seed that the name of a file (or its folder and name) carries."""
    if len(path.parts) == 2 and (found := _SEED.fullmatch(name)):
        return path.parts[0], int(found["seed"])
    if len(path.parts) == 1 and (found := _NAMED.fullmatch(name) or _NUMBERED.fullmatch(name)):
        return found["arm"], int(found["seed"])
    raise DataError(
        f"{path}: the name carries no arm and seed; call it like consensus_seed1.csv or consensus/seed1.csv"
    )


def _long(
    frame: pd.DataFrame,
    columns: Mapping[str, str | Sequence[str]] | None,
    where: str,
    *,
    labels: Collection[str],
    arms: Collection[str],
) -> pd.DataFrame:
    """One row per arm, seed and text."""
    import pandas as pd

    _need(frame, ("text_id",), where)
    if columns is None and {"arm", "predicted"} & set(frame.columns):
        if "seed" not in frame.columns and "arm" in frame.columns and "predicted" in frame.columns:
            raise DataError(
                f"{where}: no column 'seed'; add each training's seed (any number, where there was one run)"
            )
        _need(frame, ("arm", "seed", "predicted"), where)
        return frame
    _refuse_repeated(frame, ["text_id"], where)
    named = _wide_columns(frame, labels, arms, where) if columns is None else _given_columns(frame, columns, where)
    beside = [name for name in ("text_id", "fold", "gold") if name in frame.columns]
    parts = [
        frame[beside].assign(arm=arm, seed=seed, predicted=frame[column].to_numpy()) for arm, seed, column in named
    ]
    return pd.concat(parts, ignore_index=True)


def _wide_columns(
    frame: pd.DataFrame, labels: Collection[str], arms: Collection[str], where: str
) -> list[tuple[str, int, str]]:
    """(arm, seed, column); a column without a seed in its name is seed 1, one that holds no gold label is no arm."""
    named = [
        column for column in map(str, frame.columns)
        if column in arms or (column not in NOT_ARMS and any(_bare(v) in labels for v in _texts(frame[column]).dropna().unique()))
    ]  # fmt: skip
    if left := [column for column in map(str, frame.columns) if column not in {*named, "text_id", "gold", "fold"}]:
        logger.info("%s: column(s) taken for no arm: %s", where, ", ".join(left))
    if not named:
        raise DataError(f"{where}: no column of predictions (with labels that gold has); found {list(frame.columns)}")
    numbered = [found["arm"] for column in named if column not in arms and (found := _numbered(column))]
    return [_arm_of_column(column, arms, numbered) for column in named]


def _numbered(column: str) -> re.Match[str] | None:
    return None if _NAMED.fullmatch(column) else _NUMBERED.fullmatch(column)


def _arm_of_column(column: str, arms: Collection[str], numbered: Sequence[str]) -> tuple[str, int, str]:
    """A bare number at the end is a seed where several columns share what stands before it, or `arms` names that."""
    if column in arms:
        return column, 1, column
    if read := _NAMED.fullmatch(column):
        return read["arm"], int(read["seed"]), column
    read = _NUMBERED.fullmatch(column)
    if read and (read["arm"] in arms or numbered.count(read["arm"]) > 1):
        return read["arm"], int(read["seed"]), column
    return column, 1, column


def _given_columns(
    frame: pd.DataFrame, columns: Mapping[str, str | Sequence[str]], where: str
) -> list[tuple[str, int, str]]:
    found = []
    for arm, given in columns.items():
        names = [given] if isinstance(given, str) else list(given)
        _need(frame, names, where)
        found += [(arm, place + 1, name) for place, name in enumerate(names)]
    return found


def _gold(frame: pd.DataFrame, gold: Any, base: Path | None, where: str) -> pd.Series:
    import pandas as pd

    if gold is None and "gold" not in frame.columns:
        raise DataError(f"{where}: no column 'gold'; give gold=… or --gold (a column, or a file with text_id and gold)")
    if isinstance(gold, pd.Series):
        gold = gold.rename("gold").rename_axis("text_id").reset_index()
    table, named = (frame, where) if gold is None else _table(gold, base, "gold")
    _need(table, ("text_id", "gold"), named)
    table = table[["text_id", "gold"]].assign(text_id=_texts(table["text_id"]), gold=_texts(table["gold"]))
    table = table[table["gold"].notna()].drop_duplicates()
    if (twice := table[table["text_id"].duplicated()]).size:
        raise DataError(f"{named}: text_id {twice['text_id'].iloc[0]!r} has two gold labels; keep one")
    return pd.Series(table["gold"].to_numpy(), index=table["text_id"].to_numpy(), name="gold", dtype=object)


def _checked(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    import pandas as pd

    frame = frame.assign(
        text_id=_texts(frame["text_id"]), predicted=_texts(frame["predicted"]), arm=_texts(frame["arm"])
    )
    for column in ("text_id", "predicted", "arm"):
        if (empty := frame[column].isna()).any():
            row = frame[empty].iloc[0]
            raise DataError(
                f"{where}: {int(empty.sum())} empty value(s) in {column!r}, for example of arm {row['arm']}, text_id "
                f"{row['text_id']}; every run needs a label for every test text"
            )
    for column in ("seed", "fold"):
        if column in frame.columns:
            numbers = pd.to_numeric(frame[column], errors="coerce")
            if numbers.isna().any() or (numbers % 1 != 0).any():
                found = frame.loc[numbers.isna() | (numbers % 1 != 0), column].iloc[0]
                raise DataError(f"{where}: {column!r} holds {str(found)!r}; it must be a whole number in every row")
            frame[column] = numbers.astype("int64")
    keys = [name for name in PREDICTIONS.key if name in frame.columns]
    _refuse_repeated(frame, keys, where)
    return check(frame.drop(columns="gold", errors="ignore"), PREDICTIONS)


def _alike(predictions: pd.DataFrame, gold: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """Both without a trailing .0 where predicted labels lack gold as they stand and all have it then."""
    predicted = set(predictions["predicted"])
    if predicted <= set(gold) or not set(map(_bare, predicted)) <= set(map(_bare, gold)):
        return predictions, gold
    logger.info("labels with and without a trailing .0 are taken as the same, such as '1.0' and '1'")
    return predictions.assign(predicted=predictions["predicted"].map(_bare)), gold.map(_bare)


def _bare(label: str) -> str:
    found = _WHOLE.fullmatch(label)
    return found[1] if found else label


def _refuse_strangers(predictions: pd.DataFrame, gold: pd.Series, where: str) -> None:
    """Every arm needs the seeds, and every run the texts, of the others of its fold."""
    if not set(predictions["text_id"]) & set(gold.index):
        example = gold.index[0] if len(gold) else "no labelled text"
        raise JoinError(
            f"{where}: predictions and gold share no text_id: {predictions['text_id'].iloc[0]!r} here, {example!r} there"
        )
    for (_, _, _, fold), part in predictions.groupby(["student", "attempt", "part", "fold"]):
        place = f" in fold {fold}" if predictions["fold"].nunique() > 1 else ""
        seeds = part.groupby("arm")["seed"].agg(set)
        every = set[int]().union(*seeds)
        for arm, there in seeds.items():
            if lacking := sorted(every - there):
                raise DataError(f"{where}: arm {arm!r} has no seed {lacking[0]}{place}; give every arm the same seeds")
        texts = part.groupby(["arm", "seed"])["text_id"].agg(frozenset)
        ids = frozenset[str]().union(*texts)
        for (arm, seed), run in texts.items():
            if lacking := sorted(ids - run):
                raise DataError(
                    f"{where}: arm {arm!r}, seed {seed}{place} lacks {len(lacking)} test text(s), for example "
                    f"{lacking[0]!r}; every run must predict the same texts"
                )


def _need(frame: pd.DataFrame, names: Sequence[str], where: str) -> None:
    if missing := [name for name in names if name not in frame.columns]:
        raise DataError(f"{where}: missing column(s) {missing}; found {[str(name) for name in frame.columns]}")


def _refuse_repeated(frame: pd.DataFrame, key: list[str], where: str) -> None:
    if (repeated := frame.duplicated(key)).any():
        example = {name: str(value) for name, value in frame.loc[repeated, key].iloc[0].items()}
        raise DataError(f"{where}: {int(repeated.sum())} repeated row(s), for example {example}; keep one of each")


def _texts(values: pd.Series) -> pd.Series:
    """Values as text, whole floats without their .0, empty ones as None."""
    distinct: dict[Any, str | None] = {}
    for value in values.dropna().unique():
        whole = isinstance(value, float) and value.is_integer()
        distinct[value] = str(int(value) if whole else value).strip() or None
    return values.map(distinct).astype(object)
