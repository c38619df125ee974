"""Token ids → logits, with torch: one forward pass per batch, on each device or CPU thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.predict.classifier import Classifier

if TYPE_CHECKING:
    import numpy as np

Forward = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]
"""(token ids, attention mask), int64 of shape (texts, length) → logits, float32 of shape (texts, labels)."""


def torch_forwards(classifier: Classifier, device: str, threads: int, precision: str) -> list[Forward]:
    """Return what may run at the same time: one pass per GPU, or `threads` that share the weights on a CPU."""
    if device == "cuda":
        count = encoders.import_torch().cuda.device_count()
        return [_torch_forward(_copy(classifier.model, f"cuda:{i}"), f"cuda:{i}", precision) for i in range(count)]
    forward = _torch_forward(classifier.model.to(device), device, precision)
    return [forward] * (threads if device == "cpu" else 1)


def _copy(model: Any, device: str) -> Any:
    import copy

    return copy.deepcopy(model).to(device)


def _torch_forward(model: Any, device: str, precision: str) -> Forward:
    torch = encoders.import_torch()
    kind = device.split(":", maxsplit=1)[0]

    def forward(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
            ids, seen = torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
            logits: np.ndarray = model(input_ids=ids, attention_mask=seen).logits.float().cpu().numpy()
        return logits

    return forward
