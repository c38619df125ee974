"""map_panel: which annotators add information, which repeat each other, and how small the panel could be."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consenso.consensus.agreement import collapse_repetitions
from consenso.consensus.panel_search import SubsetSearch, VoteGrid, every_subset
from consenso.consensus.quality import by_text, common_schema
from consenso.consensus.votematrix import code_votes, positions
from consenso.errors import ConfigError, DataError, JoinError, nearest
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)

LIMIT = 10_000
"""Subsets that are all tried; of more, a greedy search tries some."""
BUDGETS = 20
"""Steps of the ladder of costs."""
NAMED = 8
"""Annotators that a sentence names."""
FEW = 300
"""With fewer texts, losses too rare to have been seen (up to 1 − .05^(1/n)) are added to the bound."""
ERROR = 0.05
"""The chance that a panel passes as small enough that is not."""


@dataclass(frozen=True, eq=False, repr=False)
class PanelMap:
    """What each annotator adds, how pairs of annotators err together, and the best subset of each size."""

    annotators: pd.DataFrame
    """annotator, cost, n (votes), accuracy_alone, agreement_with_others, added, low, high."""
    pairs: pd.DataFrame
    """first, second, n (texts both voted on), agreement, kappa, error_correlation, both_wrong, same_wrong."""
    sizes: pd.DataFrame
    """size, annotators (tuple), cost, accuracy_selected, accuracy, low, high, loss, loss_high, p, stable; by size."""
    budgets: pd.DataFrame
    """budget, then the columns of `sizes`, by budget; empty without costs."""
    chosen: dict[str, Any]
    """The smallest (with costs: cheapest) panel within the tolerance, as a row of `sizes` (or `budgets`)."""
    against: str
    """gold, or consensus (of the full panel, whose own votes are in it: agreement with it is optimistic)."""
    n: int
    """Texts scored."""
    n_left_out: int
    """Voted texts without gold; without any gold: texts on which the full panel ties or has no vote."""
    exhaustive: bool
    """Whether all subsets were tried; False: a greedy search, which may miss the best one."""
    tolerance: float
    """The accuracy that a smaller panel may lose."""

    def __repr__(self) -> str:
        return f"PanelMap: {self.sentence} (frames: annotators, pairs, sizes, budgets)"

    @property
    def sentence(self) -> str:
        """One line for a report."""
        row, full = self.chosen, len(self.annotators)
        measure = "accuracy" if self.against == "gold" else "agreement with the full panel"
        if row["size"] == full:
            return (
                f"No smaller panel than all {full} annotators is sure to lose at most {self.tolerance:.1%} {measure}."
            )
        most = 100 * row["loss_high"]
        bound = f"worse by at most {most:.1f}" if most > -0.05 else f"better by at least {-most:.1f}"
        named = ", ".join(row["annotators"][:NAMED]) + (", …" if row["size"] > NAMED else "")
        return (
            f"{row['size']} of {full} annotators ({named}) can stand for all: {measure} "
            f"{row['accuracy']:.1%} against {row['accuracy'] + row['loss']:.1%}; with 95% confidence {bound} "
            "percentage points."
        )


def map_panel(
    votes: pd.DataFrame,
    gold: Any = None,
    *,
    labels: LabelSchema | None = None,
    costs: Mapping[str, float] | None = None,
    sizes: Sequence[int] | None = None,
    method: str = "majority",
    tolerance: float = 0.01,
    draws: int = 1000,
    seed: int = 0,
) -> PanelMap:
    """Map how redundant the annotators are, by the majority of each subset of them (a tie among k labels counts 1/k).

    `votes`: VOTES; an annotator's vote is the majority of its repetitions. `gold`: a TEXTS frame, or a series of label
    names by text id; None: agreement with the consensus of all annotators takes the place of accuracy. `costs`:
    annotator → cost per text, in any unit. `sizes`: None for all. `draws`: bootstrap samples of texts.

    annotators: accuracy_alone (of its valid votes), agreement_with_others (with the majority of all others), and
    `added`: by how much accuracy falls if it is left out, with a 95 % bootstrap interval (negative: the panel is better
    without it). Without gold `added` is the share of texts whose consensus changes: who is missed, not who is right.
    pairs: error_correlation is the phi coefficient of their errors, both_wrong the share of texts where both err,
    same_wrong how often they then give the same label (null without gold). kappa is Cohen's (1960).

    sizes: the subset of each size with the best accuracy on all texts. That accuracy, `accuracy_selected`, is the best
    of many on the same texts and hence optimistic. `accuracy`, its 95 % interval low–high, and `loss` (the full panel's
    accuracy minus it) are cross-fitted instead: a subset is selected on one random half of the texts and scored on the
    other, both ways. They tell how well SELECTING like that does, so they hold for the subset shown only as far as
    both halves agree with it (`stable`). loss_high is a one-sided 95 % bootstrap bound, the selection held fixed.

    chosen: the smallest panel whose loss is below `tolerance`, by one-sided normal tests (p; H0: the loss is at least
    the tolerance) from the largest down with the fallback procedure (Wiens 2003), which holds the chance that any
    passes wrongly at 5 %: each of the m tests has 5 % / m, and what the one before had if that one passed. Of the sizes
    only odd ones are tested, if any is wanted, as an even panel ties. With costs, `budgets` has the best subset for
    each of 20 parts of the full cost, and `chosen` is the cheapest of those. Up to 10,000 subsets are all tried;
    otherwise they are found by adding the best annotator and swapping those that are missed least.

    Raises `ConfigError` for wrong options or names, `DataError` without valid votes, `JoinError` if no text has gold.
    """
    if method != "majority":
        raise ConfigError(f"unknown method {method!r}; a panel is mapped by 'majority' alone")
    if not 0 <= tolerance < 1 or draws < 1:
        raise ConfigError(f"tolerance must lie in [0, 1) and draws be at least 1; found {tolerance} and {draws}")
    panel, names, left_out = _panel(votes, gold, labels, seed)
    cost, wanted = _costs(names, costs), _wanted_sizes(sizes, panel.A)
    most, everyone = max(wanted), tuple(range(panel.A))
    exhaustive = sum(math.comb(panel.A, size) for size in range(1, most + 1)) <= LIMIT
    search = SubsetSearch(
        panel, cost, [every_subset(panel.A, most)] if exhaustive else [panel.greedy(s, most) for s in range(3)]
    )
    by_size = [search.best(size=size) for size in wanted]
    steps = [cost.sum() * step / BUDGETS for step in range(1, BUDGETS + 1)] if costs else []
    by_budget = [{"budget": step} | found for step in steps if (found := search.best(budget=step))]
    whole = {"subset": everyone, "halves": (everyone, everyone)}
    added = _score(panel, cost, [*by_size, *by_budget, whole], (draws, seed), tolerance)
    chosen = _smallest(by_budget or _testable(by_size, panel.A)) or whole
    logger.info("panel: %d annotators, %d texts, %d subsets tried", panel.A, panel.sizes.sum(), search.tried)
    return PanelMap(
        annotators=_annotators(panel, names, cost, added, gold is not None),
        pairs=_pairs(panel, names, gold is not None),
        sizes=_table(by_size, names),
        budgets=_table(by_budget, names, ["budget"]),
        chosen=_table([chosen], names).iloc[0].to_dict(),
        against="consensus" if gold is None else "gold",
        n=int(panel.sizes.sum()),
        n_left_out=left_out,
        exhaustive=exhaustive,
        tolerance=tolerance,
    )


def _panel(
    votes: pd.DataFrame, gold: Any, labels: LabelSchema | None, seed: int
) -> tuple[VoteGrid, tuple[str, ...], int]:
    """Return the panel, the annotators' names and how many voted texts are left out."""
    import numpy as np

    coded, truth = code_votes(votes, labels), None
    if gold is not None:
        truth = by_text(gold, "gold", "gold")
        names = LabelSchema.of(labels) or common_schema(set(coded.labels), set(truth.dropna().map(str)))
        coded = coded if names.names == coded.labels else code_votes(votes, names)
    single, _ = collapse_repetitions(coded)
    if not len(single.text):
        raise DataError("panel: no annotator has a valid vote; ask them first, or import votes")
    n, A, K = len(single.text_ids), len(single.annotators), len(single.labels)
    grid = np.full((n, A), -1, dtype=np.int16)
    grid[single.text, single.annotator] = single.label
    if truth is None:
        true = _consensus(grid, K)
    else:
        true = np.append(names.codes(truth), -1)[positions(single.text_ids, truth.index)]
        if not (true >= 0).any():
            raise JoinError(f"none of the {n} voted texts has gold; use the same text_id in both")
    if not (kept := true >= 0).any():
        raise DataError(f"panel: the full panel ties on all of the {n} texts; pass gold")
    half = np.random.default_rng([seed, 1]).permutation(int(kept.sum())) % 2
    return VoteGrid(grid[kept], true[kept], half, K), single.annotators, int(n - kept.sum())


