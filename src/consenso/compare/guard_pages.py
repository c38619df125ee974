"""What each guard looks at, and what to do when it fails: `consenso compare --explain GUARD`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """The short explanation of a guard; docs/verdict.md has the long one."""

    looks: str
    """What it looks at, and why that matters."""
    do: str
    """What to do about a failure or a warning."""


OTHERWISE = "more training texts or another student"
"""What may make any student learn more."""
_STEPS = f"a lower learning rate, warm-up, more steps, {OTHERWISE}"
RECIPES = {
    "encoder": _STEPS,
    "contrastive": _STEPS,
    "frozen": f"another encoder (finetune.recipe.encoder), {OTHERWISE}",
    "linear": OTHERWISE,
}
"""Student → what may make it learn more: the heads of frozen and linear have no learning rate, warm-up or steps."""

PAGES = {
    "leakage": Page(
        "Texts of test or dev that also stand in train, by id, word for word, normalised, nearly, or by group, in the "
        "folds and in what the arms were really trained on. Each fold is looked at for itself. A student that has seen a "
        "test text is scored on its memory.",
        "Leave data.leakage at “near” (the default removes the train side, in every arm alike), or split again.",
    ),
    "alignment": Page(
        "Whether the arms of a contrast differ in their labels alone: the same test texts, seeds and folds; where names "
        "promise it, the same training and dev texts; labels of the source the name promises, each belonging to its text "
        "id; one label map in all arms; in the primary contrast the same train texts, whatever its arms are called; "
        "no text whose gold helped to make the labels; as many optimiser steps. A primary total or coverage effect, whose "
        "arms hold unlike texts on purpose, is a warning.",
        "Train all arms in one `consenso run`; with your own predictions, give every arm the same seeds and texts.",
    ),
    "collapse": Page(
        "Trainings that learned nothing or failed, counted as run, in the arms of reported contrasts (floors, permuted "
        "and gold@n may collapse). More than 20 % in an arm, or shares that differ between two arms (Fisher p < .05), put "
        "the recipe on trial and not the labels. With four seeds or fewer, one bad run is more than 20 %.",
        "Change the recipe (encoder, contrastive: lower learning rate, longer warm-up; frozen, linear: more training texts) and "
        "train every arm again: a new experiment.",
    ),
    "rescue": Page(
        "The second analysis, in which collapsed seeds are replaced: in all arms of that seed, by a seed that no other "
        "run used, and beside the runs as they were. The first analysis, as run, remains the verdict. Replacements that "
        "collapsed too are counted, and are a warning.",
        "Let `consenso run` do the replacing; do not pick seeds by hand.",
    ),
    "gold beats the floor": Page(
        "Whether human labels beat the better of two floors (majority class; draws from the label shares) by more than 5 "
        "two-way standard errors. A recipe that learns nothing from gold cannot compare labels; with few test texts the "
        "standard error alone can be too large for it.",
        "Where the reason says how many test texts (or seeds) would do: so many, and the recipe need not be at fault. Otherwise another "
        f"recipe. encoder, contrastive: {_STEPS}; frozen: {RECIPES['frozen']}; linear: {OTHERWISE}.",
    ),
    "margin": Page(
        "Whether the margin is at most half of the lower 95 % bound of control − floor. If labels bring 5 points at all, "
        "“within 4 points” is no equivalence. The margin is never adjusted for you.",
        "Declare a smaller margin before you look, or report differences without a claim of equivalence.",
    ),
    "negative control": Page(
        "The arm permuted, trained on shuffled labels: its metric may not lie above the 97.5 % point of the same "
        "predictions scored against shuffled test gold and at the same time exceed chance over the shuffles of the training "
        "labels (one-sided t over seeds, 97.5 %; under three seeds: a warning). If it does, something else than labels "
        "teaches the student. Not checked where gold dev labels are declared.",
        "Look for the leak: test texts in train, gold that chose a state, a join by row order.",
    ),
    "seeds differ": Page(
        "Whether every seed of an arm gives its own predictions. Copies of one run are S = 1, however often they stand "
        "there; single copies are left out of both arms.",
        "Set finetune.resample = true, so that each seed draws its own training texts.",
    ),
    "low power": Page(
        "The number of paired seeds in the primary contrast. Fewer than five see only large differences.",
        "Add seeds; finished trainings are kept.",
    ),
    "failed runs": Page(
        "Trainings without predictions. Each contrast uses the seeds that both of its arms finished.",
        "Run again: only the missing ones are trained.",
    ),
    "test texts": Page(
        "How many test texts have gold. Too few give a wide interval that no number of seeds narrows.",
        "Label more test texts; 300 is a modest start.",
    ),
    "classes": Page(
        "Classes without test gold (macro-F1 leaves them out, in every arm) or without training rows in an arm (they "
        "score 0 there; the class keeps its id).",
        "Check how the labels are spelt, or label texts of that class.",
    ),
    "contamination": Page(
        "Whether texts and gold are public. An LLM may have seen them, and its labels may be better here than on new texts.",
        "Say which it is with compare.gold_public, and read the verdict accordingly.",
    ),
    "fixed before scoring": Page(
        "Whether metric, margin, contrasts, students, aggregator, panel and data are those of the freeze (`consenso "
        "compare --freeze`), or, without one, those of the first scoring. What changed after test scores were seen may "
        "have been chosen for what they showed.",
        "Freeze before the first scoring. After a change, say so when you report, or repeat on new test texts.",
    ),
}


def anchor(guard: str) -> str:
    """Return where the documentation of a guard stands."""
    return f"docs/verdict.md#{guard.replace(' ', '-')}"
