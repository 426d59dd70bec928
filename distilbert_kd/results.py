"""The results of a run: the shape of `results.json`, and the table that people read.

`results.json` is this dict (its keys are the contract with every tool that reads a run folder; `?` may be missing or
null; `results_schema` has the same as a JSON schema):

    schema_version    1
    name, task        of the recipe and of the data
    metric            a key of `distilbert_kd.metrics.SCORE_NAMES`
    score_name        the main number in words
    data              source, notes [lines], rows {split: number}, drawn_from? {split: number before some were drawn},
                      augmentation? {gold, augmented, transfer, dropped: numbers of rows}
    student           layers [the teacher layer that each student layer copied]
    distillation      temperature, alpha: a number or {start, end, shape}; alpha_augmented?
                      terms: weight, or {weight, layers, ...}
    seed              of student and control
    models            teacher, student, control? -> one record each:
        name, num_layers, num_parameters, size_mb (weights, 10^6 bytes)
        architecture? the class of transformers that it loads as
        latency_ms?   {"1": median ms per example at batch 1, "32": ...}
        latency_quartiles_ms?  {"1": [a quarter of the rounds took less, a quarter more], "32": ...}
        splits        {split: score, metrics {name: value}, num_rows, calibration_error?, constant_score?,
                       is_near_chance?, fidelity? {agreement?, kl_nats?, mean_squared_difference?, pearson?}}
    seconds?          teacher?, distillation?, control?, total?
    latency_setting?  device, num_threads, num_rounds? {"1": timed rounds at batch 1, "32": ...}

All scores are stored as fractions and correlations, never as percentages; the table multiplies by 100.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distilbert_kd.markdown import table as draw_markdown
from distilbert_kd.metrics import is_regression_metric
from distilbert_kd.result_facts import (
    architecture_of,
    arms_of,
    difference_of,
    latency_of,
    rows_of,
    splits_of,
    warnings_of,
)


__all__ = [
    "SCHEMA_VERSION",
    "Table",
    "closing_lines",
    "glossary",
    "markdown_line",
    "markdown_table",
    "model_table",
    "render_markdown",
    "render_table",
    "unit_of",
]

SCHEMA_VERSION = 1

_WIDTH = 100

_NO_CONTROL = (
    "No control was trained: what the teacher bought over training the same student on the labels alone is not known."
)
_METRIC_NAMES = {
    "accuracy": "accuracy\n(%)",
    "f1": "F1\n(%)",
    "matthews_correlation": "Matthews\n(x100)",
    "pearson": "Pearson\n(x100)",
    "spearmanr": "Spearman\n(x100)",
}


@dataclass(frozen=True)
class Table:
    """One table before it is drawn: headers may have two lines, the first cell of a row names it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_table(results: Mapping[str, Any]) -> str:
    """The results as plain text for a terminal of 100 columns."""
    parts = [_heading(results), *(_filled([f"WARNING: {line}" for line in warnings_of(results)]))]
    for table in _tables(results):
        parts.append("\n".join([table.title, *_draw_text(table)]))
    parts.append("\n".join(_filled(closing_lines(results))))
    return "\n\n".join(parts) + "\n"


def _filled(lines: Sequence[str]) -> list[str]:
    return [textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in lines]


def render_markdown(results: Mapping[str, Any], gains: Sequence[str] | None = None) -> str:
    """The results as Markdown, with the same tables and lines as `render_table`, and what their words mean.

    Args:
        results: of a run.
        gains: lines on student and control, see `closing_lines`.

    Returns:
        The page.
    """
    parts = [f"# {markdown_line(_heading(results))}"]
    parts += [f"> **Warning:** {markdown_line(line)}" for line in warnings_of(results)]
    models, *splits = _tables(results)
    parts += [f"## {models.title}", markdown_table(models), " ".join(f"{line}." for line in glossary(results))]
    for table in splits:
        parts += [f"## {markdown_line(table.title)}", markdown_table(table)]
    parts.append("\n".join(f"- {markdown_line(line)}" for line in closing_lines(results, gains)))
    return "\n\n".join(parts) + "\n"


