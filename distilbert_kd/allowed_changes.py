"""What a run that is gone on with may differ in, when it is allowed by name: `--allow-changed KEY`."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from distilbert_kd.environment import decisive_versions
from distilbert_kd.errors import RecipeError
from distilbert_kd.training_arguments import known_training_arguments


__all__ = ["described", "is_version", "key_of", "refuse_unknown", "versions_now"]

#: What a run depends on beside the keys and sections of its recipe; the rows are `data`, the models `teacher`.
_PARTS = ("tokenizer", "precision", "num_processes", "versions")

_TRAININGS = ("training", "teacher.finetune")


def refuse_unknown(allowed: Collection[str], recipe: Mapping[str, Any]) -> None:
    """Refuses a key that nothing is called by: one that is misspelt would allow nothing, and say nothing.

    Args:
        allowed: keys, sections and parts.
        recipe: flat, with the keys of now and those of the run that is gone on with.

    Raises:
        RecipeError: names the key, and the nearest one.
    """
    sections = [name.rsplit(".", number)[0] for name in recipe for number in range(name.count(".") + 1)]
    arguments = [f"{section}.{name}" for section in _TRAININGS for name in known_training_arguments()]
    known = dict.fromkeys([*_PARTS, *versions_now(), *sections, *arguments])
    for name in allowed:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            tops = dict.fromkeys(key.split(".")[0] for key in recipe)
            raise RecipeError(
                f"--allow-changed: expected a key of the recipe, such as training.num_train_epochs, a section, or one "
                f"of {', '.join(_PARTS)}; got {name!r}{hint}\nThe recipe has {', '.join(tops)}."
            )


def versions_now() -> dict[str, str | None]:
    """The part of a run's identity that the installed packages are: `versions.PACKAGE` to version."""
    return {f"versions.{name}": version for name, version in decisive_versions().items()}


def is_version(name: str) -> bool:
    """Whether a difference is one of `versions_now`."""
    return name.startswith("versions.")


def key_of(name: str) -> str:
    """By what a difference is allowed: packages are changed together, in one environment."""
    return "versions" if is_version(name) else name


def described(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A difference for a message; of a version, with both."""
    return f"{name} ({before.get(name)}, now {now.get(name)})" if is_version(name) else name
