"""model_card: README.md of a model folder, as the Hugging Face Hub reads it; only facts of the run and of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from consenso.report.blocks import absent, capital, count, cut, number, percent, plural
from consenso.report.facts import METRICS, Facts
from consenso.report.gold_used import gold_words
from consenso.report.latex import cite_plain, cited
from consenso.report.markdown import escape
from consenso.report.numbers import accuracy, confusion
from consenso.report.paper_methods import label_sentences
from consenso.report.paper_words import arm_words, level, listed
from consenso.report.references import NAMES, bibliography
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder

Model = Mapping[str, Any]
"""What consenso.json of the model folder holds."""
HUMAN = ("gold",)
"""Sources of labels that no annotator's vote went into."""
EMBEDDED = "sentence-transformers/all-MiniLM-L6-v2"
"""What the embedded encoder is."""
HUB_TYPES = {"macro_f1": "f1", "accuracy": "accuracy"}
"""Metric → its type on the hub."""
WIDE = level(0.95)


def model_card(folder: RunFolder | str | Path, model: Model) -> str:
    """Return the card of a model that was trained on labels of a run folder: YAML head, then Markdown.

    `model`: what is stored as consenso.json beside it. What the run does not know the card calls missing.
    """
    place = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    facts = Facts(place, ReportSettings())
    sections = {
        "What it is": _summary, "Labels": _labels, "Data": _data, "How the labels came about": _origin,
        "Training": _training, "Evaluation": _evaluation, "Calibration": _calibration,
        _verdict_title(model): _verdict, "Limits": _limits, "How to use it": _use,
        "How to cite": _cite,
    }  # fmt: skip
    parts = [f"---\n{_head(model)}\n---", f"# {escape(model['name'])}"]
    parts += [f"## {title}\n\n{chr(10).join(section(facts, model))}" for title, section in sections.items()]
    return "\n\n".join(parts) + "\n"


# the head


