"""A run told in small tables, stage by stage: what the commands print, and what a run would do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate.askers import Asker
from consenso.annotate.asking import make_voters
from consenso.annotate.clients import CallError
from consenso.annotate.collecting import open_transport
from consenso.annotate.counting import VoteCount
from consenso.annotate.endpoints import read_environment
from consenso.annotate.explaining import explain
from consenso.annotate.logreading import LogReader
from consenso.annotate.logview import describe_log
from consenso.annotate.planning import plan_questions
from consenso.annotate.probing import probe
from consenso.annotate.sources import FolderSource
from consenso.consensus import annotator_quality, score_against_gold
from consenso.consensus.reliability import ESTIMATED
from consenso.data import make_folds, read_dataset
from consenso.experiment import OUT_OF_DATE, STAGES, is_current, outcome, under_the_rule
from consenso.experiment_file import Experiment
from consenso.finetune import plan_arms
from consenso.finetune.arm_names import FLOOR_ARMS
from consenso.finetune.planning import Planned
from consenso.finetune.rate_probe import plan_rates
from consenso.finetune.study import arm_sizes
from consenso.finetune.workers import count_workers
from consenso.intervals import wilson
from consenso.labels import LabelSchema
from consenso.preconditions import need_labels
from consenso.steps.annotate import asked_ids, examples_of, vote_log_path
from consenso.steps.finetune import (
    arms_of,
    before_votes,
    compared_arms,
    labels_to_train_on,
    recipe_of,
    seed_of_probe,
    votes_and_panels,
)
from consenso.steps.running import Run
from consenso.store import RunFolder
from consenso.tables import VOTE_STATUSES

if TYPE_CHECKING:
    import pandas as pd


def progress_of(folder: RunFolder, experiment: Experiment | None = None, base: Path | None = None) -> dict[str, Any]:
    """Return {folder, stages: [{stage, state (done, out of date, started, waiting), detail}], sentence, failed_trainings}.

    With `experiment` (and where its paths start from) a stage whose settings have changed since counts as out of date.
    """
    if experiment is not None:
        experiment, _ = under_the_rule(experiment, folder)
    this = None if experiment is None else Run(experiment, folder, base or Path(), lambda event: None)
    done, stale, rows = folder.record().get("stages", {}), False, []
    for stage in STAGES:
        entry = done.get(stage.name, {})
        stale = stale or bool(entry.get("stale")) or bool(entry and this and not is_current(stage, this))
        state = "waiting" if not entry else "out of date" if stale else "done"
        detail = f"{entry['seconds']:.1f} s, {entry['finished_at']}" if entry else ""
        finished = len(list((folder.path / "pieces" / "trainings").glob("*.parquet")))
        if stage.name == "annotate" and state != "done" and (asked := describe_vote_log(folder)) is not None:
            state, detail = ("started" if not entry else state), asked[1]
        if stage.name == "finetune" and finished:
            state = state if entry else "started"
            runs = (
                f" (for {folder.count('trainings'):,} runs: arms with equal labels share one)"
                if entry and folder.has("trainings")
                else ""
            )
            detail = f"{finished:,} trainings kept{runs}" + (
                f", {entry['failed']} failed" if entry.get("failed") else ""
            )
        rows.append({"stage": stage.name, "state": state, "detail": detail})
    found = outcome(folder)
    old = any(row["stage"] == "compare" and row["state"] == "out of date" for row in rows)
    return {
        "folder": str(folder.path),
        "stages": rows,
        "sentence": OUT_OF_DATE if old else found.sentence,
        "failed_trainings": found.failed,
    }


def describe_data(folder: RunFolder) -> pd.DataFrame:
    """Return label × part: how many texts, in the first fold where there are several.

    `attrs["leaks"]`: texts removed; `attrs["folds"]`: how many folds there are; `attrs["left_out"]`: reason → texts of no
    part of that fold; `attrs["tested"]`: texts tested in any fold.
    """
    import pandas as pd

    texts, folds, leaks = (folder.read(name) for name in ("texts", "folds", "leaks"))
    first = folds["fold"].min()
    placed = texts.merge(folds[folds["fold"] == first], on="text_id", how="left")
    reasons = _why_left_out(placed[placed["part"].isna()], leaks[leaks["fold"] == first])
    placed["part"] = placed["part"].fillna("left out")
    counted = pd.crosstab(placed["gold"].fillna("(no gold)"), placed["part"])
    counted = counted.reindex(columns=[p for p in ("train", "dev", "test", "left out") if p in counted])
    counted.loc["all"] = counted.sum()
    counted = counted.reset_index().rename(columns={"gold": "label"}).rename_axis(columns=None)
    counted.attrs |= {"leaks": int(leaks["text_id"].nunique()), "folds": int(folds["fold"].nunique())}
    counted.attrs |= {
        "left_out": reasons,
        "tested": int(folds.loc[folds["part"] == "test", "text_id"].nunique()),
    }
    return counted


def _why_left_out(texts: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, int]:
    """Why → how many texts."""
    leaked = texts["text_id"].isin(leaks["text_id"])
    bare = ~leaked & texts["gold"].isna()
    found = {
        "repeat a text of another part (table leaks)": leaked,
        "have no gold": bare,
        "are in no fold": ~leaked & ~bare,
    }
    return {why: int(which.sum()) for why, which in found.items() if which.any()}


def describe_votes(folder: RunFolder) -> pd.DataFrame:
    """Return one row per annotator: votes, valid ones, each status that occurred, share of invalid answers."""
    counted = VoteCount()
    for part in folder.read_parts("votes", ["annotator", "status", "label"], 200_000):
        counted.add(part.to_pandas())
    table = counted.table()
    empty = [status for status in VOTE_STATUSES if status != "ok" and not table[status].any()]
    return table.drop(columns=[*empty, "constant"])


def plan_annotation(experiment: Experiment, folder: RunFolder, base: Path) -> list[dict[str, Any]]:
    """Return one row per LLM annotator and variant: requests, tokens, USD, seconds; nothing is sent."""
    this = Run(experiment, folder, base, lambda event: None)
    voters = make_voters(experiment.annotate, this.schema, read_environment(base), base=base, drawn=examples_of(this))
    narrowed = experiment.annotate.candidates is not None and folder.has("candidates")
    source = FolderSource(folder, only=asked_ids(this), narrowed=narrowed)
    path = vote_log_path(this)
    if not path.exists():
        return [
            planned.row()
            for planned in plan_questions(voters.askers, source, None, experiment.annotate, voters.environment)
        ]
    with LogReader(path) as log:
        return [
            planned.row()
            for planned in plan_questions(voters.askers, source, log, experiment.annotate, voters.environment)
        ]


def probe_annotators(experiment: Experiment, schema: LabelSchema, base: Path) -> list[dict[str, Any]]:
    """Return what each endpoint honours for each model: annotator, endpoint, model, schema, logprobs, seed, n; costs a few requests."""
    environment = read_environment(base)
    voters = make_voters(experiment.annotate, schema, environment, base=base)
    distinct = {(a.endpoint, a.model): a for a in reversed(voters.askers)}
    return asyncio.run(_probe([a for a in voters.askers if distinct[a.endpoint, a.model] is a], environment))


async def _probe(askers: list[Asker], environment: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for asker in askers:
        row = {"annotator": asker.name, "endpoint": asker.endpoint.name, "model": asker.model}
        transport = open_transport(asker.endpoint, environment)
        await transport.open()
        try:
            row |= await asyncio.wait_for(probe(asker, transport, transport.client), 6 * asker.endpoint.timeout_s)
        except CallError as error:
            row["error"] = explain(asker.endpoint, asker.model, error)
        except TimeoutError:
            row["error"] = f"{asker.endpoint.base_url} accepts requests but never answered; is it loading the model?"
        finally:
            await transport.close()
        rows.append(row)
    return rows


def describe_vote_log(folder: RunFolder) -> tuple[list[dict[str, Any]], str] | None:
    """Return the rows of `describe_log` and the ledger's statement, or None where nobody was asked yet."""
    path = log_of(folder)
    if not path.exists():
        return None
    with LogReader(path) as log:
        return describe_log(log), log.ledger().statement


