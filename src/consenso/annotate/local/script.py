"""How prompts and labels become tokens: chat templates, what closes an answer, labels tokenised in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from consenso.annotate.local.loading import first_line
from consenso.errors import DataError, ModelError

Prompt = list[dict[str, str]] | str
"""Chat messages (role, content), or text that the label continues as it stands."""

_QUESTION, _ANSWER = "consensoquestion", "consensoanswer"


@dataclass(frozen=True, order=True)
class Turn:
    """What stands around a label."""

    anchor: str
    """The end of the prompt, behind which labels are tokenised."""
    lead: str
    """What the tokenizer needs between prompt and label: a space or nothing."""
    end: tuple[int, ...]
    """The tokens that close every label."""
    chat: bool = False
    """Whether the prompt brings all its special tokens as text."""


class Script:
    """How a tokenizer writes prompts and labels."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self.template = str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""
        first = tokenizer("")["input_ids"][:1]
        self.start: list[int] = first if first == [tokenizer.bos_token_id] else []
        line = self._behind("a", "\n") or [tokenizer.eos_token_id]
        self.line_end = tuple(token for token in line if token is not None)
        self.opening: str = ""
        self.turn: Turn | None = None
        if self.template:
            self.opening, self.turn = self._chat_turn()

    def write(self, prompt: Prompt) -> tuple[str, Turn]:
        """Return a prompt as text and what follows it."""
        if not isinstance(prompt, str):
            if self.turn is not None:
                return self._chat(prompt) + self.opening, self.turn
            prompt = _plainly(prompt)
        text = prompt.rstrip(" ")
        if text.endswith("\n"):
            return text, Turn("a\n", "", self.line_end)
        return text, Turn("Answer:", " ", self.line_end)

    def prefixes(self, written: Sequence[tuple[str, Turn]]) -> list[list[int]]:
        """Return each written prompt's token ids; plain text gets the tokenizer's first token, if it has one."""
        if not written:
            return []
        found = self._ids([text for text, _ in written])
        ids = [row if turn.chat else self.start + row for row, (_, turn) in zip(found, written, strict=True)]
        if not all(ids):
            raise DataError(f"a prompt without any token for model {self.name!r}; leave empty texts out")
        return ids

    def endings(self, labels: Sequence[str], turn: Turn) -> list[list[int]]:
        """Return each label's token ids with the terminator."""
        endings: dict[tuple[int, ...], str] = {}
        for label in labels:
            ids = self._behind(turn.anchor, turn.lead + label)
            if not ids:
                raise ModelError(f"model {self.name!r}: its tokenizer has no token for label {label!r}")
            if (*ids, *turn.end) in endings:
                other = endings[(*ids, *turn.end)]
                raise ModelError(f"model {self.name!r}: labels {other!r} and {label!r} are the same tokens; rename one")
            endings[(*ids, *turn.end)] = label
        return [list(ids) for ids in endings]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        # padding and truncation override what a saved tokenizer.json asks for; verbose=False: length is our concern.
        found = self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, verbose=False)
        return cast(list[list[int]], found["input_ids"])

    def _behind(self, anchor: str, text: str) -> list[int]:
        """Return the tokens of `text` as they come behind `anchor`."""
        head, both, alone = self._ids([anchor, anchor + text, text])
        return both[len(head) :] if both[: len(head)] == head else alone

    def _chat(self, messages: list[dict[str, str]]) -> str:
        """Return the messages up to where the model answers; a system message that gets lost goes to the user's."""
        import jinja2

        systems = [message["content"].strip() for message in messages if message["role"] == "system"]
        problem = ""
        for tried in [messages, _system_in_front(messages)] if systems else [messages]:
            try:
                text = self._fill(tried, add_generation_prompt=True)
            except (jinja2.TemplateError, ValueError, TypeError) as error:
                problem = first_line(error)
                continue
            if tried is not messages or all(system in text for system in systems):
                always_thinks = text.rstrip().endswith("<think>")
                return text.rstrip() + "\n\n</think>\n\n" if always_thinks else text  # as Qwen3 skips it
        raise ModelError(f"model {self.name!r}: its chat template refuses the messages: {problem}")

    def _fill(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        if "enable_thinking" in self.template:
            options["enable_thinking"] = False
        return str(self.tokenizer.apply_chat_template(messages, **options))

    def _chat_turn(self) -> tuple[str, Turn]:
        """Return what the template writes before an answer beyond the generation prompt, and what surrounds the answer."""
        import jinja2

        asked = [{"role": "user", "content": _QUESTION}]
        opened = self._chat(asked)
        try:
            whole = self._fill([*asked, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False)
        except (jinja2.TemplateError, ValueError, TypeError):
            whole = ""
        before, _, after = whole.partition(_ANSWER)
        between = before[len(opened) :] if before.startswith(opened) else ""
        opening = between.rstrip(" ")
        specials = {str(t): i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        closing = [token for token in sorted(specials, key=len) if after.lstrip().startswith(token)]
        end = (specials[closing[-1]],) if closing else self.line_end
        return opening, Turn((opened + opening).rpartition(_QUESTION)[2], between[len(opening) :], end, chat=True)


def _plainly(messages: list[dict[str, str]]) -> str:
    parts: list[str] = []
    for message in messages:
        if message["role"] == "assistant" and parts:
            parts[-1] += f"\nAnswer: {message['content']}"
        else:
            parts.append(message["content"])
    return "\n\n".join(parts) + "\nAnswer:"


def _system_in_front(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    systems = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": "\n\n".join(systems)}, *others]
    return [{"role": "user", "content": "\n\n".join([*systems, others[0]["content"]])}, *others[1:]]
