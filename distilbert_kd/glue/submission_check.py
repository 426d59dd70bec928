"""Whether a `submission.zip` is what the GLUE server takes.

The form is written down here once more, and nothing of the code that writes the file is used: a mistake in the tasks'
own table, or in the writer, would agree with itself.

Source: https://gluebenchmark.com/faq (files and form); row counts of the test files of the original `glue_data`, whose
ids run from 0.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path


__all__ = ["validate_submission"]

_HEADER = "index\tprediction"
_DIGITS = frozenset(("0", "1"))
_TWO_WAY = frozenset(("entailment", "not_entailment"))
_THREE_WAY = frozenset(("entailment", "neutral", "contradiction"))
_NUMBER = re.compile(r"[0-5](\.[0-9]+)?")
#: File to its number of rows and the words for its labels; None for numbers from 0 to 5.
_FILES: dict[str, tuple[int, frozenset[str] | None]] = {
    "CoLA.tsv": (1063, _DIGITS),
    "SST-2.tsv": (1821, _DIGITS),
    "MRPC.tsv": (1725, _DIGITS),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, _DIGITS),
    "MNLI-m.tsv": (9796, _THREE_WAY),
    "MNLI-mm.tsv": (9847, _THREE_WAY),
    "QNLI.tsv": (5463, _TWO_WAY),
    "RTE.tsv": (3000, _TWO_WAY),
    "WNLI.tsv": (146, _DIGITS),
    "AX.tsv": (1104, _THREE_WAY),
}


def validate_submission(path: Path) -> list[str]:
    """What the server would refuse, or score wrongly, in a submission.

    Args:
        path: the zip.

    Returns:
        The faults, one line each, with file, line and what was expected; empty for a good submission.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            faults = [f"{name}: expected no such file" for name in names if name not in _FILES]
            for name in _FILES:
                if names.count(name) == 1:
                    faults += _file_faults(name, archive.read(name))
                else:
                    faults.append(f"{name}: expected the file once, got it {names.count(name)} times")
    except (OSError, zipfile.BadZipFile) as error:
        return [f"{path}: expected a zip, got: {error}"]
    return faults


def _file_faults(name: str, content: bytes) -> Iterator[str]:
    """The faults of one file, up to its first wrong row."""
    num_rows, words = _FILES[name]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield f"{name}: expected text in UTF-8"
        return
    header, *rows = text.removesuffix("\n").split("\n")
    if header != _HEADER:
        yield f"{name}, line 1: expected {_HEADER!r}, got {header[:40]!r}"
    if len(rows) != num_rows:
        yield f"{name}: expected {num_rows} rows, got {len(rows)}"
    for number, row in enumerate(rows):
        index, _, prediction = row.partition("\t")
        if index != str(number):
            yield f"{name}, line {number + 2}: expected the index {number}, got {index[:40]!r}"
            return
        if not _is_allowed(prediction, words):
            wanted = "a number from 0 to 5" if words is None else " or ".join(sorted(words))
            yield f"{name}, line {number + 2}: expected {wanted}, got {prediction[:40]!r}"
            return


def _is_allowed(prediction: str, words: frozenset[str] | None) -> bool:
    if words is not None:
        return prediction in words
    return _NUMBER.fullmatch(prediction) is not None and float(prediction) <= 5
