"""decide: votes → one label per text. Thresholds, ties and abstention live here alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from consenso.consensus.framing import labels_frame, rows_column, text_column, top_two
from consenso.consensus.inputs import (
    aligned,
    check_choices,
    coded_votes,
    gold_codes,
    halves,
    learns_from_gold,
    numbers_of,
)
from consenso.consensus.methods import METHODS, Options, Shares
from consenso.consensus.methods.majority import majority
from consenso.consensus.settings import DEFAULT, ProblematicRule, Ties, wrong_choice
from consenso.consensus.targets import threshold_for
from consenso.consensus.votematrix import CodedVotes, Count, vote_numbers
from consenso.errors import ConfigError
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

EQUAL = 1e-9
"""Shares closer than this are equal: ⅓ + ⅓ + ⅓ must not win over 1 by a rounding error."""
ALONE = "one annotator: there is nothing to aggregate; its votes are the labels"
CLOSE = 1e-6
"""Posteriors closer than this are equal: EM stops where they move by less."""


def decide(
    votes: Any,
    method: str = DEFAULT,
    *,
    labels: LabelSchema | None = None,
    texts: Any = None,
    threshold: float | None = None,
    ties: Ties = "undecided",
    weights: Mapping[str, float] | str | None = None,
    families: Mapping[str, str] | None = None,
    gold: Any = None,
    probabilities: Any = None,
    count: Count = "annotator",
    iterations: int = 500,
    seed: int = 0,
    problematic: ProblematicRule | None = None,
) -> pd.DataFrame:
    """Turn votes into one label per text.

    `votes`: text_id, annotator, label, and optionally repetition and status (a frame, Parquet files or `CodedVotes`);
    votes without a label or with a status other than ok do not count. `labels` None: the distinct labels of the votes,
    sorted. `texts` (ids or a TEXTS frame): the texts to cover, in this order; None: those in votes, sorted.
    `threshold`: the winner's smallest share. `count`: "annotator" averages an annotator's repetitions, "vote" pools all
    votes. For the methods that read them: `weights` (annotator → weight, "gold" or "votes"), `families` (annotator →
    model family), `gold` (series by text id, or a TEXTS frame: labels that may be used), `probabilities` (frame by text
    id with a column per label, or an array in the order of the texts). `iterations`: the most of a method that iterates.

    Returns LABELS: text_id, method, label (or null), status (decided, tied, below_threshold, no_votes), score (the
    winner's share of the votes), posterior (the winner's; null for methods that estimate none), entropy_bits, margin
    (first − second share), level (high ≥ .8, medium ≥ .6, low), n_votes, shares (K floats in schema order),
    is_problematic. Status below_threshold goes before tied; a tie that was drawn at random is decided, with margin 0.
    `attrs["consensus"]` says how it went: method, converged, iterations, note, uses_gold (texts). Where only one annotator
    voted, a model of annotators has nothing to learn from: its votes are the labels, without a posterior (a rule on it reads the score).

    Raises `ConfigError` for a wrong option, `DataError` for an unknown vote label, `JoinError` if no text has votes.
    """
    import numpy as np

    rule = ProblematicRule() if problematic is None else problematic
    check_choices(method, rule, threshold=threshold, ties=ties, count=count, iterations=iterations, seed=seed)
    weights = weights if isinstance(weights, str) else numbers_of("weights", weights)
    given = {"weights": weights, "families": families, "probabilities": probabilities}
    if mistake := wrong_choice(method, rule, has_gold=gold is not None, **given):
        raise ConfigError(mistake)
    coded = coded_votes(votes, METHODS[method], labels=labels, texts=texts, count=count)
    known = gold_codes(gold, coded)
    options = Options(
        weights=weights or {},
        families=families or {},
        gold=known,
        probabilities=aligned(probabilities, coded),
        iterations=iterations,
        seed=seed,
    )
    chosen, tested = METHODS[method], known
    if rule.target is not None and known is not None and learns_from_gold(chosen, options):
        # a bound found on the gold that was learned from promises too much
        learned, tested = halves(known, coded.text_ids, seed)
        options = replace(options, gold=learned)
    if missing := sorted(name for name in chosen.needs if getattr(options, name) is None):
        raise ConfigError(f"method {method!r} needs {missing[0]}; pass them, or choose another method")
    is_alone = chosen.iterates and len(np.unique(coded.annotator)) == 1
    if is_alone:
        chosen = replace(chosen, shares=_own_votes, posterior=False)
        rule = rule.model_copy(update={"measure": "score"}) if rule.measure == "posterior" else rule
    found = chosen.shares(coded, options) if coded.labels else Shares(np.zeros(coded.shape))
    least = max(chosen.at_least, (chosen.threshold or 0.0) if threshold is None else threshold)
    equal = CLOSE if chosen.posterior else EQUAL
    columns, winner = _choose(found.values, coded, least=least, ties=ties, seed=seed, equal=equal)
    if chosen.posterior:
        columns["posterior"] = columns["score"]
        columns["score"] = _share_of(coded, winner)
    columns["n_votes"] = vote_numbers(coded)
    columns["level"] = _levels(columns["score"])
    columns["is_problematic"], target = _is_problematic(columns, winner, rule, tested)
    labels_of = labels_frame(coded.text_ids, {"method": method, **columns})
    labels_of.attrs["consensus"] = {
        "method": method,
        "converged": found.converged,
        "iterations": found.iterations,
        "note": "; ".join(filter(None, [found.note, target])),
        "uses_gold": 0 if known is None else int((known >= 0).sum()),
    }
    _log(labels_of)
    return labels_of


def _own_votes(coded: CodedVotes, options: Options) -> Shares:
    """The votes of the only annotator: nothing tells a model how far to trust it."""
    return replace(majority(coded, options), note=ALONE)


def _log(labels: pd.DataFrame) -> None:
    how = labels.attrs["consensus"]
    counts = ", ".join(f"{n} {status}" for status, n in labels["status"].value_counts().items())
    logger.info("consensus (%s): %d texts: %s", how["method"], len(labels), counts)
    if not how["converged"]:
        logger.warning("consensus (%s): %s", how["method"], how["note"])


def _choose(
    shares: np.ndarray, coded: CodedVotes, *, least: float, ties: str, seed: int, equal: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the columns that follow from the shares alone, and the position of the winner, −1 without votes."""
    import numpy as np

    first, second = top_two(shares)
    voted = first > 0
    tied = voted & (first - second <= equal)
    below = voted & (first < least - EQUAL)
    best = shares >= first[:, None] - equal
    winner = best.argmax(axis=1) if shares.shape[1] else np.zeros(len(shares), dtype=np.int64)
    if ties == "random":
        for row in np.flatnonzero(tied & ~below):
            winner[row] = _draw(best[row], coded.labels, coded.text_ids[row], seed)
    decided = voted & ~below & ~(tied & (ties == "undecided"))
    status = np.zeros(len(shares), dtype=np.int8)
    status[tied & ~decided], status[below], status[~voted] = 1, 2, 3
    winner = np.where(voted, winner, -1)
    null = np.where(voted, 0.0, np.nan)
    columns = {
        "label": text_column(np.where(decided, winner, -1), coded.labels),
        "status": text_column(status, ("decided", "tied", "below_threshold", "no_votes")),
        "score": first + null,
        "posterior": np.full(len(shares), np.nan),
        "entropy_bits": _entropy_bits(shares) + null,
        "margin": np.where(tied, 0.0, first - second) + null,
        "shares": rows_column(shares, voted),
    }
    return columns, winner


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


