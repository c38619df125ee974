"""The report's sections about how labels were made, what annotators are worth, and where gold is contradicted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from consenso.consensus import landis_koch as word_of_consensus
from consenso.consensus.methods import METHODS
from consenso.report import ReportSettings, write_report
from consenso.report.agreement_section import agreement
from consenso.report.answer import make_answer
from consenso.report.blocks import Cases, Grid, Note, Section
from consenso.report.blocks import Figure as Drawn
from consenso.report.contradiction_section import contradictions
from consenso.report.drawing import NARROW, WIDE, Canvas
from consenso.report.facts import SINCE, Facts
from consenso.report.label_sections import consensus_levels, label_distribution, problematic_cases
from consenso.report.method_section import METHODS as IN_WORDS
from consenso.report.method_section import labels_made
from consenso.report.numbers import landis_koch, outvoted, votes_per_text
from consenso.report.sections import make_sections
from consenso.report.worth_section import worth
from consenso.store import RunFolder
from report_folder import ANNOTATORS, make_run


@pytest.fixture(autouse=True)
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are painted, but not turned into SVG."""

    def paint_only(name: str, paint: Any, height: Callable[[bool], float]) -> tuple[str, str]:
        for width in (WIDE, NARROW):
            high = height(width == NARROW)
            paint(Canvas(Figure((width / 72, high / 72)), width, int(high)))
        return "<svg></svg>", "<svg></svg>"

    for module in ("plots", "panel_plot"):
        monkeypatch.setattr(f"consenso.report.{module}.draw", paint_only)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    poor = dict.fromkeys(ANNOTATORS, 0.45)  # so that the consensus contradicts gold
    return make_run(tmp_path_factory.mktemp("run"), n=60, n_test=20, seeds=2, annotators=poor)


@pytest.fixture
def copy(folder: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(folder.path, tmp_path / "copy"))


def facts_of(folder: RunFolder) -> Facts:
    return Facts(folder, ReportSettings())


def said(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Note))


def grids(section: Section) -> list[Grid]:
    return [block for block in section.blocks if isinstance(block, Grid)]


def rows(grid: Grid) -> dict[str, list[tuple[str, str]]]:
    return {row[0].text: [(cell.text, cell.small) for cell in row[1:]] for row in grid.rows}


def modelled(folder: RunFolder, method: str = "dawid_skene_map", **noted: Any) -> Facts:
    """The same labels, as if a model had estimated posteriors."""
    labels = folder.read("labels")
    folder.write("labels", labels.assign(method=method, posterior=np.where(labels["label"].notna(), 0.97, np.nan)))
    folder.note(
        "consensus", {"method": method, "converged": True, "iterations": 12, "note": "", "uses_gold": 0} | noted
    )
    return facts_of(folder)


def measures(**values: float) -> pd.DataFrame:
    frame = pd.DataFrame({"measure": list(values), "value": list(values.values())})
    return frame.assign(scope="all", low=frame["value"] - 0.1, high=frame["value"] + 0.1, n=80)


