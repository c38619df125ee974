"""A run folder as the files of the earlier system, under its own names and columns.

Labels are written as ids. That system knows −1 for "no valid label", and so do these files, unless −1 is a label of
the schema: then such a cell is empty. Nothing else of what it left undefined is imitated: a tie has no label here.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.labels import LabelSchema
from consenso.report.blocks import absent
from consenso.report.earlier_annotations import annotation_frame, as_ids, leader, metrics_frame, nothing_of
from consenso.report.export import open_folder, write_csv
from consenso.report.facts import Facts
from consenso.report.numbers import asked
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder, write_text
from consenso.tables import with_text_ids

if TYPE_CHECKING:
    import pandas as pd

STRATEGIES = {"majority": "majority_vote", "weighted": "weighted_vote", "unanimous": "unanimous_only"}
"""Our method → its name there."""

EVALUATION = (
    "eval_loss",
    "eval_accuracy",
    "eval_f1_macro",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "epoch",
)
"""What a fine-tuning result holds there."""


def export_earlier(folder: RunFolder | str | Path, out: str | Path, *, spreadsheet_safe: bool = False) -> list[Path]:
    """Write the run as files of the earlier system and return their paths.

    annotations.csv (every text that anyone was asked about, what each model answered in each repetition, gold);
    dataset_consenso.csv and dataset_anotado_completo.csv (the same rows and columns, then the consensus; `read_votes` reads
    the same votes back from each of the three); model_metrics.csv (each model against gold, of train and dev texts only:
    test gold is kept for the verdict; an answer without a valid label is an error, where that system left it out);
    problematic_cases.csv (with its header also where there are none); sumario_experimento.json and, per trained student,
    <model>_fine_tuning_results.csv (consensus_llm: the arm of the primary contrast; ground_truth: its control; test scores,
    means over folds and seeds) and .json (folds and cv of consensus_llm, means over seeds). <model> is the last part of the
    encoder's name for the student `encoder`, else the student's name. What is not known (eval_runtime, for example) is
    empty. `spreadsheet_safe` puts an apostrophe before texts that a spreadsheet would run as a formula.
    Raises `DataError` where votes or labels were not made yet.
    """
    place, target = open_folder(folder), Path(out)
    texts, votes = (with_text_ids(place.read(name)) for name in ("texts", "votes"))
    votes = asked(votes)
    texts = texts[texts["text_id"].isin(votes["text_id"])]  # that system lists the texts it annotated
    place.read("labels")
    facts = Facts(place, ReportSettings())
    schema = facts.schema or LabelSchema.from_names(facts.label_names)
    answers, own = annotation_frame(texts, votes, schema)
    frame = answers.join(_consensus_columns(facts, answers["text_id"], own, schema))
    metrics = metrics_frame(own, votes, answers["text_id"], facts.open_gold, facts.label_names)
    tables = {
        "annotations.csv": answers,
        "model_metrics.csv": metrics,
        "dataset_consenso.csv": frame,
        "dataset_anotado_completo.csv": frame,
        "problematic_cases.csv": problematic_frame(frame, facts, votes, schema),
    }
    written = [write_csv(table, target / name, spreadsheet_safe=spreadsheet_safe) for name, table in tables.items()]
    written.append(_write_json(target / "sumario_experimento.json", summary(frame, facts, votes, schema)))
    for student in facts.students:
        written += _write_results(facts, student, schema, target)
    return written


def _consensus_columns(facts: Facts, ids: pd.Series, own: dict[str, pd.Series], schema: LabelSchema) -> pd.DataFrame:
    import pandas as pd

    panel, nothing = pd.DataFrame(own, index=ids.index), nothing_of(schema)
    counts = pd.DataFrame({name: panel.eq(name).sum(axis=1) for name in schema.names})
    commonest, most = leader(counts)
    consensus = facts.consensus
    assert consensus is not None  # export_earlier has read the table
    labels = with_text_ids(consensus).set_index("text_id").reindex(ids).reset_index(drop=True)
    listed = [str([schema.label2id.get(name, nothing) for name in row]) for row in panel.itertuples(index=False)]
    return pd.DataFrame(
        {
            "all_annotations": listed,
            "unique_annotations": counts.gt(0).sum(axis=1),
            # A tie broken by a seed, or a text whose votes weigh differently, has a label all the same.
            "most_common_annotation": as_ids(commonest.where(commonest.notna(), labels["label"]), schema, nothing),
            "most_common_count": most,
            "consensus_score": labels["score"].astype(float),
            "consensus_level": labels["level"],
            "is_problematic": labels["is_problematic"]
            .astype(object)
            .where(labels["is_problematic"].notna(), False)
            .astype(bool),
            "resolved_annotation": as_ids(labels["label"], schema),
            "needs_review": labels["label"].isna(),
        },
        index=ids.index,
    )


def problematic_frame(frame: pd.DataFrame, facts: Facts, votes: pd.DataFrame, schema: LabelSchema) -> pd.DataFrame:
    """Return problematic_cases.csv: id, first 100 characters, score, votes per label id as a dict, entropy in bits."""
    import pandas as pd

    hard = frame[frame["is_problematic"]]
    consensus = facts.consensus
    assert consensus is not None  # export_earlier has read the table
    entropy = with_text_ids(consensus).set_index("text_id")["entropy_bits"]
    valid = votes[votes["text_id"].isin(hard["text_id"]) & votes["label"].notna()]
    counts = valid.groupby("text_id")["label"].value_counts()
    tallies: dict[str, dict[int, int]] = {}
    for (text_id, label), n in counts.items():
        tallies.setdefault(text_id, {})[schema.label2id[label]] = int(n)
    said = [
        str(dict(sorted(tallies.get(i, {}).items(), key=lambda pair: (-pair[1], pair[0])))) for i in hard["text_id"]
    ]
    return pd.DataFrame(
        {
            "text_id": hard["text_id"],
            "text": hard["text"].str[:100],
            "consensus_score": hard["consensus_score"],
            "annotations": pd.Series(said, index=hard.index, dtype=object),
            "entropy": hard["text_id"].map(entropy).astype(float),
        }
    ).sort_values(["consensus_score", "text_id"], na_position="first")


def summary(frame: pd.DataFrame, facts: Facts, votes: pd.DataFrame, schema: LabelSchema) -> dict[str, Any]:
    """Return sumario_experimento.json; the classification report is over train and dev texts with gold."""
    models = sorted(set(votes["annotator"]))
    method = str(facts.setting("consensus", "method", "majority"))
    agreement = facts.table("agreement")
    row = None if agreement is None else agreement[(agreement["measure"] == "fleiss") & (agreement["scope"] == "all")]
    kappa = None if row is None or row.empty else _number(row["value"].iloc[0])
    levels = frame["consensus_level"].value_counts()
    found: dict[str, Any] = {
        "dataset": {
            "name": facts.name,
            "total_texts": len(frame),
            "categories": {str(i): name for i, name in schema.id2label.items()},
            "has_ground_truth": facts.gold is not None,
        },
        "config": {
            "models": models,
            "total_models": len(models),
            "consensus_threshold": facts.setting("consensus", "threshold"),
            "consensus_strategy": STRATEGIES.get(method, method),
        },
        "results": {
            "consensus_mean": _number(frame["consensus_score"].mean()),
            "consensus_median": _number(frame["consensus_score"].median()),
            **{f"{level}_consensus": int(levels.get(level, 0)) for level in ("high", "medium", "low")},
        },
        "metrics": {"fleiss_kappa": kappa, "fleiss_interpretation": _interpretation(kappa)},
    }
    if facts.open_gold is not None:
        found["validation"] = {"classification_report": _classification_report(facts, schema)}
    return found


def _interpretation(kappa: float | None) -> str | None:
    if kappa is None:
        return None
    steps = ((0.8, "Excellent"), (0.6, "Good"), (0.4, "Moderate"), (0.2, "Weak"))
    return next((word for limit, word in steps if kappa > limit), "Very weak")


def _classification_report(facts: Facts, schema: LabelSchema) -> dict[str, Any] | None:
    from sklearn.metrics import classification_report

    consensus, gold = facts.consensus, facts.open_gold
    assert consensus is not None  # export_earlier has read the table
    assert gold is not None  # its caller asked
    given = with_text_ids(consensus).set_index("text_id")["label"].reindex(gold.index).dropna()
    if given.empty:
        return None
    truth = gold[given.index]
    report: dict[str, Any] = classification_report(
        truth.to_list(), given.to_list(), labels=list(schema.names), output_dict=True, zero_division=0
    )
    return report


def _write_results(facts: Facts, student: str, schema: LabelSchema, target: Path) -> list[Path]:
    """The fine-tuning results of one student, where its arms have test predictions."""
    import pandas as pd

    runs = _evaluations(facts, student, schema)
    if runs is None:
        return []
    row = facts.primary(student)
    arm, control = ("consensus", "gold-aligned") if row is None else (str(row["arm"]), str(row["control"]))
    if control not in set(runs["arm"]):
        control = "gold"
    lines = []
    for source, name in (("consensus_llm", arm), ("ground_truth", control)):
        mine = runs.loc[runs["arm"] == name, list(EVALUATION)].astype(float).mean()
        lines.append({**{key: _number(mine[key]) for key in EVALUATION}, "source": source})
    mine = runs[runs["arm"] == arm]
    folds = {str(fold): _means(frame) for fold, frame in mine.groupby("fold")}
    table = pd.DataFrame(list(folds.values()), dtype=float)
    cv = {
        key: {"mean": _number(table[key].mean()), "std": _number(table[key].std(ddof=0))}
        for key in EVALUATION
        if len(table)
    }
    name = _model_name(facts, student)
    results = write_csv(pd.DataFrame(lines), target / f"{name}_fine_tuning_results.csv")
    return [results, _write_json(target / f"{name}_fine_tuning_results.json", {"folds": folds, "cv": cv})]


def _means(frame: pd.DataFrame) -> dict[str, float | None]:
    return {key: _number(frame[key].astype(float).mean()) for key in EVALUATION}


def _model_name(facts: Facts, student: str) -> str:
    recipe = facts.setting("finetune", "recipe", {})
    encoder = str(recipe.get("encoder") or "") if isinstance(recipe, dict) else ""
    name = Path(encoder.rstrip("/")).name if student == "encoder" and encoder else student
    return re.sub(r"[^\w.\-]", "_", name) or student


def _evaluations(facts: Facts, student: str, schema: LabelSchema) -> pd.DataFrame | None:
    """One row per (arm, fold, seed) with what the earlier system calls an evaluation, on the test texts."""
    import numpy as np

    predictions, scores, gold = facts.table("predictions"), facts.table("scores"), facts.gold
    if predictions is None or scores is None or gold is None:
        return None
    key = ["arm", "fold", "seed"]
    tested = [
        frame[(frame["student"] == student) & (frame["attempt"] == "as_run") & (frame["part"] == "test")]
        for frame in (predictions, scores)
    ]
    if tested[0].empty or tested[1].empty:
        return None
    runs = (
        tested[1]
        .pivot(index=key, columns="metric", values="value")
        .rename(columns={"accuracy": "eval_accuracy", "macro_f1": "eval_f1_macro"})
    )
    judged = tested[0].assign(gold=tested[0]["text_id"].map(gold))
    judged = judged[judged["gold"].notna() & judged["probabilities"].notna()]
    place = judged["gold"].map(schema.index)
    chance = [float(row[k]) for row, k in zip(judged["probabilities"], place)]
    judged = judged.assign(loss=-np.log(np.maximum(np.array(chance, dtype=float), 1e-12)))
    runs = runs.join(judged.groupby(key)["loss"].mean().rename("eval_loss"))
    curves = facts.table("curves")
    if curves is not None:
        mine = curves[(curves["student"] == student) & (curves["attempt"] == "as_run")]
        runs = runs.join(mine.groupby(key)["epoch"].max().rename("epoch"))
    found: pd.DataFrame = runs.reindex(columns=list(EVALUATION)).reset_index()
    return found


def _number(value: Any) -> float | None:
    return None if absent(value) or not math.isfinite(value) else float(value)


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    return path
