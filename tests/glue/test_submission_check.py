"""The validator of `submission.zip` finds what the server would refuse or score wrongly."""

import warnings
import zipfile
from pathlib import Path

import pytest

from distilbert_kd.data.tasks import TASKS
from distilbert_kd.glue.submission_check import validate_submission


def good_file(name: str) -> str:
    """A right file, made from the tasks' own table."""
    owner, split = next(
        (task, split) for task in TASKS.values() for split in task.splits if split.submission_file == name
    )
    words = owner.submission_labels or ("0.000", "5.000", "2.5", "3")
    rows = (f"{row}\t{words[row % len(words)]}\n" for row in range(split.num_rows))
    return f"index\tprediction\n{''.join(rows)}"


def zip_of(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_good_submission_has_no_fault(tmp_path):
    """Prevents the refusal of what the server takes; and a table of tasks that the documented form contradicts."""
    names = [str(split.submission_file) for task in TASKS.values() for split in task.splits if split.submission_file]
    assert len(names) == 11
    assert validate_submission(zip_of(tmp_path / "good.zip", {name: good_file(name) for name in names})) == []


def test_missing_and_strange_files(tmp_path):
    """Prevents a task that scores zero because its file has another name, or lies in a folder."""
    faults = validate_submission(zip_of(tmp_path / "x.zip", {"RTE.tsv": good_file("RTE.tsv"), "sub/WNLI.tsv": "x"}))
    assert "sub/WNLI.tsv: expected no such file" in faults
    assert "WNLI.tsv: expected the file once, got it 0 times" in faults
    assert len(faults) == 11


def test_a_file_twice(tmp_path):
    """Prevents the server from choosing one of two."""
    path = tmp_path / "x.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of it, too
        archive.writestr("RTE.tsv", good_file("RTE.tsv"))
        archive.writestr("RTE.tsv", good_file("RTE.tsv"))
    assert "RTE.tsv: expected the file once, got it 2 times" in validate_submission(path)


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("RTE.tsv", "prediction", "label", "RTE.tsv, line 1: expected 'index\\tprediction', got 'index\\tlabel'"),
        ("RTE.tsv", "index", "\ufeffindex", "RTE.tsv, line 1: expected 'index\\tprediction', got '\\ufeffindex"),
        ("RTE.tsv", "\n", "\r\n", "RTE.tsv, line 1: expected"),
        ("RTE.tsv", "2999\tnot_entailment\n", "", "RTE.tsv: expected 3000 rows, got 2999"),
        ("RTE.tsv", "\n7\t", "\n8\t", "RTE.tsv, line 9: expected the index 7, got '8'"),
        ("RTE.tsv", "\n7\t", "\n07\t", "RTE.tsv, line 9: expected the index 7, got '07'"),
        ("RTE.tsv", "\n7\tnot_entailment", "\n7\t1", "RTE.tsv, line 9: expected entailment or not_entailment"),
        ("WNLI.tsv", "\n0\t0", "\n0\tnot_entailment", "WNLI.tsv, line 2: expected 0 or 1, got 'not_entailment'"),
        ("MNLI-m.tsv", "\n1\tneutral", "\n1\tnot_entailment", "MNLI-m.tsv, line 3: expected contradiction or entail"),
        ("AX.tsv", "\n1\tneutral", "\n1\tNeutral", "AX.tsv, line 3: expected contradiction or"),
        ("STS-B.tsv", "\n1\t5.000", "\n1\t5.001", "STS-B.tsv, line 3: expected a number from 0 to 5, got '5.001'"),
        ("STS-B.tsv", "\n1\t5.000", "\n1\t-0.1", "STS-B.tsv, line 3: expected a number from 0 to 5, got '-0.1'"),
        ("STS-B.tsv", "\n1\t5.000", "\n1\tnan", "STS-B.tsv, line 3: expected a number from 0 to 5, got 'nan'"),
        ("CoLA.tsv", "\n3\t1", "\n3", "CoLA.tsv, line 5: expected 0 or 1, got ''"),
        ("CoLA.tsv", "\n3\t1", "\n3\t1\t0.9", "CoLA.tsv, line 5: expected 0 or 1, got '1\\t0.9'"),
    ],
)
def test_a_fault_is_named(tmp_path, name, old, new, fault):
    """Prevents a refusal by the server hours later, with few words, and one of a limited number of tries spent."""
    text = good_file(name)
    assert old in text
    faults = validate_submission(zip_of(tmp_path / "x.zip", {name: text.replace(old, new)}))
    assert [each for each in faults if each.startswith(fault)], faults


def test_no_text_and_no_zip(tmp_path):
    """Prevents a traceback in place of the reason."""
    assert "RTE.tsv: expected text in UTF-8" in validate_submission(zip_of(tmp_path / "x.zip", {"RTE.tsv": b"\xff"}))
    (tmp_path / "y.zip").write_text("no zip")
    assert len(validate_submission(tmp_path / "y.zip")) == 1
    assert "no.zip" in validate_submission(tmp_path / "no.zip")[0]
