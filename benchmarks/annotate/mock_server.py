"""A mock LLM server over real sockets: OpenAI's and Ollama's endpoints, and what can go wrong with them.

`python mock_server.py --port 0 --latency 0.02` prints its address and serves until SIGTERM; `with MockServer(...)` runs
it in a thread (or a process) of a test. Every option is a field of `mock_options.Options`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import mock_answers as answers
from mock_answers import Wanted, label_probabilities, prompt_text, request_key
from mock_batches import Batches
from mock_http import Connection, Head, Reply, encode, error, ok, read_json
from mock_options import Options
from mock_rules import Rules, no_model

__all__ = ["MockServer", "Options", "label_probabilities", "prompt_text", "request_key"]

Key = tuple[str, str]
CONTROL = {"/_stats", "/_configure", "/_reset", "/_requests", "/_keys"}


# -- books --


class Books:
    """What was asked and answered."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Begin anew; what is in flight stays so."""
        self.received = self.answered = 0
        self.in_flight_peak = self.in_flight
        self.by_status: Counter[str] = Counter()
        self.asked: Counter[Key] = Counter()
        self.answered_keys: Counter[Key] = Counter()
        self.requests: list[dict[str, Any]] = []

    def stats(self) -> dict[str, Any]:
        """Return the totals; those of chat requests except `by_status`, which counts every request."""
        return {
            "received": self.received,
            "answered": self.answered,
            "asked_more_than_once": sum(count > 1 for count in self.asked.values()),
            "answered_more_than_once": sum(count > 1 for count in self.answered_keys.values()),
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
            "by_status": dict(self.by_status),
            "cpu_seconds": time.process_time(),
        }

    def key_counts(self) -> list[list[Any]]:
        """Return every key with how often it was asked and answered."""
        return [[*key, count, self.answered_keys[key]] for key, count in self.asked.items()]


# -- the endpoint --


@dataclass(eq=False, slots=True)
class Exchange:
    """A request that was received whole and is not answered yet."""

    connection: Connection
    head: Head
    make: Callable[[], Reply]
    fault: str
    chat: bool = False
    key: Key | None = None
    slot: bool = False
    timer: Any = None


def no_reply() -> Reply:
    """Stand for the reply until the request has been read."""
    raise AssertionError("a request was finished before it was read")


