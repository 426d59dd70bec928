"""Unlabelled text as rows of token ids.

Text of any size is read as a stream, tokenised once, and written to an Arrow file that is then mapped into memory:
never more than some thousand texts, or rows, are in memory. A file that is mapped, unlike a stream, has
rows with numbers. So the rows are shuffled as a whole and not within a buffer, a sampler decides which process reads
which row, and a training that is resumed goes on at its row without reading those before it.

Beside the file stands its size and SHA-256. A damaged file counts as none, and is written anew.
"""

import glob
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeVar

import datasets
import pyarrow as pa
from accelerate import PartialState
from huggingface_hub.constants import HF_HOME
from transformers import PreTrainedTokenizerBase

from distilbert_kd.compatibility import tokenizer_identity
from distilbert_kd.data.file_rows import shortened
from distilbert_kd.errors import DataError
from distilbert_kd.pretraining.text_files import TEXT_ENDINGS, ending_of, file_texts
from distilbert_kd.processes import failing_together
from distilbert_kd.storage import (
    building_prefix,
    file_record,
    remove_abandoned,
    storage_errors,
    sync,
    write_text,
)


__all__ = ["DEFAULT_CACHE_DIR", "HubSource", "TextSource", "TokenizedText", "tokenized_text", "written_text"]

logger = logging.getLogger(__name__)

DEFAULT_CACHE_DIR = Path(HF_HOME) / "distilbert_kd" / "text"

#: Changes when the meaning of a tokenised file does.
_FORMAT = 3
#: Texts that are tokenised, and rows that are written, in one go.
_AT_A_TIME = 1000

Item = TypeVar("Item")


@dataclass(frozen=True)
class HubSource:
    """A split of a data set of the Hub, or of a folder."""

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None


@dataclass(frozen=True)
class TextSource:
    """Where text comes from, and how it becomes rows.

    Attributes:
        files: Paths, patterns and folders; or
        datasets: Of the Hub, one after the other.
        column: Of the text; a .txt file has one text a line.
        packing: "blocks": texts one after the other, a separator between them, cut into rows of `max_length`;
            "sentences": one row for each text, cut at `max_length`.
        max_length: Tokens of a row, special ones included.
        max_rows: The first so many rows.
    """

    files: tuple[str, ...] = ()
    datasets: tuple[HubSource, ...] = ()
    column: str = "text"
    packing: Literal["blocks", "sentences"] = "blocks"
    max_length: int = 512
    max_rows: int | None = None


@dataclass(frozen=True)
class TokenizedText:
    """Rows of token ids, special tokens included.

    Attributes:
        rows: The column `input_ids`, mapped from disk.
        num_tokens: Special tokens included.
        key: SHA-256 over what the rows depend on.
        source: One line, for people.
    """

    rows: datasets.Dataset
    num_tokens: int
    key: str
    source: str


def tokenized_text(
    source: TextSource, tokenizer: PreTrainedTokenizerBase, cache_dir: Path = DEFAULT_CACHE_DIR
) -> TokenizedText:
    """The rows of a source: found where they were written before, or read, tokenised and written.

    They are found by the tokenizer, the settings, and path, size and time of each file. What changes on the Hub under
    the same revision is not noticed. In a distributed run every process calls this, and one of each machine writes.

    Args:
        source: the text.
        tokenizer: of the teacher and the student.
        cache_dir: for the files, by key.

    Returns:
        The rows.

    Raises:
        DataError: no file is found, they are of several kinds or malformed, a column is missing, or there is no text
            at all.
        StorageError: the rows can't be written.
    """
    files = _found(source.files)
    path = _path(source, files, tokenizer, cache_dir)
    with failing_together():
        if PartialState().is_local_main_process and not _is_whole(path):
            if path.is_file():
                logger.warning("text: the file %s is damaged, or has no record; it is written anew", path)
            logger.info("text: reading and tokenising %s, once", _described(source, files))
            ids = islice(_rows(_texts(source, files), tokenizer, source), source.max_rows)
            first = next(ids, None)
            if first is None:
                raise DataError(f"Expected text in {_described(source, files)}, got none. Is it the right file?")
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, chain([first], ids), len(tokenizer))
    return _read(path, source, files)


def written_text(
    source: TextSource, tokenizer: PreTrainedTokenizerBase, cache_dir: Path = DEFAULT_CACHE_DIR
) -> tuple[str, TokenizedText | None]:
    """What is known of a source without reading it.

    Args:
        source: the text.
        tokenizer: of the teacher and the student.
        cache_dir: where `tokenized_text` writes.

    Returns:
        One line that says what it is, and its rows if `tokenized_text` wrote them before, and they are whole.

    Raises:
        DataError: no file is found, or they are of several kinds.
    """
    files = _found(source.files)
    path = _path(source, files, tokenizer, cache_dir)
    return _described(source, files), _read(path, source, files) if _is_whole(path) else None


def _path(source: TextSource, files: list[Path], tokenizer: PreTrainedTokenizerBase, cache_dir: Path) -> Path:
    return cache_dir / f"{_key(source, files, tokenizer)}.arrow"


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_whole(path: Path) -> bool:
    try:
        return bool(json.loads(_record(path).read_text(encoding="utf-8")) == file_record(path))
    except (OSError, ValueError):
        return False


