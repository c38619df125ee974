"""Pre-registration: what is declared before the first test score, its hash, and what changed afterwards."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consenso.errors import ConfigError, DataError
from consenso.store import write_text

FILE = "frozen.json"
FORMAT = 1
HOW_NOT_WHAT = {
    "compare": ("low_power_below", "few_texts_below", "gold_public", "bootstrap"),
    "consensus": ("bootstrap",),
    "finetune": (
        "workers",
        "checkpoint_minutes",
        "report_to",
        "overrides",
        "students",
        "arms",
        "seeds",
        "recipe",
        "resample",
    ),
    "annotator": ("price", "batch", "batch_tokens", "batch_size"),
}
"""Settings of a section that change no number of the verdict, or that stand under a heading of their own."""


@dataclass(frozen=True)
class Frozen:
    """A declaration, when it was made, and whether any test score had been seen by then."""

    declared: dict[str, Any]
    """What `declare` returned."""
    at: str
    """When it was frozen: ISO 8601, UTC."""
    scores_seen: bool = False
    """True: test scores were there before the freeze, so it is no pre-registration."""
    first_scoring: str | None = None
    """When the first test score was seen, where that was before the freeze."""

    @property
    def hash(self) -> str:
        """sha256 (hex) of everything above as canonical JSON: keys sorted, no spaces, UTF-8."""
        return hashlib.sha256(canonical(self._content()).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        seen = {"scores_seen": self.scores_seen, "first_scoring": self.first_scoring}
        return {"format": FORMAT, "frozen_at": self.at, **seen, "declared": self.declared}

    def as_record(self) -> dict[str, Any]:
        """Return what frozen.json holds; `read_record` is its inverse."""
        return {**self._content(), "hash": self.hash}

    def __str__(self) -> str:
        late = (
            f" after test scores had been seen ({self.first_scoring}): no pre-registration" if self.scores_seen else ""
        )
        return f"frozen on {self.at}{late}, hash {self.hash}"


def declare(
    *,
    compare: Mapping[str, Any],
    consensus: Mapping[str, Any],
    students: Mapping[str, Mapping[str, Any]],
    panel: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any],
    labels: Sequence[Any] = (),
    name: str = "",
    version: str = "",
) -> dict[str, Any]:
    """Return what must be fixed before the first scoring, as plain JSON values under readable headings.

    `compare`: the [compare] settings (metric, margin, arm, control, contrasts, and whatever else decides a verdict).
    `consensus`: the [consensus] settings. `students`: student → its [finetune] settings (arms, seeds, recipe, resample,
    and further ones). `panel`: annotator → its settings (model, prompt, …), with the prompt's text or hash where it is
    known. `data`: fingerprints of texts, folds and votes, number of test texts and folds; None: not there yet, which a
    later value does not change. `labels`: label names, in order. Raises `ConfigError` where a value is no JSON.
    """
    shown = _without(compare, "compare")
    arm, control = shown.pop("arm", None), shown.pop("control", None)
    asked = [_contrast(given) for given in shown.pop("contrasts", None) or ()]
    rules = _without(consensus, "consensus")
    return _plain(
        {
            "data set": name,
            "metric": shown.pop("metric", None),
            "margin": shown.pop("margin", None),
            "primary contrast": f"{arm} − {control}" if arm and control else None,
            "secondary contrasts": asked or "the decompositions whose arms are trained",
            "verdict": shown,
            "students": {student: _student(given) for student, given in students.items()},
            "problematic texts": rules.pop("problematic", None),
            "aggregator": rules,
            "panel": {annotator: _without(given, "annotator") for annotator, given in panel.items()},
            "labels": list(labels),
            "data": dict(data),
            "software": {"consenso": version},
        }
    )


def _student(given: Mapping[str, Any]) -> dict[str, Any]:
    seeds = given.get("seeds")
    listed = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds or ())
    own = {name: given.get(name) for name in ("recipe", "resample")}
    return {"arms": sorted(given.get("arms") or ()), "seeds": listed, **own, **_without(given, "finetune")}


def _without(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in HOW_NOT_WHAT[section]}


def _contrast(given: Any) -> str:
    if isinstance(given, str):
        return given
    arm, control = (given["arm"], given["control"]) if isinstance(given, Mapping) else given
    return f"{arm} − {control}"


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as JSON gives it back: tuples are lists, keys are strings."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))
        return plain
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"what is declared must be plain JSON values ({error}); pass settings as model_dump(mode='json')"
        ) from None


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, no escapes beyond JSON's own."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest_declared(declared: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a declaration alone: what `scorings` of run.json keep beside the time."""
    return hashlib.sha256(canonical(_plain(declared)).encode()).hexdigest()


