"""`consenso init`: what it writes, what it refuses, what it tells the user to look at."""

from __future__ import annotations

import tomllib
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest

from consenso import run
from consenso.drafting import for_init

NAMED = ("--gold", "bias label", "--id", "Doc ID")
MEANING = "annotate.imports.labels={0='fair', 1='biased'}"


def write_reviews(folder: Path, n: int = 600) -> pd.DataFrame:
    """reviews.csv with the columns Doc ID, text, bias label; every third text is biased."""
    labels = ["biased" if i % 3 == 0 else "fair" for i in range(n)]
    words, rng = {"biased": "shameful", "fair": "reported"}, np.random.default_rng(3)
    texts = [
        f"{words[label]} {' '.join(''.join(rng.choice(list(ascii_lowercase), 7)) for _ in range(6))}"
        for label in labels
    ]
    frame = pd.DataFrame({"Doc ID": [f"d-{i:05}" for i in range(n)], "text": texts, "bias label": labels})
    frame.to_csv(folder / "reviews.csv", index=False)
    return frame


def write_votes(folder: Path, labels: list[object], ids: list[str] | None = None) -> None:
    """votes.csv: two annotators, the second errs on every tenth text by voting as for the text before."""
    ids = ids or [f"d-{i:05}" for i in range(len(labels))]
    second = [labels[i - 1] if i % 10 == 1 else label for i, label in enumerate(labels)]
    rows = [(i, who, label) for who, votes in (("a", labels), ("b", second)) for i, label in zip(ids, votes)]
    pd.DataFrame(rows, columns=["text_id", "annotator", "label"]).to_csv(folder / "votes.csv", index=False)


def coded(frame: pd.DataFrame) -> list[object]:
    """Votes as numbers: fair 0, biased 1, which is not the order of the alphabet."""
    return [int(label == "biased") for label in frame["bias label"]]


def written(path: str = "experiment.toml") -> dict:
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def test_votes_as_numbers_are_refused_where_nothing_says_which_label_a_number_is(say, tmp_path: Path) -> None:
    write_votes(tmp_path, coded(write_reviews(tmp_path)))
    said = say("init", "reviews.csv", "--votes", "votes.csv", *NAMED)
    assert said.code == 2
    assert "the votes are numbers (0, 1), the labels are names (biased, fair)" in said.err
    assert """--set 'annotate.imports.labels={"0" = "…", "1" = "…"}'""" in said.err
    assert not (tmp_path / "experiment.toml").exists()


def test_numbers_count_as_what_the_user_says_and_never_by_the_alphabet(say, tmp_path: Path) -> None:
    write_votes(tmp_path, coded(write_reviews(tmp_path)))
    assert say("init", "reviews.csv", "--votes", "votes.csv", *NAMED, "--set", MEANING).code == 0
    assert written()["annotate"]["imports"][0]["labels"] == {"0": "fair", "1": "biased"}
    assert all("id" not in label for label in written()["data"]["labels"]), "init must not make ids up"
    said = say("consensus")
    assert said.code == 0, said.err
    a = next(line.split() for line in said.out.splitlines() if line.split()[:2] == ["a", "accuracy"])
    assert a[2] == "1.000"
    assert "swapped" not in said.out + said.err


def test_a_run_refuses_the_numbers_that_init_was_not_asked_about(say, tmp_path: Path) -> None:
    frame = write_reviews(tmp_path)
    write_votes(tmp_path, list(frame["bias label"]))
    assert say("init", "reviews.csv", "--votes", "votes.csv", *NAMED).code == 0
    assert '# labels = { "…" = "biased", "…" = "fair" }' in (tmp_path / "experiment.toml").read_text(encoding="utf-8")
    write_votes(tmp_path, coded(frame))
    said = say("annotate")
    assert said.code == 2
    assert 'say it with labels = { "0" = "…", "1" = "…" } in [[annotate.imports]]' in said.err


