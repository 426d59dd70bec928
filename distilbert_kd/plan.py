"""What a recipe would do, in lines, before anything of it is done.

The data are read, so that rows are counted and labels known. Of the models only the configuration is read: they are
built without weights (on torch's meta device), cut and counted.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, TrainingArguments

from distilbert_kd.data.loading import load_task
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.errors import TeacherError
from distilbert_kd.hardware import describe_device
from distilbert_kd.prepared_arguments import best_epoch, check_attention, training_arguments
from distilbert_kd.recipe import Recipe, Schedule
from distilbert_kd.recipe_parts import layers_of, terms_of
from distilbert_kd.signals import EMBEDDINGS
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.teacher import model_location
from distilbert_kd.trainer_options import refuse_ignored_arguments


__all__ = ["describe", "num_training_steps"]


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
        "rows": ", ".join(f"{split} {len(of_split):,}" for split, of_split in rows.items()),
        "teacher": f"{recipe.teacher.model}: {_size(teacher)}, {teacher.num_parameters():,} parameters",
        "": _teacher_training(recipe, len(data.train)),
        "student": f"{_size(student)}, {num_student_parameters:,} parameters, "
        f"{num_student_parameters / teacher.num_parameters():.1%} of the teacher's"
        + (", embeddings frozen" if recipe.student.freeze_embeddings else ""),
        "layer map": _layer_map(layers, recipe.student.layers, recipe.student.init_from),
        "objective": " + ".join(_objective(recipe)),
        **_term_lines(terms),
        "projections": _projections(terms),
        "soft targets": _soft_targets(recipe),
        "training": _steps(settings, len(data.train)),
        "control": "the same student on hard labels alone, as many steps" if recipe.control else "none",
        "device": describe_device(settings),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)


def num_training_steps(arguments: TrainingArguments, num_rows: int) -> int:
    """The optimizer steps of a training, as `Trainer.train` counts them.

    Args:
        arguments: of the training.
        num_rows: of the training set.

    Returns:
        Steps of all epochs.
    """
    if arguments.max_steps > 0:
        return arguments.max_steps
    batches = num_rows / (arguments.train_batch_size * arguments.world_size)
    num_batches = math.floor(batches) if arguments.dataloader_drop_last else math.ceil(batches)
    steps_per_epoch = max(math.ceil(num_batches / arguments.gradient_accumulation_steps), 1)
    return math.ceil(arguments.num_train_epochs * steps_per_epoch)


def _outline(name: str, data: TaskData, revision: str | None, is_whole: bool) -> PreTrainedModel:
    """A classifier for the data without weights; one that is to be whole must have the data's outputs."""
    num_outputs = 1 if data.label_names is None else len(data.label_names)
    try:
        config = AutoConfig.from_pretrained(model_location(name), revision=revision, trust_remote_code=False)
        if is_whole and config.num_labels != num_outputs:
            raise TeacherError(
                f"Expected a teacher with {num_outputs} outputs, as {data.name} has, got {name} with "
                f"{config.num_labels}. Take a teacher that was fine-tuned for this task."
            )
        config.num_labels = num_outputs
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
    except TeacherError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise TeacherError(
            f"Expected the configuration of a model at {name!r}, got: {reason}. Give a folder, a Hub id, or "
            "package:NAME."
        ) from error


def _size(model: PreTrainedModel) -> str:
    return f"{type(model).__name__}, {count_layers(model)} layers x {model.config.hidden_size}"


def _training(values: Mapping[str, Any], where: str, recipe: Recipe) -> TrainingArguments:
    return training_arguments(values, where, Path(recipe.output_dir), recipe.seed, show_bars=False)


def _teacher_training(recipe: Recipe, num_rows: int) -> str:
    if recipe.teacher.finetune is None:
        return "taken as it is"
    settings = _training({**best_epoch(), **recipe.teacher.finetune}, "teacher.finetune", recipe)
    return f"fine-tuned first, on the labels: {_steps(settings, num_rows)}"


def _steps(settings: TrainingArguments, num_rows: int) -> str:
    batch_size = settings.train_batch_size * settings.gradient_accumulation_steps * settings.world_size
    steps = num_training_steps(settings, num_rows)
    epochs = steps * batch_size / num_rows if settings.max_steps > 0 else settings.num_train_epochs
    return f"{epochs:g} epochs, {steps:,} steps of {batch_size} rows, learning rate {settings.learning_rate:g}"


def _layer_map(layers: list[int], asked: str | list[int], init_from: str | None) -> str:
    pairs = ", ".join(f"{student} from {teacher}" for student, teacher in enumerate(layers))
    source = "the teacher" if init_from is None else init_from
    return f"{pairs} of {source}" + (f" ({asked})" if isinstance(asked, str) else "")


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


def _term_lines(terms: DeepTerms) -> dict[str, str]:
    lines = {}
    for name, term in terms.terms.items():
        pairs = ", ".join(f"{_layer(student)} with {_layer(teacher)}" for student, teacher in term.pairs)
        heads = f"; {term.num_heads} heads" if term.num_heads else ""
        lines[f"  {name}"] = f"weight {term.weight:g}; student and teacher layers {pairs}{heads}"
    return lines


def _layer(number: int) -> str:
    return "embeddings" if number == EMBEDDINGS else str(number)


def _projections(terms: DeepTerms) -> str:
    if terms.projections is None:
        return ""
    num_parameters = sum(parameter.numel() for parameter in terms.projections.parameters())
    return f"{', '.join(terms.projections)}: {num_parameters:,} parameters, left out of the student's folder"


def _soft_targets(recipe: Recipe) -> str:
    if recipe.distillation.has_deep_terms:
        return "the teacher is asked at each step, because the terms read its layers"
    if not recipe.teacher.cache:
        return "the teacher is asked at each step (teacher.cache is false)"
    return "the teacher is asked once for each row; its answers are kept on disk"
