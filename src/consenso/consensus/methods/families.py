"""Dawid–Skene for LLM panels: models err together, those of one family most, so their votes count less than they number.

Dawid–Skene takes votes as independent given the true label. LLMs' are not, and its posterior is then far too sure. Here
the model is fitted as `dawid_skene_map` does, and the posterior is read off a likelihood in which each vote weighs what
it is worth beside the others: the design effect of Kish (1965, Survey Sampling, section 5.4) as the exponent of a power
likelihood (Miller and Dunson 2019, JASA 114: "coarsened" posterior).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from consenso.consensus.methods.dawid_skene import DawidSkene, as_shares, expect, fit_dawid_skene, prior_of
from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import Patterns, find_patterns
from consenso.errors import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

WITHIN, BETWEEN = 0.6, 0.3
"""How much of two votes is one and the same, within and between families, where no gold says (docs/consensus.md)."""
GRID = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Values tried where gold says."""


def dawid_skene_families(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of `dawid_skene_map` with each vote discounted for the votes it correlates with.

    A vote weighs 1 / (1 + ρ_within (m − 1) + ρ_between (M − m)), where M annotators voted on the text and m of them are
    of its family. With `options.gold` the two correlations are those of the largest likelihood of gold; without,
    `WITHIN` and `BETWEEN`. Raises `ConfigError` for a family of an unknown annotator.
    """
    from dataclasses import replace

    K = len(votes.labels)
    patterns = find_patterns(votes)
    prior = prior_of(K)
    fit = fit_dawid_skene(patterns, K, prior=prior, iterations=options.iterations)
    votes_of = _family_votes(patterns, _families(votes, options), K)
    within, between, learned = WITHIN, BETWEEN, ""
    if options.gold is not None and (options.gold >= 0).any():
        within, between = _learn(fit, votes_of, options.gold)
        learned = f"correlations learned from the gold of {int((options.gold >= 0).sum())} texts: "
    discounted = replace(fit, posterior=_discounted(fit, votes_of, within, between))
    found = as_shares(discounted, len(votes.annotators), prior)
    note = f"{learned}{within:g} within, {between:g} between families"
    return replace(found, note="; ".join(filter(None, [found.note, note])))


def _families(votes: CodedVotes, options: Options) -> np.ndarray:
    """Return the position of each annotator's family, (A,)."""
    import numpy as np

    if strange := [name for name in options.families if name not in votes.annotators]:
        hint = nearest(strange[0], votes.annotators) or f" The annotators are {list(votes.annotators)}."
        raise ConfigError(f"consensus families: unknown annotator {strange[0]!r}.{hint}")
    named = [("family", options.families[a]) if a in options.families else ("alone", a) for a in votes.annotators]
    order = {key: position for position, key in enumerate(dict.fromkeys(named))}
    return np.array([order[key] for key in named], dtype=np.int64)


def _family_votes(patterns: Patterns, family: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each vote of each pattern how many annotators of its family voted, and how many did at all."""
    import numpy as np

    X = patterns.votes
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    key, place = np.unique(row * (int(family.max(initial=0)) + 1) + family[X.indices // K], return_inverse=True)
    own = np.bincount(place, weights=X.data, minlength=len(key))[place]
    return own, np.bincount(row, weights=X.data, minlength=X.shape[0])[row]


def _discounted(fit: DawidSkene, votes_of: tuple[np.ndarray, np.ndarray], within: float, between: float) -> np.ndarray:
    """Return the discounted posterior, (P, K)."""
    import numpy as np

    own, total = votes_of
    X = fit.patterns.votes.copy()
    X.data = X.data / (1 + within * np.maximum(own - 1, 0) + between * np.maximum(total - own, 0))
    return expect(X.tocsc()[:, fit.cell], fit.prevalence, fit.chance).T


def _learn(fit: DawidSkene, votes_of: tuple[np.ndarray, np.ndarray], gold: np.ndarray) -> tuple[float, float]:
    """Return the two correlations of GRID, within ≥ between, with the largest mean log posterior of gold."""
    import numpy as np

    used = (gold >= 0) & (fit.patterns.of_text >= 0)
    pattern, label = fit.patterns.of_text[used], gold[used]

    def fitness(pair: tuple[float, float]) -> float:
        chance = _discounted(fit, votes_of, *pair)[pattern, label]
        return float(np.log(np.maximum(chance, 1e-12)).mean()) if len(label) else 0.0

    within, between = max(((w, b) for w, b in product(GRID, GRID) if w >= b), key=fitness)
    return within, between
