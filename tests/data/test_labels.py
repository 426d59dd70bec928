"""Labels: what counts as one, how classes are named and ordered, and what is refused with its line."""

import pytest

from distilbert_kd.data.labels import class_names_of, encode_classes, encode_numbers, has_labels
from distilbert_kd.data.tables import Table
from distilbert_kd.errors import DataError


def table_of(*labels, class_names=None):
    lines = list(range(2, len(labels) + 2))
    return Table("own.csv", {"label": list(labels)}, lines, "line", {"label": class_names} if class_names else {})


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("b", "a", "b"), ("a", "b")),
        (("10", "9", "2"), ("2", "9", "10")),
        ((1, 0, -1), ("-1", "0", "1")),
        ((1.0, 0.0, None), ("0", "1")),
        (("1.0", "0.0", "10.0"), ("0", "1", "10")),
        ((True, False), ("false", "true")),
        (("NA", "null"), ("NA", "null")),
        (("2", "x", "10"), ("10", "2", "x")),
    ],
)
def test_class_names(labels, names):
    """Prevents 10 before 9, and one class twice because another tool wrote 1 as 1.0."""
    assert class_names_of(table_of(*labels), "label") == names


def test_class_names_of_a_file_that_knows_them():
    """Prevents another order than the data set's own, and the loss of a class without training rows."""
    assert class_names_of(table_of("z", "a", class_names=("z", "a", "m")), "label") == ("z", "a", "m")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("a", "a", " "), r"two or more classes .* got \['a'\]"),
        (("0.5", "1.2"), "regression"),
        (("a", "\ud800"), r"valid Unicode .* got '.ud800' at line 3"),
    ],
)
def test_class_names_refused(labels, words):
    """Prevents training on one class, and scores from becoming hundreds of classes."""
    with pytest.raises(DataError, match=words):
        class_names_of(table_of(*labels), "label")


def test_encode_classes():
    """Prevents numbers that do not follow the order of the names."""
    assert encode_classes(table_of("b", " a ", "b"), "label", ("b", "a")) == [0, 1, 0]
    assert encode_classes(table_of(-1, 1, "1.0", 0), "label", ("-1", "0", "1")) == [0, 2, 2, 1]


def test_labels_outside_the_set_are_named():
    """Prevents `IndexError: Target 5 is out of bounds` in the middle of training."""
    with pytest.raises(DataError) as error:
        encode_classes(table_of("a", "c", "b", *"defgh"), "label", ("a", "b"))
    assert str(error.value).startswith(
        "own.csv: expected one of the labels a, b in the column 'label'; got 'c' at line 3, 'd' at line 5, "
        "'e' at line 6, 'f' at line 7, 'g' at line 8 and 1 more."
    )


def test_places():
    """Prevents 0 and 1 from being refused for named classes, and from being taken where the names are numbers."""
    assert encode_classes(table_of(1, "0", "no"), "label", ("no", "yes"), has_places=True) == [1, 0, 0]
    with pytest.raises(DataError, match="or a place from 0 to 1"):
        encode_classes(table_of(2), "label", ("no", "yes"), has_places=True)
    with pytest.raises(DataError, match="'0' at line 2"):
        encode_classes(table_of("0"), "label", ("1", "2"), has_places=True)
    with pytest.raises(DataError, match="1 at line 2"):
        encode_classes(table_of(1), "label", ("no", "yes"))


@pytest.mark.parametrize("gap", [None, "", "  ", -1, -100, "-100"])
def test_missing_labels(gap):
    """Prevents a row without a label from getting one, or from being dropped unseen."""
    table = table_of("a", gap, "b")
    with pytest.raises(
        DataError, match=r"expected a label in the column 'label'; got .* at line 3\. .*allow_unlabelled"
    ):
        encode_classes(table, "label", ("a", "b"))
    assert encode_classes(table, "label", ("a", "b"), is_missing_allowed=True) == [0, -100, 1]


def test_numbers():
    """Prevents numbers that change on the way."""
    assert encode_numbers(table_of("3.8", 2, 1e-3, " 5.000 ", "-1"), "label") == [3.8, 2.0, 1e-3, 5.0, -1.0]
    assert encode_numbers(table_of("1.5", ""), "label", is_missing_allowed=True) == [1.5, -100.0]


@pytest.mark.parametrize("cell", ["nan", "inf", "1e39", "1_000", "three", "1,5", float("inf")])
def test_numbers_refused(cell):
    """Prevents a loss that is not finite, or infinite only once it is a float32."""
    with pytest.raises(DataError, match=r"finite numbers in the column 'label'; got .* at line 3\."):
        encode_numbers(table_of("1", cell), "label")


def test_has_labels():
    """Prevents scores on a test split whose labels are all -1."""
    assert not has_labels(table_of(-1, -1), "label")
    assert not has_labels(table_of(None, "", "-100", -1.0), "label")
    assert not has_labels(table_of(1), "other")
    assert has_labels(table_of(-1, 0), "label")
