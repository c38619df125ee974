"""How much another way of asking the same model moves the labels, and with them the consensus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.annotate.tallies import INVALID
from consenso.intervals import wilson
from consenso.tables import VARIANTS

if TYPE_CHECKING:
    import pandas as pd


class VariantCount:
    """Counts, batch by batch, what variants answer beside their annotators."""

    def __init__(self, variant_of: Mapping[str, str]) -> None:
        """`variant_of`: variant → its annotator."""
        self._of = dict(variant_of)
        self._pairs: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in self._of}
        self._asked: Counter[str] = Counter()
        self._invalid: Counter[str] = Counter()
        self._majorities: dict[str, Counter[bool]] = {name: Counter() for name in self._of}

    def add(self, votes: pd.DataFrame) -> None:
        """Add the votes of some texts: all annotators' and variants', whole texts only."""
        if not self._of:
            return
        said: dict[str, dict[str, Counter[str]]] = {}
        for text_id, annotator, label, status in zip(
            votes["text_id"], votes["annotator"], votes["label"], votes["status"]
        ):
            if annotator in self._of:
                self._asked[annotator] += 1
                self._invalid[annotator] += status in INVALID
            if isinstance(label, str):
                said.setdefault(text_id, {}).setdefault(annotator, Counter())[label] += 1
        for votes_of in said.values():
            own = {who: winner for who, counts in votes_of.items() if (winner := _winner(counts)) is not None}
            panel = {who: label for who, label in own.items() if who not in self._of}
            before = _winner(Counter(panel.values()))
            for variant, base in self._of.items():
                if variant in own and base in own:
                    self._pairs[variant][own[base], own[variant]] += 1
                    after = _winner(Counter({**panel, base: own[variant]}.values()))
                    if before is not None and after is not None:
                        self._majorities[variant][before != after] += 1

    def table(self) -> pd.DataFrame:
        """Return the table of variants."""
        import pandas as pd

        rows = [self._row(variant, base) for variant, base in self._of.items()]
        return pd.DataFrame(rows, columns=list(VARIANTS.columns))

    def _row(self, variant: str, base: str) -> dict[str, Any]:
        pairs = self._pairs[variant]
        n = sum(pairs.values())
        flipped = sum(count for (a, b), count in pairs.items() if a != b)
        low, high = wilson(flipped, n) if n else (None, None)
        labels = sorted({label for pair in pairs for label in pair})
        shifts = {
            label: (
                sum(c for (_, b), c in pairs.items() if b == label)
                - sum(c for (a, _), c in pairs.items() if a == label)
            )
            / n
            for label in labels
        }
        shifted = max(shifts, key=lambda label: abs(shifts[label]), default=None)
        same, other = self._majorities[variant][False], self._majorities[variant][True]
        return {
            "annotator": base, "variant": variant.partition("~")[2] or variant, "n": n, "flipped": flipped,
            "flip_rate": flipped / n if n else None, "low": low, "high": high, "kappa": cohen_kappa(pairs, labels),
            "invalid_rate": self._invalid[variant] / self._asked[variant] if self._asked[variant] else None,
            "largest_shift": shifts[shifted] if shifted is not None else None, "shifted_label": shifted,
            "n_consensus": same + other, "consensus_flipped": other,
            "consensus_flip_rate": other / (same + other) if same + other else None,
        }  # fmt: skip


def cohen_kappa(pairs: Counter[tuple[str, str]], labels: Sequence[str]) -> float | None:
    """Return Cohen's kappa (1960) of counted pairs of labels; None where it is undefined."""
    n = sum(pairs.values())
    if not n:
        return None
    same = sum(count for (a, b), count in pairs.items() if a == b) / n
    first, second = Counter[str](), Counter[str]()
    for (a, b), count in pairs.items():
        first[a] += count
        second[b] += count
    chance = sum(first[label] * second[label] for label in labels) / n**2
    return None if chance >= 1 else (same - chance) / (1 - chance)


def _winner(counts: Counter[str]) -> str | None:
    """The label with most votes, or None where two have as many."""
    top = counts.most_common(2)
    return top[0][0] if top and (len(top) == 1 or top[0][1] > top[1][1]) else None
