"""A comparison as files: `compare.html`, `compare.md`, `compare.json` and its figure."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from distilbert_kd.report.comparison import Setting, compare_runs, tables_of
from distilbert_kd.report.pages import render_page
from distilbert_kd.report.pictures import Palette, Picture, draw, has_matplotlib
from distilbert_kd.report.run_reading import read_run
from distilbert_kd.results import markdown_line, markdown_table
from distilbert_kd.storage import storage_errors, write_text


if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["write_comparison"]

_CAPTION = "Students and controls of each setting on its main split: one mark for each run"
_ONE_RUN = "A setting with one run says nothing about the spread between seeds."
_SPREAD = "Settings with several runs: mean ± standard deviation between the runs' seeds (n - 1)."


def write_comparison(runs: Sequence[Path], out: Path) -> tuple[Path, str]:
    """Compares finished runs, and writes the comparison in place of one that is there.

    Args:
        runs: the run folders.
        out: the folder to write to; it is made.

    Returns:
        The page, and the text of `compare.md`.

    Raises:
        StorageError: a folder holds no finished run, or the comparison can't be written.
    """
    settings = compare_runs([read_run(run) for run in runs])
    tables = tables_of(settings)
    notes = [_SPREAD] if any(len(each.runs) > 1 for each in settings) else []
    notes += [_ONE_RUN] if any(len(each.runs) == 1 for each in settings) else []
    picture = _picture(settings) if has_matplotlib() else None
    if picture is None:
        notes.append("No figure: matplotlib is not installed.")
    warnings = [line for each in settings for line in each.warnings]
    parts = ["# Comparison", *(f"> **Warning:** {markdown_line(line)}" for line in warnings)]
    for table in tables:
        parts += [f"{table.title}:", markdown_table(table)]
    text = "\n\n".join([*parts, *notes]) + "\n"
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        if picture is None:  # a figure of other runs must not stand beside this table
            (out / "compare.png").unlink(missing_ok=True)
        else:
            (out / "compare.png").write_bytes(picture.png)
    write_text(out / "compare.json", json.dumps([asdict(each) for each in settings], indent=2) + "\n")
    write_text(out / "compare.md", text)
    page = render_page(
        "compare.html.j2",
        title="Comparison of runs",
        settings=settings,
        warnings=warnings,
        tables=tables,
        notes=notes,
        picture=picture,
    )
    write_text(out / "compare.html", page)
    return out / "compare.html", text


def _picture(settings: Sequence[Setting]) -> Picture:
    def picture(axes: "Axes", palette: Palette) -> None:
        for place, setting in enumerate(settings):
            split = next(iter(setting.values))
            for arm, mark, shift in (("control", "^", 0.14), ("student", "s", -0.14)):
                values = [100 * value for value in setting.values[split].get(arm, ())]
                label = arm if arm not in axes.get_legend_handles_labels()[1] else None
                axes.plot(values, [place + shift] * len(values), mark, color=palette.of(arm), label=label)
        axes.set_yticks(range(len(settings)), [str(place + 1) for place in range(len(settings))])
        axes.invert_yaxis()
        axes.margins(0.12)
        axes.legend()
        axes.set(xlabel="score x 100", ylabel="setting")
        axes.grid(axis="x", alpha=0.6)

    return draw("compare", _CAPTION, picture, (5.6, 1.4 + 0.4 * len(settings)))
