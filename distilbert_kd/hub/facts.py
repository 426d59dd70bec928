"""What a run folder says about its student, as far as it may be published: without the places of this machine."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Self

from distilbert_kd.errors import StorageError
from distilbert_kd.hub.target import is_repo_id
from distilbert_kd.plain_yaml import parse_yaml
from distilbert_kd.run_folder import PLOTS, RunFolder, read_record, read_record_text


__all__ = ["RunFacts", "is_hub_id"]

_PLACES = {name: place for place, name in enumerate(PLOTS)}
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
        report: Intervals and results by class that the report worked out of the scored rows, if it did.
        teacher_id: The teacher's id on the Hub, if it has one.
        base_id: The id of the model that the student was cut from, if it has one.
        plots: Pictures of the run, by their place in the run folder.
        push: What the recipe asked of `push`.
    """

    recipe: Mapping[str, Any]
    results: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
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
        teacher_id, base_id = _ids(recipe, is_hub_id(recipe["teacher"]["model"]))
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
        recipe, problems = parse_yaml(read_record_text(folder.recipe))
        if not isinstance(recipe, Mapping) or "teacher" not in recipe:
            got = "; ".join(problems) or "no recipe"
            raise StorageError(
                f"Expected the recipe of a run in {folder.recipe}, got: {got}. Take another copy of it."
            )
        if "data" not in recipe:
            raise StorageError(
                f"Expected the run of a task in {folder.root}, got one of pretraining: its student has no scores to "
                "be shown with. Distil a task from it (student.init_from), and push that."
            )
        planned = cls.planned(recipe)
        environment, report = read_record(folder.environment), folder.report_numbers
        is_from_hub = (environment.get("teacher") or {}).get("commit") is not None  # the run knew; names may mislead
        teacher_id, base_id = _ids(recipe, is_from_hub and is_repo_id(recipe["teacher"]["model"]))
        history = read_record(folder.history).get("student", []) if folder.history.is_file() else []
        places = {text: _last_part(text) for text in _texts(recipe) if _is_absolute(text)}
        pictures = (path.relative_to(folder.root).as_posix() for path in folder.plots.glob("*.png"))
        return cls(
            recipe=planned.recipe,
            results=_without_places(read_record(folder.results), places),
            environment=_without_places(environment, places),
            config=read_record(folder.student / "config.json"),
            num_steps=max((line["step"] for line in history if "step" in line), default=None),
            report=read_record(report) if report.is_file() else {},
            teacher_id=teacher_id,
            base_id=base_id,
            plots=tuple(sorted(pictures, key=lambda place: (_PLACES.get(Path(place).stem, len(_PLACES)), place))),
            push=planned.push,
        )

    def known_to(self, is_known: Callable[[str], bool]) -> Self:
        """The facts without ids that the Hub does not know: folders may be named like repositories.

        Args:
            is_known: asks the Hub.

        Returns:
            The record.
        """
        ids = {name for name in (self.teacher_id, self.base_id) if name}
        known = {name for name in ids if is_known(name)}
        return replace(
            self,
            teacher_id=self.teacher_id if self.teacher_id in known else None,
            base_id=self.base_id if self.base_id in known else None,
        )


def is_hub_id(name: object) -> bool:
    """Whether a name can be a Hub id: `owner/name`, and no folder here."""
    return isinstance(name, str) and is_repo_id(name) and not Path(name).exists()


def _ids(recipe: Mapping[str, Any], is_teacher_id: bool) -> tuple[str | None, str | None]:
    """The ids of the teacher and of the model that the student is cut from, each only if it has one."""
    teacher, origin = recipe["teacher"]["model"], (recipe.get("student") or {}).get("init_from")
    teacher_id = teacher if is_teacher_id else None
    if origin in (None, teacher):
        return teacher_id, teacher_id
    return teacher_id, origin if is_hub_id(origin) else None


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
