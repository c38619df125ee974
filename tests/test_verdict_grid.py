"""A fast part of benchmarks/verdict/grid.py: seeded cells whose rates must lie where docs/verdict-proof.md says."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "verdict"))

import grid
import linearisation
import simulating
from grid import Cell

from consenso.compare.paired import TwoWay
from consenso.compare.verdict import BETTER, EQUIVALENT, INCONCLUSIVE, NON_INFERIOR, WORSE, judge

REPLICATIONS = 600


def slack(rate: float, replications: int = REPLICATIONS) -> float:
    """Three binomial standard errors."""
    return 3 * math.sqrt(rate * (1 - rate) / replications)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("accuracy", 2, 3, 300, 0.0, 0.0),
        Cell("accuracy", 5, 3, 1000, 1.3, 0.0),
        Cell("accuracy", 5, 10, 1000, 2.2, 0.0),
        Cell("accuracy", 21, 5, 300, 1.3, 0.0),
        Cell("macro_f1", 2, 5, 300, 0.0, 0.0),
        Cell("macro_f1", 5, 5, 300, 2.2, 0.0),
        Cell("macro_f1", 5, 10, 1000, 1.3, 0.0),
    ],
    ids=str,
)
def test_without_a_difference_the_interval_holds_0_and_few_verdicts_are_false(cell: Cell) -> None:
    row = grid.row(cell, REPLICATIONS)
    low, high = (0.93, 0.97) if cell.S >= 5 else (0.92, 0.98)
    assert low - slack(low) <= row["coverage"] <= high + slack(high)
    assert row["better"] + row["worse"] <= 0.06 + slack(0.06)
    assert row["coverage"] + row["better"] + row["worse"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("accuracy", 5, 3, 1000, 1.3, 2.0),
        Cell("accuracy", 2, 10, 1000, 0.0, 2.0),
        Cell("macro_f1", 5, 5, 1000, 1.3, 2.0),
    ],
    ids=str,
)
def test_at_a_difference_of_the_margin_few_verdicts_say_equivalent(cell: Cell) -> None:
    row = grid.row(cell, REPLICATIONS)
    assert row["coverage"] >= 0.92 - slack(0.92)
    assert row["tost"] <= 0.06 + slack(0.06)
    assert row["one_sided"] <= 0.06 + slack(0.06)
    assert row["equivalent"] <= row["tost"] <= row["one_sided"]
    assert row["difference"] == pytest.approx(2, abs=4 * row["sd_difference"] / math.sqrt(REPLICATIONS))


def test_ten_seeds_on_2210_texts_see_2_points_and_equivalence_in_7_of_10_cases() -> None:
    assert grid.row(Cell("accuracy", 5, 10, 2210, 1.3, 2.0), 300)["better"] >= 0.70
    assert grid.row(Cell("accuracy", 5, 10, 2210, 1.3, 0.0), 300)["equivalent"] >= 0.70 - slack(0.70, 300)


def test_the_words_of_the_grid_are_those_of_judge() -> None:
    seen = set()
    for cell in (Cell("accuracy", 2, 10, 1000, 0.0, 1.0), Cell("accuracy", 5, 3, 300, 1.3, 0.0)):
        for sign in (1, -1):
            found = grid.two_way_stack(np.concatenate([sign * D for D, _ in grid.blocks(cell, 100)]))
            for place, word in enumerate(grid.words(found)):
                numbers = {name: float(values[place]) for name, values in found.items()}
                assert judge(TwoWay(**numbers, S=cell.S, n=cell.n), grid.MARGIN).word == word
                seen.add(str(word))
    assert seen == {BETTER, WORSE, EQUIVALENT, NON_INFERIOR, INCONCLUSIVE}


@pytest.mark.parametrize("classes", [2, 5, 21])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_true_difference_is_that_of_a_huge_test_set(metric: str, classes: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    effect = simulating.calibrated(classes, metric, 0.02, 0.0)
    rng = np.random.default_rng(classes)
    gold, predicted = simulating.predictions(simulating.world(classes), effect, (1, 1, 1_000_000), rng)
    A, B = (
        accuracy_score(gold[0], codes) if metric == "accuracy" else f1_score(gold[0], codes, average="macro")
        for codes in predicted[:, 0, 0]
    )
    assert pytest.approx(0.02, abs=0.004 if (metric, classes) == ("macro_f1", 21) else 0.002) == B - A
    if metric == "accuracy":
        A, B = simulating.population(simulating.world(classes), 0.0, np.array(0.0), metric)
        assert pytest.approx(simulating.ACCURACY[classes], abs=0.01) == (A + B) / 2


def test_a_seed_moves_the_difference_by_the_stated_standard_deviation() -> None:
    of, effect = simulating.world(5), simulating.calibrated(5, "macro_f1", 0.01, 0.022)
    eta = effect.sd * np.random.default_rng(0).standard_normal(200_000)
    A, B = simulating.population(of, effect.shift, eta, "macro_f1")
    assert (B - A).mean() == pytest.approx(0.01, abs=2e-4)
    assert (B - A).std() == pytest.approx(0.022, rel=0.01)


def test_the_disagreement_is_31_points_and_a_sixth_of_it_persists() -> None:
    row = grid.row(Cell("accuracy", 5, 10, 2210, 1.3, 0.0), 200)
    assert row["disagreement"] == pytest.approx(0.31, abs=0.01)
    assert row["sd_item"] ** 2 / (row["sd_item"] ** 2 + row["sd_error"] ** 2) == pytest.approx(0.16, abs=0.02)
    assert row["sd_seed"] == pytest.approx(1.3, abs=0.15)


def test_the_closed_form_of_the_jackknife_is_leaving_one_text_out() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(3)
    gold = rng.choice(4, 80, p=(0.5, 0.3, 0.15, 0.05))
    predicted = np.where(rng.random((2, 80)) < 0.6, gold, rng.integers(0, 4, (2, 80)))
    found = linearisation.values_per_item(predicted, gold, 4)
    for place, codes in enumerate(predicted):
        whole = f1_score(gold, codes, average="macro")
        without = [f1_score(np.delete(gold, i), np.delete(codes, i), average="macro") for i in range(80)]
        by_hand = whole + 79 * (np.mean(without) - without)
        assert found["jackknife"][place] == pytest.approx(by_hand, abs=1e-12)
        assert found["influence function"][place].mean() == pytest.approx(whole, abs=1e-12)


def test_where_classes_are_rare_the_jackknife_is_wide_enough_and_the_influence_function_is_not() -> None:
    found = linearisation.compare(Cell("macro_f1", 21, 10, 300, 1.3, 0.0), REPLICATIONS)
    assert found["SE / sd, influence function"] < 0.95
    assert 0.98 < found["SE / sd, jackknife"] < 1.15
    assert 0.93 - slack(0.93) <= found["coverage, jackknife"] <= 0.97 + slack(0.97)


def test_a_cell_gives_the_same_row_again_and_finished_cells_are_not_repeated(tmp_path, monkeypatch) -> None:
    path = tmp_path / "grid.csv"
    filters = ["S=3", "n=300", "K=2", "seed_sd=1.3", "metric=accuracy", "delta=0,3"]
    monkeypatch.setattr("sys.argv", ["grid.py", "--replications", "50", "--to", str(path), "--cells", *filters])
    grid.main()
    first = path.read_text()
    grid.main()
    assert path.read_text() == first
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["delta"] for row in rows) == ["0.0", "3.0"]
    again = grid.row(Cell("accuracy", 2, 3, 300, 1.3, 3.0), 50)
    written = next(row for row in rows if row["delta"] == "3.0")
    assert {name: str(value) for name, value in again.items() if name != "cpu_seconds"} == {
        name: value for name, value in written.items() if name != "cpu_seconds"
    }


def test_the_grid_has_all_cells_of_the_specification() -> None:
    assert len(grid.CELLS) == len(set(grid.CELLS)) == 648
