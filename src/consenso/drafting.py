"""`consenso init`: a commented experiment.toml written from a data file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from consenso.annotate import read_votes
from consenso.data import load_dataset, schema_of
from consenso.labels import LabelSchema

if TYPE_CHECKING:
    import pandas as pd

_HEAD = """\
# An experiment of consenso. Every setting with its default: consenso config {file}
# Its JSON Schema, for editors: consenso config {file} --schema

name = {name}

[data]
source = {source}
{columns}
{labels}
"""

_EMBEDDED = """\
# Offline annotators: MiniLM similarity between a text and each label's description. Better descriptions give better votes.
[[annotate.annotators]]
name = "codebook"

[[annotate.annotators]]
name = "about"
template = "This text is about {}."

[[annotate.annotators]]
name = "example"
template = "A typical example of {}."

# LLMs instead: any OpenAI-compatible or Ollama endpoint. Look at the costs first: consenso annotate --plan
# [[annotate.annotators]]
# name = "qwen"
# model = "ollama/qwen3:8b"        # or groq/…, openai/…, vllm/…; keys come from the environment or from .env
# noun = "text"                    # what a text is called in the prompt

# Votes that exist already (LLMs, crowd workers), as a long or wide table:
# [[annotate.imports]]
# source = "votes.csv"
"""

_IMPORT = """\
[[annotate.imports]]
source = {source}
# annotators = ["…"]             # keep only these
# where = {{ prompt = "simple" }}  # keep only rows whose column holds this value
"""

_TAIL = """\
[consensus]
method = "dawid_skene_map"       # or majority, weighted, unanimous, threshold, … (docs/consensus.md)
ties = "undecided"               # or "random" (seeded)

[finetune]
students = ["frozen"]            # frozen (embeddings once, linear head), linear (TF-IDF), encoder (fine-tuned),
                                # contrastive (encoder tuned on pairs, then a linear head; tiny data)
arms = ["gold", "gold-aligned", "consensus", "consensus-kept", "consensus-random", "floor"]
seeds = 10                       # paired seeds; one seed never yields a verdict

# [finetune.recipe]
# encoder = "roberta-base"       # any Hugging Face encoder or a local folder; default: the embedded MiniLM

[compare]
metric = "macro_f1"              # or "accuracy"
margin = 0.02                    # declared before anything is scored: differences within it count as equivalent
"""


def draft(data: Path, *, votes: Path | None, columns: Mapping[str, str | None], beside: Path) -> tuple[str, str]:
    """Return the text of an experiment.toml for a data file, and one line that says what was found.

    Raises `DataError` where the file cannot be read or lacks a column.
    """
    given = {name: column for name, column in columns.items() if column}
    texts = load_dataset(data, columns=given)
    has_gold = texts["gold"].notna().any()
    schema = schema_of(texts) if has_gold else None
    if votes is not None and schema is not None:
        read_votes(votes, schema, texts=texts)
    used = {name: column for name, column in texts.attrs["record"]["columns"].items() if column}
    text = _HEAD.format(
        file=beside.name,
        name=json.dumps(data.name.split(".")[0], ensure_ascii=False),
        source=_path(data, beside),
        columns="columns = { "
        + ", ".join(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in used.items())
        + " }",
        labels=_labels(schema),
    )
    text += _EMBEDDED if votes is None else _IMPORT.format(source=_path(votes, beside))
    return text + "\n" + _TAIL, _summary(texts, schema)


def _path(path: Path, beside: Path) -> str:
    """A TOML string for the path, relative to the experiment file where both are on one drive."""
    if not path.exists():  # a catalogue name or a hub id
        return json.dumps(str(path).replace(os.sep, "/"))
    try:
        relative = os.path.relpath(path.resolve(), beside.resolve().parent)
    except ValueError:
        relative = str(path.resolve())
    return json.dumps(Path(relative).as_posix(), ensure_ascii=False)


def _labels(schema: LabelSchema | None) -> str:
    if schema is None:
        return '\n# No gold column was found, so the labels cannot be read from the data: name them.\n# [[data.labels]]\n# name = "…"\n'
    blocks = [
        f"[[data.labels]]\nid = {r['id']}\nname = {json.dumps(r['name'], ensure_ascii=False)}\n"
        f"description = {json.dumps(r['description'] or r['name'], ensure_ascii=False)}"
        for r in schema.as_records()
    ]
    return (
        "\n# The descriptions are what offline annotators and prompts read: say what each label means.\n"
        + "\n".join(blocks)
        + "\n"
    )


def _summary(texts: pd.DataFrame, schema: LabelSchema | None) -> str:
    gold = int(texts["gold"].notna().sum())
    labels = f"{len(schema)} labels" if schema else "no gold labels: a verdict will need some on the test texts"
    return f"{len(texts):,} texts, {gold:,} with gold, {labels}"
