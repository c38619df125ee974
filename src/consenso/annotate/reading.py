"""parse: an LLM's reply → the label it gives, or why it gives none. Nothing is guessed.

A label is read where the reply is the label, in a JSON field, behind a mark such as "Answer:", on a line of its own, or
in a sentence that says nothing else. A number counts only where ids were asked for, and never from the middle of prose;
two labels, a denial or a doubt make a reply unparsable.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from consenso.annotate.prompting import AnswerForm
from consenso.annotate.replies import (
    Loose,
    announces,
    doubts,
    emphasised,
    json_objects,
    json_values,
    keyed_values,
    lines_of,
    marked_values,
    plain,
    refuses,
    retracts,
    visible,
    words_of,
)
from consenso.labels import LabelSchema


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, read."""

    label: str | None
    """The label's name, or None."""
    status: str
    """ok, abstained, unparsable, invalid_label, refused or truncated."""
    how: str = ""
    """Where the label stood: whole, json, mark, line, opening, bold, sentence; empty where there is none."""


def parse(
    reply: str | None,
    labels: LabelSchema,
    *,
    form: AnswerForm = "name",
    finish: str | None = "stop",
    abstain: str | None = None,
    shown: Sequence[str] | None = None,
) -> Answer:
    """Return the label that a reply gives, or why it gives none.

    `form`: what was asked for (ids count only with "id"); `finish`: the provider's reason for stopping ("length" → the
    reply was cut); `abstain`: the word for "cannot be told"; `shown`: the labels that were offered (default: all).
    """
    offered = tuple(shown) if shown is not None else labels.names
    return _reader(labels, form, abstain, offered).read(reply, finish)


@functools.lru_cache(maxsize=256)
def _reader(schema: LabelSchema, form: AnswerForm, abstain: str | None, shown: tuple[str, ...]) -> ReplyReader:
    return ReplyReader(schema, form=form, abstain=abstain, shown=shown)


class _Sign:
    """A reading that is no label."""


_CONFLICT, _STRANGE = _Sign(), _Sign()
"""Several labels, or one that is denied; a clear answer that is none of the labels."""

