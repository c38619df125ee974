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
CELLS = 1 << 20
"""Above this many numbers (8 MB) the confusion matrices are not written out."""
TOLERANCE = 1e-6
"""Converged where no posterior moves by more."""


def dawid_skene(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label at the maximum likelihood (Dawid and Skene 1979).

    Good where every annotator voted often on every class; with few votes it overfits (see `dawid_skene_map`).
    """
    fit = fit_dawid_skene(find_patterns(votes), len(votes.labels), iterations=options.iterations)
    return as_shares(fit, len(votes.annotators))


def dawid_skene_map(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label at the maximum a posteriori, with a Dirichlet prior on each matrix.

    The prior counts as pseudo-votes: see `prior_of`. An annotator with few votes stays near it.
    """
    K = len(votes.labels)
    prior = prior_of(K)
    fit = fit_dawid_skene(find_patterns(votes), K, prior=prior, iterations=options.iterations)
    return as_shares(fit, len(votes.annotators), prior)


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
    """A fitted model; P patterns, A annotators, K labels, C cells: the (annotator, label) pairs that a vote shows."""

    patterns: Patterns
    cell: np.ndarray
    """The cells, as annotator · K + label, (C,) ascending."""
    votes: csc_array
    """What the votes of each pattern weigh, (P, C)."""
    posterior: np.ndarray
    """(P, K)."""
    prevalence: np.ndarray
    """(K,)."""
    chance: np.ndarray
    """(C, K): how likely the annotator of a cell gives its label to a text whose true label is k."""
    iterations: int
    change: float
    """The largest change of a posterior in the last iteration."""

    def confusion(self, A: int, prior: np.ndarray | None) -> np.ndarray | None:
        """Return the whole matrices, (A, K, K) at [annotator, given, true]; None where they are too many to hold."""
        import numpy as np

        K = len(self.prevalence)
        if A * K * K > CELLS:
            return None
        whole = np.full((A * K, K), LEAST)
        whole[self.cell] = self.chance
        if prior is not None:  # labels never given have what is left, in the proportions of the prior
            matrices, given = whole.reshape(A, K, K), np.zeros(A * K, dtype=bool)
            given[self.cell] = True
            rest = np.where(given.reshape(A, K, 1), 0.0, prior)
            left = 1 - np.where(given.reshape(A, K, 1), matrices, 0.0).sum(axis=1, keepdims=True)
            sums = rest.sum(axis=1, keepdims=True)
            share = np.divide(rest, sums, out=np.zeros_like(rest), where=sums > 0)
            whole = np.where(given.reshape(A, K, 1), matrices, share * left)
        return whole.reshape(A, K, K)


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

    M step, Dawid and Skene (1979) eq. 2.3 and 2.4: confusion[a, j, k] ∝ Σ_i T_ik n_ija (+ prior[j, k]) and
    prevalence[k] = Σ_i T_ik / n. E step, eq. 2.5: T_ik ∝ prevalence[k] Π_a Π_j confusion[a, j, k]^n_ija, where n_ija is
    what the votes of annotator a for label j on text i weigh. Labels that an annotator never gave need no matrix cell,
    so that 300 annotators of 500 classes take memory for their votes only.
    """
    import numpy as np

    P, number = patterns.votes.shape[0], patterns.number
    cell, by_cell = _voted_cells(patterns)
    weighted = by_cell.multiply(number[:, None]).tocsc().T if P else by_cell.T
    posterior = shares_of(patterns, K) if start is None else start.T
    _, first = np.unique(cell // K, return_index=True)
    size = np.diff(np.r_[first, len(cell)])
    added, total = (0.0, 0.0) if prior is None else (prior[cell % K], prior.sum(axis=0))
    prevalence, chance = np.full(K, 1 / K), np.full((len(cell), K), 1 / K)
    change, made = np.inf, 0
    while made < iterations and P:
        prevalence = posterior @ number / number.sum()
        chance = weighted @ np.ascontiguousarray(posterior.T)
        chance = np.maximum(chance, LEAST) if prior is None else chance
        sums = np.add.reduceat(chance, first, axis=0) + total
        chance = (chance + added) / np.repeat(sums, size, axis=0)
        before, posterior = posterior, expect(by_cell, prevalence, chance)
        made += 1
        change = float(np.abs(posterior - before).max())
        if change < tolerance:
            break
    return DawidSkene(
        patterns, cell, by_cell, np.ascontiguousarray(posterior.T), prevalence, chance, made, change if P else 0.0
    )


def _voted_cells(patterns: Patterns) -> tuple[np.ndarray, csc_array]:
    """Return the cells that have votes, and the votes of each pattern on them, (P, C)."""
    import numpy as np

    by_cell = patterns.votes.tocsc()
    cell = np.flatnonzero(np.diff(by_cell.indptr))
    return cell, by_cell if len(cell) == by_cell.shape[1] else by_cell[:, cell]


def shares_of(patterns: Patterns, K: int) -> np.ndarray:
    """Return the vote shares of each pattern, (K, P)."""
    import numpy as np

    X = patterns.votes
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    sums = np.bincount(X.indices % K * X.shape[0] + row, weights=X.data, minlength=K * X.shape[0]).reshape(K, -1)
    shares: np.ndarray = sums / sums.sum(axis=0)
    return shares


def expect(by_cell: csc_array, prevalence: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return the posteriors, (K, P); `by_cell`: what the votes weigh, (P, C); `chance`: (…, K), C rows in all."""
    import numpy as np

    K = len(prevalence)
    log = np.ascontiguousarray((by_cell @ np.log(chance).reshape(-1, K)).T)
    with np.errstate(divide="ignore"):
        log += np.log(prevalence)[:, None]  # −∞ for a label that nobody ever gave
    log -= log.max(axis=0)
    posterior: np.ndarray = np.exp(log, out=log)
    posterior /= posterior.sum(axis=0)
    return posterior


def as_shares(fit: DawidSkene, A: int, prior: np.ndarray | None = None) -> Shares:
    """Return what `decide` reads."""
    stood = fit.change < TOLERANCE
    return Shares(
        fit.patterns.spread(fit.posterior),
        converged=stood,
        iterations=fit.iterations,
        note="" if stood else not_converged(fit.iterations, fit.change),
        confusion=fit.confusion(A, prior),
        prevalence=fit.prevalence,
    )


def not_converged(iterations: int, change: float) -> str:
    """Return the line that says so."""
    return (
        f"not converged after {iterations} iterations: a posterior still moved by {change:.1e}; raise iterations, or "
        "choose a simpler method"
    )
