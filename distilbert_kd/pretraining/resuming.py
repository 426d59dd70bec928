"""Going on with a run that was cut off."""

import json
import logging
from pathlib import Path

from distilbert_kd.errors import StorageError
from distilbert_kd.plain_yaml import parse_yaml
from distilbert_kd.run_folder import RunFolder


__all__ = ["check_same_text", "enter_run", "newest_checkpoint"]

logger = logging.getLogger(__name__)

_WHOLE = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


def enter_run(folder: RunFolder, recipe_yaml: str) -> None:
    """Makes the run folder, or takes one that the same recipe has begun.

    Args:
        folder: of the run.
        recipe_yaml: the resolved recipe; only its `output_dir` may differ.

    Raises:
        StorageError: the folder can't be made, or holds another run, or one that is done.
    """
    if not folder.recipe.is_file():
        folder.create()
        return
    differences = _differences(folder.recipe.read_text(encoding="utf-8"), recipe_yaml)
    if differences:
        raise StorageError(
            f"Expected a run of this recipe in {folder.root}, to go on with it, got one with other values of "
            f"{', '.join(differences)}. Set them as in {folder.recipe}, or choose another folder with output_dir=..."
        )
    if folder.results.is_file():
        raise StorageError(
            f"Expected a run to go on with in {folder.root}, got one that is done. Choose another folder with "
            "output_dir=..., or move this one away; nothing is overwritten."
        )


def newest_checkpoint(folder: Path, num_processes: int) -> Path | None:
    """The last checkpoint that is whole: one that was being written when the run was cut off is passed over.

    Args:
        folder: of the checkpoints.
        num_processes: of this run.

    Returns:
        Its folder; None if none was begun.

    Raises:
        StorageError: there are some, and they are of a run on another number of processes.
    """
    steps = {int(path.name.split("-")[1]): path for path in folder.glob("checkpoint-[0-9]*") if path.is_dir()}
    for _, path in sorted(steps.items(), reverse=True):
        num_states = len(list(path.glob("rng_state*.pth")))
        if not all((path / name).is_file() for name in _WHOLE) or num_states < 1:
            logger.warning("The checkpoint %s is not whole; the one before it is taken.", path)
        elif num_states != num_processes:
            raise StorageError(
                f"Expected checkpoints of {num_processes} processes in {folder}, got one of {num_states} in "
                f"{path.name}. Start as many as before, or choose another folder with output_dir=..."
            )
        else:
            return path
    return None


def check_same_text(folder: RunFolder, key: str) -> None:
    """Refuses to go on with other text.

    Args:
        folder: of the run.
        key: of the text, as the run's environment holds it.

    Raises:
        StorageError: the run was begun with another.
    """
    if not folder.environment.is_file():
        return
    before = json.loads(folder.environment.read_text(encoding="utf-8"))["text"]["key"]
    if before != key:
        raise StorageError(
            f"Expected the text that the run in {folder.root} was begun with, got files, or a tokenizer, that have "
            "changed since. Bring them back, or choose another folder with output_dir=..."
        )


def _differences(old_yaml: str, new_yaml: str) -> list[str]:
    (old, _), (new, _) = parse_yaml(old_yaml), parse_yaml(new_yaml)
    flat = [dict(_flat(values)) if isinstance(values, dict) else {} for values in (old, new)]
    return sorted(
        name
        for name in flat[0].keys() | flat[1].keys()
        if flat[0].get(name) != flat[1].get(name) and name != "output_dir"
    )


def _flat(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs
