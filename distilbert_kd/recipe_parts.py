"""What a recipe says, as objects: models with their rows, terms, schedules, the cache's folder.

Here and in the commands' own modules a recipe is unpacked; what these call takes ordinary objects.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from distilbert_kd.compatibility import check_same_tokenizer
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.data.tasks import get_task
from distilbert_kd.deep_terms import Term
from distilbert_kd.errors import RecipeError
from distilbert_kd.losses.schedule import Schedule
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe import Schedule as RecipeSchedule
from distilbert_kd.recipe import Student as RecipeStudent
from distilbert_kd.recipe import Term as RecipeTerm
from distilbert_kd.student.build import build_student, count_layers, freeze_embeddings
from distilbert_kd.student.distilbert import check_can_be_distilbert, is_distilbert
from distilbert_kd.student.layer_maps import half_of, resolve_layers
from distilbert_kd.task_rows import Reader, TaskRows, tokenize_task, tokenizer_for
from distilbert_kd.teacher import config_of, load_base, load_teacher, load_tokenizer
from distilbert_kd.teacher_cache import DEFAULT_CACHE_DIR


__all__ = [
    "as_terms",
    "cache_dir_of",
    "check_architecture",
    "check_layers",
    "layers_of",
    "log_data",
    "readers_of",
    "schedule_of",
    "student_of",
    "terms_of",
    "text_columns",
]

logger = logging.getLogger(__name__)


def readers_of(recipe: Recipe, data: TaskData) -> tuple[Reader, Reader]:
    """The teacher, as it comes or with a new head to be fine-tuned, and the model that the student is cut from.

    Args:
        recipe: of the run.
        data: its rows.

    Returns:
        Both, each with its tokenizer and rows; the same object twice without `student.init_from`.

    Raises:
        TeacherError: a model or tokenizer can't be had, or they don't fit each other.
    """
    source, max_length = recipe.teacher, recipe.data.max_length
    set_seed(recipe.seed)
    tokenizer = load_tokenizer(source.model, source.revision)
    if source.finetune is None:
        model = load_teacher(source.model, data.label_names, source.revision, source.labels)
    else:
        model = load_base(source.model, data.label_names, source.revision)
    teacher = Reader(model, tokenizer, tokenize_task(data, tokenizer, max_length, model))
    if recipe.student.init_from is None:
        return teacher, teacher
    tokenizer = load_tokenizer(recipe.student.init_from)
    model = load_base(recipe.student.init_from, data.label_names)
    readers = [model]
    if recipe.asks_teacher_at_each_step:  # of the same rows, which must hold what either model takes
        check_same_tokenizer(tokenizer, teacher.tokenizer)
        readers.append(teacher.model)
    return teacher, Reader(model, tokenizer, tokenize_task(data, tokenizer, max_length, *readers))


def layers_of(student: RecipeStudent, teacher: PreTrainedModel, origin: PreTrainedModel) -> list[int]:
    """Which layers of `origin` the student keeps; half as many as the teacher has, unless the recipe says otherwise.

    Args:
        student: of the recipe.
        teacher: that it learns from.
        origin: that it is cut from.

    Returns:
        Increasing layer numbers from 0.

    Raises:
        RecipeError: they don't fit the model.
    """
    return _layers_among(student, count_layers(teacher), count_layers(origin))


def check_layers(student: RecipeStudent, teacher: str, revision: str | None = None) -> None:
    """Refuses layers that are not there, by the models' configurations alone: no data or weights are read for it.

    Args:
        student: of the recipe.
        teacher: Hub id, folder, or `package:DISTRIBUTION`.
        revision: of the teacher's repository.

    Raises:
        RecipeError: they don't fit the model that the student is cut from.
        TeacherError: a configuration can't be had.
    """
    configs = [config_of(teacher, revision)]
    configs.append(configs[0] if student.init_from is None else config_of(student.init_from, None))
    num_teacher_layers, num_origin_layers = (getattr(config, "num_hidden_layers", None) for config in configs)
    if num_teacher_layers is not None and num_origin_layers is not None:  # else it can't be cut, which is said later
        _layers_among(student, num_teacher_layers, num_origin_layers)


def _layers_among(student: RecipeStudent, num_teacher_layers: int, num_origin_layers: int) -> list[int]:
    num_layers = student.num_layers
    is_default = num_layers is None and isinstance(student.layers, str)
    if is_default:
        num_layers = half_of(num_teacher_layers)
    try:
        return resolve_layers(num_origin_layers, num_layers, student.layers)
    except RecipeError as error:
        note = " Unless it is set, it is half of the teacher's layers." if is_default else ""
        raise RecipeError(f"student.{error}{note}") from None


def check_architecture(teacher: Reader, origin: Reader, data: TaskData, recipe: Recipe) -> None:
    """Refuses a student of another architecture that can't be made, before the teacher is trained.

    Args:
        teacher: of the student; where it has token types and the student has none, that is said for rows of two texts.
        origin: what the student is cut from.
        data: its rows.
        recipe: of the run.

    Raises:
        TeacherError: no DistilBERT can be made of the model.
    """
    is_wanted, is_given = recipe.student.architecture == "distilbert", is_distilbert(origin.model)
    if is_wanted and not is_given:
        check_can_be_distilbert(origin.model)
    is_pair = "text_pair" in data.train.column_names
    if (is_wanted or is_given) and is_pair and not is_distilbert(teacher.model):
        logger.warning(
            "A DistilBERT has no token types: the student can't tell first and second text apart but by [SEP]."
        )


def student_of(origin: Reader, layers: list[int], recipe: Recipe) -> Reader:
    """A student, before its training.

    Args:
        origin: what it is cut from.
        layers: that are kept.
        recipe: of the run.

    Returns:
        The student with its tokenizer, and the rows of `origin`.
    """
    student = build_student(origin.model, layers=layers, architecture=recipe.student.architecture)
    if recipe.student.freeze_embeddings:
        freeze_embeddings(student)
    return Reader(student, tokenizer_for(student, origin.tokenizer), origin.rows)


def terms_of(recipe: Recipe) -> dict[str, Term]:
    """The deeper terms of a recipe as the trainer takes them.

    Args:
        recipe: of the run.

    Returns:
        Terms by name; those of weight 0 too.
    """
    return as_terms(recipe.distillation.terms)


def as_terms(terms: Mapping[Any, float | RecipeTerm]) -> dict[str, Term]:
    """Deeper terms as a recipe of either kind has them, as the trainers take them."""
    return {
        name: Term(**term.model_dump()) if isinstance(term, RecipeTerm) else Term(term) for name, term in terms.items()
    }


def schedule_of(value: float | RecipeSchedule) -> float | Schedule:
    """A number or schedule of a recipe as the trainer takes it."""
    return Schedule(value.start, value.end, value.shape) if isinstance(value, RecipeSchedule) else value


def cache_dir_of(recipe: Recipe) -> Path | None:
    """Where the teacher's answers are kept; None where the recipe wants no cache."""
    if not recipe.teacher.cache:
        return None
    return DEFAULT_CACHE_DIR if recipe.teacher.cache_dir is None else Path(recipe.teacher.cache_dir)


def text_columns(recipe: Recipe | None) -> tuple[str, str | None]:
    """Where a file's texts stand when nobody says so. A model of pairs must never be given one text alone.

    Args:
        recipe: of a run; None for a model without one.

    Returns:
        Names of the columns of the text and of the second text; None where the models read one.
    """
    if recipe is None:
        return "text", None
    if recipe.data.task is not None:
        return "text", "text_pair" if get_task(recipe.data.task).text_pair else None
    return recipe.data.text or "text", recipe.data.text_pair


def log_data(data: TaskData, rows: TaskRows, max_length: int) -> None:
    """Logs where the rows come from, how many there are, and what was found in them."""
    splits = {"train": data.train, **data.evaluation}
    counts = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    logger.info("data: %s from %s: %s rows", data.name, data.source, counts)
    for note in (*data.notes, *rows.notes(max_length)):
        logger.info("data: %s", note)
