"""biO-IS: leave out texts that a weak classifier finds redundant or noisy (Cunha et al., TOIS)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from consenso.light_model import class_probabilities, linear_model, word_features
from consenso.settings import Settings

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

SPLIT_SEED = 42  # the cross-validation is the same under every seed; what is removed is drawn anew
KEPT, REDUNDANT, NOISE = 0, 1, 2


class InstanceSelection(Settings):
    """How the arms `consensus-selected` and `consensus-selected-random` leave texts out."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the texts removed as redundant: those the weak classifier is sure of, and right about, rather than others."""
    theta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the weak classifier's errors removed as noise: the confident ones rather than others."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation that gives the weak classifier's probabilities."""


@dataclass(frozen=True)
class WeakOpinion:
    """What the weak classifier says of each text, without having seen it."""

    predicted: np.ndarray
    """The class position with the largest probability."""
    probability: np.ndarray
    """Of that class."""
    entropy: np.ndarray
    """Of the probabilities, in nats."""
    is_right: np.ndarray
    """True where `predicted` is the text's label."""


def weak_opinion(words: np.ndarray, codes: np.ndarray, folds: int) -> WeakOpinion | None:
    """Return out-of-fold opinions of a logistic regression (C = 1) on TF-IDF, or None where it cannot be fitted.

    `words`: the texts, object array; `codes`: their class positions, none −1. TF-IDF: words without English stop words,
    at least two texts per term, sublinear, unit rows. Folds are stratified and shuffled, as many as asked for and
    the smallest class allows. None: fewer than two texts or classes, a class with one text, or no word in two texts.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    sizes = np.unique(codes, return_counts=True)[1]
    features = word_features(words.tolist()) if len(sizes) > 1 and sizes.min() > 1 else None
    if features is None:
        logger.warning(
            "instance selection removes nothing: %d text(s) of %d class(es), the smallest with %d, or no word in two texts",
            len(codes), len(sizes), int(sizes.min(initial=len(codes))),
        )  # fmt: skip
        return None
    P = np.zeros((len(codes), int(codes.max()) + 1))
    splits = StratifiedKFold(max(2, min(folds, int(sizes.min()))), shuffle=True, random_state=SPLIT_SEED)
    with threadpool_limits(1):  # sums then have one order, whatever the machine
        for seen, held in splits.split(features, codes):
            P[held] = class_probabilities(linear_model(features[seen], codes[seen]), features[held], P.shape[1])
    predicted = P.argmax(axis=1)
    entropy = -np.where(P > 0, P * np.log(np.where(P > 0, P, 1)), 0).sum(axis=1)
    return WeakOpinion(predicted, P.max(axis=1), entropy, predicted == codes)


def select_instances(opinion: WeakOpinion, settings: InstanceSelection, rng: np.random.Generator) -> np.ndarray:
    """Return KEPT, REDUNDANT or NOISE for each text; draws without replacement.

    Redundant: ⌊beta·n⌋ of the texts that the weak classifier gets right, with chances proportional to its probability.
    Noise: ⌊theta·errors⌋ of those it gets wrong, with chances 1 − h, h its entropy scaled to 0 … 1 over the errors (all
    alike if the entropies are equal); so the most uncertain error is never removed.
    """
    import numpy as np

    found = np.full(len(opinion.is_right), KEPT)
    alpha = np.where(opinion.is_right, opinion.probability, 0)
    found[_drawn(alpha, int(settings.beta * len(found)), rng)] = REDUNDANT
    errors = np.flatnonzero(~opinion.is_right)
    if errors.size:
        h = opinion.entropy[errors]
        spread = float(h.max() - h.min())
        chances = 1 - (h - h.min()) / spread if spread > 0 else np.ones(len(h))
        found[errors[_drawn(chances, int(settings.theta * len(errors)), rng)]] = NOISE
    return found


def _drawn(chances: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most `wanted` draws without replacement, those with chance 0 never."""
    import numpy as np

    size = min(wanted, int((chances > 0).sum()))
    return rng.choice(len(chances), size=size, replace=False, p=chances / chances.sum()) if size else np.array([], int)
