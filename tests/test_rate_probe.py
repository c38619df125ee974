"""The learning rate chosen before the arms are trained: one for all of them, on dev, under a seed of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from consenso import overview
from consenso.errors import ConfigError, IncompleteError
from consenso.experiment import run
from consenso.experiment_file import read_experiment
from consenso.finetune import FinetuneSettings, Recipe, make_arms, plan_arms, rate_probe
from consenso.finetune.rate_probe import SEED, chosen_among, plan_rates, probe_rates, probe_seed, with_chosen_rate
from consenso.finetune.students import encoder
from consenso.finetune.training import Outcome
from consenso.report.facts import Facts
from consenso.report.paper_methods import methods_sentences
from consenso.report.settings import ReportSettings
from consenso.store import RunFolder
from making import write_experiment
from test_finetune_students import SCHEMA, recipe_for, save_tiny, tables

ENCODER = """students = ["encoder"]
seeds = 1
arms = ["gold-aligned", "consensus", "floor"]
learning_rates = [1e-2, 1e-4, 5e-3]
rescue = false
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny-bert"))


def trial(**means: float) -> pd.DataFrame:
    """What a probe of two arms gave: rate → mean dev macro-F1."""
    rows = [
        {"rate": float(rate.replace("_", "-").removeprefix("r")), "arm": arm, "dev_macro_f1": mean + apart, "status": "ok"}
        for rate, mean in means.items()
        for arm, apart in (("consensus", 0.05), ("gold-aligned", -0.05))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(reason=None, key="k")


def probe(tiny: str, student: str = "encoder", **options: Any) -> pd.DataFrame:
    texts, folds, labels = tables()
    names = options.pop("arms", ["gold", "gold-aligned", "consensus", "permuted", "gold@20", "floor"])
    arms = make_arms(texts, folds, labels, arms=names, seeds=[SEED], schema=SCHEMA)
    recipe = recipe_for(tiny, epochs=1)
    given = {"rates": [3e-3, 1e-4], "recipe": recipe, "schema": SCHEMA, **options}
    return probe_rates(arms, texts, folds, student=student, **given)


def test_the_rate_of_the_highest_mean_over_the_arms_is_chosen() -> None:
    found = chosen_among(trial(r1e_5=0.5, r2e_5=0.7, r1e_4=0.6))
    assert found["chosen"] == 2e-5
    assert found["means"] == pytest.approx({"1e-05": 0.5, "2e-05": 0.7, "0.0001": 0.6})


def test_of_rates_that_are_equal_the_smaller_one_is_chosen() -> None:
    assert chosen_among(trial(r1e_4=0.7, r2e_5=0.7, r1e_5=0.6))["chosen"] == 2e-5


def test_a_collapsed_training_counts_as_it_scores() -> None:
    tried = trial(r1e_4=0.7, r2e_5=0.6)
    tried.loc[0, ["dev_macro_f1", "status"]] = [0.2, "collapsed"]
    assert chosen_among(tried)["chosen"] == 2e-5


def test_each_rate_is_tried_on_every_arm_that_counts_and_on_no_other(tiny: str) -> None:
    tried = probe(tiny)
    assert list(zip(tried["rate"], tried["arm"])) == [
        (rate, arm) for rate in (1e-4, 3e-3) for arm in ("consensus", "gold", "gold-aligned")
    ]
    assert set(probe(tiny, counted={"consensus", "floor"})["arm"]) == {"consensus"}


def test_the_probe_has_the_steps_of_the_study_and_the_first_fold_alone(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, folds, labels = tables()
    two = pd.concat([folds, folds.assign(fold=1)], ignore_index=True)
    arms = make_arms(texts, two, labels, arms=["consensus", "gold"], seeds=[SEED], schema=SCHEMA)
    seen = []

    def seeing(training: Any, *_: Any) -> Outcome:
        seen.append((training.seed, training.steps))
        shape = (len(training.asked), len(SCHEMA))
        facts = {"steps": training.steps, "dev_macro_f1": 0.5}
        return Outcome("ok", None, np.full(shape, 1 / 3), np.zeros(shape[0], dtype="int64"), facts)

    monkeypatch.setattr(encoder, "train", seeing)
    given = {
        "recipe": Recipe(encoder=tiny, epochs=1),
        "rates": [1e-4, 1e-3],
        "schema": SCHEMA,
        "budget": {0: 160, 1: 320},
    }
    probe_rates(arms, texts, two, student="encoder", counted={"consensus"}, **given)  # type: ignore[arg-type]
    assert seen == [(SEED, 10), (SEED, 10)]


def test_a_probe_with_a_failed_training_chooses_nothing_and_keeps_the_others(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, asked = encoder.train, []

    def failing(training: Any, prepared: Any, recipe: Recipe, *rest: Any) -> Outcome:
        asked.append(recipe.learning_rate)
        if len(asked) == 2:
            raise RuntimeError("out of memory")
        return train(training, prepared, recipe, *rest)

    monkeypatch.setattr(encoder, "train", failing)
    folder, arms = RunFolder(tmp_path), ["gold-aligned", "consensus"]
    with pytest.raises(IncompleteError, match=r"1 of 4 trainings failed .*out of memory"):
        probe(tiny, folder=folder, arms=arms)
    assert probe(tiny, folder=folder, arms=arms)["status"].isin(["ok", "collapsed"]).all()
    assert len(asked) == 5


def test_adding_seeds_changes_neither_the_seed_of_the_probe_nor_its_separateness() -> None:
    assert probe_seed(range(1, 6)) == probe_seed(range(1, 500)) == SEED
    assert probe_seed([SEED, SEED + 1, 4]) == SEED + 2


def test_the_plan_counts_the_trainings_of_the_probe(tiny: str, tmp_path: Path) -> None:
    texts, folds, labels = tables()
    arms = make_arms(texts, folds, labels, arms=["consensus", "gold", "floor"], seeds=[SEED], schema=SCHEMA)
    given: dict[str, Any] = {"student": "encoder", "recipe": recipe_for(tiny, epochs=1), "schema": SCHEMA}
    given |= {"folder": RunFolder(tmp_path), "counted": {"consensus", "gold"}, "rates": [1e-4, 3e-3]}
    assert [piece.done for piece in plan_rates(arms, texts, folds, **given)] == [False] * 4
    probe_rates(arms, texts, folds, **given)
    assert [piece.done for piece in plan_rates(arms, texts, folds, **given)] == [True] * 4


def test_what_cannot_be_probed_is_said_in_one_line(tiny: str) -> None:
    with pytest.raises(ConfigError, match="student 'frozen' has no learning rate"):
        probe(tiny, student="frozen")
    with pytest.raises(ConfigError, match="no arm of student 'encoder' stands in a reported contrast"):
        probe(tiny, counted={"perspectivist"})
    with pytest.raises(ConfigError, match="none of the students frozen takes one of them"):
        FinetuneSettings.read({"learning_rates": [1e-5, 2e-5]})
    with pytest.raises(ConfigError, match="two or more different rates"):
        FinetuneSettings.read({"students": ["encoder"], "learning_rates": [1e-5, 1e-5]})


def test_a_student_that_only_the_multiverse_trains_needs_a_rate_of_its_own(tmp_path: Path) -> None:
    settings = 'students = ["encoder"]\nlearning_rates = [1e-5, 1e-4]\n'
    path = write_experiment(tmp_path, finetune=settings, more='[multiverse]\nstudents = ["encoder", "contrastive"]\n')
    with pytest.raises(ConfigError, match=r"multiverse\.students: .* 'contrastive' is not among them"):
        read_experiment(path)
    changes = ["finetune.overrides.contrastive.recipe.learning_rate=2e-5"]
    assert read_experiment(path, changes)[0].multiverse.students == ("encoder", "contrastive")


def test_who_names_a_rate_of_its_own_keeps_it() -> None:
    settings = FinetuneSettings.read(
        {
            "students": ["encoder", "frozen"], "learning_rates": [1e-5, 1e-4],
            "variants": {
                "fixed": {"students": ["encoder"], "recipe": {"learning_rate": 5e-5}},
                "patient": {"students": ["encoder"], "patience": 2},
            },
        }
    )  # fmt: skip
    probes = {study.student: study.settings.probes(study.base) for study in settings.studies()}
    assert probes == {"encoder": True, "frozen": False, "encoder (fixed)": False, "encoder (patient)": True}
    assert with_chosen_rate(Recipe(), "encoder", {"encoder": {"chosen": 1e-4}}).learning_rate == 1e-4
    assert with_chosen_rate(Recipe(), "encoder", None) == Recipe()


@pytest.fixture(scope="module")
def probed(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An experiment whose rate was chosen, and its run folder."""
    place = tmp_path_factory.mktemp("probed")
    recipe = f'[finetune.recipe]\nencoder = "{tiny}"\nepochs = 2\nevaluations = 2\n'
    path = write_experiment(place, finetune=ENCODER + recipe)
    run(path, place / "run", until="compare")
    return path, place / "run"


def test_all_arms_are_trained_with_the_rate_that_was_chosen(probed: tuple[Path, Path]) -> None:
    folder = RunFolder(probed[1])
    found = folder.record()["learning_rates"]["encoder"]
    assert {row["arm"] for row in found["tried"]} == {"gold-aligned", "consensus"}
    assert f"{found['chosen']:g}" == max(found["means"], key=found["means"].get) != "0.0001"
    keys = set(folder.read("trainings")["key"].dropna())
    experiment, base = read_experiment(probed[0])
    assert overview.plan(experiment, folder, base)[0]["to_do"] == 0
    assert keys == trained_keys(
        folder, experiment.finetune.recipe.model_copy(update={"learning_rate": found["chosen"]})
    )


def trained_keys(folder: RunFolder, recipe: Recipe) -> set[str | None]:
    """The keys of the run's own arms under another recipe."""
    arms, texts, folds = (folder.read(name) for name in ("arms", "texts", "folds"))
    schema = overview.LabelSchema.from_records(folder.record()["labels"])
    pieces = plan_arms(arms, texts[["text_id", "text"]], folds, student="encoder", recipe=recipe, schema=schema)
    return {piece.key for piece in pieces if piece.what == "train"}


def test_the_paper_says_which_rate_and_how_it_was_chosen(probed: tuple[Path, Path]) -> None:
    chosen = json.loads((probed[1] / "run.json").read_text())["learning_rates"]["encoder"]["chosen"]
    said = " ".join(methods_sentences(Facts(RunFolder(probed[1]), ReportSettings())))
    assert f"peak learning rate {chosen:g}," in said
    assert (
        "Its learning rate was chosen among 0.0001, 0.005 and 0.01 by mean development macro-F1 over the arms "
        "“consensus” and “gold-aligned” under a separate seed"
    ) in said


def test_a_run_repeats_no_training_of_the_probe(probed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Outcome:
        raise AssertionError("a training was repeated")

    monkeypatch.setattr(encoder, "train", never)
    before = RunFolder(probed[1]).record()["learning_rates"]
    experiment, base = read_experiment(probed[0], ["finetune.selection.beta=0.3"])
    run(experiment, probed[1], until="finetune", base=base)
    assert RunFolder(probed[1]).record()["learning_rates"] == before
    assert rate_probe.NOTE == "learning_rates"
