"""Arms, recipe, batches and the collapse rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from consenso.errors import ConfigError, DataError, JoinError
from consenso.finetune import FinetuneSettings, Recipe, make_arms
from consenso.finetune.batches import evaluation_steps, training_batches
from consenso.finetune.collapse import chance_p, find_collapse
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import ARMS as ARMS_TABLE
from consenso.tables import check

NAMES = ("neg", "neu", "pos")
SCHEMA = LabelSchema.from_names(NAMES)
ALL = ["gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "gold-kept", "floor"]


def study(n: int = 120, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Texts, folds and consensus labels: every 9th text without consensus, every 11th without gold, a third hard."""
    rng = np.random.default_rng(seed)
    ids = [f"t{i:03d}" for i in range(n)]
    gold = rng.choice(NAMES, n)
    voted = np.where(rng.random(n) < 0.25, rng.choice(NAMES, n), gold)
    texts = pd.DataFrame({"text_id": ids, "text": [f"text {i}" for i in ids], "gold": gold})
    texts.loc[texts.index % 11 == 6, "gold"] = None
    labels = pd.DataFrame({"text_id": ids, "label": voted, "is_problematic": rng.random(n) < 0.3})
    labels.loc[labels.index % 9 == 7, "label"] = None
    folds = pd.DataFrame(
        {"fold": 0, "text_id": ids, "part": np.tile(["train", "train", "train", "dev", "test"], n // 5)}
    )
    return texts, folds, labels


def rows_of(arms: pd.DataFrame, arm: str, part: str = "train", seed: int = 1) -> pd.DataFrame:
    return arms[(arms["arm"] == arm) & (arms["part"] == part) & (arms["seed"] == seed)]


def counts_of(rows: pd.DataFrame) -> dict[str, int]:
    return rows["target"].value_counts().to_dict()


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize(("arm", "other"), [("consensus", "gold-aligned"), ("consensus-kept", "gold-kept")])
@pytest.mark.parametrize("part", ["train", "dev"])
def test_aligned_arms_hold_identical_texts(arm: str, other: str, part: str, resample: bool) -> None:
    arms = make_arms(*study(), arms=ALL, seeds=3, resample=resample)
    for seed in (1, 2, 3):
        ours, theirs = rows_of(arms, arm, part, seed), rows_of(arms, other, part, seed)
        assert ours["text_id"].tolist() == theirs["text_id"].tolist()
        assert len(ours) > 0


def test_a_text_without_gold_leaves_every_aligned_arm() -> None:
    texts, folds, labels = study()
    without = set(texts.loc[texts["gold"].isna(), "text_id"])
    arms = make_arms(texts, folds, labels, arms=ALL, seeds=1)
    assert not without & set(arms["text_id"])
    alone = make_arms(texts, folds, labels, arms=["consensus"], seeds=1)
    assert without & set(alone["text_id"]), "no aligned gold arm takes part, so gold is not needed"


def test_a_text_without_consensus_is_in_gold_alone() -> None:
    texts, folds, labels = study()
    undecided = set(labels.loc[labels["label"].isna(), "text_id"])
    arms = make_arms(texts, folds, labels, arms=ALL, seeds=1)
    assert set(arms.loc[arms["text_id"].isin(undecided), "arm"]) == {"gold", "floor", "floor-prior"}


def test_kept_arms_are_the_aligned_texts_without_the_problematic_ones() -> None:
    texts, folds, labels = study()
    arms = make_arms(texts, folds, labels, arms=ALL, seeds=1)
    hard = set(labels.loc[labels["is_problematic"], "text_id"])
    assert set(rows_of(arms, "consensus-kept")["text_id"]) == set(rows_of(arms, "consensus")["text_id"]) - hard


@pytest.mark.parametrize("resample", [False, True])
def test_consensus_random_has_size_and_class_counts_of_consensus_kept(resample: bool) -> None:
    arms = make_arms(*study(), arms=ALL, seeds=5, resample=resample)
    drawn = []
    for seed in range(1, 6):
        random, kept = rows_of(arms, "consensus-random", seed=seed), rows_of(arms, "consensus-kept", seed=seed)
        assert counts_of(random) == counts_of(kept)
        copies = rows_of(arms, "consensus", seed=seed)["text_id"].value_counts()
        taken = random["text_id"].value_counts()
        assert (taken <= copies[taken.index]).all(), "drawn without replacement from the consensus rows"
        drawn.append(tuple(random["text_id"]))
    assert len(set(drawn)) == 5, "a new draw per seed"


def test_targets_carry_the_labels_of_the_arms_own_source() -> None:
    texts, folds, labels = study()
    arms = make_arms(texts, folds, labels, arms=ALL, seeds=1)
    gold, voted = texts.set_index("text_id")["gold"], labels.set_index("text_id")["label"]
    for arm in ALL:
        rows = arms[arms["arm"] == arm]
        source = voted if arm.startswith("consensus") else gold
        assert (rows["target"] == rows["text_id"].map(source)).all()
        assert set(rows["source"]) == {"consensus" if arm.startswith("consensus") else "gold"}


def test_one_bootstrap_draw_serves_all_arms_of_a_seed() -> None:
    texts, folds, labels = study()
    arms = make_arms(texts, folds, labels, arms=["gold", "consensus", "gold-aligned"], seeds=4, resample=True)
    for seed in range(1, 5):
        gold = rows_of(arms, "gold", seed=seed)["text_id"].value_counts()
        aligned = rows_of(arms, "consensus", seed=seed)["text_id"].value_counts()
        assert (gold[aligned.index] == aligned).all()
        assert gold.max() > 1
    assert rows_of(arms, "gold", seed=1)["text_id"].tolist() != rows_of(arms, "gold", seed=2)["text_id"].tolist()
    assert rows_of(arms, "gold")["row"].is_unique


def test_a_bootstrap_draw_has_as_many_rows_as_train_texts() -> None:
    texts, folds, labels = study()
    texts["gold"] = texts["gold"].fillna("pos")
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=2, resample=True)
    assert arms[arms["part"] == "train"].groupby("seed").size().tolist() == [72, 72]


def test_dev_texts_are_never_resampled() -> None:
    arms = make_arms(*study(), arms=["gold"], seeds=1, resample=True)
    assert rows_of(arms, "gold", "dev")["text_id"].is_unique


def test_more_seeds_leave_the_rows_of_the_first_seeds_alone() -> None:
    five, three = (make_arms(*study(), arms=ALL, seeds=s, resample=True) for s in (5, 3))
    pd.testing.assert_frame_equal(five[five["seed"] <= 3].reset_index(drop=True), three)


def test_other_arms_do_not_change_an_arms_draws() -> None:
    few = make_arms(*study(), arms=["consensus-random", "gold-aligned"], seeds=2, resample=True)
    many = make_arms(*study(), arms=ALL, seeds=2, resample=True)
    for seed in (1, 2):
        a, b = rows_of(few, "consensus-random", seed=seed), rows_of(many, "consensus-random", seed=seed)
        assert a["text_id"].tolist() == b["text_id"].tolist()


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_the_gold_of_test_texts_is_never_read(schema: LabelSchema | None) -> None:
    texts, folds, labels = study()
    test = texts["text_id"].isin(folds.loc[folds["part"] == "test", "text_id"])
    before = make_arms(texts, folds, labels, arms=ALL, seeds=2, resample=True, schema=schema)
    texts.loc[test, "gold"] = [f"poison {i}" for i in range(test.sum())]
    after = make_arms(texts, folds, labels, arms=ALL, seeds=2, resample=True, schema=schema)
    pd.testing.assert_frame_equal(before, after)
    assert not set(after["text_id"]) & set(texts.loc[test, "text_id"])


def test_a_text_is_test_in_one_fold_and_train_in_another() -> None:
    texts, folds, labels = study()
    other = folds.assign(fold=1, part=np.roll(folds["part"], 1))
    arms = make_arms(texts, pd.concat([folds, other]), labels, arms=["gold"], seeds=1)
    joined = arms.merge(pd.concat([folds, other]), on=["fold", "text_id"], suffixes=("", "_of_fold"))
    assert (joined["part"] == joined["part_of_fold"]).all()
    assert set(arms["fold"]) == {0, 1}


def test_row_order_and_id_type_do_not_matter() -> None:
    texts, folds, labels = study()
    for frame in (texts, folds, labels):
        frame["text_id"] = frame["text_id"].str[1:].astype(int)
    shuffled = [frame.sample(frac=1, random_state=3) for frame in (texts, folds, labels)]
    shuffled[2]["text_id"] = shuffled[2]["text_id"].astype(str)
    a, b = (make_arms(*tables, arms=ALL, seeds=2, resample=True) for tables in ((texts, folds, labels), shuffled))
    pd.testing.assert_frame_equal(a, b)


def test_labels_of_human_reviewers_keep_their_source() -> None:
    texts, folds, labels = study()
    final = labels.assign(source=np.where(labels.index % 4 == 0, "human", "consensus"))
    arms = make_arms(texts, folds, final, arms=["consensus", "gold-aligned"], seeds=1)
    found = rows_of(arms, "consensus").merge(final, on="text_id", suffixes=("", "_given"))
    assert (found["source"] == found["source_given"]).all()
    assert set(rows_of(arms, "gold-aligned")["source"]) == {"gold"}


def test_arms_are_a_valid_table_in_stored_order(tmp_path) -> None:
    arms = make_arms(*study(), arms=ALL, seeds=2, resample=True)
    folder = RunFolder(tmp_path / "run")
    folder.write("arms", arms)
    pd.testing.assert_frame_equal(check(arms, ARMS_TABLE), folder.read("arms"), check_dtype=False)


def test_floor_brings_floor_prior() -> None:
    arms = make_arms(*study(), arms=["floor", "gold"], seeds=1)
    assert sorted(set(arms["arm"])) == ["floor", "floor-prior", "gold"]


def test_an_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown arm 'consensus-keep'.*Did you mean 'consensus-kept'"):
        make_arms(*study(), arms=["consensus-keep"])


def test_an_arm_of_one_class_is_named_with_its_counts() -> None:
    texts, folds, labels = study()
    labels["label"] = labels["label"].mask(labels["label"] != "pos")
    with pytest.raises(
        DataError, match=r"arm 'consensus' \(fold 0, seed 1\): \d+ training rows of 1 class\(es\) \(pos \d+\)"
    ):
        make_arms(texts, folds, labels, arms=["consensus"], seeds=1)


def test_an_arm_without_rows_is_named() -> None:
    texts, folds, labels = study()
    labels["is_problematic"] = True
    with pytest.raises(DataError, match=r"arm 'consensus-kept' .*: 0 training rows of 0 class\(es\) \(none\)"):
        make_arms(texts, folds, labels, arms=["consensus", "consensus-kept"], seeds=1)


def test_votes_that_leave_dev_out_are_an_error() -> None:
    texts, folds, labels = study()
    dev = set(folds.loc[folds["part"] == "dev", "text_id"])
    with pytest.raises(DataError, match="no dev text has a consensus label"):
        make_arms(texts, folds, labels[~labels["text_id"].isin(dev)], arms=["consensus"], seeds=1)


def test_labels_of_other_texts_are_an_error() -> None:
    texts, folds, labels = study()
    with pytest.raises(JoinError, match="none of the 120 labelled text ids"):
        make_arms(texts, folds, labels.assign(text_id=range(120)))


def test_labels_of_two_methods_are_an_error() -> None:
    texts, folds, labels = study()
    both = pd.concat([labels.assign(method="majority"), labels.assign(method="unanimous")])
    with pytest.raises(DataError, match=r"choose one of the methods \['majority', 'unanimous'\]"):
        make_arms(texts, folds, both)


def test_a_missing_column_is_named() -> None:
    texts, folds, labels = study()
    with pytest.raises(DataError, match=r"texts: missing column\(s\) \['gold'\]"):
        make_arms(texts.drop(columns="gold"), folds, labels)


def test_numbers_are_no_label_names() -> None:
    texts, folds, labels = study()
    with pytest.raises(DataError, match="'gold' must hold label names"):
        make_arms(texts.assign(gold=1), folds, labels)


@pytest.mark.parametrize("seeds", [0, [], [1, 1], [-1, 2]])
def test_seeds_must_be_distinct_and_not_negative(seeds: object) -> None:
    with pytest.raises(ConfigError, match="seeds must be"):
        make_arms(*study(), seeds=seeds)  # type: ignore[arg-type]


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"finetune: students: unknown student 'frosen'.*Did you mean 'frozen'"):
        FinetuneSettings.read({"students": ["frosen"]}, "finetune")
    with pytest.raises(ConfigError, match=r"recipe\.lerning_rate.*Did you mean 'learning_rate'"):
        FinetuneSettings.read({"recipe": {"lerning_rate": 1}}, "finetune")
    with pytest.raises(ConfigError, match="distinct"):
        FinetuneSettings.read({"seeds": [3, 3]}, "finetune")


