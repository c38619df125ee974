"""The base of every settings class: frozen, unknown keys are mistakes, each field documented by the line below it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from consenso.errors import ConfigError, nearest


class Settings(BaseModel):
    """A section of experiment.toml. The same class gives the file, `--set`, the JSON Schema and the help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "experiment.toml") -> Self:
        """Validate a mapping; the first mistake raises `ConfigError` in one line that says what to do."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_one_line(cls, error, where)) from None


def _one_line(model: type[Settings], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith(("function-", "tagged-")))]
    name = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        hint = nearest(str(path[-1]), fields) or f" Known keys: {', '.join(fields)}."
        return f"{where}: unknown key {name!r}.{hint}"
    if first["type"] == "missing":
        return f"{where}: missing key {name!r}; add it"
    message = first["msg"].removeprefix("Value error, ")
    found = "" if first["type"] in {"value_error", "missing"} else f"; found {first['input']!r}"
    return f"{where}: {name or 'settings'}: {message}{found}"


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _model_in(model.model_fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside `X`, `X | None`, `list[X]`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None
