"""The numbers of the table: against closed forms, scipy, and the report of a single run."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from distilbert_kd.errors import DataError
from distilbert_kd.glue.summary import best_run, interval_over_seeds, summarise
from distilbert_kd.report.findings import uncertainty
from distilbert_kd.report.run_reading import read_run
from tests.glue.glue_runs import glue_run


def scores(teacher: float, student: float, control: float) -> dict[str, float]:
    return {"teacher": teacher, "student": student, "control": control}


@pytest.fixture
def runs(tmp_path):
    """Makes runs of a task, one for each record of scores, with seeds from 42 on."""

    def make(task, *each, first=42):
        places = [(tmp_path / task / f"seed-{first + i}", first + i, one) for i, one in enumerate(each)]
        return [read_run(glue_run(place, task, seed, one)) for place, seed, one in places]

    return make


def test_one_task(runs):
    """Prevents a deviation over n in place of n - 1, a retention of means of ratios, and seeds that are mixed up."""
    tasks, means = summarise({"rte": runs("rte", scores(0.8, 0.7, 0.6), scores(0.6, 0.66, 0.6))[::-1]})
    (task,) = tasks
    assert task.seeds == [42, 43] and task.runs == ["rte/seed-42", "rte/seed-43"]
    assert task.values["student"] == [0.7, 0.66]
    assert task.scores["student"].mean == pytest.approx(0.68)
    assert task.scores["student"].deviation == pytest.approx(0.04 / math.sqrt(2))
    assert task.retention == pytest.approx(0.68 / 0.7)
    assert task.gain.summary.mean == pytest.approx(0.08)
    assert task.number == "accuracy" and not task.is_subset
    assert task.speed_up == {"1": 2.0, "32": 1.0}
    assert task.costs["student"].latency_ms == {"1": 2.0, "32": 1.0}
    assert [mean.name for mean in means] == ["without WNLI"]


def test_means_with_and_without_wnli(runs):
    """Prevents WNLI, which no model of this size learns, from hiding in a mean that says nothing of it."""
    _, means = summarise(
        {
            "wnli": runs("wnli", scores(0.5, 0.5, 0.5)),
            "rte": runs("rte", scores(0.8, 0.6, 0.5)),
            "cola": runs("cola", scores(0.4, 0.2, 0.1)),
        }
    )
    without, with_wnli = means
    assert without.tasks == ["cola", "rte"] and with_wnli.tasks == ["cola", "rte", "wnli"]
    assert without.scores["teacher"].mean == pytest.approx(0.6)
    assert with_wnli.scores["student"].mean == pytest.approx(1.3 / 3)
    assert without.retention == pytest.approx(0.8 / 1.2)
    assert without.mean_of_retentions == pytest.approx((0.6 / 0.8 + 0.5) / 2)
    assert without.gain.summary.mean == pytest.approx(0.1)


def test_wnli_alone_has_no_mean_without_it(runs):
    """Prevents a division by no tasks."""
    _, means = summarise({"wnli": runs("wnli", scores(0.5, 0.5, 0.5))})
    assert [mean.name for mean in means] == ["with WNLI"]


def test_a_seed_that_one_task_lacks_is_in_no_mean(runs):
    """Prevents the deviation of a mean over seeds from comparing means over different tasks."""
    tasks, (mean,) = summarise(
        {
            "cola": runs("cola", scores(0.4, 0.2, 0.1), scores(0.6, 0.5, 0.4)),
            "rte": runs("rte", scores(0.8, 0.7, 0.6), first=43),
        }
    )
    assert [task.seeds for task in tasks] == [[42, 43], [43]]
    assert mean.seeds == [43]
    assert mean.values["student"] == [pytest.approx(0.6)]
    assert mean.scores["student"].deviation is None and mean.gain.over_seeds is None


def test_mnli_is_the_mean_of_both_dev_sets(runs):
    """Prevents the mismatched rows from being dropped, or counted as a task of their own."""
    (run,) = runs("mnli", scores(0.8, 0.7, 0.6))
    results = json.loads(run.folder.results.read_text("utf-8"))
    for model in results["models"].values():
        model["splits"] = json.loads(json.dumps(model["splits"]))
        model["splits"]["validation_mismatched"]["score"] += 0.1
    run.folder.results.write_text(json.dumps(results), "utf-8")
    ((task,), _) = summarise({"mnli": [read_run(run.folder.root)]})
    assert task.values["student"] == [pytest.approx(0.75)]
    assert task.number == "accuracy, mean of m and mm"
    assert list(task.metrics) == ["accuracy, validation_matched", "accuracy, validation_mismatched"]


@pytest.mark.parametrize(("rows", "is_subset"), [(363846, False), (23497, True)])
def test_subsets_are_marked(runs, rows, is_subset):
    """Prevents a score after a part of the training rows from passing for GLUE's; the Hub's QQP lacks 3 of them."""
    (run,) = runs("qqp", scores(0.8, 0.7, 0.6))
    run.results["data"]["rows"]["train"] = rows
    ((task,), _) = summarise({"qqp": [run]})
    assert task.is_subset == is_subset


def test_interval_over_seeds_is_students():
    """Prevents the normal quantile, which at three seeds makes the interval less than half as wide."""
    values = [0.01, 0.03, 0.08]
    interval = interval_over_seeds(values)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (interval.low, interval.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert interval_over_seeds([0.5]) is None


@pytest.mark.parametrize("task", ["mrpc", "cola", "stsb"])
def test_interval_over_rows_is_that_of_the_report(runs, task):
    """Prevents student and control from being resampled apart, or scored by another metric than the run's."""
    (run,) = runs(task, None)
    ((result,), (mean,)) = summarise({task: [run]})
    expected = uncertainty(run.results["metric"], run.scored["validation"]).gain
    assert result.gain.over_rows.low == pytest.approx(expected.low, abs=0.03)
    assert result.gain.over_rows.high == pytest.approx(expected.high, abs=0.03)
    assert result.gain.over_rows.low < result.gain.summary.mean < result.gain.over_rows.high
    assert mean.gain.over_rows == result.gain.over_rows