def _head(model: Model) -> str:
    from huggingface_hub import ModelCardData

    results = list(_results(model))
    head = ModelCardData(
        base_model=_hub_name(model["encoder"]),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["text-classification", "consenso", f"{_source_word(model)}-labels"],
        model_name=str(model["name"]).rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return str(head.to_yaml())


def _source_word(model: Model) -> str:
    sources = set(model["data"]["label_sources"])
    return "human" if sources <= set(HUMAN) else "annotator"


def _hub_name(encoder: Mapping[str, Any]) -> str | None:
    """The encoder's name on the hub; None for a local folder, which nobody else has."""
    if encoder["name"] == "embedded":
        return EMBEDDED
    return None if encoder["local"] else str(encoder["name"])


def _results(model: Model) -> Iterator[Any]:
    """The scores for `model-index`: the model's own, else the mean of the trainings on the same labels."""
    from huggingface_hub import EvalResult

    own, compared = model["test"], model["comparison"]
    scored, whose = (own, "") if own else (compared, "mean of trainings on the same labels: ")
    for metric, kind in HUB_TYPES.items():
        if scored and metric in scored["metrics"] and (value := scored["metrics"][metric]["value"]) is not None:
            yield EvalResult(
                task_type="text-classification", dataset_type=model["experiment"], dataset_name=model["experiment"],
                dataset_split="test", metric_type=kind, metric_value=round(value, 4), metric_name=f"{whose}{METRICS[metric]}",
            )  # fmt: skip


# what it is, and of what it was made


def _summary(facts: Facts, model: Model) -> Iterator[str]:
    names = [f"`{name}`" for name in model["labels"]]
    version = model["versions"].get("consenso")
    encoder = _hub_name(model["encoder"]) or f"the local encoder “{escape(model['encoder']['name'])}”"
    yield (
        f"A text classifier that gives every text one of {count(len(names))} labels ({listed(names, 30)}). It is a "
        f"`{model['architecture']}` of {number(model['parameters'] / 1e6, 1)} million parameters, fine-tuned from {encoder} on "
        f"{arm_words(model['arm'])} of the experiment “{escape(model['experiment'])}” (arm `{model['arm']}`). Made by "
        f"`consenso train`{f', consenso {version}' if version else ''}, on {model['created_at'][:10]}."
    )


def _labels(facts: Facts, model: Model) -> Iterator[str]:
    classes, described = model["data"]["classes"], any(model["descriptions"].values())
    heads = ["label", *(["meaning"] if described else []), "training rows", "dev texts"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * (len(heads) - 2) + "---:|---:|"
    for name in model["labels"]:
        meaning = [escape(model["descriptions"].get(name) or "–")] if described else []
        cells = [f"`{name}`", *meaning, count(classes["train"].get(name, 0)), count(classes["dev"].get(name, 0))]
        yield f"| {' | '.join(cells)} |"


def _data(facts: Facts, model: Model) -> Iterator[str]:
    data = model["data"]
    rows = "" if data["train_rows"] == data["train_texts"] else f" ({plural(data['train_rows'], 'row')})"
    yield (
        f"Trained on {plural(data['train_texts'], 'text')}{rows} of “{escape(data['source'])}”; {plural(data['dev_texts'], 'text')} "
        "chose the best state."
    )
    if data["drawn_dev"]:
        yield "The data have no dev part; these texts were drawn for it, stratified by their labels."
    if data["all_texts"]:
        yield "All texts with such a label were used, test texts among them: no text of these data is left to test this model on."
    elif data["test_texts"]:
        where = f" of fold {data['fold']} ({data['folds']} folds)" if data["folds"] > 1 else ""
        yield f"{plural(data['test_texts'], 'test text')}{where} took no part."
    else:
        yield "There are no test texts with human labels: how good this model is has not been measured."
    yield f"Language and licence of the texts are not recorded. {_hashes(model)}"


def _hashes(model: Model) -> str:
    known = {name: value[:16] for name, value in model["data"]["hashes"].items() if value}
    return "Hashes (sha256, first 16 digits): " + ", ".join(f"{name} `{value}`" for name, value in known.items()) + "."


def _origin(facts: Facts, model: Model) -> Iterator[str]:
    sources = model["data"]["label_sources"]
    words = {
        "gold": "human labels", "human": "human corrections", "consensus": "consensus labels", "vote": "single votes",
        "panel": "labels of a smaller panel",
    }  # fmt: skip
    said = [f"{count(n)} {words.get(source, source)}" for source, n in sources.items()]
    yield f"Training rows by origin: {listed(said)}."
    if set(sources) <= set(HUMAN):
        yield "The human labels are those of the data; who gave them is not recorded."
        return
    made = " ".join(label_sentences(facts))
    yield (
        escape(cite_plain(made, NAMES)) if made else f"How they were made is not recorded. {facts.why_absent('votes')}"
    )
    if model["arm"] != "consensus":
        yield f"Of these, the model was trained on {arm_words(model['arm'])}."


def consensus_accuracy(facts: Facts) -> tuple[float, int] | None:
    """Return on what share of the train and dev texts with both the consensus label is the human one, and how many; or None."""
    if facts.consensus is None or facts.open_gold is None:
        return None
    table = confusion(facts.open_gold, facts.consensus.set_index("text_id")["label"], facts.label_names)
    labelled = int(table[:, :-1].sum())
    return (accuracy(table, decided=True), labelled) if labelled else None


_RECIPE = (
    ("learning_rate", "peak learning rate"), ("epochs", "epochs"), ("batch_size", "batch size"), ("warmup", "warm-up share"),
    ("weight_decay", "weight decay"), ("clip", "largest gradient norm"), ("evaluations", "evaluations on dev"),
    ("precision", "precision"), ("loss", "loss"), ("label_smoothing", "label smoothing"), ("class_weights", "class weights"),
    ("lora_rank", "LoRA rank"),
)  # fmt: skip


def _training(facts: Facts, model: Model) -> Iterator[str]:
    recipe, run, versions = model["recipe"], model["training"], model["versions"]
    said = [f"{words} {_short(recipe[name])}" for name, words in _RECIPE if recipe.get(name) not in (None, 0, "none")]
    yield (
        f"Seed {model['seed']}, {plural(run['steps'], 'optimiser step')}; the state after step {count(run['best_step'])} was the best "
        f"by dev macro-F1. Recipe: {', '.join(said)}. Texts are cut after {count(model['max_length'])} tokens."
    )
    if len(model["seeds_tried"]) > 1:
        scores = ", ".join(
            f"{row['seed']}: {row['status'] if row['status'] != 'ok' else number(row['dev_macro_f1'])}"
            for row in model["seeds_tried"]
        )
        yield f"{plural(len(model['seeds_tried']), 'seed')} were tried and the best on dev was kept (dev macro-F1 by seed: {scores})."
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "python") if name in versions)
    yield f"It took {number(run['seconds'], 0)} s on {run['device']} ({used})."


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# how good it is


