"""Every architecture loads, is cut at its own length and learns; what is no encoder says so in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.errors import ModelError
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder
from consenso.finetune.training import Training
from consenso.labels import LabelSchema
from making import write_experiment

SCHEMA = LabelSchema.from_names(["sport", "money"])
WORDS = {"sport": ["goal", "match", "team", "coach"], "money": ["bank", "tax", "loan", "debt"]}
FILLER = ["the", "a", "said", "today"]
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *FILLER, *(word for words in WORDS.values() for word in words)]
SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 17,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 40,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "Bert": (SIZE, 40),
    "Roberta": ({**SIZE, "type_vocab_size": 1}, 38),
    "XLMRoberta": ({**SIZE, "type_vocab_size": 1}, 38),
    "Camembert": ({**SIZE, "type_vocab_size": 1}, 38),
    "MPNet": (SIZE, 38),
    "Electra": ({**SIZE, "embedding_size": 16}, 40),
    "Albert": ({**SIZE, "embedding_size": 16}, 40),
    "DistilBert": (
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": 17, "pad_token_id": 1,
         "max_position_embeddings": 40}, 40,
    ),
    "DebertaV2": (
        {**SIZE, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
         "position_biased_input": False, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}, 40,
    ),
    "ModernBert": ({**SIZE, "cls_token_id": 0, "sep_token_id": 2, "max_position_embeddings": 8192}, 256),
    "XLNet": ({"vocab_size": 17, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48, "pad_token_id": 1}, 256),
}  # fmt: skip
"""transformers' name → configuration of a tiny one, and the tokens that it can read of a text (asked for: 256)."""
every_kind = pytest.mark.parametrize("kind", list(KINDS))


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    around = {"single": "<s> $A </s>", "special_tokens": [("<s>", 0), ("</s>", 2)]}
    words.post_processor = processors.TemplateProcessing(**around)
    named = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=words, **named)


def save(folder: Path, kind: str, head: str = "", dtype: str = "float32", **changes: Any) -> str:
    """A tiny model with random weights; `head`: the class that ends so, ForSequenceClassification for one."""
    import transformers

    torch = encoders.import_torch()
    config = getattr(transformers, f"{kind}Config")(**{**KINDS.get(kind, (SIZE, 0))[0], **changes})
    with torch.random.fork_rng(), encoders.quiet_transformers(transformers):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}{head or 'Model'}")(config).to(getattr(torch, dtype))
        model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def find(kind: str) -> str:
        if kind not in made:
            made[kind] = save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return find


@pytest.fixture
def bert(tmp_path: Path, folder_of: Callable[[str], str]) -> Path:
    """A copy of the tiny BERT, to be damaged."""
    shutil.copytree(folder_of("Bert"), tmp_path / "bert")
    return tmp_path / "bert"


def load(name: object, seed: int = 1) -> Any:
    torch = encoders.import_torch()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return encoders.load_classifier(str(name), SCHEMA)


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def drawn_anew(one: Any, other: Any) -> set[str]:
    a, b = weights_of(one), weights_of(other)
    return {name for name in a if not np.array_equal(a[name], b[name])}


# architectures


@every_kind
def test_only_the_head_is_drawn_and_the_seed_decides_it(kind: str, folder_of: Callable[[str], str]) -> None:
    first, again, other = load(folder_of(kind)), load(folder_of(kind)), load(folder_of(kind), seed=2)
    assert drawn_anew(first, again) == set()
    inside = f"{first.base_model_prefix}."
    drawn = drawn_anew(first, other)
    assert drawn
    assert not any(name.startswith(inside) for name in drawn)
    assert first.config.id2label == {0: "sport", 1: "money"}
    assert first.config.label2id == {"sport": 0, "money": 1}


@every_kind
def test_a_trained_head_is_drawn_anew(kind: str, tmp_path: Path) -> None:
    import transformers

    trained = save(tmp_path, kind, "ForSequenceClassification", num_labels=2)
    saved = getattr(transformers, f"{kind}ForSequenceClassification").from_pretrained(trained)
    drawn = drawn_anew(saved, load(trained))
    fresh = drawn_anew(load(trained), load(trained, seed=2))
    assert fresh <= drawn
    assert any(name.endswith("weight") and weights_of(saved)[name].shape[0] == 2 for name in drawn)
    assert not any(name.startswith(f"{saved.base_model_prefix}.") for name in drawn)


@every_kind
def test_a_text_is_cut_at_what_the_encoder_reads(kind: str, folder_of: Callable[[str], str]) -> None:
    words = encoders.load_tokenizer(folder_of(kind))
    ids = encoders.tokenize(words, ["goal " * 400, "bank tax"], 256)
    assert [len(each) for each in ids] == [KINDS[kind][1], 4]
    assert encoders.embed(["goal " * 400, "bank tax"], folder_of(kind)).shape == (2, 32)


