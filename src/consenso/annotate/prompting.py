"""Prompts: text files with named parts, filled in one pass and compiled once per label list."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from consenso.errors import ConfigError, nearest
from consenso.files import find_path
from consenso.labels import LabelSchema

PARTS = ("role", "task", "codebook", "examples", "reasoning", "output", "text")
"""The named parts of a prompt file, each begun by a line such as [role]. All but `text` make the system message."""
PLACEHOLDERS = ("labels", "names", "noun", "examples", "answer_format", "text", "raw_text")
"""What a prompt file may contain in braces; other braces stand for themselves."""
TEXT_SLOT = "\x00text\x00"
"""Stands for the text in a compiled prompt: no text holds it, since control characters are replaced first."""
RAW_SLOT = "\x00raw\x00"
"""The same for a text without tags around it."""

Message = dict[str, str]
"""{role, content}, as chat models take it."""
AnswerForm = Literal["name", "id", "json"]
"""How the label is to be answered: by its name, by its id, or as {"label": name}."""

_PART = re.compile(r"^\[(\w+)\][ \t]*$", re.M)
_PLACE = re.compile(r"\{(\w+)\}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_CLOSING = re.compile(r"</?text", re.I)


@dataclass(frozen=True)
class Example:
    """A text whose label is shown in the prompt."""

    text: str
    """The text."""
    label: str
    """Its label, by name."""
    text_id: str | None = None
    """Its id, where it was drawn from the training texts: it then counts as a human label."""


@dataclass(frozen=True)
class Prompt:
    """A prompt file's parts, in the order of the file."""

    name: str
    """The packaged prompt's name, the file's path, or "inline"."""
    parts: tuple[tuple[str, str], ...]
    """(part, text) pairs."""

    @property
    def thinks(self) -> bool:
        """Whether the prompt asks for reasoning before the answer."""
        return any(part == "reasoning" for part, _ in self.parts)

    @property
    def text(self) -> str:
        """The prompt as it would stand in a file."""
        return "\n\n".join(f"[{part}]\n{text}" for part, text in self.parts)


def packaged_prompts() -> list[str]:
    """Return the names of the prompts that come with consenso."""
    folder = resources.files("consenso.annotate") / "prompts"
    return sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))


def read_prompt(source: str, base: Path | None = None) -> Prompt:
    """Return the prompt that a name, a path or the text of a prompt itself means.

    Raises `ConfigError` for a file that is not there, an unknown part or placeholder, or a prompt without {text}.
    """
    if source in (names := packaged_prompts()):
        file = resources.files("consenso.annotate") / "prompts" / f"{source}.txt"
        return _parse_prompt(source, file.read_text(encoding="utf-8"))
    if "\n" in source or "{text}" in source or "{raw_text}" in source:
        return _parse_prompt("inline", source)
    path = find_path(source, base)
    if path is None or not path.is_file():
        hint = nearest(source, names) or f" Packaged prompts: {', '.join(names)}."
        raise ConfigError(
            f"prompt {source!r}: no packaged prompt and no file of this name.{hint} A prompt may also be written out; it needs {{text}}"
        )
    try:
        return _parse_prompt(str(source), path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"prompt {path}: not UTF-8 text; save it as UTF-8") from None


def _parse_prompt(name: str, text: str) -> Prompt:
    pieces = _PART.split(text.replace("\r\n", "\n"))
    before, pairs = pieces[0].strip(), list(zip(pieces[1::2], pieces[2::2]))
    for part, _ in pairs:
        if part not in PARTS:
            raise ConfigError(f"prompt {name}: unknown part [{part}].{nearest(part, PARTS)} Parts: {', '.join(PARTS)}")
    if before:
        pairs = [("text", before), *pairs]
    if not any("{text}" in body or "{raw_text}" in body for _, body in pairs):
        raise ConfigError(f"prompt {name}: nowhere {{text}}, the place of the text to be labelled; add it")
    for word in sorted(set(_PLACE.findall(text)) - set(PLACEHOLDERS)):
        if hint := nearest(word, PLACEHOLDERS):
            raise ConfigError(f"prompt {name}: unknown placeholder {{{word}}}.{hint}")
    return Prompt(name, tuple((part, body.strip()) for part, body in pairs))


