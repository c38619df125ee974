"""What can go: what run folders, trained models and the hub's cache hold that nothing needs, with sizes; and removing it.

Gold, votes, the vote log, tables and reports are never among it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consenso.errors import ConfigError
from consenso.finetune.saving import MODEL_FILES
from consenso.multiverse import KEY_DIGITS, TRAININGS
from consenso.store import RunFolder, half_written

KINDS = {
    "pieces": "trainings that no current table refers to",
    "cache": "embeddings and tokens: computed again when needed",
    "unfinished": "where trainings and predictions that were cut off would go on",
    "leftovers": "half-written files of killed processes",
    "pieces-in-use": "trainings behind the tables, or of an unfinished run: would be trained again",
    "models": "trained models, and models of the hub's cache",
}
"""Kind → what it is."""
SAFE = ("pieces", "cache", "unfinished", "leftovers")
"""What goes where nothing is asked for by name."""
MODEL_DAYS = 30.0
"""Days without use after which a model counts as unused."""
_DAY = 86_400
_AT_WORK = 3_600
"""Seconds after which what `predict` and `train` left half-written is taken for that of a killed process."""
_BEGINNING = 60
_MODEL_FACTS = "consenso.json"


@dataclass(frozen=True)
class Found:
    """Something that can go."""

    what: str
    """A key of KINDS."""
    path: Path
    bytes: int
    used: float
    """When it was last written (a model: or read), in seconds since the epoch."""
    run: Path | None = None
    """The run folder that it lies in; None: models."""
    revisions: tuple[str, ...] = ()
    """Of a model in the hub's cache: its commits."""
    name: str | None = None
    """Of a model in the hub's cache: its id."""

    def days(self) -> float:
        """Return how long ago it was last used, in days."""
        return max(0.0, time.time() - self.used) / _DAY


def survey(
    folders: Sequence[RunFolder], places: Sequence[Path] = (), *, hub_cache: Path | None = None, hub: bool = True
) -> list[Found]:
    """Return what run folders, the models below `places` and the hub's cache hold that can go; nothing is removed.

    Models that the settings of these runs name are left out. `hub_cache`: where the hub's cache is, if not at its usual
    place; `hub` False: it is not looked at. Raises `ConfigError` for a place that is no folder.
    """
    named = {name for folder in folders for name in _texts_in(folder.record().get("settings"))}
    found = [one for folder in folders for one in _in_run(folder)]
    models = [*_below(places), *(_in_hub_cache(hub_cache) if hub else ())]
    return found + [one for one in models if not _is_named(one, named)]


def chosen(found: Sequence[Found], what: Sequence[str] = (), older_than: float | None = None) -> list[Found]:
    """Return what is to go: the kinds asked for (none: SAFE; `all-pieces`: in use or not), not used for so many days.

    `older_than` None: 0 days, for models MODEL_DAYS.
    """
    kinds = set(what or SAFE) | ({"pieces", "pieces-in-use"} if "all-pieces" in what else set())
    return [one for one in found if one.what in kinds and one.days() >= _least(one, older_than)]


def _least(one: Found, older_than: float | None) -> float:
    return older_than if older_than is not None else MODEL_DAYS if one.what == "models" else 0.0


def remove(found: Sequence[Found]) -> list[Found]:
    """Remove and return what was removed: each run folder is locked meanwhile, and what has come into use since stays.

    Raises `BusyError` where another process works in a run folder; nothing is removed from that one.
    """
    gone = []
    for run in dict.fromkeys(one.run for one in found if one.run is not None):
        mine, folder = [one for one in found if one.run == run], RunFolder(run)
        with folder.locked():  # which removes half-written files itself
            still = {(one.what, one.path) for one in _in_run(folder)}
            gone += [one for one in mine if (one.what, one.path) in still or not one.path.exists()]
            for one in mine:
                if (one.what, one.path) in still:
                    _delete(one.path)
    return gone + [one for one in found if one.run is None and _is_deleted(one)]


# run folders


def _in_run(folder: RunFolder) -> Iterator[Found]:
    path, (keys, made) = folder.path, _in_use(folder)
    of_multiverse = set(folder.record().get(TRAININGS) or ())
    for piece in _each(folder, "pieces", (path / "pieces" / "trainings").glob("*.parquet")):
        key = piece.path.stem
        is_used = key in keys or key[:KEY_DIGITS] in of_multiverse or piece.used >= made
        yield replace(piece, what="pieces-in-use") if is_used else piece
    cached = [entry for entry in (path / "cache").glob("*") if not entry.name.startswith(".")]
    prepared = [entry for entry in cached if entry.name.startswith("prepared-")]  # of a run's worker processes
    yield from _each(folder, "cache", (entry for entry in cached if entry not in prepared))
    parts = [entry for entry in path.glob("**/.*.parts") if _is_left(entry)]
    yield from _each(folder, "unfinished", [*(path / "pieces" / "unfinished").glob("*.p*t"), *parts])
    yield from _each(folder, "leftovers", [*prepared, *half_written(path)])


