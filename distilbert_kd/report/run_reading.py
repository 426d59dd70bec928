"""A finished run as its report sees it: everything that is in the folder, and nothing from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distilbert_kd.errors import StorageError
from distilbert_kd.result_facts import splits_of
from distilbert_kd.results_schema import Results
from distilbert_kd.run_folder import RunFolder, read_record, read_record_text
from distilbert_kd.scored_rows import ScoredRows, read_scored_rows


__all__ = ["FinishedRun", "read_run"]


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Attributes:
        folder: Where it is.
        results: `results.json`.
        history: Model name to its log lines; empty when the file is gone.
        recipe: The text of `recipe.yaml`.
        environment: `environment.json`; empty when the file is gone.
    """

    folder: RunFolder
    results: dict[str, Any]
    history: Mapping[str, list[dict[str, Any]]]
    recipe: str
    environment: Mapping[str, Any]

    @cached_property
    def scored(self) -> dict[str, ScoredRows]:
        """Split name to what the models said about each row, the headline's first; empty for older runs.

        Read when it is first asked for: a comparison of many runs never is.
        """
        found = read_scored_rows(self.folder.scored)
        return {split: found[split] for split in splits_of(self.results) if split in found}

    @property
    def epoch_split(self) -> str | None:
        """The split whose scores chose among the teacher's epochs, so that the teacher's own there flatters it."""
        epochs = [line for line in self.history.get("teacher", ()) if "eval_score" in line]
        read = yaml.safe_load(self.recipe) if self.recipe else None
        settings = ((read or {}).get("teacher") or {}).get("finetune") or {}
        if len(epochs) < 2 or settings.get("load_best_model_at_end") is False:
            return None
        return next(iter(self.results["models"]["teacher"]["splits"]))


def read_run(path: Path) -> FinishedRun:
    """Reads a run folder. It may have been moved, or brought here without its models.

    Args:
        path: the folder.

    Returns:
        The run.

    Raises:
        StorageError: there is no finished run, or a record in it can't be read.
    """
    folder = RunFolder(Path(path))
    if not folder.results.is_file():
        folder.refuse_unfinished()
        got = "no results.json in it" if folder.root.is_dir() else "no such folder"
        raise StorageError(f"Expected the folder of a finished run at {path}, got {got}. Give a run's output_dir.")
    results = read_record(folder.results)
    if isinstance(results, dict) and results.get("kind") == "pretraining":
        raise StorageError(
            f"Expected the run of a task in {path}, got one of pretraining: its student has no task to be scored at. "
            "Train one that starts from it: student.init_from in a task's recipe."
        )
    try:
        Results.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(
            f"Expected the results of a run in {folder.results}, got a wrong {where or 'record'}: {first['msg']}. "
            "Give the output_dir of a run, or take another copy of its folder."
        ) from error
    return FinishedRun(
        folder=folder,
        results=results,
        history=read_record(folder.history) if folder.history.is_file() else {},
        recipe=read_record_text(folder.recipe) if folder.recipe.is_file() else "",
        environment=read_record(folder.environment) if folder.environment.is_file() else {},
    )
