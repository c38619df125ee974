"""Annotators that run in this process, as lanes take them: texts in, one reading each out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from consenso.annotate.annotators import CausalAnnotator, NliAnnotator, PythonAnnotator
from consenso.annotate.endpoints import family_of
from consenso.annotate.local.causal import CausalModel
from consenso.annotate.local.nli import NliModel
from consenso.annotate.prompting import RAW_SLOT, TEXT_SLOT, Example, Prompt, read_prompt, render, sanitise, wrap
from consenso.annotate.values import RETURN_NAMES, ValueReader
from consenso.encoders import encoder_fingerprint
from consenso.errors import ConfigError, DataError, nearest
from consenso.labels import LabelSchema
from consenso.store import digest

if TYPE_CHECKING:
    import numpy as np

Offered = Sequence[Sequence[str] | None]
"""Per text the labels it was narrowed to; None: all."""


class Reading(NamedTuple):
    """What an annotator in this process said about a text."""

    label: str | None
    status: str
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    reply: str | None = None
    error: str | None = None


@dataclass
class LocalAsker:
    """An annotator in this process; `answer` may take long and runs in a thread."""

    name: str
    """The annotator's name in the votes."""
    model: str
    """The model's or function's name."""
    family_name: str
    """Models of one family err together."""
    record: dict[str, Any]
    """Everything that can change an answer."""
    answer: Callable[[Sequence[str], Offered], list[Reading]]
    """Texts and what was offered for each → readings, in order. Raises `ConsensoError` where nothing can be said at all."""
    batch_size: int
    """Texts per call."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The annotator's settings."""
    repetitions: int = 1
    """These annotators say the same every time."""

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the record."""
        return digest(self.record)


def nli_asker(one: NliAnnotator, schema: LabelSchema) -> LocalAsker:
    """Return an annotator by natural language inference."""
    wordings = _wordings(one.name, one.descriptions, schema)
    hypotheses = [one.template.replace("{}", wordings[name]) for name in schema]
    loaded: list[NliModel] = []

    def answer(texts: Sequence[str], offered: Offered) -> list[Reading]:
        if not loaded:
            loaded.append(NliModel(one.model, batch_tokens=one.batch_tokens))
        return readings(loaded[0].probabilities(texts, hypotheses), schema, offered, one.abstain_below)

    record = {
        "kind": "nli",
        "model": encoder_fingerprint(one.model),
        "hypotheses": hypotheses,
        "labels": schema.as_records(),
        "abstain_below": one.abstain_below,
    }
    return LocalAsker(one.name, one.model, family_of(one.model).family, record, answer, 64, one.model_dump(mode="json"))


def causal_asker(
    one: CausalAnnotator, schema: LabelSchema, base: Path | None, drawn: Sequence[Example] = ()
) -> LocalAsker:
    """Return an annotator that rates the labels as continuations of a prompt."""
    prompt = read_prompt(one.prompt, base)
    examples = [Example(e.text, e.label) for e in one.examples] if isinstance(one.examples, list) else list(drawn)
    for example in examples:
        if example.label not in schema:
            raise ConfigError(
                f"annotator {one.name!r}: an example has the label {example.label!r}, which is none.{nearest(example.label, schema)}"
            )
    loaded: list[CausalModel] = []

    def answer(texts: Sequence[str], offered: Offered) -> list[Reading]:
        if not loaded:
            loaded.append(CausalModel(one.model, dtype=one.dtype, batch_tokens=one.batch_tokens))
        model = loaded[0]
        shown = [replace(example, text=model.harmless(example.text)) for example in examples]
        prompts = [
            _messages(prompt, schema, model.harmless(text), shown=names, noun=one.noun, examples=shown)
            for text, names in zip(texts, offered)
        ]
        return readings(model.probabilities(prompts, schema.names), schema, offered, one.abstain_below)

    record = {
        "kind": "causal", "model": encoder_fingerprint(one.model), "messages": render(prompt, schema, noun=one.noun, examples=examples),
        "labels": schema.as_records(), "dtype": one.dtype, "abstain_below": one.abstain_below,
    }  # fmt: skip
    return LocalAsker(
        one.name, one.model, one.family or family_of(one.model).family, record, answer, 32, one.model_dump(mode="json")
    )


def _messages(
    prompt: Prompt,
    schema: LabelSchema,
    text: str,
    *,
    shown: Sequence[str] | None,
    noun: str,
    examples: Sequence[Example],
) -> list[dict[str, str]]:
    clean = sanitise(text)
    messages = render(prompt, schema, shown=shown, noun=noun, examples=examples)
    return [
        {**message, "content": message["content"].replace(TEXT_SLOT, wrap(clean)).replace(RAW_SLOT, clean)}
        for message in messages
    ]


def python_asker(one: PythonAnnotator, schema: LabelSchema, base: Path | None) -> LocalAsker:
    """Return an annotator that is a function of the user's."""
    function = _import(one, base)
    record = {"kind": "python", "function": one.function, "version": one.version, "labels": schema.as_records()}
    return callable_asker(
        one.name, function, schema, record=record, batch_size=one.batch_size, settings=one.model_dump(mode="json")
    )