def _in_use(folder: RunFolder) -> tuple[set[str], float]:
    """The keys of the trainings behind the tables, and when the table trainings was written.

    What is newer than the table belongs to a run that was cut off: it may be needed.
    """
    table = folder.table_path("trainings")
    if not table.exists():
        return set(), 0.0
    keys = set(folder.read("trainings", ["key"])["key"].dropna())
    probes = folder.record().get("learning_rates") or {}
    keys |= {str(row["key"]) for probe in probes.values() for row in probe["tried"]}
    return keys, table.stat().st_mtime


def _each(folder: RunFolder, what: str, paths: Iterable[Path]) -> Iterator[Found]:
    for path in sorted(paths):
        size, used = _measure(path)
        yield Found(what, path, size, used, folder.path)


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of a file or of all files of a folder, and when the newest of them was written."""
    files = (
        [path] if path.is_symlink() or not path.is_dir() else [entry for entry in path.rglob("*") if not entry.is_dir()]
    )
    stats = [entry.lstat() for entry in files]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime for stat in stats), default=path.lstat().st_mtime)


def _is_left(path: Path) -> bool:
    """Whether a folder of unfinished work is ours and nobody works on it."""
    age = time.time() - _measure(path)[1]
    if path.suffix == ".parts":  # the lock tells; a process that has just begun may not hold it yet
        return (
            (path / "key.txt").exists()
            and _is_free(path / ".lock")
            and age >= (_BEGINNING if _has_lock(path) else _AT_WORK)
        )
    return age >= _AT_WORK


def _has_lock(path: Path) -> bool:
    return (path / ".lock").exists()


def _is_free(lock: Path) -> bool:
    with _held(lock) as is_free:
        return is_free


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Hold a lock inside the block, where there is one; yield whether nobody else does."""
    from filelock import FileLock, Timeout

    if not lock.exists():
        yield True
        return
    mine = FileLock(lock, timeout=0)
    try:
        mine.acquire()
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        mine.release()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# models


def _below(places: Sequence[Path]) -> Iterator[Found]:
    """The models that `consenso train` saved in or below these folders, and what it and `predict` left unfinished there."""
    seen: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise ConfigError(
                f"--models {place}: there is no such folder; name one that holds models saved by `consenso train`"
            )
        for facts in sorted(place.rglob(_MODEL_FACTS)):
            folder = facts.parent.resolve()
            if folder not in seen and (folder / "config.json").is_file():
                seen.add(folder)
                yield _model(folder)
        for what, pattern in (("unfinished", ".*.parts"), ("leftovers", ".*.unfinished")):
            for path in sorted(path for path in place.rglob(pattern) if path.is_dir() and _is_left(path)):
                yield Found(what, path, *_measure(path))


def _model(folder: Path) -> Found:
    stats = [path.lstat() for path in _model_files(folder)]
    return Found("models", folder, sum(s.st_size for s in stats), max(max(s.st_mtime, s.st_atime) for s in stats))


def _model_files(folder: Path) -> list[Path]:
    found = dict.fromkeys(path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern)) if not path.is_dir())
    return list(found)


def _in_hub_cache(place: Path | None) -> Iterator[Found]:
    for repo in sorted(_scan(place).repos, key=lambda repo: repo.repo_id) if _has_hub(place) else ():
        if repo.repo_type == "model":
            commits = tuple(sorted(revision.commit_hash for revision in repo.revisions))
            used = max(repo.last_accessed, repo.last_modified)
            yield Found("models", Path(repo.repo_path), repo.size_on_disk, used, revisions=commits, name=repo.repo_id)


def _has_hub(place: Path | None) -> bool:
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import constants

    return Path(place or constants.HF_HUB_CACHE).is_dir()


def _scan(place: Path | None) -> Any:
    from huggingface_hub import constants, scan_cache_dir

    return scan_cache_dir(place or constants.HF_HUB_CACHE)


def _is_deleted(one: Found) -> bool:
    """Delete what lies outside run folders; return whether it is gone: what has come into use since it was listed stays."""
    if one.revisions:
        _scan(one.path.parent).delete_revisions(*one.revisions).execute()
    elif one.what == "models":
        _delete_model(one)
    elif one.path.exists():
        if not _is_left(one.path):
            return False
        with _held(one.path / ".lock") as is_free:
            if is_free:
                _delete(one.path)
            return is_free
    return True


def _delete_model(one: Found) -> None:
    files = _model_files(one.path)
    for path in files:
        path.unlink(missing_ok=True)
    for folder in (one.path / "onnx", one.path):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _is_named(one: Found, named: set[str]) -> bool:
    """Whether settings name this model: by its id in the hub, or by its folder."""
    return one.what == "models" and (one.name in named or any(_is_at(name, one.path) for name in named))


def _is_at(name: str, folder: Path) -> bool:
    try:
        return Path(name).expanduser().resolve() == folder
    except (OSError, ValueError, RuntimeError):  # a prompt, say, is no path
        return False


def _texts_in(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping | list | tuple):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _texts_in(value)
