"""Where a consensus contradicts gold: a list to look at, and how much of gold may be wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consenso.consensus.agreement import collapse_repetitions
from consenso.consensus.quality import by_text, common_schema, schema_of
from consenso.consensus.votematrix import CodedVotes, code_votes, label_shares, label_sums, positions, run_starts, shown
from consenso.errors import ConfigError, DataError, JoinError, nearest
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from consenso.tables import LABELS, check

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

ALL = "all"
CLOSE = 1e-6
"""Slack of the confident thresholds; that of the cleanlab package."""


def find_gold_noise(
    labels: pd.DataFrame, gold: Any, *, schema: LabelSchema | None = None, least: float = 0.0
) -> pd.DataFrame:
    """List the texts whose consensus contradicts gold, the most doubtful gold first.

    `labels`: a LABELS frame of one method; its `shares` (vote shares, or posteriors where the method estimates them)
    stand for the probabilities of a classifier. `gold`: a TEXTS frame, or a series of label names by text id. `schema`:
    the labels in the order of `shares`; None: all names that occur, sorted. `least`: the smallest share or posterior
    of the consensus label. Undecided texts contradict nothing and are left out.

    Returns rank (from 1), text_id, gold, label (consensus), score (share or posterior of that label), margin (score −
    the next best), self_confidence (share or posterior of the gold label), n_votes, confident (whether the text is also
    counted by confident learning, see `gold_noise_bound`). In the order of self_confidence (low first), then score,
    margin and n_votes (high first), then text_id.

    A rank is a reason to look, not a verdict: annotators of one family can be wrong together, with a share of 1.
    Raises `JoinError` if no text has both, `DataError` for unknown labels or missing shares, `ConfigError` if `schema`
    does not fit the shares.

    Source: self-confidence as in Northcutt, Jiang and Chuang (2021, Confident Learning, JAIR 70, arXiv 1911.00068).
    """
    import numpy as np
    import pandas as pd

    if not 0 <= least <= 1:
        raise ConfigError(f"least must lie between 0 and 1 (a share); found {least}")
    frame = check(labels, LABELS)
    truth = by_text(gold, "gold", "gold")
    names = LabelSchema.of(schema) or schema_of(frame["label"], truth)
    given = names.codes(by_text(frame, "label", "labels"))
    true = _joined(pd.Index(frame["text_id"]), truth, names)
    known = (true >= 0) & frame["shares"].notna().to_numpy()
    if not known.any() and (true >= 0).any():
        raise DataError("labels: no row with gold has `shares`; pass the frame that decide returned")
    shares, given, true = _stacked(frame.loc[known, "shares"], given[known], names), given[known], true[known]
    row = np.arange(len(true))
    score, confident = shares[row, np.maximum(given, 0)], confident_labels(shares, true)
    others = shares.copy()
    others[row, given] = -1.0
    result = pd.DataFrame(
        {
            "text_id": frame["text_id"].to_numpy()[known],
            "gold": np.array(names.names, dtype=object)[true],
            "label": frame["label"].to_numpy()[known],
            "score": score,
            "margin": score - others.max(axis=1),
            "self_confidence": shares[row, true],
            "n_votes": frame["n_votes"].to_numpy()[known],
            "confident": (confident >= 0) & (confident != true),
        }
    )
    contradicts = result[(given >= 0) & (given != true) & (score >= least - CLOSE)]
    ranked = contradicts.assign(place=contradicts["text_id"].map(str)).sort_values(
        ["self_confidence", "score", "margin", "n_votes", "place"], ascending=[True, False, False, False, True]
    )
    ranked = ranked.drop(columns="place").reset_index(drop=True)
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    logger.info("gold noise: the consensus contradicts gold on %d of %d texts", len(ranked), len(true))
    return ranked


def confident_labels(shares: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the label each text is confidently counted for, −1 for none.

    The threshold of label j is the mean share of j among the texts with gold j; a text counts for its largest share
    among those that reach their thresholds (Northcutt et al. 2021, section 3.1, equations 1 and 2).
    """
    import numpy as np

    K = shares.shape[1]
    number = np.bincount(true, minlength=K)
    total = np.bincount(true, weights=shares[np.arange(len(true)), true], minlength=K)
    threshold = np.where(number > 0, np.maximum(total / np.maximum(number, 1), 2 * CLOSE), np.inf)
    reached = shares >= threshold - CLOSE
    best = np.where(reached, shares, -1.0).argmax(axis=1)
    chosen: np.ndarray = np.where(reached.any(axis=1), best, -1)
    return chosen


