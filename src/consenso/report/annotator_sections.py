"""The sections about those who voted: who they are, how sure they were, what they were offered, what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import (
    MISSING,
    Block,
    Cell,
    Column,
    Grid,
    Note,
    Section,
    absent,
    cells,
    count,
    dollars,
    number,
    percent,
    plural,
    points,
    words,
)
from consenso.report.facts import Facts
from consenso.report.gold_used import gold_words, purposes
from consenso.report.numbers import INVALID, accuracy, asked, confusion, macro_f1
from consenso.tables import VOTE_STATUSES

if TYPE_CHECKING:
    import pandas as pd


def annotators(facts: Facts) -> Section:
    """Return who voted: how often validly, and how well against gold; and what went wrong while they were asked."""
    section = ("annotators", "Annotators")
    warnings = [Note(str(note), "warned") for note in facts.record.get("annotate_notes") or []]
    votes = facts.table("votes")
    if votes is None:
        return Section(*section, [Note(facts.why_absent("votes"), "absent"), *warnings], group="The annotators")
    known = facts.table("annotators")
    who = {} if known is None else known.set_index("annotator").to_dict("index")
    states = [s for s in VOTE_STATUSES if s != "ok" and (votes["status"] == s).any()]
    gold = facts.open_gold
    scored = {name: judge(frame, gold, facts.label_names) for name, frame in votes.groupby("annotator")}
    order = sorted(scored, key=lambda name: (-scored[name][0] if scored[name][0] == scored[name][0] else 1.0, name))
    rows = []
    for name in order:
        frame = votes[votes["annotator"] == name]
        given = asked(frame)
        constant = frame["label"].nunique() == 1 and frame["label"].notna().sum() > 1
        small = described(name, who.get(name, {})) + (" · always the same label" if constant else "")
        row = [Cell(name, small=small, tone="warned" if constant else "")]
        row += [Cell(count(len(given))), Cell(percent(given["label"].notna().mean()))]
        row += [Cell(count((frame["status"] == s).sum())) for s in states]
        if gold is not None:
            row += [Cell(percent(scored[name][0]), small=f"of {count(scored[name][2])}"), Cell(number(scored[name][1]))]
        rows.append(row)
    heads = [Column(name, True) for name in ("votes", "valid", *(STATUS_WORDS.get(s, s) for s in states))]
    if gold is not None:
        heads += [Column("accuracy", True), Column("macro-F1", True)]
        judged = f"accuracy and macro-F1 of its valid votes against gold, on {facts.open_words}"
        caption = f"Votes of each annotator, the best first; {judged}"
    else:
        caption = f"Votes of each annotator; no accuracy, because {facts.no_gold}"
    grid = Grid(caption, [Column("annotator"), *heads], rows)
    return Section(*section, [*warnings, grid], group="The annotators")


STATUS_WORDS = {"invalid_label": "invalid label", "settled": "not asked: settled"}
"""Status → its heading, where that is not the status itself."""


def described(name: str, facts_of: Mapping[str, Any]) -> str:
    """Return what is known of an annotator: kind, model, family and repetitions, as far as they say more than its name."""
    said = [words(facts_of.get("kind")), words(facts_of.get("model"))]
    if words(family := facts_of.get("family")) not in (MISSING, *said, name):
        said.append(f"family {family}")
    times = facts_of.get("repetitions", 1)
    if not absent(times) and times > 1:
        said.append(f"{count(times)} repetitions")
    return ", ".join(part for part in said if part not in (MISSING, name))


def judge(votes: pd.DataFrame, gold: pd.Series | None, names: list[str]) -> tuple[float, float, int]:
    """Return accuracy, macro-F1 and number of the valid votes for texts with gold."""
    if gold is None:
        return float("nan"), float("nan"), 0
    valid = votes[votes["label"].notna() & votes["text_id"].isin(gold.index)].reset_index(drop=True)
    table = confusion(valid["text_id"].map(gold), valid["label"], names)
    return accuracy(table), macro_f1(table), int(table.sum())


NO_CONFIDENCE = (
    "How far the annotators’ confidence can be trusted is not known: that takes at least 50 valid votes with a confidence "
    "on train or dev texts with gold. LLMs give one where their endpoint returns token probabilities (logprobs under "
    "[[annotate.annotators]]); imported votes need a column confidence."
)
ECE = (
    "ECE is the expected calibration error: the votes are sorted by confidence into bins of equal width, and in each the "
    "mean confidence is held against the share that is right. It is the mean gap: 0.10 means that the confidence is off by "
    "ten percentage points on average, 0 that it can be read as a probability. Brier is the mean squared gap between "
    "confidence and outcome; lower is better. “Calibrated” figures are of confidences mapped to gold of other texts."
)


def confidence(facts: Facts) -> Section:
    """Return how well each annotator's confidence tells its accuracy, before and after calibration."""
    section = ("confidence", "Confidence of the annotators")
    table = facts.table("confidence")
    if table is None:
        why = NO_CONFIDENCE if facts.folder.has("labels") else facts.why_absent("confidence")
        return Section(*section, [Note(why, "absent")])
    kinds = _kinds(facts)
    rows = []
    for _, row in table.sort_values("annotator").iterrows():
        gap = row["mean_confidence"] - row["accuracy"]
        rows.append(
            [
                Cell(str(row["annotator"]), small=kinds.get(str(row["annotator"]), "")),
                Cell(count(row["n"])),
                Cell(percent(row["mean_confidence"]), small=points(gap)),
                Cell(percent(row["accuracy"])),
                Cell(number(row["ece"]), small=f"{number(row['ece_calibrated'])} calibrated"),
                Cell(number(row["brier"]), small=f"{number(row['brier_calibrated'])} calibrated"),
            ]
        )
    heads = [Column(name, True) for name in ("votes", "confidence", "right", "ECE", "Brier")]
    caption = (
        f"Mean confidence of the valid votes beside the share that is right, on {facts.open_words}; below the confidence "
        "how far it is too high (+) or too low (−)"
    )
    blocks: list[Block] = [Grid(caption, [Column("annotator"), *heads], rows), Note(ECE)]
    if unknown := sorted(set(kinds) - set(table["annotator"])):
        blocks.append(Note(f"Too few votes with confidence and gold to tell: {', '.join(unknown)}."))
    return Section(*section, blocks)


