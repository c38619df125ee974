"""Batch files: the same keys and the same log as online answers, found again after a restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import mock_batches
import mock_server
import pytest
from mock_http import Reply, error

from asking import LABELS, ask, mock, sent, settings_for, statuses, texts
from consenso.annotate import batches
from consenso.annotate.clients.transport import Transport
from consenso.annotate.running import Loop
from consenso.annotate.votelog import VoteLog
from consenso.errors import ConfigError, EndpointError, IncompleteError

BATCH = {"batch": True, "price": {"input": 1e6, "output": 0}}
PLAIN = {"price": {"input": 1e6, "output": 0}}


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POLL_S", (0.05, 0.1))
    monkeypatch.setattr(batches.BatchDesk.__init__, "__kwdefaults__", {"online": (), "wait": True, "poll_s": 0.05})


def batched(server: Any, *annotators: dict[str, Any], **more: Any) -> Any:
    endpoint = {"batch": True, "patience_s": more.pop("endpoint_s", 5)}
    return settings_for(server, *(annotators or [BATCH]), endpoint=endpoint, **more)


def posts(server: Any) -> int:
    """Batches submitted."""
    return sum(one["path"].endswith("/batches") and one["method"] == "POST" for one in server.requests)


def test_a_batch_file_answers_like_single_requests_at_half_the_price(tmp_path: Path) -> None:
    with mock(batch_delay=0.2) as server:
        asked, votes = ask(tmp_path / "batch", batched(server))
        asked.raise_incomplete()
        assert (sent(server), posts(server)) == (0, 1)
        online, same = ask(tmp_path / "online", batched(server, PLAIN))
    assert votes["label"].tolist() == same["label"].tolist()
    assert asked.ledger.cost == pytest.approx(online.ledger.cost / 2)
    assert asked.ledger.unanswered == 0


def test_submit_now_and_collect_later(tmp_path: Path) -> None:
    with mock(batch_delay=0.5) as server:
        first, votes = ask(tmp_path / "log", batched(server), wait=False)
        with pytest.raises(IncompleteError, match="20 questions wait in batch files"):
            first.raise_incomplete()
        assert votes.empty
        assert first.ledger.in_batches == 20
        second, votes = ask(tmp_path / "log", batched(server))  # another process, later
        second.raise_incomplete()
        assert posts(server) == 1
    assert statuses(votes) == {"ok": 20}


def test_online_asking_leaves_alone_what_waits_in_a_batch(tmp_path: Path) -> None:
    with mock(batch_delay=30.0) as server:
        ask(tmp_path / "log", batched(server), wait=False)
        asked, _ = ask(tmp_path / "log", batched(server, PLAIN), texts(25))
        assert sent(server) == 5
        assert asked.tallies[0].waiting == 20


def test_online_and_batch_answers_complete_each_other(tmp_path: Path) -> None:
    with mock() as server:
        ask(tmp_path / "log", batched(server, PLAIN), texts(8))
        asked, votes = ask(tmp_path / "log", batched(server), texts(20))
        asked.raise_incomplete()
        lines = next(
            one["body"] for one in server.requests if one["path"].endswith("/batches") and one["method"] == "POST"
        )
        assert lines["metadata"]["consenso"].startswith("consenso-")
        assert sum(server.asked.values()) == 20
    assert statuses(votes) == {"ok": 20}


def test_lines_that_failed_are_asked_again(tmp_path: Path) -> None:
    with mock(batch_failed_share=0.3) as server:
        asked, votes = ask(tmp_path / "log", batched(server, failed_limit=1.0))
        assert 0 < statuses(votes)["failed"] < 20
        server.configure(batch_failed_share=0.0)
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert posts(server) == 2
    assert statuses(votes) == {"ok": 20}


def test_what_an_expired_batch_left_over_is_asked_again(tmp_path: Path) -> None:
    with mock(batch_end="expired") as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        with pytest.raises(IncompleteError, match="asks the failed ones again"):
            asked.raise_incomplete()
        assert 0 < statuses(votes)["failed"] < 20
        server.configure(batch_end="completed")
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
    assert statuses(votes) == {"ok": 20}


def test_a_refused_batch_file_is_said_in_one_line(tmp_path: Path) -> None:
    with mock(batch_end="failed") as server:
        asked, _ = ask(tmp_path / "log", batched(server))
        with pytest.raises(EndpointError, match="refuses the batch file"):
            asked.raise_incomplete()


def test_a_submission_that_was_cut_off_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies after the endpoint took the batch and before its id was written down."""
    noted = batches.BatchDesk._note

    def dies(self: Any, batch: Any, status: str, more: Any) -> None:
        if status == "submitted":
            raise KeyboardInterrupt
        noted(self, batch, status, more)

    with mock(batch_delay=0.2) as server:
        monkeypatch.setattr(batches.BatchDesk, "_note", dies)
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path / "log", batched(server))
        monkeypatch.setattr(batches.BatchDesk, "_note", noted)
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert posts(server) == 1
    assert statuses(votes) == {"ok": 20}


