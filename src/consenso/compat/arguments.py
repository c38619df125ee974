"""TrainingArguments of transformers, under the names that older notebooks use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consenso.compat.warned import warn
from consenso.errors import ConfigError, MissingExtraError, nearest

_RENAMED = {
    "evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs", "torchdynamo": "torch_compile_backend",
    "per_gpu_train_batch_size": "per_device_train_batch_size", "push_to_hub_token": "hub_token",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size", "push_to_hub_model_id": "hub_model_id",
}  # fmt: skip
_REPLACED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "warmup_ratio": lambda value: {"warmup_steps": float(value)} if value else {},  # below 1: a share of the steps
    "group_by_length": lambda value: {"train_sampling_strategy": "group_by_length"} if value else {},
    "adafactor": lambda value: {"optim": "adafactor"} if value else {},
    "include_inputs_for_metrics": lambda value: {"include_for_metrics": ["inputs"]} if value else {},
}
_GONE = {
    "overwrite_output_dir": "an existing folder is always written into",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always saved as safetensors",
    "use_mps_device": "a device is used where there is one",
}
_NO_LONGER = (
    "dispatch_batches", "fp16_backend", "fp16_opt_level", "half_precision_backend", "include_tokens_per_second",
    "jit_mode_eval", "mp_parameters", "past_index", "push_to_hub_organization", "ray_scope", "sharded_ddp",
    "split_batches", "tpu_metrics_debug", "tpu_num_cores", "use_ipex", "use_legacy_prediction_loop",
)  # fmt: skip


def TrainingArguments(output_dir: str | Path | None = None, **arguments: Any) -> Any:  # noqa: N802 - a familiar name
    """Return transformers' TrainingArguments; names it has renamed or removed are translated, with one note.

    Where both names of one thing are given, the new one counts. An unknown name raises `ConfigError`.
    """
    transformers = transformers_or_extra()
    fields = {each.name for each in dataclasses.fields(transformers.TrainingArguments) if each.init}
    found: dict[str, Any] = {} if output_dir is None else {"output_dir": str(output_dir)}
    notes: list[str] = []
    for name, value in arguments.items():
        replaced = _translated(name, value, fields)
        if replaced is None:
            found[name] = value
            continue
        taken = {new for new in replaced if new != name and arguments.get(new)}
        found |= {new: to for new, to in replaced.items() if new not in taken}
        told = [f"{new}={to!r}{' (given as well: that counts)' * (new in taken)}" for new, to in replaced.items()]
        notes.append(f"{name} → {', '.join(told) or _GONE.get(name, 'nothing')}")
    if notes:
        warn(f"TrainingArguments of transformers {transformers.__version__}: {'; '.join(notes)}")
    return transformers.TrainingArguments(**found)


def _translated(name: str, value: Any, fields: set[str]) -> dict[str, Any] | None:
    """What an old argument is called now; None for one that this transformers knows."""
    if _RENAMED.get(name) in fields:
        return {_RENAMED[name]: value}
    if name == "optim" and value == "adamw_hf":
        return {"optim": "adamw_torch"}
    if name in fields:
        return None
    if name in _REPLACED:
        return _REPLACED[name](value)
    if name in _GONE or name in _NO_LONGER:
        return {}
    hint = nearest(name, sorted(fields | set(_RENAMED) | set(_REPLACED))) or " See the documentation of transformers."
    raise ConfigError(f"TrainingArguments has no argument {name!r}.{hint}")


def transformers_or_extra() -> Any:
    """Return the module transformers; without it raise `MissingExtraError`."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("training an encoder", "finetune") from None
    return transformers
