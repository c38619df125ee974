"""LoRA (Hu et al. 2022, arXiv 2106.09685) by peft: small matrices beside the encoder's own, which stay as they came."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from consenso import encoders
from consenso.errors import MissingExtraError, ModelError

_ATTENTION = {
    "query", "value", "query_proj", "value_proj", "q_lin", "v_lin", "q_proj", "v_proj", "q", "v", "in_proj", "Wqkv", "qkv_proj",
}  # fmt: skip
"""What encoders call the layers that make queries and values (three: with the keys in one)."""


def apply_lora(model: Any, rank: int, alpha: float) -> Any:
    """Return the classifier with adapters of this rank beside its queries and values, scaled by alpha / rank.

    These are the layers that the paper adapts: trained 1.4 times as fast as the whole MiniLM, adapters beside every linear
    layer 1.1 times. An encoder without layers of such names gets them beside every linear layer of its body. Adapters and
    head are trained (what lies outside the body, and the body's pooler), nothing else. The adapters are drawn from torch's
    random state (seed before calling) and change no logit until they are trained. `model` is changed.
    Raises `MissingExtraError` without peft, `ModelError` where the body has no linear layer.
    """
    need_peft()
    import peft

    head = _head(model)
    targets = _targets(model, head)
    if not targets:
        raise ModelError(f"LoRA finds no linear layer in a {type(model).__name__}; set lora_rank = 0")
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS, r=rank, lora_alpha=alpha, target_modules=targets, modules_to_save=head
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers under names that it renames
        return peft.get_peft_model(model, config)


def merge_lora(model: Any) -> Any:
    """Return the plain transformers model: what the adapters learned is added to its weights; other models as they are."""
    if not hasattr(model, "merge_and_unload"):
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return model.merge_and_unload().requires_grad_(True)


def trained_state(model: Any) -> dict[str, Any]:
    """Return a copy of what training changes: the weights with a gradient, and the buffers that are saved with them."""
    kept = {name for name, weight in model.named_parameters() if weight.requires_grad}
    kept |= {name for name, _ in model.named_buffers()}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name in kept}


def load_trained_state(model: Any, state: dict[str, Any]) -> None:
    """Put the weights that `trained_state` returned back into the model."""
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown, f"weights of another model: {unknown[:3]}"


def need_peft() -> None:
    """Raise `MissingExtraError` where peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("LoRA", "lora")


def _head(model: Any) -> list[str]:
    """The modules with weights outside the body, and its pooler, which few checkpoints bring."""
    outside = [name for name, child in model.named_children() if name != model.base_model_prefix]
    found = [name for name in outside if any(True for _ in model.get_submodule(name).parameters())]
    if getattr(model.base_model, "pooler", None) is not None:
        found.append(f"{model.base_model_prefix}.pooler")
    return found


def _targets(model: Any, head: list[str]) -> list[str]:
    torch = encoders.import_torch()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    outside = tuple(f"{part}." for part in head)
    body = [name for name in linear if name not in head and not name.startswith(outside)]
    return [name for name in body if name.rpartition(".")[2] in _ATTENTION] or body
