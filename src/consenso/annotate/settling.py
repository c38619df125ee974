"""Early settling: annotators are asked in order, and a text whose consensus further votes cannot change is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from consenso.annotate.settings import SettleSettings
from consenso.annotate.sources import TextBatch
from consenso.annotate.votelog import VoteLog

if TYPE_CHECKING:
    from consenso.annotate.lanes import Lane, Settled

PRIOR = (3.5, 1.5)
"""Pseudo-counts of an annotator's right and wrong votes: accuracy .7 before anything is known."""


class Settling:
    """Knows the order of the annotators, and reads what the earlier ones said."""

    def __init__(self, settings: SettleSettings, log: VoteLog) -> None:
        self._settings, self._log = settings, log
        self._lanes: list[Lane] = []
        self._right: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    def follow(self, lanes: Sequence[Lane]) -> None:
        """Set the annotators in the order in which they are asked; variants are not among them."""
        self._lanes = list(lanes)

    def before(self, lane: Lane) -> Sequence[Lane]:
        """Return the annotators that must have answered a batch before this one is asked about it."""
        place = self._place(lane.tally.name)
        return self._lanes[:place] if place >= self._settings.at_least else []

    def _place(self, name: str) -> int:
        return next((place for place, lane in enumerate(self._lanes) if lane.tally.name == name), -1)

    def for_lane(self, name: str) -> Settled:
        """Return the function that tells which texts of a batch are settled before this annotator."""

        def settled(batch: TextBatch) -> set[str]:
            place = self._place(name)
            if place < self._settings.at_least:
                return set()
            votes = self._votes(batch, self._lanes[:place])
            if self._settings.when == "posterior":
                self._learn(votes)
                return {text_id for text_id, said in votes.items() if self._posterior(said) >= self._settings.posterior}
            left = len(self._lanes) - place
            return {text_id for text_id, said in votes.items() if decided(list(said.values()), left)}

        return settled

    def _votes(self, batch: TextBatch, lanes: Sequence[Lane]) -> dict[str, dict[str, str]]:
        """Text id → annotator → its label (the majority of its repetitions); of these very texts, not of earlier ones."""
        found: dict[str, dict[str, Counter[str]]] = {}
        for lane in lanes:
            filed, digests = lane.filed(batch)
            wanted: dict[tuple[str, bytes], list[str]] = {}
            for text_id, file, digest in zip(batch.ids, filed, digests):
                wanted.setdefault((file, digest), []).append(text_id)
            for file, digest, _, _, label, *_ in self._log.answers(lane.row, sorted(filed), ranged=filed is batch.ids):
                for text_id in wanted.get((file, digest), ()) if label is not None else ():
                    found.setdefault(text_id, {}).setdefault(lane.tally.name, Counter())[label] += 1
        return {t: {who: said.most_common(1)[0][0] for who, said in votes.items()} for t, votes in found.items()}

    def _learn(self, votes: dict[str, dict[str, str]]) -> None:
        """Count each annotator's votes that agree with the majority of the others: a rough accuracy, without gold."""
        for said in votes.values():
            for who, label in said.items():
                others = Counter(other for name, other in said.items() if name != who)
                if others and (top := others.most_common(2)) and (len(top) == 1 or top[0][1] > top[1][1]):
                    (self._right if top[0][0] == label else self._wrong)[who] += 1

    def _posterior(self, said: dict[str, str]) -> float:
        """Probability of the best label if annotators err independently and evenly (one-coin model, Dawid & Skene 1979)."""
        if len(said) < self._settings.at_least:
            return 0.0
        labels = self._lanes[0].voter.record.get("labels") or []
        k = max(2, len(labels))
        score: Counter[str] = Counter()
        for who, label in said.items():
            p = (self._right[who] + PRIOR[0]) / (self._right[who] + self._wrong[who] + sum(PRIOR))
            p = min(max(p, 1 / k + 1e-3), 0.99)
            score[label] += math.log(p * (k - 1) / (1 - p))  # type: ignore[assignment]
        rest = k - len(score)
        top = max(score.values())
        total = sum(math.exp(value - top) for value in score.values()) + rest * math.exp(-top)
        return 1 / total


def decided(labels: Sequence[str], left: int) -> bool:
    """Return whether so many further votes, whatever they are, leave the majority label as it is."""
    if not labels:
        return False
    top = Counter(labels).most_common(2)
    second = top[1][1] if len(top) > 1 else 0
    return top[0][1] > second + left
