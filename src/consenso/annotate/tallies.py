"""What happens while annotators are asked: counts, agreement with the others, and alarms when one goes astray."""

from __future__ import annotations

import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

INVALID = ("unparsable", "invalid_label", "refused", "truncated", "failed")
"""Statuses of an answer that should have been a label; an abstention is allowed, `settled` was not asked."""
WINDOW = 300
"""Answers that an alarm looks back on."""
SAMPLE = 2000
"""Texts, about, on which agreement is followed."""


@dataclass
class Tally:
    """One annotator's counts in this run."""

    name: str
    """The annotator."""
    total: int = 0
    """Questions there are."""
    kept: int = 0
    """Answers that were in the log already."""
    waiting: int = 0
    """Questions in batch files."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Status → answers of this run."""
    labels: Counter[str] = field(default_factory=Counter)
    """Label → valid answers of this run."""
    requests: int = 0
    rate_limited: int = 0
    errors: int = 0
    reasked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    latency_sum: float = 0.0
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """The last answers: a label, or a status in brackets."""
    first: list[str] = field(default_factory=list)
    """The first answers, likewise."""
    started: float = field(default_factory=time.monotonic)
    last_error: str = ""
    """The last failure's message."""

    def found(self, status: str, count: int = 1) -> None:
        """Count answers that were there already."""
        self.kept += count

    def add(self, status: str, label: str | None) -> None:
        """Count a new answer."""
        self.statuses[status] += 1
        if label is not None:
            self.labels[label] += 1
        said = label if label is not None else f"[{status}]"
        self.recent.append(said)
        if len(self.first) < WINDOW:
            self.first.append(said)

    @property
    def answered(self) -> int:
        """New answers."""
        return sum(self.statuses.values())

    @property
    def done(self) -> int:
        """Answers in all."""
        return self.kept + self.answered

    @property
    def valid(self) -> int:
        """New answers with a label."""
        return sum(self.labels.values())

    @property
    def invalid(self) -> int:
        """New answers that should have been a label."""
        return sum(self.statuses[status] for status in INVALID)

    @property
    def rate(self) -> float:
        """New answers a second."""
        return self.answered / max(time.monotonic() - self.started, 1e-9)

    def snapshot(self, agreement: float | None = None) -> dict[str, Any]:
        """Return what a progress display shows."""
        left = max(0, self.total - self.done)
        rate = self.rate
        return {
            "annotator": self.name, "done": self.done, "total": self.total, "kept": self.kept, "waiting": self.waiting,
            "valid": self.valid, "invalid_rate": self.invalid / self.answered if self.answered else None,
            "rate": rate, "eta_s": left / rate if rate > 0 and left else None, "cost": self.cost,
            "rate_limited": self.rate_limited, "errors": self.errors, "reasked": self.reasked,
            "latency_s": self.latency_sum / self.answered if self.answered else None, "agreement": agreement,
            "failed": self.statuses["failed"], "last_error": self.last_error,
        }  # fmt: skip


class Panel:
    """What annotators said about a sample of texts, to tell how far each agrees with the others."""

    def __init__(self, count: int, *, apart: Iterable[str] = ()) -> None:
        """`count`: texts in all; `apart`: annotators that do not count as others (variants)."""
        self._every = max(1, count // SAMPLE)
        self._said: dict[str, dict[str, str]] = {}
        self._apart = frozenset(apart)

    def add(self, text_id: str, annotator: str, label: str | None) -> None:
        """Note a vote, if its text is in the sample."""
        if label is None or zlib.crc32(text_id.encode("utf-8", "surrogatepass")) % self._every:
            return
        if len(self._said) < 2 * SAMPLE or text_id in self._said:
            self._said.setdefault(text_id, {})[annotator] = label

    def agreement(self, annotator: str) -> tuple[float | None, int]:
        """Return the share of other annotators' votes that equal this one's, over the sample, and the number compared."""
        same = compared = 0
        for votes in self._said.values():
            own = votes.get(annotator)
            if own is None:
                continue
            for other, label in votes.items():
                if other != annotator and other not in self._apart:
                    compared += 1
                    same += label == own
        return (same / compared if compared else None), compared


def find_alarms(tallies: list[Tally], panel: Panel) -> list[tuple[str, str, str]]:
    """Return (annotator, kind, message) for every annotator that has turned constant, drifts, refuses, is cut or unreadable."""
    found = []
    agreements = {t.name: panel.agreement(t.name) for t in tallies}
    shifts = {t.name: _shift(t) for t in tallies}
    for tally in tallies:
        others = [t for t in tallies if t is not tally]
        recent, n = Counter(tally.recent), len(tally.recent)
        if n < 100:
            continue
        if (alarm := _constant(tally, recent, n, others)) is not None:
            found.append((tally.name, "constant", alarm))
        for kind, statuses, limit, what in (
            ("refuses", ("refused",), 0.05, "are refusals"),
            ("truncated", ("truncated",), 0.05, "are cut off: raise max_tokens, or context"),
            (
                "unreadable",
                ("unparsable", "invalid_label"),
                0.10,
                "name no label: look at them with `consenso log --status unparsable`",
            ),
            ("failed", ("failed",), 0.10, f"failed ({tally.last_error})"),
        ):
            share = sum(recent[f"[{status}]"] for status in statuses) / n
            if share > limit:
                found.append((tally.name, kind, f"{share:.0%} of the last {n} answers {what}"))
        if (alarm := _drift(tally, shifts, others)) is not None:
            found.append((tally.name, "drifts", alarm))
        own, compared = agreements[tally.name]
        rest = [
            value for name, (value, m) in agreements.items() if name != tally.name and value is not None and m >= 100
        ]
        if own is not None and compared >= 100 and len(rest) >= 2 and own < sum(rest) / len(rest) - 0.3:
            found.append(
                (
                    tally.name,
                    "disagrees",
                    f"agrees with the others in {own:.0%} of cases, they with each other far more often",
                )
            )
    return found


def _constant(tally: Tally, recent: Counter[str], n: int, others: list[Tally]) -> str | None:
    label, count = recent.most_common(1)[0]
    if label.startswith("[") or count < n:
        return None
    varied = [
        t for t in others if len(t.recent) >= 100 and Counter(t.recent).most_common(1)[0][1] < 0.95 * len(t.recent)
    ]
    before = len(tally.labels) > 1
    if not varied and not before:
        return None
    return f"the last {n} answers are all {label!r}" + (
        f", while {varied[0].name} uses several labels" if varied else ""
    )


def _shift(tally: Tally) -> float | None:
    """Total variation distance between the first and the last answers' labels."""
    if tally.answered < 2 * WINDOW:
        return None
    first, last = (Counter(s for s in said if not s.startswith("[")) for said in (tally.first, tally.recent))
    a, b = sum(first.values()), sum(last.values())
    if not a or not b:
        return None
    return sum(abs(first[label] / a - last[label] / b) for label in {*first, *last}) / 2


def _drift(tally: Tally, shifts: dict[str, float | None], others: list[Tally]) -> str | None:
    own = shifts[tally.name]
    if own is None:
        return None
    rest = [value for t in others if (value := shifts[t.name]) is not None]
    usual = sum(rest) / len(rest) if rest else 0.15
    if own < (0.25 if rest else 0.4) or own < 2 * usual + 0.1:
        return None
    against = f" (the others': {usual:.2f})" if rest else ""
    return f"its labels have shifted since it began: distance {own:.2f} between the first and the last {WINDOW} answers{against}"
