"""Arms: which texts train a student, with whose labels; one function each. No test text enters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from consenso.errors import ConfigError, nearest
from consenso.finetune.arm_names import split_arm
from consenso.finetune.arm_texts import GOLD, HUMAN, NOISED, PANEL, PERMUTED, VOTE, FoldTexts
from consenso.finetune.selection import KEPT, select_instances

if TYPE_CHECKING:
    import numpy as np

RESAMPLE, SUBSET, LABELLED, WITHIN, PERMUTE, FLIP, SELECT, SUBSET_SELECTED, CORRECT, ANY = range(1, 11)
"""Random streams of a seed and fold: no arm's draws depend on which other arms are made."""


@dataclass(frozen=True)
class Given:
    """The labels that an arm gives to texts."""

    codes: np.ndarray
    """Class position of each text of the fold, −1 where it has none."""
    source: np.ndarray | int
    """Whose label it is: position in SOURCES, for each text or for all."""
    shares: np.ndarray | None = None
    """Soft targets, (n, K); `codes` are then the classes with the largest share."""


class Drawn(NamedTuple):
    """What an arm trains on."""

    rows: np.ndarray
    """Positions of its training texts, with repeats, ascending."""
    labels: Given
    """The labels of training and dev texts."""
    dev: np.ndarray
    """True for its dev texts (train texts are ignored)."""
    row_codes: np.ndarray | None = None
    """Class position of each training row, where a text has several labels: one per vote."""
    row_source: int | None = None
    """Whose labels `row_codes` are: position in SOURCES."""

    @property
    def codes(self) -> np.ndarray:
        """Class position of each training row."""
        return self.labels.codes[self.rows] if self.row_codes is None else self.row_codes


@dataclass(frozen=True)
class Draw:
    """One seed of one arm."""

    arm: str
    fold: int
    seed: int
    copies: np.ndarray
    """How often this seed's resample holds each text; all 1 without resampling."""
    resample: bool

    @property
    def number(self) -> int:
        """The n of gold@n, the k of consensus+k."""
        return int(split_arm(self.arm)[1])

    def rng(self, stream: int) -> np.random.Generator:
        """Return the generator of one stream."""
        import numpy as np

        return np.random.default_rng([self.seed, self.fold, stream])


def gold(texts: FoldTexts, draw: Draw) -> Drawn:
    """Human labels on all train texts: the ceiling."""
    return _all_of(texts, draw, texts.gold >= 0, Given(texts.gold, GOLD))


def gold_aligned(texts: FoldTexts, draw: Draw) -> Drawn:
    """Human labels on the texts that have a consensus label: the control of `consensus`."""
    return _all_of(texts, draw, texts.aligned, Given(texts.gold, GOLD))


def gold_kept(texts: FoldTexts, draw: Draw) -> Drawn:
    """Human labels on the texts of `consensus-kept`."""
    return Drawn(texts.rows(texts.kept, draw.copies), Given(texts.gold, GOLD), texts.aligned)


