"""The one sentence that a paper may say of a verdict: its numbers, and no more than it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.report.blocks import absent, points
from consenso.report.facts import Facts
from consenso.report.further_answers import head_of
from consenso.report.paper_words import arm_words, level, metric_words, size, student_words
from consenso.report.until import alpha_of, alpha_words

if TYPE_CHECKING:
    import pandas as pd

FIXED = "fixed before scoring"
"""The guard that knows whether choices were changed after test scores were seen."""


def sentence_for_paper(facts: Facts, row: pd.Series) -> str:
    """Return the sentence for one row of the comparison, for every verdict word."""
    head = head_of(str(row["verdict"]))
    text = {
        "INVALID": _invalid, "UNSTABLE RECIPE": _unstable, "NO VERDICT": _single, "BETTER": _different, "WORSE": _different,
        "EQUIVALENT": _equivalent, "NON-INFERIOR": _non_inferior, "INCONCLUSIVE": _inconclusive,
    }[head](facts, row, head) if head else _described(facts, row)  # fmt: skip
    prefix = "" if head == "INVALID" else exploratory(facts, str(row["student"]))
    return prefix + (text[0].lower() + text[1:] if prefix else text)


def exploratory(facts: Facts, student: str) -> str:
    """Return how a sentence begins where choices were changed after test scores were seen; '' where they were not."""
    guards = facts.table("guards")
    if guards is None:
        return ""
    mine = guards[(guards["guard"] == FIXED) & guards["scope"].isin(["all", student]) & (guards["outcome"] == "warned")]
    return (
        "In an exploratory analysis (choices were made or changed after test scores were seen), " if len(mine) else ""
    )


def _where(facts: Facts, row: pd.Series) -> str:
    return f"On {data_set(facts, row)}, {student_words(facts, str(row['student']))}"


def data_set(facts: Facts, row: pd.Series) -> str:
    """Return the data set's name."""
    return str(facts.name if absent(row.get("dataset")) else row["dataset"])


def _trained(row: pd.Series) -> str:
    arm, control = str(row["arm"]), str(row["control"])
    return f"trained on {arm_words(arm, control)} instead of {arm_words(control, arm)}"


def _pp(value: float) -> str:
    return f"{points(value, unit=False)} percentage points"


def _margin(row: pd.Series) -> str:
    return f"{100 * float(row['margin']):g}"


def intervals(row: pd.Series) -> str:
    """Return both intervals with their levels, in percentage points."""
    alpha = alpha_of(row)
    wide = f"{level(1 - alpha)} CI {points(row['low'], unit=False)} to {points(row['high'], unit=False)}"
    return (
        f"{wide}; {level(1 - 2 * alpha)} CI {points(row['low90'], unit=False)} to {points(row['high90'], unit=False)}"
    )


def _numbers(row: pd.Series) -> str:
    return f"difference {in_numbers(row)}"


def in_numbers(row: pd.Series) -> str:
    """Return a row's difference with both intervals, and what it rests on."""
    return f"{_pp(row['difference'])}, {intervals(row)}; {size(row)}"


def _invalid(facts: Facts, row: pd.Series, head: str) -> str:
    why = "" if absent(row["reason"]) else f", because a validity check failed ({row['reason']})"
    said = f"no conclusion can be drawn about {student_words(facts, str(row['student']))} {_trained(row)}"
    return f"On {data_set(facts, row)}, {said}{why}."


def _unstable(facts: Facts, row: pd.Series, head: str) -> str:
    why = "" if absent(row["reason"]) else f" ({row['reason']})"
    return (
        f"On {data_set(facts, row)}, the training recipe was unstable for {student_words(facts, str(row['student']))}{why}; "
        f"the observed difference in {metric_words(row)} between training on {arm_words(str(row['arm']), str(row['control']))} "
        f"and on {arm_words(str(row['control']), str(row['arm']))} ({_pp(row['difference'])}; {size(row)}) is no evidence about "
        "the labels."
    )


def _single(facts: Facts, row: pd.Series, head: str) -> str:
    observed = "" if absent(row["difference"]) else f" an observed difference of {_pp(row['difference'])},"
    why = "" if absent(row["reason"]) else f" ({row['reason']})"
    return (
        f"{_where(facts, row)} {_trained(row)} gave{observed or ' results'} in {metric_words(row)} ({size(row)}) from which "
        f"no inference is possible{why}."
    ).replace(", in ", " in ")


def _different(facts: Facts, row: pd.Series, head: str) -> str:
    word = "higher" if head == "BETTER" else "lower"
    inside = row["low90"] > -row["margin"] and row["high90"] < row["margin"]
    within = f", a difference within the declared margin of ±{_margin(row)} percentage points" if inside else ""
    margin = "" if inside else f"; declared margin ±{_margin(row)} percentage points"
    return (
        f"{_where(facts, row)} {_trained(row)} reached a {word} {metric_words(row)}{within} ({_numbers(row)}{margin})."
    )


def _equivalent(facts: Facts, row: pd.Series, head: str) -> str:
    return (
        f"{_where(facts, row)} {_trained(row)} reached an equivalent {metric_words(row)} within the declared margin of "
        f"±{_margin(row)} percentage points (two one-sided tests, α = {alpha_words(alpha_of(row))}; {_numbers(row)})."
    )


def _non_inferior(facts: Facts, row: pd.Series, head: str) -> str:
    return (
        f"{_where(facts, row)} {_trained(row)} was non-inferior in {metric_words(row)} with the declared margin of "
        f"{_margin(row)} percentage points ({_numbers(row)}); neither equivalence nor a difference was shown."
    )


def _inconclusive(facts: Facts, row: pd.Series, head: str) -> str:
    return (
        f"{_where(facts, row)} {_trained(row)} showed neither a difference in {metric_words(row)} nor equivalence within the "
        f"declared margin of ±{_margin(row)} percentage points ({_numbers(row)}): the result is inconclusive."
    )


def _described(facts: Facts, row: pd.Series) -> str:
    return f"{_where(facts, row)} {_trained(row)}: {metric_words(row)} {_numbers(row)}."
