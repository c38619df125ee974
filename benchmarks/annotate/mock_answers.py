"""What the mock LLM server answers: labels, JSON, log probabilities, and OpenAI's and Ollama's bodies around them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from mock_http import encode
from mock_options import Options

REFUSAL = "I'm sorry, but I can't help with that."
END = "<|im_end|>"
_SLOT = "\0label\0"

Body = dict[str, Any]


class Frame(NamedTuple):
    """The JSON that fits a schema, cut where the label belongs, and each label as JSON."""

    parts: tuple[str, ...]
    values: Mapping[str, str]


class Wanted(NamedTuple):
    """A chat request, read from OpenAI's or Ollama's shape."""

    model: str
    text: str
    labels: Sequence[str]
    frame: Frame | None
    n: int
    draw: int | None
    greedy: bool
    max_tokens: int | None
    top: int | None
    prompt_tokens: int


def request_key(body: Mapping[str, Any]) -> tuple[str, str]:
    """Return what makes two chat requests the same: the model and the sha256 of the messages."""
    return str(body.get("model")), hashlib.sha256(encode(body.get("messages"), sort=True)).hexdigest()


def label_probabilities(text: str, model: str, labels: Sequence[str]) -> dict[str, float]:
    """Return each label's probability, a function of (text, model, label) alone; `text` is the last user message."""
    weights = [(-math.log((drawn + 1) / 2**64)) ** 3 + 1e-4 for drawn in _draws(text, model, labels)]
    total = sum(weights)
    return {label: weight / total for label, weight in zip(labels, weights)}


def likeliest(text: str, model: str, labels: Sequence[str]) -> str:
    """Return the label of the highest probability, without computing any."""
    draws = _draws(text, model, labels)
    return labels[draws.index(min(draws))]


def _draws(text: str, model: str, labels: Sequence[str]) -> list[int]:
    """Return a number below 2**64 for each label: multiply-shift hashing, for hashing each pair anew costs more."""
    drawn = hashlib.blake2b(f"{model}\0{text}".encode(errors="surrogatepass"), digest_size=16).digest()
    number = int.from_bytes(drawn, "big")
    return [(number * _multiplier(label) & _MASK) >> 64 for label in labels]


@lru_cache(maxsize=4096)
def _multiplier(label: str) -> int:
    digest = hashlib.blake2b(label.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest, "big") | 1


