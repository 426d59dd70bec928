"""The rows behind the scores: written by a run, read by every report."""

import datasets
import numpy as np
import pytest

from distilbert_kd.errors import StorageError
from distilbert_kd.scored_rows import read_scored_rows, write_scored_rows


def test_rows_come_back_as_they_were(tmp_path):
    """A reordered row or a rounded logit would make a report of a run that never was."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "ü\n"], "text_pair": ["x", "", "z"], "label": [1, -100, 0]})
    logits = {name: np.random.default_rng(i).normal(size=(3, 4)) for i, name in enumerate(("teacher", "student"))}
    write_scored_rows(tmp_path / "scored", "validation_matched", rows, logits, ("p", "q", "r", "s"))
    read = read_scored_rows(tmp_path / "scored")["validation_matched"]
    assert read.texts == [("a", "x"), ("b", ""), ("ü\n", "z")]
    assert read.labels.tolist() == [1, -100, 0] and read.label_names == ("p", "q", "r", "s")
    assert list(read.logits) == ["teacher", "student"]
    for name, values in logits.items():
        np.testing.assert_array_equal(read.logits[name], values.astype(np.float32))


def test_numbers_have_one_output(tmp_path):
    """Regression logits may come as [B]; a report must not read them as one row of many classes."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 2.0]})
    write_scored_rows(tmp_path, "dev", rows, {"teacher": np.array([0.4, 2.1]), "student": np.zeros((2, 1))}, None)
    read = read_scored_rows(tmp_path)["dev"]
    assert read.logits["teacher"].shape == read.logits["student"].shape == (2, 1)
    assert read.label_names is None and read.labels.tolist() == [0.5, 2.0]


def test_no_folder_is_no_rows(tmp_path):
    """Runs of older versions have none, and their report must still be written."""
    assert read_scored_rows(tmp_path / "scored") == {}


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet"])
def test_a_broken_file_is_named(tmp_path, content):
    """A half-copied folder otherwise ends in a traceback of Arrow."""
    (tmp_path / "dev.parquet").write_bytes(content)
    with pytest.raises(StorageError, match=r"dev\.parquet"):
        read_scored_rows(tmp_path)
