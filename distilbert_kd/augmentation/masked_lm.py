"""Words that fit in the place of a word, by a masked language model.

Each word is masked alone, in its text; the candidates are the K most probable whole words there. Source: TinyBERT's
data augmentation (Jiao et al. 2020, https://arxiv.org/abs/1909.10351, Algorithm 1), after Wu et al. 2019.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from distilbert_kd.augmentation.whole_words import pieces_of, whole_words
from distilbert_kd.augmentation.words import core_of, replaced
from distilbert_kd.pretraining.models import decoder_of, undecoded
from distilbert_kd.task_rows import max_length_of
from distilbert_kd.teacher import load_model, load_tokenizer


__all__ = ["MaskedLM", "Place", "load_masked_lm"]

_NUM_TEXTS_AT_ONCE = 64


class Place(NamedTuple):
    """A word in its text: the words, and which one."""

    words: tuple[str, ...]
    position: int


class MaskedLM:
    """A masked language model with its tokenizer, to ask what else may stand somewhere."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        """Takes a model whose head is not random, and moves it to the device."""
        self.model: Any = model.eval().to(device)
        self.tokenizer = tokenizer
        self._device = device
        self._decoder = decoder_of(model)
        words = whole_words(tokenizer)
        self._words = list(words.values())
        self._ids = torch.tensor(list(words), device=device)
        self._max_length = min(max_length_of(model.config) or 512, 512)

    def single_pieces(self, words: Iterable[str]) -> set[str]:
        """The words that are one piece to this model, which alone can be masked by one mask."""
        return {word for word, ids in pieces_of(words, self.tokenizer).items() if len(ids) == 1}

    def candidates(self, places: Sequence[Place], num_candidates: int) -> dict[Place, list[str]]:
        """What may stand at each place.

        Args:
            places: of words that are one piece.
            num_candidates: K.

        Returns:
            Place to words, the most probable first, without the word that stands there; none for a place beyond the
            largest length.
        """
        found = {}
        ordered = sorted(set(places), key=lambda place: (len(place.words), place))  # little padding
        for start in range(0, len(ordered), _NUM_TEXTS_AT_ONCE):
            some = ordered[start : start + _NUM_TEXTS_AT_ONCE]
            for place, logits in zip(some, self._logits(some), strict=True):
                num = min(num_candidates + 2, len(self._words))  # the word itself is among them
                best = [] if logits is None else logits.index_select(0, self._ids).topk(num).indices.tolist()
                own = core_of(place.words[place.position]).casefold()
                found[place] = [self._words[n] for n in best if self._words[n].casefold() != own][:num_candidates]
        return found

    @torch.no_grad()
    def _logits(self, places: Sequence[Place]) -> list[Tensor | None]:
        """(V,) for each place; None where the mask was cut off."""
        batch = self.tokenizer(
            [self._masked(place) for place in places],
            truncation=True,
            max_length=self._max_length,
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        with undecoded(self.model):
            states = self.model(**batch).logits
        is_mask = batch["input_ids"] == self.tokenizer.mask_token_id
        # A text may hold the word for a mask itself; those of them that stand before ours are counted.
        mask = str(self.tokenizer.mask_token)
        num_before = [sum(word.count(mask) for word in place.words[: place.position]) for place in places]
        is_ours = is_mask & (is_mask.cumsum(dim=-1) == torch.tensor(num_before, device=self._device)[:, None] + 1)
        logits = states[torch.arange(len(places)), is_ours.int().argmax(dim=-1)]
        if logits.shape[-1] == self._decoder.in_features:  # not for MobileBERT, which doesn't call its decoder
            logits = linear(logits, self._decoder.weight, self._decoder.bias)
        return [row if is_there else None for row, is_there in zip(logits, is_ours.any(dim=-1).tolist(), strict=True)]

    def _masked(self, place: Place) -> str:
        words = list(place.words)
        words[place.position] = replaced(words[place.position].lower(), str(self.tokenizer.mask_token))
        return " ".join(words)


def load_masked_lm(name: str, revision: str | None, device: torch.device) -> MaskedLM | None:
    """A masked language model with its own head.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION`.
        revision: of the Hub repository.
        device: to ask it on.

    Returns:
        The model; None if the checkpoint has no head, which would then be random, or the tokenizer no mask.

    Raises:
        TeacherError: it can't be loaded.
    """
    model, loading = load_model(name, revision, AutoModelForMaskedLM)
    tokenizer = load_tokenizer(name, revision)
    missing = [key for key in loading["missing_keys"] if "pooler." not in key]
    if missing or tokenizer.mask_token is None or not isinstance(model.get_output_embeddings(), nn.Linear):
        return None
    return MaskedLM(model, tokenizer, device)
