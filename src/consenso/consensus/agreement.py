"""measure_agreement: how far annotators agree with each other and with themselves, with bootstrap intervals.

Sources: Cohen (1960); Fleiss (1971); Gwet (2014, Handbook of Inter-Rater Reliability, 4th ed.) for unequal numbers of
votes; Krippendorff (2011, Computing Krippendorff's Alpha-Reliability); Efron and Tibshirani (1993) for the percentile
interval.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from consenso.consensus.resampling import Resamples, apply_measure, find_patterns, percentile_interval, ratio, resample
from consenso.consensus.votematrix import CodedVotes, code_votes, label_sums, run_starts
from consenso.errors import ConfigError
from consenso.labels import LabelSchema
from consenso.tables import AGREEMENT, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

ALL = "all"
COLUMNS = 6000
"""Columns of sums that pairs of annotators may take at a time."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the result that share draws."""

    measure: str
    scopes: list[str]
    values: np.ndarray
    draws: np.ndarray
    n: np.ndarray


def measure_agreement(
    votes: pd.DataFrame, *, labels: LabelSchema | None = None, bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure agreement between annotators, and of each with itself, with 95 % bootstrap intervals over texts.

    Returns AGREEMENT: measure, scope, value, low, high, n (texts used). Between annotators, the vote of one on a text
    is the majority of its repetitions (a tie is a missing vote).

    - raw, cohen: scope "a × b" over the texts both voted on (pairs without one have no row); scope "all" is the mean
      over pairs (where defined).
    - fleiss, alpha: scope "all", over texts with at least two votes; see `fleiss_and_alpha`.
    - specific: scope = a label; the chance that a second annotator gives it to a text to which a first one gave it.
    - consistency: scope = an annotator with repeated votes; its mean share of the modal label over the texts with at
      least two; "all" is the mean over annotators.

    A measure that is undefined (chance agreement is certain, no text has two votes) is null, never 1.
    Raises `DataError` for an unknown vote label.
    """
    import numpy as np
    import pandas as pd

    if bootstrap < 0:
        raise ConfigError(f"bootstrap must be 0 (no intervals) or a number of draws; found {bootstrap}")
    coded = code_votes(votes, labels)
    single, consistency = collapse_repetitions(coded)
    parts = [*_between(single, bootstrap, seed), *_within(coded, consistency, bootstrap, seed)]
    frames = []
    for part in parts:
        low, high = percentile_interval(part.draws, part.n)
        columns = {"scope": part.scopes, "value": part.values, "low": low, "high": high, "n": part.n.astype(np.int64)}
        frames.append(pd.DataFrame({"measure": part.measure, **columns}))
    logger.info("agreement: %d annotators, %d texts, %d draws", len(coded.annotators), len(coded.text_ids), bootstrap)
    frame = pd.concat(frames, ignore_index=True)
    overall = frame["scope"].eq(ALL)
    return check(pd.concat([frame[overall], frame[~overall]], ignore_index=True), AGREEMENT)


def collapse_repetitions(votes: CodedVotes) -> tuple[CodedVotes, np.ndarray]:
    """Return one vote per annotator and text, and how consistent it was.

    The vote is the majority of the annotator's repetitions; a tie is dropped. The second value has a row
    (text, annotator, share of the modal label) per annotator and text with at least two valid votes.
    """
    import numpy as np

    A, K = len(votes.annotators), max(len(votes.labels), 1)
    cell = votes.text * A + votes.annotator
    first = run_starts(cell * K + votes.label)
    number = np.diff(np.r_[first, len(cell)])
    start = run_starts(cell[first])
    if not len(start):
        return votes, np.empty((0, 3))
    modal = np.maximum.reduceat(number, start)
    total = np.add.reduceat(number, start)
    size = np.diff(np.r_[start, len(number)])
    is_modal = number == np.repeat(modal, size)
    clear = np.add.reduceat(is_modal.astype(np.int64), start) == 1
    at = first[is_modal & np.repeat(clear, size)]
    single = replace(
        votes, text=votes.text[at], annotator=votes.annotator[at], label=votes.label[at], weight=np.ones(len(at))
    )
    again = total > 1
    where = first[start][again]
    return single, np.column_stack([votes.text[where], votes.annotator[where], modal[again] / total[again]])


def _between(single: CodedVotes, draws: int, seed: int) -> Iterator[_Rows]:
    first, sizes = find_patterns(single.text, single.annotator * max(len(single.labels), 1) + single.label)
    patterns = _one_text_each(single, first)
    resamples = resample(sizes, draws, [seed, 1])
    yield from _pairs(patterns, resamples)
    yield from _panel(patterns, resamples)


def _one_text_each(votes: CodedVotes, first: np.ndarray) -> CodedVotes:
    """Keep the first text of each pattern; its position becomes the pattern's."""
    import numpy as np

    start = run_starts(votes.text)
    size = np.diff(np.r_[start, len(votes.text)])
    chosen = size[first]
    offset = np.arange(chosen.sum()) - np.repeat(np.cumsum(chosen) - chosen, chosen)
    at = np.repeat(start[first], chosen) + offset
    return replace(
        votes,
        text_ids=votes.text_ids[votes.text[start[first]]],
        text=np.repeat(np.arange(len(first)), chosen),
        annotator=votes.annotator[at],
        label=votes.label[at],
        weight=np.ones(len(at)),
    )


# between two annotators


def _pairs(votes: CodedVotes, resamples: Resamples) -> Iterator[_Rows]:
    """Raw agreement and Cohen's kappa per pair and their means over pairs, block by block of pairs."""
    import numpy as np

    A, K = len(votes.annotators), len(votes.labels)
    text, left, right, one, other = _votes_in_common(votes)
    pair, start = np.unique(left * A + right, return_index=True)
    end = np.r_[start[1:], len(text)]
    block = max(1, COLUMNS // (1 + 2 * K))
    means = {name: _Mean(len(resamples.counts)) for name in ("raw", "cohen")}
    for at in range(0, len(pair), block):
        part = slice(start[at], end[min(at + block, len(pair)) - 1])
        P = len(pair[at : at + block])
        which = np.repeat(np.arange(P), (end - start)[at : at + block])
        columns = _pair_columns(text[part], which, one[part], other[part], (len(votes.text_ids), P, K))
        values, draws = apply_measure(resamples, columns, partial(_raw_and_cohen, P=P, K=K))
        n = np.bincount(which, weights=resamples.sizes[text[part]], minlength=P)
        scopes = [f"{votes.annotators[p // A]} × {votes.annotators[p % A]}" for p in pair[at : at + block]]
        for name, mine in (("raw", slice(0, P)), ("cohen", slice(P, 2 * P))):
            means[name].add(values[mine], draws[:, mine])
            yield _Rows(name, scopes, values[mine], draws[:, mine], n)
    n_all = np.array([resamples.sizes[np.bincount(votes.text, minlength=len(votes.text_ids)) > 1].sum()])
    for name, mean in means.items():
        yield _Rows(name, [ALL], *mean.result(), n_all)


def _votes_in_common(votes: CodedVotes) -> tuple[np.ndarray, ...]:
    """Return text, two annotators and their labels for every two votes on one text, sorted by the two annotators."""
    import numpy as np

    size = np.diff(np.r_[run_starts(votes.text), len(votes.text)])
    found = [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, int(size.max()) if len(size) else 0):
        at = np.flatnonzero(votes.text[step:] == votes.text[:-step])
        found.append(np.column_stack([at, at + step]))
    one, other = np.concatenate(found).T
    order = np.lexsort((votes.text[one], votes.annotator[other], votes.annotator[one]))
    one, other = one[order], other[order]
    return votes.text[one], votes.annotator[one], votes.annotator[other], votes.label[one], votes.label[other]


def _pair_columns(
    text: np.ndarray, pair: np.ndarray, one: np.ndarray, other: np.ndarray, shape: tuple[int, int, int]
) -> Any:
    """Return, per text: agreed (P), labels of the first (P·K) and of the second annotator (P·K), sparse."""
    import numpy as np
    from scipy.sparse import csr_array

    U, P, K = shape
    agreed = one == other
    row = np.concatenate([text[agreed], text, text])
    column = np.concatenate([pair[agreed], P + pair * K + one, P + P * K + pair * K + other])
    return csr_array((np.ones(len(row)), (row, column)), shape=(U, P * (1 + 2 * K)))


def _raw_and_cohen(sums: np.ndarray, P: int, K: int) -> np.ndarray:
    """κ = (p_o − p_e) / (1 − p_e), p_e = Σ_k p_k q_k (Cohen 1960); undefined where both always give the same label."""
    import numpy as np

    agreed = sums[:, :P]
    first = sums[:, P : P + P * K].reshape(-1, P, K)
    second = sums[:, P + P * K :].reshape(-1, P, K)
    n = first.sum(axis=2)
    chance = (first * second).sum(axis=2)
    return np.concatenate([ratio(agreed, n), ratio(n * agreed - chance, n * n - chance)], axis=1)


class _Mean:
    """The mean over columns where they are defined, gathered block by block."""

    def __init__(self, draws: int) -> None:
        import numpy as np

        self.sums, self.numbers = np.zeros(1 + draws), np.zeros(1 + draws)

    def add(self, values: np.ndarray, draws: np.ndarray) -> None:
        import numpy as np

        rows = np.concatenate([values[None, :], draws])
        defined = np.isfinite(rows)
        self.sums += np.where(defined, rows, 0.0).sum(axis=1)
        self.numbers += defined.sum(axis=1)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        mean = ratio(self.sums, self.numbers)
        return mean[:1], mean[1:, None]


# the panel as a whole


def _panel(votes: CodedVotes, resamples: Resamples) -> Iterator[_Rows]:
    import numpy as np

    K = len(votes.labels)
    counts = label_sums(votes, votes.weight)
    columns = panel_columns(counts)
    values, draws = apply_measure(resamples, columns, partial(fleiss_and_alpha, K=K))
    voters = counts.sum(axis=1)
    n = np.array([resamples.sizes[voters > 1].sum()])
    n_label = ((counts > 0) & (voters > 1)[:, None]).T @ resamples.sizes
    yield _Rows("fleiss", [ALL], values[:1], draws[:, :1], n)
    yield _Rows("alpha", [ALL], values[1:2], draws[:, 1:2], n)
    yield _Rows("specific", list(votes.labels), values[2:], draws[:, 2:], n_label)


def panel_columns(counts: np.ndarray) -> np.ndarray:
    """Return the sums over texts that `fleiss_and_alpha` reads, from the counts n_ik of text i and label k."""
    import numpy as np

    m = counts.sum(axis=1)
    several, voted = m > 1, m > 0
    alike = (counts * (counts - 1)).sum(axis=1)
    pairable = np.where(several[:, None], counts, 0.0)
    agreed = np.where(several, alike / np.where(several, m * (m - 1), 1), 0.0)
    disagreed = np.where(several, (m * (m - 1) - alike) / np.where(several, m - 1, 1), 0.0)
    scalar = np.column_stack([several, agreed, voted, disagreed]).astype(float)
    share = counts / np.where(voted, m, 1)[:, None]
    return np.hstack([scalar, share, pairable, counts * (counts - 1), counts * np.where(several, m - 1, 0)[:, None]])


def fleiss_and_alpha(sums: np.ndarray, K: int) -> np.ndarray:
    """Return Fleiss' kappa, Krippendorff's alpha and the K specific agreements from sums over texts.

    n_ik annotators gave text i the label k, m_i = Σ_k n_ik.

    Fleiss (1971), for unequal m_i as in Gwet (2014, ch. 2; R package irrCAC): κ = (p_a − p_e) / (1 − p_e), where p_a is
    the mean over texts with m_i ≥ 2 of Σ_k n_ik (n_ik − 1) / (m_i (m_i − 1)), and p_e = Σ_k π_k² with π_k the mean over
    texts with m_i ≥ 1 of n_ik / m_i. With equal m_i it is Fleiss' own.

    Krippendorff (2011), nominal: α = 1 − (n − 1) Σ_i Σ_{c≠k} n_ic n_ik / (m_i − 1) / Σ_{c≠k} n_c n_k, over the texts
    with m_i ≥ 2, n_k their votes for k and n = Σ_k n_k.

    Specific agreement (Fleiss 1971, the conditional probability): Σ_i n_ik (n_ik − 1) / Σ_i n_ik (m_i − 1).
    """
    import numpy as np

    several, agreed, voted, disagreed = (sums[:, i] for i in range(4))
    share, pairable, alike, possible = (sums[:, 4 + i * K : 4 + (i + 1) * K] for i in range(4))
    observed = ratio(agreed, several)
    chance = (ratio(share, voted[:, None]) ** 2).sum(axis=1)
    certain = chance > 1 - 1e-12
    fleiss = np.where(certain, np.nan, ratio(observed - chance, np.where(certain, 1.0, 1 - chance)))
    n = pairable.sum(axis=1)
    alpha = 1 - ratio((n - 1) * disagreed, n * n - (pairable**2).sum(axis=1))
    return np.column_stack([fleiss, alpha, ratio(alike, possible)])


def alpha_of(votes: CodedVotes) -> float:
    """Return Krippendorff's alpha (nominal) of coded votes; NaN where undefined."""
    single, _ = collapse_repetitions(votes)
    columns = panel_columns(label_sums(single, single.weight))
    return float(fleiss_and_alpha(columns.sum(axis=0, keepdims=True), len(votes.labels))[0, 1])


# each annotator with itself


def _within(votes: CodedVotes, consistency: np.ndarray, draws: int, seed: int) -> Iterator[_Rows]:
    import numpy as np
    from scipy.sparse import csr_array

    if not len(consistency):
        return
    text, annotator = consistency[:, 0].astype(np.int64), consistency[:, 1].astype(np.int64)
    repeated, annotator = np.unique(annotator, return_inverse=True)
    share, code = np.unique(consistency[:, 2], return_inverse=True)
    first, sizes = find_patterns(text, annotator * len(share) + code)
    resamples = resample(sizes, draws, [seed, 2])
    pattern = np.full(len(votes.text_ids), -1)
    pattern[text[run_starts(text)][first]] = np.arange(len(first))
    row = pattern[text]
    kept, A = row >= 0, len(repeated)
    columns = csr_array(
        (
            np.concatenate([share[code][kept], np.ones(kept.sum())]),
            (np.tile(row[kept], 2), np.concatenate([annotator[kept], A + annotator[kept]])),
        ),
        shape=(len(first), 2 * A),
    )
    values, drawn = apply_measure(resamples, columns, lambda sums: ratio(sums[:, :A], sums[:, A:]))
    n = np.bincount(annotator, minlength=A)
    yield _Rows("consistency", [votes.annotators[a] for a in repeated], values, drawn, n)
    mean = _Mean(draws)
    mean.add(values, drawn)
    yield _Rows("consistency", [ALL], *mean.result(), np.array([sizes.sum()]))
