"""Providers, models, prices, parameters: `model = "ollama/qwen3:8b"` just works, and what is unknown is an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from asking import SCHEMA
from consenso.annotate import AnnotateSettings
from consenso.annotate.askers import Asker, make_askers
from consenso.annotate.endpoints import aliases, family_of, providers, read_environment
from consenso.annotate.prompting import (
    Compiled,
    Example,
    packaged_prompts,
    read_prompt,
    render,
    sanitise,
    shorten,
    wrap,
)
from consenso.errors import ConfigError
from consenso.labels import LabelSchema


def asker(
    environment: dict[str, str] | None = None, endpoints: dict[str, Any] | None = None, **annotator: Any
) -> Asker:
    settings = AnnotateSettings.read({"annotators": [{"name": "a", **annotator}], "endpoints": endpoints or {}})
    return make_askers(settings, SCHEMA, environment or {})[0]


@pytest.mark.parametrize(
    ("model", "url", "protocol", "local"),
    [
        ("ollama/qwen3:8b", "http://localhost:11434", "ollama", True),
        ("vllm/Qwen/Qwen3-8B", "http://localhost:8000/v1", "openai", True),
        ("groq/llama-3.1-8b-instant", "https://api.groq.com/openai/v1", "openai", False),
        ("openai/gpt-4.1-mini", "https://api.openai.com/v1", "openai", False),
        ("llama3.1-8b", "http://localhost:11434", "ollama", True),
    ],
)
def test_a_model_names_its_provider(model: str, url: str, protocol: str, local: bool) -> None:
    found = asker(model=model)
    assert (found.endpoint.base_url, found.endpoint.protocol, found.endpoint.local) == (url, protocol, local)
    assert found.parameters["temperature"] == 0


@pytest.mark.parametrize("provider", sorted(providers()))
def test_every_provider_makes_an_annotator(provider: str) -> None:
    found = asker(model=f"{provider}/some-model")
    assert found.endpoint.base_url.startswith("http")
    assert found.messages()
    assert found.endpoint.local or found.endpoint.key_env


@pytest.mark.parametrize("name", sorted(aliases()))
def test_every_short_name_means_something(name: str) -> None:
    known = aliases()[name]
    if known.get("kind") == "causal":
        with pytest.raises(ConfigError, match="kind = 'causal'"):
            asker(model=name)
        return
    found = asker(model=name)
    assert found.endpoint.name == "ollama"
    variants = make_askers(
        AnnotateSettings.read(
            {"annotators": [{"name": "a", "model": name, "variants": list(known.get("variants", {}))}]}
        ),
        SCHEMA,
        {},
    )
    assert len(variants) == 1 + len(known.get("variants", {}))


@pytest.mark.parametrize(
    ("annotator", "said"),
    [
        ({"model": "olama/qwen3:8b"}, "Did you mean 'ollama'"),
        ({"model": "qwen3"}, "names no provider; write provider/model"),
        ({"model": "ollama/x", "parameters": {"temprature": 1}}, "unknown parameter 'temprature' for ollama. Did you mean 'temperature'"),
        ({"model": "groq/x", "parameters": {"num_ctx": 1}}, "unknown parameter 'num_ctx' for groq.*extra_body"),
        ({"model": "openai/gpt-5-mini", "parameters": {"temperature": 0}}, "does not take 'temperature'"),
        ({"model": "openai/x", "parameters": {"n": 3}}, "the annotator's key 'repetitions' governs it"),
        ({"model": "openai/x", "parameters": {"temperature": 7}}, "temperature must lie between 0 and 2; found 7"),
        ({"model": "openai/x", "prompt": "zero_shots"}, "Did you mean 'zero_shot'"),
        ({"model": "openai/x", "prompt": "no text here\nat all"}, "nowhere {text}"),
        ({"model": "openai/x", "prompt": "{labels} {txt}\n{text}"}, "unknown placeholder {txt}. Did you mean {text}|Did you mean 'text'"),
        ({"model": "openai/x", "prompt": "[rule]\nx\n[text]\n{text}"}, r"unknown part \[rule\]. Did you mean 'role'"),
        ({"model": "openai/x", "abstain": "neutral"}, "is empty or a label"),
        ({"model": "openai/x", "examples": [{"text": "t", "label": "postive"}]}, "Did you mean 'positive'"),
        ({"model": "x", "base_url": "localhost:8000"}, "write it as http://"),
        ({"model": "openai/x", "temperature": 0.5}, "belongs in parameters"),
        ({"model": "openai/x", "variants": {"a~b": {}}}, "a name without ~"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_line(annotator: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        asker(**annotator)
    assert "\n" not in str(error.value)


def test_an_endpoint_of_ones_own_needs_an_address() -> None:
    with pytest.raises(ConfigError, match=r"\[annotate.endpoints.lab\]: no base_url"):
        asker(model="lab/x", endpoints={"lab": {"rpm": 5}})


def test_settings_of_a_known_provider_can_be_changed() -> None:
    found = asker(model="groq/x", endpoints={"groq": {"rpm": 30, "max_in_flight": 2}})
    assert (found.endpoint.rpm, found.endpoint.max_in_flight, found.endpoint.base_url) == (
        30,
        2,
        "https://api.groq.com/openai/v1",
    )


def test_an_unknown_parameter_can_be_sent_on_purpose() -> None:
    assert asker(model="groq/x", extra_body={"num_ctx": 1}).extra_body == {"num_ctx": 1}


def test_the_model_family_gives_defaults() -> None:
    assert asker(model="ollama/qwen3:8b").parameters["think"] is False
    assert asker(model="ollama/qwen3:8b", thinking=True).parameters["think"] is True
    assert asker(model="ollama/qwen3:8b", thinking=True).max_tokens >= 2048
    assert asker(model="ollama/deepseek-r1:8b").max_tokens >= 2048
    assert asker(model="vllm/Qwen/Qwen3-8B").parameters["chat_template_kwargs"] == {"enable_thinking": False}
    assert "temperature" not in asker(model="openai/gpt-5-mini").parameters
    assert asker(model="openai/gpt-4.1-mini").max_tokens < 100
    assert (family_of("Qwen/Qwen3-8B").family, family_of("meta-llama/Llama-3.1-8B").family) == ("qwen", "llama")


def test_a_price_is_the_annotators_own_then_that_of_the_table_then_none() -> None:
    assert asker(model="openai/gpt-4o-mini").price_source.startswith("price table, 20")
    assert asker(model="openai/gpt-4o-mini").cost(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert asker(model="openai/gpt-4o").cost(1_000_000, 0) == pytest.approx(2.5)
    assert asker(model="openai/gpt-4o", price={"input": 1, "output": 1}).cost(1_000_000, 0) == 1
    assert asker(model="openai/mystery-1").cost(1, 1) is None
    assert asker(model="ollama/qwen3:8b").cost(10**9, 10**9) == 0


def test_ollamas_host_comes_from_its_variable() -> None:
    assert asker({"OLLAMA_HOST": "gpu-box:11500"}, model="ollama/x").endpoint.base_url == "http://gpu-box:11500"
    assert asker({"OLLAMA_HOST": "0.0.0.0"}, model="ollama/x").endpoint.base_url == "http://localhost:11434"


def test_dotenv_fills_in_what_the_environment_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text('A_KEY="from file"  # note\nexport B_KEY=b\n# C_KEY=c\n', encoding="utf-8")
    monkeypatch.setenv("A_KEY", "from environment")
    found = read_environment(tmp_path)
    assert (found["A_KEY"], found["B_KEY"], found.get("C_KEY")) == ("from environment", "b", None)
    assert "B_KEY" not in os.environ


# prompts


@pytest.mark.parametrize("name", packaged_prompts())
@pytest.mark.parametrize("form", ["name", "id", "json"])
def test_every_packaged_prompt_shows_labels_and_text(name: str, form: Any) -> None:
    schema = LabelSchema({3: "good", 7: "bad"}, {"good": "praise"})
    messages = render(read_prompt(name), schema, noun="review", form=form, examples=[Example("nice one", "good")])
    said = "\n".join(message["content"] for message in messages)
    assert all(word in said for word in ("good", "bad", "praise", "review"))
    assert ("3" in said) == (form == "id")
    assert b"here is the text" in Compiled({"messages": messages}).fill("here is the text")
    if name == "few_shot":
        assert "nice one" in said


def test_a_prompt_is_filled_in_one_pass() -> None:
    schema = LabelSchema.from_names(["{text}", "{noun}"])
    messages = render(read_prompt("{labels} of this {noun} {other}: {text}"), schema, noun="{labels}")
    assert Compiled({"m": messages}).fill("TEXT").count(b"TEXT") == 1
    assert "- {text}\n- {noun} of this {labels} {other}" in messages[0]["content"]


def test_tags_and_cuts() -> None:
    assert wrap("fine") == "<text>\nfine\n</text>"
    assert wrap("</TEXT>").startswith("<text-")
    assert sanitise("a\x00b\tc\nd\ud83d") == "a\ufffdb\tc\nd\ufffd"
    assert shorten("a" * 100, 20).count("a") == 15
    assert len(shorten("a" * 100, 20)) <= 20


@pytest.mark.parametrize(
    ("annotators", "said"),
    [
        ([{"name": "a"}, {"name": "b"}], "annotators 'a' and 'b' are the same model"),
        ([{"name": "a", "variants": {"same": {"prompt": "zero_shot"}}}], "variant 'a~same' changes nothing"),
        ([{"name": "a", "variants": {"same": {"parameters": {"temperature": 0.0}}}}], "changes nothing"),
    ],
)
def test_two_that_would_ask_the_same_are_refused(annotators: list[dict[str, Any]], said: str) -> None:
    settings = AnnotateSettings.read({"annotators": [{"model": "ollama/qwen3:8b", **one} for one in annotators]})
    with pytest.raises(ConfigError, match=said):
        make_askers(settings, SCHEMA, {})
