"""What goes into a paper: it says what the verdict allows, its numbers are the comparison's, its LaTeX compiles."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from consenso.compare.freezing import declare, freeze
from consenso.report.facts import Facts
from consenso.report.latex import escape_latex
from consenso.report.paper import paper_texts, write_paper
from consenso.report.paper_section import paper_section
from consenso.report.paper_words import arm_words
from consenso.report.references import REFERENCES
from consenso.report.settings import ReportSettings
from consenso.report.writing import write_report
from consenso.store import RunFolder
from consenso.tables import TABLES
from report_folder import comparison_of, guards_of, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("paper"), n=40, n_test=20)


def texts_of(folder):
    return paper_texts(Facts(folder, ReportSettings()))


def verdict_in(folder, verdict, **changes):
    """The texts where the primary contrast has this verdict (a star: within the margin)."""
    table = comparison_of(verdict, ["frozen"], n=20)
    for name, value in changes.items():
        table[name] = value
    folder.write("comparison", table)
    folder.write("guards", guards_of(verdict))
    return texts_of(folder)


CLAIMS = {
    "INVALID": "no conclusion can be drawn about",
    "UNSTABLE RECIPE": "is no evidence about the labels",
    "NO VERDICT": "from which no inference is possible",
    "BETTER": "reached a higher macro-F1 (",
    "WORSE": "reached a lower macro-F1 (",
    "WORSE*": "reached a lower macro-F1, a difference within the declared margin of ±2 percentage points",
    "EQUIVALENT": "reached an equivalent macro-F1 within the declared margin of ±2 percentage points",
    "NON-INFERIOR": "was non-inferior in macro-F1 with the declared margin of 2 percentage points",
    "INCONCLUSIVE": "showed neither a difference in macro-F1 nor equivalence within the declared margin",
}


@pytest.mark.parametrize("verdict", CLAIMS)
def test_the_sentence_claims_what_the_verdict_allows_and_no_more(folder, verdict):
    said = verdict_in(folder, verdict).sentence
    assert CLAIMS[verdict] in said
    others = [
        "higher",
        "lower",
        "reached an equivalent",
        "non-inferior",
        "inconclusive",
        "no conclusion",
        "no evidence",
        "no inference",
    ]
    mine = [word for word in others if word in said]
    assert len(mine) == 1, said
    assert "On support, " in said
    assert "on frozen MiniLM embeddings" in said
    assert "the consensus labels instead of the human labels of the same texts" in said or "UNSTABLE" in verdict


@pytest.mark.parametrize("verdict", ["BETTER", "WORSE*", "EQUIVALENT", "NON-INFERIOR", "INCONCLUSIVE"])
def test_the_sentence_holds_the_numbers_of_the_comparison(folder, verdict):
    said = verdict_in(folder, verdict).sentence.replace("\u202f", " ")
    row = comparison_of(verdict, ["frozen"], n=20).query("is_primary").iloc[0]
    signed = {
        name: f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high", "low90", "high90")
    }
    assert f"difference {signed['difference']} percentage points" in said
    assert f"95 % CI {signed['low']} to {signed['high']}; 90 % CI {signed['low90']} to {signed['high90']}" in said
    assert "3 seeds, 20 test texts" in said
    assert re.search(r"margin (of )?±?2 percentage points", said)


def test_an_invalid_contrast_has_no_numbers_to_write(folder):
    texts = verdict_in(folder, "INVALID")
    assert "−2.1" not in texts.sentence
    primary = next(row for row in texts.rows if row[0] == "consensus − gold-aligned")
    assert primary[1:8] == ("–",) * 7
    assert primary[-1] == "INVALID"


def test_levels_follow_alpha(folder):
    said = verdict_in(folder, "EQUIVALENT", alpha=0.05 / 3)
    assert "98.33 % CI" in said.sentence.replace("\u202f", " ")
    assert "96.67 % CI" in said.sentence.replace("\u202f", " ")
    assert "α = 0.0167" in said.sentence
    assert [name.replace("\u202f", " ") for name, _ in said.columns][4:6] == ["98.33 % CI", "96.67 % CI"]


@pytest.mark.parametrize(
    ("changes", "size", "cites"),
    [
        ({"replication": "bootstrap"}, "3 bootstrap resamples of the training texts", "satterthwaite1946"),
        ({"replication": "fold", "k": 10}, "10 folds × 3 seeds", "nadeau2003"),
        ({"replication": "seed"}, "3 seeds", "satterthwaite1946"),
    ],
)
def test_what_was_repeated_is_named(folder, changes, size, cites):
    texts = verdict_in(folder, "EQUIVALENT", **changes)
    assert f"{size}, 20 test texts" in texts.sentence
    assert f"[@{cites}]" in texts.methods
    assert f"{{{cites}," in texts.citation
    assert (cites == "nadeau2003") == ("nadeau2003" in texts.citation)


def in_folds(folder, k=2):
    """The texts of the run in k folds: each text is tested on in one of them."""
    ids = sorted(folder.read("folds")["text_id"])
    rows = [(fold, text, "test" if place % k == fold else "dev" if place % 5 == 0 else "train")
            for fold in range(k) for place, text in enumerate(ids)]  # fmt: skip
    folder.write("folds", pd.DataFrame(rows, columns=["fold", "text_id", "part"]))
    trainings = folder.read("trainings")
    folder.write("trainings", pd.concat([trainings.assign(fold=fold) for fold in range(k)]))
    folder.write("comparison", comparison_of("EQUIVALENT", ["frozen"], n=20).assign(replication="fold", k=k))


def arms_of(texts):
    """ARMS of one arm whose training rows are these texts, in this order."""
    frame = pd.DataFrame(
        {"text_id": texts, "student": "all", "arm": "consensus", "fold": 0, "seed": 1, "part": "train"}
    )
    return frame.assign(row=range(len(frame)), target="billing", source="consensus")


@pytest.mark.parametrize("repeated", [False, True])
def test_in_folds_the_methods_say_that_each_seed_draws_its_own_resample(tmp_path, repeated):
    folder = make_run(tmp_path, n=40, n_test=20)
    in_folds(folder)
    given = arms_of(["a", "b", "b"] if repeated else ["a", "b", "c"])
    each = arms_of(["a", "a", "b", "b"]).assign(arm="perspectivist")  # a row per annotator is no resample
    folder.write("arms", pd.concat([each, given]))
    said = texts_of(folder).methods
    assert "the same 3 seeds (1 to 3) in each of the 2 folds" in said
    assert (
        "with its own bootstrap resample of the training texts, the same in every arm: 30 runs." in said
    ) == repeated


def test_in_folds_gold_is_kept_for_the_verdict(tmp_path):
    folder = make_run(tmp_path, n=40, n_test=20)
    in_folds(folder)
    facts = Facts(folder, ReportSettings())
    assert facts.open_gold is None
    assert facts.no_gold == "every text with gold is a test text of some fold; test gold is kept for the verdict"
    write_report(folder)
    shown = (folder.path / "report.md").read_text(encoding="utf-8")
    assert "every text with gold is a test text of some fold" in shown
    assert "no voted train or dev text has gold" not in shown


def test_a_second_analysis_is_told_with_its_verdict(folder):
    verdict_in(folder, "EQUIVALENT")
    table = folder.read("comparison")
    assert "second analysis" not in texts_of(folder).methods
    rescue = table.assign(attempt="rescue", verdict="WORSE", S=7)
    folder.write("comparison", pd.concat([table.assign(attempt="as_run"), rescue]))
    said = texts_of(folder).methods
    assert (
        "replaced by fresh ones in all arms alike; its verdict is WORSE but within the margin: difference −0.2 " in said
    )
    assert "7 seeds, 20 test texts" in said


def test_every_number_of_the_table_is_that_of_the_comparison(folder):
    texts = verdict_in(folder, "EQUIVALENT")
    table = comparison_of("EQUIVALENT", ["frozen"], n=20).query("metric == 'macro_f1'").set_index("contrast")
    assert {row[0] for row in texts.rows} == set(table.index)
    for row in texts.rows:
        given = table.loc[row[0]]
        assert float(row[1]) == pytest.approx(given["arm_mean"], abs=5.1e-4)
        assert float(row[2]) == pytest.approx(given["control_mean"], abs=5.1e-4)
        assert float(row[3].replace("−", "-")) == pytest.approx(100 * given["difference"], abs=0.051)
        for cell, names in ((row[4], ("low", "high")), (row[5], ("low90", "high90"))):
            found = [float(part) for part in cell.strip("[]").replace("−", "-").split(",")]
            assert found == pytest.approx([100 * given[name] for name in names], abs=0.051)
        assert (int(row[8]), int(row[9])) == (given["S"], given["n"])
        assert row[10] == given["verdict"]


def test_a_choice_made_after_seeing_scores_makes_the_sentence_exploratory(folder):
    verdict_in(folder, "EQUIVALENT")
    late = {"guard": "fixed before scoring", "scope": "frozen", "outcome": "warned", "invalidates": False,
            "figures": None, "reason": "changed after seeing test scores: margin: 0.01 → 0.02"}  # fmt: skip
    folder.write("guards", pd.concat([guards_of("EQUIVALENT"), pd.DataFrame([late])], ignore_index=True))
    texts = texts_of(folder)
    assert texts.sentence.startswith(
        "In an exploratory analysis (choices were made or changed after test scores were seen), on "
    )
    assert "Not pre-registered as analysed: changed after seeing test scores: margin: 0.01 → 0.02." in texts.methods


def test_a_freeze_is_told_with_its_hash(folder):
    verdict_in(folder, "EQUIVALENT")
    given = {"margin": 0.02, "arm": "a", "control": "b"}
    frozen = freeze(declare(compare=given, consensus={}, students={}, panel={}, data={}))
    figures = json.dumps({"frozen_at": frozen.at, "hash": frozen.hash})
    row = {"guard": "fixed before scoring", "scope": "frozen", "outcome": "passed", "invalidates": False,
           "figures": figures, "reason": f"as frozen on {frozen.at}"}  # fmt: skip
    folder.write("guards", pd.concat([guards_of("EQUIVALENT"), pd.DataFrame([row])], ignore_index=True))
    said = texts_of(folder)
    assert (
        f"were frozen on {frozen.at}, before any test score was seen (frozen.json, sha256 {frozen.hash})"
        in said.methods
    )
    assert not said.sentence.startswith("In an exploratory")


def test_collapse_rates_stand_in_the_methods(folder):
    verdict_in(folder, "EQUIVALENT")
    arms = {"consensus": {"collapsed": 1, "failed": 0, "runs": 10, "low": 0.018, "high": 0.404},
            "gold-aligned": {"collapsed": 0, "failed": 0, "runs": 10, "low": 0.0, "high": 0.28}}  # fmt: skip
    row = {"guard": "collapse", "scope": "frozen", "outcome": "warned", "invalidates": True,
           "figures": json.dumps({"arms": arms}), "reason": "x"}  # fmt: skip
    folder.write("guards", pd.concat([guards_of("EQUIVALENT"), pd.DataFrame([row])], ignore_index=True))
    said = texts_of(folder).methods.replace("\u202f", " ")
    assert (
        "kept in the primary analysis as run: 1 of 10 in consensus (95 % interval 2 % to 40 %) [@wilson1927]." in said
    )


def test_the_methods_paragraph_has_every_number(folder):
    said = verdict_in(folder, "INCONCLUSIVE").methods_paragraph.replace("\u202f", " ")
    folds, labels, votes = (folder.read(name) for name in ("folds", "labels", "votes"))
    parts = folds["part"].value_counts()
    assert f"{parts['train']} training texts, {parts['dev']} development texts and {parts['test']} test texts" in said
    assert "1 text that repeated a text of another part (1 exact) was removed from every arm." in said
    valid = votes["label"].notna()
    assert f"{valid.sum()} of {len(votes)} answers ({100 * valid.mean():.1f} %) held a valid label" in said
    open_ = labels[labels["text_id"].isin(folds.loc[folds["part"] != "test", "text_id"])]
    assert f"{open_['label'].notna().sum()} of {len(open_)} training and development texts" in said
    assert f"{open_['is_problematic'].sum()} count as problematic" in said
    assert "Krippendorff’s alpha = 0.583 (95 % interval 0.553 to 0.613, 60 texts) (Krippendorff 2011)" in said
    assert "the same 3 seeds (1 to 3): 15 runs" in said
    for name in (
        "gemma3-4b",
        "phi-4",
        "“plain”",
        "macro-F1",
        "±2 percentage points",
        "(Holm 1979)",
        "(Schuirmann 1987)",
    ):
        assert name in said


def test_each_citation_is_in_the_bibliography_and_no_other(folder):
    texts = verdict_in(folder, "INCONCLUSIVE")
    cited = set(re.findall(r"\[@(\w+)\]", texts.methods))
    assert set(re.findall(r"^@\w+\{(\w+),", texts.citation, re.MULTILINE)) == cited
    assert "dawid1979" not in cited  # the labels are the majority's
    assert cited <= {*REFERENCES, "consenso"}


def test_the_method_brings_its_reference(folder, tmp_path):
    made = make_run(tmp_path, n=40, n_test=20)
    made.write("labels", made.read("labels").assign(method="dawid_skene"))
    texts = texts_of(made)
    assert "“dawid_skene” [@dawid1979]" in texts.methods
    assert "(Dawid and Skene 1979): each annotator’s confusion matrix" in texts.methods_paragraph


ALL = [name for name in TABLES if name not in {"texts"}]


@pytest.mark.parametrize("without", [[name] for name in ("comparison", "guards", "leaks", "annotators", "votes", "labels",
    "agreement", "trainings", "arms", "folds", "predictions")] + [ALL])  # fmt: skip
def test_what_is_not_known_is_left_out(tmp_path, without):
    texts = texts_of(make_run(tmp_path, n=40, n_test=20, without=without))
    for text in (texts.as_markdown(), texts.as_latex(), texts.citation):
        assert not re.search(r"\b(None|nan|NaN|NaT|<NA>)\b", text)
    if "comparison" in without:
        assert texts.sentence.startswith("There is no sentence to write yet.")
        assert not texts.rows
        assert texts.latex_table == texts.markdown_table == ""
        assert "Schuirmann" not in texts.methods_paragraph
    check_latex(texts.as_latex())


def test_a_folder_with_a_record_alone_gives_texts(tmp_path):
    folder = RunFolder(tmp_path)
    folder.note("name", "bare")
    texts = texts_of(folder)
    assert texts.methods == "All steps were done with consenso [@consenso]."
    assert texts.sentence.startswith("There is no sentence to write yet.")


def test_an_outdated_comparison_gives_no_sentence(tmp_path):
    folder = make_run(tmp_path, n=40, n_test=20)
    folder.flag_stages({"compare": True})
    texts = texts_of(folder)
    assert "out of date" in texts.sentence
    assert not texts.rows
    assert "validity check" not in texts.methods


def test_several_students_each_have_their_sentence_and_variations_none(tmp_path):
    folder = make_run(tmp_path, n=40, n_test=20, students=["frozen", "encoder", "frozen (gold dev)"])
    texts = texts_of(folder)
    assert texts.sentence.count("On support, ") == 2
    assert "gold dev" not in texts.sentence
    assert {row[0] for row in texts.rows} == {"frozen", "encoder", "frozen (gold dev)"}
    assert "A declared variant was a linear classifier on frozen MiniLM embeddings (gold dev)" in texts.methods
    assert texts.methods.count("One student was") == 2


# files


def test_write_paper_writes_three_files_and_the_same_bytes_again(tmp_path):
    folder = make_run(tmp_path, n=40, n_test=20)
    paths = write_paper(folder)
    assert sorted(path.name for path in paths.values()) == ["paper.bib", "paper.md", "paper.tex"]
    before = {name: path.read_bytes() for name, path in paths.items()}
    assert {name: path.read_bytes() for name, path in write_paper(tmp_path).items()} == before
    assert b"| consensus " in before["paper.md"]


def test_the_section_of_the_report_shows_the_same_texts(folder):
    texts = verdict_in(folder, "INCONCLUSIVE")
    section = paper_section(Facts(folder, ReportSettings()))
    shown = [block.text for block in section.blocks if block.kind == "note"]
    assert texts.sentence in shown
    assert texts.methods_paragraph in shown
    grid = next(block for block in section.blocks if block.kind == "grid")
    assert [[cell.text for cell in row] for row in grid.rows] == [list(row) for row in texts.rows]


# LaTeX

COMMANDS = {
    "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "cite", "textbackslash",
    "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "ldots", "pm", "times", "geq", "leq",
    "rightarrow", "alpha", "delta", "infty", "footnotesize", "setlength", "tabcolsep",
}  # fmt: skip


SHRINK = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""Of graphicx: as wide as the text at most."""


