"""Texts of local files: read one after the other, by the rules of a task's files, whatever their size."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from distilbert_kd.data.file_rows import (
    HALF_CHARACTER,
    NUM_SHOWN,
    csv_rows,
    is_unicode,
    json_rows,
    listed,
    of_width,
    refuse_places,
)
from distilbert_kd.errors import DataError


__all__ = ["TEXT_ENDINGS", "ending_of", "file_texts"]

#: Each with or without .gz.
TEXT_ENDINGS = (".txt", ".jsonl", ".json", ".csv", ".parquet")


def ending_of(path: Path) -> str:
    """The ending that tells the format: of `a.txt` and of `a.txt.gz` it is .txt."""
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def file_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of one file, in its order; words such as null and NA are texts.

    Args:
        path: .txt (one text a line), .jsonl or .json (one object a line), .csv (RFC 4180) or .parquet, each with or
            without .gz.
        column: of the text; a .txt file has none.

    Yields:
        Each row's text; an empty one where there is none (blank, or null in JSON and parquet). After the first bad
        cell no text is given.

    Raises:
        DataError: the file can't be read, is not UTF-8, is malformed, lacks the column, or has other things than text
            in it. The message names the file and the line, of bad cells those of the first five.
    """
    bad: list[tuple[str, Any]] = []
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for place, cell in _cells(path, file, column):
                if cell is not None and not (isinstance(cell, str) and is_unicode(cell)):
                    bad.append((place, cell))
                    if len(bad) == NUM_SHOWN:  # no more are looked for
                        break
                elif not bad:
                    yield cell or ""
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected a {path.suffix} file; it can't be read ({reason}). Mend it.") from error
    refuse_places(str(path), f"text in the column {column!r}", bad, f"Write texts in quotes. {HALF_CHARACTER}")


def _cells(path: Path, file: IO[bytes] | gzip.GzipFile, column: str) -> Iterator[tuple[str, Any]]:
    """Where each text stands, and what stands there."""
    ending = ending_of(path)
    if ending == ".parquet":
        yield from _parquet_cells(path, file, column)
        return
    lines = _decoded(path, file)
    if ending == ".txt":
        for number, line in enumerate(lines, start=1):
            yield f"line {number}", line.rstrip("\r\n")
    elif ending == ".csv":
        rows = csv_rows(path, lines)
        names = next(rows, (1, []))[1]
        _refuse_names(path, names, column)
        for number, cells in of_width(path, rows, names):
            yield f"line {number}", cells[names.index(column)]
    else:
        for number, row in json_rows(path, lines):
            if column not in row:
                _refuse_names(path, list(row), column, f" at line {number}")
            yield f"line {number}", row[column]


def _parquet_cells(path: Path, file: IO[bytes] | gzip.GzipFile, column: str) -> Iterator[tuple[str, Any]]:
    table = pyarrow.parquet.ParquetFile(file)
    _refuse_names(path, table.schema_arrow.names, column)
    num_rows = 0
    for batch in table.iter_batches(batch_size=1000, columns=[column]):
        try:
            batch.validate(full=True)  # of text, that it is UTF-8
        except pyarrow.ArrowInvalid as error:
            raise pyarrow.ArrowInvalid(f"{error}, counted from 0 after row {num_rows}") from error
        for cell in batch.column(0).to_pylist():
            num_rows += 1
            yield f"row {num_rows}", cell


def _decoded(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    """Lines with their ends, which are line feeds alone; a mark at the start is no part of the first one."""
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: expected UTF-8; got the byte 0x{error.object[error.start]:02x} at line {number}. "
                "Save the file as UTF-8."
            ) from error


def _refuse_names(path: Path, names: list[str], column: str, where: str = "") -> None:
    if names.count(column) != 1:
        got = listed(names) if names else "no column"
        raise DataError(
            f"{path}: expected one column {column!r}; got {got}{where}. Name the right one in text.column, or mend "
            "the file."
        )
