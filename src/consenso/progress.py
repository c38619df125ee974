"""Show a run's progress on stderr: a live line in a terminal, a plain line per event elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def showing() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield the callback that draws the events of `experiment.run`."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:

        def draw(event: dict[str, Any]) -> None:
            line = describe(event)
            if event["event"] == "advance":
                status.update(line)
            elif line:
                console.print(line, highlight=False)
                status.update(f"{event['stage']} …")

        yield draw


class Lines:
    """Print one line per event, but at most one every five seconds while a stage advances."""

    def __init__(self, every: float = 5.0) -> None:
        self._every = every
        self._last = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Print the event, if it is worth a line now."""
        now = time.monotonic()
        if event["event"] == "advance" and now - self._last < self._every and event.get("done") != event.get("total"):
            return
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
    if event["event"] == "advance":
        what = "trainings" if event["step"] == stage else "texts prepared"
        return f"{stage:<10} {event['student']}: {event['done']}/{event['total']} {what}, {event['seconds']:.0f} s"
    return ""
