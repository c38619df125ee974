"""Votes that exist already: files, frames and run folders → the votes table."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate.earlier import earlier_votes, find_vote_file, is_earlier, partial_note
from consenso.annotate.layouts import find_column, long_votes, some, text_ids, wide_columns, wide_votes
from consenso.annotate.settings import VoteImport
from consenso.annotate.values import ValueReader, is_blank, word_of, words_of
from consenso.annotate.vote_files import find_source, read_votes_file
from consenso.errors import DataError, JoinError, nearest
from consenso.labels import LabelSchema
from consenso.tables import TEXTS, VOTE_STATUSES, VOTES, check

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LAYOUTS: dict[str, Callable[[pd.DataFrame, VoteImport, ValueReader, str], pd.DataFrame]] = {
    "long": long_votes,
    "wide": wide_votes,
    "earlier": earlier_votes,
}
UNKNOWN_TEXTS = "votes for unknown texts"
"""How the note begins that counts votes whose text is not among the texts."""

_KEY = ["text_id", "annotator", "repetition"]
_NUMBERS = ("confidence", "tokens_in", "tokens_out", "cost", "latency_s")


def read_votes(
    source: str | Path | pd.DataFrame,
    labels: LabelSchema,
    *,
    settings: VoteImport | None = None,
    texts: pd.DataFrame | None = None,
    base: Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Read votes that exist already: a long or wide file or frame, a run folder of the earlier system or of consenso.

    Returns the votes table: text_id, annotator, repetition, label (name or null), status, confidence, reply (the value
    as it stood), …. Null labels keep their reason: "ERROR" → failed; blank or without a word character → unparsable;
    any other value that is no label → invalid_label; values listed in `settings.abstain` → abstained.
    With `texts` (text_id) votes for other texts are left out. `votes.attrs["notes"]` says, with counts, what was left
    out or not read. `options` are fields of `VoteImport` (layout, columns, annotators, repetitions, where,
    abstain, blank). Relative paths start from `base`, the working folder, CONSENSO_DATA.
    Raises `DataError` for an unreadable file, a layout that cannot be told, a repeated vote, a name that is not there;
    `JoinError` where no vote belongs to a text of `texts`. Numbers are refused where the labels are names whose ids
    nobody gave (`LabelSchema.ids_given`) and `settings.labels` does not say what they mean.
    """
    import pandas as pd

    frame, where, notes = _open(source, base)
    if settings is None or options:
        settings = VoteImport.read(
            {**(settings.model_dump() if settings else {}), "source": where, **options}, "read_votes"
        )
    layout = choose_layout(frame, settings, where)
    logger.info("reading votes from %s (%s, %d rows)", where, layout, len(frame))
    frame = _keep_where(frame, settings, where).reset_index(drop=True)
    reader = ValueReader(labels, settings.labels, settings.abstain)
    raw = _choose(LAYOUTS[layout](frame, settings, reader, where), settings, where)
    _refuse_repeated(raw, frame, settings, where)
    if texts is not None:
        raw, unknown = _join(raw, texts, where)
        notes += unknown
    if settings.blank == "absent":
        raw = raw[~is_blank(raw["value"])]
    _refuse_undeclared(raw, reader, where)
    votes, unread = _read_values(raw.reset_index(drop=True), reader)
    notes += [f"{where}: {note}" for note in unread]
    votes = check(pd.DataFrame(votes), VOTES)
    votes.attrs["notes"] = notes
    valid = int(votes["label"].notna().sum())
    logger.info("read %d votes of %d annotators, %d valid", len(votes), votes["annotator"].nunique(), valid)
    return votes


def check_vote_ids(source: str | Path, texts: pd.DataFrame, *, settings: VoteImport, base: Path | None = None) -> None:
    """Raise `JoinError` where no vote belongs to a text of `texts`; for votes that no known label lets one read."""
    import pandas as pd

    frame, where, _ = _open(source, base)
    frame = _keep_where(frame, settings, where)
    _join(pd.DataFrame({"text_id": text_ids(frame, settings.columns, where)}), texts, where)


