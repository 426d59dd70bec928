"""Where a run of either program reads and writes, and what hurts its files from outside."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """The folder of one case, and the inputs that all cases share.

    The run is in `disk/run` with its student's checkpoints in `checkpoints/student`, whichever program made it.
    """

    folder: Path
    inputs: Path

    @property
    def disk(self) -> Path:
        """A folder that may be a small file system of its own."""
        return self.folder / "disk"

    @property
    def filler(self) -> Path:
        """What another program fills the disk with."""
        return self.disk / "filler"

    @property
    def mark(self) -> Path:
        """A file that is there once the process was hurt from within."""
        return self.folder / "hurt"

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.disk / "run"

    @property
    def cache(self) -> Path:
        """Of the teacher's answers, or of the data set as the stock program reads it."""
        return self.folder / "cache"

    @property
    def checkpoints(self) -> Path:
        """Of the student."""
        return self.run / "checkpoints" / "student"

    @property
    def newest(self) -> Path:
        """The student's last checkpoint."""
        return max(self.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))

    def mount(self, folder: Path, size: str) -> None:
        """Makes a folder a small file system in memory.

        Raises:
            PermissionError: only root may.
        """
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise PermissionError("only root can mount a small file system")

    def remount(self, options: str) -> None:
        """Changes the small file system: its size, or whether it can be written."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.disk)], check=True)

    def release(self) -> None:
        """Gives the small file system back, if there is one."""
        if self.disk.is_mount():
            subprocess.run(["umount", str(self.disk)], check=True)

    def lose(self) -> None:
        """Removes the folder of the run."""
        shutil.rmtree(self.run)


Around = Callable[[Place], AbstractContextManager[None]]


def lasting(hurt: Callable[[Place], None]) -> Around:
    """What nobody mends."""

    @contextmanager
    def around(place: Place) -> Iterator[None]:
        hurt(place)
        yield

    return around


def cut(path: Path, num_bytes: int | None = None) -> None:
    """Cuts a file short: to half, or to so many bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if num_bytes is None else num_bytes])


def flip(path: Path) -> None:
    """Flips one bit of the byte in the middle, which is its own undoing."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(bytes(content))


def spoil_number(path: Path) -> None:
    """Makes NaN of the last weight in a safetensors file of float32."""
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"
    path.write_bytes(bytes(content))


#: What can happen to a checkpoint; the last two need a record of it.
DAMAGES: dict[str, Callable[[Path], None]] = {
    "no trainer_state.json": lambda newest: (newest / "trainer_state.json").unlink(),
    "an empty trainer_state.json": lambda newest: cut(newest / "trainer_state.json", 0),
    "half a trainer_state.json": lambda newest: cut(newest / "trainer_state.json"),
    "half a model.safetensors": lambda newest: cut(newest / "model.safetensors"),
    "no model.safetensors": lambda newest: (newest / "model.safetensors").unlink(),
    "half an optimizer.pt": lambda newest: cut(newest / "optimizer.pt"),
    "half an rng_state.pth": lambda newest: cut(newest / "rng_state.pth"),
    "no optimizer.pt": lambda newest: (newest / "optimizer.pt").unlink(),
    "no scheduler.pt": lambda newest: (newest / "scheduler.pt").unlink(),
    "no rng_state.pth": lambda newest: (newest / "rng_state.pth").unlink(),
    "a flipped bit in the weights": lambda newest: flip(newest / "model.safetensors"),
    "a flipped bit in the optimizer": lambda newest: flip(newest / "optimizer.pt"),
    "an empty checkpoint-99999": lambda newest: (newest.parent / "checkpoint-99999").mkdir(),
    "no record": lambda newest: (newest / "COMMIT.json").unlink(),
    "half a record": lambda newest: cut(newest / "COMMIT.json"),
}


def damaged(name: str) -> Around:
    """The last checkpoint, with one of `DAMAGES`."""
    return lasting(lambda place: DAMAGES[name](place.newest))


def of_cache(hurt: Callable[[Path], None]) -> Around:
    """The cached answers to the training rows, hurt; they are the largest."""

    def hurt_largest(place: Place) -> None:
        folders = [path for path in place.cache.iterdir() if path.is_dir()]
        hurt(max(folders, key=lambda folder: sum(path.stat().st_size for path in folder.iterdir())))

    return lasting(hurt_largest)


def shard(folder: Path) -> Path:
    """The file of a cache that holds the numbers."""
    (path,) = folder.glob("*.arrow")
    return path


def replaced(name: str, change: Callable[[Path], None], of: str = "inputs") -> Around:
    """A file in one of the folders is another one, until somebody brings it back."""

    @contextmanager
    def around(place: Place) -> Iterator[None]:
        path = getattr(place, of) / name
        before = path.read_bytes()
        try:
            change(path)
            yield
        finally:
            path.write_bytes(before)

    return around


def turn_round(rows: Path) -> None:
    """The same lines from the last to the first."""
    rows.write_text("".join(reversed(rows.read_text("utf-8").splitlines(keepends=True))), "utf-8")


def lose_half(rows: Path) -> None:
    """Every second pair of lines."""
    lines = rows.read_text("utf-8").splitlines(keepends=True)
    rows.write_text("".join(line for i, line in enumerate(lines) if i % 4 < 2), "utf-8")


def other_label(rows: Path) -> None:
    """A label in line 4 that nobody knows."""
    lines = rows.read_text("utf-8").splitlines(keepends=True)
    lines[3] = json.dumps({"text": "a film", "label": "excellent"}) + "\n"
    rows.write_text("".join(lines), "utf-8")


def not_utf8(rows: Path) -> None:
    """A text in Latin 1."""
    rows.write_bytes(rows.read_bytes().replace(b"film", "fílm".encode("latin-1"), 1))


def cut_last_line(rows: Path) -> None:
    """The last line lacks its end, as of a download that broke off."""
    rows.write_bytes(rows.read_bytes()[:-12])


def small_disk(size: str = "64m", later: str = "size=64m") -> Around:
    """The run is on a small disk; afterwards somebody makes room, or makes it writable again."""

    @contextmanager
    def around(place: Place) -> Iterator[None]:
        place.mount(place.disk, size)
        try:
            yield
        finally:
            place.remount(later)
            place.filler.unlink(missing_ok=True)

    return around


def read_only(name: str) -> Around:
    """One of the folders can't be written, not even by root."""

    @contextmanager
    def around(place: Place) -> Iterator[None]:
        folder = getattr(place, name)
        place.mount(folder, "1m,ro")
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    return around


def in_the_way(name: str) -> Around:
    """A file stands where a folder should be."""

    @contextmanager
    def around(place: Place) -> Iterator[None]:
        path = getattr(place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        try:
            yield
        finally:
            path.unlink()

    return around


@contextmanager
def locked_elsewhere(place: Place) -> Iterator[None]:
    """Another machine is at work in the folder."""
    lock = _leave_lock(place, "elsewhere", 1)
    yield
    lock.unlink(missing_ok=True)


def stale_lock(place: Place) -> None:
    """The lock of a process whose number now belongs to another."""
    _leave_lock(place, socket.gethostname(), os.getpid())


def _leave_lock(place: Place, host: str, pid: int) -> Path:
    lock = place.run / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(
        json.dumps({"host": host, "pid": pid, "started": "1", "since": "today", "slurm_job": None}), "utf-8"
    )
    return lock


@contextmanager
def small_cache(place: Place) -> Iterator[None]:
    """The teacher's answers go to a small disk; afterwards somebody makes room."""
    place.mount(place.cache, "200k")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place.cache)], check=True)
