"""What a prediction is worth: the metrics of a task, and the one number that stands for them.

The formulas live in `distillation_glue/`, an `evaluate.Metric` that works without the Hub. `evaluate` takes seconds to
import, so it is loaded on first use.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from distilbert_kd.errors import DataError, DivergedError


__all__ = ["METRIC_FOLDER", "NO_LABEL", "SCORE_NAMES", "compute_metrics", "is_regression_metric", "labelled", "score"]

METRIC_FOLDER = Path(__file__).parent / "distillation_glue"
"""The folder to give to `evaluate.load(folder, "mrpc")`."""

NO_LABEL = -100
"""A row with this label has no label: it isn't scored."""

SCORE_NAMES: dict[str, str] = {
    "accuracy_f1": "accuracy",
    "ax": "Matthews correlation",
    "cola": "Matthews correlation",
    "mnli": "accuracy",
    "mnli_matched": "accuracy",
    "mnli_mismatched": "accuracy",
    "mrpc": "mean of F1 and accuracy",
    "pearson_spearman": "mean of Pearson and Spearman correlation",
    "qnli": "accuracy",
    "qqp": "mean of F1 and accuracy",
    "rte": "accuracy",
    "sst2": "accuracy",
    "stsb": "mean of Pearson and Spearman correlation",
    "wnli": "accuracy",
}
"""The main number of each metric in words."""

_SCORE_KEYS = {
    "accuracy": ("accuracy",),
    "Matthews correlation": ("matthews_correlation",),
    "mean of F1 and accuracy": ("f1", "accuracy"),
    "mean of Pearson and Spearman correlation": ("pearson", "spearmanr"),
}


def is_regression_metric(metric: str) -> bool:
    """Whether `metric` scores numbers and not classes."""
    return metric in ("stsb", "pearson_spearman")


def labelled(labels: ArrayLike) -> np.ndarray:
    """Which rows carry a label: [B] booleans, False where the label is -100 or NaN."""
    labels = np.asarray(labels)
    return (labels != NO_LABEL) & ~np.isnan(labels.astype(np.float64))


def compute_metrics(metric: str, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
    """Score predictions against labels with the metrics of a task.

    Args:
        metric: A key of `SCORE_NAMES`.
        predictions: [B] class numbers, or [B] numbers for a regression metric.
        references: [B] labels; rows with -100 are left out.

    Returns:
        GLUE's keys: accuracy and f1 in [0, 1]; matthews_correlation, pearson and spearmanr in [-1, 1]. F1 is that of
        class 1 for MRPC and QQP, as in GLUE, and the mean over the classes for "accuracy_f1". A correlation in which
        one side is constant is 0/0 and counts as 0.0, without a warning: such a prediction says nothing about the
        label.

    Raises:
        DataError: No row has a label, a class is negative, the lengths differ, or the metric is unknown.
        DivergedError: A predicted number is NaN or infinite.

    Source: Wang et al. 2019, table 1, https://arxiv.org/abs/1804.07461
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    _check(metric, predictions, references)
    rows = labelled(references)
    from distilbert_kd.metrics.distillation_glue.distillation_glue import DistillationGlue

    # evaluate makes its cache folder even when it keeps everything in memory; the user's may be read-only.
    with tempfile.TemporaryDirectory() as folder:
        module = DistillationGlue(config_name=metric, keep_in_memory=True, cache_dir=folder)
        return module.compute(predictions=predictions[rows], references=references[rows])


def _check(metric: str, predictions: np.ndarray, references: np.ndarray) -> None:
    if metric not in SCORE_NAMES:
        raise DataError(f"Expected a metric out of {', '.join(SCORE_NAMES)}, got {metric!r}. Use one of these names.")
    if predictions.ndim != 1 or predictions.shape != references.shape:
        raise DataError(
            f"Expected one prediction and one label per row, got shapes {predictions.shape} and {references.shape} "
            f"for the metric {metric!r}. Predict the same rows that carry the labels, and pass classes or numbers, "
            "not logits."
        )
    rows = labelled(references)
    if not rows.any():
        raise DataError(
            f"Expected at least one labelled row to compute {metric!r}, got {len(references)} rows, none with a "
            "label. Score a labelled split; unlabelled rows can only be predicted."
        )
    if not np.isfinite(predictions[rows]).all():
        raise DivergedError(
            f"Expected finite predictions to compute {metric!r}, got NaN or infinity in row "
            f"{int(np.argmin(np.isfinite(predictions)))}. The model's weights are not usable: train it again."
        )
    if not is_regression_metric(metric) and references[rows].min() < 0:
        raise DataError(
            f"Expected classes 0, 1, ... as labels to compute {metric!r}, got {references[rows].min()} in row "
            f"{int(np.argmax(rows & (references < 0)))}. Labels of -1 mark GLUE's unlabelled test split: "
            "score another split."
        )


def score(metric: str, values: Mapping[str, float]) -> float:
    """The main number of a task: one metric, or the mean of two where GLUE reports two.

    Args:
        metric: A key of `SCORE_NAMES`, which says in words what the number is.
        values: What `compute_metrics` returned.

    Returns:
        In [0, 1] for accuracy and F1, in [-1, 1] for correlations.
    """
    keys = _SCORE_KEYS[SCORE_NAMES[metric]]
    return sum(values[key] for key in keys) / len(keys)
