"""The tables of a benchmark as papers print them, models by tasks, in Markdown and LaTeX."""

from collections.abc import Sequence

from distilbert_kd.data.tasks import TASKS
from distilbert_kd.glue.record import GlueResults, Mean, TaskResult
from distilbert_kd.report.comparison import render_summary
from distilbert_kd.report.resampling import Interval
from distilbert_kd.results import Table, markdown_line, markdown_table


__all__ = ["latex_text", "markdown_text", "notes_of", "tables_of", "title_of"]

_ARMS = ("teacher", "student", "control")
_NONE = "–"
_SHORT_NUMBERS = {
    "Matthews correlation": "Matthews",
    "mean of F1 and accuracy": "(F1 + acc.)/2",
    "mean of Pearson and Spearman correlation": "(Pearson + Spearman)/2",
    "accuracy, mean of m and mm": "(m + mm)/2",
    "accuracy, m alone": "acc., m",
}
_METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews_correlation": "Matthews",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "accuracy, validation_matched": "accuracy, m",
    "accuracy, validation_mismatched": "accuracy, mm",
}
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "±": r"$\pm$", "–": "--"}


def title_of(task: str) -> str:
    """What papers call a task: `CoLA` for "cola"."""
    return TASKS[task].folders[0]


def tables_of(results: GlueResults) -> list[Table]:
    """The table of the numbers that enter the mean, that of every metric, and that of size and time."""
    tables = [_scores(results)]
    if results.tasks:
        tables += [_metrics(results.tasks), _costs(results.tasks)]
    return tables


def notes_of(results: GlueResults) -> list[str]:
    """What stands under the tables: what the numbers are, which tasks failed, and what the submission holds."""
    return [
        *(f"FAILED: {title_of(each.task)}, seed {each.seed}: {each.error}" for each in results.failures),
        *_about_rows(results.tasks),
        "Scores x 100 on dev rows, mean ± standard deviation over the seeds (n - 1). Where a task has two metrics, "
        "their mean is its number. Each task weighs the same in the mean.",
        *map(_about_mean, results.means),
        "Retention: mean of the student over mean of the teacher. The teacher is fine-tuned with the student's seed, "
        "where the recipe fine-tunes it; the control is the student trained on the labels alone, with the same seed.",
        "Student minus control: 95 % intervals, by Student's t over the seeds, and by resampled dev rows of the mean "
        "over the seeds. Neither holds the other's noise.",
        *_about_speed(results.tasks),
        *_about_submission(results),
    ]


def markdown_text(results: GlueResults) -> str:
    """The tables and notes in Markdown."""
    parts = ["# GLUE"]
    for table in tables_of(results):
        parts += [f"## {table.title}", markdown_table(table)]
    parts.append("\n".join(f"- {markdown_line(note)}" for note in notes_of(results)))
    return "\n\n".join(parts) + "\n"


