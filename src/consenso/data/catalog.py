"""The datasets known by name (catalog.toml): where they are, what their labels mean, which noun a prompt uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CatalogEntry:
    """What is known about one dataset."""

    name: str
    """The name that `source` takes."""
    path: str
    """The Hub repository."""
    file: str | None
    """The file of it that holds the whole set; None: its splits."""
    text: str
    """The column of texts."""
    gold: str
    """The column of gold labels."""
    noun: str
    """What a prompt calls one text."""
    n_classes: int
    """How many labels there are."""
    labels: dict[int, str]
    """Label id → name, only where the name is known."""
    descriptions: dict[str, str]
    """Label name → definition, only where there is one."""
    unverified: bool
    """True: some names are unknown; such labels go by their id."""

    def schema(self) -> LabelSchema:
        """Return all labels; one whose name is unknown is named by its id."""
        ids = sorted({*range(self.n_classes), *self.labels})
        return LabelSchema({i: self.labels.get(i, str(i)) for i in ids}, self.descriptions)


@cache
def _catalog() -> dict[str, CatalogEntry]:
    import tomllib
    from pathlib import Path

    raw = tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))
    defaults = raw.pop("defaults")
    return {name: _entry(name, {**defaults, **fields}) for name, fields in raw.items()}


def _entry(name: str, fields: dict[str, Any]) -> CatalogEntry:
    labels, descriptions = {}, {}
    for key, value in fields.pop("labels", {}).items():
        label, *definition = [value] if isinstance(value, str) else value
        labels[int(key)] = label
        if definition:
            descriptions[label] = definition[0]
    unverified = fields.pop("unverified", False)
    return CatalogEntry(name, labels=labels, descriptions=descriptions, unverified=unverified, **fields)


def catalog_names() -> list[str]:
    """Return the names of the known datasets, sorted."""
    return sorted(_catalog())


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of a name, of a Hub id (owner/name) or of its second half; None if the catalog has none."""
    entries = _catalog()
    return entries.get(name) or next((e for e in entries.values() if name in {e.path, e.path.partition("/")[2]}), None)


def catalog_entry(name: str) -> CatalogEntry:
    """Return what is known about a dataset, by name or Hub id; an unknown name raises `ConfigError`."""
    entry = find_entry(name)
    if entry is None:
        hint = nearest(name, catalog_names()) or f" Known: {', '.join(catalog_names())}."
        raise ConfigError(f"no dataset {name!r} in the catalog.{hint}")
    return entry


def list_catalog() -> pd.DataFrame:
    """Return one row per known dataset: name, path, noun, n_classes, unverified, labels.

    `labels` are the names in order (an id where the name is unknown), null where no name is known.
    """
    import pandas as pd

    rows = []
    for name in catalog_names():
        entry = catalog_entry(name)
        names = ", ".join(entry.schema().names) if entry.labels else None
        rows.append((name, entry.path, entry.noun, entry.n_classes, entry.unverified, names))
    return pd.DataFrame(rows, columns=["name", "path", "noun", "n_classes", "unverified", "labels"])
