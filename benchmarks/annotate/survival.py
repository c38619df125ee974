"""What a kill, twenty kills, and a bad endpoint cost: answers lost, answers paid for twice, texts without a label.

`python benchmarks/annotate/survival.py [--count 3000] [--kills 20]`. Killed at half (kill -9) and started again, beside a raw
aiohttp loop and the openai SDK, which keep nothing until their end; then consenso alone at random moments; then all three at
an endpoint that answers 15 % by 429, 5 % by 500, drops 2 % and says something invalid in 5 %.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mock_server import MockServer

from consenso.annotate.logreading import LogReader

HERE = Path(__file__).parent
CONTENDERS = ("raw", "openai", "consenso")
BAD = {"rate_429": 0.15, "rate_500": 0.05, "rate_drop": 0.02, "rate_invalid": 0.05, "retry_after": 0.2}
IN_FLIGHT = 32


def command(name: str, server: MockServer, count: int, log: Path) -> list[str]:
    """Return the command of a contender; consenso keeps its vote log, the others have none."""
    kept = [str(log)] if name == "consenso" else []
    return [sys.executable, str(HERE / "contenders.py"), name, server.url, str(count), str(IN_FLIGHT), *kept]


def kill_after(arguments: list[str], server: MockServer, answered: int) -> None:
    """Start a contender and kill it (SIGKILL) once the server has answered so often."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and server.stats["answered"] < answered:
        time.sleep(0.002)
    process.kill()
    process.wait()


def finish(arguments: list[str]) -> dict[str, Any]:
    """Run a contender to its end; return what it says, or its error."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().split("\n")[-1][:160]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def answers(log: Path) -> dict[str, str]:
    """Return text → label in a vote log."""
    if not log.exists():
        return {}
    with LogReader(log) as reader:
        return dict(reader.read("SELECT text_id, label FROM answers WHERE label IS NOT NULL"))


def killed_at_half(count: int, folder: Path) -> None:
    """Print what each pays twice when it is killed at half."""
    print(f"\nKilled at half of {count:,} texts, {IN_FLIGHT} in flight, and started again:\n")
    print("| contender | answered twice by the server |\n|---|---|")
    for name in CONTENDERS:
        with MockServer(process=True, latency=0.02, record=False, count_keys=True) as server:
            arguments = command(name, server, count, folder / "half.sqlite")
            kill_after(arguments, server, count // 2)
            said = finish(arguments)
            assert "error" not in said, said
            print(f"| {name} | {server.stats['answered_more_than_once']:,} |", flush=True)


def killed_often(count: int, kills: int, folder: Path) -> None:
    """Print what consenso loses and pays twice when it is killed at random moments."""
    log, draw, kept, lost = folder / "often.sqlite", random.Random(0), {}, 0
    with MockServer(process=True, latency=0.02, record=False, count_keys=True) as server:
        arguments = command("consenso", server, count, log)
        for _ in range(kills):
            kill_after(arguments, server, server.stats["answered"] + draw.randint(1, 2 * count // kills))
            now = answers(log)
            lost += sum(now.get(text) != label for text, label in kept.items())
            kept = now
        finish(arguments)
        twice = sum(number - 1 for number in server.asked.values() if number > 1)
        again = sum(number > 1 for text, number in server.asked.items() if text in kept)
        with LogReader(log) as reader:
            statement = reader.ledger().statement
    print(
        f"\nKilled at {kills} random moments of {count:,} texts, {IN_FLIGHT} in flight: {len(answers(log)):,} answers at the end, "
    )
    print(
        f"{lost} committed ones lost, {again} committed ones asked again, {twice} requests more than texts; the ledger: {statement}"
    )


def on_a_bad_endpoint(count: int, folder: Path) -> None:
    """Print what becomes of every text where much goes wrong."""
    print(f"\n{count:,} texts at a bad endpoint (15 % 429, 5 % 500, 2 % dropped, 5 % invalid):\n")
    print("| contender | ends with | requests |\n|---|---|---|")
    for name in CONTENDERS:
        with MockServer(process=True, latency=0.02, record=False, **BAD) as server:
            said = finish(command(name, server, count, folder / "bad.sqlite"))
            what = said.get("error") or ", ".join(f"{number:,} {status}" for status, number in said["statuses"].items())
            print(f"| {name} | {what} | {server.stats['received']:,} |", flush=True)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3_000, help="texts")
    parser.add_argument("--kills", type=int, default=20)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed_at_half(said.count, Path(folder))
        killed_often(said.count, said.kills, Path(folder))
        on_a_bad_endpoint(said.count, Path(folder))


if __name__ == "__main__":
    main()
