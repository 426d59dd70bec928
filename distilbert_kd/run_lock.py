"""One run in one folder at a time, and other work that only one process may do."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from distilbert_kd.errors import StorageError
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.storage import storage_errors


__all__ = ["is_locked", "lock", "locked"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at a lock that another process holds.
_PAUSE = 0.2

#: Seconds in which a process reads the file, decides and writes.
_MOMENT = 1.0

#: What a file system says that knows no `flock`: Lustre without it, NFS without its server for locks.
_WITHOUT_FLOCK = frozenset((errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL))


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Holds the lock of a run folder, which says who holds it. One that a process left which is no more is taken over.

    Args:
        folder: of the run; it is made, and removed again if it stays empty. Only the main process locks it.

    Yields:
        Nothing.

    Raises:
        StorageError: another process holds it, or it can't be written.
    """
    try:
        with lock(folder.make().lock):
            yield
    finally:
        with suppress(OSError):
            folder.root.rmdir()  # only if nothing is in it


@contextmanager
def lock(path: Path, is_waiting: bool = False) -> Iterator[None]:
    """Holds a lock, which is a file that says who holds it. One of a process that is no more is taken over.

    The record in the file is the lock, so that it holds on other machines, and over a restart of a Slurm job. It is
    read and written, or removed, under `flock`, so that of several processes each sees what the one before it wrote.

    Args:
        path: the file, in a folder that is there.
        is_waiting: whether to wait for another process that holds it, and say so.

    Yields:
        Nothing.

    Raises:
        StorageError: another process holds it and it is not waited for, or it can't be written.
    """
    mine = _myself()
    with storage_errors(path):
        _acquire(path, mine, is_waiting)
    try:
        yield
    finally:
        with suppress(OSError), _alone(path, "r+") as (file, _):
            if _read(file) == mine:
                path.unlink()


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock, as far as can be known: on another machine it is believed to be at work."""
    theirs = _holder(path)
    return bool(theirs) and not _is_stale(theirs, _myself())


def _acquire(path: Path, mine: dict[str, Any], is_waiting: bool) -> None:
    start = time.monotonic()
    is_said = False
    while theirs := _take(path, mine):
        who = f"process {theirs['pid']} on {theirs['host']} since {theirs['since']}"
        if not is_waiting:
            raise StorageError(
                f"Expected a run folder that no other run is writing to, got {path.parent}, where {who} is at work. "
                f"Wait for it, or choose another folder with output_dir=... If that process is no more, remove {path}."
            )
        if not is_said and time.monotonic() - start > 5 * _PAUSE:
            is_said = True
            logger.info("waiting for %s, which holds %s", who, path)
        time.sleep(_PAUSE)


def _take(path: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """Takes a lock that is free, of a process that is no more, or not whole because its process was killed.

    Args:
        path: the file.
        mine: the record of this process.

    Returns:
        Empty; else the record of the process that holds it.
    """
    with _alone(path, "a+") as (file, is_alone):
        theirs = _read(file)
        if theirs and not _is_stale(theirs, mine):
            return theirs
        try:
            _write(file, mine)
        except BaseException:
            path.unlink()
            raise
    if not is_alone:
        time.sleep(_MOMENT)
        if _holder(path) != mine:  # the last one that wrote has it
            return _take(path, mine)
    return {}


@contextmanager
def _alone(path: Path, mode: str) -> Iterator[tuple[IO[str], bool]]:
    """A lock's file, open, while no other process writes it; and whether the file system can see to that."""
    while True:
        with path.open(mode, encoding="utf-8") as file:  # closing it ends the flock
            is_alone = True
            try:
                fcntl.flock(file, fcntl.LOCK_SH if mode == "r" else fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _WITHOUT_FLOCK:
                    raise
                is_alone = False
            if _is_at(path, file):  # else another process removed it meanwhile
                yield file, is_alone
                return


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _write(file: IO[str], record: dict[str, Any]) -> None:
    file.truncate(0)
    json.dump(record, file)
    file.flush()
    os.fsync(file.fileno())


def _holder(path: Path) -> dict[str, Any]:
    """The record of a lock; empty where there is none, or none that is whole."""
    try:
        with _alone(path, "r") as (file, _):
            return _read(file)
    except OSError:
        return {}


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        record = json.load(file)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and record.keys() >= {"host", "pid", "started", "since"} else {}


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart": os.environ.get("SLURM_RESTART_COUNT"),
    }


def _is_stale(theirs: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Whether the holder is surely no more: gone from this host, or an earlier start of this Slurm job."""
    if theirs["slurm_job"] is not None and theirs["slurm_job"] == mine["slurm_job"]:
        return theirs["slurm_restart"] != mine["slurm_restart"] or _is_gone(theirs, mine)
    return _is_gone(theirs, mine)


def _is_gone(theirs: dict[str, Any], mine: dict[str, Any]) -> bool:
    if theirs["host"] != mine["host"]:
        return False
    try:
        os.kill(theirs["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _start_of(theirs["pid"]) != theirs["started"]  # the number belongs to another process now


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; None where the system doesn't tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
