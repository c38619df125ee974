"""The guard of leakage: no text of test or dev may stand in train, whatever it looks like there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from consenso.compare.evidence import Evidence, Finding
from consenso.compare.runs import Runs
from consenso.text import clean, normalise

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BETWEEN = (("train", "test"), ("train", "dev"), ("dev", "test"), ("fitted", "test"))
"""Pairs of parts that may share no text; `fitted` are the texts that arms really trained on or chose a state with."""


def leakage(evidence: Evidence) -> list[Finding]:
    """Look again for texts of dev or test among the training texts, near repeats too, after what was removed."""
    places = _places(evidence)
    tested = any("test" in by_part for by_part in places.values())
    if not tested or not any(left in by_part for by_part in places.values() for left in ("train", "fitted")):
        return [Finding("not_checked", "needs folds or arms")]
    found = _found(evidence, places)
    removed, near = _by_level(evidence.leaks), _by_level(evidence.remaining)
    figures: dict[str, Any] = {
        "removed": removed, "remaining": max(len(found), sum(near.values())), "remaining_by_level": near,
        "examples": found[:5],
    }  # fmt: skip
    if found or near:
        reason = "; ".join([*_found_again(found), *_still_near(near, evidence.remaining)])
        return [Finding("failed", f"{reason}; split again", figures)]
    if evidence.texts is None and evidence.remaining is None:
        return [Finding("not_checked", "no shared text ids; the texts themselves were not given", figures)]
    before = f"removed before: {', '.join(f'{count} {level}' for level, count in removed.items()) or 'none'}"
    where = "repeat of a dev or test text stands in train"
    if evidence.remaining is None:
        said = f"no exact or normalised {where}; near repeats were not looked for; {before}"
        return [Finding("warned", said, figures)]
    return [Finding("passed", f"no exact, normalised or near {where}; {before}", figures)]


def _found(evidence: Evidence, places: dict[int, dict[str, set[str]]]) -> list[dict[str, str]]:
    """Each text or group of a fold's part that stands in another of its parts, once: fold, what, left, right, id, other."""
    import numpy as np

    ids = sorted({i for by_part in places.values() for part in by_part.values() for i in part})
    place = {i: k for k, i in enumerate(ids)}
    codes = {"text": _texts(evidence.texts, ids), "group": _groups(evidence.texts, ids)}
    found: dict[tuple[int, str, str], dict[str, str]] = {}
    for fold, by_part in sorted(places.items()):
        at = {part: np.array(sorted(place[i] for i in held), dtype=np.int64) for part, held in by_part.items()}
        for left, right in BETWEEN:
            if left not in at or right not in at:
                continue
            for what, known in codes.items():
                for i, other in _overlap(at[left], at[right], known):
                    one = {"what": what, "left": left, "right": right, "id": ids[i], "other": ids[other]}
                    found.setdefault((fold, right, ids[i]), {"fold": str(fold), **one})
    return list(found.values())


def _found_again(found: list[dict[str, str]]) -> Iterator[str]:
    """How many texts and groups of a part stand in another part, with an example."""
    spoken = {"fitted": "what arms were trained on"}
    kinds = Counter(f"{one['right']} {one['what']}(s) also in {spoken.get(one['left'], one['left'])}" for one in found)
    if found:
        reason = "; ".join(f"{count} {kind}" for kind, count in kinds.items())
        yield f"{reason}, for example {found[0]['id']} = {found[0]['other']}"


def _still_near(levels: dict[str, int], remaining: pd.DataFrame | None) -> Iterator[str]:
    """How many texts of train or dev still repeat one of dev or test, by the closest level, with an example."""
    if remaining is not None and levels:
        first = remaining.sort_values(["text_id", "other_id"], key=lambda ids: ids.map(str)).iloc[0]
        said = ", ".join(f"{count} {level}" for level, count in levels.items())
        yield (
            f"texts that still repeat a text of another part: {said}, for example {first['text_id']} "
            f"({first['part']}) and {first['other_id']} ({first['other_part']})"
        )


