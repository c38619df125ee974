"""The section about what each annotator is worth, and how small a panel would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consenso.report.agreement_section import MOST_ROWS
from consenso.report.annotator_sections import judge
from consenso.report.blocks import (
    MISSING,
    P95,
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Heading,
    Note,
    Section,
    absent,
    count,
    cut,
    dollars,
    percent,
    points,
    words,
)
from consenso.report.facts import Facts
from consenso.report.numbers import INVALID, asked
from consenso.report.panel_plot import Panel, panel_curve

if TYPE_CHECKING:
    import pandas as pd

FAR = 0.02
"""A mean gap between estimate and gold that is worth a sentence."""
MOST_SIZES = 12
"""With more panel sizes than this their table is folded."""
NAMES = 70
"""Letters of a panel's names that are shown at once."""


def worth(facts: Facts) -> Section:
    """Return how good each annotator is without and with gold, what is lost without it, and the best panels."""
    section = ("worth", "What each annotator is worth")
    reliability, missed = facts.table("reliability"), facts.table("missed")
    if reliability is None and missed is None:
        return Section(*section, [Note(facts.why_absent("reliability"), "absent")])
    known = [table.set_index("annotator") for table in (reliability, missed) if table is not None]
    names = sorted(set().union(*(table.index for table in known)))
    alone, with_others = (
        {} if table is None else table.set_index("annotator").to_dict("index") for table in (reliability, missed)
    )
    judged = _judged(facts, names)
    blocks: list[Block] = []
    shown = _order(names, alone, judged)
    if len(shown) > MOST_ROWS:
        shown = sorted(names, key=lambda name: (-alone.get(name, {}).get("n", 0), name))[:MOST_ROWS]
    columns, rows = _columns(facts, alone, with_others, judged), []
    for name in shown:
        cells = _cells(facts, alone.get(name, {}), with_others.get(name, {}), judged.get(name), columns)
        rows.append([Cell(name), *cells])
    blocks.append(Grid(_caption(facts, columns, len(names)), [Column("annotator"), *columns.values()], rows))
    if alone:
        blocks += [Note(said) for said in (_against(alone, judged), *_caveats(alone, judged)) if said]
    if with_others:
        blocks.append(Note(ADDED_GOLD if facts.open_gold is not None else ADDED))
    return Section(*section, [*blocks, *_panels(facts)])


ASSUMED = (
    "The interval of the estimate without gold covers only which texts were drawn, and holds if annotators err independently "
    "given the true label. LLMs err together, so the estimate tends to be too high, and its interval does not show it."
)
UNLIKE = " It rests on all texts, the share against gold on those with open gold; where the two disagree, trust gold."
ADDED_GOLD = (
    "Lost without it: by how many percentage points the accuracy of the majority of all falls if this annotator is left "
    "out; below zero, the panel is better without it. An interval that holds zero: nobody can tell."
)
ADDED = (
    "Changed without it: the share of texts whose majority changes if this annotator is left out: who is missed, not who "
    "is right."
)

Row = dict[str, Any]
Rows = dict[str, Row]
"""Annotator → its row of a table."""
Judged = dict[str, tuple[float, int, float]]
"""Annotator → accuracy of its valid votes against open gold, how many these are, share of invalid answers."""


def _judged(facts: Facts, names: list[str]) -> Judged:
    votes, gold = facts.table("votes"), facts.open_gold
    if votes is None or gold is None:
        return {}
    found = {}
    for name, mine in asked(votes[votes["annotator"].isin(names)]).groupby("annotator"):
        accuracy, _, n = judge(mine, gold, facts.label_names)
        found[str(name)] = (accuracy, n, float(mine["status"].isin(INVALID).mean()))
    return found


def _order(names: list[str], alone: Rows, judged: Judged) -> list[str]:
    def place(name: str) -> tuple[float, str]:
        value: Any = judged[name][0] if name in judged else alone.get(name, {}).get("accuracy")
        return (1.0 if absent(value) else -float(value), name)

    return sorted(names, key=place)


