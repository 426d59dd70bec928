"""Finished runs of GLUE tasks as the numbers of one table. Runs are grouped by seeds as `distilbert-kd compare` does.

Shapes: `R` resamples.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from distilbert_kd.data.tasks import TASKS
from distilbert_kd.errors import DataError
from distilbert_kd.evaluation import predicted
from distilbert_kd.glue.record import Cost, Gain, Mean, TaskResult
from distilbert_kd.metrics import is_regression_metric, labelled
from distilbert_kd.report.comparison import Setting, compare_runs, summary_of
from distilbert_kd.report.resampling import LEVEL, Interval, bootstrap_scores, interval_of
from distilbert_kd.report.run_reading import FinishedRun
from distilbert_kd.result_facts import arms_of


__all__ = ["best_run", "interval_over_seeds", "summarise"]

#: Below this share of the official rows a split is a subset: readers of QQP differ in a few broken lines.
_WHOLE = 0.99


def summarise(runs: Mapping[str, Sequence[FinishedRun]]) -> tuple[list[TaskResult], list[Mean]]:
    """Works out all numbers.

    Args:
        runs: task to its finished runs, one for each seed.

    Returns:
        The tasks in GLUE's order, and the means over them: without WNLI and, where it was run, with it.

    Raises:
        DataError: runs of one task differ in more than the seed.
    """
    ordered = {task: sorted(runs[task], key=_seed_of) for task in TASKS if runs.get(task)}
    draws = {task: _gain_draws(task, each) for task, each in ordered.items()}
    results = {task: _task_result(task, each, draws[task]) for task, each in ordered.items()}
    groups = {"without WNLI": [task for task in results if task != "wnli"]}
    if "wnli" in results:
        groups["with WNLI"] = list(results)
    means = [_mean(name, [results[task] for task in tasks], draws) for name, tasks in groups.items() if tasks]
    return list(results.values()), means


def best_run(runs: Sequence[FinishedRun]) -> FinishedRun:
    """The run whose student scores best on the dev rows; of equal ones that of the lowest seed.

    Args:
        runs: of one task.

    Returns:
        One of them.
    """

    def dev_score(run: FinishedRun) -> float:
        return statistics.fmean(split["score"] for split in run.results["models"]["student"]["splits"].values())

    return max(sorted(runs, key=_seed_of), key=dev_score)


def interval_over_seeds(values: Sequence[float]) -> Interval | None:
    """Where the mean lies, judged by the seeds at hand.

    Formula: m +- t * s / sqrt(n), with the 97.5 % quantile t of Student's distribution of n - 1 degrees of freedom.

    Args:
        values: one for each seed.

    Returns:
        The 95 % interval; None for one value.

    Source: Student 1908, https://doi.org/10.1093/biomet/6.1.1
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def _seed_of(run: FinishedRun) -> int:
    return run.results["seed"]


def _task_result(task: str, runs: Sequence[FinishedRun], draws: np.ndarray | None) -> TaskResult:
    settings = compare_runs(runs)
    if len(settings) > 1:
        raise DataError(
            f"Expected runs of {task} that differ in the seed only, got {len(settings)} settings: "
            f"{'; '.join(each.name for each in settings)}. Move {runs[0].folder.root.parent} away, or choose another "
            "--out."
        )
    setting, results = settings[0], runs[0].results
    values = _values(setting)
    costs = {arm: _cost(arm, runs) for arm in arms_of(results)}
    return TaskResult(
        task=task,
        number=_number(setting),
        seeds=list(setting.seeds),
        runs=["/".join(run.folder.root.parts[-2:]) for run in runs],
        rows=results["data"]["rows"],
        is_subset=_is_subset(task, results["data"]["rows"]),
        notes=results["data"].get("notes") or [],
        metrics=_metrics(runs),
        costs=costs,
        timed_on=sorted({timed_on for run in runs if (timed_on := _timed_on(run))}),
        speed_up={
            size: statistics.fmean(_speed_up(run, size) for run in runs)
            for size in costs["teacher"].latency_ms
            if size in costs["student"].latency_ms
        },
        values=values,
        scores={arm: summary_of(each) for arm, each in values.items()},
        retention=_retention(values),
        gain=_gain(values, draws),
    )


def _values(setting: Setting) -> dict[str, list[float]]:
    """Model to the number of each seed: of MNLI the mean of the matched and the mismatched rows."""
    splits = list(setting.values.values())
    return {
        arm: [statistics.fmean(each) for each in zip(*(split[arm] for split in splits), strict=True)]
        for arm in splits[0]
    }


