"""A data set that is kept on disk whole or not at all.

It is written to a folder beside its place, with the size and SHA-256 of each file, and renamed. Whoever comes second
throws its own away. A damaged one is set aside, to be made anew.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path

import datasets

from distilbert_kd.storage import building_prefix, file_record, remove_abandoned, sync


__all__ = ["read_dataset", "write_dataset"]

logger = logging.getLogger(__name__)

_FORMAT = 1
_MANIFEST = "manifest.json"


def read_dataset(place: Path, what: str, num_rows: int | None = None) -> datasets.Dataset | None:
    """The data set at a place.

    Args:
        place: its folder, below the cache's.
        what: it holds, for the warning.
        num_rows: that it must have, where that is known.

    Returns:
        The data set, memory-mapped; None if there is none, and none that is whole: a damaged one is set aside.
    """
    if not place.is_dir():
        return None
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        is_whole = num_rows in (None, manifest["rows"]) and all(
            file_record(place / name) == record for name, record in manifest["files"].items()
        )
        if is_whole:
            return datasets.load_from_disk(str(place))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    logger.warning("%s: the cache %s is damaged; it is set aside and built anew", what, place)
    _set_aside(place)
    return None


def _set_aside(place: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=place.parent))
    try:
        place.rename(aside / place.name)
    except FileNotFoundError:
        pass  # another process was first
    shutil.rmtree(aside, ignore_errors=True)


def write_dataset(place: Path, rows: datasets.Dataset) -> None:
    """Keeps a data set.

    Args:
        place: its folder, below the cache's, which is made.
        rows: the data set.

    Raises:
        OSError: it can't be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place.parent)
    with tempfile.TemporaryDirectory(prefix=building_prefix(), dir=place.parent) as building:
        part = Path(building) / "part"
        rows.save_to_disk(str(part), num_shards=None if len(rows) else 1)  # what has no shard can't be read
        files = {path.name: file_record(path) for path in sorted(part.iterdir())}
        manifest = {"format": _FORMAT, "rows": len(rows), "files": files}
        (part / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for path in part.iterdir():
            sync(path)
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():  # otherwise another process was first, with the same rows
                raise
    sync(place.parent)