def _columns(facts: Facts, alone: Rows, with_others: Rows, judged: Judged) -> dict[str, Column]:
    added = "lost without it" if facts.open_gold is not None else "changed without it"
    any_estimate = any(not absent(row["accuracy"]) for row in alone.values())
    return {
        **({"estimate": Column("right, without gold", True)} if any_estimate else {}),
        **({"gold": Column("right, against gold", True), "invalid": Column("invalid answers", True)} if judged else {}),
        **({"added": Column(added, True), "others": Column("agrees with the others", True)} if with_others else {}),
        **({"weakest": Column("knows least well")} if any_estimate else {}),
    }


def _caption(facts: Facts, columns: dict[str, Column], people: int) -> str:
    parts = []
    if "estimate" in columns:
        parts.append(
            f"estimated from the votes on all texts alone, with {P95} intervals that know only the draw of texts"
        )
    if "gold" in columns:
        parts.append(f"held against gold on {facts.open_words}")
    said = "How often the valid votes of each annotator are right: " + ", and ".join(parts) if parts else "Annotators"
    if people > MOST_ROWS:
        said += f"; the {MOST_ROWS} of {count(people)} annotators with the most votes"
    return said


def _cells(
    facts: Facts,
    alone: Row,
    with_others: Row,
    judged: tuple[float, int, float] | None,
    columns: dict[str, Column],
) -> list[Cell]:
    cells = {}
    low, high = alone.get("low"), alone.get("high")
    cells["estimate"] = Cell(percent(alone.get("accuracy")), small=_between(low, high))
    accuracy, n, invalid = judged or (None, 0, None)
    cells["gold"] = Cell(percent(accuracy), small=f"of {count(n)}")
    cells["invalid"] = Cell(percent(invalid))
    added, low, high = (with_others.get(key) for key in ("added", "low", "high"))
    if facts.open_gold is not None:
        spread = "" if absent(low) else f"{points(low, unit=False)} to {points(high, unit=False)}"
        cells["added"] = Cell(points(added), small=spread)
    else:
        cells["added"] = Cell(percent(added), small=_between(low, high))
    cells["others"] = Cell(percent(with_others.get("agreement_with_others")))
    taken = alone.get("taken_for")
    least = f"{percent(alone.get('weakest_accuracy'))} right" + ("" if absent(taken) else f", else mostly “{taken}”")
    cells["weakest"] = Cell(
        words(alone.get("weakest")), small="" if absent(alone.get("weakest")) else least, tone="long"
    )
    return [cells[name] for name in columns]


def _between(low: object, high: object) -> str:
    return "" if absent(low) or absent(high) else f"{percent(low)} to {percent(high)}"


def _against(alone: Rows, judged: Judged) -> str:
    """How far the estimates lie from gold, where they do."""
    gaps = [
        row["accuracy"] - judged[name][0]
        for name, row in alone.items()
        if name in judged and not absent(judged[name][0]) and not absent(row["accuracy"])
    ]
    if len(gaps) < 2 or abs(mean := sum(gaps) / len(gaps)) < FAR:
        return ""
    higher = sum(gap > 0 for gap in gaps)
    who = f"All {len(gaps)} annotators" if higher == len(gaps) else f"{count(higher)} of {len(gaps)} annotators"
    if mean > 0:
        return (
            f"{who} are estimated above what gold says; the mean gap is {points(mean).lstrip('+')}. That happens "
            "where they err together, or where gold is wrong."
        )
    return (
        f"The estimates lie {points(-mean).lstrip('+')} below what gold says on average: the votes tell less than gold."
    )


def _caveats(alone: Rows, judged: Judged) -> list[str]:
    """What must stand beside the estimates, and why some are missing."""
    known = any(not absent(row["accuracy"]) for row in alone.values())
    said = [ASSUMED + (UNLIKE if judged else "")] if known else []
    without = {name: str(row["reason"]) for name, row in alone.items() if not absent(row.get("reason"))}
    if without:
        who = "" if len(without) == len(alone) else f" for {', '.join(without)}"
        said.append(f"There is no estimate without gold{who}: {next(iter(without.values()))}.")
    return said


