"""The GLUE tasks' rows, from a folder in the original layout or from the Hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets

from distilbert_kd.data.tables import Table, read_table, table_from_dataset
from distilbert_kd.data.tasks import AX, GlueSplit, GlueTask, Role
from distilbert_kd.errors import DataError


__all__ = ["GLUE_REPOSITORY", "SourceSplit", "glue_splits_from_folder", "glue_splits_from_hub", "load_hub_split"]

GLUE_REPOSITORY = "nyu-mll/glue"


@dataclass(frozen=True)
class SourceSplit:
    """One split as it was read, before its labels are numbers.

    Attributes:
        name: The split's name.
        role: What it is used for.
        table: The rows.
        text: The table's column of the text.
        text_pair: The table's column of the second text, if any.
        label: The table's column of the label, if it has one.
        label_words: The labels as this table writes them, in the order of their numbers; None for regression.
        index: The table's column that numbers the rows, if any.
        notes: What a reader of the results must know.
    """

    name: str
    role: Role
    table: Table
    text: str
    text_pair: str | None
    label: str | None
    label_words: tuple[str, ...] | None
    index: str | None = None
    notes: tuple[str, ...] = ()


def glue_splits_from_folder(task: GlueTask, root: Path) -> tuple[list[SourceSplit], str]:
    """Reads a task's splits from a folder in the layout of the original `glue_data`.

    `train_subset.tsv` and `dev_subset.tsv` stand in for a missing `train.tsv` and `dev.tsv`, with a note. Missing test
    files, the mismatched dev file of MNLI and the AX folder are left out.

    Args:
        task: The task.
        root: The folder that holds `RTE`, `CoLA` and so on, or the task's own folder.

    Returns:
        The splits and the source in one line.

    Raises:
        DataError: The folder, the training file or the main dev file is missing, or a file is malformed.
    """
    folder = _task_folder(task, root)
    splits = []
    for role in ("train", "evaluation", "test"):
        for number, split in enumerate(task.splits_of(role)):
            path = _split_file(folder, split)
            if path is not None:
                splits.append(_read_glue_file(task, split, path))
            elif role != "test" and number == 0:
                subset = f"{split.stem}_subset.tsv"
                raise DataError(
                    f"{folder}: expected {split.file} (or {subset}); got {_listing(folder)}. Put the file there, or "
                    "point data.path or GLUE_DIR to a folder that has it."
                )
    if task.name == "mnli":
        splits.extend(_diagnostic_split(root))
    return splits, f"GLUE files in {folder}"


def glue_splits_from_hub(task: GlueTask, revision: str | None) -> tuple[list[SourceSplit], str]:
    """Reads a task's splits from `nyu-mll/glue` on the Hub.

    Args:
        task: The task.
        revision: Commit, tag or branch of the data set; None for its newest.

    Returns:
        The splits and the source in one line.

    Raises:
        DataError: The Hub can't be reached and the splits are not in its cache.
    """
    parts = [(task, split) for split in task.splits]
    if task.name == "mnli":
        parts.extend((AX, split) for split in AX.splits)
    splits = []
    for part, split in parts:
        hub_split = "test" if part is AX else split.name
        try:
            dataset = load_hub_split(GLUE_REPOSITORY, part.name, hub_split, revision)
        except DataError as error:
            reason = str(error).rstrip(".")
            raise DataError(
                f"{reason}. Without the Hub, set GLUE_DIR or data.path to a folder in the layout of the original "
                f"GLUE files ({task.folders[0]}/{task.splits[0].file} and so on)."
            ) from error
        name = f"{GLUE_REPOSITORY} {part.name} {hub_split}"
        table = table_from_dataset(dataset, name, _present(part.hub_text, part.hub_text_pair), ("label", "idx"))
        splits.append(
            SourceSplit(
                name=split.name,
                role=split.role,
                table=table,
                text=part.hub_text,
                text_pair=part.hub_text_pair,
                label=None if split.role == "test" else "label",
                label_words=task.label_names,
                index="idx" if split.role == "test" else None,
            )
        )
    return splits, f"{GLUE_REPOSITORY} on the Hub, config {task.name}, revision {revision or 'main'}"


def load_hub_split(repository: str, config: str | None, split: str, revision: str | None) -> datasets.Dataset:
    """Loads one split of a Hub data set, or of a folder that `datasets` can load.

    Args:
        repository: The data set's id.
        config: Its config, if it has several.
        split: The split's name; slices such as `train[:1000]` work too.
        revision: Commit, tag or branch; None for the newest.

    Returns:
        The split.

    Raises:
        DataError: It can't be had.
    """
    try:
        return datasets.load_dataset(repository, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"expected the split {split!r} of {repository} (config {config}, revision {revision or 'main'}) "
            f"from the Hub; got {type(error).__name__}: {reason}"
        ) from error


def _task_folder(task: GlueTask, root: Path) -> Path:
    for name in task.folders:
        if (root / name).is_dir():
            return root / name
    if root.is_dir() and any(_split_file(root, split) for split in task.splits_of("train")):
        return root
    there = _listing(root) if root.is_dir() else "no such folder"
    raise DataError(
        f"{root}: expected a folder that holds {task.folders[0]}; got {there}. "
        "Point data.path or GLUE_DIR to the folder of the original GLUE layout."
    )


def _split_file(folder: Path, split: GlueSplit) -> Path | None:
    names = [split.file] if split.role == "test" else [split.file, f"{split.stem}_subset.tsv"]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_glue_file(task: GlueTask, split: GlueSplit, path: Path) -> SourceSplit:
    is_test = split.role == "test"
    row_columns = [task.index] if is_test else _present(task.label)
    table = read_table(
        path,
        [*_present(task.text, task.text_pair), *row_columns],
        header=None if split.has_header else split.columns,
        skips_broken_lines=task.has_broken_lines,
    )
    return SourceSplit(
        name=split.name,
        role=split.role,
        table=table,
        text=task.text,
        text_pair=task.text_pair,
        label=None if is_test else task.label,
        label_words=task.file_labels,
        index=task.index if is_test else None,
        notes=tuple(_file_notes(split, path, table)),
    )


def _file_notes(split: GlueSplit, path: Path, table: Table) -> Iterator[str]:
    name = f"{path.parent.name}/{path.name}"
    # A file may hold as many rows as the official one and still be called a subset: then it's meant as one.
    if path.stem.endswith("_subset") or len(table) != split.num_rows:
        yield f"{name}: {len(table)} rows, not the official split of {split.num_rows}"
    if table.num_broken_lines:
        yield f"{name}: {table.num_broken_lines} lines with a wrong number of columns left out"


def _diagnostic_split(root: Path) -> Iterator[SourceSplit]:
    (split,) = AX.splits
    # The task's own folder may have been given in place of the one above it.
    for folder in (root, root.parent):
        for path in (folder / "AX" / "AX.tsv", folder / "diagnostic" / "diagnostic.tsv", folder / "AX.tsv"):
            if path.is_file():
                yield _read_glue_file(AX, split, path)
                return


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") if names else "an empty folder"


def _present(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]
