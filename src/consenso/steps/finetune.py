"""finetune: arms, and every student trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.encoders import encoder_fingerprint
from consenso.finetune import STUDENTS, FinetuneSettings, Results, make_arms, run_arms
from consenso.labels import LabelSchema
from consenso.preconditions import need_gold
from consenso.steps.running import Run
from consenso.store import RunFolder, environment

if TYPE_CHECKING:
    import pandas as pd


def finetune(this: Run) -> dict[str, Any]:
    """Make the arms and train every student on them, as far as it is not done."""
    import pandas as pd

    settings, folder, schema = this.experiment.finetune, this.folder, this.schema
    texts, folds, labels = folder.read("texts"), folder.read("folds"), _without_gold_used(folder)
    need_gold(texts, folds, labels, settings)
    folder.note("environment", environment())
    all_arms, results = [], []
    for student in settings.students:
        choice = settings.for_student(student)
        arms = arms_of(student, choice, schema, texts=texts, folds=folds, labels=labels)
        results.append(
            run_arms(
                arms, texts[["text_id", "text"]], folds,
                student=student, recipe=choice.recipe, schema=schema, folder=folder, workers=choice.workers,
                progress=lambda event: this.progress({**event, "event": "advance", "step": event["stage"], "stage": "finetune"}),
            )
        )  # fmt: skip
        all_arms.append(arms.assign(student=student))
    folder.write("arms", pd.concat(all_arms, ignore_index=True))
    for name in Results._fields:
        folder.write(name, pd.concat([getattr(result, name) for result in results], ignore_index=True))
    return {"failed": sum(int(result.trainings["status"].eq("failed").sum()) for result in results)}


def _without_gold_used(folder: RunFolder) -> pd.DataFrame:
    """The final labels; none for texts whose gold made labels (examples, candidates, learned weights): they train no aligned arm."""
    labels = folder.read("final_labels")
    for name in ("gold_used", "consensus_gold"):
        if folder.has(name):
            used = labels["text_id"].isin(folder.read(name)["text_id"])
            labels = labels.assign(label=labels["label"].mask(used, None))
    return labels


def arms_of(student: str, settings: FinetuneSettings, schema: LabelSchema, **tables: pd.DataFrame) -> pd.DataFrame:
    """Return the ARMS of one student; `tables`: texts, folds, labels. The dry run asks for them too."""
    asks_gold = any(arm.startswith("gold") for arm in settings.arms)
    floor = ("floor",) if asks_gold and "floor" not in settings.arms else ()  # costs nothing, and two guards need it
    return make_arms(
        **tables,
        arms=(*settings.arms, *floor),
        seeds=settings.seeds,
        resample=settings.resamples(student),
        schema=schema,
    )


def finetune_depends(this: Run) -> Any:
    """Return what else decides the trainings: settings, encoders, labels."""
    settings = this.experiment.finetune
    used = {settings.for_student(s).recipe.encoder for s in settings.students if STUDENTS[s].USES_ENCODER}
    encoders = {encoder: encoder_fingerprint(encoder) for encoder in sorted(used)}
    return [settings.model_dump(mode="json", exclude={"workers"}), encoders, this.folder.record().get("labels")]