def pairs(people: int) -> pd.DataFrame:
    names = [f"w{k:03d}" for k in range(people)]
    scopes = [f"{a} × {b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    return pd.DataFrame({"measure": "cohen", "scope": scopes, "value": 0.5, "low": 0.4, "high": 0.6, "n": 9})


# agreement


def test_alpha_comes_first_and_what_is_not_corrected_for_chance_stands_apart(copy: RunFolder) -> None:
    copy.write(
        "agreement", measures(ac1=0.7, raw=0.8, brennan_prediger=0.71, alpha_ordinal=0.6, fleiss=0.5, alpha=0.55)
    )
    corrected, plain = grids(agreement(facts_of(copy)))
    names = [row[0].text for row in corrected.rows]
    assert names[0] == "Krippendorff’s alpha"
    assert names == [
        "Krippendorff’s alpha", "Krippendorff’s alpha, by rank", "Fleiss’ kappa", "Gwet’s AC1", "Brennan–Prediger",
    ]  # fmt: skip
    assert list(rows(plain)) == ["raw agreement"]
    assert rows(corrected)["Krippendorff’s alpha"][0] == ("0.550", "moderate")
    assert rows(plain)["raw agreement"][0] == ("0.800", "")


def test_effective_votes_are_a_sentence(copy: RunFolder) -> None:
    copy.write("agreement", measures(alpha=0.55, effective_votes=1.6))
    each = votes_per_text(copy.read("votes"))
    assert f"{each:.1f} votes per text are worth 1.6 independent ones" in said(agreement(facts_of(copy)))


@pytest.mark.parametrize(("people", "tables", "folded"), [(30, 1, False), (31, 1, True), (60, 1, True), (61, 0, False)])
def test_the_pairs_of_many_annotators_are_folded_or_left_out(
    copy: RunFolder, people: int, tables: int, folded: bool
) -> None:
    copy.write("agreement", pd.concat([measures(alpha=0.5), pairs(people)]))
    section = agreement(facts_of(copy))
    heats = [grid for grid in grids(section) if grid.heat]
    assert len(heats) == tables
    assert all(bool(heat.folded) == folded for heat in heats)
    assert ("would be too large" in said(section)) == (not tables)
    if not tables:
        assert "1,830 pairs: median 0.50" in said(section)


@pytest.mark.parametrize("value", [-0.2, -1e-9, 0.0, 0.1, 0.2, 0.21, 0.4, 0.6, 0.61, 0.8, 0.81, 1.0])
def test_the_word_for_a_kappa_is_that_of_the_consensus_stage(value: float) -> None:
    assert landis_koch(value) == word_of_consensus(value)
    assert not landis_koch(float("nan"))


def test_a_crowd_does_not_widen_the_table_of_labels(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=30, n_test=10, seeds=1, annotators={f"w{k:02d}": 0.7 for k in range(61)}, asked=False)
    (grid,) = grids(label_distribution(facts_of(folder)))
    assert [column.name for column in grid.columns] == ["label", "gold", "consensus"]
    assert "without the 61 annotators" in grid.caption


# how the labels were made


def test_every_method_is_described() -> None:
    assert set(IN_WORDS) == set(METHODS)


def test_a_method_that_did_not_converge_is_a_warning(copy: RunFolder) -> None:
    section = labels_made(modelled(copy, converged=False, note="not converged after 3 iterations"))
    warned = [block.text for block in section.blocks if isinstance(block, Note) and block.tone == "warned"]
    assert warned == ["Not converged after 3 iterations."]
    assert "It converged" not in said(section)


def test_posteriors_are_called_too_sure_and_held_against_gold(copy: RunFolder) -> None:
    text = said(labels_made(modelled(copy)))
    assert "It converged after 12 iterations." in text
    assert "its posteriors are too sure" in text
    assert "the mean posterior of a label is 97.0\u202f%" in text


def test_majority_says_nothing_of_posteriors(folder: RunFolder) -> None:
    text = said(labels_made(facts_of(folder)))
    assert "Method majority: each annotator counts once" in text
    assert "posterior" not in text


def test_a_label_that_is_outvoted_is_counted() -> None:
    votes = pd.DataFrame(
        [("1", "a", 0, "x"), ("1", "b", 0, "y"), ("1", "b", 1, "y"), ("2", "a", 0, "x"), ("2", "b", 0, "x"),
         ("2", "c", 0, "y"), ("3", "a", 0, None)],
        columns=["text_id", "annotator", "repetition", "label"],
    )  # fmt: skip
    labels = pd.DataFrame({"text_id": ["1", "2", "3"], "label": ["x", "y", None]})
    assert outvoted(votes, labels) == 1  # repetitions share a vote: text 1 is a tie
    assert outvoted(votes, labels, pooled=True) == 2


def test_gold_of_the_consensus_is_owned_up_to_at_the_top(copy: RunFolder) -> None:
    used = copy.read("gold_used")
    ids = [*used["text_id"].head(2), "t00041", "t00042"]
    copy.write("consensus_gold", pd.DataFrame({"text_id": ids, "purpose": "consensus"}))
    (limit,) = make_answer(facts_of(copy)).limits
    assert (
        f"Uses gold: {len(used) + 2} human labels of training texts went into the votes themselves and the consensus"
        in limit
    )
    assert "4 for learned weights and thresholds of the consensus" in limit
    assert "Uses gold: 4 human labels" in said(labels_made(facts_of(copy)))


def test_posterior_and_score_are_told_apart(copy: RunFolder) -> None:
    facts = modelled(copy)
    (cases,) = (block for block in problematic_cases(facts).blocks if isinstance(block, Cases))
    names = [name for name, _ in cases.items[0].facts]
    assert "posterior" in names
    assert "entropy of the posterior in bits" in names
    (figure,) = (block for block in consensus_levels(facts).blocks if isinstance(block, Drawn))
    assert "the share of the annotators’ valid votes for the winning label" in figure.caption


def test_a_folder_of_an_earlier_version_has_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=40, n_test=20, seeds=1, without=SINCE)
    sections = {section.id: section for section in make_sections(facts_of(folder))}
    assert "was done before there was a table reliability" in said(sections["worth"])
    assert "was done before there was a table gold_noise" in said(sections["contradictions"])
    assert "Method majority" in said(sections["made"])


