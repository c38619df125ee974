"""The names of arms: plain ones, families with a parameter, names that expand once the data are known, presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FAMILIES: dict[str, re.Pattern[str]] = {
    "gold@<n>": re.compile(r"gold@(?P<number>[1-9]\d*)"),
    "consensus+<k>": re.compile(r"consensus\+(?P<number>[1-9]\d*)"),
    "consensus+<k>:random": re.compile(r"consensus\+(?P<number>[1-9]\d*):random"),
    "single:<annotator>": re.compile(r"single:(?P<text>.+)"),
    "panel:<size>": re.compile(r"panel:(?P<number>[1-9]\d*)"),
}
"""Key of ARMS → how a name of the family reads; the group is its parameter."""

OPEN_NAMES = {
    "gold@curve": "gold@<n>",
    "single:best": "single:<annotator>",
    "single:each": "single:<annotator>",
    "panel:each": "panel:<size>",
}
"""Names that stand for arms of a family, which ones is known once texts, votes and panels are."""

FLOOR_ARMS = ("floor", "floor-prior")
_QUICK = ("gold", "gold-aligned", "consensus", "floor")
_STANDARD = (
    "gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "gold-kept", "permuted", "floor",
)  # fmt: skip
_FULL = (
    *_STANDARD, "consensus-soft", "consensus-selected", "consensus-selected-random", "perspectivist", "single:best",
    "panel:each", "gold-noised", "gold@curve", "consensus+200", "consensus+200:random",
)  # fmt: skip
PRESETS: dict[str, tuple[str, ...]] = {"quick": _QUICK, "standard": _STANDARD, "full": _FULL}
"""Names that a list of arms may hold in place of arms; of `full`, what the data do not allow is left out."""
DEFAULT_ARMS = PRESETS["standard"]


def split_arm(name: str) -> tuple[str, str]:
    """Return the key of ARMS that a name belongs to and its parameter ('' where it has none); unknown names as they are."""
    if name in OPEN_NAMES:
        return OPEN_NAMES[name], name.partition(":")[2] or name.partition("@")[2]
    for family, pattern in FAMILIES.items():
        if found := pattern.fullmatch(name):
            return family, next(iter(found.groupdict().values()))
    return name, ""


def expand_presets(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names with the arms of each preset in its place, each once; `full` itself stays among them.

    `full` in a list says that its arms may be left out where the data do not allow them (`expand_arms`).
    """
    given = (names,) if isinstance(names, str) else tuple(names)
    spread = (arm for name in given for arm in ((name,) if name == "full" else ()) + PRESETS.get(name, (name,)))
    return tuple(dict.fromkeys(spread))


def is_listed(arm: str, listed: Sequence[str]) -> bool:
    """Return whether a list of arms, presets and open names trains (or may train) this arm."""
    names = set(expand_presets(listed))
    family, _ = split_arm(arm)
    may = {OPEN_NAMES[name] for name in names if name in OPEN_NAMES}
    return arm in names or family in may or (arm == "floor-prior" and "floor" in names)
