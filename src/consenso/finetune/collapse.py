"""The one definition of a collapsed run (docs/training.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.finetune.metrics import dev_scores, softmax

if TYPE_CHECKING:
    import numpy as np

SHARE, SHARE_OVER_PRIOR, SPREAD, CHANCE_P, ENTROPY_SHARE = 0.95, 0.03, 0.05, 0.05, 0.97
PERMUTATIONS = 999
FEW_DEV = 30
"""With fewer dev texts a healthy run may well give all of them one class, or agree with them no better than chance can."""


def find_collapse(
    logits: np.ndarray,
    codes: np.ndarray,
    train_codes: np.ndarray,
    *,
    seed: int = 0,
    looks: int = 1,
    targets: np.ndarray | None = None,
    dev_targets: np.ndarray | None = None,
    on_train: np.ndarray | None = None,
) -> str | None:
    """Return why a run has collapsed, or None for a healthy one.

    `logits`: (n dev texts, K), −inf in the column of a class that the arm does not have; `codes`: the dev labels of the
    arm's own source; `train_codes`: its training labels; `targets`, `dev_targets`: where the training or the dev rows
    have soft targets, these, (rows, K); `on_train`: the logits of the training rows, (rows, K), which are judged along with
    dev where that has fewer than FEW_DEV texts. Collapsed: a logit is not finite; one class only is predicted; the most
    predicted class has more than max(.95, its share in training + .03); the standard deviation of the logits over texts
    (mean over the classes that occur in training, each row centred, since softmax ignores a row's level) is below .05,
    or the plain cross-entropy on dev is at least .97 of the entropy of the training shares; both count only where
    agreement with the dev labels is not above chance (Matthews correlation, permutation p > .05; for the logits
    p > .05 / `looks`, the number of states of which dev chose this one). Shares are those of the training labels, with
    soft targets the mean target.
    """
    import numpy as np

    n_classes = logits.shape[1]
    shares = np.bincount(train_codes, minlength=n_classes) / len(train_codes) if targets is None else targets.mean(0)
    if on_train is not None and len(codes) < FEW_DEV:
        logits, codes = np.concatenate([logits, on_train]), np.concatenate([codes, train_codes])
        soft = targets is not None and dev_targets is not None
        dev_targets = np.concatenate([dev_targets, targets]) if soft else None
    known = logits[:, ~np.isneginf(logits).all(axis=0)]
    if known.shape[1] == 0 or not np.isfinite(known).all():
        return "a logit is not finite"
    predicted = logits.argmax(axis=1)
    loss = dev_scores(codes, softmax(logits), dev_targets)["dev_loss"]
    if said := _one_class(predicted, shares):
        return said
    small = _hardly_differs(logits[:, (shares > 0) & np.isfinite(logits).all(axis=0)])
    said = small or _like_the_prior(loss, shares)
    # best of many dev scores, noise agrees with dev a little: tiny logits must agree by more than that
    if said is None or (p := chance_p(codes, predicted, seed=seed)) <= (
        CHANCE_P / max(looks, 1) if small else CHANCE_P
    ):
        return None
    return f"agreement with dev by chance (p = {p:.2f}), {said}"


def _one_class(predicted: np.ndarray, shares: np.ndarray) -> str | None:
    import numpy as np

    counts = np.bincount(predicted, minlength=len(shares))
    top, share = int(counts.argmax()), float(counts.max() / len(predicted))
    if share == 1:
        return "one class is predicted for every dev text"
    if share > max(SHARE, shares[top] + SHARE_OVER_PRIOR):
        return f"one class is predicted for {share:.1%} of the dev texts; its share in training is {shares[top]:.1%}"
    return None


def _hardly_differs(logits: np.ndarray) -> str | None:
    spread = float((logits - logits.mean(axis=1, keepdims=True)).std(axis=0).mean()) if logits.size else 0.0
    return f"logits that hardly differ between texts (standard deviation {spread:.4f})" if spread < SPREAD else None


def _like_the_prior(loss: float, shares: np.ndarray) -> str | None:
    limit = entropy(shares)
    return (
        f"dev loss {loss:.3f} no better than the label shares ({limit:.3f})" if loss >= ENTROPY_SHARE * limit else None
    )


def entropy(shares: np.ndarray) -> float:
    """Return the entropy of label shares in nats: the loss of a student that has learned them and nothing else."""
    import numpy as np

    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def chance_p(codes: np.ndarray, predicted: np.ndarray, *, seed: int = 0) -> float:
    """Return the one-sided permutation p of the Matthews correlation between labels and predictions, 999 permutations.

    1 where the correlation is not positive. Permuting keeps both margins, and with fixed margins the correlation rises
    with the number of matches alone (Gorodkin 2004, the K-category form): so matches are counted, which is exact and
    a thousand times as fast.
    """
    import numpy as np
    from sklearn.metrics import matthews_corrcoef

    if matthews_corrcoef(codes, predicted) <= 0:
        return 1.0
    rng, matches = np.random.default_rng([seed, len(codes)]), int((codes == predicted).sum())
    as_good = sum(int((rng.permutation(codes) == predicted).sum()) >= matches for _ in range(PERMUTATIONS))
    return (1 + as_good) / (1 + PERMUTATIONS)
