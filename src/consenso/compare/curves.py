"""learning_curve: what a student makes of so many human labels, and how many labels a score is worth."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.compare.estimates import per_training_set
from consenso.compare.folds import over_folds, ratio_of_folds
from consenso.compare.metrics import per_item, read_metric
from consenso.compare.paired import TwoWay, two_way
from consenso.compare.rows import arms_in, as_table
from consenso.compare.runs import Runs, read_runs, without_copies
from consenso.compare.verdict import counted
from consenso.labels import LabelSchema
from consenso.tables import LEARNING_CURVE, with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

_GOLD_AT = re.compile(r"gold@(\d+)")
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Curve:
    """The human arms of one student on common seeds and items, and perhaps one more arm."""

    names: tuple[str, ...]
    """The arms of the curve, by number of human labels."""
    n: np.ndarray
    """(K,) human labels of each."""
    values: np.ndarray
    """(K or K + 1, S, items) per-item values of the metric: the curve, then the other arm. Folds that all test the same
    texts stand for seeds, their seeds averaged."""
    of_folds: np.ndarray | None = None
    """(K or K + 1, folds) the metric on each fold's own test texts, mean over seeds; None: folds do not part the texts."""
    over_sets: bool = False
    """Whether folds stand for seeds."""

    @property
    def seeds(self) -> int:
        """How many seeds all these arms finished (of each fold), or training sets."""
        return int(self.values.shape[1])

    @property
    def counted(self) -> str:
        """What the intervals are over: `10 seeds`, `5 folds × 1 seed`, `5 training sets`."""
        folds = None if self.of_folds is None else self.of_folds.shape[1]
        return counted(self.seeds, "training set" if self.over_sets else "seed", folds)

    @property
    def score(self) -> float:
        """The metric of the other arm."""
        return float(self._every_mean()[len(self.n)])

    @property
    def means(self) -> np.ndarray:
        """(K,) the metric of each arm of the curve."""
        return self._every_mean()[: len(self.n)]

    def _every_mean(self) -> np.ndarray:
        found: np.ndarray = self.values.mean(axis=(1, 2)) if self.of_folds is None else self.of_folds.mean(axis=1)
        return found

    def result(self, place: int) -> TwoWay:
        """Return the metric of one arm with the interval that a comparison has on these runs (plain k-fold's ratio)."""
        values = self.values[place]
        alike = bool((values == values[0]).all())  # copies of a seed are no replication
        if self.of_folds is None:
            return two_way(values[0] if alike else values)
        d = self.of_folds[place].tolist()
        return over_folds(d, _plain_ratio(len(d)), S=1 if alike else self.seeds, n=values.shape[1])

    def worth(self, draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """Return n* of the other arm and its 95 % interval; 0: fewer than n[0]; inf: more than n[-1].

        Curve and arm are drawn together, so that what is hard for both does not count as doubt.
        """
        import numpy as np

        star = labels_at(isotonic(self.means)[None], self.n, np.array([self.score]))[0]
        folds = self.of_folds
        drawn = drawn_means(self.values, draws, seed) if folds is None else drawn_over_folds(folds, draws, seed)
        found = labels_at(isotonic(drawn[:, : len(self.n)]), self.n, drawn[:, len(self.n)])
        low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")  # no arithmetic on infinity
        return float(star), float(low), float(high)


def learning_curve(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    arms: pd.DataFrame | None = None,
    metric: str = "macro_f1",
    schema: LabelSchema | None = None,
) -> pd.DataFrame:
    """Return the LEARNING_CURVE table: the metric of `gold@n` and `gold` by number of human labels, per student.

    `arms`: ARMS, from which the number of labels of `gold` is counted (distinct train and dev texts with human labels;
    the mean over folds); without it `gold` is no part of the curve. `low` and `high`: the 95 % interval as in
    `compare_arms`, over seeds and items (null with one seed) or over folds with test texts of their own. `fitted`:
    isotonic regression in n. Runs as they were, on the seeds and test texts that all arms of the curve have. Raises
    `ConfigError` for an unknown metric, `DataError` for a wrong table.
    """
    rows: list[dict[str, Any]] = []
    for student, curve in curves(predictions, gold, arms=arms, metric=metric, schema=schema):
        for place, (name, n, fitted) in enumerate(zip(curve.names, curve.n, isotonic(curve.means))):
            result = curve.result(place)
            rows.append({
                "student": student, "n": n, "arm": name, "mean": result.difference, "low": result.low,
                "high": result.high, "fitted": fitted, "S": result.S,
            })  # fmt: skip
    return as_table(rows, LEARNING_CURVE)


def curves(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    arms: pd.DataFrame | None,
    metric: str,
    schema: LabelSchema | None,
    other: str | None = None,
) -> list[tuple[str, Curve]]:
    """Return (student, curve) of every student that has a human arm (and `other`, where one is asked for)."""
    read_metric(metric)
    used = [name for name in arms_in(predictions) if name in {"gold", other} or _GOLD_AT.fullmatch(str(name))]
    if not used:
        return []
    runs = read_runs(predictions[predictions["arm"].isin(used)], gold, schema)
    found = []
    for student in runs.students():
        board = runs.arms(student)
        sizes = human_labels(board, arms, student)
        if not sizes or (other is not None and other not in board):
            continue
        curve = _curve(runs, board, sizes, other, metric)
        if curve is None:
            logger.warning("%s: no learning curve, because its arms share no seed or no test text", student)
        else:
            found.append((student, curve))
    return found


def human_labels(names: Mapping[str, Any] | Sequence[str], arms: pd.DataFrame | None, student: str) -> dict[str, int]:
    """Return human arm → number of human labels, ascending; `gold` stands for a `gold@n` that is not smaller."""
    sizes = {name: int(match[1]) for name in names if (match := _GOLD_AT.fullmatch(name))}
    if "gold" in names and (counted := _labels_of_gold(arms, student)):
        sizes = {name: n for name, n in sizes.items() if n < counted} | {"gold": counted}
    distinct = {n: name for name, n in sorted(sizes.items(), reverse=True)}  # gold@0250 is gold@250
    return {name: n for n, name in sorted(distinct.items())}


def _labels_of_gold(arms: pd.DataFrame | None, student: str) -> int:
    """Distinct texts of the arm `gold` with human labels, train and dev, over all seeds; the mean over folds."""
    if arms is None:
        return 0
    mine = arms[(arms["arm"] == "gold") & (arms["source"] == "gold")]
    if "student" in arms:
        mine = mine[mine["student"].isin([student, "all"])]
    counts = with_text_ids(mine[["fold", "text_id"]]).groupby("fold")["text_id"].nunique()
    return round(counts.mean()) if len(counts) else 0


def _curve(
    runs: Runs, board: Mapping[str, Mapping[Any, int]], sizes: Mapping[str, int], other: str | None, metric: str
) -> Curve | None:
    import numpy as np

    names = [*sizes, *([other] if other else [])]
    seeds = sorted(set.intersection(*(set(board[name]) for name in names)))
    if not seeds:
        return None
    codes = runs.codes[[[board[name][seed] for seed in seeds] for name in names]]  # (arms, S, items)
    kept = without_copies(codes)
    codes, seeds = codes[:, kept], [seeds[place] for place in kept]
    items = np.asarray((codes >= 0).all(axis=(0, 1)))
    if not items.any():
        return None
    parts = (
        []
        if runs.folds is None
        else [np.flatnonzero(items & np.equal(runs.folds, fold)) for fold in np.unique(runs.folds[items])]
    )
    values = np.array([per_training_set(arm, seeds) for arm in _values(codes, runs.gold, items, metric)])
    means = [_values(codes, runs.gold, part, metric).mean(axis=(1, 2)) for part in parts] if len(parts) > 1 else []
    return Curve(
        tuple(sizes), np.array(list(sizes.values())), values, np.array(means).T if means else None,
        over_sets=isinstance(seeds[0], tuple),
    )  # fmt: skip


def _values(codes: np.ndarray, gold: np.ndarray, items: np.ndarray, metric: str) -> np.ndarray:
    """Per-item values (A, S, items) of codes (A, S, n) on some of the test texts (a mask, or places)."""
    A, S = codes.shape[:2]
    return per_item(codes[:, :, items].reshape(A * S, -1), gold[items], metric).reshape(A, S, -1)


def drawn_means(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the means of several arms, values (A, S, n), as other seeds and items might give them: (draws, A).

    A parametric bootstrap with the variances of `two_way`, for all arms at once: the items' part is multivariate normal
    with covariance MSi/(S·n); the seeds' part multivariate t with S − 1 degrees of freedom and covariance
    (MSs − MSe)/(S·n), where mean squares are matrices of mean products and negative eigenvalues count as 0. What is
    hard, or lucky, for several arms moves them together. With one seed nothing is known of seeds, and items alone are
    drawn. Drawing seeds × items anew instead would count their error three times over (docs/value.md).
    """
    import numpy as np

    A, S, n = values.shape
    rng = np.random.default_rng([seed, S, n])
    means = values.mean(axis=(1, 2))
    drawn: np.ndarray = np.tile(means, (draws, 1))
    if n > 1:
        items = values.mean(axis=1) - means[:, None]
        drawn += rng.normal(size=(draws, A)) @ _root(items @ items.T / ((n - 1) * n)).T
        if S > 1:
            of_seeds = rng.normal(size=(draws, A)) @ _root(_seed_products(values, means, items) / (S * n)).T
            drawn += of_seeds * np.sqrt((S - 1) / rng.chisquare(S - 1, size=(draws, 1)))
    return drawn


def drawn_over_folds(means: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the means (A, k) of several arms over k folds as other folds might give them: (draws, A).

    Multivariate t with k − 1 degrees of freedom and Nadeau and Bengio's covariance, (1/k + 1/(k − 1)) times that of the
    folds: for one difference it gives their interval (2003).
    """
    import numpy as np

    A, k = means.shape
    rng = np.random.default_rng([seed, k])
    covariance = np.atleast_2d(np.cov(means)) * (1 / k + _plain_ratio(k))
    drawn = rng.normal(size=(draws, A)) @ _root(covariance).T * np.sqrt((k - 1) / rng.chisquare(k - 1, size=(draws, 1)))
    found: np.ndarray = means.mean(axis=1) + drawn
    return found


def _plain_ratio(k: int) -> float:
    """n_test/n_train of plain k-fold, for all arms: how far training sets overlap, not how much of them an arm uses."""
    return ratio_of_folds(dict.fromkeys(range(k), 1), {})


def _seed_products(values: np.ndarray, means: np.ndarray, items: np.ndarray) -> np.ndarray:
    """MSs − MSe of values (A, S, n) as a matrix of mean products (A, A)."""
    _, S, n = values.shape
    seeds = values.mean(axis=2) - means[:, None]
    rest = (values - seeds[:, :, None] - items[:, None, :] - means[:, None, None]).reshape(len(values), -1)
    found: np.ndarray = n * seeds @ seeds.T / (S - 1) - rest @ rest.T / ((S - 1) * (n - 1))
    return found


def _root(covariance: np.ndarray) -> np.ndarray:
    """L with L·Lᵀ = the covariance without its negative eigenvalues."""
    import numpy as np

    size, turned = np.linalg.eigh(covariance)
    found: np.ndarray = turned * np.sqrt(np.maximum(size, 0.0))
    return found


def isotonic(values: np.ndarray) -> np.ndarray:
    """Return the least-squares fit that never falls along the last axis, all points of equal weight.

    The min–max formula fit_i = max_{a ≤ i} min_{b ≥ i} mean(v_a … v_b) (Robertson, Wright and Dykstra 1988,
    theorem 1.4.4), which fits all rows at once.
    """
    import numpy as np

    K = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    first, last = np.arange(K)[:, None], np.arange(K)[None, :]
    means = (sums[..., None, 1:] - sums[..., :-1, None]) / np.maximum(last - first + 1, 1)
    means = np.where(last >= first, means, np.inf)
    lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    fitted: np.ndarray = np.where(last >= first, lowest, -np.inf).max(axis=-2)
    return fitted


def labels_at(fitted: np.ndarray, n: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return where rising curves (D, K) over n (K,) first reach the scores (D,): 0 below the curve, inf above it.

    Between two points the curve is a straight line in log n: learning curves bend less on that scale.
    """
    import numpy as np

    score = score - _TOLERANCE  # a source that scores exactly as the curve's end has reached it
    above = (fitted < score[:, None]).sum(axis=1)
    right = np.clip(above, 1, len(n) - 1) if len(n) > 1 else np.zeros_like(above)
    left, row = np.maximum(right - 1, 0), np.arange(len(fitted))
    rise = fitted[row, right] - fitted[row, left]
    share = np.divide(score - fitted[row, left], rise, out=np.ones_like(score), where=rise > 0).clip(0, 1)
    log_n = np.log(n)
    found = np.exp(log_n[left] + share * (log_n[right] - log_n[left]))
    at_first = (above == 0) & (score + 2 * _TOLERANCE >= fitted[:, 0])
    found = np.where(at_first, float(n[0]), np.where(above == 0, 0.0, found))
    return np.where(above == len(n), np.inf, found)