def check_latex(text):  # noqa: PLR0912 - a reader of one sign at a time
    """Raise where LaTeX would: unknown commands, braces or mathematics left open, bare specials, ragged tables."""
    body = re.sub(r"(?m)^%.*$", "", text).replace(SHRINK, "{").replace("\\end{tabular}%", "\\end{tabular}")
    open_, tables, math, place = [], [], False, 0
    columns = cells = None
    while place < len(body):
        sign = body[place]
        if sign == "\\":
            command = re.match(r"\\([a-zA-Z]+|.)", body[place:], re.DOTALL)[1]
            place += 1 + len(command)
            if command == "\\":
                assert columns is not None, "a line break outside a table"
                assert cells == columns, f"{cells} cells in a row of {columns}"
                assert not re.match(r"\s*[\[*]", body[place:]), "a bracket after a line break"
                cells = 1
            elif command.isalpha():
                assert command in COMMANDS, command
                if command in {"begin", "end"}:
                    name = re.match(r"\{([a-z]+)\}", body[place:])[1]
                    place += len(name) + 2
                    if command == "begin":
                        tables.append(name)
                        if name == "tabular":
                            form = re.match(r"\{([lrc]+)\}", body[place:])[1]
                            columns, cells, place = len(form), 1, place + len(form) + 2
                    else:
                        assert tables.pop() == name
                        columns = None if name == "tabular" else columns
                elif command in {"cite", "label"}:
                    place += re.match(r"\{[a-z:]+\d*\}", body[place:]).end()
            else:
                assert command in "&%$#_{},", command
            continue
        if sign == "$":
            math = not math
        elif sign == "{":
            open_.append(place)
        elif sign == "}":
            open_.pop()
        elif sign == "&":
            assert columns is not None, "an & outside a table"
            cells += 1
        else:
            assert sign not in '%#_^|<>"', f"a bare {sign!r} near {body[max(0, place - 20) : place + 20]!r}"
            assert not (math and sign.isalpha())
            assert sign in "\n~" or sign.isprintable(), repr(sign)
        place += 1
    assert not open_
    assert not tables
    assert not math


