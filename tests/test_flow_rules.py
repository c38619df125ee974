"""Rules that hold across runs of one folder: the freeze, the first scoring, seeds under a rule, variants, the multiverse."""

from __future__ import annotations

import json

import pytest

from consenso import run
from consenso.compare.needs import components
from consenso.compare.paired import two_way
from consenso.compare.untilverdict import next_seeds
from consenso.errors import ConfigError
from consenso.experiment import freeze_experiment, run_until_verdict
from consenso.steps import compare as compare_step
from consenso.store import RunFolder
from making import write_experiment

TWO_ARMS = 'students = ["linear"]\nseeds = 3\narms = ["gold-aligned", "consensus"]'


def guard(folder, name="fixed before scoring"):
    guards = RunFolder(folder).read("guards")
    return guards[guards["guard"] == name].iloc[0]


def test_an_edited_freeze_is_noticed_by_the_next_run(tmp_path):
    path = write_experiment(tmp_path, finetune=TWO_ARMS)
    freeze_experiment(path, tmp_path / "run")
    run(path, tmp_path / "run", until="compare")
    assert guard(tmp_path / "run")["outcome"] == "passed"
    frozen = tmp_path / "run" / "frozen.json"
    record = json.loads(frozen.read_text())
    record["declared"]["margin"] = 0.5
    frozen.write_text(json.dumps(record))
    run(path, tmp_path / "run", until="compare")
    assert guard(tmp_path / "run")["outcome"] == "warned"
    assert "edited" in guard(tmp_path / "run")["reason"]


def test_seeds_added_after_a_look_are_a_change(tmp_path):
    path = write_experiment(tmp_path, finetune=TWO_ARMS)
    run(path, tmp_path / "run", until="compare")
    path.write_text(path.read_text().replace("seeds = 3", "seeds = 4"))
    run(path, tmp_path / "run", until="compare")
    assert guard(tmp_path / "run")["outcome"] == "warned"
    assert "seeds" in guard(tmp_path / "run")["reason"]


def test_a_run_that_is_cut_off_while_comparing_keeps_the_record_of_its_first_scoring(tmp_path, monkeypatch):
    path = write_experiment(tmp_path, finetune=TWO_ARMS)
    with monkeypatch.context() as patched:
        patched.setattr(compare_step, "score_runs", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "run", until="compare")
    path.write_text(path.read_text().replace("margin = 0.05", "margin = 0.03"))
    run(path, tmp_path / "run", until="compare")
    assert guard(tmp_path / "run")["outcome"] == "warned"
    assert "margin: 0.05 → 0.03" in guard(tmp_path / "run")["reason"]


def test_a_plain_run_keeps_the_seeds_that_the_rule_added(tmp_path):
    compare = 'metric = "accuracy"\nmargin = 0.05\nuntil = { most = 10 }'
    path = write_experiment(tmp_path, finetune=TWO_ARMS, compare=compare)
    first = run_until_verdict(path, tmp_path / "run")
    seeds = RunFolder(tmp_path / "run").read("trainings")["seed"].nunique()
    assert seeds >= 5
    assert run(path, tmp_path / "run", until="compare").sentence == first.sentence
    assert RunFolder(tmp_path / "run").read("trainings")["seed"].nunique() == seeds
    assert guard(tmp_path / "run")["outcome"] == "passed"


def test_copies_of_a_seed_do_not_hold_up_the_rule():
    import numpy as np

    D = np.random.default_rng(0).normal(0, 0.3, (9, 400))
    found = two_way(D)
    assert components(found).error > 0
    stuck = next_seeds(found, margin=0.02, planned=10)
    assert (stuck.action, stuck.seeds) == ("train", 10)
    assert next_seeds(found, margin=0.02, planned=10, trained=10).action == "stop"


def test_a_variant_never_decides_the_exit_code(tmp_path):
    arms = TWO_ARMS.replace('"consensus"]', '"consensus", "gold", "floor"]')
    variant = "\n[finetune.variants.weak]\nrecipe = { c_grid = [1e-9] }\n"
    outcome = run(write_experiment(tmp_path, finetune=arms + variant), tmp_path / "run", until="compare")
    assert outcome.others["linear (weak)"].startswith("INVALID")
    assert outcome.exit_code == 0


def test_a_variant_that_varies_nothing_is_refused(tmp_path):
    variant = '\n[finetune.variants.epochs]\nsteps = "epochs"\n'
    with pytest.raises(ConfigError, match="nothing that student 'linear' reads differs"):
        run(write_experiment(tmp_path, finetune=TWO_ARMS + variant), tmp_path / "run")


def test_the_multiverse_says_nothing_where_the_main_verdict_does_not_stand(tmp_path):
    arms = TWO_ARMS.replace('"consensus"]', '"consensus", "gold", "floor"]')
    path = write_experiment(tmp_path, "[multiverse]\n", finetune=arms, compare='metric = "accuracy"\nmargin = 0.45')
    assert run(path, tmp_path / "run", until="multiverse").verdict == "INVALID"
    assert RunFolder(tmp_path / "run").record()["multiverse"] == ""


def test_the_multiverse_uses_the_level_of_the_comparison(tmp_path):
    compare = 'metric = "accuracy"\nmargin = 0.05\nalpha = 0.01'
    multiverse = "[multiverse]\naggregators = []\nthresholds = [0.0]\n"
    run(
        write_experiment(tmp_path, multiverse, finetune=TWO_ARMS, compare=compare), tmp_path / "run", until="multiverse"
    )
    folder = RunFolder(tmp_path / "run")
    main, primary = folder.read("multiverse").iloc[0], folder.read("comparison").query("is_primary").iloc[0]
    assert (main["low"], main["high"]) == (primary["low"], primary["high"])


def test_panels_are_chosen_without_gold(tmp_path):
    arms = 'students = ["linear"]\nseeds = 2\narms = ["gold-aligned", "consensus", "panel:2"]'
    path = write_experiment(tmp_path, finetune=arms)
    run(path, tmp_path / "run", until="finetune")
    before = RunFolder(tmp_path / "run").record()["panel_arms"]
    texts = (tmp_path / "texts.csv").read_text().splitlines()
    rolled = {"sport": "money", "money": "health", "health": "sport"}
    changed = [
        texts[0],
        *(",".join([*line.split(",")[:2], rolled[line.split(",")[2]], line.split(",")[3]]) for line in texts[1:]),
    ]
    (tmp_path / "texts.csv").write_text("\n".join(changed) + "\n")
    run(path, tmp_path / "run", until="finetune")
    assert RunFolder(tmp_path / "run").record()["panel_arms"] == before
    assert len(before["panel:2"]) == 2