def _number(setting: Setting) -> str:
    if setting.task != "mnli":
        return setting.score_name
    return "accuracy, mean of m and mm" if len(setting.values) > 1 else "accuracy, m alone"


def _is_subset(task: str, rows: Mapping[str, int]) -> bool:
    official = {split.name: split.num_rows for split in TASKS[task].splits}
    return any(num_rows < _WHOLE * official[split] for split, num_rows in rows.items() if split in official)


def _metrics(runs: Sequence[FinishedRun]) -> dict[str, dict]:
    models = [arms_of(run.results) for run in runs]
    splits = models[0]["teacher"]["splits"]
    return {
        f"{metric}, {split}" if len(splits) > 1 else metric: {
            arm: summary_of([each[arm]["splits"][split]["metrics"][metric] for each in models]) for arm in models[0]
        }
        for split, record in splits.items()
        for metric in record["metrics"]
    }


def _cost(arm: str, runs: Sequence[FinishedRun]) -> Cost:
    models = [run.results["models"][arm] for run in runs]
    times = [model.get("latency_ms") or {} for model in models]
    sizes = [size for size in times[0] if all(size in each for each in times)]
    return Cost(
        num_parameters=models[0]["num_parameters"],
        latency_ms={size: statistics.fmean(each[size] for each in times) for size in sizes},
    )


def _timed_on(run: FinishedRun) -> str | None:
    setting = run.results.get("latency_setting")
    return f"{setting['device']}, {setting['num_threads']} CPU thread(s)" if setting else None


def _speed_up(run: FinishedRun, batch_size: str) -> float:
    teacher, student = (run.results["models"][arm]["latency_ms"][batch_size] for arm in ("teacher", "student"))
    return teacher / student


def _retention(values: Mapping[str, Sequence[float]]) -> float | None:
    teacher = statistics.fmean(values["teacher"])
    return statistics.fmean(values["student"]) / teacher if teacher > 0 else None


def _gain(values: Mapping[str, Sequence[float]], draws: np.ndarray | None) -> Gain | None:
    if "control" not in values:
        return None
    differences = [a - b for a, b in zip(values["student"], values["control"], strict=True)]
    return Gain(
        summary=summary_of(differences),
        over_seeds=interval_over_seeds(differences),
        over_rows=None if draws is None else interval_of(draws),
    )


def _gain_draws(task: str, runs: Sequence[FinishedRun]) -> np.ndarray | None:
    """Student minus control, mean over seeds and splits, over resampled rows: [R]; None where rows are not kept."""
    metric = runs[0].results["metric"]
    splits = runs[0].results["models"]["teacher"]["splits"]
    if any(not split.keys() >= {"student", "control"} for split in (run.results["models"] for run in runs)):
        return None
    if any(split not in run.scored for run in runs for split in splits):
        return None
    per_split = []
    for place, split in enumerate(splits):
        scored = [run.scored[split] for run in runs]
        rows = labelled(scored[0].labels)
        said = {
            f"{arm} {seed}": predicted(each.logits[arm], is_regression_metric(metric))[rows]
            for seed, each in enumerate(scored)
            for arm in ("student", "control")
        }
        # Another draw for each split: the rows of two of them have nothing to do with each other.
        seed = 10 * list(TASKS).index(task) + place
        scores = bootstrap_scores(metric, said, scored[0].labels[rows], seed=seed)
        per_split.append(
            np.mean([scores[f"student {each}"] - scores[f"control {each}"] for each in range(len(runs))], axis=0)
        )
    return np.mean(per_split, axis=0)


def _mean(name: str, tasks: Sequence[TaskResult], draws: Mapping[str, np.ndarray | None]) -> Mean:
    """Over the seeds that all tasks have, so that a task with fewer of them doesn't move the mean of the others."""
    seeds = [seed for seed in tasks[0].seeds if all(seed in task.seeds for task in tasks)]
    arms = [arm for arm in tasks[0].values if all(arm in task.values for task in tasks)]
    values = {
        arm: [statistics.fmean(task.values[arm][task.seeds.index(seed)] for task in tasks) for seed in seeds]
        for arm in arms
    }
    known = [each for task in tasks if task.seeds == seeds for each in [draws[task.task]] if each is not None]
    retentions = [task.retention for task in tasks if task.retention is not None]
    return Mean(
        name=name,
        tasks=[task.task for task in tasks],
        seeds=seeds,
        values=values,
        scores={arm: summary_of(each) for arm, each in values.items()} if seeds else {},
        retention=_retention(values) if seeds else None,
        mean_of_retentions=statistics.fmean(retentions) if len(retentions) == len(tasks) else None,
        gain=_gain(values, np.mean(known, axis=0) if len(known) == len(tasks) else None) if seeds else None,
    )
