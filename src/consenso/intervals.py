"""The interval of a share; shared by annotate, compare and report."""

from __future__ import annotations

import math


def wilson(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927); (0, 1) of nothing."""
    from scipy.special import ndtri

    if total == 0:
        return 0.0, 1.0
    z, share = float(ndtri(0.5 + level / 2)), count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)
