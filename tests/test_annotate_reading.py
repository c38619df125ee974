"""A reply gives a label only where a careful human would say that it does."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consenso import parse
from consenso.annotate.reading import ReplyReader
from consenso.labels import LabelSchema
from consenso.tables import VOTE_STATUSES

DATA = Path(__file__).parent / "data"
SENTIMENT = LabelSchema.from_names(["negative", "neutral", "positive"])


@functools.cache
def corpus(name: str) -> list[dict[str, Any]]:
    """The replies of a corpus, each with its schema."""
    first, *lines = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").split("\n") if line]
    named = first["schemas"]
    for line in lines:
        labels = named[line["schema"]] if isinstance(line["schema"], str) else line["schema"]
        line["labels"] = LabelSchema({label["id"]: label["name"] for label in labels})
        line["statuses"] = line["status"] if isinstance(line["status"], list) else [line["status"]]
    return lines


def read(line: dict[str, Any]) -> Any:
    return parse(
        line["reply"],
        line["labels"],
        form=line["answer"],
        finish=line.get("finish", "stop"),
        abstain=line.get("abstain"),
    )


CORPORA = ["replies.jsonl", "replies_holdout.jsonl", "replies_third.jsonl"]


@pytest.mark.parametrize("name", CORPORA)
def test_no_reply_is_read_as_a_label_it_does_not_give(name: str) -> None:
    lines = corpus(name)
    assert len(lines) >= 300
    wrong = [(line["id"], read(line).label) for line in lines if read(line).label not in {None, line["label"]}]
    assert wrong == []


@pytest.mark.parametrize("name", CORPORA)
def test_plain_answers_are_found(name: str) -> None:
    easy = [line for line in corpus(name) if line["easy"] and line["label"] is not None]
    assert len(easy) > 100
    assert [line["id"] for line in easy if read(line).label != line["label"]] == []


@pytest.mark.parametrize("name", CORPORA)
def test_a_reply_without_a_label_says_why(name: str) -> None:
    lines = [line for line in corpus(name) if line["easy"] and line["label"] is None]
    assert [(line["id"], read(line).status) for line in lines if read(line).status not in line["statuses"]] == []


@pytest.mark.parametrize(
    ("reply", "form", "label"),
    [
        ("positive", "name", "positive"),
        ("There are 2 people; CLASS: 1", "id", "neutral"),
        ("There are 2 people in it.", "id", None),
        ("2", "id", "positive"),
        ("2", "name", None),
        ("not positive", "name", None),
        ("positive, negative", "name", None),
        ('```json\n{"label": "neutral", "why": "not negative"}\n```', "name", "neutral"),
        ("<think>negative? no: 0</think>\n\n**Positive**.", "name", "positive"),
        ("<think>it is positive", "name", None),
    ],
)
def test_what_the_earlier_system_got_wrong(reply: str, form: Any, label: str | None) -> None:
    assert parse(reply, SENTIMENT, form=form).label == label


def test_minus_one_is_a_label_only_where_the_schema_has_it() -> None:
    assert parse("-1", LabelSchema({-1: "against", 1: "for"}), form="id").label == "against"
    assert parse("-1", LabelSchema({0: "against", 1: "for"}), form="id").label is None


def test_a_cut_reply_counts_only_when_no_other_label_begins_like_it() -> None:
    grades = LabelSchema.from_names(["very", "very good"])
    assert parse("very", grades, finish="length").status == "truncated"
    assert parse("positive", SENTIMENT, finish="length").label == "positive"


def test_the_word_for_abstaining_is_no_label() -> None:
    answer = parse("unclear", SENTIMENT, abstain="unclear")
    assert (answer.label, answer.status) == (None, "abstained")
    assert parse("unclear", SENTIMENT).status != "abstained"


def test_a_label_that_was_not_offered_is_invalid() -> None:
    assert parse("neutral", SENTIMENT, shown=["negative", "positive"]).status == "invalid_label"


NAMES = [
    "positive",
    "very positive",
    "{braces}",
    "4K",
    'say "yes"',
    "日本",
    "שלום",
    "👍",
    "a/b",
    "C++",
    "not sure",
    "yes",
    "I",
    "10",
]
names = st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True)
readers = functools.cache(lambda chosen, form: ReplyReader(LabelSchema.from_names(chosen), form=form))


@settings(max_examples=300, deadline=None)
@given(
    names,
    st.text(max_size=120),
    st.sampled_from(["name", "id", "json"]),
    st.sampled_from(["stop", "length", "content_filter", None]),
)
def test_any_text_gets_a_reading(chosen: list[str], reply: str, form: Any, finish: str | None) -> None:
    answer = readers(tuple(chosen), form).read(reply, finish)
    assert answer.status in VOTE_STATUSES
    assert (answer.label is None) == (answer.status != "ok")
    assert answer.label is None or answer.label in chosen


WRAPPED = [
    "{}", "{}.", "**{}**", "`{}`", '"{}"', "- {}", "\n\n{}\n", "Answer: {}", "**Final answer:** {}", "<think>hm, other</think>{}",
    "Let me think about it.\n\nCLASSIFICATION: {}", "<label>{}</label>", "The reasoning is long.\nAnswer:\n{}",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(names, st.data())
def test_a_label_in_any_plain_form_is_found(chosen: list[str], data: st.DataObject) -> None:
    label, form = data.draw(st.sampled_from(chosen)), data.draw(st.sampled_from(WRAPPED))
    assert readers(tuple(chosen), "name").read(form.replace("{}", label)).label == label


@settings(max_examples=200, deadline=None)
@given(names, st.data())
def test_a_label_in_json_is_found_whatever_its_name(chosen: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(chosen))
    reply = json.dumps(
        {"reasoning": data.draw(st.text(max_size=40)), "label": label}, ensure_ascii=data.draw(st.booleans())
    )
    assert readers(tuple(chosen), "json").read(reply).label == label


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["negative", "neutral", "positive"]), min_size=2, max_size=2, unique=True), st.data())
def test_two_labels_are_none(pair: list[str], data: st.DataObject) -> None:
    form = data.draw(
        st.sampled_from(
            ["{} {}", "{}, {}", "{} or {}", "{}\n{}", "Answer: {}\nAnswer: {}", '{{"label": ["{}", "{}"]}}', "{}/{}"]
        )
    )
    assert ReplyReader(SENTIMENT).read(form.format(*pair)).label is None


words = st.text(alphabet="abcdefghijklmno 0123456789,;", max_size=60).filter(lambda text: "neutral" not in text)


@settings(max_examples=200, deadline=None)
@given(words)
def test_numbers_in_prose_are_never_an_answer(text: str) -> None:
    reply = f"the people say {text} and so on and so forth"
    assert ReplyReader(SENTIMENT, form="id").read(reply).label is None
