"""The guide is an executed notebook: every cell ran, in order, without an error, on the verbs that exist."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest

import consenso
from making import shared

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "guide" / "can-i-replace-my-human-labels.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_ran_in_order_and_none_failed():
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds
    assert kinds.count("execute_result") + kinds.count("display_data") >= 6


def test_the_verdict_of_the_outputs_is_one_that_a_paper_may_quote():
    said = json.dumps([cell["outputs"] for cell in code_cells()], ensure_ascii=False)
    verdict = re.search(r"verdict='([A-Z-]+)'", said)
    assert verdict is not None
    assert verdict[1] in {"BETTER", "WORSE", "EQUIVALENT", "NON-INFERIOR", "INCONCLUSIVE"}
    assert "filtering not shown to help" in said
    assert "The verdict in a sentence" in said


def test_the_verbs_of_the_guide_exist():
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in code_cells()))
    used = {
        node.attr for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "consenso"
    }  # fmt: skip
    assert {"run", "show_verdict", "freeze_experiment", "plan_comparison", "write_paper"} <= used
    assert used <= set(consenso.__all__)


@pytest.mark.slow
def test_the_guide_runs_anew_and_says_the_same(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `guide`")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("CONSENSO_DATA", str(shared("babe_llm").parent))
    monkeypatch.setenv("CONSENSO_GUIDE_RUN", str(tmp_path / "run"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=3600, resources={"metadata": {"path": os.fspath(NOTEBOOK.parent)}}
    ).execute()
    sentence = re.compile(r"sentence='([^']+)'")
    before, after = (sentence.search(json.dumps(cells, ensure_ascii=False)) for cells in (code_cells(), notebook.cells))
    assert before is not None
    assert after is not None
    assert before[1] == after[1]
