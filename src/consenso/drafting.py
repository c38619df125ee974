"""`consenso init`: a commented experiment.toml written from a data file."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consenso.annotate import read_votes
from consenso.annotate.counting import INVALID_LIMIT
from consenso.annotate.imported import check_vote_ids
from consenso.annotate.settings import VoteImport
from consenso.data import Loaded, read_dataset
from consenso.data.catalog import find_entry
from consenso.errors import ConfigError
from consenso.experiment_file import Experiment, run_name, with_changes
from consenso.labels import LabelSchema
from consenso.preconditions import few_test_texts, need_valid_votes
from consenso.tables import TEXTS

if TYPE_CHECKING:
    import pandas as pd

_HEAD = """\
# An experiment of consenso. Every setting with its default: consenso config {file}
# Its JSON Schema, for editors: consenso config {file} --schema

name = {name}

[data]
source = {source}
columns = {columns}
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
# labels = {{ {pairs} }}  # value in the file → label, where votes are not the labels' names
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


@dataclass(frozen=True)
class Draft:
    """A file that `init` would write."""

    text: str
    """The experiment.toml."""
    summary: str
    """One line that says what was found."""
    warnings: list[str] = field(default_factory=list)
    """What the user should look at before a run."""


def draft(
    data: Path, *, votes: Path | None, columns: Mapping[str, str | None], beside: Path, changes: Sequence[str] = ()
) -> Draft:
    """Return the experiment.toml for a data file, what was found, and what to look at.

    `changes`: `section.key=value` to write into it; `annotate.imports.key` means the import of `votes`.
    Raises `DataError` where a file cannot be read, lacks a column or holds no votes for these texts and labels,
    `ConfigError` for a wrong change.
    """
    asked = _asked(data, votes, columns, changes)
    settings = Experiment.read(asked, "--set")
    loaded = read_dataset(settings.data)
    warnings = _look_at_columns(loaded)
    if votes is not None:
        warnings += _look_at_votes(votes, settings.annotate.imports[0], loaded)
    warnings += few_test_texts(loaded.texts, settings)
    text = _written(data, votes, loaded, asked, beside)
    Experiment.read(tomllib.loads(text), "--set")
    return Draft(text, _summary(loaded.texts, loaded.labels), warnings)


def for_init(message: str) -> str:
    """Return an error of reading with the keys that it names as options of init."""
    for pattern, words in _IN_OPTIONS:
        message = re.sub(pattern, words, message)
    message = _OF_IMPORT.sub(_import_option, message)
    return f"{message} ({_NOTHING_WRITTEN})"


def _import_option(found: re.Match[str]) -> str:
    value = found[2].replace("'", '"')  # single quotes hold the option together in a shell
    return f"--set 'annotate.imports.{found[1]}={value}'"


_OF_IMPORT = re.compile(r"\b(annotators|where) = (\[.*?\]|\{.*?\})")
_NOTHING_WRITTEN = "nothing was written; init takes columns as --text, --gold, --id, --split and any other key as --set SECTION.KEY=VALUE"
_IN_OPTIONS = (
    (r"Set data\.columns\.(text|gold|split)\b", r"Name it with --\1"),
    (r"Set data\.columns\.text_id\b", "Name it with --id"),
    (r'set data\.columns\.text_id = ""', "use none with --set data.columns.text_id="),
    (r"(?<!-)set data\.columns\.text_id\b", "name one with --id"),
    (r'set data\.empty_texts = "drop"', "drop them with --set data.empty_texts=drop"),
    (r"name both in \[\[data\.labels\]\]", """name both with --set 'data.labels=[{name="…"}, {name="…"}]'"""),
    (r", or give each label its id in \[\[data\.labels\]\]", ""),
    (r"labels = \{ (.*?) \} in \[\[annotate\.imports\]\]", r"--set 'annotate.imports.labels={\1}'"),
    (r"columns = \{(.*?)\}", r"--set 'annotate.imports.columns={\1}'"),
)
"""How a message says what to set → how init takes it."""


def _asked(data: Path, votes: Path | None, columns: Mapping[str, str | None], changes: Sequence[str]) -> dict[str, Any]:
    """What options and changes ask for, as the sections of an experiment."""
    asked = with_changes({}, changes)
    of_data = asked.setdefault("data", {})
    source = str(data)
    of_data["source"] = f"./{source}" if find_entry(source) else source  # a path is never a name of the catalogue
    of_data["columns"] = of_data.get("columns", {}) | {k: v for k, v in columns.items() if v is not None}
    of_annotate = asked.setdefault("annotate", {})
    if "annotators" in of_annotate:
        raise ConfigError("--set annotate.annotators: write annotators into the file that init makes")
    imported = of_annotate.pop("imports", {})
    if imported and votes is None:
        raise ConfigError("--set annotate.imports: there is no import; name the votes with --votes FILE")
    if votes is not None:
        of_annotate["imports"] = [{**imported, "source": str(votes)}]
    return asked


# what was found


