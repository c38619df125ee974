"""A user's own predictions: every layout gives the same table, and every flaw one line."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from consenso.compare import compare_arms, read_predictions
from consenso.errors import DataError, JoinError
from making import shared

ARMS = ("consensus", "human")


def example(n=40, seeds=(1, 2)):
    rng = np.random.default_rng(n)
    ids = [f"{i:03d}" for i in range(n)]
    gold = pd.Series(rng.choice(["0", "1"], n), index=ids, name="gold")
    blocks = [
        pd.DataFrame({"arm": arm, "seed": seed, "text_id": ids, "predicted": rng.choice(["0", "1"], n)})
        for arm in ARMS for seed in seeds
    ]  # fmt: skip
    return pd.concat(blocks, ignore_index=True), gold


def same(found, expected):
    columns = ["arm", "seed", "text_id", "predicted"]
    one, other = (frame.sort_values(columns[:3])[columns].reset_index(drop=True) for frame in (found, expected))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_a_long_file_with_gold_beside_it(tmp_path):
    predictions, gold = example()
    predictions.sample(frac=1, random_state=1).to_csv(tmp_path / "runs.csv", index=False)
    gold.rename_axis("text_id").reset_index().to_csv(tmp_path / "truth.csv", index=False)
    found, truth = read_predictions(tmp_path / "runs.csv", tmp_path / "truth.csv")
    same(found, predictions)
    assert truth.sort_index().tolist() == gold.tolist()
    pd.testing.assert_frame_equal(
        compare_arms(found, truth, contrasts=[ARMS]), compare_arms(predictions, gold, contrasts=[ARMS])
    )


def test_a_frame_with_gold_in_it_and_numbers_as_labels():
    predictions, gold = example()
    given = predictions.assign(
        gold=predictions["text_id"].map(gold).astype(float), predicted=predictions["predicted"].astype(int)
    )
    found, truth = read_predictions(given)
    same(found, predictions)
    assert truth[gold.index].tolist() == gold.tolist()


def test_parquet_is_read_too(tmp_path):
    predictions, gold = example()
    predictions.to_parquet(tmp_path / "runs.parquet")
    same(read_predictions(tmp_path / "runs.parquet", gold)[0], predictions)


def test_a_wide_file_with_arm_and_seed_in_the_names(tmp_path):
    predictions, gold = example()
    wide = predictions.assign(name=predictions["arm"] + "_seed" + predictions["seed"].astype(str))
    wide = wide.pivot(index="text_id", columns="name", values="predicted").assign(gold=gold, topic="sport")
    wide.reset_index().to_csv(tmp_path / "wide.csv", index=False)
    same(read_predictions(tmp_path / "wide.csv")[0], predictions)
    columns = {arm: [f"{arm}_seed1", f"{arm}_seed2"] for arm in ARMS}
    same(read_predictions(tmp_path / "wide.csv", columns=columns)[0], predictions)


@pytest.mark.parametrize(
    "name", ["{arm}_seed{seed}.csv", "{arm}-{seed}.csv", "{arm}/seed{seed}.csv", "{arm}/{seed}.csv"]
)
def test_a_folder_with_a_file_per_arm_and_seed(tmp_path, name):
    predictions, gold = example()
    for (arm, seed), run in predictions.groupby(["arm", "seed"]):
        path = tmp_path / name.format(arm=arm, seed=seed)
        path.parent.mkdir(exist_ok=True)
        run[["text_id", "predicted"]].to_csv(path, index=False)
    gold.rename_axis("text_id").reset_index().to_csv(tmp_path / "gold.csv", index=False)
    found, truth = read_predictions(tmp_path)
    same(found, predictions)
    assert truth[gold.index].tolist() == gold.tolist()


def test_folds_are_kept():
    predictions, gold = example(seeds=(1,))
    fold = predictions["text_id"].astype(int) % 5
    found, truth = read_predictions(predictions.assign(fold=fold), gold)
    assert found["fold"].tolist() == fold.tolist()
    assert compare_arms(found, truth, contrasts=[ARMS])["k"].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, g: (p.drop(columns="seed"), g), DataError, "no column 'seed'"),
        (lambda p, g: (p.drop(columns="predicted"), g), DataError, r"missing column\(s\) \['predicted'\]"),
        (lambda p, g: (p.drop(columns="text_id"), g), DataError, r"missing column\(s\) \['text_id'\]"),
        (lambda p, g: (p, None), DataError, "no column 'gold'; give gold"),
        (lambda p, g: (pd.concat([p, p.iloc[[3]]]), g), DataError, r"1 repeated row\(s\), for example .*'text_id': '003'"),
        (lambda p, g: (p.assign(predicted=p["predicted"].where(p.index != 2)), g), DataError,
         r"1 empty value\(s\) in 'predicted', for example of arm consensus, text_id 002"),
        (lambda p, g: (p[~((p["arm"] == "human") & (p["seed"] == 2))], g), DataError, "arm 'human' has no seed 2"),
        (lambda p, g: (p.drop(index=5), g), DataError, r"arm 'consensus', seed 1 lacks 1 test text\(s\), for example '005'"),
        (lambda p, g: (p.assign(seed=1.5), g), DataError, "'seed' holds '1.5'; it must be a whole number"),
        (lambda p, g: (p, g.rename(lambda i: "x" + i)), JoinError, "share no text_id: '000' here, 'x000' there"),
        (lambda p, g: (p, pd.concat([g, g.iloc[:1].replace({"0": "1", "1": "0"})])), DataError, "'000' has two gold labels"),
    ],
)  # fmt: skip
def test_every_flaw_is_one_line(change, error, message):
    with pytest.raises(error, match=message) as raised:
        read_predictions(*change(*example()))
    assert "\n" not in str(raised.value)


def test_files_that_are_not_there_or_carry_no_seed_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file 'nowhere\.csv'"):
        read_predictions("nowhere.csv")
    with pytest.raises(DataError, match=r"no file of predictions"):
        read_predictions(tmp_path)
    (tmp_path / "consensus.csv").write_text("text_id,predicted\na,1\n")
    with pytest.raises(DataError, match="the name carries no arm and seed"):
        read_predictions(tmp_path)


def test_published_predictions_of_one_run_each_have_no_verdict():
    path = shared("babe_llm", "test_predictions.csv.gz")
    columns = {"consensus": "pred_trained_on_llm_consensus", "gold-aligned": "pred_trained_on_human"}
    predictions, gold = read_predictions(path, columns=columns)
    found = compare_arms(predictions, gold, metric="accuracy", dataset="babe")
    row = found[found["is_primary"]].iloc[0]
    assert (row["arm_mean"], row["control_mean"], row["n"]) == (0.831, 0.833, 1000)
    assert row["verdict"] == "NO VERDICT"
    with gzip.open(path, "rt") as file:
        assert set(read_predictions(path)[0]["arm"]) == set(file.readline().strip().split(",")) - {"text_id", "gold"}
