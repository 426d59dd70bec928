"""Strict readers: a file or a Hub split becomes a table whose rows remember where they came from.

Cells stay what they are: the words `null`, `NA` and `nan` are text, and no type is guessed. A row with the wrong
number of columns, a file that is not UTF-8 or an unfinished quote is refused with its line.
"""

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet

from distilbert_kd.data.file_rows import (
    HALF_CHARACTER,
    csv_rows,
    is_unicode,
    json_rows,
    listed,
    of_width,
    refuse_places,
    shortened,
    tsv_rows,
)
from distilbert_kd.errors import DataError


__all__ = ["FILE_ENDINGS", "Table", "read_table", "refuse_half_characters", "refuse_rows", "table_from_dataset"]

FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Table:
    """Some columns of a file or a Hub split.

    Attributes:
        name: The file's path, or the Hub data set and its split.
        columns: The cells of each column that was asked for and is there.
        positions: Where each row starts, counted from 1.
        unit: What the positions count: "line" or "row".
        class_names: For a column stored as class numbers with names (`ClassLabel`), those names; its cells are
            given as names already.
        num_broken_lines: Lines with the wrong number of columns that were left out.
    """

    name: str
    columns: dict[str, list[Any]]
    positions: Sequence[int]
    unit: str
    class_names: dict[str, tuple[str, ...]]
    num_broken_lines: int = 0

    def __len__(self) -> int:
        return len(self.positions)


def read_table(
    path: Path,
    wanted: Sequence[str],
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
    skips_broken_lines: bool = False,
) -> Table:
    """Reads a file by its ending: CSV (RFC 4180), TSV (no quoting), JSON lines (.jsonl, .json) or parquet.

    Args:
        path: The file.
        wanted: Columns that must be there.
        optional: Columns that are taken when they are there.
        header: The column names of a TSV file that has no header line.
        skips_broken_lines: Whether lines of a TSV file with the wrong number of columns are left out and counted.

    Returns:
        The table with the wanted columns and the optional ones that are there.

    Raises:
        DataError: The file is missing, empty, not UTF-8, malformed or lacks a column.
    """
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        raise DataError(f"{path}: expected a file ending in {', '.join(FILE_ENDINGS)}; got {ending or 'no ending'!r}.")
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        where = "" if path.is_absolute() else f" (from {Path.cwd()}; paths start where the command runs)"
        raise DataError(f"{path}: expected a file; got {got}{where}.")
    if ending == ".parquet":
        return _read_parquet(path, wanted, optional)
    lines = io.StringIO(_read_utf8(path), newline="\n")
    if ending in (".jsonl", ".json"):
        return _read_json_lines(path, lines, wanted, optional)
    broken: list[int] = []
    rows = csv_rows(path, lines) if ending == ".csv" else tsv_rows(lines)
    names = tuple(header) if header else tuple(next(rows)[1])
    rows = of_width(path, rows, names, broken if skips_broken_lines else None)
    return _delimited_table(path, names, rows, wanted, optional, broken)


def table_from_dataset(
    dataset: datasets.Dataset, name: str, wanted: Sequence[str], optional: Sequence[str] = ()
) -> Table:
    """The same kind of table from a data set; class numbers become their names, and -1 a missing label."""
    taken = _taken_columns(name, dataset.column_names, wanted, optional)
    table = dataset.select_columns(taken).with_format("arrow")[:]
    return _arrow_table(table, dataset.features, name, taken)


def refuse_rows(table: Table, expected: str, bad: Iterable[tuple[int, Any]], do: str) -> None:
    """Raises one error for all bad rows, naming the first five of them; does nothing when there is none.

    Args:
        table: The table that the rows are in.
        expected: What the cells should be.
        bad: Row number (from 0) and cell of each bad row.
        do: What the user can do.

    Raises:
        DataError: There is a bad row.
    """
    refuse_places(table.name, expected, [(f"{table.unit} {table.positions[row]}", cell) for row, cell in bad], do)


def refuse_half_characters(table: Table, column: str) -> None:
    """Refuses texts with half of a surrogate pair, which no file and no tokenizer takes.

    Args:
        table: The table.
        column: Its column; cells that are no text are left alone.

    Raises:
        DataError: There is such a text.
    """
    cells = enumerate(table.columns[column])
    refuse_rows(
        table,
        f"valid Unicode in the column {column!r}",
        [(row, cell) for row, cell in cells if isinstance(cell, str) and not is_unicode(cell)],
        HALF_CHARACTER,
    )


