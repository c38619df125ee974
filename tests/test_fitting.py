"""The training loop: losses worked out by hand, words left out exactly, and kills that change no number."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from consenso import encoders
from consenso.errors import ConfigError
from consenso.finetune import Recipe, fitting, make_arms, pool, run_arms, study
from consenso.finetune.arguments import recipe_from_arguments
from consenso.finetune.batches import training_batches
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.dropout import plain_dropout, quicken_dropout
from consenso.finetune.losses import class_weights, make_loss
from consenso.finetune.pool import one_thread
from consenso.finetune.ranks import Ranks
from consenso.finetune.students import encoder
from consenso.finetune.study import make_study
from consenso.finetune.training import Outcome, Prepared, Training
from consenso.finetune.vocabulary import trim_vocabulary
from consenso.store import RunFolder
from test_finetune_students import SCHEMA, WORDS, recipe_for, save_tiny, tables


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny-bert"))


def one_training(tiny: str, *, n: int = 125, **recipe: Any) -> tuple[Training, Prepared, Recipe]:
    texts, folds, labels = tables(n)
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=[1], schema=SCHEMA)
    chosen = recipe_for(tiny, **recipe)
    study = make_study(arms, texts, folds, student="encoder", recipe=chosen, schema=SCHEMA)
    return study.runs[0].training, encoder.prepare(study.texts, chosen), chosen


def trained(tiny: str, *, n: int = 125, **recipe: Any) -> Outcome:
    return encoder.train(*one_training(tiny, n=n, **recipe), SCHEMA)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def same(one: Outcome, other: Outcome) -> bool:
    alike = dataclasses.replace(one, probabilities=None, predicted=None) == dataclasses.replace(
        other, probabilities=None, predicted=None
    )
    return alike and np.array_equal(one.probabilities, other.probabilities)


# losses

LOGITS, P = [[0.0, np.log(3)]], [0.25, 0.75]


def loss(target: list[float], shares: tuple[float, ...] = (0.5, 0.5), **recipe: Any) -> float:
    import torch

    of = make_loss(Recipe(**recipe), np.array(shares))
    return float(of(torch.tensor(LOGITS), torch.tensor([target])))


@pytest.mark.parametrize(
    ("recipe", "target", "expected"),
    [
        ({}, [1, 0], -np.log(0.25)),
        ({}, [0.4, 0.6], -0.4 * np.log(0.25) - 0.6 * np.log(0.75)),
        ({"loss": "focal"}, [1, 0], -(0.75**2) * np.log(0.25)),
        ({"loss": "focal", "focal_gamma": 0}, [1, 0], -np.log(0.25)),
        ({"loss": "gce"}, [1, 0], (1 - 0.25**0.7) / 0.7),
        ({"loss": "gce", "gce_q": 1}, [1, 0], 0.75),
        ({"label_smoothing": 0.2}, [1, 0], -0.9 * np.log(0.25) - 0.1 * np.log(0.75)),
    ],
)
def test_a_loss_is_that_of_its_formula(recipe: dict[str, Any], target: list[float], expected: float) -> None:
    assert loss(target, **recipe) == pytest.approx(expected, rel=1e-5)


def test_a_rare_class_weighs_more_and_the_mean_row_one() -> None:
    shares = np.array([0.1, 0.9, 0.0])
    assert class_weights(shares).tolist() == pytest.approx([5, 0.5 / 0.9, 0])
    assert class_weights(shares) @ shares == pytest.approx(1)
    assert loss([1, 0], (0.1, 0.9), class_weights="balanced") == pytest.approx(-5 * np.log(0.25), rel=1e-5)


@pytest.mark.parametrize(
    "recipe", [{"loss": "focal"}, {"loss": "gce"}, {"class_weights": "balanced"}, {"label_smoothing": 0.1},
               {"batching": "tokens"}, {"batching": "random"}]
)  # fmt: skip
def test_every_choice_of_loss_and_batches_learns(recipe: dict[str, Any], tiny: str) -> None:
    usual, found = trained(tiny, n=250, epochs=8), trained(tiny, n=250, epochs=8, **recipe)
    assert found.status == "ok"
    assert found.facts["dev_macro_f1"] > 0.5
    assert not np.array_equal(found.probabilities, usual.probabilities)


# batches


@pytest.mark.parametrize("batching", ["sorted", "tokens", "random"])
def test_each_pass_holds_every_row_once_in_as_many_batches(batching: str) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 101)
    passes = list(training_batches(lengths, 8, 26, seed=1, batching=batching))
    for batches in (passes[:13], passes[13:]):
        assert sorted(np.concatenate(batches)) == list(range(101))
        assert min(map(len, batches)) > 0


def test_batches_by_tokens_hold_about_as_many_each() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 400)
    tokens = [lengths[batch].sum() for batch in training_batches(lengths, 16, 25, seed=1, batching="tokens")]
    assert max(tokens) - min(tokens) <= 2 * lengths.max()


def test_one_long_text_leaves_no_batch_empty() -> None:
    lengths = np.array([500, *[1] * 31])
    sizes = [len(batch) for batch in training_batches(lengths, 4, 8, seed=1, batching="tokens")]
    assert min(sizes) == 1
    assert sum(sizes) == 32


# the vocabulary


def test_words_that_nobody_uses_are_left_out_and_come_back_as_they_were(tiny: str) -> None:
    import torch

    model = encoders.load_classifier(tiny, SCHEMA)
    whole = model.get_input_embeddings().weight.detach().clone()
    left = trim_vocabulary(model, np.array([20, 7, 9]))
    assert sorted(left.known) == [0, 7, 9, 20], "and the padding"
    assert left.lookup[0] == 0, "which keeps its number"
    rows = model.get_input_embeddings().weight
    assert torch.equal(rows, whole[torch.from_numpy(left.known)])
    with torch.no_grad():
        rows[left.lookup[7]] += 1
    left.restore(model)
    changed = (model.get_input_embeddings().weight != whole).any(dim=1).nonzero().ravel().tolist()
    assert changed == [7]
    assert model.config.pad_token_id == 0


def test_training_without_the_unused_words_gives_the_same_predictions(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, prepared, recipe = one_training(tiny)
    few = dataclasses.replace(training, rows=training.rows[:8], codes=training.codes[:8])
    few = dataclasses.replace(few, dev_rows=few.dev_rows[:4], dev_codes=few.dev_codes[:4], asked=few.dev_rows[:4])
    outcome, model = encoder.train_model(few, prepared, recipe, SCHEMA)
    monkeypatch.setattr(fitting, "trim_vocabulary", lambda model, tokens: None)
    plain, whole = encoder.train_model(few, prepared, recipe, SCHEMA)
    assert np.allclose(outcome.probabilities, plain.probabilities, atol=1e-6)
    one, other = (m.get_input_embeddings().weight.detach().numpy() for m in (model, whole))
    assert one.shape == other.shape
    assert np.allclose(one, other, atol=1e-4), "weight decay alone reaches a word that does not occur"


def test_an_encoder_that_reads_more_from_an_id_keeps_all_its_words(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training, prepared, recipe = one_training(tiny)
    answers = iter([np.zeros(1), np.ones(1)])
    monkeypatch.setattr(fitting.Fitting, "_probe", lambda self, texts: next(answers))
    monkeypatch.setattr(fitting, "trim_vocabulary", lambda model, tokens: trim_vocabulary(model, np.arange(6)))
    made = fitting.Fitting(encoders.load_classifier(tiny, SCHEMA), training, prepared, recipe, "cpu", 1)
    assert made.vocabulary is None
    assert made.model.get_input_embeddings().num_embeddings == 5 + 10 + sum(map(len, WORDS.values()))


# checkpoints


def test_a_training_goes_on_from_its_checkpoint_to_the_same_result(tiny: str, tmp_path: Path) -> None:
    training, prepared, recipe = one_training(tiny, epochs=4)
    whole = encoder.train(training, prepared, recipe, SCHEMA)

    class Killed(BaseException):
        pass

    class KilledAfterSaving(Checkpoint):
        def save(self, state: dict[str, Any]) -> None:
            super().save(state)
            if state["steps"] == 11:
                raise Killed

    with pytest.raises(Killed):
        encoder.train(training, prepared, recipe, SCHEMA, KilledAfterSaving(tmp_path / "one.pt", minutes=0))
    state = Checkpoint(tmp_path / "one.pt").load()
    assert state["steps"] == 11
    rest = encoder.train(training, prepared, recipe, SCHEMA, Checkpoint(tmp_path / "one.pt"))
    assert same(rest, whole)


LONG = """
import sys
from consenso.finetune import run_arms
from consenso.store import RunFolder
from test_fitting import SCHEMA, one_arm, recipe_for

