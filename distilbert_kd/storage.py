"""Files that are written whole or not at all, and errors of the disk in words."""

import errno
import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from distilbert_kd.errors import StorageError, is_of_all


__all__ = [
    "building_prefix",
    "check_writable",
    "file_record",
    "is_storage_fault",
    "new_file",
    "reason_of",
    "remove_abandoned",
    "room_for",
    "sha256_of",
    "storage_errors",
    "sync",
    "write_text",
]

_REASONS = {
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOTDIR: "a file is in the way",
    errno.EEXIST: "a file is in the way",
    errno.EISDIR: "a folder is in the way",
    errno.ENOTEMPTY: "a folder is in the way",
    errno.EIO: "the disk can't be read or written",
    errno.ESTALE: "the shared file system has lost the file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EFBIG: "the file is larger than is allowed there",
}


def reason_of(error: Exception) -> str:
    """What the operating system complains of, without its file and number."""
    number = getattr(error, "errno", None)
    return _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)


def is_storage_fault(error: OSError) -> bool:
    """Whether the place is at fault (full, read-only, no permission), and no library and no program."""
    return error.errno in _REASONS


def room_for(place: Path, num_bytes: int) -> tuple[bool, str]:
    """Whether a disk has room.

    Args:
        place: a file or folder, which need not be there yet.
        num_bytes: that are to be written.

    Returns:
        Whether there is room, or nobody knows; and need and free space in words.
    """
    folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return True, f"{num_bytes / 1e6:.2f} MB are needed"
    return free >= num_bytes, f"{num_bytes / 1e6:.2f} MB are needed, {free / 1e6:.2f} MB are free"


def check_writable(folder: Path) -> None:
    """Makes a folder and writes to it, before work that would be lost.

    Args:
        folder: may be there.

    Raises:
        OSError: it can't be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x")
        probe.flush()
        os.fsync(probe.fileno())


@contextmanager
def storage_errors(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turns faults of the disk, while something is written below `path`, into one error.

    Args:
        path: the file or folder, for the message.
        num_bytes: that are to be written, as far as is known, for the message on a full disk.

    Yields:
        Nothing.

    Raises:
        StorageError: it can't be written. An OSError of a library, a connection or a program goes on as it is.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and not (is_storage_fault(error) or _is_missing_below(path, error)):
            raise  # no fault of the disk, or a StorageError that says it already
        reason = reason_of(error)
        if "No space left" in reason:  # as safetensors says it
            reason = _REASONS[errno.ENOSPC]
        if reason in (_REASONS[errno.ENOSPC], _REASONS[errno.EDQUOT]):
            reason += f": {room_for(path, num_bytes)[1]}" if num_bytes else ""
        told = StorageError(f"Expected to write {path}, got: {reason}. Make room there, or choose another place.")
        told.is_of_all = is_of_all(error)
        raise told from error


def _is_missing_below(path: Path, error: OSError) -> bool:
    """Whether the place itself was removed meanwhile; a library may miss files of its own."""
    places = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return error.errno == errno.ENOENT and any(place.is_relative_to(path.parent) for place in places)


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8, in place of one that is there; after a fault either the old or the new one is there.

    Args:
        path: the file, in a folder that is there.
        text: all of it; line ends stay as they are.

    Raises:
        StorageError: it can't be written.
    """
    with storage_errors(path, len(text)), _partial(path) as partial:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def sync(path: Path) -> None:
    """Waits until a file, or the list of a folder's entries, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; the file may be larger than the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_record(path: Path) -> dict[str, Any]:
    """By which a file is known to be whole: its size in bytes and its SHA-256."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


@contextmanager
def new_file(path: Path) -> Iterator[IO[str]]:
    """A file to write text to, which gets its name when all of it is written, and only if nothing has the name.

    Args:
        path: the file; its folder is made.

    Yields:
        The file, open for text in UTF-8; line ends stay as they are.

    Raises:
        StorageError: it can't be written, or something is there.
    """
    with storage_errors(path), _partial(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("x", encoding="utf-8", newline="") as file:
            yield file
        _name(partial, path)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _name(partial: Path, path: Path) -> None:
    """Unlike a rename, a link never replaces a file; some file systems have no links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(partial, path)


def building_prefix() -> str:
    """How the name begins of what this process builds in a cache, until it is whole and gets its own name."""
    return f"{_building_here()}{os.getpid()}-"


def remove_abandoned(folder: Path) -> None:
    """Removes what processes of this machine were building in a cache when they were killed.

    Args:
        folder: of the cache; what running processes, or those of other machines, build in it stays.
    """
    for path in folder.glob(f"{glob.escape(_building_here())}*"):
        pid = path.name.removeprefix(_building_here()).partition("-")[0]
        if not pid.isdecimal() or _is_running(int(pid)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _building_here() -> str:
    return f".building-{socket.gethostname()}-"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
