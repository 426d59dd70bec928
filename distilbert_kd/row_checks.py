"""Are the targets of all rows what the loss needs? Looked at once, before the first step."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from transformers import PretrainedConfig

from distilbert_kd.data.task_data import IS_AUGMENTED
from distilbert_kd.errors import DataError
from distilbert_kd.losses.logits import IGNORE_INDEX


__all__ = ["TEACHER_LOGITS", "check_rows", "first_row_names"]

#: Column with the teacher's outputs, (B, C), in the student's order of labels.
TEACHER_LOGITS = "teacher_logits"


def check_rows(dataset: Any, config: PretrainedConfig, has_teacher: bool) -> bool:
    """Looks at the targets of a training set.

    Labels and teacher logits of a `datasets.Dataset` are checked; of any other data set, and of one with a transform,
    only the names in the first row are looked at, so there a bad label is found by the loss, at its step.

    Args:
        dataset: the rows; None for none.
        config: of the student, which says how many outputs there are.
        has_teacher: whether a teacher gives every row a soft target.

    Returns:
        Whether rows have a soft target: there is a teacher, or a column of its logits.

    Raises:
        DataError: labels outside the classes or not finite, teacher logits of another width, `is_augmented` that is
            neither true nor false, or no target at all.
    """
    names = first_row_names(dataset)
    num_labels = int(config.num_labels or 0)
    has_soft_targets = has_teacher or TEACHER_LOGITS in names
    label_columns = [name for name in ("labels", "label", "label_ids") if name in names]
    if len(label_columns) > 1:
        raise DataError(
            f"Expected one column of labels, got {' and '.join(map(repr, label_columns))}. "
            f"Remove what is not the class number: rows.remove_columns({label_columns[-1]!r})."
        )
    label_column = label_columns[0] if label_columns else None
    if names and label_column is None and not has_soft_targets:
        raise DataError(
            f"Expected a column 'labels', or a teacher, got columns {sorted(names)} and no teacher: "
            "there is nothing to learn."
        )
    if not isinstance(dataset, datasets.Dataset) or _has_transform(dataset):
        return has_soft_targets
    if label_column is not None:
        _check_labels(_values(dataset, label_column), label_column, num_labels, has_soft_targets)
    if TEACHER_LOGITS in names and len(dataset) > 0:
        _check_teacher_logits(_values(dataset, TEACHER_LOGITS), num_labels)
    if IS_AUGMENTED in names and len(dataset) > 0:
        _check_marks(_values(dataset, IS_AUGMENTED))
    return has_soft_targets


def first_row_names(dataset: Any) -> set[str]:
    """What a row of a data set holds, by name; empty where that can't be told without reading a stream.

    Args:
        dataset: rows as dictionaries, of any kind; None for none.

    Returns:
        The names.
    """
    if isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        if not _has_transform(dataset):
            return set(dataset.column_names or ())
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or len(dataset) == 0:
        return set()
    row = dataset[0]
    return set(row) if isinstance(row, Mapping) else set()


def _has_transform(dataset: datasets.Dataset | datasets.IterableDataset) -> bool:
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


def _values(dataset: datasets.Dataset, column: str) -> np.ndarray:
    return np.asarray(dataset.with_format("numpy")[column][:])


def _check_labels(labels: np.ndarray, column: str, num_labels: int, has_soft_targets: bool) -> None:
    if len(labels) > 0 and (labels.ndim != 1 or labels.dtype.kind not in "biuf"):
        raise DataError(
            f"Expected one number for each row in column {column!r}, got {labels[0].tolist()!r} in row 0. "
            "Put class numbers, from 0, in place of names, lists and empty cells."
        )
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


def _check_teacher_logits(logits: np.ndarray, num_labels: int) -> None:
    if logits.ndim != 2 or logits.shape[1] != num_labels:
        got = f"{logits.shape[1]}" if logits.ndim == 2 else f"{logits[0]!r} in row 0, or rows of several lengths,"
        raise DataError(
            f"Expected {num_labels} teacher logits for each row, the student's outputs, got {got} in column "
            f"{TEACHER_LOGITS!r}. Compute them with a teacher for this task."
        )
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken) > 0:
        raise DataError(
            f"Expected finite teacher logits in column {TEACHER_LOGITS!r}, got NaN or infinity in {len(broken)} rows "
            f"(first: {', '.join(map(str, broken[:5]))}). Compute them again."
        )


def _check_marks(marks: np.ndarray) -> None:
    if marks.ndim != 1 or marks.dtype.kind not in "biu" or not np.isin(marks, (0, 1)).all():
        got = marks[0].tolist() if marks.ndim > 1 or marks.dtype.kind not in "biu" else marks.max().item()
        raise DataError(
            f"Expected true or false for each row in column {IS_AUGMENTED!r}, got {got!r}. Mark the rows that were "
            "altered after they got their labels; remove the column if there are none."
        )
