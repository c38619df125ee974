"""The names people import, and how light importing them is."""

from __future__ import annotations

import json
import subprocess
import sys

import consenso

HEAVY = ("pandas", "sklearn", "scipy", "torch", "transformers", "datasets", "matplotlib", "pyarrow")


def test_the_public_names_are_these() -> None:
    assert sorted(set(consenso.__all__) - {"__version__"}) == [
        "ConsensoError", "Experiment", "LabelSchema", "ProblematicRule", "Recipe", "RunFolder",
        "alternative_annotator_test", "annotate_texts", "annotator_quality", "check_guards", "combine_datasets",
        "compare_arms", "compare_classes", "compare_seeds", "cost_frontier", "decide", "estimate_label_shares",
        "estimate_reliability", "find_gold_noise", "fit_temperature", "freeze_experiment", "gold_noise_bound",
        "labels_worth", "learning_curve", "load_dataset", "make_arms", "make_folds", "map_panel",
        "measure_agreement", "measure_calibration", "parse", "plan_comparison", "predict_file", "predict_texts", "push_model",
        "read_predictions", "read_votes",
        "run", "run_arms", "run_until_verdict", "score_against_gold", "show_verdict", "train_model", "write_paper", "write_report",
    ]  # fmt: skip
    for name in consenso.__all__:
        assert getattr(consenso, name) is not None


def loaded_by(code: str) -> tuple[list[str], float]:
    """Heavy modules that a fresh process loads by running `code`, and its CPU seconds."""
    script = (
        f"import sys, time\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        f"import json; print(json.dumps([[m for m in {HEAVY} if m in sys.modules], time.process_time()]))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy, seconds = json.loads(out.splitlines()[-1])
    return heavy, seconds


def test_importing_consenso_loads_nothing_heavy() -> None:
    assert loaded_by("import consenso, consenso.cli")[0] == []


def test_help_loads_nothing_heavy() -> None:
    heavy, seconds = loaded_by("sys.argv = ['consenso', '--help']; from consenso.cli import main; main()")
    assert heavy == []
    assert seconds < 0.4  # the budget of docs/decisions/0001 in CPU seconds; measured: 0.06


def test_the_settings_load_nothing_heavy() -> None:
    assert loaded_by("from consenso import Experiment")[0] == []
