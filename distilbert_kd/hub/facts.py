"""What a run folder says about its student, as far as it may be published: without the places of this machine."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Self

from distilbert_kd.errors import StorageError
from distilbert_kd.plain_yaml import parse_yaml
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.storage import reason_of


__all__ = ["RunFacts", "is_hub_id"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_PATH_IN_TEXT = re.compile(r"(?<![\w:./~\\-])(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\:]+[\\/])*(?=[^\s/\\])")


@dataclass(frozen=True)
class RunFacts:
    """The records of a run. Before it has run there is only the recipe.

    Attributes:
        recipe: The resolved recipe, with the names of files in place of absolute paths, and without `push`.
        results: As in `distilbert_kd.results`; empty before the run.
        environment: Versions, hardware, identity of data and teacher; empty before the run.
        config: The student's `config.json`.
        num_steps: Optimiser steps of the student, if the history tells.
        teacher_id: The teacher's id on the Hub, if it came from there.
        base_id: The id of the model that the student was cut from, if it came from there.
        plots: Pictures of the run, by their place in the run folder.
        push: What the recipe asked of `push`.
    """

    recipe: Mapping[str, Any]
    results: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int | None = None
    teacher_id: str | None = None
    base_id: str | None = None
    plots: tuple[str, ...] = ()
    push: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def planned(cls, recipe: Mapping[str, Any]) -> Self:
        """What is known before the run.

        Args:
            recipe: with every default.

        Returns:
            The record.
        """
        teacher, origin = recipe["teacher"]["model"], (recipe.get("student") or {}).get("init_from")
        teacher_id = teacher if is_hub_id(teacher) else None
        base_id = teacher_id if origin is None else origin if is_hub_id(origin) else None
        clean = {key: value for key, value in _without_places(recipe).items() if key != "push"}
        return cls(clean, teacher_id=teacher_id, base_id=base_id, push=recipe.get("push") or {})

    @classmethod
    def read(cls, folder: RunFolder) -> Self:
        """What is known after the run.

        Args:
            folder: of a finished run.

        Returns:
            The record.

        Raises:
            StorageError: a record can't be read.
        """
        recipe, problems = parse_yaml(_text(folder.recipe))
        if not isinstance(recipe, Mapping) or "teacher" not in recipe:
            raise _unreadable(folder.recipe, "; ".join(problems) or "no recipe")
        planned = cls.planned(recipe)
        environment = _json(folder.environment)
        # A folder may be named like a repository; what the Hub sent has a commit.
        is_of_hub = bool(environment["teacher"].get("commit"))
        has_own_origin = (recipe.get("student") or {}).get("init_from") is not None
        history = _json(folder.history).get("student", []) if folder.history.is_file() else []
        places = {text: _last_part(text) for text in _texts(recipe) if _is_absolute(text)}
        pictures = (path.relative_to(folder.root).as_posix() for path in folder.root.glob("plots/*.png"))
        return cls(
            recipe=planned.recipe,
            results=_without_places(_json(folder.results), places),
            environment=_without_places(environment, places),
            config=_json(folder.student / "config.json"),
            num_steps=max((line["step"] for line in history if "step" in line), default=None),
            teacher_id=planned.teacher_id if is_of_hub else None,
            base_id=planned.base_id if is_of_hub or has_own_origin else None,
            plots=tuple(sorted(pictures)),
            push=planned.push,
        )


def is_hub_id(name: object) -> bool:
    """Whether a name can only be a Hub id: `owner/name`, and no folder here."""
    return isinstance(name, str) and bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def _without_places(value: Any, places: Mapping[str, str] | None = None) -> Any:
    """The value with the last part of each absolute path in place of the path."""
    if isinstance(value, Mapping):
        return {key: _without_places(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item, places) for item in value]
    if not isinstance(value, str):
        return value
    if _is_absolute(value) and not re.search(r"[,;:]\s", value):
        return _last_part(value)
    for path in sorted(places or {}, key=len, reverse=True):
        value = value.replace(path, (places or {})[path])
    return _PATH_IN_TEXT.sub("", value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _is_absolute(text: str) -> bool:
    return os.path.isabs(text) or text.startswith("~") or PureWindowsPath(text).is_absolute()


def _last_part(text: str) -> str:
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] or "folder"


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise _unreadable(path, str(error)) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, reason_of(error)) from error


def _unreadable(path: Path, got: str) -> StorageError:
    return StorageError(f"Expected the record of a run in {path}, got: {got}. Take another copy of the run folder.")