def render(
    prompt: Prompt,
    schema: LabelSchema,
    *,
    shown: Sequence[str] | None = None,
    noun: str = "text",
    form: AnswerForm = "name",
    abstain: str | None = None,
    examples: Sequence[Example] = (),
) -> list[Message]:
    """Return the messages with `TEXT_SLOT` where the text will stand.

    `shown`: the labels offered, in the order shown (default: all, in schema order); `abstain`: the word for "cannot be
    told", where abstaining is allowed. Placeholders are filled in one pass, so that braces in labels or texts are
    nothing but braces.
    """
    names = list(shown if shown is not None else schema.names)
    values = {
        "labels": _label_lines(names, schema, form, abstain),
        "names": ", ".join([*names, *([abstain] if abstain else [])]),
        "noun": noun,
        "examples": "\n\n".join(_example(one, schema, form) for one in examples if one.label in names),
        "answer_format": answer_format(names, schema, form, abstain, prompt.thinks),
        "text": TEXT_SLOT,
        "raw_text": RAW_SLOT,
    }
    filled = []
    for part, body in prompt.parts:
        if part == "examples" and not values["examples"]:
            continue
        filled.append((part, _PLACE.sub(lambda found: values.get(found[1], found[0]), body)))
    system = "\n\n".join(body for part, body in filled if part != "text" and not _has_slot(body))
    user = "\n\n".join(body for part, body in filled if part == "text" or _has_slot(body))
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": user}]


def _has_slot(body: str) -> bool:
    return TEXT_SLOT in body or RAW_SLOT in body


def _label_lines(names: Sequence[str], schema: LabelSchema, form: AnswerForm, abstain: str | None) -> str:
    said, ids = schema.descriptions, schema.label2id
    lines = []
    for name in names:
        head = f"- {ids[name]}: {name}" if form == "id" else f"- {name}"
        meaning = said[name] if said[name] and said[name] != name else ""
        between = " (" if form == "id" else ": "
        lines.append(head + (f"{between}{meaning}{')' if form == 'id' else ''}" if meaning else ""))
    if abstain:
        lines.append(f"- {abstain}: none of the labels can be told from it")
    return "\n".join(lines)


def _example(example: Example, schema: LabelSchema, form: AnswerForm) -> str:
    return f"{wrap(sanitise(example.text))}\n{written(example.label, schema, form)}"


def written(label: str, schema: LabelSchema, form: AnswerForm) -> str:
    """Return a label as the prompt wants it answered."""
    if form == "json":
        return json.dumps({"label": label}, ensure_ascii=False)
    return str(schema.label2id[label]) if form == "id" else label


def answer_format(
    names: Sequence[str], schema: LabelSchema, form: AnswerForm, abstain: str | None, thinks: bool
) -> str:
    """Return the sentence that says how to answer."""
    if form == "json":
        keys = '{"reasoning": "…", "label": "…"}' if thinks else '{"label": "…"}'
        return f"Answer with a JSON object {keys}, where label is one of: {', '.join(_quoted(names, abstain))}."
    what = "the label's number" if form == "id" else "the label's name, exactly as it stands above"
    or_else = f", or {abstain}" if abstain else ""
    if thinks:
        return f"End with a line that reads CLASSIFICATION: followed by {what}{or_else}, and nothing else."
    return f"Answer with {what}{or_else}, and nothing else. No explanation."


def _quoted(names: Sequence[str], abstain: str | None) -> list[str]:
    return [json.dumps(name, ensure_ascii=False) for name in (*names, *([abstain] if abstain else ()))]


def sanitise(text: str) -> str:
    """Return the text with control characters (but tabs and line ends) and lone surrogates as U+FFFD."""
    return _CONTROL.sub("\ufffd", text) if not text.isprintable() else text


def wrap(text: str) -> str:
    """Return the text between tags that it cannot close: one that holds such a tag gets tags of its own."""
    if "<" not in text or not _CLOSING.search(text):
        return f"<text>\n{text}\n</text>"
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"<text-{mark}>\n{text}\n</text-{mark}>"


def shorten(text: str, limit: int) -> str:
    """Return the text's first and last characters, `limit` in all, with […] where the rest was: the declared policy."""
    if len(text) <= limit:
        return text
    head = (limit - 5) * 2 // 3
    return f"{text[:head]} […] {text[len(text) - (limit - 5 - head) :]}"


class Compiled:
    """A request body, or messages, as JSON with the text's place kept open: filling it is one join."""

    def __init__(self, body: Mapping[str, object]) -> None:
        whole = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        self._pieces: list[str] = []
        self._raw: list[bool] = []
        for piece in re.split("(" + "|".join(map(re.escape, _ESCAPED)) + ")", whole):
            if piece in _ESCAPED:
                self._raw.append(piece == _ESCAPED[1])
            else:
                self._pieces.append(piece)
        self.characters = len(whole)
        """Length without any text: what the estimate of the prompt's tokens starts from."""

    def fill(self, text: str) -> bytes:
        """Return the JSON body for a (sanitised) text."""
        if self._raw == [False]:
            inner = json.dumps(wrap(text), ensure_ascii=False)[1:-1]
            return f"{self._pieces[0]}{inner}{self._pieces[1]}".encode()
        said = [self._pieces[0]]
        for raw, piece in zip(self._raw, self._pieces[1:]):
            said += [json.dumps(text if raw else wrap(text), ensure_ascii=False)[1:-1], piece]
        return "".join(said).encode()


_ESCAPED = tuple(json.dumps(slot)[1:-1] for slot in (TEXT_SLOT, RAW_SLOT))
