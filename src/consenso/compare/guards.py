"""Every guard by name, and the one verb that runs them. A failed guard changes the verdict, not a log line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consenso.compare import guards_of_runs as of_runs
from consenso.compare import guards_of_texts as of_texts
from consenso.compare.contrasts import Contrast
from consenso.compare.evidence import Evidence, Finding
from consenso.compare.guard_of_control import negative_control
from consenso.compare.guard_of_leakage import leakage
from consenso.compare.guard_of_rescue import rescue
from consenso.compare.guard_pages import PAGES, anchor
from consenso.compare.guards_of_arms import alignment
from consenso.compare.runs import gold_labels, read_runs
from consenso.compare.verdict import INVALID, NO_VERDICT, UNSTABLE_RECIPE, Failure
from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema
from consenso.tables import ARMS, FOLDS, LABELS, LEAKS, PREDICTIONS, TEXTS, TRAININGS, VOTES, check
from consenso.tables import GUARDS as GUARDS_TABLE

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

GUARDS: dict[str, Callable[[Evidence], list[Finding]]] = {
    "leakage": leakage,
    "alignment": alignment,
    "collapse": of_runs.collapse,
    "rescue": rescue,
    "gold beats the floor": of_runs.gold_beats_the_floor,
    "margin": of_runs.margin,
    "negative control": negative_control,
    "seeds differ": of_runs.seeds_differ,
    "low power": of_runs.low_power,
    "failed runs": of_runs.failed_runs,
    "test texts": of_texts.enough_test_texts,
    "classes": of_texts.classes,
    "contamination": of_texts.contamination,
    "fixed before scoring": of_texts.fixed_before_scoring,
}
CONSEQUENCES = {
    "leakage": INVALID,
    "alignment": INVALID,
    "gold beats the floor": INVALID,
    "margin": INVALID,
    "negative control": INVALID,
    "rescue": INVALID,
    "collapse": UNSTABLE_RECIPE,
    "seeds differ": NO_VERDICT,
}
"""What a failure of the guard makes of the verdict; all other guards only warn."""


def check_guards(
    *,
    predictions: pd.DataFrame,
    gold: pd.Series | pd.DataFrame,
    arms: pd.DataFrame | None = None,
    folds: pd.DataFrame | None = None,
    leaks: pd.DataFrame | None = None,
    remaining: pd.DataFrame | None = None,
    texts: pd.DataFrame | None = None,
    trainings: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    votes: pd.DataFrame | None = None,
    gold_used: Collection[Any] | None = None,
    gold_dev: Collection[str] = (),
    schema: LabelSchema | None = None,
    metric: str = "macro_f1",
    margin: float = 0.02,
    contrasts: Sequence[Contrast | tuple[str, str] | str] | None = None,
    primary: Contrast | tuple[str, str] | str | None = None,
    low_power_below: int = 5,
    few_texts_below: int = 100,
    gold_public: bool | None = None,
    first_hash: str | None = None,
    hash: str | None = None,
    first_declared: Mapping[str, Any] | None = None,
    declared: Mapping[str, Any] | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Run every guard of GUARDS on what is given and return the GUARDS table; a guard without evidence is not_checked.

    `gold`: label names by text id (Series, or frame with text_id and gold). `leaks`: what was removed; `remaining`: what
    a search for near repeats (LEAKS) still finds between the parts of `folds`, empty if nothing. `votes` (VOTES): what
    arms of single votes are held against. `gold_used`: ids of the texts whose gold helped to make labels; `gold_dev`:
    students declared to choose their state with gold dev labels in every arm (`frozen (gold dev)`). `first_hash` and
    `hash`: fingerprints of what was declared at the first scoring and now, `first_declared` and `declared` these
    themselves (`declare`), `frozen` the record of a freeze (frozen.json). `figures` of a row is JSON; its `contrasts`
    says which contrasts a failure concerns, its `attempt` which analysis.
    Raises `DataError` for a wrong table, `ConfigError` for a contrast with an arm that no student has.
    """
    given = _checked(
        arms=(arms, ARMS), folds=(folds, FOLDS), leaks=(leaks, LEAKS), remaining=(remaining, LEAKS),
        texts=(texts, TEXTS), trainings=(trainings, TRAININGS), labels=(labels, LABELS), votes=(votes, VOTES),
    )  # fmt: skip
    evidence = Evidence(
        runs=read_runs(predictions, gold, schema), schema=schema, metric=metric, margin=margin, primary=primary,
        contrasts=None if contrasts is None else tuple(contrasts), low_power_below=low_power_below,
        few_texts_below=few_texts_below, gold_public=gold_public, first_hash=first_hash, hash=hash,
        first_declared=first_declared, declared=declared, frozen=frozen,
        gold_dev=frozenset(gold_dev), gold_used=None if gold_used is None else frozenset(map(str, gold_used)),
        dev=None if arms is None or trainings is None else _dev_rows(predictions),
        expected=_expected(given["folds"], gold, schema), **given,
    )  # fmt: skip
    return judge_guards(evidence)