def _consensus(grid: np.ndarray, K: int) -> np.ndarray:
    """Return the label with the most votes, −1 if none or several have them."""
    import numpy as np

    counts = np.stack([(grid == k).sum(axis=1) for k in range(K)], axis=1)
    most = counts.max(axis=1)
    clear = (most > 0) & ((counts == most[:, None]).sum(axis=1) == 1)
    consensus: np.ndarray = np.where(clear, counts.argmax(axis=1), -1)
    return consensus


def _costs(names: tuple[str, ...], costs: Mapping[str, float] | None) -> np.ndarray:
    import numpy as np

    if costs is None:
        return np.full(len(names), np.nan)
    if strange := [name for name in costs if name not in names]:
        raise ConfigError(f"costs: no votes of annotator {strange[0]!r}.{nearest(strange[0], names)}")
    if lacking := [name for name in names if name not in costs]:
        raise ConfigError(f"costs: no cost for {lacking[:5]}; give one for each annotator")
    cost = np.array([costs[name] for name in names], dtype=float)
    if not (np.isfinite(cost) & (cost >= 0)).all():
        raise ConfigError(f"costs must be numbers of at least 0; found {sorted(cost.tolist())[:3]}")
    return cost


def _wanted_sizes(sizes: Sequence[int] | None, A: int) -> list[int]:
    wanted = sorted({int(size) for size in (range(1, A + 1) if sizes is None else sizes)})
    if not wanted or wanted[0] < 1 or wanted[-1] > A:
        raise ConfigError(f"sizes must lie between 1 and the number of annotators, {A}; found {wanted}")
    return wanted


