"""Teacher, student and control on the same rows: logits, scores, fidelity, size and time."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import datasets
import numpy as np
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)

from distilbert_kd.errors import TeacherError
from distilbert_kd.evaluation import SplitResult, evaluate_logits, is_near_chance
from distilbert_kd.latency import Latency, measure_latency
from distilbert_kd.length_grouping import row_lengths
from distilbert_kd.metrics import SCORE_NAMES, is_regression_metric
from distilbert_kd.prepared_arguments import new_trainer
from distilbert_kd.sharding import whole_models
from distilbert_kd.student.build import count_layers
from distilbert_kd.task_rows import Reader
from distilbert_kd.trainer import DistillationTrainer
from distilbert_kd.training import logits_of, take_back


__all__ = [
    "Scored",
    "check_teacher_score",
    "describe_models",
    "labels_of",
    "predict_logits",
    "score_models",
]

logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What `score_models` found: model to split to result, and split to model to the logits (B, C) behind it."""

    results: dict[str, dict[str, SplitResult]]
    logits: dict[str, dict[str, np.ndarray]]


def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    arguments: TrainingArguments,
) -> np.ndarray:
    """What a model says about rows.

    Args:
        model: a classifier; it is moved to the device of `arguments`.
        tokenizer: pads the rows.
        rows: tokenised; labels are not looked at.
        arguments: batch size, device and precision.

    Returns:
        Logits (B, C) of all rows, in their order, on every process.
    """
    # Longest first: little padding, and what doesn't fit in memory shows at once.
    order = np.argsort(-row_lengths(rows), kind="stable")
    unlabelled = rows.remove_columns([name for name in rows.column_names if name == "labels"])
    with whole_models():
        trainer = new_trainer(
            DistillationTrainer,
            model=model,
            args=arguments,
            processing_class=tokenizer,
            alpha=0.0,
            first_position_only=True,
        )
        trainer.remove_callback(PrinterCallback)
        sorted_logits = logits_of(trainer.predict(unlabelled.select(order)).predictions)
    take_back(trainer, model)
    logits = np.empty_like(sorted_logits)
    logits[order] = sorted_logits
    return logits


def check_teacher_score(
    logits: np.ndarray, labels: np.ndarray, metric: str, name: str, split: str, allow_near_chance: bool
) -> list[str]:
    """Shows the teacher's score before a student is trained, and refuses a teacher that has nothing to teach.

    Args:
        logits: the teacher's, (B, C).
        labels: (B,).
        metric: see `distilbert_kd.metrics`.
        name: where the teacher came from, for the messages.
        split: what the rows are called.
        allow_near_chance: warn in place of refusing.

    Returns:
        What a reader of the results must know about the teacher.

    Raises:
        TeacherError: its outputs say no more about the labels than guessing could.
        DivergedError: an output is not finite.
    """
    score = evaluate_logits(metric, logits, labels).score
    logger.info("teacher: %s on %s: %.1f", SCORE_NAMES[metric], split, 100 * score)
    chance = is_near_chance(logits, labels, is_regression_metric(metric))
    if not chance.is_near_chance:
        return []
    message = (
        f"Expected a teacher that knows the task, got {name}, whose outputs correlate with the labels of {split} by "
        f"{chance.statistic:.3f}; guessing stays below {chance.bound:.3f} on so many rows."
    )
    if not allow_near_chance:
        raise TeacherError(
            f"{message} Train it longer (teacher.finetune), check that its labels are the data's (teacher.labels), "
            "or set teacher.allow_near_chance=true to go on all the same."
        )
    logger.warning("%s Going on: teacher.allow_near_chance is set.", message)
    return [f"teacher: near chance on {split} (teacher.allow_near_chance)"]


def score_models(
    readers: Mapping[str, Reader], teacher_logits: Mapping[str, np.ndarray], metric: str, arguments: TrainingArguments
) -> Scored:
    """Scores of teacher, students and controls on each split, with the fidelity of all but the teacher to it.

    Args:
        readers: students by name, with their rows.
        teacher_logits: split name to the teacher's logits, (B, C).
        metric: see `distilbert_kd.metrics`.
        arguments: batch size, device and precision.

    Returns:
        The results and the logits, of the teacher first.
    """
    results: dict[str, dict[str, SplitResult]] = {name: {} for name in ("teacher", *readers)}
    said: dict[str, dict[str, np.ndarray]] = {}
    for split, theirs in teacher_logits.items():
        said[split] = {"teacher": theirs}
        for name, reader in readers.items():
            rows = reader.rows.evaluation[split]
            labels = labels_of(rows)
            results["teacher"][split] = evaluate_logits(metric, theirs, labels)
            logits = predict_logits(reader.model, reader.tokenizer, rows, arguments)
            said[split][name] = logits
            results[name][split] = evaluate_logits(metric, logits, labels, theirs)
    return Scored(results, said)


def describe_models(readers: Mapping[str, Reader]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Depth, size and milliseconds per example of each model, as they stand in `results.json`.

    Args:
        readers: by name, on one device, with their rows; forward passes are timed on the main evaluation split.
            Models that read the same rows are timed side by side.

    Returns:
        A record for each model, and the setting of the timing.
    """
    by_rows: dict[int, dict[str, Reader]] = {}
    for name, reader in readers.items():
        by_rows.setdefault(id(reader.rows), {})[name] = reader
    latencies: dict[str, Latency] = {}
    for group in by_rows.values():
        first = next(iter(group.values()))
        rows = first.rows.evaluation[first.rows.main_split]
        models = {name: reader.model for name, reader in group.items()}
        measured = measure_latency(models, rows, DataCollatorWithPadding(first.tokenizer))
        latencies |= dict.fromkeys(group, measured)
    records = {
        name: {
            "architecture": type(reader.model).__name__,
            "num_layers": count_layers(reader.model),
            "num_parameters": reader.model.num_parameters(),
            "size_mb": sum(p.numel() * p.element_size() for p in reader.model.parameters()) / 1e6,
            **latencies[name].of(name),
        }
        for name, reader in readers.items()
    }
    measured = next(iter(latencies.values()))
    rounds = {str(size): min(each.num_rounds[size] for each in latencies.values()) for size in measured.num_rounds}
    return records, {"device": measured.device, "num_threads": measured.num_threads, "num_rounds": rounds}


def labels_of(rows: datasets.Dataset) -> np.ndarray:
    """The labels of tokenised rows: (B,)."""
    return np.asarray(rows.with_format("numpy")["labels"][:])
