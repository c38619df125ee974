"""What a caller gives `decide`: checked, and brought into the order of the coded votes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.consensus.methods import METHODS, Method, Options
from consenso.consensus.quality import by_text
from consenso.consensus.settings import ProblematicRule, unknown_method
from consenso.consensus.votematrix import CodedVotes, Count, code_votes, positions, shown
from consenso.errors import ConfigError, DataError, JoinError, nearest

if TYPE_CHECKING:
    import numpy as np


def check_choices(
    method: str, rule: object, *, threshold: float | None, ties: str, count: str, iterations: object, seed: object
) -> None:
    """Raise `ConfigError` for a choice that does not exist or a number out of range."""
    if method not in METHODS:
        raise ConfigError(unknown_method(method))
    if not isinstance(rule, ProblematicRule):
        raise ConfigError(
            f"problematic must be a ProblematicRule, e.g. consenso.ProblematicRule(below=0.8); found {rule!r}"
        )
    if ties not in {"undecided", "random"}:
        raise ConfigError(f"unknown tie policy {ties!r}; choose 'undecided' or 'random'")
    if count not in {"annotator", "vote"}:
        raise ConfigError(f"unknown count {count!r}; choose 'annotator' (repetitions averaged) or 'vote' (pooled)")
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie between 0 and 1 (a share of the votes); found {threshold}")
    for name, number, least in (("iterations", iterations, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or number < least:
            raise ConfigError(f"{name} must be a whole number of at least {least}; found {number!r}")


def numbers_of(name: str, given: Any) -> dict[str, float] | None:
    """Return annotator → number of a mapping or a series, None of None; anything else raises `ConfigError`."""
    if given is None:
        return None
    try:
        return {str(key): float(value) for key, value in dict(given).items()}
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be a number per annotator, e.g. {{'gpt': 2.0}}; found {given!r}") from None


def coded_votes(votes: Any, method: Method, *, labels: Any, texts: Any, count: Count) -> CodedVotes:
    """Return coded votes; `labels` may be a list of names; what coded votes already fix cannot be given again."""
    if isinstance(votes, CodedVotes):
        if labels is not None or texts is not None or count != "annotator":
            raise ConfigError(
                "coded votes have their labels, texts and count already: give these to code_votes instead"
            )
        return votes
    if labels is None and method.ordered:
        raise ConfigError("a method for ordered labels needs their order: pass labels, from the first to the last")
    return code_votes(votes, labels, texts=texts, count=count)


def learns_from_gold(method: Method, options: Options) -> bool:
    """Return whether the method would read the gold that it is given."""
    return "gold" in method.reads and ("weights" not in method.reads or options.weights == "gold")


def halves(gold: np.ndarray, text_ids: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split gold in two random halves, by text id: whatever the order of the texts, each text stays in its half."""
    import numpy as np

    known = np.flatnonzero(gold >= 0)
    known = known[np.argsort([str(text_ids[i]) for i in known], kind="stable")]
    first = np.random.default_rng([seed, 4]).permutation(len(known)) < len(known) / 2
    one, other = gold.copy(), gold.copy()
    one[known[~first]], other[known[first]] = -1, -1
    return one, other


def gold_codes(gold: Any, coded: CodedVotes) -> np.ndarray | None:
    """Return the position of each text's gold label, −1 where there is none; an unknown label is an error."""
    import numpy as np
    import pandas as pd

    if gold is None:
        return None
    named = by_text(gold, "gold", "gold").dropna()
    position = {name: k for k, name in enumerate(coded.labels)}
    if strange := sorted({str(name) for name in named.unique()} - set(position)):
        raise DataError(
            f"gold: unknown label {strange[0]!r}; the labels are {list(coded.labels)}."
            f"{nearest(strange[0], coded.labels)} Pass `labels` where the votes do not show all of them"
        )
    code = np.append(named.map(position).to_numpy(dtype=np.int64), -1)
    found: np.ndarray = code[positions(coded.text_ids, pd.Index(named.index))]
    if len(named) and not (found >= 0).any():
        raise JoinError(
            f"gold: none of its {len(named)} texts is among the {len(coded.text_ids)} voted ones (gold has "
            f"{shown(named.index[0])}, votes have {shown(coded.text_ids[0])}); use the same text_id in both"
        )
    return found


def aligned(probabilities: Any, coded: CodedVotes) -> np.ndarray | None:
    """Return a row of probabilities per text, in schema order; NaN for texts without."""
    import numpy as np
    import pandas as pd

    if probabilities is None:
        return None
    n, K = coded.shape
    if isinstance(probabilities, pd.DataFrame):
        if missing := [name for name in coded.labels if name not in probabilities.columns]:
            raise DataError(f"probabilities: no column for label(s) {missing}; found {list(probabilities.columns)}")
        rows = _floats(probabilities[list(coded.labels)])
        rows = np.vstack([rows, np.full(K, np.nan)])
        found: np.ndarray = rows[positions(coded.text_ids, probabilities.index)]
    else:
        found = _floats(probabilities)
        if found.shape != (n, K):
            raise DataError(
                f"probabilities: expected one row per text and a column per label, {(n, K)}; found {found.shape}. "
                "Pass a frame by text_id with the labels as columns where only some texts have them"
            )
    known = ~np.isnan(found).any(axis=1)
    if not known.any():
        raise JoinError("probabilities: none of the texts has any; use the same text_id as in votes")
    if (found[known] < 0).any() or np.abs(found[known].sum(axis=1) - 1).max() > 1e-3:
        raise DataError("probabilities: rows must be ≥ 0 and sum to 1 (a classifier's out-of-sample probabilities)")
    return np.where(known[:, None], found, np.nan)


def _floats(values: Any) -> np.ndarray:
    import numpy as np

    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise DataError("probabilities: numbers are expected, one row per text and a column per label") from None
