"""From the arms of a list to the arms of a study: curves, best annotators and panels, once the data are known."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from consenso.errors import ConfigError
from consenso.finetune.arm_names import FLOOR_ARMS, PRESETS, expand_presets, split_arm
from consenso.finetune.arm_texts import Soft, Votes, valid_votes
from consenso.finetune.arms import ARMS, arm_called
from consenso.tables import with_text_ids

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

FIRST = 250  # of gold@curve; then twice as many each time


def needs_of(arms: Iterable[str], soft: Soft = "shares") -> frozenset[str]:
    """Return what some arms read: gold, aligned gold, labels, shares, score, votes, text, panel."""
    needs = {need for arm in arms for need in arm_called(arm).needs}
    return frozenset(needs | ({"votes"} if "shares" in needs and soft == "votes" else set()))


def expand_arms(
    names: str | Sequence[str],
    *,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    votes: pd.DataFrame | None = None,
    panel_labels: Mapping[str, pd.DataFrame] | None = None,
    soft: Soft = "shares",
) -> list[str]:
    """Return the arms, sorted, that a list of arms, presets and open names stands for with these data.

    `gold@curve`: 250, 500, 1000, … below the number of train and dev texts with gold (of the fold with the fewest);
    `single:best`: the annotator that agrees most with the others on train and dev; `single:each`, `panel:each`: all.
    `floor` brings `floor-prior`. With `full` in the list, its arms that the data do not allow are left out.
    Gold is counted, not read; that of test texts is not even counted.
    """
    if not isinstance(names, str | Sequence) or not len(names):
        raise ConfigError(f"arms must be a list of names; found {names!r}; choose from {', '.join(ARMS)}")
    listed = expand_presets(names)
    if isinstance(names, str) and names not in PRESETS:
        raise ConfigError(f"arms must be a list of names; found {names!r}; choose from {', '.join(ARMS)}")
    wanted = [name for name in listed if name != "full"]
    for name in wanted:
        arm_called(name)
    known = _Known(texts, with_text_ids(folds), labels, votes, sorted(panel_labels or {}), soft)
    if "full" in listed:
        wanted = [name for name in wanted if name not in PRESETS["full"] or known.allows(name)]
    if not (found := {arm for name in wanted for arm in known.arms_of(name)}):
        raise ConfigError(f"arms: with these data {', '.join(map(repr, names))} stands for no arm; list other arms")
    return sorted(found | (set(FLOOR_ARMS) if "floor" in found else set()))


@dataclass(frozen=True)
class _Known:
    """What there is to make arms from."""

    texts: pd.DataFrame
    folds: pd.DataFrame
    labels: pd.DataFrame
    votes: pd.DataFrame | None
    panels: list[str]
    soft: Soft

    @cached_property
    def learnable(self) -> pd.DataFrame:
        """The train and dev rows of the folds."""
        return self.folds[self.folds["part"] != "test"]

    def arms_of(self, name: str) -> list[str]:
        """Return the arms that one name stands for."""
        if name == "gold@curve":
            return [f"gold@{n}" for n in curve_sizes(self.fewest(self._with("gold")))]
        if name == "panel:each":
            return self.panels
        if name in {"single:best", "single:each"}:
            if self.votes is None:
                raise ConfigError(f"arm {name!r} needs the votes; give votes=")
            if not (ranked := rank_annotators(self.votes, self.learnable["text_id"])):
                raise ConfigError(f"arm {name!r}: no train or dev text has a valid vote")
            return [f"single:{annotator}" for annotator in ranked[: 1 if name == "single:best" else None]]
        return [name]

    def allows(self, name: str) -> bool:
        """Return whether the data allow an arm of the preset `full`; the log says what is missing."""
        has = {
            "gold": self.fewest(self._with("gold"), "train") > 0,
            "votes": self.votes is not None,
            "score": "score" in self.labels,
            "shares": self.soft == "votes" or "shares" in self.labels,
            "panel": bool(self.panels),
            "text": "text" in self.texts,
        }
        missing = sorted(need for need in needs_of([name], self.soft) if not has.get(need, True))
        family, parameter = split_arm(name)
        if family.startswith("consensus+") and not missing:
            both = self._with("gold") & set(with_text_ids(self.labels).dropna(subset=["label"])["text_id"])
            missing = [] if self.fewest(both) >= int(parameter) else [f"{parameter} texts with both labels"]
        if missing:
            logger.info("arms: full leaves out %s (no %s)", name, ", ".join(missing))
        return not missing

    def fewest(self, ids: set[str], part: str | None = None) -> int:
        """Return how many of these texts the fold with the fewest has in train and dev, or in one part."""
        here = self.learnable if part is None else self.learnable[self.learnable["part"] == part]
        counts = here["text_id"].isin(ids).groupby(here["fold"]).sum()
        return int(counts.reindex(self.folds["fold"].unique(), fill_value=0).min())

    def _with(self, column: str) -> set[str]:
        if column not in self.texts:
            return set()
        texts = with_text_ids(self.texts[["text_id", column]])
        return set(texts.loc[texts["text_id"].isin(self.learnable["text_id"])].dropna()["text_id"])


def curve_sizes(available: int) -> list[int]:
    """Return 250, 500, 1000, … below the number of human labels there are."""
    sizes = [FIRST]
    while sizes[-1] < available:
        sizes.append(2 * sizes[-1])
    return sizes[:-1]


def rank_annotators(votes: pd.DataFrame, ids: pd.Series) -> list[str]:
    """Return the annotators with a valid vote on these texts, the one that agrees most with the others first.

    Agreement with another annotator: the share of equal labels among the texts that both label (most of their
    repetitions); then the mean over the others. No human label enters. Equal: in the order of their names.
    """
    import numpy as np
    import pandas as pd

    valid = valid_votes(votes)
    valid = valid[valid["text_id"].isin(set(ids))]
    names = sorted(valid["annotator"].unique())
    text, index = pd.factorize(valid["text_id"])
    code, labels = pd.factorize(valid["label"])
    coded = Votes(tuple(names), text, pd.Index(names).get_indexer(valid["annotator"]), code)
    own = [coded.own_labels(a, len(index), len(labels)) for a in range(len(names))]
    means = [_mean_agreement(own, a) for a in range(len(names))]
    order = np.lexsort((np.arange(len(names)), -np.array(means)))
    return [names[a] for a in order]


def _mean_agreement(own: list[np.ndarray], a: int) -> float:
    shared = [(own[a], other) for b, other in enumerate(own) if b != a and ((own[a] >= 0) & (other >= 0)).any()]
    agreed = [float((mine == other)[(mine >= 0) & (other >= 0)].mean()) for mine, other in shared]
    return sum(agreed) / len(agreed) if agreed else 0.0
