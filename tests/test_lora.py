"""LoRA: what is trained, what is kept, and that the merged model is a plain one with the same answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consenso import encoders
from consenso.errors import MissingExtraError
from consenso.finetune.lora import apply_lora, load_trained_state, merge_lora, trained_state
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import encoder
from consenso.finetune.training import Training
from test_encoder_kinds import KINDS, SCHEMA, load, save, separable, weights_of

pytest.importorskip("peft", reason="needs the lora extra")
WITH_LORA = [kind for kind in KINDS if kind != "Camembert"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("tiny"), "Bert")


def adapted(name: str, seed: int = 1, rank: int = 4) -> Any:
    torch = encoders.import_torch()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return apply_lora(encoders.load_classifier(name, SCHEMA), rank, 8.0)


def logits_of(model: Any) -> Any:
    torch = encoders.import_torch()
    ids = torch.tensor([[0, 9, 10, 5, 2], [0, 13, 14, 6, 2]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def train_a_little(model: Any, steps: int = 3) -> None:
    torch = encoders.import_torch()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser, ids = torch.optim.AdamW(weights, lr=0.01), torch.tensor([[0, 9, 10, 5, 2], [0, 13, 14, 6, 2]])
    for _ in range(steps):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        optimiser.step()
        optimiser.zero_grad()


def test_fresh_adapters_change_no_logit(tiny: str) -> None:
    assert np.array_equal(logits_of(load(tiny)), logits_of(adapted(tiny)))


def test_one_seed_draws_the_same_adapters_and_another_seed_others(tiny: str) -> None:
    one, again, other = (weights_of(adapted(tiny, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    drawn = {name for name in one if not np.array_equal(one[name], other[name])}
    assert any("lora_A" in name for name in drawn)
    assert not any("lora_B" in name for name in drawn), "they begin at 0"


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("Bert", {"query", "value"}),
        ("DebertaV2", {"query_proj", "value_proj"}),
        ("DistilBert", {"q_lin", "v_lin"}),
        ("MPNet", {"q", "v"}),
        ("ModernBert", {"Wqkv"}),
        ("XLNet", {"layer_1", "layer_2"}),  # its attention has no linear layers
    ],
)
def test_adapters_stand_beside_queries_and_values(kind: str, layers: set[str], tmp_path: Path) -> None:
    names = [name for name in weights_of(adapted(save(tmp_path, kind))) if "lora_A" in name]
    assert {name.split(".lora_A")[0].rpartition(".")[2] for name in names} == layers


@pytest.mark.parametrize("kind", WITH_LORA)
def test_adapters_and_head_learn_and_the_body_stays(kind: str, tmp_path: Path) -> None:
    model = adapted(save(tmp_path, kind))
    before = weights_of(model)
    before = {name: value.copy() for name, value in before.items()}
    train_a_little(model)
    changed = {name for name, value in weights_of(model).items() if not np.array_equal(value, before[name])}
    assert any("lora_B" in name for name in changed)
    assert any("modules_to_save" in name for name in changed)
    assert not [name for name in changed if "lora_" not in name and "modules_to_save" not in name]


@pytest.mark.parametrize("kind", WITH_LORA)
def test_the_merged_model_is_a_plain_one_with_the_same_answers(kind: str, tmp_path: Path) -> None:
    import transformers

    model = adapted(save(tmp_path / "start", kind))
    train_a_little(model)
    wanted, merged = logits_of(model), merge_lora(model)
    assert type(merged) is getattr(transformers, f"{kind}ForSequenceClassification")
    assert set(merged.state_dict()) == set(load(str(tmp_path / "start")).state_dict())
    assert np.allclose(logits_of(merged), wanted, atol=1e-5)
    with encoders.quiet_transformers(transformers):
        merged.save_pretrained(tmp_path / "merged")
    saved = encoders.load_trained_classifier(_with_words(tmp_path), SCHEMA)
    assert np.array_equal(logits_of(saved), logits_of(merged))


def _with_words(folder: Path) -> str:
    encoders.load_tokenizer(str(folder / "start")).save_pretrained(folder / "merged")
    return str(folder / "merged")


def test_the_trained_state_is_small_and_brings_the_answers_back(tiny: str) -> None:
    model = adapted(tiny)
    train_a_little(model)
    wanted, state = logits_of(model), trained_state(model)
    assert sum(value.numel() for value in state.values()) < 0.5 * sum(w.numel() for w in model.parameters())
    train_a_little(model.train())
    assert not np.array_equal(logits_of(model), wanted)
    load_trained_state(model, state)
    assert np.array_equal(logits_of(model), wanted)


def test_without_lora_the_trained_state_is_the_whole_model(tiny: str) -> None:
    model = load(tiny)
    assert set(trained_state(model)) == set(model.state_dict())
    assert merge_lora(model) is model


def test_a_larger_rank_trains_more_weights(tiny: str) -> None:
    sizes = [sum(value.numel() for value in trained_state(adapted(tiny, rank=rank)).values()) for rank in (2, 4, 8)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


def work(codes: np.ndarray, **changes: Any) -> Training:
    rows = np.arange(48)
    given = {"key": "k", "seed": 1, "rows": rows[:24], "codes": codes[:24], "dev_rows": rows[24:36]}
    return Training(**{**given, "dev_codes": codes[24:36], "asked": rows[24:], "steps": 40, **changes})


def test_the_encoder_learns_with_lora_and_its_plain_model_gives_the_stored_predictions(tiny: str) -> None:
    texts, codes = separable()
    recipe = Recipe(encoder=tiny, learning_rate=1e-2, evaluations=4, lora_rank=4)
    prepared = encoder.prepare(texts, recipe)
    with encoders.torch_threads(1):
        found, model = encoder.train_model(work(codes), prepared, recipe, SCHEMA)
        again = encoder.train(work(codes), prepared, recipe, SCHEMA)
    assert (found.predicted == codes[24:]).mean() > 0.9
    assert np.array_equal(found.probabilities, again.probabilities)
    assert type(model).__name__ == "BertForSequenceClassification"
    words = encoders.load_tokenizer(tiny)
    tokens, mask = encoders.pad(encoders.tokenize(words, texts[24:], 256), words.pad_token_id)
    torch = encoders.import_torch()
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask)).logits
    assert np.allclose(logits.softmax(1).numpy(), found.probabilities, atol=1e-5)


def test_lora_begins_with_the_head_that_full_training_has(tiny: str) -> None:
    plain, adapters = weights_of(load(tiny)), weights_of(adapted(tiny))
    head = next(value for name, value in adapters.items() if name.endswith("classifier.modules_to_save.default.weight"))
    assert np.array_equal(head, plain["classifier.weight"])


def test_a_missing_peft_names_the_extra_before_anything_is_trained(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    with pytest.raises(MissingExtraError, match=r'pip install "consenso\[lora\]"'):
        encoder.prepare(["goal"], Recipe(encoder=tiny, lora_rank=4))