# what annotators are worth


def test_estimate_gold_and_loss_stand_side_by_side(folder: RunFolder) -> None:
    section = worth(facts_of(folder))
    grid, panels = grids(section)
    heads = [column.name for column in grid.columns]
    assert heads == [
        "annotator", "right, without gold", "right, against gold", "invalid answers", "lost without it",
        "agrees with the others", "knows least well",
    ]  # fmt: skip
    first = rows(grid)[min(ANNOTATORS)]
    assert first[0] == ("90.0\u202f%", "87.0\u202f% to 92.0\u202f%")
    assert first[3] == ("+2.0\u202fpp", "+1.0 to +3.0")
    assert "covers only which texts were drawn, and holds if annotators err independently" in said(section)
    assert "It rests on all texts, the share against gold on those with open gold" in said(section)
    assert [row[0].small for row in panels.rows] == ["", "", "enough", "", ""]


def test_estimates_that_the_votes_cannot_give_are_left_out_and_the_reason_is_said(copy: RunFolder) -> None:
    table = copy.read("reliability")
    nothing = dict.fromkeys(("accuracy", "low", "high", "weakest", "weakest_accuracy", "taken_for"))
    first = table["annotator"] == min(ANNOTATORS)
    copy.write("reliability", pd.concat([table[first].assign(**nothing, reason="it is alone"), table[~first]]))
    some = worth(facts_of(copy))
    assert rows(grids(some)[0])[min(ANNOTATORS)][0] == ("–", "")
    assert f"There is no estimate without gold for {min(ANNOTATORS)}: it is alone." in said(some)
    assert "covers only which texts were drawn" in said(some)
    copy.write("reliability", table.assign(**nothing, reason="they are two"))
    none = worth(facts_of(copy))
    heads = [column.name for column in grids(none)[0].columns]
    assert not {"right, without gold", "knows least well"} & set(heads)
    assert "There is no estimate without gold: they are two." in said(none)
    assert "covers only which texts were drawn" not in said(none)


def test_the_panel_is_drawn_over_cost_only_where_costs_are_known(folder: RunFolder, tmp_path: Path) -> None:
    drawn = [block.name for block in worth(facts_of(folder)).blocks if isinstance(block, Drawn)]
    assert drawn == ["panel-sizes"]
    priced = worth(facts_of(make_run(tmp_path, n=40, n_test=20, seeds=1, priced=True)))
    assert [block.name for block in priced.blocks if isinstance(block, Drawn)] == ["panel-sizes", "panel-costs"]
    assert grids(priced)[1].columns[-1].name == "USD per 1,000 texts"