def markdown_line(text: str) -> str:
    """Text in one line, in which names of data make no tag, link or image."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    return text.replace("[", "\\[").replace("]", "\\]")


def _draw_text(table: Table) -> list[str]:
    headers = [header.partition("\n")[::2] for header in table.headers]
    lines = [tuple(first for first, _ in headers), tuple(second for _, second in headers), *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    drawn = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return [*drawn[:2], "-" * max(map(len, drawn)), *drawn[2:]]


def markdown_table(table: Table) -> str:
    """A table in Markdown, without its title; what would be a tag, a link or a cell's end is escaped."""
    headers, *rows = [[_markdown_cell(cell) for cell in line] for line in (table.headers, *table.rows)]
    return draw_markdown(headers, rows)


def _markdown_cell(text: str) -> str:
    return markdown_line(text).replace("|", "\\|")


def _heading(results: Mapping[str, Any]) -> str:
    task = "" if results["task"] == results["name"] else f"{results['task']}, "
    return f"{results['name']}: {task}scored by {results['score_name']}"


def _tables(results: Mapping[str, Any]) -> list[Table]:
    return [model_table(results), *(_split_table(results, split) for split in splits_of(results))]


def model_table(results: Mapping[str, Any]) -> Table:
    """Depth, size and time of each model."""
    arms = arms_of(results)
    teacher_ms = arms["teacher"].get("latency_ms") or {}
    headers = ["", "layers\n", "parameters\n(M)", "weights\n(MB)"]
    headers += [f"ms/example\nbatch {batch_size}" for batch_size in teacher_ms]
    headers += [f"speed-up\nbatch {batch_size}" for batch_size in teacher_ms]
    rows = []
    for arm, model in arms.items():
        ms = model.get("latency_ms") or {}
        row = [arm, str(model["num_layers"]), f"{model['num_parameters'] / 1e6:.1f}", f"{model['size_mb']:.1f}"]
        row += [latency_of(model, batch_size) or "-" for batch_size in teacher_ms]
        row += [_ratio(teacher_ms[batch_size], ms.get(batch_size)) for batch_size in teacher_ms]
        rows.append(tuple(row))
    return Table("Models", tuple(headers), tuple(rows))


def _split_table(results: Mapping[str, Any], split: str) -> Table:
    arms = arms_of(results)
    teacher = arms["teacher"]["splits"][split]
    metrics = teacher["metrics"] if len(teacher["metrics"]) > 1 else {}
    is_regression = is_regression_metric(results["metric"])
    names = _METRIC_NAMES | ({"f1": "macro F1\n(%)"} if results["metric"] == "accuracy_f1" else {})
    headers = ["", f"score\n({unit_of(results['metric'])})", *(names.get(name, name) for name in metrics)]
    of_classes = ["agreement\n(%)", "KL\n(nats)", "calibration\nerror (%)"]
    headers += ["retention\n(%)", *(["MSE to\nteacher", "r to teacher\n(x100)"] if is_regression else of_classes)]
    rows = []
    for arm, model in arms.items():
        values = model["splits"][split]
        nearness = values.get("fidelity") or {}
        row = [
            arm,
            _number(values["score"], 1, 100),
            *(_number(values["metrics"].get(name), 1, 100) for name in metrics),
        ]
        row.append(_retention(values["score"], teacher["score"]))
        if not is_regression:
            row += [_number(nearness.get("agreement"), 1, 100), _number(nearness.get("kl_nats"), 3)]
            row.append(_number(values.get("calibration_error"), 1, 100))
        else:
            row += [_number(nearness.get("mean_squared_difference"), 3), _number(nearness.get("pearson"), 1, 100)]
        rows.append(tuple(row))
    return Table(f"{split}, {rows_of(results, split)}", tuple(headers), tuple(rows))


def unit_of(metric: str) -> str:
    """Shares are percentages; correlations are multiplied by 100, as GLUE reports them, and are no percentage."""
    return "x100" if is_regression_metric(metric) or metric in ("ax", "cola") else "%"


def _number(value: float | None, decimals: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.{decimals}f}"


def _ratio(teacher_ms: float | None, ms: float | None) -> str:
    return f"{teacher_ms / ms:.2f}x" if teacher_ms and ms else "-"


def _retention(value: float, teacher_value: float) -> str:
    """Share of the teacher's score; no meaning where the teacher has none."""
    return f"{100 * value / teacher_value:.1f}" if teacher_value > 0 else "-"


