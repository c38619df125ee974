"""predict: texts in, labels and probabilities out; a file is read, classified and saved chunk by chunk."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from consenso.errors import ConfigError, DataError
from consenso.files import find_path, fingerprint_source
from consenso.predict.chosen import Chosen, choose_columns
from consenso.predict.classifier import open_classifier
from consenso.predict.classifying import Batches, Classification, classifying
from consenso.predict.formats import Layout, output_suffix
from consenso.predict.parts import Parts
from consenso.predict.results import count_rows, layout_of, result_rows
from consenso.predict.settings import PredictSettings
from consenso.predict.sources import Rows, Source, first_rows, open_source, scan
from consenso.store import digest

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""progress(done, total), in rows."""
T = TypeVar("T")


@dataclass(frozen=True)
class Predicted:
    """What a prediction came to."""

    path: Path
    rows: int
    empty: int
    """Rows without a text, hence without a label."""
    cut: int
    """Texts that reached the largest length; what stood behind it was not read."""
    max_length: int
    resumed: int
    """Rows that an earlier, interrupted run had finished."""
    labels: dict[str, int]
    """Label → rows, in the order of the model's labels."""
    seconds: float
    notes: tuple[str, ...]


def predict_texts(
    texts: Sequence[str | None], model: str | Path, *, progress: Progress | None = None, **settings: Any
) -> pd.DataFrame:
    """Return a frame in the order of the texts: predicted, confidence, status, and p_<label> for each label.

    `status` is ok, or empty for a text that is missing or blank: it has no label. A Series keeps its index. `settings`:
    fields of `PredictSettings` (precision, onnx, threads, …). Raises `ModelError` for what is no classifier.
    """
    import pandas as pd

    read = PredictSettings.read(settings, "predict_texts")
    values, index = _values(texts), texts.index if isinstance(texts, pd.Series) else None
    values = values[: read.limit]
    parts, done = [], 0
    with classifying(open_classifier(model, read.max_length), read) as classification:
        layout = layout_of(classification.classifier.labels, None, {}, read)
        for start in range(0, len(values), classification.chunk):
            chunk = values[start : start + classification.chunk]
            prepared = classification.prepare(chunk)
            found = classification.probabilities(prepared, _within(progress, done, len(chunk), len(values)))
            parts.append(result_rows({}, prepared, found, classification.classifier.labels, layout, start=start))
            done += len(chunk)
            if progress is not None:
                progress(done, len(values))
    columns = [name for name in layout.types if name != "text_id"]
    rows = {name: [value for part in parts for value in part[name]] for name in columns}
    return pd.DataFrame(rows, index=None if index is None else index[: len(values)], columns=columns)


def _values(texts: Sequence[Any]) -> list[str | None]:
    import pandas as pd

    if isinstance(texts, str):
        raise DataError("texts: found one str; give a list of texts")
    return [
        None if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)) else str(value) for value in texts
    ]


