"""A whole run on two gloo processes, as `accelerate launch` with the project's own file for CPUs starts it."""

import json
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from distilbert_kd import pipeline
from distilbert_kd.recipe import load_recipe
from tests.launching import launch, launch_command, start
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import write_recipe


#: What the processes of a launch on CPUs have to find out by themselves, and what the recipe says to one process.
WITHOUT_DEVICE = {"learning_rate": 3.0e-3, "num_train_epochs": 3, "per_device_train_batch_size": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recipe on one process, with batches of 8, and on two, with 4 each; without dropout."""
    folder = tmp_path_factory.mktemp("runs")
    base = folder / "base"
    tiny_bert(
        4, initializer_range=0.02, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).bert.save_pretrained(base)
    tiny_tokenizer(base)
    one = load_recipe(write_recipe(folder / "one", base), ["teacher.finetune.num_train_epochs=4"])
    pipeline.run(one)
    recipe = write_recipe(
        folder / "two",
        base,
        training=WITHOUT_DEVICE,
        teacher={"model": str(base), "finetune": {**WITHOUT_DEVICE, "num_train_epochs": 4}},
    )
    two = launch("cpu", "-m", "distilbert_kd", "run", str(recipe), f"teacher.cache_dir={folder / 'cache'}")
    return Path(one.output_dir), folder / "two" / "run", two, folder / "cache"


def test_two_processes_log_the_same(runs):
    """Prevents terms, losses and gradients in the log that are one process's own, or of as many rows as it has."""
    one, two = (json.loads((folder / "history.json").read_text("utf-8")) for folder in runs[:2])
    for model in one:
        steps = [[line for line in each[model] if "loss" in line] for each in (one, two)]
        assert len(steps[0]) == len(steps[1]) > 0
        for mine, theirs in zip(*steps, strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine.keys() & {"loss", "hard_loss", "soft_loss", "grad_norm"}:
                assert theirs[name] == pytest.approx(mine[name], rel=1e-2, abs=1e-4), (model, name, mine["step"])


@pytest.mark.parametrize("model", ["teacher", "student", "control"])
def test_two_processes_make_the_same_models(runs, model):
    """Prevents a launch on more processes from being another experiment."""
    one, two = (load_file(folder / model / "model.safetensors") for folder in runs[:2])
    for name, tensor in one.items():
        # A key's bias has a gradient of rounding errors only, of which Adam makes whole steps.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-3, msg=name)


def test_two_processes_measure_the_same(runs):
    """Prevents metrics over rows that were scored twice, or by one process only."""
    one, two = (json.loads((folder / "results.json").read_text("utf-8"))["models"] for folder in runs[:2])
    for name in one:
        mine, theirs = (results[name]["splits"]["validation"] for results in (one, two))
        assert mine["num_rows"] == theirs["num_rows"] == 24
        assert mine["score"] == pytest.approx(theirs["score"], abs=0.05)


def test_one_process_prints_and_writes(runs):
    """Prevents a table for each process, caches that get in each other's way, and warnings at the end."""
    _, two, launched, cache = runs
    assert launched.stdout.count("Models") == 1
    assert launched.stderr.count("teacher: accuracy on validation") == 1
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 2
    assert not (two / "checkpoints").exists()
    assert "Traceback" not in launched.stderr


def test_a_process_that_dies_takes_the_launch_with_it(tmp_path):
    """Prevents processes that wait for hours for one that the kernel killed, and an end that doesn't say which."""
    base = tmp_path / "base"
    tiny_bert(4).bert.save_pretrained(base)
    tiny_tokenizer(base)
    recipe = write_recipe(tmp_path / "two", base)
    launched = start(
        launch_command("cpu", "-m", "distilbert_kd", "run", str(recipe), "teacher.finetune.num_train_epochs=1000")
    )
    try:
        assert launched.stderr is not None
        assert any("teacher: step" in line for line in launched.stderr), "it ended before the first step"
        workers = psutil.Process(launched.pid).children(recursive=True)
        second = next(worker for worker in workers if worker.environ().get("RANK") == "1")
        start_of_wait = time.monotonic()
        second.kill()
        _, stderr = launched.communicate(timeout=60)
        assert time.monotonic() - start_of_wait < 30
    finally:
        launched.kill()
    assert launched.returncode == 1
    assert "rank      : 1 (local_rank: 1)" in stderr
    assert "exitcode  : -9" in stderr
    assert not [worker for worker in workers if worker.is_running()]
