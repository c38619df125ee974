"""measure_calibration: may a student's probabilities be believed? ECE, Brier score, reliability, before and after scaling."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.compare.contrasts import FLOORS
from consenso.compare.rows import arms_in, as_table
from consenso.compare.runs import gold_labels, read_labels
from consenso.errors import DataError, JoinError
from consenso.labels import LabelSchema
from consenso.tables import CALIBRATION, CALIBRATION_BINS, with_text_ids
from consenso.temperature import fit_temperature, scale

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

_RUN = ["student", "arm", "fold", "seed"]
_ABSENT = {"student": "given", "fold": 0, "attempt": "as_run", "part": "test"}
"""What stands in for a column of PREDICTIONS that a frame lacks."""
_SMALLEST = 1e-12
"""A probability below this counts as this much in the log loss."""


class Calibration(NamedTuple):
    """What `measure_calibration` returns."""

    calibration: pd.DataFrame
    """CALIBRATION; `attrs["notes"]` names the runs that keep temperature 1."""
    bins: pd.DataFrame
    """CALIBRATION_BINS, bins without a prediction left out."""


@dataclass(frozen=True)
class _Scored:
    """The predictions of one arm, one row per run and text."""

    run: np.ndarray
    """(rows,) number of the run."""
    item: np.ndarray
    """(rows,) number of the text."""
    gold: np.ndarray
    """(rows,) code of the human label."""
    probabilities: np.ndarray
    """(rows, K), in schema order."""
    temperature: np.ndarray
    """(rows,) by which the probabilities were scaled."""

    def take(self, chosen: np.ndarray) -> _Scored:
        """Return some of the rows, their runs and texts numbered from 0."""
        import numpy as np

        run, item = (np.unique(codes[chosen], return_inverse=True)[1] for codes in (self.run, self.item))
        return _Scored(run, item, self.gold[chosen], self.probabilities[chosen], self.temperature[chosen])

    def scaled(self, temperature: np.ndarray) -> _Scored:
        """Return the same predictions after temperature scaling, T per row."""
        return replace(self, probabilities=scale(self.probabilities, temperature), temperature=temperature)


def measure_calibration(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    arms: pd.DataFrame | None = None,
    schema: LabelSchema | None = None,
    strata: pd.Series | None = None,
    bins: int = 15,
    draws: int = 500,
    seed: int = 0,
) -> Calibration:
    """Return CALIBRATION and CALIBRATION_BINS of every student and arm that has probabilities; floors are left out.

    `predictions`: PREDICTIONS, `probabilities` in schema order (without `schema`: sorted names of gold). `arms`: ARMS;
    with it the temperature of each run is fitted on its dev predictions against the arm's own dev labels, and rows with
    `scaled` follow; a run whose dev labels fix no temperature keeps 1, which is logged. `strata`: a Series by text_id;
    each of its values becomes a further scope, `<name of the Series> <value>`.

    ECE: `bins` equal intervals (a, b] of the largest probability, Σ share · |accuracy − confidence| (Guo et al. 2017,
    equation 3), the mean over runs. It is biased upward, the more the fewer texts stand in a bin. Its interval is the
    basic bootstrap over runs and texts, which takes that bias off; it begins at 0 where a calibrated student might show
    such an ECE. Brier score: mean Σ_k (p_k − y_k)², 0 to 2. Runs as
    they were, copies of a seed among them. Raises `DataError` for probabilities that do not fit the labels, `JoinError`
    where no predicted text has gold.
    """
    frame, truth = _with_probabilities(predictions), gold_labels(gold, schema)
    names = list(schema.names) if schema is not None else sorted(set(truth))
    test = frame[frame["part"] == "test"]
    test = test.assign(gold=_codes(test["text_id"].map(truth), names))
    if len(test) and (test["gold"] < 0).all():
        raise JoinError("calibration: no predicted test text has gold; the ids of predictions and gold do not meet")
    test = test[test["gold"] >= 0]
    fitted = None if arms is None else _temperatures(frame[frame["part"] == "dev"], arms, names, schema)
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    notes: list[str] = []
    for (student, arm), mine in test.groupby(["student", "arm"], sort=True):
        versions = {False: _scored(mine, len(names))}
        if fitted is not None:
            T, lacking = _temperature_of(mine, fitted)
            versions[True] = versions[False].scaled(T)
            notes += [f"{student}, {arm}: {run} keeps temperature 1" for run in lacking]
        scopes = list(_scopes(mine["text_id"], strata))
        for is_scaled, scored in versions.items():
            for scope, chosen in scopes:
                key = {"student": student, "arm": arm, "scope": scope, "scaled": is_scaled}
                part = scored.take(chosen)
                rows.append({**key, **_measures(part, bins, draws, seed)})
                cells += [{**key, **cell} for cell in _bins(part, bins)]
    for note in notes:
        logger.info("%s, because its dev labels fix none", note)
    table = as_table(rows, CALIBRATION)
    table.attrs["notes"] = notes
    return Calibration(table, as_table(cells, CALIBRATION_BINS))


def _with_probabilities(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows as run that have probabilities, without the floors, whose absent key columns are filled."""
    taught = [name for name in arms_in(predictions) if name not in FLOORS]
    if "probabilities" not in predictions:
        predictions = predictions.assign(probabilities=None)
    found = predictions[predictions["probabilities"].notna() & predictions["arm"].isin(taught)]
    found = found.assign(**{name: value for name, value in _ABSENT.items() if name not in found})
    return with_text_ids(found.loc[found["attempt"] == "as_run", [*_RUN, "part", "text_id", "probabilities"]])


