"""estimate_reliability: how often each annotator is right, estimated from the votes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consenso.consensus.methods.dawid_skene import DawidSkene, fit_dawid_skene, prior_of
from consenso.consensus.patterns import find_patterns
from consenso.consensus.resampling import percentile_interval
from consenso.consensus.votematrix import CodedVotes, code_votes
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from consenso.labels import LabelSchema

EFFORT = 2_000_000_000
"""Multiplications that the bootstrap may take; of large sparse panels it then takes fewer draws."""
FEW = 40
"""With fewer draws than this there is no interval."""
STEPS = 30
"""EM iterations of a draw, which starts from the fit to all texts."""


def estimate_reliability(
    votes: Any, *, labels: LabelSchema | None = None, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Estimate each annotator's accuracy and confusion without gold, by the Dawid–Skene model of `dawid_skene_map`.

    `votes`: VOTES (or `CodedVotes`). Returns annotator, n (texts with a valid vote), accuracy (the chance that its vote
    is the true label of a voted text: Σ_k prevalence[k] · confusion[a, k, k]), low, high (95 %, percentile bootstrap
    over texts; null without draws), weakest (the true label that it recognises least), weakest_accuracy,
    taken_for (the label it then gives most often).

    The model takes annotators as independent given the true label. Where they err together (models of one family do),
    accuracies are overestimated, and intervals, which know only the draw of texts, do not show it: hold some against
    gold. Raises `DataError` as `code_votes`, `ConfigError` for a negative number of draws.
    """
    import numpy as np
    import pandas as pd

    if draws < 0:
        raise ConfigError(f"draws must be 0 (no intervals) or a number of bootstrap draws; found {draws}")
    coded = votes if isinstance(votes, CodedVotes) else code_votes(votes, labels)
    A, K = len(coded.annotators), len(coded.labels)
    patterns = find_patterns(coded)
    fit = fit_dawid_skene(patterns, K, prior=prior_of(K))
    recognised = np.diagonal(fit.confusion, axis1=1, axis2=2)
    weakest = np.where(fit.prevalence > 1e-3, recognised, np.inf).argmin(axis=1) if K else np.zeros(A, dtype=int)
    others = fit.confusion[np.arange(A), :, weakest].copy()
    others[np.arange(A), weakest] = -1
    names = np.array(coded.labels, dtype=object)
    n = np.rint(np.bincount(coded.annotator, weights=coded.weight, minlength=A)).astype(np.int64)
    low, high = percentile_interval(_redrawn(fit, draws, seed), n)
    return pd.DataFrame(
        {
            "annotator": list(coded.annotators),
            "n": n,
            "accuracy": np.where(n > 0, recognised @ fit.prevalence, np.nan),
            "low": low,
            "high": high,
            "weakest": names[weakest],
            "weakest_accuracy": recognised[np.arange(A), weakest],
            "taken_for": names[others.argmax(axis=1)],
        }
    )


def _redrawn(fit: DawidSkene, draws: int, seed: int) -> np.ndarray:
    """Return the accuracies of each bootstrap draw, (draws, A); no draw where there is effort for a few only."""
    import numpy as np

    A, K = len(fit.confusion), len(fit.prevalence)
    patterns, texts = fit.patterns, int(fit.patterns.number.sum())
    cost = STEPS * K * (patterns.votes.nnz + A * K + 10 * len(patterns.number))
    draws = min(draws, int(EFFORT / max(cost, 1)))
    if draws < FEW or texts < 2:
        return np.empty((0, A))
    rng = np.random.default_rng([seed, 3])
    found = np.empty((draws, A))
    for draw in range(draws):
        number = rng.multinomial(texts, patterns.number / texts).astype(float)
        again = fit_dawid_skene(
            replace(patterns, number=number), K, prior=prior_of(K), iterations=STEPS, start=fit.posterior
        )
        found[draw] = np.diagonal(again.confusion, axis1=1, axis2=2) @ again.prevalence
    return found
