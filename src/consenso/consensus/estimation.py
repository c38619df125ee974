"""estimate_label_shares: how common is each label, from many consensus labels and a random sample of gold."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from consenso.consensus.quality import by_text, schema_of
from consenso.consensus.votematrix import positions, shown
from consenso.errors import ConfigError, DataError, JoinError
from consenso.intervals import wilson
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

FEW = 10
"""With fewer gold texts that have, or lack, a label, a normal interval of its share is doubtful."""


def estimate_label_shares(
    labels: Any,
    gold: Any,
    *,
    schema: LabelSchema | None = None,
    level: float = 0.95,
    method: Literal["ppi++", "ppi"] = "ppi++",
    selection: Any = None,
) -> pd.DataFrame:
    """Estimate the share of each label among texts like these (prediction-powered inference).

    `labels`: a LABELS frame with one method, or a series of label names by text id, of all texts; a null label (an
    undecided text) counts as "not this label" for every label. `gold`: a TEXTS frame or such a series; a null is a text
    without gold. THE GOLD TEXTS MUST BE A RANDOM SAMPLE of the texts in `labels`. Texts picked because they were
    difficult, recent or undecided give a wrong share and a wrong interval, unless `selection` (a series or mapping: text
    id → probability with which the text was chosen for gold, each text independently) says how likely each was.
    `method`: "ppi" trusts the consensus fully (λ = 1), "ppi++" as far as it helps (0 ≤ λ ≤ 1, per label).

    With f = 1 where the consensus gives the label and Y = 1 where gold does: share = λ·mean(f on the N texts without
    gold) + mean(Y − λ·f on the n with gold), and variance λ²·var(f)/N + var(Y − λ·f)/n. λ = cov(Y, f) / ((1 + n/N)
    var(f)). With `selection`, the means over gold texts weigh each by 1/probability, mean(f) is over all texts, and the
    variance is that of the linearised weighted mean. The shares need not sum to exactly 1: each has its own λ.

    Returns a row per label: label, n_gold (texts with gold and a row in `labels`), n (texts in `labels`),
    consensus_share (of all n), gold_share, gold_low, gold_high (from gold alone: Wilson's interval, or the weighted
    normal one), share, low, high (at `level`), weight (λ), n_effective (how many gold texts alone would be as precise),
    gain (n_effective / n_gold), few (true: fewer than ten gold texts have, or lack, the label, and the normal interval
    is doubtful). Where the estimated variance is 0, low and high are those of gold alone.

    Raises `JoinError` if no text has both, `DataError` for an unknown label, fewer than two gold texts or a wrong
    probability, `ConfigError` for a wrong option.

    Source: Angelopoulos, Bates, Fannjiang, Jordan and Zrnic (2023, Science 382, arXiv 2301.09633, the mean); Angelopoulos, Duchi and
    Zrnic (2023, PPI++, arXiv 2311.01453, power tuning of the mean); weights: Särndal, Swensson and Wretman (1992,
    section 5.7) and Zrnic and Candès (2024, arXiv 2403.03208).
    """
    import numpy as np
    import pandas as pd

    if not 0 < level < 1:
        raise ConfigError(f"level must lie between 0 and 1, such as 0.95; found {level}")
    if method not in {"ppi++", "ppi"}:
        raise ConfigError(f"unknown method {method!r}; choose 'ppi++' (tuned) or 'ppi' (the consensus fully trusted)")
    given, truth = by_text(labels, "label", "labels"), by_text(gold, "gold", "gold")
    names = LabelSchema.of(schema) or schema_of(given, truth)
    said, true = names.codes(given), _gold_codes(given, truth, names)
    weight = None if selection is None else _inverse(selection, given.index, true >= 0)
    rows = []
    for k, name in enumerate(names):
        f, Y = (said == k).astype(float), np.where(true >= 0, (true == k).astype(float), np.nan)
        plain = _plain(Y, f, level, method) if weight is None else _weighted(Y, f, weight, level, method)
        rows.append({"label": name, "n_gold": int((true >= 0).sum()), "n": len(f), "consensus_share": f.mean()} | plain)
    logger.info("label shares: %d of %d texts have gold", rows[0]["n_gold"], len(said))
    return pd.DataFrame(rows)


def _gold_codes(given: pd.Series, truth: pd.Series, names: LabelSchema) -> np.ndarray:
    """Return the gold label of each text of `given`, −1 without gold."""
    import numpy as np

    true: np.ndarray = np.append(names.codes(truth), -1)[positions(given.index, truth.index)]
    if (n := int((true >= 0).sum())) == 0:
        raise JoinError(
            f"none of the {len(given)} labelled texts has gold ({int(truth.notna().sum())} other texts have); "
            "use the same text_id in both"
        )
    if n < 2:
        raise DataError("label shares: one text with gold has no variance; label at least two (better 100) at random")
    return true


def _inverse(selection: Any, ids: pd.Index, has_gold: np.ndarray) -> np.ndarray:
    """Return 1/probability for the texts with gold, 0 for the others."""
    import numpy as np
    import pandas as pd

    chance = pd.Series(selection, dtype=float)
    if not chance.index.is_unique:
        raise DataError(f"selection: text_id {shown(chance.index[chance.index.duplicated()][0])} stands twice")
    value = np.append(chance.to_numpy(), np.nan)[positions(ids, chance.index)]
    wrong = has_gold & ~((value > 0) & (value <= 1))
    if wrong.any():
        raise DataError(
            f"selection: {int(wrong.sum())} gold text(s) without a probability above 0 and up to 1, for example "
            f"{shown(ids[wrong][0])} ({value[wrong][0]}); give each gold text its chance of being chosen"
        )
    inverse: np.ndarray = np.where(has_gold, 1 / np.where(has_gold, value, 1.0), 0.0)
    return inverse


def _plain(Y: np.ndarray, f: np.ndarray, level: float, method: str) -> dict[str, Any]:
    """PPI++ for a mean; as in the authors' ppi_py, var(f) is pooled over all texts in λ and not in the variance."""
    import numpy as np

    has = ~np.isnan(Y)
    Y, on, off = Y[has], f[has], f[~has]
    n, N = len(Y), len(off)
    pooled = float(f.var(ddof=1))
    covariance = float(np.mean((Y - Y.mean()) * (on - on.mean())))
    tuned = covariance / ((1 + n / N) * pooled) if N and pooled > 0 else 0.0
    weight = (1.0 if N else 0.0) if method == "ppi" else float(np.clip(tuned, 0, 1))
    share = float(Y.mean() + weight * ((off.mean() if N else 0.0) - on.mean()))
    variance = float((Y - weight * on).var() / n) + (weight**2 * float(off.var()) / N if N else 0.0)
    alone = wilson(int(Y.sum()), n, level)
    own, own_variance = float(Y.mean()), float(Y.var() / n)
    options = (weight, level)
    return _row(Y, share, variance, gold_share=own, gold_variance=own_variance, alone=alone, options=options)


