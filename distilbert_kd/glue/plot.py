"""The figure of a benchmark: teacher, student and control on each task."""

from typing import TYPE_CHECKING

from distilbert_kd.glue.record import GlueResults
from distilbert_kd.glue.table import title_of
from distilbert_kd.report.pictures import Palette, Picture, draw


if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["draw_scores"]

_CAPTION = "Mean score x 100 of teacher, student and control on each task; bars: standard deviation over the seeds"
_MARKS = {"teacher": "o", "student": "s", "control": "^"}


def draw_scores(results: GlueResults) -> Picture:
    """Draws the scores; `results` has at least one task."""

    def picture(axes: "Axes", palette: Palette) -> None:
        for shift, (arm, mark) in enumerate(_MARKS.items(), start=-1):
            shown = [(place, task.scores[arm]) for place, task in enumerate(results.tasks) if arm in task.scores]
            axes.errorbar(
                [place + 0.2 * shift for place, _ in shown],
                [100 * summary.mean for _, summary in shown],
                yerr=[100 * (summary.deviation or 0.0) for _, summary in shown],
                fmt=mark,
                color=palette.of(arm),
                label=arm,
                capsize=2,
            )
        names = [f"{title_of(task.task)}{'*' if task.is_subset else ''}" for task in results.tasks]
        axes.set_xticks(range(len(names)), names)
        axes.set(ylabel="score x 100")
        axes.grid(axis="y", alpha=0.6)
        axes.margins(0.12)
        axes.legend()

    return draw("glue", _CAPTION, picture, (1.6 + 0.7 * len(results.tasks), 3.1))
