"""CPU seconds of consensus and agreement beside crowd-kit, krippendorff, statsmodels and cleanlab, in one run.

`python benchmarks/consensus/speed.py [--rounds 5] [--peer-rounds 1]`. Drawn from default_rng(0): 5 labels per text, 5 classes,
annotators that are right with a chance between .5 and .9 and else guess; dense: 5 annotators on every text; sparse: 5 of
1,000 workers per text. Both sides start from what they are made for: ours from coded votes, peers from a frame or matrix of
integer codes; coding frames of strings is measured apart. One thread; in each round ours and the peer take turns, after a
first call on few texts. Printed are the median of `time.process_time` over rounds and its range. crowd-kit's Dawid–Skene and
the table of all methods get `--peer-rounds`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import pandas as pd

from consenso.consensus.agreement import alpha_of, fleiss_of
from consenso.consensus.decision import decide
from consenso.consensus.methods import METHODS, Options
from consenso.consensus.methods.dawid_skene import fit_dawid_skene
from consenso.consensus.patterns import find_patterns
from consenso.consensus.votematrix import CodedVotes, code_votes

A, K = 5, 5
FEW, SOME, MANY, BESIDE_CLEANLAB = 1_000, 100_000, 1_000_000, 20_000


@dataclass(frozen=True)
class Drawn:
    """Votes in every form that a contender starts from."""

    coded: CodedVotes
    matrix: np.ndarray
    """Labels, (n, 5): a column per annotator, if dense."""
    probabilities: np.ndarray

    @property
    def frame(self) -> pd.DataFrame:
        """Return crowd-kit's frame."""
        return pd.DataFrame({"task": self.coded.text, "worker": self.coded.annotator, "label": self.coded.label})

    @property
    def strings(self) -> pd.DataFrame:
        """Return the frame a user has."""
        names = pd.Index([f"text-{i:07d}" for i in range(len(self.matrix))])
        labels = pd.Index(["negative", "neutral", "positive", "mixed", "other"])
        annotators = pd.Index([f"annotator {a}" for a in range(len(self.coded.annotators))])
        votes = self.coded
        return pd.DataFrame(
            {
                "text_id": names[votes.text],
                "annotator": annotators[votes.annotator],
                "label": labels[votes.label],
            }
        )


def draw(n: int, workers: int = A) -> Drawn:
    """Draw votes of 5 of the workers per text."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, K, n)
    skill = rng.uniform(0.5, 0.9, workers)
    if workers == A:
        who = np.tile(np.arange(A), (n, 1))
    else:  # five different ones: a first one, and the next at distances that do not go round
        step = np.c_[np.zeros(n, dtype=np.int64), rng.integers(1, workers // A, (n, A - 1))]
        who = np.sort((rng.integers(0, workers, n)[:, None] + step.cumsum(axis=1)) % workers, axis=1)
    label = np.where(rng.random((n, A)) < skill[who], truth[:, None], rng.integers(0, K, (n, A)))
    names = tuple(f"w{a:04d}" for a in range(workers)), tuple(f"label {k}" for k in range(K))
    coded = CodedVotes(pd.RangeIndex(n), *names, np.repeat(np.arange(n), A), who.ravel(), label.ravel(), np.ones(n * A))
    probabilities = rng.dirichlet(np.ones(K), n) * 0.4
    probabilities[np.arange(n), truth] += 0.6
    return Drawn(coded, label, probabilities)


def fifty(drawn: Drawn) -> np.ndarray:
    """Run Dawid–Skene's EM 50 times, from coded votes to posteriors."""
    patterns = find_patterns(drawn.coded)
    return patterns.spread(fit_dawid_skene(patterns, K, iterations=50, tolerance=0).posterior)


def shares(name: str, drawn: Drawn) -> Any:
    """Run one of our methods."""
    reads = METHODS[name].reads
    options = Options(
        weights="votes" if name == "weighted" else {},
        probabilities=drawn.probabilities if "probabilities" in reads else None,
    )
    return METHODS[name].shares(drawn.coded, options)


def crowdkit_dawid_skene(drawn: Drawn) -> Any:
    """Run crowd-kit's EM 50 times."""
    from crowdkit.aggregation import DawidSkene

    return DawidSkene(n_iter=50, tol=0).fit_predict_proba(drawn.frame)


def crowdkit_majority(drawn: Drawn) -> Any:
    """Run crowd-kit's majority."""
    from crowdkit.aggregation import MajorityVote

    return MajorityVote().fit_predict_proba(drawn.frame)


def krippendorff_alpha(drawn: Drawn) -> float:
    """Run krippendorff's alpha."""
    import krippendorff

    return float(krippendorff.alpha(drawn.matrix.T, level_of_measurement="nominal"))


def statsmodels_fleiss(drawn: Drawn) -> float:
    """Run statsmodels' kappa, from labels on."""
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    return float(fleiss_kappa(aggregate_raters(drawn.matrix)[0]))


def statsmodels_kappa_alone(drawn: Drawn) -> Callable[[], float]:
    """Return statsmodels' kappa on a table that is already counted."""
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    table = aggregate_raters(drawn.matrix)[0]
    return lambda: float(fleiss_kappa(table))