@every_kind
def test_padding_changes_no_logit(kind: str, folder_of: Callable[[str], str]) -> None:
    torch = encoders.import_torch()
    words, model = encoders.load_tokenizer(folder_of(kind)), load(folder_of(kind)).eval()
    ids = encoders.tokenize(words, ["bank tax", "the goal of a team said"], 256)

    def logits(of: list[list[int]]) -> Any:
        tokens, mask = encoders.pad(of, words.pad_token_id, words.padding_side == "left")
        return model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).logits

    with torch.no_grad():
        assert torch.allclose(logits(ids)[0], logits(ids[:1])[0], atol=1e-6)
    assert words.padding_side == ("left" if kind == "XLNet" else "right")


def separable(n: int = 48) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 2
    names = list(WORDS)
    texts = [" ".join([*rng.choice(WORDS[names[c]], 3), *rng.choice(FILLER, rng.integers(1, 5))]) for c in codes]
    return texts, codes


@every_kind
def test_a_short_training_learns(kind: str, folder_of: Callable[[str], str]) -> None:
    texts, codes = separable()
    recipe = Recipe(encoder=folder_of(kind), learning_rate=3e-3, evaluations=4)
    rows = np.arange(len(texts))
    train, dev, test = rows[:24], rows[24:36], rows[24:]
    work = Training("k", 1, train, codes[train], dev, codes[dev], test, steps=30)
    with encoders.torch_threads(1):
        found = encoder.train(work, encoder.prepare(texts, recipe), recipe, SCHEMA)
    assert found.status == "ok"
    assert found.predicted is not None
    assert (found.predicted == codes[test]).mean() > 0.9


def test_positions_that_count_from_the_padding_token_leave_room_for_it(tmp_path: Path) -> None:
    far = save(tmp_path, "Roberta", pad_token_id=9)
    words = encoders.load_tokenizer(far)
    assert words.model_max_length == 40 - 10
    assert encoders.embed(["goal " * 100], far).shape == (1, 32)


def test_a_tokenizer_that_pads_left_is_turned_for_an_encoder(bert: Path) -> None:
    settings = json.loads((bert / "tokenizer_config.json").read_text())
    (bert / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    assert encoders.load_tokenizer(str(bert)).padding_side == "right"
    assert encoders.load_tokenizer(str(bert), generative=True).padding_side == "left"


def test_modernbert_keeps_the_layer_that_was_trained_to_predict_words(tmp_path: Path) -> None:
    pretrained = save(tmp_path, "ModernBert", "ForMaskedLM")
    assert drawn_anew(load(pretrained), load(pretrained, seed=2)) == {"classifier.weight"}
    assert np.std(weights_of(load(pretrained))["classifier.weight"]) > 0.1, "1 / sqrt(32), as transformers draws it"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_trained_in_float32(dtype: str, tmp_path: Path) -> None:
    half = save(tmp_path, "Bert", dtype=dtype)
    assert {str(value.dtype) for value in load(half).parameters()} == {"torch.float32"}
    assert encoders.embed(["goal"], half).dtype == "float32"


def test_tied_weights_are_no_missing_ones(tmp_path: Path) -> None:
    tied = save(tmp_path, "Bert", "ForPreTraining", tie_word_embeddings=True)
    assert encoders.embed(["goal"], tied).shape == (1, 32)
    assert load(tied).config.num_labels == 2


def test_a_multi_label_checkpoint_becomes_a_classifier_of_one_label(tmp_path: Path) -> None:
    several = save(tmp_path, "Bert", "ForSequenceClassification", problem_type="multi_label_classification")
    assert load(several).config.problem_type == "single_label_classification"


# what is no encoder


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "GPT2"])
@pytest.mark.parametrize("use", ["tokens", "classifier", "embeddings"])
def test_a_generative_model_is_refused(kind: str, use: str, tmp_path: Path) -> None:
    small = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 17} if kind == "GPT2" else SIZE
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    name = save(tmp_path, kind, head, **small)
    uses = {
        "tokens": encoders.load_tokenizer,
        "classifier": load,
        "embeddings": lambda name: encoders.embed(["goal"], name),
    }
    with pytest.raises(ModelError, match=rf"is a generative model \({kind}{head}\); give an encoder such as") as found:
        uses[use](name)
    assert "\n" not in str(found.value)


