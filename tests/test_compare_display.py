"""show_verdict: what a notebook, a terminal and a Markdown file show."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from consenso.compare import compare_arms, show_verdict


def comparison(arms=("consensus", "gold-aligned", "gold"), students=("frozen",), seeds=5):
    rng = np.random.default_rng(1)
    codes, ids = rng.integers(0, 2, 200), [f"t{i}" for i in range(200)]
    blocks = [
        pd.DataFrame({"student": student, "arm": arm, "seed": s, "text_id": ids,
                      "predicted": np.where(rng.random(200) < 0.75, codes, 1 - codes).astype(str)})
        for student in students for arm in arms for s in range(seeds)
    ]  # fmt: skip
    return compare_arms(pd.concat(blocks), pd.Series(codes.astype(str), index=ids), metric="accuracy")


def test_the_plain_table_holds_the_contrasts_of_the_primary_metric():
    table = comparison()
    shown = show_verdict(table)
    lines = str(shown).splitlines()
    assert lines[0] == table.loc[0, "sentence"]
    assert lines[2].split("  ")[0].strip() == "contrast"
    assert "95 %" in lines[2]
    assert "90 %" in lines[2]
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "consensus − gold-aligned",
        "gold-aligned − gold",
        "consensus − gold",
    ]
    low, high = (f"{100 * table.loc[0, name]:+.1f}".replace("-", "−") for name in ("low", "high"))
    assert f"{low} to {high}" in lines[3]
    assert "5 seeds, 200 texts" in lines[3]


def test_html_and_markdown_say_the_same_and_are_escaped():
    table = comparison()
    table.loc[0, "sentence"] = table.loc[0, "verdict"] + ": a < b & c | d."
    shown = show_verdict(table)
    page, text = shown._repr_html_(), shown._repr_markdown_()
    assert "a &lt; b &amp; c" in page
    assert page.count("<tr>") == 1 + len(shown.rows)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert [html.unescape(cell) for cell in cells] == [cell for row in shown.rows for cell in row]
    assert f"**{table.loc[0, 'verdict']}** a < b & c | d." in text
    assert text.count("\n| ") + text.startswith("| ") >= len(shown.rows)


def test_students_and_a_missing_headline_are_said():
    both = show_verdict(comparison(students=("frozen", "linear")))
    assert [answer.student for answer in both.answers] == ["frozen", "linear"]
    assert both.header[-1] == "student"
    assert str(both).startswith("frozen: ")
    empty = show_verdict(comparison(arms=("gold", "gold-kept")))
    assert str(empty).startswith("No primary contrast")
    assert "No primary contrast" in empty._repr_html_()


def test_one_seed_shows_no_interval():
    shown = show_verdict(comparison(seeds=1))
    assert shown.rows[0][2:6] == ("", "", "", "NO VERDICT")
    assert "1 seed, 200 texts" in shown.rows[0]
