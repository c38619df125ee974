"""How a rule decided on the number of seeds (`run --until-verdict`): one line for the answer, a sentence for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consenso.report.blocks import absent, capital, count, plural
from consenso.report.facts import Facts


@dataclass(frozen=True)
class Until:
    """A rule and what it decided."""

    rule: str
    """reestimate or looks."""
    most: int
    """Never more seeds than this."""
    looks: int
    """The most looks that rule `looks` takes."""
    seeds: tuple[int, ...]
    """The seeds in every arm at each decision."""
    reason: str
    """Why no further seed was trained."""


def until_of(facts: Facts) -> Until | None:
    """Return the rule of the record and its decisions; None where none decided on the seeds that there are."""
    noted, rule = facts.record.get("until_verdict"), facts.setting("compare", "until", {})
    if not isinstance(noted, list) or not noted or not isinstance(rule, Mapping):
        return None
    first = noted[0]["seeds"] if noted[0]["action"] == "stop" else rule.get("pilot", noted[0]["seeds"])
    seeds = (int(first), *(int(one["next"]) for one in noted[:-1]))
    trainings = facts.table("trainings")
    if trainings is not None and trainings.loc[trainings["attempt"] == "as_run", "seed"].nunique() != seeds[-1]:
        return None  # a later run trained other seeds
    name = str(rule.get("rule", "reestimate"))
    most, looks = int(rule.get("most", seeds[-1])), int(rule.get("looks", len(seeds)))
    return Until(name, most, looks, seeds, str(noted[-1].get("reason") or ""))


def alpha_words(alpha: float) -> str:
    """Return a level to three figures: `0.05`, `0.0167`."""
    return f"{alpha:.3g}"


def alpha_of(row: Any) -> float:
    """Return the two-sided level of a row's intervals; .05 where it has none."""
    return 0.05 if absent(row.get("alpha")) else float(row["alpha"])


def seeds_line(facts: Facts) -> str:
    """Return how the number of seeds came about; '' where no rule decided on it."""
    until = until_of(facts)
    if until is None:
        return ""
    why = f": {until.reason}" if until.reason else ""
    if until.rule == "looks":
        at = ", ".join(map(count, until.seeds))
        return (
            f"By the declared rule “looks”, {count(len(until.seeds))} of at most {plural(until.looks, 'look')} at the "
            f"difference (at {at} seeds), each at α = {alpha_words(_level(facts))}; stopped{why}."
        )
    return capital(f"{_grown(until)} by the declared rule “reestimate” (at most {count(until.most)}){why}.")


def _grown(until: Until) -> str:
    if len(until.seeds) == 1:
        return f"a pilot of {plural(until.seeds[0], 'seed')} and no more,"
    return (
        f"after a pilot of {plural(until.seeds[0], 'seed')}, {count(until.seeds[-1])} in all, worked out once from the "
        "variances alone,"
    )


def _level(facts: Facts) -> float:
    row = facts.primary(facts.students[0]) if facts.students else None
    return 0.05 if row is None else alpha_of(row)


def until_sentence(facts: Facts) -> str:
    """Return the sentence of a methods paragraph about the number of seeds; '' where no rule decided on it."""
    until = until_of(facts)
    if until is None:
        return ""
    if until.rule == "looks":
        at = ", ".join(map(count, until.seeds))
        return (
            f"The number of seeds followed a stopping rule of at most {plural(until.looks, 'look')} at the difference, with "
            f"{count(until.most)} seeds at most, each look at α = {alpha_words(_level(facts))} (Bonferroni); looks were taken "
            f"at {at} seeds."
        )
    if len(until.seeds) == 1:
        said = f"no seeds were added ({until.reason})" if until.reason else "no seeds were added"
    else:
        said = f"{count(until.seeds[-1])} in all were decided on"
    return (
        f"The number of seeds was worked out once, after a pilot of {count(until.seeds[0])}, from the variances alone and "
        f"without regard to the difference (at most {count(until.most)}) [@wittes1990]; {said}."
    )
