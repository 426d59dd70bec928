"""The figures of a card: one sentence, the table of student, teacher and control, and how they were got."""

from collections.abc import Mapping
from typing import Any

from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.metadata import metric_name
from distilbert_kd.markdown import escaped, table
from distilbert_kd.metrics import is_regression_metric
from distilbert_kd.result_facts import architecture_of, difference_of, latency_of, milliseconds, rows_of, splits_of


__all__ = ["class_table", "comparison", "evaluation_lines", "one_sentence"]

_ARMS = {"student": "**student**", "teacher": "teacher", "control": "control: the same student, labels alone"}
_MOST_CLASSES = 30


def one_sentence(facts: RunFacts, teacher: str) -> str:
    """What the student is.

    Args:
        facts: of its run.
        teacher: in Markdown.

    Returns:
        A paragraph.
    """
    models, task = facts.results["models"], facts.recipe["data"].get("task")
    student, big = models["student"], models["teacher"]
    split = splits_of(facts.results)[0]
    scored = student["splits"][split]
    kind = "text regressor" if is_regression_metric(facts.results["metric"]) else "text classifier"
    subject = f"GLUE {task.upper()}" if task else escaped(facts.results["task"])
    share = _share(scored["score"], big["splits"][split]["score"])
    kept = f" It keeps {share} % of the teacher's {facts.results['score_name']} on {escaped(split)}" if share else ""
    size = f"{_millions(student)} of {_millions(big)} million parameters"
    times = [milliseconds(ms) for model in (student, big) if (ms := (model.get("latency_ms") or {}).get("1"))]
    speed = f" One text takes {times[0]} ms in place of {times[1]} (medians)." if len(times) > 1 else ""
    more = "".join(f" {line}" for line in filter(None, [architecture_of(facts.results)]))
    gain = _gain(facts, split)
    gain += " The control is the same student, trained on the labels alone." if gain else ""
    return (
        f"A {kind} of {student['num_layers']} layers for {subject}, distilled with the knowledge of a teacher of "
        f"{big['num_layers']} layers: {teacher}.{kept}{f', with {size}.' if kept else f' It has {size}.'}{speed}{more}"
        f"{gain}"
    )


def comparison(facts: RunFacts) -> list[str]:
    """Scores, then sizes and times, of all models; and what the columns mean.

    Args:
        facts: of the run.

    Returns:
        Paragraphs.
    """
    models = {arm: facts.results["models"][arm] for arm in _ARMS if facts.results["models"].get(arm)}
    parts = [_score_table(facts, models), f"Score: {facts.results['score_name']}, times 100.{_gains(facts)}"]
    batches = list(models["student"].get("latency_ms") or {})
    headers = ["", "layers", "parameters (M)", "weights (MB)", *(f"ms per text, batch {batch}" for batch in batches)]
    rows = [
        [_ARMS[arm], str(model["num_layers"]), _millions(model), f"{model['size_mb']:.1f}"]
        + [latency_of(model, batch) or "" for batch in batches]
        for arm, model in models.items()
    ]
    parts.append(table(headers, rows))
    setting = facts.results.get("latency_setting")
    if setting and batches:
        cpu = (facts.environment.get("hardware") or {}).get("cpu")
        where = f"{setting['device']}{f' ({cpu})' if cpu and setting['device'] == 'cpu' else ''}"
        rounds = setting.get("num_rounds") or {}
        over = "; ".join(f"{number} at batch {batch}" for batch, number in rounds.items())
        spread = f" Medians, and in brackets quartiles, of rounds with other rows each: {over}." if over else ""
        parts.append(f"Time: forward pass only, {escaped(where)}, CPU threads: {setting['num_threads']}.{spread}")
    return parts


def _score_table(facts: RunFacts, models: Mapping[str, Mapping[str, Any]]) -> str:
    is_regression = is_regression_metric(facts.results["metric"])
    near = "r to the teacher" if is_regression else "class is the teacher's (%)"
    splits = splits_of(facts.results)
    headers = [""]
    for split in splits:
        headers += [f"{escaped(split)}: score", "share of the teacher's (%)", near]
    rows = []
    for arm, model in models.items():
        row = [_ARMS[arm]]
        for split in splits:
            scored, fidelity = model["splits"][split], model["splits"][split].get("fidelity") or {}
            share = "" if arm == "teacher" else _share(scored["score"], models["teacher"]["splits"][split]["score"])
            nearness = _number(fidelity.get("pearson"), 3) if is_regression else ""
            nearness = nearness or _number(fidelity.get("agreement"), 1, 100)
            row += [_number(scored["score"], 1, 100), share, nearness]
        rows.append(row)
    return table(headers, rows)


