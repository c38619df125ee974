"""Who voted, how often, and which annotators call for a second look."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from consenso.annotate.annotators import EmbeddingAnnotator
from consenso.annotate.collecting import Voters
from consenso.annotate.imported import UNKNOWN_TEXTS
from consenso.annotate.settings import AnnotateSettings
from consenso.annotate.tallies import INVALID
from consenso.tables import ANNOTATORS, GUARDS, VOTE_STATUSES, VOTES, check

if TYPE_CHECKING:
    import pandas as pd

INVALID_LIMIT = 0.05
"""Share of invalid answers above which an annotator is warned about."""
ENOUGH = 10
"""Valid votes below which a constant or repeated annotator may be so by chance, and is not warned about."""


def count_votes(votes: pd.DataFrame) -> pd.DataFrame:
    """Count each annotator's votes.

    Returns one row per annotator, by name: annotator, votes, valid (with a label), one column per status, invalid_rate
    (invalid answers among the votes that were asked for), constant (two or more valid votes, all for one label).
    """
    counted = VoteCount()
    counted.add(check(votes, VOTES))
    return counted.table()


class VoteCount:
    """Counts votes that come in parts."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str | None]] = Counter()

    def add(self, votes: pd.DataFrame) -> None:
        """Add votes (columns annotator, status, label)."""
        if len(votes):
            sizes = votes.groupby(["annotator", "status", "label"], dropna=False, observed=True).size()
            for (annotator, status, label), size in sizes.items():
                self._counts[annotator, status, label if isinstance(label, str) else None] += int(size)

    @property
    def annotators(self) -> list[str]:
        """Who voted, by name."""
        return sorted({annotator for annotator, _, _ in self._counts})

    @property
    def valid(self) -> int:
        """Votes with a label."""
        return sum(count for (_, _, label), count in self._counts.items() if label is not None)

    def statuses(self) -> Counter[str]:
        """Return status → votes."""
        found: Counter[str] = Counter()
        for (_, status, _), count in self._counts.items():
            found[status] += count
        return found

    def table(self) -> pd.DataFrame:
        """Return the table that `count_votes` describes."""
        import pandas as pd

        rows = []
        for name in self.annotators:
            mine = {(status, label): count for (who, status, label), count in self._counts.items() if who == name}
            statuses = {s: sum(c for (status, _), c in mine.items() if status == s) for s in VOTE_STATUSES}
            labels = {label for _, label in mine if label is not None}
            votes, valid = sum(mine.values()), sum(count for (_, label), count in mine.items() if label is not None)
            asked = votes - statuses["settled"]
            invalid = sum(statuses[status] for status in INVALID)
            rows.append(
                {"annotator": name, "votes": votes, "valid": valid, **statuses,
                 "invalid_rate": invalid / asked if asked else None, "constant": valid >= 2 and len(labels) == 1}
            )  # fmt: skip
        frame = pd.DataFrame(rows, columns=["annotator", "votes", "valid", *VOTE_STATUSES, "invalid_rate", "constant"])
        return frame.astype({"invalid_rate": "float64", "constant": "bool"})


def describe_annotators(
    settings: AnnotateSettings | None = None,
    votes: pd.DataFrame | Iterable[str] | None = None,
    voters: Voters | None = None,
) -> pd.DataFrame:
    """Return the annotators table: those of `settings`, the variants among `voters`, and as imported whoever else voted.

    `votes`: the votes, or the names of those who voted.
    """
    import pandas as pd

    settings = settings or AnnotateSettings()
    rows: list[dict[str, Any]] = [
        {
            "annotator": a.name,
            "kind": "model",
            "model": a.encoder,
            "family": a.encoder,
            "confidence_kind": "softmax of cosines",
            "settings": a.model_dump_json(),
        }
        for a in settings.annotators
        if isinstance(a, EmbeddingAnnotator)
    ]
    for asker in voters.askers if voters else ():
        rows.append(
            {"annotator": asker.name, "kind": "llm", "model": f"{asker.endpoint.name}/{asker.model}", "family": asker.family_name,
             "variant_of": asker.variant_of, "repetitions": asker.repetitions, "digest": asker.digest,
             "confidence_kind": "token probabilities" if asker.logprobs else None,
             "settings": json.dumps(dict(asker.settings) | {"asked": asker.record}, ensure_ascii=False)}
        )  # fmt: skip
    for one in voters.local if voters else ():
        kind = "label probabilities" if one.record["kind"] != "python" else None
        rows.append(
            {"annotator": one.name, "kind": "model", "model": one.model, "family": one.family_name, "digest": one.digest,
             "confidence_kind": kind, "settings": json.dumps(dict(one.settings), ensure_ascii=False)}
        )  # fmt: skip
    known = {row["annotator"] for row in rows} | {one.name for one in settings.annotators}
    found = [] if votes is None else votes["annotator"] if isinstance(votes, pd.DataFrame) else votes
    for name in sorted(set(found) - known):
        named = [one for one in settings.imports if name in one.annotators] or [
            one for one in settings.imports if not one.annotators
        ]
        # With several open imports the table does not tell which one a name came from; then nothing is claimed.
        rows.append(
            {
                "annotator": name,
                "kind": "imported",
                "confidence_kind": "as imported",
                "settings": named[0].model_dump_json() if len(named) == 1 else None,
            }
        )
    columns = list(ANNOTATORS.columns)
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    return check(frame.assign(repetitions=frame["repetitions"].fillna(1).astype("int64")), ANNOTATORS)


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