arms, texts, folds = one_arm()
recipe = recipe_for(sys.argv[1], epochs=40)
run_arms(arms, texts, folds, student="encoder", recipe=recipe, schema=SCHEMA, folder=RunFolder(sys.argv[2]), checkpoint_minutes=1e-4)
"""


def one_arm() -> tuple[Any, Any, Any]:
    texts, folds, labels = tables()
    return make_arms(texts, folds, labels, arms=["gold"], seeds=[1], schema=SCHEMA), texts[["text_id", "text"]], folds


def test_a_kill_in_the_middle_of_a_training_changes_no_number(tiny: str, tmp_path: Path) -> None:
    script, place = tmp_path / "long.py", os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    script.write_text(LONG, encoding="utf-8")
    running = subprocess.Popen([sys.executable, str(script), tiny, str(tmp_path / "run")], env=place)
    unfinished = tmp_path / "run" / "pieces" / "unfinished"
    while running.poll() is None and not list(unfinished.glob("*.pt")):
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL, "it was killed, not finished"
    (state,) = unfinished.glob("*.pt")
    (unfinished / f".{state.name}.{running.pid}-0a9ac6e7").write_bytes(b"killed while it was written")
    arms, texts, folds = one_arm()
    how: dict[str, Any] = {"student": "encoder", "recipe": recipe_for(tiny, epochs=40), "schema": SCHEMA}
    resumed = run_arms(arms, texts, folds, **how, folder=RunFolder(tmp_path / "run"))
    whole = run_arms(arms, texts, folds, **how)
    for name in ("curves", "predictions"):
        pd.testing.assert_frame_equal(getattr(resumed, name), getattr(whole, name))
    assert resumed.trainings["steps"].tolist() == [40 * 5]
    assert not list(unfinished.iterdir())


def test_a_removed_checkpoint_takes_only_its_own_half_written_files_along(tmp_path: Path) -> None:
    one = Checkpoint(tmp_path / "one.pt")
    one.save({"steps": 1})
    theirs = [".one.pt.4194305-0a9ac6e7.pt.8-0a9ac6e7", ".other.pt.4194305-0a9ac6e7", "two.pt"]
    for name in (".one.pt.4194305-0a9ac6e7", *theirs):
        (tmp_path / name).touch()
    one.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)
    one.remove()


def test_a_damaged_checkpoint_means_starting_again(tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "one.pt").write_bytes(b"half a file")
    training, prepared, recipe = one_training(tiny)
    found = encoder.train(training, prepared, recipe, SCHEMA, Checkpoint(tmp_path / "one.pt"))
    assert "cannot be read" in caplog.text
    assert same(found, encoder.train(training, prepared, recipe, SCHEMA))


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(
    tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    found = encoder.train(*one_training(tiny), SCHEMA, Checkpoint(tmp_path / "one.pt", minutes=0))
    assert found.facts["steps"] == 10
    assert "goes on without it" in caplog.text


# several processes for one model

TOGETHER = """
import sys
import numpy as np
from consenso import encoders
from consenso.finetune.ranks import find_ranks
from consenso.finetune.students import encoder
from test_fitting import SCHEMA, one_training

