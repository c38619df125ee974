"""What experiment.toml may say about those who are asked: one settings class per kind of annotator."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

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
        return _with_place(template)

    @field_validator("descriptions")
    @classmethod
    def _has_words(cls, descriptions: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for label, wording in descriptions.items():
            wordings = [wording] if isinstance(wording, str) else wording
            if not wordings or not all(one.strip() for one in wordings):
                raise ValueError(f"label {label!r} has an empty wording; write one or leave the label out")
        return descriptions


def _with_place(template: str) -> str:
    if "{}" not in template:
        raise ValueError("the template needs {}, the place of the wording")
    return template


def checked_url(url: str | None) -> str | None:
    """Return a base URL without a slash at its end; `ValueError` where it does not begin as one."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError("write it as http://host:port/v1 or https://…")
    return url.rstrip("/") if url else url


_DECODING = {
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "seed",
    "stop",
    "num_ctx",
    "num_predict",
    "reasoning_effort",
}
"""What people write beside `model` that belongs in `parameters`."""


class Price(Settings):
    """What tokens cost, in USD for a million."""

    input: float = Field(ge=0)
    """Tokens of the prompt."""
    output: float = Field(ge=0)
    """Tokens of the reply, thoughts included."""
    cached: float | None = Field(default=None, ge=0)
    """Tokens of the prompt that the provider had cached; default: as `input`."""


class ExampleSetting(Settings):
    """A text and its label, shown in the prompt."""

    text: str = Field(min_length=1)
    """The text."""
    label: str
    """Its label, by name."""


class Variant(Settings):
    """The same model asked otherwise: how much could another prompt or decoding have moved the labels?"""

    prompt: str | None = None
    """Another prompt; default: the annotator's own."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters that differ, for example { temperature = 0.7 }."""
    answer: Literal["name", "id"] | None = None
    """Another form of the answer; default: the annotator's own."""
    structured: Literal["auto", "json_schema", "off"] | None = None
    """Bound to the labels, or not; default: as the annotator."""
    thinking: bool | None = None
    """With thoughts, or without; default: as the annotator."""
    order: Literal["schema", "reversed", "rotated"] | None = None
    """Another order of the labels in the prompt; default: the annotator's own."""
    model: str | None = None
    """Another model, for example another quantisation; default: the annotator's own."""


class LLMAnnotator(Settings):
    """An LLM behind an endpoint: OpenAI-compatible, or Ollama."""

    name: str = Field(min_length=1)
    """The annotator's name in the votes."""
    kind: Literal["llm"] = "llm"
    """How it votes."""
    model: str = Field(min_length=1)
    """provider/model ("ollama/qwen3:8b", "groq/llama-3.1-8b-instant"), a short name, or with `base_url` the server's own."""
    base_url: str | None = None
    """An OpenAI-compatible server of your own, up to and with /v1; several annotators share one under [annotate.endpoints]."""
    key_env: str | None = None
    """The environment variable (or line of .env) that holds the API key, where it is not the provider's usual one."""
    prompt: str = "zero_shot"
    """A packaged prompt (zero_shot, simple, few_shot, chain_of_thought), a file, or the prompt itself, with {text} in it."""
    noun: str = "text"
    """What a text is called in the prompt: review, tweet, abstract …"""
    answer: Literal["name", "id"] = "name"
    """Whether the label is answered by its name or by its id."""
    examples: int | list[ExampleSetting] = 0
    """Examples in the prompt: so many per label, drawn from train gold (they then count as human labels), or written out."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Decoding parameters, for example { temperature = 0.0, max_tokens = 64 }; unknown ones are refused."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the request, sent as they stand: for parameters that consenso does not know."""
    thinking: bool = False
    """Let a model that can think do so; off where its server can switch it off."""
    structured: Literal["auto", "json_schema", "off"] = "auto"
    """Bind the reply to the labels by a JSON schema: where the endpoint has it (auto), always, never."""
    logprobs: Literal["auto", "on", "off"] = "auto"
    """Ask for token probabilities, which give the confidence: where the endpoint has them (auto), always, never."""
    abstain: str | None = None
    """A word, such as "unclear", that the annotator may answer instead of a label; none by default."""
    order: Literal["schema", "reversed", "rotated"] = "schema"
    """Order of the labels in the prompt; rotated: by one more place with each repetition."""
    repetitions: int = Field(default=1, ge=1, le=1000)
    """How often each text is asked; every repetition is a request of its own."""
    variants: dict[str, Variant] | list[str] = Field(default_factory=dict)
    """Named variants, or names of the short model name's own ("alt1"); no votes of their own unless consensus asks."""
    reask: int = Field(default=1, ge=0, le=3)
    """How often an invalid or unreadable answer is asked again, with a correction; counted and paid."""
    context: int | None = Field(default=None, ge=64)
    """Tokens that prompt and reply may have together; default: the model family's, as far as known."""
    long_texts: Literal["flag", "truncate"] = "flag"
    """A text that does not fit: not asked, status truncated (flag), or cut to the head and tail that fit (truncate)."""
    price: Price | None = None
    """USD for a million tokens; default: the dated price table, 0 for local servers."""
    family: str | None = None
    """Models of one family err together; default: told by the model's name."""
    batch: bool = False
    """Ask by batch files: half the price, answers within a day."""

    @model_validator(mode="before")
    @classmethod
    def _parameters_in_their_place(cls, values: Any) -> Any:
        for name in _DECODING & set(values) if isinstance(values, dict) else ():
            raise ValueError(f"{name!r} belongs in parameters: parameters = {{ {name} = {values[name]!r} }}")
        return values

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return checked_url(url)

    @model_validator(mode="after")
    def _variant_names(self) -> Self:
        for name in self.variants:
            if "~" in name or not str(name).strip():
                raise ValueError(f"variant {name!r}: a name without ~")
        if "~" in self.name:
            raise ValueError("an annotator's name holds no ~, which sets variants apart")
        return self


