"""What the [data] section of experiment.toml may say."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from consenso.labels import LabelSchema
from consenso.settings import Settings

Sampling = Literal["stratified", "simple"]
EmptyTexts = Literal["error", "drop"]
Leakage = Literal["exact", "normalised", "near", "off"]
MOST_FOLDS = 50


class ColumnMap(Settings):
    """Which column of the source holds what. A key left out means the conventional name, if the source has it."""

    text_id: str | None = None
    """Your own text ids; else `text_id` or `id`; "" for none (ids are then made from the texts)."""
    text: str | None = None
    """The texts; else `text`."""
    gold: str | None = None
    """Human labels, by id or by name; else `gold` or `label`; "" for none."""
    split: str | None = None
    """train, dev (or validation), test, pool; else `split`; "" for none."""
    group: str | None = None
    """Source document, author, thread: what a split must not divide; else `group`; "" for none."""
    fold: str | None = None
    """The fold, 0 to k−1, in which a text is tested (it trains in the others; empty: it trains in all); only if named."""


class LabelEntry(Settings):
    """One label."""

    name: str
    """The name that tables, prompts and reports show."""
    id: int | None = None
    """The number that stands for it in the data and votes; without ids, and with gold by name, numbers in votes are refused."""
    description: str = ""
    """One sentence that defines it; annotators are shown it."""


class DataSettings(Settings):
    """Where the texts come from, which labels exist, and how they are split."""

    source: str
    """A file (csv, tsv, jsonl, json, parquet, xlsx, also .gz), a folder (of `datasets`, or of train_fold_0, test_fold_0, …),
    owner/name, or a catalog name."""
    columns: ColumnMap = ColumnMap()
    """Which column holds what."""
    labels: list[LabelEntry] = Field(default_factory=list)
    """The labels, in order; empty: those of the catalog or of the file's schema, else the distinct gold values."""
    split: str | None = None
    """Read only this split of the source; it is then split anew."""
    combine_splits: list[str] = Field(default_factory=list)
    """Read only these splits, together; each text keeps its split."""
    hf_file: str | None = None
    """Read this one file of the Hub repository (or folder) instead of its splits."""
    revision: str | None = None
    """Branch, tag or commit of the Hub repository."""
    empty_texts: EmptyTexts = "error"
    """What an empty text is: an error, or dropped and counted."""
    sample_size: int | None = Field(None, ge=1)
    """Use only so many texts."""
    sampling: Sampling = "stratified"
    """stratified: shares of (split, gold) are kept; simple: every text has the same chance."""
    seed: int = Field(42, ge=0)
    """Seed of the sample and of the drawn splits."""
    test_size: float = Field(0.2, gt=0, lt=1)
    """Share of the texts drawn as test where the source gives no test split and folds = 1."""
    folds: int = Field(1, ge=1, le=MOST_FOLDS)
    """k ≥ 2: k folds, stratified by gold, groups whole; each text with gold is tested in one of them. 1: one split."""
    dev_size: float = Field(0.15, gt=0, lt=1)
    """Share of a fold's training texts drawn as dev where the source gives no dev texts."""
    leakage: Leakage = "near"
    """How alike two texts must be to count as a leak between train, dev and test of a fold."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Self:
        if self.split and self.combine_splits:
            raise ValueError("split and combine_splits exclude each other; keep one")
        if self.folds > 1 and self.columns.fold:
            raise ValueError(f"folds = {self.folds} draws folds and columns.fold gives them: either one or the other")
        given = [entry.id is not None for entry in self.labels]
        if any(given) and not all(given):
            raise ValueError("labels: give every label an id, or none")
        ids = [entry.id for entry in self.labels if entry.id is not None]
        if len(set(ids)) < len(ids):
            raise ValueError(f"labels: two labels share an id; found {ids}")
        return self

    def label_schema(self) -> LabelSchema | None:
        """Return the labels as a schema, or None where the settings name none."""
        if not self.labels:
            return None
        ids = {entry.id if entry.id is not None else i: entry.name for i, entry in enumerate(self.labels)}
        given = all(entry.id is not None for entry in self.labels)
        return LabelSchema(ids, {entry.name: entry.description for entry in self.labels}, ids_given=given)
