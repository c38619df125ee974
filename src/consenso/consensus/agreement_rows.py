"""The rows of an agreement table: each measure's values with their intervals, by the jackknife or by resampling texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from consenso.consensus.intervals_of_sums import (
    agreement_interval,
    change,
    jackknife_error,
    jackknife_error_within,
    left_out_means,
    share_interval,
)
from consenso.consensus.pair_agreement import (
    DistinctVotes,
    PairMeasure,
    PairTables,
    distinct_votes,
    means_over_pairs,
    pair_draws,
    pair_intervals,
    pair_tables,
    raw_and_cohen,
)
from consenso.consensus.panel_agreement import (
    MEASURES,
    Panel,
    effective_votes,
    ordinal_draws,
    ordinal_left_out,
    ordinal_value,
    panel_draws,
    panel_of,
    panel_values,
    specific_entries,
)
from consenso.consensus.resampling import Resamples, apply_measure, find_alike, percentile_interval, ratio, resample
from consenso.consensus.votematrix import CodedVotes, run_starts

if TYPE_CHECKING:
    import numpy as np

Scale = Literal["nominal", "ordinal", "interval"]
Intervals = Literal["auto", "jackknife", "bootstrap"]
ALL = "all"
MOST_PAIRS = 5000
"""Pairs of annotators that get a row; 100 annotators make 4,950 pairs."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one measure."""

    measure: str
    scopes: list[str]
    values: np.ndarray
    interval: tuple[np.ndarray, np.ndarray]
    n: np.ndarray


@dataclass(frozen=True)
class Choice:
    """How intervals are made."""

    draws: int
    """Of the bootstrap."""
    seed: int
    jackknife: bool

    def resample(self, sizes: np.ndarray, stream: int) -> Resamples:
        """Draw texts; none for the jackknife."""
        return resample(sizes.astype("int64"), 0 if self.jackknife else self.draws, [self.seed, stream])


# between two annotators


def pair_rows(single: CodedVotes, choice: Choice) -> Iterator[Rows]:
    """Yield raw agreement and Cohen's kappa: their means over all pairs, and the pairs with the most texts."""
    import numpy as np

    distinct = distinct_votes(single)
    tables = pair_tables(distinct)
    measures = raw_and_cohen(tables)
    if choice.jackknife:
        intervals = {name: pair_intervals(name, measure, tables) for name, measure in measures.items()}
        means = means_over_pairs(measures, tables, distinct)
    else:
        intervals, means = _resampled_pairs(measures, distinct, tables, choice.resample(distinct.sizes, 1))
    kept = (-tables.n).argsort(kind="stable")[:MOST_PAIRS]
    kept.sort()
    A = len(single.annotators)
    scopes = [f"{single.annotators[pair // A]} × {single.annotators[pair % A]}" for pair in tables.pairs[kept]]
    for name, measure in measures.items():
        low, high = intervals[name]
        mean, mean_low, mean_high = means[name]
        yield Rows(name, [ALL], mean, (mean_low, mean_high), np.array([distinct.several]))
        yield Rows(name, scopes, measure.values[kept], (low[kept], high[kept]), tables.n[kept])


