"""Data as Markdown: text that is shown and never read as markup, tables, and fenced code."""

import re
from collections.abc import Sequence


__all__ = ["code", "escaped", "fenced", "table"]

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~&$!])")


def escaped(text: object) -> str:
    """Text in one line in which nothing is markup, neither Markdown's nor HTML's."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Text in one line as code; not for a cell of a table."""
    line = " ".join(str(text).split())
    mark = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{mark}{pad}{line}{pad}{mark}"


def fenced(text: str, language: str) -> str:
    """Text as a block of code that it can't end itself."""
    mark = "`" * max(3, _longest_run(text) + 1)
    return f"{mark}{language}\n{text.rstrip()}\n{mark}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers. Cells are Markdown already."""
    lines = [f"| {' | '.join(line)} |" for line in (headers, *rows)]
    return "\n".join([lines[0], "|---" + "|---:" * (len(headers) - 1) + "|", *lines[1:]])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
