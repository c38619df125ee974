"""What a verdict word means, and what to do next; of predictions of one's own without a word about trainings."""

from __future__ import annotations

MEANINGS = {
    "INVALID": (
        "A guard failed, so the numbers below do not answer the question, whatever they look like.",
        "Mend what the first rows of the guards say, then run again; trainings that are still right are kept.",
    ),
    "UNSTABLE RECIPE": (
        "Too many trainings collapsed: the difference says something about the recipe, not about the labels.",
        "Change the recipe ({recipe}); that is a new experiment for every arm.",
    ),
    "NO VERDICT": (
        "This run does not hold what a verdict needs; the comparison's reason says what is missing.",
        "Mend what the reason names, then run again: finished trainings that are still right are kept.",
    ),
    "BETTER": (
        "{Texts} {arm} taught this classifier more than {control} did, by more than luck explains.",
        "Use {arm}, and keep a human-labelled test set; that they beat {control} is unusual enough to look at the "
        "confusion matrices, and at the quality of the gold, before relying on it.",
    ),
    "WORSE": (
        "{Texts} {arm} taught this classifier less than {control} did, by more than luck explains.",
        "Weigh the loss against the price of human labels; better annotators or a human check pay first on the "
        "problematic texts and the confused classes below.",
    ),
    "BETTER*": (
        "The difference is real but smaller than {margin}, the size that was declared beforehand to matter.",
        "For this classifier and texts like these, {arm} may stand in for {control}; keep a human-labelled test set.",
    ),
    "WORSE*": (
        "The loss is real but smaller than {margin}, the size that was declared beforehand to matter.",
        "For this classifier and texts like these, {arm} may stand in for {control} where such a loss is acceptable; "
        "keep a human-labelled test set.",
    ),
    "EQUIVALENT": (
        "For this classifier, recipe and texts like these, {arm} and {control} give the same score within ±{margin}.",
        "{Arm} may stand in for {control} here; keep a human-labelled test set, and look at the classes that matter "
        "to you in the confusion matrices, because an equal mean can hide unequal classes.",
    ),
    "NON-INFERIOR": (
        "{Arm} cost this classifier less than {margin} against {control}; whether they help is not shown.",
        "{Arm} may stand in for {control} where a loss below {margin} does not matter; keep a human-labelled test set.",
    ),
    "INCONCLUSIVE": (
        "The interval holds both differences that matter and differences that do not; this is not evidence that {arm} "
        "and {control} are equally good.",
        "Add what the verdict says is short, seeds (or resamples) or human-labelled test texts: more seeds narrow the "
        "interval only down to the limit that the number of test texts sets.",
    ),
}  # fmt: skip
"""Verdict word → what it means, what to do next; a star: within the margin."""

NO_VERDICT = {
    "filtered out": (
        "Nothing was filtered out, so the two arms hold the same rows: there is no difference to measure.",
        "Choose a rule for problematic texts that marks some under [consensus.problematic], then run again.",
    ),
    "give the same predictions": (
        "All seeds of an arm came out alike: repeating it taught nothing about luck, so it counts as one run.",
        "Set resample = true under [finetune], so that each seed draws its own training texts, then run again.",
    ),
    "give no interval": (
        "There are too few test texts to say how far the difference may be off; more seeds do not help.",
        "Put more human-labelled texts into the test part (300 or more), then run again.",
    ),
    "cannot tell luck from labels": (
        "With a single seed nobody can tell the labels' effect from the luck of one training.",
        "Set seeds = 10 under [finetune] and run again: only the missing seeds are trained.",
    ),
}  # fmt: skip
"""What the reason of NO VERDICT holds → what it means, what to do next; the first that fits counts."""

INVALID = {
    " test texts would do": (
        "Put as many human-labelled texts into the test part as the reason says (more gold, or a larger data.test_size), then "
        "run again."
    ),
    " seeds would do": "Set seeds under [finetune] to as many as the reason says, then run again: only the missing ones are trained.",
}
"""What the reason of INVALID holds → what to do next; the first that fits counts."""

RECIPES = {
    "frozen": "another encoder, more training texts",
    "linear": "more training texts, another student",
}
"""Student → how to change its recipe; those that are not here have steps and a learning rate. In `compare`, which the report may
not import, the guards say it in their reasons."""
STEPS = "lower learning rate, longer warm-up, more steps"

GO_ON = "“consenso run” goes on where this run stopped; a verdict needs human labels on the test texts."

OWN_ADVICE = {
    "INVALID": "Mend in the predictions or in gold what the first rows of the guards say, then compare again.",
    "NO VERDICT": "Mend in the predictions or in gold what the reason names, then compare again.",
    "NO ANSWER YET": "Give predictions of both arms for the same test texts, and gold for these texts, then compare again.",
    "BETTER": (
        "Use {arm}, and keep a human-labelled test set; that they beat {control} is unusual enough to look at the "
        "predictions, and at the quality of the gold, before relying on it."
    ),
    "WORSE": "Weigh the loss against the price of human labels, and look at the classes below.",
    "EQUIVALENT": (
        "{Arm} may stand in for {control} here; keep a human-labelled test set, and look at the classes that matter to "
        "you below, because an equal mean can hide unequal classes."
    ),
    "give the same predictions": (
        "Give predictions of runs that differ, by other seeds or by bootstrap resamples of the texts they learned from, "
        "then compare again."
    ),
    "give no interval": "Give predictions and gold for more test texts (300 or more), then compare again.",
    "cannot tell luck from labels": "Give predictions of several seeds per arm, 10 for example, then compare again.",
}  # fmt: skip
"""Verdict word, or what the reason of NO VERDICT holds → what to do next with predictions of one's own."""


def meaning_of(word: str, reason: str, *, own: bool) -> tuple[str, str]:
    """Return what a verdict word (a star: within the margin) means, and what to do next, as templates.

    `reason`: why there is no verdict; `own`: there are predictions of one's own and nothing else.
    """
    key, (meaning, advice) = word, MEANINGS.get(word, ("", "Read the contrasts below."))
    if word == "NO VERDICT":
        key = next((part for part in NO_VERDICT if part in reason), word)
        meaning, advice = NO_VERDICT.get(key, (meaning, advice))
    if word == "INVALID":
        advice = next((said for part, said in INVALID.items() if part in reason), advice)
    return meaning, OWN_ADVICE.get(key, advice) if own else advice
