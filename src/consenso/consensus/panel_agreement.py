"""Agreement of a whole panel: Fleiss, Krippendorff, Gwet, Brennan and Prediger, and specific agreement.

They read only how many annotators gave each label to a text, so texts with the same counts are one kind: 5 votes and 5
labels make 252 kinds, whatever the number of texts and annotators. n_ik annotators gave text i the label k, m_i = Σ_k n_ik.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.resampling import blocks, find_alike, ratio
from consenso.consensus.votematrix import CodedVotes, run_starts

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

MEASURES = ("fleiss", "alpha", "ac1", "brennan_prediger", "alpha_interval")
"""The columns that `measures` returns."""
CERTAIN = 1 - 1e-12
"""Chance agreement above it is certain: what is beyond chance is undefined."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The U kinds of texts with a vote, in the order of the first text of each."""

    sizes: np.ndarray
    """Texts of each kind, (U,) float64."""
    counts: csr_array
    """n_ik, (U, K) float64."""
    values: np.ndarray
    """What each label is on an interval scale, (K,), stretched to 0 … 1."""
    order: np.ndarray
    """The labels from the lowest to the highest, (K,)."""

    @property
    def votes(self) -> np.ndarray:
        """m_i, (U,)."""
        votes: np.ndarray = self.counts @ _ones(self.counts.shape[1])
        return votes


def panel_of(single: CodedVotes) -> Panel:
    """Group the texts by their label counts; `single` has one vote per annotator and text."""
    import numpy as np
    from scipy.sparse import csr_array

    K = len(single.labels)
    first, sizes = find_alike(single.text, single.label)
    start = run_starts(single.text)
    size = np.diff(np.r_[start, len(single.text)])[first]
    row = np.repeat(np.arange(len(first)), size)
    at = np.arange(len(row)) + np.repeat(start[first] - (np.cumsum(size) - size), size)
    counts = csr_array((np.ones(len(row)), (row, single.label[at])), shape=(len(first), K))
    values, order = _positions(single.labels)
    return Panel(sizes.astype(float), counts, values, order)


