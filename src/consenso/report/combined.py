"""write_combined_report: several data sets on one page, each with its own answer, and their mean where there are enough."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.errors import DataError
from consenso.report.blocks import (
    MISSING,
    Answer,
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Note,
    Section,
    absent,
    capital,
    count,
    interval,
    number,
    plural,
    points,
    probability,
)
from consenso.report.contrast_section import levels_of, verdict_of
from consenso.report.export import open_folder
from consenso.report.facts import METRICS, Facts
from consenso.report.forest_plot import Contrast, forest, headline
from consenso.report.further_answers import LOOKS, head_of, sentence_of
from consenso.report.markdown import as_markdown
from consenso.report.settings import ReportSettings
from consenso.report.writing import as_html
from consenso.store import RunFolder, write_text

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

COLUMNS = (
    "dataset", "contrast", "metric", "difference", "low", "high", "low90", "high90", "p", "verdict", "S", "n",
)  # fmt: skip
"""What a row of `combined` must hold."""
OPTIONAL = ("student", "p_holm", "sentence", "margin", "alpha", "k", "predict_low", "predict_high")
"""What it may hold besides."""
ENOUGH = 3
"""Fewer data sets than this have no mean."""
TITLE = "Several data sets"


def write_combined_report(
    folders: Sequence[RunFolder | str | Path],
    out: str | Path,
    combined: pd.DataFrame | None = None,
    *,
    title: str = TITLE,
) -> Path:
    """Write one page about several run folders (and the same as Markdown beside it) and return its path.

    `combined`: a row per data set and per mean over data sets, differences in shares, as `compare` combines them: dataset,
    contrast, metric, difference, low, high, low90, high90, p, verdict, S, n, and if known student, p_holm, sentence, margin,
    alpha, k (data sets in the mean), predict_low, predict_high (a further data set). `kind` is dataset or mean; without it
    the rows with tau are means. The first contrast heads the page. Without `combined` each folder's own primary contrast
    counts, and there is no mean. A data set's row leads to the report.html of its folder, where there is one.
    Raises `DataError` for no folder, a folder that does not exist, or a table without these columns.
    """
    facts = [Facts(open_folder(folder), ReportSettings()) for folder in folders]
    if not facts:
        raise DataError("a combined report needs run folders; none was given")
    path = Path(out)
    path = path / "combined.html" if path.suffix.lower() not in {".html", ".htm"} else path
    frame = _own(facts) if combined is None else _checked(combined)
    frame = _with_margins(frame, facts)
    links = _links(facts, path.parent)
    keys = ["student", "contrast", "metric"]
    rows = [found for _, found in frame.groupby(keys, sort=False, dropna=False)]
    several = frame["student"].nunique() > 1
    answer = _answer(rows[0], _elsewhere(frame, rows[0]))
    sections = [_section(k, found, links, several=several) for k, found in enumerate(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_html(title, answer, sections, "these runs"))
    write_text(
        path.with_suffix(".md"), as_markdown(f"May consensus labels replace human ones? {title}", answer, sections)
    )
    logger.info("combined report: %s, %d data sets", answer.word, frame["dataset"].nunique())
    return path


def _checked(combined: pd.DataFrame) -> pd.DataFrame:
    if missing := [name for name in COLUMNS if name not in combined]:
        raise DataError(f"combined: missing column(s) {missing}; found {list(combined.columns)}")
    if combined.empty:
        raise DataError("combined: no row; compare the arms of each data set first")
    frame = combined.rename(columns={"prediction_low": "predict_low", "prediction_high": "predict_high"})
    frame = frame.assign(**{name: None for name in OPTIONAL if name not in frame})
    if "kind" not in frame:
        means = frame["tau"].notna() if "tau" in frame else [False] * len(frame)
        frame = frame.assign(kind=["mean" if mean else "dataset" for mean in means])
    return frame


def _own(facts: Sequence[Facts]) -> pd.DataFrame:
    """Each folder's primary contrast, of its first student that has one."""
    import pandas as pd

    found, names = [], [each.name for each in facts]
    for each in facts:
        rows = [row for student in each.main_students if (row := each.primary(student)) is not None]
        if not rows:
            raise DataError(f"{each.folder.path}: no primary contrast to combine; run `consenso compare` there first")
        found.append({**rows[0].to_dict(), "kind": "dataset", "sentence": sentence_of(rows[0]),
                      "dataset": each.name if names.count(each.name) == 1 else str(each.folder.path)})  # fmt: skip
    return _checked(pd.DataFrame(found))


