"""How sure an annotator was: from the probabilities of the reply's tokens, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from consenso.annotate.prompting import AnswerForm, written
from consenso.errors import DataError
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TOP_LOGPROBS = 20
"""Alternatives asked for per token: as many as the common servers give."""
BINS = 15
"""Bins of the expected calibration error."""

Tokens = Sequence[tuple[str, Sequence[tuple[str, float]]]]
"""Per token of a reply: what was written, and (alternative, log probability) pairs, itself among them."""


def label_probabilities(
    tokens: Tokens, label: str, offered: Sequence[str], schema: LabelSchema, form: AnswerForm
) -> dict[str, float] | None:
    """Return label → probability, summing to 1 over the labels offered, or None where the label is not found in the tokens.

    Walks along the tokens of the answered label. At each, every alternative that fits exactly one label gives that label
    its probability, times the probability of the tokens before; alternatives that several labels share (the "very" of
    two) are followed where they were written, and split evenly where they were not. The mass is then normalised over the
    labels, so that what the model wanted to say besides (explanations, other words) does not count.
    """
    spelled = {name: _written(name, schema, form) for name in offered}
    start = _start_of(tokens, spelled[label])
    if start is None:
        return None
    mass = dict.fromkeys(offered, 0.0)
    open_names, said, weight = set(offered), "", 1.0
    for token, alternatives in tokens[start:]:
        own = _clean(said + token)
        for alternative, log_probability in alternatives:
            if alternative == token:
                continue
            fitting = _fitting(_clean(said + alternative), open_names, spelled)
            for name in fitting:
                mass[name] += weight * math.exp(min(log_probability, 0.0)) / len(fitting)
        probability = next((math.exp(min(p, 0.0)) for other, p in alternatives if other == token), 0.0)
        weight *= probability
        open_names = _fitting(own, open_names, spelled)
        said += token
        if len(open_names) <= 1:
            break
    for name in open_names & {label} or open_names:
        mass[name] += weight / max(1, len(open_names & {label} or open_names))
    total = sum(mass.values())
    return {name: value / total for name, value in mass.items()} if total > 0 else None


def _written(name: str, schema: LabelSchema, form: AnswerForm) -> str:
    return _clean(name if form == "json" else written(name, schema, form))


def _clean(text: str) -> str:
    return text.casefold().lstrip(" \t\n\"'`*_([{:▁Ġ")


def _fitting(said: str, names: set[str], spelled: Mapping[str, str]) -> set[str]:
    """The labels that could go on from what was said, or that it holds whole."""
    if not said:
        return set()
    whole = {n for n in names if said.startswith(spelled[n]) and not said[len(spelled[n]) :][:1].isalnum()}
    if whole:
        longest = max(len(spelled[n]) for n in whole)
        exact = {n for n in whole if len(spelled[n]) == longest}
        return exact | {n for n in names if spelled[n].startswith(said) and len(spelled[n]) > len(said)}
    return {n for n in names if spelled[n].startswith(said)}


def _start_of(tokens: Tokens, spelled: str) -> int | None:
    """The token where the label's last mention begins: thoughts and reasons may have named it before."""
    for start in range(len(tokens) - 1, -1, -1):
        said = ""
        for token, _ in tokens[start:]:
            said += token
            cleaned = _clean(said)
            if cleaned.startswith(spelled):
                if _clean(tokens[start][0]):
                    return start
                break
            if cleaned and not spelled.startswith(cleaned):
                break
    return None


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error: Σ n_b/n · |accuracy_b − confidence_b| over equal-width bins (Naeini et al. 2015)."""
    import numpy as np

    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins), np.bincount(place, weights=correct, minlength=bins)
    return float(np.abs(sums[1] - sums[0]).sum() / max(1, n.sum()))


def calibrate_confidence(
    votes: pd.DataFrame, gold: pd.Series, *, method: str = "isotonic", folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Return how well each annotator's confidence tells its accuracy, as given and after calibration on gold.

    `votes`: the votes table; `gold`: labels by text_id (train and dev, never test). Returns one row per annotator with at
    least 50 valid votes with confidence on texts with gold: annotator, n, accuracy, mean_confidence, ece (as given),
    ece_calibrated, brier, brier_calibrated. `method`: isotonic, or platt (logistic on the logit of the confidence, which
    for two labels is temperature scaling with a bias). Calibrated figures are out of fold.
    """
    import pandas as pd

    if method not in {"isotonic", "platt"}:
        raise DataError(f"calibration by {method!r}; choose isotonic or platt")
    known = votes[votes["label"].notna() & votes["confidence"].notna()]
    known = known.assign(
        correct=known["label"].to_numpy() == known["text_id"].map(gold).to_numpy(),
        known=known["text_id"].isin(gold.dropna().index),
    )
    rows = []
    for annotator, mine in known[known["known"]].groupby("annotator", sort=True):
        if len(mine) < 50 or mine["correct"].nunique() < 2:
            continue
        given, correct = mine["confidence"].to_numpy("float64").clip(0, 1), mine["correct"].to_numpy("float64")
        better = _out_of_fold(given, correct, method, folds, seed)
        rows.append(
            {
                "annotator": annotator, "n": len(mine), "accuracy": correct.mean(), "mean_confidence": given.mean(),
                "ece": calibration_error(given, correct), "ece_calibrated": calibration_error(better, correct),
                "brier": float(((given - correct) ** 2).mean()), "brier_calibrated": float(((better - correct) ** 2).mean()),
            }
        )  # fmt: skip
    columns = ["annotator", "n", "accuracy", "mean_confidence", "ece", "ece_calibrated", "brier", "brier_calibrated"]
    return pd.DataFrame(rows, columns=columns)


def _out_of_fold(given: np.ndarray, correct: np.ndarray, method: str, folds: int, seed: int) -> np.ndarray:
    import numpy as np
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    found = np.empty_like(given)
    logit = np.log(np.clip(given, 1e-6, 1 - 1e-6) / (1 - np.clip(given, 1e-6, 1 - 1e-6)))[:, None]
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(given):
        if correct[train].min() == correct[train].max():
            found[test] = correct[train].mean()
        elif method == "isotonic":
            found[test] = (
                IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
                .fit(given[train], correct[train])
                .predict(given[test])
            )
        else:
            found[test] = LogisticRegression(C=1e6).fit(logit[train], correct[train]).predict_proba(logit[test])[:, 1]
    return found
