"""Which figures a report has, and what is in them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distilbert_kd.deep_terms import DEEP_TERMS
from distilbert_kd.evaluation import predicted
from distilbert_kd.metrics import is_regression_metric
from distilbert_kd.report import findings
from distilbert_kd.report.pictures import Draw, Palette, Picture, draw
from distilbert_kd.report.run_reading import FinishedRun
from distilbert_kd.result_facts import arms_of, splits_of
from distilbert_kd.run_folder import PLOTS
from distilbert_kd.scored_rows import ScoredRows


if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["draw_all", "temperatures_of"]

_MARKERS = {"teacher": "o", "student": "s", "control": "^"}
_MAX_NUMBERED = 8  # classes: more of them, and the counts in a confusion matrix can't be read


def draw_all(run: FinishedRun, intervals: Mapping[str, findings.Uncertainty]) -> dict[str, Picture]:
    """Draws the figures for which the run has the numbers.

    Args:
        run: the run.
        intervals: split name to what its rows leave open.

    Returns:
        The name of the figure, a key of `PLOTS`, to the figure.
    """
    results = run.results
    pictures: dict[str, tuple[Draw, tuple[float, float] | None]] = {"layers": (_layers(results), None)}
    teacher_ms = results["models"]["teacher"].get("latency_ms")
    if teacher_ms:
        pictures["speed"] = (_speed(results), None)
    if any("eval_score" in line for lines in run.history.values() for line in lines):
        pictures["score_over_steps"] = (_score_over_steps(run), None)
    if any("loss" in line for line in run.history.get("student", ())):
        pictures["loss_terms"] = (_loss_terms(run.history["student"]), None)
    if run.scored:
        split, scored = next(iter(run.scored.items()))
        num_scores = sum(len(each.scores) for each in intervals.values())
        pictures["scores"] = (_scores(results, intervals), (4.6, 0.9 + 0.35 * num_scores))
        if is_regression_metric(results["metric"]):
            pictures["student_against_teacher"] = (_numbers(scored), None)
        else:
            side = 2.8 + 0.08 * scored.logits["teacher"].shape[1]
            pictures["student_against_teacher"] = (_confusion(scored), (side + 0.4, side))
            pictures["calibration"] = (_calibration(scored), None)
            pictures["entropy_over_temperature"] = (_entropy(scored, temperatures_of(results)), None)
    return {
        name: draw(name, PLOTS[name], picture, *([] if size is None else [size]))
        for name in PLOTS
        for picture, size in [pictures.get(name, (None, None))]
        if picture is not None
    }


def temperatures_of(results: Mapping[str, Any]) -> list[float]:
    """1, the recipe's T (both ends of a schedule), and a higher one."""
    value = results["distillation"]["temperature"]
    own = [value["start"], value["end"]] if isinstance(value, Mapping) else [value]
    return sorted({1.0, *map(float, own), max(2 * max(own), 4.0)})


def _score_name(results: Mapping[str, Any]) -> str:
    """The name, where it fits beside an axis."""
    return results["score_name"] if len(results["score_name"]) <= 20 else "score"


def _layers(results: Mapping[str, Any]) -> Draw:
    kept: Sequence[int] = results["student"]["layers"]
    is_of_teacher = results["student"].get("init_from") is None
    origin = "teacher" if is_of_teacher else "start"
    num_layers = results["models"]["teacher"]["num_layers"] if is_of_teacher else 0

    def picture(axes: "Axes", palette: Palette) -> None:
        height = max(num_layers, max(kept) + 1)
        gap = height / max(len(kept), 1)
        for layer in range(height):
            is_kept = layer in kept
            _box(axes, 0, layer, f"{origin} {layer}", palette.teacher if is_kept else palette.grid, palette)
        for place, layer in enumerate(kept):
            y = (place + 0.5) * gap - 0.5
            _box(axes, 3, y, f"student {place}", palette.student, palette)
            axes.annotate(
                "", (2.0, y), (1.0, layer), arrowprops={"arrowstyle": "->", "color": palette.ink, "linewidth": 1}
            )
        axes.set(xlim=(-1.1, 4.1), ylim=(-0.7, height - 0.3))
        axes.set_axis_off()

    return picture


