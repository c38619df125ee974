"""How many planted copies of test texts the leakage guard finds among training texts, by kind of edit and by length.

`python benchmarks/verdict/leakage.py [--texts 1000] [--data FOLDER] [--search product minhash]`. Of each data set (default:
all below, in FOLDER or $CONSENSO_DATA) up to `--texts` texts of each length are the test part; their edited copies, one at
a time, stand in train among all its other texts. Found means: the copy is to be removed, and the original is named as a
reason. Draws: numpy's default_rng([20261127, edit, data set]). Prints a Markdown table with Wilson's 95 % intervals; one-word edits
replace, insert or delete one word at a random place (new words are drawn from the data set's own).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from consenso.data import find_leaks, load_dataset
from consenso.intervals import wilson

SEED = 20261127
SETS = ("sst5", "babe_llm", "textclass_policy_en", "imdb_llm3", "weather_crowd")
LENGTHS = {"< 150": (0, 149), "≥ 150": (150, 10**9)}
"""Characters of the original."""
Edit = Callable[[str, list[str], np.random.Generator], str]


def exact(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text with white space around it."""
    return f"\n{text}  "


def case(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text in capitals, small letters, or with capitals at the beginnings of words."""
    return (str.upper, str.lower, str.title)[rng.integers(3)](text)


def punctuation(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text with marks and spaces added between its words, and its commas and stops changed."""
    marks = (" - ", " … ", ", ", "  ", "\n", "; ")
    joined = "".join(word + marks[rng.integers(len(marks))] for word in text.split(" "))
    return "“" + joined.replace(",", ";").replace(".", "!") + "”"


def replaced(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text with one word replaced."""
    edited = text.split()
    edited[int(rng.integers(len(edited)))] = words[int(rng.integers(len(words)))]
    return " ".join(edited)


def inserted(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text with one word more."""
    edited = text.split()
    edited.insert(int(rng.integers(len(edited) + 1)), words[int(rng.integers(len(words)))])
    return " ".join(edited)


def deleted(text: str, words: list[str], rng: np.random.Generator) -> str:
    """Return the text without one of its words."""
    edited = text.split()
    del edited[int(rng.integers(len(edited)))]
    return " ".join(edited)


EDITS: dict[str, Edit] = {
    "exact": exact, "case": case, "punctuation": punctuation,
    "one word replaced": replaced, "one word inserted": inserted, "one word deleted": deleted,
}  # fmt: skip


def target(edit: str, length: str) -> float:
    """Return the recall that is asked for."""
    if not edit.startswith("one word"):
        return 1.0
    return 0.95 if length == "≥ 150" else 0.75


def recall(texts: list[str], others: list[str], edit: Edit, rng: np.random.Generator, search: str) -> tuple[int, int]:
    """Return how many edited copies among other training texts are found beside their originals, and of how many."""
    words = [word for text in texts for word in text.split()]
    copies = [edit(text, words, rng) for text in texts]
    frame = pd.DataFrame(
        {
            "text_id": [
                f"{kind}{i}" for kind, rows in (("t", texts), ("c", copies), ("o", others)) for i in range(len(rows))
            ],
            "text": [*texts, *copies, *others],
        }
    )
    parts = {text_id: "test" if text_id[0] == "t" else "train" for text_id in frame["text_id"]}
    leaks = find_leaks(frame, parts, search=search)
    found = set(zip(leaks["text_id"], leaks["other_id"]))
    return sum((f"c{i}", f"t{i}") in found for i in range(len(texts))), len(texts)


def measure(folder: Path, n: int, search: str) -> pd.DataFrame:
    """Return edit, length, data, n, found: one row per edit, length and data set that has texts of that length."""
    rows = []
    for s, name in enumerate(SETS):
        path = folder / name / "items.csv.gz"
        if not path.exists():
            sys.stderr.write(f"{path} is not there: left out\n")
            continue
        texts = load_dataset(path).drop_duplicates("text")["text"]
        for length, (least, most) in LENGTHS.items():
            rng = np.random.default_rng([SEED, s])
            fitting = texts[texts.str.len().between(least, most)]
            chosen = fitting.iloc[rng.permutation(len(fitting))[:n]]
            others = texts.drop(chosen.index).tolist()
            for e, (edit, deed) in enumerate(EDITS.items()):
                if len(chosen):
                    found, total = recall(chosen.tolist(), others, deed, np.random.default_rng([SEED, e, s]), search)
                    rows.append((edit, length, name, total, found))
    return pd.DataFrame(rows, columns=["edit", "length", "data", "n", "found"])


def line(edit: str, length: str, data: str, rows: pd.DataFrame) -> str:
    """Return a line of the table; `rows` has n and found, one row per search."""
    n, found, asked = int(rows["n"].iloc[0]), rows["found"].tolist(), target(edit, length)
    cells = [f"{count / n:.4f} [{low:.4f}, {high:.4f}]" for count in found for low, high in [wilson(count, n)]]
    reached = "yes" if min(found) / n >= asked else "no"
    return f"| {edit} | {length} | {data} | {n:,} | {' | '.join(cells)} | {asked:g} | {reached} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CONSENSO_DATA", "../shared/data")))
    parser.add_argument("--search", nargs="+", default=["product", "minhash"], choices=["product", "minhash"])
    chosen = parser.parse_args()
    table = pd.concat([measure(chosen.data, chosen.texts, search).assign(search=search) for search in chosen.search])
    together = table.groupby(["search", "edit", "length"], sort=False)[["n", "found"]].sum().reset_index()
    table = pd.concat([table, together.assign(data="**all**")])
    print(
        f"| edit | characters | data | n | {' | '.join(f'recall, {name} [95 %]' for name in chosen.search)} | asked | reached |"
    )
    print("|---" * (6 + len(chosen.search)) + "|")
    for edit in EDITS:
        for length in LENGTHS:
            mine = table[(table["edit"] == edit) & (table["length"] == length)]
            for data, rows in mine.groupby("data", sort=False):
                print(line(edit, length, str(data), rows))
    print(f"\nCPU {time.process_time():.0f} s")


if __name__ == "__main__":
    main()
