"""The demo's data: the split file, the labels, and what is refused; nothing is downloaded."""

import importlib.util
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "recipes" / "demo" / "get_movie_reviews.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("get_movie_reviews", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_split_file(script):
    """Prevents test rows among the training rows after a slip in the committed file."""
    content = script.SPLIT_FILE.read_text(encoding="utf-8")
    ranges = [line.split() for line in content.splitlines() if not line.startswith("#")]
    ends = [0, *(int(last) for _, last, _ in ranges)]
    assert [int(first) for first, _, _ in ranges] == [end + 1 for end in ends[:-1]]
    assert Counter(script.read_split(content).values()) == {"train": 7613, "validation": 992, "test": 1980, "none": 20}


def test_labels(script):
    """Prevents turned-round labels, and rows that raters did not agree on from getting one."""
    lines = ["1\t0.5\tgood", "2\t-0.5\tbad", "3\t0.4\tfair", "4\t2\tgood too", "5\t-1.25\tbad \u2028too", "6\t3\tout"]
    split = {1: "train", 2: "train", 3: "train", 4: "test", 5: "validation", 6: "none"}
    splits = script.labelled_reviews("".join(f"{line}\r\n" for line in lines), split)
    assert splits == {
        "train": [{"text": "good", "label": "positive"}, {"text": "bad", "label": "negative"}],
        "validation": [{"text": "bad \u2028too", "label": "negative"}],
        "test": [{"text": "good too", "label": "positive"}],
    }


@pytest.mark.parametrize("line", ["1\t0.5", "x\t0.5\ta", "1\tnone\ta", "99\t1\ta"])
def test_bad_line(script, line):
    """Prevents another archive from being read as far as it goes."""
    with pytest.raises(script.DemoDataError, match="line 2: expected id, mean rating and text"):
        script.labelled_reviews(f"1\t1\ta\r\n{line}\r\n", {1: "train"})


def archive_of(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_snippets_are_found_in_both_archives(script):
    """Prevents a reader that works on unpacked files only."""
    inner = archive_of(script.SNIPPETS, "1\t1\tcaf\xe9\r\n".encode())
    assert script._snippets(archive_of(script.INNER_ARCHIVE, inner)) == "1\t1\tcaf\xe9\r\n"
    with pytest.raises(script.DemoDataError, match="expected the file .*hutto_ICWSM_2014.tar.gz in the archive"):
        script._snippets(archive_of("other", b""))


def test_other_archive_is_refused(script, tmp_path):
    """Prevents training on rows that are not the demo's."""
    with pytest.raises(script.DemoDataError, match="got another file"):
        script.write_reviews(b"another", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_whole_files_are_kept(script, tmp_path, monkeypatch, capsys):
    """Prevents a download each time, and files cut short from being taken for whole."""
    monkeypatch.setattr(script, "SHA256", script.hashlib.sha256(b"sdist").hexdigest())
    snippets = "1\t1\tgood\r\n2\t-1\tbad\r\n3\t1\tfine\r\n"
    monkeypatch.setattr(script, "_snippets", lambda sdist: snippets)
    monkeypatch.setattr(script, "read_split", lambda content: {1: "train", 2: "validation", 3: "test"})
    rows = {"train": ("good", "positive"), "validation": ("bad", "negative"), "test": ("fine", "positive")}
    files = {name: f'{{"text": "{text}", "label": "{label}"}}\n'.encode() for name, (text, label) in rows.items()}
    expected = {
        name: (1, int(rows[name][1] == "positive"), script.hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }
    monkeypatch.setattr(script, "EXPECTED", expected)
    downloads = []
    monkeypatch.setattr(script, "_download", lambda: downloads.append(1) or b"sdist")
    folder = tmp_path / "new" / "folder"
    assert script.main([str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{name}.jsonl": content for name, content in files.items()
    }
    assert json.loads(files["train"])["label"] == "positive"
    assert script.main([str(folder)]) == 0
    assert downloads == [1]
    (folder / "test.jsonl").write_bytes(files["test"][:-5])
    assert script.main([str(folder)]) == 0
    assert downloads == [1, 1]
    assert "Hutto & Gilbert" in capsys.readouterr().out


def test_no_index_within_reach(script, tmp_path, monkeypatch, capsys):
    """Prevents a traceback where pip can't get the package, and files left half done."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert script.main([str(tmp_path / "out")]) == 2
    assert "pip could not get vaderSentiment 3.3.2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
