"""Which columns of a source are the text, the id and what is kept."""

from __future__ import annotations

from dataclasses import dataclass

from consenso.errors import ConfigError, DataError, nearest
from consenso.predict.settings import PredictSettings
from consenso.predict.sources import Source

IDS = ("text_id", "id")
"""Columns that are taken for the id where none is named."""


@dataclass(frozen=True)
class Chosen:
    """Columns by meaning."""

    text: str
    text_id: str | None
    """None: the row's number from 0."""
    kept: tuple[str, ...]

    @property
    def wanted(self) -> list[str]:
        """All columns that are read, each once."""
        return list(dict.fromkeys([self.text, *([self.text_id] if self.text_id else []), *self.kept]))


def choose_columns(source: Source, settings: PredictSettings) -> Chosen:
    """Return the columns that were asked for, or those of conventional names; a missing one raises `DataError`."""
    text = _found(source, settings.text or "text", "--text", guess=settings.text is not None)
    if settings.id is not None:
        text_id: str | None = _found(source, settings.id, "--id")
    else:
        text_id = next((name for name in IDS if name in source.columns and name != text), None)
    if text_id == text:
        raise ConfigError(f"column {text!r} cannot be both text and id; name another with --id")
    kept = source.columns if settings.keep == "all" else settings.keep
    return Chosen(text, text_id, tuple(dict.fromkeys(_found(source, name, "--keep") for name in kept)))


def _found(source: Source, name: str, option: str, *, guess: bool = True) -> str:
    if name not in source.columns:
        have = list(source.columns)
        meant = nearest(name, have) if guess else ""
        raise DataError(f"{source.path}: missing column {name!r}; found {have}.{meant} Name it with {option}")
    return name