def test_a_submission_that_never_arrived_is_submitted_again(tmp_path: Path) -> None:
    with mock(fault_everywhere=True, rate_500=1.0) as server:
        asked, _ = ask(tmp_path / "log", batched(server, endpoint_s=0.2))
        with pytest.raises(EndpointError, match="only fails"):
            asked.raise_incomplete()
        server.configure(fault_everywhere=False, rate_500=0.0)
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
    assert asked.ledger.unanswered == 0
    assert statuses(votes) == {"ok": 20}


def test_many_questions_make_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_REQUESTS", 8)
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert posts(server) == 3
    assert statuses(votes) == {"ok": 20}


def test_a_budget_holds_for_batches_too(tmp_path: Path) -> None:
    with mock() as server:
        asked, _ = ask(tmp_path / "log", batched(server, budget=500), texts(50))
        assert asked.ended.reason == "budget"
        assert 250 <= asked.ledger.cost <= 500


def test_candidates_of_a_text_bind_its_line(tmp_path: Path) -> None:
    offered = {f"t{n:03d}": (LABELS[n % 2], LABELS[2]) for n in range(6)}
    with mock(answer="fixed:neutral") as server:
        _, votes = ask(tmp_path / "log", batched(server), texts(6), offered=offered)
    assert statuses(votes) == {"ok": 3, "invalid_label": 3}


def test_batch_files_are_refused_where_the_endpoint_takes_none(tmp_path: Path) -> None:
    with mock() as server:
        with pytest.raises(ConfigError, match=r"takes no batch files.*set batch = true"):
            ask(tmp_path / "log", settings_for(server, BATCH))
        with pytest.raises(ConfigError, match="choose one of the two"):
            ask(tmp_path / "log", batched(server, settle={}))


def answers_first(monkeypatch: pytest.MonkeyPatch, method: str, *replies: Any) -> None:
    """Let a method of the provider give these replies first (None: what it would say, as an error 500)."""
    real, left = getattr(mock_batches.Batches, method), list(replies)

    def reply(self: Any, *args: Any) -> Any:
        if not left:
            return real(self, *args)
        first = left.pop(0)
        if first is not None:
            return first
        real(self, *args)
        return error(500, "oops", "server_error")

    monkeypatch.setattr(mock_batches.Batches, method, reply)


def at_the_provider(server: Any) -> int:
    with urllib.request.urlopen(server.url + "/v1/batches") as answer:
        return len(json.load(answer)["data"])


BESIDE = ({"name": "bat", **BATCH}, {"name": "on", **PLAIN})


