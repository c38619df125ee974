"""What experiment.toml may say about votes: the section [annotate], and votes that exist already."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from consenso.annotate.annotators import AnyAnnotator, checked_url
from consenso.settings import Settings


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


class EndpointSettings(Settings):
    """A server of yours, or another way to use a known provider; `model = "NAME/…"` then means it."""

    base_url: str | None = None
    """Up to and with /v1; default: the known provider's."""
    protocol: Literal["openai", "ollama"] | None = None
    """Chat completions, or Ollama's own API."""
    key_env: str | None = None
    """Environment variable (or line of .env) that holds the API key."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further request headers; ${NAME} in a value stands for an environment variable."""
    max_in_flight: int | None = Field(default=None, ge=1, le=10_000)
    """Requests under way at once, at most; the limiter finds its own way below it."""
    rpm: float | None = Field(default=None, gt=0)
    """Requests a minute, where the server does not say so itself."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens a minute, prompt and reply together."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds to wait for a whole reply; default 120."""
    patience_s: float | None = Field(default=None, ge=0)
    """Seconds without any answer, while every request fails, until the endpoint counts as down; default 300."""
    structured: Literal["json_schema", "off", "ask"] | None = None
    """Whether replies can be bound to the labels; ask: find out with one request."""
    logprobs: bool | None = None
    """Whether token probabilities can be asked for."""
    local: bool | None = None
    """True: costs nothing, and one model is asked at a time."""
    parameters: list[str] | None = None
    """Parameters that this server reads beyond the common ones."""
    batch: bool | None = None
    """Whether it takes batch files."""

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return checked_url(url)


class SettleSettings(Settings):
    """Stop asking about a text when further votes can change nothing. Annotators are then asked in the order listed."""

    when: Literal["decided", "posterior"] = "decided"
    """decided: no possible further votes change the majority; posterior: its probability passes `posterior`."""
    posterior: float = Field(default=0.98, gt=0.5, lt=1)
    """The probability that is enough, from the annotators' accuracies as their agreement suggests them."""
    at_least: int = Field(default=2, ge=1)
    """Annotators that every text is put to in any case."""


class CandidateSettings(Settings):
    """Two phases: a light classifier narrows the labels to k per text before the LLMs are asked."""

    k: int = Field(default=3, ge=1)
    """Labels that each text keeps; 1 is the light classifier alone."""
    train: int | None = Field(default=None, ge=10)
    """Train texts whose gold the classifier may use (they then count as human labels); default: a tenth, 100 to 1,000."""
    folds: int = Field(default=5, ge=2)
    """Folds in which the classifier's own texts get their candidates."""
    seed: int = 0
    """Draws the texts and the folds."""
    report_k: list[int] = Field(default_factory=lambda: [1, 2, 3, 4, 5])
    """The k for which recall is reported."""


Part = Literal["train", "dev", "test"]
Retried = Literal["failed", "truncated", "refused", "unparsable", "invalid_label"]
_PARTS: tuple[Part, ...] = ("train", "dev", "test")
_RETRIED: tuple[Retried, ...] = ("failed",)


class AnnotateSettings(Settings):
    """The section [annotate]: who votes."""

    annotators: list[AnyAnnotator] = Field(default_factory=list)
    """Annotators that are asked in this run."""
    imports: list[VoteImport] = Field(default_factory=list)
    """Votes that exist already."""
    endpoints: dict[str, EndpointSettings] = Field(default_factory=dict)
    """Servers of yours by name, or changed settings of a known provider."""
    log: str | None = None
    """The vote log, where several runs should share one; default: votelog.sqlite in the run folder."""
    budget: float | None = Field(default=None, ge=0)
    """USD that all answers of this vote log together may cost; what is under way is reserved beforehand."""
    parts: list[Part] = Field(default_factory=lambda: list(_PARTS))
    """Which texts are put to the annotators; a verdict needs train and dev alone."""
    settle: SettleSettings | None = None
    """Early stop per text; none by default."""
    candidates: CandidateSettings | None = None
    """Two-phase annotation; none by default."""
    share_duplicates: bool = False
    """Ask equal texts once; by default every text id is asked."""
    retry: list[Retried] = Field(default_factory=lambda: list(_RETRIED))
    """Answers of these statuses are asked again by the next run; all but failed cost money again."""
    failed_limit: float = Field(default=0.05, ge=0, le=1)
    """Share of an annotator's answers that may have failed; above it the run stops after annotate, and can be resumed."""
    accept_incomplete: bool = False
    """Go on to the consensus although annotators are incomplete."""
    model_changed: Literal["stop", "keep", "ask_again"] = "stop"
    """When a server's model is another than when the first answers were given: stop, mix both, or ask everything again."""
    drain_s: float = Field(default=60, ge=0)
    """Seconds that requests under way get to end when a run is interrupted."""

    @field_validator("annotators")
    @classmethod
    def _distinct_names(cls, annotators: list[AnyAnnotator]) -> list[AnyAnnotator]:
        names = [annotator.name for annotator in annotators]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two annotators are called {repeated[0]!r}; give each its own name")
        return annotators