def test_the_checker_finds_what_latex_would_refuse():
    for wrong in ("a 50 % of", "a_b", "{", "}", "$x", r"\foo", "a & b", r"\begin{table}", "a^b", "#1",
                  "\\begin{tabular}{lr}\na \\\\\n\\end{tabular}", "\\begin{tabular}{l}\na \\\\\n[b] \\\\\n\\end{tabular}"):  # fmt: skip
        with pytest.raises((AssertionError, IndexError)):
            check_latex(wrong)


NASTY = r"50 % \off {a_b} #1 & Co $5 ^~ <x> |y| “z” [opt] — ≥ Größe \\ \end{table}"


def test_latex_escapes_every_special_character():
    check_latex(escape_latex(NASTY))
    assert escape_latex("a_b & 50 %") == r"a\_b \& 50 \%"
    assert escape_latex("\\") == r"\textbackslash{}"
    assert escape_latex("two\nlines\t\x00!") == "two lines !"
    assert escape_latex("Größe 大") == "Größe 大"


def test_latex_and_markdown_survive_names_of_any_kind(tmp_path):
    names = (NASTY, "b_2", "50%", "c & d", "x^2", "[1]")
    panel = {"gpt_4o & co": 0.8, "50%_model#1": 0.7, "[odd]": 0.75}
    folder = make_run(
        tmp_path, n=40, n_test=20, names=names, annotators=panel, noted={"name": "data_set & 100% #1 {x}"}
    )
    folder.write("comparison", comparison_of("BETTER", ["frozen"]).assign(dataset="data_set & 100% #1 {x}"))
    texts = texts_of(folder)
    check_latex(texts.as_latex())
    assert r"On data\_set \& 100\% \#1 \{x\}" in texts.as_latex()
    assert r"gpt\_4o \& co" in texts.as_latex()
    assert "\\end{table}\n" in texts.as_latex().replace(r"\textbackslash{}end", "")
    lines = [line for line in texts.markdown_table.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(texts.columns) + 1}


@pytest.mark.parametrize("verdict", CLAIMS)
def test_the_latex_of_every_verdict_compiles(folder, verdict):
    check_latex(verdict_in(folder, verdict).as_latex())


def test_bibtex_is_balanced_and_complete():
    for key, reference in REFERENCES.items():
        fields = dict(reference.fields)
        assert {"author", "title", "year"} <= set(fields), key
        assert key.endswith(fields["year"])
        assert fields["year"] in reference.name
        assert all(value.count("{") == value.count("}") for value in fields.values())


def test_every_arm_of_the_grammar_has_words():
    for arm in ("gold@250", "consensus+200", "consensus+200:random", "single:gpt_4", "panel:3", "perspectivist"):
        assert not arm_words(arm).startswith("“")
    assert arm_words("gold-aligned", "consensus") == "the human labels of the same texts"
    assert arm_words("mine") == "“mine”"
