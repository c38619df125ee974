"""A run folder told in small tables, stage by stage: what the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.annotate import count_votes
from consenso.consensus import annotator_quality, score_against_gold
from consenso.experiment import STAGES, outcome
from consenso.labels import LabelSchema
from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def progress_of(folder: RunFolder) -> dict[str, Any]:
    """Return {stages: [{stage, state (done, started, waiting), detail}], sentence}."""
    done = folder.record().get("stages", {})
    rows = []
    for stage in STAGES:
        entry = done.get(stage.name)
        state = "done" if entry else "waiting"
        detail = f"{entry['seconds']:.1f} s, {entry['finished_at']}" if entry else ""
        if stage.name == "finetune" and not entry:
            finished = len(list((folder.path / "pieces" / "trainings").glob("*.parquet")))
            state, detail = ("started" if finished else "waiting"), f"{finished} trainings finished" if finished else ""
        rows.append({"stage": stage.name, "state": state, "detail": detail})
    return {"folder": str(folder.path), "stages": rows, "sentence": outcome(folder).sentence}


def describe_data(folder: RunFolder) -> pd.DataFrame:
    """Return label × part: how many texts; one more row for the texts the leakage guard removed."""
    import pandas as pd

    texts, folds, leaks = (folder.read(name) for name in ("texts", "folds", "leaks"))
    placed = texts.merge(folds, on="text_id", how="left")
    placed["part"] = placed["part"].fillna("left out")
    counted = pd.crosstab(placed["gold"].fillna("(no gold)"), placed["part"])
    counted = counted.reindex(columns=[p for p in ("train", "dev", "test", "left out") if p in counted])
    counted.loc["all"] = counted.sum()
    counted = counted.reset_index().rename(columns={"gold": "label"}).rename_axis(columns=None)
    counted.attrs["leaks"] = int(leaks["text_id"].nunique())
    return counted


def describe_votes(folder: RunFolder) -> pd.DataFrame:
    """Return one row per annotator: votes, valid ones, and each status that occurred."""
    return count_votes(folder.read("votes"))


def describe_consensus(folder: RunFolder) -> pd.DataFrame:
    """Return consensus and annotators by quality on train and dev gold, then the overall agreement measures."""
    import pandas as pd

    texts, folds, votes, labels = (folder.read(name) for name in ("texts", "folds", "votes", "labels"))
    schema = LabelSchema.from_records(folder.record()["labels"])
    seen = set(folds.loc[folds["part"] != "test", "text_id"])
    gold = texts.set_index("text_id")["gold"]
    gold = gold[gold.index.isin(seen)].dropna()
    rows = []
    if len(gold):
        quality = score_against_gold(labels.set_index("text_id")["label"], gold, schema)
        rows.append({"what": "consensus", "measure": "accuracy", "value": quality["accuracy"], "n": quality["n"]})
        rows.append({"what": "consensus", "measure": "macro_f1", "value": quality["macro_f1"], "n": quality["n"]})
        rows.append({"what": "consensus", "measure": "coverage", "value": quality["coverage"], "n": quality["n"]})
        each = annotator_quality(votes, gold, schema)
        rows += [
            {"what": row.annotator, "measure": "accuracy", "value": row.accuracy, "n": row.n}
            for row in each.itertuples()
        ]
    agreement = folder.read("agreement")
    overall = agreement[agreement["scope"] == "all"]
    rows += [
        {"what": "agreement", "measure": r.measure, "value": r.value, "low": r.low, "high": r.high, "n": r.n}
        for r in overall.itertuples()
    ]
    return pd.DataFrame(rows)


def describe_trainings(folder: RunFolder) -> pd.DataFrame:
    """Return one row per student and arm: trainings, how many are ok, mean dev macro-F1 and its spread over seeds."""
    trainings = folder.read("trainings")
    grouped = trainings.assign(ok=trainings["status"].eq("ok")).groupby(["student", "arm"], sort=True)
    return grouped.agg(
        trainings=("seed", "size"),
        ok=("ok", "sum"),
        rows=("train_rows", "mean"),
        dev_macro_f1=("dev_macro_f1", "mean"),
        sd=("dev_macro_f1", "std"),
    ).reset_index()


def describe_comparison(folder: RunFolder) -> pd.DataFrame:
    """Return the contrasts of the declared metric: difference and intervals in percentage points, and the verdict."""
    comparison = folder.read("comparison")
    metric = folder.record()["settings"]["compare"]["metric"]
    rows = comparison[(comparison["metric"] == metric) & (comparison["scope"] == "all")].copy()
    for column in ("difference", "low", "high"):
        rows[f"{column}_pp"] = 100 * rows[column]
    columns = ["student", "contrast", "difference_pp", "low_pp", "high_pp", "p_holm", "verdict"]
    return rows.sort_values(["student", "is_primary"], ascending=[True, False])[columns]
