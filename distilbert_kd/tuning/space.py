"""What a tuning may change of a recipe: its keys, each with a range or a list of values. Checked without torch.

A key is spelled as in an override, and a value is checked by being put into the recipe.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from distilbert_kd.errors import RecipeError
from distilbert_kd.plain_yaml import parse_yaml
from distilbert_kd.recipe import Distillation, Recipe
from distilbert_kd.recipe_messages import error_lines
from distilbert_kd.student.layer_maps import LAYER_MAPS
from distilbert_kd.training_arguments import known_training_arguments, shown


__all__ = ["FORCED", "Choices", "Range", "Space", "default_space", "parse_space", "value_of", "with_values"]

#: Training arguments that a trial sets itself: it is scored on held-out rows after each epoch, and leaves nothing.
FORCED: Mapping[str, Any] = {
    "eval_strategy": "epoch",
    "logging_strategy": "epoch",
    "push_to_hub": False,
    "report_to": "none",
    "save_only_model": True,
    "save_total_limit": 1,
}

_EPOCHS = "training.num_train_epochs"
_LAYERS = "student.layers"
_RATE = "training.learning_rate"

#: What `TrainingArguments` has where a recipe says nothing.
_UPSTREAM = {_EPOCHS: 3, _RATE: 5e-5}

#: Keys whose values are drawn on a logarithmic scale.
_LOG = ("distillation.temperature", _RATE, "training.weight_decay")

_RANGE = re.compile(r"(.+?)\.\.(.+)")
_NUM_DIGITS = 3


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: The smallest.
        high: The largest.
        is_log: Whether equal factors, and not equal differences, are equally likely.
        is_whole: Whether only whole numbers are drawn.
    """

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def __contains__(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.is_whole or float(value).is_integer())

    def rounded(self, value: float) -> float:
        """The value with three digits, which a recipe can show; still in the range."""
        return value if self.is_whole else min(max(float(f"{value:.{_NUM_DIGITS}g}"), self.low), self.high)

    def describe(self) -> str:
        """As it is written on the command line."""
        return f"{self.low:g}..{self.high:g}"


@dataclass(frozen=True)
class Choices:
    """Some values, without an order."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        return value in self.values

    def describe(self) -> str:
        """As it is written on the command line."""
        return json.dumps(list(self.values))


Space = Mapping[str, Range | Choices]


def parse_space(texts: Sequence[str], recipe: Recipe) -> dict[str, Range | Choices]:
    """The space that was asked for; the default one if nothing was.

    Args:
        texts: `section.key=low..high`, `section.key=[value, ...]` in YAML, or `section.key` for its default range.
        recipe: that is tuned; each bound and value is put into it.

    Returns:
        Keys with their values, in the order in which they were asked for.

    Raises:
        RecipeError: a key can't be tuned, or a value is not one of the recipe. One message names all.
    """
    usual = default_space(recipe)
    space: dict[str, Range | Choices] = {} if texts else usual
    problems = []
    for text in texts:
        key, sign, values = (part.strip() for part in text.partition("="))
        try:
            if problem := _key_problem(key):
                raise ValueError(problem)
            if not sign and key not in usual:
                raise ValueError(f"has no range of its own; write --space {key}=low..high or {key}=[value, ...]")
            space[key] = _parse_values(key, values) if sign else usual[key]
        except ValueError as error:
            problems.append(f"--space {shown(text)}: {error}")
    problems += _value_problems(space, recipe)
    if not problems and recipe.training.get("max_steps", -1) > 0 and _EPOCHS in space:
        problems.append(f"{_EPOCHS}: training.max_steps decides over it; leave one of them out")
    if problems:
        lines = [f"  - {line}" for line in dict.fromkeys(problems)]
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        raise RecipeError("\n".join([f"The space to tune in has {count}:", *lines, "See docs/tuning.md."]))
    return space


def default_space(recipe: Recipe) -> dict[str, Range | Choices]:
    """Temperature, alpha, learning rate, epochs and layer map, around what the recipe says.

    Args:
        recipe: that is tuned. A schedule of temperature or alpha is tried as it is, against constant numbers.

    Returns:
        Keys with their values.
    """
    temperature = recipe.distillation.temperature
    known = temperature if isinstance(temperature, float) else 2.0
    rate, epochs = value_of(recipe, _RATE), value_of(recipe, _EPOCHS)
    is_whole = float(epochs).is_integer()
    own = recipe.student.layers
    return {
        "distillation.temperature": Range(min(1.0, known), max(8.0, known), is_log=True),
        "distillation.alpha": Range(0.0, 1.0),
        _RATE: Range(rate / 4, rate * 4, is_log=True),
        _EPOCHS: Range(max(1, epochs // 2) if is_whole else epochs / 2, 2 * epochs, is_whole=is_whole),
        _LAYERS: Choices((own, *(name for name in LAYER_MAPS if name != own))),
    }


def value_of(recipe: Recipe, key: str) -> Any:
    """What a recipe says for a key; what it leaves open is that of `TrainingArguments`, or None."""
    section, name = key.split(".", 1)
    return recipe.model_dump(exclude_none=True)[section].get(name, _UPSTREAM.get(key))


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values.

    Args:
        recipe: stays as it is.
        values: by key.

    Returns:
        Another recipe.

    Raises:
        RecipeError: a value is not one of the recipe.
    """
    changed = recipe.model_dump(exclude_none=True)
    for key, value in values.items():
        section, name = key.split(".", 1)
        changed[section] = {**changed[section], name: value}
    try:
        return Recipe.model_validate(changed)
    except ValidationError as error:
        rules = [each["ctx"]["text"] for each in error.errors() if each["type"] == "rules"]
        raise RecipeError("; ".join([*error_lines(error, Recipe), *rules])) from error


def _key_problem(key: str) -> str | None:
    section, _, name = key.partition(".")
    if key == _LAYERS or (section == "distillation" and name in Distillation.model_fields and name != "terms"):
        return None
    if section == "training" and name in known_training_arguments():
        is_own = name in FORCED or name.startswith(("save_", "eval_")) or name == "load_best_model_at_end"
        return f"{key} is set by the trials themselves" if is_own else None
    return f"expected distillation.temperature, distillation.alpha, {_LAYERS} or a key of training, got {shown(key)}"


def _parse_values(key: str, text: str) -> Range | Choices:
    if match := _RANGE.fullmatch(text):
        low, high = (_number(end.strip()) for end in match.groups())
        if not low < high:
            raise ValueError(f"expected a smaller and a larger number, got {text}")
        is_whole = _is_counted(key) and low.is_integer() and high.is_integer()
        if is_whole:
            low, high = int(low), int(high)
        return Range(low, high, is_log=key in _LOG and low > 0, is_whole=is_whole)
    values, problems = parse_yaml(text)
    if problems or not isinstance(values, list) or not values:
        raise ValueError(f"expected low..high or [value, ...], got {shown(text)}")
    return Choices(tuple(values))


def _is_counted(key: str) -> bool:
    """Whether a whole number at both ends means whole numbers between them: epochs, and what can be nothing else."""
    arguments = known_training_arguments()
    section, _, name = key.partition(".")
    return key == _EPOCHS or (section == "training" and name in arguments and "float" not in arguments[name].kinds)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number, got {shown(text)}")
    return number


def _value_problems(space: Space, recipe: Recipe) -> list[str]:
    problems = []
    for key, values in space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values.values:
            try:
                with_values(recipe, {key: value})
            except RecipeError as error:
                problems.append(f"{error}")
    return problems
