"""CROWDLAB: the annotators' votes and a classifier's probabilities, each weighted by how far it can be trusted.

Source: Goh, Tkachenko and Mueller (2022), arXiv 2210.06812, section 3; as in cleanlab 2.9, `get_label_quality_multiannotator`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consenso.consensus.methods.shape import Options, Shares
from consenso.consensus.votematrix import label_sums, run_starts
from consenso.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes

LEAST = 1e-6
"""The smallest weight and the smallest error of the guess, as in cleanlab."""
EQUAL = 1e-9
"""Numbers closer than this are equal."""


def crowdlab(votes: CodedVotes, options: Options) -> Shares:
    """Return the weighted mean of votes and `options.probabilities`, (n, K); `Shares.weights`: the annotators' weights.

    Twice over, first with majority's labels as the consensus, then with the first result's: L is how often votes agree
    with the consensus (texts of two annotators and more); a vote gives its label L and each other (1 − L) / (K − 1);
    annotator a weighs 1 − (disagreement with others) / e, the classifier 1 − (its error) / e times √(votes per text),
    where e is the error of always guessing the commonest consensus label.

    Differences from cleanlab: repetitions of an annotator share one vote; a text without probabilities (NaN) rests on
    its votes, one without votes stays zero; a tie that nothing breaks counts half for either label instead of being
    drawn; the label is the one with the highest final share, not the first round's, so that it never contradicts its
    score; where no text has two annotators, votes count in full and everyone weighs 1.

    Raises `ConfigError` if the probabilities are missing or are not (n, K) numbers between 0 and 1 in rows of sum 1.
    """
    import numpy as np

    probabilities = _checked(votes, options.probabilities)
    sums = label_sums(votes, votes.weight)
    if not len(votes.text):
        return Shares(sums)
    panel = Panel(votes, sums, probabilities, _agreement(votes, sums))
    _, values = panel.weigh(panel.majority())
    weights, values = panel.weigh(_best(values, panel.majority()))
    return Shares(np.where(panel.number[:, None] > EQUAL, values, 0.0), weights=weights)


@dataclass(frozen=True, eq=False)
class Panel:
    """What both rounds work on."""

    votes: CodedVotes
    sums: np.ndarray
    """The weight of the votes per text and label, (n, K)."""
    probabilities: np.ndarray
    """(n, K); a row of zeros where there are none."""
    agreement: np.ndarray
    """How often other annotators agree with each, (A,); NaN: no text has two."""

    @property
    def number(self) -> np.ndarray:
        """The annotators per text, (n,)."""
        total: np.ndarray = self.sums.sum(axis=1)
        return total

    def majority(self) -> np.ndarray:
        """Return majority's labels as shares of 1, (n, K); ties go by the probabilities, then the rarer label, then trust."""
        import numpy as np

        tied = _largest(self.sums, self.sums > -1)
        tied = _largest(self.probabilities, tied)
        tied = _largest(np.broadcast_to(-self.sums.sum(axis=0), tied.shape), tied)
        if (several := tied.sum(axis=1) > 1).any():
            tied[several] = _largest(self._trust(tied)[several], tied[several])
        return tied / tied.sum(axis=1, keepdims=True)

    def _trust(self, tied: np.ndarray) -> np.ndarray:
        """Return the mean agreement with clear majorities of those who gave a label, (n, K)."""
        import numpy as np

        text, given, weight = self.votes.text, self.votes.label, self.votes.weight
        clear = (tied.sum(axis=1) == 1)[text] & (self.sums[text] >= self.sums.max(axis=1)[text][:, None] - EQUAL).any(axis=1)
        A = len(self.votes.annotators)
        total = np.bincount(self.votes.annotator, weights=weight * clear, minlength=A)
        right = np.bincount(self.votes.annotator, weights=weight * clear * tied[text, given], minlength=A)
        mean = right.sum() / total.sum() if total.sum() else 0.0
        trust = np.divide(right, total, out=np.full(A, mean), where=total > 0)
        each = np.bincount(text * tied.shape[1] + given, weights=weight * trust[self.votes.annotator], minlength=tied.size)
        sums = self.sums
        return np.divide(each.reshape(tied.shape), sums, out=np.zeros_like(sums), where=sums > 0)

    def weigh(self, consensus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return NotImplemented