_MASK = 2**128 - 1


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last user message."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _content(message)
    return _content(messages[-1]) if messages else ""


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _tokens(text_length: int) -> int:
    return max(1, -(-text_length // 4))


# -- reading requests --


def read_openai(body: Mapping[str, Any], options: Options) -> Wanted:
    """Read a body of /v1/chat/completions, without the features the server drops."""
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    return _read(
        body,
        options,
        form=schema if schema is not None else ("json" if wanted.get("type") == "json_object" else None),
        sampling=body,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        n=body.get("n") or 1,
    )


def read_ollama(body: Mapping[str, Any], options: Options) -> Wanted:
    """Read a body of /api/chat, without the features the server drops."""
    sampling = body.get("options") or {}
    limit = sampling.get("num_predict")
    return _read(
        body,
        options,
        form=body.get("format") or None,
        sampling=sampling,
        max_tokens=limit if limit and limit > 0 else None,
        n=1,
    )


def _read(
    body: Mapping[str, Any],
    options: Options,
    *,
    form: dict[str, Any] | str | None,
    sampling: Mapping[str, Any],
    max_tokens: int | None,
    n: int,
) -> Wanted:
    messages, dropped = body["messages"], options.ignore
    labels, frame = options.labels, None
    if form is not None:
        found, frame = read_schema(encode(form)) if isinstance(form, dict) else ((), JSON_MODE)
        labels = found or labels
    logprobs = body.get("logprobs") and "logprobs" not in dropped
    return Wanted(
        model=str(body.get("model")),
        text=prompt_text(messages),
        labels=labels,
        frame=frame if options.honour_schema and "response_format" not in dropped else None,
        n=1 if "n" in dropped else n,
        draw=None if "seed" in dropped else sampling.get("seed"),
        greedy=sampling.get("temperature") == 0,
        max_tokens=max_tokens,
        top=(body.get("top_logprobs") or 0) if logprobs else None,
        prompt_tokens=_tokens(sum(len(_content(message)) for message in messages)),
    )


JSON_MODE = Frame(('{"label": ', "}"), {})


@lru_cache(maxsize=256)
def read_schema(encoded: bytes) -> tuple[tuple[str, ...], Frame]:
    """Return a JSON schema's labels (its first enum) and the frame of the JSON that fits it."""
    schema = json.loads(encoded)
    defs = schema.get("$defs") or schema.get("definitions") or {}
    choices = _first_enum(schema, defs) or []
    fitting = json.dumps(_fit(schema, choices, defs), ensure_ascii=False)
    values = {str(choice): json.dumps(choice, ensure_ascii=False) for choice in choices}
    return tuple(values), Frame(tuple(fitting.split(json.dumps(_SLOT))), values)


def _first_enum(schema: Any, defs: Mapping[str, Any]) -> list[Any] | None:
    if isinstance(schema, list):
        return next((found for item in schema if (found := _first_enum(item, defs))), None)
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return _first_enum(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    if "enum" in schema:
        return [choice for choice in schema["enum"] if choice is not None]
    parts = [schema[key] for key in ("anyOf", "oneOf", "allOf", "items") if key in schema]
    return _first_enum(parts + list(schema.get("properties", {}).values()), defs)


def _fit(schema: dict[str, Any], choices: list[Any], defs: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _fit(defs[schema["$ref"].rsplit("/", 1)[-1]], choices, defs)
    if allowed := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return _SLOT if [choice for choice in allowed if choice is not None] == choices else allowed[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _fit(schema[key][0], choices, defs)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _fit(part, choices, defs) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_fit(schema.get("items", {}), choices, defs)]
    plain = {"number": schema.get("maximum", 0.9), "integer": schema.get("maximum", 1), "boolean": True, "null": None}
    return plain.get(kind, "mock")


# -- answering --


class Answer(NamedTuple):
    """One choice of a reply."""

    content: str | None
    finish: str
    refusal: str | None
    logprobs: list[dict[str, Any]] | None
    tokens: int


def answer(wanted: Wanted, body: dict[str, Any], options: Options, fault: str, n: int) -> Answer:
    """Answer a chat request; `n` is the running number of the answer, which callables and samples may use."""
    label = "maybe" if fault == "invalid" else _choose(wanted, body, options, n)
    reply = "".join(_in_frame(wanted.frame, label))
    if fault == "refusal":
        if options.refusal == "field":
            return Answer(None, "stop", REFUSAL, None, _tokens(len(REFUSAL)))
        reply = REFUSAL
    finish = {"filter": "content_filter", "length": "length"}.get(fault, "stop")
    if fault == "length":
        reply = reply[: len(reply) // 2]
    elif fault in ("filter", "empty"):
        reply = ""
    if wanted.max_tokens and len(reply) > 4 * wanted.max_tokens:
        reply, finish = reply[: 4 * wanted.max_tokens], "length"
    if wanted.top is None:
        return Answer(reply, finish, None, None, _tokens(len(reply)))
    logprobs = token_logprobs(reply, wanted)
    return Answer(reply, finish, None, logprobs, max(1, len(logprobs)))


def _choose(wanted: Wanted, body: dict[str, Any], options: Options, n: int) -> str:
    how = options.answer
    if callable(how):
        return how(body, n)
    if how.startswith("fixed:"):
        return how[6:]
    if how == "hash" or (how == "sample" and wanted.greedy):
        return likeliest(wanted.text, wanted.model, wanted.labels)
    if how != "sample":
        raise ValueError(f"unknown answer {how!r}; choose hash, sample, fixed:TEXT, or pass a callable")
    chances = label_probabilities(wanted.text, wanted.model, wanted.labels)
    drawn = f"seed {wanted.draw}" if wanted.draw is not None else f"answer {n}"
    digest = hashlib.sha256(
        f"{options.seed} {drawn} {wanted.model} {wanted.text}".encode(errors="surrogatepass")
    ).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    sums = itertools.accumulate(chances.values())
    return next((label for label, end in zip(chances, sums) if point < end), wanted.labels[-1])


def _in_frame(frame: Frame | None, label: str) -> tuple[str, str, str]:
    """Return what comes before the label, the label, and what comes after it."""
    if frame is None or label.lstrip().startswith("{"):
        return "", label, ""
    value = frame.values.get(label) or json.dumps(label, ensure_ascii=False)
    before, *after = frame.parts
    if not after:
        return before, "", ""
    rest = value.join(after)
    return (before + '"', value[1:-1], '"' + rest) if value.startswith('"') else (before, value, rest)


def token_logprobs(reply: str, wanted: Wanted) -> list[dict[str, Any]]:
    """Cut a reply into tokens, each with the `top` alternatives that `label_probabilities` implies.

    The label begins a new token, so that following every path of a label sums to its probability.
    """
    chances = label_probabilities(wanted.text, wanted.model, wanted.labels)
    paths = {_pieces(_in_frame(wanted.frame, label)): chance for label, chance in chances.items()}
    entries = []
    for at, token in enumerate(_pieces_of(reply, paths)):
        masses: dict[str, float] = {}
        for pieces, chance in paths.items():
            step = pieces[at] if at < len(pieces) else END
            masses[step] = masses.get(step, 0.0) + chance
        masses.setdefault(token, sum(masses.values()) or 1.0)
        entries.append(_entry(token, masses, wanted.top or 0))
        paths = {pieces: chance for pieces, chance in paths.items() if pieces[at : at + 1] == (token,)}
    return entries


def _entry(token: str, masses: dict[str, float], top: int) -> dict[str, Any]:
    total = sum(masses.values())
    logs = {step: math.log(mass / total) for step, mass in masses.items()}
    ranked = sorted(logs.items(), key=lambda pair: -pair[1])[:top]
    fillers = [(f"~{place}", -20.0 - place) for place in range(top - len(ranked))]  # too unlikely to count
    shown = [_token(step, log) for step, log in ranked + fillers]
    return {**_token(token, logs[token]), "top_logprobs": shown}


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _pieces(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(piece for part in parts for piece in _cut(part))


def _pieces_of(reply: str, paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the tokens of a reply: those of the label it is the beginning of, if any."""
    pieces = next((pieces for pieces in paths if reply and "".join(pieces).startswith(reply)), _cut(reply))
    ends = itertools.accumulate(map(len, pieces), initial=0)
    return tuple(piece[: len(reply) - end] for piece, end in zip(pieces, ends) if end < len(reply))


def _cut(text: str) -> tuple[str, ...]:
    starts = itertools.accumulate(itertools.cycle((3, 4, 2, 1)), initial=0)
    bounds = [*itertools.takewhile(lambda start: start < len(text), starts), len(text)]
    return tuple(text[start:stop] for start, stop in itertools.pairwise(bounds))


# -- bodies --


def openai_body(wanted: Wanted, answers: Sequence[Answer], options: Options, number: int) -> dict[str, Any]:
    """Return a chat.completion object."""
    prompt, completion = prompt_tokens(wanted.prompt_tokens, options), sum(one.tokens for one in answers)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(options.cached_tokens, prompt)},
    }
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": wanted.model,
        "choices": [_choice(index, one) for index, one in enumerate(answers)],
        "usage": usage,
        "system_fingerprint": "fp_" + digest(wanted.model, options)[:10],
    }


def _choice(index: int, one: Answer) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": one.content, "refusal": one.refusal},
        "logprobs": None if one.logprobs is None else {"content": one.logprobs, "refusal": None},
        "finish_reason": one.finish,
    }


def ollama_body(wanted: Wanted, body: Mapping[str, Any], one: Answer, options: Options, *, loaded: bool) -> Body:
    """Return the reply of /api/chat; `loaded`: the model was in memory already."""
    message = {"role": "assistant", "content": one.content if one.refusal is None else one.refusal}
    if body.get("think"):
        message["thinking"] = f"The text has {len(wanted.text)} characters."
    window = (body.get("options") or {}).get("num_ctx") or options.context
    load, work = (1_000_000 if loaded else 1_500_000_000), int(options.latency * 1e9)
    reply = {
        "model": wanted.model,
        "created_at": stamp(),
        "message": message,
        "done": True,
        "done_reason": "length" if one.finish == "length" else "stop",
        "total_duration": load + work + 1000,
        "load_duration": load,
        "prompt_eval_count": min(wanted.prompt_tokens, window or wanted.prompt_tokens),
        "prompt_eval_duration": work // 2,
        "eval_count": one.tokens,
        "eval_duration": work // 2,
    }
    return reply if one.logprobs is None else {**reply, "logprobs": one.logprobs}


def prompt_tokens(tokens: int, options: Options) -> int:
    """Return the prompt tokens the server reports: capped where it truncates silently."""
    return min(tokens, options.context) if options.context and options.silent_truncation else tokens


@lru_cache(maxsize=1024)
def _digest(model: str, salt: str) -> str:
    return hashlib.sha256(f"{model}\0{salt}".encode()).hexdigest()


def digest(model: str, options: Options) -> str:
    """Return a model's digest, which changes with `digest_salt`."""
    return _digest(model, options.digest_salt)


def stamp() -> str:
    """Return the time as Ollama writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


def openai_model(name: str, options: Options) -> dict[str, Any]:
    """Return one model as /v1/models lists it; `max_model_len` as vLLM tells it."""
    window = {"max_model_len": options.context} if options.context else {}
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "mock", **window}


def ollama_details(options: Options) -> dict[str, Any]:
    """Return a model's details as Ollama tells them."""
    shape = {"parent_model": "", "format": "gguf", "family": "mock", "families": ["mock"], "parameter_size": "8.0B"}
    return {**shape, "quantization_level": options.quantization}


def ollama_model(name: str, options: Options) -> dict[str, Any]:
    """Return one model as /api/tags lists it."""
    named = {"name": name, "model": name, "modified_at": stamp(), "size": 4_000_000_000}
    return {**named, "digest": digest(name, options), "details": ollama_details(options)}


def ollama_show(options: Options) -> dict[str, Any]:
    """Return the reply of /api/show."""
    info = {"general.architecture": "mock", "general.parameter_count": 8_000_000_000}
    return {
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": ollama_details(options),
        "model_info": {**info, "mock.context_length": options.context or 8192},
        "capabilities": ["completion", "thinking"],
        "modified_at": stamp(),
    }
