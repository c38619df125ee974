"""Which texts train the final model, with whose labels, and how many steps: as in the experiment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from consenso.data import find_leaks
from consenso.data.splitting import DEV, pick, words
from consenso.errors import ConfigError, ConsensoError, DataError, nearest
from consenso.finetune import ARMS, FinetuneSettings, Recipe, StudySettings, known_arm, needs_of
from consenso.finetune.expanding import expand_arms
from consenso.finetune.study import Study, arm_sizes, make_study
from consenso.finetune.training import Training
from consenso.preconditions import need_gold
from consenso.steps.finetune import arms_of, labels_to_train_on, recipe_of, tried_rates, votes_and_panels
from consenso.steps.running import Run
from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

STUDENT = "encoder"
"""What a final model is."""
CONTROLS = ("floor", "floor-prior", "permuted", "gold-noised")
"""Arms that are there to be compared with: nobody wants to use what they train."""


@dataclass(frozen=True)
class Chosen:
    """What one final model is trained on."""

    arm: str
    """Whose labels."""
    study: Study
    """Its texts, label schema and recipe."""
    training: Training
    rows: pd.DataFrame
    """The arm's rows of ARMS: train and dev."""
    drawn_dev: bool
    """Whether the dev texts were drawn for this model, because the experiment has none."""


def check_labels(labels: str) -> None:
    """Raise `ConfigError` for labels that are no arm, or an arm that is a control."""
    if not known_arm(labels):
        choice = [name for name in ARMS if name not in CONTROLS]
        raise ConfigError(
            f"--labels: unknown arm {labels!r}; choose from {', '.join(choice)}.{nearest(labels, choice)}"
        )
    if labels in CONTROLS:
        raise ConfigError(
            f"--labels: {labels!r} is a control of the comparison and trains nothing to use; choose consensus or gold"
        )


def settings_of(this: Run) -> StudySettings:
    """Return the settings under which the experiment trains (or would train) an encoder, on the texts themselves."""
    choice = this.experiment.finetune.for_student(STUDENT)
    recipe = _with_rate(this, choice)
    return choice.model_copy(update={"students": (STUDENT,), "resample": False, "recipe": recipe})


def _with_rate(this: Run, choice: StudySettings) -> Recipe:
    """The recipe with the rate that the run chose among learning_rates; one that differs from the run's own was asked for."""
    settings = compared_settings(this.folder)
    ran = None if settings is None else settings.for_student(STUDENT)
    if not choice.probes(STUDENT) or (ran is not None and ran.recipe.learning_rate != choice.recipe.learning_rate):
        return choice.recipe
    if set(choice.learning_rates) != tried_rates(this.folder, STUDENT):
        listed, own = ", ".join(f"{rate:g}" for rate in choice.learning_rates), choice.recipe.learning_rate
        raise ConfigError(
            f"finetune.learning_rates: which of {listed} is the best for the encoder is not known yet; `consenso run` finds out, or "
            f"train at the recipe's own rate ({own:g}) with --set finetune.learning_rates=[]"
        )
    return recipe_of(this.folder, STUDENT, choice)


def compared_settings(folder: RunFolder) -> FinetuneSettings | None:
    """Return the settings under which the run's trainings were done; None where its record has none that can be read."""
    settings = (folder.record().get("settings") or {}).get("finetune")
    if not settings or "finetune" not in folder.record().get("stages", {}):
        return None
    try:
        return FinetuneSettings.read(settings, str(folder.path / "run.json"))
    except ConsensoError:  # another release wrote it
        return None


