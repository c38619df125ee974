"""MACE: an annotator knows the label, or spams from a distribution of its own.

Source: Hovy, Berg-Kirkpatrick, Vaswani and Hovy (2013), NAACL-HLT, 1120–1130: the model, variational EM with priors, and
restarts of which the likeliest is kept; the values of the priors are those of the authors' program and of crowd-kit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.methods.dawid_skene import TOLERANCE, not_converged
from consenso.consensus.methods.one_coin import Given, confusion_of, list_votes, normalise
from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import find_patterns

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

KNOWS = SPAMS = 0.5
"""Beta prior of how often an annotator knows the label, and spams."""
SPAM = 10.0
"""Dirichlet prior of the labels that it gives when it spams: pseudo-votes for each."""
STARTS = 5
"""Random starts, besides the even one: everyone knows every other label, and spams evenly."""
FIRST = 10
"""Iterations of each start before the likeliest goes on alone."""
CLEARLY = 2.0
"""How much likelier (log likelihood) a random start must be by then; less is a head start to the same end."""


@dataclass(frozen=True, eq=False)
class Habits:
    """What is estimated; at the variational estimate, chances sum to a little less than 1."""

    knows: np.ndarray
    """The chance that an annotator knows the label, (A,)."""
    spams: np.ndarray
    """The chance that it spams, and then this label, (A, K)."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Habits, and what follows from them."""

    habits: Habits
    posterior: np.ndarray
    """(K, P)."""
    likelihood: float
    """Log marginal likelihood of the votes."""
    iterations: int = 0
    change: float = float("inf")
    """The largest change of a posterior in the last iteration."""


def mace(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label under MACE, by variational EM.

    With chance θ_a annotator a gives the true label, else label j with ξ_aj; all true labels are equally likely
    beforehand. Priors: Beta(KNOWS, SPAMS) on θ_a, Dirichlet(SPAM) on ξ_a. The even start and STARTS ones drawn from
    `options.seed` make FIRST iterations; a drawn one goes on only if it is clearly likelier. `Shares.weights`: θ.
    """
    import numpy as np

    if not len(votes.text):
        return Shares(np.zeros(votes.shape))
    patterns, K, A = find_patterns(votes), len(votes.labels), len(votes.annotators)
    given, number = list_votes(patterns, K), patterns.number
    total, rng = _per_cell(given, given.each, A), np.random.default_rng(options.seed)
    starts = [_even(A, K)] + [_draw(A, K, rng) for _ in range(STARTS)]
    even, *drawn = (
        _iterate(given, number, total, _expect(given, number, total, start), min(FIRST, options.iterations))
        for start in starts
    )
    likeliest = max(drawn, key=lambda fit: fit.likelihood)
    best = likeliest if likeliest.likelihood > even.likelihood + CLEARLY else even
    fit = _iterate(given, number, total, best, options.iterations)
    whole = fit.habits.knows + fit.habits.spams.sum(axis=1)
    knows, spams = fit.habits.knows / whole, fit.habits.spams / whole[:, None]
    return Shares(
        patterns.spread(np.ascontiguousarray(fit.posterior.T)),
        converged=fit.change < TOLERANCE,
        iterations=fit.iterations,
        note="" if fit.change < TOLERANCE else not_converged(fit.iterations, fit.change),
        confusion=confusion_of(spams + knows[:, None], spams),
        weights=knows,
    )


def _even(A: int, K: int) -> Habits:
    import numpy as np

    return Habits(np.full(A, 0.5), np.full((A, K), 0.5 / K))


def _draw(A: int, K: int, rng: np.random.Generator) -> Habits:
    """Draw a start near the even one: shares of numbers drawn between 1 and 2.5, as the authors' program does."""
    knows, spams = rng.uniform(1, 2.5, A), rng.uniform(1, 2.5, A)
    spam = rng.uniform(1, 2.5, (A, K))
    return Habits(knows / (knows + spams), (spams / (knows + spams) / spam.sum(axis=1))[:, None] * spam)


def _iterate(given: Given, number: np.ndarray, total: np.ndarray, fit: Fit, until: int) -> Fit:
    import numpy as np

    while fit.iterations < until and fit.change >= TOLERANCE:
        after = _expect(given, number, total, _maximise(given, fit, total))
        change = float(np.abs(after.posterior - fit.posterior).max())
        fit = Fit(after.habits, after.posterior, after.likelihood, fit.iterations + 1, change)
    return fit


def _expect(given: Given, number: np.ndarray, total: np.ndarray, habits: Habits) -> Fit:
    """E step: P(T = k) ∝ Π_a (θ_a 1[vote = k] + (1 − θ_a) ξ_a,vote)."""
    import numpy as np

    wrong = np.log(habits.spams)
    bonus = np.log(habits.spams + habits.knows[:, None]) - wrong
    posterior, logs = normalise(given.per_label(given.weight * bonus[given.annotator, given.label]))
    likelihood = (number * (logs - np.log(given.shape[0]))).sum() + (total * wrong).sum()
    return Fit(habits, posterior, float(likelihood))


def _maximise(given: Given, fit: Fit, total: np.ndarray) -> Habits:
    """M step: a chance becomes exp(digamma) of its expected count and prior, over that of the sum."""
    import numpy as np
    from scipy.special import digamma

    habits = fit.habits
    knows = habits.knows[:, None]
    known = _per_cell(given, given.each * given.hit(fit.posterior), len(total)) * knows / (knows + habits.spams)
    spam = total - known
    votes = digamma(total.sum(axis=1) + KNOWS + SPAMS)
    spams = np.exp(digamma(spam.sum(axis=1) + SPAMS) - votes)
    which = np.exp(digamma(spam + SPAM) - digamma(spam.sum(axis=1) + SPAM * spam.shape[1])[:, None])
    return Habits(np.exp(digamma(known.sum(axis=1) + KNOWS) - votes), spams[:, None] * which)


def _per_cell(given: Given, values: np.ndarray, A: int) -> np.ndarray:
    """Return the sum of the votes' values per annotator and label, (A, K)."""
    import numpy as np

    K = given.shape[0]
    return np.bincount(given.annotator * K + given.label, weights=values, minlength=A * K).reshape(A, K)
