"""What a stage needs before it starts, checked early and said in one line."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import util
from typing import TYPE_CHECKING

from consenso.encoders import check_encoder
from consenso.errors import ConfigError, DataError, MissingExtraError, nearest
from consenso.experiment_file import Experiment
from consenso.finetune import STUDENTS, FinetuneSettings
from consenso.finetune.tracking import need_tracker
from consenso.labels import LabelSchema
from consenso.tables import TEXTS

if TYPE_CHECKING:
    import pandas as pd


def need_extras(experiment: Experiment, stages: list[str]) -> None:
    """Raise `MissingExtraError` now rather than after hours of training."""
    students = experiment.finetune.students if "finetune" in stages else ()
    asks_llms = "annotate" in stages and any(one.kind == "llm" for one in experiment.annotate.annotators)
    needs = {
        "llm": ("aiohttp",) if asks_llms else (),
        "finetune": ("torch", "transformers") if any(STUDENTS[s].USES_ENCODER for s in students) else (),
        "lora": ("peft",) if "finetune" in stages and _has_lora(experiment) else (),
        "report": ("jinja2", "matplotlib") if "report" in stages else (),
    }
    for extra, modules in needs.items():
        if any(util.find_spec(module) is None for module in modules):
            raise MissingExtraError(_NEEDED_BY[extra], extra)
    for tracker in experiment.finetune.report_to if "finetune" in stages else ():
        need_tracker(tracker)


def need_encoders(experiment: Experiment, stages: list[str]) -> None:
    """Raise `ModelError` now for an encoder that is not there, rather than after votes were paid for."""
    studies = experiment.finetune.studies() if "finetune" in stages else ()
    for name in sorted({study.settings.recipe.encoder for study in studies if STUDENTS[study.base].USES_ENCODER}):
        check_encoder(name)


def need_annotators(experiment: Experiment, stages: list[str]) -> None:
    """Raise `ConfigError` now for an arm of an annotator that nobody is (`need_voters`)."""
    if "finetune" in stages:
        need_voters(experiment, [arm for study in experiment.finetune.studies() for arm in study.settings.arms])


def need_voters(experiment: Experiment, arms: Iterable[str]) -> None:
    """Raise `ConfigError` now for an arm of an annotator that nobody is, rather than after votes were paid for.

    Who votes in imported files is not known before they are read.
    """
    known = [annotator.name for annotator in experiment.annotate.annotators]
    if experiment.annotate.imports or not known:
        return
    for arm in arms:
        name = arm.removeprefix("single:")
        if arm.startswith("single:") and name not in {"best", "each", *known}:
            raise ConfigError(
                f"arm {arm!r}: no annotator is called {name!r}; found {', '.join(known)}.{nearest(name, known)}"
            )


_NEEDED_BY = {
    "llm": "an annotator that is asked over HTTP",
    "finetune": "a student that uses an encoder",
    "lora": "LoRA (recipe.lora_rank)",
    "report": "the report",
}


def _has_lora(experiment: Experiment) -> bool:
    return any(study.settings.recipe.lora_rank for study in experiment.finetune.studies())


def need_labels(labels: LabelSchema | None, texts: pd.DataFrame) -> LabelSchema:
    """Return the labels of the data; raise `ConfigError` where neither gold nor a schema states them."""
    if labels is None:
        others = ", ".join(repr(str(name)) for name in texts.columns if name not in TEXTS.columns)
        raise ConfigError(
            "the data have no gold and state no labels; name the column of the human labels (data.columns.gold"
            f"{f'; columns not used: {others}' if others else ''}), or the labels in [[data.labels]]"
        )
    return labels


def need_valid_votes(votes: pd.DataFrame, *, asked: bool = False) -> None:
    """Raise `DataError` where no vote at all is a label: a wrong column or an unmapped reply, most likely.

    `asked`: the votes are answers to questions of this run, not imported ones.
    """
    if votes["label"].notna().any():
        return
    statuses = ", ".join(f"{count} {status}" for status, count in votes["status"].value_counts().items())
    replies = votes["reply"].dropna().astype(str).value_counts().index[:3].tolist() if "reply" in votes else []
    todo = 'if they stand for labels, say which: labels = { "reply" = "label name" } in [[annotate.imports]]'
    if asked:
        todo = (
            "`consenso log RUN_FOLDER --limit 5` shows what was answered; a shorter text, a larger parameters.max_tokens or "
            "another prompt may help"
        )
    raise DataError(f"none of the {len(votes)} votes is valid ({statuses}; replies such as {replies}); {todo}")


def need_gold(texts: pd.DataFrame, folds: pd.DataFrame, labels: pd.DataFrame, settings: FinetuneSettings) -> None:
    """Raise `DataError` where the trainings or their test lack labels; says which and what to do."""
    test, train = (set(folds.loc[folds["part"] == part, "text_id"]) for part in ("test", "train"))
    if not texts.loc[texts["text_id"].isin(test), "gold"].notna().any():
        raise DataError(
            "no test text has a gold label: a verdict needs human labels on the test texts; label some (300 or more), "
            "or stop at the labels with `consenso consensus`"
        )
    gold_arms = [
        arm for student in settings.students for arm in settings.for_student(student).arms if arm.startswith("gold")
    ]
    if gold_arms and not texts.loc[texts["text_id"].isin(train), "gold"].notna().any():
        raise DataError(
            f"no training text has a gold label, so {', '.join(sorted(set(gold_arms)))} cannot be trained; label some training "
            "texts, or move some of the test texts to train"
        )
    found = labels.loc[labels["text_id"].isin(train), "label"].dropna().unique()
    if len(found) < 2:
        raise DataError(
            f"the consensus gives the training texts {len(found)} label(s) ({', '.join(map(str, found)) or 'none'}); a classifier "
            "needs two: look at the votes with `consenso annotate`, a constant annotator or unreadable replies are the usual cause"
        )


FEW_HUNDRED = "a verdict needs a few hundred; `consenso plan` tells how many"


def few_test_texts(texts: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Say, before anything is split, where fewer texts with gold will be tested than `compare.few_texts_below`."""
    gold, given = texts["gold"].notna(), texts["split"] == "test"
    if not gold.any():
        return []
    settings = experiment.data
    n = int((gold & given).sum()) if given.any() else int(gold.sum())
    if not given.any() and settings.folds == 1 and settings.columns.fold is None:
        n = round(n * settings.test_size)
    return say_if_few(n, experiment)


def say_if_few(n: int, experiment: Experiment) -> list[str]:
    """Say that n test texts are few, if they are."""
    if n >= experiment.compare.few_texts_below:
        return []
    return [f"{n} test text{'' if n == 1 else 's'} with gold: too few to see a difference; {FEW_HUNDRED}"]


def has_test_gold(texts: pd.DataFrame, folds: pd.DataFrame | None = None) -> bool:
    """Return whether a verdict is possible: some text that may be tested has gold; `folds`: those that the source gives."""
    if folds is not None:
        return bool(
            texts.loc[texts["text_id"].isin(folds.loc[folds["part"] == "test", "text_id"]), "gold"].notna().any()
        )
    given = texts[texts["split"] == "test"]
    return bool((given if len(given) else texts)["gold"].notna().any())
