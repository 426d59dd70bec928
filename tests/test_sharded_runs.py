"""Whole runs in shards over two processes, on the CPU: FSDP2, and DeepSpeed where it is installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from distilbert_kd import pipeline
from distilbert_kd.recipe import load_recipe
from tests.launching import launch, launch_command, start
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import write_recipe


pytestmark = pytest.mark.slow

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="pip install deepspeed")
#: DeepSpeed's own switches: the device, and no kernels but the one that it builds when it needs it.
ON_CPU = {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0"}


def write_parts(folder: Path, batch_size: int, **device: bool) -> Path:
    """A recipe with a teacher that is trained here and then asked at each step, for a student of another width."""
    narrow = {"seed": 3, "hidden_size": 16, "intermediate_size": 32}
    start = {"initializer_range": 0.02, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for name, model in (("base", tiny_bert(4, **start)), ("narrow", tiny_bert(2, **start, **narrow))):
        model.bert.save_pretrained(folder / name)
        tiny_tokenizer(folder / name)
    training = {"learning_rate": 3.0e-3, "num_train_epochs": 2, "per_device_train_batch_size": batch_size, **device}
    return write_recipe(
        folder,
        folder / "base",
        training=training,
        teacher={
            "model": str(folder / "base"),
            "finetune": dict(training),
            "allow_near_chance": True,
            "cache": False,
        },
        student={"init_from": str(folder / "narrow"), "num_layers": 2},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run folder of one process."""
    recipe = load_recipe(write_parts(tmp_path_factory.mktemp("whole"), 8, use_cpu=True))
    pipeline.run(recipe)
    return Path(recipe.output_dir)


@pytest.mark.parametrize(
    "config",
    [
        "fsdp2",
        pytest.param("deepspeed_zero2", marks=needs_deepspeed),
        pytest.param("deepspeed_zero3", marks=needs_deepspeed),
    ],
)
def test_shards_make_the_same_models(whole, tmp_path, config):
    """Prevents a sharded launch that trains something else, asks half a teacher, or saves half a model."""
    recipe = write_parts(tmp_path, 4, use_cpu=False)
    launch(config, "tests/cpu_as_gpu.py", "run", str(recipe), **ON_CPU)
    for name in ("teacher", "student", "control"):
        one, two = (load_file(folder / name / "model.safetensors") for folder in (whole, tmp_path / "run"))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            if not key.endswith("key.bias"):  # its gradient is rounding errors only, of which Adam makes whole steps
                torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")
        model, report = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "run" / name, output_loading_info=True
        )
        assert type(model).__name__ == "BertForSequenceClassification"
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
    mine, theirs = (json.loads((folder / "history.json").read_text("utf-8")) for folder in (whole, tmp_path / "run"))
    for before, after in zip(mine["student"], theirs["student"], strict=True):
        for name in before.keys() & {"loss", "hard_loss", "soft_loss", "grad_norm", "eval_loss"}:
            assert after[name] == pytest.approx(before[name], rel=1e-3, abs=1e-6), (name, before["step"])


@needs_deepspeed
def test_a_broken_shard_is_not_saved(tmp_path):
    """Prevents a student of NaN where no process has whole weights; and that one which can't know of it goes on."""
    recipe = write_parts(tmp_path, 4, use_cpu=False)
    launched = start(launch_command("deepspeed_zero3", "tests/broken_shard.py", "run", str(recipe)), **ON_CPU)
    try:
        _, stderr = launched.communicate(timeout=300)
    finally:
        launched.kill()
    assert launched.returncode == 1, stderr
    assert stderr.count("Expected finite numbers, got NaN or infinity in bert.") == 1, stderr
    assert stderr.count("exitcode  : 3") >= 1, stderr
    assert not (tmp_path / "run" / "teacher").exists()