def predict_file(
    data: str | Path,
    model: str | Path,
    to: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Predicted:
    """Write one row per row of `data`, in its order: text_id, predicted, confidence, status, p_<label>, kept columns.

    `settings`: fields of `PredictSettings`. `force` replaces a file that stands at `to`. Finished chunks lie in
    .<to>.parts until the end: after a kill the same call goes on and gives the same file. Raises `DataError`,
    `ModelError` or `ConfigError` in one line for what cannot be used, `BusyError` where another process writes the same
    file, `StorageError` where the disk is full.
    """
    read, parts, started = PredictSettings.read(settings, "predict"), Parts(Path(to).expanduser()), time.monotonic()
    parts.check_place(force)
    source = open_source(_found(data, parts.out))
    chosen = choose_columns(source, read)
    total = scan(source, chosen.text, read.limit)
    with classifying(open_classifier(model, read.max_length), read) as classification, parts.locked():
        layout = layout_of(classification.classifier.labels, chosen, source.types, read)
        work = _Work(source, chosen, read, total, classification, layout, parts)
        parts.begin(work.key(), work.chunks, force)
        resumed = _classify(work, progress)
        counted = [parts.counts(number) for number in range(work.chunks)]
        parts.join(work.chunks, layout)
    return _predicted(work, counted, resumed, time.monotonic() - started)


def _found(data: str | Path, out: Path) -> Path:
    path = find_path(data)
    if path is None or path.is_dir():
        what = "is a folder" if path else "there is no such file"
        raise DataError(f"{data}: {what}; give a .csv, .tsv, .jsonl or .parquet file")
    if out.exists() and path.samefile(out):
        raise ConfigError(f"{out} is the data itself; choose another file with --to")
    return path


@dataclass(frozen=True)
class _Work:
    """A file to predict, and all that its rows depend on."""

    source: Source
    chosen: Chosen
    settings: PredictSettings
    total: int
    classification: Classification
    layout: Layout
    parts: Parts

    @property
    def chunks(self) -> int:
        return -(-self.total // self.classification.chunk)

    def size(self, number: int) -> int:
        """Rows of a chunk."""
        return min(self.classification.chunk, self.total - number * self.classification.chunk)

    def key(self) -> str:
        """What the rows depend on; the number of threads is no part of it."""
        from importlib import metadata

        from consenso.encoders import encoder_fingerprint

        libraries = (
            "consenso",
            "torch",
            "transformers",
            "tokenizers",
            *(("onnxruntime",) if self.settings.onnx else ()),
        )
        classifier, chosen = self.classification.classifier, self.chosen
        return digest([
            {name: metadata.version(name) for name in libraries},
            encoder_fingerprint(classifier.name), classifier.labels, classifier.max_length,
            fingerprint_source(self.source.path.absolute()), output_suffix(self.source.path),
            chosen.text, chosen.text_id, chosen.kept, self.settings.model_dump(exclude={"threads", "text", "id", "keep"}),
            self.classification.device, self.classification.budget, self.classification.chunk,
        ])  # fmt: skip


def _classify(work: _Work, progress: Progress | None) -> int:
    """Write the parts that are missing; return how many rows were there already."""
    finished = {number for number in range(work.chunks) if work.parts.has(number)}
    resumed = done = sum(map(work.size, finished))
    if resumed:
        logger.info("%s: %d of %d rows are there from an earlier run", work.parts.out, resumed, work.total)
    if progress is not None:
        progress(done, work.total)
    labels = work.classification.classifier.labels
    for number, rows, prepared in _ahead(_prepared(work, finished)):
        size = len(prepared.rows)
        found = work.classification.probabilities(prepared, _within(progress, done, size, work.total))
        start = number * work.classification.chunk
        result = result_rows(rows, prepared, found, labels, work.layout, start=start, chosen=work.chosen)
        work.parts.write(number, result, work.layout, count_rows(result, prepared))
        done += size
        if progress is not None:
            progress(done, work.total)
    return resumed


def _within(progress: Progress | None, done: int, size: int, total: int) -> Callable[[float], None] | None:
    """What tells `progress` how far a chunk of `size` rows is, after `done` rows; its end is told when it is saved."""
    if progress is None:
        return None
    return lambda share: progress(done + min(int(share * size), size - 1), total)


def _prepared(work: _Work, finished: set[int]) -> Iterator[tuple[int, Rows, Batches]]:
    chunks = work.source.read(work.chosen.wanted, work.classification.chunk)
    for number, rows in enumerate(first_rows(chunks, work.settings.limit)):
        if number not in finished:
            texts = [value if value is None else str(value) for value in rows[work.chosen.text]]
            yield number, rows, work.classification.prepare(texts)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; while one is worked on, the next is made in another thread."""
    end: Any = object()
    with ThreadPoolExecutor(1, "reading") as reader:
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item


def _predicted(work: _Work, counted: list[dict[str, Any]], resumed: int, seconds: float) -> Predicted:
    classifier = work.classification.classifier
    labels: Counter[str] = Counter()
    for counts in counted:
        labels.update(counts["labels"])
    return Predicted(
        path=work.parts.out,
        rows=work.total,
        empty=sum(counts["empty"] for counts in counted),
        cut=sum(counts["cut"] for counts in counted),
        max_length=classifier.max_length,
        resumed=resumed,
        labels={name: labels[name] for name in classifier.labels},
        seconds=seconds,
        notes=work.classification.notes,
    )
