"""Batch files: the same keys and the same log as online answers, found again after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asking import LABELS, ask, mock, sent, settings_for, statuses, texts
from consenso.annotate import batches
from consenso.errors import ConfigError, EndpointError, IncompleteError

BATCH = {"batch": True, "price": {"input": 1e6, "output": 0}}
PLAIN = {"price": {"input": 1e6, "output": 0}}


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POLL_S", (0.05, 0.1))
    monkeypatch.setattr(batches.BatchDesk.__init__, "__kwdefaults__", {"wait": True, "poll_s": 0.05})


def batched(server: Any, *annotators: dict[str, Any], **more: Any) -> Any:
    return settings_for(server, *(annotators or [BATCH]), endpoint={"batch": True}, **more)


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
        asked, _ = ask(tmp_path / "log", batched(server))
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
        assert asked.ledger.cost <= 500
        assert posts(server) <= 1


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


def test_a_line_is_known_by_its_question_alone() -> None:
    from test_annotate_votelog import key

    assert batches.line_id(key(1)) == batches.line_id(key(1))
    assert len({batches.line_id(key(n, repetition=r)) for n in range(50) for r in range(3)}) == 150
    assert json.dumps(batches.line_id(key(1)))
