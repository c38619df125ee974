"""Instance selection (biO-IS) against a second implementation, written from its description alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.errors import ConfigError
from consenso.finetune import FinetuneSettings, InstanceSelection, make_arms
from consenso.finetune.selection import KEPT, NOISE, REDUNDANT, WeakOpinion, select_instances, weak_opinion
from consenso.labels import LabelSchema

NAMES = ("neg", "neu", "pos")
WORDS = {"neg": "bad awful poor sad", "neu": "plain usual even flat", "pos": "good great fine glad"}


def corpus(n: int = 200, seed: int = 0, error: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Texts whose words betray their class, and labels that err."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    texts = [" ".join([*rng.choice(WORDS[NAMES[g]].split(), 2), *rng.choice(["so", "film", "it"], 2)]) for g in gold]
    return np.array(texts, dtype=object), np.where(rng.random(n) < error, rng.integers(0, 3, n), gold)


def by_hand(
    texts: np.ndarray, labels: np.ndarray, rng: np.random.Generator, beta: float = 0.25, theta: float = 0.5
) -> dict[int, str]:
    """Removed row → why: steps 1 to 5 of the earlier system's description, in plain loops."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    classes = sorted(set(labels.tolist()))
    y = np.array([classes.index(label) for label in labels])
    n, sizes = len(y), [int((y == c).sum()) for c in range(len(classes))]
    if n < 2 or len(classes) < 2 or min(sizes) < 2:
        return {}
    X = TfidfVectorizer(stop_words="english", min_df=2, sublinear_tf=True).fit_transform(list(texts))
    P = np.zeros((n, len(classes)))
    for train, test in StratifiedKFold(max(2, min(5, *sizes)), shuffle=True, random_state=42).split(X, y):
        model = LogisticRegression(C=1, solver="lbfgs", max_iter=1000).fit(X[train], y[train])
        P[np.ix_(test, model.classes_)] = model.predict_proba(X[test])
    guess = [int(np.argmax(row)) for row in P]
    alpha = np.array([P[i, guess[i]] if guess[i] == y[i] else 0.0 for i in range(n)])
    removed: dict[int, str] = {}
    R = min(int(np.floor(beta * n)), int((alpha > 0).sum()))
    if R:
        removed |= dict.fromkeys(rng.choice(n, R, replace=False, p=alpha / alpha.sum()).tolist(), "redundant")
    W = [i for i in range(n) if guess[i] != y[i]]
    if W:
        h = np.array([-sum(p * np.log(p) for p in P[i] if p > 0) for i in W])
        scaled = (h - h.min()) / (h.max() - h.min()) if h.max() > h.min() else np.zeros(len(W))
        w = 1 - scaled
        size = min(int(np.floor(theta * len(W))), int((w > 0).sum()))
        if size:
            drawn = rng.choice(len(W), size, replace=False, p=w / w.sum())
            removed |= {W[i]: "noise" for i in drawn}
    return removed


def selected(texts: np.ndarray, codes: np.ndarray, settings: InstanceSelection, seed: int) -> dict[int, str]:
    opinion = weak_opinion(texts, codes, settings.folds)
    if opinion is None:
        return {}
    found = select_instances(opinion, settings, np.random.default_rng(seed))
    return {i: {REDUNDANT: "redundant", NOISE: "noise"}[reason] for i, reason in enumerate(found) if reason != KEPT}


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("theta", [0.0, 0.5, 1.0])
def test_selection_equals_its_description(beta: float, theta: float) -> None:
    texts, codes = corpus()
    settings = InstanceSelection(beta=beta, theta=theta)
    for seed in (1, 2):
        expected = by_hand(texts, codes, np.random.default_rng(seed), beta, theta)
        assert selected(texts, codes, settings, seed) == expected
    assert len(expected) > 0 or beta == theta == 0


def test_a_class_that_is_missing_in_between_changes_nothing() -> None:
    texts, codes = corpus()
    chosen = codes != 1
    expected = by_hand(texts[chosen], codes[chosen], np.random.default_rng(3))
    assert selected(texts[chosen], codes[chosen], InstanceSelection(), 3) == expected


def test_few_texts_of_a_class_lower_the_number_of_folds() -> None:
    texts, codes = corpus()
    keep = np.r_[np.flatnonzero(codes != 2), np.flatnonzero(codes == 2)[:3]]
    expected = by_hand(texts[keep], codes[keep], np.random.default_rng(4))
    assert selected(texts[keep], codes[keep], InstanceSelection(), 4) == expected
    assert len(expected) > 0


@pytest.mark.parametrize(
    "codes", [[0], [0, 0, 0, 0], [0, 0, 0, 1]], ids=["one text", "one class", "a class with one text"]
)
def test_where_nothing_can_be_fitted_nothing_is_removed(codes: list[int]) -> None:
    texts = np.array(["film one", "film two", "film three", "film four"][: len(codes)], dtype=object)
    assert selected(texts, np.array(codes), InstanceSelection(), 1) == {}


