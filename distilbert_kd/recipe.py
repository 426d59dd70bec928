"""The recipe of one run: what may stand in it, and how a file and overrides become one.

The models are frozen records. How a file is read is in `recipe_file`; the rules that join several keys are in
`recipe_rules`. Nothing here imports torch, so a recipe is checked at once, before anything is downloaded or loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from distilbert_kd.hub.target import target_problems
from distilbert_kd.recipe_file import BaseRecipe, PathText, Section, Text, checked_training_arguments, read_recipe
from distilbert_kd.recipe_rules import (
    augmentation_problems,
    data_problems,
    distillation_problems,
    student_problems,
    teacher_problems,
)
from distilbert_kd.training_arguments import known_training_arguments


__all__ = [
    "Augmentation",
    "Data",
    "Distillation",
    "Push",
    "Recipe",
    "Schedule",
    "Student",
    "Teacher",
    "load_recipe",
    "recipe_schema",
]

GlueTask = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
LayerMap = Literal["distilbert", "alternate", "alternate_last", "first", "last"]
Layer = Annotated[int, Field(ge=0)]
MatchedLayers = Literal["last", "uniform", "uniform_and_embeddings", "skip"]
LayerOrEmbeddings = Annotated[int, Field(ge=-1)]
Pair = Annotated[list[LayerOrEmbeddings], Field(min_length=2, max_length=2)]
TermName = Literal[
    "hidden_cosine",
    "hidden_mse",
    "first_position",
    "attention_mse",
    "attention_kl",
    "query_relation",
    "key_relation",
    "value_relation",
]
Labels = Annotated[list[Text], Field(min_length=2)]
Method = Literal["masked_lm", "embedding_neighbours", "deletion", "swap", "span"]
Weight = Annotated[float, Field(gt=0)]


class Data(Section):
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
    max_validation_rows: int | None = Field(
        default=None, ge=1, description="Score so many validation rows at most, at random; test rows are all scored."
    )
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


class Augmentation(Section):
    """Rows that are added to the training rows of student and control, after the teacher's training."""

    num_copies: int = Field(default=1, ge=0, le=1000, description="Altered copies of each training row.")
    methods: Annotated[
        dict[Method, Weight], Field(min_length=1), BeforeValidator(lambda value: _equal_weights(value))
    ] = Field(
        default={"masked_lm": 1.0},
        description="How copies are made: a list, or name and weight; each copy draws one.",
    )
    fraction: float = Field(default=0.4, gt=0, le=1, description="p: the share of a text's words that change.")
    num_candidates: int = Field(default=15, ge=1, le=1000, description="K: a word's replacement is one of so many.")
    masked_lm: PathText | None = Field(
        default=None,
        description="Hub id, folder or package:DISTRIBUTION of a masked language model; the teacher's by default.",
    )
    transfer_set: PathText | None = Field(
        default=None, description="A file of unlabelled texts, which learn from the teacher alone."
    )
    max_transfer_rows: int | None = Field(
        default=None, ge=1, description="Use so many of its rows at most, at random."
    )

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return augmentation_problems(given)


def _equal_weights(methods: Any) -> Any:
    """A list of names as names with a weight each; anything else as it is."""
    return dict.fromkeys(methods, 1.0) if isinstance(methods, list) and all(map(_is_text, methods)) else methods


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


class Teacher(Section):
    """The model that is learnt from."""

    model: PathText = Field(description="Hub id, folder, or package:DISTRIBUTION for the model that a package ships.")
    revision: Text | None = Field(default=None, description="The revision of the model on the Hub.")
    labels: Labels | None = Field(
        default=None, description="The names of the teacher's outputs, when its config only says LABEL_0."
    )
    finetune: Annotated[dict[str, Any], checked_training_arguments("teacher.finetune")] | None = Field(
        default=None, description="Training arguments; present: train this base model on the task first."
    )
    allow_near_chance: bool = Field(default=False, description="Go on although the teacher scores near chance.")
    cache: bool = Field(default=True, description="Ask the teacher once for each row, and keep its logits on disk.")
    cache_dir: PathText | None = Field(
        default=None, description="Where logits and augmented rows are kept; distilbert_kd in HF_HOME by default."
    )

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return teacher_problems(given)