encoders.import_torch().set_num_threads(1)
ranks = find_ranks()
training, prepared, recipe = one_training(sys.argv[1], batching="random")
outcome, model = encoder.train_model(training, prepared, recipe, SCHEMA, ranks=ranks)
np.save(f"{sys.argv[2]}/{ranks.rank}.npy", outcome.probabilities)
assert ranks.size == 2
"""


def test_two_processes_train_one_model_and_agree(tiny: str, tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    place = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*launcher, tiny, str(tmp_path)], check=True, env=os.environ | place, capture_output=True)
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    assert np.array_equal(first, second)
    assert (first.argmax(axis=1) == trained(tiny, batching="random").predicted).mean() > 0.6


def test_a_small_batch_leaves_a_process_a_row_that_does_not_count() -> None:
    rows, third = np.array([4, 7]), Ranks(2, 3)
    assert third.share(rows).tolist() == [4]
    assert not third.counts(rows)
    assert [Ranks(rank, 2).share(np.arange(5)).tolist() for rank in (0, 1)] == [[0, 2, 4], [1, 3]]


# TrainingArguments


def arguments(tmp_path: Path, **changes: Any) -> Any:
    import transformers

    return transformers.TrainingArguments(str(tmp_path), use_cpu=True, **changes)


def test_training_arguments_become_the_recipe_that_says_the_same(tmp_path: Path) -> None:
    given = arguments(
        tmp_path, learning_rate=2e-5, num_train_epochs=3, per_device_train_batch_size=8, gradient_accumulation_steps=4,
        warmup_steps=0.1, weight_decay=0.02, train_sampling_strategy="group_by_length",
    )  # fmt: skip
    expected = Recipe(
        learning_rate=2e-5, epochs=3, batch_size=32, warmup=0.1, weight_decay=0.02, encoder="roberta-base"
    )
    assert recipe_from_arguments(given, "roberta-base") == expected
    assert recipe_from_arguments(arguments(tmp_path)).batching == "random"


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"optim": "adafactor"}, "adafactor"), ({"lr_scheduler_type": "cosine"}, "cosine"), ({"max_steps": 50}, "max_steps = 50"),
     ({"warmup_steps": 100}, "warmup_steps = 100"), ({"adam_beta2": 0.98}, "adam_beta2 = 0.98")],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_refused(changes: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        recipe_from_arguments(arguments(tmp_path, **changes))


def test_a_study_takes_training_arguments(tmp_path: Path) -> None:
    texts, folds, labels = tables(50)
    arms = make_arms(texts, folds, labels, arms=["gold"], seeds=[1], schema=SCHEMA)
    given = arguments(tmp_path, num_train_epochs=2, per_device_train_batch_size=10)
    study = make_study(arms, texts, folds, student="encoder", recipe=given, schema=SCHEMA)
    assert study.runs[0].training.steps == 2 * 3


# dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_quick_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    import torch

    layer = torch.nn.Sequential(torch.nn.Dropout(p))
    quicken_dropout(layer)
    torch.manual_seed(1)
    values = torch.ones(1_000_001, requires_grad=True)
    found = layer(values)
    found.sum().backward()
    assert float((found.detach() == 0).float().mean()) == pytest.approx(p, abs=0.002)
    assert float(found.detach().max()) == pytest.approx(1 / (1 - p), rel=1e-4)
    assert torch.equal(values.grad, found.detach())
    torch.manual_seed(1)
    assert torch.equal(layer(values), found), "equal seeds drop equal elements"
    assert torch.equal(layer.eval()(values), values)
    plain_dropout(layer)
    assert "forward" not in vars(layer[0])


def test_focal_loss_has_a_slope_where_the_student_is_certain() -> None:
    import torch

    logits = torch.tensor([[40.0, -40.0]], requires_grad=True)
    make_loss(Recipe(loss="focal", focal_gamma=0.5), np.array([0.5, 0.5]))(
        logits, torch.tensor([[1.0, 0.0]])
    ).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_checkpoint_of_another_version_means_starting_again(tiny: str, tmp_path: Path) -> None:
    import torch

    torch.save({"format": 0, "steps": 3}, tmp_path / "one.pt")
    assert Checkpoint(tmp_path / "one.pt").load() is None


def test_the_seconds_before_a_kill_are_counted(tmp_path: Path) -> None:
    first = Checkpoint(tmp_path / "one.pt", earlier=40.0)
    first.save({"steps": 3})
    second = Checkpoint(tmp_path / "one.pt")
    assert second.load() is not None
    assert 40 <= second.earlier < 60
    spent = pool._times(time.monotonic(), 900, second)
    assert 40 <= spent["seconds"] < 60
    assert spent["samples_per_s"] == pytest.approx(900 / spent["seconds"])


def test_the_version_of_peft_decides_where_lora_is_used() -> None:
    assert "peft" not in study._header("encoder", Recipe(), SCHEMA)["libraries"]
    found = study._header("encoder", Recipe(lora_rank=4), SCHEMA)["libraries"]
    assert re.fullmatch(r"0\.\d+|[1-9]\d*", found["peft"] or "0.0")
    assert "peft" not in study._header("frozen", Recipe(lora_rank=4), SCHEMA)["libraries"]
