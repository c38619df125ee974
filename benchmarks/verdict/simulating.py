"""Predictions of two arms whose true difference is known: the world in which `grid.py` tries the two-way interval.

Latent normal model. Arm a (A: −, B: +), seed s and item i with gold class g are right when

    h_g ± (shift + tilt_g + η_s)/2 + d_i ± b_i + e_asi > 0,

with d the item's difficulty (shared by arms and seeds), b what the item does to one arm in every seed, e noise and η the
seed's effect on the difference. Var(d) + Var(b) + Var(e) = 1, hence recall of class g = Φ(h_g ± (shift + tilt_g + η_s)/2):
no probability is ever clipped. A wrong prediction goes to the item's confusable class of both arms, or to one of its
arm. Classes are drawn from tables of 4,096 entries, so that the population's accuracy and macro-F1 are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

ENTRIES = 4096
"""Length of a table from which classes are drawn."""
SHARED = 160
"""Of 256 wrong predictions, those that go to the class which both arms confuse the item with."""
PERSISTS = 0.16
"""Share of the disagreement that persists across seeds (docs/verdict-proof.md)."""
PRIORS = {
    2: (0.441, 0.559),  # BABE
    5: (0.126, 0.287, 0.176, 0.231, 0.180),  # SST-5, test
    21: (0.1342, 0.1243, 0.1224, 0.0702, 0.0679, 0.0653, 0.0566, 0.0564, 0.049, 0.0402, 0.0355, 0.0277, 0.0277, 0.0266,
         0.0237, 0.0207, 0.0162, 0.0131, 0.012, 0.0053, 0.0049),  # policy documents
}  # fmt: skip
ACCURACY = {2: 0.73, 5: 0.53, 21: 0.62}
DISAGREEMENT = {2: 0.22, 5: 0.31, 21: 0.28}
"""Share of (seed, item) where exactly one arm is right, at Delta = 0."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class World:
    """A population of items and two arms that label them. Arrays: K classes; two arms, A first."""

    prior: np.ndarray
    """Share of every class, (K,)."""
    gold_table: np.ndarray
    """Gold classes in the shares of `prior`, (ENTRIES,)."""
    level: np.ndarray
    """h_g, (K,)."""
    tilt: np.ndarray
    """What arm B does to single classes, (K,)."""
    var_difficulty: float
    """Var(d)."""
    var_arm: float
    """Var(b)."""
    var_noise: float
    """Var(e)."""
    wrong_tables: np.ndarray
    """Classes of wrong predictions by gold class: shared, of arm A, of arm B, (3, K, ENTRIES)."""
    confusion: np.ndarray
    """Shares of wrong predictions, [arm, gold, predicted], (2, K, K)."""


@dataclass(frozen=True)
class Effect:
    """What separates arm B from arm A, in latent units."""

    shift: float
    """Of arm B against arm A."""
    sd: float
    """Standard deviation of η over seeds."""


@lru_cache
def world(classes: int) -> World:
    """Return the population with 2, 5 or 21 classes: PRIORS, ACCURACY and DISAGREEMENT say which."""
    gold_table = _table(np.array(PRIORS[classes]))
    prior = _shares(gold_table, classes)
    slope = 0.25 * (np.log(prior) - prior @ np.log(prior))  # rare classes are harder
    level = slope + brentq(lambda at: prior @ ndtr(at + slope) - ACCURACY[classes], -9, 9)
    between = _correlation(prior, level, DISAGREEMENT[classes])
    within = _correlation(prior, level, DISAGREEMENT[classes] * (1 - PERSISTS))
    tilt = 0.15 * (-1.0) ** np.arange(classes)
    tables = np.stack([[_table(row) for row in _affinity(prior, power)] for power in (0.5, 0.5, 0.9)])
    shares = np.stack([[_shares(table, classes) for table in tables_of] for tables_of in tables])
    mixed = (SHARED * shares[0] + (256 - SHARED) * shares[1:]) / 256
    var_arm = (within - between) / 2
    return World(prior, gold_table, level, tilt, between + var_arm, var_arm, 1 - within, tables, mixed)


