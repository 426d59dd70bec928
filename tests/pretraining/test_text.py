"""Text from files to rows of token ids."""

import gzip
import json
import os
import socket
import subprocess
import sys

import datasets
import pyarrow as pa
import pytest

from distilbert_kd.errors import DataError
from distilbert_kd.pretraining import text as text_module
from distilbert_kd.pretraining.text import HubSource, TextSource, tokenized_text, written_text
from tests.tiny import tiny_tokenizer


TOKENIZER = tiny_tokenizer()
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
TEXTS = ["a good film", "the plot is weak and the cast is dull", "funny"]


@pytest.fixture
def folder(tmp_path):
    """The same three texts as .txt and .txt.gz (two files), .jsonl, .csv and .parquet, each in a folder of its own."""
    for name in ("txt", "jsonl", "csv", "parquet"):
        (tmp_path / name).mkdir()
    (tmp_path / "txt" / "1.txt").write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n   \n", encoding="utf-8")
    with gzip.open(tmp_path / "txt" / "2.txt.gz", "wt", encoding="utf-8") as file:
        file.write(TEXTS[2])
    lines = [json.dumps({"body": text, "n": i}) for i, text in enumerate([*TEXTS, None])]
    (tmp_path / "jsonl" / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "csv" / "a.csv").write_text("n,body\n" + "".join(f'1,"{text}"\n' for text in TEXTS), encoding="utf-8")
    datasets.Dataset.from_dict({"body": TEXTS}).to_parquet(tmp_path / "parquet" / "a.parquet")
    return tmp_path


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def rows_of(folder, *patterns, column="body", **settings):
    source = TextSource(tuple(str(folder / pattern) for pattern in patterns), column=column, **settings)
    return tokenized_text(source, TOKENIZER, folder / "cache").rows["input_ids"][:]