def glossary(results: Mapping[str, Any]) -> list[str]:
    """What the words of the tables mean, one line for each word, without the stop."""
    lines = [
        "Teacher: the large model that was learnt from",
        "Student: the small one, which learnt from the labels and from the teacher's answers",
    ]
    if results["models"].get("control"):
        lines.append("Control: the same student, trained on the labels alone; what it reaches needs no teacher")
    lines.append("Retention: share of the teacher's score")
    if is_regression_metric(results["metric"]):
        return [*lines, "MSE and r to teacher: mean squared difference and correlation of the two answers"]
    return [
        *lines,
        "Agreement: share of the rows that get the teacher's class",
        "KL: how far the probabilities are from the teacher's, in nats (natural logarithm); 0 is the same",
        "Calibration error: how far, on average, a model's confidence is from its share of right answers",
    ]


def closing_lines(results: Mapping[str, Any], gains: Sequence[str] | None = None) -> list[str]:
    """What stands under the tables: student and control, and where everything came from.

    Args:
        results: of a run.
        gains: lines on student and control with their intervals; None: these are not known here.

    Returns:
        The lines.
    """
    distillation, layers = results["distillation"], results["student"]["layers"]
    lines = [
        *(_gains(results) if gains is None else gains),
        f"Teacher: {results['models']['teacher']['name']}.",
        *filter(None, [architecture_of(results)]),
        f"Layers: student {', '.join(map(str, range(len(layers))))} from "
        f"{results['student'].get('init_from') or 'teacher'} {', '.join(map(str, layers))}.",
        f"Distillation: T = {_schedule(distillation['temperature'])}, "
        f"alpha = {_schedule(distillation['alpha'])}{_deep_terms(distillation.get('terms') or {})}.",
        *_augmented(results),
        f"Seed: {results['seed']} (one run; the spread between seeds is not measured).",
        f"Data: {results['data']['source']}; rows: "
        + ", ".join(f"{split} {num_rows:,}" for split, num_rows in results["data"]["rows"].items())
        + ".",
        *(f"Note: {note}" for note in results["data"].get("notes") or ()),
    ]
    setting = results.get("latency_setting")
    if setting:
        where = f"on {setting['device']}, {setting['num_threads']} CPU thread(s)"
        lines.append(f"Latency: forward pass only, {where}{_rounds(setting)}.")
    seconds = {stage: value for stage, value in (results.get("seconds") or {}).items() if value is not None}
    if seconds:
        lines.append("Time: " + ", ".join(f"{stage} {value:,.0f} s" for stage, value in seconds.items()) + ".")
    return lines


def _rounds(setting: Mapping[str, Any]) -> str:
    """What median and quartiles are taken over."""
    rounds = setting.get("num_rounds") or {}
    told = ", ".join(f"{number} at batch {batch_size}" for batch_size, number in rounds.items())
    return f"; median and quartiles of rounds with other rows each: {told}" if told else ""


def _deep_terms(terms: Mapping[str, Any]) -> str:
    weights = {name: term["weight"] if isinstance(term, Mapping) else term for name, term in terms.items()}
    return "".join(f", {name} {weight:g}" for name, weight in weights.items() if weight > 0)


def _augmented(results: Mapping[str, Any]) -> list[str]:
    """What was added to the training rows, and how it was weighed."""
    counts = results["data"].get("augmentation")
    if not counts:
        return []
    parts = [f"{counts['gold']:,} gold rows", f"{counts['augmented']:,} altered copies"]
    parts += [f"{counts['transfer']:,} unlabelled texts"] * (counts["transfer"] > 0)
    alpha = _schedule(results["distillation"]["alpha_augmented"])
    control = "The control learnt from the same rows, a copy with its row's label"
    control += ", without the unlabelled ones." if counts["transfer"] else "."
    return [
        f"Augmentation: {', '.join(parts)}; alpha = {alpha} for copies. "
        + (control if results["models"].get("control") else "")
    ]


def _gains(results: Mapping[str, Any]) -> Sequence[str]:
    if not results["models"].get("control"):
        return [_NO_CONTROL]
    return [
        f"{difference_of(results, split, 'control')}; report.md says whether these rows tell them apart."
        for split in splits_of(results)
    ]


def _schedule(value: float | Mapping[str, Any]) -> str:
    """A number, or where a schedule starts and ends."""
    if isinstance(value, Mapping):
        return f"{value['start']:g} to {value['end']:g} ({value['shape']})"
    return f"{value:g}"
