"""The facts about GLUE, against each other; the files themselves are checked in test_glue_files.py."""

import subprocess
import sys

import pytest

from distilbert_kd.data.tasks import AX, TASKS, TRAINABLE_TASKS, get_task
from distilbert_kd.errors import DataError


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_labels_agree(task):
    """Prevents a submission in which class 0 gets the word of class 1."""
    if task.label_names is None:
        assert (task.file_labels, task.submission_labels) == (None, None)
    else:
        assert (
            len(set(task.label_names)) == len(task.file_labels) == len(task.submission_labels) == len(task.label_names)
        )
        assert task.submission_labels == task.file_labels


def test_label_order_is_the_hubs():
    """Prevents scores of a Hub teacher that are turned round: WNLI's order is the reverse of RTE's."""
    assert {name: task.label_names for name, task in TASKS.items()} == {
        "cola": ("unacceptable", "acceptable"),
        "sst2": ("negative", "positive"),
        "mrpc": ("not_equivalent", "equivalent"),
        "stsb": None,
        "qqp": ("not_duplicate", "duplicate"),
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
        "wnli": ("not_entailment", "entailment"),
        "ax": ("entailment", "neutral", "contradiction"),
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_columns_are_in_the_files(task):
    """Prevents a column name with a slip, which would show only where the file is."""
    for split in task.splits:
        assert {task.text, task.text_pair} - {None} <= set(split.columns)
        assert (task.index if split.role == "test" else task.label) in split.columns
        assert (split.submission_file is not None) == (split.role == "test")


def test_submission_files():
    """Prevents a zip file that the benchmark's server refuses."""
    names = [split.submission_file for task in TASKS.values() for split in task.splits_of("test")]
    assert names == [
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"),
        *("QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"),
    ]


def test_trainable_tasks():
    """Prevents a run on AX, which has nothing to train on."""
    assert set(TRAINABLE_TASKS) == set(TASKS) - {"ax"}
    assert AX.splits_of("train") == ()
    assert all(TASKS[name].splits_of("train") and TASKS[name].splits_of("evaluation") for name in TRAINABLE_TASKS)


def test_unknown_task_names_the_known_ones():
    """Prevents a bare KeyError for `sst-2`."""
    with pytest.raises(DataError, match="expected one of cola, sst2, .* got 'sst-2'"):
        get_task("sst-2")


def test_no_heavy_import():
    """Prevents `distilbert-kd --help` from waiting for torch."""
    heavy = {"torch", "transformers", "datasets", "pyarrow"}
    code = f"import sys, distilbert_kd.data.tasks; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
