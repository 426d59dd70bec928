"""The content of a report in words and numbers, before it is a page. Texts are as they came: the page escapes them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distilbert_kd.evaluation import predicted, softmax
from distilbert_kd.metrics import is_regression_metric, labelled
from distilbert_kd.report import findings
from distilbert_kd.report.findings import ClassResult, Uncertainty, uncertainty
from distilbert_kd.report.plots import temperatures_of
from distilbert_kd.report.resampling import LEVEL, NUM_RESAMPLES, SEED, Interval, McNemar
from distilbert_kd.report.run_reading import FinishedRun
from distilbert_kd.result_facts import arms_of, difference_of, rows_of, splits_of, warnings_of
from distilbert_kd.results import Table, unit_of
from distilbert_kd.scored_rows import ScoredRows


__all__ = ["Content", "content_of", "gains_of", "label_of", "numbers_of", "said"]

_NUM_DIFFERENT = 12
_MAX_TEXT = 600  # characters of a text that is shown
_MAX_BARS = 6  # classes of a distribution


@dataclass(frozen=True)
class Content:
    """What is shown of the scored rows, and what the rows say about the scores.

    Attributes:
        warnings: What makes the scores worthless, to be read first.
        intervals: Split name to what its rows leave open; empty for runs without scored rows.
        key_figures: What it is, and the figure.
        tables: Models by split.
        verdicts: Whether student and control, and student and teacher, differ, in sentences.
        by_class: Split name to what the models do with each class; empty for regression or without scored rows.
        classes: Recall and precision by class on the headline's split; None for regression or without scored rows.
        soft_targets: A few rows with the teacher's distribution at several temperatures.
        different: Where student and teacher part, the worst first.
    """

    warnings: list[str]
    intervals: dict[str, Uncertainty]
    key_figures: list[tuple[str, str]]
    tables: list[Table]
    verdicts: list[str]
    by_class: dict[str, list[ClassResult]]
    classes: Table | None
    soft_targets: list[dict[str, Any]]
    different: Table | None


def content_of(run: FinishedRun) -> Content:
    """Works out all that a report says.

    Args:
        run: the run.

    Returns:
        The content.
    """
    results = run.results
    is_regression = is_regression_metric(results["metric"])
    intervals = {
        split: uncertainty(results["metric"], scored)
        for split, scored in run.scored.items()
        if labelled(scored.labels).any()
    }
    by_class = {} if is_regression else {split: findings.per_class(scored) for split, scored in run.scored.items()}
    main = next(iter(run.scored.values()), None)
    return Content(
        warnings=warnings_of(results),
        intervals=intervals,
        key_figures=_key_figures(results),
        tables=[_split_table(run, split, intervals.get(split)) for split in splits_of(results)],
        verdicts=[line for split, each in intervals.items() for line in _verdict(results, split, each)],
        by_class=by_class,
        classes=None if not by_class else _class_table(*next(iter(by_class.items()))),
        soft_targets=[] if main is None or is_regression else _soft_targets(main, temperatures_of(results)),
        different=None if main is None else _different(main, is_regression),
    )


def _against_control(gain: Interval | None) -> str | None:
    if gain is None:
        return None
    if gain.has_zero:
        return "unclear"
    return "better" if gain.low > 0 else "worse"


def numbers_of(content: Content, plots: Sequence[str], missing: Sequence[str]) -> dict[str, Any]:
    """What the report worked out, for other tools: `report.json`."""
    splits = {}
    for split, each in content.intervals.items():
        record = asdict(each)
        record["student_is"] = _against_control(each.gain)
        record["classes"] = [asdict(one) for one in content.by_class[split]] if content.by_class else None
        splits[split] = record
    setting = {"level": LEVEL, "num_resamples": NUM_RESAMPLES, "seed": SEED}
    return {
        "schema_version": 1,
        "warnings": content.warnings,
        "intervals": setting,
        "splits": splits,
        "plots": [f"plots/{name}.png" for name in plots],
        "missing": list(missing),
    }


def _key_figures(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    teacher, student = results["models"]["teacher"], results["models"]["student"]
    split = splits_of(results)[0]
    ours, theirs = student["splits"][split], teacher["splits"][split]
    figures = [(f"{results['score_name']} x 100, {split}", f"{100 * ours['score']:.1f}")]
    if theirs["score"] > 0:
        figures.append(("of the teacher's score", f"{100 * ours['score'] / theirs['score']:.1f} %"))
    figures.append(("of its size", f"{100 * student['size_mb'] / teacher['size_mb']:.0f} %"))
    teacher_ms, student_ms = (model.get("latency_ms") or {} for model in (teacher, student))
    batch_size = next(iter(teacher_ms), None)
    if batch_size is not None and student_ms.get(batch_size):
        speed = teacher_ms[batch_size] / student_ms[batch_size]
        figures.append((f"as fast, batch {batch_size}", f"{speed:.2f} x"))
    agreement = (ours.get("fidelity") or {}).get("agreement")
    if agreement is not None:
        figures.append(("of the rows as the teacher", f"{100 * agreement:.1f} %"))
    return figures


def _split_table(run: FinishedRun, split: str, intervals: Uncertainty | None) -> Table:
    results = run.results
    arms = arms_of(results)
    teacher = arms["teacher"]["splits"][split]
    is_regression = is_regression_metric(results["metric"])
    unit = unit_of(results["metric"])
    nearness = (
        [("MSE to teacher", "mean_squared_difference", 1, 3), ("r to teacher (x100)", "pearson", 100, 1)]
        if is_regression
        else [("agreement (%)", "agreement", 100, 1), ("KL (nats)", "kl_nats", 1, 3)]
    )
    headers = ["", "layers", "parameters (M)", f"{results['score_name']} ({unit})", "retention (%)"]
    headers += [head for head, *_ in nearness]
    if not is_regression:
        headers.append("calibration error (%)")
    scores, retentions = (intervals.scores, intervals.retention) if intervals else ({}, {})
    rows = []
    for arm, model in arms.items():
        values = model["splits"][split]
        near = values.get("fidelity") or {}
        retention = values["score"] / teacher["score"] if teacher["score"] > 0 else None
        row = [arm, str(model["num_layers"]), f"{model['num_parameters'] / 1e6:.1f}"]
        row.append(_number(values["score"], 100, 1) + _interval(scores.get(arm)))
        row.append(_number(retention, 100, 1) + ("" if arm == "teacher" else _interval(retentions.get(arm))))
        row += [_number(near.get(key), factor, decimals) for _, key, factor, decimals in nearness]
        if not is_regression:
            row.append(_number(values.get("calibration_error"), 100, 1))
        rows.append(tuple(row))
    also = " (it also chose the teacher's epoch)" if split == run.epoch_split else ""
    return Table(f"{split}, {rows_of(results, split)}{also}", tuple(headers), tuple(rows))


def _number(value: float | None, factor: float, decimals: int) -> str:
    return "–" if value is None else f"{value * factor:.{decimals}f}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _verdict(results: Mapping[str, Any], split: str, intervals: Uncertainty) -> list[str]:
    return [
        f"{difference_of(results, split, other, (interval.low, interval.high))}.{_test(test, other)}"
        for other, interval, test in (
            ("control", intervals.gain, intervals.gain_test),
            ("teacher", intervals.loss, intervals.loss_test),
        )
        if interval is not None
    ]


def gains_of(results: Mapping[str, Any], intervals: Mapping[str, Uncertainty]) -> list[str] | None:
    """Student minus control with its interval, a line for each split; None if there are none."""
    gains = {split: each.gain for split, each in intervals.items() if each.gain is not None}
    lines = [f"{difference_of(results, split, 'control', (each.low, each.high))}." for split, each in gains.items()]
    return lines or None


def _test(test: McNemar | None, other: str) -> str:
    if test is None:
        return ""
    p = "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"
    return (
        f" McNemar's exact test: {p}; {test.only_first:,} rows only the student got right, {test.only_second:,} only "
        f"the {other}."
    )


def _class_table(split: str, classes: Sequence[ClassResult]) -> Table:
    arms = list(classes[0].recall)
    headers = ("class", "rows", *(f"recall, {arm} (%)" for arm in arms), *(f"precision, {arm} (%)" for arm in arms))
    rows = tuple(
        (
            each.name,
            f"{each.num_rows:,}",
            *(_number(each.recall[arm], 100, 1) for arm in arms),
            *(_number(each.precision[arm], 100, 1) for arm in arms),
        )
        for each in classes
    )
    return Table(f"By class, {split}", headers, rows)


def _soft_targets(scored: ScoredRows, temperatures: Sequence[float]) -> list[dict[str, Any]]:
    names, logits = findings.class_names(scored), scored.logits["teacher"]
    shown = []
    for what, row in findings.telling_rows(scored).items():
        order = np.argsort(-logits[row], kind="stable")
        distributions = []
        for temperature in temperatures:
            probabilities = softmax(logits[row : row + 1] / temperature)[0]
            bars = [(names[each], 100 * float(probabilities[each])) for each in order[:_MAX_BARS]]
            if len(order) > _MAX_BARS:
                bars.append((f"{len(order) - _MAX_BARS} others", 100 * float(probabilities[order[_MAX_BARS:]].sum())))
            entropy = float(findings.entropies(logits[row : row + 1], temperature)[0])
            distributions.append({"temperature": temperature, "entropy": entropy, "bars": bars})
        shown.append(
            {
                "what": what,
                "text": _shown(scored.texts[row]),
                "label": label_of(scored, row, is_regression=False),
                "distributions": distributions,
            }
        )
    return shown


def _different(scored: ScoredRows, is_regression: bool) -> Table:
    distance = "difference" if is_regression else "KL (nats)"
    rows = [
        (
            _shown(scored.texts[row]),
            label_of(scored, row, is_regression),
            *(said(scored, logits[row], is_regression) for logits in scored.logits.values()),
            f"{value:.2f}",
        )
        for row, value in findings.most_different(scored.logits, is_regression, _NUM_DIFFERENT)
    ]
    return Table("Where student and teacher part", ("text", "label", *scored.logits, distance), tuple(rows))


def said(scored: ScoredRows, logits: np.ndarray, is_regression: bool) -> str:
    """What a model says about a row with these logits, [C]: the class with its probability, or the number."""
    if is_regression:
        return f"{float(predicted(logits[None], True)[0]):.2f}"
    probabilities = softmax(logits[None])[0]
    best = int(probabilities.argmax())
    return f"{findings.class_names(scored)[best]} {100 * probabilities[best]:.0f} %"


def label_of(scored: ScoredRows, row: int, is_regression: bool) -> str:
    """The label of a row: the class or the number; a dash if it has none."""
    if not labelled(scored.labels[row : row + 1])[0]:
        return "–"
    value = scored.labels[row]
    return f"{float(value):.2f}" if is_regression else findings.class_names(scored)[int(value)]


def _shown(texts: Sequence[str]) -> str:
    text = "\n".join(texts)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"
