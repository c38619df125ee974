"""The sections about labels: distribution, levels, problematic cases, accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import (
    P95,
    Block,
    Cases,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    absent,
    cells,
    count,
    number,
    percent,
    plural,
    words,
)
from consenso.report.facts import Facts
from consenso.report.method_section import score_words
from consenso.report.numbers import wilson
from consenso.report.plots import accuracy_by_level, distribution, levels
from consenso.report.text_cases import list_cases
from consenso.tables import LABEL_STATUSES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEVELS = ("high", "medium", "low")
MOST_RINGS = 12
"""With more annotators than this their rings hide each other, and the chart shows their range."""
MOST_COLUMNS = 60
"""With more annotators than this the table of shares leaves them out."""


def label_distribution(facts: Facts) -> Section:
    """Return how often each label is given by gold, by the consensus and by each annotator."""
    section = ("labels", "Label distribution")
    labels, votes = facts.consensus, facts.table("votes")
    if facts.open_gold is None and labels is None and votes is None:
        return Section(*section, [Note(facts.why_absent("texts", "votes", "labels"), "absent")], group="The labels")
    ids = None if facts.open_gold is None else facts.open_gold.index
    sources: list[tuple[str, pd.Series]] = [] if facts.open_gold is None else [("gold", facts.open_gold)]
    if labels is not None:
        sources.append(("consensus", _among(labels, ids)["label"].dropna()))
    panel = [] if votes is None else list(_among(votes, ids).groupby("annotator")["label"])
    tallies = [
        given.value_counts().reindex(facts.label_names, fill_value=0).to_numpy() for _, given in (*sources, *panel)
    ]
    shares = [tally / max(int(tally.sum()), 1) for tally in tallies]
    figure = _distribution_figure(facts, [who for who, _ in sources], shares, ids)
    caption = "Shares and counts of the valid votes"
    shown = [str(who) for who, _ in (*sources, *panel)]
    if len(panel) > MOST_COLUMNS:
        shown = shown[: len(sources)]
        caption += f"; without the {count(len(panel))} annotators, too many for a table"
    columns = [Column("label"), *(Column(who, number=True) for who in shown)]
    body = []
    for k, name in enumerate(facts.label_names):
        row = [Cell(percent(share[k]), small=count(tally[k])) for _, share, tally in zip(shown, shares, tallies)]
        body.append([Cell(name), *row])
    grid = Grid(caption, columns, body, folded="The same as a table", in_markdown=len(columns) <= 13)
    blocks: list[Block] = [figure, grid] if shown else [figure]
    return Section(*section, blocks, group="The labels")


def _distribution_figure(facts: Facts, sources: list[str], shares: list[np.ndarray], ids: pd.Index | None) -> Figure:
    """`shares`: of each label, first from gold and consensus as far as `sources` has them, then from each annotator."""
    named, people = dict(zip(sources, shares)), shares[len(sources) :]
    few = len(people) <= MOST_RINGS
    wide, narrow = distribution(facts.label_names, named.get("gold"), named.get("consensus"), people, few)
    texts = f"all texts; {facts.no_gold}" if ids is None else f"{plural(len(ids), 'text')}: {facts.open_words}"
    caption = f"Share of each label among {texts}."
    lines = []
    for k, name in enumerate(facts.label_names):
        lines.append(f"{name}: " + ", ".join(f"{who} {percent(share[k])}" for who, share in named.items()))
    legend = [(mark, who) for mark, who in (("bar-gold", "gold"), ("diamond-consensus", "consensus")) if who in named]
    if people:
        everyone = f"from the lowest to the highest of {len(people)} annotators"
        legend.append(("ring", "one annotator") if few else ("line", everyone))
    return Figure("distribution", caption, f"{caption} {'; '.join(lines)}", wide, narrow, legend)


def _among(frame: pd.DataFrame, ids: pd.Index | None) -> pd.DataFrame:
    return frame if ids is None else frame[frame["text_id"].isin(ids)]


def consensus_levels(facts: Facts) -> Section:
    """Return how united the annotators are: scores, levels, statuses."""
    section = ("levels", "Consensus levels")
    labels = facts.voted_labels
    if labels is None or labels.empty:
        return Section(*section, [Note(facts.why_absent("labels"), "absent")])
    blocks: list[Block] = []
    scored = labels[labels["score"].notna()]
    if len(scored):
        bars = _bars(scored)
        wide, narrow = levels(bars, len(labels))
        caption = f"Texts by consensus score: {score_words(facts)} ({plural(len(scored), 'text')} with votes)."
        said = (
            caption
            + " "
            + "; ".join(
                f"score {number(score, 2)}: {plural(n, 'text')} ({level or 'no level'})" for score, n, level in bars
            )
        )
        blocks.append(Figure("levels", caption, said, wide, narrow))
    per_level = labels["level"].value_counts()
    body = [
        [Cell(level), Cell(count(per_level.get(level, 0))), Cell(percent(per_level.get(level, 0) / len(labels)))]
        for level in LEVELS
    ]
    columns = [Column("level"), Column("texts", True), Column("share", True)]
    blocks.append(
        Grid("Levels: how united the votes are (high: score 0.8 or more; medium: 0.6 or more)", columns, body)
    )
    states = labels["status"].value_counts()
    body = [
        [Cell(MEANINGS[s]), Cell(count(states.get(s, 0))), Cell(percent(states.get(s, 0) / len(labels)))]
        for s in LABEL_STATUSES
    ]
    problematic = int(labels["is_problematic"].fillna(False).astype(bool).sum())
    body.append([Cell("marked problematic"), Cell(count(problematic)), Cell(percent(problematic / len(labels)))])
    caption = f"What became of the {plural(len(labels), 'text')} with votes (method: {facts.method})"
    blocks.append(Grid(caption, [Column("outcome"), *columns[1:]], body))
    assert facts.consensus is not None  # voted_labels are a part of it
    if silent := len(facts.consensus) - len(labels):
        blocks.append(Note(f"Nobody was asked about {plural(silent, 'further text')}."))
    return Section(*section, blocks)


MEANINGS = {
    "decided": "has a consensus label",
    "tied": "two or more labels share the lead",
    "below_threshold": "the winner is below the threshold",
    "no_votes": "nobody gave a valid label",
}


def _bars(scored: pd.DataFrame) -> list[tuple[float, int, str]]:
    """One bar per score where there are few, else ten bins; each with its commonest level."""
    scores = scored["score"].round(3)
    if scores.nunique() > 12:
        scores = (scores * 10).apply(lambda x: min(int(x), 9)) / 10
    bars = []
    for score, frame in scored.groupby(scores.to_numpy()):
        level = frame["level"].dropna()
        bars.append((float(score), len(frame), "" if level.empty else str(level.value_counts().sort_index().idxmax())))
    return bars


def problematic_cases(facts: Facts) -> Section:
    """Return the hardest texts with their votes."""
    section = ("problematic", "Problematic cases")
    labels, texts, votes = facts.voted_labels, facts.table("texts"), facts.table("votes")
    if labels is None or texts is None or votes is None:
        return Section(*section, [Note(facts.why_absent("labels", "texts", "votes"), "absent")])
    hard = labels[labels["is_problematic"].fillna(False).astype(bool)]
    total = len(hard)
    if facts.open_ids is not None:
        hard = hard[hard["text_id"].isin(facts.open_ids)]
    most = facts.settings.problematic_cases
    if hard.empty or not most:
        reason = (
            "No text is problematic." if not total else f"{plural(total, 'text')} are problematic; none is listed here."
        )
        return Section(*section, [Note(reason, "absent")])
    measure = (facts.setting("consensus", "problematic") or {}).get("measure", "score")
    order = list(dict.fromkeys([measure, "score", "posterior", "entropy_bits", "text_id"]))
    rising = [name != "entropy_bits" for name in order]
    hard = hard.sort_values(order, ascending=rising, na_position="first").head(most)
    kept = "" if facts.open_ids is None else " Only train and dev texts are listed."
    listed = f"the {count(len(hard))} most disputed are listed.{kept}"
    caption = f"{plural(total, 'text')} of {count(len(labels))} with votes count as problematic; {listed}"
    said = [_facts_of(facts, row) for _, row in hard.iterrows()]
    return Section(*section, [Cases(caption, list_cases(facts, hard["text_id"], said))])


def _facts_of(facts: Facts, row: pd.Series) -> list[tuple[str, str]]:
    given = words(row["label"]) if not absent(row["label"]) else words(row["status"]).replace("_", " ")
    said = [("consensus", given)]
    if facts.open_gold is not None and row["text_id"] in facts.open_gold.index:
        said.append(("gold", str(facts.open_gold[row["text_id"]])))
    said.append(("score", number(row["score"], 2)))
    if facts.posterior:
        said.append(("posterior", number(row["posterior"], 2)))
    entropy = "entropy of the posterior in bits" if facts.posterior else "entropy in bits"
    return [*said, (entropy, number(row["entropy_bits"], 2))]


def accuracy_levels(facts: Facts) -> Section:
    """Return how often the consensus is right at each level."""
    section = ("by-level", "Accuracy by consensus level")
    labels, gold = facts.consensus, facts.open_gold
    if labels is None:
        return Section(*section, [Note(facts.why_absent("labels"), "absent")])
    if gold is None:
        return Section(
            *section,
            [Note(f"The consensus cannot be held against human labels: {facts.no_gold}.", "absent")],
        )
    judged = labels[labels["text_id"].isin(gold.index)]
    right = judged["label"].eq(judged["text_id"].map(gold))
    rows = []
    groups = [(level, judged["level"].eq(level) & judged["label"].notna()) for level in LEVELS]
    for level, chosen in [*groups, ("all", judged["label"].notna())]:
        n, k = int(chosen.sum()), int(right[chosen].sum())
        if n:
            rows.append((level, k / n, *wilson(k, n), n))
    if not rows:
        return Section(*section, [Note("No text with gold has a consensus label.", "absent")])
    wide, narrow = accuracy_by_level(rows)
    caption = (
        f"Share of consensus labels that match gold, with {P95} intervals (Wilson), on "
        f"{facts.open_words}; in brackets: texts."
    )
    said = caption + " " + "; ".join(f"{level}: {percent(value)} of {count(n)}" for level, value, _, _, n in rows)
    columns = [Column("level"), Column("texts", True), Column("right", True), Column(f"{P95} interval", True)]
    body = [
        cells(level, count(n), percent(value), f"{percent(low)} to {percent(high)}")
        for level, value, low, high, n in rows
    ]
    undecided = int(judged["label"].isna().sum())
    blocks: list[Block] = [Figure("by-level", caption, said, wide, narrow)]
    blocks.append(Grid("Accuracy of the decided texts", columns, body, folded="The same as a table"))
    if undecided:
        more = plural(undecided, "further text")
        blocks.append(Note(f"Without a consensus label, neither right nor wrong here: {more} with gold."))
    return Section(*section, blocks)