class NliAnnotator(Settings):
    """Zero-shot by natural language inference, in this process: the hypothesis the text entails most."""

    name: str = Field(min_length=1)
    """The annotator's name in the votes."""
    kind: Literal["nli"] = "nli"
    """How it votes."""
    model: str = Field(min_length=1)
    """An NLI model: a hub id (fetched before) or a local folder."""
    template: str = "This text is about {}."
    """The hypothesis; {} stands for the label's wording."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """Label name → its wording in the hypothesis; a label that is not listed uses its name."""
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    """Abstain where the confidence is below this; none by default."""
    batch_tokens: PositiveInt | None = None
    """Padded tokens per batch; None: chosen for the device. Changes no answer."""

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        return _with_place(template)


class CausalAnnotator(Settings):
    """A causal LM in this process: the label whose continuation of the prompt is most probable."""

    name: str = Field(min_length=1)
    """The annotator's name in the votes."""
    kind: Literal["causal"] = "causal"
    """How it votes."""
    model: str = Field(min_length=1)
    """A causal LM: a hub id (fetched before) or a local folder."""
    prompt: str = "zero_shot"
    """A packaged prompt, a file, or the prompt itself, with {text} in it."""
    noun: str = "text"
    """What a text is called in the prompt."""
    examples: int | list[ExampleSetting] = 0
    """Examples in the prompt: so many per label, drawn from train gold, or written out."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the weights; auto: as they were saved."""
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    """Abstain where the confidence is below this; none by default."""
    family: str | None = None
    """Models of one family err together; default: told by the model's name."""
    batch_tokens: PositiveInt | None = None
    """Padded tokens per batch; None: chosen for the device. Changes no answer."""


class PythonAnnotator(Settings):
    """A Python function: texts in, one label (name or id) or None each."""

    name: str = Field(min_length=1)
    """The annotator's name in the votes."""
    kind: Literal["python"] = "python"
    """How it votes."""
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """module:function; the experiment file's folder can be imported from."""
    batch_size: int = Field(default=64, ge=1)
    """Texts per call."""
    version: str = ""
    """Change it when the function changes: its answers are kept under this version."""


def _kind_of(value: Any) -> str:
    """llm where a model is named and no kind; embedding where nothing says otherwise."""
    if isinstance(value, dict):
        return str(
            value.get("kind") or ("llm" if "model" in value else "python" if "function" in value else "embedding")
        )
    return str(getattr(value, "kind", "embedding"))


def prompts_of(annotator: Settings) -> list[str]:
    """Return the prompts that an annotator and its variants name."""
    own = getattr(annotator, "prompt", None)
    variants = getattr(annotator, "variants", {})
    others = [one.prompt for one in variants.values()] if isinstance(variants, dict) else []
    return [prompt for prompt in (own, *others) if prompt is not None]


AnyAnnotator = Annotated[
    Annotated[EmbeddingAnnotator, Tag("embedding")]
    | Annotated[LLMAnnotator, Tag("llm")]
    | Annotated[NliAnnotator, Tag("nli")]
    | Annotated[CausalAnnotator, Tag("causal")]
    | Annotated[PythonAnnotator, Tag("python")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_kind",
        custom_error_message="unknown kind of annotator; choose llm, embedding, nli, causal or python",
    ),
]
"""Any kind of annotator that is asked."""
