"""The run folder: what a run leaves, each name once. Everything after training reads only this folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbert_kd.errors import StorageError
from distilbert_kd.storage import check_writable, reason_of


__all__ = ["PLOTS", "RunFolder", "read_record", "read_record_text"]

PLOTS: dict[str, str] = {
    "scores": "Scores with 95 % intervals over the rows",
    "speed": "Speed against score",
    "layers": "Which layer each student layer started as",
    "loss_terms": "The student's loss, term by term",
    "score_over_steps": "Score during training, on the split that is watched",
    "student_against_teacher": "The student's answers against the teacher's",
    "calibration": "Reliability: how often a model is right when it is so sure",
    "entropy_over_temperature": "What the soft targets hold: the teacher's entropy over the temperature",
}
"""The figures of a report: name to what it shows. Not every run has the numbers for each."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder. Making the record touches no file; `create` and `open` do."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Versions, seeds, and fingerprints of data and teacher."""
        return self.root / "environment.json"

    @property
    def history(self) -> Path:
        """Losses and scores by step, for each model that was trained."""
        return self.root / "history.json"

    @property
    def results(self) -> Path:
        """Every number of the evaluation. Written last, so its presence marks a finished run."""
        return self.root / "results.json"

    @property
    def progress(self) -> Path:
        """What a run that is not finished has done so far; gone when it is."""
        return self.root / "progress.json"

    @property
    def lock(self) -> Path:
        """Says which process is writing to the folder."""
        return self.root / ".lock"

    @property
    def results_table(self) -> Path:
        """The table of the results in Markdown."""
        return self.root / "results.md"

    @property
    def scored(self) -> Path:
        """What each model said about each row that was scored: a parquet file for each split."""
        return self.root / "scored"

    @property
    def report(self) -> Path:
        """The report as a page, in one file."""
        return self.root / "report.html"

    @property
    def report_text(self) -> Path:
        """The report in Markdown, with the figures beside it."""
        return self.root / "report.md"

    @property
    def report_numbers(self) -> Path:
        """What the report worked out of the scored rows: intervals, tests, results by class."""
        return self.root / "report.json"

    @property
    def plots(self) -> Path:
        """The report's figures, for a model card: PLOT.png for each name in `PLOTS` for which there were numbers."""
        return self.root / "plots"

    def plot(self, name: str) -> Path:
        """The file of one figure; `name` is a key of `PLOTS`."""
        return self.plots / f"{name}.png"

    @property
    def teacher(self) -> Path:
        """The teacher as a model folder, if it was trained in this run."""
        return self.root / "teacher"

    @property
    def student(self) -> Path:
        """The student as a model folder that `from_pretrained` loads."""
        return self.root / "student"

    @property
    def control(self) -> Path:
        """The student trained on hard labels alone, as a model folder."""
        return self.root / "control"

    @property
    def checkpoints(self) -> Path:
        """The trainers' own folders, one for each model that is trained."""
        return self.root / "checkpoints"

    @property
    def predictions(self) -> Path:
        """Files that `predict` writes."""
        return self.root / "predictions"

    @property
    def published(self) -> Path:
        """What a push sends, as it is sent; made anew by each."""
        return self.root / "hub"

    @property
    def space(self) -> Path:
        """The page to try the student, as it is sent to a Space; made anew by each push that asks for it."""
        return self.root / "space"

    def make(self) -> "RunFolder":
        """Make the folder and check that it can be written.

        Returns:
            The record itself.

        Raises:
            StorageError: the folder can't be made or written.
        """
        try:
            check_writable(self.root)
        except (OSError, ValueError) as error:
            raise self._not_writable(error) from error
        return self

    def create(self) -> "RunFolder":
        """Make the folder as `make` does; it must be new or empty. In a distributed run only the main process does so.

        Returns:
            The record itself.

        Raises:
            StorageError: the folder can't be made or written, or something is in it already.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            content = sorted(entry.name for entry in self.root.iterdir() if not self._is_of_a_start(entry.name))
        except (OSError, ValueError) as error:
            raise self._not_writable(error) from error
        if content:
            names = ", ".join(content[:3]) + (", ..." if len(content) > 3 else "")
            raise StorageError(
                f"Expected a new or empty folder for the run, got {self.root} with {names} in it. "
                "Choose another with output_dir=..., or move this one away; nothing is overwritten."
            )
        return self.make()

    def _is_of_a_start(self, name: str) -> bool:
        """What a start leaves that is killed before it has begun: its lock, and a file that has no name yet."""
        return name.startswith(self.lock.name) or (name.startswith(".") and name.endswith(".partial"))

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Take a finished run folder, for `evaluate`, `predict` and what else comes after training.

        Args:
            path: the folder.

        Returns:
            The record of it.

        Raises:
            StorageError: there is no such folder, or the run in it did not finish; says what is missing.
        """
        folder = cls(Path(path))
        try:
            is_folder = folder.root.is_dir()
            missing = folder._missing() if is_folder else []
        except (OSError, ValueError) as error:
            raise StorageError(
                f"Expected a run folder that can be read at {path}, got: {reason_of(error)}. Check the path."
            ) from error
        if not is_folder:
            got = "a file" if folder.root.is_file() else "nothing"
            raise StorageError(f"Expected a run folder at {path}, got {got}. Give the output_dir of a finished run.")
        if missing:
            folder.refuse_unfinished()
            raise StorageError(
                f"Expected a finished run in {path}, got a folder without {', '.join(missing)}. "
                "Give the output_dir of a finished run, or run the recipe again into a new folder."
            )
        return folder

    def is_finished(self) -> bool:
        """Whether a run is in it that is whole."""
        return not self.progress.is_file() and not self._missing()

    def refuse_unfinished(self) -> None:
        """Says of a run that is not finished how to go on with it; a folder without such a run is let through.

        Raises:
            StorageError: the run in the folder is going on, or was cut off.
        """
        if self.progress.is_file() and not self.results.is_file():
            raise StorageError(
                f"Expected a finished run in {self.root}, got one that is still going on or was cut off. Wait for it, "
                f"or go on with it by distilbert-kd run {self.recipe}"
            )

    def _missing(self) -> list[str]:
        needed = [self.recipe, self.environment, self.results, self.student / "config.json"]
        missing = [str(path.relative_to(self.root)) for path in needed if not path.is_file()]
        weights = ("model.safetensors", "model.safetensors.index.json")
        if not any((self.student / name).is_file() for name in weights):
            missing.append(str(Path(self.student.name) / weights[0]))
        return missing

    def _not_writable(self, error: Exception) -> StorageError:
        return StorageError(
            f"Expected to make and write the run folder {self.root}, got: {reason_of(error)}. "
            "Choose a folder that can be written with output_dir=..., or free it."
        )


def read_record(path: Path) -> Any:
    """A JSON file of a run folder.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        StorageError: it can't be read, or is no JSON.
    """
    try:
        return json.loads(read_record_text(path))
    except ValueError as error:
        raise _unreadable(path, error) from error


def read_record_text(path: Path) -> str:
    """The text of a file of a run folder.

    Args:
        path: the file.

    Returns:
        All of it.

    Raises:
        StorageError: it can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"Expected the record of a run in {path}, got: {reason_of(error)}. Take another copy of the run folder."
    )
