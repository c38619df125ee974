"""What `consenso clean` lists and removes: what nothing needs, and never more."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from consenso.cleaning import Found, chosen, remove, survey
from consenso.experiment import run
from consenso.experiment_file import read_experiment
from consenso.store import RunFolder
from making import write_experiment

SMALL = 'students = ["linear"]\nseeds = 2\narms = ["gold-aligned", "consensus", "floor"]\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained under two recipes, one after the other: pieces of both, tables of the second."""
    place = tmp_path_factory.mktemp("finished")
    path = write_experiment(place, finetune=SMALL)
    run(path, place / "run", until="finetune")
    changed, base = read_experiment(path, ["finetune.recipe.c_grid=[1.0]"])
    run(changed, place / "run", until="compare", base=base)
    return place / "run"


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return Path(shutil.copytree(finished, tmp_path / "run"))


def files_in(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def found_in(folder: Path, what: str) -> list[Found]:
    return [one for one in survey([RunFolder(folder)], hub=False) if one.what == what]


def write(path: Path, size: int = 1000, *, days: float = 0.0) -> Path:
    """Write a file that was last used so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - 86_400 * days
    os.utime(path, (then, then))
    return path


def test_pieces_of_an_earlier_recipe_can_go_and_those_behind_the_tables_stay(folder: Path) -> None:
    unused, used = found_in(folder, "pieces"), found_in(folder, "pieces-in-use")
    keys = set(RunFolder(folder).read("trainings")["key"].dropna())
    assert (len(unused), len(used)) == (4, 4)
    assert {one.path.stem for one in used} == keys
    assert [one.bytes for one in unused] == [one.path.stat().st_size for one in unused]


def test_without_yes_it_only_lists(folder: Path, say: Any) -> None:
    before = files_in(folder)
    said = say("clean", folder)
    assert "  pieces             4 " in said.out
    assert "nothing was removed; add --yes to remove 4 items" in said.out
    assert (files_in(folder), said.code) == (before, 0)


def test_with_yes_what_nothing_needs_goes_and_nothing_else(folder: Path, say: Any) -> None:
    kept = files_in(folder) - {one.path.relative_to(folder).as_posix() for one in found_in(folder, "pieces")}
    for rubbish in (
        "cache/embeddings-1.npy", "cache/tokens/1.npz", "pieces/unfinished/k.pt", "tables/.votes.parquet.4194305-0a1b2c3d",
        "cache/prepared-x1/prepared.npz",
    ):  # fmt: skip
        write(folder / rubbish)
    said = say("clean", folder, "--yes", "--json")
    facts = json.loads(said.out)
    assert files_in(folder) == kept
    assert (
        facts["freed_bytes"]
        == facts["goes_bytes"]
        == 5000 + sum(row["bytes"] for row in facts["found"] if row["what"] == "pieces")
    )
    assert {row["what"] for row in facts["found"] if not row["removed"]} == {"pieces-in-use"}


def test_after_cleaning_a_run_trains_nothing_again(folder: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from consenso.finetune.students import linear

    def never(*_: Any) -> None:
        raise AssertionError("a training was repeated")

    say("clean", folder, "--yes")
    monkeypatch.setattr(linear, "train", never)
    settings = RunFolder(folder).record()["settings"]
    settings["data"]["source"] = str(folder.parent / "texts.csv")
    found, _ = read_experiment(settings, ["finetune.selection.beta=0.3"])
    write_experiment(folder.parent)
    events: list[dict[str, Any]] = []
    assert run(found, folder, until="finetune", base=folder.parent, progress=events.append).failed == 0
    assert {"stage": "finetune", "event": "start"} in events


def test_pieces_of_a_run_that_was_cut_off_stay(folder: Path) -> None:
    table = RunFolder(folder).table_path("trainings")
    write(folder / "pieces" / "trainings" / "new.parquet")
    os.utime(table, (time.time() - 60, time.time() - 60))
    assert "new" in {one.path.stem for one in found_in(folder, "pieces-in-use")}
    table.unlink()
    assert found_in(folder, "pieces") == []


def test_pieces_of_a_learning_rate_probe_stay(folder: Path) -> None:
    key = found_in(folder, "pieces")[0].path.stem
    RunFolder(folder).note("learning_rates", {"encoder": {"chosen": 1e-4, "tried": [{"key": key}]}})
    assert key in {one.path.stem for one in found_in(folder, "pieces-in-use")}


def test_pieces_behind_the_multiverse_stay_however_old(folder: Path) -> None:
    key = found_in(folder, "pieces")[0].path.stem
    RunFolder(folder).note("multiverse_trainings", [key[:16]])
    assert key in {one.path.stem for one in found_in(folder, "pieces-in-use")}


def test_trainings_behind_the_tables_go_only_by_name(folder: Path, say: Any) -> None:
    found = survey([RunFolder(folder)], hub=False)
    assert {one.what for one in chosen(found)} == {"pieces"}
    assert say("clean", folder, "--what", "all-pieces", "--yes").out.splitlines()[-1].startswith("removed 8 items")
    assert RunFolder(folder).has("trainings")


def test_only_what_was_not_used_for_so_many_days_goes(folder: Path) -> None:
    write(folder / "cache" / "old.npy", days=10)
    write(folder / "cache" / "new.npy", days=1)
    gone = chosen(survey([RunFolder(folder)], hub=False), ["cache"], older_than=5)
    assert [one.path.name for one in gone] == ["old.npy"]


def test_a_prediction_that_may_be_at_work_stays(folder: Path) -> None:
    for name, days in ((".out.csv.parts", 1), (".now.csv.parts", 0), (".held.csv.parts", 1)):
        write(folder / name / "0.parquet", days=days)
        write(folder / name / "key.txt", days=days)
        write(folder / name / ".lock", days=days)
    write(folder / ".killed.csv.parts" / "key.txt", days=5 / 1440)  # minutes ago, and nobody holds the lock
    write(folder / ".killed.csv.parts" / ".lock", days=5 / 1440)
    write(folder / ".mine.parts" / "thesis.txt", days=1)
    with FileLock(folder / ".held.csv.parts" / ".lock"):
        assert [one.path.name for one in found_in(folder, "unfinished")] == [".killed.csv.parts", ".out.csv.parts"]


def test_a_prediction_that_was_taken_up_since_it_was_listed_stays(tmp_path: Path) -> None:
    parts = tmp_path / ".out.csv.parts"
    for name in ("0.parquet", "key.txt", ".lock"):
        write(parts / name, days=1)
    listed = chosen(survey([], [tmp_path], hub=False))
    assert [one.path for one in listed] == [parts]
    with FileLock(parts / ".lock"):
        assert remove(listed) == []
    write(parts / "1.parquet", days=0)
    assert remove(listed) == []
    assert (parts / "0.parquet").exists()
    write(parts / "1.parquet", days=1)
    assert remove(listed) == listed
    assert not parts.exists()


def test_a_dotfile_of_the_user_is_no_leftover(folder: Path) -> None:
    write(folder / "notes" / ".env.prod-20261127")
    with RunFolder(folder).locked():
        assert (folder / "notes" / ".env.prod-20261127").exists()
    assert found_in(folder, "leftovers") == []


def test_a_run_at_work_is_left_alone(folder: Path, say: Any) -> None:
    before = files_in(folder)
    with RunFolder(folder).locked():
        said = say("clean", folder, "--yes")
    assert (said.code, files_in(folder)) == (1, before)
    assert "another process works in" in said.err


def test_what_has_come_into_use_since_it_was_listed_stays(folder: Path) -> None:
    listed = chosen(survey([RunFolder(folder)], hub=False))
    table = RunFolder(folder).read("trainings")
    table.loc[0, "key"] = listed[0].path.stem
    RunFolder(folder).write("trainings", table)
    assert listed[0] not in remove(listed)
    assert listed[0].path.exists()


@pytest.mark.parametrize(
    "asked", [["nowhere"], ["empty"], ["--models", "nowhere"], ["--what", "votes"], ["--older-than", "-1"]]
)
def test_a_wrong_question_gets_one_line(asked: list[str], say: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = say("clean", *asked)
    assert (said.code, said.err.count("\n"), said.out) == (2, 1, "")


def save_model(folder: Path, *, days: float) -> Path:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md", "consenso.json"):
        write(folder / name, days=days)
    return folder


def test_a_model_goes_by_name_once_unused_and_the_users_files_stay(folder: Path, say: Any, tmp_path: Path) -> None:
    old, new, mine = (
        save_model(tmp_path / "models" / name, days=days) for name, days in (("a", 40), ("b", 2), ("c", 40))
    )
    write(mine / "notes.txt", days=40)
    said = say("clean", "--models", tmp_path / "models")
    assert "nothing was removed: nothing can go" in said.out
    assert f"5.0 kB  {old}" in said.out
    assert "stays: used within 30 days" in next(line for line in said.out.splitlines() if str(new) in line)
    assert f"look at it with --models {old}" in say("clean", old).err
    assert "removed 2 items, 10.0 kB" in say("clean", "--models", tmp_path / "models", "--what", "models", "--yes").out
    assert (old.exists(), files_in(mine), len(files_in(new))) == (False, {"notes.txt"}, 5)


def test_a_model_that_a_run_names_stays(folder: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "models" / "mine", days=40)
    assert len(survey([], [tmp_path / "models"], hub=False)) == 1
    settings = RunFolder(folder).record()["settings"]
    settings["finetune"]["recipe"]["encoder"] = str(model)
    RunFolder(folder).note("settings", settings)
    assert [one for one in survey([RunFolder(folder)], [tmp_path / "models"], hub=False) if one.what == "models"] == []


def cache_model(cache: Path, name: str, *, days: float) -> None:
    """A model as the hub's cache holds it."""
    repo, commit = cache / f"models--{name.replace('/', '--')}", (name[-1] * 40)
    blob = write(repo / "blobs" / "b1", 5000, days=days)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "model.safetensors").symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


def test_an_unused_model_of_the_hubs_cache_goes_by_name(folder: Path, say: Any, tmp_path: Path) -> None:
    for name, days in (("org/model-a", 90), ("org/model-b", 3)):
        cache_model(tmp_path / "hub", name, days=days)
    said = say("clean", folder, "--what", "models")
    assert "org/model-a" in said.out
    assert "nothing was removed; add --yes to remove 1 item, 5.0 kB" in said.out
    assert "removed 1 item, 5.0 kB" in say("clean", folder, "--what", "models", "--yes").out
    assert sorted(path.name for path in (tmp_path / "hub").glob("models--*")) == ["models--org--model-b"]
