"""The report's sections about annotators: variants, confidence, candidates, costs, and that gold was used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from consenso.annotate.tallies import INVALID as INVALID_STATUSES
from consenso.report import ReportSettings, write_report
from consenso.report.annotator_sections import annotators, candidates, confidence, cost
from consenso.report.answer import make_answer
from consenso.report.blocks import Grid, Section, dollars
from consenso.report.facts import Facts
from consenso.report.numbers import INVALID, asked, macro_precision_recall
from consenso.report.sections import make_sections
from consenso.report.variant_section import variants
from consenso.store import RunFolder
from consenso.tables import VOTE_STATUSES
from report_folder import make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), n=60, n_test=20, seeds=2)


def copy_of(folder: RunFolder, path: Path, *, without: Iterable[str] = ()) -> RunFolder:
    gone = [f"{name}.parquet" for name in without]
    return RunFolder(shutil.copytree(folder.path, path / "copy", ignore=lambda _, names: set(gone) & set(names)))


def facts_of(folder: RunFolder) -> Facts:
    return Facts(folder, ReportSettings())


def said(section: Section) -> str:
    return " ".join(getattr(block, "text", "") or getattr(block, "caption", "") for block in section.blocks)


def grid(section: Section) -> Grid:
    (found,) = [block for block in section.blocks if isinstance(block, Grid)]
    return found


def row(section: Section, name: str) -> dict[str, str]:
    """Heading → cell of the row with this name, with the small line in brackets."""
    table = grid(section)
    (cells,) = [cells for cells in table.rows if cells[0].text == name]
    shown = [cell.text + (f" ({cell.small})" if cell.small else "") for cell in cells]
    return dict(zip([column.name for column in table.columns], shown, strict=True))


def emptied(folder: RunFolder, *names: str) -> RunFolder:
    for name in names:
        folder.write(name, folder.read(name).iloc[:0])
    return folder


# variants


def test_the_variant_that_moves_most_is_named_first(folder: RunFolder) -> None:
    table = folder.read("variants")
    worst = table.loc[table["flip_rate"].idxmax()]
    section = variants(facts_of(folder))
    text = said(section)
    assert text.startswith(f"Asked in another way, an annotator changed up to {100 * worst['flip_rate']:.1f}\u202f% of")
    assert f"({worst['annotator']}~{worst['variant']}: {worst['flipped']} of {worst['n']})" in text
    assert "prompt hacking" in text
    assert [cells[0].text for cells in grid(section).rows] == table.sort_values("flip_rate", ascending=False)[
        "variant"
    ].tolist()


def test_the_consensus_that_moves_most_may_be_of_another_variant(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    table = copy.read("variants").sort_values("flip_rate").reset_index(drop=True)
    table.loc[0, ["n_consensus", "consensus_flipped", "consensus_flip_rate"]] = [50, 40, 0.8]
    copy.write("variants", table)
    name = f"{table['annotator'][0]}~{table['variant'][0]}"
    assert f"up to 80.0\u202f% of the majorities changed ({name}: 40 of 50)" in said(variants(facts_of(copy)))


def test_a_variant_has_its_kappa_shift_and_consensus(folder: RunFolder) -> None:
    table = folder.read("variants").set_index("variant")
    mine, shown = table.loc["warm"], row(variants(facts_of(folder)), "warm")
    assert shown["kappa"] == f"{mine['kappa']:.2f}"
    assert shown["largest shift"].endswith("(billing)")
    assert shown["largest shift"].startswith("−")
    assert shown["consensus flipped"].endswith(f"({mine['consensus_flipped']} of {mine['n_consensus']})")
    assert shown["invalid"] == "2.0\u202f%"


def test_variants_that_change_nothing_say_so(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    table = copy.read("variants")
    nothing = dict.fromkeys(
        ["flipped", "consensus_flipped", "flip_rate", "low", "largest_shift", "consensus_flip_rate"], 0
    )
    copy.write("variants", table.assign(**nothing))
    section = variants(facts_of(copy))
    assert f"no annotator changed any of its labels ({table['n'].sum()} compared), and no majority changed" in said(
        section
    )
    assert grid(section).rows[0][5].small == ""  # no label has shifted most


@pytest.mark.parametrize(("keep", "figures"), [(1, 0), (2, 1)])
def test_flip_rates_are_drawn_from_two_variants_on(tmp_path: Path, folder: RunFolder, keep: int, figures: int) -> None:
    copy = copy_of(folder, tmp_path)
    copy.write("variants", copy.read("variants").head(keep))
    drawn = [block for block in variants(facts_of(copy)).blocks if block.kind == "figure"]
    assert len(drawn) == figures
    assert all("var(--ink)" in svg and "#0a0b" not in svg for figure in drawn for svg in (figure.wide, figure.narrow))


def test_variants_that_share_no_text_with_their_annotator_are_no_zero(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    table = copy.read("variants").head(1)
    nothing = dict.fromkeys(["flip_rate", "low", "high", "kappa", "largest_shift", "consensus_flip_rate"], np.nan)
    copy.write(
        "variants", table.assign(n=0, flipped=0, n_consensus=0, consensus_flipped=0, shifted_label=None, **nothing)
    )
    section = variants(facts_of(copy))
    assert "nothing can be compared" in said(section)
    assert grid(section).rows[0][2].text == "–"
    assert grid(section).rows[0][5].small == ""


@pytest.mark.parametrize("way", ["empty", "missing"])
def test_without_variants_the_report_says_how_to_get_them(tmp_path: Path, folder: RunFolder, way: str) -> None:
    copy = copy_of(folder, tmp_path, without=["variants"] if way == "missing" else [])
    section = variants(facts_of(copy if way == "missing" else emptied(copy, "variants")))
    assert "[annotate.annotators.variants.NAME]" in said(section)
    assert section.blocks[0].tone == "absent"


# costs


def test_costs_are_sums_over_the_votes(folder: RunFolder) -> None:
    votes, section = folder.read("votes"), cost(facts_of(folder))
    mine = votes[votes["annotator"] == "phi-4"]
    shown = row(section, "phi-4")
    assert shown["votes"] == str(len(mine))
    assert shown["tokens in"] == f"{mine['tokens_in'].sum():,}"
    assert shown["USD"] == f"{mine['cost'].sum():.4f}"
    assert shown["USD per 1,000 votes"] == f"{1000 * mine['cost'].mean():.4f}"
    assert shown["seconds each"] == "0.25"


def test_variants_cost_too_and_the_total_holds_everything(folder: RunFolder) -> None:
    both = pd.concat([folder.read("votes"), folder.read("variant_votes")])
    section = cost(facts_of(folder))
    assert "gemma3-4b~terse" in [cells[0].text for cells in grid(section).rows]
    assert row(section, "all")["votes"] == str(len(both))
    assert row(section, "all")["USD"] == f"{both['cost'].sum():.4f}"


def test_a_missing_price_is_said_and_not_zero(folder: RunFolder) -> None:
    section = cost(facts_of(folder))
    assert row(section, "qwen3-8b")["USD"] == "–"
    assert "No price is known for qwen3-8b" in said(section)


def test_the_ledger_has_the_last_word(tmp_path: Path, folder: RunFolder) -> None:
    text = said(cost(facts_of(folder)))
    assert "The vote log: 1,400 answers kept; at most 2 requests may have been paid without an answer." in text
    assert "0.0714 USD" in text
    assert "up to 0.0002 USD more" in text
    copy = copy_of(folder, tmp_path)
    copy.note("vote_log", None)
    assert "vote log" not in said(cost(facts_of(copy)))


def test_annotators_without_tokens_or_costs_have_no_row(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    votes = copy.read("votes")
    free = votes["annotator"] == "phi-4"
    copy.write("votes", votes.assign(**{name: votes[name].mask(free) for name in ("tokens_in", "tokens_out", "cost")}))
    assert "phi-4" not in [cells[0].text for cells in grid(cost(facts_of(copy))).rows]


def test_without_any_costs_one_line_says_so(tmp_path: Path) -> None:
    section = cost(facts_of(make_run(tmp_path, n=30, n_test=20, seeds=2, asked=False)))
    assert len(section.blocks) == 1
    assert "No annotator has token counts or costs" in said(section)


def test_dollars_keep_what_is_small() -> None:
    shown = [dollars(value) for value in (0, 0.00001, 0.0123, 0.5, 1, 1234.5, None, float("nan"))]
    assert shown == ["0.00", "< 0.0001", "0.0123", "0.5000", "1.00", "1,234.50", "–", "–"]


# confidence


def test_confidence_stands_before_and_after_calibration(folder: RunFolder) -> None:
    section = confidence(facts_of(folder))
    shown = row(section, "gemma3-4b")
    assert shown["ECE"] == "0.131 (0.032 calibrated)"
    assert shown["Brier"] == "0.210 (0.162 calibrated)"
    accuracy = folder.read("confidence").set_index("annotator").loc["gemma3-4b", "accuracy"]
    assert shown["confidence"] == f"90.0\u202f% (+{100 * (0.9 - accuracy):.1f}\u202fpp)"
    assert grid(section).rows[0][0].small == "token probabilities"
    assert "expected calibration error" in said(section)


def test_annotators_with_too_few_judged_votes_are_named(folder: RunFolder) -> None:
    assert "Too few votes with confidence and gold to tell: mistral-7b." in said(confidence(facts_of(folder)))


def test_without_confidence_the_report_says_what_it_takes(tmp_path: Path, folder: RunFolder) -> None:
    section = confidence(facts_of(emptied(copy_of(folder, tmp_path), "confidence")))
    assert "at least 50 valid votes" in said(section)
    missing = copy_of(folder, tmp_path / "more", without=["confidence", "labels"])
    assert "the stage “consensus” has not been run" in said(confidence(facts_of(missing)))


# candidates and gold


def test_recall_names_the_k_offered_and_the_light_classifier_alone(folder: RunFolder) -> None:
    section = candidates(facts_of(folder))
    assert [cells[0].small for cells in grid(section).rows] == [
        "the light classifier alone",
        "",
        "offered to the annotators",
    ]
    assert "Gold is among the 3 that it leaves in 95.0\u202f% of texts" in said(section)
    assert "The light classifier alone (k = 1) is right in 70.0\u202f%" in said(section)


def test_gold_that_made_votes_is_counted_in_the_section_and_at_the_top(folder: RunFolder) -> None:
    sentence = (
        "Uses gold: 23 human labels of training texts went into the votes themselves (3 shown as examples in prompts, "
        "20 for the classifier that narrows the labels). These texts train no aligned arm."
    )
    facts = facts_of(folder)
    assert sentence in said(candidates(facts))
    assert make_answer(facts).limits == [sentence]
    page = write_report(folder).read_text(encoding="utf-8")
    assert sentence in page[: page.index("<nav")]
    markdown = (folder.path / "report.md").read_text(encoding="utf-8")
    assert sentence in markdown[: markdown.index("## ")]


@pytest.mark.parametrize("without", [("comparison",), ("comparison", "predictions", "labels")])
def test_gold_is_owned_up_to_without_a_verdict_too(tmp_path: Path, folder: RunFolder, without: tuple[str, ...]) -> None:
    assert make_answer(facts_of(copy_of(folder, tmp_path, without=without))).limits[0].startswith("Uses gold: 23")


def test_one_example_is_singular(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    copy.write("gold_used", copy.read("gold_used").query("purpose == 'examples'").head(1))
    (sentence,) = make_answer(facts_of(copy)).limits
    assert sentence.startswith("Uses gold: 1 human label of a training text went")
    assert sentence.endswith("This text trains no aligned arm.")


def test_where_no_gold_was_used_nothing_is_said_of_it(tmp_path: Path, folder: RunFolder) -> None:
    facts = facts_of(emptied(copy_of(folder, tmp_path), "gold_used"))
    assert make_answer(facts).limits == []
    assert "Uses gold" not in said(candidates(facts))


def test_recall_of_candidates_that_are_no_longer_used_is_not_shown(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    copy.write("gold_used", copy.read("gold_used").query("purpose == 'examples'"))
    section = candidates(facts_of(copy))
    assert "Every annotator was offered all labels" in said(section)
    assert "Uses gold: 3 human labels" in said(section)
    assert not [block for block in section.blocks if isinstance(block, Grid)]


# annotators


def test_annotators_say_their_model_family_and_repetitions(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    who = copy.read("annotators")
    copy.write("annotators", who.assign(model="ollama/" + who["annotator"], repetitions=3))
    small = {cells[0].text: cells[0].small for cells in grid(annotators(facts_of(copy))).rows}
    assert small["qwen3-8b"] == "llm, ollama/qwen3-8b, family qwen3, 3 repetitions"


def test_what_is_not_known_of_an_annotator_is_left_out(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path, without=["annotators"])
    assert {cells[0].small for cells in grid(annotators(facts_of(copy))).rows} == {""}


def test_notes_of_the_annotate_stage_are_warnings_even_without_votes(tmp_path: Path, folder: RunFolder) -> None:
    for one in (folder, copy_of(folder, tmp_path, without=["votes"])):
        warned = [block.text for block in annotators(facts_of(one)).blocks if getattr(block, "tone", "") == "warned"]
        assert warned == folder.record()["annotate_notes"]


def test_a_settled_vote_was_not_asked_for_and_is_no_failure(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    votes = copy.read("votes")
    mine = votes["annotator"].eq("phi-4")
    settled = mine & votes["text_id"].gt("t00020")
    nothing = {name: votes[name].mask(settled, None) for name in ("label", "tokens_in", "tokens_out", "cost")}
    copy.write("votes", votes.assign(status=votes["status"].mask(settled, "settled"), **nothing))
    before, after = (annotators(facts_of(one)) for one in (folder, copy))
    assert row(after, "phi-4")["votes"] == str((mine & ~settled).sum())
    assert row(after, "phi-4")["not asked: settled"] == str(settled.sum())
    assert row(after, "qwen3-8b")["valid"] == row(before, "qwen3-8b")["valid"]
    left = votes[mine & ~settled]
    assert row(after, "phi-4")["valid"] == f"{100 * left['label'].notna().mean():.1f}\u202f%"
    assert row(cost(facts_of(copy)), "phi-4")["votes"] == str(len(left))


def test_invalid_means_what_the_annotate_stage_means() -> None:
    assert INVALID == INVALID_STATUSES
    frame = pd.DataFrame({"status": VOTE_STATUSES})
    assert set(frame["status"]) - set(asked(frame)["status"]) == {"settled"}


# all sections


@pytest.mark.parametrize("section", [annotators, variants, confidence, candidates, cost])
def test_a_folder_without_votes_has_every_section(
    tmp_path: Path, folder: RunFolder, section: Callable[[Facts], Section]
) -> None:
    tables = [path.stem for path in (folder.path / "tables").glob("*.parquet") if path.stem != "texts"]
    found = section(facts_of(copy_of(folder, tmp_path, without=tables)))
    assert re.search(r"the stage “(annotate|consensus)” has not been run", said(found))


def test_sections_of_an_earlier_stage_say_that_they_are_out_of_date(tmp_path: Path, folder: RunFolder) -> None:
    copy = copy_of(folder, tmp_path)
    copy.flag_stages(dict.fromkeys(("annotate", "consensus", "finetune", "compare"), True))
    old = {
        section.id
        for section in make_sections(facts_of(copy))
        if "Out of date" in getattr(section.blocks[0], "text", "")
    }
    assert {"annotators", "variants", "confidence", "candidates", "cost"} <= old


def test_precision_and_recall_match_a_worked_value() -> None:
    table = np.array([[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]])  # gold a a a b b c; given a a b b none a
    precision, recall = macro_precision_recall(table)
    assert precision == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    table = np.array([[1, 1, 0], [0, 0, 2]])  # b is missed altogether, and given once
    assert macro_precision_recall(table) == (pytest.approx(1 / 2), pytest.approx(1 / 4))
