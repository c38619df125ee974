"""The arm suite: what every arm must do, and what each of them is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from consenso.errors import ConfigError, DataError
from consenso.finetune import (
    ARMS,
    PRESETS,
    STUDENTS,
    FinetuneSettings,
    InstanceSelection,
    Recipe,
    expand_arms,
    is_listed,
    known_arm,
)
from consenso.finetune import make_arms as make_table
from consenso.finetune.arm_names import split_arm
from consenso.finetune.expanding import curve_sizes, rank_annotators
from consenso.finetune.study import make_study
from consenso.finetune.training import Training
from consenso.labels import LabelSchema
from consenso.tables import ARMS as ARMS_TABLE
from consenso.tables import check

NAMES = ("neg", "neu", "pos")
SCHEMA = LabelSchema.from_names(NAMES)
WORDS = {"neg": "bad awful poor sad", "neu": "plain usual even flat", "pos": "good great fine glad"}
EXAMPLES = {
    "gold@<n>": "gold@60",
    "consensus+<k>": "consensus+30",
    "consensus+<k>:random": "consensus+30:random",
    "single:<annotator>": "single:b",
    "panel:<size>": "panel:2",
}
EVERY = [EXAMPLES.get(name, name) for name in ARMS if name != "floor-prior"]
FLOORS = {"floor", "floor-prior"}
SAME_TEXTS = [
    "gold-aligned", "consensus-soft", "gold-noised", "permuted", "consensus+30", "consensus+30:random",
]  # fmt: skip
RANDOM = ["consensus-random", "consensus-selected", "consensus-selected-random", "gold-noised", "permuted", "gold@60",
          "consensus+30:random"]  # fmt: skip
every_arm = pytest.mark.parametrize("arm", EVERY)


def tables(n: int = 300) -> dict[str, Any]:
    """Copies of the tables below, to be changed at will."""
    made = made_tables(n)
    panels = {name: frame.copy() for name, frame in made["panel_labels"].items()}
    return {**{name: made[name].copy() for name in ("texts", "folds", "labels", "votes")}, "panel_labels": panels}


@cache
def made_tables(n: int) -> dict[str, Any]:
    """Texts, two folds, votes of four annotators (`b` asked three times), their majority, and a panel of two.

    Every 13th text lacks gold; ties lack a label; `d` abstains now and then.
    """
    rng = np.random.default_rng(0)
    ids = np.array([f"t{i:05d}" for i in range(n)])
    gold = rng.choice(NAMES, n, p=[0.5, 0.3, 0.2])
    words = [" ".join(rng.choice(WORDS[g].split() if rng.random() < 0.7 else ["so", "it", "was"], 6)) for g in gold]
    texts = pd.DataFrame({"text_id": ids, "text": words, "gold": gold})
    texts.loc[texts.index % 13 == 5, "gold"] = None
    votes = [
        pd.DataFrame(
            {
                "text_id": ids,
                "annotator": name,
                "repetition": repetition,
                "label": np.where(rng.random(n) < error, rng.choice(NAMES, n), gold),
                "status": "ok",
            }
        )
        for name, error, times in (("a", 0.25, 1), ("b", 0.3, 3), ("c", 0.35, 1), ("d", 0.5, 1))
        for repetition in range(times)
    ]
    votes[-1].loc[rng.random(n) < 0.2, ["label", "status"]] = [None, "abstained"]
    votes = pd.concat(votes, ignore_index=True)
    labels = decided(votes, ids)
    fold = pd.DataFrame(
        {"fold": 0, "text_id": ids, "part": np.tile(["train", "train", "train", "dev", "test"], n // 5)}
    )
    folds = pd.concat([fold, fold.assign(fold=1, part=np.roll(fold["part"], 1))], ignore_index=True)
    panel = decided(votes[votes["annotator"].isin(["a", "b"])], ids)[["text_id", "label"]]
    return {"texts": texts, "folds": folds, "labels": labels, "votes": votes, "panel_labels": {"panel:2": panel}}


def decided(votes: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    """The majority of all votes, each annotator counted once; a tie is no label."""
    valid = votes[votes["status"] == "ok"]
    counts = valid.groupby(["text_id", "annotator"])["label"].value_counts(normalize=True)
    shares = counts.groupby(["text_id", "label"]).sum().unstack(fill_value=0).reindex(index=ids, columns=NAMES)
    shares = shares.fillna(0).div(shares.sum(axis=1), axis=0).to_numpy()
    best = shares.max(axis=1)
    unique = (np.isclose(shares, best[:, None])).sum(axis=1) == 1
    label = np.where(unique, np.array(NAMES)[shares.argmax(axis=1)], None)
    return pd.DataFrame(
        {"text_id": ids, "label": label, "score": best, "shares": list(shares), "is_problematic": best < 0.7}
    )


def make_arms(*arms: str, given: dict[str, Any] | None = None, seeds: Any = 2, **options: Any) -> pd.DataFrame:
    return make_table(**(given or tables()), arms=list(arms), seeds=seeds, schema=SCHEMA, **options)


@cache
def every(resample: bool = False, seeds: int = 2) -> pd.DataFrame:
    """The rows of all arms; not to be changed."""
    return make_arms(*EVERY, resample=resample, seeds=seeds)


def with_gold() -> dict[str, Any]:
    """The tables with gold for every text: aligned texts are then the same with and without aligned gold arms."""
    given = tables()
    return {**given, "texts": given["texts"].assign(gold=given["texts"]["gold"].fillna("neu"))}


@cache
def every_with_gold(resample: bool) -> pd.DataFrame:
    """The rows of all arms where every text has gold; not to be changed."""
    return make_arms(*EVERY, given=with_gold(), resample=resample)


def rows_of(frame: pd.DataFrame, arm: str, part: str = "train", seed: int = 1, fold: int = 0) -> pd.DataFrame:
    chosen = (frame["arm"] == arm) & (frame["part"] == part) & (frame["seed"] == seed) & (frame["fold"] == fold)
    return frame[chosen].reset_index(drop=True)


def without_lists(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(shares=[None if row is None else tuple(row) for row in frame["shares"]])


def assert_same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(without_lists(a), without_lists(b))


def test_the_suite_covers_every_arm() -> None:
    assert {split_arm(arm)[0] for arm in EVERY} | {"floor-prior"} == set(ARMS)


# what every arm must do


@every_arm
@pytest.mark.parametrize("resample", [False, True])
def test_rows_stand_in_the_part_that_the_fold_says_and_never_in_test(arm: str, resample: bool) -> None:
    given = tables()
    frame = make_arms(arm, given=given, resample=resample)
    where = frame.merge(given["folds"], on=["fold", "text_id"], suffixes=("", "_of_fold"))
    assert len(where) == len(frame)
    assert (where["part"] == where["part_of_fold"]).all()
    assert set(zip(frame["fold"], frame["seed"], frame["part"])) == {
        (fold, seed, part) for fold in (0, 1) for seed in (1, 2) for part in ("train", "dev")
    }


@every_arm
@pytest.mark.parametrize("dev", ["own", "gold"])
def test_gold_of_test_texts_is_never_read(arm: str, dev: Any) -> None:
    given = tables()
    given["folds"] = given["folds"][given["folds"]["fold"] == 0]
    before = make_arms(arm, given=given, dev=dev, resample=True)
    test = given["texts"]["text_id"].isin(given["folds"].loc[given["folds"]["part"] == "test", "text_id"])
    given["texts"].loc[test, "gold"] = [f"poison {i}" for i in range(test.sum())]
    assert_same(before, make_arms(arm, given=given, dev=dev, resample=True))


@every_arm
def test_the_order_of_input_rows_and_the_type_of_ids_do_not_matter(arm: str) -> None:
    given = tables()
    moved = {name: given[name].sample(frac=1, random_state=7) for name in ("texts", "folds", "labels", "votes")}
    moved["panel_labels"] = {"panel:2": given["panel_labels"]["panel:2"].sample(frac=1, random_state=8)}
    assert_same(make_arms(arm, given=given, resample=True), make_arms(arm, given=moved, resample=True))


@every_arm
def test_more_seeds_leave_the_first_ones_alone(arm: str) -> None:
    few, many = (make_arms(arm, seeds=seeds, resample=True) for seeds in ([1], [1, 2, 3]))
    assert_same(few, many[many["seed"] == 1].reset_index(drop=True))


@every_arm
@pytest.mark.parametrize("resample", [False, True])
def test_other_arms_do_not_change_an_arms_rows(arm: str, resample: bool) -> None:
    among = every_with_gold(resample)
    alone = make_arms(arm, given=with_gold(), resample=resample)
    assert_same(alone, among[among["arm"].isin(alone["arm"].unique())].reset_index(drop=True))


@every_arm
def test_rows_are_a_valid_table(arm: str) -> None:
    frame = make_arms(arm, resample=True)
    assert len(check(frame, ARMS_TABLE)) == len(frame)
    assert frame["shares"].notna().all() if arm == "consensus-soft" else frame["shares"].isna().all()
    assert frame.sort_values(list(ARMS_TABLE.key)).index.tolist() == list(range(len(frame)))


@pytest.mark.parametrize("arm", sorted(set(EVERY) - {"gold@60"}))
def test_all_arms_share_one_resample(arm: str) -> None:
    """A text that an arm holds m times without resampling it holds m × its copies; `gold` shows the copies."""
    whole, drawn = every_with_gold(False), every_with_gold(True)
    copies = rows_of(drawn, "gold")["text_id"].value_counts()
    once, found = (rows_of(frame, arm)["text_id"].value_counts() for frame in (whole, drawn))
    times = once * copies.reindex(once.index, fill_value=0)
    assert len(found)
    if arm.endswith("random") and not arm.startswith(
        "consensus+"
    ):  # a subset of the drawn rows, another one than before
        assert (found <= copies.reindex(found.index, fill_value=0)).all()
    else:
        assert found.sort_index().equals(times[times > 0].sort_index())


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("arm", SAME_TEXTS)
def test_aligned_arms_hold_identical_texts(arm: str, resample: bool) -> None:
    frame = every(resample)
    for part in ("train", "dev"):
        for seed in (1, 2):
            ours, theirs = rows_of(frame, arm, part, seed), rows_of(frame, "consensus", part, seed)
            assert ours["text_id"].tolist() == theirs["text_id"].tolist()
            assert len(ours) > 0


def test_arms_on_part_of_the_texts_stay_inside_the_aligned_ones() -> None:
    frame = every()
    aligned = set(rows_of(frame, "consensus")["text_id"])
    for arm in ("consensus-selected", "consensus-selected-random", "perspectivist", "single:b", "panel:2", "gold-kept"):
        assert set(rows_of(frame, arm)["text_id"]) <= aligned


def test_a_text_without_gold_leaves_the_aligned_arms_only_if_one_of_them_needs_gold() -> None:
    given = tables()
    without = set(given["texts"].loc[given["texts"]["gold"].isna(), "text_id"])
    for alone in ("consensus", "perspectivist", "permuted", "consensus+30", "single:b", "panel:2"):
        assert without & set(make_arms(alone, "gold", "gold@60", given=given)["text_id"])
    for control in ("gold-aligned", "gold-kept", "gold-noised"):
        assert not without & set(make_arms("consensus", "perspectivist", control, given=given)["text_id"])


def test_a_text_whose_label_was_withdrawn_is_in_no_aligned_arm() -> None:
    given = tables()
    given["labels"].loc[:40, "label"] = None  # its gold was used to make labels
    frame = make_arms(*EVERY, given=given)
    withdrawn = set(given["labels"].loc[:40, "text_id"])
    assert set(frame.loc[frame["text_id"].isin(withdrawn), "arm"]) == {"gold", "gold@60", *FLOORS}


# whose labels


def own_majority(votes: pd.DataFrame, annotator: str) -> pd.Series:
    mine = votes[(votes["annotator"] == annotator) & (votes["status"] == "ok")]
    counts = mine.groupby("text_id")["label"].agg(lambda labels: labels.mode().tolist())
    return counts[counts.map(len) == 1].map(lambda labels: labels[0])


LABELS_OF: dict[str, tuple[str, Callable[[dict[str, Any]], pd.Series]]] = {
    **dict.fromkeys(
        ("gold", "gold-aligned", "gold-kept", "gold@60", "floor"),
        ("gold", lambda given: given["texts"].set_index("text_id")["gold"]),
    ),
    **dict.fromkeys(
        (
            "consensus", "consensus-kept", "consensus-random", "consensus-repeated", "consensus-selected",
            "consensus-selected-random", "consensus-soft",
        ),
        ("consensus", lambda given: given["labels"].set_index("text_id")["label"]),
    ),
    "single:b": ("vote", lambda given: own_majority(given["votes"], "b")),
    "panel:2": ("panel", lambda given: given["panel_labels"]["panel:2"].set_index("text_id")["label"]),
}  # fmt: skip


@pytest.mark.parametrize("arm", LABELS_OF)
@pytest.mark.parametrize("part", ["train", "dev"])
def test_train_and_dev_carry_the_labels_of_the_arms_own_source(arm: str, part: str) -> None:
    given = tables()
    source, labels = LABELS_OF[arm]
    rows = rows_of(every(), arm, part)
    assert (rows["target"] == rows["text_id"].map(labels(given))).all()
    assert set(rows["source"]) == {source}


@every_arm
def test_dev_gold_gives_every_arm_gold_on_its_dev_texts(arm: str) -> None:
    given = tables()
    if arm == "permuted":  # a state that gold chose would have learned something of it
        assert_same(*(make_arms(arm, given=given, dev=dev) for dev in ("own", "gold")))
        return
    own, other = (make_arms(arm, given=given, dev=dev) for dev in ("own", "gold"))
    gold = given["texts"].set_index("text_id")["gold"]
    dev = other[other["part"] == "dev"]
    assert (dev["target"] == dev["text_id"].map(gold)).all()
    assert set(dev["source"]) == {"gold"}
    assert dev["shares"].isna().all()
    kept = own[(own["part"] == "dev") & own["text_id"].map(gold).notna()]
    assert dev["text_id"].tolist() == kept["text_id"].tolist()
    train_own, train_other = (frame[frame["part"] == "train"].reset_index(drop=True) for frame in (own, other))
    assert_same(train_own, train_other)


def test_perspectivist_has_one_row_per_valid_vote() -> None:
    given = tables()
    rows = rows_of(make_arms("perspectivist", "consensus", given=given), "perspectivist")
    aligned = rows_of(make_arms("consensus", given=given), "consensus")["text_id"]
    votes = given["votes"][given["votes"]["label"].notna() & given["votes"]["text_id"].isin(aligned)]
    expected = votes.groupby(["text_id", "label"]).size()
    assert rows.groupby(["text_id", "target"]).size().to_dict() == expected.to_dict()
    assert set(rows["source"]) == {"vote"}


def test_perspectivist_chooses_by_the_consensus_of_dev() -> None:
    frame = make_arms("perspectivist", "consensus")
    ours, theirs = (rows_of(frame, arm, "dev") for arm in ("perspectivist", "consensus"))
    assert_same(ours.drop(columns="arm"), theirs.drop(columns="arm"))


def test_consensus_repeated_has_the_rows_of_perspectivist_with_the_label_of_consensus() -> None:
    frame = make_arms("consensus-repeated", "consensus", "perspectivist", resample=True)
    once, often, votes = (rows_of(frame, arm) for arm in ("consensus", "consensus-repeated", "perspectivist"))
    assert often["text_id"].tolist() == votes["text_id"].tolist()
    label = once.drop_duplicates("text_id").set_index("text_id")["target"]
    assert (often["target"] == often["text_id"].map(label)).all()
    assert len(often) > len(once)


def test_an_annotators_tie_with_itself_is_no_label() -> None:
    given = tables()
    text = "t00000"
    mine = (given["votes"]["text_id"] == text) & (given["votes"]["annotator"] == "b")
    given["votes"].loc[mine, "label"] = ["neg", "neu", "pos"]
    assert text in set(rows_of(make_arms("consensus", given=given), "consensus")["text_id"])
    assert text not in set(make_arms("single:b", given=given)["text_id"])


# random draws


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize(
    ("arm", "like"), [("consensus-random", "consensus-kept"), ("consensus-selected-random", "consensus-selected")]
)
def test_random_controls_have_the_size_and_class_counts_of_what_they_control(
    arm: str, like: str, resample: bool
) -> None:
    frame = every(resample, 4)
    for seed in (1, 2, 3, 4):
        ours, theirs = (rows_of(frame, name, seed=seed) for name in (arm, like))
        assert ours["target"].value_counts().to_dict() == theirs["target"].value_counts().to_dict()
        assert 0 < len(ours) < len(rows_of(frame, "consensus", seed=seed))
        assert ours["text_id"].tolist() != theirs["text_id"].tolist()


@pytest.mark.parametrize("arm", RANDOM)
def test_each_seed_and_fold_draws_anew(arm: str) -> None:
    frame = every(seeds=3)
    drawn = [
        tuple(zip(rows["text_id"], rows["target"], rows["source"]))
        for fold in (0, 1)
        for seed in (1, 2, 3)
        if len(rows := rows_of(frame, arm, seed=seed, fold=fold))
    ]
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("part", ["train", "dev"])
def test_permuted_keeps_the_class_counts_and_nothing_else(part: str) -> None:
    frame = make_arms("permuted", "consensus", given=tables(1500))
    ours, theirs = (rows_of(frame, arm, part) for arm in ("permuted", "consensus"))
    assert ours["target"].value_counts().to_dict() == theirs["target"].value_counts().to_dict()
    by_chance = (theirs["target"].value_counts(normalize=True) ** 2).sum()
    assert abs((ours["target"] == theirs["target"]).mean() - by_chance) < 4 * np.sqrt(0.25 / len(ours))
    assert set(ours["source"]) == {"permuted"}


def test_the_copies_of_a_text_carry_one_label() -> None:
    frame = make_arms("permuted", "gold-noised", resample=True)
    train = frame[frame["part"] == "train"]
    assert train.groupby(["arm", "fold", "seed", "text_id"])["target"].nunique().max() == 1


def test_flips_follow_the_confusion_of_consensus_and_gold() -> None:
    """A χ² per gold class against the rates, counted here from the rows of other arms; 10 seeds, p > .001."""
    from scipy.stats import chisquare

    seeds = 10
    frame = make_arms("gold-noised", "gold-aligned", "consensus", given=tables(3000), seeds=seeds)
    for part in ("train", "dev"):
        pairs = pd.concat(
            pd.DataFrame({"gold": rows_of(frame, "gold-aligned", part, seed)["target"],
                          "noised": rows_of(frame, "gold-noised", part, seed)["target"]})
            for seed in range(1, seeds + 1)
        )  # fmt: skip
        gold, voted = (rows_of(frame, arm)["target"] for arm in ("gold-aligned", "consensus"))
        counts = pd.crosstab(gold, voted).reindex(index=NAMES, columns=NAMES, fill_value=0)
        expected = counts.div(counts.sum(axis=1), axis=0)
        assert (counts > 0).to_numpy().all()
        for name in NAMES:
            found = pairs.loc[pairs["gold"] == name, "noised"].value_counts().reindex(NAMES, fill_value=0)
            assert chisquare(found, expected.loc[name] * found.sum()).pvalue > 0.001
    assert (pairs["gold"] != pairs["noised"]).mean() > 0.03


def test_noise_depends_on_gold_alone() -> None:
    """Given gold, the flips say nothing about the consensus: the error is as frequent and not as systematic."""
    frame = make_arms("gold-noised", "gold-aligned", "consensus", given=tables(6000))
    gold, voted, noised = (rows_of(frame, arm)["target"] for arm in ("gold-aligned", "consensus", "gold-noised"))
    wrong = voted != gold
    assert abs((noised != gold)[wrong].mean() - (noised != gold)[~wrong].mean()) < 0.05
    assert abs((noised != gold).mean() - wrong.mean()) < 0.02


# gold@n and corrections


def test_gold_at_n_counts_its_dev_labels_within_n() -> None:
    frame = make_arms("gold@60", "gold@100")
    sizes = frame.groupby(["arm", "fold", "seed"]).size().groupby("arm").unique().map(list).to_dict()
    assert sizes == {"gold@60": [60], "gold@100": [100]}
    dev = rows_of(frame, "gold@100", "dev")
    assert len(dev) == 25, "one dev text for three train texts, as in the fold"


def test_gold_at_n_has_at_least_two_dev_labels_per_class() -> None:
    given = tables()
    dev = given["folds"]["part"] == "dev"
    given["folds"].loc[dev & (given["folds"].index % 4 > 0), "part"] = "train"
    frame = make_arms("gold@20", given=given)
    assert len(rows_of(frame, "gold@20", "dev")) == 2 * len(NAMES)
    assert len(rows_of(frame, "gold@20")) == 20 - 2 * len(NAMES)


@pytest.mark.parametrize("part", ["train", "dev"])
def test_gold_at_n_is_nested_within_a_seed(part: str) -> None:
    sizes = (7, 8, 20, 37, 60, 61, 120, 200)
    frame = make_arms(*(f"gold@{n}" for n in sizes), seeds=3)
    for seed in (1, 2, 3):
        sets = [set(rows_of(frame, f"gold@{n}", part, seed)["text_id"]) for n in sizes]
        assert all(small <= large for small, large in pairwise(sets))
    assert len(sets[0]) < len(sets[-1])


def test_all_human_labels_are_the_gold_arm() -> None:
    frame = make_arms("gold@240", "gold", given=with_gold())
    for part in ("train", "dev"):
        everything = rows_of(frame, "gold", part).drop(columns="arm")
        assert_same(rows_of(frame, "gold@240", part).drop(columns="arm"), everything)


def test_gold_at_n_is_resampled_within_its_n() -> None:
    whole, drawn = (rows_of(make_arms("gold@60", resample=resample), "gold@60") for resample in (False, True))
    assert len(whole) == len(drawn)
    assert set(drawn["text_id"]) < set(whole["text_id"])


def test_more_human_labels_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"arm 'gold@5000' asks for 5000 human labels.* of fold 0 have 221 texts"):
        make_arms("gold@5000")
    with pytest.raises(ConfigError, match=r"arm 'consensus\+999' asks for 999 corrections"):
        make_arms("consensus+999")


def test_corrections_start_with_problematic_texts_of_the_lowest_score() -> None:
    given = tables()
    frame = make_arms("consensus+30", "gold-aligned", given=given)
    both = pd.concat(rows_of(frame, "consensus+30", part) for part in ("train", "dev"))
    assert (both["source"] == "human").sum() == 30
    facts = both.merge(given["labels"], on="text_id").merge(given["texts"], on="text_id")
    assert (facts["target"] == facts["gold"])[facts["source"] == "human"].all()
    assert (facts["target"] == facts["label"])[facts["source"] == "consensus"].all()
    for part in ("train", "dev"):
        here = facts[facts["part"] == part].assign(rank=lambda f: f["score"] - 10 * f["is_problematic"])
        human = here["source"] == "human"
        assert here.loc[human, "rank"].max() <= here.loc[~human, "rank"].min()
        assert human.sum() == round(30 * len(here) / len(facts))


def test_corrections_at_random_do_not_look_at_the_score() -> None:
    given = tables()
    frame = make_arms("consensus+30:random", "gold-aligned", given=given, seeds=20)
    corrected = frame[frame["source"] == "human"].merge(given["labels"], on="text_id")
    assert (corrected.groupby(["fold", "seed"]).size() == 30).all()
    aligned = frame[frame["arm"] == "gold-aligned"].merge(given["labels"], on="text_id")
    assert abs(corrected["is_problematic"].mean() - aligned["is_problematic"].mean()) < 0.05


@pytest.mark.parametrize("suffix", ["", ":random"])
def test_corrections_are_nested_within_a_seed(suffix: str) -> None:
    frame = make_arms(*(f"consensus+{k}{suffix}" for k in (10, 25, 60)), seeds=3)
    human = frame[frame["source"] == "human"].groupby(["arm", "fold", "seed"])["text_id"].agg(set)
    for fold in (0, 1):
        for seed in (1, 2, 3):
            few, more, most = (human[f"consensus+{k}{suffix}", fold, seed] for k in (10, 25, 60))
            assert few < more < most


# soft targets


@pytest.mark.parametrize("soft", ["shares", "votes"])
def test_soft_targets_are_shares(soft: Any) -> None:
    given = tables()
    frame = make_arms("consensus-soft", given=given, soft=soft, resample=True)
    shares = np.stack(frame["shares"].to_list())
    assert np.allclose(shares.sum(axis=1), 1)
    assert (np.array(NAMES)[shares.argmax(axis=1)] == frame["target"]).all()
    stated = given["labels"].set_index("text_id")["shares"]
    assert np.allclose(shares, np.stack(frame["text_id"].map(stated).to_list())), "here both count annotators once"


def test_a_human_label_is_certain() -> None:
    given = tables()
    given["labels"]["source"] = np.where(given["labels"].index % 3 == 0, "human", "consensus")
    frame = make_arms("consensus-soft", given=given)
    human = frame[frame["source"] == "human"]
    assert len(human)
    assert (np.stack(human["shares"].to_list()) == np.eye(3)[human["target"].map(NAMES.index)]).all()


def test_shares_that_cannot_be_used_are_an_error() -> None:
    given = tables()
    given["labels"]["shares"] = [row[:2] for row in given["labels"]["shares"]]
    with pytest.raises(DataError, match="'shares' do not hold 3 numbers"):
        make_arms("consensus-soft", given=given)
    given["labels"] = given["labels"].drop(columns="shares")
    with pytest.raises(DataError, match=r"labels: missing column\(s\) \['shares'\]"):
        make_arms("consensus-soft", given=given)
    assert len(make_arms("consensus-soft", given=given, soft="votes"))


def training_of(targets: np.ndarray | None, codes: np.ndarray) -> Training:
    dev, asked = np.arange(90, 120), np.arange(90, 150)
    dev_targets = None if targets is None else np.eye(3)[np.arange(90, 120) % 3]
    return Training("", 1, np.arange(90), codes, dev, dev % 3, asked, 0, targets, dev_targets)


def features(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"embeddings": rng.normal(size=(150, 4)) + 2 * np.eye(3, 4)[np.arange(150) % 3]}, rng.dirichlet(
        np.ones(3), 90
    )


def test_one_hot_targets_give_the_head_of_the_hard_labels() -> None:
    prepared, _ = features()
    codes = np.arange(90) % 3
    hard, soft = (
        STUDENTS["frozen"].train(training_of(targets, codes), prepared, Recipe(), SCHEMA)
        for targets in (None, np.eye(3)[codes])
    )
    assert np.array_equal(hard.probabilities, soft.probabilities)
    assert hard.facts == soft.facts
    assert hard.curve == soft.curve


def test_a_soft_head_minimises_the_soft_cross_entropy() -> None:
    """Against scipy: mean over nothing, Σ_i −Σ_k q_ik log p_ik + |W|² / (2C), as scikit-learn states its objective."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    prepared, targets = features()
    X, C = prepared["embeddings"][:90], 0.7
    found = STUDENTS["frozen"].train(training_of(targets, targets.argmax(1)), prepared, Recipe(c_grid=(C,)), SCHEMA)

    def objective(flat: np.ndarray) -> float:
        W, b = flat[:12].reshape(4, 3), flat[12:]
        return float(-(targets * log_softmax(X @ W + b, axis=1)).sum() + (W**2).sum() / (2 * C))

    best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-7}).x
    expected = np.exp(log_softmax(prepared["embeddings"][90:] @ best[:12].reshape(4, 3) + best[12:], axis=1))
    assert np.allclose(found.probabilities, expected, atol=2e-3)
    assert found.facts["train_loss"] == pytest.approx(
        -(targets * log_softmax(X @ best[:12].reshape(4, 3) + best[12:], axis=1)).sum(axis=1).mean(), abs=1e-3
    )


