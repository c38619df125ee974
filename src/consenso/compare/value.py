"""labels_worth: how many human labels the consensus is worth, and from which price of a human label on it pays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from consenso.compare.accounts import Account, Row, plain_row
from consenso.compare.contrasts import FLOORS
from consenso.compare.costs import spent
from consenso.compare.curves import Curve, curves
from consenso.compare.gains import floor_gain
from consenso.compare.metrics import METRIC_NAMES
from consenso.compare.prices import break_even, cost_per_point, cost_rows, money_saved
from consenso.compare.rows import arms_in, as_table
from consenso.compare.runs import Runs, gold_labels, read_runs
from consenso.compare.verdict import Replication, counted
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from consenso.settings import Settings
from consenso.tables import VALUE, with_text_ids

if TYPE_CHECKING:
    import pandas as pd


class ValueSettings(Settings):
    """What labels cost, and how their worth is estimated."""

    price_of_human_label: float | None = Field(default=None, ge=0)
    """What one human label costs, in `currency`; null: the break-even price is reported and no sum of money saved."""
    audit: int = Field(default=200, ge=0)
    """Human labels of a random sample of training texts that the consensus must be checked with: they count as used."""
    currency: str = "USD"
    """The currency of the votes' costs and of the price; a name, nothing is converted."""
    draws: int = Field(default=1000, ge=100)
    """Bootstrap draws behind the interval of n*."""


