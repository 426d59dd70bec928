"""A whole run on two gloo processes, through the command line as a launcher starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distilbert_kd import pipeline
from distilbert_kd.recipe import load_recipe
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import write_recipe


ROOT = Path(__file__).parents[1]


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
    recipe = write_recipe(folder / "two", base)
    halves = [f"{key}.per_device_train_batch_size=4" for key in ("training", "teacher.finetune")]
    overrides = ["teacher.finetune.num_train_epochs=4", f"teacher.cache_dir={folder / 'cache'}", *halves]
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    ]
    two = subprocess.run(
        [sys.executable, *launch, "-m", "distilbert_kd", "run", str(recipe), *overrides],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert two.returncode == 0, two.stderr[-3000:]
    return Path(one.output_dir), folder / "two" / "run", two, folder / "cache"


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
    """Prevents a table for each process, and caches that get in each other's way."""
    _, _, launched, cache = runs
    assert launched.stdout.count("Models") == 1
    assert launched.stderr.count("teacher: accuracy on validation") == 1
    assert len([path for path in cache.iterdir() if not path.name.startswith(".")]) == 2