def choose_layout(frame: pd.DataFrame, settings: VoteImport, where: str) -> str:
    """Return long, wide or earlier: what the settings say, else what the columns show; `DataError` if neither does."""
    if settings.layout != "auto":
        return settings.layout
    annotator, label = (find_column(frame, role, settings.columns, where) for role in ("annotator", "label"))
    if settings.columns.annotator or settings.columns.label or (annotator and label):
        return "long"
    if is_earlier(frame):
        return "earlier"
    has_id = find_column(frame, "text_id", settings.columns, where) or "text" in frame.columns
    if has_id and (settings.annotators or wide_columns(frame, settings)):
        return "wide"
    raise DataError(
        f"{where}: cannot tell the layout; found columns {some(frame.columns)}. A long table needs text_id, annotator "
        "and label; a wide one text_id and one column per annotator. Name the columns under `columns`, or set `layout`"
    )


def _open(source: str | Path | pd.DataFrame, base: Path | None) -> tuple[pd.DataFrame, str, list[str]]:
    if not isinstance(source, (str, Path)):
        return source.rename(columns=str), "votes", []
    path = find_source(source, base)
    if path.is_dir():
        ours = path / "tables" / "votes.parquet"
        path = ours if ours.is_file() else find_vote_file(path)
    reason = partial_note(path)
    return read_votes_file(path), str(path), [f"{path}: {reason}"] if reason else []


def _keep_where(frame: pd.DataFrame, settings: VoteImport, where: str) -> pd.DataFrame:
    for column, asked in settings.where.items():
        if column not in frame.columns:
            hint = nearest(column, frame.columns) or f" Found {some(frame.columns)}."
            raise DataError(f"{where}: no column {column!r} (where).{hint}")
        wanted = [word_of(value) for value in (asked if isinstance(asked, list) else [asked])]
        words = words_of(frame[column])
        for word in wanted:
            if not (words == word).any():
                found = sorted(words.dropna().unique())
                hint = nearest(word, found) or f" Found {some(found)}."
                raise DataError(f"{where}: no row where {column} = {word!r}.{hint}")
        frame = frame[words.isin(wanted)]
    return frame


def _choose(raw: pd.DataFrame, settings: VoteImport, where: str) -> pd.DataFrame:
    """Keep the panel's votes and the repetitions that are asked for."""
    limits = (
        " where " + ", ".join(f"{column} = {value!r}" for column, value in settings.where.items())
        if settings.where
        else ""
    )
    if settings.annotators:
        known = sorted(set(raw["annotator"]))
        for name in settings.annotators:
            if name not in known:
                raise DataError(
                    f"{where}{limits}: no annotator {name!r}.{nearest(name, known) or f' Found {some(known)}.'}"
                )
        raw = raw[raw["annotator"].isin(settings.annotators)]
    if settings.repetitions:
        found = set(raw["repetition"].unique().tolist())
        if absent := sorted(set(settings.repetitions) - found):
            raise DataError(f"{where}{limits}: no repetition {absent[0]}; found {some(sorted(found))}")
        raw = raw[raw["repetition"].isin(settings.repetitions)]
    if raw.empty:
        raise DataError(f"{where}{limits}: no votes; the file has no rows that fit")
    return raw


def _refuse_repeated(raw: pd.DataFrame, source: pd.DataFrame, settings: VoteImport, where: str) -> None:
    """One annotator votes once per text and repetition; if a column tells repeated votes apart, say which."""
    repeated = raw.duplicated(_KEY, keep=False)
    if not repeated.any():
        return
    example = raw.loc[repeated, _KEY].iloc[0].to_dict()
    said = f"{where}: {int(raw.duplicated(_KEY).sum())} repeated vote(s), for example {example}"
    rows = source.loc[raw.index]
    used = {getattr(settings.columns, role) for role in type(settings.columns).model_fields}
    for column in sorted(set(map(str, source.columns)) - set(_KEY) - used - {"label", "text"}):
        values = words_of(rows[column])
        if values.nunique() <= 50 and not raw[_KEY].assign(_apart=values.to_numpy()).duplicated().any():
            found = sorted(values.dropna().unique())
            keep = f"keep one, for example where = {{{column} = {found[0]!r}}}"
            raise DataError(f"{said}; column {column!r} tells them apart ({some(found, 5)}): {keep}")
    raise DataError(f"{said}; keep one row each, or add a column `repetition` (0, 1, …)")