def _share_of(coded: CodedVotes, winner: np.ndarray) -> np.ndarray:
    """Return the winner's share of the votes."""
    import numpy as np

    n = len(winner)
    won = np.bincount(coded.text, weights=coded.weight * (coded.label == winner[coded.text]), minlength=n)
    given = np.bincount(coded.text, weights=coded.weight, minlength=n)
    share: np.ndarray = np.divide(won, given, out=np.full(n, np.nan), where=given > 0)
    return share


def _levels(score: np.ndarray) -> pd.Series:
    import numpy as np

    code = (score < 0.8 - EQUAL).astype(np.int8) + (score < 0.6 - EQUAL)
    return text_column(np.where(np.isnan(score), -1, code), ("high", "medium", "low"))


def _is_problematic(
    columns: Mapping[str, Any], winner: np.ndarray, rule: ProblematicRule, gold: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """Return which labels are problematic, and the sentence of a target accuracy ('' without)."""
    import numpy as np

    value = columns[rule.measure]
    if rule.target is not None:
        decided = columns["label"].notna().to_numpy()
        measure = np.where(decided, value if rule.measure != "entropy_bits" else -value, np.nan)
        return _misses_target(measure, winner, rule.target, gold)
    outside = value < rule.below - EQUAL if rule.below is not None else value > (rule.above or 0.0) + EQUAL
    return np.asarray(outside | np.isnan(value), dtype=bool), ""


def _misses_target(
    value: np.ndarray, winner: np.ndarray, target: float, gold: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """`value`: the larger the surer; NaN where nothing is decided."""
    import numpy as np

    if gold is None or not (gold >= 0).any():
        raise ConfigError(
            f"problematic.target = {target:g} needs gold: none of the texts has gold that may be used; "
            "pass `gold` (in an experiment: consensus.gold_texts), or give `below`"
        )
    known, right = gold >= 0, ~np.isnan(value) & (winner == gold)
    found = threshold_for(value[known], right[known], target)
    if found.threshold is None:
        return np.ones(len(value), dtype=bool), found.sentence
    return np.asarray(~(value >= found.threshold), dtype=bool), found.sentence
