"""Jackknife intervals for measures that are functions of sums over texts: no draws, exact in the number of texts.

Leaving one text out changes a sum by what that text adds, so the n left-out values cost about as much as the measure.
The standard error is the jackknife's (Efron and Tibshirani 1993, eq. 11.5), the interval Student's t on a scale where
the measure is more nearly normal: log(1 − x) for chance-corrected agreement, logit for shares, by the delta method.
benchmarks/consensus/coverage.py compares it with the percentile bootstrap, which covers too rarely under 300 texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.resampling import ratio

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-12
"""What a value may differ from 1 (or 0) and still be it."""
UNDEFINED = 0.05
"""No interval where the measure is undefined without one text, for more than this share of the texts."""


def jackknife_error(left_out: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the standard errors (M,) from the values without a text of each kind (U, M); `sizes` (U,) texts a kind.

    ((n − 1) / n) Σ (x₍ᵢ₎ − x̄)², the root of it; NaN for fewer than two texts, or where undefined too often.
    """
    import numpy as np

    group = np.zeros(len(sizes), dtype=np.int64)
    errors = [jackknife_error_within(column, sizes, group, 1)[0] for column in left_out.T]
    return np.array(errors)


def jackknife_error_within(left_out: np.ndarray, sizes: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the standard error of each group's measure (groups,) from its own left-out values (E,)."""
    import numpy as np

    defined = np.isfinite(left_out)
    weight = np.where(defined, sizes, 0.0)
    value = np.where(defined, left_out, 0.0)
    n = np.bincount(group, weights=weight, minlength=groups)
    everything = np.bincount(group, weights=sizes, minlength=groups)
    mean = ratio(np.bincount(group, weights=weight * value, minlength=groups), n)
    squares = np.bincount(group, weights=weight * (value - mean[group]) ** 2, minlength=groups)
    usable = (n > 1) & (n >= (1 - UNDEFINED) * everything)
    return np.where(usable, np.sqrt(ratio((n - 1) * squares, n)), np.nan)


def agreement_interval(
    value: np.ndarray, error: np.ndarray, n: np.ndarray, worst: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of chance-corrected agreement: 1 − (1 − x) exp(± t · error / (1 − x)), t with n − 1 df.

    Where no two votes differ the error is 0 and says nothing. Then the interval ends at 1 and starts where the measure
    would be if the share of disagreement were the upper end of Wilson's interval of 0 in n texts (Wilson 1927);
    `worst`: the measure if every two votes differed and chance agreement stayed. Null (NaN) for fewer than two texts.
    """
    import numpy as np

    distance = 1 - value
    perfect = distance < ROUNDING
    factor = np.exp(np.minimum(_t(n) * ratio(error, np.where(perfect, 1.0, distance)), 700.0))
    low = np.where(perfect, 1 - _wilson(np.zeros_like(value), n)[1] * (1 - worst), 1 - distance * factor)
    high = np.where(perfect, value, 1 - distance / factor)
    return _known(np.maximum(low, np.minimum(value, -1.0)), high, value, error, n)


def share_interval(value: np.ndarray, error: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of shares: logit(x) ± t · error / (x (1 − x)); Wilson's where a share is 0 or 1."""
    import numpy as np
    from scipy.special import expit, logit

    extreme = (value < ROUNDING) | (value > 1 - ROUNDING)
    inner = np.where(extreme | ~np.isfinite(value), 0.5, value)
    half = _t(n) * error / (inner * (1 - inner))
    below, above = _wilson(np.where(np.isfinite(value), value, 0.5), n)
    low = np.where(extreme, below, expit(logit(inner) - half))
    high = np.where(extreme, above, expit(logit(inner) + half))
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
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def _known(
    low: np.ndarray, high: np.ndarray, value: np.ndarray, error: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    known = np.isfinite(value) & np.isfinite(error) & (n > 1)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
