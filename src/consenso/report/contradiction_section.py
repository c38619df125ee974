"""The section about texts whose consensus contradicts gold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    P95,
    Block,
    Cases,
    Cell,
    Column,
    Grid,
    Note,
    Section,
    absent,
    count,
    percent,
    plural,
)
from consenso.report.facts import Facts
from consenso.report.text_cases import list_cases

if TYPE_CHECKING:
    import pandas as pd

EITHER = (
    "Votes cannot tell errors of gold from errors that annotators share: texts that are hard in the same way for everybody, "
    "and models of one family, make all of them wrong at once. Only people who look at texts can; the list is where to "
    "look first."
)


def contradictions(facts: Facts) -> Section:
    """Return how often all annotators contradict gold, what chance would give, and the texts to look at first."""
    section = ("contradictions", "Where the consensus contradicts gold")
    if facts.consensus is None:
        return Section(*section, [Note(facts.why_absent("labels"), "absent")])
    if facts.open_gold is None:
        return Section(*section, [Note(f"The consensus cannot contradict gold: {facts.no_gold}.", "absent")])
    if not facts.folder.has("gold_noise"):
        return Section(*section, [Note(facts.why_absent("gold_noise"), "absent")])
    noise, bound = facts.table("gold_noise"), facts.table("gold_bound")
    blocks: list[Block] = []
    if bound is not None:
        blocks += _bound(facts, bound)
    judged = facts.consensus[facts.consensus["text_id"].isin(facts.open_gold.index)]["label"].notna().sum()
    if noise is not None and facts.open_ids is not None:
        noise = noise[noise["text_id"].isin(facts.open_ids)]
    if noise is None or noise.empty:
        return Section(*section, [*blocks, Note("The consensus contradicts gold on no text.", "absent")])
    return Section(*section, [*blocks, *_listed(facts, noise.sort_values("rank"), int(judged))])


def _bound(facts: Facts, bound: pd.DataFrame) -> list[Block]:
    """The table per gold class, and the sentences that say what it may mean."""
    order = {name: k for k, name in enumerate(["all", *facts.label_names])}
    bound = bound.sort_values("gold", key=lambda names: names.map(order).fillna(len(order)), kind="stable")
    rows = []
    for _, row in bound[bound["n"] > 0].iterrows():
        whole = row["gold"] == "all"
        spread = "" if absent(row["low"]) else f"{percent(row['low'])} to {percent(row['high'])}"
        rows.append(
            [
                Cell("all texts" if whole else str(row["gold"]), tone="primary" if whole else ""),
                Cell(count(row["n"])),
                Cell(count(row["unanimous"])),
                Cell(percent(row["share"]), small=spread),
                Cell(percent(row["expected_independent"])),
                Cell(percent(row["expected_together"])),
                Cell(percent(row["share_confident"]), small=plural(row["n_confident"], "text")),
            ]
        )
    if not rows:
        return []
    heads = (
        "texts", "all against gold", "share", "expected if errors are independent", "at most if they err as one",
        "doubted by confident learning",
    )  # fmt: skip
    caption = (
        "Texts whose annotators (two or more) all give one and the same label that is not gold, by gold label; on "
        f"{facts.open_words}; with {P95} intervals. Beside it what is to be expected if gold is right everywhere, and the "
        "texts that confident learning (Northcutt et al. 2021) counts as another label"
    )
    grid = Grid(caption, [Column("gold"), *(Column(name, True) for name in heads)], rows)
    total = bound[bound["gold"] == "all"]
    said = [Note(_meaning(total.iloc[0]))] if len(total) and total["n"].iloc[0] > 0 else []
    return [*said, grid, Note(EITHER)]


def _meaning(row: pd.Series) -> str:
    if not row["unanimous"]:
        return f"On none of {plural(row['n'], 'text')} do all annotators give one and the same label that is not gold."
    said = (
        f"On {count(row['unanimous'])} of {plural(row['n'], 'text')} ({percent(row['share'])}) all annotators give one and "
        f"the same label that is not gold. If gold were right and they erred independently of each other, it would be "
        f"{_spoken(row['expected_independent'])}"
    )
    if absent(row["expected_together"]):
        return said + "."
    more = f"if they erred like one, it could be up to {_spoken(row['expected_together'])}"
    enough = row["expected_together"] >= row["share"]
    return f"{said}; {more}" + (", so that shared errors alone could explain it." if enough else ".")


def _spoken(share: float) -> str:
    return percent(share).replace("< ", "under ").replace("> ", "over ")


def _listed(facts: Facts, noise: pd.DataFrame, judged: int) -> list[Block]:
    total, most = len(noise), facts.settings.problematic_cases
    said = f"The consensus contradicts gold on {count(total)} of {plural(judged, 'text')} with both"
    if not most or facts.table("votes") is None or facts.table("texts") is None:
        return [Note(said + "; none is listed here.")]
    noise = noise.head(most)
    listed = f"the {count(len(noise))} with the least support for gold are listed" if total > 1 else "it is listed"
    kept = "" if facts.open_ids is None else " Only train and dev texts are."
    share = "posterior" if facts.posterior else "share"
    facts_of = [
        [
            ("gold", str(row["gold"])),
            ("consensus", str(row["label"])),
            (f"{share} of the consensus", percent(row["score"])),
            (f"{share} of gold", percent(row["self_confidence"])),
        ]
        for _, row in noise.iterrows()
    ]
    return [Cases(f"{said}; {listed}.{kept}", list_cases(facts, noise["text_id"], facts_of))]
