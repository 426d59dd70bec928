"""The command: what is done is not done again, what fails is named, and a real run on two processes."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from distilbert_kd import cli
from distilbert_kd.data.tasks import TASKS
from distilbert_kd.errors import DataError, StoppedError
from distilbert_kd.glue import benchmark
from distilbert_kd.glue.benchmark import run_benchmark
from distilbert_kd.glue.plan import plan_benchmark
from distilbert_kd.glue.record import GlueResults
from distilbert_kd.glue.submission_check import validate_submission
from distilbert_kd.run_records import RunRecords
from tests.glue.glue_runs import glue_run
from tests.launching import launch
from tests.tiny_runs import review_rows, save_tiny_base


def write_glue_folder(root: Path) -> Path:
    """WNLI in the benchmark's layout, with few rows that can be learnt, and all of its test rows."""
    folder = root / "WNLI"
    folder.mkdir(parents=True)
    for name, num_rows in (("train", 64), ("dev", 24), ("test", TASKS["wnli"].splits[2].num_rows)):
        rows = [
            [str(i), row["text"], "a film", *([] if name == "test" else [str(int(row["label"] == "positive"))])]
            for i, row in enumerate(review_rows(num_rows, seed=len(name)))
        ]
        header = ["index", "sentence1", "sentence2", *([] if name == "test" else ["label"])]
        (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), "utf-8")
    return root


