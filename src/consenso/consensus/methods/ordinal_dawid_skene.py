"""Ordinal Dawid–Skene: for ordered labels, where errors are mostly near the truth.

Sources: a bias and a scale per annotator: Uebersax and Grove (1993), Biometrics 49; Rogers, Girolami and Polajnar (2010),
Statistics and Computing 20; Lakshminarayanan and Teh (2013), arXiv 1305.0015. Here they shape the prior of each
annotator's confusion matrix, which its votes can overrule (our own combination; docs/consensus.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.dawid_skene import TOLERANCE, expect, not_converged, shares_of
from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import find_patterns
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

SCALE = 0.5
"""The scale of an annotator without votes, in steps between labels: it is right about 4 times in 5."""
LEAST = 0.1
"""The smallest scale that is expected of anyone."""
VOTES = 10.0
"""How many votes without bias and with scale SCALE are added to each annotator's."""
ANYWHERE = 0.05
"""The share of the prior that is spread evenly: some errors are not near the truth."""

FIRST = 10
"""Plain iterations before the first leap: leaps from far away may land at a lesser maximum."""
LONGEST = 16.0
"""The longest leap, in iterations."""
LOWEST = -40.0
"""The smallest log of a chance, relative to the column's largest, after a leap."""
MOST = 1 << 25
"""The largest table of matrices, in numbers (256 MB)."""
CELLS = 1 << 24
"""Tables of matrices with more cells are iterated without leaps, which keep three of them."""


def ordinal_dawid_skene(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label, with matrices whose errors are expected near the truth; labels in order.

    Where the truth is k, annotator a is expected to give labels as a normal around k + bias_a with its scale_a would,
    taken at the labels. This counts as `pseudo_votes(K)` of each column of its matrix; with many votes the matrix is
    free, as in dawid_skene_map. EM from the vote shares; each M step first takes bias and scale from the expected
    distances of votes and truth, then the matrices from votes and pseudo-votes, then the prevalence (one pseudo-text
    per label), and after every third step EM leaps ahead (`_leap`). With two labels there is no near and far, and
    nothing is gained.
    """
    import numpy as np

    if not len(votes.text):
        return Shares(np.zeros(votes.shape))
    patterns, K, A = find_patterns(votes), len(votes.labels), len(votes.annotators)
    if A * K * K > MOST:
        raise ConfigError(
            f"ordinal_dawid_skene holds a matrix per annotator, and {A} annotators × {K} × {K} labels are too many; "
            "choose dawid_skene_map"
        )
    number, by_cell = patterns.number, patterns.votes.tocsc()
    weighted = patterns.votes.multiply(number[:, None]).tocsr().T
    posterior = shares_of(patterns, K)
    confusion, prevalence = np.zeros((A, K, K)), np.full(K, 1 / K)
    change, made, path = np.inf, 0, list[np.ndarray]()
    while made < options.iterations and change >= TOLERANCE:
        prevalence = (posterior @ number + 1) / (number.sum() + K)
        counts = (weighted @ np.ascontiguousarray(posterior.T)).reshape(A, K, K)
        confusion = _matrices(counts)
        if made >= FIRST and confusion.size <= CELLS:
            path.append(np.log(confusion))
            if len(path) == 3:
                confusion, path = _leap(*path), []
        before, posterior = posterior, expect(by_cell, prevalence, confusion)
        change, made = float(np.abs(posterior - before).max()), made + 1
    return Shares(
        patterns.spread(np.ascontiguousarray(posterior.T)),
        converged=change < TOLERANCE,
        iterations=made,
        note="" if change < TOLERANCE else not_converged(made, change),
        confusion=confusion,
        prevalence=prevalence,
    )


def _matrices(counts: np.ndarray) -> np.ndarray:
    """Return the matrices, (A, K, K), from expected counts of votes and the prior that these lead to."""
    K = counts.shape[1]
    confusion: np.ndarray = expected_confusion(*bias_and_scale(counts), K)
    confusion *= pseudo_votes(K)
    confusion += counts
    confusion /= confusion.sum(axis=1, keepdims=True)
    return confusion


def _leap(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """Return where three steps of EM lead to: Varadhan and Roland (2008), Scandinavian Journal of Statistics 35, SqS3."""
    import numpy as np

    step = second - first
    bend = third - second - step
    long, bent = float((step**2).sum()), float((bend**2).sum())
    length = LONGEST if long >= LONGEST**2 * bent else max((long / bent) ** 0.5, 1.0)
    log = first + 2 * length * step + length**2 * bend
    log -= log.max(axis=1, keepdims=True)
    confusion: np.ndarray = np.exp(np.maximum(log, LOWEST))
    confusion /= confusion.sum(axis=1, keepdims=True)
    return confusion


def pseudo_votes(K: int) -> float:
    """Return how many votes the prior counts in each column of a matrix: 1.5 (K − 1), at most 6."""
    return min(1.5 * max(K - 1, 1), 6.0)


def bias_and_scale(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of given − true, (A,) each; `counts`: (A, K, K) at [annotator, given, true]."""
    import numpy as np

    A, K, _ = counts.shape
    distance = np.subtract.outer(np.arange(K), np.arange(K)).astype(float).reshape(-1)
    flat = counts.reshape(A, -1)
    number = flat.sum(axis=1)
    mean, square = flat @ distance, flat @ distance**2
    bias = mean / (number + VOTES)
    variance = (square - 2 * bias * mean + bias**2 * number + VOTES * SCALE**2) / (number + VOTES)
    return bias, np.sqrt(variance)


def expected_confusion(bias: np.ndarray, scale: np.ndarray, K: int) -> np.ndarray:
    """Return what bias and scale lead one to expect, (A, K, K) at [annotator, given, true]; columns sum to 1."""
    import numpy as np

    away = (np.arange(1 - K, K) - bias[:, None]) / np.maximum(scale, LEAST)[:, None]
    near = np.exp(np.maximum(-0.5 * away**2, -600.0))  # by given − true, which runs along the diagonals of each matrix
    table: np.ndarray = np.lib.stride_tricks.sliding_window_view(near, K, axis=1)[:, :, ::-1]
    table = table * ((1 - ANYWHERE) / table.sum(axis=1, keepdims=True))
    table += ANYWHERE / K
    return table
