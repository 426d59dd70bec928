"""Tables, plots and files of results."""

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


__all__ = ["markdown_table", "mean_and_error", "new_figure", "save_figure", "write_json"]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a results file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, which is NaN for a single value."""
    if not values:
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def new_figure(num_rows: int, num_columns: int, share_x: bool = False) -> tuple[Any, Any]:
    """A figure and its axes, `axes[row][column]`."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    size = (5.2 * num_columns, 3.2 * num_rows)
    return pyplot.subplots(
        num_rows, num_columns, figsize=size, squeeze=False, layout="constrained", sharex="col" if share_x else False
    )


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG, small enough to be kept in the repository."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
