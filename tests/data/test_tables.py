"""The readers: what each file format may hold, and what is refused with its line."""

import csv
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from distilbert_kd.data.tables import read_table, table_from_dataset
from distilbert_kd.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


class TestTsv:
    def test_quotes_are_text(self, write):
        """Prevents the silent loss of rows between stray quotes: the usual reader gives 9,714 of MNLI's 9,815."""
        table = read_table(write("a.tsv", 'a\tb\n"x\t1\ny\t2\n" z "\t3\n'), ["a", "b"])
        assert table.columns == {"a": ['"x', "y", '" z "'], "b": ["1", "2", "3"]}
        assert table.positions == [2, 3, 4]

    def test_words_for_nothing_are_text(self, write):
        """Prevents the texts null, NA and nan from becoming missing values."""
        words = ["null", "NA", "nan", "None", "", "#N/A"]
        table = read_table(write("a.tsv", "a\tb\n" + "".join(f"{word}\t1\n" for word in words)), ["a"])
        assert table.columns["a"] == words

    def test_byte_order_mark(self, write):
        """Prevents a first column called U+FEFF and Quality, as MRPC's files begin."""
        assert read_table(write("a.tsv", b"\xef\xbb\xbfQuality\tx\n1\t2\n"), ["Quality"]).columns == {"Quality": ["1"]}

    def test_only_line_feeds_end_a_row(self, write):
        """Prevents a row cut in two at a form feed or at U+2028, where str.splitlines cuts."""
        table = read_table(write("a.tsv", "a\tb\nx\u2028y\x85\x0c\t1\nz\t2\n"), ["a"])
        assert table.columns["a"] == ["x\u2028y\x85\x0c", "z"]

    @pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
    def test_ends_of_lines(self, write, end):
        """Prevents a lost last row (CoLA's dev file has no newline there) or a carriage return in a label."""
        table = read_table(write("a.tsv", "a\tb\r\nx\t1\r\ny\t2" + end), ["b"])
        assert table.columns["b"] == ["1", "2"]

    def test_without_header(self, write):
        """Prevents CoLA's first sentence from being taken for column names."""
        table = read_table(write("a.tsv", "gj04\t1\t\tA.\nbc01\t0\t*\tB.\n"), ["d", "b"], header=["a", "b", "c", "d"])
        assert table.columns == {"d": ["A.", "B."], "b": ["1", "0"]}
        assert table.positions == [1, 2]

    def test_wrong_width_names_five_lines(self, write):
        """Prevents rows whose label is a piece of text, and an error of a thousand lines."""
        path = write("a.tsv", "a\tb\nx\t1\n" + "y\n" * 7 + "z\t1\t2\n")
        with pytest.raises(DataError) as error:
            read_table(path, ["a"])
        assert str(error.value).startswith(
            f"{path}: expected 2 columns (a, b) in each row; got 1 at line 3, 1 at line 4, 1 at line 5, 1 at line 6, "
            "1 at line 7 and 3 more."
        )

    def test_broken_lines_are_left_out_where_known(self, write):
        """Prevents QQP's original file, which has a few, from being unreadable, and their loss from being silent."""
        table = read_table(write("a.tsv", "a\tb\nx\t1\ny\nz\t2\n"), ["a"], skips_broken_lines=True)
        assert (table.columns["a"], table.positions, table.num_broken_lines) == (["x", "z"], [2, 4], 1)


