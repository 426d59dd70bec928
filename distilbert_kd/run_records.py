"""What a run writes down about itself, beside its models."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.environment import describe_environment
from distilbert_kd.metrics import SCORE_NAMES
from distilbert_kd.processes import failing_together
from distilbert_kd.results import SCHEMA_VERSION, render_markdown
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.scored_rows import write_scored_rows
from distilbert_kd.storage import storage_errors, write_text
from distilbert_kd.teacher import hub_commit
from distilbert_kd.weights import weights_sha256


__all__ = ["RunRecords", "fingerprints", "results_record"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecords:
    """The files of a run folder that are no model. Every process makes each call; the main one writes.

    Attributes:
        folder: Where to.
        is_main: Whether this process writes.
    """

    folder: RunFolder
    is_main: bool

    def write_recipe(self, yaml: str) -> None:
        """Says what the run is, as soon as something is trained."""
        self._write(self.folder.recipe, yaml)

    def write_history(self, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Losses and scores by step, of the models that were trained so far."""
        self._write(self.folder.history, _json(histories))

    def write_environment(
        self,
        source: str,
        rows_sha256: Mapping[str, str],
        teacher: PreTrainedModel,
        model: str,
        revision: str | None,
        seed: int,
    ) -> None:
        """Versions, seed, and the identity of data and teacher.

        Args:
            source: of the data.
            rows_sha256: of each split, see `fingerprints`.
            teacher: the model that the student learns from.
            model: where the teacher came from.
            revision: which of its revisions was asked for.
            seed: of the run.
        """
        with failing_together():
            if not self.is_main:
                return  # the hash of a model is no work for each process
            environment = describe_environment() | {
                "seed": seed,
                "data": {"source": source, "sha256": dict(rows_sha256)},
                "teacher": {
                    "model": model,
                    "revision": revision,
                    "commit": hub_commit(model, revision),
                    "weights_sha256": weights_sha256(teacher),
                },
            }
            write_text(self.folder.environment, _json(environment))

    def remove_checkpoints(self, kept: Sequence[str]) -> None:
        """Removes the trainers' own folders, except of the models whose checkpoints the recipe asked for.

        Args:
            kept: names of these models.
        """
        with failing_together(), storage_errors(self.folder.checkpoints):
            if not self.is_main:
                return
            shutil.rmtree(self.folder.root / ".partial", ignore_errors=True)  # of a model that was being written
            for left in self.folder.root.glob(".*.partial"):
                left.unlink(missing_ok=True)
            if not self.folder.checkpoints.is_dir():
                return
            for checkpoints in self.folder.checkpoints.iterdir():
                if checkpoints.name not in kept:
                    shutil.rmtree(checkpoints, ignore_errors=True)
            if not any(self.folder.checkpoints.iterdir()):
                self.folder.checkpoints.rmdir()

    def write_results(self, results: Mapping[str, Any]) -> None:
        """The table and the numbers; the numbers last, because their presence says that the run is whole."""
        self._write(self.folder.results_table, render_markdown(results))
        self._write(self.folder.results, _json(results))

    def write_scored_rows(self, data: TaskData, logits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """What each model said about each row that was scored.

        Args:
            data: of the run.
            logits: split to model to logits (B, C).
        """
        with failing_together():
            for split, said in logits.items() if self.is_main else ():
                write_scored_rows(self.folder.scored, split, data.evaluation[split], said, data.label_names)

    def write_report(self) -> None:
        """The report of the finished run; a report that can't be written doesn't undo the run."""
        if not self.is_main:
            return
        try:
            from distilbert_kd.report.writing import write_report  # scipy.stats takes a second to import

            write_report(self.folder.root)
        except Exception as error:
            logger.warning("No report: %s. The run is whole: distilbert-kd report %s", error, self.folder.root)

    def _write(self, path: Path, text: str) -> None:
        with failing_together():
            if self.is_main:
                write_text(path, text)


def fingerprints(data: TaskData) -> dict[str, str]:
    """SHA-256 of the rows of each split that is trained on or scored."""
    return {name: fingerprint(rows) for name, rows in {"train": data.train, **data.evaluation}.items()}


def results_record(
    name: str,
    seed: int,
    distillation: Mapping[str, Any],
    teacher_name: str,
    data: TaskData,
    augmentation: Mapping[str, int] | None,
    notes: Sequence[str],
    layers: Sequence[int],
    init_from: str | None,
    models: Mapping[str, Mapping[str, Any]],
    latency_setting: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The results as they stand in `results.json`; the keys are explained in `distilbert_kd.results`.

    Args:
        name: of the run.
        seed: of the run.
        distillation: temperature, alpha and terms.
        teacher_name: where the teacher came from.
        data: of the run.
        augmentation: how many training rows of student and control are of which kind; None where none were added.
        notes: what a reader must know, beside the notes on the data.
        layers: the layer that each student layer copied.
        init_from: the model that they are of; None for the teacher.
        models: a record for each, with its scores by split.
        latency_setting: device and threads.
        seconds: by stage.

    Returns:
        The record, ready for JSON.
    """
    names = {
        "teacher": teacher_name,
        "student": f"{len(layers)} layers, distilled",
        "control": f"{len(layers)} layers, trained on the labels alone",
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "task": data.name,
        "metric": data.metric,
        "score_name": SCORE_NAMES[data.metric],
        "data": {
            "source": data.source,
            "notes": [*data.notes, *notes],
            "rows": {split: len(rows) for split, rows in {"train": data.train, **data.evaluation}.items()},
            "drawn_from": dict(data.drawn_from),
            **({} if augmentation is None else {"augmentation": dict(augmentation)}),
        },
        "student": {"layers": list(layers), "init_from": init_from},
        "distillation": dict(distillation),
        "seed": seed,
        "models": {model: {"name": names[model], **record} for model, record in models.items()},
        "latency_setting": dict(latency_setting),
        "seconds": dict(seconds),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
