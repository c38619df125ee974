"""A trained classifier as a folder that plain transformers loads: label names, its temperature in the head, its length limit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import ConfigError, StorageError
from consenso.finetune.training import Prepared

if TYPE_CHECKING:
    import numpy as np

FACTS = "consenso.json"
"""The file of a model folder that says what consenso knows of the model."""
CARD = "README.md"
PROBED = 8
"""Texts on which the folding of a temperature is checked."""
_NOT_OURS = (
    "max_length",
    "stride",
    "truncation_strategy",
    "pad_to_multiple_of",
    "is_local",
    "local_files_only",
    "name_or_path",
)
"""What a checkpoint's tokenizer may bring along of how it was once called."""
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "*.onnx", "*.onnx.data", "onnx/*", "tokenizer*", "vocab.*", "merges.txt", "*.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "config.json", "README.md", "consenso.json",
)  # fmt: skip
"""What a saved model consists of, the file that marks it last; anything else in its folder is the user's."""


def check_target(path: Path, *, force: bool = False) -> None:
    """Raise `ConfigError` unless a model may be written to this path: nothing there, an empty folder, or `force`.

    With `force` too only a folder that `save_classifier` wrote (consenso.json) is replaced. A model that a killed process
    had moved aside to replace it is moved back.
    """
    if not path.exists() and (old := _aside(path, "replaced")).is_dir():
        old.rename(path)
    if not path.exists():
        _check_parent(path)
        return
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; name a folder for the model")
    found = sorted(entry.name for entry in path.iterdir())
    if not found:
        return
    holds = f"holds {', '.join(found[:4])}{' …' if len(found) > 4 else ''}"
    if FACTS not in found:
        more = ": --force replaces models of consenso train only" if force else ""
        raise ConfigError(f"{path} {holds} and no {FACTS}, so no model of consenso train{more}; name another folder")
    if not force:
        raise ConfigError(f"{path} holds a model ({holds}); name another folder, or replace it with --force")


def _check_parent(path: Path) -> None:
    """Found out now, not after hours of training."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "it may not be written to" if above.is_dir() else "it is a file"
        raise ConfigError(f"{path} cannot be made in {above}: {why}; name another folder")


def save_classifier(
    to: Path, model: Any, encoder: str, *, max_length: int, facts: Mapping[str, Any], card: str, force: bool = False
) -> None:
    """Write a model folder: config.json, model.safetensors, tokenizer, README.md (`card`), consenso.json (`facts`).

    `model`: a transformers sequence classifier; `encoder`: whose tokenizer it was trained with; `max_length`: tokens
    after which `truncation=True` cuts. The folder is written beside `to` and renamed: a reader sees none of it or all.
    Raises as `check_target`, and `StorageError` when a write fails.
    """
    model.config.problem_type = "single_label_classification"  # pipelines read it: softmax over the labels
    tokenizer = plain_tokenizer(encoder, max_length)

    def write(folder: Path) -> None:
        model.save_pretrained(folder, max_shard_size="1000GB")
        tokenizer.save_pretrained(folder)
        (folder / FACTS).write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
        (folder / CARD).write_text(card, encoding="utf-8", newline="\n")
        for weights in folder.glob("*.safetensors"):  # safetensors lets nobody but the owner read
            shutil.copymode(folder / CARD, weights)

    _write_folder(to, write, force=force)


def plain_tokenizer(encoder: str, max_length: int) -> Any:
    """Return the encoder's tokenizer as the trainings used it: its limit, token ids and mask only, no padding of its own."""
    tokenizer = encoders.load_tokenizer(encoder)
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    for name in _NOT_OURS:
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names = ["input_ids", "attention_mask"]
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_padding()
        backend.no_truncation()
    return tokenizer


def _write_folder(to: Path, write: Callable[[Path], None], *, force: bool) -> None:
    """Write a folder beside its place and rename it; an old one goes only once the new one is whole."""
    import transformers

    to = to.resolve()
    unfinished, old = _aside(to, "unfinished"), _aside(to, "replaced")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _removed(unfinished), encoders.quiet_transformers(transformers):
            unfinished.mkdir()
            write(unfinished)
            for path in unfinished.rglob("*"):
                _to_disk(path)
            check_target(to, force=force)
            _replace(to, unfinished, old)
    except OSError as error:
        raise StorageError(
            f"cannot write {to}: {error.strerror or error}; the model was not saved, make room or name another folder and run again"
        ) from error


def _aside(to: Path, word: str) -> Path:
    """Where a folder stands while it is written, or while another one takes its place."""
    to = to.resolve()
    return to.parent / f".{to.name}.{word}"


def _replace(to: Path, new: Path, old: Path) -> None:
    if not to.exists():
        new.rename(to)
        return
    _keep_others(to, new)
    with _removed(old):
        to.rename(old)
        try:
            new.rename(to)
        except OSError:
            old.rename(to)
            raise


def _keep_others(old: Path, new: Path) -> None:
    """Copy what the user put beside a model into the folder that takes its place."""
    for entry in old.iterdir():
        is_ours = entry.name == "onnx" or any(entry.match(pattern) for pattern in MODEL_FILES)
        if is_ours or (new / entry.name).exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, new / entry.name, follow_symlinks=False)


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Without this folder before and after the block, whatever a killed process left."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _to_disk(path: Path) -> None:
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def fold_temperature(model: Any, temperature: float, prepared: Prepared, texts: np.ndarray) -> bool:
    """Divide the last linear layer by T, so that the logits are z / T; return whether that was exact, else leave the model.

    `prepared`, `texts`: texts of the study (positions) on which it is checked. A head that ends in anything but a
    linear layer per label is left as it is.
    """
    import numpy as np

    torch, probed = encoders.import_torch(), texts[:PROBED]
    layer = last_linear(model)
    if layer is None:
        return False
    before, kept = logits_of(model, prepared, probed), {n: v.clone() for n, v in layer.state_dict().items()}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.div_(temperature)
    size = max(1.0, float(np.abs(before).max()))
    if np.abs(temperature * logits_of(model, prepared, probed) - before).max() <= 1e-4 * size:
        return True
    layer.load_state_dict(kept)
    return False


def last_linear(model: Any) -> Any:
    """Return the model's last linear layer with one output per label, or None where it has none."""
    torch, labels = encoders.import_torch(), model.config.num_labels
    found = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == labels]
    return found[-1] if found else None


def logits_of(model: Any, prepared: Prepared, texts: np.ndarray) -> np.ndarray:
    """Return the logits (n, K), float32, of some texts of a study (positions), as the saved model gives them."""
    import numpy as np

    torch, (pad_id, left), starts = encoders.import_torch(), prepared["padding"], prepared["starts"]
    found = np.zeros((len(texts), model.config.num_labels), dtype="float32")
    lengths = np.diff(starts)[texts].tolist()
    with torch.inference_mode():
        for rows in encoders.length_batches(lengths, encoders.batch_budget(model.device.type)):
            ids = [prepared["tokens"][starts[text] : starts[text + 1]] for text in texts[rows]]
            tokens, mask = (
                torch.from_numpy(part).to(model.device) for part in encoders.pad(ids, int(pad_id), bool(left))
            )
            found[rows] = model(input_ids=tokens, attention_mask=mask).logits.float().cpu().numpy()
    return found