def _read_utf8(path: Path) -> str:
    content = path.read_bytes()
    try:
        # The mark that some editors put first is no part of the first column's name.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Python counts from the start of what it decodes, which leaves out a mark at the start.
        start = error.start + len(content) - len(error.object)
        raise DataError(
            f"{path}: expected UTF-8; got the byte 0x{content[start]:02x} at line {content.count(10, 0, start) + 1} "
            f"(byte offset {start}). Save the file as UTF-8."
        ) from error
    if not text.strip():
        raise DataError(f"{path}: expected rows; got an empty file.")
    return text


def _delimited_table(
    path: Path,
    names: Sequence[str],
    rows: Iterable[tuple[int, list[str]]],
    wanted: Sequence[str],
    optional: Sequence[str],
    broken: list[int],
) -> Table:
    taken = _taken_columns(str(path), names, wanted, optional)
    places = [names.index(name) for name in taken]
    cells: list[list[Any]] = [[] for _ in taken]
    positions = []
    for line, row in rows:
        positions.append(line)
        for column, place in zip(cells, places, strict=True):
            column.append(row[place])
    return _with_rows(
        Table(str(path), dict(zip(taken, cells, strict=True)), positions, "line", {}, num_broken_lines=len(broken))
    )


def _read_json_lines(path: Path, lines: Iterable[str], wanted: Sequence[str], optional: Sequence[str]) -> Table:
    objects = list(json_rows(path, lines))
    names = list(dict.fromkeys(name for _, row in objects for name in row))
    taken = _taken_columns(str(path), names, wanted, optional)
    table = Table(
        str(path),
        # A row without an optional column has no value there; a wanted one must be in each.
        {name: [row.get(name) for _, row in objects] for name in taken},
        [line for line, _ in objects],
        "line",
        {},
    )
    for name in wanted:
        missing = [(number, sorted(row)) for number, (_, row) in enumerate(objects) if name not in row]
        refuse_rows(table, f"the column {name!r} in each row", missing, "Add it to these rows.")
    return table


def _read_parquet(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Table:
    try:
        schema = pyarrow.parquet.read_schema(path)
        taken = _taken_columns(str(path), schema.names, wanted, optional)
        table = pyarrow.parquet.read_table(path, columns=taken).combine_chunks()
        table.validate(full=True)  # text that is not UTF-8, for one: indices are then those of the rows, from 0
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: expected a parquet file; it can't be read ({reason}). Write it again.") from error
    # `datasets` leaves the names of its classes in the schema.
    return _arrow_table(table, datasets.Features.from_arrow_schema(schema), str(path), taken)


def _arrow_table(table: pyarrow.Table, features: datasets.Features, name: str, taken: Sequence[str]) -> Table:
    columns, class_names = {}, {}
    for column in taken:
        cells = table.column(column).to_pylist()
        if isinstance(features[column], datasets.ClassLabel):
            names = tuple(features[column].names)
            class_names[column] = names
            cells = [names[cell] if cell is not None and 0 <= cell < len(names) else None for cell in cells]
        elif any(isinstance(cell, float) for cell in cells):
            # Where a number is missing, other tools store "not a number".
            cells = [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]
        columns[column] = cells
    return _with_rows(Table(name, columns, range(1, table.num_rows + 1), "row", class_names))


def _taken_columns(name: str, there: Sequence[str], wanted: Sequence[str], optional: Sequence[str]) -> list[str]:
    doubled = sorted(column for column, count in Counter(there).items() if count > 1)
    if doubled:
        raise DataError(
            f"{name}: expected one column of each name; got two or more of {listed(doubled)}. Rename all but one."
        )
    missing = [column for column in wanted if column not in there]
    if missing:
        raise DataError(
            f"{name}: expected the columns {', '.join(wanted)}; got {listed([*map(shortened, there)])} "
            f"(missing: {', '.join(missing)}). {_column_advice(there)}"
        )
    # A column may be asked for twice, as the text and as the pair.
    return list(dict.fromkeys([*wanted, *(column for column in optional if column in there)]))


def _column_advice(there: Sequence[str]) -> str:
    if any("\r" in column for column in there):
        return "Its lines seem to end in carriage returns: save the file with line feeds."
    for separator in (";", "\t"):
        if len(there) == 1 and separator in there[0]:
            return f"The cells seem to be separated by {separator!r}: save the file with commas, or with tabs as .tsv."
    return "Name the right columns (predict: --text, --text-pair), or mend the header."


def _with_rows(table: Table) -> Table:
    if not len(table):
        raise DataError(f"{table.name}: expected rows; got a header and nothing below it.")
    return table
