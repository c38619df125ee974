"""Tokens of texts that nobody has tokenised yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consenso.finetune.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np


def estimated_tokens(texts: Sequence[str], recipe: Recipe) -> np.ndarray:
    """Return word pieces per text, estimated: 1.3 per word and the two special tokens, cut at the recipe's length."""
    import numpy as np

    words = np.array([len(text.split()) for text in texts], dtype="float64")
    return np.minimum(1.3 * words + 2, recipe.max_length)
