"""Examples for prompts, drawn from train gold: they count as human labels, and their texts train no aligned arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.annotate.annotators import CausalAnnotator, LLMAnnotator
from consenso.annotate.prompting import Example
from consenso.annotate.settings import AnnotateSettings
from consenso.errors import DataError
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 600
"""Characters of a text that may be an example."""


def needs_gold(settings: AnnotateSettings) -> bool:
    """Return whether annotating takes some gold: for examples that are drawn, or for candidates."""
    return settings.candidates is not None or bool(_wanted(settings))


def _wanted(settings: AnnotateSettings) -> dict[str, int]:
    return {
        one.name: one.examples
        for one in settings.annotators
        if isinstance(one, (LLMAnnotator, CausalAnnotator)) and isinstance(one.examples, int) and one.examples
    }


def draw_examples(
    settings: AnnotateSettings, texts: pd.DataFrame, train_ids: set[str], schema: LabelSchema, *, seed: int = 0
) -> dict[str, list[Example]]:
    """Return annotator → examples, for annotators that ask for so many per label.

    `texts`: text_id (as strings), text, gold. All draw from one shuffled order, so that an annotator with fewer examples
    uses the first of one with more. Raises `DataError` where a label has too few train texts with gold.
    """
    wanted = _wanted(settings)
    if not wanted:
        return {}
    import numpy as np

    known = texts[texts["gold"].notna() & texts["text_id"].isin(train_ids)]
    known = known[known["text"].str.len() <= LONGEST]
    known = known.iloc[np.random.default_rng(seed).permutation(len(known))]
    most = max(wanted.values())
    by_label = {}
    for name in schema:
        mine = known[known["gold"] == name].head(most)
        if len(mine) < most:
            raise DataError(
                f"examples = {most} per label, but label {name!r} has {len(mine)} training text(s) with gold of at most "
                f"{LONGEST} characters; "
                "ask for fewer, or write the examples out"
            )
        by_label[name] = [Example(str(t), name, str(i)) for i, t in zip(mine["text_id"], mine["text"])]
    # label by label in turn, so that no label's examples stand in a block at the end, which models copy
    return {who: [by_label[name][place] for place in range(count) for name in schema] for who, count in wanted.items()}