def population(of: World, shift: float, eta: np.ndarray, metric: str) -> np.ndarray:
    """Return the population's metric of both arms, (2, …), for seeds with effect `eta`, (…)."""
    half = (shift + of.tilt + np.asarray(eta)[..., None]) / 2
    recall = ndtr(np.stack([of.level - half, of.level + half]))
    right = of.prior * recall
    if metric == "accuracy":
        return right.sum(-1)
    wrong = np.stack([share @ confusion for share, confusion in zip(of.prior - right, of.confusion)])
    return (2 * right / (of.prior + right + wrong)).mean(-1)


def moments(of: World, effect: Effect, metric: str) -> tuple[float, float]:
    """Return the true difference B − A and its standard deviation over seeds."""
    A, B = population(of, effect.shift, effect.sd * _NODES, metric)
    mean = _WEIGHTS @ (B - A)
    return float(mean), float(np.sqrt(max(0.0, _WEIGHTS @ (B - A - mean) ** 2)))


@lru_cache
def calibrated(classes: int, metric: str, delta: float, seed_sd: float) -> Effect:
    """Return the effect whose true difference in this metric is `delta`, with `seed_sd` over seeds."""
    of, sd = world(classes), 0.0

    def shift_at(sd: float) -> float:
        return brentq(lambda shift: moments(of, Effect(shift, sd), metric)[0] - delta, -2, 2, xtol=1e-12)

    if seed_sd:
        sd = brentq(lambda sd: moments(of, Effect(shift_at(sd), sd), metric)[1] - seed_sd, 0, 1, xtol=1e-10)
    return Effect(shift_at(sd), sd)


def predictions(
    of: World, effect: Effect, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return gold (R, n) and the predictions of A and B (2, R, S, n) as codes of classes; `shape` is (R, S, n)."""
    R, S, n = shape
    gold = of.gold_table[_twelve_bits(rng, (R, n))]
    shared, *of_arms = (tables[gold, _twelve_bits(rng, (R, n))] for tables in of.wrong_tables)
    difficulty = of.level[gold] + np.sqrt(of.var_difficulty) * rng.standard_normal((R, n), np.float32)
    apart = (effect.shift + of.tilt[gold]) / 2 + np.sqrt(of.var_arm) * rng.standard_normal((R, n), np.float32)
    eta = effect.sd / 2 * rng.standard_normal((R, S, 1), np.float32)
    scale = np.float32(1 / np.sqrt(of.var_noise))
    predicted = np.empty((2, R, S, n), np.uint8)
    for arm, sign in enumerate((-1, 1)):
        noise = rng.standard_normal(shape, np.float32)
        noise += ((difficulty + sign * apart).astype(np.float32) * scale)[:, None, :]
        noise += (sign * scale * eta).astype(np.float32)
        which = np.frombuffer(rng.bytes(R * S * n), np.uint8).reshape(shape)
        wrong = np.where(which < SHARED, shared[:, None, :], of_arms[arm][:, None, :])
        predicted[arm] = np.where(noise > 0, gold[:, None, :], wrong)
    return gold, predicted


def _twelve_bits(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, ENTRIES, shape, np.uint16)


def _table(shares: np.ndarray) -> np.ndarray:
    """Spread classes over ENTRIES places by largest remainders."""
    exact = ENTRIES * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact)[: ENTRIES - counts.sum()]] += 1
    return np.repeat(np.arange(len(shares), dtype=np.uint8), counts)


def _shares(table: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(table, minlength=classes) / len(table)


def _affinity(prior: np.ndarray, power: float) -> np.ndarray:
    """Confusions go to neighbours and to frequent classes; never to the class itself."""
    place = np.arange(len(prior))
    found = np.exp(-np.abs(place[:, None] - place) / 1.5) * prior**power
    np.fill_diagonal(found, 0)
    return found


def _correlation(prior: np.ndarray, level: np.ndarray, disagreement: float) -> float:
    """Correlation of two latent normals that are on different sides of 0 in this share of the items."""

    def apart(correlation: float) -> float:
        right = ndtr((level[:, None] + np.sqrt(correlation) * _NODES) / np.sqrt(1 - correlation))
        return float(2 * prior @ ((right * (1 - right)) @ _WEIGHTS))

    return float(brentq(lambda correlation: apart(correlation) - disagreement, 1e-9, 1 - 1e-6))