def test_texts_without_a_common_word_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    texts = np.array(["alpha", "bravo", "charlie", "delta"], dtype=object)
    assert selected(texts, np.array([0, 0, 1, 1]), InstanceSelection(), 1) == {}
    assert "instance selection removes nothing: 4 text(s) of 2 class(es)" in caplog.text


def opinion_of(right: int, wrong: int, entropy: list[float]) -> WeakOpinion:
    is_right = np.r_[np.ones(right, bool), np.zeros(wrong, bool)]
    return WeakOpinion(
        np.zeros(right + wrong, int), np.full(right + wrong, 0.8), np.r_[np.zeros(right), entropy], is_right
    )


def test_the_most_uncertain_error_is_never_noise() -> None:
    opinion = opinion_of(5, 4, [0.1, 0.2, 0.3, 0.9])
    for seed in range(30):
        found = select_instances(opinion, InstanceSelection(beta=0, theta=1), np.random.default_rng(seed))
        assert found.tolist() == [KEPT] * 5 + [NOISE] * 3 + [KEPT]


def test_equal_entropies_make_all_errors_alike() -> None:
    found = select_instances(opinion_of(2, 4, [0.5] * 4), InstanceSelection(beta=0, theta=1), np.random.default_rng(0))
    assert found.tolist() == [KEPT] * 2 + [NOISE] * 4


def test_beta_above_the_share_of_right_ones_removes_all_of_these() -> None:
    found = select_instances(
        opinion_of(3, 7, [0.5] * 7), InstanceSelection(beta=0.9, theta=0), np.random.default_rng(0)
    )
    assert (found == REDUNDANT).tolist() == [True] * 3 + [False] * 7


def test_the_surer_the_likelier_to_be_redundant() -> None:
    opinion = WeakOpinion(np.zeros(20, int), np.r_[np.full(10, 0.9), np.full(10, 0.3)], np.zeros(20), np.ones(20, bool))
    draws = [
        select_instances(opinion, InstanceSelection(beta=0.1, theta=0), np.random.default_rng(seed))
        for seed in range(400)
    ]
    sure = np.mean([(found[:10] == REDUNDANT).sum() for found in draws]) / 2
    assert 0.68 < sure < 0.80, "about .9 / (.9 + .3), a little less without replacement"


def study(n: int = 300) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    texts, codes = corpus(n)
    ids = [f"t{i:04d}" for i in range(n)]
    frame = pd.DataFrame({"text_id": ids, "text": texts, "gold": np.array(NAMES)[codes]})
    folds = pd.DataFrame(
        {"fold": 0, "text_id": ids, "part": np.tile(["train", "train", "dev", "test", "train"], n // 5)}
    )
    labels = pd.DataFrame({"text_id": ids, "label": np.array(NAMES)[codes], "is_problematic": False})
    labels.loc[labels.index % 7 == 3, "label"] = None
    return frame, folds, labels


def test_the_arm_is_fitted_on_its_aligned_training_texts_alone() -> None:
    texts, folds, labels = study()
    arms = make_arms(texts, folds, labels, arms=["consensus-selected"], seeds=3, schema=LabelSchema.from_names(NAMES))
    aligned = folds.merge(labels, on="text_id").merge(texts, on="text_id")
    aligned = aligned[(aligned["part"] == "train") & aligned["label"].notna()].sort_values("text_id")
    words, codes = aligned["text"].to_numpy(dtype=object), aligned["label"].map(NAMES.index).to_numpy()
    for seed in (1, 2, 3):
        removed = by_hand(words, codes, np.random.default_rng([seed, 0, 7]))
        kept = [text_id for i, text_id in enumerate(aligned["text_id"]) if i not in removed]
        rows = arms[(arms["seed"] == seed) & (arms["part"] == "train")]
        assert rows["text_id"].tolist() == kept


def test_words_of_dev_and_test_texts_do_not_matter() -> None:
    texts, folds, labels = study()
    other = texts.merge(folds, on="text_id")
    other["text"] = other["text"].where(other["part"] == "train", "bad good plain film")
    before, after = (
        make_arms(frame, folds, labels, arms=["consensus-selected"], seeds=2, resample=True)
        for frame in (texts, other[["text_id", "text", "gold"]])
    )
    pd.testing.assert_frame_equal(before, after)


# settings


def test_selection_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"finetune: selection\.beta: .*less than or equal to 1; found 1\.5"):
        FinetuneSettings.read({"selection": {"beta": 1.5}}, "finetune")
    assert FinetuneSettings.read({"selection": {"theta": 0.1}}, "finetune").selection.theta == 0.1
