"""The loss of a student: cross-entropy, or on request one that bears wrong or rare labels better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consenso import encoders
from consenso.finetune.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

Loss = Callable[[Any, Any], Any]
"""Logits (n, K) and targets (n, K) → the loss of each row (n,)."""


def make_loss(recipe: Recipe, shares: np.ndarray, device: str = "cpu") -> Loss:
    """Return the recipe's loss; `shares`: those of the classes among the training labels, (K,).

    `cross_entropy`: −Σ_k t_k log p_k. `focal`: −Σ_k t_k (1 − p_k)^γ log p_k (Lin et al. 2017, arXiv 1708.02002, eq. 4).
    `gce`: Σ_k t_k (1 − p_k^q) / q, between cross-entropy (q → 0) and mean absolute error (q = 1) (Zhang & Sabuncu 2018, arXiv
    1805.07836, eq. 6). `label_smoothing` ε turns every target t into (1 − ε) t + ε / K. With `class_weights = "balanced"`
    class k weighs 1 / (K share_k), over the classes that occur: the weights of the training rows then have mean 1.
    """
    torch = encoders.import_torch()
    weights = torch.tensor(class_weights(shares), dtype=torch.float32, device=device)
    weighted, smoothing = recipe.class_weights == "balanced", recipe.label_smoothing

    def loss(logits: Any, targets: Any) -> Any:
        if smoothing:
            targets = (1 - smoothing) * targets + smoothing / logits.shape[1]
        if weighted:
            targets = targets * weights
        return (targets * _per_class(recipe, logits)).sum(dim=1)

    return loss


def _per_class(recipe: Recipe, logits: Any) -> Any:
    """The loss of a row if its label is k, for every k: (n, K)."""
    log_p = logits.log_softmax(dim=1)
    if recipe.loss == "focal":
        rest = (-log_p.expm1()).clamp_min(1e-7)  # 1 − p; at 0 its powers below 1 have no slope
        return -(rest**recipe.focal_gamma) * log_p
    if recipe.loss == "gce":
        return (1 - (recipe.gce_q * log_p).exp()) / recipe.gce_q
    return -log_p


def class_weights(shares: np.ndarray) -> np.ndarray:
    """Return 1 / (K share_k) for the K classes that occur, 0 for the others."""
    import numpy as np

    present = shares > 0
    weights: np.ndarray = np.where(present, 1 / (present.sum() * np.where(present, shares, 1)), 0.0)
    return weights
