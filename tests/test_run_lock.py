"""One run in one folder at a time."""

import errno
import json
import logging
import os
import socket

import pytest

from distilbert_kd.errors import StorageError
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_lock import locked


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
    """Prevents a killed run from locking its folder for good; process numbers are used again."""
    leave_lock(folder, **changed)
    with caplog.at_level(logging.WARNING, "distilbert_kd"), locked(folder):
        assert json.loads(folder.lock.read_text("utf-8"))["pid"] == os.getpid()
    assert "was cut off; this one takes over" in caplog.text


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


@pytest.fixture(params=["links", "no links"])
def file_system(request, monkeypatch):
    """Some file systems have no links: exFAT, and some that several machines share."""
    if request.param == "no links":

        def link(*_):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("content", ["", '{"host": "here", "pi'])
def test_a_lock_that_is_not_whole_is_taken_over_at_once(folder, content):
    """Prevents a run that was killed as it wrote its lock from keeping out every restart."""
    folder.lock.write_text(content)
    with locked(folder):
        assert json.loads(folder.lock.read_text("utf-8"))["pid"] == os.getpid()
    assert not folder.root.exists()


def test_a_kill_leaves_no_half_lock(folder, monkeypatch):
    """Prevents a lock that says nothing of who holds it."""

    def killed(*_, **__):
        assert not folder.lock.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", killed)
    with pytest.raises(KeyboardInterrupt), locked(folder):
        pass
    assert not folder.lock.exists()


def test_without_links_a_lock_that_was_taken_while_empty_is_not_held(folder, monkeypatch):
    """Prevents two runs at once where one took the other's lock over in the moment that it was empty."""
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no links")))
    dump = json.dump

    def taken_over(record, file):
        if file.name == str(folder.lock):
            folder.lock.unlink()
            leave_lock(folder, host="elsewhere")
        dump(record, file)

    monkeypatch.setattr(json, "dump", taken_over)
    with pytest.raises(StorageError, match="on elsewhere"), locked(folder):
        pass
    assert json.loads(folder.lock.read_text("utf-8"))["host"] == "elsewhere"


@pytest.mark.usefixtures("file_system")
def test_who_is_second_in_a_take_over_leaves_the_lock_of_the_first(folder, monkeypatch):
    """Prevents the first from running on without a lock, and a third run from joining it."""
    leave_lock(folder)
    rename = os.rename

    def late(source, target):
        leave_lock(folder, pid=os.getpid(), host="elsewhere")  # the first took over a moment before
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(StorageError, match="another run that does so"), locked(folder):
        pass
    assert json.loads(folder.lock.read_text("utf-8"))["host"] == "elsewhere"
    assert os.listdir(folder.root) == [folder.lock.name]


def test_a_stale_lock_that_another_run_moved_is_no_traceback(folder, monkeypatch):
    """Prevents the slower of two restarts from ending in a traceback of a missing file."""
    leave_lock(folder)

    def gone(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "rename", gone)
    with pytest.raises(StorageError, match="another run that does so"), locked(folder):
        pass
