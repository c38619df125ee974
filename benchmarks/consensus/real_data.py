"""The real votes that the benchmarks of consensus run on, as coded votes with gold; see accuracy.py for what is drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from consenso.consensus.votematrix import CodedVotes, Count, code_votes
from consenso.labels import LabelSchema

DATA = Path(os.environ.get("CONSENSO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
DRAWS = 16
"""Panels, or 5 of 20 workers per text, drawn per setting."""


@dataclass(frozen=True)
class Setting:
    """One panel on one set: what every method gets, and gold."""

    name: str
    draw: int
    votes: CodedVotes
    gold: np.ndarray
    """Positions in `votes.labels`, (n,); −1: not scored."""
    families: dict[str, str]
    """Annotator → family; empty for crowds."""


def settings(draws: int = DRAWS) -> Iterator[Setting]:
    """Yield all settings; draw d of a set uses numpy's default_rng([20261127, d])."""
    yield from weather(draws)
    for dataset in ("product", "duck", "dog", "face"):
        yield crowd(dataset)
    yield babe()
    yield from babe_panels(draws)
    yield from policy_panels(draws)


def read(folder: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return items and annotations of a set, everything as text."""
    items, votes = (pd.read_csv(DATA / folder / f"{part}.csv.gz", dtype=str) for part in ("items", "annotations"))
    votes["repetition"] = votes["repetition"].astype(int)
    return items, votes


def weather(draws: int) -> Iterator[Setting]:
    """5 of the 20 workers' labels per tweet, drawn without replacement; scored on the 632 tweets with clean gold."""
    items, votes = read("weather_crowd")
    clean = items["gold_confirmed"].eq("Yes") & items["gold_confidence"].astype(float).eq(1)
    items["gold"] = items["gold"].where(clean)
    for draw in range(draws):
        rng = np.random.default_rng([20261127, draw])
        mine = votes.assign(ticket=rng.random(len(votes))).sort_values("ticket").groupby("text_id").head(5)
        yield _setting("weather_crowd, 5 of 20", draw, items, mine.drop(columns="ticket"), llms=False)


def crowd(dataset: str) -> Setting:
    """One of the four sets without text: all votes."""
    items, votes = read("crowd_notext")
    items, votes = (frame[frame["dataset"] == dataset].drop(columns="dataset") for frame in (items, votes))
    return _setting(f"crowd_notext {dataset}", 0, items, votes, llms=False)


def babe_votes(condition: str | None = "zero-shot") -> tuple[pd.DataFrame, pd.DataFrame]:
    """BABE: the votes of one prompt condition as repetition 0, or all conditions as repetitions."""
    items, votes = read("babe_llm")
    items = items[items["split"] == "pool"]  # the LLMs were asked for these alone
    if condition is not None:
        votes = votes[votes["condition"] == condition].assign(repetition=0)
    return items, votes.drop(columns="condition")


def babe() -> Setting:
    """All 13 LLMs, zero-shot; an unreadable answer is no vote."""
    return _setting("babe_llm zero-shot, 13 LLMs", 0, *babe_votes())


def babe_panels(draws: int) -> Iterator[Setting]:
    """Panels of 5 of the 13 LLMs."""
    yield from _panels("babe_llm zero-shot, panels of 5", draws, *babe_votes())


def policy_votes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The votes of the 88 LLMs; codes outside the 21 of gold are no vote."""
    items, votes = read("textclass_policy_en")
    items = items[items["split"] == "test"]
    votes = votes[votes["kind"] == "llm"].drop(columns="kind")
    for frame, column in ((items, "gold"), (votes, "label")):
        frame[column] = frame[column].str.strip().str.replace(r"\.0$", "", regex=True)
    return items, votes


def policy_panels(draws: int) -> Iterator[Setting]:
    """Panels of 5 of the 88 LLMs."""
    yield from _panels("textclass_policy_en, panels of 5", draws, *policy_votes())


def babe_repeated(count: Count) -> Setting:
    """All 13 LLMs, all 9 prompt conditions as their repetitions."""
    return _setting("babe_llm, 13 LLMs × 9 prompts", 0, *babe_votes(None), count=count)


def family_panels(draws: int) -> Iterator[Setting]:
    """Panels of 3 of one family and one each of 3 others, where LLMs err together most."""
    yield from _panels("babe_llm zero-shot, 3 of a family + 3", draws, *babe_votes(), family_panel)
    yield from _panels("textclass_policy_en, 3 of a family + 3", draws, *policy_votes(), family_panel)


def five(rng: np.random.Generator, annotators: list[str]) -> list[str]:
    """Draw 5 annotators."""
    return list(rng.choice(annotators, 5, replace=False))


def family_panel(rng: np.random.Generator, annotators: list[str]) -> list[str]:
    """Draw a family of at least 3, 3 of its members, and one of each of 3 others."""
    members: dict[str, list[str]] = {}
    for name, family in family_of(tuple(annotators)).items():
        members.setdefault(family, []).append(name)
    chosen = rng.choice([family for family in members if len(members[family]) >= 3])
    others = rng.choice([family for family in members if family != chosen], 3, replace=False)
    return [*rng.choice(members[chosen], 3, replace=False), *(rng.choice(members[other]) for other in others)]


def _panels(
    name: str, draws: int, items: pd.DataFrame, votes: pd.DataFrame, draw_panel: Callable[..., list[str]] = five
) -> Iterator[Setting]:
    annotators = sorted(votes["annotator"].unique())
    for draw in range(draws):
        chosen = draw_panel(np.random.default_rng([20261127, draw]), annotators)
        yield _setting(name, draw, items, votes[votes["annotator"].isin(chosen)])


def _setting(
    name: str, draw: int, items: pd.DataFrame, votes: pd.DataFrame, *, count: Count = "annotator", llms: bool = True
) -> Setting:
    schema = LabelSchema.from_names(sorted(items["gold"].dropna().unique()))
    status = np.where(votes["label"].isin(schema.names), "ok", "invalid_label")
    votes = votes.assign(status=status, label=votes["label"].where(status == "ok"))
    coded = code_votes(votes, schema, texts=items["text_id"], count=count)
    return Setting(name, draw, coded, schema.codes(items["gold"]), family_of(coded.annotators) if llms else {})


def family_of(annotators: tuple[str, ...]) -> dict[str, str]:
    """Annotator → the first word of its name (llama, gpt, mistral, …), as a user would write families down."""
    return {name: name.replace("_", "-").split("-")[0].rstrip("0123456789.") for name in annotators}


def accuracy(shares: np.ndarray, gold: np.ndarray) -> float:
    """Return the accuracy over the texts with gold; k tied labels credit 1/k, a text without votes 1/K."""
    shares, gold = shares[gold >= 0], gold[gold >= 0]
    best = shares >= shares.max(axis=1, keepdims=True) - 1e-9
    return float((best[np.arange(len(gold)), gold] / best.sum(axis=1)).mean())