def one_hot(given: dict[str, Any]) -> dict[str, Any]:
    """The tables with all certainty on the consensus label."""
    sure = [None if pd.isna(label) else np.eye(3)[NAMES.index(label)] for label in given["labels"]["label"]]
    return {**given, "labels": given["labels"].assign(shares=sure)}


def test_a_certain_soft_arm_predicts_as_the_hard_arm() -> None:
    from consenso.finetune import run_arms

    given = one_hot(tables())
    arms = make_arms("consensus", "consensus-soft", given=given, seeds=1, resample=True)
    folds = given["folds"]
    results = run_arms(arms, given["texts"][["text_id", "text"]], folds, student="linear", schema=SCHEMA)
    hard, soft = (results.predictions[results.predictions["arm"] == arm] for arm in ("consensus", "consensus-soft"))
    assert np.array_equal(np.stack(hard["probabilities"].to_list()), np.stack(soft["probabilities"].to_list()))


def keys_of(arms: pd.DataFrame, given: dict[str, Any], student: str = "linear", **recipe: Any) -> dict[Any, Any]:
    study = make_study(
        arms,
        given["texts"][["text_id", "text"]],
        given["folds"],
        student=student,
        recipe=Recipe(**recipe),
        schema=SCHEMA,
    )
    return {(run.arm, run.fold, run.seed): run.training for run in study.runs}