def _evaluation(facts: Facts, model: Model) -> Iterator[str]:
    own, compared, dev = model["test"], model["comparison"], model["dev"]
    if own or compared:
        yield from _score_table(own, compared)
        yield ""
    if not own:
        yield _why_untested(model)
    if compared:
        yield _about_mean(compared, own)
    else:
        yield f"No comparison tells how classifiers trained on these labels do: {_why_uncompared(facts)}"
    if own:
        yield ""
        yield from _class_table(own["classes"])
        yield ""
    yield (
        f"On its dev texts, against the labels of its own source, it reaches macro-F1 {number(dev['macro_f1'])} and accuracy "
        f"{number(dev['accuracy'])}; these texts chose the state, so that is too good."
    )


def _score_table(own: Any, compared: Any) -> Iterator[str]:
    metrics = list(dict.fromkeys([*(own or compared)["metrics"]]))
    yield f"| on human labels of test texts | {' | '.join(METRICS.get(name, name) for name in metrics)} | test texts |"
    yield "|---|" + "---:|" * (len(metrics) + 1)
    if own:
        cells = [_score(own["metrics"].get(name)) for name in metrics]
        yield f"| this model | {' | '.join(cells)} | {count(own['texts'])} |"
    if compared and not _is_one(compared, own):
        cells = [_score(compared["metrics"].get(name)) for name in metrics]
        n = next(iter(compared["metrics"].values()), {"n": None})["n"]
        yield f"| mean of {plural(compared['runs'], 'training')} on the same labels | {' | '.join(cells)} | {count(n)} |"


