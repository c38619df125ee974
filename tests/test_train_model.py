"""consenso train: one classifier to use, saved as plain transformers loads it, with its card."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from consenso import cli, encoders
from consenso.cli import training as commands
from consenso.compare.calibration import measure_calibration
from consenso.compare.standing import arm_standing
from consenso.errors import ConfigError, ModelError, StorageError, TrainingError
from consenso.experiment import outcome, run
from consenso.experiment_file import read_experiment
from consenso.final_model import making, push_model, train_model, unsaved
from consenso.final_model.choosing import choose
from consenso.final_model.scoring import by_class
from consenso.finetune import Recipe, saving
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.metrics import softmax
from consenso.finetune.saving import fold_temperature, last_linear, logits_of, save_classifier
from consenso.finetune.students import encoder
from consenso.labels import LabelSchema
from consenso.progress import describe
from consenso.steps import running
from consenso.store import RunFolder
from making import FILLER, WORDS, write_experiment, write_texts, write_votes
from making_models import train_words

NAMES = sorted(WORDS)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", *FILLER, *(w for ws in WORDS.values() for w in ws)]
FILES = ["README.md", "config.json", "consenso.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = ["goal", "the market said bond", "doctor " * 60, "nurse and week"]


def save_body(folder: Path, config: Any, tokenizer: Any, *, knows: bool = False) -> str:
    """An encoder without a head, with random weights, as `save_pretrained` leaves it; `knows`: words of a class are alike."""
    import transformers

    torch = encoders.import_torch()
    with torch.random.fork_rng(), encoders.quiet_transformers(transformers):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config)
        for group in WORDS.values() if knows else ():
            rows = [VOCABULARY.index(word) for word in group]
            model.get_input_embeddings().weight.data[rows] += torch.randn(config.hidden_size)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of 2 layers of 32 that knows which words of `making` go together, so that it learns fast."""
    from transformers import BertConfig

    config = BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, initializer_range=0.1, **SIZE)
    return save_body(tmp_path_factory.mktemp("tiny"), config, bert_words(), knows=True)


def finetune(tiny: str, **changes: Any) -> str:
    recipe = {"encoder": tiny, "epochs": 3, "evaluations": 3, "learning_rate": 2e-3, **changes}
    body = ", ".join(f"{name} = {json.dumps(value)}" for name, value in recipe.items())
    return f'students = ["encoder"]\nseeds = 2\narms = ["gold-aligned", "consensus"]\nrecipe = {{ {body} }}'


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> SimpleNamespace:
    """An experiment whose arms are trained and compared, and a final model on its consensus labels."""
    place = tmp_path_factory.mktemp("compared")
    file, folder = write_experiment(place, finetune=finetune(tiny)), place / "run"
    run(file, folder, until="compare")
    made = train_model(file, folder, to=place / "model")
    return SimpleNamespace(file=file, folder=RunFolder(folder), model=place / "model", facts=made.facts)


