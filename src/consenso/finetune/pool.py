"""Where trainings happen: in this process or in several, each with one thread, so that the result is the same."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, cast

from consenso import encoders
from consenso.finetune.checkpoint import Checkpoint
from consenso.finetune.pieces import read_piece, write_piece
from consenso.finetune.recipe import Recipe
from consenso.finetune.students import STUDENTS
from consenso.finetune.training import Outcome, Prepared, Training
from consenso.labels import LabelSchema
from consenso.store import RunFolder, write_atomically

logger = logging.getLogger(__name__)

Done = Iterator[tuple[str, Outcome]]

# What a single training may die of without the others being wrong: out of memory (torch raises RuntimeError), numbers
# that no solver accepts. A TypeError or the like is a mistake in consenso and keeps its traceback.
_FAULTS = (RuntimeError, ValueError, MemoryError, ArithmeticError, LookupError)
_DEATHS = 3
_DIED = "the worker process died: out of memory? In a script, call from under `if __name__ == '__main__':`"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every training of a study shares."""

    student: str
    """A key of STUDENTS."""
    recipe: Recipe
    schema: LabelSchema
    folder: RunFolder | None
    checkpoint_minutes: float = 10
    """Time between two savings of a training in progress."""

    def prepare(self, texts: Sequence[str], progress: Callable[[int, int], None]) -> Prepared:
        """Compute what all trainings share; embeddings are read from the run folder where they are."""
        cache = None if self.folder is None else self.folder.path / "cache"
        return STUDENTS[self.student].prepare(texts, self.recipe, cache, progress)

    def train(self, training: Training, prepared: Prepared) -> Outcome:
        """Train, save what comes out and return it; a fault becomes an outcome that is not saved: it is tried again."""
        started, checkpoint = time.monotonic(), self.checkpoint(training)
        try:
            outcome = STUDENTS[self.student].train(training, prepared, self.recipe, self.schema, checkpoint)
        except _FAULTS as error:
            reason, hint = str(error).strip().split("\n")[0], encoders.memory_hint(error)
            told = f"{type(error).__name__}: {reason}"
            return Outcome("failed", f"{hint} ({told})" if hint else told, facts=_times(started, None))
        steps = min(training.steps, outcome.facts["steps"])  # 0 for a student without steps of its own
        samples = steps * self.recipe.batch_size or len(training.rows)
        outcome = dataclasses.replace(outcome, facts={**outcome.facts, **_times(started, samples, checkpoint)})
        if self.folder is not None:
            write_piece(self.folder.piece_path("trainings", training.key), outcome)
        if checkpoint is not None:
            checkpoint.remove()
        return outcome

    def finished(self, training: Training) -> Outcome | None:
        """Return what came out of a training that is on disk, or None."""
        return None if self.folder is None else read_piece(self.folder.piece_path("trainings", training.key))

    def checkpoint(self, training: Training) -> Checkpoint | None:
        """Return where the training saves its state; None without a run folder."""
        if self.folder is None:
            return None
        return Checkpoint(self.folder.path / "pieces" / "unfinished" / f"{training.key}.pt", self.checkpoint_minutes)


def _times(started: float, samples: int | None, checkpoint: Checkpoint | None = None) -> dict[str, Any]:
    """Seconds of the training, those before a kill included as far as they were saved, and samples in each."""
    spent = time.monotonic() - started + (0.0 if checkpoint is None else checkpoint.earlier)
    return {"seconds": spent, "samples_per_s": None if samples is None else samples / max(spent, 1e-9)}


def in_this_process(bench: Bench, prepared: Prepared, trainings: Sequence[Training], workers: int = 1) -> Done:
    """Yield (key, outcome) one after the other; numerical libraries are held to one thread meanwhile."""
    for training in trainings:
        with one_thread():
            outcome = bench.train(training, prepared)
        yield training.key, outcome


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS, OpenMP and torch to one thread inside the block: sums then have one order, runs are bitwise equal."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), contextlib.ExitStack() as stack:
        if "torch" in sys.modules:
            from consenso.encoders import torch_threads

            stack.enter_context(torch_threads(1))
        yield


def in_processes(bench: Bench, prepared: Prepared, trainings: Sequence[Training], workers: int) -> Done:
    """Yield (key, outcome) as worker processes finish.

    A worker that dies (killed for memory) takes its pool along: what it left is tried again, one training per process,
    and one that kills its process again has failed; after three deaths in a row the rest has failed too.
    """
    cache = None if bench.folder is None else bench.folder.path / "cache"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prepared-", dir=cache) as place:
        path = Path(place) / "prepared.npz"
        _save(path, prepared)
        left = {training.key: training for training in trainings}
        with contextlib.suppress(BrokenProcessPool):
            for key, outcome in _pool(bench, path, list(left.values()), workers):
                del left[key]
                yield key, outcome
        if left:
            logger.warning("a worker process died; %d training(s) are tried again one by one", len(left))
        deaths = 0
        for training in left.values():
            if (found := bench.finished(training)) is not None:  # before the pool broke
                yield training.key, found
                continue
            try:
                if deaths < _DEATHS:
                    yield from _pool(bench, path, [training], 1)
                    deaths = 0
                    continue
            except BrokenProcessPool:
                deaths += 1
            yield training.key, Outcome("failed", _DIED)


def _save(path: Path, prepared: Prepared) -> None:
    import numpy as np

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **cast(dict[str, Any], prepared))

    write_atomically(path, write)


def _pool(bench: Bench, path: Path, trainings: list[Training], workers: int) -> Done:
    import multiprocessing

    context, workers = multiprocessing.get_context("spawn"), min(workers, len(trainings))
    places = context.SimpleQueue()
    for place in range(workers):
        places.put(place)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (bench, path, places))
    try:
        futures = {pool.submit(_train_in_worker, training): training.key for training in trainings}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_here: dict[str, Any] = {}


def _start_worker(bench: Bench, path: Path, places: Any) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.pop("WORLD_SIZE", None)  # a launcher's processes train one model together, workers do not
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import numpy as np

    with np.load(path) as found:
        _here["prepared"] = dict(found)
    _here["bench"] = bench
    if STUDENTS[bench.student].USES_ENCODER and not STUDENTS[bench.student].DETERMINISTIC:
        _take_gpu(places.get())


def _take_gpu(place: int) -> None:
    """Each worker has a GPU of its own, as far as there are enough."""
    torch = encoders.import_torch()
    if gpus := torch.cuda.device_count():
        torch.cuda.set_device(place % gpus)


def _end_with_parent() -> None:
    """A worker waits for work forever; when the run is killed, nobody would tell it."""
    import multiprocessing

    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _train_in_worker(training: Training) -> Outcome:
    with one_thread():
        outcome: Outcome = _here["bench"].train(training, _here["prepared"])
    return outcome
