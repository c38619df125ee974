"""estimate_reliability: how often each annotator is right, estimated from the votes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consenso.consensus.framing import names_column
from consenso.consensus.methods.dawid_skene import DawidSkene, fit_dawid_skene, prior_of
from consenso.consensus.patterns import find_patterns
from consenso.consensus.resampling import percentile_interval
from consenso.consensus.votematrix import CodedVotes, code_votes, run_starts
from consenso.errors import ConfigError
from consenso.tables import RELIABILITY

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from consenso.labels import LabelSchema

EFFORT = 2_000_000_000
"""Multiplications that the bootstrap may take; of large sparse panels it then takes fewer draws."""
FEW = 40
"""With fewer draws than this there is no interval."""
VOTES = 50
"""An annotator with fewer has no interval: the prior speaks louder than its votes, and draws do not vary the prior."""
STEPS = 30
"""EM iterations of a draw, which starts from the fit to all texts."""
ESTIMATED = (
    "Its interval covers only which texts were drawn, and holds if errors are independent given the true label; LLMs "
    "err together, so it tends to be too high."
)
"""What must stand beside an estimate."""
NOT_IDENTIFIED = (
    "to tell without gold how often each annotator is right takes three who voted on the same texts "
    "(one that always gives the same label does not count)"
)
"""Why there is no estimate."""


def estimate_reliability(
    votes: Any, *, labels: LabelSchema | None = None, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Estimate each annotator's accuracy and confusion without gold, by the Dawid–Skene model of `dawid_skene_map`.

    `votes`: VOTES (or `CodedVotes`). Returns annotator, n (texts with a valid vote), accuracy (the chance that its vote
    is the true label of a voted text: Σ_k prevalence[k] · confusion[a, k, k]), low, high (95 %, percentile bootstrap
    over texts; null without draws and under 50 texts), weakest (the true label that it recognises least), weakest_accuracy,
    taken_for (the label it then gives most often), reason (why there is no estimate; all but n is null then).

    The model has an answer only where three annotators share texts (`_identified`): of one or two the votes say nothing
    about who is right, and an estimate would be that of the prior. It takes annotators as independent given the true
    label. Where they err together (LLMs do), accuracies are overestimated, and intervals, which know only the draw of
    texts, do not show it: hold some against gold. Raises `DataError` as `code_votes`, `ConfigError` for a negative number of draws.
    """
    import numpy as np
    import pandas as pd

    if draws < 0:
        raise ConfigError(f"draws must be 0 (no intervals) or a number of bootstrap draws; found {draws}")
    coded = votes if isinstance(votes, CodedVotes) else code_votes(votes, labels)
    A, K = len(coded.annotators), len(coded.labels)
    if not K:
        return pd.DataFrame({"annotator": list(coded.annotators), "n": 0}, columns=list(RELIABILITY.columns))
    patterns = find_patterns(coded).in_text_order()
    first = run_starts(coded.text * A + coded.annotator)
    n = np.bincount(coded.annotator[first], minlength=A)
    known = _identified(coded, first)
    if not known.any():
        return _frame(coded, n, known)
    fit = fit_dawid_skene(patterns, K, prior=prior_of(K))
    recognised = _recognised(fit, A)
    weakest = np.where(fit.prevalence > 1e-3, recognised, np.inf).argmin(axis=1)
    names = np.array(coded.labels, dtype=object)
    low, high = percentile_interval(_redrawn(fit, A, draws, seed), np.where(n < VOTES, 0, n))
    return _frame(
        coded,
        n,
        known,
        accuracy=recognised @ fit.prevalence,
        low=low,
        high=high,
        weakest=names[weakest],
        weakest_accuracy=recognised[np.arange(A), weakest],
        taken_for=np.array([_taken_for(fit, a, k, coded.labels) for a, k in enumerate(weakest)], dtype=object),
    )


