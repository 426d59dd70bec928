"""Texts of local files: read as a task's files are, and refused with file and line."""

import gzip
import logging
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from distilbert_kd.errors import DataError
from distilbert_kd.pretraining.text import TextSource, tokenized_text
from distilbert_kd.pretraining.text_files import file_texts
from tests.tiny import tiny_tokenizer


@pytest.fixture
def texts(tmp_path):
    """The texts of a file with this content; a table becomes parquet."""

    def read(name, content):
        path = tmp_path / name
        if isinstance(content, pyarrow.Table):
            pyarrow.parquet.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(file_texts(path, "text"))

    return read


WORDS = ["null", "NA", "nan", "None", "#N/A", "1", ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(WORDS) + "\n"),
        ("a.csv", "n,text\n" + "".join(f"1,{word}\n" for word in WORDS)),
        ("a.jsonl", "".join(f'{{"text": "{word}"}}\n' for word in WORDS)),
        ("a.parquet", pyarrow.table({"text": WORDS})),
    ],
)
def test_words_for_nothing_are_texts(texts, name, content):
    """The usual reader of CSV loses the texts null and NA, and all texts of a file of numbers, without a word."""
    assert texts(name, content) == WORDS


def test_texts_as_they_are(texts):
    """Texts would be cut at a NUL, at U+2028 or in a quote, or begin with a mark that no editor shows."""
    lines = ["a\x00b", "a\u2028b\x0c\x85", '"open', "x" * 1_000_000]
    assert texts("a.txt", b"\xef\xbb\xbf" + "\r\n".join(lines).encode()) == lines
    assert texts("a.csv", 'text,n\n"a, ""b""\n c",1\n') == ['a, "b"\n c']
    assert texts("a.txt.gz", gzip.compress("\n".join(lines).encode())) == lines


def test_none_is_blank(texts):
    """A corpus with gaps could not be read, as those of the Hub have."""
    assert texts("a.jsonl", '{"text": null}\n{"text": "x"}\n') == ["", "x"]
    assert texts("a.parquet", pyarrow.table({"text": [None, "x"]})) == ["", "x"]


def not_utf8(num_good):
    """A column whose last text is the byte 0xff."""
    content = b"a" * num_good + b"\xff"
    ends = pyarrow.py_buffer(np.arange(num_good + 2, dtype="int32").tobytes())
    return pyarrow.StringArray.from_buffers(num_good + 1, ends, pyarrow.py_buffer(content))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"x\ncaf\xe9\n", "expected UTF-8; got the byte 0xe9 at line 2"),
        ("a.csv", b"text,n\nx,1\ncaf\xe9,1\n", "expected UTF-8; got the byte 0xe9 at line 3"),
        ("a.csv", "text,n\n" + "x\n" * 7, "got 1 at line 2, 1 at line 3, .* 1 at line 6 and 2 more"),
        ("a.csv", 'text,n\nx,1\n"open,1\nx,1\n', "a row starting at line 3 that can't be read"),
        ("a.csv", "body,n\nx,1\n", "expected one column 'text'; got body, n"),
        ("a.csv", "text,text\nx,1\n", "expected one column 'text'; got text, text"),
        ("a.csv", "", "expected one column 'text'; got no column"),
        ("a.jsonl", '{"text": "x"}\n{"body": "x"}\n', "expected one column 'text'; got body at line 2"),
        ("a.jsonl", '{"text": "x"}\n{"text": "x"\n', "line 2 can't be read .Expecting ',' delimiter, column 13"),
        ("a.jsonl", '{"text": 1}\n' * 9, "got 1 at line 1, .* 1 at line 5. Write texts in quotes"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"got '.ud800' at line 1.*Half of a surrogate pair"),
        ("a.parquet", pyarrow.table({"text": [1, 2]}), "got 1 at row 1, 2 at row 2"),
        ("a.parquet", pyarrow.table({"text": not_utf8(1004)}), "index 4, counted from 0 after row 1000"),
        ("a.parquet", b"", "expected a .parquet file; it can't be read"),
        ("a.txt.gz", b"plain", "expected a .gz file; it can't be read"),
        ("a.txt.gz", gzip.compress(os.urandom(10_000))[:-300], "it can't be read|expected UTF-8"),
        ("a.txt.gz", gzip.compress(b"x\n" * 9999)[:-9], "it can't be read .Compressed file ended"),
    ],
)
def test_refused_with_file_and_line(texts, tmp_path, name, content, words):
    """Hours of reading would end in a library's traceback, or with rows that nobody missed."""
    with pytest.raises(DataError, match=words) as error:
        texts(name, content)
    assert str(error.value).startswith(f"{tmp_path / name}: ")


def test_no_text_after_a_bad_one(tmp_path):
    """A corpus would be tokenised for hours before its error is told."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"text": 1}\n{"text": "y"}\n')
    found = file_texts(path, "text")
    assert next(found) == "x"
    with pytest.raises(DataError, match="got 1 at line 2"):
        next(found)


def test_nothing_is_written_and_blank_texts_are_counted(tmp_path, caplog):
    """An empty corpus would be found in the cache at the next start; lost lines would be seen by nobody."""
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "some.txt").write_text("a film\n\n \na plot\n")
    source = TextSource((str(tmp_path / "blank.txt"),), packing="sentences")
    with pytest.raises(DataError, match="blank.txt, got none"):
        tokenized_text(source, tiny_tokenizer(), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with caplog.at_level(logging.INFO, "distilbert_kd"):
        source = TextSource((str(tmp_path / "some.txt"),), packing="sentences")
        assert len(tokenized_text(source, tiny_tokenizer(), tmp_path / "cache").rows) == 2
    assert "2 of 4 texts are blank and left out" in caplog.text
