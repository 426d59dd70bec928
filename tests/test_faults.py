"""Whole runs that are really killed, signalled or poisoned, and started again."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fault_server import FAULTS
from tests.tiny_runs import save_tiny_base, write_recipe


ROOT = Path(__file__).parents[1]
SHORT = ("teacher.finetune.num_train_epochs=2", "teacher.allow_near_chance=true", "data.max_train_rows=32")
KILLS = [name for name in FAULTS if not name.startswith(("SIG", "two SIG", "infinite"))]
NUM_RANDOM_KILLS = 50
#: Runs by default; the others with the slow tests.
QUICK = {"save, before the commit"}


@pytest.fixture(scope="module")
def server():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fault_server"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder, save_tiny_base(folder / "base"))


@pytest.fixture(scope="module")
def start(server, recipe_file):
    """Runs the recipe in a folder, with a fault or without, and gives exit status and output."""

    def start(folder, fault=None, overrides=(), options=(), kill_after_s=None):
        folder.mkdir(exist_ok=True)
        places = (f"output_dir={folder / 'run'}", f"teacher.cache_dir={folder / 'cache'}")
        arguments = ["run", str(recipe_file), *SHORT, *places, *overrides, *options]
        request = {"arguments": arguments, "fault": fault, "log": str(folder / "log"), "kill_after_s": kill_after_s}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), (folder / "log").read_text(encoding="utf-8")

    return start


def outcome(folder):
    """All that a run is for: weights, history and scores, without times and places."""
    run = folder / "run"
    weights = {
        name: hashlib.sha256((run / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("teacher", "student", "control")
    }
    history = {
        name: [
            {
                key: value
                for key, value in line.items()
                if not key.endswith(("runtime", "per_second", "flos", "train_loss"))
            }
            for line in lines
        ]
        for name, lines in json.loads((run / "history.json").read_text("utf-8")).items()
    }
    results = json.loads((run / "results.json").read_text("utf-8"))
    scores = {name: model["splits"] for name, model in results["models"].items()}
    return {"weights": weights, "history": history, "scores": scores, "files": sorted(os.listdir(run))}


@pytest.fixture(scope="module")
def timed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    status, log = start(folder)
    assert status == 0, log
    return {**outcome(folder), "seconds": time.monotonic() - begin}


@pytest.fixture(scope="module")
def whole(timed):
    return {name: value for name, value in timed.items() if name != "seconds"}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in KILLS]
)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(start, whole, tmp_path, fault):
    """Prevents a power cut, an out-of-memory killer or a preemption from costing a run, or from changing it."""
    status, log = start(tmp_path, fault)
    assert status == -9, log
    assert not (tmp_path / "run" / "results.json").exists()
    status, log = start(tmp_path)
    assert status == 0, log
    assert outcome(tmp_path) == whole
    if fault in ("student, step 7", "student, step 12"):
        assert "student: going on from" in log and "teacher: taken from" in log
    if fault == "save, before the commit":
        assert "is not whole: it was not finished" in log
    status, log = start(tmp_path)
    assert status == 4 and "nothing is overwritten" in log


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("SIGTERM at student, step 6", 6),
        pytest.param("SIGINT at teacher, step 3", 3, marks=pytest.mark.slow),
        pytest.param("SIGTERM at control, step 4", 4, marks=pytest.mark.slow),
        pytest.param("two SIGINT at once", 6, marks=pytest.mark.slow),
    ],
)
def test_a_signal_is_obeyed_after_the_step(start, whole, tmp_path, fault, step):
    """Prevents preempted jobs from losing an epoch, and Slurm from taking them for jobs that are done."""
    status, log = start(tmp_path, fault)
    assert status == 75, log
    assert f"interrupted. Told to stop after step {step} of" in log and "Start the same command again" in log
    status, log = start(tmp_path)
    assert status == 0, log
    assert outcome(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "expected"), [("two SIGTERM", -15), ("two SIGINT", 130)])
def test_a_second_signal_is_obeyed_at_once(start, tmp_path, fault, expected):
    """Prevents a user who is in a hurry from having to wait for the save."""
    status, log = start(tmp_path, fault)
    assert status == expected, log


@pytest.mark.slow
def test_what_is_not_finite_ends_the_run_and_is_not_saved(start, tmp_path):
    """Prevents weights of NaN, an exit code of 0 and a logged loss of 0.0."""
    status, log = start(tmp_path, "infinite gradient at student, step 6")
    assert status == 3, log
    assert "NaN or infinity in the gradient at step 6" in log
    names = sorted(os.listdir(tmp_path / "run" / "checkpoints" / "student"))
    assert names == ["checkpoint-4"] and not (tmp_path / "run" / "student").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_again_and_again(start, timed, whole, tmp_path):
    """Prevents a moment that nobody thought of from costing or changing a run."""
    moments, num_kills, num_runs, longest = random.Random(0), 0, 0, timed["seconds"]
    while num_kills < NUM_RANDOM_KILLS:
        folder = tmp_path / str(num_runs)
        num_runs += 1
        while True:
            # A start takes a while before it trains; a run that is only killed in it would never end.
            seconds = moments.uniform(0.3, 0.9) * longest
            begin = time.monotonic()
            status, log = start(folder, kill_after_s=seconds if num_kills < NUM_RANDOM_KILLS else None)
            if status == 0:
                longest = min(longest, time.monotonic() - begin)  # the machine is less busy than it was
                break
            assert status == -9, log
            num_kills += 1
            if (folder / "run" / "results.json").exists():  # it was done, and killed on its way out
                break
        assert {**outcome(folder), "files": whole["files"]} == whole


@pytest.mark.slow
def test_something_changed_is_refused_by_its_name(start, whole, tmp_path, recipe_file):
    """Prevents a run of which one half is another experiment."""
    assert start(tmp_path, "student, step 7")[0] == -9
    status, log = start(tmp_path, overrides=["seed=7"])
    assert status == 4 and "other values of seed than" in log and "--allow-changed seed" in log
    rows = recipe_file.parent / "train.jsonl"
    before = rows.read_text("utf-8")
    try:
        rows.write_text("".join(reversed(before.splitlines(keepends=True))), encoding="utf-8")
        status, log = start(tmp_path)
    finally:
        rows.write_text(before, encoding="utf-8")
    assert status == 4 and "other values of data than" in log
    teacher = tmp_path / "run" / "teacher" / "model.safetensors"
    content = bytearray(teacher.read_bytes())
    content[-1] ^= 1
    teacher.write_bytes(bytes(content))
    status, log = start(tmp_path)
    assert status == 4 and "got another model.safetensors" in log
    content[-1] ^= 1
    teacher.write_bytes(bytes(content))
    status, log = start(tmp_path, overrides=["training.num_train_epochs=4"])
    assert status == 4 and "training.num_train_epochs" in log
    longer = {
        "overrides": ["training.num_train_epochs=4"],
        "options": ["--allow-changed", "training.num_train_epochs"],
    }
    status, log = start(tmp_path, **longer)
    assert status == 0, log
    assert "student: going on from" in log and outcome(tmp_path)["weights"]["student"] != whole["weights"]["student"]


def launch(module, *arguments, options=()):
    """Starts a module on two processes, and gives what torchrun did."""
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    ]
    return subprocess.run(
        [sys.executable, *torchrun, *options, "-m", module, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
            "ACCELERATE_USE_CPU": "true",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_process_that_dies_is_started_again_by_the_launcher(recipe_file, tmp_path):
    """Prevents `torchrun --max-restarts` from meeting a locked folder, a torn checkpoint, or another result."""
    weights = {}
    for name in ("live", "die"):
        places = (f"output_dir={tmp_path / name}", f"teacher.cache_dir={tmp_path / 'cache'}")
        arguments = [name, "run", str(recipe_file), *SHORT, *places]
        done = launch("tests.dying_process", *arguments, options=["--max-restarts=1"])
        assert done.returncode == 0, done.stderr
        assert ("student: going on from" in done.stderr) == (name == "die")
        weights[name] = [
            hashlib.sha256((tmp_path / name / model / "model.safetensors").read_bytes()).hexdigest()
            for model in ("teacher", "student", "control")
        ]
    assert weights["die"] == weights["live"]


@pytest.mark.slow
def test_two_processes_that_are_told_at_different_times_stop_together(tmp_path):
    """Prevents a job that hangs until its time is up, because one process saves and the other goes on."""
    done = launch("tests.stopping_processes", str(tmp_path / "found"))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"found-{i}.json").read_text("utf-8")) for i in range(2))
    for skew, found in first.items():
        assert found["step"] == second[skew]["step"] < 120
        assert found["seconds"] < 30 and found["is_equal"] and second[skew]["is_equal"]
