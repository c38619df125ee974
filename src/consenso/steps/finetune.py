"""finetune: arms, and every student trained on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from consenso.compare.contrasts import choose_contrasts
from consenso.consensus import code_votes, describe_panel
from consenso.encoders import encoder_fingerprint
from consenso.finetune import STUDENTS, Recipe, Results, StudySettings, is_listed, make_arms, run_arms
from consenso.finetune.expanding import needs_of
from consenso.finetune.rate_probe import NOTE, chosen_among, probe_rates, probe_seed, with_chosen_rate
from consenso.finetune.study import arm_sizes
from consenso.finetune.tracking import Tracking
from consenso.labels import LabelSchema
from consenso.preconditions import need_gold
from consenso.steps.consensus import gold_for_consensus, make_labels
from consenso.steps.running import Run
from consenso.store import RunFolder, environment

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

BEFORE_VOTES = frozenset({"gold", "aligned gold", "labels", "text"})
"""What an arm may read that is made, in a dry run, before there are votes."""
VOTES = ["text_id", "annotator", "repetition", "label", "status"]
"""The columns of the votes that arms are made from."""


def finetune(this: Run) -> dict[str, Any]:
    """Make the arms and train every student on them, as far as it is not done."""
    import pandas as pd

    settings, folder, schema = this.experiment.finetune, this.folder, this.schema
    texts, folds, labels = folder.read("texts"), folder.read("folds"), labels_to_train_on(folder)
    need_gold(texts, folds, labels, settings)
    folder.note("environment", environment())
    if settings.learning_rates or NOTE in folder.record():
        folder.note(NOTE, {})
    made_of = {"texts": texts, "folds": folds, "labels": labels, **votes_and_panels(this, texts)}
    tracking = Tracking.of_run(settings.report_to, folder)
    all_arms, results = [], []
    budgets: dict[str, dict[int, int]] = {}
    for student, base, choice in settings.studies():
        make = partial(arms_of, base, choice, schema, **made_of)
        arms = make()
        budgets.setdefault(base, arm_sizes(arms))  # a variant takes the steps of its student, whatever arms it has
        shared: dict[str, Any] = {
            "student": student, "schema": schema, "folder": folder, "workers": choice.workers,
            "checkpoint_minutes": choice.checkpoint_minutes,
            "counted": compared_arms(this, arms), "report_to": tracking,
            "progress": lambda event: this.progress({**event, "event": "advance", "step": event["stage"], "stage": "finetune"}),
        }  # fmt: skip
        inputs = texts[["text_id", "text"]], folds
        if student == base and choice.probes(base):
            probed = make(seeds=[seed_of_probe(choice)])
            tried = probe_rates(
                probed, *inputs, rates=choice.learning_rates, recipe=choice.recipe, budget=budgets[base], **shared
            )
            _note_rate(folder, base, tried)
        results.append(
            run_arms(
                arms, *inputs, recipe=recipe_of(folder, base, choice), **shared,
                rescue=partial(_under_other_seeds, make) if choice.rescue else None,
                budget=None if student == base else budgets[base],
            )
        )  # fmt: skip
        all_arms.append(arms.assign(student=student))
    folder.write("arms", pd.concat(all_arms, ignore_index=True))
    for name in Results._fields:
        folder.write(name, pd.concat([getattr(result, name) for result in results], ignore_index=True))
    failed = [result.trainings.loc[result.trainings["status"].eq("failed"), "key"] for result in results]
    return {"failed": sum(int(keys.nunique()) for keys in failed)}


def seed_of_probe(choice: StudySettings) -> int:
    """Return the seed under which learning rates are tried."""
    return probe_seed(range(1, choice.seeds + 1) if isinstance(choice.seeds, int) else choice.seeds)


def _note_rate(folder: RunFolder, student: str, tried: pd.DataFrame) -> None:
    found = chosen_among(tried)
    folder.note(NOTE, {**folder.record().get(NOTE, {}), student: found})
    means = ", ".join(f"{rate}: {mean:.3f}" for rate, mean in found["means"].items())
    logger.info("learning rate of %s: %g (mean dev macro-F1 of the arms: %s)", student, found["chosen"], means)


def recipe_of(folder: RunFolder, student: str, choice: StudySettings) -> Recipe:
    """Return the recipe of a student (a key of STUDENTS) or of a variant of it, with the learning rate that was chosen."""
    if not choice.probes(student):
        return choice.recipe
    return with_chosen_rate(choice.recipe, student, folder.record().get(NOTE))


def tried_rates(folder: RunFolder, student: str) -> set[float]:
    """Return the learning rates that the run tried for a student; none where it has not."""
    found = (folder.record().get(NOTE) or {}).get(student) or {}
    return {float(row["rate"]) for row in found.get("tried", ())}


def compared_arms(this: Run, arms: pd.DataFrame) -> set[str]:
    """Return the arms of the reported contrasts: a collapse anywhere else decides nothing."""
    settings = this.experiment.compare
    asked = [(c.arm, c.control) for c in settings.contrasts] or None
    chosen, _ = choose_contrasts(set(arms["arm"]), asked, (settings.arm, settings.control))
    return {name for contrast in chosen for name in contrast.arms}


def _under_other_seeds(make: Callable[..., pd.DataFrame], seeds: Sequence[int]) -> pd.DataFrame:
    return make(seeds=seeds)


def labels_to_train_on(folder: RunFolder) -> pd.DataFrame:
    """Return the final labels with the consensus's scores and shares; none for texts whose gold made labels."""
    labels = folder.read("final_labels")
    if folder.has("labels"):
        measured = folder.read("labels", ["text_id", "score", "shares"])
        labels = labels.merge(measured, on="text_id", how="left")
    return without_gold_used(folder, labels)


