"""What a recipe would do, in lines, before anything of it is done.

The data are read, so that rows are counted and labels known. Of the models only the configuration is read: they are
built without weights (on torch's meta device), cut and counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainingArguments

from distilbert_kd.augmentation.from_recipe import transfer_set_of
from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.errors import TeacherError
from distilbert_kd.hardware import describe_device
from distilbert_kd.plan_lines import (
    layer_map_line,
    outline,
    projection_line,
    render,
    schedule_line,
    size_line,
    student_line,
    term_lines,
)
from distilbert_kd.prepared_arguments import best_epoch, check_attention, training_arguments
from distilbert_kd.recipe import Recipe, Schedule
from distilbert_kd.recipe_parts import layers_of, terms_of
from distilbert_kd.student.build import build_student
from distilbert_kd.student.distilbert import is_distilbert
from distilbert_kd.teacher import config_of
from distilbert_kd.trainer_options import refuse_ignored_arguments


__all__ = ["describe"]


def describe(recipe: Recipe) -> str:
    """The plan of a run: rows, models, layer map, objective, steps.

    Args:
        recipe: of the run.

    Returns:
        Lines of a name and what is said of it, to be printed as they are.

    Raises:
        DistillationError: as in `distilbert_kd.pipeline.run`, for what can be found without weights.
    """
    data = load_task(recipe.data, recipe.name)
    settings = _training(recipe.training, "training", recipe)
    refuse_ignored_arguments(settings, recipe.distillation.has_deep_terms)
    check_attention(recipe.attn_implementation, settings, "training")
    is_whole = recipe.teacher.finetune is None
    teacher = _outline(recipe.teacher.model, data, recipe.teacher.revision, is_whole)
    origin = teacher if recipe.student.init_from is None else _outline(recipe.student.init_from, data, None, False)
    layers = layers_of(recipe.student, teacher, origin)
    with torch.device("meta"):
        student = build_student(origin, layers=layers, architecture=recipe.student.architecture)
    num_student_parameters = student.num_parameters()
    terms = DeepTerms(student, teacher, terms_of(recipe))
    rows = {"train": data.train, **data.evaluation}
    lines = {
        "recipe": f"{recipe.name}, seed {recipe.seed}, run folder {recipe.output_dir}",
        "data": f"{data.name} from {data.source}",
        "rows": ", ".join(f"{split} {len(of_split):,}{_drawn_from(data, split)}" for split, of_split in rows.items()),
        "teacher": f"{recipe.teacher.model}: {size_line(teacher)}, {teacher.num_parameters():,} parameters",
        "": _teacher_training(recipe, len(data.train)),
        "augmentation": _augmentation(recipe),
        "student": student_line(student, num_student_parameters, teacher, recipe.student.freeze_embeddings)
        + _lost_token_types(student, teacher, data),
        "layer map": layer_map_line(layers, recipe.student.layers, recipe.student.init_from),
        "objective": " + ".join(_objective(recipe)),
        **term_lines(terms),
        "projections": projection_line(terms),
        "soft targets": _soft_targets(recipe),
        "training": _most(recipe, settings) + schedule_line(settings, _most_rows(recipe, len(data.train))),
        "control": _control(recipe),
        "device": describe_device(settings),
    }
    return render(lines)


def _outline(name: str, data: TaskData, revision: str | None, is_whole: bool) -> PreTrainedModel:
    """A classifier for the data without weights; one that is to be whole must have the data's outputs."""
    num_outputs = 1 if data.label_names is None else len(data.label_names)
    config = config_of(name, revision)
    if is_whole and config.num_labels != num_outputs:
        raise TeacherError(
            f"Expected a teacher with {num_outputs} outputs, as {data.name} has, got {name} with "
            f"{config.num_labels}. Take a teacher that was fine-tuned for this task."
        )
    config.num_labels = num_outputs
    return outline(config, AutoModelForSequenceClassification, name)