def _read(path: Path, source: TextSource, files: list[Path]) -> TokenizedText:
    rows = datasets.Dataset.from_file(str(path))
    num_tokens = sum(len(chunk.values) for chunk in rows.data.column("input_ids").chunks)
    return TokenizedText(rows, num_tokens, path.stem, _described(source, files))


def _found(patterns: Iterable[str]) -> list[Path]:
    """The files that paths, patterns and folders stand for, each once, in the order of their paths."""
    found: set[Path] = set()
    for pattern in patterns:
        paths = [Path(path) for path in glob.glob(pattern, recursive=True)] or [Path(pattern)]
        files = [file for path in paths for file in ([path] if not path.is_dir() else _below(path))]
        if not files or not all(file.is_file() for file in files):
            raise DataError(
                f"text.files: expected files that are there, got {pattern!r}, for which there are none. Paths start "
                "where the command runs; a folder is searched for "
                + ", ".join(TEXT_ENDINGS)
                + ", each with .gz or not."
            )
        found |= {file.absolute() for file in files}
    for file in found:
        if ending_of(file) not in TEXT_ENDINGS:
            raise DataError(
                f"text.files: expected names that end in {', '.join(TEXT_ENDINGS)}, with or without .gz; got {file}."
            )
    kinds = sorted({ending_of(file) for file in found})
    if len(kinds) > 1:
        raise DataError(f"text.files: expected files of one kind, got {', '.join(kinds)}.")
    return sorted(found)


def _below(folder: Path) -> list[Path]:
    """Hidden files are nobody's text: those of an editor, or of a copy that is under way."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and ending_of(file) in TEXT_ENDINGS and not file.name.startswith(".")
    ]


def _described(source: TextSource, files: list[Path]) -> str:
    if source.datasets:
        return ", ".join(" ".join(filter(None, (one.dataset, one.config, one.split))) for one in source.datasets)
    return str(files[0]) if len(files) == 1 else f"{len(files)} files, {files[0]} first"


def _key(source: TextSource, files: list[Path], tokenizer: PreTrainedTokenizerBase) -> str:
    parts = {
        "format": _FORMAT,
        "source": {name: value for name, value in asdict(source).items() if name != "files"},
        "files": [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        "tokenizer": tokenizer_identity(tokenizer),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _texts(source: TextSource, files: list[Path]) -> Iterator[str]:
    """The texts that are not blank, one after the other."""
    each = [file_texts(file, source.column) for file in files] or [_hub_texts(one, source) for one in source.datasets]
    num_blank = num_texts = 0
    for text in chain.from_iterable(each):
        num_texts += 1
        if text.strip():
            yield text
        else:
            num_blank += 1
    if num_blank:
        logger.info("text: %d of %d texts are blank and left out", num_blank, num_texts)


def _hub_texts(one: HubSource, source: TextSource) -> Iterator[str]:
    """As `file_texts`; the rows of a data set have no lines that could be named."""
    described = _described(source, [])
    try:
        rows = datasets.load_dataset(one.dataset, one.config, split=one.split, revision=one.revision, streaming=True)
        for row in rows:
            if source.column not in row:
                raise DataError(f"text.column: expected one of {', '.join(row)}, got {source.column!r}. Correct it.")
            text = row[source.column]
            if text is not None and not isinstance(text, str):
                raise DataError(
                    f"{one.dataset}: expected text in the column {source.column!r}, got {shortened(text)}. Correct "
                    "text.column."
                )
            yield text or ""
    except DataError:
        raise
    except Exception as error:  # of any family: `datasets` lets those of the format's reader through
        reason = " ".join(str(error).split())
        raise DataError(
            f"Expected text that can be read in {described}, got {type(error).__name__}: {reason}. "
            "Mend the files, or correct the section text."
        ) from error


def _rows(texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, source: TextSource) -> Iterator[list[int]]:
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise DataError(f"Expected a tokenizer with CLS and SEP, got {type(tokenizer).__name__} without.")
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    room = source.max_length - 2
    waiting: list[int] = []
    for some in _some(texts):
        for ids in tokenizer(some, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]:
            if source.packing == "sentences":
                yield [start, *ids[:room], end]
                continue
            waiting += [*ids, end]
            whole = len(waiting) // room * room
            for first in range(0, whole, room):
                yield [start, *waiting[first : first + room], end]
            del waiting[:whole]
    if waiting[:-1]:
        yield [start, *waiting[:-1], end]


def _some(items: Iterator[Item]) -> Iterator[list[Item]]:
    while some := list(islice(items, _AT_A_TIME)):
        yield some


def _write(path: Path, rows: Iterator[list[int]], num_ids: int) -> None:
    """An Arrow stream, which gets its name when all of it is written."""
    kind = pa.list_(pa.uint16() if num_ids <= 2**16 else pa.int32())
    schema = pa.schema({"input_ids": kind})
    remove_abandoned(path.parent)
    handle, partial = tempfile.mkstemp(prefix=building_prefix(), dir=path.parent)
    os.close(handle)
    try:
        with pa.OSFile(partial, "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for some in _some(rows):
                stream.write_batch(pa.record_batch([pa.array(some, kind)], schema=schema))
        sync(Path(partial))
        write_text(_record(path), json.dumps(file_record(Path(partial))))  # first: no reader finds rows without one
        os.replace(partial, path)
        sync(path.parent)
    finally:
        Path(partial).unlink(missing_ok=True)
