"""What a reader of the verdict should know of the consensus: coverage, ties, effective votes. Warnings only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consenso.consensus.agreement import alpha_of, annotators_per_text
from consenso.consensus.decision import EQUAL
from consenso.consensus.panel_agreement import effective_votes
from consenso.consensus.votematrix import code_votes
from consenso.tables import GUARDS, LABELS, check

if TYPE_CHECKING:
    import pandas as pd

LOW_COVERAGE = 0.9
"""Warn where fewer of the texts get a label."""
MANY_TIES = 0.05
"""Warn where more of the voted texts are tied."""
COPIES = 0.95
"""Warn where ρ is higher: the votes are nearly copies of each other."""


def check_consensus(votes: pd.DataFrame, labels: pd.DataFrame, how: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Return GUARDS rows "coverage", "ties", "effective votes" (outcome passed, warned or not_checked) and "convergence".

    `how`: what `decide` says of itself (`labels.attrs["consensus"]`); without it, and for methods that do not iterate,
    there is no row "convergence".

    Effective votes per text: n / (1 + (n − 1) ρ) (Kish 1965, design effect), n the mean number of annotators with a
    valid vote on a text that has one. Without gold ρ is the intra-class agreement of the votes: Krippendorff's alpha,
    cut to 0 … 1. Annotators who agree because they are right raise it too: the number tells how many votes carry
    information that the others do not repeat, and tends to understate how many errors are independent.
    """
    import pandas as pd

    labels = check(labels, LABELS)
    rows = [_coverage(labels), _ties(labels), _effective_votes(votes)]
    if how and how["iterations"]:
        reason = (
            how["note"] if not how["converged"] else f"{how['method']} stood still after {how['iterations']} iterations"
        )
        rows.append(_row("convergence", "passed" if how["converged"] else "warned", dict(how), reason))
    return check(pd.DataFrame(rows), GUARDS)


def _row(guard: str, outcome: str, figures: dict[str, Any], reason: str) -> dict[str, Any]:
    return {"guard": guard, "scope": "all", "outcome": outcome, "figures": json.dumps(figures), "reason": reason}


def _coverage(labels: pd.DataFrame) -> dict[str, Any]:
    n, counts = len(labels), labels["status"].value_counts()
    decided = int(counts.get("decided", 0))
    figures = {"texts": n, **{str(status): int(number) for status, number in counts.sort_index().items()}}
    missing = ", ".join(f"{number} {name}" for name, number in figures.items() if name not in {"texts", "decided"})
    reason = f"{decided} of {n} texts got a label" + (f" ({missing})" if missing else "")
    if not n:
        return _row("coverage", "not_checked", figures, "there are no texts")
    return _row("coverage", "warned" if decided < LOW_COVERAGE * n else "passed", figures, reason)


def _ties(labels: pd.DataFrame) -> dict[str, Any]:
    voted = labels[labels["status"].ne("no_votes")]
    tied = voted[voted["margin"] <= EQUAL]
    drawn, n = int(tied["label"].notna().sum()), len(voted)
    if not n:
        return _row("ties", "not_checked", {"voted": 0}, "no text has a valid vote")
    rule = "random" if drawn else "undecided" if len(tied) else "none needed"
    fate = {
        "random": "drawn at random from the seed and the text id",
        "undecided": "left without a label",
        "none needed": "",
    }
    reason = f"{len(tied)} of {n} voted texts are tied ({len(tied) / n:.1%})" + (
        f"; {fate[rule]}" if fate[rule] else ""
    )
    figures = {"voted": n, "tied": len(tied), "rate": len(tied) / n, "rule": rule}
    return _row("ties", "warned" if len(tied) > MANY_TIES * n else "passed", figures, reason)


def _effective_votes(votes: pd.DataFrame) -> dict[str, Any]:
    import math

    coded = code_votes(votes)
    n = annotators_per_text(coded)
    alpha = alpha_of(coded)
    if math.isnan(alpha):
        reason = "agreement is undefined (no text has two votes, or only one label was ever given)"
        return _row("effective votes", "not_checked", {"votes_per_text": n}, reason)
    rho, effective = min(max(alpha, 0.0), 1.0), effective_votes(n, alpha)
    figures = {"votes_per_text": n, "rho": rho, "alpha": alpha, "effective_votes": effective}
    reason = f"{n:.1f} votes per text are worth {effective:.1f} independent ones (ρ = alpha of the votes = {rho:.2f})"
    return _row("effective votes", "warned" if rho > COPIES else "passed", figures, reason)
