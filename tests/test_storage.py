"""Files are written whole or not at all."""

import errno
import os

import pytest
from safetensors import SafetensorError

from distilbert_kd.errors import StorageError
from distilbert_kd.storage import is_storage_fault, new_file, storage_errors, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_fault_leaves_the_old_file(tmp_path, monkeypatch):
    # A results.json cut short by a full disk would mark a run as finished.
    path = tmp_path / "a.json"
    write_text(path, "old")

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match=f"{path}, got: the disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_new_file_replaces_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(StorageError, match="a file is in the way"), new_file(path) as file:
        file.write("other")
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_the_rights_of_a_new_file_are_the_users(tmp_path):
    # A temporary file is the user's alone; a colleague could not read the predictions.
    with new_file(tmp_path / "a.csv") as file:
        file.write("x")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_of_a_library_is_let_through(tmp_path):
    # Libraries raise OSError for a model that the Hub doesn't know; that is no fault of the disk.
    error = OSError("no such model")
    with pytest.raises(OSError, match="no such model") as raised, storage_errors(tmp_path):
        raise error
    assert raised.value is error
    assert not is_storage_fault(error)
    assert is_storage_fault(OSError(errno.EROFS, "Read-only file system"))


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EMFILE, errno.ECHILD, errno.ENOMEM, errno.ENOENT])
def test_what_is_no_fault_of_the_disk_is_let_through(tmp_path, number):
    # A whole training is inside: a lost connection would be taken for a full disk, and the disk be searched.
    error = OSError(number, os.strerror(number), "/usr/lib/somewhere")
    with pytest.raises(OSError, match=os.strerror(number)) as raised, storage_errors(tmp_path):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EIO, "the disk can't be read or written"),
        (errno.ESTALE, "the shared file system has lost the file"),
        (errno.EISDIR, "a folder is in the way"),
    ],
)
def test_a_fault_of_the_disk_is_said_in_words(tmp_path, number, words):
    # A traceback in the night says nothing of what to do.
    with pytest.raises(StorageError, match=f"Expected to write {tmp_path}, got: {words}"), storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_folder_that_was_removed_meanwhile_is_said(tmp_path):
    # A cleaner of a scratch disk takes the run's folder away; a missing file of a library is none of it (above).
    with pytest.raises(StorageError, match="got: No such file"):
        write_text(tmp_path / "gone" / "a.json", "x")


def test_a_fault_of_safetensors_is_said(tmp_path):
    # It has an error of its own for a full disk, which is no OSError.
    with pytest.raises(StorageError, match="got: the disk is full"), storage_errors(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
