"""Checkpoints that are whole or not there.

A Trainer writes a checkpoint file by file, so one that was cut off looks like any other. Here a file `COMMIT.json`,
which is written last, decides: it lists every file with its size and SHA-256, after all of them have reached the disk.
What has none, or differs from it, is set aside. Only the main process commits, once every process has written its
files.

What this does not cover: files that a process on another machine wrote to a folder of its own; all processes must see
one folder.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilbert_kd.errors import StorageError
from distilbert_kd.storage import file_record, room_for, sha256_of, storage_errors, sync, write_text


__all__ = [
    "COMMIT",
    "check_space",
    "commit",
    "damage_of",
    "newest_whole",
    "read_commit",
    "refuse_damaged",
    "rotate",
    "size_of_next",
]

logger = logging.getLogger(__name__)

COMMIT = "COMMIT.json"
_TORN = "torn"
_NUM_TORN = 3  # a run that is killed again and again must not fill the disk with them
_NAME = re.compile(r"checkpoint-(\d+)")


def commit(checkpoint: Path, **record: Any) -> None:
    """Declares a checkpoint whole. Whoever reads it before this sees none.

    Args:
        checkpoint: its folder, with all files written.
        **record: what else stands in the record, ready for JSON.

    Raises:
        StorageError: a file can't be brought to the disk.
    """
    with storage_errors(checkpoint):
        files = {}
        for path in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMMIT):
            sync(path)
            files[path.relative_to(checkpoint).as_posix()] = file_record(path)
        for folder in sorted((path for path in checkpoint.rglob("*") if path.is_dir()), reverse=True):
            sync(folder)
        sync(checkpoint)
        write_text(checkpoint / COMMIT, json.dumps({**record, "files": files}, indent=1) + "\n")
        sync(checkpoint)
        sync(checkpoint.parent)


def read_commit(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint's record says; None where there is none that can be read."""
    try:
        record = json.loads((checkpoint / COMMIT).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None
    except (OSError, ValueError):
        return None


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, of which every byte is read.

    Args:
        checkpoint: its folder.

    Returns:
        One phrase for a message; None for a whole one.
    """
    record = read_commit(checkpoint)
    if record is None:
        return f"it was not finished (no {COMMIT})" if not (checkpoint / COMMIT).exists() else f"a broken {COMMIT}"
    try:
        for name, expected in record["files"].items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes in place of {expected['bytes']}"
            if sha256_of(path) != expected["sha256"]:
                return f"{name} is not what was written"
    except (OSError, KeyError, TypeError, AttributeError) as error:
        return f"it can't be read ({error})"
    return None


def newest_whole(folder: Path) -> Path | None:
    """The last checkpoint that a training can go on from; damaged ones that are newer are set aside in `torn/`.

    A checkpoint that names another as the best one so far needs that one whole, too. One without an optimizer (made
    with `save_only_model`) is passed over.

    Args:
        folder: of the checkpoints. One process calls this, while no other reads or writes there.

    Returns:
        Its folder; None if there is none.

    Raises:
        StorageError: a damaged one can't be moved.
    """
    for step, checkpoint in sorted(_by_step(folder).items(), reverse=True):
        damage = damage_of(checkpoint)
        record = read_commit(checkpoint) or {}
        best = record.get("best_step")
        if damage is None and best not in (None, step):
            damage_of_best = damage_of(folder / f"checkpoint-{best}")
            damage = damage_of_best and f"the best one so far, checkpoint-{best}, is no good: {damage_of_best}"
        if damage is not None:
            _set_aside(checkpoint, damage)
        elif record.get("is_resumable", True):
            return checkpoint
    return None


def refuse_damaged(checkpoint: Path) -> None:
    """Refuses a committed checkpoint that is damaged; one without a record was written by another program.

    Args:
        checkpoint: its folder.

    Raises:
        StorageError: it differs from its record.
    """
    damage = damage_of(checkpoint) if (checkpoint / COMMIT).exists() else None
    if damage is not None:
        raise StorageError(
            f"Expected the checkpoint {checkpoint} as it was written, got: {damage}. Take the one before it."
        )


def rotate(folder: Path, limit: int | None, best: Path | None) -> None:
    """Removes old checkpoints, never the last committed one or the best.

    Args:
        folder: of the checkpoints.
        limit: how many stay; None or 0 for all.
        best: the best one so far, if that matters.
    """
    if not limit:
        return
    steps = _by_step(folder)
    committed = [step for step, path in steps.items() if (path / COMMIT).is_file()]
    protected = {path.resolve() for path in ([steps[max(committed)]] if committed else [])}
    protected |= {best.resolve()} if best is not None else set()
    num_surplus = len(steps) - max(limit, len(protected))
    for _, path in sorted(steps.items()):
        if num_surplus <= 0:
            return
        if path.resolve() not in protected:
            (path / COMMIT).unlink(missing_ok=True)  # from here on it is torn, however far the removal gets
            _remove(path)
            num_surplus -= 1


def check_space(folder: Path, num_bytes: int) -> None:
    """Refuses a disk without room for a checkpoint.

    Args:
        folder: of the checkpoints; need not be there yet.
        num_bytes: see `size_of_next`.

    Raises:
        StorageError: there is no room, as far as anybody knows.
    """
    has_room, words = room_for(folder, num_bytes)
    if not has_room:
        raise StorageError(
            f"Expected room for a checkpoint in {folder}, got: the disk is full: {words}. The checkpoints before it "
            "are untouched. Make room and start the same command again."
        )


def size_of_next(folder: Path, num_bytes: int) -> int:
    """How large the next checkpoint will be.

    Args:
        folder: of the checkpoints.
        num_bytes: the least that it takes.

    Returns:
        Bytes: as many as the last one takes, if that is more.
    """
    steps = _by_step(folder)
    return max(num_bytes, _size_of(steps[max(steps)]) if steps else 0)


def _size_of(checkpoint: Path) -> int:
    """Bytes of a committed checkpoint; 0 for others."""
    files: Mapping[str, Any] = (read_commit(checkpoint) or {}).get("files", {})
    return sum(record["bytes"] for record in files.values())


def _remove(path: Path) -> None:
    """Removes a folder; what can't be removed stays."""
    shutil.rmtree(path, ignore_errors=True)


def _by_step(folder: Path) -> dict[int, Path]:
    paths = [path for path in folder.glob("checkpoint-*") if path.is_dir() and not path.is_symlink()]
    return {int(match[1]): path for path in paths if (match := _NAME.fullmatch(path.name))}


def _set_aside(checkpoint: Path, damage: str) -> None:
    torn = checkpoint.parent / _TORN
    with storage_errors(torn):
        torn.mkdir(exist_ok=True)
        place = torn / checkpoint.name
        number = 1
        while place.exists():
            number += 1
            place = torn / f"{checkpoint.name}.{number}"
        checkpoint.rename(place)
        for old in sorted(torn.iterdir(), key=lambda path: path.stat().st_mtime)[:-_NUM_TORN]:
            _remove(old)
    logger.warning("The checkpoint %s is not whole: %s. It is set aside in %s.", checkpoint.name, damage, torn)