def labels_worth(
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    *,
    arms: pd.DataFrame | None = None,
    arm: str = "consensus",
    metric: str = "macro_f1",
    schema: LabelSchema | None = None,
    votes: pd.DataFrame | None = None,
    annotators: Sequence[str] | None = None,
    folds: pd.DataFrame | None = None,
    human_labels_used: int = 0,
    audited: tuple[int, int] | None = None,
    replication: Replication = "seed",
    settings: ValueSettings | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Return VALUE rows per student: n*, human labels saved, audit, cost of the LLM labels, break-even price, …

    n* is where the isotonic curve over `gold@n` and `gold` first reaches the score of `arm` (a line in log n between
    points); its 95 % interval comes from a parametric bootstrap over seeds and test texts, of curve and arm together.
    `arms`: ARMS (the size of `gold`, the labels that an audit looks at). `votes`: VOTES with costs; `annotators`: whose
    votes `arm` is made of (all by default: of `single:a` it is `a`); `folds`: FOLDS, so that votes on test texts cost
    nothing. `human_labels_used`: texts whose gold went into prompts or consensus; those of `arm` that a human reviewed,
    train and dev, are added. `audited`: (correct, looked at) of an audit that was made; by default one of
    `settings.audit` training texts is simulated with their gold. `replication`: what a seed of the predictions draws.

    Where n* is below the curve, `value` is null and `high` bounds it; where it is above, `beyond` is true and `value`
    is a lower bound; a null `high` is not bounded by what was tried. A student with fewer than two points on the curve
    has no n* and no row that follows from it; one without `arm` has no row. Raises `ConfigError` for an unknown metric,
    `DataError` for a wrong table.
    """
    settings = settings or ValueSettings()
    found = dict(curves(predictions, gold, arms=arms, metric=metric, schema=schema, other=arm))
    if arm not in arms_in(predictions):
        return as_table([], VALUE)
    runs = read_runs(predictions[predictions["arm"].isin([arm, "gold", *FLOORS])], gold, schema)
    labelled, audit, reviewed = _labelled(arms, arm), audited, _reviewed(arms, arm)
    if labelled is not None:
        audit = audited or _audit(labelled, gold_labels(gold, schema), settings.audit, seed)
    for_labels = human_labels_used + reviewed
    used = for_labels + (audit[1] if audit and audit[1] else settings.audit)
    cost = None if votes is None else spent(votes, folds=folds, annotators=annotators)
    paid = None if cost is None else cost.cost
    rows: list[Row] = []
    for student in (name for name in runs.students() if arm in runs.arms(name)):
        curve, account, board = found.get(student), None, runs.arms(student)
        if curve is not None and len(curve.n) > 1:
            account = Account(arm, metric, curve, curve.worth(settings.draws, seed), used)
        made = [_used(arm, used, for_labels)]
        if account is not None:
            made = [_worth(account, replication), *made, _saved(account)]
        if audit is not None and audit[1]:
            made.append(_audited(arm, audit, simulated=audited is None))
        made += [] if cost is None else cost_rows(cost, settings.currency)
        if account is not None and paid is not None:
            made += _priced(account, paid, settings)
        if paid is not None:
            made += _per_point(arm, metric, paid, settings, board, runs, curve)
        rows += [{"student": student, **row} for row in made]
    return as_table(rows, VALUE)


def _priced(account: Account, paid: float, settings: ValueSettings) -> Iterator[Row]:
    """Yield what follows from n* and a known cost: the break-even price, money saved."""
    yield break_even(account, paid, settings.currency)
    if settings.price_of_human_label is not None:
        yield money_saved(account, paid, settings.price_of_human_label, settings.currency)


def _per_point(  # noqa: PLR0917
    arm: str,
    metric: str,
    paid: float,
    settings: ValueSettings,
    board: dict[str, dict[Any, int]],
    runs: Runs,
    curve: Curve | None,
) -> Iterator[Row]:
    """Yield the cost of a point over the floor: with the arm's labels, and with those of `gold` at their price."""
    price, currency = settings.price_of_human_label, settings.currency
    if (found := floor_gain(runs, board, arm, metric)) is not None:
        yield cost_per_point("cost_per_point", metric, paid, found, currency, arm=arm)
    if price is None or curve is None or curve.names[-1] != "gold":
        return
    if (found := floor_gain(runs, board, "gold", metric)) is not None:
        yield cost_per_point("human_cost_per_point", metric, price * int(curve.n[-1]), found, currency, arm="gold")


def _worth(account: Account, replication: Replication) -> Row:
    star, low, high = account.star
    score = f"{METRIC_NAMES.get(account.metric, account.metric)} of {account.curve.score:.3f}"
    if star == math.inf:
        said = f"more than {account.most:,} human labels, the most that were tried: their {score} is above the curve"
    elif star == 0:
        said = (
            f"fewer than {account.least:,} human labels, the fewest that were tried: their {score} is below the curve"
        )
    else:
        said = f"{star:,.0f} human labels: with so many, the learning curve reaches their {score}"
    interval = f"95 % interval {_at(low, account)} to {_at(high, account)}"
    luck = ", whose luck the interval does not know" if account.curve.seeds == 1 else ""
    size = f"{counted(account.curve.seeds, replication)}{luck}"
    sentence = f"The labels of {account.arm} are worth {said} ({interval}; {size})."
    return account.row("human_labels_worth", "human labels", sentence, lambda n: n)


def _at(n: float, account: Account) -> str:
    if n == 0:
        return f"fewer than {account.least:,}"
    return f"more than {account.most:,}" if n == math.inf else f"{n:,.0f}"


def _used(arm: str, used: int, for_labels: int) -> Row:
    parts = f"{for_labels:,} for prompts, consensus or review, {used - for_labels:,} for the audit"
    said = f"The labels of {arm} still use {used:,} human labels: {parts}."
    return plain_row("human_labels_used", used, "human labels", said)


def _saved(account: Account) -> Row:
    star = account.star[0]
    saved = min(star, account.most) - account.used
    if star == math.inf and saved <= 0:
        said = f"Whether a human label is saved is not known: n* is beyond the curve, and {account.used:,} are used."
    elif star == 0:
        said = f"Fewer than {account.least:,} human labels would do as well, and {account.used:,} are used"
        said += "." if account.least > account.used else ": none is saved."
    elif saved <= 0:
        said = f"No human label is saved: {star:,.0f} would do as well, and {account.used:,} are used."
    else:
        more = "more than " if star == math.inf else ""
        said = f"They save {more}{saved:,.0f} human labels, after the {account.used:,} that are used."
    return account.row("human_labels_saved", "human labels", said, lambda n: n - account.used)


def _audit(labelled: pd.DataFrame, truth: pd.Series, size: int, seed: int) -> tuple[int, int]:
    """(right labels, labels looked at) of a random sample of the texts whose human label is known."""
    import numpy as np

    known = labelled.assign(gold=labelled["text_id"].map(truth)).dropna(subset="gold")
    right = (known["target"] == known["gold"]).to_numpy()
    drawn = np.random.default_rng(seed).choice(len(right), size=min(size, len(right)), replace=False)
    return int(right[drawn].sum()), len(drawn)


def _labelled(arms: pd.DataFrame | None, arm: str) -> pd.DataFrame | None:
    """text_id and target of the arm's training texts, each once; None where the arm is not in the table."""
    if arms is None:
        return None
    mine = arms.loc[(arms["arm"] == arm) & (arms["part"] == "train"), ["text_id", "target"]]
    return with_text_ids(mine).drop_duplicates("text_id").sort_values("text_id") if len(mine) else None


def _reviewed(arms: pd.DataFrame | None, arm: str) -> int:
    """Distinct texts of an arm, train and dev, whose label a human gave in review; the mean over folds."""
    if arms is None:
        return 0
    mine = with_text_ids(arms.loc[arms["arm"] == arm, ["fold", "text_id", "source"]])
    folds = mine["fold"].nunique()
    return round(len(mine[mine["source"] == "human"].drop_duplicates(["fold", "text_id"])) / folds) if folds else 0


def _audited(arm: str, audit: tuple[int, int], *, simulated: bool) -> Row:
    correct, total = audit
    low, high = wilson(correct, total)
    said = (
        f"{'A simulated' if simulated else 'The'} audit of {total:,} random training texts finds {100 * correct / total:.1f} % "
        f"of the labels of {arm} right (95 % interval {100 * low:.1f} to {100 * high:.1f} %)."
    )
    return plain_row("audit_accuracy", correct / total, "share", said, low=low, high=high)