def _with_margins(frame: pd.DataFrame, facts: Sequence[Facts]) -> pd.DataFrame:
    """The declared margin where the table has none: that of the runs, if all have the same."""
    if frame["margin"].notna().any():
        return frame.assign(margin=frame["margin"].astype(float))
    margins = {float(m) for each in facts for m in _column(each, "margin") if not absent(m)}
    return frame.assign(margin=margins.pop() if len(margins) == 1 else float("nan"))


def _column(facts: Facts, name: str) -> set[Any]:
    comparison = facts.table("comparison")
    return set() if comparison is None else set(comparison[name])


def _links(facts: Sequence[Facts], start: Path) -> dict[str, str]:
    """Data set → relative address of its report; a run's path leads there too, where several runs have one name."""
    found: dict[str, str] = {}
    for each in facts:
        page = each.folder.path / "report.html"
        if page.exists():
            link = Path(os.path.relpath(page.resolve(), start.resolve())).as_posix()
            for name in (str(each.folder.path), each.name, *sorted(map(str, _column(each, "dataset")))):
                found.setdefault(name, link)
    return found


def _elsewhere(frame: pd.DataFrame, first: pd.DataFrame) -> list[str]:
    """Said in the head where data sets have another contrast, metric or student than its answer is about."""
    others = frame[(frame["kind"] == "dataset") & ~frame["dataset"].isin(set(first["dataset"]))]
    if others.empty:
        return []
    each = "; ".join(
        f"{name} ({', '.join(sorted(set(rows['contrast'])))})" for name, rows in others.groupby("dataset", sort=False)
    )
    return [f"This answer is about {first['contrast'].iloc[0]} alone; not among its data sets: {each}."]


def _answer(frame: pd.DataFrame, elsewhere: Sequence[str] = ()) -> Answer:
    sets, mean = frame[frame["kind"] == "dataset"], frame[frame["kind"] == "mean"]
    counts = sets["verdict"].map(lambda verdict: head_of(str(verdict)) or str(verdict)).value_counts()
    each = ", ".join(f"{word} {counts[word]}" for word in LOOKS if word in counts)
    limits = [
        "Test texts of different data sets are never pooled; the mean is over data sets (random effects, Hartung–Knapp).",
        *elsewhere,
    ]
    if mean.empty:
        few = f" A mean needs at least {ENOUGH} data sets." if len(sets) < ENOUGH else ""
        return Answer(
            word=plural(len(sets), "data set").upper(), tone="open", glyph="·",
            sentence=f"{frame['contrast'].iloc[0]} on {plural(len(sets), 'data set')}: {each}.",
            meaning=f"Each data set has its own answer below; none speaks for the others.{few}",
            advice="Read each data set’s own report before saying anything about all of them.", limits=elsewhere,
        )  # fmt: skip
    row = mean.iloc[0]
    tone, glyph = LOOKS.get(head_of(str(row["verdict"])), ("open", "·"))
    return Answer(
        word=_verdict(row), tone=tone, glyph=glyph, sentence=_said(row),
        meaning=f"Data set by data set: {each}.{_prediction(row)}",
        advice="Look at the data sets before the mean: it can hide one where the labels cost much.",
        chart=_chart(row), limits=limits,
    )  # fmt: skip


def _said(row: pd.Series) -> str:
    if not absent(row["sentence"]) and str(row["sentence"]).strip():
        word, colon, rest = str(row["sentence"]).strip().partition(": ")
        return capital(rest) if colon and head_of(word) else str(row["sentence"]).strip()
    metric = METRICS.get(row["metric"], row["metric"])
    return (
        f"{row['contrast']}: {metric} differs by {points(row['difference'])} ({levels_of(row)[0]} interval "
        f"{interval(row['low'], row['high'])})."
    )


def _prediction(row: pd.Series) -> str:
    spread = interval(row["predict_low"], row["predict_high"])
    return (
        ""
        if spread == MISSING
        else f" In a further data set of this kind the difference is expected within {spread} pp."
    )


def _verdict(row: pd.Series) -> str:
    return str(row["verdict"]) if absent(row["margin"]) else verdict_of(row)


def _contrast(row: pd.Series) -> Contrast:
    mean = row["kind"] == "mean"
    spread = interval(row["predict_low"], row["predict_high"])
    small = f"{plural(row['S'], 'seed')}, {plural(row['n'], 'test text')}" if not absent(row["S"]) else ""
    if mean:
        small = "" if spread == MISSING else f"a further data set: {spread}"
    names = ("difference", "low", "high", "low90", "high90")
    numbers = {name: float("nan") if absent(row[name]) else float(row[name]) for name in names}
    return Contrast(_name(row), small, verdict=_verdict(row), primary=bool(mean), **numbers)


