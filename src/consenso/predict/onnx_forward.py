"""Token ids → logits, with ONNX Runtime: the model is exported once and held against torch before it is used."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.errors import MissingExtraError, ModelError
from consenso.predict.classifier import Classifier
from consenso.predict.forward import Forward, torch_forwards
from consenso.store import write_atomically

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""How far a logit of the exported model may lie from torch's."""
PROBES = ("a", "a text of some more words than the first one", "and one that is longer still: " + "word " * 40)


def cache_folder() -> Path:
    """Return where exported models are kept: consenso/onnx under XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consenso" / "onnx"


def onnx_forwards(classifier: Classifier, threads: int) -> list[Forward]:
    """Return `threads` passes through one session of ONNX Runtime, on a GPU if the installed runtime has one.

    The export is kept under the model's fingerprint. Raises `MissingExtraError` without onnxruntime and onnxscript,
    `ModelError` where the export fails or its logits differ from torch's by more than `TOLERANCE`.
    """
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"ONNX Runtime ({package})", "onnx")
    torch = encoders.import_torch()
    path = cache_folder() / f"{encoders.encoder_fingerprint(classifier.name)[:32]}-torch{torch.__version__}.onnx"
    if not path.exists():
        logger.info("exporting %s to %s", classifier.name, path)
        write_atomically(path, lambda temporary: _export(classifier, temporary))
    forward = _session(path)
    _hold_against_torch(forward, classifier, path)
    return [forward] * threads


def _export(classifier: Classifier, path: Path) -> None:
    torch = encoders.import_torch()

    class Logits(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = classifier.model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids, mask = (torch.from_numpy(array) for array in _probe(classifier))
    shape = {0: torch.export.Dim("texts"), 1: torch.export.Dim("length", max=classifier.max_length)}
    try:
        with _quiet_export():
            torch.onnx.export(
                Logits().eval(), (ids, mask), path, input_names=["input_ids", "attention_mask"], output_names=["logits"],
                dynamic_shapes={"input_ids": shape, "attention_mask": shape}, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"model {classifier.name!r} cannot be exported to ONNX: {reason}; leave out --onnx") from error


def _probe(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    return classifier.pad(classifier.tokenize(PROBES))


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Without the exporter's notes about names of axes and packages that it would like to have."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        loud.setLevel(level)


def _session(path: Path) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    usable = [
        name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in ort.get_available_providers()
    ]
    session = ort.InferenceSession(str(path), options, providers=usable)

    def forward(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0]
        return logits

    return forward


def _hold_against_torch(forward: Forward, classifier: Classifier, path: Path) -> None:
    import numpy as np

    tokens, mask = _probe(classifier)
    expected = torch_forwards(classifier, "cpu", 1, "fp32")[0](tokens, mask)
    distance = float(np.abs(forward(tokens, mask) - expected).max())
    if not distance <= TOLERANCE:
        raise ModelError(
            f"model {classifier.name!r}: ONNX Runtime's logits differ from torch's by {distance:.2g} (more than {TOLERANCE:g}); "
            f"delete {path} to export it anew, or leave out --onnx"
        )
