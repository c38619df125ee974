"""GLAD: each annotator has an ability and each text a difficulty.

Source: Whitehill, Ruvolo, Wu, Bergsma and Movellan (2009), NeurIPS 22, "Whose vote should count more": the model, its
priors and EM. With more than two labels, errors fall on the other labels alike, as in crowd-kit's GLAD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.methods.dawid_skene import TOLERANCE, not_converged, shares_of
from consenso.consensus.methods.one_coin import Given, list_votes
from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.patterns import find_patterns

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

MEAN = 1.0
"""Mean of the normal priors of ability and of log easiness, as in the paper; their variance is 1."""
STEP = 1.0
"""The longest step of an ability or a log easiness in one iteration."""


def glad(votes: CodedVotes, options: Options) -> Shares:
    """Return the posterior of the true label under GLAD, at the maximum a posteriori.

    The vote of annotator a on text i is right with probability σ(α_a e^{b_i}), where α_a ~ N(1, 1) is the ability and
    b_i ~ N(1, 1) the log easiness (1/difficulty) of the text; each other label has a share of the rest of 1 / (K − 1),
    and all true labels are equally likely beforehand. EM from the vote shares; the M step is a Newton step in α, then
    one in b. Given the abilities, texts with the same votes pose the same problem and have the same easiness, so one is
    fitted per pattern and counted as often as it stands. `Shares.weights`: the abilities; a negative one misleads.
    """
    import numpy as np

    if not len(votes.text):
        return Shares(np.zeros(votes.shape))
    patterns, K, A = find_patterns(votes), len(votes.labels), len(votes.annotators)
    given = list_votes(patterns, K)
    posterior = shares_of(patterns, K)
    ability, easiness = np.full(A, MEAN), np.full(len(patterns.number), MEAN)
    change, made = np.inf, 0
    while made < options.iterations and change >= TOLERANCE:
        hit = given.hit(posterior)
        ability = ability + ability_step(given, hit, ability, easiness)
        easiness = easiness + easiness_step(given, hit, ability, easiness)
        bonus = ability[given.annotator] * np.exp(easiness)[given.row] + np.log(max(K - 1, 1))
        before, posterior = posterior, given.expect(bonus)
        change, made = float(np.abs(posterior - before).max()), made + 1
    return Shares(
        patterns.spread(np.ascontiguousarray(posterior.T)),
        converged=change < TOLERANCE,
        iterations=made,
        note="" if change < TOLERANCE else not_converged(made, change),
        weights=ability,
    )


def ability_step(given: Given, hit: np.ndarray, ability: np.ndarray, easiness: np.ndarray) -> np.ndarray:
    """Return the Newton step of the abilities: what is maximised is concave in them."""
    import numpy as np

    easy = np.exp(easiness)[given.row]
    right = _sigmoid(ability[given.annotator] * easy)
    slope = given.per_annotator(given.each * (hit - right) * easy, len(ability)) - (ability - MEAN)
    bend = given.per_annotator(given.each * right * (1 - right) * easy**2, len(ability)) + 1
    step: np.ndarray = np.clip(slope / bend, -STEP, STEP)
    return step


def easiness_step(given: Given, hit: np.ndarray, ability: np.ndarray, easiness: np.ndarray) -> np.ndarray:
    """Return a step uphill of each pattern's log easiness: Newton's, with the curvature kept at or above the prior's."""
    import numpy as np

    pull = ability[given.annotator] * np.exp(easiness)[given.row]
    right = _sigmoid(pull)
    gain = given.weight * (hit - right) * pull
    P = len(easiness)
    slope = np.bincount(given.row, weights=gain, minlength=P) - (easiness - MEAN)
    bend = np.bincount(given.row, weights=given.weight * right * (1 - right) * pull**2 - gain, minlength=P)
    step: np.ndarray = np.clip(slope / (1 + np.maximum(bend, 0)), -STEP, STEP)
    return step


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    right: np.ndarray = expit(x)
    return right