def without_gold_used(folder: RunFolder, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the labels, none for texts whose gold made labels (examples, candidates, learned weights): they train no aligned arm."""
    for name in ("gold_used", "consensus_gold"):
        if folder.has(name):
            used = labels["text_id"].isin(folder.read(name)["text_id"])
            labels = labels.assign(label=labels["label"].mask(used, None))
    return labels


def votes_and_panels(this: Run, texts: pd.DataFrame, *, note: bool = True) -> dict[str, Any]:
    """Return the arguments votes and panel_labels of `arms_of`, where arms ask for them; `note`: the record says which panels."""
    settings = this.experiment.finetune
    listed = {arm for study in settings.studies() for arm in study.settings.arms}
    needs = needs_of(sorted(listed - {"full"}), settings.soft)
    if not needs & {"votes", "panel"}:
        return {}
    votes = this.folder.read("votes", VOTES)
    if "panel" not in needs:
        return {"votes": votes, "panel_labels": {}}
    panels = {arm: who for arm, who in _best_panels(this, votes).items() if is_listed(arm, sorted(listed))}
    if note:
        this.folder.note("panel_arms", panels)
    return {"votes": votes, "panel_labels": _panel_labels(this, texts, votes, panels)}


def _panel_labels(
    this: Run, texts: pd.DataFrame, votes: pd.DataFrame, panels: Mapping[str, list[str]]
) -> dict[str, pd.DataFrame]:
    """Arm `panel:<size>` → the labels of the sub-panel of that size which the consensus stage found best."""
    used = gold_for_consensus(this, texts)
    found = {}
    for arm, annotators in panels.items():
        chosen = votes[votes["annotator"].isin(annotators)]
        coded = code_votes(chosen, this.schema, texts=texts["text_id"], count=this.experiment.consensus.count)
        labels = make_labels(this, coded, this.experiment.consensus, texts, used)
        found[arm] = without_gold_used(this.folder, labels)
    return found


def _best_panels(this: Run, votes: pd.DataFrame) -> dict[str, list[str]]:
    """Arm → annotators of the sub-panel of each size, from two up to one less than all, that agrees most with all.

    No gold enters: a panel chosen by gold would be fitted to it, and its texts would be human labels.
    """
    sizes = describe_panel(votes.assign(cost=None, confidence=None), None, labels=this.schema, seed=0)[1]
    inner = sizes[(sizes["size"] > 1) & (sizes["size"] < sizes["size"].max())]
    names = set(votes["annotator"].astype(str))
    return {f"panel:{size}": members(str(who), names) for size, who in zip(inner["size"], inner["annotators"])}


def members(joined: str, names: Collection[str]) -> list[str]:
    """Return the annotators that a panel's text joins by " + ", which a name may hold too; [] where they are not all known."""
    for name in sorted(names, key=len, reverse=True):
        if joined == name:
            return [name]
        if joined.startswith(f"{name} + ") and (rest := members(joined[len(name) + 3 :], names)):
            return [name, *rest]
    return []


def panels_of(folder: RunFolder) -> dict[str, list[str]]:
    """Return arm `panel:<size>` → its annotators, as the trainings had them."""
    found: dict[str, list[str]] = folder.record().get("panel_arms") or {}
    return found


def arms_of(
    student: str,
    settings: StudySettings,
    schema: LabelSchema,
    *,
    texts: pd.DataFrame,
    folds: pd.DataFrame,
    labels: pd.DataFrame,
    votes: pd.DataFrame | None = None,
    panel_labels: Mapping[str, pd.DataFrame] | None = None,
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return the ARMS of one student (a key of STUDENTS); `only` and `seeds` in place of those of the settings."""
    listed = tuple(settings.arms if only is None else only)
    asks_gold = only is None and any(arm.startswith("gold") for arm in listed)
    floor = ("floor",) if asks_gold and "floor" not in listed else ()  # costs nothing, and two guards need it
    return make_arms(
        texts,
        folds,
        labels,
        arms=(*listed, *floor),
        seeds=settings.seeds if seeds is None else seeds,
        resample=settings.resamples(student),
        schema=schema,
        votes=votes,
        panel_labels=panel_labels,
        dev=settings.dev,
        soft=settings.soft,
        selection=settings.selection,
    )


def before_votes(settings: StudySettings) -> list[str]:
    """Return the arms that can be planned before there are votes: those of gold and of plain consensus labels."""
    return [arm for arm in settings.arms if arm != "full" and needs_of([arm], settings.soft) <= BEFORE_VOTES]


def finetune_depends(this: Run) -> Any:
    """Return what else decides the trainings: settings, encoders, labels."""
    settings = this.experiment.finetune
    used = {study.settings.recipe.encoder for study in settings.studies() if STUDENTS[study.base].USES_ENCODER}
    encoders = {encoder: encoder_fingerprint(encoder) for encoder in sorted(used)}
    return [
        settings.model_dump(mode="json", exclude={"workers", "report_to", "checkpoint_minutes"}),
        encoders,
        this.folder.record().get("labels"),
    ]
