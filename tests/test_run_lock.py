"""One run in one folder at a time."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import random
import socket
import time
from contextlib import suppress

import pytest

from distilbert_kd import run_lock
from distilbert_kd.errors import StorageError
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_lock import is_locked, lock, locked


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run").make()


def gone_pid():
    """The number of a process that is no more."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def leave_lock(folder, **changed):
    record = {"host": socket.gethostname(), "pid": gone_pid(), "started": "1", "since": "today"}
    record |= {"slurm_job": None, "slurm_restart": None, **changed}
    folder.lock.write_text(json.dumps(record), encoding="utf-8")


def test_a_second_run_is_refused_and_the_first_keeps_the_folder(folder):
    """Prevents two runs from writing each other's checkpoints."""
    with locked(folder):
        with pytest.raises(StorageError, match=rf"process {os.getpid()} on {socket.gethostname()}.*output_dir=") as e:
            with locked(folder):
                pass
        assert e.value.exit_code == 4
        assert folder.lock.is_file()
    assert not folder.root.exists()


def test_a_folder_with_something_in_it_stays(folder):
    """Prevents a lock from taking a run with it."""
    folder.recipe.touch()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    assert [path.name for path in folder.root.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("changed", [{}, {"pid": os.getpid(), "started": "another"}])
def test_a_lock_of_a_process_that_is_no_more_is_taken_over(folder, caplog, changed):
    """Prevents a killed run from locking its folder for good; and "takes over" of a start that is then refused."""
    leave_lock(folder, **changed)
    with caplog.at_level(logging.WARNING, "distilbert_kd"), locked(folder):
        assert json.loads(folder.lock.read_text("utf-8"))["pid"] == os.getpid()
    assert not caplog.text


def test_a_lock_of_another_host_is_respected(folder):
    """Prevents a run on one node from taking the folder of a run on another."""
    leave_lock(folder, host="elsewhere")
    with pytest.raises(StorageError, match=rf"on elsewhere.*remove {folder.lock}"), locked(folder):
        pass
    assert folder.lock.is_file()


@pytest.mark.parametrize(("restart", "is_taken"), [("1", True), (None, False)])
def test_a_requeued_job_takes_over_its_own_lock(folder, monkeypatch, restart, is_taken):
    """Prevents a preempted Slurm job, which comes back on another node, from being locked out by itself."""
    leave_lock(folder, host="elsewhere", slurm_job="7")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    if restart:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    if is_taken:
        with locked(folder):
            pass
    else:
        with pytest.raises(StorageError), locked(folder):
            pass


@pytest.fixture(params=["flock", "no flock"])
def file_system(request, monkeypatch):
    """Some file systems that several machines share know no flock."""
    if request.param == "no flock":
        forget_flock(monkeypatch)
        monkeypatch.setattr(run_lock, "_MOMENT", 0.01)


def forget_flock(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("content", ["", '{"host": "here", "pi', "\udcff"])
def test_a_lock_that_is_not_whole_is_taken_over_at_once(folder, content):
    """Prevents a run that was killed as it wrote its lock from keeping out every restart."""
    folder.lock.write_text(content, errors="surrogateescape")
    with locked(folder):
        assert json.loads(folder.lock.read_text("utf-8"))["pid"] == os.getpid()
    assert not folder.root.exists()


def test_a_full_disk_leaves_no_half_lock(folder, monkeypatch):
    """Prevents a lock that says nothing of who holds it."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(StorageError, match="the disk is full"), locked(folder):
        pass
    assert not folder.root.exists()


def test_without_flock_the_last_one_that_wrote_has_the_lock(folder, monkeypatch):
    """Prevents two runs at once where both found the lock free, and no file system to put them in a row."""
    forget_flock(monkeypatch)

    def taken_over(_seconds):
        leave_lock(folder, host="elsewhere")

    monkeypatch.setattr(run_lock.time, "sleep", taken_over)
    with pytest.raises(StorageError, match="on elsewhere"), locked(folder):
        pass
    assert json.loads(folder.lock.read_text("utf-8"))["host"] == "elsewhere"


def test_a_lock_that_was_removed_and_made_again_is_not_taken_for_the_old_one(folder, monkeypatch):
    """Prevents a run that waited for a file, which its holder then removed, from holding that beside the new one."""
    flock, files = fcntl.flock, []

    def late(file, how):
        files.append(file)
        if len(files) == 1:
            folder.lock.unlink()
            leave_lock(folder, host="elsewhere")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(StorageError, match="on elsewhere"), locked(folder):
        pass


def test_who_waits_gets_the_lock_when_it_is_free(folder, monkeypatch, caplog):
    """Prevents work that only one may do at a time from being refused, or done by two."""
    monkeypatch.setattr(run_lock, "_PAUSE", 0.0)
    looks = []

    def seen(_seconds):
        looks.append(is_locked(folder.lock))
        if len(looks) == 3:
            folder.lock.unlink()

    monkeypatch.setattr(run_lock.time, "sleep", seen)
    leave_lock(folder, host="elsewhere")
    with caplog.at_level(logging.INFO, "distilbert_kd"), lock(folder.lock, is_waiting=True):
        assert json.loads(folder.lock.read_text("utf-8"))["pid"] == os.getpid()
    assert looks == [True, True, True] and not is_locked(folder.lock)
    assert caplog.text.count("waiting for process") == 1


LEFT = ("a stale lock", "nothing", "a stale lock", "an empty file", "a stale lock", "half a record")


def race(folder, barrier, holders, rounds):
    """What one of many processes does that start in one folder at the same moment; run by `multiprocessing`."""
    read = run_lock._read

    def slow_read(*args):
        time.sleep(random.uniform(0, 0.004))  # where the others come in between
        return read(*args)

    run_lock._read = slow_read
    for number in range(rounds):
        if barrier.wait(30) == 0:
            folder.make()
            left = LEFT[number % len(LEFT)]
            if left == "a stale lock":
                leave_lock(folder)
            elif left != "nothing":
                folder.lock.write_text("" if left == "an empty file" else '{"host": "he')
        barrier.wait(30)
        time.sleep(random.uniform(0, 0.01))
        with suppress(StorageError), locked(folder):
            with holders.get_lock():
                holders[number] += 1
            barrier.wait(30)  # it holds the lock until all others were refused
            continue
        barrier.wait(30)


@pytest.mark.slow
def test_of_many_that_start_at_once_one_holds_the_lock(tmp_path):
    """Prevents two runs in one folder: many restarts that find the same stale lock, in a lost race for it."""
    context, num_processes, rounds = multiprocessing.get_context("spawn"), 8, 20
    barrier, holders = context.Barrier(num_processes), context.Array("i", rounds)
    arguments = (RunFolder(tmp_path / "run"), barrier, holders, rounds)
    processes = [context.Process(target=race, args=arguments, daemon=True) for _ in range(num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert list(holders) == [1] * rounds
    assert [process.exitcode for process in processes] == [0] * num_processes