def _frame(coded: CodedVotes, n: np.ndarray, known: np.ndarray, **found: np.ndarray) -> pd.DataFrame:
    """Return the table; what was found of annotators that are not `known` is left out, with the reason."""
    import numpy as np
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in ("accuracy", "low", "high", "weakest", "weakest_accuracy", "taken_for"):
        empty: Any = None if name in {"weakest", "taken_for"} else np.nan
        values = np.where(known, found.get(name, empty), empty)
        columns[name] = names_column(list(values)) if empty is None else values.astype(float)
    why = [None if ok or not voted else NOT_IDENTIFIED for ok, voted in zip(known, n)]
    return pd.DataFrame(
        {"annotator": names_column(coded.annotators), "n": n, **columns, "reason": names_column(why)},
    )


def _identified(coded: CodedVotes, first: np.ndarray) -> np.ndarray:
    """Return for which annotators the votes decide the model's parameters, (A,) bool; `first`: a vote per text and annotator.

    Three do, up to which label is which, and that the prior says (Allman, Matias and Rhodes 2009, Annals of Statistics
    37); two cannot: K labels give their table K² − 1 free counts, and the model has K − 1 + 2K(K − 1) parameters. Who
    always gives one label is none of the three. Whoever shares texts with one that is known is known too. As many texts
    must be shared by three as an interval takes, or half of all that hang together: else the prior speaks for them.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, A = len(coded.text_ids), len(coded.annotators)
    text, annotator = coded.text[first], coded.annotator[first]
    seen = np.zeros((A, len(coded.labels)), dtype=bool)
    seen[coded.annotator, coded.label] = True
    varied = seen.sum(axis=1) > 1
    shared = np.bincount(text[varied[annotator]], minlength=n) >= 3
    voted = np.bincount(text, minlength=n) > 0
    here = np.bincount(annotator, minlength=A) > 0
    if shared[voted].all():
        return here
    graph = coo_array((np.ones(len(text)), (text, n + annotator)), shape=(n + A, n + A))
    group = connected_components(graph, directed=False)[1]
    groups = int(group.max()) + 1
    texts, common = (np.bincount(group[:n][each], minlength=groups) for each in (voted, shared))
    enough = (common > 0) & (common >= np.minimum(VOTES, texts / 2))
    found: np.ndarray = enough[group[n:]] & here
    return found


def _redrawn(fit: DawidSkene, A: int, draws: int, seed: int) -> np.ndarray:
    """Return the accuracies of each bootstrap draw, (draws, A); no draw where there is effort for a few only."""
    import numpy as np

    K, patterns, texts = len(fit.prevalence), fit.patterns, int(fit.patterns.number.sum())
    cost = STEPS * K * (patterns.votes.nnz + len(fit.cell) + 10 * len(patterns.number))
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
        found[draw] = _recognised(again, A) @ again.prevalence
    return found


def _recognised(fit: DawidSkene, A: int) -> np.ndarray:
    """Return how likely each annotator gives the true label, for each true label, (A, K)."""
    import numpy as np

    K, prior = len(fit.prevalence), prior_of(len(fit.prevalence))
    annotator, label = np.divmod(fit.cell, K)
    never, given = np.ones((A, K), dtype=bool), np.zeros((A, K))
    never[annotator, label] = False
    np.add.at(given, annotator, fit.chance)
    pseudo_votes = np.maximum(never @ prior, 1e-12)  # of the labels never given, which share what is left
    found: np.ndarray = np.maximum(1 - given, 0.0) * np.diag(prior) / pseudo_votes
    found[annotator, label] = fit.chance[np.arange(len(fit.cell)), label]
    return found


def _taken_for(fit: DawidSkene, a: int, k: int, labels: tuple[str, ...]) -> str | None:
    """Return the label other than k that annotator a gives most often to texts of label k."""
    import numpy as np

    mine = np.flatnonzero((fit.cell // len(labels) == a) & (fit.cell % len(labels) != k))
    return labels[int(fit.cell[mine[fit.chance[mine, k].argmax()]] % len(labels))] if len(mine) else None
