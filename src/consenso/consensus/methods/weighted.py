"""Weighted: each annotator's votes count what the user says they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.consensus.votematrix import label_shares
from consenso.errors import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np

    from consenso.consensus.votematrix import CodedVotes, Options


def weighted(votes: CodedVotes, options: Options) -> np.ndarray:
    """Return each label's share of the valid votes' weight, (n, K); an annotator without a weight weighs 1.

    Raises `ConfigError` for a weight of an unknown annotator.
    """
    import numpy as np

    for name in options.weights:
        if name not in votes.annotators:
            hint = nearest(name, votes.annotators) or f" The annotators are {list(votes.annotators)}."
            raise ConfigError(f"consensus weights: unknown annotator {name!r}.{hint}")
    each = np.array([float(options.weights.get(name, 1.0)) for name in votes.annotators])
    return label_shares(votes, votes.weight * each[votes.annotator])