def write_recipes(folder: Path, glue: Path, base: Path, tasks=("wnli", "rte"), **training) -> Path:
    (folder / "recipes").mkdir()
    training = {"learning_rate": 3.0e-3, "num_train_epochs": 1, "per_device_train_batch_size": 8, **training}
    for task in tasks:
        recipe = {
            "name": task,
            "data": {"task": task, "path": str(glue), "max_length": 32},
            "teacher": {
                "model": str(base),
                "finetune": dict(training),  # YAML would make an alias of the same one
                "allow_near_chance": True,
                "cache_dir": str(folder / "cache"),
            },
            "training": training,
        }
        (folder / "recipes" / f"{task}.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return folder / "recipes"


@pytest.fixture
def recipes(tmp_path):
    """Recipes for WNLI, whose files are there, and RTE, whose files are missing."""
    base = save_tiny_base(tmp_path / "base")
    return write_recipes(tmp_path, write_glue_folder(tmp_path / "glue"), base, use_cpu=True)


@pytest.fixture
def invoke(monkeypatch):
    """Runs the command in this process, and leaves logging as it was for other tests."""
    monkeypatch.setattr(cli, "_configure_output", lambda quiet: False)
    return lambda *arguments: CliRunner().invoke(cli.app, ["glue", *(str(argument) for argument in arguments)])


@pytest.fixture
def made_up_runs(monkeypatch):
    """In place of the pipeline: a run folder made of records, or the fault that is set for (task, seed)."""
    calls, faults = [], {}

    def run(recipe, show_bars):
        calls.append((recipe.data.task, recipe.seed))
        if calls[-1] in faults:
            raise faults[calls[-1]]
        place = glue_run(Path(recipe.output_dir), recipe.data.task, recipe.seed)
        (place / "student").mkdir()
        for name in ("config.json", "model.safetensors"):
            (place / "student" / name).write_text("{}")
        (place / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")

    monkeypatch.setattr(benchmark, "run", run)
    return calls, faults


def test_a_benchmark_of_a_real_run_and_a_failure(recipes, invoke, tmp_path, monkeypatch):
    """Prevents one missing file from costing the other tasks, or from looking like success."""
    monkeypatch.setattr(RunRecords, "write_report", lambda self: None)  # a run's own page takes most of the time
    out = tmp_path / "out"
    done = invoke(recipes, "--seeds", 1, "--out", out)
    assert done.exit_code == 2, done.output
    assert "FAILED: RTE, seed 42" in done.stdout and "expected a folder that holds RTE" in done.stdout
    assert "| teacher |" in done.stdout and "RTE FAILED" in done.stdout
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        *("glue.json", "glue.md", "glue.tex", "glue.png", "submission.zip")
    }
    results = GlueResults.model_validate(json.loads((out / "glue.json").read_text("utf-8")))
    run = json.loads((out / "wnli" / "seed-42" / "results.json").read_text("utf-8"))
    for arm in ("teacher", "student", "control"):
        assert results.tasks[0].scores[arm].mean == run["models"][arm]["splits"]["validation"]["score"]
    assert validate_submission(out / "submission.zip") == []
    predicted = (out / "wnli" / "seed-42" / "predictions" / "WNLI.tsv").read_bytes()
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.read("WNLI.tsv") == predicted
    assert results.submission["WNLI.tsv"].run == "wnli/seed-42" and results.submission["RTE.tsv"].run is None


def test_what_is_done_is_not_done_again(recipes, made_up_runs, tmp_path):
    """Prevents hours of training for a table that could be had from what is there."""
    calls, faults = made_up_runs
    plan = plan_benchmark(recipes, [], 2, tmp_path / "out")
    faults[("rte", 43)] = DataError("no rows")
    first = run_benchmark(plan, tmp_path / "out", is_submission_wanted=False)
    assert calls == [("rte", 42), ("wnli", 42), ("rte", 43), ("wnli", 43)]
    assert (first.exit_code, [each.seed for each in first.results.failures]) == (2, [43])
    assert {task.task: task.seeds for task in first.results.tasks} == {"rte": [42], "wnli": [42, 43]}
    calls.clear()
    faults.clear()
    again = run_benchmark(
        plan_benchmark(recipes, [], 2, tmp_path / "out"), tmp_path / "out", is_submission_wanted=False
    )
    assert calls == [("rte", 43)]
    assert again.exit_code == 0 and [len(task.seeds) for task in again.results.tasks] == [2, 2]
    assert not (tmp_path / "out" / "submission.zip").exists()


def test_a_fault_of_the_program_is_named_too(recipes, made_up_runs, tmp_path, caplog):
    """Prevents one task that runs out of memory from costing the night, and a fault without its traceback."""
    _, faults = made_up_runs
    faults[("rte", 42)] = RuntimeError("CUDA out of memory")
    done = run_benchmark(
        plan_benchmark(recipes, [], 1, tmp_path / "out"), tmp_path / "out", is_submission_wanted=False
    )
    assert done.exit_code == 1
    assert done.results.failures[0].error == "RuntimeError: CUDA out of memory"
    assert [task.task for task in done.results.tasks] == ["wnli"]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("stop", [StoppedError("told to stop"), KeyboardInterrupt()])
def test_a_stop_is_no_failure(recipes, made_up_runs, tmp_path, stop):
    """Prevents a signal from stopping one task, and the next from starting."""
    calls, faults = made_up_runs
    faults[("rte", 42)] = faults[("wnli", 42)] = stop
    with pytest.raises(type(stop)):
        run_benchmark(plan_benchmark(recipes, [], 1, tmp_path / "out"), tmp_path / "out")
    assert len(calls) == 1


def test_a_wrong_task_is_one_message(recipes, invoke, tmp_path):
    """A traceback would hide which name is wrong."""
    done = invoke(recipes, "--tasks", "rte,sts-b", "--out", tmp_path / "out")
    assert done.exit_code == 2 and done.stderr.startswith("error: --tasks: expected names out of cola")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_write_one_table(tmp_path):
    """Prevents a table for each process, test rows predicted by one of them only, and a launch that hangs."""
    base = save_tiny_base(tmp_path / "base")
    recipes = write_recipes(tmp_path, write_glue_folder(tmp_path / "glue"), base, tasks=("wnli",))
    out = tmp_path / "out"
    command = ("-m", "distilbert_kd", "glue", str(recipes), "--seeds", "2", "--out", str(out))
    launched = launch("cpu", *command)
    assert launched.stdout.count("# GLUE") == 1
    assert validate_submission(out / "submission.zip") == []
    assert (out / "glue.md").read_text("utf-8").rstrip() == launched.stdout.rstrip()
    again = launch("cpu", *command)
    assert again.stdout == launched.stdout
    assert "done before" in again.stderr