def gold_noise_bound(
    votes: pd.DataFrame,
    gold: Any,
    *,
    labels: LabelSchema | None = None,
    families: Mapping[str, str] | None = None,
    min_votes: int = 2,
    level: float = 0.95,
) -> pd.DataFrame:
    """Count, per gold class, the texts where all annotators contradict gold unanimously, and what that may mean.

    `votes`: VOTES; the vote of an annotator is the majority of its repetitions. Texts with gold and at least
    `min_votes` such votes count. `families`: annotator → family, for annotators that tend to err together (one model
    in several sizes, models trained on the same data); one that is not named is a family of its own.

    Returns a row for "all" and one per gold class:

    - gold, n (texts), unanimous (texts whose annotators all give one and the same label that is not gold), share
      (unanimous / n), low, high (Wilson's interval at `level`);
    - expected_independent: the share to expect if gold were right and annotators (with `families`: families, whose
      members err together as far as their rates allow) erred independently of each other within a class;
    - expected_together: the largest share possible if gold were right and all annotators were one family;
    - n_confident, share_confident: texts that confident learning counts as another class (Northcutt et al. 2021,
      equation 1), with vote shares as probabilities.

    What `share` bounds, and what it does not. IF annotators never all make the same mistake, `share` estimates a lower
    bound of the noise in gold (errors of gold that only some annotators contradict come on top). That premise cannot be
    checked from votes and gold: texts that are hard in the same way for everybody, and models of one family, produce
    unanimous mistakes as well. `share` − expected_independent is therefore noise in gold OR dependence between
    annotators, never told apart here; expected_together shows that full dependence would explain all of it. Only people
    who look at a sample of the texts (see `find_gold_noise`) can turn the share into a number of errors of gold.

    P(annotator says l | gold c) is estimated from the same votes, so the noise of gold is in it and expected_independent
    is rather too high. Raises `JoinError` if no text has gold and votes, `DataError` if none has `min_votes` votes or a
    label is unknown, `ConfigError` for a wrong option or unknown annotator.
    """
    import numpy as np
    import pandas as pd

    if min_votes < 2:
        raise ConfigError(f"min_votes must be at least 2 (one annotator is always unanimous); found {min_votes}")
    if not 0 < level < 1:
        raise ConfigError(f"level must lie between 0 and 1, such as 0.95; found {level}")
    truth = by_text(gold, "gold", "gold")
    coded = code_votes(votes, labels)
    names = LabelSchema.of(labels) or common_schema(set(coded.labels), set(truth.dropna().map(str)))
    single, _ = collapse_repetitions(coded if names.names == coded.labels else code_votes(votes, names))
    true = _joined(single.text_ids, truth, names)
    counts = label_sums(single, single.weight)
    kept = (true >= 0) & (counts.sum(axis=1) >= min_votes)
    if not kept.any():
        raise DataError(
            f"gold noise: none of the {int((true >= 0).sum())} texts with gold has {min_votes} annotators with a valid "
            "vote; collect more votes"
        )
    expected = _expected(single, true, _family_codes(single.annotators, families))
    one_family = _expected(single, true, np.zeros(len(single.annotators), dtype=np.int64))
    shares, true = label_shares(single, single.weight)[kept], true[kept]
    modal = counts[kept].argmax(axis=1)
    unanimous = (counts[kept].max(axis=1) == counts[kept].sum(axis=1)) & (modal != true)
    confident = confident_labels(shares, true)
    doubted = (confident >= 0) & (confident != true)
    rows = []
    for name, mine in [(ALL, true >= 0), *((name, true == k) for k, name in enumerate(names))]:
        n, count = int(mine.sum()), int(unanimous[mine].sum())
        low, high = wilson(count, n, level)
        row = {"gold": name, "n": n, "unanimous": count, "share": _mean(unanimous[mine]), "low": low, "high": high}
        row["expected_independent"] = _mean(expected[kept][mine])
        row["expected_together"] = _mean(one_family[kept][mine])
        rows.append(row | {"n_confident": int(doubted[mine].sum()), "share_confident": _mean(doubted[mine])})
    logger.info("gold noise: %d of %d texts unanimously contradict gold", int(unanimous.sum()), len(true))
    return pd.DataFrame(rows)