_ID = re.compile(r"[-−+]?\d{1,9}")
_ID_NAME = re.compile(
    r"(?:(?:category|class|label|option|choice|no\.?)\s*#?)?\s*(?:"
    r"\(?\[?([-−]?\d{1,9})[\])]?\s*(?:[:.)=|：．、](?!\d)|\s[-–—]|[-–—]\s|[–—])\s*(\S.*)|"
    r"[\[(]([-−]?\d{1,9})[\])]\s+(\S.*)|([-−]?\d{1,9})\s*[(\[]\s*([^()\[\]]*\S)\s*[)\]])",
    re.S | re.I,
)
_NAME_ID = re.compile(r"(.*\S)\s*[(\[]\s*(?:id|label|class|category)?\s*[:#=]?\s*([-−]?\d{1,9})\s*[)\]]", re.S | re.I)
_NAME_SCORE = re.compile(
    r"(.*\S)\s*[(\[,;–—-]\s*(?:confidence|score|probability|p)?\s*[:=]?\s*(?:0?\.\d+|1\.0+|\d{1,3}(?:\.\d+)?\s?%)\s*"
    r"(?:confidence|confident|sure)?\s*[)\]]?",
    re.S | re.I,
)
_ID_WORD = re.compile(
    r"(?:(?:the\s+)?(?:category|class|label|option|choice|answer|number|code|no\.?|categor[ií]a|clase|classe|etiqueta|kategorie|klasse|"
    r"catégorie|类别|标签)\s*(?:number|no\.?|id|n[º°])?\s*[#:]?\s*|#\s*)([-−]?\d{1,9})",
    re.I,
)
_JSON_SCORE = re.compile(
    r"[`\s]*(?:json)?\s*\{\s*[\"'](?:score|rating|value|level|grade)[\"']\s*:\s*[\"']?([-−]?\d{1,9})[\"']?\s*\}[`\s]*",
    re.I,
)
"""An object that holds nothing but a score: the label, where labels are numbers."""
_KEYED_NUMBER = re.compile(r"[\W_]*\w+\s*[:=：]\s*[-−]?\d+(?:\.\d+)?[\W_]*")
_VALUE_ID = re.compile(r"[\"'“`*_(\[#]*([-−]?\d{1,9})[\"'”`*_)\]]*(?=$|[.,;:!]?\s|[.,;:!]$)")
_PAIRS = {
    '"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」", "『": "』", "《": "》", "〈": "〉", "【": "】",
    "*": "*", "_": "_", "~": "~", "(": ")", "[": "]", "{": "}", "<": ">", "$": "$", "（": "）", "［": "］", "”": "”",
}  # fmt: skip
_TRAILING = ".,;:!。．，；：！、،؛।…·"
_BULLET = re.compile(r"(?:[-–—*+•◦▪‣·>→⇒]|#{1,6}|=>|->)\s+|(?:→|⇒|=>|->|=)\s*")
_BAD_SIGNS = frozenset("❌✗✘✖🚫⛔👎🛑❎⚠❓❔🤔🤷")
_REASON = re.compile(
    r"\s*(?:\n|[.,:](?!\d)|[;!。，：；]|\s[-–—]|[–—]|\(|\s(?:because|since|as|due to|based on|given)\b)", re.I
)
_QUESTION = re.compile(r"[?？؟]")
_WAVERS = re.compile(
    r"\b(?:not sure|unsure|uncertain|maybe|might be|could (?:also )?be|possibly|perhaps|hard to (?:say|tell)|leaning|or rather)\b",
    re.I,
)
_SUBJECT = (
    r"(?:text|review|sentence|tweet|message|article|post|comment|document|statement|headline|passage|question|email|"
    r"sentiment|tone|stance|topic|content|paragraph|abstract|story|it|this|that|answer|label|category|class|"
    r"classification|option|choice|one)"
)
_VERB = (
    r"(?:is|it's|it’s|is\s+best|belongs\s+to|belongs\s+in|falls\s+under|falls\s+into|falls\s+in|fits|fits\s+best|"
    r"expresses|conveys|should\s+be|must\s+be|can\s+be|has|as|to|under|into|in|with|would\s+be|say|choose|pick|select|go\s+with)"
)
_FILLER = (
    r"(?:\s+(?:an?|the|clearly|definitely|overall|very\s+clearly|best|described|classified|labell?ed|categori[sz]ed|"
    r"considered|assigned|annotated|rated|category|label|class|option|sentiment|topic|as|to|under|into|in|with|it|this|this\s+is|"
    r"it's|it’s|is|that|of|a\s+strongly|strongly|be|expressed|expressing|conveyed))*"
)