def _panels(facts: Facts) -> list[Block]:
    """The best panel of each size as a chart and a table, and the sentence that says which is enough."""
    panels, sentence = facts.table("panels"), str(facts.record.get("panel") or "")
    heading = Heading("How small a panel would do")
    if panels is None:
        return [heading, Note(sentence, "absent")] if sentence else []
    panels = panels.sort_values("size")
    against = facts.open_gold is not None
    what = "accuracy" if against else "agreement with all"
    blocks: list[Block] = [heading, *([Note(sentence)] if sentence else [])]
    if len(panels) > 2 and panels["accuracy"].notna().all():
        blocks.append(_figure(facts, panels, what, costs=False))
        if panels["cost"].notna().all():
            blocks.append(_figure(facts, panels, what, costs=True))
    return [*blocks, _grid(facts, panels, what)]


def _enough(panels: pd.DataFrame, row: pd.Series) -> bool:
    """Whether a panel can stand for all; where only all are chosen, none can."""
    return bool(row["is_chosen"]) and row["size"] < panels["size"].max()


def _figure(facts: Facts, panels: pd.DataFrame, what: str, *, costs: bool) -> Figure:
    rows = [
        Panel(
            x=float(1000 * row["cost"] if costs else row["size"]),
            size=int(row["size"]),
            value=float(row["accuracy"]),
            low=float(row["low"]),
            high=float(row["high"]),
            chosen=_enough(panels, row),
        )
        for _, row in panels.iterrows()
    ]
    across = "USD per 1,000 texts (beside each dot: its size)" if costs else "annotators in the panel"
    chosen = any(row.chosen for row in rows)
    caption = (
        f"{what[0].upper()}{what[1:]} of the best panel of each size, over {'its cost' if costs else 'its size'}, with "
        f"{P95} intervals; dashed: all annotators" + ("; diamond: the panel that is enough." if chosen else ".")
    )
    said = "; ".join(f"{row.size}: {percent(row.value)}, {_between(row.low, row.high)}" for row in rows)
    name = "panel-costs" if costs else "panel-sizes"
    return Figure(name, caption, f"{caption} {said}", *panel_curve(name, rows, across, costs=costs))


def _grid(facts: Facts, panels: pd.DataFrame, what: str) -> Grid:
    priced = panels["cost"].notna().any()
    rows = []
    for _, row in panels.iterrows():
        chosen = _enough(panels, row)
        who, full = cut(str(row["annotators"]), NAMES)
        bound = "" if absent(row["loss_high"]) or row["size"] == panels["size"].max() else points(row["loss_high"])
        cells = [
            Cell(count(row["size"]), small="enough" if chosen else "", tone="primary" if chosen else ""),
            Cell(who, full=full),
            Cell(percent(row["accuracy"]), small=_between(row["low"], row["high"])),
            Cell(points(row["loss"]) if bound else MISSING, small=f"at most {bound}" if bound else ""),
        ]
        rows.append([*cells, Cell(dollars(1000 * row["cost"]))] if priced else cells)
    heads = [Column("size"), Column("annotators"), Column(what, True), Column("lost against all", True)]
    judged = f"against gold, on {facts.open_words}" if facts.open_gold is not None else "with the majority of all"
    caption = (
        f"The best panel of each size: {what} of its majority {judged}. Panels are selected on one half of the texts and "
        f"scored on the other, both ways, which tells how well selecting does; “at most” is a one-sided {P95} bound"
    )
    columns = [*heads, *([Column("USD per 1,000 texts", True)] if priced else [])]
    folded = f"The best panels of {count(len(panels))} sizes as a table" if len(panels) > MOST_SIZES else ""
    return Grid(caption, columns, rows, folded=folded, in_markdown=not folded)
