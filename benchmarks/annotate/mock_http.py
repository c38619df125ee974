"""HTTP/1.1 for the mock LLM server, as little of it as its clients need: fast reading, replies, one connection."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple, Protocol

try:
    import orjson
except ImportError:
    orjson = None


def encode(body: Any, *, sort: bool = False) -> bytes:
    """Write JSON, by orjson where it is installed and can (it refuses half of a surrogate pair)."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS if sort else None)
    except (AttributeError, TypeError):
        return json.dumps(body, separators=(",", ":"), sort_keys=sort).encode()


def read_json(raw: bytes) -> Any:
    """Read a JSON body; None when it is none."""
    try:
        return orjson.loads(raw)
    except (AttributeError, ValueError):
        try:
            return json.loads(raw)
        except ValueError:
            return None


class Reply(NamedTuple):
    """An HTTP reply before it is written."""

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = b"application/json"


def ok(body: Any) -> Reply:
    """Return a 200 with a JSON body."""
    return Reply(200, encode(body))


def error(
    status: int, message: str, kind: str, code: str | None = None, param: str | None = None, *, headers: bytes = b""
) -> Reply:
    """Return an error in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Reply(status, encode(body), headers)


class Head(NamedTuple):
    """The first lines of a request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int
    chunked: bool
    close: bool


_heads: dict[bytes, Head] = {}  # a client repeats its heads; reading each once is most of the speed


def read_head(raw: bytes) -> Head:
    """Read a request's first lines; `ValueError` when they are not HTTP."""
    head = _heads.get(raw)
    if head is None:
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = target.partition("?")
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        close = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        head = Head(method, path, query, headers, int(headers.get("content-length", 0)), chunked, close)
        if len(_heads) > 5000:
            _heads.clear()
        _heads[raw] = head
    return head


def read_chunks(data: bytes | bytearray, at: int) -> tuple[bytes | None, int]:
    """Read a chunked body: it and where it ends, or None and how many bytes must be there before trying again."""
    parts: list[bytes] = []
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None, len(data) + 1
        size = int(bytes(data[at:line_end]).partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if len(data) < at:
            return None, at
        if size == 0:
            return b"".join(parts), at
        parts.append(bytes(data[line_end + 2 : at - 2]))


def read_form(content_type: str, raw: bytes) -> dict[str, tuple[str | None, bytes]]:
    """Read multipart form data: name → (filename, content)."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None:
        return {}
    form = {}
    for part in (b"\r\n" + raw).split(b"\r\n--" + found[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        filename = re.search(rb'filename="([^"]*)"', head)
        if name:
            form[name[1].decode()] = (filename[1].decode() if filename else None, content)
    return form


class Receiver(Protocol):
    """What a connection hands its requests to."""

    connections: set[Connection]

    def receive(self, connection: Connection, head: Head, raw: bytes) -> None:
        """Start on a request; set the connection's `exchange` until its reply is written."""

    def abandon(self, exchange: Any) -> None:
        """Stop working on a request whose client has gone."""


class Connection(asyncio.Protocol):
    """One client connection: reads requests one after the other and writes their replies in order."""

    def __init__(self, endpoint: Receiver) -> None:
        self.endpoint = endpoint
        self.pending = bytearray()
        self.needed = 0
        self.exchange: Any = None
        self.advancing = False
        self.continued = False

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport
        self.endpoint.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop working on what the client no longer waits for."""
        self.endpoint.connections.discard(self)
        self.pending.clear()
        if self.exchange is not None:
            self.endpoint.abandon(self.exchange)

    def data_received(self, data: bytes) -> None:
        """Answer what is complete; keep the rest."""
        if self.exchange is None and not self.pending:
            used = self._take(data)  # nearly always the whole of it: no copy
            if used == len(data):
                return
            data = data[used:]
        self.pending += data
        self.advance()

    def advance(self) -> None:
        """Go on with the data that came while a request was worked on."""
        if self.advancing:
            return
        self.advancing = True
        while self.exchange is None and len(self.pending) >= max(1, self.needed) and not self.transport.is_closing():
            used = self._take(self.pending)
            if not used:
                break
            del self.pending[:used]
        self.advancing = False

    def _take(self, data: bytes | bytearray) -> int:
        """Start on one request and return its length; 0 when it is not complete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        try:
            head = read_head(bytes(data[:end]))
            start = end + 4
            if head.chunked:
                body, stop = read_chunks(data, start)
            else:
                stop = start + head.length
                body = bytes(data[start:stop]) if len(data) >= stop else None
        except ValueError:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
            return len(data)
        if body is None:
            self.needed = stop
            self._continue(head)
            return 0
        self.needed, self.continued = 0, False
        self.endpoint.receive(self, head, body)
        return stop

    def _continue(self, head: Head) -> None:
        if "expect" in head.headers and not self.continued:
            self.continued = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
