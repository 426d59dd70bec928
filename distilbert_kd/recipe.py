"""The recipe of one run: what may stand in it, and how a file and overrides become one.

The models are frozen records. The rules that join several keys are in `recipe_rules`; messages are written in
`recipe_messages`. Nothing here imports torch, so a recipe is checked at once, before anything is downloaded or loaded.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from distilbert_kd.errors import RecipeError
from distilbert_kd.plain_yaml import MAX_BYTES, dump_yaml, parse_yaml
from distilbert_kd.recipe_messages import error_lines
from distilbert_kd.recipe_rules import data_problems, distillation_problems, student_problems, teacher_problems
from distilbert_kd.training_arguments import check_training_arguments, known_training_arguments, shown


__all__ = ["Data", "Distillation", "Recipe", "Schedule", "Student", "Teacher", "load_recipe", "recipe_schema"]

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"

GlueTask = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
LayerMap = Literal["distilbert", "alternate", "alternate_last", "first", "last"]
Layer = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
Labels = Annotated[list[Text], Field(min_length=2)]


def _training_arguments(where: str) -> AfterValidator:
    def check(values: dict[str, Any]) -> dict[str, Any]:
        checked, problems = check_training_arguments(values, where)
        if problems:
            raise PydanticCustomError("lines", "{text}", {"lines": problems, "text": "; ".join(problems)})
        return checked

    return AfterValidator(check)


class _Section(BaseModel):
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


class Data(_Section):
    """Where the rows come from, and how much of them is read."""

    task: GlueTask | None = Field(default=None, description="A GLUE task.")
    path: PathText | None = Field(default=None, description="A folder in the original GLUE layout, for `task`.")
    dataset: Text | None = Field(default=None, description="A data set of the Hub, or its folder.")
    dataset_config: Text | None = Field(default=None, description="The configuration of `dataset`.")
    revision: Text | None = Field(default=None, description="The revision of the data set on the Hub.")
    train: PathText | None = Field(default=None, description="The training file, or the name of a split of `dataset`.")
    validation: PathText | None = Field(
        default=None, description="The validation file, or the name of a split of `dataset`."
    )
    test: PathText | None = Field(default=None, description="The test file, or the name of a split of `dataset`.")
    text: Text | None = Field(default=None, description="The column of the text (own data).")
    text_pair: Text | None = Field(default=None, description="The column of the second text (own data).")
    label: Text | None = Field(default=None, description="The column of the label (own data).")
    problem_type: Literal["single_label_classification", "regression"] | None = Field(
        default=None, description="Classes or a number (own data; a GLUE task knows)."
    )
    labels: Labels | None = Field(default=None, description="The names of the classes in their order (own data).")
    max_length: int = Field(default=128, ge=4, description="Longer inputs are cut to this number of tokens.")
    max_train_rows: int | None = Field(default=None, ge=1, description="Use so many training rows at most, at random.")
    allow_unlabelled_rows: bool = Field(
        default=False, description="Rows without a label learn from the teacher alone."
    )

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return data_problems(given)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Own data holds classes unless told otherwise, and a data set has the usual names of splits."""
        if not isinstance(values, Mapping) or values.get("task") is not None:
            return values
        usual = {"problem_type": "single_label_classification"}
        if values.get("dataset") is not None:
            usual |= {"train": "train", "validation": "validation"}
        return {**values, **{key: value for key, value in usual.items() if values.get(key) is None}}


class Teacher(_Section):
    """The model that is learnt from."""

    model: PathText = Field(description="Hub id, folder, or package:DISTRIBUTION for the model that a package ships.")
    revision: Text | None = Field(default=None, description="The revision of the model on the Hub.")
    labels: Labels | None = Field(
        default=None, description="The names of the teacher's outputs, when its config only says LABEL_0."
    )
    finetune: Annotated[dict[str, Any], _training_arguments("teacher.finetune")] | None = Field(
        default=None, description="Training arguments; present: train this base model on the task first."
    )
    allow_near_chance: bool = Field(default=False, description="Go on although the teacher scores near chance.")
    cache: bool = Field(default=True, description="Ask the teacher once for each row, and keep its logits on disk.")
    cache_dir: PathText | None = Field(
        default=None, description="Where logits are kept; distilbert_kd in HF_HOME by default."
    )

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return teacher_problems(given)


