"""What is done to words without a model."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilbert_kd.augmentation.words import chosen, core_of, cropped, deleted, replaceable, replaced, swapped


WORDS = st.lists(st.sampled_from(["a", "clever", "film", ",", "not", "bad"]), max_size=12)
FRACTION = st.floats(0.01, 1.0)
SEED = st.integers(0, 1000)


@given(words=WORDS, fraction=FRACTION, seed=SEED)
def test_deletion_leaves_a_text_and_changes_it(words, fraction, seed):
    """Prevents empty rows, copies equal to their row, and words in another order."""
    found = deleted(words, fraction, Random(seed))
    if len(words) < 2:
        assert found == words
        return
    assert 1 <= len(found) < len(words)
    rest = iter(words)
    assert all(word in rest for word in found)


@given(words=WORDS, fraction=FRACTION, seed=SEED)
def test_a_span_is_a_part_of_the_text(words, fraction, seed):
    """Prevents a crop that skips words, or takes more or less than the fraction says."""
    found = cropped(words, fraction, Random(seed))
    if len(words) < 2:
        assert found == words
        return
    assert found in [words[start : start + len(found)] for start in range(len(words))]
    assert len(found) == min(max(round((1 - fraction) * len(words)), 1), len(words) - 1)


@given(words=WORDS, fraction=FRACTION, seed=SEED)
def test_swapping_keeps_every_word(words, fraction, seed):
    """Prevents a swap that loses or doubles a word."""
    assert sorted(swapped(words, fraction, Random(seed))) == sorted(words)


def test_as_many_words_move_as_the_fraction_says():
    """Prevents a strength that means something else for each scheme."""
    words = [str(number) for number in range(1000)]
    moved = sum(new != old for new, old in zip(swapped(words, 0.3, Random(0)), words, strict=True))
    assert 240 <= moved <= 300
    assert 650 <= len(deleted(words, 0.3, Random(0))) <= 750
    assert 250 <= len(chosen(range(1000), 0.3, Random(0))) <= 350


def test_one_word_is_chosen_where_chance_gives_none():
    """Prevents copies of short texts that are all dropped as equal to their row."""
    assert all(len(chosen([4, 7], 1e-9, Random(seed))) == 1 for seed in range(20))
    assert chosen([], 0.5, Random(0)) == []


def test_only_words_of_letters_are_replaced():
    """Prevents a year, a price or a full stop from becoming a word."""
    assert replaceable(["a", "--", "2006", "film's", "(clever)", "R2D2", "Ärger!", ""]) == [0, 4, 6]


@pytest.mark.parametrize(
    ("word", "core", "expected"),
    [("film", "plot", "plot"), ("Film,", "plot", "Plot,"), ("(film)!", "Plot", "(Plot)!"), ("FILM", "plot", "Plot")],
)
def test_a_replacement_keeps_what_stands_around_it(word, core, expected):
    """Prevents lost punctuation, and sentences that begin with a small letter for a cased model."""
    assert replaced(word, core) == expected
    assert core_of(word).casefold() == "film"
