"""`report` and `compare` as a user calls them, and the report at the end of a run."""

import logging

import pytest
from typer.testing import CliRunner

from distilbert_kd import cli
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_records import RunRecords
from tests.report.fake_runs import fake_run


@pytest.fixture
def invoke(monkeypatch):
    """Runs a command in this process, and leaves logging as it was for other tests."""
    monkeypatch.setattr(cli, "_configure_output", lambda quiet: False)
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_report_names_the_page_last(invoke, tmp_path):
    """The path is what the user opens next; a report in another folder leaves the run as it was."""
    run = fake_run(tmp_path / "run")
    before = sorted(path.name for path in run.iterdir())
    done = invoke("report", run, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").is_file()
    assert sorted(path.name for path in run.iterdir()) == before


def test_compare_prints_the_table(invoke, tmp_path):
    """In a terminal the table is the answer; the page is for others."""
    runs = [fake_run(tmp_path / f"run{seed}", seed=seed) for seed in (1, 2)]
    done = invoke("compare", *runs, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "| 1. fake | 2 | 1, 2 |" in done.stdout and "±" in done.stdout
    assert done.stdout.splitlines()[-1] == f"page: {tmp_path / 'out' / 'compare.html'}"


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_wrong_folder_is_one_message(invoke, tmp_path, command):
    """A traceback would hide which of the paths is wrong."""
    done = invoke(command, tmp_path / "nonesuch", "--out", tmp_path / "out")
    assert done.exit_code == 4 and done.stderr.startswith("error: Expected the folder of a finished run")


def test_a_report_that_cannot_be_written_does_not_undo_the_run(tmp_path, caplog):
    """After hours of training a broken figure must not end the run with a traceback."""
    run = fake_run(tmp_path / "run")
    (run / "plots").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING, logger="distilbert_kd"):
        RunRecords(RunFolder(run), is_main=True).write_report()
    assert "No report" in caplog.text and "distilbert-kd report" in caplog.text


def test_only_the_main_process_writes_the_report(tmp_path):
    """Two processes that write one file leave half of each."""
    run = fake_run(tmp_path / "run")
    RunRecords(RunFolder(run), is_main=False).write_report()
    assert not RunFolder(run).report.exists()
