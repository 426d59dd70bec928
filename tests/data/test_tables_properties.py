"""Any rows that are written come back the same, and any bytes are a table or an error of ours that names the file."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilbert_kd.data.labels import class_names_of, encode_classes
from distilbert_kd.data.tables import FILE_ENDINGS, read_table
from distilbert_kd.data.task_data import build_dataset
from distilbert_kd.errors import DataError
from distilbert_kd.pretraining.text_files import TEXT_ENDINGS, file_texts


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
#: What readers are known to trip over, more often than chance would have it.
ODD = st.sampled_from(
    ["", " ", "null", "NA", "nan", '"', '""', "a,b", "\ufeff", "\u2028", "\x85", "\x0c", "\0", "-1", "#"]
)
CELL = ODD | TEXT
ROWS = st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6)
#: Few in the default tests; with `pytest --hypothesis-profile=thorough` twenty times as many.
REUSED = settings(
    max_examples=settings().max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def as_csv(rows):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    return file.getvalue()


def as_json_lines(rows):
    return "".join(json.dumps({"a": first, "b": second}) + "\n" for first, second in rows)


@REUSED
@given(rows=ROWS)
@pytest.mark.parametrize(("name", "write"), [("any.csv", as_csv), ("any.jsonl", as_json_lines)])
def test_rows_come_back(tmp_path, name, write, rows):
    """A text would change, or a row be lost or split, between the file and the model, as with NA and stray quotes."""
    path = tmp_path / name
    path.write_text(write(rows), encoding="utf-8", newline="")
    table = read_table(path, ["a", "b"])
    assert list(zip(table.columns["a"], table.columns["b"], strict=True)) == rows
    assert list(file_texts(path, "a")) == [first for first, _ in rows]


@REUSED
@given(rows=ROWS.map(lambda rows: [tuple(cell.translate({9: " ", 10: " ", 13: " "}) for cell in row) for row in rows]))
def test_rows_of_tsv_come_back(tmp_path, rows):
    """As above, for the format that quotes nothing: all but tabs and line ends is text."""
    path = tmp_path / "any.tsv"
    path.write_text("".join(f"{first}\t{second}\n" for first, second in [("a", "b"), *rows]), "utf-8", newline="")
    table = read_table(path, ["a", "b"])
    assert list(zip(table.columns["a"], table.columns["b"], strict=True)) == rows
    assert table.positions == list(range(2, len(rows) + 2))


@REUSED
@given(rows=ROWS, place=st.integers(0, 5), change=st.sampled_from(["short", "long"]))
def test_a_row_of_another_width_is_named_by_its_line(tmp_path, rows, place, change):
    """The line in the message would be another one after a text that looks like a line end."""
    rows = [tuple(cell.translate({9: " ", 10: " ", 13: " "}) for cell in row) for row in rows]
    lines = ["a\tb", *("\t".join(row) for row in rows)]
    line = min(place, len(rows) - 1) + 1
    lines[line] = "x" if change == "short" else "x\ty\tz"
    path = tmp_path / "any.tsv"
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="")
    with pytest.raises(DataError, match=rf"got {1 if change == 'short' else 3} at line {line + 1}\."):
        read_table(path, ["a"])


#: Bytes of no kind, and those that get past the first check of some kind.
BYTES = st.one_of(
    st.binary(max_size=60),
    st.text("ab,\t\n\r\"{}[]:\\u0d8 \0-1", max_size=40).map(str.encode),
    st.builds(bytes.__add__, st.sampled_from([b"a,b\n", b"a\tb\n", b'{"a": "", "b": ""}\n']), st.binary(max_size=30)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=3,
    ).map(lambda cell: json.dumps({"a": cell, "b": cell}).encode()),
)  # fmt: skip


@REUSED
@given(content=BYTES)
@example(content=b'{"a": "\\ud800", "b": "\\udfff"}\n{"a": "", "b": ""}')
@example(content=b"PAR1\0\0\0\0PAR1")
def test_any_bytes_are_rows_or_an_error_that_names_the_file(tmp_path, content):
    """Whatever a library raises would reach the user as a traceback, with neither file nor line."""
    for ending in FILE_ENDINGS:
        path = tmp_path / f"any{ending}"
        path.write_bytes(content)
        try:
            table = read_table(path, ["a", "b"])
            classes = encode_classes(table, "b", class_names_of(table, "b"))
            assert len(build_dataset(table, "a", None, classes)) == len(table) > 0
        except DataError as error:
            assert str(error).startswith(f"{path}: expected ")
            str(error).encode()
    for ending in (*TEXT_ENDINGS, ".txt.gz"):
        path = tmp_path / f"any{ending}"
        path.write_bytes(content)
        try:
            assert all(isinstance(text, str) for text in file_texts(path, "a"))
        except DataError as error:
            assert str(error).startswith(f"{path}: expected ")
            str(error).encode()