def log_of(folder: RunFolder) -> Path:
    """Return where a run folder's vote log stands."""
    noted = folder.record().get("vote_log", {}).get("path")
    own = folder.path / "votelog.sqlite"
    return own if own.exists() or not noted else Path(noted)


AGREEMENT_ORDER = (
    "alpha", "alpha_ordinal", "alpha_interval", "fleiss", "cohen", "ac1", "brennan_prediger", "raw", "effective_votes",
    "consistency",
)  # fmt: skip


def describe_consensus(folder: RunFolder) -> pd.DataFrame:
    """Return what, measure, value, low, high, n: consensus and annotators on train and dev gold, then agreement.

    An annotator has `accuracy` (on gold, invalid votes as errors, where there is gold) and `accuracy_estimated` (without
    gold, on all texts; null where the votes do not tell). `attrs["notes"]`: sentences about the method, the panel and
    the estimates.
    """
    import pandas as pd

    texts, folds, votes, labels = (folder.read(name) for name in ("texts", "folds", "votes", "labels"))
    schema = LabelSchema.from_records(folder.record()["labels"])
    tested = set(folds.loc[folds["part"] == "test", "text_id"])
    gold = texts.set_index("text_id")["gold"]
    gold = gold[gold.index.isin(set(folds["text_id"]) - tested)].dropna()
    rows: list[dict[str, Any]] = []
    each: dict[str, list[dict[str, Any]]] = {}
    if len(gold):
        quality = score_against_gold(labels.set_index("text_id")["label"], gold, schema)
        right = round(quality["accuracy"] * quality["n"])
        low, high = wilson(right, quality["n"])
        rows.append({"measure": "accuracy", "value": quality["accuracy"], "low": low, "high": high})
        rows += [{"measure": name, "value": quality[name]} for name in ("macro_f1", "coverage")]
        rows = [{"what": "consensus", **row, "n": quality["n"]} for row in rows]
        if votes["text_id"].isin(gold.index).any():
            for row in annotator_quality(votes, gold, schema).itertuples():
                each[row.annotator] = [{"measure": "accuracy", "value": row.accuracy, "n": row.n}]
    alone = folder.read("reliability") if folder.has("reliability") else None
    if alone is not None:
        for row in alone.itertuples():
            found = {
                "measure": "accuracy_estimated",
                "value": row.accuracy,
                "low": row.low,
                "high": row.high,
                "n": row.n,
            }
            each.setdefault(row.annotator, []).append(found)
    rows += [{"what": who, **row} for who in sorted(each) for row in each[who]]
    agreement = folder.read("agreement")
    overall = agreement[agreement["scope"] == "all"].drop_duplicates("measure").set_index("measure")
    for measure in [name for name in AGREEMENT_ORDER if name in overall.index]:
        rows.append({"what": "agreement", "measure": measure, **overall.loc[measure, ["value", "low", "high", "n"]]})
    frame = pd.DataFrame(rows, columns=["what", "measure", "value", "low", "high", "n"]).astype({"n": "Int64"})
    frame.attrs["notes"] = [
        *_notes_of_consensus(folder.record()),
        *_notes_of_estimates(alone, has_gold=bool(len(gold))),
    ]
    return frame


