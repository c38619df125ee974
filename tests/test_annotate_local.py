"""Models in this process: label probabilities from causal language models and NLI models, both tiny and random."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consenso.annotate.local import CausalModel, NliModel, causal
from consenso.errors import ConfigError, ConsensoError, DataError, ModelError
from making_models import (
    CHAT,
    HEADS,
    LABELS,
    NLI_LABELS,
    TEXTS,
    causal_saver,
    chats,
    nli_folder,
    save_random,
    tokenizer_of,
    train_words,
)

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
DROPS_SYSTEM = "{% for m in messages if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% endfor %}"
SPACED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}|final{% endif %}:{{ m.content }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
ALWAYS_THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:<think>\n{% endif %}"
)
SHARED = ["Llama", "Qwen3", "GPT2"]
ALONE = ["Bloom", "Mpt", "Mamba"]


@pytest.fixture(scope="module")
def words() -> Any:
    return train_words()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, words: Any) -> Callable[..., str]:
    return causal_saver(tmp_path_factory.mktemp, words)


def by_hand(model: CausalModel, prefix: str, endings: list[str]) -> np.ndarray:
    """Softmax over log P(ending | prefix), one unpadded sequence each, through the plain forward pass."""
    import torch

    def ids(text: str) -> list[int]:
        return list(model._script.tokenizer(text, add_special_tokens=False)["input_ids"])

    scores = []
    for ending in endings:
        head, both = ids(prefix), ids(prefix + ending)
        assert both[: len(head)] == head
        with torch.no_grad():
            logits = model._model(input_ids=torch.tensor([both])).logits[0].double().log_softmax(-1)
        scores.append(sum(float(logits[at - 1, both[at]]) for at in range(len(head), len(both))))
    shares: np.ndarray = np.exp(np.array(scores) - max(scores))
    shares /= shares.sum()
    return shares


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("template", [None, CHAT])
def test_a_shared_prefix_gives_what_each_label_gives_alone(saved: Any, kind: str, template: str | None) -> None:
    model = CausalModel(saved(kind, template))
    together = model.probabilities(chats(), LABELS)
    assert model.shared_prefix is True
    model.shared_prefix = False
    alone = model.probabilities(chats(), LABELS)
    assert together == pytest.approx(alone, abs=1e-4)
    assert together.sum(axis=1) == pytest.approx(1)
    assert together.dtype == np.float64
    assert together.std(axis=0).max() > 0.01  # else the comparison would mean nothing


@pytest.mark.parametrize("kind", SHARED)
def test_scores_are_those_of_the_plain_forward_pass(saved: Any, kind: str) -> None:
    plain = CausalModel(saved(kind))
    shares = plain.probabilities(chats()[1:2], LABELS)[0]
    text = f"<s>Say good or bad.\n\n{TEXTS[1]}\nAnswer:"
    assert shares == pytest.approx(by_hand(plain, text, [f" {label}\n" for label in LABELS]), abs=1e-5)
    chatty = CausalModel(saved(kind, CHAT))
    shares = chatty.probabilities(chats()[1:2], LABELS)[0]
    text = (
        f"<s><|im_start|>system\nSay good or bad.<|im_end|>\n<|im_start|>user\n{TEXTS[1]}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert shares == pytest.approx(by_hand(chatty, text, [f"{label}<|im_end|>" for label in LABELS]), abs=1e-5)


@pytest.mark.parametrize("kind", ALONE)
def test_other_architectures_fall_back_and_are_right(saved: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = CausalModel(saved(kind))
    if kind == "Mpt":  # whose `max_seq_len` has no general name
        assert model.context == 256
    shares = model.probabilities(TEXTS, LABELS)
    assert model.shared_prefix is False
    warned = [record.message for record in caplog.records if record.name.startswith("consenso")]
    assert len(warned) == 1
    assert "scored by itself" in warned[0]
    for text, row in zip(TEXTS, shares, strict=True):
        assert row == pytest.approx(by_hand(model, f"<s>{text}", [f" {label}\n" for label in LABELS]), abs=1e-5)


def test_a_text_beyond_the_sliding_window_is_scored_singly(saved: Any) -> None:
    model = CausalModel(saved("Mistral"))
    prompts = ["a goal", TEXTS[1]]
    shares = model.probabilities(prompts, ["bad", "good"])
    assert model.shared_prefix is True
    assert model.fits(TEXTS[1]) > 16
    for prompt, row in zip(prompts, shares, strict=True):
        assert row == pytest.approx(by_hand(model, f"<s>{prompt}", [" bad\n", " good\n"]), abs=1e-5)


@pytest.mark.parametrize("kind", ["Llama", "Bloom"])
def test_batches_and_order_do_not_matter(saved: Any, kind: str) -> None:
    model, small = CausalModel(saved(kind)), CausalModel(saved(kind), batch_tokens=16, threads=1)
    once = model.probabilities(TEXTS, LABELS)
    backwards = model.probabilities(TEXTS[::-1], LABELS)[::-1]
    assert np.array_equal(once, backwards)
    alone = np.concatenate([model.probabilities([text], LABELS) for text in TEXTS])
    assert once == pytest.approx(alone, abs=1e-5)
    assert once == pytest.approx(small.probabilities(TEXTS, LABELS), abs=1e-5)
    assert once[:, ::-1] == pytest.approx(model.probabilities(TEXTS, LABELS[::-1]), abs=1e-5)
    assert once[[0, 1, 0]] == pytest.approx(model.probabilities([TEXTS[0], TEXTS[1], TEXTS[0]], LABELS), abs=1e-5)


def test_a_large_vocabulary_makes_smaller_batches(saved: Any) -> None:
    model = CausalModel(saved("Llama"))
    once = model.probabilities(TEXTS, LABELS)
    model._largest = 1
    assert model.probabilities(TEXTS, LABELS) == pytest.approx(once, abs=1e-5)


def test_a_label_that_begins_another_is_comparable(saved: Any) -> None:
    # "very" is a claim that the answer stops there; without terminators it could never lose against "very good".
    model = CausalModel(saved("Llama"))
    short, long = model._script.endings(["very", "very good"], model._script.write("goal")[1])
    assert long[: len(short) - 1] == short[:-1]
    assert long[: len(short)] != short
    assert long[-1] == short[-1]
    shares = model.probabilities(["goal"], ["very", "very good"])[0]
    assert shares == pytest.approx(by_hand(model, "<s>goal", [" very\n", " very good\n"]), abs=1e-5)


def test_five_hundred_labels_are_scored_in_groups(saved: Any) -> None:
    labels = [f"label {number}" for number in range(500)]
    model = CausalModel(saved("Llama"))
    assert len(model._groups(model._script.endings(labels, model._script.write("a")[1]))) > 10
    shares = model.probabilities(["a goal"], labels)
    assert shares.sum() == pytest.approx(1)
    some = [0, 250, 499]
    of_some = model.probabilities(["a goal"], [labels[column] for column in some])[0]
    assert shares[0, some] / shares[0, some].sum() == pytest.approx(of_some, abs=1e-5)


def test_prompts_that_do_not_fit_are_nan_and_counted(saved: Any) -> None:
    model = CausalModel(saved("Llama"))
    long = "goal " * 300
    assert model.context == 256
    assert model.fits(long) > model.context > model.fits("goal")
    seen: list[tuple[int, int]] = []
    shares = model.probabilities([long, "goal", long], LABELS, progress=lambda done, total: seen.append((done, total)))
    assert np.isnan(shares[[0, 2]]).all()
    assert shares[1].sum() == pytest.approx(1)
    assert model.too_long == 2
    assert seen[-1] == (2, 2)
    model.probabilities(["goal"], LABELS)
    assert model.too_long == 0


def test_the_longest_label_decides_what_fits(saved: Any) -> None:
    model = CausalModel(saved("Llama"))
    model.context = model.fits("goal") + 3
    assert model.probabilities(["goal"], ["bad", "good"]).sum() == pytest.approx(1)
    assert np.isnan(model.probabilities(["goal"], ["bad", "not very good at all"])).all()


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_message_is_never_lost(saved: Any, template: str) -> None:
    text, _ = CausalModel(saved("Llama", template))._script.write(chats()[0])
    assert "Say good or bad.\n\nThe match ended" in text


def test_the_template_tells_space_and_end_of_an_answer(saved: Any) -> None:
    script = CausalModel(saved("Llama", SPACED))._script
    text, turn = script.write([{"role": "user", "content": "goal"}])
    assert text == "<s>[INST] goal [/INST]"
    assert turn.lead == " "
    assert script.tokenizer.decode(script.endings(["bad"], turn)[0]) == " bad</s>"


def test_a_template_that_always_thinks_is_told_to_stop(saved: Any) -> None:
    script = CausalModel(saved("Llama", ALWAYS_THINKS))._script
    text, turn = script.write(chats()[0])
    assert text.endswith("<|im_start|>assistant:<think>\n\n</think>\n\n")
    assert script.tokenizer.decode(turn.end) == "<|im_end|>"


def test_a_channel_before_the_answer_belongs_to_the_prompt(saved: Any) -> None:
    script = CausalModel(saved("Llama", CHANNELS))._script
    text, turn = script.write([{"role": "user", "content": "goal"}])
    assert text == "<|im_start|>user:goal<|im_end|><|im_start|>assistant|final:"
    assert script.tokenizer.decode(script.endings(["bad"], turn)[0]) == "bad<|im_end|>"


def test_bf16_and_threads_are_choices(saved: Any) -> None:
    whole, half = CausalModel(saved("Llama")), CausalModel(saved("Llama"), dtype="bf16", threads=1)
    assert (whole.dtype, half.dtype) == ("float32", "bfloat16")
    assert half.probabilities(TEXTS, LABELS) == pytest.approx(whole.probabilities(TEXTS, LABELS), abs=0.1)
    assert half.shared_prefix is True


def test_no_prompts_give_no_rows(saved: Any) -> None:
    assert CausalModel(saved("Llama")).probabilities([], LABELS).shape == (0, 5)


# --- NLI


HYPOTHESES = [f"This text is about {label}." for label in LABELS]


@pytest.mark.parametrize("label2id", [NLI_LABELS, {"entailment": 0, "not_entailment": 1}])
def test_nli_equals_the_zero_shot_pipeline(tmp_path: Path, words: Any, label2id: dict[str, int]) -> None:
    from transformers import pipeline

    folder = nli_folder(tmp_path / "nli", words, label2id)
    model = NliModel(folder)
    texts = [*TEXTS, "goal " * 200]
    shares = model.probabilities(texts, HYPOTHESES)
    reference = pipeline("zero-shot-classification", model=folder, device="cpu")
    for text, row in zip(texts, shares, strict=True):
        found = reference(text, LABELS, hypothesis_template="This text is about {}.")
        expected = dict(zip(found["labels"], found["scores"], strict=True))
        assert row == pytest.approx([expected[label] for label in LABELS], abs=1e-5)
    assert model.truncated == 1
    assert shares.std(axis=0).max() > 0.01


def test_nli_batches_and_order_do_not_matter(tmp_path: Path, words: Any) -> None:
    folder = nli_folder(tmp_path, words)
    model, small = NliModel(folder), NliModel(folder, batch_tokens=16, threads=1)
    seen: list[tuple[int, int]] = []
    once = model.probabilities(TEXTS, HYPOTHESES, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert once.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(once, model.probabilities(TEXTS[::-1], HYPOTHESES)[::-1])
    assert once == pytest.approx(small.probabilities(TEXTS, HYPOTHESES), abs=1e-5)
    many = model.probabilities(TEXTS[:1], [f"about {number}" for number in range(500)])
    assert many.shape == (1, 500)
    assert model.probabilities([], HYPOTHESES).shape == (0, 5)


# --- errors, one line each


def refused(make: Callable[[], Any], kind: type[ConsensoError] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_config_or_weights_is_named(saved: Any, tmp_path: Path) -> None:
    assert "a model folder or a hub id" in refused(lambda: CausalModel(str(tmp_path / "nowhere")))
    assert "no config.json" in refused(lambda: CausalModel(str(tmp_path)))
    whole = Path(saved("Llama"))
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    message = refused(lambda: CausalModel(str(tmp_path)))
    assert message.startswith("model ")
    assert "no model.safetensors" in message
    (tmp_path / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:1000])
    for file in whole.glob("*token*"):
        (tmp_path / file.name).write_text(file.read_text())
    assert "check that the folder is whole" in refused(lambda: CausalModel(str(tmp_path)))


def test_an_encoder_is_no_causal_model(tmp_path: Path, words: Any) -> None:
    assert "is an encoder (bert)" in refused(lambda: CausalModel(nli_folder(tmp_path, words)))


def test_a_classifier_has_no_language_model_head(tmp_path: Path, words: Any) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(vocab_size=400, pad_token_id=1, **HEADS)
    folder = save_random(tmp_path, "AutoModelForSequenceClassification", config, tokenizer_of(words, None))
    assert "lack lm_head.weight" in refused(lambda: CausalModel(folder))


def test_a_hub_model_that_is_not_there_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "hf download nobody/nothing" in refused(lambda: CausalModel("nobody/nothing"))
    assert "hf download nobody/nothing" in refused(lambda: NliModel("nobody/nothing"))


def test_a_classifier_without_entailment_is_no_nli_model(tmp_path: Path, words: Any) -> None:
    folder = nli_folder(tmp_path, words, {"spam": 0, "ham": 1})
    assert "found ['ham', 'spam']" in refused(lambda: NliModel(folder))


def test_running_out_of_memory_names_what_to_set(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    model = CausalModel(saved("Llama"))
    monkeypatch.setattr(model, "_logits", fails)
    message = refused(lambda: model.probabilities(TEXTS, LABELS))
    assert "batch_tokens (now 2048)" in message
    assert "bf16" in message


def test_labels_must_be_there_and_differ(saved: Any, tmp_path: Path, words: Any) -> None:
    model, nli = CausalModel(saved("Llama")), NliModel(nli_folder(tmp_path, words))
    refused(lambda: model.probabilities(TEXTS, []), ConfigError)
    refused(lambda: nli.probabilities(TEXTS, []), ConfigError)
    assert "the same tokens" in refused(lambda: model.probabilities(TEXTS, ["good", "bad", "good"]))
    assert "no token for label ''" in refused(
        lambda: CausalModel(saved("Llama", CHAT)).probabilities(chats(), ["", "a"])
    )
    assert "leaves no room" in refused(lambda: nli.probabilities(TEXTS, ["goal " * 80]))


def test_a_prompt_without_tokens_is_refused(saved: Any) -> None:
    model = CausalModel(saved("Llama"))
    model._script.start = []
    refused(lambda: model.probabilities([""], LABELS), DataError)


def test_an_unknown_dtype_is_refused(saved: Any) -> None:
    message = refused(lambda: CausalModel(saved("Llama"), dtype="fp8"), ConfigError)  # type: ignore[arg-type]
    assert "fp8" in message


def test_scores_that_are_no_numbers_are_refused(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CausalModel(saved("Llama"))
    model.probabilities(TEXTS, LABELS)
    monkeypatch.setattr(causal, "_log_probabilities", lambda _logits, looks, _targets: np.full(len(looks), np.nan))
    assert "try fp32" in refused(lambda: model.probabilities(TEXTS, LABELS))


def test_loading_is_quiet(saved: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING):
        CausalModel(saved("GPT2")).probabilities(TEXTS, LABELS)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