def _box(axes: "Axes", x: float, y: float, text: str, colour: str, palette: Palette) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - 1, y - 0.36), 2, 0.72, facecolor=palette.back, edgecolor=colour, linewidth=2))
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def _speed(results: Mapping[str, Any]) -> Draw:
    split = splits_of(results)[0]
    batch_size = next(iter(results["models"]["teacher"]["latency_ms"]))
    has_quartiles = any(
        (model.get("latency_quartiles_ms") or {}).get(batch_size) for model in arms_of(results).values()
    )
    lines = "; lines: quartiles" if has_quartiles else ""

    def picture(axes: "Axes", palette: Palette) -> None:
        for arm, model in arms_of(results).items():
            ms = (model.get("latency_ms") or {}).get(batch_size)
            if ms is None:
                continue
            score = 100 * model["splits"][split]["score"]
            low, high = (model.get("latency_quartiles_ms") or {}).get(batch_size) or (ms, ms)
            axes.plot([low, high], [score, score], color=palette.of(arm), linewidth=2)
            axes.plot(ms, score, _MARKERS[arm], color=palette.of(arm), markersize=9, label=arm)
        axes.margins(0.25)
        axes.set_xlim(left=0)
        axes.legend()
        axes.set(
            xlabel=f"milliseconds per example, batch {batch_size}{lines}",
            ylabel=f"{_score_name(results)} x 100, {split}",
        )
        axes.grid(alpha=0.6)

    return picture


def _score_over_steps(run: FinishedRun) -> Draw:
    watched = next(iter(run.results["models"]["teacher"]["splits"]))  # the first, also where `test` is the headline

    def picture(axes: "Axes", palette: Palette) -> None:
        for model, lines in run.history.items():
            points = [(line["step"], 100 * line["eval_score"]) for line in lines if "eval_score" in line]
            if points:
                axes.plot(
                    *zip(*points, strict=True), f"{_MARKERS.get(model, 's')}-", color=palette.of(model), label=model
                )
        axes.legend()
        _count_steps(axes)
        axes.set(xlabel="step", ylabel=f"{_score_name(run.results)} x 100, {watched}")
        axes.grid(alpha=0.6)

    return picture