def _notes_of_estimates(alone: pd.DataFrame | None, *, has_gold: bool) -> list[str]:
    """What a reader of `accuracy_estimated` must know."""
    if alone is None or alone.empty:
        return []
    said = []
    if alone["accuracy"].notna().any():
        texts = "all texts" + (" (accuracy: train and dev texts with gold)" if has_gold else "")
        said.append(
            f"accuracy_estimated: from the votes alone, on {texts}. {ESTIMATED}" + (" Trust gold." if has_gold else "")
        )
    empty, reasons = alone[alone["accuracy"].isna()], alone["reason"].dropna()
    if len(reasons):
        who = "" if len(empty) == len(alone) else f" for {', '.join(map(str, empty['annotator']))}"
        said.append(f"accuracy_estimated is empty{who}: {reasons.iloc[0]}")
    return said


def _notes_of_consensus(record: Mapping[str, Any]) -> list[str]:
    """What the consensus stage noted of its method and of the panel, as sentences."""
    how = record.get("consensus") or {}
    said = []
    if how:
        state = "" if how.get("converged", True) else " (not converged)"
        used = f"; gold of {how['uses_gold']} texts used" if how.get("uses_gold") else ""
        note = f": {how['note']}" if how.get("note") else ""
        said.append(f"method {how.get('method')}{state}{used}{note}")
        if how.get("invalid_votes"):
            said.append(f"{how['invalid_votes']:,} of {how['votes']:,} votes are invalid: they count for no label")
    if record.get("panel"):
        said.append(f"panel: {record['panel']}")
    return [*said, record["swapped"]] if record.get("swapped") else said


def describe_trainings(folder: RunFolder) -> pd.DataFrame:
    """Return one row per student and arm: runs, how many are ok, mean dev macro-F1 and its spread over seeds."""
    trainings = folder.read("trainings")
    grouped = trainings.assign(ok=trainings["status"].eq("ok")).groupby(["student", "arm"], sort=True)
    return grouped.agg(
        runs=("seed", "size"),
        ok=("ok", "sum"),
        rows=("train_rows", "mean"),
        dev_macro_f1=("dev_macro_f1", "mean"),
        sd=("dev_macro_f1", "std"),
    ).reset_index()


def describe_comparison(folder: RunFolder) -> pd.DataFrame:
    """Return the contrasts of the declared metric: difference and intervals in percentage points, and the verdict."""
    return contrast_rows(folder.read("comparison"), folder.record()["settings"]["compare"]["metric"])