def _look_at_columns(loaded: Loaded) -> list[str]:
    """Say which columns nothing was made of, where gold is missing."""
    if loaded.texts["gold"].notna().any():
        return []
    unused = _unused(loaded)
    column = loaded.record["columns"].get("gold")
    said = f"column {column!r} (gold) is empty" if column else "no column of human labels was found"
    if unused:
        said += f"; columns not used: {', '.join(map(repr, unused))}. Name the human labels with --gold"
        said += "" if "text_id" in loaded.record["columns"] else " and the ids with --id"
    return [said]


def _unused(loaded: Loaded) -> list[str]:
    return [str(name) for name in loaded.texts.columns if name not in TEXTS.columns]


def _look_at_votes(votes: Path, settings: VoteImport, loaded: Loaded) -> list[str]:
    """Refuse votes that belong to no text or mean no label; say where many mean none."""
    if loaded.labels is None:
        check_vote_ids(votes, loaded.texts, settings=settings)
        return []
    found = read_votes(votes, loaded.labels, settings=settings, texts=loaded.texts)
    need_valid_votes(found)
    strange = found.loc[found["status"] == "invalid_label", "reply"]
    if len(strange) <= INVALID_LIMIT * len(found):
        return []
    shown = ", ".join(map(repr, strange.value_counts().index[:3]))
    return [
        f"{len(strange):,} of {len(found):,} votes are none of the labels (such as {shown}) and will count for nothing; "
        "if they mean labels, say which in the line `labels` of [[annotate.imports]]"
    ]


def _summary(texts: pd.DataFrame, schema: LabelSchema | None) -> str:
    gold = int(texts["gold"].notna().sum())
    labels = f"{len(schema)} labels" if schema else "no gold labels: a verdict will need some on the test texts"
    return f"{len(texts):,} texts, {gold:,} with gold, {labels}"


# the file


def _written(data: Path, votes: Path | None, loaded: Loaded, asked: dict[str, Any], beside: Path) -> str:
    of_data, of_annotate = asked["data"], asked["annotate"]
    columns = {k: v for k, v in loaded.record["columns"].items() if v}
    columns |= {k: v for k, v in of_data["columns"].items() if v == ""}
    stem = beside.stem if beside.stem != "experiment" else data.name.split(".")[0]
    name = _toml(asked.get("name", run_name(stem)))
    text = _HEAD.format(
        file=beside.name, name=name, source=_path(data, beside), columns=_toml(columns), labels=_labels(loaded)
    )
    names = list(loaded.labels or ())[:4] or ["…", "…"]
    pairs = ", ".join(f'"…" = {_toml(name)}' for name in names)
    text += _EMBEDDED if votes is None else _IMPORT.format(source=_path(votes, beside), pairs=pairs)
    text += "\n" + _TAIL
    further = {k: v for k, v in of_data.items() if k not in {"source", "columns", "labels"}}
    text = _with_keys(text, "[data]", further)
    for imported in of_annotate.get("imports", []):
        text = _with_keys(text, "[[annotate.imports]]", {k: v for k, v in imported.items() if k != "source"})
    text = _with_keys(text, "[annotate]", {k: v for k, v in of_annotate.items() if k != "imports"})
    for section, values in asked.items():
        if section not in {"name", "data", "annotate"}:
            text = _with_keys(text, f"[{section}]", values)
    return text


def _with_keys(text: str, header: str, values: Mapping[str, Any]) -> str:
    """Write keys into a section, each in place of its line (also one that is commented out) or at the section's end."""
    if not values:
        return text
    before, found, rest = text.partition(f"\n{header}\n")
    if not found:
        return f"{text}\n{header}\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
    section, blank, after = rest.rstrip("\n").partition("\n\n")
    lines = section.split("\n")
    for key, value in values.items():
        place = next((i for i, line in enumerate(lines) if re.match(rf"(# )?{re.escape(key)} = ", line)), len(lines))
        lines[place : place + 1] = [f"{key} = {_toml(value)}"]
    return before + found + "\n".join(lines) + blank + after + "\n"


def _toml(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(key))} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _path(path: Path, beside: Path) -> str:
    """A TOML string for the path, relative to the experiment file where both are on one drive."""
    if not path.exists():  # a catalogue name or a hub id
        return json.dumps(str(path).replace(os.sep, "/"))
    try:
        relative = os.path.relpath(path.resolve(), beside.resolve().parent)
    except ValueError:
        relative = str(path.resolve())
    return json.dumps(Path(relative).as_posix(), ensure_ascii=False)


def _labels(loaded: Loaded) -> str:
    """The blocks of the labels; ids stand there only where the data or the user gave them."""
    schema = loaded.labels
    if schema is None:
        unused = _unused(loaded)
        others = f" Columns not used: {', '.join(map(_toml, unused))}." if unused else ""
        return (
            f'\n# No gold column was found: name it above (gold = "…"), or name the labels.{others}\n'
            '# [[data.labels]]\n# name = "…"\n'
        )
    blocks = [
        "[[data.labels]]\n"
        + (f"id = {r['id']}\n" if schema.ids_given else "")
        + f"name = {_toml(r['name'])}\ndescription = {_toml(r['description'] or r['name'])}"
        for r in schema.as_records()
    ]
    return (
        "\n# The descriptions are what offline annotators and prompts read: say what each label means.\n"
        + "\n".join(blocks)
        + "\n"
    )
