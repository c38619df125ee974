"""Guards that look at how the trainings went and what they predict."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import FLOORS
from consenso.compare.evidence import NO_CONTRAST, Evidence, Finding
from consenso.compare.folds import FOLDS_FOR_ONE_SEED
from consenso.compare.guard_pages import OTHERWISE, RECIPES
from consenso.compare.paired import TwoWay
from consenso.compare.promises import base_student, may_collapse
from consenso.compare.runs import without_copies
from consenso.compare.verdict import signed
from consenso.intervals import wilson

if TYPE_CHECKING:
    import numpy as np

MOST_COLLAPSED = 0.20
"""A larger share of collapsed or failed runs in an arm makes the recipe unstable."""


CLEAR = 3
"""Without an interval, a difference of more standard errors than this is more than luck."""


def collapse(evidence: Evidence) -> list[Finding]:
    """Count the runs that learned nothing or failed: over 20 % in an arm, or unlike shares in two arms, blame the recipe."""
    return [_collapse(evidence, student) for student in evidence.students()]


def _collapse(evidence: Evidence, student: str) -> Finding:
    chosen, primary = evidence.chosen(student)
    if not chosen:
        return Finding("not_checked", NO_CONTRAST, scope=student)
    bad = {arm: _bad_runs(evidence, student, arm) for arm in evidence.reported(student) if not may_collapse(arm)}
    counts = {arm: (collapsed + failed, runs) for arm, (collapsed, failed, runs) in bad.items()}
    failures = {arm: failed for arm, (_, failed, _) in bad.items() if failed}
    figures: dict[str, Any] = {"arms": {arm: _share(*found) for arm, found in bad.items()}}
    unstable = [c.name for c in chosen if _is_unstable([counts.get(arm, (0, 0)) for arm in c.arms])]
    basis = "" if evidence.trainings is not None else " (judged by test predictions alone: no trainings table)"
    said = ", ".join(
        f"{arm} {k} of {runs}" + (f" ({failures[arm]} failed)" if arm in failures else "")
        for arm, (k, runs) in counts.items() if k
    ) or "none"  # fmt: skip
    said = f"collapsed {'or failed ' if failures else ''}runs: {said}"
    if not unstable:
        few = ", few enough to go on" if any(k for k, _ in counts.values()) else ""
        return Finding("warned" if few else "passed", f"{said}{few}{basis}", figures, student)
    where = "the primary contrast" if primary and primary.name in unstable else ", ".join(unstable)
    alone = _one_is_enough([counts[arm] for c in chosen if c.name in unstable for arm in c.arms if arm in counts])
    reason = f"{said}; {where} tests the recipe, not the labels{alone}; change the recipe (for an encoder, lower the learning rate){basis}"
    return Finding("failed", reason, {**figures, "contrasts": unstable}, student)


def _one_is_enough(sides: list[tuple[int, int]]) -> str:
    """What is to be said where the arms have so few seeds that a single bad run is over a fifth."""
    few = [runs for k, runs in sides if k and runs <= 4]
    return f"; with S = {max(few)} one bad run already ends it: plan 10 seeds" if few else ""


def _share(collapsed: int, failed: int, runs: int) -> dict[str, float]:
    low, high = wilson(collapsed + failed, runs)
    return {"collapsed": collapsed, "failed": failed, "runs": runs, "low": low, "high": high}


def _is_unstable(sides: list[tuple[int, int]]) -> bool:
    """Over 20 % collapsed or failed on a side, or shares that differ between the sides (Fisher's exact p < .05)."""
    if any(runs and k / runs > MOST_COLLAPSED for k, runs in sides):
        return True
    if not any(k for k, _ in sides) or not all(runs for _, runs in sides):
        return False
    from scipy.stats import fisher_exact

    return bool(fisher_exact([[k, runs - k] for k, runs in sides])[1] < 0.05)


def _bad_runs(evidence: Evidence, student: str, arm: str) -> tuple[int, int, int]:
    """Collapsed, failed and all as-run trainings of an arm; judged by predictions if not recorded.

    A run that was replaced and is not on record as it was counts as collapsed: replacing hides nothing.
    """
    if evidence.trainings is not None:
        mine = evidence.trainings[(evidence.trainings["student"] == student) & (evidence.trainings["arm"] == arm)]
        as_run = mine["attempt"] == "as_run"
        first, replaced = (set(zip(rows["fold"], rows["seed"])) for rows in (mine[as_run], mine[~as_run]))
        status, hidden = mine.loc[as_run, "status"], len(replaced - first)
        if len(mine):
            return int((status == "collapsed").sum()) + hidden, int((status == "failed").sum()), len(status) + hidden
    codes = evidence.runs.codes[list(evidence.runs.arms(student)[arm].values())]
    return int(predicts_one_class(codes, evidence.runs.gold).sum()), 0, len(codes)


def predicts_one_class(codes: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return for each run whether its commonest prediction has a share above max(.95, largest gold share + .03)."""
    import numpy as np

    limit = max(0.95, np.bincount(gold).max() / len(gold) + 0.03)
    shares = [np.bincount(run[run >= 0]).max(initial=0) / max(1, np.count_nonzero(run >= 0)) for run in codes]
    return np.array([share > limit or share == 1.0 for share in shares])


def gold_beats_the_floor(evidence: Evidence) -> list[Finding]:
    """Require gold (or gold-aligned) to beat the better floor by more than 5 standard errors: else no contrast means anything."""
    return [_gold_beats_the_floor(evidence, student) for student in evidence.students()]


def _gold_beats_the_floor(evidence: Evidence, student: str) -> Finding:
    arm = next((name for name in ("gold", "gold-aligned") if name in evidence.runs.arms(student)), None)
    found = evidence.better_floor(student, arm) if arm else None
    if found is None:
        return Finding("not_checked", "needs predictions of gold (or gold-aligned) and floor", scope=student)
    floor, result = found
    se = _se_or_item_se(result)
    figures = {"arm": arm, "floor": floor, "difference": result.difference, "se": se, "S": result.S, "n": result.n}
    one = " (item error only: one seed)" if math.isnan(result.se) else ""
    if result.difference > 5 * se:
        return Finding(
            "passed",
            f"{arm} beats {floor} by {signed(result.difference)} pp, more than 5 standard errors{one}",
            figures,
            student,
        )
    gain = f"{signed(result.difference)} pp over {floor}, not more than 5 standard errors ({500 * se:.1f} pp{one})"
    clear = result.difference > CLEAR * se if math.isnan(result.low) else result.low > 0
    if clear:
        given = f"{result.n:,} test texts and {result.S} seed{'' if result.S == 1 else 's'}"
        reason = (
            f"{arm} labels bring {gain}: with {given} the standard error is {100 * se:.1f} pp; {enough(result, se)}"
        )
        return Finding("failed", reason, figures, student)
    reason = (
        f"{arm} labels bring only {gain}: the recipe learns too little to compare labels with it; "
        f"try {RECIPES.get(base_student(student), OTHERWISE)}"
    )
    return Finding("failed", reason, figures, student)


def enough(result: TwoWay, se: float) -> str:
    """Return how many test texts (or seeds, if their part of the variance is the larger) would make 5 standard errors.

    The difference as it is, Var = seeds' part + texts' part, and the one in question falls as 1/n (1/S): without the
    other this is n·(5·se/difference)². Over folds, and with one seed, all of Var counts as the texts'.
    """
    allowed, whole = (result.difference / 5) ** 2, se**2
    of_seeds = result.sd_seed**2 / result.S if result.k is None and result.S > 1 else 0.0
    of_seeds = min(of_seeds, whole)
    few, many, share, unit = "test texts", result.n, whole - of_seeds, "more test texts"
    if of_seeds > whole / 2:
        few, many, share, unit = "seeds", result.S, of_seeds, "more seeds"
    left = allowed - (whole - share)
    if left <= 0:
        return "with this difference it takes more test texts and more seeds"
    return f"with this difference about {_rounded_up(many * share / left)} {few} would do: it takes {unit} rather than another recipe"


def _rounded_up(number: float) -> str:
    """Two figures: `180`."""
    whole = math.ceil(number)
    step = 10 ** max(0, len(str(whole)) - 2)
    return f"{-(-whole // step) * step:,}"


def _se_or_item_se(result: TwoWay) -> float:
    return float(result.se) if not math.isnan(result.se) else float((result.ms_item / result.n) ** 0.5)


def margin(evidence: Evidence) -> list[Finding]:
    """Require a margin of at most half of what the control is sure to gain over the floor."""
    return [_margin(evidence, student) for student in evidence.students()]


def _margin(evidence: Evidence, student: str) -> Finding:
    primary, arms = evidence.chosen(student)[1], evidence.runs.arms(student)
    controls = [*([primary.control] if primary else []), "gold-aligned", "gold"]
    control = next((name for name in controls if name in arms and name not in FLOORS), controls[0])
    found = evidence.better_floor(student, control) if control in arms else None
    if found is None or math.isnan(found[1].se):
        return Finding(
            "not_checked", f"needs predictions of {control} and floor with at least two seeds", scope=student
        )
    floor, result = found
    figures = {
        "margin": evidence.margin,
        "control": control,
        "floor": floor,
        "difference": result.difference,
        "low": result.low,
    }
    gain = f"{control} − {floor} is {signed(result.difference)} pp, at least {signed(result.low)} pp"
    if evidence.margin <= result.low / 2:
        return Finding(
            "passed", f"the margin of {100 * evidence.margin:g} pp is at most half of it: {gain}", figures, student
        )
    reason = f"the margin of {100 * evidence.margin:g} pp is more than half of what labels bring at all: {gain}"
    return Finding("failed", reason, figures, student)


def seeds_differ(evidence: Evidence) -> list[Finding]:
    """Count seeds that predict alike: a copy of another seed is no replication, and copies of one seed are S = 1."""
    findings = []
    for student in evidence.students():
        runs, distinct = {}, {}
        for arm in evidence.reported(student):
            codes = evidence.runs.codes[list(evidence.runs.arms(student)[arm].values())]
            runs[arm] = len(codes)
            distinct[arm] = 1 if (codes == codes[0]).all() else len(without_copies([codes]))
        figures = {"seeds": runs, "distinct": distinct}
        same = [arm for arm in runs if runs[arm] > 1 and distinct[arm] == 1]
        some = [arm for arm in runs if 1 < distinct[arm] < runs[arm]]
        if same and _many_folds(evidence):
            said = f"all seeds of {', '.join(same)} give the same predictions; the folds are the replication"
            findings.append(Finding("passed", said, figures, student))
        elif same:
            reason = (
                f"all seeds of {', '.join(same)} give the same predictions, so S counts as 1; "
                "replicate by resampling the training texts or, where that is done, test on more or harder texts"
            )
            figures["contrasts"] = evidence.concerned(student, same)  # type: ignore[assignment]
            findings.append(Finding("failed", reason, figures, student))
        elif some:
            said = ", ".join(f"{arm} {distinct[arm]} of {runs[arm]}" for arm in some)
            findings.append(
                Finding(
                    "warned",
                    f"some seeds give the same predictions; distinct ones: {said}; contrasts use these alone",
                    figures,
                    student,
                )
            )
        elif not runs:
            findings.append(Finding("not_checked", NO_CONTRAST, figures, student))
        elif max(runs.values()) == 1:
            findings.append(Finding("not_checked", "one seed", figures, student))
        else:
            findings.append(Finding("passed", "every seed gives its own predictions", figures, student))
    return findings


def _many_folds(evidence: Evidence) -> bool:
    """Whether the test texts are those of so many folds that each may be trained once."""
    folds = evidence.runs.folds
    return folds is not None and len(set(folds.tolist())) >= FOLDS_FOR_ONE_SEED


def low_power(evidence: Evidence) -> list[Finding]:
    """Flag comparisons of fewer than five seeds."""
    findings = []
    for student in evidence.students():
        if not (chosen := evidence.chosen(student)[0]):
            findings.append(Finding("not_checked", NO_CONTRAST, scope=student))
            continue
        contrast = chosen[0]
        pair = evidence.pair(student, contrast.arm, contrast.control)
        S, k = len(pair.seeds), len(pair.parts())
        few = evidence.low_power_below > max(S, k)
        reason = f"{S} seed(s) in {contrast.name}{f', in each of {k} folds' if k else ''}" + (
            f", fewer than {evidence.low_power_below}: low power" if few else ""
        )
        findings.append(Finding("warned" if few else "passed", reason, {"S": S}, student))
    return findings


def failed_runs(evidence: Evidence) -> list[Finding]:
    """Count trainings without predictions: a contrast uses only the seeds that both of its arms finished."""
    findings = []
    for student in evidence.students():
        arms, reported = evidence.runs.arms(student), evidence.reported(student)
        if not reported:
            reasons = _never_finished(evidence, student)
            found = Finding("warned", reasons[0], scope=student) if reasons else None
            findings.append(found or Finding("not_checked", NO_CONTRAST, scope=student))
            continue
        folds = any(isinstance(seed, tuple) for rows in arms.values() for seed in rows)
        known = {
            name: {(arm, seed) for arm, seed in pairs if arm in reported and isinstance(seed, tuple) == folds}
            for name, pairs in (("failed", evidence.failed.get(student, set())), ("planned", evidence.planned(student)))
        }
        failed = known["failed"]
        every = {seed for arm in reported for seed in arms[arm]} | {
            seed for pairs in known.values() for _, seed in pairs
        }
        missing = {(arm, seed) for arm in reported for seed in every if seed not in arms[arm]} | failed
        figures = {"missing": [[arm, str(seed)] for arm, seed in sorted(missing, key=str)], "failed": len(failed)}
        counts = Counter(arm for arm, _ in missing)
        said = [f"{arm} {counts[arm]}" for arm in reported if counts[arm]]
        reasons = [f"runs without predictions: {', '.join(said)}; each contrast uses the seeds both arms finished"]
        reasons = [*(reasons if said else []), *_never_finished(evidence, student)]
        if reasons:
            findings.append(Finding("warned", "; ".join(reasons), figures, student))
        else:
            findings.append(Finding("passed", "every arm has predictions for every seed", figures, student))
    return findings


def _never_finished(evidence: Evidence, student: str) -> list[str]:
    """What is to be said of arms whose runs all failed: they have no predictions, so no contrast shows them."""
    lost = sorted({arm for arm, _ in evidence.failed.get(student, ())} - set(evidence.runs.arms(student)))
    return [f"no run of {', '.join(lost)} finished; their contrasts are left out"] if lost else []
