"""What once went wrong in asking: waits that nobody ended, votes of other texts, replies of another shape."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asking import ask, mock, sent, settings_for, statuses, texts
from consenso import annotate_texts
from consenso.annotate import AnnotateSettings
from consenso.annotate.asking import make_voters
from consenso.annotate.clients import CallError
from consenso.annotate.clients.ollama import OllamaClient
from consenso.annotate.clients.openai import OpenAIClient
from consenso.annotate.logreading import LogReader
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema

ABC: list[dict[str, Any]] = [{"name": name, "model": f"lab/{name}"} for name in "abc"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consenso.annotate.limiting.BACKOFF_S", 0.01)


def says(**labels: str) -> Any:
    """An answer by the model's name."""
    return lambda body, number: labels[body["model"]]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# settling


def test_settling_does_not_wait_for_an_annotator_that_is_down(tmp_path: Path) -> None:
    with mock() as server:
        dead = {"name": "a", "model": "m", "base_url": f"http://127.0.0.1:{closed_port()}/v1", "structured": "off"}
        asked, votes = ask(tmp_path / "log", settings_for(server, dead, *ABC[1:], settle={"at_least": 1}), texts(5))
        assert statuses(votes)["ok"] >= 5
        assert asked.lanes[0].down


def test_a_vote_on_an_earlier_text_of_the_same_id_settles_nothing(tmp_path: Path) -> None:
    with mock(answer="fixed:positive") as server:
        chosen = settings_for(server, *ABC, settle={"at_least": 2})
        _, votes = ask(tmp_path / "log", chosen, texts(5))
        assert statuses(votes) == {"ok": 10, "settled": 5}
        changed = texts(5).assign(text=lambda frame: "new " + frame["text"])
        server.configure(answer=says(a="negative", b="positive", c="neutral"))
        _, votes = ask(tmp_path / "log", chosen, changed)
        assert statuses(votes) == {"ok": 15}


def test_what_was_settled_is_asked_once_it_no_longer_is(tmp_path: Path) -> None:
    with mock(answer="fixed:positive") as server:
        ask(tmp_path / "log", settings_for(server, *ABC, settle={"at_least": 2}), texts(5))
        server.configure(answer=says(a="negative", b="positive", c="neutral"))
        other = [{**ABC[0], "prompt": "simple"}, *ABC[1:]]
        _, votes = ask(tmp_path / "log", settings_for(server, *other, settle={"at_least": 2}), texts(5))
        assert statuses(votes) == {"ok": 15}


def test_settling_works_where_equal_texts_share_answers(tmp_path: Path) -> None:
    with mock(answer="fixed:positive") as server:
        chosen = settings_for(server, *ABC, settle={"at_least": 2}, share_duplicates=True)
        _, votes = ask(tmp_path / "log", chosen, texts(5))
        assert statuses(votes) == {"ok": 10, "settled": 5}


def test_settling_goes_in_the_order_listed_functions_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules_listed_first.py").write_text(
        "def f(texts): return ['positive'] * len(texts)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with mock() as server:
        rules = [{"name": f"r{n}", "function": "rules_listed_first:f", "version": str(n)} for n in (1, 2)]
        chosen = settings_for(server, settle={"at_least": 2}).model_dump(exclude_unset=True)
        chosen["annotators"] = [*rules, *chosen["annotators"]]
        _, votes = ask(tmp_path / "log", AnnotateSettings.read(chosen), texts(5))
        assert sent(server) == 0
        assert statuses(votes) == {"ok": 10, "settled": 5}


# replies and requests


@pytest.mark.parametrize(
    "answer",
    [None, [], {"choices": []}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": {"a": 1}}}]}],
)
def test_an_answer_of_another_shape_is_a_failed_call(answer: Any) -> None:
    for client in (OpenAIClient(), OllamaClient()):
        with pytest.raises(CallError) as found:
            client.read(answer)
        assert (found.value.kind, found.value.maybe_paid) == ("body", True)


def test_odd_extras_do_not_spoil_a_reply() -> None:
    reply = OpenAIClient().read(
        {
            "choices": [{"message": {"content": "positive"}, "logprobs": {"content": [{"token": "pos"}]}}],
            "usage": {"prompt_tokens": "12", "completion_tokens": 3.0, "prompt_tokens_details": [1]},
            "system_fingerprint": 7,
        }
    )
    assert (reply.text, reply.logprobs, reply.tokens_in, reply.tokens_out) == ("positive", None, None, 3)
    assert reply.fingerprint == "7"


def test_what_a_broken_off_request_may_have_cost_is_counted(tmp_path: Path) -> None:
    with mock(faults=["drop_mid"]) as server:
        price = {"input": 1000.0, "output": 1000.0}
        asked, _ = ask(tmp_path / "log", settings_for(server, {"price": price}), texts(3))
    assert asked.ledger.unanswered == 1
    assert asked.ledger.lost_cost > 0
    assert "USD" in asked.ledger.statement


def test_a_flagged_text_is_asked_once_there_is_room(tmp_path: Path) -> None:
    frame = texts(3)
    frame.loc[0, "text"] = "word " * 20_000
    with mock() as server:
        _, votes = ask(tmp_path / "log", settings_for(server, {"context": 1_000}), frame)
        assert statuses(votes) == {"ok": 2, "truncated": 1}
        _, votes = ask(tmp_path / "log", settings_for(server, {"context": 100_000}), frame)
        assert statuses(votes) == {"ok": 3}
        assert sent(server) == 3


# the ends


def test_an_interrupt_reaches_a_run_beside_a_running_loop(tmp_path: Path) -> None:
    with mock(latency=0.1) as server:
        chosen = settings_for(server, endpoint={"max_in_flight": 2})

        def interrupt_once_asking() -> None:
            while sent(server) < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        async def cell() -> Any:
            threading.Thread(target=interrupt_once_asking).start()
            return ask(tmp_path / "log", chosen, texts(100))[0]

        loop = asyncio.new_event_loop()
        try:
            asked = loop.run_until_complete(cell())
        finally:
            loop.close()
        assert asked.ended.reason == "interrupted"
        assert 0 < sent(server) < 60
        assert asked.ledger.open == 0


def test_a_log_in_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    with mock() as server:
        ask(tmp_path / "log" / "votelog.sqlite", settings_for(server), texts(3))
    real = sqlite3.connect

    def connect(*given: Any, **named: Any) -> Any:
        """What SQLite says there; a test that runs as root can write everywhere."""
        if not named.get("uri"):
            raise sqlite3.OperationalError("unable to open database file")
        return real(*given, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    with LogReader(tmp_path / "log" / "votelog.sqlite") as log:
        assert log.ledger().answers == 3


def test_the_same_function_twice_is_refused() -> None:
    twins = [{"name": name, "function": "math:sqrt", "version": "1"} for name in ("one", "other")]
    with pytest.raises(ConfigError, match="'one' and 'other' are the same"):
        make_voters(AnnotateSettings.read({"annotators": twins}), LabelSchema.from_names(["a", "b"]), {})


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (["a", "b"], "columns text_id and text"),
        (texts(0), "no rows"),
        (texts(2).assign(text=["", "  "]), "2 of 2 texts are empty"),
    ],
)
def test_annotate_texts_says_what_texts_it_needs(frame: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        annotate_texts(frame, {"rule": lambda some: ["a"] * len(some)}, ["a", "b"])


def test_labels_may_be_a_list_of_names() -> None:
    votes = annotate_texts(texts(2), {"rule": lambda some: ["a"] * len(some)}, ["a", "b"])
    assert list(votes["label"]) == ["a", "a"]