def test_students_that_train_deterministically_are_resampled() -> None:
    settings = FinetuneSettings()
    assert [settings.resamples(student) for student in ("encoder", "frozen", "linear")] == [False, True, True]
    assert FinetuneSettings(resample=True).resamples("encoder")


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().epochs = 3  # type: ignore[misc]


# batches


def test_each_pass_holds_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 50)
    batches = list(training_batches(lengths, 16, 8, seed=1))
    for start in (0, 4):
        assert sorted(np.concatenate(batches[start : start + 4])) == list(range(50))
    assert [len(batch) for batch in batches[:4]] != [len(batch) for batch in batches[4:]] or not np.array_equal(
        batches[0], batches[4]
    )


def test_batches_depend_on_lengths_and_seed_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 50)
    first, again, other = (list(training_batches(lengths, 8, 20, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_batches_hold_texts_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 250, 2000)
    padded = sum(len(batch) * lengths[batch].max() for batch in training_batches(lengths, 16, 125, seed=1))
    assert padded < 1.3 * lengths.sum()


def test_the_evaluation_grid_is_even_and_ends_at_the_last_step() -> None:
    assert evaluation_steps(100, 4) == [25, 50, 75, 100]
    assert evaluation_steps(7, 3) == [3, 5, 7]
    assert evaluation_steps(2, 10) == [1, 2]


# collapse


def logits_for(codes: np.ndarray, strength: float, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return strength * np.eye(3)[codes] + noise * rng.normal(size=(len(codes), 3))


CODES = np.random.default_rng(5).integers(0, 3, 300)


def test_a_run_that_learned_is_healthy() -> None:
    assert find_collapse(logits_for(CODES, 2.0, 1.0), CODES, CODES) is None


def test_one_predicted_class_is_a_collapse() -> None:
    logits = logits_for(CODES, 0.5, 0.3) + np.array([9.0, 0, 0])
    assert find_collapse(logits, CODES, CODES) == "one class is predicted for every dev text"


@pytest.mark.parametrize(("others", "collapsed"), [(14, True), (16, False)])
def test_a_share_above_95_percent_is_a_collapse(others: int, collapsed: bool) -> None:
    logits = np.tile([3.0, 0.0, 0.0], (300, 1)) + np.linspace(0, 1, 300)[:, None] * [1, 0, 0]
    logits[:others] = [0.0, 9.0, 0.0]
    codes = np.r_[np.ones(others, int), np.zeros(150 - others, int), np.full(150, 2)]
    found = find_collapse(logits, codes, CODES)
    assert ("share in training" in (found or "")) is collapsed


def test_a_rare_minority_may_be_predicted_rarely() -> None:
    train = np.r_[np.zeros(970, int), np.ones(30, int)]
    logits = np.tile([3.0, 0.0], (300, 1)) * np.linspace(0.5, 1, 300)[:, None]
    logits[:10] = [0.0, 3.0]
    codes = np.r_[np.ones(10, int), np.zeros(290, int)]
    assert find_collapse(logits, codes, train) is None, "96.7 % is under the prior of 97 % + 3 %"


def test_logits_that_hardly_differ_are_a_collapse() -> None:
    found = find_collapse(logits_for(CODES, 0.02, 0.01), np.random.default_rng(2).permutation(CODES), CODES)
    assert found is not None
    assert "hardly differ" in found


def test_chance_agreement_at_the_loss_of_the_prior_is_a_collapse() -> None:
    noise = logits_for(np.random.default_rng(8).permutation(CODES), 0.2, 0.4, seed=9)
    found = find_collapse(noise, CODES, CODES)
    assert found is not None
    assert "by chance" in found


def test_a_high_loss_with_agreement_is_overfitting_not_collapse() -> None:
    confident = 30 * logits_for(CODES, 1.0, 1.0)
    assert find_collapse(confident, CODES, CODES) is None


def test_a_logit_that_is_not_finite_is_a_collapse() -> None:
    logits = logits_for(CODES, 2.0, 1.0)
    logits[7, 1] = np.nan
    assert find_collapse(logits, CODES, CODES) == "a logit is not finite"


def test_a_class_that_the_arm_lacks_is_no_collapse() -> None:
    codes = CODES % 2
    logits = logits_for(codes, 2.0, 1.0)
    logits[:, 2] = -np.inf
    assert find_collapse(logits, codes, codes) is None


def test_the_chance_test_equals_a_permutation_test_of_the_matthews_correlation() -> None:
    from sklearn.metrics import matthews_corrcoef

    codes, predicted = CODES[:60], np.where(np.random.default_rng(1).random(60) < 0.45, CODES[:60], CODES[60:120])
    observed = matthews_corrcoef(codes, predicted)
    rng = np.random.default_rng([3, 60])
    drawn = [matthews_corrcoef(rng.permutation(codes), predicted) for _ in range(999)]
    by_hand = (1 + sum(value >= observed - 1e-12 for value in drawn)) / 1000
    assert chance_p(codes, predicted, seed=3) == by_hand
    assert 0.001 <= by_hand <= 0.5


@pytest.mark.slow
def test_the_detector_finds_simulated_collapses_and_spares_healthy_runs() -> None:
    rng = np.random.default_rng(0)
    missed = alarms = 0
    for i in range(1000):
        codes = rng.choice(3, 300, p=[0.5, 0.3, 0.2])
        healthy = logits_for(codes, rng.uniform(1, 3), 1.0, seed=i)
        alarms += find_collapse(healthy, codes, codes, seed=i) is not None
        prior = np.log([0.5, 0.3, 0.2]) + 0.001 * rng.normal(size=(300, 3))
        missed += find_collapse(prior, codes, codes, seed=i) is None
    assert missed <= 10
    assert alarms <= 10
