"""From the `data` section of a recipe to rows that a model can be trained and scored on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import datasets

from distilbert_kd.data.glue import (
    SourceSplit,
    glue_splits_from_folder,
    glue_splits_from_hub,
    load_hub_split,
)
from distilbert_kd.data.labels import MISSING_LABEL, class_names_of, encode_classes, encode_numbers, has_labels
from distilbert_kd.data.tables import Table, read_table, table_from_dataset
from distilbert_kd.data.task_data import TaskData, build_dataset, num_empty_texts
from distilbert_kd.data.tasks import TASKS, get_task
from distilbert_kd.errors import DataError


if TYPE_CHECKING:
    from distilbert_kd.recipe import Data

__all__ = ["load_rows_to_predict", "load_task"]


def load_task(data_recipe: Data, name: str) -> TaskData:
    """Loads and checks all rows of a task.

    A GLUE task comes from `path`, else from the folder that the environment variable GLUE_DIR names, else from the
    Hub.
    Other data come from the files `train`, `validation` and `test`, or from the splits of these names of `dataset`.
    Every label of every split is checked. A `test` with labels is scored, one without is kept for predictions.

    Args:
        data_recipe: The `data` section.
        name: The recipe's name, which own data are called by.

    Returns:
        The rows, their labels as class numbers or numbers.

    Raises:
        DataError: Files, columns, rows or labels are not what the task needs.
    """
    if data_recipe.task is not None:
        return _load_glue(data_recipe, data_recipe.task)
    return _load_own(data_recipe, name)


def load_rows_to_predict(path: Path, text: str, text_pair: str | None, task: str | None = None) -> datasets.Dataset:
    """Reads rows without labels, for predictions.

    Args:
        path: A CSV, TSV, JSON lines or parquet file.
        text: The column of the text, for a file of the user's own.
        text_pair: The column of the second text, if there is one.
        task: A GLUE task; a .tsv file is then read in the benchmark's layout, other files by the columns named.

    Returns:
        `text`, `text_pair` if there is one, and `index` where a GLUE file numbers its rows; in the file's order.

    Raises:
        DataError: The file, a column or a text is not as it should be.
    """
    if task is None or path.suffix.lower() != ".tsv":
        return build_dataset(read_table(path, _present(text, text_pair)), text, text_pair)
    glue = get_task(task)
    split = next((split for split in glue.splits if path.stem in (split.stem, f"{split.stem}_subset")), None)
    header = split.columns if split is not None and not split.has_header else None
    # The columns of AX are those of MNLI's own files.
    table = read_table(path, _present(glue.text, glue.text_pair), (glue.index,), header=header)
    index = glue.index if glue.index in table.columns else None
    return build_dataset(table, glue.text, glue.text_pair, index=index)


def _load_glue(data_recipe: Data, task_name: str) -> TaskData:
    task = get_task(task_name)
    if task is TASKS["ax"]:
        raise DataError(
            "data.task: expected a task with training rows; got 'ax', which has none. Run the task mnli: with AX "
            "beside it, its model predicts AX too."
        )
    folder = data_recipe.path or os.environ.get("GLUE_DIR")
    if folder:
        splits, source = glue_splits_from_folder(task, Path(folder).expanduser())
    else:
        splits, source = glue_splits_from_hub(task, data_recipe.revision)
    return _task_data(data_recipe, task.name, splits, task.label_names, task.metric, source)


def _load_own(data_recipe: Data, name: str) -> TaskData:
    is_regression = data_recipe.problem_type == "regression"
    text, label = _column(data_recipe.text, "text"), _column(data_recipe.label, "label")
    tables, source = _own_tables(data_recipe, text, label)
    label_names = None
    if not is_regression:
        label_names = tuple(data_recipe.labels) if data_recipe.labels else class_names_of(tables["train"], label)
    splits = [
        SourceSplit(
            name=split,
            role="train" if split == "train" else "evaluation" if is_scored else "test",
            table=table,
            text=text,
            text_pair=data_recipe.text_pair,
            label=label if split == "train" or is_scored else None,
            label_words=label_names,
        )
        for split, table in tables.items()
        for is_scored in [split == "validation" or has_labels(table, label)]
    ]
    if not any(split.role == "evaluation" for split in splits):
        raise DataError(
            f"{name}: expected labelled rows to score; data.validation is not set, and data.test is not set or has no "
            "labels. Set data.validation."
        )
    metric = "pearson_spearman" if is_regression else "accuracy_f1"
    has_places = bool(data_recipe.labels)
    return _task_data(data_recipe, name, splits, label_names, metric, source, has_places)


def _own_tables(data_recipe: Data, text: str, label: str) -> tuple[dict[str, Table], str]:
    """The tables of train, validation and test, as far as they are named, and the source in one line."""
    parts = {"train": data_recipe.train, "validation": data_recipe.validation, "test": data_recipe.test}
    if data_recipe.dataset and not data_recipe.train:
        parts["train"] = "train"
    if not parts["train"]:
        raise DataError("data: expected a task, or training rows in data.train or data.dataset; got none of them.")
    wanted = _present(text, data_recipe.text_pair)
    tables = {}
    for split, part in parts.items():
        if not part:
            continue
        # Only a test split may do without its labels.
        columns = wanted if split == "test" else [*wanted, label]
        if data_recipe.dataset:
            rows = load_hub_split(data_recipe.dataset, data_recipe.dataset_config, part, data_recipe.revision)
            tables[split] = table_from_dataset(rows, f"{data_recipe.dataset} {part}", columns, (label,))
        else:
            tables[split] = read_table(Path(part).expanduser(), columns, (label,))
    listed = ", ".join(f"{split} {part}" for split, part in parts.items() if part)
    if data_recipe.dataset:
        config = f", config {data_recipe.dataset_config}" if data_recipe.dataset_config else ""
        return tables, f"{data_recipe.dataset} on the Hub{config}, revision {data_recipe.revision or 'main'}: {listed}"
    return tables, f"files: {listed}"


def _column(name: str | None, key: str) -> str:
    if name is None:
        raise DataError(f"data.{key}: expected the name of a column, which own data need; got nothing.")
    return name


def _task_data(
    data_recipe: Data,
    name: str,
    splits: Sequence[SourceSplit],
    label_names: tuple[str, ...] | None,
    metric: str,
    source: str,
    has_places: bool = False,
) -> TaskData:
    built = {
        split.name: _built(split, data_recipe.allow_unlabelled_rows and split.role == "train", has_places)
        for split in splits
    }
    notes = [note for split in splits for note in split.notes]
    notes.extend(_content_notes(splits, built))
    drawn_from = {}
    for split in splits:
        key = {"train": "max_train_rows", "evaluation": "max_validation_rows"}.get(split.role, "")
        most = None if split.name == "test" else getattr(data_recipe, key, None)
        rows = built[split.name]
        if most is not None and most < len(rows):
            notes.append(f"{split.name}: {most} of {len(rows)} rows at random (data.{key})")
            drawn_from[split.name] = len(rows)
            # Files are often sorted by label. Always the same rows, so that seeds differ in nothing else.
            built[split.name] = rows.shuffle(seed=0).select(range(most)).flatten_indices()
    return TaskData(
        name=name,
        label_names=label_names,
        metric=metric,
        train=built["train"],
        evaluation={split.name: built[split.name] for split in splits if split.role == "evaluation"},
        test={split.name: built[split.name] for split in splits if split.role == "test"},
        source=source,
        notes=tuple(notes),
        drawn_from=drawn_from,
    )


def _built(split: SourceSplit, is_missing_allowed: bool, has_places: bool) -> datasets.Dataset:
    if split.label is None:
        return build_dataset(split.table, split.text, split.text_pair, index=split.index)
    if split.label_words is None:
        numbers = encode_numbers(split.table, split.label, is_missing_allowed)
        return build_dataset(split.table, split.text, split.text_pair, numbers, is_regression=True)
    classes = encode_classes(split.table, split.label, split.label_words, is_missing_allowed, has_places)
    return build_dataset(split.table, split.text, split.text_pair, classes)


def _content_notes(splits: Sequence[SourceSplit], built: dict[str, datasets.Dataset]) -> Iterator[str]:
    for split in splits:
        rows = built[split.name]
        num_empty = num_empty_texts(rows)
        if num_empty:
            yield f"{split.name}: {num_empty} of {len(rows)} rows have an empty text"
        if "label" in rows.column_names:
            num_unlabelled = sum(label == MISSING_LABEL for label in rows["label"])
            if num_unlabelled:
                yield f"{split.name}: {num_unlabelled} of {len(rows)} rows have no label"


def _present(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]
