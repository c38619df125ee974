"""Makers for tests that ask a mock server over real sockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mock_server import MockServer

from consenso.annotate import AnnotateSettings
from consenso.annotate.asking import make_voters
from consenso.annotate.collecting import Asked, ask_all, votes_from_log
from consenso.annotate.sources import FrameSource
from consenso.annotate.votelog import VoteLog
from consenso.labels import LabelSchema

LABELS = ("negative", "neutral", "positive")
SCHEMA = LabelSchema.from_names(LABELS)


def texts(count: int = 20, start: int = 0) -> pd.DataFrame:
    """Texts t000 … with words of their own."""
    numbers = range(start, start + count)
    return pd.DataFrame(
        {"text_id": [f"t{n:03d}" for n in numbers], "text": [f"this is text number {n}" for n in numbers]}
    )


def mock(**options: Any) -> MockServer:
    """A server that answers each text with a label of its own, always the same."""
    return MockServer(**{"labels": LABELS, **options})


def settings_for(server: MockServer | str, *annotators: Mapping[str, Any], **more: Any) -> AnnotateSettings:
    """Settings whose endpoint `lab` is the server; without annotators, one called gpt."""
    url = server if isinstance(server, str) else server.url
    endpoint = {
        "base_url": f"{url}/v1",
        "structured": "off",
        "timeout_s": 5,
        "patience_s": 5,
        **more.pop("endpoint", {}),
    }
    listed = [{"model": f"lab/{one.get('name', 'gpt')}", "name": "gpt", **one} for one in annotators or [{}]]
    return AnnotateSettings.read({"annotators": listed, "endpoints": {"lab": endpoint}, "drain_s": 5, **more})


def ask(
    log: Path,
    settings: AnnotateSettings,
    frame: pd.DataFrame | None = None,
    *,
    schema: LabelSchema = SCHEMA,
    offered: Mapping[str, tuple[str, ...]] | None = None,
    environment: Mapping[str, str] | None = None,
    **more: Any,
) -> tuple[Asked, pd.DataFrame]:
    """Ask everybody about the texts, and return how it went and the votes."""
    source = FrameSource(texts() if frame is None else frame, offered)
    voters = make_voters(settings, schema, environment or {})
    with VoteLog(log, durable=False) as votelog:
        asked = ask_all(
            voters.askers, voters.local, source, votelog, settings=settings, environment=environment or {}, **more
        )
        votes = pd.concat(votes_from_log(votelog, asked.lanes, source), ignore_index=True)
    return asked, votes


def sent(server: MockServer) -> int:
    """How many chat requests the server has received."""
    return int(server.stats["received"])


def bodies(server: MockServer) -> list[dict[str, Any]]:
    """The bodies of all chat requests."""
    return [one["body"] for one in server.requests if one["path"].endswith(("/chat/completions", "/api/chat"))]


def prompts(server: MockServer) -> list[str]:
    """The last message of all chat requests."""
    return [body["messages"][-1]["content"] for body in bodies(server)]


def statuses(votes: pd.DataFrame) -> dict[str, int]:
    """Status → votes."""
    return {str(status): int(count) for status, count in votes["status"].value_counts().items()}


def by_name(asked: Asked) -> dict[str, Any]:
    """Annotator → its tally."""
    return {tally.name: tally for tally in asked.tallies}


Names = Sequence[str]
