"""LoRA (Hu et al. 2022, arXiv 2106.09685) by peft: small matrices beside the encoder's own, which stay as they came."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from consenso import encoders
from consenso.errors import MissingExtraError, ModelError


def apply_lora(model: Any, rank: int, alpha: float) -> Any:
    """Return the classifier with adapters of this rank beside every linear layer of its body, scaled by alpha / rank.

    Adapters and head are trained (what lies outside the body, and the body's pooler), nothing else. The adapters are drawn
    from torch's random state (seed before calling) and change no logit until they are trained. `model` is changed.
    Raises `MissingExtraError` without peft, `ModelError` where the body has no linear layer.
    """
    need_peft()
    import peft

    head = _head(model)
    body = [name for name in _linear_layers(model) if not name.startswith(tuple(f"{part}." for part in head))]
    targets = [name for name in body if name not in head]
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


def _linear_layers(model: Any) -> list[str]:
    torch = encoders.import_torch()
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
