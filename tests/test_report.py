"""The report: self-contained, escaped, honest about what is missing, and the same bytes for the same tables."""

from __future__ import annotations

import builtins
import math
import re
import shutil
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from consenso.compare import comparing
from consenso.errors import DataError, MissingExtraError
from consenso.report import ReportSettings, write_report
from consenso.report.advice import MEANINGS, NO_VERDICT, OWN_ADVICE, meaning_of
from consenso.report.answer import make_answer
from consenso.report.blocks import Answer, cut, number, percent, points
from consenso.report.drawing import WIDE, Canvas
from consenso.report.facts import Facts
from consenso.report.further_answers import LOOKS
from consenso.report.label_sections import problematic_cases
from consenso.report.markdown import escape
from consenso.report.numbers import accuracy, confusion, macro_f1, wilson
from consenso.report.sections import SECTIONS, make_sections
from consenso.store import RunFolder
from consenso.tables import TABLES
from report_folder import ANNOTATORS, SCRIPT, comparison_of, guards_of, make_run

IDS = [
    "labels", "agreement", "made", "levels", "problematic", "by-level", "contradictions", "annotators", "worth", "variants",
    "confidence", "candidates", "cost",
    "contrasts", "seeds", "classes", "multiverse", "scores", "collapsed", "curves", "confusion", "calibration",
    "value", "corrections", "frontier", "guards", "leakage", "run", "paper",
]  # fmt: skip
PLOTS = (
    "plots", "panel_plot", "forest_plot", "effect_plots", "value_plots", "frontier_plot", "multiverse_plot",
    "calibration_plot",
)  # fmt: skip
"""The modules that draw."""
TRAINED = ("arms", "trainings", "curves", "predictions", "scores", "guards", "comparison")


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, ids, visible text."""

    VOID = frozenset(["meta", "link", "br", "img", "hr", "input", "path", "use", "rect"])

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words += data

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]


def report(folder: RunFolder, **settings: Any) -> str:
    return write_report(folder, settings=ReportSettings(**settings) if settings else None).read_text(encoding="utf-8")


def copy_of(folder: RunFolder, path: Path, *, without: Iterable[str] = ()) -> RunFolder:
    gone = [f"{name}.parquet" for name in without]
    return RunFolder(shutil.copytree(folder.path, path / "copy", ignore=lambda _, names: set(gone) & set(names)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), students=["frozen", "encoder"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("small"), n=40, n_test=20, seeds=2)


@pytest.fixture(scope="module")
def html(folder: RunFolder) -> str:
    return report(folder)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def judged(folder: RunFolder, path: Path, verdict: str) -> RunFolder:
    copy = copy_of(folder, path)
    copy.write("comparison", comparison_of(verdict, ["frozen"]))
    copy.write("guards", guards_of(verdict))
    return copy


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are painted once, but not turned into SVG: most of a report's time."""

    def paint_only(name: str, paint: Any, height: Any) -> tuple[str, str]:
        paint(Canvas(Figure((WIDE / 72, height(False) / 72)), WIDE, height(False)))
        return "<svg></svg>", "<svg></svg>"

    for module in PLOTS:
        monkeypatch.setattr(f"consenso.report.{module}.draw", paint_only)