def _name(row: pd.Series) -> str:
    return "Mean" if row["kind"] == "mean" else str(row["dataset"])


def _chart(row: pd.Series) -> Figure | None:
    if absent(row["difference"]) or absent(row["margin"]):
        return None
    arm, _, control = str(row["contrast"]).partition(" − ")
    margin = points(row["margin"]).lstrip("+")
    wide, narrow = levels_of(row)
    caption = f"The mean over data sets, in percentage points. Thin line: {wide} interval; thick: {narrow}; shaded: ±{margin}."
    said = f"{caption} {points(row['difference'])} {interval(row['low'], row['high'])}"
    return Figure("headline", caption, said, *headline(_contrast(row), float(row["margin"]), arm, control))


def _section(place: int, frame: pd.DataFrame, links: Mapping[str, str], *, several: bool) -> Section:
    row = frame.iloc[0]
    student = f" (student “{row['student']}”)" if several else ""
    metric = METRICS.get(row["metric"], row["metric"])
    frame = frame.sort_values("kind", key=lambda kinds: kinds == "mean", kind="stable")
    blocks: list[Block] = [_grid(frame, links, str(metric))]
    drawn = frame[frame["difference"].notna()]
    if len(drawn):
        blocks.append(_forest(place, drawn, str(metric)))
    if not (frame["kind"] == "mean").any():
        few = f"at least {ENOUGH} are needed" if len(frame) < ENOUGH else "none was computed"
        blocks.append(Note(f"No mean over the {plural(len(frame), 'data set')}: {few}.", "absent"))
    return Section(
        f"question-{place}", f"{row['contrast']} in {metric}{student}", blocks, group="" if place else "Data sets"
    )


def _grid(frame: pd.DataFrame, links: Mapping[str, str], metric: str) -> Grid:
    rows = []
    wide, narrow = levels_of(frame.iloc[0])
    sets = int((frame["kind"] == "dataset").sum())
    for _, row in frame.iterrows():
        mean = row["kind"] == "mean"
        holm = "" if absent(row["p_holm"]) else f"Holm {probability(row['p_holm'])}"
        name = _name(row)
        rows.append(
            [
                Cell(name, link="" if mean else links.get(name, ""), tone="primary" if mean else ""),
                Cell(
                    _verdict(row),
                    small="" if mean or absent(row["sentence"]) else _said(row),
                    tone="" if mean else "long",
                ),
                Cell(points(row["difference"], unit=False), small=interval(row["low"], row["high"])),
                Cell(interval(row["low90"], row["high90"])),
                Cell(probability(row["p"]), small=holm),
                Cell(
                    MISSING if mean else count(row["S"]),
                    small=f"{sets if absent(row['k']) else count(row['k'])} data sets"
                    if mean
                    else plural(row["n"], "text"),
                ),
            ]
        )
    caption = (
        f"One answer per data set, {frame['contrast'].iloc[0]} in {metric}; below the difference its {wide} interval"
    )
    columns = [
        Column("data set"),
        Column("verdict"),
        *(Column(name, True) for name in ("difference, pp", narrow, "p", "seeds")),
    ]
    return Grid(caption, columns, rows)


def _forest(place: int, frame: pd.DataFrame, metric: str) -> Figure:
    rows = [_contrast(row) for _, row in frame.iterrows()]
    known = frame["margin"].dropna()
    margin = float(known.iloc[0]) if len(known) else 0.0
    means = [k for k, row in enumerate(rows) if row.primary]
    groups = {0: "Data sets", means[0]: "Mean over data sets"} if means and means[0] else {}
    name = f"data-sets-{place}"
    wide, narrow = levels_of(frame.iloc[0])
    caption = (
        f"{frame['contrast'].iloc[0]}: difference in {metric} on each data set, in percentage points, with {wide} (thin) and {narrow} "
        "(thick) intervals"
        + (f"; shaded: ±{number(100 * margin, 1)}{' pp'}" if margin else "")
        + ("; the diamond is the mean over data sets." if means else ".")
    )
    lines = [f"{row.name}: {points(row.difference)} {interval(row.low, row.high)}, {row.verdict}" for row in rows]
    return Figure(name, caption, f"{caption} {'; '.join(lines)}", *forest(name, rows, margin, groups))
