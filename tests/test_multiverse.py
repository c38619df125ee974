"""The multiverse: every combination of choices is run, the declared one marked, and one sentence says what holds."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from consenso import run
from consenso.compare import compare_arms
from consenso.consensus import decide
from consenso.errors import ConfigError
from consenso.finetune import make_arms, run_arms
from consenso.multiverse import DECLARED, MultiverseSettings, Specification, VoteSet, specifications, summarise
from consenso.store import RunFolder
from consenso.tables import MULTIVERSE, check
from making import write_experiment

FINETUNE = 'students = ["linear"]\nseeds = 3\narms = ["gold-aligned", "consensus"]'
MARGIN = 0.05


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with 2 aggregators × 2 thresholds × (declared votes and three panels of two)."""
    folder = tmp_path_factory.mktemp("multiverse")
    path = write_experiment(folder, "[multiverse]\nleave_one_out = true\nthresholds = [0.0, 0.9]\n", finetune=FINETUNE)
    run(path, folder / "run")
    return folder


def test_every_combination_is_run_once_and_the_declared_one_is_marked(finished):
    table = check(RunFolder(finished / "run").read("multiverse"), MULTIVERSE)
    expected = set(itertools.product(
        ["linear"], [DECLARED, "without llm0", "without llm1", "without llm2"], ["majority", "dawid_skene_map"], ["none", "0.9"]
    ))  # fmt: skip
    found = list(zip(table["student"], table["votes"], table["aggregator"], table["threshold"]))
    assert sorted(found) == sorted(expected)
    main = table[table["is_main"]]
    assert main[["votes", "aggregator", "threshold"]].to_numpy().tolist() == [[DECLARED, "majority", "none"]]


def test_the_declared_specification_is_the_comparison_itself(finished):
    folder = RunFolder(finished / "run")
    main = folder.read("multiverse").query("is_main").iloc[0]
    primary = folder.read("comparison").query("is_primary").iloc[0]
    for name in ("difference", "low", "high", "low90", "high90", "S", "n"):
        assert main[name] == primary[name], name


def test_another_specification_is_what_the_verbs_give(finished):
    folder = RunFolder(finished / "run")
    texts, folds, votes = (folder.read(name) for name in ("texts", "folds", "votes"))
    labels = decide(votes[votes["annotator"] != "llm1"], "dawid_skene_map", labels=None, texts=texts, threshold=0.9)
    arms = make_arms(texts, folds, labels, arms=["gold-aligned", "consensus"], seeds=3, resample=True)
    results = run_arms(arms, texts[["text_id", "text"]], folds, student="linear")
    found = compare_arms(results.predictions, texts.set_index("text_id")["gold"], metric="accuracy", margin=MARGIN)
    row = folder.read("multiverse").query(
        "votes == 'without llm1' and aggregator == 'dawid_skene_map' and threshold == '0.9'"
    )
    assert row["difference"].item() == pytest.approx(found.query("is_primary")["difference"].item(), abs=1e-12)
    assert row["train_texts"].item() == arms.query("arm == 'consensus' and part == 'train'")["text_id"].nunique()


def test_the_record_names_the_trainings_behind_the_table(finished):
    noted = RunFolder(finished / "run").record()["multiverse_trainings"]
    pieces = {path.stem[:16] for path in (finished / "run" / "pieces" / "trainings").glob("*.parquet")}
    main = {key[:16] for key in RunFolder(finished / "run").read("trainings")["key"].dropna()}
    assert pieces - main <= set(noted) <= pieces


