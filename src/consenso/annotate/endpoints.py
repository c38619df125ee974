"""Which server an annotator's model means, with what defaults: registry files and [annotate.endpoints] → endpoints."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from consenso.annotate.annotators import LLMAnnotator, Price
from consenso.annotate.settings import EndpointSettings
from consenso.errors import ConfigError, MissingExtraError, nearest

COMMON_PARAMETERS = frozenset(
    {"temperature", "top_p", "max_tokens", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias"}
)
"""Decoding parameters that every chat-completions server is taken to read."""
OLLAMA_PARAMETERS = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "max_tokens", "num_predict", "seed", "stop", "num_ctx", "repeat_penalty",
        "repeat_last_n", "presence_penalty", "frequency_penalty", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta",
        "num_keep", "num_batch", "num_gpu", "num_thread", "keep_alive", "think",
    }
)  # fmt: skip
"""Parameters that Ollama's own API reads."""
OWN_PARAMETERS = {"n": "repetitions", "model": "model", "messages": "prompt", "response_format": "structured"}
OWN_PARAMETERS |= {"logprobs": "logprobs", "top_logprobs": "logprobs", "format": "structured", "stream": "nothing"}
"""Parameters that consenso sets itself → the annotator's key that governs them."""
DEFAULT_IN_FLIGHT = 16
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Endpoint:
    """A server: what its annotators share."""

    name: str
    """The provider's name, the name under [annotate.endpoints], or the URL."""
    base_url: str
    """Up to and with /v1 (OpenAI-compatible) or the server's root (Ollama)."""
    protocol: Literal["openai", "ollama"] = "openai"
    """Which requests it takes; a key of CLIENTS."""
    key_env: tuple[str, ...] = ()
    """Environment variables that may hold the API key, in order."""
    key_optional: bool = False
    """True: it may be asked without a key."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers; ${NAME} stands for an environment variable."""
    local: bool = False
    """Costs nothing; one model is asked at a time."""
    max_in_flight: int = DEFAULT_IN_FLIGHT
    """Requests under way at once, at most."""
    rpm: float | None = None
    """Requests a minute."""
    tpm: float | None = None
    """Tokens a minute."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Seconds to wait for a whole reply."""
    patience_s: float = DEFAULT_PATIENCE_S
    """Seconds of nothing but failures until it counts as down."""
    structured: Literal["json_schema", "off", "ask"] = "ask"
    """Whether replies can be bound to the labels."""
    logprobs: bool | None = None
    """Whether token probabilities can be asked for; None: not known."""
    seed: bool = True
    """Whether a seed is sent."""
    max_tokens: str = "max_tokens"
    """The name of the parameter that bounds the reply."""
    parameters: frozenset[str] | None = None
    """What it reads beyond the common parameters; None: nobody knows."""
    batch: bool = False
    """Whether it takes batch files."""
    start: str = ""
    """How to start it, for the message that nobody answers."""
    context: int | None = None
    """Tokens that fit unless the model's family says otherwise."""

    def key(self, environment: Mapping[str, str]) -> str | None:
        """Return the API key; `ConfigError` where one is needed and none is set."""
        for name in self.key_env:
            if environment.get(name):
                return environment[name]
        if self.key_env and not self.key_optional:
            names = " or ".join(self.key_env)
            raise ConfigError(
                f"{self.name}: no API key; set the environment variable {names} (or a line {self.key_env[0]}=… in .env)"
            )
        return None

    def filled_headers(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the further headers with their environment variables filled in."""

        def value(found: re.Match[str]) -> str:
            if found[1] not in environment:
                raise ConfigError(f"{self.name}: header asks for ${{{found[1]}}}, which is not set in the environment")
            return environment[found[1]]

        return {name: re.sub(r"\$\{(\w+)\}", value, text) for name, text in self.headers}


@dataclass(frozen=True)
class Family:
    """What is known of a model by how its name begins."""

    family: str = ""
    """Models of one family err together."""
    context: int | None = None
    """Tokens of prompt and reply together."""
    thinks: bool = False
    """It writes thoughts before its answer."""
    no_think: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Provider → parameters that switch the thoughts off."""
    max_tokens: int | None = None
    """Room for a reply with thoughts."""
    fixed: tuple[str, ...] = ()
    """Parameters that the model does not take."""


@functools.cache
def _registry(name: str) -> dict[str, Any]:
    file = resources.files("consenso.annotate") / "registry" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def providers() -> dict[str, dict[str, Any]]:
    """Return the known providers: name → the keys of registry/providers.toml."""
    return _registry("providers")


def aliases() -> dict[str, dict[str, Any]]:
    """Return the short model names: name → {model, kind, variants}."""
    found: dict[str, dict[str, Any]] = _registry("models")["aliases"]
    return found


def resolve_model(
    settings: LLMAnnotator, endpoints: Mapping[str, EndpointSettings], environment: Mapping[str, str]
) -> tuple[Endpoint, str]:
    """Return the endpoint and the model's name there.

    Raises `ConfigError` for an unknown provider, an endpoint without a URL, or a short name of a local model.
    """
    model = settings.model
    if settings.base_url:
        return _by_url(settings), model
    if model in aliases():
        alias = aliases()[model]
        if alias.get("kind", "llm") != "llm":
            raise ConfigError(
                f"annotator {settings.name!r}: {model!r} runs in this process; write kind = {alias['kind']!r}, model = {alias['model']!r}"
            )
        model = alias["model"]
    provider, slash, rest = model.partition("/")
    if slash and (provider in endpoints or provider in providers()):
        return _endpoint(provider, endpoints.get(provider), settings, environment), rest
    known = [*endpoints, *providers()]
    hint = nearest(provider, [*known, *aliases()]) or f" Known providers: {', '.join(sorted(known))}."
    raise ConfigError(
        f"annotator {settings.name!r}: model {model!r} names no provider; write provider/model, for example "
        f"ollama/{rest or model}, or give base_url.{hint}"
    )


def takes_batches(settings: LLMAnnotator, endpoints: Mapping[str, EndpointSettings]) -> bool:
    """Return whether an annotator's endpoint takes batch files."""
    return resolve_model(settings, endpoints, {})[0].batch


def _by_url(settings: LLMAnnotator) -> Endpoint:
    assert settings.base_url is not None
    return Endpoint(
        name=settings.base_url,
        base_url=settings.base_url,
        key_env=(settings.key_env,) if settings.key_env else (),
        local=_is_here(settings.base_url),
    )


def _is_here(url: str) -> bool:
    """Whether a server stands on this machine or in its network: it then costs nothing by itself."""
    host = re.sub(r"^https?://", "", url).split("/")[0].rpartition("@")[2].split(":")[0]
    return host in {"localhost", "127.0.0.1", "[", "0.0.0.0"} or host.startswith(("192.168.", "10."))


def _endpoint(
    name: str, own: EndpointSettings | None, settings: LLMAnnotator, environment: Mapping[str, str]
) -> Endpoint:
    known = dict(providers().get(name, {}))
    variable = known.pop("base_url_env", None)
    if variable and environment.get(variable):
        known["base_url"] = _with_scheme(environment[variable])
    given = {} if own is None else {k: v for k, v in own.model_dump().items() if v is not None and v != {}}
    if own is not None and name not in providers():
        known["parameters"] = None
    values = {**known, **given}
    if not values.get("base_url"):
        raise ConfigError(f"[annotate.endpoints.{name}]: no base_url; give the server's address up to /v1")
    key_env = settings.key_env or given.get("key_env") or known.get("key_env") or ()
    values["key_env"] = (key_env,) if isinstance(key_env, str) else tuple(key_env)
    values["key_optional"] = bool(known.get("key_optional")) and not (settings.key_env or given.get("key_env"))
    values.setdefault("local", _is_here(values["base_url"]))
    values["headers"] = tuple(sorted(given.get("headers", {}).items()))
    parameters = values.get("parameters", () if name in providers() else None)
    values["parameters"] = None if parameters is None else frozenset(parameters)
    return Endpoint(name=name, **{**values, "base_url": values["base_url"].rstrip("/")})


def _with_scheme(host: str) -> str:
    host = host if "://" in host else f"http://{host}"
    host = host.replace("//0.0.0.0", "//localhost")
    return host if re.search(r":\d+/?$", host) else f"{host.rstrip('/')}:11434"


def family_of(model: str) -> Family:
    """Return what registry/models.toml knows of a model: the entry with the longest fitting beginning."""
    name = model.casefold()
    families: dict[str, dict[str, Any]] = _registry("models")["families"]
    fitting = [beginning for beginning in families if name.startswith(beginning)]
    if not fitting and "/" in name:  # org/model: the model's own name may be known
        return family_of(name.rpartition("/")[2])
    if not fitting:
        return Family(family=re.split(r"[\d:._/-]", name.rpartition("/")[2] or name)[0] or name)
    found = families[max(fitting, key=len)]
    return Family(**{**found, "fixed": tuple(found.get("fixed", ()))})


def price_of(endpoint: Endpoint, model: str, own: Price | None) -> tuple[Price | None, str]:
    """Return USD per million tokens and where they come from; (None, …) where nobody knows."""
    if own is not None:
        return own, "the experiment file"
    if endpoint.local:
        return Price(input=0, output=0), "a local server"
    table: dict[str, dict[str, Any]] = _registry("prices").get(endpoint.name, {})
    fitting = [beginning for beginning in table if model.casefold().startswith(beginning.casefold())]
    if not fitting:
        return None, "not in the price table"
    found = table[max(fitting, key=len)]
    return Price(**{k: v for k, v in found.items() if k != "as_of"}), f"price table, {found['as_of']}"


def batch_factor() -> float:
    """Return what a batch file's answers cost, relative to the price."""
    return float(_registry("prices")["batch"])


def check_parameters(who: str, endpoint: Endpoint, parameters: Mapping[str, Any], family: Family) -> None:
    """Raise `ConfigError` for a parameter that consenso sets itself, the model does not take or the server does not read."""
    known = (
        OLLAMA_PARAMETERS if endpoint.protocol == "ollama" else COMMON_PARAMETERS | (endpoint.parameters or frozenset())
    )
    for name, value in parameters.items():
        if name in OWN_PARAMETERS:
            raise ConfigError(
                f"annotator {who!r}: parameter {name!r} is set by consenso; the annotator's key {OWN_PARAMETERS[name]!r} governs it"
            )
        if name in family.fixed:
            raise ConfigError(f"annotator {who!r}: this model does not take {name!r}; leave it out")
        if name not in known:
            hint = nearest(name, known) or f" Known: {', '.join(sorted(known))}."
            more = "" if endpoint.protocol == "ollama" else " To send it nevertheless: extra_body."
            raise ConfigError(f"annotator {who!r}: unknown parameter {name!r} for {endpoint.name}.{hint}{more}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = _BOUNDS.get(name, (None, None))
            if (low is not None and value < low) or (high is not None and value > high):
                raise ConfigError(f"annotator {who!r}: {name} must lie between {low} and {high}; found {value}")


_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2),
    "max_tokens": (1, 1_000_000), "num_predict": (1, 1_000_000),
}  # fmt: skip


def read_environment(folder: Path | None = None) -> dict[str, str]:
    """Return the environment, with what .env files add: one in the working folder, one beside the experiment file.

    A variable that is set goes before a line of .env.
    """
    found: dict[str, str] = {}
    for place in dict.fromkeys([Path.cwd(), *([Path(folder)] if folder else [])]):
        path = place / ".env"
        if path.is_file():
            for name, value in _dotenv(path).items():
                found.setdefault(name, value)
    return {**found, **os.environ}


def _dotenv(path: Path) -> dict[str, str]:
    try:
        from dotenv import dotenv_values
    except ImportError:
        raise MissingExtraError("reading .env", "llm") from None
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}
