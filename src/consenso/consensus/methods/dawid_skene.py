"""Dawid–Skene: each annotator has a confusion matrix; texts, matrices and prevalence are estimated together by EM.

Sources: Dawid and Skene (1979), Applied Statistics 28(1): the model and EM, equations 2.3 to 2.5. Dirichlet priors on
the rows of the matrices: Paun et al. (2018), TACL 6, section 3; the values here are our own (docs/consensus.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import Patterns, find_patterns

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csc_array

    from consenso.consensus.votematrix import CodedVotes

LEAST = 1e-10
"""The smallest chance of a label that an annotator was never seen to give."""
TOLERANCE = 1e-6
"""Converged where no posterior moves by more."""


def dawid_skene(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label at the maximum likelihood (Dawid and Skene 1979).

    Good where every annotator voted often on every class; with few votes it overfits (see `dawid_skene_map`).
    """
    return as_shares(fit_dawid_skene(find_patterns(votes), len(votes.labels), iterations=options.iterations))


def dawid_skene_map(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label at the maximum a posteriori, with a Dirichlet prior on each matrix.

    The prior counts as pseudo-votes: see `prior_of`. An annotator with few votes stays near it.
    """
    K = len(votes.labels)
    return as_shares(fit_dawid_skene(find_patterns(votes), K, prior=prior_of(K), iterations=options.iterations))


def prior_of(K: int) -> np.ndarray:
    """Return the pseudo-votes of the prior, (K, K) at [given, true]: K − 1 right ones and ¼ of each wrong one.

    An annotator without votes is then right with probability (K − 1) / (K − 1 + (K − 1)/4) = .8, whatever K.
    """
    import numpy as np

    prior = np.full((K, K), 0.25)
    np.fill_diagonal(prior, max(K - 1, 1))
    return prior


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """A fitted model; P patterns, A annotators, K labels."""

    patterns: Patterns
    posterior: np.ndarray
    """(P, K)."""
    prevalence: np.ndarray
    """(K,)."""
    confusion: np.ndarray
    """(A, K, K) at [annotator, given, true]."""
    iterations: int
    change: float
    """The largest change of a posterior in the last iteration."""


def fit_dawid_skene(
    patterns: Patterns,
    K: int,
    *,
    prior: np.ndarray | None = None,
    iterations: int = 500,
    tolerance: float = TOLERANCE,
    start: np.ndarray | None = None,
) -> DawidSkene:
    """Fit by EM, from the vote shares (or `start`, (P, K)) on.

    M step, Dawid and Skene (1979) eq. 2.3 and 2.4: confusion[a, j, k] ∝ Σ_i T_ik n_ija (+ prior[j, k] or
    prior[a, j, k]) and prevalence[k] = Σ_i T_ik / n. E step, eq. 2.5: T_ik ∝ prevalence[k] Π_a Π_j confusion[a, j, k]^n_ija,
    where n_ija is what the votes of annotator a for label j on text i weigh.
    """
    import numpy as np

    X, number = patterns.votes, patterns.number
    P, A = X.shape[0], X.shape[1] // K
    weighted = X.multiply(number[:, None]).tocsr().T if P else X.T
    by_cell = X.tocsc()
    posterior = shares_of(patterns, K) if start is None else start.T
    seen = np.asarray(by_cell.sum(axis=0)).reshape(A, K, 1) > 0
    change, made = np.inf, 0
    prevalence, confusion = np.full(K, 1 / K), np.full((A, K, K), 1 / K)
    while made < iterations and P:
        prevalence = posterior @ number / number.sum()
        counts = (weighted @ np.ascontiguousarray(posterior.T)).reshape(A, K, K)
        confusion = _normalised(counts, seen) if prior is None else _smoothed(counts, prior)
        before, posterior = posterior, expect(by_cell, prevalence, confusion)
        made += 1
        change = float(np.abs(posterior - before).max())
        if change < tolerance:
            break
    return DawidSkene(patterns, np.ascontiguousarray(posterior.T), prevalence, confusion, made, change)


def shares_of(patterns: Patterns, K: int) -> np.ndarray:
    """Return the vote shares of each pattern, (K, P)."""
    import numpy as np

    X = patterns.votes
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    sums = np.bincount(X.indices % K * X.shape[0] + row, weights=X.data, minlength=K * X.shape[0]).reshape(K, -1)
    shares: np.ndarray = sums / sums.sum(axis=0)
    return shares


def _normalised(counts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Normalise over the given label; labels that an annotator gave somewhere have at least LEAST."""
    import numpy as np

    counts = np.where(seen, np.maximum(counts, LEAST), 0.0)
    total = counts.sum(axis=1, keepdims=True)
    chance: np.ndarray = np.divide(counts, total, out=np.full_like(counts, LEAST), where=(total > 0) & seen)
    return chance


def _smoothed(counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
    smooth: np.ndarray = counts + prior
    smooth /= smooth.sum(axis=1, keepdims=True)
    return smooth


def expect(by_cell: csc_array, prevalence: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Return the posteriors, (K, P); `by_cell` holds what the votes weigh, (P, A·K)."""
    import numpy as np

    K = len(prevalence)
    log = np.ascontiguousarray((by_cell @ np.log(confusion).reshape(-1, K)).T)
    log += np.log(np.maximum(prevalence, np.finfo(float).tiny))[:, None]
    log -= log.max(axis=0)
    posterior: np.ndarray = np.exp(log, out=log)
    posterior /= posterior.sum(axis=0)
    return posterior


def as_shares(fit: DawidSkene) -> Shares:
    """Return what `decide` reads."""
    stood = fit.change < TOLERANCE or not len(fit.posterior)
    return Shares(
        fit.patterns.spread(fit.posterior),
        converged=stood,
        iterations=fit.iterations,
        note="" if stood else not_converged(fit.iterations, fit.change),
        confusion=fit.confusion,
        prevalence=fit.prevalence,
    )


def not_converged(iterations: int, change: float) -> str:
    """Return the line that says so."""
    return (
        f"not converged after {iterations} iterations: a posterior still moved by {change:.1e}; raise "
        "consensus.iterations, or prefer dawid_skene_map"
    )