def test_the_page_requests_nothing(html: str, page: Page) -> None:
    loading = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
    assert not [(tag, attrs) for tag, attrs in page.tags if loading & set(attrs)]
    links = [attrs["href"] or "" for _, attrs in page.tags if "href" in attrs]
    assert links
    assert [link for link in links if not link.startswith("#") and link != "data:,"] == []
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*)\)", html)) == set(re.findall(r"url\((#[^)]*)\)", html))
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "img", "video", "audio"}


def test_every_link_inside_the_page_has_its_target_and_every_id_is_used_once(html: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    targets = {attrs["href"] for _, attrs in page.tags if (attrs.get("href") or "").startswith("#")}
    targets |= {f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", html)}
    assert {target for target in targets if target and target[1:] not in page.ids} == set()


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.open == []


def test_every_section_is_there_in_order_and_in_the_table_of_contents(page: Page) -> None:
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == IDS
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert all(f"#{name}" in links for name in ["answer", *IDS])


def test_the_answer_comes_first(page: Page) -> None:
    words = " ".join(page.words.split())
    verdict, sentence = words.index("INCONCLUSIVE"), words.index("Trained on consensus labels, macro-F1 changes by")
    assert verdict < sentence < words.index("What this means.") < words.index("Label distribution")
    assert words.index("Consensus labels that match gold") < words.index("Label distribution")


def test_texts_are_escaped(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    labels = folder.read("labels")
    folder.write("labels", labels.assign(is_problematic=labels["text_id"] == "t00000"))
    shown = report(folder)
    assert "<script" not in shown
    assert "&lt;script&gt;alert(&#34;boo&#34;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt; $x_1$" in shown
    assert SCRIPT in Page(shown).words
    assert "\\<script\\>" in (folder.path / "report.md").read_text(encoding="utf-8")


def test_names_of_labels_and_annotators_are_escaped_everywhere(tmp_path: Path) -> None:
    names = ('<img src="http://x/y.png">', "a & b", 'quote " and ${dollar}$ _ ^ \\', "| pipe [link](http://x)")
    strange = {"<script>x</script>": 0.8, "gold": 0.7, "consensus": 0.6}
    shown = report(make_run(tmp_path, n=40, n_test=20, names=names, annotators=strange))
    page = Page(shown)
    assert not {tag for tag, _ in page.tags} & {"img", "script"}
    assert all(name in page.words for name in names)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"(?<!\\)[<\[]", text)


def test_the_same_tables_give_the_same_bytes(folder: RunFolder, html: str) -> None:
    first = (folder.path / "report.md").read_bytes()
    folder.finish("report", "k" * 64, [], seconds=1.0)  # what a run notes after its report
    assert report(folder) == html
    assert (folder.path / "report.md").read_bytes() == first


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("missing", sorted(TABLES))
def test_any_one_table_may_be_missing(tmp_path: Path, small: RunFolder, missing: str) -> None:
    facts = Facts(copy_of(small, tmp_path, without=[missing]), ReportSettings())
    assert make_answer(facts).sentence
    sections = make_sections(facts)
    assert [section.id for section in sections] == IDS
    assert all(section.blocks for section in sections)


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([], "The run folder is empty"),
        (["texts", "folds", "leaks", "duplicates"], "There are texts, but no votes"),
        (["texts", "folds", "annotators", "votes"], "There are votes, but no consensus labels"),
        (["texts", "folds", "votes", "labels", "agreement"], "no classifier was trained on them"),
        (["texts", "folds", "votes", "labels", "trainings", "curves", "predictions"], "they were not compared"),
    ],
)
def test_a_run_that_stopped_says_where(tmp_path: Path, small: RunFolder, tables: list[str], said: str) -> None:
    words = Page(report(copy_of(small, tmp_path, without=set(TABLES) - set(tables)))).words
    assert "NO ANSWER YET" in words
    assert said in words
    assert "the stage “compare” has not been run" in words


@pytest.mark.usefixtures("unsaved")
def test_a_folder_without_a_record_has_a_report(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    (folder.path / "run.json").unlink()
    words = Page(report(folder)).words
    assert "There is no run.json" in words
    assert "INCONCLUSIVE" in words


@pytest.mark.usefixtures("unsaved")
def test_empty_tables_are_like_missing_ones(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    for name in set(TABLES) - {"texts"}:
        if folder.has(name):
            folder.write(name, folder.read(name).iloc[:0])
    assert "NO ANSWER YET" in Page(report(folder)).words


@pytest.mark.usefixtures("unsaved")
def test_without_gold_the_report_says_so(tmp_path: Path) -> None:
    words = Page(report(make_run(tmp_path, n=40, n_test=20, gold=False, without=TRAINED))).words
    assert "there is no gold" in words
    assert "accuracy of its valid votes" not in words


@pytest.mark.usefixtures("unsaved")
def test_gold_of_test_texts_is_not_used_to_judge_labels(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=60, n_test=30)
    texts, folds = folder.read("texts"), folder.read("folds")
    test = set(folds.loc[folds["part"] == "test", "text_id"])
    before = report(folder)
    start, end = before.index('id="labels"'), before.index('id="contrasts"')
    changed = texts.assign(
        gold=[("complaint" if i in test else g) for i, g in zip(texts["text_id"], texts["gold"], strict=True)]
    )
    folder.write("texts", changed)
    after = report(folder)
    assert after[after.index('id="labels"') : after.index('id="contrasts"')] == before[start:end]
    assert after != before  # the classifiers' matrices do change


@pytest.mark.usefixtures("unsaved")
def test_gold_of_texts_that_the_leakage_guard_removed_is_not_used_to_judge_labels(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=60, n_test=30)
    texts, folds, labels = folder.read("texts"), folder.read("folds"), folder.read("labels")
    gone = sorted(set(texts["text_id"]) - set(folds["text_id"]))
    assert "t00002" in gone  # the maker's leaks: its gold is that of its test twin
    folder.write("labels", labels.assign(is_problematic=True))
    facts = Facts(folder, ReportSettings(problematic_cases=500))
    assert facts.open_gold is not None
    train_dev = set(folds.loc[folds["part"] != "test", "text_id"])
    assert set(facts.open_gold.index) == train_dev
    assert len(train_dev) == 60 - len(gone)
    (block,) = problematic_cases(facts).blocks
    assert {case.text_id for case in block.items} == train_dev
    before = report(folder)
    other = texts["text_id"].isin(gone)
    folder.write("texts", texts.assign(gold=texts["gold"].mask(other, "complaint")))
    assert (texts.loc[other, "gold"] != "complaint").all()
    after = report(folder)
    start, end = (before.index(f'id="{name}"') for name in ("labels", "run"))
    assert after[start:end] == before[start:end]


@pytest.mark.usefixtures("unsaved")
def test_agreement_says_over_how_many_texts_it_is(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    votes = folder.read("votes")
    folder.write("votes", votes[votes["text_id"] != "t00007"])
    assert "Over all texts with votes (59), whatever their part" in Page(report(folder)).words


@pytest.mark.usefixtures("unsaved")
def test_gold_on_test_alone_judges_no_labels(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    texts, folds = folder.read("texts"), folder.read("folds")
    test = set(folds.loc[folds["part"] == "test", "text_id"])
    folder.write("texts", texts.assign(gold=texts["gold"].where(texts["text_id"].isin(test), None)))
    assert "no voted train or dev text has gold" in Page(report(folder)).words


@pytest.mark.usefixtures("unsaved")
def test_texts_that_nobody_was_asked_about_are_not_counted_as_failures(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    votes, folds = folder.read("votes"), folder.read("folds")
    test = set(folds.loc[folds["part"] == "test", "text_id"])
    folder.write("votes", votes[~votes["text_id"].isin(test)])
    words = " ".join(Page(report(folder)).words.split())
    assert "What became of the 40 texts with votes" in words
    assert "Nobody was asked about 20 further texts." in words
    assert "of 40 with votes count as problematic" in words


@pytest.mark.usefixtures("unsaved")
def test_one_annotator_has_no_pairs(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=40, n_test=20, annotators={"solo": 0.8})
    agreement = folder.read("agreement")
    folder.write("agreement", agreement.assign(value=np.nan, low=np.nan, high=np.nan))
    assert "at least two annotators" in Page(report(folder)).words


@pytest.mark.usefixtures("unsaved")
def test_a_comparison_without_sentences_gets_one_from_its_numbers(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    comparison = folder.read("comparison")
    folder.write("comparison", comparison.assign(sentence=None))
    words = Page(report(folder)).words
    assert "differs by −2.1\u202fpp from training on gold-aligned" in words
    assert "[−4.3, +0.1]" in words


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("verdict", sorted(LOOKS))
def test_every_verdict_word_says_what_it_means_and_what_to_do(tmp_path: Path, small: RunFolder, verdict: str) -> None:
    answer = make_answer(Facts(judged(small, tmp_path, verdict), ReportSettings()))
    meaning, advice = MEANINGS[verdict]
    assert answer.word == verdict
    assert answer.sentence.startswith("Trained on consensus labels, macro-F1 changes by")
    assert answer.meaning.removeprefix("On the same texts, ").startswith(
        meaning.removeprefix("{Texts} ").split("{", maxsplit=1)[0][:20]
    )
    assert answer.advice.endswith(advice[-20:])
    assert "{" not in answer.meaning + answer.advice
    assert len(re.findall(r"[.;] ", answer.meaning + " " + answer.advice)) <= 3  # a sentence or two


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "with this difference about 150 test texts would do: …",
            "Put as many human-labelled texts into the test part",
        ),
        ("with this difference about 20 seeds would do: …", "Set seeds under [finetune] to as many"),
        ("the recipe learns too little; try another encoder", "Mend what the first rows of the guards say"),
    ],
)
def test_what_to_do_about_an_invalid_run_follows_its_reason(reason: str, advice: str) -> None:
    assert meaning_of("INVALID", reason, own=False)[1].startswith(advice)
    assert meaning_of("INVALID", reason, own=True)[1] == OWN_ADVICE["INVALID"]


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(
    ("student", "change"),
    [("frozen", "another encoder"), ("linear (gold dev)", "more training texts"), ("encoder", "lower learning rate")],
)
def test_an_unstable_recipe_is_changed_as_its_student_allows(
    tmp_path: Path, small: RunFolder, student: str, change: str
) -> None:
    folder = judged(small, tmp_path, "UNSTABLE RECIPE")
    rows = folder.read("comparison")
    folder.write("comparison", rows.assign(student=rows["student"].replace("frozen", student)))
    assert f"Change the recipe ({change}" in answer_of(folder).advice


@pytest.mark.usefixtures("unsaved")
def test_a_real_but_small_loss_is_called_within_the_margin(tmp_path: Path, small: RunFolder) -> None:
    words = Page(report(judged(small, tmp_path, "WORSE*"))).words
    assert "WORSE but within the margin" in words
    assert "The loss is real but smaller than 2.0\u202fpp" in words


def answer_of(folder: RunFolder) -> Answer:
    return make_answer(Facts(folder, ReportSettings()))


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("table_of_arms", ["same rows", "fewer rows", "absent"])
@pytest.mark.parametrize(
    ("arms", "by_name"),
    [(("consensus", "gold-aligned"), True), (("consensus-kept", "gold-kept"), True), (("consensus", "gold"), False)],
)
def test_the_same_texts_are_claimed_only_where_the_arms_hold_the_same_texts(
    tmp_path: Path, small: RunFolder, arms: tuple[str, str], by_name: bool, table_of_arms: str
) -> None:
    arm, control = arms
    folder = copy_of(small, tmp_path, without=["arms"] if table_of_arms == "absent" else [])
    comparison = comparison_of("WORSE", ["frozen"])
    first = comparison["contrast"] == "consensus − gold-aligned"
    named = {"arm": arm, "control": control, "contrast": f"{arm} − {control}"}
    folder.write("comparison", comparison[first].assign(**named))
    if table_of_arms != "absent":
        one = folder.read("arms").query("arm == 'gold'")
        fewer = one[one["text_id"] > "t00010"] if table_of_arms == "fewer rows" else one
        folder.write("arms", pd.concat([one.assign(arm=control), fewer.assign(arm=arm)]))
    same = {"same rows": True, "fewer rows": False, "absent": by_name}[table_of_arms]
    meaning = answer_of(folder).meaning
    assert ("On the same texts" in meaning) is same
    assert ("The two arms hold different texts" in meaning) is not same


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(
    ("reason", "meaning", "advice"),
    [
        ("one seed cannot tell luck from labels; run at least 5", "With a single seed", "Set seeds = 10"),
        ("one resample cannot tell luck from labels; run at least 5", "With a single seed", "Set seeds = 10"),
        ("no text was filtered out, so the two arms are the same", "Nothing was filtered out", "Choose a rule"),
        (
            "seeds differ: all seeds of gold give the same predictions; one seed cannot tell luck from labels; run at least 5",
            "All seeds of an arm came out alike",
            "Set resample = true",
        ),
        ("1 test text(s) give no interval; test on more texts", "There are too few test texts", "Put more human"),
        ("something new", "This run does not hold what a verdict needs", "Mend what the reason names"),
        (None, "This run does not hold what a verdict needs", "Mend what the reason names"),
    ],
)
def test_no_verdict_means_what_its_reason_says(
    tmp_path: Path, small: RunFolder, reason: str | None, meaning: str, advice: str
) -> None:
    folder = judged(small, tmp_path, "NO VERDICT")
    comparison = folder.read("comparison")
    folder.write("comparison", comparison.assign(reason=comparison["reason"].mask(comparison["is_primary"], reason)))
    answer = answer_of(folder)
    assert answer.meaning.startswith(meaning)
    assert answer.advice.startswith(advice)


def test_the_reasons_of_no_verdict_are_those_that_the_comparison_gives() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(comparing.__file__).parent.glob("*.py"))
    assert [part for part in NO_VERDICT if part not in source] == []


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(
    ("changed", "badge"),
    [
        ({"compare": {"key": "e" * 64, "stale": True}}, "OUT OF DATE"),
        ({"finetune": {"key": "f" * 64, "stale": True}, "compare": {"key": "e" * 64, "stale": True}}, "OUT OF DATE"),
        ({"compare": None}, "NO VERDICT YET"),
    ],
)
def test_an_old_verdict_is_not_shown_as_the_answer(
    tmp_path: Path, small: RunFolder, changed: dict[str, Any], badge: str
) -> None:
    folder = judged(small, tmp_path, "EQUIVALENT")
    stages = {**folder.record()["stages"], **changed}
    folder.note("stages", {name: entry for name, entry in stages.items() if entry})
    shown = report(folder)
    head = Page(shown[: shown.index("<nav")] + "</body></html>").words
    assert badge in head
    assert "Run “consenso run” again" in head
    markdown = (folder.path / "report.md").read_text(encoding="utf-8")
    for top in (head, markdown[: markdown.index("## ")], shown[: shown.index("</title>")]):
        assert "EQUIVALENT" not in top
        assert "changes by" not in top
    sections = {section.id: section.blocks for section in make_sections(Facts(folder, ReportSettings()))}
    noted = [name for name, blocks in sections.items() if "still to be done" in getattr(blocks[0], "text", "")]
    also = ["curves", "collapsed"] if "finetune" in changed else []
    of_compare = {
        "contrasts",
        "seeds",
        "classes",
        "multiverse",
        "calibration",
        "value",
        "corrections",
        "frontier",
        "guards",
    }
    assert set(noted) == {*of_compare, "scores", "confusion", "run", "paper", *also}
    assert "Consensus labels that match gold" in head  # the labels are current


@pytest.mark.usefixtures("unsaved")
def test_stale_labels_are_no_key_figures(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    folder.flag_stages(dict.fromkeys(("consensus", "finetune", "compare"), True))
    assert answer_of(folder).figures == []
    noted = [s.id for s in make_sections(Facts(folder, ReportSettings())) if s.blocks[0].kind == "note"]
    assert {"labels", "agreement", "levels", "problematic", "by-level"} <= set(noted)
    assert not {"annotators", "leakage"} & {
        s.id
        for s in make_sections(Facts(folder, ReportSettings()))
        if "Out of date" in getattr(s.blocks[0], "text", "")
    }


@pytest.mark.usefixtures("unsaved")
def test_finished_stages_carry_no_note(folder: RunFolder) -> None:
    assert "still to be done" not in str(make_sections(Facts(folder, ReportSettings())))


@pytest.mark.parametrize("silent", ["frozen", "encoder"])
def test_a_student_without_contrasts_has_its_scores_and_no_crash(
    tmp_path: Path, folder: RunFolder, silent: str
) -> None:
    copy = copy_of(folder, tmp_path)
    comparison = copy.read("comparison")
    copy.write("comparison", comparison[comparison["student"] != silent])
    shown = report(copy)
    page = Page(shown)
    assert len(page.ids) == len(set(page.ids))
    assert f"The arms of student “{silent}” form no contrast." in page.words
    assert f"Student “{silent}”: NO VERDICT." in page.words
    assert f"Test scores of each arm (student “{silent}”)" in page.words
    assert "INCONCLUSIVE" in page.words[: page.words.index("Label distribution")]


@pytest.mark.usefixtures("unsaved")
def test_failed_guards_stand_first(tmp_path: Path, small: RunFolder) -> None:
    words = Page(report(judged(small, tmp_path, "INVALID"))).words
    section = words[words.index("What was checked before") :]
    order = [section.index(word) for word in ("✕ failed", "! warned", "○ not checked", "✓ passed")]
    assert order == sorted(order)
    assert "makes the verdict invalid" in section


def test_a_contrast_against_the_floor_does_not_squeeze_the_others(html: str) -> None:
    forest = html[html.index('id="contrasts"') : html.index('id="scores"')]
    ticks = re.findall(r">([+−]?\d+)</text>", forest)
    assert "+60" not in ticks
    assert {"−4", "−2", "0", "+2", "+4"} <= set(ticks)


def test_a_collapsed_run_is_drawn_and_counted(page: Page) -> None:
    assert "A cross is a run that collapsed; it counts." in page.words
    assert "Dashed, with a cross: collapsed runs." in page.words


def test_a_student_fitted_in_one_step_has_no_curve(page: Page) -> None:
    assert "Student “frozen” is fitted in one step" in page.words


def test_charts_are_described_and_drawn_for_both_widths(html: str, page: Page) -> None:
    charts = [attrs for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(charts) == html.count("<figcaption>") >= 8
    assert all(len(chart["aria-label"] or "") > 60 for chart in charts)
    assert html.count("<svg") == 2 * len(charts)


def test_charts_take_their_colours_from_the_page(html: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.S))
    assert re.findall(r"#[0-9a-f]{6}\b", drawings) == []
    assert "var(--consensus)" in drawings
    used = set(re.findall(r"var\((--[\w-]+)\)", html))
    assert {name for name in used if f"{name}:" not in html} == set()


@pytest.mark.usefixtures("unsaved")
def test_problematic_cases_leave_test_texts_out_and_cut_long_ones(tmp_path: Path) -> None:
    folder = make_run(tmp_path, n=60, n_test=30)
    folder.write("labels", folder.read("labels").assign(is_problematic=True))
    (block,) = problematic_cases(Facts(folder, ReportSettings(problematic_cases=500))).blocks
    folds = folder.read("folds")
    assert not {case.text_id for case in block.items} & set(folds.loc[folds["part"] == "test", "text_id"])
    long = next(case for case in block.items if case.text_id == "t00001")
    assert len(long.text) <= 290 < len(long.full)
    assert long.full.startswith(long.text.removesuffix(" …"))


@pytest.mark.usefixtures("unsaved")
def test_no_case_is_listed_when_none_is_wanted(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    shown = report(folder, problematic_cases=0, leaks=0)
    texts = folder.read("texts")["text"].tolist()
    assert not [text for text in texts if len(text) > 40 and text in Page(shown).words]


@pytest.mark.usefixtures("unsaved")
def test_the_settings_of_the_run_count(tmp_path: Path, small: RunFolder) -> None:
    folder = copy_of(small, tmp_path)
    folder.note("settings", {**folder.record()["settings"], "report": {"title": "An honest title"}})
    assert "An honest title" in Page(report(folder)).words


def test_markdown_has_the_answer_and_the_tables(folder: RunFolder, html: str) -> None:
    text = (folder.path / "report.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("# May consensus labels replace human ones?")
    assert lines[2].startswith("**INCONCLUSIVE** – Trained on consensus labels")
    assert sum(line.startswith("## ") for line in lines) == len(SECTIONS)
    tables = [line for line in lines if line.startswith("| ")]
    assert len(tables) > 40
    assert "| consensus − gold-aligned (label effect) | INCONCLUSIVE" in text


def test_markdown_shows_texts_as_they_stand() -> None:
    assert escape("a|b *c* <d>\n`e` http://x & _f_") == r"a\|b \*c\* \<d\> \`e\` http:&#47;&#47;x &amp; \_f\_"


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "consenso\[report\]"'):
        write_report(folder)


def test_many_annotators_and_scripts_of_the_world_are_drawn(tmp_path: Path) -> None:
    names = ("спорт", "政治", "اقتصاد", "😀 fun")
    panel = {f"annotator {i}": 0.7 for i in range(14)}
    page = Page(report(make_run(tmp_path, n=40, n_test=20, names=names, annotators=panel)))
    assert "from the lowest to the highest of 14 annotators" in page.words
    assert all(name in page.words for name in names)


@pytest.mark.usefixtures("unsaved")
def test_integer_ids_and_repetitions_are_fine(tmp_path: Path) -> None:
    words = Page(report(make_run(tmp_path, n=40, n_test=20, repetitions=2))).words
    assert "×2" in words
    assert all(name in words for name in ANNOTATORS)


# numbers


def gold_and_labels() -> tuple[pd.Series, pd.Series]:
    gold = pd.Series(["a", "a", "a", "b", "b", "c"], index=list("uvwxyz"))
    return gold, pd.Series(["a", "a", "b", "b", None, "a"], index=list("uvwxyz"))


def test_confusion_counts_texts_without_a_label_apart() -> None:
    gold, labels = gold_and_labels()
    assert confusion(gold, labels, ["a", "b", "c"]).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]
    assert confusion(gold, labels.iloc[::-1], ["a", "b", "c"])[0, 0] == 2


def test_accuracy_counts_no_label_as_wrong_unless_told_otherwise() -> None:
    table = confusion(*gold_and_labels(), ["a", "b", "c"])
    assert accuracy(table) == pytest.approx(3 / 6)
    assert accuracy(table, decided=True) == pytest.approx(3 / 5)


def test_macro_f1_is_over_the_classes_with_gold() -> None:
    table = confusion(*gold_and_labels(), ["a", "b", "c", "never"])
    assert macro_f1(table) == pytest.approx((2 * 2 / (3 + 3) + 2 * 1 / (2 + 2) + 0) / 3)


def test_wilson_matches_a_worked_value() -> None:
    low, high = wilson(8, 10)  # Wilson 1927: (0.8 + 0.192 ± 1.96·sqrt(0.016 + 0.0096)) / 1.384
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 5)[0] == 0
    assert all(math.isnan(x) for x in wilson(0, 0))


def test_numbers_are_set_as_a_reader_expects() -> None:
    assert number(-0.12345) == "−0.123"
    assert number(-0.00001) == "0.000"
    assert points(0.0213) == "+2.1\u202fpp"
    assert points(-0.0001, unit=False) == "0.0"
    assert percent(0.5) == "50.0\u202f%"
    assert percent(3020 / 3021) == "> 99.9\u202f%"
    assert percent(0.0001) == "< 0.1\u202f%"
    assert percent(0.002, 0) == "< 1\u202f%"
    assert (percent(0), percent(1)) == ("0.0\u202f%", "100.0\u202f%")
    assert number(None) == number(math.nan) == percent(None) == "–"
    assert cut("one two three four", 9) == ("one two …", "one two three four")
    assert cut("short", 9) == ("short", "")
