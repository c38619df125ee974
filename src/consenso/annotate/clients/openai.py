"""Chat completions, as OpenAI's API and the many servers that follow it take them."""

from __future__ import annotations

from typing import Any

from consenso.annotate.clients.protocol import CallError, Question, Reply, checked


class OpenAIClient:
    """Requests to /chat/completions."""

    path = "/chat/completions"

    def body(self, question: Question, max_tokens_name: str = "max_tokens") -> dict[str, Any]:
        """Return the request body."""
        parameters = dict(question.parameters)
        if "max_tokens" in parameters:
            parameters[max_tokens_name] = parameters.pop("max_tokens")
        body: dict[str, Any] = {"model": question.model, "messages": list(question.messages), **parameters}
        if question.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": question.schema},
            }
        if question.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": question.top_logprobs}
        return {**body, **(question.extra or {})}

    @checked
    def read(self, answer: Any) -> Reply:
        """Return the reply of a chat completion."""
        try:
            choice = answer["choices"][0]
            message = choice["message"]
        except (KeyError, IndexError, TypeError):
            raise CallError("body", "the answer is no chat completion", maybe_paid=True) from None
        usage = _mapping(answer.get("usage"))
        details = _mapping(usage.get("prompt_tokens_details"))
        content = message.get("content")
        return Reply(
            text=content if isinstance(content, str) or content is None else _joined(content),
            finish=choice.get("finish_reason"),
            tokens_in=usage.get("prompt_tokens"),
            tokens_out=usage.get("completion_tokens"),
            cached=details.get("cached_tokens") or 0,
            fingerprint=answer.get("system_fingerprint"),
            logprobs=token_logprobs(_mapping(choice.get("logprobs")).get("content")),
            refusal=message.get("refusal"),
        )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _joined(parts: Any) -> str:
    """Content that comes in parts: [{type: text, text: …}, …]."""
    if not isinstance(parts, list):
        raise TypeError("content is neither text nor parts")
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def token_logprobs(tokens: Any) -> list[tuple[str, list[tuple[str, float]]]] | None:
    """Return (token, alternatives) pairs from a list of {token, logprob, top_logprobs}, or None where there is none."""
    if not isinstance(tokens, list) or not tokens:
        return None
    found = []
    try:
        for token in tokens:
            others = {one["token"]: float(one["logprob"]) for one in token.get("top_logprobs") or ()}
            others.setdefault(token["token"], float(token["logprob"]))
            found.append((token["token"], list(others.items())))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # of another shape: the reply counts nevertheless
    return found
