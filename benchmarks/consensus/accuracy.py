"""The accuracy of every consensus method on real votes beside crowd-kit's, and how honest the posteriors are.

`python benchmarks/consensus/accuracy.py [--draws 16] [--slow-draws 1] [--calibration] [--nesting]`. What is drawn: for
weather_crowd 5 of the 20 workers' labels of each tweet, for the LLM sets panels of 5 of the LLMs (`real_data.py`); draw d
has numpy's default_rng([20261127, d]), and every method gets the same draws. The other sets are taken whole. A text on
which k labels tie counts 1/k. crowd-kit's slow methods get the first draws only; these means have a star and no regret.

`--calibration`: log loss (chances below 10⁻⁶ count as that) and expected calibration error (15 bins of equal width) on the
LLM sets, also with panels of 3 of one family and 3 others. `--nesting`: BABE with 9 prompts as repetitions, nested three ways.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from real_data import Setting, accuracy, babe, babe_panels, babe_repeated, family_panels, policy_panels, settings

from consenso.consensus.agreement import collapse_repetitions
from consenso.consensus.methods import METHODS, Options

OURS = (
    "majority",
    "weighted",
    "dawid_skene",
    "dawid_skene_map",
    "dawid_skene_families",
    "one_coin",
    "glad",
    "mace",
    "ordinal_dawid_skene",
)
PEERS = ("MajorityVote", "Wawa", "ZeroBasedSkill", "DawidSkene", "OneCoinDawidSkene")
SLOW = ("GLAD", "MACE")
LEAST = 1e-6


def shares_of(name: str, setting: Setting) -> np.ndarray:
    """Return the shares of one of our methods."""
    weights = "votes" if name == "weighted" else {}
    families = setting.families if name == "dawid_skene_families" else {}
    return METHODS[name].shares(setting.votes, Options(weights=weights, families=families)).values


def peer_shares(name: str, setting: Setting) -> np.ndarray:
    """Return the shares of one of crowd-kit's methods, with its defaults."""
    import crowdkit.aggregation

    votes = setting.votes
    frame = pd.DataFrame({"task": votes.text, "worker": votes.annotator, "label": votes.label})
    method = getattr(crowdkit.aggregation, name)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in {"Wawa", "ZeroBasedSkill"}:  # what their predict_proba does, had scikit-learn not changed since
            skills = method.fit(frame).skills_
            found = crowdkit.aggregation.MajorityVote().fit_predict_proba(frame, skills=skills)
        else:
            found = method.fit_predict_proba(frame)
    n, K = votes.shape
    shares: np.ndarray = found.reindex(index=range(n), columns=range(K)).fillna(0.0).to_numpy()
    return shares