def test_a_decoder_is_refused_even_with_a_classification_head(tmp_path: Path) -> None:
    name = save(tmp_path, "Llama", "ForSequenceClassification", **SIZE)
    with pytest.raises(ModelError, match=r"is a generative model \(LlamaForSequenceClassification\)"):
        load(name)


def test_an_encoder_turned_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a generative model \(BertLMHeadModel\)"):
        load(save(tmp_path, "Bert", "LMHeadModel", is_decoder=True))


BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 17, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def test_an_encoder_decoder_is_taken_as_a_classifier_only(tmp_path: Path) -> None:
    assert load(save(tmp_path / "classifier", "Bart", "ForSequenceClassification", **BART)).config.num_labels == 2
    with pytest.raises(ModelError, match=r"is a generative model \(BartForConditionalGeneration\)"):
        load(save(tmp_path / "writer", "Bart", "ForConditionalGeneration", **BART))


def test_a_model_of_images_is_refused(bert: Path) -> None:
    (bert / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(ModelError, match="transformers has no text classifier of type vit"):
        load(bert)


def test_code_that_comes_with_a_model_is_not_run(bert: Path) -> None:
    described = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (bert / "config.json").write_text(json.dumps(described))
    (bert / "configuration_own.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match="consenso runs no code that comes with a model") as found:
        load(bert)
    assert "\n" not in str(found.value)


def test_an_unknown_kind_of_model_says_what_to_update(bert: Path) -> None:
    (bert / "config.json").write_text(json.dumps({"model_type": "frobnicate"}))
    with pytest.raises(ModelError, match=r"model type `frobnicate` .*; update transformers, or give an encoder"):
        load(bert)


# damaged folders


@pytest.mark.parametrize("content", ["{not json", "[1, 2]"])
def test_a_configuration_that_is_no_json_object_is_an_error(content: str, bert: Path) -> None:
    (bert / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json (is not JSON|holds no JSON object)"):
        encoders.encoder_fingerprint(str(bert))


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_truncated_weight_file_is_an_error(kept: int, bert: Path) -> None:
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"cannot be loaded: .*; check that the folder is whole"):
        load(bert)


def test_a_pickle_that_would_run_code_is_an_error(bert: Path) -> None:
    import pickle

    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps({"a": os.getcwd}, protocol=2))
    with pytest.raises(ModelError, match="cannot be loaded: Weights only load failed; check"):
        load(bert)


def test_a_missing_part_of_the_weights_is_named(tmp_path: Path, bert: Path) -> None:
    import transformers

    parted = tmp_path / "parted"
    with encoders.quiet_transformers(transformers):
        transformers.BertModel.from_pretrained(bert).save_pretrained(parted, max_shard_size="20KB")
    tokenizer().save_pretrained(parted)
    assert drawn_anew(load(parted), load(bert)) == set(), "whole, it is the same model"
    lost = sorted(parted.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=rf"1 of \d weight files are missing, {lost.name} for one"):
        load(parted)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"hidden_size": 64}])
def test_weights_of_another_shape_are_not_drawn_at_random(change: dict[str, int], bert: Path) -> None:
    described = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**described, **change}))
    with pytest.raises(ModelError, match=r"its files lack \d+ of the \d+ weights"):
        load(bert)
    with pytest.raises(ModelError, match=r"its files lack|cannot be loaded"):
        encoders.embed(["goal"], str(bert))


@pytest.mark.parametrize(("lost", "todo"), [("tokenizer*", "no tokenizer with words"), ("tokenizer.json", "write tok")])
def test_a_folder_without_tokenizer_is_an_error(lost: str, todo: str, bert: Path) -> None:
    for path in bert.glob(lost):
        path.unlink()
    with pytest.raises(ModelError, match=todo) as found:
        encoders.load_tokenizer(str(bert))
    assert "\n" not in str(found.value)


def test_the_tokenizer_of_another_model_is_an_error(tmp_path: Path) -> None:
    name = save(tmp_path, "Bert", vocab_size=2)
    with pytest.raises(ModelError, match=r"sep token is number 2, its weights know 2 tokens"):
        encoders.load_tokenizer(name)


@pytest.mark.parametrize("fault", ["generative", "without weights", "truncated", "no JSON"])
def test_the_command_line_says_it_in_one_line(fault: str, say: Any, tmp_path: Path, bert: Path) -> None:
    if fault == "generative":
        save(bert, "Llama", "ForCausalLM", **SIZE)
    elif fault == "without weights":
        (bert / "model.safetensors").unlink()
    elif fault == "truncated":
        (bert / "model.safetensors").write_bytes(b"")
    else:
        (bert / "config.json").write_text("{")
    student = f"students = ['encoder']\nseeds = 1\narms = ['gold', 'gold-aligned', 'consensus']\nrecipe = {{encoder = '{bert}'}}"
    write_experiment(tmp_path, finetune=student)
    said = say("finetune")
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"consenso: model {str(bert) if fault in CHECKED else repr(str(bert))}")
    assert "Traceback" not in said.err


