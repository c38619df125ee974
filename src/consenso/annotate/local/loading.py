"""Loading a model for this process, and errors about it in words of the user's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from consenso.encoders import (
    EMBEDDED,
    import_torch,
    import_transformers,
    load_tokenizer,
    quiet_transformers,
    resolve_encoder,
)
from consenso.errors import ConfigError, ModelError

Dtype = Literal["auto", "fp32", "bf16"]
"""Precision of the weights."""


def load_model(
    name: str, auto_class: str, dtype: Dtype, device: str, check: Callable[[str, Any], object]
) -> tuple[Any, Any]:
    """Return model and tokenizer; `check(name, config)` may refuse before the weights are read."""
    transformers, torch = import_transformers(), import_torch()
    dtypes = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in dtypes:
        raise ConfigError(f"unknown dtype {dtype!r}; choose one of {sorted(dtypes)}")
    with model_errors(name), quiet_transformers(transformers), memory_errors(name, None):
        where = resolve_encoder(name)
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
        check(name, config)
        tokenizer = load_tokenizer(name, generative=True)
        model, found = getattr(transformers, auto_class).from_pretrained(
            where, config=config, dtype=dtypes[dtype], trust_remote_code=False, output_loading_info=True
        )
        if found["missing_keys"]:
            some = ", ".join(sorted(found["missing_keys"])[:3])
            raise ModelError(f"model {name!r}: its weights lack {some}; it was not trained as {type(model).__name__}")
        if device == "cpu" and model.dtype == torch.float16:
            model = model.float()  # exact, and CPUs have no fast float16
        return model.to(device).eval(), tokenizer


@contextlib.contextmanager
def model_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong while a model is loaded into a `ModelError` that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except ModelError as error:  # 'embedded' is no model that votes so
        message = str(error).replace(f", a hub id or {EMBEDDED!r}", " or a hub id")
        raise ModelError(message) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        todo = f"fetch it once with `hf download {name}`, or give a folder"
        if Path(name).expanduser().is_dir():
            todo = f"check that the folder is whole and that transformers {import_transformers().__version__} knows the model"
        raise ModelError(f"model {name!r} cannot be loaded: {first_line(error)}; {todo}") from error


@contextlib.contextmanager
def memory_errors(name: str, batch_tokens: int | None) -> Iterator[None]:
    """Turn torch's errors about memory into a `ModelError` that says what to set; None: while loading."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        signs = ("out of memory", "not enough memory", "allocate memory")  # of CUDA, and of the CPU on two systems
        if not (isinstance(error, MemoryError) or any(sign in text for sign in signs)):
            raise
        todo = "" if batch_tokens is None else f"lower batch_tokens (now {batch_tokens}), "
        raise ModelError(f"model {name!r}: out of memory; {todo}set dtype to bf16 or take a smaller model") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message without its full stop, else the error's type."""
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".: ")


def harmless(tokenizer: Any, text: str) -> str:
    """Return the text with a space inside all that the tokenizer would read as a special token.

    A text is material: `<|im_end|>` in it must not end the turn, `</s>` not begin another sentence.
    """
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and len(str(token)) > 1]
    if not any(token in text for token in special):
        return text
    listed = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    return re.sub(listed, lambda found: f"{found[0][0]} {found[0][1:]}", text)