def card_of(model: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (model / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def classify(model: Path, texts: list[str], **how: Any) -> np.ndarray:
    """The probabilities of a plain transformers pipeline, in schema order."""
    from transformers import pipeline

    found = pipeline("text-classification", model=str(model), device="cpu")(texts, truncation=True, top_k=None, **how)
    return np.array([[{one["label"]: one["score"] for one in row}[name] for name in NAMES] for row in found])


def test_the_final_model_is_the_experiments_training_with_its_temperature(compared: SimpleNamespace) -> None:
    predictions, texts = compared.folder.read("predictions"), compared.folder.read("texts").set_index("text_id")["text"]
    mine = predictions[(predictions["arm"] == "consensus") & (predictions["seed"] == 1)]
    names = list(LabelSchema.from_records(compared.folder.record()["labels"]).names)
    order = [names.index(name) for name in NAMES]
    theirs = np.log(np.array(mine["probabilities"].tolist())[:, order]) / compared.facts["temperature"]["value"]
    assert compared.facts["temperature"]["fitted"]
    assert compared.facts["comparison"]["same_training"] == 1
    np.testing.assert_allclose(classify(compared.model, texts[mine["text_id"]].tolist()), softmax(theirs), atol=2e-6)


def test_a_label_that_is_never_given_is_told(
    say: Any, labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    real = encoder.train_model

    def silent(*given: Any, **options: Any) -> Any:
        found, model = real(*given, **options)
        shares = found.probabilities * np.array([1, 1e-9, 1])
        return dataclasses.replace(found, probabilities=shares / shares.sum(axis=1, keepdims=True)), model

    monkeypatch.setattr(encoder, "train_model", silent)
    said = say("train", labelled[0], "--out", labelled[1], "--to", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "consenso.json").read_text(encoding="utf-8"))
    name, seen = facts["labels"][1], facts["data"]["dev_texts"] + facts["data"]["test_texts"]
    assert facts["never_predicted"] == [name]
    assert f"none of the {seen} dev and test texts the label {name}" in said.err
    assert f"It gave none of {seen} dev and test texts the label `{name}`" in card_of(tmp_path / "model")[1]


def test_a_recipe_that_is_set_wins_over_the_override_of_the_file(say: Any, tmp_path: Path, tiny: str) -> None:
    override = "\n[finetune.overrides.encoder.recipe]\nepochs = 1\n"
    file = write_experiment(tmp_path, finetune=finetune(tiny) + override)
    given = ("train", file, "--out", tmp_path / "run", "--json")
    plain = json.loads(say(*given, "--to", tmp_path / "one").out)
    changed = json.loads(say(*given, "--to", tmp_path / "two", "--set", "finetune.recipe.epochs=2").out)
    assert (plain["recipe"]["epochs"], changed["recipe"]["epochs"]) == (1, 2)


def test_one_set_of_weights_and_nothing_beside_it(compared: SimpleNamespace) -> None:
    assert sorted(path.name for path in compared.model.iterdir()) == FILES
    assert not [path for path in compared.model.parent.iterdir() if path.name.startswith(".")]
    assert (
        compared.model.joinpath("model.safetensors").stat().st_mode
        == compared.model.joinpath("README.md").stat().st_mode
    )


def test_the_config_names_the_labels_and_holds_no_path(compared: SimpleNamespace, tiny: str) -> None:
    config = json.loads((compared.model / "config.json").read_text(encoding="utf-8"))
    names = compared.facts["labels"]
    assert config["id2label"] == {str(k): name for k, name in enumerate(names)}
    assert config["label2id"] == {name: k for k, name in enumerate(names)}
    for name in FILES:
        if not name.endswith("safetensors"):
            assert str(Path(tiny).parent) not in (compared.model / name).read_text(encoding="utf-8")


def test_the_comparison_stands_after_a_model_was_trained_with_another_recipe(
    compared: SimpleNamespace, tiny: str
) -> None:
    before = compared.folder.record()["stages"]
    other = compared.file.with_name("other.toml")
    other.write_text(compared.file.read_text(encoding="utf-8").replace("epochs = 3", "epochs = 2"))
    made = train_model(other, compared.folder.path, to=compared.model.with_name("two-epochs"))
    assert compared.folder.record()["stages"] == before
    assert made.facts["recipe"]["epochs"] == 2
    assert (made.facts["comparison"]["same_recipe"], made.facts["comparison"]["same_training"]) == (False, None)
    assert "another recipe" in card_of(made.folder)[1]


def test_the_card_says_the_verdict_verbatim_and_the_scores_with_intervals(compared: SimpleNamespace) -> None:
    head, body = card_of(compared.model)
    comparison, own = compared.folder.read("comparison"), compared.facts["test"]["metrics"]["macro_f1"]
    sentence = comparison.loc[comparison["is_primary"] & (comparison["metric"] == "accuracy"), "sentence"].iloc[0]
    unescaped = body.replace("\\", "")
    assert outcome(compared.folder).sentence == sentence
    assert f"> {sentence}" in unescaped
    assert f"{own['value']:.3f} ({own['low']:.3f} to {own['high']:.3f})" in body
    metrics = {one["name"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    assert metrics == pytest.approx(
        {"macro-F1": own["value"], "accuracy": compared.facts["test"]["metrics"]["accuracy"]["value"]}, abs=1e-4
    )
    assert head["pipeline_tag"] == "text-classification"


def test_the_scores_are_those_of_the_comparison(compared: SimpleNamespace) -> None:
    scores = compared.folder.read("scores")
    mine = scores[(scores["arm"] == "consensus") & (scores["part"] == "test")].set_index(["metric", "seed"])["value"]
    for metric, found in compared.facts["test"]["metrics"].items():
        assert found["value"] == pytest.approx(mine[metric, 1], abs=1e-12)
        assert found["low"] < found["value"] < found["high"]
        mean = compared.facts["comparison"]["metrics"][metric]
        assert mean["value"] == pytest.approx(mine[metric].mean(), abs=1e-12)
        assert mean["S"] == 2


def test_the_card_scores_each_label_by_its_counts(compared: SimpleNamespace) -> None:
    frame, gold = compared.folder.read("predictions"), compared.folder.read("texts").set_index("text_id")["gold"]
    mine = frame[(frame["arm"] == "consensus") & (frame["seed"] == 1) & (frame["part"] == "test")].dropna(
        subset="predicted"
    )
    counts = pd.crosstab(gold.reindex(mine["text_id"]).to_numpy(), mine["predicted"].to_numpy())
    body, classes = card_of(compared.model)[1], compared.facts["test"]["classes"]
    assert sum(found["n"] for found in classes.values()) == compared.facts["test"]["texts"]
    for name, found in classes.items():
        right, n, given = counts.loc[name, name], counts.loc[name].sum(), counts[name].sum()
        assert (found["n"], found["predicted"]) == (n, given)
        assert found["precision"] == pytest.approx(right / given)
        assert found["recall"] == pytest.approx(right / n)
        assert found["f1"] == pytest.approx(2 * right / (n + given))
        assert f"| `{name}` | {found['precision']:.3f} | {found['recall']:.3f} | {found['f1']:.3f} | {n} |" in body
    none = by_class(np.array([0, 0]), np.array([0, 1]), ["a", "b", "c"])
    assert np.isnan(none["b"]["precision"])
    assert np.isnan(none["c"]["recall"])
    assert (none["b"]["recall"], none["b"]["n"], none["a"]["predicted"]) == (0, 1, 2)


def test_one_training_has_no_interval_over_seeds(compared: SimpleNamespace) -> None:
    predictions, texts = compared.folder.read("predictions"), compared.folder.read("texts")
    found = arm_standing(
        predictions[predictions["seed"] == 1], texts, student="encoder", arm="consensus", metric="accuracy"
    )
    assert found is not None
    assert (found["value"], found["low"], found["S"]) == (
        compared.facts["test"]["metrics"]["accuracy"]["value"],
        None,
        1,
    )
    assert arm_standing(predictions, texts, student="frozen", arm="consensus") is None


def test_the_calibration_is_measured_as_the_comparison_does(compared: SimpleNamespace) -> None:
    found, scaled = compared.facts["test"]["calibration"], compared.facts["temperature"]
    tables = [compared.folder.read(name) for name in ("predictions", "texts", "arms")]
    mine = [frame[(frame["arm"] == "consensus") & (frame["seed"] == 1)] for frame in (tables[0], tables[2])]
    schema = LabelSchema.from_records(compared.folder.record()["labels"])
    table = measure_calibration(mine[0], tables[1], arms=mine[1], schema=schema).calibration.set_index("scaled")
    assert found["before"]["ece"] == pytest.approx(table.loc[False, "ece"], abs=1e-9)
    assert found["after"]["ece"] == pytest.approx(table.loc[True, "ece"], abs=1e-9)
    assert scaled["dev_loss_after"] <= scaled["dev_loss_before"]


# what plain transformers makes of a folder


def bert_words() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)})


def byte_pairs(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        model = json.loads(train_words().to_str())["model"]
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        words = [*special, *(word for word in model["vocab"] if word not in special)]
        vocab = {word: number for number, word in enumerate(words)}
        return getattr(transformers, kind)(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]])

    return make