def contrast_rows(comparison: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the contrasts of one metric over all test texts, primary ones first: points, intervals, verdict."""
    rows = comparison[(comparison["metric"] == metric) & (comparison["scope"] == "all")].copy()
    for column in ("difference", "low", "high"):
        rows[f"{column}_pp"] = 100 * rows[column]
    columns = ["student", "contrast", "difference_pp", "low_pp", "high_pp", "p_holm", "verdict"]
    if (rows["attempt"] == "rescue").any():
        columns.insert(2, "attempt")
    return rows.sort_values(["student", "is_primary"], ascending=[True, False], kind="stable")[columns]


def plan(experiment: Experiment, folder: RunFolder, base: Path) -> list[dict[str, Any]]:
    """Return one row per student: trainings to do and done, runs, estimated seconds and disk bytes; writes nothing.

    A run is an arm under a seed (and fold); arms with the same labels share a training, and floors need none. Before
    there are labels (`known` false) no arms can be told to be equal and every text is taken as decided: an upper bound.
    Arms of the preset `full` that the data do not allow, or that need votes, are left out then, `left_out` names the latter.
    `test_texts`: how many have gold.
    """
    import pandas as pd

    this = Run(experiment, folder, base, lambda event: None)
    known = all(is_current(stage, this) for stage in STAGES if stage.name in {"data", "annotate", "consensus"})
    if known:
        texts, folds, labels = folder.read("texts"), folder.read("folds"), labels_to_train_on(folder)
        made_of = votes_and_panels(this, texts)
        schema = LabelSchema.from_records(folder.record()["labels"])
    else:
        loaded = read_dataset(experiment.data, base)
        texts, schema = loaded.texts, need_labels(loaded.labels, loaded.texts)
        settings = experiment.data
        folds, _ = make_folds(
            texts, test_size=settings.test_size, dev_size=settings.dev_size, seed=settings.seed, leakage="off",
            folds=settings.folds, given=loaded.folds,
        )  # fmt: skip
        made_of = {}
        stand_in = [
            schema.names[i % len(schema)] for i in range(len(texts))
        ]  # where gold is missing, any label will do
        labels = texts[["text_id"]].assign(
            label=texts["gold"].fillna(pd.Series(stand_in, index=texts.index)), source="consensus", is_problematic=False
        )
    rows = []
    budgets: dict[str, dict[int, int]] = {}
    tested = texts["gold"].notna() & texts["text_id"].isin(folds.loc[folds["part"] == "test", "text_id"])
    for study in experiment.finetune.studies():
        student, choice = study.student, study.settings
        only = None if known else [*before_votes(choice), *(["full"] if "full" in choice.arms else [])]
        arms = arms_of(study.base, choice, schema, texts=texts, folds=folds, labels=labels, only=only, **made_of)
        inputs = texts[["text_id", "text"]], folds
        shared: dict[str, Any] = {"student": student, "schema": schema, "folder": folder}
        budgets.setdefault(study.base, arm_sizes(arms))  # as in the run: a variant takes the steps of its student
        budget = None if student == study.base else budgets[study.base]
        pieces = plan_arms(arms, *inputs, recipe=recipe_of(folder, study.base, choice), budget=budget, **shared)
        runs = arms[["arm", "fold", "seed"]].drop_duplicates()
        if not known:
            pieces += _if_all_differ(pieces, int((~runs["arm"].isin(FLOOR_ARMS)).sum()))
        if student == study.base and choice.probes(study.base):
            tried = arms_of(
                study.base, choice, schema, texts=texts, folds=folds, labels=labels, only=only,
                seeds=[seed_of_probe(choice)], **made_of,
            )  # fmt: skip
            pieces += plan_rates(
                tried, *inputs, rates=choice.learning_rates, recipe=choice.recipe, budget=arm_sizes(arms),
                counted=compared_arms(this, arms) if known else None, **shared,
            )  # fmt: skip
        training = [piece for piece in pieces if piece.what == "train"]
        seconds, to_do = sum(piece.seconds for piece in pieces), sum(not piece.done for piece in training)
        workers = count_workers(choice.workers, study.base, choice.recipe, trainings=to_do, seconds=seconds)
        rows.append(
            {
                "student": student,
                "known": known,
                "to_do": to_do,
                "done": sum(piece.done for piece in training),
                "runs": len(runs),
                "left_out": [] if only is None else [arm for arm in choice.arms if arm not in only],
                "test_texts": int(tested.sum()),
                "seconds": seconds / min(workers, os.cpu_count() or 1),
                "disk_bytes": sum(piece.bytes for piece in pieces),
                "basis": pieces[0].basis,
            }
        )
    return rows


def _if_all_differ(pieces: list[Planned], runs: int) -> list[Planned]:
    """Return the trainings that so many runs would need beside those planned, if no two of them shared one."""
    training = [piece for piece in pieces if piece.what == "train"]
    missing = max(0, runs - len(training)) if training else 0
    return [replace(training[k % len(training)], done=False) for k in range(missing)]
