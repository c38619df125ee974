"""One contender, one job, one line of JSON: put `count` texts to the mock server with `in_flight` requests under way.

`python contenders.py {raw,openai,openai-aiohttp,consenso} URL COUNT IN_FLIGHT [VOTE_LOG]`. CPU and wall time are net of start-up: the
clock starts when everything is imported. Memory is what the process holds at its peak, above what it held then.
All send the same messages and read the same replies; only consenso keeps them (in a vote log, durably).
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

LABELS = ("negative", "neutral", "positive")
SYSTEM = "You are an expert annotator. " * 10
OPENING = "Answer with one of the labels and nothing else: " + ", ".join(LABELS)


def make_texts(count: int) -> list[str]:
    """Return short texts, each with a number of its own."""
    return [f"this is text number {n} about a film that was rather good, all in all" for n in range(count)]


def messages(text: str) -> list[dict[str, str]]:
    """Return what the loops send; consenso's own prompt comes to the same length."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{OPENING}\n\n{text}"}]


Job = Callable[[], Counter[str]]
"""Does the job; returns status → texts."""


def count_labels(said: list[str | None]) -> Counter[str]:
    """Return how many replies are labels; the loops have no other statuses."""
    return Counter("ok" if label in LABELS else "no label" for label in said)


def raw(url: str, texts: list[str], in_flight: int) -> Job:
    """The loop one writes over aiohttp: no retries, no log, no checks. The upper bound."""
    import aiohttp

    async def main() -> Counter[str]:
        waiting, labels = iter(texts), list[str | None]()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

            async def worker() -> None:
                for text in waiting:
                    body = {"model": "mock", "messages": messages(text), "temperature": 0, "max_tokens": 16}
                    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                        answer.raise_for_status()
                        labels.append((await answer.json())["choices"][0]["message"]["content"])

            await asyncio.gather(*(worker() for _ in range(in_flight)))
        return count_labels(labels)

    return lambda: asyncio.run(main())


def openai(url: str, texts: list[str], in_flight: int, *, aiohttp: bool = False) -> Job:
    """The same loop over the openai SDK, with its default transport or its aiohttp one."""
    from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

    async def main() -> Counter[str]:
        waiting, labels = iter(texts), list[str | None]()
        http = DefaultAioHttpClient() if aiohttp else DefaultAsyncHttpxClient()
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="x", http_client=http) as client:

            async def worker() -> None:
                for text in waiting:
                    answer = await client.chat.completions.create(
                        model="mock", messages=messages(text), temperature=0, max_tokens=16
                    )
                    labels.append(answer.choices[0].message.content)

            await asyncio.gather(*(worker() for _ in range(in_flight)))
        return count_labels(labels)

    return lambda: asyncio.run(main())


def consenso(url: str, texts: list[str], in_flight: int) -> Job:
    """`annotate_texts`, from texts to votes: limiter, retries, reply reader, tallies, durable vote log, votes table."""
    import aiohttp  # noqa: F401 - what the job would import first: start-up counts for nobody
    import pandas as pd

    from consenso import LabelSchema, annotate_texts
    from consenso.annotate import LLMAnnotator
    from consenso.annotate.clients import transport  # noqa: F401 - as the job imports it

    frame = pd.DataFrame({"text_id": [f"t{n:07d}" for n in range(len(texts))], "text": texts})
    prompt = SYSTEM + "\n" + OPENING + "\n\n{text}"
    annotator = LLMAnnotator(name="mock", model="lab/mock", prompt=prompt, parameters={"max_tokens": 16})
    endpoints = {"lab": {"base_url": f"{url}/v1", "max_in_flight": in_flight, "structured": "off"}}

    def job() -> Counter[str]:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(sys.argv[5]) if len(sys.argv) > 5 else Path(folder) / "log.sqlite"
            votes = annotate_texts(frame, annotator, LabelSchema.from_names(LABELS), log=log, endpoints=endpoints)
        return Counter(votes["status"])

    return job


CONTENDERS: dict[str, Callable[[str, list[str], int], Job]] = {
    "raw": raw,
    "openai": openai,
    "openai-aiohttp": lambda url, texts, in_flight: openai(url, texts, in_flight, aiohttp=True),
    "consenso": consenso,
}


def resident_mb() -> float:
    """Return the memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run one contender and print what it took."""
    name, url, count, in_flight = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    job = CONTENDERS[name](url, make_texts(count), in_flight)
    gc.collect()
    held, cpu, started = resident_mb(), time.process_time(), time.perf_counter()
    statuses = job()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    if statuses.total() != count:
        raise SystemExit(f"{name}: {statuses.total()} of {count} texts have a status")
    found = {
        "cpu_s_1k": cpu / count * 1000,
        "labels_s": count / wall,
        "peak_mb": peak_mb(),
        "above_mb": peak_mb() - held,
    }
    print(json.dumps({**found, "statuses": statuses}))


if __name__ == "__main__":
    main()
