"""README, docs and --help stay in step with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pandas as pd
import pytest

from consenso import cli
from consenso.annotate import AnnotateSettings, LLMAnnotator
from consenso.annotate.endpoints import resolve_model

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert sorted(re.findall(r"^## consenso (\S+)", COMMANDS, re.M)) == sorted(cli.cli.commands)


@pytest.mark.parametrize("name", cli.cli.commands)
def test_every_option_is_documented(name: str) -> None:
    section = COMMANDS.split(f"## consenso {name}\n")[1].split("\n## ")[0]
    for parameter in cli.cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_names_only_commands_that_exist() -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S))
    named = set(re.findall(r"^(?:\S+=\S+ )?consenso ([a-z]+)", shell, re.M))
    assert {"run", "init"} <= named <= set(cli.cli.commands)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_examples_run(page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip()


def test_the_first_screen_shows_two_targets_that_the_makefile_has() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)", first_screen, re.M) == ["demo", "test"]
    assert {"demo", "test"} <= set(re.findall(r"^(\w+):", makefile, re.M))


def test_the_annotators_of_the_page_on_annotating_are_valid() -> None:
    page = (ROOT / "docs/annotate.md").read_text(encoding="utf-8")
    blocks = [tomllib.loads(block)["annotate"] for block in re.findall(r"```toml\n(.*?)```", page, re.S)]
    assert len(blocks) >= 4
    for block in blocks:
        settings = AnnotateSettings.read(block)
        for one in settings.annotators:
            if isinstance(one, LLMAnnotator):
                assert resolve_model(one, settings.endpoints, {})[0].base_url
    keys = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert len(keys) >= 10
    assert keys <= set(LLMAnnotator.model_fields)


def test_the_page_on_consensus_names_every_method_and_measure() -> None:
    from consenso.consensus import METHODS
    from consenso.consensus.agreement import measure_agreement

    page = (ROOT / "docs" / "consensus.md").read_text(encoding="utf-8")
    votes = pd.DataFrame(
        {"text_id": [1, 1, 2, 2, 1], "annotator": list("ababa"), "label": list("12112"), "repetition": [0, 0, 0, 0, 1]}
    )
    measures = set(measure_agreement(votes, ordered=True)["measure"])
    assert len(measures) > 10
    for name in {*METHODS, *measures}:
        assert f"| `{name}`" in page or f", `{name}`" in page, f"docs/consensus.md does not name {name}"
