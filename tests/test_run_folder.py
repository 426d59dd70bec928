"""The run folder: names, refusals before anything is trained, and what counts as a finished run."""

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distilbert_kd.errors import StorageError
from distilbert_kd.run_folder import RunFolder


@pytest.fixture
def finished(tmp_path):
    folder = RunFolder(tmp_path / "run").create()
    folder.student.mkdir()
    files = (
        folder.recipe,
        folder.environment,
        folder.results,
        folder.student / "config.json",
        folder.student / "model.safetensors",
    )
    for file in files:
        file.write_text("{}")
    return folder


def test_file_names():
    """A renamed file would orphan every run folder that users have."""
    folder = RunFolder(Path("r"))
    assert {
        "recipe": "recipe.yaml",
        "environment": "environment.json",
        "history": "history.json",
        "results": "results.json",
        "results_table": "results.md",
        "scored": "scored",
        "report": "report.html",
        "report_text": "report.md",
        "report_numbers": "report.json",
        "plots": "plots",
        "teacher": "teacher",
        "student": "student",
        "control": "control",
        "checkpoints": "checkpoints",
        "predictions": "predictions",
        "progress": "progress.json",
        "lock": ".lock",
        "published": "hub",
        "space": "space",
    } == {
        name: str(getattr(folder, name).relative_to("r"))
        for name, member in vars(RunFolder).items()
        if isinstance(member, property)
    }


def test_create_makes_parents_and_leaves_nothing_in_the_folder(tmp_path):
    """A probe file left behind would make the next run of the same recipe refuse its own folder."""
    folder = RunFolder(tmp_path / "a" / "b").create()
    assert list(folder.root.iterdir()) == []
    assert folder.create() == folder


def test_create_refuses_a_folder_with_content(tmp_path):
    """Results of an earlier run would be overwritten or mixed with the new ones."""
    (tmp_path / "results.json").write_text("kept")
    with pytest.raises(StorageError, match=r"new or empty folder.*results\.json.*output_dir=.*nothing is overwritten"):
        RunFolder(tmp_path).create()
    assert (tmp_path / "results.json").read_text() == "kept"


def test_create_takes_what_a_killed_start_left(tmp_path):
    """A run that was killed in its first second would refuse its own folder."""
    for name in (".lock", ".progress.json.12.partial"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).create()
    (tmp_path / ".env").touch()
    with pytest.raises(StorageError, match="new or empty"):
        RunFolder(tmp_path).create()


def test_create_lists_only_a_few_names(tmp_path):
    """A message with thousands of file names would hide what to do."""
    for name in "abcde":
        (tmp_path / name).touch()
    with pytest.raises(StorageError, match=r"a, b, c, \.\.\. in it"):
        RunFolder(tmp_path).create()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_create_names_a_file_in_the_way(tmp_path, below):
    """The run would end with a traceback after the teacher was loaded."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"a file is in the way.*output_dir=") as caught:
        RunFolder(tmp_path / "file" / below).create()
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EIO, "the disk can.t be read or written"),
    ],
)
def test_create_says_why_a_folder_cannot_be_written(tmp_path, monkeypatch, number, reason):
    """A full or read-only disk would be found only after the first epoch."""

    def fail(**_):
        raise OSError(number, "Input/output error: I/O error")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(StorageError, match=reason):
        RunFolder(tmp_path).create()


def test_create_survives_a_name_that_is_no_path():
    """A NUL in a name is a ValueError in Python, which the command would show as a traceback."""
    with pytest.raises(StorageError, match="null byte"):
        RunFolder(Path("a\0b")).create()


def test_open_takes_a_finished_run(finished):
    """Evaluation must work from the folder alone."""
    assert RunFolder.open(finished.root) == finished


def test_open_takes_sharded_weights(finished):
    """A large student is saved in several files and an index."""
    (finished.student / "model.safetensors").rename(finished.student / "model.safetensors.index.json")
    assert RunFolder.open(finished.root) == finished


def test_open_names_all_that_is_missing(finished):
    """An interrupted run would be evaluated as if it were whole."""
    finished.results.unlink()
    (finished.student / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"without results\.json, student/model\.safetensors\. .*finished run"):
        RunFolder.open(finished.root)


def test_open_says_how_to_go_on_with_a_run_that_was_cut_off(finished):
    """Sent into a new folder, its user would train for hours again what one command finishes."""
    finished.results.unlink()
    finished.progress.write_text("{}")
    with pytest.raises(StorageError, match=r"cut off.*go on with it.*distilbert-kd run \S+recipe\.yaml") as caught:
        RunFolder.open(finished.root)
    assert "new folder" not in str(caught.value)


def test_open_refuses_a_missing_folder_and_a_file(tmp_path):
    """A misspelt path would be reported as an incomplete run."""
    with pytest.raises(StorageError, match="got nothing"):
        RunFolder.open(tmp_path / "runn")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="got a file"):
        RunFolder.open(tmp_path / "file")


def test_no_torch():
    """`--help` and `validate` would take seconds."""
    code = "import sys, distilbert_kd.run_folder; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
