"""Models of annotators: agreement with the reference programs, recovery of what was simulated, and rules by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from consenso.consensus import METHODS, decide
from consenso.consensus.methods.crowdlab import crowdlab, weighted_mean
from consenso.consensus.methods.glad import easiness_step, glad
from consenso.consensus.methods.mace import mace
from consenso.consensus.methods.one_coin import RIGHT, WRONG, list_votes, log_odds, one_coin
from consenso.consensus.methods.ordinal_dawid_skene import (
    bias_and_scale,
    expected_confusion,
    ordinal_dawid_skene,
    pseudo_votes,
)
from consenso.consensus.methods.outliers import outliers
from consenso.consensus.methods.shape import Options
from consenso.consensus.patterns import find_patterns
from consenso.consensus.votematrix import CodedVotes, label_sums
from consenso.errors import ConfigError
from making import shared

ITERATIVE = ["one_coin", "glad", "mace", "ordinal_dawid_skene"]


def coded(text, annotator, label, K, *, n=None, A=None, weight=None):
    """Coded votes from positions, in the order that code_votes gives."""
    text, annotator, label = (np.asarray(part, dtype=np.int64) for part in (text, annotator, label))
    weight = np.ones(len(text)) if weight is None else np.asarray(weight, dtype=float)
    order = np.lexsort((label, annotator, text))
    n = int(text.max()) + 1 if n is None else n
    names = tuple(f"ann{a:03d}" for a in range(int(annotator.max()) + 1 if A is None else A))
    labels = tuple(f"label{k:03d}" for k in range(K))
    return CodedVotes(pd.RangeIndex(n), names, labels, text[order], annotator[order], label[order], weight[order])


def panel(given, K):
    """Coded votes from a table of labels, a row per text and a column per annotator; −1: none."""
    given = np.asarray(given)
    text, annotator = np.nonzero(given >= 0)
    return coded(text, annotator, given[text, annotator], K, n=len(given), A=given.shape[1])


def simulated(seed=0, n=600, A=8, K=4, right=None):
    """A panel whose annotators are right with probability `right` and err alike; and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    right = np.linspace(0.3, 0.95, A) if right is None else np.asarray(right)
    wrong = (truth[:, None] + rng.integers(1, K, (n, A))) % K
    return panel(np.where(rng.random((n, A)) < right, truth[:, None], wrong), K), truth


def ordered(seed, *, n=500, A=60, per_text=4, K=5):
    """Few votes per annotator, who err to their neighbours by a bias and a scale of their own; and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    annotator = np.concatenate([rng.choice(A, per_text, replace=False) for _ in range(n)])
    bias, scale = rng.normal(0, 0.6, A), np.exp(rng.normal(-0.4, 0.5, A))
    text = np.repeat(np.arange(n), per_text)
    seen = truth[text] + bias[annotator] + scale[annotator] * rng.normal(size=len(text))
    return coded(text, annotator, np.clip(np.rint(seen), 0, K - 1), K, n=n, A=A), truth


def shares(method, votes, **options):
    return METHODS[method].shares(votes, Options(**options))


def accuracy(method, votes, truth):
    return float((shares(method, votes).values.argmax(axis=1) == truth).mean())


def crowd(dataset):
    """One of the real sets without text, as coded votes and as crowd-kit wants them, labels and workers by appearance.

    crowd-kit 1.4's MACE mixes up labels and workers that do not appear in sorted order.
    """
    votes = pd.read_csv(shared("crowd_notext", "annotations.csv.gz"), dtype=str)
    votes = votes[votes["dataset"] == dataset]
    text, worker, label = (pd.factorize(votes[column])[0] for column in ("text_id", "annotator", "label"))
    return coded(text, worker, label, label.max() + 1), pd.DataFrame({"task": text, "worker": worker, "label": label})


def reference(model, frame):
    """crowd-kit's labels by text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas' deprecations inside crowd-kit
        return model.fit_predict(frame).sort_index().to_numpy()


# one coin


def test_one_coin_finds_each_accuracy():
    right = [0.35, 0.5, 0.7, 0.8, 0.9, 0.95]
    found = shares("one_coin", simulated(n=3000, A=6, right=right)[0])
    assert np.allclose(found.confusion[:, 0, 0], right, atol=0.03)
    assert np.allclose(found.confusion.sum(axis=1), 1)
    assert np.allclose(found.weights, log_odds(found.confusion[:, 0, 0], 4))


def test_one_coin_agrees_with_crowd_kit():
    aggregation = pytest.importorskip("crowdkit.aggregation")
    votes, frame = crowd("dog")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = reference(aggregation.OneCoinDawidSkene(10), frame)
    assert (one_coin(votes, Options()).values.argmax(axis=1) == theirs).mean() >= 0.98


