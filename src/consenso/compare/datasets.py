"""combine_datasets: one row per data set, and their random-effects mean where there are three or more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import Contrast, read_contrast
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.paired import TwoWay, holm, t_interval, unknown_result
from consenso.compare.promises import base_student
from consenso.compare.verdict import INVALID, NO_VERDICT, UNSTABLE_RECIPE, judge, percent, points, signed
from consenso.errors import ConfigError, DataError
from consenso.tables import COMPARISON, check

if TYPE_CHECKING:
    import pandas as pd

UNUSABLE = (INVALID, UNSTABLE_RECIPE, NO_VERDICT)
"""Verdicts whose numbers do not enter a mean."""
ALL = "mean of data sets"
"""What the last row is called."""


@dataclass(frozen=True)
class RandomEffects:
    """The mean of several data sets' differences, and what a further data set may show."""

    mean: float
    """Σ w·y / Σ w with w = 1/(se² + τ²)."""
    se: float
    """Hartung and Knapp's standard error."""
    df: float
    """Data sets less one."""
    tau: float
    """Standard deviation of the true differences between data sets."""
    predicted_se: float
    """√(τ² + se²), for the difference on a further data set; t with k − 2."""


def random_effects(differences: Sequence[float], ses: Sequence[float]) -> RandomEffects:
    """Return the random-effects mean of k ≥ 2 differences: τ² by Paule & Mandel (1982), SE by Hartung & Knapp (2001).

    The SE is never below the one without their factor (Röver, Knapp & Friede 2015), which could otherwise shrink to
    nothing where few data sets happen to agree. Prediction: Higgins, Thompson & Spiegelhalter (2009).
    """
    import numpy as np

    y, v = np.asarray(differences, dtype=float), np.asarray(ses, dtype=float) ** 2
    tau2 = _paule_mandel(y, v)
    w = 1 / (v + tau2)
    mean = float((w * y).sum() / w.sum())
    factor = max(1.0, float((w * (y - mean) ** 2).sum() / (len(y) - 1)))
    se = math.sqrt(factor / float(w.sum()))
    return RandomEffects(mean, se, len(y) - 1, math.sqrt(tau2), math.sqrt(tau2 + se**2))


def _paule_mandel(y: Any, v: Any) -> float:
    """The τ² at which Σ w·(y − ȳ_w)² equals k − 1; 0 where it is smaller already at 0."""
    from scipy.optimize import brentq

    def excess(tau2: float) -> float:
        w = 1 / (v + tau2)
        return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum()) - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    top = float(y.max() - y.min()) ** 2 + float(v.max())
    return float(brentq(excess, 0.0, top, xtol=1e-16, rtol=1e-12))


def combine_datasets(
    comparisons: Mapping[str, pd.DataFrame] | Iterable[pd.DataFrame],
    contrast: Contrast | tuple[str, str] | str | None = None,
    metric: str | None = None,
    *,
    student: str | None = None,
) -> pd.DataFrame:
    """Return one row per data set and student, and with three or more usable ones their random-effects mean.

    `comparisons`: COMPARISON tables, by data set name or in a list (then their `dataset` column names them). Without
    `contrast` each table's primary row is taken. `student`: this one alone, which may be a declared variation such as
    `frozen (gold dev)`; without it variations are left aside. Columns: those of COMPARISON that matter (dataset, student, contrast,
    metric, difference, se, df, low, high, low90, high90, p, p_holm, margin, alpha, verdict, sentence, S, n), and on the
    row `mean of data sets` also k, tau, predict_low and predict_high (where a further data set's difference is
    expected). p_holm adjusts over the data sets; BETTER and WORSE need it. Items are never pooled, and a data set
    without a verdict does not enter the mean. Raises `DataError` where a data set lacks the contrast or a name is
    repeated, `ConfigError` where margins, levels or metrics differ.
    """
    import pandas as pd

    rows = pd.concat(
        [_chosen(name, frame, contrast, metric, student) for name, frame in _named(comparisons)], ignore_index=True
    )
    parts = [_one_student(str(name), group) for name, group in rows.groupby("student", sort=True)]
    return pd.concat(parts, ignore_index=True)


_COLUMNS = ["dataset", "student", "contrast", "metric", "arm", "control", "difference", "se", "df", "low", "high",
            "low90", "high90", "p", "p_holm", "margin", "alpha", "verdict", "sentence", "S", "n", "k", "tau",
            "predict_low", "predict_high"]  # fmt: skip


def _named(comparisons: Mapping[str, pd.DataFrame] | Iterable[pd.DataFrame]) -> list[tuple[str, pd.DataFrame]]:
    if isinstance(comparisons, Mapping):
        found = [(str(name), frame) for name, frame in comparisons.items()]
    else:
        found = [
            (str(name), part) for frame in comparisons for name, part in check(frame, COMPARISON).groupby("dataset")
        ]
    if not found:
        raise DataError("there is no data set to combine; give the comparison tables of at least one")
    names = [name for name, _ in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"data set {repeated[0]!r} stands twice; give the tables by name: {{'name': comparison, …}}")
    return found


