"""The one definition of a collapsed run (docs/training.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consenso.finetune.metrics import cross_entropy, softmax

if TYPE_CHECKING:
    import numpy as np

SHARE, SHARE_OVER_PRIOR, SPREAD, CHANCE_P, ENTROPY_SHARE = 0.95, 0.03, 0.05, 0.05, 0.97
PERMUTATIONS = 999


def find_collapse(logits: np.ndarray, codes: np.ndarray, train_codes: np.ndarray, *, seed: int = 0) -> str | None:
    """Return why a run has collapsed, or None for a healthy one.

    `logits`: (n dev texts, K), −inf in the column of a class that the arm does not have; `codes`: the dev labels of the
    arm's own source; `train_codes`: its training labels. Collapsed: a logit is not finite; one class only is predicted;
    the most predicted class has more than max(.95, its share in training + .03); the standard deviation of the logits
    over texts (mean over classes, each row centred, since softmax ignores a row's level) is below .05; or agreement
    with dev is not above chance (Matthews correlation, permutation p > .05) and the cross-entropy is at least .97 of
    the entropy of the training labels.
    """
    import numpy as np

    known = logits[:, ~np.isneginf(logits).all(axis=0)]
    if known.shape[1] == 0 or not np.isfinite(known).all():
        return "a logit is not finite"
    prior = np.bincount(train_codes, minlength=logits.shape[1]) / len(train_codes)
    predicted = logits.argmax(axis=1)
    counts = np.bincount(predicted, minlength=logits.shape[1])
    top, share = int(counts.argmax()), float(counts.max() / len(predicted))
    if share == 1:
        return "one class is predicted for every dev text"
    if share > max(SHARE, prior[top] + SHARE_OVER_PRIOR):
        return f"one class is predicted for {share:.1%} of the dev texts; its share in training is {prior[top]:.1%}"
    spread = float((known - known.mean(axis=1, keepdims=True)).std(axis=0).mean())
    if spread < SPREAD:
        return f"the logits hardly differ between texts (standard deviation {spread:.4f})"
    loss, entropy = cross_entropy(codes, softmax(logits)), -float(sum(p * np.log(p) for p in prior if p > 0))
    if loss >= ENTROPY_SHARE * entropy and (p := chance_p(codes, predicted, seed=seed)) > CHANCE_P:
        return (
            f"agreement with dev by chance (p = {p:.2f}), dev loss {loss:.3f} that of the label shares ({entropy:.3f})"
        )
    return None


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
