"""Distil a BERT-family classifier into half its layers, and say honestly what was lost.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from distilbert_kd.losses.schedule import Schedule
    from distilbert_kd.student.build import build_student
    from distilbert_kd.teacher import load_teacher
    from distilbert_kd.trainer import DistillationTrainer

__version__ = "0.1.0"

__all__ = ["DistillationTrainer", "Schedule", "__version__", "build_student", "load_teacher"]

_MODULES = {
    "DistillationTrainer": "distilbert_kd.trainer",
    "Schedule": "distilbert_kd.losses.schedule",
    "build_student": "distilbert_kd.student.build",
    "load_teacher": "distilbert_kd.teacher",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