def _dev_rows(predictions: pd.DataFrame) -> pd.DataFrame | None:
    if "part" not in predictions.columns or not (chosen := predictions["part"] == "dev").any():
        return None
    return check(predictions[chosen], PREDICTIONS)


def _expected(
    folds: pd.DataFrame | None, gold: pd.Series | pd.DataFrame, schema: LabelSchema | None
) -> dict[int, frozenset[str]] | None:
    """Fold → ids of its test texts that have gold."""
    if folds is None:
        return None
    test = folds[folds["part"] == "test"]
    known = frozenset(gold_labels(gold, schema).index)
    return {int(fold): frozenset(map(str, ids)) & known for fold, ids in test.groupby("fold")["text_id"]}


def _checked(**tables: tuple[Any, Any]) -> dict[str, Any]:
    return {name: None if frame is None else check(frame, table) for name, (frame, table) in tables.items()}


def judge_guards(evidence: Evidence) -> pd.DataFrame:
    """Return the GUARDS table of the evidence, in the order of GUARDS."""
    import pandas as pd

    rows = [
        {
            "guard": name,
            "scope": finding.scope,
            "outcome": finding.outcome,
            "invalidates": CONSEQUENCES.get(name) in {INVALID, UNSTABLE_RECIPE},
            "figures": json.dumps(finding.figures, sort_keys=True, ensure_ascii=False, default=str),
            "reason": finding.reason,
        }
        for name, guard in GUARDS.items()
        for finding in guard(evidence)
    ]
    frame = check(pd.DataFrame(rows), GUARDS_TABLE)
    counts = frame["outcome"].value_counts().to_dict()
    logger.info("guards: %s", ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return frame


def failures(guards: pd.DataFrame, student: str, contrast: Contrast, attempt: str = "as_run") -> list[Failure]:
    """Return what the failed guards say of one contrast of one student in one analysis."""
    failed = guards[(guards["outcome"] == "failed") & guards["scope"].isin(["all", student])]
    found = []
    for guard, figures, reason in zip(failed["guard"], failed["figures"], failed["reason"]):
        said = json.loads(figures) if isinstance(figures, str) else {}
        concerned, of = said.get("contrasts"), said.get("attempt")
        if guard in CONSEQUENCES and of in {None, attempt} and (concerned is None or contrast.name in concerned):
            found.append(Failure(str(guard), str(reason), CONSEQUENCES[guard]))
    return found


def explain(guard: str) -> str:
    """Return what a guard looks at, what a failure does to the verdict, what to do, and where its documentation stands.

    Raises `ConfigError` for an unknown guard.
    """
    if guard not in GUARDS:
        raise ConfigError(f"unknown guard {guard!r}; choose one of: {', '.join(GUARDS)}.{nearest(guard, GUARDS)}")
    page = PAGES[guard]
    lines = (
        f"{guard}: {(GUARDS[guard].__doc__ or '').strip().splitlines()[0]}",
        f"Looks at: {page.looks}",
        f"A failure: {_consequence(guard)}",
        f"Do: {page.do}",
        f"More: {anchor(guard)}",
    )
    return "\n".join(lines)


def _consequence(guard: str) -> str:
    word = CONSEQUENCES.get(guard)
    if word is None:
        return "it only warns; the verdict stands, and the report says what was found."
    if guard == "rescue":
        return f"the second analysis is {word}; the first, as run, stands."
    return f"the verdict is {word} for the contrasts it concerns" + (
        "; exit code 4 for the primary one." if word == INVALID else "."
    )


__all__ = ["CONSEQUENCES", "GUARDS", "check_guards", "explain", "failures", "judge_guards"]
