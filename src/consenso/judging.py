"""What the commands `plan`, `compare` and `report` do beyond one run: plans, predictions of the user's own, several data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.compare import check_guards, compare_arms
from consenso.compare.classes import compare_classes
from consenso.compare.datasets import ALL, combine_datasets
from consenso.compare.given import read_predictions
from consenso.compare.needs import Components
from consenso.compare.planning import basis_of, plan_comparison, plan_in_words
from consenso.compare.seeds import compare_seeds
from consenso.data import make_folds, read_dataset
from consenso.errors import ConfigError, DataError, nearest
from consenso.experiment_file import Experiment, read_experiment
from consenso.report import write_report
from consenso.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd


ASSUMED = frozenset({"accuracy", "disagreement", "persistence", "sd_seed"})
"""What a plan assumes where neither a pilot nor the user says it."""


@dataclass(frozen=True)
class Planned:
    """What a comparison can show."""

    table: pd.DataFrame
    """One row per number of seeds and of test texts (`plan_comparison`)."""
    sentence: str
    """What can and cannot be seen with the first row."""
    basis: str
    """Where the variance components come from."""


def plan_experiment(
    source: Path | None,
    out: Path | None,
    changes: Sequence[str],
    *,
    texts: Sequence[int],
    seeds: Sequence[int],
    **given: Any,
) -> Planned:
    """Plan from an experiment (its test texts, seeds and margin; its pilot, where it was run) or from numbers alone.

    `given`: margin, accuracy, disagreement, persistence, sd_seed; None: as the experiment says, or as assumed.
    Raises `ConfigError` where the test texts of an experiment with folds would be needed: a plan is for one split.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    basis = basis_of(**{name: chosen[name] for name in ASSUMED & set(chosen)})
    if source is not None:
        experiment, base = read_experiment(source, changes)
        folder = RunFolder(out or Path("runs") / experiment.name)
        chosen = {"margin": experiment.compare.margin, "alpha": experiment.compare.alpha, **chosen}
        texts = texts or [_test_texts(experiment, folder, base)]
        seeds = seeds or [_number(experiment.finetune.seeds)]
        pilot = _pilot(folder)
        if pilot is not None and not ASSUMED & set(chosen):
            chosen["components"], basis = pilot, f"components measured in {folder.path}"
    if not texts:
        raise ConfigError("how many test texts? Say --texts N, or name an experiment file whose data say it")
    table = plan_comparison(list(texts), list(seeds) or [3, 5, 10, 20], **chosen)
    return Planned(table, plan_in_words(table), basis)


def _number(seeds: int | tuple[int, ...]) -> int:
    return seeds if isinstance(seeds, int) else len(seeds)


def _test_texts(experiment: Experiment, folder: RunFolder, base: Path) -> int:
    """How many texts are tested: as the data stage has it, else as it would draw them."""
    if folder.has("folds"):
        folds = folder.read("folds")
    else:
        settings, loaded = experiment.data, read_dataset(experiment.data, base)
        folds, _ = make_folds(
            loaded.texts, test_size=settings.test_size, dev_size=settings.dev_size, seed=settings.seed, leakage="off",
            folds=settings.folds, given=loaded.folds,
        )  # fmt: skip
    if (k := folds["fold"].nunique()) > 1:
        raise ConfigError(
            f"a plan is for one split, and this experiment has {k} folds, over which the interval is another one (Nadeau "
            "and Bengio); say --texts N to plan one split with N test texts"
        )
    return int((folds["part"] == "test").sum())


def _pilot(folder: RunFolder) -> Components | None:
    """The variance components of the primary contrast of a run, where it has them; the difference is not looked at."""
    if not folder.has("comparison"):
        return None
    rows = folder.read("comparison")
    rows = rows[rows["is_primary"] & rows["sd_seed"].notna() & rows["k"].isna()]
    return (
        None if rows.empty else Components(*(float(rows.iloc[0][f"sd_{of}"]) ** 2 for of in ("seed", "item", "error")))
    )


