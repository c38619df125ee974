"""The panel and gold held against each other: tables for a run folder; empty where nothing can be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.gold_noise import find_gold_noise, gold_noise_bound
from consenso.consensus.panels import map_panel
from consenso.errors import ConsensoError, DataError
from consenso.tables import GOLD_BOUND, GOLD_NOISE, MISSED, PANELS, VOTES, Table, check

if TYPE_CHECKING:
    import pandas as pd

    from consenso.labels import LabelSchema

PANEL = 100
"""Above this many annotators they are a crowd, of which nobody sees all texts: no subset stands for all."""
TEXTS = 5_000
"""Of more texts a random sample is mapped: accuracies within a point and a half, in seconds."""
SEEN = 0.5
"""An annotator of a panel votes on this share of the texts at least."""


def describe_panel(
    votes: pd.DataFrame, gold: pd.Series | None, *, labels: LabelSchema, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the tables MISSED and PANELS of `map_panel` and its sentence, or empty ones and why.

    `votes`: VOTES; `gold`: label names by text id, or None. Costs are the votes' own, per text.
    """
    empty, votes = (_empty(MISSED), _empty(PANELS)), check(votes, VOTES)
    answered = votes[votes["status"].eq("ok")].groupby("annotator")["text_id"].nunique()
    if len(answered) < 2:
        return *empty, "A panel has two annotators at least."
    if len(answered) > PANEL or answered.median() < SEEN * votes["text_id"].nunique():
        return *empty, f"{len(answered)} annotators of whom nobody sees all texts are a crowd: no subset stands for it."
    cost = votes.groupby("annotator")["cost"].sum(min_count=1) / votes["text_id"].nunique()
    costs = None if cost.isna().any() or not (cost > 0).all() else cost.to_dict()
    ids = votes["text_id"].drop_duplicates().sort_values()
    if len(ids) > TEXTS:
        votes = votes[votes["text_id"].isin(ids.sample(TEXTS, random_state=seed))]
    try:
        found = map_panel(votes, gold, labels=labels, costs=costs, seed=seed)
    except ConsensoError as error:  # no text with gold has a vote, say: the rest of the stage can still be told
        return *empty, f"The panel cannot be mapped: {error}"
    panels = found.sizes.copy()
    panels["is_chosen"] = [tuple(names) == tuple(found.chosen["annotators"]) for names in panels["annotators"]]
    panels["annotators"] = [" + ".join(names) for names in panels["annotators"]]
    return found.annotators[list(MISSED.columns)], panels[list(PANELS.columns)], found.sentence


def describe_gold(
    labels: pd.DataFrame, votes: pd.DataFrame, gold: pd.Series, schema: LabelSchema
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables GOLD_NOISE and GOLD_BOUND; empty without votes on texts with gold."""
    judged = labels[labels["text_id"].isin(gold.index) & labels["label"].notna()]
    if judged.empty:
        return _empty(GOLD_NOISE), _empty(GOLD_BOUND)
    noise = find_gold_noise(judged, gold, schema=schema)[list(GOLD_NOISE.columns)]
    try:
        return noise, gold_noise_bound(votes, gold, labels=schema)[list(GOLD_BOUND.columns)]
    except DataError:  # no text with gold has two annotators: nobody can be unanimous
        return noise, _empty(GOLD_BOUND)


def _empty(table: Table) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=list(table.columns))