class Student(_Section):
    """Which layers the student starts with, and of which model."""

    init_from: PathText | None = Field(
        default=None,
        description="Hub id, folder or package:DISTRIBUTION of another model to cut the student from.",
    )
    num_layers: int | None = Field(
        default=None, ge=1, description="Number of layers; half of the teacher's by default."
    )
    layers: Annotated[
        Annotated[LayerMap, Tag("name")] | Annotated[list[Layer], Field(min_length=1), Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list) else "name"),
    ] = Field(default="alternate", description="A layer map by name, or the layers as a list.")
    freeze_embeddings: bool = Field(default=False, description="Leave the embeddings as the teacher's.")

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return student_problems(given)


class Schedule(_Section):
    """A number that moves from `start` to `end` over the training."""

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"


NumberOrSchedule = Annotated[
    Annotated[float, Tag("number")] | Annotated[Schedule, Tag("schedule")],
    Discriminator(lambda value: "schedule" if isinstance(value, Mapping | Schedule) else "number"),
]


class Distillation(_Section):
    """The objective: (1 - alpha) * hard loss + alpha * T^2 * KL(teacher_T || student_T)."""

    temperature: NumberOrSchedule = Field(
        default=2.0, description="T >= 0.01: how far the soft targets are flattened."
    )
    alpha: NumberOrSchedule = Field(default=0.5, description="The share of the soft targets in the loss, 0 to 1.")

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return distillation_problems(given)


class Recipe(_Section):
    """One run."""

    name: Annotated[str, Field(pattern=_NAME)] = Field(description="The run's name; the file's name by default.")
    output_dir: PathText = Field(
        default_factory=lambda known: f"runs/{known['name']}", description="The run folder; must be new or empty."
    )
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Seed of rows, weights and dropout, for every model of the run."
    )
    data: Data
    teacher: Teacher
    student: Student = Student()
    distillation: Distillation = Distillation()
    training: Annotated[dict[str, Any], _training_arguments("training")] = Field(
        default_factory=dict, description="Training arguments of student and control."
    )
    control: bool = Field(default=True, description="Train the same student on hard labels alone as well.")

    def to_yaml(self) -> str:
        """Write the resolved recipe: every key that is set or has a default, in the order of the models."""
        return dump_yaml(self.model_dump(exclude_none=True))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value`, the value in YAML; later ones win.

    Returns:
        The recipe with its defaults filled in.

    Raises:
        RecipeError: the file can't be read, or the recipe or an override is wrong. One message names every error.
    """
    values, problems = _read(path)
    for override in overrides:
        problems += _apply(values, override)
    stem = Path(path).stem
    if values.get("name") is None:
        values["name"] = stem
        if not re.match(_NAME, stem):
            got = f"the file's name {shown(stem)} can't be one"
            problems.append(f"name: missing, and {got}; set name (letters, digits, . _ -)")
            values["name"] = "unnamed"
    for section in ("student", "distillation", "training"):
        if section in values and values[section] is None:
            del values[section]
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += error_lines(error, Recipe)
        problems += [line for key, model in _SECTIONS.items() for line in _section_rules(values.get(key), model)]
    if recipe is None or problems:
        raise RecipeError(_message(path, problems))
    return recipe


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file, for editors (`# yaml-language-server: $schema=FILE`)."""
    schema = Recipe.model_json_schema()
    schema["required"].remove("name")
    names: dict[str, Any] = {name: {} for name in known_training_arguments()}
    schema["$defs"]["TrainingArguments"] = {"type": "object", "additionalProperties": False, "properties": names}
    reference = {"$ref": "#/$defs/TrainingArguments"}
    description = schema["properties"]["training"]["description"]
    schema["properties"]["training"] = {**reference, "description": description}
    schema["$defs"]["Teacher"]["properties"]["finetune"]["anyOf"] = [reference, {"type": "null"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_SECTIONS: dict[str, type[_Section]] = {
    "data": Data,
    "teacher": Teacher,
    "student": Student,
    "distillation": Distillation,
}


def _section_rules(values: Any, model: type[_Section]) -> list[str]:
    return model._rules(values) if isinstance(values, Mapping) else []


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
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
        raise RecipeError(_message(path, problems))
    if not isinstance(values, dict):
        got = "an empty file" if values is None else shown(values)
        raise RecipeError(
            f"Expected a recipe with sections (data, teacher, ...) in {path}, got {got}. See recipes/README.md."
        )
    return values, problems


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


def _message(path: Path, problems: Sequence[str]) -> str:
    lines = list(dict.fromkeys(problems))
    count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
    end = "Correct the file, or override a value with section.key=value. Every key is in recipes/README.md."
    return "\n".join([f"The recipe {path} has {count}:", *(f"  - {line}" for line in lines), end])
