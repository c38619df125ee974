"""The base of every settings class: frozen, unknown keys are mistakes, each field documented by the line below it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Tag, ValidationError

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
    path, inside = _walk(model, first["loc"])
    name = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        fields = list(inside.model_fields) if inside else []
        hint = nearest(str(path[-1]), fields) or f" Known keys: {', '.join(fields)}."
        return f"{where}: unknown key {name!r}.{hint}"
    if first["type"] == "missing":
        return f"{where}: missing key {name!r}; add it"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    found = "" if first["type"] in {"value_error", "missing"} else f"; found {first['input']!r}"
    return f"{where}: {name or 'settings'}: {message}{found}"


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[int | str], type[BaseModel] | None]:
    """The keys of an error's location as they stand in the file, and the settings class of the last of them."""
    path: list[int | str] = []
    inside: type[BaseModel] | None = model
    at: Any = model
    for part in location:
        chosen = _member(at, part)
        if chosen is not None:  # a member of a union, by its tag or type: nothing in the file
            at = chosen
            continue
        inside = next((one for one in map(_bare, _members(at)) if _is_model(one)), inside)
        path.append(part)
        at = _below(at, part)
    return path, inside


def _member(annotation: Any, part: int | str) -> Any:
    """The member of a union that pydantic names in a location, or None where `part` is a key of the file."""
    members = _members(annotation)
    if len(members) < 2 or not isinstance(part, str):
        return None
    named = {_tag(member): member for member in members}
    if part in named:
        return named[part]
    return next((m for m in members if part.startswith(("function-", "tagged-", f"{_plain_name(m)}["))), None)


def _members(annotation: Any) -> list[Any]:
    if _tag(annotation) is None and typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [member for member in typing.get_args(annotation) if member is not type(None)]
    return [annotation]


def _tag(annotation: Any) -> str | None:
    if typing.get_origin(annotation) is typing.Annotated:
        tags = [extra.tag for extra in typing.get_args(annotation)[1:] if isinstance(extra, Tag)]
        return tags[0] if tags else None
    return None


def _plain_name(annotation: Any) -> str:
    return str(getattr(typing.get_origin(annotation) or annotation, "__name__", annotation))


def _below(annotation: Any, part: int | str) -> Any:
    """The annotation of a field of a settings class, or of the values of a list or mapping."""
    for member in _members(annotation):
        bare = _bare(member)
        if _is_model(bare):
            if part in bare.model_fields:
                return bare.model_fields[str(part)].annotation
        elif arguments := typing.get_args(bare):
            return arguments[-1] if arguments[-1] is not Ellipsis else arguments[0]
    return None


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if _tag(annotation) is not None else annotation


def _is_model(annotation: Any) -> bool:
    return (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    )
