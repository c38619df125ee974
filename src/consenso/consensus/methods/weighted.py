"""Weighted: each annotator's votes count what the user says, or what gold or the other votes say they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.votematrix import label_shares
from consenso.errors import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

ROUNDS = 100
"""The most rounds of learning weights from votes; a handful is usual."""


def weighted(votes: CodedVotes, options: Options) -> Shares:
    """Return each label's share of the valid votes' weight.

    `options.weights` is a weight per annotator (1 where absent), "gold" (`weights_from_gold`) or "votes"
    (`weights_from_votes`). Where all voters of a text weigh nothing, its votes count alike.
    Raises `ConfigError` for a weight of an unknown annotator, and for "gold" without any.
    """
    import numpy as np

    note, converged, rounds = "", True, 0
    if options.weights == "gold":
        if options.gold is None or not (options.gold >= 0).any():
            raise ConfigError(
                "consensus weights = 'gold': no voted text has gold that may be used; give some, or 'votes'"
            )
        each = weights_from_gold(votes, options.gold)
        note = f"weights learned from the gold of {int((options.gold >= 0).sum())} texts"
    elif options.weights == "votes":
        each, rounds, converged = weights_from_votes(votes)
        note = "weights learned from the votes" + ("" if converged else f"; not converged after {rounds} rounds")
    else:
        each = given_weights(votes, options.weights)
    weight = votes.weight * each[votes.annotator]
    nothing = np.bincount(votes.text, weights=weight, minlength=votes.shape[0])[votes.text] == 0
    shares = label_shares(votes, np.where(nothing, votes.weight, weight))
    return Shares(shares, converged=converged, iterations=rounds, note=note, weights=each)


def given_weights(votes: CodedVotes, weights: object) -> np.ndarray:
    """Return the user's weights, (A,)."""
    import numpy as np

    named = weights if isinstance(weights, dict) else dict(weights)  # type: ignore[call-overload]
    for name in named:
        if name not in votes.annotators:
            hint = nearest(name, votes.annotators) or f" The annotators are {list(votes.annotators)}."
            raise ConfigError(f"consensus weights: unknown annotator {name!r}.{hint}")
    return np.array([float(named.get(name, 1.0)) for name in votes.annotators])


def weights_from_gold(votes: CodedVotes, gold: np.ndarray) -> np.ndarray:
    """Return log-odds weights, (A,): w = max(0, log(p (K − 1) / (1 − p))), p the accuracy on gold.

    Optimal for independent annotators whose errors are spread evenly (Nitzan and Paroush 1982, International Economic
    Review 23(2), theorem 1, for two labels). p is (right + 4) / (n + 5): five pseudo-votes, four of them right.
    """
    import numpy as np

    A, K = len(votes.annotators), len(votes.labels)
    known = gold[votes.text] >= 0
    right = votes.label == gold[votes.text]
    n = np.bincount(votes.annotator, weights=votes.weight * known, minlength=A)
    hits = np.bincount(votes.annotator, weights=votes.weight * (known & right), minlength=A)
    if K < 2:
        return np.ones(A)
    p = (hits + 4) / (n + 5)
    weights: np.ndarray = np.maximum(np.log(p * (K - 1) / (1 - p)), 0.0)
    return weights


def weights_from_votes(votes: CodedVotes) -> tuple[np.ndarray, int, bool]:
    """Return iterative weighted majority voting's weights, (A,), the rounds it took and whether it stood still.

    w = max(0, K p − 1), p the share of an annotator's votes that the weighted majority shares (ties by halves), until
    no p moves (iterative weighted majority voting, Li and Yu 2014, arXiv 1411.4086; there a weight may be negative).
    """
    import numpy as np

    A, K = len(votes.annotators), len(votes.labels)
    n = np.bincount(votes.annotator, weights=votes.weight, minlength=A)
    each, p = np.ones(A), np.full(A, -1.0)
    for made in range(1, ROUNDS + 1):
        shares = label_shares(votes, votes.weight * each[votes.annotator])
        best = shares >= shares.max(axis=1, keepdims=True) - 1e-9
        agreed = (best / best.sum(axis=1, keepdims=True))[votes.text, votes.label]
        before = p
        p = np.bincount(votes.annotator, weights=votes.weight * agreed, minlength=A) / np.maximum(n, 1e-12)
        each = np.maximum(K * p - 1, 0.0)
        if np.abs(p - before).max(initial=0.0) < 1e-12:
            return each, made, True
    return each, ROUNDS, False
