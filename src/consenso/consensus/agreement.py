"""measure_agreement: how far annotators agree with each other and with themselves, with 95 % intervals.

The formulas and their sources stand in `pair_agreement` (raw, Cohen) and `panel_agreement` (the others), the intervals in
`intervals_of_sums` (jackknife) and `resampling` (bootstrap).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from consenso.consensus.agreement_rows import ALL, Choice, Intervals, Scale, pair_rows, panel_rows, within_rows
from consenso.consensus.framing import names_column
from consenso.consensus.panel_agreement import MEASURES, ordinal_value, panel_of, panel_values
from consenso.consensus.votematrix import CodedVotes, code_votes, run_starts
from consenso.errors import ConfigError
from consenso.labels import LabelSchema
from consenso.tables import AGREEMENT, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)


def measure_agreement(
    votes: pd.DataFrame,
    *,
    labels: LabelSchema | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    ordered: bool = False,
    intervals: Intervals = "auto",
) -> pd.DataFrame:
    """Measure agreement between annotators, and of each with itself, with 95 % intervals over texts.

    Returns AGREEMENT: measure, scope, value, low, high, n (texts used). Between annotators, the vote of one on a text
    is the majority of its repetitions (a tie is a missing vote). See `agreement_of` for the measures and intervals.

    `ordered`: the order of `labels` (without them: of the sorted names) means something, so the alphas for ordered labels
    are measured too.
    Raises `DataError` for an unknown vote label, `ConfigError` for an unknown kind of intervals.
    """
    return agreement_of(
        code_votes(votes, labels),
        bootstrap=bootstrap,
        seed=seed,
        scale="interval" if ordered else "nominal",
        intervals=intervals,
    )


def agreement_of(
    coded: CodedVotes,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    scale: Scale = "nominal",
    intervals: Intervals = "auto",
) -> pd.DataFrame:
    """Measure the agreement of coded votes; returns AGREEMENT, as `measure_agreement`.

    - raw, cohen: scope "a × b" over the texts both voted on (pairs without one have no row; of more than 5,000 pairs
      those with the most texts have one); scope "all" is the mean over all pairs where it is defined.
    - fleiss, alpha, ac1, brennan_prediger: scope "all", over texts with at least two votes. alpha_ordinal where `scale` is
      ordinal or interval, alpha_interval where it is interval. Labels that are all numbers are ordered and spaced by
      their numbers, others by their positions.
    - effective_votes: scope "all"; see `effective_votes`. Its interval is that of alpha, the number of votes as it is.
    - specific: scope = a label; the chance that a second annotator gives it to a text to which a first one gave it
      (Fleiss 1971): Σ_i n_ik (n_ik − 1) / Σ_i n_ik (m_i − 1).
    - consistency: scope = an annotator with repeated votes; its mean share of the modal label over the texts with at
      least two; "all" is the mean over annotators.

    A measure that is undefined (chance agreement is certain, no text has two votes) is null, never 1.
    `intervals` "auto" is the jackknife: it needs no draws and covers better than the percentile bootstrap over texts
    (benchmarks/consensus/coverage.py), for which `bootstrap` is the number of draws. `bootstrap=0`: no intervals.
    """
    import numpy as np
    import pandas as pd

    if bootstrap < 0:
        raise ConfigError(f"bootstrap must be 0 (no intervals) or a number of draws; found {bootstrap}")
    for name, found, known in (("scale", scale, Scale), ("intervals", intervals, Intervals)):
        if found not in get_args(known):
            raise ConfigError(f"{name} must be one of {', '.join(get_args(known))}; found {found!r}")
    choice = Choice(bootstrap, seed, intervals != "bootstrap")
    single, consistency = collapse_repetitions(coded)
    parts = [
        *pair_rows(single, choice),
        *panel_rows(single, choice, scale, annotators_per_text(coded)),
        *within_rows(coded, consistency, choice),
    ]
    frames = []
    for part in parts:
        low, high = part.interval if bootstrap else (np.nan, np.nan)
        columns = {
            "scope": names_column(part.scopes),
            "value": part.values,
            "low": low,
            "high": high,
            "n": part.n.astype(np.int64),
        }
        frames.append(pd.DataFrame({"measure": part.measure, **columns}))
    logger.info("agreement: %d annotators, %d texts", len(coded.annotators), len(coded.text_ids))
    frame = pd.concat(frames, ignore_index=True)
    overall = frame["scope"].eq(ALL)
    return check(pd.concat([frame[overall], frame[~overall]], ignore_index=True), AGREEMENT)


def collapse_repetitions(votes: CodedVotes) -> tuple[CodedVotes, np.ndarray]:
    """Return one vote per annotator and text, and how consistent it was.

    The vote is the majority of the annotator's repetitions; a tie is dropped. The second value has a row
    (text, annotator, share of the modal label) per annotator and text with at least two valid votes.
    """
    import numpy as np

    A, K = len(votes.annotators), max(len(votes.labels), 1)
    cell = votes.text * A + votes.annotator
    if not (cell[1:] == cell[:-1]).any():
        return votes, np.empty((0, 3))
    first = run_starts(cell * K + votes.label)
    number = np.diff(np.r_[first, len(cell)])
    start = run_starts(cell[first])
    modal = np.maximum.reduceat(number, start)
    total = np.add.reduceat(number, start)
    size = np.diff(np.r_[start, len(number)])
    is_modal = number == np.repeat(modal, size)
    clear = np.add.reduceat(is_modal.astype(np.int64), start) == 1
    at = first[is_modal & np.repeat(clear, size)]
    single = replace(
        votes, text=votes.text[at], annotator=votes.annotator[at], label=votes.label[at], weight=np.ones(len(at))
    )
    again = total > 1
    where = first[start][again]
    return single, np.column_stack([votes.text[where], votes.annotator[where], modal[again] / total[again]])


# single numbers


def alpha_of(votes: CodedVotes, metric: Scale = "nominal") -> float:
    """Return Krippendorff's alpha of coded votes; NaN where undefined."""
    panel = panel_of(collapse_repetitions(votes)[0])
    if metric == "ordinal":
        return ordinal_value(panel)[0]
    return float(panel_values(panel)[0][MEASURES.index("alpha" if metric == "nominal" else "alpha_interval")])


def fleiss_of(votes: CodedVotes) -> float:
    """Return Fleiss' kappa of coded votes; NaN where undefined."""
    return float(panel_values(panel_of(collapse_repetitions(votes)[0]))[0][MEASURES.index("fleiss")])


def annotators_per_text(votes: CodedVotes) -> float:
    """Return the mean number of annotators with a valid vote, over the texts with one; 0 without votes."""
    texts = len(run_starts(votes.text))
    return len(run_starts(votes.text * len(votes.annotators) + votes.annotator)) / texts if texts else 0.0


def landis_koch(value: float) -> str:
    """Return the word of Landis and Koch (1977) for a kappa: a gloss, not a test; "undefined" for NaN."""
    if math.isnan(value):
        return "undefined"
    bounds = {"poor": -1e-300, "slight": 0.2, "fair": 0.4, "moderate": 0.6, "substantial": 0.8}
    return next((word for word, bound in bounds.items() if value <= bound), "almost perfect")
