"""The arithmetic of the benchmarks: a figure that is computed wrongly is worse than none."""

import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import ablation
import augmentation
import length_window
import report
import speed
from bare_loop import train_bare
from job import ALPHA, TEMPERATURE, training_arguments

from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.training_rows import flat_weights, pair_rows, quiet, without_dropout


def record(variant, number, cpu_s, pass_cpu_s=0.0, score=0.8):
    times = {"cpu_s": cpu_s, "wall_s": cpu_s, "pass_cpu_s": pass_cpu_s, "pass_wall_s": pass_cpu_s}
    return {"variant": variant, "round": number, "row_visits": 2000, "peak_memory_mb": 1.0, "score": score, **times}


def test_ratios_are_medians_of_ratios_within_a_round():
    """Prevents a slow hour of the machine from being read as a slow variant."""
    factors = {0: 1.0, 1: 3.0, 2: 1.1}  # the machine was three times as slow in round 1
    costs = {"copied": (80.0, 0.0), "ours": (10.0, 2.0), "ours_again": (8.0, 0.0), "limit": (9.0, 1.5)}
    records = [
        record(variant, number, cpu_s * factor, pass_cpu_s * factor)
        for number, factor in factors.items()
        for variant, (cpu_s, pass_cpu_s) in costs.items()
    ]
    rows = {row["variant"]: row for row in speed.summarise(records)}
    assert rows["ours"]["times_copied"] == pytest.approx(8.0)
    assert rows["ours"]["cpu_s_per_1000"] == pytest.approx(1000 * 11.0 / 2000)
    assert rows["ours"]["of_limit"] == pytest.approx(0.9)  # a first run is held against a limit with a pass
    assert rows["ours_again"]["of_limit"] == pytest.approx(7.5 / 8.0)  # and a second run against one without
    assert rows["copied"]["of_limit"] is None


def test_a_variant_that_was_not_run_has_no_row():
    """Prevents a table that fills a gap."""
    rows = speed.summarise([record("copied", 0, 80.0)])
    assert [row["variant"] for row in rows] == ["copied"]
    assert speed.summarise([record("ours", 0, 10.0)])[0]["times_copied"] is None


class TinyJob:
    """What the bare loop asks of a job: rows of different lengths, and a teacher without dropout, in float64."""

    def rows(self, split):
        return pair_rows(170)

    def tokenizer(self):
        return tiny_tokenizer()

    def teacher(self):
        return tiny_bert(4, seed=9).double()


def test_the_bare_loop_does_what_the_trainer_does(tmp_path):
    """Prevents a limit that is fast because it trains something else: other steps, other rates, another loss."""
    bare = without_dropout().double()
    train_bare(bare, TinyJob(), num_epochs=2, seed=5)
    trainer = DistillationTrainer(
        model=without_dropout().double(),
        args=training_arguments(2, 5, train_sampling_strategy="group_by_length"),
        train_dataset=TinyJob().rows("train"),
        processing_class=tiny_tokenizer(),
        teacher=TinyJob().teacher(),
        temperature=TEMPERATURE,
        alpha=ALPHA,
        first_position_only=True,
    )
    quiet(trainer).train()
    start = flat_weights(without_dropout())
    moved = (flat_weights(bare) - start).norm()
    assert moved > 1e-3
    assert (flat_weights(trainer.model) - flat_weights(bare)).norm() < 1e-6 * moved


def test_mean_and_error():
    """Prevents a standard deviation that is called a standard error."""
    assert report.mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / 3**0.5))


def test_differences_are_paired_by_seed(tmp_path):
    """Prevents the spread between seeds from being counted as the spread of a difference."""
    scores = {("random", 0): 0.8, ("random", 1): 0.9, ("window 4", 0): 0.79, ("window 4", 1): 0.89}
    fields = {"cpu_s_per_1000": 1.0, "dev_loss": 0.1, "held_out_score": 0.5, "held_out_loss": 0.1}
    runs = [
        length_window.Run(task="sst2", setting=setting, seed=seed, dev_score=score, **fields)
        for (setting, seed), score in scores.items()
    ]
    settings = [entry for entry in length_window.SETTINGS if entry[0] in ("random", "window 4")]
    table = _with_settings(settings, runs)
    assert "| window 4 | 2 | 84.00 ± 5.00 | -1.00 ± 0.00 |" in table


