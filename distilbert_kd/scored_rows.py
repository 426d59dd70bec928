"""What each model said about each row that was scored: one parquet file for each split of the run folder.

Columns: `text`, maybe `text_pair`, `label` (-100 or NaN: none), and one for each of `teacher`, `student` and, if it
was trained, `control`: the row's logits as float32. The names of the classes stand in the file's own metadata.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilbert_kd.errors import StorageError
from distilbert_kd.storage import reason_of, storage_errors


__all__ = ["ScoredRows", "read_scored_rows", "write_scored_rows"]

_KEY = b"distilbert_kd"
_MODELS = ("teacher", "student", "control")
_SUFFIX = ".parquet"


@dataclass(frozen=True)
class ScoredRows:
    """The rows of one split.

    Attributes:
        texts: One text or a pair for each row.
        labels: [B] class numbers, or numbers for regression; -100 or NaN where there is none.
        logits: "teacher", "student" and maybe "control" to [B, C] float32.
        label_names: Of the classes, in the order of their numbers; None for regression.
    """

    texts: list[tuple[str, ...]]
    labels: np.ndarray
    logits: dict[str, np.ndarray]
    label_names: tuple[str, ...] | None


def write_scored_rows(
    folder: Path,
    split: str,
    rows: datasets.Dataset,
    logits: Mapping[str, np.ndarray],
    label_names: tuple[str, ...] | None,
) -> Path:
    """Writes one split, whole or not at all, in place of what is there.

    Args:
        folder: for the files; it is made.
        split: the name of the file.
        rows: with `text`, maybe `text_pair`, and `label`.
        logits: model name to [B, C], or [B] for regression, in the order of the rows.
        label_names: of the classes; None for regression.

    Returns:
        The file.

    Raises:
        StorageError: it can't be written.
    """
    columns = {name: rows[name][:] for name in ("text", "text_pair", "label") if name in rows.column_names}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, values in logits.items():
        matrix = np.asarray(values, dtype=np.float32).reshape(len(rows), -1)
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    metadata = json.dumps({"label_names": label_names}).encode()
    table = pa.table(arrays).replace_schema_metadata({_KEY: metadata})
    path = folder / f"{split}{_SUFFIX}"
    partial = folder / f".{split}.{os.getpid()}.partial"
    with storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, partial, compression="zstd")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def read_scored_rows(folder: Path) -> dict[str, ScoredRows]:
    """Reads what `write_scored_rows` wrote.

    Args:
        folder: with one file for each split; it need not be there.

    Returns:
        Split name to rows; empty without files.

    Raises:
        StorageError: a file is no such record.
    """
    found = {}
    for path in sorted(folder.glob(f"[!.]*{_SUFFIX}")):
        try:
            found[path.name.removesuffix(_SUFFIX)] = _read(pq.read_table(path))
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise StorageError(
                f"Expected the scored rows of a run in {path}, got: {reason_of(error)}. "
                f"Remove the folder {folder}, and let `distilbert-kd evaluate RUN` write it again."
            ) from error
    return found


def _read(table: pa.Table) -> ScoredRows:
    names = json.loads((table.schema.metadata or {})[_KEY])["label_names"]
    texts = [table[name].to_pylist() for name in ("text", "text_pair") if name in table.column_names]
    logits = {name: _matrix(table[name], len(table)) for name in _MODELS if name in table.column_names}
    if len(logits) < 2:
        raise ValueError("no logits of a teacher and a student")
    return ScoredRows(
        texts=list(zip(*texts, strict=True)),
        labels=table["label"].to_numpy(),
        logits=logits,
        label_names=None if names is None else tuple(names),
    )


def _matrix(column: pa.ChunkedArray, num_rows: int) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy().reshape(num_rows, -1)
