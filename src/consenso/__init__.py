"""consenso: may the labels of an LLM consensus replace human ones? The public verbs and nouns, loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOME = {
    "ConsensoError": "consenso.errors",
    "Experiment": "consenso.experiment_file",
    "LabelSchema": "consenso.labels",
    "ProblematicRule": "consenso.consensus",
    "Recipe": "consenso.finetune",
    "RunFolder": "consenso.store",
    "alternative_annotator_test": "consenso.consensus",
    "annotate_texts": "consenso.annotate",
    "annotator_quality": "consenso.consensus",
    "check_guards": "consenso.compare",
    "combine_datasets": "consenso.compare.datasets",
    "compare_arms": "consenso.compare",
    "compare_classes": "consenso.compare.classes",
    "compare_seeds": "consenso.compare.seeds",
    "cost_frontier": "consenso.compare.frontier",
    "decide": "consenso.consensus",
    "estimate_label_shares": "consenso.consensus",
    "estimate_reliability": "consenso.consensus",
    "find_gold_noise": "consenso.consensus",
    "fit_temperature": "consenso.temperature",
    "freeze_experiment": "consenso.experiment",
    "gold_noise_bound": "consenso.consensus",
    "labels_worth": "consenso.compare.value",
    "learning_curve": "consenso.compare.curves",
    "load_dataset": "consenso.data",
    "make_arms": "consenso.finetune",
    "make_folds": "consenso.data",
    "map_panel": "consenso.consensus",
    "measure_agreement": "consenso.consensus",
    "measure_calibration": "consenso.compare.calibration",
    "parse": "consenso.annotate",
    "plan_comparison": "consenso.compare.planning",
    "predict_file": "consenso.predict",
    "predict_texts": "consenso.predict",
    "push_model": "consenso.final_model",
    "read_predictions": "consenso.compare.given",
    "read_votes": "consenso.annotate",
    "run": "consenso.experiment",
    "run_arms": "consenso.finetune",
    "run_until_verdict": "consenso.experiment",
    "score_against_gold": "consenso.consensus",
    "show_verdict": "consenso.compare.display",
    "train_model": "consenso.final_model",
    "write_paper": "consenso.report.paper",
    "write_report": "consenso.report",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - the names are those of _HOME

if TYPE_CHECKING:
    from consenso.annotate import annotate_texts, parse, read_votes
    from consenso.compare import check_guards, compare_arms
    from consenso.compare.calibration import measure_calibration
    from consenso.compare.classes import compare_classes
    from consenso.compare.curves import learning_curve
    from consenso.compare.datasets import combine_datasets
    from consenso.compare.display import show_verdict
    from consenso.compare.frontier import cost_frontier
    from consenso.compare.given import read_predictions
    from consenso.compare.planning import plan_comparison
    from consenso.compare.seeds import compare_seeds
    from consenso.compare.value import labels_worth
    from consenso.consensus import (
        ProblematicRule,
        alternative_annotator_test,
        annotator_quality,
        decide,
        estimate_label_shares,
        estimate_reliability,
        find_gold_noise,
        gold_noise_bound,
        map_panel,
        measure_agreement,
        score_against_gold,
    )
    from consenso.data import load_dataset, make_folds
    from consenso.errors import ConsensoError
    from consenso.experiment import freeze_experiment, run, run_until_verdict
    from consenso.experiment_file import Experiment
    from consenso.final_model import push_model, train_model
    from consenso.finetune import Recipe, make_arms, run_arms
    from consenso.labels import LabelSchema
    from consenso.predict import predict_file, predict_texts
    from consenso.report import write_report
    from consenso.report.paper import write_paper
    from consenso.store import RunFolder
    from consenso.temperature import fit_temperature


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'consenso' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
