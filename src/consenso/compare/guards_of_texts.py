"""Guards that look at texts, labels and votes: leakage, alignment, classes, contamination, annotators."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import FLOORS, Contrast
from consenso.compare.devscores import unlike_dev_scores
from consenso.compare.evidence import NO_CONTRAST, Evidence, Finding
from consenso.text import clean, normalise

if TYPE_CHECKING:
    import pandas as pd

SAME_TEXTS = (("consensus", "gold-aligned"), ("consensus-kept", "gold-kept"))
"""Arms that differ in their labels only: the same texts, row by row."""
ALLOWED_SOURCES = {"gold": ("gold",), "consensus": ("consensus", "human")}
"""Beginning of an arm's name → whose labels it may carry; humans may have corrected a consensus label."""


def leakage(evidence: Evidence) -> list[Finding]:
    """Look again for texts of dev or test among the training texts, near repeats too, after what was removed."""
    places = _places(evidence)
    if not any(left in by_part for by_part in places.values() for left in ("train", "fitted")):
        return [Finding("not_checked", "needs folds or arms")]
    meaning, groups = _same_text(evidence.texts), _groups(evidence.texts)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for fold, by_part in sorted(places.items()):
        for left, right in (("train", "test"), ("train", "dev"), ("dev", "test"), ("fitted", "test")):
            for what, known in (("text", meaning), ("group", groups)):
                for one in _overlap(left, right, by_part, known, what):
                    found.setdefault((f"{fold} {right}", one["id"]), {"fold": str(fold), **one})
    removed, near = _by_level(evidence.leaks), _by_level(evidence.remaining)
    figures: dict[str, Any] = {
        "removed": removed, "remaining": max(len(found), sum(near.values())), "remaining_by_level": near,
        "examples": list(found.values())[:5],
    }  # fmt: skip
    if found or near:
        reason = "; ".join([*_found_again(list(found.values())), *_still_near(near, evidence.remaining)])
        return [Finding("failed", f"{reason}; split again", figures)]
    if evidence.texts is None and evidence.remaining is None:
        return [Finding("not_checked", "no shared text ids; the texts themselves were not given", figures)]
    before = f"removed before: {', '.join(f'{count} {level}' for level, count in removed.items()) or 'none'}"
    where = "repeat of a dev or test text stands in train"
    if evidence.remaining is None:
        said = f"no exact or normalised {where}; near repeats were not looked for; {before}"
        return [Finding("warned", said, figures)]
    return [Finding("passed", f"no exact, normalised or near {where}; {before}", figures)]


def _found_again(found: list[dict[str, str]]) -> Iterator[str]:
    """How many texts and groups of a part stand in another part, with an example."""
    spoken = {"fitted": "what arms were trained on"}
    kinds = Counter(f"{one['right']} {one['what']}(s) also in {spoken.get(one['left'], one['left'])}" for one in found)
    if found:
        reason = "; ".join(f"{count} {kind}" for kind, count in kinds.items())
        yield f"{reason}, for example {found[0]['id']} = {found[0]['other']}"


def _still_near(levels: dict[str, int], remaining: pd.DataFrame | None) -> Iterator[str]:
    """How many texts of train or dev still repeat one of dev or test, by the closest level, with an example."""
    if remaining is not None and levels:
        first = remaining.sort_values(["text_id", "other_id"], key=lambda ids: ids.map(str)).iloc[0]
        said = ", ".join(f"{count} {level}" for level, count in levels.items())
        yield (
            f"texts that still repeat a text of another part: {said}, for example {first['text_id']} "
            f"({first['part']}) and {first['other_id']} ({first['other_part']})"
        )


def _places(evidence: Evidence) -> dict[int, dict[str, set[str]]]:
    """Fold → part → text ids; `fitted` are the texts that arms really trained on or chose a state with."""
    places: dict[int, dict[str, set[str]]] = {}
    if evidence.folds is not None:
        for (fold, part), ids in evidence.folds.groupby(["fold", "part"])["text_id"]:
            places.setdefault(int(fold), {})[str(part)] = set(map(str, ids))
    if evidence.arms is not None:
        for fold, ids in evidence.arms.groupby("fold")["text_id"]:
            places.setdefault(int(fold), {})["fitted"] = set(map(str, ids.unique()))
    if len(places) == 1:  # with several folds the table of folds alone says which test text belongs to which
        only = next(iter(places.values()))
        only["test"] = only.get("test", set()) | set(evidence.runs.items)
    return places


