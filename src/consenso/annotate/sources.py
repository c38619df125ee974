"""Where the texts come from that annotators are asked about: gone through again and again, never held all at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

BATCH = 2048
"""Texts looked at together."""


class TextBatch(NamedTuple):
    """Some texts, sorted by id."""

    ids: list[str]
    texts: list[str]
    offered: list[tuple[str, ...]] | None
    """Per text the labels it was narrowed to; None: all labels for every text."""


class TextSource(Protocol):
    """Texts that can be gone through again and again without holding them all."""

    count: int
    """How many texts."""

    def batches(self) -> Iterator[TextBatch]:
        """Yield all texts in the order of their ids (as strings)."""
        ...


@dataclass
class FrameSource:
    """The texts of a frame (columns text_id, text)."""

    frame: pd.DataFrame
    offered: Mapping[str, tuple[str, ...]] | None = None
    batch: int = BATCH

    def __post_init__(self) -> None:
        ids, texts = ([str(value) for value in self.frame[name]] for name in ("text_id", "text"))
        self._rows = sorted(zip(ids, texts))
        self.count = len(self._rows)

    def batches(self) -> Iterator[TextBatch]:
        """Yield all texts in the order of their ids."""
        for start in range(0, self.count, self.batch):
            rows = self._rows[start : start + self.batch]
            ids = [text_id for text_id, _ in rows]
            offered = None if self.offered is None else [self.offered[text_id] for text_id in ids]
            yield TextBatch(ids, [text for _, text in rows], offered)


class FolderSource:
    """The texts of a run folder, and the candidates that each was narrowed to."""

    def __init__(
        self, folder: RunFolder, *, only: Collection[str] | None = None, narrowed: bool = False, batch: int = BATCH
    ) -> None:
        """`only`: ids of the texts to go through (None: all); `narrowed`: with the table candidates."""
        self._folder, self._only, self._narrowed, self._batch = folder, only, narrowed, batch
        self.count = folder.count("texts") if only is None else len(only)

    def batches(self) -> Iterator[TextBatch]:
        """Yield all texts in the order of their ids."""
        offered = self._folder.read_parts("candidates", ["text_id", "offered"], self._batch) if self._narrowed else None
        for part in self._folder.read_parts("texts", ["text_id", "text"], self._batch):
            ids, texts = part.column(0).to_pylist(), part.column(1).to_pylist()
            labels = None
            if offered is not None:
                labels = [tuple(json.loads(said)) for said in next(offered).column(1).to_pylist()]
            if self._only is not None:
                kept = [place for place, text_id in enumerate(ids) if text_id in self._only]
                ids, texts = [ids[place] for place in kept], [texts[place] for place in kept]
                labels = None if labels is None else [labels[place] for place in kept]
            if ids:
                yield TextBatch(ids, texts, labels)
