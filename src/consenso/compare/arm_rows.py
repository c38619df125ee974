"""The arms table as numbers: the guards ask it many questions, and a million rows of strings answer slowly."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class ArmRows:
    """One entry per row of the arms table; every name is a position in the list of its kind."""

    student: np.ndarray
    arm: np.ndarray
    piece: np.ndarray
    """Position of the row's (fold, seed) in `pieces`."""
    is_train: np.ndarray
    text: np.ndarray
    target: np.ndarray
    source: np.ndarray
    shares: np.ndarray
    """Soft targets (lists), None where the target is one label; empty where the table has none."""
    students: list[str]
    arms: list[str]
    pieces: list[tuple[int, int]]
    ids: list[str]
    targets: list[str]
    sources: list[str]

    def where(self, chosen: np.ndarray) -> ArmRows:
        """Return the chosen rows; the lists of names stay as they are."""
        names = ("student", "arm", "piece", "is_train", "text", "target", "source")
        taken = {name: getattr(self, name)[chosen] for name in names}
        return replace(self, **taken, shares=self.shares[chosen] if len(self.shares) else self.shares)

    def of_student(self, name: str) -> ArmRows:
        """Return the rows that hold for a student: its own, and those of all students."""
        import numpy as np

        wanted = [place for place, student in enumerate(self.students) if student in {name, "all"}]
        return self if len(wanted) == len(self.students) else self.where(np.isin(self.student, wanted))

    @cached_property
    def _by_arm(self) -> dict[tuple[str, bool], np.ndarray]:
        """(arm, is train) → positions of its rows."""
        import numpy as np

        group = self.arm.astype(np.int64) * 2 + self.is_train
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(2 * len(self.arms) + 1))
        return {
            (name, bool(train)): order[bounds[2 * place + train] : bounds[2 * place + train + 1]]
            for place, name in enumerate(self.arms) for train in (0, 1)
        }  # fmt: skip

    def places(self, name: str, *, train: bool) -> np.ndarray:
        """Return the positions of the train or the dev rows of an arm."""
        import numpy as np

        return self._by_arm.get((name, train), np.array([], dtype=np.int64))

    def of_arm(self, name: str, *, train: bool) -> ArmRows:
        """Return the train or the dev rows of an arm."""
        return self.where(self.places(name, train=train))

    @cached_property
    def held(self) -> tuple[str, ...]:
        """The arms that have rows here."""
        return tuple(name for name in self.arms if any(len(self._by_arm[name, part]) for part in (True, False)))

    def texts_held(self, name: str, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct (piece, text) of an arm's part as numbers, and how often each stands there."""
        import numpy as np

        rows = self.places(name, train=train)
        keys = self.piece[rows].astype(np.int64) * len(self.ids) + self.text[rows]
        found: tuple[np.ndarray, np.ndarray] = np.unique(keys, return_counts=True)
        return found

    def labels_of(self, name: str) -> list[str]:
        """Return the distinct targets of an arm."""
        import numpy as np

        places = np.concatenate([self.places(name, train=train) for train in (True, False)])
        return [self.targets[code] for code in np.unique(self.target[places])]

    def distinct(self, *names: str) -> ArmRows:
        """Return one row for each combination of these columns."""
        import numpy as np

        key = np.zeros(len(self.arm), dtype=np.int64)
        for name in names:
            values = getattr(self, name)
            key = key * (int(values.max(initial=0)) + 1) + values
        return self.where(np.unique(key, return_index=True)[1])

    def planned(self, only: Collection[str] | None = None) -> set[tuple[str, tuple[int, int]]]:
        """Return the (arm, (fold, seed)) that have rows."""
        rows = self.distinct("arm", "piece")
        pairs = {(self.arms[arm], self.pieces[piece]) for arm, piece in zip(rows.arm, rows.piece)}
        return pairs if only is None else {pair for pair in pairs if pair[0] in only}


def read_rows(arms: pd.DataFrame) -> ArmRows:
    """Return a checked arms table as numbers; text ids are strings from here on."""
    import numpy as np
    import pandas as pd

    named: dict[str, Any] = {}
    for column in ("student", "arm", "target", "source"):
        codes, found = pd.factorize(arms[column])
        named |= {column: codes.astype(np.int32), f"{column}s": [str(value) for value in found]}
    text, ids = pd.factorize(arms["text_id"])
    merged, names = pd.factorize(pd.Series([str(text_id) for text_id in ids], dtype=object))
    fold, seed = (arms[column].to_numpy(dtype=np.int64) for column in ("fold", "seed"))
    width = int(seed.max(initial=0)) + 1
    pieces, piece = np.unique(fold * width + seed, return_inverse=True)
    shares = arms["shares"] if "shares" in arms else pd.Series([], dtype=object)
    return ArmRows(
        piece=piece.astype(np.int32),
        is_train=(arms["part"] == "train").to_numpy(),
        text=merged[text].astype(np.int32) if len(merged) else text.astype(np.int32),
        shares=shares.to_numpy(dtype=object) if shares.notna().any() else np.array([], dtype=object),
        pieces=[(int(key // width), int(key % width)) for key in pieces],
        ids=[str(name) for name in names],
        **named,
    )