class Student(Section):
    """Which layers the student starts with, and of which model."""

    init_from: PathText | None = Field(
        default=None,
        description="Hub id, folder or package:DISTRIBUTION of another model to cut the student from.",
    )
    num_layers: int | None = Field(
        default=None, ge=1, description="Number of layers; half of the teacher's by default."
    )
    layers: Annotated[
        Annotated[LayerMap, Tag("(name)")] | Annotated[list[Layer], Field(min_length=1), Tag("(list)")],
        Discriminator(lambda value: "(list)" if isinstance(value, list) else "(name)"),
    ] = Field(default="alternate", description="A layer map by name, or the layers as a list.")
    architecture: Literal["distilbert"] | None = Field(
        default=None, description="distilbert: a stock DistilBERT of a BERT; the teacher's own by default."
    )
    freeze_embeddings: bool = Field(default=False, description="Leave the embeddings as the teacher's.")

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return student_problems(given)


class Schedule(Section):
    """A number that moves from `start` to `end` over the training."""

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"


NumberOrSchedule = Annotated[
    Annotated[float, Tag("(number)")] | Annotated[Schedule, Tag("(schedule)")],
    Discriminator(lambda value: "(schedule)" if isinstance(value, Mapping | Schedule) else "(number)"),
]


class Term(Section):
    """A deeper term: how much it weighs, and which layers it compares."""

    weight: float = Field(ge=0, description="Its weight in the objective.")
    layers: (
        Annotated[
            Annotated[MatchedLayers, Tag("(name)")] | Annotated[list[Pair], Field(min_length=1), Tag("(list)")],
            Discriminator(lambda value: "(list)" if isinstance(value, list) else "(name)"),
        ]
        | None
    ) = Field(default=None, description="Matched layers by name, or pairs [student layer, teacher layer]; from 0.")
    num_relation_heads: int | None = Field(
        default=None, ge=1, description="Of a relation: its heads; the student's attention heads by default."
    )


WeightOrTerm = Annotated[
    Annotated[float, Field(ge=0), Tag("(weight)")] | Annotated[Term, Tag("(term)")],
    Discriminator(lambda value: "(term)" if isinstance(value, Mapping | Term) else "(weight)"),
]


class Distillation(Section):
    """The objective: (1 - alpha) * hard loss + alpha * T^2 * KL(teacher_T || student_T), and deeper terms."""

    temperature: NumberOrSchedule = Field(
        default=2.0, description="T >= 0.01: how far the soft targets are flattened."
    )
    alpha: NumberOrSchedule = Field(default=0.5, description="The share of the soft targets in the loss, 0 to 1.")
    alpha_augmented: float = Field(
        default=1.0, ge=0, le=1, description="The same for augmented rows, whose labels are doubtful."
    )
    terms: dict[TermName, WeightOrTerm] = Field(
        default_factory=dict, description="Deeper terms by name: their weights, or weight and layers."
    )

    @property
    def has_deep_terms(self) -> bool:
        """Whether any deeper term has a weight."""
        return any((term.weight if isinstance(term, Term) else term) > 0 for term in self.terms.values())

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return distillation_problems(given)


class Push(Section):
    """Where the student goes on the Hub when the run is done."""

    repo: Text | None = Field(default=None, description="The repository, owner/name; made if it is missing.")
    private: bool | None = Field(
        default=None, description="Whether a new repository is private; its owner's setting by default."
    )
    revision: Text | None = Field(default=None, description="The branch; made if it is missing; main by default.")
    create_pr: bool = Field(default=False, description="Open a pull request in place of a commit.")
    tag: Text | None = Field(default=None, description="Tag of the commit; never moved.")
    license: Text | None = Field(default=None, description="For the card: the licence's id, such as apache-2.0.")
    language: Text | None = Field(default=None, description="For the card: the texts' language; en for GLUE tasks.")
    space: bool = Field(default=False, description="Also push a page to try it, as a Space of the same name.")

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return target_problems(given)


class Recipe(BaseRecipe):
    """One run."""

    data: Data
    teacher: Teacher
    augmentation: Augmentation | None = Field(
        default=None, description="Present: add altered copies of the training rows, or unlabelled texts."
    )
    student: Student = Student()
    distillation: Distillation = Distillation()
    training: Annotated[dict[str, Any], checked_training_arguments("training")] = Field(
        default_factory=dict, description="Training arguments of student and control."
    )
    control: bool = Field(default=True, description="Train the same student on hard labels alone as well.")
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = Field(
        default=None, description="How attention is computed in training; transformers' choice by default."
    )
    push: Push | None = Field(default=None, description="Present: push the student to the Hub when the run is done.")

    @property
    def asks_teacher_at_each_step(self) -> bool:
        """Whether the teacher is in memory while the student trains, and reads the student's tokens."""
        return self.distillation.has_deep_terms or not self.teacher.cache


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
    return read_recipe(path, overrides, Recipe, "recipes/README.md")


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
