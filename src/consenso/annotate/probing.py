"""What an endpoint honours: found out with a few requests, once, and kept in the log ever since."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from consenso.annotate.askers import Asker
from consenso.annotate.clients.protocol import CallError, Client, Question, Reply
from consenso.annotate.clients.transport import Transport
from consenso.annotate.limiting import patiently
from consenso.annotate.votelog import VoteLog
from consenso.errors import ConfigError

FEATURES = ("schema", "logprobs", "seed", "n")
"""What is probed: JSON schemas, token probabilities, seeds, several replies at once."""


async def probe(
    asker: Asker, transport: Transport, client: Client, features: Sequence[str] = FEATURES
) -> dict[str, str]:
    """Return feature → honoured, dropped (taken and ignored) or refused (with the server's words).

    Sends one request per feature (three for the seed). Raises `CallError` where the endpoint does not answer at all.
    """
    return {feature: await _found(feature, asker, transport, client) for feature in features}


async def _found(feature: str, asker: Asker, transport: Transport, client: Client) -> str:
    for attempt in range(3):
        try:
            return await _PROBES[feature](asker, transport, client)
        except CallError as error:
            if error.kind not in {"request", "body", "filtered", "server"}:
                raise
            said = f"refused ({str(error)[:120]})"
            if error.kind in {"request", "filtered"}:
                break
        if not attempt:  # some servers fail over what they do not know: do they answer without it?
            await _ask(asker, transport, client, "Answer with the single word yes.")
    return said


async def _ask(asker: Asker, transport: Transport, client: Client, content: str, **more: Any) -> Reply:
    extra = {**asker.extra_body, **more.pop("extra", {})}
    parameters = {**asker.parameters, **more.pop("parameters", {})}
    question = Question(asker.model, [{"role": "user", "content": content}], parameters, extra=extra, **more)
    body = client.body(question, asker.endpoint.max_tokens)
    try:
        return await asyncio.wait_for(transport.ask(json.dumps(body).encode()), transport.timeout_s)
    except TimeoutError:
        raise CallError("timeout", f"no answer within {transport.timeout_s:g} s", maybe_paid=True) from None


async def _schema(asker: Asker, transport: Transport, client: Client) -> str:
    """Ask for a word that the schema does not allow."""
    schema = {
        "type": "object", "properties": {"label": {"type": "string", "enum": ["alpha", "beta"]}},
        "required": ["label"], "additionalProperties": False,
    }  # fmt: skip
    reply = await _ask(
        asker, transport, client, "Answer with the single word banana.", schema=schema, parameters={"max_tokens": 64}
    )
    try:
        value = json.loads(reply.text or "")
    except ValueError:
        return "dropped"
    return "honoured" if isinstance(value, dict) and value.get("label") in {"alpha", "beta"} else "dropped"


async def _logprobs(asker: Asker, transport: Transport, client: Client) -> str:
    reply = await _ask(asker, transport, client, "Answer with the single word yes.", top_logprobs=5)
    if not reply.logprobs:
        return "dropped"
    alternatives = max(len(others) for _, others in reply.logprobs)
    return "honoured" if alternatives > 1 else "honoured, without alternatives"


async def _seed(asker: Asker, transport: Transport, client: Client) -> str:
    """Two hot replies with one seed and one with another: equal ones, and another one, show that it counts."""
    hot = {} if "temperature" in asker.family.fixed else {"temperature": 1.5}
    first, again, other = [
        (
            await _ask(
                asker, transport, client, "Write ten random words.", parameters={**hot, "seed": seed, "max_tokens": 48}
            )
        ).text
        for seed in (7, 7, 8)
    ]
    if first != again:
        return "dropped"
    return "honoured" if other != first else "not to be told (replies do not vary)"


async def _n(asker: Asker, transport: Transport, client: Client) -> str:
    if asker.endpoint.protocol == "ollama":
        return "dropped"
    question = Question(
        asker.model, [{"role": "user", "content": "Answer with one word."}], asker.parameters, extra={"n": 2}
    )
    body = client.body(question, asker.endpoint.max_tokens)
    answer = json.loads(await transport.call("POST", client.path, data=json.dumps(body).encode()))
    return "honoured" if len(answer.get("choices") or ()) == 2 else "dropped"


_PROBES = {"schema": _schema, "logprobs": _logprobs, "seed": _seed, "n": _n}


async def pin(asker: Asker, transport: Transport, client: Client, log: VoteLog, changed: str) -> Asker:
    """Return the asker with what must never change under it: the model's digest, and whether replies are bound to the labels.

    Both are looked up once and kept in the log, so that a look-up that fails later cannot make answers look new. A digest
    that differs from the kept one is another model: `changed` says what then (stop, keep, ask_again).
    Raises `CallError` where the endpoint does not answer, `ConfigError` where the model is another.
    """
    if asker.endpoint.protocol == "ollama":
        asker = await _pin_digest(asker, transport, log, changed)
    if asker.structured == "ask":
        name = f"schema {asker.endpoint.name} {asker.model}"
        kept = log.pinned(name)
        if kept is None:
            ask = partial(probe, asker, transport, client, ["schema"])
            kept = (await patiently(ask, asker.endpoint.patience_s))["schema"]
            log.pin(name, kept)
        asker = replace(asker, structured="json_schema" if kept == "honoured" else "off")
    return asker


async def _pin_digest(asker: Asker, transport: Transport, log: VoteLog, changed: str) -> Asker:
    name, kept = f"digest {asker.endpoint.name} {asker.model}", None
    if (record := log.pinned(f"digest {asker.endpoint.name} {asker.model}")) is not None:
        kept = record["digest"]
    found = await patiently(partial(_ollama_digest, asker, transport), asker.endpoint.patience_s)
    if record is None:
        log.pin(name, {"digest": found})
        kept = found
    elif found is not None and kept is not None and found != kept:
        if changed == "stop":
            raise ConfigError(
                f"annotator {asker.name!r}: the model {asker.model!r} is not the one that gave the first answers (digest {found[:12]}, "
                f"then {kept[:12]}); set annotate.model_changed to ask_again (all anew) or keep (both under one name)"
            )
        if changed == "ask_again":
            log.pin(name, {"digest": found})
            kept = found
    return replace(asker, model_digest=kept)


async def _ollama_digest(asker: Asker, transport: Transport) -> str | None:
    """The sha256 of the model's weights on this server; `CallError` ("missing") where it is not there."""
    try:
        models = (await transport.get("/api/tags")).get("models") or []
    except CallError as error:
        if error.kind == "missing":
            return None  # something in between does not know this address
        raise
    wanted = {asker.model, asker.model if ":" in asker.model else f"{asker.model}:latest"}
    for model in models:
        if wanted & {model.get("name"), model.get("model")}:
            digest = model.get("digest")
            return str(digest) if digest else None
    names = ", ".join(sorted(str(model.get("name")) for model in models)[:8]) or "none"
    raise CallError("missing", f"it has: {names}")