def test_a_batch_and_online_annotators_share_the_log_without_waiting_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, kept, threads = VoteLog.commit, Loop._kept, set()

    def slow(self: Any) -> None:
        time.sleep(0.005)
        commit(self)

    def watched(self: Any, *args: Any) -> None:
        threads.add(threading.get_ident())
        kept(self, *args)

    monkeypatch.setattr(VoteLog, "commit", slow)
    monkeypatch.setattr(Loop, "_kept", watched)
    with mock(latency=0.002, batch_delay=0.05) as server:
        asked, votes = ask(tmp_path / "log", batched(server, *BESIDE), texts(200))
        asked.raise_incomplete()
    assert statuses(votes) == {"ok": 400}
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("how", ["500", "drop"])
def test_a_batch_whose_making_was_not_confirmed_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "500":
        answers_first(monkeypatch, "create", None)
    else:
        send, dropped = mock_server.Endpoint._send, []

        def drop(self: Any, exchange: Any, reply: Any) -> None:
            if exchange.head.method == "POST" and exchange.head.path.endswith("/batches") and not dropped:
                dropped.append(1)
                exchange.fault = "drop"
            send(self, exchange, reply)

        monkeypatch.setattr(mock_server.Endpoint, "_send", drop)
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert at_the_provider(server) == 1
    assert statuses(votes) == {"ok": 20}


def test_a_batch_that_cannot_be_looked_for_is_found_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_first(monkeypatch, "create", None)
    answers_first(monkeypatch, "list", error(403, "not now", "auth"))
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        with pytest.raises(EndpointError, match="only fails"):
            asked.raise_incomplete()
        assert asked.ledger.in_batches == 20
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert at_the_provider(server) == 1
    assert statuses(votes) == {"ok": 20}


def test_a_refused_submission_frees_its_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_first(monkeypatch, "create", error(400, "no such window", "invalid_request_error"))
    with mock() as server:
        asked, _ = ask(tmp_path / "log", batched(server))
        assert (asked.ledger.in_batches, asked.ledger.unanswered) == (0, 0)
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
    assert statuses(votes) == {"ok": 20}


def test_a_key_refused_while_waiting_ends_the_waiting(tmp_path: Path) -> None:
    with mock(batch_delay=30.0) as server:
        ask(tmp_path / "log", batched(server), wait=False)
        server.configure(auth_key="another")
        asked, _ = ask(tmp_path / "log", batched(server))
        assert "refuses the API key" in asked.notes[0]
        assert sum("/batches/" in one["path"] for one in server.requests) <= 2


@pytest.mark.parametrize("budget", [700.0, 900.0])
def test_money_a_batch_does_not_need_is_spent_online(tmp_path: Path, budget: float) -> None:
    """20 questions cost about 940 USD online; a batch reserves half of that, rather too much."""
    with mock(batch_delay=0.1, latency=0.005) as server:
        asked, votes = ask(tmp_path / "log", batched(server, *BESIDE, budget=budget))
        assert asked.ended.reason == "budget"
        assert budget / 2 < asked.ledger.cost <= budget
    assert set(statuses(votes)) == {"ok"}


def test_what_batches_of_before_reserved_counts_against_the_budget(tmp_path: Path) -> None:
    with mock(batch_delay=0.5) as server:
        first, _ = ask(tmp_path / "log", batched(server, BESIDE[0], budget=700), wait=False)
        assert first.tallies[0].waiting > 0
        asked, _ = ask(tmp_path / "log", batched(server, BESIDE[1], budget=700))
        assert asked.ended.reason == "budget"
        time.sleep(0.6)
        asked, _ = ask(tmp_path / "log", batched(server, BESIDE[0], budget=700))
        assert 0 < asked.ledger.cost <= 700


def test_results_that_cannot_be_fetched_stop_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_first(monkeypatch, "content", *[error(500, "oops", "server_error")] * 1000)
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server, *BESIDE, endpoint_s=0.3))
        assert "bat was given up" in asked.notes[0]
        assert statuses(votes) == {"ok": 20}
        monkeypatch.undo()
        asked, votes = ask(tmp_path / "log", batched(server, *BESIDE))
        asked.raise_incomplete()
        assert at_the_provider(server) == 1