def _resampled_pairs(
    measures: dict[str, PairMeasure], distinct: DistinctVotes, tables: PairTables, resamples: Resamples
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Return the intervals of each pair, and the mean over pairs with its own."""
    import numpy as np

    intervals = {name: (np.empty(len(tables.pairs)), np.empty(len(tables.pairs))) for name in measures}
    sums = {name: np.zeros((len(resamples.counts), 2)) for name in measures}
    for at, drawn in pair_draws(distinct, tables, resamples):
        for name, draws in drawn.items():
            intervals[name][0][at], intervals[name][1][at] = percentile_interval(draws, tables.n[at])
            defined = np.isfinite(draws)
            sums[name] += np.column_stack([np.where(defined, draws, 0.0).sum(axis=1), defined.sum(axis=1)])
    means = {}
    for name, measure in measures.items():
        defined = np.isfinite(measure.values)
        mean = ratio(measure.values[defined].sum(keepdims=True), defined.sum(keepdims=True))
        draws = ratio(*sums[name].T)[:, None]
        means[name] = (mean, *percentile_interval(draws, np.array([distinct.several])))
    return intervals, means


# the panel as a whole


def panel_rows(single: CodedVotes, choice: Choice, scale: Scale, votes_per_text: float) -> Iterator[Rows]:
    """Yield the measures over all annotators, effective votes, and specific agreement by label."""
    import numpy as np

    panel = panel_of(single)
    n = np.array([panel.sizes[panel.votes > 1].sum()])
    resamples = choice.resample(panel.sizes, 2)
    values, left_out, worst = panel_values(panel)
    error = jackknife_error(left_out, panel.sizes)
    low, high = agreement_interval(values, error, np.repeat(n, len(values)), worst)
    if not choice.jackknife:
        low, high = percentile_interval(panel_draws(panel, resamples.counts), np.repeat(n, len(values)))
    for k, name in enumerate(MEASURES):
        if name != "alpha_interval" or scale == "interval":
            yield Rows(name, [ALL], values[k : k + 1], (low[k : k + 1], high[k : k + 1]), n)
    if scale != "nominal":
        yield _ordinal(panel, choice, resamples, n)
    alpha = MEASURES.index("alpha")
    worth = [np.array([effective_votes(votes_per_text, end[alpha])]) for end in (values, high, low)]
    yield Rows("effective_votes", [ALL], worth[0], (worth[1], worth[2]), n)
    yield _specific(panel, choice, resamples, list(single.labels))


def _ordinal(panel: Panel, choice: Choice, resamples: Resamples, n: np.ndarray) -> Rows:
    import numpy as np

    value, worst = (np.array([number]) for number in ordinal_value(panel))
    if choice.jackknife:
        error = jackknife_error(ordinal_left_out(panel), panel.sizes)
        interval = agreement_interval(value, error, n, worst)
    else:
        interval = percentile_interval(ordinal_draws(panel, resamples.counts), n)
    return Rows("alpha_ordinal", [ALL], value, interval, n)


def _specific(panel: Panel, choice: Choice, resamples: Resamples, labels: list[str]) -> Rows:
    """Σ_i n_ik (n_ik − 1) / Σ_i n_ik (m_i − 1) of each label k."""
    import numpy as np
    from scipy.sparse import csr_array

    K = len(labels)
    kind, label, alike, possible = specific_entries(panel)
    sizes = panel.sizes[kind]
    n, agreed, voted = (np.bincount(label, weights=sizes * add, minlength=K) for add in (1.0, alike, possible))
    values = ratio(agreed, voted)
    if choice.jackknife:
        left_out = ratio(agreed[label] - alike, voted[label] - possible)
        interval = share_interval(values, jackknife_error_within(left_out, sizes, label, K), n)
    else:
        cells = np.r_[alike, possible], (np.tile(kind, 2), np.r_[label, K + label])
        columns = csr_array(cells, shape=(len(panel.sizes), 2 * K))
        draws = apply_measure(resamples, columns, lambda sums: ratio(sums[:, :K], sums[:, K:]))[1]
        interval = percentile_interval(draws, n)
    return Rows("specific", labels, values, interval, n)


# each annotator with itself


def within_rows(votes: CodedVotes, consistency: np.ndarray, choice: Choice) -> Iterator[Rows]:
    """Yield consistency by annotator, and its mean, from the rows of `collapse_repetitions`; none without repetitions."""
    import numpy as np

    if not len(consistency):
        return
    text, annotator = consistency[:, 0].astype(np.int64), consistency[:, 1].astype(np.int64)
    share = consistency[:, 2]
    repeated, annotator = np.unique(annotator, return_inverse=True)
    scopes = [votes.annotators[a] for a in repeated]
    n, total = np.bincount(annotator), np.bincount(annotator, weights=share)
    texts = np.array([len(run_starts(text))])
    values = total / n
    if choice.jackknife:
        left_out = ratio(total[annotator] - share, n[annotator] - 1)
        error = jackknife_error_within(left_out, np.ones(len(text)), annotator, len(n))
        kind = np.unique(text, return_inverse=True)[1]
        changes = (np.bincount(kind, weights=by_text) for by_text in change(left_out, values[annotator]))
        mean, left_out = left_out_means(values, *changes)
        mean_error = jackknife_error(left_out[:, None], np.ones(len(left_out)))
        interval, mean_interval = share_interval(values, error, n), share_interval(np.array([mean]), mean_error, texts)
    else:
        draws = _resampled_consistency(text, annotator, share, choice)
        defined = np.isfinite(draws)
        means = ratio(np.where(defined, draws, 0.0).sum(axis=1), defined.sum(axis=1))
        interval, mean_interval = percentile_interval(draws, n), percentile_interval(means[:, None], texts)
    yield Rows("consistency", scopes, values, interval, n)
    yield Rows("consistency", [ALL], np.array([values.mean()]), mean_interval, texts)


def _resampled_consistency(text: np.ndarray, annotator: np.ndarray, share: np.ndarray, choice: Choice) -> np.ndarray:
    """Return each annotator's consistency on resampled texts, (draws, annotators)."""
    import numpy as np
    from scipy.sparse import csr_array

    _, kind = np.unique(share, return_inverse=True)
    first, sizes = find_alike(text, annotator * (kind.max() + 1) + kind)
    start = run_starts(text)
    pattern = np.full(text.max() + 1, -1)
    pattern[text[start[first]]] = np.arange(len(first))
    row, A = pattern[text], int(annotator.max()) + 1
    kept = row >= 0
    cells = (
        np.r_[share[kept], np.ones(kept.sum())],
        (np.tile(row[kept], 2), np.r_[annotator[kept], A + annotator[kept]]),
    )
    columns = csr_array(cells, shape=(len(first), 2 * A))
    return apply_measure(choice.resample(sizes, 3), columns, lambda sums: ratio(sums[:, :A], sums[:, A:]))[1]
