"""One run in one folder at a time, and other work that only one process may do."""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distilbert_kd.errors import StorageError
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.storage import storage_errors


__all__ = ["is_locked", "lock", "locked"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at a lock that another process holds.
_PAUSE = 0.2


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
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock, as far as can be known: on another machine it is believed to be at work."""
    theirs = _read(path)
    return bool(theirs) and not _is_stale(theirs, _myself())


def _acquire(path: Path, mine: dict[str, Any], is_waiting: bool) -> None:
    start = time.monotonic()
    is_said = False
    while not _create(path, mine):
        try:
            _take_over(path, mine)
            return
        except StorageError:
            if not is_waiting:
                raise
        theirs = _read(path)
        if theirs and not is_said and time.monotonic() - start > 5 * _PAUSE:
            is_said = True
            logger.info("waiting for process %s on %s, which holds %s", theirs["pid"], theirs["host"], path)
        time.sleep(_PAUSE)


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart": os.environ.get("SLURM_RESTART_COUNT"),
    }


def _create(path: Path, record: dict[str, Any]) -> bool:
    """Makes the lock, whole, if there is none; a process that is killed here leaves none."""
    whole = _aside(path)
    try:
        _write(whole, record)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # some file systems have no links
            return _create_in_place(path, record)
        return True
    finally:
        whole.unlink(missing_ok=True)


def _create_in_place(path: Path, record: dict[str, Any]) -> bool:
    try:
        _write(path, record)
    except FileExistsError:
        return False
    return _read(path) == record  # it was empty for a moment, and another run may have taken it over


def _write(path: Path, record: dict[str, Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}")


def _take_over(path: Path, mine: dict[str, Any]) -> None:
    """Takes over a lock of a process that is no more, or one that is not whole: its process was killed."""
    theirs = _read(path)
    if theirs and not _is_stale(theirs, mine):
        who = f"process {theirs['pid']} on {theirs['host']} since {theirs['since']}"
        raise StorageError(
            f"Expected a run folder that no other run is writing to, got {path.parent}, where {who} is at work. Wait "
            f"for it, or choose another folder with output_dir=... If that process is no more, remove {path}."
        )
    if not _replace(path, theirs, mine):
        raise StorageError(
            f"Expected to take over the run folder {path.parent}, got another run that does so. Wait for it, or "
            "choose another folder with output_dir=..."
        )
    logger.warning(
        "The run of process %s in %s was cut off; this one takes over.", theirs.get("pid", "?"), path.parent
    )


def _replace(path: Path, theirs: dict[str, Any], mine: dict[str, Any]) -> bool:
    aside = _aside(path)
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    taken = _read(aside)
    if taken and taken != theirs:  # another run was faster, and this is its lock
        _create(path, taken)
    aside.unlink()
    return taken == theirs and _create(path, mine)


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


def _read(path: Path) -> dict[str, Any]:
    """The record of a lock; empty where there is none, or none that is whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.keys() >= {"host", "pid", "started", "since"} else {}