class TestCsv:
    def test_rfc_4180(self, write):
        """Prevents texts with commas, quotes and line ends from being cut, and line numbers that drift after them."""
        table = read_table(write("a.csv", 'a,b\r\n"x, ""y""\r\nz",1\r\nnull,2\r\n'), ["a", "b"])
        assert table.columns == {"a": ['x, "y"\r\nz', "null"], "b": ["1", "2"]}
        assert table.positions == [2, 4]

    @pytest.mark.parametrize("content", ['a,b\nx,1\n"y,2\nz,3\n', 'a,b\nx,1\n"y"z,2\n'])
    def test_bad_quotes(self, write, content):
        """Prevents an open quote from swallowing the rest of the file."""
        with pytest.raises(DataError, match=r"a row starting at line 3 that can't be read"):
            read_table(write("a.csv", content), ["a"])

    def test_long_cell(self, write):
        """Prevents the csv module's limit of 131,072 characters from ending a run, or from being lifted for good."""
        limit = csv.field_size_limit()
        table = read_table(write("a.csv", "a,b\n" + "x" * 200_000 + ",1\n"), ["a"])
        assert len(table.columns["a"][0]) == 200_000
        assert csv.field_size_limit() == limit

    def test_one_column_with_an_empty_text(self, write):
        """Prevents the predictions of a one-column file from sliding by one row at a blank line."""
        assert read_table(write("a.csv", "text\nx\n\ny\n"), ["text"]).columns["text"] == ["x", "", "y"]


class TestJsonLines:
    def test_reads(self, write):
        """Prevents changed values: texts that look like numbers stay texts, blank lines are no rows."""
        table = read_table(write("a.jsonl", '{"a": "1", "b": 1}\n\n{"b": 0, "a": "null"}\n'), ["a", "b"], ["c"])
        assert table.columns == {"a": ["1", "null"], "b": [1, 0]}
        assert table.positions == [1, 3]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('{"a": 1', "line 2 can't be read"),
            ("[1, 2]", r"got \[1, 2\] at line 2"),
            ('{"b": 1}', r"expected the column 'a' in each row; got \['b'\] at line 2"),
            ('{"a": "y", "a": "z"}', "line 2 can't be read .the key 'a' twice."),
            ('{"a": "y"} {', "line 2 can't be read .Extra data, column 12."),
            ('{"a": "\x00"}', "line 2 can't be read .Invalid control character at, column 8."),
            ('{"a": ' + "[" * 100_000, "line 2 can't be read"),
            ('{"a": ' + "1" * 5000 + "}", "line 2 can't be read"),
        ],
    )
    def test_refuses(self, write, line, words):
        """Prevents a row without its text from becoming an empty one."""
        with pytest.raises(DataError, match=words):
            read_table(write("a.jsonl", '{"a": "x"}\n' + line + "\n"), ["a"])


class TestParquet:
    def test_classes_get_their_names(self, tmp_path):
        """Prevents class numbers from losing the names that the file holds, and -1 from becoming a class."""
        features = datasets.Features({"a": datasets.Value("string"), "b": datasets.ClassLabel(names=["no", "yes"])})
        path = tmp_path / "a.parquet"
        datasets.Dataset.from_dict({"a": ["x", "NA", "z"], "b": [1, 0, -1]}, features=features).to_parquet(path)
        table = read_table(path, ["a", "b"])
        assert table.columns == {"a": ["x", "NA", "z"], "b": ["yes", "no", None]}
        assert table.class_names == {"b": ("no", "yes")}
        assert (table.unit, list(table.positions)) == ("row", [1, 2, 3])

    def test_not_a_number_is_missing(self, tmp_path):
        """Prevents 'nan' from becoming a class, where a gap turned a column of whole numbers into floats."""
        path = tmp_path / "a.parquet"
        datasets.Dataset.from_dict({"b": [1.0, float("nan"), None]}).to_parquet(path)
        assert read_table(path, ["b"]).columns == {"b": [1.0, None, None]}

    def test_text_that_is_not_utf8(self, tmp_path):
        """Prevents a UnicodeDecodeError, which names neither file nor row, from ending a run."""
        ends = pyarrow.py_buffer(np.array([0, 2, 4], dtype="int32").tobytes())
        texts = pyarrow.StringArray.from_buffers(2, ends, pyarrow.py_buffer(b"ok\xff!"))
        pyarrow.parquet.write_table(pyarrow.table({"a": texts}), tmp_path / "a.parquet")
        with pytest.raises(
            DataError, match=r"a\.parquet: expected a parquet file; .*Invalid UTF8 .* at string index 1"
        ):
            read_table(tmp_path / "a.parquet", ["a"])

    def test_same_name_twice(self, tmp_path):
        """Prevents a page of the parquet library's internal columns as the message."""
        column = pyarrow.array(["x"])
        pyarrow.parquet.write_table(pyarrow.table([column, column], names=["a", "a"]), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"expected one column of each name; got two or more of a\. Rename"):
            read_table(tmp_path / "a.parquet", ["a"])

    def test_no_parquet(self, write):
        """Prevents a message of the parquet library that names no file."""
        with pytest.raises(DataError, match=r"a\.parquet: expected a parquet file"):
            read_table(write("a.parquet", b"no parquet"), ["a"])