def _positions(labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the order of the labels: the numbers that they name, or their positions."""
    import numpy as np

    try:
        values = np.array([float(name) for name in labels])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all() or len(np.unique(values)) < len(labels):
        values = np.arange(float(len(labels)))
    if len(values) > 1:
        values = (values - values.min()) / np.ptp(values)
    return values, values.argsort()


# sums over texts


def scalars(panel: Panel) -> np.ndarray:
    """Return what each kind adds to the sums that `measures` reads, (U, 8).

    m ≥ 2; agreeing share of pairs; m ≥ 1; Σ_{c≠k} n_c n_k / (m − 1); pairable votes; and of their values v: Σ v, Σ v²,
    Σ_{c,k} n_c n_k (v_c − v_k)² / (m − 1).
    """
    import numpy as np

    m, counts = panel.votes, panel.counts
    v = panel.values - panel.sizes @ (counts @ panel.values) / max(panel.sizes @ m, 1)  # less to cancel
    several = m > 1
    pairs, others = np.where(several, m * (m - 1), 1), np.where(several, m - 1, 1)
    alike = (counts * counts) @ _ones(len(v)) - m
    first, second = counts @ v, counts @ v**2
    columns = [
        np.ones(len(m)), alike / pairs, np.ones(len(m)), (m * (m - 1) - alike) / others, m,
        first, second, 2 * (m * second - first**2) / others,
    ]  # fmt: skip
    rows = np.column_stack(columns) * several[:, None]
    rows[:, 2] = m > 0
    return rows


def shares_and_pairable(panel: Panel) -> tuple[csr_array, csr_array]:
    """Return n_ik / m_i, and n_ik where m_i ≥ 2: (U, K) each."""
    m = panel.votes
    return _scaled(panel.counts, ratio(_ones(len(m)), m)), _scaled(panel.counts, (m > 1).astype(float))


def measures(sums: np.ndarray, squares: list[np.ndarray], K: int) -> np.ndarray:
    """Return Fleiss' kappa, alpha, AC1, Brennan–Prediger and the interval alpha, (R, 5), from sums over texts (R, 8).

    `squares`, (R,) each: Σ_k (Σ_i n_ik / m_i)², and Σ_k n_k² where n_k are the votes for k on texts with m_i ≥ 2.

    Chance-corrected: (p_a − p_e) / (1 − p_e), p_a the mean over texts with m_i ≥ 2 of Σ_k n_ik (n_ik − 1) / (m_i (m_i −
    1)). With π_k the mean over texts with m_i ≥ 1 of n_ik / m_i (Gwet 2014, ch. 2 and 5; irrCAC *.raw), p_e is Σ_k π_k²
    (Fleiss 1971), Σ_k π_k (1 − π_k) / (K − 1) (AC1: Gwet 2008, eq. 8) or 1 / K (Brennan and Prediger 1981); K: the labels
    that there are, used or not.

    Krippendorff (2011), over texts with m_i ≥ 2: α = 1 − (n − 1) Σ_i Σ_{c,k} n_ic n_ik δ²_ck / (m_i − 1) / Σ_{c,k} n_c
    n_k δ²_ck; δ² = 1 for two labels (nominal), (v_c − v_k)² (interval).
    """
    import numpy as np

    several, agreed, voted, disagreed, n, first, second, distance = sums.T
    shares, pairable = squares
    observed, chance = ratio(agreed, several), ratio(shares, voted**2)
    fleiss = beyond_chance(observed, chance)
    ac1 = beyond_chance(observed, (1 - chance) / (K - 1)) if K > 1 else np.full_like(observed, np.nan)
    prediger = beyond_chance(observed, np.full_like(observed, 1 / max(K, 1)))
    alpha = 1 - ratio((n - 1) * disagreed, n * n - pairable)
    spread = 2 * (n * second - first**2)
    interval = 1 - ratio((n - 1) * distance, np.where(pairable < n * n, spread, 0.0))
    return np.column_stack([fleiss, alpha, ac1, prediger, interval])


def beyond_chance(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(p_a − p_e) / (1 − p_e); NaN where chance agreement is certain."""
    import numpy as np

    certain = chance > CERTAIN
    return np.where(certain, np.nan, ratio(observed - chance, np.where(certain, 1.0, 1 - chance)))


def panel_values(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the measures (5,), these without one text of each kind (U, 5), and if all votes differed (5,).

    Leaving x out of Σ x = S makes ‖S‖² into ‖S‖² − 2 S·x + ‖x‖², which reads only the labels of the text.
    """
    import numpy as np

    K, rows = len(panel.values), scalars(panel)
    total = panel.sizes @ rows
    squares, left_squares = [], []
    for columns in shares_and_pairable(panel):
        sums = panel.sizes @ columns
        squares.append(np.array([sums @ sums]))
        left_squares.append(sums @ sums - 2 * (columns @ sums) + (columns * columns) @ _ones(K))
    everything_differs = total.copy()
    everything_differs[[1, 3, 7]] = [0.0, total[4], total[4]]
    values = measures(total[None], squares, K)[0]
    left_out = measures(total - rows, left_squares, K)
    return values, left_out, measures(everything_differs[None], squares, K)[0]


def panel_draws(panel: Panel, counts: np.ndarray) -> np.ndarray:
    """Return the measures of resampled texts, (draws, 5); `counts` (draws, U) texts per kind."""
    import numpy as np

    rows, (shares, pairable) = scalars(panel), shares_and_pairable(panel)
    draws = [np.empty((0, len(MEASURES)))]
    for some in blocks(counts, max(counts.shape[1], len(panel.values))):
        block = some.astype(float)
        squares = [((block @ columns) ** 2).sum(axis=1) for columns in (shares, pairable)]
        draws.append(measures(block @ rows, squares, len(panel.values)))
    return np.concatenate(draws)


def effective_votes(votes_per_text: float, alpha: float) -> float:
    """Return n / (1 + (n − 1) ρ): how many independent votes n are worth (Kish 1965, design effect).

    ρ is the intra-class agreement: alpha, cut to 0 … 1. NaN where alpha is.
    """
    import numpy as np

    return float(votes_per_text / (1 + (votes_per_text - 1) * np.clip(alpha, 0.0, 1.0)))


# specific agreement


def specific_entries(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, label, n_ik (n_ik − 1) and n_ik (m_i − 1) where n_ik > 0 and m_i ≥ 2: (E,) each."""
    import numpy as np

    counts = panel.counts
    kind = np.repeat(np.arange(len(panel.sizes)), np.diff(counts.indptr))
    m = panel.votes[kind]
    kept = m > 1
    number = counts.data[kept]
    return kind[kept], counts.indices[kept].astype(np.int64), number * (number - 1), number * (m[kept] - 1)


# ordinal alpha


def ordinal_value(panel: Panel) -> tuple[float, float]:
    """Return the ordinal alpha, and what it were if all votes differed as much as they can.

    δ_ck = Σ_{g = c … k} n_g − (n_c + n_k) / 2 (Krippendorff 2011) is the difference of the mid-ranks of c and k among
    all pairable votes: an interval alpha whose values are mid-ranks.
    """
    import numpy as np

    pairable, m = _in_order(panel)
    sums = (panel.sizes @ pairable)[None]
    rank = _midranks(sums)
    used = rank[0, sums[0] > 0]
    most = sums.sum() * np.ptp(used) ** 2 if len(used) else 0.0
    value, worst = (
        _ordinal_alpha(sums, rank, np.array([observed]))
        for observed in (panel.sizes @ _distances(pairable, m, rank.T)[:, 0], most)
    )
    return float(value[0]), float(worst[0])


def ordinal_left_out(panel: Panel) -> np.ndarray:
    """Return the ordinal alpha without one text of each kind, (U, 1). A text left out moves the ranks too.

    No array of K × K per text is needed, only the K × K coincidences of all texts and a row of K per kind.
    """
    import numpy as np

    pairable, m = _in_order(panel)
    sums, others = panel.sizes @ pairable, np.where(m > 1, m - 1, 1)
    coincidences = (pairable.T @ _scaled(pairable, panel.sizes / others)).toarray()
    left_out = [np.empty(0)]
    for at in blocks(np.arange(len(m)), len(sums)):
        row = pairable[at].toarray()
        rank = _midranks(sums - row)
        own = 2 * (m[at] * (row * rank**2).sum(axis=1) - (row * rank).sum(axis=1) ** 2) / others[at]
        everyone = 2 * (rank**2 @ coincidences.sum(axis=1) - ((rank @ coincidences) * rank).sum(axis=1))
        left_out.append(_ordinal_alpha(sums - row, rank, everyone - own))
    return np.concatenate(left_out)[:, None]


def ordinal_draws(panel: Panel, counts: np.ndarray) -> np.ndarray:
    """Return the ordinal alpha of resampled texts, (draws, 1); `counts` (draws, U) texts per kind."""
    import numpy as np

    pairable, m = _in_order(panel)
    draws = [np.empty(0)]
    for some in blocks(counts, max(pairable.shape)):
        block = some.astype(float)
        sums = block @ pairable
        rank = _midranks(sums)
        observed = (block.T * _distances(pairable, m, rank.T)).sum(axis=0)
        draws.append(_ordinal_alpha(sums, rank, observed))
    return np.concatenate(draws)[:, None]


def _in_order(panel: Panel) -> tuple[csr_array, np.ndarray]:
    """Return n_ik where m_i ≥ 2, labels from the lowest to the highest, and its row sums."""
    pairable = shares_and_pairable(panel)[1][:, panel.order]
    return pairable, pairable @ _ones(len(panel.order))


def _midranks(sums: np.ndarray) -> np.ndarray:
    """Return the mid-ranks of K labels given so often, (R, K), centred and divided by the number of votes."""
    n = sums.sum(axis=1, keepdims=True)
    ranks: np.ndarray = (sums.cumsum(axis=1) - sums / 2 - n / 2) / (n + (n == 0))
    return ranks


def _distances(pairable: csr_array, m: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Σ_{c,k} n_c n_k (v_c − v_k)² / (m − 1) per kind and set of values: (U, R); `values` (K, R)."""
    import numpy as np

    others = np.where(m > 1, m - 1, 1)[:, None]
    distances: np.ndarray = 2 * (m[:, None] * (pairable @ values**2) - (pairable @ values) ** 2) / others
    return distances


def _ordinal_alpha(sums: np.ndarray, rank: np.ndarray, observed: np.ndarray) -> np.ndarray:
    import numpy as np

    n = sums.sum(axis=1)
    several = (sums**2).sum(axis=1) < n * n
    return 1 - ratio((n - 1) * observed, np.where(several, 2 * n * (sums * rank**2).sum(axis=1), 0.0))


def _scaled(rows: csr_array, factor: np.ndarray) -> csr_array:
    """Multiply each row."""
    import numpy as np
    from scipy.sparse import csr_array

    number = np.diff(rows.indptr)
    factor = np.where(number > 0, factor, 0.0)
    return csr_array((rows.data * np.repeat(factor, number), rows.indices, rows.indptr), shape=rows.shape)


def _ones(length: int) -> np.ndarray:
    import numpy as np

    return np.ones(length)
