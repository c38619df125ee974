"""What a client is: the question it is given, the reply it brings, the ways in which a call fails."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal[
    "rate", "server", "connection", "timeout", "body", "auth", "quota", "missing", "request", "too_long", "filtered"
]
"""How a call failed: too fast; the server's fault; nobody there; no answer in time; an answer that cannot be read; a wrong
key; no money left; no such model or address; a request it does not take; a text too long for it; a text it refuses."""


class CallError(Exception):
    """A call that brought no reply."""

    def __init__(self, kind: Kind, message: str, *, maybe_paid: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.maybe_paid = maybe_paid
        """True: the server may have done the work nevertheless."""
        self.retry_after = retry_after
        """Seconds the server asks to wait."""


@dataclass(frozen=True)
class Question:
    """One request, but for the text: its slot is open in the messages."""

    model: str
    """The model's name at the endpoint."""
    messages: Sequence[Mapping[str, str]]
    """{role, content} in order."""
    parameters: Mapping[str, Any]
    """Decoding parameters under their common names."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the reply."""
    top_logprobs: int | None = None
    """How many token alternatives to ask for; None: none."""
    extra: Mapping[str, Any] | None = None
    """Further keys of the body."""


@dataclass(slots=True)
class Reply:
    """What came back."""

    text: str | None
    """The reply's content."""
    finish: str | None = None
    """Why it ended: stop, length, content_filter."""
    tokens_in: int | None = None
    """Tokens of the prompt."""
    tokens_out: int | None = None
    """Tokens of the reply, thoughts included."""
    cached: int = 0
    """Tokens of the prompt that the provider had cached."""
    fingerprint: str | None = None
    """The provider's mark of the system that answered."""
    logprobs: list[tuple[str, list[tuple[str, float]]]] | None = None
    """Per token: what was written, and (alternative, log probability) pairs, itself among them."""
    refusal: str | None = None
    """The provider's own field for refusals."""
    limits: dict[str, str] | None = None
    """x-ratelimit-* headers, where there are any."""


_NONE = type(None)
_TEXTS = frozenset({str, _NONE})
_words = operator.attrgetter("finish", "fingerprint", "refusal")


def checked(read: Callable[[Any, Any], Reply]) -> Callable[[Any, Any], Reply]:
    """Make a client's `read` raise `CallError` ("body") on an answer of any other shape, and keep counts only if they are counts."""

    @functools.wraps(read)
    def reading(client: Any, answer: Any) -> Reply:
        try:
            reply = read(client, answer)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CallError(
                "body", f"the answer has another shape than a chat's ({error!r})", maybe_paid=True
            ) from None
        if not isinstance(reply.text, (str, _NONE)):
            raise CallError("body", "the answer's content is no text", maybe_paid=True)
        if type(reply.tokens_in) is not int or type(reply.tokens_out) is not int or type(reply.cached) is not int:
            reply.tokens_in, reply.tokens_out = _count(reply.tokens_in), _count(reply.tokens_out)
            reply.cached = _count(reply.cached) or 0
        for name in ("finish", "fingerprint", "refusal") if not _TEXTS.issuperset(map(type, _words(reply))) else ():
            value = getattr(reply, name)
            setattr(reply, name, value if isinstance(value, (str, _NONE)) else str(value))
        return reply

    return reading


def _count(value: Any) -> int | None:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if whole else None


class Client(Protocol):
    """An endpoint's protocol: how a question becomes a request body, and an answer a reply."""

    path: str
    """Where questions are posted, below the base URL."""

    def body(self, question: Question, max_tokens_name: str) -> dict[str, Any]:
        """Return the request body."""
        ...

    def read(self, answer: Any) -> Reply:
        """Return the reply in a decoded answer; `CallError` ("body") where it is none."""
        ...
