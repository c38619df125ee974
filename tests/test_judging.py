"""The commands around a verdict: plan, own predictions, freezing, seeds until a verdict, several data sets."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.compare import compare_arms, plan_comparison, plan_in_words, read_predictions, show_verdict
from consenso.compare.metrics import per_item
from consenso.compare.needs import Components
from consenso.errors import ConfigError, DataError
from consenso.experiment import run, run_until_verdict
from consenso.store import RunFolder
from making import shared, write_experiment, write_texts, write_votes

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
    found = json.loads(said.out)
    rows = found["rows"]
    assert found["sentence"].startswith("With 3 seeds and 2,210 test texts")
    assert (
        found["basis"]
        == "given components: 31 % disagreement from accuracy .53; assumed components: 16 % of it lasting, 1.25 pp between seeds"
    )
    assert [row["S"] for row in rows] == [3, 10]
    assert rows[0]["width"] > rows[1]["width"]
    assert rows[1]["width"] == pytest.approx(0.028, abs=0.002)  # design: validity, section 7


def test_plan_reads_the_experiment_and_its_pilot(say, tmp_path):
    write_experiment(tmp_path, finetune=TWO_ARMS)
    before = say("plan")
    assert "With 3 seeds and 48 test texts" in before.out
    assert "assumed components: 31 % disagreement, 16 % of it lasting, 1.25 pp between seeds" in before.out
    assert "Assumed: the difference" in before.out
    other = json.loads(say("plan", "--texts", 500, "--json").out)["rows"]
    assert [(row["S"], row["n"], row["margin"]) for row in other] == [(3, 500, 0.05)]
    assert say("compare").code == 0
    after = say("plan")
    assert "components measured in" in after.out
    assert "Measured: the difference" in after.out
    assert after.out != before.out


def test_plan_without_texts_says_what_to_do(say):
    said = say("plan")
    assert said.code == 2
    assert "--texts N" in said.err


def test_seeds_are_added_until_a_verdict_and_never_twice(say, tmp_path):
    path = write_experiment(
        tmp_path, finetune=TWO_ARMS, compare='metric = "accuracy"\nmargin = 0.05\nuntil = { most = 10 }'
    )
    write_votes(tmp_path, write_texts(tmp_path, n=480, noise=0.6))  # hard enough for every seed to differ
    outcome = run_until_verdict(path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    decisions = folder.record()["until_verdict"]
    assert decisions[0]["seeds"] == 5
    assert decisions[-1]["action"] == "stop"
    assert [d["next"] for d in decisions[:-1]] == [d["seeds"] for d in decisions[1:]]
    seeds = folder.read("trainings")["seed"].nunique()
    assert seeds == decisions[-1]["seeds"] <= 10
    pieces = {path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")}
    again = say("run", path, "--out", tmp_path / "run", "--until-verdict")
    assert outcome.sentence in again.out
    assert f"{decisions[-1]['seeds']} seeds: stop" in again.err
    assert pieces == {
        path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")
    }


def test_looks_are_compared_at_a_smaller_level(tmp_path):
    compare = 'metric = "accuracy"\nmargin = 0.05\nuntil = { rule = "looks", looks = 2, most = 10 }'
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
    said = say("compare", "--out", "run", "--set", "compare.margin=0.04", "--json")
    assert "guard fixed before scoring: " in said.err
    assert "margin: 0.05 → 0.04" in said.err
    again = say("compare", "--freeze", "--out", "run", "--set", "compare.margin=0.04")
    assert again.code == 2
    assert "never overwritten" in again.err


def finished(folder, name, *, texts=240, seed=7):
    """A finished run with texts of its own."""
    folder.mkdir()
    path = write_experiment(folder, finetune=TWO_ARMS)
    write_votes(folder, write_texts(folder, n=texts, seed=seed))
    path.write_text(path.read_text().replace('name = "small"', f'name = "{name}"'))
    run(path, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [finished(place / str(k), name, seed=k) for k, name in enumerate(("first", "second", "second"))]


def test_several_data_sets_in_one_report(say, tmp_path, runs):
    said = say("report", *runs, "--out", "all.html")
    assert said.code == 0, said.err
    starts = [line.partition(": ")[0] for line in said.out.splitlines()[:4]]
    assert starts == ["first (linear)", f"{runs[1]} (linear)", f"{runs[2]} (linear)", "mean of data sets (linear)"]
    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert "Over 3 data sets" in page
    links = re.findall(r'href="([^"#]*report\.html)"', page)
    assert [(tmp_path / link).resolve() for link in links] == [(path / "report.html").resolve() for path in runs]


def test_one_data_set_does_not_count_twice(say, tmp_path, runs):
    shutil.copytree(runs[0], tmp_path / "copy")
    twice, copied = say("report", runs[0], runs[1], f"{runs[0]}/."), say("report", *runs, "copy")
    assert (twice.code, copied.code) == (2, 2)
    assert "are the same folder" in twice.err
    assert f"copy and {runs[0]} hold the same texts" in copied.err
    assert twice.err.count("\n") == copied.err.count("\n") == 1


def test_variants_are_no_students_of_a_common_report_and_contrasts_must_not_differ(say, tmp_path, runs):
    for path in runs[:2]:
        folder = RunFolder(shutil.copytree(path, tmp_path / path.parent.name))
        found = folder.read("comparison")
        folder.write("comparison", pd.concat([found, found.assign(student="linear (gold dev)")]))
    said = say("report", "0", "1")
    assert said.code == 0, said.err
    assert "gold dev" not in said.out + (tmp_path / "combined.html").read_text(encoding="utf-8")
    found = RunFolder("1").read("comparison")
    found = found[(found["student"] == "linear") & found["is_primary"]]
    RunFolder("1").write("comparison", found.assign(student="frozen", contrast="consensus − gold"))
    said = say("report", "0", "1")
    assert said.code == 2
    assert (
        "differ in their primary contrast (consensus − gold-aligned in first; consensus − gold in second)" in said.err
    )


def test_out_goes_with_several_runs_only(say, tmp_path):
    assert say("report", tmp_path, "--out", "x.html").code == 2


# predictions of one's own

OWN = ["--predictions", "predictions.csv", "--gold", "gold.csv"]


def wide(n=60, **columns):
    """A wide table: truth, and columns that are right in the share that each keyword names."""
    rng = np.random.default_rng(n)
    truth = rng.choice(["0", "1"], n)
    flip = np.where(truth == "0", "1", "0")
    found = {name: np.where(rng.random(n) < share, truth, flip) for name, share in columns.items()}
    return pd.DataFrame({"text_id": [f"t{i}" for i in range(n)], "truth": truth, **found})


def test_gold_may_be_any_column_of_the_predictions(say, tmp_path):
    frame = wide(llm_seed1=0.8, llm_seed2=0.8, human_seed1=0.7, human_seed2=0.7)
    frame.assign(gold="stale").to_csv(tmp_path / "wide.csv", index=False)
    predictions, gold = read_predictions(tmp_path / "wide.csv", "truth")
    assert gold.tolist() == frame["truth"].tolist()
    assert set(predictions["arm"]) == {"llm", "human"}
    said = say("compare", "--predictions", "wide.csv", "--gold", "truth", "--contrast", "llm,human")
    assert said.code == 0, said.err
    with pytest.raises(DataError, match=r"gold: no such column in the predictions, and there is no file 'trut'"):
        read_predictions(tmp_path / "wide.csv", "trut")
    long = frame.melt(["text_id", "truth"], var_name="arm", value_name="predicted").assign(seed=1)
    assert read_predictions(long, "truth")[1].to_dict() == gold.to_dict()


def test_a_number_at_the_end_is_a_seed_only_where_columns_share_what_stands_before_it(caplog):
    caplog.set_level("INFO")
    frame = wide(**{"gpt-4": 0.8, "human": 0.7}).assign(topic="sport").rename(columns={"truth": "gold"})
    assert set(read_predictions(frame)[0]["arm"]) == {"gpt-4", "human"}
    assert "taken for no arm: topic" in caplog.text
    several = wide(**{"gpt-3": 0.8, "gpt-4": 0.8}).rename(columns={"truth": "gold"})
    runs = read_predictions(several)[0]
    assert (set(runs["arm"]), set(runs["seed"])) == ({"gpt"}, {3, 4})
    named = read_predictions(several, arms=("gpt-3", "gpt-4"))[0]
    assert (set(named["arm"]), set(named["seed"])) == ({"gpt-3", "gpt-4"}, {1})
    one = wide(**{"llm-1": 0.8, "human-1": 0.7}).rename(columns={"truth": "gold"})
    assert set(read_predictions(one, arms=("llm", "human"))[0]["arm"]) == {"llm", "human"}


def test_labels_that_a_float_column_spoilt_meet_gold():
    frame = wide(llm=0.8, human=0.7).rename(columns={"truth": "gold"})
    spoilt = frame.assign(llm=frame["llm"] + ".0", human=frame["human"] + ".0")
    clean, found = read_predictions(frame)[0], read_predictions(spoilt)[0]
    assert found["predicted"].tolist() == clean["predicted"].tolist()
    real = frame.assign(llm=frame["llm"] + ".0", human="1.5")
    assert "1.5" in set(read_predictions(real, arms=("llm", "human"))[0]["predicted"])
    assert "0.0" in set(read_predictions(real, arms=("llm", "human"))[0]["predicted"])  # not all would meet gold


def test_json_has_the_guards_and_the_terminal_says_those_that_failed_or_warned(say, tmp_path):
    own_predictions(tmp_path, seeds=2)
    call = (
        "compare",
        "--predictions",
        "predictions.csv",
        "--gold",
        "gold.csv",
        "--contrast",
        "llm,human",
        "--out",
        "judged",
    )
    said = say(*call, "--json")
    found = json.loads(said.out)
    assert found["sentence"].startswith(found["verdict"])
    assert found["contrasts"][0]["contrast"] == "llm − human"
    assert found["report"] == str(Path("judged/report.html"))
    spoken = [guard for guard in found["guards"] if guard["outcome"] in {"failed", "warned"}]
    assert "low power" in {guard["guard"] for guard in spoken}
    lines = say(*call).err.splitlines()
    assert len(lines) == len(spoken)
    assert all(guard["reason"] in line for guard, line in zip(spoken, lines))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gold", "gold.csv", "--margin", "0.03"], "--gold, --margin goes with --predictions"),
        (["--metric", "accuracy"], "--metric goes with --predictions"),
        (["--predictions", "predictions.csv", "--freeze"], "--freeze does not go with --predictions"),
        (["mine.toml", "--predictions", "predictions.csv", "--set", "name=x"], "EXPERIMENT, --set does not go with"),
        ([*OWN, "--contrast", "gold,human"], "--contrast: no predictions of arm 'gold'; found ['human', 'llm']."),
        ([*OWN, "--contrast", "llm,llm"], "found 'llm' on both sides"),
        (OWN, "or --contrast ARM,CONTROL"),
        (["--predictions", "predictions.csv", "--contrast", "llm,human"], "or --gold"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(say, tmp_path, arguments, words):
    own_predictions(tmp_path)
    said = say("compare", *arguments)
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1


def test_only_arms_that_exist_are_suggested(tmp_path):
    predictions, gold = read_predictions(wide(llm=0.8, human=0.7).rename(columns={"truth": "gold"}))
    with pytest.raises(ConfigError, match=r"found \['human', 'llm'\]\.$"):
        compare_arms(predictions, gold, contrasts=[("consensuss", "human")])
    with pytest.raises(ConfigError, match=r"Did you mean 'human'\?$"):
        compare_arms(predictions, gold, contrasts=[("llm", "humann")])
    with pytest.raises(ConfigError, match="on both sides"):
        compare_arms(predictions, gold, contrasts=["consensus − consensus"])


METRIC_FILE = """
def raises(predicted, gold):
    raise KeyError("no\\nsuch")