def test_the_key_covers_the_soft_targets() -> None:
    given = tables()
    arms = make_arms("consensus", "consensus-soft", given=given, seeds=1)
    before = keys_of(arms, given)
    moved = arms.assign(shares=[None if row is None else np.roll(row, 0) * 0.98 + 0.02 / 3 for row in arms["shares"]])
    after = keys_of(moved, given)
    assert before["consensus", 0, 1].key == after["consensus", 0, 1].key
    assert before["consensus-soft", 0, 1].key != after["consensus-soft", 0, 1].key
    assert before["consensus", 0, 1].key != before["consensus-soft", 0, 1].key


@pytest.mark.parametrize("part", ["train", "dev"])
def test_targets_stand_beside_their_rows(part: str) -> None:
    given = tables()
    arms = make_arms("consensus-soft", given=given, seeds=1, resample=True)
    training = keys_of(arms.sample(frac=1, random_state=3), given)["consensus-soft", 0, 1]
    rows, targets, codes = (
        (training.rows, training.targets, training.codes)
        if part == "train"
        else (training.dev_rows, training.dev_targets, training.dev_codes)
    )
    stated = given["labels"].sort_values("text_id")["shares"].to_list()
    assert targets is not None
    assert np.allclose(targets, np.stack([stated[row] for row in rows]))
    assert (targets.argmax(axis=1) == codes).all()