def _kinds(facts: Facts) -> dict[str, str]:
    """Annotator → what its confidence is, of those with any vote that has one."""
    known, votes = facts.table("annotators"), facts.table("votes")
    if known is None or votes is None:
        return {}
    sure = set(votes.loc[votes["confidence"].notna(), "annotator"])
    mine = known[known["annotator"].isin(sure)]
    return {
        str(who): "" if absent(kind) else str(kind) for who, kind in zip(mine["annotator"], mine["confidence_kind"])
    }


NOT_NARROWED = (
    "Every annotator was offered all labels. With many labels, [annotate.candidates] has a light classifier narrow them to "
    "k per text beforehand; how often gold is among the k then stands here."
)


def candidates(facts: Facts) -> Section:
    """Return how often gold is among the labels that a light classifier leaves, and which gold made votes."""
    section = ("candidates", "Candidates")
    recall = (
        facts.table("recall")
        if not facts.folder.has("gold_used") or "candidates" in purposes(facts, "gold_used")
        else None
    )
    used = [Note(said)] if (said := gold_words(facts, "gold_used")) else []
    if recall is None:
        asked_yet = facts.table("votes") is not None
        why = NOT_NARROWED if asked_yet else facts.why_absent("votes")
        return Section(*section, [Note(why, "absent"), *used])
    chosen = (facts.setting("annotate", "candidates") or {}).get("k")
    rows = []
    for _, row in recall.sort_values("k").iterrows():
        k = int(row["k"])
        small = "offered to the annotators" if k == chosen else "the light classifier alone" if k == 1 else ""
        tone = "primary" if k == chosen else ""
        rows.append(
            [Cell(str(k), small=small, tone=tone), *map(Cell, (percent(row["recall"]), percent(row["recall_macro"])))]
        )
    heads = [Column("k"), Column("recall", True), Column("mean over classes", True)]
    caption = (
        f"How often gold is among the k labels that the light classifier finds most probable, out of fold, on "
        f"{plural(recall['n'].iloc[0], 'training text')}"
    )
    return Section(*section, [Note(_ceiling(recall, chosen)), Grid(caption, heads, rows), *used])