def callable_asker(
    name: str, function: Callable[[list[str]], Sequence[Any]], schema: LabelSchema, *, record: dict[str, Any], batch_size: int,
    settings: Mapping[str, Any] | None = None,
) -> LocalAsker:  # fmt: skip
    """Return an annotator from a callable: texts in, one label (name or id) or None each."""
    reader = ValueReader(schema)

    def answer(texts: Sequence[str], offered: Offered) -> list[Reading]:
        import pandas as pd

        said = list(function(list(texts)))
        if len(said) != len(texts):
            raise DataError(
                f"annotator {name!r} returned {len(said)} labels for {len(texts)} texts; give one each, None to abstain"
            )
        reader.refuse_undeclared(pd.Series(said, dtype=object), f"annotator {name!r}: its answers", RETURN_NAMES)
        found = []
        for value, names in zip(said, offered):
            if value is None or value != value:  # noqa: PLR0124 - NaN
                found.append(Reading(None, "abstained"))
                continue
            label, status = reader.read(value)
            if label is not None and names is not None and label not in names:
                label, status = None, "invalid_label"
            found.append(Reading(label, status, reply=str(value)))
        return found

    return LocalAsker(name, str(record.get("function", name)), "python", record, answer, batch_size, settings or {})


def _import(one: PythonAnnotator, base: Path | None) -> Callable[[list[str]], Sequence[Any]]:
    module, _, path = one.function.partition(":")
    places = [
        str(place)
        for place in dict.fromkeys([*([base.resolve()] if base else []), Path.cwd()])
        if str(place) not in sys.path
    ]
    sys.path[:0] = places
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"annotator {one.name!r}: cannot import {one.function}: {error}; write module:function, the module beside the experiment file"
        ) from None
    finally:
        for place in places:
            sys.path.remove(place)
    if not callable(found):
        raise ConfigError(f"annotator {one.name!r}: {one.function} is no function")
    return found  # type: ignore[no-any-return]


def _wordings(who: str, descriptions: Mapping[str, str], schema: LabelSchema) -> dict[str, str]:
    for name in descriptions:
        if name not in schema:
            raise ConfigError(
                f"annotator {who!r} describes {name!r}, which is no label.{nearest(name, schema) or f' The labels are {list(schema)}.'}"
            )
    return {name: descriptions.get(name) or name for name in schema}


def readings(
    probabilities: np.ndarray, schema: LabelSchema, offered: Offered, abstain_below: float | None
) -> list[Reading]:
    """Return the most probable label offered for each text, its probability among those as the confidence.

    A row of NaN did not fit into the model: status truncated. Equal probabilities, or one below `abstain_below`, abstain.
    """
    import numpy as np

    found = []
    for row, names in zip(probabilities, offered):
        if np.isnan(row).any():
            found.append(Reading(None, "truncated", error="the text does not fit into the model's context"))
            continue
        shown = list(names) if names is not None else list(schema.names)
        shares = np.array([row[schema.index(name)] for name in shown], dtype="float64")
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(shown), 1 / len(shown))
        order = np.sort(shares)
        best = float(order[-1])
        said = dict(zip(shown, map(float, shares)))
        if (len(order) > 1 and best - order[-2] < 1e-9) or (abstain_below is not None and best < abstain_below):
            found.append(Reading(None, "abstained", best, said))
        else:
            found.append(Reading(shown[int(shares.argmax())], "ok", best, said))
    return found
