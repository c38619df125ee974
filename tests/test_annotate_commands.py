"""LLMs behind the commands: what is printed, what is asked, which exit code; and what becomes of their votes in a run."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mock_server import MockServer, prompt_text

from asking import prompts, sent
from consenso import cli
from consenso.store import RunFolder
from making import WORDS, write_texts

TEXTS = 240
NO_TEST = 192
"""Texts of write_texts that are not test texts."""


def by_words(body: dict[str, Any], number: int) -> str:
    """What a good annotator says: the topic most of whose words stand in the text."""
    text = prompt_text(body["messages"]).split("<text>")[-1]
    found = re.findall(r"\w+", text)
    return max(WORDS, key=lambda topic: sum(word in WORDS[topic] for word in found))


@pytest.fixture
def server() -> Iterator[MockServer]:
    with MockServer(labels=tuple(WORDS), answer=by_words) as running:
        yield running


def write(folder: Path, url: str, *annotators: str, more: str = "", endpoint: str = "", annotate: str = "") -> Path:
    """Write texts and an experiment whose endpoint `lab` is the server."""
    write_texts(folder)
    listed = "".join(f"[[annotate.annotators]]\n{one}\n" for one in annotators or ('name = "gpt"\nmodel = "lab/gpt"',))
    (folder / "experiment.toml").write_text(
        f"""name = "small"
