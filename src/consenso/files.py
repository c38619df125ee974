"""Where a path of an experiment file leads, and the fingerprint of what lies there; shared by data and annotate."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from consenso.store import digest


def starting_folders(base: Path | None) -> list[Path]:
    """Return the folders a relative path starts from, in order: `base`, the working folder, CONSENSO_DATA."""
    data = os.environ.get("CONSENSO_DATA")
    return [*([Path(base)] if base else []), Path(), *([Path(data)] if data else [])]


def candidates(source: str | Path, base: Path | None) -> list[Path]:
    """Return every place where a source may lie, in the order they are tried."""
    path = Path(source).expanduser()
    return [path] if path.is_absolute() else [folder / path for folder in starting_folders(base)]


def find_path(source: str | Path, base: Path | None = None) -> Path | None:
    """Return the first existing place of a file or folder, or None (a catalogue name or a hub id, perhaps)."""
    return next((path for path in candidates(source, base) if path.exists()), None)


def fingerprint_source(source: str | Path, base: Path | None = None) -> str:
    """Return a sha256 (hex) of a file's bytes, of a folder's names and bytes, or of the name where nothing lies there."""
    path = find_path(source, base)
    if path is None:
        return digest(["no path", str(source)])
    if path.is_file():
        return _file_hash(path)
    return digest({str(file.relative_to(path)): _file_hash(file) for file in sorted(path.rglob("*")) if file.is_file()})


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
