"""HTTP for every client: one aiohttp session per endpoint, bodies as bytes, failures told apart by what to do next."""

from __future__ import annotations

import email.utils
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate.clients.protocol import CallError, Client, Kind, Reply
from consenso.errors import MissingExtraError

if TYPE_CHECKING:
    import aiohttp

LIMIT_HEADERS = tuple(
    f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
"""What servers say of their limits."""
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|maximum.{0,20}(?:context|length|tokens)|too (?:long|many tokens)|"
    r"exceeds? the (?:context|max)|prompt is too long",
    re.I,
)
_FILTERED = re.compile(r"content.?(?:filter|policy|management)|responsible.?ai|safety", re.I)
_NO_MONEY = re.compile(
    r"insufficient.?(?:quota|balance|funds|credit)|billing|exceeded your current quota|payment", re.I
)

_INVALID = re.compile(r"\d validation errors?\b|is not supported for models? ", re.I)
"""What says that the request is at fault under HTTP 500, as llama-cpp-python's server does."""


class Transport:
    """A session with one endpoint."""

    def __init__(
        self, base_url: str, client: Client, *, key: str | None = None, headers: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> None:  # fmt: skip
        self.client = client
        self._base = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "User-Agent": "consenso", **(headers or {})}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._key = key
        self.timeout_s = timeout_s
        """Seconds to wait for a reply. Whoever calls `ask` sees to it: a timer for every request costs aiohttp a tenth of its time."""
        self._session: aiohttp.ClientSession | None = None
        self._url: Any = None

    async def open(self) -> None:
        """Open the session."""
        try:
            import aiohttp
            from yarl import URL
        except ImportError:
            raise MissingExtraError("asking LLMs", "llm") from None
        self._url = URL(self._base + self.client.path)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(15.0, self.timeout_s)),
            proxy=_proxy_for(self._base),
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: bytes) -> Reply:
        """Post a question and return its reply; raises `CallError`."""
        import aiohttp

        assert self._session is not None
        try:
            response = await self._session.post(self._url, data=body)
            try:
                content = await response.read()
            except BaseException:
                response.close()
                raise
        except aiohttp.ConnectionTimeoutError:
            raise CallError("connection", f"no connection to {self._base} within 15 s") from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise CallError("connection", _reason(error)) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise CallError("server", f"connection broke off ({_reason(error)})", maybe_paid=True) from None
        if response.status != 200:
            raise failure(response.status, content, response.headers, self._key)
        try:
            answer = json.loads(content)
        except ValueError:
            raise CallError("body", f"the answer is no JSON: {_start(content)}", maybe_paid=True) from None
        reply = self.client.read(answer)
        if "x-ratelimit-remaining-requests" in response.headers or "x-ratelimit-remaining-tokens" in response.headers:
            reply.limits = {name: response.headers[name] for name in LIMIT_HEADERS if name in response.headers}
        return reply

    async def upload(self, path: str, file: Path, fields: Mapping[str, str]) -> Any:
        """Post a file as a form below the base URL and return the decoded JSON; raises `CallError`."""
        import aiohttp

        form = aiohttp.FormData(dict(fields))
        headers = {name: value for name, value in self._headers.items() if name != "Content-Type"}
        with file.open("rb") as content:
            form.add_field("file", content, filename=file.name, content_type="application/jsonl")
            async with aiohttp.ClientSession(headers=headers, proxy=_proxy_for(self._base)) as session:
                try:
                    timeout = aiohttp.ClientTimeout(total=max(600.0, self.timeout_s))
                    async with session.post(self._base + path, data=form, timeout=timeout) as response:
                        answer = await response.read()
                        if response.status >= 300:
                            raise failure(response.status, answer, response.headers, self._key)
                except TimeoutError:
                    raise CallError("timeout", "the upload was not answered in time") from None
                except (aiohttp.ClientError, ConnectionError) as error:
                    raise CallError("connection", _reason(error)) from None
        return _decoded(answer)

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file below the base URL; raises `CallError`."""
        import aiohttp

        assert self._session is not None
        try:
            async with self._session.get(
                self._base + path, timeout=aiohttp.ClientTimeout(total=None, sock_read=self.timeout_s)
            ) as response:
                if response.status >= 300:
                    raise failure(response.status, await response.read(), response.headers, self._key)
                rest = b""
                async for chunk in response.content.iter_chunked(1 << 18):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
                if rest:
                    yield rest
        except TimeoutError:
            raise CallError("timeout", f"no answer within {self.timeout_s:g} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise CallError("connection", _reason(error)) from None

    async def get(self, path: str) -> Any:
        """Return decoded JSON of a GET below the base URL; raises `CallError`."""
        return _decoded(await self.call("GET", path))

    async def post(self, path: str, body: Any) -> Any:
        """Post JSON below the base URL and return the decoded JSON; raises `CallError`."""
        return _decoded(await self.call("POST", path, data=json.dumps(body).encode()))

    async def call(self, method: str, path: str, **options: Any) -> bytes:
        """Make any other request below the base URL and return the body; raises `CallError`."""
        import aiohttp

        assert self._session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=self.timeout_s)
            async with self._session.request(method, self._base + path, timeout=timeout, **options) as response:
                content = await response.read()
                if response.status >= 300:
                    raise failure(response.status, content, response.headers, self._key)
                return content
        except aiohttp.ConnectionTimeoutError:
            raise CallError("connection", f"no connection to {self._base} within 15 s") from None
        except TimeoutError:
            raise CallError("timeout", f"no answer within {self.timeout_s:g} s", maybe_paid=True) from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise CallError("connection", _reason(error)) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise CallError("connection", _reason(error), maybe_paid=True) from None


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise CallError("body", f"the answer is no JSON: {_start(content)}", maybe_paid=True) from None


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL, found once: aiohttp would look it up for every request."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies_environment()
    return proxies.get(parts.scheme) or proxies.get("all")


def failure(status: int, content: bytes, headers: Mapping[str, str], key: str | None = None) -> CallError:  # noqa: PLR0911 - one line per status
    """Return what an HTTP status other than 200 means; the message is the server's own, in one line, without the key."""
    message, code = _said(content)
    if key:
        message = message.replace(key, "…")
    text = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    wait = retry_after(headers)
    clues = f"{code} {message}"
    if status in {429, 402} and _NO_MONEY.search(clues):
        return CallError("quota", text)
    if status in {429, 498, 529} or (status == 503 and wait is not None):
        return CallError("rate", text, retry_after=wait)
    if status in {400, 413, 422} or (status == 500 and _INVALID.search(message)):
        kind: Kind = (
            "too_long"
            if status == 413 or _TOO_LONG.search(clues)
            else "filtered"
            if _FILTERED.search(clues)
            else "request"
        )
        return CallError(kind, text)
    if status in {401, 403}:
        return CallError("auth", text)
    if status == 402:
        return CallError("quota", text)
    if status in {404, 405, 410} or 300 <= status < 400:
        return CallError("missing", text)
    if status in {408, 504, 502, 524}:
        return CallError("server", text, maybe_paid=True, retry_after=wait)
    if status >= 500 or status in {409, 425}:
        return CallError("server", text, retry_after=wait)
    return CallError("request", text)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a server asks to wait: retry-after-ms, or Retry-After in seconds or as a date."""
    if (ms := headers.get("retry-after-ms")) is not None and (value := _float(ms)) is not None:
        return max(0.0, value / 1000)
    said = headers.get("Retry-After") or headers.get("retry-after")
    if said is None:
        return None
    if (value := _float(said)) is not None:
        return max(0.0, value)
    try:
        at = email.utils.parsedate_to_datetime(said).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, at - (time.time() if now is None else now))


def duration_s(said: str) -> float | None:
    """Return the seconds in a duration such as 1s, 6m0s, 120ms, 1h2m3.5s, or a plain number."""
    if (value := _float(said)) is not None:
        return value
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", said.strip())
    if not parts or "".join(number + unit for number, unit in parts) != said.strip():
        return None
    return sum(float(number) * units[unit] for number, unit in parts)


def _float(said: str) -> float | None:
    try:
        return float(said)
    except ValueError:
        return None


def _said(content: bytes) -> tuple[str, str]:
    """The message and the code in an error's body, whatever its shape."""
    try:
        body = json.loads(content)
    except ValueError:
        return _start(content), ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error.get("msg") or json.dumps(error)
        return " ".join(str(message).split())[:300], f"{error.get('code') or ''} {error.get('type') or ''}"
    return " ".join(str(error).split())[:300], ""


def _start(content: bytes) -> str:
    text = re.sub(r"<[^>]+>", " ", content[:2000].decode("utf-8", "replace"))
    return " ".join(text.split())[:120]


def _reason(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return str(getattr(inner, "strerror", None) or inner) or type(error).__name__
