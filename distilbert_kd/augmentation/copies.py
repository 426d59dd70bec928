"""Altered copies of rows: which words change is drawn first, then the models are asked about all of them at once.

What is drawn for a copy depends on the seed, its row's texts and its number alone, so that a row has the same copies
whatever rows stand beside it. A row of two texts has one of them altered, drawn for each copy.

The schemes, of which each copy draws one by its weight; p is `fraction`, K is `num_candidates`:

    masked_lm             a word of one piece becomes one of the K words that a masked language model finds most
                          probable there, a word of several pieces one of its K embedding neighbours (TinyBERT)
    embedding_neighbours  each becomes one of its K neighbours in the teacher's input embeddings
    deletion, swap, span  words are left out, change places, or only a span of them is kept

Source: TinyBERT's data augmentation (Jiao et al. 2020, https://arxiv.org/abs/1909.10351, Algorithm 1); deletion and
swap are those of Wei and Zou 2019, https://arxiv.org/abs/1901.11196, section 2.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import datasets

from distilbert_kd.augmentation.embedding_neighbours import EmbeddingNeighbours
from distilbert_kd.augmentation.masked_lm import MaskedLM, Place
from distilbert_kd.augmentation.words import chosen, core_of, cropped, deleted, replaceable, replaced, swapped


__all__ = ["EMBEDDING_NEIGHBOURS", "MASKED_LM", "Copy", "Scheme", "make_copies"]

logger = logging.getLogger(__name__)

MASKED_LM = "masked_lm"
EMBEDDING_NEIGHBOURS = "embedding_neighbours"
_WITHOUT_MODEL = {"deletion": deleted, "swap": swapped, "span": cropped}


@dataclass(frozen=True)
class Scheme:
    """How copies are made.

    Attributes:
        num_copies: Of each row.
        methods: Name to weight, above 0.
        fraction: p, the share of the words that change.
        num_candidates: K.
        seed: Of all draws.
    """

    num_copies: int
    methods: Mapping[str, float]
    fraction: float
    num_candidates: int
    seed: int


@dataclass(frozen=True)
class Copy:
    """An altered row.

    Attributes:
        source: Number of its row.
        method: That altered it.
        column: "text" or "text_pair", whichever it altered.
        text: The altered text.
    """

    source: int
    method: str
    column: str
    text: str


@dataclass(frozen=True)
class _Draft:
    """A copy before the models were asked: which words change, and what draws among the candidates."""

    source: int
    method: str
    column: str
    words: tuple[str, ...]
    positions: tuple[int, ...]
    random: Random


def make_copies(
    rows: datasets.Dataset, scheme: Scheme, neighbours: EmbeddingNeighbours | None, masked_lm: MaskedLM | None
) -> list[Copy]:
    """Makes the copies of all rows, the equal and the unchanged among them.

    Args:
        rows: with `text` and maybe `text_pair`.
        scheme: how.
        neighbours: for the schemes that replace words; may be None for others.
        masked_lm: for `masked_lm`.

    Returns:
        `num_copies` for each row that has a word, row after row.
    """
    columns = [name for name in ("text", "text_pair") if name in rows.column_names]
    plain = rows.select_columns(columns).with_format(None)
    drafts = [
        draft
        for source, row in enumerate(plain)
        for number in range(scheme.num_copies)
        for draft in _drafted(source, [row[name] for name in columns], columns, number, scheme)
    ]
    places = [(draft.method, Place(draft.words, at)) for draft in drafts for at in draft.positions]
    candidates = _candidates(places, scheme.num_candidates, neighbours, masked_lm)
    return [_copied(draft, scheme.fraction, candidates) for draft in drafts]


def _drafted(source: int, texts: Sequence[str], columns: Sequence[str], number: int, scheme: Scheme) -> list[_Draft]:
    """One draft; none for a row without a word."""
    random = Random(repr((scheme.seed, tuple(texts), number)))  # a text as seed gives the same on every machine
    names = sorted(scheme.methods)
    (method,) = random.choices(names, weights=[scheme.methods[name] for name in names])
    filled = [(column, words) for column, text in zip(columns, texts, strict=True) if (words := tuple(text.split()))]
    if not filled:
        return []
    column, words = random.choice(filled)
    needs_candidates = method not in _WITHOUT_MODEL
    positions = chosen(replaceable(words), scheme.fraction, random) if needs_candidates else []
    return [_Draft(source, method, column, words, tuple(positions), random)]


def _candidates(
    places: Sequence[tuple[str, Place]],
    num_candidates: int,
    neighbours: EmbeddingNeighbours | None,
    masked_lm: MaskedLM | None,
) -> dict[tuple[str, Place], list[str]]:
    """Method and place to the words that may stand there."""
    if not places:
        return {}
    assert neighbours is not None
    words = {place: core_of(place.words[place.position]) for _, place in places}
    masked: dict[Place, list[str]] = {}
    if masked_lm is not None:
        single = masked_lm.single_pieces(words.values())
        wanted = [place for method, place in places if method == MASKED_LM and words[place] in single]
        logger.info("augmentation: asking the masked language model about %d words", len(wanted))
        masked = masked_lm.candidates(wanted, num_candidates)
    left = [words[place] for method, place in places if method != MASKED_LM or place not in masked]
    near = neighbours.of(left, num_candidates)
    return {
        (method, place): masked[place] if method == MASKED_LM and place in masked else near.get(words[place], [])
        for method, place in places
    }


def _copied(draft: _Draft, fraction: float, candidates: Mapping[tuple[str, Place], list[str]]) -> Copy:
    if draft.method in _WITHOUT_MODEL:
        words = _WITHOUT_MODEL[draft.method](draft.words, fraction, draft.random)
    else:
        words = list(draft.words)
        for at in draft.positions:
            cores = candidates[draft.method, Place(draft.words, at)]
            if cores:
                words[at] = replaced(words[at], draft.random.choice(cores))
    return Copy(draft.source, draft.method, draft.column, " ".join(words))
