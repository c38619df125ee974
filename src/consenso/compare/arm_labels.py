"""Do arms carry the labels that their names promise, and each text its own? A join by row order shows here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from consenso.compare.arm_rows import ArmRows
from consenso.compare.evidence import Evidence
from consenso.compare.promises import given_in, kind_of, promise_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SURPRISE = 5.0
"""Standard errors beyond which drawn labels (noised, permuted) are not what their name says."""


def wrong_labels(rows: ArmRows, evidence: Evidence, student: str) -> dict[str, list[str]]:
    """Return arm → what is wrong with the labels it was given.

    Gold and consensus labels are held against the label of their text id, votes against the votes; labels that were
    drawn (noised, permuted) can differ from text to text, so their rates are held against what drawing gives.
    """
    gold, consensus = (_stated(rows, frame, name) for frame, name in (
        (evidence.texts, "gold"), (evidence.labels, "label")))  # fmt: skip
    found: dict[str, list[str]] = {}
    for arm in rows.held:
        problems = [*_sources(rows, arm, gold_dev=student in evidence.gold_dev)]
        given = _joined(rows, arm)
        for source, stated in (("gold", gold), ("consensus", consensus)):
            problems += _of_their_texts(rows, given, arm, source, stated)
        if consensus is not None:
            problems += _permuted(given, arm, consensus)
            if gold is not None:
                problems += _noised(given, arm, gold, consensus)
        problems += _never_voted(rows, given, arm, evidence.votes)
        if problems:
            found[arm] = problems
    return found


def _joined(rows: ArmRows, arm: str) -> ArmRows:
    """The rows of both parts of an arm."""
    import numpy as np

    return rows.where(np.flatnonzero(rows.arm == rows.arms.index(arm)))


def _stated(rows: ArmRows, frame: pd.DataFrame | None, column: str) -> np.ndarray | None:
    """The label of each text id of `rows`, as a position in its targets: −1 no label, −2 one that no arm carries."""
    import numpy as np
    import pandas as pd

    if frame is None or column not in frame or frame["text_id"].duplicated().any():
        return None
    labels = pd.Series(frame[column].to_numpy(dtype=object), index=frame["text_id"].map(str)).reindex(rows.ids)
    codes: np.ndarray = pd.Index(rows.targets).get_indexer(labels)
    return np.where((codes < 0) & labels.notna().to_numpy(), -2, codes)


def _sources(rows: ArmRows, arm: str, *, gold_dev: bool) -> Iterator[str]:
    """Labels of a source that the name does not promise; gold dev labels may be declared (a student's variation)."""
    import numpy as np

    promise = promise_of(arm)
    for train, allowed in ((True, promise.train), (False, promise.dev)):
        given = rows.of_arm(arm, train=train)
        for code in np.unique(given.source) if allowed else ():
            source = rows.sources[code]
            if source in allowed or (source == "gold" and not train and gold_dev):
                continue
            count = len(given.where(given.source == code).distinct("text", "target").text)
            part = "" if train else " dev"
            yield f"{arm} was given {count}{part} label(s) of source {source}; its name promises {promise.label} labels"


def _of_their_texts(rows: ArmRows, given: ArmRows, arm: str, source: str, stated: np.ndarray | None) -> Iterator[str]:
    """Gold or consensus labels that are not those of their text ids."""
    if stated is None or source not in rows.sources:
        return
    mine = given.where(given.source == rows.sources.index(source))
    if len(mine.shares):
        yield from _soft(mine, arm, stated)
        return
    mine = mine.distinct("text", "target")
    said = stated[mine.text]
    if wrong := int(((said != -1) & (said != mine.target)).sum()):
        yield f"{wrong} training row(s) of {arm} carry another label than their text id has"
    if none := int((said == -1).sum()):
        yield f"{none} training row(s) of {arm} carry a {source} label, but their text id has none"


def _soft(mine: ArmRows, arm: str, stated: np.ndarray) -> Iterator[str]:
    """Soft targets need not peak at the consensus label, but by chance they would meet it far less often."""
    import numpy as np

    mine = mine.distinct("text", "target")
    said = stated[mine.text]
    if none := int((said == -1).sum()):
        yield f"{none} training row(s) of {arm} carry a consensus label, but their text id has none"
    soft = np.array([share is not None and not np.isscalar(share) for share in mine.shares])
    if wrong := int(((said != mine.target) & (said != -1) & ~soft).sum()):
        yield f"{wrong} training row(s) of {arm} carry another label than their text id has"
    met, chance, spread = _meetings(mine.target[soft], said[soft], np.zeros(int(soft.sum()), dtype=np.int64))
    if soft.sum() >= 30 and met < chance + SURPRISE * spread and met < 0.9 * soft.sum():
        yield f"the soft targets of {arm} meet the consensus label of their text id no oftener than by chance"


def _meetings(one: np.ndarray, other: np.ndarray, group: np.ndarray) -> tuple[float, float, float]:
    """How often two labels of a text are equal, and mean and standard deviation of that if paired at random by group."""
    import numpy as np

    met, chance, variance = float((one == other).sum()), 0.0, 0.0
    width = int(max(one.max(initial=0), other.max(initial=0))) + 3
    for members in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        n = len(members)
        if n < 2:
            continue
        a, b = (np.bincount(side[members] + 2, minlength=width).astype(float) for side in (one, other))
        chance += float(a @ b) / n
        # variance of the number of matches under a random permutation (both margins fixed)
        pairs = (a @ b) ** 2 - (a * b) @ (a + b) + a @ b
        variance += float((a @ b) / n + pairs / (n * (n - 1)) - ((a @ b) / n) ** 2)
    return met, chance, max(variance, 0.0) ** 0.5


def _permuted(given: ArmRows, arm: str, consensus: np.ndarray) -> Iterator[str]:
    """Permuted labels that still know their text: no negative control."""
    if kind_of(arm) != "permuted" or "permuted" not in given.sources:
        return
    mine = given.where(given.source == given.sources.index("permuted")).distinct("piece", "text")
    met, chance, spread = _meetings(mine.target, consensus[mine.text], mine.piece)
    if len(mine.text) and met > chance + SURPRISE * spread:
        n = len(mine.text)
        yield (
            f"{arm} carries the consensus label of its text in {met / n:.1%} of its rows, where chance gives "
            f"{chance / n:.1%}: it is not permuted"
        )


def _noised(given: ArmRows, arm: str, gold: np.ndarray, consensus: np.ndarray) -> Iterator[str]:
    """Noised gold labels that are wrong oftener or less often than the consensus whose errors they stand for."""
    import numpy as np

    if kind_of(arm) != "gold-noised" or "noised" not in given.sources:
        return
    mine = given.where(given.source == given.sources.index("noised")).distinct("piece", "text")
    known = (gold[mine.text] != -1) & (consensus[mine.text] != -1)
    mine = mine.where(known)
    texts = np.unique(mine.text)
    if len(texts) < 30:
        return
    noised = float((mine.target != gold[mine.text]).mean())
    wrong = float((consensus[texts] != gold[texts]).mean())
    error = SURPRISE * max(wrong * (1 - wrong), 1 / len(texts)) ** 0.5 / len(texts) ** 0.5
    if abs(noised - wrong) > error:
        yield (
            f"{arm} is wrong in {noised:.1%} of its rows, the consensus in {wrong:.1%} of these texts: that is not the "
            "noise of the consensus"
        )


def _never_voted(rows: ArmRows, given: ArmRows, arm: str, votes: pd.DataFrame | None) -> Iterator[str]:
    """Labels of source vote that nobody, or not the annotator of the name, gave to their text."""
    import numpy as np
    import pandas as pd

    if votes is None or "vote" not in given.sources:
        return
    mine = given.where(given.source == given.sources.index("vote")).distinct("text", "target")
    if not len(mine.text):
        return
    cast = votes[votes["label"].notna()]
    who = given_in(arm) if kind_of(arm) == "single" else ""
    if who:
        cast = cast[cast["annotator"] == who]
    text = pd.Index(rows.ids).get_indexer(cast["text_id"].map(str))
    label = pd.Index(rows.targets).get_indexer(cast["label"])
    known = (text >= 0) & (label >= 0)
    cells = np.unique(text[known].astype(np.int64) * len(rows.targets) + label[known])
    lost = ~np.isin(mine.text.astype(np.int64) * len(rows.targets) + mine.target, cells)
    if lost.any():
        by = who or "any annotator"
        yield f"{int(lost.sum())} training row(s) of {arm} carry a label that {by} never gave to their text"
