"""The methods paragraph's second half: statistics, guards, collapse rates and the freeze."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from consenso.report.blocks import absent, count, percent, plural
from consenso.report.contrast_section import verdict_of
from consenso.report.facts import Facts
from consenso.report.paper_methods import guard_row, read_json
from consenso.report.paper_sentence import in_numbers
from consenso.report.paper_words import level, listed, metric_words
from consenso.report.until import alpha_of, alpha_words, until_sentence

if TYPE_CHECKING:
    import pandas as pd


def statistics_sentences(facts: Facts) -> Iterator[str]:
    """Yield the sentences about statistics, guards, collapse and pre-registration."""
    comparison = facts.table("comparison")
    if comparison is not None and facts.state("compare") == "current":
        primary = comparison[comparison["is_primary"].fillna(False).astype(bool)]
        row = primary.iloc[0] if len(primary) else comparison.iloc[0]
        yield from _declared(row, has_primary=bool(len(primary)))
        yield from _formulas(facts, comparison, row)
        if said := until_sentence(facts):
            yield said
    yield from _guards(facts)
    yield from _collapse(facts)
    yield from _rescue(facts)
    yield from _frozen(facts)
    version = ((facts.record.get("environment") or {}).get("versions") or {}).get("consenso")
    yield f"All steps were done with consenso{f' {version}' if version else ''} [@consenso]."


def _declared(row: pd.Series, *, has_primary: bool) -> Iterator[str]:
    metric = metric_words(row)
    margin = "" if absent(row["margin"]) else f", with a margin of ±{100 * row['margin']:g} percentage points"
    contrast = f" and the primary contrast {row['contrast']}" if has_primary else ""
    yield f"The primary metric was {metric}{contrast}{margin}, on {plural(row['n'], 'test text')}."


def _formulas(facts: Facts, comparison: pd.DataFrame, row: pd.Series) -> Iterator[str]:
    alpha = alpha_of(row)
    kinds = [{"bootstrap": "resamples", "fold": "folds"}.get(str(kind), "seeds") for kind in comparison["replication"]]
    if set(kinds) == {"folds"}:
        yield (
            f"Intervals ({level(1 - alpha)}) come from the differences of the folds, with the variance corrected for "
            "overlapping training sets and one degree of freedom less than folds [@nadeau2003]."
        )
    else:
        linear = ", macro-F1 being linearised by jackknife influence values" if row["metric"] == "macro_f1" else ""
        runs = " or ".join(dict.fromkeys(kind for kind in kinds if kind != "folds"))
        yield (
            f"Intervals ({level(1 - alpha)}) come from a two-way analysis of variance of the paired differences ({runs} × "
            f"test texts, both random{linear}), with Satterthwaite’s degrees of freedom [@satterthwaite1946]."
        )
    yield (
        f"Equivalence was tested by two one-sided tests at α = {alpha_words(alpha)} each with the same standard error "
        "[@schuirmann1987]."
    )
    if comparison["p_holm"].notna().any():
        yield "The p-values of the secondary contrasts were adjusted by Holm’s method [@holm1979]."


def _guards(facts: Facts) -> Iterator[str]:
    guards = facts.table("guards")
    if guards is None or facts.state("compare") != "current":
        return
    worst: dict[str, list[str]] = {}
    for name in dict.fromkeys(guards["guard"]):
        row = guard_row(facts, name)
        assert row is not None
        worst.setdefault(str(row["outcome"]), []).append(str(name).replace("_", " "))
    spoken = {"passed": "passed", "warned": "warned", "failed": "failed", "not_checked": "could not be checked"}
    said = [
        f"{count(len(worst[key]))} {word} ({listed(worst[key], 20)})" for key, word in spoken.items() if key in worst
    ]
    yield f"Of {plural(sum(map(len, worst.values())), 'validity check')}, {listed(said)}."


def _collapse(facts: Facts) -> Iterator[str]:
    guards = facts.table("guards")
    rows = None if guards is None else guards[guards["guard"] == "collapse"]
    if rows is None or facts.state("compare") != "current":
        return
    for _, row in rows.iterrows():
        arms = read_json(row["figures"]).get("arms") or {}
        runs = sum(int(found.get("runs", 0)) for found in arms.values())
        if not runs:
            continue
        where = f" (student “{row['scope']}”)" if rows["scope"].nunique() > 1 else ""
        bad = [
            f"{int(found['collapsed'] + found['failed'])} of {int(found['runs'])} in {arm} "
            f"({level(0.95)} interval {percent(found['low'], 0)} to {percent(found['high'], 0)})"
            for arm, found in arms.items() if found["collapsed"] + found["failed"]
        ]  # fmt: skip
        if bad:
            yield f"Collapsed or failed runs{where}, kept in the primary analysis as run: {listed(bad)} [@wilson1927]."
        else:
            yield f"None of the {plural(runs, 'run')} of the compared arms collapsed or failed{where}."


def _rescue(facts: Facts) -> Iterator[str]:
    """The second analysis and its verdict."""
    if facts.state("compare") != "current":
        return
    for student in facts.main_students:
        if (row := facts.primary(student, "rescue")) is None:
            continue
        where = f" (student “{student}”)" if len(facts.main_students) > 1 else ""
        word = verdict_of(row)
        numbers = "" if word.startswith("INVALID") or absent(row["difference"]) else f": difference {in_numbers(row)}"
        yield (
            f"In a second analysis{where}, the seeds of collapsed runs were replaced by fresh ones in all arms alike; its "
            f"verdict is {word}{numbers}."
        )


def _frozen(facts: Facts) -> Iterator[str]:
    row = guard_row(facts, "fixed before scoring")
    if row is None or facts.state("compare") != "current":
        return
    figures, path = read_json(row["figures"]), facts.folder.path / "frozen.json"
    when, hash_ = figures.get("frozen_at"), figures.get("hash")
    if row["outcome"] == "passed" and when:
        yield (
            f"Metric, margin, arms, seeds, contrasts, aggregator, panel and data were frozen on {when}, before any test score "
            f"was seen ({path.name}, sha256 {hash_})."
        )
    elif row["outcome"] == "passed":
        yield "Metric, margin, contrasts, aggregator and panel were unchanged since the first test score was seen."
    elif row["outcome"] == "warned" and not absent(row["reason"]):
        yield f"Not pre-registered as analysed: {row['reason']}."