def _same_text(texts: pd.DataFrame | None) -> Mapping[str, str]:
    """Text id → its normalised text, or the cleaned one where nothing but punctuation is left."""
    if texts is None:
        return {}
    return {str(i): normalise(text) or clean(text) for i, text in zip(texts["text_id"], texts["text"])}


def _groups(texts: pd.DataFrame | None) -> Mapping[str, str]:
    if texts is None or "group" not in texts.columns:
        return {}
    grouped = texts[texts["group"].notna()]
    return {str(i): str(group) for i, group in zip(grouped["text_id"], grouped["group"])}


def _overlap(
    left: str, right: str, by_part: dict[str, set[str]], meaning: Mapping[str, str], what: str
) -> Iterator[dict[str, str]]:
    """Each text of `right` whose meaning stands in `left`; a text unknown to `meaning` is compared by its id."""

    def value(i: str) -> tuple[str, str] | None:
        return (what, meaning[i]) if i in meaning else ("id", i) if what == "text" else None

    there = {value(i): i for i in sorted(by_part.get(left, ()), reverse=True)}
    for i in sorted(by_part.get(right, ())):
        if (found := value(i)) is not None and found in there:
            yield {"what": what, "left": left, "right": right, "id": i, "other": there[found]}


def _by_level(leaks: pd.DataFrame | None) -> dict[str, int]:
    """Level → leaking texts (each text counts once, by its closest level)."""
    if leaks is None or not len(leaks):
        return {}
    rank = {"exact": 0, "normalised": 1, "near": 2, "group": 3}
    closest: dict[tuple[int, str], str] = {}
    for fold, text_id, level in zip(leaks["fold"], leaks["text_id"], leaks["level"]):
        key = (int(fold), str(text_id))
        closest[key] = min(closest.get(key, level), level, key=lambda name: rank.get(name, 9))
    return dict(sorted(Counter(closest.values()).items()))


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
    lost = {}
    for arms in (names, tuple(evidence.runs.arms(student))):
        rows = [row for arm in arms for row in evidence.runs.arms(student)[arm].values()]
        there = (evidence.runs.codes[rows] >= 0).any(axis=0)
        lost[arms] = len(evidence.expected - set(evidence.runs.items[there].tolist()))
    pair, every = lost.values() if len(lost) == 2 else (*lost.values(), *lost.values())
    by = "any run" if pair == every else f"{names[0]} or {names[1]}"
    return f"{pair} of {len(evidence.expected)} test texts with gold are not predicted by {by}" if pair else ""


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
                targets = trained.loc[trained["arm"] == arm, "target"].unique()
                strange |= {str(target) for target in targets if target not in evidence.schema}
            if strange:
                known = list(runs.names[: runs.known])
                yield contrast.name, f"{arm} gives label(s) {sorted(strange)[:5]} that are not among {known[:8]}"


def _training_problems(evidence: Evidence, student: str) -> Iterator[tuple[str, str]]:
    """(contrast, problem) of the arms table: folds and seeds, and identical texts where labels alone differ."""
    if (arms := evidence.arms_of(student)) is None:
        return
    mislabelled, planned = _mislabelled(arms, evidence), evidence.planned(student)
    unlike = unlike_dev_scores(evidence, student)
    pieces = {name: {seed for arm, seed in planned if arm == name} for name in evidence.reported(student)}
    for contrast in evidence.chosen(student)[0]:
        for name in contrast.arms:
            for problem in mislabelled.get(name, ()):
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
        elif contrast.arms in SAME_TEXTS:
            for part in ("train", "dev"):
                if count := _unlike_rows(arms, contrast, part):
                    yield contrast.name, f"{contrast.arm} and {contrast.control} differ in {count} {part} row(s)"


def _mislabelled(arms: pd.DataFrame, evidence: Evidence) -> dict[str, list[str]]:
    """Arm → what is wrong with the labels it was given: their source, or how they go with their text ids.

    A join by row order shows as labels that differ from those of the text ids.
    """
    found: dict[str, list[str]] = {}
    given = arms[["arm", "source", "text_id", "target"]].drop_duplicates()
    for (arm, source), count in given.groupby(["arm", "source"]).size().items():
        named = re.match(r"(gold|consensus)(?![a-z])", str(arm))
        if named and source not in ALLOWED_SOURCES[named[1]]:
            found.setdefault(str(arm), []).append(
                f"{arm} was given {count} label(s) of source {source}; its name promises {named[1]} labels"
            )
    for source, frame, column in (("gold", evidence.texts, "gold"), ("consensus", evidence.labels, "label")):
        if frame is None or frame["text_id"].duplicated().any():
            continue
        rows = given[given["source"] == source]
        stated = rows["text_id"].map(str).map(frame.set_index(frame["text_id"].map(str))[column])
        other = stated.notna() & (stated.astype(object) != rows["target"].astype(object))
        for wrong, what in ((other, "carry another label than their text id has"),
                            (stated.isna(), f"carry a {source} label, but their text id has none")):  # fmt: skip
            for arm, count in Counter(map(str, rows.loc[wrong, "arm"])).items():
                found.setdefault(arm, []).append(f"{count} training row(s) of {arm} {what}")
    return found


