"""From a file and overrides to a checked recipe, of whichever kind.

A kind of recipe is a `BaseRecipe` whose sections are `Section`s. Reading, overrides and messages are the same for all
of them. Nothing here imports torch.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from distilbert_kd.errors import RecipeError
from distilbert_kd.plain_yaml import MAX_BYTES, dump_yaml, parse_yaml
from distilbert_kd.recipe_messages import error_lines
from distilbert_kd.training_arguments import check_training_arguments, shown


__all__ = ["BaseRecipe", "OtherKindError", "PathText", "Section", "Text", "checked_training_arguments", "read_recipe"]

#: The pattern of a run's name.
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"

#: Errors that one message names; the others are counted.
_NUM_SHOWN = 50

Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


class Section(BaseModel):
    """Frozen, strict, and without room for a key that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Self:
        problems = self._rules(self.model_dump(exclude_unset=True))
        if problems:
            raise PydanticCustomError("rules", "{text}", {"text": "; ".join(problems)})
        return self

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return []


class BaseRecipe(Section):
    """What every kind of recipe has beside its sections."""

    name: Annotated[str, Field(pattern=_NAME)] = Field(description="The run's name; the file's name by default.")
    output_dir: PathText = Field(
        default_factory=lambda known: f"runs/{known['name']}",
        description="The run folder: new, empty, or of this recipe's own run that was cut off, which then goes on.",
    )
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Seed of rows, weights and dropout, for every model of the run."
    )

    def to_yaml(self) -> str:
        """Write the resolved recipe: every key that is set or has a default, in the order of the models."""
        return dump_yaml(self.model_dump(exclude_none=True))


class OtherKindError(RecipeError):
    """The file is a recipe, but one of another command."""


#: The section that only one kind of recipe has, and the command that reads it.
_COMMANDS = {"data": "run", "text": "pretrain"}

AnyRecipe = TypeVar("AnyRecipe", bound=BaseRecipe)


def checked_training_arguments(where: str) -> AfterValidator:
    """What checks a section of training arguments against the installed transformers.

    Args:
        where: the section's path in the recipe, for the messages.

    Returns:
        A validator for `Annotated[dict[str, Any], ...]`.
    """

    def check(values: dict[str, Any]) -> dict[str, Any]:
        checked, problems = check_training_arguments(values, where)
        if problems:
            raise PydanticCustomError("lines", "{text}", {"lines": problems, "text": "; ".join(problems)})
        return checked

    return AfterValidator(check)


def read_recipe(path: Path, overrides: Sequence[str], kind: type[AnyRecipe], documented_in: str) -> AnyRecipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value`, the value in YAML; later ones win.
        kind: the model of the recipe.
        documented_in: the document that lists its keys, for the messages.

    Returns:
        The recipe with its defaults filled in.

    Raises:
        RecipeError: the file can't be read, or the recipe or an override is wrong. One message names every error.
        OtherKindError: it is a recipe of another kind.
    """
    values, problems = _read(path, kind, documented_in)
    _refuse_other_kind(path, values, kind)
    for override in overrides:
        problems += _apply(values, override)
    stem = Path(path).stem
    if values.get("name") is None:
        values["name"] = stem
        if not re.match(_NAME, stem):
            got = f"the file's name {shown(stem)} can't be one"
            problems.append(f"name: missing, and {got}; set name (letters, digits, . _ -)")
            values["name"] = "unnamed"
    sections = _sections(kind)
    for section in (*sections, "training"):
        if not kind.model_fields[section].is_required() and section in values and values[section] is None:
            del values[section]
    recipe = None
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        problems += error_lines(error, kind)
        problems += [line for key, model in sections.items() for line in _section_rules(values.get(key), model)]
    if recipe is None or problems:
        raise RecipeError(_message(path, problems, documented_in))
    return recipe


def _sections(kind: type[Section]) -> dict[str, type[Section]]:
    """The sections of a recipe by name, those that may be left out too."""
    return {
        name: annotation
        for name, field in kind.model_fields.items()
        for annotation in (field.annotation, *get_args(field.annotation))
        if isinstance(annotation, type) and issubclass(annotation, Section)
    }


def _section_rules(values: Any, model: type[Section]) -> list[str]:
    return model._rules(values) if isinstance(values, Mapping) else []


def _read(path: Path, kind: type[Section], documented_in: str) -> tuple[dict[str, Any], list[str]]:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"Expected a recipe in {path}, got: {reason}. Give the path of a YAML file.") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"Expected a recipe of at most 1 MB, got more in {path}. Is it the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} of {path}"
        raise RecipeError(f"Expected text in UTF-8, got something else at {where}. Save the file as UTF-8.") from error
    values, problems = parse_yaml(text)
    if values is None and problems:
        raise RecipeError(_message(path, problems, documented_in))
    if not isinstance(values, dict):
        got = "an empty file" if values is None else shown(values)
        sections = ", ".join([*_sections(kind)][:2])
        raise RecipeError(
            f"Expected a recipe with sections ({sections}, ...) in {path}, got {got}. See {documented_in}."
        )
    return values, problems


def _refuse_other_kind(path: Path, values: Mapping[str, Any], kind: type[Section]) -> None:
    (own,) = _COMMANDS.keys() & kind.model_fields.keys() or {""}
    for other in [] if not own or own in values else _COMMANDS.keys() & values.keys():
        raise OtherKindError(
            f"Expected a recipe with a section {own} in {path}, got one with {other}: that is a recipe for "
            f"`distilbert-kd {_COMMANDS[other]}`, which `validate` and `describe` read, too."
        )


def _apply(values: dict[str, Any], override: str) -> list[str]:
    path, sign, text = override.partition("=")
    where = f"override {shown(override)}"
    keys = path.strip().split(".")
    if not sign or not all(re.fullmatch(r"[A-Za-z_]\w*", key) for key in keys):
        return [f"{where}: expected section.key=value"]
    if not text.strip():
        return [f"{where}: expected a value after =; write {path.strip()}=null for none"]
    value, problems = parse_yaml(text)
    if problems:
        return [f"{where}: {problem}" for problem in problems]
    section = values
    for depth, key in enumerate(keys[:-1], start=1):
        if section.get(key) is None:
            section[key] = {}
        if not isinstance(section[key], dict):
            parent = ".".join(keys[:depth])
            return [f"{where}: {parent} is {shown(section[key])}, no section; set {parent} as a whole"]
        section = section[key]
    section[keys[-1]] = value
    return []


def _message(path: Path, problems: Sequence[str], documented_in: str) -> str:
    lines = list(dict.fromkeys(problems))
    count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
    end = f"Correct the file, or override a value with section.key=value. Every key is in {documented_in}."
    more = [f"  - and {len(lines) - _NUM_SHOWN} more"] if len(lines) > _NUM_SHOWN else []
    shown_lines = [f"  - {line}" for line in lines[:_NUM_SHOWN]]
    return "\n".join([f"The recipe {path} has {count}:", *shown_lines, *more, end])