def cleanlab_crowdlab(drawn: Drawn) -> Any:
    """Run cleanlab's CROWDLAB without its second round and tables per annotator."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    return get_label_quality_multiannotator(
        drawn.matrix,
        drawn.probabilities,
        consensus_method="majority_vote",
        return_detailed_quality=False,
        return_annotator_stats=False,
        verbose=False,
    )


def seconds(deed: Callable[[], Any]) -> float:
    """Return the CPU seconds that it takes."""
    start = time.process_time()
    deed()
    return time.process_time() - start


def shown(times: list[float]) -> str:
    """Return median (range)."""
    digits = 4 if median(times) < 0.01 else 3 if median(times) < 1 else 2
    if len(times) == 1:
        return f"{times[0]:.{digits}f}"
    return f"{median(times):.{digits}f} ({min(times):.{digits}f} to {max(times):.{digits}f})"


def compare(
    what: str,
    goal: float | None,
    ours: Callable[[], Any],
    peers: dict[str, tuple[Callable[[], Any], int]],
    rounds: int,
) -> None:
    """Print one row per peer, or one without."""
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds):
        mine.append(seconds(ours))
        for name, (peer, times) in peers.items():
            if number < times:
                theirs[name].append(seconds(peer))
    aim = "–" if goal is None else f"≤ {goal:g}"
    outcome = "" if goal is None else " met" if median(mine) <= goal else " **missed**"
    for name in theirs or {"–": []}:
        found = theirs.get(name)
        beside = "– | –" if not found else f"{shown(found)} | {median(found) / median(mine):,.1f} ×"
        print(f"| {what} | {aim} | {shown(mine)}{outcome} | {name} | {beside} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int, default=1, help="rounds of what is slow")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rounds, slow = asked.rounds, asked.peer_rounds
    versions = ", ".join(f"{name} {version(name)}" for name in ("crowd-kit", "krippendorff", "statsmodels", "cleanlab"))
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")

    few = draw(FEW)
    contenders = (crowdkit_dawid_skene, crowdkit_majority, krippendorff_alpha, statsmodels_fleiss, cleanlab_crowdlab)
    for contender in (fifty, *contenders):
        contender(few)
    for name in METHODS:
        shares(name, few)
    alpha_of(few.coded), fleiss_of(few.coded), code_votes(few.strings), decide(few.coded)
    assert abs(alpha_of(few.coded) - krippendorff_alpha(few)) < 1e-9
    assert abs(fleiss_of(few.coded) - statsmodels_fleiss(few)) < 1e-9

    some, many, sparse, fewer = draw(SOME), draw(MANY), draw(SOME, 1000), draw(BESIDE_CLEANLAB)
    print("| what | goal, CPU s | measured | peer | peer, CPU s | peer / ours |\n|---|---|---|---|---|---|")
    slow_peer = {"crowd-kit DawidSkene": (lambda: crowdkit_dawid_skene(some), slow)}
    compare("Dawid–Skene, 50 iterations, 100,000 dense", 0.1, lambda: fifty(some), slow_peer, rounds)
    slow_peer = {"crowd-kit DawidSkene": (lambda: crowdkit_dawid_skene(sparse), slow)}
    compare("the same, 1,000 workers", 1.0, lambda: fifty(sparse), slow_peer, rounds)
    compare("the same, 1,000,000 dense", 0.5, lambda: fifty(many), {}, rounds)
    peer = {"crowd-kit MajorityVote": (lambda: crowdkit_majority(some), rounds)}
    compare("majority, 100,000", 0.02, lambda: shares("majority", some), peer, rounds)
    for goal, drawn in ((0.05, some), (0.4, many)):
        peer = {"krippendorff": (lambda drawn=drawn: krippendorff_alpha(drawn), rounds)}
        compare(f"alpha, {len(drawn.matrix):,}", goal, lambda drawn=drawn: alpha_of(drawn.coded), peer, rounds)
    peer = {
        "statsmodels aggregate_raters + fleiss_kappa": (lambda: statsmodels_fleiss(some), rounds),
        "statsmodels fleiss_kappa alone": (statsmodels_kappa_alone(some), rounds),
    }
    compare("Fleiss, 100,000", 0.05, lambda: fleiss_of(some.coded), peer, rounds)
    peer = {"cleanlab get_label_quality_multiannotator": (lambda: cleanlab_crowdlab(fewer), rounds)}
    compare(f"CROWDLAB, {BESIDE_CLEANLAB:,}", None, lambda: shares("crowdlab", fewer), peer, rounds)
    for drawn in (some, many):
        frame, n = drawn.strings, len(drawn.matrix)
        compare(f"coding a frame of strings, {n:,} texts", None, lambda frame=frame: code_votes(frame), {}, rounds)
        compare(f"decide() from codes, {n:,} texts", None, lambda drawn=drawn: decide(drawn.coded), {}, rounds)

    print("\n| method, 100,000 texts × 5 votes | dense, CPU s | iterations | 1,000 workers, CPU s | iterations |")
    print("|---|---|---|---|---|")
    for name in METHODS:
        cells = []
        for drawn in (some, sparse):
            times, found = [], None
            for _ in range(slow):
                start = time.process_time()
                found = shares(name, drawn)
                times.append(time.process_time() - start)
            ended = "–" if not found.iterations else f"{found.iterations}{'' if found.converged else ', not converged'}"
            cells += [shown(times), ended]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