def _class_table(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| label, on human labels of test texts | precision | recall | F1 | test texts |"
    yield "|---|---:|---:|---:|---:|"
    for name, found in classes.items():
        scores = ["–" if absent(found[score]) else number(found[score]) for score in ("precision", "recall", "f1")]
        yield f"| `{name}` | {' | '.join(scores)} | {count(found['n'])} |"


def _is_one(compared: Mapping[str, Any], own: Any) -> bool:
    """Whether the comparison has one training on these labels, and it is this model."""
    return bool(own) and compared["runs"] == 1 and compared["same_training"] is not None


def _score(found: Mapping[str, Any] | None) -> str:
    if found is None or absent(found["value"]):
        return "–"
    within = "" if absent(found["low"]) else f" ({number(found['low'])} to {number(found['high'])})"
    return f"{number(found['value'])}{within}"


def _why_untested(model: Model) -> str:
    if model["data"]["all_texts"]:
        return "This very model was trained on the test texts too, so there is no honest test score for it."
    if not model["data"]["test_texts"]:
        return "This model was not tested: no test text has a human label."
    return (
        "This model was not tested: test texts are scored by the comparison alone, which has not been run or is out of date "
        "(`consenso run`)."
    )


def _about_mean(compared: Mapping[str, Any], own: Any) -> str:
    found: Mapping[str, Any] = next(iter(compared["metrics"].values()), {})
    spans = [*(["for this model over the test texts"] if own else [])]
    if found.get("k"):
        spans.append(f"for the mean over {plural(found['k'], 'fold')}, each with test texts of its own")
    elif not absent(found.get("low")):
        spans.append(f"for the mean over {plural(found['S'], 'seed')} and the test texts")
    parts = [f"In brackets: {WIDE} intervals, {', '.join(spans)}."] if spans else []
    if (seed := compared["same_training"]) is not None:
        parts.append(f"This model is one of the trainings that the experiment compared, the one under seed {seed}.")
    if not compared["same_recipe"]:
        parts.append("The experiment compared trainings with another recipe than this model's.")
    if not _is_one(compared, own):
        bad, runs = compared["collapsed"], count(compared["runs"])
        parts.append(f"{count(bad) if bad else 'None'} of these {runs} trainings collapsed or failed.")
    return " ".join(parts)


def _why_uncompared(facts: Facts) -> str:
    if facts.table("comparison") is None:
        return "the arms were not compared (`consenso run`)."
    if facts.state("compare") != "current":
        return "the comparison is out of date (`consenso run`)."
    compared = listed([f"`{student}`" for student in facts.main_students])
    return f"it has no encoder trained on this arm (its students: {compared})."


def _calibration(facts: Facts, model: Model) -> Iterator[str]:
    scaled, own = model["temperature"], model["test"]
    if scaled["fitted"]:
        yield (
            f"Temperature {number(scaled['value'])}, fitted on {plural(scaled['dev_texts'], 'dev text')} "
            f"({count(scaled['dev_wrong'])} of them predicted wrong) with the labels of the model’s own source and folded into the "
            "last layer: the probabilities that any library reads are the scaled ones. Log loss on these texts: "
            f"{number(scaled['dev_loss_before'])} before, {number(scaled['dev_loss_after'])} after."
        )
    else:
        yield f"No temperature was fitted (it is 1): {scaled['why']}."
    if own and own["calibration"]:
        before, after = own["calibration"]["before"], own["calibration"].get("after")
        said = [f"{_ece(before)} before scaling", f"{_ece(after)} after"] if after else [_ece(before)]
        yield f"Expected calibration error on human labels of the test texts: {listed(said)}."
    else:
        yield "How far its probabilities can be taken at their word on human labels has not been measured."
    yield ""
    yield from _sure(model)


def _ece(found: Mapping[str, Any]) -> str:
    within = (
        ""
        if absent(found["ece_low"])
        else f" ({WIDE} interval {number(found['ece_low'])} to {number(found['ece_high'])})"
    )
    return f"{number(found['ece'])}{within}"


def _sure(model: Model) -> Iterator[str]:
    own = model["test"]
    rows, where = (
        (own["sure"], "test texts, human labels")
        if own
        else (model["dev"]["sure"], "dev texts, labels of its own source")
    )
    yield f"| at least this sure | share of the texts ({where}) | right |"
    yield "|---:|---:|---:|"
    for row in rows:
        yield f"| {percent(row['at_least'], 0)} | {percent(row['share'])} ({count(row['n'])}) | {percent(row['right'] / row['n'])} |"


def _verdict_title(model: Model) -> str:
    if _source_word(model) == "annotator":
        return "May these labels replace human ones?"
    return "May consensus labels replace the human ones?"


def _verdict(facts: Facts, model: Model) -> Iterator[str]:
    if facts.table("comparison") is None or facts.state("compare") != "current":
        yield f"Not known: {_why_uncompared(facts)}"
        return
    rows = {student: row for student in facts.main_students if (row := facts.primary(student)) is not None}
    if not rows:
        yield "Not known: the two arms of the primary contrast were not both trained."
        return
    if "encoder" not in rows:
        compared = listed([f"`{student}`" for student in rows])
        yield f"The comparison is about {compared}, not about a fine-tuned encoder such as this model:\n"
    for student, row in sorted(rows.items(), key=lambda pair: pair[0] != "encoder"):
        if len(rows) > 1:
            yield f"Student `{student}`:\n"
        yield f"> {escape(str(row['sentence']))}\n"
        yield "\n".join(_guards(facts, student)) + "\n"
    if (arm := next(iter(rows.values()))["arm"]) != model["arm"]:
        yield f"This verdict is about the labels of the arm `{arm}`, not about this model, which was trained on `{model['arm']}`."


def _guards(facts: Facts, student: str) -> Iterator[str]:
    guards = facts.table("guards")
    if guards is None:
        yield "Which validity checks were made is not recorded."
        return
    mine = guards[guards["scope"].isin(["all", student]) & guards["outcome"].isin(["failed", "warned"])]
    if mine.empty:
        yield "No validity check failed or warned."
    for _, row in mine.iterrows():
        why = "" if absent(row["reason"]) else f": {escape(cut(str(row['reason']), 300)[0])}"
        yield f"- validity check “{escape(str(row['guard']))}” {row['outcome']}{why}"


# what to keep in mind, and how to use it


def _limits(facts: Facts, model: Model) -> Iterator[str]:
    data = model["data"]
    yield (
        f"- It knows texts like those of “{escape(data['source'])}”. For another source, language or time, measure it on "
        "labelled texts of your own first."
    )
    yield f"- It always answers with one of its {count(len(model['labels']))} labels, also where none fits; it cannot abstain by itself."
    if unseen := [f"`{name}`" for name in model["labels"] if not data["classes"]["train"].get(name)]:
        yield f"- It was shown no text labelled {listed(unseen)} and will hardly ever say so."
    if silent := [f"`{name}`" for name in model["never_predicted"]]:
        seen = data["dev_texts"] + data["test_texts"]
        yield f"- It gave none of {count(seen)} dev and test texts the label {listed(silent)}: texts of that kind get another label."
    if data["at_length_limit"]:
        share = f"{percent(data['at_length_limit'])} of its training texts"
        yield f"- It reads the first {count(model['max_length'])} tokens; {share} are that long and were cut, or just fit."
    else:
        yield f"- It reads the first {count(model['max_length'])} tokens; no training text was that long."
    if not set(data["label_sources"]) <= set(HUMAN):
        yield f"- {_bias(facts)}"
    if said := gold_words(facts):
        yield f"- {escape(said)}"
    yield "- It has not been examined for unequal errors between groups of people; do so before decisions about people rest on it."


def _bias(facts: Facts) -> str:
    found = consensus_accuracy(facts)
    how = (
        f"how often these labels agree with human ones is not known: {facts.no_gold}"
        if found is None
        else f"on {count(found[1])} {facts.open_words}, {percent(found[0])} of the consensus labels are the human ones"
    )
    return capital(
        f"labels that models gave carry the models’ own leanings, and this classifier has learned these too; {how}."
    )


def _use(facts: Facts, model: Model) -> Iterator[str]:
    name = str(model["name"])
    yield (
        "```python\n"
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="{name}")\n'
        'classify("a text", truncation=True)                            # its label and how sure it is\n'
        'classify(["a text", "another"], truncation=True, top_k=None)   # every label with its probability\n'
        "```\n\n"
        f"`truncation=True` cuts after {count(model['max_length'])} tokens, as in training. Whole files, faster:\n\n"
        f"```sh\nconsenso predict {name} texts.csv --to predicted.csv\n```"
    )


def _cite(facts: Facts, model: Model) -> Iterator[str]:
    made = "" if set(model["data"]["label_sources"]) <= set(HUMAN) else " ".join(label_sentences(facts))
    version = str(model["versions"].get("consenso") or "")
    yield f"```bibtex\n{bibliography(cited(made), version).strip()}\n```"
