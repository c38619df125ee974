"""The text of a reply: what of it is meant to be read, and where in it an answer may stand. Knows nothing of labels."""

from __future__ import annotations

import ast
import functools
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from importlib import resources
from typing import Any

_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufe0e\ufe0f\u00ad]")
_SPACE = re.compile(r"\s+")
_THINK = r"think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad"
_THOUGHT = re.compile(rf"<({_THINK})\b[^>]*>.*?</\1\s*>", re.S | re.I)
_THOUGHT_OPEN = re.compile(rf"<({_THINK})\b[^>]*>", re.I)
_THOUGHT_CLOSE = re.compile(rf"</({_THINK})\s*>", re.I)
_HARMONY = re.compile(r"<\|channel\|>\s*final\s*(?:<\|[^|]*\|>\s*\w*\s*)*?<\|message\|>", re.I)
_TURN_END = re.compile(
    r"<\|(?:eot_id|im_end|end|end_of_text|endoftext|start_header_id|im_start|user)\|>|</s>|<end_of_turn>|\[/?INST\]"
)
_SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>|\[/?INST\]")
_INLINE = re.compile(r"</?(?:b|strong|i|em|u|p|span|div|code|br|mark|h[1-6])\b[^<>]*/?>", re.I)
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)```", re.S)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_BOLD = re.compile(r"(?:\*\*|__)([^*_\n]{1,120}?)(?:\*\*|__)")
_ROW = re.compile(r"\|([^|\n]*)\|([^|\n]*)\|?")
_DECORATED = re.compile(r"^[\s>*_#`•▪◦+-]*|[\s*_`]*$")


@functools.cache
def words_of(name: str) -> tuple[str, ...]:
    """Return a list of registry/marks.toml."""
    file = resources.files("consenso.annotate") / "registry" / "marks.toml"
    found: list[str] = tomllib.loads(file.read_text(encoding="utf-8"))[name]
    return tuple(found)


def plain(text: str) -> str:
    """Return the text in NFKC, case-folded, without invisible characters, white space as single blanks."""
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return _SPACE.sub(" ", folded).strip()


def visible(reply: str) -> tuple[str, bool]:
    """Return the reply without thoughts, special tokens, fences and later turns; and whether it ends inside a thought."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    if finals := list(_HARMONY.finditer(text)):
        text = text[finals[-1].end() :]
    text = _THOUGHT.sub("", text)
    if closes := list(_THOUGHT_CLOSE.finditer(text)):
        text = text[closes[-1].end() :]
    unfinished = _THOUGHT_OPEN.search(text) is not None
    if unfinished:
        text = _THOUGHT_OPEN.split(text)[0]
    ends = [match.start() for match in _TURN_END.finditer(text) if text[: match.start()].strip()]
    if ends and (first := _SPECIAL.sub(" ", text[: ends[0]]).strip()):
        text = first  # the model went on to write the other side's turn
    text = _INLINE.sub("", _SPECIAL.sub(" ", _INVISIBLE.sub("", text)))
    text = _FENCE.sub(lambda found: f"\n{found[1]}\n", text)
    return unicodedata.normalize("NFC", text.replace("\u00a0", " ")).strip(), unfinished


def lines_of(text: str) -> list[str]:
    """Return the lines that hold something."""
    return [line for line in text.split("\n") if line.strip()]


def undecorated(line: str) -> str:
    """Return a line without bullets, heading marks, bold marks at its ends."""
    return _DECORATED.sub("", line)


# JSON


def json_objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """Return the JSON objects that stand in a text, and the text without them."""
    place, decoder, found, kept = 0, json.JSONDecoder(strict=False, object_pairs_hook=_pairs), [], []
    while (start := text.find("{", place)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            value, end = _forgiving(text, start)
        if isinstance(value, dict):
            found.append(value)
            kept.append(text[place:start])
        else:
            end = start + 1
            kept.append(text[place:end])
        place = end
    return found, "".join([*kept, text[place:]])


def json_values(text: str, keys: frozenset[str], ids: bool) -> Iterator[Any]:
    """Yield the values of label-like keys in every JSON object of the text; a key of a cut object counts if its value is whole.

    In an object without such a key, the strings under any other key but explanations and scores; with `ids` also the
    number of an object that holds nothing else.
    """
    objects, _ = json_objects(text)
    for found in objects:
        yield from _fields(found, keys, ids)
    if not objects and "{" in text:
        listed = "|".join(sorted(map(re.escape, keys), key=len, reverse=True))
        whole = rf"[{{,]\s*[\"']({listed})[\"']\s*:\s*(?:\"([^\"\\\n]*)\"|'([^'\\\n]*)'|(-?\d+)\s*[,}}])"
        for match in re.finditer(whole, text, re.I):
            yield next(group for group in match.groups()[1:] if group is not None)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice holds the list of its values."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = [found[key], value] if key in found else value
    return found


def _forgiving(text: str, place: int) -> tuple[Any, int]:
    """A JSON-like object with single quotes, trailing commas or Python words; (None, place) where it is none."""
    depth = 0
    for end in range(place, min(len(text), place + 5000)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth:
            continue
        piece = text[place : end + 1]
        for candidate in (re.sub(r",\s*([}\]])", r"\1", piece), piece):
            for load in (functools.partial(json.loads, strict=False, object_pairs_hook=_pairs), ast.literal_eval):
                try:
                    value = load(candidate)
                except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                    continue
                if isinstance(value, dict):
                    return value, end + 1
        break
    return None, place


def _fields(value: Any, keys: frozenset[str], ids: bool, depth: int = 0) -> Iterator[Any]:
    if not isinstance(value, dict) or depth > 3:
        return
    named = {str(key).strip().casefold().replace(" ", "_"): inner for key, inner in value.items()}
    if direct := [inner for key, inner in named.items() if key in keys]:
        for inner in direct:
            if isinstance(inner, dict):
                yield from _fields(inner, keys | {"name", "value", "id"}, ids, depth + 1)
            else:
                yield inner
        return
    before = 0
    for inner in value.values():
        for one in inner if isinstance(inner, list) else [inner]:
            for found in _fields(one, keys, ids, depth + 1):
                before += 1
                yield found
    if not before:
        others = {key: inner for key, inner in named.items() if key not in words_of("not_keys") or len(named) == 1}
        yield from (Loose(inner) for inner in others.values() if isinstance(inner, str))
        if ids and len(named) == 1:
            yield from (
                inner for key, inner in named.items() if isinstance(inner, int) and key not in words_of("not_keys")
            )


class Loose(str):
    """A string under a key that need not hold the answer: counts if it is a label, and for nothing if it is none."""


# marks


@functools.cache
def _mark_pattern(rank: str, ids: bool) -> re.Pattern[str]:
    words = sorted({*words_of(rank), *(("id",) if ids and rank == "plain" else ())}, key=len, reverse=True)
    listed = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words)
    return re.compile(
        rf"(?:^|(?<=[\s*_#>(\[.;,、。，«\"“]))(?:{listed})(?:\s+is)?[*_`\"”\]]*\s*"
        r"(?:[:：=＝]|→|⇒|=>|->|(?<=\sis)|(?<=\sis\*\*))\s*[*_`]*[ \t]*",
        re.I,
    )