def _refuse_undeclared(raw: pd.DataFrame, reader: ValueReader, where: str) -> None:
    """Refuse numbers as votes where nobody said which number is which label."""
    numbered = [name for name, values in raw.groupby("annotator", sort=False)["value"] if reader.undeclared(values)]
    if not numbered:
        return
    of = "" if len(numbered) == raw["annotator"].nunique() else f" of {some(numbered, 5)}"
    todo = "say it with labels = {{ {pairs} }} in [[annotate.imports]], or give each label its id in [[data.labels]]"
    mine = raw.loc[raw["annotator"].isin(numbered), "value"]
    reader.refuse_undeclared(mine, f"{where}: the votes{of}", todo)


def _join(raw: pd.DataFrame, texts: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    """Keep the votes for known texts and give them the texts' own ids; count the others."""
    import pandas as pd

    own = pd.Series(texts["text_id"].to_numpy(), index=texts["text_id"].map(str))
    if own.index.has_duplicates:
        raise DataError(f"texts: repeated text_id {own.index[own.index.duplicated()][0]!r}; each text may stand once")
    codes, ids = pd.factorize(raw["text_id"])
    position = own.index.get_indexer(pd.Index([str(value) for value in ids], dtype=own.index.dtype))[codes]
    known = position >= 0
    if not known.any():
        mine, theirs = str(ids[0]), str(own.index[0]) if len(own) else "none"
        looks = f"ids of the votes look like {mine!r}, of the texts like {theirs!r}"
        raise JoinError(f"{where}: no vote belongs to a text; {looks}.{_hint(ids, own, texts)}")
    joined = raw[known].assign(text_id=own.to_numpy()[position[known]])
    if known.all():
        return joined, []
    left = raw.loc[~known, "text_id"]
    counted = f"{len(left)} votes for {left.nunique()} texts were left out"
    note = f"{UNKNOWN_TEXTS}: {counted}, for example {str(left.iloc[0])!r} ({where})"
    logger.info("%s", note)
    return joined, [note]


_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("their blanks and upper and lower case", lambda word: word.strip().casefold()),
    ("a decimal part such as .0", word_of),
    ("zeros in front", lambda word: word_of(word).lstrip("0") or "0"),
    (
        "what stands before the number",
        lambda word: str(int(found[-1])) if (found := re.findall(r"\d+", word)) else word,
    ),
)


def _hint(votes: Any, own: pd.Series, texts: pd.DataFrame) -> str:
    """Say in which form the ids of both sides would meet."""
    ours, theirs = {str(value) for value in votes[:5000]}, set(own.index[:5000])
    if all(re.fullmatch(r"[0-9a-f]{16}", value) for value in theirs) and re.search("[a-f]", "".join(theirs)):
        others = [repr(name) for name in texts.columns if name not in TEXTS.columns]
        columns = f"; columns: {some(others)}" if others else ""
        return f" No id column was found, so the texts' ids were made from the texts: set data.columns.text_id{columns}"
    for form, shape in _FORMS:
        if {shape(value) for value in ours} & {shape(value) for value in theirs}:
            return f" They differ in {form}: give both files the same ids"
    return " Check that both files belong together, and which column holds the id (columns.text_id)"


def _read_values(raw: pd.DataFrame, reader: ValueReader) -> tuple[dict[str, Any], list[str]]:
    """Values → label, status, reply; numbers where numbers belong, null and counted where they are none."""
    import pandas as pd

    labels, statuses = reader.read_column(raw["value"])
    blank = is_blank(raw["value"])
    if "status" in raw:  # votes that consenso wrote know why they have no label
        given = raw["status"].isin(set(VOTE_STATUSES) - {"ok"}) & blank
        statuses[given.to_numpy()] = raw.loc[given, "status"].to_numpy()
    reply = raw["reply"] if "reply" in raw else raw["value"]
    votes: dict[str, Any] = {
        **{name: raw[name] for name in _KEY},
        "label": labels,
        "status": statuses,
        "reply": reply.map(str, na_action="ignore").astype(object).mask(is_blank(reply), None),
    }
    notes = []
    for name in _NUMBERS:
        if name in raw:
            votes[name] = pd.to_numeric(raw[name], errors="coerce")
            lost = votes[name].isna() & ~is_blank(raw[name])
            if lost.any():
                example = raw.loc[lost, name].iloc[0]
                notes.append(f"{int(lost.sum())} {name} value(s) are no numbers, for example {example!r}")
    return votes, notes
