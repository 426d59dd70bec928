"""How a process of a launch finds the others, how long it waits for them, and how it leaves."""

from datetime import timedelta

import pytest
import torch

from distilbert_kd import cli, prepared_arguments


@pytest.fixture
def launched(monkeypatch):
    """One process of a launch, as torchrun starts it; what it would tell the others is kept."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    met = []
    monkeypatch.setattr(prepared_arguments, "PartialState", lambda **settings: met.append(settings))
    monkeypatch.setattr(prepared_arguments, "_try_out", lambda _arguments: None)
    monkeypatch.setattr(prepared_arguments, "TrainingArguments", lambda **settings: settings)
    return met


@pytest.mark.parametrize(("values", "seconds"), [({}, 4 * 60 * 60), ({"ddp_timeout": 60}, 60)])
def test_processes_on_cpus_wait_as_long_as_is_said(launched, tmp_path, monkeypatch, values, seconds):
    """TrainingArguments drops `ddp_timeout` on a CPU: after half an hour of one rank's work all would end."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    settings = prepared_arguments.training_arguments(values, "training", tmp_path, seed=0, show_bars=False)
    assert settings["use_cpu"] is True, "else Accelerate takes each process for a launch of its own"
    assert settings["ddp_timeout"] == seconds
    assert launched == [{"cpu": True, "timeout": timedelta(seconds=seconds)}]


def test_a_gpu_is_not_left_alone(launched, tmp_path, monkeypatch):
    """A launch on GPUs that goes to the CPU is a hundred times slower, and right."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    settings = prepared_arguments.training_arguments({}, "training", tmp_path, seed=0, show_bars=False)
    assert "use_cpu" not in settings
    assert settings["ddp_timeout"] == 4 * 60 * 60, "on a GPU TrainingArguments passes it on"
    assert launched == []


def test_a_process_alone_meets_nobody(launched, tmp_path, monkeypatch):
    """A run without a launcher that waits for others waits for ever."""
    monkeypatch.delenv("LOCAL_RANK")
    settings = prepared_arguments.training_arguments({}, "training", tmp_path, seed=0, show_bars=False)
    assert "use_cpu" not in settings
    assert launched == []


@pytest.mark.parametrize(("code", "is_left"), [(0, True), (None, True), (2, False), (75, False)])
def test_a_good_end_leaves_the_group(monkeypatch, code, is_left):
    """NCCL warns at each end without it; after a fault it would wait for processes that are gone."""

    def end(**_named: object) -> None:
        raise SystemExit(code)

    left = []
    monkeypatch.setattr(cli, "app", end)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(True))
    with pytest.raises(SystemExit):
        cli.main()
    assert bool(left) == is_left
