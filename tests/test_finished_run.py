"""A run folder is all that evaluation and prediction need, wherever it lies."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distilbert_kd import pipeline
from distilbert_kd.errors import DataError, StorageError, TeacherError
from distilbert_kd.finished_run import evaluate_run, predict_with
from distilbert_kd.recipe import load_recipe
from distilbert_kd.scored_rows import read_scored_rows
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run with a teacher that was trained in it."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = load_recipe(write_recipe(folder, save_tiny_base(folder / "base")))
    pipeline.run(recipe)
    return Path(recipe.output_dir)


@pytest.fixture(scope="module")
def external(finished, tmp_path_factory) -> Path:
    """The folder of a run with a teacher from elsewhere, and without a control."""
    folder = tmp_path_factory.mktemp("external")
    teacher = shutil.copytree(finished / "teacher", folder / "teacher")
    changes = [f"output_dir={folder / 'run'}", f"teacher.model={teacher}", "teacher.finetune=null", "control=false"]
    recipe = load_recipe(finished.parent / "recipe.yaml", changes)
    pipeline.run(recipe)
    return folder / "run"


def scores_of(results: dict) -> dict[str, float]:
    """Every number of every split, by its path."""
    numbers = {}

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}")
        elif value is not None:
            numbers[path] = value

    for name, model in results["models"].items():
        walk(model["splits"], name)
    return numbers


def saved(run: Path) -> dict:
    return json.loads((run / "results.json").read_text("utf-8"))


class TestEvaluate:
    def test_gives_the_scores_of_the_run_after_a_move(self, finished, tmp_path):
        # Scores that depend on where the folder lies, or on what was in memory, are nobody's.
        moved = shutil.copytree(finished, tmp_path / "moved")
        hidden = finished.rename(finished.with_name("away"))
        try:
            results = evaluate_run(moved)
        finally:
            hidden.rename(finished)
        assert scores_of(results) == pytest.approx(scores_of(saved(moved)), abs=1e-6)
        assert len(scores_of(results)) > 12
        assert results["models"]["student"]["latency_ms"] == saved(moved)["models"]["student"]["latency_ms"]

    def test_changes_nothing_in_the_folder(self, finished):
        # A record of a run that each evaluation rewrites is no record.
        before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
        evaluate_run(finished)
        assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before

    def test_gives_an_older_run_its_scored_rows(self, finished, tmp_path):
        # Without them the report of a run of an earlier version has no interval; others would be no record of the run.
        older = shutil.copytree(finished, tmp_path / "older", ignore=shutil.ignore_patterns("scored"))
        evaluate_run(older)
        rows, expected = (read_scored_rows(run / "scored")["validation"] for run in (older, finished))
        assert rows.texts == expected.texts and rows.label_names == ("negative", "positive")
        for name in ("teacher", "student", "control"):
            torch.testing.assert_close(torch.tensor(rows.logits[name]), torch.tensor(expected.logits[name]))

    def test_gives_a_split_that_is_missing_its_rows(self, finished, tmp_path):
        # The report and the page advise `evaluate` where rows are missing, and a folder may be there without them.
        run = shutil.copytree(finished, tmp_path / "run")
        for path in (run / "scored").iterdir():
            path.unlink()
        evaluate_run(run)
        assert read_scored_rows(run / "scored").keys() == read_scored_rows(finished / "scored").keys()

    def test_a_teacher_from_elsewhere(self, external):
        results = evaluate_run(external)
        assert list(results["models"]) == ["teacher", "student"]
        assert scores_of(results) == pytest.approx(scores_of(saved(external)), abs=1e-6)

    def test_another_teacher_than_the_runs(self, external, tmp_path):
        # Fidelity to another teacher would be taken for the run's.
        teacher = AutoModelForSequenceClassification.from_pretrained(external.parent / "teacher")
        with torch.no_grad():
            teacher.classifier.bias += 1.0
        changed = shutil.copytree(external.parent / "teacher", tmp_path / "teacher")
        teacher.save_pretrained(changed)
        with pytest.raises(TeacherError, match="got other weights from"):
            evaluate_run(external, [f"teacher.model={changed}"])

    def test_data_at_another_place(self, finished, tmp_path):
        # On another machine the files lie elsewhere, and the recipe in the folder should not be edited.
        moved = shutil.copy(finished.parent / "validation.jsonl", tmp_path / "validation.jsonl")
        results = evaluate_run(finished, [f"data.validation={moved}"])
        assert scores_of(results) == pytest.approx(scores_of(saved(finished)), abs=1e-6)

    def test_other_rows_than_the_runs(self, finished, tmp_path):
        # Scores on other rows, printed beside the run's sizes and times, would be compared with the run's.
        other = write_jsonl(tmp_path / "validation.jsonl", review_rows(24, seed=5))
        with pytest.raises(DataError, match=r"different: validation\).*data.validation=FILE"):
            evaluate_run(finished, [f"data.validation={other}"])

    @pytest.mark.parametrize("missing", ["results.json", "student/model.safetensors", "environment.json"])
    def test_a_run_that_did_not_finish(self, finished, tmp_path, missing):
        run = shutil.copytree(finished, tmp_path / "run")
        (run / missing).unlink()
        with pytest.raises(StorageError, match=f"without {missing}"):
            evaluate_run(run)

    def test_a_teacher_that_was_removed(self, finished, tmp_path):
        # Users remove the largest model to save space; the base model is no stand-in for it.
        run = shutil.copytree(finished, tmp_path / "run")
        shutil.rmtree(run / "teacher")
        with pytest.raises(StorageError, match="run/teacher, got nothing"):
            evaluate_run(run)

    def test_a_record_that_is_damaged(self, finished, tmp_path):
        run = shutil.copytree(finished, tmp_path / "run")
        (run / "results.json").write_text("{", encoding="utf-8")
        with pytest.raises(StorageError, match=r"results\.json"):
            evaluate_run(run)


class TestPredict:
    def test_with_the_student_of_a_run(self, finished, tmp_path):
        # Column and length are the recipe's, so that nobody must remember them.
        source = write_jsonl(tmp_path / "new.jsonl", [{"text": "a good film"}, {"text": "an awful, boring plot"}])
        written, num_rows = predict_with(str(finished), source, output=tmp_path / "out.jsonl")
        assert num_rows == 2
        answers = [json.loads(line)["prediction"] for line in written.read_text("utf-8").splitlines()]
        assert answers == ["positive", "negative"]

    def test_a_run_that_did_not_finish(self, finished, tmp_path):
        # A student of a run that is going on may be half written.
        run = shutil.copytree(finished, tmp_path / "run")
        (run / "results.json").unlink()
        with pytest.raises(StorageError, match=r"without results\.json"):
            predict_with(str(run), finished.parent / "validation.jsonl", output=tmp_path / "out.csv")

    def test_a_glue_run_reads_pairs_from_a_file_of_ones_own(self, finished, tmp_path):
        # The model of a task of pairs was given the first text alone, without a word.
        run = shutil.copytree(finished, tmp_path / "run")
        recipe = "name: rte\ndata: {task: rte, max_length: 32}\nteacher: {model: base}\n"
        (run / "recipe.yaml").write_text(recipe, encoding="utf-8")
        one = write_jsonl(tmp_path / "one.jsonl", [{"text": "good"}])
        with pytest.raises(DataError, match="missing: text_pair"):
            predict_with(str(run), one, output=tmp_path / "out.csv")

    def test_something_that_is_no_model(self, tmp_path):
        with pytest.raises(TeacherError, match="nothing-here"):
            predict_with(str(tmp_path / "nothing-here"), write_jsonl(tmp_path / "a.jsonl", review_rows(1)))
