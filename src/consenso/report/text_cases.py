"""Texts with the votes they got: the lists of problematic cases and of contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consenso.report.blocks import Case, cut, words
from consenso.report.facts import Facts
from consenso.report.numbers import vote_counts

if TYPE_CHECKING:
    import pandas as pd


def list_cases(facts: Facts, text_ids: pd.Series, said: Sequence[Sequence[tuple[str, str]]]) -> list[Case]:
    """Return a case per text id, in this order; `said`: what is said of each besides its text and votes."""
    texts, votes = facts.table("texts"), facts.table("votes")
    assert texts is not None
    assert votes is not None  # the sections ask beforehand
    shown = texts.set_index("text_id")["text"].reindex(text_ids).astype(object)
    mine = votes[votes["text_id"].isin(text_ids)]
    counted = vote_counts(mine)
    silent = mine[mine["label"].isna()].groupby("text_id")["annotator"].nunique()
    items = []
    for text_id, facts_of in zip(text_ids, said, strict=True):
        text, full = cut(words(shown.get(text_id)), facts.settings.text_length)
        found = counted[counted["text_id"] == text_id]
        given = [(f"{label} ×{n}", _few(who)) for label, n, who in zip(found["label"], found["n"], found["who"])]
        if missing := int(silent.get(text_id, 0)):
            given.append((f"no valid label ×{missing}", ""))
        items.append(Case(str(text_id), text, full, given, facts_of))
    return items


def _few(who: str) -> str:
    """The names, cut where many annotators gave a label."""
    return cut(who, 200)[0]