class Endpoint:
    """Takes requests from connections, decides what happens to them, and writes the replies."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.rules = Rules(options)
        self.books = Books()
        self.batches = Batches(options, self._answer_line)
        self.connections: set[Connection] = set()
        self.waiting: deque[Exchange] = deque()
        self.running = self.made = 0
        self.loaded: set[str] = set()

    def configure(self, changes: dict[str, Any]) -> None:
        """Change options while running."""
        self.rules.change(changes)
        self._start_waiting()

    def reset(self) -> None:
        """Forget everything but the options."""
        self.books.clear()
        self.batches.clear()
        self.rules.renew({field.name for field in fields(self.rules.options)})
        self.made = 0
        self.loaded.clear()

    def receive(self, connection: Connection, head: Head, raw: bytes) -> None:
        """Start on a request."""
        ollama = head.path == "/api/chat"
        if head.method == "POST" and (ollama or head.path.endswith("/chat/completions")):
            self._receive_chat(connection, head, raw, ollama=ollama)
            return
        control = head.path in CONTROL
        if self.rules.options.record and not control:
            self._record(head, read_json(raw), None)
        everywhere = self.rules.options.fault_everywhere and not control
        fault = self.rules.draw_fault() if everywhere else "ok"
        make = partial(self._control if control else self._other, head, raw)
        exchange = connection.exchange = Exchange(connection, head, make, fault)
        self._finish(exchange)

    def _receive_chat(self, connection: Connection, head: Head, raw: bytes, *, ollama: bool) -> None:
        options, books, body = self.rules.options, self.books, read_json(raw)
        exchange = connection.exchange = Exchange(connection, head, no_reply, "ok", chat=True)
        books.received += 1
        books.in_flight += 1
        books.in_flight_peak = max(books.in_flight_peak, books.in_flight)
        wanted = self._read(body, ollama=ollama)
        if isinstance(wanted, Wanted) and (options.record or options.count_keys):
            exchange.key = request_key(body)
            books.asked[exchange.key] += 1
        if options.record:
            self._record(head, body, exchange.key)
        if isinstance(wanted, Reply):
            self._send(exchange, wanted)
            return
        refusal = (
            self.rules.refuse_key(head.headers)
            or self.rules.refuse_body(body, wanted, ollama=ollama)
            or self.rules.refuse_now(wanted)
        )
        if refusal is not None:
            self._send(exchange, refusal)
            return
        exchange.fault = self.rules.draw_fault()
        exchange.make = partial(self._chat, body, wanted, exchange.fault, ollama=ollama)
        if options.max_concurrent is None or self.running < options.max_concurrent:
            self._start(exchange)
        elif options.overload == "queue":
            self.waiting.append(exchange)
        else:
            exchange.fault = "ok"  # turned away before it could happen
            self._send(exchange, self.rules.too_many(options.retry_after))

    def _read(self, body: Any, *, ollama: bool) -> Wanted | Reply:
        """Read a chat request, or return the 400 of a malformed one."""
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            return error(400, "Missing required parameter: 'messages'.", "invalid_request_error", None, "messages")
        read = answers.read_ollama if ollama else answers.read_openai
        try:
            return read(body, self.rules.options)
        except (AttributeError, KeyError, TypeError) as problem:
            return error(400, f"Invalid body: {problem!r}", "invalid_request_error")

    def _record(self, head: Head, body: Any, key: Key | None) -> None:
        seen = {"method": head.method, "path": head.path, "query": head.query, "headers": head.headers}
        self.books.requests.append({**seen, "body": body, "time": time.time(), "key": key})

    # -- working --

    def _start(self, exchange: Exchange, *, waited: bool = False) -> None:
        self.running += 1
        exchange.slot = True
        delay = self.rules.delay() if exchange.fault != "429" else 0.0
        if delay or waited:  # one that waited is started by the end of another: finishing it at once would nest
            exchange.timer = self.loop.call_later(delay, self._finish, exchange)
        else:
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        if exchange.fault == "hang":
            return
        try:
            reply = self.rules.fault_reply(exchange.fault) or exchange.make()
        except Exception:  # noqa: BLE001 (a test's own `answer` may raise anything; the client sees what)
            reply = error(500, traceback.format_exc(), "mock_error")
        self._send(exchange, reply)

    def _chat(self, body: dict[str, Any], wanted: Wanted, fault: str, *, ollama: bool) -> Reply:
        first = self.made
        self.made += wanted.n
        options = self.rules.options
        choices = [answers.answer(wanted, body, options, fault, first + index) for index in range(wanted.n)]
        if not ollama:
            return ok(answers.openai_body(wanted, choices, options, first))
        loaded = wanted.model in self.loaded
        self.loaded.add(wanted.model)
        return ok(answers.ollama_body(wanted, body, choices[0], options, loaded=loaded))

    def _answer_line(self, body: dict[str, Any]) -> Reply:
        wanted = self._read(body, ollama=False)
        if isinstance(wanted, Reply):
            return wanted
        refusal = self.rules.refuse_body(body, wanted, ollama=False)
        if self.rules.options.record or self.rules.options.count_keys:
            key = request_key(body)
            self.books.asked[key] += 1
            self.books.answered_keys[key] += refusal is None
        return refusal or self._chat(body, wanted, "ok", ollama=False)

    # -- writing --

    def _send(self, exchange: Exchange, reply: Reply) -> None:
        transport, fault, body = exchange.connection.transport, exchange.fault, reply.body
        if fault == "drop":
            transport.abort()
            self._settle(exchange, "dropped")
            return
        if exchange.head.path.startswith("/api/") and reply.status >= 400:
            body = encode({"error": json.loads(body)["error"]["message"]})
        if fault == "truncated_json":
            body = body[: len(body) // 2]
        head = self._reply_head(exchange.head, reply, len(body))
        if fault == "drop_mid":
            transport.write(head + body[: len(body) // 2])
            transport.close()
            self._settle(exchange, "dropped")
        elif fault == "slow":
            transport.write(head)
            self._trickle(exchange, reply.status, b"", body, max(1, len(body) // 10))
        else:
            transport.write(head + body)
            whole = reply.status == 200 and fault != "truncated_json" and not transport.is_closing()
            self._settle(exchange, str(reply.status), whole=whole)

    def _reply_head(self, head: Head, reply: Reply, length: int) -> bytes:
        return b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nx-request-id: req_%d\r\n%s%s%s\r\n" % (
            reply.status,
            _PHRASES[reply.status],
            reply.content_type,
            length,
            self.books.received,
            reply.headers,
            self.rules.limit_headers(),
            b"connection: close\r\n" if head.close else b"",
        )

    def _trickle(self, exchange: Exchange, status: int, piece: bytes, rest: bytes, size: int) -> None:
        exchange.connection.transport.write(piece)
        if rest:
            pause, following = self.rules.options.slow_s / 10, (rest[:size], rest[size:], size)
            exchange.timer = self.loop.call_later(pause, self._trickle, exchange, status, *following)
        else:
            self._settle(exchange, str(status), whole=status == 200)

    def _settle(self, exchange: Exchange, status: str, *, whole: bool = False) -> None:
        books, connection = self.books, exchange.connection
        if exchange.head.path not in CONTROL:
            books.by_status[status] += 1
        if exchange.chat:
            books.in_flight -= 1
            books.answered += whole
            if whole and exchange.key is not None:
                books.answered_keys[exchange.key] += 1
        connection.exchange = None
        if exchange.slot:
            self.running -= 1
            self._start_waiting()
        if exchange.head.close:
            connection.transport.close()
        elif connection.pending:
            connection.advance()

    def abandon(self, exchange: Exchange) -> None:
        """Drop a request whose client has gone."""
        if exchange.timer is not None:
            exchange.timer.cancel()
        if not exchange.slot and exchange in self.waiting:
            self.waiting.remove(exchange)
        self._settle(exchange, "hung" if exchange.fault == "hang" else "abandoned")

    def _start_waiting(self) -> None:
        limit = self.rules.options.max_concurrent
        while self.waiting and (limit is None or self.running < limit):
            self._start(self.waiting.popleft(), waited=True)

    # -- other paths --

    def _control(self, head: Head, raw: bytes) -> Reply:
        if head.path == "/_stats":
            return ok(self.books.stats())
        if head.path == "/_requests":
            return ok(self.books.requests)
        if head.path == "/_keys":
            return ok(self.books.key_counts())
        if head.path == "/_reset":
            self.reset()
            return ok({})
        try:
            self.configure(read_json(raw) or {})
        except TypeError as problem:
            return error(400, str(problem), "mock_error")
        return ok({})

    def _other(self, head: Head, raw: bytes) -> Reply:
        refusal = self.rules.refuse_key(head.headers)
        if refusal is not None:
            return refusal
        for method, pattern, handle in _ROUTES:
            if method == head.method and (found := pattern.fullmatch(head.path)):
                return handle(self, head, raw, *found.groups())
        return error(404, f"Invalid URL ({head.method} {head.path})", "invalid_request_error")

    def model_names(self) -> tuple[str, ...]:
        """Return the models to list."""
        return ("mock",) if self.rules.options.models is None else self.rules.options.models

    def model(self, name: str) -> Reply:
        """Return one model of /v1/models."""
        if self.rules.options.models is not None and name not in self.rules.options.models:
            return no_model(name)
        return ok(answers.openai_model(name, self.rules.options))

    def models(self) -> Reply:
        """Return /v1/models."""
        return ok(
            {
                "object": "list",
                "data": [answers.openai_model(name, self.rules.options) for name in self.model_names()],
            }
        )

    def tags(self) -> Reply:
        """Return /api/tags."""
        return ok({"models": [answers.ollama_model(name, self.rules.options) for name in self.model_names()]})

    def show(self, raw: bytes) -> Reply:
        """Return /api/show."""
        body = read_json(raw) or {}
        name = str(body.get("model") or body.get("name"))
        if self.rules.options.models is not None and name not in self.rules.options.models:
            return no_model(name, ollama=True)
        return ok(answers.ollama_show(self.rules.options))

    def loaded_models(self) -> Reply:
        """Return /api/ps."""
        options = self.rules.options
        memory = {"size_vram": 4_000_000_000, "expires_at": answers.stamp(), "context_length": options.context or 4096}
        return ok({"models": [{**answers.ollama_model(name, options), **memory} for name in sorted(self.loaded)]})


_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_ROUTES = [
    (method, re.compile(pattern), handle)
    for method, pattern, handle in (
        ("GET", "/v1/models", lambda self, head, raw: self.models()),
        ("GET", "/v1/models/(.+)", lambda self, head, raw, name: self.model(name)),
        ("POST", "/v1/files", lambda self, head, raw: self.batches.upload(head.headers.get("content-type", ""), raw)),
        ("GET", "/v1/files/([^/]+)", lambda self, head, raw, name: self.batches.file(name)),
        ("GET", "/v1/files/([^/]+)/content", lambda self, head, raw, name: self.batches.content(name)),
        ("POST", "/v1/batches", lambda self, head, raw: self.batches.create(read_json(raw) or {})),
        ("GET", "/v1/batches", lambda self, head, raw: self.batches.list(dict(parse_qsl(head.query)))),
        ("GET", "/v1/batches/([^/]+)", lambda self, head, raw, name: self.batches.get(name)),
        ("POST", "/v1/batches/([^/]+)/cancel", lambda self, head, raw, name: self.batches.cancel(name)),
        ("GET", "/api/tags", lambda self, head, raw: self.tags()),
        ("POST", "/api/show", lambda self, head, raw: self.show(raw)),
        ("GET", "/api/version", lambda self, head, raw: ok({"version": "0.12.11"})),
        ("GET", "/api/ps", lambda self, head, raw: self.loaded_models()),
    )
]


# -- running it --


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop, or asyncio's loop where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def serve(options: Options, host: str, port: int, ready: Callable[[Endpoint, str], None]) -> None:
    """Serve until the loop is stopped; `ready` gets the endpoint and its address."""
    loop = new_loop()
    endpoint = Endpoint(options, loop)
    server = loop.run_until_complete(loop.create_server(lambda: Connection(endpoint), host, port, backlog=4096))
    address = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    loop.call_soon(ready, endpoint, address)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(asyncio.sleep(0.001))  # those just accepted become connections in the next rounds
        server.close()
        for connection in list(endpoint.connections):
            connection.transport.abort()
        loop.run_until_complete(asyncio.sleep(0.001))  # and aborted ones are closed in the next rounds
        loop.close()


class _Thread:
    """The server in a thread of this process."""

    def __init__(self, options: dict[str, Any], host: str, port: int) -> None:
        chosen, started = Options(), threading.Event()
        chosen.change(options)

        def ready(endpoint: Endpoint, address: str) -> None:
            self.endpoint, self.url = endpoint, address
            started.set()

        self.thread = threading.Thread(target=serve, args=(chosen, host, port, ready), daemon=True)
        self.thread.start()
        if not started.wait(10):
            raise RuntimeError("the mock server did not start")

    def call(self, do: Callable[[Endpoint], Any]) -> Any:
        """Do something in the server's loop, so that it is never halfway through a request."""
        if not self.thread.is_alive():
            return do(self.endpoint)
        done, results, problems = threading.Event(), [], []

        def run() -> None:
            try:
                results.append(do(self.endpoint))
            except Exception as problem:  # noqa: BLE001 (raised again in the caller's thread)
                problems.append(problem)
            done.set()

        self.endpoint.loop.call_soon_threadsafe(run)
        if not done.wait(10):
            raise RuntimeError("the mock server is stuck: does its `answer` wait for something?")
        if problems:
            raise problems[0]
        return results[0]

    def requests(self) -> list[dict[str, Any]]:
        return self.call(lambda endpoint: list(endpoint.books.requests))

    def key_counts(self) -> list[list[Any]]:
        return self.call(lambda endpoint: endpoint.books.key_counts())

    def stats(self) -> dict[str, Any]:
        return self.call(lambda endpoint: endpoint.books.stats())

    def configure(self, changes: dict[str, Any]) -> None:
        self.call(lambda endpoint: endpoint.configure(changes))

    def reset(self) -> None:
        self.call(Endpoint.reset)

    def stop(self) -> None:
        self.endpoint.loop.call_soon_threadsafe(self.endpoint.loop.stop)
        self.thread.join(10)


