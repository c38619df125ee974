"""decide: votes → one label per text. Thresholds, ties and abstention live here alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from consenso.consensus.methods import METHODS
from consenso.consensus.settings import ProblematicRule, Ties, unknown_method, wrong_choice
from consenso.consensus.votematrix import CodedVotes, Count, Options, code_votes, label_shares, vote_numbers
from consenso.errors import ConfigError
from consenso.labels import LabelSchema
from consenso.tables import LABELS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

EQUAL = 1e-9
"""Shares closer than this are equal: ⅓ + ⅓ + ⅓ must not win over 1 by a rounding error."""


def decide(
    votes: pd.DataFrame,
    method: str = "majority",
    *,
    labels: LabelSchema | None = None,
    texts: Any = None,
    threshold: float | None = None,
    ties: Ties = "undecided",
    weights: Mapping[str, float] | None = None,
    count: Count = "annotator",
    seed: int = 0,
    problematic: ProblematicRule | None = None,
    probabilities: Any = None,
) -> pd.DataFrame:
    """Turn votes into one label per text.

    `votes`: text_id, annotator, label, and optionally repetition and status; votes without a label or with a status
    other than ok do not count. `labels` None: the distinct labels of the votes, sorted. `texts` (ids or a TEXTS frame):
    the texts to cover, in this order; None: those in votes, sorted. `threshold`: the winner's smallest share.
    `count`: "annotator" averages an annotator's repetitions, "vote" pools all votes.

    Returns LABELS: text_id, method, label (or null), status (decided, tied, below_threshold, no_votes), score (the
    winner's share), posterior (null for methods that estimate none), entropy_bits, margin (first − second share), level
    (high ≥ .8, medium ≥ .6, low), n_votes, shares (K floats in schema order), is_problematic. Status below_threshold
    goes before tied; a tie that was drawn at random is decided, with margin 0.

    Raises `ConfigError` for a wrong option, `DataError` for an unknown vote label, `JoinError` if no text has votes.
    """
    rule = ProblematicRule() if problematic is None else problematic
    _check_choices(method, threshold, ties, count)
    if mistake := wrong_choice(method, rule, weights=dict(weights or {}), probabilities=probabilities):
        raise ConfigError(mistake)
    coded = code_votes(votes, labels, texts=texts, count=count)
    chosen = METHODS[method]
    least = max(chosen.at_least, (chosen.threshold or 0.0) if threshold is None else threshold)
    shares = chosen.shares(coded, Options(weights or {}, probabilities, seed))
    frame = _choose(shares, coded, least=least, ties=ties, seed=seed)
    if chosen.posterior:
        frame["posterior"] = frame["score"]
        frame["score"] = _share_of(label_shares(coded, coded.weight), frame["winner"].to_numpy())
    frame["n_votes"] = vote_numbers(coded)
    frame["level"] = _levels(frame["score"].to_numpy())
    frame["is_problematic"] = _is_problematic(frame, rule)
    frame.insert(1, "method", method)
    counts = frame["status"].value_counts()
    logger.info("consensus (%s): %d texts: %s", method, len(frame), ", ".join(f"{n} {s}" for s, n in counts.items()))
    return check(frame.drop(columns="winner"), LABELS)


def _check_choices(method: str, threshold: float | None, ties: str, count: str) -> None:
    if method not in METHODS:
        raise ConfigError(unknown_method(method))
    if ties not in {"undecided", "random"}:
        raise ConfigError(f"unknown tie policy {ties!r}; choose 'undecided' or 'random'")
    if count not in {"annotator", "vote"}:
        raise ConfigError(f"unknown count {count!r}; choose 'annotator' (repetitions averaged) or 'vote' (pooled)")
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie between 0 and 1 (a share of the votes); found {threshold}")


def _choose(shares: np.ndarray, coded: CodedVotes, *, least: float, ties: str, seed: int) -> pd.DataFrame:
    """Return what follows from the shares alone; `winner` is the position of the label, −1 without votes."""
    import numpy as np
    import pandas as pd

    n, K = shares.shape
    wide = np.pad(shares, ((0, 0), (0, max(0, 2 - K))))
    first = wide.max(axis=1)
    second = np.partition(wide, -2, axis=1)[:, -2]
    voted = wide.sum(axis=1) > 0
    best = wide >= first[:, None] - EQUAL
    tied = voted & (best.sum(axis=1) > 1)
    below = voted & (first < least - EQUAL)
    winner = best.argmax(axis=1)
    if ties == "random":
        for row in np.flatnonzero(tied & ~below):
            winner[row] = _draw(best[row], coded.labels, coded.text_ids[row], seed)
    decided = voted & ~below & ~(tied & (ties == "undecided"))
    label = np.full(n, None, dtype=object)
    label[decided] = np.array(coded.labels, dtype=object)[winner[decided]]
    status = np.select([~voted, below, decided], ["no_votes", "below_threshold", "decided"], "tied")
    null = np.where(voted, 0.0, np.nan)
    return pd.DataFrame(
        {
            "text_id": coded.text_ids,
            "label": label,
            "status": status.astype(object),
            "score": first + null,
            "posterior": np.nan,
            "entropy_bits": _entropy_bits(shares) + null,
            "margin": np.where(tied, 0.0, first - second) + null,
            "shares": [row if known else None for row, known in zip(shares, voted)],
            "winner": np.where(voted, winner, -1),
        }
    )


def _draw(best: np.ndarray, names: tuple[str, ...], text_id: Any, seed: int) -> int:
    """Draw one of the tied labels, taken in the order of their names, from the seed and the text id alone."""
    import numpy as np

    tied = sorted(np.flatnonzero(best).tolist(), key=lambda k: names[k])
    ticket = blake2b(f"{seed}\x1f{text_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int(tied[int.from_bytes(ticket, "big") % len(tied)])


def _entropy_bits(shares: np.ndarray) -> np.ndarray:
    """Shannon entropy of each row, in bits."""
    import numpy as np

    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    bits: np.ndarray = 0.0 - (shares * logs).sum(axis=1)
    return bits


def _share_of(shares: np.ndarray, winner: np.ndarray) -> np.ndarray:
    import numpy as np

    found: np.ndarray = shares[np.arange(len(shares)), winner]
    return np.where(winner >= 0, found, np.nan)


def _levels(score: np.ndarray) -> np.ndarray:
    import numpy as np

    level = np.select([score >= 0.8 - EQUAL, score >= 0.6 - EQUAL], ["high", "medium"], "low").astype(object)
    level[np.isnan(score)] = None
    return level


def _is_problematic(frame: pd.DataFrame, rule: ProblematicRule) -> np.ndarray:
    import numpy as np

    value = frame[rule.measure].to_numpy()
    outside = value < rule.below - EQUAL if rule.below is not None else value > (rule.above or 0.0) + EQUAL
    return np.asarray(outside | np.isnan(value), dtype=bool)
