"""What a user of the command line sees: exit codes, one message and no traceback, lines in a pipe."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distilbert_kd import cli
from distilbert_kd.pretraining.recipe import load_pretraining_recipe
from distilbert_kd.recipe import load_recipe
from distilbert_kd.trainer import DistillationTrainer
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "distilbert_kd"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def recipe_file(base, tmp_path_factory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), base)


@pytest.fixture(scope="module")
def piped(recipe_file) -> subprocess.CompletedProcess:
    """A whole run with its output in pipes."""
    return run_process("run", str(recipe_file))


@pytest.fixture
def invoke(monkeypatch):
    """Runs a command in this process, and leaves logging as it was for other tests."""
    logger = logging.getLogger("distilbert_kd")
    monkeypatch.setattr(logger, "handlers", logger.handlers)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    level = logger.level
    monkeypatch.setattr(cli, "_quieten_libraries", lambda show_bars: None)
    yield lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    logger.setLevel(level)


def run_process(*arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False, **settings)


def assert_one_message(result, exit_code: int) -> str:
    """The message on stderr of a command that ended with a fault."""
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit), result.exception  # not the fault itself: no traceback
    lines = result.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in result.stderr
    return result.stderr


class TestLightCommands:
    @pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["validate", "RECIPE"]])
    def test_answer_without_torch(self, recipe_file, arguments):
        # Importing torch takes seconds, which a user waits for only when something is to be computed.
        arguments = [str(recipe_file) if argument == "RECIPE" else argument for argument in arguments]
        code = (
            "import sys\n"
            "from distilbert_kd.cli import app\n"
            f"try: app({arguments})\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'accelerate'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) > 5

    def test_validate_prints_the_resolved_recipe(self, invoke, recipe_file, tmp_path):
        # What is printed must be a recipe again, so that a user can start from it.
        result = invoke("validate", recipe_file, "seed=7")
        assert result.exit_code == 0
        (tmp_path / "again.yaml").write_text(result.stdout)
        again = invoke("validate", tmp_path / "again.yaml")
        assert again.stdout == result.stdout
        assert "seed: 7" in result.stdout

    def test_every_error_of_a_recipe_in_one_message(self, invoke, recipe_file):
        message = assert_one_message(invoke("validate", recipe_file, "seed=x", "traning.optim=a"), 2)
        assert "2 errors" in message

    def test_no_command_shows_the_help(self, invoke):
        assert "distil" in invoke().output.lower()


class TestRun:
    def test_a_pipe_gets_lines_and_the_table(self, piped):
        # A log file full of carriage returns and bars can't be read.
        assert piped.returncode == 0, piped.stderr
        text = piped.stdout + piped.stderr
        assert not [character for character in text if ord(character) < 32 and character != "\n"]
        assert "%|" not in text
        lines = piped.stderr.splitlines()
        assert sum(line.startswith("teacher: step ") for line in lines) > 8
        assert any(line.startswith("teacher: accuracy on validation: ") for line in lines)
        assert piped.stdout.startswith("tiny: scored by accuracy")
        assert all(name in piped.stdout for name in ("teacher", "student", "control"))
        assert "Traceback" not in piped.stderr

    def test_only_the_package_speaks(self, piped):
        # Warnings of libraries that a user can't act on hide those that matter.
        starts = ("device: ", "data: ", "teacher: ", "student: ", "control: ", "evaluation: ", "run folder: ")
        starts += ("report: ",)
        assert [line for line in piped.stderr.splitlines() if not line.startswith(starts)] == []

    def test_the_last_line_is_the_report(self, piped, recipe_file):
        # It is what is opened next; in the middle of the log nobody finds it.
        page = recipe_file.parent / "run" / "report.html"
        assert piped.stderr.splitlines()[-1] == f"report: {page}" and page.is_file()

    def test_quiet_prints_the_table_alone(self, recipe_file, tmp_path):
        # A script reads stdout and takes anything on stderr for trouble.
        short = ["training.num_train_epochs=1", "control=false"]
        result = run_process("run", str(recipe_file), f"output_dir={tmp_path / 'run'}", *short, "--quiet")
        assert result.returncode == 0
        assert result.stderr == ""
        assert result.stdout.startswith("tiny: scored by accuracy")

    def test_evaluate_and_predict(self, piped, invoke, recipe_file, tmp_path):
        run = recipe_file.parent / "run"
        evaluated = invoke("evaluate", run, "--quiet")
        assert evaluated.exit_code == 0
        assert evaluated.stdout == piped.stdout
        source = write_jsonl(tmp_path / "texts.jsonl", review_rows(3))
        predicted = invoke("predict", run, source, "--quiet")
        assert predicted.exit_code == 0
        assert predicted.stdout == f"3 predictions: {tmp_path / 'texts.predictions.csv'}\n"


class TestFaults:
    def test_no_recipe(self, invoke, tmp_path):
        assert "No such file" in assert_one_message(invoke("run", tmp_path / "none.yaml"), 2)

    def test_bad_data(self, invoke, recipe_file, tmp_path):
        message = assert_one_message(invoke("run", recipe_file, f"output_dir={tmp_path / 'run'}", "data.label=x"), 2)
        assert "expected the columns text, x" in message

    def test_a_teacher_near_chance(self, invoke, recipe_file, tmp_path):
        hopeless = "teacher.finetune.learning_rate=1e-8"
        message = assert_one_message(invoke("run", recipe_file, f"output_dir={tmp_path / 'run'}", hopeless), 2)
        assert f"teacher.model={tmp_path / 'run' / 'teacher'} teacher.finetune=null" in message

    def test_divergence(self, invoke, recipe_file, tmp_path):
        wild = "teacher.finetune.learning_rate=1e30"
        message = assert_one_message(invoke("run", recipe_file, f"output_dir={tmp_path / 'run'}", wild), 3)
        assert "learning rate" in message

    def test_a_folder_in_use(self, piped, invoke, recipe_file):
        assert "nothing is overwritten" in assert_one_message(invoke("run", recipe_file, "seed=7"), 4)

    def test_a_disk_that_fills_up(self, invoke, recipe_file, tmp_path, monkeypatch):
        def fail(self, output_dir=None, _internal_call=False):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(DistillationTrainer, "save_model", fail)
        run = tmp_path / "run"
        message = assert_one_message(invoke("run", recipe_file, f"output_dir={run}"), 4)
        assert f"{run / 'checkpoints' / 'teacher'}" in message and "got: the disk is full" in message

    def test_a_disk_that_is_full_outside_the_run_folder(self, invoke, recipe_file, tmp_path, monkeypatch):
        # A temporary folder or a cache can be full as well.
        def fail(*args):
            raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

        monkeypatch.setattr("distilbert_kd.pipeline.load_task", fail)
        message = assert_one_message(invoke("run", recipe_file, f"output_dir={tmp_path / 'run'}", "--quiet"), 4)
        assert message == "error: /tmp/x: the disk is full.\n"

    def test_a_fault_of_the_program_is_not_hidden(self, invoke, recipe_file, tmp_path, monkeypatch):
        # A traceback is what the maintainers need of a bug, and of a GPU that ran out of memory.
        def fail(*args):
            raise RuntimeError("CUDA out of memory")

        monkeypatch.setattr("distilbert_kd.pipeline.load_task", fail)
        result = invoke("run", recipe_file, f"output_dir={tmp_path / 'run'}")
        assert isinstance(result.exception, RuntimeError)

    @pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent to a process by number")
    def test_an_interrupt(self, recipe_file, tmp_path):
        # Ctrl-C printed a traceback of some inner loop, and lost the training that was going on.
        run = tmp_path / "run"
        command = [*COMMAND, "run", str(recipe_file), f"output_dir={run}", "training.num_train_epochs=1000"]
        # A shell without job control starts background jobs, such as this test run, with SIGINT ignored.
        heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes, preexec_fn=heed) as process:
            before = []
            for line in process.stderr:
                before.append(line)
                if line.startswith("student: step"):
                    process.send_signal(signal.SIGINT)
                    break
            stdout, after = process.communicate(timeout=120)
        assert process.returncode == 75, "".join(before) + after
        assert stdout == ""
        heard, last = [line for line in after.splitlines() if not line.startswith("student: ")]
        assert heard.startswith("Told to stop: the step is finished and saved first.")
        assert last.startswith("interrupted. Told to stop after step ") and "Start the same command again" in last
        assert list((run / "checkpoints" / "student").glob("checkpoint-*/COMMIT.json"))

    def test_an_interrupt_where_nothing_is_trained(self, recipe_file, tmp_path, invoke, monkeypatch):
        # There is nothing to save in the evaluation, so nothing to wait for: 130, and what is kept is said.
        def interrupt(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr("distilbert_kd.pipeline.score_models", interrupt)
        run = tmp_path / "run"
        short = ["teacher.finetune.num_train_epochs=1", "teacher.allow_near_chance=true", "training.max_steps=1"]
        result = invoke("run", recipe_file, f"output_dir={run}", "--quiet", *short)
        assert result.exit_code == 130
        last = result.stderr.splitlines()[-1]
        assert last == (
            f"interrupted. The fine-tuned teacher is kept in {run / 'teacher'}. The distilled student is kept in "
            f"{run / 'student'}. Start the same command again to go on."
        )


def test_the_recipe_that_a_help_names_is_one_that_the_command_reads():
    """Prevents `pretrain --help` from naming a task's recipe, which it refuses."""
    examples = {}
    for name, command in typer.main.get_command(cli.app).commands.items():
        for parameter in command.params:
            if parameter.name == "recipe":
                (examples[name],) = re.findall(r"recipes/\S+\.yaml", parameter.help)
    assert {"run", "pretrain", "validate", "describe", "cache", "layers"} <= examples.keys()
    for name, example in examples.items():
        (load_pretraining_recipe if name == "pretrain" else load_recipe)(ROOT / example)
