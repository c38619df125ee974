"""The report's sections about the comparison: every number is the table's, and what is absent says why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawn
from scipy.stats import binomtest

from consenso.compare.datasets import combine_datasets
from consenso.errors import DataError
from consenso.report import ReportSettings, write_combined_report, write_report
from consenso.report.advice import NO_VERDICT
from consenso.report.answer import make_answer
from consenso.report.blocks import Cell, Figure, Grid, Section
from consenso.report.calibration_section import calibration
from consenso.report.collapse_section import collapsed
from consenso.report.contrast_section import contrasts
from consenso.report.drawing import NARROW, WIDE, Canvas
from consenso.report.effect_plots import ClassRow, class_differences
from consenso.report.facts import Facts, in_arm_order
from consenso.report.forest_plot import Contrast, forest
from consenso.report.frontier_plot import Priced, frontier_plot
from consenso.report.frontier_section import frontier
from consenso.report.multiverse_plot import Specification, specification_curve
from consenso.report.multiverse_section import multiverse
from consenso.report.paper import paper_texts
from consenso.report.questions import ORDER, question_of
from consenso.report.sections import make_sections
from consenso.report.seed_section import classes, seed_by_seed
from consenso.report.value_section import corrections, label_value
from consenso.store import RunFolder
from consenso.tables import TABLES, check
from report_compared import PRIMARY
from report_compared import multiverse as made_multiverse
from report_folder import make_run
from test_report import PLOTS, Page

Draw = Callable[..., tuple[str, str]]
LONG = "single:mistralai/Mistral-7B-Instruct-v0.3-GPTQ"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), n=40, n_test=20, seeds=3)


@pytest.fixture
def folder(run: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(run.path, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """Charts are painted at both widths and kept, but not turned into SVG."""
    kept: list[Drawn] = []

    def keep(name: str, paint: Any, height: Any) -> tuple[str, str]:
        for width in (WIDE, NARROW):
            tall = round(height(width == NARROW))
            figure = Drawn((width / 72, tall / 72), dpi=72)
            FigureCanvasAgg(figure)
            paint(Canvas(figure, width, tall))
            kept.append(figure)
        return "<svg></svg>", "<svg></svg>"

    for module in PLOTS:
        monkeypatch.setattr(f"consenso.report.{module}.draw", keep)
    return kept


def facts_of(folder: RunFolder) -> Facts:
    return Facts(folder, ReportSettings())


def grids(section: Section) -> list[Grid]:
    return [block for block in section.blocks if isinstance(block, Grid)]


def drawings(section: Section) -> list[Figure]:
    return [block for block in section.blocks if isinstance(block, Figure)]


def words(blocks: Any) -> str:
    return " ".join(getattr(block, "text", "") for block in blocks)


def value_of(text: str) -> float:
    found = re.search(r"[−-]?[\d,]*\.?\d+", text)
    assert found, text
    return float(found[0].replace("−", "-").replace(",", ""))


def ends_of(text: str) -> list[float]:
    return [float(x.replace("−", "-").replace(",", "")) for x in re.findall(r"[−-]?[\d,]*\.?\d+", text)]


def shows(cell: Cell, value: float, *, of: str = "text", scale: float = 1, digits: int = 3) -> None:
    assert value_of(getattr(cell, of)) == pytest.approx(scale * value, abs=0.5001 * 10**-digits)


NEW = {
    "seed_differences": (seed_by_seed, "Not in this run"),
    "class_differences": (classes, "Not in this run"),
    "calibration": (calibration, "Not in this run"),
    "multiverse": (multiverse, "No multiverse was run"),
    "frontier": (frontier, "add “single:each”"),
}


@pytest.mark.parametrize("table", NEW)
def test_a_section_shows_its_table_and_says_why_where_there_is_none(folder: RunFolder, table: str) -> None:
    section_of, why = NEW[table]
    shown = section_of(facts_of(folder))
    assert grids(shown)
    assert all(len(figure.label) > len(figure.caption) for figure in drawings(shown))
    assert drawings(shown)
    (folder.path / "tables" / f"{table}.parquet").unlink()
    (note,) = section_of(facts_of(folder)).blocks
    assert why in note.text
    folder.write(table, check(pd.DataFrame(columns=list(TABLES[table].columns)), TABLES[table]))
    (note,) = section_of(facts_of(folder)).blocks
    assert note.tone == "absent"


def test_every_run_has_its_differences(folder: RunFolder) -> None:
    table = folder.read("seed_differences")
    (grid,) = grids(seed_by_seed(facts_of(folder)))
    assert len(grid.rows) == len(table) == 3
    for cells, (_, row) in zip(grid.rows, table.iterrows(), strict=True):
        shows(cells[1], row["macro_f1"], scale=100, digits=1)
        shows(cells[2], row["accuracy"], scale=100, digits=1)
        assert [cells[3].text, cells[4].text] == [str(row["only_arm"]), str(row["only_control"])]
        shows(cells[5], row["p_mcnemar"])
    assert "description only" in grid.caption


def test_a_replaced_seed_stands_beside_the_collapsed_one(folder: RunFolder) -> None:
    table = folder.read("seed_differences")
    rescue = table[table["seed"] == 2].assign(attempt="rescue", macro_f1=0.05)
    folder.write("seed_differences", pd.concat([table, rescue]))
    trainings = folder.read("trainings")
    bad = (trainings["arm"] == "consensus") & (trainings["seed"] == 2)
    folder.write("trainings", trainings.assign(status=trainings["status"].mask(bad, "collapsed")))
    section = seed_by_seed(facts_of(folder))
    (grid,), (figure,) = grids(section), drawings(section)
    assert [row[0].small for row in grid.rows] == ["", "consensus collapsed", "", "replaced"]
    assert "collapsed seeds replaced: " in figure.label
    assert "+5.0" in figure.label.split("collapsed seeds replaced: ")[1]
    assert "A cross is a run" in figure.caption


def test_every_class_has_its_recalls_in_the_order_of_the_labels(folder: RunFolder) -> None:
    facts = facts_of(folder)
    table = folder.read("class_differences").set_index("label")
    (grid,), (figure,) = grids(classes(facts)), drawings(classes(facts))
    assert [row[0].text for row in grid.rows] == facts.label_names
    for name, arm, control, difference, p, holm in grid.rows:
        row = table.loc[name.text]
        shows(arm, row["arm_recall"], scale=100, digits=1)
        shows(control, row["control_recall"], scale=100, digits=1)
        shows(difference, row["difference"], scale=100, digits=1)
        assert ends_of(difference.small) == pytest.approx([100 * row["low"], 100 * row["high"]], abs=0.051)
        assert (holm.tone == "primary") == (row["p_holm"] < 0.05)
        assert p.text == "< 0.001" or abs(value_of(p.text) - row["p"]) < 0.00051
    assert "“delivery” −11.0" in words(classes(facts).blocks)
    assert all(name in figure.label for name in facts.label_names)


@pytest.mark.parametrize("k", [2, 21, 30])
def test_many_classes_are_drawn_up_to_a_limit(folder: RunFolder, k: int) -> None:
    one = folder.read("class_differences").iloc[[0]]
    names = [f"class {place:02d} with a long name" for place in range(k)]
    table = pd.concat([one.assign(label=name, n=100 - place) for place, name in enumerate(names)])
    folder.write("class_differences", table)
    section = classes(facts_of(folder))
    (grid,), (figure,) = grids(section), drawings(section)
    assert len(grid.rows) == k
    assert [name in figure.label for name in names] == [place < 25 for place in range(k)]
    assert "No class is shown" in words(section.blocks)


def test_rates_of_collapse_are_wilsons_and_reasons_are_named(folder: RunFolder) -> None:
    trainings = folder.read("trainings")
    bad = (trainings["arm"] == "consensus") & (trainings["seed"] == 2)
    changed = trainings.assign(
        status=trainings["status"].mask(bad, "collapsed"),
        reason=trainings["reason"].mask(bad, "predicts one class only"),
        stopped_at=trainings["steps"].where(bad),
    )
    rescue = changed[changed["seed"] == 2].assign(attempt="rescue", trained_seed=4, status="ok")
    folder.write("trainings", pd.concat([changed, rescue]))
    section = collapsed(facts_of(folder))
    rates, runs = grids(section)
    found = {row[0].text: row for row in rates.rows}
    assert list(found) == ["gold-aligned", "consensus"]
    low, high = binomtest(1, 3).proportion_ci(method="wilson")
    assert ends_of(found["consensus"][4].small) == pytest.approx([100 * low, 100 * high], abs=0.051)
    assert [cell.text for cell in found["consensus"][1:4]] == ["3", "1", "0"]
    assert found["consensus"][5].text == "1"  # stopped early
    (only,) = runs.rows
    assert [cell.text for cell in only] == ["consensus", "collapsed", "predicts one class only", "50", "4"]
    assert "in the place of seed 2" in words(section.blocks)
    assert "the other 3 arms had none" in rates.caption


def test_no_collapse_is_one_sentence_with_its_bound(folder: RunFolder) -> None:
    (note,) = collapsed(facts_of(folder)).blocks
    high = binomtest(0, 3).proportion_ci(method="wilson").high
    assert note.text.startswith("None of 15 runs collapsed")
    assert f"up to {100 * high:.1f}" in note.text


def test_calibration_before_and_after_scaling(folder: RunFolder) -> None:
    table = folder.read("calibration").set_index(["arm", "scope", "scaled"])
    overall, strata = grids(calibration(facts_of(folder)))
    assert len(overall.rows) == 4
    for row in overall.rows:
        scaled = row[0].small == "scaled"
        truth = table.loc[(row[0].text, "all", scaled)]
        shows(row[1], truth["ece"])
        assert ends_of(row[1].small) == pytest.approx([truth["ece_low"], truth["ece_high"]], abs=0.00051)
        shows(row[2], truth["brier"])
        shows(row[5], truth["confidence"], scale=100, digits=1)
        assert row[6].text == ("1.70" if scaled else "–")
    assert {row[0].small.split("; ")[0] for row in strata.rows} == {"high", "low"}
    (figure,) = drawings(calibration(facts_of(folder)))
    assert "consensus after temperature scaling: 25" in figure.label


def test_the_learning_curve_and_what_labels_are_worth(folder: RunFolder) -> None:
    table = folder.read("learning_curve")
    section = label_value(facts_of(folder))
    worth, curve = grids(section)
    for cells, (_, row) in zip(curve.rows, table.iterrows(), strict=True):
        shows(cells[0], row["n"], digits=0)
        shows(cells[1], row["mean"])
        assert ends_of(cells[1].small) == pytest.approx([row["low"], row["high"]], abs=0.00051)
        shows(cells[2], row["fitted"])
    first = worth.rows[0]
    assert (first[0].text, first[1].text, first[1].small) == ("Human labels worth", "3,800", "2,600 or more")
    assert first[2].text.startswith("Consensus is worth 3,800")
    (figure,) = drawings(section)
    assert "n* 3,800" in figure.label
    assert "gold@500" in str(curve.rows[1][0].small)


def test_a_worth_beyond_the_curve_is_no_number(folder: RunFolder, figures: list[Drawn]) -> None:
    value = folder.read("value")
    worth = value["quantity"] == "human_labels_worth"
    changed = value.assign(beyond=worth, value=value["value"].mask(worth, 4000.0))
    folder.write("value", changed)
    section = label_value(facts_of(folder))
    assert grids(section)[0].rows[0][1].text == "> 4,000"
    assert "more than 4,000" in drawings(section)[0].label
    assert any("n* > 4,000" in text.get_text() for figure in figures for ax in figure.axes for text in ax.texts)


def test_without_gold_at_n_the_section_says_what_to_add(folder: RunFolder) -> None:
    for name in ("learning_curve", "value"):
        (folder.path / "tables" / f"{name}.parquet").unlink()
    (note,) = label_value(facts_of(folder)).blocks
    assert "needs gold@curve: no arms gold@n were trained" in note.text
    assert "“gold@curve”" in note.text


def test_corrections_are_shown_where_such_arms_were_trained(folder: RunFolder) -> None:
    (note,) = corrections(facts_of(folder)).blocks
    assert "“consensus+200”" in note.text
    scores = folder.read("scores")
    base = scores[scores["arm"] == "consensus"]
    more = [
        base.assign(arm=arm, value=base["value"] + d)
        for arm, d in (("consensus+20", 0.02), ("consensus+20:random", 0.01))
    ]
    folder.write("scores", pd.concat([scores, *more]))
    comparison = folder.read("comparison")
    row = comparison[comparison["contrast"] == PRIMARY].assign(
        arm="consensus+20",
        control="consensus+20:random",
        contrast="consensus+20 − consensus+20:random",
        is_primary=False,
    )
    folder.write("comparison", pd.concat([comparison, row]))
    section = corrections(facts_of(folder))
    (figure,), (grid,) = drawings(section), grids(section)
    mean = base.loc[base["metric"] == "macro_f1", "value"].mean()
    assert (
        f"problematic first: 0 {mean:.3f}, 20 {mean + 0.02:.3f}; random: 0 {mean:.3f}, 20 {mean + 0.01:.3f}"
        in figure.label
    )
    assert [cells[0].text for cells in grid.rows] == ["consensus+20 − consensus+20:random"]


def test_cost_and_quality(folder: RunFolder) -> None:
    table = folder.read("frontier").set_index("arm")
    section = frontier(facts_of(folder))
    (grid,), (figure,) = grids(section), drawings(section)
    assert [row[0].text for row in grid.rows] == ["1 single:qwen3-8b", "2 single:phi-4", "3 panel:3", "4 consensus"]
    for row in grid.rows:
        truth = table.loc[row[0].text.split(" ", 1)[1]]
        shows(row[2], truth["cost"], scale=1000, digits=2)
        shows(row[3], truth["mean"])
        shows(row[4], truth["difference"], scale=100, digits=1)
        assert (row[0].small == "on the frontier") == truth["is_on_frontier"]
    assert "2 single:phi-4: USD 0.3000" in figure.label


def priced(k: int) -> list[Priced]:
    rng = np.random.default_rng(k)
    found = [(float(c), float(d)) for c, d in zip(rng.uniform(0, 2, k), rng.normal(0, 0.03, k), strict=True)]
    return [
        Priced(place + 1, f"{LONG}-{place}", cost, d, d - 0.02, d + 0.02, place % 3 == 0)
        for place, (cost, d) in enumerate(sorted(found))
    ]


def overlaps(figure: Drawn) -> list[tuple[str, str]]:
    """Pairs of texts inside the axes that lie on one another."""
    ax = figure.axes[0]
    shown = [text for text in ax.texts if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    return [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]


@pytest.mark.parametrize("k", [2, 8, 13, 40])
def test_names_in_the_chart_of_costs_never_overlap(figures: list[Drawn], k: int) -> None:
    frontier_plot("frontier", priced(k), 0.02)
    for figure in figures:
        assert overlaps(figure) == []
    assert any(text.get_text() for text in figures[0].axes[0].texts)


@pytest.mark.parametrize("groups", [{}, {0: "One", 2: "Another"}])
def test_long_names_stay_in_the_gutter_of_the_forest(figures: list[Drawn], groups: dict[int, str]) -> None:
    row = {"difference": 0.01, "low": -0.01, "high": 0.03, "low90": 0.0, "high90": 0.02, "verdict": "INCONCLUSIVE"}
    rows = [Contrast(f"{LONG} − consensus-selected-random", "an effect", primary=not k, **row) for k in range(3)]
    forest("forest", rows, 0.02, groups)
    wide, narrow = figures
    left = wide.axes[0].get_window_extent().x0
    names = [text for text in wide.axes[0].texts if LONG[:12] in text.get_text()]
    assert len(names) == 3
    assert all(text.get_window_extent().x1 <= left + 2 for text in names)
    assert all(text.get_window_extent().x1 <= NARROW + 2 for text in narrow.axes[0].texts)
    assert overlaps(wide) == []


@pytest.mark.parametrize("k", [1, 12, 100])
def test_specification_curves_of_any_length(figures: list[Drawn], k: int) -> None:
    rows = [
        Specification(
            d, d - 0.02, d + 0.02, "INCONCLUSIVE", place == 0, {"aggregator": LONG if place % 2 else "majority"}
        )
        for place, d in enumerate(np.linspace(-0.05, 0.03, k))
    ]
    specification_curve(rows, 0.02, {"aggregator": [LONG, "majority"]} if k > 1 else {})
    for figure in figures:
        curve, legend, *matrix = figure.axes
        assert len(matrix) == (1 if k > 1 else 0)
        assert curve.get_xlim()[1] == pytest.approx(k - 0.3)
        assert all(text.get_window_extent().x1 <= curve.get_window_extent().x0 for ax in matrix for text in ax.texts)
        assert legend.texts[0].get_text() == "Inconclusive"


def test_the_multiverse_table_has_every_specification(folder: RunFolder) -> None:
    table = folder.read("multiverse")
    section = multiverse(facts_of(folder))
    (grid,), (figure,) = grids(section), drawings(section)
    assert [value_of(row[6].text) for row in grid.rows] == sorted(value_of(row[6].text) for row in grid.rows)
    for row in grid.rows:
        truth = table[table["specification"] == int(row[0].text)].iloc[0]
        shows(row[6], truth["difference"], scale=100, digits=1)
        assert ends_of(row[6].small) == pytest.approx([100 * truth["low"], 100 * truth["high"]], abs=0.051)
        assert row[5].text.startswith(truth["verdict"])
        assert (row[0].small == "declared") == bool(truth["is_main"])
    declared = table.loc[table["is_main"], "verdict"].iloc[0]
    same = int((table["verdict"] == declared).sum())
    assert f"{same} of {len(table)} specifications give the declared verdict, {declared}" in words(section.blocks)
    assert f"{same} of {len(table)}" in figure.label
    folder.note("multiverse", "The verdict holds in all of them.")
    assert "The verdict holds in all of them." in words(multiverse(facts_of(folder)).blocks)


def test_more_specifications_than_can_be_drawn_are_thinned_with_the_declared_one(folder: RunFolder) -> None:
    table = made_multiverse(np.random.default_rng(1), ["a", "b"], more=9).assign(is_main=False)
    table.loc[table["difference"].rank() == 2, "is_main"] = True
    folder.write("multiverse", table)
    section = multiverse(facts_of(folder))
    (figure,) = drawings(section)
    assert re.search(r"Of 120 specifications (99|100) are drawn", figure.caption)
    counted, everything = grids(section)
    assert len(everything.rows) == 120
    assert not everything.in_markdown
    assert counted.in_markdown
    assert {row[0].text: int(row[1].text) for row in counted.rows} == table["verdict"].value_counts().to_dict()


@pytest.mark.parametrize("verdict", ["INVALID", "UNSTABLE RECIPE", "NO VERDICT"])
def test_without_a_verdict_the_multiverse_says_why_there_is_none_to_change(folder: RunFolder, verdict: str) -> None:
    folder.note("multiverse", "The verdict holds in all of them.")
    changed(folder, verdict=verdict, reason="what is wrong")
    section = multiverse(facts_of(folder))
    said = words(section.blocks)
    assert f"The verdict of this run is {verdict} (what is wrong), so there is none that other choices" in said
    assert "holds in all" not in said
    assert "give the declared verdict" not in said
    assert not drawings(section)
    assert len(grids(section)[0].rows) == 12


def test_a_specification_that_was_not_run_has_no_numbers(folder: RunFolder) -> None:
    table = folder.read("multiverse")
    numbers = ["difference", "low", "high", "low90", "high90", "S", "n", "train_texts"]
    row = table.index[~table["is_main"]][0]
    table[numbers] = table[numbers].astype(float)
    table.loc[row, numbers] = np.nan
    table.loc[row, "verdict"] = "NOT RUN"
    folder.write("multiverse", table)
    section = multiverse(facts_of(folder))
    shown = grids(section)[0].rows[-1]
    assert [cell.text for cell in shown[5:]] == ["NOT RUN", "–", "–", "–"]
    assert [cell.small for cell in shown[5:]] == [""] * 4
    said = words(section.blocks)
    assert "not run 1" in said
    assert "NO VERDICT" not in said
    write_report(folder)
    assert "| NOT RUN | – | – | – |" in (folder.path / "report.md").read_text(encoding="utf-8")


# contrasts


def test_contrasts_stand_by_question(folder: RunFolder) -> None:
    (grid, *_) = grids(contrasts(facts_of(folder)))
    assert grid.groups == {
        0: "Consensus labels instead of human ones?",
        1: "What does leaving texts out do?",
        3: "Checks",
    }
    write_report(folder)
    text = (folder.path / "report.md").read_text(encoding="utf-8")
    assert "| **What does leaving texts out do?** |" in text


@pytest.mark.parametrize(
    ("arm", "control", "question"),
    [
        ("consensus", "gold-aligned", "Consensus labels instead of human ones?"),
        ("consensus-kept", "gold-kept", "Consensus labels instead of human ones?"),
        ("gold-aligned", "gold", "What does leaving texts out do?"),
        ("consensus-selected", "consensus-selected-random", "What does leaving texts out do?"),
        ("gold-noised", "consensus", "Are patterned errors worse than random ones?"),
        ("consensus-soft", "consensus", "How should votes become targets?"),
        ("perspectivist", "consensus-repeated", "How should votes become targets?"),
        ("single:a", "consensus", "Is the panel worth its price?"),
        ("consensus+200", "consensus+200:random", "What do corrections by humans add?"),
        ("consensus", "gold@500", "How do fewer human labels compare?"),
        ("gold", "floor", "Checks"),
        ("mine", "yours", "Other contrasts"),
    ],
)
def test_arms_tell_the_question(arm: str, control: str, question: str) -> None:
    assert question_of(arm, control) == question
    assert question in ORDER


def changed(folder: RunFolder, **columns: Any) -> Facts:
    folder.write("comparison", folder.read("comparison").assign(**columns))
    return facts_of(folder)


def test_the_cross_check_stands_beside_the_interval(folder: RunFolder) -> None:
    (grid, *_) = grids(contrasts(changed(folder, boot_low=-0.0512, boot_high=0.0034, detectable=0.0187)))
    assert [column.name for column in grid.columns][4].endswith("cross-check")
    assert all(ends_of(row[4].small) == [-5.1, 0.3] for row in grid.rows)
    assert all(row[6].small == "sees 1.9" for row in grid.rows)
    (grid, *_) = grids(contrasts(changed(folder, boot_low=np.nan, boot_high=np.nan)))
    assert [column.name for column in grid.columns][4].startswith("90")
    assert "cross-check" not in grid.columns[4].name


def test_folds_are_called_folds_and_shared_alpha_changes_the_levels(folder: RunFolder) -> None:
    section = contrasts(changed(folder, replication="fold", k=5, alpha=0.025))
    (grid, *_) = grids(section)
    assert "5 folds" in grid.caption
    assert "its 97.5\u202f% interval" in grid.caption
    assert grid.columns[4].name == "95\u202f%"
    assert grid.columns[6].name == "folds better"
    assert "Nadeau and Bengio" in words(section.blocks)
    assert "97.5\u202f% (thin) and 95\u202f% (thick)" in drawings(section)[0].caption


def test_arms_with_numbers_sort_by_size() -> None:
    arms = ["gold@1000", "gold@500", "floor", "consensus", "gold", "permuted", "panel:10", "panel:2"]
    assert in_arm_order(arms) == [
        "gold",
        "consensus",
        "permuted",
        "gold@500",
        "gold@1000",
        "panel:2",
        "panel:10",
        "floor",
    ]


# the answer


def lines(folder: RunFolder) -> dict[str, tuple[str, str]]:
    return {name: (word, said) for name, word, said in make_answer(facts_of(folder)).others}


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("BETTER", "helps"),
        ("WORSE", "not shown to help, it harms"),
        ("INCONCLUSIVE", "not shown to help"),
        ("EQUIVALENT", "not shown to help"),
    ],
)
def test_filtering_is_judged_in_words(folder: RunFolder, verdict: str, said: str) -> None:
    comparison = folder.read("comparison")
    rows = comparison["effect"] == "filtering effect"
    folder.write("comparison", comparison.assign(verdict=comparison["verdict"].mask(rows, verdict)))
    word, sentence = lines(folder)["Filtering"]
    assert word == said
    difference = comparison.loc[rows & (comparison["metric"] == "macro_f1"), "difference"].iloc[0]
    assert value_of(sentence.split(": ")[1]) == pytest.approx(100 * difference, abs=0.051)


def test_nothing_is_said_of_filtering_without_its_contrast_or_its_verdict(folder: RunFolder) -> None:
    comparison = folder.read("comparison")
    rows = comparison["effect"] == "filtering effect"
    folder.write("comparison", comparison.assign(verdict=comparison["verdict"].mask(rows, "INVALID")))
    assert "Filtering" not in lines(folder)
    folder.write("comparison", comparison[~rows])
    assert "Filtering" not in lines(folder)


def test_a_declared_variant_is_no_second_student(folder: RunFolder) -> None:
    comparison = folder.read("comparison")
    variant = comparison.assign(student="frozen (gold dev)", verdict="EQUIVALENT")
    folder.write("comparison", pd.concat([comparison, variant, comparison.assign(student="linear (tf-idf)")]))
    found = lines(folder)
    assert found["Declared variants"] == ("", "gold dev (frozen) EQUIVALENT −2.1\u202fpp [−4.3, +0.1].")
    assert "Student “linear (tf-idf)”" in found  # there is no student “linear” that it could be a variant of
    assert facts_of(folder).main_students == ["frozen", "linear (tf-idf)"]
    assert "Declared variant “gold dev” of student “frozen”" in words(contrasts(facts_of(folder)).blocks)


def test_what_was_fixed_beforehand_is_said_by_the_guard_or_the_freeze(folder: RunFolder) -> None:
    assert "Fixed beforehand" not in lines(folder)
    frozen = {"at": "2026-11-20", "hash": "abcdef0123456789", "after_scoring": False}
    folder.note("frozen", frozen)
    assert (
        lines(folder)["Fixed beforehand"][1]
        == "As frozen on 2026-11-20, hash abcdef012345, before any test score was seen."
    )
    folder.note("frozen", {**frozen, "after_scoring": True})
    assert "this is no pre-registration" in lines(folder)["Fixed beforehand"][1]
    guards = folder.read("guards")
    fixed = guards.iloc[[0]].assign(
        guard="fixed before scoring", outcome="warned", reason="changed after seeing test scores"
    )
    folder.write("guards", pd.concat([guards, fixed]))
    assert lines(folder)["Fixed beforehand"][1] == "Changed after seeing test scores."


def test_the_answer_says_what_the_run_can_see_what_labels_are_worth_and_the_multiverse(folder: RunFolder) -> None:
    folder.note("multiverse", "the verdict holds in 10 of 12 specifications.")
    changed(folder, detectable=0.0187)
    found = lines(folder)
    assert "3 seeds and 20 test texts" in found["What this run can see"][1]
    assert "of 1.9\u202fpp would show" in found["What this run can see"][1]
    assert found["Worth in human labels"][1].startswith("Consensus is worth 3,800 human labels")
    assert found["Other choices"][1] == "The verdict holds in 10 of 12 specifications."
    write_report(folder)
    top = (folder.path / "report.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert "- Other choices: The verdict holds in 10 of 12 specifications." in top
    assert "- Filtering: **not shown to help** – consensus-kept against" in top


def test_one_point_is_no_learning_curve(folder: RunFolder) -> None:
    curve = folder.read("learning_curve")
    folder.write("learning_curve", curve[curve["n"] == curve["n"].max()])
    section = label_value(facts_of(folder))
    assert "needs gold@curve" in words(section.blocks)
    assert [row[0].text for row in grids(section)[0].rows] == ["Audit accuracy", "LLM cost"]
    assert not drawings(section)
    assert "Worth in human labels" not in lines(folder)


LOOKS = {"rule": "looks", "pilot": 5, "most": 30, "looks": 3}


def until(folder: RunFolder, rule: dict[str, Any], *decisions: tuple[int, str, str, int]) -> None:
    """Note the decisions of a rule; as many seeds were trained as at the last one."""
    settings = folder.record()["settings"]
    folder.note("settings", {**settings, "compare": {**settings["compare"], "until": rule}})
    names = ("seeds", "action", "reason", "next")
    folder.note("until_verdict", [{**dict(zip(names, one)), "low": None, "high": None} for one in decisions])
    trainings = folder.read("trainings")
    one = trainings[trainings["seed"] == trainings["seed"].min()]
    seeds = range(1, decisions[-1][0] + 1)
    folder.write("trainings", pd.concat([one.assign(seed=seed, trained_seed=seed) for seed in seeds]))


def test_a_rule_that_looked_at_the_difference_is_told(folder: RunFolder) -> None:
    assert "Seeds" not in lines(folder)
    changed(folder, alpha=0.05 / 3)
    until(folder, LOOKS, (5, "train", "INCONCLUSIVE at look 1", 18), (18, "stop", "BETTER at look 2 of 3", 18))
    assert lines(folder)["Seeds"][1] == (
        "By the declared rule “looks”, 2 of at most 3 looks at the difference (at 5, 18 seeds), each at α = 0.0167; "
        "stopped: BETTER at look 2 of 3."
    )
    said = paper_texts(facts_of(folder)).methods
    assert "at most 3 looks at the difference, with 30 seeds at most, each look at α = 0.0167 (Bonferroni)" in said
    assert "at α = 0.0167 each with the same standard error" in said


def test_a_rule_that_looked_at_variances_alone_is_told(folder: RunFolder) -> None:
    rule = {**LOOKS, "rule": "reestimate"}
    until(folder, rule, (5, "train", "the variances ask for 24", 24), (24, "stop", "24 seeds are there", 24))
    said = lines(folder)["Seeds"][1]
    assert said.startswith("After a pilot of 5 seeds, 24 in all, worked out once from the variances alone,")
    assert said.endswith(": 24 seeds are there.")
    texts = paper_texts(facts_of(folder))
    assert "after a pilot of 5, from the variances alone" in texts.methods
    assert "24 in all were decided on" in texts.methods
    assert "{wittes1990," in texts.citation
    until(folder, rule, (5, "stop", "needs items, not seeds", 5))
    assert lines(folder)["Seeds"][1].startswith("A pilot of 5 seeds and no more")
    assert "no seeds were added (needs items, not seeds)" in paper_texts(facts_of(folder)).methods
    trainings = folder.read("trainings")
    folder.write("trainings", trainings[trainings["seed"] < 5])  # a later run: nothing of the rule holds
    assert "Seeds" not in lines(folder)


OWN = {"predictions", "guards", "comparison", "class_differences", "seed_differences"}


@pytest.fixture
def own(tmp_path: Path) -> RunFolder:
    """What `consenso compare` writes of predictions that somebody brought."""
    folder = make_run(tmp_path / "own", n=40, n_test=20, without=set(TABLES) - OWN)
    record = {
        "name": "mine.csv",
        "kind": "predictions",
        "settings": {"compare": {"metric": "macro_f1", "margin": 0.02}},
    }
    (folder.path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_predictions_of_ones_own_have_no_sections_about_labels_annotators_and_costs(own: RunFolder) -> None:
    sections = make_sections(facts_of(own))
    ids = [section.id for section in sections]
    assert {"contrasts", "seeds", "classes", "guards", "run"} <= set(ids)
    assert not {"labels", "agreement", "annotators", "worth", "cost", "value", "frontier", "corrections"} & set(ids)
    assert "Not there yet" not in words([block for section in sections for block in section.blocks])
    assert sections[0].group
    assert all(bool(section.group) == bool(section.group.strip()) for section in sections)


@pytest.mark.parametrize("verdict", ["INVALID", "NO VERDICT", "BETTER", "WORSE", "EQUIVALENT", "INCONCLUSIVE"])
def test_advice_on_predictions_of_ones_own_knows_no_trainings(own: RunFolder, verdict: str) -> None:
    changed(own, verdict=verdict)
    answer = make_answer(facts_of(own))
    assert answer.word.startswith(verdict)
    said = f"{answer.meaning} {answer.advice}"
    assert not re.search(r"training|consenso run|\[finetune\]|confusion matri|problematic", said), said
    for reason in NO_VERDICT:
        changed(own, verdict="NO VERDICT", reason=reason)
        if reason != "filtered out":  # predictions do not tell what was filtered
            assert "[finetune]" not in make_answer(facts_of(own)).advice


def test_an_invalid_answer_has_no_tiles_and_no_chart(folder: RunFolder, own: RunFolder) -> None:
    for place in (folder, own):
        assert make_answer(facts_of(place)).chart is not None
        changed(place, verdict="INVALID")
        answer = make_answer(facts_of(place))
        assert answer.chart is None
        assert not [name for name, *_ in answer.figures if name.startswith("Classifier")]
    assert not answer.figures


@pytest.mark.parametrize("verdict", ["INVALID", "UNSTABLE RECIPE", "NO VERDICT"])
def test_what_rests_on_unusable_numbers_is_not_said(folder: RunFolder, verdict: str) -> None:
    folder.note("multiverse", "The verdict holds.")
    changed(folder, detectable=0.0187, verdict=verdict)
    assert not {"Worth in human labels", "What this run can see", "Other choices", "Filtering"} & set(lines(folder))


def test_markdown_has_the_new_sections(folder: RunFolder) -> None:
    write_report(folder)
    text = (folder.path / "report.md").read_text(encoding="utf-8")
    parts = {part.split("\n", 1)[0]: part for part in text.split("\n## ")}
    for title in ("Seed by seed", "Classes", "Calibration", "What the labels are worth", "Cost and quality"):
        assert parts[title].count("\n| ") >= 4, title
    assert "specifications give the declared verdict" in parts["Multiverse: would other choices change the verdict?"]
    assert "None of 15 runs" in parts["Collapsed and failed runs"]


# several data sets


@pytest.fixture(scope="module")
def three(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    place = tmp_path_factory.mktemp("three")
    found = []
    for k, name in enumerate(("babe", "sst5", "policy & law")):
        folder = RunFolder(shutil.copytree(run.path, place / f"run {k}"))
        comparison = folder.read("comparison")
        folder.write("comparison", comparison.assign(dataset=name, difference=comparison["difference"] + 0.01 * k))
        folder.note("name", name)
        (folder.path / "report.html").write_text("<p>", encoding="utf-8")
        found.append(folder)
    return found


def combined_of(folders: list[RunFolder]) -> pd.DataFrame:
    tables = [folder.read("comparison") for folder in folders]
    rows = pd.concat([table[table["is_primary"]] for table in tables]).assign(kind="dataset")
    mean = rows.iloc[[0]].assign(dataset="mean", kind="mean", difference=-0.011, low=-0.06, high=0.04, sentence=None)
    return pd.concat([rows, mean.assign(prediction_low=-0.12, prediction_high=0.1)], ignore_index=True)


def test_several_data_sets_on_one_page(three: list[RunFolder], tmp_path: Path) -> None:
    frame = combined_of(three)
    path = write_combined_report(three, tmp_path / "out", frame)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    links = [
        attrs["href"] or "" for tag, attrs in page.tags if tag == "a" and not (attrs["href"] or "").startswith("#")
    ]
    assert len(links) == 3
    assert all((path.parent / link).resolve().exists() for link in links)
    assert all("https:" not in link and not link.startswith("/") for link in links)
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    for _, row in frame[frame["kind"] == "dataset"].iterrows():
        shown = f"{100 * row['difference']:+.1f}".replace("-", "−")
        assert re.search(rf"\| {row['dataset'].replace('&', '&amp;')} \| INCONCLUSIVE .*\| {re.escape(shown)} ", text)
    assert "differs by −1.1\u202fpp (95\u202f% interval [−6.0, +4.0])" in page.words
    assert "within [−12.0, +10.0] pp" in page.words
    charts = [attrs["aria-label"] or "" for _, attrs in page.tags if attrs.get("role") == "img"]
    assert "policy & law: −0.1" in charts[-1]


def test_what_compare_combines_is_what_the_page_takes(three: list[RunFolder], tmp_path: Path) -> None:
    tables = {folder.record()["name"]: folder.read("comparison") for folder in three}
    frame = combine_datasets(tables)
    path = write_combined_report(three, tmp_path, frame)
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    mean = frame[frame["tau"].notna()].iloc[0]
    assert f"**{mean['verdict']}** – Over 3 data sets" in text
    shown = f"{100 * mean['difference']:+.1f}".replace("-", "−")
    assert re.search(rf"\| Mean \| {mean['verdict']} \| {re.escape(shown)} .*\(3 data sets\)", text)
    assert "In a further data set of this kind" in text


def test_two_data_sets_have_no_mean_and_the_folders_own_answers_do(three: list[RunFolder], tmp_path: Path) -> None:
    path = write_combined_report(three[:2], tmp_path / "both.html")
    words = Page(path.read_text(encoding="utf-8")).words
    assert "2 DATA SETS" in words
    assert "A mean needs at least 3 data sets." in words
    assert "consensus − gold-aligned on 2 data sets: INCONCLUSIVE 2." in words
    assert "No mean over the 2 data sets" in words


def test_runs_of_one_name_are_told_apart_by_their_paths(three: list[RunFolder], tmp_path: Path) -> None:
    folders = [RunFolder(shutil.copytree(folder.path, tmp_path / folder.path.name)) for folder in three[:2]]
    for folder in folders:
        folder.note("name", "same")
    path = write_combined_report(folders, tmp_path / "both.html")
    page = Page(path.read_text(encoding="utf-8"))
    links = [
        attrs["href"] or "" for tag, attrs in page.tags if tag == "a" and not (attrs["href"] or "").startswith("#")
    ]
    assert [(tmp_path / unquote(link)).resolve().parent for link in links] == [f.path.resolve() for f in folders]
    assert [str(folder.path) for folder in folders if str(folder.path) not in page.words] == []


def test_the_head_says_which_data_sets_it_is_not_about(three: list[RunFolder], tmp_path: Path) -> None:
    said = "This answer is about consensus − gold-aligned alone; not among its data sets: sst5 (consensus − gold)."
    frame = combined_of(three[:2])
    frame = frame[frame["kind"] == "dataset"]
    path = write_combined_report(three[:2], tmp_path / "alike.html", frame)
    assert "This answer is about" not in Page(path.read_text(encoding="utf-8")).words
    frame.loc[frame["dataset"] == "sst5", "contrast"] = "consensus − gold"
    path = write_combined_report(three[:2], tmp_path / "unlike.html", frame)
    assert said in Page(path.read_text(encoding="utf-8")).words


def test_a_combined_report_needs_folders_and_columns(three: list[RunFolder], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs run folders"):
        write_combined_report([], tmp_path)
    with pytest.raises(DataError, match=r"combined: missing column\(s\) \['low90'\]"):
        write_combined_report(three, tmp_path, combined_of(three).drop(columns="low90"))
    with pytest.raises(DataError, match="no such run folder"):
        write_combined_report([tmp_path / "nowhere"], tmp_path)


def test_class_names_of_forty_letters_leave_room(figures: list[Drawn]) -> None:
    rows = [
        ClassRow("a class name of some forty letters, say " + str(k), -0.02, -0.05, 0.01, bool(k)) for k in range(3)
    ]
    class_differences("classes", rows)
    for figure in figures:
        assert overlaps(figure) == []
