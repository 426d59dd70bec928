"""Finished runs of GLUE tasks, made of records: nothing is trained."""

import json
import shutil
from pathlib import Path
from typing import Any

from distilbert_kd.data.tasks import TASKS
from distilbert_kd.run_folder import RunFolder
from tests.report.fake_runs import fake_run


def glue_run(root: Path, task: str, seed: int, scores: dict[str, float] | None = None, **changes: Any) -> Path:
    """A run folder `fake_run` makes, as one of a GLUE task.

    Args:
        root: the folder; it is made.
        task: its name.
        seed: of the run.
        scores: model to its score on every split, in place of those of the rows.
        **changes: of the recipe.

    Returns:
        The folder.
    """
    described = TASKS[task]
    fake_run(root, described.metric, described.label_names, seed=seed, name=task, data={"task": task}, **changes)
    folder = RunFolder(root)
    results = json.loads(folder.results.read_text("utf-8"))
    splits = [split.name for split in described.splits_of("evaluation")]
    results["task"] = task
    results["data"]["rows"] = {split.name: split.num_rows for split in described.splits if split.role != "test"}
    for arm, model in results["models"].items():
        record = model["splits"]["validation"]
        if scores is not None:
            record["score"] = scores[arm]
        model["splits"] = dict.fromkeys(splits, record)
    folder.results.write_text(json.dumps(results), "utf-8")
    environment = json.loads(folder.environment.read_text("utf-8"))
    environment["data"]["sha256"] = dict.fromkeys(splits, "0" * 64)
    folder.environment.write_text(json.dumps(environment), "utf-8")
    for split in splits:
        if split != "validation":
            shutil.copy(folder.scored / "validation.parquet", folder.scored / f"{split}.parquet")
    return root
