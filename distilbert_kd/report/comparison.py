"""Several runs in one table: runs that differ in the seed only are one setting, with mean, deviation and number."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from distilbert_kd.errors import DataError
from distilbert_kd.report.run_reading import FinishedRun
from distilbert_kd.result_facts import arms_of, splits_of, warnings_of
from distilbert_kd.results import Table, unit_of


__all__ = ["Setting", "Summary", "compare_runs", "render_summary", "summary_of", "tables_of"]

#: What says where a run lies and which draw it is, and not what was done.
_NO_SETTING = ("name", "output_dir", "seed", "push")


@dataclass(frozen=True)
class Summary:
    """A number over the runs of a setting: its mean, the sample's standard deviation (None for one run), and n."""

    mean: float
    deviation: float | None
    num_runs: int


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but the seed.

    Attributes:
        name: What tells the setting from the others in the comparison: run names and the recipe's keys that differ.
        runs: Folder names, in the order of the seeds.
        seeds: Of the runs.
        rows: Split name to the fingerprint of its rows, where the runs know it: only equal rows can be compared.
        task: Of all of them.
        metric: Of all of them.
        score_name: The metric's main number in words.
        scores: Split name to model name to the summary of its score.
        warnings: What makes the scores of a run worthless, with its folder's name.
        gains: Split name to the summary of student minus control in the same run; without a control it is missing.
        values: Split name to model name to the scores themselves, in the order of the runs.
    """

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: Mapping[str, str]
    task: str
    metric: str
    score_name: str
    scores: dict[str, dict[str, Summary]]
    gains: dict[str, Summary]
    warnings: tuple[str, ...]
    values: dict[str, dict[str, list[float]]]


def compare_runs(runs: Sequence[FinishedRun]) -> list[Setting]:
    """Groups runs by what was done.

    Args:
        runs: at least one; the settings keep the order in which they come.

    Returns:
        One record for each setting.

    Raises:
        DataError: two runs of one setting have the same seed.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    for group in groups.values():
        seeds = [run.results["seed"] for run in group]
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            names = " and ".join(run.folder.root.name for run in group if run.results["seed"] == twice)
            raise DataError(
                f"Expected runs that differ, got {names} of one recipe and one seed, {twice}: a run that is counted "
                "twice has no spread. Leave one out, or run it with another seed."
            )
    flat = [_flat(_recipe(group[0])) for group in groups.values()]
    keys = dict.fromkeys(key for each in flat for key in each)
    # A section that is empty in one run and has keys in another is told by those keys.
    parents = {key.rsplit(".", 1)[0] for key in keys if "." in key}
    differing = [key for key in keys if key not in parents and len({json.dumps(each.get(key)) for each in flat}) > 1]
    return [
        _setting(sorted(group, key=lambda run: run.results["seed"]), {key: each.get(key) for key in differing})
        for group, each in zip(groups.values(), flat, strict=True)
    ]


def _key(run: FinishedRun) -> str:
    """Equal for runs that differ in the seed only: recipe without seed and names, task, metric, data, weights kept."""
    fingerprints = run.environment.get("data", {}).get("sha256", {})
    recipe = {key: value for key, value in _recipe(run).items() if key not in _NO_SETTING}
    what = [_task(run), run.results["metric"], run.results["student"], sorted(run.results["models"])]
    evaluation = {split: fingerprints.get(split) for split in run.results["models"]["teacher"]["splits"]}
    return json.dumps([recipe or run.results["distillation"], what, evaluation], sort_keys=True)


def _task(run: FinishedRun) -> str:
    """GLUE's name of the task; own data have none but the run's, which says nothing of the rows."""
    is_own = run.results["task"] == run.results["name"] and not _recipe(run).get("data", {}).get("task")
    return "own data" if is_own else run.results["task"]


def _recipe(run: FinishedRun) -> dict[str, Any]:
    read = yaml.safe_load(run.recipe) if run.recipe else None
    return read if isinstance(read, dict) else {}


def _flat(recipe: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if not path and key in _NO_SETTING:
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}"] = value
    return flat


def _setting(group: Sequence[FinishedRun], differing: Mapping[str, Any]) -> Setting:
    first = group[0].results
    names = ", ".join(dict.fromkeys(run.results["name"] for run in group))
    told = ", ".join(f"{key}={_told(value)}" for key, value in differing.items())
    splits = splits_of(first)
    values = {
        split: {arm: [run.results["models"][arm]["splits"][split]["score"] for run in group] for arm in arms_of(first)}
        for split in splits
    }
    fingerprints = group[0].environment.get("data", {}).get("sha256", {})
    return Setting(
        name=f"{names}: {told}" if told else names,
        runs=tuple(run.folder.root.name or str(run.folder.root) for run in group),
        seeds=tuple(run.results["seed"] for run in group),
        rows={split: fingerprints[split] for split in splits if split in fingerprints},
        task=_task(group[0]),
        metric=first["metric"],
        score_name=first["score_name"],
        scores={split: {arm: summary_of(each) for arm, each in arms.items()} for split, arms in values.items()},
        gains={
            split: summary_of([a - b for a, b in zip(arms["student"], arms["control"], strict=True)])
            for split, arms in values.items()
            if "control" in arms
        },
        warnings=tuple(f"{run.folder.root.name}: {line}" for run in group for line in warnings_of(run.results)),
        values=values,
    )


def _told(value: Any) -> str:
    """A value in words: a key that a run does not have is at its default, and a section may be there without keys."""
    if value is None:
        return "not set"
    if value == {}:
        return "all defaults"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def summary_of(values: Sequence[float]) -> Summary:
    """Mean, deviation and number of one value for each run."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), deviation, len(values))


def tables_of(settings: Sequence[Setting]) -> list[Table]:
    """One table for each split of each task and metric; settings whose rows differ stand in tables of their own.

    Args:
        settings: as compared.

    Returns:
        The tables, with a row for each setting.
    """
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        for split in setting.scores:
            place = (setting.task, setting.metric, split, setting.rows.get(split, ""))
            groups.setdefault(place, []).append(setting)
    titles = [f"{task}, {split}" for task, _, split, _ in groups]
    tables = []
    for (task, metric, split, rows), group in groups.items():
        title = f"{task}, {split}"
        if titles.count(title) > 1:
            title += f" (rows {rows[:8] or 'unknown'})"
        unit = unit_of(metric)
        headers = ("setting", "runs", "seeds", *(f"{arm}, {group[0].score_name} ({unit})" for arm in _ARMS))
        cells = tuple(
            (
                f"{settings.index(each) + 1}. {each.name}",
                str(len(each.runs)),
                ", ".join(map(str, each.seeds)),
                *(render_summary(each.scores[split].get(arm)) for arm in _ARMS),
                render_summary(each.gains.get(split), sign="+"),
            )
            for each in group
        )
        tables.append(Table(title, (*headers, "student minus control (points)"), cells))
    return tables


_ARMS = ("teacher", "student", "control")


def render_summary(summary: Summary | None, sign: str = "") -> str:
    """A summary x 100 as `84.2 ± 0.3`, or a dash for none; `sign="+"` shows the sign of a difference."""
    if summary is None:
        return "–"
    mean = f"{100 * summary.mean:{sign}.1f}"
    return mean if summary.deviation is None else f"{mean} ± {100 * summary.deviation:.1f}"
