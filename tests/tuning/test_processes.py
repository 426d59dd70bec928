"""Several processes on one study, and one that is killed: real processes, started as a user starts them."""

import json
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.launching import start
from tests.tiny_runs import save_tiny_base, write_recipe


NUM_TRIALS = 5
TRAINING = {"learning_rate": 3e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "use_cpu": True}

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path):
    """A tuning that fine-tunes its teacher; a process of it takes seconds."""
    recipe = write_recipe(tmp_path, save_tiny_base(tmp_path / "base"), training=TRAINING)
    spaces = ["--space", "training.learning_rate=1e-3..1e-2", "--space", "distillation.alpha"]
    options = ["--trials", str(NUM_TRIALS), "--held-out", "16", *spaces, f"teacher.cache_dir={tmp_path / 'cache'}"]
    return [sys.executable, "-m", "distilbert_kd", "tune", str(recipe), *options]


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run-tune" / "trials.json").read_text("utf-8"))


def numbers_in(told: str) -> list[int]:
    """Trials that a process ran to their ends, by what it said."""
    return [int(line.split(":")[0].split()[1]) for line in told.splitlines() if "standard error" in line]


def wait_for_trial(folder: Path, pid: int, beside: Iterable[int] = ()) -> int:
    """The number of the trial that a process is at work on."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        for place in (folder / "run-tune").glob(".lock-trial-*"):
            number = int(place.name.rpartition("-")[2])
            try:
                if json.loads(place.read_text("utf-8"))["pid"] == pid and number not in beside:
                    return number
            except (OSError, ValueError):
                pass  # it is being written, or is gone already
        time.sleep(0.01)
    raise AssertionError("the process ran no trial")


def test_two_at_once_share_the_trials_and_one_teacher(command, tmp_path):
    """Prevents a teacher for each process, one trial run by two, a locked database, and more trials than asked for."""
    processes = [start(command) for _ in range(2)]
    told = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sum(text.count("teacher: training on") for text in told) == 1
    assert sum(text.count("teacher: asking for the logits") for text in told) == 2  # of both splits, once
    assert sorted(numbers_in(told[0]) + numbers_in(told[1])) == list(range(NUM_TRIALS))
    record = record_of(tmp_path)
    assert [trial["state"] for trial in record["trials"]] == ["complete"] * NUM_TRIALS
    assert [trial["is_recipe"] for trial in record["trials"]] == [True] + [False] * (NUM_TRIALS - 1)
    assert len({json.dumps(trial["values"]) for trial in record["trials"]}) == NUM_TRIALS


def test_one_that_is_killed_goes_on_with_the_same_command(command, tmp_path):
    """Prevents the loss of trials that are done, a trial that is under way for ever, and a lock that nobody holds."""
    killed = start(command)
    wait_for_trial(tmp_path, killed.pid)
    number = wait_for_trial(tmp_path, killed.pid, beside=[0])
    killed.send_signal(signal.SIGKILL)
    told = killed.communicate(timeout=60)[1]
    done = numbers_in(told)
    assert killed.returncode == -signal.SIGKILL and number not in done and 0 in done

    again = start(command)
    stdout, told = again.communicate(timeout=600)
    assert again.returncode == 0, told
    assert f"trial {number} was cut off; it is tried again" in told
    assert "teacher: training on" not in told and "taken from" in told
    assert not set(done) & set(numbers_in(told))
    trials = record_of(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * NUM_TRIALS
    assert number not in [trial["number"] for trial in trials]  # it is there under the next one
    assert f"{NUM_TRIALS} trials" in stdout
    assert not list((tmp_path / "run-tune").glob(".*"))