class _Process:
    """The server in a process of its own, spoken to over its control paths."""

    def __init__(self, options: dict[str, Any], host: str, port: int) -> None:
        if callable(options.get("answer")):
            raise TypeError("a callable answer needs the server in a thread: leave out process=True")
        command = [sys.executable, __file__, "--host", host, "--port", str(port), "--stop-with-stdin"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.kept: dict[str, Any] = {}
        self.configure({**options, "faults": list(options.get("faults", ()))})

    def _fetch(self, path: str, body: dict[str, Any] | None = None) -> Any:
        if path in self.kept:
            return self.kept[path]
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=data), timeout=10) as reply:
            return json.load(reply)

    def requests(self) -> list[dict[str, Any]]:
        return [{**one, "key": one["key"] and tuple(one["key"])} for one in self._fetch("/_requests")]

    def key_counts(self) -> list[list[Any]]:
        return self._fetch("/_keys")

    def stats(self) -> dict[str, Any]:
        return self._fetch("/_stats")

    def configure(self, changes: dict[str, Any]) -> None:
        changes = {name: list(value) if name == "faults" else value for name, value in changes.items()}
        Options().change(changes)
        self._fetch("/_configure", changes)

    def reset(self) -> None:
        self._fetch("/_reset", {})

    def stop(self) -> None:
        self.kept = {path: self._fetch(path) for path in ("/_requests", "/_keys", "/_stats")}
        self.process.terminate()
        self.process.communicate(timeout=10)


