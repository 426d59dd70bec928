"""Targets that the loss could not use are found before the first step."""

import datasets
import numpy as np
import pytest

from distilbert_kd.errors import DataError
from distilbert_kd.row_checks import TEACHER_LOGITS, check_rows
from tests.tiny import tiny_bert


CLASSES = tiny_bert(1, num_labels=3).config
NUMBER = tiny_bert(1, num_labels=1).config


def rows(**columns):
    num_rows = len(next(iter(columns.values())))
    return datasets.Dataset.from_dict({"input_ids": [[1, 2]] * num_rows, **columns})


@pytest.mark.parametrize("column", ["labels", "label", "label_ids"])
def test_the_label_column_is_found_by_each_of_trainers_names(column):
    """Prevents labels that are not looked at because they are called otherwise."""
    assert check_rows(rows(**{column: [0, 1, 2, -100]}), CLASSES, has_teacher=False) is False
    with pytest.raises(DataError, match=f"column '{column}'"):
        check_rows(rows(**{column: [0, 3]}), CLASSES, has_teacher=True)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 1, 3], "1 other values .row 2: 3"),
        ([-1, 0, -1], "2 other values .row 0: -1, row 2: -1"),
        ([0.0, 0.5], "1 other values .row 1: 0.5"),
        ([0.0, float("nan")], "1 other values .row 1: nan"),
        ([0, None], "1 other values .row 1: nan"),
        ([0.0, float("inf")], "1 other values .row 1: inf"),
    ],
)
def test_labels_that_are_no_class_are_refused_with_their_rows(labels, found):
    """Prevents a device assertion without a row number, or GLUE's -1 being learned as the last class."""
    with pytest.raises(DataError, match=f"class from 0 to 2, or -100 for none in column 'labels', got {found}.*Mend"):
        check_rows(rows(labels=labels), CLASSES, has_teacher=True)


@pytest.mark.parametrize("labels", [["yes", "no"], [[0, 1], [1, 0]], [[0], [1, 2]]])
def test_labels_that_are_no_numbers_are_refused(labels):
    """Prevents a numpy error about comparing texts, and one-hot rows that are read as several labels."""
    with pytest.raises(DataError, match="one number for each row in column 'labels', got .* in row 0. Put class"):
        check_rows(rows(labels=labels), CLASSES, has_teacher=True)


def test_only_the_first_five_rows_are_listed():
    """Prevents a message of a million rows."""
    with pytest.raises(DataError, match=r"got 30 other values \(row 0: 7(, row \d: 7){4}\)"):
        check_rows(rows(labels=[7] * 30), CLASSES, has_teacher=False)


def test_a_regression_takes_any_finite_number():
    """Prevents class bounds on scores, and NaN, which no optimizer survives."""
    assert check_rows(rows(labels=[-3.5, 0.0, 1e6, -100.0]), NUMBER, has_teacher=False) is False
    for broken in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="a finite number in column 'labels', got 1 other values .row 1"):
            check_rows(rows(labels=[0.5, broken]), NUMBER, has_teacher=False)


def test_rows_without_any_target_are_refused():
    """Prevents a training that learns nothing and saves it."""
    with pytest.raises(DataError, match=r"column 'labels', or a teacher, got columns \['input_ids', 'text'\] and no"):
        check_rows(rows(text=["a"]), CLASSES, has_teacher=False)
    for config in (CLASSES, NUMBER):
        with pytest.raises(DataError, match="labels or a teacher, got only -100 in column 'labels' and no teacher"):
            check_rows(rows(labels=[-100, -100]), config, has_teacher=False)


def test_a_soft_target_makes_up_for_labels():
    """Prevents the refusal of unlabelled rows, which a teacher makes useful."""
    assert check_rows(rows(text=["a"]), CLASSES, has_teacher=True) is True
    assert check_rows(rows(labels=[-100]), CLASSES, has_teacher=True) is True
    assert check_rows(rows(**{TEACHER_LOGITS: [[0.1, 0.2, 0.3]]}), CLASSES, has_teacher=False) is True


@pytest.mark.parametrize(
    ("logits", "found"),
    [
        ([[0.1, 0.2]] * 2, "got 2 in column"),
        ([[0.1]] * 2, "got 1 in column"),
        ([[0.1, 0.2, 0.3], [0.1, 0.2]], "got .* or rows of several lengths, in column"),
        ([0.1, 0.2], "got .*0.1.* in row 0"),
    ],
)
def test_teacher_logits_of_another_width_are_refused_in_any_row(logits, found):
    """Prevents a cache of another teacher, also where only a later row shows it."""
    with pytest.raises(DataError, match=f"Expected 3 teacher logits for each row, the student's outputs, {found}"):
        check_rows(rows(**{TEACHER_LOGITS: logits}), CLASSES, has_teacher=False)


def test_teacher_logits_that_are_not_finite_are_refused():
    """Prevents a cache made in float16, where large logits are infinite, from breaking the first step."""
    logits = [[0.0, 1.0, 2.0], [0.0, np.inf, 1.0], [np.nan, 0.0, 0.0]]
    with pytest.raises(DataError, match=r"finite teacher logits .* got NaN or infinity in 2 rows \(first: 1, 2\)"):
        check_rows(rows(**{TEACHER_LOGITS: logits}), CLASSES, has_teacher=False)


@pytest.mark.parametrize("names", ["numpy", "torch"])
def test_a_format_of_the_data_set_changes_nothing(names):
    """Prevents checks that see tensors where they expect numbers, and a format that is lost on the way."""
    dataset = rows(labels=[0, 1, 2]).with_format(names)
    assert check_rows(dataset, CLASSES, has_teacher=False) is False
    assert dataset.format["type"] == names


def test_selected_rows_are_the_ones_that_are_checked():
    """Prevents a look at rows that a filter took out."""
    dataset = rows(labels=[0, 7, 1])
    assert check_rows(dataset.select([0, 2]), CLASSES, has_teacher=False) is False
    with pytest.raises(DataError, match="row 0: 7"):
        check_rows(dataset.select([1]), CLASSES, has_teacher=False)


@pytest.mark.parametrize("has_teacher", [True, False])
def test_other_data_sets_are_left_to_the_loss(has_teacher):
    """Prevents random transforms of a data set from being run for a check, and None from failing."""
    for dataset in (None, [{"labels": 99}]):
        assert check_rows(dataset, CLASSES, has_teacher) is has_teacher