def _chosen(name: str, frame: pd.DataFrame, contrast: Any, metric: str | None, student: str | None) -> pd.DataFrame:
    frame = check(frame, COMPARISON)
    rows = frame[(frame["scope"] == "all") & (frame["attempt"] == "as_run")]
    asked = rows["student"].map(base_student) if student is None else student
    rows = rows[rows["student"] == asked]
    headline = rows[rows["is_primary"].astype(bool)]
    if contrast is None and metric is None:
        rows = headline
    else:
        wanted = {read_contrast(contrast).name} if contrast is not None else set(headline["contrast"])
        measured = {metric} if metric is not None else set(headline["metric"])
        rows = rows[rows["contrast"].isin(wanted) & rows["metric"].isin(measured)]
    if not len(rows):
        asked = "a primary contrast" if contrast is None else f"the contrast {read_contrast(contrast).name}"
        raise DataError(f"data set {name!r} has no row for {asked}; found {sorted(set(frame['contrast']))}")
    return rows.assign(dataset=name)


def _one_student(student: str, rows: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    for column in ("margin", "alpha", "metric", "contrast"):
        if rows[column].nunique() > 1:
            raise ConfigError(f"the data sets differ in {column} ({sorted(set(rows[column]))}); compare them alike")
    margin, alpha = float(rows["margin"].iloc[0]), float(rows["alpha"].iloc[0])
    usable = (~rows["verdict"].isin(UNUSABLE)).to_numpy()
    adjusted = holm([p if fine else math.nan for p, fine in zip(rows["p"], usable)])
    records = [
        _under_holm(row, p, _adjusted(row, p, margin, alpha)) for row, p in zip(rows.to_dict("records"), adjusted)
    ]
    if usable.sum() >= 3:
        records.append(_mean_row(student, rows[usable], margin, alpha))
    return pd.DataFrame(records).reindex(columns=_COLUMNS)


def _under_holm(row: dict[str, Any], p_holm: float, word: str) -> dict[str, Any]:
    """The row with its adjusted p and word; where the word changes, the sentence says so."""
    before, said = str(row["verdict"]), str(row["sentence"])
    if word != before and said.startswith(before):
        said = f"{word}{said.removeprefix(before).rstrip('.')}; {before} alone, but not after Holm's adjustment over the data sets."
    return {**row, "p_holm": p_holm, "verdict": word, "sentence": said}


def _adjusted(row: dict[Any, Any], p_holm: float, margin: float, alpha: float) -> str:
    """The verdict after Holm's adjustment over the data sets."""
    if row["verdict"] in UNUSABLE:
        return str(row["verdict"])
    unknown = unknown_result(int(row["S"]), int(row["n"]))
    known = {name: float(row[name]) for name in ("difference", "se", "df", "low", "high", "low90", "high90", "p")}
    return judge(TwoWay(**{**vars(unknown), **known}), margin, p_holm=p_holm, alpha=alpha).word


def _mean_row(student: str, rows: pd.DataFrame, margin: float, alpha: float) -> dict[str, Any]:
    from scipy.special import stdtrit

    found = random_effects(rows["difference"].tolist(), rows["se"].tolist())
    numbers = {name: float(v[0]) for name, v in t_interval(found.mean, found.se, found.df, alpha).items()}
    texts, k = int(rows["n"].sum()), len(rows)
    result = TwoWay(**{**vars(unknown_result(int(rows["S"].min()), texts)), **numbers})
    word = judge(result, margin, alpha=alpha).word
    half = float(stdtrit(k - 2, 1 - alpha / 2)) * found.predicted_se
    first = rows.iloc[0]
    does = read_contrast((first["arm"], first["control"])).does
    named = METRIC_NAMES.get(first["metric"], first["metric"])
    sentence = (
        f"{word}: over {k} data sets, {does}, {named} changes by {signed(found.mean)} pp on average "
        f"({percent(1 - alpha)} interval {signed(result.low)} to {signed(result.high)}; margin ±{points(margin)} pp); "
        f"a further data set is expected between {signed(found.mean - half)} and {signed(found.mean + half)} pp."
    )
    return {
        **{name: first[name] for name in ("contrast", "metric", "arm", "control")}, **numbers, "dataset": ALL,
        "student": student, "margin": margin, "alpha": alpha, "p_holm": math.nan, "verdict": word, "sentence": sentence,
        "S": int(rows["S"].min()), "n": texts, "k": k, "tau": found.tau, "predict_low": found.mean - half,
        "predict_high": found.mean + half,
    }  # fmt: skip
