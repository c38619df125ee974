"""One coin: Dawid–Skene with one accuracy per annotator; errors fall on the other labels alike.

Sources: Raykar et al. (2010), JMLR 11 (two labels); Zhang, Chen, Zhou and Jordan (2016), JMLR 17:
the "one-coin model". The prior and the fixed prevalence are our own choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.methods.dawid_skene import TOLERANCE, not_converged, shares_of
from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import Patterns, find_patterns

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

RIGHT, WRONG = 4.0, 1.0
"""Pseudo-votes of the prior, whatever K: an annotator without votes is right with probability .8."""
CELLS = 1 << 24
"""The most cells of a table of confusion matrices that is handed out."""


def one_coin(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label, with one accuracy per annotator, at the maximum a posteriori.

    Annotator a is right with probability p_a and gives each other label with (1 − p_a) / (K − 1). EM from the vote
    shares; M step: p_a = (RIGHT + Σ hits) / (RIGHT + WRONG + Σ votes), which is a Beta(RIGHT + 1, WRONG + 1) prior.
    All labels are equally likely beforehand: an estimated prevalence would explain what one-sided annotators do, and
    runs to one label. `Shares.weights`: what a vote of a adds to the log odds of the label it names.
    """
    import numpy as np

    if not len(votes.text):
        return Shares(np.zeros(votes.shape))
    patterns, K, A = find_patterns(votes), len(votes.labels), len(votes.annotators)
    given = list_votes(patterns, K)
    total = given.per_annotator(given.each, A)
    posterior, right = shares_of(patterns, K), np.zeros(A)
    change, made = np.inf, 0
    while made < options.iterations and change >= TOLERANCE:
        right = (RIGHT + given.per_annotator(given.each * given.hit(posterior), A)) / (RIGHT + WRONG + total)
        before, posterior = posterior, given.expect(log_odds(right, K)[given.annotator])
        change, made = float(np.abs(posterior - before).max()), made + 1
    return Shares(
        patterns.spread(np.ascontiguousarray(posterior.T)),
        converged=change < TOLERANCE,
        iterations=made,
        note="" if change < TOLERANCE else not_converged(made, change),
        confusion=confusion_of(right, np.repeat((1 - right)[:, None] / max(K - 1, 1), K, axis=1)),
        weights=log_odds(right, K),
    )


def log_odds(right: np.ndarray, K: int) -> np.ndarray:
    """Return the log of how much likelier a label is given if it is true than if it is not."""
    import numpy as np

    odds: np.ndarray = np.log(right) - np.log((1 - right) / max(K - 1, 1))
    return odds


def confusion_of(right: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Return confusion matrices, (A, K, K) at [annotator, given, true]; None where that is more than CELLS cells.

    `right`, (A,) or (A, K) by label, stands where given = true; `other`, (A, K) by the given label, everywhere else.
    """
    import numpy as np

    A, K = other.shape
    if A * K * K > CELLS:
        return None
    table: np.ndarray = np.repeat(other[:, :, None], K, axis=2)
    table[:, np.arange(K), np.arange(K)] = right[:, None] if right.ndim == 1 else right
    return table


@dataclass(frozen=True, eq=False)
class Given:
    """The votes of P patterns, one entry each, for models where a vote speaks for or against its own label alone."""

    shape: tuple[int, int]
    """K labels × P patterns."""
    row: np.ndarray
    """Positions of the patterns."""
    annotator: np.ndarray
    """Positions of the annotators."""
    label: np.ndarray
    """Positions of the labels."""
    weight: np.ndarray
    """What the vote weighs in its pattern."""
    each: np.ndarray
    """What it weighs over all texts that show the pattern."""
    at: np.ndarray
    """Where its label and pattern stand in a flat (K, P) table."""

    def hit(self, posterior: np.ndarray) -> np.ndarray:
        """Return the chance that each vote is right; `posterior` is (K, P)."""
        found: np.ndarray = posterior.reshape(-1)[self.at]
        return found

    def per_annotator(self, values: np.ndarray, A: int) -> np.ndarray:
        """Return the sum of the votes' values per annotator."""
        import numpy as np

        return np.bincount(self.annotator, weights=values, minlength=A)

    def per_label(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the votes' values per label and pattern, (K, P)."""
        import numpy as np

        return np.bincount(self.at, weights=values, minlength=self.shape[0] * self.shape[1]).reshape(self.shape)

    def expect(self, bonus: np.ndarray) -> np.ndarray:
        """Return the posterior, (K, P): a vote adds weight × bonus to the log odds of the label it names."""
        return normalise(self.per_label(self.weight * bonus))[0]


def normalise(log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return exp(log) with columns that sum to 1, and the logs of what they summed to; overwrites `log`."""
    import numpy as np

    top = log.max(axis=0)
    log -= top
    posterior: np.ndarray = np.exp(log, out=log)
    total = posterior.sum(axis=0)
    posterior /= total
    return posterior, np.log(total) + top


def list_votes(patterns: Patterns, K: int) -> Given:
    """List the votes of the patterns."""
    import numpy as np

    X = patterns.votes
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    annotator, label = np.divmod(X.indices.astype(np.int64), K)
    each = X.data * patterns.number[row]
    return Given((K, X.shape[0]), row, annotator, label, X.data, each, label * X.shape[0] + row)