def _score(
    panel: VoteGrid, cost: np.ndarray, rows: list[dict[str, Any]], options: tuple[int, int], tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill in the rows; return what each annotator adds: value, low, high."""
    import numpy as np

    full = panel.credit(tuple(range(panel.A)))
    drop = [full - panel.credit(tuple(a for a in range(panel.A) if a != left)) for left in range(panel.A)]
    # each half is scored by the subset that the other half selected
    crossed = [np.where(panel.half == 0, *(panel.credit(row["halves"][s]) for s in (1, 0))) for row in rows]
    columns = np.column_stack([*drop, *crossed, *(full - credit for credit in crossed)])
    value, low, high, bound = _bootstrap(panel.sizes, columns, options)
    rare = 1 - ERROR ** (1 / float(panel.sizes.sum())) if panel.sizes.sum() < FEW else 0.0
    for row, at in zip(rows, range(panel.A, panel.A + len(rows))):
        subset, loss = row["subset"], at + len(rows)
        row["size"], row["cost"] = len(subset), float(cost[list(subset)].sum())
        row["accuracy_selected"] = float(panel.credit(subset) @ panel.sizes / panel.sizes.sum())
        row["accuracy"], row["low"], row["high"] = float(value[at]), float(low[at]), float(high[at])
        row["loss"], row["loss_high"] = float(value[loss]), max(float(bound[loss]), value[loss] + rare)
        row["p"] = _p_value(columns[:, loss], panel.sizes, tolerance)
        row["stable"] = row["halves"] == (subset, subset)
    A = panel.A
    return value[:A], low[:A], high[:A]


def _p_value(loss: np.ndarray, sizes: np.ndarray, tolerance: float) -> float:
    """Return the one-sided p of H0: the mean loss is at least the tolerance.

    Not below (1 − tolerance)ⁿ, the chance that n texts show none of the losses: few texts without any prove nothing.
    """
    from scipy.special import ndtr

    n = sizes.sum()
    mean = float(loss @ sizes / n)
    error = math.sqrt(float((loss - mean) ** 2 @ sizes)) / n
    normal = float(ndtr((mean - tolerance) / error)) if error > 0 else float(mean >= tolerance)
    return max(normal, float((1 - tolerance) ** float(n)))


def _bootstrap(sizes: np.ndarray, columns: np.ndarray, options: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return the mean over texts of each column, and its 2.5, 97.5 and 95 percentiles over resampled texts."""
    import numpy as np

    draws, seed = options
    n, rng = int(sizes.sum()), np.random.default_rng([seed, 2])
    block = max(1, 4_000_000 // len(sizes))
    parts = [rng.multinomial(n, sizes / n, min(block, draws - at)) @ columns / n for at in range(0, draws, block)]
    return (sizes @ columns / n, *np.percentile(np.concatenate(parts), [2.5, 97.5, 95], axis=0))


def _testable(rows: list[dict[str, Any]], A: int) -> list[dict[str, Any]]:
    """Return the rows of smaller panels that are worth a test: those of odd size, if there are any."""
    smaller = [row for row in rows if row["size"] < A]
    return [row for row in smaller if row["size"] % 2] or smaller


def _smallest(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last row, from the largest panel down, that passes the fallback procedure (Wiens 2003)."""
    chosen, carried = None, 0.0
    for row in reversed(rows):
        carried += ERROR / len(rows)
        if row["p"] <= carried:
            chosen = row
        else:
            carried = 0.0
    return chosen


def _table(rows: list[dict[str, Any]], names: tuple[str, ...], first: Sequence[str] = ()) -> pd.DataFrame:
    import pandas as pd

    named = [row | {"annotators": tuple(names[a] for a in row["subset"])} for row in rows]
    columns = ["size", "annotators", "cost", "accuracy_selected", "accuracy", "low", "high", "loss", "loss_high", "p"]
    return pd.DataFrame(named, columns=[*first, *columns, "stable"])


def _annotators(
    panel: VoteGrid, names: tuple[str, ...], cost: np.ndarray, added: tuple[np.ndarray, ...], has_gold: bool
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    rows, counts = [], panel.counts(tuple(range(panel.A)))
    for a, name in enumerate(names):
        label, others = panel.grid[:, a], counts.copy()
        others.ravel()[panel.at[a]] -= 1
        weight = panel.sizes * (label >= 0)
        most = others.max(axis=0)
        own = others[np.maximum(label, 0), panel.place]
        shared = (own == most) / (others == most).sum(axis=0)
        row = {"annotator": name, "cost": cost[a], "n": int(weight.sum())}
        row["accuracy_alone"] = _average(label == panel.truth, weight) if has_gold else float("nan")
        row["agreement_with_others"] = _average(shared, weight * (most > 0))
        rows.append(row)
    value, low, high = added
    return pd.DataFrame(rows).assign(added=value, low=low, high=high)


def _average(values: np.ndarray, weight: np.ndarray) -> float:
    return float(values @ weight / weight.sum()) if weight.sum() else float("nan")


def _pairs(panel: VoteGrid, names: tuple[str, ...], has_gold: bool) -> pd.DataFrame:
    """Return agreement, kappa and how errors go together, for each two annotators on the texts both voted on."""
    import numpy as np
    import pandas as pd
    from threadpoolctl import threadpool_limits

    weight = panel.sizes[:, None].astype(float)
    voted = (panel.grid >= 0).astype(float)
    wrong = voted * (panel.grid != panel.truth[:, None])
    n, errors = voted.T @ (weight * voted), wrong.T @ (weight * voted)
    both, agreed, chance, same = wrong.T @ (weight * wrong), np.zeros_like(n), np.zeros_like(n), np.zeros_like(n)
    with threadpool_limits(1):  # many small products: threads that wait for each other cost more than they give
        for k in range(panel.K):
            gave = (panel.grid == k).astype(float)
            agreed += gave.T @ (weight * gave)
            same += (gave * wrong).T @ (weight * gave * wrong)
            given = gave.T @ (weight * voted)
            chance += given * given.T
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = (n * agreed - chance) / (n * n - chance)
        spread = errors * (n - errors) * errors.T * (n - errors.T)
        columns = {"agreement": agreed / n, "kappa": np.where(n * n - chance > 0, kappa, np.nan)}
        phi = np.where(spread > 0, (n * both - errors * errors.T) / np.sqrt(spread), np.nan)
        columns |= {"error_correlation": phi, "both_wrong": both / n, "same_wrong": same / both}
    one, other = np.triu_indices(panel.A, 1)
    frame = pd.DataFrame({"first": [names[a] for a in one], "second": [names[a] for a in other]})
    frame["n"] = n[one, other].astype(np.int64)
    for name, matrix in columns.items():
        unknown = not has_gold and name in {"error_correlation", "both_wrong", "same_wrong"}
        frame[name] = np.nan if unknown else matrix[one, other]
    return frame
