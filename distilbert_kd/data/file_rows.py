"""Rows of delimited files and JSON lines, one after the other, each with the line where it starts.

What is not as it should be is refused with its line. Nothing here needs the whole file, so that a task's table and a
corpus of any size are read by the same rules.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distilbert_kd.errors import DataError


__all__ = [
    "HALF_CHARACTER",
    "NUM_SHOWN",
    "csv_rows",
    "is_unicode",
    "json_rows",
    "listed",
    "of_width",
    "refuse_places",
    "shortened",
    "tsv_rows",
]

#: What to do about a text that is no `is_unicode`.
HALF_CHARACTER = "Half of a surrogate pair is no character: write the pair, or remove it."

#: Errors name this many rows; the others are counted.
NUM_SHOWN = 5

# Between a carriage return and what is no line feed: the end of a line to RFC 4180's readers as well.
_LONE_RETURN = re.compile(r"(?<=\r)(?=[^\n])")


def tsv_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells of each row of a TSV file, which has no quoting.

    Args:
        lines: ended by line feeds alone, because texts may hold other characters that Python splits at.

    Yields:
        Line, from 1, and cells; blank lines at the end are left out.
    """
    for line, text in enumerate(_without_blank_end(lines), start=1):
        yield line, text.removesuffix("\n").removesuffix("\r").split("\t")


def csv_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The line at which each row of a CSV file starts, and its cells; a quoted cell may span lines.

    Args:
        path: for the message.
        lines: with their ends.

    Yields:
        Line, from 1, and cells; blank lines at the end are left out.

    Raises:
        DataError: a quote is not closed, or stands where none may.
    """
    limit = csv.field_size_limit(sys.maxsize)  # 131,072 characters otherwise, for the whole process
    parts = (part for line in _without_blank_end(lines) for part in _LONE_RETURN.split(line))
    reader = csv.reader(parts, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells or [""]
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: expected quotes as in RFC 4180; got a row starting at line {line} that can't be read ({error}). "
            'Close each quote, and write a quote inside a quoted cell twice (""); for text without quoting use .tsv.'
        ) from error
    finally:
        csv.field_size_limit(limit)


def json_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line number and the object of each line that is not blank.

    Args:
        path: for the message.
        lines: one object each.

    Yields:
        Line, from 1, and object.

    Raises:
        DataError: a line holds no JSON, no object, or one with a key twice.
    """
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text.rstrip(), object_pairs_hook=_with_each_key_once)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{path}: expected one JSON object in each line; line {line} can't be read ({reason}). Mend the line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected one JSON object in each line; got {shortened(row)} at line {line}.")
        yield line, row


def of_width(
    path: Path, rows: Iterable[tuple[int, list[str]]], names: Sequence[str], broken: list[int] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The rows with as many cells as there are names.

    Args:
        path: for the message.
        rows: line and cells.
        names: of the columns.
        broken: takes the lines of other rows; without it they are refused. After the first one no row is given.

    Yields:
        Line and cells.

    Raises:
        DataError: a row is shorter or longer; the first five are named.
    """
    shown: list[str] = []
    num_wrong = 0
    for line, cells in rows:
        if len(cells) == len(names):
            if not num_wrong:
                yield line, cells
        elif broken is not None:
            broken.append(line)
        else:
            num_wrong += 1
            if num_wrong <= NUM_SHOWN:
                shown.append(f"{len(cells)} at line {line}")
    if num_wrong:
        more = f" and {num_wrong - NUM_SHOWN} more" if num_wrong > NUM_SHOWN else ""
        advice = (
            "a .tsv file has no quoting, so no text in it can hold a tab or a line end"
            if path.suffix.lower() == ".tsv"
            else 'put a text with a comma or a line end in quotes ("")'
        )
        raise DataError(
            f"{path}: expected {len(names)} columns ({listed(names)}) in each row; "
            f"got {', '.join(shown)}{more}. Mend these rows; {advice}."
        )


def refuse_places(name: str, expected: str, bad: Sequence[tuple[str, Any]], do: str) -> None:
    """Raises one error for all bad cells, naming the first five of them; does nothing when there is none.

    Args:
        name: of the file.
        expected: What the cells should be.
        bad: Place ("line 3") and cell.
        do: What the user can do.

    Raises:
        DataError: There is a bad cell.
    """
    if not bad:
        return
    shown = [f"{shortened(cell)} at {place}" for place, cell in bad[:NUM_SHOWN]]
    more = f" and {len(bad) - NUM_SHOWN} more" if len(bad) > NUM_SHOWN else ""
    raise DataError(f"{name}: expected {expected}; got {', '.join(shown)}{more}. {do}")


def shortened(cell: Any) -> str:
    """A cell as it is shown in a message: in ASCII, on one line, with 60 characters at most."""
    shown = ascii(cell)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def listed(names: Sequence[str]) -> str:
    """Names for a message: twenty at most, as they are unless they are long or can't be printed."""
    shown = ", ".join(name if name.isprintable() and 0 < len(name) <= 60 else shortened(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON can name half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_blank_end(lines: Iterable[str]) -> Iterator[str]:
    """In a file of one column a blank line is an empty text; at the end it is only how the file was saved."""
    waiting: list[str] = []
    for line in lines:
        if line.strip("\r\n"):
            yield from waiting
            waiting.clear()
            yield line
        else:
            waiting.append(line)


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shortened(twice)} twice")
    return row
