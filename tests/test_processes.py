"""What ends one process ends all: two gloo processes, started by hand, so that no launcher ends the second."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest

from distilbert_kd.errors import DivergedError, StorageError, is_of_all
from distilbert_kd.processes import failing_together
from distilbert_kd.recipe import load_recipe
from distilbert_kd.resuming import Progress, flat_recipe
from distilbert_kd.run_folder import RunFolder
from tests.launching import ROOT
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import write_recipe


class UnsendableError(Exception):
    """Can be pickled and not read back, as errors of HTTP libraries are."""

    def __init__(self, *, response: str) -> None:
        super().__init__(f"answer: {response}")


def both(rank):
    raise StorageError(f"process {rank} says so")


def main_alone(rank):
    if rank == 0:
        raise StorageError("the disk is full")


def second_alone(rank):
    if rank == 1:
        raise OSError(28, "No space left on device", "/there")


def unsendable(rank):
    if rank == 0:
        raise UnsendableError(response="404")


def told_to_end(rank):
    if rank == 0:
        raise KeyboardInterrupt


def none(_rank):
    pass


def before_an_inner_one(rank):
    main_alone(rank)
    with failing_together():
        pass


def in_an_inner_one(rank):
    with failing_together():
        main_alone(rank)
    pytest.fail("went on")


def after_an_inner_one(rank):
    with failing_together():
        pass
    main_alone(rank)


STAGES = [
    none,
    main_alone,
    second_alone,
    both,
    unsendable,
    told_to_end,
    before_an_inner_one,
    in_an_inner_one,
    after_an_inner_one,
    none,
]


def environment_of(rank, port):
    """What torchrun sets for each process."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    return {name: str(value) for name, value in (place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}).items()}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def go_through(rank, port, answers):
    """One of the two processes; run by `multiprocessing`."""
    from accelerate import PartialState

    os.environ |= environment_of(rank, port)
    PartialState(cpu=True)
    for stage in STAGES:
        try:
            with failing_together():
                stage(rank)
            answers.put((rank, stage.__name__, "done", "", [], False))
        except BaseException as error:
            notes = getattr(error, "__notes__", [])
            answers.put((rank, stage.__name__, type(error).__name__, str(error), notes, is_of_all(error)))
    PartialState().destroy_process_group()


@pytest.fixture(scope="module")
def answers():
    """What each stage came to on each of two processes."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    queue = context.Queue()
    processes = [context.Process(target=go_through, args=(rank, port, queue), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=300) for _ in range(2 * len(STAGES))]
    for process in processes:
        process.join(60)
    return found


@pytest.mark.parametrize(
    ("stage", "kind", "message"),
    [
        (main_alone, "StorageError", "the disk is full"),
        (second_alone, "OSError", "[Errno 28] No space left on device: '/there'"),
        (both, "StorageError", "process 0 says so"),
        (told_to_end, "KeyboardInterrupt", ""),
        (before_an_inner_one, "StorageError", "the disk is full"),
        (in_an_inner_one, "StorageError", "the disk is full"),
        (after_an_inner_one, "StorageError", "the disk is full"),
    ],
)
def test_what_one_process_meets_ends_both(answers, stage, kind, message):
    """Prevents a process from waiting, for hours on a GPU, for one that was refused; and another exit code."""
    found = [answer for answer in answers if answer[1] == stage.__name__]
    notes = ["This was met by process 1 of 2."] if stage is second_alone else []
    assert sorted(found) == [(rank, stage.__name__, kind, message, notes, True) for rank in range(2)]


def test_nothing_is_said_where_nothing_fails(answers):
    """Prevents a stage that went well from ending a run, also one after others that failed."""
    assert [answer[2] for answer in answers if answer[1] == "none"] == ["done"] * 4


def test_an_error_that_cannot_be_sent_is_told_in_words(answers):
    """Prevents the others from dying of an error that they can't read, with no word of what happened."""
    found = sorted(answer[:4] for answer in answers if answer[1] == "unsendable")
    own, told = "UnsendableError", "RuntimeError"
    assert found == [(0, "unsendable", own, "answer: 404"), (1, "unsendable", told, "UnsendableError: answer: 404")]