def _unlike_rows(arms: pd.DataFrame, contrast: Contrast, part: str) -> int:
    """How many (fold, seed, row, text_id) stand in only one of two arms; for dev the row numbers do not matter."""
    key = ["fold", "seed", "text_id"] if part == "dev" else ["fold", "seed", "row", "text_id"]
    rows = arms[arms["arm"].isin(contrast.arms) & (arms["part"] == part)]
    sides = rows[["arm", *key]].drop_duplicates().groupby(key, sort=False).size()
    return int((sides == 1).sum())


def enough_test_texts(evidence: Evidence) -> list[Finding]:
    """Warn where the test part is small, or texts were left out of it for want of gold."""
    n, lost = len(evidence.runs.items), evidence.runs.without_gold
    figures = {"n": n, "without_gold": lost}
    without = f"; {lost:,} more have no gold and are left out" if lost else ""
    if n < evidence.few_texts_below:
        return [Finding("warned", f"only {n:,} test texts with gold: expect a wide interval{without}", figures)]
    return [Finding("warned" if lost else "passed", f"{n:,} test texts with gold{without}", figures)]


def classes(evidence: Evidence) -> list[Finding]:
    """Warn where a class has no test gold (macro-F1 leaves it out) or no training rows in an arm (it scores 0)."""
    runs = evidence.runs
    with_gold = {runs.names[code] for code in set(runs.gold.tolist())}
    no_gold = [name for name in runs.names[: runs.known] if name not in with_gold]
    untrained = _untrained(evidence, with_gold)
    figures = {"classes": len(with_gold), "without_test_gold": no_gold, "without_training_rows": untrained}
    said = [f"without test gold, so not in macro-F1: {', '.join(no_gold)}"] if no_gold else []
    said += [
        f"without training rows in {arm}: {', '.join(f'{k} ({v} runs)' for k, v in lost.items())}"
        for arm, lost in untrained.items()
    ]
    if said:
        return [Finding("warned", "class(es) " + "; class(es) ".join(said), figures)]
    unknown = " (training rows not known: no arms table)" if evidence.arms is None else ""
    return [Finding("passed", f"all {len(with_gold)} classes have test gold and training rows{unknown}", figures)]


def _untrained(evidence: Evidence, with_gold: set[str]) -> dict[str, dict[str, int]]:
    """Arm → class → in how many (fold, seed) the class has no training row."""
    found: dict[str, dict[str, int]] = {}
    for student in evidence.students():
        if (arms := evidence.arms_of(student)) is None:
            continue
        rows = arms.loc[(arms["part"] == "train") & arms["arm"].isin(evidence.reported(student))]
        rows = rows[["arm", "fold", "seed", "target"]].drop_duplicates()
        for arm, given in rows.groupby("arm"):
            pieces = len(given[["fold", "seed"]].drop_duplicates())
            have = given["target"].value_counts().to_dict()
            if lost := {name: pieces - have.get(name, 0) for name in sorted(with_gold) if have.get(name, 0) < pieces}:
                found[str(arm)] = lost
    return found


def contamination(evidence: Evidence) -> list[Finding]:
    """Note that an LLM may have seen public texts and gold labels in its own training."""
    if evidence.gold_public is None:
        return [Finding("not_checked", "not stated whether texts and gold are public; set compare.gold_public")]
    if evidence.gold_public:
        said = (
            "texts and gold are public: LLMs may have seen them, so their labels may be better here than on new texts"
        )
        return [Finding("warned", said)]
    return [Finding("passed", "texts and gold are stated not to be public")]


def fixed_before_scoring(evidence: Evidence) -> list[Finding]:
    """Compare what is declared now (metric, margin, contrast, aggregator, panel) with what the first scoring saw."""
    if evidence.hash is None or evidence.first_hash is None:
        return [Finding("not_checked", "no record of what was declared at the first scoring")]
    figures = {"first": evidence.first_hash, "now": evidence.hash}
    if evidence.hash == evidence.first_hash:
        return [Finding("passed", "unchanged since the first scoring", figures)]
    return [Finding("warned", "changed after seeing test scores", figures)]
