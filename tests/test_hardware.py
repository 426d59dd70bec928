"""Settings by what the machine can do; the GPU is played, since the tests have none."""

import pytest
import torch

from distilbert_kd.hardware import describe_hardware_settings, hardware_settings


@pytest.fixture
def gpu(monkeypatch):
    def play(has_bf16, capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")

    return play


def test_a_cpu_trains_in_float32():
    """Prevents bf16 autocast on a CPU, where it is slower."""
    assert hardware_settings() == {"dataloader_pin_memory": False}
    assert "float32" in describe_hardware_settings()


def test_a_recent_gpu_trains_under_bf16(gpu):
    """Prevents a GPU that is used at a fraction of its speed."""
    gpu(has_bf16=True, capability=(8, 0))
    settings = hardware_settings()
    assert (settings["bf16"], settings["tf32"], settings["dataloader_pin_memory"]) == (True, True, True)
    assert settings["accelerator_config"] == {"non_blocking": True}
    assert describe_hardware_settings() == "A GPU, bf16 autocast, TF32"


def test_an_older_gpu_is_not_asked_for_what_it_lacks(gpu):
    """Prevents a refusal by TrainingArguments, or emulated bf16."""
    gpu(has_bf16=False, capability=(7, 5))
    settings = hardware_settings()
    assert (settings["bf16"], settings["tf32"]) == (False, False)
    assert describe_hardware_settings() == "A GPU, float32"