def _gains(facts: RunFacts) -> str:
    """What was gained over training on the labels alone, on the splits that the first sentence doesn't speak of."""
    return "".join(_gain(facts, split) for split in splits_of(facts.results)[1:])


def _gain(facts: RunFacts, split: str) -> str:
    """Student minus control, with the interval that the report has."""
    if not facts.results["models"].get("control"):
        return ""
    gain = _reported(facts, split).get("gain")
    interval = (gain["low"], gain["high"]) if gain else None
    unsure = "" if gain else "; how far the choice of rows moves that was not worked out"
    said = difference_of(facts.results, split, "control", interval)
    return f" {escaped(f'{said}{unsure}')}."


def evaluation_lines(facts: RunFacts, data: str) -> list[str]:
    """Each split with its size, metrics and, where one follows from them, the interval.

    Args:
        facts: of the run.
        data: in Markdown.

    Returns:
        Paragraphs.
    """
    lines, metric = [], facts.results["metric"]
    for split in splits_of(facts.results):
        scored = facts.results["models"]["student"]["splits"][split]
        values = ", ".join(
            f"{escaped(metric_name(name, metric))} {value:.4f}" for name, value in scored["metrics"].items()
        )
        line = f"- {escaped(split)}, {rows_of(facts.results, split)}: {values}"
        interval = _reported(facts, split).get("scores", {}).get("student")
        if interval:
            line += f" (95 % interval of the score, over rows: {interval['low']:.3f} to {interval['high']:.3f})"
        elif "accuracy" in scored["metrics"]:
            low, high = _wilson_interval(scored["metrics"]["accuracy"], scored["num_rows"])
            line += f" (95 % interval of the accuracy, over rows: {low:.3f} to {high:.3f})"
        if scored.get("calibration_error") is not None:
            line += f"; calibration error {scored['calibration_error']:.3f}"
        lines.append(f"{line}.")
    return [f"Data: {data}. The figures are those of the weights in this folder.", "\n".join(lines)]


def class_table(facts: RunFacts) -> str:
    """Recall by class, student beside teacher, if the report worked it out of the scored rows.

    Args:
        facts: of the run.

    Returns:
        A table, the largest differences first where there are many classes; or nothing.
    """
    split = splits_of(facts.results)[0]
    classes = _reported(facts, split).get("classes") or []
    rows, differences = [], []
    for each in classes:
        student, teacher = each["recall"].get("student"), each["recall"].get("teacher")
        difference = None if student is None or teacher is None else student - teacher
        differences.append(abs(difference or 0.0))
        values = [_number(value, 1, 100) for value in (student, teacher, difference)]
        rows.append([escaped(each["name"]), f"{each['num_rows']:,}", *values])
    if not rows:
        return ""
    if len(rows) > _MOST_CLASSES:
        rows = [row for _, row in sorted(zip(differences, rows, strict=True), key=lambda pair: -pair[0])]
    left = f"\n\n{len(rows) - _MOST_CLASSES} classes differ less." if len(rows) > _MOST_CLASSES else ""
    headers = ["class", "rows", "student", "teacher", "difference"]
    return f"Recall on {escaped(split)}, times 100:\n\n{table(headers, rows[:_MOST_CLASSES])}{left}"


def _wilson_interval(accuracy: float, num_rows: int) -> tuple[float, float]:
    """What the number of rows alone leaves open, at 95 %."""
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * num_rows), num_rows).proportion_ci(method="wilson")
    return interval.low, interval.high


def _reported(facts: RunFacts, split: str) -> Mapping[str, Any]:
    return (facts.report.get("splits") or {}).get(split) or {}


def _millions(model: Mapping[str, Any]) -> str:
    return f"{model['num_parameters'] / 1e6:.1f}"


def _share(score: float, teacher_score: float) -> str:
    return f"{100 * score / teacher_score:.1f}" if teacher_score > 0 else ""


def _number(value: float | None, decimals: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{decimals}f}"