def test_a_process_alone_keeps_its_error():
    """Prevents an error from losing its cause, or being taken for one that others speak of."""
    with pytest.raises(DivergedError) as caught, failing_together():
        raise DivergedError("as it is")
    assert not is_of_all(caught.value)


def run_by_hand(recipe, *arguments, program=("-m", "distilbert_kd")):
    """Both processes of `distilbert-kd run`, without a launcher.

    Returns:
        Exit code and log of each, and the seconds between their ends.
    """
    port = free_port()
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    settings |= {"ACCELERATE_USE_CPU": "true", "HF_HOME": str(recipe.parent / "home")}
    processes = [
        subprocess.Popen(
            [sys.executable, *program, "run", str(recipe), *arguments],
            cwd=ROOT,
            env=os.environ | settings | environment_of(rank, port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        logs, ends = [], []
        for process in processes:
            logs.append(process.communicate(timeout=300)[1])
            ends.append(time.monotonic())
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], logs, ends[1] - ends[0]


@pytest.fixture
def recipe(tmp_path):
    tiny_bert(2).bert.save_pretrained(tmp_path / "base")
    tiny_tokenizer(tmp_path / "base")
    return write_recipe(tmp_path / "two", tmp_path / "base")


def check_refused(ended, message):
    codes, logs, seconds = ended
    assert codes == [4, 4], logs
    assert logs[0].count(message) == 1 and "Traceback" not in logs[0] + logs[1], logs
    assert not [line for line in logs[1].splitlines() if line.startswith("error")], "one speaks for both"
    assert seconds < 30


def test_both_end_when_the_first_finds_the_folder_locked(recipe):
    """Prevents the second from waiting for a first that another run keeps out."""
    run = recipe.parent / "run"
    run.mkdir()
    record = '{"host": "elsewhere", "pid": 1, "started": "1", "since": "today", "slurm_job": null}'
    (run / ".lock").write_text(record, encoding="utf-8")
    check_refused(run_by_hand(recipe), "where process 1 on elsewhere")


@pytest.mark.slow
def test_both_end_when_the_first_finds_another_run(recipe):
    """Prevents the second from waiting for a first that was refused, because it alone reads what a run depends on."""
    folder = RunFolder(recipe.parent / "run").make()
    progress = Progress(folder)
    progress.take_identity({"recipe": flat_recipe(load_recipe(recipe).to_yaml())}, ())
    progress.write()
    check_refused(run_by_hand(recipe, "seed=7"), "other values of seed than")


#: The command line in which one function finds the disk full, on the first process alone.
FULL_FOR_THE_FIRST = """
import os, pkgutil, sys
owner, name, sys.argv[1:] = sys.argv[1], sys.argv[2], sys.argv[3:]
if os.environ["RANK"] == "0":
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/there")
    setattr(pkgutil.resolve_name(owner), name, full)
from distilbert_kd.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        ("distilbert_kd.run_lock", "_write", ".lock, got: the disk is full"),
        ("distilbert_kd.resuming", "write_text", "error: /there: the disk is full"),
        ("transformers:Trainer", "_save_optimizer_and_scheduler", "/checkpoint-4, got: the disk is full"),
        ("distilbert_kd.resumable_trainer", "commit", "checkpoints/teacher, got: the disk is full"),
        ("transformers:PreTrainedModel", "save_pretrained", "/checkpoint-4, got: the disk is full"),
        ("distilbert_kd.training", "sync", "run/teacher, got: the disk is full"),
        ("datasets:Dataset", "save_to_disk", "Expected to keep the teacher's logits"),
        ("distilbert_kd.run_records", "write_scored_rows", "error: /there: the disk is full"),
    ],
)
def test_both_end_when_the_first_cannot_write(recipe, owner, name, message):
    """Prevents the second from waiting for a first whose disk is full, wherever in a run that is."""
    check_refused(run_by_hand(recipe, program=("-c", FULL_FOR_THE_FIRST, owner, name)), message)
