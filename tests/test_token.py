"""A token in the environment is for the client of the Hub alone: nothing that a run leaves or says has it."""

import os
import subprocess
import sys

import pytest

from tests.tiny_runs import save_tiny_base, write_recipe


CANARY = "hf_canary4711canary4711canary4711"


def distilbert_kd(*arguments, home):
    """A command as a user gives it, with a token in the environment; what it says."""
    environment = {**os.environ, "HF_TOKEN": CANARY, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    command = [sys.executable, "-m", "distilbert_kd", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_token_is_nowhere(tmp_path):
    """A token in a checkpoint, a card or a log is public with the next push; the stock Trainer uploads its own."""
    recipe = write_recipe(
        tmp_path / "runs",
        save_tiny_base(tmp_path / "base"),
        push=None,
        control=False,
        training={"num_train_epochs": 1, "use_cpu": True},
    )
    changes = ["teacher.finetune.num_train_epochs=1", "teacher.allow_near_chance=true"]
    run = tmp_path / "runs" / "run"
    said = [
        distilbert_kd("run", recipe, *changes, home=tmp_path / "home"),
        distilbert_kd("card", run, home=tmp_path / "home"),
        distilbert_kd("push", run, "--repo", "ada/tiny", "--dry-run", home=tmp_path / "home"),
    ]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"results.json", "README.md", "report.html", "environment.json"} <= {file.name for file in files}
    assert (run / "hub" / "model.safetensors").is_file()
    assert [str(file) for file in files if CANARY.encode() in file.read_bytes()] == []
    assert CANARY not in "".join(said)
