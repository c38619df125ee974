"""What experiment.toml may say about votes: embedded annotators, and votes that exist already."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from consenso.settings import Settings


class EmbeddingAnnotator(Settings):
    """A zero-shot annotator: the label whose wording lies nearest to the text in an encoder's embedding."""

    name: str = Field(min_length=1)
    """The annotator's name in the votes."""
    kind: Literal["embedding"] = "embedding"
    """How it votes."""
    encoder: str = "embedded"
    """The encoder: "embedded" (MiniLM, ships with the demo extra), a local folder or a hub id."""
    descriptions: dict[str, str | list[str]] = Field(default_factory=dict)
    """Label name → one wording or several; a label that is not listed uses its description, else its name."""
    template: str = "{}"
    """What is embedded for a wording; {} stands for the wording, for example "This text is about {}."."""
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    """Abstain where the confidence is below this; none by default."""

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if "{}" not in template:
            raise ValueError("the template needs {}, the place of the wording")
        return template

    @field_validator("descriptions")
    @classmethod
    def _has_words(cls, descriptions: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for label, wording in descriptions.items():
            wordings = [wording] if isinstance(wording, str) else wording
            if not wordings or not all(one.strip() for one in wordings):
                raise ValueError(f"label {label!r} has an empty wording; write one or leave the label out")
        return descriptions


class VoteColumns(Settings):
    """Which columns of a file hold what; a name that is left out means the conventional ones."""

    text_id: str | None = None
    """The text's id: text_id or id; a file without one but with `text` is joined by the text's own hash."""
    annotator: str | None = None
    """Who voted, in a long table: annotator, llm, model or worker."""
    repetition: str | None = None
    """Which repetition (a whole number), in a long table: repetition or rep; 0 where there is none."""
    label: str | None = None
    """The vote, in a long table: label, annotation or vote."""
    confidence: str | None = None
    """The vote's confidence, in a long table: confidence or conf."""


class VoteImport(Settings):
    """Votes that exist already: a file, or a run folder of the earlier system."""

    source: str
    """CSV, TSV, JSONL, JSON, Parquet, xlsx (each also .gz), a run folder of the earlier system or of consenso."""
    layout: Literal["auto", "long", "wide", "earlier"] = "auto"
    """long: a row per vote; wide: a column per annotator or <annotator>_rep<r>; earlier: the earlier system's files."""
    columns: VoteColumns = VoteColumns()
    """Which columns hold what, where the names are not the conventional ones."""
    annotators: list[str] = Field(default_factory=list)
    """The panel: only these annotators are read; empty: all."""
    repetitions: list[int] = Field(default_factory=list)
    """Only these repetitions are read; empty: all."""
    where: dict[str, str | int | list[str | int]] = Field(default_factory=dict)
    """Column → value or values: only these rows of the file are read."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Value in the file → label name, where the value is neither a label's name nor its id."""
    abstain: list[str] = Field(default_factory=list)
    """Values that mean "I do not say"; "" stands for an empty cell."""
    blank: Literal["unparsable", "absent"] = "unparsable"
    """An empty cell is an unparsable answer, or (absent) no vote at all, as in a wide table of a crowd."""

    @model_validator(mode="after")
    def _one_meaning_each(self) -> Self:
        if both := sorted(set(self.labels) & set(self.abstain)):
            raise ValueError(f"{both[0]!r} stands in both `labels` and `abstain`; choose one")
        return self


class AnnotateSettings(Settings):
    """The section [annotate]: who votes."""

    annotators: list[EmbeddingAnnotator] = Field(default_factory=list)
    """Annotators that are asked in this run."""
    imports: list[VoteImport] = Field(default_factory=list)
    """Votes that exist already."""

    @field_validator("annotators")
    @classmethod
    def _distinct_names(cls, annotators: list[EmbeddingAnnotator]) -> list[EmbeddingAnnotator]:
        names = [annotator.name for annotator in annotators]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two annotators are called {repeated[0]!r}; give each its own name")
        return annotators
