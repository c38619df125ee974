"""The search for the best subsets of a panel: every subset where they are few, a greedy one where they are many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SWAPS = 3
"""Members that the greedy search tries to replace, at each size: those that are missed least."""
Subset = tuple[int, ...]


class VoteGrid:
    """Votes of all annotators by pattern: texts of one half with the same votes and the same truth are one row."""

    def __init__(self, grid: np.ndarray, truth: np.ndarray, half: np.ndarray, K: int) -> None:
        import numpy as np

        rows, self.sizes = np.unique(np.column_stack([half, truth, grid]), axis=0, return_counts=True)
        self.half, self.truth, self.grid = rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2:]
        self.K, (self.U, self.A) = K, self.grid.shape
        self.place = np.arange(self.U)
        # where each vote stands in counts (K, U), as one number; (A, U), and without the rows that have no vote
        self.voted = np.ascontiguousarray(self.grid.T >= 0)
        self.right = np.ascontiguousarray(self.truth == self.grid.T)
        self.flat = np.where(self.voted, self.grid.T, 0) * np.int64(self.U) + self.place
        self.at = [self.flat[a][self.voted[a]] for a in range(self.A)]
        weights = np.stack([self.sizes * (self.half == 0), self.sizes * (self.half == 1), self.sizes])
        self.weights = weights.astype(float)  # texts in the first half, in the second, in both

    def counts(self, subset: Subset) -> np.ndarray:
        """Return how many of the subset give each label, (K, U)."""
        import numpy as np

        counts = np.zeros((self.K, self.U), dtype=np.int16)
        for a in subset:
            counts.ravel()[self.at[a]] += 1
        return counts

    def credit_of(self, counts: np.ndarray) -> np.ndarray:
        """Return 1/k where the truth is one of the k labels with the most votes, else 0: (U,)."""
        most, right = counts.max(axis=0), counts.ravel()[self.truth * self.U + self.place]
        credit: np.ndarray = ((right == most) & (most > 0)) / (counts == most).sum(axis=0)
        return credit

    def credit(self, subset: Subset) -> np.ndarray:
        """Return what the subset's majority earns: (U,)."""
        return self.credit_of(self.counts(subset))

    def credit_changed(self, counts: np.ndarray, who: np.ndarray, step: int) -> np.ndarray:
        """Return the credit if each of `who` in turn joined (step 1), or left (step −1): (who, U)."""
        import numpy as np

        most = counts.max(axis=0)
        first = (counts == most).sum(axis=0, dtype=np.int16)
        voted, own = self.voted[who], counts.ravel()[self.flat[who]]
        right = counts.ravel()[self.truth * self.U + self.place] + np.int16(step) * self.right[who]
        leads = voted & (own == most)
        if step > 0:
            top = most + leads  # only a label that has the most votes can raise their number
            number = np.where(leads, np.int16(1), first + (voted & (own + 1 == most)))
        else:
            second = (counts == most - 1).sum(axis=0, dtype=np.int16)
            alone = leads & (first == 1)
            top = most - alone
            number = np.where(alone, second + np.int16(1), first - leads)
        share = 1 / np.arange(1, self.K + 2)
        credit: np.ndarray = np.where((right == top) & (top > 0), share[number - 1], 0.0)
        return credit

    def _scores(self, counts: np.ndarray, inside: np.ndarray, step: int, weight: np.ndarray) -> np.ndarray:
        """Return the weighted credit after each possible step, −1 where there is none: (A,)."""
        import numpy as np

        who = np.flatnonzero(inside if step < 0 else ~inside)
        scores = np.full(self.A, -1.0)
        scores[who] = self.credit_changed(counts, who, step) @ weight
        return scores

    def greedy(self, selection: int, size: int) -> list[Subset]:
        """Return one subset per size up to `size`: the best annotator is added, then the least missed members may be replaced."""
        import numpy as np

        weight, inside, found = self.weights[selection], np.zeros(self.A, dtype=bool), []
        counts = self.counts(())
        for _ in range(size):
            gain = self._scores(counts, inside, 1, weight)
            counts.ravel()[self.at[best := int(gain.argmax())]] += 1
            inside[best], value = True, gain[best]
            missed = self._scores(counts, inside, -1, weight)
            for member in np.argsort(-missed, kind="stable")[: min(SWAPS, int(inside.sum()) - 1)]:
                counts.ravel()[self.at[member]] -= 1
                inside[member] = False
                gain = self._scores(counts, inside, 1, weight)
                better = int(gain.argmax()) if gain.max() > value + 1e-9 else int(member)
                counts.ravel()[self.at[better]] += 1
                inside[better], value = True, max(value, gain[better])
            found.append(tuple(np.flatnonzero(inside).tolist()))
        return found


def every_subset(A: int, most: int) -> list[Subset]:
    """Return all subsets of up to `most` of A annotators, in an order in which neighbours differ by few."""
    from itertools import chain, combinations

    return list(chain.from_iterable(combinations(range(A), size) for size in range(1, most + 1)))


class SubsetSearch:
    """The best subsets by three selections: on the first half of the texts, on the second, on all."""

    def __init__(self, panel: VoteGrid, cost: np.ndarray, candidates: list[list[Subset]]) -> None:
        import numpy as np

        scored = [self._score(panel, subsets) for subsets in candidates]  # one list for all three, or one for each
        which = [min(s, len(candidates) - 1) for s in range(3)]
        self.tried = sum(map(len, candidates))
        self.subsets = [candidates[w] for w in which]
        self.scores = [np.round(scored[w][:, s], 6) for s, w in enumerate(which)]
        self.costs = [np.array([cost[list(subset)].sum() for subset in subsets]) for subsets in self.subsets]

    def _score(self, panel: VoteGrid, subsets: list[Subset]) -> np.ndarray:
        """Return the credit of each subset by the three selections: (S, 3)."""
        import numpy as np

        counts, now, scores = panel.counts(()), frozenset[int](), np.empty((len(subsets), 3))
        flat = counts.ravel()
        for row, subset in enumerate(subsets):
            wanted = frozenset(subset)
            for a in now - wanted:
                flat[panel.at[a]] -= 1
            for a in wanted - now:
                flat[panel.at[a]] += 1
            now, scores[row] = wanted, panel.weights @ panel.credit_of(counts)
        return scores

    def best(self, *, size: int | None = None, budget: float = math.inf) -> dict[str, Any]:
        """Return the best subset of a size or within a budget, of equals the cheapest; empty if there is none."""
        import numpy as np

        found = []
        for subsets, scores, costs in zip(self.subsets, self.scores, self.costs):
            length = np.array([len(subset) for subset in subsets])
            at = np.flatnonzero(length == size if size else costs <= budget * (1 + 1e-12))
            if not len(at):
                return {}
            found.append(subsets[at[np.lexsort((at, length[at], costs[at], -scores[at]))[0]]])
        return {"subset": found[2], "halves": (found[0], found[1])}
