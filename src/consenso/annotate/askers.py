"""Annotators as they ask: settings, registry and schema → what is sent, under which digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from consenso.annotate.annotators import LLMAnnotator, Price, Variant
from consenso.annotate.endpoints import Endpoint, Family, aliases, check_parameters, family_of, price_of, resolve_model
from consenso.annotate.prompting import AnswerForm, Example, Message, Prompt, read_prompt, render
from consenso.annotate.settings import AnnotateSettings
from consenso.errors import ConfigError, nearest
from consenso.labels import LabelSchema
from consenso.store import digest

FORMAT = 1
"""Part of every digest: raised when the way of asking changes what is sent for the same settings."""


@dataclass(frozen=True)
class Asker:
    """One annotator, or one variant of it, ready to ask: everything about a request but the text."""

    name: str
    """The annotator's name in the votes; a variant's is annotator~variant."""
    variant_of: str | None
    """The annotator that this is a variant of."""
    endpoint: Endpoint
    """Where it is asked."""
    model: str
    """The model's name there."""
    family: Family
    """What is known of the model."""
    family_name: str
    """Models of one family err together."""
    schema: LabelSchema
    """The labels."""
    prompt: Prompt
    """The prompt's parts."""
    noun: str
    """What a text is called."""
    answer: Literal["name", "id"]
    """How the label is answered in plain text."""
    structured: Literal["json_schema", "off", "ask"]
    """Whether the reply is bound to the labels; ask: still to be found out."""
    logprobs: bool
    """Whether token probabilities are asked for."""
    parameters: Mapping[str, Any]
    """Decoding parameters, defaults filled in."""
    extra_body: Mapping[str, Any]
    """Further keys of the request."""
    abstain: str | None
    """The word that stands for "cannot be told"."""
    order: Literal["schema", "reversed", "rotated"]
    """Order of the labels in the prompt."""
    examples: tuple[Example, ...]
    """Examples in the prompt."""
    repetitions: int
    """How often each text is asked."""
    reask: int
    """Corrections at most."""
    context: int | None
    """Tokens that prompt and reply may have together."""
    long_texts: Literal["flag", "truncate"]
    """What becomes of a text that does not fit."""
    price: Price | None
    """USD per million tokens."""
    price_source: str
    """Where the price comes from."""
    batch: bool
    """Asked by batch files."""
    model_digest: str | None = None
    """The provider's own digest of the model, where it has one: found out once, then pinned in the log."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The annotator's settings, for the table of annotators."""

    @property
    def form(self) -> AnswerForm:
        """How the label is answered: as JSON where the reply is bound to the labels."""
        return "json" if self.structured == "json_schema" else self.answer

    @property
    def max_tokens(self) -> int:
        """Tokens the reply may have."""
        return int(self.parameters.get("max_tokens") or self.parameters.get("num_predict") or 256)

    def shown(self, offered: Sequence[str], repetition: int) -> list[str]:
        """Return the offered labels (in schema order) in the order in which this repetition shows them."""
        listed = list(offered)
        if self.order == "reversed":
            return listed[::-1]
        if self.order == "rotated" and listed:
            place = repetition % len(listed)
            return listed[place:] + listed[:place]
        return listed

    def messages(self, offered: Sequence[str] | None = None, repetition: int = 0) -> list[Message]:
        """Return the messages, with the text's slot open."""
        names = self.shown(offered if offered is not None else self.schema.names, repetition)
        return render(
            self.prompt, self.schema, shown=names, noun=self.noun, form=self.form, abstain=self.abstain, examples=self.examples
        )  # fmt: skip

    def response_schema(self, offered: Sequence[str]) -> dict[str, Any] | None:
        """Return the JSON schema that binds the reply to the offered labels, or None where it is not bound."""
        if self.structured != "json_schema":
            return None
        enum = [*offered, *([self.abstain] if self.abstain and self.abstain not in offered else [])]
        keys: dict[str, Any] = {"label": {"type": "string", "enum": enum}}
        if self.prompt.thinks:
            keys = {"reasoning": {"type": "string"}, **keys}
        return {"type": "object", "properties": keys, "required": list(keys), "additionalProperties": False}

    @property
    def record(self) -> dict[str, Any]:
        """Everything that can change an answer, but for the text and the repetition: what the digest is made of."""
        return {
            "format": FORMAT,
            "model": self.model,
            "model_digest": self.model_digest,
            "messages": self.messages(),
            "labels": self.schema.as_records(),
            "answer": self.form,
            "abstain": self.abstain,
            "order": self.order,
            "parameters": dict(sorted(self.parameters.items())),
            "extra_body": self.extra_body,
            "structured": self.structured == "json_schema",
            "cut_at": self.context if self.long_texts == "truncate" else None,
        }

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the record."""
        return digest(self.record)

    def cost(self, tokens_in: int | None, tokens_out: int | None, cached: int = 0) -> float | None:
        """Return the USD that so many tokens cost; None where no price is known."""
        if self.price is None:
            return None
        cached_price = self.price.input if self.price.cached is None else self.price.cached
        fresh = max(0, (tokens_in or 0) - cached)
        return (fresh * self.price.input + cached * cached_price + (tokens_out or 0) * self.price.output) / 1e6


def text_digest(text_id: str, text: str, offered: Sequence[str] | None) -> bytes:
    """Return 16 bytes of the sha256 of a text, its id and the labels narrowed to for it (None: all)."""
    said = f"{text_id}\0{text}" if offered is None else f"{text_id}\0{text}\0{chr(31).join(offered)}"
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:16]


def make_askers(
    settings: AnnotateSettings,
    schema: LabelSchema,
    environment: Mapping[str, str],
    *,
    base: Path | None = None,
    drawn: Mapping[str, Sequence[Example]] | None = None,
) -> list[Asker]:
    """Return every LLM annotator and variant of [annotate], in order; `drawn`: annotator → examples drawn from train gold.

    Raises `ConfigError` for unknown providers, parameters, prompts, variants, examples of unknown labels, and two that
    would ask the same.
    """
    made, shared = [], _Setting(settings, schema, environment, base)
    for one in settings.annotators:
        if isinstance(one, LLMAnnotator):
            examples = (drawn or {}).get(one.name, ())
            made.append(_asker(one, one.name, None, shared, examples))
            for name, variant in variants_of(one).items():
                made.append(_asker(_varied(one, variant), f"{one.name}~{name}", one.name, shared, examples))
    _all_differ(made)
    return made


def _all_differ(askers: Sequence[Asker]) -> None:
    """Two that ask the same model the same would share every answer, and count it twice."""
    seen: dict[str, str] = {}
    for asker in askers:
        if (other := seen.setdefault(asker.digest, asker.name)) != asker.name:
            what = "changes nothing that is sent" if asker.variant_of else "are the same model, asked the same"
            who = f"variant {asker.name!r}" if asker.variant_of else f"annotators {other!r} and {asker.name!r}"
            raise ConfigError(
                f"{who} {what}: one answer would count twice; use repetitions, or change the prompt or a parameter of one "
                "(two servers with different weights need different model names)"
            )


def variants_of(one: LLMAnnotator) -> dict[str, Variant]:
    """Return an annotator's variants by name: its own, or those that its short model name knows."""
    if isinstance(one.variants, dict):
        return one.variants
    known: dict[str, Any] = aliases().get(one.model, {}).get("variants", {})
    for name in one.variants:
        if name not in known:
            hint = nearest(name, known) or (f" It has {', '.join(known)}." if known else " It has none.")
            raise ConfigError(
                f"annotator {one.name!r}: the model {one.model!r} knows no variant {name!r}.{hint} Variants of your own: "
                "[annotate.annotators.variants.NAME]"
            )
    return {name: Variant(parameters=known[name]) for name in one.variants}


