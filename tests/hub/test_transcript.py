"""The transcript in the documents is what the commands print today."""

import pytest

from tests.hub.transcript import BEGIN, END, transcript, write_into


@pytest.mark.slow
def test_each_step_ends_as_it_must(made):
    """A transcript that nobody can repeat is a story: each command is run, the mistakes and the load back too."""
    text = transcript(made)
    for words in (
        "expected a token that https://huggingface.co knows, got one that it refuses",
        "a token that may write, got a read-only one of ada",
        "nothing was sent. to look at: ",
        "loaded back from ada/movie-reviews at v1.0",
        "the student had not changed and was not sent again",
        "to be private, as asked, got a public repository",
        "$ python use.py\n[{'label': '",
    ):
        assert words in text.lower(), words
    assert "127.0.0.1" not in text and "hf_" not in text


def test_it_is_put_between_the_marks(tmp_path):
    """A page with its marks gone must be said, and not be left as it was in silence."""
    page = tmp_path / "hub.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_into(page, "new \\1")
    assert page.read_text("utf-8") == f"before\n{BEGIN}\nnew \\1\n{END}\nafter\n"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="once in"):
        write_into(page, "new")
