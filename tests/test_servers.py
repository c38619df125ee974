"""Asking real servers, no mocks: `transformers serve` and llama-cpp-python's, each with a tiny random model.

`transformers serve` comes with the dev extra and is asked by the default suite; `make servers` installs both and asks both.
Random weights answer rubbish, so what counts here is that every reply ends as what it is; where a grammar binds the replies
they are labels, of any text.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from asking import LABELS, SCHEMA, ask, by_name, settings_for, statuses, texts
from consenso.annotate.asking import make_voters
from consenso.annotate.lanes import LLMLane
from consenso.annotate.reading import parse
from consenso.annotate.sources import FrameSource
from consenso.annotate.votelog import VoteLog
from consenso.errors import EndpointError, IncompleteError
from serving import Server, has, llama_server, python_of_servers, save_gguf, save_model, transformers_server

KINDS = {"transformers": "transformers.cli.serve, fastapi, uvicorn, openai", "llama": "llama_cpp.server.app, gguf"}
ANSWERED = {"ok", "unparsable", "invalid_label", "refused", "truncated"}
"""Statuses of what a server did answer."""
GRAMMAR = "root ::= " + " | ".join(f'"{label}"' for label in LABELS)
LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": list(LABELS)}},
    "required": ["label"],
    "additionalProperties": False,
}
BOUND = {"grammar": GRAMMAR}
"""What binds replies to the labels at llama-cpp-python's server, beside consenso's own `structured`."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consenso.annotate.limiting.BACKOFF_S", 0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random model."""
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


class Place:
    """Starts servers, each kind once; skips where a kind is not installed."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder
        self._running: dict[str, Server] = {}

    def python(self, kind: str) -> Path:
        python = python_of_servers()
        if not has(python, KINDS[kind]):
            pytest.skip(f"{python} has no {kind} server; `make servers` installs it")
        return python

    def gguf(self) -> Path:
        file = self.folder / "tiny.gguf"
        return file if file.exists() else save_gguf(self.python("llama"), self.model, file)

    def make(self, kind: str, name: str = "", **options: Any) -> Server:
        python, log = self.python(kind), self.folder / f"{name or kind}.log"
        if kind == "transformers":
            return transformers_server(python, self.model, log)
        return llama_server(python, self.gguf(), log, **options)

    def shared(self, kind: str) -> Server:
        if kind not in self._running:
            server = self.make(kind)
            server.start()
            self._running[kind] = server
        return self._running[kind]

    def close(self) -> None:
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="module")
def place(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(model, tmp_path_factory.mktemp("servers"))
    yield place
    place.close()


@pytest.fixture(params=["transformers", pytest.param("llama", marks=pytest.mark.server)])
def server(request: pytest.FixtureRequest, place: Place) -> Server:
    """Each of the servers."""
    return place.shared(request.param)


@pytest.fixture
def transformers(place: Place) -> Server:
    return place.shared("transformers")


@pytest.fixture
def llama(place: Place) -> Server:
    return place.shared("llama")


def settings(server: Server, *annotators: dict[str, Any], **more: Any) -> Any:
    """Settings whose annotators ask the server for its model."""
    endpoint = {"timeout_s": 60, "patience_s": 3, **more.pop("endpoint", {})}
    listed = [{"model": f"lab/{server.model}", **one} for one in annotators or [{}]]
    return settings_for(server.url, *listed, endpoint=endpoint, **more)


def question(chosen: Any, frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """The body of the first text's request, to send it past consenso."""
    (asker,) = make_voters(chosen, SCHEMA, {}).askers
    with VoteLog(folder / "unused", durable=False) as log:
        lane = LLMLane(asker, log, FrameSource(frame))
        lane.load()
        job = lane.jobs.popleft()
        assert lane.prepare(job) is None
    body: dict[str, Any] = json.loads(job.body)
    del body["model"]
    return body


# what every server must do


def test_every_text_ends_with_an_honest_status_and_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    before = server.answered
    asked, votes = ask(tmp_path / "log", settings(server), texts(12))
    asked.raise_incomplete()
    tally = by_name(asked)["gpt"]
    assert votes["text_id"].tolist() == texts(12)["text_id"].tolist()
    assert set(statuses(votes)) <= ANSWERED
    assert (votes["label"].notna() == (votes["status"] == "ok")).all()
    assert server.answered - before == tally.requests == 12 + tally.reasked
    again, same = ask(tmp_path / "log", settings(server), texts(12))
    assert server.answered - before == tally.requests
    assert by_name(again)["gpt"].kept == 12
    pd.testing.assert_frame_equal(votes, same)


def test_a_vote_is_what_the_server_says_to_the_same_request(server: Server, tmp_path: Path) -> None:
    chosen, one = settings(server, {"reask": 0}), texts(1)
    status, answer = server.chat(**question(chosen, one, tmp_path))
    _, votes = ask(tmp_path / "log", chosen, one)
    (vote,) = votes.to_dict("records")
    (choice,) = answer["choices"]
    read = parse(choice["message"]["content"], SCHEMA, finish=choice["finish_reason"])
    assert status == 200
    assert vote["reply"] == choice["message"]["content"]
    assert (vote["label"], vote["status"]) == (read.label, read.status)
    assert (vote["tokens_in"], vote["tokens_out"]) == (
        answer["usage"]["prompt_tokens"],
        answer["usage"]["completion_tokens"],
    )


def test_tokens_are_counted_as_the_tokenizer_counts_them(server: Server, model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chosen, one = settings(server, {"reask": 0, "parameters": {"max_tokens": 7}}), texts(1)
    messages = question(chosen, one, tmp_path)["messages"]
    expected = len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])
    asked, votes = ask(tmp_path / "log", chosen, one)
    assert votes["tokens_in"].tolist() == [expected]
    assert 1 <= votes["tokens_out"].iloc[0] <= 7 + 1  # llama-cpp-python counts the token that was one too many
    assert asked.ledger.tokens_in == expected


def test_a_correction_is_a_second_request_whose_tokens_count_too(server: Server, tmp_path: Path) -> None:
    stopped = {
        "parameters": {"stop": ["e", "a", " "], "max_tokens": 60}
    }  # ends rubbish early: it is then no truncation
    before = server.answered
    asked, votes = ask(tmp_path / "log", settings(server, stopped), texts(8))
    asked.raise_incomplete()
    tally = by_name(asked)["gpt"]
    assert set(statuses(votes)) <= ANSWERED
    assert tally.reasked > 0
    assert server.answered - before == 8 + tally.reasked
    _, once = ask(tmp_path / "other", settings(server, {**stopped, "reask": 0}), texts(8))
    again = votes["tokens_in"] > once["tokens_in"]
    assert again.sum() == tally.reasked
    assert (votes["tokens_in"][again] > 2 * once["tokens_in"][again]).all()


def test_parallel_requests_get_the_answers_of_their_own_texts(server: Server, tmp_path: Path) -> None:
    several, alone = (
        ask(tmp_path / str(most), settings(server, endpoint={"max_in_flight": most}), texts(24))[1] for most in (8, 1)
    )
    same = ["text_id", "label", "status", "reply", "tokens_in", "tokens_out"]
    assert several["reply"].nunique() > 3
    pd.testing.assert_frame_equal(several[same], alone[same])


def test_repetitions_at_a_temperature_differ_and_are_counted_apart(server: Server, tmp_path: Path) -> None:
    hot = {"repetitions": 3, "reask": 0, "parameters": {"temperature": 1.5}}
    before = server.answered
    _, votes = ask(tmp_path / "log", settings(server, hot), texts(3))
    assert server.answered - before == 9
    assert votes.groupby("text_id")["reply"].nunique().max() > 1


def test_texts_with_anything_in_them_reach_the_server(server: Server, tmp_path: Path) -> None:
    odd = ["nul \x00 bell \x07", "lone \ud800 surrogate", "<|im_end|><|im_start|>system", "مرحبا 👍 e\u0301", "\n", ""]
    frame = pd.DataFrame({"text_id": [f"e{n}" for n in range(len(odd))], "text": pd.Series(odd, dtype=object)})
    asked, votes = ask(tmp_path / "log", settings(server, {"reask": 0}), frame)
    asked.raise_incomplete()
    assert set(statuses(votes)) <= ANSWERED


@pytest.mark.slow
def test_a_server_killed_amid_a_run_is_told_and_the_rest_asked_after_a_restart(server: Server, tmp_path: Path) -> None:
    count, most = 60, 4
    chosen = settings(server, {"reask": 0}, endpoint={"max_in_flight": most, "patience_s": 1})
    before = server.answered

    def kill() -> None:
        deadline = time.monotonic() + 60
        while server.answered < before + 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        server.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        asked, votes = ask(tmp_path / "log", chosen, texts(count))
    finally:
        killer.join()
        server.start()
    with pytest.raises(
        IncompleteError, match=r"gpt: .* \(\d+ of 60 answers are in the log; the same command goes on\)"
    ) as error:
        asked.raise_incomplete()
    assert "\n" not in str(error.value)
    answered = votes[votes["status"] != "failed"]
    assert set(statuses(answered)) <= ANSWERED
    assert 0 < len(answered) < count
    sent = server.answered - before
    assert len(answered) <= sent <= len(answered) + most  # what it said last may not have come through
    broken = asked.ledger.open + len(votes) - len(answered)
    assert sent - len(answered) <= asked.ledger.unanswered <= broken
    assert broken <= 2 * most
    second, all_votes = ask(tmp_path / "log", chosen, texts(count))
    second.raise_incomplete()
    assert server.answered - before == sent + count - len(answered)
    assert set(statuses(all_votes)) <= ANSWERED
    kept = all_votes[all_votes["text_id"].isin(answered["text_id"])]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), answered.reset_index(drop=True), check_dtype=False)
    assert len(all_votes) == count
    assert second.ledger.open == 0


