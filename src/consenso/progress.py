"""Show a run's progress on stderr: a live table or line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

COLUMNS = ("annotator", "done", "rate", "invalid", "429", "cost", "agrees", "left")
"""Of the table of annotators."""


@contextlib.contextmanager
def showing() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield the callback that draws the events of `experiment.run`."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def draw(event: dict[str, Any]) -> None:
            line = describe(event)
            if event["event"] == "advance":
                live.update(_table(event) if event["step"] == "answers" else line)
            else:
                live.update("" if event["event"] == "end" else f"{event['stage']} …")
                if line:
                    console.print(line, highlight=False)

        yield draw


def show_annotators() -> Callable[[dict[str, Any]], None]:
    """Return a `progress` for `annotate_texts`: a live table in a notebook or terminal."""
    from rich.console import Console

    console, last = Console(), [0.0]

    def draw(state: dict[str, Any]) -> None:
        if time.monotonic() - last[0] >= 2:
            last[0] = time.monotonic()
            console.clear()
            console.print(_table(state))

    return draw


class Lines:
    """Print one line per event, but at most one every five seconds (ten while annotators answer) while a stage advances."""

    def __init__(self, every: float = 5.0) -> None:
        self._every = every
        self._last = time.monotonic()
        self._alarms = 0

    def __call__(self, event: dict[str, Any]) -> None:
        """Print the event, if it is worth a line now."""
        now = time.monotonic()
        answers = event.get("step") == "answers"
        pause = 2 * self._every if answers else self._every
        news = answers and len(event["alarms"]) > self._alarms
        done = not answers and event.get("done") == event.get("total")
        begins = event.get("step") == "steps" and event["done"] == 0
        if event["event"] == "advance" and now - self._last < pause and not done and not news and not begins:
            return
        if answers:
            self._alarms = len(event["alarms"])
        self._last = now
        if line := describe(event):
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this module is the door's mouth


def describe(event: dict[str, Any]) -> str:
    """Return the line for an event, or '' where nothing is worth saying."""
    stage = event["stage"]
    if event["event"] == "reuse":
        return f"{stage:<10} unchanged"
    if event["event"] == "end":
        return f"{stage:<10} done in {event['seconds']:.1f} s"
    return f"{stage:<10} {_advance(event)}" if event["event"] == "advance" else ""


def _advance(event: dict[str, Any]) -> str:
    step, seen = event["step"], f"{event.get('done', 0):,}/{event.get('total', 0):,}"
    if step == "answers":
        return _answers(event)
    if step == "specifications":
        return f"{seen} specifications"
    if step == "steps":
        if (score := event["dev_macro_f1"]) is None:
            goes_on = ", going on from where it was cut off" if event["resumes"] else ""
            return f"{event['student']}: {event['total']:,} steps{goes_on}"
        return f"{event['student']}: step {seen}, dev macro-F1 {score:.3f}, {event['seconds']:.0f} s"
    what = "trainings" if step == event["stage"] else "texts prepared"
    return f"{event['student']}: {event['done']}/{event['total']} {what}, {event['seconds']:.0f} s"


def _answers(event: dict[str, Any]) -> str:
    """All annotators in one line; alarms and those given up by name."""
    rows = event["annotators"]
    done, total, rate = (sum(row[name] for row in rows) for name in ("done", "total", "rate"))
    eta = max((row["eta_s"] for row in rows if row["eta_s"] and not row["down"]), default=None)
    parts = [f"{done:,}/{total:,} answers", f"{rate:.1f}/s"]
    if eta is not None:
        parts.append(f"{duration(eta)} left")
    if event["spent"]:
        of = f" of {event['budget']:g}" if event["budget"] is not None else ""
        parts.append(f"{event['spent']:.4f}{of} USD")
    invalid = sum(row["invalid_rate"] * (row["done"] - row["kept"]) for row in rows if row["invalid_rate"])
    if invalid:
        parts.append(f"{invalid:.0f} invalid")
    if limited := sum(row["rate_limited"] for row in rows):
        parts.append(f"{limited} × too fast (429)")
    if event["stopping"]:
        parts.append(f"stopping ({event['stopping']}): waiting for answers under way")
    waits = max((row.get("waits_s", 0) for row in rows), default=0)
    if waits > 5:
        parts.append(f"asked to wait {waits:.0f} s")
    parts += [f"{row['annotator']} given up" for row in rows if row["down"]]
    parts += [f"{name} {kind}" for name, kind, _ in event["alarms"]]
    return ", ".join(parts)


def _table(event: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "annotator" else "right", no_wrap=True)
    alarms: dict[str, list[str]] = {}
    for name, kind, _ in event["alarms"]:
        alarms.setdefault(name, []).append(kind)
    for row in event["annotators"]:
        said = "given up" if row["down"] else ", ".join(alarms.get(row["annotator"], []))
        table.add_row(
            row["annotator"] + (f"  [red]{said}[/red]" if said else ""), f"{row['done']:,}/{row['total']:,}", f"{row['rate']:.1f}/s",
            _percent(row["invalid_rate"]), str(row["rate_limited"] or "–"), f"{row['cost']:.4f}" if row["cost"] else "–",
            _percent(row["agreement"]), duration(row["eta_s"]) if row["eta_s"] else "–",
        )  # fmt: skip
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """Return seconds as a short text: 45 s, 12 min, 2.3 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