def test_labels_coded_the_wrong_way_round_are_said_beside_the_consensus_and_the_verdict(say, tmp_path: Path) -> None:
    write_votes(tmp_path, coded(write_reviews(tmp_path)))
    wrong = "annotate.imports.labels={0='biased', 1='fair'}"
    changes = (
        wrong,
        'finetune.students=["linear"]',
        "finetune.seeds=2",
        "consensus.bootstrap=10",
        "consensus.method=unanimous",
    )
    small = [part for change in changes for part in ("--set", change)]
    assert say("init", "reviews.csv", "--votes", "votes.csv", *NAMED, *small).code == 0
    assert "labels may be swapped: consensus agrees with gold on 0.0%" in say("consensus").out
    # both agree on all but the 40 texts (i % 10 == 1 and i % 3 < 2) where b's vote for the text before is another
    assert "labels may be swapped: consensus agrees with gold on 0.0% of 560 texts" in say("run").err


def test_without_gold_the_columns_not_used_are_listed_with_the_options_that_name_them(say, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    said = say("init", "reviews.csv")
    assert said.code == 0
    assert (
        "columns not used: 'Doc ID', 'bias label'. Name the human labels with --gold and the ids with --id" in said.err
    )
    dry = say("run", "--dry-run")
    assert dry.code == 2
    assert "(data.columns.gold; columns not used: 'Doc ID', 'bias label')" in dry.err


@pytest.mark.parametrize("named", [(), ("--gold", "bias label")])
def test_ids_of_votes_that_match_no_text_are_refused_with_and_without_gold(named, say, tmp_path: Path) -> None:
    write_votes(tmp_path, list(write_reviews(tmp_path)["bias label"]))
    said = say("init", "reviews.csv", "--votes", "votes.csv", *named)
    assert said.code == 2
    assert "No id column was found, so the texts' ids were made from the texts: name one with --id" in said.err
    assert "'Doc ID'" in said.err
    assert "They differ" not in said.err


def test_votes_that_are_none_of_the_labels_are_refused(say, tmp_path: Path) -> None:
    frame = write_reviews(tmp_path)
    write_votes(tmp_path, list(frame["bias label"].map({"fair": "neutral", "biased": "slanted"})))
    said = say("init", "reviews.csv", "--votes", "votes.csv", *NAMED)
    assert said.code == 2
    assert "none of the 1200 votes is valid" in said.err
    assert "'neutral'" in said.err


def test_many_votes_that_are_none_of_the_labels_are_told(say, tmp_path: Path) -> None:
    frame = write_reviews(tmp_path)
    write_votes(tmp_path, list(frame["bias label"].map({"fair": "neutral", "biased": "biased"})))
    said = say("init", "reviews.csv", "--votes", "votes.csv", *NAMED)
    assert said.code == 0
    # a: the 400 fair texts; b: the same but where it voted as for the text before (60 of them)
    strange = 400 + sum((i - 1 if i % 10 == 1 else i) % 3 != 0 for i in range(600))
    assert f"{strange} of 1,200 votes are none of the labels (such as 'neutral')" in said.err


def test_an_empty_column_of_votes_is_called_empty(say, tmp_path: Path) -> None:
    write_votes(tmp_path, [None] * len(write_reviews(tmp_path)))
    said = say("init", "reviews.csv", "--votes", "votes.csv", *NAMED)
    assert said.code == 2
    assert "column 'label' is empty in all 1,200 rows" in said.err


@pytest.mark.parametrize(
    ("cell", "words", "way_out"),
    [
        (("text", ""), "1 of 600 texts are empty", "data.empty_texts=drop"),
        (("Doc ID", "d-00001"), "duplicate id", "data.columns.text_id="),
        (("bias label", "Fair"), "differ only in case", 'data.labels=[{name="fair"}, {name="Fair"}, {name="biased"}]'),
    ],
)
def test_every_advice_of_init_can_be_followed_in_init(cell, words, way_out, say, tmp_path: Path) -> None:
    frame = write_reviews(tmp_path)
    column, value = cell
    frame.loc[0, column] = value
    frame.to_csv(tmp_path / "reviews.csv", index=False)
    said = say("init", "reviews.csv", *NAMED)
    assert said.code == 2
    assert words in said.err
    assert way_out.partition("=")[0] + "=" in said.err
    named = NAMED[:2] if column == "Doc ID" else NAMED
    done = say("init", "reviews.csv", *named, "--set", way_out)
    assert done.code == 0, done.err
    assert say("data").code == 0


def test_a_column_that_is_not_there_is_named_by_its_option(say, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    said = say("init", "reviews.csv", "--gold", "nope")
    assert "missing column 'nope'" in said.err
    assert "Name it with --gold" in said.err
    assert "data.columns.gold" not in said.err


def test_set_writes_keys_of_any_section_in_their_places(say, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    changes = ("data.seed=7", "compare.margin=0.03", "compare.alpha=0.01", 'report.title="T"', "annotate.budget=3")
    said = say("init", "reviews.csv", *NAMED, *(part for change in changes for part in ("--set", change)))
    assert said.code == 0, said.err
    found = written()
    assert (found["data"]["seed"], found["compare"]["margin"], found["compare"]["alpha"]) == (7, 0.03, 0.01)
    assert (found["report"]["title"], found["annotate"]["budget"]) == ("T", 3)
    assert len(found["annotate"]["annotators"]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("compare.margn=1", "Did you mean 'margin'"),
        ("annotate.imports.labels={0='x'}", "name the votes with --votes FILE"),
        ("annotate.annotators=[]", "write annotators into the file"),
    ],
)
def test_a_change_that_cannot_be_written_is_one_line(change, words, say, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    said = say("init", "reviews.csv", *NAMED, "--set", change)
    assert said.code == 2
    assert words in said.err
    assert not (tmp_path / "experiment.toml").exists()


def test_keys_of_an_import_become_options_whose_quotes_a_shell_reads() -> None:
    said = for_init("name the annotators, for example annotators = ['gpt', 'llama']")
    assert """--set 'annotate.imports.annotators=["gpt", "llama"]'""" in said


def test_the_run_is_named_after_the_file_that_out_names(say, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    for out in ("all.toml", "experiment.toml", "a wide (one).toml"):
        assert say("init", "reviews.csv", *NAMED, "--out", out).code == 0
    assert [written(out)["name"] for out in ("all.toml", "experiment.toml", "a wide (one).toml")] == [
        "all", "reviews", "a wide -one-",
    ]  # fmt: skip


def test_the_folder_notes_the_file_and_warns_of_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_reviews(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(
            'name = "same"\n[data]\nsource = "reviews.csv"\ncolumns = { gold = "bias label" }\n', encoding="utf-8"
        )
    run(tmp_path / "one.toml", tmp_path / "runs/same", until="data")
    assert "last used" not in caplog.text
    run(tmp_path / "two.toml", tmp_path / "runs/same", until="data")
    assert f"was last used by {(tmp_path / 'one.toml').resolve()}" in caplog.text
    caplog.clear()
    (tmp_path / "two.toml").rename(tmp_path / "three.toml")  # the same file, renamed: nobody else's results
    run(tmp_path / "three.toml", tmp_path / "runs/same", until="data")
    assert "last used" not in caplog.text


@pytest.mark.parametrize(("n", "tested"), [(60, 12), (6, 1)])
def test_few_test_texts_are_told_by_init_and_by_data(n, tested, say, tmp_path: Path) -> None:
    write_reviews(tmp_path, n)
    few = f"{tested} test text{'s' if tested > 1 else ''} with gold: too few to see a difference"
    assert few in say("init", "reviews.csv", *NAMED).err
    assert few in say("data").err


def test_enough_test_texts_are_not_commented_on(say, tmp_path: Path) -> None:
    write_reviews(tmp_path)  # 600 texts: 120 are tested
    assert "too few" not in say("init", "reviews.csv", *NAMED).err
    assert "too few" not in say("data").err


def test_data_says_why_texts_are_left_out(say, tmp_path: Path) -> None:
    frame = write_reviews(tmp_path).assign(split=lambda f: ["test" if i < 120 else "train" for i in range(len(f))])
    frame.loc[[200, 201, 202], "text"] = list(frame["text"][:3])  # three training texts repeat a test text
    frame.loc[[10, 11], "bias label"] = None
    frame.to_csv(tmp_path / "reviews.csv", index=False)
    assert say("init", "reviews.csv", *NAMED, "--set", 'data.leakage="exact"').code == 0
    said = say("data")
    assert "left out: 3 repeat a text of another part (table leaks), 2 have no gold" in said.out