def pieces(kind: str, *specials: str) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        words = [f"▁{word}" for word in VOCABULARY[5:]]
        vocab = [*((name, 0.0) for name in specials), *((word, -3.0) for word in words)]
        return getattr(transformers, kind)(vocab=vocab)

    return make


def fast_words() -> Any:
    """ModernBERT's kind: a tokenizer file and nothing else."""
    from transformers import PreTrainedTokenizerFast

    special = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=bert_words().backend_tokenizer, **special)


ARCHITECTURES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "Bert": (bert_words, SIZE),
    "DistilBert": (bert_words, {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "Roberta": (byte_pairs("RobertaTokenizer"), SIZE),
    "XLMRoberta": (pieces("XLMRobertaTokenizer", "<s>", "<pad>", "</s>", "<unk>"), SIZE),
    "DebertaV2": (
        pieces("DebertaV2Tokenizer", "[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        {**SIZE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
    "ModernBert": (fast_words, {**SIZE, "global_attn_every_n_layers": 2, "local_attention": 8}),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, np.ndarray]]:
    """Architecture → a model folder with temperature 1.7, and our own probabilities of TEXTS."""
    import transformers

    def save(kind: str) -> tuple[Path, np.ndarray]:
        make, size = ARCHITECTURES[kind]
        tokenizer, place = make(), tmp_path_factory.mktemp(kind)
        ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": None}
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=max(tokenizer.get_vocab().values()) + 1, max_position_embeddings=64, initializer_range=0.3, **size, **ids
        )  # fmt: skip
        name = save_body(place / "body", config, tokenizer)
        torch = encoders.import_torch()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = encoders.load_classifier(name, LabelSchema.from_names(NAMES)).eval()
        recipe = Recipe(encoder=name, max_length=40)
        prepared = encoder.prepare(TEXTS, recipe)
        before = logits_of(model, prepared, np.arange(len(TEXTS)))
        assert fold_temperature(model, 1.7, prepared, np.arange(len(TEXTS)))
        save_classifier(place / "model", model, name, max_length=40, facts={}, card="")
        return place / "model", softmax(before / 1.7)

    return save


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_plain_transformers_gives_our_probabilities(saved: Any, kind: str) -> None:
    folder, ours = saved(kind)
    assert ours.std(axis=0).max() > 0.01
    np.testing.assert_allclose(classify(folder, TEXTS), ours, atol=1e-6)
    np.testing.assert_allclose(classify(folder, TEXTS, batch_size=3), ours, atol=1e-6)


def test_a_checkpoint_that_was_a_regression_is_a_classifier_now(tmp_path: Path, tiny: str) -> None:
    config = json.loads((Path(tiny) / "config.json").read_text(encoding="utf-8")) | {"problem_type": "regression"}
    body = tmp_path / "body"
    body.mkdir()
    for path in Path(tiny).iterdir():
        (body / path.name).write_bytes(path.read_bytes())
    (body / "config.json").write_text(json.dumps(config))
    model = encoders.load_classifier(str(body), LabelSchema.from_names(NAMES)).eval()
    save_classifier(tmp_path / "model", model, str(body), max_length=40, facts={}, card="")
    np.testing.assert_allclose(classify(tmp_path / "model", TEXTS).sum(axis=1), 1, atol=1e-6)


def test_a_head_that_ends_in_no_linear_layer_keeps_its_weights(tiny: str) -> None:
    torch = encoders.import_torch()
    model = encoders.load_classifier(tiny, LabelSchema.from_names(NAMES)).eval()
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Tanh())
    prepared = encoder.prepare(TEXTS, Recipe(encoder=tiny, max_length=40))
    before = last_linear(model).weight.clone()
    assert not fold_temperature(model, 3.0, prepared, np.arange(len(TEXTS)))
    assert torch.equal(last_linear(model).weight, before)


