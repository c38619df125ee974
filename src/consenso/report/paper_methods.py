"""The methods paragraph: every number from the run folder; what is not known is left out. `[@key]` marks a citation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from consenso.report.blocks import absent, count, number, percent, plural
from consenso.report.facts import Facts
from consenso.report.gold_used import gold_words
from consenso.report.method_section import METHODS
from consenso.report.paper_words import level, listed, rate_probe, recipe_of, student_words
from consenso.report.references import METHOD_KEYS

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ("exact", "normalised", "near", "group")


def methods_sentences(facts: Facts) -> Iterator[str]:
    """Yield the sentences of the methods paragraph, in order."""
    for part in (_texts, _parts, _leaks, label_sentences, _students, _seeds, _arms):
        yield from part(facts)


def label_sentences(facts: Facts) -> Iterator[str]:
    """Yield the sentences on who labelled the texts, how votes became labels, and how far the annotators agree."""
    for part in (_annotators, _votes, _consensus, _agreement):
        yield from part(facts)


def _texts(facts: Facts) -> Iterator[str]:
    texts = facts.table("texts")
    if texts is None:
        return
    data = facts.record.get("data") or {}
    source = str(data.get("source") or "")
    from_ = f" (from “{source}”)" if source and source != facts.name else ""
    names = facts.label_names
    which = f" ({listed(names)})" if 0 < len(names) <= 12 else ""
    labels = f", with {plural(len(names), 'label')}{which}" if names else ""
    yield f"The data set “{facts.name}”{from_} holds {plural(len(texts), 'text')}{labels}."
    read = data.get("rows_read")
    if read and int(read) > len(texts):
        yield f"Of {plural(read, 'row')} read, {count(int(read) - len(texts))} were left out as repeats or as unusable."


def _parts(facts: Facts) -> Iterator[str]:
    folds = facts.table("folds")
    if folds is None:
        return
    if (k := folds["fold"].nunique()) > 1:
        test = folds.loc[folds["part"] == "test", "text_id"].nunique()
        yield f"They were split into {plural(k, 'fold')}, whose test parts hold {plural(test, 'text')} together."
    else:
        counts = folds["part"].value_counts()
        parts = [
            f"{count(counts[part])} {word} texts"
            for part, word in (("train", "training"), ("dev", "development"), ("test", "test")) if counts.get(part, 0)
        ]  # fmt: skip
        yield f"They were split into {listed(parts)}."
    if facts.table("predictions") is not None:
        yield "Human labels of test texts were used for the comparison alone."


def _leaks(facts: Facts) -> Iterator[str]:
    leaks, folds = facts.table("leaks"), facts.table("folds")
    if leaks is None:
        guard = guard_row(facts, "leakage")
        if folds is not None and guard is not None and guard["outcome"] == "passed":
            yield "No text of one part repeated a text of another (exactly, after normalisation, nearly, or by group)."
        return
    closest = leaks.assign(rank=leaks["level"].map({name: k for k, name in enumerate(LEVELS)}).fillna(len(LEVELS)))
    closest = closest.sort_values("rank").drop_duplicates(["fold", "text_id"])
    counts = closest["level"].value_counts()
    kinds = listed([f"{count(counts[name])} {name}" for name in LEVELS if counts.get(name, 0)])
    yield (
        f"{plural(len(closest), 'text')} that repeated a text of another part ({kinds}) "
        f"{'was' if len(closest) == 1 else 'were'} removed from every arm."
    )


def _annotators(facts: Facts) -> Iterator[str]:
    table = facts.table("annotators")
    if table is None:
        return
    own = table[table["variant_of"].isna()]
    if own.empty:
        return
    kinds = {"llm": "language model", "model": "model", "human": "human annotator", "imported": "imported annotator"}
    found = set(own["kind"])
    kind = kinds.get(next(iter(found)), "annotator") if len(found) == 1 else "annotator"
    said = [_annotator(row) for _, row in own.iterrows()]
    yield f"The texts were labelled by {plural(len(own), kind)}: {listed(said, 20)}."
    prompts = sorted({str(prompt) for row in own["settings"] if (prompt := read_json(row).get("prompt"))})
    if prompts:
        yield f"The {'prompt was' if len(prompts) == 1 else 'prompts were'} {listed([f'“{_short(p)}”' for p in prompts])}."


def _annotator(row: pd.Series) -> str:
    name, model = str(row["annotator"]), "" if absent(row["model"]) else str(row["model"])
    settings = read_json(row["settings"])
    extra = [model] if model and model != name else []
    if not absent(settings.get("temperature")):
        extra.append(
            f"temperature {settings['temperature']:g}" if isinstance(settings["temperature"], (int, float)) else ""
        )
    if not absent(row["repetitions"]) and int(row["repetitions"]) > 1:
        extra.append(f"asked {int(row['repetitions'])} times")
    extra = [part for part in extra if part]
    return f"{name} ({', '.join(extra)})" if extra else name


def read_json(text: Any) -> dict[str, Any]:
    """Return the object that a JSON text holds; {} where there is none."""
    if absent(text):
        return {}
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(text: str, most: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most].rsplit(' ', 1)[0]} …"


def _votes(facts: Facts) -> Iterator[str]:
    votes = facts.table("votes")
    if votes is None:
        return
    asked = votes[votes["status"].ne("settled")]
    valid = int(asked["label"].notna().sum())
    if len(asked):
        yield f"{count(valid)} of {plural(len(asked), 'answer')} ({percent(valid / len(asked))}) held a valid label."
    if said := gold_words(facts):
        yield said


def _consensus(facts: Facts) -> Iterator[str]:
    labels = facts.consensus
    if labels is None:
        return
    method = facts.method
    how = re.sub(r" \([A-Z][^()]* \d{4}\)", "", METHODS.get(method, ""))
    mark = f" [@{METHOD_KEYS[method]}]" if method in METHOD_KEYS else ""
    yield f"Votes became labels by the method “{method}”{mark}" + (f": {how}." if how else ".")
    rules = []
    if (threshold := facts.setting("consensus", "threshold")) is not None:
        rules.append(f"a label needed a share of at least {threshold:g}")
    if (ties := facts.setting("consensus", "ties")) is not None:
        rules.append("ties were left without a label" if ties == "undecided" else "ties were broken at random")
    if rules:
        said = "; ".join(rules)
        yield f"{said[:1].upper()}{said[1:]}."
    rows = labels if facts.open_ids is None else labels[labels["text_id"].isin(facts.open_ids)]
    where = "texts" if facts.open_ids is None else "training and development texts"
    if len(rows):
        decided = int(rows["label"].notna().sum())
        said = f"{count(decided)} of {count(len(rows))} {where} ({percent(decided / len(rows))}) have a consensus label"
        problematic = int(rows["is_problematic"].fillna(False).astype(bool).sum())
        yield f"{said}; {count(problematic)} count as problematic{_rule(facts)}."


def _rule(facts: Facts) -> str:
    rule = facts.setting("consensus", "problematic")
    if not isinstance(rule, dict):
        return ""
    names = {
        "score": "share of the winning label",
        "entropy_bits": "entropy of the shares in bits",
        "posterior": "posterior",
    }
    measure = names.get(str(rule.get("measure")), str(rule.get("measure")))
    for bound, word in (("below", "below"), ("above", "above")):
        if rule.get(bound) is not None:
            return f" ({measure} {word} {rule[bound]:g})"
    return (
        f" ({measure} too low for {percent(rule['target'], 0)} right labels)" if rule.get("target") is not None else ""
    )


def _agreement(facts: Facts) -> Iterator[str]:
    table = facts.table("agreement")
    if table is None:
        return
    rows = table[(table["measure"] == "alpha") & (table["scope"] == "all") & table["value"].notna()]
    if rows.empty:
        return
    row = rows.iloc[0]
    within = [] if absent(row["low"]) else [f"{level(0.95)} interval {number(row['low'])} to {number(row['high'])}"]
    within += [] if absent(row["n"]) else [plural(row["n"], "text")]
    detail = f" ({', '.join(within)})" if within else ""
    yield f"The annotators’ agreement was Krippendorff’s alpha = {number(row['value'])}{detail} [@krippendorff2011]."


_RECIPE = (
    ("learning_rate", "peak learning rate {:g}"), ("epochs", "{:g} passes over the largest arm"),
    ("batch_size", "batches of {}"), ("warmup", "warm-up over {:.0%} of the steps"), ("weight_decay", "weight decay {:g}"),
    ("max_length", "at most {} tokens"), ("evaluations", "{} evaluations on the development set"),
)  # fmt: skip


_OF_PAIRS = (
    ("learning_rate", "peak learning rate {:g}"), ("epochs", "{:g} pairs per text of the largest arm"),
    ("batch_size", "batches of {} pairs"), ("warmup", "warm-up over {:.0%} of the steps"), ("weight_decay", "weight decay {:g}"),
    ("max_length", "at most {} tokens"),
)  # fmt: skip


def _chosen_rate(facts: Facts, student: str) -> Iterator[str]:
    """How the learning rate was chosen; nothing where it was declared."""
    if (probe := rate_probe(facts, student)) is None:
        return
    tried = probe["tried"]
    rates = listed([f"{rate:g}" for rate in sorted({row["rate"] for row in tried})])
    names = sorted({row["arm"] for row in tried})
    arms = f"the {'arm' if len(names) == 1 else 'arms'} {listed([f'“{arm}”' for arm in names])}"
    yield (
        f"Its learning rate was chosen among {rates} by mean development macro-F1 over {arms} under a separate seed, each "
        "arm scored on development labels of its own source, and is the same for all arms and seeds."
    )


def _students(facts: Facts) -> Iterator[str]:
    """One sentence per student that was trained: what it is, its recipe."""
    for student in facts.students:
        recipe, base = recipe_of(facts, student), student.partition(" (")[0]
        if base in {"encoder", "contrastive"}:
            forms = _RECIPE if base == "encoder" else _OF_PAIRS
            said = [_counted(form, recipe[name]) for name, form in forms if name in recipe]
            said += _unusual(recipe if base == "encoder" else {"precision": recipe.get("precision")})
        else:
            said = []
        if base in {"frozen", "linear", "contrastive"} and recipe.get("c_grid"):
            said.append(f"C chosen on the development set among {listed([f'{c:g}' for c in recipe['c_grid']])}")
        lead = "The student was" if len(facts.main_students) == 1 else "One student was"
        if facts.variation(student) is not None:
            lead = "A declared variant was"
        yield f"{lead} {student_words(facts, student)}" + (f" ({', '.join(said)})." if said else ".")
        if facts.variation(student) is None:
            yield from _chosen_rate(facts, student)
    if facts.students and facts.table("arms") is not None:
        steps = ", number of optimiser steps" if {s.partition(" (")[0] for s in facts.students} == {"encoder"} else ""
        own = "" if not any(" (" in s for s in facts.students) else ", except where a student’s name declares otherwise"
        yield (
            f"All arms shared one recipe{steps} and the same evaluation points, and the state of each run (of a linear head: C) was "
            f"chosen on development labels of its arm’s own source{own}."
        )


def _counted(form: str, value: Any) -> str:
    if value == 1:
        for many, one in (("passes", "pass"), ("evaluations", "evaluation"), ("{:g} pairs per", "{:g} pair per")):
            form = form.replace(many, one)
    return form.format(value)


def _unusual(recipe: Mapping[str, Any]) -> list[str]:
    """What a recipe has that most have not."""
    said = {
        "focal": f"focal loss (γ = {recipe.get('focal_gamma', 2):g})",
        "gce": f"generalised cross-entropy (q = {recipe.get('gce_q', 0.7):g})",
    }
    found = [said[loss]] if (loss := recipe.get("loss")) in said else []
    found += ["balanced class weights"] if recipe.get("class_weights") == "balanced" else []
    found += [f"label smoothing {smoothing:g}"] if (smoothing := recipe.get("label_smoothing")) else []
    found += [f"LoRA of rank {rank}"] if (rank := recipe.get("lora_rank")) else []
    return found + (["bfloat16 autocast"] if recipe.get("precision") == "bf16" else [])


def _seeds(facts: Facts) -> Iterator[str]:
    trainings = facts.table("trainings")
    if trainings is None:
        return
    as_run = trainings[trainings["attempt"] == "as_run"]
    if as_run.empty:
        return
    of_students: dict[tuple[int, ...], list[str]] = {}
    for student, own in as_run.groupby("student", sort=False):
        of_students.setdefault(tuple(sorted({int(seed) for seed in own["seed"]})), []).append(f"“{student}”")
    each = ""
    if drawn := [student for student in facts.students if student in facts.resampling]:
        whose = "" if len(drawn) == len(facts.students) else f" of {listed([f'“{student}”' for student in drawn])}"
        each = f", each seed{whose} with its own bootstrap resample of the training texts, the same in every arm"
    k = as_run["fold"].nunique()
    folds = f" in each of the {k} folds" if k > 1 else ""
    said = [
        f"under the same {_seed_words(seeds)}" + ("" if len(of_students) == 1 else f" by {listed(students)}")
        for seeds, students in of_students.items()
    ]
    yield f"Every arm was trained {listed(said)}{folds}{each}: {plural(len(as_run), 'run')}."


def _seed_words(seeds: tuple[int, ...]) -> str:
    is_range = len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
    which = f"{seeds[0]} to {seeds[-1]}" if is_range else listed([str(seed) for seed in seeds])
    return f"{plural(len(seeds), 'seed')} ({which})"


def _arms(facts: Facts) -> Iterator[str]:
    trainings = facts.table("trainings")
    if trainings is None:
        return
    names = list(dict.fromkeys(trainings["arm"]))
    yield f"The arms were {listed(sorted(map(str, names)), 30)}."


def guard_row(facts: Facts, name: str) -> pd.Series | None:
    """Return a guard's first row, the worst outcome first; None where it is not in the table."""
    guards = facts.table("guards")
    mine = None if guards is None else guards[guards["guard"] == name]
    if mine is None or mine.empty:
        return None
    order = {"failed": 0, "warned": 1, "passed": 2, "not_checked": 3}
    return mine.assign(order=mine["outcome"].map(order)).sort_values("order", kind="stable").iloc[0]