def test_a_part_with_some_soft_rows_is_an_error() -> None:
    given = tables()
    arms = make_arms("consensus-soft", given=given, seeds=1)
    arms["shares"] = [None if i == len(arms) - 1 else row for i, row in enumerate(arms["shares"])]
    with pytest.raises(DataError, match=r"rows of arm 'consensus-soft' have no shares"):
        keys_of(arms, given)


# steps


def test_every_arm_takes_the_steps_of_the_largest_one() -> None:
    given = tables()
    trainings = keys_of(make_arms(*EVERY, given=given), given, "encoder", epochs=3, batch_size=8)
    steps = {training.steps for (arm, *_), training in trainings.items() if arm not in FLOORS}
    largest = max(len(t.rows) for (arm, *_), t in trainings.items() if arm == "gold")
    assert steps == {3 * -(-largest // 8)}


def test_several_rows_per_text_do_not_lengthen_the_other_trainings() -> None:
    given = tables()
    few = keys_of(make_arms("consensus", given=given), given, "encoder")
    more = keys_of(make_arms("consensus", "perspectivist", "consensus-repeated", given=given), given, "encoder")
    assert all(more[name].key == training.key for name, training in few.items())


def test_matched_epochs_follow_each_arms_own_rows() -> None:
    given = tables()
    arms = make_arms("consensus", "consensus-repeated", "consensus-kept", given=given, seeds=1)
    for (arm, *_), training in keys_of(arms, given, "encoder", steps="epochs", epochs=2, batch_size=8).items():
        assert training.steps == 2 * -(-len(training.rows) // 8), arm


def test_patience_reaches_the_training_and_its_key() -> None:
    given = tables()
    arms = make_arms("consensus", given=given, seeds=1)
    plain, patient = (keys_of(arms, given, "encoder", patience=p)["consensus", 0, 1] for p in (0, 3))
    assert (plain.patience, patient.patience) == (0, 3)
    assert plain.key != patient.key


def test_a_variant_of_a_student_trains_the_same_pieces() -> None:
    given = tables()
    arms = make_arms("consensus", given=given, seeds=1)
    plain, varied = (keys_of(arms, given, student) for student in ("linear", "linear (gold dev)"))
    assert [t.key for t in plain.values()] == [t.key for t in varied.values()]
    with pytest.raises(ConfigError, match="unknown student 'linaer'"):
        keys_of(arms, given, "linaer (gold dev)")


# names


def test_known_arms() -> None:
    good = ("gold", "floor", "gold@250", "gold@curve", "single:b", "single:best", "panel:3", "consensus+200:random")
    bad = ("gold@", "gold@0", "gold@<n>", "single:", "panel:x", "consensus+", "consensus+5:worst", "full", "golden")
    assert [name for name in good if not known_arm(name)] == []
    assert [name for name in bad if known_arm(name)] == []


def test_a_list_may_train_more_than_it_names() -> None:
    assert is_listed("gold@500", ["gold@curve"])
    assert is_listed("single:b", ["full"])
    assert is_listed("gold-kept", ["standard"])
    assert is_listed("floor-prior", ["floor"])
    assert not is_listed("gold@500", ["gold@250"])
    assert not is_listed("single:b", ["single:a", "standard"])


def expanded(*arms: str, given: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    return expand_arms(list(arms), **{**(given or tables()), **changes})


def test_presets_hold_known_arms_and_grow() -> None:
    quick, standard, full = (set(PRESETS[name]) for name in ("quick", "standard", "full"))
    assert quick < standard < full
    assert all(known_arm(name) for name in full)
    assert expanded("quick") == sorted({*quick, "floor-prior"})
    assert set(expanded("quick", "single:a")) == {*quick, "floor-prior", "single:a"}


def test_the_curve_ends_below_the_number_of_human_labels() -> None:
    assert curve_sizes(250) == []
    assert curve_sizes(251) == [250]
    assert curve_sizes(4001) == [250, 500, 1000, 2000, 4000]
    assert expanded("gold@curve", "gold", given=tables(700)) == ["gold", "gold@250", "gold@500"]


def test_the_best_annotator_is_the_one_that_agrees_most_with_the_others() -> None:
    given = tables()
    votes = given["votes"]
    own = pd.DataFrame({name: own_majority(votes, name) for name in "abcd"})
    agreement = {
        a: np.mean([(own[a] == own[b])[own[a].notna() & own[b].notna()].mean() for b in "abcd" if b != a])
        for a in "abcd"
    }
    assert rank_annotators(votes, given["texts"]["text_id"]) == sorted("abcd", key=lambda a: -agreement[a])
    best = max("abcd", key=lambda a: agreement[a])
    assert expanded("single:best") == [f"single:{best}"]
    assert expanded("single:each", "single:best") == ["single:a", "single:b", "single:c", "single:d"]


def test_votes_on_test_texts_do_not_choose_the_best_annotator() -> None:
    given = tables()
    given["folds"] = given["folds"][given["folds"]["fold"] == 0]
    test = given["folds"].loc[given["folds"]["part"] == "test", "text_id"]
    before = expanded("single:best", given=given)
    given["votes"].loc[given["votes"]["text_id"].isin(test) & given["votes"]["label"].notna(), "label"] = "neg"
    assert expanded("single:best", given=given) == before


def test_full_leaves_out_what_the_data_do_not_allow() -> None:
    given = tables(700)
    found = expanded("full", given=given)
    assert {split_arm(arm)[0] for arm in found} == set(ARMS) - {"consensus-repeated"}
    assert not any(arm.startswith(("single", "persp")) for arm in expanded("full", given={**given, "votes": None}))
    few = expanded("full", given=tables(100))
    assert not any(arm.startswith(("consensus+", "gold@")) for arm in few)
    without = {**given, "texts": given["texts"].assign(gold=None), "labels": given["labels"].drop(columns="shares")}
    left = expanded("full", given={**without, "panel_labels": {}})
    assert set(left) == {
        "consensus", "consensus-kept", "consensus-random", "consensus-selected", "consensus-selected-random",
        "perspectivist", "permuted", *[arm for arm in left if arm.startswith("single:")],
    }  # fmt: skip
    assert len(make_table(**given, arms="full", seeds=1, schema=SCHEMA)["arm"].unique()) == len(found)


@pytest.mark.parametrize(
    ("arms", "missing", "said"),
    [
        (["perspectivist"], {"votes": None}, "arm 'perspectivist' needs the votes"),
        (["single:best"], {"votes": None}, "arm 'single:best' needs the votes"),
        (
            ["panel:2"],
            {"panel_labels": None},
            "arm 'panel:2' needs the labels of that panel; found panel labels for none",
        ),
        (["single:e"], {}, "arm 'single:e': no such annotator; found a, b, c, d"),
        (["single:each"], {"votes": tables()["votes"].assign(label=None)}, "no train or dev text has a valid vote"),
        (["gold@curve"], {}, "with these data 'gold@curve' stands for no arm"),
        ("gold", {}, "arms must be a list of names; found 'gold'"),
        (["gold-alined"], {}, "unknown arm 'gold-alined'.*Did you mean 'gold-aligned'"),
    ],
)
def test_an_arm_that_cannot_be_made_says_why(arms: Any, missing: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_table(**{**tables(), **missing}, arms=arms, seeds=1)


def test_selection_settings_reach_the_arm() -> None:
    sizes = [
        len(
            rows_of(
                make_arms("consensus-selected", selection=InstanceSelection(beta=beta, theta=0)), "consensus-selected"
            )
        )
        for beta in (0, 0.25, 0.5)
    ]
    whole = len(rows_of(make_arms("consensus"), "consensus"))
    assert sizes == [whole, whole - whole // 4, whole - whole // 2]


# settings


def settings(**values: Any) -> FinetuneSettings:
    return FinetuneSettings.read(values, "finetune")


def test_presets_stand_for_their_arms() -> None:
    assert settings(arms="quick").arms == PRESETS["quick"]
    assert settings(arms=["quick", "single:best", "gold"]).arms == (*PRESETS["quick"], "single:best")
    assert settings(arms="full").arms == ("full", *PRESETS["full"]), "full itself says what may be left out"
    assert settings().arms == PRESETS["standard"]
    assert settings(overrides={"encoder": {"arms": "quick"}}).for_student("encoder").arms == PRESETS["quick"]


def test_studies_are_the_students_and_then_the_variants() -> None:
    found = settings(
        students=["frozen", "encoder"],
        seeds=4,
        overrides={"encoder": {"seeds": 2, "recipe": {"epochs": 3}}},
        variants={
            "gold dev": {"dev": "gold"},
            "own epochs": {
                "students": ["encoder"], "arms": ["consensus", "consensus-repeated"],
                "steps": "epochs", "patience": 2, "recipe": {"batch_size": 8},
            },
        },
    )  # fmt: skip
    studies = {study.student: study for study in found.studies()}
    assert [(name, study.base) for name, study in studies.items()] == [
        ("frozen", "frozen"), ("encoder", "encoder"), ("frozen (gold dev)", "frozen"), ("encoder (gold dev)", "encoder"),
        ("encoder (own epochs)", "encoder"),
    ]  # fmt: skip
    assert [study.settings.dev for study in studies.values()] == ["own", "own", "gold", "gold", "own"]
    varied = studies["encoder (own epochs)"].settings
    assert (varied.recipe.steps, varied.recipe.patience, varied.recipe.batch_size, varied.recipe.epochs) == (
        "epochs",
        2,
        8,
        3,
    )
    assert (varied.arms, varied.seeds) == (("consensus", "consensus-repeated"), 2)
    assert studies["encoder (gold dev)"].settings.recipe == studies["encoder"].settings.recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"arms": ["consensus-keep"]}, r"finetune: arms: unknown arm 'consensus-keep'.*Did you mean 'consensus-kept'"),
        ({"arms": "standart"}, r"unknown arm 'standart'.*Did you mean 'standard'"),
        ({"arms": 5}, "arms"),
        ({"recipe": {"patience": 2}}, r"recipe\.patience may differ in a declared variant only: \[finetune\.variants\.NAME\]"),
        ({"overrides": {"frozen": {"recipe": {"steps": "epochs"}}}}, r"recipe\.steps may differ in a declared variant only"),
        ({"variants": {"x": {"students": ["encoder"], "dev": "gold"}}}, "student 'encoder' is not among finetune.students"),
        ({"variants": {"x": {"seeds": 3}}}, "a variant must differ in dev, steps, patience or recipe"),
        ({"variants": {"x": {"recipe": {"epoch": 3}}}}, "epoch"),
        ({"variants": {"a (b)": {"dev": "gold"}}}, "a variant's name has letters.*found 'a \\(b\\)'"),
        ({"variants": {"x": {"dev": "gold", "seeds": [1, 1]}}}, "distinct"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_say_why(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        settings(**values)
    assert "\n" not in str(error.value)


def test_settings_survive_a_round_through_the_record() -> None:
    found = settings(arms="full", variants={"gold dev": {"dev": "gold"}})
    assert settings(**found.model_dump(mode="json")) == found


# documentation


def test_the_documentation_lists_every_arm() -> None:
    page = (Path(__file__).parents[1] / "docs/training.md").read_text(encoding="utf-8")
    table = page.split("## Arms\n")[1].split("\n### ")[0]
    assert sorted(re.findall(r"^\| `([^`]+)` \|", table, re.M)) == sorted(ARMS)


def test_the_documentation_lists_what_each_preset_holds() -> None:
    page = (Path(__file__).parents[1] / "docs/training.md").read_text(encoding="utf-8")
    section = page.split("### Presets\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.M))
    listed = {name: set(re.findall(r"`([^`]+)`", row)) for name, row in rows.items()}
    for name, above in (("quick", None), ("standard", "quick"), ("full", "standard")):
        assert listed[name] - {above} == set(PRESETS[name]) - set(PRESETS.get(above or "", ()))