def _with_settings(settings, runs):
    before, length_window.SETTINGS = length_window.SETTINGS, settings
    try:
        return length_window._table("sst2", runs)
    finally:
        length_window.SETTINGS = before


@pytest.mark.parametrize("change", ["bf16", "general", "arms", "tasks.rte"])
def test_the_ablation_refuses_results_of_another_setting(change):
    """Prevents a table that mixes runs of two settings under the name of the later one."""
    rte = {"epochs": 3, "rows": 100, "teacher_dev": {"score": 0.6}}
    before = {"bf16": True, "general": "a", "arms": {}, "versions": {}, "tasks": {"rte": rte, "mrpc": rte}}
    now = {**before, "load_average": 3.0, "tasks": {"rte": rte}}
    ablation.refuse_other_setting(Path("ablation.json"), before, now)
    assert now["tasks"].keys() == {"rte", "mrpc"}  # that of earlier calls is kept
    other = {**now, "tasks": {"rte": {**rte, "rows": 99}}} if change == "tasks.rte" else {**now, change: "other"}
    with pytest.raises(SystemExit, match=change):
        ablation.refuse_other_setting(Path("ablation.json"), before, other)


def test_the_ablation_compares_seeds_that_both_arms_have(tmp_path):
    """Prevents an arm with fewer seeds from being held against all seeds of the base."""
    base = {0: 0.80, 1: 0.90}
    runs = [ablation.Run("sst2", ablation.BASE, seed, score, 0.1, 1.0) for seed, score in base.items()]
    runs.append(ablation.Run("sst2", "random start", 0, 0.7, 0.1, 1.0))
    assert ablation._paired(runs, ["sst2"], "random start") == pytest.approx([-10.0])
    said = {"accuracy": 0.95, "entropy_at_1": 0.2, "entropy_at_2": 0.55}
    ablation.report(
        tmp_path,
        runs,
        {"sst2": {"score": 0.95, "loss": 0.2}},
        {"sst2": {"train": said, "dev": said | {"accuracy": 0.9}}},
    )
    table = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "| soft targets | 85.0 ± 5.0 |  | 2 |" in table
    assert "| random start | 70.0 | -10.0 | 1 |" in table
    assert "| random start | 0.100 |" in table
    assert "| accuracy, dev rows | 90.0 % |" in table
    assert "| entropy / log C at T = 2, the students' rows | 55.0 % |" in table
    assert (tmp_path / "ablation.png").stat().st_size > 1000


def test_augmentation_compares_runs_of_the_same_seed_and_copies(tmp_path):
    """Prevents a gain of one alpha that is the luck of its seeds, or of other copies."""
    scores = {(0.0, None): (0.80, 0.70), (0.0, 1.0): (0.82, 0.72)}
    scores |= {(0.3, None): (0.80, 0.70), (0.3, 0.0): (0.81, 0.73), (0.3, 0.5): (0.82, 0.74), (0.3, 1.0): (0.84, 0.72)}
    runs = [
        augmentation.Run(fraction, alpha, seed, 3000, 0.2, score, 1 - score, 1.0)
        for (fraction, alpha), by_seed in scores.items()
        for seed, score in enumerate(by_seed)
    ]
    runs.append(augmentation.Run(0.3, 1.0, 2, 3000, 0.2, 0.99, 0.01, 1.0))  # a seed that no other arm has yet
    augmentation.report(tmp_path, runs, 0.9, "SST-2")
    table = (tmp_path / "augmentation.md").read_text(encoding="utf-8")
    assert "| student | 0.3 | 0.5 | 20.0 | 0.220 | 78.0 ± 4.0 | +3.0 ± 1.0 | +1.0 ± 1.0 |" in table
    assert "| control | 0.3 |  | 20.0 | 0.250 | 75.0 ± 5.0 |  |  |" in table
    assert "| 0.3, alpha 0 | +1.0 ± 0.0 | +1.0 ± 2.0 | -0.010 ± 0.000 | -0.010 ± 0.020 |" in table
    assert "| mean over p, the control | +3.0 ± 1.0 | +3.0 ± 1.0 | -0.030 ± 0.010 | -0.030 ± 0.010 |" in table
    assert (tmp_path / "augmentation.png").stat().st_size > 1000