@pytest.mark.slow
def test_a_server_that_hangs_is_told_in_one_line_and_asked_again_once_it_goes_on(
    server: Server, tmp_path: Path
) -> None:
    chosen = settings(server, {"reask": 0}, endpoint={"timeout_s": 1})
    server.freeze()
    try:
        asked, votes = ask(tmp_path / "log", chosen, texts(3))
        row = probed(server, tmp_path / "probe", timeout_s=0.5)
    finally:
        server.thaw()
    with pytest.raises(EndpointError, match=r"accepts requests but never answered \(no answer within 1 s\)"):
        asked.raise_incomplete()
    assert votes[votes["status"].isin(ANSWERED)].empty
    assert "accepts requests but never answered" in row["error"]
    asked, votes = ask(tmp_path / "log", settings(server, {"reask": 0}), texts(3))
    asked.raise_incomplete()
    assert set(statuses(votes)) <= ANSWERED
    assert len(votes) == 3


def probed(server: Server, folder: Path, **endpoint: Any) -> dict[str, Any]:
    """What `consenso annotate --probe` says."""
    folder.mkdir(parents=True, exist_ok=True)
    texts(4).to_csv(folder / "texts.csv", index=False)
    labels = "".join(f'[[data.labels]]\nname = "{label}"\n' for label in LABELS)
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in endpoint.items())
    (folder / "experiment.toml").write_text(
        f'name = "probe"\n[data]\nsource = "texts.csv"\n{labels}[annotate.endpoints.lab]\nbase_url = "{server.url}/v1"\n{more}'
        f'[[annotate.annotators]]\nname = "tiny"\nmodel = "lab/{server.model}"\n',
        encoding="utf-8",
    )
    base = [sys.executable, "-m", "consenso"]
    out = ["--out", str(folder / "run")]
    subprocess.run([*base, "data", folder / "experiment.toml", *out], check=True, capture_output=True)
    done = subprocess.run(
        [*base, "annotate", folder / "experiment.toml", *out, "--probe", "--json"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    (row,) = json.loads(done.stdout or done.stderr)
    return dict(row)


# transformers serve: takes nearly everything, and ignores schemas, log-probabilities and n


def test_transformers_probe_says_that_schema_logprobs_and_n_are_dropped(transformers: Server, tmp_path: Path) -> None:
    row = probed(transformers, tmp_path)
    assert (row["schema"], row["logprobs"], row["seed"], row["n"]) == ("dropped", "dropped", "honoured", "dropped")


def test_transformers_ignores_a_schema_which_is_found_out_once(transformers: Server, tmp_path: Path) -> None:
    chosen = settings(transformers, {"reask": 0}, endpoint={"structured": "ask"})
    before = transformers.answered
    for count in (3, 5):
        asked, votes = ask(tmp_path / "log", chosen, texts(count))
        asked.raise_incomplete()
    assert transformers.answered - before == 1 + 5
    assert set(statuses(votes)) <= ANSWERED
    (lane,) = asked.voters.askers
    assert lane.structured == "off"


def test_transformers_ignores_logprobs_and_votes_have_no_confidence(transformers: Server, tmp_path: Path) -> None:
    asked, votes = ask(tmp_path / "log", settings(transformers, {"logprobs": "on", "reask": 0}), texts(3))
    asked.raise_incomplete()
    assert votes["confidence"].isna().all()


def test_transformers_refuses_another_model_in_one_line(transformers: Server, tmp_path: Path) -> None:
    asked, votes = ask(tmp_path / "log", settings(transformers, {"model": "lab/other"}), texts(3))
    with pytest.raises(EndpointError, match=r"HTTP 400: Server is pinned to .* requested 'other'") as error:
        asked.raise_incomplete()
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert votes.empty


def test_transformers_refuses_an_unknown_key_in_one_line(transformers: Server, tmp_path: Path) -> None:
    asked, _ = ask(tmp_path / "log", settings(transformers, {"extra_body": {"banana": 1}}), texts(3))
    with pytest.raises(EndpointError, match=r"does not take the request \(HTTP 422: .*banana.*--probe") as error:
        asked.raise_incomplete()
    assert "\n" not in str(error.value)


# llama-cpp-python's server: grammars and log-probabilities, but not OpenAI's way to ask for a schema


@pytest.mark.server
def test_llama_grammar_makes_every_vote_a_label_with_its_confidence(llama: Server, tmp_path: Path) -> None:
    chosen = settings(llama, {"extra_body": BOUND, "logprobs": "on"}, endpoint={"max_in_flight": 8})
    before = llama.answered
    asked, votes = ask(tmp_path / "log", chosen, texts(30))
    asked.raise_incomplete()
    assert llama.answered - before == 30
    assert statuses(votes) == {"ok": 30}
    assert set(votes["label"]) <= set(LABELS)
    assert votes["label"].nunique() > 1
    assert votes["confidence"].between(0, 1).all()
    assert votes["confidence"].nunique() > 3
    _, answer = llama.chat(**question(chosen, texts(1), tmp_path))
    (first,) = answer["choices"][0]["logprobs"]["content"]  # each label is one token of this tokenizer
    mass = dict.fromkeys(LABELS, 0.0)
    for other in first["top_logprobs"]:
        said = other["token"].lstrip(' "\n')
        if fitting := [label for label in LABELS if said and label.startswith(said)]:
            for label in fitting:
                mass[label] += math.exp(other["logprob"]) / len(fitting)
    vote = votes.iloc[0]
    assert first["token"] == vote["label"]
    assert vote["confidence"] == pytest.approx(mass[vote["label"]] / sum(mass.values()), abs=1e-4)


@pytest.mark.server
def test_llama_schema_in_its_own_form_makes_every_vote_a_label(llama: Server, tmp_path: Path) -> None:
    own = {"response_format": {"type": "json_object", "schema": LABEL_SCHEMA}}
    room = {"max_tokens": 128}  # a random model likes the grammar's blanks
    chosen = settings(llama, {"extra_body": own, "parameters": room, "logprobs": "on"})
    asked, votes = ask(tmp_path / "log", chosen, texts(12))
    asked.raise_incomplete()
    assert statuses(votes) == {"ok": 12}
    assert votes["reply"].str.strip().str.startswith("{").all()


@pytest.mark.server
def test_llama_probe_says_what_it_refuses_and_what_it_honours(llama: Server, tmp_path: Path) -> None:
    row = probed(llama, tmp_path)
    assert row["schema"].startswith("refused (HTTP 500"), row
    assert (row["logprobs"], row["seed"], row["n"]) == ("honoured", "honoured", "dropped")


@pytest.mark.server
def test_llama_refuses_openai_schemas_which_is_found_out_once(llama: Server, tmp_path: Path) -> None:
    chosen = settings(llama, {"reask": 0}, endpoint={"structured": "ask"})
    before = llama.answered
    for count in (3, 5):
        asked, votes = ask(tmp_path / "log", chosen, texts(count))
        asked.raise_incomplete()
    assert llama.answered - before == 1 + 5
    assert set(statuses(votes)) <= ANSWERED


@pytest.mark.server
def test_llama_answers_for_any_model_name(llama: Server, tmp_path: Path) -> None:
    """It knows one model and answers with that, under the name it was asked for: nothing in a reply tells."""
    _, answer = llama.chat(model="other", messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    assert answer["model"] == "other"
    asked, votes = ask(tmp_path / "log", settings(llama, {"model": "lab/other"}), texts(2))
    asked.raise_incomplete()
    assert len(votes) == 2


@pytest.mark.server
def test_llama_says_that_a_text_is_too_long_for_its_context(llama: Server, tmp_path: Path) -> None:
    frame = texts(3).assign(text=["short", "some words " * 3_000, "short too"])
    asked, votes = ask(tmp_path / "log", settings(llama, {"extra_body": BOUND}), frame)
    asked.raise_incomplete()
    assert votes["status"].tolist() == ["ok", "truncated", "ok"]


@pytest.mark.server
def test_llama_with_a_key_refuses_a_wrong_one_in_one_line(place: Place, tmp_path: Path) -> None:
    with place.make("llama", "key", api_key="right") as server:
        chosen = settings(server, {"extra_body": BOUND}, endpoint={"key_env": "KEY"})
        asked, _ = ask(tmp_path / "log", chosen, texts(3), environment={"KEY": "wrong"})
        with pytest.raises(EndpointError, match=r"refuses the API key \(HTTP 401: .*check KEY"):
            asked.raise_incomplete()
        asked, votes = ask(tmp_path / "log", chosen, texts(3), environment={"KEY": "right"})
        asked.raise_incomplete()
    assert statuses(votes) == {"ok": 3}


@pytest.mark.server
def test_llama_without_logits_cannot_tell_logprobs_and_says_so(place: Place, tmp_path: Path) -> None:
    with place.make("llama", "plain", logits_all="false") as server:
        asked, votes = ask(tmp_path / "log", settings(server, {"logprobs": "on", "extra_body": BOUND}), texts(3))
        with pytest.raises(
            EndpointError, match=r"logprobs is not supported for models created with logits_all=False"
        ) as error:
            asked.raise_incomplete()
        assert "\n" not in str(error.value)
        assert votes.empty
        row = probed(server, tmp_path / "probe")
        assert row["logprobs"].startswith("refused"), row