def _ceiling(recall: pd.DataFrame, chosen: int | None) -> str:
    """What the candidates mean for the votes."""
    share = dict(zip(recall["k"].astype(int), recall["recall"]))
    said = "A light classifier (TF-IDF and logistic regression) narrowed the labels before the annotators were asked."
    if chosen in share:
        said += f" Gold is among the {chosen} that it leaves in {percent(share[chosen])} of texts: about the most that votes can be right."
    if 1 in share and chosen != 1:
        said += (
            f" The light classifier alone (k = 1) is right in {percent(share[1])}: what the annotators have to beat."
        )
    return said


NO_COST = "No annotator has token counts or costs: its votes were imported, or made on this machine."
HOW_TO_PRICE = "Set price = { input = …, output = … } (USD per million tokens) under [[annotate.annotators]]."


def cost(facts: Facts) -> Section:
    """Return what the votes of each annotator cost, in tokens, money and time, and what the vote log says of it."""
    section = ("cost", "What the votes cost")
    votes = _paid(facts)
    if votes is None:
        return Section(*section, [Note(facts.why_absent("votes"), "absent")])
    if votes.empty:
        return Section(*section, [Note(NO_COST, "absent")])
    rows = [[Cell(str(name)), *_cost_cells(mine)] for name, mine in votes.groupby("annotator", sort=True)]
    if len(rows) > 1:
        rows.append([Cell("all", tone="primary"), *_cost_cells(votes)])
    columns = ("votes", "tokens in", "tokens out", "USD", "USD per 1,000 votes", "seconds each", "invalid")
    caption = (
        "Tokens, money and time of the votes that were asked for; seconds: mean time to an answer; ~ marks a variant"
    )
    blocks: list[Block] = [Grid(caption, [Column("annotator"), *(Column(name, True) for name in columns)], rows)]
    if unknown := sorted({str(who) for who, mine in votes.groupby("annotator") if mine["cost"].isna().all()}):
        blocks.append(Note(f"No price is known for {', '.join(unknown)}; the USD leave them out. {HOW_TO_PRICE}"))
    log = facts.record.get("vote_log")
    if isinstance(log, Mapping) and log.get("statement"):
        blocks.append(Note(_ledger(log)))
    return Section(*section, blocks)


def _paid(facts: Facts) -> pd.DataFrame | None:
    """The votes, variants' too, of those with any token count or cost; None where nobody was asked yet."""
    import pandas as pd

    columns = ["annotator", "status", "tokens_in", "tokens_out", "cost", "latency_s"]
    found = [table[columns] for name in ("votes", "variant_votes") if (table := facts.table(name)) is not None]
    if not found:
        return None
    votes = asked(pd.concat([part.astype(dict.fromkeys(columns[2:], "float64")) for part in found], ignore_index=True))
    counted = votes[["tokens_in", "tokens_out", "cost"]].notna().any(axis=1)
    return votes[votes["annotator"].isin(votes.loc[counted, "annotator"].unique())]


def _cost_cells(votes: pd.DataFrame) -> list[Cell]:
    priced = votes["cost"].notna()
    usd = votes["cost"].sum(min_count=1)
    tokens = (votes[name].sum(min_count=1) for name in ("tokens_in", "tokens_out"))
    per_thousand = 1000 * usd / priced.sum() if priced.any() else None
    invalid = votes["status"].isin(INVALID).mean()
    return cells(
        count(len(votes)), *map(count, tokens), dollars(usd), dollars(per_thousand),
        number(votes["latency_s"].mean(), 2), percent(invalid),
    )  # fmt: skip


def _ledger(log: Mapping[str, Any]) -> str:
    """The vote log's own statement, with its sums."""
    tokens = f"{count(log.get('tokens_in'))} tokens in, {count(log.get('tokens_out'))} out"
    said = f"The vote log: {log['statement']}. Its answers together: {dollars(log.get('cost'))} USD, {tokens}."
    if log.get("lost_cost"):
        said += f" Requests without an answer may have cost up to {dollars(log['lost_cost'])} USD more."
    return said
