"""The errors that a user of the package can meet, one small tree.

    DistillationError
    +-- RecipeError(ValueError)     exit code 2   the recipe or the command line
    +-- DataError(ValueError)       exit code 2   rows, columns, labels, files
    +-- TeacherError(ValueError)    exit code 2   teacher and student do not fit each other
    +-- DivergedError(ArithmeticError)  exit code 3   a loss, gradient or weight is not finite
    +-- StorageError(OSError)       exit code 4   a folder can't be made, written or is in use
    +-- HubError(ConnectionError)   exit code 5   the Hub refuses a push or can't be reached; the run is whole
    +-- StoppedError(InterruptedError)  exit code 75  a training was told to stop, saved its state and can go on

Each message has four parts: what was expected, what came, where, and what to do. The command line prints the message
without a traceback and ends with the exit code of the class.
"""

from collections.abc import Mapping
from typing import Any


__all__ = [
    "DataError",
    "DistillationError",
    "DivergedError",
    "HubError",
    "RecipeError",
    "StoppedError",
    "StorageError",
    "TeacherError",
    "is_of_all",
]


class DistillationError(Exception):
    """Base of every error that the package raises on purpose."""

    exit_code = 2
    is_of_all = False


class RecipeError(DistillationError, ValueError):
    """A recipe or an override can't be used as written."""


class DataError(DistillationError, ValueError):
    """Rows, columns, labels or files are not what the task needs."""


class TeacherError(DistillationError, ValueError):
    """Teacher and student do not fit each other, or the teacher can't teach."""


class DivergedError(DistillationError, ArithmeticError):
    """Training, or a teacher that is asked, left the finite numbers."""

    exit_code = 3


class StorageError(DistillationError, OSError):
    """A folder or file can't be made, read or written."""

    exit_code = 4


class HubError(DistillationError, ConnectionError):
    """The Hub refuses a push or can't be reached. Nothing is lost; `results` are those of a run that was done."""

    exit_code = 5
    results: Mapping[str, Any] | None = None


class StoppedError(DistillationError, InterruptedError):
    """A training was told to stop by a signal; what it did is saved, and the same command goes on from there."""

    exit_code = 75


def is_of_all(error: BaseException) -> bool:
    """Whether all processes of a launch end with this error, so that the main one speaks of it for all."""
    return getattr(error, "is_of_all", False)
