"""The guard of the second analysis, in which collapsed seeds are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from consenso.compare.evidence import Evidence, Finding
from consenso.compare.promises import may_collapse

if TYPE_CHECKING:
    import pandas as pd


def rescue(evidence: Evidence) -> list[Finding]:
    """Require a second analysis to replace a seed in all arms, by one that no other run used, and keep the first as run."""
    if evidence.trainings is None:
        return [Finding("not_checked", "no trainings table")]
    return [_rescue(evidence, student, evidence.trainings) for student in evidence.students()]


def _rescue(evidence: Evidence, student: str, trainings: pd.DataFrame) -> Finding:
    mine = trainings[trainings["student"] == student]
    runs = {attempt: mine[mine["attempt"] == attempt] for attempt in ("as_run", "rescue")}
    if runs["rescue"].empty:
        return Finding("not_checked", "no collapsed seed was replaced", scope=student)
    replaced = sorted({int(seed) for seed in runs["rescue"]["seed"]})
    counted = [arm for arm in evidence.reported(student) if not may_collapse(arm)]
    again = runs["rescue"][runs["rescue"]["arm"].isin(counted)]
    collapsed = int((again["status"] == "collapsed").sum())
    figures: dict[str, Any] = {"replaced": replaced, "runs": len(again), "collapsed": collapsed}
    problems = {
        problem: evidence.concerned(student, [arm])
        for arm in evidence.reported(student) for problem in _problems(arm, runs["as_run"], runs["rescue"])
    }  # fmt: skip
    if problems:
        concerned = sorted({name for names in problems.values() for name in names})
        figures |= {"contrasts": concerned, "attempt": "rescue"}
        return Finding("failed", f"{'; '.join(problems)}: the second analysis says nothing", figures, student)
    said = f"seed(s) {', '.join(map(str, replaced))} were replaced in every arm; the first analysis is as run"
    if collapsed:
        said = f"{collapsed} of {len(again)} replacement runs collapsed too; {said}"
        return Finding("warned", said, figures, student)
    return Finding("passed", said, figures, student)


def _problems(arm: str, as_run: pd.DataFrame, replaced: pd.DataFrame) -> Iterator[str]:
    """What is wrong with the replaced runs of one arm."""
    own, own_as_run = replaced[replaced["arm"] == arm], as_run[as_run["arm"] == arm]
    every, mine, first = (set(zip(frame["fold"], frame["seed"])) for frame in (replaced, own, own_as_run))
    if gaps := sorted({int(seed) for _, seed in every - mine}):
        yield f"seed(s) {', '.join(map(str, gaps))} were replaced in other arms, but not in {arm}"
    if lost := len(mine - first):
        yield f"{lost} replaced run(s) of {arm} have no record of the run as it was"
    used = {int(seed) for seed in own["trained_seed"].dropna()}
    if again := sorted(used & {int(seed) for seed in as_run["seed"]}):
        yield f"{arm} was rescued by seed(s) {', '.join(map(str, again))}, which stand in the list already"
