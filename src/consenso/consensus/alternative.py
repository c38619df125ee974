"""alternative_annotator_test: may an annotator (an LLM, a consensus) stand in for one of several human annotators?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from consenso.consensus.agreement import collapse_repetitions
from consenso.consensus.votematrix import code_votes
from consenso.errors import ConfigError, DataError, nearest
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

ALL = "all"
EQUAL = 1e-9
"""Alignment scores closer than this are equal."""
NORMAL = 30
"""With fewer texts the paper replaces the t test by Wilcoxon's signed-rank test (FAQ of the paper)."""
WINS = 0.5
"""The winning rate from which the candidate passes."""


def alternative_annotator_test(
    votes: pd.DataFrame,
    humans: Sequence[str],
    candidates: Sequence[str] | None = None,
    *,
    labels: LabelSchema | None = None,
    epsilon: float = 0.1,
    q: float = 0.05,
    min_items: int = 30,
    score: Literal["accuracy", "negative_rmse"] = "accuracy",
    values: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Test whether each candidate represents the humans as well as one of them does (the Alternative Annotator Test).

    `votes`: VOTES with those of humans and candidates; to test a consensus, append its labels as the votes of one more
    annotator, and leave the votes of `humans` out when forming it. `candidates` None: all annotators that are not
    humans. Repetitions become one vote, their majority. `score`: "accuracy", or "negative_rmse" of ordered labels
    (`values`: label → number; None: positions in `labels`). `epsilon`: what the candidate's lower cost is worth, as a
    probability; the paper suggests .2 for experts, .15 for skilled annotators, .1 for crowd workers.

    Each human h in turn is left out. On the texts that h, the candidate f and another human labelled, W_f = 1 if f
    agrees with the other humans at least as well as h does, and W_h = 1 if h does at least as well as f (a tie is 1 for
    both). ρ_f and ρ_h are their means. H0: ρ_f ≤ ρ_h − ε is tested by a one-sided t test of d = W_h − W_f against ε
    (below 30 texts by an exact Wilcoxon signed-rank test of d − ε), and rejected by the Benjamini–Yekutieli procedure
    at `q`. The winning rate ω is the share of humans for whom it is rejected; the candidate passes if ω ≥ .5.

    A human with fewer than `min_items` such texts is not tested (its row has n, and null p) but stays among the others.
    A text without a valid vote of the candidate is left out and counted in n_missing: one that skips the difficult
    texts gains by it. Below three tested humans ω is null.

    Returns, per candidate, a row with human "all" (n: its texts; n_humans tested; rho_f: the average advantage
    probability ρ; winning_rate; passed) and a row per human: candidate, human, n, n_missing, n_humans, rho_f, rho_h, p,
    test, rejected, winning_rate, passed. Raises `ConfigError` for unknown or too few names, `DataError` if no candidate
    has three humans with enough texts.

    Source: Calderon, Reichart and Dror (2025, ACL, arXiv 2501.10970, and their code, github.com/nitaytech/AltTest);
    Benjamini and Yekutieli (2001, theorem 1.3).
    """
    import numpy as np
    import pandas as pd

    _check_options(epsilon, q, min_items, score)
    single, _ = collapse_repetitions(code_votes(votes, labels))
    humans, candidates = _names(humans, candidates, single.annotators)
    grid = np.full((len(single.text_ids), len(single.annotators)), -1, dtype=np.int64)
    grid[single.text, single.annotator] = single.label
    alike = _scores(single.labels, score, values)
    at = {name: place for place, name in enumerate(single.annotators)}
    given = grid[:, [at[name] for name in humans]]
    frames = [
        _test(name, grid[:, at[name]], given, humans, alike, options=(epsilon, q, min_items)) for name in candidates
    ]
    frame = pd.concat(frames, ignore_index=True)
    overall = frame[frame["human"].eq(ALL)]
    if overall["winning_rate"].isna().all():
        most = int(frame.loc[frame["human"].ne(ALL), "n"].max())
        raise DataError(
            f"alternative annotator test: no candidate has three humans with {min_items} texts that another human "
            f"labelled too (the most any has is {most}); collect more votes or lower min_items"
        )
    for row in overall[overall["n_humans"] < len(humans)].itertuples():
        skipped = frame["candidate"].eq(row.candidate) & frame["human"].ne(ALL) & frame["n"].lt(min_items)
        names = _few(frame.loc[skipped, "human"].tolist())
        logger.warning("%s: not tested against %s: fewer than %d texts in common", row.candidate, names, min_items)
    return frame


def _check_options(epsilon: float, q: float, min_items: int, score: str) -> None:
    if not 0 <= epsilon <= 1:
        raise ConfigError(f"epsilon must lie between 0 and 1 (a difference of probabilities); found {epsilon}")
    if not 0 < q < 1:
        raise ConfigError(f"q must lie between 0 and 1 (the false discovery rate); found {q}")
    if min_items < 2:
        raise ConfigError(f"min_items must be at least 2 (texts per human); found {min_items}")
    if score not in {"accuracy", "negative_rmse"}:
        raise ConfigError(f"unknown score {score!r}; choose 'accuracy' or 'negative_rmse' (ordered labels)")


def _names(
    humans: Sequence[str], candidates: Sequence[str] | None, known: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """Return the distinct names, in the order given."""
    human = list(dict.fromkeys(map(str, [humans] if isinstance(humans, str) else humans)))
    if candidates is None:
        rest = [name for name in known if name not in set(human)]
    else:
        rest = list(dict.fromkeys(map(str, [candidates] if isinstance(candidates, str) else candidates)))
    if strange := [name for name in [*human, *rest] if name not in known]:
        raise ConfigError(f"no votes of annotator {strange[0]!r}.{nearest(strange[0], known)} Voted: {_few(known)}")
    if len(human) < 3:
        raise ConfigError(f"the alternative annotator test needs at least three humans; found {human}")
    if both := [name for name in rest if name in human]:
        raise ConfigError(f"{both[0]!r} is named as a human and as a candidate; name each annotator once")
    if not rest:
        raise ConfigError("no candidate: all annotators of the votes are humans; add the votes of an LLM or consensus")
    return human, rest


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _scores(labels: tuple[str, ...], score: str, values: Mapping[str, float] | None) -> np.ndarray:
    """Return how well label k agrees with one vote for label l, (K, K); squares order sums as −RMSE orders means."""
    import numpy as np

    if score == "accuracy":
        return np.eye(len(labels))
    if values is not None and (lacking := [name for name in labels if name not in values]):
        raise ConfigError(f"values: no number for label(s) {lacking[:5]}; give one for each of {list(labels)}")
    number = np.array([values[name] for name in labels] if values else range(len(labels)), dtype=float)
    negative: np.ndarray = -((number[:, None] - number[None, :]) ** 2)
    return negative


def _test(
    candidate: str,
    mine: np.ndarray,
    given: np.ndarray,
    humans: list[str],
    alike: np.ndarray,
    *,
    options: tuple[float, float, int],
) -> pd.DataFrame:
    """Return the rows of one candidate; `mine` (n,) are its labels, `given` (n, H) those of the humans, −1: none."""
    import numpy as np
    import pandas as pd

    epsilon, q, min_items = options
    several = (given >= 0).sum(axis=1) >= 2
    usable = several & (mine >= 0)
    counts = np.zeros((int(usable.sum()), len(alike)))
    for k in range(len(alike)):
        counts[:, k] = (given[usable] == k).sum(axis=1)
    rows = []
    for place, human in enumerate(humans):
        label = given[usable, place]
        has = label >= 0
        row = {"candidate": candidate, "human": human, "n": int(has.sum())}
        rows.append(row | _compare(mine[usable][has], label[has], counts[has], alike, options=(epsilon, min_items)))
    frame = pd.DataFrame(rows)
    tested = frame["p"].notna().to_numpy()
    rejected = np.full(len(frame), None, dtype=object)
    rejected[tested] = benjamini_yekutieli(frame.loc[tested, "p"].to_numpy(dtype=float), q).tolist()
    enough = tested.sum() >= 3
    rate = float(np.mean(rejected[tested].astype(bool))) if enough else float("nan")
    overall = {
        "candidate": candidate,
        "human": ALL,
        "n": int((given[usable][:, tested] >= 0).any(axis=1).sum()),
        "n_missing": int((several & (mine < 0)).sum()),
        "n_humans": int(tested.sum()),
        "rho_f": float(frame["rho_f"].mean()),
        "rho_h": float(frame["rho_h"].mean()),
        "p": np.nan,
        "test": None,
        "winning_rate": rate,
        "passed": bool(rate >= WINS) if enough else None,
    }
    columns = ["candidate", "human", "n", "n_missing", "n_humans", "rho_f", "rho_h", "p", "test", "rejected"]
    records = [overall, *(row | {"rejected": answer} for row, answer in zip(rows, rejected))]
    result = pd.DataFrame(records, columns=[*columns, "winning_rate", "passed"])
    whole = {name: result[name].astype("Int64") for name in ("n_missing", "n_humans")}
    flags = {name: result[name].astype("boolean") for name in ("rejected", "passed")}
    return result.assign(**whole, **flags)


def _compare(
    mine: np.ndarray, label: np.ndarray, counts: np.ndarray, alike: np.ndarray, *, options: tuple[float, int]
) -> dict[str, float | str | None]:
    """Compare the candidate with one human on their texts; `counts` (n, K) includes the human's own vote."""
    import numpy as np

    epsilon, min_items = options
    if len(mine) < min_items:
        return {"rho_f": np.nan, "rho_h": np.nan, "p": np.nan, "test": None}
    others = counts.copy()
    others[np.arange(len(label)), label] -= 1
    score_f, score_h = (others * alike[mine]).sum(axis=1), (others * alike[label]).sum(axis=1)
    wins_f, wins_h = score_f >= score_h - EQUAL, score_h >= score_f - EQUAL
    difference = wins_h.astype(float) - wins_f
    test = "t" if len(mine) >= NORMAL else "wilcoxon"
    p = _t_test(difference, epsilon) if test == "t" else _wilcoxon(difference, epsilon)
    return {"rho_f": float(wins_f.mean()), "rho_h": float(wins_h.mean()), "p": p, "test": test}


def _t_test(difference: np.ndarray, epsilon: float) -> float:
    """One-sided p of H0: mean ≥ ε; without variance the mean alone decides."""
    from math import sqrt

    from scipy.special import stdtr

    n, mean = len(difference), float(difference.mean())
    if (deviation := float(difference.std(ddof=1))) == 0:
        return 0.0 if mean < epsilon else 1.0
    return float(stdtr(n - 1, (mean - epsilon) / (deviation / sqrt(n))))


def _wilcoxon(difference: np.ndarray, epsilon: float) -> float:
    """One-sided exact p of the signed-rank test of d − ε, with mid-ranks for ties; a d of exactly ε says nothing.

    Twice the ranks are integers, so the distribution of their sum over random signs is a product of polynomials.
    """
    import numpy as np
    from scipy.stats import rankdata

    moved = np.round(difference - epsilon, 9)
    moved = moved[moved != 0]
    twice = np.rint(2 * rankdata(abs(moved))).astype(np.int64)
    ways = np.zeros(int(twice.sum()) + 1)
    ways[0] = 1.0
    for rank in twice:
        ways[rank:] = (ways[rank:] + ways[: len(ways) - rank]) / 2
        ways[:rank] /= 2
    return float(min(1.0, ways[: int(twice[moved > 0].sum()) + 1].sum()))


def benjamini_yekutieli(p: np.ndarray, q: float) -> np.ndarray:
    """Return which hypotheses are rejected: those up to the largest i with p_(i) ≤ i q / (m Σ_{j≤m} 1/j)."""
    import numpy as np

    m = len(p)
    rank = np.arange(1, m + 1)
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= rank / m * (q / np.sum(1 / rank))) if m else np.empty(0, dtype=np.int64)
    rejected = np.zeros(m, dtype=bool)
    rejected[order[: below[-1] + 1 if len(below) else 0]] = True
    return rejected