def gold_at(texts: FoldTexts, draw: Draw) -> Drawn:
    """n human labels in all, drawn per seed; dev gets the fold's share of them, at least two per class, at most half.

    Within a seed n = 250 is a subset of n = 500. A resample draws from the n.
    """
    import numpy as np

    train, dev = (np.flatnonzero((texts.gold >= 0) & part) for part in (texts.is_train, ~texts.is_train))
    n, rng = draw.number, draw.rng(LABELLED)
    _check_enough(n, len(train) + len(dev), "human labels", draw)
    n_dev = min(max(_part_of(n, len(dev), len(train)), min(n // 2, 2 * texts.n_classes)), len(dev))
    rank = rng.random(len(texts.ids))
    rows = np.sort(train[np.argsort(rank[train])][: n - n_dev])
    if draw.resample:
        rows = np.sort(rows[draw.rng(WITHIN).integers(0, max(len(rows), 1), len(rows))])
    chosen = np.zeros(len(texts.ids), dtype=bool)
    chosen[dev[np.argsort(rank[dev])][:n_dev]] = True
    return Drawn(rows, Given(texts.gold, GOLD), chosen)


def gold_noised(texts: FoldTexts, draw: Draw) -> Drawn:
    """Human labels on the aligned texts, flipped at random as often, class by class, as the consensus errs.

    P(consensus | gold) is counted on the aligned train texts; a gold class without any of them takes the label shares of
    the consensus. Each text is flipped once per seed.
    """
    import numpy as np

    seen = texts.aligned & texts.is_train
    counts = np.zeros((texts.n_classes, texts.n_classes))
    np.add.at(counts, (texts.gold[seen], texts.consensus[seen]), 1)
    of_class, overall = counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / max(counts.sum(), 1)
    rates = np.where(of_class > 0, counts / np.maximum(of_class, 1), overall)
    limits = np.cumsum(rates, axis=1)[texts.gold]
    flipped = (draw.rng(FLIP).random((len(texts.ids), 1)) >= limits[:, :-1]).sum(axis=1)
    return _all_of(texts, draw, texts.aligned, Given(np.where(texts.aligned, flipped, -1), NOISED))


def consensus(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels on the texts that have one."""
    return _all_of(texts, draw, texts.aligned, _voted(texts))


def consensus_kept(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels without the problematic texts."""
    return Drawn(texts.rows(texts.kept, draw.copies), _voted(texts), texts.aligned)


def consensus_random(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels on a random subset with the size and the class counts of `consensus-kept`: mere size."""
    return _subset_like(texts, texts.kept, draw, SUBSET)


def consensus_selected(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels on the texts that instance selection (biO-IS) leaves."""
    return Drawn(texts.rows(_selected(texts, draw), draw.copies), _voted(texts), texts.aligned)


def consensus_selected_random(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels on a random subset with the size and the class counts of `consensus-selected`."""
    return _subset_like(texts, _selected(texts, draw), draw, SUBSET_SELECTED)


def consensus_soft(texts: FoldTexts, draw: Draw) -> Drawn:
    """Shares as targets instead of one label; a tie for the largest share goes to the consensus label."""
    import numpy as np

    assert texts.shares is not None
    largest = texts.shares.max(axis=1)
    own = texts.shares[np.arange(len(texts.ids)), texts.consensus]
    codes = np.where(np.isclose(own, largest), texts.consensus, texts.shares.argmax(axis=1))
    return _all_of(texts, draw, texts.aligned, Given(codes, texts.source, texts.shares))


def consensus_repeated(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels, every text as often as it has valid votes: row by row the texts of `perspectivist`."""
    import numpy as np

    assert texts.votes is not None
    text = texts.votes.text
    times = np.where((texts.aligned & texts.is_train)[text], draw.copies[text], 0)
    return Drawn(np.repeat(text, times), _voted(texts), texts.aligned)


def perspectivist(texts: FoldTexts, draw: Draw) -> Drawn:
    """One row per valid vote on the aligned texts; its dev texts carry the consensus label."""
    import numpy as np

    assert texts.votes is not None
    text = texts.votes.text
    times = np.where((texts.aligned & texts.is_train)[text], draw.copies[text], 0)
    return Drawn(np.repeat(text, times), _voted(texts), texts.aligned, np.repeat(texts.votes.code, times), VOTE)


def single(texts: FoldTexts, draw: Draw) -> Drawn:
    """The labels of one annotator, most of its repetitions, on the aligned texts for which it has one."""
    assert texts.votes is not None
    _, name = split_arm(draw.arm)
    if name not in texts.votes.annotators:
        known = texts.votes.annotators
        raise ConfigError(f"arm {draw.arm!r}: no such annotator; found {', '.join(known)}.{nearest(name, known)}")
    codes = texts.votes.own_labels(texts.votes.annotators.index(name), len(texts.ids), texts.n_classes)
    return _all_of(texts, draw, texts.aligned & (codes >= 0), Given(codes, VOTE))


def panel(texts: FoldTexts, draw: Draw) -> Drawn:
    """The labels of a smaller panel on the aligned texts for which it has one."""
    codes = texts.panels[draw.arm]
    return _all_of(texts, draw, texts.aligned & (codes >= 0), Given(codes, PANEL))


def permuted(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels dealt out at random over the aligned texts, train and dev apart: there is nothing to learn."""
    import numpy as np

    codes, rng = np.full(len(texts.ids), -1), draw.rng(PERMUTE)
    for part in (texts.is_train, ~texts.is_train):
        codes[texts.aligned & part] = rng.permutation(texts.consensus[texts.aligned & part])
    return _all_of(texts, draw, texts.aligned, Given(codes, PERMUTED))


def corrected(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels after k of them are corrected: problematic texts first, then by score from the lowest."""
    import numpy as np

    ties = draw.rng(CORRECT).random(len(texts.ids))
    return _corrected(texts, draw, np.lexsort((ties, texts.score, ~texts.is_problematic)))


def corrected_at_random(texts: FoldTexts, draw: Draw) -> Drawn:
    """Consensus labels after k of them, drawn at random, are corrected."""
    import numpy as np

    return _corrected(texts, draw, np.argsort(draw.rng(ANY).random(len(texts.ids))))


def _all_of(texts: FoldTexts, draw: Draw, chosen: np.ndarray, labels: Given) -> Drawn:
    return Drawn(texts.rows(chosen, draw.copies), labels, chosen)


def _voted(texts: FoldTexts) -> Given:
    return Given(texts.consensus, texts.source)


def _selected(texts: FoldTexts, draw: Draw) -> np.ndarray:
    """True for the aligned train texts that instance selection leaves under this seed."""
    import numpy as np

    chosen: np.ndarray = texts.aligned & texts.is_train
    if texts.opinion is not None:
        at = np.flatnonzero(chosen)
        chosen[at] = select_instances(texts.opinion, texts.selection, draw.rng(SELECT)) == KEPT
    return chosen


def _subset_like(texts: FoldTexts, kept: np.ndarray, draw: Draw, stream: int) -> Drawn:
    """A random subset of the rows of `consensus`, without replacement, that has the class counts of the kept texts."""
    import numpy as np

    rows, wanted, codes = texts.rows(texts.aligned, draw.copies), texts.rows(kept, draw.copies), texts.consensus
    classes = codes[rows]
    counts = np.bincount(codes[wanted], minlength=texts.n_classes)
    order = np.lexsort((draw.rng(stream).random(len(rows)), classes))
    grouped = classes[order]
    rank = np.arange(len(rows)) - np.searchsorted(grouped, grouped)
    return Drawn(np.sort(rows[order[rank < counts[grouped]]]), _voted(texts), texts.aligned)


def _corrected(texts: FoldTexts, draw: Draw, order: np.ndarray) -> Drawn:
    """Gold for the first k of the aligned texts in `order`, train and dev each their share of k: simulated review."""
    import numpy as np

    order = order[(texts.aligned & (texts.gold >= 0))[order]]
    train, dev = order[texts.is_train[order]], order[~texts.is_train[order]]
    _check_enough(draw.number, len(order), "corrections", draw)
    k_dev = _part_of(draw.number, len(dev), len(train))
    human = np.zeros(len(texts.ids), dtype=bool)
    human[train[: draw.number - k_dev]] = human[dev[:k_dev]] = True
    codes, source = (np.where(human, new, old) for new, old in ((texts.gold, texts.consensus), (HUMAN, texts.source)))
    return _all_of(texts, draw, texts.aligned, Given(codes, source))


def _part_of(n: int, dev: int, train: int) -> int:
    """How many of n fall to dev, rounded half up: one more at most for one more in n, so that draws are nested."""
    return (2 * n * dev + dev + train) // (2 * max(dev + train, 1))


def _check_enough(asked: int, there: int, what: str, draw: Draw) -> None:
    if asked > there:
        raise ConfigError(
            f"arm {draw.arm!r} asks for {asked} {what}, and train and dev of fold {draw.fold} have {there} texts for them; ask "
            "for fewer, or leave the arm out"
        )


class Arm(NamedTuple):
    """One line of ARMS."""

    draw: Callable[[FoldTexts, Draw], Drawn]
    """Texts of a fold, one seed → the arm's rows and labels."""
    needs: tuple[str, ...]
    """What it reads: gold, aligned gold (on every text of it), labels, shares, score, votes, text, panel."""


_ALIGNED_GOLD = ("labels", "gold", "aligned gold")

ARMS: dict[str, Arm] = {
    "gold": Arm(gold, ("gold",)),
    "gold-aligned": Arm(gold_aligned, _ALIGNED_GOLD),
    "consensus": Arm(consensus, ("labels",)),
    "consensus-kept": Arm(consensus_kept, ("labels",)),
    "consensus-random": Arm(consensus_random, ("labels",)),
    "gold-kept": Arm(gold_kept, _ALIGNED_GOLD),
    "consensus-soft": Arm(consensus_soft, ("labels", "shares")),
    "perspectivist": Arm(perspectivist, ("labels", "votes")),
    "consensus-repeated": Arm(consensus_repeated, ("labels", "votes")),
    "consensus-selected": Arm(consensus_selected, ("labels", "text")),
    "consensus-selected-random": Arm(consensus_selected_random, ("labels", "text")),
    "single:<annotator>": Arm(single, ("labels", "votes")),
    "panel:<size>": Arm(panel, ("labels", "panel")),
    "gold-noised": Arm(gold_noised, _ALIGNED_GOLD),
    "permuted": Arm(permuted, ("labels",)),
    "gold@<n>": Arm(gold_at, ("gold",)),
    "consensus+<k>": Arm(corrected, ("labels", "gold", "score")),
    "consensus+<k>:random": Arm(corrected_at_random, ("labels", "gold")),
    "floor": Arm(gold, ("gold",)),
    "floor-prior": Arm(gold, ("gold",)),
}
"""Name, or family of names → arm. The floors hold the gold arm's rows: the prior is read from them, nothing is trained."""

SEVERAL_ROWS = ("perspectivist", "consensus-repeated")
"""Arms with several rows per text: for the number of steps each of their texts counts once."""


def known_arm(name: str) -> bool:
    """Return whether a name is an arm, or stands for arms of a family (gold@curve, single:best, …); presets are none."""
    return "<" not in name and split_arm(name)[0] in ARMS


def arm_called(name: str) -> Arm:
    """Return the line of ARMS that a name belongs to; raises `ConfigError` for an unknown one."""
    if not known_arm(name):
        raise ConfigError(f"unknown arm {name!r}; choose from {', '.join(ARMS)}.{nearest(name, ARMS)}")
    return ARMS[split_arm(name)[0]]
