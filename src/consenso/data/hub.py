"""Folders and repositories in the Hugging Face layout. `_reach` alone talks to the Hub."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from consenso.errors import DataError, MissingExtraError, nearest
from consenso.readers import RawSource, from_splits, read_file

logger = logging.getLogger(__name__)


def read_folder(folder: Path, hf_file: str | None = None) -> RawSource:
    """Read a folder: one file of it, what `save_to_disk` wrote, or a copy of a Hub repository of Parquet files."""
    if hf_file is not None:
        if not (folder / hf_file).is_file():
            found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            raise DataError(f"{folder} has no file {hf_file!r}.{nearest(hf_file, found) or f' Found: {_few(found)}'}")
        return read_file(folder / hf_file)
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json", "dataset_info.json")):
        splits = _load_saved(folder)
    elif any(folder.rglob("*.parquet")):
        splits = _splits_of(_reach(lambda: _datasets().load_dataset(str(folder)), str(folder)))
    else:
        found = sorted(path.name for path in folder.iterdir())
        raise DataError(f"{folder} is a folder, not a dataset; name one file of it. Found: {_few(found)}")
    source = from_splits(splits)
    return RawSource(source.frame, source.stated, {**source.facts, "path": str(folder)})


def read_hub(name: str, hf_file: str | None = None, revision: str | None = None) -> RawSource:
    """Read a Hub dataset "owner/name" or "owner/name:config": all its splits, or the one file `hf_file`."""
    path, _, config = name.partition(":")
    if hf_file is not None:
        local = Path(_reach(lambda: _download(path, hf_file, revision), name))
        source = read_file(local)
    else:
        source = from_splits(_splits_of(_reach(lambda: _load(path, config or None, revision), name)))
    return RawSource(source.frame, source.stated, {**source.facts, "kind": "hub", "path": name, "revision": revision})


def is_datasets_object(source: object) -> bool:
    """Return whether the source is a `datasets.Dataset` or `DatasetDict`, without importing `datasets`."""
    return any(base.__module__.partition(".")[0] == "datasets" for base in type(source).__mro__)


def read_datasets_object(source: Any) -> RawSource:
    """Return a `datasets.Dataset` or `DatasetDict`; a streamed one raises `DataError`."""
    return from_splits(_splits_of(source))


def _splits_of(found: Any) -> dict[str, Any]:
    splits = dict(found) if isinstance(found, dict) else {str(found.split or "data"): found}
    if strange := [
        type(dataset).__name__
        for dataset in splits.values()
        if not hasattr(dataset, "with_format") or not hasattr(dataset, "num_rows")
    ]:
        raise DataError(f"datasets: a {strange[0]} cannot be read; load it without streaming=True")
    filled = {name: dataset for name, dataset in splits.items() if dataset.num_rows}
    if not filled:
        raise DataError(f"datasets: no rows in {list(splits)}")
    return filled


def _load_saved(folder: Path) -> dict[str, Any]:
    try:
        return _splits_of(_datasets().load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read as a saved dataset ({_brief(error)}); save it again") from None


def _load(path: str, config: str | None, revision: str | None) -> Any:
    return _datasets().load_dataset(path, config, revision=revision)


def _download(path: str, file: str, revision: str | None) -> str:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtraError("reading from the Hugging Face Hub", "hub") from None
    return str(hf_hub_download(path, file, repo_type="dataset", revision=revision))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("reading `datasets` folders and Hub datasets", "hub") from None
    return datasets


def _reach(call: Callable[[], Any], name: str) -> Any:
    """Make the call; whatever the Hub libraries raise becomes one line."""
    _datasets()
    logger.info("reading %s through the Hugging Face libraries", name)
    try:
        with _quiet():
            return call()
    except _hub_errors() as error:
        raise DataError(_explain(error, name)) from None


def _hub_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    known: list[type[Exception]] = [DatasetsError, errors.EntryNotFoundError, OSError, ValueError]
    with contextlib.suppress(ImportError):  # huggingface_hub 1 speaks through httpx, 2 through its own HTTPError
        known.append(importlib.import_module("httpx").HTTPError)
    return (*known, getattr(errors, "HTTPError", OSError))


def _explain(error: Exception, name: str) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return f"Hub dataset {name!r} is gated; accept its terms on the Hub and log in (hf auth login)"
    if "RevisionNotFoundError" in kinds:
        return f"Hub dataset {name!r} has no such revision; check `revision`"
    if "RemoteEntryNotFoundError" in kinds:
        return f"Hub dataset {name!r} has no such file; check `hf_file`"
    if kinds & {
        "ConnectionError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "TransportError",
        "Timeout",
        "TimeoutError",
    }:
        return (
            f"cannot reach the Hugging Face Hub for {name!r}; check the network, or download the data and give its path"
        )
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return f"no Hub dataset {name!r} (or it is private), and no such file or folder; check the name"
    return f"Hub dataset {name!r} cannot be read ({_brief(error)})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and the retry messages of the Hub libraries for one call."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    talkative = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels = [each.level for each in talkative]
    bars = not are_progress_bars_disabled()
    try:
        for each in talkative:
            each.setLevel(logging.ERROR)
        if bars:
            disable_progress_bars()
        yield
    finally:
        for each, level in zip(talkative, levels):
            each.setLevel(level)
        if bars:
            enable_progress_bars()


def _brief(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
