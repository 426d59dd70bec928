"""From cells to labels: class names to class numbers, words to numbers, and the refusal of everything else."""

import math
import re
from collections.abc import Sequence
from typing import Any

from distilbert_kd.data.tables import Table, refuse_half_characters, refuse_rows
from distilbert_kd.errors import DataError


__all__ = ["MISSING_LABEL", "class_names_of", "encode_classes", "encode_numbers", "has_labels"]

MISSING_LABEL = -100  # what the losses of torch and transformers leave out

_LARGEST_FLOAT32 = 3.4028234663852886e38
_WHOLE_FLOAT = re.compile(r"-?[0-9]+\.0+")
_NO_LABEL = (None, "-1", "-100")
_ALLOW_HINT = "Give each row a label, or set data.allow_unlabelled_rows (training rows only)."


def has_labels(table: Table, label: str) -> bool:
    """Whether the table has labels: the column is there, and holds more than empty cells, -1 and -100."""
    return label in table.columns and any(_as_word(cell) not in _NO_LABEL for cell in table.columns[label])


def class_names_of(table: Table, label: str) -> tuple[str, ...]:
    """The class names that a column shows: those stored with it, or its sorted distinct values (integers by size).

    Args:
        table: The training rows.
        label: The column.

    Returns:
        The names in the order of their numbers.

    Raises:
        DataError: There are fewer than two, or they are fractions or no valid Unicode.
    """
    if label in table.class_names:
        return table.class_names[label]
    refuse_half_characters(table, label)
    words = {_as_word(cell) for cell in table.columns[label]} - {None, str(MISSING_LABEL)}
    names = [word for word in words if word is not None]
    fractions = [name for name in names if _is_fraction(name)]
    if fractions:
        raise DataError(
            f"{table.name}: expected class names in the column {label!r}; got fractions such as {min(fractions)}. For "
            "numbers set data.problem_type to regression; if these are classes, list them in data.labels."
        )
    if len(names) < 2:
        raise DataError(
            f"{table.name}: expected two or more classes in the column {label!r}; got {names}. "
            "Check the column, or list the classes in data.labels."
        )
    if all(_is_integer(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def encode_classes(
    table: Table, label: str, names: Sequence[str], is_missing_allowed: bool = False, has_places: bool = False
) -> list[int]:
    """Class numbers of a column; `MISSING_LABEL` for a row without a label where that is allowed.

    Args:
        table: The rows.
        label: The column.
        names: The class names in the order of their numbers.
        is_missing_allowed: Whether rows may lack a label.
        has_places: Whether a cell may also give a name's place in the list, from 0 (never when a name is an integer).

    Returns:
        One class number for each row.

    Raises:
        DataError: A label is missing or not in the set.
    """
    numbers: dict[str | None, int] = {_as_word(name): number for number, name in enumerate(names)}
    has_places = has_places and not any(_is_integer(name) for name in names)
    if has_places:
        numbers.update({str(number): number for number in range(len(names))})
    cells = table.columns[label]
    words = [_as_word(cell) for cell in cells]
    missing = [word is None or (word in _NO_LABEL and word not in numbers) for word in words]
    if not is_missing_allowed:
        refuse_rows(
            table,
            f"a label in the column {label!r}",
            _where(cells, missing),
            f"{_ALLOW_HINT} Labels: {_listed(names)}.",
        )
    outside = [not gone and word not in numbers for word, gone in zip(words, missing, strict=True)]
    places = f", or a place from 0 to {len(names) - 1}" if has_places else ""
    refuse_rows(
        table,
        f"one of the labels {_listed(names)}{places} in the column {label!r}",
        _where(cells, outside),
        "Mend these rows, or list the right classes in data.labels (taken from the training rows without it).",
    )
    return [MISSING_LABEL if gone else numbers[word] for word, gone in zip(words, missing, strict=True)]


def encode_numbers(table: Table, label: str, is_missing_allowed: bool = False) -> list[float]:
    """The numbers of a column, for regression; `MISSING_LABEL` for a row without one where that is allowed.

    Args:
        table: The rows.
        label: The column.
        is_missing_allowed: Whether rows may lack a number.

    Returns:
        One finite number for each row.

    Raises:
        DataError: A number is missing, not a number, or not finite in float32.
    """
    cells = table.columns[label]
    words = [_as_word(cell) for cell in cells]
    missing = [word is None or word == str(MISSING_LABEL) for word in words]
    if not is_missing_allowed:
        refuse_rows(table, f"a number in the column {label!r}", _where(cells, missing), _ALLOW_HINT)
    numbers = [None if gone else _as_number(str(word)) for word, gone in zip(words, missing, strict=True)]
    wrong = [number is None and not gone for number, gone in zip(numbers, missing, strict=True)]
    refuse_rows(
        table,
        f"finite numbers in the column {label!r}",
        _where(cells, wrong),
        "Write them as 3.5 or 1e-3; for class names set data.problem_type to single_label_classification.",
    )
    return [float(MISSING_LABEL) if number is None else number for number in numbers]


def _where(cells: Sequence[Any], flags: Sequence[bool]) -> list[tuple[int, Any]]:
    return [(row, cell) for row, (cell, flag) in enumerate(zip(cells, flags, strict=True)) if flag]


def _as_word(cell: Any) -> str | None:
    """The label as text: `1`, `1.0`, `"1"` and `" 1"` are the same; None when there is none."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    word = str(cell).strip()
    # A column with a gap in it leaves other tools as 1.0 in place of 1.
    return word.rstrip("0").removesuffix(".") if _WHOLE_FLOAT.fullmatch(word) else word


def _as_number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    # float() takes 1_000 as well, which is Python's way to write code and no way to write data.
    return number if math.isfinite(number) and abs(number) <= _LARGEST_FLOAT32 and "_" not in word else None


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _is_fraction(name: str) -> bool:
    return _as_number(name) is not None and not _is_integer(name)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
