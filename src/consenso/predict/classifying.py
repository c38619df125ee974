"""Texts → probabilities: distinct texts, sorted by length, in batches of a token budget, several at the same time."""

from __future__ import annotations

import contextlib
import ctypes
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso import encoders
from consenso.errors import ConfigError, ModelError
from consenso.predict.classifier import Classifier, naming_memory
from consenso.predict.forward import Forward, torch_forwards
from consenso.predict.settings import PredictSettings

if TYPE_CHECKING:
    import numpy as np

CPU_BUDGET, GPU_BUDGET = 1024, 65_536
"""Padded tokens per batch: on a CPU, MiniLM was as fast with 768 to 1,536, and 10 % slower with 256 or 4,096."""

CPU_CHUNK, GPU_CHUNK = 2048, 32_768
"""Rows per chunk."""

TRIM_EVERY = 4
"""Batches after which memory is given back: so the peak of MiniLM is a tenth lower than without, at 2 % more CPU time."""


@dataclass(frozen=True)
class Batches:
    """The distinct texts of a chunk, ready to be classified."""

    rows: list[int]
    """Of each text the position of its equal among the distinct ones; −1 for a text that is missing or empty."""
    ids: list[list[int]]
    """Token ids of the distinct texts."""
    batches: list[list[int]]
    """Positions of distinct texts that are classified together, the longest first."""
    cut: int
    """Texts that reached the largest length."""


@dataclass(frozen=True)
class Classification:
    """A classifier at work; `classifying` opens and ends it."""

    classifier: Classifier
    device: str
    """cpu, cuda or mps."""
    budget: int
    """Padded tokens per batch."""
    chunk: int
    """Rows per chunk."""
    pool: ThreadPoolExecutor
    free: queue.SimpleQueue[Forward]
    """The forward passes that no thread uses now."""
    notes: tuple[str, ...] = ()

    def prepare(self, texts: Sequence[str | None]) -> Batches:
        """Return the texts as batches; None and blank texts are left out, equal ones are classified once."""
        place: dict[str, int] = {}
        rows = [-1 if text is None or not text.strip() else place.setdefault(text, len(place)) for text in texts]
        ids = self.classifier.tokenize(list(place))
        lengths = [len(tokens) for tokens in ids]
        batches = list(encoders.length_batches(lengths, self.budget))[::-1]
        longest = [row >= 0 and lengths[row] >= self.classifier.max_length for row in rows]
        return Batches(rows, ids, batches, sum(longest))

    def probabilities(self, prepared: Batches, tell: Callable[[float], None] | None = None) -> np.ndarray:
        """Return float64 of shape (distinct texts, labels), in the order of the distinct texts; `tell(share done)` after each batch.

        Raises `ModelError` for logits that are not finite, `ConsensoError` where memory does not suffice.
        """
        import numpy as np
        from scipy.special import softmax

        logits = np.zeros((len(prepared.ids), len(self.classifier.labels)), dtype="float32")
        work = [self.pool.submit(self._logits, [prepared.ids[row] for row in rows]) for rows in prepared.batches]
        try:
            done = 0
            for number, (rows, result) in enumerate(zip(prepared.batches, work)):
                logits[rows] = result.result()
                if number % TRIM_EVERY == 0:
                    give_back_memory()
                done += len(rows)
                if tell is not None:
                    tell(done / len(prepared.ids))
        except BaseException:
            self.pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            give_back_memory()
        if not np.isfinite(logits).all():
            raise ModelError(
                f"model {self.classifier.name!r} gives scores that are not finite; its weights are broken (or try --precision fp32)"
            )
        found: np.ndarray = softmax(logits.astype("float64"), axis=1)
        return found

    def _logits(self, ids: list[list[int]]) -> np.ndarray:
        tokens, mask = self.classifier.pad(ids)
        forward = self.free.get()
        todo = f"lower --batch-tokens (now {self.budget}), then --max-length (now {self.classifier.max_length})"
        try:
            with naming_memory(f"with {len(ids)} text(s) of {len(ids[-1])} tokens; {todo}"):
                return forward(tokens, mask)
        finally:
            self.free.put(forward)


def give_back_memory() -> None:
    """Let the C library return what batches of many sizes have left in pieces; without it memory grows with the rows (glibc)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.contextmanager
def classifying(classifier: Classifier, settings: PredictSettings) -> Iterator[Classification]:
    """Open a classifier on the best device. On a CPU every batch is computed by one thread: the number of threads changes no bit."""
    torch = encoders.import_torch()
    device = "cpu" if settings.onnx else encoders.best_device()
    threads = settings.threads or torch.get_num_threads()
    notes = []
    if settings.onnx and settings.precision == "bf16":
        raise ConfigError("--onnx computes in fp32; leave out --onnx or --precision bf16")
    if settings.precision == "bf16" and not encoders.has_bf16(device):
        notes.append("this processor has no bf16 instructions: bf16 is slower than fp32 here")
    with encoders.torch_threads(1 if device == "cpu" else None):
        with naming_memory(f"moving model {classifier.name!r} to {device}; free some, or take a smaller model"):
            forwards = _forwards(classifier, settings, device, threads)
        free: queue.SimpleQueue[Forward] = queue.SimpleQueue()
        for forward in forwards:
            free.put(forward)
        budget = settings.batch_tokens or (CPU_BUDGET if device == "cpu" else GPU_BUDGET)
        chunk = settings.chunk or (CPU_CHUNK if device == "cpu" else GPU_CHUNK)
        with ThreadPoolExecutor(len(forwards), "classifying") as pool:
            yield Classification(classifier, device, budget, chunk, pool, free, tuple(notes))


def _forwards(classifier: Classifier, settings: PredictSettings, device: str, threads: int) -> list[Forward]:
    if settings.onnx:
        from consenso.predict.onnx_forward import onnx_forwards

        return onnx_forwards(classifier, threads)
    return torch_forwards(classifier, device, threads, settings.precision)
