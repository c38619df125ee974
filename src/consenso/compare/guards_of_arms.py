"""The guard of alignment: do two arms differ in their labels alone, and are these the labels that their names promise?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from consenso.compare.arm_labels import wrong_labels
from consenso.compare.arm_rows import ArmRows
from consenso.compare.contrasts import FLOORS, Contrast
from consenso.compare.devscores import unlike_dev_scores
from consenso.compare.evidence import NO_CONTRAST, Evidence, Finding
from consenso.compare.promises import SAME_SIZE, base_student, given_in, kind_of, promise_of

if TYPE_CHECKING:
    import pandas as pd

COVERAGE_EFFECTS = {
    "total effect": "which mixes labels and coverage",
    "coverage effect": "which is that of coverage and not of labels",
}
"""Effects of contrasts whose arms hold unlike texts on purpose, and what that makes of a verdict on labels."""


def alignment(evidence: Evidence) -> list[Finding]:
    """Require arms to have the labels of their name and to share test texts, seeds and, if aligned, training texts."""
    return [_alignment(evidence, student) for student in evidence.students()]


def _alignment(evidence: Evidence, student: str) -> Finding:
    if not evidence.chosen(student)[0]:
        return Finding("not_checked", NO_CONTRAST, scope=student)
    problems: dict[str, list[str]] = {}
    for name, problem in [
        *_training_problems(evidence, student),
        *_test_problems(evidence, student),
        *_label_problems(evidence, student),
        *_step_problems(evidence, student),
    ]:
        problems.setdefault(problem, []).append(name)
    figures: dict[str, Any] = {"n": len(evidence.runs.items), "without_gold": evidence.runs.without_gold}
    if problems:
        figures["contrasts"] = sorted({name for names in problems.values() for name in names})
        figures["problems"] = problems
        return Finding("failed", "; ".join(problems), figures, student)
    if evidence.arms is None:
        said = "test texts, seeds and labels agree; the training texts are not known (no arms table)"
        return Finding("not_checked", said, figures, student)
    if said := _mixes_coverage(evidence, student, figures):
        return Finding("warned", said, figures, student)
    said = "arms share test texts, seeds, label names and, where labels alone differ, training texts"
    return Finding("passed", said, figures, student)


def _test_problems(evidence: Evidence, student: str) -> Iterator[tuple[str, str]]:
    """(contrast, problem) of predictions: seeds that one arm lacks without a record, test texts that one arm lacks."""
    arms, failed = evidence.runs.arms(student), evidence.failed.get(student, set())
    for contrast in evidence.chosen(student)[0]:
        pair = evidence.pair(student, contrast.arm, contrast.control)
        if pair.unequal_items:
            both = f"{contrast.arm} and {contrast.control}"
            yield contrast.name, f"{pair.unequal_items} test text(s) are not predicted by every run of {both}"
        if lost := _never_predicted(evidence, student, contrast.arms):
            yield contrast.name, lost
        if set(contrast.arms) & set(FLOORS):
            continue
        every = set(arms[contrast.arm]) | set(arms[contrast.control])
        for name in contrast.arms:
            recorded = failed if evidence.trainings is not None else evidence.planned(student)
            if gaps := [seed for seed in sorted(every - set(arms[name])) if (name, seed) not in recorded]:
                said = f"{name} has no predictions for seed(s) {', '.join(map(str, gaps[:5]))}, and no record of why"
                yield contrast.name, f"{said}; train them, or leave these seeds out of every arm"


def _never_predicted(evidence: Evidence, student: str, names: tuple[str, str]) -> str:
    """What is to be said of test texts with gold that no run of the two arms predicts; empty where there is none."""
    if evidence.expected is None:
        return ""
    every = tuple(evidence.runs.arms(student))
    pair, anywhere = (_lost(evidence, student, arms) for arms in (names, every))
    by = "any run" if pair == anywhere else f"{names[0]} or {names[1]}"
    asked = sum(map(len, evidence.expected.values()))
    return f"{pair} of {asked} test texts with gold are not predicted by {by}" if pair else ""


def _lost(evidence: Evidence, student: str, arms: tuple[str, ...]) -> int:
    """How many test texts no run of these arms predicts; each fold counts its own where runs tell the folds apart."""
    assert evidence.expected is not None
    rows: dict[int | None, list[int]] = {}
    for arm in arms:
        for seed, row in evidence.runs.arms(student)[arm].items():
            rows.setdefault(seed[0] if isinstance(seed, tuple) else None, []).append(row)
    seen = {
        fold: set(evidence.runs.items[(evidence.runs.codes[taken] >= 0).any(axis=0)].tolist())
        for fold, taken in rows.items()
    }
    return sum(len(ids - seen.get(None if None in seen else fold, set())) for fold, ids in evidence.expected.items())


def _label_problems(evidence: Evidence, student: str) -> Iterator[tuple[str, str]]:
    """(contrast, problem) of label names: predictions or targets outside the schema mean a broken label map."""
    runs, trained = evidence.runs, evidence.arms_of(student)
    for contrast in evidence.chosen(student)[0]:
        for arm in contrast.arms:
            codes = runs.codes[list(runs.arms(student)[arm].values())]
            strange = {runs.names[code] for code in set(codes[codes >= runs.known].tolist())}
            if evidence.schema is None and ((codes >= 0) & (codes < runs.known)).any():
                strange = set()  # without a schema a label that gold lacks may be a class without test gold
            if trained is not None and evidence.schema is not None:
                strange |= {target for target in trained.labels_of(arm) if target not in evidence.schema}
            if strange:
                known = list(runs.names[: runs.known])
                yield contrast.name, f"{arm} gives label(s) {sorted(strange)[:5]} that are not among {known[:8]}"


def _step_problems(evidence: Evidence, student: str) -> Iterator[tuple[str, str]]:
    """(contrast, problem) of optimiser steps: more of them teach more. Declared variations may differ.

    Solvers of linear heads stop where they converge, so only runs that counted tokens are looked at; runs that failed,
    collapsed or were stopped by the watch have reasons of their own.
    """
    if student != base_student(student):
        return
    steps = _steps_taken(evidence.trainings, student)
    for contrast in evidence.chosen(student)[0]:
        one, other = (steps.get(name, {}) for name in contrast.arms)
        unlike = [run for run in sorted(one.keys() & other.keys()) if one[run] != other[run]]
        if unlike:
            (fold, seed), both = unlike[0], f"{contrast.arm} and {contrast.control}"
            yield (
                contrast.name,
                (
                    f"{both} took unlike numbers of optimiser steps in {len(unlike)} fold(s) and seed(s), for example "
                    f"{one[unlike[0]]} and {other[unlike[0]]} in fold {fold}, seed {seed}; train both for as many"
                ),
            )


def _steps_taken(trainings: pd.DataFrame | None, student: str) -> dict[str, dict[tuple[int, int], int]]:
    """Arm → (fold, seed) → optimiser steps of the as-run trainings that went to their end."""
    if trainings is None or not {"steps", "real_tokens"} <= set(trainings.columns):
        return {}
    chosen = (trainings["student"] == student) & (trainings["attempt"] == "as_run") & (trainings["status"] == "ok")
    chosen &= trainings["real_tokens"].notna() & trainings["steps"].notna()
    if "stopped_at" in trainings.columns:
        chosen &= trainings["stopped_at"].isna()
    found: dict[str, dict[tuple[int, int], int]] = {}
    ended = trainings[chosen]
    for arm, fold, seed, steps in zip(ended["arm"], ended["fold"], ended["seed"], ended["steps"]):
        found.setdefault(str(arm), {})[int(fold), int(seed)] = int(steps)
    return found


def _mixes_coverage(evidence: Evidence, student: str, figures: dict[str, Any]) -> str:
    """What is to be said of a primary contrast whose arms train on unlike texts because of coverage; '' of any other."""
    import numpy as np

    primary, rows = evidence.chosen(student)[1], evidence.arms_of(student)
    if primary is None or rows is None or primary.effect not in COVERAGE_EFFECTS:
        return ""
    texts = [np.unique(rows.texts_held(name, train=True)[0] % len(rows.ids)) for name in primary.arms]
    if np.array_equal(texts[0], texts[1]):
        return ""
    figures["train_texts"] = {name: len(held) for name, held in zip(primary.arms, texts)}
    counts = " and ".join(f"{len(held)} ({name})" for name, held in zip(primary.arms, texts))
    return f"the primary contrast is the {primary.effect}, {COVERAGE_EFFECTS[primary.effect]}: {counts} train texts"


def _training_problems(evidence: Evidence, student: str) -> Iterator[tuple[str, str]]:
    """(contrast, problem) of the arms table: labels, folds and seeds, and texts."""
    if (rows := evidence.arms_of(student)) is None:
        return
    reported = evidence.reported(student)
    own = wrong_labels(rows, evidence, student)
    for name in reported:
        own.setdefault(name, []).extend(_own_problems(rows, evidence, name))
    unlike = unlike_dev_scores(evidence, student)
    planned = rows.planned(reported)
    pieces = {name: {piece for arm, piece in planned if arm == name} for name in reported}
    for contrast in evidence.chosen(student)[0]:
        for name in contrast.arms:
            for problem in own.get(name, ()):
                yield contrast.name, problem
            if seeds := unlike.get(name):
                yield (
                    contrast.name,
                    (
                        f"the dev predictions of {name} do not give the dev macro-F1 that was recorded for {len(seeds)} of "
                        f"its seeds ({', '.join(map(str, seeds[:5]))}): swapped label names, or results of other trainings"
                    ),
                )
        one, other = (pieces.get(name) for name in contrast.arms)
        if not one or not other:
            continue
        if one != other:
            yield contrast.name, f"{contrast.arm} and {contrast.control} are planned with different folds or seeds"
        else:
            for problem in _unlike_texts(rows, contrast):
                yield contrast.name, problem
            if contrast == evidence.chosen(student)[1] and (problem := _mixed(rows, contrast)):
                yield contrast.name, problem


def _own_problems(rows: ArmRows, evidence: Evidence, arm: str) -> Iterator[str]:
    """What is wrong with the texts of one arm, whatever it is compared with."""
    import numpy as np

    texts, kind, number = promise_of(arm).texts, kind_of(arm), given_in(arm)
    train, dev = (rows.texts_held(arm, train=part)[0] for part in (True, False))
    if both := len(np.intersect1d(train, dev)):
        yield f"{both} text(s) of {arm} stand in its train and its dev part"
    if evidence.gold_used and texts not in {"all", "any"}:
        held = {rows.ids[text] for text in np.unique(np.concatenate([train, dev]) % len(rows.ids))}
        if used := held & evidence.gold_used:
            yield (
                f"{arm} holds {len(used)} text(s) whose gold helped to make labels, for example {min(used)}; such texts "
                "are human labels and belong into no aligned arm"
            )
    if kind == "gold@n" and (most := _most_in_a_piece(np.concatenate([train, dev]), rows)) > int(number):
        yield f"{arm} holds {most} human labels (train and dev together); its name promises {number}"
    if kind == "consensus+k" and (extra := _corrections(rows, arm)) > int(number):
        yield f"{arm} holds {extra} corrections by humans beyond those of consensus; its name promises {number}"


def _most_in_a_piece(keys: Any, rows: ArmRows) -> int:
    """The largest number of distinct texts in one fold and seed."""
    import numpy as np

    return int(np.bincount(np.unique(keys) // len(rows.ids)).max(initial=0))


def _corrections(rows: ArmRows, arm: str) -> int:
    """The largest number of texts, in one fold and seed, whose label is human here and is not in the arm consensus."""
    import numpy as np

    human = rows.sources.index("human") if "human" in rows.sources else -1

    def corrected(name: str) -> Any:
        parts = [rows.of_arm(name, train=train) for train in (True, False)]
        return np.concatenate(
            [(part.piece.astype(np.int64) * len(rows.ids) + part.text)[part.source == human] for part in parts]
        )

    return _most_in_a_piece(np.setdiff1d(corrected(arm), corrected("consensus")), rows)


def _unlike_texts(rows: ArmRows, contrast: Contrast) -> Iterator[str]:
    """How the texts of two arms differ where their names promise that they do not."""
    one, other = contrast.arms
    both = f"{one} and {other}"
    for size in SAME_SIZE:
        if set(contrast.arms) == set(size) and (count := _unlike_counts(rows, *size)):
            yield f"{both} differ in size or class counts in {count} fold(s) and seed(s)"
    texts = {promise_of(name).texts for name in contrast.arms}
    for train, part in ((True, "train"), (False, "dev")):
        if texts in ({"aligned"}, {"kept"}):
            if count := _unlike_rows(rows, one, other, train=train):
                yield f"{both} differ in {count} {part} row(s)"
        elif texts in ({"spread"}, {"aligned", "spread"}):
            if count := _unlike_rows(rows, one, other, train=train, distinct=True):
                yield f"{both} differ in {count} {part} text(s)"
        elif (pair := _part_and_whole(one, other)) and train and (count := _strangers(rows, *pair)):
            yield f"{pair[0]} holds {count} train text(s) that {pair[1]} lacks"


def _mixed(rows: ArmRows, contrast: Contrast) -> str:
    """What is to be said of a primary contrast that mixes labels and texts; '' where its texts are meant to differ."""
    import numpy as np

    asks_for_texts = contrast.effect not in {"", "label and filtering effect"}
    if asks_for_texts or {kind_of(name) for name in contrast.arms} & {*FLOORS, "gold@n", "single", "panel"}:
        return ""
    one, other = (np.unique(rows.texts_held(name, train=True)[0] % len(rows.ids)) for name in contrast.arms)
    only = [len(np.setdiff1d(one, other)), len(np.setdiff1d(other, one))]
    if not any(only):
        return ""
    said = " and ".join(f"{count} only in {name}" for name, count in zip(contrast.arms, only) if count)
    return (
        f"{contrast.arm} and {contrast.control} train on different texts ({said}), so their difference is not that of the "
        "labels; make a contrast of arms with the same texts primary"
    )


def _part_and_whole(one: str, other: str) -> tuple[str, str] | None:
    """The arm whose texts are some of those of the other, by their names; None where names promise nothing of the kind."""
    rank = {"kept": 1, "part": 1, "aligned": 2, "spread": 2, "all": 3}
    smaller, larger = sorted((one, other), key=lambda name: rank.get(promise_of(name).texts, 0))
    parts = promise_of(smaller).texts, promise_of(larger).texts
    if set(parts) <= {"part", "kept"} or "any" in parts:
        return None
    if parts[1] == "all":  # other arms may hold texts without gold
        return (smaller, larger) if larger == "gold" and smaller in {"gold-aligned", "gold-kept"} else None
    return (smaller, larger) if parts[1] in {"aligned", "spread"} and parts[0] in {"kept", "part"} else None


def _unlike_rows(rows: ArmRows, one: str, other: str, *, train: bool, distinct: bool = False) -> int:
    """How many rows (distinct: texts) stand in only one of two arms; dev texts count once."""
    import numpy as np

    (keys, counts), (keys2, counts2) = (rows.texts_held(name, train=train) for name in (one, other))
    if distinct or not train:
        counts, counts2 = np.ones_like(counts), np.ones_like(counts2)
    every, place = np.unique(np.concatenate([keys, keys2]), return_inverse=True)
    signed = np.bincount(place, weights=np.concatenate([counts, -counts2]), minlength=len(every))
    return int(np.abs(signed).sum())


def _strangers(rows: ArmRows, part: str, whole: str) -> int:
    """How many (fold, seed, text) of an arm the other arm lacks."""
    import numpy as np

    some, every = (rows.texts_held(name, train=True)[0] for name in (part, whole))
    return len(np.setdiff1d(some, every, assume_unique=True))


def _unlike_counts(rows: ArmRows, one: str, other: str) -> int:
    """In how many (fold, seed) two arms differ in the number of training rows of a class."""
    import numpy as np

    shape = (len(rows.pieces), len(rows.targets))
    counts = []
    for name in (one, other):
        given = rows.of_arm(name, train=True)
        flat = np.ravel_multi_index((given.piece, given.target), shape)
        counts.append(np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape))
    return int((counts[0] != counts[1]).any(axis=1).sum())