def one_argument(gold):
    return gold
def scalar(predicted, gold):
    return 0.5
def text(predicted, gold):
    return [["a"]]
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "failed with KeyError: "), ("one_argument", "failed with TypeError: "), ("scalar", r"found shape \(\)"),
        ("text", "failed with ValueError: "),
    ],
)  # fmt: skip
def test_a_metric_of_ones_own_that_fails_is_one_line(tmp_path, monkeypatch, name, words):
    (tmp_path / "own_metrics_that_fail.py").write_text(METRIC_FILE)
    (tmp_path / "own_module_that_fails.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    codes = np.zeros((2, 5), dtype=int)
    with pytest.raises(ConfigError, match=words) as raised:
        per_item(codes, codes[0], f"own_metrics_that_fail:{name}")
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"cannot be imported \(ZeroDivisionError: division by zero\)"):
        per_item(codes, codes[0], "own_module_that_fails:f")
    sys.modules.pop("own_metrics_that_fail", None)


# plans


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"margin": 0.0}, "margin is a share between 0 and 0.5"), ({"margin": 0.5}, "found 0.5"), ({"margin": float("nan")}, "found nan"),
        ({"alpha": 1.0}, "alpha is a share"), ({"alpha": -0.05}, "alpha is a share"), ({"n": 100.5}, "test texts must be a whole number"),
        ({"seeds": [3, 4.0]}, "seeds must be a whole number, like 10; found 4.0"), ({"seeds": "10"}, "found '10'"),
        ({"accuracy": 0.5, "disagreement": 0.3}, "give one of them"),
    ],
)  # fmt: skip
def test_a_plan_refuses_what_is_no_number_of_its_kind(given, words):
    with pytest.raises(ConfigError, match=words):
        plan_comparison(**{"n": 200, "seeds": 5, "draws": 100, **given})
    assert len(plan_comparison(np.int64(200), np.array([3, 5]), draws=100)) == 2


def test_a_plan_says_whether_its_components_were_measured():
    parts = Components(1e-4, 0.05, 0.2)
    assert "Measured: " in plan_in_words(plan_comparison(200, 5, components=parts))
    assert "Assumed: " in plan_in_words(plan_comparison(200, 5))


def test_a_plan_is_for_one_split(say, tmp_path):
    path = write_experiment(tmp_path, data='source = "texts.csv"\nfolds = 4\nsplit = ""', finetune=TWO_ARMS)
    frame = pd.read_csv(tmp_path / "texts.csv").drop(columns="split")
    frame.to_csv(tmp_path / "texts.csv", index=False)
    path.write_text(path.read_text().replace('split = ""\n', ""))
    said = say("plan")
    assert said.code == 2
    assert "4 folds" in said.err
    assert "--texts N" in said.err
    assert "With 3 seeds and 60 test texts" in say("plan", "--texts", 60).out
    assert "these are the parts of fold 0 of 4" in say("data").out


def test_what_is_no_table_shows_no_verdict():
    with pytest.raises(DataError, match=r"show_verdict takes the table that compare_arms returns .*; found str"):
        show_verdict("comparison.parquet")