def _varied(one: LLMAnnotator, variant: Variant) -> LLMAnnotator:
    given = variant.model_dump(exclude_none=True, exclude={"parameters"})
    return one.model_copy(update={**given, "parameters": {**one.parameters, **variant.parameters}, "variants": {}})


@dataclass(frozen=True)
class _Setting:
    """What all annotators of an experiment share."""

    settings: AnnotateSettings
    schema: LabelSchema
    environment: Mapping[str, str]
    base: Path | None


def _asker(one: LLMAnnotator, name: str, variant_of: str | None, shared: _Setting, drawn: Sequence[Example]) -> Asker:
    schema = shared.schema
    endpoint, model = resolve_model(one, shared.settings.endpoints, shared.environment)
    family, prompt = family_of(model), read_prompt(one.prompt, shared.base)
    check_parameters(name, endpoint, one.parameters, family)
    _check_abstain(one, schema)
    structured = endpoint.structured if one.structured == "auto" else one.structured
    if prompt.thinks and one.structured == "auto":
        structured = "off"  # thoughts in prose, then the label: a schema would forbid them or squeeze them into a field
    price, source = price_of(endpoint, model, one.price)
    asker = Asker(
        name=name, variant_of=variant_of, endpoint=endpoint, model=model, family=family,
        family_name=one.family or family.family, schema=schema, prompt=prompt, noun=one.noun, answer=one.answer,
        structured=structured, logprobs=_wants_logprobs(one, endpoint, family, prompt), parameters={},
        extra_body=one.extra_body, abstain=one.abstain, order=one.order, examples=_examples(one, schema, drawn),
        repetitions=one.repetitions, reask=one.reask, context=one.context or family.context or endpoint.context,
        long_texts=one.long_texts, price=price, price_source=source, batch=one.batch, settings=one.model_dump(mode="json"),
    )  # fmt: skip
    if one.batch and not endpoint.batch:
        raise ConfigError(
            f"annotator {name!r}: {endpoint.name} takes no batch files as far as known; leave out batch, or set batch = true in "
            f"[annotate.endpoints.{endpoint.name}]"
        )
    return replace(asker, parameters=_parameters(one, asker, endpoint, family, prompt))