def _codes(labels: pd.Series, names: list[str]) -> np.ndarray:
    """Positions of label names, −1 where there is none."""
    import pandas as pd

    found: np.ndarray = pd.Index(names).get_indexer(labels)
    return found


def _stack(rows: pd.DataFrame, K: int) -> np.ndarray:
    """The probabilities as one array (rows, K)."""
    import numpy as np

    lists = rows["probabilities"].to_list()
    if strange := next((len(one) for one in lists if len(one) != K), None):
        raise DataError(
            f"predictions: {strange} probabilities in a row, but {K} labels; give the schema they were made with"
        )
    found: np.ndarray = np.concatenate([np.empty(0), *lists]).reshape(-1, K)
    wrong = ~(
        np.isfinite(found).all(axis=1) & (found.min(axis=1, initial=0) >= 0) & (abs(found.sum(axis=1) - 1) < 1e-3)
    )
    if wrong.any():
        example = rows.loc[rows.index[wrong][0], "text_id"]
        raise DataError(
            f"predictions: {int(wrong.sum())} row(s) whose probabilities are none (text {example!r}); "
            "they must be at least 0 and sum to 1: apply softmax to logits"
        )
    return found


def _scored(rows: pd.DataFrame, K: int) -> _Scored:
    """The rows of one arm. A run is a seed, whose folds predict texts of their own, or else a fold and seed."""
    import numpy as np
    import pandas as pd

    run = ["seed"] if not rows.duplicated(["seed", "text_id"]).any() else ["fold", "seed"]
    numbers = rows.groupby(run, sort=True).ngroup().to_numpy()
    items = pd.factorize(rows["text_id"], sort=True)[0]
    return _Scored(numbers, items, rows["gold"].to_numpy(), _stack(rows, K), np.ones(len(rows)))


def _temperatures(
    dev: pd.DataFrame, arms: pd.DataFrame, names: list[str], schema: LabelSchema | None
) -> dict[Any, float]:
    """(student, arm, fold, seed) → temperature; NaN where dev fixes none."""
    columns = ["arm", "fold", "seed", "text_id"]
    labels = arms[arms["part"] == "dev"]
    labels = labels.assign(code=_codes(labels["target"].map(read_labels(labels["target"].unique(), schema)), names))
    labels = with_text_ids(labels[labels["code"] >= 0])
    found = {}
    for student, mine in dev.groupby("student", sort=True):
        own = labels[labels["student"].isin([student, "all"])] if "student" in labels else labels
        for run, rows in mine.merge(own[[*columns, "code"]], on=columns).groupby(_RUN, sort=True):
            found[run] = fit_temperature(_stack(rows, len(names)), rows["code"].to_numpy())
    return found


def _temperature_of(rows: pd.DataFrame, fitted: dict[Any, float]) -> tuple[np.ndarray, list[str]]:
    """The temperature of each row's run, 1 where it has none, and which runs those are."""
    import numpy as np

    runs = rows[_RUN].drop_duplicates()
    found = {run: fitted.get(run, float("nan")) for run in runs.itertuples(index=False, name=None)}
    lacking = [f"fold {fold}, seed {seed}" for (_, _, fold, seed), T in found.items() if np.isnan(T)]
    values = runs.assign(T=[1.0 if np.isnan(T) else T for T in found.values()])
    return rows[_RUN].merge(values, on=_RUN, how="left")["T"].to_numpy(), lacking