def freeze(
    declared: Mapping[str, Any],
    *,
    scorings: Sequence[Mapping[str, Any]] = (),
    at: dt.datetime | None = None,
) -> Frozen:
    """Freeze a declaration. `scorings`: those that run.json knows of, oldest first; any makes `scores_seen` true."""
    now = (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).isoformat(timespec="seconds")
    first = str(scorings[0].get("at") or "time not known") if scorings else None
    return Frozen(_plain(declared), now, bool(scorings), first)


def write_frozen(frozen: Frozen, folder: str | Path) -> Path:
    """Write frozen.json into a folder and return its path; the file can go to OSF or into a repository as it is.

    A second freeze of the same declaration leaves the first in place. Raises `ConfigError` where another declaration was
    frozen there, `DataError` where that file was edited.
    """
    path = Path(folder) / FILE
    if path.exists():
        before = read_frozen(path)
        if not changes_since(before.declared, frozen.declared):
            return path
        raise ConfigError(
            f"{path}: another declaration was frozen on {before.at}; it is never overwritten. To freeze anew, move it "
            "away, and say in your report that you did"
        )
    write_text(path, json.dumps(frozen.as_record(), indent=2, ensure_ascii=False) + "\n")
    return path


def read_frozen(path: str | Path) -> Frozen:
    """Return the freeze that a file holds. Raises `DataError` where it is missing, no JSON, or was edited."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `consenso compare --freeze` writes it") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a frozen record ({error}); restore the original") from None
    return read_record(record, str(path))


def read_record(record: Mapping[str, Any], where: str = FILE) -> Frozen:
    """Return the freeze of a record. Raises `DataError` where fields are missing or its hash does not fit its content."""
    if not isinstance(record, Mapping) or (
        lacking := {"format", "frozen_at", "scores_seen", "first_scoring", "declared", "hash"} - set(record)
    ):
        found = sorted(lacking) if isinstance(record, Mapping) else type(record).__name__
        raise DataError(f"{where}: no frozen record (lacking or found: {found}); restore the original")
    if record["format"] != FORMAT:
        raise DataError(
            f"{where}: format {record['format']!r} of a frozen record is not known; use the consenso that wrote it"
        )
    seen = record["first_scoring"]
    frozen = Frozen(
        _plain(record["declared"]),
        str(record["frozen_at"]),
        record["scores_seen"] is True,
        None if seen is None else str(seen),
    )
    if set(record) != set(frozen.as_record()) or frozen.hash != record["hash"]:
        raise DataError(
            f"{where}: its hash is {str(record['hash'])[:12]}…, that of its content {frozen.hash[:12]}…: it was edited after "
            "freezing; restore the original"
        )
    return frozen


def verify_frozen(path: str | Path, declared: Mapping[str, Any]) -> list[str]:
    """Return what changed since the freeze, a line each (none: all as frozen). Raises `DataError` for an edited file."""
    return changes_since(read_frozen(path).declared, declared)


def changes_since(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """Return how two declarations differ, a line for each value: `margin: 0.02 → 0.03`.

    What was not there yet (None under `data`) and came later is no change. Without either declaration: [].
    """
    if before is None or now is None:
        return []
    return list(_changes(_plain(before), _plain(now), ()))


def _changes(before: Any, now: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            inner = (*path, key)
            if before.get(key) is None and path[:1] == ("data",):
                continue
            if key in before and key in now:
                yield from _changes(before[key], now[key], inner)
            else:
                yield f"{': '.join(inner)}: {_said(before, key)} → {_said(now, key)}"
    elif before != now:
        yield f"{': '.join(path)}: {_value(before)} → {_value(now)}"


def _said(side: dict[str, Any], key: str) -> str:
    return _value(side[key]) if key in side else "not there"


def _value(value: Any) -> str:
    """A value on one line, short; the hash of a file by its first twelve digits."""
    if isinstance(value, list):
        numbers = [one for one in value if isinstance(one, int)]
        if len(numbers) == len(value) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return f"{numbers[0]} … {numbers[-1]}"
        text = ", ".join(map(_value, value)) or "none"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and all(sign in "0123456789abcdef" for sign in text):
        return text[:12]
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:60]}… ({digest_declared({'': value})[:12]})"


def spoken_changes(changes: Sequence[str], most: int = 8) -> str:
    """Return `: margin: 0.02 → 0.03; …` for the end of a sentence; '' without changes."""
    if not changes:
        return ""
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return f": {'; '.join(changes[:most])}{more}"
