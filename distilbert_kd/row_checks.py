"""Are the targets of all rows what the loss needs? Looked at once, before the first step."""

from typing import Any

import datasets
import numpy as np
from transformers import PretrainedConfig

from distilbert_kd.errors import DataError
from distilbert_kd.losses.logits import IGNORE_INDEX


__all__ = ["TEACHER_LOGITS", "check_rows"]

#: Column with the teacher's outputs, (B, C), in the student's order of labels.
TEACHER_LOGITS = "teacher_logits"


def check_rows(dataset: Any, config: PretrainedConfig, has_teacher: bool) -> bool:  # noqa: ANN401 - any data set
    """Looks at the targets of a training set.

    Labels and teacher logits of a `datasets.Dataset` are checked; of any other data set nothing can be read without
    running its transforms, so there a bad label is found by the loss, at its step.

    Returns:
        Whether rows have a soft target: there is a teacher, or a column of its logits.

    Raises:
        DataError: labels outside the classes or not finite, teacher logits of another width, or no target at all.
    """
    if not isinstance(dataset, datasets.Dataset):
        return has_teacher
    columns = dataset.column_names
    has_soft_targets = has_teacher or TEACHER_LOGITS in columns
    label_column = next((name for name in ("labels", "label", "label_ids") if name in columns), None)
    if label_column is None and not has_soft_targets:
        raise DataError(
            f"Expected a column 'labels', or a teacher, got columns {columns} and no teacher: there is nothing to learn."
        )
    if label_column is not None:
        labels = np.asarray(dataset.with_format("numpy")[label_column][:])
        _check_labels(labels, label_column, config.num_labels, has_soft_targets)
    if TEACHER_LOGITS in columns and len(dataset) > 0:
        width = len(dataset[0][TEACHER_LOGITS])
        if width != config.num_labels:
            raise DataError(
                f"Expected {config.num_labels} teacher logits for each row, the student's outputs, got {width} in "
                f"column {TEACHER_LOGITS!r}. Compute them with a teacher for this task."
            )
    return has_soft_targets


def _check_labels(labels: np.ndarray, column: str, num_labels: int, has_soft_targets: bool) -> None:
    missing = labels == IGNORE_INDEX
    if num_labels == 1:
        bad = ~np.isfinite(labels.astype(np.float64))
        expected = "a finite number"
    else:
        bad = ~missing & ((labels < 0) | (labels >= num_labels) | (labels != np.floor(labels)))
        expected = f"a class from 0 to {num_labels - 1}, or {IGNORE_INDEX} for none"
    if bad.any():
        rows = ", ".join(f"row {row}: {labels[row]}" for row in np.flatnonzero(bad)[:5])
        raise DataError(
            f"Expected {expected} in column {column!r}, got {int(bad.sum())} other values ({rows}). "
            "Mend these rows, or give teacher and student as many labels as the data has."
        )
    if missing.all() and len(labels) > 0 and not has_soft_targets:
        raise DataError(f"Expected labels or a teacher, got only {IGNORE_INDEX} in column {column!r} and no teacher.")