def test_finished_trainings_are_not_repeated(finished):
    folder = RunFolder(finished / "run")
    pieces = {path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")}
    (finished / "experiment.toml").write_text((finished / "experiment.toml").read_text().replace("[0.0, 0.9]", "[0.0]"))
    run(finished / "experiment.toml", finished / "run")
    again = {path: path.stat().st_mtime_ns for path in (folder.path / "pieces" / "trainings").glob("*.parquet")}
    assert again == pieces
    assert len(folder.read("multiverse")) == 8


def test_the_report_and_the_record_hold_the_sentence(finished):
    folder = RunFolder(finished / "run")
    said = folder.record()["multiverse"]
    assert said.startswith("The verdict ")
    assert said in (folder.path / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_without_the_section_there_is_no_multiverse(tmp_path):
    run(write_experiment(tmp_path, finetune=FINETUNE), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read("multiverse").empty


def test_what_cannot_be_trained_is_a_row_and_no_crash(tmp_path):
    path = write_experiment(tmp_path, "[multiverse]\naggregators = []\nthresholds = [0.0, 1.0]\n", finetune=FINETUNE)
    votes = pd.read_csv(tmp_path / "votes.csv")
    votes.loc[votes["annotator"] == "llm2", "label"] = "sport"  # all three agree on one class only
    votes.to_csv(tmp_path / "votes.csv", index=False)
    run(path, tmp_path / "run", until="multiverse")
    table = RunFolder(tmp_path / "run").read("multiverse").set_index("threshold")
    assert table.loc["1", "verdict"] == "NOT RUN"
    assert pd.isna(table.loc["1", "difference"])
    assert "1 could not be run" in RunFolder(tmp_path / "run").record()["multiverse"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('aggregators = ["majorty"]', ["majorty", "Did you mean 'majority'"]),
        ('students = ["linar"]', ["linar", "linear"]),
        ("thresholds = [2]", ["thresholds", "less than or equal to 1"]),
        ("most = 3", ["4 specifications", "multiverse.most = 3"]),
        ('[multiverse.votes.two]\nannotators = ["llm0", "llm9"]', ["no annotator 'llm9'", "llm0, llm1, llm2"]),
        ('[multiverse.votes.other]\nvariant = "hot"', ["no variant 'hot'", "none"]),
        ("[multiverse.votes.empty]", ["give one of annotators, variant and imports"]),
        ('[multiverse.votes."as declared"]\nannotators = ["llm0"]', ["as declared", "choose another"]),
    ],
)
def test_a_wrong_section_is_one_clear_line(tmp_path, section, words):
    path = write_experiment(tmp_path, f"[multiverse]\n{section}\n", finetune=FINETUNE)
    with pytest.raises(ConfigError) as error:
        run(path, tmp_path / "run", until="multiverse")
    assert "\n" not in str(error.value)
    assert [word for word in words if word not in str(error.value)] == []


def test_votes_can_be_variants_panels_and_files(tmp_path):
    extra = (
        '[multiverse]\naggregators = []\nthresholds = [0.0]\n[multiverse.votes.pair]\nannotators = ["llm0", "llm2"]\n'
    )
    extra += '[[multiverse.votes.file.imports]]\nsource = "votes.csv"\nannotators = ["llm0", "llm2"]\n'
    run(write_experiment(tmp_path, extra, finetune=FINETUNE), tmp_path / "run", until="multiverse")
    table = RunFolder(tmp_path / "run").read("multiverse").set_index("votes")
    assert list(table.index) == [DECLARED, "pair", "file"]
    assert table.loc["pair", "difference"] == table.loc["file", "difference"] != table.loc[DECLARED, "difference"]


def spread(*rows):
    """MULTIVERSE of (verdict, difference, half the 90 % interval); the first row is the declared one."""
    return pd.DataFrame(
        {"specification": number, "verdict": verdict, "difference": d, "low90": d - half, "high90": d + half,
         "is_main": number == 0}
        for number, (verdict, d, half) in enumerate(rows)
    )  # fmt: skip


def test_the_sentence_counts_what_holds_and_what_says_the_opposite():
    table = spread(
        ("WORSE", -0.04, 0.01), ("WORSE", -0.03, 0.01), ("INCONCLUSIVE", -0.01, 0.03), ("BETTER", 0.02, 0.01)
    )
    said = summarise(table, 0.02)
    assert said == (
        "The verdict WORSE holds in 2 of 4 specifications; the difference goes from −4.0 to +2.0 pp (median −2.0); "
        "1 says the opposite."
    )


def test_a_difference_within_the_margin_contradicts_no_equivalence():
    table = spread(("EQUIVALENT", 0.0, 0.01), ("WORSE", -0.005, 0.004), ("WORSE", -0.05, 0.01))
    assert "1 says the opposite" in summarise(table, 0.02)
    assert "none of the others says the opposite" in summarise(table.iloc[:2], 0.02)


def test_specifications_start_with_the_declared_one():
    declared = Specification("frozen", DECLARED, "majority", 0.0)
    found = specifications(
        MultiverseSettings(thresholds=(0.8,), aggregators=("majority",)), declared, ["hot"], ["frozen", "linear"]
    )
    assert found[0] == declared
    assert len(found) == len(set(found)) == 2 * 2 * 1 * 2


def test_a_vote_set_names_one_source():
    with pytest.raises(ValueError, match="found annotators and variant"):
        VoteSet(annotators=("a",), variant="b")
