"""Who voted, how often, and which annotators call for a second look."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from consenso.annotate.imported import UNKNOWN_TEXTS
from consenso.annotate.settings import AnnotateSettings
from consenso.tables import ANNOTATORS, GUARDS, VOTE_STATUSES, VOTES, check

if TYPE_CHECKING:
    import pandas as pd

INVALID = ("unparsable", "invalid_label", "refused", "truncated", "failed")
"""Statuses of an answer that should have been a label; an abstention is allowed, `settled` was not asked."""
INVALID_LIMIT = 0.05
"""Share of invalid answers above which an annotator is warned about."""
ENOUGH = 10
"""Valid votes below which a constant or repeated annotator may be so by chance, and is not warned about."""


def count_votes(votes: pd.DataFrame) -> pd.DataFrame:
    """Count each annotator's votes.

    Returns one row per annotator, by name: annotator, votes, valid (with a label), one column per status, invalid_rate
    (invalid answers among the votes that were asked for), constant (two or more valid votes, all for one label).
    """
    import pandas as pd

    votes = check(votes, VOTES)
    counts = pd.crosstab(votes["annotator"], votes["status"]).reindex(columns=list(VOTE_STATUSES), fill_value=0)
    labels = votes.groupby("annotator")["label"].agg(["size", "count", "nunique"]).reindex(counts.index)
    counts.insert(0, "votes", labels["size"].astype("int64"))
    counts.insert(1, "valid", labels["count"].astype("int64"))
    asked = counts["votes"] - counts["settled"]
    counts["invalid_rate"] = (counts[list(INVALID)].sum(axis=1) / asked).where(asked > 0)
    counts["constant"] = (labels["count"] >= 2) & (labels["nunique"] == 1)
    counts.columns.name = None
    return counts.reset_index()


def describe_annotators(settings: AnnotateSettings | None = None, votes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the annotators table: the embedded ones of `settings`, and as imported whoever else stands in `votes`."""
    import pandas as pd

    settings = settings or AnnotateSettings()
    rows: list[dict[str, str | None]] = [
        {"annotator": a.name, "kind": "model", "model": a.encoder, "family": a.encoder, "settings": a.model_dump_json()}
        for a in settings.annotators
    ]
    known = {a.name for a in settings.annotators}
    voters = [] if votes is None else sorted(set(votes["annotator"]) - known)
    for name in voters:
        named = [one for one in settings.imports if name in one.annotators] or [
            one for one in settings.imports if not one.annotators
        ]
        # With several open imports the table does not tell which one a name came from; then nothing is claimed.
        rows.append(
            {"annotator": name, "kind": "imported", "settings": named[0].model_dump_json() if len(named) == 1 else None}
        )
    return check(pd.DataFrame(rows, columns=list(ANNOTATORS.columns), dtype=object), ANNOTATORS)


def check_annotators(votes: pd.DataFrame, notes: Iterable[str] | None = None) -> pd.DataFrame:
    """Look for annotators that call for a second look; a warning never invalidates.

    Returns guards rows, scope "all": "invalid answers" (over 5 % of an annotator's votes), "constant annotator",
    "duplicate annotators" (equal labels for the same texts), "votes for unknown texts". `notes` are those of
    `read_votes` (default: `votes.attrs["notes"]`); without any the last one is not checked.
    """
    import pandas as pd

    notes = notes if notes is not None else votes.attrs.get("notes")
    votes = check(votes, VOTES)
    counts = count_votes(votes)
    rows = [_invalid(counts), _constant(counts), _duplicates(votes), _unknown(notes)]
    return check(pd.DataFrame([{"scope": "all", "invalidates": False, **row} for row in rows]), GUARDS)


def _guard(guard: str, outcome: str, figures: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {"guard": guard, "outcome": outcome, "figures": json.dumps(figures, ensure_ascii=False), "reason": reason}


def _invalid(counts: pd.DataFrame) -> dict[str, Any]:
    rates = counts.dropna(subset=["invalid_rate"]).sort_values(["invalid_rate", "annotator"], ascending=[False, True])
    given = {row.annotator: round(row.invalid_rate, 6) for row in rates.itertuples() if row.invalid_rate > 0}
    figures = {"limit": INVALID_LIMIT, "annotators": len(rates), "rates": given}
    if rates.empty:
        return _guard("invalid answers", "not_checked", figures, "no votes")
    over = rates[rates["invalid_rate"] > INVALID_LIMIT]
    if over.empty:
        top = rates.iloc[0]
        highest = f"highest: {top['annotator']}, {top['invalid_rate']:.1%}" if given else "there is none at all"
        reason = f"no annotator gave more than 5 % invalid answers ({highest})"
        return _guard("invalid answers", "passed", figures, reason)
    worst = ", ".join(f"{row.annotator} {row.invalid_rate:.1%}" for row in over.head(5).itertuples())
    more = ", …" if len(over) > 5 else ""
    reason = f"{len(over)} of {len(rates)} annotators gave more than 5 % invalid answers: {worst}{more}"
    return _guard("invalid answers", "warned", figures, reason)


def _constant(counts: pd.DataFrame) -> dict[str, Any]:
    names = counts.loc[counts["constant"] & (counts["valid"] >= ENOUGH), "annotator"].tolist()
    figures = {"annotators": names, "at_least": ENOUGH}
    if not names:
        return _guard(
            "constant annotator", "passed", figures, "every annotator with enough votes uses more than one label"
        )
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    reason = f"{len(names)} annotator(s) always give the same label and carry no information: {listed}"
    return _guard("constant annotator", "warned", figures, reason)


def _duplicates(votes: pd.DataFrame) -> dict[str, Any]:
    groups = _equal_voters(votes)
    figures = {"groups": groups, "at_least": ENOUGH}
    if not groups:
        return _guard("duplicate annotators", "passed", figures, "no two annotators gave the same votes throughout")
    listed = "; ".join(" = ".join(group) for group in groups[:5]) + ("; …" if len(groups) > 5 else "")
    reason = f"{len(groups)} group(s) of annotators gave equal labels throughout, so one opinion counts twice: {listed}"
    return _guard("duplicate annotators", "warned", figures, reason)


def _equal_voters(votes: pd.DataFrame) -> list[list[str]]:
    """Groups of annotators with the same labels (nulls included) for the same texts, repetition by repetition."""
    import numpy as np
    import pandas as pd

    text, label = pd.factorize(votes["text_id"])[0], pd.factorize(votes["label"])[0]
    order = np.lexsort((votes["repetition"].to_numpy(), text))
    content = np.column_stack([text, label])[order]
    alike: dict[bytes, list[str]] = {}
    for name, rows in (
        pd.Series(votes["annotator"].to_numpy()[order]).groupby(votes["annotator"].to_numpy()[order]).indices.items()
    ):
        if (content[rows, 1] >= 0).sum() >= ENOUGH:
            alike.setdefault(content[rows].tobytes(), []).append(str(name))
    return sorted(sorted(group) for group in alike.values() if len(group) > 1)


def _unknown(notes: Iterable[str] | None) -> dict[str, Any]:
    if notes is None:
        return _guard(UNKNOWN_TEXTS, "not_checked", {}, "what was left out on reading is not known here")
    found = [note for note in notes if note.startswith(UNKNOWN_TEXTS)]
    if not found:
        return _guard(UNKNOWN_TEXTS, "passed", {"notes": []}, "every vote belongs to a text")
    return _guard(UNKNOWN_TEXTS, "warned", {"notes": found}, "; ".join(found))