class TestEveryFormat:
    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.tsv", "x\ty\n1\t2\n"), ("a.csv", "x,y\n1,2\n"), ("a.jsonl", json.dumps({"x": "1", "y": "2"}))],
    )
    def test_missing_column_says_which_are_there(self, write, name, content):
        """Prevents guessing at the name of a column."""
        with pytest.raises(DataError, match=r"expected the columns x, text; got 'x', 'y' \(missing: text\)"):
            read_table(write(name, content), ["x", "text"])

    @pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
    def test_thousands_of_columns(self, write, name):
        """Prevents one wrong file from filling the terminal with the names of its columns, or with a text as one."""
        names = ["x" * 5000, *(f"c{i}" for i in range(5000))]
        separator = "\t" if name == "a.tsv" else ","
        path = write(name, separator.join(names) + "\n" + "1\n")
        for column in ("text", "c7"):
            with pytest.raises(DataError, match="and 4981 more") as error:
                read_table(path, [column])
            assert len(str(error.value)) < 600

    def test_lines_that_end_in_carriage_returns(self, write):
        """Prevents guessing at what is wrong with a file that looks right in an editor; CSV has a rule for it."""
        with pytest.raises(DataError, match="seem to end in carriage returns"):
            read_table(write("a.tsv", "a\tb\rx\t1\ry\t2\r"), ["a", "b"])
        table = read_table(write("a.csv", "a,b\rx,1\r\ny,2\r"), ["a"])
        assert (table.columns, table.positions) == ({"a": ["x", "y"]}, [2, 3])

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
    def test_not_utf8(self, write, name, mark):
        """Prevents letters of another encoding from turning into others, unseen; the offset is that of the file."""
        content = mark + b"a\tb\nx\t1\ncaf\xe9\t2\n"
        words = rf"0xe9 at line 3 \(byte offset {content.index(0xE9)}\)"
        with pytest.raises(DataError, match=words):
            read_table(write(name, content), ["a"])

    @pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
    def test_empty(self, write, name):
        """Prevents a run on no rows."""
        with pytest.raises(DataError, match="expected rows; got an empty file"):
            read_table(write(name, "\n"), ["a"])

    @pytest.mark.parametrize(("name", "content"), [("a.tsv", "a\tb\n"), ("a.csv", "a,b\n")])
    def test_header_only(self, write, name, content):
        """Prevents a run on no rows."""
        with pytest.raises(DataError, match="expected rows; got a header and nothing below it"):
            read_table(write(name, content), ["a"])

    def test_same_name_twice(self, write):
        """Prevents the choice between two columns from being left to chance."""
        with pytest.raises(DataError, match="two or more of a"):
            read_table(write("a.csv", "a,a\n1,2\n"), ["a"])

    def test_no_such_file_or_format(self, tmp_path):
        """Prevents a spreadsheet from being read as text, and a traceback for a slip in a path."""
        with pytest.raises(DataError, match="nothing there"):
            read_table(tmp_path / "a.csv", ["a"])
        with pytest.raises(DataError, match=r"expected a file ending in .csv, .* got '.xlsx'"):
            read_table(tmp_path / "a.xlsx", ["a"])


def test_table_from_dataset_takes_rows_in_order_after_a_selection():
    """Prevents the rows of the whole data set where a selection of it was given."""
    dataset = datasets.Dataset.from_dict({"a": ["x", "y", "z"], "b": [1, 2, 3]}).select([2, 0])
    table = table_from_dataset(dataset, "name", ["a"], ["b", "c"])
    assert table.columns == {"a": ["z", "x"], "b": [3, 1]}
