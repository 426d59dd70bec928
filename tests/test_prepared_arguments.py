"""Training arguments: what a recipe leaves open, and what it says wins."""

import pytest

from distilbert_kd import prepared_arguments
from distilbert_kd.errors import RecipeError
from distilbert_kd.prepared_arguments import best_epoch, check_attention, prediction_arguments, training_arguments


def test_what_a_recipe_leaves_open(tmp_path):
    # Trainer's own defaults would write checkpoints every 500 steps, and report to whatever service is installed.
    arguments = training_arguments({"use_cpu": True}, "training", tmp_path / "out", 7, show_bars=False)
    assert (arguments.seed, arguments.save_strategy, arguments.eval_strategy) == (7, "no", "epoch")
    assert arguments.report_to == []
    assert arguments.disable_tqdm
    assert not (tmp_path / "out").exists()


def test_a_recipe_wins(tmp_path):
    values = {"use_cpu": True, "eval_strategy": "no", "logging_steps": 3}
    arguments = training_arguments(values, "training", tmp_path, 7, show_bars=True)
    assert (arguments.eval_strategy, arguments.logging_steps, arguments.disable_tqdm) == ("no", 3, False)


def test_another_measure_decides_which_epoch_is_best(tmp_path):
    # "loss" is better when it is lower; with the direction of the score the worst epoch was kept.
    by_loss = {**best_epoch(), "metric_for_best_model": "loss", "use_cpu": True}
    assert training_arguments(by_loss, "teacher.finetune", tmp_path, 7, False).greater_is_better is False
    by_score = {**best_epoch(), "use_cpu": True}
    assert training_arguments(by_score, "teacher.finetune", tmp_path, 7, False).greater_is_better is True


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"use_cpu": True}, {"dataloader_pin_memory": False}),
        ({"fp16": True}, {"dataloader_pin_memory": True, "fp16": True}),
        ({"bf16": False}, {"dataloader_pin_memory": True, "bf16": False}),
    ],
)
def test_a_recipe_rules_out_what_suits_the_machine(tmp_path, monkeypatch, choice, wanted):
    # On a GPU with bfloat16 `fp16: true` was refused as a second precision, and `use_cpu: true` trained in bf16.
    seen = {}

    def record(**settings):
        seen.update(settings)
        raise ValueError("enough seen")

    monkeypatch.setattr(prepared_arguments, "hardware_settings", lambda: {"bf16": True, "dataloader_pin_memory": True})
    monkeypatch.setattr(prepared_arguments, "TrainingArguments", record)
    with pytest.raises(RecipeError, match="enough seen"):
        training_arguments(choice, "training", tmp_path, 7, False)
    names = ("bf16", "fp16", "dataloader_pin_memory")
    assert {name: seen[name] for name in names if name in seen} == wanted


@pytest.mark.parametrize(("rank", "expected"), [("0", RuntimeError), (None, RecipeError)])
def test_a_process_that_died_is_no_fault_of_the_recipe(tmp_path, monkeypatch, rank, expected):
    """Prevents exit code 2, "correct the recipe", for a peer that was killed while the processes met."""

    def fail(*args, **kwargs):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(prepared_arguments, "_meet", fail)
    with pytest.raises(expected, match="closed by peer") as error:
        training_arguments({"use_cpu": True}, "training", tmp_path, 7, False)
    assert error.type is expected


def test_predictions_share_device_and_batches_with_training(tmp_path):
    # A length of training or a checkpoint has no meaning for predictions; a device or a batch size has.
    section = {"use_cpu": True, "per_device_eval_batch_size": 5, "num_train_epochs": 9, "save_strategy": "epoch"}
    arguments = prediction_arguments(section, "training", tmp_path, show_bars=False)
    assert (arguments.per_device_eval_batch_size, arguments.num_train_epochs) == (5, 3)
    assert (arguments.save_strategy, arguments.eval_strategy) == ("no", "no")


def test_flash_attention_needs_half_precision(tmp_path, monkeypatch):
    # It stops in its first step otherwise, after the teacher was trained.
    monkeypatch.setattr(prepared_arguments, "is_flash_attn_2_available", lambda: True)
    arguments = training_arguments({"use_cpu": True}, "training", tmp_path, 7, show_bars=False)
    with pytest.raises(RecipeError, match="bf16 or fp16 under 'training'"):
        check_attention("flash_attention_2", arguments, "training")
    arguments = training_arguments({"use_cpu": True, "bf16": True}, "training", tmp_path, 7, show_bars=False)
    check_attention("flash_attention_2", arguments, "training")