def test_all_annotators_are_never_called_enough(copy: RunFolder) -> None:
    panels = copy.read("panels")
    copy.write("panels", panels.assign(is_chosen=panels["size"] == panels["size"].max()))
    assert not any(row[0].small for row in grids(worth(facts_of(copy)))[1].rows)


def test_without_gold_nothing_is_held_against_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=40, n_test=20, seeds=1, gold=False)
    section = worth(facts_of(folder))
    assert [column.name for column in grids(section)[0].columns][1:3] == ["right, without gold", "changed without it"]
    assert "no gold" in said(contradictions(facts_of(folder)))


def test_a_panel_that_was_not_mapped_says_why(copy: RunFolder) -> None:
    copy.write("panels", copy.read("panels").head(0))
    copy.write("missed", copy.read("missed").head(0))
    copy.note("panel", "400 annotators of whom nobody sees all texts are a crowd.")
    section = worth(facts_of(copy))
    assert len(grids(section)) == 1
    assert "are a crowd" in said(section)


def test_a_crowd_has_a_short_table(copy: RunFolder) -> None:
    one = copy.read("reliability").head(1)
    many = pd.concat([one.assign(annotator=f"w{k:03d}", n=k) for k in range(150)])
    copy.write("reliability", many)
    copy.write("missed", copy.read("missed").head(0))
    grid = grids(worth(facts_of(copy)))[0]
    assert len(grid.rows) == 100
    assert grid.rows[0][0].text == "w149"
    assert "the 100 of 150 annotators with the most votes" in grid.caption


# contradictions


def test_contradictions_are_no_errors_of_gold(folder: RunFolder) -> None:
    section = contradictions(facts_of(folder))
    assert "On 4 of 100 texts (4.0\u202f%) all annotators give one and the same label" in said(section)
    assert "so that shared errors alone could explain it" in said(section)
    assert "Votes cannot tell errors of gold from errors that annotators share" in said(section)
    (grid,) = grids(section)
    assert grid.rows[0][0].text == "all texts"


def test_the_listed_texts_are_the_first_and_never_test_texts(copy: RunFolder) -> None:
    noise, folds = copy.read("gold_noise"), copy.read("folds")
    tested = folds.loc[folds["part"] == "test", "text_id"].iloc[0]
    copy.write("gold_noise", pd.concat([noise.head(1).assign(text_id=tested, rank=0), noise]))
    section = contradictions(Facts(copy, ReportSettings(problematic_cases=3)))
    (cases,) = (block for block in section.blocks if isinstance(block, Cases))
    assert [case.text_id for case in cases.items] == list(noise.sort_values("rank")["text_id"].head(3).map(str))
    assert dict(cases.items[0].facts)["share of gold"] == "5.0\u202f%"


def test_a_consensus_that_contradicts_nothing_says_so(copy: RunFolder) -> None:
    copy.write("gold_noise", copy.read("gold_noise").head(0))
    copy.write("gold_bound", copy.read("gold_bound").head(0))
    section = contradictions(facts_of(copy))
    assert said(section) == "The consensus contradicts gold on no text."


def test_markdown_says_the_same_and_hostile_names_are_escaped(tmp_path: Path) -> None:
    names = ("<i>late</i>", "a & b", "| pipe")
    people = {"<script>x</script>": 0.8, "b × c": 0.7, "d": 0.6}
    folder = make_run(tmp_path, n=40, n_test=20, seeds=1, names=names, annotators=people, priced=True)
    folder.note("panel", "1 of 3 (<script>x</script>) is enough.")
    folder.note("consensus", {"method": "<b>m</b>", "converged": False, "note": "<b>why</b>"})
    page = write_report(folder).read_text(encoding="utf-8")
    assert not {tag for tag in ("<script", "<i>", "<b>m", "<b>why") if tag in page}
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for title in ("How the labels were made", "What each annotator is worth", "Where the consensus contradicts gold"):
        assert f"## {title}" in text
    assert "\\<script\\>x\\</script\\>) is enough" in text
    assert "| all texts |" in text
    assert "\\<b\\>why" in text