def test_the_prior_of_one_coin_counts_as_five_votes():
    votes = panel([[0, 0, 0, -1]], K=2)
    found = one_coin(votes, Options())
    hit = found.values[0, 0]
    assert found.confusion[0, 0, 0] == pytest.approx((RIGHT + hit) / (RIGHT + WRONG + 1), abs=1e-6)
    assert found.confusion[3, 0, 0] == RIGHT / (RIGHT + WRONG) == 0.8


def test_one_sided_annotators_do_not_drag_one_coin_to_one_label():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 500)
    votes = panel(np.where(rng.random((1000, 3)) < np.where(truth == 1, 0.95, 0.5)[:, None], truth[:, None], 1), K=2)
    assert 0.4 < one_coin(votes, Options()).values.argmax(axis=1).mean() < 0.9


# GLAD


@pytest.mark.parametrize("dataset", ["duck", "face"])
def test_glad_agrees_with_crowd_kit(dataset):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    votes, frame = crowd(dataset)
    theirs = reference(aggregation.GLAD(n_iter=8), frame)
    assert (glad(votes, Options()).values.argmax(axis=1) == theirs).mean() >= 0.98


def test_glad_ranks_abilities():
    votes, _ = simulated(n=1500, A=6, right=[0.3, 0.45, 0.6, 0.75, 0.85, 0.95])
    assert (np.diff(shares("glad", votes).weights) > 0).all()


def test_glad_is_at_its_maximum_a_posteriori():
    """The slope of Σ w (h log σ + (1 − h) log (1 − σ)) − ½ (α − 1)² − ½ (b − 1)² is 0, by finite differences."""
    votes, _ = simulated(n=200, A=4, K=3)
    found = glad(votes, Options())
    patterns = find_patterns(votes)
    given = list_votes(patterns, 3)
    posterior = np.empty((len(patterns.number), 3))
    posterior[patterns.of_text] = found.values
    hit, ability = given.hit(np.ascontiguousarray(posterior.T)), found.weights
    easiness = np.ones(len(posterior))
    for _ in range(300):
        easiness = easiness + easiness_step(given, hit, ability, easiness)

    def objective(ability):
        pull = ability[given.annotator] * np.exp(easiness)[given.row]
        log = -hit * np.logaddexp(0, -pull) - (1 - hit) * np.logaddexp(0, pull)
        return given.each @ log - 0.5 * ((ability - 1) ** 2).sum()

    steps = 1e-4 * np.eye(len(ability))
    assert np.allclose([(objective(ability + d) - objective(ability - d)) / 2e-4 for d in steps], 0, atol=0.01)


def test_an_annotator_without_votes_has_the_ability_of_the_prior():
    assert glad(panel([[0, 0, -1], [1, 0, -1]], K=2), Options()).weights[2] == 1


# MACE


@pytest.mark.parametrize("dataset", ["duck", "face"])
def test_mace_agrees_with_crowd_kit(dataset):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    votes, frame = crowd(dataset)
    theirs = reference(aggregation.MACE(n_restarts=1), frame)
    assert (mace(votes, Options()).values.argmax(axis=1) == theirs).mean() >= 0.98


def test_mace_tells_who_knows_from_who_spams():
    rng = np.random.default_rng(1)
    truth, knows = rng.integers(0, 3, 2000), np.array([0.9, 0.6, 0.3, 0.0, 0.7])
    spam = rng.choice(3, (2000, 5), p=[0.7, 0.2, 0.1])
    votes = panel(np.where(rng.random((2000, 5)) < knows, truth[:, None], spam), K=3)
    found = mace(votes, Options())
    assert np.allclose(found.weights, knows, atol=0.06)
    assert np.allclose(found.confusion[3], [[0.7] * 3, [0.2] * 3, [0.1] * 3], atol=0.06)
    assert np.allclose(found.confusion.sum(axis=1), 1)


def test_an_annotator_without_votes_knows_by_the_prior():
    assert mace(panel([[0, 0, -1], [1, 0, -1]], K=2), Options()).weights[2] == pytest.approx(0.5, abs=0.01)


# ordinal


def test_ordinal_beats_nominal_on_ordered_labels():
    gain = [
        accuracy("ordinal_dawid_skene", *drawn) - accuracy("dawid_skene_map", *drawn)
        for drawn in map(ordered, range(6))
    ]
    assert np.mean(gain) > 0.03


def test_ordinal_loses_nothing_where_errors_fall_anywhere():
    drawn = simulated(n=400, A=6)
    assert accuracy("ordinal_dawid_skene", *drawn) >= accuracy("dawid_skene_map", *drawn) - 0.01