[data]
source = "texts.csv"
[annotate]
drain_s = 5
{annotate}
{listed}
[annotate.endpoints.lab]
base_url = "{url}/v1"
structured = "off"
timeout_s = 2
patience_s = 1
{endpoint}
[consensus]
bootstrap = 50
[finetune]
students = ["linear"]
seeds = 3
arms = ["gold", "gold-aligned", "consensus", "consensus-kept", "floor"]
[compare]
metric = "accuracy"
margin = 0.05
{more}
""",
        encoding="utf-8",
    )
    return folder / "experiment.toml"


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "experiment.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def table(folder: Path, name: str) -> pd.DataFrame:
    return RunFolder(folder / "runs" / "small").read(name)


# -- what the commands print --


def test_a_plan_counts_everything_and_sends_nothing(say, tmp_path: Path, server: MockServer) -> None:
    write(
        tmp_path, server.url,
        'name = "gpt"\nmodel = "lab/gpt"\nrepetitions = 2\nprice = { input = 1.0, output = 2.0 }\n'
        'variants = { simple = { prompt = "simple" } }',
        'name = "llama"\nmodel = "lab/llama"',
        annotate="budget = 0.001",
    )  # fmt: skip
    said = say("annotate", "--plan")
    assert said.code == 0, said.err
    assert "gpt (lab/gpt): 480 requests" in said.out
    assert "gpt~simple (lab/gpt): 480 requests" in said.out
    assert "llama (lab/llama): 240 requests" in said.out
    assert "1,200 requests" in said.out
    assert "which is not enough" in said.out
    assert sent(server) == 0
    rows = json.loads(say("annotate", "--plan", "--json").out)
    assert [row["to_ask"] for row in rows] == [480, 480, 240]
    assert rows[0]["cost"] > 0


def test_a_plan_after_a_run_knows_what_is_kept_and_what_replies_cost(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    assert say("annotate").code == 0
    with (tmp_path / "texts.csv").open("a", encoding="utf-8") as file:
        file.write("t999,a new match of the team,sport,train\n")
    said = say("annotate", "--plan")
    assert "1 requests to send, 240 answers kept" in said.out
    assert "the means of 240 answers" in said.out
    assert sent(server) == TEXTS


def test_a_plan_says_which_key_is_missing(say, tmp_path: Path, server: MockServer, monkeypatch) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)
    write(tmp_path, server.url, endpoint='key_env = "LAB_KEY"')
    assert "LAB_KEY is not set yet" in say("annotate", "--plan").out
    (tmp_path / ".env").write_text("LAB_KEY=secret-value\n", encoding="utf-8")
    said = say("annotate", "--plan")
    assert "LAB_KEY" not in said.out
    assert "secret-value" not in said.out + said.err


@pytest.mark.parametrize("ignored", [(), ("response_format", "logprobs")])
def test_a_probe_says_what_is_honoured_and_what_is_dropped(say, tmp_path: Path, ignored: tuple[str, ...]) -> None:
    with MockServer(labels=tuple(WORDS), answer="sample", ignore=ignored) as server:
        write(tmp_path, server.url)
        said = say("annotate", "--probe")
        assert said.code == 0, said.err
        for feature in ("schema", "logprobs"):
            assert (f"{feature}: honoured" in said.out) == (not ignored)
        assert "seed: honoured" in said.out
        assert 0 < sent(server) < 12


def test_annotate_prints_who_answered_and_the_ledger(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    said = say("annotate")
    assert said.code == 0, said.err
    assert re.search(r"gpt\s+240\s+240\s+240", said.out)
    assert "240 answers kept; no request was paid without an answer" in said.out
    status = say("status")
    assert re.search(r"annotate\s+done", status.out)


def test_the_log_can_be_asked_and_exported(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    say("annotate")
    run = tmp_path / "runs" / "small"
    said = say("log", run)
    assert re.search(r"gpt.*\b240\b", said.out)
    assert "no request was paid without an answer" in said.out
    one = json.loads(say("log", run, "--text", "t003", "--json").out)
    assert [(row["text_id"], row["status"], row["label"]) for row in one] == [("t003", "ok", "sport")]
    few = say("log", run, "--label", "money", "--limit", "2")
    assert few.out.count("money") >= 2
    assert "with --to FILE" in few.out
    for name in ("all.csv", "all.parquet"):
        assert say("log", run, "--to", tmp_path / name).code == 0
    read = pd.read_csv(tmp_path / "all.csv", keep_default_na=False), pd.read_parquet(tmp_path / "all.parquet")
    assert [len(frame) for frame in read] == [TEXTS, TEXTS]
    assert list(read[0].columns) == list(read[1].columns)
    bad = say("log", run, "--status", "okay")
    assert bad.code == 2
    assert len(bad.err.strip().splitlines()) == 1 or "Usage" in bad.err


def test_labels_go_to_label_studio_and_argilla(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    assert say("consensus").code == 0
    run = tmp_path / "runs" / "small"
    for tool in ("label-studio", "argilla"):
        said = say("export", run, f"--{tool}", "--to", tmp_path / tool)
        assert said.code == 0, said.err
        assert max(path.stat().st_size for path in (tmp_path / tool).rglob("*.json")) > 10_000


@pytest.mark.parametrize("temperature", ["", "ignored"])
def test_a_seed_counts_only_where_replies_vary(say, tmp_path: Path, temperature: str) -> None:
    with MockServer(labels=tuple(WORDS), answer="fixed:the same again" if temperature else "sample") as server:
        write(tmp_path, server.url)
        said = say("annotate", "--probe")
        assert said.code == 0, said.err
        assert ("seed: honoured" in said.out) == (not temperature), said.out


# -- what goes wrong --


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def one_line(said: Any) -> str:
    lines = [line for line in said.err.strip().splitlines() if line.startswith("consenso: ")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    return str(lines[0])


MISTAKES: Mapping[str, tuple[dict[str, Any], str, int, str]] = {
    "wrong key": ({"auth_key": "right"}, 'key_env = "LAB_KEY"', 2, "key"),
    "no key": ({"auth_key": "right"}, 'key_env = "LAB_KEY_MISSING"', 2, "LAB_KEY_MISSING"),
    "wrong model": ({"models": ("other",)}, "", 2, "gpt"),
    "out of quota": ({"quota": 0}, "", 2, "quota"),
    "never answers": ({"rate_hang": 1.0}, "", 1, "never answered"),
    "always 500": ({"rate_500": 1.0}, "", 1, "only fails"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_or_a_dead_endpoint_ends_in_one_line(name: str, say, tmp_path: Path, monkeypatch) -> None:
    options, endpoint, code, word = MISTAKES[name]
    monkeypatch.setenv("LAB_KEY", "wrong-secret")
    with MockServer(labels=tuple(WORDS), answer=by_words, **options) as server:
        write(tmp_path, server.url, endpoint=endpoint)
        said = say("annotate")
        assert (said.code, word in one_line(said)) == (code, True), said.err
        assert "wrong-secret" not in said.err + said.out
        assert sent(server) < 40
        server.configure(auth_key=None, models=None, quota=None, rate_hang=0.0, rate_500=0.0)
        monkeypatch.setenv("LAB_KEY_MISSING", "now-set")
        again = say("annotate")
        assert again.code == 0, again.err
        assert len(table(tmp_path, "votes")) == TEXTS


def test_what_an_endpoint_honours_is_found_out_in_spite_of_faults(say, tmp_path: Path) -> None:
    faults = ("429", "500", "ok", "500")  # the question, whether it answers at all, and the question again
    with MockServer(labels=tuple(WORDS), faults=faults, retry_after=0.1) as server:
        write(tmp_path, server.url)
        edit(tmp_path, 'structured = "off"', 'structured = "ask"')
        edit(tmp_path, "patience_s = 1\n", "patience_s = 9\n")
        said = say("annotate")
        assert said.code == 0, said.err
        asked = [one["body"] for one in server.requests if one["path"].endswith("/completions")]
        assert sum("response_format" in body for body in asked) > TEXTS


def test_a_question_about_an_endpoint_does_not_hang(say, tmp_path: Path) -> None:
    with MockServer(labels=tuple(WORDS), rate_hang=1.0) as server:
        write(tmp_path, server.url)
        edit(tmp_path, 'structured = "off"', 'structured = "ask"')
        began = time.monotonic()
        said = say("annotate")
        assert said.code == 1
        assert "never answered" in one_line(said)
        assert time.monotonic() - began < 15


def test_nobody_at_the_address(say, tmp_path: Path) -> None:
    write(tmp_path, closed_port())
    said = say("annotate")
    assert said.code == 1
    assert "127.0.0.1" in one_line(said)


def test_one_dead_endpoint_does_not_stop_the_other(say, tmp_path: Path, server: MockServer) -> None:
    write(
        tmp_path, server.url, 'name = "gpt"\nmodel = "lab/gpt"', 'name = "dead"\nmodel = "dead/gpt"',
        more=f'[annotate.endpoints.dead]\nbase_url = "{closed_port()}/v1"\npatience_s = 1\n',
    )  # fmt: skip
    said = say("annotate")
    assert said.code in {2, 3}
    assert "dead" in one_line(said)
    assert sent(server) == TEXTS
    edit(tmp_path, 'name = "dead"\nmodel = "dead/gpt"', 'name = "dead"\nmodel = "lab/llama"')
    assert say("annotate").code == 0
    assert sent(server) == 2 * TEXTS


def test_a_budget_stops_with_5_and_a_larger_one_goes_on(say, tmp_path: Path, server: MockServer) -> None:
    write(
        tmp_path, server.url, 'name = "gpt"\nmodel = "lab/gpt"\nprice = { input = 10.0, output = 10.0 }',
        annotate="budget = 0.05", endpoint="max_in_flight = 4",
    )  # fmt: skip
    said = say("annotate")
    assert said.code == 5, said.err
    assert "budget" in one_line(said)
    asked = sent(server)
    assert 0 < asked < TEXTS
    edit(tmp_path, "budget = 0.05", "budget = 50")
    assert say("annotate").code == 0
    assert sent(server) == TEXTS


def test_failed_answers_are_asked_again_by_the_next_run_alone(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url, annotate="failed_limit = 1.0")
    server.configure(rate_500=0.4)
    first = say("annotate")
    votes = table(tmp_path, "votes")
    missed = int((votes["status"] != "ok").sum())
    assert votes.loc[votes["status"] != "ok", "label"].isna().all()
    assert len(votes) == TEXTS
    server.configure(rate_500=0.0)
    assert first.code in {0, 3}, first.err
    asked = sent(server)
    assert say("annotate").code == 0
    failed = int((votes["status"] == "failed").sum())
    assert sent(server) - asked == failed
    assert missed >= failed


def test_no_valid_answer_at_all_points_to_the_log(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    server.configure(rate_invalid=1.0)
    said = say("annotate")
    assert said.code == 2
    assert "consenso log" in one_line(said)


def test_unknown_parameters_and_providers_are_mistakes_with_a_hint(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url, 'name = "gpt"\nmodel = "olama/qwen3:8b"')
    said = say("annotate")
    assert said.code == 2
    assert "ollama" in one_line(said)
    write(tmp_path, server.url, 'name = "gpt"\nmodel = "openai/gpt-4o-mini"\nparameters = { temprature = 0.1 }')
    said = say("annotate", "--plan")
    assert said.code == 2
    assert "temperature" in one_line(said)
    assert sent(server) == 0


# -- what becomes of the votes --


def test_a_run_with_llms_ends_with_a_verdict_and_tells_of_the_variant(say, tmp_path: Path, server: MockServer) -> None:
    write(
        tmp_path, server.url, 'name = "gpt"\nmodel = "lab/gpt"\nvariants = { simple = { prompt = "simple" } }',
        'name = "llama"\nmodel = "lab/llama"',
    )  # fmt: skip
    said = say("run", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["verdict"]
    assert set(table(tmp_path, "votes")["annotator"]) == {"gpt", "llama"}
    assert set(table(tmp_path, "variant_votes")["annotator"]) == {"gpt~simple"}
    row = table(tmp_path, "variants").iloc[0]
    assert (row["annotator"], row["variant"], row["n"]) == ("gpt", "simple", TEXTS)
    report = (tmp_path / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    assert "Variants: another way of asking" in report
    before = table(tmp_path, "labels")
    assert set(before["n_votes"]) == {2}
    edit(tmp_path, "[consensus]\n", "[consensus]\nvariants = true\n")
    asked = sent(server)
    assert say("consensus").code == 0
    assert set(table(tmp_path, "labels")["n_votes"]) == {3}
    assert sent(server) == asked


def test_examples_and_candidates_use_gold_and_leave_the_aligned_arms(say, tmp_path: Path, server: MockServer) -> None:
    write(
        tmp_path, server.url, 'name = "gpt"\nmodel = "lab/gpt"\nprompt = "few_shot"\nexamples = 2',
        more="[annotate.candidates]\nk = 2\ntrain = 30\n",
    )  # fmt: skip
    said = say("run")
    assert said.code == 0, said.err
    used = table(tmp_path, "gold_used")
    assert used["purpose"].value_counts().to_dict() == {"candidates": 30, "examples": 6}
    texts = table(tmp_path, "texts").set_index("text_id")
    folds = table(tmp_path, "folds").set_index("text_id")
    assert set(folds.loc[used["text_id"], "part"]) == {"train"}
    arms = table(tmp_path, "arms")
    for arm in ("gold-aligned", "consensus"):
        mine = arms[(arms["arm"] == arm) & (folds.reindex(arms["text_id"])["part"].to_numpy() == "train")]
        assert not set(mine["text_id"]) & set(used["text_id"]), arm
    shown = used.loc[used["purpose"] == "examples", "text_id"]
    asked = [
        "\n".join(message["content"] for message in one["body"]["messages"])
        for one in server.requests
        if "chat" in one["path"]
    ]
    for text_id in shown:
        assert any(texts.loc[text_id, "text"] in body for body in asked)  # where its label is a candidate
    test_texts = set(texts.loc[folds.loc[folds["part"] == "test"].index, "text"])
    assert not any(sum(text in body for text in test_texts) > 1 for body in asked)
    offered = table(tmp_path, "candidates")
    assert {len(json.loads(labels) if isinstance(labels, str) else labels) for labels in offered["offered"]} == {2}
    recall = table(tmp_path, "recall")
    assert recall["recall"].is_monotonic_increasing


def test_how_answers_are_got_repeats_no_stage(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    assert say("consensus").code == 0
    asked = sent(server)
    edit(tmp_path, "timeout_s = 2", "timeout_s = 9\nmax_in_flight = 3")
    edit(tmp_path, "drain_s = 5", "drain_s = 6\nbudget = 3.0\nfailed_limit = 0.2")
    edit(tmp_path, 'model = "lab/gpt"', 'model = "lab/gpt"\nprice = { input = 1.0, output = 1.0 }')
    said = say("status")
    assert re.search(r"annotate\s+done", said.out), said.out
    assert say("consensus").code == 0
    assert sent(server) == asked


def test_parts_leave_the_test_texts_out(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url, annotate='parts = ["train", "dev"]')
    said = say("run")
    assert said.code == 0, said.err
    assert sent(server) == NO_TEST
    assert len(table(tmp_path, "votes")) == NO_TEST
    assert len(prompts(server)) == NO_TEST


def test_a_vote_log_can_be_shared_by_two_experiments(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url, annotate='log = "shared.sqlite"')
    assert say("annotate").code == 0
    edit(tmp_path, 'name = "small"', 'name = "other"')
    assert say("annotate").code == 0
    assert sent(server) == TEXTS
    assert (tmp_path / "shared.sqlite").exists()


def test_batch_files_by_the_command(say, tmp_path: Path) -> None:
    with MockServer(labels=tuple(WORDS), answer=by_words, batch_delay=1.5) as server:
        write(tmp_path, server.url, endpoint="batch = true")
        left = say("annotate", "--batch", "--no-wait")
        assert left.code == 3, left.err
        assert "batch" in one_line(left)
        done = say("annotate", "--batch")
        assert done.code == 0, done.err
        assert len(table(tmp_path, "votes").query("status == 'ok'")) == TEXTS
        assert sent(server) <= TEXTS


def test_a_model_that_changed_stops_and_asks(say, tmp_path: Path) -> None:
    with MockServer(labels=tuple(WORDS), answer=by_words, models=("gpt",)) as server:
        write(tmp_path, server.url, endpoint='protocol = "ollama"')
        edit(tmp_path, f'base_url = "{server.url}/v1"', f'base_url = "{server.url}"')
        first = say("annotate")
        assert first.code == 0, first.err
        server.configure(digest_salt="new")
        with (tmp_path / "texts.csv").open("a", encoding="utf-8") as file:
            file.write("t999,a new match of the team,sport,train\n")
        asked = sent(server)
        said = say("annotate")
        assert said.code == 2
        assert "model_changed" in one_line(said)
        assert sent(server) == asked
        edit(tmp_path, "[annotate]\n", '[annotate]\nmodel_changed = "keep"\n')
        assert say("annotate").code == 0
        assert sent(server) == asked + 1


def test_every_exit_code_of_annotate_is_in_the_docs() -> None:
    page = (Path(cli.__file__).resolve().parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (\d+) \|", page, re.M)) >= {"0", "1", "2", "3", "4", "5", "130"}


def test_a_plan_counts_what_is_spent_and_says_what_has_no_price(say, tmp_path: Path, server: MockServer) -> None:
    priced = 'name = "gpt"\nmodel = "lab/gpt"\nprice = { input = 10.0, output = 10.0 }'
    write(tmp_path, server.url, priced, annotate="budget = 0.05", endpoint="max_in_flight = 4")
    assert say("annotate").code == 5
    said = say("annotate", "--plan")
    assert re.search(r"budget is 0\.05 USD, of which 0\.0\d+ are spent, which is not enough", said.out), said.out
    write(tmp_path, server.url, 'name = "other"\nmodel = "lab/gpt"', annotate="budget = 0.05", endpoint="local = false")
    said = say("annotate", "--plan")
    assert "other, whose price is not known" in said.out
    assert "a budget needs all prices" in said.out


def test_a_query_without_an_answer_says_so(say, tmp_path: Path, server: MockServer) -> None:
    write(tmp_path, server.url)
    say("annotate")
    assert say("log", tmp_path / "runs" / "small", "--text", "nobody").out.strip() == "no such answer"


def test_another_prompt_file_of_a_variant_makes_the_stage_run_again(say, tmp_path: Path, server: MockServer) -> None:
    (tmp_path / "p.txt").write_text("Which one? {labels}\n{text}", encoding="utf-8")
    write(tmp_path, server.url, 'name = "gpt"\nmodel = "lab/gpt"\nvariants = { own = { prompt = "p.txt" } }')
    assert say("annotate").code == 0
    (tmp_path / "p.txt").write_text("Which of them? {labels}\n{text}", encoding="utf-8")
    assert say("annotate").code == 0
    assert sent(server) == 3 * TEXTS


def test_an_address_without_http_is_said(say, tmp_path: Path) -> None:
    write(tmp_path, "127.0.0.1:9")
    said = say("annotate", "--plan")
    assert said.code == 2
    assert "http://host:port/v1" in one_line(said)
