"""The lines of a plan that both kinds of recipe share: models without weights, layer map, terms, steps."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments

from distilbert_kd.deep_terms import DeepTerms
from distilbert_kd.errors import TeacherError
from distilbert_kd.signals import EMBEDDINGS
from distilbert_kd.student.build import count_layers


__all__ = [
    "layer_map_line",
    "num_training_steps",
    "outline",
    "projection_line",
    "render",
    "rows_of_step",
    "schedule_line",
    "size_line",
    "student_line",
    "term_lines",
]


def outline(config: PretrainedConfig, kind: Any, name: str) -> PreTrainedModel:
    """A model without weights, on torch's meta device: it can be cut and counted.

    Args:
        config: of the model.
        kind: one of transformers' auto classes.
        name: of the model, for the error.

    Returns:
        The model.

    Raises:
        TeacherError: there is no such model of this architecture.
    """
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except (ValueError, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise TeacherError(f"Expected a model that {kind.__name__} can build in {name!r}, got: {reason}.") from error


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


def schedule_line(settings: TrainingArguments, num_rows: int) -> str:
    """Epochs, steps, rows of a step and learning rate of a training."""
    batch_size = rows_of_step(settings)
    steps = num_training_steps(settings, num_rows)
    epochs = steps * batch_size / num_rows if settings.max_steps > 0 else settings.num_train_epochs
    return f"{epochs:g} epochs, {steps:,} steps of {batch_size} rows, learning rate {settings.learning_rate:g}"


def rows_of_step(settings: TrainingArguments) -> int:
    """Rows of an optimizer step, over all processes."""
    return settings.train_batch_size * settings.gradient_accumulation_steps * settings.world_size


def size_line(model: PreTrainedModel) -> str:
    """Class, layers and width of a model."""
    return f"{type(model).__name__}, {count_layers(model)} layers x {model.config.hidden_size}"


def student_line(student: PreTrainedModel, num_parameters: int, teacher: PreTrainedModel, is_frozen: bool) -> str:
    """The student beside its teacher; `num_parameters` are its own, without projections."""
    share = num_parameters / teacher.num_parameters()
    frozen = ", embeddings frozen" if is_frozen else ""
    return f"{size_line(student)}, {num_parameters:,} parameters, {share:.1%} of the teacher's{frozen}"


def layer_map_line(layers: list[int], asked: str | list[int], init_from: str | None) -> str:
    """Which layer of the student starts as which one, and of which model."""
    pairs = ", ".join(f"{student} from {teacher}" for student, teacher in enumerate(layers))
    source = "the teacher" if init_from is None else init_from
    return f"{pairs} of {source}" + (f" ({asked})" if isinstance(asked, str) else "")


def term_lines(terms: DeepTerms) -> dict[str, str]:
    """For each deeper term, its weight and the layers that it compares."""
    lines = {}
    for name, term in terms.terms.items():
        pairs = ", ".join(f"{_layer(student)} with {_layer(teacher)}" for student, teacher in term.pairs)
        heads = f"; {term.num_heads} heads" if term.num_heads else ""
        lines[f"  {name}"] = f"weight {term.weight:g}; student and teacher layers {pairs}{heads}"
    return lines


def _layer(number: int) -> str:
    return "embeddings" if number == EMBEDDINGS else str(number)


def projection_line(terms: DeepTerms) -> str:
    """The learned projections; empty where there are none."""
    if terms.projections is None:
        return ""
    num_parameters = sum(parameter.numel() for parameter in terms.projections.parameters())
    return f"{', '.join(terms.projections)}: {num_parameters:,} parameters, left out of the student's folder"


def render(lines: Mapping[str, str]) -> str:
    """Names and what is said of them as aligned lines; those that say nothing are left out."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)