def _expected(votes: CodedVotes, true: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Return, per text, the chance that its annotators all give one label that is not gold, if gold is right.

    Σ_{l ≠ c} Π_families min_{a in family} P(a says l | c): independent between families; within one the joint
    probability is at its (Fréchet) maximum, the smallest of the members' probabilities.
    """
    import numpy as np

    n, K = votes.shape
    A = len(votes.annotators)
    scored = true[votes.text] >= 0
    text, annotator, label = votes.text[scored], votes.annotator[scored], votes.label[scored]
    table = np.bincount((annotator * K + true[text]) * K + label, minlength=A * K * K).reshape(A, K, K)
    rate = table / np.maximum(table.sum(axis=2, keepdims=True), 1)
    cell = text * (int(family.max()) + 1) + family[annotator]
    order = np.argsort(cell, kind="stable")
    start = run_starts(cell[order])
    chance = np.zeros(n)
    for wrong in range(K):
        p = rate[annotator, true[text], wrong][order]
        smallest = np.minimum.reduceat(p, start) if len(p) else p
        with np.errstate(divide="ignore"):
            logs = np.bincount(text[order][start], weights=np.log(smallest), minlength=n)
        chance += np.where(true == wrong, 0.0, np.exp(logs))
    return chance


def _family_codes(annotators: tuple[str, ...], families: Mapping[str, str] | None) -> np.ndarray:
    import numpy as np

    if strange := [name for name in families or {} if name not in annotators]:
        raise ConfigError(
            f"families: no votes of annotator {strange[0]!r}.{nearest(strange[0], annotators)} Voted: {list(annotators)[:8]}"
        )
    names = [("family", families[name]) if families and name in families else ("own", name) for name in annotators]
    code = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([code[name] for name in names], dtype=np.int64)


def _joined(ids: pd.Index, truth: pd.Series, names: LabelSchema) -> np.ndarray:
    """Return the gold label of each text, −1 without gold."""
    import numpy as np

    true: np.ndarray = np.append(names.codes(truth), -1)[positions(ids, truth.index)]
    if not (true >= 0).any():
        raise JoinError(
            f"none of the {len(ids)} texts has gold ({int(truth.notna().sum())} other texts have); "
            "use the same text_id in both"
        )
    return true


def _stacked(shares: pd.Series, given: np.ndarray, names: LabelSchema) -> np.ndarray:
    """Return the shares as (n, K), after checking that their order is that of the names."""
    import numpy as np

    if not len(shares):
        return np.zeros((0, len(names)))
    found = sorted({len(row) for row in shares})
    if found != [len(names)]:
        raise ConfigError(
            f"schema: {len(names)} labels, but shares of {found} numbers; pass the schema decide was given"
        )
    stacked = np.array(shares.tolist(), dtype=float)
    decided = given >= 0
    below = stacked[decided, given[decided]] < stacked[decided].max(axis=1) - CLOSE
    if below.any():
        text = shown(shares.index[decided][below][0])
        raise ConfigError(
            f"schema: {int(below.sum())} label(s) do not have the largest share (row {text}); pass the schema, in the "
            "order decide was given"
        )
    return stacked


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
