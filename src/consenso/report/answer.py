"""The answer: the primary contrast's verdict word, its sentence, what it means, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consenso.report.advice import GO_ON, MEANINGS, OWN_ADVICE, RECIPES, STEPS, meaning_of
from consenso.report.blocks import (
    MISSING,
    P95,
    Answer,
    Figure,
    absent,
    capital,
    interval,
    number,
    percent,
    plural,
    points,
)
from consenso.report.contrast_section import as_contrast, levels_of, verdict_of
from consenso.report.facts import METRICS, Facts
from consenso.report.forest_plot import headline
from consenso.report.further_answers import LOOKS, further_answers, guard_counts, head_of, sentence_of
from consenso.report.gold_used import gold_words
from consenso.report.numbers import accuracy, confusion

if TYPE_CHECKING:
    import pandas as pd

SAME, DIFFERENT = "On the same texts,", "The two arms hold different texts, so not the labels alone count:"

_NAMES = {"consensus": "consensus labels", "gold": "human labels", "gold-aligned": "human labels"}


def make_answer(facts: Facts) -> Answer:
    """Return the answer of a run folder, also where the run stopped before there is one or it is out of date."""
    limits = [said] if (said := gold_words(facts)) else []
    return replace(_answer(facts), limits=limits)


def _answer(facts: Facts) -> Answer:
    if facts.table("comparison") is not None and facts.state("compare") != "current":
        return _not_current(facts)
    rows = [(student, facts.primary(student)) for student in facts.students]
    found = [(student, row) for student, row in rows if row is not None]
    if not found:
        return _no_answer(facts)
    student, row = found[0]
    verdict = verdict_of(row)
    head = head_of(verdict)
    sentence = sentence_of(row)
    tone, glyph = LOOKS.get(head, ("open", "·"))
    meaning, advice = _meaning(facts, row, head)
    return Answer(
        word=verdict,
        tone=tone,
        glyph=glyph,
        sentence=sentence,
        meaning=meaning,
        advice=advice,
        reason=_not_yet_said(row["reason"], sentence),
        figures=[*_label_figures(facts), *([] if head == "INVALID" else _arm_figures(row))],
        chart=None if head == "INVALID" else _chart(row),
        others=further_answers(facts, student, rows),
        guards=guard_counts(facts),
    )


def _meaning(facts: Facts, row: pd.Series, head: str) -> tuple[str, str]:
    starred = f"{head}*" if verdict_of(row) != head and f"{head}*" in MEANINGS else head
    reason = "" if absent(row["reason"]) else str(row["reason"])
    meaning, advice = meaning_of(starred, reason, own=facts.is_own_predictions)
    arm, control = _sides(row)
    same = facts.same_texts(str(row["student"]), str(row["arm"]), str(row["control"]))
    said = {
        "arm": arm,
        "control": control,
        "Arm": arm[:1].upper() + arm[1:],
        "margin": points(row["margin"]).lstrip("+"),
        "recipe": RECIPES.get(str(row["student"]).split(" (")[0], STEPS),
        "Texts": SAME if same else DIFFERENT,
    }
    return meaning.format(**said), advice.format(**said)


def _not_yet_said(reason: Any, sentence: str) -> str:
    """The comparison's reason without the parts that its sentence holds, as a sentence."""
    parts = [] if absent(reason) else [part.strip() for part in str(reason).split("; ")]
    text = "; ".join(part for part in parts if part and part.lower() not in sentence.lower())
    return capital(text) + ("" if not text or text.endswith((".", "!", "?")) else ".")


def _sides(row: pd.Series) -> tuple[str, str]:
    """The two arms in words."""
    arm, control = (_NAMES.get(row[side], f"“{row[side]}”") for side in ("arm", "control"))
    return (arm, control) if arm != control else (f"“{row['arm']}”", f"“{row['control']}”")


def _not_current(facts: Facts) -> Answer:
    """The answer where the comparison belongs to earlier settings, or did not finish: its verdict is not shown."""
    stale = facts.state("compare") == "stale"
    changed = "Settings, data or an earlier stage changed after the arms were compared"
    return Answer(
        word="OUT OF DATE" if stale else "NO VERDICT YET",
        tone="open",
        glyph="…",
        sentence=f"{changed if stale else 'The comparison of the arms did not finish'}: there is no current verdict.",
        meaning="What an earlier comparison found does not answer the present question; sections that rest on it say so.",
        advice="Run “consenso run” again: it does what is missing and keeps what still holds.",
        figures=_label_figures(facts),
    )


