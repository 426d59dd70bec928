"""Words like a word, by the embeddings that a model reads: no download of word vectors, no forward pass.

The neighbours of w are the whole words v with the largest cos(e(w), e(v)), e being the model's input embeddings; a
word of several pieces has their mean. TinyBERT takes GloVe in its place (Jiao et al. 2020, https://arxiv.org/abs/1909.10351,
Algorithm 1). Such neighbours stand in similar places, so opposites are among them ("good", "bad").
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilbert_kd.augmentation.whole_words import pieces_of, whole_words


__all__ = ["EmbeddingNeighbours"]

_NUM_WORDS_AT_ONCE = 256


class EmbeddingNeighbours:
    """The whole words of a vocabulary as directions, to look up who is near."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Takes the input embeddings of a model, (V, H), as they are now."""
        self._tokenizer = tokenizer
        weight: Tensor = model.get_input_embeddings().state_dict()["weight"]
        self._embeddings = weight.cpu().float()
        words = whole_words(tokenizer)
        self._words = list(words.values())
        self._directions = normalize(self._embeddings[list(words)], dim=-1)

    def of(self, words: Iterable[str], num_neighbours: int) -> dict[str, list[str]]:
        """The nearest other words of each word.

        Args:
            words: letters alone.
            num_neighbours: at most.

        Returns:
            Word to neighbours, the nearest first; none for a word that the tokenizer doesn't know.
        """
        pieces = {word: ids for word, ids in pieces_of(words, self._tokenizer).items() if self._is_known(ids)}
        names, found = list(pieces), {}
        for start in range(0, len(names), _NUM_WORDS_AT_ONCE):
            some = names[start : start + _NUM_WORDS_AT_ONCE]
            cosines = torch.stack([self._direction(pieces[word]) for word in some]) @ self._directions.T
            # More than are wanted, because the word itself is among them, maybe in several spellings.
            nearest = cosines.topk(min(num_neighbours + 4, len(self._words)), dim=-1).indices.tolist()
            for word, numbers in zip(some, nearest, strict=True):
                others = [self._words[n] for n in numbers if self._words[n].casefold() != word.casefold()]
                found[word] = others[:num_neighbours]
        return found

    def _is_known(self, ids: list[int]) -> bool:
        return bool(ids) and self._tokenizer.unk_token_id not in ids

    def _direction(self, ids: list[int]) -> Tensor:
        """(H,): of length 1."""
        return normalize(self._embeddings[ids].mean(dim=0), dim=-1)