class MockServer:
    """A mock server that runs while the `with` block does; what it counted can be read afterwards too."""

    def __init__(self, *, process: bool = False, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        self._start = partial(_Process if process else _Thread, options, host, port)

    def __enter__(self) -> MockServer:
        self._running = self._start()
        self.url: str = self._running.url
        return self

    def __exit__(self, *_: object) -> None:
        self._running.stop()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every request received whole: method, path, query, headers, body, time, key (None unless a chat)."""
        return self._running.requests()

    @property
    def asked(self) -> Counter[Key]:
        """How often each key was received whole, batch lines included."""
        return Counter({(model, text): count for model, text, count, _ in self._running.key_counts()})

    @property
    def answered(self) -> Counter[Key]:
        """How often each key was answered by a whole 200."""
        return Counter({(model, text): count for model, text, _, count in self._running.key_counts() if count})

    @property
    def stats(self) -> dict[str, Any]:
        """The totals of /_stats."""
        return self._running.stats()

    @property
    def in_flight_peak(self) -> int:
        """The most chat requests that were received and not yet answered at one time."""
        return self.stats["in_flight_peak"]

    def configure(self, **options: Any) -> None:
        """Change options while the server runs."""
        self._running.configure(options)

    def reset(self) -> None:
        """Forget requests, counts, files and batches; begin the random streams, faults, limits and quota anew."""
        self._running.reset()


# -- command line --

_READERS: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "int | None": int,
    "tuple[str, ...]": lambda text: tuple(text.split(",")),
    "tuple[str, ...] | None": lambda text: tuple(text.split(",")),
    "Iterable[str]": lambda text: tuple(text.split(",")),
}


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line: one flag for each option."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin closes")
    for field in fields(Options):
        flag = "--" + field.name.replace("_", "-")
        if field.type == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(flag, type=_READERS.get(str(field.type), str), default=field.default)
    return parser.parse_args(arguments)


def main() -> None:
    """Serve from the command line."""
    given = read_arguments(sys.argv[1:])
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    options.record = options.record and not options.count_keys  # --count-keys means: only those

    def ready(endpoint: Endpoint, address: str) -> None:
        loop = endpoint.loop
        stopping: list[bool] = []

        def stop() -> None:
            if not stopping:  # a second signal must not stop the loop again, in the middle of closing
                loop.stop()
            stopping.append(True)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if given.stop_with_stdin:
            loop.add_reader(sys.stdin.fileno(), stop)
        gc.freeze()
        gc.set_threshold(50_000)
        sys.stdout.write(address + "\n")
        sys.stdout.flush()

    serve(options, given.host, given.port, ready)


if __name__ == "__main__":
    main()
