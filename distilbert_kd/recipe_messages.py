"""Turns pydantic's errors into lines that name the path, the value, what was expected and the nearest key."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distilbert_kd.training_arguments import known_training_arguments, shown


__all__ = ["error_lines", "valid_paths"]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "string_too_short": "text that is not empty",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_BY_RULES = {"rules", "default_factory_not_called"}


def error_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Write one line for each error of a recipe's fields; rules between fields are left to `recipe_rules`."""
    lines = []
    for details in error.errors(include_url=False):
        if details["type"] == "lines":
            lines += details["ctx"]["lines"]
        elif details["type"] not in _BY_RULES:
            lines.append(_line(details, model))
    return lines


def valid_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every key of a model and of the models in it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for nested in _models(field.annotation):
            yield from valid_paths(nested, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _line(details: ErrorDetails, model: type[BaseModel]) -> str:
    path = _path(details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"{path}: {shown(details['input'])}: unknown key{_nearest(path, model)}"
    if kind == "missing":
        return f"{path}: missing; the recipe needs it"
    expected = _expected(kind, details.get("ctx", {})) or details["msg"]
    got = details["input"]
    hint = ""
    if kind == "string_type" and isinstance(got, bool | int | float):
        hint = f'; write "{shown(got)}" in quotes if it is text'
    elif kind == "list_type" and isinstance(got, str):
        keys = [known.removeprefix(f"{path}.") for known in valid_paths(model) if known.startswith(f"{path}.")]
        hint = f"; write [{shown(got)}]" if not keys else f"; write [{{{keys[0]}: {shown(got)}}}]"
    elif kind == "literal_error" and isinstance(got, str):
        choices = [choice.strip().strip("'") for choice in details["ctx"]["expected"].replace(" or ", ",").split(",")]
        nearest = difflib.get_close_matches(got, choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{path}: expected {expected}, got {shown(got)}{hint}"


def _path(location: tuple[int | str, ...]) -> str:
    parts: list[str] = []
    for part in location:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        elif not str(part).startswith(("(", "[")):  # the tag of a union's branch, or pydantic's "[key]"
            parts.append(str(part))
    return ".".join(parts)


def _expected(kind: str, context: Mapping[str, Any]) -> str | None:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "literal_error":
        return f"one of {context['expected']}"
    if kind == "string_pattern_mismatch":
        return "letters, digits and . _ - (no . or - in front)"
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    bounds = [f"{word} {context[bound]:g}" for bound, word in _BOUNDS.items() if bound in context]
    return f"a number, {' and '.join(bounds)}" if bounds else None


def _nearest(path: str, model: type[BaseModel]) -> str:
    """Look for a key of the same section first, then for the same name in another section."""
    section, _, key = path.rpartition(".")
    paths = list(valid_paths(model))
    siblings = {known.rpartition(".")[2]: known for known in paths if known.rpartition(".")[0] == section}
    others = {known.rpartition(".")[2]: known for known in reversed(paths)}
    arguments = {name: f"training.{name}" for name in known_training_arguments()}
    for candidates, cutoff in ((siblings, 0.7), (others, 0.9), (arguments, 0.9), (siblings, 0.5)):
        nearest = difflib.get_close_matches(key, list(candidates), n=1, cutoff=cutoff)
        if nearest:
            return f"; did you mean {candidates[nearest[0]]}?"
    return f"; expected one of {', '.join(siblings)}" if siblings else ""