@functools.cache
def _element_pattern() -> re.Pattern[str]:
    keys = "|".join(sorted(map(re.escape, words_of("keys")), key=len, reverse=True))
    return re.compile(rf"<({keys})\b[^>]*>\s*([^<>]*?)\s*</\1\s*>", re.I)


def marked_values(text: str, rank: str, ids: bool) -> Iterator[str]:
    """Yield what stands behind each mark: to the end of its line, else the next line that holds something."""
    if rank == "final":
        for match in _BOXED.finditer(text):
            yield _TEXT_COMMAND.sub(r"\1", match[1])
        for match in _element_pattern().finditer(text):
            yield match[2]
    for match in _mark_pattern(rank, ids).finditer(text):
        before = text[: match.start()].rpartition("\n")[2]
        if (
            before.count('"') % 2
            or before.count("“") > before.count("”")
            or (before.lstrip().startswith(">") and before.strip("> "))
        ):
            continue  # a quotation from the text, not the answer
        line, _, below = text[match.end() :].partition("\n")
        value = line.strip() or next((one.strip() for one in below.split("\n") if one.strip(" *_`>")), "")
        if "\n" in match[0] and _mark_pattern("plain", ids).match(value):
            continue  # the line below has a mark of its own
        if value.strip(" *_`"):
            yield value


def keyed_values(text: str) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of lines such as "Dominant frame: morality" or "| Intent | refund |", for every colon."""
    for line in text.split("\n"):
        bare = undecorated(line)
        if not line.lstrip().startswith(">") and bare:
            if row := _ROW.fullmatch(bare.strip()):
                yield row[1].strip(), row[2].strip()
            for match in re.finditer(r"[:：]", bare):
                key, value = bare[: match.start()].strip(" *_`\"'"), bare[match.end() :].strip()
                if 0 < len(key) <= 100 and value:
                    yield key, value


def emphasised(text: str) -> list[str]:
    """Return what is set in bold."""
    return [match[1].strip() for match in _BOLD.finditer(text)]


# how a reply speaks


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    def bounded(word: str) -> str:
        before = (
            r"(?<!\w)"
            if re.match(r"\w", word[0]) and unicodedata.category(word[0]) != "Lo" and not word.startswith("n't")
            else ""
        )
        after = r"(?!\w)" if re.match(r"\w", word[-1]) and unicodedata.category(word[-1]) != "Lo" else ""
        return f"{before}{re.escape(word)}{after}"

    return re.compile("|".join(bounded(word) for word in sorted(words_of(name), key=len, reverse=True)))


def doubts(text: str) -> bool:
    """Return whether a text denies, doubts or weighs."""
    return bool(_pattern("doubts").search(plain(text)))


def retracts(text: str) -> bool:
    """Return whether a text takes something back."""
    return bool(_pattern("retractions").search(plain(text)))


def refuses(text: str) -> bool:
    """Return whether a text opens like a refusal."""
    opening = plain(text)[:300].replace("sorry to hear", "")
    return any(refusal in opening for refusal in words_of("refusals"))


def announces(key: str) -> bool:
    """Return whether the words before a colon can announce an answer."""
    folded = plain(key)
    return not _pattern("not_marks").search(folded) and not doubts(folded) and "?" not in folded