def _lost_token_types(student: PreTrainedModel, teacher: PreTrainedModel, data: TaskData) -> str:
    is_lost = is_distilbert(student) and not is_distilbert(teacher) and "text_pair" in data.train.column_names
    return "; no token types: first and second text are told apart by [SEP] alone" if is_lost else ""


def _training(values: Mapping[str, Any], where: str, recipe: Recipe) -> TrainingArguments:
    return training_arguments(values, where, Path(recipe.output_dir), recipe.seed, show_bars=False)


def _drawn_from(data: TaskData, split: str) -> str:
    return f" of {data.drawn_from[split]:,}" if split in data.drawn_from else ""


def _teacher_training(recipe: Recipe, num_rows: int) -> str:
    if recipe.teacher.finetune is None:
        return "taken as it is"
    settings = _training({**best_epoch(), **recipe.teacher.finetune}, "teacher.finetune", recipe)
    return f"fine-tuned first, on the labels: {schedule_line(settings, num_rows)}"


def _augmentation(recipe: Recipe) -> str:
    """What is added to the training rows; how much of it is new is known when it is made."""
    section = recipe.augmentation
    if section is None:
        return ""
    parts = []
    if section.num_copies:
        methods = ", ".join(
            name if len(section.methods) == 1 else f"{name} {weight:g}" for name, weight in section.methods.items()
        )
        copies = "1 copy" if section.num_copies == 1 else f"{section.num_copies} copies"
        parts.append(
            f"{copies} of each row by {methods}; p = {section.fraction:g}, K = {section.num_candidates}, "
            f"alpha = {recipe.distillation.alpha_augmented:g}"
        )
    if section.transfer_set is not None:
        parts.append(f"{_transfer_rows(recipe):,} unlabelled texts of {section.transfer_set} at most, alpha = 1")
    return "; ".join([*parts, "equal rows are dropped"])


def _transfer_rows(recipe: Recipe) -> int:
    transfer = transfer_set_of(recipe)
    return 0 if transfer is None else len(transfer)


def _most_rows(recipe: Recipe, num_rows: int) -> int:
    """Rows of student and control, if no copy is dropped."""
    if recipe.augmentation is None:
        return num_rows
    return num_rows * (1 + recipe.augmentation.num_copies) + _transfer_rows(recipe)


def _most(recipe: Recipe, settings: TrainingArguments) -> str:
    """How the epochs and steps, which are those without a dropped row, bound the real ones."""
    if recipe.augmentation is None:
        return ""
    return "at least " if settings.max_steps > 0 else "at most "


def _control(recipe: Recipe) -> str:
    if not recipe.control:
        return "none"
    if recipe.augmentation is None:
        return "the same student on hard labels alone, as many steps"
    without = ", without the unlabelled texts" if recipe.augmentation.transfer_set is not None else ""
    return f"the same student on hard labels alone, on the same rows, a copy with its row's label{without}"


def _objective(recipe: Recipe) -> list[str]:
    alpha, temperature = recipe.distillation.alpha, recipe.distillation.temperature
    if isinstance(alpha, Schedule):
        parts = [f"(1 - alpha) * hard_loss + alpha * soft_loss(T = {_value(temperature)}), alpha {_value(alpha)}"]
    else:
        parts = [f"{1 - alpha:g} * hard_loss", f"{alpha:g} * soft_loss(T = {_value(temperature)})"]
    weights = {name: term.weight for name, term in terms_of(recipe).items()}
    return [*parts, *(f"{weight:g} * {name}" for name, weight in weights.items() if weight > 0)]


def _value(value: float | Schedule) -> str:
    return f"{value.start:g} to {value.end:g} ({value.shape})" if isinstance(value, Schedule) else f"{value:g}"


def _soft_targets(recipe: Recipe) -> str:
    if recipe.distillation.has_deep_terms:
        return "the teacher is asked at each step, because the terms read its layers"
    if not recipe.teacher.cache:
        return "the teacher is asked at each step (teacher.cache is false)"
    return "the teacher is asked once for each row; its answers are kept on disk"