@pytest.mark.parametrize("method", ["get", "content"])
def test_a_page_instead_of_an_answer_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    answers_first(monkeypatch, method, Reply(200, b"<html>one moment</html>"))
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert at_the_provider(server) == 1
    assert statuses(votes) == {"ok": 20}


@pytest.mark.parametrize("method", ["upload", "create"])
def test_a_busy_endpoint_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    answers_first(monkeypatch, method, error(429, "slow down", "rate", headers=b"retry-after: 0.05\r\n"))
    with mock() as server:
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert at_the_provider(server) == 1
    assert statuses(votes) == {"ok": 20}


def test_results_that_are_gone_are_asked_again_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mock(batch_delay=0.1) as server:
        ask(tmp_path / "log", batched(server), wait=False)
        server.reset()
        asked, _ = ask(tmp_path / "log", batched(server))
        assert asked.ledger.unanswered == 20
        asked, votes = ask(tmp_path / "log", batched(server))
        asked.raise_incomplete()
        assert asked.ledger.unanswered == 20
    assert statuses(votes) == {"ok": 20}


def test_an_annotator_asked_online_now_collects_its_batches_of_before(tmp_path: Path) -> None:
    with mock() as server:
        ask(tmp_path / "log", batched(server), texts(8), wait=False)
        asked, votes = ask(tmp_path / "log", batched(server, PLAIN), texts(12))
        asked.raise_incomplete()
        assert (sent(server), asked.tallies[0].done) == (4, 12)
    assert statuses(votes) == {"ok": 12}


def test_an_annotator_asked_online_now_asks_what_was_never_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        os._exit(9)

    with mock(process=True) as server:
        if not (child := os.fork()):
            monkeypatch.setattr(Transport, "post", dies)
            ask(tmp_path / "log", batched(server))
        os.waitpid(child, 0)
        asked, votes = ask(tmp_path / "log", batched(server, PLAIN))
        asked.raise_incomplete()
        assert asked.ledger.unanswered == 0
    assert statuses(votes) == {"ok": 20}


def test_equal_texts_wait_once(tmp_path: Path) -> None:
    frame = texts(6)
    frame["text"] = ["one"] * 3 + ["two"] * 3
    with mock(batch_delay=0.2) as server:
        ask(tmp_path / "log", batched(server, share_duplicates=True), frame, wait=False)
        waiting, _ = ask(tmp_path / "log", batched(server, share_duplicates=True), frame, wait=False)
        assert waiting.tallies[0].waiting == 2
        asked, votes = ask(tmp_path / "log", batched(server, share_duplicates=True), frame)
        asked.raise_incomplete()
    assert statuses(votes) == {"ok": 6}


@pytest.mark.parametrize("where", ["poll", "look", "upload"])
def test_an_interrupt_ends_the_waiting_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(batches.BatchDesk.__init__, "__kwdefaults__", {"online": (), "wait": True, "poll_s": 20.0})
    real = Transport.get if where != "upload" else Transport.upload

    async def interrupted(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        if where != "poll":
            await asyncio.sleep(20)
        return await real(self, *args)

    monkeypatch.setattr(Transport, real.__name__, interrupted)
    with mock(batch_delay=30.0) as server:
        started = time.monotonic()
        asked, _ = ask(tmp_path / "log", batched(server))
        assert time.monotonic() - started < 4
        assert asked.ended.reason == "interrupted"
        assert asked.ledger.in_batches == (0 if where == "upload" else 20)


def test_a_line_is_known_by_its_question_alone() -> None:
    from test_annotate_votelog import key

    assert batches.line_id(key(1)) == batches.line_id(key(1))
    assert len({batches.line_id(key(n, repetition=r)) for n in range(50) for r in range(3)}) == 150
    assert json.dumps(batches.line_id(key(1)))
