"""A text as words, and what is done to them without asking a model.

A word is what stands between blanks. Of a word with punctuation around it only the core is replaced.
"""

import re
from collections.abc import Sequence
from random import Random


__all__ = ["chosen", "core_of", "cropped", "deleted", "replaceable", "replaced", "swapped"]

_PARTS = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


def core_of(word: str) -> str:
    """The word without the punctuation around it; empty for punctuation alone."""
    return _parts(word)[1]


def _parts(word: str) -> tuple[str, str, str]:
    found = _PARTS.fullmatch(word)
    assert found is not None  # every part may be empty
    before, core, after = found.groups()
    return before, core, after


def replaceable(words: Sequence[str]) -> list[int]:
    """Positions of the words that are letters alone; numbers, names with digits and punctuation stay."""
    return [position for position, word in enumerate(words) if core_of(word).isalpha()]


def chosen(positions: Sequence[int], fraction: float, random: Random) -> list[int]:
    """Each position with probability `fraction`, and one at random where that gives none."""
    drawn = [position for position in positions if random.random() < fraction]
    return drawn or ([random.choice(positions)] if positions else [])


def replaced(word: str, core: str) -> str:
    """The word with another core: punctuation around it stays, and so does a capital at its start."""
    before, old, after = _parts(word)
    if old[:1].isupper():
        core = core[:1].upper() + core[1:]
    return f"{before}{core}{after}"


def deleted(words: Sequence[str], fraction: float, random: Random) -> list[str]:
    """Each word left out with probability `fraction`: at least one is, and at least one stays."""
    if len(words) < 2:
        return list(words)
    lost = set(chosen(range(len(words)), fraction, random))
    if len(lost) == len(words):
        lost.remove(random.randrange(len(words)))
    return [word for position, word in enumerate(words) if position not in lost]


def swapped(words: Sequence[str], fraction: float, random: Random) -> list[str]:
    """Pairs of words in each other's place, as many as move about `fraction` of the words, at least one pair."""
    result = list(words)
    if len(result) < 2:
        return result
    for _ in range(max(1, round(fraction * len(result) / 2))):
        first, second = random.sample(range(len(result)), 2)
        result[first], result[second] = result[second], result[first]
    return result


def cropped(words: Sequence[str], fraction: float, random: Random) -> list[str]:
    """A span of the words that leaves out `fraction` of them: at least one is left out, and at least one stays."""
    if len(words) < 2:
        return list(words)
    num_kept = min(max(round((1 - fraction) * len(words)), 1), len(words) - 1)
    start = random.randrange(len(words) - num_kept + 1)
    return list(words[start : start + num_kept])
