"""What the votes cost: in all, per text and in tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from consenso.tables import FOLDS, check, with_text_ids

if TYPE_CHECKING:
    import pandas as pd


_COLUMNS = ("text_id", "annotator", "cost", "tokens_in", "tokens_out")


@dataclass(frozen=True)
class Spent:
    """What the labels of the train and dev texts of one fold cost (with several folds: their mean)."""

    cost: float | None
    """In the currency of the votes; None where some annotator's cost is unknown."""
    texts: float
    """Texts with a vote, labelled or not."""
    tokens_in: float | None
    """Prompt tokens; None where some annotator's are unknown."""
    tokens_out: float | None
    """Reply tokens."""
    unknown: tuple[str, ...]
    """Annotators without any known cost."""

    @property
    def per_text(self) -> float | None:
        """Return the cost of labelling one text."""
        return None if self.cost is None or not self.texts else self.cost / self.texts


def spent(
    votes: pd.DataFrame, *, folds: pd.DataFrame | None = None, annotators: Collection[str] | None = None
) -> Spent:
    """Add up the VOTES, all repetitions, of the named annotators (by default of all).

    `folds`: FOLDS; only its train and dev texts count, so that votes on test texts, which no user needs, cost nothing.
    An annotator without any cost (tokens) has an unknown one, and so has the sum. A single missing cost beside known
    ones, as of a request that failed, counts as 0.
    """
    votes = with_text_ids(votes[[name for name in _COLUMNS if name in votes]])
    if annotators is not None:
        votes = votes[votes["annotator"].isin(list(annotators))]
    times, per_fold = 1, ["text_id"]
    if folds is not None:
        seen = with_text_ids(check(folds, FOLDS))
        times, per_fold = seen["fold"].nunique(), ["fold", "text_id"]
        votes = votes.merge(seen.loc[seen["part"] != "test", per_fold], on="text_id")
    silent = set(annotators or ()) - set(votes["annotator"])
    unknown = sorted({*_without(votes, "cost"), *silent})
    return Spent(
        cost=None if unknown or not len(votes) else float(votes["cost"].sum()) / times,
        texts=len(votes.drop_duplicates(per_fold)) / times,
        tokens_in=_sum(votes, "tokens_in", times),
        tokens_out=_sum(votes, "tokens_out", times),
        unknown=tuple(unknown),
    )


def _without(votes: pd.DataFrame, name: str) -> list[str]:
    """The annotators without a single value in a column."""
    if name not in votes:
        return sorted(votes["annotator"].unique())
    known = votes[name].notna().groupby(votes["annotator"]).any()
    return sorted(known.index[~known])


def _sum(votes: pd.DataFrame, name: str, times: int) -> float | None:
    return None if not len(votes) or _without(votes, name) else float(votes[name].sum()) / times


def money(value: float, currency: str) -> str:
    """Return an amount: cents, and below 0.1 two digits that are not 0."""
    text = f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else format(Decimal(f"{value:.2g}"), "f")
    return f"{text} {currency}"