def latex_text(results: GlueResults) -> str:
    """The tables as LaTeX, with the notes as comments; needs the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    parts += ["\n".join(f"% {line}" for note in notes_of(results) for line in note.splitlines())]
    for table in tables_of(results):
        header, *rows = [" & ".join(map(_latex_cell, row)) + r" \\" for row in (table.headers, *table.rows)]
        columns = f"l{'r' * (len(table.headers) - 1)}"
        parts.append(
            "\n".join(
                [r"\begin{table}", r"\centering", rf"\caption{{{_latex_cell(table.title)}}}"]
                + [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
                + [r"\end{tabular}", r"\end{table}"]
            )
        )
    return "\n\n".join(parts) + "\n"


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))


def _scores(results: GlueResults) -> Table:
    columns: list[tuple[str, TaskResult | Mean]] = []
    for task in results.tasks:
        number = _SHORT_NUMBERS.get(task.number, task.number)
        columns.append((f"{title_of(task.task)}{'*' if task.is_subset else ''}\n{number}", task))
    columns += [(f"mean\n{mean.name}", mean) for mean in results.means]
    rows = [(arm, *(render_summary(each.scores.get(arm)) for _, each in columns)) for arm in _ARMS]
    gains = [each.gain for _, each in columns]
    differences = [None if gain is None else gain.summary for gain in gains]
    rows += [
        ("student minus control", *(render_summary(each, sign="+") for each in differences)),
        ("95 %, over seeds", *(_NONE if gain is None else _interval(gain.over_seeds) for gain in gains)),
        ("95 %, over rows", *(_NONE if gain is None else _interval(gain.over_rows) for gain in gains)),
        ("retention (%)", *(_percent(each.retention) for _, each in columns)),
        ("seeds (n)", *(str(len(each.seeds)) for _, each in columns)),
    ]
    done = {task.task for task in results.tasks}
    lost = [task for task in TASKS if task in {each.task for each in results.failures} - done]
    headers = ("", *(header for header, _ in columns), *(f"{title_of(task)}\nFAILED" for task in lost))
    return Table("Scores", headers, tuple((*row, *(_NONE for _ in lost)) for row in rows))


def _metrics(tasks: Sequence[TaskResult]) -> Table:
    rows = [
        (title_of(task.task), _METRIC_NAMES.get(metric, metric), *(render_summary(models.get(arm)) for arm in _ARMS))
        for task in tasks
        for metric, models in task.metrics.items()
    ]
    return Table("Every metric (x 100)", ("task", "metric", *_ARMS), tuple(rows))


def _costs(tasks: Sequence[TaskResult]) -> Table:
    sizes = list(dict.fromkeys(size for task in tasks for size in task.speed_up))
    headers = ["task", "teacher, parameters (M)", "student, parameters (M)"]
    for size in sizes:
        headers += [f"teacher, ms/example, batch {size}", f"student, ms/example, batch {size}", "speed-up"]
    rows = []
    for task in tasks:
        teacher, student = task.costs["teacher"], task.costs["student"]
        row = [title_of(task.task), *(f"{each.num_parameters / 1e6:.1f}" for each in (teacher, student))]
        for size in sizes:
            row += [_milliseconds(each.latency_ms.get(size)) for each in (teacher, student)]
            row.append(f"{task.speed_up[size]:.2f}x" if size in task.speed_up else _NONE)
        rows.append(tuple(row))
    return Table("Size and speed (forward pass only, mean over the seeds)", tuple(headers), tuple(rows))


def _about_rows(tasks: Sequence[TaskResult]) -> list[str]:
    return [
        f"{title_of(task.task)}*: a SUBSET, not comparable with published scores: "
        + ", ".join(f"{split} {num_rows:,}" for split, num_rows in task.rows.items())
        + " rows."
        for task in tasks
        if task.is_subset
    ]


def _about_speed(tasks: Sequence[TaskResult]) -> list[str]:
    places = sorted({place for task in tasks for place in task.timed_on})
    return [f"Timed on: {'; '.join(places)}."] if places else []


def _about_mean(mean: Mean) -> str:
    seeds = ", ".join(map(str, mean.seeds)) or "none that all of them have"
    note = f"Mean {mean.name}: over {', '.join(map(title_of, mean.tasks))}; seeds {seeds}."
    if mean.mean_of_retentions is not None:
        note += f" Mean of the tasks' own retentions: {_percent(mean.mean_of_retentions)} %."
    return note


def _about_submission(results: GlueResults) -> list[str]:
    filled = {name: each for name, each in results.submission.items() if each.run is None}
    if not results.submission:
        return []
    predicted = [f"{name} by {each.run}" for name, each in results.submission.items() if each.run is not None]
    notes = [f"submission.zip: of each task the student that scores best on dev. {'; '.join(predicted)}."]
    notes += [
        f"submission.zip: {name} is NOT predicted: every row says {each.answer}, because {each.reason}."
        for name, each in filled.items()
    ]
    return notes


def _interval(interval: Interval | None) -> str:
    return _NONE if interval is None else f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f}"


def _milliseconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"