def test_rows_matter_less_in_a_mean(runs):
    """Prevents the rows of two tasks from moving together, as equal draws for both would make them."""
    tasks, (mean,) = summarise({"rte": runs("rte", None), "sst2": runs("sst2", None)})
    widths = [task.gain.over_rows.high - task.gain.over_rows.low for task in tasks]
    width = mean.gain.over_rows.high - mean.gain.over_rows.low
    assert width == pytest.approx(np.sqrt(widths[0] ** 2 + widths[1] ** 2) / 2, rel=0.15)


def test_without_a_control(tmp_path):
    """Prevents a comparison with a model that was never trained."""
    run = read_run(glue_run(tmp_path / "rte" / "seed-1", "rte", 1, models=("teacher", "student")))
    ((task,), (mean,)) = summarise({"rte": [run]})
    assert task.gain is None and mean.gain is None and list(task.scores) == ["teacher", "student"]


def test_runs_of_two_settings_are_refused(tmp_path):
    """Prevents a deviation over temperatures that is called one over seeds."""
    runs = [
        read_run(glue_run(tmp_path / f"seed-{seed}", "rte", seed, distillation={"temperature": seed, "alpha": 0.5}))
        for seed in (1, 2)
    ]
    with pytest.raises(DataError, match="differ in the seed only, got 2 settings"):
        summarise({"rte": runs})


def test_the_best_student_on_dev(runs):
    """Prevents a choice by the teacher's score; of equal ones the first seed, so that it is the same each time."""
    made = runs("rte", scores(0.9, 0.6, 0.6), scores(0.7, 0.65, 0.6), scores(0.95, 0.65, 0.9))
    assert best_run(made[::-1]).results["seed"] == 43
