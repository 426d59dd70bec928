"""A report as files: `report.html`, `report.md`, `report.json` and the figures."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilbert_kd.report.content import Content, content_of, gains_of, numbers_of
from distilbert_kd.report.pages import render_page
from distilbert_kd.report.pictures import Picture, has_matplotlib
from distilbert_kd.report.plots import draw_all
from distilbert_kd.report.run_reading import FinishedRun, read_run
from distilbert_kd.result_facts import architecture_of
from distilbert_kd.results import closing_lines, glossary, markdown_line, markdown_table, model_table, render_markdown
from distilbert_kd.run_folder import PLOTS, RunFolder
from distilbert_kd.storage import storage_errors, write_text


__all__ = ["write_report"]

logger = logging.getLogger(__name__)


def write_report(run: Path, out: Path | None = None) -> Path:
    """Writes the report of a run, in place of one that is there.

    Args:
        run: the run folder; it is all that is read.
        out: another folder to write to; it is made.

    Returns:
        The page.

    Raises:
        StorageError: it is no finished run, or the report can't be written.
    """
    finished = read_run(run)
    folder = RunFolder(run if out is None else out)
    content = content_of(finished)
    pictures = draw_all(finished, content.intervals) if has_matplotlib() else {}
    missing = _missing(finished, content)
    with storage_errors(folder.plots):
        folder.plots.mkdir(parents=True, exist_ok=True)
        for name in PLOTS:  # a figure of an older report must not stand beside this one's
            folder.plot(name).unlink(missing_ok=True)
        for name, picture in pictures.items():
            folder.plot(name).write_bytes(picture.png)
    numbers = numbers_of(content, list(pictures), missing)
    write_text(folder.report_numbers, json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    write_text(folder.report_text, _markdown(finished, content, pictures, missing))
    write_text(folder.report, _page(finished, content, pictures, missing))
    return folder.report


def _missing(run: FinishedRun, content: Content) -> list[str]:
    """What the report can't show, why, and what to do."""
    lines = []
    if not has_matplotlib():
        lines.append(
            "The figures: matplotlib is not installed. `pip install matplotlib`, then `distilbert-kd report`."
        )
    if not run.scored:
        lines.append(
            "Intervals, results by class, calibration, soft targets and rows: the folder has no scored rows. "
            "`distilbert-kd evaluate` writes them, where data and models are at hand; then `distilbert-kd report`."
        )
    elif len(content.intervals) < len(run.results["models"]["teacher"]["splits"]):
        lines.append("Intervals of some splits: their scored rows are not in the folder.")
    if not run.history:
        lines.append("Losses and scores over the steps: history.json is not in the folder.")
    if not run.environment:
        lines.append("Versions and hardware: environment.json is not in the folder.")
    if not run.results["models"].get("control"):
        lines.append("A control was not trained: what the teacher was worth is not known.")
    return lines


def _page(run: FinishedRun, content: Content, pictures: Mapping[str, Picture], missing: list[str]) -> str:
    num_classes = len(next(iter(content.by_class.values()), []))
    return render_page(
        "report.html.j2",
        title=f"{run.results['name']}: distillation report",
        results=run.results,
        content=content,
        pictures=pictures,
        missing=missing,
        models_table=model_table(run.results),
        architecture=architecture_of(run.results),
        glossary=[line.partition(": ")[::2] for line in glossary(run.results)],
        closing_lines=closing_lines(run.results, gains_of(run.results, content.intervals)),
        num_classes=num_classes,
        limit=math.log(num_classes) if num_classes else None,
        recipe=run.recipe,
        facts=_facts(run.environment),
    )


def _facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`environment.json` in lines: the path of a value, and the value."""
    lines: list[tuple[str, str]] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif value not in (None, []):
            lines.append(
                (path.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            )

    walk(environment, "")
    return lines


def _markdown(run: FinishedRun, content: Content, pictures: Mapping[str, Picture], missing: list[str]) -> str:
    parts = [render_markdown(run.results, gains_of(run.results, content.intervals)).rstrip()]
    if content.verdicts:
        parts.append("## How sure")
        for table in content.tables:
            parts += [f"{markdown_line(table.title)}:", markdown_table(table)]
        parts.append("\n".join(f"- {markdown_line(line)}" for line in content.verdicts))
        parts.append(
            "In brackets: 95 % intervals of a paired bootstrap over the rows; the noise of seeds comes on top."
        )
    if content.classes is not None:
        parts += [f"## {markdown_line(content.classes.title)}", markdown_table(content.classes)]
    if pictures:
        parts.append("## Figures")
        parts += [f"![{markdown_line(each.caption)}](plots/{name}.png)" for name, each in pictures.items()]
    if missing:
        parts += ["## Not shown", "\n".join(f"- {markdown_line(line)}" for line in missing)]
    return "\n\n".join(parts) + "\n"
