"""Teacher, student and control on the same rows: logits, scores, fidelity, size and time."""

import logging
from collections.abc import Mapping
from typing import Any

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
from distilbert_kd.latency import measure_latency
from distilbert_kd.metrics import SCORE_NAMES, is_regression_metric
from distilbert_kd.student.build import count_layers
from distilbert_kd.trainer import DistillationTrainer
from distilbert_kd.training import logits_of, new_trainer


__all__ = ["check_teacher_score", "describe_models", "predict_logits", "score_models"]

logger = logging.getLogger(__name__)


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
    unlabelled = rows.remove_columns([name for name in rows.column_names if name == "labels"])
    trainer = new_trainer(DistillationTrainer, model=model, args=arguments, processing_class=tokenizer, alpha=0.0)
    trainer.remove_callback(PrinterCallback)
    return logits_of(trainer.predict(unlabelled).predictions)


def check_teacher_score(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    metric: str,
    arguments: TrainingArguments,
    name: str,
    split: str,
    allow_near_chance: bool,
) -> None:
    """Shows the teacher's score before a student is trained, and refuses a teacher that has nothing to teach.

    Args:
        teacher: a classifier.
        tokenizer: pads the rows.
        rows: tokenised, with `labels`.
        metric: see `distilbert_kd.metrics`.
        arguments: batch size, device and precision.
        name: where the teacher came from, for the messages.
        split: what the rows are called.
        allow_near_chance: warn in place of refusing.

    Raises:
        TeacherError: its outputs say no more about the labels than guessing could.
        DivergedError: an output is not finite.
    """
    logits, labels = predict_logits(teacher, tokenizer, rows, arguments), _labels(rows)
    score = evaluate_logits(metric, logits, labels).score
    logger.info("teacher: %s on %s: %.1f", SCORE_NAMES[metric], split, 100 * score)
    chance = is_near_chance(logits, labels, is_regression_metric(metric))
    if not chance.is_near_chance:
        return
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


def score_models(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, datasets.Dataset],
    metric: str,
    arguments: TrainingArguments,
) -> dict[str, dict[str, SplitResult]]:
    """Scores of each model on each split; the fidelity of all but the teacher is to the model called "teacher".

    Args:
        models: by name, "teacher" among them.
        tokenizer: pads the rows.
        splits: tokenised, with `labels`.
        metric: see `distilbert_kd.metrics`.
        arguments: batch size, device and precision.

    Returns:
        Model name to split name to result.
    """
    results: dict[str, dict[str, SplitResult]] = {name: {} for name in models}
    for split, rows in splits.items():
        labels = _labels(rows)
        logits = {name: predict_logits(model, tokenizer, rows, arguments) for name, model in models.items()}
        for name in models:
            teacher_logits = None if name == "teacher" else logits["teacher"]
            results[name][split] = evaluate_logits(metric, logits[name], labels, teacher_logits)
    return results


def describe_models(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, datasets.Dataset],
    metric: str,
    arguments: TrainingArguments,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Depth, size, milliseconds per example and scores of each model, as they stand in `results.json`.

    Args:
        models: by name, "teacher" among them.
        tokenizer: pads the rows.
        splits: tokenised, with `labels`; forward passes are timed on the first.
        metric: see `distilbert_kd.metrics`.
        arguments: batch size, device and precision.

    Returns:
        A record for each model, and the setting of the timing.
    """
    scores = score_models(models, tokenizer, splits, metric, arguments)
    latency = measure_latency(models, next(iter(splits.values())), DataCollatorWithPadding(tokenizer))
    records = {
        name: {
            "num_layers": count_layers(model),
            "num_parameters": model.num_parameters(),
            "size_mb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
            "latency_ms": latency.of(name),
            "splits": {split: result.to_dict() for split, result in scores[name].items()},
        }
        for name, model in models.items()
    }
    return records, {"device": latency.device, "num_threads": latency.num_threads}


def _labels(rows: datasets.Dataset) -> np.ndarray:
    return np.asarray(rows.with_format("numpy")["labels"][:])