def _check_abstain(one: LLMAnnotator, schema: LabelSchema) -> None:
    if one.abstain is not None and (not one.abstain.strip() or schema.read(one.abstain) is not None):
        raise ConfigError(
            f"annotator {one.name!r}: abstain = {one.abstain!r} is empty or a label; choose a word that is neither"
        )


def _wants_logprobs(one: LLMAnnotator, endpoint: Endpoint, family: Family, prompt: Prompt) -> bool:
    if one.logprobs != "auto":
        return one.logprobs == "on"
    return bool(endpoint.logprobs) and "logprobs" not in family.fixed and not prompt.thinks


def _examples(one: LLMAnnotator, schema: LabelSchema, drawn: Sequence[Example]) -> tuple[Example, ...]:
    if not isinstance(one.examples, list):
        return tuple(drawn)
    for example in one.examples:
        if example.label not in schema:
            hint = nearest(example.label, schema) or f" The labels are {list(schema)}."
            raise ConfigError(
                f"annotator {one.name!r}: an example has the label {example.label!r}, which is none.{hint}"
            )
    return tuple(Example(example.text, example.label) for example in one.examples)


def _parameters(one: LLMAnnotator, asker: Asker, endpoint: Endpoint, family: Family, prompt: Prompt) -> dict[str, Any]:
    """Defaults (greedy, a seed, room for the reply, no thoughts), then what the annotator says."""
    found: dict[str, Any] = {}
    if "temperature" not in family.fixed:
        found["temperature"] = 0.0
    if endpoint.seed and "seed" not in family.fixed:
        found["seed"] = 0
    switch = family.no_think.get(endpoint.name) or (
        family.no_think.get("ollama") if endpoint.protocol == "ollama" else None
    )
    thinks = family.thinks and (one.thinking or switch is None)
    if family.thinks and switch and not one.thinking:
        found.update(switch)
    elif endpoint.protocol == "ollama" and family.thinks and one.thinking:
        found["think"] = True
    if endpoint.protocol == "ollama":
        found["num_ctx"] = one.context or min(family.context or 4096, 8192)
    if not {"max_tokens", "num_predict"} & set(one.parameters):
        longest = max(len(name.encode()) for name in [*asker.schema.names, asker.abstain or ""])
        room = 16 + math.ceil(longest / 2) + (12 if asker.structured != "off" else 0)
        found["max_tokens"] = max(room, 1024 if prompt.thinks else 0, (family.max_tokens or 2048) if thinks else 0)
    return {**found, **one.parameters}


def share_of_prompt(asker: Asker) -> int:
    """Return the characters of a request without any text."""
    return sum(len(message["content"]) for message in asker.messages())
