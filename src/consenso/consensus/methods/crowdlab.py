"""CROWDLAB: the annotators' votes and a classifier's probabilities, each weighted by how far it can be trusted.

Source: Goh, Tkachenko and Mueller (2022), arXiv 2210.06812, and cleanlab 2.9, whose function
`multiannotator.get_label_quality_multiannotator` gives the same numbers but for what `crowdlab` lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.votematrix import label_sums, run_starts
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

LEAST = 1e-6
"""The smallest weight, and the smallest error of a guess, as in cleanlab."""
EQUAL = 1e-9
"""Numbers closer than this are equal."""


def crowdlab(votes: CodedVotes, options: Options) -> Shares:
    """Return the weighted mean of the votes and `options.probabilities`; `Shares.weights`: what annotators weigh, (A,).

    With L how often votes agree with majority's labels, a vote gives its label L and each other one (1 − L) / (K − 1).
    With e the error of always guessing the commonest of these labels, annotator a weighs 1 − (disagreement with others)
    / e, and the classifier 1 − (its error) / e, times √(annotators per text). L, e and the errors are taken over texts
    of several annotators.

    The labels are those of cleanlab; the scores are its with `consensus_method="majority_vote"`. Its other scores come
    from a second round on the labels of the first, in which the classifier confirms itself; we do not make it. Other
    differences: the repetitions of an annotator share one vote; a text without probabilities (NaN) rests on its votes;
    one without votes stays zero; a tie of majority that nothing breaks counts in parts, not drawn; where no text has
    several annotators, L and all weights are 1.

    Raises `ConfigError` if the probabilities are missing, or are not (n, K) chances in rows of sum 1.
    """
    probabilities = _checked(votes, options.probabilities)
    sums = label_sums(votes, votes.weight)
    if not len(votes.text):
        return Shares(sums)
    majority = _majority(votes, sums, probabilities)
    values, weights = weighted_mean(votes, sums, probabilities, majority)
    values[sums.sum(axis=1) == 0] = 0.0
    return Shares(values, weights=weights)


def _checked(votes: CodedVotes, probabilities: np.ndarray | None) -> np.ndarray:
    import numpy as np

    if probabilities is None:
        raise ConfigError("method 'crowdlab' needs a classifier's out-of-sample probabilities; none are given")
    if probabilities.shape != votes.shape:
        raise ConfigError(
            f"probabilities: expected a row per text and a column per label, {votes.shape}; found {probabilities.shape}"
        )
    known = probabilities[~np.isnan(probabilities).all(axis=1)]
    if not ((known >= 0).all() and np.allclose(known.sum(axis=1), 1, rtol=0, atol=1e-3)):
        raise ConfigError("probabilities: each row must hold numbers from 0 to 1 that sum to 1, or only NaN")
    return probabilities


def _agreement(votes: CodedVotes, sums: np.ndarray) -> np.ndarray:
    """Return how often the others on the same texts agree with each annotator, (A,); NaN: with nobody."""
    import numpy as np

    K, A = sums.shape[1], len(votes.annotators)
    cell = votes.text * A + votes.annotator
    others = sums.sum(axis=1)[votes.text] - _within(cell, votes.weight)
    same = sums[votes.text, votes.label] - _within(cell * K + votes.label, votes.weight)
    possible, found = (np.bincount(votes.annotator, votes.weight * each, minlength=A) for each in (others, same))
    agreement: np.ndarray = np.divide(found, possible, out=np.full(A, np.nan), where=possible > EQUAL)
    return agreement


def _within(ordered: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return, for each entry of a sorted array, the weight of all entries that equal it."""
    import numpy as np

    start = run_starts(ordered)
    if len(start) == len(ordered):
        return weight
    return np.repeat(np.add.reduceat(weight, start), np.diff(np.r_[start, len(ordered)]))


def _majority(votes: CodedVotes, sums: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return majority's labels as shares, (n, K); ties go by the probabilities, the rarer label, trust, then in parts."""
    import numpy as np

    label = modes = _largest(sums)
    label = _break(label, lambda rows: np.nan_to_num(probabilities[rows]))
    label = _break(label, lambda rows: np.broadcast_to(-sums.sum(axis=0), (len(rows), sums.shape[1])))
    label = _break(label, lambda rows: _trust(votes, sums, modes, label)[rows])
    shares: np.ndarray = label / label.sum(axis=1, keepdims=True)
    return shares


def _largest(values: np.ndarray) -> np.ndarray:
    """Return where each row is largest."""
    import numpy as np

    return np.asarray(values >= values.max(axis=1, keepdims=True) - EQUAL)


def _break(label: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return `label` with those of tied labels alone that measure most; `measure`: rows → (rows, K)."""
    import numpy as np

    rows = np.flatnonzero(label.sum(axis=1) > 1)
    if not len(rows):
        return label
    settled = label.copy()
    settled[rows] = _largest(np.where(label[rows], measure(rows), -np.inf))
    return settled


def _trust(votes: CodedVotes, sums: np.ndarray, modes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return for each text and label the mean, over who gave it, of how often they hit a clear majority, (n, K)."""
    import numpy as np

    A = len(votes.annotators)
    clear = votes.weight * (modes.sum(axis=1) == 1)[votes.text]
    total = np.bincount(votes.annotator, clear, minlength=A)
    hits = np.bincount(votes.annotator, clear * modes[votes.text, votes.label], minlength=A)
    rate = np.divide(hits, total, out=np.full(A, np.nan), where=total > 0)
    rate = np.where(total > 0, rate, rate[total > 0].mean() if total.any() else 0.0)
    given = label_sums(votes, votes.weight * rate[votes.annotator])
    trust: np.ndarray = np.divide(given, sums, out=np.zeros_like(sums), where=label & (sums > 0))
    return trust


def weighted_mean(
    votes: CodedVotes, sums: np.ndarray, probabilities: np.ndarray, consensus: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean, (n, K), and what annotators weigh, (A,), given the consensus, (n, K)."""
    import numpy as np

    number, K = sums.sum(axis=1), sums.shape[1]
    known = ~np.isnan(probabilities[:, 0])
    likely, weights, model = 1.0, np.ones(len(votes.annotators)), 1.0
    if (several := number > 1 + EQUAL).any():
        likely = float(((consensus * sums).sum(axis=1)[several] / number[several]).mean())
        guess = max(1 - consensus[several].mean(axis=0).max(), LEAST)
        agreement = _agreement(votes, sums)
        overlap = ~np.isnan(agreement)
        agreement = np.where(overlap, agreement, agreement[overlap].mean() if overlap.any() else 1.0)
        weights = np.maximum(1 - (1 - agreement) / guess, LEAST)
        model = max(1 - _error(probabilities, consensus, several & known) / guess, LEAST) * np.sqrt(
            number[number > 0].mean()
        )
    given = label_sums(votes, votes.weight * weights[votes.annotator])
    total = given.sum(axis=1, keepdims=True)
    spread = (1 - likely) / max(K - 1, 1)
    values = given * (likely - spread) + total * spread + model * np.nan_to_num(probabilities)
    whole = total + model * known[:, None]
    return np.divide(values, whole, out=values, where=whole > 0), weights


def _error(probabilities: np.ndarray, consensus: np.ndarray, rows: np.ndarray) -> float:
    """Return how often the classifier's label is not the consensus; 1 where it says nothing."""
    if not rows.any():
        return 1.0
    top = _largest(probabilities[rows])
    return float(1 - ((consensus[rows] * top).sum(axis=1) / top.sum(axis=1)).mean())