def _scopes(text_ids: pd.Series, strata: pd.Series | None) -> Iterator[tuple[str, np.ndarray]]:
    """(name, mask of the rows): all, then each stratum."""
    import numpy as np

    yield "all", np.ones(len(text_ids), dtype=bool)
    if strata is None:
        return
    strata = strata.dropna()
    values = text_ids.map(strata.set_axis(strata.index.map(str)))
    for value in sorted(values.dropna().unique()):
        yield f"{strata.name or 'stratum'} {value}", (values == value).to_numpy()


def _measures(scored: _Scored, bins: int, draws: int, seed: int) -> dict[str, Any]:
    """The columns of CALIBRATION: means over runs, and the interval of the ECE."""
    import numpy as np

    p, gold, rows = scored.probabilities, scored.gold, np.arange(len(scored.gold))
    S, n = int(scored.run.max()) + 1, int(scored.item.max()) + 1
    per_run = np.bincount(scored.run)

    def mean(values: np.ndarray) -> float:
        return float((np.bincount(scored.run, weights=values) / per_run).mean())

    of_gold = p[rows, gold]
    ece, low, high = _ece(scored, bins, draws, seed)
    return {
        "ece": ece, "ece_low": low, "ece_high": high,
        "brier": mean((p**2).sum(axis=1) - 2 * of_gold + 1),
        "log_loss": mean(-np.log(np.maximum(of_gold, _SMALLEST))),
        "accuracy": mean(p.argmax(axis=1) == gold), "confidence": mean(p.max(axis=1)),
        "temperature": float(np.exp(mean(np.log(scored.temperature)))), "S": S, "n": n,
    }  # fmt: skip


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    import numpy as np

    found: np.ndarray = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return found


def _ece(scored: _Scored, bins: int, draws: int, seed: int) -> tuple[float, float, float]:
    """ECE, the mean over runs, and its interval, which holds the estimate."""
    import numpy as np
    from scipy.sparse import csr_array

    confidence = scored.probabilities.max(axis=1)
    gap = (scored.probabilities.argmax(axis=1) == scored.gold) - confidence
    S, n = int(scored.run.max()) + 1, int(scored.item.max()) + 1
    cells = scored.run * bins + _bin_of(confidence, bins)
    gaps = csr_array((gap, (cells, scored.item)), shape=(S * bins, n))
    there = csr_array((np.ones(len(gap)), (scored.run, scored.item)), shape=(S, n))

    def per_run(weights: np.ndarray) -> np.ndarray:
        """Weights (n, draws) of the texts → ECE of each run (draws, S)."""
        sums = np.abs((gaps @ weights).reshape(S, bins, -1)).sum(axis=1)
        found: np.ndarray = (sums / np.maximum(there @ weights, 1.0)).T
        return found

    ece = float(per_run(np.ones((n, 1))).mean())
    rng = np.random.default_rng([seed, S, n])
    runs = rng.multinomial(S, np.full(S, 1 / S), size=draws) / S
    drawn = np.empty(draws)
    block = max(1, 2_000_000 // n)
    for start in range(0, draws, block):
        chosen = runs[start : start + block]
        weights = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in chosen], axis=1).astype(float)
        drawn[start : start + block] = (per_run(weights) * chosen).sum(axis=1)
    low, high = 2 * ece - np.quantile(drawn, [0.975, 0.025])
    if ece <= np.quantile(_ece_if_calibrated(scored, cells, min(draws, 200), rng), 0.975):
        low = 0.0
    return ece, max(0.0, min(low, ece)), max(high, ece)


def _ece_if_calibrated(scored: _Scored, cells: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The ECE that these confidences would show if each were the chance to be right (Bröcker and Smith 2007).

    Runs share the luck of a text, as if they all knew the same.
    """
    import numpy as np

    confidence, n = scored.probabilities.max(axis=1), int(scored.item.max()) + 1
    weight = 1 / (np.bincount(scored.run)[scored.run] * (scored.run.max() + 1))
    found = np.empty(draws)
    for draw in range(draws):
        gap = (rng.random(n)[scored.item] < confidence) - confidence
        found[draw] = np.abs(np.bincount(cells, weights=gap * weight)).sum()
    return found


def _bins(scored: _Scored, bins: int) -> Iterator[dict[str, Any]]:
    """The reliability diagram, all runs pooled."""
    import numpy as np

    confidence = scored.probabilities.max(axis=1)
    right = scored.probabilities.argmax(axis=1) == scored.gold
    places = _bin_of(confidence, bins)
    count = np.bincount(places, minlength=bins)
    for place in np.flatnonzero(count):
        inside = places == place
        yield {
            "bin": int(place), "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()), "share": count[place] / len(right),
        }  # fmt: skip
