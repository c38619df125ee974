"""Make what the comparison writes besides its verdicts: what the report's sections about it are tested on."""

from __future__ import annotations

from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from consenso.tables import TABLES, check

PRIMARY = "consensus − gold-aligned"
PAIR = ("gold-aligned", "consensus")


def compared(students: list[str], names: list[str], *, seeds: int = 3, n: int = 40) -> dict[str, pd.DataFrame]:
    """All tables that the comparison writes besides scores, guards and comparison; the same for the same arguments."""
    rng = np.random.default_rng(23)
    tables = {
        "class_differences": class_differences(rng, students, names, seeds, n),
        "seed_differences": seed_differences(rng, students, seeds),
        "calibration": calibration(students, seeds, n),
        "calibration_bins": calibration_bins(students),
        "learning_curve": learning_curve(students, seeds),
        "value": value(students),
        "frontier": frontier(students),
        "multiverse": multiverse(rng, students),
    }
    return {name: check(frame, TABLES[name]) for name, frame in tables.items()}


def _key(student: str) -> dict[str, Any]:
    return {"dataset": "support", "student": student, "contrast": PRIMARY}


def class_differences(
    rng: np.random.Generator, students: list[str], names: list[str], seeds: int, n: int
) -> pd.DataFrame:
    rows = []
    for student, (k, name) in product(students, enumerate(names)):
        d, half = -0.11 if k == 1 else float(rng.normal(-0.01, 0.015)), 0.04
        p = 2 * NormalDist().cdf(-abs(d) / (half / 1.96))
        row = {"label": name, "arm_recall": 0.7 + d, "control_recall": 0.7, "difference": d, "low": d - half}
        rows.append(
            {**_key(student), **row, "high": d + half, "p": p, "p_holm": min(1, p * len(names)), "n": n, "S": seeds}
        )
    return pd.DataFrame(rows)


def seed_differences(rng: np.random.Generator, students: list[str], seeds: int) -> pd.DataFrame:
    rows = []
    for student, seed in product(students, range(1, seeds + 1)):
        d = float(rng.normal(-0.02, 0.012))
        found = {"fold": 0, "seed": seed, "macro_f1": d, "accuracy": d + 0.002, "p_mcnemar": 0.2 / seed}
        rows.append({**_key(student), **found, "attempt": "as_run", "only_arm": 10 + seed, "only_control": 15 + seed})
    return pd.DataFrame(rows)


def calibration(students: list[str], seeds: int, n: int) -> pd.DataFrame:
    rows = []
    for student, arm, scope, scaled in product(students, PAIR, ("all", "high", "low"), (False, True)):
        ece = (0.03 if scaled else 0.12) + 0.01 * (arm == "consensus") + 0.05 * (scope == "low")
        row = {"student": student, "arm": arm, "scope": scope, "scaled": scaled, "ece": ece, "ece_low": ece - 0.01}
        row |= {"ece_high": ece + 0.02, "brier": 0.31 if scaled else 0.35, "log_loss": 0.7, "accuracy": 0.78}
        row |= {"confidence": 0.79 if scaled else 0.88, "temperature": 1.7 if scaled else 1.0, "S": seeds}
        rows.append({**row, "n": n if scope == "all" else n // 2})
    return pd.DataFrame(rows)


def calibration_bins(students: list[str]) -> pd.DataFrame:
    rows = []
    for student, arm, scaled, place in product(students, PAIR, (False, True), range(8)):
        confidence = 0.25 + 0.1 * place
        accuracy = confidence * (0.98 if scaled else 0.84) + 0.01 * (arm == "consensus")
        key = {"student": student, "arm": arm, "scope": "all", "scaled": scaled, "bin": place}
        rows.append({**key, "confidence": confidence, "accuracy": accuracy, "share": (place + 1) / 36})
    return pd.DataFrame(rows)


def learning_curve(students: list[str], seeds: int) -> pd.DataFrame:
    rows = []
    for student, (k, n) in product(students, enumerate((250, 500, 1000, 2000, 4000))):
        mean = 0.62 + 0.05 * k - 0.004 * k * k
        found = {"arm": f"gold@{n}", "mean": mean, "low": mean - 0.02, "high": mean + 0.02, "fitted": mean}
        rows.append({"student": student, "n": n, **found, "S": seeds})
    return pd.DataFrame(rows)


def value(students: list[str]) -> pd.DataFrame:
    rows = [
        ("human_labels_worth", 3800.0, 2600.0, None, "human labels", "consensus is worth 3,800 human labels (2,600 or more)."),
        ("llm_cost", 4.2, None, None, "USD", "Labelling 4,000 texts cost 4.20 USD."),
        ("break_even_price", 0.0025, 0.0018, 0.0035, "USD", "consensus pays where a human label costs more than 0.0025 USD."),
        ("audit_accuracy", 0.79, 0.73, 0.84, "share", "158 of 200 audited labels are right."),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "unit", "sentence"])
    return pd.concat([frame.assign(student=student, beyond=False) for student in students], ignore_index=True)


def frontier(students: list[str]) -> pd.DataFrame:
    arms = [
        ("single:qwen3-8b", "qwen3-8b", 0.0001, -0.06, True),
        ("single:phi-4", "phi-4", 0.0003, -0.07, False),
        ("panel:3", "qwen3-8b + phi-4 + llama3.1-8b", 0.0007, -0.03, True),
        ("consensus", "llama3.1-8b + qwen3-8b + gemma3-4b + mistral-7b + phi-4", 0.0012, -0.02, True),
    ]
    frame = pd.DataFrame(arms, columns=["arm", "annotators", "cost", "difference", "is_on_frontier"])
    frame = frame.assign(
        mean=0.8 + frame["difference"], low=frame["difference"] - 0.02, high=frame["difference"] + 0.02
    )
    return pd.concat([frame.assign(student=student) for student in students], ignore_index=True)


def multiverse(rng: np.random.Generator, students: list[str], more: int = 1) -> pd.DataFrame:
    """`more`: thresholds on top of none; 1 gives 12 specifications per student."""
    thresholds = ["none", *(f"{0.5 + 0.05 * k:.2f}" for k in range(more))]
    rows = []
    for k, (student, votes, aggregator, threshold) in enumerate(
        product(students, ("as declared", "terse", "qwen3-8b~reversed"), ("majority", "dawid_skene"), thresholds), 1
    ):
        d, half = float(rng.normal(-0.015, 0.012)), 0.018
        verdict = "WORSE" if d + half < 0 else "NON-INFERIOR" if d - 0.8 * half > -0.02 else "INCONCLUSIVE"
        row = {"specification": k, "student": student, "votes": votes, "aggregator": aggregator, "threshold": threshold}
        row |= {"difference": d, "low": d - half, "high": d + half, "low90": d - 0.8 * half, "high90": d + 0.8 * half}
        rows.append({**row, "verdict": verdict, "S": 5, "n": 40, "train_texts": 600 - 7 * k, "is_main": k == 1})
    return pd.DataFrame(rows)