@pytest.mark.slow
def test_it_loads_where_there_is_no_consenso(compared: SimpleNamespace) -> None:
    code = (
        "import sys; sys.modules['consenso'] = None\n"
        "from transformers import pipeline\n"
        f"print(pipeline('text-classification', model={str(compared.model)!r})('goal', truncation=True)[0]['label'])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[-1] == NAMES[int(classify(compared.model, ["goal"]).argmax())]


# labels and texts


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> tuple[Path, Path]:
    """An experiment that has come to its labels, and its run folder: nothing is compared."""
    place = tmp_path_factory.mktemp("labelled")
    file = write_experiment(place, finetune=finetune(tiny))
    run(file, place / "run", until="consensus")
    return file, place / "run"


def test_test_gold_stays_unread_until_the_comparison_has_read_it(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    made = train_model(*labelled, to=tmp_path / "model")
    assert made.facts["test"] is None
    assert made.facts["comparison"] is None
    head, body = card_of(made.folder)
    assert "model-index" not in head
    assert "was not tested" in body
    assert "the arms were not compared" in body
    assert "scorings" not in RunFolder(labelled[1]).record()


def test_with_all_texts_the_test_texts_train_and_no_score_is_left(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    plain = train_model(*labelled, to=tmp_path / "plain").facts["data"]
    made = train_model(*labelled, to=tmp_path / "all", all_texts=True)
    assert made.facts["data"]["train_texts"] == plain["train_texts"] + plain["test_texts"] - _unlabelled_test(
        labelled[1]
    )
    assert made.facts["data"]["dev_texts"] == plain["dev_texts"]
    assert made.facts["test"] is None
    assert "there is no honest test score" in card_of(made.folder)[1]


def test_with_all_texts_no_copy_of_a_dev_text_trains(tmp_path: Path, tiny: str) -> None:
    """Test texts without gold have no part, so the data stage holds them against none."""
    file = write_experiment(tmp_path, finetune=finetune(tiny))
    texts = pd.read_csv(tmp_path / "texts.csv")
    run(file, tmp_path / "first", until="data")
    folds = RunFolder(tmp_path / "first").read("folds").set_index("text_id")["part"]
    dev, test = (folds.index[folds == part] for part in ("dev", "test"))
    copies = texts["id"].isin(test[:5])
    texts.loc[copies, "text"] = texts.set_index("id")["text"][dev[:5]].to_numpy()
    texts.loc[copies, "gold"] = None
    texts.to_csv(tmp_path / "texts.csv", index=False)
    run(file, tmp_path / "run", until="consensus")
    this = running.Run(read_experiment(file)[0], RunFolder(tmp_path / "run"), tmp_path, lambda event: None)
    chosen = choose(this, "consensus", 1, all_texts=True)
    trained, judged = (
        {chosen.study.texts[row] for row in rows} for rows in (chosen.training.rows, chosen.training.dev_rows)
    )
    assert not trained & judged
    assert len(trained) > 100


def _unlabelled_test(folder: Path) -> int:
    run_folder = RunFolder(folder)
    folds, labels = run_folder.read("folds"), run_folder.read("final_labels")
    test = folds.loc[folds["part"] == "test", "text_id"]
    return int(labels.loc[labels["text_id"].isin(test), "label"].isna().sum())


def test_labels_of_one_annotator_need_not_be_an_arm_of_the_experiment(
    labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    made = train_model(*labelled, to=tmp_path / "model", labels="single:llm1")
    assert made.facts["arm"] == "single:llm1"
    assert set(made.facts["data"]["label_sources"]) == {"vote"}
    assert "the labels of llm1 alone" in card_of(made.folder)[1]


def test_a_larger_arm_that_is_not_compared_takes_the_steps_of_the_experiment(
    compared: SimpleNamespace, tmp_path: Path
) -> None:
    planned = compared.facts["training"]["planned_steps"]
    made = train_model(compared.file, compared.folder.path, to=tmp_path / "model", labels="gold")
    assert made.facts["data"]["train_rows"] > compared.facts["data"]["train_rows"]
    body = card_of(made.folder)[1]
    assert "## May consensus labels replace the human ones?" in body
    assert "## May these labels" not in body
    assert "not about this model, which was trained on `gold`" in body
    assert made.facts["training"]["planned_steps"] == planned


def test_an_interrupted_training_on_a_panel_leaves_the_comparison_current(
    compared: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compared.folder.record()

    def interrupted(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("consenso.steps.finetune.make_labels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_model(compared.file, compared.folder.path, to=tmp_path / "model", labels="panel:2")
    assert compared.folder.record() == before


def test_gold_labels_make_a_card_that_speaks_of_people(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    made = train_model(*labelled, to=tmp_path / "model", labels="gold")
    head, body = card_of(made.folder)
    assert "human labels" in body
    assert "leanings" not in body
    assert "human-labels" in head["tags"]


def test_without_any_gold_a_dev_part_is_drawn(tmp_path: Path, tiny: str) -> None:
    write_votes(tmp_path, write_texts(tmp_path))
    text = (tmp_path / "texts.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "texts.csv").write_text("id,text\n" + "\n".join(line.rsplit(",", 2)[0] for line in text[1:]) + "\n")
    file = tmp_path / "experiment.toml"
    labels = "".join(f'[[data.labels]]\nname = "{name}"\n' for name in NAMES)
    file.write_text(
        f'[data]\nsource = "texts.csv"\n{labels}[[annotate.imports]]\nsource = "votes.csv"\n'
        f'[consensus]\nmethod = "majority"\nbootstrap = 50\n[finetune]\n{finetune(tiny)}\n'
    )
    made = train_model(file, tmp_path / "run", to=tmp_path / "model")
    data = made.facts["data"]
    assert data["drawn_dev"]
    assert data["dev_texts"] == pytest.approx(0.15 * (data["dev_texts"] + data["train_texts"]), abs=1)
    assert "no test texts with human labels" in card_of(made.folder)[1]


def test_the_best_of_the_seeds_tried_is_kept(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    facts = train_model(*labelled, to=tmp_path / "model", seeds_tried=3).facts
    assert [row["seed"] for row in facts["seeds_tried"]] == [1, 2, 3]
    best = max(facts["seeds_tried"], key=lambda row: row["dev_macro_f1"])
    assert (facts["seed"], facts["dev"]["macro_f1"]) == (best["seed"], best["dev_macro_f1"])


def test_few_dev_texts_fix_no_temperature(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consenso.final_model.making.FEWEST_DEV", 1000)
    made = train_model(*labelled, to=tmp_path / "model")
    assert (made.facts["temperature"]["value"], made.facts["temperature"]["fitted"]) == (1.0, False)
    assert "No temperature was fitted" in card_of(made.folder)[1]


@pytest.mark.parametrize("change", ['precision = "fp32"', 'precision = "bf16"', "lora_rank = 4, learning_rate = 0.02"])
def test_the_temperature_is_that_of_what_the_folder_says(
    labelled: tuple[Path, Path], tmp_path: Path, change: str
) -> None:
    file = labelled[0].with_name(f"{change.rsplit(maxsplit=1)[-1].strip(chr(34))}.toml")
    text = labelled[0].read_text(encoding="utf-8")
    kept = text.replace(", learning_rate = 0.002", "") if "learning_rate" in change else text
    file.write_text(kept.replace("recipe = { ", f"recipe = {{ {change}, "))
    made = train_model(file, labelled[1], to=tmp_path / "model")
    run_folder = RunFolder(labelled[1])
    folds, texts = run_folder.read("folds"), run_folder.read("texts").set_index("text_id")["text"]
    labels = run_folder.read("final_labels").set_index("text_id")["label"]
    dev = [i for i in folds.loc[folds["part"] == "dev", "text_id"] if isinstance(labels[i], str)]
    found = classify(made.folder, texts[dev].tolist())
    loss = -np.log(found[np.arange(len(dev)), [NAMES.index(labels[i]) for i in dev]]).mean()
    assert made.facts["temperature"]["dev_texts"] == len(dev)
    assert loss == pytest.approx(made.facts["temperature"]["dev_loss_after"], abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("consensu", "Did you mean 'consensus'"), ("permuted", "is a control"), ("gold@curve", "stands for no arm"),
        ("single:each", "stands for 3 arms"), ("single:llm9", "no such annotator"),
    ],
)  # fmt: skip
def test_labels_that_are_no_single_arm_are_refused(
    labelled: tuple[Path, Path], tmp_path: Path, labels: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        train_model(*labelled, to=tmp_path / "model", labels=labels)
    assert not (tmp_path / "model").exists()


# what goes wrong


def test_a_collapsed_training_is_refused_and_nothing_is_written(
    labelled: tuple[Path, Path], tmp_path: Path, tiny: str
) -> None:
    flat = labelled[0].with_name("flat.toml")
    flat.write_text(labelled[0].read_text(encoding="utf-8").replace("0.002", "1e-12"))
    with pytest.raises(TrainingError, match=r"collapsed.*nothing was written") as caught:
        train_model(flat, labelled[1], to=tmp_path / "model")
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_killed_training_goes_on_from_its_checkpoint(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsaved, "Checkpoint", lambda path, minutes: Checkpoint(path, 0))
    seen: list[int] = []
    said: list[str] = []

    def watch(event: dict[str, Any]) -> None:
        if event.get("step") == "steps" and not event["done"]:
            said.append(describe(event))
        if event.get("step") == "steps" and event["done"]:
            seen.append(event["done"])
            if len(seen) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(*labelled, to=tmp_path / "model", progress=watch)
    assert not (tmp_path / "model").exists()
    train_model(*labelled, to=tmp_path / "model", progress=watch)
    train_model(*labelled, to=tmp_path / "again")
    assert [line.endswith("steps, going on from where it was cut off") for line in said] == [False, True]
    assert seen[:2] == [9, 18]
    assert 9 not in seen[2:]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "again")]
    assert weights[0] == weights[1]
    assert not list((labelled[1] / "pieces" / "unfinished").iterdir())


def test_a_seed_that_ended_is_not_trained_again_before_the_model_is_saved(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_model(*labelled, to=tmp_path / "whole", seeds_tried=3).facts
    real, seeds = encoder.train_model, []

    def counted(training: Any, *given: Any, **options: Any) -> Any:
        seeds.append(training.seed)
        return real(training, *given, **options)

    def full(*given: Any, **options: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(making, "save_classifier", full)
        patched.setattr(encoder, "train_model", counted)
        with pytest.raises(StorageError):
            train_model(*labelled, to=tmp_path / "model", seeds_tried=2)
        left = sorted(path.name.partition(".")[2] for path in (labelled[1] / "pieces" / "unfinished").iterdir())
        assert left == ["model.pt", "parquet", "parquet"], "two outcomes, and the weights of the better one"
    monkeypatch.setattr(encoder, "train_model", counted)
    facts = train_model(*labelled, to=tmp_path / "model", seeds_tried=3).facts
    assert seeds == [1, 2, 3]
    assert facts["seeds_tried"] == whole["seeds_tried"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "whole")]
    assert weights[0] == weights[1]
    configs = [(tmp_path / name / "config.json").read_text(encoding="utf-8") for name in ("model", "whole")]
    assert configs[0] == configs[1]
    assert facts["training"]["seconds"] > 0
    assert not list((labelled[1] / "pieces" / "unfinished").iterdir())


def test_damaged_weights_of_an_unsaved_model_cost_a_training_and_no_number(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(making, "save_classifier", lambda *given, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_model(*labelled, to=tmp_path / "model")
    (weights,) = (labelled[1] / "pieces" / "unfinished").glob("*.model.pt")
    weights.write_bytes(weights.read_bytes()[:1000])
    found = [train_model(*labelled, to=tmp_path / name).facts["temperature"] for name in ("model", "again")]
    assert found[0] == found[1]


def test_the_card_claims_to_be_a_training_of_the_comparison_only_if_it_came_out_alike(
    compared: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoder.train_model

    def otherwise(*given: Any, **options: Any) -> Any:
        outcome, model = real(*given, **options)
        return dataclasses.replace(outcome, probabilities=outcome.probabilities * 0.999 + 0.001 / 3), model

    monkeypatch.setattr(encoder, "train_model", otherwise)
    made = train_model(compared.file, compared.folder.path, to=tmp_path / "model")
    assert made.facts["comparison"]["same_training"] is None
    assert "one of the trainings that the experiment compared" not in card_of(made.folder)[1]
    assert "one of the trainings that the experiment compared, the one under seed 1" in card_of(compared.model)[1]


# the learning rate


def test_a_rate_that_is_asked_for_wins_and_an_untried_list_is_refused(tmp_path: Path, tiny: str, say: Any) -> None:
    file = write_experiment(tmp_path, finetune=finetune(tiny) + "\nlearning_rates = [0.002, 0.003]")
    with pytest.raises(ConfigError, match=r"which of 0\.002, 0\.003 is the best .* not known yet; `consenso run`"):
        train_model(file, tmp_path / "run", to=tmp_path / "model")
    run(file, tmp_path / "run", until="compare")
    chosen = RunFolder(tmp_path / "run").record()["learning_rates"]["encoder"]["chosen"]
    facts = train_model(file, tmp_path / "run", to=tmp_path / "model").facts
    assert facts["recipe"]["learning_rate"] == chosen
    for change, rate in (("recipe.learning_rate=0.0015", 0.0015), ("recipe.learning_rate=0.002", 0.002)):
        done = say("train", file, "--out", tmp_path / "run", "--to", tmp_path / "other", "--set", f"finetune.{change}",
                   "--force", "--json")  # fmt: skip
        assert json.loads(done.out)["recipe"]["learning_rate"] == rate
    other, base = read_experiment(file, ["finetune.learning_rates=[0.0005, 0.0006]"])
    with pytest.raises(ConfigError, match="not known yet"):
        train_model(other, tmp_path / "run", to=tmp_path / "third", base=base)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_out_of_memory_is_one_line(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(encoder, "train_model", fail)
    with pytest.raises(TrainingError, match=r"batch_size is 16, max_length 256.; nothing was written"):
        train_model(*labelled, to=tmp_path / "model")


def test_a_folder_with_other_things_is_never_replaced(compared: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ConfigError, match=r"thesis\.txt"):
            train_model(compared.file, compared.folder.path, to=tmp_path, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_below_a_file_is_refused_before_training(tmp_path: Path, labelled: tuple[Path, Path]) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match="it is a file"):
        train_model(*labelled, to=tmp_path / "notes.txt" / "model")


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoders.load_classifier(tiny, LabelSchema.from_names(NAMES))
    save_classifier(tmp_path / "model", model, tiny, max_length=40, facts={"which": "old"}, card="")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(StorageError, match="was not saved"):
        save_classifier(tmp_path / "model", model, tiny, max_length=40, facts={"which": "new"}, card="", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert json.loads((tmp_path / "model" / "consenso.json").read_text())["which"] == "old"


@pytest.fixture
def say(say: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(cli.cli.commands, "train", commands.train)
    return say


def test_the_command_trains_and_replaces_only_when_told(say: Any, labelled: tuple[Path, Path]) -> None:
    file, folder = labelled
    first = say("train", file, "--out", folder, "--to", "model")
    assert (first.code, first.out.startswith("model:   model (arm consensus")) == (0, True)
    again = say("train", file, "--out", folder, "--to", "model")
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert "--force" in again.err
    third = say("train", file, "--out", folder, "--to", "model", "--force", "--seed", 2, "--json")
    assert (third.code, json.loads(third.out)["seed"]) == (0, 2)


def test_the_command_says_that_it_trains_encoders_only(say: Any, tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    refused = say("train", file, "--to", "model", "--student", "frozen")
    assert (refused.code, "nothing else" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--labels", "goldd"), "unknown arm 'goldd'"),
        (("--labels", "floor"), "trains nothing"),
        (("--to", "votes.csv"), "votes.csv"),
    ],
)
def test_a_wrong_argument_of_train_gives_one_line_where_other_students_are_compared(
    say: Any, tmp_path: Path, given: tuple[str, str], said: str
) -> None:
    refused = say("train", write_experiment(tmp_path), "--to", "model", *given)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert said in refused.err


def test_after_training_the_command_says_that_the_verdict_is_about_other_students(
    say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(folder=tmp_path / "model", address=None, facts={"seed": 1})
    monkeypatch.setattr("consenso.final_model.train_model", lambda *given, **options: made)
    done = say("train", write_experiment(tmp_path), "--to", "model", "--json")
    assert (done.code, json.loads(done.out)["seed"]) == (0, 1)
    assert done.err.splitlines() == [
        "the experiment compares linear; train made a fine-tuned encoder, about which its verdict says nothing"
    ]


# pushing


class Hub:
    """What `HfApi` was asked to do."""

    def __init__(self, *, private: bool = True) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._private = private

    def create_repo(self, **given: Any) -> Any:
        self.asked.append(("create_repo", given))
        return SimpleNamespace(repo_id=given["repo_id"])

    def repo_info(self, repo_id: str) -> Any:
        return SimpleNamespace(private=self._private)

    def upload_folder(self, **given: Any) -> None:
        self.asked.append(("upload_folder", given))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    found = Hub()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


def test_a_push_makes_the_repository_and_uploads_the_folder(compared: SimpleNamespace, hub: Hub) -> None:
    push_model(compared.model, "me/my-model", private=True)
    (first, made), (second, sent) = hub.asked
    assert (first, made["repo_id"], made["private"], made["exist_ok"]) == ("create_repo", "me/my-model", True, True)
    assert (second, sent["repo_id"], sent["folder_path"]) == ("upload_folder", "me/my-model", compared.model)


def test_a_private_push_never_goes_to_a_public_repository(compared: SimpleNamespace, hub: Hub) -> None:
    hub._private = False
    with pytest.raises(ModelError, match="public, so nothing was uploaded"):
        push_model(compared.model, "me/my-model", private=True)
    assert [name for name, _ in hub.asked] == ["create_repo"]


def test_a_failed_upload_is_one_line_and_keeps_the_folder(
    compared: SimpleNamespace, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**given: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "upload_folder", fail)
    with pytest.raises(ModelError, match="no route to host; the folder is whole"):
        push_model(compared.model, "me/my-model")


def test_a_missing_token_or_an_impossible_name_stops_before_training(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(encoder, "train_model", lambda *given: pytest.fail("trained"))
    for name, said in (("me/model", "hf auth login"), ("a/b/c", "USER/NAME")):
        with pytest.raises(ConfigError, match=said):
            train_model(*labelled, to=tmp_path / "model", push_to_hub=name)


def test_nothing_is_pushed_unless_asked(labelled: tuple[Path, Path], tmp_path: Path, hub: Hub) -> None:
    made = train_model(*labelled, to=tmp_path / "model")
    assert (made.address, hub.asked) == (None, [])


@pytest.mark.parametrize("force", [False, True])
def test_a_run_folder_is_no_model_to_replace(tmp_path: Path, force: bool) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no consenso\.json, so no model of consenso train") as caught:
        saving.check_target(tmp_path, force=force)
    assert str(caught.value).endswith("name another folder")


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    aside = tmp_path / ".model.replaced"
    aside.mkdir()
    for name in ("consenso.json", "notes.txt"):
        (aside / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds a model .*--force"):
        saving.check_target(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["consenso.json", "notes.txt"]
    assert not aside.exists()


def test_a_model_that_is_replaced_leaves_the_users_files(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for place, content in ((old, "1"), (new, "2")):
        place.mkdir()
        (place / "model.safetensors").write_text(content, encoding="utf-8")
    (old / ".git").mkdir()
    (old / "onnx").mkdir()
    (old / "onnx" / "model.onnx").write_text("1", encoding="utf-8")
    (old / "mine").mkdir()
    (old / "mine" / "README.md").write_text("mine", encoding="utf-8")
    (old / "my_notes.txt").write_text("mine", encoding="utf-8")
    saving._replace(old, new, tmp_path / "away")
    assert sorted(path.name for path in old.iterdir()) == [".git", "mine", "model.safetensors", "my_notes.txt"]
    assert (old / "mine" / "README.md").is_file()
    assert (old / "model.safetensors").read_text(encoding="utf-8") == "2"