def _places(evidence: Evidence) -> dict[int, dict[str, set[str]]]:
    """Fold → part → text ids; `fitted` are the texts that arms really trained on or chose a state with."""
    import numpy as np

    places: dict[int, dict[str, set[str]]] = {}
    if evidence.folds is not None:
        for (fold, part), ids in evidence.folds.groupby(["fold", "part"])["text_id"]:
            places.setdefault(int(fold), {})[str(part)] = set(map(str, ids))
    for fold, tested in _predicted(evidence.runs).items():
        places.setdefault(fold, {}).setdefault("test", set()).update(tested)
    if (rows := evidence.rows) is not None:
        folds = np.array([fold for fold, _ in rows.pieces], dtype=np.int64)
        cells = np.unique(folds[rows.piece] * len(rows.ids) + rows.text)
        for fold in np.unique(folds):
            mine = cells[cells // len(rows.ids) == fold] % len(rows.ids)
            places.setdefault(int(fold), {})["fitted"] = {rows.ids[text] for text in mine}
    if len(places) == 1:
        only = next(iter(places.values()))
        only["test"] = only.get("test", set()) | set(evidence.runs.items)
    return places


def _predicted(runs: Runs) -> dict[int, set[str]]:
    """Fold → the texts it predicts, where there are several folds."""
    import numpy as np

    if runs.folds is not None:
        return {int(fold): set(runs.items[runs.folds == fold].tolist()) for fold in np.unique(runs.folds)}
    rows: dict[int, list[int]] = {}
    for arms in runs.rows.values():
        for seed, row in (pair for seeds in arms.values() for pair in seeds.items()):
            if isinstance(seed, tuple):
                rows.setdefault(int(seed[0]), []).append(row)
    return {fold: set(runs.items[(runs.codes[taken] >= 0).any(axis=0)].tolist()) for fold, taken in rows.items()}


def _texts(texts: pd.DataFrame | None, ids: list[str]) -> np.ndarray:
    """A code per id, equal where the normalised text is (the cleaned one where nothing but punctuation is left).

    A text that is not known has a code of its own.
    """
    import pandas as pd

    meaning = {} if texts is None else {
        str(i): ("text", normalise(text) or clean(text)) for i, text in zip(texts["text_id"], texts["text"])}  # fmt: skip
    codes: np.ndarray = pd.factorize(pd.Series([meaning.get(i, ("id", i)) for i in ids], dtype=object))[0]
    return codes


def _groups(texts: pd.DataFrame | None, ids: list[str]) -> np.ndarray:
    """A code per id, equal within a group; −1 without a group."""
    import numpy as np
    import pandas as pd

    if texts is None or "group" not in texts.columns or not texts["group"].notna().any():
        return np.full(len(ids), -1)
    group = dict(zip(texts["text_id"].map(str), texts["group"]))
    codes: np.ndarray = pd.factorize(pd.Series([group.get(i) for i in ids], dtype=object))[0]
    return codes


def _overlap(left: np.ndarray, right: np.ndarray, codes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(text of `right`, first text of `left`) that share a code."""
    import numpy as np

    there, asked = left[codes[left] >= 0], right[codes[right] >= 0]
    hits = asked[np.isin(codes[asked], codes[there])]
    if not len(hits):
        return
    first = {int(codes[i]): int(i) for i in there[::-1]}
    for i in hits:
        yield int(i), first[int(codes[i])]


def _by_level(leaks: pd.DataFrame | None) -> dict[str, int]:
    """Level → leaking texts (each text counts once, by its closest level)."""
    if leaks is None or not len(leaks):
        return {}
    rank = {"exact": 0, "normalised": 1, "near": 2, "group": 3}
    closest: dict[tuple[int, str], str] = {}
    for fold, text_id, level in zip(leaks["fold"], leaks["text_id"], leaks["level"]):
        key = (int(fold), str(text_id))
        closest[key] = min(closest.get(key, level), level, key=lambda name: rank.get(name, 9))
    return dict(sorted(Counter(closest.values()).items()))
