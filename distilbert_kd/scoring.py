"""Teacher, student and control on the same rows: logits, scores, fidelity, size and time."""

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

from distilbert_kd.evaluation import SplitResult, evaluate_logits
from distilbert_kd.latency import measure_latency
from distilbert_kd.student.build import count_layers
from distilbert_kd.trainer import DistillationTrainer


__all__ = ["describe_models", "predict_logits", "score_models"]


def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: datasets.Dataset,
    arguments: TrainingArguments,
) -> np.ndarray:
    """Logits of all rows, (B, C), in the order of the rows, on every process.

    Args:
        model: a classifier; it is moved to the device of `arguments`.
        tokenizer: pads the rows.
        rows: tokenised; labels are not looked at.
        arguments: batch size, device and precision.
    """
    unlabelled = rows.remove_columns([name for name in rows.column_names if name == "labels"])
    trainer = DistillationTrainer(model=model, args=arguments, processing_class=tokenizer, alpha=0.0)
    trainer.remove_callback(PrinterCallback)
    return trainer.predict(unlabelled).predictions


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
        labels = np.asarray(rows.with_format("numpy")["labels"][:])
        logits = {name: predict_logits(model, tokenizer, rows, arguments) for name, model in models.items()}
        for name in models:
            teacher_logits = None if name == "teacher" else logits["teacher"]
            results[name][split] = evaluate_logits(metric, logits[name], labels, teacher_logits)
    return results


def describe_models(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, rows: datasets.Dataset
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Depth, size and milliseconds per example of each model, as they stand in `results.json`.

    Args:
        models: by name, on one device.
        tokenizer: pads the rows.
        rows: tokenised; the forward passes are timed on them.

    Returns:
        A record for each model, and the setting of the timing.
    """
    latency = measure_latency(models, rows, DataCollatorWithPadding(tokenizer))
    records = {
        name: {
            "num_layers": count_layers(model),
            "num_parameters": model.num_parameters(),
            "size_mb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
            "latency_ms": latency.of(name),
        }
        for name, model in models.items()
    }
    return records, {"device": latency.device, "num_threads": latency.num_threads}
