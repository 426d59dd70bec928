"""The recipe of a task-agnostic distillation: what may stand in it. No torch is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from distilbert_kd.recipe import Student, TermName, WeightOrTerm
from distilbert_kd.recipe_file import BaseRecipe, PathText, Section, Text, checked_training_arguments, read_recipe
from distilbert_kd.recipe_rules import teacher_problems
from distilbert_kd.training_arguments import shown


__all__ = [
    "HubText",
    "LanguageTeacher",
    "Objective",
    "PretrainingRecipe",
    "PretrainingText",
    "load_pretraining_recipe",
]


class HubText(Section):
    """A data set of the Hub, or a part of it."""

    dataset: Text = Field(description="The data set's id, or its folder.")
    config: Text | None = Field(default=None, description="Its configuration.")
    split: Text = Field(default="train", description="Its split.")
    revision: Text | None = Field(default=None, description="Its revision on the Hub.")


class PretrainingText(Section):
    """Where the text comes from, and how it becomes rows."""

    files: Annotated[list[PathText], Field(min_length=1)] | None = Field(
        default=None, description="Paths, patterns (**/*.txt) and folders of .txt, .jsonl, .csv or .parquet, or .gz."
    )
    datasets: Annotated[list[HubText], Field(min_length=1)] | None = Field(
        default=None, description="Data sets of the Hub, one after the other."
    )
    column: Text = Field(default="text", description="The column of the text; a .txt file has one text a line.")
    packing: Literal["blocks", "sentences"] = Field(
        default="blocks", description="blocks: texts joined and cut into rows of max_length; sentences: one row each."
    )
    max_length: int = Field(default=512, ge=4, description="Tokens of a row, special ones included.")
    max_rows: int | None = Field(default=None, ge=1, description="Use the first so many rows.")
    cache_dir: PathText | None = Field(
        default=None, description="Where tokenised text is kept; distilbert_kd in HF_HOME by default."
    )

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        sources = [key for key in ("files", "datasets") if given.get(key) is not None]
        if len(sources) == 1:
            return []
        return [f"text: expected one source (files or datasets), got {' and '.join(sources) or 'none'}"]


class LanguageTeacher(Section):
    """The model that is learnt from: an encoder, with the head of a masked language model if a term needs one."""

    model: PathText = Field(description="Hub id, folder, or package:DISTRIBUTION for the model that a package ships.")
    revision: Text | None = Field(default=None, description="The revision of the model on the Hub.")

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        return teacher_problems(given)


class Objective(Section):
    """The terms and their weights: DistilBERT's, unless told otherwise."""

    soft_targets: float = Field(default=5.0, ge=0, description="Weight of the teacher's distribution over the words.")
    masked_language_model: float = Field(default=2.0, ge=0, description="Weight of finding the masked tokens.")
    temperature: float = Field(default=2.0, ge=0.01, description="T: how far the soft targets are flattened.")
    masking_probability: float = Field(default=0.15, gt=0, lt=1, description="The share of tokens that is masked.")
    terms: dict[TermName, WeightOrTerm] = Field(
        default={"hidden_cosine": 1.0},
        description="Deeper terms by name, as in a task's recipe; hidden_cosine: 1.0 unless any is named.",
    )

    @property
    def needs_vocabulary(self) -> bool:
        """Whether a term looks at the distribution over the vocabulary, and so needs the head for it."""
        return self.soft_targets > 0 or self.masked_language_model > 0

    @staticmethod
    def _rules(given: Mapping[str, Any]) -> list[str]:
        terms = given.get("terms", {"hidden_cosine": 1.0})
        deep = terms.values() if isinstance(terms, Mapping) else []
        weights = [given.get("soft_targets", 5.0), given.get("masked_language_model", 2.0)]
        weights += [term.get("weight") if isinstance(term, Mapping) else term for term in deep]
        if all(weight == 0 for weight in weights):
            return ["objective: expected a term with a weight above 0, got none"]
        if any(weight != 0 for weight in weights[:2]):
            return []
        reason = "nobody reads it without a weight on soft_targets or masked_language_model; leave it out"
        ignored = [key for key in ("temperature", "masking_probability") if key in given]
        return [f"objective.{key}: {shown(given[key])}: {reason}" for key in ignored]


def _without_evaluation(values: dict[str, Any]) -> dict[str, Any]:
    if values.get("eval_strategy", "no") != "no":
        line = (
            f"training.eval_strategy: {shown(values['eval_strategy'])}: not allowed here, there are no rows to score; "
            "a student of language is judged by the tasks that start from it"
        )
        raise PydanticCustomError("lines", "{text}", {"lines": [line], "text": line})
    return values


class PretrainingRecipe(BaseRecipe):
    """One task-agnostic distillation."""

    text: PretrainingText
    teacher: LanguageTeacher
    student: Student = Student()
    objective: Objective = Objective()
    training: Annotated[
        dict[str, Any], checked_training_arguments("training"), AfterValidator(_without_evaluation)
    ] = Field(default_factory=dict, description="Training arguments; those of DistilBERT by default.")


def load_pretraining_recipe(path: Path, overrides: Sequence[str] = ()) -> PretrainingRecipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `section.key=value`, the value in YAML; later ones win.

    Returns:
        The recipe with its defaults filled in.

    Raises:
        RecipeError: the file can't be read, or the recipe or an override is wrong. One message names every error.
    """
    return read_recipe(path, overrides, PretrainingRecipe, "docs/pretraining.md")