def test_bias_and_scale_by_hand():
    counts = np.zeros((2, 3, 3))
    counts[0, 1, 0], counts[0, 2, 1] = 6, 4  # ten votes, all one too high
    bias, scale = bias_and_scale(counts)
    assert bias == pytest.approx([0.5, 0])  # ten pseudo-votes without bias
    assert scale == pytest.approx([np.sqrt((10 * 0.5**2 + 10 * 0.25) / 20), 0.5])


def test_the_prior_of_ordinal_decays_with_distance():
    confusion = expected_confusion(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 5)
    assert np.allclose(confusion.sum(axis=1), 1)
    assert (np.diff(confusion[0, :, 0]) < 0).all()
    assert confusion[0, 2, 2] > confusion[0, 1, 2] > confusion[0, 0, 2]
    assert confusion[1, :, 2].argmax() == 3


def test_an_annotator_without_votes_has_the_prior_of_ordinal():
    found = ordinal_dawid_skene(panel([[0, 1, -1], [2, 2, -1]], K=3), Options())
    assert np.allclose(found.confusion[2], expected_confusion(np.zeros(1), np.full(1, 0.5), 3)[0])
    assert [pseudo_votes(K) for K in (2, 3, 5, 100)] == [1.5, 3, 6, 6]


def test_many_votes_overrule_the_prior_of_ordinal():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 3000)
    given = np.column_stack([truth] * 3 + [(truth + 2) % 3])  # the last takes 0 for 2, the label farthest away
    found = ordinal_dawid_skene(panel(given, K=3), Options())
    assert found.confusion[3, 2, 0] > 0.98


# all that iterate


@pytest.mark.parametrize("method", ITERATIVE)
def test_models_beat_majority_where_annotators_differ(method):
    drawn = simulated(n=800, A=9, right=[0.95, 0.9] + [0.35] * 7)
    assert accuracy(method, *drawn) > accuracy("majority", *drawn) + 0.05


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_model_says_that_it_did_not_converge(method):
    votes, _ = simulated(n=100)
    stopped = shares(method, votes, iterations=2)
    assert not stopped.converged
    assert stopped.iterations == 2
    assert "2 iterations" in stopped.note
    finished = shares(method, votes)
    assert finished.converged
    assert finished.note == ""


@pytest.mark.parametrize("method", ITERATIVE)
def test_three_equal_repetitions_count_as_one_vote(method):
    votes, _ = simulated(n=60, A=4, K=3)
    text, annotator, label = (np.repeat(part, 3) for part in (votes.text, votes.annotator, votes.label))
    thrice = coded(text, annotator, label, 3, weight=np.full(len(text), 1 / 3))
    assert np.allclose(shares(method, votes).values, shares(method, thrice).values, atol=1e-4)


@pytest.mark.parametrize("method", [*ITERATIVE, "outliers", "crowdlab"])
@pytest.mark.parametrize(
    "votes",
    [
        coded([0, 1, 2], [0, 0, 0], [0, 1, 1], 3),
        coded([0, 0], [0, 1], [0, 2], 3),
        coded([], [], [], 3, n=4, A=2),
        coded([0, 0, 2], [0, 1, 1], [0, 0, 0], 1, n=4),
        coded(np.repeat(np.arange(300), 2), np.arange(600) % 300, np.arange(600) % 7 % 3, 3),
        panel(np.tile([0, 0, 1, 2], (50, 1)), K=3),
        panel(np.column_stack([np.arange(50) % 3] * 3 + [np.zeros(50, int)]), K=500),
    ],
    ids=["one annotator", "one text", "no votes", "one label", "two votes each", "constant", "many labels"],
)
def test_models_survive_thin_votes(method, votes):
    n, K = votes.shape
    found = shares(method, votes, probabilities=np.full((n, K), 1 / K)).values
    voted = np.bincount(votes.text, minlength=n) > 0
    assert found.shape == (n, K)
    assert np.allclose(found.sum(axis=1), voted)
    assert (found >= 0).all()


# outliers


def votes_of(*labels):
    return pd.DataFrame({"text_id": "t", "annotator": [f"a{i}" for i in range(len(labels))], "label": labels})


def test_outliers_are_left_out_by_hand():
    votes = coded(
        [0] * 5 + [1] * 5 + [2] * 4, [*range(5), *range(5), *range(4)], [0, 0, 0, 0, 1, *[0, 0, 0, 1, 1], 0, 1, 2, 3], 4
    )
    assert np.allclose(outliers(votes, Options()).values, [[1, 0, 0, 0], [0.6, 0.4, 0, 0], [0.25, 0.25, 0.25, 0.25]])


