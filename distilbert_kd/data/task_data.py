"""The record that the data stage hands on, and the fingerprint of its rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import datasets

from distilbert_kd.data.tables import Table, refuse_half_characters, refuse_rows


__all__ = ["IS_AUGMENTED", "TaskData", "build_dataset", "fingerprint", "num_empty_texts"]


#: Column of training rows: whether a row was made, or found, after the labels were given.
IS_AUGMENTED = "is_augmented"


@dataclass(frozen=True)
class TaskData:
    """A task with its rows, columns named as tokenizers name their arguments.

    Attributes:
        name: The GLUE task, or the recipe's name for own data.
        label_names: Class names in the order of their numbers; None for regression.
        metric: Config of the metric: a GLUE task, "accuracy_f1" or "pearson_spearman".
        train: `text`, `text_pair` when there is one, and `label`; a label of -100 means none.
        evaluation: Labelled splits that are scored, the main one first.
        test: Unlabelled splits, predicted on request; with `index` for GLUE.
        source: Where the rows came from, in one line.
        notes: What a reader of the results must know about the rows.
        drawn_from: Split of which rows were drawn, to the number of rows that it has in all.
    """

    name: str
    label_names: tuple[str, ...] | None
    metric: str
    train: datasets.Dataset
    evaluation: dict[str, datasets.Dataset]
    test: dict[str, datasets.Dataset]
    source: str
    notes: tuple[str, ...]
    drawn_from: Mapping[str, int] = field(default_factory=dict)


def build_dataset(
    table: Table,
    text: str,
    text_pair: str | None,
    labels: Sequence[int] | Sequence[float] | None = None,
    is_regression: bool = False,
    index: str | None = None,
) -> datasets.Dataset:
    """A data set with the columns `text`, `text_pair`, `label` and `index`, as far as they are asked for.

    Args:
        table: The rows.
        text: The table's column for `text`.
        text_pair: The table's column for `text_pair`, if there is a second text.
        labels: One label for each row.
        is_regression: Whether labels are float32 in place of int64.
        index: The table's column that numbers the rows.

    Returns:
        The data set, in the order of the table; equal features wherever the rows came from.

    Raises:
        DataError: A text is missing or no text, or an index is no integer.
    """
    columns: dict[str, Sequence[object]] = {"text": _texts(table, text)}
    features = {"text": datasets.Value("string")}
    if text_pair is not None:
        columns["text_pair"] = _texts(table, text_pair)
        features["text_pair"] = datasets.Value("string")
    if labels is not None:
        columns["label"] = labels
        features["label"] = datasets.Value("float32" if is_regression else "int64")
    if index is not None:
        columns["index"] = _indexes(table, index)
        features["index"] = datasets.Value("int64")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 over the rows' `text`, `text_pair` and `label`, in order; other columns do not count."""
    digest = hashlib.sha256()
    columns = [name for name in ("text", "text_pair", "label") if name in dataset.column_names]
    digest.update(json.dumps(columns).encode())
    if columns:
        for batch in dataset.select_columns(columns).with_format(None).iter(batch_size=1000):
            for row in zip(*(batch[name] for name in columns), strict=True):
                digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def num_empty_texts(dataset: datasets.Dataset) -> int:
    """Rows in which a text is empty or blank."""
    columns = [dataset[name] for name in ("text", "text_pair") if name in dataset.column_names]
    return sum(any(not text.strip() for text in texts) for texts in zip(*columns, strict=True))


def _texts(table: Table, column: str) -> list[object]:
    cells = table.columns[column]
    refuse_rows(
        table,
        f"text in the column {column!r}",
        [(row, cell) for row, cell in enumerate(cells) if not isinstance(cell, str)],
        "Write texts in quotes; an empty text is allowed.",
    )
    refuse_half_characters(table, column)
    return cells


def _indexes(table: Table, column: str) -> list[int]:
    cells = table.columns[column]
    refuse_rows(
        table,
        f"whole numbers in the column {column!r}",
        [(row, cell) for row, cell in enumerate(cells) if not str(cell).isdecimal()],
        "Take the file as GLUE gives it.",
    )
    return [int(cell) for cell in cells]