def judge_predictions(
    source: Path,
    gold: str | None,
    *,
    contrast: tuple[str, str] | None,
    metric: str,
    margin: float,
    out: Path | None = None,
) -> pd.DataFrame:
    """Return the comparison of the user's own predictions; with `out` also write a run folder with a report.

    `source`: a table or a folder of tables (`read_predictions`); `gold`: a column of it, or a file with text_id and gold.
    `attrs["guards"]` of the result holds the guards. Raises `ConfigError` for a contrast whose arms are not there.
    """
    predictions, truth = read_predictions(source, gold, arms=contrast or ())
    there = sorted(predictions["arm"].unique())
    for arm in contrast or ():
        if arm not in there:
            raise ConfigError(f"--contrast: no predictions of arm {arm!r}; found {there}.{nearest(arm, there)}")
    asked: dict[str, Any] = {"contrasts": [contrast] if contrast else None}
    guards = check_guards(predictions=predictions, gold=truth, metric=metric, margin=margin, **asked)
    found = compare_arms(
        predictions, truth, metric=metric, margin=margin, guards=guards, dataset=source.name.partition(".")[0], **asked
    )
    if out is not None:
        folder = RunFolder(out)
        if folder.record().get("stages"):
            raise ConfigError(f"{out} is the folder of a run; choose another one for these predictions")
        with folder.locked():
            folder.note("name", source.name)
            folder.note("kind", "predictions")
            folder.note("settings", {"compare": {"metric": metric, "margin": margin}})
            tables = {
                "predictions": predictions,
                "guards": guards,
                "comparison": found,
                "class_differences": compare_classes(predictions, truth, **asked),
                "seed_differences": compare_seeds(predictions, truth, **asked),
            }
            for name, frame in tables.items():
                folder.write(name, frame)
            write_report(folder)
    return found


def combine_runs(folders: Sequence[Path], out: Path) -> tuple[pd.DataFrame, Path]:
    """Return one row per data set and student (and their mean, from three on) of finished runs, and their report's path.

    Declared variants of a student are left out; runs of the same name are called by their paths. Raises `ConfigError`
    for a folder that stands twice, two runs on the same texts, and primary contrasts that differ; `DataError` for a
    folder without a comparison.
    """
    from consenso.report.combined import write_combined_report

    _refuse_same(folders)
    names = [str(RunFolder(path).record().get("name") or path.name) for path in folders]
    comparisons = {
        name if names.count(name) == 1 else str(path): _without_variants(RunFolder(path).read("comparison"))
        for name, path in zip(names, folders)
    }
    asked = {
        contrast: name for name, frame in comparisons.items() for contrast in frame.loc[frame["is_primary"], "contrast"]
    }
    if len(asked) > 1:
        each = "; ".join(f"{contrast} in {name}" for contrast, name in asked.items())
        raise ConfigError(
            f"the runs differ in their primary contrast ({each}); compare them alike, or report each alone"
        )
    combined = combine_datasets(comparisons)
    shown = combined.rename(columns={"predict_low": "prediction_low", "predict_high": "prediction_high"})
    kind = combined["dataset"].eq(ALL).map({True: "mean", False: "dataset"})
    return combined, write_combined_report(folders, out, combined=shown.assign(kind=kind))


def _refuse_same(folders: Sequence[Path]) -> None:
    """Every run needs a comparison, and texts of its own: one data set twice would count as two."""
    seen: dict[Path, Path] = {}
    texts: dict[str, Path] = {}
    for path in folders:
        folder = RunFolder(path)
        if not folder.has("comparison"):
            raise DataError(f"{path}: no comparison there yet; `consenso run` makes it")
        if (place := path.resolve()) in seen:
            raise ConfigError(f"{path} and {seen[place]} are the same folder; name each run once")
        print_ = folder.fingerprints().get("texts")
        if print_ is not None and print_ in texts:
            raise ConfigError(
                f"{path} and {texts[print_]} hold the same texts; one report for several runs needs runs on different data sets"
            )
        seen[place] = path
        if print_ is not None:
            texts[print_] = path


def _without_variants(comparison: pd.DataFrame) -> pd.DataFrame:
    students = set(comparison["student"])
    variants = {student for student in students if " (" in student and student.partition(" (")[0] in students}
    return comparison[~comparison["student"].isin(variants)]
