"""transformers' TrainingArguments, for those who have them: the recipe that says the same."""

from __future__ import annotations

from typing import Any

from consenso.errors import ConfigError
from consenso.finetune.recipe import Recipe

_PLAIN = {
    "learning_rate": "learning_rate",
    "num_train_epochs": "epochs",
    "weight_decay": "weight_decay",
    "max_grad_norm": "clip",
    "label_smoothing_factor": "label_smoothing",
    "torch_compile": "compile",
}
_SAME_ONLY = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}


def recipe_from_arguments(arguments: Any, encoder: str = "embedded", **changes: Any) -> Recipe:
    """Return the Recipe of transformers' `TrainingArguments`; `changes` are further fields of the recipe.

    Read are learning_rate, num_train_epochs, per_device_train_batch_size × gradient_accumulation_steps, warmup_steps (a share
    below 1), weight_decay, max_grad_norm, label_smoothing_factor, torch_compile, bf16 and train_sampling_strategy; what says where and how
    often to save or log has no meaning here. Raises `ConfigError` for what a recipe cannot say: another optimiser, another schedule,
    max_steps, a warm-up in steps, fp16, other Adam constants.
    """
    refused = [
        f"{name} = {getattr(arguments, name)}"
        for name, value in _SAME_ONLY.items()
        if getattr(arguments, name) != value
    ]
    if (optimiser := str(getattr(arguments.optim, "value", arguments.optim))) not in {
        "adamw_torch",
        "adamw_torch_fused",
    }:
        refused.append(f"optim = {optimiser}")
    if (schedule := getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)) != "linear":
        refused.append(f"lr_scheduler_type = {schedule}")
    refused += [f"{name} = {getattr(arguments, name)}" for name in ("fp16",) if getattr(arguments, name)]
    refused += ["max_grad_norm = 0"] if not arguments.max_grad_norm else []
    refused += [f"max_steps = {arguments.max_steps}"] if arguments.max_steps > 0 else []
    warmup = float(arguments.warmup_steps or 0)
    refused += [f"warmup_steps = {warmup:g} (give a share below 1)"] if warmup >= 1 else []
    if refused:
        raise ConfigError(f"TrainingArguments: a recipe has no {', no '.join(refused)}; leave it out, or make a Recipe")
    found = {ours: getattr(arguments, theirs) for theirs, ours in _PLAIN.items()}
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    batching = "sorted" if arguments.train_sampling_strategy == "group_by_length" else "random"
    said = {**found, "batch_size": batch, "warmup": warmup, "batching": batching}
    return Recipe(**{**said, "precision": "bf16" if arguments.bf16 else "fp32", "encoder": encoder, **changes})
