"""Ollama's own chat API: unlike its OpenAI-compatible one it takes a context size and says which weights answered."""

from __future__ import annotations

from typing import Any

from consenso.annotate.clients.openai import token_logprobs
from consenso.annotate.clients.protocol import CallError, Question, Reply, checked

_TOP_LEVEL = ("keep_alive", "think")


class OllamaClient:
    """Requests to /api/chat."""

    path = "/api/chat"

    def body(self, question: Question, max_tokens_name: str = "num_predict") -> dict[str, Any]:
        """Return the request body: decoding parameters are Ollama's `options`."""
        options = dict(question.parameters)
        body: dict[str, Any] = {"model": question.model, "messages": list(question.messages), "stream": False}
        body |= {name: options.pop(name) for name in _TOP_LEVEL if name in options}
        if "max_tokens" in options:
            options["num_predict"] = options.pop("max_tokens")
        body["options"] = options
        if question.schema is not None:
            body["format"] = question.schema
        if question.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": question.top_logprobs}
        return {**body, **(question.extra or {})}

    @checked
    def read(self, answer: Any) -> Reply:
        """Return the reply of a finished chat."""
        try:
            message = answer["message"]
            content = message["content"]
        except (KeyError, TypeError):
            raise CallError("body", "the answer is no chat of Ollama", maybe_paid=True) from None
        return Reply(
            text=content,
            finish=answer.get("done_reason"),
            tokens_in=answer.get("prompt_eval_count"),
            tokens_out=answer.get("eval_count"),
            logprobs=token_logprobs(answer.get("logprobs")),
        )
