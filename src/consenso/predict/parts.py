"""Finished chunks beside the result: what a killed run keeps, and how they become one file."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consenso.errors import BusyError, ConfigError, StorageError
from consenso.predict.formats import FORMATS, Layout, output_suffix
from consenso.predict.sources import Rows
from consenso.store import write_atomically, write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The folder .OUT.parts: one file per chunk, its counts, and a key that says what they were made from."""

    out: Path

    @property
    def folder(self) -> Path:
        """Beside the result, hence on the same disk."""
        return self.out.parent / f".{self.out.name}.parts"

    def check_place(self, force: bool) -> None:
        """Raise `ConfigError` for a kind of file that is not written, and for one that exists and is not to be replaced."""
        suffix, zipped = output_suffix(self.out), self.out.name.lower().endswith(".gz")
        if self.out.is_dir():
            raise ConfigError(f"{self.out} is a folder; give the name of a file, such as {self.out / 'predicted.csv'}")
        if suffix not in FORMATS:
            raise ConfigError(
                f"{self.out}: unknown kind of file {suffix or self.out.name!r}; known: {', '.join(FORMATS)}"
            )
        if suffix == ".parquet" and zipped:
            raise ConfigError(f"{self.out}: Parquet is compressed already; leave out .gz")
        if self.out.exists() and not force and self._key() is None:
            self._refuse_to_replace()

    def _refuse_to_replace(self) -> None:
        raise ConfigError(f"{self.out} exists; choose another file with --to, or replace it with --force")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; a second raises `BusyError`, a place without write access `ConfigError`."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"another process writes {self.out}; wait for it, or choose another file with --to"
            ) from None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageError(f"cannot write {self.out}: the disk is full; make room and run again") from None
            raise ConfigError(f"cannot write {self.out}: {error.strerror}; choose another place with --to") from None
        try:
            yield
        finally:
            lock.release()
            self._leave()

    def _leave(self) -> None:
        """Remove the folder where it holds nothing but the lock."""
        with contextlib.suppress(OSError):
            if {path.name for path in self.folder.iterdir()} <= {".lock"}:
                shutil.rmtree(self.folder)

    def begin(self, key: str, chunks: int, force: bool) -> None:
        """Keep the parts of the same key and remove all others.

        Raises `ConfigError` where the result exists, unless with `force` or where only its last step was cut off.
        """
        same = self._key() == key
        whole = same and all(self.has(number) for number in range(chunks))
        if self.out.exists() and not force and not whole:
            self._refuse_to_replace()
        if not same:
            if self._key() is not None:
                logger.warning("%s: model, data or options have changed; starting anew", self.out)
            (self.folder / "key.txt").unlink(missing_ok=True)  # first: what a kill leaves then has no key
            for path in self.folder.iterdir():
                if path.name != ".lock":
                    path.unlink()
            write_text(self.folder / "key.txt", key)
        for leftover in self.folder.glob(".*.*-????????"):  # half-written files of a killed process
            leftover.unlink(missing_ok=True)

    def _key(self) -> str | None:
        path = self.folder / "key.txt"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{output_suffix(self.out)}"

    def has(self, number: int) -> bool:
        """Return whether a chunk is finished."""
        return self._path(number).exists()

    def write(self, number: int, rows: Rows, layout: Layout, counts: dict[str, Any]) -> None:
        """Write a chunk's counts, then the chunk: a chunk that is there is finished."""
        write_text(self._path(number).with_suffix(".json"), json.dumps(counts, ensure_ascii=False))
        kind = FORMATS[output_suffix(self.out)]
        write_atomically(self._path(number), lambda path: kind.write_part(path, rows, layout))

    def counts(self, number: int) -> dict[str, Any]:
        """Return what was counted in a finished chunk."""
        found: dict[str, Any] = json.loads(self._path(number).with_suffix(".json").read_text(encoding="utf-8"))
        return found

    def join(self, chunks: int, layout: Layout) -> None:
        """Make the result of all parts, one after the other, and remove the folder."""
        kind, whole = FORMATS[output_suffix(self.out)], self.folder / "whole"
        parts = [self._path(number) for number in range(chunks)]
        write_atomically(
            whole, lambda path: kind.join(path, parts, layout, zipped=self.out.name.lower().endswith(".gz"))
        )
        whole.replace(self.out)
        shutil.rmtree(self.folder, ignore_errors=True)
