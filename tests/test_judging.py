"""The commands around a verdict: plan, own predictions, freezing, seeds until a verdict, several data sets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from consenso.experiment import run_until_verdict
from consenso.store import RunFolder
from making import shared, write_experiment

TWO_ARMS = 'students = ["linear"]\nseeds = 3\narms = ["gold", "gold-aligned", "consensus", "floor"]'


def own_predictions(folder, *, seeds=6, n=300, lift=0.0):
    rng = np.random.default_rng(1)
    gold = rng.choice(["no", "yes"], n)
    rows = [
        pd.DataFrame({"arm": arm, "seed": seed, "text_id": range(n),
                      "predicted": np.where(rng.random(n) < 0.8 + (lift if arm == "llm" else 0), gold, "no")})
        for arm in ("llm", "human") for seed in range(seeds)
    ]  # fmt: skip
    pd.concat(rows).to_csv(folder / "predictions.csv", index=False)
    pd.DataFrame({"text_id": range(n), "gold": gold}).to_csv(folder / "gold.csv", index=False)


def test_own_predictions_need_no_training(say, tmp_path):
    own_predictions(tmp_path, lift=0.1)
    said = say("compare", "--predictions", "predictions.csv", "--gold", "gold.csv", "--contrast", "llm,human",
               "--metric", "accuracy", "--out", "judged")  # fmt: skip
    assert said.code == 0, said.err
    assert "verdict: BETTER: trained on llm instead of human" in said.out
    folder = RunFolder(tmp_path / "judged")
    assert {"comparison", "guards", "class_differences", "seed_differences"} <= {
        p.stem for p in (folder.path / "tables").iterdir()
    }
    assert "BETTER" in (folder.path / "report.html").read_text(encoding="utf-8")


def test_the_published_predictions_of_one_run_each_give_no_verdict(say, tmp_path):
    source = pd.read_csv(shared("babe_llm", "test_predictions.csv.gz"))
    columns = {"pred_trained_on_llm_consensus": "consensus", "pred_trained_on_human": "human"}
    source.rename(columns=columns)[["text_id", "gold", *columns.values()]].to_csv(
        tmp_path / "published.csv", index=False
    )
    said = say("compare", "--predictions", "published.csv", "--contrast", "consensus,human", "--metric", "accuracy")
    assert said.code == 0, said.err
    assert "verdict: NO VERDICT" in said.out
    assert "−0.2 pp" in said.out
    assert "one seed" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--predictions", "nothing.csv"], ["nothing.csv"]),
        (
            ["--predictions", "predictions.csv", "--gold", "gold.csv", "--contrast", "llm"],
            ["--contrast names two arms"],
        ),
        (["--predictions", "predictions.csv", "--gold", "gold.csv", "--contrast", "llm,humans"], ["humans", "human"]),
        (
            ["--predictions", "predictions.csv", "--gold", "gold.csv", "--contrast", "llm,human", "--metric", "f1"],
            ["unknown metric 'f1'"],
        ),
        (["--explain", "leekage"], ["leekage", "leakage"]),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(say, tmp_path, arguments, words):
    own_predictions(tmp_path)
    said = say("compare", *arguments)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


def test_explain_says_what_a_guard_does(say):
    said = say("compare", "--explain", "leakage")
    assert said.code == 0
    assert "INVALID" in said.out
    assert "docs/verdict.md" in said.out


def test_plan_answers_before_anyone_labels(say):
    said = say("plan", "--texts", 2210, "--seeds", 3, "--seeds", 10, "--accuracy", 0.53, "--json")
    rows = json.loads(said.out)
    assert [row["S"] for row in rows] == [3, 10]
    assert rows[0]["width"] > rows[1]["width"]
    assert rows[1]["width"] == pytest.approx(0.028, abs=0.002)  # design: validity, section 7


def test_plan_reads_the_experiment_and_its_pilot(say, tmp_path):
    write_experiment(tmp_path, finetune=TWO_ARMS)
    before = say("plan")
    assert "With 3 seeds and 48 test texts" in before.out
    assert "assumed components" in before.out
    assert say("compare").code == 0
    after = say("plan")
    assert "components measured in" in after.out
    assert after.out != before.out


def test_plan_without_texts_says_what_to_do(say):
    said = say("plan")
    assert said.code == 2
    assert "--texts N" in said.err


def test_seeds_are_added_until_a_verdict_and_never_twice(say, tmp_path):
    path = write_experiment(
        tmp_path, finetune=TWO_ARMS, compare='metric = "accuracy"\nmargin = 0.05\nuntil = { most = 8 }'
    )
    outcome = run_until_verdict(path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    decisions = folder.record()["until_verdict"]
    assert decisions[0]["seeds"] == 5
    assert decisions[-1]["action"] == "stop"
    assert [d["next"] for d in decisions[:-1]] == [d["seeds"] for d in decisions[1:]]
    seeds = folder.read("trainings")["seed"].nunique()
    assert seeds == decisions[-1]["seeds"] <= 8
    pieces = {path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")}
    again = say("run", path, "--out", tmp_path / "run", "--until-verdict")
    assert outcome.sentence in again.out
    assert f"{decisions[-1]['seeds']} seeds: stop" in again.err
    assert pieces == {
        path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")
    }


def test_looks_are_compared_at_a_smaller_level(tmp_path):
    compare = 'metric = "accuracy"\nmargin = 0.05\nuntil = { rule = "looks", looks = 2, most = 7 }'
    run_until_verdict(write_experiment(tmp_path, finetune=TWO_ARMS, compare=compare), tmp_path / "run")
    comparison = RunFolder(tmp_path / "run").read("comparison")
    assert set(comparison["alpha"]) == {0.025}


def test_a_freeze_is_noted_and_a_later_change_is_named(say, tmp_path):
    write_experiment(tmp_path, finetune=TWO_ARMS)
    frozen = say("compare", "--freeze", "--out", "run")
    assert frozen.code == 0, frozen.err
    assert "frozen on" in frozen.out
    assert say("run", "--out", "run").code in {0, 4}
    guards = RunFolder(tmp_path / "run").read("guards").set_index("guard")
    assert guards.loc["fixed before scoring", "outcome"] == "passed"
    assert "frozen on" in guards.loc["fixed before scoring", "reason"]
    assert say("run", "--out", "run", "--set", "compare.margin=0.04").code in {0, 4}
    guards = RunFolder(tmp_path / "run").read("guards").set_index("guard")
    assert guards.loc["fixed before scoring", "outcome"] == "warned"
    assert "margin: 0.05 → 0.04" in guards.loc["fixed before scoring", "reason"]
    again = say("compare", "--freeze", "--out", "run", "--set", "compare.margin=0.04")
    assert again.code == 2
    assert "never overwritten" in again.err


def test_several_data_sets_in_one_report(say, tmp_path):
    names = ("first", "second", "third")
    for number, name in enumerate(names):
        folder = tmp_path / name
        folder.mkdir()
        path = write_experiment(folder, finetune=TWO_ARMS.replace("seeds = 3", f"seeds = {3 + number}"))
        path.write_text(path.read_text().replace('name = "small"', f'name = "{name}"'))
        assert say("compare", path, "--out", folder / "run").code == 0
    said = say("report", *(tmp_path / name / "run" for name in names), "--out", "all.html")
    assert said.code == 0, said.err
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert [name for name in names if name not in page] == []
    assert "Over 3 data sets" in page


def test_out_goes_with_several_runs_only(say, tmp_path):
    assert say("report", tmp_path, "--out", "x.html").code == 2