def choose(this: Run, labels: str, seed: int, *, all_texts: bool = False) -> Chosen:
    """Return texts, labels and steps of a final model, from the tables of a run whose consensus stage is done.

    The rows are those of the arm `labels` in the first fold under this seed, and the steps those that the experiment's encoder
    takes there. `all_texts`: test texts, and those in no part, train too where they have such a label; then the steps
    are the recipe's epochs over these rows. Raises `ConfigError` where `labels` stands for several arms, `DataError`
    where they give no two classes to train on or no dev text.
    """
    texts, final = this.folder.read("texts"), labels_to_train_on(this.folder)
    asked, parts = settings_of(this), _parts(this, texts, final, labels, all_texts)
    listed = () if all_texts or not _compared(parts, texts, final, asked) else asked.arms
    settings = asked.model_copy(update={"arms": tuple(dict.fromkeys((*listed, labels)))})
    made_of: dict[str, Any] = {"texts": texts, "folds": parts.folds, "labels": final, **_votes(this, settings, texts)}
    arm = _one_arm(labels, made_of, settings)
    only = None if listed else [arm]
    arms = arms_of(STUDENT, settings, this.schema, **made_of, seeds=[seed], only=only)
    own = arms if not listed or labels in listed else arms_of(STUDENT, asked, this.schema, **made_of, seeds=[seed])
    used = texts.loc[texts["text_id"].isin(parts.folds["text_id"]), ["text_id", "text"]]
    tested = bool(parts.folds["part"].eq("test").any())
    study = make_study(
        arms, used, parts.folds, student=STUDENT, recipe=settings.recipe, schema=this.schema, tested=tested,
        budget=arm_sizes(own) if listed else None,
    )  # fmt: skip
    training = next(run.training for run in study.runs if run.arm == arm)
    rows = arms[arms["arm"] == arm]
    return Chosen(arm, study, training, rows, parts.drawn_dev)


@dataclass(frozen=True)
class _Parts:
    folds: pd.DataFrame
    """FOLDS of the first fold."""
    drawn_dev: bool


def _parts(this: Run, texts: pd.DataFrame, labels: pd.DataFrame, arm: str, all_texts: bool) -> _Parts:
    folds = this.folder.read("folds")
    folds = folds[folds["fold"] == folds["fold"].min()]
    drawn = not folds["part"].eq("dev").any()
    if all_texts:
        folds = _widened(this, folds, texts)
    if drawn:
        label = (
            texts["gold"] if needs_of([arm]) == {"gold"} else texts["text_id"].map(labels.set_index("text_id")["label"])
        )
        folds = _with_dev(this, folds, texts, texts.assign(label=label).dropna(subset=["label"]))
    return _Parts(folds, drawn)


def _widened(this: Run, folds: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Every text trains that is no dev text and repeats none: also texts that the data stage compared with none."""
    dev = set(folds.loc[folds["part"] == "dev", "text_id"])
    wide = texts[["text_id"]].assign(fold=folds["fold"].iloc[0])
    wide["part"] = wide["text_id"].isin(dev).map({True: "dev", False: "train"})
    leaks = find_leaks(texts, wide, level=this.experiment.data.leakage)
    return wide[~wide["text_id"].isin(leaks["text_id"])]


def _with_dev(this: Run, folds: pd.DataFrame, texts: pd.DataFrame, labelled: pd.DataFrame) -> pd.DataFrame:
    """Draw dev from the labelled train texts as the data stage would, by their labels; twins of dev texts do not train."""
    settings = this.experiment.data
    train = labelled[labelled["text_id"].isin(folds.loc[folds["part"] == "train", "text_id"])]
    total = min(max(round(settings.dev_size * len(train)), 1), len(train) - 1)
    if total < 1:
        raise DataError(
            f"{len(train)} text(s) have such a label: too few to train on some and choose on others; label more"
        )
    dev = pick(train["text_id"].tolist(), words(train["label"]), total, (settings.seed, DEV))
    folds = folds.assign(part=folds["part"].mask(folds["text_id"].isin(dev), "dev"))
    leaks = find_leaks(texts, folds, level=settings.leakage)
    return folds[~folds["text_id"].isin(leaks["text_id"])]


def _compared(parts: _Parts, texts: pd.DataFrame, labels: pd.DataFrame, settings: StudySettings) -> bool:
    """Whether the experiment's own trainings could be done with these data: then their arms decide texts and steps."""
    try:
        need_gold(texts, parts.folds, labels, settings)
    except DataError:
        return False
    return not parts.drawn_dev


def _votes(this: Run, settings: StudySettings, texts: pd.DataFrame) -> dict[str, Any]:
    """Votes and panels for these arms; the record goes on saying which panels the comparison had."""
    asked = this.experiment.model_copy(update={"finetune": settings})
    return votes_and_panels(replace(this, experiment=asked), texts, note=False)


def _one_arm(labels: str, made_of: dict[str, Any], settings: StudySettings) -> str:
    found = [arm for arm in expand_arms([labels], **made_of, soft=settings.soft) if arm not in CONTROLS]
    if len(found) != 1:
        raise ConfigError(f"--labels: {labels!r} stands for {len(found)} arms ({', '.join(found)}); name one of them")
    return found[0]