def _no_answer(facts: Facts) -> Answer:
    done = "The run folder is empty"
    for name, words in (
        ("predictions", "The arms are trained, but they were not compared"),
        ("labels", "There are consensus labels, but no classifier was trained on them"),
        ("votes", "There are votes, but no consensus labels"),
        ("texts", "There are texts, but no votes"),
    ):
        if facts.table(name) is not None:
            done = words
            break
    if facts.is_own_predictions:
        done = "The predictions do not hold both arms of the primary contrast"
    elif facts.table("comparison") is not None:
        done = "The two arms of the primary contrast were not both trained"
    own = facts.is_own_predictions
    return Answer(
        word="NO ANSWER YET",
        tone="open",
        glyph="…",
        sentence=f"{done}: whether consensus labels may replace human ones is still open.",
        meaning="Everything that exists so far is below.",
        advice=OWN_ADVICE["NO ANSWER YET"] if own else GO_ON,
        figures=_label_figures(facts),
        guards=guard_counts(facts),
    )


def _label_figures(facts: Facts) -> list[tuple[str, str, str]]:
    figures: list[tuple[str, str, str]] = []
    if {facts.state(stage) for stage in ("data", "annotate", "consensus")} != {"current"}:
        return figures
    if facts.consensus is not None:
        if facts.open_gold is not None:
            table = confusion(facts.open_gold, facts.consensus.set_index("text_id")["label"], facts.label_names)
            coverage = percent(1 - table[:, -1].sum() / max(table.sum(), 1))
            decided = percent(accuracy(table, decided=True))
            detail = f"of {plural(int(table.sum()), 'text')}; {decided} of the {coverage} with a label"
            figures.append(("Consensus labels that match gold", percent(accuracy(table)), detail))
        else:
            figures.append(("Consensus labels that match gold", MISSING, facts.no_gold))
    agreement = facts.table("agreement")
    if agreement is not None:
        row = agreement[(agreement["measure"] == "alpha") & (agreement["scope"] == "all")]
        if len(row):
            value, low, high = row.iloc[0][["value", "low", "high"]]
            detail = (
                f"1: always agree, 0: chance; {P95} {number(low, 2)} to {number(high, 2)}"
                if not absent(low)
                else "1: always agree, 0: chance"
            )
            figures.append(("Annotators’ agreement (alpha)", number(value), detail))
    return figures


def _arm_figures(row: pd.Series) -> list[tuple[str, str, str]]:
    metric = METRICS.get(row["metric"], row["metric"])
    runs = f"mean of {plural(row['S'], 'run')}, {plural(row['n'], 'test text')}"
    return [
        (f"Classifier’s {metric}, {_arm_words(row['control'])}", number(row["control_mean"]), runs),
        (
            f"Classifier’s {metric}, {_arm_words(row['arm'])}",
            number(row["arm_mean"]),
            f"{points(row['difference'])}; {runs}",
        ),
    ]


def _arm_words(arm: str) -> str:
    return {
        "gold-aligned": "human labels of the same texts",
        "consensus": "consensus labels",
        "gold": "all human labels",
    }.get(arm, arm)


def _chart(row: pd.Series) -> Figure | None:
    if absent(row["difference"]) or absent(row["margin"]):
        return None
    wide, narrow = headline(as_contrast(row), float(row["margin"]), *_sides(row))
    margin = points(row["margin"]).lstrip("+")
    wider, narrower = levels_of(row)
    said = (
        f"{row['contrast']} in percentage points: {points(row['difference'])}, {wider} interval "
        f"{interval(row['low'], row['high'])}, {narrower} interval {interval(row['low90'], row['high90'])}; "
        f"differences within ±{margin} were declared too small to matter."
    )
    caption = (
        f"The primary contrast, in percentage points. Thin line: {wider} interval; thick: {narrower} interval. EQUIVALENT would "
        "mean that the thick line lies wholly inside the shaded band."
    )
    return Figure("headline", caption, said, wide, narrow)