CHECKED = {"without weights", "no JSON"}
"""Faults that are seen before transformers is asked."""


# a saved classifier


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    names = {0: "sport", 1: "money"}
    label2id = {label: code for code, label in names.items()}
    return save(tmp_path / "trained", "Bert", "ForSequenceClassification", id2label=names, label2id=label2id)


def test_a_trained_head_is_loaded_as_it_is(classifier: str) -> None:
    import transformers

    saved = transformers.BertForSequenceClassification.from_pretrained(classifier)
    found = encoders.load_trained_classifier(classifier, SCHEMA)
    assert drawn_anew(saved, found) == set()
    assert not found.training


@pytest.mark.parametrize("names", [["money", "sport"], ["sport", "money", "health"], ["Sport", "money"]])
def test_labels_that_are_not_those_of_the_head_are_an_error(names: list[str], classifier: str) -> None:
    wanted = rf"head has the labels sport, money, the schema {', '.join(names)};"
    with pytest.raises(ModelError, match=wanted):
        encoders.load_trained_classifier(classifier, LabelSchema.from_names(names))


def test_a_model_without_trained_head_is_no_classifier(bert: Path) -> None:
    with pytest.raises(ModelError, match=r"no trained classification head \(it is a BertModel\)"):
        encoders.load_trained_classifier(str(bert))


def test_a_head_that_is_declared_but_not_saved_is_an_error(bert: Path) -> None:
    described = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**described, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(ModelError, match=r"lack 2 of the \d+ weights .* classifier\.bias for one"):
        encoders.load_trained_classifier(str(bert))


# the hub


@pytest.fixture
def cached(folder_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of the hub model org/tiny in a cache of its own, as `hf download` leaves it."""
    from huggingface_hub import constants

    commit = "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a"
    home = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(folder_of("Bert"), home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return home / "snapshots" / commit


def test_a_cached_hub_model_is_loaded_without_asking_the_hub(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert encoders.resolve_encoder("org/tiny") == str(cached)
    assert drawn_anew(load("org/tiny"), load(cached)) == set()
    assert encoders.embed(["goal"], "org/tiny").shape == (1, 32)


def test_the_fingerprint_of_a_hub_model_is_that_of_its_commit(cached: Path) -> None:
    first = encoders.encoder_fingerprint("org/tiny")
    (cached / "README.md").write_text("nothing of weight")
    assert encoders.encoder_fingerprint("org/tiny") == first
    newer = cached.with_name("0" * 40)
    cached.rename(newer)
    (newer.parent.parent / "refs" / "main").write_text(newer.name)
    assert encoders.encoder_fingerprint("org/tiny") != first


def test_a_half_cached_hub_model_is_left_to_the_hub(cached: Path) -> None:
    (cached / "model.safetensors").unlink()
    assert encoders.resolve_encoder("org/tiny") == "org/tiny"


def test_a_missing_hub_model_names_the_command_that_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    todo = r"fetch it once with `hf download org/nowhere`, or give a folder$"
    with pytest.raises(ModelError, match=todo):
        encoders.load_tokenizer("org/nowhere")
    with pytest.raises(ModelError, match=todo):
        encoders.encoder_fingerprint("org/nowhere")


def test_without_network_a_missing_model_is_told_at_once_and_the_folder_that_was_meant_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clf").mkdir()
    (tmp_path / "clf" / "config.json").write_text("{}", encoding="utf-8")
    wanted = r"no such folder, not in Hugging Face's cache, and hub\.invalid cannot be reached; .* Did you mean 'clf'"
    with pytest.raises(ModelError, match=wanted):
        encoders.load_tokenizer("klf")


def test_a_name_that_the_hub_cannot_have_is_an_error() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id such as org/name"):
        encoders.resolve_encoder("my model")


# memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_out_of_memory_says_what_to_lower(error: Exception) -> None:
    assert "lower batch_size or max_length" in str(encoders.memory_hint(error))


def test_torchs_own_memory_errors_are_recognised() -> None:
    torch = encoders.import_torch()
    assert encoders.memory_hint(torch.OutOfMemoryError("HIP allocation failed")) is not None
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**50)
    assert encoders.memory_hint(found.value) is not None


def test_other_errors_are_not_about_memory() -> None:
    assert encoders.memory_hint(RuntimeError("shape '[2, 3]' is invalid for input of size 5")) is None