def accuracies(draws: int, slow_draws: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accuracy by method and set, a mean over draws, and whether these are all draws; print the CPU seconds of each method."""
    rows, took = [], dict.fromkeys([*OURS, *PEERS, *SLOW], 0.0)
    for setting in settings(draws):
        ours = [(name, name, shares_of) for name in OURS]
        peers = [(name, f"crowd-kit {name}", peer_shares) for name in PEERS]
        slow = [(name, f"crowd-kit {name}", peer_shares) for name in SLOW if setting.draw < slow_draws]
        for name, shown, method in ours + peers + slow:
            start = time.process_time()
            shares = method(name, setting)
            took[name] += time.process_time() - start
            rows.append({"method": shown, "set": setting.name, "accuracy": accuracy(shares, setting.gold)})
    print("CPU s: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items()) + "\n")
    frame = pd.DataFrame(rows)
    means = frame.pivot_table(index="method", columns="set", values="accuracy", sort=False)
    drawn = frame.pivot_table(index="method", columns="set", values="accuracy", sort=False, aggfunc="size")
    return means, drawn == drawn.max()


def print_accuracies(means: pd.DataFrame, whole: pd.DataFrame) -> None:
    """Print accuracy (regret) by method and set, and the worst regret; a mean over fewer draws has a star and no regret."""
    regret = means.where(whole).max() - means.where(whole)
    print("| method | " + " | ".join(means.columns) + " | worst regret |")
    print("|---" * (len(means.columns) + 2) + "|")
    for name in means.index:
        cells = [
            f"{means.at[name, column]:.3f}" + (f" ({regret.at[name, column]:.3f})" if whole.at[name, column] else "*")
            for column in means
        ]
        worst = f"{regret.loc[name].max():.3f}, {regret.loc[name].idxmax()}"
        print(f"| {name} | " + " | ".join(cells) + f" | {worst} |")


def scores(shares: np.ndarray, gold: np.ndarray, bins: int = 15) -> tuple[float, float]:
    """Return log loss and expected calibration error over the texts with gold."""
    shares, gold = shares[gold >= 0], gold[gold >= 0]
    K = shares.shape[1]
    shares = np.where(shares.sum(axis=1, keepdims=True) > 0, shares, 1 / K)  # no votes: no opinion
    chosen = shares[np.arange(len(gold)), gold]
    best = shares >= shares.max(axis=1, keepdims=True) - 1e-9
    right = best[np.arange(len(gold)), gold] / best.sum(axis=1)
    sure = shares.max(axis=1)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=sure - right, minlength=bins)
    return float(-np.log(np.maximum(chosen, LEAST)).mean()), float(np.abs(gap).sum() / len(gold))


def llm_settings(draws: int) -> Iterator[Setting]:
    """Yield the LLM sets."""
    yield babe()
    for panels in (babe_panels, policy_panels, family_panels):
        yield from panels(draws)


def print_calibration(draws: int) -> None:
    """Print accuracy, log loss and calibration error of three methods."""
    rows = []
    for setting in llm_settings(draws):
        for name in ("majority", "dawid_skene_map", "dawid_skene_families"):
            shares = shares_of(name, setting)
            loss, error = scores(shares, setting.gold)
            rows.append((setting.name, name, accuracy(shares, setting.gold), loss, error))
    frame = pd.DataFrame(rows, columns=["set", "method", "accuracy", "loss", "ece"])
    print("| set | method | accuracy | log loss | calibration error |\n|---|---|---|---|---|")
    for (name, method), mean in frame.groupby(["set", "method"], sort=False).mean().iterrows():
        print(f"| {name} | {method} | {mean['accuracy']:.3f} | {mean['loss']:.2f} | {mean['ece']:.3f} |")


def print_nesting() -> None:
    """Print the accuracy on BABE with the prompts nested in the LLMs in three ways."""
    pooled, nested = babe_repeated("vote"), babe_repeated("annotator")
    single = replace(nested, votes=collapse_repetitions(nested.votes)[0])
    print("| BABE, 13 LLMs × 9 prompts | valid votes | majority | dawid_skene_map |\n|---|---|---|---|")
    for name, setting in (
        ('pooled (count="vote")', pooled),
        ('averaged in the annotator (count="annotator")', nested),
        ("the annotator's majority (a tie is no vote)", single),
    ):
        found = [
            f"{accuracy(shares_of(method, setting), setting.gold):.4f}" for method in ("majority", "dawid_skene_map")
        ]
        print(f"| {name} | {len(setting.votes.text):,} | " + " | ".join(found) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--slow-draws", type=int, default=1, help="draws for crowd-kit's GLAD and MACE")
    parser.add_argument("--calibration", action="store_true", help="print calibration instead")
    parser.add_argument("--nesting", action="store_true", help="print nesting instead")
    asked = parser.parse_args()
    print(f"{datetime.date.today()}, {asked.draws} draws, crowd-kit {version('crowd-kit')}\n")
    if asked.calibration:
        print_calibration(asked.draws)
    if asked.nesting:
        print_nesting()
    if not (asked.calibration or asked.nesting):
        print_accuracies(*accuracies(asked.draws, asked.slow_draws))


if __name__ == "__main__":
    main()
