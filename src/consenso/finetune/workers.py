"""How many trainings run at the same time where the user leaves it to us (`workers = "auto"`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from consenso import encoders
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import STUDENTS

WORTH_SECONDS = 30
"""Work on one core below which the start of processes (a few seconds each) is not worth it."""
_OVERHEAD, _COPIES = 1e9, 6
"""Bytes of a process: libraries and activations, and the weights with gradients, Adam's two means and the best state."""


def count_workers(
    wanted: int | Literal["auto"], student: str, recipe: Recipe, *, trainings: int, seconds: float
) -> int:
    """Return how many processes train; 1 means this one.

    `student`: a key of STUDENTS; `seconds`: what the trainings take on one core. `auto`: one per GPU; without a GPU one per core,
    as far as memory allows, for work of more than half a minute. In a script of the user's, which processes would have to import
    again, `auto` is 1: ask for a number from under `if __name__ == "__main__":`.
    """
    if wanted != "auto":
        return wanted
    if not can_start_processes() or seconds < WORTH_SECONDS:
        return 1
    module = STUDENTS[student]
    if module.USES_ENCODER and not module.DETERMINISTIC and (gpus := int(encoders.import_torch().cuda.device_count())):
        return max(1, min(gpus, trainings))
    trains_encoder = module.USES_ENCODER and not module.DETERMINISTIC
    weights = encoders.weight_bytes(recipe.encoder) if trains_encoder else 0
    return max(1, min(_cores(), trainings, _that_fit_in_memory(weights)))


def can_start_processes() -> bool:
    """Whether new processes do not run the user's script again: in a notebook, a shell or the command line."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name.partition(".")[0] in {"consenso", "ipykernel_launcher"}
    return not hasattr(main, "__file__") or Path(str(main.__file__)).stem in {"consenso", "ipython", "jupyter"}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _that_fit_in_memory(weights: int) -> int:
    available = _available_memory()
    return 64 if available is None else int(available / (_OVERHEAD + _COPIES * weights))


def _available_memory() -> int | None:
    """Bytes that processes can still have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return free if free is None else min(free, _container_memory() or free)


def _container_memory() -> int | None:
    """What a container may still take; None outside one, or where it has no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip() for name in (limit, used))
        except OSError:
            continue
        return int(most) - int(now) if most.isdecimal() else None
    return None
