"""The commands as a user types them: what they print, their exit codes, and one clear line for each mistake."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from consenso import cli, run, store
from consenso.cli.runs import _remarks
from making import write_experiment, write_texts, write_votes


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its run, runs/small."""
    place = tmp_path_factory.mktemp("once")
    run(write_experiment(place), place / "runs" / "small")
    return place


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    """An experiment that ran, moved to the current folder."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "experiment.toml"


def test_run_prints_the_verdict_and_the_report(say, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    said = say("run")
    assert said.code == 0
    assert said.out.startswith("verdict: ")
    assert f"report:  {Path('runs/small/report.html')}" in said.out
    assert (tmp_path / "runs/small/report.html").exists()
    again = say("run", "--json")
    assert json.loads(again.out)["sentence"] in said.out


def test_each_stage_command_prints_a_table(say, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    assert "sport" in say("data").out
    assert "llm0" in say("annotate").out
    assert "alpha" in say("consensus").out
    assert "gold-aligned" in say("finetune").out
    assert "consensus" in say("compare").out
    status = say("status")
    assert status.out.count("done") >= 5
    assert say("report", "runs/small").out.strip().endswith("report.html")


def test_dry_run_starts_nothing(say, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    said = say("run", "--dry-run")
    assert said.code == 0
    assert "trainings to do" in said.out
    assert not (tmp_path / "runs/small/tables").exists()


def test_a_dry_run_counts_what_is_done(say, finished: Path) -> None:
    assert "linear: 0 trainings to do" in say("run", "--dry-run").out


def test_a_dry_run_before_there_are_labels_gives_the_most_and_afterwards_the_number(say, tmp_path: Path) -> None:
    """Five seeds of gold, gold-aligned, consensus and two floors that need no training: 15 trainings for 25 runs."""
    write_experiment(
        tmp_path, finetune='students = ["linear"]\nseeds = 5\narms = ["gold", "gold-aligned", "consensus", "floor"]'
    )
    said = say("run", "--dry-run").out
    assert said.startswith("linear: at most 15 trainings to do for 25 runs, 0 done; about ")
    assert "which are equal shows once there are labels" in said
    assert say("consensus").code == 0
    row = json.loads(say("run", "--dry-run", "--json").out)[0]
    assert say("run", "--dry-run").out.startswith(f"linear: {row['to_do']} trainings to do for 25 runs, 0 done; about ")
    assert row["to_do"] <= 15
    assert say("finetune").code == 0
    kept = f"{row['to_do']} trainings kept (for 25 runs: arms with equal labels share one)"
    assert kept in say("status").out
    assert f"linear: 0 trainings to do for 25 runs, {row['to_do']} done" in say("run", "--dry-run").out


@pytest.mark.parametrize(
    ("n", "asked"), [(100, "a standard error may reach 5.0 pp"), (299, "2.9 pp"), (300, None), (0, None)]
)
def test_a_dry_run_tells_what_few_test_texts_ask_of_the_student(n: int, asked: str | None) -> None:
    said = _remarks([{"known": True, "test_texts": n}])
    assert len(said) == (1 if asked is None else 2)
    assert asked is None or asked in said[-1]


def test_the_log_of_a_run_with_imported_votes_says_that_nothing_was_asked(say, finished: Path) -> None:
    said = say("log")
    assert said.code == 2
    assert "nothing was asked: its votes were imported (votes.csv)" in said.err
    assert said.err.count("\n") == 1


def test_a_dry_run_until_a_verdict_goes_from_the_pilot_to_the_most(say, tmp_path: Path) -> None:
    write_experiment(tmp_path, compare='metric = "accuracy"\nmargin = 0.05\nuntil = { pilot = 5, most = 12 }')
    rows = json.loads(say("run", "--until-verdict", "--dry-run", "--json").out)
    assert [row["seeds"] for row in rows] == [5, 12]
    per_seed = rows[0]["to_do"] / 5
    assert rows[1]["to_do"] == pytest.approx(12 * per_seed, abs=4)  # floors are trained once
    said = say("run", "--until-verdict", "--dry-run").out
    assert said.startswith(f"linear: {rows[0]['to_do']} to {rows[1]['to_do']} trainings to do (from 5 seeds to 12)")
    assert not (tmp_path / "runs/small/tables").exists()


def test_a_dry_run_before_the_votes_leaves_out_what_the_data_do_not_allow(say, tmp_path: Path) -> None:
    write_experiment(tmp_path, finetune='students = ["linear"]\nseeds = 2\narms = ["full"]')
    said = say("run", "--dry-run", "--json")
    assert said.code == 0, said.err
    before = json.loads(said.out)[0]
    assert not before["known"]
    assert before["runs"] >= 2 * len({"gold", "gold-aligned", "consensus", "consensus-kept", "gold-kept", "permuted"})
    write_experiment(tmp_path, finetune='students = ["linear"]\nseeds = 2\narms = ["gold", "consensus+200:random"]')
    assert "consensus+200:random" in say("run", "--dry-run").err  # not from a preset: an error


def test_explain_takes_a_guard_as_one_types_it(say) -> None:
    asked = say("compare", "--explain", "Gold-beats_the-Floor")
    assert asked.code == 0, asked.err
    assert asked.out.startswith("gold beats the floor: ")


def test_set_overrides_the_file(say, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    assert '"method": "unanimous"' in say("config", "--set", "consensus.method=unanimous").out
    assert json.loads(say("config", "--schema").out)["title"] == "Experiment"


def test_export_writes_tables_and_the_earlier_files(say, finished: Path) -> None:
    assert "comparison.csv" in say("export", "runs/small").out
    earlier = say("export", "runs/small", "--earlier", "--to", "old").out
    assert {"dataset_consenso.csv", "problematic_cases.csv", "sumario_experimento.json"} <= {
        Path(line).name for line in earlier.split()
    }


def test_init_writes_a_file_that_runs(say, tmp_path: Path) -> None:
    texts = write_texts(tmp_path)
    write_votes(tmp_path, texts)
    said = say("init", "texts.csv", "--votes", "votes.csv")
    assert said.code == 0
    assert "240 texts" in said.out
    settings = ("--set", 'finetune.students=["linear"]', "--set", "finetune.seeds=2", "--set", "consensus.bootstrap=20")
    assert say("run", *settings).code == 0
    assert say("init", "texts.csv").code == 2


def test_init_on_a_file_with_other_columns_names_its_own_options(say, tmp_path: Path) -> None:
    path = write_texts(tmp_path)
    pd.read_csv(path).rename(columns={"text": "review"}).to_csv(path, index=False)
    said = say("init", "texts.csv")
    assert said.code == 2
    assert "--text" in said.err
    assert say("init", "texts.csv", "--text", "review").code == 0


def test_doctor_names_what_is_there(say) -> None:
    said = say("doctor", "--json")
    found = {row["check"]: row["state"] for row in json.loads(said.out)}
    assert found["python"] == "ok"
    assert found["extra report"] == "ok"


def test_doctor_says_which_keys_are_set_and_never_their_values(say, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    (tmp_path / ".env").write_text("MISTRAL_API_KEY=also-secret\n", encoding="utf-8")
    said = say("doctor", "--json")
    found = {row["check"]: (row["state"], row["found"]) for row in json.loads(said.out)}
    assert found["key OPENAI_API_KEY"] == ("ok", "set")
    assert found["key MISTRAL_API_KEY"] == ("ok", "set in .env")
    assert found["key GROQ_API_KEY"] == ("absent", "not set")
    assert "secret" not in said.out + said.err


def mistake(name: str):
    """A named way to break the small experiment, and what the one line must say."""
    return MISTAKES[name]


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


MISTAKES = {
    "a wrong key": (lambda d: _replace(d / "experiment.toml", "method =", "metod ="), ["metod", "Did you mean 'method'"]),
    "a wrong section": (lambda d: _replace(d / "experiment.toml", "[consensus]", "[concensus]"), ["Did you mean 'consensus'"]),
    "an unknown method": (lambda d: _replace(d / "experiment.toml", '"majority"', '"majorty"'), ["majorty", "majority"]),
    "an unknown arm": (lambda d: _replace(d / "experiment.toml", '"gold-aligned"', '"gold-alined"'), ["gold-alined", "gold-aligned"]),
    "an unknown student": (lambda d: _replace(d / "experiment.toml", '"linear"', '"liner"'), ["liner", "linear"]),
    "a missing file": (lambda d: (d / "texts.csv").unlink(), ["texts.csv"]),
    "a missing column": (lambda d: _replace(d / "texts.csv", "text,gold", "body,gold"), ["text", "body"]),
    "an empty file": (lambda d: (d / "texts.csv").write_text(""), ["texts.csv", "empty"]),
    "a file of bytes": (lambda d: (d / "texts.csv").write_bytes(bytes(range(256)) * 50), ["texts.csv"]),
    "an empty text": (lambda d: _replace(d / "texts.csv", "t003,", "t003,,sport,train\nt999x,"), ["empty"]),
    "a repeated id": (lambda d: _replace(d / "texts.csv", "t004,", "t003,"), ["t003"]),
    "votes that do not join": (lambda d: _votes_with_other_ids(d / "votes.csv"), ["votes", "t000"]),
    "votes without labels": (lambda d: _replace(d / "votes.csv", "label", "lable"), ["label"]),
    "an unknown gold label": (
        lambda d: (_replace(d / "texts.csv", ",money,", ",monye,"), _name_labels(d / "experiment.toml")), ["monye", "money"],
    ),
    "multi-label gold": (
        lambda d: (_replace(d / "texts.csv", ",money,", ",money|sport,"), _name_labels(d / "experiment.toml")), ["single-label"],
    ),
    "no gold on test": (lambda d: _without_test_gold(d / "texts.csv"), ["gold", "test"]),
    "a model folder that is none": (
        lambda d: _replace(d / "experiment.toml", 'students = ["linear"]', 'students = ["frozen"]\nrecipe = { encoder = "./nothing" }'),
        ["nothing", "folder"],
    ),
    "not TOML": (lambda d: (d / "experiment.toml").write_text("name = "), ["TOML"]),
    "a negative margin": (lambda d: _replace(d / "experiment.toml", "margin = 0.05", "margin = -1"), ["margin"]),
}  # fmt: skip


def _votes_with_other_ids(path: Path) -> None:
    frame = pd.read_csv(path)
    frame.assign(text_id="x" + frame["text_id"]).to_csv(path, index=False)


def _name_labels(path: Path) -> None:
    blocks = "".join(f'[[data.labels]]\nname = "{name}"\n' for name in ("sport", "money", "health"))
    _replace(path, "[consensus]", blocks + "[consensus]")


def _without_test_gold(path: Path) -> None:
    frame = pd.read_csv(path)
    frame.loc[frame["split"] == "test", "gold"] = None
    frame.to_csv(path, index=False)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_line_and_exit_code_2(name: str, say, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    spoil, words = mistake(name)
    spoil(tmp_path)
    said = say("run")
    assert said.code == 2, said.err
    line = [row for row in said.err.splitlines() if row.startswith("consenso: ")]
    assert len(line) == 1
    assert "Traceback" not in said.err
    for word in words:
        assert word in line[0]


def test_finished_work_stays_after_a_mistake(say, finished: Path, tmp_path: Path) -> None:
    pieces = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")}
    _replace(finished, '"gold-aligned"', '"nothing"')
    assert pieces
    assert say("run").code == 2
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")} == pieces


def test_a_full_disk_ends_with_1_and_can_be_resumed(say, tmp_path: Path, monkeypatch) -> None:
    write_experiment(tmp_path)
    real, calls = store.os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 25:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(store.os, "fsync", full)
    said = say("run")
    assert said.code == 1
    assert "disk is full" in said.err
    monkeypatch.setattr(store.os, "fsync", real)
    assert say("run").code == 0


def test_a_failed_guard_ends_with_4(say, tmp_path: Path) -> None:
    write_experiment(tmp_path, compare='metric = "accuracy"\nmargin = 0.45')  # wider than half of what can be learned
    said = say("run")
    assert said.out.startswith("verdict: INVALID")
    assert said.code == 4


def test_a_misspelt_arm_is_found_before_training(say, tmp_path: Path) -> None:
    write_experiment(tmp_path, compare='arm = "consenus"')
    said = say("run")
    assert said.code == 2
    assert "Did you mean 'consensus'" in said.err
    assert not (tmp_path / "runs").exists()


def test_labels_and_agreement_need_no_gold(say, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    frame = pd.read_csv(tmp_path / "texts.csv").drop(columns="gold")
    frame.to_csv(tmp_path / "texts.csv", index=False)
    _name_labels(path)
    said = say("consensus")
    assert said.code == 0, said.err
    assert "alpha" in said.out
    assert "gold" in say("run").err


def test_an_older_verdict_is_not_shown_as_current(say, finished: Path) -> None:
    verdict = say("status").out.splitlines()[-1]
    assert verdict.startswith("verdict:")
    say("consensus", "--set", "consensus.method=unanimous")
    status = say("status").out
    assert "out of date" in status
    assert verdict not in status
    assert verdict in say("run").out.splitlines()


def test_status_notices_changed_settings(say, finished: Path) -> None:
    assert "out of date" not in say("status").out
    changed = say("status", "--set", "finetune.seeds=4").out
    assert [line.split()[0] for line in changed.splitlines() if "out of date" in line] == [
        "finetune", "compare", "multiverse", "report", "verdict:",
    ]  # fmt: skip


def test_output_survives_a_terminal_that_is_not_utf8(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "consenso", "data"], cwd=tmp_path, capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "sport" in done.stdout.decode("utf-8")


def test_every_command_has_a_help_line() -> None:
    listed = CliRunner().invoke(cli.cli, ["--help"]).output
    for name, command in cli.cli.commands.items():
        assert command.help
        assert name in listed
