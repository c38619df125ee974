"""The section about how votes became labels: the method, how it went, and what it leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import Block, Note, Section, count, percent, plural
from consenso.report.facts import Facts
from consenso.report.gold_used import gold_words
from consenso.report.numbers import outvoted

if TYPE_CHECKING:
    import pandas as pd

_TOGETHER = "each annotator’s confusion matrix and the true labels are estimated together, from the votes alone"
METHODS = {
    "majority": "each annotator counts once, and the label with the most votes wins",
    "weighted": "each annotator’s vote counts its weight, and the label with the largest sum wins",
    "unanimous": "a text has a label only where all valid votes agree",
    "threshold": "the label with the most votes wins where its share reaches the threshold",
    "outliers": "labels that few annotators gave are left out, and a text has a label only where exactly one remains",
    "dawid_skene": f"{_TOGETHER} (Dawid and Skene 1979)",
    "dawid_skene_map": f"{_TOGETHER} (Dawid and Skene 1979), with a prior that steadies annotators of few votes",
    "dawid_skene_families": (
        f"{_TOGETHER} (Dawid and Skene 1979), and a vote counts less the more other votes it goes with, above all those of "
        "its own family of models"
    ),
    "one_coin": "each annotator’s accuracy and the true labels are estimated together, from the votes alone",
    "glad": (
        "each annotator has an ability and each text a difficulty, estimated with the true labels from the votes alone "
        "(Whitehill et al. 2009)"
    ),
    "mace": (
        "an annotator either knows the label or gives one out of habit; how often is estimated with the true labels from "
        "the votes alone (Hovy et al. 2013)"
    ),
    "ordinal_dawid_skene": f"{_TOGETHER}; the labels are ordered, and errors are mostly near the truth",
    "crowdlab": (
        "votes and the probabilities of a light classifier are averaged, each weighted by how far it can be trusted "
        "(Goh et al. 2022)"
    ),
}
"""Method → what it does."""
INDEPENDENT = frozenset({"dawid_skene", "dawid_skene_map", "one_coin", "glad", "mace", "ordinal_dawid_skene"})
"""Methods whose posterior takes annotators as independent given the true label."""
TOO_SURE = (
    "The model takes annotators as independent given the true label. Where they err together, as models of one family do, "
    "its posteriors are too sure: they rank texts, but are no chances of being right."
)


def labels_made(facts: Facts) -> Section:
    """Return the method, whether it converged, its note, the gold it used, and how far its posteriors can be read."""
    section = ("made", "How the labels were made")
    labels = facts.voted_labels
    if labels is None or labels.empty:
        return Section(*section, [Note(facts.why_absent("labels"), "absent")])
    method, how = facts.method, facts.how
    said = f"Method {method}" + (f": {METHODS[method]}." if method in METHODS else ".")
    if how.get("converged") and how.get("iterations"):
        said += f" It converged after {plural(how['iterations'], 'iteration')}."
    blocks: list[Block] = [Note(said)]
    note = _sentence(str(how.get("note") or ""))
    if how.get("converged") is False:
        blocks.append(Note(note or f"{method} did not converge: its labels are not settled.", "warned"))
    elif note:
        blocks.append(Note(note))
    if used := gold_words(facts, "consensus_gold"):
        blocks.append(Note(used))
    if differing := _outvoted(facts, labels):
        blocks.append(Note(_contrary(differing)))
    if facts.posterior:
        blocks += _posteriors(facts, labels)
    return Section(*section, blocks)


def score_words(facts: Facts) -> str:
    """Return what the consensus score is, for the method in use."""
    if facts.method == "weighted":
        return "the winning label’s share of the annotators’ weights"
    if facts.method == "outliers":
        return "the winning label’s share of the valid votes once outliers are left out"
    return "the share of the annotators’ valid votes for the winning label"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text + ("" if not text or text.endswith((".", "!", "?")) else ".")


def _outvoted(facts: Facts, labels: pd.DataFrame) -> int:
    import pandas as pd

    votes, more = facts.table("votes"), facts.table("variant_votes")
    if votes is None or facts.method in {"majority", "unanimous", "threshold", "outliers"}:
        return 0
    if more is not None and facts.setting("consensus", "variants", False):
        votes = pd.concat([votes, more], ignore_index=True)
    return outvoted(votes, labels, pooled=facts.setting("consensus", "count") == "vote")


def _contrary(texts: int) -> str:
    which = f"On {plural(texts, 'text')} another label than the consensus has more votes"
    return f"{which}: this method does not count heads but weighs who says what."


def _posteriors(facts: Facts, labels: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = [Note(TOO_SURE)] if facts.method in INDEPENDENT else []
    gold = facts.open_gold
    if gold is None:
        return blocks
    judged = labels[labels["text_id"].isin(gold.index) & labels["label"].notna() & labels["posterior"].notna()]
    if judged.empty:
        return blocks
    sure, right = judged["posterior"].mean(), judged["label"].eq(judged["text_id"].map(gold)).mean()
    said = f"the mean posterior of a label is {percent(sure)}; {percent(right)} of the labels match gold."
    return [*blocks, Note(f"On {count(len(judged))} {facts.open_words}, {said}")]
