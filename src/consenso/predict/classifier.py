"""A saved classifier: loaded, and refused where it is none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import ConsensoError, ModelError

if TYPE_CHECKING:
    import numpy as np

UNLIMITED = 100_000
"""A tokenizer that names a longer limit names none."""
USUAL_LIMIT = 512
"""Tokens that are read where a model names no limit."""
_OUTPUTS = ("classifier.weight", "classifier.out_proj.weight", "score.weight", "logits_proj.weight")
"""What the last layer of a head is called: one row per label."""
_TRAIN = "train a classifier with `consenso train`"
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM")


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier with its tokenizer."""

    name: str
    """As it was asked for: a folder or a hub id."""
    labels: tuple[str, ...]
    """In the order of the model's outputs."""
    model: Any
    """In eval mode, float32, on the CPU."""
    tokenizer: Any
    max_length: int
    """Tokens after which a text is cut."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, cut at `max_length`."""
        return encoders.tokenize(self.tokenizer, texts, self.max_length)

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and mask (int64), padded to the longest on the tokenizer's side."""
        return encoders.pad(ids, self.tokenizer.pad_token_id, self.tokenizer.padding_side == "left")


def open_classifier(name: str | Path, max_length: int | None = None) -> Classifier:
    """Load the classifier of a folder or hub id.

    Raises `ModelError` in one line for what is no single-label text classifier: a generative model, an encoder without
    a head, a regression or multi-label head, weights that do not fit the label names, a folder without weights.
    """
    name = str(name)
    if encoders.is_path(name) and not Path(name).expanduser().exists():
        raise ModelError(f"model {name!r}: there is no such folder; give one that `consenso train` wrote, or a hub id")
    where = encoders.resolve_encoder(name)
    if (config := Path(where) / "config.json").is_file():
        _refuse_other_kinds(name, json.loads(config.read_text(encoding="utf-8")))
    tokenizer = encoders.load_tokenizer(name)
    _refuse_token_types(name, tokenizer)
    with naming_memory(f"loading model {name!r}; free some, or take a smaller model"):
        model = _load(name, Path(where))
    labels = _labels(name, model.config.id2label)
    _refuse_labels(name, labels)
    model.config.pad_token_id = tokenizer.pad_token_id
    own = tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else USUAL_LIMIT
    return Classifier(name, labels, model, tokenizer, min(max_length or own, own))


@contextlib.contextmanager
def naming_memory(what: str) -> Iterator[None]:
    """What torch and the system raise when memory runs out, as one `ConsensoError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if encoders.memory_hint(error) is None:
            raise
        raise ConsensoError(f"out of memory {what}") from None


def _load(name: str, folder: Path) -> Any:
    try:
        return encoders.load_trained_classifier(name)
    except ModelError:
        if (folder / "config.json").is_file():
            _refuse_counts(name, folder)
        raise


def _refuse_counts(name: str, folder: Path) -> None:
    """Say so where config.json names more or fewer labels than the weights of the head have."""
    import safetensors

    config, rows = json.loads((folder / "config.json").read_text(encoding="utf-8")), set[int]()
    named = len(config.get("id2label") or range(config.get("num_labels", 2)))
    weights = folder / "model.safetensors"
    with contextlib.suppress(OSError, safetensors.SafetensorError), safetensors.safe_open(weights, "np") as file:
        rows = {file.get_slice(key).get_shape()[0] for key in set(_OUTPUTS).intersection(file.keys())}
    if len(rows) == 1 and rows != {named}:
        raise ModelError(
            f"model {name!r}: config.json names {named} labels, the weights have {rows.pop()}; mend id2label of config.json"
        )


def _labels(name: str, id2label: Mapping[Any, Any]) -> tuple[str, ...]:
    """The labels in the order of the model's outputs."""
    by_number = {str(number): str(label) for number, label in id2label.items()}
    numbers = [str(number) for number in range(len(by_number))]
    if set(by_number) != set(numbers):
        raise ModelError(
            f"model {name!r}: labels must be numbered 0 … {len(numbers) - 1}; found {', '.join(by_number)}; mend id2label of "
            "config.json"
        )
    return tuple(by_number[number] for number in numbers)


def _refuse_other_kinds(name: str, config: dict[str, Any]) -> None:
    kinds = list(config.get("architectures") or [])
    if any(kind.endswith(_GENERATIVE) for kind in kinds):
        raise ModelError(f"model {name!r} generates text ({kinds[0]}); predict needs a classifier: {_TRAIN}")
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        found = ", ".join(kinds) or "no architecture in config.json"
        raise ModelError(f"model {name!r} has no classification head ({found}); {_TRAIN}")
    if config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            f"model {name!r} gives several labels per text (multi-label); predict needs one with one label"
        )
    if config.get("problem_type") == "regression":
        _refuse_regression(name)
    if isinstance(named := config.get("id2label"), dict):
        _labels(name, named)


def _refuse_regression(name: str) -> None:
    raise ModelError(f"model {name!r} has a regression head: one number per text, no labels; {_TRAIN}")


def _refuse_labels(name: str, labels: Sequence[str]) -> None:
    if len(labels) < 2:
        _refuse_regression(name)
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ModelError(
            f"model {name!r}: the label {repeated[0]!r} stands twice in id2label of config.json; rename one"
        )


def _refuse_token_types(name: str, tokenizer: Any) -> None:
    """XLNet and its kin mark their last token by a type; what reads ids and mask alone would be wrong about them."""
    more = {key: ids for key, ids in tokenizer("a text").items() if key not in {"input_ids", "attention_mask"}}
    if wrong := [key for key, ids in more.items() if any(ids)]:
        raise ModelError(f"model {name!r} needs {wrong[0]}, which predict does not pass on; use transformers' pipeline")
