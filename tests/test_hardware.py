"""Settings by what the machine can do; the GPU is played, since the tests have none."""

from types import SimpleNamespace

import pytest
import torch

from distilbert_kd.hardware import describe_device, hardware_settings


@pytest.fixture
def gpu(monkeypatch):
    def play(has_bf16, capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "A GPU")

    return play


def test_a_cpu_trains_in_float32():
    """Prevents bf16 autocast on a CPU, where it is slower."""
    assert hardware_settings() == {"dataloader_pin_memory": False}


def test_a_recent_gpu_trains_under_bf16(gpu):
    """Prevents a GPU that is used at a fraction of its speed."""
    gpu(has_bf16=True, capability=(8, 0))
    settings = hardware_settings()
    assert (settings["bf16"], settings["tf32"], settings["dataloader_pin_memory"]) == (True, True, True)
    assert settings["accelerator_config"] == {"non_blocking": True}


def test_an_older_gpu_is_not_asked_for_what_it_lacks(gpu):
    """Prevents a refusal by TrainingArguments, or emulated bf16."""
    gpu(has_bf16=False, capability=(7, 5))
    settings = hardware_settings()
    assert settings["bf16"] is False
    assert "tf32" not in settings


def test_an_amd_gpu_is_not_asked_for_tf32(gpu, monkeypatch):
    """Prevents every recipe from being refused there: TrainingArguments takes no word on TF32 without CUDA."""
    gpu(has_bf16=True, capability=(9, 0))
    monkeypatch.setattr(torch.version, "cuda", None)
    settings = hardware_settings()
    assert settings["bf16"] is True
    assert "tf32" not in settings


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("cuda", {"bf16": True, "tf32": True}, "A GPU, bf16 autocast, TF32"),
        ("cuda", {"fp16": True}, "A GPU, fp16 autocast"),
        ("cpu", {}, f"cpu, {torch.get_num_threads()} threads, float32"),
    ],
)
def test_the_line_says_what_is_used_and_not_what_would_be(gpu, device, settings, expected):
    """Prevents a line about the machine's best where the recipe chose otherwise."""
    gpu(has_bf16=True, capability=(8, 0))
    arguments = SimpleNamespace(
        device=torch.device(device), **{"bf16": False, "fp16": False, "tf32": None, **settings}
    )
    assert describe_device(arguments) == expected
