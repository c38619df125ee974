"""consenso beside a raw aiohttp loop and the openai SDK, on one mock server, in one run.

`python benchmarks/annotate/speed.py [--count 30000] [--rounds 5] [--in-flight 64 256] [--latency 0.02]`. In each round
every contender runs once, in a process of its own, in an order that turns; what is printed are medians over the rounds, and
medians of the ratios to the raw loop of the same round, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from contenders import CONTENDERS
from mock_server import MockServer

HERE = Path(__file__).parent
SLOW = {"openai": 10, "openai-aiohttp": 10}
"""These get a tenth of the texts: they take so much longer, and what is measured is a rate."""


def run(name: str, url: str, count: int, in_flight: int) -> dict[str, float]:
    """Return what one contender took."""
    command = [sys.executable, str(HERE / "contenders.py"), name, url, str(count // SLOW.get(name, 1)), str(in_flight)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(rounds: Sequence[dict[str, dict[str, float]]], in_flight: int) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = []
    for name in rounds[0]:
        mine = {key: median(one[name][key] for one in rounds) for key in rounds[0][name] if key != "statuses"}
        cpu, rate = ([one[name][key] / one["raw"][key] for one in rounds] for key in ("cpu_s_1k", "labels_s"))
        lines.append(
            f"| {in_flight} | {name} | {mine['cpu_s_1k']:.2f} | {median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) "
            f"| {mine['labels_s']:,.0f} | {median(rate):.2f} ({min(rate):.2f} to {max(rate):.2f}) "
            f"| {mine['peak_mb']:.0f} | {mine['above_mb']:.0f} |"
        )
    return lines


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30_000, help="texts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--latency", type=float, default=0.02, help="seconds the server takes for a reply")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    said = parser.parse_args()
    if said.contenders[0] != "raw":
        said.contenders = ["raw", *(name for name in said.contenders if name != "raw")]
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ",
        end="",
    )
    print(
        f"{said.count:,} texts, {said.rounds} rounds, replies after {1000 * said.latency:g} ms; openai: a tenth of the texts"
    )
    print(
        "| in flight | contender | CPU s/1k | × raw (range) | labels/s | × raw (range) | peak MB | MB above imports |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with MockServer(process=True, latency=said.latency, record=False, count_keys=False) as server:
        for in_flight in said.in_flight:
            rounds = []
            for number in range(said.rounds):
                shift = number % len(said.contenders)
                turned = [*said.contenders[shift:], *said.contenders[:shift]]
                found = {}
                for name in turned:
                    found[name] = run(name, server.url, said.count, in_flight)
                    server.reset()
                rounds.append({name: found[name] for name in said.contenders})
            print("\n".join(table(rounds, in_flight)), flush=True)


if __name__ == "__main__":
    main()