def test_exactly_three_tenths_stay():
    votes = coded([0] * 10, range(10), [0] * 7 + [1] * 3, 2)
    assert np.allclose(outliers(votes, Options()).values, [[0.7, 0.3]])


@pytest.mark.parametrize(
    ("labels", "label"),
    [("aaab", "a"), ("aaabb", None), ("aabcd", "a"), ("abcd", None)],
    ids=["one stays", "two stay", "one of many stays", "none reaches the limit"],
)
def test_outliers_decides_where_exactly_one_label_stays(labels, label):
    row = decide(votes_of(*labels), method="outliers").iloc[0]
    assert row["label"] == label if label else pd.isna(row["label"])


# CROWDLAB


def rated(seed, *, n=400, A=7, K=4, missing=0.4, flat=False):
    """Votes with gaps, the same as cleanlab's table, and a classifier's probabilities."""
    rng = np.random.default_rng(seed)
    votes, truth = simulated(seed, n=n, A=A, K=K)
    given = votes.label.reshape(n, A).copy()
    gone = rng.random((n, A)) < missing
    gone[np.arange(n), rng.integers(0, A, n)] = False
    given[gone] = -1
    probabilities = rng.dirichlet(np.ones(K), n) + rng.random((n, 1)) * np.eye(K)[truth]
    probabilities = np.ones((n, K)) if flat else probabilities
    return panel(given, K), np.where(gone, np.nan, given), probabilities / probabilities.sum(axis=1, keepdims=True)


def cleanlab(table, probabilities, consensus):
    """The reference's labels, their scores, and the annotators' weights."""
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    found = multiannotator.get_label_quality_multiannotator(
        table, probabilities, consensus_method=consensus, verbose=False, return_weights=True
    )
    quality = found["label_quality"]
    return (
        quality["consensus_label"].to_numpy(),
        quality["consensus_quality_score"].to_numpy(),
        found["annotator_weight"],
    )


@pytest.mark.parametrize("drawn", [rated(0), rated(1, K=2, A=3), rated(2, A=15, missing=0.8), rated(3, flat=True)])
def test_crowdlab_gives_the_labels_and_scores_of_cleanlab(drawn):
    votes, table, probabilities = drawn
    ours = crowdlab(votes, Options(probabilities=probabilities))
    assert (ours.values.argmax(axis=1) == cleanlab(table, probabilities, "best_quality")[0]).all()
    label, score, weights = cleanlab(table, probabilities, "majority_vote")
    assert np.allclose(ours.values[np.arange(len(label)), label], score, rtol=0, atol=1e-6)
    assert np.allclose(ours.weights, weights, rtol=0, atol=1e-6)


def test_the_second_round_of_cleanlab_is_the_same_mean_on_other_labels():
    votes, table, probabilities = rated(5)
    label, score, weights = cleanlab(table, probabilities, "best_quality")
    values, each = weighted_mean(votes, label_sums(votes, votes.weight), probabilities, np.eye(4)[label])
    assert np.allclose(values[np.arange(len(label)), label], score, rtol=0, atol=1e-6)
    assert np.allclose(each, weights, rtol=0, atol=1e-6)


def test_crowdlab_without_probabilities_for_a_text_rests_on_its_votes():
    votes, _, probabilities = rated(4)
    probabilities[::3] = np.nan
    found = crowdlab(votes, Options(probabilities=probabilities))
    assert np.allclose(found.values.sum(axis=1), 1)
    unanimous = panel(np.tile([1, 1, 1], (5, 1)), K=3)
    alone = crowdlab(unanimous, Options(probabilities=np.full((5, 3), np.nan)))
    assert np.allclose(alone.values, [0, 1, 0])


def test_crowdlab_without_overlap_takes_the_mean():
    votes = coded([0, 1], [0, 1], [0, 1], 2)
    found = crowdlab(votes, Options(probabilities=np.array([[0.2, 0.8], [0.3, 0.7]])))
    assert np.allclose(found.values, [[0.6, 0.4], [0.15, 0.85]])


def test_crowdlab_names_what_is_wrong_with_probabilities():
    votes = coded([0, 1], [0, 1], [0, 1], 2)
    with pytest.raises(ConfigError, match="needs"):
        crowdlab(votes, Options())
    with pytest.raises(ConfigError, match=r"\(2, 2\); found \(3, 2\)"):
        crowdlab(votes, Options(probabilities=np.full((3, 2), 0.5)))
    with pytest.raises(ConfigError, match="sum to 1"):
        crowdlab(votes, Options(probabilities=np.full((2, 2), 0.9)))