def _count_steps(axes: "Axes") -> None:
    """There is no half step."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def _loss_terms(lines: Sequence[Mapping[str, Any]]) -> Draw:
    logged = [line for line in lines if "loss" in line]
    logged_keys = dict.fromkeys(key for line in logged for key in line)
    terms = [key for key in logged_keys if key.endswith("_loss") or key in DEEP_TERMS]

    def picture(axes: "Axes", palette: Palette) -> None:
        styles = ("-", "--", ":", "-.")
        for place, term in enumerate(["loss", *terms]):
            points = [(line["step"], line[term]) for line in logged if term in line]
            colour = palette.ink if term == "loss" else (palette.student, palette.teacher, palette.control)[place % 3]
            label = "whole objective" if term == "loss" else term.removesuffix("_loss").replace("_", " ")
            axes.plot(*zip(*points, strict=True), styles[place // 4 % 4], color=colour, label=label)
        axes.legend()
        _count_steps(axes)
        axes.set(xlabel="step", ylabel="mean since the last point", ylim=(0, None))
        axes.grid(alpha=0.6)

    return picture


def _scores(results: Mapping[str, Any], intervals: Mapping[str, findings.Uncertainty]) -> Draw:
    def picture(axes: "Axes", palette: Palette) -> None:
        places: list[str] = []
        for split, uncertainty in intervals.items():
            for arm, interval in uncertainty.scores.items():
                score, y = results["models"][arm]["splits"][split]["score"], len(places)
                axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=palette.of(arm), linewidth=2)
                axes.plot(100 * score, y, _MARKERS[arm], color=palette.of(arm), markersize=8)
                places.append(f"{arm}, {split}")
        axes.set_yticks(range(len(places)), places)
        axes.invert_yaxis()
        axes.margins(y=0.12)
        axes.set(xlabel=f"{_score_name(results)} x 100, with 95 % interval")
        axes.grid(axis="x", alpha=0.6)

    return picture


def _numbers(scored: ScoredRows) -> Draw:
    def picture(axes: "Axes", palette: Palette) -> None:
        teacher, student = (predicted(scored.logits[name], True) for name in ("teacher", "student"))
        low, high = float(min(teacher.min(), student.min())), float(max(teacher.max(), student.max()))
        axes.plot([low, high], [low, high], color=palette.ink, linewidth=1)
        axes.plot(teacher, student, ".", color=palette.student, alpha=0.5, rasterized=len(teacher) > 2000)
        axes.set(xlabel="teacher", ylabel="student", aspect="equal")
        axes.grid(alpha=0.6)

    return picture


def _confusion(scored: ScoredRows) -> Draw:
    counts = findings.confusion(scored)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_short(name) for name in findings.class_names(scored)]

    def picture(axes: "Axes", palette: Palette) -> None:
        from matplotlib.patches import Rectangle

        for row, column in np.argwhere(counts > 0).tolist():
            share = float(shares[row, column])
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=palette.student, alpha=0.7 * share, linewidth=0))
            if len(counts) <= _MAX_NUMBERED:
                text = f"{counts[row, column]:,}\n{100 * share:.0f} %"
                axes.text(column, row, text, ha="center", va="center", fontsize=8)
        axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5), aspect="equal")
        size = 9 if len(names) <= _MAX_NUMBERED else max(3, 60 // len(names) + 2)
        is_long = sum(map(len, names)) > 24
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=90 if is_long else 0)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.set(xlabel="the student says", ylabel="the teacher says")

    return picture


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _calibration(scored: ScoredRows) -> Draw:
    def picture(axes: "Axes", palette: Palette) -> None:
        axes.plot([0, 100], [0, 100], color=palette.ink, linewidth=1, linestyle=":")
        lowest = 100.0
        for arm, logits in scored.logits.items():
            bins = findings.reliability(logits, scored.labels)
            confidence = [100 * each[0] for each in bins]
            lowest = min(lowest, *confidence)
            axes.plot(
                confidence, [100 * each[1] for each in bins], f"{_MARKERS[arm]}-", color=palette.of(arm), label=arm
            )
        axes.legend()
        axes.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(math.floor(lowest / 10) * 10, 101), ylim=(0, 102))
        axes.grid(alpha=0.6)

    return picture


def _entropy(scored: ScoredRows, temperatures: Sequence[float]) -> Draw:
    grid = np.geomspace(0.25, max(10.0, *temperatures), 40)
    by_row = np.stack([findings.entropies(scored.logits["teacher"], each) for each in grid])  # [T, B]
    num_classes = scored.logits["teacher"].shape[1]
    limit = math.log(num_classes)

    def picture(axes: "Axes", palette: Palette) -> None:
        low, high = np.quantile(by_row, [0.1, 0.9], axis=1)
        axes.fill_between(grid, low, high, color=palette.teacher, alpha=0.25, linewidth=0, label="80 % of the rows")
        axes.plot(grid, by_row.mean(axis=1), color=palette.teacher, label="mean")
        axes.axhline(
            limit, color=palette.ink, linewidth=1, linestyle=":", label=f"ln {num_classes}: all classes equal"
        )
        for temperature in temperatures[:-1]:
            axes.axvline(temperature, color=palette.student, linewidth=1)
            axes.text(temperature, limit * 1.07, f"T = {temperature:g}", ha="center", va="bottom", fontsize=8)
        axes.set_xscale("log")
        ticks = [each for each in (0.25, 0.5, 1, 2, 4, 8, 16, 32) if each <= grid[-1]]
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.set_xticks([], minor=True)
        axes.legend(loc="lower right")
        axes.set(xlabel="temperature", ylabel="teacher's entropy (nats)", ylim=(0, limit * 1.06))
        axes.grid(alpha=0.6)

    return picture