class ReplyReader:
    """Reads replies against the labels that were offered."""

    def __init__(
        self,
        schema: LabelSchema,
        *,
        form: AnswerForm = "name",
        abstain: str | None = None,
        shown: Sequence[str] | None = None,
    ) -> None:
        names = list(shown if shown is not None else schema.names)
        self._abstain = abstain
        self._offered = [*names, *([abstain] if abstain and abstain not in names else [])]
        self._exact = frozenset(self._offered)
        self._plain = _unique({name: plain(name) for name in self._offered})
        self._ids = {schema.label2id[name]: name for name in names}
        self._reads_ids = form == "id"
        self._keys = frozenset([*words_of("keys"), *(words_of("id_keys") if form == "id" else ())])
        self._dashed = any(plain(name).startswith(("-", "−")) for name in names)
        self._short = all(len(plain(name)) <= 3 for name in names)
        self._numbers = all(_ID.fullmatch(plain(name)) for name in names)
        self._mention = _mention_pattern(self._offered)
        alternatives = "|".join(re.escape(name) for name in sorted(self._offered, key=len, reverse=True))
        label = rf"[\"'“‘`*_]*(?P<label>{alternatives})[\"'”’`*_]*"
        self._sentence = re.compile(
            rf"(?:\b{_SUBJECT}\b[^.!?\n]{{0,80}}?|\bI(?:\s+would|'d|’d|\s+will|'ll|\s+choose|\s+pick)?|^)\s*\b{_VERB}{_FILLER}\s+{label}"
            r"(?:\s+(?:sentiment|category|class|label|tone|topic|stance|in\s+(?:sentiment|tone)))?\s*(?:[.!,;:)(\n]|\s[-–—]|$|\bbecause\b|\bsince\b)",
            re.I,
        )
        self._claim = re.compile(
            rf"\b(?:answer|label|category|class|classification|sentiment|it|text)\s+(?:is|should\s+be|must\s+be|would\s+be){_FILLER}\s+{label}(?!\w)",
            re.I,
        )
        self._opening = re.compile(
            rf"[\"'“‘`*_(\[]*(?P<label>{alternatives})[\"'”’`*_)\]]*(?=(?P<after>.*))", re.I | re.S
        )
        self._cached = functools.lru_cache(maxsize=4096)(self._read)

    def read(self, reply: str | None, finish: str | None = "stop") -> Answer:
        """Return what the reply says."""
        if reply is None:
            return Answer(None, "refused" if finish == "content_filter" else "unparsable")
        if reply in self._exact and finish != "length" and not self._reads_ids:
            return self._answer(reply, "whole")
        return self._cached(reply, finish) if len(reply) < 300 else self._read(reply, finish)

    def _answer(self, name: str, how: str) -> Answer:
        return Answer(None, "abstained", how) if name == self._abstain else Answer(name, "ok", how)

    def _read(self, reply: str, finish: str | None) -> Answer:  # noqa: PLR0911 - one line per kind of reply
        if finish == "content_filter":
            return Answer(None, "refused")
        text, unfinished = visible(reply)
        if finish == "length" or unfinished:
            return self._cut(text, "truncated" if finish == "length" else "unparsable")
        if not text:
            return Answer(None, "unparsable")
        found, how = self._stated(text)
        if found is None:
            found, how = self._in_prose(text)
        if isinstance(found, str):
            return self._answer(found, how)
        if refuses(text):
            return Answer(None, "refused")
        if found is _CONFLICT:
            return Answer(None, "unparsable")
        strange = found is _STRANGE or (self._numbers and _KEYED_NUMBER.fullmatch(text)) or self._is_clear(text)
        return Answer(None, "invalid_label" if strange else "unparsable")

    def _in_prose(self, text: str) -> tuple[Any, str]:
        for how, look in (("opening", self._opens), ("bold", self._bold), ("sentence", self._says)):
            if (found := look(text)) is not None:
                return found, how
        return None, ""

    def _stated(self, text: str) -> tuple[Any, str]:
        """What is stated in form: as the whole reply, in JSON, behind marks, on lines. All that is stated must agree."""
        if (whole := self._label(text)) is not None:
            return whole, "whole"
        in_json = self._json(text)
        objects, beside = json_objects(text)
        text = self._without_echo(beside)
        final = self._behind_marks(text, "final")
        if final is not None:
            return (_CONFLICT if isinstance(in_json, str) and in_json != final else final), "mark"
        sources = [
            ("json", in_json),
            ("mark", self._behind_marks(text, "plain")),
            ("mark", self._keyed(text)),
            ("line", self._line(text, least=1 if objects else 2)),
        ]
        stated = [(how, found) for how, found in sources if found is not None]
        labels = {found for _, found in stated if isinstance(found, str)}
        if any(found is _CONFLICT for _, found in stated) or len(labels) > 1:
            return _CONFLICT, ""
        if labels:
            label = labels.pop()
            how = next(how for how, found in stated if found == label)
            strange = stated[0][1] is _STRANGE and stated[0][0] == "json"
            return (_CONFLICT, "") if strange or retracts(text) else (label, how)
        return (_STRANGE, "") if stated else (None, "")

    def _without_echo(self, text: str) -> str:
        """The text without a block of lines that lists every label: the prompt's list, said again."""
        lines = text.split("\n")
        kept: list[str] = []
        for is_label, run in itertools.groupby(lines, key=lambda line: self._label(line) is not None):
            block = list(run)
            echo = is_label and len(block) > 1 and {self._label(line) for line in block} >= set(self._ids.values())
            if is_label and len({self._label(line) for line in block}) > 1 and kept:
                echo = echo or plain(kept[-1]).strip("*_# ") in words_of("list_headers")
            kept += [] if echo else block
        return "\n".join(kept)

    def _cut(self, text: str, status: str) -> Answer:
        """A cut reply counts only where the label is whole, and no other label begins like it."""
        found = self._label(text)
        if found is None and isinstance(closed := self._json(text), str):
            return self._answer(closed, "json")
        if isinstance(found, str) and not self._might_go_on(found, text):
            return self._answer(found, "whole")
        first, line_end, rest = text.partition("\n")
        if line_end and not refuses(text):  # a whole line with the answer, and a reason that breaks off
            stated = self._label(first) if self._label(first) is not None else self._behind_marks(first, "plain")
            if isinstance(stated, str) and not (self._mentioned(rest) - {stated}) and not retracts(rest):
                return self._answer(stated, "opening")
        return Answer(None, status)

    def _might_go_on(self, name: str, text: str) -> bool:
        if self._reads_ids and _ID.search(text):
            digits = next(str(i) for i, label in self._ids.items() if label == name)
            return any(str(i) != digits and str(i).startswith(digits) for i in self._ids)
        own = plain(name)
        return any(other != name and plain(other).startswith(own) for other in self._offered)

    # one piece of text as a label

    def _by_name(self, piece: str) -> str | None:
        return piece if piece in self._exact else self._plain.get(plain(piece))

    def _label(self, piece: str) -> Any:
        """The label that a piece of text is, `_CONFLICT` where number and name disagree, or None."""
        for layer in self._peeled(piece):
            if self._reads_ids and _ID.fullmatch(number := plain(layer)) and _number(number) in self._ids:
                return self._ids[_number(number)]  # what was asked for, also where a label is called by a number
            if (name := self._by_name(layer)) is not None:
                return name
            if (found := self._numbered(layer)) is not None:
                return found
        return None

    def _numbered(self, layer: str) -> Any:
        """`4: neutral`, `neutral (2)`, `positive (93 %)`, `category 4`."""
        for pattern, number_first in ((_ID_NAME, True), (_NAME_ID, False)):
            if match := pattern.fullmatch(layer):
                groups = [group for group in match.groups() if group is not None]
                number, rest = groups if number_first else groups[::-1]
                name = self._bare(rest)
                if name is not None:
                    return name if name == self._abstain or self._ids.get(_number(number)) == name else _CONFLICT
        if match := _NAME_SCORE.fullmatch(layer):
            return self._bare(match[1])
        if self._reads_ids and (match := _ID_WORD.fullmatch(layer)):
            return self._ids.get(_number(match[1]))
        return None

    def _bare(self, piece: str) -> str | None:
        return next((name for layer in self._peeled(piece) if (name := self._by_name(layer)) is not None), None)

    def _peeled(self, piece: str) -> Iterator[str]:
        """The piece, and what is left as one layer of quotes, mark-up, punctuation after another comes off."""
        piece = piece.strip()
        for _ in range(12 if piece else 0):
            yield piece
            shorter = self._peel(piece)
            if shorter == piece or not shorter:
                return
            piece = shorter

    def _peel(self, piece: str) -> str:
        first, last = piece[0], piece[-1]
        if len(piece) > 1 and _PAIRS.get(first) == last:
            return piece[1:-1].strip()
        if (match := _BULLET.match(piece)) and not (self._dashed and first in "-−"):
            return piece[match.end() :].strip()
        if last in _TRAILING or (
            last in ")]" and {"(": ")", "[": "]"}.get(first) != last and not {"(", "["} & set(piece)
        ):
            return piece[:-1].rstrip()
        for at, rest in ((last, piece[:-1].rstrip()), (first, piece[1:].lstrip())):
            if (
                unicodedata.category(at) in {"So", "Sk"}
                and at not in _BAD_SIGNS
                and not any(at in n for n in self._offered)
            ):
                return rest
        for edge, rest in ((first, piece.lstrip(first)), (last, piece.rstrip(last))):
            if edge in '*_`"“”#' and edge not in rest:
                return rest.strip()
        return piece

    # where a label may stand

    def _json(self, text: str) -> Any:
        if self._numbers and (match := _JSON_SCORE.fullmatch(text)):
            return self._by_name(match[1]) or _STRANGE
        values = list(json_values(text, self._keys, self._reads_ids))
        found, strange = set(), False
        for value in values:
            for one in value if isinstance(value, list) else [value]:
                read = self._json_label(one)
                if read is _CONFLICT:
                    return _CONFLICT
                if read is None:
                    strange = strange or (one is not None and not isinstance(one, Loose))
                else:
                    found.add(read)
        if len(found) > 1 or (found and strange):
            return _CONFLICT
        if found:
            return found.pop()
        tight = [value for value in values if not isinstance(value, Loose)]
        return _STRANGE if strange else _CONFLICT if tight else None

    def _json_label(self, value: Any) -> Any:
        if isinstance(value, bool):
            return self._by_name(str(value))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return self._label(str(value)) if isinstance(value, (str, int)) else None

    def _behind_marks(self, text: str, rank: str) -> Any:
        read = [self._value(value) for value in marked_values(text, rank, self._reads_ids)]
        labels = {value for value in read if isinstance(value, str)}
        if len(labels) > 1 or _CONFLICT in read:
            return _CONFLICT
        if labels:
            listed = {self._label(line) for line in lines_of(text)} - {None}
            return _CONFLICT if listed - labels else labels.pop()
        return _STRANGE if _STRANGE in read else None

    def _value(self, value: str) -> Any:  # noqa: PLR0911 - one line per kind of value
        """What stands behind a mark: a label, several (`_CONFLICT`), a clear other answer (`_STRANGE`), or prose (None)."""
        line = value.strip().split("\n")[0]
        if (found := self._label(line)) is not None:
            return found
        if self._reads_ids and (match := _VALUE_ID.match(line)):
            return self._value_id(match[1], line[match.end() :])
        if line.startswith("{"):
            return self._json(value)
        if (found := self._opens(line)) is not None:
            return found
        mentioned = self._mentioned(line)
        if mentioned:
            first, _, rest = plain(line).partition(" ")
            if first in words_of("degrees") and self._label(rest) is not None:
                return _STRANGE
            return _CONFLICT if len(mentioned) > 1 else self._says(line) or _CONFLICT
        words = plain(line).strip(_TRAILING + "*_`\"' ").split()
        if not 0 < len(words) <= 4 or not any(c.isalnum() for c in line) or _QUESTION.search(line) or refuses(line):
            return None
        if len(words) == 1:
            return None if words[0] in words_of("hedges") else _STRANGE
        return None if doubts(line) or len(re.findall(r"\d+", line)) > 1 else _STRANGE

    def _value_id(self, digits: str, after: str) -> Any:
        rest = after.strip(" .,;:!-–—()[]*_\"'")
        known, name = self._ids.get(_number(digits)), self._bare(rest) if rest else None
        if known is None:
            return _STRANGE
        if name is not None and name != known:
            return _CONFLICT
        clean = not doubts(rest) and not (self._mentioned(rest) - {known}) and not re.search(r"\d", rest)
        return known if clean else _CONFLICT

    def _keyed(self, text: str) -> Any:
        """`Dominant frame: morality`: any words before a colon, and a label behind it."""
        found, denied, last = set(), False, ""
        for key, value in keyed_values(text):
            if last.endswith(value):
                continue  # the end of a label that has a colon in it
            label = self._label(value)
            last = value if label is not None else ""
            if label is None:
                denied = denied or (len(value.split()) <= 3 and doubts(value))
                continue
            if self._label(f"{key}: {value}") is not None:
                continue  # a label on a line of its own, its number before a colon
            if self._label(key) not in (None, label) or label is _CONFLICT:
                return _CONFLICT
            if self._reads_ids and _ID.fullmatch(plain(value)) and plain(key) in words_of("not_keys"):
                continue
            if announces(key):
                found.add(label)
        if found and denied:
            return _CONFLICT  # aspects, each with an answer of its own
        return None if not found else _CONFLICT if len(found) > 1 else found.pop()

    def _line(self, text: str, least: int = 2) -> Any:
        """A label on a line of its own, first, last or announced, where nothing else says another."""
        lines = lines_of(text)
        if len(lines) < least:
            return None
        found = {place: label for place, line in enumerate(lines) if (label := self._label(line)) is not None}
        labels = set(found.values())
        if _CONFLICT in labels or len(labels) > 1:
            return _CONFLICT
        announced = {
            p
            for p in found
            if p and (lines[p - 1].rstrip(" *_").endswith((":", "：")) or lines[p - 1].lstrip().startswith("#"))
        }
        if not labels or not ({0, len(lines) - 1} & set(found) or announced):
            return None
        label = labels.pop()
        rest = "\n".join(line for place, line in enumerate(lines) if place not in found)
        said = {self._by_name(match["label"]) for match in self._claim.finditer(rest)}
        return _CONFLICT if said - {label, None} else label

    def _opens(self, text: str) -> Any:
        """`positive because …`, `Positive. The film …`: a label first, and nothing after it that names another or doubts."""
        start = text.lstrip()
        if match := _BULLET.match(start):
            start = start[match.end() :]
        match = self._opening.match(start)
        name = None if match is None else self._by_name(match["label"])
        if match is None or name is None or not _REASON.match(match["after"]) or refuses(text):
            return None
        after = match["after"]
        if re.match(r"\s*[:=]\s*(?:yes|no|true|false|[\d.]+)\b", after, re.I):
            return _CONFLICT
        if self._short and re.match(r"\W*(?:I|I'm|I’m|let|please|here|sure|of course)\b", after, re.I):
            return None
        if self._mentioned(after) - {name} or _QUESTION.match(after.lstrip()) or retracts(after):
            return _CONFLICT
        if _WAVERS.search(after) or (len(plain(name)) == 1 and not re.match(r"\s*[.:)]", after)):
            return None
        return None if re.match(r"\W*(?:if|unless|or|and)\b", after, re.I) else name

    def _bold(self, text: str) -> Any:
        """One label in bold, in a reply that names no other and denies and doubts nothing."""
        bold = {label for piece in emphasised(text) if (label := self._label(piece)) is not None}
        if len(bold) != 1 or _CONFLICT in bold or self._mentioned(text) - bold or _QUESTION.search(text):
            return None
        label = bold.pop()
        spoken = [one for one in re.split(r"(?<=[.!\n])\s+", text) if label in self._mentioned(one)]
        rest = re.sub(re.escape(label), " ", " ".join(spoken), flags=re.I)
        return None if doubts(rest) or refuses(text) or retracts(text) else label

    def _says(self, text: str) -> Any:
        """A sentence that names one label, in a reply that names no other, denies nothing and doubts nothing."""
        mentioned = self._mentioned(text)
        if len(mentioned) > 1:
            return _CONFLICT
        if not mentioned or self._short or _QUESTION.search(text):
            return None
        said = set()
        for sentence in re.split(r"(?<=[.!\n])\s+", text):
            for match in self._sentence.finditer(sentence):
                said.add(self._by_name(match["label"]))
        if len(said) != 1 or said != mentioned:
            return None
        label = said.pop()
        return None if doubts(re.sub(re.escape(str(label)), " ", text, flags=re.I)) else label

    def _mentioned(self, text: str) -> set[str]:
        return {name for found in self._mention.findall(plain(text)) if (name := self._plain.get(found)) is not None}

    def _is_clear(self, text: str) -> bool:
        """Whether a reply without a label is a clear answer of another kind: a word or two that name no label."""
        words = plain(text).strip(_TRAILING + "*_`\"' ").split()
        if not 0 < len(words) <= 2 or re.search(r"[\n<>\\:{}?？,]", text) or self._mentioned(text):
            return False
        if not any(c.isalnum() for c in text) or words[0] in words_of("hedges") or "__" in text:
            return False
        return len(re.findall(r"\d+", text)) < 2 and (len(words) == 1 or not doubts(text))


def _unique(forms: dict[str, str]) -> dict[str, str]:
    """Form → name, for the forms that only one name has."""
    shapes = list(forms.values())
    return {form: name for name, form in forms.items() if form and shapes.count(form) == 1}


def _number(digits: str) -> int:
    return int(digits.replace("−", "-"))


def _mention_pattern(names: Sequence[str]) -> re.Pattern[str]:
    def bounded(name: str) -> str:
        before = r"(?<!\w)" if _is_word(name[0]) else ""
        after = r"(?!\w)" if _is_word(name[-1]) else ""
        return f"{before}{re.escape(name)}{after}"

    shapes = {plain(name) for name in names if plain(name)}
    return re.compile("|".join(bounded(shape) for shape in sorted(shapes, key=len, reverse=True)) or r"(?!)")


def _is_word(character: str) -> bool:
    """Whether words are set apart around this character; Chinese and Japanese are written without blanks."""
    return bool(re.match(r"\w", character)) and unicodedata.category(character) != "Lo"
