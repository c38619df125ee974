"""Pre-registration: what is frozen, how a change or an edited file is told, and what the guard makes of it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import pytest

from consenso.compare.contrasts import Contrast
from consenso.compare.evidence import Evidence
from consenso.compare.freezing import (
    Frozen,
    changes_since,
    declare,
    digest_declared,
    freeze,
    read_frozen,
    verify_frozen,
    write_frozen,
)
from consenso.compare.guards_of_texts import fixed_before_scoring
from consenso.errors import ConfigError, DataError

NOON = dt.datetime(2026, 11, 27, 12, 0, 5, tzinfo=dt.UTC)
COMPARE = {"metric": "macro_f1", "margin": 0.02, "arm": "consensus", "control": "gold-aligned", "contrasts": [],
           "low_power_below": 5, "gold_public": None}  # fmt: skip
CONSENSUS = {"method": "majority", "ties": "undecided", "threshold": None, "bootstrap": 1000,
             "problematic": {"measure": "score", "below": 0.6}}  # fmt: skip
STUDENT = {"arms": ("gold", "consensus"), "seeds": 10, "resample": True, "recipe": {"encoder": "embedded", "epochs": 5},
           "workers": 2, "students": ("frozen",), "overrides": {}}  # fmt: skip
PANEL = {"größer": {"model": "gemma3:4b", "prompt": "Which label?", "temperature": 0.0, "price": [0.1, 0.2]}}
DATA = {"texts": "ab" * 32, "folds": "cd" * 32, "votes": None, "test texts": 2210}


def declared(**changes):
    given = {"compare": COMPARE, "consensus": CONSENSUS, "students": {"frozen": STUDENT}, "panel": PANEL, "data": DATA,
             "labels": ["no", "yes"], "name": "sst5", "version": "0.5"}  # fmt: skip
    return declare(**{**given, **changes})


def test_a_declaration_holds_what_decides_a_verdict_and_nothing_else():
    found = declared()
    assert found["metric"] == "macro_f1"
    assert found["primary contrast"] == "consensus − gold-aligned"
    assert found["students"]["frozen"]["seeds"] == list(range(1, 11))
    assert found["students"]["frozen"]["arms"] == ["consensus", "gold"]
    assert found["problematic texts"] == {"measure": "score", "below": 0.6}
    text = json.dumps(found)
    assert not [name for name in ("workers", "bootstrap", "price", "low_power_below", "gold_public") if name in text]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compare": {**COMPARE, "margin": 0.03}}, ["margin: 0.02 → 0.03"]),
        ({"compare": {**COMPARE, "metric": "accuracy"}}, ["metric: macro_f1 → accuracy"]),
        ({"compare": {**COMPARE, "control": "gold"}}, ["primary contrast: consensus − gold-aligned → consensus − gold"]),
        ({"compare": {**COMPARE, "contrasts": [{"arm": "a", "control": "b"}]}},
         ["secondary contrasts: the decompositions whose arms are trained → a − b"]),
        ({"compare": {**COMPARE, "looks": 3}}, ["verdict: looks: not there → 3"]),
        ({"consensus": {**CONSENSUS, "threshold": 0.8}}, ["aggregator: threshold: null → 0.8"]),
        ({"consensus": {**CONSENSUS, "problematic": {"measure": "score", "below": 0.7}}},
         ["problematic texts: below: 0.6 → 0.7"]),
        ({"students": {"frozen": {**STUDENT, "seeds": (1, 2, 3)}}}, ["students: frozen: seeds: 1 … 10 → 1 … 3"]),
        ({"students": {"frozen": {**STUDENT, "arms": ("gold",)}}}, ["students: frozen: arms: consensus, gold → gold"]),
        ({"students": {"frozen": {**STUDENT, "recipe": {"encoder": "embedded", "epochs": 8}}}},
         ["students: frozen: recipe: epochs: 5 → 8"]),
        ({"panel": {"größer": {**PANEL["größer"], "model": "gemma3:12b"}}}, ["panel: größer: model: gemma3:4b → gemma3:12b"]),
        ({"data": {**DATA, "texts": "ee" * 32}}, ["data: texts: abababababab → eeeeeeeeeeee"]),
        ({"version": "0.6"}, ["software: consenso: 0.5 → 0.6"]),
        ({"labels": ["yes", "no"]}, ["labels: no, yes → yes, no"]),
    ],
)  # fmt: skip
def test_every_change_is_said_in_a_line(changes, said):
    assert changes_since(declared(), declared(**changes)) == said
    assert digest_declared(declared()) != digest_declared(declared(**changes))


def test_what_changes_no_number_is_no_change():
    same = declared(
        compare={**COMPARE, "gold_public": True},
        consensus={**CONSENSUS, "bootstrap": 0},
        students={"frozen": {**STUDENT, "workers": 8, "seeds": tuple(range(1, 11))}},
        data={**DATA, "votes": "0f" * 32},  # not there yet when it was frozen
    )
    assert changes_since(declared(), same) == []
    assert changes_since(same, declared())  # but votes that vanish are one


def test_settings_that_are_no_json_are_a_mistake():
    with pytest.raises(ConfigError, match="plain JSON"):
        declared(data={"texts": {1, 2}})


def test_the_hash_is_that_of_the_canonical_content():
    record = freeze(declared(), at=NOON).as_record()
    content = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert record["hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert record["frozen_at"] == "2026-11-27T12:00:05+00:00"
    shuffled = dict(reversed(list(declared().items())))
    assert freeze(shuffled, at=NOON).hash == record["hash"]


def test_a_frozen_file_is_read_back_as_it_was_written(tmp_path):
    frozen = freeze(declared(), at=NOON)
    path = write_frozen(frozen, tmp_path)
    assert path == tmp_path / "frozen.json"
    assert read_frozen(path) == frozen
    assert verify_frozen(path, declared()) == []
    text = path.read_text(encoding="utf-8")
    assert '"margin": 0.02' in text  # a person can read it
    assert "größer" in text


def test_a_freeze_is_never_overwritten(tmp_path):
    write_frozen(freeze(declared(), at=NOON), tmp_path)
    later = freeze(declared(), at=NOON + dt.timedelta(days=1))
    assert read_frozen(write_frozen(later, tmp_path)).at == "2026-11-27T12:00:05+00:00"
    with pytest.raises(ConfigError, match=r"frozen on 2026-11-27T12:00:05\+00:00; it is never overwritten"):
        write_frozen(freeze(declared(version="0.6")), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"margin": 0.02', '"margin": 0.05'),
        ('"scores_seen": false', '"scores_seen": true'),
        ('"frozen_at": "2026', '"frozen_at": "2025'),
        ('"format": 1,', '"format": 1, "note": "x",'),
        ('"first_scoring": null', '"first_scoring": "2026-01-01"'),
    ],
)
def test_an_edited_file_is_told_by_its_hash(tmp_path, old, new):
    path = write_frozen(freeze(declared(), at=NOON), tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match="it was edited after"):
        verify_frozen(path, declared())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 9}', "null"])
def test_a_file_that_is_no_frozen_record_says_so(tmp_path, content):
    path = tmp_path / "frozen.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="frozen"):
        read_frozen(path)
    with pytest.raises(DataError, match="--freeze"):
        read_frozen(tmp_path / "nothing.json")


def test_a_format_of_the_future_is_not_guessed_at(tmp_path):
    record = {**freeze(declared()).as_record(), "format": 2}
    path = tmp_path / "frozen.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match="format 2"):
        read_frozen(path)


def test_a_freeze_after_a_scoring_says_that_it_is_no_preregistration():
    late = freeze(declared(), scorings=[{"hash": "x", "at": "2026-11-20T08:00:00+00:00"}], at=NOON)
    assert (late.scores_seen, late.first_scoring) == (True, "2026-11-20T08:00:00+00:00")
    assert "after test scores had been seen (2026-11-20T08:00:00+00:00): no pre-registration" in str(late)
    assert "pre-registration" not in str(freeze(declared(), at=NOON))


# the guard


def guard(**evidence):
    found = fixed_before_scoring(Evidence(runs=None, **evidence))[0]
    return found.outcome, found.reason


def test_as_frozen_passes_with_time_and_hash():
    frozen = freeze(declared(), at=NOON)
    assert guard(frozen=frozen.as_record(), declared=declared()) == (
        "passed",
        f"as frozen on 2026-11-27T12:00:05+00:00, hash {frozen.hash[:12]}, before any test score was seen",
    )


def test_what_changed_after_the_freeze_is_listed():
    now = declared(compare={**COMPARE, "margin": 0.03}, version="0.6")
    outcome, reason = guard(frozen=freeze(declared(), at=NOON).as_record(), declared=now)
    assert outcome == "warned"
    assert reason == (
        "changed since it was frozen on 2026-11-27T12:00:05+00:00: margin: 0.02 → 0.03; software: consenso: 0.5 → 0.6"
    )


def test_a_late_freeze_and_an_edited_record_only_warn():
    late = freeze(declared(), scorings=[{"at": "2026-11-20"}], at=NOON).as_record()
    outcome, reason = guard(frozen=late, declared=declared())
    assert outcome == "warned"
    assert "so this is no pre-registration" in reason
    edited = {**late, "frozen_at": "2026-01-01"}
    assert guard(frozen=edited, declared=declared())[0] == "warned"
    assert "it was edited after freezing" in guard(frozen=edited, declared=declared())[1]
    assert guard(frozen=late)[0] == "not_checked"


def test_without_a_freeze_the_first_scoring_counts():
    assert guard() == ("not_checked", "no record of what was declared at the first scoring")
    assert guard(first_hash="a", hash="a") == ("passed", "unchanged since the first scoring")
    now = declared(compare={**COMPARE, "margin": 0.03})
    assert guard(first_hash="a", hash="b", first_declared=declared(), declared=now) == (
        "warned", "changed after seeing test scores: margin: 0.02 → 0.03",
    )  # fmt: skip
    assert guard(first_hash="a", hash="b") == ("warned", "changed after seeing test scores")


def test_many_changes_are_counted():
    panel = {f"m{k}": {"model": "x"} for k in range(12)}
    reason = guard(frozen=freeze(declared(), at=NOON).as_record(), declared=declared(panel=panel))[1]
    assert reason.endswith("; and 5 more")


def test_contrasts_may_be_declared_as_names_pairs_or_settings():
    wanted = ["a − b"]
    for given in (["a − b"], [("a", "b")], [{"arm": "a", "control": "b"}]):
        assert declared(compare={**COMPARE, "contrasts": given})["secondary contrasts"] == wanted
    assert Contrast("a", "b").name == wanted[0]


def test_a_frozen_declaration_is_a_value():
    assert freeze(declared(), at=NOON) == Frozen(declared(), "2026-11-27T12:00:05+00:00")
