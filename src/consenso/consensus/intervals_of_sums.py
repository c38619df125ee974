"""Jackknife intervals for measures that are functions of sums over texts: no draws, exact in the number of texts.

Leaving one text out changes a sum by what that text adds, so the n left-out values cost about as much as the measure.
The standard error is the jackknife's (Efron and Tibshirani 1993, eq. 11.5), the interval Student's t on a scale where
the measure is more nearly normal: log(1 − x) for chance-corrected agreement, logit for shares, by the delta method.
benchmarks/consensus/coverage.py compares it with the percentile bootstrap, which covers less where texts are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.resampling import ratio

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-10
"""A standard error below it is 0 but for rounding: leaving out any text changes nothing."""


def jackknife_error(left_out: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the standard errors (M,) from the values without a text of each kind (U, M); `sizes` (U,) texts a kind.

    √((n − 1) / n · Σ (x₍ᵢ₎ − x̄)²); NaN for fewer than two texts, or where one text left out makes the measure undefined:
    then it hangs on that text (in over a third of the draws of a bootstrap it would be missing).
    """
    import numpy as np

    group = np.zeros(len(sizes), dtype=np.int64)
    errors = [jackknife_error_within(column, sizes, group, 1)[0] for column in left_out.T]
    return np.array(errors)


def jackknife_error_within(left_out: np.ndarray, sizes: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the standard error of each group's measure (groups,) from its own left-out values (E,)."""
    import numpy as np

    n = np.bincount(group, weights=sizes, minlength=groups)
    mean = ratio(np.bincount(group, weights=sizes * left_out, minlength=groups), n)
    squares = np.bincount(group, weights=sizes * (left_out - mean[group]) ** 2, minlength=groups)
    return np.where(n > 1, np.sqrt(ratio((n - 1) * squares, n)), np.nan)


def agreement_interval(
    value: np.ndarray, error: np.ndarray, n: np.ndarray, worst: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of chance-corrected agreement: 1 − (1 − x) exp(± t · error / (1 − x)), t with n − 1 df.

    Where the error is 0 (no two votes differ, or all texts are alike) it says nothing. Then the share of disagreement
    has Wilson's interval of a share of n texts (Wilson 1927), and chance agreement stays; `worst`: the measure if every
    two votes differed. Null (NaN) for fewer than two texts or without an error.
    """
    import numpy as np

    distance, furthest = 1 - value, 1 - worst
    alike = error < ROUNDING
    factor = np.exp(np.minimum(_t(n) * ratio(error, np.where(alike, 1.0, distance)), 700.0))
    least, most = _wilson(np.clip(ratio(distance, furthest), 0.0, 1.0), n)
    low = 1 - np.where(alike, most * furthest, distance * factor)
    high = 1 - np.where(alike, least * furthest, distance / factor)
    return _known(np.maximum(low, np.minimum(value, -1.0)), high, value, error, n)


def share_interval(value: np.ndarray, error: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of shares: logit(x) ± t · error / (x (1 − x)); Wilson's where the error is 0."""
    import numpy as np
    from scipy.special import expit, logit

    alike = ~(error >= ROUNDING)
    inner = np.where(alike, 0.5, value)
    half = _t(n) * error / (inner * (1 - inner))
    least, most = _wilson(value, n)
    low = np.where(alike, least, expit(logit(inner) - half))
    high = np.where(alike, most, expit(logit(inner) + half))
    return _known(low, high, value, error, n)


def binomial_interval(value: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % intervals of shares of n texts; null (NaN) for fewer than two texts."""
    import numpy as np

    low, high = _wilson(value, n)
    return _known(low, high, value, np.zeros_like(value), n)


def left_out_means(values: np.ndarray, changed_sum: np.ndarray, changed_number: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of the defined values (groups,), and that mean without a text of each kind (U,).

    `changed_sum` and `changed_number` (U,): how leaving the text out changes the sum and the number of defined values.
    """
    import numpy as np

    defined = np.isfinite(values)
    total, number = values[defined].sum(), defined.sum()
    mean = float(total / number) if number else float("nan")
    left: np.ndarray = ratio(total + changed_sum, np.rint(number + changed_number))
    return mean, left


def change(left_out: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how a text changes the sum and the number of defined values of its group: after − before."""
    import numpy as np

    after_defined, before_defined = np.isfinite(left_out), np.isfinite(before)
    change_of_sum = np.where(after_defined, left_out, 0.0) - np.where(before_defined, before, 0.0)
    return change_of_sum, after_defined.astype(float) - before_defined


def _t(n: np.ndarray) -> np.ndarray:
    import numpy as np
    from scipy.special import stdtrit

    quantile: np.ndarray = stdtrit(np.maximum(np.asarray(n, dtype=float) - 1, 1), 0.975)
    return quantile


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson (1927), as `consenso.intervals.wilson`, for arrays."""
    import numpy as np
    from scipy.special import ndtri

    z, n = float(ndtri(0.975)), np.maximum(n, 1)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)  # rounding may pass the share


def _known(
    low: np.ndarray, high: np.ndarray, value: np.ndarray, error: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    known = np.isfinite(value) & np.isfinite(error) & (n > 1)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