@pytest.mark.parametrize("pattern", ["txt", "txt/*", "**/*.txt*", "jsonl", "csv/a.csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(folder, pattern):
    """Prevents a kind of file that reads other text, blank lines as rows, and rows without a text."""
    column = "text" if "txt" in pattern else "body"
    rows = rows_of(folder, pattern, column=column, packing="sentences", max_length=64)
    assert rows == [[CLS, *ids_of(text), SEP] for text in TEXTS]


def test_data_sets_follow_each_other(folder):
    """Prevents all but one of several corpora from being left out; a folder stands for a data set of the Hub."""
    sources = tuple(HubSource(str(folder / name)) for name in ("jsonl", "parquet"))
    source = TextSource(datasets=sources, column="body", packing="sentences", max_length=64)
    text = tokenized_text(source, TOKENIZER, folder / "cache")
    assert text.rows["input_ids"][:] == [[CLS, *ids_of(words), SEP] for words in (*TEXTS, *TEXTS)]
    assert text.source == f"{folder / 'jsonl'} train, {folder / 'parquet'} train"


def test_sentences_are_cut(folder):
    """Prevents rows that the models have no positions for."""
    rows = rows_of(folder, "jsonl", packing="sentences", max_length=6)
    assert rows == [[CLS, *ids_of(text)[:4], SEP] for text in TEXTS]


def test_blocks_hold_every_token_once(folder):
    """Prevents tokens that are lost or doubled where blocks meet, and texts without a mark between them."""
    rows = rows_of(folder, "jsonl", packing="blocks", max_length=6)
    assert all(row[0] == CLS and row[-1] == SEP for row in rows)
    assert [len(row) for row in rows[:-1]] == [6] * (len(rows) - 1)
    joined = [token for row in rows for token in row[1:-1]]
    last = [SEP] if joined[-1] == SEP else []  # stays where it fills a block
    assert joined == [*ids_of(TEXTS[0]), SEP, *ids_of(TEXTS[1]), SEP, *ids_of(TEXTS[2]), *last]


def test_blocks_do_not_depend_on_how_much_is_read_at_a_time(folder, monkeypatch):
    """Prevents a remainder that is thrown away each thousand texts."""
    at_once = rows_of(folder, "jsonl", packing="blocks", max_length=6)
    monkeypatch.setattr(text_module, "_AT_A_TIME", 1)
    (cached,) = (folder / "cache").glob("*.arrow")
    cached.unlink()
    assert rows_of(folder, "jsonl", packing="blocks", max_length=6) == at_once


def test_no_more_than_the_wanted_rows(folder):
    """Prevents a smoke test that reads all of Wikipedia."""
    assert len(rows_of(folder, "jsonl", packing="sentences", max_rows=2)) == 2


def test_text_is_tokenised_once_until_something_changes(folder, monkeypatch):
    """Prevents hours of tokenising at each start, and rows of a file that has changed since."""
    before = rows_of(folder, "txt", column="text", packing="sentences")
    with monkeypatch.context() as patch:
        patch.setattr(text_module, "_texts", lambda *_: pytest.fail("it is read again"))
        assert rows_of(folder, "txt", column="text", packing="sentences") == before
    (folder / "txt" / "1.txt").write_text("worst film ever", encoding="utf-8")
    assert rows_of(folder, "txt", column="text", packing="sentences")[0] == [CLS, *ids_of("worst film ever"), SEP]
    assert len(list((folder / "cache").glob("*.arrow"))) == 2


@pytest.mark.parametrize("how", ["flipped", "cut", "cut after a batch", "empty", "no record", "broken record"])
def test_a_damaged_file_is_written_anew(folder, caplog, monkeypatch, how):
    """Prevents a training on half a corpus, or on other words than the text's, after a fault of the disk."""
    monkeypatch.setattr(text_module, "_AT_A_TIME", 1)  # one row a batch
    source = TextSource((str(folder / "jsonl"),), column="body", packing="sentences", max_length=18)
    cache = folder / "cache"
    before = tokenized_text(source, TOKENIZER, cache).rows["input_ids"][:]
    (cached,) = cache.glob("*.arrow")
    record = cached.with_suffix(".json")
    whole = cached.read_bytes()
    with pa.OSFile(str(cached)) as file, pa.ipc.open_stream(file) as stream:
        stream.read_next_batch()
        place = file.tell()
    damaged = {
        "flipped": whole[: place - 8] + bytes([whole[place - 8] ^ 1]) + whole[place - 7 :],
        "cut": whole[: place - 8],
        "cut after a batch": whole[:place],
        "empty": b"",
    }
    if how in damaged:
        cached.unlink()  # the rows that are mapped stay as they are
        cached.write_bytes(damaged[how])
    else:
        record.write_text("{") if how == "broken record" else record.unlink()
    assert written_text(source, TOKENIZER, cache)[1] is None
    with caplog.at_level("WARNING", "distilbert_kd"):
        assert tokenized_text(source, TOKENIZER, cache).rows["input_ids"][:] == before
    assert f"text: the file {cached} is damaged" in caplog.text
    assert cached.read_bytes() == whole
    caplog.clear()
    assert written_text(source, TOKENIZER, cache)[1] is not None
    tokenized_text(source, TOKENIZER, cache)
    assert caplog.text == ""


def test_what_is_cut_off_leaves_nothing_that_looks_whole(folder, monkeypatch):
    """Prevents half a corpus from being taken for the whole one after a crash."""

    def texts(*_):
        yield "a film"
        raise KeyboardInterrupt

    monkeypatch.setattr(text_module, "_texts", texts)
    monkeypatch.setattr(text_module, "_AT_A_TIME", 1)  # so that a row is written before
    with pytest.raises(KeyboardInterrupt):
        rows_of(folder, "jsonl", packing="sentences")
    assert list((folder / "cache").iterdir()) == []


def test_what_a_killed_process_was_building_is_removed(folder):
    """Prevents a cache that grows by a corpus with each kill; what others build in it stays."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = f".building-{socket.gethostname()}"
    names = [f"{here}-{gone.pid}-a", f"{here}-{os.getpid()}-b", f".building-elsewhere-{gone.pid}-c"]
    for name in names:
        (cache / name).write_text("half")
    rows_of(folder, "jsonl", packing="sentences", max_length=19)
    assert sorted(path.name for path in cache.glob(".building-*")) == sorted(names[1:])


def test_words_that_look_like_special_tokens_are_words(tmp_path):
    """Prevents a [PAD] in a text from being read as padding, and a [SEP] as the end of it."""
    (tmp_path / "a.txt").write_text("a [PAD] film [SEP] good\n", encoding="utf-8")
    text = tokenized_text(TextSource((str(tmp_path / "a.txt"),), packing="sentences"), TOKENIZER, tmp_path / "cache")
    (row,) = text.rows["input_ids"][:]
    special = {TOKENIZER.pad_token_id, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id}
    assert row[0] == TOKENIZER.cls_token_id and row[-1] == TOKENIZER.sep_token_id
    assert not special & set(row[1:-1])


def test_hidden_files_of_a_folder_are_left_alone(tmp_path):
    """Prevents an editor's copy of a file from being read beside the file."""
    for name in ("a.TXT", ".a.txt"):
        (tmp_path / "texts" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text(f"{name}\n", encoding="utf-8")
    text = tokenized_text(TextSource((str(tmp_path / "texts"),), packing="sentences"), TOKENIZER, tmp_path / "cache")
    assert len(text.rows) == 1 and text.source.endswith("a.TXT")


def test_the_rows_are_mapped_from_disk(folder):
    """Prevents a corpus that has to fit into memory."""
    source = TextSource((str(folder / "jsonl"),), column="body")
    text = tokenized_text(source, TOKENIZER, folder / "cache")
    assert [file["filename"] for file in text.rows.cache_files] == [str(folder / "cache" / f"{text.key}.arrow")]
    assert text.num_tokens == sum(len(row) for row in text.rows["input_ids"])
    assert str(text.rows.features["input_ids"].feature.dtype) == "uint16"


@pytest.mark.parametrize(
    ("patterns", "settings", "message"),
    [
        (["missing/*.txt"], {}, "for which there are none"),
        (["txt", "jsonl"], {}, "files of one kind, got .jsonl, .txt"),
        (["jsonl"], {"column": "text"}, "a.jsonl: expected one column 'text'; got body, n at line 1"),
        (["../other.doc"], {}, "names that end in"),
        (["blank.txt"], {"column": "text"}, "got none"),
        (["broken.jsonl"], {}, "broken.jsonl: expected one JSON object in each line; line 1 can't be read"),
    ],
)
def test_text_that_cannot_be_read_is_refused(folder, patterns, settings, message):
    """Prevents a run on no text, or on the file names' text, from ending in a library's traceback."""
    (folder.parent / "other.doc").write_text("x", encoding="utf-8")
    (folder / "blank.txt").write_text("\n \n", encoding="utf-8")
    (folder / "broken.jsonl").write_text('{"body": "a"\n{', encoding="utf-8")
    with pytest.raises(DataError, match=message):
        rows_of(folder, *patterns, **settings)