def _weighted(Y: np.ndarray, f: np.ndarray, inverse: np.ndarray, level: float, method: str) -> dict[str, Any]:
    """Difference estimator with weights 1/π; its variance from the linearised terms, one per text."""
    import numpy as np

    n, has = len(f), ~np.isnan(Y)
    Y = np.where(has, Y, 0.0)
    share_of_gold, f_of_gold = np.average(Y, weights=inverse), np.average(f, weights=inverse)
    size = inverse.sum() / n  # near 1; makes the terms those of a ratio
    a = (Y - share_of_gold) * inverse / size
    b = (f - f.mean()) - (f - f_of_gold) * inverse / size
    spread = float(np.mean(b * b))
    tuned = -float(np.mean(a * b)) / spread if spread > 0 else 0.0
    weight = 1.0 if method == "ppi" else float(np.clip(tuned, 0, 1))
    share = float(share_of_gold + weight * (f.mean() - f_of_gold))
    variance, own_variance = float(np.mean((a + weight * b) ** 2) / n), float(np.mean(a * a) / n)
    own, alone, options = float(share_of_gold), _normal(share_of_gold, own_variance, level), (weight, level)
    return _row(Y[has], share, variance, gold_share=own, gold_variance=own_variance, alone=alone, options=options)


def _row(
    Y: np.ndarray,
    share: float,
    variance: float,
    *,
    gold_share: float,
    gold_variance: float,
    alone: tuple[float, float],
    options: tuple[float, float],
) -> dict[str, Any]:
    weight, level = options
    low, high = _normal(share, variance, level) if variance > 0 else alone
    few = bool(min(Y.sum(), len(Y) - Y.sum()) < FEW)
    gain = gold_variance / variance if variance > 0 and not few else float("nan")
    return {
        "gold_share": gold_share,
        "gold_low": alone[0],
        "gold_high": alone[1],
        "share": min(1.0, max(0.0, share)),
        "low": low,
        "high": high,
        "weight": weight,
        "n_effective": gain * len(Y),
        "gain": gain,
        "few": few,
    }


def _normal(share: float, variance: float, level: float) -> tuple[float, float]:
    from math import sqrt

    from scipy.special import ndtri

    half = float(ndtri(0.5 + level / 2)) * sqrt(variance)
    return min(1.0, max(0.0, share - half)), min(1.0, max(0.0, share + half))
